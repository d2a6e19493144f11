"""What a run is worth: evaluation on held-out cubes."""

from .evaluate import analyse_run, evaluate_run, further_set, merits, summary

__all__ = ["analyse_run", "evaluate_run", "further_set", "merits", "summary"]
