"""Walks through the latents of a trained model: along directions of z and h, and along the parameters of universes."""

from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Generator, Tensor

from ..cubes.suite import CubeSuite
from ..presets import PARAMETERS
from .encode import decode, encode_cube, prior_of_h, spread_slices
from .run import Run


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
