"""Departure from the note in the loss: z is asked for the spectrum of what reconstructions lack."""

import torch
from torch import Tensor, nn

from .ring_power import RingPower


class ResidualPower(RingPower):
    """Power of residuals in rings of |k|, and a place for a typical one.

    Right for slices that are the whole periodic box; for crops (periodic=False) the residual is multiplied by a Hann
    window of unit mean square first, which makes it an approximation.

    power   (n_rings,) the typical power: whoever holds the module sets it
    """

    def __init__(self, image_size: int, periodic: bool = True):
        super().__init__(image_size)
        self.register_buffer("power", torch.ones(len(self.n_modes)))
        window = torch.ones(image_size, image_size)
        if not periodic:
            hann = torch.hann_window(image_size)
            window = hann[:, None] * hann
            window = window / window.square().mean().sqrt()
        self.register_buffer("window", window, persistent=False)

    def residual_power(self, recon: Tensor, target: Tensor) -> Tensor:
        """Mean |FFT(target - recon)|^2 of each ring: (B, 1, H, H) twice -> (B, n_rings), float32."""
        return self((target.float() - recon.float()) * self.window)


class ResidualSpectrumLoss(nn.Module):
    """The spectrum of what a reconstruction lacks, read from z: a term that teaches z what h has no room for.

    How much power is missing at each |k| is a property of the universe, not of the slice. The squared error does not
    ask for it, so without this term z has no reason to know the small scales. The reconstruction is taken as it is:
    this trains z (and the reader, one Linear layer), never the decoder.
    """

    def __init__(self, latent_dim: int, image_size: int, periodic: bool = True, momentum: float = 0.02):
        super().__init__()
        self.momentum = momentum
        self.rings = ResidualPower(image_size, periodic)
        self.reader = nn.Linear(latent_dim, len(self.rings.n_modes))
        nn.init.zeros_(self.reader.weight), nn.init.zeros_(self.reader.bias)

    def forward(self, recon: Tensor, target: Tensor, z: Tensor) -> Tensor:
        """-log p(target - recon | z) [nats a slice] but for a constant, averaged over the batch.

        recon, target  (B, 1, H, H)
        z              (B, D)
        """
        found, mean = self.rings.residual_power(recon.detach(), target.detach()), self.rings.power
        if self.training:
            mean.lerp_(found.mean(dim=0), self.momentum)
        shift = self.reader(z)  # of the logarithm of the power, from the running mean
        return 0.5 * (self.rings.n_modes * (shift + found / mean * (-shift).exp())).sum(dim=1).mean()
