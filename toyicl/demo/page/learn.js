// During training: one linear layer at the snapshots of its training, for every seed.

const learn = { seed: 0, snapshot: 0, playing: null };

// Scale of a seed's circuits. The prediction depends only on their product, so W_K^T W_Q is drawn with a mean
// diagonal entry of 1 at the end of training.
function balance(seed) {
  const last = data.learn.keyQuery[seed].at(-1)[0];
  const dim = last.length - 1;
  const diagonal = mean(last.slice(0, dim).map((row, a) => row[a]));
  const most = Math.max(...last.flat().map(Math.abs));
  return Math.abs(diagonal) > 0.1 * most ? diagonal : most;
}

function drawLearn() {
  const { steps, seeds } = data.learn;
  const now = learn.snapshot;
  const at = (values) => values[learn.seed][now];
  const heads = [{ keyQuery: at(data.learn.keyQuery)[0], valueOutput: at(data.learn.valueOutput)[0] }];
  const learned = learnedStep(heads);
  drawLosses();
  drawLikeness();
  const factor = balance(learn.seed);
  const exact = data.learn.step;
  const dim = heads[0].keyQuery.length - 1;
  const target = constructedHead(exact, 1, dim);
  const scaled = (matrix, by) => matrix.map((row) => row.map((entry) => entry * by));
  heat("learn-kq", "W_K^T W_Q, learned", scaled(heads[0].keyQuery, 1 / factor), 1);
  heat("learn-pv", "P W_V, learned", scaled(heads[0].valueOutput, factor), exact);
  heat("learn-kq-target", "W_K^T W_Q, constructed", target.keyQuery, 1);
  heat("learn-pv-target", "P W_V, constructed", target.valueOutput, exact);
  byId("learn-step").value = now;
  byId("learn-step").setAttribute("aria-valuetext", `training step ${steps[now]}`);
  write("learn-step-out", String(steps[now]));
  write("learn-loss", shown(at(data.learn.loss), 4));
  write("learn-floor", shown(data.learn.floor, 4));
  write("learn-cosine", shown(at(data.learn.cosine)));
  write("learn-ratio", shown(at(data.learn.ratio)));
  write("learn-eta", shown(learned));
  write("learn-eta-exact", shown(exact));
  write("learn-message", data.learn.stuck[learn.seed] ? "This seed remains on a plateau of the loss until training ends." : phase());
  announce(
    "learn-live",
    `Seed ${seeds[learn.seed]}, training step ${steps[now]}: loss ${shown(at(data.learn.loss), 3)}, ` +
      `cosine ${shown(at(data.learn.cosine), 2)}, norm ratio ${shown(at(data.learn.ratio), 2)}.`,
  );
}

// A sentence on the progress of the loss, from that of predicting 0 to the best loss of one GD step.
function phase() {
  const done = (data.learn.zero - data.learn.loss[learn.seed][learn.snapshot]) / (data.learn.zero - data.learn.floor);
  if (done < 0.2) return "Plateau: the loss is still close to that of predicting 0.";
  if (done < 0.97) return "The loss decreases fast: both matrices grow together.";
  const [cosine, ratio] = [data.learn.cosine, data.learn.ratio].map((values) => values[learn.seed][learn.snapshot]);
  const alike = Math.abs(cosine - 1) < 0.02 && Math.abs(ratio - 1) < 0.05;
  return alike
    ? "Loss, cosine and norm ratio match: the layer performs one step of gradient descent."
    : "The loss is close to that of the best step; cosine or norm ratio still differs from 1.";
}

function timeAxis() {
  const last = data.learn.steps.at(-1);
  return { x: [0, last], xticks: [0, last / 2, last], xlabel: "training step" };
}

// Draws the other seeds first, so that the selected seed's thick curve lies on top.
function eachSeed(area, values) {
  values.forEach((one, seed) => {
    if (seed !== learn.seed) line(area, one.map((value, i) => [data.learn.steps[i], value]), "other");
  });
}

function drawLosses() {
  const { steps, loss, floor, zero } = data.learn;
  const area = frame(byId("learn-losses"), "Loss of every seed during training", {
    ...timeAxis(), y: [0, 1.1 * zero], yticks: [0, 0.1, 0.2, 0.3, 0.4].filter((tick) => tick < 1.1 * zero), ylabel: "loss", right: 28,
  });
  line(area, [[0, zero], [steps.at(-1), zero]], "quiet dotted");
  line(area, [[0, floor], [steps.at(-1), floor]], "reference dashed");
  eachSeed(area, loss);
  line(area, loss[learn.seed].map((value, i) => [steps[i], value]), "model thick");
  mark(area, steps[learn.snapshot], loss[learn.seed][learn.snapshot], "circle", "model", 8);
}

function drawLikeness() {
  const { steps, cosine, ratio } = data.learn;
  const area = frame(byId("learn-likeness"), "Cosine and norm ratio of every seed during training", {
    ...timeAxis(), y: [-0.1, 1.3], yticks: [0, 0.5, 1], ylabel: "compared with GD step", right: 28,
  });
  line(area, [[0, 1], [steps.at(-1), 1]], "reference dashed");
  eachSeed(area, cosine);
  eachSeed(area, ratio);
  const own = (values) => values[learn.seed].map((value, i) => [steps[i], value]);
  line(area, own(cosine), "model thick");
  line(area, own(ratio), "third thick dotted");
  mark(area, steps[learn.snapshot], cosine[learn.seed][learn.snapshot], "circle", "model", 8);
  mark(area, steps[learn.snapshot], ratio[learn.seed][learn.snapshot], "triangle", "third", 8);
}

// A matrix as squares whose area is proportional to the entry's absolute value: filled if positive, hollow if negative.
function heat(id, name, matrix, bound) {
  const node = byId(id);
  const size = matrix.length;
  const cell = 220 / size;
  node.setAttribute("viewBox", "-1 -1 222 222");
  node.setAttribute("role", "img");
  const corner = matrix[size - 1][size - 1];
  const diagonal = mean(matrix.slice(0, -1).map((row, a) => row[a]));
  node.setAttribute(
    "aria-label",
    `${name}, ${size} by ${size}: mean diagonal entry of the inputs ${shown(diagonal, 2)}, last diagonal entry ${shown(corner, 2)}`,
  );
  const cells = matrix.flatMap((row, a) =>
    row.map((entry, b) => {
      const share = Math.min(Math.abs(entry) / bound, 1);
      const side = cell * Math.sqrt(share);
      const middle = [b * cell + cell / 2, a * cell + cell / 2];
      if (side < 0.4) return "";
      return svg("rect", {
        x: middle[0] - side / 2, y: middle[1] - side / 2, width: side, height: side,
        class: entry < 0 ? "cell minus" : "cell plus", "data-value": entry.toPrecision(4),
      });
    }),
  );
  const edge = 220 - cell;
  node.replaceChildren(
    svg("rect", { x: 0, y: 0, width: 220, height: 220, class: "frame" }),
    svg("path", { d: `M0 ${edge}H220M${edge} 0V220`, class: "divide" }),
    ...cells.filter(Boolean),
  );
}

function play() {
  const stop = () => {
    clearInterval(learn.playing);
    learn.playing = null;
    write("learn-play", "Play");
  };
  if (learn.playing !== null) {
    stop();
    return;
  }
  if (learn.snapshot >= data.learn.steps.length - 1) learn.snapshot = 0;
  write("learn-play", "Pause");
  // With reduced motion the animation shows fewer snapshots, each for longer.
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  learn.playing = setInterval(() => {
    learn.snapshot = Math.min(learn.snapshot + (calm ? 5 : 1), data.learn.steps.length - 1);
    if (learn.snapshot === data.learn.steps.length - 1) stop();
    drawLearn();
  }, calm ? 1500 : 160);
}

function startLearn() {
  byId("learn-step").max = data.learn.steps.length - 1;
  learn.snapshot = Math.floor((data.learn.steps.length - 1) / 5);
  slider("learn-step", (value) => {
    learn.snapshot = value;
    drawLearn();
  });
  choices("learn-seeds", "learn-seed", data.learn.seeds.map((seed, i) => [i, String(seed)]), 0, (seed) => {
    learn.seed = seed;
    drawLearn();
  });
  byId("learn-play").addEventListener("click", play);
  legend("learn-losses-legend", [
    ["model thick", "selected seed"],
    ["other", "other seeds"],
    ["reference dashed", "best loss of one GD step (exact)"],
    ["quiet dotted", "loss of predicting 0"],
  ]);
  legend("learn-likeness-legend", [
    ["model thick", "cosine", "circle"],
    ["third thick dotted", "norm ratio", "triangle"],
    ["other", "other seeds"],
  ]);
  drawLearn();
}
