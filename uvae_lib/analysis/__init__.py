"""Evaluation on held-out cubes."""

from .evaluate import evaluate_run, summary

__all__ = ["evaluate_run", "summary"]
