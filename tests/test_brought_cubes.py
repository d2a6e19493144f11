"""Cubes and tables as people bring them: read rightly, or refused or warned of, never wrong in silence."""

import json
import re
import subprocess
import sys
import tempfile
import warnings
from dataclasses import fields
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_cubes import lognormal_cubes, write_cmd, write_hdf5, write_npy, write_quijote

from uvae_lib.cubes.arrays import open_hdf5, read_length
from uvae_lib.cubes.parameters import canonical, read_parameters
from uvae_lib.cubes.suite import CubesError, open_cubes
from uvae_lib.presets import DataConfig

Y = lognormal_cubes(3, 8).astype("f4")
TRUTH = pd.DataFrame({"Omega_m": [0.1, 0.2, 0.3], "sigma_8": [0.7, 0.9, 0.8]})
quiet = pytest.mark.filterwarnings("ignore::UserWarning")


def opened(path, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return open_cubes(path, **options)


def same_cubes(suite, cubes):
    assert suite.n_cubes == len(cubes)
    for i, y in enumerate(cubes):
        np.testing.assert_allclose(suite.overdensity(i), y / y.mean(), rtol=1e-5)


# --- names of parameters -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [
    "Omega_m", "Om", "Omega0", "Omega_0", "OmegaM", "omega_m", "Omega_M", "OMEGA_M", "Om0", "Om_m", "Omega_m0",
    r"$\Omega_m$", r"$\Omega_{\rm m}$", r"\Omega_{\mathrm{m}}", "Ω_m", "Ωm", "Omega_matter", " Omega_m ", "'Omega_m'",
])  # fmt: skip
def test_omega_m_is_known_under_its_usual_spellings(name):
    assert canonical(name) == "Omega_m"


@pytest.mark.parametrize("name", [
    "sigma_8", "sigma8", "s8", "Sigma8", "SIGMA_8", "sig8", r"$\sigma_8$", r"\sigma_{8}", "σ8", "σ₈", '"sigma8"',
])  # fmt: skip
def test_sigma_8_is_known_under_its_usual_spellings(name):
    assert canonical(name) == "sigma_8"


@pytest.mark.parametrize("name", ["S_8", "S8", "omega_m h^2", "Omega_mh2", "Omega_b", "Omega_L", "Omega", "w0", "8"])
def test_other_parameters_keep_their_names(name):
    assert canonical(name) == name


def test_an_alias_gives_way_to_the_name_itself():
    table = read_parameters(pd.DataFrame({"s8": [0.1], "sigma_8": [0.8]}))
    assert table.iloc[0].to_dict() == {"s8": 0.1, "sigma_8": 0.8}


# --- tables ------------------------------------------------------------------------------------------------------

names = st.permutations(["Omega_m", "sigma_8", "A_SN1", "A_AGN1"])
spelt = {"Omega_m": ["Omega_m", "Om", "OmegaM", '"Omega_m"'], "sigma_8": ["sigma_8", "sigma8", "s8", "'sigma_8'"]}
prose = st.lists(
    st.sampled_from(["made by us", "2024-01-01", "CAMELS suite, LH set of 1000", "-----", "seed 5"]), max_size=3
)


@given(names, st.sampled_from([" ", ",", ", ", ";", "\t"]), prose, prose, st.booleans(), st.data())
def test_columns_go_by_their_names_whatever_else_the_comments_say(order, separator, before, after, hashed, data):
    values = np.arange(12.0).reshape(3, 4) + 0.5
    heads = [data.draw(st.sampled_from(spelt.get(name, [name]))) for name in order]
    lines = [f"# {text}" for text in before] + ["# " * hashed + separator.join(heads)]
    lines += [f"# {text}" for text in after] if hashed else []
    lines += [separator.join(map(str, row)) for row in values]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "params.txt"
        path.write_text("\n".join(lines) + "\n")
        table = read_parameters(path, ("Omega_m", "sigma_8"))
    for i, name in enumerate(order):
        assert table[name].tolist() == values[:, i].tolist()


@given(st.sampled_from(["# sigma_8 Omega_m\n# A_SN1 A_SN2\n", "# sigma_8 first\n", "# sigma_8, then Omega_m\n",
                        "# Omega_m sigma_8\n# sigma_8 Omega_m\n", "# s8 Om h\n", "# ['sigma_8', 'Omega_m']\n",
                        "# 1: sigma_8\n# 2: Omega_m\n"]))  # fmt: skip
def test_comments_that_do_not_settle_the_order_are_a_refusal(head):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "params.txt"
        path.write_text(head + "0.8 0.3\n" * 3)
        try:
            table = read_parameters(path, ("Omega_m", "sigma_8"))
        except CubesError as error:
            assert "one line of names" in str(error)
        else:
            assert table["sigma_8"][0] == 0.8  # or the order that it names


def test_positional_names_are_a_warning_that_names_them(tmp_path):
    path = write_cmd(tmp_path, Y)
    np.savetxt(tmp_path / "params_LH_IllustrisTNG.txt", TRUTH.to_numpy())
    with pytest.warns(UserWarning, match="have no names and are taken as Omega_m, sigma_8, in this order"):
        open_cubes(path)


@quiet
@pytest.mark.parametrize("write", [
    lambda p: TRUTH.to_csv(p), lambda p: TRUTH.to_csv(p, index=False), lambda p: TRUTH.to_csv(p, sep=" "),
    lambda p: TRUTH.set_axis(["LH_0", "LH_1", "LH_2"]).to_csv(p), lambda p: TRUTH.rename_axis("sim").to_csv(p),
    lambda p: TRUTH.assign(seed=[5, 6, 7]).to_csv(p, index_label="Name"), lambda p: TRUTH.to_csv(p, quoting=1),
    lambda p: TRUTH[["sigma_8", "Omega_m"]].to_csv(p, sep=";"),
    lambda p: p.write_text("#Name Omega_m sigma_8 seed\nLH_0 .1 .7 5\nLH_1 .2 .9 6\nLH_2 .3 .8 7\n"),
    lambda p: p.write_text("LH_0 .1 .7\nLH_1 .2 .9\nLH_2 .3 .8\n"), lambda p: p.write_text(".1,.7,\n.2,.9,\n.3,.8,\n"),
    lambda p: p.write_text("# Omega_m [1]  sigma_8 (at 8 Mpc/h)\n.1 .7\n.2 .9\n.3 .8\n"),
    lambda p: p.write_text("0 .1 .7\n1 .2 .9\n2 .3 .8\n"), lambda p: p.write_text("  .1  .7 # a\n  .2  .9\n  .3  .8\n"),
])  # fmt: skip
def test_a_table_gives_its_parameters_and_nothing_else(tmp_path, write):
    path = write_cmd(tmp_path, Y)
    write(tmp_path / "params_LH_IllustrisTNG.txt")
    pd.testing.assert_frame_equal(open_cubes(path).params[["Omega_m", "sigma_8"]], TRUTH)
    assert open_cubes(path).params.shape == (3, 2)


@quiet
@pytest.mark.parametrize("given", [
    {"Omega_m": [0.1, 0.2, 0.3], "s8": np.array([0.7, 0.9, 0.8])}, TRUTH.to_dict("records"),
    TRUTH.to_records(index=False), TRUTH.set_axis(["a", "b", "c"]), TRUTH.to_numpy(),
])  # fmt: skip
def test_tables_are_handed_over_in_many_forms(tmp_path, given):
    found = open_cubes(write_cmd(tmp_path, Y), params=given).params
    assert found.to_numpy().tolist() == TRUTH.to_numpy().tolist()


@quiet
def test_series_are_a_column_or_the_row_of_one_cube(tmp_path):
    path = write_npy(tmp_path / "cubes.npy", Y)
    assert open_cubes(path, params=TRUTH["Omega_m"]).params["Omega_m"].tolist() == [0.1, 0.2, 0.3]
    assert opened(write_npy(tmp_path / "one.npy", Y[0]), params=TRUTH.iloc[1]).params.to_dict("records") == [
        {"Omega_m": 0.2, "sigma_8": 0.9}
    ]


def test_columns_of_different_lengths_are_refused(tmp_path):
    with pytest.raises(CubesError, match=r"found no table .*same length.*; give one row a cube"):
        open_cubes(write_cmd(tmp_path, Y), params={"Omega_m": [0.1, 0.2, 0.3], "sigma_8": [0.8]})


@quiet
def test_rows_that_bear_the_names_of_cubes_follow_them(tmp_path):
    path = write_cmd(tmp_path, Y)
    mixed = "Name Omega_m sigma_8\nCV_0 9 9\nLH_2 .3 .8\nLH_0 .1 .7\nLH_1 .2 .9\n1P_0 9 9\n"
    (tmp_path / "params_LH_IllustrisTNG.txt").write_text(mixed)
    pd.testing.assert_frame_equal(open_cubes(path).params, TRUTH)
    folder = tmp_path / "runs"
    folder.mkdir()
    for name, y in zip("abc", Y, strict=True):
        np.save(folder / f"{name}.npy", y)
    (folder / "params.csv").write_text("file,Omega_m,sigma_8\nc.npy,.3,.8\na.npy,.1,.7\nb.npy,.2,.9\n")
    pd.testing.assert_frame_equal(open_cubes(folder).params, TRUTH)


@quiet
@pytest.mark.parametrize("name", [
    "CosmoAstroSeed_IllustrisTNG_L25n256_LH.txt", "CosmoAstroSeed_IllustrisTNG.txt", "params_LH_IllustrisTNG.csv",
])  # fmt: skip
def test_further_names_of_parameter_files_of_camels(tmp_path, name):
    path = write_cmd(tmp_path, Y)
    TRUTH.to_csv(tmp_path / name, sep="," if name.endswith("csv") else " ", index_label="Name")
    pd.testing.assert_frame_equal(open_cubes(path).params, TRUTH)


@quiet
@pytest.mark.parametrize("name", ["labels.csv", "cosmologies.txt", "theta.CSV", "cosmo_params.txt", "PARAMS.txt"])
def test_tables_beside_plain_cubes_are_found_under_usual_names(tmp_path, name):
    path = write_npy(tmp_path / "cubes.npy", Y)
    TRUTH.to_csv(tmp_path / name, index=False)
    pd.testing.assert_frame_equal(open_cubes(path).params, TRUTH)


def test_a_table_that_is_not_read_is_said(tmp_path):
    path = write_npy(tmp_path / "cubes.npy", Y)
    (tmp_path / "labels.csv").write_text("Omega_m\n0.3\n")
    with pytest.warns(UserWarning, match=r"labels.csv beside the cubes is not used: .* 1 rows of parameters"):
        assert open_cubes(path, box_size=8).params.shape == (3, 0)
    TRUTH.to_csv(tmp_path / "params_a.csv")
    TRUTH.to_csv(tmp_path / "params_b.csv")
    with pytest.warns(UserWarning, match=r"no parameters read: params_a.csv, params_b.csv could .*; pass params="):
        assert open_cubes(path, box_size=8).params.shape == (3, 0)


@pytest.mark.parametrize("name", ["params.txt", "params_LH.csv", "cosmo_params.dat", "CosmoAstroSeed_SIMBA_LH.txt"])
def test_a_table_beside_camels_cubes_that_is_not_read_is_said(tmp_path, name):
    write_cmd(tmp_path, Y)
    TRUTH.to_csv(tmp_path / name)
    TRUTH.to_csv(tmp_path / "params_CV_IllustrisTNG.txt")  # of another set
    with pytest.warns(UserWarning, match=rf"no parameters read: [^,]*/{name} could be them; pass params="):
        assert open_cubes(tmp_path).params.empty
    assert opened(tmp_path, params=tmp_path / name).params.equals(TRUTH)


def test_a_table_in_each_folder_of_a_tree_is_said(tmp_path):
    for i, y in enumerate(Y):
        (tmp_path / f"run{i}").mkdir()
        np.save(tmp_path / f"run{i}" / "density.npy", y)
        TRUTH[i : i + 1].to_csv(tmp_path / f"run{i}" / "params.txt")
    with pytest.warns(UserWarning, match=r"no parameters read: run0/params.txt, run1/params.txt, .* pass params="):
        assert open_cubes(tmp_path, box_size=8).params.empty


def test_the_suite_knows_which_parameters_vary(tmp_path):
    table = TRUTH.assign(sigma_8=0.8, h=0.6711 + 1e-13 * np.arange(3))
    suite = open_cubes(write_cmd(tmp_path, Y), params=table)
    assert suite.varying == ["Omega_m"] and "0.8 to 0.8, the same in every cube" in suite.describe()
    assert opened(write_npy(tmp_path / "one.npy", Y[0]), params={"Omega_m": 0.3}).varying == []


# --- files -------------------------------------------------------------------------------------------------------


@quiet
@pytest.mark.parametrize("shape", [(3, 1, 8, 8, 8), (3, 8, 8, 8, 1), (1, 3, 8, 8, 8), (3, 8, 8, 8)])
@pytest.mark.parametrize("suffix", [".npy", ".h5", ".npz"])
def test_axes_of_length_one_change_nothing(tmp_path, shape, suffix):
    path, values = tmp_path / f"cubes{suffix}", Y.reshape(shape)
    {".npy": np.save, ".h5": lambda p, v: write_hdf5(p, "rho", v), ".npz": lambda p, v: np.savez(p, rho=v)}[suffix](
        path, values
    )
    same_cubes(open_cubes(path), Y)


@quiet
@pytest.mark.parametrize("shape", [(8, 8, 8, 1), (1, 8, 8, 8), (1, 1, 8, 8, 8), (8, 8, 8)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_one_cube_with_axes_of_length_one(tmp_path, shape, order):
    path = write_npy(tmp_path / "cube.npy", np.asarray(Y[0].reshape(shape), order=order))
    same_cubes(open_cubes(path), Y[:1])
    same_cubes(open_cubes(write_hdf5(tmp_path / "cube.h5", "rho", Y[0].reshape(shape))), Y[:1])


@quiet
@pytest.mark.parametrize("shape", [(45, 8, 8), (3, 15, 8, 8), (45, 1, 8, 8), (45, 8, 8, 1), (3, 15, 1, 8, 8)])
def test_maps_in_sets_of_fifteen_have_one_reading(tmp_path, shape):
    maps = lognormal_cubes(6, 8).reshape(48, 8, 8)[:45].astype("f4")
    suite = open_cubes(write_npy(tmp_path / "Maps_Mcdm_SIMBA_LH_z=0.00.npy", maps.reshape(shape)))
    assert (suite.n_cubes, suite.n_planes, suite.axes) == (3, 15, (0,))
    same_cubes(suite, maps.reshape(3, 15, 8, 8))


@quiet
def test_an_archive_with_an_array_for_each_cube_is_refused_and_the_advice_is_accepted(tmp_path, monkeypatch):
    np.savez(tmp_path / "cubes.npz", *Y, labels=TRUTH.to_numpy())
    with pytest.raises(CubesError, match=r"found 3 arrays of cubes; expected arrays .*; once run ") as refusal:
        open_cubes(tmp_path / "cubes.npz")
    monkeypatch.chdir(tmp_path)
    exec(str(refusal.value).partition("once run ")[2].replace(str(tmp_path) + "/", ""), {"np": np})
    same_cubes(open_cubes(tmp_path / "cubes.npy"), Y)


@quiet
def test_an_archive_of_arrays_is_read_in_place(tmp_path):
    np.savez(tmp_path / "cubes.npz", labels=TRUTH.to_numpy(), rho=Y)
    same_cubes(open_cubes(tmp_path / "cubes.npz"), Y)
    np.savez(tmp_path / "two.npz", a=Y[:1], b=Y)
    same_cubes(open_cubes(tmp_path / "two.npz", dataset="b"), Y)
    with pytest.raises(CubesError, match=r"a \(1, 8, 8, 8\), b .*; expected one data set of cubes"):
        open_cubes(tmp_path / "two.npz")


@quiet
@pytest.mark.parametrize("name", ["cubes.NPY", "cubes.HDF5", "cubes.H5", "cubes.he5"])
def test_extensions_may_be_spelt_in_capital_letters(tmp_path, name):
    if name.endswith("NPY"):
        with open(tmp_path / name, "wb") as file:
            np.save(file, Y)
    else:
        write_hdf5(tmp_path / name, "rho", Y)
    same_cubes(open_cubes(tmp_path), Y)
    same_cubes(open_cubes(tmp_path / name), Y)


@pytest.mark.parametrize("beside", [
    lambda p: np.save(p / "halos.npy", np.ones((50, 3))), lambda p: write_hdf5(p / "halos.hdf5", "mass", np.ones(50)),
    lambda p: np.save(p / "names.npy", np.array(["a", "b"], dtype=object), allow_pickle=True),
    lambda p: np.save(p / "table.npy", np.zeros(4, [("x", "f4"), ("n", "U4")])),
])  # fmt: skip
@pytest.mark.parametrize("suffix", [".npy", ".h5"])
def test_a_catalogue_beside_the_cubes_is_passed_over_and_said(tmp_path, beside, suffix):
    for i, y in enumerate(Y):
        np.save(tmp_path / f"cube_{i}.npy", y) if suffix == ".npy" else write_hdf5(tmp_path / f"cube_{i}.h5", "rho", y)
    beside(tmp_path)
    with pytest.warns(UserWarning, match=r"also holds (halos|names|table)\.(npy|hdf5), not opened"):
        same_cubes(open_cubes(tmp_path, box_size=8), Y)


@quiet
def test_labels_beside_the_cubes_are_their_parameters(tmp_path):
    np.save(tmp_path / "cubes.npy", Y)
    np.save(tmp_path / "labels.npy", TRUTH.to_numpy())
    suite = open_cubes(tmp_path)
    same_cubes(suite, Y)
    assert suite.params.to_numpy().tolist() == TRUTH.to_numpy().tolist() and "not opened" not in "".join(suite.cautions)


def test_cubes_in_two_formats_are_refused_and_the_advice_is_accepted(tmp_path):
    write_hdf5(tmp_path / "more.h5", "rho", Y[:1])
    for i, y in enumerate(Y):
        np.save(tmp_path / f"cube_{i}.npy", y)
    with pytest.raises(CubesError, match=r"both .npy and HDF5 files .*more.h5.*; expected one format; pass format="):
        open_cubes(tmp_path)
    with pytest.warns(UserWarning, match=r"also holds more.h5, not opened"):
        same_cubes(open_cubes(tmp_path, format="npy"), Y)
    same_cubes(opened(tmp_path, format="hdf5"), Y[:1])


@pytest.mark.parametrize("write", [lambda p: write_cmd(p, Y), lambda p: write_quijote(p, Y, [0, 1, 2])])
def test_further_cubes_beside_a_known_layout_are_said(tmp_path, write):
    write(tmp_path)
    np.save(tmp_path / "extra.npy", Y)
    with pytest.warns(UserWarning, match="also holds extra.npy, not opened"):
        assert open_cubes(tmp_path).n_cubes == 3


@quiet
@pytest.mark.parametrize("suffix", [".npy", ".hdf5"])
def test_a_tree_with_a_folder_for_each_simulation_is_a_suite(tmp_path, suffix):
    for i, y in zip([2, 9, 10], Y, strict=True):
        (tmp_path / f"run{i}").mkdir()
        path = tmp_path / f"run{i}" / f"density{suffix}"
        np.save(path, y) if suffix == ".npy" else write_hdf5(path, "rho", y)
    (tmp_path / "params.txt").write_text("# Omega_m\n2\n9\n10\n")
    suite = open_cubes(tmp_path)
    same_cubes(suite, Y)
    assert suite.params["Omega_m"].tolist() == [2, 9, 10] and suite.cube_id(2).endswith("run10/density")


def test_cubes_in_folders_below_others_are_said(tmp_path):
    (tmp_path / "more").mkdir()
    np.save(tmp_path / "cube_0.npy", Y[0])
    np.save(tmp_path / "more" / "cube_1.npy", Y[1])
    with pytest.warns(UserWarning, match=r"1 files in folders below are not opened \(more/cube_1.npy"):
        same_cubes(open_cubes(tmp_path, box_size=8), Y[:1])


def test_one_of_several_data_sets_is_never_chosen_in_silence(tmp_path):
    path = write_hdf5(tmp_path / "cubes.hdf5", "data", Y)
    with h5py.File(path, "a") as file:
        file["gas"] = Y[::-1]
    with pytest.raises(CubesError, match=r"data .*, gas .*; expected one data set of cubes; pass dataset="):
        open_cubes(path)


def test_a_tree_with_several_files_a_simulation_asks_which(tmp_path):
    for i, y in enumerate(Y):
        (tmp_path / f"run{i}").mkdir()
        np.save(tmp_path / f"run{i}" / "density.npy", y)
        if i:
            np.save(tmp_path / f"run{i}" / "gas.npy", y[::-1])
    with pytest.raises(CubesError, match=r"field density.npy, gas.npy; expected one field; pass field="):
        open_cubes(tmp_path)
    same_cubes(opened(tmp_path, field="density.npy"), Y)
    with pytest.warns(UserWarning, match="no gas.npy in run0: left out"):
        same_cubes(open_cubes(tmp_path, field="gas.npy"), Y[1:, ::-1])


def test_a_catalogue_in_each_folder_of_a_tree_is_passed_over_and_said(tmp_path):
    for i, y in enumerate(Y):
        (tmp_path / f"run{i}").mkdir()
        np.save(tmp_path / f"run{i}" / "density.npy", y)
        np.save(tmp_path / f"run{i}" / "halos.npy", np.ones((5, 3)))
    with pytest.warns(UserWarning, match=r"also holds halos.npy in its folders, not opened"):
        same_cubes(open_cubes(tmp_path, box_size=8), Y)


@pytest.mark.parametrize(("content", "found"), [
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file by another name"), (b"\x93NUMPY\1\0", "a NumPy file by another name"),
    (b"SIMPLE  =                    T", "a FITS file"), (b"\x1f\x8b\x08", "compressed by gzip"), (b"CDF\x01", "NetCDF"),
    (b"MATLAB 5.0 MAT-file", "MATLAB"), (b"PK\x03\x04rest", "zip archive"), (b"\x80\x04", "a pickle"),
])  # fmt: skip
def test_other_formats_are_named_for_what_they_are(tmp_path, content, found):
    (tmp_path / "cubes.xyz").write_bytes(content)
    for path in (tmp_path / "cubes.xyz", tmp_path):
        if "another name" not in found or path == tmp_path:
            with pytest.raises(CubesError, match=f"{found}.*np.save"):
                open_cubes(path)


@pytest.mark.parametrize(("name", "found"), [("attr-v2", "a BigFile folder"), (".zgroup", "a zarr folder")])
def test_folders_of_other_formats_are_named_for_what_they_are(tmp_path, name, found):
    (tmp_path / "mesh" / "field").mkdir(parents=True)
    (tmp_path / "mesh" / "field" / name).write_text("x")
    for path in (tmp_path, tmp_path / "mesh", tmp_path / "mesh" / "field"):
        with pytest.raises(CubesError, match=found):
            open_cubes(path)


# --- HDF5 --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("value", "box"), [
    (50, 50.0), (np.float32(50), 50.0), ([50.0, 50, 50], 50.0), ("50", 50.0), (b"50.0", 50.0), ("50 Mpc/h", 50.0),
    ("50 h^-1 Mpc", 50.0), ("50000 kpc/h", 50.0), ("0.05 Gpc/h", 50.0), ("5e1cMpc/h", 50.0), ([50, 50, 25], None),
    ("50 Mpc", None), ("large", None), ([], None),
])  # fmt: skip
def test_a_box_is_written_as_number_vector_or_text(value, box):
    assert read_length(value) == pytest.approx(box) if box else read_length(value) is None


@pytest.mark.parametrize("place", ["/", "rho", "Header", "Parameters", "a data set"])
@pytest.mark.parametrize("name", ["box_size", "BoxSize", "Lbox", "L_box", "box_length"])
def test_a_box_is_found_in_many_places(tmp_path, place, name):
    path = write_hdf5(tmp_path / "cubes.hdf5", "rho", Y)
    with h5py.File(path, "a") as file:
        if place == "a data set":
            file[name] = [50.0, 50.0, 50.0]
        else:
            (file[place] if place in ("/", "rho") else file.create_group(place)).attrs[name] = "50 Mpc/h"
    assert open_cubes(path).box_size == 50


def test_a_box_that_is_not_understood_is_said_and_can_be_given(tmp_path):
    path = write_hdf5(tmp_path / "cubes.hdf5", "rho", Y)
    with h5py.File(path, "a") as file:
        file.attrs["BoxSize"] = "50 Mpc"
    with pytest.warns(UserWarning, match=r"no box size found .* 8 Mpc/h assumed .*; pass box_size="):
        open_cubes(path)
    assert opened(path, box_size=35).box_size == 35


@quiet
@pytest.mark.parametrize("name", ["sim_{}/density", "{}", "cube_{}", "LH/{}/rho"])
def test_a_group_or_data_set_for_each_simulation_is_a_suite(tmp_path, name):
    numbers = [2, 9, 10]
    with h5py.File(tmp_path / "cubes.h5", "w") as file:
        for i, y in zip(numbers, Y, strict=True):
            file[name.format(i)] = y
            file[name.format(i)].attrs["Omega_m"] = i / 20
            file[name.format(i)].attrs["mass"] = "heavy"
    suite = open_cubes(tmp_path / "cubes.h5")
    same_cubes(suite, Y)
    assert suite.params["Omega_m"].tolist() == [0.1, 0.45, 0.5] and "10" in suite.cube_id(2)


@quiet
@pytest.mark.parametrize("write", [
    lambda f: f.attrs.update({"Omega0": [0.1, 0.2, 0.3], "s8": np.array([0.7, 0.9, 0.8])}),
    lambda f: f.update({"Omega_m": TRUTH["Omega_m"].to_numpy(), "sigma_8": TRUTH["sigma_8"].to_numpy()}),
    lambda f: f.create_group("Parameters").update({"Om": TRUTH["Omega_m"].array, "s8": TRUTH["sigma_8"].array}),
    lambda f: f.create_dataset("params", data=TRUTH.to_numpy()).attrs.update({"names": ["Omega_m", "sigma_8"]}),
    lambda f: f.create_dataset("labels", data=TRUTH.to_records(index=False)),
])  # fmt: skip
def test_parameters_are_read_from_inside_an_hdf5_file(tmp_path, write):
    path = write_hdf5(tmp_path / "cubes.hdf5", "rho", Y)
    with h5py.File(path, "a") as file:
        write(file)
    pd.testing.assert_frame_equal(open_cubes(path).params, TRUTH)


@quiet
def test_parameters_are_read_from_attributes_of_a_file_for_each_cube(tmp_path):
    for i, y in enumerate(Y):
        with h5py.File(write_hdf5(tmp_path / f"c{i}.h5", "rho", y), "a") as file:
            file.create_group("Header").attrs.update(TRUTH.iloc[i].to_dict())
    pd.testing.assert_frame_equal(open_cubes(tmp_path).params, TRUTH)


@quiet
def test_a_header_in_the_group_of_each_simulation_is_read(tmp_path):
    with h5py.File(tmp_path / "cubes.h5", "w") as file:
        for i, y in enumerate(Y):
            file[f"sim_{i}/rho"] = y
            header = {"BoxSize": 50.0, "Omega0": TRUTH["Omega_m"][i], "sigma8": TRUTH["sigma_8"][i]}
            file.create_group(f"sim_{i}/Header").attrs.update(header)
    suite = open_cubes(tmp_path / "cubes.h5")
    same_cubes(suite, Y)
    assert suite.box_size == 50 and suite.params.equals(TRUTH)


def test_a_file_locked_by_its_writer_is_not_called_damaged(tmp_path):
    path = write_hdf5(tmp_path / "cubes.hdf5", "rho", Y)
    writer = f"import h5py, sys; f = h5py.File({str(path)!r}, 'a'); print('open', flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", writer], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        try:
            with pytest.raises(CubesError, match=r"another process is writing .*; expected a closed file; wait"):
                open_hdf5(path)
        finally:
            process.communicate()
    same_cubes(opened(path), Y)


def test_a_missing_filter_is_named(tmp_path):
    if h5py.h5z.filter_avail(32004):
        pytest.skip("this machine has the filter")
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_chunk((1, 8, 8, 8))
    properties.set_filter(32004, h5py.h5z.FLAG_OPTIONAL)  # LZ4
    with h5py.File(tmp_path / "cubes.hdf5", "w") as file:
        space = h5py.h5s.create_simple(Y.shape)
        dataset = h5py.h5d.create(file.id, b"rho", h5py.h5t.IEEE_F32LE, space, properties)
        dataset.write_direct_chunk((0, 0, 0, 0), b"packed", 0)
    with pytest.raises(CubesError, match=r"compressed by a filter that is missing .*; expected one .*; install it"):
        open_cubes(tmp_path / "cubes.hdf5", box_size=8)


# --- numbers that are not what they are taken for ----------------------------------------------------------------

DISGUISES = {
    "ln(1 + rho)": np.log1p, "log10(1 + rho)": lambda y: np.log10(1 + y),
    "ln(1 + rho) of counts": lambda y: np.log1p(np.rint(20 * y)), "log10 M": lambda y: np.log10(y * 7e10),
    "ln rho": lambda y: np.log(y * 1e10), "scaled to 0, 1": lambda y: (np.log(y) - np.log(y).min()) / np.ptp(np.log(y)),
    "scaled to -1, 1": lambda y: 2 * (np.log(y) - np.log(y).min()) / np.ptp(np.log(y)) - 1,
    "ln rho from its minimum": lambda y: np.log(y / y.min()),
    "0 to 65535": lambda y: np.rint(65535 * (np.log(y) - np.log(y).min()) / np.ptp(np.log(y))),
    "picture": lambda y: np.rint(255 * (np.log(y) - np.log(y).min()) / np.ptp(np.log(y))).astype("u1"),
}  # fmt: skip


@pytest.mark.parametrize("name", DISGUISES)
@pytest.mark.parametrize("seed", range(3))
def test_logarithms_and_scaled_numbers_are_never_taken_for_a_density_in_silence(tmp_path, name, seed):
    values = DISGUISES[name](lognormal_cubes(2, 16, seed))
    path = write_npy(tmp_path / "cubes.npy", values.astype(values.dtype if values.dtype == "u1" else "f4"))
    try:
        with pytest.warns(UserWarning, match=r"look like|standard deviation|no box"):
            suite = open_cubes(path)
    except CubesError as error:
        assert "logarithms" in str(error) or "field_type" in str(error)
    else:
        assert any("look like" in text or "standard deviation" in text for text in suite.cautions)


@given(st.integers(0, 10**6), st.sampled_from(["density", "delta", "overdensity", "counts"]), st.floats(0.5, 2))
def test_densities_are_not_called_logarithms(seed, kind, contrast):
    y = lognormal_cubes(1, 12, seed) ** contrast
    y /= y.mean()
    values = {"density": 3e9 * y, "delta": y - 1, "overdensity": y, "counts": np.rint(30 * y)}[kind]
    with tempfile.TemporaryDirectory() as folder:
        suite = opened(write_npy(Path(folder) / "cubes.npy", values.astype("f4")), box_size=12)
    assert not [text for text in suite.cautions if "look like" in text or "standard deviation" in text]


# --- the box -----------------------------------------------------------------------------------------------------


@quiet
@pytest.mark.parametrize(("folder", "suite", "set_name", "box"), [
    ("a", "IllustrisTNG", "LH", 25), ("a", "SIMBA", "SB28", 25), ("a", "IllustrisTNG", "SB35", 50),
    ("IllustrisTNG_L50n512", "IllustrisTNG", "CV", 50), ("L50n512", "IllustrisTNG", "1P", 50),
    ("50Mpc", "Astrid", "CV", 50), ("CAMELS_L25n256", "IllustrisTNG", "CV", 25), 
    ("a", "IllustrisTNG_L50n512", "SB35", 50),
    ("a", "Nbody_IllustrisTNG_L50n512", "CV", 50), ("L100n1024", "IllustrisTNG", "CV", 100),
    ("HL50y", "SIMBA", "LH", 25),
])  # fmt: skip
def test_the_box_of_camels_goes_by_names_and_sets(tmp_path, folder, suite, set_name, box):
    assert open_cubes(write_cmd(tmp_path / folder, Y, suite=suite, set_name=set_name)).box_size == box


@quiet
def test_the_parameter_file_of_camels_tells_the_box(tmp_path):
    TRUTH.to_csv(tmp_path / "x.csv")
    path = write_cmd(tmp_path, Y, set_name="CV")
    TRUTH.to_csv(tmp_path / "CosmoAstroSeed_IllustrisTNG_L50n512_CV.txt", sep=" ", index_label="Name")
    suite = open_cubes(path)
    assert suite.box_size == 50 and "CosmoAstroSeed_IllustrisTNG_L50n512_CV.txt" in suite.box_from


@pytest.mark.parametrize("set_name", ["CV", "1P", "ZZ"])
def test_a_box_that_is_guessed_is_said(tmp_path, set_name):
    with pytest.warns(UserWarning, match=r"a box of 25 Mpc/h is assumed .* every k depends on it; pass box_size="):
        suite = open_cubes(write_cmd(tmp_path, Y, set_name=set_name))
    assert "assumed" in suite.box_from and "assumed" in suite.describe()
    assert opened(tmp_path, box_size=50).box_from == opened(tmp_path, box_size=25).box_from == "as given"
    assert not [text for text in opened(tmp_path, box_size=50).cautions if "is assumed" in text]


def test_a_suite_of_other_settings_opens_as_it_is(tmp_path):
    write_cmd(tmp_path, Y, suite="JaxPM", scale=1)
    settings = {"settings": {"box_size": 400.0, "side": 8, "seed": 99, "n_steps": 3}, "done": [0, 1, 2]}
    (tmp_path / "simulation_LH_8.json").write_text(json.dumps(settings))
    suite = open_cubes(tmp_path)
    assert (suite.box_size, suite.n_cubes, suite.box_from) == (400.0, 3, "from simulation_LH_8.json")


def test_no_advice_needs_an_option_that_the_command_line_lacks():
    root = Path(__file__).resolve().parents[1] / "uvae_lib"
    text = "".join(path.read_text() for path in [*root.glob("readers/*.py"), root / "cubes.py"])
    flags = {name.replace("-", "_") for name in re.findall(r"--data\.([a-z-]+)", text)}
    assert flags <= {field.name for field in fields(DataConfig)}
