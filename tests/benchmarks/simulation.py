"""How true the simulated universes are, and what a cube costs: `python -m tests.benchmarks.simulation`.

Writes build/simulation.md, which docs/simulation.md sums up (a quarter of an hour on two idle cores, 4 GB). Spectra are
those of fields with fixed amplitudes (Angulo & Pontzen 2016, arXiv:1603.05253), so that a box of 128 Mpc/h has little
cosmic variance, with the cloud-in-cell window divided out. Needs camb. `--times FILE` measures only the seconds, for
`make bench`.

The former way is kept here to be compared with: FastPM's leapfrog of eight steps and forces by XLA's scatter, and a
sheet of eight tracers a particle.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path

os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")

import numpy as np

from uvae_lib.files import write_atomically
from uvae_lib.simulation import mass_assignment
from uvae_lib.simulation.particle_mesh import (
    PLANCK15,
    START,
    T_CMB,
    _fields,
    evolve,
    linear_field,
    linear_power,
    simulate_cube,
    variance,
    wave_numbers,
)

SIDE, BOX, STEPS = 128, 128.0, 16
COSMOLOGIES = ((0.1, 1.0), (0.3, 0.8), (0.5, 0.6))
LIMITS = (0.02, 0.05, 0.1)
NEAR = (0.1, 0.2, 0.3, 0.5, 0.8, 1.0, 1.5)  # [h/Mpc]
REMARKS = """
The box: at Omega_m = 0.1 a fifth of sigma_8^2 lies on waves longer than 128 Mpc/h (5 % at 0.3, 3 % at 0.5), which no
cube of this side holds; with 256 Mpc/h the ratio to halofit near 0.1 h/Mpc is 1.02 and to HMcode 1.04. Nor are the
predictions calibrated where half of the matter is baryons.

Storage: log density in float16 changes the density by 2.7e-4 (rms; 2e-3 at most) and P(k) by less than 1e-4. Cubes
are kept in float32, as CAMELS keeps them.

The reference suite: 1,000 cubes of a Latin hypercube, 24 of one cosmology and 22 with one parameter moved (11 values
each), 128^3 in float32, 8.8 GB, by `python -m uvae_lib simulate --preset reference`. Two processes on two cores (AMD
EPYC) made the last 541 of them in 20.1 minutes, 2.2 s a cube with light work beside it; all of them take about 39
minutes. A stopped simulation was taken up again twice. Log density of its 850 training cubes: mean -0.975, standard
deviation 1.083.
"""


# --- fields and their spectra


def fixed_noise(seed: int, side: int = SIDE) -> np.ndarray:
    """White noise whose modes all have the amplitude that is expected of them."""
    modes = np.fft.rfftn(np.random.default_rng(seed).standard_normal((side,) * 3))
    modes *= side**1.5 / np.maximum(np.abs(modes), 1e-12)
    return np.fft.irfftn(modes, s=(side,) * 3).astype(np.float32)


def finer(field: np.ndarray) -> np.ndarray:
    """The same field on a mesh of half the spacing."""
    n, half = len(field), len(field) // 2
    modes, wide = np.fft.rfftn(field), np.zeros((2 * n, 2 * n, n + 1), complex)
    for rows in (slice(0, half), slice(-half + 1, None)):
        for columns in (slice(0, half), slice(-half + 1, None)):
            wide[rows, columns, :half] = modes[rows, columns, :half]
    return np.fft.irfftn(8 * wide, s=(2 * n,) * 3).astype(np.float32)


def sheet(displacement: np.ndarray, most: int | None = None) -> np.ndarray:
    """The density; with `most`, from as many tracers along every edge of every cell."""
    if most is None:
        return mass_assignment.sheet(displacement)
    n, cube = len(displacement), np.zeros(displacement.shape[:3], np.float32)
    for part in np.ndindex(*[most] * 3):
        moved = displacement
        for axis, s in enumerate((np.array(part) + 0.5) / most):
            moved = (1 - s) * moved + s * np.roll(moved, -1, axis)
        cube += mass_assignment.paint((moved + ((np.array(part) + 0.5) / most)).astype(np.float32))
    return cube * (n**3 / cube.sum())


def spectrum(cube: np.ndarray, mask: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """k [h/Mpc] and P(k) [(Mpc/h)^3] in shells of one fundamental mode, below the Nyquist mode of 128^3.

    mask   take the logarithm, in these voxels alone, and leave the window in
    """
    n = len(cube)
    field = cube / cube.mean() - 1 if mask is None else np.where(mask, np.log(cube + 1e-8), 0)
    if mask is not None:
        field = np.where(mask, field - field[mask].mean(), 0)
    modes, k = np.abs(np.fft.rfftn(field)) ** 2 * BOX**3 / n**6, wave_numbers(n)
    if mask is None:
        modes /= np.prod(np.broadcast_arrays(*[np.sinc(axis / (2 * np.pi)) ** 4 for axis in k]), axis=0)
    length = np.sqrt(sum(axis.astype(float) ** 2 for axis in k)) * n / (2 * np.pi)
    twice = np.where((np.arange(n // 2 + 1) == 0) | (np.arange(n // 2 + 1) == n // 2), 1.0, 2.0) * np.ones_like(length)
    shell = np.rint(length).astype(int).ravel()
    total, power, at = (
        np.bincount(shell, (twice * x).ravel())[1 : SIDE // 2] for x in (np.ones_like(length), modes, length)
    )
    return 2 * np.pi / BOX * at / total, power / total


def reach(k: np.ndarray, ratio: np.ndarray, limit: float) -> float:
    """The largest k up to which a ratio stays within a limit of 1."""
    out = np.flatnonzero(np.abs(ratio - 1) > limit)
    return float(k[-1] if not len(out) else k[out[0] - 1] if out[0] else 0.0)


# --- the former way


def former_cube(noise: np.ndarray, omega_m: float, sigma_8: float, n_steps: int = 8) -> np.ndarray:
    """A universe as it was made before: JaxPM's forces, FastPM's factors (arXiv:1603.00476), eight tracers, CIC."""
    import jax.numpy as jnp
    import jax_cosmo as jc
    from jaxpm import growth

    side = len(noise)
    fixed = {name: PLANCK15[name] for name in ("Omega_b", "h", "n_s")}
    cosmo = jc.Planck15(Omega_c=omega_m - PLANCK15["Omega_b"], sigma8=sigma_8, **fixed)
    delta = jnp.asarray(linear_field(noise, omega_m, sigma_8, BOX))
    lattice = jnp.stack(jnp.meshgrid(*[jnp.arange(side, dtype=jnp.float32)] * 3, indexing="ij"), axis=-1)
    start, force, paint = _former_parts(side)
    displacement, momentum = start(cosmo, delta, lattice)
    pull = force(lattice, displacement)

    def at(function: Callable, x: float) -> float:
        return float(np.squeeze(function(cosmo, np.atleast_1d(x))))

    def kick(begin: float, end: float, a: float) -> float:
        change = (at(growth.Gf, end) - at(growth.Gf, begin)) / at(growth.dGfa, a)
        return 1.5 * omega_m * change / (a**2 * at(growth.E, a))

    at(growth.growth_factor, 1.0)
    for begin, end in pairwise(np.linspace(START, 1.0, n_steps + 1)):
        middle = float(np.sqrt(begin * end))
        slope = at(growth.growth_rate, middle) * at(growth.growth_factor, middle) / middle
        drift = (at(growth.growth_factor, end) - at(growth.growth_factor, begin)) / slope
        drift /= middle**3 * at(growth.E, middle)
        momentum = momentum + kick(begin, middle, begin) * pull
        displacement = displacement + drift * momentum
        pull = force(lattice, displacement) if end < 1 else pull
        momentum = momentum + kick(middle, end, end) * pull
    return np.asarray(paint(lattice, displacement))


@cache
def _former_parts(side: int) -> tuple[Callable, Callable, Callable]:
    import jax
    import jax.numpy as jnp
    from jaxpm.painting import cic_paint
    from jaxpm.pm import lpt, pm_forces

    shape = (side,) * 3

    def paint(lattice, displacement):
        cube = jnp.zeros(shape)
        for corner in np.ndindex(2, 2, 2):
            field = displacement
            for axis, half in enumerate(corner):
                field = (field + jnp.roll(field, -1, axis)) / 2 if half else field
            cube = cic_paint(cube, lattice + jnp.array(corner) / 2 + field, 0.125)
        return cube

    return (
        jax.jit(lambda cosmo, delta, lattice: lpt(cosmo, delta, lattice, a=START, order=2)[:2]),
        jax.jit(lambda lattice, displacement: pm_forces(lattice + displacement, mesh_shape=shape)),
        jax.jit(paint),
    )


# --- what is measured


def times(rounds: int = 3) -> dict:
    """CPU seconds a cube of one process, the former way and ours in turns, and the parts of ours."""
    noise = fixed_noise(1)
    ways = {
        "former": lambda: former_cube(noise, 0.3, 0.8),
        "ours": lambda: simulate_cube(0.3, 0.8, 1, SIDE, BOX, STEPS),
    }
    taken = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            began = time.process_time()
            way()
            if number:
                taken[name].append(time.process_time() - began)
    delta = linear_field(noise, 0.3, 0.8, BOX)
    displacement, fields = evolve(delta, 0.3, 2), _fields(SIDE)
    painted = mass_assignment.paint(displacement)
    pulls = [np.asarray(x) for x in fields.force(painted)]
    final = evolve(delta, 0.3, STEPS)
    parts = {
        "painting for forces": (STEPS, lambda: mass_assignment.paint(final)),
        "Fourier transforms": (STEPS, lambda: [np.asarray(x) for x in fields.force(painted)]),
        "reading forces": (STEPS, lambda: mass_assignment.read(pulls, final)),
        "2LPT start": (1, lambda: [np.asarray(x) for x in fields.start(delta)]),
        "painting the sheet": (1, lambda: mass_assignment.sheet(final)),
    }
    shares = {}
    for name, (count, part) in parts.items():
        part()
        began = time.process_time()
        for _ in range(rounds):
            part()
        shares[name] = count * (time.process_time() - began) / rounds
    return {name: float(np.median(t)) for name, t in taken.items()} | {"parts": shares}


def published(omega_m: float, sigma_8: float) -> dict[str, Callable]:
    """camb's spectra as functions of k [h/Mpc]: linear, halofit (Takahashi 2012), HMcode (Mead 2020)."""
    import camb

    h = PLANCK15["h"]
    baryons = PLANCK15["Omega_b"] * h**2
    ask = camb.set_params(
        H0=100 * h, ombh2=baryons, omch2=omega_m * h**2 - baryons, mnu=0, num_massive_neutrinos=0,
        ns=PLANCK15["n_s"], TCMB=T_CMB, As=2e-9,
    )  # fmt: skip
    ask.WantCls = ask.DoLensing = False
    ask.set_matter_power(redshifts=[0.0], kmax=50.0)
    ask.InitPower.set_params(As=2e-9 * (sigma_8 / camb.get_results(ask).get_sigma8_0()) ** 2, ns=PLANCK15["n_s"])
    found = {}
    for name, model in {"linear": None, "halofit": "takahashi", "HMcode": "mead2020"}.items():
        ask.NonLinear = camb.model.NonLinear_both if model else camb.model.NonLinear_none
        if model:
            ask.NonLinearModel.set_params(halofit_version=model)
        k, _, power = camb.get_results(ask).get_matter_power_spectrum(minkh=1e-3, maxkh=20, npoints=400)
        found[name] = lambda x, k=k, p=power[0]: np.exp(np.interp(np.log(x), np.log(k), np.log(p)))
    return found


def accuracy(omega_m: float, sigma_8: float) -> list[tuple[str, list[float]]]:
    """Rows: what is compared, and to which k [h/Mpc] it agrees within 2, 5, 10 %."""
    noise = fixed_noise(1)
    delta = linear_field(noise, omega_m, sigma_8, BOX)
    cubes = {n: sheet(evolve(delta, omega_m, n)) for n in (8, 12, STEPS, 40)}
    k, power = spectrum(cubes[STEPS])
    against = {f"{n} steps / 40 steps": spectrum(cubes[n])[1] / spectrum(cubes[40])[1] for n in (8, 12, STEPS)}
    finest = spectrum(sheet(evolve(finer(delta), omega_m, 24)))[1]
    against[f"{STEPS} steps / 24 steps, 256^3 particles and mesh, same modes"] = power / finest
    against["formerly / the same"] = spectrum(former_cube(noise, omega_m, sigma_8))[1] / finest
    return [(name, [reach(k, ratio, limit) for limit in LIMITS]) for name, ratio in against.items()]


def against_theory(omega_m: float, sigma_8: float) -> list[tuple[str, list[float]]]:
    """Rows: a published prediction, and the evolved spectrum of two paired fields over it, near some k [h/Mpc].

    Predictions start from camb's linear spectrum; its ratio to the one used here is divided out.
    """
    fields = [linear_field(noise, omega_m, sigma_8, BOX) for noise in (fixed_noise(1), -fixed_noise(1))]
    (k, one), (_, other) = (spectrum(sheet(evolve(delta, omega_m, STEPS))) for delta in fields)
    theory = published(omega_m, sigma_8)
    correction = np.interp(k, *linear_power(omega_m, sigma_8)) / theory["linear"](k)
    ratios = {name: (one + other) / 2 / theory[name](k) / correction for name in ("halofit", "HMcode")}
    return [(name, [float(ratio[np.abs(k - x) < 0.06].mean()) for x in NEAR]) for name, ratio in ratios.items()]


def ripples(omega_m: float, sigma_8: float) -> list[tuple[str, list[float]]]:
    """Rows: a way to paint, and what it does to the fifth of the volume that is emptiest after smoothing."""
    from scipy.ndimage import gaussian_filter

    noise = np.random.default_rng(1).standard_normal((SIDE,) * 3, dtype=np.float32)
    displacement = evolve(linear_field(noise, omega_m, sigma_8, BOX), omega_m, STEPS)
    dense = sheet(displacement, most=6)
    smooth = gaussian_filter(np.log(dense), 2, mode="wrap")
    void = smooth < np.quantile(smooth, 0.2)
    corners = sheet_of_corners(displacement)
    rows = []
    for name, cube in {"8 a particle, as formerly": corners, "64 a particle": sheet(displacement, most=4),
                       "as the stretch asks": sheet(displacement)}.items():  # fmt: skip
        excess = spectrum(cube, void)[1] / spectrum(dense, void)[1]
        changed = np.abs(cube / dense - 1)[void] > 0.1
        rows.append((name, [100 * changed.mean(), 100 * (excess[40:].max() - 1), 100 * (cube < 1e-7).mean()]))
    return rows


def sheet_of_corners(displacement: np.ndarray) -> np.ndarray:
    """Eight tracers a particle, on the lattice and halfway between its points."""
    cube = 0
    for corner in np.ndindex(2, 2, 2):
        moved = displacement
        for axis, half in enumerate(corner):
            moved = (moved + np.roll(moved, -1, axis)) / 2 if half else moved
        cube = cube + mass_assignment.paint((moved + np.array(corner) / 2).astype(np.float32)) / 8
    return cube


def transfer_difference() -> list[tuple[str, list[float]]]:
    """Rows: cosmology, and the linear spectrum here over camb's, both with the same sigma_8, at some k [h/Mpc]."""
    at, rows = np.array([0.02, 0.1, 0.5, 2.0]), []
    for omega_m, sigma_8 in COSMOLOGIES:
        k, power = linear_power(omega_m, sigma_8)
        ratio = np.interp(at, k, power) / published(omega_m, sigma_8)["linear"](at)
        rows.append((f"{omega_m}, {sigma_8}", [float(np.sqrt(variance(k, power))), *ratio]))
    return rows


def as_table(head: list[str], rows: list[tuple[str, list[float]]], digits: int) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + [f"| {name} | " + " | ".join(f"{x:.{digits}f}" for x in row) + " |" for name, row in rows])


def report() -> str:
    """All tables in Markdown."""
    cost = times()
    seconds = ", ".join(f"{name} {value:.2f}" for name, value in cost["parts"].items())
    text = [
        "# The simulation: how true it is, and what it costs\n\nMade by `python -m tests.benchmarks.simulation`; 128^3 "
        f"in 128 Mpc/h.\n\nCPU seconds a cube of one process: formerly {cost['former']:.1f}, now {cost['ours']:.1f} "
        f"({seconds}).\n\nLinear spectrum: sigma_8 and its ratio to camb's, at k [h/Mpc]:\n",
        as_table(["Omega_m, sigma_8", "sigma_8", "0.02", "0.1", "0.5", "2"], transfer_difference(), 4),
    ]
    for cosmology in COSMOLOGIES:
        where = f"Omega_m = {cosmology[0]}, sigma_8 = {cosmology[1]}"
        text.append(f"\n{where}: k [h/Mpc] up to which P(k) agrees within\n")
        text.append(as_table(["", "2 %", "5 %", "10 %"], accuracy(*cosmology), 2))
        text.append(f"\n{where}: P(k) over published predictions, near k [h/Mpc]\n")
        text.append(as_table(["", *map(str, NEAR)], against_theory(*cosmology), 3))
        text.append(f"\n{where}: tracers of the sheet, against 216 a particle, in voids\n")
        head = [
            "",
            "voxels that differ by > 10 % [%]",
            "most excess of P(k) of log density, k > 2 h/Mpc [%]",
            "empty [%]",
        ]
        text.append(as_table(head, ripples(*cosmology), 2))
        print(*text[-6:], sep="\n", flush=True)
    return "\n".join([*text, REMARKS])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=Path, help="measure the seconds alone, into this file")
    to = parser.parse_args().times
    if to:
        write_atomically(to, json.dumps(times()))
    else:
        write_atomically("build/simulation.md", report())


if __name__ == "__main__":
    main()
