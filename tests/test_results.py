"""The results: scattering coefficients, classifiers, networks on labels, and a page of a small judgement."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks import classifier, drawn, judge, networks, results, shifts
from benchmarks.scattering import scattering, wavelets
from sklearn.metrics import roc_auc_score
from suites import gaussian_noise, lognormal_suite, tiny_config

from uvae_lib.model import wrap_around
from uvae_lib.training.fit import fit

SIZE = 32


def universes(n: int, slope: float = -2.0, seed: int = 0, n_slices: int = 16) -> list[torch.Tensor]:
    """Gaussian slices of unit variance with power (1 + |k|)^slope, one tensor (n_slices, 1, SIZE, SIZE) a universe."""
    fields = [
        gaussian_noise(size, SIZE, lambda k: (1 + k) ** slope, which)
        for size, which in ((n * n_slices, seed), (500, 999))
    ]
    return list((fields[0] / fields[1].std()).split(n_slices))  # one scale for all seeds


# --- scattering coefficients


def test_a_slice_of_128_pixels_has_53_coefficients_that_no_shift_or_mirror_changes():
    x, filters = torch.randn(2, 1, 128, 128, generator=torch.Generator().manual_seed(0)), wavelets(128)
    found = scattering(x, filters)
    assert found.shape == (2, 53)
    for same in (x.mT, x.flip(-1), x.roll((16, 48), (-2, -1))):
        torch.testing.assert_close(scattering(same, filters), found, atol=5e-3, rtol=0)


def test_a_wave_answers_the_wavelet_of_its_scale():
    filters = wavelets(SIZE)
    coarse, fine = (torch.cos(2 * torch.pi * k * torch.arange(SIZE) / SIZE).expand(1, 1, SIZE, SIZE) for k in (3, 11))
    first = slice(2, 2 + 0 + 1)
    ratio = [float(scattering(x + 0.0, filters)[0, first]) for x in (coarse, fine)]
    assert ratio[1] > ratio[0] + 1
    assert float(filters[..., 0, 0].abs().max()) == 0  # no wavelet has a mean


def test_the_second_order_sees_phases_that_a_spectrum_does_not():
    skewed = torch.cat([torch.exp(x) for x in universes(4)])
    modes, random = (
        torch.fft.rfft2(skewed),
        torch.fft.rfft2(torch.randn(skewed.shape, generator=torch.Generator().manual_seed(1))),
    )
    shuffled = torch.fft.irfft2(modes.abs() * random / random.abs(), s=(SIZE, SIZE))
    a, b = (scattering(x, wavelets(SIZE))[:, 6:] for x in (skewed, shuffled))
    assert float(((a.mean(dim=0) - b.mean(dim=0)).abs() / a.std(dim=0)).max()) > 1


# --- classifiers


def test_the_classifier_does_not_see_where_the_box_begins():
    network, x = classifier.network().eval(), universes(1)[0]
    torch.testing.assert_close(network(x.roll((8, 16), (-2, -1))), network(x), atol=1e-4, rtol=1e-4)


def test_identical_distributions_are_told_apart_by_nobody():
    found = classifier.network_auc(universes(9), universes(9, seed=1), 0.0, 999, epochs=10, seed=0)
    assert found["auc"] == pytest.approx(0.5, abs=0.16) and found["n_train"] == 96
    drawn = [torch.randn(20, 5, generator=torch.Generator().manual_seed(i)) for i in range(20)]
    assert classifier.logistic_auc(drawn[:10], drawn[10:]) == pytest.approx(0.5, abs=0.1)


def test_different_distributions_are_told_apart_and_smoothing_hides_what_differs_in_a_voxel():
    truth, noise = universes(9, slope=-4.0), universes(9, slope=0.0, seed=2)
    drawn = [x + 0.1 * n for x, n in zip(universes(9, slope=-4.0, seed=1), noise, strict=True)]
    assert classifier.network_auc(truth, drawn, 0.0, 999, epochs=15, seed=0)["auc"] > 0.97
    assert classifier.network_auc(truth, drawn, 4.0, 999, epochs=15, seed=0)["auc"] < 0.8


def test_two_universes_are_too_few_for_a_classifier():
    with pytest.raises(ValueError, match="found 2 universes"):
        classifier.network_auc(universes(2), universes(2), 0.0, 9, epochs=1, seed=0)


def test_an_auc_scatters_as_said_where_nothing_can_be_told_apart():
    rng, n = np.random.default_rng(0), 20
    found = [roc_auc_score(np.repeat([0, 1], n), rng.normal(size=2 * n)) for _ in range(1000)]
    assert np.std(found) == pytest.approx(classifier.auc_scatter(n), rel=0.1)


# --- drawn slices


def test_ratios_of_a_spectrum_and_of_densities_are_those_that_are_known():
    truth = universes(6)
    found = drawn.power_and_pdf(truth, [1.1 * x for x in truth], 32.0)
    np.testing.assert_allclose(found["power"], 1.21, rtol=1e-4)
    same = drawn.power_and_pdf(truth, truth, 32.0)
    np.testing.assert_allclose(same["pdf"], 1)
    assert found["pdf"][len(found["pdf"]) // 2] == pytest.approx(1 / 1.1, abs=0.05)


def test_smoothing_damps_waves_by_its_gaussian_and_leaves_out_what_says_nothing():
    wave = torch.cos(2 * torch.pi * 4 * torch.arange(128) / 128).expand(128, 128)
    found = classifier.smoothed(wave, 2.0)
    assert found.shape == (64, 64) and classifier.smoothed(wave, 4.0).shape == (32, 32)
    assert (found.max() / wave.max()).item() == pytest.approx(np.exp(-0.5 * (2 * 2 * np.pi * 4 / 128) ** 2), rel=1e-3)
    torch.testing.assert_close(classifier.smoothed(wave, 0.0), wave, atol=1e-5, rtol=0)


# --- networks on labels


def test_moments_are_the_mean_and_the_width_of_the_posterior():
    wanted = 0.5 + 0.3 * torch.rand(
        100_000, 2, generator=torch.Generator().manual_seed(0)
    )  # a uniform law: no Gaussian
    best, steps = torch.tensor([0.65, 0.65, 0.3 / 12**0.5, 0.3 / 12**0.5]), 0.02 * torch.eye(4)
    found = [float(networks.moment_loss((best + shift).expand(len(wanted), 4), wanted))
             for shift in (0 * steps[0], steps[0], -steps[1], steps[2], -steps[3])]  # fmt: skip
    assert found[0] == min(found)


@pytest.mark.parametrize("make", [networks.resnet, networks.moment_network])
def test_networks_that_wrap_do_not_see_where_the_box_begins(make):
    network, x = wrap_around(make(64)).eval(), torch.randn(2, 1, 64, 64)
    body = network[:9] if make is networks.moment_network else network
    shifted = body(x.roll(32, dims=-1))
    expected = body(x).roll(16, dims=-1) if make is networks.moment_network else body(x)
    torch.testing.assert_close(shifted, expected, rtol=1e-4, atol=1e-4)


# --- a judgement


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    """A run of lognormal cubes whose two parameters vary, and judged cubes of another seed."""
    place, rng = tmp_path_factory.mktemp("results"), np.random.default_rng(0)
    for name, n, seed in (("data", 12, 0), ("judged", 7, 5)):
        table = lognormal_suite(place / name, n_cubes=n, seed=seed) / "params_LH_IllustrisTNG.txt"
        head, *rows = table.read_text().splitlines()
        rows = [f"{rng.uniform(0.1, 0.5):.3f} {row.split()[1]}" for row in rows]
        table.write_text("\n".join([head, *rows]))
    fit(tiny_config(place / "data", steps=3), place / "run", progress=False)
    return results.Options(
        run=place / "run", judged=place / "judged", universes=7, drawn_universes=3, changed_universes=2,
        classifier_slices=(8,), epochs=1, networks=2, page=place / "page.md",
    )  # fmt: skip


def test_the_page_has_every_part_and_a_second_call_measures_nothing(options, monkeypatch, tmp_path):
    monkeypatch.setenv("UVAE_HOME", str(tmp_path))
    results.main(options)
    page = Path(options.page).read_text()
    for text in (
        "ridge on scattering",
        "labelled cubes",
        "width / error",
        "logistic",
        "asked",
        "completed above",
        "tracers",
        "not converged",
    ):
        assert text in page
    for part in page.split("\n\n"):
        assert len({line.count("|") for line in part.splitlines() if line[:1] == "|"}) <= 1
    for name in ("parameters", "labels", "slices"):
        monkeypatch.setattr(judge, name, None)
    monkeypatch.setattr(shifts, "shifts", None)
    results.main(options)
    with pytest.raises(TypeError):
        results.main(replace(options, changed_universes=1))


def test_a_changed_cube_keeps_its_mean_and_the_first_kind_is_no_change(options):
    suite = judge.judged_suite(fit_of(options), options.judged, 7)
    for name, change in shifts.CHANGES.items():
        y = shifts.Changed(suite, change, 2).overdensity(1)
        assert y.mean() == pytest.approx(1, abs=1e-4)
        assert np.allclose(y, suite.overdensity(1), rtol=1e-4) == (name == "as trained")


def test_swapped_scales_are_those_of_two_slices_and_add_up():
    a, b = torch.randn(2, 3, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(shifts.swapped(a, b, 6) + shifts.swapped(b, a, 6), a + b)
    modes = [torch.fft.rfft2(x)[..., 0, 2:12:6] for x in (shifts.swapped(a, b, 6), a, b)]
    torch.testing.assert_close(modes[0], torch.stack([modes[1][..., 0], modes[2][..., 1]], dim=-1))


def fit_of(options):
    from uvae_lib.runs.run import load_run

    return load_run(options.run)
