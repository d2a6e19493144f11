import inspect
import json
import os
import pickle
import subprocess
import sys
import warnings
from dataclasses import fields

import h5py
import numpy as np
import pandas as pd
import pytest

from uvae_lib.__main__ import main
from uvae_lib.cubes.suite import (
    IMAGE_SIZES,
    OPTIONS,
    CubesError,
    fit_image_size,
    largest_image_size,
    open_cubes,
    open_data,
    split_cubes,
)
from uvae_lib.model import map_shape
from uvae_lib.presets import DataConfig, load_preset

N, SIDE = 5, 16


def lognormal_cubes(n=N, side=SIDE, seed=0):
    """Periodic cubes with structure on all scales: (n, side, side, side) float64, mean 1, never negative."""
    rng = np.random.default_rng(seed)
    k = np.sqrt(sum(np.meshgrid(*[np.fft.fftfreq(side) ** 2] * 3, indexing="ij")))
    noise = np.fft.fftn(rng.standard_normal((n, side, side, side)), axes=(1, 2, 3))
    field = np.fft.ifftn(noise / np.maximum(k, 1 / side) ** 1.5, axes=(1, 2, 3)).real
    y = np.exp(field / field.std())
    return y / y.mean(axis=(1, 2, 3), keepdims=True)


def write_cmd(folder, cubes, suite="IllustrisTNG", set_name="LH", field="Mcdm", z="0.0", dtype="f4", scale=1e10):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"Grids_{field}_{suite}_{set_name}_{cubes.shape[-1]}_z={z}.npy"
    np.save(path, (cubes * scale).astype(dtype))
    return path


def write_quijote(folder, cubes, numbers, name="df_m_16_PCS_z=0.npy"):
    for number, y in zip(numbers, cubes, strict=True):
        (folder / str(number)).mkdir(parents=True, exist_ok=True)
        np.save(folder / str(number) / name, (y - 1).astype("f4"))


def write_bsq(folder, cubes):
    for number, y in enumerate(cubes):
        (folder / "BSQ" / str(number)).mkdir(parents=True)
        with h5py.File(folder / "BSQ" / str(number) / "df_m_CIC_z=0.00.hdf5", "w") as file:
            file["df"] = (8 * y).astype("f4")
    return folder


def write_hdf5(path, name, values):
    with h5py.File(path, "w") as file:
        file[name] = values
    return path


def write_npy(path, values):
    np.save(path, values)
    return path


def write_npy_folder(folder, cubes):
    for i, y in enumerate(cubes):
        np.save(folder / f"cube_{i + 8}.npy", y.astype("f4"))  # 8, 9, 10: the order is that of the numbers
    return folder


def write_quijote_tree(folder, cubes, name):
    write_quijote(folder / "3D_cubes" / "latin_hypercube", cubes, range(len(cubes)), name)
    return folder


LAYOUTS = {
    "CMD float32": lambda p, y: write_cmd(p, y),
    "CMD float64": lambda p, y: write_cmd(p, y, dtype="f8"),
    "CMD big-endian": lambda p, y: write_cmd(p, y, dtype=">f4"),
    "CMD N-body": lambda p, y: write_cmd(p, y, suite="Nbody_Astrid", field="Mtot", scale=3e7),
    "CMD three folders up": lambda p, y: (write_cmd(p / "3D_grids" / "data" / "SIMBA", y, suite="SIMBA"), p)[1],
    "our own simulations": lambda p, y: write_cmd(p, y, suite="JaxPM", scale=1),
    "Quijote": lambda p, y: write_quijote_tree(p, y, "df_m_16_CIC_z=0.npy"),
    "Quijote, older names": lambda p, y: write_quijote_tree(p, y, "df_m_16_z=0.npy"),
    "Quijote, Big Sobol Sequence": write_bsq,
    "HDF5 stack": lambda p, y: write_hdf5(p / "3dcosmo.h5", "data", (y * 3.7).astype("f4")),
    "npy stack": lambda p, y: write_npy(p / "cubes.npy", y.astype("f4")),
    "npy folder": write_npy_folder,
    "float16": lambda p, y: write_npy(p / "cubes.npy", y.astype("f2")),
}  # fmt: skip


@pytest.fixture
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_reader_gives_the_same_overdensity(tmp_path, layout, quiet):
    cubes = lognormal_cubes()
    suite = open_cubes(LAYOUTS[layout](tmp_path, cubes))
    found = np.stack([suite.overdensity(i) for i in range(suite.n_cubes)])
    assert found.dtype == np.float32 and found.flags.c_contiguous
    np.testing.assert_allclose(found, cubes, rtol=2e-3 if layout == "float16" else 1e-5, atol=2e-6)


@pytest.fixture(scope="module")
def simulated():
    """One universe of our simulations, as a stack."""
    pytest.importorskip("jaxpm")
    from uvae_lib.simulation.suite import simulate_cube

    return simulate_cube(0.3, 0.8, 0, SIDE, float(SIDE), 2)[None]


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "float16"])
def test_a_simulated_universe_passes_through_every_reader_unchanged(tmp_path, simulated, layout, quiet):
    suite = open_cubes(LAYOUTS[layout](tmp_path, simulated))
    np.testing.assert_allclose(suite.overdensity(0), simulated[0], rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_single_cube_is_a_suite_of_one(tmp_path, order, quiet):
    y = lognormal_cubes(1)[0]
    suite = open_cubes(write_npy(tmp_path / "cube.npy", np.asarray(y, dtype="f4", order=order)))
    assert suite.n_cubes == 1 and suite.axes == (0, 1, 2) and suite.n_planes == SIDE
    np.testing.assert_allclose(suite.overdensity(0), y, rtol=1e-5)


def test_fifteen_maps_make_a_universe(tmp_path):
    maps = lognormal_cubes(2).astype("f4")[:, :15]
    np.save(tmp_path / "Maps_Mcdm_SIMBA_LH_z=0.00.npy", maps.reshape(30, SIDE, SIDE) * 3e9)
    np.savetxt(tmp_path / "params_SIMBA.txt", np.arange(12).reshape(2, 6) + 0.5)
    suite = open_cubes(tmp_path)
    assert (suite.n_cubes, suite.n_planes, suite.side, suite.axes, suite.box_size) == (2, 15, SIDE, (0,), 25.0)
    np.testing.assert_allclose(suite.overdensity(1), maps[1] / maps[1].mean(), rtol=1e-5)
    assert suite.params["A_SN1"].tolist() == [2.5, 8.5]


@pytest.mark.parametrize("z", ["0", "0.0", "0.00"])
def test_the_redshift_is_written_in_three_ways(tmp_path, z):
    assert open_cubes(write_cmd(tmp_path, lognormal_cubes(), z=z)).format == "cmd-grids"


@pytest.mark.parametrize(
    "name", ["params_LH_SIMBA", "params_SIMBA", "params_SIMBA_LH", "params_LH_Nbody_SIMBA", "../params_LH_SIMBA"]
)
def test_the_parameter_file_has_several_names(tmp_path, name):
    write_cmd(tmp_path / "SIMBA", lognormal_cubes(), suite="SIMBA")
    values = np.random.default_rng(0).random((N, 6))
    np.savetxt(tmp_path / "SIMBA" / f"{name}.txt", values)
    suite = open_cubes(tmp_path / "SIMBA")
    assert list(suite.params.columns) == ["Omega_m", "sigma_8", "A_SN1", "A_AGN1", "A_SN2", "A_AGN2"]
    np.testing.assert_allclose(suite.params.to_numpy(), values)


def test_an_nbody_suite_keeps_the_two_parameters_that_mean_something(tmp_path):
    write_cmd(tmp_path, lognormal_cubes(), suite="Nbody_IllustrisTNG", field="Mtot")
    np.savetxt(tmp_path / "params_LH_Nbody_IllustrisTNG.txt", np.random.default_rng(0).random((N, 6)))
    assert list(open_cubes(tmp_path).params.columns) == ["Omega_m", "sigma_8"]


def test_the_set_with_its_own_file_does_not_take_that_of_another_set(tmp_path):
    write_cmd(tmp_path, lognormal_cubes(2), set_name="CV")
    np.savetxt(tmp_path / "params_LH_IllustrisTNG.txt", np.ones((N, 6)))
    suite = open_cubes(tmp_path, set_name="CV")
    assert suite.params.shape == (2, 0) and "no parameters found" in " ".join(suite.notes)


@pytest.mark.parametrize("text", ["# a b\n1 2\n3 4\n", "a,b\n1,2\n3,4\n", "a b\n1 2\n3 4\n", "#a,b\n1,2\n\n3,4"])
def test_a_parameter_table_may_name_its_columns(tmp_path, text, quiet):
    path = write_npy(tmp_path / "cubes.npy", lognormal_cubes(2))
    (tmp_path / "params.txt").write_text(text)
    pd.testing.assert_frame_equal(open_cubes(path).params, pd.DataFrame({"a": [1.0, 3.0], "b": [2.0, 4.0]}))


def test_parameters_can_be_given_or_left_out(tmp_path):
    path = write_cmd(tmp_path, lognormal_cubes(2))
    (tmp_path / "params_LH_IllustrisTNG.txt").write_text("not a table")
    assert open_cubes(path, params=pd.DataFrame({"a": [1, 2]})).params["a"].tolist() == [1.0, 2.0]
    assert list(open_cubes(path, params=np.ones((2, 7))).params.columns)[-1] == "parameter_7"
    assert open_cubes(path, params="none").params.shape == (2, 0)


def test_a_folder_of_several_sets_and_fields_opens_lh_and_dark_matter(tmp_path):
    for set_name in ("CV", "LH", "1P"):
        write_cmd(tmp_path, lognormal_cubes(), set_name=set_name)
    write_cmd(tmp_path, lognormal_cubes(), field="Mgas")
    assert "set LH, field Mcdm" in open_cubes(tmp_path).source
    assert "set 1P" in open_cubes(tmp_path, set_name="1P").source
    assert "field Mgas" in open_cubes(tmp_path, field="Mgas").source


def test_a_folder_with_one_set_opens_that_one(tmp_path):
    write_cmd(tmp_path, lognormal_cubes(), set_name="CV")
    assert "set CV" in open_cubes(tmp_path).source


def test_missing_realizations_keep_their_own_parameters(tmp_path):
    folder = tmp_path / "3D_cubes" / "latin_hypercube"
    cubes, values = lognormal_cubes(3), np.random.default_rng(0).random((20, 5))
    write_quijote(folder, cubes, [2, 11, 7])
    header = "Omega_m Omega_b h n_s sigma_8"
    np.savetxt(tmp_path / "latin_hypercube_params.txt", values, header=header)
    for path in (tmp_path, tmp_path / "3D_cubes", folder):
        suite = open_cubes(path)
        np.testing.assert_allclose(suite.params.to_numpy(), values[[2, 7, 11]])
        assert list(suite.params.columns) == header.split() and suite.box_size == 1000.0
        np.testing.assert_allclose(suite.overdensity(1), cubes[2], rtol=1e-5, atol=1e-6)
    assert suite.cube_id(1) == "Quijote/latin_hypercube/7"
    assert any("9 realizations missing (0, 1, 3, 4, 5, ...)" in note for note in suite.notes)


def test_the_hypercube_with_neutrinos_adds_their_mass_and_w(tmp_path):
    folder = tmp_path / "latin_hypercube_nwLH"
    write_quijote(folder, lognormal_cubes(2), [0, 1])
    np.savetxt(folder / "latin_hypercube_params.txt", np.random.default_rng(0).random((2000, 7)))
    assert list(open_cubes(folder).params.columns) == ["Omega_m", "Omega_b", "h", "n_s", "sigma_8", "M_nu", "w"]


def test_the_fiducial_cosmology_of_quijote_is_usual_among_those_that_do_not_vary(tmp_path):
    write_quijote(tmp_path / "fiducial", lognormal_cubes(2), [0, 1])
    write_quijote(tmp_path / "s8_p", lognormal_cubes(2), [0, 1])
    assert "Quijote fiducial" in open_cubes(tmp_path).source
    assert "Quijote s8_p" in open_cubes(tmp_path, set_name="s8_p").source


def test_one_of_several_quijote_grids_is_chosen_by_name(tmp_path):
    write_quijote(tmp_path, lognormal_cubes(2), [0, 1], "df_m_16_CIC_z=0.npy")
    write_quijote(tmp_path, lognormal_cubes(2, side=8), [0, 1], "df_m_8_CIC_z=0.npy")
    assert open_cubes(tmp_path, field="df_m_8_CIC_z=0.npy", params="none").side == 8


def test_the_record_of_a_simulation_gives_the_box(tmp_path):
    write_cmd(tmp_path, lognormal_cubes(), suite="JaxPM")
    (tmp_path / "simulation_LH_16.json").write_text(json.dumps({"settings": {"box_size": 64.0}}))
    assert open_cubes(tmp_path).box_size == 64.0
    assert open_cubes(tmp_path, box_size=32).box_size == 32.0


def test_an_attribute_of_an_hdf5_file_gives_the_box(tmp_path):
    path = write_hdf5(tmp_path / "cubes.hdf5", "data", lognormal_cubes())
    with h5py.File(path, "a") as file:
        file["data"].attrs["BoxSize"] = 500.0
    assert open_cubes(path).box_size == 500.0


def test_the_data_set_of_an_hdf5_file_can_be_named(tmp_path, quiet):
    y = lognormal_cubes(2)
    path = write_hdf5(tmp_path / "cubes.hdf5", "fields/matter", y)
    with h5py.File(path, "a") as file:
        file["fields/gas"] = y[::-1]
    np.testing.assert_allclose(open_cubes(path, dataset="fields/gas").overdensity(0), y[1], rtol=1e-5)


@pytest.mark.parametrize(
    ("field_type", "change"),
    [
        ("density", lambda y: 2.5e9 * y),
        ("delta", lambda y: y - 1),
        ("overdensity", lambda y: y),
        ("counts", lambda y: np.rint(20 * y)),
    ],
)
def test_the_field_type_is_guessed_from_the_numbers(tmp_path, field_type, change, quiet):
    suite = open_cubes(write_npy(tmp_path / "cubes.npy", change(lognormal_cubes()).astype("f4")))
    assert suite.field_type == field_type
    assert suite.overdensity(0).mean(dtype="f8") == pytest.approx(1, abs=1e-6)


def test_large_float32_densities_are_whole_but_no_counts(tmp_path):
    assert open_cubes(write_cmd(tmp_path, lognormal_cubes() + 0.1, scale=1e12)).field_type == "density"


def test_integer_counts_are_read(tmp_path, quiet):
    counts = np.rint(20 * lognormal_cubes()).astype(np.uint16)
    suite = open_cubes(write_npy(tmp_path / "cubes.npy", counts))
    np.testing.assert_allclose(suite.overdensity(3), counts[3] / counts[3].mean(), rtol=1e-5)


def test_the_guess_can_be_overridden(tmp_path, quiet):
    y = lognormal_cubes()
    path = write_npy(tmp_path / "cubes.npy", y)
    np.testing.assert_allclose(open_cubes(path, field_type="delta").overdensity(0), (1 + y[0]) / 2, rtol=1e-5)


def test_each_cube_is_divided_by_its_own_mean_unless_asked_otherwise(tmp_path):
    scales = np.array([1, 2, 3, 4, 5.0])[:, None, None, None]
    path = write_cmd(tmp_path, lognormal_cubes() * scales)
    means = [open_cubes(path).overdensity(i).mean() for i in range(N)]
    np.testing.assert_allclose(means, 1, rtol=1e-5)
    together = open_cubes(path, normalize=False)
    np.testing.assert_allclose([together.overdensity(i).mean() for i in range(N)], scales.ravel() / 3, rtol=1e-5)


def test_an_overdensity_that_is_not_normalised_stays_as_it_is(tmp_path, quiet):
    y = lognormal_cubes() * 1.01
    suite = open_cubes(write_npy(tmp_path / "cubes.npy", y), field_type="overdensity", normalize=False)
    np.testing.assert_allclose(suite.overdensity(0), y[0], rtol=1e-6)


def test_rounding_below_zero_is_clipped_and_counted(tmp_path, quiet):
    y = lognormal_cubes()
    y[2, 3, 4, 5:8] = -1.5e-6
    suite = open_cubes(write_npy(tmp_path / "cubes.npy", y))
    assert suite.overdensity(2).min() == 0 and suite.report.n_clipped == 3


def test_a_suite_pickles_as_names_and_numbers(tmp_path):
    path = write_cmd(tmp_path, lognormal_cubes(side=32))
    suite = open_cubes(path)
    text = pickle.dumps(suite)
    assert len(text) < 10_000
    np.testing.assert_array_equal(pickle.loads(text).overdensity(1), suite.overdensity(1))


def test_an_array_that_was_read_can_be_changed_without_changing_the_suite(tmp_path):
    suite = open_cubes(write_cmd(tmp_path, lognormal_cubes()))
    suite.overdensity(0)[:] = 7
    assert suite.overdensity(0).max() != 7


def test_cube_numbers_outside_the_suite_are_refused(tmp_path):
    suite = open_cubes(write_cmd(tmp_path, lognormal_cubes()))
    for i in (-1, N):
        with pytest.raises(IndexError, match=f"found cube number {i}; expected 0 to 4"):
            suite.overdensity(i)


# --- the check ---------------------------------------------------------------------------------------------------


def spoil(path):
    """Fill the cubes with NaN behind the back of size and time."""
    times = path.stat()
    np.load(path, mmap_mode="r+")[:] = np.nan
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_a_second_opening_reads_the_report_and_no_cube(tmp_path):
    path = write_cmd(tmp_path, lognormal_cubes())
    first = open_cubes(path).report
    spoil(path)
    assert open_cubes(path).report == first
    with pytest.raises(CubesError, match=r"cube 0 .*NaN"):
        open_cubes(path).overdensity(0)  # a cube is checked again when it is read


def test_a_changed_file_is_checked_again(tmp_path):
    path = write_cmd(tmp_path, lognormal_cubes())
    open_cubes(path)
    spoil(path)
    os.utime(path)
    with pytest.raises(CubesError, match="NaN"):
        open_cubes(path)


def test_a_damaged_report_is_made_again(tmp_path):
    path = write_cmd(tmp_path, lognormal_cubes())
    first = open_cubes(path)
    (report,) = tmp_path.glob(".*check.json")
    for text in ("", "[]", '{"key": 1}', report.read_text().replace("mean", "maen")):
        report.write_text(text)
        assert open_cubes(path).report == first.report


def test_where_nothing_can_be_written_the_report_stays_in_memory(tmp_path):
    path = write_cmd(tmp_path, lognormal_cubes())
    (tmp_path / f".{path.name}.check.json").mkdir()  # no file can be put there
    first = open_cubes(path).report
    spoil(path)
    assert open_cubes(path).report == first
    assert list((tmp_path / f".{path.name}.check.json").iterdir()) == []


def test_large_suites_are_checked_on_a_sample_in_bounded_memory(tmp_path):
    path = tmp_path / "Grids_Mcdm_IllustrisTNG_LH_128_z=0.0.npy"
    cubes = np.lib.format.open_memmap(path, "w+", "f4", (8192, 128, 128, 128))  # 64 GiB, a sparse file
    for i in np.linspace(0, 8191, 16).round().astype(int):
        cubes[i, i % 128] = np.random.default_rng(i).random((128, 128))
    del cubes
    code = f"""
import resource, warnings
warnings.simplefilter("ignore")
from uvae_lib.cubes.suite import open_cubes
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
suite = open_cubes({str(path)!r})
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(suite.n_cubes, suite.report.n_checked, grown // 1024)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    n_cubes, n_checked, grown_mib = map(int, done.stdout.split())
    assert (n_cubes, n_checked) == (8192, 16) and grown_mib < 200
    path.unlink()


def test_no_check_reads_no_more_than_the_first_cube(tmp_path):
    path = write_cmd(tmp_path, lognormal_cubes())
    spoil_all_but_first = np.load(path, mmap_mode="r+")
    spoil_all_but_first[1:] = np.nan
    suite = open_cubes(path, check=False)
    assert suite.report is None and suite.field_type == "density"


# --- warnings ----------------------------------------------------------------------------------------------------


def test_clean_periodic_cubes_open_without_a_warning(tmp_path):
    path = write_cmd(tmp_path, lognormal_cubes(side=32))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert open_cubes(path).cautions == ()


def test_empty_voxels_are_warned_of_with_their_share_of_the_variance(tmp_path):
    y = lognormal_cubes()
    y[:, ::8, ::8, ::4] = 0  # one voxel in 256
    with pytest.warns(UserWarning, match=r"0\.3906% of the voxels are empty .* of the variance") as caught:
        suite = open_cubes(write_cmd(tmp_path, y))
    assert suite.report.empty_fraction == pytest.approx(1 / 256)
    x = np.log(y + 1e-8)
    share = 1 - (255 / 256) * x[y > 0].var() / x.var()
    assert suite.report.spike_share == pytest.approx(share, rel=1e-3) and len(caught) == 1


def test_cubes_cut_from_a_larger_box_are_warned_of(tmp_path):
    with pytest.warns(UserWarning, match="edges do not look periodic along axis 0"):
        open_cubes(write_cmd(tmp_path, lognormal_cubes(side=32)[:, :16, :16, :16]))


def test_duplicate_cubes_are_warned_of(tmp_path):
    y = lognormal_cubes()
    y[3] = y[1]
    with pytest.warns(UserWarning, match=r"1 duplicate cubes \(1 = 3\)"):
        open_cubes(write_cmd(tmp_path, y))


def test_cubes_that_agree_in_most_planes_are_no_duplicates(tmp_path):
    cubes = np.ones((2, 32, 32, 32), np.float32)
    cubes[:, ::4] = np.random.default_rng(0).uniform(1, 2, (8, 32, 32))
    cubes[1, 5, 5, 5] = 1.5
    np.save(tmp_path / "cubes.npy", cubes)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert open_cubes(tmp_path / "cubes.npy", box_size=32.0, field_type="density").report.duplicates == []


@pytest.mark.parametrize(
    ("write", "options", "message"),
    [
        (lambda p, y: write_cmd(p, y), {"box_size": 25000}, "a box of 25000 Mpc/h; .* looks like kpc/h"),
        (lambda p, y: write_cmd(p, y), {"box_size": 1.0}, "looks like Gpc/h"),
        (lambda p, y: write_cmd(p, y, field="T"), {}, "field T is no density"),
        (lambda p, y: write_npy(p / "c.npy", y * [[[[1]]], [[[1]]], [[[1]]], [[[1]]], [[[1.3]]]]), {"box_size": 9},
         "overdensity has means from 1 to 1.3"),
        (lambda p, y: write_cmd(p, y * [[[[1]]], [[[1]]], [[[1]]], [[[1]]], [[[1e3]]]]), {}, "differ by a factor"),
        (lambda p, y: write_npy(p / "c.npy", y), {}, r"no box size found .* 16 Mpc/h assumed \(1 Mpc/h a voxel\)"),
        (lambda p, y: write_cmd(p, y).rename(p / "Grids_Mcdm_SIMBA_LH_64_z=0.0.npy"), {}, "says 64 voxels a side"),
    ],
)  # fmt: skip
def test_suspicious_units_are_warned_of(tmp_path, write, options, message):
    path = write(tmp_path, lognormal_cubes())
    with pytest.warns(UserWarning, match=message):
        open_cubes(path, **options)


# --- splits, the page, configurations -------------------------------------------------------------------------------


def test_a_split_is_the_same_for_the_same_seed_and_another_for_another():
    assert split_cubes(50, 0.1, 0.2, 3) == split_cubes(50, 0.1, 0.2, 3) != split_cubes(50, 0.1, 0.2, 4)


def test_the_inspection_says_what_was_found_and_assumed_and_how_much_memory_it_takes(tmp_path, quiet):
    y = lognormal_cubes()
    y[:, ::8, ::8, ::4] = 0
    write_cmd(tmp_path, y)
    page = open_cubes(tmp_path).describe()
    for words in (
        "5 cubes of 16^3 voxels", "25 Mpc/h assumed", "field type density", "no parameters", "0.3906% of the voxels",
        "of memory are free", "slices do not fit: the smallest have 32^2", "all cubes, every", "raise eps",
    ):  # fmt: skip
        assert words in page
    assert "none; every cube" in open_cubes(tmp_path, check=False).describe()


def test_a_configuration_has_every_option_of_open_cubes():
    options = set(inspect.signature(open_cubes).parameters) - {"path"}
    assert set(OPTIONS) == options <= {f.name for f in fields(DataConfig)}
    defaults = {name: p.default for name, p in inspect.signature(open_cubes).parameters.items() if name in options}
    assert {name: getattr(DataConfig(), name) for name in options} == defaults


def test_a_configuration_opens_its_cubes_with_its_options(tmp_path, quiet):
    write_cmd(tmp_path, lognormal_cubes(), field="Mgas")
    write_cmd(tmp_path, lognormal_cubes(2), set_name="CV", field="Mgas")
    (tmp_path / "mine.txt").write_text("# Omega_m sigma_8\n" + "0.3 0.8\n" * N)
    data = DataConfig(
        str(tmp_path), box_size=50.0, field="Mgas", field_type="counts", params=str(tmp_path / "mine.txt")
    )
    suite = open_data(data)
    assert (suite.box_size, suite.field_type, list(suite.params.columns)) == (50.0, "counts", ["Omega_m", "sigma_8"])
    other = open_data(data, "CV")  # whose cubes the parameter file does not belong to
    assert (other.n_cubes, other.box_size, other.params.shape) == (2, 50.0, (2, 0))


def test_options_reach_presets_through_the_environment_as_they_are_written_on_the_command_line(monkeypatch):
    monkeypatch.setenv("UVAE_DATA", "my cubes.npy")
    monkeypatch.setenv("UVAE_OPTIONS", "--data.field-type delta --data.box-size 50 --data.params 'my table.txt'")
    config = load_preset("smoke")
    assert (config.data.field_type, config.data.box_size, config.data.params) == ("delta", 50.0, "my table.txt")
    assert (config.name, config.data.path) == ("smoke-my cubes", "my cubes.npy")


def test_the_command_that_inspects_takes_the_same_options(tmp_path, capsys):
    path = write_npy(tmp_path / "cubes.npy", lognormal_cubes())
    main(["inspect", str(path), "--data.box-size", "50", "--data.field-type", "counts"])
    page = capsys.readouterr().out
    assert "box of 50 Mpc/h as given" in page and "field type counts" in page


def test_slices_of_small_cubes_get_the_largest_size_that_the_networks_take(tmp_path, quiet):
    suite = open_cubes(write_npy(tmp_path / "cubes.npy", lognormal_cubes(1, 40)))
    with pytest.warns(UserWarning, match=r"cubes of 40\^3 are smaller .*: slices of 32\^2 are cut"):
        assert fit_image_size(DataConfig(image_size=128), suite).image_size == 32
    assert fit_image_size(DataConfig(image_size=32), suite).image_size == 32
    small = open_cubes(write_npy(tmp_path / "small.npy", lognormal_cubes(1, 16)))
    with pytest.raises(CubesError, match="found 16 voxels a side; expected at least 32, the smallest"):
        fit_image_size(DataConfig(), small)


@pytest.mark.parametrize("size", IMAGE_SIZES)
def test_the_networks_take_every_size_that_is_advised(size):
    assert map_shape(size)[1] == size // 32 and largest_image_size(size + 1) == size


# --- by which cubes are known again


def fingerprint(path, cubes, name="cubes.npy", params=None):
    """Of cubes (n, N, N, N) written there."""
    path.mkdir(parents=True)
    if name.endswith("npy"):
        np.save(path / name, cubes)
    else:
        with h5py.File(path / name, "w") as file:
            file["density"] = cubes
    params = pd.DataFrame({"Omega_m": np.linspace(0.1, 0.5, len(cubes))}) if params is None else params
    return open_cubes(path / name, box_size=25.0, params=params, check=False, field_type="density").fingerprint


def test_cubes_are_known_again_wherever_and_however_they_lie(tmp_path):
    cubes = np.random.default_rng(0).lognormal(size=(3, 8, 8, 8)).astype(np.float32)
    here, other, hdf5 = (
        fingerprint(tmp_path / str(i), values, name)
        for i, (values, name) in enumerate([(cubes, "a.npy"), (cubes.astype(">f8"), "b.npy"), (cubes, "c.h5")])
    )
    assert here == other == hdf5


@pytest.mark.parametrize("n_cubes", [1, 3])
def test_replaced_or_exchanged_cubes_and_a_corrected_table_are_seen(tmp_path, n_cubes):
    cubes = np.random.default_rng(0).lognormal(size=(n_cubes, 8, 8, 8)).astype(np.float32)
    first = fingerprint(tmp_path / "first", cubes)
    replaced = cubes.copy()
    replaced[-1] = np.random.default_rng(1).lognormal(size=(8, 8, 8))
    found = fingerprint(tmp_path / "replaced", replaced)
    assert found["cubes"] != first["cubes"] and found["parameters"] == first["parameters"]
    if n_cubes > 1:
        assert fingerprint(tmp_path / "exchanged", cubes[::-1])["cubes"] != first["cubes"]
    corrected = fingerprint(tmp_path / "corrected", cubes, params=pd.DataFrame({"Omega_m": np.full(n_cubes, 0.3)}))
    assert corrected["cubes"] == first["cubes"] and corrected["parameters"] != first["parameters"]
