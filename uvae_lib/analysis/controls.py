"""What z knows of the cosmology, and what it must not know: probes with calibrated errors, and controls.

A `FeatureTable` holds z of every cube of a suite beside P(k) and the pixel density of its slices; each cube is read
and encoded once. Probes and most controls take plain arrays, one row a cube; all randomness comes from a seed.
"""

import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm

from .. import latents
from ..cropping import cut_slices, log_density, whole_planes
from ..cubes import CubeSuite
from ..files import write_atomically
from ..loss import kl_by_dimension
from ..presets import PARAMETERS
from ..runs import Run, weights_key
from ..statistics import pixel_pdf, power_spectrum

SIZES = (1, 2, 3, 5, 10, 15, 30)  # numbers of slices of a cube
LEVELS = np.linspace(0.05, 0.95, 19)  # of intervals whose coverage is counted
PDF_EDGES = torch.linspace(-4, 5, 37)  # of standardised pixels
VERSION = 1  # of what is kept in the run folder


# --- the atlas: every cube once


@dataclass(frozen=True, eq=False)
class FeatureTable:
    """What a run sees in the cubes of a suite, for s numbers of slices.

    cubes (n,)             their numbers in the suite
    params (n, p)          Omega_m and sigma_8, or no column
    sizes (s,)             numbers of slices; the slices of a smaller number are among those of a larger one
    mu, logvar (n, s, D)   q(z | slices)
    power (n, s, n_k)      log of the mean P(k) of the slices' pixels [(Mpc/h)^2];  k (n_k,) [h/Mpc]
    pdf (n, s, n_bins)     density of pixels between PDF_EDGES
    by_axis (n, a, D)      mean of q(z | slices cut along one axis)
    """

    cubes: np.ndarray
    params: np.ndarray
    sizes: np.ndarray
    mu: np.ndarray
    logvar: np.ndarray
    k: np.ndarray
    power: np.ndarray
    pdf: np.ndarray
    by_axis: np.ndarray

    def rows(self, cubes: list[int]) -> "FeatureTable":
        """The same for some of the cubes, by their numbers in the suite."""
        at = {int(cube): i for i, cube in enumerate(self.cubes)}
        chosen = [at[cube] for cube in cubes]
        return FeatureTable(**{k: v if k in ("sizes", "k") else v[chosen] for k, v in vars(self).items()})

    def at(self, n_slices: int) -> int:
        """Place of the largest number of slices that is not above n_slices."""
        return int(np.searchsorted(self.sizes, n_slices, side="right")) - 1

    def z(self, n_slices: int = 15) -> np.ndarray:
        """Mean of q(z) of every cube, (n, D)."""
        return self.mu[:, self.at(n_slices)]


def make_features(run: Run, suite: CubeSuite, n_slices: int = 30, progress: bool = False) -> FeatureTable:
    """Encode n_slices of every cube, or as many as a cube has. See `FeatureTable`."""
    n_slices = min(n_slices, len(suite.axes) * (suite.n_planes // run.config.data.thickness))
    sizes = np.array(sorted({min(size, n_slices) for size in SIZES}))
    known = set(PARAMETERS) <= set(suite.params)
    rows = [
        _look(run, suite, cube, sizes)
        for cube in tqdm(range(suite.n_cubes), desc="encode", unit="cube", disable=not progress)
    ]
    return FeatureTable(
        cubes=np.arange(suite.n_cubes),
        params=suite.params[list(PARAMETERS)].to_numpy(float) if known else np.empty((suite.n_cubes, 0)),
        sizes=sizes,
        **{name: rows[0][name] if name == "k" else np.stack([row[name] for row in rows]) for name in rows[0]},
    )


def _look(run: Run, suite: CubeSuite, cube: int, sizes: np.ndarray) -> dict[str, np.ndarray]:
    """One row of the atlas, by name of the field."""
    return describe(run, latents.spread_slices(run, suite, cube, int(sizes[-1]), seed=cube), sizes, len(suite.axes))


def describe(run: Run, slices: Tensor, sizes: np.ndarray, n_axes: int = 3) -> dict[str, np.ndarray]:
    """One row of the atlas from slices (n, 1, H, H) as `latents.cut_cube` gives them, axis after axis."""
    maps = latents.slice_features(run, slices)
    k, power = power_spectrum(slices[:, 0], run.image_box)
    pdf = pixel_pdf(slices[:, 0], PDF_EDGES)
    found = {"mu": [], "logvar": [], "power": [], "pdf": []}
    for size in sizes:
        chosen = spread(len(slices), int(size), n_axes)
        z = _encode(run, slices[chosen], maps[chosen])
        values = (z.mu, z.logvar, power[chosen].mean(dim=0).log(), pdf[chosen].mean(dim=0))
        for name, value in zip(found, values, strict=True):
            found[name].append(value.numpy())
    by_axis = [_encode(run, slices[a::n_axes], maps[a::n_axes]).mu.numpy() for a in range(min(n_axes, len(slices)))]
    return {name: np.stack(value) for name, value in found.items()} | {"by_axis": np.stack(by_axis), "k": k.numpy()}


def spread(n: int, size: int, n_axes: int) -> np.ndarray:
    """Which `size` of n slices, cut along the axes in turn, lie evenly over axes and planes."""
    j, ranks, most = np.arange(size), -(-n // n_axes), -(-size // n_axes)
    return (j // n_axes) * ranks // most * n_axes + j % n_axes


def _encode(run: Run, slices: Tensor, maps: Tensor) -> latents.Posterior:
    """q(z); sets smaller than the model was trained with are asked on purpose here, so they do not warn."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="a set of .* is smaller", category=UserWarning)
        return latents.encode_cube(run, slices, maps)


def kept_features(
    run: Run, suite: CubeSuite, name: str = "LH", n_slices: int = 30, progress: bool = False
) -> FeatureTable:
    """The atlas of a suite from the run folder where these weights made one, else made and kept there."""
    path = run.folder / f"atlas_{name}.npz"
    key = weights_key(run, VERSION, suite.n_cubes, [suite.cube_id(i) for i in range(suite.n_cubes)], n_slices)
    if path.exists():
        with np.load(path, allow_pickle=False) as kept:
            if str(kept["key"]) == key:
                return FeatureTable(**{field: kept[field] for field in kept.files if field != "key"})
    atlas, file = make_features(run, suite, n_slices, progress), io.BytesIO()
    np.savez(file, key=np.array(key), **vars(atlas))
    write_atomically(path, file.getvalue())
    return atlas


# --- probes


class ProbeResult(NamedTuple):
    """A probe judged on unseen cubes, and how well it knows its own error.

    predicted (m, p);  r2, error (p,)   as `latents.Probe`
    width (p,)        half width of the interval that is to hold 68 %, in units of the parameter
    coverage (p, l)   share of the unseen cubes inside the interval of each of LEVELS
    """

    predicted: np.ndarray
    r2: np.ndarray
    error: np.ndarray
    width: np.ndarray
    coverage: np.ndarray


Fit = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]  # (n, d), (n, p), (m, d) -> predicted (m, p)


def ridge(train: np.ndarray, params: np.ndarray, test: np.ndarray) -> np.ndarray:
    """`latents.probe`, which chooses its ridge by leaving one training cube out: predictions (m, p)."""
    return latents.probe(train, params, test, np.zeros((len(test), params.shape[1]))).predicted


def mlp(train: np.ndarray, params: np.ndarray, test: np.ndarray, n_seeds: int = 5) -> np.ndarray:
    """A small network on the first 32 principal components, averaged over seeds: predictions (m, p).

    One hidden layer of 32, fitted to both parameters; its weight decay is chosen by 4-fold cross-validation.
    """
    from sklearn.decomposition import PCA

    pca = PCA(min(32, len(train) - 1, train.shape[1])).fit(train)
    x, x_test = (pca.transform(rows) / np.sqrt(pca.explained_variance_[0]) for rows in (train, test))
    mean, scale = params.mean(axis=0), params.std(axis=0) + 1e-12
    y, decays, fold = (params - mean) / scale, (0.1, 1.0, 10.0), np.arange(len(train)) % min(4, len(train))

    def lost(decay: float) -> float:
        gaps = [y[fold == f] - _network(x[fold != f], y[fold != f], x[fold == f], decay, 0) for f in set(fold)]
        return float(np.square(np.concatenate(gaps)).mean())

    best = min(decays, key=lost)
    return mean + scale * np.mean([_network(x, y, x_test, best, seed) for seed in range(n_seeds)], axis=0)


def _network(x: np.ndarray, y: np.ndarray, x_test: np.ndarray, decay: float, seed: int) -> np.ndarray:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPRegressor

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # stopping early is part of the fit
        net = MLPRegressor(
            hidden_layer_sizes=(32,), activation="tanh", solver="lbfgs", alpha=decay, max_iter=200, random_state=seed
        )
        return net.fit(x, y).predict(x_test).reshape(len(x_test), -1)


def out_of_fold(fit: Fit, train: np.ndarray, params: np.ndarray, n_folds: int = 5, seed: int = 0) -> np.ndarray:
    """Residuals (n, p) of training cubes, each predicted by a fit to other cubes."""
    fold = np.random.default_rng(seed).permutation(len(train)) % min(n_folds, len(train))
    residuals = np.empty(params.shape)
    for f in np.unique(fold):
        held = fold == f
        residuals[held] = params[held] - fit(train[~held], params[~held], train[held])
    return residuals


def half_widths(residuals: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Half widths (p, l) of intervals that hold a new cube with at least these probabilities.

    The ceil((n + 1) level)-th smallest of n absolute residuals (n, p): split-conformal intervals (Lei et al. 2018,
    arXiv:1604.04173), here from out-of-fold residuals.
    """
    n = len(residuals)
    rank = np.minimum(np.ceil((n + 1) * np.atleast_1d(levels)).astype(int), n) - 1
    return np.sort(np.abs(residuals), axis=0)[rank].T


def read(
    fit: Fit, train: np.ndarray, params: np.ndarray, test: np.ndarray, truth: np.ndarray, seed: int = 0
) -> ProbeResult:
    """Fit on training cubes, judge on others: train (n, d), params (n, p), test (m, d), truth (m, p)."""
    residuals = out_of_fold(fit, train, params, seed=seed)
    predicted = fit(train, params, test)
    squared, variance = np.square(predicted - truth).mean(axis=0), truth.var(axis=0)
    r2 = 1 - np.divide(squared, variance, out=np.full(len(squared), np.nan), where=variance > 0)
    inside = np.abs(predicted - truth)[..., None] <= half_widths(residuals, LEVELS)  # (m, p, l)
    return ProbeResult(predicted, r2, np.sqrt(squared), half_widths(residuals, 0.68)[:, 0], inside.mean(axis=0))


def probe_table(train: FeatureTable, test: FeatureTable, n_slices: int = 15) -> dict[str, ProbeResult]:
    """Ridge and network on z, ridge on log P(k) and on the pixel density, from the same slices of the same cubes."""
    i = train.at(n_slices)
    features = {"z, ridge": ("mu", ridge), "z, MLP": ("mu", mlp), "P(k), ridge": ("power", ridge),
                "PDF, ridge": ("pdf", ridge)}  # fmt: skip
    return {
        name: read(fit, getattr(train, field)[:, i], train.params, getattr(test, field)[:, i], test.params)
        for name, (field, fit) in features.items()
    }


def slice_curve(train: FeatureTable, test: FeatureTable) -> dict[str, list]:
    """How many slices are enough: for each number of slices, ridges on z and P(k) and the width of q(z).

    r2, r2_power, error (s, p);  width (s,): mean standard deviation of q(z) over the active units of the largest
    set;  kl (s,): KL(q(z) || N(0, I)) [nats];  read_width (s, p): the width of q(z) as the ridge reads it, in
    units of the parameter: what the model believes that its error is.
    """
    active = test.mu[:, -1].var(axis=0) > 0.01
    rows = []
    for i in range(len(train.sizes)):
        z, power = (
            latents.probe(getattr(train, f)[:, i], train.params, getattr(test, f)[:, i], test.params)
            for f in ("mu", "power")
        )
        sigma = np.exp(0.5 * test.logvar[:, i])
        kl = kl_by_dimension(*(torch.from_numpy(x[:, i]) for x in (test.mu, test.logvar))).sum(dim=1).mean()
        rows.append({
            "r2": z.r2.tolist(), "r2_power": power.r2.tolist(), "error": z.error.tolist(),
            "width": float(sigma[:, active].mean()) if active.any() else float("nan"), "kl": float(kl),
            "read_width": _read_width(train.mu[:, i], train.params, sigma).tolist(),
        })  # fmt: skip
    return {"sizes": train.sizes.tolist()} | {name: [row[name] for row in rows] for name in rows[0]}


def _read_width(train: np.ndarray, params: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """Root mean square over cubes of sqrt(w' diag(sigma^2) w), w (D, p) the weights of a ridge."""
    units = ridge(train, params, np.vstack([np.zeros(train.shape[1]), np.eye(train.shape[1])]))
    return np.sqrt((np.square(sigma) @ np.square(units[1:] - units[0])).mean(axis=0))


# --- controls that only a simulator has


def variance_ratio(one: np.ndarray, varied: np.ndarray, n_draws: int = 999, seed: int = 0) -> dict[str, float]:
    """Variance of z over cubes of one cosmology (n, D), over that of cubes of many cosmologies (m, D).

    `p`: share of random draws of n of the m cubes that vary as little, so 1 / (n_draws + 1) at best.
    """
    rng, n = np.random.default_rng(seed), min(len(one), len(varied))
    within, total = (float(x.var(axis=0, ddof=1).sum()) for x in (one, varied))
    draws = [varied[rng.choice(len(varied), n, replace=False)].var(axis=0, ddof=1).sum() for _ in range(n_draws)]
    return {"within": within, "total": total, "ratio": within / total, "n": len(one),
            "p": (1 + int(np.sum(np.array(draws) <= within))) / (n_draws + 1)}  # fmt: skip


def axis_agreement(by_axis: np.ndarray) -> dict[str, float]:
    """Whether z from slices of one axis agrees with z from another axis of the cube: by_axis (n, a, D).

    within, between   root mean square distance between axes of one cube, between axes of different cubes
    identified        share of z whose nearest neighbour, among those of other axes, is of its own cube; by chance 1 / n
    """
    n, a, _ = by_axis.shape
    flat = by_axis.reshape(n * a, -1).astype(float)
    squared = np.square(flat).sum(axis=1)
    distance = np.maximum(squared[:, None] + squared - 2 * flat @ flat.T, 0)
    cube, axis = np.divmod(np.arange(n * a), a)
    other_axis, same_cube = axis[:, None] != axis, cube[:, None] == cube
    within, between = (float(np.sqrt(distance[other_axis & part].mean())) for part in (same_cube, ~same_cube))
    nearest = np.where(other_axis, distance, np.inf).argmin(axis=1)
    return {"within": within, "between": between, "ratio": within / between,
            "identified": float(np.mean(cube[nearest] == cube)), "n": n}  # fmt: skip


def disagreement(mu: np.ndarray, logvar: np.ndarray) -> float:
    """How far the posteriors of g sets differ, in units of their own widths: (g, D) twice -> sum over dimensions."""
    return float((mu.var(axis=0, ddof=1) / np.exp(logvar).mean(axis=0)).sum())


def shuffled_sets(run: Run, suite: CubeSuite, cubes: list[int], n_slices: int = 15) -> dict | None:
    """Sets of slices of one cube against sets whose slices come from different cubes.

    A cube's slices are cut into sets of the trained size; the posteriors of its sets must agree, those of mixed
    sets must not. `auc`: chance that mixed sets disagree more than a cube's own, 0.5 if z cannot tell them apart.
    Returns None with fewer cubes than a set has slices, or fewer than two sets.
    """
    n_slices = min(n_slices, len(suite.axes) * (suite.n_planes // run.config.data.thickness))
    size = min(run.config.training.set_size - 1, n_slices // 2)
    n_sets = n_slices // max(size, 1)
    if size < 2 or len(cubes) < 2:
        return None
    slices = [latents.spread_slices(run, suite, cube, n_slices, seed=cube) for cube in cubes]
    maps = [latents.slice_features(run, part) for part in slices]

    def found(i: int, mixed: bool) -> float:
        members = [[((i + j * mixed) % len(cubes), g * size + j) for j in range(size)] for g in range(n_sets)]
        if mixed:  # each set of other cubes than the set before it
            members = [[((c + g) % len(cubes), s) for c, s in row] for g, row in enumerate(members)]
        sets = [
            latents.encode_cube(
                run, torch.stack([slices[c][s] for c, s in row]), torch.stack([maps[c][s] for c, s in row])
            )
            for row in members
        ]
        return disagreement(*(np.stack([z[k].numpy() for z in sets]) for k in (0, 1)))

    own, mixed = ([found(i, flag) for i in range(len(cubes))] for flag in (False, True))
    return {"own": own, "mixed": mixed, "auc": auc(mixed, own), "set_size": size}


def auc(a: list[float], b: list[float]) -> float:
    """Chance that a number of a is larger than one of b, ties count half (Mann-Whitney)."""
    gap = np.subtract.outer(np.asarray(a), np.asarray(b))
    return float(np.mean(gap > 0) + 0.5 * np.mean(gap == 0))


# --- leaks and memory


def leaks(ids: list[str], split: dict[str, list[int]], trained: list[str] | None = None) -> dict[str, list[str]]:
    """Universes that are in two parts of a split, and cubes whose name is not the one that was trained on.

    ids (n,) names of the cubes;  trained (n,) those that the run noted
    """
    parts: dict[str, set] = {}
    for part, cubes in split.items():
        for cube in cubes:
            parts.setdefault(ids[cube], set()).add(part)
    renamed = [a for a, b in zip(ids, trained or ids, strict=True) if a != b]
    return {"shared": sorted(name for name, found in parts.items() if len(found) > 1), "renamed": renamed}


def two_sample(a: np.ndarray, b: np.ndarray, n_draws: int = 999, seed: int = 0) -> dict[str, float]:
    """Whether two samples of z, (n, D) and (m, D), are drawn alike.

    The energy distance 2 E|a - b| - E|a - a'| - E|b - b'| (Szekely & Rizzo 2013), its p-value by permutation, and
    the distance over E|a - b|.
    """
    both = np.concatenate([a, b]).astype(float)
    squared = np.square(both).sum(axis=1)
    distance = np.sqrt(np.maximum(squared[:, None] + squared - 2 * both @ both.T, 0))
    np.fill_diagonal(distance, 0)
    rng, n, m = np.random.default_rng(seed), len(a), len(b)
    first = np.zeros((n_draws + 1, n + m))
    first[0, :n] = 1
    for row in first[1:]:
        row[rng.permutation(n + m)[:n]] = 1
    ab, aa, bb = (
        ((x @ distance) * y).sum(axis=1) for x, y in ((first, 1 - first), (first, first), (1 - first, 1 - first))
    )
    energy = 2 * ab / (n * m) - aa / n**2 - bb / m**2
    return {"distance": float(energy[0]), "relative": float(energy[0] / (ab[0] / (n * m))),
            "p": float(np.mean(energy >= energy[0] - 1e-12))}  # fmt: skip


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
    turned = [torch.rot90(x, turn, (-2, -1)) for x in (images, images.mT) for turn in range(4)]
    return torch.stack(turned)


def nearest_slice(
    run: Run, suite: CubeSuite, cubes: list[int], images: Tensor, stride: int | None = None, progress: bool = False
) -> np.ndarray:
    """Correlation of each image with the slice of these cubes that is most like it, over shifts and symmetries.

    images (m, 1, H, H) pixels;  stride  every so many planes are searched at first; two where a cube has more than 64
    In each cube a search on images of about 32 pixels chooses a plane; it and its neighbours are compared in full.
    Returns (m,): 1 for a copy of any plane of any axis, shifted, turned or mirrored.
    """
    stride = stride or (2 if suite.n_planes > 64 else 1)
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
    axis, plane = (
        x.flatten() for x in torch.meshgrid(torch.tensor(suite.axes), torch.arange(suite.n_planes), indexing="ij")
    )
    x = log_density(torch.from_numpy(suite.overdensity(cube)), run.config.data.eps)[None]
    pixels = (cut_slices(x, whole_planes(axis, plane), suite.side, run.config.data.thickness) - run.mean) / run.std
    return pixels[:, 0].unflatten(0, (len(suite.axes), suite.n_planes))


def upper_bound(values, level: float = 0.99) -> float:
    """What one more value of the kind auc with probability 1 - level, if the logarithms are Gaussian.

    Student's prediction bound, so that few values give a wide one; infinity for fewer than three.
    """
    from scipy.stats import t

    logs = np.log(np.asarray(values, float))
    n = len(logs)
    if n < 3:
        return float("inf")
    return float(np.exp(logs.mean() + t.ppf(level, n - 1) * logs.std(ddof=1) * np.sqrt(1 + 1 / n)))


def memory(
    run: Run, suite: CubeSuite, samples: Tensor, held_out: Tensor, progress: bool = False
) -> dict[str, list[float] | float]:
    """Nearest training slice of generated samples, of true held-out slices, and of a copy that must be found.

    samples, held_out (m, 1, H, H) pixels. `limit`: what one more held-out slice auc in 1 of 1000 cases.
    """
    train = run.split["train"]
    copy = latents.spread_slices(run, suite, train[len(train) // 2], 1, seed=12345)
    copy = copy.roll((3, 5), (-2, -1)).mT.flip(-1) if run.config.data.image_size == suite.side else copy.mT.flip(-1)
    r = nearest_slice(run, suite, train, torch.cat([samples, held_out, copy]), progress=progress)
    held = r[len(samples) : -1]
    limit = min(upper_bound(held, 0.999), 0.99)
    return {"samples": r[: len(samples)].tolist(), "held_out": held.tolist(), "planted_copy": float(r[-1]),
            "limit": limit, "n_copies": int((r[: len(samples)] > limit).sum())}  # fmt: skip


def plain(reading: ProbeResult) -> dict:
    """A ProbeResult as JSON values, numbers by name of the parameter."""
    named = {
        k: dict(zip(PARAMETERS, getattr(reading, k).tolist(), strict=True))
        for k in ("r2", "error", "width", "coverage")
    }
    return named | {"predicted": reading.predicted.tolist()}
