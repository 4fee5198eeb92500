// Larger models: what a bound on the token entries changes. The results are those of the experiment token_clip.

const larger = { bound: 1 };

function boundName(i) {
  const { bounds } = data.clip;
  return bounds[i] === null ? "none" : String(bounds[i]);
}

function drawClip() {
  const { bounds, layers, loss, best } = data.clip;
  const most = Math.max(...best.flat(), ...loss.flat(2).filter(Number.isFinite));
  const area = frame(byId("clip-plot"), "Loss of trained models and of the best GD++ by the bound on token entries, for 2, 5 and 10 layers", {
    x: [-0.4, bounds.length - 0.6], y: [0, 1.1 * most], xticks: bounds.map((_, i) => ({ at: i, text: boundName(i) })), yticks: [0, 0.05, 0.1].filter((tick) => tick < 1.1 * most),
    xlabel: "bound on the entries of every token", ylabel: "loss", right: 34,
  });
  line(area, [[larger.bound, -1], [larger.bound, 1]], "quiet dotted");
  const shapes = ["circle", "triangle", "diamond"];
  layers.forEach((_, k) => {
    line(area, best[k].map((value, i) => [i, value]), "third dotted");
    loss[k].forEach((row, i) => row.filter(Number.isFinite).forEach((value) => mark(area, i, value, shapes[k % 3], "model", i === larger.bound ? 7 : 5)));
  });
  write("clip-bound-out", boundName(larger.bound));
  byId("clip-bound").setAttribute("aria-valuetext", boundName(larger.bound));
  const deepest = layers.length - 1;
  const trained = loss[deepest][larger.bound].filter(Number.isFinite);
  write("clip-layers", String(layers[deepest]));
  write("clip-best", shown(best[deepest][larger.bound], 4));
  write("clip-model", trained.length ? shown(mean(trained), 4) : "not stable");
  announce("clip-live", `Bound ${boundName(larger.bound)}: the best GD++ with ${layers[deepest]} steps has loss ${shown(best[deepest][larger.bound], 4)}.`);
}

function startLarger() {
  if (!data.clip) {
    byId("clip").hidden = true;
    return;
  }
  slider("clip-bound", "bound", larger, "bound", drawClip, data.clip.bounds.map((_, i) => i));
  const shapes = ["circle", "triangle", "diamond"];
  legend("clip-legend", [
    ...data.clip.layers.map((layers, k) => ["model", `${layers} trained layers`, shapes[k % 3], true]),
    ["third dotted", "best GD++ under this bound"],
  ]);
  drawClip();
}
