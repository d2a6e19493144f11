"""Held-out metrics, each with a reference value: reconstruction beside 512 Fourier modes, z beside statistics."""

import math

import numpy as np
import torch
from torch import Tensor

from ..loss import active_units, kl_by_dimension
from ..statistics import cross_correlation, fourier_pca, fvu, project, r2, transfer_function
from .features import CubeEncoding, FeatureTable
from .probes import probe, ridge

N_PCA = 512
FEWEST_LEARNED = 4  # cubes that teach a probe
COUNTS = (10, 25, 50, 100, 200, 400, 800)  # of labelled cubes


# --- reconstruction


def reconstruction_metrics(
    cubes: list[CubeEncoding], train: list[CubeEncoding], completed: list[Tensor], box: float
) -> dict:
    """FVU, r(k) and T(k) of held-out cubes beside those of the strongest Fourier modes of the training slices.

    completed   (n, 1, H, H) of each cube: its reconstructions with small scales drawn, for their T(k)
    box         side of a slice [Mpc/h]
    """
    truth, recon = pooled(cubes)
    pca = fourier_pca(pooled(train)[0], min(N_PCA, truth.shape[-1] ** 2 // 2))
    linear = project(truth, pca)
    k, r = correlation(truth, recon, box)
    r_pca = correlation(truth, linear, box)[1]
    return {
        "fvu": float(fvu(truth, recon)),
        "fvu_pca": float(fvu(truth, linear)),
        "fvu_train": float(fvu(*pooled(train))),
        "fvu_by_cube": [float(fvu(cube.truth, cube.recon)) for cube in cubes],
        "k": k.tolist(),
        "r": r.tolist(),
        "r_pca": r_pca.tolist(),
        "transfer": transfer_function(recon, truth, box)[1].mean(dim=0).tolist(),
        "transfer_completed": transfer_function(torch.cat(completed)[:, 0], truth, box)[1].mean(dim=0).tolist(),
        "k_r90": k_at_correlation(k, r),
        "k_r90_pca": k_at_correlation(k, r_pca),
    }


def pooled(cubes: list[CubeEncoding]) -> tuple[Tensor, Tensor]:
    """The slices of cubes and their reconstructions, (n, H, H) twice."""
    return torch.cat([cube.truth[:, 0] for cube in cubes]), torch.cat([cube.recon[:, 0] for cube in cubes])


def correlation(truth: Tensor, other: Tensor, box: float) -> tuple[Tensor, Tensor]:
    """k and the mean r(k) of slices (n, H, H); what has no power at some k correlates with nothing there."""
    k, r = cross_correlation(truth, other, box)
    return k, r.nan_to_num(0.0).mean(dim=0)


def k_at_correlation(k: Tensor, r: Tensor, level: float = 0.9) -> float:
    """Largest k [h/Mpc] up to which r stays at or above the level; 0 when it never is."""
    below = (r < level).nonzero()
    last = int(below[0]) if len(below) else len(r)
    return float(k[last - 1]) if last else 0.0


def latent_metrics(cubes: list[CubeEncoding]) -> dict:
    """KLs of z and of h on held-out slices [nats], in all and by dimension, the largest first, and active units."""
    kl = {
        "z": torch.stack([kl_by_dimension(*cube.z) for cube in cubes]),
        "h": torch.cat([kl_by_dimension(*cube.h, *cube.prior) for cube in cubes]),
    }
    mean = {"z": torch.stack([cube.z.mu for cube in cubes]), "h": torch.cat([cube.h.mu for cube in cubes])}
    return (
        {f"kl_{name}": float(x.sum(dim=1).mean()) for name, x in kl.items()}
        | {f"active_{name}": int(active_units(x)) for name, x in mean.items()}
        | {f"kl_by_dimension_{name}": x.mean(dim=0).sort(descending=True).values.tolist() for name, x in kl.items()}
    )


# --- parameters


def bootstrap_r2(truth: np.ndarray, predicted: np.ndarray, n_draws: int = 1000, seed: int = 0) -> np.ndarray:
    """R^2 in bootstrap samples of cubes: truth, predicted (m, p) -> (n_draws, p).

    The same cubes are drawn for the same m and seed, so that the difference of two predictions is paired.
    """
    rng = np.random.default_rng(seed)
    chosen = rng.integers(0, len(truth), (n_draws, len(truth)))
    return np.stack([r2(truth[rows], predicted[rows]) for rows in chosen])


def score(truth: np.ndarray, predicted: np.ndarray, names: list[str]) -> dict:
    """R^2 with its 68 % interval over cubes (none for fewer than five), rms error, and the predictions (m, p)."""
    ends = np.full((2, len(names)), math.nan)
    if len(truth) >= 5:
        ends = np.quantile(bootstrap_r2(truth, predicted), [0.16, 0.84], axis=0)
    parts = {"r2": r2(truth, predicted), "r2_interval": ends.T, "error": np.sqrt(np.square(predicted - truth).mean(0))}
    named = {key: dict(zip(names, values.tolist(), strict=True)) for key, values in parts.items()}
    return named | {"predicted": predicted.tolist()}


def probe_table(learned: FeatureTable, test: FeatureTable, n_slices: int = 15) -> dict[str, dict]:
    """`score` of ridges on z, on log P(k), and on P(k), PDF and moments of the same slices of test cubes.

    learned   of the cubes that teach the ridges
    """
    names, i = test.names.tolist(), learned.at(n_slices)
    features = {
        "z": [x.mu[:, i] for x in (learned, test)],
        "P(k)": [x.power[:, i] for x in (learned, test)],
        "P(k), PDF and moments": [x.statistics(n_slices) for x in (learned, test)],
    }
    return {
        name: score(test.params, probe(pair[0], learned.params, pair[1], test.params).predicted, names)
        for name, pair in features.items()
    }


def slice_curve(learned: FeatureTable, test: FeatureTable, seed: int = 0) -> dict[str, list]:
    """How many slices are enough: for each number of slices, ridges on z and on statistics, and the width of q(z).

    Returns {"sizes"} and, a row for each of these,
      r2, r2_draws, r2_statistics, error   of each parameter: from means and draws of q(z), from P(k), PDF and moments
      kl                                   KL(q(z) || N(0, I)) [nats]
      width                                of each parameter, the width of q(z) as the ridge reads it
    """
    rows, rng = [], np.random.default_rng(seed)
    for i, size in enumerate(learned.sizes):
        drawn = [x.mu[:, i] + np.exp(0.5 * x.logvar[:, i]) * rng.standard_normal(x.mu[:, i].shape)
                 for x in (learned, test)]  # fmt: skip
        pairs = [(learned.mu[:, i], test.mu[:, i]), drawn, (learned.statistics(size), test.statistics(size))]
        z, draws, statistics = (probe(a, learned.params, b, test.params) for a, b in pairs)
        kl = kl_by_dimension(*(torch.from_numpy(x[:, i]) for x in (test.mu, test.logvar))).sum(dim=1).mean()
        weights = np.atleast_2d(ridge().fit(learned.mu[:, i], learned.params).coef_)
        rows.append({
            "r2": z.r2.tolist(), "r2_draws": draws.r2.tolist(), "r2_statistics": statistics.r2.tolist(),
            "error": z.error.tolist(), "kl": float(kl),
            "width": np.sqrt((np.exp(test.logvar[:, i]) @ np.square(weights).T).mean(axis=0)).tolist(),
        })  # fmt: skip
    return {"sizes": learned.sizes.tolist()} | {name: [row[name] for row in rows] for name in rows[0]}


def label_curve(
    train: np.ndarray, params: np.ndarray, test: np.ndarray, truth: np.ndarray, n_draws: int = 8, seed: int = 0
) -> dict:
    """How many labelled cubes a ridge needs: R^2 on test cubes, mean and standard deviation over draws of cubes.

    train, params   (n, d), (n, p) of all labelled cubes;  test, truth (m, d), (m, p)
    Returns {"counts" (c,), "r2" (c, p), "scatter" (c, p)}, the last count n.
    """
    rng, n, rows = np.random.default_rng(seed), len(train), []
    counts = [count for count in COUNTS if count < n] + [n]
    for count in counts:
        chosen = [rng.choice(n, count, replace=False) for _ in range(n_draws if count < n else 1)]
        rows.append([probe(train[i], params[i], test, truth).r2 for i in chosen])
    return {
        "counts": counts,
        "r2": [np.mean(row, axis=0).tolist() for row in rows],
        "scatter": [np.std(row, axis=0).tolist() for row in rows],
    }


def main_directions(z: np.ndarray, n: int = 2) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Principal components of z (m, D) of cubes: centre (D,), directions (n, D), their shares of the variance (n,)."""
    centre = z.mean(axis=0)
    _, s, rows = np.linalg.svd(z - centre, full_matrices=False)
    return centre, rows[:n], (np.square(s) / np.square(s).sum())[:n]
