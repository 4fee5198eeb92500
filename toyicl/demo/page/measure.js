// What is measured: the gradient of a prediction with respect to one query, of a layer and of the step, as two arrows;
// and what the angle between them, the cosine, does not measure.

const measure = { layer: "linear", multiple: 1, query: 0 };
const EPISODES = 200;
const known = { episodes: null, scaled: new Map(), layers: new Map() };

// New episodes with the task's input dimensions and range.
function episodes() {
  const { dim, count, range } = data.task;
  known.episodes ??= Array.from({ length: EPISODES }, (_, i) => sampleEpisode(generator(9000 + i), dim, count, range));
  return known.episodes;
}

function scaledUp(episode, factor) {
  const times = (vector) => vector.map((entry) => factor * entry);
  return { x: episode.x.map(times), y: times(episode.y), query: times(episode.query), label: factor * episode.label };
}

// The episodes with scaled inputs, what one step of gradient descent makes of them, and the loss of predicting 0.
function scaledEpisodes(factor) {
  if (!known.scaled.has(factor)) {
    const all = episodes().map((episode) => scaledUp(episode, factor));
    const steps = all.map(({ x, y }) => descentWeights(x, y, data.references.rate[0], 1));
    const descent = halfSquare(all.map(({ query, label }, i) => dot(steps[i], query) - label));
    known.scaled.set(factor, { all, steps, descent, zero: halfSquare(all.map(({ label }) => label)) });
  }
  return known.scaled.get(factor);
}

function halfSquare(errors) {
  return 0.5 * mean(errors.map((error) => error * error));
}

// Compares a model of one layer with one step of gradient descent on the page's own episodes, with scaled inputs.
function compareWithDescent(model, factor) {
  const { all, steps, descent, zero } = scaledEpisodes(factor);
  const found = all.map(({ x, y, query }) => oneLayer(model, x, y, query, true));
  const loss = halfSquare(found.map(({ answer }, i) => answer - all[i].label));
  return { ...alignment(found.map(({ gradient }) => gradient), steps), loss, descent, zero };
}

// The circuits of a trained layer whose update is multiplied by a factor.
function measured(factor) {
  const [keyQuery, valueOutput, fraction] = measure.layer === "linear" ? trainedLinear() : trainedSoftmax();
  return modelOf(keyQuery, valueOutput.map((matrix) => matrix.map((row) => row.map((entry) => factor * entry))), fraction);
}

function trainedLinear() {
  const seed = Math.max(0, data.learn.stuck.indexOf(false));
  return [data.learn.keyQuery[seed].at(-1), data.learn.valueOutput[seed].at(-1), 0];
}

function trainedSoftmax() {
  const part = data.softmaxSweep.wide.heads[1];
  const seed = lowest(part.loss.at(-1));
  return [part.keyQuery.at(-1)[seed], part.valueOutput.at(-1)[seed], data.softmaxSweep.fractions.at(-1)];
}

function drawMeasure() {
  const model = measured(measure.multiple); // computed from the multiplied weights, not from those of factor 1
  const found = compareWithDescent(model, 1);
  const { all, steps } = scaledEpisodes(1);
  const at = measure.query % EPISODES;
  const own = sensitivity(model, all[at].x, all[at].y, all[at].query);
  const here = alignment([own], [steps[at]]);
  drawArrows(here);
  drawMultiples(found);
  write("trap-multiple-out", `\u00d7 ${shown(measure.multiple, 2)}`);
  write("arrow-cosine", shown(here.cosine));
  write("arrow-ratio", shown(here.ratio));
  write("trap-cosine", shown(found.cosine));
  write("trap-ratio", shown(found.ratio));
  write("trap-loss", shown(found.loss));
  write("trap-zero", shown(found.zero));
  write("trap-message", measureSentence(found));
  announce("trap-live", `Factor on the update ${shown(measure.multiple, 2)}: cosine ${shown(found.cosine, 2)}, norm ratio ${shown(found.ratio, 2)}. ${measureSentence(found)}`);
}

function measureSentence({ cosine, ratio, loss, zero }) {
  const aligned = cosine > 0.98;
  if (loss > zero) return `The cosine is ${aligned ? "still " : ""}${shown(cosine, 2)}, but answering 0 would have a lower loss.`;
  if (!aligned) return `The cosine is ${shown(cosine, 2)}: the arrows point in different directions, whatever their lengths.`;
  return Math.abs(ratio - 1) < 0.1
    ? "Cosine and norm ratio are both close to 1: this is the step."
    : `The cosine is still ${shown(cosine, 2)}; only the norm ratio shows that this is not the step.`;
}

// Two arrows in the plane that contains both gradients: the step's points to the right.
function drawArrows({ cosine, ratio }) {
  const node = byId("arrow-plot");
  const [x, y, unit] = [60, 190, 100];
  const angle = Math.acos(Math.max(-1, Math.min(1, cosine)));
  const arrowTo = (length, direction, kind) => {
    const at = [x + length * Math.cos(direction), y - length * Math.sin(direction)];
    const wing = (turn) => `${at[0] - 14 * Math.cos(direction + turn)} ${at[1] + 14 * Math.sin(direction + turn)}`;
    return svg("path", { d: `M${x} ${y}L${at[0]} ${at[1]}M${wing(0.45)}L${at[0]} ${at[1]}L${wing(-0.45)}`, class: `line thick ${kind}` });
  };
  const arc = 48;
  node.replaceChildren(
    svg("rect", { x: 1, y: 1, width: 398, height: 238, class: "frame" }),
    svg("path", { d: `M${x + arc} ${y}A${arc} ${arc} 0 0 0 ${x + arc * Math.cos(angle)} ${y - arc * Math.sin(angle)}`, class: "line cosine" }),
    arrowTo(unit, 0, "reference"),
    arrowTo(unit * ratio, angle, "model dashed-long"),
    svg("text", { x: x, y: 222 }, `angle ${shown((180 * angle) / Math.PI, 0)}\u00b0, length ${shown(ratio, 2)} to 1`),
  );
  fill(node, {
    viewBox: "0 0 400 240", role: "img",
    "aria-label": `Arrows of the step and of the layer: angle ${shown((180 * angle) / Math.PI, 0)} degrees, ratio of the lengths ${shown(ratio, 2)}`,
  }, []);
}

// Answers of the layer itself; those of its multiples are multiples of them, because one layer's answer is its update.
function baseAnswers() {
  if (!known.layers.has(measure.layer)) {
    const model = measured(1);
    const answers = scaledEpisodes(1).all.map(({ x, y, query }) => transformer(model, x, y, query));
    known.layers.set(measure.layer, { answers, ...compareWithDescent(model, 1) });
  }
  return known.layers.get(measure.layer);
}

function drawMultiples(found) {
  const base = baseAnswers();
  const { all, zero } = scaledEpisodes(1);
  const grid = Array.from({ length: 61 }, (_, i) => i / 20);
  const loss = (factor) => halfSquare(all.map(({ label }, i) => factor * base.answers[i] - label));
  const area = frame(byId("trap-curve"), "Cosine, norm ratio and loss as functions of the factor on the update", {
    x: [0, 3], y: [0, 3.2], xticks: [0, 1, 2, 3], yticks: [0, 1, 2, 3], xlabel: "factor on the update", ylabel: "relative value", height: 240,
  });
  line(area, [[0, 1], [3, 1]], "quiet thin");
  line(area, grid.map((c) => [c, loss(c) / zero]), "loss dashed");
  line(area, grid.map((c) => [c, c * base.ratio]), "ratio thick dotted");
  line(area, grid.slice(1).map((c) => [c, base.cosine]), "cosine thick");
  mark(area, measure.multiple, found.loss / zero, "square", "loss", 7);
  mark(area, measure.multiple, found.ratio, "triangle", "ratio", 8);
  mark(area, measure.multiple, found.cosine, "circle", "cosine", 7);
}

function startMeasure() {
  choices("measure-layers", "measure-layer", "layer", [["linear", "linear attention"], ["softmax", "softmax, one head"]], measure, "layer", drawMeasure);
  slider("trap-multiple", "factor", measure, "multiple", drawMeasure);
  counter("measure-new", "measured", measure, "query", drawMeasure);
  legend("arrow-legend", [
    ["reference thick", "the step"],
    ["model thick dashed-long", "the trained layer"],
  ]);
  legend("trap-legend", [
    ["cosine thick", "cosine", "circle"],
    ["ratio thick dotted", "norm ratio", "triangle"],
    ["loss dashed", "loss / loss of answering 0", "square"],
  ]);
  drawMeasure();
}
