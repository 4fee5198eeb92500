// From linear to softmax attention: number of heads, larger inputs, and every trained seed.

const breaks = { fraction: 0, heads: 1, scale: 1, context: 6, guess: 0.4, compared: false, found: new Map() };

function sweptModel(kind, index, seed, heads = breaks.heads) {
  const part = data.softmaxSweep[kind].heads[heads];
  return modelOf(part.keyQuery[index][seed], part.valueOutput[index][seed], data.softmaxSweep.fractions[index]);
}

function sweptSeeds(kind) {
  return data.softmaxSweep[kind].heads[breaks.heads].keyQuery[0].map((_, seed) => seed);
}

function fractionIndex() {
  return data.softmaxSweep.fractions.indexOf(breaks.fraction);
}

// The seed with the lowest loss at the chosen softmax fraction; other seeds may be at a saddle point.
function leading(kind) {
  return lowest(data.softmaxSweep[kind].heads[breaks.heads].loss[fractionIndex()]);
}

function percent(fraction) {
  return `${Math.round(100 * fraction)}%`;
}

// A sentence that lists the seeds whose loss is still at a saddle point at these settings.
function saddleSentence() {
  const stuck = data.softmaxSweep.wide.heads[breaks.heads].stuck[fractionIndex()];
  const names = stuck.flatMap((is, seed) => (is ? [data.softmaxSweep.seeds[seed]] : []));
  if (!names.length) return "No seed is at a saddle point here.";
  return `${names.length === 1 ? "Seed" : "Seeds"} ${names.join(", ")} of ${stuck.length}: training ended at a saddle point, not at the best layer.`;
}

// The softmax fraction from which on the best seed's loss is more than 5% above that of the step, next to the student's mark.
function markSentence() {
  const { fractions, wide } = data.softmaxSweep;
  const best = wide.heads[breaks.heads].loss.map((losses) => losses[lowest(losses)]);
  const over = fractions.map((_, i) => !(best[i] / wide.descent[i] <= 1.05));
  const from = over.lastIndexOf(false) + 1;
  const found = from < fractions.length ? `from a fraction of ${percent(fractions[from])} on` : "at no fraction";
  return `Your mark: ${percent(breaks.guess)}. The best seed’s loss is more than 5% above that of the step ${found}.`;
}

// What the best layer does at these settings; kept, because the same settings are often visited again.
function foundHere() {
  const name = `${breaks.fraction} ${breaks.heads} ${breaks.scale}`;
  if (!breaks.found.has(name)) breaks.found.set(name, compareWithDescent(sweptModel("wide", fractionIndex(), leading("wide")), breaks.scale));
  return breaks.found.get(name);
}

function drawBreaks() {
  const found = foundHere();
  drawCurve();
  drawSweep();
  bars("breaks-bars", found);
  const name = `${percent(breaks.fraction)} softmax`;
  byId("breaks-fraction").setAttribute("aria-valuetext", name);
  byId("breaks-guess").setAttribute("aria-valuetext", percent(breaks.guess));
  write("breaks-fraction-out", percent(breaks.fraction));
  write("breaks-guess-out", percent(breaks.guess));
  write("breaks-scale-out", `\u00d7 ${shown(breaks.scale, 1)}`);
  write("breaks-cosine", shown(found.cosine));
  write("breaks-ratio", shown(found.ratio));
  write("breaks-loss", shown(found.loss / found.descent, 2));
  write("breaks-zero", shown(found.loss / found.zero, 2));
  write("breaks-message", breaksSentence(found));
  write("breaks-saddles", breaks.compared ? `${saddleSentence()} ${markSentence()}` : saddleSentence());
  announce(
    "breaks-live",
    `${name}, ${breaks.heads} head${breaks.heads === 1 ? "" : "s"}, inputs times ${shown(breaks.scale, 1)}: ` +
      `cosine ${shown(found.cosine, 2)}, norm ratio ${shown(found.ratio, 2)}, loss relative to gradient descent ` +
      `${shown(found.loss / found.descent, 2)}, relative to answering 0 ${shown(found.loss / found.zero, 2)}. ${breaksSentence(found)}`,
  );
}

// Far outside the training range the step size that was best there is too large: GD's loss exceeds that of
// answering 0, so a lower loss than GD's is then no sign of a good answer.
function breaksSentence({ loss, descent, zero, cosine, ratio }) {
  if (descent > zero) {
    const worse = loss > zero ? "also worse" : "better";
    return `Gradient descent's step is too large for these inputs: its loss is ${shown(descent, 2)}, answering 0 has ${shown(zero, 2)}. The layer, ${shown(loss, 2)}, is ${worse} than answering 0.`;
  }
  if (loss < 1.05 * descent && cosine > 0.98) return "The best of the trained layers still takes the step of gradient descent.";
  return `Even the best of the trained layers is not the step: its loss is ${shown(loss / descent, 2)} times that of the step (cosine ${shown(cosine, 2)}, norm ratio ${shown(ratio, 2)}).`;
}

// One input dimension: the trained layer's prediction as a function of the query, on one context.
function drawCurve() {
  const { count, range } = data.task;
  const episode = scaledUp(sampleEpisode(generator(300 + breaks.context), 1, count, range), breaks.scale);
  const slope = episode.label / episode.query[0];
  const reach = 3 * (range / 2) * 1.05;
  const high = Math.max(1, Math.abs(slope) * reach);
  const area = frame(byId("breaks-curve"), "One input dimension: prediction of the trained layer as a function of the query", {
    x: [-reach, reach], y: [-high, high], xticks: [-3, -1, 0, 1, 3].map((k) => ({ at: (k * range) / 2, text: minus((k * range) / 2) })),
    yticks: [-1, 0, 1], xlabel: "query x", ylabel: "prediction", height: 270,
  });
  const [left, right] = [area.X(-range / 2), area.X(range / 2)];
  area.layer.append(
    svg("rect", { x: left, y: area.inside.y, width: right - left, height: area.inside.height, class: "band" }),
    svg("text", { x: (left + right) / 2, y: area.inside.y + 18, class: "tick", "text-anchor": "middle" }, "training range"),
  );
  line(area, [[-reach, -reach * slope], [reach, reach * slope]], "quiet dotted");
  const weight = descentWeights(episode.x, episode.y, data.softmaxSweep.line.rate, 1)[0];
  line(area, [[-reach, -reach * weight], [reach, reach * weight]], "reference dashed");
  const grid = Array.from({ length: 61 }, (_, i) => reach * (i / 30 - 1));
  const first = leading("line");
  [...sweptSeeds("line").filter((seed) => seed !== first), first].forEach((seed) => {
    const model = sweptModel("line", fractionIndex(), seed);
    const curve = grid.map((x) => [x, transformer(model, episode.x, episode.y, [x])]);
    line(area, curve, seed === first ? "model thick" : "other");
  });
  episode.x.forEach(([x], i) => mark(area, x, episode.y[i], "circle", "plain", 5));
}

// All input dimensions: measurements of the run at every softmax fraction, for every seed. The fractions are evenly
// spaced, so that half of the axis is for those from 90% on. Before Compare only the chosen fraction is shown.
function drawSweep() {
  const { fractions } = data.softmaxSweep;
  const part = data.softmaxSweep.wide.heads[breaks.heads];
  const last = fractions.length - 1;
  const area = frame(byId("breaks-sweep"), "All input dimensions: cosine, norm ratio and loss relative to GD at every softmax fraction", {
    x: [-0.4, last + 0.4], y: [-0.1, 2.1], yticks: [0, 0.5, 1, 1.5, 2], ylabel: "relative to the step", right: 22, height: 270,
    xticks: fractions.flatMap((fraction, i) => (i === last || i % 3 === 0 ? [{ at: i, text: percent(fraction) }] : [])),
    xlabel: "softmax fraction of the attention",
  });
  line(area, [[-1, 1], [last + 1, 1]], "quiet thin");
  line(area, [[fractionIndex(), -1], [fractionIndex(), 3]], "quiet dotted");
  const guessed = fractions.indexOf(breaks.guess);
  line(area, [[guessed, -1], [guessed, 3]], "query dashed");
  mark(area, guessed, 2, "diamond", "query", 6);
  const visible = fractions.map((_, i) => i).filter((i) => breaks.compared || i === fractionIndex());
  const curve = (values, kind, shape) =>
    sweptSeeds("wide").forEach((seed) => {
      line(area, visible.map((i) => [i, values[i][seed]]), `${kind} thin`);
      visible.forEach((i) => mark(area, i, values[i][seed], shape, `${kind.split(" ")[0]} ${part.stuck[i][seed] ? "open" : ""}`, part.stuck[i][seed] ? 6 : 4));
    });
  curve(part.loss.map((row, i) => row.map((value) => value / data.softmaxSweep.wide.descent[i])), "loss dashed", "square");
  curve(part.ratio, "ratio dotted", "triangle");
  curve(part.cosine, "cosine", "circle");
}

// Bars for cosine, norm ratio, and the loss relative to GD and to answering 0, with a line at 1.
function bars(id, { cosine, ratio, loss, descent, zero }) {
  const rows = [["cosine", cosine, "cosine"], ["norm ratio", ratio, "ratio"], ["loss / GD’s loss", loss / descent, "loss"], ["loss / answering 0", loss / zero, "loss"]];
  const label = rows.map(([name, value]) => `${name} ${shown(value, 2)}`).join(", ");
  const area = frame(byId(id), label, {
    x: [0, 2.6], y: [0, rows.length], xticks: [0, 1, 2], yticks: [], xlabel: "1: as the step, or as answering 0", ylabel: "", height: 270, left: 14,
  });
  line(area, [[1, 0], [1, rows.length]], "quiet dashed");
  rows.forEach(([name, value, kind], i) => {
    const [top, bottom] = [area.Y(rows.length - 0.5 - i), area.Y(rows.length - 0.92 - i)];
    const width = Number.isFinite(value) ? Math.max(0, area.X(Math.min(value, 2.6)) - area.X(0)) : 0;
    area.layer.append(
      svg("rect", { x: area.X(0), y: top, width, height: bottom - top, class: `bar ${kind}` }),
      svg("text", { x: area.X(0) + 6, y: top - 4, class: "bar-label" }, value > 2.6 ? `${name} \u2192` : name),
    );
  });
}

function startBreaks() {
  const { fractions, wide } = data.softmaxSweep;
  breaks.guess = fractions[Math.floor(fractions.length / 3)];
  slider("breaks-fraction", "share", breaks, "fraction", drawBreaks, fractions);
  slider("breaks-scale", "scale", breaks, "scale", drawBreaks);
  choices("breaks-heads", "breaks-head", "heads", Object.keys(wide.heads).map((heads) => [Number(heads), heads]), breaks, "heads", drawBreaks);
  slider("breaks-guess", "mark", breaks, "guess", drawBreaks, fractions);
  toggle("breaks-compare", "compared", breaks, "compared", ["Compare", "Hide the others"], drawBreaks);
  counter("breaks-new", "context", breaks, "context", drawBreaks);
  legend("breaks-curve-legend", [
    ["model thick", "trained layer, best seed"],
    ["other", "other seeds"],
    ["reference dashed", "one GD step"],
    ["quiet dotted", "true line"],
  ]);
  legend("breaks-sweep-legend", [
    ["cosine thin", "cosine", "circle"],
    ["ratio dotted", "norm ratio", "triangle"],
    ["loss dashed", "loss / GD’s loss", "square"],
    ["open ink", "large and hollow: seed at a saddle point", "circle", true],
    ["query dashed", "your mark", "diamond"],
  ]);
  drawBreaks();
}
