"""Held-out metrics, each with a reference value: reconstruction beside 512 Fourier modes, z beside statistics."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ..loss import active_units, kl_by_dimension
from ..statistics import cross_correlation, fourier_pca, fvu, project, r2, transfer_function
from .features import CubeEncoding, FeatureTable

N_PCA = 512
FEWEST_LEARNED = 4  # cubes that teach a probe
N_DRAWS = 200  # bootstrap samples of reconstruction metrics
COUNTS = (10, 25, 50, 100, 200, 400, 800)  # of labelled cubes


# --- reconstruction


def reconstruction_metrics(
    cubes: list[CubeEncoding], train: list[CubeEncoding], completed: list[Tensor], box: float
) -> dict:
    """FVU, r(k) and T(k) of held-out cubes beside those of the strongest Fourier modes of the training slices.

    completed   (n, 1, H, H) of each cube: its reconstructions with small scales drawn, for their T(k)
    box         side of a slice [Mpc/h]
    Shares and curves stand with their 68 % interval in bootstrap samples of the cubes, name_interval.
    """
    truth, recon = pooled(cubes)
    pca = fourier_pca(pooled(train)[0], min(N_PCA, truth.shape[-1] ** 2 // 2))
    linear, drawn = project(truth, pca), torch.cat(completed)[:, 0]
    k, r = cross_correlation(truth, recon, box)
    slices = {  # of each slice: curves, whose mean is taken; squared errors and variance, whose ratio is taken
        "r": r.nan_to_num(0.0),  # without power: uncorrelated
        "r_pca": cross_correlation(truth, linear, box)[1].nan_to_num(0.0),
        "transfer": transfer_function(recon, truth, box)[1],
        "transfer_completed": transfer_function(drawn, truth, box)[1],
        **{name: torch.stack([(truth - x).square().mean((1, 2)), (truth - truth.mean()).square().mean((1, 2))], dim=1)
           for name, x in (("fvu", recon), ("fvu_pca", linear))},
    }  # fmt: skip
    chosen, out = np.random.default_rng(0).integers(0, len(cubes), (N_DRAWS, len(cubes))), {"k": k.tolist()}
    for name, values in slices.items():
        draws = values.unflatten(0, (len(cubes), -1)).mean(dim=1)[chosen].mean(dim=1)
        whole, draws = (x[..., 0] / x[..., 1] if "fvu" in name else x for x in (values.mean(dim=0), draws))
        out |= {name: whole.tolist(), f"{name}_interval": np.quantile(draws, [0.16, 0.84], axis=0).tolist()}
    out |= {f"k_r90{name[1:]}": k_at_correlation(k, torch.tensor(out[name])) for name in ("r", "r_pca")}
    return out | {"fvu_train": float(fvu(*pooled(train))), "fvu_by_cube": [float(fvu(c.truth, c.recon)) for c in cubes]}


def pooled(cubes: list[CubeEncoding]) -> tuple[Tensor, Tensor]:
    """The slices of cubes and their reconstructions, (n, H, H) twice."""
    return torch.cat([cube.truth[:, 0] for cube in cubes]), torch.cat([cube.recon[:, 0] for cube in cubes])


def k_at_correlation(k: Tensor, r: Tensor, level: float = 0.9) -> float:
    """Largest k [h/Mpc] up to which r stays at or above the level; 0 when it never is."""
    below = (r < level).nonzero()
    last = int(below[0]) if len(below) else len(r)
    return float(k[last - 1]) if last else 0.0


def latent_metrics(cubes: list[CubeEncoding]) -> dict:
    """KLs of z and of h on held-out slices [nats], in all and by dimension, the largest first, and active units."""
    kl_z = torch.stack([kl_by_dimension(*cube.z) for cube in cubes])
    kl_h = torch.cat([kl_by_dimension(*cube.h, *cube.prior) for cube in cubes])
    means = torch.stack([cube.z.mu for cube in cubes]), torch.cat([cube.h.mu for cube in cubes])
    found = {}
    for name, kl, mean in zip("zh", (kl_z, kl_h), means, strict=True):
        found[f"kl_{name}"], found[f"active_{name}"] = float(kl.sum(dim=1).mean()), int(active_units(mean))
        found[f"kl_by_dimension_{name}"] = kl.mean(dim=0).sort(descending=True).values.tolist()
    return found


# --- parameters


def slope(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Slope of the line of predictions against truth: (m, p) twice -> (p,); below 1 where readings keep to the mean."""
    apart = np.where(np.ptp(truth, axis=0) > 1e-9, truth - truth.mean(axis=0), np.nan)
    return (apart * predicted).sum(axis=0) / np.square(apart).sum(axis=0)


def bootstrap(truth: np.ndarray, predicted: np.ndarray, n_draws: int = 1000, of: Callable = r2) -> np.ndarray:
    """R^2, or another number `of` these, in bootstrap samples of cubes: truth, predicted (m, p) -> (n_draws, p).

    The same cubes are drawn for the same m, so that the difference of two predictions is paired.
    """
    chosen = np.random.default_rng(0).integers(0, len(truth), (n_draws, len(truth)))
    return np.stack([of(truth[rows], predicted[rows]) for rows in chosen])


def score(truth: np.ndarray, predicted: np.ndarray, names: list[str]) -> dict:
    """R^2 with its 68 % interval over cubes (none for fewer than five), rms error, and the predictions (m, p)."""
    ends = np.full((2, len(names)), math.nan)
    if len(truth) >= 5:
        ends = np.quantile(bootstrap(truth, predicted), [0.16, 0.84], axis=0)
    parts = {"r2": r2(truth, predicted), "r2_interval": ends.T, "error": np.sqrt(np.square(predicted - truth).mean(0))}
    named = {key: dict(zip(names, values.tolist(), strict=True)) for key, values in parts.items()}
    return named | {"predicted": predicted.tolist()}


def ridge():
    """A ridge regression, of its own strength for each parameter, by leaving one training cube out (scikit-learn)."""
    from sklearn.linear_model import RidgeCV

    return RidgeCV(alphas=np.geomspace(1e-6, 1e4, 41), alpha_per_target=True)


def probe(train: np.ndarray, params: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Parameters (m, p) as a `ridge` reads them from features of cubes.

    train, params   (n, d), (n, p) of the cubes that teach it
    test            (m, d) of other cubes
    """
    return ridge().fit(train, params).predict(test).reshape(len(test), -1)


def probe_table(learned: FeatureTable, test: FeatureTable, n_slices: int = 15) -> dict[str, dict]:
    """`score` of ridges on z, on log P(k), and on P(k), PDF and moments of the same slices of test cubes.

    learned   of the cubes that teach the ridges
    """
    i, tables = learned.at(n_slices), (learned, test)
    features = {
        "z": [x.z(n_slices) for x in tables],
        "P(k)": [x.power[:, i] for x in tables],
        "P(k), PDF and moments": [x.statistics(n_slices) for x in tables],
    }
    names = test.names.tolist()
    return {name: score(test.params, probe(a, learned.params, b), names) for name, (a, b) in features.items()}


def slice_curve(learned: FeatureTable, test: FeatureTable) -> dict[str, list]:
    """How many slices are enough: R^2 of each parameter from each number of slices.

    Returns {"sizes" (s,), "r2" (s, p), "r2_statistics" (s, p)}, of ridges on z and on P(k), PDF and moments.
    """

    def curve(of: Callable[[FeatureTable, int], np.ndarray]) -> list:
        return [r2(test.params, probe(of(learned, n), learned.params, of(test, n))).tolist() for n in learned.sizes]

    found = {"r2": curve(FeatureTable.z), "r2_statistics": curve(FeatureTable.statistics)}
    return {"sizes": learned.sizes.tolist()} | found


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
        rows.append([r2(truth, probe(train[i], params[i], test)) for i in chosen])
    mean, scatter = ([measure(row, axis=0).tolist() for row in rows] for measure in (np.mean, np.std))
    return {"counts": counts, "r2": mean, "scatter": scatter}


def main_directions(z: np.ndarray, n: int = 2) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Principal components of z (m, D) of cubes: centre (D,), directions (n, D), their shares of the variance (n,)."""
    centre = z.mean(axis=0)
    _, s, rows = np.linalg.svd(z - centre, full_matrices=False)
    return centre, rows[:n], (np.square(s) / np.square(s).sum())[:n]
