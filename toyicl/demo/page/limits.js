// When is softmax nearly linear? Constructed softmax heads: small logits, and many points.

const limits = { logits: 0, heads: 1, points: 0, curves: new Map() };
const LOGITS = Array.from({ length: 17 }, (_, i) => 10 ** (-1 + i / 8)); // scales of the logits x_i . x_q, .1 to 10
const SIZES = [10, 20, 40, 80, 160, 320, 640];
const CONSTANT = 0.7; // scale of the logits while the context grows

// Loss of the best constructed heads with each scale of the logits, on the contexts of the page's episodes.
function logitCurve(heads) {
  if (!limits.curves.has(heads)) {
    const contexts = episodes().slice(0, 100);
    const queries = contexts.map(({ query }) => query);
    const loss = (vector) => meanLoss(contexts.map(({ x, query }) => vector(x, query)), queries).loss;
    limits.curves.set(heads, {
      losses: LOGITS.map((sharpness) => loss((x, query) => headVector(heads, sharpness, x, query))),
      descent: loss(stepVector),
      zero: 0.5 * mean(queries.map((query) => dot(query, query))),
    });
  }
  return limits.curves.get(heads);
}

function drawLogits() {
  const curves = [1, 2].map(logitCurve);
  const { losses, descent, zero } = curves[limits.heads - 1];
  const here = losses[limits.logits];
  const scale = LOGITS[limits.logits];
  const area = frame(byId("logits-plot"), "Loss of the best constructed softmax heads relative to one step of gradient descent, by the scale of their logits", {
    x: [-1, 1], y: [0.9, 2.1], xticks: [[-1, "0.1"], [0, "1"], [1, "10"]].map(([at, text]) => ({ at, text })), yticks: [1, 1.5, 2],
    xlabel: "scale of the logits (logarithmic)", ylabel: "loss / GD’s loss",
  });
  const at = LOGITS.map(Math.log10);
  line(area, [[-1, 1], [1, 1]], "reference dashed");
  line(area, [[-1, zero / descent], [1, zero / descent]], "quiet dotted");
  curves.forEach((curve, i) => {
    line(area, curve.losses.map((loss, k) => [at[k], loss / descent]), `model ${i + 1 === limits.heads ? "thick" : "thin"} ${i ? "dotted" : ""}`);
  });
  mark(area, at[limits.logits], here / descent, limits.heads === 1 ? "circle" : "triangle", "model", 8);
  const text = shown(scale, 2);
  byId("logits-scale").setAttribute("aria-valuetext", text);
  write("logits-scale-out", text);
  write("logits-loss", shown(here / descent, 2));
  write("logits-zero", shown(here / zero, 2));
  announce("limits-live", `${limits.heads} head${limits.heads === 1 ? "" : "s"}, logits times ${text}: loss relative to gradient descent ${shown(here / descent, 2)}.`);
}

// Labels y = x on normal inputs: the softmax head with logits s x_i x_q tends to the line s x_q as the context grows.
function normalContext(size) {
  const random = generator(41);
  return Array.from({ length: size }, () => normal(random));
}

function drawContext() {
  const size = SIZES[limits.points];
  const inputs = normalContext(size);
  const x = inputs.map((value) => [value]);
  const model = softmaxHeads(1, CONSTANT, 1, 1);
  const area = frame(byId("context-plot"), `Answer of a softmax head with ${size} points, and the line that it approaches`, {
    x: [-3, 3], y: [-3, 3], xticks: [-3, 0, 3], yticks: [-3, 0, 3], xlabel: "query x", ylabel: "answer",
  });
  const [top, bottom] = [area.Y(Math.max(...inputs)), area.Y(Math.min(...inputs))];
  area.layer.append(svg("rect", { x: area.inside.x, y: top, width: area.inside.width, height: bottom - top, class: "band" }));
  line(area, [[-3, -3 * CONSTANT], [3, 3 * CONSTANT]], "reference dashed");
  const grid = Array.from({ length: 61 }, (_, i) => i / 10 - 3);
  const answers = grid.map((at) => transformer(model, x, inputs, [at]));
  line(area, grid.map((at, i) => [at, answers[i]]), "model thick");
  inputs.slice(0, 80).forEach((value) => mark(area, value, value, "circle", "plain", 3));
  const distance = Math.sqrt(mean(grid.map((at, i) => (answers[i] - CONSTANT * at) ** 2)));
  byId("context-size").setAttribute("aria-valuetext", `${size} points`);
  write("context-size-out", `${size} points`);
  write("context-distance", shown(distance, 3));
  write("context-weight", shown(1 / size, 4));
  announce("limits-live", `${size} points: mean distance from the line ${shown(distance, 3)}.`);
}

function startLimits() {
  limits.logits = 7;
  const kept = LOGITS.map((_, i) => i);
  slider("logits-scale", "logits", limits, "logits", drawLogits, kept);
  choices("logits-heads", "logits-head", "softmaxes", [[1, "1"], [2, "2, of opposite logits"]], limits, "heads", drawLogits);
  slider("context-size", "size", limits, "points", drawContext, SIZES.map((_, i) => i));
  legend("logits-legend", [
    ["model thick", "one head", "circle"],
    ["model thick dotted", "two heads", "triangle"],
    ["reference dashed", "one GD step"],
    ["quiet dotted", "answering 0"],
  ]);
  legend("context-legend", [
    ["model thick", "softmax head"],
    ["reference dashed", "its limit, a line"],
    ["band", "lowest to highest label", "square", true],
  ]);
  drawLogits();
  drawContext();
}
