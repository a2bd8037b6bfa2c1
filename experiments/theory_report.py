"""Everything that `theory` knows of one model, as one JSON-ready dictionary; what it does not know, with the reason."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

import theory
from ncflow import UFM, Decay, DeepLinear
from ncflow.errors import BadInput, require
from theory import FixedPoint, cross_entropy
from theory.point import NUMBERS

#: Logarithm of the largest multiple of the decays at which a fold is looked for.
FARTHEST = 60.0
#: A report never spells out more distinct eigenvalues than this per block.
EIGENVALUES = 12


@dataclass(frozen=True, kw_only=True)
class Start:
    """Where time begins, and what counts as collapse.

    Attributes:
        threshold: NC1 below which features count as collapsed.
        signal: of an aligned start, as in `theory.time_to_collapse`; None for a drawn one.
        scatter: total within-class scatter at t = 0; None: that of the drawn start.
        tolerance: of fn, for the lead time.
    """

    threshold: float = 0.01
    signal: float | None = None
    scatter: float | None = None
    tolerance: float = 0.01


def report(model: UFM | DeepLinear, start: Start | None = None, *, spectrum: bool = False) -> dict[str, Any]:
    """Fixed point, rates, boundaries and times of a model of one lane.

    Every entry holds numbers with "law", "status" and "assumptions", or only "not_known": the assumption that fails.

    Args:
        spectrum: whether the blocks of the Hessian are listed.

    Raises:
        BadInput: the fixed point is not known; several lanes.
    """
    require(model.lanes == 1, "model", f"{model.lanes} lanes", "one lane; see --sweep")
    start = start or Start()
    at = start.threshold
    found: dict[str, Any] = {
        "fixed_point": point(theory.fixed_point(model)),
        "rates": known(lambda: _rates(model)),
        "boundaries": {
            "fold": known(lambda: _fold(model)),
            "maxwell": known(lambda: _record(theory.maxwell(model))),
            "floor": known(lambda: _record(theory.floor(model))),
            "floor_boundary": known(lambda: _floor_boundary(model, at)),
            "minority_threshold": known(lambda: {"samples": theory.minority_threshold(_free(model)), "law": "minority",
                                                 "status": "exact"}),
            "mean_mode_threshold": known(lambda: _mean_mode(model)),
        },
        "regime": known(lambda: _regime(theory.regime(model, at))),
        "time_to_collapse": known(lambda: _time(model, start)),
        "lead_time": known(lambda: _lead(model, start)),
    }
    if spectrum:
        found["spectrum"] = known(lambda: _spectrum(model))
    return found


def known(ask: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `ask` says, or which assumption fails."""
    try:
        return ask()
    except BadInput as e:
        return {"not_known": str(e)}


def plain(value: Any) -> Any:
    """numpy values as Python's."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return value


def point(found: FixedPoint) -> dict[str, Any]:
    """A fixed point with its other roots."""
    return {**{name: plain(getattr(found, name)) for name in NUMBERS}, "branch": found.branch, "law": found.law,
            "status": found.status, "assumptions": list(found.assumptions), "source": found.source,
            "other_roots": [{"branch": r.branch, **{n: plain(getattr(r, n)) for n in NUMBERS}} for r in found.other_roots]}


def _record(found: Any) -> dict[str, Any]:
    """The fields of a result object."""
    return {f.name: list(v) if isinstance(v := getattr(found, f.name), tuple) else plain(v) for f in fields(found)}


def _free(model: UFM | DeepLinear) -> UFM:
    if not isinstance(model, UFM):
        raise BadInput("model", "deep_linear", '"ufm": it speaks of free features')
    return model


def _floor_boundary(model: UFM | DeepLinear, threshold: float) -> dict[str, Any]:
    if isinstance(model, UFM):
        raise BadInput("model", "ufm", '"deep_linear": free features have no floor')
    return _record(theory.floor_boundary(model, threshold))


def _mean_mode(model: UFM | DeepLinear) -> dict[str, Any]:
    require(model.bias == "decayed", "bias", model.bias, '"decayed": it compares the decay of the bias')
    return {"bias_decay": theory.mean_mode_threshold(_free(model)), "law": "mean_mode_threshold", "status": "exact"}


def _fold(model: UFM | DeepLinear) -> dict[str, Any]:
    try:
        return _record(theory.fold(model))
    except BadInput:
        if not isinstance(model, UFM) or plain_model(model):
            raise
    factor = existence(model)
    return {"factor": factor, "law": theory.fixed_point(model).law, "status": "numerical",
            "assumptions": ["Multiple of the model's own decays up to which the collapsed point exists, by bisection."]}


def linear_model(model: UFM) -> bool:
    """Whether the model is linear, with nothing held fixed or constrained."""
    return (model.activation, model.nonnegative, model.normalization, model.classifier) == ("linear", False, "none", "free")


def plain_model(model: UFM) -> bool:
    """Whether it is, under squared loss."""
    return model.loss == "mse" and linear_model(model)


def one_lane(model: UFM, i: int) -> UFM:
    """Lane i of `model` on its own."""
    decay = Decay(weights=model.weight_decays[[i]].tolist(), features=float(model.feature_decays[i]),
                  bias=float(model.bias_decays[i]))
    return replace(model, decay=decay, mobility=float(model.mobilities[i]), activation_scale=float(model.activation_scales[i]))


def existence(model: UFM) -> float:
    """The largest multiple of all decays of a model of one lane at which its collapsed point exists, to 1e-12; inf or 0
    beyond e^{+-FARTHEST}."""
    def exists(log_factor: float) -> bool:
        f = float(np.exp(log_factor))
        decay = Decay(weights=(model.weight_decays * f).tolist(), features=float(model.feature_decays[0]) * f,
                      bias=float(model.bias_decays[0]) * f)
        return bool(theory.fixed_point(replace(model, decay=decay)).exists)

    here, step = exists(0.0), np.log(10.0)
    low = high = 0.0
    while exists(high if here else low) == here:
        if here:
            low, high = high, high + step
        else:
            low, high = low - step, low
        if abs(high if here else low) > FARTHEST:
            return float("inf") if here else 0.0
    while high - low > 1e-12:
        middle = (low + high) / 2
        low, high = (middle, high) if exists(middle) else (low, middle)
    return float(np.exp(low))


def _rates(model: UFM | DeepLinear) -> dict[str, Any]:
    try:
        rates = theory.rates(model)
    except BadInput as e:
        if not isinstance(model, UFM) or model.loss == "mse" or not linear_model(model):
            raise
        rate = cross_entropy.within_class(model).nc1_rate
        return {"nc1_first": {"value": rate, "law": "within_softmax", "status": "exact",
                              "conditions": ["NC1 of H_1, t -> infinity, from the within-class eigenvalues."]},
                "others": {"not_known": str(e)}}
    out = {f.name: {**_record(getattr(rates, f.name))} for f in fields(rates)}
    found = theory.spectrum(model)
    out["slowest"] = {"value": plain(found.slowest), "law": "symmetric", "status": found.status,
                      "conditions": ["Smallest nonzero eigenvalue of the Hessian; mobility 1."]}
    out["stiffest"] = {"value": plain(found.stiffest), "law": "symmetric", "status": found.status,
                       "conditions": ["Largest eigenvalue; an explicit step longer than 2/stiffest is unstable."]}
    return out


def _regime(found: Any) -> dict[str, Any]:
    return {"name": found.name.lower(), "meaning": found.value}


def _time(model: UFM | DeepLinear, start: Start) -> dict[str, Any]:
    found = theory.time_to_collapse(model, start.threshold, signal=start.signal, scatter=start.scatter)
    return {**_record(found), "regime": found.regime.name.lower(), "threshold": start.threshold, "signal": start.signal}


def _lead(model: UFM | DeepLinear, start: Start) -> dict[str, Any]:
    signal = 1.0 if start.signal is None else start.signal
    found = theory.lead_time(_free(model), start.threshold, start.tolerance, signal=signal, scatter=start.scatter)
    return {**_record(found), "threshold": start.threshold, "tolerance": start.tolerance, "signal": signal}


def _spectrum(model: UFM | DeepLinear) -> dict[str, Any]:
    found = theory.spectrum(model)
    rows = [{"name": b.name, "eigenvalues": b.eigenvalues[:EIGENVALUES].tolist(), "distinct": len(b.eigenvalues),
             "multiplicity": b.multiplicity, "law": b.law} for b in found.blocks]
    return {"blocks": rows, "zeros": int(found.zeros), "parameters": sum(b.size for b in found.blocks),
            "stable": plain(found.stable), "stiffness": plain(found.stiffness), "status": found.status,
            "branch": found.branch, "assumptions": list(found.assumptions), "source": found.source}


#: What the document calls an entry, where its name is too short.
NAMES = {"nc1": "NC1, penultimate features", "nc1 first": "NC1, first features", "fn": "Mean feature norm",
         "balance": "Balance between layers", "floor": "Floor of NC1", "maxwell": "Zero becomes cheaper"}
#: Sections of a report in the order of the LaTeX document, and what each is called there.
TITLES = {"fixed_point": "Fixed point", "rates": "Rates", "boundaries": "Boundaries", "time_to_collapse": "Time to collapse",
          "lead_time": "Which settles first", "spectrum": "Hessian at the fixed point"}


def laws(found: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """(section, name, law, status) of every formula that a report used, each law once per section; sections as `TITLES`."""
    out: list[tuple[str, str, str, str]] = []

    def add(section: str, name: str, entry: Mapping[str, Any]) -> None:
        law = entry.get("law")
        if law and all((section, law) != (s, l) for s, _, l, _ in out):  # noqa: E741
            out.append((section, name, law, entry.get("status", "exact")))

    for key, title in TITLES.items():
        entry = found.get(key, {})
        if key in ("rates", "boundaries"):
            for name, part in entry.items():
                if isinstance(part, Mapping):
                    add(title, name.replace("_", " "), part)
        elif key == "spectrum":
            for block in entry.get("blocks", ()):
                add(title, block["name"], {**block, "status": entry["status"]})
        else:
            add(title, title.lower(), entry)
    return out


#: The one formula that a report quotes and `theory` states only in a docstring (`cross_entropy.within_class`).
WITHIN_SOFTMAX = r"\rho = 2 \theta \lambda_{H} \min\left\{1, 1 + \frac{x s}{K}, 1 - x \frac{g'(x)}{g(x)}\right\}"


#: Symbols of the formulas.
SYMBOLS = r"""$K$ classes of $n$ samples, $N = Kn$; $c$ loss scale; $D$ decayed factors, $\lambda_0 = \lambda_H$ of
free features first; $x$ signal; $s$, $b$, $g$ singular value of the targets, overlap and Gram of a mode; $\gamma$,
$\Gamma = \gamma^D$ tension; $\theta$ mobility of the features, in a fixed point the share of the mean that the bias
takes; $\mu$ eigenvalue, $\rho$ rate of decay; $S$ total within-class scatter at $t = 0$."""


def formula(section: str, law: str) -> str:
    """LaTeX of a law of `theory` that a section of the report quotes."""
    from theory import derivations, derivations_dynamics

    if law == "within_softmax":
        return WITHIN_SOFTMAX
    dynamic = law in derivations_dynamics.LAWS and section != TITLES["fixed_point"]
    return (derivations_dynamics if dynamic else derivations).latex(law)


def document(found: Mapping[str, Any]) -> str:
    """A LaTeX document with every formula that the report used."""
    lines = [r"\documentclass{article}", r"\usepackage{amsmath}", r"\begin{document}", "", r"\noindent " + SYMBOLS, ""]
    section = ""
    for title, name, law, status in laws(found):
        if title != section:
            section = title
            lines += [rf"\section*{{{title}}}", ""]
        lines += [rf"\noindent {NAMES.get(name, name[0].upper() + name[1:])} ({status}):", r"\[", formula(title, law), r"\]", ""]
    return "\n".join([*lines, r"\end{document}"])
