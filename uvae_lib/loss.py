"""The loss of the note, and the same model's ELBO in nats under two noises of the pixels.

With a Gaussian pixel noise of variance s2 the negative ELBO of a slice is l2 / (2 s2) + KL(h) + KL(z) / |X| plus a
constant, all in nats, |X| the number of independent slices of a cube (Hewitt et al. 2018). Times 2 s2 that is the
note's loss with kl_h = 2 * 512 * s2 and kl_z = 2 * 512 * s2 / |X|, since the note averages KLs over 512 dimensions.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

LOG_2PI = math.log(2 * math.pi)


def mse_loss(recon_h: Tensor, img_h: Tensor) -> Tensor:
    """Squared error summed over pixels, averaged over the batch: (B, 1, H, H) twice -> scalar."""
    return F.mse_loss(recon_h, img_h, reduction="sum") / recon_h.shape[0]


def kl_loss(q_mu: Tensor | None, q_logvar: Tensor | None, p_mu: Tensor, p_logvar: Tensor, kl_z: bool = False) -> Tensor:
    """KL(p || q) of diagonal Gaussians, averaged over batch and dimensions, with the note's order of arguments.

    q_mu, q_logvar (B, D)   the prior; ignored (may be None) with kl_z=True, where it is N(0, I)
    p_mu, p_logvar (B, D)   the posterior
    Returns a scalar [nats a dimension]; finite for log-variances from -30 to 30. Raises ValueError without a prior.
    """
    if not kl_z and (q_mu is None or q_logvar is None):
        raise ValueError("found no prior (q_mu, q_logvar); give both, or kl_z=True for N(0, I)")
    return kl_by_dimension(p_mu, p_logvar, *((None, None) if kl_z else (q_mu, q_logvar))).mean()


def kl_by_dimension(
    p_mu: Tensor, p_logvar: Tensor, q_mu: Tensor | None = None, q_logvar: Tensor | None = None
) -> Tensor:
    """KL(p || q) [nats] of every dimension, (B, D); q is N(0, I) when absent."""
    if q_mu is None or q_logvar is None:
        return 0.5 * (p_logvar.exp() + p_mu.square() - 1 - p_logvar)
    gap = p_logvar - q_logvar
    return 0.5 * (gap.exp() + (p_mu - q_mu).square() * (-q_logvar).exp() - 1 - gap)


class NoteLikelihood(nn.Module):
    """The note's pixel term: the squared error itself, whose noise has no scale. A decoded slice is its mean."""

    def forward(self, recon: Tensor, target: Tensor) -> Tensor:
        return mse_loss(recon, target)

    def noise(self, shape: tuple[int, ...], generator: Generator, device: torch.device | str) -> Tensor:
        """No noise: zeros of the shape (B, 1, H, H)."""
        return torch.zeros(shape, device=device)


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
        row, col = np.fft.fftfreq(image_size, 1 / image_size), np.arange(image_size // 2 + 1)
        ring = np.hypot(row[:, None], col).round().astype(np.int64)
        twice = np.where((col == 0) | (2 * col == image_size), 1.0, 2.0) * np.ones((image_size, 1))  # Hermitian pairs
        n_modes = np.bincount(ring.ravel(), twice.ravel())
        self.register_buffer("ring", torch.tensor(ring), persistent=False)
        self.register_buffer("twice", torch.tensor(twice, dtype=torch.float32), persistent=False)
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
        power = torch.fft.rfft2(residual, norm="ortho").abs().square() * self.twice
        sums = power.new_zeros(len(recon), len(self.n_modes))
        return sums.index_add_(1, self.ring.flatten(), power.flatten(1)) / self.n_modes

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
        found, mean = self.rings.residual_power(recon.detach(), target), self.rings.power
        if self.training:
            mean.lerp_(found.mean(dim=0), self.momentum)
        shift = self.reader(z)  # of the logarithm of the power, from the running mean
        return 0.5 * (self.rings.n_modes * (shift + found / mean * (-shift).exp())).sum(dim=1).mean()


def make_likelihood(name: str, image_size: int, periodic: bool = True) -> nn.Module:
    """Pixel term by name: "note", "gaussian" or "spectral"."""
    if name == "note":
        return NoteLikelihood()
    if name == "gaussian":
        return GaussianLikelihood()
    if name == "spectral":
        return SpectralLikelihood(image_size, periodic)
    raise ValueError(f'found likelihood="{name}"; expected "note", "gaussian" or "spectral"')


def loss_terms(output: tuple, target: Tensor, likelihood: nn.Module, free_bits: float = 0.0) -> dict[str, Tensor]:
    """The terms of the loss for one batch of targets.

    output      what `UniverseVAE.forward` returned;  target (B, 1, H, H)
    free_bits   [nats a dimension of h]: `kl_h_free` counts no dimension below it (Kingma et al. 2016)
    Returns scalars: `pixels` (the likelihood's term), `l2` (squared error summed over pixels), `kl_z`, `kl_h`
    [nats a slice] and `kl_h_free` [nats]; and `kl_z_dim`, `kl_h_dim` (D,) [nats], averaged over the batch.
    """
    recon, (_, z_mu, z_logvar), (_, h_mu, h_logvar), (_, post_mu, post_logvar) = output
    kl_z_dim = kl_by_dimension(z_mu, z_logvar).mean(dim=0)
    kl_h_dim = kl_by_dimension(post_mu, post_logvar, h_mu, h_logvar).mean(dim=0)
    return {
        "pixels": likelihood(recon, target),
        "l2": mse_loss(recon, target),
        "kl_z": kl_z_dim.sum(),
        "kl_h": kl_h_dim.sum(),
        "kl_h_free": kl_h_dim.clamp_min(free_bits).sum(),
        "kl_z_dim": kl_z_dim,
        "kl_h_dim": kl_h_dim,
    }


def total_loss(terms: dict[str, Tensor], likelihood: nn.Module, kl_z: float, kl_h: float) -> Tensor:
    """The scalar that is minimised.

    "note": l2 + kl_z * KL(z) + kl_h * KL(h) with both KLs averaged over dimensions, exactly the note's loss.
    Otherwise -log p(slice | h) + kl_z * KL(z) + kl_h * KL(h) in nats: minus the ELBO at kl_h = 1, kl_z = 1 / |X|.
    """
    dims = len(terms["kl_h_dim"]) if isinstance(likelihood, NoteLikelihood) else 1
    return terms["pixels"] + kl_z / dims * terms["kl_z"] + kl_h / dims * terms["kl_h_free"]


def elbo(output: tuple, target: Tensor, likelihood: nn.Module, n_slices: int = 1) -> Tensor:
    """ELBO [nats a slice], averaged over the batch; the KL of z is shared by the n_slices of a cube.

    likelihood: gaussian or spectral; the note's squared error is no density. Raises ValueError for it.
    """
    if isinstance(likelihood, NoteLikelihood):
        raise ValueError('the note\'s squared error has no noise scale and no ELBO; use likelihood="gaussian"')
    terms = loss_terms(output, target, likelihood)
    return -(terms["pixels"] + terms["kl_h"] + terms["kl_z"] / n_slices)


def active_units(mu: Tensor, threshold: float = 0.01) -> Tensor:
    """Number of dimensions whose mean varies over the data, Var > threshold (Burda et al. 2015): (N, D) -> ()."""
    return (mu.var(dim=0, correction=0) > threshold).sum()
