"""Walks through the latents of a trained model: along directions of z and h, and along the parameters of universes."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from .encode import Posterior, decode, prior_of_h
from .run import Run

N_KEPT = 16  # directions in which universes differ


def decode_universe(run: Run, z: Tensor, place: Tensor) -> Tensor:
    """Decoded slices of the universe z (512,), or of one a slice (n, 512), at given places in p(h | z).

    place (n, 512)  in units of the width of p(h | z): the same place in another universe is the same structure there
    Returns (n, 1, H, H) pixels.
    """
    prior = prior_of_h(run, z.expand(len(place), -1))
    return decode(run, prior.mu + place * (0.5 * prior.logvar).exp())


def typical_noise(z: Posterior, seed: int = 0) -> Tensor:
    """Noise (512,) as wide as q(z), without the directions in which universes differ most: z (n, 512) of n universes.

    p(h | z) was learned from draws of q(z). At a mean of q(z), which is shorter, its h varies too little: decoded draws
    have 0.6 of the power in the shipped run. With the same noise in every universe they have what draws have, and
    universes keep their differences.
    """
    width = z.logvar.exp().mean(dim=0).sqrt()
    ways = torch.linalg.svd((z.mu - z.mu.mean(dim=0)) / width, full_matrices=False).Vh[: min(N_KEPT, len(z.mu) - 1)]
    white = torch.randn(len(width), generator=torch.Generator().manual_seed(seed))
    return (white - white @ ways.T @ ways) * width


def place_of(run: Run, z: Tensor, h: Tensor) -> Tensor:
    """Where h (n, 512) is in p(h | z), in units of its width: z (512,) -> (n, 512)."""
    prior = prior_of_h(run, z[None])
    return (h - prior.mu) / (0.5 * prior.logvar).exp()


def traverse(run: Run, anchor: Tensor, direction: Tensor, values: Tensor) -> Tensor:
    """Decoded slices along a line in h: anchor, direction (512,), values (n,) steps -> (n, 1, H, H) pixels."""
    return decode(run, anchor + values[:, None] * direction)


def parameter_sheet(z: np.ndarray, params: np.ndarray) -> Callable[[np.ndarray], Tensor]:
    """The smooth map from parameters to z, by least squares: z (n, D), params (n, p) of n cubes.

    Universes lie on a curved sheet in z, which a straight line leaves. Quadratic, or linear where there are fewer than
    four cubes for each term. Returns a function of parameters (m, p), whose z it gives, (m, D).
    """
    from sklearn.linear_model import LinearRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import PolynomialFeatures, StandardScaler

    p = params.shape[1]
    degree = 2 if len(z) >= 4 * (1 + p + p * (p + 1) // 2) else 1
    sheet = make_pipeline(StandardScaler(), PolynomialFeatures(degree), LinearRegression(fit_intercept=False))
    sheet.fit(params, z)
    return lambda asked: torch.from_numpy(sheet.predict(asked)).float()
