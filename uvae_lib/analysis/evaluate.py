"""Evaluation of a run on cubes that it never saw: `evaluate_run` measures once and writes metrics.json.

Cubes are encoded (`features`) and handed to metrics, samples, controls and responses. What a suite is too
small for, or has no parameters or sets for, is absent, and `missing` says why in a sentence.
"""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..cubes.suite import CubeSuite
from ..files import Absent, plain_values, write_atomically
from ..generation.flows import flows_of
from ..generation.sample import complete_means, sample_slices
from ..runs.encode import most_slices, spread_slices
from ..runs.run import Run, build, load_run, provenance, weights_key
from ..runs.universes import open_set
from ..statistics import fvu
from . import controls, metrics, responses
from .features import CubeEncoding, FeatureTable, encode_cubes, evenly, suite_features
from .posterior import FEWEST_CUBES, posterior_metrics, run_posterior
from .samples import compare_numbers, slice_numbers

N_TRAIN = 128  # training cubes, at most, whose slices are reconstructed
N_DRAWN_CUBES = 24  # held-out universes, at most, of which slices are drawn
N_COPIES = 16  # drawn slices, and true ones, whose nearest training slice is looked for
SAMPLES = {  # key of metrics["samples"]: what it is called
    "true": "other true slices",
    "observed": "completed, observed universes",
    "note": "the note's samples",
    "prior": "completed, z ~ N(0, I)",
}
VERSION = 9  # of metrics.json
CAUSES = {  # what is absent, and where `missing` says why
    "slices": "parameters", "posterior": "parameters", "closure": "parameters", "shuffled": "two_sample",
    "unseen_errors": "two_sample", "one_cosmology": "CV", "axes_of_one_cosmology": "CV",
}  # fmt: skip


class Metrics(dict):
    """What was measured. What these cubes are too few for, or have no parameters or sets for, is `Absent`.

    Raises KeyError for a name without a measurement or a reason.
    """

    def __init__(self, found: dict, missing: dict | None = None):
        super().__init__(found)
        self._missing = found["missing"] if missing is None else missing
        if "controls" in found:
            self["controls"] = Metrics(found["controls"], self._missing)

    def __missing__(self, key: str) -> Absent:
        return Absent(self._missing[key if key in self._missing else CAUSES.get(key, key)])


def evaluate_run(
    run: Run | str | Path, suite: CubeSuite | None = None, n_slices: int = 15, progress: bool = False
) -> dict:
    """All metrics of a run, JSON values; read from metrics.json where these weights and cubes made it.

    run       or its folder;  suite: the run's own cubes, opened when absent
    n_slices  of each cube, fewer where it has fewer planes

    Raises ValueError when the run has no test cubes.
    """
    run = run if isinstance(run, Run) else load_run(run)
    suite = suite or run.open_suite()
    if not run.split["test"]:
        why = "an evaluation needs cubes that were not: train on a suite of 3 or more"
        raise ValueError(f"all {suite.n_cubes} cubes of {run.folder} were trained on; {why}")
    sets = {name: open_set(run, suite, name) for name in ("CV", "1P")}
    data = [x and x.fingerprint for x in (suite, *(x for x, _ in sets.values()))]
    key = weights_key(run, VERSION, n_slices, list(suite.ids), data, flows_of(run) and flows_of(run).about["key"])
    path = run.folder / "metrics.json"
    if path.exists():
        stored = json.loads(path.read_text(encoding="utf-8"))
        if stored.get("weights") == key:
            return Metrics(stored)
    reconstructed = [*run.split["val"], *run.split["test"], *evenly(run.split["train"], N_TRAIN)]
    table = suite_features(run, suite, "LH", n_slices, progress=progress)
    cubes = dict(zip(reconstructed, encode_cubes(run, suite, reconstructed, n_slices, progress), strict=True))
    missing = {name: why for name, (_, why) in sets.items() if why}
    found = {
        "cubes": {part: len(members) for part, members in run.split.items()},
        "slices_per_cube": int(table.sizes[table.at(n_slices)]),
        "missing": missing,
        **_slice_metrics(run, suite, cubes),
        "controls": _controls(run, suite, table, cubes, sets["CV"][0], missing, progress),
        **_cosmology(run, table, sets["1P"][0], n_slices, missing),
    }
    found = plain_values(found) | {"weights": key, "made": provenance()}
    write_atomically(path, json.dumps(found, indent=1))
    return Metrics(found)


def _slice_metrics(run: Run, suite: CubeSuite, cubes: dict[int, CubeEncoding]) -> dict:
    """Reconstruction, latents, and drawn slices of held-out universes beside true ones."""
    test, train = ([cubes[i] for i in run.split[part] if i in cubes] for part in ("test", "train"))
    generator, box = torch.Generator().manual_seed(0), run.image_box
    white = (torch.randn(cube.recon.shape, generator=generator) for cube in test)
    completed = [complete_means(run, cube.recon, cube.z.mu, x) for cube, x in zip(test, white, strict=True)]
    chosen = evenly(run.split["test"], N_DRAWN_CUBES)
    n = len(test[0].truth)
    slices = {
        "true": other_slices(run, suite, chosen, n),
        "prior": [sample_slices(run, None, n * len(chosen), generator)],
        "observed": [sample_slices(run, cubes[i].z, n, generator) for i in chosen],
        "note": [sample_slices(run, cubes[i].z, n, generator, completed=False) for i in chosen],
    }
    numbers = {name: [slice_numbers(x, box) for x in part] for name, part in slices.items()}
    truth = [slice_numbers(cubes[i].truth, box) for i in chosen]
    return {
        "reconstruction": metrics.reconstruction_metrics(test, train, completed, box),
        "latents": metrics.latent_metrics(test),
        "samples": {name: compare_numbers(truth, numbers["true"], part) for name, part in numbers.items()},
    }


def other_slices(run: Run, suite: CubeSuite, cubes: list[int], n: int) -> list[Tensor]:
    """Further true slices of cubes, between those that `encode_suite` takes, (n, 1, H, H) a cube."""
    shift = 0.5 if 2 * n <= most_slices(run, suite) else 0.0
    return [spread_slices(run, suite, cube, n, seed=cube if shift else cube + 1, shift=shift) for cube in cubes]


def _controls(
    run: Run, suite: CubeSuite, table: FeatureTable, cubes: dict[int, CubeEncoding], one_cosmology: CubeSuite | None,
    missing: dict, progress: bool,
) -> dict:  # fmt: skip
    """Null tests of z, and copies of training slices."""
    test = [cubes[i] for i in run.split["test"]]
    n = len(test[0].truth)
    drawn = sample_slices(run, None, N_COPIES, torch.Generator().manual_seed(1))
    true = torch.cat([cube.truth for cube in test])
    some = true[evenly(list(range(len(true))), N_COPIES)]
    train, judged = table.rows(run.split["train"]), table.rows(run.split["test"])
    found = {
        "leaks": controls.leaks(list(suite.ids), run.split, run.info.get("cubes")),
        "memorisation": controls.memorisation_test(run, suite, drawn, some, progress),
    }
    if min(len(train.cubes), len(test)) > 1:
        found["two_sample"] = controls.two_sample(train.z(n), judged.z(n))
        found["shuffled"] = controls.shuffled_sets(run, [cube.zs for cube in test])
        unseen = run.split["val"] + run.split["test"]
        found["unseen_errors"] = [float(fvu(cubes[i].truth, cubes[i].recon)) for i in unseen]
    else:
        missing["two_sample"] = "z of training and of test cubes cannot be compared with one cube: use more cubes"
    same = suite_features(run, one_cosmology, "CV", n) if one_cosmology else None
    if same and min(len(same.cubes), len(table.cubes)) > 1:
        found["one_cosmology"] = controls.variance_ratio(same.z(n), table.z(n))
    for name, part in {"axes": judged, "axes_of_one_cosmology": same}.items():
        if part and min(part.by_axis.shape[:2]) > 1:
            found[name] = controls.axis_agreement(part.by_axis)
        elif part:
            missing[name] = "agreement between axes needs two cubes with planes along more than one axis"
    return found


def _cosmology(run: Run, table: FeatureTable, one_p: CubeSuite | None, n: int, missing: dict) -> dict:
    """What z knows of the parameters, where they are known, and what moving it along them does."""
    learned, test = table.rows(run.split["train"] + run.split["val"]), table.rows(run.split["test"])
    names = table.names.tolist()
    if not names:
        missing["parameters"] = "the cubes have no Omega_m or sigma_8; pass params= to open_cubes"
    elif len(learned.cubes) < metrics.FEWEST_LEARNED:
        fewest = f"use {metrics.FEWEST_LEARNED} or more to train on"
        missing["parameters"] = f"{len(learned.cubes)} cubes teach no probe: {fewest}"
    if "parameters" in missing:
        return {"names": [], "truth": [], "probes": {}, "labels": {}, "responses": {}}
    found = {"names": names, "truth": test.params.tolist(), "probes": metrics.probe_table(learned, test, n)}
    fixed = [name for name, value in found["probes"]["z"]["r2"].items() if not math.isfinite(value)]
    if fixed:
        missing["R2"] = f"{', '.join(fixed)} does not vary over the test cubes, so that it has no R^2"
    found["slices"] = metrics.slice_curve(learned, test)
    found["labels"] = {
        name: metrics.label_curve(features(learned, n), learned.params, features(test, n), test.params)
        for name, features in {"z": FeatureTable.z, "P(k), PDF and moments": FeatureTable.statistics}.items()
    }
    if posterior := run_posterior(run, table, n):
        found["posterior"] = posterior_metrics(posterior, test, n)
    else:
        teachers = f"{FEWEST_CUBES} or more training cubes, and validation cubes, whose parameters vary"
        missing["posterior"] = f"p(parameters | z) is learned from {teachers}"
    found["responses"] = responses.parameter_walks(run, learned, one_p, n_slices=int(table.sizes[-1]))
    found["closure"] = responses.closure(run, learned, n_slices=n)
    return found


def untrained_probes(run: Run, suite: CubeSuite, found: dict, seed: int = 0) -> dict | Absent:
    """What ridges read from z of a model with random weights: what the form of the networks alone is good for.

    found   of `evaluate_run`
    Returns {"sizes" (s,), "r2" (s, p)}, as `slice_curve`, and "predicted" (m, p) of the test cubes.
    """
    if "slices" not in found:
        return found["slices"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build(run.config, run.side).eval().requires_grad_(False).to(memory_format=torch.channels_last)
    n = found["slices_per_cube"]
    table = suite_features(replace(run, model=model), suite, "untrained", n)
    learned, test = table.rows(run.split["train"] + run.split["val"]), table.rows(run.split["test"])
    read = metrics.probe(learned.z(n), learned.params, test.z(n))
    return metrics.slice_curve(learned, test) | {"predicted": read.tolist()}


def verdicts(rows: dict[str, tuple]) -> pd.DataFrame:
    """Checks as a table: what was found, what a good and a bad model have, from where to where it passes, and whether.

    rows   {check: (found, good, bad, lowest, highest)}; what is `Absent` neither passes nor fails
    """
    table = {}
    for name, (value, good, bad, low, high) in rows.items():
        passed = "not measured" if isinstance(value, Absent) else "yes" if low <= value <= high else "no"
        table[name] = [*(f"{x:.3g}" for x in (value, good, bad)), f"{low:.2g} to {high:.2g}", passed]
    return pd.DataFrame(table, ["found", "good", "bad", "passes within", "passes"]).T


def merits(found: dict) -> dict[str, dict[str, float]]:
    """How far drawn slices are from true ones: {statistic: {sample: |mean difference|}}, for `plots.bullets`.

    found   what `evaluate_run` returned
    In units of the scatter of true slices against other true ones; NaN where one universe shows no scatter.
    """
    samples = found["samples"]
    gaps = {label: np.abs(np.array(samples[key]["gap"], dtype=float)) for key, label in SAMPLES.items()}
    return pd.DataFrame(gaps, index=samples["true"]["names"]).to_dict("index")


def summary(found: dict) -> str:
    """The main metrics as lines of text, and what is absent and why."""
    r, latent = found["reconstruction"], found["latents"]
    lines = [
        f"reconstructions of {found['cubes']['test']} test cubes: unexplained variance {r['fvu']:.3f} (PCA, 512 modes, "
        f"{r['fvu_pca']:.3f}, training cubes {r['fvu_train']:.3f}); r(k) >= 0.9 up to {r['k_r90']:.2f} h/Mpc (PCA "
        f"{r['k_r90_pca']:.2f})",
        "; ".join(f"KL({x}) {latent[f'kl_{x}']:.1f} nats, {latent[f'active_{x}']} active units" for x in "zh"),
    ]
    rows = dict(found.get("probes", {})) | ({"posterior": found["posterior"]} if "posterior" in found else {})
    for name, row in rows.items():
        values = ", ".join(f"{p} {value:.3f}" for p, value in row["r2"].items() if value is not None)
        lines.append(f"R^2 from {found['slices_per_cube']} slices, {name}: {values}")
    return "\n".join(lines + [f"absent, {name}: {why}" for name, why in found["missing"].items()])
