"""The estimate of one cube: what it says of cubes that are known, odd, or no universes at all."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
from suites import lognormal_suite, tiny_config

from uvae_lib.analysis.cube import cube_reference, estimate_cube, figure
from uvae_lib.cubes.suite import CubesError, split_cubes
from uvae_lib.training.fit import fit


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cube")
    config = tiny_config(lognormal_suite(folder / "data", n_cubes=14), steps=8)
    return fit(config, folder / "run", progress=False)


@pytest.fixture(scope="module")
def suite(run):
    return run.open_suite()


@pytest.fixture(scope="module")
def shared(run, suite):
    assert len(split_cubes(14, 0.25, 0.17, 0)["val"]) >= 3
    run.split = split_cubes(14, 0.25, 0.17, 0)
    return cube_reference(run, suite, n_slices=6)


def made(run, shared, cube, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # what is odd is in the estimate, not on the screen
        return estimate_cube(run, cube, shared, **options)


def test_a_cube_of_the_suite_gives_no_warning(run, suite, shared):
    found = made(run, shared, suite.overdensity(run.split["train"][2]), box_size=suite.box_size)
    assert found.warnings == ()


def test_a_parameter_has_a_width(run, suite, shared):
    found = made(run, shared, suite.overdensity(0), box_size=suite.box_size)
    assert set(found.parameters) == {"Omega_m", "sigma_8"} and found.parameters["sigma_8"][1] > 0


def test_noise_is_out_of_distribution(run, suite, shared):
    noise = np.random.default_rng(0).lognormal(sigma=3.0, size=(32, 32, 32)).astype(np.float32)
    found = made(run, shared, noise, box_size=suite.box_size)
    assert any("out of distribution" in text for text in found.warnings)


def test_empty_voxels_and_open_edges_are_warned_of(run, suite, shared):
    y = suite.overdensity(1).copy()
    y[8:12] = 0
    text = " ".join(made(run, shared, y, box_size=suite.box_size).warnings)
    assert "are empty" in text
    ramp = suite.overdensity(1) * np.geomspace(0.01, 100, 32, dtype=np.float32)[:, None, None]
    assert "do not look periodic along axis 0" in " ".join(made(run, shared, ramp, box_size=suite.box_size).warnings)


def test_voxels_of_another_size_are_warned_of(run, suite, shared):
    found = made(run, shared, suite.overdensity(0), box_size=10 * suite.box_size)
    assert any("the estimates do not hold" in text for text in found.warnings)


def test_a_box_that_was_not_given_is_warned_of(run, suite, shared):
    assert any("taken as the run's" in text for text in made(run, shared, suite.overdensity(0)).warnings)


def test_a_file_gives_the_estimate_of_its_array(run, suite, shared, tmp_path):
    np.save(tmp_path / "mine.npy", suite.overdensity(3))
    from_file = made(run, shared, tmp_path / "mine.npy", box_size=suite.box_size)
    from_array = made(run, shared, suite.overdensity(3), box_size=suite.box_size)
    np.testing.assert_allclose(from_file.z, from_array.z, atol=1e-4)
    assert from_file.source.endswith("mine")


def test_numbers_that_are_no_cube_are_refused(run, shared):
    with pytest.raises(CubesError, match="NaN"):
        estimate_cube(run, np.full((32, 32, 32), np.nan), shared)


def test_a_cube_smaller_than_a_slice_is_refused(run, shared):
    with pytest.raises(ValueError, match="slice does not fit a 16-voxel cube; give larger cubes"):
        estimate_cube(run, np.random.default_rng(0).lognormal(size=(16, 16, 16)), shared)


def test_fewer_than_three_validation_cubes_set_no_limit(run, suite, shared):
    few = type(shared)(**vars(shared) | {"distance_limit": np.inf, "error_limit": np.inf})
    assert any("calibrate none" in text for text in made(run, few, suite.overdensity(0), box_size=1.0).warnings)


def test_the_estimate_is_a_picture(run, suite, shared):
    found = figure(made(run, shared, suite.overdensity(0), box_size=suite.box_size))
    assert len(found.png()) > 20_000


def test_three_training_cubes_have_no_distribution(run, suite):
    few = replace(run, split=run.split | {"train": run.split["train"][:3]})
    with pytest.raises(ValueError, match="trained on 3 cubes; estimates need 4"):
        cube_reference(few, suite)
