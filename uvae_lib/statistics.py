"""Summary statistics of slices: torch in, torch out, on the input's device, any leading batch dimensions.

field       (..., H, W) real; float64 is computed in float64, everything else in float32
box_size    side of the image [Mpc/h]
Fields are periodic. For a crop out of a larger periodic plane the spectra take a `window`.
"""

from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

# --- how good an approximation is


def fvu(truth: Tensor, approximation: Tensor, mean: Tensor | float | None = None, dim=None) -> Tensor:
    """Fraction of variance unexplained: the squared error over that of a constant.

    truth, approximation  of one shape
    mean                  the constant; the truth's own mean when absent
    dim                   dimensions that are pooled; all of them when absent
    """
    truth = _at_least_float32(truth)
    dim = tuple(range(truth.ndim)) if dim is None else dim
    mean = truth.mean(dim, keepdim=True) if mean is None else mean
    return (truth - approximation).square().sum(dim) / (truth - mean).square().sum(dim)


def r2(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """R^2 of predictions, one number a column: 1 - mean squared error / variance of the truth.

    truth, predicted (m, p)  one row a cube

    Returns (p,), NaN where the truth does not vary.
    """
    squared = np.square(predicted - truth).mean(axis=0)
    varies = np.ptp(truth, axis=0) > 1e-9 * np.abs(truth).max(axis=0)
    return 1 - np.divide(squared, truth.var(axis=0), out=np.full(squared.shape, np.nan), where=varies)


# --- spectra


def power_spectrum(field: Tensor, box_size: float, window: Literal["hann"] | None = None) -> tuple[Tensor, Tensor]:
    """Isotropic power spectrum P(k) = <|f_k|^2> / area of square images, their mean removed.

    field     (..., H, H)
    window    None: the field is periodic. "hann": for a crop, which is multiplied by that window over its rms: white
              noise keeps its power, but for 0.71 of it in the first bin, as the mean removed is the weighted one.
    Returns   k (n,) mean |k| of the modes in a bin [h/Mpc], P (..., n) [field^2 (Mpc/h)^2];
              n = H // 2 - 1 bins [i, i + 1) k_f, i = 1, 2, ..., k_f = 2 pi / box_size, up to Nyquist.
    """
    modes = _fourier_modes(field, window)
    return _wavenumbers(modes, box_size), box_size**2 * _ring_mean(modes.abs().square())


def cross_correlation(
    a: Tensor, b: Tensor, box_size: float, window: Literal["hann"] | None = None
) -> tuple[Tensor, Tensor]:
    """Correlation r(k) = P_ab / sqrt(P_aa P_bb): 1 where phases agree, 0 where they are unrelated.

    a, b      (..., H, H), leading dimensions broadcast;  window as in `power_spectrum`
    Returns   k (n,) [h/Mpc], r (..., n) in [-1, 1], rounding noise or NaN where a field has no power at all.
    """
    modes_a, modes_b = _fourier_modes(a, window), _fourier_modes(b, window)
    amplitude_a, amplitude_b = (_ring_mean(modes.abs().square()).sqrt() for modes in (modes_a, modes_b))
    cross = _ring_mean((modes_a * modes_b.conj()).real)
    return _wavenumbers(modes_a, box_size), cross / (amplitude_a * amplitude_b)


def transfer_function(a: Tensor, b: Tensor, box_size: float) -> tuple[Tensor, Tensor]:
    """Transfer function T(k) = sqrt(P_a / P_b): amplitudes of a (a reconstruction) against b (the truth).

    a, b      (..., H, H), leading dimensions broadcast, periodic
    Returns   k (n,) [h/Mpc], T (..., n).
    """
    k, power_a = power_spectrum(a, box_size)
    return k, (power_a / power_spectrum(b, box_size)[1]).sqrt()


def _fourier_modes(field: Tensor, window: Literal["hann"] | None = None) -> Tensor:
    """Half-plane of the transform of the field less its (weighted) mean, divided by the number of pixels."""
    field, size = _at_least_float32(field), field.shape[-1]
    if field.ndim < 2 or field.shape[-2] != size or size < 4:
        raise ValueError(f"found a field of shape {tuple(field.shape)}; spectra need (..., H, H) with H >= 4")
    if window is None:
        return torch.fft.rfft2(field - field.mean((-2, -1), keepdim=True), norm="forward")
    hann = torch.hann_window(size, dtype=field.dtype, device=field.device)
    weight = hann[:, None] * hann
    mean = (weight * field).sum((-2, -1), keepdim=True) / weight.sum()
    return torch.fft.rfft2(weight * (field - mean) / weight.square().mean().sqrt(), norm="forward")


class Rings(NamedTuple):
    """Rings of |k| in the half-plane of a transform, H x (H // 2 + 1) modes, flattened; arrays of the host.

    ring    (H (H // 2 + 1),) ring of each mode
    weight  (H (H // 2 + 1),) 2 for a mode that stands for k and -k, else 1
    count   (n,) modes of each ring, k and -k both counted
    k       (n,) mean |k| of each ring [k_f]
    """

    ring: np.ndarray
    weight: np.ndarray
    count: np.ndarray
    k: np.ndarray


@lru_cache(maxsize=16)
def rings(size: int, nearest: bool = True) -> Rings:
    """Rings of unit width that hold every mode of a size x size image once: 0 has the mean alone.

    nearest   True: |k| rounded to the nearest ring;  False: the bins [i, i + 1) k_f of `power_spectrum`
    Arrays of the host: nothing cached occupies a device or was born in somebody's inference mode.
    """
    rows, columns = np.fft.fftfreq(size, 1 / size), np.arange(size // 2 + 1)
    radius = np.hypot(rows[:, None], columns).ravel()
    has_both_signs = (columns == 0) | (2 * columns == size)  # columns that hold k and -k
    weight = np.broadcast_to(np.where(has_both_signs, 1.0, 2.0), (size, len(columns))).ravel()
    ring = (radius.round() if nearest else np.floor(radius)).astype(np.int64)
    count = np.bincount(ring, weight)
    return Rings(ring, weight, count, np.bincount(ring, weight * radius) / count)


def ring_mean(values: Tensor, nearest: bool = True) -> Tensor:
    """Mean over the modes of each of the `rings`, k and -k both counted: (..., H, H // 2 + 1) -> (..., n)."""
    ring, *numbers, _ = rings(values.shape[-2], nearest)
    weight, count = (torch.from_numpy(x.astype(np.float32)).to(values) for x in numbers)  # whole numbers
    weighted = values.flatten(-2) * weight
    total = weighted.new_zeros(*weighted.shape[:-1], len(count))
    return total.index_add(-1, torch.tensor(ring, device=values.device), weighted) / count


def _bins(size: int) -> slice:
    """The rings that are bins of a spectrum: [1, 2) k_f up to Nyquist."""
    return slice(1, size // 2)


def _wavenumbers(modes: Tensor, box_size: float) -> Tensor:
    """Mean |k| of the bins [h/Mpc], of the modes' precision and device."""
    size = modes.shape[-2]
    k = 2 * np.pi / box_size * rings(size, nearest=False).k[_bins(size)]
    return torch.tensor(k, dtype=modes.real.dtype, device=modes.device)


def _ring_mean(values: Tensor) -> Tensor:
    """Mean over the modes of each bin: (..., H, H // 2 + 1) -> (..., n)."""
    return ring_mean(values, nearest=False)[..., _bins(values.shape[-2])]


def _at_least_float32(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


# --- neighbours, bands


def second_difference_kurtosis(field: Tensor) -> Tensor:
    """E d^4 / (E d^2)^2 of the second differences d of neighbours in rows and columns: (..., H, W) -> (...).

    3 for a Gaussian field; knots and caustics make it larger, and pixel noise hides them first here. Its tail is heavy
    (empty voxels in logarithms): compare medians over slices.
    """
    field = _at_least_float32(field)
    squares = torch.cat([field.diff(n=2, dim=dim).flatten(-2) for dim in (-2, -1)], dim=-1).square()
    return squares.square().mean(dim=-1) / squares.mean(dim=-1).square()


def band_powers(power: Tensor, n_bands: int) -> Tensor:
    """Mean power in bands of about equal width in log k, none of them empty: (..., n) -> (..., n_bands)."""
    power, n = _at_least_float32(power), power.shape[-1]
    edges = [0]
    for edge in np.geomspace(1, n + 1, n_bands + 1)[1:]:
        edges.append(max(round(edge) - 1, edges[-1] + 1))
    return torch.stack([part.mean(-1) for part in power.split(np.diff(edges).tolist(), dim=-1)], -1)


# --- pixels


def pixel_pdf(field: Tensor, edges: Tensor) -> Tensor:
    """Share of all pixels per unit of the field, in the bins [edges[i], edges[i + 1]).

    field (..., H, W), edges (n + 1,) increasing -> (..., n), its integral the share of pixels inside.
    """
    field = _at_least_float32(field)
    edges = torch.as_tensor(edges).to(field)
    counts = -_count_at_least(field, edges).diff()
    return counts.to(field) / (field.shape[-2] * field.shape[-1] * edges.diff())


# --- peaks, Minkowski functionals


def peak_counts(field: Tensor, thresholds: Tensor) -> Tensor:
    """Number of peaks at or above each threshold; a peak exceeds its 8 neighbours, across the border too.

    field (..., H, W), thresholds (n,) increasing -> (..., n). A pixel that equals a neighbour is no peak.
    """
    field = _at_least_float32(field)
    is_peak = torch.ones_like(field, dtype=torch.bool)
    for shift in [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if (i, j) != (0, 0)]:
        is_peak &= field > field.roll(shift, (-2, -1))
    peaks = field.masked_fill(~is_peak & ~field.isnan(), -torch.inf)
    return _count_at_least(peaks, torch.as_tensor(thresholds).to(field)).to(field)


def minkowski(field: Tensor, thresholds: Tensor, box_size: float) -> tuple[Tensor, Tensor, Tensor]:
    """Minkowski functionals, per area, of the sets {field >= threshold} of periodic images.

    field (..., H, H), thresholds (n,) increasing, box_size [Mpc/h]. Returns three (..., n):
    V0   area fraction
    V1   boundary length per area [h/Mpc], from crossings between neighbours in rows and columns (Crofton):
         right for discs, and on average for isotropic sets; an upright square reads pi / 4 of its perimeter
    V2   Euler characteristic (components minus holes) per area [(h/Mpc)^2], from pixels, edges, vertices:
         the mean of the counts in which pixels that touch at a corner are connected, and are not

    Schmalzing & Gorski (1998, arXiv:astro-ph/9710185; their V1 is a quarter of this one): a Gaussian field of
    variance s^2, with variance t of one component of its gradient, has at x = (threshold - mean) / s
    V0 = erfc(x / sqrt 2) / 2, V1 = sqrt(t) / (2 s) exp(-x^2 / 2), V2 = t / s^2 (2 pi)^(-3/2) x exp(-x^2 / 2).
    Structure of the size of a pixel is lost: white noise smoothed by a Gaussian of 2 pixels reads V1 low by
    1 %, V2 by 2 % of their maxima. Without smoothing, compare with images of the same pixel size only.
    """
    field = _at_least_float32(field)
    thresholds = torch.as_tensor(thresholds).to(field)

    def below(x: Tensor) -> Tensor:
        return x.roll(-1, -2)

    def count(*fields: Tensor) -> Tensor:
        return sum(_count_at_least(x, thresholds) for x in fields)

    right = field.roll(-1, -1)
    low, high = field.minimum(right), field.maximum(right)  # of a pair along a row, then of a block of four
    pixels = count(field)
    pairs_inside = count(low, field.minimum(below(field)))
    pairs_touched = count(high, field.maximum(below(field)))
    apart = pixels - pairs_inside + count(low.minimum(below(low)))  # pixels are vertices of a graph
    joined = pixels - pairs_touched + count(high.maximum(below(high)))  # pixels are closed squares
    side = field.shape[-1]
    v1 = np.pi / 4 * (pairs_touched - pairs_inside).to(field) / (side * box_size)
    return pixels.to(field) / side**2, v1, (apart + joined).to(field) / (2 * box_size**2)


def _count_at_least(field: Tensor, thresholds: Tensor) -> Tensor:
    """How many pixels of (..., H, W) are >= each of the thresholds (n,): (..., n) int64."""
    if field.isnan().any():
        raise ValueError(f"{int(field.isnan().sum())} pixels are NaN and cannot be counted; find their origin")
    passed = torch.bucketize(field.flatten(-2).contiguous(), thresholds, right=True)
    histogram = passed.new_zeros(*passed.shape[:-1], len(thresholds) + 1)
    histogram = histogram.scatter_add(-1, passed, torch.ones_like(passed))
    return histogram.flip(-1).cumsum(-1).flip(-1)[..., 1:]


# --- what a linear code of n numbers can do


class FourierPCA(NamedTuple):
    """`mean`, one number, and `mask` (H, W), true at the real Fourier modes that are kept."""

    mean: Tensor
    mask: Tensor


def fourier_pca(train: Tensor, n_components: int) -> FourierPCA:
    """The n strongest real Fourier modes: the population PCA of whole periodic planes, placed anywhere.

    Their covariance depends on separation alone, so that Fourier modes diagonalise it, with the power as
    eigenvalue. Modes count as real numbers: two (cos, sin) for each pair +-k, one where k = -k.
    train (..., H, W), pooled. Not the PCA of crops, which are not periodic.
    """
    train = _at_least_float32(train).flatten(0, -3) if train.ndim > 2 else _at_least_float32(train)[None]
    mean = train.mean()
    power = sum(torch.fft.fft2(part - mean, norm="ortho").abs().square().sum(0) for part in train.split(256))
    mask = torch.zeros_like(power, dtype=torch.bool).flatten()
    mask[power.flatten().topk(n_components).indices] = True
    return FourierPCA(mean, mask.view_as(power))


def project(images: Tensor, pca: FourierPCA) -> Tensor:
    """What is left of images (..., H, W) after passing through the PCA's n_components numbers."""
    images = _at_least_float32(images)
    return pca.mean + _hartley(_hartley(images - pca.mean) * pca.mask)


def _hartley(field: Tensor) -> Tensor:
    """Orthonormal Hartley transform, its own inverse: one real number a mode, +k and -k as cos and sin."""
    modes = torch.fft.fft2(field, norm="ortho")
    return modes.real - modes.imag
