// Why it is a step: the loss of the points in the first section as a function of the line's slope.

function drawValley() {
  const x = step.points.map(([x]) => x);
  const y = step.points.map(([, y]) => y);
  const loss = (weight) => lineLoss(x, y, weight);
  const slope = lineSlope(x, y, 0);
  const after = -step.rate * slope;
  const best = dot(x, y) / dot(x, x);
  const reach = 3;
  const top = 4 * Math.max(loss(0), loss(best), 0.02);
  const area = frame(byId("valley-plot"), `Loss as a function of the slope w: one step leads from 0 to ${shown(after, 2)}, the lowest point is at ${shown(best, 2)}`, {
    x: [-reach, reach], y: [-0.06 * top, top], xticks: [-3, -2, -1, 0, 1, 2, 3], yticks: [0], xlabel: "slope w of the line", ylabel: "loss L(w)", height: 260,
  });
  const grid = Array.from({ length: 121 }, (_, i) => reach * (i / 60 - 1));
  line(area, grid.map((w) => [w, loss(w)]), "ink");
  line(area, [[-reach, loss(0) - reach * slope], [reach, loss(0) + reach * slope]], "quiet dashed");
  line(area, [[best, -1], [best, loss(best)]], "quiet dotted");
  line(area, [[0, loss(0)], [after, loss(0)], [after, loss(after)]], "reference thick");
  mark(area, 0, loss(0), "circle", "open ink", 8);
  mark(area, best, loss(best), "square", "plain", 6);
  mark(area, after, loss(after), "circle", "reference", 8);
  write("valley-rate-out", shown(step.rate, 2));
  write("valley-slope", shown(slope, 3));
  write("valley-after", shown(after, 3));
  write("valley-best", shown(best, 3));
  const sentence =
    loss(after) > loss(0)
      ? "The step is so long that it ends higher than it began."
      : Math.abs(after - best) < 0.03
        ? "With one input, one step of the right size ends at the lowest point."
        : Math.abs(after) < Math.abs(best)
          ? "The step is downhill and stops before the lowest point."
          : "The step is downhill and goes beyond the lowest point.";
  write("valley-message", sentence);
  announce("valley-live", `Step size ${shown(step.rate, 2)}: the slope goes from 0 to ${shown(after, 2)}. ${sentence}`);
}

function startValley() {
  legend("valley-legend", [
    ["open ink", "before the step, w = 0", "circle", true],
    ["reference thick", "the step, and the loss after it", "circle"],
    ["plain", "lowest point", "square", true],
    ["quiet dashed", "tangent at w = 0"],
  ]);
  drawValley();
}
