"""The judged universes, and readers of their parameters: from latents, statistics and scattering coefficients.

The judged universes have a seed of their own; nothing is chosen by them.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from uvae_lib.analysis.features import FeatureTable, spread, suite_features
from uvae_lib.analysis.metrics import bootstrap, label_curve, probe, ridge, score
from uvae_lib.analysis.posterior import FEWEST_CUBES, ParameterPosterior, fit_posterior, posterior_metrics
from uvae_lib.cubes.suite import CubeSuite, open_data
from uvae_lib.presets import locate
from uvae_lib.runs.encode import most_slices, spread_slices
from uvae_lib.runs.run import Run, weights_key
from uvae_lib.simulation.suite import load_suite, simulate_suite
from uvae_lib.statistics import r2

from .floor import fisher_floor
from .scattering import scattering, wavelets

SEED = 1_000_003  # of the judged universes
N_SLICES = 15


def judged_suite(run: Run, path: Path, n: int) -> CubeSuite:
    """Universes of another seed, made as the run's were; or the cubes at the path, where somebody put some there."""
    path = locate(path)
    if path.exists() and not any(path.glob("simulation_*.json")):
        return open_data(replace(run.config.data, path=str(path)))
    settings = replace(run.config.simulation, n_lh=n, n_cv=0, n_1p=0, seed=SEED)
    return simulate_suite(path, settings)["LH"]


@dataclass
class Judge:
    """A run with its own cubes and the judged ones, everything encoded once and stored in a folder.

    suite, judged   the run's cubes; those that judge
    """

    run: Run
    suite: CubeSuite
    judged: CubeSuite
    folder: Path
    tables: dict = field(default_factory=dict)

    @classmethod
    def of(cls, run: Run, judged_path: Path, n: int, folder: Path) -> "Judge":
        load_suite(run.config)  # simulated where they are missing
        folder.mkdir(parents=True, exist_ok=True)
        return cls(run, run.open_suite(), judged_suite(run, judged_path, n), folder)

    @cached_property
    def everything(self) -> FeatureTable:
        return suite_features(self.run, self.suite, "LH", N_SLICES, self.folder, progress=True)

    @cached_property
    def test(self) -> FeatureTable:
        return suite_features(self.run, self.judged, "TEST", N_SLICES, self.folder, progress=True)

    @property
    def learned(self) -> FeatureTable:
        """Of the cubes whose labels are learned from: training and validation cubes of the run."""
        return self.everything.rows(self.run.split["train"] + self.run.split["val"])

    @property
    def sizes(self) -> list[int]:
        """1, 3, 15 and 30 slices, as far as a cube has them."""
        return [int(n) for n in self.test.sizes if n in (1, 3, N_SLICES, 2 * N_SLICES)] or [int(self.test.sizes[-1])]

    @property
    def names(self) -> list[str]:
        return self.test.names.tolist()

    @cached_property
    def posterior(self) -> ParameterPosterior | None:
        return self.fit(self.everything)

    def scattering(self) -> tuple[FeatureTable, FeatureTable]:
        """Tables of the run's and of the judged cubes with scattering coefficients in the place of z."""
        return tuple(
            replace(table, mu=values, random_sets=values[:, :, None][:, :, :0])
            for table, values in ((self.everything, self._coefficients(self.suite, "LH")),
                                  (self.test, self._coefficients(self.judged, "TEST")))
        )  # fmt: skip

    def _coefficients(self, suite: CubeSuite, name: str) -> np.ndarray:
        """Mean coefficients of the first `sizes` slices that the table describes, (n, s, d); stored."""
        table, path = self.everything if name == "LH" else self.test, self.folder / f"scattering_{name}.npz"
        key = weights_key(self.run, suite.fingerprint, table.sizes.tolist())
        if path.exists():
            with np.load(path) as stored:
                if str(stored["key"]) == key:
                    return stored["values"]
        values = np.stack([coefficients(self.run, suite, i, table) for i in range(suite.n_cubes)])
        np.savez(path, key=np.array(key), values=values)
        return values

    def fit(self, table: FeatureTable) -> ParameterPosterior | None:
        """The neural posterior of the run's training cubes, stopped early on its validation cubes."""
        train, val = (table.rows(self.run.split[part]) for part in ("train", "val"))
        return fit_posterior(train, val) if len(train.cubes) >= FEWEST_CUBES and len(val.cubes) else None


def coefficients(run: Run, suite: CubeSuite, cube: int, table: FeatureTable) -> np.ndarray:
    """Mean scattering coefficients of one cube for each number of slices of a table, of the same slices: (s, d)."""
    n = min(N_SLICES, most_slices(run, suite))
    slices = [spread_slices(run, suite, cube, n, seed=cube)]
    if table.sizes[-1] > n:
        slices.append(spread_slices(run, suite, cube, n, seed=cube, shift=0.5))
    filters = wavelets(run.config.data.image_size)
    values = torch.cat([scattering(part, filters) for part in slices]).numpy()
    chosen = [spread(n, size, len(suite.axes)) if size <= n else np.arange(size) for size in table.sizes]
    return np.stack([values[rows].mean(axis=0) for rows in chosen])


def readers(judge: Judge, n: int = N_SLICES) -> dict[str, np.ndarray]:
    """Parameters of the judged universes by name of the reader, (m, p) each, all from the same n slices."""
    learned, test, rng = judge.learned, judge.test, np.random.default_rng(0)
    coefficients_all, coefficients_test = judge.scattering()
    scattered = coefficients_all.rows(learned.cubes.tolist())

    def read(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return probe(a, learned.params, b)

    def draws(table: FeatureTable) -> np.ndarray:
        i = table.at(n)
        return table.mu[:, i] + np.exp(0.5 * table.logvar[:, i]) * rng.standard_normal(table.mu[:, i].shape)

    found = {
        "ridge on z": read(learned.z(n), test.z(n)),
        "ridge on draws of q(z)": read(draws(learned), draws(test)),
        "ridge on P(k), PDF, moments": read(learned.statistics(n), test.statistics(n)),
        "ridge on scattering": read(scattered.z(n), coefficients_test.z(n)),
    }
    posteriors = {
        "neural posterior on z": (judge.posterior, test),
        "neural posterior on scattering": (judge.fit(coefficients_all), coefficients_test),
    }
    generator = torch.Generator().manual_seed(0)
    for name, (posterior, table) in posteriors.items():
        if posterior and posterior.names == judge.names:
            z = torch.from_numpy(table.z(n)).float()
            found[name] = posterior.sample(z, n, 1000, generator).mean(dim=0).double().numpy()
    return found


def parameters(judge: Judge, n: int = N_SLICES) -> dict:
    """Scores of all readers, and how much better than them a ridge, or a posterior, on z is (paired bootstrap)."""
    truth, found = judge.test.params, readers(judge, n)
    drawn = {name: bootstrap(truth, predicted) for name, predicted in found.items()}
    rows = {}
    for name, predicted in found.items():
        rival = drawn["neural posterior on z" if name.startswith("neural") else "ridge on z"] - drawn[name]
        rows[name] = score(truth, predicted, judge.names) | {
            "z_minus_this": {p: [float(x.mean()), float(x.std())] for p, x in zip(judge.names, rival.T, strict=True)}
        }
        rows[name].pop("predicted")
    learned = judge.learned
    try:
        floor = fisher_floor(learned.power[:, -1], learned.params, judge.names, judge.run.config.data.image_size, (n,))
    except ValueError as error:  # too few cubes
        floor = {"missing": str(error)}
    return {"n": len(truth), "learned": len(learned.cubes), "slices": n, "readers": rows, "floor": floor}


def labels(judge: Judge) -> dict:
    """R^2 against the number of labelled cubes, of ridges on z, statistics and scattering coefficients."""
    learned, test = judge.learned, judge.test
    scattered, coefficients_test = judge.scattering()
    features: dict[str, Callable] = {
        "z": (learned.z(), test.z()),
        "P(k), PDF, moments": (learned.statistics(), test.statistics()),
        "scattering": (scattered.rows(learned.cubes.tolist()).z(), coefficients_test.z()),
    }
    return {name: label_curve(a, learned.params, b, test.params) for name, (a, b) in features.items()}


def slices(judge: Judge) -> dict:
    """At 1, 3, 15 and 30 slices: R^2 from means and draws of q(z), the width of q(z) over the error, coverage."""
    learned, test, rng, rows = judge.learned, judge.test, np.random.default_rng(1), []
    for n in judge.sizes:
        i = test.at(n)
        draws = [t.mu[:, i] + np.exp(0.5 * t.logvar[:, i]) * rng.standard_normal(t.mu[:, i].shape)
                 for t in (learned, test)]  # fmt: skip
        mean, drawn = (probe(a, learned.params, b) for a, b in ((learned.z(n), test.z(n)), draws))
        weights = np.atleast_2d(ridge().fit(learned.z(n), learned.params).coef_)
        width = np.sqrt((np.exp(test.logvar[:, i]) @ np.square(weights).T).mean(axis=0))
        row = {"slices": n, "r2": r2(test.params, mean), "r2_draws": r2(test.params, drawn)}
        row["width_over_error"] = width / rms(mean - test.params)
        if judge.posterior:
            found = posterior_metrics(judge.posterior, test, n)
            row["posterior_r2"] = list(found["r2"].values())
            row["coverage"] = {k: float(np.interp(0.68, found["levels"], x)) for k, x in found["coverage"].items()}
        rows.append(row)
    return {"rows": rows, "band": float(np.sqrt(0.68 * 0.32 / len(test.cubes)))}


def rms(gaps: np.ndarray) -> np.ndarray:
    """Root mean square over cubes of (m, p): (p,)."""
    return np.sqrt(np.square(gaps).mean(axis=0))
