"""The loss: the note's terms against torch.distributions."""

import math

import note
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Normal, kl_divergence

from uvae_lib.loss import ACTIVE, active_units, kl_by_dimension, kl_loss, kl_parts, mse_loss, note_loss

numbers = st.floats(-5, 5)
logvars = st.floats(-30, 30)


def randn(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def column(*values, dtype=torch.float64):
    return [torch.tensor([[value]], dtype=dtype) for value in values]


def normal(mu, logvar):
    return Normal(mu, (0.5 * logvar).exp())


def an_output(seed=0, size=16, n=4, dim=512):
    """What a forward pass could return, with gradients, and its targets (n, 1, size, size)."""
    parts = [randn(n, dim, seed=seed + i).mul(0.5).requires_grad_() for i in range(6)]
    recon = randn(n, 1, size, size, seed=seed + 6).requires_grad_()
    z, h, post = ((torch.zeros(n, dim), parts[i], parts[i + 1]) for i in (0, 2, 4))
    return (recon, z, h, post), randn(n, 1, size, size, seed=seed + 7)


# --- squared error


def test_the_squared_error_is_summed_over_pixels_and_averaged_over_the_batch():
    recon, image = randn(3, 1, 8, 8), randn(3, 1, 8, 8, seed=1)
    expected = sum(float(((recon[i] - image[i]) ** 2).sum()) for i in range(3)) / 3
    assert mse_loss(recon, image).item() == pytest.approx(expected, rel=1e-6)


def test_the_squared_error_is_the_note_s():
    recon, image = randn(3, 1, 8, 8), randn(3, 1, 8, 8, seed=1)
    assert torch.equal(mse_loss(recon, image), note.mse_loss(recon, image))


# --- KL


@settings(deadline=None)
@given(numbers, logvars, numbers, logvars)
def test_the_kl_is_that_of_torch_distributions(q_mu, q_logvar, p_mu, p_logvar):
    q_mu, q_logvar, p_mu, p_logvar = column(q_mu, q_logvar, p_mu, p_logvar)
    expected = kl_divergence(normal(p_mu, p_logvar), normal(q_mu, q_logvar)).mean()
    found = kl_loss(q_mu, q_logvar, p_mu, p_logvar)
    assert torch.isclose(found, expected, rtol=1e-6, atol=1e-6)


@settings(deadline=None)
@given(numbers, logvars)
def test_the_kl_of_z_is_that_to_the_standard_normal(mu, logvar):
    mu, logvar = column(mu, logvar)
    found = kl_loss(None, None, mu, logvar, kl_z=True)
    assert torch.isclose(found, kl_divergence(normal(mu, logvar), Normal(0.0, 1.0)).mean(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kl_z", [False, True])
def test_the_kl_of_a_float32_batch_is_the_note_s(kl_z):
    q_mu, q_logvar, p_mu, p_logvar = (randn(6, 512, seed=seed) for seed in range(4))
    found, expected = (f(q_mu, q_logvar, p_mu, p_logvar, kl_z) for f in (kl_loss, note.kl_loss))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)


def test_the_kl_of_z_ignores_the_prior_that_it_is_given():
    p, q = (randn(2, 8, seed=1), randn(2, 8, seed=2)), (randn(2, 8, seed=3), randn(2, 8, seed=4))
    assert torch.equal(kl_loss(*q, *p, kl_z=True), kl_loss(None, None, *p, kl_z=True))


def test_the_first_two_arguments_are_the_prior():
    narrow, wide = (torch.zeros(1, 1), torch.zeros(1, 1) - 2), (torch.zeros(1, 1), torch.zeros(1, 1))
    assert kl_loss(*wide, *narrow).item() == pytest.approx(0.5 * (math.exp(-2) - 1 + 2))


def test_the_kl_is_a_mean_over_batch_and_dimensions():
    q, p = (randn(3, 8, seed=1), randn(3, 8, seed=2)), (randn(3, 8, seed=3), randn(3, 8, seed=4))
    assert kl_loss(*q, *p).item() == pytest.approx(kl_by_dimension(*p, *q).sum().item() / 24)


@settings(deadline=None)
@given(numbers, logvars)
def test_a_posterior_that_is_the_prior_costs_nothing(mu, logvar):
    mu, logvar = column(mu, logvar)
    assert kl_loss(mu, logvar, mu, logvar).abs() < 1e-12


def test_the_kl_and_its_gradients_are_finite_for_log_variances_from_minus_30_to_30():
    grid = torch.tensor([-30.0, -10, 0, 10, 30])
    p_logvar, q_logvar, p_mu = (
        x.flatten()[None].requires_grad_() for x in torch.meshgrid(grid, grid, grid / 6, indexing="ij")
    )
    q_mu = torch.zeros_like(p_mu).requires_grad_()
    values = [kl_loss(q_mu, q_logvar, p_mu, p_logvar), kl_loss(None, None, p_mu, p_logvar, kl_z=True)]
    grads = [g for value in values for g in torch.autograd.grad(value, (p_mu, p_logvar))]
    grads += torch.autograd.grad(kl_loss(q_mu, q_logvar, p_mu, p_logvar), (q_mu, q_logvar))
    assert all(x.isfinite().all() for x in (*values, *grads))


def test_a_missing_prior_is_an_error():
    with pytest.raises((TypeError, ValueError)):
        kl_loss(None, None, torch.zeros(1, 4), torch.zeros(1, 4))


# --- the note's loss


@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.0, 3.0), (2.0, 0.0), (0.1, 40.0)])
def test_the_total_is_the_note_s_loss(weights):
    output, target = an_output()
    found = note_loss(output, target, *weights)["loss"]
    torch.testing.assert_close(found, note.loss(output, target, *weights), rtol=1e-6, atol=0)


# --- what is read off the terms


def test_the_three_parts_of_the_kl_of_z_add_up_to_its_mean():
    mu, logvar = 0.3 + randn(40, 8), randn(40, 8, seed=1)
    torch.testing.assert_close(sum(kl_parts(mu, logvar)), kl_by_dimension(mu, logvar).sum(dim=1).mean())


def test_the_parts_of_the_kl_of_z_are_width_offset_and_spread():
    wide, narrow, far = torch.zeros(4, 2), torch.full((4, 2), -2.0), torch.full((4, 2), 3.0)
    spread = torch.tensor([[1.0, 0], [-1, 0], [1, 0], [-1, 0]])
    costs = [0.0, 9.0, 0.5, math.exp(-2) + 1]
    found = [kl_parts(wide, wide), kl_parts(far, wide), kl_parts(spread, wide), kl_parts(wide, narrow)]
    expected = [(0, 0, 0), (0, costs[1], 0), (0, 0, costs[2]), (costs[3], 0, 0)]
    torch.testing.assert_close(torch.tensor(found), torch.tensor(expected))


def test_active_units_are_those_whose_mean_varies_over_the_data():
    spread = torch.tensor([1.0, 0.2, 0.05, 0.0])
    assert active_units(randn(1000, 4) * spread + 7).item() == 2


def test_the_threshold_of_active_units_is_a_variance():
    mu = torch.tensor([[-1.0], [1.0]]) * ACTIVE**0.5  # of this variance
    assert (active_units(1.01 * mu).item(), active_units(0.99 * mu).item()) == (1, 0)
