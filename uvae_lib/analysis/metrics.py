"""How good a run is, on cubes that it never saw, always beside a reference: truth against truth, PCA, P(k).

`evaluate` gives one nested dictionary of plain numbers, `evaluate_run` writes it as metrics.json with its figures.
Intervals are 68 % bootstrap intervals over cubes.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from .. import latents, plots
from ..cubes import CubeSuite
from ..files import atomic_path, write_atomically
from ..loss import active_units, kl_by_dimension
from ..presets import PARAMETERS
from ..runs import Run, load_run, provenance, weights_key
from ..statistics import (
    cross_correlation,
    fourier_pca,
    power_spectrum,
    project,
    transfer_function,
)
from ..variants import covers_box
from ..variants.residuals import ResidualNoise, fit_corrections, fit_noise

QUANTILES = (0.01, 0.99)  # of the pixels, between which densities are compared
N_PCA = 512
N_DRAWN = 1440  # new slices from which their corrections are fitted
VERSION = 3  # of what is kept in metrics.json


@dataclass
class CubeEncoding:
    """Slices of one cube and what the model makes of them.

    truth, recon (n, 1, H, H) pixels;  z: q(z | all n slices);  h: q(h | slice, z);  prior: p(h | z)
    """

    cube: int
    truth: Tensor
    recon: Tensor
    z: latents.Posterior
    h: latents.Posterior
    prior: latents.Posterior


def encode_cubes(
    run: Run, suite: CubeSuite, cubes: list[int], n_slices: int, progress: bool = False
) -> list[CubeEncoding]:
    """Encode and reconstruct n_slices of each cube; each slice is reconstructed given the other slices."""
    views = []
    for cube in tqdm(cubes, desc="look", unit="cube", disable=not progress):
        truth = latents.spread_slices(run, suite, cube, n_slices, seed=cube)
        features = latents.slice_features(run, truth)
        zs = latents.set_features(run, truth, features)
        z, others = latents.encode_set(run, zs), latents.encode_others(run, zs)
        h = latents.encode_slices(run, truth, others, features)
        views.append(CubeEncoding(cube, truth, latents.decode(run, h.mu), z, h, latents.prior_of_h(run, others)))
    return views


def residual_noise(run: Run, views: list[CubeEncoding], seed: int = 0) -> ResidualNoise:
    """What completes decoded means: noise, and corrections of new slices, from cubes that were looked at."""
    z, truth = torch.stack([view.z.mu for view in views]), [view.truth for view in views]
    noise = fit_noise(truth, [view.recon for view in views], z, covers_box(run.config, run.side))
    generator, few = torch.Generator().manual_seed(seed), max(1, N_DRAWN // len(views))
    drawn = [latents.sample_slices(run, view.z, few, generator, noise.complete) for view in views]
    noise.corrections = fit_corrections(truth, drawn, z, noise.rings)
    return noise


def evaluate(run: Run, suite: CubeSuite, *, n_slices: int = 15, seed: int = 0, progress: bool = False) -> dict:
    """All metrics of a run on its test cubes. See the names in the result; shares and ratios have no unit."""
    generator = torch.Generator().manual_seed(seed)
    val = encode_cubes(run, suite, run.split["val"], n_slices, progress)
    test = encode_cubes(run, suite, run.split["test"], n_slices, progress)
    train = encode_cubes(run, suite, run.split["train"], n_slices, progress)
    noise = residual_noise(run, train + val)
    dreams = latents.sample_universes(n_slices * len(test), generator, torch.stack([v.z.mu for v in train]))
    pca = fourier_pca(torch.cat([view.truth[:, 0] for view in train]), _n_pca(run))
    metrics = {
        "cubes": {part: len(run.split[part]) for part in run.split},
        "slices_per_cube": n_slices,
        "reconstruction": reconstruction_metrics(test, pca, run.image_box),
        "train": {"fvu": _fvu(train)[0]},
        "latents": latent_metrics(test),
        "mean_plus_noise": field_metrics(
            [v.truth for v in test],
            [v.recon + noise.draw(v.recon, v.z.mu.expand(n_slices, -1), generator) for v in test],
            run.image_box,
        ),
        "observed_universe": field_metrics(
            [v.truth for v in test],
            [latents.sample_slices(run, v.z, n_slices, generator, noise.complete) for v in test],
            run.image_box,
        ),
        "truth_against_truth": field_metrics(
            [v.truth[::2] for v in test], [v.truth[1::2] for v in test], run.image_box
        ),
        "dreamt_universe": field_metrics(
            [torch.cat([v.truth for v in test])],
            [latents.sample_slices(run, dreams, len(dreams.mu), generator, noise.complete)],
            run.image_box,
        ),
        "prior_universe": field_metrics(
            [torch.cat([v.truth for v in test])],
            [latents.sample_slices(run, None, n_slices * len(test), generator, noise.complete)],
            run.image_box,
        ),
    }
    if set(PARAMETERS) <= set(suite.params):
        metrics["probe"] = probe_metrics(run, suite, train + val, test)
    return metrics


def _n_pca(run: Run) -> int:
    """512 components, or half of the pixels of the small images of tests."""
    return min(N_PCA, run.config.data.image_size**2 // 2)


def _fvu(views: list[CubeEncoding], approximation=None) -> tuple[float, list[float]]:
    """Unexplained share of the pixels' variance, and its bootstrap interval over cubes."""
    from scipy.stats import bootstrap

    pairs = [(v.truth, v.recon if approximation is None else approximation(v.truth)) for v in views]
    mean = torch.cat([truth for truth, _ in pairs]).mean()
    lost, power = ([float((t - x).square().mean()) for t, x in rows] for rows in (pairs, [(t, mean) for t, _ in pairs]))
    found = sum(lost) / sum(power)
    if len(views) < 2:
        return found, [math.nan, math.nan]
    interval = bootstrap(
        (lost, power), lambda a, b, axis: a.sum(axis) / b.sum(axis), n_resamples=1000, paired=True, method="percentile",
        confidence_level=0.68, rng=0,
    ).confidence_interval  # fmt: skip
    return found, [float(x) for x in interval]


def reconstruction_metrics(views: list[CubeEncoding], pca, box: float) -> dict:
    """FVU beside the PCA's, r(k) and T(k) beside the PCA's, and the k up to which r(k) >= 0.9."""
    fvu, interval = _fvu(views)
    pca_fvu, pca_interval = _fvu(views, lambda truth: project(truth, pca))
    truth, recon = (torch.cat([getattr(v, name)[:, 0] for v in views]) for name in ("truth", "recon"))
    linear = project(truth, pca)
    k = cross_correlation(truth, recon, box)[0]
    # what has no power at some k correlates with nothing there
    r, r_pca = (cross_correlation(truth, x, box)[1].nan_to_num(0.0).mean(dim=0) for x in (recon, linear))
    return {
        "fvu": fvu,
        "fvu_interval": interval,
        "fvu_pca": pca_fvu,
        "fvu_pca_interval": pca_interval,
        "fvu_over_pca": fvu / pca_fvu,
        "fvu_by_slice": (truth - recon).square().mean(dim=(1, 2)).div(truth.var(dim=(1, 2))).tolist(),
        "k": k.tolist(),
        "r": r.tolist(),
        "r_pca": r_pca.tolist(),
        "transfer": transfer_function(recon, truth, box)[1].mean(dim=0).tolist(),
        "k_r90": k_at_correlation(k, r),
        "k_r90_pca": k_at_correlation(k, r_pca),
    }


def k_at_correlation(k: Tensor, r: Tensor, level: float = 0.9) -> float:
    """Largest k [h/Mpc] up to which r stays at or above the level; 0 when it never is."""
    below = (r < level).nonzero()
    last = int(below[0]) if len(below) else len(r)
    return float(k[last - 1]) if last else 0.0


def field_metrics(truth: list[Tensor], other: list[Tensor], box: float) -> dict:
    """P(k) and pixel density of other slices over the truth's, cube by cube.

    The ratios are of means over a cube's slices; `power` is their median over cubes with the 16 and 84 %
    quantiles, `power_error` the largest departure of the median from 1 up to half the Nyquist frequency,
    `pdf_error` that of the density of pixels in 20 bins between the 1 and 99 % quantiles of the truth,
    pooled over cubes.
    """
    spectra = [[power_spectrum(x[:, 0], box) for x in fields] for fields in (truth, other)]
    k = spectra[0][0][0]
    ratio = torch.stack([b[1].mean(dim=0) / a[1].mean(dim=0) for a, b in zip(*spectra, strict=True)])
    low, median, high = ratio.quantile(torch.tensor([0.16, 0.5, 0.84]), dim=0)
    mean_ratio = sum(b[1].mean(0) for b in spectra[1]) / sum(a[1].mean(0) for a in spectra[0])
    half = k <= 0.5 * k.max()
    pooled, found = torch.cat(truth).flatten(), torch.cat(other).flatten()
    edges = torch.from_numpy(np.quantile(pooled.numpy(), np.linspace(*QUANTILES, 21))).float()
    density = torch.stack([torch.histogram(x, edges).hist / len(x) for x in (pooled, found)])
    pdf = density[1] / density[0]
    return {
        "k": k.tolist(),
        "power": median.tolist(),
        "power_low": low.tolist(),
        "power_high": high.tolist(),
        "power_mean": mean_ratio.tolist(),
        "power_error": float((median[half] - 1).abs().max()),
        "pdf_edges": edges.tolist(),
        "pdf": pdf.tolist(),
        "pdf_error": float((pdf - 1).abs().max()),
    }


def latent_metrics(views: list[CubeEncoding]) -> dict:
    """KLs in nats and active units on held-out slices."""
    kl_z = torch.stack([kl_by_dimension(v.z.mu, v.z.logvar) for v in views])
    kl_h = torch.cat([kl_by_dimension(*v.h, *v.prior) for v in views])
    return {
        "kl_z": float(kl_z.sum(dim=1).mean()),
        "kl_h": float(kl_h.sum(dim=1).mean()),
        "active_z": int(active_units(torch.stack([v.z.mu for v in views]))),
        "active_h": int(active_units(torch.cat([v.h.mu for v in views]))),
    }


def probe_metrics(run: Run, suite: CubeSuite, train: list[CubeEncoding], test: list[CubeEncoding]) -> dict:
    """R^2 and error of a ridge on the mean of z, and of a ridge on log P(k) of the same slices."""
    params = suite.params[list(PARAMETERS)].to_numpy()
    labels = [params[[v.cube for v in views]] for views in (train, test)]

    def spectrum(view: CubeEncoding) -> np.ndarray:
        return power_spectrum(view.truth[:, 0], run.image_box)[1].mean(dim=0).log().numpy()

    features = {"z": lambda v: v.z.mu.numpy(), "power": spectrum}
    result = {}
    for name, feature in features.items():
        rows = [np.stack([feature(v) for v in views]) for views in (train, test)]
        found = latents.probe(rows[0], labels[0], rows[1], labels[1])
        result[name] = {
            "r2": dict(zip(PARAMETERS, found.r2.tolist(), strict=True)),
            "error": dict(zip(PARAMETERS, found.error.tolist(), strict=True)),
            "predicted": found.predicted.tolist(),
        }
    return result | {"truth": labels[1].tolist()}


def summary(metrics: dict) -> str:
    """The headline numbers as a table, each beside its reference."""
    r, truth = metrics["reconstruction"], metrics["truth_against_truth"]
    rows = [
        ("FVU / PCA-512", r["fvu"], r["fvu_pca"]),
        ("FVU on training cubes / PCA-512", metrics["train"]["fvu"], r["fvu_pca"]),
        ("k of r(k) >= 0.9 [h/Mpc] / PCA-512", r["k_r90"], r["k_r90_pca"]),
    ]
    for name in ("mean_plus_noise", "observed_universe", "dreamt_universe", "prior_universe"):
        rows.append((f"{name}: P(k) error / truth-truth", metrics[name]["power_error"], truth["power_error"]))
        rows.append((f"{name}: PDF error / truth-truth", metrics[name]["pdf_error"], truth["pdf_error"]))
    latent = metrics["latents"]
    rows += [("KL(z), KL(h) [nats]", latent["kl_z"], latent["kl_h"])]
    rows += [("active units of z, h", latent["active_z"], latent["active_h"])]
    for name in PARAMETERS if "probe" in metrics else ():
        rows.append((f"R^2 of {name}: z / P(k)", *(metrics["probe"][key]["r2"][name] for key in ("z", "power"))))
    rows = [(name, *(math.nan if x is None else x for x in pair)) for name, *pair in rows]  # JSON has no NaN
    return "\n".join(f"{name:48s} {value:10.4g} {reference:10.4g}" for name, value, reference in rows)


def kept_metrics(run: Run, suite: CubeSuite, n_slices: int = 15, progress: bool = False) -> dict:
    """`evaluate` from metrics.json where these weights made it, else made and kept."""
    key, path = weights_key(run, VERSION, n_slices), run.folder / "metrics.json"
    if path.exists():
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept.get("weights") == key:
            return kept
    found = evaluate(run, suite, n_slices=n_slices, progress=progress)
    found = plain_json(found) | {"weights": key, "made": provenance()}
    write_atomically(path, json.dumps(found, indent=1))
    return found


def plain_json(value):
    """Nested values as JSON has them: NaN and infinity become None."""
    if isinstance(value, dict):
        return {str(key): plain_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_json(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def evaluate_run(folder: str | Path, *, n_slices: int = 15, progress: bool = True) -> dict:
    """Evaluate a run folder: writes metrics.json and figures/ into it. Returns the metrics."""
    run = load_run(folder)
    suite = run.open_suite()
    metrics = kept_metrics(run, suite, n_slices, progress)
    for name, figure in figures(run, suite, metrics).items():
        with atomic_path(run.folder / "figures" / f"{name}.png") as path:
            figure.savefig(path, format="png", dpi=120)
    return metrics


def figures(run: Run, suite: CubeSuite, metrics: dict) -> dict:
    """The figures that belong to the metrics, by name; reconstructions worst first."""
    views = encode_cubes(run, suite, run.split["test"][:4], 9)
    truth, recon = (run.to_log(torch.cat([getattr(v, name)[:, 0] for v in views])) for name in ("truth", "recon"))
    order = (truth - recon).square().mean(dim=(1, 2)).argsort(descending=True)
    chosen = order[[0, len(order) // 2, -1]]
    r, seen = metrics["reconstruction"], metrics["observed_universe"]
    made = {
        "loss": plots.loss_curves(run.history),
        "reconstructions": plots.reconstructions(
            truth[chosen], recon[chosen], run.image_box, titles=["worst", "median", "best"]
        ),
        "fidelity": plots.fidelity(r["k"], {"model": r["r"], "PCA-512": r["r_pca"]}, {"model": r["transfer"]}),
        "observed_universe_power": plots.spectra(
            seen["k"],
            {
                "new slices / truth": (seen["power"], seen["power_low"], seen["power_high"]),
                "truth / truth": tuple(metrics["truth_against_truth"][n] for n in ("power", "power_low", "power_high")),
            },
            ylabel="P(k) ratio",
        ),
    }
    if "probe" in metrics:
        found = metrics["probe"]
        for i, name in enumerate(PARAMETERS):
            made[f"probe_{name}"] = plots.probe_scatter(
                np.array(found["truth"])[:, i], np.array(found["z"]["predicted"])[:, i], name=name
            )
    return made
