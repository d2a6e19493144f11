"""What `python -m uvae_lib inspect PATH` prints: what was found, what was assumed, what training would cost."""

import time
import warnings
from pathlib import Path

import psutil

from .cubes import CubeSuite, open_cubes

SECONDS_PER_STEP = 0.55  # 32 images of 128^2, forward and backward, bfloat16, 2 CPU cores
IMAGES_PER_STEP = 32
CUBE_MEMORY = 0.4  # share of the free memory that training takes for cubes


def describe(
    suite: CubeSuite | str | Path,
    *,
    image_size: int = 128,
    steps: int = 1000,
    images_per_step: int = 24,
    **options,
) -> str:
    """A page of text on a suite: contents, assumptions, check, memory and time for training, warnings.

    suite             a suite, or a path that open_cubes understands (with its options)
    image_size        pixels along a slice;  steps, images_per_step of a training
    Raises CubesError when the cubes cannot be used.
    """
    if not isinstance(suite, CubeSuite):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # they are printed below
            suite = open_cubes(suite, **options)
    sections = [
        ("Found", _found(suite)),
        ("Assumed", [_box(suite), *suite.notes, f"kind {suite.kind}; {_division(suite)}"]),
        ("Check", _check(suite)),
        ("Training", _training(suite, image_size, steps, images_per_step)),
        ("Warnings", list(suite.cautions) or ["none"]),
    ]
    return "\n\n".join("\n".join([title, *(f"  {line}" for line in lines)]) for title, lines in sections) + "\n"


def _found(suite: CubeSuite) -> list[str]:
    shape = f"{suite.n_cubes} cubes of {suite.side}^3 voxels"
    if suite.axes == (0,):
        shape = f"{suite.n_cubes} universes of {suite.n_planes} maps of {suite.side}^2 pixels"
    lines = [
        suite.source,
        f"format {suite.format}: {shape}, {_size(suite.layout.n_bytes)} in {len(suite.layout.files)} files",
        f"box of {suite.box_size:g} Mpc/h, {suite.box_size / suite.side:.4g} Mpc/h a voxel",
    ]
    table = suite.params
    for name in table.columns:
        lines.append(f"{name:<12} {table[name].min():.6g} to {table[name].max():.6g}")
    return lines if len(table.columns) else [*lines, "no parameters"]


def _box(suite: CubeSuite) -> str:
    known = suite.layout.box_size
    told = suite.layout.box_from if known == suite.box_size else "as given"
    if known is None and suite.box_size == suite.side:
        told = "assumed, 1 Mpc/h a voxel"
    return f"box of {suite.box_size:g} Mpc/h {told}"


def _division(suite: CubeSuite) -> str:
    if suite.normalize:
        return "each cube is divided by its own mean"
    return "density and counts are divided by the mean of all checked cubes, overdensity and delta by nothing"


def _check(suite: CubeSuite) -> list[str]:
    if suite.report is None:
        return ["none of the suite as a whole; every cube is checked when it is read"]
    report = suite.report
    part = "all cubes" if report.n_checked == report.n_cubes else f"a sample of {report.n_checked} of {report.n_cubes}"
    wrap = ", ".join(f"{ratio:.2f}" for ratio in report.wrap)
    return [
        f"{part} in {report.seconds:g} s, every cube again when it is read",
        f"voxels from {report.minimum:.6g} to {report.maximum:.6g}, means of cubes from {report.mean_low:.6g} to "
        f"{report.mean_high:.6g}",
        f"{report.empty_fraction:.4%} of the voxels are empty (y < 1e-7) and cause {report.spike_share:.1%} of the "
        "variance of log(y + 1e-8)",
        f"{report.n_clipped} voxels slightly below zero (rounding) are set to 0",
        f"jump across the periodic wrap over the jump between neighbours: {wrap} (1 is periodic)",
    ]


def _training(suite: CubeSuite, image_size: int, steps: int, images_per_step: int) -> list[str]:
    start = time.perf_counter()
    voxels = suite.overdensity(0).size
    seconds = time.perf_counter() - start
    cubes, free = suite.n_cubes * voxels * 4, psutil.virtual_memory().available
    lines = [f"cubes as float32: {_size(cubes)} for all, {_size(voxels * 4)} each; {_size(free)} of memory are free"]
    budget = int(CUBE_MEMORY * free)
    if cubes <= budget:
        lines.append("all fit into 40 % of it and are held on the device (float16 halves them)")
    else:
        held = budget // (voxels * 4)
        lines.append(f"{held} of {suite.n_cubes} are held at a time and exchanged while training goes on")
    lines.append(f"reading: {seconds * 1e3:.0f} ms a cube, {_duration(seconds * suite.n_cubes)} for all")
    if image_size > suite.side:
        return [*lines, f"slices of {image_size}^2 do not fit: use image_size <= {suite.side}"]
    if image_size == suite.side:
        lines.append(f"slices of {image_size}^2 are whole planes of the box")
    pixels = images_per_step / IMAGES_PER_STEP * (image_size / 128) ** 2
    total = steps * SECONDS_PER_STEP * pixels
    lines.append(
        f"time: about {_duration(total)} for {steps} steps of {images_per_step} slices of {image_size}^2 on 2 CPU "
        "cores; a GPU takes a small part of that"
    )
    return lines


def _size(n_bytes: float) -> str:
    unit, scale = ("GiB", 2**30) if n_bytes >= 2**30 else ("MiB", 2**20)
    return f"{n_bytes / scale:.3g} {unit}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
