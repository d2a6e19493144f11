"""What files do not say, the user says once: kinds of cubes that were read wrongly, each refused with a sentence that
helps, or read rightly. A case builds something under a folder and returns a path with options of `open_cubes`."""

import subprocess
import sys
import warnings

import h5py
import numpy as np
import pandas as pd
import pytest
from brought import SAID, lognormal_cubes, snapshots, write_cmd, write_folder, write_hdf5, write_npy, write_quijote

from uvae_lib.cubes.suite import CubesError, open_cubes

Y = lognormal_cubes().astype("f4")
N, SIDE = Y.shape[:2]
TRUTH = pd.DataFrame({"Omega_m": [0.15, 0.25, 0.35, 0.45], "sigma_8": [0.7, 0.9, 0.8, 0.65]})
CASES = []


def case(kind, name, expected):
    """Register a case: expected is a pattern of the sentence, or what a suite has to be like."""

    def register(build):
        CASES.append(pytest.param(build, expected, id=f"{kind}: {name}"))
        return build

    return register


def opened(path, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return open_cubes(path, **options)


def cubes(*chosen):
    """The suite holds these cubes of Y, in this order."""

    def check(suite):
        assert suite.n_cubes == len(chosen)
        for i, j in enumerate(chosen):
            np.testing.assert_allclose(suite.overdensity(i), Y[j] / Y[j].mean(), rtol=1e-4, atol=1e-6)

    return check


def box(value):
    def check(suite):
        assert suite.box_size == pytest.approx(value)

    return check


def rows(suite):
    """Every cube has its own row."""
    pd.testing.assert_frame_equal(suite.params[["Omega_m", "sigma_8"]], TRUTH)
    assert suite.params.shape[1] == 2
    cubes(*range(N))(suite)


# --- snapshots, fields and parts are no universes --------------------------------------------------------------------

SNAPSHOTS = "snapshots"


def told(p, names=("cube_0", "cube_1"), **attributes):
    """A file for each cube, with these values of attributes."""
    for i, name in enumerate(names):
        write_hdf5(p / f"{name}.h5", {"rho": Y[i]}, **{key: values[i] for key, values in attributes.items()})
    return p


for name, values in {
    "Header:Redshift": (0.0, 2.0), "current_redshift": (0.0, 2.0), "Header:Time": (1.0, 0.5),
    "Cosmology:Scale-factor": ([1.0], [0.5]), "aexp": (1.0, 0.5), "a": (1.0, 0.5), "ExpansionFactor": (1.0, 0.5),
    "snapnum": (99, 50), "z_snap": (0.0, 2.0),
}.items():  # fmt: skip

    @case(SNAPSHOTS, f"told by {name}", "redshift= one of ")
    def _(p, name=name, values=values):
        return told(p, CosmologyCurrentRedshift=(1.0, 1.0), **{name: values}), SAID


for names in ("rhoZ0 rhoZ2", "DD0046 DD0020", "RD0001 RD0002", "plt00050 plt00100", "aexp_0.5 aexp_1.0",
              "run.00100 run.00050", "t=13.8 t=3.3"):  # fmt: skip

    @case(SNAPSHOTS, f"names {names}", "redshift= one of ")
    def _(p, names=names):
        return write_folder(p, dict(zip(names.split(), Y, strict=False))), SAID


@case(SNAPSHOTS, "a data set that tells the redshift", "redshift= one of 0.0, 2.0")
def _(p):
    for i in (0, 1):
        write_hdf5(p / f"cube_{i}.h5", {"rho": Y[i], "redshift": 2.0 * i})
    return p, SAID


@case(SNAPSHOTS, "initial redshifts that differ", lambda suite: suite.redshift == 0 and suite.n_cubes == 2)
def _(p):
    return told(p, InitialRedshift=(99.0, 100.0), Redshift=(0.0, 1e-16)), SAID | {"params": "none"}


@case(SNAPSHOTS, "times of universes at one redshift", lambda suite: suite.redshift == 0.5)
def _(p):
    return told(p, Redshift=(0.5, 0.5), Time=(8.1, 8.6), written=("2024", "2025")), SAID


@case(SNAPSHOTS, "a redshift that contradicts the headers", "found redshift 3.0; expected one, 0.0 if told")
def _(p):
    return told(p, Redshift=(3.0, 3.0)), SAID | {"redshift": 0.0}


@case(SNAPSHOTS, "a redshift that contradicts the names", "found redshift 3; expected one, 0 if told")
def _(p):
    return write_folder(p, {f"LH_{i}_z=3": Y[i] for i in (0, 1)}), SAID | {"redshift": 0}


for options in ({}, {"redshift": 3}, {"field": "*"}):

    @case(SNAPSHOTS, f"the redshift of names is that of the suite {options}", lambda suite: suite.redshift == 3)
    def _(p, options=options):
        return write_folder(p, {f"LH_{i}_z=3": Y[i] for i in (0, 1)}), SAID | options


@case(SNAPSHOTS, "groups beside that tell several redshifts", "found redshift 0.0 or 2.0")
def _(p):
    about = {f"meta_{i}:Redshift": 2.0 * i for i in (0, 1)}
    return write_hdf5(p / "a.h5", {"sim_0": Y[0], "sim_1": Y[1]}, **about), SAID


for field in ("Mcdm_#.npy", "Mcdm_#"):

    @case(SNAPSHOTS, f"one field as it was offered: {field}", cubes(0, 1))
    def _(p, field=field):
        names = {f"{name}_{i}": Y[i + 2 * (name != "Mcdm")] for name in ("Mcdm", "Mcdm_10_gas") for i in (0, 1)}
        return write_folder(p, names), SAID | {"field": field}


for names in ("cube_L350_0 cube_L350_1 cube_L70_0", "box70_0 box350_0", "c_70Mpc c_350Mpc"):

    @case(SNAPSHOTS, f"boxes in names: {names}", "field= one of .*70.*350|field= one of .*350.*70")
    def _(p, names=names):
        return write_folder(p, dict(zip(names.split(), Y, strict=False))), SAID


@case(SNAPSHOTS, "boxes that are numbered", cubes(0, 1))
def _(p):
    return write_folder(p, {"128_box_0": Y[0], "128_box_1": Y[1]}), SAID


@case(SNAPSHOTS, "groups called by scale factors", "redshift= one of 0.500000, 1.000000")
def _(p):
    return write_hdf5(p / "a.h5", {"0.500000/rho": Y[0] ** 0.5, "1.000000/rho": Y[0]}), SAID


@case(SNAPSHOTS, "one of the groups is chosen", cubes(0))
def _(p):
    return write_hdf5(p / "a.h5", {"0.500000/rho": Y[1], "1.000000/rho": Y[0]}), SAID | {"redshift": 1}


@case(SNAPSHOTS, "files called by redshift", "redshift= one of 0.0, 1.0")
def _(p):
    a, b = snapshots(Y[0])
    return write_folder(p / "f", {"LH_0_z=0.0": a, "LH_0_z=1.0": b, "LH_1_z=0.0": Y[1], "LH_1_z=1.0": Y[2]}), SAID


@case(SNAPSHOTS, "files of one redshift are chosen", cubes(0, 1))
def _(p):
    names = {"LH_0_z=0.0": Y[0], "LH_0_z=1.0": Y[2], "LH_1_z=0.0": Y[1], "LH_1_z=1.0": Y[3]}
    return write_folder(p / "f", names), SAID | {"redshift": 0.0}


@case(SNAPSHOTS, "data sets called by redshift", "redshift= one of 0, 1")
def _(p):
    return write_hdf5(p / "a.h5", {"delta_z0": Y[0] - 1, "delta_z1": Y[1] - 1}), SAID | {"field_type": "delta"}


@case(SNAPSHOTS, "numbered snapshots with a header", "redshift= one of 000, 001")
def _(p):
    for i, y in enumerate(snapshots(Y[0])):
        write_hdf5(p / f"snap_00{i}.hdf5", {"rho": y}, **{"Header:Redshift": float(i)})
    return p, SAID


@case(SNAPSHOTS, "redshifts in headers alone", "redshift= one of 0.0, 3.0")
def _(p):
    for i in (0, 1):
        write_hdf5(p / f"cube_{i}.hdf5", {"rho": Y[i]}, **{"Header:Redshift": 3.0 * i})
    return p, SAID


@case(SNAPSHOTS, "a folder for each redshift", "redshift= one of 0, 2")
def _(p):
    return write_folder(p, {"z=0/cube_0": Y[0], "z=2/cube_0": Y[1]}), SAID


@case(SNAPSHOTS, "files called by scale factor", "redshift= one of 0.5, 1.0")
def _(p):
    return write_folder(p, {"rho_a0.5": Y[0], "rho_a1.0": Y[1]}), SAID


@case(SNAPSHOTS, "outputs of a code", "redshift= one of 00001, 00002")
def _(p):
    return write_folder(p, {"output_00001/rho": Y[0], "output_00002/rho": Y[1]}), SAID


@case(SNAPSHOTS, "fields in one folder", 'field= one of "Mcdm_#.npy", "Mgas_#.npy"')
def _(p):
    return write_folder(p, {f"{field}_{i}": Y[i] for field in ("Mcdm", "Mgas") for i in (0, 1)}), SAID


@case(SNAPSHOTS, "one field of a folder", cubes(0, 1))
def _(p):
    fields = {f"{field}_{i}": Y[i + 2 * (field == "Mgas")] for field in ("Mcdm", "Mgas") for i in (0, 1)}
    return write_folder(p, fields), SAID | {"field": "Mcdm_*"}


@case(SNAPSHOTS, "two data sets of a file", 'field= one of "dark", "gas"')
def _(p):
    return write_hdf5(p / "a.h5", {"dark": Y[0], "gas": Y[1]}), SAID


@case(SNAPSHOTS, "two data sets in each of many files", 'field= one of "c#.h5/dark", "c#.h5/gas"')
def _(p):
    for i in (0, 1):
        write_hdf5(p / f"c{i}.h5", {"dark": Y[i], "gas": Y[i + 2]})
    return p, SAID


@case(SNAPSHOTS, "one data set in each of many files", cubes(0, 1))
def _(p):
    for i in (0, 1):
        write_hdf5(p / f"c{i}.h5", {"dark": Y[i], "gas": Y[i + 2]})
    return p, SAID | {"field": "dark"}


@case(SNAPSHOTS, "train and test in one folder", "set_name= one of test, train")
def _(p):
    return write_folder(p, {"train": Y[:3], "test": Y[3:]}), SAID


@case(SNAPSHOTS, "folders of train and test", "set_name= one of test, train")
def _(p):
    return write_folder(p, {"train/cube_0": Y[0], "test/cube_0": Y[1]}), SAID


@case(SNAPSHOTS, "the training part is chosen", cubes(0, 1, 2))
def _(p):
    return write_folder(p, {"train": Y[:3], "test": Y[3:]}), SAID | {"set_name": "train"}


@case(SNAPSHOTS, "groups of train and validation", "set_name= one of train, valid")
def _(p):
    return write_hdf5(p / "a.h5", {"train/rho": Y[:3], "valid/rho": Y[3:]}), SAID


@case(SNAPSHOTS, "names of words", 'or field="\\*" when each is a universe of its own')
def _(p):
    return write_folder(p, {"alice": Y[0], "bob": Y[1]}), SAID


@case(SNAPSHOTS, "names of words that are universes", cubes(0, 1))
def _(p):
    return write_folder(p, {"alice": Y[0], "bob": Y[1]}), SAID | {"field": "*"}


@case(
    SNAPSHOTS,
    "snapshots behind neutral names",
    r"same largest modes .*r = 0.9.*one universe .*allow_same_universe=True",
)
def _(p):
    return write_folder(p, {f"cube_{i}": y for i, y in enumerate([*snapshots(Y[0]), Y[1]])}), SAID


@case(SNAPSHOTS, "snapshots in one stack", "same largest modes")
def _(p):
    return write_npy(p / "cubes.npy", np.stack(snapshots(Y[0], 3))), SAID


@case(SNAPSHOTS, "a copy among the cubes", r"c/1 and .*c/3: r = 1.00")
def _(p):
    return write_npy(p / "c.npy", Y[[0, 1, 2, 1]]), SAID


@case(
    SNAPSHOTS, "snapshots that are told", lambda suite: suite.universes[0] == suite.universes[1] != suite.universes[2]
)
def _(p):
    return write_npy(p / "c.npy", np.stack([*snapshots(Y[0]), Y[1]])), SAID | {"allow_same_universe": True}


# --- the box ---------------------------------------------------------------------------------------------------------

BOX = "box"
DENSITY = {"field_type": "density"}


@case(BOX, "a number without a unit is a proposal", r"BOX_LEN = 25.0.*expected box_size= \[Mpc/h\]")
def _(p):
    return write_hdf5(p / "a.h5", {"rho": Y}, BOX_LEN=25.0), DENSITY


@case(BOX, "a unit in another attribute is listed", r"UnitLength_in_cm = 3.08\d*e\+21.*expected box_size=")
def _(p):
    return write_hdf5(
        p / "a.h5", {"rho": Y}, **{"Header:BoxSize": 2500.0, "Header:UnitLength_in_cm": 3.085678e21}
    ), DENSITY


@case(BOX, "Mpc without h", "BoxSize = 35 Mpc.*expected box_size=")
def _(p):
    return write_hdf5(p / "a.h5", {"rho": Y}, BoxSize="35 Mpc"), DENSITY


@case(BOX, "three sides that differ", r"BoxSize = \[500.0, 500.0, 250.0\].*as long as wide")
def _(p):
    return write_hdf5(p / "a.h5", {"rho": Y}, BoxSize=[500.0, 500.0, 250.0]), SAID


for text, size in [("500 Mpc h^-1", 500), ("500 h^-1 Mpc", 500), ("25000 kpc/h", 25), ("0.5 Gpc/h", 500),
                   ("5e2 Mpccm/h", 500), ("[50. 50. 50.] Mpc/h", 50), (b"50 cMpc/h", 50)]:  # fmt: skip

    @case(BOX, f"a unit is read: {text!r}", box(size))
    def _(p, text=text):
        return write_hdf5(p / "a.h5", {"rho": Y}, **{"Header:BoxSize": text}), DENSITY


@case(BOX, "a unit beside the number", box(50))
def _(p):
    return write_hdf5(p / "a.h5", {"rho": Y}, BoxSize=50.0, BoxSize_units="Mpc/h"), DENSITY


@case(BOX, "groups beside that tell several boxes", "BoxSize = 64 Mpc/h or 128 Mpc/h.*expected box_size=")
def _(p):
    about = {f"meta_{i}:BoxSize": f"{64 * (i + 1)} Mpc/h" for i in (0, 1)}
    return write_hdf5(p / "a.h5", {"sim_0": Y[0], "sim_1": Y[1]}, **about), DENSITY


for text in ("128,0 Mpc/h", "1-128 Mpc/h", "128 +- 2 Mpc/h"):

    @case(BOX, f"a text that is no length: {text}", r"expected box_size= \[Mpc/h\]")
    def _(p, text=text):
        return write_hdf5(p / "a.h5", {"rho": Y}, BoxSize=text), DENSITY


@case(BOX, "a number beside that contradicts", "BoxSize = 128.0.*expected box_size=")
def _(p):
    return write_hdf5(p / "a.h5", {"rho": Y}, BoxSize=128.0, **{"Header:BoxSize": "200 Mpc/h"}), DENSITY


@case(BOX, "a number beside that agrees", box(128))
def _(p):
    return write_hdf5(p / "a.h5", {"rho": Y}, BoxSize=128000.0, **{"Header:BoxSize": "128 Mpc/h"}), DENSITY


for text in ("0 Mpc/h", "-128 Mpc/h"):

    @case(BOX, f"a text that is no box: {text}", "found a box size of -?[0-9.]+; expected a positive number")
    def _(p, text=text):
        return write_hdf5(p / "a.h5", {"rho": Y}, BoxSize=text), DENSITY


@case(BOX, "files of several boxes", "found boxes of .*expected one box size")
def _(p):
    for i in (0, 1):
        write_hdf5(p / f"c{i}.h5", {"rho": Y[i]}, BoxSize=f"{50 * (i + 1)} Mpc/h")
    return p, DENSITY


for folder in ("smoothed_2Mpc", "dx=0.5Mpc", "Mpc5", "L2", "box_50"):

    @case(BOX, f"CAMELS in a folder {folder}", box(25))
    def _(p, folder=folder):
        return write_cmd(p / folder, Y), {}


for folder, suite in (("IllustrisTNG_L50n512", "IllustrisTNG"), ("a", "IllustrisTNG_L50n512")):

    @case(BOX, f"CAMELS of 50 Mpc/h as it is called: {folder}, {suite}", box(50))
    def _(p, folder=folder, suite=suite):
        return write_cmd(p / folder, Y, suite=suite, set_name="CV"), {}


@case(BOX, "names like those of CAMELS, of another suite", "expected box_size=.*; field_type=")
def _(p):
    return write_cmd(p, Y, suite="MySim"), {}


@case(BOX, "names like those of Quijote, of another cosmology", "expected box_size=.*; field_type=")
def _(p):
    return write_quijote(p / "mine", Y, range(N)), {}


@case(BOX, "our own cubes without their record", "expected box_size=")
def _(p):
    return write_cmd(p, Y, suite="JaxPM"), {}


@case(BOX, "an argument with a unit", box(50))
def _(p):
    return write_npy(p / "c.npy", Y), DENSITY | {"box_size": "50 Mpc/h"}


for given in ("25 Mpc", -25, float("nan"), "large"):

    @case(BOX, f"an argument that is none: {given!r}", r"found a box size of .*expected a positive number; .*times h")
    def _(p, given=given):
        return write_npy(p / "c.npy", Y), DENSITY | {"box_size": given}


# --- rows ------------------------------------------------------------------------------------------------------------

ROWS = "rows"
SHUFFLED = TRUTH.assign(id=[0.0, 1.0, 2.0, 3.0]).iloc[[2, 0, 3, 1]][["id", "Omega_m", "sigma_8"]]


def stack(p, table, name="params.txt"):
    """All cubes in one file, and a table beside it."""
    (p / name).write_text(table)
    return write_npy(p / "c.npy", Y), SAID | {"params": str(p / name)}


def files(p, table, name="params.csv"):
    """A file for each cube, and a table beside them."""
    (p / name).write_text(table)
    return write_folder(p, {f"cube_{i:03}": y for i, y in enumerate(Y)}), SAID | {"params": name}


@case(ROWS, "shuffled rows with a float id", rows)
def _(p):
    np.savetxt(p / "t.txt", SHUFFLED.to_numpy(), header="id Omega_m sigma_8")
    return stack(p, (p / "t.txt").read_text())


@case(ROWS, "shuffled rows, ids and no names", "found 3 columns without names")
def _(p):
    np.savetxt(p / "t.txt", SHUFFLED.to_numpy())
    return stack(p, (p / "t.txt").read_text())


@case(ROWS, "shuffled rows of files", rows)
def _(p):
    return files(p, SHUFFLED.to_csv(index=False))


@case(ROWS, "ids that are names of files", rows)
def _(p):
    table = TRUTH.assign(file=[f"cube_{i:03}.npy" for i in range(N)])
    return files(p, table.iloc[::-1].to_csv(index=False))


@case(
    ROWS,
    "a table without ids beside files",
    r"no id column: 0.15 0.7; .* for 4 cubes \(cube_000, cube_001, .*add a column id",
)
def _(p):
    return files(p, TRUTH.to_csv(index=False))


@case(ROWS, "a stack and as many rows", rows)
def _(p):
    return stack(p, TRUTH.to_csv(index=False, sep=" "))


@case(ROWS, "an index as pandas writes it", rows)
def _(p):
    return stack(p, TRUTH.to_csv())


@case(ROWS, "a shuffled index", rows)
def _(p):
    return stack(p, TRUTH.sample(frac=1, random_state=1).to_csv())


@case(ROWS, "a shuffled DataFrame", rows)
def _(p):
    return write_npy(p / "c.npy", Y), SAID | {"params": TRUTH.sample(frac=1, random_state=1)}


@case(ROWS, "a DataFrame called by files", rows)
def _(p):
    table = TRUTH.set_axis([f"cube_{i}" for i in range(N)]).iloc[::-1]
    return write_folder(p, {f"cube_{i}": y for i, y in enumerate(Y)}), SAID | {"params": table}


@case(ROWS, "ids of other cubes", r"column id: 4; 5; 6; 7.* for 4 cubes")
def _(p):
    return stack(p, TRUTH.assign(id=range(4, 8)).to_csv(index=False))


@case(ROWS, "fewer rows than cubes", "3 rows of parameters .* for 4 cubes")
def _(p):
    return stack(p, TRUTH[:3].to_csv(index=False))


@case(ROWS, "more rows than cubes, by their ids", rows)
def _(p):
    more = pd.concat([TRUTH, TRUTH + 0.01], ignore_index=True).assign(id=range(2 * N))
    return files(p, more.iloc[::-1].to_csv(index=False))


for text in ("Omega_m sigma_8\n" + "0,15 0,8\n" * N, "Omega_m;sigma_8\n" + "0,15;0,8\n" * N,
             "Omega_m\tsigma_8\n" + "0,15\t0,8\n" * N):  # fmt: skip

    @case(ROWS, f"decimal commas in {text[:24]!r}", "found decimal commas .*0,15")
    def _(p, text=text):
        return stack(p, text)


@case(
    ROWS,
    "a decimal comma in the only column",
    r"found .*(columns|rows|decimal|1 fields in line 2, saw 2)",
)
def _(p):
    return stack(p, "Omega_m\n" + "0,15\n" * N)


@case(ROWS, "two names for one thing", "found columns Omega_m, Om for Omega_m")
def _(p):
    return stack(p, TRUTH.assign(Om=0.3).to_csv(index=False))


@case(ROWS, "columns without names", "found 2 columns without names")
def _(p):
    return stack(p, TRUTH.to_csv(index=False, header=False))


@case(ROWS, "whole numbers in the last column", "found whole numbers alone in column n")
def _(p):
    return stack(p, TRUTH.assign(n=[5, 8, 1, 9]).to_csv(index=False))


@case(ROWS, "a seed as the only column that varies", lambda suite: list(suite.params) == ["Omega_m"])
def _(p):
    return stack(p, TRUTH[["Omega_m"]].assign(Omega_m=0.3, seed=[5, 8, 1, 9]).to_csv(index=False))


@case(ROWS, "nan in the row of a cube", "found 'nan' in column sigma_8 of cube 2.*leave the cube or the column out")
def _(p):
    return stack(p, "Omega_m sigma_8\n.1 .7\n.2 .8\n.3 nan\n.4 .9\n")


@case(ROWS, "nan in the row of no cube", rows)
def _(p):
    more = pd.concat([TRUTH, TRUTH[:1] * np.nan], ignore_index=True).assign(id=range(N + 1))
    return files(p, more.to_csv(index=False, na_rep="nan"))


@case(ROWS, "words that are no numbers", "found 'high' in column sigma_8")
def _(p):
    return stack(p, "id Omega_m sigma_8\n0 .1 .7\n1 .2 high\n2 .3 .8\n3 .4 .9\n")


@case(ROWS, "two lines of comments that name columns", "one line of names, as many as columns")
def _(p):
    return stack(p, "# Omega_m sigma_8\n# sigma_8 Omega_m\n" + "0.3 0.8\n" * N)


@case(ROWS, "comments in another number than columns", "comments that name sigma_8")
def _(p):
    return stack(p, "# sigma_8 comes first\n# and then the rest\n" + "0.8 0.3\n" * N)


@case(ROWS, "a suite of CAMELS with another order, without names", "found 5 columns without names")
def _(p):
    np.savetxt(p / "params_LH_Ramses.txt", np.random.default_rng(0).random((N, 5)))
    return write_cmd(p, Y, suite="Ramses"), {}


NAMED = TRUTH.assign(sim=["cube_2", "cube_0", "cube_3", "cube_1"])


@case(
    ROWS,
    "a row number beside names",
    lambda suite: suite.params.equals(TRUTH.iloc[[1, 3, 0, 2]].reset_index(drop=True)),
)
def _(p):
    return write_folder(p, {f"cube_{i}": y for i, y in enumerate(Y)}), SAID | {"params": _written(p, NAMED.to_csv())}


def _written(p, text):
    (p / "t.csv").write_text(text)
    return "t.csv"


for name, table in {
    "an index and names": NAMED.set_axis([2, 3, 1, 0]),
    "two columns": NAMED.assign(run=[0, 2, 3, 1]).reset_index(drop=True),
}.items():

    @case(
        ROWS, f"ids that disagree: {name}", r"column (index|run|sim): rows .*; column (index|run|sim): rows .*leave out"
    )
    def _(p, table=table):
        return write_folder(p, {f"cube_{i}": y for i, y in enumerate(Y)}), SAID | {"params": table}


for name in ("", "index", "Unnamed: 0"):

    @case(ROWS, f"a row number alone beside files: {name!r}", "no id column")
    def _(p, name=name):
        return files(p, TRUTH.rename_axis(name).to_csv())


@case(ROWS, "seeds beside a stack", rows)
def _(p):
    return stack(p, TRUTH.assign(seed=[2, 0, 3, 1]).to_csv(index=False))


@case(ROWS, "an index of two levels", rows)
def _(p):
    index = pd.MultiIndex.from_product([["LH"], range(N)], names=["set", "sim"])
    return write_npy(p / "c.npy", Y), SAID | {"params": TRUTH.set_axis(index)}


@case(ROWS, "a table that is no text", r"expected a table as text; write it with to_csv\(index=False\)")
def _(p):
    np.save(p / "t.npy", TRUTH.to_numpy())
    return write_folder(p / "f", {f"cube_{i}": y for i, y in enumerate(Y)}), SAID | {"params": str(p / "t.npy")}


@case(ROWS, "parameters of groups beside the cubes", "found Omega_m = 0.15 or 0.25.*expected one number for each cube")
def _(p):
    about = {f"meta_{i}:Omega_m": TRUTH["Omega_m"][i] for i in range(N)}
    return write_hdf5(p / "a.h5", {f"sim_{i}": y for i, y in enumerate(Y)}, **about), SAID | {"params": "attributes"}


for name, attributes in {
    "is text": {"Omega_m": (0.3, "0.35")},
    "is told twice": {"Header:Omega0": (0.3, 0.3), "Cosmology:Omega_m": (0.3, 0.35)},
}.items():

    @case(ROWS, f"a parameter that {name}", "found Omega_m = 0.3.*expected one number for each cube")
    def _(p, attributes=attributes):
        return told(p, sigma8=(0.8, 0.9), **attributes), SAID | {"params": "attributes"}


@case(ROWS, "a parameter that one cube lacks", "found sigma_8 = nothing; expected one number for each cube")
def _(p):
    write_hdf5(told(p, Omega_m=(0.3, 0.4)) / "cube_0.h5", {}, sigma8=0.8)
    return p, SAID | {"params": "attributes"}


@case(ROWS, "letters at the cube that are no parameters", lambda suite: list(suite.params) == ["Omega_m"])
def _(p):
    told(p, Omega_m=(0.3, 0.4))
    for i in (0, 1):
        with h5py.File(p / f"cube_{i}.h5", "a") as file:
            file["rho"].attrs.update({"h": 2.0 + i, "w": 1.0})
    return p, SAID | {"params": "attributes"}


@case(ROWS, "parameters at each group", rows)
def _(p):
    path = write_hdf5(p / "a.h5", {f"sim_{i}/rho": y for i, y in enumerate(Y)})
    with h5py.File(path, "a") as file:
        for i in range(N):
            file[f"sim_{i}"].attrs.update({"Omega0": TRUTH["Omega_m"][i], "sigma8": TRUTH["sigma_8"][i]})
    return path, SAID | {"params": "attributes"}


@case(ROWS, "parameters in attributes are asked for", r'expected params= "attributes" or "none"')
def _(p):
    return write_hdf5(p / "a.h5", {"rho": Y[0]}, Omega_m=0.3), SAID


@case(ROWS, "a table beside the cubes is asked for", r'expected params= "labels.csv" or "none"')
def _(p):
    path, _ = stack(p, TRUTH.to_csv(index=False), "labels.csv")
    return path, SAID


@case(ROWS, "Quijote's rows follow the folders", lambda suite: suite.params["Omega_m"].tolist() == [0.02, 0.05, 0.11])
def _(p):
    np.savetxt(p / "latin_hypercube_params.txt", np.arange(12)[:, None] / 100 * np.ones(5))
    return write_quijote(p / "latin_hypercube", Y[:3], [11, 5, 2]).parent, {}


# --- files -----------------------------------------------------------------------------------------------------------

FILES = "files"


@case(FILES, "packed integers", cubes(0))
def _(p):
    path = p / "a.h5"
    with h5py.File(path, "w") as file:
        packed = np.rint((Y[0] - 5) / 1e-3).astype("i2")
        file.create_dataset("rho", data=packed).attrs.update({"scale_factor": 1e-3, "add_offset": 5.0})
        Y[0] = packed * 1e-3 + 5  # the numbers that were written
    return path, SAID


@case(FILES, "a scale factor of cosmology beside real numbers", cubes(0))
def _(p):
    path = write_hdf5(p / "a.h5", {"rho": Y[0] - 1})
    with h5py.File(path, "a") as file:
        file["rho"].attrs["scale_factor"] = 0.5
    return path, BOXED | {"field_type": "delta"}


@case(FILES, "a pickle among the attributes", "unit_registry = 5 bytes")
def _(p):
    return write_hdf5(p / "a.h5", {"rho": Y[0]}, unit_registry=np.void(b"\x80\x04abc")), {}


@case(FILES, "a fill value", "1 NaN")
def _(p):
    values = Y[0].copy()
    values[1, 2, 3] = 1e20
    path = write_hdf5(p / "a.h5", {"rho": values})
    with h5py.File(path, "a") as file:
        file["rho"].attrs["_FillValue"] = np.float32(1e20)
    return path, SAID


@case(FILES, "a link that leads nowhere in a folder", "cube_1.npy: found a link to .*gone.npy, which does not exist")
def _(p):
    write_folder(p, {"cube_0": Y[0]})
    (p / "cube_1.npy").symlink_to(p / "gone.npy")
    return p, SAID


@case(FILES, "an external link", cubes(0, 1))
def _(p):
    write_hdf5(p / "far" / ".." / "far.h5" if False else p / "far.h5", {"rho": Y[1]})
    path = write_hdf5(p / "a.h5", {"sim_0": Y[0]})
    with h5py.File(path, "a") as file:
        file["sim_1"] = h5py.ExternalLink("far.h5", "/rho")
    return path, SAID


@case(FILES, "a soft link", cubes(0))
def _(p):
    path = write_hdf5(p / "a.h5", {"deep/inside": Y[0]})
    with h5py.File(path, "a") as file:
        file["cube"] = h5py.SoftLink("/deep/inside")
    return path, SAID


@case(FILES, "links in a circle", cubes(0))
def _(p):
    path = write_hdf5(p / "a.h5", {"deep/inside": Y[0]})
    with h5py.File(path, "a") as file:
        file["deep/up"] = h5py.SoftLink("/deep")
    return path, SAID


for link in (h5py.SoftLink("/nothing"), h5py.ExternalLink("gone.h5", "/rho")):

    @case(FILES, f"a {type(link).__name__} that leads nowhere", "sim_1, a link to .*, which leads nowhere")
    def _(p, link=link):
        path = write_hdf5(p / "a.h5", {"sim_0": Y[0]})
        with h5py.File(path, "a") as file:
            file["sim_1"] = link
        return path, SAID


@case(FILES, "a virtual data set without a source", "no rho in .*part.h5, a source of cube")
def _(p):
    layout = h5py.VirtualLayout((2 * SIDE,) * 3, "f4")
    layout[:SIDE, :SIDE, :SIDE] = h5py.VirtualSource("part.h5", "rho", Y[0].shape)
    with h5py.File(p / "a.h5", "w", libver="latest") as file:
        file.create_virtual_dataset("cube", layout)
    return p / "a.h5", SAID


@case(FILES, "chunks that were never written", "2 of 4 chunks of cubes")
def _(p):
    with h5py.File(p / "a.h5", "w") as file:
        data = file.create_dataset("cubes", Y.shape, "f4", chunks=(1, SIDE, SIDE, SIDE))
        data[:2] = Y[:2]
    return p / "a.h5", SAID


@case(FILES, "a data set that was never written", "no written value of cubes")
def _(p):
    with h5py.File(p / "a.h5", "w") as file:
        file.create_dataset("cubes", Y.shape, "f4")
    return p / "a.h5", SAID


@pytest.mark.parametrize("axis", range(3))
def test_planes_without_structure_are_refused(tmp_path, axis):
    y = Y[1].copy()
    y[(slice(None),) * axis + (5,)] = 0
    with pytest.raises(CubesError, match=r"1 planes without structure.*a cube that is whole"):
        opened(write_npy(tmp_path / "c.npy", y), **SAID)


@case(FILES, "cubes along the last axis", r"of cubes, fields or times at last \[..., 0\]")
def _(p):
    return write_npy(p / "c.npy", np.moveaxis(Y, 0, -1)), SAID


for shape in [(-1,), (N, -1)]:

    @case(FILES, f"a flat cube {shape}", r"flat ones by .reshape\(-1, N, N, N\)")
    def _(p, shape=shape):
        return write_npy(p / "c.npy", (Y[0] if len(shape) == 1 else Y).reshape(shape)), SAID


for shape in [(N, 1, SIDE, SIDE, SIDE), (N, SIDE, SIDE, SIDE, 1), (1, N, SIDE, SIDE, SIDE)]:

    @case(FILES, f"axes of length one {shape}", cubes(*range(N)))
    def _(p, shape=shape):
        return write_npy(p / "c.npy", Y.reshape(shape)), SAID

    @case(FILES, f"axes of length one in HDF5 {shape}", cubes(*range(N)))
    def _(p, shape=shape):
        return write_hdf5(p / "c.h5", {"rho": Y.reshape(shape)}), SAID


@case(FILES, "two channels", r"\(2, 2, 16, 16, 16\).*cut or reshape")
def _(p):
    return write_npy(p / "c.npy", Y.reshape(2, 2, SIDE, SIDE, SIDE)), SAID


@case(FILES, "a writer that crashed", "open for write.*expected a closed file; .*h5clear -s")
def _(p):
    code = f"""
import h5py, numpy, os
file = h5py.File({str(p / "a.h5")!r}, "w", libver="latest")
file.create_dataset("rho", data=numpy.ones((8, 8, 8)), chunks=(8, 8, 8), maxshape=(None, 8, 8))
file.swmr_mode = True
file.flush()
os._exit(1)"""
    subprocess.run([sys.executable, "-c", code], check=False)
    return p / "a.h5", SAID


@case(FILES, "a pattern of names", "of a pattern give the folder")
def _(p):
    return write_folder(p, {"cube_0": Y[0]}) / "cube_*.npy", SAID


@case(FILES, "an archive", r'an archive of rho; .* once run np.save\("cubes.npy", np.load\(.c.npz.\)\[.rho.\]\)')
def _(p):
    np.savez(p / "c.npz", rho=Y)
    return p / "c.npz", SAID


@case(FILES, "cubes of several sizes", "cubes of several sizes: side 8 .*, side 16")
def _(p):
    return write_folder(p, {"cube_0": Y[0], "cube_1": Y[1, :8, :8, :8]}), SAID


@case(FILES, "a catalogue beside the cubes", lambda suite: "halos.npy, not opened" in suite.cautions[0])
def _(p):
    return write_folder(p, {"cube_0": Y[0], "cube_1": Y[1], "halos": np.ones((5, 3))}), SAID


# --- numbers ---------------------------------------------------------------------------------------------------------

NUMBERS = "numbers"
BOXED = {"box_size": 50.0}


@case(
    NUMBERS,
    "a root of a density is not taken for one",
    "minimum .*, mean .*expected field_type= density .positive, linear",
)
def _(p):
    return write_npy(p / "c.npy", np.sqrt(Y)), BOXED


@case(NUMBERS, "a delta as density", r"never negative.*pass field_type=")
def _(p):
    return write_npy(p / "c.npy", Y - 1), SAID


@case(NUMBERS, "an overdensity as delta", "found a mean of 2 of 1 . delta")
def _(p):
    return write_npy(p / "c.npy", Y), BOXED | {"field_type": "delta"}


@case(NUMBERS, "a density as overdensity", "found a mean of 7e.09 of overdensity")
def _(p):
    return write_npy(p / "c.npy", Y * 7e9), BOXED | {"field_type": "overdensity"}


@case(NUMBERS, "a field type that nobody knows", "expected one of density, delta")
def _(p):
    return write_npy(p / "c.npy", Y), BOXED | {"field_type": "Density"}


for name, inverse in {
    "log10 M": lambda y: np.log10(7e10 * y),
    "ln(1 + rho)": np.log1p,
    "scaled": lambda y: np.log(y / y.min()),
    "scaled counts": lambda y: np.log1p(np.round(20 * y)) / 5,
}.items():

    @case(NUMBERS, f"{name} as density", lambda suite: "look like logarithms" in suite.cautions[0])
    def _(p, inverse=inverse):
        return write_npy(p / "c.npy", inverse(Y)), SAID


for factor, kind in ((1e10, "density"), (1, "overdensity"), (20, "counts")):

    @case(NUMBERS, f"{kind} is read", cubes(0, 1, 2, 3))
    def _(p, factor=factor, kind=kind):
        return write_npy(p / "c.npy", factor * Y), BOXED | {"field_type": kind}


@case(NUMBERS, "delta is read", cubes(0, 1, 2, 3))
def _(p):
    return write_npy(p / "c.npy", Y - 1), BOXED | {"field_type": "delta"}


@case(NUMBERS, "maps cut from larger planes", lambda suite: "not look periodic along axis 1" in "".join(suite.cautions))
def _(p):
    large = lognormal_cubes(1, 64, seed=3)[0, :30, :32, :32]
    return write_npy(p / "Maps_Mcdm_IllustrisTNG_LH_z=0.00.npy", large.astype("f4")), {}


@case(NUMBERS, "redshift space is asked for its line of sight", "expected line_of_sight= 0, 1, 2")
def _(p):
    return write_hdf5(p / "a.h5", {"rho_rsd": Y}), SAID


@case(NUMBERS, "redshift space is cut across its line of sight", lambda suite: suite.axes == (2,))
def _(p):
    return write_hdf5(p / "a.h5", {"rho_rsd": Y}), SAID | {"line_of_sight": 2}


@case(NUMBERS, "a name that means nothing", lambda suite: suite.axes == (0, 1, 2))
def _(p):
    return write_hdf5(p / "a.h5", {"rho_no_rsd": Y}), SAID | {"line_of_sight": "none"}


@case(NUMBERS, "redshift space in one of the files", "found no redshift space in cube_0.*rsd = 1 in cube_1")
def _(p):
    write_hdf5(p / "cube_0.h5", {"rho": Y[0]})
    return write_hdf5(p / "cube_1.h5", {"rho": Y[1]}, rsd=1).parent, SAID


@case(NUMBERS, "several lines of sight in headers", "expected one line of sight, 0 if told")
def _(p):
    return told(p, rsd=(0, 2)), SAID | {"line_of_sight": 0}


@case(NUMBERS, "several lines of sight in names", "expected one line of sight, 0 if told")
def _(p):
    return write_folder(p, {"df_rsd0_0": Y[0], "df_rsd2_1": Y[1]}), SAID | {"line_of_sight": 0}


@case(NUMBERS, "another line of sight than the file's", "found RSD_axis = 0 in .*expected one line of sight, 2 if told")
def _(p):
    return told(p, RSD_axis=(0, 0)), SAID | {"line_of_sight": 2}


@case(NUMBERS, "the line of sight of the files", lambda suite: suite.axes == (0,))
def _(p):
    return told(p, RSD_axis=(0, 0)), SAID | {"line_of_sight": 0}


for name in ("zspace_0", "delta_s_0", "df_m_CIC_RS1_axis=0_z=0", "z0_redshift_000", "RSD/cube_0"):

    @case(NUMBERS, f"redshift space in a name: {name}", "expected line_of_sight= 0, 1, 2")
    def _(p, name=name):
        return write_npy(p / f"{name}.npy", Y[0]).parent, SAID


@case(NUMBERS, "redshift space in the text of an attribute", "expected line_of_sight= 0, 1, 2")
def _(p):
    return told(p, space=("redshift", "redshift")), SAID


@pytest.mark.parametrize(("build", "expected"), CASES)
def test_no_case_is_wrong_in_silence(tmp_path, build, expected):
    path, options = build(tmp_path)
    if callable(expected):
        assert expected(opened(path, **options)) in (None, True)
        return
    with pytest.raises(CubesError, match=expected) as caught:
        opened(path, **options)
    assert "found " in str(caught.value) and "; expected " in str(caught.value)


def test_there_are_more_than_a_hundred_of_them():
    assert len(CASES) > 100
