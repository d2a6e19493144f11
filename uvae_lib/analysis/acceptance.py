"""The targets of the project: what was measured, what stands beside it, and whether that is enough."""

import math
from pathlib import Path

import torch

from ..files import put_between
from ..presets import PARAMETERS
from ..runs import Run
from .metrics import k_at_correlation

TARGET_HEAD = ["what", "measured", "beside it", "", "target", "met"]


def target_rows(metrics: dict) -> list[tuple]:
    """The targets of the project: what, measured, what is beside it, its number, target, met or not."""
    r, same, found = metrics["reconstruction"], metrics["truth_against_truth"], metrics["controls"]
    rows = [
        (
            "unexplained variance of held-out slices",
            r["fvu"],
            "512 Fourier modes",
            r["fvu_pca"],
            "below it",
            r["fvu"] < r["fvu_pca"],
        ),
        (
            "r(k) >= 0.9 up to [h/Mpc]",
            r["k_r90"],
            "512 Fourier modes",
            r["k_r90_pca"],
            "as far",
            r["k_r90"] >= r["k_r90_pca"],
        ),
    ]
    half, half_pca = (k_at_correlation(torch.tensor(r["k"]), torch.tensor(r[name]), 0.5) for name in ("r", "r_pca"))
    rows.append(("r(k) >= 0.5 up to [h/Mpc]", half, "512 Fourier modes", half_pca, "as far", half >= half_pca))
    for name, text in (
        ("observed_universe", "new slices of an observed universe"),
        ("dreamt_universe", "slices of universes dreamt from the Gaussian of known z"),
        ("prior_universe", "slices of universes dreamt from N(0, I)"),
    ):
        for key, what, most in (("power_error", "P(k) to half Nyquist", 0.10), ("pdf_error", "pixel density", 0.05)):
            value = metrics[name][key]
            rows.append(
                (f"{text}: error of {what}", value, "truth, truth", same[key], f"<= {most:g}", _met(value, most))
            )
    baselines = metrics.get("baselines", {})
    if "plain_vae" in baselines:
        plain = baselines["plain_vae"]
        beside = f"VAE without z, {plain['steps']} steps"
        rows.insert(1, (rows[0][0], r["fvu"], beside, plain["fvu"], "no worse", _met(r["fvu"], 1.01 * plain["fvu"])))
    supervised = baselines.get("supervised", {}).get("r2", {})
    for name in PARAMETERS if "probes" in found else ():
        z, power = (found["probes"][key]["r2"][name] for key in ("z, ridge", "P(k), ridge"))
        if z is None:
            continue
        rows.append((f"R² of {name}, ridge on z", z, "ridge on P(k)", power, "above it", _met(power, z)))
        if name in supervised:
            rows.append(
                (
                    f"R² of {name}, ridge on z",
                    z,
                    f"supervised ResNet-18, {baselines['supervised']['steps']} steps",
                    supervised[name],
                    "level (0.03)",
                    _met(supervised[name], z + 0.03),
                )
            )
    if "cv" in found:
        rows.append(
            (
                "variance of z over CV cubes / over LH cubes",
                found["cv"]["ratio"],
                "random LH cubes",
                1.0,
                "one cluster",
                found["cv"]["p"] < 0.01,
            )
        )
    for name, row in found.get("walk", {}).items():
        if "mismatch" in row:
            gap = row["mismatch"]
            rows.append(
                (
                    f"walk along {name}: error of dlnP over its size",
                    gap["power"],
                    "scatter of the truth",
                    gap["power_scatter"],
                    "as the 1P cubes (0.3)",
                    gap["power"] < 0.3,
                )
            )
    return rows


def _met(low: float | None, high: float | None) -> bool | None:
    """Whether low <= high; None where one of them could not be measured."""
    return None if low is None or high is None else low <= high


def number(value, digits: int = 3) -> str:
    """A number with a few digits; a dash for what is not known."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    if isinstance(value, float):
        text = f"{value:.{digits}g}"
        return f"{value:.0f}" if "e+" in text and abs(value) < 1e6 else text
    return f"{value:,}" if isinstance(value, int) else str(value)


def into_readme(path: str | Path, metrics: dict, run: Run) -> None:
    """Put the table of targets between the marks <!-- results:begin --> and <!-- results:end --> of a Markdown file."""
    cells = [
        [number(value) if isinstance(value, float) else str(value) for value in row] for row in target_rows(metrics)
    ]
    lines = [" | ".join(row[:5] + [{"True": "yes", "False": "no"}.get(row[5], "-")]) for row in cells]
    made = metrics["made"]
    origin = (
        f"Preset {run.config.name}, {len(run.split['test'])} held-out cubes, {metrics['slices_per_cube']} slices each; "
        f"{run.config.training.steps} steps, {run.info['seconds'] / 60:.0f} minutes on {run.info['machine']}, commit "
        f"{run.info['commit']}; judged at {made['commit']} by "
        f"`python -m uvae_lib report --run runs/{run.config.name} --readme README.md`."
    )
    rows = [" | ".join(TARGET_HEAD), " | ".join(["---"] * len(TARGET_HEAD)), *lines]
    put_between(path, "results", "\n".join(f"| {row} |" for row in rows) + f"\n\n{origin}\n")
