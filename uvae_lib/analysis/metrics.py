"""Held-out metrics, each with a reference value: reconstruction beside 512 Fourier modes, z beside P(k).

Functions take `CubeEncoding`s, or plain arrays with one row a cube.
"""

import math
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..analysis.probes import probe, ridge
from ..loss import active_units, kl_by_dimension
from ..statistics import cross_correlation, fourier_pca, fvu, project, r2, transfer_function
from .features import CubeEncoding, FeatureTable

N_PCA = 512
LEVELS = np.linspace(0.05, 0.95, 19)  # of intervals whose coverage is counted
PROBED = {  # columns of `FeatureTable` that a ridge reads
    "z, ridge": "mu",
    "P(k), ridge": "power",
    "PDF, ridge": "pdf",
    "P(k) and moments, ridge": "summary",
}


# --- reconstruction


def reconstruction_metrics(cubes: list[CubeEncoding], train: list[CubeEncoding], box: float) -> dict:
    """FVU, r(k) and T(k) of held-out cubes beside those of the strongest Fourier modes of the training slices.

    box   side of a slice [Mpc/h]
    """
    truth, recon = pooled(cubes)
    pca = fourier_pca(pooled(train)[0], min(N_PCA, truth.shape[-1] ** 2 // 2))
    linear = project(truth, pca)
    k, r = correlation(truth, recon, box)
    r_pca = correlation(truth, linear, box)[1]
    return {
        "fvu": float(fvu(truth, recon)),
        "fvu_pca": float(fvu(truth, linear)),
        "k": k.tolist(),
        "r": r.tolist(),
        "r_pca": r_pca.tolist(),
        "transfer": transfer_function(recon, truth, box)[1].mean(dim=0).tolist(),
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
    """KLs in nats and active units on held-out slices."""
    kl_z = torch.stack([kl_by_dimension(cube.z.mu, cube.z.logvar) for cube in cubes])
    kl_h = torch.cat([kl_by_dimension(*cube.h, *cube.prior) for cube in cubes])
    return {
        "kl_z": float(kl_z.sum(dim=1).mean()),
        "kl_h": float(kl_h.sum(dim=1).mean()),
        "active_z": int(active_units(torch.stack([cube.z.mu for cube in cubes]))),
        "active_h": int(active_units(torch.cat([cube.h.mu for cube in cubes]))),
    }


# --- parameters


def r2_interval(truth: np.ndarray, predicted: np.ndarray) -> list[float]:
    """68 % percentile bootstrap of R^2 over cubes, [low, high].

    truth, predicted   (m,) of the cubes
    NaN where the truth does not vary, and for fewer than five cubes.
    """
    from scipy.stats import bootstrap

    def score(a: np.ndarray, b: np.ndarray) -> float:
        return float(r2(a[:, None], b[:, None])[0])

    if len(truth) < 5 or not math.isfinite(score(truth, predicted)):
        return [math.nan, math.nan]
    found = bootstrap((truth, predicted), score, n_resamples=1000, paired=True, vectorized=False, method="percentile",
                      confidence_level=0.68, rng=0).confidence_interval  # fmt: skip
    return [float(found.low), float(found.high)]


class CalibratedProbe(NamedTuple):
    """A regression judged on cubes that it did not see, and how well it knows its own error.

    predicted (m, p);  r2, error (p,)   as `ProbeResult`;  r2_interval (p, 2)
    width (p,)        half width of the interval that is to hold 68 %, in units of the parameter
    coverage (p, l)   share of the unseen cubes inside the interval of each of LEVELS
    """

    predicted: np.ndarray
    r2: np.ndarray
    r2_interval: np.ndarray
    error: np.ndarray
    width: np.ndarray
    coverage: np.ndarray

    def named(self, names: list[str]) -> dict:
        """JSON values: a dictionary by name of the parameter for each number."""
        parts = {key: getattr(self, key).tolist() for key in ("r2", "r2_interval", "error", "width", "coverage")}
        named = {key: dict(zip(names, values, strict=True)) for key, values in parts.items()}
        return named | {"predicted": self.predicted.tolist()}


def residuals_of(train: np.ndarray, params: np.ndarray) -> np.ndarray:
    """Residuals (n, p) of training cubes, each predicted by a ridge that is fitted to other cubes (5 folds)."""
    from sklearn.model_selection import KFold, cross_val_predict

    folds = KFold(min(5, len(train)), shuffle=True, random_state=0)
    return params - cross_val_predict(ridge(), train, params, cv=folds).reshape(params.shape)


def half_widths(residuals: np.ndarray, levels: np.ndarray | float) -> np.ndarray:
    """Half widths (p, l) of intervals that hold a new cube with at least these probabilities.

    The ceil((n + 1) level)-th smallest of n absolute residuals (n, p): split-conformal intervals (Lei et al. 2018,
    arXiv:1604.04173), here from out-of-fold residuals.
    """
    n = len(residuals)
    rank = np.minimum(np.ceil((n + 1) * np.atleast_1d(levels)).astype(int), n) - 1
    return np.sort(np.abs(residuals), axis=0)[rank].T


def calibrated_probe(train: np.ndarray, params: np.ndarray, test: np.ndarray, truth: np.ndarray) -> CalibratedProbe:
    """`probe` with intervals.

    train, params   (n, d), (n, p) of the cubes that teach
    test, truth     (m, d), (m, p) of the cubes that judge
    """
    residuals, found = residuals_of(train, params), probe(train, params, test, truth)
    inside = np.abs(found.predicted - truth)[..., None] <= half_widths(residuals, LEVELS)  # (m, p, l)
    intervals = [r2_interval(*columns) for columns in zip(truth.T, found.predicted.T, strict=True)]
    return CalibratedProbe(
        found.predicted, found.r2, np.array(intervals), found.error, half_widths(residuals, 0.68)[:, 0],
        inside.mean(axis=0),
    )  # fmt: skip


def probe_table(train: FeatureTable, test: FeatureTable, n_slices: int = 15) -> dict[str, CalibratedProbe]:
    """Ridges on z, on log P(k), on the pixel density and on what the encoder is wired to, of the same slices."""
    i = train.at(n_slices)
    return {
        name: calibrated_probe(getattr(train, field)[:, i], train.params, getattr(test, field)[:, i], test.params)
        for name, field in PROBED.items()
    }


def slice_curve(train: FeatureTable, test: FeatureTable) -> dict[str, list]:
    """How many slices are enough: for each number of slices, ridges on z and P(k) and the width of q(z).

    Returns {"sizes"} and, a row for each of these,
      r2, r2_power, error   of each parameter
      kl                    KL(q(z) || N(0, I)) [nats]
      read_width            of each parameter, the width of q(z) as the ridge reads it, in units of the parameter: what
                            the model believes that its error is
    """
    rows = []
    for i in range(len(train.sizes)):
        z, power = (
            probe(getattr(train, f)[:, i], train.params, getattr(test, f)[:, i], test.params) for f in ("mu", "power")
        )
        sigma = np.exp(0.5 * test.logvar[:, i])
        kl = kl_by_dimension(*(torch.from_numpy(x[:, i]) for x in (test.mu, test.logvar))).sum(dim=1).mean()
        weights = ridge().fit(train.mu[:, i], train.params).coef_
        rows.append({
            "r2": z.r2.tolist(), "r2_power": power.r2.tolist(), "error": z.error.tolist(), "kl": float(kl),
            "read_width": np.sqrt((np.square(sigma) @ np.square(np.atleast_2d(weights)).T).mean(axis=0)).tolist(),
        })  # fmt: skip
    return {"sizes": train.sizes.tolist()} | {name: [row[name] for row in rows] for name in rows[0]}


def cube_curve(train: FeatureTable, test: FeatureTable, n_slices: int = 15, n_draws: int = 4, seed: int = 0) -> dict:
    """How many cubes teach the ridge on z: R^2 on the test cubes, the mean over random draws of training cubes.

    Returns {"counts" (c,), "r2" (c, p)}.
    """
    rng, n, z = np.random.default_rng(seed), len(train.cubes), train.z(n_slices)
    counts = [count for count in (25, 50, 100, 200, 400, 800) if count < n] + [n]
    rows = []
    for count in counts:
        chosen = [rng.choice(n, count, replace=False) for _ in range(n_draws if count < n else 1)]
        draws = [probe(z[i], train.params[i], test.z(n_slices), test.params).r2 for i in chosen]
        rows.append(np.mean(draws, axis=0).tolist())
    return {"counts": counts, "r2": rows}


# --- what a reader is shown


def probe_summary(probes: dict[str, dict]) -> pd.DataFrame:
    """Kept probes as a table of texts: R^2 with its 68 % interval and the error of each parameter."""
    rows = {}
    for name, kept in probes.items():
        rows[name] = {
            f"R2 of {p}": "does not vary" if value is None else f"{value:.2f}" for p, value in kept["r2"].items()
        }
        for p, (low, high) in kept.get("r2_interval", {}).items():
            rows[name][f"R2 of {p}"] += "" if low is None else f" ({low:.2f} to {high:.2f})"
        rows[name] |= {f"error of {p}": f"{value:.3f}" for p, value in kept["error"].items()}
    return pd.DataFrame(rows).T.fillna("")


def verdict(one: list, other: list) -> str:
    """How the interval of a score stands to another's: better than, worse than, or level with where they overlap."""
    if None in (*one, *other):
        return "not to be compared (fewer than five cubes) with"
    return "better than" if one[0] > other[1] else "worse than" if one[1] < other[0] else "level with"
