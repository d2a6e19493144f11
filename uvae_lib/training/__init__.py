"""Training of a run: slices, the taught start, steps, checkpoints."""

from .fit import LitUniverseVAE, fit

__all__ = ["LitUniverseVAE", "fit"]
