"""A suite of simulated universes, made here by `particle_mesh`, so that nobody needs a download.

Files follow the CAMELS Multifield Dataset: `Grids_Mcdm_JaxPM_LH_128_z=0.0.npy`, `params_LH_JaxPM.txt`. Beside each
set, `simulation_LH_128.json` says how it was made and which of its cubes are there, so that a run that was stopped
goes on. A cube is a function of the settings, its set and its index alone.
"""

import json
import os
import signal
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, as_completed, wait
from concurrent.futures.process import BrokenProcessPool
from importlib.metadata import version
from importlib.util import find_spec
from itertools import islice
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from ..cubes.suite import CubeSuite, open_cubes, open_data
from ..files import lock_folder, write_atomically
from ..presets import PRESETS, Config, SimulationConfig, locate
from .particle_mesh import METHOD, simulate_cube

SETS = ("LH", "CV", "1P")
ORDER = ("CV", "1P", "LH")  # of simulation: the controls first
PACKAGES = ("jaxpm", "jax", "numba", "numpy", "scipy")
BROKEN = (
    "a simulating process ended before its cube was done: the memory (about 1 GB a process at 128^3) or the disk is "
    'full, or a script has no `if __name__ == "__main__":` around what it does; the same call goes on where it was'
)
FIDUCIAL = {"Omega_m": 0.3, "sigma_8": 0.8}
RANGES = {"Omega_m": (0.1, 0.5), "sigma_8": (0.6, 1.0)}


def simulate_suite(
    path: str | Path, config: SimulationConfig | None = None, progress: bool = True, processes: int | None = None
) -> dict[str, CubeSuite]:
    """Simulate the LH, CV and 1P sets into a folder, or finish what an earlier call left, or reuse what is there.

    path       folder, made when absent
    config     mesh side, box [Mpc/h], number of cubes a set, steps, seed (`SimulationConfig`)
    progress   show a bar
    processes  side by side, one core and about 1 GB each at 128^3; one for each core that there is, when absent
    Returns {set name: CubeSuite} for every set with at least one cube.
    Raises ValueError for a folder that holds other files, or a suite made with other settings, or that another process
    is filling; ModuleNotFoundError without the extra; BrokenProcessPool when a process ends before its cube is done.
    """
    config, folder = config or SimulationConfig(), Path(path)
    _refuse_other_files(folder)
    names = [name for name in SETS if getattr(config, f"n_{name.lower()}")]
    if not all(_UnfinishedSet(folder, name, config).finished for name in names):
        missing = [name for name in PACKAGES if find_spec(name) is None]
        if missing:
            advice = 'install the extra: pip install -e ".[simulate]"'
            raise ModuleNotFoundError(f"simulation needs {', '.join(missing)}; {advice}", name=missing[0])
        with lock_folder(folder, f"another process is simulating into {folder}; wait for it, or name another folder"):
            sets = {name: _UnfinishedSet(folder, name, config) for name in names}
            _fill_sets(sets, processes or cores(), progress)
    return {name: open_cubes(folder / grid_name(name, config.side)) for name in names}


def load_suite(config: Config, set_name: str | None = None) -> CubeSuite:
    """The suite of a configuration: cubes that somebody brought, or a preset's own, simulated now if they are missing.

    set_name    LH, CV, 1P; that of the configuration when absent
    Raises FileNotFoundError where the path is not the one of a preset that simulates, and nothing is there.
    """
    path = locate(config.data.path)
    own = config.data.path in {preset.data.path for preset in PRESETS.values() if preset.simulation.n_cubes}
    if own and (not path.exists() or any(path.glob("simulation_*.json"))):
        simulate_suite(path, config.simulation)
    return open_data(config.data, set_name)


def parameters_of_sets(config: Config) -> dict[str, pd.DataFrame]:
    """The parameters of the cubes of each set (LH, CV, 1P) beside those of a configuration; of "cubes" without sets."""
    suite, path = load_suite(config), locate(config.data.path)
    names = [name for name in SETS if path.is_dir() and any(path.glob(f"*_{name}_*.npy"))]
    return {name: load_suite(config, name).params for name in names} or {"cubes": suite.params}


def same_phases(config: Config, name: str = "sigma_8", n: int = 3) -> tuple[CubeSuite, list[int]]:
    """Cubes that differ in one parameter alone: a suite, and up to n of its cubes from the least to the largest value.

    They are of the set 1P. Where there is none they are cubes of the suite itself, which differ in their phases too, in
    the order of the parameter where that is known.
    """
    suite = load_suite(config, "1P") if "1P" in parameters_of_sets(config) else load_suite(config)
    table = suite.params
    others = table.drop(columns=name, errors="ignore")
    alike = table[((others - others.median()).abs() < 1e-6).all(axis=1)]
    table = alike if len(alike) > 1 else table
    order = table.sort_values(name).index if name in table else table.index
    return suite, [int(order[i]) for i in np.linspace(0, len(order) - 1, min(n, len(order))).round().astype(int)]


def grid_name(set_name: str, side: int) -> str:
    """File name of a set of cubes, as CAMELS names it."""
    return f"Grids_Mcdm_JaxPM_{set_name}_{side}_z=0.0.npy"


def cosmologies(set_name: str, config: SimulationConfig) -> pd.DataFrame:
    """Omega_m and sigma_8 of every cube of a set: one row a cube.

    LH  a Latin hypercube over the CAMELS ranges      CV  the fiducial cosmology, n_cv times
    1P  the first half moves Omega_m alone, the second half sigma_8 alone, over the full ranges
    """
    if set_name == "LH":
        from scipy.stats import qmc

        unit = qmc.LatinHypercube(d=2, rng=np.random.default_rng(config.seed)).random(config.n_lh)
        return pd.DataFrame(qmc.scale(unit, *zip(*RANGES.values(), strict=True)), columns=list(RANGES))
    table = pd.DataFrame([FIDUCIAL] * (config.n_cv if set_name == "CV" else config.n_1p))
    if set_name == "1P":
        for name, rows in zip(RANGES, np.array_split(np.arange(config.n_1p), 2), strict=True):
            table.loc[rows, name] = np.linspace(*RANGES[name], len(rows))
    return table


def cube_seed(set_name: str, index: int, seed: int) -> int:
    """Seed of the initial phases: differs for every cube, except in 1P, whose cubes share their phases."""
    entropy = [seed, SETS.index(set_name), 0 if set_name == "1P" else index]
    return int(np.random.SeedSequence(entropy).generate_state(1)[0] >> 1)


def cores() -> int:
    """Of this process: those of the machine, or as few as `taskset` or a job's limits leave it."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _fill_sets(sets: dict[str, "_UnfinishedSet"], processes: int, progress: bool) -> None:
    """Simulate what is missing, side by side; every cube is recorded when it is on the disk."""
    jobs = [(sets[name], i) for name in ORDER if name in sets for i in sets[name].todo()]
    total = sum(len(one.table) for one in sets.values())
    bar = tqdm(total=total, initial=total - len(jobs), desc="simulate", unit="cube", disable=not progress)
    with bar, ProcessPoolExecutor(processes, get_context("spawn"), _one_core) as pool:
        waiting, running = iter(jobs), {}
        try:
            while True:
                for one, index in islice(waiting, processes - len(running)):
                    running[pool.submit(_fill, *one.job(index))] = one, index
                if not running:
                    break
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    one, index = running.pop(future)
                    future.result()
                    one.record(index)
                    bar.update()
        except BrokenProcessPool as error:
            raise BrokenProcessPool(BROKEN) from error
        finally:  # whoever stops the run keeps the cubes that are under way
            for future in as_completed(running):
                if not future.exception():
                    one, index = running[future]
                    one.record(index)


def _refuse_other_files(folder: Path) -> None:
    """Raise ValueError for a file, or a folder with files of others: cubes are simulated into one of their own."""
    inside = folder.iterdir() if folder.is_dir() else [folder] if folder.exists() else []
    others = sorted(path.name for path in inside if not path.name.startswith("."))
    if others and not any(folder.glob("simulation_*.json")):
        found = f"{', '.join(others[:3])}{', ...' if len(others) > 3 else ''}"
        raise ValueError(f"{folder}: found files of others ({found}); name a folder that is empty or not there yet")


class _UnfinishedSet:
    """One file of cubes on its way: a partial file, and a record of the cubes in it that are done."""

    def __init__(self, folder: Path, name: str, config: SimulationConfig):
        self.name, self.config, self.table = name, config, cosmologies(name, config)
        self.final = folder / grid_name(name, config.side)
        self.partial = self.final.with_name(self.final.name + ".partial")
        self.sidecar = folder / f"simulation_{name}_{config.side}.json"
        chosen = {key: getattr(config, key) for key in ("side", "box_size", "n_steps", "seed")}
        settings = {"set": name, "n_cubes": len(self.table)} | chosen | METHOD
        self.state = {"settings": settings, "done": []}
        found = json.loads(self.sidecar.read_text()) if self.sidecar.exists() else self.state
        if found["done"] and (self.final.exists() or self.partial.exists()):
            self.state = found
            differ = [k for k in settings | found["settings"] if found["settings"].get(k) != settings.get(k)]
            if differ:
                raise ValueError(
                    f"{folder} holds a {name} set made with other settings ({', '.join(differ)}); simulate into "
                    f"another folder, or use it as it is: UVAE_DATA={folder.absolute()} (--data.path)"
                )

    @property
    def finished(self) -> bool:
        """Whether every cube is in its place."""
        return self.final.exists() and len(self.state["done"]) == len(self.table)

    def todo(self) -> list[int]:
        """The cubes that are missing; makes the partial file and the parameter file when there are any."""
        left = sorted(set(range(len(self.table))) - set(self.state["done"]))
        if not left and self.partial.exists():  # stopped between the last record and the renaming
            os.replace(self.partial, self.final)
        if left:
            self.state["versions"] = {package: version(package) for package in PACKAGES}
            write_atomically(self.sidecar, json.dumps(self.state, indent=1))  # first: the folder is known by it
            rows = "".join(f"{m:.6f} {s:.6f}\n" for m, s in self.table.to_numpy())
            write_atomically(self.final.with_name(f"params_{self.name}_JaxPM.txt"), "# Omega_m sigma_8\n" + rows)
            if not self.state["done"]:
                shape = (len(self.table),) + (self.config.side,) * 3
                np.lib.format.open_memmap(self.partial, mode="w+", dtype=np.float32, shape=shape).flush()
        return left

    def job(self, index: int) -> tuple:
        """Arguments of `_fill`."""
        seed = cube_seed(self.name, index, self.config.seed)
        return self.partial, index, *self.table.iloc[index].round(6), seed, self.config

    def record(self, index: int) -> None:
        """Note that a cube is in the partial file; the last one gives the file its name."""
        self.state["done"] = sorted([*self.state["done"], index])
        write_atomically(self.sidecar, json.dumps(self.state, indent=1))
        if len(self.state["done"]) == len(self.table):
            os.replace(self.partial, self.final)


def _one_core() -> None:
    """Run in each new process before JAX starts: every process gets one core, or a share of the GPU's memory.

    Ctrl-C reaches the whole group of processes: these finish their cubes, the first one does not start others.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if not [*Path("/dev").glob("nvidia[0-9]*"), *Path("/dev").glob("kfd")]:  # JAX would look for a GPU, and complain
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"


def _fill(partial: Path, index: int, omega_m: float, sigma_8: float, seed: int, config: SimulationConfig) -> None:
    cube = simulate_cube(omega_m, sigma_8, seed, config.side, config.box_size, config.n_steps)
    cubes = np.lib.format.open_memmap(partial, mode="r+")
    cubes[index] = cube
    cubes.flush()
