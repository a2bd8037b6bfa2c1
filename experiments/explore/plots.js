// Drawings as SVG text, sized to their container so that type never scales; colours come from style.css.

const raised = n => String(n).replace(/[-\d]/g, ch => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".indexOf(ch)]);

// A number for people: `digits` significant ones, powers of ten where that is shorter.
function show(v, digits = 5) {
  if (v === 0) return "0";
  if (!Number.isFinite(v)) return Number.isNaN(v) ? "–" : v > 0 ? "∞" : "−∞";
  const size = Math.abs(v);
  if (size >= 1e-3 && size < 1e6) {
    const text = Number(v.toPrecision(digits));
    return (Math.abs(text) >= 1e5 ? text.toFixed(0) : String(text)).replace("-", "−");
  }
  const [mantissa, exponent] = v.toExponential(digits - 1).split("e");
  const short = String(Number(mantissa)).replace("-", "−");
  return `${short === "1" ? "" : short + " × "}10${raised(Number(exponent))}`;
}

const linear = (a, b, p, q) => v => p + (v - a) / (b - a) * (q - p);
const logarithmic = (a, b, p, q) => v => p + (Math.log(v) - Math.log(a)) / (Math.log(b) - Math.log(a)) * (q - p);

function linearTicks(a, b, count) {
  const raw = (b - a) / count, unit = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map(k => k * unit).find(k => k >= raw), ticks = [];
  for (let i = Math.ceil(a / step - 1e-9); i * step <= b * (1 + 1e-12); i++) ticks.push(Number((i * step).toPrecision(12)));
  return ticks;
}

// {major, minor}: decades, thinned to `count`, and what lies between them.
function logTicks(a, b, count) {
  const low = Math.ceil(Math.log10(a) - 1e-9), high = Math.floor(Math.log10(b) + 1e-9);
  if (high - low < 1) {
    const major = [1, 2, 5].flatMap(k => [low - 1, low, high].map(e => k * 10 ** e)).filter(v => v >= a && v <= b);
    return { major: [...new Set(major)].sort((x, y) => x - y), minor: [] };
  }
  const every = Math.max(1, Math.ceil((high - low + 1) / count)), major = [], minor = [];
  for (let e = low - 1; e <= high; e++) {
    if (e >= low && e % every === 0) major.push(10 ** e);
    else if (e >= low) minor.push(10 ** e);
    if (every === 1) for (let k = 2; k < 10; k++) if (k * 10 ** e > a && k * 10 ** e < b) minor.push(k * 10 ** e);
  }
  return { major, minor };
}

const at = v => v.toFixed(2);
const sub = text => `<tspan class="sub" dy="3">${text}</tspan><tspan dy="-3">\u200b</tspan>`;

// Pieces of a drawing: `kind` is a class of style.css; x, y in pixels.
const path = (kind, d) => `<path class="${kind}" d="${d}"/>`;
const disc = (kind, x, y, r = 4) => `<circle class="${kind}" cx="${at(x)}" cy="${at(y)}" r="${r}"/>`;
const words = (x, y, text, anchor = "start", kind = "note") =>
  `<text class="${kind}" x="${at(x)}" y="${at(y)}" text-anchor="${anchor}">${text}</text>`;
const clip = (id, box) => `<clipPath id="${id}"><rect x="${box.left}" y="${box.top}" width="${box.right - box.left}" ` +
  `height="${box.bottom - box.top}"/></clipPath>`;
const inside = (id, body) => `<g clip-path="url(#${id})">${body}</g>`;

// Axis furniture; `box` = {left, right, top, bottom} in pixels. A label of null leaves the numbers out too.
function axisX(box, scale, ticks, label, grid = true) {
  let out = "";
  for (const v of ticks.minor || []) out += path("tick", `M${at(scale(v))} ${box.bottom}v3`);
  for (const v of ticks.major || ticks) {
    if (grid) out += path("grid", `M${at(scale(v))} ${box.top}V${box.bottom}`);
    out += path("tick", `M${at(scale(v))} ${box.bottom}v5`);
    if (label !== null) out += words(scale(v), box.bottom + 17, show(v, 3), "middle", "number");
  }
  out += path("axis", `M${box.left} ${box.bottom}H${box.right}`);
  return out + (label ? words((box.left + box.right) / 2, box.bottom + 36, label, "middle", "label") : "");
}

function axisY(box, scale, ticks, label) {
  let out = "";
  for (const v of ticks.minor || []) out += path("tick", `M${box.left} ${at(scale(v))}h-3`);
  for (const v of ticks.major || ticks) {
    out += path("grid", `M${box.left} ${at(scale(v))}H${box.right}`) + path("tick", `M${box.left} ${at(scale(v))}h-5`);
    out += words(box.left - 8, scale(v) + 4, show(v, 3), "end", "number");
  }
  return out + path("axis", `M${box.left} ${box.top}V${box.bottom}`) + words(box.left, box.top - 9, label, "start", "label");
}

function curve(xs, ys, kind) {
  let d = "", pen = false;
  for (let i = 0; i < xs.length; i++) {
    const good = Number.isFinite(xs[i]) && Number.isFinite(ys[i]);
    if (good) d += `${pen ? "L" : "M"}${at(xs[i])} ${at(Math.max(-1e4, Math.min(1e4, ys[i])))}`;
    pen = good;
  }
  return path(kind, d);
}

const svg = (width, height, body, title) =>
  `<svg width="${width}" height="${height}" viewBox="0 0 ${width} ${height}" role="img" aria-label="${title}">${body}</svg>`;

// fn(t) above NC1(t). `run` from trajectory(), `rest` the fixed point's fn, `found` of timeToCollapse.
function drawTrajectory(m, run, rest, found, until, log, width) {
  const height = 372, box = { left: 52, right: width - 14, top: 26, bottom: 168 };
  const below = { ...box, top: 206, bottom: height - 44 }, first = until / 1e4;
  const x = log ? logarithmic(first, until, box.left, box.right) : linear(0, until, box.left, box.right);
  const ticks = log ? logTicks(first, until, width / 75) : linearTicks(0, until, width / 95);
  const seen = run.t.map(t => t >= first * 0.9 || !log), top = Math.max(...run.fn.filter((v, i) => seen[i]), rest) * 1.12;
  const logs = run.logNC1.filter((v, i) => seen[i] && Number.isFinite(v)), decade = Math.LN10, aim = Math.log(m.eps);
  const high = Math.exp(Math.max(...logs, aim) + 0.25 * decade);
  const low = Math.exp(Math.max(Math.min(...logs, aim), aim - 3 * decade) - 0.5 * decade);
  const y = linear(0, top, box.bottom, box.top), z = logarithmic(low, high, below.bottom, below.top);
  const xs = run.t.map(t => t === 0 && log ? box.left - 20 : x(t)), nc1 = run.logNC1.map(v => z(Math.exp(Math.max(v, -700))));
  let out = clip("upper", box) + clip("lower", below);
  out += axisX(box, x, ticks, null) + axisY(box, y, linearTicks(0, top, 4), "fn (root mean square)");
  out += axisX(below, x, ticks, "flow time t");
  out += axisY(below, z, logTicks(low, high, 5), `NC1 (tr S${sub("W")}/tr S${sub("B")})`);
  const crossed = Number.isFinite(found.time) && found.time > first && found.time < until, X = crossed ? x(found.time) : 0;
  if (crossed) out += path("event", `M${at(X)} ${box.top}V${below.bottom}`);
  if (rest > 0) {
    const late = run.fn.filter((v, i) => run.t[i] > (log ? Math.sqrt(first * until) : until / 3));
    const down = late.reduce((sum, v) => sum + Math.sign(v - rest), 0) > 0 && y(rest) < box.bottom - 18;  // comes from above
    out += path("rest", `M${box.left} ${at(y(rest))}H${box.right}`);
    out += words(box.right - 2, y(rest) + (down ? 15 : -6), `at rest ${show(rest, 4)}`, "end");
  }
  out += path("threshold", `M${box.left} ${at(z(m.eps))}H${box.right}`);
  out += words(box.left + 6, z(m.eps) - 5, `threshold ${show(m.eps, 3)}`);
  out += inside("upper", curve(xs, run.fn.map(y), "curve")) + inside("lower", curve(xs, nc1, "curve"));
  if (crossed) {
    out += disc("dot", X, y(found.fn)) + disc("dot", X, z(m.eps));
    const name = found.vanishes ? "below at" : `T${sub("NC")} =`;
    out += words(X - 6, below.bottom - 8, `${name} ${show(found.time, 4)}`, "end", "note strong");
  }
  return { html: svg(width, height, out + '<g id="reading"></g>', "Feature norm and NC1 over flow time"), x, box, below };
}

// The scalar equation: where the pull of the data meets the tension of the decay. Roots are rest points.
function drawBalance(m, point, width) {
  const t = tensionOf(m), D = t.D, height = 300, box = { left: 62, right: width - 16, top: 26, bottom: height - 44 };
  const square = m.loss === "mse", end = square ? 1 : Math.max(1.25 * point.x, 3 * t.fold.x, 2);
  const pull = x => Math.pow(x, 1 - 2 / D) * (square ? 1 - x : Math.exp(softmaxLogStrength(m.K, x)));
  const peak = Number.isFinite(t.fold.gamma) ? t.fold.gamma : Math.max(10, 3 * t.gamma);
  const low = Math.min(t.gamma, peak) / 6, high = Math.max(peak, t.gamma) * 2.2;
  const x = linear(0, end, box.left, box.right), y = logarithmic(low, high, box.bottom, box.top), xs = [], ys = [];
  for (let i = 0; i <= 400; i++) {
    const u = i / 400, v = end * (u < 0.5 ? 4 * u * u * u : 1 - 4 * (1 - u) ** 3);  // finer at both ends
    xs.push(x(v));
    ys.push(y(Math.max(pull(v), low * 1e-3)));
  }
  let out = clip("inner", box);
  out += axisX(box, x, linearTicks(0, end, 5), square ? "signal x (1: the targets are met)" : "signal x (gap of the logits)");
  out += axisY(box, y, logTicks(low, high, 5), "pull of the data, against tension γ of the decay");
  out += inside("inner", curve(xs, ys, "curve"));
  const Y = y(t.gamma), middle = (box.left + box.right) / 2;
  out += path("threshold", `M${box.left} ${at(Y)}H${box.right}`);
  const clear = t.gamma < 0.3 * peak ? [middle, "middle"] : [box.right - 4, "end"];  // of the curve
  out += words(clear[0], Y - 6, `γ = ${show(t.gamma, 3)}`, clear[1]);
  if (t.fold.gamma < high) {
    const X = x(t.fold.x), top = y(t.fold.gamma);
    out += path("tick", `M${at(X - 7)} ${at(top)}h14`) + words(Math.min(X + 10, box.right - 30), top - 7, "fold");
    if (square && D > 2) {
      const k = maxwellOf(D);
      out += path("tick", `M${at(x(k.x) - 5)} ${at(y(k.gamma) - 5)}l10 10m0 -10l-10 10`);
      out += words(x(k.x) + 9, y(k.gamma) - 6, "Maxwell");
    }
  }
  if (point.saddle) out += disc("ring", x(point.saddle.x), Y, 5);
  if (point.x > 0) out += disc("dot", x(point.x), Y, 5);
  return svg(width, height, out, "Roots of the mode equation");
}

// fn at rest against decay: both branches to where they meet, at this depth and, thin, at others.
function drawBranches(m, point, width) {
  const height = 300, box = { left: 52, right: width - 14, top: 26, bottom: height - 44 };
  const x = logarithmic(MAP.low, MAP.high, box.left, box.right);
  const branch = M => {
    const upper = [], lower = [], end = Math.min(MAP.high, MAP.low * boundaries(scaled({ ...m, M }, MAP.low)).fold.factor);
    for (let i = 0; i <= 90 && end > MAP.low; i++) {
      const u = 1 - (1 - i / 90) ** 2, lam = MAP.low * Math.pow(end / MAP.low, u) * (1 - 1e-9);  // finer towards the fold
      const p = fixedPoint(scaled({ ...m, M }, lam));
      upper.push([lam, p.exists ? p.fn : NaN]);
      lower.push([lam, p.saddle ? p.saddle.fn : NaN]);
    }
    return { M, upper, lower };
  };
  const others = [1, 2, 4, 8].filter(M => M !== m.M).map(branch), own = branch(m.M);
  const highest = branches => Math.max(1e-6, ...branches.flatMap(b => b.upper.map(p => p[1])).filter(Number.isFinite));
  const all = highest([own, ...others]), top = 1.12 * Math.min(all, 3 * Math.max(highest([own]), all / 3));
  const y = linear(0, top, box.bottom, box.top);
  const line = (points, kind) => curve(points.map(p => x(p[0])), points.map(p => y(p[1])), kind);
  const ratio = m.kind === "free" && m.lh !== m.lw ? ` (features: ${show(m.lh / m.lw, 3)} λ)` : "";
  let out = clip("frame", box) + axisX(box, x, logTicks(MAP.low, MAP.high, 8), "weight decay λ" + ratio);
  out += axisY(box, y, linearTicks(0, top, 4), "fn at rest");
  const thin = others.map(b => line(b.upper, "curve thin")).join("");
  out += inside("frame", thin + line(own.upper, "curve") + line(own.lower, "curve lower"));
  const taken = [];
  for (const b of [own, ...others]) {  // names at the left end, where branches are flat
    const Y = y(b.upper.length ? b.upper[0][1] : NaN) - 5;
    if (!(Y > box.top - 4) || taken.some(other => Math.abs(other - Y) < 13)) continue;
    taken.push(Y);
    out += words(box.left + 6, Y, `M = ${b.M}`, "start", b === own ? "note strong" : "note");
  }
  if (m.lw >= MAP.low && point.exists) {
    out += path("event", `M${at(x(m.lw))} ${box.top}V${box.bottom}`) + disc("dot", x(m.lw), y(point.fn), 5);
    if (point.saddle) out += disc("ring", x(m.lw), y(point.saddle.fn), 4.5);
  }
  return svg(width, height, out, "Feature norm at rest against decay");
}

// Light to dark, falling in luminance, so that a grey print keeps the order.
const RAMP = [[246, 242, 222], [206, 226, 196], [140, 199, 181], [78, 160, 167], [47, 113, 147], [38, 71, 122], [27, 31, 76]];

function shade(u) {
  const s = Math.min(Math.max(u, 0), 1) * (RAMP.length - 1), i = Math.min(Math.floor(s), RAMP.length - 2), f = s - i;
  return `rgb(${RAMP[i].map((a, k) => Math.round(a + (RAMP[i + 1][k] - a) * f)).join(",")})`;
}

const MAP = { low: 1e-6, high: 1, columns: 72, depths: 10 };
const mapDecay = j => MAP.low * Math.pow(MAP.high / MAP.low, (j + 0.5) / MAP.columns);

// The setting with all decays scaled together, so that their ratios stay, to lw = lam.
const scaled = (m, lam) => ({ ...m, lw: lam, lh: m.lh * lam / m.lw, lb: m.lb * lam / m.lw });
const cellSetting = (m, j, M) => scaled({ ...m, M }, mapDecay(j));

// One cell: its number, and why it has none: "gone" beyond the fold, "lost" for a start in the basin of zero.
function cell(m, j, M, kind) {
  const s = cellSetting(m, j, M), t = tensionOf(s);
  if (t.gamma >= t.fold.gamma) return { value: NaN, state: "gone" };
  if (kind === "fn") return { value: fixedPoint(s).fn, state: "" };
  const found = timeToCollapse(s, 1e-4);
  return { value: found.time, state: found.vanishes ? "lost" : "" };
}

// The diagram without its cells' colours: frames, hatches, lines of fold and Maxwell point, mark. Rows from M = 1 up.
function drawPhase(m, width) {
  const row = width < 480 ? 23 : 27, box = { left: 44, right: width - 14, top: 26, bottom: 26 + row * MAP.depths };
  const x = logarithmic(MAP.low, MAP.high, box.left, box.right), w = (box.right - box.left) / MAP.columns;
  const pattern = (id, turn, body) =>
    `<pattern id="${id}" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(${turn})">${body}</pattern>`;
  let out = pattern("gone", 45, path("hatch", "M0 0V6")) + pattern("lost", 0, disc("speck", 3, 3, 1.1));
  out += '<g id="cells" shape-rendering="crispEdges">';
  for (let M = 1; M <= MAP.depths; M++) {
    for (let j = 0; j < MAP.columns; j++) {
      out += `<rect x="${at(box.left + j * w)}" y="${box.bottom - M * row}" width="${at(w + 0.5)}" height="${row}"/>`;
    }
  }
  out += '</g><g id="lines"></g>' + axisX(box, x, logTicks(MAP.low, MAP.high, 8), "weight decay λ", false);
  for (let M = 1; M <= MAP.depths; M++) out += words(box.left - 8, box.bottom - (M - 0.5) * row + 4, M, "end", "number");
  out += path("axis", `M${box.left} ${box.top}V${box.bottom}`) + words(box.left - 24, box.top - 9, "depth M", "start", "label");
  out += '<g id="mark"></g>';
  return { html: svg(width, box.bottom + 44, out, "Phase diagram over decay and depth"), x, box, row };
}

// Fold and Maxwell point of every depth as steps.
function phaseLines(m, frame) {
  const { x, box, row } = frame;
  const steps = (name, kind) => {
    let d = "";
    for (let M = 1; M <= MAP.depths; M++) {
      const edge = boundaries(cellSetting(m, 0, M))[name], lam = edge ? mapDecay(0) * edge.factor : Infinity;
      if (!Number.isFinite(lam)) continue;
      const X = at(Math.min(Math.max(x(lam), box.left), box.right)), y = box.bottom - (M - 1) * row;
      d += `${d ? "L" : "M"}${X} ${y}L${X} ${y - row}`;
    }
    return path(kind + " halo", d) + path(kind, d);
  };
  return steps("maxwell", "maxwell") + steps("fold", "fold");
}
