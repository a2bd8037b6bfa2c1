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

#: A report never spells out more distinct eigenvalues than this per block.
EIGENVALUES = 12


@dataclass(frozen=True, kw_only=True)
class Start:
    """Where time begins, and what counts as collapse.

    Attributes:
        threshold: NC1 below which features count as collapsed.
        signal: of an aligned start, as in `theory.time_to_collapse`; None for a drawn one.
        scatter: total within-class scatter at t = 0; None: that of the drawn start.
        tolerance: of fn, for the lead time and for coming back after a rescaling.
    """

    threshold: float = 0.01
    signal: float | None = None
    scatter: float | None = None
    tolerance: float = 0.01


@dataclass(frozen=True, kw_only=True)
class Rescaled:
    """A layer that is multiplied by each of `alphas`, as in `theory.intervention_response`."""

    alphas: tuple[float, ...]
    layer: int | str = -2


def report(model: UFM | DeepLinear, start: Start | None = None, *, spectrum: bool = False, rescaled: Rescaled | None = None,
           tell: Callable[[float], None] = lambda share: None) -> dict[str, Any]:
    """Fixed point, rates, boundaries and times of a model of one lane.

    Every entry holds numbers with "law", "status", "assumptions" and "source", or only "not_known": the assumption that fails.

    Args:
        spectrum: whether the blocks of the Hessian are listed.
        rescaled: what to say of a rescaled layer.
        tell: called with the fraction that is done.

    Raises:
        BadInput: the fixed point is not known; several lanes.
    """
    require(model.lanes == 1, "model", f"{model.lanes} lanes", "one lane; see --sweep")
    start = start or Start()
    at = start.threshold
    asked: dict[str, Callable[[], dict[str, Any]]] = {
        "fixed_point": lambda: point(theory.fixed_point(model)),
        "rates": lambda: _rates(model),
        "boundaries.fold": lambda: _record(theory.fold(model, first=True)),
        "boundaries.maxwell": lambda: _record(theory.maxwell(model)),
        "boundaries.floor": lambda: _record(theory.floor(model)),
        "boundaries.floor_boundary": lambda: _floor_boundary(model, at),
        "boundaries.minority_threshold": lambda: _record(theory.minority_threshold(_free(model))),
        "boundaries.mean_mode_threshold": lambda: _mean_mode(model),
        "regime": lambda: _regime(theory.regime(model, at)),
        "time_to_collapse": lambda: _time(model, start),
        "lead_time": lambda: _lead(model, start),
    }
    if spectrum:
        asked["spectrum"] = lambda: _spectrum(model)
    if rescaled is not None:
        asked["rescaled"] = lambda: _rescaled(model, start, rescaled)
    found: dict[str, Any] = {}
    for i, (name, ask) in enumerate(asked.items()):
        group, _, key = name.partition(".")
        if key:
            found.setdefault(group, {})[key] = known(ask)
        else:
            found[name] = ask() if name == "fixed_point" else known(ask)
        tell((i + 1) / len(asked))
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
        raise BadInput("model", "deep_linear", "only free features have it")
    return model


def _floor_boundary(model: UFM | DeepLinear, threshold: float) -> dict[str, Any]:
    if isinstance(model, UFM):
        raise BadInput("model", "ufm", "only features tied to data have a floor")
    return _record(theory.floor_boundary(model, threshold))


def _mean_mode(model: UFM | DeepLinear) -> dict[str, Any]:
    require(model.bias == "decayed", "bias", model.bias, "only a decayed bias competes with the mean mode")
    return _record(theory.mean_mode_threshold(_free(model)))


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


def _rates(model: UFM | DeepLinear) -> dict[str, Any]:
    try:
        rates = theory.rates(model)
    except BadInput as e:
        if not isinstance(model, UFM) or model.loss == "mse" or not linear_model(model):
            raise
        found = cross_entropy.within_class(model)
        return {"nc1_first": {"value": found.nc1_rate, "law": found.law, "status": "asymptotic",
                              "assumptions": ["NC1 of H_1, t -> infinity, from the within-class eigenvalues, which are exact."],
                              "source": found.source},
                "others": {"not_known": str(e)}}
    out = {f.name: {**_record(getattr(rates, f.name))} for f in fields(rates)}
    found = theory.spectrum(model)
    words = {"law": "symmetric", "status": found.status, "source": found.source}
    out["slowest"] = {"value": plain(found.slowest), **words,
                      "assumptions": ["Smallest nonzero eigenvalue of the Hessian; mobility 1."]}
    out["stiffest"] = {"value": plain(found.stiffest), **words,
                       "assumptions": ["Largest eigenvalue; an explicit step longer than 2/stiffest is unstable."]}
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


#: Multiples of 1/(2 lambda), the time in which a rescaling is forgotten, at which fn is reported.
AFTER = (0.25, 1.0, 2.0, 4.0)


def _rescaled(model: UFM | DeepLinear, start: Start, what: Rescaled) -> dict[str, Any]:
    """fn after a layer was multiplied by alpha: at once, at `AFTER`, and when it is back within the tolerance."""
    first = theory.intervention_response(model, what.alphas, [0.0], layer=what.layer)
    grid = np.concatenate([np.array(AFTER), np.geomspace(1e-3, 40, 4000)]) / first.rate
    found = theory.intervention_response(model, what.alphas, grid, layer=what.layer)
    later = grid[len(AFTER):]
    rows = []
    for i, alpha in enumerate(what.alphas):
        fn = np.asarray(found.feature_norm)[i]
        outside = np.flatnonzero(~(np.abs(fn[len(AFTER):] / found.fn_inf - 1) <= start.tolerance))
        here = abs(float(np.asarray(found.start)[i]) / found.fn_inf - 1) <= start.tolerance
        after = later[outside[-1] + 1] if len(outside) and outside[-1] + 1 < len(later) else np.inf if len(outside) else 0.0
        back = 0.0 if here and not len(outside) else max(float(after), found.settled)
        rows.append({"alpha": float(alpha), "start": float(np.asarray(found.start)[i]), "feature_norm": fn[:len(AFTER)].tolist(),
                     "back": float(back)})
    return {"rows": rows, "times": grid[:len(AFTER)].tolist(), "fn_inf": found.fn_inf, "rate": found.rate,
            "settled": found.settled, "layer": what.layer, "tolerance": start.tolerance, "law": found.law,
            "status": found.status, "assumptions": list(found.assumptions), "source": found.source}


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
          "lead_time": "Which settles first", "rescaled": "After a rescaled layer", "spectrum": "Hessian at the fixed point"}


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


#: Symbols of the formulas.
SYMBOLS = r"""$K$ classes of $n$ samples, $N = Kn$; $c$ loss scale; $D$ decayed factors, $\lambda_0 = \lambda_H$ of
free features first; $x$ signal; $s$, $b$, $g$ singular value of the targets, overlap and Gram of a mode; $\gamma$,
$\Gamma = \gamma^D$ tension; $\theta$ mobility of the features, in a fixed point the share of the mean that the bias
takes; $\mu$ eigenvalue, $\rho$ rate of decay; $S$ total within-class scatter at $t = 0$."""


def formula(section: str, law: str) -> str:
    """LaTeX of a law of `theory` that a section of the report quotes."""
    from theory import derivations, derivations_dynamics

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
