"""Cubes and tables as other packages write them: what is asked, and that the answer opens them with the right numbers.

Files are built here with the keys, attributes, dtypes and shapes that yt 4.4.3, powerbox 1.0.0, JaxPM 0.1.6 and pandas
3.1.1 wrote, that the published code of 3DcosmoGAN, cosmogan_pytorch and CosmoFieldGen writes, and with headers as
Gadget, SWIFT, Nyx and 21cmFAST document them.
"""

import warnings

import h5py
import numpy as np
import pandas as pd
import pytest
from brought import SIDE, N, lognormal_cubes, snapshots, write_folder, write_hdf5, write_npy

from uvae_lib.cubes.suite import CubesError, open_cubes

Y = lognormal_cubes()  # float64, as most of these packages count
TRUTH = pd.DataFrame({"Omega_m": [0.15, 0.25, 0.35, 0.45], "sigma_8": [0.7, 0.9, 0.8, 0.65]})
COUNTS = np.random.default_rng(0).poisson(20 * Y).astype("f8")
ASKED = [r"box_size= \[Mpc/h\]", "field_type= density"]
YT = {
    "con_args": "('level', 'left_edge', 'ActiveDimensions')", "container_type": "covering_grid",
    "current_redshift": 0.0, "data_type": "yt_data_container", "domain_dimensions": np.array([SIDE] * 3),
    "domain_right_edge": np.ones(3), "domain_right_edge_units": "code_length", "hubble_constant": 0.6774,
    "length_unit": 128.0, "length_unit_units": "Mpc", "periodicity": np.array([True] * 3), "unit_system_name": "cgs",
}  # fmt: skip
YT_SAID = {"box_size": 86.7, "field_type": "density"}  # 128 Mpc times h


def asks(path, *patterns, **options):
    """What open_cubes asks for has all these patterns."""
    for pattern in patterns:
        with pytest.raises(CubesError, match=pattern):
            open_cubes(path, **options)


def opens(path, truth, box, **options):
    """The suite holds these cubes in this order, in a box of this size [Mpc/h]."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        suite = open_cubes(path, **options)
    found = np.stack([suite.overdensity(i) for i in range(suite.n_cubes)])
    np.testing.assert_allclose(found, truth / truth.mean(axis=(1, 2, 3), keepdims=True), rtol=1e-4, atol=1e-6)
    assert suite.box_size == pytest.approx(box)
    return suite


def yt_grids(folder):
    """`covering_grid(...).save_as_dataset` of each universe: positions and sizes of cells are arrays too."""
    edges = (np.arange(SIDE) + 0.5) / SIDE
    for i, y in enumerate(Y):
        arrays = {
            "density": y * 9.9e10,
            **dict(zip("xyz", np.meshgrid(edges, edges, edges, indexing="ij"), strict=True)),
        }
        arrays |= {f"d{axis}": np.full_like(y, 1 / SIDE) for axis in "xyz"}
        about = YT | {"omega_matter": TRUTH["Omega_m"][i], "grid:num_elements": SIDE**3}
        path = write_hdf5(folder / f"LH_{i}.h5", {f"grid/{k}": v for k, v in arrays.items()}, **about)
        with h5py.File(path, "a") as file:
            for name, item in file["grid"].items():
                item.attrs["units"] = "Msun/Mpc**3" if name == "density" else "code_length"
    return folder


def test_yt_grids(tmp_path):
    path = yt_grids(tmp_path)
    asks(
        path,
        'field= one of "LH_#.h5/grid/density", "LH_#.h5/grid/dx"',
        'params= "attributes" or',
        "length_unit = 128.0 Mpc",
        *ASKED,
    )
    opens(path, Y, 86.7, field="LH_#.h5/grid/density", params="none", **YT_SAID)
    asks(path, *ASKED, 'params= "attributes" or "none"', field="density")
    suite = opens(path, Y, 86.7, field="density", params="attributes", **YT_SAID)
    pd.testing.assert_frame_equal(suite.params, TRUTH[["Omega_m"]])
    asks(path, "planes without structure", field="x", params="none", **YT_SAID)
    asks(path, "a constant cube", field="dx", params="none", **YT_SAID)
    asks(
        path, "found a box size of '128 Mpc'", field="density", params="none", box_size="128 Mpc", field_type="density"
    )


def test_powerbox(tmp_path):
    """`LogNormalPowerBox(...).delta_x()`, whose mean is near 0 and not 0; a Gaussian one is below -1."""
    path = write_folder(tmp_path / "lognormal", {f"delta_{100 + i}": y * 1.009 - 1 for i, y in enumerate(Y)})
    asks(path, *ASKED, "minimum -0.9")
    opens(path, Y, 250, box_size=250, field_type="delta")
    asks(path, "a density, which is never negative", box_size=250, field_type="density")
    gaussian = write_npy(tmp_path / "gaussian" / "delta.npy", np.random.default_rng(0).normal(0, 1.4, Y[0].shape))
    asks(gaussian, "a 1 . delta, which is never negative", box_size=250, field_type="delta")


def test_jaxpm(tmp_path):
    """`cic_paint` of one particle a voxel: float32, mean 1, empty voxels; parameters by np.savetxt."""
    field, said = np.maximum(Y - 0.1, 0).astype("f4"), {"box_size": 200.0, "field_type": "density"}
    path = write_npy(tmp_path / "field.npy", field)
    np.savetxt(tmp_path / "params.txt", TRUTH)
    asks(path, *ASKED, 'params= "params.txt" or "none"')
    asks(path, "2 columns without names.*# id Omega_m sigma_8", params="params.txt", **said)
    np.savetxt(tmp_path / "params.txt", TRUTH, header="Omega_m sigma_8")
    pd.testing.assert_frame_equal(opens(path, field, 200, params="params.txt", **said).params, TRUTH)
    times = np.stack([snapshots(y) for y in Y[:2]]).astype("f4")  # universes, times
    asks(write_npy(tmp_path / "times" / "a.npy", times), r"\(2, 2, 16, 16, 16\).*cut or reshape", **said)
    asks(write_npy(tmp_path / "flat" / "a.npy", times.reshape(4, *Y[0].shape)), "same largest modes", **said)


def test_counts_of_3dcosmogan(tmp_path):
    """`np.histogramdd` of particles, float64, data set "data", a file for each box."""
    for i, counts in enumerate(COUNTS):
        write_hdf5(tmp_path / f"16_nbody_{350 if i < 2 else 70}Mpc_{i % 2}.h5", {"data": counts})
    said = {"field": "16_nbody_350Mpc_*", "field_type": "counts"}
    asks(tmp_path, *ASKED, 'field= one of "#_nbody_70Mpc_#.h5/data", "#_nbody_350Mpc_#.h5/data"')
    opens(tmp_path, COUNTS[:2], 350, box_size=350, **said)
    opens(tmp_path, COUNTS[:2], 350, box_size=350, **said | {"field": "#_nbody_350Mpc_#.h5/data"})
    asks(tmp_path, "a mean of 2.* of 1 . delta", box_size=350, **said | {"field_type": "delta"})
    table = TRUTH[:2].set_axis(["16_nbody_350Mpc_1", "16_nbody_350Mpc_0"])
    found = opens(tmp_path, COUNTS[:2], 350, box_size=350, params=table, **said).params
    pd.testing.assert_frame_equal(found, TRUTH[:2].iloc[::-1].reset_index(drop=True))


@pytest.mark.parametrize("field_type", ["density", "overdensity", "delta", "counts"])
@pytest.mark.parametrize("scale", [4.0, 21.0])
def test_values_scaled_to_minus_one_to_one(tmp_path, field_type, scale):
    """As networks are given them, (n, 1, N, N, N) float32: 2 x / (x + 4) - 1, and with 21 for 4."""
    path = write_npy(tmp_path / "norm.npy", (2 * COUNTS / (COUNTS + scale) - 1).astype("f4")[:, None])
    asks(path, "never negative|found a mean of", box_size=128, field_type=field_type)


def test_cosmogan_pytorch(tmp_path):
    """Data set "full" with four redshifts along the last axis, int16; pieces of cubes, shuffled, are not periodic."""
    times = np.stack([snapshots(y, 4) for y in Y[:2]])
    for i, cubes in enumerate(times):
        write_hdf5(tmp_path / f"univ_{i}.hdf5", {"full": np.moveaxis(4 * cubes, 0, -1).astype("i2")})
    asks(tmp_path, r"full: found an array of shape \(16, 16, 16, 4\)", box_size=128, field_type="counts")
    large = np.random.default_rng(0).poisson(20 * lognormal_cubes(1, 64, seed=3)[0])
    pieces = np.stack([large[i : i + 32, j : j + 32, :32] for i in (0, 32) for j in (0, 32)]).astype("i2")
    path = write_npy(tmp_path / "pieces" / "full_.npy", pieces[:, None])
    with pytest.warns(UserWarning) as warned:
        open_cubes(path, box_size=64, field_type="counts")
    assert any("not look periodic along axis 0" in str(warning.message) for warning in warned)


def test_cosmofieldgen(tmp_path):
    """delta of each realization, z0_0003.npy; initial conditions in a folder beside."""
    said = {"box_size": 1000, "field_type": "delta"}
    folder = write_folder(tmp_path / "z0_2000_512", {f"z0_{i:04d}": (y - 1).astype("f4") for i, y in enumerate(Y)})
    table = TRUTH.assign(id=range(N)).iloc[[2, 0, 3, 1]]
    pd.testing.assert_frame_equal(opens(folder, Y, 1000, params=table, **said).params, TRUTH)
    write_folder(tmp_path / "z127", {f"df_m_z=127_sim{i}": y**0.1 - (y**0.1).mean() for i, y in enumerate(Y)})
    asks(tmp_path, "redshift= one of 0, 127", **said)
    opens(tmp_path, Y, 1000, redshift=0, field="z0_2000_512/*", **said)


HEADERS = {
    "Gadget": {"Header:BoxSize": 128000.0, "Header:HubbleParam": 0.6774, "Header:Omega0": 0.3, "Header:Redshift": 0.0},
    "SWIFT": {"Header:BoxSize": np.array([189.0] * 3), "Cosmology:h": np.array([0.6774]),
              "Cosmology:Omega_m": np.array([0.3]), "Units:Unit length in cgs (U_L)": np.array([3.08568e24])},
    "Nyx": {"domain:size": np.array([128.0] * 3), "domain:shape": np.array([SIDE] * 3), "universe:omega_m": 0.3,
            "universe:hubble": 0.6774, "universe:redshift": 2.0, "format": "nyx-lyaf"},
    "21cmFAST": {"user_params:BOX_LEN": 189.0, "cosmo_params:OMm": 0.3, "cosmo_params:hlittle": 0.6774},
}  # fmt: skip


@pytest.mark.parametrize("code", HEADERS)
def test_a_box_without_unit_is_asked_for(tmp_path, code):
    path = write_hdf5(tmp_path / "a.h5", {"native_fields/rho": Y[0]}, **HEADERS[code])
    asks(path, *ASKED, 'params= "attributes" or "none"', "128000.0" if code == "Gadget" else r"1(89|28)\.0")
    suite = opens(path, Y[:1], 128, box_size="128 Mpc/h", field_type="density", params="attributes")
    assert suite.params["Omega_m"].tolist() == [0.3]


def test_redshifts_in_the_universe_group_of_nyx(tmp_path):
    for i, z in enumerate((0.0, 2.0)):
        write_hdf5(tmp_path / f"a{chr(98 + i)}{i}.h5", {"native_fields/rho": Y[i]}, **{"universe:redshift": z})
    asks(tmp_path, "redshift= one of 0.0, 2.0", box_size=128, field_type="density")


SHUFFLED = TRUTH.assign(sim=[f"LH_{i}" for i in range(N)]).iloc[[2, 0, 3, 1]]
TABLES = {
    "to_csv": lambda: SHUFFLED.to_csv(),
    "to_csv, index=False": lambda: SHUFFLED.to_csv(index=False),
    "to_csv, names as the index": lambda: SHUFFLED.set_index("sim").to_csv(),
    "to_csv, a shuffled index alone": lambda: SHUFFLED[["Omega_m", "sigma_8"]].to_csv(),
    "to_csv, tab": lambda: SHUFFLED.to_csv(sep="\t", index=False),
    "to_csv, semicolon": lambda: SHUFFLED.to_csv(sep=";"),
    "to_csv, blank": lambda: SHUFFLED.to_csv(sep=" ", index=False),
    "to_csv, quoted": lambda: SHUFFLED.to_csv(quoting=1, index=False),
    "to_string, index=False": lambda: SHUFFLED.to_string(index=False),
}


@pytest.mark.parametrize("table", TABLES)
def test_tables_as_pandas_writes_them(tmp_path, table):
    path = write_folder(tmp_path / "cubes", {f"LH_{i}": y.astype("f4") for i, y in enumerate(Y)})
    (path / "params.txt").write_text(TABLES[table]())
    said = {"box_size": 128, "field_type": "overdensity"}
    asks(path, 'params= "params.txt" or "none"', **said)
    pd.testing.assert_frame_equal(opens(path, Y, 128, params="params.txt", **said).params, TRUTH)
