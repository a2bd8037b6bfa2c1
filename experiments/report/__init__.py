"""One page and a few tables of everything that is known: the paper, the authors' logs, theory, simulation, and our networks."""

from experiments.report.collect import Report, collect
from experiments.report.page import page
from experiments.report.sheets import sheets

__all__ = ["Report", "collect", "page", "sheets"]
