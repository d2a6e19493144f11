"""Flows that complete what the model's Gaussians draw, and their training."""

from .flows import Flows, flows_of

__all__ = ["Flows", "flows_of"]
