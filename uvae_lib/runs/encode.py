"""What a trained model says of slices: encode cubes and slices, decode, reconstruct.

Slices are standardised pixels (`Run.to_pixels`), (S, 1, H, H) from one cube; z and h are tensors of 512 numbers.
Random numbers come from a torch.Generator that is given.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor

from ..cropping import cut_slices, log_density, spread_planes, whole_planes
from ..cubes.suite import CubeSuite
from .run import Run

AT_A_TIME = 32  # slices that are encoded or decoded


class Posterior(NamedTuple):
    """A diagonal Gaussian: mu and logvar of one shape, (..., 512)."""

    mu: Tensor
    logvar: Tensor

    def sample(self, generator: Generator) -> Tensor:
        noise = torch.randn(self.mu.shape, generator=generator)
        return torch.addcmul(self.mu, noise, (0.5 * self.logvar).exp())


def spread_slices(run: Run, suite: CubeSuite, cube: int, n_slices: int, seed: int = 0, shift: float = 0.0) -> Tensor:
    """Slices of one cube as standardised pixels, from different planes of all axes: (n_slices, 1, H, H).

    The planes of an axis are evenly spread from a random first one; corners are random; no turns and no flips.

    n_slices  at most `most_slices`
    shift     moves planes by this share of their spacing, and corners by this share of the cube: with 0.5, further
              slices of the same cube

    Raises ValueError when the cube has fewer planes.
    """
    return cut_cube(run, suite.overdensity(cube), n_slices, seed, suite.axes, shift)


def most_slices(run: Run, suite: CubeSuite) -> int:
    """Slices of one cube that have no plane in common."""
    return len(suite.axes) * (suite.n_planes // run.config.data.thickness)


def cut_cube(
    run: Run, y: np.ndarray, n_slices: int, seed: int = 0, axes: tuple[int, ...] = (0, 1, 2), shift: float = 0.0
) -> Tensor:
    """`spread_slices` of a cube given as an array: y (P, N, N) overdensity -> (n_slices, 1, H, H) pixels."""
    rng, data = np.random.default_rng(seed), run.config.data
    n_planes, side, spacing = len(y), y.shape[-1], len(y) / -(-n_slices // len(axes))
    first = rng.integers(0, n_planes, len(axes)) + round(shift * spacing)
    cuts = whole_planes(*spread_planes(n_slices, n_planes, axes, data.thickness, first))
    row, col = torch.from_numpy((rng.integers(0, side, (2, n_slices)) + round(shift * side)) % side)
    cuts = replace(cuts, row=row, col=col)
    x = cut_slices(log_density(torch.from_numpy(y), data.eps)[None], cuts, data.image_size, data.thickness)
    return (x - run.mean) / run.std


@torch.inference_mode()
def slice_features(run: Run, slices: Tensor) -> Tensor:
    """`Encoder.features` of slices (n, 1, H, H), one row a slice: what z and h are read from."""
    return torch.cat([run.model.encoder.features(part) for part in slices.split(AT_A_TIME)])


@torch.inference_mode()
def set_features(run: Run, slices: Tensor, features: Tensor | None = None) -> Tensor:
    """What each slice gives to the set of its cube: slices (n, 1, H, H) -> (n, 1024), for `encode_set`."""
    return run.model.encoder.set_features(slice_features(run, slices) if features is None else features)


def trained_context(run: Run, n_slices: int) -> int:
    """Slices that the model is given at a time, when so many are at hand: a sum at most as many as in training."""
    if run.config.model.pooling == "sum":
        return min(n_slices, run.config.training.set_size - 1)
    return n_slices


def encode_cube(run: Run, slices: Tensor, features: Tensor | None = None) -> Posterior:
    """q(z | slices of one cube).

    slices    (S, 1, H, H)
    features  `slice_features` of them, where they are at hand
    """
    return encode_set(run, set_features(run, slices, features))


@torch.inference_mode()
def encode_set(run: Run, zs: Tensor) -> Posterior:
    """q(z | a set of slices) from their `set_features`, (S, 1024).

    With more slices than `trained_context`, the means and variances of all runs of so many neighbours (cyclic) are
    averaged, and the variance is divided by the number of runs that share no slice: S / trained_context.
    """
    n, size = len(zs), trained_context(run, len(zs))
    members = neighbours(n, size)[: 1 if size == n else n]
    mu, logvar = run.model.deep_set(zs[None], members[None])[0].chunk(2, dim=1)
    return Posterior(mu.mean(dim=0), (logvar.exp().mean(dim=0) * size / n).log())


@torch.inference_mode()
def encode_others(run: Run, zs: Tensor) -> Tensor:
    """Mean of z for every slice, given the slices of its cube that follow it (cyclic), never itself.

    zs (S, 1024)  `set_features` of the slices of one cube, two or more
    Returns (S, 512).
    """
    members = neighbours(len(zs), trained_context(run, len(zs) - 1), skip=1)
    return run.model.deep_set(zs[None], members[None])[0].chunk(2, dim=1)[0]


def neighbours(n: int, size: int, skip: int = 0) -> Tensor:
    """Cyclic contexts, (n, n): row i is 1 at the slices i + skip, ..., i + skip + size - 1 modulo n, else 0."""
    ahead = (torch.arange(n) - torch.arange(n)[:, None]) % n
    return ((ahead >= skip) & (ahead < skip + size)).float()


@torch.inference_mode()
def encode_slices(run: Run, slices: Tensor, z: Tensor, features: Tensor | None = None) -> Posterior:
    """q(h | slice, z): slices (n, 1, H, H), z (512,) or (n, 512) -> (n, 512)."""
    f = slice_features(run, slices) if features is None else features
    return Posterior(*run.model.encoder.h_posterior(f, z.expand(len(f), -1)).chunk(2, dim=1))


@torch.inference_mode()
def prior_of_h(run: Run, z: Tensor) -> Posterior:
    """p(h | z): z (n, 512) -> (n, 512)."""
    return Posterior(*run.model.decoder_z(z).chunk(2, dim=1))


@torch.inference_mode()
def decode(run: Run, h: Tensor) -> Tensor:
    """The mean slice of h: (n, 512) -> (n, 1, H, H) pixels."""
    return torch.cat([run.model.decoder_h(part) for part in h.split(AT_A_TIME)])


def reconstruct(run: Run, slices: Tensor, context: Tensor | None = None) -> Tensor:
    """Slices as the model sees them, through the means of q(z | context) and q(h | slice, z).

    slices (n, 1, H, H);  context (S, 1, H, H) slices of the same cube, the slices themselves when absent
    Returns (n, 1, H, H) pixels.
    """
    z = encode_cube(run, slices if context is None else context).mu
    return decode(run, encode_slices(run, slices, z).mu)


def reconstruct_given_others(run: Run, slices: Tensor) -> Tensor:
    """Each slice as the model sees it, given the other slices of its cube: (n, 1, H, H) -> (n, 1, H, H) pixels."""
    features = slice_features(run, slices)
    z = encode_others(run, set_features(run, slices, features))
    return decode(run, encode_slices(run, slices, z, features).mu)
