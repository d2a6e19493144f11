"""Cubes of any suite: open, check, split."""

from .suite import CubesError, CubeSuite, fit_image_size, open_cubes, open_data, split_cubes

__all__ = ["CubeSuite", "CubesError", "fit_image_size", "open_cubes", "open_data", "split_cubes"]
