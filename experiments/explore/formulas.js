// Closed forms of theory/ in JavaScript: fixed points, boundaries and rates of one setting.
//
// A setting `m`: kind "free" (UFM) or "data" (DeepLinear on Isotropic inputs); K, n, M; lw, lh, lb the decays of
// weights, features and bias; bias "none", "free" or "decayed"; loss "mse" or "cross_entropy"; c the loss scale; r, v2
// the data; theta the mobility; eps the NC1 threshold; s0, nc0 where trajectories start. Widths exceed K.
// Names follow theory/; every number is compared with theory/ when the page opens.

// theory.mode: fold and Maxwell point of x^(1 - 2/D) (1 - x) = gamma.
function foldOf(D) {
  if (D < 2) return { x: 0, gamma: Infinity };
  const x = (D - 2) / (2 * D - 2);
  return { x, gamma: Math.pow(x, 1 - 2 / D) * (1 - x) };
}

function maxwellOf(D) {
  if (D < 2) return { x: 0, gamma: Infinity };
  const x = (D - 2) / (D - 1);
  return { x, gamma: Math.pow(x, 1 - 2 / D) * (1 - x) };
}

// y in [0, top] with near log y + far log(1 - y) = target: Newton from the side on which it converges monotonically.
function climb(near, far, target, top) {
  let y = Math.min(Math.exp(target / near), top);
  for (let i = 0; i < 100 && y > 0; i++) {
    const slope = near / y - far / (1 - y);
    const rise = target - near * Math.log(y) - far * Math.log1p(-y);
    if (!(slope > 0 && rise > 0)) break;
    const next = Math.min(y + rise / slope, top);
    if (next - y <= 1e-16 * y) return next;
    y = next;
  }
  return y;
}

// Roots of the mode equation: x the upper and low the lower one, 0 where there is none; gap = 1 - x.
function modeRoots(D, gamma) {
  const none = { x: 0, gap: 1, low: 0 };
  if (!(gamma < foldOf(D).gamma)) return none;
  if (D === 1) return { x: 1 / (1 + gamma), gap: gamma / (1 + gamma), low: 0 };
  if (D === 2) return { x: 1 - gamma, gap: gamma, low: 0 };
  const power = 1 - 2 / D, top = foldOf(D).x, target = Math.log(gamma);
  const gap = climb(1, power, target, 1 - top);
  return { x: 1 - gap, gap, low: climb(power, 1, target, top) };
}

// theory.strength for cross-entropy: x^(1 - 2/D) g(x) = gamma with g(x) = 1/(e^x + K - 1).
const softmaxMiss = (K, x) => 1 / (1 + Math.exp(x) / (K - 1));
const softmaxLogStrength = (K, x) => -x - Math.log1p((K - 1) * Math.exp(-x));

function bisect(f, low, high) {
  for (let i = 0; i < 90; i++) {
    const middle = (low + high) / 2;
    if (f(middle) > 0) low = middle; else high = middle;
  }
  return (low + high) / 2;
}

function softmaxFold(K, D) {
  if (D === 2) return { x: 0, gamma: 1 / K };
  const power = 1 - 2 / D;
  const x = Math.exp(bisect(s => power - Math.exp(s) * (1 - softmaxMiss(K, Math.exp(s))), -30, Math.log(50 + 10 * Math.log(K))));
  return { x, gamma: Math.pow(x, power) * Math.exp(softmaxLogStrength(K, x)) };
}

function softmaxRoots(K, D, gamma, fold = softmaxFold(K, D)) {
  if (!(gamma < fold.gamma)) return { x: 0, low: 0 };
  if (D === 2) return { x: Math.log1p(1 / gamma - K), low: 0 };
  const power = 1 - 2 / D, target = Math.log(gamma), top = Math.log(fold.x);
  const over = s => power * s + softmaxLogStrength(K, Math.exp(s)) - target;
  const high = Math.log(2 * (Math.abs(target) + 10 + Math.log(K)));
  const low = (target - Math.log(fold.gamma)) / power + top - 5 / power;
  return { x: Math.exp(bisect(over, top, high)), low: Math.exp(bisect(s => -over(s), low, top)) };
}

// D, geometric mean of the decays, and what decides: gamma of the centred modes against its limits.
function tensionOf(m) {
  const free = m.kind === "free", D = m.M + (free ? 1 : 0);
  const decay = free ? Math.exp((Math.log(m.lh) + m.M * Math.log(m.lw)) / D) : m.lw;
  if (m.loss !== "mse") {
    const gamma = Math.exp((Math.log(m.n) + Math.log(m.lh) + m.M * Math.log(m.lw)) / D);
    return { D, decay, gamma, fold: softmaxFold(m.K, D), maxwell: null };
  }
  const unit = decay / (2 * m.c / (m.K * m.n));
  const b = Math.sqrt(m.n) * (free ? 1 : Math.sqrt(m.n) * m.r), g = free ? 1 : m.n * (m.r * m.r + m.v2);
  const gamma = unit * Math.pow(g, 1 - 2 / D) * Math.pow(b, 2 / D - 2);
  return { D, decay, gamma, unit, b, g, fold: foldOf(D), maxwell: maxwellOf(D) };
}

// theory.fixed_point. `saddle` is the lower root, null where there is none; nan for what zero does not have.
function fixedPoint(m) {
  return m.loss === "mse" ? squaredPoint(m) : softmaxPoint(m);
}

function squaredPoint(m) {
  const t = tensionOf(m), { D, b, g, unit } = t, { K, n, M } = m, free = m.kind === "free";
  const lb = m.bias === "decayed" ? (free ? m.lb : m.lw) : 0;
  const share = m.bias === "none" ? 0 : 2 * m.c / (2 * m.c + lb);
  const scale = 2 * m.c / (K * n);
  const first = free ? Math.sqrt(t.decay / m.lh) : 1, other = free ? Math.sqrt(t.decay / m.lw) : 1;
  const centred = modeRoots(D, t.gamma);
  // The mean mode: one of the others without a bias, absent with a free one, its own where the bias is decayed.
  let b0 = b, g0 = g, mean = { x: centred.x, low: centred.low };
  if (m.bias === "free") mean = { x: 0, low: 0 };
  if (m.bias === "decayed") {
    b0 = b * (1 - share);
    g0 = free ? 1 - share : n * (m.r * m.r * (1 - share) + m.v2);
    const gamma = unit * Math.pow(g0, 1 - 2 / D) * Math.pow(b0, 2 / D - 2);
    const x = gamma < maxwellOf(D).gamma ? modeRoots(D, gamma).x : 0;
    mean = { x, low: x };
  }
  const at = (x, x0) => {
    const z = b * x / g, z0 = b0 * x0 / g0;
    const sum = power => (x > 0 ? (K - 1) * Math.pow(z, power) : 0) + (x0 > 0 ? Math.pow(z0, power) : 0);
    const rank = (x > 0 ? K - 1 : 0) + (x0 > 0 ? 1 : 0);
    const objective = (K - 1) * (g * z * z / 2 - b * z) + (g0 * z0 * z0 / 2 - b0 * z0) + unit * D / 2 * sum(2 / D);
    const layers = [];
    if (free) for (let i = 1; i <= M; i++) layers.push(first * Math.pow(other, i - 1) * Math.sqrt(sum(2 * i / D) / (K * n)));
    else for (let i = 1; i < M; i++) layers.push(Math.sqrt((m.r * m.r + m.v2) * sum(2 * i / D) / K));
    if (!layers.length) layers.push(Math.sqrt(m.r * m.r + m.v2));
    const tied = !free && M === 1;  // the features are the data themselves
    const a = tied ? 1 : x > 0 ? Math.pow(z, 1 - 1 / D) : 0, a0 = tied ? 1 : x0 > 0 ? Math.pow(z0, 1 - 1 / D) : 0;
    const norm2 = a0 * a0 + (K - 1) * a * a;
    const logit0 = z0 * (free ? 1 / Math.sqrt(n) : m.r);
    return {
      exists: rank > 0, rank, signal: free ? x : z, meanSignal: free ? x0 : z0,
      fn: layers[layers.length - 1], layers, weightNorm: other * Math.sqrt(sum(2 / D)),
      cosine: norm2 > 0 ? (a0 * a0 - a * a) / norm2 : NaN, bias: share * (1 - logit0) / K,
      loss: scale * (objective + n * (K - share) / 2),
      floor: free ? (x > 0 ? 0 : NaN) : a > 0 ? m.v2 * norm2 / (m.r * m.r * (K - 1) * a * a) : NaN,
    };
  };
  const point = at(centred.x, mean.x);
  return { ...point, x: centred.x, gap: centred.gap, meanX: mean.x,
           saddle: centred.low > 0 ? { ...at(centred.low, mean.low), x: centred.low } : null };
}

function softmaxPoint(m) {
  const { D, gamma, fold } = tensionOf(m), { K, n, M } = m;
  const root = softmaxRoots(K, D, gamma, fold);
  const at = x => {
    const energy = gamma * Math.pow(x, 2 / D), feature = Math.sqrt(energy / m.lh), weight = Math.sqrt(energy / m.lw);
    const layers = [];
    for (let i = 0; i < M; i++) layers.push(feature * Math.pow(weight, i) / Math.sqrt(n) * Math.sqrt(1 - 1 / K));
    return {
      exists: x > 0, rank: x > 0 ? K - 1 : 0, signal: x, meanSignal: 0, fn: layers[M - 1], layers,
      weightNorm: Math.sqrt(K - 1) * weight, cosine: x > 0 ? -1 / (K - 1) : NaN, bias: 0,
      loss: Math.log1p((K - 1) * Math.exp(-x)) + (K - 1) * D / 2 * energy, floor: x > 0 ? 0 : NaN,
    };
  };
  return { ...at(root.x), x: root.x, gap: NaN, meanX: 0, saddle: root.low > 0 ? { ...at(root.low), x: root.low } : null };
}

// theory.fold, maxwell, mean_mode_threshold: decay is the common value of all decays, factor the multiple of these.
function boundaries(m) {
  const t = tensionOf(m);
  const limit = end => end && { factor: end.gamma / t.gamma, decay: t.decay * end.gamma / t.gamma };
  let meanMode = NaN;
  if (m.kind === "free" && m.loss === "mse" && m.bias === "decayed") {
    const rho = t.gamma / t.maxwell.gamma;
    meanMode = rho < 1 ? 2 * m.c * rho / (1 - rho) : Infinity;
  }
  return { fold: limit(t.fold), maxwell: limit(t.maxwell), meanMode };
}

// theory.rates (mse) and cross_entropy.within_class, widths above the number of modes; nan where theory/ has none.
function rates(m, point = fixedPoint(m)) {
  const none = { nc1: NaN, nc1First: NaN, signal: NaN, balance: NaN };
  if (!point.exists) return none;
  const { M, lw } = m, spare = m.n > 1;
  if (m.kind === "data") {
    const jump = M * (2 * point.x - 1) / point.gap;
    const signal = m.bias === "decayed" ? NaN : M > 1 ? lw * Math.min(2, 2 + jump) : lw / point.gap;
    return { ...none, signal, balance: M > 1 ? 2 * lw : NaN };
  }
  const lh = m.theta * m.lh;
  if (m.loss !== "mse") return { ...none, nc1: M === 1 && spare ? 2 * lh : NaN, nc1First: spare ? 2 * lh : NaN };
  const ways = [lh / point.gap, lh + (M - 1) * lw];
  if (m.bias === "decayed" && point.meanX > 0) {  // the bias does part of what the mean mode's features would
    ways.push(lh * (1 + point.meanX / (1 - point.meanX) * (2 * m.c + m.lb) / m.lb));
  }
  if (M > 1) ways.push(2 * lh + lw);
  if (M > 2) ways.push(lh + 3 * lw);
  let signal = NaN;
  if (m.bias !== "decayed") {  // smaller eigenvalue of [[(2 + j) lh, j sqrt(M lh lw)], [., (2 + j M) lw]]
    const jump = (2 * point.x - 1) / point.gap, a = (2 + jump) * lh, d = (2 + jump * M) * lw;
    const off = jump * Math.sqrt(M * lh * lw), root = Math.hypot((a - d) / 2, off);
    const slow = a + d > 0 ? lh * lw * (4 + 2 * jump * (1 + M)) / ((a + d) / 2 + root) : (a + d) / 2 - root;
    signal = M > 1 ? Math.min(slow, 2 * lw) : slow;
  }
  return { nc1: spare ? 2 * Math.min(...ways) : NaN, nc1First: spare ? 2 * lh : NaN, signal,
           balance: Math.abs(lh - lw) <= 1e-14 * Math.max(lh, lw) ? 2 * lw : NaN };
}

// theory.regime; cross-entropy has no Maxwell point of its own here.
function regimeOf(m, point = fixedPoint(m), edge = boundaries(m)) {
  if (edge.fold.factor <= 1) return "VANISHING";
  if (m.kind === "data" && point.floor >= m.eps) return "FLOOR";
  return edge.maxwell && edge.maxwell.factor <= 1 ? "METASTABLE" : "COLLAPSE";
}
