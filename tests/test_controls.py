"""Controls on latents whose answer is known, and memorisation of slices that were really seen."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.covariance import EmpiricalCovariance
from suites import lognormal_suite, tiny_config

from uvae_lib.analysis import controls, features
from uvae_lib.runs.encode import Posterior, cut_cube, spread_slices
from uvae_lib.statistics import fvu
from uvae_lib.training.fit import fit

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


# --- controls


def test_cubes_of_one_cosmology_vary_less_than_all():
    z, _ = latent_cubes(100, 0.1)
    one = z[:1, :] * 0 + 0.1 * RNG(1).standard_normal((20, 30))
    found = controls.variance_ratio(one, z)
    assert found["ratio"] == pytest.approx(30 * 0.01 / (30 * 0.01 + 2 * 4 / 3), rel=0.3)


def test_random_cubes_vary_as_much_as_all():
    z, _ = latent_cubes(200, 0.1)
    found = controls.variance_ratio(z[:40], z)
    assert found["ratio"] == pytest.approx(1, abs=0.3)


def test_axes_that_agree_find_their_cube():
    z, _ = latent_cubes(20, 1.0)
    agree = controls.axis_agreement(z[:, None] + 0.01 * RNG(1).standard_normal((20, 3, 30)))
    chance = controls.axis_agreement(RNG(2).standard_normal((20, 3, 30)))
    assert agree["identified"] == 1 and agree["ratio"] < 0.02
    assert chance["identified"] < 0.3 and chance["ratio"] == pytest.approx(1, abs=0.1)


def test_shuffled_slices_are_found_by_a_z_that_differs_between_cubes(run, monkeypatch):
    def first_feature(run, zs):
        return Posterior(zs[:, 0].mean().expand(512), torch.full((512,), -4.0))

    monkeypatch.setattr(controls, "encode_set", first_feature)
    zs = [torch.randn(12, 1024, generator=torch.Generator().manual_seed(i)) * 0.1 + i for i in range(8)]
    assert controls.shuffled_sets(run, zs) == {"auc": 1}


def test_one_cube_cannot_be_shuffled(run):
    assert controls.shuffled_sets(run, [torch.zeros(12, 1024)]) is None


# --- leaks and memorisation


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
    found = controls.nearest_slice(run, suite, train, torch.cat([copy, spread_slices(run, suite, other, 2)]))
    assert found[0] == pytest.approx(1, abs=1e-3)
    assert (found[1:] < 0.9).all()


def test_the_memorisation_test_finds_its_planted_copy_and_no_other(run, suite):
    held = spread_slices(run, suite, run.split["test"][0], 4)
    found = controls.memorisation_test(run, suite, held + 0.1 * torch.randn(held.shape), held)
    assert found["planted_copy"] > 0.99 and found["n_copies"] == 0


def test_chances_are_uniform_for_values_of_the_kind():
    values = np.exp(RNG(0).standard_normal((2000, 6)))
    chances = [float(controls.exceeded(row[:-1], row[-1])) for row in values]
    assert np.mean(np.array(chances) < 0.1) == pytest.approx(0.1, abs=0.02)


def test_two_values_give_no_chance():
    assert np.isnan(controls.exceeded([1.0, 2.0], 3.0))


# --- is a cube like those of the training?


def test_noise_is_unlike_the_training_cubes_and_a_cube_of_the_suite_is_not(run, suite):
    run = replace(run, split={"train": [0, 1, 3, 4, 6], "val": [2, 7], "test": [5]})
    table, cubes = features.encode_suite(run, suite, 6), features.encode_cubes(run, suite, [2, 7, 5], 6)
    errors = [float(fvu(cube.truth, cube.recon)) for cube in cubes]
    known = controls.familiarity(run, table, errors, 6)
    noise = RNG(0).lognormal(sigma=3.0, size=(32, 32, 32)).astype(np.float32)
    noise /= noise.mean()
    like = known.probability(table.rows([5]).z(6), known.errors[2:])
    assert like > 0.1 and known.of_slices(run, cut_cube(run, noise, 6)) < like
    assert known.of_slices(run, cubes[2].truth) == pytest.approx(float(like[0]), rel=0.05)


def test_cubes_of_the_kind_are_like_it_and_distant_ones_unlike():
    rng = RNG(0)
    white = EmpiricalCovariance(store_precision=True).fit(rng.standard_normal((9, 9)))
    white.location_, white.covariance_, white.precision_ = np.zeros(9), np.eye(9), np.eye(9)
    distances, errors = (np.exp(0.1 * rng.standard_normal(40)) for _ in range(2))
    kind = controls.Familiarity(white, 3 * distances, errors)
    z = rng.standard_normal((500, 9))
    errors = np.exp(0.1 * rng.standard_normal(500))
    z *= (np.exp(0.1 * rng.standard_normal(500)) * 3 / np.linalg.norm(z, axis=1))[:, None]
    assert np.mean(kind.probability(z, errors) < 0.05) < 0.1
    for unlike in (kind.probability(2 * z, errors), kind.probability(z, 2 * errors)):
        assert (unlike < 0.01).mean() > 0.95
