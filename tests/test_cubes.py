"""Suites in known layouts, the pass over all cubes, splits, configurations; files that nobody should trust."""

import inspect
import io
import json
import os
import pickle
import struct
import subprocess
import sys
import warnings
from dataclasses import fields

import h5py
import numpy as np
import pandas as pd
import pytest
from brought import SAID, SIDE, N, lognormal_cubes, write_cmd, write_folder, write_hdf5, write_npy, write_quijote

from uvae_lib.__main__ import main
from uvae_lib.cubes.parameters import canonical
from uvae_lib.cubes.suite import (
    IMAGE_SIZES,
    OPTIONS,
    CubesError,
    fit_image_size,
    open_cubes,
    open_data,
    split_cubes,
)  # fmt: skip
from uvae_lib.model import map_shape
from uvae_lib.presets import DataConfig, load_preset

Y = lognormal_cubes()
quiet = pytest.mark.filterwarnings("ignore::UserWarning")


def write_bsq(folder, cubes):
    for number, y in enumerate(cubes):
        (folder / "BSQ" / str(number)).mkdir(parents=True)
        write_hdf5(folder / "BSQ" / str(number) / "df_m_CIC_z=0.00.hdf5", {"df": (8 * y).astype("f4")})
    return folder


LAYOUTS = {
    "CMD float32": lambda p, y: write_cmd(p, y),
    "CMD float64": lambda p, y: write_cmd(p, y, dtype="f8"),
    "CMD big-endian": lambda p, y: write_cmd(p, y, dtype=">f4"),
    "CMD N-body": lambda p, y: write_cmd(p, y, suite="Nbody_Astrid", field="Mtot", scale=3e7),
    "CMD three folders up": lambda p, y: (write_cmd(p / "3D_grids" / "data" / "SIMBA", y, suite="SIMBA"), p)[1],
    "Quijote": lambda p, y: write_quijote(p / "3D_cubes" / "latin_hypercube", y, range(N)).parent.parent,
    "Quijote, older names": lambda p, y: write_quijote(p / "fiducial", y, range(N), "df_m_16_z=0.npy"),
    "Quijote, Big Sobol Sequence": write_bsq,
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_known_layout_opens_by_its_path_alone(tmp_path, layout):
    suite = open_cubes(LAYOUTS[layout](tmp_path, Y))
    found = np.stack([suite.overdensity(i) for i in range(suite.n_cubes)])
    assert found.dtype == np.float32 and found.flags.c_contiguous
    np.testing.assert_allclose(found, Y, rtol=1e-5, atol=2e-6)


def test_our_own_cubes_open_by_their_path_alone(tmp_path):
    write_cmd(tmp_path, Y, suite="JaxPM", scale=1)
    (tmp_path / "params_LH_JaxPM.txt").write_text("# Omega_m sigma_8\n" + "0.3 0.8\n" * N)
    (tmp_path / "simulation_LH_16.json").write_text(json.dumps({"settings": {"box_size": 64.0}}))
    suite = open_cubes(tmp_path)
    assert (suite.box_size, suite.box_from, suite.n_cubes) == (64.0, "from simulation_LH_16.json", N)
    assert list(suite.params.columns) == ["Omega_m", "sigma_8"] and suite.cautions == []


def test_fifteen_maps_make_a_universe(tmp_path):
    maps = lognormal_cubes(2).astype("f4")[:, :15]
    np.save(tmp_path / "Maps_Mcdm_SIMBA_LH_z=0.00.npy", maps.reshape(30, SIDE, SIDE) * 3e9)
    np.savetxt(tmp_path / "params_SIMBA.txt", np.arange(12).reshape(2, 6) + 0.5)
    suite = open_cubes(tmp_path)
    assert (suite.n_cubes, suite.n_planes, suite.side, suite.axes, suite.box_size) == (2, 15, SIDE, (0,), 25.0)
    np.testing.assert_allclose(suite.overdensity(1), maps[1] / maps[1].mean(), rtol=1e-5)
    assert suite.params["A_SN1"].tolist() == [2.5, 8.5]
    with pytest.raises(CubesError, match=r"found data.thickness=3; expected up to 1; of maps 1"):
        open_data(DataConfig(str(tmp_path), thickness=3))


@pytest.mark.parametrize("z", ["0", "0.0", "0.00"])
def test_the_redshift_of_camels_is_written_in_three_ways(tmp_path, z):
    assert open_cubes(write_cmd(tmp_path, Y, z=z)).redshift == 0


@pytest.mark.parametrize("name", ["params_LH_SIMBA", "params_SIMBA", "params_LH_Nbody_SIMBA", "../params_LH_SIMBA"])
def test_the_parameter_file_of_camels_has_several_names(tmp_path, name):
    write_cmd(tmp_path / "SIMBA", Y, suite="SIMBA")
    values = np.random.default_rng(0).random((N, 6))
    np.savetxt(tmp_path / "SIMBA" / f"{name}.txt", values)
    suite = open_cubes(tmp_path / "SIMBA")
    assert list(suite.params.columns) == ["Omega_m", "sigma_8", "A_SN1", "A_AGN1", "A_SN2", "A_AGN2"]
    np.testing.assert_allclose(suite.params.to_numpy(), values)


def test_a_table_of_all_sets_of_camels_gives_the_rows_that_bear_the_names_of_the_set(tmp_path):
    path = write_cmd(tmp_path, Y)
    rows = "".join(f"{name} {i / 10} 0.8 {i}\n" for i, name in enumerate(["CV_0", "LH_2", "LH_0", "LH_3", "LH_1"]))
    (tmp_path / "CosmoAstroSeed_IllustrisTNG_L25n256_LH.txt").write_text("#Name Omega_m sigma_8 seed\n" + rows)
    assert open_cubes(path).params["Omega_m"].tolist() == [0.2, 0.4, 0.1, 0.3]


def test_an_nbody_suite_keeps_the_two_parameters_that_mean_something(tmp_path):
    write_cmd(tmp_path, Y, suite="Nbody_IllustrisTNG", field="Mtot")
    np.savetxt(tmp_path / "params_LH_Nbody_IllustrisTNG.txt", np.random.default_rng(0).random((N, 6)))
    assert list(open_cubes(tmp_path).params.columns) == ["Omega_m", "sigma_8"]


def test_a_set_does_not_take_the_parameters_of_another_set(tmp_path):
    write_cmd(tmp_path, Y, set_name="EX")
    np.savetxt(tmp_path / "params_LH_IllustrisTNG.txt", np.ones((N, 6)))
    assert open_cubes(tmp_path, set_name="EX").params.shape == (N, 0)


def test_a_folder_of_several_sets_fields_and_redshifts_opens_lh_dark_matter_today(tmp_path):
    for options in ({}, {"set_name": "EX"}, {"field": "Mgas"}, {"z": "1.0"}):
        write_cmd(tmp_path, Y, **options)
    assert "set LH, field Mcdm, z = 0.0" in open_cubes(tmp_path).source
    for options, words in (({"set_name": "EX"}, "set EX"), ({"field": "Mgas"}, "Mgas"), ({"redshift": 1}, "z = 1.0")):
        assert words in open_cubes(tmp_path, **options).source
    for options in ({"set_name": "CV"}, {"field": "HI"}, {"redshift": 2}):
        with pytest.raises(
            CubesError, match=f"found {next(iter(options))} .*; pass {next(iter(options))}= one of these"
        ):
            open_cubes(tmp_path, **options)


@pytest.mark.parametrize("set_name", ["CV", "1P"])
def test_the_box_of_a_set_that_comes_in_two_is_said(tmp_path, set_name):
    with pytest.warns(UserWarning, match=r"a box of 25 Mpc/h is taken .* pass box_size="):
        assert open_cubes(write_cmd(tmp_path, Y, set_name=set_name)).box_size == 25
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert open_cubes(tmp_path, box_size=50).box_from == "as given"


@quiet
def test_cubes_that_share_their_phases_by_design_open_and_stay_in_one_part(tmp_path):
    same = np.stack([Y[0] ** p / np.mean(Y[0] ** p) for p in (0.8, 0.9, 1.0)])
    suite = open_cubes(write_cmd(tmp_path, same, set_name="1P"))
    assert len({*suite.universes}) == 1 and len({*suite.ids}) == 3


@pytest.mark.parametrize("write, words", [
    (lambda p: write_cmd(p, Y, field="T"), "field T is no density"),
    (lambda p: write_cmd(p, Y).rename(p / "Grids_Mcdm_SIMBA_LH_64_z=0.0.npy"), "says 64 voxels a side"),
    (lambda p: write_cmd(p, lognormal_cubes(side=32)[:, :16, :16, :16]), "not look periodic along axis 0"),
])  # fmt: skip
def test_what_looks_odd_is_warned_of(tmp_path, write, words):
    with pytest.warns(UserWarning, match=words):
        open_cubes(write(tmp_path))


def test_missing_realizations_keep_their_own_parameters(tmp_path):
    folder, values = tmp_path / "3D_cubes" / "latin_hypercube", np.random.default_rng(0).random((20, 5))
    write_quijote(folder, Y[:3], [2, 11, 7])
    np.savetxt(tmp_path / "latin_hypercube_params.txt", values, header="Omega_m Omega_b h n_s sigma_8")
    for path in (tmp_path, tmp_path / "3D_cubes", folder):
        suite = open_cubes(path)
        np.testing.assert_allclose(suite.params.to_numpy(), values[[2, 7, 11]])
        assert (suite.box_size, suite.field_type, suite.ids[1]) == (1000.0, "delta", "Quijote/latin_hypercube/7")


def test_one_of_several_quijote_grids_and_cosmologies_is_chosen(tmp_path):
    for name, cubes in (("df_m_16_CIC_z=0.npy", Y), ("df_m_8_CIC_z=0.npy", lognormal_cubes(side=8))):
        write_quijote(tmp_path / "fiducial", cubes, range(N), name)
    write_quijote(tmp_path / "s8_p", Y, range(N))
    with pytest.raises(CubesError, match=r"found field df_m_8_CIC_z=0.npy, df_m_16_CIC_z=0.npy; expected one field"):
        open_cubes(tmp_path)
    assert open_cubes(tmp_path, field="df_m_8_CIC_z=0.npy").side == 8
    assert "Quijote s8_p" in open_cubes(tmp_path, set_name="s8_p").source


@pytest.mark.parametrize(("names", "known"), [
    (["Omega_m", "Om", "Omega0", "OmegaM", r"$\Omega_{\rm m}$", "Ω_m", "Omega_matter", "'Omega_m'"], "Omega_m"),
    (["sigma_8", "sigma8", "s8", "SIGMA_8", r"$\sigma_8$", "σ₈"], "sigma_8"),
    (["S_8"], "S_8"), (["omega_m h^2"], "omega_m h^2"), (["Omega_b"], "Omega_b"), (["Omega_L"], "Omega_L"),
])  # fmt: skip
def test_parameters_are_known_under_their_usual_spellings(names, known):
    assert {canonical(name) for name in names} == {known}


# --- suites ----------------------------------------------------------------------------------------------------------


def test_a_suite_pickles_as_names_and_numbers(tmp_path):
    suite = open_cubes(write_cmd(tmp_path, lognormal_cubes(side=32)))
    text = pickle.dumps(suite)
    assert len(text) < 10_000
    np.testing.assert_array_equal(pickle.loads(text).overdensity(1), suite.overdensity(1))


def test_an_array_that_was_read_can_be_changed_without_changing_the_suite(tmp_path):
    suite = open_cubes(write_cmd(tmp_path, Y))
    suite.overdensity(0)[:] = 7
    assert suite.overdensity(0).max() != 7


def test_cube_numbers_outside_the_suite_are_refused(tmp_path):
    suite = open_cubes(write_cmd(tmp_path, Y))
    for i in (-1, N):
        with pytest.raises(IndexError, match=f"found cube number {i}; expected 0 to {N - 1}"):
            suite.overdensity(i)


def spoil(path):
    """Fill the cubes with NaN behind the back of size and time."""
    times = path.stat()
    np.load(path, mmap_mode="r+")[:] = np.nan
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_a_second_opening_reads_no_cube_until_the_file_changes(tmp_path):
    path = write_cmd(tmp_path, Y)
    first = open_cubes(path).check
    spoil(path)
    assert open_cubes(path).check == first
    with pytest.raises(CubesError, match=r"cube 0 .*NaN"):
        open_cubes(path).overdensity(0)  # a cube is checked again when it is read
    os.utime(path)
    with pytest.raises(CubesError, match="NaN"):
        open_cubes(path)


def test_a_damaged_report_is_made_again_and_none_is_needed(tmp_path):
    path = write_cmd(tmp_path, Y)
    first = open_cubes(path).check
    (report,) = tmp_path.glob(".*check.json")
    for text in ("", "[]", '{"key": 1}', report.read_text().replace("wrap", "warp")):
        report.write_text(text)
        assert open_cubes(path).check == first
    report.unlink()
    report.mkdir()  # no file can be put there
    assert open_cubes(path).check == first and open_cubes(path, check=False).check is None


def test_memory_stays_at_a_few_cubes(tmp_path):
    path = tmp_path / "Grids_Mcdm_IllustrisTNG_LH_128_z=0.0.npy"
    cubes = np.lib.format.open_memmap(path, "w+", "f4", (40, 128, 128, 128))
    for i in range(40):
        cubes[i] = np.random.default_rng(i).random((128, 128, 128), np.float32)
    del cubes
    code = f"""
import resource, warnings
warnings.simplefilter("ignore")
from uvae_lib.cubes.suite import open_cubes
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
open_cubes({str(path)!r})
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 150
    path.unlink()


def fingerprint(path, cubes, name="cubes.npy", params=None):
    """Of cubes (n, N, N, N) written there."""
    path.mkdir(parents=True)
    write_npy(path / name, cubes) if name.endswith("npy") else write_hdf5(path / name, {"density": cubes})
    params = pd.DataFrame({"Omega_m": np.linspace(0.1, 0.5, len(cubes))}) if params is None else params
    return open_cubes(path / name, params=params, check=False, **SAID).fingerprint


def test_cubes_are_known_again_wherever_and_however_they_lie(tmp_path):
    cubes = Y.astype("f4")
    kinds = [(cubes, "a.npy"), (cubes.astype(">f8"), "b.npy"), (cubes, "c.h5")]
    first, *others = (fingerprint(tmp_path / str(i), values, name) for i, (values, name) in enumerate(kinds))
    assert others == [first, first]


def test_replaced_or_exchanged_cubes_and_a_corrected_table_are_seen(tmp_path):
    first, replaced = fingerprint(tmp_path / "first", Y), np.concatenate([Y[:-1], lognormal_cubes(1, seed=9)])
    assert fingerprint(tmp_path / "exchanged", Y[::-1])["cubes"] != first["cubes"]
    found = fingerprint(tmp_path / "replaced", replaced)
    assert found["cubes"] != first["cubes"] and found["parameters"] == first["parameters"]
    corrected = fingerprint(tmp_path / "corrected", Y, params=pd.DataFrame({"Omega_m": np.full(N, 0.3)}))
    assert corrected["cubes"] == first["cubes"] and corrected["parameters"] != first["parameters"]


# --- what the user says ----------------------------------------------------------------------------------------------


def test_two_tries_lead_from_a_folder_of_cubes_to_a_suite(tmp_path):
    write_folder(tmp_path, {f"cube_{i}": y.astype("f4") for i, y in enumerate(Y)})
    with pytest.raises(CubesError) as first:
        open_cubes(tmp_path)
    line = str(first.value).partition("write ")[2].partition(", --data")[0]
    said = line.replace("box_size=...", "box_size=50.0").replace("field_type=...", 'field_type="overdensity"')
    assert eval(said, {"open_cubes": open_cubes}).n_cubes == N
    for words in (r"4 arrays like cube_0.npy", "1x16x16x16 float32", "minimum 0.0", "mean 1"):
        assert words in str(first.value)


def test_what_is_written_beside_the_cubes_is_said_once_and_for_all(tmp_path, capsys):
    path = write_npy(tmp_path / "cubes.npy", Y)
    main(["inspect", str(path)])
    page = capsys.readouterr().out
    assert (
        "field_type = overdensity: minimum 0.0" in page and "--save" in page and not (tmp_path / "suite.json").exists()
    )
    with pytest.raises(CubesError):
        open_cubes(path)  # a proposal is never used by itself
    main(["inspect", str(path), "--box-size", "50", "--field-type", "overdensity", "--save"])
    assert "box of 50 Mpc/h as given" in capsys.readouterr().out
    assert open_cubes(path).box_size == open_cubes(tmp_path).box_size == 50
    assert open_cubes(path, box_size=25).box_size == 25


def test_a_record_of_one_file_says_nothing_of_another(tmp_path):
    for name in "ab":
        write_npy(tmp_path / f"{name}.npy", Y)
    main(["inspect", str(tmp_path / "a.npy"), "--box-size", "50", "--field-type", "density", "--save"])
    assert open_cubes(tmp_path / "a.npy").box_size == 50
    with pytest.raises(CubesError, match="expected box_size="):
        open_cubes(tmp_path / "b.npy")


@pytest.mark.parametrize(
    ("text", "words"), [("{", "no record"), ('{"boxsize": 1}', "boxsize; expected some of set_name")]
)
def test_a_record_that_cannot_be_used_is_refused(tmp_path, text, words):
    (tmp_path / "suite.json").write_text(text)
    with pytest.raises(CubesError, match=words):
        open_cubes(write_npy(tmp_path / "cubes.npy", Y))


def test_a_box_that_contradicts_the_file_is_said(tmp_path):
    path = write_hdf5(tmp_path / "a.h5", {"rho": Y}, BoxSize="100 Mpc/h")
    with pytest.warns(UserWarning, match="box_size=50.0 is taken, although the file says 100 Mpc/h"):
        assert open_cubes(path, **SAID).box_size == 50


def test_a_configuration_has_every_option_of_open_cubes():
    parameters = inspect.signature(open_cubes).parameters
    assert (
        {*OPTIONS} == {*parameters} - {"path", "allow_same_universe", "check"} <= {f.name for f in fields(DataConfig)}
    )
    assert {name: getattr(DataConfig(), name) for name in OPTIONS} == {n: parameters[n].default for n in OPTIONS}
    assert len(fields(DataConfig)) <= 15


def test_a_configuration_opens_its_cubes_with_its_options(tmp_path):
    for set_name in ("LH", "EX"):
        write_cmd(tmp_path, Y, field="Mgas", set_name=set_name)
    (tmp_path / "mine.txt").write_text("# Omega_m sigma_8\n" + "0.3 0.8\n" * N)
    data = DataConfig(
        str(tmp_path), box_size=50.0, field="Mgas", field_type="counts", params=str(tmp_path / "mine.txt")
    )
    suite = open_data(data)
    assert (suite.box_size, suite.field_type, list(suite.params.columns)) == (50.0, "counts", ["Omega_m", "sigma_8"])
    other = open_data(data, "EX")  # whose cubes the parameter file does not belong to
    assert (other.n_cubes, other.box_size, other.params.shape) == (N, 50.0, (N, 0))


def test_options_reach_presets_through_the_environment_as_they_are_written_on_the_command_line(monkeypatch):
    monkeypatch.setenv("UVAE_OPTIONS", "--data.field-type delta --data.box-size 50 --data.line-of-sight 2")
    data = load_preset("smoke").data
    assert (data.field_type, data.box_size, data.line_of_sight) == ("delta", 50.0, 2)


@quiet
def test_slices_of_small_cubes_get_the_largest_size_that_the_networks_take(tmp_path):
    suite = open_cubes(write_npy(tmp_path / "a.npy", lognormal_cubes(1, 40)), **SAID)
    with pytest.warns(UserWarning, match=r"cubes of 40\^3 are smaller .*: slices of 32\^2 are cut"):
        assert fit_image_size(DataConfig(image_size=128), suite).image_size == 32
    small = open_cubes(write_npy(tmp_path / "b.npy", Y), **SAID)
    with pytest.raises(CubesError, match="found 16 voxels a side; expected at least 32, the smallest"):
        fit_image_size(DataConfig(), small)


@pytest.mark.parametrize("size", IMAGE_SIZES)
def test_the_networks_take_every_size_that_is_advised(size):
    assert map_shape(size)[1] == size // 32


def test_a_split_is_the_same_for_the_same_seed_and_another_for_another():
    assert split_cubes(50, 0.1, 0.2, 3) == split_cubes(50, 0.1, 0.2, 3) != split_cubes(50, 0.1, 0.2, 4)


# --- files that nobody should trust ----------------------------------------------------------------------------------


def npy_bytes(header, data=b"\0" * 2048):
    text = (header + "\n").encode("latin1")
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text + data


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("owned",)


CUT = npy_bytes("{'descr': '<f4', 'fortran_order': False, 'shape': (8, 8, 9)}")
HOSTILE = {
    "empty": b"", "web page": b"<!DOCTYPE html>", "pickle": pickle.dumps(Bomb()), "cut": CUT,
    "cut in its header": CUT[:30],
    "objects": npy_bytes("{'descr': '|O', 'fortran_order': False, 'shape': (1, 1, 1)}", pickle.dumps(Bomb())),
    "code in its header": npy_bytes("__import__('os').mkdir('owned')"), "no shape": npy_bytes("{'descr': '<f4'}"),
    "negative shape": npy_bytes("{'descr': '<f4', 'fortran_order': False, 'shape': (-8, 8, 8)}"),
    "beyond all memory": npy_bytes(f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({2**40}, {2**40}, {2**40})}}"),
    "nested header": npy_bytes("{'descr': " + "[" * 9000), "version of the future": b"\x93NUMPY\x09\x09" + CUT[8:],
}  # fmt: skip


@pytest.mark.parametrize("suffix", [".npy", ".hdf5"])
@pytest.mark.parametrize("name", HOSTILE)
def test_a_file_that_is_no_array_is_refused_and_nothing_runs(tmp_path, monkeypatch, name, suffix):
    monkeypatch.chdir(tmp_path)
    (tmp_path / f"cubes{suffix}").write_bytes(HOSTILE[name])
    with pytest.raises(CubesError, match=r"found .*; expected .*; "):
        open_cubes(tmp_path / f"cubes{suffix}", **SAID)
    assert [p.name for p in tmp_path.iterdir()] == [f"cubes{suffix}"]


def altered(change, i=1):
    cubes = Y.copy()
    change(cubes[i])
    return cubes


ARRAYS = {
    "complex": (Y.astype("c8"), "values of type complex64"),
    "truth values": (Y > 1, "values of type bool"),
    "texts": (Y.astype("U8"), "values of type <U8"), "none": (Y[:0], r"shape \(0, "),
    "a picture": (Y[0, 0], r"\(16, 16\)"),
    "no cube": (Y[..., :7], "cut or reshape"),
    "NaN": (altered(lambda y: y.__setitem__((1, 2, 3), np.nan)), "cube 1 .*1 NaN"),
    "infinity": (altered(lambda y: y.__setitem__((1, 2), np.inf)), "0 NaN and 16 infinite"),
    "negative": (altered(lambda y: y.__setitem__((0, 0, 0), -2.5e-6)), "cube 1 .*never negative"),
    "zeros": (altered(lambda y: y.__setitem__(slice(None), 0)), "cube 1 .*all voxels 0, a constant cube"),
    "constant": (altered(lambda y: y.__setitem__(slice(None), 7), 0), "cube 0 .*all voxels 7, a constant cube"),
    "too large": (Y / Y.max() * 1e308, "numbers too large"), "logarithms": (np.log(Y), "undo logarithms"),
}  # fmt: skip


@quiet
@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_that_is_no_density_is_refused(tmp_path, name):
    values, words = ARRAYS[name]
    with pytest.raises(CubesError, match=words):
        open_cubes(write_npy(tmp_path / "c.npy", values), **SAID)


def test_rounding_below_zero_is_clipped(tmp_path):
    y = altered(lambda y: y.__setitem__((3, 4, 5), -1.5e-6))
    assert open_cubes(write_npy(tmp_path / "c.npy", y), **SAID).overdensity(1).min() == 0


def test_damaged_chunks_are_refused(tmp_path):
    with h5py.File(tmp_path / "c.h5", "w") as file:
        info = file.create_dataset("rho", data=Y, chunks=(1, *Y.shape[1:]), compression="gzip").id.get_chunk_info(0)
    with open(tmp_path / "c.h5", "r+b") as file:
        file.seek(info.byte_offset)
        file.write(b"\xff" * info.size)
    with pytest.raises(CubesError, match=r"found .*; expected a whole"):
        open_cubes(tmp_path / "c.h5", **SAID)


@pytest.mark.parametrize("left", [0, 100, 4000])
@pytest.mark.parametrize("suffix", ["npy", "h5"])
def test_a_file_that_shrinks_while_it_is_read_ends_in_a_sentence(tmp_path, left, suffix):
    path = tmp_path / f"c.{suffix}"
    write_npy(path, Y) if suffix == "npy" else write_hdf5(path, {"rho": Y})
    suite = open_cubes(path, **SAID)
    os.truncate(path, left)
    with pytest.raises(CubesError, match=rf"found {left} bytes while reading, .*; wait for the copy"):
        suite.overdensity(0)


def test_a_file_that_its_writer_still_holds_is_not_called_damaged(tmp_path):
    path = write_hdf5(tmp_path / "c.h5", {"rho": Y})
    code = f"import h5py, sys; f = h5py.File({str(path)!r}, 'a'); print('open', flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        try:
            with pytest.raises(CubesError, match=r"lock file.*; expected a closed file; wait for its writer"):
                open_cubes(path, **SAID)
        finally:
            process.communicate()


def test_paths_that_lead_nowhere_are_refused(tmp_path):
    (tmp_path / "loop.npy").symlink_to(tmp_path / "loop.npy")
    os.mkfifo(tmp_path / "pipe.npy")
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "notes.txt").write_text("hello")
    for path, words in (("loop.npy", "a link to .*loop.npy, which does not exist"), ("pipe.npy", "no regular file"),
                        ("empty", "0 files, none of them cubes"),
                        ("notes", "1 files, none of them cubes"), ("x" * 300, "too long"),
                        ("a\0b", "no such file")):  # fmt: skip
        with pytest.raises(CubesError, match=words):
            open_cubes(tmp_path / path)
    with pytest.raises(FileNotFoundError, match="no such file or folder; expected cubes; check the path"):
        open_cubes(tmp_path / "nothing")


def test_a_circle_of_links_beside_cubes_does_no_harm(tmp_path):
    write_cmd(tmp_path / "CMD" / "IllustrisTNG", Y)
    (tmp_path / "CMD" / "again").symlink_to(tmp_path / "CMD")
    assert open_cubes(tmp_path / "CMD").n_cubes == N


def test_a_simulation_that_is_not_finished_is_said(tmp_path):
    buffer = io.BytesIO()
    np.save(buffer, Y)
    (tmp_path / "Grids_Mcdm_JaxPM_LH_16_z=0.0.npy.partial").write_bytes(buffer.getvalue())
    with pytest.raises(CubesError, match="a simulation that is not finished"):
        open_cubes(tmp_path)
