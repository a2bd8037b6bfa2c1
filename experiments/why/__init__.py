"""Why: the paper's hypotheses (section 6.3) as experiments, each with a simulation beside the networks.

Their statements are none of the paper's claims and are judged apart from them. `settings` says what is trained, `rest` what is
read off it.
"""
