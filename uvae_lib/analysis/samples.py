"""Are drawn slices like simulated ones? Statistics that nothing was fitted to.

Slices come by universe, one tensor (n, 1, H, H) of standardised pixels each, so that any sampler can be judged, and
other true slices of the same universes in its place: true against true. Statistics that look at neighbours wrap around:
right for whole planes, the same error in both for crops.
"""

import math

import torch
from torch import Tensor

from ..statistics import band_powers, minkowski, peak_counts, power_spectrum, second_difference_kurtosis
from .features import moments

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
    rows, columns = (x.roll(1, dim) + x.roll(-1, dim) - 2 * x for dim in (-2, -1))  # the Hessian of periodic images
    cross = sum(x.roll((i, j), (-2, -1)) * i * j for i in (-1, 1) for j in (-1, 1)) / 4
    difference = ((rows - columns).square() + 4 * cross.square()).sqrt()
    size = torch.maximum((rows + columns).abs(), difference)  # |a| + |b|
    powers = band_powers(power_spectrum(x, box)[1], 4).log()
    peaks = [peak_counts(side, everything)[:, 0] / n_pixels for side in (x, -x)]
    elongation = (difference / size.clamp_min(1e-12)).flatten(1).median(dim=1).values
    shape = moments((rows + columns)[:, None])[:, 2], elongation, second_difference_kurtosis(x).log()
    columns = length[:, 0], euler[:, 1], *peaks, *shape
    return torch.cat([moments(slices.float()), powers, torch.stack(columns, dim=1)], dim=1)


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
