// During training: one linear layer at the snapshots of its training, for every seed.

const learn = { seed: 0, snapshot: 0, playing: null, guess: 0, compared: false };

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
  drawLosses();
  drawLikeness();
  const factor = balance(learn.seed);
  const exact = data.learn.step;
  const scaled = (matrix, by) => matrix.map((row) => row.map((entry) => entry * by));
  heat("learn-kq", "W_K^T W_Q, learned", scaled(heads[0].keyQuery, 1 / factor), 1);
  heat("learn-pv", "P W_V, learned", scaled(heads[0].valueOutput, factor), exact);
  byId("learn-step").setAttribute("aria-valuetext", `training step ${steps[now]}`);
  write("learn-step-out", String(steps[now]));
  write("learn-guess-out", shown(learn.guess, 2));
  write("learn-loss", shown(at(data.learn.loss), 4));
  write("learn-floor", learn.compared ? shown(data.learn.floor, 4) : "?");
  write("learn-cosine", shown(at(data.learn.cosine)));
  write("learn-ratio", shown(at(data.learn.ratio)));
  write("learn-eta", shown(learnedStep(heads)));
  write("learn-eta-exact", learn.compared ? shown(exact) : "?");
  write("learn-message", phase());
  announce(
    "learn-live",
    `Seed ${seeds[learn.seed]}, training step ${steps[now]}: loss ${shown(at(data.learn.loss), 3)}, ` +
      `cosine ${shown(at(data.learn.cosine), 2)}, norm ratio ${shown(at(data.learn.ratio), 2)}. ${phase()}`,
  );
}

// Distance of a loss from that of the first saddle point, relative to it, and the steps for which a loss that near has
// to stay there: a loss that only passes by takes fewer. The experiment's own claims use the same numbers.
const NEAR = 0.015;
const STAYS = 100;

// Whether a seed's loss stays near the first saddle point around a snapshot.
function atSaddle(seed, snapshot) {
  const { steps, loss, saddles } = data.learn;
  const near = (i) => Math.abs(loss[seed][i] / saddles[1] - 1) < NEAR;
  if (!near(snapshot)) return false;
  let [first, last] = [snapshot, snapshot];
  while (first > 0 && near(first - 1)) first -= 1;
  while (last < steps.length - 1 && near(last + 1)) last += 1;
  return steps[last] - steps[first] >= STAYS;
}

// A sentence on the progress of the loss, from that of answering 0 to the best loss of one step of gradient descent.
function phase() {
  const { loss, zero, floor, cosine, ratio, stuck } = data.learn;
  const here = (values) => values[learn.seed][learn.snapshot];
  if (learn.compared && learn.snapshot === loss[0].length - 1 && !stuck[learn.seed]) {
    return `The loss ends at ${shown(here(loss), 3)}, your prediction was ${shown(learn.guess, 2)}. The best single step has ${shown(floor, 3)}.`;
  }
  if (atSaddle(learn.seed, learn.snapshot)) return "A saddle point: labels serve as keys and one input direction as values.";
  const done = (zero - here(loss)) / (zero - floor);
  if (done < 0.1) return "The loss is still close to that of answering 0.";
  if (done < 0.97) return "The loss falls: one direction of the inputs after another is learned.";
  const alike = Math.abs(here(cosine) - 1) < 0.02 && Math.abs(here(ratio) - 1) < 0.05;
  return alike
    ? "Loss, cosine and norm ratio match: the layer takes one step of gradient descent."
    : "The loss is close to that of the best step; cosine or norm ratio still differs from 1.";
}

// Training steps on a scale that gives the early ones, at which the loss changes, more room.
const along = (steps) => Math.sqrt(steps);

function timeAxis() {
  const last = data.learn.steps.at(-1);
  const ticks = [0, 0.02, 0.1, 0.3, 1].map((part) => Math.round(part * last));
  return { x: [0, along(last)], xticks: ticks.map((at) => ({ at: along(at), text: String(at) })), xlabel: "training step", right: 28, height: 236 };
}

function upToNow(values) {
  const shownSteps = learn.compared ? data.learn.steps.length : learn.snapshot + 1;
  return values.slice(0, shownSteps).map((value, i) => [along(data.learn.steps[i]), value]);
}

// Draws the other seeds first, so that the selected seed's thick curve lies on top; the future only after Compare.
function eachSeed(area, values) {
  if (!learn.compared) return;
  values.forEach((one, seed) => {
    if (seed !== learn.seed) line(area, upToNow(one), "other");
  });
}

function drawLosses() {
  const { steps, loss, floor, zero, saddles } = data.learn;
  const area = frame(byId("learn-losses"), "Loss of every seed during training", {
    ...timeAxis(), y: [0, 1.1 * zero], yticks: [0, 0.1, 0.2, 0.3, 0.4].filter((tick) => tick < 1.1 * zero), ylabel: "loss",
  });
  const level = (value, kind) => line(area, [[0, value], [along(steps.at(-1)), value]], kind);
  level(zero, "quiet dotted");
  if (learn.compared) {
    saddles.slice(1, -1).forEach((value) => level(value, "faint"));
    level(floor, "reference dashed");
  }
  level(learn.guess, "query dashed");
  mark(area, along(steps.at(-1)) * 0.97, learn.guess, "diamond", "query", 6);
  eachSeed(area, loss);
  line(area, upToNow(loss[learn.seed]), "model thick");
  mark(area, along(steps[learn.snapshot]), loss[learn.seed][learn.snapshot], "circle", "model", 8);
  byId("learn-losses").area = area;
}

function drawLikeness() {
  const { steps, cosine, ratio } = data.learn;
  const area = frame(byId("learn-likeness"), "Cosine and norm ratio of every seed during training", {
    ...timeAxis(), y: [-0.1, 1.3], yticks: [0, 0.5, 1], ylabel: "to the step",
  });
  line(area, [[0, 1], [along(steps.at(-1)), 1]], "quiet thin");
  eachSeed(area, cosine);
  eachSeed(area, ratio);
  line(area, upToNow(cosine[learn.seed]), "cosine thick");
  line(area, upToNow(ratio[learn.seed]), "ratio thick dotted");
  mark(area, along(steps[learn.snapshot]), cosine[learn.seed][learn.snapshot], "circle", "cosine", 7);
  mark(area, along(steps[learn.snapshot]), ratio[learn.seed][learn.snapshot], "triangle", "ratio", 7);
}

// A matrix as squares whose area is proportional to the entry's absolute value: filled if positive, hollow if negative.
// The squares are made once and then changed, which is several times as fast as to make them again.
function heat(id, name, matrix, bound) {
  const node = byId(id);
  const size = matrix.length;
  const cell = 220 / size;
  node.squares ??= squares(node, size, cell);
  const corner = matrix[size - 1][size - 1];
  const diagonal = mean(matrix.slice(0, -1).map((row, a) => row[a]));
  node.setAttribute(
    "aria-label",
    `${name}, ${size} by ${size}: mean diagonal entry of the inputs ${shown(diagonal, 2)}, last diagonal entry ${shown(corner, 2)}`,
  );
  matrix.forEach((row, a) =>
    row.forEach((entry, b) => {
      const side = cell * Math.sqrt(Math.min(Math.abs(entry) / bound, 1));
      const square = node.squares[a * size + b];
      if (side < 0.4) {
        square.removeAttribute("class");
        return;
      }
      const [x, y] = [b, a].map((at) => at * cell + cell / 2 - side / 2);
      fill(square, { x, y, width: side, height: side, class: entry < 0 ? "cell minus" : "cell plus", "data-value": entry.toPrecision(4) }, []);
    }),
  );
}

function squares(node, size, cell) {
  const all = Array.from({ length: size * size }, () => svg("rect"));
  const edge = 220 - cell;
  fill(node, { viewBox: "-1 -1 222 222", role: "img" }, []);
  node.replaceChildren(
    svg("rect", { x: 0, y: 0, width: 220, height: 220, class: "frame" }),
    svg("path", { d: `M0 ${edge}H220M${edge} 0V220`, class: "divide" }),
    ...all,
  );
  return all;
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
  const last = data.learn.steps.length - 1;
  if (learn.snapshot >= last) toSnapshot(0);
  write("learn-play", "Pause");
  // With reduced motion the animation shows fewer snapshots, each for longer.
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  learn.playing = setInterval(() => {
    toSnapshot(Math.min(learn.snapshot + (calm ? 5 : 1), last));
    if (learn.snapshot === last) stop();
  }, calm ? 1500 : 160);
}

function toSnapshot(snapshot) {
  learn.snapshot = snapshot;
  controls.get("frame").draw();
  changed("frame");
}

// The curve of the losses is a slider for the pointer, too: near the prediction's line it moves that line.
function scrubbed(event) {
  const node = byId("learn-losses");
  const { X, Y } = node.area;
  const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(node.getScreenCTM().inverse());
  if (event.type === "pointerdown") learn.held = Math.abs(at.y - Y(learn.guess)) < 16 ? "guess" : "frame";
  if (learn.held === "guess") {
    const value = (at.y - Y(0)) / (Y(1) - Y(0));
    const input = byId("learn-guess");
    learn.guess = Math.round(100 * Math.max(Number(input.min), Math.min(Number(input.max), value))) / 100;
    controls.get("guess").draw();
    changed("guess");
    return;
  }
  const distances = data.learn.steps.map((value) => Math.abs(X(along(value)) - at.x));
  toSnapshot(distances.indexOf(Math.min(...distances)));
}

function startScrub() {
  const node = byId("learn-losses");
  node.addEventListener("pointerdown", (event) => {
    node.setPointerCapture(event.pointerId);
    event.preventDefault();
    scrubbed(event);
  });
  node.addEventListener("pointermove", (event) => {
    if (node.hasPointerCapture(event.pointerId)) scrubbed(event);
  });
}

function startLearn() {
  const { steps, step, keyQuery } = data.learn;
  const target = constructedHead(step, 1, keyQuery[0][0][0].length - 1);
  heat("learn-kq-target", "W_K^T W_Q, constructed", target.keyQuery, 1);
  heat("learn-pv-target", "P W_V, constructed", target.valueOutput, step);
  slider("learn-step", "frame", learn, "snapshot", drawLearn, steps.map((_, i) => i));
  learn.guess = Math.round(72 * data.learn.zero) / 100;
  fill(byId("learn-guess"), { max: (1.08 * data.learn.zero).toFixed(2) }, []);
  slider("learn-guess", "guess", learn, "guess", drawLearn);
  choices("learn-seeds", "learn-seed", "seed", data.learn.seeds.map((seed, i) => [i, String(seed)]), learn, "seed", drawLearn);
  toggle("learn-compare", "compare", learn, "compared", ["Compare", "Hide the end"], drawLearn);
  byId("learn-play").addEventListener("click", play);
  startScrub();
  legend("learn-losses-legend", [
    ["model thick", "selected seed", "circle"],
    ["query dashed", "your prediction", "diamond"],
    ["quiet dotted", "answering 0"],
    ["other", "other seeds"],
    ["faint", "saddle points"],
    ["reference dashed", "best single step"],
  ]);
  legend("learn-likeness-legend", [
    ["cosine thick", "cosine", "circle"],
    ["ratio thick dotted", "norm ratio", "triangle"],
  ]);
  drawLearn();
}
