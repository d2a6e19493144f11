"""Held-out metrics on numbers whose answer is known."""

import numpy as np
import pytest
import torch

from uvae_lib.analysis.features import CubeEncoding
from uvae_lib.analysis.metrics import (
    bootstrap,
    k_at_correlation,
    label_curve,
    latent_metrics,
    main_directions,
    probe,
    reconstruction_metrics,
    score,
    slope,
)
from uvae_lib.runs.encode import Posterior

RNG = np.random.default_rng


def latent_cubes(n: int, noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """z (n, 30) that holds two parameters (n, 2) in two directions, with noise in all."""
    rng = RNG(seed)
    params = rng.uniform([0.1, 0.6], [0.5, 1.0], (n, 2))
    z = noise * rng.standard_normal((n, 30))
    z[:, :2] += (params - [0.3, 0.8]) / 0.1
    return z, params


# --- probes


def scored(z, params, test, truth) -> dict:
    return score(truth, probe(z, params, test), ["a", "b"])


def test_a_z_that_is_the_parameters_is_read_without_error():
    found = scored(*latent_cubes(60, 0.0), *latent_cubes(30, 0.0, seed=1))
    assert min(found["r2"].values()) > 0.98


def test_a_z_that_knows_nothing_reads_nothing():
    rng = RNG(0)
    found = scored(*(rng.standard_normal(shape) for shape in ((100, 20), (100, 2), (80, 20), (80, 2))))
    assert max(found["r2"].values()) < 0.1


def test_the_interval_of_r2_holds_it_and_narrows_with_more_cubes():
    widths = []
    for n in (30, 300):
        found = scored(*latent_cubes(200, 0.5), *latent_cubes(n, 0.5, seed=1))
        low, high = np.array(list(found["r2_interval"].values())).T
        value = np.array(list(found["r2"].values()))
        assert ((low < value) & (value < high)).all()
        widths.append((high - low).mean())
    assert widths[1] < 0.6 * widths[0]


def test_a_parameter_that_does_not_vary_has_no_r2_but_an_error():
    (z, params), (test, truth) = latent_cubes(60, 0.1), latent_cubes(30, 0.1, seed=1)
    params[:, 0] = truth[:, 0] = 0.3
    found = scored(z, params, test, truth)
    assert np.isnan(found["r2"]["a"]) and np.isnan(found["r2_interval"]["a"]).all() and found["r2"]["b"] > 0.8
    assert found["error"]["a"] < 1e-6


def test_few_cubes_have_no_interval():
    found = score(np.arange(4.0)[:, None], np.arange(4.0)[:, None], ["a"])
    assert np.isnan(found["r2_interval"]["a"]).all() and found["r2"]["a"] == 1


def test_readings_that_keep_to_the_mean_have_a_small_slope_and_constants_none():
    truth = RNG(0).standard_normal((50, 2)) * [1, 0]
    assert slope(truth, 0.5 * truth + 3)[0] == pytest.approx(0.5) and np.isnan(slope(truth, truth)[1])


def test_the_same_cubes_are_drawn_for_two_predictions():
    truth = RNG(0).standard_normal((50, 1))
    first, second = (bootstrap(truth, truth + shift, 100) for shift in (0.1, 0.100001))
    assert np.abs(first - second).max() < 1e-5 < first.std()


def test_more_labels_read_better_and_the_last_count_is_all():
    found = label_curve(*latent_cubes(60, 0.5), *latent_cubes(100, 0.5, seed=1))
    assert found["counts"] == [10, 25, 50, 60] and found["scatter"][-1] == [0, 0]
    assert found["r2"][0][0] < found["r2"][-1][0]


def test_main_directions_are_those_of_the_spread():
    z, _ = latent_cubes(200, 0.01)
    _, rows, shares = main_directions(z)
    assert np.abs(rows[:, :2]).max(axis=1).min() > 0.7 and np.abs(rows[:, 2:]).max() < 0.05
    assert shares.sum() > 0.99


# --- reconstruction


def cube(truth, recon):
    return CubeEncoding(truth, recon, *[None] * 4)


def test_reconstructions_stand_beside_the_strongest_modes_of_the_training_slices():
    truth = [torch.randn(4, 1, 16, 16, generator=torch.Generator().manual_seed(i)) for i in range(6)]
    mean = torch.cat(truth).mean()
    perfect, blank = [cube(x, x) for x in truth], [cube(x, mean.expand(x.shape)) for x in truth]
    unrelated = [cube(x, torch.randn(x.shape, generator=torch.Generator().manual_seed(9))) for x in truth]
    found = reconstruction_metrics(perfect, perfect, truth, 16.0)
    assert found["fvu"] == 0 and 0.2 < found["fvu_pca"] < 0.5 and found["k_r90"] == found["k"][-1]
    assert reconstruction_metrics(blank, perfect, truth, 16.0)["fvu"] == pytest.approx(1)
    assert reconstruction_metrics(unrelated, perfect, truth, 16.0)["k_r90"] == 0  # where nothing correlates


def test_intervals_over_cubes_hold_what_is_measured_and_close_where_cubes_are_alike():
    x = torch.randn(4, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    noise = [torch.randn(x.shape, generator=torch.Generator().manual_seed(i)) for i in range(1, 7)]
    alike, varied = [cube(x, 0.5 * x)] * 6, [cube(x, x + i * noise[i] / 5) for i in range(6)]
    for cubes, closed in ((alike, True), (varied, False)):
        found = reconstruction_metrics(cubes, cubes, [c.recon for c in cubes], 16.0)
        for name in ("fvu", "r", "transfer"):
            low, high = np.array(found[f"{name}_interval"])
            assert np.all(low <= np.array(found[name]) + 1e-5) and np.all(high >= np.array(found[name]) - 1e-5)
            assert np.allclose(low, high, atol=1e-5) == closed


def test_the_scale_of_a_correlation_is_the_last_before_it_falls():
    k = torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert k_at_correlation(k, torch.tensor([0.99, 0.95, 0.5, 0.95])) == 2
    assert k_at_correlation(k, torch.tensor([0.5, 1.0, 1.0, 1.0])) == 0 and k_at_correlation(k, k) == 4


def test_latents_cost_the_nats_that_are_known():
    """Dimension 3 of z has mean +-2, dimension 1 of h variance 1 / 4; all others are the prior's."""
    cubes = []
    for i in range(6):
        z, h, prior = (Posterior(torch.zeros(shape), torch.zeros(shape)) for shape in ((8,), (2, 8), (2, 8)))
        z.mu[3], h.logvar[:, 1] = 2 * (-1) ** i, float(np.log(0.25))
        cubes.append(CubeEncoding(*[None] * 3, z, h, prior))
    found = latent_metrics(cubes)
    assert found["kl_by_dimension_z"][:2] == [2, 0] and found["active_z"] == 1 and found["active_h"] == 0
    assert found["kl_h"] == pytest.approx(0.5 * (0.25 - 1 + np.log(4)))
