"""The targets of the project: what was measured, what stands beside it, and whether that is enough."""

import json
import math
import shutil
from pathlib import Path
from typing import NamedTuple

import torch

from ..files import put_between
from ..runs import Run
from .metrics import k_at_correlation
from .samples import SAMPLED


class Target(NamedTuple):
    """One row of the table; `met` is None where a number could not be measured."""

    what: str
    measured: float | None
    beside: str
    reference: float | None
    target: str
    met: bool | None


# of a sample, the statistic: how far off it may be where the universe was observed, and from a prior
LIMITS = {
    "P(k) to half Nyquist": ("power_error", 0.08, 0.10),
    "pixel density, 1 to 99 %": ("pdf_error", 0.05, 0.06),
    "Minkowski functionals, length": ("length_error", 0.03, 0.05),
    "Minkowski functionals, Euler number": ("euler_error", 0.06, 0.10),
    "peaks": ("peak_error", 0.06, 0.10),
    "minima": ("minimum_error", 0.06, 0.10),
    "kurtosis of second differences": ("kurtosis_error", 0.10, 0.15),
}
AUC_LIMITS = {0.0: 0.80, 1.0: 0.62, 2.0: 0.58}  # of the classifier, by smoothing [voxels]


def target_rows(metrics: dict, baselines: dict | None = None) -> list[Target]:
    """The targets of the project; baselines as in baselines.json, where they were trained."""
    rows, baselines = _reconstruction(metrics["reconstruction"]), baselines or {}
    if "plain_vae" in baselines:
        plain, fvu = baselines["plain_vae"], metrics["reconstruction"]["fvu"]
        beside = f"VAE without z, {plain['steps']} steps"
        met = _met(fvu, 1.01 * plain["fvu"])
        rows.insert(1, Target(rows[0].what, fvu, beside, plain["fvu"], "no worse", met))
    return rows + _samples(metrics) + _cosmology(metrics, baselines.get("supervised", {}))


def _reconstruction(r: dict) -> list[Target]:
    modes = "512 Fourier modes"
    half = [k_at_correlation(torch.tensor(r["k"]), torch.tensor(r[name]), 0.5) for name in ("r", "r_pca")]
    pairs = {"r(k) >= 0.9": (r["k_r90"], r["k_r90_pca"]), "r(k) >= 0.5": half}
    first = Target(
        "unexplained variance of held-out slices", r["fvu"], modes, r["fvu_pca"], "below it", r["fvu"] < r["fvu_pca"]
    )
    return [first] + [
        Target(f"{name} up to [h/Mpc]", k, modes, k_pca, "as far", k >= k_pca) for name, (k, k_pca) in pairs.items()
    ]


def _samples(metrics: dict) -> list[Target]:
    """Drawn slices beside truth against truth."""
    rows, same = [], metrics["truth_against_truth"]
    for name in ("observed_universe", "prior_universe"):
        found, observed = metrics[name], name == "observed_universe"
        for what, (key, *most) in LIMITS.items():
            value, most = found[key], most[0 if observed else 1]
            size = None if value is None else abs(value)
            text = f"{SAMPLED[name]}: error of {what}"
            rows.append(Target(text, value, "truth, truth", same[key], f"<= {most:g}", _met(size, most)))
        value, scatter, times = found["bispectrum_error"], same["bispectrum_error"], 2 if observed else 3
        met = _met(value, times * scatter if scatter is not None else None)
        text = f"{SAMPLED[name]}: error of the bispectrum"
        rows.append(Target(text, value, "truth, truth", scatter, f"<= {times} times that", met))
    for width, most in AUC_LIMITS.items() if "classifier" in metrics else ():
        both = [metrics["classifier"][name] for name in ("observed_universe", "truth_against_truth")]
        value, reference = (found["auc"][found["smoothing"].index(width)] for found in both)
        text = f"{SAMPLED['observed_universe']}: AUC of a classifier, smoothed by {width:g} voxels"
        rows.append(Target(text, value, "truth, truth", reference, f"<= {most:g}", _met(value, most)))
    return rows


def _cosmology(metrics: dict, supervised: dict) -> list[Target]:
    """What z knows of the parameters, and what it does not hold."""
    rows, probes = [], metrics.get("probes", {})
    for name, z in probes.get("z, ridge", {}).get("r2", {}).items():
        power, labels = probes["P(k), ridge"]["r2"][name], supervised.get("r2", {}).get(name)
        if z is None:
            continue
        text = f"R² of {name}, ridge on z"
        rows.append(Target(text, z, "ridge on P(k)", power, "above it", _met(power, z)))
        if labels is not None:
            beside = f"supervised ResNet-18, {supervised['steps']} steps"
            rows.append(Target(text, z, beside, labels, "level (0.03)", _met(labels, z + 0.03)))
    cv = metrics.get("cv", {})
    if "ratio" in cv:
        text = "variance of z over CV cubes / over LH cubes"
        rows.append(Target(text, cv["ratio"], "random LH cubes", 1.0, "one cluster", cv["p"] < 0.01))
    for name, row in metrics.get("responses", {}).items():
        if "mismatch" in row:
            gap, text = row["mismatch"], f"walk along {name}: error of dlnP over its size"
            met = _met(gap["power"], 0.3)
            rows.append(Target(text, gap["power"], "scatter of the truth", gap["power_scatter"], "<= 0.3", met))
    return rows


def _met(low: float | None, high: float | None) -> bool | None:
    """Whether low <= high; None where one of them could not be measured."""
    return None if low is None or high is None else low <= high


def number(value: float | None, digits: int = 3) -> str:
    """A number with a few digits; a dash for what is not known."""
    if value is None or not math.isfinite(value):
        return "–"
    text = f"{value:.{digits}g}"
    return f"{value:.0f}" if "e+" in text and abs(value) < 1e6 else text


def kept_baselines(run: Run) -> dict:
    """What `baselines.train_baselines` wrote into the run folder; {} where nothing was trained."""
    kept = run.folder / "baselines.json"
    return json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}


def into_readme(path: str | Path, metrics: dict, run: Run) -> None:
    """Put the table of targets between the marks <!-- results:begin --> and <!-- results:end --> of a Markdown file.

    The slices that the run shows go to notebooks/pictures/ beside it, where there is such a folder.
    """
    lines = [
        [row.what, number(row.measured), row.beside, number(row.reference), row.target,
         {True: "yes", False: "no"}.get(row.met, "–")]
        for row in target_rows(metrics, kept_baselines(run))
    ]  # fmt: skip
    head = ["what", "measured", "beside it", "", "target", "met"]
    made = metrics["made"]
    origin = (
        f"Preset {run.config.name}, {len(run.split['test'])} held-out cubes, {metrics['slices_per_cube']} slices each; "
        f"{run.config.training.steps} steps, {run.info['seconds'] / 60:.0f} minutes on {run.info['machine']}, commit "
        f"{run.info['commit']}; judged at {made['commit']} by "
        f"`python -m uvae_lib evaluate --run runs/{run.config.name} --readme README.md`."
    )
    rows = "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *lines])
    put_between(path, "results", f"{rows}\n\n{origin}\n")
    if (pictures := Path(path).parent / "notebooks" / "pictures").is_dir():
        shutil.copy(run.folder / "figures" / "slices.png", pictures)
