"""Every cube encoded once: the table, and the encodings."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import kurtosis, skew
from suites import lognormal_suite, tiny_config

from uvae_lib.analysis import features
from uvae_lib.runs.encode import encode_cube, reconstruct_given_others, spread_slices
from uvae_lib.runs.universes import open_set
from uvae_lib.training.fit import fit


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("features")
    config = tiny_config(lognormal_suite(folder / "data", n_cubes=8), steps=3)
    return fit(config, folder / "run", progress=False)


@pytest.fixture(scope="module")
def suite(run):
    return run.open_suite()


@pytest.mark.parametrize(("n", "n_axes"), [(30, 3), (7, 3), (10, 3), (15, 1), (4, 3)])
def test_slices_chosen_for_a_number_are_different_ones_of_all_axes(n, n_axes):
    for size in range(1, n + 1):
        chosen = features.spread(n, size, n_axes)
        assert len(set(chosen)) == size
        assert chosen.max() < n and np.bincount(chosen % n_axes).max() == -(-size // n_axes)


def test_the_table_is_encode_cube_on_the_same_slices(run, suite):
    table = features.encode_suite(run, suite, 6)
    z = encode_cube(run, spread_slices(run, suite, 2, 6, seed=2))
    np.testing.assert_allclose(table.z(6)[2], z.mu.numpy(), atol=1e-5)
    np.testing.assert_allclose(table.logvar[2, table.at(6)], z.logvar.numpy(), atol=1e-5)


def test_slices_of_a_smaller_number_are_among_those_of_a_larger_one(run, suite):
    table = features.encode_suite(run, suite, 6)
    assert table.sizes.tolist() == [1, 2, 3, 5, 6, 12]
    z = encode_cube(run, torch.cat([spread_slices(run, suite, 2, 6, 2, s) for s in (0, 0.5)]))
    np.testing.assert_allclose(table.mu[2, -1], z.mu.numpy(), atol=1e-5)


def test_the_table_has_the_z_of_the_encodings(run, suite):
    (one,) = features.encode_cubes(run, suite, [3], 6)
    np.testing.assert_allclose(features.encode_suite(run, suite, 6).z(6)[3], one.z.mu.numpy(), atol=1e-5)


def test_moments_are_those_of_the_pixels():
    x = torch.randn(3, 1, 20, 20, generator=torch.Generator().manual_seed(0)).double()
    found, pixels = features.moments(x), x.flatten(1).numpy()
    expected = [pixels.mean(axis=1), np.log(pixels.std(axis=1)), skew(pixels, axis=1), kurtosis(pixels, axis=1)]
    np.testing.assert_allclose(found, np.stack(expected, axis=1))


def test_statistics_stand_side_by_side(run, suite):
    table = features.encode_suite(run, suite, 3)
    found = table.statistics(3)
    np.testing.assert_array_equal(found[:, : table.power.shape[-1]], table.power[:, table.at(3)])
    np.testing.assert_array_equal(found[:, -4:], table.moments[:, table.at(3)])


def test_a_set_beside_the_cubes_of_a_run_is_opened_or_its_absence_explained(run, suite):
    found, why = open_set(run, suite, "CV")
    assert found is None and "CV" in why


def test_each_slice_is_reconstructed_as_the_library_does(run, suite):
    (one,) = features.encode_cubes(run, suite, [1], 5)
    torch.testing.assert_close(one.recon, reconstruct_given_others(run, one.truth))


def test_a_stored_table_is_read_back_and_not_used_for_other_weights_or_parameters(run, suite, monkeypatch):
    first = features.suite_features(run, suite, n_slices=3)
    monkeypatch.setattr(features, "_describe", None)  # nothing may be encoded again
    np.testing.assert_array_equal(features.suite_features(run, suite, n_slices=3).mu, first.mu)
    weight = run.model.decoder_z.state_dict()
    name = next(iter(weight))
    weight[name] += 1
    try:
        with pytest.raises(TypeError):
            features.suite_features(run, suite, n_slices=3)
    finally:
        weight[name] -= 1
    with pytest.raises(TypeError):
        features.suite_features(run, replace(suite, params=pd.DataFrame({"sigma_8": [0.5] * 8})), n_slices=3)


def test_what_is_spread_evenly_has_both_ends_and_no_more_than_was_asked():
    assert features.evenly(list(range(10)), 3) == [0, 4, 9] and features.evenly([1, 2], 5) == [1, 2]
    assert features.evenly([], 3) == []
