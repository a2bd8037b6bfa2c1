// The page against theory/: what is evaluated here at load is held against values that Python wrote into the page.

const TOLERANCE = { closed: 1e-9, flow: 1e-7 };

// Everything that `reference.closed_forms` names, for one setting.
function closedForms(m) {
  const point = fixedPoint(m), edge = boundaries(m), speed = rates(m, point);
  const out = { ...point, regime: regimeOf(m, point, edge), "edge.fold.factor": edge.fold.factor,
      "edge.fold.decay": edge.fold.decay,
                "edge.meanMode": edge.meanMode };
  if (edge.maxwell) { out["edge.maxwell.factor"] = edge.maxwell.factor; out["edge.maxwell.decay"] = edge.maxwell.decay; }
  for (const name in speed) out["rate." + name] = speed[name];
  return out;
}

// Relative difference of two values of any shape; what can vanish is measured against 1, or c for the squared loss.
function difference(name, here, there, m) {
  if (there === null || here === null) return here === there ? 0 : Infinity;
  if (Array.isArray(there)) {
    return Math.max(here.length === there.length ? 0 : Infinity, ...there.map((v, i) => difference(name, here[i], v, m)));
  }
  if (typeof there === "object") return Math.max(...Object.keys(there).map(key => difference(key, here[key], there[key], m)));
  if (there === "NaN" || there === "Infinity") return String(here) === there ? 0 : Infinity;
  if (typeof there !== "number") return here === there ? 0 : Infinity;
  const unit = name === "cosine" || name === "bias" || name === "logNC1" ? 1 : name === "loss" && m.loss === "mse" ? m.c :
      Math.abs(there) || 1;
  const off = Math.abs(here - there) / unit;
  return Number.isNaN(off) ? Infinity : off;
}

// {closed, flow}: {worst, where, count} over the reference rows, and whether both are within tolerance.
function selfCheck(rows) {
  const result = { closed: { worst: 0, where: "", count: 0 }, flow: { worst: 0, where: "", count: 0 } };
  const compare = (part, here, there, m) => {
    for (const name in there) {
      const off = difference(name, here[name], there[name], m), into = result[part];
      into.count += Array.isArray(there[name]) ? there[name].length : 1;
      if (off > into.worst) { into.worst = off; into.where = name; }
    }
  };
  for (const row of rows) {
    const m = row.setting;
    if (row.closed) compare("closed", closedForms(m), row.closed, m);
    if (row.collapse) compare("flow", { ...timeToCollapse(m), scatter: startOf(m).scatter }, row.collapse, m);
    if (row.path) compare("flow", sampled(m, row.times), row.path, m);
  }
  result.agrees = result.closed.count > 0 && result.closed.worst <= TOLERANCE.closed && result.flow.worst <= TOLERANCE.flow;
  return result;
}

// The call of ncflow that reproduces a setting, with the numbers it gives.
function pythonOf(m) {
  const point = fixedPoint(m), free = m.kind === "free", square = m.loss === "mse", say = v => String(v);
  const width = Math.max(64, 2 * m.K);
  const common = `classes=${m.K}, samples_per_class=${m.n}, width=${width}, layers=${m.M}`;
  const lines = [];
  const names = ["fixed_point"];
  if (square) names.push(free ? "fold" : "floor, fold");
  const timed = free && square && hasTrajectory(m);
  if (timed) names.push("time_to_collapse");
  lines.push(free ? "from ncflow import UFM, Decay" : "from ncflow import DeepLinear, Isotropic",
      `from theory import ${names.join(", ")}`, "");
  if (free) {
    const decay = [`weights=${say(m.lw)}`, `features=${say(m.lh)}`, ...(m.bias === "decayed" ? [`bias=${say(m.lb)}`] : [])];
    lines.push(`model = UFM(${common},`,
               `            loss="${m.loss}", loss_scale=${say(m.c)}, bias="${m.bias}", mobility=${say(m.theta)},`,
               `            decay=Decay(${decay.join(", ")}))`);
  } else {
    lines.push(`model = DeepLinear(inputs=Isotropic(amplitude=${say(m.r)}, noise=${say(m.v2)}),`, `                   ${common},`,
               `                   loss_scale=${say(m.c)}, bias="${m.bias}", decay=${say(m.lw)})`);
  }
  const value = (call, v) => lines.push(`${call}  # ${Number.isFinite(v) ? v.toPrecision(9) : Number.isNaN(v) ? "nan" : "inf"}`);
  value("fixed_point(model).feature_norm", point.fn);
  if (square) value("fold(model).factor", boundaries(m).fold.factor);
  if (!free && point.exists) value("floor(model).nc1", point.floor);
  if (timed) {
    const S = startOf(m).scatter, found = timeToCollapse(m);
    value(`time_to_collapse(model, ${say(m.eps)}, signal=${say(m.s0)}, scatter=${S.toPrecision(15)}).time`, found.time);
  }
  return lines.join("\n");
}
