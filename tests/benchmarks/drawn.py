"""Drawn slices under judges that nothing was fitted to: numbers of slices, classifiers, covariance of P(k)."""

import numpy as np
import torch
from torch import Tensor

from uvae_lib.analysis.evaluate import other_slices
from uvae_lib.analysis.features import encode_cubes, evenly
from uvae_lib.analysis.samples import compare_numbers, slice_numbers
from uvae_lib.generation.flows import flows_of
from uvae_lib.generation.sample import sample_slices
from uvae_lib.runs.run import Run
from uvae_lib.statistics import band_powers, power_spectrum

from .classifier import logistic_auc, network_auc
from .judge import N_SLICES, Judge

SMOOTHINGS = (0.0, 1.0, 2.0, 4.0)  # [voxels]
N_BANDS = 8
QUANTILES = (0.01, 0.99)  # of true pixels, between which densities are compared
N_BINS = 20
TRUE = "other true slices"
OWN = ("the note's samples, observed universes", "the note's samples, N(0, I)")
COMPLETED = ("completed by flows, observed universes", "completed by flows, N(0, I)")


def kinds(run: Run) -> list[str]:
    """What is drawn: the note's own samples and, where the run has flows, completed ones, beside other true slices."""
    return [TRUE, *OWN, *(COMPLETED if flows_of(run) else ())]


class Drawn:
    """True slices of some judged universes, and slices that a run draws of them and of N(0, I), by universe."""

    def __init__(self, judge: Judge, n_universes: int):
        run = judge.run
        self.run, self.box = run, run.image_box
        chosen = evenly(list(range(judge.judged.n_cubes)), n_universes)
        cubes = encode_cubes(run, judge.judged, chosen, N_SLICES)
        self.truth = [cube.truth for cube in cubes]
        n = len(self.truth[0])
        self.other = other_slices(run, judge.judged, chosen, n)
        self.numbers = [[slice_numbers(x, self.box) for x in part] for part in (self.truth, self.other)]
        self.universes = [cube.z for cube in cubes]

    def slices(self, kind: str) -> list[Tensor]:
        """Slices of a kind by universe; of N(0, I), every slice is of a universe of its own."""
        if kind == TRUE:
            return self.other
        generator, n, own = torch.Generator().manual_seed(0), len(self.truth[0]), "N(0, I)" in kind
        return [sample_slices(self.run, None if own else z, n, generator, kind in COMPLETED) for z in self.universes]

    def judged(self, kind: str, n_train: tuple[int, ...], epochs: int, seeds: int) -> dict:
        """All that is measured of a kind; n_train: numbers of slices a side that the network learns from."""
        slices, own = self.slices(kind), "N(0, I)" in kind
        numbers = [slice_numbers(x, self.box) for x in slices]
        flat = [torch.cat(numbers)] if own else numbers
        truth, drawn = ([torch.cat(part)] if own else part for part in (self.truth, slices))
        curves = power_and_pdf(truth, drawn, self.box)
        k, half = np.array(curves["k"]), max(curves["k"]) / 2
        found = {
            "numbers": compare_numbers(*self.numbers, flat),
            "power_gap": float(np.abs(np.array(curves["power"])[k <= half] - 1).max()),
            "pdf_gap": float(np.abs(np.array(curves["pdf"]) - 1).max()),
            "covariance": covariance_gap(self.truth, slices, self.box, together=own),
            "logistic": logistic_auc(self.numbers[0], numbers),
            "network": [],
        }
        for width in SMOOTHINGS if len(slices) > 2 else ():
            for most in n_train:
                runs = [network_auc(self.truth, slices, width, most, epochs, seed) for seed in range(seeds)]
                auc = [run["auc"] for run in runs]
                found["network"].append(runs[0] | {"smoothing": width, "auc": float(np.mean(auc)), "seeds": auc})
        return found


def covariance_gap(truth: list[Tensor], drawn: list[Tensor], box: float, together: bool) -> dict:
    """Scatter of ln P in bands and its correlations, of drawn slices over true ones.

    together   False: about the mean of each universe;  True: about the mean of all, for universes of their own
    Returns {"scatter" (N_BANDS,), the ratio of standard deviations; "correlation", rms difference of coefficients}.
    """
    parts = []
    for slices in (truth, drawn):
        bands = [band_powers(power_spectrum(x[:, 0], box)[1], N_BANDS).log() for x in slices]
        centred = torch.cat(bands if together else [x - x.mean(dim=0) for x in bands]).double()
        parts.append(centred - centred.mean(dim=0))
    scatter = [x.std(dim=0) for x in parts]
    a, b = (torch.corrcoef(x.T) for x in parts)
    return {"scatter": (scatter[1] / scatter[0]).tolist(), "correlation": float((b - a).square().mean().sqrt())}


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
