"""What a trained model says of slices: encode cubes and slices, decode, reconstruct.

Slices are standardised pixels (`Run.to_pixels`), (S, 1, H, H) from one cube; z and h are tensors of 512 numbers.
Random numbers come from a torch.Generator that is given.
"""

import warnings
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor

from ..cropping import cut_slices, log_density, spread_planes, whole_planes
from ..cubes.suite import CubeSuite
from .run import Run

MOST_MEAN, MOST_SPREAD = 0.8, 3.0  # of the standardised pixels of one cube's slices: 0.3 and 1.3 are usual
AT_A_TIME = 32  # slices that are encoded or decoded


class Posterior(NamedTuple):
    """A diagonal Gaussian: mu and logvar of one shape, (..., 512)."""

    mu: Tensor
    logvar: Tensor

    def sample(self, generator: Generator) -> Tensor:
        noise = torch.randn(self.mu.shape, generator=generator, dtype=self.mu.dtype)
        return torch.addcmul(self.mu, noise, (0.5 * self.logvar).exp())


def check_same_kind(suite: CubeSuite, run: Run, allow_other_voxels: bool = False) -> None:
    """Raise ValueError for cubes of another kind than a run was trained on: voxel size, box, field or redshift.

    allow_other_voxels  they may be; what the model says of them is not calibrated
    """
    if suite.side < (size := run.config.data.image_size):
        raise ValueError(f"found cubes of {suite.side}^3; the run's slices have {size} pixels; give larger cubes")
    kinds = {
        "voxels [Mpc/h]": (suite.box_size / suite.side, run.box_size / run.side),
        "box [Mpc/h]": (suite.box_size, run.box_size),
        "field": (suite.field, run.info.get("field")),
        "redshift": (suite.redshift, run.info.get("redshift")),
    }
    differ = []
    for name, (found, known) in kinds.items():
        text = isinstance(found, str)
        if None not in (found, known) and (found != known if text else abs(found - known) > 1e-3 * abs(known)):
            differ.append(f"{name} {found}, not {known}" if text else f"{name} {found:.4g}, not {known:.4g}")
    if differ and not allow_other_voxels:
        raise ValueError(
            f"found {suite.source} with {'; '.join(differ)}, as {run.folder} was trained on; a model is used on what "
            "it was trained for; train on these cubes, or pass allow_other_voxels=True and calibrate what it says"
        )


def check_cube(y: np.ndarray | Tensor) -> Tensor:
    """A cube as contiguous float32: y (P, N, N) overdensity, of any dtype, order of bytes and strides.

    Raises ValueError for another shape, for what is not finite or negative, and for a mean that is not 1.
    """
    y = np.asarray(y)
    if y.ndim != 3 or y.shape[-1] != y.shape[-2] or y.dtype.kind not in "fiu":
        raise ValueError(f"found an array {y.shape} of {y.dtype}; expected a cube (N, N, N) of real numbers")
    y = np.ascontiguousarray(y, dtype=np.float32)
    low, mean = float(y.min()), float(y.mean(dtype=np.float64))
    if not (low >= 0 and abs(mean - 1) < 0.1):  # NaN is no pass
        raise ValueError(
            f"found a cube with minimum {low:.4g} and mean {mean:.4g}; expected an overdensity y = rho / <rho>, mean 1 "
            "and never negative; divide a density by its mean, add 1 to a delta, or open its file with open_cubes"
        )
    return torch.from_numpy(y)


def check_slices(run: Run, slices: np.ndarray | Tensor) -> Tensor:
    """Slices as contiguous float32 pixels (S, 1, H, H), from tensors or arrays of any dtype and strides.

    Raises ValueError for another shape, for what is not finite, and for a mean and spread that no standardised slices
    have; warns of what looks like log densities.
    """
    size = run.config.data.image_size
    shape, kind = tuple(slices.shape), slices.dtype
    if len(shape) != 4 or shape[1:] != (1, size, size) or not shape[0]:
        raise ValueError(f"found slices of shape {shape}; expected (S, 1, {size}, {size}), the slices of one cube")
    if isinstance(slices, np.ndarray):
        slices = torch.from_numpy(np.ascontiguousarray(slices, dtype=np.float32))
    x = slices.detach().to(torch.float32).contiguous()
    std, mean = (float(v) for v in torch.std_mean(x, correction=0))
    sentence = (
        f"found slices of {kind} with mean {mean:.4g} and standard deviation {std:.4g}; expected standardised pixels, "
        "about 0 and 1; cut them with spread_slices or cut_cube, or apply run.to_pixels to an overdensity"
    )
    if not (abs(mean) < 4 * MOST_MEAN and 0 < std < 2 * MOST_SPREAD):  # NaN is no pass
        raise ValueError(sentence)
    if not (abs(mean) < MOST_MEAN and 1 / MOST_SPREAD < std < MOST_SPREAD):  # log densities, or a model's own drawings
        warnings.warn(sentence, stacklevel=3)
    return x


def spread_slices(
    run: Run, suite: CubeSuite, cube: int, n_slices: int, seed: int = 0, shift: float = 0.0,
    allow_other_voxels: bool = False,
) -> Tensor:  # fmt: skip
    """Slices of one cube as standardised pixels, from different planes of all axes: (n_slices, 1, H, H).

    The planes of an axis are evenly spread from a random first one; corners are random; no turns and no flips.

    n_slices  at most `most_slices`
    shift     moves planes by this share of their spacing, and corners by this share of the cube: with 0.5, further
              slices of the same cube
    allow_other_voxels  see `check_same_kind`

    Raises ValueError when the cube has fewer planes, or is of another kind than the run was trained on.
    """
    check_same_kind(suite, run, allow_other_voxels)
    return cut_cube(run, suite.overdensity(cube), n_slices, seed, suite.axes, shift)


def most_slices(run: Run, suite: CubeSuite) -> int:
    """Slices of one cube that have no plane in common."""
    return len(suite.axes) * (suite.n_planes // run.config.data.thickness)


def cut_cube(
    run: Run, y: np.ndarray, n_slices: int, seed: int = 0, axes: tuple[int, ...] = (0, 1, 2), shift: float = 0.0
) -> Tensor:
    """`spread_slices` of a cube given as an array: y (P, N, N) overdensity -> (n_slices, 1, H, H) pixels.

    Raises ValueError for what is no overdensity, and for more slices than the cube has.
    """
    y = check_cube(y)
    rng, data = np.random.default_rng(seed), run.config.data
    n_planes, side, spacing = len(y), y.shape[-1], len(y) / -(-n_slices // len(axes))
    first = rng.integers(0, n_planes, len(axes)) + round(shift * spacing)
    cuts = whole_planes(*spread_planes(n_slices, n_planes, axes, data.thickness, first))
    row, col = torch.from_numpy((rng.integers(0, side, (2, n_slices)) + round(shift * side)) % side)
    cuts = replace(cuts, row=row, col=col)
    x = cut_slices(log_density(y, data.eps)[None], cuts, data.image_size, data.thickness)
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
    """Slices that the model is given at a time, when so many are at hand: at most as many as in training."""
    return min(n_slices, run.config.training.set_size - 1)


def encode_cube(run: Run, slices: Tensor) -> Posterior:
    """q(z | slices of one cube): (S, 1, H, H) standardised pixels, a tensor or an array.

    Raises ValueError for slices that are none of this run's (`check_slices`).
    """
    return encode_set(run, set_features(run, check_slices(run, slices)))


@torch.inference_mode()
def encode_set(run: Run, zs: Tensor) -> Posterior:
    """q(z | a set of slices) from their `set_features`, (S, 1024).

    With more slices than `trained_context`, means and precisions of all runs of so many neighbours (cyclic) are
    averaged. What these say beyond the prior, precision - 1, counts once for each run that shares no slice with others,
    S / trained_context times: numbers that tell nothing keep the prior's width.
    """
    n, size = len(zs), trained_context(run, len(zs))
    members = neighbours(n, size)[: 1 if size == n else n]
    mu, logvar = run.model.deep_set(zs[None], members[None])[0].chunk(2, dim=1)
    precision = (-logvar).exp().mean(dim=0)
    precision = precision + (n / size - 1) * (precision - 1).clamp_min(0)
    return Posterior(mu.mean(dim=0), -precision.log())


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
