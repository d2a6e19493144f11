"""The loss: the note's terms against torch.distributions, the two noises against the densities that they stand for."""

import math

import note
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from uvae_lib.loss import active_units, kl_by_dimension, kl_loss, kl_parts, mse_loss, note_loss
from uvae_lib.variants.likelihoods import (
    GaussianLikelihood,
    ResidualSpectrumLoss,
    SpectralLikelihood,
    make_likelihood,
)

LIKELIHOODS = ["gaussian", "spectral"]
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


def weighted_kl(output, kl_z, kl_h):
    """kl_z * KL(z) + kl_h * KL(h), means over dimensions, as training sums them."""
    _, (_, z_mu, z_logvar), (_, h_mu, h_logvar), (_, post_mu, post_logvar) = output
    return kl_z * kl_loss(None, None, z_mu, z_logvar, kl_z=True) + kl_h * kl_loss(h_mu, h_logvar, post_mu, post_logvar)


def leaves(output):
    """The seven tensors of an output that a gradient can reach."""
    recon, *latents = output
    return [recon, *(x for latent in latents for x in latent[1:])]


def gradients(value, output):
    return torch.autograd.grad(value, leaves(output), retain_graph=True)


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


def test_an_unknown_likelihood_is_refused():
    with pytest.raises(ValueError, match='found likelihood="laplace"; expected "note", "gaussian" or "spectral"'):
        make_likelihood("laplace", 32)


def test_the_note_s_squared_error_is_no_likelihood():
    assert make_likelihood("note", 16) is None


# --- Gaussian noise


def log_density(recon, target, variance):
    """log N(target; recon, variance I) [nats a slice], averaged over the batch."""
    return Normal(recon, torch.as_tensor(variance).sqrt()).log_prob(target).sum(dim=(1, 2, 3)).mean()


@pytest.fixture
def images():
    return randn(4, 1, 16, 16), randn(4, 1, 16, 16, seed=1)


def test_in_evaluation_the_gaussian_is_the_density_at_its_running_variance(images):
    likelihood = GaussianLikelihood().eval()
    likelihood.variance.fill_(0.37)
    torch.testing.assert_close(likelihood(*images), -log_density(*images, 0.37))


def test_in_training_the_gaussian_is_the_density_at_the_squared_error_of_the_batch(images):
    variance = (images[0] - images[1]).square().mean()
    torch.testing.assert_close(GaussianLikelihood()(*images), -log_density(*images, variance))


def test_no_other_variance_is_more_likely_for_the_batch(images):
    best = GaussianLikelihood()(*images)
    variance = (images[0] - images[1]).square().mean()
    assert all(-log_density(*images, variance * factor) > best for factor in (0.5, 0.9, 1.1, 2.0))


def test_the_running_variance_follows_the_batches(images):
    likelihood, squares = GaussianLikelihood(momentum=0.1), (images[0] - images[1]).square().mean().item()
    for _ in range(2):
        likelihood(*images)
    assert likelihood.variance.item() == pytest.approx(squares + (1 - squares) * 0.9**2)


def test_evaluation_does_not_move_the_running_variance(images):
    likelihood = GaussianLikelihood().eval()
    likelihood(*images)
    assert likelihood.variance == 1


def test_gaussian_noise_has_the_running_variance():
    likelihood = GaussianLikelihood()
    likelihood.variance.fill_(0.25)
    noise = likelihood.noise((50, 1, 32, 32), torch.Generator().manual_seed(0), "cpu")
    assert noise.var().item() == pytest.approx(0.25, rel=0.03) and noise.shape == (50, 1, 32, 32)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_noise_is_a_function_of_the_generator(name):
    likelihood = make_likelihood(name, 32)
    a, b = (likelihood.noise((2, 1, 32, 32), torch.Generator().manual_seed(4), "cpu") for _ in range(2))
    assert torch.equal(a, b)


@pytest.mark.parametrize("training", [False, True])
def test_the_elbo_is_the_note_s_loss_with_weights_of_the_noise(training):
    """Times 2 s2 the gradient is the note's with kl_h = 1024 s2 and kl_z = 1024 s2 / |X|, in both modes."""
    output, target = an_output(size=32)
    likelihood, n_slices = GaussianLikelihood().train(training), 384
    likelihood.variance.fill_(0.6)
    s2 = (output[0] - target).square().mean().item() if training else 0.6
    in_nats = likelihood(output[0], target) + 512 * weighted_kl(output, 1 / n_slices, 1.0)
    as_the_note = note.loss(output, target, 1024 * s2 / n_slices, 1024 * s2)
    for found, expected in zip(gradients(2 * s2 * in_nats, output), gradients(as_the_note, output), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)


# --- noise with a spectrum


def rings(size):
    """|k| of every mode of a full FFT, rounded to whole fundamental modes."""
    k = torch.fft.fftfreq(size, dtype=torch.float64) * size
    return torch.hypot(k[:, None], k).round().long()


def covariance(power, size):
    """Covariance (size^2, size^2) of the pixels of a periodic field with mean |FFT|^2 = power of each ring."""
    modes = torch.fft.fft2(torch.eye(size**2, dtype=torch.float64).unflatten(1, (size, size)), norm="ortho").flatten(1)
    return (modes @ torch.diag(power.double()[rings(size)].flatten()).to(modes.dtype) @ modes.mH).real


@pytest.fixture
def spectral():
    """Noise on 8 x 8 pixels with more power on large scales, in evaluation mode."""
    likelihood = SpectralLikelihood(8).eval()
    likelihood.power.copy_(4.0 / (1 + torch.arange(len(likelihood.power))) ** 1.5)
    return likelihood


def test_the_spectral_density_is_the_multivariate_normal_with_that_spectrum(spectral):
    recon, target = randn(5, 1, 8, 8), randn(5, 1, 8, 8, seed=1)
    exact = MultivariateNormal(torch.zeros(64, dtype=torch.float64), covariance(spectral.power, 8))
    expected = -exact.log_prob((target - recon).double().flatten(1)).mean()
    assert spectral(recon, target).item() == pytest.approx(expected.item(), rel=1e-5)


def test_spectral_noise_has_the_covariance_of_its_density(spectral):
    noise = spectral.noise((40_000, 1, 8, 8), torch.Generator().manual_seed(0), "cpu").flatten(1)
    expected = covariance(spectral.power, 8).float()
    assert (noise.T @ noise / len(noise) - expected).abs().max() < 0.03 * expected.max()


def test_spectral_noise_has_its_spectrum(spectral):
    noise = spectral.noise((20_000, 1, 8, 8), torch.Generator().manual_seed(0), "cpu")
    power = torch.fft.fft2(noise, norm="ortho").abs().square().mean(dim=(0, 1))
    torch.testing.assert_close(power, spectral.power[rings(8)], rtol=0.06, atol=0)


def test_noise_of_many_pixels_has_its_spectrum():
    likelihood = SpectralLikelihood(64)
    likelihood.power.copy_(1 / (1 + torch.arange(len(likelihood.power)) / 8) ** 2)
    noise = likelihood.noise((64, 1, 64, 64), torch.Generator().manual_seed(0), "cpu")
    found = likelihood.residual_power(torch.zeros_like(noise), noise).mean(dim=0)
    scatter = (2 / (64 * likelihood.n_modes)).sqrt()
    assert ((found / likelihood.power - 1).abs() < 5 * scatter).all()


@pytest.mark.parametrize("size", [8, 32])
def test_the_rings_hold_every_mode_once(size):
    likelihood = SpectralLikelihood(size)
    assert torch.equal(likelihood.n_modes, torch.bincount(rings(size).flatten()).float())


def test_the_power_of_the_rings_adds_up_to_the_squared_error():
    recon, target = randn(3, 1, 32, 32), randn(3, 1, 32, 32, seed=1)
    likelihood = SpectralLikelihood(32)
    total = (likelihood.residual_power(recon, target) * likelihood.n_modes).sum(dim=1)
    torch.testing.assert_close(total, (target - recon).square().sum(dim=(1, 2, 3)))


@pytest.mark.parametrize("variance", [0.2, 3.0])
def test_with_a_flat_spectrum_the_noise_is_white(images, variance):
    spectral, gaussian = SpectralLikelihood(16).eval(), GaussianLikelihood().eval()
    spectral.power.fill_(variance)
    gaussian.variance.fill_(variance)
    torch.testing.assert_close(spectral(*images), gaussian(*images))


def test_in_training_the_spectral_density_is_that_at_the_spectrum_of_the_batch(images):
    likelihood = SpectralLikelihood(16)
    at_the_batch = SpectralLikelihood(16).eval()
    at_the_batch.power.copy_(likelihood.residual_power(*images).mean(dim=0))
    torch.testing.assert_close(likelihood(*images), at_the_batch(*images))


def test_a_spectrum_of_its_own_is_at_least_as_likely_as_white_noise(images):
    assert SpectralLikelihood(16)(*images) <= GaussianLikelihood()(*images)


def test_the_running_spectrum_follows_the_batches(images):
    likelihood = SpectralLikelihood(16, momentum=0.1)
    likelihood(*images)
    torch.testing.assert_close(likelihood.power, 0.9 + 0.1 * likelihood.residual_power(*images).mean(dim=0))


def test_evaluation_does_not_move_the_running_spectrum(images):
    likelihood = SpectralLikelihood(16).eval()
    likelihood(*images)
    assert (likelihood.power == 1).all()


def test_the_spectrum_and_nothing_else_is_stored_with_the_weights():
    assert list(SpectralLikelihood(16).state_dict()) == ["power"]


def test_the_window_of_a_crop_leaves_the_power_of_white_noise():
    white, likelihood = randn(400, 1, 32, 32), SpectralLikelihood(32, periodic=False)
    power = likelihood.residual_power(torch.zeros_like(white), white).mean(dim=0)
    torch.testing.assert_close(power, torch.ones_like(power), rtol=0, atol=0.2)


def test_a_periodic_slice_has_no_window(images):
    assert (SpectralLikelihood(16).window == 1).all()


def test_bfloat16_slices_are_compared_in_float32(spectral):
    recon, target = (randn(2, 1, 8, 8, seed=seed).bfloat16() for seed in (0, 1))
    assert torch.equal(spectral(recon, target), spectral(recon.float(), target.float()))


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
    mu = torch.tensor([[-1.0], [1.0]])  # variance 1
    assert (active_units(mu, 0.99).item(), active_units(mu, 1.01).item()) == (1, 0)


# --- the spectrum of the residuals, asked of z


def test_the_residual_spectrum_loss_teaches_z_and_leaves_the_reconstruction_alone():
    term = ResidualSpectrumLoss(16, 32)
    torch.nn.init.normal_(term.reader.weight, generator=torch.Generator().manual_seed(0))
    recon, z = (torch.zeros(shape, requires_grad=True) for shape in ((4, 1, 32, 32), (4, 16)))
    term(recon, torch.randn(4, 1, 32, 32), z).backward()
    assert recon.grad is None and z.grad.abs().sum() > 0


def test_the_residual_spectrum_loss_is_least_at_the_true_spectrum():
    term = ResidualSpectrumLoss(1, 32, momentum=1.0)
    target = torch.randn(64, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    at_truth = term(torch.zeros_like(target), target, torch.ones(64, 1))
    for shift in (-0.1, 0.1):
        torch.nn.init.constant_(term.reader.weight, shift)
        assert term.eval()(torch.zeros_like(target), target, torch.ones(64, 1)) > at_truth


def test_the_residual_spectrum_loss_differs_from_the_spectral_likelihood_by_what_z_does_not_change():
    recon, target = torch.zeros(8, 1, 32, 32), torch.randn(8, 1, 32, 32)
    spectral, term = SpectralLikelihood(32), ResidualSpectrumLoss(4, 32, momentum=1.0)
    n_modes, power = spectral.n_modes, spectral.residual_power(recon, target).mean(dim=0)
    constant = 0.5 * (n_modes * (math.log(2 * math.pi) + power.log())).sum()
    found = term(recon, target, torch.randn(8, 4)) + constant
    torch.testing.assert_close(found, spectral(recon, target), rtol=1e-5, atol=0)
