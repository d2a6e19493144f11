"""Explorers: sliders that turn a cube, a latent or a reconstruction, for JupyterLab and voila.

    CubeExplorer(suite)                  a cube that is turned, and cut open at a plane
    SliceExplorer(suite)                 any periodic slice of any cube
    LatentExplorer(run, suite)           z and h moved by hand, and cosmology where the cubes have labels
    ReconstructionExplorer(run, suite)   what the model makes of the slices of a cube

A moved slider puts a new picture into the same `ipywidgets.Image` at once, its P(k) and pixel distribution into a
second one right after. A static image is shown where no kernel runs.
"""

from .cubes import CubeExplorer, SliceExplorer
from .latents import LatentExplorer
from .reconstructions import ReconstructionExplorer

__all__ = ["CubeExplorer", "LatentExplorer", "ReconstructionExplorer", "SliceExplorer"]
