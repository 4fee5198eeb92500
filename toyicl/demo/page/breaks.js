// Limitations: from linear to softmax attention, number of heads, larger inputs; and what the cosine does not measure.

const breaks = { fractionIndex: 0, heads: 1, scale: 1, context: 6, multiple: 1, episodes: null, base: null };
const EPISODES = 200;

function sweptModel(kind, index, seed, heads = breaks.heads) {
  const part = data.softmaxSweep[kind].heads[heads];
  return modelOf(part.keyQuery[index][seed], part.valueOutput[index][seed], data.softmaxSweep.fractions[index]);
}

function sweptSeeds(kind) {
  return data.softmaxSweep[kind].heads[breaks.heads].keyQuery[0].map((_, seed) => seed);
}

// The seed with the lowest loss at the chosen softmax fraction; other seeds may have remained on a plateau.
function leading(kind) {
  const losses = data.softmaxSweep[kind].heads[breaks.heads].loss[breaks.fractionIndex];
  return losses.indexOf(Math.min(...losses));
}

// A sentence that lists the seeds whose loss remained on a plateau at these settings.
function plateaus() {
  const stuck = data.softmaxSweep.wide.heads[breaks.heads].stuck[breaks.fractionIndex];
  const names = stuck.flatMap((is, seed) => (is ? [`seed ${data.softmaxSweep.seeds[seed]}`] : []));
  return names.length ? `All input dimensions: ${names.join(", ")} ${names.length === 1 ? "remains" : "remain"} on a plateau at this softmax fraction.` : "";
}

// New episodes with the task's input dimensions and range; the inputs are scaled where they are used.
function episodes() {
  const { dim, count, range } = data.task;
  breaks.episodes ??= Array.from({ length: EPISODES }, (_, i) => sampleEpisode(generator(9000 + i), dim, count, range));
  return breaks.episodes;
}

function scaledUp(episode, factor) {
  const times = (vector) => vector.map((entry) => factor * entry);
  return { x: episode.x.map(times), y: times(episode.y), query: times(episode.query), label: factor * episode.label };
}

// Compares a model with one step of gradient descent on the page's own episodes, with scaled inputs.
function compareWithDescent(model, factor) {
  const rate = data.references.rate[0];
  const all = episodes().map((episode) => scaledUp(episode, factor));
  const other = all.map(({ x, y }) => descentWeights(x, y, rate, 1));
  const own = all.map(({ x, y, query }) => sensitivity(model, x, y, query));
  const error = (answers) => 0.5 * mean(answers.map((answer, i) => (answer - all[i].label) ** 2));
  const loss = error(all.map(({ x, y, query }) => transformer(model, x, y, query)));
  const descent = error(all.map(({ query }, i) => dot(other[i], query)));
  const zero = 0.5 * mean(all.map(({ label }) => label ** 2));
  return { ...alignment(own, other), loss, descent, zero };
}

function drawBreaks() {
  drawCurve();
  drawSweep();
  const fraction = data.softmaxSweep.fractions[breaks.fractionIndex];
  const found = compareWithDescent(sweptModel("wide", breaks.fractionIndex, leading("wide")), breaks.scale);
  bars("breaks-bars", found.cosine, found.ratio, found.loss / found.descent);
  byId("breaks-fraction").setAttribute("aria-valuetext", `${Math.round(100 * fraction)} percent softmax`);
  write("breaks-fraction-out", `${Math.round(100 * fraction)}% softmax`);
  write("breaks-scale-out", `\u00d7 ${shown(breaks.scale, 1)}`);
  const caution = overshoots(found);
  write("breaks-message", [caution, plateaus()].filter(Boolean).join(" "));
  write("breaks-cosine", shown(found.cosine));
  write("breaks-ratio", shown(found.ratio));
  write("breaks-loss", shown(found.loss / found.descent, 2));
  announce(
    "breaks-live",
    `${Math.round(100 * fraction)} percent softmax, ${breaks.heads} head${breaks.heads === 1 ? "" : "s"}, inputs times ${shown(breaks.scale, 1)}: ` +
      `cosine ${shown(found.cosine, 2)}, norm ratio ${shown(found.ratio, 2)}, loss relative to gradient descent ` +
      `${shown(found.loss / found.descent, 2)}. ${caution}`,
  );
}

// Far outside the training range the step size that was best there is too large: GD's loss exceeds that of
// predicting 0, so a lower loss than GD's is then no sign of a good prediction.
function overshoots({ descent, zero }) {
  if (descent <= zero) return "";
  return `Gradient descent's step is too large for these inputs: its loss is ${shown(descent, 2)}, and the loss of predicting 0 is ${shown(zero, 2)}.`;
}

// One input dimension: the trained layer's prediction as a function of the query, on one context.
function drawCurve() {
  const { count, range } = data.task;
  const episode = scaledUp(sampleEpisode(generator(300 + breaks.context), 1, count, range), breaks.scale);
  const slope = episode.label / episode.query[0];
  const reach = 3 * (range / 2) * 1.05;
  const high = Math.max(1, Math.abs(slope) * reach);
  const area = frame(byId("breaks-curve"), "One input dimension: prediction of the trained layer as a function of the query", {
    x: [-reach, reach], y: [-high, high], xticks: [-3, -1, 0, 1, 3].map((k) => ({ at: (k * range) / 2, text: String((k * range) / 2).replace("-", "\u2212") })),
    yticks: [-1, 0, 1], xlabel: "query x", ylabel: "prediction",
  });
  const [left, right] = [area.X(-range / 2), area.X(range / 2)];
  area.layer.append(
    svg("rect", { x: left, y: area.inside.y, width: right - left, height: area.inside.height, class: "band" }),
    svg("text", { x: (left + right) / 2, y: area.inside.y + 18, class: "tick", "text-anchor": "middle" }, "training range"),
  );
  line(area, [[-reach, -reach * slope], [reach, reach * slope]], "query thin");
  const weight = descentWeights(episode.x, episode.y, data.softmaxSweep.line.rate, 1)[0];
  line(area, [[-reach, -reach * weight], [reach, reach * weight]], "reference dashed");
  const grid = Array.from({ length: 121 }, (_, i) => reach * (i / 60 - 1));
  const first = leading("line");
  [...sweptSeeds("line").filter((seed) => seed !== first), first].forEach((seed) => {
    const model = sweptModel("line", breaks.fractionIndex, seed);
    const curve = grid.map((x) => [x, transformer(model, episode.x, episode.y, [x])]);
    line(area, curve, seed === first ? "model thick" : "other");
  });
  episode.x.forEach(([x], i) => mark(area, x, episode.y[i], "circle", "plain", 5));
}

// All input dimensions: measurements of the run at every softmax fraction, for every seed.
function drawSweep() {
  const { fractions } = data.softmaxSweep;
  const part = data.softmaxSweep.wide.heads[breaks.heads];
  const area = frame(byId("breaks-sweep"), "All input dimensions: cosine, norm ratio and loss relative to GD at every softmax fraction", {
    x: [-0.04, 1.04], y: [-0.2, 2.1], xticks: [{ at: 0, text: "linear" }, 0.5, { at: 1, text: "softmax" }],
    yticks: [0, 0.5, 1, 1.5, 2], xlabel: "fraction of softmax", ylabel: "compared with GD step", right: 30,
  });
  line(area, [[-1, 1], [2, 1]], "quiet thin");
  line(area, [[fractions[breaks.fractionIndex], -1], [fractions[breaks.fractionIndex], 2]], "quiet dotted");
  const curve = (values, kind, shape) =>
    sweptSeeds("wide").forEach((seed) => {
      const points = fractions.map((fraction, i) => [fraction, values[i][seed]]);
      line(area, points, kind);
      if (shape) points.forEach(([x, y]) => mark(area, x, y, shape, kind.split(" ")[0], 4));
    });
  curve(part.untrainedCosine, "other");
  curve(part.loss.map((row, i) => row.map((value) => value / data.softmaxSweep.wide.descent[i])), "reference dashed", "square");
  curve(part.ratio, "third dotted", "triangle");
  curve(part.cosine, "model", "circle");
}

// Bars for cosine, norm ratio and loss relative to GD, with a line at 1.
function bars(id, cosine, ratio, loss) {
  const area = frame(byId(id), `Cosine ${shown(cosine, 2)}, norm ratio ${shown(ratio, 2)}, loss relative to gradient descent ${shown(loss, 2)}`, {
    x: [0, 2.6], y: [0, 3], xticks: [0, 1, 2], yticks: [], xlabel: "1 is agreement with one GD step", ylabel: "", height: 260, left: 14,
  });
  const rows = [["cosine", cosine, "model"], ["norm ratio", ratio, "third"], ["loss relative to GD", loss, "reference"]];
  line(area, [[1, 0], [1, 3]], "ink dashed");
  rows.forEach(([name, value, kind], i) => {
    const [top, bottom] = [area.Y(2.5 - i), area.Y(2.1 - i)];
    const width = Math.max(0, area.X(Math.min(value, 2.6)) - area.X(0));
    area.layer.append(
      svg("rect", { x: area.X(0), y: top, width, height: bottom - top, class: `bar ${kind}` }),
      svg("text", { x: area.X(0) + 6, y: top - 7, class: "bar-label" }, value > 2.6 ? `${name} \u2192` : name),
    );
  });
}

// The trained linear layer with its update multiplied by a factor: the cosine does not change.
function drawTrap() {
  const seed = Math.max(0, data.learn.stuck.indexOf(false));
  const part = [data.learn.keyQuery[seed].at(-1), data.learn.valueOutput[seed].at(-1)];
  const model = (factor) =>
    modelOf(part[0], part[1].map((matrix) => matrix.map((row) => row.map((entry) => factor * entry))));
  const found = compareWithDescent(model(breaks.multiple), 1); // computed from the multiplied weights, not from those of factor 1
  const { zero } = found;
  drawMultiples(model, found, zero);
  write("trap-multiple-out", `\u00d7 ${shown(breaks.multiple, 2)}`);
  write("trap-cosine", shown(found.cosine));
  write("trap-ratio", shown(found.ratio));
  write("trap-loss", shown(found.loss));
  write("trap-zero", shown(zero));
  const verdict =
    Math.abs(found.ratio - 1) < 0.1
      ? "Cosine and norm ratio are both close to 1: the layer performs the step."
      : found.loss > zero
        ? `The cosine is still ${shown(found.cosine, 2)}, but predicting 0 would have a lower loss.`
        : `The cosine is still ${shown(found.cosine, 2)}, but the norm ratio shows that this is not the step.`;
  write("trap-message", verdict);
  announce("trap-live", `Factor on the update ${shown(breaks.multiple, 2)}: cosine ${shown(found.cosine, 2)}, norm ratio ${shown(found.ratio, 2)}. ${verdict}`);
}

function drawMultiples(model, found, zero) {
  const all = episodes();
  const once = model(1);
  breaks.base ??= {
    ...(breaks.multiple === 1 ? found : compareWithDescent(once, 1)),
    answers: all.map(({ x, y, query }) => transformer(once, x, y, query)),
  };
  const base = breaks.base;
  const grid = Array.from({ length: 61 }, (_, i) => i / 20);
  const loss = (factor) => 0.5 * mean(all.map(({ label }, i) => (factor * base.answers[i] - label) ** 2));
  const area = frame(byId("trap-curve"), "Cosine, norm ratio and loss as functions of the factor on the update", {
    x: [0, 3], y: [0, 3.2], xticks: [0, 1, 2, 3], yticks: [0, 1, 2, 3], xlabel: "factor on the update", ylabel: "relative value",
  });
  line(area, [[0, 1], [3, 1]], "quiet thin");
  line(area, grid.map((c) => [c, loss(c) / zero]), "reference dashed");
  line(area, grid.map((c) => [c, c * base.ratio]), "third thick dotted");
  line(area, grid.slice(1).map((c) => [c, base.cosine]), "model thick");
  mark(area, breaks.multiple, found.loss / zero, "square", "reference", 7);
  mark(area, breaks.multiple, found.ratio, "triangle", "third", 8);
  mark(area, breaks.multiple, found.cosine, "circle", "model", 7);
}

function startBreaks() {
  byId("breaks-fraction").max = data.softmaxSweep.fractions.length - 1;
  slider("breaks-fraction", (value) => {
    breaks.fractionIndex = value;
    drawBreaks();
  });
  slider("breaks-scale", (value) => {
    breaks.scale = value;
    drawBreaks();
  });
  slider("trap-multiple", (value) => {
    breaks.multiple = value;
    drawTrap();
  });
  choices("breaks-heads", "breaks-head", Object.keys(data.softmaxSweep.wide.heads).map((heads) => [Number(heads), heads]), 1, (heads) => {
    breaks.heads = heads;
    drawBreaks();
  });
  byId("breaks-new").addEventListener("click", () => {
    breaks.context += 1;
    drawBreaks();
  });
  legend("breaks-curve-legend", [
    ["model thick", "trained layer, best seed"],
    ["other", "other seeds"],
    ["reference dashed", "one GD step"],
    ["query thin", "true line"],
  ]);
  legend("breaks-sweep-legend", [
    ["model", "cosine", "circle"],
    ["third", "norm ratio", "triangle"],
    ["reference", "loss relative to GD", "square"],
    ["other", "cosine of the untrained layer"],
  ]);
  legend("trap-legend", [
    ["model", "cosine", "circle"],
    ["third", "norm ratio", "triangle"],
    ["reference", "loss relative to predicting 0", "square"],
  ]);
  drawBreaks();
  drawTrap();
}
