"""A suite far larger than memory: open it, describe it, train on it, and say how much memory that took.

    python -m tests.benchmarks.large_suite [--gib 64] [--side 256] [--steps 20] [--limit 4] [--folder DIR]

The file is sparse: every cube is empty but for one row of voxels, so that it takes megabytes of disk, and what is read
of it takes the memory and, the disk aside, the time of a full one. It ends with 1 when the largest resident memory,
as the system counts it for the process, is above the limit [GiB].
"""

import argparse
import resource
import sys
import tempfile
import time
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np

from uvae_lib.cubes.suite import open_cubes
from uvae_lib.presets import SMOKE
from uvae_lib.training.fit import fit


def sparse_suite(folder: Path, gib: float, side: int) -> Path:
    """A CAMELS-like file of about so many GiB, whose cubes hold one row of matter each."""
    n_cubes = int(gib * 2**30 // (4 * side**3))
    path = folder / f"Grids_Mcdm_IllustrisTNG_LH_{side}_z=0.0.npy"
    cubes = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(n_cubes, side, side, side))
    rng = np.random.default_rng(0)
    for cube in cubes:
        cube[tuple(rng.integers(0, side, 2))] = rng.lognormal(size=side)
    cubes.flush()
    np.savetxt(folder / "params_LH_IllustrisTNG.txt", np.full((n_cubes, 6), 0.3))
    return path


def resident() -> float:
    """Largest resident memory of this process so far [GiB]."""
    unit = 1 if sys.platform == "darwin" else 2**10  # bytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gib", type=float, default=64.0)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--limit", type=float, default=4.0)
    parser.add_argument("--folder", type=Path, help="where the file is made; the temporary folder when absent")
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # every voxel is empty, and that is said
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        path = sparse_suite(folder, options.gib, options.side)
        size, disk = path.stat().st_size / 2**30, path.stat().st_blocks * 512 / 2**20
        print(f"{path.name}: {size:.1f} GiB, {disk:.0f} MiB on disk; resident {resident():.2f} GiB before it is opened")
        clock = time.monotonic()
        print(open_cubes(path).describe())
        print(f"described in {time.monotonic() - clock:.0f} s; resident {resident():.2f} GiB")
        clock = time.monotonic()
        open_cubes(path).describe()
        print(f"a second time in {time.monotonic() - clock:.2f} s")
        clock = time.monotonic()
        few = {"test_fraction": 0.02}
        config = replace(
            SMOKE,
            data=replace(SMOKE.data, path=str(folder), pool_size=4, **few),
            training=replace(SMOKE.training, steps=options.steps, taught_steps=0, val_every=options.steps),
        )
        run = fit(config, folder / "run", progress=False)
        seconds = time.monotonic() - clock
        print(f"{options.steps} steps in {seconds:.0f} s with {run.info['pool_size']} cubes held; "
              f"largest resident memory {resident():.2f} GiB, limit {options.limit:g} GiB")  # fmt: skip
    raise SystemExit(int(resident() > options.limit))


if __name__ == "__main__":
    main()
