"""What each departure from the note gains: alone, and missing from all of them; the same data and number of slices.

    python -m tests.benchmarks.study [--slices 2400] [--seeds 0 1] [--arms note all "all but group norm" ...]

It writes build/study/results.json after each run (arms that are there already are not run again) and a table,
tests/benchmarks/study.md: unexplained variance and KLs on held-out cubes, mean and range over the seeds.
"""

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from uvae_lib.analysis.probes import probe
from uvae_lib.files import write_atomically
from uvae_lib.presets import PARAMETERS, PRESETS, Config, locate
from uvae_lib.runs.encode import encode_cube, spread_slices
from uvae_lib.runs.run import Run, provenance
from uvae_lib.statistics import power_spectrum
from uvae_lib.training.fit import fit

TABLE = Path(__file__).with_suffix(".md")
NOTE, ALL = PRESETS["note"], PRESETS["demo"]
DEPARTURES = {  # fields of a configuration in which the note and the demo preset differ
    "fourier start": ("model.fourier_start", "model.discriminants"),
    "group norm": ("model.norm",),
    "wrapping": ("model.circular",),
    "zero start": ("model.zero_init",),
    "posterior widths": ("model.logvar_h", "model.logvar_z"),
    "mean over a set": ("model.pooling",),
    "all targets": ("training.targets",),
    "residual spectrum": ("loss.residual_spectrum",),
    "weights of the KLs": ("loss.kl_z", "loss.kl_h", "loss.kl_warmup"),
    "learning rate, average": ("training.lr", "training.ema"),
}


def changed(config: Config, **parts: dict) -> Config:
    """A configuration with some fields of its parts replaced: changed(c, model={"norm": "group"})."""
    return replace(config, **{part: replace(getattr(config, part), **fields) for part, fields in parts.items()})


def taking(config: Config, names: tuple[str, ...], other: Config) -> Config:
    """A configuration with these fields, such as "model.norm", of another."""
    parts: dict[str, dict] = {}
    for part, field in (name.split(".") for name in names):
        parts.setdefault(part, {})[field] = getattr(getattr(other, part), field)
    return changed(config, **parts)


ARMS = {"note": NOTE, "all": ALL}
ARMS |= {f"all but {name}": taking(ALL, fields, NOTE) for name, fields in DEPARTURES.items()}
ARMS["all but discriminants"] = taking(ALL, ("model.discriminants",), NOTE)  # they need the Fourier start
ARMS |= {f"note and {name}": taking(NOTE, fields, ALL) for name, fields in DEPARTURES.items()}


def run_arm(config: Config, slices: int, seed: int, data: str) -> dict[str, float]:
    """Train on so many slices and return the last row of the history."""
    train = config.training
    steps = slices // (train.set_size * train.sets_per_step)
    config = changed(
        config, training={"steps": steps, "val_every": steps, "save_every": steps, "seed": seed}, data={"path": data}
    )
    with tempfile.TemporaryDirectory() as folder:
        run = fit(config, Path(folder) / "run", progress=False)
        last = run.history.iloc[-1].to_dict() | read_from_z(run)
        return {"steps": steps} | last | {"seconds": run.info["seconds"], "commit": provenance()["commit"]}


def read_from_z(run: Run, n_slices: int = 9) -> dict[str, float]:
    """R^2 of a ridge on z, learned on the training cubes and judged on the others; of a ridge on log P(k) beside it."""
    suite, seen = run.open_suite(), run.split["train"]
    params = suite.params[list(PARAMETERS)].to_numpy()
    order = seen + run.split["val"] + run.split["test"]
    cubes = [spread_slices(run, suite, cube, n_slices, seed=cube) for cube in order]
    power = [power_spectrum(x[:, 0], run.image_box)[1].mean(dim=0).log().numpy() for x in cubes]
    features = {"z": [encode_cube(run, x).mu.numpy() for x in cubes], "power": power}
    found, n = {}, len(seen)
    for name, rows in features.items():
        r2 = probe(np.stack(rows[:n]), params[order[:n]], np.stack(rows[n:]), params[order[n:]]).r2
        found |= {f"{name} {parameter}": float(value) for parameter, value in zip(PARAMETERS, r2, strict=True)}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slices", type=int, default=2400, help="slices that each arm sees")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--data", default="data/demo")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    path = locate("build/study/results.json")
    for arm in options.arms:
        for seed in options.seeds:
            key = f"{arm} | {options.slices} slices | seed {seed}"
            results = json.loads(path.read_text()) if path.exists() else {}
            if key in results:
                continue
            found = run_arm(ARMS[arm], options.slices, seed, options.data)
            results = json.loads(path.read_text()) if path.exists() else {}  # another process may have added to it
            write_atomically(path, json.dumps(results | {key: {"arm": arm, "seed": seed} | found}, indent=1))
            print(f"{key}: held-out unexplained variance {found['val_fvu']:.3f}", flush=True)
    write_atomically(TABLE, table(json.loads(path.read_text())))
    print(TABLE.read_text())


def table(results: dict) -> str:
    """Results as Markdown; one row an arm and a number of slices."""
    lines = [
        "`python -m tests.benchmarks.study` wrote this. FVU: unexplained variance of the slices of held-out cubes,",
        "mean and range over seeds; R^2 of Omega_m, sigma_8: a ridge on z of 9 slices, each seed's, judged on cubes",
        "that were not trained on (in brackets a ridge on P(k) of the same slices). `all` is the demo preset's model",
        "and loss, `note` the note's; the other arms lack, or have, one departure.",
        "",
        "| arm | slices | seeds | held-out FVU | R^2 of Omega_m | R^2 of sigma_8 | KL(z), KL(h) [nats] | commit |",
        "|---|---|---|---|---|---|---|---|",
    ]
    rows = pd.DataFrame([found | {"slices": key.split(" | ")[1].split()[0]} for key, found in results.items()])
    rows = rows.sort_values("arm", key=lambda arms: arms.map(list(ARMS).index), kind="stable")
    for (arm, slices), runs in rows.groupby(["arm", "slices"], sort=False):
        fvu = runs["val_fvu"]
        spread = f"{fvu.mean():.3f}" + (f" ({fvu.min():.3f} to {fvu.max():.3f})" if len(runs) > 1 else "")
        nats = ", ".join(f"{runs[name].mean():.0f}" for name in ("val_kl_z", "val_kl_h"))
        read = " | ".join(_read(runs, name) for name in PARAMETERS)
        commits = ", ".join(sorted(set(runs["commit"])))
        lines.append(f"| {arm} | {slices} | {len(runs)} | {spread} | {read} | {nats} | {commits} |")
    return "\n".join([*lines, ""])


def _read(runs: pd.DataFrame, parameter: str) -> str:
    """R^2 of a parameter from z, each seed's, and from P(k); a dash where it was not measured."""
    if f"z {parameter}" not in runs or runs[f"z {parameter}"].isna().any():
        return "-"
    return f"{', '.join(f'{x:.2f}' for x in runs[f'z {parameter}'])} ({runs[f'power {parameter}'].mean():.2f})"


if __name__ == "__main__":
    main()
