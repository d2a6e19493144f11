"""Are drawn slices like simulated ones? Figures of merit that nothing was fitted to.

Every function takes slices of universes, one tensor (n, 1, H, H) of standardised pixels a universe, so that any
sampler can be judged, and other true slices of the same universes in its place: truth against truth. Statistics that
look at neighbours wrap around: right for whole planes, the same error in both for crops.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..statistics import (
    bispectrum,
    leave_one_out_chi2,
    minimum_counts,
    minkowski,
    peak_counts,
    power_spectrum,
    reduced_bispectrum,
    second_difference_kurtosis,
)

QUANTILES = (0.01, 0.99)  # of true pixels, between which densities and curves are compared
N_THRESHOLDS = 21
DRAWN_CUBES = 24  # held-out universes of which slices are drawn: a draw is dear
CLASSIFIED_CUBES = 12  # those whose slices a classifier sees; a third of them judges
SEEDS = (0, 1)  # of a classifier's weights, and of which universes judge
SMOOTHINGS = (0.0, 1.0, 2.0)  # [voxels], the width of a Gaussian
SAMPLED = {  # what is drawn of held-out universes
    "completed": "reconstructions, completed",
    "observed_universe": "new slices of observed universes",
    "prior_universe": "universes from N(0, I)",
}
MERITS = {  # name of `sample_quality`: what it is called
    "power": "P(k)", "pdf": "PDF", "length": "Minkowski length", "euler": "Euler number", "peak": "peaks",
    "minimum": "minima", "bispectrum": "bispectrum", "kurtosis": "kurtosis",
}  # fmt: skip


def sample_quality(truth: list[Tensor], drawn: list[Tensor], box: float) -> dict:
    """How drawn slices differ from true ones, by statistics from one point to three.

    truth, drawn  (n, 1, H, H) pixels of each universe, the same universes in both
    box           side of a slice [Mpc/h]

    Returns what `power_and_pdf` does, and
      length_error, euler_error   Minkowski functionals, see `curve_error`
      peak_error, minimum_error   counts of peaks and minima, likewise
      bispectrum_error            see `bispectrum_error`
      kurtosis_error              relative, of second differences, medians over slices
      chi2_truth, chi2            leave-one-out chi^2 of P(k) a degree of freedom; None with too few slices
    """
    pooled = [torch.cat(slices)[:, 0] for slices in (truth, drawn)]
    levels = thresholds(pooled[0])
    curves = {
        "length": lambda x: minkowski(x, levels, box)[1],
        "euler": lambda x: minkowski(x, levels, box)[2],
        "peak": lambda x: peak_counts(x, levels),
        "minimum": lambda x: minimum_counts(x, levels),
    }
    found = power_and_pdf(truth, drawn, box)
    found |= {f"{name}_error": curve_error(*map(curve, pooled)) for name, curve in curves.items()}
    true, other = (float(second_difference_kurtosis(x).median()) for x in pooled)
    found |= {"kurtosis_error": other / true - 1, "bispectrum_error": bispectrum_error(*pooled, box)}
    return found | power_chi2(truth, drawn, box)


def thresholds(pixels: Tensor, n: int = N_THRESHOLDS) -> Tensor:
    """Quantiles of pixels between QUANTILES, (n,) strictly increasing."""
    return torch.from_numpy(np.unique(np.quantile(pixels.numpy(), np.linspace(*QUANTILES, n)))).to(pixels)


def curve_error(truth: Tensor, drawn: Tensor) -> float:
    """Largest gap between two mean curves over the largest value of the true one: (n, t), (m, t) of slices."""
    a, b = truth.mean(dim=0), drawn.mean(dim=0)
    return float((b - a).abs().max() / a.abs().max())


def power_and_pdf(truth: list[Tensor], drawn: list[Tensor], box: float) -> dict:
    """P(k) and pixel density of drawn slices over the truth's.

    The ratios are of means over a universe's slices; `power` is their median over universes with the 16 and 84 %
    quantiles, `power_error` the largest departure of the median from 1 up to half the Nyquist frequency,
    `pdf_error` that of the density of pixels in 20 bins between the 1 and 99 % quantiles of the truth,
    pooled over universes.
    """
    spectra = [[power_spectrum(x[:, 0], box) for x in fields] for fields in (truth, drawn)]
    k = spectra[0][0][0]
    ratio = torch.stack([b[1].mean(dim=0) / a[1].mean(dim=0) for a, b in zip(*spectra, strict=True)])
    low, median, high = ratio.quantile(torch.tensor([0.16, 0.5, 0.84]), dim=0)
    half = k <= 0.5 * k.max()
    pooled, found = torch.cat(truth).flatten(), torch.cat(drawn).flatten()
    edges = thresholds(pooled)
    density = torch.stack([torch.histogram(x, edges).hist / len(x) for x in (pooled, found)])
    pdf = density[1] / density[0]
    return {
        "k": k.tolist(),
        "power": median.tolist(),
        "power_low": low.tolist(),
        "power_high": high.tolist(),
        "power_error": float((median[half] - 1).abs().max()),
        "pdf_edges": edges.tolist(),
        "pdf": pdf.tolist(),
        "pdf_error": float((pdf - 1).abs().max()),
    }


def triangles(size: int) -> list[tuple[int, int, int]]:
    """Triangles of bins for images of so many pixels: equilateral ones, and squeezed ones with a long wave of bin 2.

    Sides end at a quarter of the sampling, half the Nyquist frequency, as the comparison of P(k) does.
    """
    sides = np.unique(np.geomspace(3, size // 4, 8).round().astype(int)).tolist()
    return [(i, i, i) for i in sides] + [(2, i, i) for i in sides if i >= 4]


def bispectrum_error(truth: Tensor, drawn: Tensor, box: float) -> float:
    """Root mean square over `triangles` of the gap in the reduced bispectrum, in standard errors of the truth.

    truth, drawn   (n, H, H), (m, H, H), slices of a universe beside each other
    box            side of a slice [Mpc/h]
    The standard error comes from leaving out one of 12 groups of slices in turn. The result is about 1.4 where both are
    drawn alike.
    """
    bins = triangles(truth.shape[-1])
    (triple, power), other = (
        (torch.cat([bispectrum(part, box, bins) for part in x.split(16)]), power_spectrum(x, box)[1])
        for x in (truth, drawn)
    )
    groups = torch.arange(len(truth)).tensor_split(min(12, len(truth)))
    without = [~torch.isin(torch.arange(len(truth)), group) for group in groups]
    left = torch.stack([reduced_bispectrum(triple[rows], power[rows], bins) for rows in without])
    scatter = left.std(dim=0, correction=0) * (len(groups) - 1) ** 0.5
    gap = reduced_bispectrum(*other, bins) - reduced_bispectrum(triple, power, bins)
    return float((gap / scatter).square().mean().sqrt())


def power_chi2(truth: list[Tensor], drawn: list[Tensor], box: float, n_bands: int = 8) -> dict:
    """chi^2 of the P(k) of single slices against the true slices of their universe, over its degrees of freedom.

    As in Diffusion-HMC (Mudur, Cuesta-Lazaro & Finkbeiner 2024, arXiv:2405.05255): a true slice is held against the
    others, a drawn one against all; mean over slices and universes, 1 for both where both are drawn alike.
    """
    n_bands = min(n_bands, min(map(len, truth)) - 4)
    if n_bands < 1:
        return {"chi2_truth": None, "chi2": None}
    pairs = [
        leave_one_out_chi2(*(power_spectrum(x[:, 0], box)[1] for x in pair), n_bands=n_bands)
        for pair in zip(truth, drawn, strict=True)
    ]
    same, other = (float(torch.cat(values).mean()) / n_bands for values in zip(*pairs, strict=True))
    return {"chi2_truth": same, "chi2": other}


def conditional_spread(truth: Tensor, first: Tensor, second: Tensor, box: float) -> dict:
    """Whether a sampler is as uncertain as it should be, scale by scale, given the same h.

    truth          (n, 1, H, H) slices
    first, second  two independent completions of each slice's h

    A true slice and a completion of its h are draws from one distribution, and so are two completions: the power of
    first - second over that of truth - first is 1, less for a sampler that is too certain, more for one that is not
    certain enough.
    Returns {"k" [h/Mpc], "spread"}.
    """
    k, between = power_spectrum((first - second)[:, 0], box)
    away = sum(power_spectrum((truth - x)[:, 0], box)[1].mean(dim=0) for x in (first, second)) / 2
    return {"k": k.tolist(), "spread": (between.mean(dim=0) / away).tolist()}


# --- the classifier two-sample test


def classifier_network(widths: tuple[int, ...] = (32, 64, 64)) -> nn.Sequential:
    """A small CNN whose convolutions wrap: (B, 1, H, H) -> (B, 1); its first layer sees 6 x 6 pixels.

    Batch norm is what makes it sharp: on noise of a tenth of the signal's amplitude, an AUC of 1.0 where group norm, or
    none, had 0.5 after as many epochs.
    """
    layers, channels = [nn.PixelUnshuffle(2)], 4
    for width in widths:
        layers += [nn.Conv2d(channels, width, 3, padding=1, padding_mode="circular"), nn.BatchNorm2d(width)]
        layers += [nn.SiLU(), nn.AvgPool2d(2)]
        channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 1))


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


def judges_of(n_cubes: int) -> int:
    """How many of so many universes judge a classifier."""
    return max(1, n_cubes // 3)


def auc_scatter(n_cubes: int, n_slices: int) -> float:
    """Standard deviation of a classifier's AUC where nothing can be told apart (Mann & Whitney 1947), mean over SEEDS.

    n_cubes, n_slices   universes, of which some judge, and true slices of each, as many drawn ones beside them
    """
    n = judges_of(n_cubes) * n_slices
    return math.sqrt((2 * n + 1) / (12 * n**2) / len(SEEDS))


def two_sample_classifier(
    truth: list[Tensor], drawn: list[Tensor], *, smoothings: tuple[float, ...] = SMOOTHINGS, epochs: int = 60,
    seeds: tuple[int, ...] = SEEDS, batch: int = 32,
) -> dict:  # fmt: skip
    """Can a network tell drawn slices from true ones of universes that it was not trained on?

    truth, drawn  (n, 1, H, H) pixels of each universe, the same universes in both; a third of them judges
    smoothings    widths of the Gaussian that slices are smoothed by before [pixels]
    epochs        over the training slices, with a rate that ends at zero: enough to converge (a classifier that is
                  trained too little flatters)
    seeds         of the weights and of which universes judge

    Returns {"smoothing", "auc"} with one number a smoothing: mean over seeds of the area under the ROC curve on the
    judging universes, 0.5 where slices are indistinguishable, 1 where every one is recognised.
    Raises ValueError for fewer than three universes.
    """
    if len(truth) < 3:
        raise ValueError(f"found {len(truth)} universes; a classifier trains on two and is judged on a third")
    auc = []
    for width in smoothings:
        fields = [[smoothed(x, width) for x in sample] for sample in (truth, drawn)]
        auc.append(float(np.mean([_classify(*fields, epochs, seed, batch) for seed in seeds])))
    return {"smoothing": list(smoothings), "auc": auc}


def _classify(truth: list[Tensor], drawn: list[Tensor], epochs: int, seed: int, batch: int) -> float:
    """AUC on the universes that judge, of a network that is trained on the others."""
    order = np.random.default_rng(seed).permutation(len(truth))
    n_judges = judges_of(len(order))
    judges, train = ([part[i] for part in (truth, drawn) for i in chosen] for chosen in np.split(order, [n_judges]))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _trained_classifier(torch.cat(train), _labels(train), epochs, batch)
    return _auc(network, torch.cat(judges), _labels(judges))


def _labels(parts: list[Tensor]) -> Tensor:
    """0 for the slices of the first half of the parts, which are true, 1 for those of the others."""
    return torch.cat([torch.full((len(x),), float(i >= len(parts) // 2)) for i, x in enumerate(parts)])


def _trained_classifier(slices: Tensor, labels: Tensor, epochs: int, batch: int) -> nn.Module:
    """Trained with turned and mirrored slices; it stops early where nothing is left to learn."""
    mean, std = slices.mean(), slices.std()
    slices = (slices - mean) / std
    network = classifier_network()
    steps = epochs * math.ceil(len(slices) / batch)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=steps, pct_start=0.1)
    for _ in range(epochs):
        lost = 0.0
        for rows in torch.randperm(len(slices)).split(batch):
            x = torch.rot90(slices[rows], int(torch.randint(4, ())), (-2, -1))
            x = x.mT if torch.rand(()) < 0.5 else x
            loss = F.binary_cross_entropy_with_logits(network(x.contiguous())[:, 0], labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            lost += float(loss.detach()) * len(rows)
        if lost / len(slices) < 0.01:
            break
    return nn.Sequential(_Standardise(mean, std), network).eval()


class _Standardise(nn.Module):
    def __init__(self, mean: Tensor, std: Tensor):
        super().__init__()
        self.mean, self.std = mean, std

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


@torch.inference_mode()
def _auc(network: nn.Module, slices: Tensor, labels: Tensor) -> float:
    from sklearn.metrics import roc_auc_score

    scores = torch.cat([network(part)[:, 0] for part in slices.split(64)])
    return float(roc_auc_score(labels.numpy(), scores.numpy()))
