"""Many runs: what is needed, what is there already, what is left to do, and who does it.

`plan` unites the conditions of experiments into jobs and leaves out what a `Catalogue` of finished runs holds; `sweep` does the
jobs in processes of this machine or on a Ray cluster. Each run has a folder of its own, named by a hash of configuration and
data, in which it is resumed by whoever finds it.
"""

from experiments.sweeps.catalogue import Catalogue, Held
from experiments.sweeps.plan import Job, Plan, plan
from experiments.sweeps.study import Study
from experiments.sweeps.work import folder_of, work

__all__ = ["Catalogue", "Held", "Job", "Plan", "Study", "folder_of", "plan", "work"]
