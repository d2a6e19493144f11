"""The pixel noise that decoded means lack: drawn so that mean + noise has the spectrum and the pixels of slices.

The mean of a squared error has no power where it knows nothing. What is missing depends on the universe (its spectrum)
and on the place (a filament is more uncertain than a void, and more so upwards). So the noise is a Gaussian field with
a spectrum that is read from z, mapped pixel by pixel to the quantiles that residuals have at that decoded value.

New slices lack something else besides: p(h | z) draws the 512 numbers of h independently, while those of real slices
know of each other, as a field of walls and voids does, and their variances follow the universe further than p(h | z)
has learned. What that does to the spectrum and to the pixels is undone in turns by amplitudes in rings of |k| and by a
monotone map of the pixels, both read from z (`Correction`).
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from .likelihoods import SpectralLikelihood

N_VALUES, N_LEVELS, WIDEST = 33, 81, 4.0  # decoded values; levels of a standard normal number, and the largest
LEVELS = [0.5 * (1 + math.erf(x / math.sqrt(2))) for x in np.linspace(-WIDEST, WIDEST, N_LEVELS)]
MOST_SLICES = 1024  # that are looked at


@dataclass
class Readout:
    """Values that are read from z by a ridge, within the least and the largest that were seen.

    origin (512,), slopes (512, n), offset (n,), low, high (n,)
    """

    origin: Tensor
    slopes: Tensor
    offset: Tensor
    low: Tensor
    high: Tensor

    def __call__(self, z: Tensor) -> Tensor:
        """z (..., 512) -> (..., n)."""
        return (self.offset + (z - self.origin) @ self.slopes).clamp(self.low, self.high)


@dataclass
class PixelMap:
    """A monotone map of the pixels of new slices, given z: their quantiles become those of slices.

    found, wanted   quantiles of new slices and of slices, read from z
    """

    found: Readout
    wanted: Readout

    def __call__(self, x: Tensor, z: Tensor) -> Tensor:
        """x (n, 1, H, H) pixels, z (n, 512) -> (n, 1, H, H). Beyond the last quantiles pixels move as these do."""
        found, wanted = (rising(readout(z)) for readout in (self.found, self.wanted))
        pixels = x.flatten(1)
        right = torch.searchsorted(found, pixels).clamp(1, found.shape[1] - 1)
        (x0, x1), (y0, y1) = ((t.gather(1, right - 1), t.gather(1, right)) for t in (found, wanted))
        inside = pixels.clamp(found[:, :1], found[:, -1:])
        return (pixels - inside + y0 + (y1 - y0) * (inside - x0) / (x1 - x0)).view_as(x)


@dataclass
class Correction:
    """Of new slices, given z: amplitudes in rings of |k|, then a map of the pixels.

    rings   `SpectralLikelihood`;  log_amplitude   of a ring, read from z
    """

    rings: SpectralLikelihood
    log_amplitude: Readout
    pixel_map: PixelMap

    def __call__(self, x: Tensor, z: Tensor) -> Tensor:
        """x (n, 1, H, H) pixels, z (n, 512) -> (n, 1, H, H)."""
        return self.pixel_map(filtered(x, self.log_amplitude(z).exp(), self.rings), z)


def filtered(field: Tensor, amplitude: Tensor, rings: SpectralLikelihood) -> Tensor:
    """Fields (n, 1, H, H) times an amplitude (n, n_rings) in each ring of |k|."""
    return torch.fft.irfft2(torch.fft.rfft2(field) * amplitude[:, rings.ring][:, None], s=field.shape[-2:])


def rising(quantiles: Tensor) -> Tensor:
    """Quantiles (n, m) that were read one by one, made to rise strictly."""
    return quantiles.cummax(dim=1).values + 1e-5 * torch.arange(quantiles.shape[1])


@dataclass
class ResidualNoise:
    """Noise with the spectrum and the one-point distribution of residuals, given the decoded mean and z.

    rings      sums over rings of |k| (`SpectralLikelihood`);  log_power   of a ring, read from z
    values     (N_VALUES,) decoded pixels;  quantiles (N_VALUES, N_LEVELS) of residual / its standard deviation there,
               at the levels of standard normal numbers from -WIDEST to WIDEST
    filter     (n_rings,) of amplitudes, that gives the mapped field its spectrum back
    corrections   one after the other, of slices whose h was drawn from p(h | z); see `complete`
    """

    rings: SpectralLikelihood
    log_power: Readout
    values: Tensor
    quantiles: Tensor
    filter: Tensor
    corrections: tuple[Correction, ...] = ()

    def power(self, z: Tensor) -> Tensor:
        """Mean |FFT|^2 (unitary) of the noise in rings: z (n, 512) -> (n, n_rings)."""
        return self.log_power(z).exp()

    def scale(self, z: Tensor) -> Tensor:
        """Standard deviation of the noise: z (n, 512) -> (n, 1, 1, 1)."""
        return ((self.power(z) @ self.rings.n_modes) / self.rings.n_modes.sum()).sqrt()[:, None, None, None]

    def draw(self, mean: Tensor, z: Tensor, generator: Generator) -> Tensor:
        """One noise for each decoded mean: (n, 1, H, H) pixels and z (n, 512) of their universes -> (n, 1, H, H)."""
        return filtered(self._mapped(mean, z, generator), self.filter.expand(len(mean), -1), self.rings)

    def complete(self, mean: Tensor, z: Tensor, generator: Generator) -> Tensor:
        """New slices from the decoded means of an h that p(h | z) drew: (n, 1, H, H), (n, 512) -> (n, 1, H, H)."""
        x = mean + self.draw(mean, z, generator)
        for correct in self.corrections:
            x = correct(x, z)
        return x

    def _mapped(self, mean: Tensor, z: Tensor, generator: Generator) -> Tensor:
        white = torch.randn(mean.shape, generator=generator)
        scale = self.scale(z)
        normal = filtered(white, self.power(z).sqrt(), self.rings) / scale
        low, high = self.values[[0, -1]]
        place = torch.stack([normal / WIDEST, 2 * (mean - low) / (high - low) - 1], dim=-1)
        table = self.quantiles.expand(len(mean), 1, -1, -1)
        return scale * F.grid_sample(table, place[:, 0], padding_mode="border", align_corners=True)


@torch.no_grad()
def fit_noise(truth: list[Tensor], recon: list[Tensor], z: Tensor, periodic: bool, seed: int = 0) -> ResidualNoise:
    """The noise of a model from slices and their reconstructions, cube by cube.

    truth, recon   one tensor (S, 1, H, H) of pixels a cube;  z (n_cubes, 512) means of the cubes
    periodic       whether a slice is the whole periodic box
    """
    rings = SpectralLikelihood(truth[0].shape[-1], periodic).eval()
    power = torch.stack([rings.residual_power(b, a).mean(dim=0) for a, b in zip(truth, recon, strict=True)])
    power = power.clamp_min(1e-12)
    few = max(1, MOST_SLICES // len(truth))
    mean, left = (
        torch.cat([x[:few] for x in recon]),
        torch.cat([(a - b)[:few] for a, b in zip(truth, recon, strict=True)]),
    )
    z_of = z.repeat_interleave(torch.tensor([min(few, len(x)) for x in truth]), dim=0)
    noise = ResidualNoise(rings, fit_readout(z, power.log()), *2 * [torch.zeros(0)], torch.ones(power.shape[1]))
    noise.values, noise.quantiles = _quantiles(mean, left / noise.scale(z_of))
    generator = torch.Generator().manual_seed(seed)
    found = rings.residual_power(torch.zeros_like(mean), noise._mapped(mean, z_of, generator)).mean(dim=0)
    noise.filter = (rings.residual_power(torch.zeros_like(mean), left).mean(dim=0) / found.clamp_min(1e-12)).sqrt()
    return noise


@torch.no_grad()
def fit_corrections(
    truth: list[Tensor], drawn: list[Tensor], z: Tensor, rings: SpectralLikelihood, rounds: int = 3
) -> tuple[Correction, ...]:
    """What turns new slices into slices of the same universes by spectrum and pixels, in so many turns.

    truth, drawn   one tensor (S, 1, H, H) of pixels a cube, of slices and of new ones;  z (n_cubes, 512) their means
    """

    def log_power(fields: list[Tensor]) -> Tensor:
        power = [rings.residual_power(torch.zeros_like(x), x).mean(dim=0) for x in fields]
        return torch.stack(power).clamp_min(1e-12).log()

    wanted, corrections = log_power(truth), []
    for _ in range(rounds):
        log_amplitude = 0.5 * (wanted - log_power(drawn))
        log_amplitude[:, 0] = 0.0  # the mean of a slice is left to the pixels
        amplitude = fit_readout(z, log_amplitude)
        fields = [filtered(x, amplitude(row).exp().expand(len(x), -1), rings) for x, row in zip(drawn, z, strict=True)]
        corrections.append(Correction(rings, amplitude, fit_pixel_map(truth, fields, z)))
        drawn = [corrections[-1].pixel_map(x, row.expand(len(x), -1)) for x, row in zip(fields, z, strict=True)]
    return tuple(corrections)


@torch.no_grad()
def fit_pixel_map(truth: list[Tensor], drawn: list[Tensor], z: Tensor) -> PixelMap:
    """The map from new slices to slices of the same universes, cube by cube.

    truth, drawn   one tensor (S, 1, H, H) of pixels a cube, of slices and of new ones;  z (n_cubes, 512) their means
    """
    quantiles = (
        torch.from_numpy(np.stack([np.quantile(x.numpy(), LEVELS) for x in fields])) for fields in (drawn, truth)
    )
    return PixelMap(*(fit_readout(z, values.float()) for values in quantiles))


def fit_readout(z: Tensor, values: Tensor) -> Readout:
    """A ridge from z (n_cubes, 512) to values (n_cubes, n), by leave-one-out over cubes; their mean from few cubes."""
    from sklearn.linear_model import RidgeCV

    origin, limits = z.mean(dim=0), (values.amin(dim=0), values.amax(dim=0))
    if len(z) < 16:
        return Readout(origin, torch.zeros(z.shape[1], values.shape[1]), values.mean(dim=0), *limits)
    centred = (z - origin).double().numpy()
    fitted = RidgeCV(alphas=np.geomspace(1e-4, 1e6, 41)).fit(centred, values.double().numpy())
    slopes, offset = (torch.from_numpy(x).float() for x in (fitted.coef_.T, fitted.intercept_))
    return Readout(origin, slopes, offset, *limits)


def _quantiles(mean: Tensor, left: Tensor) -> tuple[Tensor, Tensor]:
    """Decoded values, evenly spread between their 0.1 and 99.9 % quantiles, and quantiles of `left` around each."""
    mean, left = mean.flatten().numpy(), left.flatten().numpy()
    order = mean.argsort(kind="stable")
    mean, left = mean[order], left[order]
    values = np.linspace(*np.quantile(mean, [0.001, 0.999]), N_VALUES)
    half = 0.5 * (values[1] - values[0])
    least = max(1, len(mean) // 2000)
    rows = []
    for value in values:
        start, stop = np.searchsorted(mean, [value - half, value + half])
        if stop - start < least:  # sparse ends: the nearest that are there
            start = min(max(0, (start + stop - least) // 2), len(mean) - least)
            stop = start + least
        rows.append(np.quantile(left[start:stop], LEVELS))
    return torch.from_numpy(values).float(), torch.from_numpy(np.stack(rows)).float()
