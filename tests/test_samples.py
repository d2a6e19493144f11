"""Figures of merit on fields that are alike, and on fields that differ by what is known."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from suites import gaussian_noise

from uvae_lib.analysis import samples

SIZE = 32


def universes(n: int, slope: float = -2.0, seed: int = 0, n_slices: int = 16) -> list[torch.Tensor]:
    """Gaussian slices of unit variance with power (1 + |k|)^slope, one tensor (n_slices, 1, SIZE, SIZE) a universe."""
    fields = [
        gaussian_noise(size, SIZE, lambda k: (1 + k) ** slope, which)
        for size, which in ((n * n_slices, seed), (500, 999))
    ]
    return list((fields[0] / fields[1].std()).split(n_slices))  # one scale for all seeds


def test_truth_against_itself_has_no_error():
    found = samples.sample_quality(universes(3), universes(3), 32.0)
    errors = {name: value for name, value in found.items() if name.endswith("_error")}
    assert len(errors) == 8 and max(map(abs, errors.values())) < 1e-5


def test_fields_drawn_alike_differ_by_their_scatter_alone():
    found = samples.sample_quality(universes(20), universes(20, seed=1), 32.0)
    assert found["power_error"] < 0.2 and found["pdf_error"] < 0.1 and 0.7 < found["bispectrum_error"] < 2.5
    assert max(found[f"{name}_error"] for name in ("length", "peak", "minimum")) < 0.05 and found["euler_error"] < 0.15
    assert found["chi2_truth"] == pytest.approx(1, abs=0.15) and found["chi2"] == pytest.approx(1, abs=0.25)


def test_another_spectrum_shows_in_every_statistic_that_sees_scales():
    found = samples.sample_quality(universes(20), universes(20, slope=-1.0, seed=1), 32.0)
    assert found["power_error"] > 0.5 and found["chi2"] > 3
    assert min(found[f"{name}_error"] for name in ("length", "euler", "peak", "minimum")) > 0.1


def test_the_same_spectrum_with_other_phases_shows_beyond_it():
    skewed = [torch.exp(0.7 * x) for x in universes(20)]
    modes = [torch.fft.rfft2(x) for x in skewed]
    random = [torch.fft.rfft2(torch.randn(x.shape, generator=torch.Generator().manual_seed(7))) for x in skewed]
    shuffled = [torch.fft.irfft2(a.abs() * b / b.abs(), s=(SIZE, SIZE)) for a, b in zip(modes, random, strict=True)]
    found = samples.sample_quality(skewed, shuffled, 32.0)
    assert found["power_error"] < 1e-3
    assert found["pdf_error"] > 0.3 and found["bispectrum_error"] > 5 and found["kurtosis_error"] < -0.2


def test_the_error_of_a_curve_is_its_largest_gap_over_its_largest_value():
    assert samples.curve_error(torch.tensor([[1.0, 4.0]]), torch.tensor([[2.0, 3.0], [2.0, 5.0]])) == 0.25


def test_few_slices_have_no_chi2():
    assert samples.power_chi2(universes(2, n_slices=4), universes(2, n_slices=4), 32.0)["chi2"] is None


def test_a_sampler_as_uncertain_as_the_truth_has_spread_one_and_a_timid_one_less():
    mean, *noise = (torch.cat(universes(8, seed=i)) for i in range(4))
    truth, first, second = (mean + x for x in noise)
    found = samples.conditional_spread(truth, first, second, 32.0)
    np.testing.assert_allclose(found["spread"], 1, atol=0.2)
    timid = samples.conditional_spread(truth, mean + 0.5 * noise[1], mean + 0.5 * noise[2], 32.0)
    np.testing.assert_allclose(timid["spread"], 2 * 0.25 / 1.25, atol=0.12)


# --- the classifier


def test_smoothing_damps_waves_by_its_gaussian_and_leaves_out_what_says_nothing():
    wave = torch.cos(2 * torch.pi * 4 * torch.arange(128) / 128).expand(128, 128)
    found = samples.smoothed(wave, 2.0)
    assert found.shape == (64, 64) and samples.smoothed(wave, 4.0).shape == (32, 32)
    assert (found.max() / wave.max()).item() == pytest.approx(np.exp(-0.5 * (2 * 2 * np.pi * 4 / 128) ** 2), rel=1e-3)
    torch.testing.assert_close(samples.smoothed(wave, 0.0), wave, atol=1e-5, rtol=0)


def test_the_classifier_does_not_see_where_the_box_begins():
    network, x = samples.classifier_network().eval(), universes(1)[0]
    torch.testing.assert_close(network(x.roll((8, 16), (-2, -1))), network(x), atol=1e-4, rtol=1e-4)


def test_identical_distributions_are_told_apart_by_nobody():
    found = samples.two_sample_classifier(universes(9), universes(9, seed=1), smoothings=(0.0,), epochs=15)
    assert found["auc"][0] == pytest.approx(0.5, abs=0.13)


def test_different_distributions_are_told_apart_and_smoothing_hides_what_differs_in_a_voxel():
    truth = universes(9, slope=-4.0)
    noise = universes(9, slope=0.0, seed=2)
    drawn = [x + 0.1 * n for x, n in zip(universes(9, slope=-4.0, seed=1), noise, strict=True)]
    found = samples.two_sample_classifier(truth, drawn, smoothings=(0.0, 4.0), epochs=15, seeds=(0,))
    assert found["auc"][0] > 0.97
    assert found["auc"][1] < 0.75


def test_two_universes_are_too_few_for_a_classifier():
    with pytest.raises(ValueError, match="found 2 universes"):
        samples.two_sample_classifier(universes(2), universes(2))


def test_an_auc_scatters_as_said_where_nothing_can_be_told_apart():
    rng, n_cubes, n_slices = np.random.default_rng(0), 12, 5
    n = samples.judges_of(n_cubes) * n_slices
    labels = np.repeat([0, 1], n)
    means = [np.mean([roc_auc_score(labels, rng.normal(size=2 * n)) for _ in samples.SEEDS]) for _ in range(1000)]
    assert np.std(means) == pytest.approx(samples.auc_scatter(n_cubes, n_slices), rel=0.1)
