"""Tables of results for the README: what was measured of a run, what stands beside it, and what was aimed at."""

import json
import math
import shutil
from pathlib import Path

import torch

from ..files import put_between
from ..generation.flows import flows_of
from ..runs.run import Run
from .metrics import k_at_correlation, verdict
from .samples import CLASSIFIED_CUBES, DRAWN_CUBES, auc_scatter

# of drawn slices, by row: keys of `samples.sample_quality` and how far off they may be where the universe was observed,
# and from N(0, I)
LIMITS = {
    "P(k) up to half the Nyquist frequency": {"power_error": (0.08, 0.10)},
    "distribution of pixels, 1 to 99 %": {"pdf_error": (0.05, 0.06)},
    "Minkowski functionals: length, Euler number": {"length_error": (0.03, 0.05), "euler_error": (0.06, 0.10)},
    "counts of peaks, minima": {"peak_error": (0.06, 0.10), "minimum_error": (0.06, 0.10)},
    "kurtosis of second differences": {"kurtosis_error": (0.10, 0.15)},
}
BISPECTRUM = (2, 3)  # times what other true slices have
AUC_LIMITS = {2.0: (0.58, 0.65), 1.0: (0.62, 0.70), 0.0: (0.80, None)}  # of the classifier, by smoothing [voxels]
SAMPLES = ("observed_universe", "prior_universe", "truth_against_truth")
PROBES = {"z, ridge": "ridge on z", "P(k), ridge": "ridge on P(k) of the slices",
          "P(k) and moments, ridge": "ridge on P(k) and the moments of pixels"}  # fmt: skip

SUPERVISED = {"supervised": "ResNet-18", "moments": "CNN of the CAMELS Multifield Dataset"}  # by name in baselines.json


def result_tables(metrics: dict, baselines: dict) -> str:
    """Reconstructions, drawn slices and parameters, as tables of Markdown: those of which something is known."""
    tables = reconstruction_table(metrics), sample_table(metrics), parameter_table(metrics, baselines)
    return "\n\n".join(markdown(rows) for rows in tables if rows)


def reconstruction_table(metrics: dict) -> list[list[str]]:
    """Rows of the quality of reconstructions; the first one is the head."""
    r = metrics["reconstruction"]
    rows = [["unexplained variance", r["fvu"], r["fvu_pca"]]]
    for level in (0.9, 0.5):
        found = [k_at_correlation(torch.tensor(r["k"]), torch.tensor(r[name]), level) for name in ("r", "r_pca")]
        rows.append([f"r(k) >= {level} up to k [h/Mpc]", *found])
    head = ["reconstructions of held-out slices", "Universe VAE", "PCA, 512 modes"]
    return [head, *([name, *map(number, values)] for name, *values in rows)]


def sample_table(metrics: dict) -> list[list[str]]:
    """Rows of the quality of drawn slices; the first one is the head. A star: missed what was aimed at."""
    head = ["drawn slices: largest relative error", "of observed universes", "from N(0, I) by the flow of z",
            "other true slices", "aim"]  # fmt: skip
    found, rows = [metrics[name] for name in SAMPLES], [head]
    for what, keys in LIMITS.items():
        limits = list(keys.values())
        cells = [
            ", ".join(starred(x[key], limit[i] if i < 2 else None) for key, limit in keys.items())
            for i, x in enumerate(found)
        ]
        rows.append([what, *cells, "; ".join(", ".join(f"{limit[i]:g}" for limit in limits) for i in (0, 1))])
    key = "bispectrum_error"
    most = [None if found[2][key] is None else times * found[2][key] for times in BISPECTRUM] + [None]
    cells = [starred(x[key], limit) for x, limit in zip(found, most, strict=True)]
    rows.append(["reduced bispectrum, rms in standard errors", *cells, "2; 3 times other true slices"])
    rows.append(["chi² of P(k), a degree of freedom", *(number(x["chi2"], 3) for x in found), "1"])
    tests = metrics.get("classifier")
    for width, limits in AUC_LIMITS.items() if tests else ():
        place = tests["observed_universe"]["smoothing"].index(width)
        auc = [tests[name]["auc"][place] if name in tests else None for name in SAMPLES]
        smooth = f"smoothed by {width:g} voxel{'s' * (width > 1)}" if width else "not smoothed"
        cells = [starred(value, limit) for value, limit in zip(auc, (*limits, None), strict=True)]
        aim = "; ".join(f"{limit:g}" for limit in limits if limit)
        rows.append([f"classifier's AUC, {smooth}", *cells, aim])
    return rows


def parameter_table(metrics: dict, baselines: dict) -> list[list[str]]:
    """Rows of R^2 of the parameters with 68 % intervals; the first one is the head. [] where they are not known."""
    probes = metrics.get("probes", {})
    names = [name for name, value in probes.get("z, ridge", {}).get("r2", {}).items() if value is not None]
    found = {text: probes[name] for name, text in PROBES.items() if name in probes}
    if "posterior" in metrics:
        found["neural posterior given z, its mean"] = metrics["posterior"]
    for name, text in SUPERVISED.items():
        if name in baselines:
            found[f"{text}, trained on the labels for {baselines[name]['steps']} steps"] = baselines[name]
    if metrics.get("floor") and (n := metrics["slices_per_cube"]) in metrics["floor"]["sizes"]:
        at = metrics["floor"]["sizes"].index(n)
        limit = {name: metrics["floor"]["r2"][name][at] for name in names}
        found[f"Fisher forecast, P(k) of {n} independent planes"] = {"r2": limit}
    z = probes.get("z, ridge")
    rows = [[text, *(interval(x, name) + against(z, x, name) for name in names)] for text, x in found.items()]
    head = [f"R² from {metrics['slices_per_cube']} slices of a held-out cube [68 %]", *names]
    return [head, *rows] if names else []


def interval(found: dict, name: str) -> str:
    """R^2 of a parameter with its interval, where it has one."""
    ends = found.get("r2_interval", {}).get(name)
    return number(found["r2"][name], 2) + (f" [{number(ends[0], 2)}, {number(ends[1], 2)}]" if ends else "")


def against(z: dict, other: dict, name: str) -> str:
    """Whether z reads a parameter better than something else does, worse, or level with it, by their intervals."""
    pair = [x.get("r2_interval", {}).get(name) for x in (z, other)]
    return "" if other is z or None in pair else f"; z is {verdict(*pair)} it"


def starred(value: float | None, most: float | None) -> str:
    """A number, with a star where its size is beyond what was aimed at."""
    missed = value is not None and most is not None and abs(value) > most
    return number(value, 2) + ("\\*" if missed else "")


def number(value: float | None, digits: int = 3) -> str:
    """A number with a few digits; a dash for what is not known."""
    if value is None or not math.isfinite(value):
        return "–"
    text = f"{value:.{digits}g}"
    return f"{value:.0f}" if "e+" in text and abs(value) < 1e6 else text


def kept_baselines(run: Run) -> dict:
    """What `baselines.train_baselines` wrote into the run folder of its cubes and parameters as they are now."""
    path = run.folder / "baselines.json"
    if not path.exists():
        return {}
    kept, now = json.loads(path.read_text(encoding="utf-8")), run.open_suite().fingerprint
    return {name: found for name, found in kept.items() if found.get("fingerprint") == now}


def into_readme(path: str | Path, metrics: dict, run: Run) -> None:
    """Put the tables between the marks <!-- results:begin --> and <!-- results:end --> of a Markdown file.

    The slices that the run shows go to notebooks/pictures/ beside it, where there is such a folder.
    """
    tables, made, n_test = result_tables(metrics, kept_baselines(run)), metrics["made"], len(run.split["test"])
    judged = min(n_test, CLASSIFIED_CUBES)
    scatter = auc_scatter(judged, metrics["slices_per_cube"])
    flows = f" and {flows_of(run).about['seconds'] / 60:.0f} for the flows" if flows_of(run) else ""
    origin = (
        f"Preset {run.config.name}, {n_test} held-out cubes, {metrics['slices_per_cube']} slices each (drawn: "
        f"slices of {min(n_test, DRAWN_CUBES)}; classifier: {judged}, a third of which judge: its AUC scatters by "
        f"{scatter:.2f}); {run.config.training.steps} steps in {run.info['seconds'] / 60:.0f} minutes"
        f"{flows} on {run.info['machine']}, commit {run.info['commit']}; judged at {made['commit']} by "
        f"`python -m uvae_lib evaluate --run runs/{run.config.name} --readme README.md`. "
        "A star: missed what was aimed at."
    )
    put_between(path, "results", f"{tables}\n\n{origin}\n")
    if (pictures := Path(path).parent / "notebooks" / "pictures").is_dir():
        shutil.copy(run.folder / "figures" / "slices.png", pictures)


def markdown(rows: list[list[str]]) -> str:
    """A table, the first row its head."""
    return "\n".join(f"| {' | '.join(row)} |" for row in [rows[0], ["---"] * len(rows[0]), *rows[1:]])
