// The formulas of the page, in double precision, for one episode at a time: x has N rows of d numbers, y has
// N labels, and a query has d numbers. Names and conventions follow toyicl's algorithms and models.

function dot(a, b) {
  let sum = 0;
  for (let i = 0; i < a.length; i += 1) sum += a[i] * b[i];
  return sum;
}

function times(matrix, vector) {
  return matrix.map((row) => dot(row, vector));
}

function plus(a, b, factor = 1) {
  return a.map((value, i) => value + factor * b[i]);
}

function zeros(size) {
  return new Array(size).fill(0);
}

function mean(values) {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

function eachStep(rates, steps) {
  return Array.isArray(rates) ? rates : new Array(steps).fill(rates);
}

// W <- W - (eta_k / N) sum_i (W x_i - y_i) x_i, from W = 0. Returns the weights after the last step.
function descentWeights(x, y, rates, steps) {
  let weights = zeros(x[0].length);
  for (const rate of eachStep(rates, steps)) {
    let gradient = zeros(weights.length);
    x.forEach((point, i) => {
      gradient = plus(gradient, point, dot(weights, point) - y[i]);
    });
    weights = plus(weights, gradient, -rate / x.length);
  }
  return weights;
}

function gradientDescent(x, y, query, rates, steps) {
  return dot(descentWeights(x, y, rates, steps), query);
}

// Labels after one step, y_j - W_1 x_j, and the query's label, which starts at 0: the step as a change of the data.
function movedLabels(x, y, query, rate) {
  const move = (point) => (rate / x.length) * x.reduce((sum, other, i) => sum + y[i] * dot(other, point), 0);
  return { labels: x.map((point, j) => y[j] - move(point)), query: 0 - move(query) };
}

// GD++: labels change as in gradient descent, and each input x_j changes by -gamma_k sum_i x_i (x_i . x_j).
function gdpp(x, y, query, rates, curvatures, steps) {
  const count = x.length;
  const gammas = eachStep(curvatures, steps);
  let points = x;
  let labels = y;
  let asked = query;
  let answer = 0;
  eachStep(rates, steps).forEach((rate, step) => {
    let moments = zeros(asked.length);
    points.forEach((point, i) => {
      moments = plus(moments, point, labels[i]);
    });
    const read = (row) => points.reduce((sum, point) => plus(sum, point, dot(point, row)), zeros(row.length));
    const moved = [...points, asked].map((row) => plus(row, read(row), -gammas[step]));
    labels = labels.map((label, j) => label - (rate / count) * dot(points[j], moments));
    answer -= (rate / count) * dot(asked, moments);
    points = moved.slice(0, count);
    asked = moved[count];
  });
  return -answer;
}

// Output of linear attention for one row, before the value matrix is applied: sum_i (row . e_i) e_i.
function linearAttention(row, context) {
  return context.reduce((sum, token) => plus(sum, token, dot(row, token)), zeros(row.length));
}

// Softmax weights of scores, multiplied by a sign.
function exponentials(scores, sign) {
  const most = Math.max(...scores.map((score) => sign * score));
  const raised = scores.map((score) => Math.exp(sign * score - most));
  const total = raised.reduce((sum, value) => sum + value, 0);
  return raised.map((value) => value / total);
}

function softmaxWeights(row, context, scale) {
  return exponentials(context.map((token) => scale * dot(row, token)), 1);
}

// Output of softmax attention for one row, before the value matrix is applied: the mean of e_i with
// the weights softmax_i(scale row . e_i).
function softmaxAttention(row, context, scale) {
  const weights = softmaxWeights(row, context, scale);
  return context.reduce((sum, token, i) => plus(sum, token, weights[i]), zeros(row.length));
}

function mixedAttention(row, context, scale, fraction) {
  const parts = [
    [1 - fraction, fraction < 1 ? linearAttention(row, context) : zeros(row.length)],
    [fraction, fraction > 0 ? softmaxAttention(row, context, scale) : zeros(row.length)],
  ];
  return parts.reduce((sum, [factor, read]) => plus(sum, read, factor), zeros(row.length));
}

// A model is {layers: [heads], fraction}; a head is {keyQuery, valueOutput}, its circuits W_K^T W_Q and P W_V,
// (d + 1) x (d + 1); fraction is the fraction of softmax attention. Layers with the same weights are listed repeatedly.
function update(heads, fraction, token, context) {
  const scale = 1 / Math.sqrt(token.length);
  return heads.reduce((sum, { keyQuery, valueOutput }) => {
    const read = mixedAttention(times(keyQuery, token), context, scale, fraction);
    return plus(sum, times(valueOutput, read));
  }, zeros(token.length));
}

// Predictions read after each layer: minus the query token's last entry.
function layerwise(model, x, y, query) {
  let context = x.map((point, i) => [...point, y[i]]);
  let token = [...query, 0];
  return model.layers.map((heads) => {
    const before = context;
    context = before.map((row) => plus(row, update(heads, model.fraction, row, before)));
    token = plus(token, update(heads, model.fraction, token, before));
    return -token[token.length - 1];
  });
}

function transformer(model, x, y, query) {
  if (model.layers.length === 1) return oneLayer(model, x, y, query, false).answer;
  const answers = layerwise(model, x, y, query);
  return answers[answers.length - 1];
}

// A one-layer model's prediction, and its gradient with respect to the query if `slope` is true. In loops over
// numbers, because the page evaluates hundreds of episodes whenever a control moves.
function oneLayer(model, x, y, query, slope) {
  const fraction = model.fraction;
  const dim = query.length;
  const size = dim + 1;
  const count = x.length;
  const scale = 1 / Math.sqrt(size);
  const gradient = zeros(dim);
  let answer = 0;
  for (const { keyQuery, valueOutput } of model.layers[0]) {
    const last = valueOutput[dim];
    const row = new Float64Array(size);
    for (let a = 0; a < size; a += 1) {
      for (let b = 0; b < dim; b += 1) row[a] += keyQuery[a][b] * query[b]; // the query's own label is 0
    }
    const [scores, written] = [new Float64Array(count), new Float64Array(count)];
    let most = -Infinity;
    for (let i = 0; i < count; i += 1) {
      let score = row[dim] * y[i];
      let value = last[dim] * y[i];
      for (let a = 0; a < dim; a += 1) {
        score += row[a] * x[i][a];
        value += last[a] * x[i][a];
      }
      scores[i] = score;
      written[i] = value;
      most = Math.max(most, score);
    }
    const weights = new Float64Array(count);
    let average = 0;
    if (fraction > 0) {
      let total = 0;
      for (let i = 0; i < count; i += 1) {
        weights[i] = Math.exp(scale * (scores[i] - most));
        total += weights[i];
      }
      for (let i = 0; i < count; i += 1) {
        weights[i] /= total;
        average += weights[i] * written[i];
      }
    }
    const read = new Float64Array(size);
    for (let i = 0; i < count; i += 1) {
      answer -= (1 - fraction) * scores[i] * written[i];
      if (!slope) continue;
      // Derivative of the update's last entry with respect to the score row . e_i. By the chain rule,
      // d (row . e_i) = e_i . W_K^T W_Q d query.
      const factor = (1 - fraction) * written[i] + fraction * scale * weights[i] * (written[i] - average);
      for (let a = 0; a < dim; a += 1) read[a] += factor * x[i][a];
      read[dim] += factor * y[i];
    }
    answer -= fraction * average;
    if (!slope) continue;
    for (let b = 0; b < size; b += 1) {
      for (let a = 0; a < dim; a += 1) gradient[a] -= read[b] * keyQuery[b][a];
    }
  }
  return { answer, gradient };
}

// Gradient of a one-layer model's prediction with respect to the query.
function sensitivity(model, x, y, query) {
  return oneLayer(model, x, y, query, true).gradient;
}

// Proposition 1: the circuits of one head that performs one step of gradient descent.
function constructedHead(rate, count, dim) {
  const empty = () => Array.from({ length: dim + 1 }, () => zeros(dim + 1));
  const [keyQuery, valueOutput] = [empty(), empty()];
  for (let a = 0; a < dim; a += 1) keyQuery[a][a] = 1;
  valueOutput[dim][dim] = -rate / count;
  return { keyQuery, valueOutput };
}

// One softmax head whose logits are sharpness x_i . x_q; it adds factor times the mean label under these weights.
function softmaxHead(sharpness, factor, dim) {
  const { keyQuery, valueOutput } = constructedHead(factor, 1, dim);
  const scale = Math.sqrt(dim + 1); // attention divides its scores by it
  return { keyQuery: keyQuery.map((row) => row.map((entry) => scale * sharpness * entry)), valueOutput };
}

// One such head, or two of opposite logits and factors.
function softmaxHeads(heads, sharpness, factor, dim) {
  const all = [softmaxHead(sharpness, factor, dim), softmaxHead(-sharpness, -factor, dim)];
  return { layers: [all.slice(0, heads)], fraction: 1 };
}

// Half the mean squared error of the prediction w x, and its derivative, for one input.
function lineLoss(x, y, weight) {
  return 0.5 * mean(x.map((value, i) => (weight * value - y[i]) ** 2));
}

function lineSlope(x, y, weight) {
  return mean(x.map((value, i) => (weight * value - y[i]) * value));
}

// eta / N of a one-layer model, computed from its weights: the mean diagonal entry of the implied step matrix.
function learnedStep(heads) {
  const dim = heads[0].keyQuery.length - 1;
  return heads.reduce((sum, { keyQuery, valueOutput }) => {
    const last = valueOutput[dim];
    let trace = 0;
    for (let a = 0; a < dim; a += 1) trace += last[a] * keyQuery[dim][a] + last[dim] * keyQuery[a][a];
    return sum - trace / dim;
  }, 0);
}

// Eigenvalues (ascending) and eigenvectors (rows) of a symmetric matrix, by Jacobi rotations.
function eigen(matrix) {
  const size = matrix.length;
  const a = matrix.map((row) => [...row]);
  const v = a.map((_, i) => a.map((_, j) => Number(i === j)));
  for (let sweep = 0; sweep < 60; sweep += 1) {
    let off = 0;
    let whole = 0;
    a.forEach((row, i) =>
      row.forEach((entry, j) => {
        whole += entry * entry;
        if (i !== j) off += entry * entry;
      }),
    );
    if (off <= 1e-30 * whole) break;
    for (let p = 0; p < size; p += 1) {
      for (let q = p + 1; q < size; q += 1) {
        if (a[p][q] !== 0) rotate(a, v, p, q);
      }
    }
  }
  const order = a.map((_, i) => i).sort((i, j) => a[i][i] - a[j][j]);
  return { values: order.map((i) => a[i][i]), vectors: order.map((i) => v[i]) };
}

function rotate(a, v, p, q) {
  const theta = (a[q][q] - a[p][p]) / (2 * a[p][q]);
  const t = (theta < 0 ? -1 : 1) / (Math.abs(theta) + Math.sqrt(theta * theta + 1));
  const c = 1 / Math.sqrt(t * t + 1);
  const s = t * c;
  for (let k = 0; k < a.length; k += 1) {
    const [kp, kq] = [a[k][p], a[k][q]];
    a[k][p] = c * kp - s * kq;
    a[k][q] = s * kp + c * kq;
  }
  for (let k = 0; k < a.length; k += 1) {
    const [pk, qk, vp, vq] = [a[p][k], a[q][k], v[p][k], v[q][k]];
    a[p][k] = c * pk - s * qk;
    a[q][k] = s * pk + c * qk;
    v[p][k] = c * vp - s * vq;
    v[q][k] = s * vp + c * vq;
  }
}

function scatter(x) {
  return x[0].map((_, a) => x[0].map((_, b) => x.reduce((sum, point) => sum + point[a] * point[b], 0)));
}

// R(s) of a learner (x, y, query) -> prediction on one context: the remaining error along each eigenvector of
// S = sum_i x_i x_i^T.
function residualPolynomial(learner, x, weight = 1, query = 0.5) {
  const { values, vectors } = eigen(scatter(x));
  const residuals = vectors.map((vector) => {
    const y = x.map((point) => weight * dot(point, vector));
    return 1 - learner(x, y, vector.map((entry) => query * entry)) / (weight * query);
  });
  return { values, residuals };
}

// R(s) of K steps: R <- R (1 - h s), s <- s (1 - gamma s)^2, K times, with h = eta / N. For GD, gamma = 0.
function residual(s, h, gamma, steps) {
  let left = 1;
  let value = s;
  for (let step = 0; step < steps; step += 1) {
    left *= 1 - h * value;
    value *= (1 - gamma * value) ** 2;
  }
  return left;
}

// The gamma of GD++ that gives a bowl with two eigenvalues s of the scatter matrix two equal ones, s (1 - gamma s)^2.
function roundingCurvature([a, b]) {
  return (Math.sqrt(a) - Math.sqrt(b)) / (a ** 1.5 - b ** 1.5);
}

// Points that K steps from 0 visit in a bowl with eigenvalues s and the given lowest point. Every step has the best
// size 2 / (largest + smallest eigenvalue) for the bowl as it is then; with gammas, each step also transforms the bowl.
function bowlPath(values, lowest, steps, gammas) {
  let seen = values;
  let left = lowest;
  const points = [lowest.map(() => 0)];
  const rates = [];
  for (let step = 0; step < steps; step += 1) {
    const h = 2 / (Math.max(...seen) + Math.min(...seen));
    rates.push(h);
    left = left.map((value, k) => value * (1 - h * seen[k]));
    points.push(lowest.map((value, k) => value - left[k]));
    seen = seen.map((s) => s * (1 - (gammas[step] ?? 0) * s) ** 2);
  }
  return { points, rates, seen };
}

// Constructed softmax heads on contexts x with a query each: the best factor on the sum of one head of logits
// sharpness x_i . x_q and, of two, minus a head of the opposite logits. Losses are means over the task's weights,
// N(0, 1), given the inputs: for a prediction v . w the mean of (v . w - q . w)^2 is |v - q|^2.
function headVector(heads, sharpness, x, query) {
  const scores = x.map((point) => sharpness * dot(point, query));
  const first = exponentials(scores, 1);
  const second = heads === 1 ? null : exponentials(scores, -1);
  const vector = zeros(query.length);
  for (let i = 0; i < x.length; i += 1) {
    const weight = first[i] - (second ? second[i] : 0);
    for (let a = 0; a < vector.length; a += 1) vector[a] += weight * x[i][a];
  }
  return vector;
}

// The vector of one step of size N: the scatter matrix times the query.
function stepVector(x, query) {
  return x.reduce((sum, point) => plus(sum, point, dot(point, query)), zeros(query.length));
}

function meanLoss(vectors, queries) {
  const along = mean(vectors.map((v, i) => dot(v, queries[i])));
  const square = mean(vectors.map((v) => dot(v, v)));
  const factor = along / square;
  return { factor, loss: 0.5 * (mean(queries.map((q) => dot(q, q))) - factor * along) };
}

// Mean cosine similarity of two learners' sensitivities, and the ratio of their mean norms.
function alignment(own, other) {
  const norm = (vector) => Math.sqrt(dot(vector, vector));
  const cosines = own.map((vector, i) => {
    const scale = norm(vector) * norm(other[i]);
    return scale > 0 ? dot(vector, other[i]) / scale : 0;
  });
  return { cosine: mean(cosines), ratio: mean(own.map(norm)) / mean(other.map(norm)) };
}

// Random numbers in [0, 1) from a seed: the generator mulberry32.
function generator(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

function normal(random) {
  return Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
}

// An episode of linear regression: inputs from U(-r/2, r/2), weights from N(0, 1).
function sampleEpisode(random, dim, count, range) {
  const point = () => Array.from({ length: dim }, () => range * (random() - 0.5));
  const weights = Array.from({ length: dim }, () => normal(random));
  const x = Array.from({ length: count }, point);
  const query = point();
  return { x, y: x.map((one) => dot(weights, one)), query, label: dot(weights, query), weights };
}

const maths = {
  alignment, bowlPath, constructedHead, descentWeights, eigen, gdpp, generator, gradientDescent, headVector, layerwise, learnedStep,
  lineLoss, lineSlope, linearAttention, meanLoss, mixedAttention, movedLabels, residual, residualPolynomial,
  roundingCurvature, sampleEpisode, scatter,
  sensitivity, softmaxAttention, softmaxHead, softmaxHeads, stepVector, transformer,
};
