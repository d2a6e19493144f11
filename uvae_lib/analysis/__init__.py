# ruff: noqa: F401
"""Evaluation on held-out cubes."""

from .controls import familiarity
from .evaluate import SAMPLES, evaluate_run, merits, other_slices, summary
from .features import encode_cubes, suite_features
from .metrics import bootstrap_r2, main_directions
from .posterior import load_posterior, run_posterior
from .reader import cube_reader, posterior_draws, share_inside
from .samples import smoothed

__all__ = [name for name in dir() if not name.startswith("_")]
