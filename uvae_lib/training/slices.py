"""Standardised slices of a suite's cubes: sets of them for training, and the constants of a run.

A suite goes in (`cubes.CubeSuite`), pixels p = (x - mean) / std come out. Every draw is a function of (seed, step)
alone, so that a run can be resumed and repeated.
"""

import math
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import KW_ONLY, dataclass

import numpy as np
import psutil
import torch
from torch import Generator, Tensor

from ..cropping import EPS, Cuts, cut_slices, log_density, spread_planes, whole_planes
from ..cubes.suite import CubeSuite
from ..model import LATENT_DIM
from ..presets import Config

SURVEYED = 64  # cubes that are read before the first step


def standardisation(suite: CubeSuite, indices: list[int], eps: float = EPS) -> tuple[float, float]:
    """Mean and standard deviation of x over training cubes: the two constants of a run. As `survey`."""
    return survey(suite, indices, 0, 0, eps=eps)[:2]


def survey(
    suite: CubeSuite, indices: list[int], n_slices: int, size: int, thickness: int = 1, eps: float = EPS
) -> tuple[float, float, Tensor]:
    """What a run takes from its training cubes before the first step, in one reading of at most 64 of them.

    indices    training cubes; when there are more, that many of them, evenly spread
    n_slices   of each, spread over the cube, or as many as differ; 0 for none
    size       of the slices [pixels];  thickness [voxels]
    Returns mean and standard deviation of x over their voxels, and the slices, (n, n_slices, 1, size, size),
    standardised.
    """
    chosen = [indices[i] for i in np.linspace(0, len(indices) - 1, min(len(indices), SURVEYED)).round().astype(int)]
    moments, slices = np.zeros(2), []
    for index in chosen:
        x = log_density(suite.overdensity(index), eps)
        moments += x.mean(dtype=np.float64), np.square(x).mean(dtype=np.float64)
        if n_slices:
            slices.append(slices_of(torch.from_numpy(x), n_slices, size, suite.axes, thickness))
    mean, square = moments / len(chosen)
    std = math.sqrt(square - mean**2)
    return float(mean), std, (torch.stack(slices) - mean) / std if slices else torch.empty(0)


def slices_of(x: Tensor, n: int, size: int, axes: tuple[int, ...], thickness: int) -> Tensor:
    """Slices spread evenly over a cube x (P, N, N): (n, 1, size, size), or as many as differ."""
    n = min(n, len(axes) * (len(x) // thickness))
    return cut_slices(x[None], whole_planes(*spread_planes(n, len(x), axes, thickness)), size, thickness)


def pool_size(suite: CubeSuite, n_cubes: int, config: Config, device: torch.device) -> int:
    """Cubes of n_cubes that are held at a time: data.pool_size, or as many as 40 % of the free memory holds.

    device   of the training; without a GPU its processes share one memory
    Raises ValueError when not one cube fits.
    """
    if config.data.pool_size:
        return min(n_cubes, config.data.pool_size)
    on_gpu = device.type == "cuda"
    free = torch.cuda.mem_get_info(device)[0] if on_gpu else psutil.virtual_memory().available
    budget = free * 2 // 5 // (1 if on_gpu else config.training.devices)
    each = suite.n_planes * suite.side**2 * getattr(torch, config.data.storage).itemsize
    if each > budget:
        raise ValueError(
            f"one cube takes {each / 2**20:.0f} MiB, the memory for cubes is {budget / 2**20:.0f} MiB; "
            "set data.storage to float16, or give smaller cubes"
        )
    return min(n_cubes, budget // each)


@dataclass(eq=False)
class CubePool:
    """Log densities of the cubes in use, as one tensor on the training device.

    When all cubes fit they are loaded once. Otherwise `size` of them are held, and every `refresh` steps one is
    exchanged for the next of a shuffled order, read ahead by a thread: the file is read a whole cube at a time (a
    single plane of the last axis would touch every page of a cube), memory stays bounded, and which cubes are held is
    a function of (seed, step).

    indices   which cubes of the suite
    dtype     of storage (float16 halves the memory: |error in x| < 0.005)
    size      number of cubes held; None all
    """

    suite: CubeSuite
    indices: Sequence[int]
    eps: float = EPS
    device: torch.device | str = "cpu"
    dtype: torch.dtype = torch.float32
    size: int | None = None
    refresh: int = 8
    seed: int = 0

    def __post_init__(self):
        n, suite = len(self.indices), self.suite
        self.size = min(n, self.size or n)
        shape = self.size, suite.n_planes, suite.side, suite.side
        self.volumes = torch.empty(shape, dtype=self.dtype, device=self.device)
        self._held = [None] * self.size
        self._order = np.random.default_rng(self.seed).permutation(n) if self.size < n else np.arange(n)
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="cubes")
        self._ahead: dict[int, Future] = {}

    def at(self, step: int) -> tuple[Tensor, list[int]]:
        """The cubes of a step: volumes (size, P, N, N) and the suite's index of each."""
        n = len(self.indices)
        first = 0 if self.size == n else step // self.refresh
        for position in range(first, first + self.size):
            slot, cube = position % self.size, self._cube(position)
            if self._held[slot] != cube:
                ahead = self._ahead.pop(position, None)
                self.volumes[slot].copy_(ahead.result() if ahead else self._read(cube))
                self._held[slot] = cube
        if self.size < n and first + self.size not in self._ahead:
            self._ahead = {first + self.size: self._reader.submit(self._read, self._cube(first + self.size))}
        return self.volumes, list(self._held)

    def _cube(self, position: int) -> int:
        """The order in which cubes come: a shuffled one, over and over, so that those held always differ."""
        return self.indices[self._order[position % len(self.indices)]]

    def _read(self, cube: int) -> Tensor:
        x = log_density(torch.from_numpy(self.suite.overdensity(cube)), self.eps)
        return x.to(self.volumes.dtype)


@dataclass(eq=False)
class SliceSets:
    """Sets of standardised slices, each set from one cube, cut on the device that holds the cubes.

    mean, std         of x, the two constants of the run
    image_size        side of a slice [pixels], at most the cube's side
    set_size          slices a set, all from different planes (slabs when thickness > 1)
    sets_per_step     sets a step, from different cubes as long as there are enough
    thickness         [voxels]
    augment           random quarter turns and mirror flips
    seed              every draw is a function of (seed, step)
    rank, world_size  this process cuts its part of the sets of a step (distributed training)
    Raises ValueError when a set asks for more planes than a cube has; `sets` when a slice does not fit the cube.
    """

    pool: CubePool
    mean: float
    std: float
    _: KW_ONLY
    image_size: int
    set_size: int
    sets_per_step: int
    thickness: int = 1
    augment: bool = True
    seed: int = 0
    rank: int = 0
    world_size: int = 1

    def __post_init__(self):
        suite, thickness = self.pool.suite, self.thickness
        self.n_slabs = suite.n_planes // thickness
        if self.set_size > len(suite.axes) * self.n_slabs:
            raise ValueError(
                f"a set of {self.set_size} slices was asked for; a cube of {suite.n_planes} planes has "
                f"{len(suite.axes) * self.n_slabs} that differ at thickness {thickness}"
            )
        if (n := self.sets_per_step) % self.world_size:
            raise ValueError(f"{n} sets a step cannot be shared by {self.world_size} processes; use a multiple")

    def cuts(self, step: int) -> Cuts:
        """Where the slices of a step are cut: integer tensors (sets_per_step, set_size) on the CPU."""
        suite, shape = self.pool.suite, (self.sets_per_step, self.set_size)
        rng = np.random.default_rng([self.seed, step])
        turns = -(-self.sets_per_step // self.pool.size)
        cube = np.concatenate([rng.permutation(self.pool.size) for _ in range(turns)])[: self.sets_per_step]
        # without replacement: a random order of all planes of all axes, of which the first set_size are taken
        order = rng.random((self.sets_per_step, len(suite.axes) * self.n_slabs)).argsort(axis=1)
        axis, slab = np.divmod(order[:, : self.set_size], self.n_slabs)
        offset = rng.integers(0, suite.n_planes, (self.sets_per_step, 1))  # slabs of a set stay disjoint
        plane = (slab * self.thickness + offset) % suite.n_planes
        row, col = (rng.integers(0, suite.side, shape) for _ in range(2))
        symmetry = rng.integers(0, 2, (3, *shape)) * int(self.augment)
        values = np.repeat(cube[:, None], self.set_size, axis=1), np.asarray(suite.axes)[axis], plane, row, col
        return Cuts(*map(torch.from_numpy, (*values, *symmetry)))

    def contexts(self, step: int) -> Tensor:
        """Which of its set each slice of a step is given, (sets of this process, set_size, set_size) of 0 and 1.

        As many as a random number from 1 to all others says, never itself: z learns what more slices mean.
        """
        rng, shape = np.random.default_rng([self.seed, step, 2]), (self.sets_per_step, self.set_size)
        order = rng.random((*shape, self.set_size))
        order[:, range(self.set_size), range(self.set_size)] = 2  # itself comes last
        chosen = order.argsort(axis=-1).argsort(axis=-1) < rng.integers(1, self.set_size, (*shape, 1))
        return torch.from_numpy(chosen[self.rank :: self.world_size]).float().to(self.pool.device)

    def sets(self, step: int) -> Tensor:
        """The sets of a step: (sets of this process, set_size, 1, image_size, image_size), standardised."""
        volumes, _ = self.pool.at(step)
        x = cut_slices(volumes, self.cuts(step)[self.rank :: self.world_size], self.image_size, self.thickness)
        return (x - self.mean) / self.std

    def noise(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """This process's share of the standard normal numbers of z, h and h_post of a step: three of (targets, 512).

        They belong to the step and the global batch, however many processes share it.
        """
        generator = Generator().manual_seed(noise_seed(self.seed, step))
        drawn = torch.randn(3, self.sets_per_step, self.set_size, LATENT_DIM, generator=generator)
        return drawn[:, self.rank :: self.world_size].flatten(1, 2).to(self.pool.device, non_blocking=True).unbind()


def noise_seed(seed: int, step: int) -> int:
    """One seed for the noise of a step."""
    return int(np.random.SeedSequence([seed, step, 1]).generate_state(1, np.uint64)[0] >> 1)


def leave_one_out(n_sets: int, set_size: int, device: torch.device | str = "cpu") -> Tensor:
    """Context of `UniverseVAE.forward_sets` in which each slice is given all others: (n_sets, set_size, set_size)."""
    return (1 - torch.eye(set_size, device=device)).expand(n_sets, -1, -1)
