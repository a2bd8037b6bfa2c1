// A setting as sliders, as text and as the page's address.

// [low, high, how it moves]; "zero": the left end of a logarithmic slider is 0.
const RANGES = {
  K: [2, 100, "log", "whole"], n: [2, 10000, "log", "whole"], M: [1, MAP.depths, "linear", "whole"], lw: [1e-7, 1, "log"],
      lh: [1e-7, 1, "log"],
  lb: [1e-7, 10, "log"], c: [1e-3, 1, "log"], r: [0.05, 50, "log"], v2: [1e-4, 10, "log", "zero"], theta: [0.01, 1e4, "log"],
  eps: [1e-5, 0.5, "log"], s0: [1e-4, 1, "log"], nc0: [0.1, 1000, "log"],
};
const CHOICES = {
  kind: [["free", "free (UFM)"], ["data", "tied to data"]], bias: [["none", "none"], ["free", "free"], ["decayed", "decayed"]],
  loss: [["mse", "squared"], ["cross_entropy", "cross-entropy"]],
};
// Besides the setting: whether features decay like weights, what the diagram's colour shows, the time axis.
const VIEW = { tie: true, map: "time", clock: "log" };

function ofSlider(key, u) {
  const [low, high, scale, kind] = RANGES[key];
  if (kind === "zero" && u === 0) return 0;
  const v = scale === "log" ? low * Math.pow(high / low, u) : low + u * (high - low);
  return kind === "whole" ? Math.round(v) : Number(v.toPrecision(3));
}

function toSlider(key, v) {
  const [low, high, scale] = RANGES[key];
  return Math.min(1, Math.max(0, v <= 0 ? 0 : scale === "log" ? Math.log(v / low) / Math.log(high / low) :
      (v - low) / (high - low)));
}

function accept(key, text) {
  const [low, high, , kind] = RANGES[key], parts = String(text).trim().replace("−", "-").split("/").map(Number);
  const v = parts.length === 2 ? parts[0] / parts[1] : parts[0];
  const good = parts.length <= 2 && String(text).trim() !== "" && Number.isFinite(v) && (kind === "zero" && v === 0 || v >= low &&
      v <= high);
  return good && !(kind === "whole" && v !== Math.round(v)) ? v : null;
}

const plain = v => v !== 0 && (v < 1e-3 || v >= 1e6) ? v.toExponential().replace("e+", "e") : String(Number(v.toPrecision(6)));

function toAddress(state, usual) {
  const parts = [];
  for (const key in usual) {
    if (key === "lh" ? !state.tie : state[key] !== usual[key]) parts.push(`${key}=${state[key]}`);
  }
  for (const key in VIEW) if (key !== "tie" && state[key] !== VIEW[key]) parts.push(`${key}=${state[key]}`);
  return parts.join("&");
}

function fromAddress(hash, usual) {
  const state = { ...usual, ...VIEW };
  for (const part of hash.replace(/^#/, "").split("&")) {
    const [key, text] = part.split("=");
    if (text === undefined) continue;
    if (RANGES[key]) {
      const v = accept(key, text);
      if (v === null) continue;
      state[key] = v;
      if (key === "lh") state.tie = false;
    } else if (CHOICES[key] && CHOICES[key].some(choice => choice[0] === text)) state[key] = text;
    else if (key === "map" && text === "fn" || key === "clock" && text === "linear") state[key] = text;
  }
  return state;
}
