"""Slices: ours, cut by index arithmetic from cubes on the device, against loaders that one writes with numpy."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from uvae_lib.cubes.suite import CubeSuite, open_cubes


def roll_and_cut_cube(cubes: np.ndarray, size: int, n_sets: int, n: int) -> Callable[[int], Tensor]:
    """The plain loader: roll a cube to a random corner, cut its first plane, take the logarithm.

    cubes   (C, N, N, N) overdensities in memory
    """

    def load(step: int) -> Tensor:
        rng = np.random.default_rng(step)
        sets = []
        for _ in range(n_sets):
            cube = cubes[rng.integers(len(cubes))]
            for _ in range(n):
                turned = np.moveaxis(cube, rng.integers(3), 0)
                rolled = np.roll(turned, rng.integers(0, cube.shape[0], 3), axis=(0, 1, 2))
                sets.append(finished(rolled[0, :size, :size], rng))
        return torch.from_numpy(np.stack(sets)).view(n_sets, n, 1, size, size)

    return load


def roll_and_cut_plane(cubes: np.ndarray, size: int, n_sets: int, n: int) -> Callable[[int], Tensor]:
    """The same with an eye to speed: take the plane first, and roll only that."""

    def load(step: int) -> Tensor:
        rng = np.random.default_rng(step)
        sets = []
        for _ in range(n_sets):
            cube = cubes[rng.integers(len(cubes))]
            for _ in range(n):
                plane = np.take(cube, rng.integers(cube.shape[0]), axis=rng.integers(3))
                rolled = np.roll(plane, rng.integers(0, cube.shape[0], 2), axis=(0, 1))
                sets.append(finished(rolled[:size, :size], rng))
        return torch.from_numpy(np.stack(sets)).view(n_sets, n, 1, size, size)

    return load


def finished(y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Logarithm, a random symmetry of the square, standardised pixels."""
    x = np.rot90(np.log(y + np.float32(1e-8)), rng.integers(4))
    if rng.integers(2):
        x = x.T
    return ((x - 0.0) / 1.0).astype(np.float32)


def sparse_suite(folder: Path, n_cubes: int, side: int) -> CubeSuite:
    """Cubes in a sparse file, memory-mapped: one random plane each, the rest are zeros that take no room on disk."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"Grids_Mcdm_IllustrisTNG_LH_{side}_z=0.0.npy"
    cubes = np.lib.format.open_memmap(path, "w+", np.float32, (n_cubes, side, side, side))
    plane = np.random.default_rng(0).lognormal(size=(side, side)).astype(np.float32)
    cubes[:, 0] = plane
    cubes.flush()
    return open_cubes(path, check=False, params="none")
