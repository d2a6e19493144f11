# ruff: noqa: F401
"""Evaluation on held-out cubes."""

from .controls import familiarity
from .evaluate import SAMPLES, evaluate_run, merits, other_slices, summary
from .features import encode_cubes, suite_features
from .metrics import bootstrap_r2, main_directions
from .posterior import cube_reader, load_posterior, posterior_draws, run_posterior, share_inside

__all__ = [name for name in dir() if not name.startswith("_")]
