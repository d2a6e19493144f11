"""The pixel noise that decoded means lack: drawn so that mean + noise has the spectrum and the pixels of slices.

The mean of a squared error has no power where it knows nothing. What is missing depends on the universe (its spectrum)
and on the place (a filament is more uncertain than a void, and more so upwards). So the noise is a Gaussian field with
a spectrum that is read from z, mapped pixel by pixel to the quantiles that residuals have at that decoded value.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from .loss import SpectralLikelihood

N_VALUES, N_LEVELS, WIDEST = 33, 81, 4.0  # decoded values; levels of a standard normal number, and the largest
MOST_SLICES = 1024  # that are looked at


@dataclass
class ResidualNoise:
    """Noise with the spectrum and the one-point distribution of residuals, given the decoded mean and z.

    rings     sums over rings of |k| (`SpectralLikelihood`);  origin, slopes, offset   log power of a ring from z,
              within limits, the least and largest log power that was seen
    values    (N_VALUES,) decoded pixels;  quantiles (N_VALUES, N_LEVELS) of residual / its standard deviation there,
              at the levels of standard normal numbers from -WIDEST to WIDEST
    filter    (n_rings,) of amplitudes, that gives the mapped field its spectrum back
    """

    rings: SpectralLikelihood
    origin: Tensor
    slopes: Tensor
    offset: Tensor
    limits: tuple[Tensor, Tensor]
    values: Tensor
    quantiles: Tensor
    filter: Tensor

    def power(self, z: Tensor) -> Tensor:
        """Mean |FFT|^2 (unitary) of the noise in rings: z (n, 512) -> (n, n_rings)."""
        return (self.offset + (z - self.origin) @ self.slopes).clamp(*self.limits).exp()

    def scale(self, z: Tensor) -> Tensor:
        """Standard deviation of the noise: z (n, 512) -> (n, 1, 1, 1)."""
        return ((self.power(z) @ self.rings.n_modes) / self.rings.n_modes.sum()).sqrt()[:, None, None, None]

    def draw(self, mean: Tensor, z: Tensor, generator: Generator) -> Tensor:
        """One noise for each decoded mean: (n, 1, H, H) pixels and z (n, 512) of their universes -> (n, 1, H, H)."""
        return self._filtered(self._mapped(mean, z, generator), self.filter.expand(len(mean), -1))

    def _mapped(self, mean: Tensor, z: Tensor, generator: Generator) -> Tensor:
        white = torch.randn(mean.shape, generator=generator)
        scale = self.scale(z)
        normal = self._filtered(white, self.power(z).sqrt()) / scale
        low, high = self.values[[0, -1]]
        place = torch.stack([normal / WIDEST, 2 * (mean - low) / (high - low) - 1], dim=-1)
        table = self.quantiles.expand(len(mean), 1, -1, -1)
        return scale * F.grid_sample(table, place[:, 0], padding_mode="border", align_corners=True)

    def _filtered(self, field: Tensor, amplitude: Tensor) -> Tensor:
        """A field times an amplitude (n, n_rings) in each ring."""
        return torch.fft.irfft2(torch.fft.rfft2(field) * amplitude[:, self.rings.ring][:, None], s=field.shape[-2:])


@torch.no_grad()
def fit_noise(truth: list[Tensor], recon: list[Tensor], z: Tensor, periodic: bool, seed: int = 0) -> ResidualNoise:
    """The noise of a model from slices and their reconstructions, cube by cube.

    truth, recon   one tensor (S, 1, H, H) of pixels a cube;  z (n_cubes, 512) means of the cubes
    periodic       whether a slice is the whole periodic box
    """
    rings = SpectralLikelihood(truth[0].shape[-1], periodic).eval()
    power = torch.stack([rings.residual_power(b, a).mean(dim=0) for a, b in zip(truth, recon, strict=True)])
    power = power.clamp_min(1e-12)
    slopes, offset = _ridge(z, power.log())
    few = max(1, MOST_SLICES // len(truth))
    mean, left = (
        torch.cat([x[:few] for x in recon]),
        torch.cat([(a - b)[:few] for a, b in zip(truth, recon, strict=True)]),
    )
    z_of = z.repeat_interleave(torch.tensor([min(few, len(x)) for x in truth]), dim=0)
    limits = power.log().amin(dim=0), power.log().amax(dim=0)
    noise = ResidualNoise(
        rings, z.mean(dim=0), slopes, offset, limits, *2 * [torch.zeros(0)], torch.ones(power.shape[1])
    )
    noise.values, noise.quantiles = _quantiles(mean, left / noise.scale(z_of))
    generator = torch.Generator().manual_seed(seed)
    found = rings.residual_power(torch.zeros_like(mean), noise._mapped(mean, z_of, generator)).mean(dim=0)
    noise.filter = (rings.residual_power(torch.zeros_like(mean), left).mean(dim=0) / found.clamp_min(1e-12)).sqrt()
    return noise


def _ridge(z: Tensor, log_power: Tensor) -> tuple[Tensor, Tensor]:
    """Slopes (512, n_rings) and offset at the mean of z, the ridge by leave-one-out over cubes; none from few cubes."""
    from sklearn.linear_model import RidgeCV

    offset = log_power.mean(dim=0)
    if len(z) < 16:
        return torch.zeros(z.shape[1], log_power.shape[1]), offset
    centred = (z - z.mean(dim=0)).double().numpy()
    fitted = RidgeCV(alphas=np.geomspace(1e-4, 1e6, 41)).fit(centred, log_power.double().numpy())
    return torch.from_numpy(fitted.coef_.T).float(), torch.from_numpy(fitted.intercept_).float()


def _quantiles(mean: Tensor, left: Tensor) -> tuple[Tensor, Tensor]:
    """Decoded values, evenly spread between their 0.1 and 99.9 % quantiles, and quantiles of `left` around each."""
    mean, left = mean.flatten().numpy(), left.flatten().numpy()
    order = mean.argsort(kind="stable")
    mean, left = mean[order], left[order]
    values = np.linspace(*np.quantile(mean, [0.001, 0.999]), N_VALUES)
    levels = [0.5 * (1 + math.erf(x / math.sqrt(2))) for x in np.linspace(-WIDEST, WIDEST, N_LEVELS)]
    half = 0.5 * (values[1] - values[0])
    least = max(1, len(mean) // 2000)
    rows = []
    for value in values:
        start, stop = np.searchsorted(mean, [value - half, value + half])
        if stop - start < least:  # sparse ends: the nearest that are there
            start = min(max(0, (start + stop - least) // 2), len(mean) - least)
            stop = start + least
        rows.append(np.quantile(left[start:stop], levels))
    return torch.from_numpy(values).float(), torch.from_numpy(np.stack(rows)).float()
