"""The paper's experiments, one module each; `experiment` says what they declare, `evidence` what they get to judge."""

from experiments.paper.experiment import MODULES, PRESETS, Condition, Experiment, Judgement, Statement, Verdict, chosen, find

__all__ = ["MODULES", "PRESETS", "Condition", "Experiment", "Judgement", "Statement", "Verdict", "chosen", "find"]
