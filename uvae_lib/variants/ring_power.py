"""Power of slices in rings of wave numbers, as a layer that keeps on its device what it sums by."""

import torch
from torch import Tensor, nn

from ..statistics import ring_mean, rings


class RingPower(nn.Module):
    """Mean |FFT|^2 of slices (unitary) in the rings round(|k| / k_f) = 0, 1, ..., which hold every mode once.

    ring      (H, H / 2 + 1) of the modes of a half plane
    weight    (H * (H / 2 + 1),) of the modes, 2 for those that stand for k and -k
    n_modes   (n_rings,) modes of each ring, k and -k both counted
    """

    def __init__(self, image_size: int):
        super().__init__()
        ring, weight, n_modes, _ = (torch.from_numpy(x.copy()) for x in rings(image_size))  # real, on a meta device too
        self.register_buffer("ring", ring.unflatten(0, (image_size, -1)), persistent=False)
        self.register_buffer("weight", weight.float(), persistent=False)
        self.register_buffer("n_modes", n_modes.float(), persistent=False)

    def forward(self, img: Tensor) -> Tensor:
        """img (B, 1, H, H) -> (B, n_rings)."""
        modes = torch.fft.rfft2(img[:, 0], norm="ortho").abs().square()
        return ring_mean(modes, self.ring.flatten(), self.weight, self.n_modes)
