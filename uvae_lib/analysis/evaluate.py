"""Evaluation of a run on cubes that it never saw: `analyse_run` measures everything once and keeps it.

Each cube is encoded once (`features`) and handed to metrics, samples, controls and responses. What a suite is too
small for, or has no parameters or sets for, is left out, and `missing` says why in a sentence.
"""

import json
import math
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from ..cubes.suite import CubesError, CubeSuite, open_data
from ..files import atomic_path, plain_values, write_atomically
from ..generation.flows import flows_of
from ..generation.sample import complete_means, sample_slices
from ..plots import curves as plots
from ..presets import locate
from ..runs.encode import encode_cube, most_slices, spread_slices
from ..runs.run import Run, load_run, provenance, weights_key
from ..statistics import fvu
from . import controls, responses
from .acceptance import result_tables
from .cube import FEWEST, cube_reference
from .features import (
    Encodings,
    encode_cubes,
    encode_suite,
    evenly,
    judged_cubes,
    keep_features,
    kept_features,
)
from .floor import fisher_floor
from .metrics import cube_curve, latent_metrics, pooled, probe_table, reconstruction_metrics, slice_curve
from .posterior import FEWEST_CUBES, kept_posterior, load_posterior, posterior_metrics
from .posterior import FILE as POSTERIOR
from .samples import (
    CLASSIFIED_CUBES,
    DRAWN_CUBES,
    MERITS,
    SAMPLED,
    conditional_spread,
    sample_quality,
    two_sample_classifier,
)

__all__ = ["analyse_run", "evaluate_run", "summary"]

N_SAMPLES = 16  # generated slices, and true ones beside them, whose nearest training slice is looked for
VERSION = 5  # of what is kept in metrics.json


def analyse_run(run: Run, suite: CubeSuite, n_slices: int = 15, progress: bool = False) -> dict:
    """All that is measured of a run, JSON values; read from metrics.json where these weights and cubes made it.

    n_slices  of each cube, fewer where it has fewer planes

    Raises ValueError when the run has no test cubes.
    """
    if not run.split["test"]:
        raise ValueError(
            f"all {suite.n_cubes} cubes of {run.folder} were trained on; an evaluation needs cubes that were not: "
            "train on a suite of 3 or more"
        )
    further = {name: further_set(run, suite, name) for name in ("CV", "1P")}
    data = [found and found.fingerprint for found in (suite, *(found for found, _ in further.values()))]
    ids = [suite.cube_id(i) for i in range(suite.n_cubes)]
    flows = flows_of(run) and flows_of(run).about["key"]
    key, path = weights_key(run, VERSION, n_slices, ids, data, flows), run.folder / "metrics.json"
    if path.exists():
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept.get("weights") == key:
            return kept
    encoded = encode_suite(run, suite, n_slices, progress, judged_cubes(run))
    keep_features(run, suite, encoded.table, "LH", n_slices)
    found = {
        "cubes": {part: len(cubes) for part, cubes in run.split.items()},
        "slices_per_cube": encoded.n_slices,
        "missing": {name: why for name, (_, why) in further.items() if why},
        "leaks": controls.leaks(ids, run.split, run.info.get("cubes")),
    }
    found |= _model_metrics(run, suite, encoded)
    found |= _controls(run, suite, encoded, found["missing"], progress)
    found |= _cosmology(run, encoded, {name: cubes for name, (cubes, _) in further.items()}, found)
    found["seconds_a_cube"] = seconds_a_cube(run, suite, encoded.n_slices)
    found = plain_values(found) | {"weights": key, "made": provenance()}
    write_atomically(path, json.dumps(found, indent=1))
    return found


def seconds_a_cube(run: Run, suite: CubeSuite, n_slices: int) -> float:
    """Time from the file of a test cube to its z, and to draws of its parameters where the run has their posterior."""
    started = time.perf_counter()
    z = encode_cube(run, spread_slices(run, suite, run.split["test"][0], n_slices))
    if (run.folder / POSTERIOR).exists():
        load_posterior(run).sample(z.mu, n_slices, 1000, torch.Generator().manual_seed(0))
    return time.perf_counter() - started


def further_set(run: Run, suite: CubeSuite, name: str) -> tuple[CubeSuite | None, str]:
    """The CV or 1P set beside the cubes of a run, or None and the reason why there is none."""
    path = locate(run.config.data.path)
    data = replace(run.config.data, path=str(path if path.is_dir() else path.parent))
    try:
        found = open_data(data, name)
    except CubesError as error:
        return None, str(error)
    if found.files == suite.files:
        return None, f"the cubes of this run are in no layout with sets, so there is no {name}"
    if (found.side, found.box_size) != (suite.side, suite.box_size):
        return None, f"{name} has cubes of {found.side}^3 in {found.box_size:g} Mpc/h, the run others"
    return found, ""


def _model_metrics(run: Run, suite: CubeSuite, encoded: Encodings) -> dict:
    """Reconstruction, latents, and drawn slices of held-out universes beside true ones."""
    test, train = encoded.of(run.split["test"]), encoded.of(run.split["train"])
    generator, n, box = torch.Generator().manual_seed(0), encoded.n_slices, run.image_box
    chosen = evenly(run.split["test"], DRAWN_CUBES)
    some = encoded.of(chosen)
    truth = [cube.truth for cube in some]
    of_all = torch.cat([cube.truth[: -(-n * len(some) // len(test))] for cube in test])
    twice = [
        [
            complete_means(run, cube.recon, cube.z.mu, torch.randn(cube.recon.shape, generator=generator))
            for cube in some
        ]
        for _ in range(2)
    ]
    drawn = {
        "completed": (truth, twice[0]),
        "observed_universe": (truth, [sample_slices(run, cube.z, n, generator) for cube in some]),
        "prior_universe": ([of_all], [sample_slices(run, None, len(of_all), generator)]),
    }
    return {
        "reconstruction": reconstruction_metrics(test, train, box),
        "train": {"fvu": float(fvu(*pooled(train)))},
        "latents": latent_metrics(test),
        "truth_against_truth": sample_quality(truth, other_slices(run, suite, chosen, n), box),
        **{name: sample_quality(*pair, box) for name, pair in drawn.items()},
        "conditional_spread": conditional_spread(*(torch.cat(part) for part in (truth, *twice)), box),
    }


def other_slices(run: Run, suite: CubeSuite, cubes: list[int], n: int) -> list[torch.Tensor]:
    """Further true slices of cubes, between those that `encode_cubes` takes."""
    shift = 0.5 if 2 * n <= most_slices(run, suite) else 0.0
    return [spread_slices(run, suite, cube, n, seed=cube if shift else cube + 1, shift=shift) for cube in cubes]


def _controls(run: Run, suite: CubeSuite, encoded: Encodings, missing: dict, progress: bool) -> dict:
    """What z must not know, and what a generator must not do."""
    n, table = encoded.n_slices, encoded.table
    held, train = encoded.of(run.split["test"]), table.rows(run.split["train"])
    test, found = table.rows(run.split["test"]), {}
    drawn = sample_slices(run, None, N_SAMPLES, torch.Generator().manual_seed(1))
    true = torch.cat([cube.truth for cube in held])
    some = true[evenly(list(range(len(true))), N_SAMPLES)]
    found["memorisation"] = controls.memorisation_test(run, suite, drawn, some, progress)
    if min(len(train.cubes), len(test.cubes)) > 1:
        found["two_sample"] = controls.two_sample(train.z(n), test.z(n))
        found["shuffled"] = controls.shuffled_sets(run, [cube.zs for cube in held])
    else:
        missing["two_sample"] = "z of training and of test cubes cannot be compared with one cube: use more cubes"
    if min(test.by_axis.shape[:2]) > 1:
        found["axes"] = controls.axis_agreement(test.by_axis)
    else:
        missing["axes"] = "agreement between axes needs two test cubes with planes along more than one axis"
    if len(train.cubes) < FEWEST:
        missing["outliers"] = f"{len(train.cubes)} training cubes have no distribution to be out of: use {FEWEST}"
        return found
    shared = cube_reference(run, suite, encoded, n)
    return found | {"outliers": {
        "distance": shared.distance(test.z(n)).tolist(), "distance_limit": shared.distance_limit,
        "error": [float(fvu(cube.truth, cube.recon)) for cube in held], "error_limit": shared.error_limit,
    }}  # fmt: skip


def _cosmology(run: Run, encoded: Encodings, sets: dict[str, CubeSuite | None], metrics: dict) -> dict:
    """What z knows of the parameters, where they are known; the main directions of z; nats by dimension."""
    n, table, missing = encoded.n_slices, encoded.table, metrics["missing"]
    learned, test = table.rows(run.split["train"] + run.split["val"]), table.rows(run.split["test"])
    names, z = table.names.tolist(), table.z(n)
    kl = responses.kl_table(encoded.of(run.split["test"]), z, table.params, names)
    found = {"kl_table": {column: kl[column].tolist() for column in kl}}
    if len(z) < 3:
        missing["pca"] = f"{len(z)} cubes have no main directions: use 3 or more"
    else:
        _, s, rows = np.linalg.svd(z - z.mean(axis=0), full_matrices=False)
        found["pca"] = {"shares": (np.square(s) / np.square(s).sum())[:2].tolist()}
        found["pca"]["lh"] = ((z - z.mean(axis=0)) @ rows[:2].T).tolist()
    if not names:
        missing["parameters"] = "the cubes have no Omega_m or sigma_8; pass params= to open_cubes"
    elif len(learned.cubes) < FEWEST:
        missing["parameters"] = f"{len(learned.cubes)} cubes teach no probe: use {FEWEST} or more to train on"
    else:
        found["probes"] = {name: probe.named(names) for name, probe in probe_table(learned, test, n).items()}
        found["truth"] = test.params.tolist()
        if len(learned.cubes) >= FEWEST_CUBES and learned.params.std(axis=0).min() > 0:
            power = learned.power[:, -1]
            found["floor"] = fisher_floor(power, learned.params, names, run.config.data.image_size)
        if posterior := kept_posterior(run, table, n):
            found["posterior"] = posterior_metrics(posterior, test, n)
        else:
            missing["posterior"] = (
                f"p(parameters | z) is learned from {FEWEST_CUBES} or more training cubes, and validation cubes, whose "
                "parameters vary"
            )
        found["curve"] = slice_curve(learned, test) | {"trained": run.config.training.set_size - 1}
        found["cube_curve"] = cube_curve(learned, test, n)
        found["responses"] = responses.parameter_walks(run, learned, sets["1P"], n_slices=int(table.sizes[-1]))
        fixed = [name for name, value in found["probes"]["z, ridge"]["r2"].items() if not math.isfinite(value)]
        if fixed:
            missing["R2"] = f"{', '.join(fixed)} does not vary over the test cubes, so that it has no R^2"
    if sets["CV"] is not None:
        seen = kept_features(run, sets["CV"], "CV", n)
        found["cv"] = controls.variance_ratio(seen.z(n), z) if min(len(seen.cubes), len(z)) > 1 else {}
        if "pca" in found:
            found["pca"]["cv"] = ((seen.z(n) - z.mean(axis=0)) @ rows[:2].T).tolist()
    return found


def classify(run: Run, suite: CubeSuite, n_slices: int = 15) -> dict:
    """`two_sample_classifier` on test cubes: new slices of observed universes and of N(0, I), and other true slices."""
    chosen = evenly(run.split["test"], CLASSIFIED_CUBES)
    cubes = encode_cubes(run, suite, chosen, n_slices)
    truth, generator = [cube.truth for cube in cubes], torch.Generator().manual_seed(0)
    n = len(truth[0])
    drawn = [sample_slices(run, cube.z, n, generator) for cube in cubes]
    return {
        "observed_universe": two_sample_classifier(truth, drawn),
        "prior_universe": two_sample_classifier(truth, [sample_slices(run, None, n, generator) for _ in cubes]),
        "truth_against_truth": two_sample_classifier(truth, other_slices(run, suite, chosen, n)),
    }


# --- what the command line shows


def evaluate_run(folder: str | Path, *, n_slices: int = 15, classifier: bool = False, progress: bool = True) -> dict:
    """Evaluate a run folder: writes metrics.json and figures/slices.png into it. Returns the metrics.

    classifier  train the two-sample classifier too: minutes more, kept with the rest
    """
    run = load_run(folder)
    suite = run.open_suite()
    metrics = analyse_run(run, suite, n_slices, progress)
    if classifier and "classifier" not in metrics:
        metrics["classifier"] = plain_values(classify(run, suite, n_slices))
        write_atomically(run.folder / "metrics.json", json.dumps(metrics, indent=1))
    with atomic_path(run.folder / "figures" / "slices.png") as path:
        slices_figure(run, suite).savefig(path, format="png", dpi=200)
    return metrics


def summary(metrics: dict) -> str:
    """The tables of results, what z and h hold, and what was left out and why."""
    latent = metrics["latents"]
    lines = [
        f"KL(z) {latent['kl_z']:.1f} nats, {latent['active_z']} active units; KL(h) {latent['kl_h']:.1f} nats, "
        f"{latent['active_h']} active units; unexplained variance of training cubes {metrics['train']['fvu']:.3f}",
        *(f"left out, {name}: {why}" for name, why in metrics["missing"].items()),
    ]
    return f"{result_tables(metrics, {})}\n\n" + "\n".join(lines)


def merits(metrics: dict) -> tuple[pd.DataFrame, dict]:
    """Figures of merit of drawn slices beside those of other true slices.

    Returns a table, errors down and samples across, with chi^2 of P(k) in its last row; and the panels of
    `plots.ratios`: P(k) and the density of pixels over the truth's.
    """
    names = {"truth_against_truth": "other true slices"} | SAMPLED
    found = {text: metrics[name] for name, text in names.items()}
    rows = {text: [x[f"{key}_error"] for key in MERITS] + [x["chi2"]] for text, x in found.items()}
    first, keys = metrics["observed_universe"], ("power", "power_low", "power_high")
    edges = np.array(first["pdf_edges"])
    powers = {text: tuple(np.array(x[key], float) for key in keys) for text, x in found.items()}
    panels = {
        "P(k) ratio": (plots.WAVENUMBER, first["k"], powers),
        "PDF ratio": (plots.figure.PIXELS, (edges[1:] + edges[:-1]) / 2, {text: x["pdf"] for text, x in found.items()}),
    }
    return pd.DataFrame(rows, index=[*MERITS.values(), "chi^2 of P(k)"]), panels


def slices_figure(run: Run, suite: CubeSuite) -> Figure:
    """A column for each of four held-out universes, by sigma_8: a slice, its reconstruction, a new slice."""
    sigma_8 = suite.params["sigma_8"].tolist() if "sigma_8" in suite.params else range(suite.n_cubes)
    shown = evenly(sorted(run.split["test"], key=sigma_8.__getitem__), 4)
    cubes, generator = encode_cubes(run, suite, shown, 9), torch.Generator().manual_seed(0)
    rows = {
        "simulated": [cube.truth[:1] for cube in cubes],
        "reconstructed": [cube.recon[:1] for cube in cubes],
        "new slice of\nthe same universe": [sample_slices(run, cube.z, 1, generator) for cube in cubes],
    }
    return plots.slice_grid(
        run.to_log(torch.cat([x for row in rows.values() for x in row])),
        run.image_box,
        columns=len(shown),
        titles=[plots.cube_label(suite.params, cube) for cube in shown] + 2 * len(shown) * [""],
        row_labels=[*rows],
    )
