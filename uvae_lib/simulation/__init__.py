"""Suites of cubes by the project's own N-body code."""

from .suite import load_suite, recorded_settings, simulate_suite

__all__ = ["load_suite", "recorded_settings", "simulate_suite"]
