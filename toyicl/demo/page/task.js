// What is in-context learning? One trained layer with frozen weights, and a new task at every press of a button.

const task = { drawn: 1, query: 0.3 };

// The trained layer with one input and linear attention; of its seeds, the one with the lowest loss.
function frozen() {
  const part = data.softmaxSweep.line.heads[1];
  const seed = lowest(part.loss[0]);
  return { keyQuery: part.keyQuery[0][seed], valueOutput: part.valueOutput[0][seed] };
}

function taskEpisode(number) {
  return sampleEpisode(generator(700 + number), 1, data.task.count, data.task.range);
}

function drawTask() {
  const { keyQuery, valueOutput } = frozen();
  const { x, y, weights } = taskEpisode(task.drawn);
  const query = [task.query * data.task.range];
  const answer = transformer(modelOf(keyQuery, valueOutput), x, y, query);
  const label = weights[0] * query[0];
  const token = (first, second, kind) =>
    html("li", { class: kind }, html("span", {}, shown(first, 2)), html("span", {}, typeof second === "string" ? second : shown(second, 2)));
  byId("task-tokens").replaceChildren(...x.map(([value], i) => token(value, y[i], "token")), token(query[0], "?", "token asked"));
  [["task-kq", keyQuery], ["task-pv", valueOutput]].forEach(([id, matrix]) =>
    byId(id).replaceChildren(...matrix.flat(2).map((entry) => html("span", {}, shown(entry, 2)))),
  );
  write("task-query-out", shown(query[0], 2));
  write("task-answer", shown(answer, 2));
  write("task-label", shown(label, 2));
  const half = 0.525 * data.task.range;
  const high = 1.1;
  const area = frame(byId("task-plot"), `Task ${task.drawn}: its points, the layer's answer ${shown(answer, 2)} and the true label ${shown(label, 2)}`, {
    x: [-half, half], y: [-high, high], xticks: [-0.5, 0, 0.5].map((k) => k * data.task.range), yticks: [-1, 0, 1],
    xlabel: "input x", ylabel: "label y", height: 270,
  });
  line(area, [[-half, -half * weights[0]], [half, half * weights[0]]], "quiet dashed");
  line(area, [[query[0], -9], [query[0], 9]], "query thin");
  x.forEach(([value], i) => mark(area, value, y[i], "circle", "plain", 6));
  mark(area, query[0], label, "square", "open ink", 9);
  mark(area, query[0], answer, "diamond", "query", 7);
  write("task-message", `Task ${task.drawn}: the layer answers ${shown(answer, 2)}; the true label is ${shown(label, 2)}. No weight has changed.`);
  announce("task-live", byId("task-message").textContent);
}

function startTask() {
  counter("task-new", "task", task, "drawn", drawTask);
  slider("task-query", "asked", task, "query", drawTask);
  legend("task-legend", [
    ["plain", "labelled points of the context", "circle", true],
    ["query", "the layer’s answer", "diamond", true],
    ["open ink", "true label", "square", true],
    ["quiet dashed", "true line"],
  ]);
  drawTask();
}
