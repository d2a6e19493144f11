"""Walks through the latents of a trained model: along directions of z and h, and along the parameters of universes."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .encode import decode, prior_of_h
from .run import Run


def decode_universe(run: Run, z: Tensor, place: Tensor) -> Tensor:
    """Decoded slices of the universe z (512,), or of one a slice (n, 512), at given places in p(h | z).

    place (n, 512)  in units of the width of p(h | z): the same place in another universe is the same structure there
    Returns (n, 1, H, H) pixels.
    """
    prior = prior_of_h(run, z.expand(len(place), -1))
    return decode(run, prior.mu + place * (0.5 * prior.logvar).exp())


def place_of(run: Run, z: Tensor, h: Tensor) -> Tensor:
    """Where h (n, 512) is in p(h | z), in units of its width: z (512,) -> (n, 512)."""
    prior = prior_of_h(run, z[None])
    return (h - prior.mu) / (0.5 * prior.logvar).exp()


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
    return decode_universe(run, z + steps, place_of(run, z, anchor).expand(len(steps), -1))


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


class Directions(NamedTuple):
    """Principal directions of the z of known cubes.

    centre (512,)      mean of z over the cubes
    steps (n, 512)     orthogonal; each as long as the spread of the cubes along it
    share (n,)         of their variance
    """

    centre: Tensor
    steps: Tensor
    share: Tensor


def cube_directions(z: Tensor, n: int, contrast: np.ndarray | None = None) -> Directions:
    """The n directions of z along which cubes differ most (PCA), fewer where there are fewer cubes.

    z         (m, 512) means of q(z) of m cubes
    contrast  (m,) sigma_8, say: steps point to where it grows; without it their largest number is positive
    """
    centre = z.mean(dim=0)
    u, s, ways = torch.linalg.svd(z - centre, full_matrices=False)
    if contrast is None:
        sign = ways.gather(1, ways.abs().argmax(dim=1, keepdim=True))[:, 0].sign()
    else:
        values = torch.tensor(contrast, dtype=z.dtype)
        sign = ((u.T @ (values - values.mean())) >= 0).to(z.dtype) * 2 - 1
    n = min(n, len(z) - 1)
    steps = ways * (sign * s / max(len(z) - 1, 1) ** 0.5)[:, None]
    return Directions(centre, steps[:n], (s.square() / s.square().sum())[:n])
