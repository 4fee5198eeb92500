// Heads of a language model: both circuits of every head next to those of a trained layer that takes the step. The
// results are those of the experiment head_circuits.

const heads = { layer: 0, head: 0, source: 0 };
const EIGENVALUES = [-2, 2]; // real parts that are shown; imaginary parts from -1.2 to 1.2
const FAR_FROM_CHANCE = 4; // a |z| that a random orientation does not have

// The two z of a head, and whether both are far from 0: 0 no, 1 with the same sign, -1 with opposite signs.
function scoreOf(layer, head) {
  const z = data.heads.z[heads.source].map((circuit) => circuit[layer][head]);
  const far = z.every((value) => Math.abs(value) > FAR_FROM_CHANCE);
  return { z, kind: far ? Math.sign(z[0] * z[1]) : 0 };
}

const KINDS_OF_HEADS = [
  [-1, "diamond", "model", "both |z| > 4, opposite signs", 5],
  [1, "circle", "open model", "both |z| > 4, the same sign", 4.5],
  [0, "square", "dot", "not both", 2],
];

function drawHeadMap() {
  const { layers, count } = data.heads;
  const root = byId("heads-map");
  // The marks depend on the matrices only; the ring alone follows the sliders.
  if (root.shown?.source !== heads.source) {
    const area = frame(root, "Every head by its layer: whether both circuits have a part along the identity", {
      x: [-0.8, layers - 0.2], y: [-0.8, count - 0.2], xticks: [0, 10, 20, layers - 1], yticks: [0, 4, count - 1], xlabel: "layer", ylabel: "head", height: 250,
    });
    let far = 0;
    for (let layer = 0; layer < layers; layer += 1) {
      for (let head = 0; head < count; head += 1) {
        const { kind } = scoreOf(layer, head);
        const [, shape, style, , radius] = KINDS_OF_HEADS.find(([one]) => one === kind);
        if (kind) far += 1;
        mark(area, layer, head, shape, style, radius).dataset.head = `${layer} ${head}`;
      }
    }
    write("heads-far", `${far} of ${layers * count}`);
    root.shown = { source: heads.source, area, ring: mark(area, 0, 0, "square", "query ring", 8) };
  }
  const { area, ring } = root.shown;
  ring.setAttribute("transform", `translate(${area.X(heads.layer)} ${area.Y(heads.head)})`);
}

function drawPlane(id, circuit, name) {
  const area = frame(byId(id), `Eigenvalues of ${name}, of the chosen head and of the trained layer`, {
    x: EIGENVALUES, y: [-1.2, 1.2], xticks: [-2, -1, 0, 1, 2], yticks: [-1, 0, 1], xlabel: "real part", ylabel: "imaginary part", height: 250,
  });
  line(area, [[0, -2], [0, 2]], "faint");
  line(area, [EIGENVALUES, EIGENVALUES].map((_, i) => [EIGENVALUES[i], 0]), "faint");
  const [real, imaginary] = data.heads.values[heads.source][circuit][heads.layer][heads.head];
  real.forEach((value, i) => mark(area, value, imaginary[i], "circle", "model", 3));
  const [trainedReal, trainedImaginary] = data.heads.trained[circuit];
  trainedReal.forEach((at, i) => mark(area, at, trainedImaginary[i], "diamond", "reference ring", 8));
  return real.filter((value, i) => Math.abs(value) > EIGENVALUES[1] || Math.abs(imaginary[i]) > 1.2).length;
}

function drawHeads() {
  drawHeadMap();
  const outside = drawPlane("heads-keys", 0, "W_K transposed W_Q") + drawPlane("heads-values", 1, "P W_V");
  const { z, kind } = scoreOf(heads.layer, heads.head);
  const [keys, values] = [0, 1].map((circuit) => data.heads.fraction[heads.source][circuit][heads.layer][heads.head]);
  const name = `Layer ${heads.layer}, head ${heads.head}`;
  write("heads-layer-out", heads.layer);
  write("heads-head-out", heads.head);
  write("heads-z-keys", shown(z[0], 1));
  write("heads-z-values", shown(z[1], 1));
  write("heads-fraction-keys", shown(keys, 3));
  write("heads-fraction-values", shown(values, 3));
  const found = {
    "-1": "both circuits have a part along the identity, with opposite signs, as in the trained layer.",
    1: "both circuits have a part along the identity, with the same sign.",
    0: "not both circuits have a part along the identity.",
  }[kind];
  const hidden = outside ? ` ${outside} points are outside the frames.` : "";
  write("heads-message", `${heads.source ? `${name}, with matrices of another head` : name}: ${found}${hidden}`);
  announce("heads-live", `${name}: z ${shown(z[0], 1)} and ${shown(z[1], 1)}; ${found}`);
}

function startHeads() {
  if (!data.heads) {
    byId("heads").hidden = true;
    document.querySelector('nav a[href="#heads"]').hidden = true;
    return;
  }
  [heads.layer, heads.head] = data.heads.first;
  fill(byId("heads-layer"), { max: data.heads.layers - 1 }, []);
  fill(byId("heads-head"), { max: data.heads.count - 1 }, []);
  slider("heads-layer", "block", heads, "layer", drawHeads);
  slider("heads-head", "head", heads, "head", drawHeads);
  choices("heads-source", "heads-source", "matrices", [[0, "its own"], [1, "those of another head"]], heads, "source", drawHeads);
  byId("heads-map").addEventListener("click", (event) => {
    const chosen = event.target.closest("[data-head]");
    if (!chosen) return;
    [heads.layer, heads.head] = chosen.dataset.head.split(" ").map(Number);
    controls.get("block").draw();
    controls.get("head").draw();
    changed("block");
  });
  legend("heads-map-legend", KINDS_OF_HEADS.map(([, shape, style, text]) => [style, text, shape, true]));
  legend("heads-legend", [
    ["model", "the head’s eigenvalues", "circle", true],
    ["reference ring", "trained layer that computes the step", "diamond", true],
  ]);
  drawHeads();
}
