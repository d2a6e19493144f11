"""The linear part of the model: 512 numbers of a slice's largest modes, and back."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from suites import gaussian_noise, lognormal_suite

from uvae_lib.cubes.suite import open_cubes
from uvae_lib.model import UniverseVAE, map_shape
from uvae_lib.training.slices import pixel_power
from uvae_lib.variants.fourier import FourierModes, SliceSummary, discriminants, fourier_start
from uvae_lib.variants.layers import group_norm, zero_init_residuals

SIZES = [32, 64, 128, 256, 512]
RED = 1 / (1 + torch.arange(64.0)) ** 2


def red_modes(size: int) -> FourierModes:
    modes = FourierModes(size, map_shape(size))
    modes.set_power(RED)
    return modes


def gaussian_fields(n: int, size: int, seed: int = 0) -> torch.Tensor:
    """Fields of the spectrum RED, (n, 1, size, size)."""
    return gaussian_noise(n, size, lambda k: 1 / (1 + k) ** 2, seed)


@pytest.mark.parametrize("size", SIZES)
def test_512_numbers_become_a_slice_and_the_same_512_numbers_again(size):
    modes, h = red_modes(size), torch.randn(2, *map_shape(size), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(modes(modes.inverse(h)), h, atol=2e-5, rtol=0)


@pytest.mark.parametrize("size", SIZES)
def test_with_a_white_spectrum_the_slice_has_the_length_of_its_numbers(size):
    modes, h = FourierModes(size, map_shape(size)), torch.randn(2, *map_shape(size))
    torch.testing.assert_close(modes.inverse(h).square().sum(), h.square().sum(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("size", [32, 128])
def test_there_and_back_is_a_projection_that_never_adds_variance(size):
    modes, x = FourierModes(size, map_shape(size)), gaussian_fields(4, size)
    once = modes.inverse(modes(x))
    torch.testing.assert_close(modes.inverse(modes(once)), once, atol=1e-5, rtol=0)
    assert ((x - once).square().sum() + once.square().sum()).item() == pytest.approx(x.square().sum().item(), rel=1e-4)


def test_the_numbers_of_a_gaussian_field_are_uncorrelated_with_variance_one():
    h = red_modes(128)(gaussian_fields(3000, 128)).flatten(1)
    covariance = h.T @ h / len(h)
    assert (covariance - torch.eye(512)).abs().max() < 6 * math.sqrt(2 / len(h))


@pytest.mark.parametrize("size", SIZES)
def test_the_modes_are_the_largest_scales_as_many_of_each_class(size):
    modes, m = FourierModes(size, map_shape(size)), map_shape(size)[1]
    reach = torch.hypot(*modes.k.double())
    assert reach.max() < (16.1 if size == 512 else 13.1)
    pairs = {(min(a % m * m + b % m, -a % m * m + -b % m)) for a, b in modes.k.T.tolist()}
    assert len(pairs) == (m**2 + (1 if m == 1 else 4)) // 2  # every class or its mirror image
    everything = torch.cartesian_prod(torch.arange(-16, 17), torch.arange(-16, 17)).double().norm(dim=1)
    assert (everything < reach.max() - (0.8 if size < 512 else 8)).sum() < 512 <= (everything < reach.max() + 0.1).sum()


def test_a_plane_wave_inside_the_disc_is_kept_and_one_outside_is_lost():
    modes, x = red_modes(128), torch.arange(128.0) * 2 * math.pi / 128
    kept, lost = (torch.cos(a * x[:, None] + b * x + 0.7)[None, None] for a, b in ((8, 9), (12, 9)))
    torch.testing.assert_close(modes.inverse(modes(kept)), kept, atol=1e-5, rtol=0)
    assert modes(lost).abs().max() < 1e-4 * modes(kept).abs().max()


def test_it_leaves_no_more_than_as_many_principal_components():
    modes, x = red_modes(128), gaussian_fields(64, 128)
    left = (x - modes.inverse(modes(x))).square().sum()
    power = torch.fft.fft2(x[:, 0], norm="ortho").abs().square()
    k = torch.fft.fftfreq(128, 1 / 128)
    largest = (1 / (1 + torch.hypot(k[:, None], k))).flatten().argsort(descending=True)[:512]
    best = power.sum() - power.flatten(1)[:, largest].sum()
    assert (left / best).item() == pytest.approx(1.0, abs=2e-3)


def test_most_of_a_number_is_in_its_cell_and_the_cells_around():
    modes = red_modes(128)
    h = torch.zeros(32, 32, 4, 4)
    h[torch.arange(32), torch.arange(32), 1, 1] = 1.0
    energy = modes.inverse(h)[:, 0].square()
    energy = energy / energy.sum(dim=(1, 2), keepdim=True)
    assert energy[:, 32:64, 32:64].sum(dim=(1, 2)).mean() > 0.7
    assert energy[:, 16:80, 16:80].sum(dim=(1, 2)).mean() > 0.93


def test_moving_a_slice_by_a_cell_moves_its_map_by_one():
    modes, x = red_modes(128), gaussian_fields(2, 128)
    torch.testing.assert_close(modes(x.roll((32, 64), (2, 3))), modes(x).roll((1, 2), (2, 3)), atol=1e-5, rtol=0)


def test_the_first_channels_of_a_cell_are_its_largest_scales():
    modes = red_modes(128)
    h = torch.zeros(32, 32, 4, 4)
    h[torch.arange(32), torch.arange(32), 1, 1] = 1.0
    variance = modes.inverse(h).square().sum(dim=(1, 2, 3))
    assert variance[0] == variance.max() and variance[:8].mean() > 4 * variance[-8:].mean()


def test_more_numbers_than_modes_are_refused():
    with pytest.raises(ValueError, match=r"found latent_dim=1024 at image_size=32; .* smaller latent_dim, or fou"):
        FourierModes(32, (1024, 1, 1))


def test_a_linear_model_starts_as_the_projection_on_the_modes():
    model = fourier_start(zero_init_residuals(UniverseVAE(64)), RED)
    group_norm(model.encoder), group_norm(model.decoder_h, keep_amplitude=False)
    x = gaussian_fields(2, 64)
    with torch.no_grad():
        f = model.encoder.features(x)
        mu = model.encoder.h_posterior(f, torch.randn(2, 512)).chunk(2, dim=1)[0]
        recon = model.decoder_h(mu)
    torch.testing.assert_close(mu.unflatten(1, (128, 2, 2)), model.encoder.modes(x), atol=1e-5, rtol=0)
    torch.testing.assert_close(recon, model.encoder.modes.inverse(model.encoder.modes(x)), atol=1e-4, rtol=0)


def test_the_start_takes_over_the_weights_of_the_model():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        plain = UniverseVAE(32).state_dict()
        torch.manual_seed(0)
        started = fourier_start(UniverseVAE(32)).state_dict()
    changed = {name for name in plain if not torch.equal(plain[name], started[name])}
    assert changed == {
        f"{layer}.{p}" for layer in ("encoder.h_head", "decoder_h.layers.16") for p in ("weight", "bias")
    }


def test_the_spectrum_of_a_suite_sums_to_the_variance_of_its_pixels(tmp_path):
    suite = open_cubes(lognormal_suite(tmp_path))
    power = torch.tensor(pixel_power(suite, [0, 1, 2], mean=0.0, std=1.0, size=32))
    k = torch.fft.fftfreq(32, 1 / 32, dtype=torch.float64)
    n_modes = torch.bincount(torch.hypot(k[:, None], k).round().long().flatten())
    x = torch.stack([torch.from_numpy(suite.overdensity(i)) for i in range(3)]).double().add(1e-8).log()
    assert (power * n_modes).sum().item() / 32**2 == pytest.approx(x.square().mean().item(), rel=0.2)


# --- the statistics from which z starts


def test_the_spectrum_of_a_typical_field_is_zero_in_logarithm_and_a_louder_one_is_its_gain():
    statistics, x = SliceSummary(64), gaussian_fields(512, 64)
    statistics.set_power(1 / (1 + torch.arange(64.0)) ** 2)
    n_rings = 32
    assert statistics(x)[:, 4:n_rings].mean(dim=0).abs().max() < 0.1
    gain = statistics(3 * x)[:, :n_rings] - statistics(x)[:, :n_rings]
    torch.testing.assert_close(gain, torch.full_like(gain, 2 * math.log(3)), atol=1e-4, rtol=0)


def test_the_moments_are_those_of_scipy():
    x = gaussian_fields(4, 64).exp()
    found, pixels = SliceSummary(64)(x)[:, -4:], x.flatten(1).double().numpy()
    expected = [pixels.mean(1), np.log(pixels.std(1)), stats.skew(pixels, axis=1), stats.kurtosis(pixels, axis=1)]
    torch.testing.assert_close(found.double(), torch.from_numpy(np.stack(expected, axis=1)), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("size", SIZES)
def test_statistics_do_not_see_where_a_slice_begins_nor_how_it_is_turned(size):
    statistics, x = SliceSummary(size), gaussian_fields(1, size)
    moved = x.roll((5, 11), (2, 3)).transpose(2, 3).flip(2)
    torch.testing.assert_close(statistics(moved), statistics(x), atol=2e-3, rtol=1e-3)


def test_a_slice_without_contrast_has_finite_statistics():
    assert SliceSummary(32)(torch.zeros(1, 1, 32, 32)).isfinite().all()


def universes(n: int, n_slices: int, seed: int = 0) -> tuple[list[torch.Tensor], np.ndarray]:
    """Fields of n universes whose amplitude varies by a lot and whose tilt varies by little: slices, tilts."""
    rng, k = np.random.default_rng(seed), torch.fft.fftfreq(32, 1 / 32)
    length = torch.hypot(k[:, None], k[None, : 32 // 2 + 1]).clamp_min(1)
    amplitude, tilt = rng.normal(0, 0.5, n), rng.normal(0, 0.1, n)
    white = torch.from_numpy(rng.standard_normal((n, n_slices, 32, 32))).float()
    filters = torch.stack([a * length ** (-1 + b) for a, b in zip(np.exp(amplitude), tilt, strict=True)])
    return list(torch.fft.irfft2(torch.fft.rfft2(white) * filters[:, None])), tilt


def test_discriminants_tell_the_tilt_as_loudly_as_the_amplitude():
    slices, _ = universes(64, 12)
    told = discriminants(slices, [1.0] * 17, 4)
    others, tilt = universes(200, 12, seed=1)
    found = torch.stack([SliceSummary(32)(x[:, None]) @ told[:-1] + told[-1] for x in others])
    assert found.flatten(0, 1).std(dim=0) == pytest.approx(np.ones(4), abs=0.25)
    share = (found.mean(dim=1).var(dim=0) / found.flatten(0, 1).var(dim=0)).tolist()
    assert share[0] > 0.9 and share[1] > 0.3 and max(share[2:]) < 0.2
    fit = np.linalg.lstsq(np.c_[np.ones(200), found.mean(dim=1)[:, :2].numpy()], tilt, rcond=None)
    assert 1 - fit[1][0] / 200 / tilt.var() > 0.8


def test_fewer_cubes_than_discriminants_leave_the_last_silent():
    told = discriminants(universes(3, 12)[0], [1.0] * 17, 4)
    assert told[:, :2].any(dim=0).all() and not told[:, 2:].any() and told.isfinite().all()


def test_an_encoder_with_discriminants_reads_them():
    told = torch.randn(21, 4)
    plain, model = (fourier_start(UniverseVAE(32), n_told=n, told=t) for n, t in ((0, None), (4, told)))
    x = torch.randn(2, 1, 32, 32)
    summary = SliceSummary(32)(x)
    assert plain.encoder.features(x)[:, -20:, 0, 0].equal(summary)
    torch.testing.assert_close(model.encoder.features(x)[:, -4:, 0, 0], summary @ told[:-1] + told[-1])
