"""Flows from the note's Gaussians: identities, what they learn of a known law, and their training."""

import math
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from benchmarks.ship import ship_run
from suites import lognormal_suite, tiny_config

from uvae_lib.generation.flows import (
    N_GIVEN,
    Flows,
    ResidualPower,
    SliceFlow,
    draw_angle,
    flows_of,
    integrate,
    path,
)
from uvae_lib.generation.sample import draw_h, sample_slices
from uvae_lib.generation.training import fit_flows
from uvae_lib.model import UniverseVAE
from uvae_lib.presets import FlowConfig
from uvae_lib.runs.encode import Posterior, prior_of_h
from uvae_lib.runs.run import load_run
from uvae_lib.training.fit import fit

TINY = FlowConfig(width=8, steps=6)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def say_something(flows: Flows) -> Flows:
    """Fill the layers that start at zero."""
    generator = torch.Generator().manual_seed(1)
    for weight in flows.parameters():
        if not weight.any():
            weight.data.copy_(0.1 * torch.randn(weight.shape, generator=generator))
    return flows


@pytest.fixture(scope="module")
def model():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return UniverseVAE(64, circular=True).eval()


@pytest.fixture(scope="module")
def flows(model):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        flows = Flows(model, TINY, periodic=True).eval().requires_grad_(False)
    flows.slices.rings.power.copy_(1 / (1 + torch.arange(len(flows.slices.rings.power))))
    flows.slices.slopes.copy_(0.1 * normal(*flows.slices.slopes.shape, seed=7))
    return flows


# --- the path and its integral


def test_the_path_leads_from_start_to_end_and_its_velocity_is_its_derivative():
    start, end = normal(5, 3, seed=1).double(), normal(5, 3, seed=2).double()
    torch.testing.assert_close(path(start, end, torch.zeros(5))[0], start)
    torch.testing.assert_close(path(start, end, torch.full((5,), math.pi / 2).double())[0], end)
    angle = torch.linspace(0.1, 1.4, 5).double()
    around = [path(start, end, angle + step)[0] for step in (-1e-6, 1e-6)]
    torch.testing.assert_close(path(start, end, angle)[1], (around[1] - around[0]) / 2e-6, rtol=1e-6, atol=1e-6)


def test_a_gaussian_needs_no_velocity_and_all_angles_between_the_ends_are_learned_at():
    start, end = normal(100_000, 1, seed=1), normal(100_000, 1, seed=2)
    angle = draw_angle(100_000, torch.Generator().manual_seed(3))
    assert 0 < angle.min() < 0.05 and math.pi / 2 - 0.05 < angle.max() < math.pi / 2
    x, velocity = path(start, end, angle)
    assert abs((x * velocity).mean()) < 0.01  # so the best velocity that x knows is zero
    torch.testing.assert_close(torch.stack([x.std(), velocity.std()]), torch.ones(2), atol=0.01, rtol=0)


def test_the_midpoint_rule_is_of_second_order():
    turn = torch.tensor([[0.0, -1.0], [1.0, 0.0]])
    x = torch.tensor([[1.0, 0.0]])
    errors = [(integrate(lambda x, a: x @ turn.T, x, n) - torch.tensor([[0.0, 1.0]])).norm() for n in (8, 16)]
    assert 3.5 < errors[0] / errors[1] < 4.5


# --- residuals in rings of |k|


def ring_of(size):
    """|k| of every mode of a full FFT, rounded to whole fundamental modes."""
    k = torch.fft.fftfreq(size, dtype=torch.float64) * size
    return torch.hypot(k[:, None], k).round().long()


@pytest.mark.parametrize("size", [8, 32])
def test_the_rings_hold_every_mode_once(size):
    assert torch.equal(ResidualPower(size, True).n_modes, torch.bincount(ring_of(size).flatten()).float())


def test_the_power_of_the_rings_adds_up_to_the_squared_error():
    recon, target = normal(3, 1, 32, 32), normal(3, 1, 32, 32, seed=1)
    residuals = ResidualPower(32, True)
    total = (residuals.residual_power(recon, target) * residuals.n_modes).sum(dim=1)
    torch.testing.assert_close(total, (target - recon).square().sum(dim=(1, 2, 3)))


def test_the_power_of_a_ring_is_the_mean_over_its_modes():
    recon, target = normal(2, 1, 8, 8), normal(2, 1, 8, 8, seed=1)
    modes = torch.fft.fft2(target - recon, norm="ortho").abs().square()[:, 0]
    expected = torch.stack(
        [modes[:, ring_of(8) == ring].mean(dim=1) for ring in range(int(ring_of(8).max()) + 1)], dim=1
    )
    torch.testing.assert_close(ResidualPower(8, True).residual_power(recon, target), expected)


def test_the_power_and_nothing_else_is_stored_with_the_weights():
    assert list(ResidualPower(16, True).state_dict()) == ["power"]


def test_the_window_of_a_crop_leaves_the_power_of_white_noise():
    white = normal(400, 1, 32, 32)
    power = ResidualPower(32, periodic=False).residual_power(torch.zeros_like(white), white).mean(dim=0)
    torch.testing.assert_close(power, torch.ones_like(power), rtol=0, atol=0.2)


def test_a_periodic_slice_has_no_window():
    assert (ResidualPower(16, True).window == 1).all()


def test_bfloat16_slices_are_compared_in_float32():
    recon, target = (normal(2, 1, 8, 8, seed=seed).bfloat16() for seed in (0, 1))
    found, expected = (
        ResidualPower(8, True).residual_power(*x) for x in ((recon, target), (recon.float(), target.float()))
    )
    assert torch.equal(found, expected)


# --- where the note's samples stay


@pytest.mark.parametrize("n_steps", [0, 3])
def test_a_network_that_says_nothing_leaves_the_gaussian_start(flows, n_steps):
    z, noise, mean = normal(2, N_GIVEN), normal(2, 1, 64, 64, seed=5), normal(2, 1, 64, 64, seed=6)
    drawn = flows.slices(mean, z, noise, n_steps) - mean
    torch.testing.assert_close(drawn, flows.slices.scale(z) * flows.slices.start(noise, z))


def test_no_steps_leave_the_gaussian_start_whatever_the_network_says(flows):
    z, mean, noise = normal(2, N_GIVEN), normal(2, 1, 64, 64, seed=6), normal(2, 1, 64, 64, seed=5)
    busy = say_something(deepcopy(flows))
    start = flows.slices.scale(z) * flows.slices.start(noise, z)
    torch.testing.assert_close(busy.slices(mean, z, noise, 0), mean + start)


def test_the_start_has_the_spectrum_of_the_residuals_of_its_universe(flows):
    slices, z = flows.slices, normal(1, N_GIVEN)
    field = slices.scale(z) * slices.start(normal(200, 1, 64, 64), z.expand(200, -1))
    found = slices.rings.residual_power(torch.zeros_like(field), field).mean(dim=0)
    torch.testing.assert_close(found[1:32], slices.power(z)[0, 1:32], rtol=0.1, atol=0)
    assert (slices.power(z)[0] / slices.rings.power - 1).abs().max() > 0.3


def test_the_start_has_unit_variance(flows):
    assert flows.slices.start(normal(50, 1, 64, 64), normal(50, N_GIVEN)).var() == pytest.approx(1.0, rel=0.03)


def test_the_spectrum_of_residuals_and_how_it_follows_z_are_found(flows):
    slices, z = flows.slices, normal(4000, N_GIVEN)
    residual = torch.cat([slices.scale(some) * slices.start(normal(200, 1, 64, 64, seed=i), some)
                          for i, some in enumerate(z.split(200))])  # fmt: skip
    found = deepcopy(slices)
    found.measure(residual, torch.zeros_like(residual), z)
    torch.testing.assert_close(found.slopes[:, 5:32], slices.slopes[:, 5:32], atol=0.02, rtol=0)
    torch.testing.assert_close(found.rings.power[5:32], slices.rings.power[5:32], rtol=0.05, atol=0)


def test_what_differs_from_universe_to_universe_is_given_and_noise_is_not(flows):
    universes = normal(300, 2).repeat_interleave(4, dim=0)  # two numbers say which, of 512
    z = 0.01 * normal(1200, 512, seed=1)
    z[:, [7, 99]] += universes
    width = torch.ones_like(z)
    width[:, [7, 99]] = 0.3
    drawn = z + width * normal(1200, 512, seed=2)
    mean = torch.zeros(1200, 1, 64, 64)
    batch = {"truth": 0.1 * normal(*mean.shape, seed=3), "mean": mean, "z": drawn, "z_mu": z, "z_width": width}
    measured = deepcopy(flows)
    measured.measure(batch | {"h": normal(1200, 512), "mu": torch.zeros(1200, 512), "sigma": torch.ones(1200, 512)})
    given = measured.given(drawn)
    torch.testing.assert_close(given.mean(dim=0), torch.zeros(N_GIVEN), atol=0.01, rtol=0)
    torch.testing.assert_close(given.std(dim=0), torch.ones(N_GIVEN), atol=0.01, rtol=0)
    fit = torch.linalg.lstsq(given[:, :2], universes - universes.mean(dim=0)).solution
    assert (given[:, :2] @ fit - universes).var() < 0.15  # what a draw of 0.3 widths leaves open


def test_the_coupling_of_h_is_measured_and_is_alike_at_all_places_of_the_map(flows):
    measured, (n, side, _) = deepcopy(flows), flows.map_shape
    mixing = torch.eye(n) + 0.5 * normal(n, n, seed=3) / n**0.5  # of the channels
    u = torch.einsum("ij,njxy->nixy", mixing, normal(3000, n, side, side, seed=4))
    u = u + 0.7 * u.roll(1, dims=3)  # of neighbours
    mu, sigma = normal(3000, 512, seed=5), normal(3000, 512, seed=6).exp()
    z, mean = normal(3000, 512), torch.zeros(3000, 1, 64, 64)
    batch = {"truth": normal(*mean.shape), "mean": mean, "z": z, "z_mu": z, "z_width": torch.ones_like(z), "mu": mu}
    measured.measure(batch | {"sigma": sigma, "h": mu + sigma * u.flatten(1)})
    drawn = normal(20_000, 512, seed=7) @ measured.coupling
    torch.testing.assert_close(drawn.T @ drawn / 20_000, u.flatten(1).T @ u.flatten(1) / 3000, atol=0.15, rtol=0)
    torch.testing.assert_close(measured.coupling, measured.coupling.T, atol=1e-4, rtol=0)
    place = normal(1, n, side, side, seed=8)
    moved, drawn = ((x.flatten(1) @ measured.coupling).unflatten(1, (n, side, side)) for x in (place.roll(1, 2), place))
    torch.testing.assert_close(moved, drawn.roll(1, 2), atol=1e-4, rtol=1e-3)


# --- what is learned


@pytest.fixture(scope="module")
def learned():
    """A flow that was shown residuals of two values only, whose spread follows z."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        flow = SliceFlow(16, 8, 8, periodic=True)
    generator = torch.Generator().manual_seed(2)

    def examples(n):
        z = torch.randn(n, 8, generator=generator)
        sign = torch.randn(n, 1, 16, 16, generator=generator).sign()
        return (0.3 * z[:, 0]).exp()[:, None, None, None] * sign, torch.zeros(n, 1, 16, 16), z

    truth, mean, _ = examples(256)
    flow.rings.power.copy_(flow.rings.residual_power(mean, truth).mean(dim=0))  # the network is to find the spread
    optimizer, losses = torch.optim.Adam(flow.parameters(), lr=5e-3), []
    for _ in range(200):
        white = torch.randn(32, 1, 16, 16, generator=generator)
        loss = flow.loss(*examples(32), white, draw_angle(32, generator))
        optimizer.zero_grad(), loss.backward(), optimizer.step()
        losses.append(loss.item())
    return flow.eval().requires_grad_(False), losses


def test_the_loss_falls_below_that_of_the_gaussian(learned):
    _, losses = learned
    assert losses[0] == pytest.approx(1.0, abs=0.25) and sum(losses[-50:]) / 50 < 0.8


def test_drawn_residuals_have_the_two_values_and_the_spread_of_their_universe(learned):
    flow, _ = learned
    z = torch.zeros(64, 8)
    z[32:, 0] = 1.0
    drawn = flow(torch.zeros(64, 1, 16, 16), z, normal(64, 1, 16, 16), 8)
    assert (drawn.abs().flatten(1).std(dim=1) / drawn.abs().flatten(1).mean(dim=1)).mean() < 0.6  # Gaussian: 0.76
    ratio = drawn[32:].std() / drawn[:32].std()
    assert ratio.item() == pytest.approx(math.exp(0.3), rel=0.15)


def test_the_same_noise_draws_the_same_slice_and_in_another_universe_the_same_place(learned):
    flow, _ = learned
    mean, noise, z = torch.zeros(8, 1, 16, 16), normal(8, 1, 16, 16), torch.zeros(8, 8)
    here, again, other, there = (flow(mean, z + shift, x, 4) for shift, x in
                                 ((0, noise), (0, noise), (0, normal(8, 1, 16, 16, seed=9)), (0.5, noise)))  # fmt: skip
    assert torch.equal(here, again)
    alike = [torch.corrcoef(torch.stack([here.flatten(), x.flatten()]))[0, 1] for x in (there, other)]
    assert alike[0] > 0.9 and abs(alike[1]) < 0.2


# --- training


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("flows")
    config = replace(tiny_config(lognormal_suite(folder / "cubes")), flows=TINY)
    return fit(config, folder / "run", progress=False).folder


@pytest.fixture(scope="module")
def trained(run_folder):
    return fit_flows(run_folder, progress=False)


def test_a_run_has_no_flows_until_they_are_trained(run_folder):
    assert not (run_folder / "flows.safetensors").exists() and flows_of(load_run(run_folder)) is None


def test_trained_flows_come_with_the_run(trained, run_folder):
    for flows in (flows_of(trained), flows_of(load_run(run_folder))):
        assert flows.settings == TINY
        mean, z = normal(2, 1, 32, 32), normal(2, 512)
        assert flows.complete(mean, z, normal(2, 1, 32, 32, seed=1)).isfinite().all()


def test_the_start_of_a_flow_is_the_spectrum_of_its_run_and_what_it_is_given_of_z(trained):
    assert not torch.equal(flows_of(trained).slices.rings.power, torch.ones_like(flows_of(trained).slices.rings.power))
    assert flows_of(trained).slices.slopes.any() and flows_of(trained).combinations.any()
    assert not torch.equal(flows_of(trained).coupling, torch.eye(512))


def test_flows_that_are_there_are_kept(trained, run_folder):
    path = run_folder / "flows.safetensors"
    before = path.stat().st_mtime_ns
    fit_flows(run_folder, progress=False)
    assert path.stat().st_mtime_ns == before


def test_the_networks_of_the_run_stay_as_they_are(trained, run_folder):
    (run_folder / "flows.safetensors").rename(run_folder / "aside")
    model = load_run(run_folder).model.state_dict()
    (run_folder / "aside").rename(run_folder / "flows.safetensors")
    assert all(torch.equal(value, trained.model.state_dict()[name]) for name, value in model.items())


def test_a_training_that_is_stopped_goes_on_to_the_same_numbers(trained, run_folder, monkeypatch):
    from uvae_lib.generation import training as flow_training

    straight = {name: value.clone() for name, value in flows_of(trained).state_dict().items()}
    (run_folder / "flows.safetensors").unlink()
    for file in (run_folder / "flows").rglob("*.*"):
        file.unlink()
    step = flow_training.LitFlows.training_step

    def stop(self, number):
        if number == 4:
            raise KeyboardInterrupt
        return step(self, number)

    monkeypatch.setattr(flow_training.LitFlows, "training_step", stop)
    with pytest.raises(KeyboardInterrupt, match="is at step 4"):
        fit_flows(run_folder, progress=False)
    assert list((run_folder / "flows").rglob("step-*3.ckpt"))
    monkeypatch.setattr(flow_training.LitFlows, "training_step", step)
    resumed = flows_of(fit_flows(run_folder, progress=False)).state_dict()
    assert all(torch.equal(value, straight[name]) for name, value in resumed.items())


def test_exported_flows_are_those_of_the_run_in_bfloat16(trained, run_folder, tmp_path):
    kept = ship_run(run_folder, tmp_path / "out")
    assert tmp_path / "out" / "flows.safetensors" in kept
    there = flows_of(load_run(tmp_path / "out")).state_dict()
    for name, value in flows_of(trained).state_dict().items():
        torch.testing.assert_close(there[name], value, rtol=0.01, atol=1e-3)


def test_a_damaged_file_and_flows_of_another_model_are_refused(trained, run_folder, tmp_path):
    (tmp_path / "flows.safetensors").write_bytes((run_folder / "flows.safetensors").read_bytes()[:5000])
    with pytest.raises(ValueError, match="train-flows"):
        flows_of(replace(trained, folder=tmp_path, loaded={}))
    with pytest.raises(ValueError, match="another model"):
        flows_of(replace(trained, model=UniverseVAE(64), loaded={}))


# --- new slices of a run


def test_new_slices_of_a_run_take_its_flows(trained):
    z = Posterior(normal(512), torch.full((512,), -1.0))
    seeds = [torch.Generator().manual_seed(seed) for seed in (1, 1, 1)]
    first, again = (sample_slices(trained, z, 3, generator) for generator in seeds[:2])
    bare = sample_slices(trained, z, 3, seeds[2], completed=False)
    assert torch.equal(first, again) and first.shape == bare.shape and first.isfinite().all()
    rings = flows_of(trained).slices.rings
    small_scales = [rings.residual_power(torch.zeros_like(x), x)[:, 14:].mean() for x in (first, bare)]
    assert small_scales[0] > 1.5 * small_scales[1]


def test_not_completed_h_is_the_sample_of_the_note(trained):
    z, white = normal(2, 512), normal(2, 512, seed=1)
    prior = prior_of_h(trained, z)
    drawn = draw_h(trained, z, white, completed=False)
    torch.testing.assert_close(drawn, prior.mu + white * (0.5 * prior.logvar).exp())
