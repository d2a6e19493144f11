"""Departures from the note in the loss: pixel noises with a density, and the spectrum of the residuals asked of z.

With a Gaussian pixel noise of variance s2 the negative ELBO of a slice is l2 / (2 s2) + KL(h) + KL(z) / |X| plus a
constant, all in nats, |X| the number of independent slices of a cube (Hewitt et al. 2018). Times 2 s2 that is the
note's loss with kl_h = 2 * 512 * s2 and kl_z = 2 * 512 * s2 / |X|, since the note averages KLs over 512 dimensions.
"""

import math

import torch
from torch import Generator, Tensor, nn

from ..statistics import ring_mean, rings

LOG_2PI = math.log(2 * math.pi)


class GaussianLikelihood(nn.Module):
    """White pixel noise with one variance for all pixels, at its optimum (Rybkin et al. 2020, arXiv:2006.13202).

    In training the variance is the batch's mean squared error, in evaluation the running estimate of it.
    """

    def __init__(self, momentum: float = 0.01):
        super().__init__()
        self.momentum = momentum
        self.register_buffer("variance", torch.ones(()))

    def forward(self, recon: Tensor, target: Tensor) -> Tensor:
        """-log p(target | recon) [nats a slice], averaged over the batch: (B, 1, H, H) twice -> scalar."""
        squares = (target - recon).square().mean()
        if self.training:
            variance = squares
            self.variance.lerp_(squares.detach(), self.momentum)
        else:
            variance = self.variance
        n_pixels = target[0].numel()
        return 0.5 * n_pixels * (LOG_2PI + variance.log() + squares / variance)

    def noise(self, shape: tuple[int, ...], generator: Generator, device: torch.device | str) -> Tensor:
        """One draw of the pixel noise, of shape (B, 1, H, H)."""
        white = torch.randn(shape, generator=generator, device=generator.device).to(device)
        return white * self.variance.sqrt()


class SpectralLikelihood(nn.Module):
    """Gaussian pixel noise that is diagonal in Fourier space, with an isotropic spectrum at its optimum.

    Exact for slices that are the whole periodic box; for crops (periodic=False) the residual is multiplied by a
    Hann window of unit mean square first, which makes it an approximation. The spectrum is the mean power of
    the residual in rings of |k| (unitary FFT; unit rings, all modes): of the batch in training, the running
    estimate in evaluation.
    """

    def __init__(self, image_size: int, periodic: bool = True, momentum: float = 0.01):
        super().__init__()
        self.momentum = momentum
        ring, weight, n_modes, _ = rings(image_size)
        self.register_buffer("ring", torch.tensor(ring).unflatten(0, (image_size, -1)), persistent=False)
        self.register_buffer("weight", torch.tensor(weight, dtype=torch.float32), persistent=False)
        self.register_buffer("n_modes", torch.tensor(n_modes, dtype=torch.float32), persistent=False)
        self.register_buffer("power", torch.ones(len(n_modes)))
        window = torch.ones(image_size, image_size)
        if not periodic:
            hann = torch.hann_window(image_size)
            window = hann[:, None] * hann
            window = window / window.square().mean().sqrt()
        self.register_buffer("window", window, persistent=False)

    def residual_power(self, recon: Tensor, target: Tensor) -> Tensor:
        """Mean |FFT(target - recon)|^2 of each ring: (B, 1, H, H) twice -> (B, n_rings), float32."""
        residual = (target.float() - recon.float()) * self.window
        power = torch.fft.rfft2(residual[:, 0], norm="ortho").abs().square()
        return ring_mean(power, self.ring.flatten(), self.weight, self.n_modes)

    def forward(self, recon: Tensor, target: Tensor) -> Tensor:
        """-log p(target | recon) [nats a slice], averaged over the batch: (B, 1, H, H) twice -> scalar."""
        found = self.residual_power(recon, target).mean(dim=0)
        if self.training:
            power = found
            self.power.lerp_(found.detach(), self.momentum)
        else:
            power = self.power
        return 0.5 * (self.n_modes * (LOG_2PI + power.log() + found / power)).sum()

    def noise(self, shape: tuple[int, ...], generator: Generator, device: torch.device | str) -> Tensor:
        """One draw of the pixel noise, of shape (B, 1, H, H): white noise filtered to the spectrum."""
        white = torch.randn(shape, generator=generator, device=generator.device).to(device)
        return torch.fft.irfft2(torch.fft.rfft2(white) * self.power.sqrt()[self.ring], s=shape[-2:])


class ResidualSpectrumLoss(nn.Module):
    """The spectrum of what a reconstruction lacks, read from z: a term that teaches z what h has no room for.

    How much power is missing at each |k| is a property of the universe, not of the slice. The squared error does not
    ask for it, so without this term z has no reason to know the small scales. The reconstruction is taken as it is:
    this trains z (and the reader, one Linear layer), never the decoder.
    """

    def __init__(self, latent_dim: int, image_size: int, periodic: bool = True, momentum: float = 0.02):
        super().__init__()
        self.momentum = momentum
        self.rings = SpectralLikelihood(image_size, periodic)
        self.reader = nn.Linear(latent_dim, len(self.rings.n_modes))
        nn.init.zeros_(self.reader.weight), nn.init.zeros_(self.reader.bias)

    def forward(self, recon: Tensor, target: Tensor, z: Tensor) -> Tensor:
        """-log p(target - recon | z) [nats a slice] but for a constant, averaged over the batch.

        recon, target (B, 1, H, H);  z (B, D)
        """
        found, mean = self.rings.residual_power(recon.detach(), target.detach()), self.rings.power
        if self.training:
            mean.lerp_(found.mean(dim=0), self.momentum)
        shift = self.reader(z)  # of the logarithm of the power, from the running mean
        return 0.5 * (self.rings.n_modes * (shift + found / mean * (-shift).exp())).sum(dim=1).mean()


def make_likelihood(name: str, image_size: int, periodic: bool = True) -> nn.Module | None:
    """Pixel noise by name, "gaussian" or "spectral"; None for "note", whose squared error has no noise scale."""
    if name == "note":
        return None
    if name == "gaussian":
        return GaussianLikelihood()
    if name == "spectral":
        return SpectralLikelihood(image_size, periodic)
    raise ValueError(f'found likelihood="{name}"; expected "note", "gaussian" or "spectral"')
