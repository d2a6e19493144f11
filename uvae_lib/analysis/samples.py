"""Are drawn slices like simulated ones? Statistics that nothing was fitted to.

Slices come by universe, one tensor (n, 1, H, H) of standardised pixels each, so that any sampler can be judged, and
other true slices of the same universes in its place: true against true. Statistics that look at neighbours wrap around:
right for whole planes, the same error in both for crops.
"""

import math

import numpy as np
import torch
from torch import Tensor

from ..statistics import (
    band_powers,
    minkowski,
    peak_counts,
    power_spectrum,
    second_difference_kurtosis,
)
from .features import moments

QUANTILES = (0.01, 0.99)  # of true pixels, between which densities are compared
N_BINS = 20
NUMBERS = (  # of `slice_numbers`
    "mean", "standard deviation", "skewness", "kurtosis", "power, 1st band", "power, 2nd band", "power, 3rd band",
    "power, 4th band", "contour length", "Euler number", "maxima", "minima", "skewness of the Laplacian",
    "elongation of the Hessian", "kurtosis of second differences",
)  # fmt: skip


def slice_numbers(slices: Tensor, box: float) -> Tensor:
    """NUMBERS of each slice: (n, 1, H, H) standardised pixels -> (n, 15).

    box   side of a slice [Mpc/h]
    Powers are logarithms in four bands of equal width in log k; contours and Euler number at pixels 0 and 1; maxima and
    minima as shares of the pixels; the elongation is the median of |a - b| / (|a| + |b|) of the Hessian's eigenvalues.
    """
    x, n_pixels = slices[:, 0].float(), slices.shape[-1] ** 2
    everything = torch.tensor([-1e30]).to(x)
    _, length, euler = minkowski(x, torch.tensor([0.0, 1.0]).to(x), box)
    rows, columns, cross = _hessian(x)
    difference = ((rows - columns).square() + 4 * cross.square()).sqrt()
    size = torch.maximum((rows + columns).abs(), difference)  # |a| + |b|
    numbers = [
        *moments(slices.float()).unbind(dim=1),
        *band_powers(power_spectrum(x, box)[1], 4).log().unbind(dim=1),
        length[:, 0],
        euler[:, 1],
        peak_counts(x, everything)[:, 0] / n_pixels,
        peak_counts(-x, everything)[:, 0] / n_pixels,
        moments((rows + columns)[:, None])[:, 2],
        (difference / size.clamp_min(1e-12)).flatten(1).median(dim=1).values,
        second_difference_kurtosis(x).log(),
    ]
    return torch.stack(numbers, dim=1)


def _hessian(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Second differences of periodic images along rows, along columns and mixed: (n, H, H) thrice."""
    rows, columns = (x.roll(1, dim) + x.roll(-1, dim) - 2 * x for dim in (-2, -1))
    corners = [x.roll((i, j), (-2, -1)) * i * j for i in (-1, 1) for j in (-1, 1)]
    return rows, columns, sum(corners) / 4


def compare_numbers(truth: list[Tensor], other: list[Tensor], drawn: list[Tensor]) -> dict:
    """How far the numbers of drawn slices are from those of true ones, in units of the scatter of true against true.

    truth, other   `slice_numbers` (n, d) of each universe: two sets of true slices, the same universes in both
    drawn          likewise, of the same universes; or one tensor of slices from universes of their own, which is held
                   against all true slices together
    The unit is the standard deviation over universes of the difference of the means of `other` and `truth`.
    Returns {"names", "gap" (d,), "error" (d,)}: the mean difference and its standard error; NaN for one universe.
    """
    a, b = (torch.stack([x.mean(dim=0) for x in part]).double() for part in (truth, other))
    unit = _deviation(b - a).clamp_min(1e-12)
    if len(drawn) == len(truth):
        gaps = torch.stack([x.mean(dim=0) for x in drawn]).double() - a
        gap, error = gaps.mean(dim=0), _deviation(gaps) / math.sqrt(len(gaps))
    else:
        new = torch.cat(drawn).double()
        gap = new.mean(dim=0) - a.mean(dim=0)
        error = (_deviation(new).square() / len(new) + _deviation(a).square() / len(a)).sqrt()
    return {"names": list(NUMBERS), "gap": (gap / unit).tolist(), "error": (error / unit).tolist()}


def _deviation(values: Tensor) -> Tensor:
    """Standard deviation of the columns of (n, d); NaN for a single row."""
    return values.std(dim=0) if len(values) > 1 else torch.full_like(values[0], torch.nan)


def power_and_pdf(truth: list[Tensor], drawn: list[Tensor], box: float) -> dict:
    """P(k) and pixel density of drawn slices over the truth's.

    truth, drawn   (n, 1, H, H) pixels of each universe, the same universes in both
    box            side of a slice [Mpc/h]
    Returns "k" [h/Mpc], "power" with "power_low", "power_high": median and 68 % of universes of the ratio of the mean
    P(k); "pixel", "pdf": the ratio of densities in bins between the 1 and 99 % quantiles of true pixels.
    """
    spectra = [[power_spectrum(x[:, 0], box) for x in fields] for fields in (truth, drawn)]
    ratio = torch.stack([b[1].mean(dim=0) / a[1].mean(dim=0) for a, b in zip(*spectra, strict=True)])
    low, median, high = ratio.quantile(torch.tensor([0.16, 0.5, 0.84]), dim=0)
    pixels = [torch.cat(part).flatten() for part in (truth, drawn)]
    edges = torch.from_numpy(np.unique(np.quantile(pixels[0].numpy(), np.linspace(*QUANTILES, N_BINS + 1)))).float()
    density = torch.stack([torch.histogram(x, edges).hist / len(x) for x in pixels])
    return {
        "k": spectra[0][0][0].tolist(), "power": median.tolist(), "power_low": low.tolist(),
        "power_high": high.tolist(), "pixel": ((edges[1:] + edges[:-1]) / 2).tolist(),
        "pdf": (density[1] / density[0]).tolist(),
    }  # fmt: skip


def smoothed(slices: Tensor, width: float) -> Tensor:
    """Slices (..., H, H) smoothed by a Gaussian of so many pixels, periodic.

    Pixels that say nothing new are left out: from a width of 2 every second one, as far as 32 a side stay.
    """
    size = slices.shape[-1]
    k = 2 * math.pi * torch.fft.fftfreq(size)
    damping = torch.exp(-0.5 * width**2 * (k[:, None].square() + k[: size // 2 + 1].square()))
    smooth = torch.fft.irfft2(torch.fft.rfft2(slices) * damping, s=(size, size))
    step = max(step for step in (1, 2, 4) if step <= max(1, width) and (step == 1 or size // step >= 32))
    return smooth[..., ::step, ::step].contiguous()
