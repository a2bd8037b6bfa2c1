"""Experiments: theory, simulation and real networks laid side by side, and the command line."""
