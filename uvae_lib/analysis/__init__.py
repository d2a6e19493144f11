# ruff: noqa: F401
"""Evaluation on held-out cubes."""

from .controls import familiarity
from .evaluate import SAMPLES, evaluate_run, merits, other_slices, summary, untrained_probes, verdicts
from .features import encode_cubes, suite_features
from .metrics import bootstrap, main_directions, r2, slope
from .posterior import coverage_gaps, cube_reader, load_posterior, posterior_draws, run_posterior

__all__ = [name for name in dir() if not name.startswith("_")]
