"""Probes and controls on latents whose answer is known, and memory of slices that were really seen."""

import numpy as np
import pytest
import torch
from suites import lognormal_suite, tiny_config

from uvae_lib import latents
from uvae_lib.analysis import controls
from uvae_lib.training import fit

RNG = np.random.default_rng


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("controls")
    config = tiny_config(lognormal_suite(folder / "data", n_cubes=8), steps=3)
    return fit(config, folder / "run", progress=False)


@pytest.fixture(scope="module")
def suite(run):
    return run.open_suite()


def latent_cubes(n: int, noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """z (n, 30) that holds two parameters (n, 2) in two directions, with noise in all."""
    rng = RNG(seed)
    params = rng.uniform([0.1, 0.6], [0.5, 1.0], (n, 2))
    z = noise * rng.standard_normal((n, 30))
    z[:, :2] += (params - [0.3, 0.8]) / 0.1
    return z, params


# --- probes


@pytest.mark.parametrize("fit", [controls.ridge, controls.mlp])
def test_a_z_that_is_the_parameters_is_read_without_error(fit):
    (z, params), (test, truth) = latent_cubes(60, 0.0), latent_cubes(30, 0.0, seed=1)
    found = controls.read(fit, z, params, test, truth)
    assert (found.r2 > 0.98).all()


def test_a_z_that_knows_nothing_reads_nothing():
    rng = RNG(0)
    z, params, test, truth = (rng.standard_normal(shape) for shape in ((100, 20), (100, 2), (80, 20), (80, 2)))
    assert (controls.read(controls.ridge, z, params, test, truth).r2 < 0.1).all()


def test_intervals_hold_as_many_unseen_cubes_as_they_promise():
    (z, params), (test, truth) = latent_cubes(1000, 0.5), latent_cubes(1000, 0.5, seed=1)
    found = controls.read(controls.ridge, z, params, test, truth)
    np.testing.assert_allclose(found.coverage, np.tile(controls.LEVELS, (2, 1)), atol=0.08)


def test_the_half_width_is_that_of_the_errors():
    (z, params), (test, truth) = latent_cubes(1000, 0.5), latent_cubes(1000, 0.5, seed=1)
    found = controls.read(controls.ridge, z, params, test, truth)
    np.testing.assert_allclose(found.width, np.quantile(np.abs(found.predicted - truth), 0.68, axis=0), rtol=0.15)


def test_half_widths_are_order_statistics():
    residuals = np.arange(1, 100.0)[:, None] * [[1.0, -2.0]]
    np.testing.assert_array_equal(controls.half_widths(residuals, np.array([0.5, 0.9])), [[50, 90], [100, 180]])


def test_no_training_cube_is_predicted_by_a_fit_that_saw_it():
    x = np.arange(20.0)[:, None]

    def nearest(train, params, test):
        return params[np.abs(train - test.T).argmin(axis=0)]

    assert (np.abs(controls.out_of_fold(nearest, x, x)) >= 1).all()


# --- the atlas


@pytest.mark.parametrize(("n", "n_axes"), [(30, 3), (7, 3), (10, 3), (15, 1), (4, 3)])
def test_slices_chosen_for_a_number_are_different_ones_of_all_axes(n, n_axes):
    for size in range(1, n + 1):
        chosen = controls.spread(n, size, n_axes)
        assert len(set(chosen)) == size
        assert chosen.max() < n and np.bincount(chosen % n_axes).max() == -(-size // n_axes)


def test_the_atlas_is_encode_cube_on_the_same_slices(run, suite):
    atlas = controls.make_features(run, suite, 6)
    z = latents.encode_cube(run, latents.spread_slices(run, suite, 2, 6, seed=2))
    np.testing.assert_allclose(atlas.mu[2, -1], z.mu.numpy(), atol=1e-5)
    np.testing.assert_allclose(atlas.logvar[2, -1], z.logvar.numpy(), atol=1e-5)


def test_a_kept_atlas_is_read_back_and_not_used_for_other_weights(run, suite, monkeypatch):
    first = controls.kept_features(run, suite, n_slices=3)
    monkeypatch.setattr(controls, "_look", None)  # nothing may be encoded again
    np.testing.assert_array_equal(controls.kept_features(run, suite, n_slices=3).mu, first.mu)
    weight = run.model.decoder_z.state_dict()
    name = next(iter(weight))
    weight[name] += 1
    try:
        with pytest.raises(TypeError):
            controls.kept_features(run, suite, n_slices=3)
    finally:
        weight[name] -= 1


# --- controls


def test_cubes_of_one_cosmology_vary_less_than_all():
    z, _ = latent_cubes(100, 0.1)
    one = z[:1, :] * 0 + 0.1 * RNG(1).standard_normal((20, 30))
    found = controls.variance_ratio(one, z)
    assert found["ratio"] == pytest.approx(30 * 0.01 / (30 * 0.01 + 2 * 4 / 3), rel=0.3) and found["p"] == 0.001


def test_random_cubes_vary_as_much_as_all():
    z, _ = latent_cubes(200, 0.1)
    found = controls.variance_ratio(z[:40], z)
    assert found["ratio"] == pytest.approx(1, abs=0.3) and found["p"] > 0.01


def test_axes_that_agree_find_their_cube():
    z, _ = latent_cubes(20, 1.0)
    agree = controls.axis_agreement(z[:, None] + 0.01 * RNG(1).standard_normal((20, 3, 30)))
    chance = controls.axis_agreement(RNG(2).standard_normal((20, 3, 30)))
    assert agree["identified"] == 1 and agree["ratio"] < 0.02
    assert chance["identified"] < 0.3 and chance["ratio"] == pytest.approx(1, abs=0.1)


def test_posteriors_disagree_by_their_distance_in_widths():
    mu = np.array([[0.0, 0.0], [2.0, 0.0]])
    assert controls.disagreement(mu, np.log(np.full((2, 2), 4.0))) == pytest.approx(2 / 4)


def test_shuffled_slices_are_found_by_a_z_that_differs_between_cubes(run, suite, monkeypatch):
    def mean_of_pixels(run, slices, maps=None):  # cubes of the suite differ in the variance of their pixels
        mu = slices.var(dim=(1, 2, 3)).mean().expand(512)
        return latents.Posterior(mu, torch.full((512,), -4.0))

    monkeypatch.setattr(latents, "encode_cube", mean_of_pixels)
    found = controls.shuffled_sets(run, suite, list(range(8)), 12)
    assert len(found["own"]) == len(found["mixed"]) == 8 and found["auc"] > 0.5


def test_the_larger_of_two_groups_exceeds():
    assert controls.auc([2, 3], [0, 1]) == 1 and controls.auc([1], [1]) == 0.5


# --- leaks and memory


def test_a_universe_in_two_parts_is_a_leak():
    split = {"train": [0, 1], "val": [2], "test": [3]}
    assert controls.leaks(["a", "b", "c", "a"], split)["shared"] == ["a"]
    assert controls.leaks(["a", "b", "c", "d"], split)["shared"] == []


def test_cubes_that_were_exchanged_are_named():
    assert controls.leaks(["a", "x"], {"train": [0], "test": [1]}, ["a", "b"])["renamed"] == ["x"]


def test_samples_drawn_alike_have_a_large_p_and_others_a_small_one():
    rng = RNG(0)
    a, b = rng.standard_normal((40, 10)), rng.standard_normal((25, 10))
    assert controls.two_sample(a, b)["p"] > 0.05
    assert controls.two_sample(a, b + 1)["p"] < 0.01


def test_a_shifted_image_correlates_fully_with_its_plane():
    plane = torch.randn(2, 32, 32, generator=torch.Generator().manual_seed(0))
    found = controls.best_correlation(plane.roll((5, 9), (-2, -1))[:, None], plane[None])
    torch.testing.assert_close(found.diagonal(), torch.ones(2), atol=1e-4, rtol=0)
    assert found[0, 1] < 0.3


def test_a_crop_across_the_edge_correlates_fully_with_its_plane():
    plane = torch.randn(32, 32, generator=torch.Generator().manual_seed(0))
    crop = plane.roll((-28, -20), (-2, -1))[:16, :16]
    assert controls.best_correlation(crop, plane) == pytest.approx(1, abs=1e-4)


def test_the_eight_symmetries_differ_and_contain_the_image():
    image = torch.randn(1, 4, 4, generator=torch.Generator().manual_seed(0))
    found = controls.symmetries(image)[:, 0]
    assert len({tuple(x.flatten().tolist()) for x in found}) == 8 and torch.equal(found[0], image[0])


def test_a_copy_of_a_training_slice_is_found_and_a_new_slice_is_not(run, suite):
    train, other = run.split["train"], run.split["test"][0]
    plane = run.to_pixels(torch.from_numpy(suite.overdensity(train[1])[:, 13]))  # between the planes searched first
    copy = plane.roll((3, 7), (0, 1)).T.flip(0)[None, None]
    found = controls.nearest_slice(run, suite, train, torch.cat([copy, latents.spread_slices(run, suite, other, 2)]))
    assert found[0] == pytest.approx(1, abs=1e-3)
    assert (found[1:] < 0.9).all()


def test_memory_finds_its_planted_copy_and_no_other(run, suite):
    held = latents.spread_slices(run, suite, run.split["test"][0], 4)
    found = controls.memory(run, suite, held + 0.1 * torch.randn(held.shape), held)
    assert found["planted_copy"] > 0.99 and found["n_copies"] == 0


def test_one_value_in_a_hundred_is_beyond_the_bound():
    values = np.exp(RNG(0).standard_normal((4000, 6)))
    beyond = np.mean([row[-1] > controls.upper_bound(row[:-1], 0.99) for row in values])
    assert beyond == pytest.approx(0.01, abs=0.006)


def test_two_values_calibrate_no_bound():
    assert controls.upper_bound([1.0, 2.0]) == np.inf
