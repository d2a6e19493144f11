"""What a plane costs along each axis of a cube on disk, against reading the whole cube as `CubePool` does.

    python -m tests.benchmarks.axes [--cubes 16] [--side 128] [--planes 48] [--folder DIR]

A C-ordered file holds a plane of axis 0 in one piece, one of axis 1 in `side` pieces of a row, one of axis 2 in
side^2 single numbers, a page of the disk each. "cold" is after the file was dropped from the page cache (where the
system does that when asked), "warm" when it is in it. Times are medians over planes, taken in turns.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from uvae_lib.cubes.suite import open_cubes

PAGE = 4096  # bytes


def make_file(folder: Path, n_cubes: int, side: int) -> Path:
    """Random cubes in the CAMELS layout, written to the disk."""
    path = folder / f"Grids_Mcdm_IllustrisTNG_LH_{side}_z=0.0.npy"
    rng = np.random.default_rng(0)
    cubes = np.lib.format.open_memmap(path, "w+", np.float32, (n_cubes, side, side, side))
    for cube in cubes:
        cube[:] = rng.lognormal(size=cube.shape)
    cubes.flush()
    return path


def forget(path: Path) -> None:
    """Drop a file from the page cache: the next read comes from the disk."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def pages_touched(axis: int, side: int) -> int:
    """Pages of the file that hold a plane of a cube of float32 along an axis."""
    first = np.arange(side**3).reshape(side, side, side).take(side // 2, axis).ravel()
    return len(np.unique(first * 4 // PAGE))


def mapped_plane(path: Path, n_cubes: int, axis: int) -> Callable[[int], np.ndarray]:
    """Cut the plane of a number along an axis through a memory map that is opened anew."""

    def cut(number: int) -> np.ndarray:
        cubes = np.load(path, mmap_mode="r")
        return np.ascontiguousarray(np.take(cubes[number % n_cubes], number * 37 % cubes.shape[-1], axis=axis))

    return cut


def measure(folder: Path, n_cubes: int, side: int, planes: int) -> dict[str, dict[str, float]]:
    """Median milliseconds, cold and warm, of a plane along each axis and of a whole cube."""
    path = make_file(folder, n_cubes, side)
    suite = open_cubes(path, check=False, params="none")
    ways = {f"plane along axis {axis}, memory map": mapped_plane(path, n_cubes, axis) for axis in range(3)}
    ways["whole cube, plain read"] = lambda number: suite.raw(number % n_cubes)
    ways["whole cube, plain read, checked"] = lambda number: suite.overdensity(number % n_cubes)

    def median(prepare: Callable[[], None]) -> dict[str, float]:
        times = {name: np.empty(planes) for name in ways}
        for number in range(planes):
            for name, way in ways.items():
                prepare()
                began = time.perf_counter()
                way(number)
                times[name][number] = time.perf_counter() - began
        return {name: 1e3 * float(np.median(seconds)) for name, seconds in times.items()}

    cold = median(lambda: forget(path))
    path.read_bytes()
    warm = median(lambda: None)
    return {name: {"cold": cold[name], "warm": warm[name]} for name in ways}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cubes", type=int, default=16)
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--planes", type=int, default=48)
    parser.add_argument("--folder", type=Path, help="on the disk to be measured; the temporary folder when absent")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        found = measure(Path(folder), options.cubes, options.side, options.planes)
    print(f"{options.cubes} cubes of {options.side}^3 float32, {4 * options.side**3 / 2**20:.3g} MiB each; median ms")
    for axis in range(3):
        print(f"a plane along axis {axis} lies in {pages_touched(axis, options.side)} pages of {PAGE} bytes")
    for name, times in found.items():
        print(f"{name:34s} cold {times['cold']:9.3f}   warm {times['warm']:9.3f}")
    cube, last = found["whole cube, plain read, checked"], found["plane along axis 2, memory map"]
    mean = np.mean([found[f"plane along axis {axis}, memory map"]["cold"] for axis in range(3)])
    print(f"a cube is as dear as {cube['cold'] / mean:.1f} cold planes of random axis; a plane of axis 2 costs "
          f"{last['cold'] / cube['cold']:.2f} of a cube")  # fmt: skip


if __name__ == "__main__":
    main()
