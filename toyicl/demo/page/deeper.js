// Several layers: GD, GD++ and a trained model of two layers with the same weights.

// Number of contexts whose eigenvalues are counted in the histogram.
const CONTEXTS = 60;
const deeper = { steps: 2, context: 21, seed: 0, spectrum: null };

function deepModel(seed) {
  return modelOf(data.deep.keyQuery[seed], data.deep.valueOutput[seed], 0, 2);
}

function deepEpisode() {
  const { dim, count, range } = data.task;
  return sampleEpisode(generator(1000 + deeper.context), dim, count, range);
}

// Best parameters of K steps that all have the same ones, from the closed forms in the run's results.
function best(steps) {
  const { rate, curvedRate, curvedGamma } = data.references;
  return { rate: rate[steps - 1], curvedRate: curvedRate[steps - 1], gamma: curvedGamma[steps - 1] };
}

function drawDeeper() {
  const episode = deepEpisode();
  drawDepths();
  drawBowl();
  drawAnswers(episode);
  if (byId("deeper-fold").open) drawResiduals(episode);
  const { loss, curvedLoss } = data.references;
  const now = [loss[deeper.steps - 1], curvedLoss[deeper.steps - 1]];
  write("deeper-steps-out", String(deeper.steps));
  write("deeper-gd", shown(now[0], 4));
  write("deeper-gdpp", shown(now[1], 4));
  write("deeper-model", shown(data.deep.loss[deeper.seed], 4));
  const nearer = deeper.steps === 1 ? "With one step, GD and GD++ are identical." : "GD++ also transforms the inputs, which rounds the bowl, and reaches a lower loss.";
  write("deeper-message", data.deep.stuck[deeper.seed] ? `${nearer} Training of this seed ended at a saddle point.` : nearer);
  announce(
    "deeper-live",
    `${deeper.steps} step${deeper.steps === 1 ? "" : "s"}: gradient descent has loss ${shown(now[0])} and GD++ has loss ${shown(now[1])}; ` +
      `the two trained layers have loss ${shown(data.deep.loss[deeper.seed])}.`,
  );
}

function drawDepths() {
  const { loss, curvedLoss, zero } = data.references;
  const most = loss.length;
  const area = frame(byId("deeper-losses"), "Exact loss after K steps, and loss of the two trained layers", {
    x: [-0.3, most + 0.3], y: [0, 1.1 * zero], xticks: loss.map((_, i) => i + 1), ylabel: "loss",
    yticks: [0, 0.1, 0.2, 0.3, 0.4].filter((tick) => tick < 1.1 * zero), xlabel: "number of steps K",
  });
  line(area, [[deeper.steps, 0], [deeper.steps, 1]], "quiet dotted");
  const curve = (values) => [[0, zero], ...values.map((value, i) => [i + 1, value])];
  line(area, curve(loss), "reference dashed");
  line(area, curve(curvedLoss), "third dotted");
  curve(loss).forEach(([x, y]) => mark(area, x, y, "circle", "reference", x === deeper.steps ? 9 : 5));
  curve(curvedLoss).forEach(([x, y]) => mark(area, x, y, "square", "third", x === deeper.steps ? 8 : 4));
  const order = data.deep.loss.map((_, seed) => seed).sort((a, b) => Number(a === deeper.seed) - Number(b === deeper.seed));
  order.forEach((seed) => mark(area, 2, data.deep.loss[seed], "triangle", seed === deeper.seed ? "model" : "hollow", 7)); // the chosen one on top
}

// Two inputs of unequal variance: contours of the loss over both weights, and the paths of K steps from 0 to the lowest
// point. GD++ makes the bowl round in its first step.
const LOWEST = [1.6, 1.2];
const SCATTER = [4, 0.5]; // eigenvalues of sum_i x_i x_i^T, along the axes

function drawBowl() {
  const gd = bowlPath(SCATTER, LOWEST, deeper.steps, []);
  const gdpp = bowlPath(SCATTER, LOWEST, deeper.steps, [roundingCurvature(SCATTER)]);
  // Both axes have the same scale, so that a round bowl looks round.
  const area = frame(byId("deeper-bowl"), `Two weights: paths of ${deeper.steps} steps of gradient descent and of GD++ to the lowest point of the loss`, {
    x: [-0.2, 3.6], y: [-0.5, 2.04], xticks: [0, 1, 2, 3], yticks: [0, 1, 2], xlabel: "weight 1 (steep direction)", ylabel: "weight 2 (flat)",
  });
  const ellipse = (level, at, values, kind) => {
    const radius = values.map((s) => Math.sqrt(level / s));
    const [cx, cy] = [area.X(at[0]), area.Y(at[1])];
    area.layer.append(svg("ellipse", { cx, cy, rx: area.X(radius[0]) - area.X(0), ry: area.Y(0) - area.Y(radius[1]), class: `line ${kind}` }));
  };
  [0.1, 0.4, 0.9].forEach((level) => ellipse(level, LOWEST, SCATTER, "faint"));
  if (deeper.steps > 1) {
    const inset = [3.05, 1.5];
    [0.04, 0.1].forEach((level) => ellipse(level, inset, gdpp.seen, "third thin"));
  }
  const path = ({ points }, kind, shape, radius) => {
    line(area, points, `${kind} ${shape === "square" ? "dotted" : "dashed"}`);
    points.forEach(([x, y], k) => k && mark(area, x, y, shape, kind, radius));
  };
  path(gd, "reference", "circle", 6);
  path(gdpp, "third", "square", 5);
  mark(area, 0, 0, "circle", "open ink", 7);
  mark(area, ...LOWEST, "diamond", "plain", 6);
}

function drawResiduals(episode) {
  const { count, dim, range } = data.task;
  deeper.spectrum ??= Array.from({ length: CONTEXTS }, (_, i) =>
    eigen(scatter(sampleEpisode(generator(5000 + i), dim, count, range).x)).values,
  ).flat();
  const found = residualPolynomial((x, y, query) => transformer(deepModel(deeper.seed), x, y, query), episode.x);
  const top = Math.max(1, Math.ceil(2 * Math.max(...deeper.spectrum, ...found.values)) / 2);
  const area = frame(byId("deeper-residuals"), "Remaining error at each eigenvalue of the context", {
    x: [0, top], y: [-1.1, 1.15], xticks: [0, top / 2, top], yticks: [-1, 0, 1],
    xlabel: "eigenvalue s of the scatter matrix", ylabel: "remaining error R(s)",
  });
  const bins = new Array(30).fill(0);
  deeper.spectrum.forEach((s) => {
    bins[Math.min(29, Math.floor((30 * s) / top))] += 1;
  });
  const most = Math.max(...bins);
  bins.forEach((value, i) => {
    const [left, right] = [area.X((i * top) / 30), area.X(((i + 1) * top) / 30)];
    const height = ((area.Y(-1.1) - area.Y(0)) * value) / most;
    area.layer.append(
      svg("rect", { x: left, y: area.Y(-1.1) - height, width: right - left - 1, height, class: "bin" }),
    );
  });
  line(area, [[0, 0], [top, 0]], "quiet thin");
  const grid = Array.from({ length: 201 }, (_, i) => (i * top) / 200);
  const { rate, curvedRate, gamma } = best(deeper.steps);
  line(area, grid.map((s) => [s, residual(s, rate / count, 0, deeper.steps)]), "reference dashed");
  line(area, grid.map((s) => [s, residual(s, curvedRate / count, gamma, deeper.steps)]), "third thick dotted");
  found.values.forEach((s, i) => mark(area, s, found.residuals[i], "triangle", "model", 6));
}

function drawAnswers(episode) {
  const { x, y, query, label } = episode;
  const { rate, curvedRate, gamma } = best(deeper.steps);
  const stepsTo = (answer) => [[0, 0], ...Array.from({ length: deeper.steps }, (_, i) => [i + 1, answer(i + 1)])];
  const curves = {
    gd: stepsTo((k) => gradientDescent(x, y, query, rate, k)),
    gdpp: stepsTo((k) => gdpp(x, y, query, curvedRate, gamma, k)),
    model: [[0, 0], ...layerwise(deepModel(deeper.seed), x, y, query).map((answer, i) => [i + 1, answer])],
  };
  const values = [label, ...Object.values(curves).flat().map(([, value]) => value)];
  const reach = Math.max(1, Math.ceil(Math.max(...values.map(Math.abs))));
  const most = data.references.loss.length;
  const area = frame(byId("deeper-answers"), "Prediction for one query after each step or layer", {
    x: [-0.3, most + 0.3], y: [-reach, reach], xticks: [0, ...data.references.loss.map((_, i) => i + 1)],
    yticks: [-reach, 0, reach], xlabel: "number of steps or layers", ylabel: "prediction",
  });
  line(area, [[-1, label], [most + 1, label]], "query thick");
  line(area, curves.gd, "reference dashed");
  line(area, curves.gdpp, "third dotted");
  line(area, curves.model, "model thick");
  curves.gd.forEach(([k, value]) => mark(area, k, value, "circle", "reference", 5));
  curves.gdpp.forEach(([k, value]) => mark(area, k, value, "square", "third", 5));
  curves.model.forEach(([k, value]) => mark(area, k, value, "triangle", "model", 6));
}

function startDeeper() {
  deeper.seed = Math.max(0, data.deep.stuck.indexOf(false));
  slider("deeper-steps", "steps", deeper, "steps", drawDeeper, data.references.loss.map((_, i) => i + 1));
  choices("deeper-seeds", "deeper-seed", "layers", data.deep.seeds.map((seed, i) => [i, String(seed)]), deeper, "seed", drawDeeper);
  counter("deeper-new", "tokens", deeper, "context", drawDeeper);
  byId("deeper-fold").addEventListener("toggle", () => drawResiduals(deepEpisode()));
  legend("deeper-legend", [
    ["reference dashed", "gradient descent, K steps", "circle"],
    ["third dotted", "GD++, K steps", "square"],
    ["model thick", "two trained layers", "triangle"],
    ["query thick", "true label"],
    ["plain", "lowest point", "diamond", true],
  ]);
  drawDeeper();
}
