"""What a trained model says: encode a cube, reconstruct, dream further slices, walk through the latents, probe z.

Slices are standardised pixels (`Run.to_pixels`), (S, 1, H, H) from one cube; z and h are tensors of 512 numbers.
Random numbers come from a torch.Generator that is given.
"""

import warnings
from typing import NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor

from .cropping import Cuts, cut_slices, log_density
from .cubes import CubeSuite
from .runs import Run
from .variants.residuals import ResidualNoise


class Posterior(NamedTuple):
    """A diagonal Gaussian: mu and logvar of one shape, (..., 512)."""

    mu: Tensor
    logvar: Tensor

    def sample(self, generator: Generator) -> Tensor:
        noise = torch.randn(self.mu.shape, generator=generator)
        return torch.addcmul(self.mu, noise, (0.5 * self.logvar).exp())


def spread_slices(run: Run, suite: CubeSuite, cube: int, n_slices: int, seed: int = 0) -> Tensor:
    """Slices of one cube as standardised pixels, from different planes of all axes: (n_slices, 1, H, H).

    The planes of an axis are evenly spread from a random first one; corners are random; no turns and no flips.
    Raises ValueError when the cube has fewer planes.
    """
    return cut_cube(run, suite.overdensity(cube), n_slices, seed, suite.axes)


def cut_cube(run: Run, y: np.ndarray, n_slices: int, seed: int = 0, axes: tuple[int, ...] = (0, 1, 2)) -> Tensor:
    """`spread_slices` of a cube given as an array: y (P, N, N) overdensity -> (n_slices, 1, H, H) pixels."""
    rng, data = np.random.default_rng(seed), run.config.data
    axis = np.arange(n_slices) % len(axes)
    rank = np.arange(n_slices) // len(axes)
    n_planes = len(y)
    most = -(-n_slices // len(axes))
    if most * data.thickness > n_planes:
        raise ValueError(
            f"{n_slices} slices were asked for; a cube of {n_planes} planes along {len(axes)} axes has "
            f"{len(axes) * (n_planes // data.thickness)} that differ at thickness {data.thickness}"
        )
    first = rng.integers(0, n_planes, len(axes))
    plane = (first[axis] + rank * n_planes // most) % n_planes
    corner = rng.integers(0, y.shape[-1], (2, n_slices))
    zero = torch.zeros(n_slices, dtype=torch.long)
    cuts = Cuts(zero, *map(torch.from_numpy, (np.asarray(axes)[axis], plane, *corner)), zero, zero, zero)
    x = cut_slices(log_density(torch.from_numpy(y), data.eps)[None], cuts, data.image_size, data.thickness)
    return (x - run.mean) / run.std


@torch.inference_mode()
def trunk_maps(run: Run, slices: Tensor, batch: int = 32) -> Tensor:
    """`Encoder.maps` of slices, (n, 1, H, H) -> (n, 512 or more, m, m), a batch at a time."""
    return torch.cat([run.model.encoder.maps(part) for part in slices.split(batch)])


def trained_context(run: Run, n_slices: int) -> int:
    """Slices that the model is to be given at a time, when so many are at hand.

    A sum changes scale with the number of slices: a model that sums and was trained with a fixed number is given
    that number, any other model all of them. Fewer than it was trained with warns.
    """
    train = run.config.training
    if run.config.model.pooling == "mean" or train.least_context:
        return n_slices
    if n_slices < train.set_size - 1:
        warnings.warn(
            f"a set of {n_slices} slices is smaller than the {train.set_size - 1} that this model sums: what it says "
            f"of it is a guess; give at least {train.set_size - 1}, or train with model.pooling=mean",
            stacklevel=3,
        )
    return min(n_slices, train.set_size - 1)


@torch.inference_mode()
def encode_cube(run: Run, slices: Tensor, maps: Tensor | None = None) -> Posterior:
    """q(z | slices of one cube).

    slices (S, 1, H, H);  maps: `trunk_maps` of them, where they are at hand
    With more slices than `trained_context`, the means and variances of all runs of so many neighbours (cyclic) are
    averaged, and the variance is divided by the number of runs that share no slice: S / trained_context.
    """
    zs = run.model.encoder.summarise(trunk_maps(run, slices) if maps is None else maps)
    n, size = len(zs), trained_context(run, len(zs))
    ahead = (torch.arange(n) - torch.arange(n)[:, None]) % n
    members = (ahead < size).float()[: 1 if size == n else n]
    mu, logvar = run.model.deep_set(zs[None], members[None])[0].chunk(2, dim=1)
    return Posterior(mu.mean(dim=0), (logvar.exp().mean(dim=0) * size / n).log())


@torch.inference_mode()
def encode_slices(run: Run, slices: Tensor, z: Tensor, maps: Tensor | None = None) -> Posterior:
    """q(h | slice, z): slices (n, 1, H, H), z (512,) or (n, 512) -> (n, 512)."""
    f = trunk_maps(run, slices) if maps is None else maps
    return Posterior(*run.model.encoder.locate(f, z.expand(len(f), -1)).chunk(2, dim=1))


@torch.inference_mode()
def prior_of_h(run: Run, z: Tensor) -> Posterior:
    """p(h | z): z (n, 512) -> (n, 512)."""
    return Posterior(*run.model.decoder_z(z).chunk(2, dim=1))


@torch.inference_mode()
def decode(run: Run, h: Tensor, batch: int = 32) -> Tensor:
    """The mean slice of h: (n, 512) -> (n, 1, H, H) pixels."""
    return torch.cat([run.model.decoder_h(part) for part in h.split(batch)])


def reconstruct(run: Run, slices: Tensor, context: Tensor | None = None) -> Tensor:
    """Slices as the model sees them, through the means of q(z | context) and q(h | slice, z).

    slices (n, 1, H, H);  context (S, 1, H, H) slices of the same cube, the slices themselves when absent
    Returns (n, 1, H, H) pixels.
    """
    z = encode_cube(run, slices if context is None else context).mu
    return decode(run, encode_slices(run, slices, z).mu)


def sample_slices(
    run: Run, z: Posterior | None, n: int, generator: Generator, noise: ResidualNoise | None = None
) -> Tensor:
    """New slices: z ~ q(z | an observed universe), or ~ N(0, I) when z is None; h ~ p(h | z); the decoded mean.

    z       of one universe, (512,), or of one for each slice, (n, 512)
    n       slices, each with a z of its own
    noise   what completes the decoded mean (`evaluate.residual_noise`), which alone lacks small-scale power;
            as it is at the mean of z where a universe was observed
    Returns (n, 1, H, H) pixels.
    """
    latent_dim, observed = run.config.model.latent_dim, z is not None
    z = z or Posterior(torch.zeros(latent_dim), torch.zeros(latent_dim))
    draws = Posterior(z.mu.expand(n, -1), z.logvar.expand(n, -1)).sample(generator)
    mean = decode(run, prior_of_h(run, draws).sample(generator))
    return mean if noise is None else noise.complete(mean, z.mu.expand(n, -1) if observed else draws, generator)


def dream(z: Tensor, n: int, generator: Generator) -> Posterior:
    """Universes between and around known ones: draws from the Gaussian with the mean and covariance of their z.

    Where q(z) of all cubes together is not N(0, I), this is what a decoder has learned to read (ex-post density
    estimation, Ghosh et al. 2020, arXiv:1903.12436).
    z (n_cubes, 512) means. Returns n universes known exactly, mu (n, 512), for `sample_slices`.
    """
    weights = torch.randn(n, len(z), generator=generator) / (len(z) - 1) ** 0.5
    mu = z.mean(dim=0) + weights @ (z - z.mean(dim=0))
    return Posterior(mu, torch.full_like(mu, -torch.inf))


def traverse(run: Run, anchor: Tensor, direction: Tensor, values: Tensor, z: Tensor | None = None) -> Tensor:
    """Decoded slices along a line in h, or in z at a fixed place in p(h | z).

    anchor     (512,) an h;  direction (512,): of h, or of z when z is given;  values (n,): steps along it
    z          (512,) the universe of the anchor: the anchor keeps its place in units of p(h | z)'s width
               while z moves
    Returns (n, 1, H, H) pixels.
    """
    steps = values[:, None] * direction
    if z is None:
        return decode(run, anchor + steps)
    here = prior_of_h(run, z[None])
    place = (anchor - here.mu) / (0.5 * here.logvar).exp()
    there = prior_of_h(run, z + steps)
    return decode(run, there.mu + place * (0.5 * there.logvar).exp())


class Probe(NamedTuple):
    """A ridge regression from features to parameters, with what it predicts for cubes that it did not see.

    predicted (n, p);  r2 (p,), NaN where the parameter does not vary
    error (p,)         root mean squared, in the units of the parameter
    """

    predicted: np.ndarray
    r2: np.ndarray
    error: np.ndarray


def probe(train: np.ndarray, train_params: np.ndarray, test: np.ndarray, test_params: np.ndarray) -> Probe:
    """Ridge from features of training cubes to parameters, judged on other cubes.

    train (n, d), test (m, d): one row a cube;  train_params (n, p), test_params (m, p)
    The ridge is chosen by leave-one-out cross-validation over the training cubes (scikit-learn's RidgeCV).
    """
    from sklearn.linear_model import RidgeCV

    predicted = np.empty(test_params.shape)
    for i, values in enumerate(train_params.T):  # a ridge of its own for each parameter
        predicted[:, i] = RidgeCV(alphas=np.geomspace(1e-6, 1e4, 41)).fit(train, values).predict(test)
    squared, variance = np.square(predicted - test_params).mean(axis=0), test_params.var(axis=0)
    r2 = 1 - np.divide(squared, variance, out=np.full(len(squared), np.nan), where=variance > 0)
    return Probe(predicted, r2, np.sqrt(squared))


def directions(z: np.ndarray, params: np.ndarray) -> np.ndarray:
    """Shift of z per unit of each parameter, the others held: the pattern, not regression weights.

    z (n, 512), params (n, p) of n cubes. Returns (p, 512), the least-squares slopes of z on the parameters: for
    independent parameters Cov(z, theta) / Var(theta) (Haufe et al. 2014, NeuroImage 87, 96).
    """
    design = np.column_stack([params - params.mean(axis=0), np.ones(len(params))])
    return np.linalg.lstsq(design, z, rcond=None)[0][:-1]
