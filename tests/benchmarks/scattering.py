"""Wavelet scattering coefficients of periodic slices, a rival that nobody trains (Cheng et al. 2020, arXiv:2006.08561).

Morlet wavelets of J octaves and L orientations; first order: mean |x * psi_1|, second: mean ||x * psi_1| * psi_2| for
larger scales, averaged over turns and mirror images. With 128 pixels and L = 4: 2 + 6 + 45 = 53 numbers.
"""

import math

import torch
from torch import Tensor

L = 4
SIGMA, CENTRE = 0.8, 3 * math.pi / 4  # width [pixels] and wave number [radians a pixel] of the finest wavelet


def octaves(size: int) -> int:
    """Octaves of wavelets for images of so many pixels: the coarsest is a quarter of the image wide."""
    return max(2, int(math.log2(size)) - 1)


def wavelets(size: int) -> Tensor:
    """Morlet wavelets in Fourier space, without a mean, real: (J, L, size, size)."""
    k = 2 * math.pi * torch.fft.fftfreq(size, dtype=torch.float64)
    filters = torch.zeros(octaves(size), L, size, size, dtype=torch.float64)
    shifts = [2 * math.pi * i for i in (-1, 0, 1)]  # what a grid of pixels takes for the same wave
    for j in range(len(filters)):
        for angle in range(L):
            cos, sin = math.cos(math.pi * angle / L), math.sin(math.pi * angle / L)
            for a in shifts:
                for b in shifts:
                    along = cos * (k[:, None] + a) + sin * (k + b)
                    across = (cos * (k + b) - sin * (k[:, None] + a)) / (4 / L)
                    for centre, sign in ((CENTRE / 2**j, 1.0), (0.0, -1.0)):
                        weight = sign if centre else sign * math.exp(-((SIGMA * CENTRE) ** 2) / 2)
                        width = (SIGMA * 2**j) ** 2 / 2
                        filters[j, angle] += weight * torch.exp(-width * ((along - centre).square() + across.square()))
    filters[..., 0, 0] = 0
    return filters.float()


@torch.inference_mode()
def scattering(slices: Tensor, filters: Tensor) -> Tensor:
    """Coefficients of slices: (n, 1, H, H) pixels, `wavelets(H)` -> (n, 2 + J + 3 J (J - 1) / 2) for L = 4.

    Mean and logarithm of the standard deviation of pixels; logarithms of the first order; of the second over the first.
    """
    x, size = slices[:, 0], slices.shape[-1]
    modes, found = torch.fft.fft2(x), [x.mean(dim=(1, 2)), x.std(dim=(1, 2)).log()]
    turn = (torch.arange(L)[:, None] - torch.arange(L)).abs()
    turn = torch.minimum(turn, L - turn)  # between two orientations
    for j, first in enumerate(filters):
        once = torch.fft.ifft2(modes[:, None] * first).abs()
        s1 = once.mean(dim=(1, 2, 3))
        found.append(s1.log())
        for j2 in range(j + 1, len(filters)):
            m = size >> (j2 - 1)  # a coarse wavelet needs few pixels
            rows = torch.cat([torch.arange(m // 2), torch.arange(size - m // 2, size)])
            low = torch.fft.fft2(once)[..., rows[:, None], rows] * (m / size) ** 2
            twice = torch.fft.ifft2(low[:, :, None] * filters[j2][:, rows[:, None], rows]).abs().mean(dim=(3, 4))
            found += [(twice[:, turn == apart].mean(dim=1) / s1).log() for apart in range(L // 2 + 1)]
    return torch.stack(found, dim=1)
