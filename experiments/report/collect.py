"""From runs and logs to what the report says: evidence and verdicts of each experiment, and one verdict for each claim."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from experiments.paper.evidence import LOGS, Evidence, gather
from experiments.paper.experiment import PRESETS, Experiment, Judgement, Statement, Verdict
from experiments.paper.published_logs import gather_logs
from experiments.published import Claim, published
from experiments.published.logs import Logs
from experiments.sweeps import Catalogue

#: What may speak, the strongest first.
ORDER = ("paper", LOGS, "laptop", "laptop-resnet", "smoke")
BODIES = {
    "paper": "full protocol",
    LOGS: "published logs",
    "laptop": "laptop",
    "laptop-resnet": "laptop, ResNet",
    "smoke": "smoke",
}
COUNTED = "counted"
#: How else collapse could be defined: name -> change of the evidence, for how much a verdict depends on it.
VARIANTS: dict[str, Callable[[Evidence], Evidence | None]] = {
    "one threshold of 0.01": lambda e: e.by(threshold=0.01),
    "one threshold of 0.05": lambda e: e.by(threshold=0.05),
    "NC1 by pseudo-inverse over K": lambda e: e.by(nc1="nc1_pinv_over_k"),
    "NC1 by pairwise CDNV": lambda e: e.by(nc1="cdnv"),
}


@dataclass(frozen=True, eq=False)
class Part:
    """What one body of evidence says in one experiment; `otherwise` are the judgements that differ under `VARIANTS`, by claim."""

    evidence: Evidence
    verdicts: tuple[Verdict, ...]
    otherwise: dict[str, dict[str, Judgement]] = field(default_factory=dict)

    @property
    def body(self) -> str:
        """As the report calls it."""
        return f"{BODIES[self.evidence.preset]}: {self.evidence.group}"


@dataclass(frozen=True, eq=False)
class Section:
    """One experiment: its parts with any runs, the strongest first, what needs none, and the presets that have none."""

    experiment: Experiment
    parts: tuple[Part, ...]
    counted: tuple[Verdict, ...]
    absent: tuple[str, ...]

    @property
    def logs(self) -> Evidence | None:
        """The authors' logs of it."""
        return next((p.evidence for p in self.parts if p.evidence.preset == LOGS), None)


@dataclass(frozen=True)
class Opinion:
    """A verdict, the experiment that it comes from, and its body of evidence: a preset, `LOGS` or `COUNTED`, with the group."""

    experiment: str
    preset: str
    body: str
    verdict: Verdict

    @property
    def own(self) -> bool:
        """Whether it was trained or counted here."""
        return self.preset != LOGS


@dataclass(frozen=True, eq=False)
class Ruling:
    """One claim or statement, every opinion on it, and the judgement that these add up to; `lead` is the opinion that decides."""

    claim: Claim | Statement
    opinions: tuple[Opinion, ...]
    overall: Judgement
    reason: str
    lead: Opinion | None


@dataclass(frozen=True, eq=False)
class Report:
    """Everything on the page: `rulings` on the paper's claims, `answers` to the statements that are not its claims."""

    sections: tuple[Section, ...]
    rulings: tuple[Ruling, ...]
    answers: tuple[Ruling, ...]
    notes: tuple[str, ...]
    logs: bool

    def count(self, judgement: Judgement) -> int:
        return sum(r.overall is judgement for r in self.rulings)

    @property
    def empty(self) -> bool:
        return not any(p.evidence.preset != LOGS for s in self.sections for p in s.parts)


def collect(experiments: Sequence[Experiment], held: Catalogue, logs: Logs | None,
            progress: Callable[[float], None] = lambda share: None) -> Report:  # fmt: skip
    """Judge what `held` and `logs` have for `experiments`; `progress` is called with the fraction done."""
    sections = []
    for i, experiment in enumerate(experiments):
        progress(i / len(experiments))
        sections.append(_section(experiment, held, logs))
    claims = dict.fromkeys(c for e in experiments for c in e.claims)
    order = [c.id for c in (*published().claims, *published().later)]
    rulings = tuple(_ruling(published().claim(c), sections) for c in sorted(claims, key=order.index))
    answers = tuple(_ruling(s, sections) for e in experiments for s in e.statements)
    return Report(tuple(sections), rulings, answers, held.notes, logs is not None)


def _section(experiment: Experiment, held: Catalogue, logs: Logs | None) -> Section:
    found: list[Evidence] = []
    absent = []
    for preset in PRESETS:
        bodies = [e for e in gather(experiment, preset, held) if not e.empty]
        found += bodies
        if not bodies and preset != "smoke" and experiment.conditions(preset):
            absent.append(preset)
    found += gather_logs(experiment, logs)
    found.sort(key=lambda e: ORDER.index(e.preset))
    return Section(experiment, tuple(_part(experiment, e) for e in found), tuple(experiment.count()), tuple(absent))


def _part(experiment: Experiment, evidence: Evidence) -> Part:
    verdicts = _verdicts(experiment, evidence)
    otherwise: dict[str, dict[str, Judgement]] = {}
    if evidence.preset != "smoke":
        for name, change in VARIANTS.items():
            if (changed := change(evidence)) is None:
                continue
            other = {v.claim: v.judgement for v in experiment.judge(changed)}
            for v in verdicts:
                if (now := other.get(v.claim, v.judgement)) is not v.judgement:
                    otherwise.setdefault(v.claim, {})[name] = now
    return Part(evidence, tuple(verdicts), otherwise)


def _verdicts(experiment: Experiment, evidence: Evidence) -> list[Verdict]:
    """What the experiment says; the smoke preset tests nothing, and runs that are missing are said."""
    verdicts = experiment.judge(evidence)
    if evidence.preset == "smoke":
        why = "the smoke preset says nothing about the claims"
        return [replace(v, judgement=Judgement.UNTESTABLE, reason=why) for v in verdicts]
    if evidence.complete or evidence.preset == LOGS:
        return verdicts
    gaps = sum(len(r.gaps) for r in (*evidence.rows, *evidence.studies))
    return [replace(v, reason=f"{v.reason} ({gaps} run{'s' * (gaps > 1)} missing)") for v in verdicts]


def _ruling(claim: Claim | Statement, sections: Sequence[Section]) -> Ruling:
    """One verdict from every opinion that can test the claim.

    The authors' logs are the runs that the paper was written from: they can contradict it or limit it, but that they agree with
    it replicates nothing.
    """
    every = [Opinion(s.experiment.name, p.evidence.preset, p.body, v) for s in sections for p in s.parts for v in p.verdicts]
    every += [Opinion(s.experiment.name, COUNTED, COUNTED, v) for s in sections for v in s.counted]
    rank = (COUNTED, *ORDER)
    mine = tuple(sorted((o for o in every if o.verdict.claim == claim.id), key=lambda o: rank.index(o.preset)))
    testable = [o for o in mine if o.verdict.judgement is not Judgement.UNTESTABLE]
    own = [o for o in testable if o.own]
    if not testable:
        why = mine[0].verdict.reason if mine else "no runs"
        return Ruling(claim, mine, Judgement.UNTESTABLE, why, mine[0] if mine else None)
    lead = own[0] if own else testable[0]
    kinds = {o.verdict.judgement for o in testable}
    if not own and kinds == {Judgement.REPLICATES}:
        return Ruling(claim, mine, Judgement.UNTESTABLE, "the authors' logs bear it out; no network trained here tests it", lead)
    if len(kinds) == 1:
        return Ruling(claim, mine, kinds.pop(), lead.verdict.reason + ("" if own else "; from the authors' logs alone"), lead)
    words = "; ".join(f"{o.verdict.judgement.value} – {o.body}" for o in testable)
    return Ruling(claim, mine, Judgement.IN_PART, f"the evidence does not agree: {words}", lead)
