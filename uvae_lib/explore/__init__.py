"""Explorers: sliders over cubes, slices, latents and reconstructions."""

from .explorers import CubeExplorer, LatentExplorer, ReconstructionExplorer, SliceExplorer

__all__ = ["CubeExplorer", "LatentExplorer", "ReconstructionExplorer", "SliceExplorer"]
