"""Bounds on log p(slice | context), held to a linear model whose answer is known."""

import math

import pytest
import torch
from suites import lognormal_suite, tiny_config
from torch import distributions

from uvae_lib import latents
from uvae_lib.analysis.elbo import bounds_of, gaussian_noise, held_out_bounds, iwae_bound, log_normal, log_weight
from uvae_lib.latents import Posterior
from uvae_lib.loss import GaussianLikelihood
from uvae_lib.training import fit

N_PIXELS, N_LATENT, VARIANCE = 16, 3, 0.3


class LinearModel:
    """x = W h + noise with orthogonal columns in W, so that the posterior of h is a diagonal Gaussian."""

    def __init__(self, n: int = 5):
        generator = torch.Generator().manual_seed(0)
        self.w = 1.5 * torch.linalg.qr(torch.randn(N_PIXELS, N_LATENT, generator=generator))[0]
        self.prior = Posterior(torch.tensor([0.5, -1.0, 0.0]), torch.tensor([0.0, 0.7, -0.5]))
        self.x = torch.randn(n, 1, 4, 4, generator=generator)
        self.noise = gaussian_noise([VARIANCE])

    def exact(self):
        """log p(x), (n,)."""
        covariance = self.w * self.prior.logvar.exp() @ self.w.T + VARIANCE * torch.eye(N_PIXELS)
        return distributions.MultivariateNormal(self.w @ self.prior.mu, covariance).log_prob(self.x.flatten(1))

    def posterior(self) -> Posterior:
        precision = (-self.prior.logvar).exp() + 1.5**2 / VARIANCE
        mu = (self.prior.mu * (-self.prior.logvar).exp() + self.x.flatten(1) @ self.w / VARIANCE) / precision
        return Posterior(mu, -precision.log().expand(len(mu), -1))

    def weights(self, q: Posterior, k: int, seed: int = 0):
        """Log-weights of k samples, (k, n)."""
        generator, rows = torch.Generator().manual_seed(seed), []
        for _ in range(k):
            h = q.sample(generator)
            recon = (h @ self.w.T).view_as(self.x)
            rows.append(log_weight(self.x, h, recon, q, self.prior, self.noise))
        return torch.stack(rows)


@pytest.fixture(scope="module")
def model():
    return LinearModel()


@pytest.fixture(scope="module")
def wrong(model):
    """A posterior that is off and too wide."""
    right = model.posterior()
    return Posterior(right.mu + 0.2, right.logvar + 0.7)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("elbo")
    config = tiny_config(lognormal_suite(folder / "data", n_cubes=8), steps=6)
    return fit(config, folder / "run", progress=False)


@pytest.fixture(scope="module")
def slices(run):
    return latents.spread_slices(run, run.open_suite(), 0, 6)


@pytest.fixture(scope="module")
def z(run, slices):
    return latents.encode_cube(run, slices[2:])


def bounds(run, slices, z, k=8, seed=0, likelihood=None):
    return iwae_bound(run, slices, z, k, generator=torch.Generator().manual_seed(seed), likelihood=likelihood)


def test_log_normal_is_that_of_torch():
    mu, logvar, x = torch.randn(3, 4, 7, generator=torch.Generator().manual_seed(0))
    expected = distributions.Normal(mu.double(), (0.5 * logvar).exp().double()).log_prob(x.double()).sum(dim=1)
    torch.testing.assert_close(log_normal(x, Posterior(mu, logvar)), expected, rtol=1e-5, atol=1e-5)


def test_with_the_true_posterior_every_sample_gives_the_exact_likelihood(model):
    found = bounds_of(model.weights(model.posterior(), 3))
    for bound in found:
        torch.testing.assert_close(bound, model.exact().double(), rtol=0, atol=1e-4)


def test_many_samples_of_a_wrong_posterior_give_the_exact_likelihood(model, wrong):
    found = bounds_of(model.weights(wrong, 500))
    torch.testing.assert_close(found.iwae, model.exact().double(), rtol=0, atol=0.15)


def test_the_elbo_is_the_likelihood_less_the_divergence_of_the_posteriors(model, wrong):
    def normal(q):
        return distributions.Normal(q.mu, (0.5 * q.logvar).exp())

    gap = distributions.kl_divergence(normal(wrong), normal(model.posterior())).sum(dim=1)
    found = bounds_of(model.weights(wrong, 500))
    torch.testing.assert_close(found.elbo, (model.exact() - gap).double(), rtol=0, atol=0.3)


def test_the_bound_rises_with_the_number_of_samples_from_the_elbo(model, wrong):
    weights = model.weights(wrong, 64)
    means = [torch.stack([bounds_of(part).iwae for part in weights.split(k)]).mean() for k in (1, 2, 4, 8, 16, 32, 64)]
    assert means == sorted(means)
    torch.testing.assert_close(means[0], bounds_of(weights).elbo.mean())


def test_the_bound_of_a_run_is_above_its_elbo_and_equal_to_it_for_one_sample(run, slices, z):
    several, one = bounds(run, slices[:2], z), bounds(run, slices[:2], z, k=1)
    assert (several.iwae > several.elbo).all()
    torch.testing.assert_close(one.iwae, one.elbo)


def test_bounds_are_a_function_of_the_generator(run, slices, z):
    first, again, other = (bounds(run, slices[:2], z, seed=seed).iwae for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_one_context_for_all_slices_is_the_same_context_for_each(run, slices, z):
    each = Posterior(*(value.expand(2, -1) for value in z))
    assert torch.equal(bounds(run, slices[:2], z).iwae, bounds(run, slices[:2], each).iwae)


def test_a_run_of_the_squared_error_gets_the_noise_that_it_leaves(run, slices, z):
    found = bounds(run, slices[:2], z, k=16).elbo.mean()
    squares = torch.stack([(slices[:2] - decoded(run, slices[:2], z, seed)).square().mean() for seed in range(20)])
    best = bounds(run, slices[:2], z, k=16, likelihood=gaussian_noise(squares.tolist())).elbo.mean()
    worse = bounds(run, slices[:2], z, k=16, likelihood=gaussian_noise([1.2 * float(squares.mean())])).elbo.mean()
    assert abs(found - best) < best - worse


def decoded(run, slices, z, seed):
    generator = torch.Generator().manual_seed(seed)
    draw = z.sample(generator).expand(len(slices), -1)
    return latents.decode(run, latents.encode_slices(run, slices, draw).sample(generator))


def test_the_gaussian_noise_has_the_mean_of_the_squared_errors():
    noise = gaussian_noise([0.1, 0.3])
    assert isinstance(noise, GaussianLikelihood) and not noise.training
    assert float(noise.variance) == pytest.approx(0.2)


def test_no_samples_are_refused(run, slices, z):
    with pytest.raises(ValueError, match="found k=0 samples; use at least 1"):
        bounds(run, slices[:2], z, k=0)


@pytest.mark.parametrize("likelihood", ["note", "gaussian", "spectral"])
def test_held_out_bounds_hold_for_every_pixel_noise(likelihood, tmp_path):
    config = tiny_config(lognormal_suite(tmp_path / "data", n_cubes=12), steps=3, loss={"likelihood": likelihood})
    run = fit(config, tmp_path / "run", progress=False)
    found = held_out_bounds(run, run.open_suite(), k=4, n_slices=5, n_targets=2)
    assert found["iwae"] > found["elbo"]
    assert all(math.isfinite(found[name]) for name in ("elbo", "iwae", "elbo_error", "iwae_error"))
    assert found["pixel_noise"] == {"note": "gaussian"}.get(likelihood, likelihood)
