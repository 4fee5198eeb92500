// Helper functions: elements, number formatting, axes of a figure, and screen-reader announcements.

const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function html(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

function byId(id) {
  return document.getElementById(id);
}

function shown(value, digits = 3) {
  if (!Number.isFinite(value)) return "not finite";
  const text = Math.abs(value) < 1e5 ? value.toFixed(digits) : value.toExponential(1);
  return text.replace(/^-(?=[0.]*$)/, "").replace("-", "\u2212");
}

// Axes of a figure: a frame with ticks, and functions that map values to pixels. WIDTH is in pixels.
const WIDTH = 400;

// A number of an element as text: fixed digits, so that the text keeps its width.
function minus(value) {
  return String(value).replace("-", "\u2212");
}

function frame(root, label, options) {
  root.setAttribute("aria-label", label);
  const key = JSON.stringify(options);
  // The frame is drawn again only if its axes change; text is what takes longest to lay out.
  if (root.axes?.key !== key) root.axes = axes(root, options, key);
  const { node, fixed, ...area } = root.axes;
  while (node.childNodes.length > fixed) node.lastChild.remove();
  const layer = svg("g", { "clip-path": `url(#clip-${root.id})` });
  node.append(layer);
  return { ...area, layer, node, root };
}

function axes(root, options, key) {
  const { x, y, xlabel, ylabel, xticks, yticks, height = 290, left = 62, bottom = 60, right = 12 } = options;
  const top = 12;
  // Only the drawing is replaced; the handles above it are kept, so that they do not lose keyboard focus.
  const node = svg("g", { class: "drawing" });
  root.querySelector(".drawing")?.remove();
  root.prepend(node);
  root.setAttribute("viewBox", `0 0 ${WIDTH} ${height}`);
  if (root.getAttribute("role") !== "group") root.setAttribute("role", "img");
  const place = (value, [low, high], from, to) => from + ((value - low) / (high - low)) * (to - from);
  const X = (value) => place(value, x, left, WIDTH - right);
  const Y = (value) => place(value, y, height - bottom, top);
  const inside = { x: left, y: top, width: WIDTH - right - left, height: height - bottom - top };
  node.append(svg("clipPath", { id: `clip-${root.id}` }, svg("rect", inside)), svg("rect", { ...inside, class: "frame" }));
  for (const tick of xticks) {
    const text = typeof tick === "object" ? tick : { at: tick, text: minus(tick) };
    node.append(
      svg("line", { class: "grid", x1: X(text.at), x2: X(text.at), y1: top, y2: height - bottom }),
      svg("text", { x: X(text.at), y: height - bottom + 22, class: "tick", "text-anchor": "middle" }, text.text),
    );
  }
  for (const tick of yticks) {
    const text = typeof tick === "object" ? tick : { at: tick, text: minus(tick) };
    node.append(
      svg("line", { class: "grid", x1: left, x2: WIDTH - right, y1: Y(text.at), y2: Y(text.at) }),
      svg("text", { x: left - 8, y: Y(text.at) + 6, class: "tick", "text-anchor": "end" }, text.text),
    );
  }
  const middle = (height - bottom + top) / 2;
  node.append(
    svg("text", { x: (left + WIDTH - right) / 2, y: height - 12, class: "label", "text-anchor": "middle" }, xlabel),
    svg(
      "text",
      { x: 18, y: middle, class: "label", "text-anchor": "middle", transform: `rotate(-90 18 ${middle})` },
      ylabel,
    ),
  );
  return { key, node, fixed: node.childNodes.length, X, Y, inside };
}

function line(area, points, kind) {
  const limit = (pixel) => Math.max(-1e4, Math.min(1e4, pixel));
  const text = points
    .filter(([, y]) => Number.isFinite(y))
    .map(([x, y], i) => `${i ? "L" : "M"}${area.X(x).toFixed(2)} ${limit(area.Y(y)).toFixed(2)}`)
    .join("");
  const node = svg("path", { d: text, class: `line ${kind}` });
  area.layer.append(node);
  return node;
}

// Marks differ in shape as well as in colour, so that colour is not needed to distinguish them.
const SHAPES = {
  circle: (r) => `M${-r} 0a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0Z`,
  diamond: (r) => `M0 ${-1.3 * r}L${1.3 * r} 0L0 ${1.3 * r}L${-1.3 * r} 0Z`,
  triangle: (r) => `M0 ${-1.2 * r}L${1.2 * r} ${r}L${-1.2 * r} ${r}Z`,
  square: (r) => `M${-r} ${-r}H${r}V${r}H${-r}Z`,
};

function mark(area, x, y, shape, kind, radius = 6) {
  const node = svg("path", { d: SHAPES[shape](radius), class: `mark ${kind}` });
  if (Number.isFinite(y)) {
    node.setAttribute("transform", `translate(${area.X(x)} ${area.Y(y)})`);
    area.layer.append(node);
  }
  return node;
}

function arrow(area, x, from, to, kind) {
  const [a, b] = [area.Y(from), area.Y(to)];
  const at = area.X(x);
  if (Math.abs(a - b) < 1) return;
  const head = Math.min(8, Math.abs(a - b)) * Math.sign(b - a);
  area.layer.append(
    svg("path", { d: `M${at} ${a}V${b}M${at - 5} ${b - head}L${at} ${b}L${at + 5} ${b - head}`, class: `line ${kind}` }),
  );
}

// A legend shows each line and mark in the style of the figure, with its description: (style, text, shape of its marks,
// whether there are marks only).
function legend(id, entries) {
  byId(id).replaceChildren(
    ...entries.map(([kind, text, shape, bare]) => {
      const stroke = bare ? [] : [svg("path", { d: "M0 8H28", class: `line ${kind}` })];
      const sample = shape ? [svg("path", { d: SHAPES[shape](5), class: `mark ${kind.replace(/\b(thick|thin|dashed-long|dashed|dotted)\b/g, "")}`, transform: "translate(14 8)" })] : [];
      const picture = svg("svg", { viewBox: "0 0 28 16", width: 28, height: 16, "aria-hidden": "true" }, ...stroke, ...sample);
      return html("li", {}, picture, ` ${text}`);
    }),
  );
}

// One sentence for screen readers, half a second after the last change of a control.
const waiting = {};
function announce(id, sentence) {
  clearTimeout(waiting[id]);
  waiting[id] = setTimeout(() => {
    byId(id).textContent = sentence;
  }, 500);
}

function write(id, text) {
  byId(id).textContent = text;
}
