"""The linear part of the model: the largest modes of a slice as 512 numbers that each have a place, and back.

512 = 2 x 16 x 16 at every image size: a field whose Fourier modes lie in the diamond |k_row| + |k_col| <= 16 (in units
of the fundamental mode) is given by its values on a checkerboard of 16 x 16 + 16 x 16 points, neither more nor fewer
(the sampling theorem on a quincunx lattice). Divided by the mean power of their |k| the modes are white, so these
values are uncorrelated with variance one, which is what the prior of h asks for. The diamond leaves 1 % more of the
variance unexplained than the 512 largest principal components of a statistically homogeneous field.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Modes(nn.Module):
    """Slices to the map of h by their largest modes (`forward`) and back (`inverse`); linear both ways.

    image_size  pixels along a slice
    shape       (C, m, m) of h as a map, C m^2 = 2 n^2 for the n x n points of either lattice
    The values in a cell of the map are turned to the cell's own principal components, largest first, by an
    orthogonal matrix, a parameter. `set_power` gives the spectrum; without it the modes are taken as white.
    """

    def __init__(self, image_size: int, shape: tuple[int, int, int]):
        super().__init__()
        n = math.isqrt(math.prod(shape) // 2)
        if 2 * n**2 != math.prod(shape) or n % shape[1] or 2 * n > image_size:
            raise ValueError(
                f"found latent_dim={math.prod(shape)} at image_size={image_size}; the linear part needs twice the "
                f"square of a multiple of {shape[1]} that fits the image: use 512, or linear=False"
            )
        self.n, self.image_size, self.cell = n, image_size, n // shape[1]
        self.register_buffer("power", torch.ones(n + 1))
        self.mix = nn.Parameter(torch.eye(shape[0]))

    @torch.no_grad()
    def set_power(self, power: Tensor) -> None:
        """Divide the modes by their mean power from now on, and turn to the principal components of a cell.

        power (at least n + 1,)   mean |FFT|^2 (unitary) of standardised slices in rings of round(|k| / k_f), positive
        Raises ValueError for a power that is not.
        """
        if not bool((power[: self.n + 1] > 0).all()):
            raise ValueError("found a ring of modes without power; the linear part divides by it: use linear=False")
        self.power.copy_(power[: self.n + 1])
        weight, ring = self._grid(self.power.device)
        correlation = torch.fft.ifft2(self._fold(weight**2 * self.power[ring]).double()).real.cpu()
        point = [(2 * i + s, 2 * j + s) for s in (0, 1) for i in range(self.cell) for j in range(self.cell)]
        row, col = torch.tensor(point).T
        covariance = correlation[row[:, None] - row, col[:, None] - col]
        self.mix.copy_(torch.linalg.eigh(covariance).eigenvectors.flip(1).T)

    def _grid(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Weight and ring of the modes -n .. n in both directions."""
        k = torch.arange(-self.n, self.n + 1, device=device)
        row, col = k[:, None].abs(), k.abs()
        weight = math.sqrt(2) * (row + col < self.n) + 1.0 * (row + col == self.n)  # on the edge two modes are one on
        corner = (row + col == self.n) & (row * col == 0)  # the checkerboard, and its four corners are one; at 2n
        weight = weight * torch.where(corner, math.sqrt(0.5) if 2 * self.n < self.image_size else 0.5, 1.0)  # pixels
        return weight, torch.hypot(row.float(), col.float()).round().long().clamp(max=self.n)  # so are +n and -n

    def forward(self, img: Tensor) -> Tensor:
        """img (B, 1, H, H) -> (B, C, m, m)."""
        k = torch.arange(-self.n, self.n + 1, device=img.device) % self.image_size
        modes = torch.fft.fft2(img[:, 0], norm="ortho")[:, k[:, None], k]
        weight, ring = self._grid(img.device)
        modes = modes * (weight / self.power[ring].sqrt())
        field = torch.fft.ifft2(self._fold(modes), norm="ortho").real
        points = torch.stack([field[:, ::2, ::2], field[:, 1::2, 1::2]], dim=1)
        return torch.einsum("ij,bjrc->birc", self.mix, F.pixel_unshuffle(points, self.cell))

    def inverse(self, h: Tensor) -> Tensor:
        """h (B, C, m, m) -> the slice that has these modes and no other, (B, 1, H, H)."""
        points = F.pixel_shuffle(torch.einsum("ij,birc->bjrc", self.mix, h), self.cell)
        field = points.new_zeros(len(h), 2 * self.n, 2 * self.n)
        field[:, ::2, ::2], field[:, 1::2, 1::2] = points[:, 0], points[:, 1]
        k = torch.arange(-self.n, self.n + 1, device=h.device)
        modes = torch.fft.fft2(field, norm="ortho")[:, k[:, None] % (2 * self.n), k % (2 * self.n)]
        weight, ring = self._grid(h.device)
        modes = modes * (weight * self.power[ring].sqrt())
        spectrum = modes.new_zeros(len(h), self.image_size, self.image_size)
        batch, k = torch.arange(len(h), device=h.device)[:, None, None], k % self.image_size
        spectrum = spectrum.index_put((batch, k[:, None], k), modes, accumulate=True)
        return torch.fft.ifft2(spectrum, norm="ortho").real[:, None]

    def _fold(self, modes: Tensor) -> Tensor:
        """Modes -n .. n in both directions to the 2n x 2n of the FFT there: those that look alike there add up."""
        k = torch.arange(-self.n, self.n + 1, device=modes.device) % (2 * self.n)
        lattice = modes.new_zeros(*modes.shape[:-2], 2 * self.n, 2 * self.n)
        rows = modes.new_zeros(*modes.shape[:-2], 2 * self.n, 2 * self.n + 1).index_add(-2, k, modes)
        return lattice.index_add(-1, k, rows)


class Statistics(nn.Module):
    """What a slice says of its universe at first sight: log P(k) over the training slices' mean, and four moments.

    Rings round(|k| / k_f) = 1 .. image_size / 2; mean, log of the standard deviation, skewness and excess kurtosis of
    the pixels. `set_power` gives the spectrum; without it that of white noise.
    """

    def __init__(self, image_size: int):
        super().__init__()
        self.image_size, self.n = image_size, image_size // 2 + 4
        self.register_buffer("power", torch.ones(image_size // 2))

    @torch.no_grad()
    def set_power(self, power: Tensor) -> None:
        """power (at least image_size / 2 + 1,), as for `Modes.set_power`."""
        self.power.copy_(power[1 : len(self.power) + 1])

    def forward(self, img: Tensor) -> Tensor:
        """img (B, 1, H, H) -> (B, H / 2 + 4)."""
        row = torch.fft.fftfreq(self.image_size, 1 / self.image_size, device=img.device)
        col = torch.arange(self.image_size // 2 + 1, device=img.device)
        ring = torch.hypot(row[:, None], col.float()).round().long().flatten()
        once = (col == 0) | (2 * col == self.image_size)
        count = torch.where(once, 1.0, 2.0).expand(self.image_size, -1).flatten()  # of Hermitian pairs
        modes = torch.fft.rfft2(img[:, 0], norm="ortho").abs().square().flatten(1) * count
        n_rings = int(0.71 * self.image_size) + 2
        power = modes.new_zeros(len(img), n_rings).index_add(1, ring, modes)
        power = power / count.new_zeros(n_rings).index_add(0, ring, count).clamp_min(1.0)
        ratio = (power[:, 1 : len(self.power) + 1] / self.power).clamp_min(1e-6).log()
        pixels = img.flatten(1)
        mean = pixels.mean(dim=1, keepdim=True)
        std = (pixels - mean).square().mean(dim=1, keepdim=True).sqrt().clamp_min(1e-6)
        normal = (pixels - mean) / std
        skewness, kurtosis = (normal.pow(p).mean(dim=1, keepdim=True) for p in (3, 4))
        return torch.cat([ratio, mean, std.log(), skewness, kurtosis - 3], dim=1)
