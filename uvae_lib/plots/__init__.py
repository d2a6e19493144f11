"""Figures: functions of arrays that return a matplotlib Figure."""

from . import paper  # noqa: F401
from .curves import *  # noqa: F403
from .diagram import model_diagram  # noqa: F401
from .slices import *  # noqa: F403
from .style import *  # noqa: F403

__all__ = [name for name in dir() if not name.startswith("_")]
