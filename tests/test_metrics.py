"""Held-out metrics on numbers whose answer is known."""

import numpy as np
import pytest
import torch

from uvae_lib.analysis.features import CubeEncoding
from uvae_lib.analysis.metrics import (
    LEVELS,
    calibrated_probe,
    half_widths,
    k_at_correlation,
    r2_interval,
    reconstruction_metrics,
    residuals_of,
)

RNG = np.random.default_rng


def latent_cubes(n: int, noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """z (n, 30) that holds two parameters (n, 2) in two directions, with noise in all."""
    rng = RNG(seed)
    params = rng.uniform([0.1, 0.6], [0.5, 1.0], (n, 2))
    z = noise * rng.standard_normal((n, 30))
    z[:, :2] += (params - [0.3, 0.8]) / 0.1
    return z, params


# --- probes


def test_a_z_that_is_the_parameters_is_read_without_error():
    (z, params), (test, truth) = latent_cubes(60, 0.0), latent_cubes(30, 0.0, seed=1)
    found = calibrated_probe(z, params, test, truth)
    assert (found.r2 > 0.98).all()


def test_a_z_that_knows_nothing_reads_nothing():
    rng = RNG(0)
    z, params, test, truth = (rng.standard_normal(shape) for shape in ((100, 20), (100, 2), (80, 20), (80, 2)))
    assert (calibrated_probe(z, params, test, truth).r2 < 0.1).all()


def test_intervals_hold_as_many_unseen_cubes_as_they_promise():
    (z, params), (test, truth) = latent_cubes(1000, 0.5), latent_cubes(1000, 0.5, seed=1)
    found = calibrated_probe(z, params, test, truth)
    np.testing.assert_allclose(found.coverage, np.tile(LEVELS, (2, 1)), atol=0.08)


def test_the_half_width_is_that_of_the_errors():
    (z, params), (test, truth) = latent_cubes(1000, 0.5), latent_cubes(1000, 0.5, seed=1)
    found = calibrated_probe(z, params, test, truth)
    np.testing.assert_allclose(found.width, np.quantile(np.abs(found.predicted - truth), 0.68, axis=0), rtol=0.15)


def test_half_widths_are_order_statistics():
    residuals = np.arange(1, 100.0)[:, None] * [[1.0, -2.0]]
    np.testing.assert_array_equal(half_widths(residuals, np.array([0.5, 0.9])), [[50, 90], [100, 180]])


def test_no_training_cube_is_predicted_by_a_fit_that_saw_it():
    x, y = RNG(0).standard_normal((20, 40)), RNG(1).standard_normal((20, 1))  # a fit to all has no residuals
    assert np.abs(residuals_of(x, y)).mean() > 0.5


def test_the_interval_of_r2_holds_it_and_narrows_with_more_cubes():
    widths = []
    for n in (30, 300):
        (z, params), (test, truth) = latent_cubes(200, 0.5), latent_cubes(n, 0.5, seed=1)
        found = calibrated_probe(z, params, test, truth)
        low, high = found.r2_interval.T
        assert ((low < found.r2) & (found.r2 < high)).all()
        widths.append((high - low).mean())
    assert widths[1] < 0.6 * widths[0]


def test_a_parameter_that_does_not_vary_has_no_r2_but_an_error():
    (z, params), (test, truth) = latent_cubes(60, 0.1), latent_cubes(20, 0.1, seed=1)
    params[:, 0] = truth[:, 0] = 0.3
    found = calibrated_probe(z, params, test, truth)
    assert np.isnan(found.r2[0]) and np.isnan(found.r2_interval[0]).all() and found.r2[1] > 0.8
    assert found.error[0] < 1e-6


# --- reconstruction


def cube(truth, recon):
    return CubeEncoding(0, truth, recon, *[None] * 4)


def test_reconstructions_stand_beside_the_strongest_modes_of_the_training_slices():
    truth = [torch.randn(4, 1, 16, 16, generator=torch.Generator().manual_seed(i)) for i in range(6)]
    mean = torch.cat(truth).mean()
    perfect, blank = [cube(x, x) for x in truth], [cube(x, mean.expand(x.shape)) for x in truth]
    unrelated = [cube(x, torch.randn(x.shape, generator=torch.Generator().manual_seed(9))) for x in truth]
    found = reconstruction_metrics(perfect, perfect, 16.0)
    assert found["fvu"] == 0 and 0.2 < found["fvu_pca"] < 0.5 and found["k_r90"] == found["k"][-1]
    assert reconstruction_metrics(blank, perfect, 16.0)["fvu"] == pytest.approx(1)
    assert reconstruction_metrics(unrelated, perfect, 16.0)["k_r90"] == 0  # where nothing correlates


def test_few_cubes_have_no_interval():
    assert np.isnan(r2_interval(np.arange(4.0), np.arange(4.0))).all()


def test_the_scale_of_a_correlation_is_the_last_before_it_falls():
    k = torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert k_at_correlation(k, torch.tensor([0.99, 0.95, 0.5, 0.95])) == 2
    assert k_at_correlation(k, torch.tensor([0.5, 1.0, 1.0, 1.0])) == 0 and k_at_correlation(k, k) == 4
