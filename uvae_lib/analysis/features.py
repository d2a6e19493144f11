"""Every cube of a suite encoded once: what a run sees in it, for metrics, controls and estimates alike.

`encode_suite` makes the `Encodings` of an evaluation in one pass over the cubes. The `FeatureTable`, small numbers for
every cube, is kept in the run folder; `CubeEncoding`, with its slices, stays in memory.
"""

import io
import warnings
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from ..cubes.suite import CubeSuite
from ..files import write_atomically
from ..presets import PARAMETERS
from ..runs.encode import (
    Posterior,
    cut_cube,
    decode,
    encode_others,
    encode_set,
    encode_slices,
    most_slices,
    prior_of_h,
    set_features,
    slice_features,
    spread_slices,
)
from ..runs.run import Run, weights_key
from ..statistics import pixel_pdf, power_spectrum
from ..variants.fourier import SliceSummary

SIZES = (1, 2, 3, 5, 9, 15)  # numbers of slices of a cube; twice the largest is added
PDF_EDGES = torch.linspace(-4, 5, 37)  # of standardised pixels
N_TRAIN = 128  # training cubes, at most, whose slices are decoded and held in memory
N_DRAWS = 2  # random sets of each number of slices
VERSION = 4  # of what is kept in the run folder


@dataclass
class CubeEncoding:
    """Slices of one cube and what the model makes of them.

    truth, recon (n, 1, H, H)  pixels; each slice is reconstructed given the other slices
    zs (n, 1024)               `set_features` of the slices
    z                          q(z | all n slices)
    h, prior                   q(h | slice, z of the others), p(h | z of the others): n rows
    """

    cube: int
    truth: Tensor
    recon: Tensor
    zs: Tensor
    z: Posterior
    h: Posterior
    prior: Posterior


@dataclass(frozen=True, eq=False)
class FeatureTable:
    """What a run sees in the cubes of a suite, for s numbers of slices.

    cubes (n,)             their numbers in the suite
    names (p,)             those of Omega_m and sigma_8 that are known;  params (n, p)
    sizes (s,)             numbers of slices; the slices of a smaller number are among those of a larger one
    mu, logvar (n, s, D)   q(z | slices)
    draws (n, s, g, D)     means of q(z | as many slices), drawn at random from all that were encoded
    power (n, s, n_k)      log of the mean P(k) of the slices' pixels [(Mpc/h)^2];  k (n_k,) [h/Mpc]
    pdf (n, s, n_bins)     density of pixels between PDF_EDGES
    summary (n, s, d)      mean over the slices of what the encoder is wired to, log P(k) and moments (`SliceSummary`)
    by_axis (n, a, D)      mean of q(z | slices cut along one axis)
    """

    cubes: np.ndarray
    names: np.ndarray
    params: np.ndarray
    sizes: np.ndarray
    mu: np.ndarray
    logvar: np.ndarray
    draws: np.ndarray
    k: np.ndarray
    power: np.ndarray
    pdf: np.ndarray
    summary: np.ndarray
    by_axis: np.ndarray

    def rows(self, cubes: list[int]) -> "FeatureTable":
        """The same for some of the cubes, by their numbers in the suite."""
        at = {int(cube): i for i, cube in enumerate(self.cubes)}
        chosen, whole = [at[cube] for cube in cubes], ("names", "sizes", "k")
        return FeatureTable(**{name: x if name in whole else x[chosen] for name, x in vars(self).items()})

    def at(self, n_slices: int) -> int:
        """Place of the largest number of slices that is not above n_slices."""
        return max(0, int(np.searchsorted(self.sizes, n_slices, side="right")) - 1)

    def z(self, n_slices: int = 15) -> np.ndarray:
        """Mean of q(z) of every cube, (n, D)."""
        return self.mu[:, self.at(n_slices)]

    def sets(self) -> np.ndarray:
        """Means of q(z) of all sets of slices of every cube, (n, s, 1 + g, D)."""
        return np.concatenate([self.mu[:, :, None], self.draws], axis=2)


@dataclass(frozen=True, eq=False)
class Encodings:
    """A suite as a run sees it: the table of all cubes, and the slices of those of `cubes`."""

    n_slices: int
    table: FeatureTable
    cubes: dict[int, CubeEncoding]

    def of(self, cubes: list[int]) -> list[CubeEncoding]:
        """Encodings of these cubes, without those whose slices were not held."""
        return [self.cubes[cube] for cube in cubes if cube in self.cubes]


def encode_slices_of_cube(run: Run, cube: int, truth: Tensor) -> CubeEncoding:
    """Encode and reconstruct the slices (n, 1, H, H) of one cube."""
    features = slice_features(run, truth)
    zs = set_features(run, truth, features)
    others = encode_others(run, zs) if len(zs) > 1 else encode_set(run, zs).mu[None]
    h = encode_slices(run, truth, others, features)
    recon, prior = decode(run, h.mu), prior_of_h(run, others)
    return CubeEncoding(cube, truth, recon, zs, encode_set(run, zs), h, prior)


def encode_cubes(
    run: Run, suite: CubeSuite, cubes: list[int], n_slices: int, progress: bool = False
) -> list[CubeEncoding]:
    """Encode and reconstruct n_slices of each of these cubes, or as many as a cube has."""
    n = min(n_slices, most_slices(run, suite))
    shown = tqdm(cubes, desc="encode", unit="cube", disable=not progress)
    return [encode_slices_of_cube(run, cube, spread_slices(run, suite, cube, n, seed=cube)) for cube in shown]


def encode_suite(
    run: Run, suite: CubeSuite, n_slices: int = 15, progress: bool = False, held: Iterable[int] = ()
) -> Encodings:
    """Encode every cube of a suite once: n_slices, or as many as a cube has, and as many further ones for the table.

    held   cubes whose slices are decoded too, and held in memory
    """
    n, held, rows, found = min(n_slices, most_slices(run, suite)), {*held}, [], {}
    for cube in tqdm(range(suite.n_cubes), desc="encode", unit="cube", disable=not progress):
        truth, further = _slices(run, suite, cube, n)
        if cube in held:
            found[cube] = encode_slices_of_cube(run, cube, truth)
        zs = found[cube].zs if cube in held else set_features(run, truth)
        rows.append(describe(run, truth, further, zs, len(suite.axes)))
    return Encodings(n, _table(suite, n, rows), found)


def judged_cubes(run: Run) -> list[int]:
    """The cubes whose slices an evaluation looks at: all held-out ones, and some of those of training."""
    return [*run.split["val"], *run.split["test"], *evenly(run.split["train"], N_TRAIN)]


def kept_features(
    run: Run, suite: CubeSuite, name: str = "LH", n_slices: int = 15, progress: bool = False
) -> FeatureTable:
    """The table of a suite from the run folder where these weights made it from these cubes, else made and kept."""
    path, key = run.folder / f"features_{name}.npz", _features_key(run, suite, n_slices)
    if path.exists():
        with np.load(path, allow_pickle=False) as kept:
            if str(kept["key"]) == key:
                return FeatureTable(**{field: kept[field] for field in kept.files if field != "key"})
    return keep_features(run, suite, encode_suite(run, suite, n_slices, progress).table, name, n_slices)


def keep_features(run: Run, suite: CubeSuite, table: FeatureTable, name: str, n_slices: int) -> FeatureTable:
    """Write a table into the run folder, for `kept_features`."""
    file = io.BytesIO()
    np.savez(file, key=np.array(_features_key(run, suite, n_slices)), **vars(table))
    write_atomically(run.folder / f"features_{name}.npz", file.getvalue())
    return table


def _features_key(run: Run, suite: CubeSuite, n_slices: int) -> str:
    names = [suite.cube_id(i) for i in range(suite.n_cubes)]
    return weights_key(run, VERSION, names, suite.fingerprint, n_slices)


def _slices(run: Run, suite: CubeSuite, cube: int, n: int) -> tuple[Tensor, Tensor]:
    """n slices of a cube, and n further ones between them where it has so many, else none."""
    y = suite.overdensity(cube)
    truth = cut_cube(run, y, n, cube, suite.axes)
    more = 2 * n <= most_slices(run, suite)
    return truth, cut_cube(run, y, n, cube, suite.axes, shift=0.5) if more else truth[:0]


def _table(suite: CubeSuite, n: int, rows: list[dict[str, np.ndarray]]) -> FeatureTable:
    names = [name for name in PARAMETERS if name in suite.params]
    columns = {name: np.stack([row[name] for row in rows]) for name in rows[0] if name not in ("k", "sizes")}
    return FeatureTable(
        cubes=np.arange(suite.n_cubes), names=np.array(names, dtype=str), params=suite.params[names].to_numpy(float),
        sizes=rows[0]["sizes"], k=rows[0]["k"], **columns,
    )  # fmt: skip


def describe(run: Run, truth: Tensor, further: Tensor, zs: Tensor, n_axes: int) -> dict[str, np.ndarray]:
    """One row of a table from slices of one cube as `cut_cube` gives them, axis after axis.

    truth     (n, 1, H, H)
    further   (n or 0, 1, H, H) of the same cube
    zs        (n, 1024), `set_features` of truth
    n_axes    along which slices are cut
    """
    n, slices = len(truth), torch.cat([truth, further])
    zs = torch.cat([zs, set_features(run, further)]) if len(further) else zs
    sizes = sorted({min(size, n) for size in SIZES} | {n, len(slices)})
    k, power = power_spectrum(slices[:, 0], run.image_box)
    pdf, summary = pixel_pdf(slices[:, 0], PDF_EDGES), SliceSummary(slices.shape[-1])(slices)
    found = {"mu": [], "logvar": [], "power": [], "pdf": [], "summary": [], "draws": []}
    rng = np.random.default_rng(0)
    for size in sizes:
        chosen = spread(n, size, n_axes) if size <= n else np.arange(size)
        z = encode_any_set(run, zs[chosen])
        means = [x[chosen].mean(dim=0) for x in (power, pdf, summary)]
        drawn = [encode_any_set(run, zs[rng.permutation(len(zs))[:size]]).mu for _ in range(N_DRAWS)]
        values = (z.mu, z.logvar, means[0].log(), *means[1:], torch.stack(drawn))
        for name, value in zip(found, values, strict=True):
            found[name].append(value.numpy())
    axis = torch.cat([torch.arange(len(part)) % n_axes for part in (truth, further)])
    by_axis = [encode_any_set(run, zs[axis == a]).mu.numpy() for a in range(min(n_axes, n))]
    row = {name: np.stack(value) for name, value in found.items()}
    return row | {"by_axis": np.stack(by_axis), "k": k.numpy(), "sizes": np.array(sizes)}


def spread(n: int, size: int, n_axes: int) -> np.ndarray:
    """Which `size` of n slices, cut along the axes in turn, lie evenly over axes and planes."""
    j, ranks, most = np.arange(size), -(-n // n_axes), -(-size // n_axes)
    return (j // n_axes) * ranks // most * n_axes + j % n_axes


def evenly(items: list, most: int) -> list:
    """At most so many of the items, evenly from all of them."""
    return [items[i] for i in np.unique(np.linspace(0, len(items) - 1, min(most, len(items))).round().astype(int))]


def encode_any_set(run: Run, zs: Tensor) -> Posterior:
    """q(z); sets smaller than the model was trained with are asked on purpose here, so they do not warn."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="a set of .* is smaller", category=UserWarning)
        return encode_set(run, zs)
