"""Flows that complete what the model's Gaussians draw, and their training."""

from .flows import Flows, load_flows

__all__ = ["Flows", "load_flows"]
