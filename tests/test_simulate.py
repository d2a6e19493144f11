"""The simulated suite: its physics and painting against theory, its files against an interruption at any time.

JAX runs in other processes only: its threads and those of torch do not belong into one.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import pytest
from filelock import FileLock
from scipy.special import hyp2f1

from uvae_lib.cubes.suite import open_cubes
from uvae_lib.presets import PRESETS, SMOKE, Config, DataConfig, SimulationConfig
from uvae_lib.simulation import suite as simulate
from uvae_lib.simulation.particle_mesh import METHOD, growth, linear_power
from uvae_lib.simulation.suite import (
    FIDUCIAL,
    RANGES,
    SETS,
    cosmologies,
    cube_seed,
    grid_name,
    load_suite,
    simulate_suite,
)

SMALL = SMOKE.simulation  # six LH cubes, two CV, four 1P, of 32^3
THE_SUITE = """
import json, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that starts tests in the background turns it off
from uvae_lib.presets import SimulationConfig
from uvae_lib.simulation.suite import simulate_suite
simulate_suite(sys.argv[1], SimulationConfig(**json.loads(sys.argv[2])), progress=False, processes=1)
"""
THE_CUBES = """
import sys
import jax, numpy as np
from uvae_lib.simulation import particle_mesh
from jaxpm.painting import cic_paint, cic_read
from scipy.ndimage import map_coordinates
from uvae_lib.simulation.mass_assignment import MOST, PER_VOXEL, THIN, paint, read, sheet
from uvae_lib.simulation.particle_mesh import evolve, linear_field, simulate_cube

side, box, steps = 64, 256.0, 4
found = {
    "first": simulate_cube(0.3, 0.8, 1, side, box, steps),
    "again": simulate_cube(0.3, 0.8, 1, side, box, steps),
    "other_seed": simulate_cube(0.3, 0.8, 2, side, box, steps),
    "other_cosmology": simulate_cube(0.2, 0.8, 1, side, box, steps),
    "calm": simulate_cube(0.3, 0.05, 1, side, box, steps),
}
with jax.enable_x64(True):
    found["double"] = simulate_cube(0.3, 0.8, 1, side, box, steps)
noise = np.random.default_rng(1).standard_normal((side,) * 3, dtype=np.float32)
found["noise"], found["start"] = noise, linear_field(noise, 0.3, 0.8, box)
moved = found["moved"] = evolve(linear_field(noise[:16, :16, :16], 0.1, 1.0, 16.0), 0.1, 4)
meshes = [moved[..., axis].copy() for axis in range(3)]
found |= {"loops_paint": paint(moved), "loops_sheet": sheet(moved), "loops_read": read(meshes, moved)}

empty = np.zeros((16,) * 3, np.float32)
lattice = np.stack(np.meshgrid(*[np.arange(16, dtype=np.float32)] * 3, indexing="ij"), -1)
found["jax_paint"] = cic_paint(empty, lattice + moved)
found["jax_read"] = np.stack([cic_read(mesh, lattice + moved) for mesh in meshes], -1)
corners = {c: np.roll(moved, [-x for x in c], (0, 1, 2)) + np.float32(c) for c in np.ndindex(2, 2, 2)}
edges = [[corners[b] - corners[a] for a in corners for b in corners if np.subtract(b, a).tolist() == step]
         for step in np.eye(3, dtype=int).tolist()]
along = [np.stack(four)[..., axis] for axis, four in enumerate(edges)]
thin = (np.min(along, (0, 1)) > 0) & (np.prod(np.mean(along, 1), 0) > 1 / THIN)
tracers = [np.clip(np.ceil(PER_VOXEL * np.abs(four).max((0, -1))), 1, MOST) for four in edges]
found["jax_sheet"] = empty
for part in np.ndindex(*[MOST] * 3):  # one tracer of every cell that has so many
    s = [((u + 0.5) / n)[..., None] for u, n in zip(part, tracers)]
    place = sum(x * np.prod([t if up else 1 - t for t, up in zip(s, c)], axis=0) for c, x in corners.items())
    at = [lattice[..., axis] + s[axis][..., 0] for axis in range(3)]
    smooth = [map_coordinates(moved[..., axis], at, order=3, mode="grid-wrap") for axis in range(3)]
    place = np.where(thin[..., None], np.stack(smooth, -1) + np.concatenate(s, -1), place)
    mass = np.where(np.all([u < n for u, n in zip(part, tracers)], axis=0), 1 / np.prod(tracers, axis=0), 0)
    found["jax_sheet"] = cic_paint(found["jax_sheet"], (lattice + place).astype(np.float32), mass.astype(np.float32))

q = np.arange(32)  # every axis: x = q + 10 sin(2 pi q / 32), stretched three times at q = 0, folded at q = 16
wave = 10 * np.sin(2 * np.pi * q / 32)
waves = np.stack(np.meshgrid(wave, wave, wave, indexing="ij"), -1).astype(np.float32)
found["waves"] = sheet(waves)
np.savez(sys.argv[1], **found)
"""


def in_a_process(script, *args, **options):
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    return subprocess.Popen([sys.executable, "-c", script, *map(str, args)], env=environment, **options)


def shells(cube):
    """Fourier modes of the contrast of a cube (N, N, N), and |k| of each in units of the fundamental mode."""
    modes = np.fft.fftn(np.asarray(cube, np.float64) - 1)
    k = np.fft.fftfreq(len(cube)) * len(cube)
    return modes, np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + k**2)


def correlation(a, b, low, high):
    """Correlation of the modes of two cubes with low <= |k| / k_f < high."""
    (a, k), (b, _) = shells(a), shells(b)
    inside = (k >= low) & (k < high)
    a, b = a[inside], b[inside]
    return np.vdot(b, a).real / np.sqrt(np.vdot(a, a).real * np.vdot(b, b).real)


def power(cube, low, high):
    modes, k = shells(cube)
    return np.mean(np.abs(modes[(k >= low) & (k < high)]) ** 2)


@pytest.fixture(scope="module")
def small_folder(made_once):
    """The smoke suite, made by two processes; test_cropping asks for the same folder."""
    return made_once("smoke", lambda folder: simulate_suite(folder, SMALL, progress=False) and folder)


@pytest.fixture(scope="module")
def small(small_folder):
    """Its three sets."""
    return {name: open_cubes(small_folder, set_name=name) for name in SETS}


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """Cubes of 64^3 in 256 Mpc/h by `simulate_cube` itself, the linear field of the first, and linear spectra."""
    path = tmp_path_factory.mktemp("wide") / "cubes.npz"
    process = in_a_process(THE_CUBES, path)
    assert process.wait() == 0
    return dict(np.load(path))


@pytest.fixture(scope="module")
def fiducial(made_once):
    """One cube of 128^3 in 128 Mpc/h with the default number of steps; test_model asks for the same folder."""
    config = SimulationConfig(n_lh=0, n_cv=1)
    return made_once("fiducial", lambda folder: simulate_suite(folder, config, progress=False)["CV"]).overdensity(0)


# --- cubes


def test_every_set_has_its_cubes(small):
    assert {name: suite.n_cubes for name, suite in small.items()} == {"LH": 6, "CV": 2, "1P": 4}


def test_cubes_know_their_side_and_box(small):
    assert {(suite.side, suite.box_size, suite.field_type) for suite in small.values()} == {(32, 32.0, "overdensity")}


@pytest.mark.parametrize("name", SETS)
def test_the_mean_of_every_cube_is_one(small_folder, name):
    cubes = np.load(small_folder / grid_name(name, 32), mmap_mode="r")
    np.testing.assert_allclose(cubes.mean(axis=(1, 2, 3), dtype=np.float64), 1, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", SETS)
def test_no_voxel_is_negative(small_folder, name):
    assert np.load(small_folder / grid_name(name, 32), mmap_mode="r").min() >= 0


def test_the_same_seed_gives_the_same_cube(wide):
    assert np.array_equal(wide["first"], wide["again"])


def test_another_seed_gives_another_cube(wide):
    assert abs(correlation(wide["first"], wide["other_seed"], 1, 8)) < 0.1


def test_another_cosmology_has_the_same_phases(wide):
    assert not np.array_equal(wide["first"], wide["other_cosmology"])
    assert correlation(wide["first"], wide["other_cosmology"], 1, 3) > 0.98


def test_hardly_a_voxel_of_128_cubed_is_empty(fiducial):
    assert (fiducial < 1e-7).mean() < 1e-3


def test_the_mean_of_a_large_cube_is_one(fiducial):
    assert fiducial.mean(dtype=np.float64) == pytest.approx(1, abs=1e-5) and fiducial.min() >= 0


# --- linear theory


def sigma_8(k, spectrum):
    """Standard deviation in spheres of 8 Mpc/h of a spectrum, on a much finer grid than it has."""
    fine = np.geomspace(1e-5, 99, 400_000)
    x = 8 * fine
    window = np.where(x < 0.03, 1 - x**2 / 10, 3 * (np.sin(x) - x * np.cos(x)) / x**3)
    power = np.exp(np.interp(np.log(fine), np.log(k), np.log(spectrum)))
    return np.sqrt(np.trapezoid(fine**3 * power * window**2 / (2 * np.pi**2), np.log(fine)))


@pytest.mark.parametrize("omega_m", [0.1, 0.2, 0.3, 0.4, 0.5])
@pytest.mark.parametrize("expected", [0.6, 0.8, 1.0])
def test_the_linear_spectrum_has_its_sigma_8_over_the_whole_prior(omega_m, expected):
    assert sigma_8(*linear_power(omega_m, expected)) == pytest.approx(expected, rel=3e-3)


def test_the_linear_field_has_the_linear_spectrum_mode_by_mode(wide):
    """The ratio of every mode to that of its white noise: no cosmic variance. So the field has its sigma_8, too."""
    (start, k), (noise, _) = shells(wide["start"] + 1), shells(wide["noise"] + 1)
    inside = (k > 0) & (k < 32)
    found = np.abs(start[inside] / noise[inside]) ** 2 * (256.0 / 64) ** 3
    spectrum = np.exp(np.interp(np.log(2 * np.pi / 256.0 * k[inside]), *np.log(linear_power(0.3, 0.8))))
    np.testing.assert_allclose(found, spectrum, rtol=3e-3)


def test_growth_in_a_flat_universe_of_matter_is_known():
    a = np.linspace(0.1, 1, 10)
    first, second, slope = growth(1.0, a)
    np.testing.assert_allclose(first, a, rtol=1e-4)
    np.testing.assert_allclose(second, 3 / 7 * a**2, rtol=1e-4)
    np.testing.assert_allclose(slope, 6 / 7 * a, rtol=1e-4)


@pytest.mark.parametrize("omega_m", [0.1, 0.3, 0.5])
def test_growth_with_a_cosmological_constant_is_the_hypergeometric_function(omega_m):
    a = np.linspace(0.1, 1, 10)
    exact = a * hyp2f1(1 / 3, 1, 11 / 6, -(1 - omega_m) / omega_m * a**3)
    np.testing.assert_allclose(growth(omega_m, a)[0], exact / exact[-1], rtol=1e-4)


# --- mass assignment


@pytest.mark.parametrize("function", ["paint", "read", "sheet"])
def test_compiled_loops_and_jax_agree_to_rounding(wide, function):
    np.testing.assert_allclose(wide[f"loops_{function}"], wide[f"jax_{function}"], rtol=1e-4, atol=1e-4)


def test_a_read_of_the_mesh_is_the_adjoint_of_a_painting(wide):
    """<painted, mesh> = sum of the mesh's values at the particles."""
    mesh = wide["moved"][..., 0]
    assert (wide["loops_paint"] * mesh).sum() == pytest.approx(wide["loops_read"][..., 0].sum(), rel=1e-3, abs=1e-2)


def test_a_stretched_sheet_has_no_ripples(wide):
    """Against the exact density of a sheet moved by a sine along every axis; 8 tracers a particle are off by 220 %."""
    q = (np.arange(32 * 4096) + 0.5) / 4096
    x = q + 10 * np.sin(2 * np.pi * q / 32)
    low = np.floor(x).astype(int)
    line = (np.bincount(low % 32, 1 - x + low, 32) + np.bincount((low + 1) % 32, x - low, 32)) / 4096
    off, stretched = wide["waves"] / np.einsum("i,j,k->ijk", line, line, line) - 1, line < 1
    void = off[np.ix_(stretched, stretched, stretched)]
    assert np.abs(void).max() < 0.15 and void.std() < 0.05


def test_voids_show_no_lattice(fiducial):
    """Small-scale power of the log density in voids along axes over that along diagonals; 1.3 with straight pieces."""
    modes, length = shells(np.minimum(np.log(fiducial + 1e-8), -1) + 1)
    k = np.abs(np.fft.fftfreq(128) * 128)
    k = np.stack(np.meshgrid(k, k, k, indexing="ij"))
    shell, near = (length >= 48) & (length < 56), np.cos(np.radians(20)) * length
    axes, diagonals = shell & (k.max(0) > near), shell & (k.sum(0) / np.sqrt(3) > near)
    assert 0.8 < np.mean(np.abs(modes[axes]) ** 2) / np.mean(np.abs(modes[diagonals]) ** 2) < 1.1


# --- physics


def test_jax_s_double_precision_does_not_change_a_universe(wide):
    assert np.array_equal(wide["first"], wide["double"])


def to_linear(cube, low, high, box_size):
    """Mean of |delta_k|^2 over the linear spectrum for low <= |k| / k_f < high, and the number of modes."""
    modes, k = shells(cube)
    inside = (k >= low) & (k < high)
    spectrum = np.interp(2 * np.pi / box_size * k[inside], *linear_power(0.3, 0.8))
    found = np.abs(modes[inside]) ** 2 * box_size**3 / cube.size**2
    return np.mean(found / spectrum), inside.sum()


@pytest.mark.parametrize("low", [1, 2])
def test_large_scales_follow_linear_theory_within_cosmic_variance(fiducial, low):
    """Up to k = 0.15 h/Mpc; above it non-linear growth adds more than the scatter of the modes."""
    ratio, n_modes = to_linear(fiducial, low, low + 1, 128.0)
    assert abs(ratio - 1) < 3 * np.sqrt(2 / n_modes)


def test_small_scales_lie_above_linear_theory(fiducial):
    ratios = [to_linear(fiducial, low, low + 5, 128.0)[0] for low in (15, 20, 25)]  # 0.7 to 1.5 h/Mpc
    assert min(ratios) > 2


def test_a_calm_universe_grows_as_linear_theory_says(wide):
    """At sigma_8 = 0.05, mode by mode against the linear field of the same seed: no cosmic variance."""
    (grown, k), (start, _) = shells(wide["calm"]), shells(wide["start"] + 1)
    largest = (k >= 1) & (k < 1.5)
    growth = np.vdot(start[largest], grown[largest]).real / np.vdot(start[largest], start[largest]).real
    assert growth == pytest.approx(0.05 / 0.8, rel=0.015)


def test_the_largest_modes_keep_the_phases_of_the_start(wide):
    assert correlation(wide["first"], wide["start"] + 1, 1, 1.5) > 0.99


def test_phases_of_small_scales_move_away_from_the_start(wide):
    assert correlation(wide["first"], wide["start"] + 1, 10, 16) < 0.7


def pairs_1p(small, parameter):
    """The lowest and the highest value of the parameter that moves: two cubes of the 1P set."""
    suite = small["1P"]
    fixed = next(name for name in RANGES if name != parameter)
    rows = suite.params.index[suite.params[fixed].sub(FIDUCIAL[fixed]).abs() < 1e-6]
    rows = suite.params.loc[rows, parameter].sort_values().index
    return suite.overdensity(rows[0]), suite.overdensity(rows[-1])


@pytest.mark.parametrize("parameter", RANGES)
def test_cubes_of_1p_share_their_phases(small, parameter):
    assert correlation(*pairs_1p(small, parameter), 1, 3) > 0.9


@pytest.mark.parametrize("low", [1, 2, 3])
def test_a_higher_sigma_8_has_more_power(small, low):
    less, more = pairs_1p(small, "sigma_8")
    assert power(more, low, low + 1) > 1.3 * power(less, low, low + 1)


def test_a_higher_sigma_8_has_deeper_voids_and_denser_knots(small):
    less, more = pairs_1p(small, "sigma_8")
    assert np.quantile(more, 0.1) < np.quantile(less, 0.1) and np.quantile(more, 0.999) > np.quantile(less, 0.999)


def test_cubes_of_cv_have_one_cosmology_and_other_phases(small):
    suite = small["CV"]
    assert suite.params.drop_duplicates().to_dict("records") == [FIDUCIAL]
    assert abs(correlation(suite.overdensity(0), suite.overdensity(1), 1, 8)) < 0.2


# --- cosmologies and seeds


@pytest.mark.parametrize("n", [6, 64])
def test_lh_is_a_latin_hypercube_over_the_ranges(n):
    table = cosmologies("LH", SimulationConfig(n_lh=n))
    for name, (low, high) in RANGES.items():
        strata = np.floor((table[name] - low) / (high - low) * n)
        assert sorted(strata) == list(range(n))


def test_the_hypercube_is_a_function_of_the_seed():
    a, b, c = (cosmologies("LH", SimulationConfig(seed=seed)) for seed in (0, 0, 1))
    assert a.equals(b) and not a.equals(c)


def test_1p_moves_one_parameter_at_a_time_over_the_full_range():
    table = cosmologies("1P", SimulationConfig(n_1p=10))
    moved = (table - np.array(list(FIDUCIAL.values()))).abs() > 1e-9
    assert moved.sum(axis=1).max() == 1
    for name in RANGES:
        assert (table[name].min(), table[name].max()) == pytest.approx(RANGES[name])


@pytest.mark.parametrize("seed", [0, 1])
def test_no_two_cubes_share_a_seed_outside_1p(seed):
    seeds = [cube_seed(name, i, seed) for name in ("LH", "CV") for i in range(500)] + [cube_seed("1P", 0, seed)]
    assert len(set(seeds)) == len(seeds)


def test_all_cubes_of_1p_share_a_seed():
    assert len({cube_seed("1P", i, 0) for i in range(20)}) == 1


def test_another_suite_seed_changes_every_cube():
    assert all(cube_seed(name, 3, 0) != cube_seed(name, 3, 1) for name in SETS)


# --- files


def test_the_files_are_named_as_camels_names_them(small_folder):
    assert grid_name("LH", 128) == "Grids_Mcdm_JaxPM_LH_128_z=0.0.npy"
    expected = {grid_name(name, 32) for name in SETS} | {f"params_{name}_JaxPM.txt" for name in SETS}
    assert expected <= set(os.listdir(small_folder))


def test_nothing_unfinished_is_left(small_folder):
    assert [name for name in os.listdir(small_folder) if "partial" in name or name.endswith(".tmp")] == []


@pytest.mark.parametrize("name", SETS)
def test_the_parameter_file_says_what_was_simulated(small_folder, small, name):
    written = np.loadtxt(small_folder / f"params_{name}_JaxPM.txt")
    np.testing.assert_allclose(written, cosmologies(name, SMALL), rtol=0, atol=5e-7)
    assert np.array_equal(small[name].params[list(RANGES)], written)


@pytest.mark.parametrize("name", SETS)
def test_the_sidecar_says_how_a_set_was_made(small_folder, small, name):
    sidecar = json.loads((small_folder / f"simulation_{name}_32.json").read_text())
    settings = sidecar["settings"]
    assert (settings["box_size"], settings["n_steps"], settings["seed"]) == (SMALL.box_size, SMALL.n_steps, SMALL.seed)
    assert (settings["set"], settings["side"], settings["n_cubes"]) == (name, 32, small[name].n_cubes)
    assert settings.items() >= METHOD.items() and sidecar["done"] == list(range(small[name].n_cubes))
    assert sidecar["versions"].keys() >= {"jaxpm", "jax", "numba", "numpy"}


def test_a_finished_suite_is_used_again(small_folder):
    before = {path: path.stat().st_mtime_ns for path in small_folder.glob("*.npy")}
    suites = simulate_suite(small_folder, SMALL, progress=False, processes=7)
    assert list(suites) == list(SETS) and before == {path: path.stat().st_mtime_ns for path in before}


@pytest.mark.parametrize(
    "field, value, named",
    [("n_steps", 4, "n_steps"), ("seed", 1, "seed"), ("box_size", 64.0, "box_size"), ("n_lh", 7, "n_cubes")],
)
def test_a_folder_with_other_settings_is_refused(small_folder, field, value, named):
    with pytest.raises(
        ValueError, match=rf"holds a LH set made with other settings \({named}\); simulate into an"
    ) as refusal:
        simulate_suite(small_folder, replace(SMALL, **{field: value}), progress=False)
    assert f"UVAE_DATA={small_folder} " in str(refusal.value)


def test_a_suite_of_other_physics_is_recognised(small_folder, tmp_path):
    """As a suite lies there that another version of the simulation made."""
    shutil.copytree(small_folder, tmp_path, dirs_exist_ok=True)
    sidecar = tmp_path / "simulation_LH_32.json"
    state = json.loads(sidecar.read_text())
    del state["settings"]["integrator"]
    state["settings"]["painting"] = "Lagrangian sheet, 8 tracers a particle, CIC"
    sidecar.write_text(json.dumps(state))
    with pytest.raises(ValueError, match=r"made with other settings \((integrator, painting|painting, integrator)\)"):
        simulate_suite(tmp_path, SMALL, progress=False)


@pytest.mark.parametrize("name", ["Grids_Mcdm_IllustrisTNG_LH_128_z=0.0.npy", "notes.txt", "CV_0/snapshot.hdf5"])
def test_a_folder_with_files_of_others_is_left_alone(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("theirs")
    with pytest.raises(ValueError, match=r"found files of others \(.*\); name a folder that is empty"):
        simulate_suite(tmp_path, SMALL, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == [name.split("/")[0]]


def test_a_file_is_no_folder_to_simulate_into(tmp_path):
    (tmp_path / "cubes.npy").write_text("theirs")
    with pytest.raises(ValueError, match=r"found files of others \(cubes.npy\); name a folder"):
        simulate_suite(tmp_path / "cubes.npy", SMALL, progress=False)


def test_a_second_simulation_in_a_folder_is_told_so(tmp_path):
    with FileLock(tmp_path / ".lock"), pytest.raises(ValueError, match="another process is simulating into"):
        simulate_suite(tmp_path, SMALL, progress=False)


def test_a_missing_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(simulate, "find_spec", lambda name: None if name == "jaxpm" else name)
    with pytest.raises(ModuleNotFoundError, match=r"simulation needs jaxpm; install the extra: pip install"):
        simulate_suite(tmp_path / "none", SMALL, progress=False)
    assert not (tmp_path / "none").exists()


def test_a_script_without_a_main_guard_is_told_so(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from uvae_lib.presets import SimulationConfig\nfrom uvae_lib.simulation.suite import simulate_suite\n"
        f"simulate_suite({str(tmp_path / 'suite')!r}, SimulationConfig(side=16, box_size=16.0, n_lh=1))\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True)
    assert ended.returncode and ended.stderr.strip().endswith(simulate.BROKEN)


# --- interruptions


def wait_for_a_cube(process, folder):
    """Return when the first cube of the LH set is recorded, with the numbers of those that are."""
    sidecar = folder / "simulation_LH_32.json"
    while process.poll() is None:
        done = json.loads(sidecar.read_text())["done"] if sidecar.exists() else []
        if done:
            return done
        time.sleep(0.02)
    raise AssertionError(f"the simulation ended with status {process.returncode} before it could be stopped")


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """The LH set by one process, killed after its first cube, and then finished by another call.

    While it lay there unfinished, its first cube was turned upside down, so that one sees whether it is made again.
    """
    folder, config = tmp_path_factory.mktemp("killed"), replace(SMALL, n_cv=0, n_1p=0)
    process = in_a_process(THE_SUITE, folder, json.dumps(asdict(config)), start_new_session=True)
    wait_for_a_cube(process, folder)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    names, done = set(os.listdir(folder)), json.loads((folder / "simulation_LH_32.json").read_text())["done"]
    partial = np.lib.format.open_memmap(folder / (grid_name("LH", 32) + ".partial"), mode="r+")
    first = np.array(partial[0])
    partial[0] = first[::-1]
    partial.flush()
    suite = simulate_suite(folder, config, progress=False)["LH"]
    cubes = np.load(folder / grid_name("LH", 32))
    return SimpleNamespace(folder=folder, names=names, done=done, first=first, cubes=cubes, suite=suite)


def test_a_killed_simulation_has_no_final_file(killed):
    assert grid_name("LH", 32) not in killed.names and grid_name("LH", 32) + ".partial" in killed.names


def test_a_killed_simulation_was_stopped_between_its_cubes(killed):
    assert killed.done[0] == 0 and len(killed.done) < SMALL.n_lh


def test_a_resumed_suite_equals_an_uninterrupted_one_made_by_two_processes(killed, small_folder):
    whole = np.load(small_folder / grid_name("LH", 32))
    assert np.array_equal(killed.first, whole[0]) and np.array_equal(killed.cubes[1:], whole[1:])


def test_cubes_that_were_done_are_not_made_again(killed):
    assert np.array_equal(killed.cubes[0], killed.first[::-1])


def test_a_resumed_suite_leaves_nothing_unfinished(killed):
    assert not [name for name in os.listdir(killed.folder) if "partial" in name]
    assert json.loads((killed.folder / "simulation_LH_32.json").read_text())["done"] == list(range(SMALL.n_lh))


def test_the_parameter_file_is_there_from_the_start(killed):
    assert "params_LH_JaxPM.txt" in killed.names


@pytest.fixture
def half_done(small_folder, tmp_path):
    """The finished LH set put back to the moment before its file got its name."""
    for name in ("params_LH_JaxPM.txt", "simulation_LH_32.json"):
        shutil.copy(small_folder / name, tmp_path)
    shutil.copy(small_folder / grid_name("LH", 32), tmp_path / (grid_name("LH", 32) + ".partial"))
    return tmp_path


def test_a_suite_stopped_just_before_the_renaming_is_finished_without_simulating(half_done, small_folder):
    simulate_suite(half_done, replace(SMALL, n_cv=0, n_1p=0), progress=False)
    found, expected = ((folder / grid_name("LH", 32)).read_bytes() for folder in (half_done, small_folder))
    assert found == expected


def test_the_processes_say_nothing(tmp_path):
    config = replace(SMALL, n_lh=1, n_cv=0, n_1p=0)
    process = in_a_process(THE_SUITE, tmp_path, json.dumps(asdict(config)), stderr=subprocess.PIPE, text=True)
    assert process.communicate()[1] == "" and process.returncode == 0


def test_what_was_stopped_before_its_first_cube_does_not_spoil_another_suite(tmp_path):
    """A partial file of six cubes without a record, then a suite of two cubes in the same folder."""
    simulate._UnfinishedSet(tmp_path, "LH", replace(SMALL, n_lh=6)).todo()
    unfinished = simulate._UnfinishedSet(tmp_path, "LH", replace(SMALL, n_lh=2))
    unfinished.todo()
    assert len(np.load(unfinished.partial, mmap_mode="r")) == 2


def test_ctrl_c_stops_after_the_cubes_that_are_under_way_and_keeps_them(tmp_path):
    config = replace(SMALL, n_lh=8, n_cv=0, n_1p=0)
    process = in_a_process(
        THE_SUITE, tmp_path, json.dumps(asdict(config)), start_new_session=True, stderr=subprocess.DEVNULL
    )
    wait_for_a_cube(process, tmp_path)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to every process of the group
    assert process.wait() != 0
    cubes = np.load(tmp_path / (grid_name("LH", 32) + ".partial"), mmap_mode="r")
    made = np.flatnonzero(cubes.any(axis=(1, 2, 3))).tolist()
    assert made == json.loads((tmp_path / "simulation_LH_32.json").read_text())["done"] and len(made) < 6


# --- the suite of a configuration


@pytest.fixture
def calls(monkeypatch):
    """Folders that `load_suite` asks to be simulated."""
    found = []
    monkeypatch.setattr(simulate, "simulate_suite", lambda path, config: found.append(path))
    return found


def test_a_missing_suite_of_a_preset_is_simulated(calls, tmp_path, monkeypatch):
    monkeypatch.setenv("UVAE_HOME", str(tmp_path))
    with pytest.raises(FileNotFoundError):
        load_suite(SMOKE)  # nothing was made here
    assert calls == [tmp_path / "data" / "smoke"]


def test_a_finished_suite_is_opened_wherever_it_is(small_folder, calls):
    config = replace(SMOKE, data=replace(SMOKE.data, path=str(small_folder)))
    assert (load_suite(config).n_cubes, load_suite(config, "CV").n_cubes) == (6, 2) and not calls


@pytest.mark.parametrize("path", ["my/cubes", "~/no cubes here", PRESETS["cmd"].data.path])
def test_nothing_is_simulated_at_a_path_that_was_given(calls, tmp_path, monkeypatch, path):
    monkeypatch.setenv("UVAE_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=rf"{tmp_path}.*no such file or folder.*check the path") as refusal:
        load_suite(replace(SMOKE, data=replace(SMOKE.data, path=path)))
    assert "~" not in str(refusal.value) and not calls and not list(tmp_path.iterdir())


def test_nothing_is_simulated_at_an_address(calls):
    with pytest.raises(ValueError, match="another machine"):
        load_suite(replace(SMOKE, data=replace(SMOKE.data, path="s3://bucket/cubes")))
    assert not calls


def test_cubes_that_somebody_brought_are_not_simulated_over(small_folder, tmp_path):
    shutil.copy(small_folder / grid_name("LH", 32), tmp_path / "Grids_Mcdm_Mine_LH_32_z=0.0.npy")
    config = Config(data=DataConfig(path=str(tmp_path), box_size=32.0, field_type="overdensity"))
    assert load_suite(config).n_cubes == 6
    assert not list(tmp_path.glob("simulation_*"))
