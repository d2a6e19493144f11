"""Figures: functions of arrays that return a matplotlib Figure."""

from . import paper  # noqa: F401
from .curves import *  # noqa: F403

__all__ = [name for name in dir() if not name.startswith("_")]
