// One step: the same prediction computed as gradient descent on a line, as attention, and as a change of the labels.

const step = {
  points: [[-0.9, -0.95], [-0.55, -0.2], [-0.2, -0.35], [0.3, 0.05], [0.62, 0.75], [0.92, 0.7]],
  query: 0.5,
  rate: 2,
  drawn: 0,
};
const REACH = 1.6;
const MOST = { x: 1.1, y: 1.5 }; // largest coordinates of a dragged point
const PLANE = { x: [-1.15, 1.15], y: [-REACH, REACH], xticks: [-1, 0, 1], yticks: [-1, 0, 1] };

// The prediction by each of the three methods, each computed by its own formula.
function threeWays() {
  const x = step.points.map(([x]) => [x]);
  const y = step.points.map(([, y]) => y);
  const query = [step.query];
  const count = x.length;
  const head = constructedHead(step.rate, count, 1);
  const moved = movedLabels(x, y, query, step.rate);
  return {
    weight: descentWeights(x, y, step.rate, 1)[0],
    attention: transformer({ layers: [[head]], fraction: 0 }, x, y, query),
    moved,
    descent: gradientDescent(x, y, query, step.rate, 1),
    data: -moved.query,
    scores: x.map((point) => (step.rate / count) * point[0] * step.query),
  };
}

function drawStep() {
  const found = threeWays();
  drawDescent(found);
  drawAttention(found);
  drawData(found);
  const answers = [found.descent, found.attention, found.data];
  ["descent", "attention", "data"].forEach((name, i) => write(`step-${name}-out`, shown(answers[i], 4)));
  const gap = Math.max(...answers) - Math.min(...answers);
  const apart = gap === 0 ? "0" : gap.toExponential(0).replace("-", "\u2212");
  write("step-agree", `All three views predict ${shown(found.descent, 4)}. The largest difference between them is ${apart}.`);
  write("step-rate-out", shown(step.rate, 2));
  byId("step-rate").value = step.rate;
  announce(
    "step-live",
    `Step size ${shown(step.rate, 2)}. All three views predict ${shown(found.descent, 3)} at the query ${shown(step.query, 2)}.`,
  );
}

function drawDescent(found) {
  const area = frame(byId("step-descent"), "The line before and after one step", {
    ...PLANE, xlabel: "input x", ylabel: "label y",
  });
  line(area, [[-2, 0], [2, 0]], "reference dashed");
  line(area, [[-2, -2 * found.weight], [2, 2 * found.weight]], "model thick");
  step.points.forEach(([x, y]) => mark(area, x, y, "circle", "plain", 7));
  line(area, [[step.query, -2], [step.query, 2]], "query thin");
  mark(area, step.query, found.descent, "diamond", "query", 8);
  handles(area, true, found.descent);
}

function drawAttention(found) {
  const strip = 96;
  const area = frame(byId("step-attention"), "Attention weights of the points, and the term that each adds to the query's y-entry", {
    ...PLANE, xlabel: "input x", ylabel: "y-entry of the token", right: strip + 14,
  });
  line(area, [[step.query, -2], [step.query, 2]], "query thin");
  found.scores.forEach((weight, i) => {
    const [x, y] = step.points[i];
    const radius = Math.max(3, 34 * Math.sqrt(Math.abs(weight)));
    mark(area, x, y, "circle", weight < 0 ? "minus" : "plus", radius);
    if (radius > 6) {
      const sign = weight < 0 ? "\u2212" : "+";
      area.layer.append(
        svg("text", { x: area.X(x), y: area.Y(y) + 6, class: "sign", "text-anchor": "middle" }, sign),
      );
    }
  });
  // Cumulative sum: the query's y-entry starts at 0, and each point adds minus its weight times its label.
  const stairs = svg("g", {});
  area.node.append(
    svg("rect", { x: WIDTH - strip, y: area.inside.y, width: strip - 8, height: area.inside.height, class: "frame" }),
    svg("text", { x: WIDTH - strip / 2 - 4, y: area.inside.y + area.inside.height + 20, class: "tick", "text-anchor": "middle" }, "terms"),
    stairs,
  );
  const bounded = (value) => area.Y(Math.max(-REACH, Math.min(REACH, value)));
  const width = (strip - 16) / found.scores.length;
  let at = 0;
  found.scores.forEach((weight, i) => {
    const next = at - weight * step.points[i][1];
    const left = WIDTH - strip + 4 + i * width;
    const [high, low] = [Math.min(bounded(at), bounded(next)), Math.max(bounded(at), bounded(next))];
    stairs.append(
      svg("rect", { x: left + 1, y: high, width: width - 2, height: Math.max(low - high, 1), class: next < at ? "down" : "up" }),
    );
    at = next;
  });
  const end = bounded(at);
  stairs.append(
    svg("path", { d: `M${area.X(step.query)} ${end}H${WIDTH - 10}`, class: "line query dashed" }),
  );
  mark(area, step.query, 0, "diamond", "hollow", 7);
  arrow(area, step.query, 0, at, "query");
  mark(area, step.query, -found.attention, "diamond", "query", 8);
  handles(area, false, -found.attention);
}

function drawData(found) {
  const area = frame(byId("step-data"), "Labels before and after the step", {
    ...PLANE, xlabel: "input x", ylabel: "label y",
  });
  line(area, [[-2, 0], [2, 0]], "reference dashed");
  line(area, [[step.query, -2], [step.query, 2]], "query thin");
  step.points.forEach(([x, y], i) => {
    mark(area, x, y, "circle", "hollow", 7);
    arrow(area, x, y, found.moved.labels[i], "model");
    mark(area, x, found.moved.labels[i], "circle", "model", 5);
  });
  mark(area, step.query, 0, "diamond", "hollow", 7);
  arrow(area, step.query, 0, found.moved.query, "query");
  mark(area, step.query, found.moved.query, "diamond", "query", 8);
  handles(area, false, found.moved.query);
}

// The handles: every point can be dragged, and the query along x. Those of one figure also accept the keyboard.
function handles(area, keyboard, queryAt) {
  const { root } = area;
  root.area = area;
  if (!root.querySelector(".handle")) {
    const count = step.points.length + 1;
    root.append(...Array.from({ length: count }, (_, i) => handle(root, i, keyboard)));
  }
  root.querySelectorAll(".handle").forEach((node, i) => {
    const isQuery = i === step.points.length;
    const [x, y] = isQuery ? [step.query, queryAt] : step.points[i];
    const bounded = Math.max(-REACH, Math.min(REACH, y));
    node.setAttribute("transform", `translate(${area.X(x)} ${area.Y(bounded)})`);
    if (keyboard) {
      node.setAttribute("aria-valuenow", (isQuery ? x : y).toFixed(2));
      node.setAttribute("aria-valuetext", isQuery ? `x ${x.toFixed(2)}` : `x ${x.toFixed(2)}, y ${y.toFixed(2)}`);
    }
  });
}

function handle(node, index, keyboard) {
  const isQuery = index === step.points.length;
  const reach = isQuery ? MOST.x : MOST.y;
  const spoken = isQuery ? "Query: move it with the left and right arrow keys" : `Point ${index + 1}: move it with the arrow keys`;
  const attributes = keyboard
    ? {
        tabindex: 0, role: "slider", "aria-label": spoken, "aria-valuemin": -reach, "aria-valuemax": reach,
        "aria-valuenow": 0,
      }
    : { "aria-hidden": "true" };
  const grip = svg("g", { class: "handle", "data-index": index, ...attributes }, svg("circle", { r: 22 }));
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
    const [dx, dy] = moves[event.key];
    const [x, y] = isQuery ? [step.query, 0] : step.points[index];
    move(index, x + amount * (isQuery ? dx + dy : dx), y + amount * dy);
  });
  return grip;
}

function move(index, x, y) {
  const bound = (value, most) => Math.max(-most, Math.min(most, value));
  if (index === step.points.length) step.query = bound(x, MOST.x);
  else step.points[index] = [bound(x, MOST.x), bound(y, MOST.y)];
  drawStep();
}

function startStep() {
  slider("step-rate", (rate) => {
    step.rate = rate;
    drawStep();
  });
  byId("step-best").addEventListener("click", () => {
    const square = mean(step.points.map(([x]) => x * x));
    step.rate = Math.min(Number(byId("step-rate").max), 1 / square);
    drawStep();
  });
  byId("step-new").addEventListener("click", () => {
    step.drawn += 1;
    const random = generator(step.drawn);
    const weight = 0.5 + 0.9 * random();
    const sign = random() < 0.5 ? -1 : 1;
    step.points = step.points.map(() => {
      const x = 2 * random() - 1;
      return [x, Math.max(-1.5, Math.min(1.5, sign * weight * x + 0.12 * normal(random)))];
    });
    drawStep();
  });
  legend("step-legend", [
    ["plain", "labelled point (can be dragged)", "circle"],
    ["query", "query, at its prediction or its y-entry (can be dragged)", "diamond"],
    ["reference dashed", "before the step"],
    ["model thick", "after the step"],
  ]);
  drawStep();
}
