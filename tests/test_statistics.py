"""Every statistic on a field with a known answer."""

import math

import numpy as np
import pytest
import torch
from powerbox import get_power
from scipy.ndimage import maximum_filter
from sklearn.decomposition import PCA
from sklearn.metrics import r2_score

from uvae_lib.statistics import (
    band_powers,
    cross_correlation,
    fourier_pca,
    fvu,
    minkowski,
    peak_counts,
    pixel_pdf,
    power_spectrum,
    project,
    r2,
    rings,
    second_difference_kurtosis,
    transfer_function,
)

BOX = 100.0


def white_noise(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def wavenumber(size, box_size=BOX):
    k = 2 * math.pi * torch.fft.fftfreq(size, box_size / size, dtype=torch.float64)
    return torch.hypot(k[:, None], k)


def gaussian_field(n, size, power, seed=0):
    """n periodic Gaussian fields (n, size, size), float64, side BOX, spectrum power(k), zero mean."""
    k = wavenumber(size)
    amplitude = power(k.clamp_min(1e-9)).sqrt() * size / BOX
    amplitude[0, 0] = 0
    noise = white_noise(n, size, size, seed=seed, dtype=torch.float64)
    return torch.fft.ifft2(torch.fft.fft2(noise) * amplitude).real


def plane_wave(size, rows, columns, amplitude=1.0):
    x = 2 * math.pi * torch.arange(size, dtype=torch.float64) / size
    return amplitude * torch.cos(rows * x[:, None] + columns * x + 0.3)


def disc(size, radius, centre=(0.0, 0.0)):
    """1 in a disc of some pixels, placed on a periodic grid, 0 elsewhere."""
    x = torch.arange(size, dtype=torch.float64)
    row, column = ((x - c + size / 2) % size - size / 2 for c in centre)
    return (torch.hypot(row[:, None], column) <= radius).double()


def mode_counts(size):
    """Modes in the bins (n,) of size x size images, both +-k; Gaussian P scatters by P sqrt(2 / N)."""
    return torch.tensor(rings(size, nearest=False).count[1 : size // 2], dtype=torch.int64)


# --- power spectrum


def test_white_noise_has_the_power_of_its_variance_times_the_pixel_area():
    k, power = power_spectrum(3.0 * white_noise(300, 32, 32), BOX)
    error = (2 / (300 * mode_counts(32))).sqrt()
    assert ((power.mean(0) / (9 * (BOX / 32) ** 2) - 1).abs() < 4.5 * error).all()
    assert k.shape == power.shape[1:] == (15,)


@pytest.mark.parametrize("wave, ring", [((3, 4), 5), ((0, 7), 7), ((5, -5), 7), ((1, 0), 1), ((2, 2), 2)])
def test_a_plane_wave_has_all_its_power_in_its_bin(wave, ring):
    power = power_spectrum(plane_wave(32, *wave, amplitude=2.0), BOX)[1]
    variance = power * mode_counts(32) / BOX**2
    expected = torch.zeros(15, dtype=torch.float64)
    expected[ring - 1] = 2.0**2 / 2
    torch.testing.assert_close(variance, expected)


@pytest.mark.parametrize("size", [32, 33])
def test_the_spectrum_of_a_band_limited_field_sums_to_its_variance(size):
    highest = 2 * math.pi / BOX * (size // 2)
    field = gaussian_field(4, size, lambda k: torch.where(k < 0.999 * highest, 1 / k, 0.0))
    power = power_spectrum(field, BOX)[1]
    total = (power * mode_counts(size)).sum(-1) / BOX**2
    torch.testing.assert_close(total, field.var((-2, -1), correction=0))


def test_bins_begin_at_the_fundamental_mode_are_as_wide_and_end_at_the_nyquist_frequency():
    k, power = power_spectrum(white_noise(64, 64), BOX)
    fundamental = 2 * math.pi / BOX
    ring = torch.arange(1, 32)
    assert ((k >= fundamental * ring) & (k < fundamental * (ring + 1))).all()
    modes = wavenumber(64)
    inside = (modes > 0.999 * fundamental) & (modes < 0.999 * 32 * fundamental)
    assert mode_counts(64).sum() == inside.sum() and len(power) == 31


@pytest.mark.parametrize("size", [32, 33])
def test_the_spectrum_agrees_with_powerbox(size):
    field = gaussian_field(1, size, lambda k: k**-1.5)[0]
    edges = 2 * math.pi / BOX * (np.arange(1, size // 2 + 1) - 1e-6)
    theirs = get_power(field.numpy(), BOX, bins=edges, ignore_zero_mode=True, dimensionless=False)
    k, power = power_spectrum(field, BOX)
    np.testing.assert_allclose(power, theirs.power, rtol=1e-9)
    np.testing.assert_allclose(mode_counts(size), theirs.nsamples)
    np.testing.assert_allclose(k, theirs.bin_avg, rtol=1e-9)


def test_a_constant_added_to_a_field_changes_no_spectrum():
    field = white_noise(32, 32, dtype=torch.float64)
    torch.testing.assert_close(power_spectrum(field + 7, BOX), power_spectrum(field, BOX))


def test_a_hann_window_keeps_the_power_of_white_noise_beyond_the_first_bin():
    power = power_spectrum(white_noise(2000, 32, 32), BOX, window="hann")[1].mean(0) / (BOX / 32) ** 2
    # first bin: 4 modes at (1, 0) keep 7 / 12, 4 modes at (1, 1) keep 121 / 144, because the mean is removed
    assert power[0] == pytest.approx((7 / 12 + 121 / 144) / 2, abs=0.03)
    torch.testing.assert_close(power[1:], torch.ones(14), atol=0.03, rtol=0)


def test_a_hann_window_recovers_a_steep_spectrum_from_crops_and_no_window_does_not():
    crops = gaussian_field(60, 128, lambda k: k**-4)[:, :64, :64]
    k, windowed = power_spectrum(crops, BOX / 2, window="hann")
    bare = power_spectrum(crops, BOX / 2)[1]
    high = slice(8, 31)
    assert ((windowed.mean(0) * k**4)[high] - 1).abs().max() < 0.15
    assert (bare.mean(0) * k**4)[high].min() > 2


def test_leading_dimensions_are_a_batch():
    field = white_noise(2, 3, 1, 32, 32)
    power = power_spectrum(field, BOX)[1]
    assert power.shape == (2, 3, 1, 15)
    torch.testing.assert_close(power[1, 2, 0], power_spectrum(field[1, 2, 0], BOX)[1])


@pytest.mark.parametrize("given, computed", [(torch.bfloat16, torch.float32), (torch.float64, torch.float64)])
def test_half_precision_is_raised_to_float32_and_float64_stays(given, computed):
    field = white_noise(32, 32).to(given)
    k, power = power_spectrum(field, BOX)
    assert k.dtype == power.dtype == computed
    torch.testing.assert_close(power, power_spectrum(field.double(), BOX)[1].to(computed))


def test_autocast_does_not_lower_the_precision():
    field = white_noise(40, 16, 16)
    pca = fourier_pca(field, 5)
    plain = power_spectrum(field, BOX)[1], project(field, pca)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(power_spectrum(field, BOX)[1], plain[0])
        assert torch.equal(project(field, pca), plain[1])


def test_gradients_flow_after_a_first_call_in_inference_mode():
    with torch.inference_mode():
        power_spectrum(white_noise(20, 20), BOX)
    field = white_noise(20, 20).requires_grad_()
    power_spectrum(field, BOX)[1].sum().backward()
    assert field.grad.abs().sum() > 0


def test_a_field_that_is_not_square_is_named():
    with pytest.raises(ValueError, match="H, H"):
        power_spectrum(torch.zeros(16, 32), BOX)


# --- cross-correlation and transfer function


def test_a_field_correlates_fully_with_itself_and_negatively_with_its_negative():
    field = white_noise(32, 32, dtype=torch.float64)
    k, r = cross_correlation(torch.stack([field, -3 * field]), field, BOX)
    torch.testing.assert_close(r, torch.tensor([[1.0], [-1.0]], dtype=torch.float64).expand(2, 15))
    torch.testing.assert_close(k, power_spectrum(field, BOX)[0])


def test_noise_of_equal_power_lowers_the_correlation_to_one_over_root_two():
    a, noise = white_noise(200, 32, 32), white_noise(200, 32, 32, seed=1)
    r = cross_correlation(a, a + noise, BOX)[1].mean(0)
    torch.testing.assert_close(r[2:], torch.full((13,), 0.5**0.5), atol=0.02, rtol=0)


def test_unrelated_fields_scatter_around_no_correlation_by_the_number_of_modes():
    r = cross_correlation(white_noise(400, 32, 32), white_noise(400, 32, 32, seed=1), BOX)[1]
    expected = mode_counts(32).rsqrt()  # as many real numbers as modes: cos and sin of each pair +-k
    assert (r.mean(0).abs() < 4.5 * expected / 400**0.5).all()
    torch.testing.assert_close(r.std(0) / expected, torch.ones(15), atol=0.15, rtol=0)


def test_the_correlation_ignores_any_filter_that_is_constant_in_a_bin():
    field = white_noise(32, 32, dtype=torch.float64)
    shell = (wavenumber(32) * BOX / (2 * math.pi) + 1e-9).floor()
    filtered = torch.fft.ifft2(torch.fft.fft2(field) * torch.exp(-shell / 4)).real
    torch.testing.assert_close(cross_correlation(field, filtered, BOX)[1], torch.ones(15, dtype=torch.float64))
    transfer = transfer_function(filtered, field, BOX)[1]
    torch.testing.assert_close(transfer, torch.exp(-torch.arange(1, 16, dtype=torch.float64) / 4))


# --- bands, chi squared


def test_spectra_of_gaussian_fields_scatter_by_the_number_of_their_modes():
    power = power_spectrum(white_noise(2000, 16, 16), BOX)[1]
    variance = power.var(0) / power.mean(0) ** 2
    torch.testing.assert_close(variance * mode_counts(16) / 2, torch.ones(7), atol=0.2, rtol=0)


@pytest.mark.parametrize("n_bands", [1, 2, 8, 40, 63])
def test_bands_share_out_all_bins_and_none_is_empty(n_bands):
    one_hot = torch.eye(63)  # a spectrum for each bin, with power in this bin alone
    share = band_powers(one_hot, n_bands)
    assert share.shape == (63, n_bands)
    assert ((share > 0).sum(1) == 1).all()
    torch.testing.assert_close(share.sum(0), torch.ones(n_bands))


# --- pixels


def test_the_pdf_is_that_of_numpy_where_all_pixels_are_inside():
    field, edges = white_noise(3, 16, 20), torch.linspace(-6, 6, 25)
    found = pixel_pdf(field, edges)
    expected = [np.histogram(image, edges.numpy(), density=True)[0] for image in field.numpy()]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_pdf_integrates_to_the_share_of_pixels_inside_its_edges():
    field = torch.tensor([[0.0, 1.0], [2.0, 3.0]])
    edges = torch.tensor([0.0, 1.5, 3.0])  # 3.0 itself is outside: bins are half open
    torch.testing.assert_close(pixel_pdf(field, edges), torch.tensor([2 / 4 / 1.5, 1 / 4 / 1.5]))


# --- peaks and minima


def test_peaks_are_those_of_a_maximum_filter_that_wraps():
    field = white_noise(4, 24, 20)
    peaks = [maximum_filter(image, 3, mode="wrap") == image for image in field.numpy()]
    thresholds = [-10.0, 0.5, 1.5]
    expected = [[(image[p] >= t).sum() for t in thresholds] for image, p in zip(field.numpy(), peaks, strict=True)]
    np.testing.assert_array_equal(peak_counts(field, thresholds), expected)


def test_an_egg_box_has_one_peak_and_one_minimum_a_period_at_every_shift():
    x = torch.cos(2 * math.pi * 4 * torch.arange(32) / 32)
    for shift in (0, 1, 5):
        field = (x[:, None] + x).roll((shift, shift), (0, 1))
        assert peak_counts(field, [0.0, 1.9, 2.1]).tolist() == [16, 16, 0]
        assert peak_counts(-field, [0.0, 1.9, 2.1]).tolist() == [16, 16, 0]


def test_a_plateau_has_no_peak():
    assert peak_counts(disc(16, 3), [0.0, 0.5]).tolist() == [0, 0]


def test_one_pixel_in_nine_of_white_noise_is_a_peak():
    share = peak_counts(white_noise(200, 32, 32), [-100.0]).mean() / 32**2
    assert share == pytest.approx(1 / 9, abs=0.002)


@pytest.mark.parametrize("statistic", [peak_counts, pixel_pdf])
def test_nan_is_not_counted_in_silence(statistic):
    field = torch.zeros(8, 8)
    field[2, 2] = torch.nan
    with pytest.raises(ValueError, match="1 pixels are NaN"):
        statistic(field, [0.0, 1.0])


# --- Minkowski functionals


def test_a_disc_has_its_area_its_perimeter_and_one_component():
    radius = 20
    v0, v1, v2 = minkowski(disc(64, radius, centre=(3.3, 60.1)), [0.5], box_size=64.0)
    assert v0.item() * 64**2 == pytest.approx(math.pi * radius**2, rel=0.01)
    assert v1.item() * 64**2 == pytest.approx(2 * math.pi * radius, rel=0.03)
    assert v2.item() * 64**2 == pytest.approx(1)


@pytest.mark.parametrize(
    "field, euler",
    [
        (disc(32, 4, (2, 2)) + disc(32, 4, (16, 16)), 2),
        (disc(32, 10) - disc(32, 4), 0),
        (1 - disc(32, 4), -1),
        (plane_wave(32, 2, 0), 0),
        (torch.ones(32, 32), 0),
        (torch.zeros(32, 32), 0),
    ],
    ids=["two discs", "a ring", "a hole in a torus", "two bands around", "a whole torus", "nothing"],
)
def test_the_euler_characteristic_counts_components_less_holes(field, euler):
    assert minkowski(field, [0.5], BOX)[2].item() * BOX**2 == pytest.approx(euler)


def test_white_noise_has_the_minkowski_functionals_of_independent_pixels():
    thresholds = torch.tensor([-1.0, 0.0, 0.8])
    v0, v1, v2 = (v.mean(0) for v in minkowski(white_noise(400, 32, 32), thresholds, box_size=32.0))
    p = torch.erfc(thresholds / 2**0.5) / 2
    q = 1 - p
    torch.testing.assert_close(v0, p, atol=0.003, rtol=0)
    torch.testing.assert_close(v1, math.pi / 4 * 2 * (2 * p * q), atol=0.003, rtol=0)
    apart, joined = p - 2 * p**2 + p**4, p - 2 * (1 - q**2) + 1 - q**4
    torch.testing.assert_close(v2, (apart + joined) / 2, atol=0.003, rtol=0)


def test_smooth_gaussian_fields_follow_the_analytic_minkowski_curves():
    size, smoothing = 128, 2.5 * BOX / 128
    power = lambda k: torch.exp(-((k * smoothing) ** 2))  # noqa: E731
    field = gaussian_field(100, size, power)
    k = wavenumber(size)
    share = power(k)
    share[0, 0] = 0
    variance, gradient_variance = share.sum() / BOX**2, (share * k**2).sum() / 2 / BOX**2
    x = torch.linspace(-2.5, 2.5, 11, dtype=torch.float64)
    bell, slope2 = torch.exp(-(x**2) / 2), gradient_variance / variance
    curves = torch.erfc(x / 2**0.5) / 2, slope2.sqrt() / 2 * bell, slope2 * (2 * math.pi) ** -1.5 * x * bell
    found = minkowski(field, x * variance.sqrt(), BOX)
    for measured, curve, tolerance in zip(found, curves, (0.01, 0.02, 0.05), strict=True):
        assert (measured.mean(0) - curve).abs().max() < tolerance * curve.abs().max()


def test_minkowski_functionals_carry_the_units_of_the_box():
    field, thresholds = white_noise(2, 16, 16), [-0.5, 0.5]
    once, twice = minkowski(field, thresholds, BOX), minkowski(field, thresholds, 2 * BOX)
    for power, (a, b) in enumerate(zip(once, twice, strict=True)):
        torch.testing.assert_close(a, b * 2**power)


def test_turning_a_field_upside_down_turns_its_genus_curve_around():
    field, thresholds = white_noise(32, 32, dtype=torch.float64), torch.tensor([-1.0, 0.2, 1.3])
    v0, v1, v2 = minkowski(field, thresholds, BOX)
    w0, w1, w2 = minkowski(-field, -thresholds.flip(0), BOX)
    torch.testing.assert_close((w0.flip(0), w1.flip(0), w2.flip(0)), (1 - v0, v1, -v2))


# --- principal components


def translations(image):
    """Every periodic translation of an image: a sample whose population is known completely."""
    rows, columns = image.shape
    return torch.stack([image.roll((i, j), (0, 1)) for i in range(rows) for j in range(columns)])


def by_svd(images, train, n_components):
    """What scikit-learn's PCA of training images leaves of images."""
    fitted = PCA(n_components, svd_solver="full").fit(train.flatten(1).numpy())
    return torch.from_numpy(fitted.inverse_transform(fitted.transform(images.flatten(1).numpy()))).view_as(images)


@pytest.mark.parametrize("n_components", [1, 2, 7, 20])
def test_the_fourier_modes_are_the_pca_of_all_translations_of_an_image(n_components):
    train = translations(white_noise(8, 8, dtype=torch.float64))
    by_modes = fvu(train, project(train, fourier_pca(train, n_components)))
    torch.testing.assert_close(by_modes, fvu(train, by_svd(train, train, n_components)))
    assert fourier_pca(train, n_components).mask.sum() == n_components


@pytest.mark.parametrize(
    "wave, n_components", [((3, 4), 2), ((0, 8), 1), ((8, 8), 1), ((0, 3), 2), ((8, 3), 2), ((8, 0), 1)]
)
def test_a_wave_needs_two_real_numbers_and_a_self_conjugate_one_needs_one(wave, n_components):
    wave = 1 + translations(plane_wave(16, *wave))
    complete = project(wave, fourier_pca(wave, n_components))
    torch.testing.assert_close(complete, wave)
    if n_components == 2:  # cos without sin explains half
        half = fvu(wave, project(wave, fourier_pca(wave, 1)), 1.0)
        assert half == pytest.approx(0.5)


def test_what_fourier_modes_do_not_explain_is_the_power_of_the_modes_left_out():
    images = gaussian_field(300, 16, lambda k: k**-2)
    pca = fourier_pca(images, 41)
    power = torch.fft.fft2(images - pca.mean).abs().square().mean(0)
    found = fvu(images, project(images, pca), pca.mean)
    assert found.item() == pytest.approx((power[~pca.mask].sum() / power.sum()).item(), rel=0.01)


def test_a_projection_repeated_changes_nothing_and_all_modes_give_the_image_back():
    images = white_noise(5, 2, 12, 12, dtype=torch.float64)
    pca = fourier_pca(images, 33)
    once = project(images, pca)
    torch.testing.assert_close(project(once, pca), once)
    torch.testing.assert_close(project(images, fourier_pca(images, 144)), images)


def test_fourier_modes_explain_unseen_images_better_than_the_pca_of_a_small_sample():
    images = gaussian_field(300, 16, lambda k: k**-3)
    train, unseen = images[:60], images[60:]
    assert fvu(unseen, project(unseen, fourier_pca(train, 40))) < 0.8 * fvu(unseen, by_svd(unseen, train, 40))


# --- how good an approximation is


def test_the_truth_explains_everything_its_mean_nothing_and_half_a_field_three_quarters():
    truth = white_noise(4, 16, 16, dtype=torch.float64)
    found = [fvu(truth, x).item() for x in (truth, truth.mean(), truth.mean() + (truth - truth.mean()) / 2)]
    assert found == pytest.approx([0, 1, 0.25])


def test_the_unexplained_share_of_each_image_is_that_of_its_own_variance():
    truth, noise = white_noise(3, 16, 16), white_noise(3, 16, 16, seed=1)
    found = fvu(truth, truth + noise, dim=(1, 2))
    torch.testing.assert_close(found, torch.stack([fvu(t, t + n) for t, n in zip(truth, noise, strict=True)]))


def test_r2_is_that_of_scikit_learn():
    truth, predicted = white_noise(30, 2, dtype=torch.float64).numpy(), white_noise(30, 2, seed=1).numpy()
    np.testing.assert_allclose(r2(truth, predicted), r2_score(truth, predicted, multioutput="raw_values"))


@pytest.mark.parametrize("value", [0.3, 0.1 + 0.2, 0.0, 1e9 / 3])
def test_a_parameter_that_does_not_vary_has_no_r2(value):
    truth = np.full((7, 1), value)
    assert np.isnan(r2(truth, truth + 1e-9)).all()


# --- second differences


def test_second_differences_of_noise_have_the_kurtosis_of_a_gaussian_and_spikes_more():
    field = white_noise(40, 64, 64)
    assert second_difference_kurtosis(field).shape == (40,)
    assert second_difference_kurtosis(field).mean().item() == pytest.approx(3, abs=0.1)
    assert second_difference_kurtosis(field**3).min() > 10
