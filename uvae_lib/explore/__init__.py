"""Explorers: sliders over cubes, slices, latents and reconstructions; a quiz, and a reader of cubes."""

from .explorers import CubeExplorer, ReconstructionExplorer, SliceExplorer
from .latents import LatentExplorer
from .reading import CubeReader, Quiz

__all__ = ["CubeExplorer", "CubeReader", "LatentExplorer", "Quiz", "ReconstructionExplorer", "SliceExplorer"]
