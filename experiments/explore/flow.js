// The aligned flow of theory.aligned: all modes alike, noise outside them, so that a trajectory is two amplitudes,
//
//   d log h/dt = theta (pull(z) z/h^2 - lh),   d log w/dt = pull(z) z/w^2 - lw,   z = h w^M,
//
// h of the features and w of every weight layer (data: z = w^M and no h). pull is minus the slope of the loss in z.
// Exact for both losses: noise outside the modes is not seen by the head and decays by weight decay alone.

// Minus the derivative of the loss in z, and its derivative, written into out[0] and out[1].
function pullOf(m) {
  if (m.kind === "data") {
    const k = 2 * m.c / m.K, g = m.r * m.r + m.v2;
    return (z, out) => { out[0] = k * (m.r - g * z); out[1] = -k * g; };
  }
  const root = Math.sqrt(m.n);
  if (m.loss === "mse") {
    const k = 2 * m.c / (m.K * m.n);
    return (z, out) => { out[0] = k * (root - z); out[1] = -k; };
  }
  return (z, out) => {
    const g = Math.exp(softmaxLogStrength(m.K, z / root));
    out[0] = g / root;
    out[1] = -g * (1 - softmaxMiss(m.K, z / root)) / m.n;
  };
}

// The start with signal s0 (data: as a share of the least-squares fit), balanced, and the scatter that makes NC1 = nc0.
function startOf(m) {
  const { K, n, M } = m, t = tensionOf(m);
  if (m.kind === "data") {
    return { h: 0, w: Math.log(m.s0 * m.r / (m.r * m.r + m.v2)) / M, scatter: NaN };
  }
  const each = Math.log(m.s0 * Math.sqrt(n)) / t.D;
  const h = 0.5 * Math.log(t.decay / m.lh) + each, w = 0.5 * Math.log(t.decay / m.lw) + each;
  return { h, w, scatter: m.nc0 * (K - 1) * Math.exp(2 * (h + (M - 1) * w)) };
}

// What is read off a state: log NC1 and fn (root mean square) of the features that enter the head.
function gauges(m, start = startOf(m)) {
  const { K, n, M } = m, active = K - (m.bias === "free" || m.loss !== "mse" ? 1 : 0);
  if (m.kind === "data") {
    const fixed = Math.log(m.v2 / (m.r * m.r) * (M > 1 ? active : K) / (K - 1)), g = m.r * m.r + m.v2;
    return { logNC1: () => fixed,
             fn: (t, h, w) => M === 1 ? Math.sqrt(g) : Math.sqrt(g * active / K) * Math.exp((M - 1) * w) };
  }
  const sink = m.theta * m.lh + (M - 1) * m.lw, base = Math.log(start.scatter / (K - 1));
  return {
    logNC1: (t, h, w) => base - 2 * sink * t - 2 * (h + (M - 1) * w),
    fn: (t, h, w) => Math.sqrt(active / K / n * Math.exp(2 * (h + (M - 1) * w)) +
        start.scatter / (K * n) * Math.exp(-2 * sink * t)),
  };
}

// One step of RODAS (Hairer and Wanner 1996, order 4(3), six stages, L-stable) for the two amplitudes, from (h, w) over
// dt; the new state and the error estimate go into out = [h, w, error].
function stepper(m) {
  const pull = pullOf(m), slope = [0, 0], free = m.kind === "free";
  const M = m.M, th = free ? m.theta : 0, lh = m.lh, lw = m.lw, A = RODAS.a, C = RODAS.c;
  const U = new Float64Array(6), V = new Float64Array(6);
  return (h, w, dt, out) => {
    let log = (free ? h : 0) + M * w;
    pull(Math.exp(log), slope);
    const force = slope[0], bend = slope[1] * Math.exp(log) + slope[0];  // pull, and the derivative of z pull over z
    const eh = th * Math.exp(log - 2 * h), ew = Math.exp(log - 2 * w), pivot = 1 / (RODAS.gamma * dt);
    const p = pivot - eh * (bend - 2 * force), q = -eh * bend * M;
    const r = -ew * bend * (free ? 1 : 0), s = pivot - ew * (bend * M - 2 * force), det = p * s - q * r;
    if (!(det > 0 && p + s > 0)) { out[2] = Infinity; return; }  // longer than growth near an unstable point allows
    let H = h, W = w;
    for (let i = 0; i < 6; i++) {
      if (i > 0) {
        if (i < 5) {
          H = h; W = w;
          for (let j = 0; j < i; j++) { const a = A[i][j]; H += a * U[j]; W += a * V[j]; }
        } else { H += U[4]; W += V[4]; }
        log = (free ? H : 0) + M * W;
        pull(Math.exp(log), slope);
      }
      let f = th * (slope[0] * Math.exp(log - 2 * H) - lh), g = slope[0] * Math.exp(log - 2 * W) - lw;
      for (let j = 0; j < i; j++) { const c = C[i][j] / dt; f += c * U[j]; g += c * V[j]; }
      U[i] = (s * f - q * g) / det;
      V[i] = (p * g - r * f) / det;
    }
    out[0] = H + U[5];
    out[1] = W + V[5];
    out[2] = Math.max(Math.abs(U[5]), Math.abs(V[5]));
  };
}

const RODAS = {
  gamma: 0.25,
  a: [[], [1.544], [0.9466785280815826, 0.2557011698983284],
      [3.314825187068521, 2.896124015972201, 0.9986419139977817],
      [1.221224509226641, 6.019134481288629, 12.53708332932087, -0.687886036105895]],
  c: [[], [-5.6688], [-2.430093356833875, -0.2063599157091915],
      [-0.1073529058151375, -9.594562251023355, -20.47028614809616],
      [7.496443313967647, -10.24680431464352, -33.99990352819905, 11.7089089320616],
      [8.083246795921522, -7.981132988064893, -31.52159432874371, 16.31930543123136, -6.058818238834054]],
};

// Integrate to `until`, calling visit(t0, h0, w0, t1, h1, w1) after every accepted step; it may return true to stop.
function integrate(m, start, until, tolerance, visit, step = stepper(m)) {
  const out = [0, 0, 0];
  let t = 0, h = start.h, w = start.w, dt = Math.min(1e-5 * until, firstStep(m, start));
  for (let i = 0; i < 20000 && t < until; i++) {
    dt = Math.min(dt, until - t);
    step(h, w, dt, out);
    const error = out[2] / tolerance;
    if (error <= 1) {
      const last = until - t <= dt * (1 + 1e-12), next = last ? until : t + dt;
      if (visit(t, h, w, next, out[0], out[1])) return;
      t = next; h = out[0]; w = out[1];
    }
    const change = 0.9 * Math.pow(Math.max(error, 1e-10), -0.25);
    dt *= Number.isFinite(error) ? Math.min(6, Math.max(0.2, change)) : 0.2;
  }
}

// A hundredth of the fastest time of the field at the start.
function firstStep(m, start) {
  const slope = [0, 0], features = m.kind === "free", z = Math.exp((features ? start.h : 0) + m.M * start.w);
  pullOf(m)(z, slope);
  const gain = Math.abs(slope[0] * z) + Math.abs(slope[1] * z * z);
  const weights = m.M * gain * Math.exp(-2 * start.w) + m.lw;
  return 0.01 / (weights + (features ? m.theta * (gain * Math.exp(-2 * start.h) + m.lh) : 0));
}

const slowest = m => m.kind === "free" ? Math.min(m.lw, m.theta * m.lh) : m.lw;

// Whether theory/ or the engine have a trajectory for the setting: a decayed bias starts the mean mode moving.
const hasTrajectory = m => m.bias !== "decayed" || m.loss !== "mse";

// theory.time_to_collapse from the aligned start: {time, fn, vanishes}; time is Infinity where NC1 stays above eps.
function timeToCollapse(m, tolerance = 1e-10) {
  const start = startOf(m), gauge = gauges(m, start), log = Math.log(m.eps), t = tensionOf(m);
  if (!hasTrajectory(m)) return { time: NaN, fn: NaN, vanishes: t.gamma >= t.fold.gamma };
  if (m.kind === "data") return { time: NaN, fn: NaN, vanishes: doomed(m, start, t) };
  const vanishes = doomed(m, start, t);
  if (gauge.logNC1(0, start.h, start.w) <= log) return { time: 0, fn: gauge.fn(0, start.h, start.w), vanishes };
  if (m.loss === "mse" && m.M === 1 && m.lw === m.lh && m.theta === 1) return { ...logistic(m, start, gauge), vanishes };
  let found = { time: Infinity, fn: NaN }, frozen = 0;
  integrate(m, start, 1e3 / slowest(m), tolerance, (t0, h0, w0, t1, h1, w1) => {
    if (gauge.logNC1(t1, h1, w1) > log) {  // amplitude and noise at zero signal decay alike: NC1 stands still
      frozen = t.D > 2 && h1 + m.M * w1 < -60 ? frozen + 1 : 0;
      return frozen > 3;
    }
    found = crossing(m, gauge, log, t0, h0, w0, t1);
    return true;
  });
  return { ...found, vanishes };
}

// Where NC1 passes its threshold inside an accepted step: single steps from its beginning, by the Illinois rule.
function crossing(m, gauge, log, t0, h0, w0, t1) {
  const step = stepper(m), out = [h0, w0, 0];
  const over = dt => { if (dt) step(h0, w0, dt, out); else { out[0] = h0; out[1] = w0; } return gauge.logNC1(t0 + dt, out[0],
      out[1]) - log; };
  let a = 0, b = t1 - t0, fa = over(a), fb = over(b), side = 0, dt = b;
  for (let i = 0; i < 60; i++) {
    dt = (a * fb - b * fa) / (fb - fa);
    const f = over(dt);
    if (Math.abs(f) < 1e-13 || b - a < 1e-15 * (t0 + b)) break;
    if (f * fb > 0) { b = dt; fb = f; if (side === 1) fa /= 2; side = 1; }
    else { a = dt; fa = f; if (side === -1) fb /= 2; side = -1; }
  }
  return { time: t0 + dt, fn: gauge.fn(t0 + dt, out[0], out[1]) };
}

// One layer, equal decays: the signal is logistic and NC1 elementary (theory.times).
function logistic(m, start, gauge) {
  const l = m.lw, q = 2 * m.c / (m.K * Math.sqrt(m.n)), A = start.scatter / ((m.K - 1) * Math.sqrt(m.n));
  const inverse = t => {  // e^{-2lt}/s(t), smooth through l = q
    const gone = 2 * Math.abs(q - l) * t;
    return 2 * q * t * Math.exp(-2 * Math.min(q, l) * t) * (gone ? -Math.expm1(-gone) / gone : 1) + Math.exp(-2 * q * t) / m.s0;
  };
  let high = 1 / q;
  while (A * inverse(high) > m.eps) high *= 2;
  const time = bisect(t => A * inverse(t) - m.eps, 0, high);
  const y = 0.5 * Math.log(Math.exp(-2 * l * time) / inverse(time) * Math.sqrt(m.n));
  return { time, fn: gauge.fn(time, y, y) };
}

// Whether the signal vanishes: beyond the fold, or (D >= 3) from a start in the basin of zero.
function doomed(m, start, t = tensionOf(m)) {
  if (t.gamma >= t.fold.gamma) return true;
  if (t.D <= 2) return false;
  const lower = m.loss === "mse" ? modeRoots(t.D, t.gamma).low : softmaxRoots(m.K, t.D, t.gamma, t.fold).low;
  if (m.kind === "data" || m.lw === m.lh && m.theta === 1) return m.s0 < lower;  // amplitudes stay balanced: one equation
  let z = 0;
  integrate(m, start, 40 / slowest(m), 1e-6, (t0, h0, w0, t1, h1, w1) => { z = h1 + m.M * w1; return z < -60; });
  return Math.exp(z) / Math.sqrt(m.n) < lower;
}

// The trajectory up to `until`: arrays t, fn, logNC1 at the accepted steps and at `parts` - 1 times inside each.
function trajectory(m, until, tolerance = 1e-8, parts = 1) {
  const start = startOf(m), gauge = gauges(m, start), step = stepper(m), part = [0, 0, 0];
  const out = { t: [], fn: [], logNC1: [] };
  const keep = (t, h, w) => { out.t.push(t); out.fn.push(gauge.fn(t, h, w)); out.logNC1.push(gauge.logNC1(t, h, w)); };
  keep(0, start.h, start.w);
  integrate(m, start, until, tolerance, (t0, h0, w0, t1, h1, w1) => {
    for (let i = 1; i < parts; i++) {
      const dt = (t1 - t0) * i / parts;
      step(h0, w0, dt, part);
      keep(t0 + dt, part[0], part[1]);
    }
    keep(t1, h1, w1);
  }, step);
  return out;
}

// fn and log NC1 at the given times: what the self-check compares.
function sampled(m, times) {
  const ends = times.map(t => trajectory(m, t, 1e-10));
  return { fn: ends.map(path => path.fn.at(-1)), logNC1: ends.map(path => path.logNC1.at(-1)) };
}
