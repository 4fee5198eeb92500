// Results of the run, stored in the page as JSON; an array is {shape, base64}, with float32 numbers in base64.

function unpack({ shape, base64 }) {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  const values = new DataView(bytes.buffer);
  let at = 0;
  const nest = (level) => {
    if (level === shape.length) {
      at += 4;
      return values.getFloat32(at - 4, true);
    }
    return Array.from({ length: shape[level] }, () => nest(level + 1));
  };
  return nest(0);
}

function unpackAll(value) {
  if (Array.isArray(value)) return value.map(unpackAll);
  if (value === null || typeof value !== "object") return value;
  if ("base64" in value) return unpack(value);
  return Object.fromEntries(Object.entries(value).map(([name, entry]) => [name, unpackAll(entry)]));
}

const data = unpackAll(JSON.parse(document.getElementById("data").textContent));

// A model from its circuits, each indexed [head][row][column]; `fraction` is the fraction of softmax attention.
function modelOf(keyQuery, valueOutput, fraction = 0, depth = 1) {
  const heads = keyQuery.map((matrix, head) => ({ keyQuery: matrix, valueOutput: valueOutput[head] }));
  return { layers: new Array(depth).fill(heads), fraction };
}
