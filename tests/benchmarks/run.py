"""The benchmark: `python -m tests.benchmarks.run`, about ten minutes on two cores, alone on the machine.

Everything that is compared runs in turns in this one process; ratios are medians over rounds. It writes
build/benchmarks/benchmarks.json, benchmarks.md (the table), benchmarks.png and profile.txt; with --readme the table
also goes between the marks in docs/speed.md. --quick runs every part on little, to see that it works.
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from uvae_lib.files import atomic_path, write_atomically
from uvae_lib.runs.run import provenance

from . import feeds, generation, steps, using
from .measure import interleaved, put_between, ratio, summary

ROOT = Path(__file__).parents[2]
OUT = ROOT / "build" / "benchmarks"


@dataclass(frozen=True)
class Scale:
    """How much is measured."""

    image_size: int = 128
    side: int = 128
    rounds: int = 15
    feed_rounds: int = 100
    frames: int = 200
    imports: int = 5
    cube_counts: tuple[int, ...] = (4, 32, 256, 1024)
    cube_sides: tuple[int, ...] = (128, 256, 512)
    stream_rounds: int = 16
    draws: int = 3
    sets: int | None = None  # sets of slices a step; those of the demo preset when absent


QUICK = Scale(64, 64, 2, 5, 10, 1, (4, 16), (64, 128), 2, 1)


def against_the_note(scale: Scale, folder: Path) -> dict:
    """(a) The note's code as written against ours, and what each part of ours brings."""
    suite, size = steps.make_suite(folder, 6, scale.side), (scale.image_size, scale.sets)
    variants = {
        "the demo preset": {},
        "ours": {"model": {"pooling": "sum"}, "ema": 0.0},
        "ours in float32": {"model": {"pooling": "sum"}, "ema": 0.0, "precision": "float32"},
        "ours with an average of the weights": {"model": {"pooling": "sum"}, "ema": 0.99},
    }
    modules = {name: steps.our_module(steps.configured(*size, **changes), suite) for name, changes in variants.items()}
    for name in ("ours, plain upsampling", "ours, not channels_last"):
        modules[name] = steps.our_module(steps.configured(*size, **variants["ours"]), suite)
    steps.plain_upsampling(modules["ours, plain upsampling"].model)
    modules["ours, not channels_last"].model.to(memory_format=torch.contiguous_format)
    functions = {name: steps.our_step(module) for name, module in modules.items()}
    train = modules["ours"].config.training
    sets = torch.randn(train.sets_per_step, train.set_size, 1, scale.image_size, scale.image_size)
    functions["the note as written"] = steps.note_step(modules["ours"].config, sets)
    times = interleaved(functions, scale.rounds)
    return {
        "ratio for a target slice": train.set_size * ratio(times, "the note as written", "ours"),
        "ratio for a target slice, demo": train.set_size * ratio(times, "the note as written", "the demo preset"),
        "slices a step": train.sets_per_step * train.set_size,
        "times [ms]": summary(times),
        "time relative to ours": {name: ratio(times, name, "ours") for name in functions},
    }


def profiled(scale: Scale, folder: Path) -> tuple[str, dict[str, float]]:
    """torch's profile of a step, and the shares [ms] of its kinds of operations."""
    module = steps.our_module(steps.configured(scale.image_size, scale.sets), steps.make_suite(folder, 6, scale.side))
    step, n = steps.our_step(module), 3
    for number in range(2):
        step(number)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        for number in range(n):
            step(number)
    kinds = {
        "convolution": ("conv",), "normalisation": ("norm",), "optimiser": ("adam",),
        "copies and casts": ("copy_", "_to_copy"),
        "rectifier": ("relu", "threshold"), "pooling, upsampling": ("pool", "upsample"), "matrix products": ("mm",),
        "slices": ("index", "aten::where", "gather"),
    }  # fmt: skip
    shares = dict.fromkeys([*kinds, "other"], 0.0)
    for event in profile.key_averages():
        if "#" in event.key:  # a bracket around others
            continue
        kind = next((k for k, words in kinds.items() if any(w in event.key.lower() for w in words)), "other")
        shares[kind] += event.self_cpu_time_total / 1e3 / n
    table = profile.key_averages().table(sort_by="self_cpu_time_total", row_limit=40, max_name_column_width=60)
    return table, {name: round(value, 2) for name, value in shares.items()}


def data_feed(scale: Scale, folder: Path) -> dict:
    """(b) Slices of a step: ours against numpy loaders, and as a share of the step."""
    suite = steps.make_suite(folder, 6, scale.side)
    config = steps.configured(scale.image_size, scale.sets)
    module, (n_sets, n) = steps.our_module(config, suite), (config.training.sets_per_step, config.training.set_size)
    cubes = np.stack([suite.overdensity(i) for i in range(suite.n_cubes)])
    functions = {
        "ours": module.slices.sets,
        "numpy: roll the cube, cut": feeds.roll_and_cut_cube(cubes, scale.image_size, n_sets, n),
        "numpy: take a plane, roll, cut": feeds.roll_and_cut_plane(cubes, scale.image_size, n_sets, n),
    }
    times = interleaved(functions, scale.feed_rounds)
    whole = interleaved({"ours": module.slices.sets, "step": steps.our_step(module)}, scale.rounds)
    return {
        "ratio to rolling cubes": ratio(times, "numpy: roll the cube, cut", "ours"),
        "ratio to rolling planes": ratio(times, "numpy: take a plane, roll, cut", "ours"),
        "share of the step": ratio(whole, "ours", "step"),
        "times [ms]": summary(times),
    }


def many_cubes(scale: Scale, folder: Path) -> dict:
    """(c) The whole step with cubes that do not fit, against their number and side; a few are held at a time."""
    functions, size = {}, {}
    for count, side in [(c, scale.side) for c in scale.cube_counts] + [(8, s) for s in scale.cube_sides[1:]]:
        config = steps.configured(scale.image_size, scale.sets)
        suite = feeds.sparse_suite(folder / f"sparse-{count}-{side}", count, side)
        name = f"{count} x {side}^3"
        size[name] = 4 * count * side**3 / 2**30
        functions[name] = steps.our_step(steps.our_module(config, suite, pool_size=3))
    times = interleaved(functions, scale.stream_rounds)
    first = next(iter(functions))
    return {
        "cost relative to the first": {name: ratio(times, name, first) for name in functions},
        "GiB": size,
        "times [ms]": summary(times),
    }


def universes(scale: Scale, folder: Path) -> dict:
    """(d) CPU seconds of a simulated cube of 128^3, the former way and ours in turns, and where ours go.

    In a process of its own: JAX's threads and torch's do not belong into one.
    """
    command = [sys.executable, "-m", "tests.benchmarks.simulation", "--times", folder / "times.json"]
    subprocess.run(command, cwd=ROOT, check=True)
    return json.loads((folder / "times.json").read_text())


def measured(scale: Scale, folder: Path) -> dict:
    """All parts; each says that it is done."""
    found = {"machine": machine(), "scale": vars(scale)}
    parts = {
        "note": against_the_note, "data": data_feed, "cubes": many_cubes,
        "frame": using.frames, "imports": using.import_times, "universes": universes,
        "generation": generation.seconds_a_slice,
    }  # fmt: skip
    for name, part in parts.items():
        found[name] = part(scale, folder)
        print(f"{name}: done", flush=True)
    table, found["profile [ms]"] = profiled(scale, folder)
    write_atomically(OUT / "profile.txt", table)
    return found


def machine() -> dict:
    """Where and with what this was measured."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    head = ["git", "-C", str(ROOT), "describe", "--always", "--dirty=+", "--abbrev=10"]
    return {
        "processor": names[0] if names else platform.processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "commit": subprocess.run(head, capture_output=True, text=True, check=False).stdout.strip() or "unknown",
    } | {"python": provenance()["versions"]["python"]}


def rows(found: dict) -> list[tuple[str, str, str, bool]]:
    """What the table says: quantity, target, measured, whether it is reached."""
    note, data, cubes, frame, imports = (found[name] for name in ("note", "data", "cubes", "frame", "imports"))
    spread = max(cubes["cost relative to the first"].values())
    added = imports["import uvae_lib adds [s]"]
    cube = found["universes"]
    shares = ", ".join(f"{name} {100 * s / cube['ours']:.0f} %" for name, s in cube["parts"].items())
    return [
        ("time for a target slice (every slice is one), the note's code / ours", ">= 2.5",
         f"{note['ratio for a target slice']:.1f}", note["ratio for a target slice"] >= 2.5),
        ("likewise with the demo preset's networks", "", f"{note['ratio for a target slice, demo']:.1f}", True),
        ("slices of a step, numpy rolling cubes / ours", ">= 10", f"{data['ratio to rolling cubes']:.0f}",
         data["ratio to rolling cubes"] >= 10),
        ("slices of a step, numpy rolling planes / ours", "", f"{data['ratio to rolling planes']:.1f}", True),
        ("share of the step spent on slices", "< 1 %", f"{100 * data['share of the step']:.2f} %",
         data["share of the step"] < 0.01),
        (f"dearest step with {', '.join(cubes['GiB'])} cubes / cheapest set", "flat", f"{spread:.2f}", spread < 1.1),
        (f"a decoded frame with its PNG ({frame['chosen']}), 95th percentile", "<= 50 ms",
         f"{frame['95th percentile [ms]']:.0f} ms", frame["95th percentile [ms]"] <= 50),
        ("`import uvae_lib` after torch", "< 0.3 s", f"{added:.2f} s", added < 0.3),
        (f"CPU time of a simulated cube, ours / formerly ({shares})", "<= 1",
         f"{cube['ours']:.1f} s / {cube['former']:.1f} s", cube["ours"] <= cube["former"]),
        ("what the explorers import, after torch", "", f"{imports['explorers add [s]']:.2f} s", True),
        generation.row(found["generation"]),
    ]  # fmt: skip


def as_table(found: dict) -> str:
    """The table in Markdown, with the machine under it."""
    lines = ["| what | target | measured | |", "|---|---|---|---|"]
    lines += [
        f"| {what} | {target} | {value} | {'' if good else 'missed'} |" for what, target, value, good in rows(found)
    ]
    where, note = found["machine"], found["note"]
    lines += [
        "",
        f"{where['processor']}, {where['threads']} threads, torch {where['torch']}, commit {where['commit']}; "
        f"{note['slices a step']} slices of {found['scale']['image_size']}^2 a step: "
        f"{note['times [ms]']['the demo preset']['median']:.0f} ms. Medians of ratios, run in turns.",
    ]
    return "\n".join(lines) + "\n"


def plot(found: dict) -> None:
    """Where the time of a step goes, and what each part brings."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for ax, values, title in (
        (left, found["profile [ms]"], "a step [ms]"),
        (right, found["note"]["time relative to ours"], "time of a step relative to ours"),
    ):
        names = list(values)[::-1]
        ax.barh(names, [values[name] for name in names], color="#4477aa")
        ax.set_title(title, fontsize=9)
        ax.tick_params(labelsize=7)
    with atomic_path(OUT / "benchmarks.png") as path:
        figure.savefig(path, format="png", dpi=120)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="little of everything, to see that it works")
    parser.add_argument("--sets", type=int, help="sets of slices a step, in place of the demo preset's")
    parser.add_argument("--readme", action="store_true", help="write the table into docs/speed.md as well")
    options = parser.parse_args(arguments)
    warnings.simplefilter("ignore", UserWarning)
    with tempfile.TemporaryDirectory() as folder:
        found = measured(replace(QUICK if options.quick else Scale(), sets=options.sets), Path(folder))
    table = as_table(found)
    write_atomically(OUT / "benchmarks.json", json.dumps(found, indent=1))
    write_atomically(OUT / "benchmarks.md", table)
    plot(found)
    if options.readme:
        put_between(ROOT / "docs" / "speed.md", "bench", table)
    print(table)


if __name__ == "__main__":
    main()
