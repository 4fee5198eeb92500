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
  drawResiduals(episode);
  drawAnswers(episode);
  const { loss, curvedLoss } = data.references;
  const now = [loss[deeper.steps - 1], curvedLoss[deeper.steps - 1]];
  write("deeper-steps-out", String(deeper.steps));
  write("deeper-gd", shown(now[0], 4));
  write("deeper-gdpp", shown(now[1], 4));
  write("deeper-model", shown(data.deep.loss[deeper.seed], 4));
  const nearer = deeper.steps === 1 ? "With one step, GD and GD++ are identical." : "GD++ also transforms the inputs and reaches a lower loss.";
  write("deeper-message", data.deep.stuck[deeper.seed] ? `${nearer} This seed remains on a plateau of the loss.` : nearer);
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
  data.deep.loss.forEach((value, seed) => mark(area, 2, value, "triangle", seed === deeper.seed ? "model" : "hollow", 7));
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
  const steps = byId("deeper-steps");
  steps.max = data.references.loss.length;
  slider("deeper-steps", (value) => {
    deeper.steps = value;
    drawDeeper();
  });
  deeper.seed = Math.max(0, data.deep.stuck.indexOf(false));
  choices("deeper-seeds", "deeper-seed", data.deep.seeds.map((seed, i) => [i, String(seed)]), deeper.seed, (seed) => {
    deeper.seed = seed;
    drawDeeper();
  });
  byId("deeper-new").addEventListener("click", () => {
    deeper.context += 1;
    drawDeeper();
  });
  legend("deeper-legend", [
    ["reference", "gradient descent, K steps", "circle"],
    ["third", "GD++, K steps", "square"],
    ["model", "two trained layers", "triangle"],
    ["query thick", "true label"],
    ["bin", "distribution of the eigenvalues", "square"],
  ]);
  drawDeeper();
}
