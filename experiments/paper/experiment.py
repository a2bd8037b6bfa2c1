"""What an experiment declares, and where to find one.

An experiment is a question with conditions that answer it. A condition is one setting with several seeds; conditions of one
`group` (a data set at a size) are compared with each other. Training and simulation are the runner's business
(`experiments.sweeps`); what came of them reaches the experiment as `Evidence`, whether it is ours or the authors' own logs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from enum import Enum
from importlib import import_module
from typing import TYPE_CHECKING, Any

from experiments.sweeps.study import Study
from ncflow.errors import BadInput, require
from realnets import Lane, TwoPhase

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from experiments.paper.evidence import Evidence

#: name -> module with `EXPERIMENT`. Imported when the experiment is asked for. The paper's own:
PAPER = {
    "baseline": "experiments.paper.baseline",
    "depth": "experiments.paper.depth",
    "activation": "experiments.paper.activation",
    "weight_decay": "experiments.paper.weight_decay",
    "width": "experiments.paper.width",
    "grid": "experiments.paper.grid",
    "threshold_robustness": "experiments.paper.threshold_robustness",
    "lead_time": "experiments.paper.lead_time",
    "ce_only": "experiments.paper.ce_only",
    "intervention": "experiments.paper.intervention",
    "grokking_parallel": "experiments.paper.grokking_parallel",
}
#: Why the paper's findings are as they are: its hypotheses of section 6.3, and what can be said beforehand.
WHY = {
    "h_m1": "experiments.why.h_m1",
    "h_m2": "experiments.why.h_m2",
    "h_m3": "experiments.why.h_m3",
    "h_m4": "experiments.why.h_m4",
    "prediction": "experiments.why.prediction",
}
MODULES = PAPER | WHY
#: Names for several.
GROUPS = {"all": tuple(PAPER), "why": tuple(WHY)}
#: preset -> what it is, from the smallest.
PRESETS = {
    "smoke": "seconds, to see that everything works; says nothing about the claims",
    "laptop": "perceptrons on 10,000 MNIST images and on digits",
    "laptop-resnet": "ResNet-20 on small images and small subsets",
    "paper": "the stated protocol in full",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Condition:
    """One row of an experiment.

    Attributes:
        label: as tables show it, "depth 3".
        setting: a protocol with one decay, learning rate and alpha, and any number of seeds; or a study.
        group: what it is compared within, "MNIST, 10,000 images".
        parameters: what varies over the conditions of a group, by name.
        threshold: NC1 below which the paper counts this condition as collapsed.
    """

    label: str
    setting: TwoPhase | Study
    group: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    threshold: float = 0.01

    def __post_init__(self) -> None:
        s = self.setting
        if isinstance(s, TwoPhase):
            one = (len(s.decays), len(s.lrs), len(s.alphas)) == (1, 1, 1)
            require(one, "setting", (s.decays, s.lrs, s.alphas), "one decay, one learning rate, one alpha per condition")

    @property
    def lanes(self) -> tuple[Lane, ...]:
        """One per seed; none of a study."""
        return self.setting.lanes if isinstance(self.setting, TwoPhase) else ()


class Judgement(Enum):
    """What the evidence says of a claim."""

    REPLICATES = "replicates"
    IN_PART = "replicates in part"
    CONTRADICTED = "contradicted"
    UNTESTABLE = "untestable here"


@dataclass(frozen=True)
class Verdict:
    """What one body of evidence says of one claim.

    Attributes:
        claim: its id in the published numbers, or that of a statement.
        found: the number or numbers that decide, as a phrase.
        reason: why this judgement follows.
        theory: what theory expects, where it says something.
    """

    claim: str
    judgement: Judgement
    found: str
    reason: str
    theory: str = ""


@dataclass(frozen=True)
class Statement:
    """What an experiment decides that is no claim of the paper: a hypothesis, or what theory says.

    Attributes:
        id: "h_m1.knob", the experiment first.
        wording: in our words.
        source: "theory", or where the paper raises it; `section` of it.
    """

    id: str
    wording: str
    source: str = "hypothesis"
    section: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class Experiment:
    """A question, of the paper or about it, and how it is asked here.

    Attributes:
        name, title: for the command line and for the report.
        question: one sentence.
        measures: what is measured, and how it is compared.
        claims: ids in the published numbers that it bears on; `statements` what else it decides.
        conditions: preset -> conditions, none where the preset does not ask this.
        table: number of the paper's table whose rows stand beside ours.
        logs: a condition -> names of the authors' per-epoch logs of it, one per seed that they have.
        judge: evidence -> a verdict for each claim that it can speak of.
        count: verdicts that need no runs, by counting.
        figure: evidence, and that of the authors' logs if there is any -> the picture.
    """

    name: str
    title: str
    question: str
    measures: str
    claims: tuple[str, ...] = ()
    conditions: Callable[[str], tuple[Condition, ...]]
    judge: Callable[[Evidence], list[Verdict]]
    figure: Callable[[Evidence, Evidence | None], Figure]
    count: Callable[[], list[Verdict]] = list
    statements: tuple[Statement, ...] = ()
    table: int | None = None
    logs: Callable[[Condition], tuple[str, ...]] = lambda condition: ()


def find(name: str) -> Experiment:
    """The experiment called `name`.

    Raises:
        BadInput: there is none; names the nearest.
    """
    if name not in MODULES:
        near = get_close_matches(name, MODULES, 1, 0.5)
        hint = f"did you mean {near[0]}? " if near else ""
        raise BadInput("experiment", name, f"{hint}One of {', '.join(MODULES)}, or {' or '.join(GROUPS)}, is accepted")
    return import_module(MODULES[name]).EXPERIMENT


def chosen(names: tuple[str, ...] | list[str]) -> tuple[Experiment, ...]:
    """The experiments of `names`, each once; "all" is every one of the paper, "why" every one about its hypotheses.

    Raises:
        BadInput: an unknown name.
    """
    every = [n for name in names for n in GROUPS.get(name, (name,))]
    return tuple(find(name) for name in dict.fromkeys(every))


def check_preset(name: str) -> str:
    """`name`, if it is a preset.

    Raises:
        BadInput: it is not; names the nearest.
    """
    if name not in PRESETS:
        near = get_close_matches(name, PRESETS, 1, 0.5)
        raise BadInput("preset", name, (f"did you mean {near[0]}? " if near else "") + f"One of {', '.join(PRESETS)} is accepted")
    return name
