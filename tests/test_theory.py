"""Responses of Gaussian theory, on what is known."""

import numpy as np
import pytest
import torch

from uvae_lib.analysis.responses import slope_weights
from uvae_lib.analysis.theory import lognormal_power, lognormal_response
from uvae_lib.simulation.particle_mesh import linear_power
from uvae_lib.statistics import power_spectrum

NAMES = ["Omega_m", "sigma_8"]


def test_a_quiet_universe_responds_as_linear_theory_does():
    values = np.array([0.019, 0.02, 0.021])
    asked = np.column_stack([np.full(3, 0.3), values])
    found = lognormal_response(asked, slope_weights(values, 0.02), NAMES, 32, 64.0)
    assert found == pytest.approx(np.full(len(found), 2 / 0.02), rel=0.02)


def test_spectrum_is_that_of_planes_of_a_lognormal_field():
    """Drawn on the mesh: a Gaussian field whose exponential has the linear spectrum."""
    size, box, (k, power) = 32, 64.0, linear_power(0.3, 0.6)
    waves = 2 * np.pi * np.fft.fftfreq(size)
    axes = np.meshgrid(waves, waves, waves, indexing="ij")
    length = np.sqrt(sum(axis**2 for axis in axes)) * size / box
    length[0, 0, 0] = 1
    spectrum = np.exp(np.interp(np.log(length), np.log(k), np.log(power))) * (size / box) ** 3
    spectrum *= np.prod([np.sinc(axis / (2 * np.pi)) ** 4 for axis in axes], axis=0)
    spectrum[0, 0, 0] = 0
    of_log = np.fft.fftn(np.log1p(np.fft.ifftn(spectrum).real)).real.clip(0)
    rng, found = np.random.default_rng(0), []
    for _ in range(20):
        white = np.fft.fftn(rng.standard_normal((size,) * 3))
        log_density = np.fft.ifftn(white * np.sqrt(of_log)).real
        found.append(power_spectrum(torch.from_numpy(log_density), box)[1].mean(dim=0))
    expected = lognormal_power(0.3, 0.6, size, box)[1]
    assert torch.stack(found).mean(dim=0) == pytest.approx(expected.numpy(), rel=0.1)
