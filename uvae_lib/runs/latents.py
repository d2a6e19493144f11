"""What a trained model says: encode cubes, reconstruct, sample slices and universes, walk through latents, probe z.

Slices are standardised pixels (`Run.to_pixels`), (S, 1, H, H) from one cube; z and h are tensors of 512 numbers.
Random numbers come from a torch.Generator that is given.
"""

import warnings
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Generator, Tensor

from ..cropping import cut_slices, log_density, spread_planes, whole_planes
from ..cubes.suite import CubeSuite
from ..presets import PARAMETERS
from ..statistics import r2
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
    """Slices that the model is to be given at a time, when so many are at hand.

    A sum changes scale with the number of slices: a model that sums is given the number that it was trained with, one
    that takes the mean all of them. Fewer than it was trained with warns.
    """
    train = run.config.training
    if run.config.model.pooling == "mean":
        return n_slices
    if n_slices < train.set_size - 1:
        warnings.warn(
            f"a set of {n_slices} slices is smaller than the {train.set_size - 1} that this model sums: what it says "
            f"of it is a guess; give at least {train.set_size - 1}, or train with model.pooling=mean",
            stacklevel=3,
        )
    return min(n_slices, train.set_size - 1)


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


def sample_slices(run: Run, z: Posterior | None, n: int, generator: Generator) -> Tensor:
    """New slices of an observed universe or of new ones: h given z; its decoded mean, completed.

    z   of one universe, (512,), or of one for each slice, (n, 512); when None, each slice is of a universe of its own,
        drawn from N(0, I)
    n   slices
    Where the run has flows they carry all Gaussian draws on, given the mean of q(z) (`variants.flows`); without them z
    is drawn from q(z), as the note has it.

    Returns (n, 1, H, H) pixels.
    """
    shape = n, run.config.model.latent_dim
    if z is None:
        draws = draw_z(run, torch.randn(shape, generator=generator))
    elif run.flows:
        draws = z.mu.expand(shape)
    else:
        draws = Posterior(z.mu.expand(shape), z.logvar.expand(shape)).sample(generator)
    mean = decode(run, draw_h(run, draws, torch.randn(shape, generator=generator)))
    return complete_means(run, mean, draws, torch.randn(mean.shape, generator=generator))


@torch.inference_mode()
def draw_z(run: Run, white: Tensor) -> Tensor:
    """z of new universes: N(0, I), carried on by the flow of z where the run has one: white (n, 512) -> (n, 512)."""
    return run.flows.draw_z(white) if run.flows else white


@torch.inference_mode()
def draw_h(run: Run, z: Tensor, white: Tensor) -> Tensor:
    """h of new slices: N(mu(z), Sigma(z)), carried on by the flow of h where the run has one (`variants.flows`).

    z      (512,) or (n, 512)
    white  (n, 512) standard normal numbers: the same ones with another z are the same place in another universe
    Returns (n, 512).
    """
    prior, z = prior_of_h(run, z.expand(len(white), -1)), z.expand(len(white), -1)
    if run.flows:
        return run.flows.draw_h(z, *prior, white)
    return prior.mu + white * (0.5 * prior.logvar).exp()


@torch.inference_mode()
def complete_means(run: Run, mean: Tensor, z: Tensor, white: Tensor) -> Tensor:
    """Decoded means with the small scales that a mean lacks, by the flow of slices; as they are where a run has none.

    mean   (n, 1, H, H) pixels
    z      (512,) or (n, 512)
    white  (n, 1, H, H) standard normal numbers, as for `draw_h`
    Returns (n, 1, H, H) pixels.
    """
    return run.flows.complete(mean, z.expand(len(mean), -1), white) if run.flows else mean


def decode_universe(run: Run, z: Tensor, place: Tensor) -> Tensor:
    """Decoded slices of the universe z (512,), or of one a slice (n, 512), at given places in p(h | z).

    place (n, 512)  in units of the width of p(h | z): the same place in another universe is the same structure there
    Returns (n, 1, H, H) pixels.
    """
    prior = prior_of_h(run, z.expand(len(place), -1))
    return decode(run, prior.mu + place * (0.5 * prior.logvar).exp())


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
    return decode_universe(run, z + steps, place.expand(len(steps), -1))


class ProbeResult(NamedTuple):
    """A regression from features to parameters, judged on cubes that it did not see.

    predicted (m, p)
    r2 (p,)           NaN where the parameter does not vary
    error (p,)        root mean squared, in the units of the parameter
    """

    predicted: np.ndarray
    r2: np.ndarray
    error: np.ndarray


def ridge():
    """A ridge regression, of its own strength for each parameter, by leaving one training cube out (scikit-learn)."""
    from sklearn.linear_model import RidgeCV

    return RidgeCV(alphas=np.geomspace(1e-6, 1e4, 41), alpha_per_target=True)


def probe(train: np.ndarray, train_params: np.ndarray, test: np.ndarray, test_params: np.ndarray) -> ProbeResult:
    """`ridge` from features of training cubes to parameters, judged on other cubes.

    train, test                 (n, d), (m, d), one row a cube
    train_params, test_params   (n, p), (m, p)
    """
    predicted = ridge().fit(train, train_params).predict(test).reshape(test_params.shape)
    error = np.sqrt(np.square(predicted - test_params).mean(axis=0))
    return ProbeResult(predicted, r2(test_params, predicted), error)


class ParameterSheet(NamedTuple):
    """Where universes of given parameters lie in z: a quadratic map, fitted to known cubes (`parameter_sheet`).

    centre, scale (p,)    of the parameters
    weights (n_terms, D)  of the terms of a polynomial
    """

    centre: np.ndarray
    scale: np.ndarray
    weights: np.ndarray

    def __call__(self, params: np.ndarray) -> Tensor:
        """Parameters (n, p) -> z (n, D)."""
        return torch.from_numpy(_terms((params - self.centre) / self.scale, len(self.weights)) @ self.weights).float()


def parameter_sheet(z: np.ndarray, params: np.ndarray) -> ParameterSheet:
    """The smooth map from parameters to z: z (n, D), params (n, p) of n cubes, by least squares.

    Universes lie on a curved sheet in z, which a straight line leaves. Quadratic, or linear where there are fewer than
    four cubes for each term.
    """
    centre, scale = params.mean(axis=0), params.std(axis=0)
    scale = np.where(np.ptp(params, axis=0) > 1e-9 * np.abs(params).max(axis=0), scale, 1.0)
    p = params.shape[1]
    n_terms = 1 + p + p * (p + 1) // 2
    terms = _terms((params - centre) / scale, n_terms if len(z) >= 4 * n_terms else 1 + p)
    return ParameterSheet(centre, scale, np.linalg.lstsq(terms, z, rcond=None)[0])


def _terms(x: np.ndarray, n: int) -> np.ndarray:
    """1, x_i and, where n of them are asked for, x_i x_j: (m, p) -> (m, n)."""
    pairs = [x[:, i] * x[:, j] for i in range(x.shape[1]) for j in range(i, x.shape[1])]
    return np.column_stack([np.ones(len(x)), *x.T, *pairs])[:, :n]


def suite_sheet(
    run: Run, suite: CubeSuite, n_slices: int = 9, most: int = 32
) -> tuple[ParameterSheet | None, pd.DataFrame]:
    """The `parameter_sheet` of a suite's cubes, and the parameters that it was fitted to, for walks along them.

    suite      best a Latin hypercube; cubes with one parameter moved at a time (1P) tell nothing of products
    n_slices   of a cube are encoded
    most       cubes, evenly spread, are used when there are more

    The table has Omega_m and sigma_8 where they vary, and no column where not more cubes than parameters are known.
    """
    cubes = np.linspace(0, suite.n_cubes - 1, min(most, suite.n_cubes)).round().astype(int)
    known = suite.params[[name for name in PARAMETERS if name in suite.params]].iloc[cubes]
    known = known.loc[:, known.nunique() > 1]
    if not len(known.columns) or len(cubes) <= len(known.columns):
        return None, known.iloc[:, :0]
    slices = (spread_slices(run, suite, int(cube), n_slices, seed=int(cube)) for cube in cubes)
    z = np.stack([encode_cube(run, some).mu.numpy() for some in slices])
    return parameter_sheet(z, known.to_numpy()), known


def decoded_directions(run: Run, h: Tensor, width: Tensor, n: int) -> Tensor:
    """Directions of h that change its decoded slice most: the first singular vectors of the decoder, scaled by width.

    They are found by four rounds of subspace iteration, with two directions more than asked for.
    h, width (512,)   where, and how far h reaches there, as the width of p(h | z) says
    Returns (n, 512), steps of one width, the strongest first.
    """
    found, step = torch.randn(len(h), n + 2, generator=Generator().manual_seed(0)), 0.25
    at = h.expand(n + 2, -1).clone().requires_grad_()
    mean = run.model.decoder_h(at)
    for _ in range(4):
        moves = step * torch.linalg.qr(found).Q.T * width
        change = (decode(run, h + moves) - decode(run, h - moves)) / (2 * step)
        found = (torch.autograd.grad(mean, at, change.clone(), retain_graph=True)[0] * width).T
    return torch.linalg.svd(found, full_matrices=False).U.T[:n] * width


def prior_directions(run: Run, z: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Directions of z that change p(h | z) most: the eigenvectors of its Fisher information with regard to z.

    z (512,)   where; directions are in widths of z's prior N(0, I)
    n          of them, the strongest first

    Returns unit vectors (n, 512), their largest component positive, and (n,) the KL [nats] between p(h | z) one unit
    further and p(h | z), to second order.
    """
    z = z.clone()  # of an inference, in which no gradient is known
    jacobian = torch.autograd.functional.jacobian(lambda z: run.model.decoder_z(z[None])[0], z, vectorize=True)
    d_mu, d_logvar = jacobian.chunk(2)
    d_mu = d_mu / (0.5 * prior_of_h(run, z[None]).logvar[0, :, None]).exp()
    _, strength, vectors = torch.linalg.svd(torch.cat([d_mu, d_logvar / 2**0.5]), full_matrices=False)
    largest = vectors.gather(1, vectors.abs().argmax(dim=1, keepdim=True))
    return (vectors * largest.sign())[:n], strength[:n].square() / 2
