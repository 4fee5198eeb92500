// Results of the run, stored in the page as JSON; an array is {shape, base64}, with float32 numbers in base64, or
// {shape, base64, unit}, with 16-bit integers that count this fraction of 1.

function unpack({ shape, base64, unit }) {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i += 1) bytes[i] = text.charCodeAt(i);
  // little-endian, as all browsers' arrays are
  const values = unit ? Float32Array.from(new Int16Array(bytes.buffer), (value) => value * unit) : new Float32Array(bytes.buffer);
  const size = shape.at(-1) ?? 1;
  let at = 0;
  const nest = (level) => {
    if (level < shape.length - 1) return Array.from({ length: shape[level] }, () => nest(level + 1));
    at += size;
    return Array.from(values.subarray(at - size, at));
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

// The position of the lowest loss; seeds that diverged, whose losses are not finite, do not count.
function lowest(losses) {
  const finite = losses.map((loss) => (Number.isFinite(loss) ? loss : Infinity));
  return finite.indexOf(Math.min(...finite));
}

// A model from its circuits, each indexed [head][row][column]; `fraction` is the fraction of softmax attention.
function modelOf(keyQuery, valueOutput, fraction = 0, depth = 1) {
  const heads = keyQuery.map((matrix, head) => ({ keyQuery: matrix, valueOutput: valueOutput[head] }));
  return { layers: new Array(depth).fill(heads), fraction };
}
