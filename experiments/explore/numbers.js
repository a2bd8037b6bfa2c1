// What the page says in words and numbers: the verdict, the four figures, the table.

const VERDICTS = {
  COLLAPSE: ["full", "Collapses.", m => square(m) || m.M === 1 ? "The collapsed point is the global minimum." :
             "The collapsed point is a local minimum; so is zero, and codes of lower rank may cost less."],
  METASTABLE: ["half", "Metastable.", () => "The collapsed point is a local minimum; zero is cheaper."],
  VANISHING: ["empty", "No collapsed state.", () =>
      "Decay is beyond the fold: only zero is left, and NC1, a ratio, says nothing there."],
  FLOOR: ["half", "Never below the threshold.", (m, p) => `Features tied to data keep NC1 at ${show(p.floor, 3)} or more.`],
  LOST: ["empty", "This start ends at zero.", () => "A collapsed state exists, but the signal starts in the basin of zero."],
};
const CIRCLE = '<circle cx="8" cy="8" r="6" fill="none" stroke="currentColor" stroke-width="2"/>';
const ICONS = { full: '<circle cx="8" cy="8" r="7" fill="currentColor"/>', empty: CIRCLE,
                half: CIRCLE + '<path d="M8 2a6 6 0 0 1 0 12z" style="fill:currentColor"/>' };

function showAnswer(m, now) {
  const key = now.regime !== "VANISHING" && now.found.vanishes ? "LOST" : now.regime;
  const [icon, lead, rest] = VERDICTS[key];
  const mark = `<svg viewBox="0 0 16 16" aria-hidden="true">${ICONS[icon]}</svg>`;
  const verdict = `${mark}<span><strong>${lead}</strong> <span>${rest(m, now.point)}</span></span>`;
  if ($("verdict").innerHTML !== verdict) $("verdict").innerHTML = verdict;
  $("verdict").className = key === "COLLAPSE" ? "" : "warn";
  const factor = now.edge.fold.factor, gone = key === "VANISHING", away = gone || key === "LOST";
  const long = text => `<span class="long">${text} </span>`;  // left out where there is no room
  const figures = [
    ["fn at rest", gone ? "none" : show(now.point.fn, 5)],
    [long("collapse time") + "T<sub>NC</sub>",
     timed(m) ? away ? "none" : show(now.found.time, 5) : key === "FLOOR" ? "never" : "–"],
    ["fn at T<sub>NC</sub>", timed(m) && !away ? show(now.found.fn, 5) : "–"],
    [gone ? "beyond the fold" : long("decay can grow") + "to the fold",
     Number.isFinite(factor) ? "× " + show(gone ? 1 / factor : factor, 3) : "no fold"],
  ];
  $("figures").innerHTML = figures.map(([name, value]) => `<div><dt>${name}</dt><dd>${value}</dd></div>`).join("");
}

// [group, name, value, status, why]; a value of nan shows why instead.
function rowsOf(m, { point, edge, speed, found, start }) {
  const p = point, gone = !p.exists, D = tensionOf(m).D, none = "No collapsed state here.";
  const power = m.M === 1 && free(m) ? "" : "<sup>1−2/D</sup>", rows = [];
  const add = (group, name, v, status, why, missing = none) => {
    rows.push([group, name, v, status, Number.isNaN(v) ? missing : why]);
  };
  const at = "At rest", law = square(m) ? (D === 2 ? "1 − x = γ" : `<i>x</i><sup>1−2/D</sup>(1 − <i>x</i>) = γ`) :
      `<i>x</i>${power}/(e<sup><i>x</i></sup> + K − 1) = γ`;
  const hide = v => gone ? NaN : v;
  const map = free(m) ? "" : "; <i>s</i> = <i>x r</i>/(r<sup>2</sup> + v<sup>2</sup>)";
  const mean = p.meanSignal && m.bias === "decayed" ? ` Mean mode: ${show(p.meanSignal, 4)}.` : "";
  add(at, free(m) ? "signal <i>x</i>" : "signal <i>s</i>, singular value of the map", hide(p.signal), "exact",
      `Larger root of ${law}, D = ${D} factors${map}.${mean}`);
  add(at, "mean feature norm fn<sub>∞</sub>", hide(p.fn), "exact", free(m) || !m.v2 ? "Of the features that enter the head." :
      "Root mean square over samples, noise included.");
  add(at, "norm of each weight layer |W<sub>l</sub>|", hide(p.weightNorm), "exact",
      "All alike: balanced layers share the decay.");
  if (m.M > 1 && !gone && p.layers.length > 1) rows.push([at, "fn layer by layer", p.layers.map(v => show(v, 3)).join(", "),
      "exact", "From the first features to those that enter the head."]);
  const frame = m.bias === "none" && square(m) ? "0: an orthogonal frame, before centring." :
    Math.abs(p.cosine + 1 / (m.K - 1)) < 1e-12 ? "−1/(K−1): a simplex." :
    "Between simplex and orthogonal frame: the mean mode is active.";
  add(at, "cosine of class means", p.cosine, "exact", frame);
  if (m.bias !== "none" && square(m)) add(at, "head bias, each entry", hide(p.bias), "exact",
      "1/K would be the mean of the targets.");
  add(at, "loss L", p.loss, "exact", gone ? "Of the zero solution." : "Decay terms included.");
  add(at, "NC1 floor", p.floor, "exact", free(m) ? "Free features leave class means nothing to stop them." :
      "v<sup>2</sup>/r<sup>2</sup> times " + (m.M > 1 ? "modes/(K−1), at any decay and depth." : "K/(K−1), that of the data."));
  if (p.saddle) add(at, "fn at the saddle", p.saddle.fn, "exact",
      "The lower root: the ridge between the collapsed state and zero.");
  const end = "Boundaries, all decays scaled together";
  add(end, "fold, weights' decay", edge.fold.factor * m.lw, "exact", D === 1 ? "One factor, ridge regression: never vanishes." :
      D === 2 ? "The signal vanishes here, continuously." : "Two roots meet; beyond, only zero.");
  if (edge.maxwell && D > 2) add(end, "Maxwell point, weights' decay", edge.maxwell.factor * m.lw, "exact",
      "Beyond it zero costs less than the collapsed state.");
  if (!Number.isNaN(edge.meanMode)) add(end, "λ<sub>b</sub> that wakes the mean mode", edge.meanMode, "exact",
      m.lb > edge.meanMode ? "Active here: class means are no simplex." : "Inactive here: class means are a simplex.");
  const how = "Rates, −d log/dt", slow = "Generic start, t → ∞.";
  if (free(m)) {
    if (m.M > 1) add(how, "NC1 of the first features", speed.nc1First, "asymptotic",
        "2θλ<sub>H</sub>: weight decay of what the head does not see.");
    add(how, "NC1 of the features that enter the head", speed.nc1, "asymptotic", slow, gone ? none :
        "ncflow has no formula for deep cross-entropy.");
  }
  add(how, "signal", speed.signal, "asymptotic", slow + (m.lw !== m.lh ? " The slowest of its ways." : ""), gone ? none :
      square(m) ? "Not shown with a decayed bias, whose mean mode moves too." : "ncflow has no formula under cross-entropy.");
  add(how, "balance between layers", speed.balance, "exact", "2λ at all times: norms of layers equalise by decay alone.", gone ?
      none : "Factors whose decay times mobility differ do not equalise.");
  const go = "From the aligned start to collapse";
  if (timed(m)) {
    const missing = "NC1 does not reach the threshold.";
    const elementary = square(m) && m.M === 1 && m.lw === m.lh && m.theta === 1;
    add(go, "collapse time T<sub>NC</sub>", Number.isFinite(found.time) ? found.time : NaN, "exact", (elementary ?
        "Logistic signal; root of an elementary NC1(t)." : "Root along the exact flow of two amplitudes, integrated.") +
        (found.vanishes ? " The features vanish nevertheless." : ""), missing);
    add(go, "fn at T<sub>NC</sub>", found.fn, "exact", "What the paper measures; not fn at rest.", missing);
    add(go, "scatter S at the start", start.scatter, "exact",
        "Σ|e<sub>i</sub>|<sup>2</sup> of deviations outside the modes, in the features that enter the head.");
  } else {
    add(go, "collapse time T<sub>NC</sub>", NaN, "exact", "", free(m) ?
        "Not known with a decayed bias, which starts the mean mode moving." :
        p.floor >= m.eps ? "Never: the floor is above the threshold." :
            "On data only the floor is known, not when NC1 comes near it.");
  }
  return rows;
}

function showNumbers(rows) {
  let html = "<thead><tr><th>Quantity</th><th>Value</th><th>Formula</th><th>What it says</th></tr></thead><tbody>", last = "";
  for (const [group, name, v, status, why] of rows) {
    if (group !== last) html += `<tr><th scope="rowgroup" colspan="4">${group}</th></tr>`;
    last = group;
    const known = !(typeof v === "number" && Number.isNaN(v));
    html += `<tr><th scope="row">${name}</th><td class="value">${typeof v === "number" ? show(v, 6) : v}</td>` +
            `<td>${known ? `<span class="tag ${status}">${status}</span>` : ""}</td><td class="why">${why}</td></tr>`;
  }
  $("numbers").innerHTML = html + "</tbody>";
}
