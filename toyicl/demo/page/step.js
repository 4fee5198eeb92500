// One step: the same prediction computed as gradient descent on a line, as attention, and as a change of the labels.

const step = {
  points: [[-0.9, -0.95], [-0.55, -0.2], [-0.2, -0.35], [0.3, 0.05], [0.62, 0.75], [0.92, 0.7]],
  query: 0.5,
  rate: 2,
  attention: "linear",
  sharpness: 4,
  view: "attention",
  drawn: 0,
};
const REACH = { x: 2.1, y: 2 };
const MOST = { x: 1.1, y: 1.5, query: 2 }; // largest coordinates of a dragged point, and of the query
const PLANE = {
  x: [-REACH.x, REACH.x], y: [-REACH.y, REACH.y], xticks: [-2, -1, 0, 1, 2], yticks: [-2, -1, 0, 1, 2],
  xlabel: "input x", ylabel: "label y", height: 290, left: 46, bottom: 54,
};
const STRIP = 96; // width of the terms next to the attention weights

// The prediction by each of the three methods, each computed by its own formula; that of attention also as softmax.
function threeWays() {
  const x = step.points.map(([x]) => [x]);
  const y = step.points.map(([, y]) => y);
  const query = [step.query];
  const count = x.length;
  const soft = step.attention === "softmax";
  const head = soft ? softmaxHead(step.sharpness, 1, 1) : constructedHead(step.rate, count, 1);
  const moved = movedLabels(x, y, query, step.rate);
  return {
    soft,
    weight: descentWeights(x, y, step.rate, 1)[0],
    attention: transformer({ layers: [[head]], fraction: soft ? 1 : 0 }, x, y, query),
    moved,
    descent: gradientDescent(x, y, query, step.rate, 1),
    data: -moved.query,
    weights: soft
      ? softmaxWeights([step.sharpness * step.query], x, 1)
      : x.map((point) => (step.rate / count) * point[0] * step.query),
    lowest: Math.min(...y),
    highest: Math.max(...y),
  };
}

function drawStep() {
  const found = threeWays();
  drawDescent(found);
  drawAttention(found);
  drawData(found);
  drawWeights(found);
  const answers = [found.descent, found.attention, found.data];
  ["descent", "attention", "data"].forEach((name, i) => write(`step-${name}-out`, shown(answers[i], 4)));
  write("step-message", found.soft ? softmaxSentence(found) : linearSentence(answers));
  write("step-rate-out", shown(step.rate, 2));
  write("step-sharpness-out", shown(step.sharpness, 1));
  byId("one-step").dataset.view = step.view;
  announce("step-live", `Step size ${shown(step.rate, 2)}, query ${shown(step.query, 2)}. ${byId("step-message").textContent}`);
  if (typeof drawValley === "function") drawValley();
}

function linearSentence(answers) {
  const gap = Math.max(...answers) - Math.min(...answers);
  const apart = gap === 0 ? "0" : minus(gap.toExponential(0));
  return `All three answers are ${shown(answers[0], 4)}; the largest difference between them is ${apart}.`;
}

// Softmax answers lie between the lowest and the highest label, whatever the sharpness and the query.
function softmaxSentence({ attention, descent, lowest, highest }) {
  const limits = `between the labels, ${shown(lowest, 2)} to ${shown(highest, 2)}`;
  const beyond = descent < lowest || descent > highest;
  return beyond
    ? `The step answers ${shown(descent, 2)}. Softmax cannot: it stays ${limits}, at ${shown(attention, 2)}.`
    : `The step answers ${shown(descent, 2)}, softmax ${shown(attention, 2)}, always ${limits}.`;
}

// The answer is at one height in all three figures, on one dashed line; the query is on the axis below.
function drawQuery(area, answer) {
  line(area, [[-3, answer], [3, answer]], "query dashed");
  line(area, [[step.query, -3], [step.query, 3]], "query thin");
  mark(area, step.query, answer, "diamond", "query", 7);
  const at = { x: area.X(step.query), y: area.Y(-REACH.y) };
  area.node.append(
    svg("path", { d: SHAPES.diamond(7), class: "mark query open", transform: `translate(${at.x} ${at.y})` }),
    svg("path", { d: `M${at.x - 12} ${at.y - 5}l-6 5l6 5M${at.x + 12} ${at.y - 5}l6 5l-6 5`, class: "line query" }),
  );
}

function numbered(area, i, x, y, bare = false) {
  area.layer.append(
    svg("text", { x: area.X(x), y: area.Y(y) + 6, class: bare ? "digit bare" : "digit", "text-anchor": "middle", "data-point": i }, String(i + 1)),
  );
}

function point(area, i, x, y, radius = 11, kind = "") {
  mark(area, x, y, "circle", `p${i + 1} ${kind}`, radius).dataset.point = i;
  numbered(area, i, x, y);
}

function drawDescent(found) {
  const area = frame(byId("step-descent"), "The line before and after one step", PLANE);
  line(area, [[-3, 0], [3, 0]], "quiet dashed");
  line(area, [[-3, -3 * found.weight], [3, 3 * found.weight]], "reference thick");
  drawQuery(area, found.descent);
  step.points.forEach(([x, y], i) => point(area, i, x, y));
  write("step-descent-aside", `slope w = ${shown(found.weight, 3)}`);
  handles(area, true);
}

function drawAttention(found) {
  const area = frame(byId("step-attention"), "Attention weights of the points, and the terms that add up to the answer", {
    ...PLANE, right: STRIP + 14, xticks: [-2, 0, 2],
  });
  if (found.soft) {
    const [top, bottom] = [area.Y(found.highest), area.Y(found.lowest)];
    area.layer.append(svg("rect", { x: area.inside.x, y: top, width: area.inside.width, height: bottom - top, class: "band" }));
    line(area, [[-3, found.weight * -3], [3, found.weight * 3]], "reference thin");
  }
  drawQuery(area, found.attention);
  found.weights.forEach((weight, i) => {
    const [x, y] = step.points[i];
    const radius = 40 * Math.sqrt(Math.min(Math.abs(weight), 2)); // the disc's area is the weight
    mark(area, x, y, "circle", `p${i + 1} ${weight < 0 ? "negative" : ""}`, Math.max(radius, 1.5)).dataset.point = i;
    numbered(area, i, x, y, radius < 9);
  });
  drawTerms(area, found);
  handles(area, false);
}

// Each point adds its weight times its label; the sum of these terms, from 0, is the answer.
function drawTerms(area, found) {
  const from = WIDTH - STRIP;
  const { y: top, height } = area.inside;
  const bounded = (value) => area.Y(Math.max(-REACH.y, Math.min(REACH.y, value)));
  area.node.append(
    svg("rect", { x: from, y: top, width: STRIP - 8, height, class: "frame" }),
    svg("line", { x1: from, x2: WIDTH - 8, y1: area.Y(0), y2: area.Y(0), class: "grid" }),
    svg("text", { x: from + STRIP / 2 - 4, y: top + height + 20, class: "tick", "text-anchor": "middle" }, "terms"),
  );
  const width = (STRIP - 12) / found.weights.length;
  let at = 0;
  found.weights.forEach((weight, i) => {
    const next = at + weight * step.points[i][1];
    const [high, low] = [bounded(at), bounded(next)].sort((a, b) => a - b);
    const left = from + 2 + i * width;
    area.node.append(
      svg("rect", {
        x: left + 1, y: high, width: width - 2, height: Math.max(low - high, 1), "data-point": i,
        class: `mark p${i + 1} ${next < at ? "negative" : ""}`,
      }),
      svg("text", { x: left + width / 2, y: top + height - 5, class: "digit small", "text-anchor": "middle", "data-point": i }, String(i + 1)),
    );
    at = next;
  });
  area.node.append(svg("path", { d: `M${area.X(step.query)} ${bounded(at)}H${WIDTH - 8}`, class: "line query dashed" }));
}

// The weights side by side. The box has length 1, which softmax always fills.
function drawWeights(found) {
  const node = byId("step-weights");
  const box = { x: 2, y: 2, width: 150, height: 26 };
  const children = [svg("rect", { ...box, class: "frame" })];
  let at = 0;
  found.weights.forEach((weight, i) => {
    const [left, right] = [at, at + Math.abs(weight)].map((value) => box.x + box.width * Math.min(value, 1.45));
    if (right - left > 0.3) {
      children.push(svg("rect", { x: left, y: 5, width: right - left, height: 20, class: `mark p${i + 1} ${weight < 0 ? "negative" : ""}`, "data-point": i }));
    }
    if (right - left > 13) children.push(svg("text", { x: (left + right) / 2, y: 21, class: "digit", "text-anchor": "middle", "data-point": i }, String(i + 1)));
    at += Math.abs(weight);
  });
  const sum = found.weights.reduce((total, weight) => total + weight, 0);
  fill(node, { viewBox: "0 0 222 30", role: "img", "aria-label": `Attention weights; their sum is ${shown(sum, 2)}` }, []);
  node.replaceChildren(...children);
  write("step-sum", found.soft ? `sum ${shown(sum, 2)}, positive` : `sum ${shown(sum, 2)}, mixed`);
}

// Every label is split into the part that the step explains, from 0, and the rest, which is the label after the step.
function drawData(found) {
  const area = frame(byId("step-data"), "The part of every label that the step explains, and the rest", PLANE);
  line(area, [[-3, 0], [3, 0]], "quiet thin");
  drawQuery(area, found.data);
  step.points.forEach(([x, y], i) => {
    const explained = y - found.moved.labels[i];
    bar(area, x, explained, `p${i + 1}`, i);
    line(area, [[x, explained], [x, y]], "ink dotted");
    point(area, i, x, y, 9, "open");
  });
  bar(area, step.query, found.data, "query");
  write("step-data-aside", "bar: explained part; dots: the rest");
  handles(area, false);
}

function bar(area, x, to, kind, i) {
  const [high, low] = [area.Y(0), area.Y(to)].sort((a, b) => a - b);
  const node = svg("rect", { x: area.X(x) - 7, y: high, width: 14, height: low - high, class: `mark ${kind}` });
  if (i !== undefined) node.dataset.point = i;
  area.layer.append(node);
}

// The handles: every point can be dragged, and the query along x. Those of one figure also accept the keyboard.
function handles(area, keyboard) {
  const { root } = area;
  root.area = area;
  if (!root.querySelector(".handle")) {
    const count = step.points.length + 1;
    root.append(...Array.from({ length: count }, (_, i) => handle(root, i, keyboard)));
  }
  root.querySelectorAll(".handle").forEach((node, i) => {
    const isQuery = i === step.points.length;
    const [x, y] = isQuery ? [step.query, -REACH.y] : step.points[i];
    node.setAttribute("transform", `translate(${area.X(x)} ${area.Y(y)})`);
    if (keyboard) {
      node.setAttribute("aria-valuenow", (isQuery ? x : y).toFixed(2));
      node.setAttribute("aria-valuetext", isQuery ? `x ${x.toFixed(2)}` : `x ${x.toFixed(2)}, y ${y.toFixed(2)}`);
    }
  });
}

function handle(node, index, keyboard) {
  const isQuery = index === step.points.length;
  const reach = isQuery ? MOST.query : MOST.y;
  const spoken = isQuery ? "Query: move it with the left and right arrow keys" : `Point ${index + 1}: move it with the arrow keys`;
  const attributes = keyboard
    ? {
        tabindex: 0, role: "slider", "aria-label": spoken, "aria-valuemin": -reach, "aria-valuemax": reach,
        "aria-valuenow": 0,
      }
    : { "aria-hidden": "true" };
  const grip = svg("g", { class: "handle", "data-index": index, ...attributes }, svg("circle", { r: 20 }));
  if (!isQuery) grip.dataset.point = index;
  grip.addEventListener("pointerdown", (event) => {
    grip.setPointerCapture(event.pointerId);
    event.preventDefault();
    if (keyboard) grip.focus();
  });
  grip.addEventListener("pointermove", (event) => {
    if (!grip.hasPointerCapture(event.pointerId)) return;
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(node.getScreenCTM().inverse());
    const { X, Y } = node.area;
    const slope = (map) => map(1) - map(0);
    move(index, (at.x - X(0)) / slope(X), (at.y - Y(0)) / slope(Y));
  });
  grip.addEventListener("keydown", (event) => {
    const amount = event.shiftKey ? 0.2 : 0.05;
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
    if (!(event.key in moves)) return;
    event.preventDefault();
    event.stopPropagation();
    const [dx, dy] = moves[event.key];
    const [x, y] = isQuery ? [step.query, 0] : step.points[index];
    move(index, x + amount * (isQuery ? dx + dy : dx), y + amount * dy);
  });
  return grip;
}

function move(index, x, y) {
  const bound = (value, most) => Math.max(-most, Math.min(most, value));
  const isQuery = index === step.points.length;
  if (isQuery) step.query = bound(x, MOST.query);
  else step.points[index] = [bound(x, MOST.x), bound(y, MOST.y)];
  drawStep();
  changed(isQuery ? "query" : "points");
}

// Marks, terms and bars of one point are emphasised together.
function emphasise(index) {
  for (const [i] of step.points.entries()) byId("one-step").classList.toggle(`lit-${i}`, String(i) === index);
}

function newPoints() {
  step.drawn += 1;
  const random = generator(step.drawn);
  const weight = 0.5 + 0.9 * random();
  const sign = random() < 0.5 ? -1 : 1;
  step.points = step.points.map(() => {
    const x = Math.round(100 * (2 * random() - 1)) / 100;
    const y = Math.max(-1.5, Math.min(1.5, sign * weight * x + 0.12 * normal(random)));
    return [x, Math.round(100 * y) / 100];
  });
  drawStep();
  changed("points");
}

function registerPoints() {
  const round = (value) => Math.round(1000 * value) / 1000;
  register("points", "one-step", {
    get: () => step.points.map((pair) => pair.map(round).join(",")).join(";"),
    set: (text) => {
      const points = text.split(";").map((pair) => pair.split(",").map(Number));
      const inside = ([x, y]) => Math.abs(x) <= MOST.x && Math.abs(y) <= MOST.y;
      step.points = allowed(points, points.length === step.points.length && points.every((pair) => pair.length === 2 && inside(pair)));
    },
    draw: drawStep,
  });
  register("query", "one-step", {
    get: () => String(round(step.query)),
    set: (text) => {
      step.query = allowed(Number(text), text !== "" && Math.abs(Number(text)) <= MOST.query);
    },
    draw: drawStep,
  });
}

function startStep() {
  slider(["step-rate", "valley-rate"], "rate", step, "rate", drawStep);
  choices("step-attention-kind", "step-attention-kind", "attention", [["linear", "linear"], ["softmax", "softmax"]], step, "attention", drawStep);
  slider("step-sharpness", "sharpness", step, "sharpness", drawStep);
  choices("step-view", "step-view", "card", [["descent", "descent"], ["attention", "attention"], ["data", "labels"]], step, "view", drawStep);
  registerPoints();
  byId("step-best").addEventListener("click", () => {
    const square = mean(step.points.map(([x]) => x * x));
    step.rate = Math.min(Number(byId("step-rate").max), Math.round(1e4 / square) / 1e4);
    controls.get("rate").draw();
    changed("rate");
  });
  byId("step-new").addEventListener("click", newPoints);
  const section = byId("one-step");
  for (const kind of ["pointerover", "focusin"]) section.addEventListener(kind, ({ target }) => emphasise(target.closest("[data-point]")?.dataset.point));
  section.addEventListener("pointerleave", () => emphasise(undefined));
  drawStep();
}
