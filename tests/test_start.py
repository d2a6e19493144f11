"""The taught start: the code of a slice, the discriminants of universes, and the loss that asks for them."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import stats
from suites import gaussian_noise, lognormal_suite

from uvae_lib.cropping import log_density
from uvae_lib.cubes.suite import open_cubes
from uvae_lib.model import UniverseVAE, map_shape
from uvae_lib.training.slices import leave_one_out, survey
from uvae_lib.training.start import (
    N_TAUGHT,
    WEIGHT_WIDTH,
    WEIGHT_Z,
    TaughtStart,
    discriminants,
    hush,
    slice_code,
    slice_power,
    summary,
)

SIZES = [32, 64, 128, 256, 512]
RED = 1 / (1 + torch.arange(512.0)) ** 2


def gaussian_fields(n: int, size: int, seed: int = 0) -> torch.Tensor:
    """Fields of the spectrum RED, (n, 1, size, size)."""
    return gaussian_noise(n, size, lambda k: 1 / (1 + k) ** 2, seed)


@pytest.mark.parametrize("size", SIZES)
def test_the_code_is_a_map_of_512_numbers(size):
    assert slice_code(gaussian_fields(1, size), RED).shape == (1, *map_shape(size))


def test_the_numbers_of_a_gaussian_field_have_variance_one_and_are_nearly_uncorrelated():
    code = slice_code(gaussian_fields(3000, 128), RED).flatten(1)
    covariance = code.T @ code / len(code)
    assert covariance.diagonal().mean() == pytest.approx(1, abs=0.02)
    assert (covariance - torch.eye(512)).abs().max() < 1 / 15 + 6 * math.sqrt(2 / len(code))  # 481 modes, 512 numbers


@pytest.mark.parametrize("size", SIZES)
def test_the_code_has_the_length_of_the_modes_that_it_keeps(size):
    x = torch.arange(float(size)) * 2 * math.pi / size
    kept, lost = (torch.cos(a * x[:, None] + b * x + 0.7)[None, None] for a, b in ((8, 7), (9, 8)))
    flat = torch.ones(512)
    assert slice_code(kept, flat).square().mean().item() == pytest.approx(0.5 * size**2 / 481, rel=1e-3)
    assert slice_code(lost, flat).abs().max() < 1e-3


def test_moving_a_slice_by_a_cell_moves_its_code_by_one():
    x = gaussian_fields(2, 128)
    moved = slice_code(x.roll((32, 64), (2, 3)), RED)
    torch.testing.assert_close(moved, slice_code(x, RED).roll((1, 2), (2, 3)), atol=1e-4, rtol=0)


def test_the_spectrum_of_surveyed_slices_sums_to_the_variance_of_the_pixels(tmp_path):
    suite = open_cubes(lognormal_suite(tmp_path))
    mean, std, slices = survey(suite, [0, 1, 2], 12, 32)
    k = torch.fft.fftfreq(32, 1 / 32, dtype=torch.float64)
    n_modes = torch.bincount(torch.hypot(k[:, None], k).round().long().flatten())
    x = torch.stack([log_density(torch.from_numpy(suite.overdensity(i))) for i in range(3)])
    assert (mean, std) == pytest.approx((x.mean().item(), x.std(correction=0).item()), rel=1e-4)
    assert slices.shape == (3, 12, 1, 32, 32)
    assert (slice_power(slices.flatten(0, 1)).mean(dim=0) * n_modes).sum().item() / 32**2 == pytest.approx(1, rel=0.2)


# --- the summary by which universes are told apart


def test_the_spectrum_of_a_typical_field_is_zero_in_logarithm_and_a_louder_one_is_its_gain():
    x, n_rings = gaussian_fields(512, 64), 32
    assert summary(x, RED)[:, 4:n_rings].mean(dim=0).abs().max() < 0.1
    gain = summary(3 * x, RED)[:, :n_rings] - summary(x, RED)[:, :n_rings]
    torch.testing.assert_close(gain, torch.full_like(gain, 2 * math.log(3)), atol=1e-4, rtol=0)


def test_the_moments_are_those_of_scipy():
    x = gaussian_fields(4, 64).exp()
    found, pixels = summary(x, RED)[:, -4:], x.flatten(1).double().numpy()
    expected = [pixels.mean(1), np.log(pixels.std(1)), stats.skew(pixels, axis=1), stats.kurtosis(pixels, axis=1)]
    torch.testing.assert_close(found.double(), torch.from_numpy(np.stack(expected, axis=1)), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("size", SIZES)
def test_statistics_do_not_see_where_a_slice_begins_nor_how_it_is_turned(size):
    x = gaussian_fields(1, size)
    moved = x.roll((5, 11), (2, 3)).transpose(2, 3).flip(2)
    torch.testing.assert_close(summary(moved, RED), summary(x, RED), atol=2e-3, rtol=1e-3)


def test_a_slice_without_contrast_has_finite_statistics():
    assert summary(torch.zeros(1, 1, 32, 32), RED).isfinite().all()


def universes(n: int, n_slices: int, seed: int = 0) -> tuple[torch.Tensor, np.ndarray]:
    """Fields of n universes whose amplitude varies by a lot and whose tilt varies by little: slices, tilts."""
    rng, k = np.random.default_rng(seed), torch.fft.fftfreq(32, 1 / 32)
    length = torch.hypot(k[:, None], k[None, : 32 // 2 + 1]).clamp_min(1)
    amplitude, tilt = rng.normal(0, 0.5, n), rng.normal(0, 0.1, n)
    white = torch.from_numpy(rng.standard_normal((n, n_slices, 32, 32))).float()
    filters = torch.stack([a * length ** (-1 + b) for a, b in zip(np.exp(amplitude), tilt, strict=True)])
    return torch.fft.irfft2(torch.fft.rfft2(white) * filters[:, None])[:, :, None], tilt


def test_discriminants_tell_the_tilt_as_loudly_as_the_amplitude():
    rows = discriminants(universes(64, 12)[0], torch.ones(17), 4)
    others, tilt = universes(200, 12, seed=1)
    read = torch.stack([summary(x, torch.ones(17)) @ rows[:-1] + rows[-1] for x in others])
    cubes = read.mean(dim=1)
    assert cubes[:, :2].std(dim=0) == pytest.approx(np.ones(2), abs=0.25)
    share = (cubes.var(dim=0) / read.flatten(0, 1).var(dim=0)).tolist()
    assert share[0] > 0.9 and share[1] > 0.3 and max(share[2:]) < 0.2
    fit = np.linalg.lstsq(np.c_[np.ones(200), cubes[:, :2].numpy()], tilt, rcond=None)
    assert 1 - fit[1][0] / 200 / tilt.var() > 0.8


def test_fewer_cubes_than_discriminants_leave_the_last_silent():
    rows = discriminants(universes(3, 12)[0], torch.ones(17), 4)
    assert rows[:, :2].any(dim=0).all() and not rows[:, 2:].any() and rows.isfinite().all()


# --- teaching


@pytest.fixture(scope="module")
def start():
    slices, _ = universes(12, 6)
    power = slice_power(slices.flatten(0, 1)).mean(dim=0)
    return TaughtStart(power, discriminants(slices, power), steps=10, total=40)


def test_teaching_of_z_fades_until_an_eighth_of_the_training_is_left(start):
    assert start.end == 35
    assert [round(start.weight_of_z(step), 6) for step in (0, 9, 21, 34, 39)] == [1, 1, 0.52, 0, 0]
    demo = TaughtStart(start.power, start.rows, 700, 1600)
    assert demo.weight_of_z(1398) > 0 == demo.weight_of_z(1399)


def test_a_cube_is_known_by_its_discriminants_whichever_step_asks_first(start):
    volumes = torch.randn(3, 32, 32, 32, generator=torch.Generator().manual_seed(0))

    def a_step(volumes, slots, cubes):
        pool = SimpleNamespace(at=lambda step: (volumes, cubes), suite=SimpleNamespace(axes=(0, 1, 2)))
        cut = SimpleNamespace(cube=torch.tensor(slots)[:, None])
        kind = {"image_size": 32, "thickness": 1, "mean": 0.0, "std": 1.0, "rank": 0, "world_size": 1}
        return SimpleNamespace(pool=pool, cuts=lambda step: cut, **kind)

    read = start.universes(a_step(volumes, [2, 0, 2], [7, 8, 9]), 0)
    again = TaughtStart(start.power, start.rows, 10, 40).universes(a_step(volumes[[2]], [0], [9]), 0)
    assert set(start.known) == {7, 9} and torch.equal(read[0], read[2]) and torch.equal(read[0], again[0])
    start.known.clear()


def test_z_is_taught_the_error_of_a_set_too(start):
    """Least at the width that is the error; z's other numbers cost nothing at N(0, 1)."""
    sets, context = universes(4, 2, seed=3)[0], leave_one_out(4, 2)
    others = start.discriminants(sets[:, [1, 0]].flatten(0, 1))  # what the only slice of each context says
    mu, truth, losses = torch.zeros(8, 512), torch.zeros(4, N_TAUGHT), {}
    mu[:, :N_TAUGHT] = 0.5
    for width in (0.3, 0.5, 0.8):
        logvar = torch.zeros(8, 512)
        logvar[:, :N_TAUGHT] = 2 * math.log(width)
        losses[width] = start.loss_of_z(mu, logvar, sets, context, truth).item()
    assert min(losses, key=losses.get) == 0.5
    means = WEIGHT_Z * float((others - 0.5).square().mean())
    assert losses[0.5] == pytest.approx(means + WEIGHT_WIDTH * N_TAUGHT * (0.5 + math.log(0.5)), rel=1e-5)


@pytest.fixture(scope="module")
def taught(start):
    """Losses of a model that is taught one batch, and the model."""
    sets, _ = universes(3, 4, seed=5)
    sets = (sets - sets.mean()) / sets.std()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = UniverseVAE(32, pooling="precision", circular=True, logvar_h=-4.0)
    hush(model)
    optimizer, context = torch.optim.AdamW(model.parameters(), 1e-3), leave_one_out(3, 4)
    wanted = torch.randn(3, N_TAUGHT, generator=torch.Generator().manual_seed(1))
    said = (context / 3 @ start.discriminants(sets.flatten(0, 1)).unflatten(0, (3, 4))).flatten(0, 1)
    noise, parts = torch.Generator().manual_seed(2), []
    for _ in range(40):
        loss, output = start.loss(model, sets, context, wanted, torch.randn(3, 12, 512, generator=noise))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        code = slice_code(sets.flatten(0, 1), start.power).flatten(1)
        gap = output[1][1][:, :N_TAUGHT] - said
        parts.append(
            {
                "h": (output[3][1] - code).square().mean().item() / code.var().item(),
                "slices": (output[0] - sets.flatten(0, 1)).square().mean().item(),
                "z": gap.square().mean().item() / said.var().item(),
            }
        )
    return parts, model


@pytest.mark.parametrize("name, most", [("h", 0.5), ("slices", 0.95), ("z", 0.5)])
def test_teaching_brings_each_network_nearer_to_its_answer(taught, name, most):
    parts, _ = taught
    assert parts[-1][name] < most * parts[0][name]


def test_networks_are_deaf_to_the_numbers_of_z_that_are_not_taught():
    model = UniverseVAE(32)
    hush(model)
    z = torch.zeros(2, 512)
    z[1, N_TAUGHT:] = 1
    with torch.no_grad():
        a, b = model.decoder_z(z)
    assert torch.equal(a, b)
