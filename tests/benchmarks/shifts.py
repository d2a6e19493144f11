"""Closure, and cubes that are not as those of the training: bias, coverage, and whether the run says so."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from uvae_lib.analysis.controls import familiarity
from uvae_lib.analysis.features import encode_cubes, encode_suite, evenly
from uvae_lib.analysis.metrics import probe, ridge
from uvae_lib.analysis.posterior import posterior_metrics
from uvae_lib.analysis.responses import closure as read_back
from uvae_lib.cubes.suite import CubeSuite
from uvae_lib.generation.sample import complete_means
from uvae_lib.presets import locate
from uvae_lib.runs.encode import encode_set, set_features
from uvae_lib.simulation.suite import simulate_suite
from uvae_lib.statistics import fvu

from .judge import N_SLICES, SEED, Judge, coefficients, rms

SWAPS = (0.4, 0.8, 1.6)  # [h/Mpc], where the small scales of true and completed slices are swapped
TRACERS = 8.0  # a voxel, of thinned cubes


class Changed:
    """Some cubes of a suite, each changed by a function of its overdensity (N, N, N) and a random generator."""

    def __init__(self, suite: CubeSuite, change, n: int):
        self.suite, self.change, self.n_cubes = suite, change, min(n, suite.n_cubes)
        self.params = suite.params.iloc[: self.n_cubes]

    def __getattr__(self, name: str):
        return getattr(self.suite, name)

    def overdensity(self, cube: int) -> np.ndarray:
        y = self.change(self.suite.overdensity(cube), np.random.default_rng(cube)).clip(min=0)
        return (y / y.mean()).astype(np.float32)


def _blurred(y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    from scipy.ndimage import gaussian_filter

    return gaussian_filter(y, 0.5, mode="wrap")


CHANGES = {
    "as trained": lambda y, rng: y,
    "pixel noise of 10 %": lambda y, rng: y * (1 + 0.1 * rng.standard_normal(y.shape)),
    "smoothed by half a voxel": _blurred,
    f"thinned to {TRACERS:g} tracers a voxel": lambda y, rng: rng.poisson(TRACERS * y) / TRACERS,
}


def shifts(judge: Judge, n: int) -> dict:
    """For each kind of change: bias of the ridges in their errors, coverage of the posterior, AUROC of the warning.

    n   judged universes that are changed
    """
    from sklearn.metrics import roc_auc_score

    run, learned = judge.run, judge.learned
    unseen = encode_cubes(run, judge.suite, run.split["val"] + run.split["test"], N_SLICES)
    known = familiarity(run, judge.everything, [float(fvu(cube.truth, cube.recon)) for cube in unseen])
    scattered = judge.scattering()[0].rows(learned.cubes.tolist())
    suites = {name: Changed(judge.judged, change, n) for name, change in CHANGES.items()}
    if any(judge.judged.files[0].path.parent.glob("simulation_*.json")):
        steps = max(1, run.config.simulation.n_steps // 2)
        settings = replace(run.config.simulation, n_lh=n, n_cv=0, n_1p=0, seed=SEED + 1, n_steps=steps)
        coarse = simulate_suite(locate(f"{judge.judged.files[0].path.parent}-{steps}-steps"), settings)["LH"]
        suites[f"{steps} steps in place of {run.config.simulation.n_steps}"] = coarse
    rows, alike = {}, None
    for name, suite in suites.items():
        table = encode_suite(run, suite, N_SLICES)
        cubes = encode_cubes(run, suite, table.cubes.tolist(), N_SLICES)
        values = np.stack([coefficients(run, suite, i, table)[table.at(N_SLICES)] for i in range(suite.n_cubes)])
        errors = np.array([float(fvu(cube.truth, cube.recon)) for cube in cubes])
        chance = known.probability(table.z(), errors)
        alike = chance if alike is None else alike
        pairs = {"z": (learned.z(), table.z()), "P(k), PDF, moments": (learned.statistics(), table.statistics()),
                 "scattering": (scattered.z(), values)}  # fmt: skip
        row = {"bias": {}, "n": suite.n_cubes}
        for reader, (a, b) in pairs.items():
            gaps = probe(a, learned.params, b) - table.params
            row["bias"][reader] = (gaps.mean(axis=0) / judge_error(judge, reader)).tolist()
        if judge.posterior:
            shares = posterior_metrics(judge.posterior, table, N_SLICES)["coverage"]
            levels = np.linspace(0.05, 0.95, len(shares["both"]))
            row["coverage"] = {key: float(np.interp(0.68, levels, x)) for key, x in shares.items()}
        if np.isfinite(chance).all():
            labels, scores = np.repeat([0, 1], [len(alike), len(chance)]), -np.concatenate([alike, chance])
            row["auroc"], row["warned"] = float(roc_auc_score(labels, scores)), float((chance < 0.01).mean())
        rows[name] = row
    return {"rows": rows, "names": judge.names}


def judge_error(judge: Judge, reader: str) -> np.ndarray:
    """Rms error (p,) of the ridge of a reader on the judged universes as they are."""
    learned, test = judge.learned, judge.test
    if reader == "scattering":
        a, b = judge.scattering()
        pair = a.rows(learned.cubes.tolist()).z(), b.z()
    else:
        pair = (learned.z(), test.z()) if reader == "z" else (learned.statistics(), test.statistics())
    return rms(probe(pair[0], learned.params, pair[1]) - test.params)


def closure(judge: Judge, side: int = 4) -> dict:
    """Parameters that are asked and read back from drawn slices, in errors of the ridge on z."""
    found, error = read_back(judge.run, judge.learned, side=side), judge_error(judge, "z")
    asked, read, path = (np.array(found[key]) for key in ("asked", "read", "path"))
    learned, test = judge.learned, judge.test

    def terms(x: np.ndarray) -> np.ndarray:
        return np.column_stack([np.ones(len(x)), x, x**2, x.prod(axis=1)])

    off = ridge().fit(learned.z(), learned.params).predict(test.z()) - test.params  # of universes that were not drawn
    weights = np.linalg.lstsq(terms(test.params), off, rcond=None)[0]
    gaps = {
        "drawn slices": read - asked,
        "path of z, nothing drawn": path - asked,
        "judged universes": terms(asked) @ weights,
    }
    sizes = {name: np.abs(gap) / error for name, gap in gaps.items()}
    rows = {name: {"median": np.median(x, axis=0), "largest": x.max(axis=0)} for name, x in sizes.items()}
    return {"rows": rows, "names": judge.names, "arrows": found, "error": error}


def swapped(coarse: Tensor, fine: Tensor, limit: float) -> Tensor:
    """Waves of `coarse` up to `limit` [waves across the slice] and of `fine` beyond; both (n, 1, H, H)."""
    size = coarse.shape[-1]
    k = torch.hypot(torch.fft.fftfreq(size, 1 / size)[:, None], torch.arange(size // 2 + 1.0))
    modes = torch.where(k <= limit, torch.fft.rfft2(coarse), torch.fft.rfft2(fine))
    return torch.fft.irfft2(modes, s=(size, size))


def scales(judge: Judge, n: int = 48) -> dict:
    """Which scales of completed slices the ridge on z reads wrongly: bias in its errors, with scales swapped.

    True slices are reconstructed and completed, so that both share their large structures; then waves above or below a
    wave number are those of the true slices.

    n   judged universes, at most
    """
    run, learned = judge.run, judge.learned
    reader, error = ridge().fit(learned.z(), learned.params), judge_error(judge, "z")
    generator, read = torch.Generator().manual_seed(0), {}
    chosen = evenly(list(range(judge.judged.n_cubes)), n)
    waves = run.image_box / (2 * np.pi)  # across a slice, for 1 h/Mpc
    for cube in encode_cubes(run, judge.judged, chosen, N_SLICES):
        drawn = complete_means(run, cube.recon, cube.z.mu, torch.randn(cube.truth.shape, generator=generator))
        sets = {"true slices": cube.truth, "completed slices": drawn}
        for k in SWAPS:
            sets[f"completed below {k} h/Mpc, true above"] = swapped(drawn, cube.truth, k * waves)
            sets[f"true below {k} h/Mpc, completed above"] = swapped(cube.truth, drawn, k * waves)
        for name, slices in sets.items():
            read.setdefault(name, []).append(encode_set(run, set_features(run, slices)).mu.numpy())
    truth = judge.test.params[chosen]
    off = {name: (reader.predict(np.stack(z)).reshape(truth.shape) - truth) / error for name, z in read.items()}
    rows = {name: {"bias": x.mean(axis=0), "error": x.std(axis=0) / len(x) ** 0.5} for name, x in off.items()}
    return {"rows": rows, "names": judge.names, "n": len(chosen)}
