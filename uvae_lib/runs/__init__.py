"""Trained runs: load, encode, decode, traverse."""

from .run import Run, load_run

__all__ = ["Run", "load_run"]
