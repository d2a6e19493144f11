"""The Fisher floor on spectra whose answer is known."""

import numpy as np
import pytest
from benchmarks.floor import fisher_errors, fisher_floor, log_slopes

from uvae_lib.statistics import rings

SIZE = 32
RNG = np.random.default_rng


def test_the_error_of_an_amplitude_is_that_of_a_variance():
    """The variance of N Gaussian numbers is known to sqrt(2 / N) of itself."""
    modes = rings(SIZE, nearest=False).count[1 : SIZE // 2]
    error = fisher_errors(np.ones((1, len(modes))), modes, 3, np.array([1e12]))
    np.testing.assert_allclose(error, np.sqrt(2 / (3 * modes.sum())))


def test_without_a_response_the_prior_is_left():
    np.testing.assert_allclose(fisher_errors(np.zeros((2, 5)), np.ones(5), 30, np.array([0.04, 0.01])), [0.2, 0.1])


def test_slopes_of_a_quadratic_are_exact():
    params, at = RNG(0).uniform(0, 1, (40, 2)), np.array([0.3, 0.8])
    a, b = params.T
    power = np.column_stack([a + 2 * b**2, a * b])
    np.testing.assert_allclose(log_slopes(power, params, at), [[1, 0.8], [3.2, 0.3]], atol=1e-10)
    with pytest.raises(ValueError, match="found 5 cubes, a quadratic of 2 parameters needs 6"):
        log_slopes(power[:5], params[:5], at)


def test_the_floor_is_the_scatter_of_the_best_estimate():
    """An amplitude read from Gaussian spectra by the mean over all modes scatters as the forecast says."""
    modes, rng = rings(SIZE, nearest=False).count[1 : SIZE // 2], RNG(1)
    params = rng.uniform(-1, 1, (500, 1))
    found = fisher_floor(np.tile(params, len(modes)), params, ["ln A"], SIZE, (3, 15, 30))
    for n, error in zip(found["sizes"], found["error"]["ln A"], strict=True):
        read = (rng.chisquare(n * modes, (4000, len(modes))) / (n * modes)) @ modes / modes.sum()
        assert read.std() == pytest.approx(error, rel=0.05)
    assert np.all(np.diff(found["r2"]["ln A"]) > 0)
