"""A suite of simulated universes, made here: a particle-mesh N-body code, so that nobody needs a download.

JaxPM moves one particle per voxel from a 2LPT start at a = 0.1 to a = 1 (kick, drift, kick; the factors of
FastPM, Feng et al. 2016, arXiv:1603.00476, which keep linear growth exact at any number of steps). The matter
sheet between the particles is then sampled with eight tracers a particle (Abel, Hahn & Kaehler 2012,
arXiv:1111.3944) and painted with cloud-in-cell weights, so that voids hold matter too.

Files follow the CAMELS Multifield Dataset: `Grids_Mcdm_JaxPM_LH_128_z=0.0.npy`, `params_LH_JaxPM.txt`.
"""

import json
import os
import signal
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, as_completed, wait
from functools import cache
from importlib.metadata import version
from itertools import islice, pairwise
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from .cubes import CubeSuite, open_cubes, open_data
from .files import write_atomically
from .presets import Config, SimulationConfig, locate

SETS = ("LH", "CV", "1P")
FIDUCIAL = {"Omega_m": 0.3, "sigma_8": 0.8}
RANGES = {"Omega_m": (0.1, 0.5), "sigma_8": (0.6, 1.0)}
PLANCK15 = {"Omega_b": 0.0486, "h": 0.6774, "n_s": 0.9667}  # Planck 2015, table 4, last column
START = 0.1  # scale factor of the 2LPT start


def simulate_suite(
    path: str | Path, config: SimulationConfig | None = None, progress: bool = True
) -> dict[str, CubeSuite]:
    """Simulate the LH, CV and 1P sets into a folder, or finish what an earlier call left, or reuse what is there.

    path      folder, made when absent
    config    mesh side, box [Mpc/h], number of cubes a set, steps, seed, processes (`SimulationConfig`)
    Returns   {set name: CubeSuite} for every set with at least one cube.
    Raises ValueError when the folder holds a suite made with other settings; ImportError without the extra.
    """
    config = config or SimulationConfig()
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    counts = dict(zip(SETS, (config.n_lh, config.n_cv, config.n_1p), strict=True))
    sets = {name: _UnfinishedSet(folder, name, config) for name in SETS if counts[name]}
    jobs = {(name, i): one.job(i) for name, one in sets.items() for i in one.todo()}
    total = sum(counts.values())
    if jobs:
        bar = tqdm(total=total, initial=total - len(jobs), desc="simulate", unit="cube", disable=not progress)
        with bar, ProcessPoolExecutor(config.processes, get_context("spawn"), _one_core) as pool:
            waiting, running = iter(jobs.items()), {}
            try:
                while True:
                    for key, job in islice(waiting, config.processes - len(running)):
                        running[pool.submit(_fill, *job)] = key
                    if not running:
                        break
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        name, index = running.pop(future)
                        future.result()
                        sets[name].record(index)
                        bar.update()
            finally:  # whoever stops the run keeps the cubes that are under way
                for future in as_completed(running):
                    if not future.exception():
                        name, index = running[future]
                        sets[name].record(index)
    return {name: open_cubes(folder / grid_name(name, config.side)) for name in sets}


def load_suite(config: Config, set_name: str | None = None) -> CubeSuite:
    """The suite of a configuration: cubes that somebody brought, or simulated ones, made now if they are missing.

    set_name    LH, CV, 1P; that of the configuration when absent
    """
    path = locate(config.data.path)
    if not path.exists() or any(path.glob("simulation_*.json")):
        simulate_suite(path, config.simulation)
    return open_data(config.data, set_name)


def recorded_settings(folder: Path, side: int, set_name: str = "LH") -> dict:
    """How the cubes of a set in a folder were simulated; empty for cubes that were not simulated by `simulate_suite`.

    side   of the cubes [voxels]
    """
    path = folder / f"simulation_{set_name}_{side}.json"
    return json.loads(path.read_text())["settings"] if path.is_file() else {}


def grid_name(set_name: str, side: int) -> str:
    """File name of a set of cubes, as CAMELS names it."""
    return f"Grids_Mcdm_JaxPM_{set_name}_{side}_z=0.0.npy"


def cosmologies(set_name: str, config: SimulationConfig) -> pd.DataFrame:
    """Omega_m and sigma_8 of every cube of a set: one row a cube.

    LH  a Latin hypercube over the CAMELS ranges      CV  the fiducial cosmology, n_cv times
    1P  the first half moves Omega_m alone, the second half sigma_8 alone, over the full ranges
    """
    names, low, high = list(RANGES), *np.transpose(list(RANGES.values()))
    if set_name == "LH":
        from scipy.stats import qmc

        unit = qmc.LatinHypercube(d=2, rng=np.random.default_rng(config.seed)).random(config.n_lh)
        return pd.DataFrame(qmc.scale(unit, low, high), columns=names)
    table = pd.DataFrame([FIDUCIAL] * (config.n_cv if set_name == "CV" else config.n_1p))
    if set_name == "1P":
        for name, rows in zip(names, np.array_split(np.arange(config.n_1p), 2), strict=True):
            table.loc[rows, name] = np.linspace(*RANGES[name], len(rows))
    return table


def cube_seed(set_name: str, index: int, seed: int) -> int:
    """Seed of the initial phases: differs for every cube, except in 1P, whose cubes share their phases."""
    entropy = [seed, SETS.index(set_name), 0 if set_name == "1P" else index]
    return int(np.random.SeedSequence(entropy).generate_state(1)[0] >> 1)


def simulate_cube(omega_m: float, sigma_8: float, seed: int, side: int, box_size: float, n_steps: int) -> np.ndarray:
    """One universe at a = 1.

    omega_m, sigma_8   cosmology; the other parameters are Planck 2015, flat
    seed               of the initial phases
    side               voxels (and particles) along an edge;  box_size [Mpc/h];  n_steps of the leapfrog
    Returns (side, side, side) float32, overdensity rho / <rho>, never negative, mean 1.
    """
    import jax
    import jax.numpy as jnp
    from jaxpm.pm import linear_field

    cosmo = _cosmology(omega_m, sigma_8)
    k, power = linear_power(omega_m, sigma_8)
    shape = (side,) * 3
    delta = linear_field(
        shape, (box_size,) * 3, lambda x: jnp.interp(x, k, power, left=0.0), seed=jax.random.PRNGKey(seed)
    )
    lattice = jnp.stack(jnp.meshgrid(*[jnp.arange(side, dtype=jnp.float32)] * 3, indexing="ij"), axis=-1)
    start, advance, force, paint = _compiled(shape)
    displacement, momentum = start(cosmo, delta, lattice)
    pull = force(lattice, displacement)
    a = np.linspace(START, 1.0, n_steps + 1)
    for i, factors in enumerate(_leapfrog_factors(cosmo, a)):
        first_kick, drift, last_kick = factors
        displacement, momentum = advance(displacement, momentum, pull, first_kick, drift)
        if i < n_steps - 1:  # momenta at a = 1 are not needed
            pull = force(lattice, displacement)
            momentum = momentum + last_kick * pull
    cube = np.asarray(paint(lattice, displacement), dtype=np.float64)
    return np.maximum(cube / cube.mean(), 0.0).astype(np.float32)


def linear_power(omega_m: float, sigma_8: float) -> tuple[np.ndarray, np.ndarray]:
    """Linear matter power spectrum at a = 1 (Eisenstein & Hu 1998): k [h/Mpc], P(k) [(Mpc/h)^3]."""
    k = np.geomspace(1e-4, 50.0, 1024)
    return k, np.asarray(_linear_power()(_cosmology(omega_m, sigma_8), k))


@cache
def _linear_power() -> Callable:
    import jax
    import jax_cosmo as jc

    return jax.jit(lambda cosmo, k: jc.power.linear_matter_power(cosmo, k))


def _cosmology(omega_m: float, sigma_8: float):
    """A new jax_cosmo cosmology: the tables that one caches must not meet another function's tracers."""
    import jax_cosmo as jc

    return jc.Planck15(
        Omega_c=omega_m - PLANCK15["Omega_b"],
        Omega_b=PLANCK15["Omega_b"],
        h=PLANCK15["h"],
        n_s=PLANCK15["n_s"],
        sigma8=sigma_8,
    )


def _leapfrog_factors(cosmo, a: np.ndarray) -> list[tuple[float, float, float]]:
    """First kick, drift, last kick of every step between the scale factors a (Feng et al. 2016, eq. 20-24)."""
    from jaxpm import growth

    def at(function, x: float) -> float:
        return float(np.squeeze(function(cosmo, np.atleast_1d(x))))

    def kick(start: float, stop: float, at_a: float) -> float:
        change = (at(growth.Gf, stop) - at(growth.Gf, start)) / at(growth.dGfa, at_a)
        return 1.5 * float(cosmo.Omega_m) * change / (at_a**2 * at(growth.E, at_a))

    def drift(start: float, stop: float, at_a: float) -> float:
        change = at(growth.growth_factor, stop) - at(growth.growth_factor, start)
        slope = at(growth.growth_rate, at_a) * at(growth.growth_factor, at_a) / at_a  # dD/da
        return change / slope / (at_a**3 * at(growth.E, at_a))

    factors = []
    for start, stop in pairwise(a):
        middle = float(np.sqrt(start * stop))
        factors.append((kick(start, middle, start), drift(start, stop, middle), kick(middle, stop, stop)))
    return factors


@cache
def _compiled(shape: tuple[int, int, int]) -> tuple[Callable, Callable, Callable, Callable]:
    """The four jitted parts of a run on one mesh; compiled once a process."""
    import jax
    import jax.numpy as jnp
    from jaxpm.painting import cic_paint
    from jaxpm.pm import lpt, pm_forces

    @jax.jit
    def start(cosmo, delta, lattice):
        return lpt(cosmo, delta, lattice, a=START, order=2)[:2]

    @jax.jit
    def advance(displacement, momentum, pull, kick, drift):
        momentum = momentum + kick * pull
        return displacement + drift * momentum, momentum

    @jax.jit
    def force(lattice, displacement):
        return pm_forces(lattice + displacement, mesh_shape=shape)

    @jax.jit
    def paint(lattice, displacement):
        """Eight shifted lattices: a tracer halfway between lattice points moves by the mean of its neighbours."""

        def halfway(shift):
            field = displacement
            for axis, half in enumerate(shift):
                field = (field + jnp.roll(field, -1, axis)) / 2 if half else field
            return lattice + jnp.array(shift) / 2 + field

        cube = jnp.zeros(shape)
        for corner in np.ndindex(2, 2, 2):
            cube = cic_paint(cube, halfway(corner), 0.125)
        return cube

    return start, advance, force, paint


class _UnfinishedSet:
    """One file of cubes on its way: a partial file, and a record of the cubes in it that are done."""

    def __init__(self, folder: Path, name: str, config: SimulationConfig):
        self.name, self.config, self.table = name, config, cosmologies(name, config)
        self.final = folder / grid_name(name, config.side)
        self.partial = self.final.with_name(self.final.name + ".partial")
        self.sidecar = folder / f"simulation_{name}_{config.side}.json"
        settings = _settings(name, config, len(self.table))
        self.state = {"settings": settings, "done": []}
        found = json.loads(self.sidecar.read_text()) if self.sidecar.exists() else self.state
        if found["done"] and (self.final.exists() or self.partial.exists()):
            self.state = found
            differ = [key for key in settings if found["settings"].get(key) != settings[key]]
            if differ:
                raise ValueError(
                    f"{folder} holds a {name} set made with other settings ({', '.join(differ)}); "
                    "simulate into another folder, or remove this one"
                )

    def todo(self) -> list[int]:
        """The cubes that are missing; makes the partial file and the parameter file when there are any."""
        left = sorted(set(range(len(self.table))) - set(self.state["done"]))
        if not left and self.partial.exists():  # stopped between the last record and the renaming
            os.replace(self.partial, self.final)
        if left:
            self.state["versions"] = {p: version(p) for p in ("jaxpm", "jax-cosmo", "jax", "numpy")}
            rows = "".join(f"{m:.6f} {s:.6f}\n" for m, s in self.table.to_numpy())
            write_atomically(self.final.with_name(f"params_{self.name}_JaxPM.txt"), "# Omega_m sigma_8\n" + rows)
            if not self.state["done"]:
                shape = (len(self.table),) + (self.config.side,) * 3
                np.lib.format.open_memmap(self.partial, mode="w+", dtype=np.float32, shape=shape).flush()
        return left

    def job(self, index: int) -> tuple:
        seed = cube_seed(self.name, index, self.config.seed)
        return self.partial, index, *self.table.iloc[index].round(6), seed, self.config

    def record(self, index: int) -> None:
        """Note that a cube is in the partial file; the last one gives the file its name."""
        self.state["done"] = sorted([*self.state["done"], index])
        write_atomically(self.sidecar, json.dumps(self.state, indent=1))
        if len(self.state["done"]) == len(self.table):
            os.replace(self.partial, self.final)


def _settings(name: str, config: SimulationConfig, n_cubes: int) -> dict:
    return {
        "set": name,
        "n_cubes": n_cubes,
        "side": config.side,
        "box_size": config.box_size,
        "n_steps": config.n_steps,
        "start": START,
        "seed": config.seed,
        "painting": "Lagrangian sheet, 8 tracers a particle, CIC",
        "fixed": PLANCK15,
    }


def _one_core() -> None:
    """Run in each new process before JAX starts: XLA's scatter uses one core, so every process gets one.

    Ctrl-C reaches the whole group of processes: these finish their cubes, the first one does not start others.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"


def _fill(partial: Path, index: int, omega_m: float, sigma_8: float, seed: int, config) -> int:
    cube = simulate_cube(omega_m, sigma_8, seed, config.side, config.box_size, config.n_steps)
    cubes = np.lib.format.open_memmap(partial, mode="r+")
    cubes[index] = cube
    cubes.flush()
    return index
