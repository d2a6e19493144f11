"""Suites of cubes by the project's own N-body code."""

from .suite import load_suite, simulate_suite

__all__ = ["load_suite", "simulate_suite"]
