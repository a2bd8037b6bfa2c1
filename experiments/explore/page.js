// What is seen: the setting as sliders and as the page's address, and everything redrawn from it.

const embedded = JSON.parse(document.getElementById("data").textContent);
const state = fromAddress(location.hash, embedded.default);
const $ = id => document.getElementById(id);

const free = m => m.kind === "free", square = m => m.loss === "mse";
const FIELDS = [
  ["Model", [
    ["kind", "Features"], ["K", "Classes", "K"], ["n", "Samples per class", "n"], ["M", "Weight layers", "M"],
    ["r", "Amplitude of the class means", "r", m => !free(m)], ["v2", "Noise, total scatter/n", "v<sup>2</sup>", m => !free(m)],
    ["theta", "Mobility of the features", "θ", free],
  ]],
  ["Loss", [["loss", "Loss", "", free], ["c", "Scale", "c", square], ["bias", "Head bias"]]],
  ["Weight decay", [["lw", "Weights", "λ"], ["tie", "features decay alike", "", free],
                    ["lh", "Features", "λ<sub>H</sub>", free],
                    ["lb", "Bias", "λ<sub>b</sub>", m => free(m) && square(m) && m.bias === "decayed"]]],
  ["Start and threshold", [["eps", "NC1 threshold", "ε"], ["s0", "Signal at the start", "s<sub>0</sub>"],
                           ["nc0", "NC1 at the start", "", free]]],
];
const PRESETS = [
  ["the README's example", {}],
  ["three layers, close to the fold", { M: 3, lw: 0.026, lh: 0.026, s0: 0.5 }],
  ["ten classes, class means on the weights' clock", { K: 10, n: 5000, c: 0.1, bias: "free", lh: 1e-7, theta: 5000 }],
  ["cross-entropy instead of squared loss", { loss: "cross_entropy", bias: "free" }],
  ["six layers on data, noise below the threshold", { kind: "data", K: 10, n: 1000, M: 6, c: 0.1, r: 5, v2: 0.1, lw: 1e-3,
      lh: 1e-3 }],
  ["a strongly decayed bias: the mean mode wakes", { lb: 0.2, bias: "decayed" }],
];

function setting() {
  const m = {};
  for (const key in embedded.default) m[key] = state[key];
  if (m.kind === "data") m.loss = "mse";
  if (state.tie || m.kind === "data") m.lh = m.lw;
  return m;
}

// ---- sliders ------------------------------------------------------------------------------------------------------------

function buildFields() {
  let html = "";
  for (const [title, fields] of FIELDS) {
    html += `<div class="group" role="group" aria-label="${title}"><h3>${title}</h3>`;
    for (const [key, name, symbol] of fields) {
      if (key === "tie") html += `<label class="check" data-field="tie"><input type="checkbox" id="in-tie"> ${name}</label>`;
      else if (CHOICES[key]) {
        const options = CHOICES[key].map(([v, label]) =>
            `<label><input type="radio" name="${key}" value="${v}"><span>${label}</span></label>`);
        html += `<div class="choice" data-field="${key}"><span id="name-${key}">${name}</span>
          <div class="switch" role="radiogroup" aria-labelledby="name-${key}">${options.join("")}</div></div>`;
      } else {
        const steps = RANGES[key][2] === "linear" ? RANGES[key][1] - RANGES[key][0] : 240;
        html += `<div class="field" data-field="${key}">
          <label for="in-${key}">${name}<span class="symbol">${symbol || ""}</span></label>
          <input type="text" inputmode="decimal" id="in-${key}" spellcheck="false">
          <input type="range" id="slide-${key}" min="0" max="${steps}" step="1" aria-label="${name}">
          <span class="hint" id="hint-${key}"></span></div>`;
      }
    }
    html += "</div>";
  }
  $("fields").innerHTML = html;
  const set = (name, text) => `<button type="button" data-set="${name}">${text}</button>`;
  $("hint-c").innerHTML = `set to ${set("half", "1/2")} theory, ${set("perK", "1/K")} PyTorch`;
  $("hint-theta").innerHTML = `set to ${set("plain", "1")} plain, ${set("clock", "N/K")} one clock`;
  $("preset").innerHTML = `<option value="">an example…</option>` + PRESETS.map((p, i) =>
      `<option value="${i}">${p[0]}</option>`).join("");
}

function syncFields(m) {
  for (const [, fields] of FIELDS) {
    for (const [key, , , when] of fields) {
      const row = document.querySelector(`[data-field="${key}"]`);
      row.hidden = Boolean(when && !when(m));
      row.style.display = row.hidden ? "none" : "";
      if (key === "tie") $("in-tie").checked = state.tie;
      else if (CHOICES[key]) for (const input of row.querySelectorAll("input")) input.checked = input.value === m[key];
      else {
        const slide = $("slide-" + key), box = $("in-" + key);
        if (document.activeElement !== slide) slide.value = Math.round(toSlider(key, m[key]) * slide.max);
        if (document.activeElement !== box) { box.value = plain(m[key]); box.removeAttribute("aria-invalid"); }
        slide.setAttribute("aria-valuetext", plain(m[key]));
        if (key === "lh") slide.disabled = box.disabled = state.tie;
      }
    }
  }
  $("hint-lh").innerHTML = `n λ<sub>H</sub> = ${show(m.n * m.lh, 4)}: what one class pays for its mean`;
  document.querySelector('input[name="map"][value="time"]').disabled = !timed(m);
  for (const name of ["map", "clock"]) {
    const value = name === "map" ? mapKind(m) : state.clock;
    for (const input of document.getElementsByName(name)) input.checked = input.value === value;
  }
}

const timed = m => free(m) && hasTrajectory(m);
const mapKind = m => timed(m) ? state.map : "fn";

// ---- drawings -----------------------------------------------------------------------------------------------------------

let drawn = null, phase = null, values = [], job = 0, waiting = 0;
const widths = {};  // of the drawings, measured when they change and not while redrawing

function showTrajectory(m, now) {
  const note = $("trajectoryNote"), place = $("trajectory");
  if (!hasTrajectory(m)) {
    place.innerHTML = "";
    note.textContent = "A decayed bias starts the mean mode moving, and the modes no longer move alike: " +
      "simulate(model) integrates this flow.";
    drawn = null;
    return;
  }
  const T = now.found.time, log = state.clock === "log";
  const until = Number.isFinite(T) && T > 0 && !now.found.vanishes ? T * (log ? 4 : 1.6) : 12 / slowest(m);
  const run = trajectory(m, until, 1e-6, 8);
  drawn = { run, ...drawTrajectory(m, run, now.point.fn, now.found, until, log, widths.trajectory) };
  place.innerHTML = drawn.html;
  note.textContent = free(m) ?
    "Aligned start: every mode the same signal, balanced amplitudes, noise outside the modes, which the head never sees." :
    m.M === 1 ? "One layer on data: the features are the data, and do not move." :
    "Aligned start: every mode the same signal, all layers alike. The noise shares the modes, so NC1 is at its floor " +
    "throughout; from other starts it tends to it.";
}

function showPhase(m) {
  const place = $("phase"), width = widths.phase;
  if (!phase || phase.width !== width) {
    phase = { width, ...drawPhase(m, width) };
    place.innerHTML = phase.html;
    phase.cells = place.querySelectorAll("#cells rect");
    values = [];
  }
  const kind = mapKind(m), ratio = m.lh / m.lw;
  // What the diagram depends on: everything but depth and the common scale of the decays.
  const key = JSON.stringify([kind, { ...m, M: 0, lw: 0, lh: 0, lb: (m.lb / m.lw).toPrecision(9) * (m.bias === "decayed") },
      ratio.toPrecision(9), width]);
  if (key !== phase.key) {
    phase.key = key;
    $("lines").innerHTML = phaseLines(m, phase);
    fillPhase(m, kind);
  }
  const { box, row, x } = phase, X = Math.min(Math.max(x(m.lw), box.left), box.right), Y = box.bottom - (m.M - 0.5) * row;
  $("mark").innerHTML = disc("around", X, Y, 7) + disc("", X, Y, 7);
  const also = !free(m) ? "" : state.tie ? ", also of the features" : ` (features: ${show(ratio, 3)} λ)`;
  $("phase").querySelector("text.label").textContent = "weight decay λ" + also;
  const floors = free(m) ? "" : floorNote(m);
  phase.note = `${kind === "time" ? "Every cell starts from the same signal and NC1. " : ""}${floors} Click a cell to go there.`;
  $("phaseNote").innerHTML = phase.note;
}

function floorNote(m) {
  const above = fixedPoint({ ...m, lw: MAP.low, lh: MAP.low, M: 2 }).floor >= m.eps;
  return above ? "NC1 floor above the threshold at every decay and depth." :
      "NC1 floor below the threshold up to the fold, at every decay and depth M ≥ 2.";
}

// Coarse at once, then finer while nothing moves, so that a slider never waits.
function fillPhase(m, kind) {
  const mine = ++job, order = [];
  for (let M = 1; M <= MAP.depths; M++) for (let j = 4; j < MAP.columns; j += 9) order.push([j, M, 4]);
  const coarse = order.length;
  for (let j = 0; j < MAP.columns; j++) for (let M = 1; M <= MAP.depths; M++) if (j % 9 !== 4) order.push([j, M, 0]);
  values = new Array(MAP.columns * MAP.depths);
  const put = ([j, M, reach]) => {
    const found = cell(m, j, M, kind);
    for (let k = Math.max(0, j - reach); k <= Math.min(MAP.columns - 1, j + reach); k++) {
      const i = (M - 1) * MAP.columns + k;
      if (k === j || values[i] === undefined || values[i].rough) values[i] = k === j ? found : { ...found, rough: true };
    }
  };
  let i = 0;
  const go = () => {
    if (mine !== job) return;
    const begin = performance.now();
    while (i < order.length && (i < coarse || performance.now() - begin < 10)) put(order[i++]);
    paint(kind);
    waiting = i < order.length ? setTimeout(go, i === coarse ? 60 : 0) : 0;
  };
  clearTimeout(waiting);
  for (let k = 0; k < coarse; k++) put(order[i++]);
  paint(kind);
  waiting = setTimeout(go, 60);
}

function paint(kind) {
  const known = values.filter(v => v && v.state === "" && v.value > 0 && Number.isFinite(v.value)).map(v => Math.log(v.value));
  let low = known.length ? Math.min(...known) : 0, high = known.length ? Math.max(...known) : 1;
  if (high - low < 0.1) { low -= 0.05; high += 0.05; }
  values.forEach((v, i) => {
    if (!v) return;
    const fill = v.state ? `url(#${v.state})` : v.value > 0 && Number.isFinite(v.value) ?
      shade((Math.log(v.value) - low) / (high - low)) : v.value === 0 ? shade(0) : "none";
    if (phase.cells[i].getAttribute("fill") !== fill) phase.cells[i].setAttribute("fill", fill);
  });
  const stops = [0, 0.2, 0.4, 0.6, 0.8, 1].map(u => `<stop offset="${u}" stop-color="${shade(u)}"/>`).join("");
  const item = (width, what, before, after) => `<span>${before} <svg width="${width}" height="12">${what}</svg> ${after}</span>`;
  const ramp = `<linearGradient id="ramp">${stops}</linearGradient><rect width="110" height="12" fill="url(#ramp)"/>`;
  const filled = id => `<rect width="22" height="12" fill="url(#${id})"/>`;
  const colour = kind === "time" ? "T<sub>NC</sub>, flow time" : "fn at rest";
  let legend = known.length ? item(110, ramp, show(Math.exp(low), 3), `${show(Math.exp(high), 3)} ${colour}, log scale`) : "";
  legend += item(22, path("fold", "M0 6H22"), "", "fold");
  if (square(setting())) legend += item(22, path("maxwell", "M0 6H22"), "", "Maxwell point");
  legend += item(22, filled("gone"), "", "only zero is left");
  if (values.some(v => v && v.state === "lost")) legend += item(22, filled("lost"), "", "this start falls to zero");
  $("legend").innerHTML = legend;
}

let queued = false;
function redraw() {
  if (queued) return;
  queued = true;
  requestAnimationFrame(() => { queued = false; render(); });
}

function render() {
  const m = setting(), point = fixedPoint(m), edge = boundaries(m);
  const now = { point, edge, speed: rates(m, point), regime: regimeOf(m, point, edge), found: timeToCollapse(m),
      start: startOf(m) };
  syncFields(m);
  showAnswer(m, now);
  showTrajectory(m, now);
  $("branches").innerHTML = drawBranches(m, point, widths.branches);
  $("branchesNote").textContent = (point.saddle || tensionOf(m).D > 2 ?
      "Solid: the collapsed state; dashed: the saddle it meets at the fold. " : "The collapsed state up to where it vanishes. ") +
    "Thin: other depths. All decays keep their ratio.";
  $("balance").innerHTML = drawBalance(m, point, widths.balance);
  $("balanceNote").innerHTML = "Filled: the collapsed state. " + (point.saddle ?
      "Open: the saddle that separates it from zero. " : "") +
    (tensionOf(m).D > 2 ? "Where the line passes above the curve, only zero is left." :
        "Where the line passes above the curve, the signal is zero.") +
    (m.bias === "decayed" && square(m) ? " Centred modes; the mean mode that competes with the bias has a curve of its own." :
        "");
  showPhase(m);
  showNumbers(rowsOf(m, now));
  $("python").textContent = pythonOf(m);
  const address = toAddress(state, embedded.default);
  if (address !== location.hash.slice(1)) history.replaceState(null, "", address ? "#" + address : location.pathname +
      location.search);
}

// ---- events -------------------------------------------------------------------------------------------------------------

function put(changes) {
  Object.assign(state, changes);
  redraw();
}

function say(text) {
  $("toast").textContent = text;
  $("toast").className = "on";
  setTimeout(() => { $("toast").className = ""; }, 1800);
}

function copy(text, what) {
  const fallback = () => {
    const area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    say(done ? what + " copied" : "could not copy");
  };
  if (navigator.clipboard && window.isSecureContext) navigator.clipboard.writeText(text).then(() => say(what + " copied"),
      fallback);
  else fallback();
}

function listen() {
  const form = $("controls");
  form.addEventListener("submit", event => event.preventDefault());
  form.addEventListener("input", event => {
    const [kind, key] = event.target.id.split("-");
    if (kind === "slide") {
      const value = ofSlider(key, event.target.value / event.target.max);
      if (value !== state[key]) put({ [key]: value });
    } else if (key === "tie") put({ tie: event.target.checked, lh: state.tie ? state.lw : state.lh });
    else if (event.target.type === "radio") put({ [event.target.name]: event.target.value });
    else if (kind === "in") {
      const value = accept(key, event.target.value);
      event.target.toggleAttribute("aria-invalid", value === null);
      if (value === null) {
        event.target.setAttribute("aria-invalid", "true");
        event.target.title = `${plain(RANGES[key][0])} to ${plain(RANGES[key][1])}` + (RANGES[key][3] === "whole" ? ", whole" :
            "");
      } else put({ [key]: value });
    }
  });
  form.addEventListener("focusout", redraw);
  form.addEventListener("click", event => {
    const to = { half: { c: 0.5 }, perK: { c: 1 / state.K }, plain: { theta: 1 },
        clock: { theta: state.n } }[event.target.dataset.set];
    if (to) put(to);
  });
  $("preset").addEventListener("change", event => {
    if (event.target.value === "") return;
    const chosen = PRESETS[event.target.value][1];
    put({ ...embedded.default, tie: chosen.lh === undefined || chosen.lh === chosen.lw, ...chosen });
    event.target.value = "";
  });
  for (const name of ["map", "clock"]) for (const input of document.getElementsByName(name)) input.addEventListener("change",
      () => put({ [name]: input.value }));
  $("link").addEventListener("click", () => copy(location.href, "link"));
  $("copy").addEventListener("click", () => copy($("python").textContent, "Python call"));
  window.addEventListener("hashchange", () => put(fromAddress(location.hash, embedded.default)));
  const resized = new ResizeObserver(() => { measure(); redraw(); });
  for (const id of PLOTS) resized.observe($(id));
  const cellAt = event => {  // {lw, M, i} under the pointer, or null
    const box = phase.box, area = $("phase").getBoundingClientRect(), x = event.clientX - area.left, y = event.clientY - area.top;
    if (x < box.left || x >= box.right || y <= box.top || y > box.bottom) return null;
    const u = (x - box.left) / (box.right - box.left), M = Math.min(MAP.depths, Math.floor((box.bottom - y) / phase.row) + 1);
    return { lw: Number((MAP.low * Math.pow(MAP.high / MAP.low, u)).toPrecision(3)), M, i: (M - 1) * MAP.columns +
        Math.floor(u * MAP.columns) };
  };
  $("phase").addEventListener("click", event => {
    const to = cellAt(event), m = setting();
    if (!to) return;
    const lh = Math.min(Math.max(Number((m.lh * to.lw / m.lw).toPrecision(3)), RANGES.lh[0]), RANGES.lh[1]);
    put({ lw: to.lw, M: to.M, ...(state.tie ? {} : { lh }) });
  });
  $("phase").addEventListener("pointermove", event => {
    const here = cellAt(event), found = here && values[here.i];
    const what = !found ? "" : found.state === "gone" ? "only zero is left" : found.state === "lost" ?
        "this start falls to zero" :
      `${mapKind(setting()) === "time" ? "T<sub>NC</sub>" : "fn"} ${show(found.value, 3)}`;
    $("phaseNote").innerHTML = found ? `λ ${show(here.lw, 3)}, M = ${here.M}: ${what}` : phase.note;
  });
  $("phase").addEventListener("pointerleave", () => { $("phaseNote").innerHTML = phase.note; });
  $("trajectory").addEventListener("pointermove", event => {
    if (!drawn) return;
    const X = event.clientX - $("trajectory").getBoundingClientRect().left, { run, x, box, below } = drawn;
    let i = 1;
    while (i + 1 < run.t.length && x(run.t[i]) < X) i++;
    const here = x(run.t[i]), left = X > (box.left + box.right) / 2;
    const read = `t ${show(run.t[i], 3)}   fn ${show(run.fn[i], 4)}   NC1 ${show(Math.exp(run.logNC1[i]), 3)}`;
    $("reading").innerHTML = X < box.left || X > box.right || here > box.right + 1 ? "" :
      path("cross", `M${at(here)} ${box.top}V${below.bottom}`) +
      words(here + (left ? -6 : 6), box.top + 4, read, left ? "end" : "start", "note strong");
  });
  $("trajectory").addEventListener("pointerleave", () => { if ($("reading")) $("reading").innerHTML = ""; });
}

function showAgreement() {
  const result = selfCheck(embedded.rows), { closed, flow } = result, place = $("agreement");
  const worst = Math.max(closed.worst, flow.worst);
  place.className = result.agrees ? "good" : "bad";
  place.querySelector("summary").textContent = result.agrees ? `agrees with ncflow to ${show(closed.worst, 1)}` :
      `disagrees with ncflow by ${show(worst, 2)}`;
  const part = (name, { count, worst, where }, accepted) =>
    `${name}: ${count} values, at most ${show(worst, 2)} apart (${where}; accepted ${show(accepted, 1)}). `;
  place.querySelector("div").textContent = `When this page was written, ncflow's Python code evaluated ${embedded.rows.length} ` +
    "settings; the page has just evaluated them again. " + part("Closed forms", closed, TOLERANCE.closed) +
    part("Trajectories and collapse times, integrated", flow, TOLERANCE.flow);
}

const PLOTS = ["phase", "trajectory", "branches", "balance"];
const measure = () => { for (const id of PLOTS) widths[id] = Math.max(260, $(id).clientWidth); };

buildFields();
measure();
listen();
showAgreement();
render();
