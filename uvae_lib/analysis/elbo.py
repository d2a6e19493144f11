"""Bounds on the log-probability of held-out slices, in nats: the ELBO, and the tighter one of many weighted samples.

Given some slices of a universe (the context), the model says of a further one
    p(slice | context) = E over z ~ q(z | context), h ~ p(h | z) of p(slice | h).
With h drawn from q(h | slice, z) in place of p(h | z), w = p(slice | h) p(h | z) / q(h | slice, z) has that mean, so
    E log w  <=  E log [(w_1 + ... + w_k) / k]  <=  log p(slice | context),
the ELBO, the importance-weighted bound (IWAE; Burda, Grosse & Salakhutdinov 2016, arXiv:1509.00519), which rises with
k, and the truth. The slice itself is not in its context, so no KL of z is due.
"""

import math
from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn

from .. import latents
from ..cubes import CubeSuite
from ..latents import Posterior
from ..loss import LOG_2PI, GaussianLikelihood, NoteLikelihood
from ..runs import Run


class Bounds(NamedTuple):
    """Lower bounds on log p(slice | context) [nats], one a slice, (n,) float64: the ELBO and, above it, IWAE."""

    elbo: Tensor
    iwae: Tensor


def log_normal(x: Tensor, gaussian: Posterior) -> Tensor:
    """Log-density of a diagonal Gaussian, summed over dimensions: (n, D) -> (n,) [nats]."""
    squares = (x - gaussian.mu).square() * (-gaussian.logvar).exp()
    return -0.5 * (LOG_2PI + gaussian.logvar + squares).sum(dim=-1, dtype=torch.float64)


def log_weight(slices: Tensor, h: Tensor, recon: Tensor, q: Posterior, p: Posterior, likelihood: nn.Module) -> Tensor:
    """log [p(slice | h) p(h | z) / q(h | slice, z)] of one h a slice, (n,) float64 [nats].

    slices, recon (n, 1, H, H): the slice and the decoded mean of h;  h (n, D);  q, p: posterior and prior of h
    likelihood    gaussian or spectral, in evaluation mode
    """
    pairs = zip(recon, slices, strict=True)
    pixels = torch.stack([-likelihood(mean[None], truth[None]).double() for mean, truth in pairs])
    return pixels + log_normal(h, p) - log_normal(h, q)


def bounds_of(log_weights: Tensor) -> Bounds:
    """ELBO and IWAE bound of k samples a slice: (k, n) -> the mean, and log-mean-exp, over the samples."""
    weights = log_weights.double()
    return Bounds(weights.mean(dim=0), weights.logsumexp(dim=0) - math.log(len(weights)))


@torch.inference_mode()
def iwae_bound(
    run: Run, slices: Tensor, z: Posterior, k: int = 64, *, generator: Generator, likelihood: nn.Module | None = None
) -> Bounds:
    """ELBO and IWAE bound of log p(slice | context) [nats a slice], from the same k samples.

    slices      (n, 1, H, H) pixels;  z: q(z | context), (512,) for all slices or (n, 512), from slices of the same
                cube that are none of these (`latents.encode_cube`)
    likelihood  the pixel noise; the run's when absent. The note's squared error is no density, and a Gaussian stands
                in for it, whose variance is the mean squared error of these slices at h ~ q(h | slice, z)
                (`gaussian_noise`): give one that was found on other cubes to compare runs.
    Memory: n decoded slices, whatever k is. Raises ValueError for k < 1.
    """
    if k < 1:
        raise ValueError(f"found k={k} samples; use at least 1")
    if likelihood is None:
        likelihood = run.likelihood
    if isinstance(likelihood, NoteLikelihood):
        likelihood = gaussian_noise([squared_error(run, slices, z, generator)])
    maps = latents.trunk_maps(run, slices)
    return bounds_of(
        torch.stack([log_weight(slices, *_draw(run, slices, z, maps, generator), likelihood) for _ in range(k)])
    )


def _draw(run: Run, slices: Tensor, z: Posterior, maps: Tensor, generator: Generator) -> tuple:
    """One z and one h a slice: h, the decoded mean of it, q(h | slice, z) and p(h | z)."""
    draws = Posterior(*(value.expand(len(slices), -1) for value in z)).sample(generator)
    q = latents.encode_slices(run, slices, draws, maps)
    h = q.sample(generator)
    return h, latents.decode(run, h), q, latents.prior_of_h(run, draws)


@torch.inference_mode()
def squared_error(run: Run, slices: Tensor, z: Posterior, generator: Generator) -> float:
    """Mean over pixels of (slice - decoded)^2 at one h ~ q(h | slice, z ~ q(z | context)); see `iwae_bound`."""
    recon = _draw(run, slices, z, latents.trunk_maps(run, slices), generator)[1]
    return float((slices - recon).square().mean())


def gaussian_noise(squared_errors: list[float]) -> GaussianLikelihood:
    """White pixel noise with the mean of some squared errors as its variance, in evaluation mode."""
    noise = GaussianLikelihood().eval()
    noise.variance.fill_(sum(squared_errors) / len(squared_errors))
    return noise


def held_out_bounds(
    run: Run, suite: CubeSuite, *, k: int = 64, n_slices: int = 15, n_targets: int = 3, seed: int = 0
) -> dict[str, float]:
    """ELBO and IWAE bound on the test cubes [nats a slice], of n_targets slices a cube given the other slices.

    n_slices    of a cube, targets and context together
    With the note's loss the pixel noise is a Gaussian with the mean squared error of the validation cubes.
    Returns "elbo", "iwae", their standard errors over cubes, "k" and the "pixel_noise" that was assumed.
    """
    generator = torch.Generator().manual_seed(seed)

    def parts(cube: int) -> tuple[Tensor, Posterior]:
        slices = latents.spread_slices(run, suite, cube, n_slices, seed=cube)
        return slices[:n_targets], latents.encode_cube(run, slices[n_targets:])

    likelihood = run.likelihood
    if isinstance(likelihood, NoteLikelihood):
        likelihood = gaussian_noise([squared_error(run, *parts(cube), generator) for cube in run.split["val"]])
    found = [iwae_bound(run, *parts(cube), k, generator=generator, likelihood=likelihood) for cube in run.split["test"]]
    cubes = torch.stack([torch.stack(bounds).mean(dim=1) for bounds in found])
    errors = cubes.std(dim=0) / math.sqrt(len(cubes))
    return {
        "elbo": float(cubes[:, 0].mean()),
        "elbo_error": float(errors[0]),
        "iwae": float(cubes[:, 1].mean()),
        "iwae_error": float(errors[1]),
        "k": k,
        "pixel_noise": type(likelihood).__name__.removesuffix("Likelihood").lower(),
    }
