"""Null tests of z, copies among drawn slices, and whether a cube is like those of the training.

Most take plain arrays, one row a cube; all randomness comes from a seed.
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm

from ..cropping import cut_slices, log_density, whole_planes
from ..cubes.suite import CubeSuite
from ..runs.encode import encode_set, spread_slices
from ..runs.run import Run
from ..statistics import fvu
from .features import FeatureTable, encode_views, evenly

SEARCHED = 128  # training cubes, at most, in which a copy is looked for


def variance_ratio(one: np.ndarray, varied: np.ndarray) -> dict[str, float]:
    """Variance of z over cubes of one cosmology (n, D), over that of cubes of many cosmologies (m, D)."""
    within, total = (float(x.var(axis=0, ddof=1).sum()) for x in (one, varied))
    return {"ratio": within / total}


def axis_agreement(by_axis: np.ndarray) -> dict[str, float]:
    """Whether z from slices of one axis agrees with z from another axis of the cube.

    by_axis   (n, a, D) of n cubes, a axes
    Returns
      ratio        root mean square distance between axes of one cube, over that between axes of different cubes
      identified   share of z whose nearest neighbour, among those of other axes, is of its own cube
      chance       that share by chance, about 1 / n
    """
    from scipy.spatial.distance import cdist

    n, a, _ = by_axis.shape
    flat = by_axis.reshape(n * a, -1)
    distance = cdist(flat, flat)
    cube, axis = np.divmod(np.arange(n * a), a)
    other_axis, same_cube = axis[:, None] != axis, cube[:, None] == cube
    within, between = (np.square(distance[other_axis & part]).mean() for part in (same_cube, ~same_cube))
    nearest = np.where(other_axis, distance, np.inf).argmin(axis=1)
    found = float(np.mean(cube[nearest] == cube))
    return {"ratio": float(np.sqrt(within / between)), "identified": found, "chance": 1 / n}


def shuffled_sets(run: Run, zs: list[Tensor]) -> dict | None:
    """Sets of slices of one cube against sets whose slices come from different cubes.

    A cube's slices are cut into sets of the trained size; the posteriors of its sets must agree, those of mixed
    sets must not. `auc`: chance that mixed sets disagree more than a cube's own, 0.5 if z cannot tell them apart.

    zs   `set_features` (S, 1024) of the slices of each cube
    Returns {"auc"}; None for fewer than two cubes or two sets.
    """
    from sklearn.metrics import roc_auc_score

    n, n_slices = len(zs), min(map(len, zs), default=0)
    size = min(run.config.training.set_size - 1, n_slices // 2)
    if size < 2 or n < 2:
        return None

    def gap(i: int, mixed: bool) -> float:  # each mixed set is of other cubes than the set before it
        cubes = [[(i + (j + g) * mixed) % n for j in range(size)] for g in range(n_slices // size)]
        sets = [torch.stack([zs[c][g * size + j] for j, c in enumerate(of)]) for g, of in enumerate(cubes)]
        mu, logvar = (torch.stack(part) for part in zip(*(encode_set(run, part) for part in sets), strict=True))
        return float((mu.var(dim=0) / logvar.exp().mean(dim=0)).sum())  # in units of the posteriors' own widths

    own, mixed = ([gap(i, flag) for i in range(n)] for flag in (False, True))
    return {"auc": float(roc_auc_score([1] * n + [0] * n, [*mixed, *own]))}


# --- leaks and memory


def leaks(ids: list[str], split: dict[str, list[int]], trained: list[str] | None = None) -> dict[str, list[str]]:
    """Universes that are in two parts of a split, and cubes whose name is not the one that was trained on.

    ids (n,) names of the cubes;  trained (n,) those that the run noted
    """
    members = [name for cubes in split.values() for name in {ids[cube] for cube in cubes}]
    shared = sorted(name for name, n in Counter(members).items() if n > 1)
    renamed = [a for a, b in zip(ids, trained or ids, strict=True) if a != b]
    return {"shared": shared, "renamed": renamed}


def two_sample(a: np.ndarray, b: np.ndarray, n_draws: int = 999, seed: int = 0) -> dict[str, float]:
    """Whether two samples of z, (n, D) and (m, D), are drawn alike: p by permutation.

    Of the energy distance 2 E|a - b| - E|a - a'| - E|b - b'| (Szekely & Rizzo 2013).
    """
    from scipy.spatial.distance import cdist

    both, rng, n, m = np.concatenate([a, b]), np.random.default_rng(seed), len(a), len(b)
    distance, energy = cdist(both, both), []
    for draw in range(n_draws + 1):
        order = rng.permutation(n + m) if draw else np.arange(n + m)
        one, other = order[:n], order[n:]
        between = 2 * distance[np.ix_(one, other)].mean()
        energy.append(between - sum(distance[np.ix_(part, part)].mean() for part in (one, other)))
    return {"p": float(np.mean(np.array(energy) >= energy[0] - 1e-12))}


def best_correlation(images: Tensor, planes: Tensor) -> Tensor:
    """Largest correlation coefficient of images with periodic planes, over all shifts.

    images (..., H, H), planes (..., N, N) with H <= N, leading dimensions broadcast -> (...).
    Each image is compared with every H x H window of the plane, across its edges, by FFT.
    """
    size, side = images.shape[-1], planes.shape[-1]
    images = images - images.mean(dim=(-2, -1), keepdim=True)
    images = images / images.square().sum(dim=(-2, -1), keepdim=True).sqrt().clamp_min(1e-12)
    planes = planes - planes.mean(dim=(-2, -1), keepdim=True)
    modes = torch.fft.rfft2(planes)
    shape = (side, side)
    found = torch.fft.irfft2(torch.fft.rfft2(images, s=shape).conj() * modes, s=shape)
    box = torch.fft.rfft2(torch.ones(size, size, dtype=planes.dtype), s=shape).conj()
    total, squares = (torch.fft.irfft2(box * x, s=shape) for x in (modes, torch.fft.rfft2(planes.square())))
    energy = squares - total.square() / size**2  # of the window's pixels about their own mean
    return (found / energy.clamp_min(1e-6 * float(energy.max())).sqrt()).amax(dim=(-2, -1))


def symmetries(images: Tensor) -> Tensor:
    """The eight quarter turns and mirror images of a square: (n, H, H) -> (8, n, H, H)."""
    return torch.stack([torch.rot90(x, turn, (-2, -1)) for x in (images, images.mT) for turn in range(4)])


def nearest_slice(run: Run, suite: CubeSuite, cubes: list[int], images: Tensor, progress: bool = False) -> np.ndarray:
    """Correlation of each image with the slice of these cubes that is most like it, over shifts and symmetries.

    images (m, 1, H, H) pixels
    In each cube a search on images of about 32 pixels chooses a plane, of every second one where there are more than
    64; it and its neighbours are compared in full.
    Returns (m,): 1 for a copy of any plane of any axis, shifted, turned or mirrored.
    """
    stride = 2 if suite.n_planes > 64 else 1
    factor = next(f for f in (max(1, suite.side // 32), 2, 1) if suite.side % f == 0 and images.shape[-1] % f == 0)
    turned, n = symmetries(images[:, 0]), len(images)
    small = F.avg_pool2d(turned, factor).flatten(0, 1)
    best = np.full(n, -1.0)
    for cube in tqdm(cubes, desc="search", unit="cube", disable=not progress):
        planes = _planes(run, suite, cube)  # (axes, planes, N, N)
        coarse = F.avg_pool2d(planes[:, ::stride].flatten(0, 1), factor)
        score = torch.cat([best_correlation(small[:, None], part[None]) for part in coarse.split(16)], dim=1)
        chosen = score.unflatten(0, (8, n)).transpose(0, 1).flatten(1).argmax(dim=1)
        turn, place = chosen // len(coarse), chosen % len(coarse)
        axis, plane = place // (len(coarse) // len(planes)), place % (len(coarse) // len(planes)) * stride
        for step in range(-(stride // 2), stride // 2 + 1):
            near = planes[axis, (plane + step) % planes.shape[1]]
            best = np.maximum(best, best_correlation(turned[turn, torch.arange(n)], near).numpy())
    return best


def _planes(run: Run, suite: CubeSuite, cube: int) -> Tensor:
    """All planes of a cube as pixels, (axes, planes, N, N)."""
    axis, plane = torch.cartesian_prod(torch.tensor(suite.axes), torch.arange(suite.n_planes)).T
    x = log_density(torch.from_numpy(suite.overdensity(cube)), run.config.data.eps)[None]
    pixels = (cut_slices(x, whole_planes(axis, plane), suite.side, run.config.data.thickness) - run.mean) / run.std
    return pixels[:, 0].unflatten(0, (len(suite.axes), suite.n_planes))


def exceeded(values, value) -> np.ndarray:
    """Chance that one more value of a kind is larger than `value`, if their logarithms are Gaussian.

    values (n,) of the kind, value any shape. Student's predictive distribution, wide for few values; NaN for fewer
    than three.
    """
    from scipy.stats import t

    logs, n = np.log(np.asarray(values, float)), len(values)
    if n < 3:
        return np.full(np.shape(value), np.nan)
    return t.sf((np.log(value) - logs.mean()) / (logs.std(ddof=1) * np.sqrt(1 + 1 / n)), n - 1)


def memorisation_test(run: Run, suite: CubeSuite, samples: Tensor, held_out: Tensor, progress: bool = False) -> dict:
    """Nearest training slice of generated samples, of true held-out slices, and of a copy that must be found.

    samples, held_out (m, 1, H, H) pixels. A sample is a copy where it correlates by more than 0.99, or by more than one
    more held-out slice would in 1 of 1000 cases.
    """
    train = evenly(run.split["train"], SEARCHED)
    copy = spread_slices(run, suite, train[len(train) // 2], 1, seed=12345)
    copy = copy.roll((3, 5), (-2, -1)).mT.flip(-1) if run.config.data.image_size == suite.side else copy.mT.flip(-1)
    r = nearest_slice(run, suite, train, torch.cat([samples, held_out, copy]), progress=progress)
    found, true = r[: len(samples)], r[len(samples) : -1]
    copies = (found > 0.99) | (exceeded(true, found) < 0.001)
    return {"samples": found, "held_out": true, "planted_copy": r[-1], "n_copies": copies.sum()}


# --- is a cube like those of the training?


@dataclass(frozen=True, eq=False)
class Familiarity:
    """What cubes of the training's kind are like: a probability that a cube is one of them.

    kind                       covariance of z of the training cubes (scikit-learn)
    distances, errors (m,)     of cubes of the kind that the model did not learn from: Mahalanobis distance to the
                               training cubes, and the unexplained variance of the slices
    """

    kind: "LedoitWolf"  # noqa: F821
    distances: np.ndarray
    errors: np.ndarray

    def probability(self, z: np.ndarray, error: np.ndarray) -> np.ndarray:
        """Chance that one more cube of the kind is as far off in z (n, D), or in unexplained variance (n,).

        The smaller of the two chances, doubled (Bonferroni); small for a cube unlike those of the training. NaN where
        fewer than three cubes were kept from the training.
        """
        chances = exceeded(self.distances, np.sqrt(self.kind.mahalanobis(z))), exceeded(self.errors, error)
        return np.minimum(1, 2 * np.minimum(*chances))

    def of_slices(self, run: Run, slices: Tensor) -> float:
        """`probability` of the cube that slices (S, 1, H, H) are from."""
        cube = encode_views(run, slices)
        return float(self.probability(cube.z.mu[None].numpy(), np.array([float(fvu(cube.truth, cube.recon))]))[0])


def familiarity(run: Run, table: FeatureTable, errors: list[float], n_slices: int = 15) -> Familiarity:
    """Learn what the training's kind of cubes is like.

    table    of the run's suite
    errors   unexplained variance of the validation and then the test cubes, from as many slices; `evaluate_run` has
             them as metrics["controls"]["unseen_errors"]
    """
    from sklearn.covariance import LedoitWolf

    kind = LedoitWolf().fit(table.rows(run.split["train"]).z(n_slices).astype(float))  # fewer cubes than dimensions
    unseen = table.rows(run.split["val"] + run.split["test"]).z(n_slices)
    return Familiarity(kind, np.sqrt(kind.mahalanobis(unseen)), np.array(errors))
