import numpy as np

from uvae_lib.cubes import open_cubes, split_cubes


def test_minimal(tmp_path):
    rho = np.random.default_rng(0).lognormal(size=(4, 8, 8, 8)).astype(np.float32) * 1e10
    np.save(tmp_path / "Grids_Mcdm_IllustrisTNG_LH_8_z=0.0.npy", rho)
    np.savetxt(tmp_path / "params_LH_IllustrisTNG.txt", np.random.default_rng(1).random((4, 6)))
    suite = open_cubes(tmp_path)
    assert (suite.n_cubes, suite.side, suite.box_size, len(suite.params)) == (4, 8, 25.0, 4)
    np.testing.assert_allclose(suite.overdensity(2), rho[2] / rho[2].mean(), rtol=1e-5)


def test_split_is_a_partition():
    parts = split_cubes(10, 0.1, 0.1, 0)
    assert sorted(sum(parts.values(), [])) == list(range(10))
