"""Every cube of a suite encoded once: latents and statistics of its slices, for metrics, controls and the posterior.

`encode_suite` makes a `FeatureTable`, small numbers for every cube, which `suite_features` stores in the run folder;
`encode_cubes` a `CubeEncoding`, with slices, of the cubes that are asked for.
"""

import io
from dataclasses import dataclass, fields
from pathlib import Path

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

SIZES = (1, 2, 3, 5, 9, 15)  # numbers of slices of a cube; twice the largest is added
PDF_EDGES = torch.linspace(-4, 5, 37)  # of standardised pixels
N_RANDOM = 2  # random sets of each number of slices
VERSION = 6  # of the stored table


@dataclass(frozen=True, eq=False)
class CubeEncoding:
    """Slices of one cube and what the model makes of them.

    truth, recon (n, 1, H, H)  pixels; each slice is reconstructed given the other slices
    zs (n, 1024)               `set_features` of the slices
    z                          q(z | all n slices)
    h, prior                   q(h | slice, z of the others), p(h | z of the others): n rows
    """

    truth: Tensor
    recon: Tensor
    zs: Tensor
    z: Posterior
    h: Posterior
    prior: Posterior


@dataclass(frozen=True, eq=False)
class FeatureTable:
    """Latents and statistics of n cubes of a suite, from s numbers of slices.

    cubes (n,)                  their numbers in the suite
    names (p,)                  those of Omega_m and sigma_8 that are known;  params (n, p)
    sizes (s,)                  numbers of slices; the slices of a smaller number are among those of a larger one
    mu, logvar (n, s, D)        q(z | slices)
    random_sets (n, s, g, D)    means of q(z | as many slices), chosen at random from all of the cube's
    power (n, s, n_k)           log of the mean P(k) of the slices' pixels [(Mpc/h)^2]
    pdf (n, s, n_bins)          density of pixels between PDF_EDGES
    moments (n, s, 4)           mean over slices of the pixels' mean, log standard deviation, skewness, excess kurtosis
    by_axis (n, a, D)           mean of q(z | slices cut along one axis)
    """

    cubes: np.ndarray
    names: np.ndarray
    params: np.ndarray
    sizes: np.ndarray
    mu: np.ndarray
    logvar: np.ndarray
    random_sets: np.ndarray
    power: np.ndarray
    pdf: np.ndarray
    moments: np.ndarray
    by_axis: np.ndarray

    def rows(self, cubes: list[int]) -> "FeatureTable":
        """The same for some of the cubes, by their numbers in the suite."""
        at = {int(cube): i for i, cube in enumerate(self.cubes)}
        chosen, whole = [at[cube] for cube in cubes], ("names", "sizes")
        return FeatureTable(**{name: x if name in whole else x[chosen] for name, x in vars(self).items()})

    def at(self, n_slices: int) -> int:
        """Place of the largest number of slices that is not above n_slices."""
        return max(0, int(np.searchsorted(self.sizes, n_slices, side="right")) - 1)

    def z(self, n_slices: int = 15) -> np.ndarray:
        """Mean of q(z) of every cube, (n, D)."""
        return self.mu[:, self.at(n_slices)]

    def sets(self) -> np.ndarray:
        """Means of q(z) of all sets of slices of every cube, (n, s, 1 + g, D)."""
        return np.concatenate([self.mu[:, :, None], self.random_sets], axis=2)

    def statistics(self, n_slices: int = 15) -> np.ndarray:
        """log P(k), PDF and moments side by side, (n, n_k + n_bins + 4)."""
        return np.concatenate([x[:, self.at(n_slices)] for x in (self.power, self.pdf, self.moments)], axis=1)


def moments(slices: Tensor) -> Tensor:
    """Mean, log of the standard deviation, skewness and excess kurtosis of pixels: (n, 1, H, H) -> (n, 4)."""
    pixels = slices.flatten(1)
    mean, std = pixels.mean(dim=1, keepdim=True), pixels.std(dim=1, correction=0, keepdim=True).clamp_min(1e-6)
    third, fourth = (((pixels - mean) / std).pow(p).mean(dim=1) for p in (3, 4))
    return torch.stack([mean[:, 0], std[:, 0].log(), third, fourth - 3], dim=1)


def encode_views(run: Run, truth: Tensor) -> CubeEncoding:
    """Encode and reconstruct the slices (n, 1, H, H) of one cube."""
    features = slice_features(run, truth)
    zs = set_features(run, truth, features)
    z = encode_set(run, zs)
    others = encode_others(run, zs) if len(zs) > 1 else z.mu[None]
    h = encode_slices(run, truth, others, features)
    return CubeEncoding(truth, decode(run, h.mu), zs, z, h, prior_of_h(run, others))


def encode_cubes(
    run: Run, suite: CubeSuite, cubes: list[int], n_slices: int, progress: bool = False
) -> list[CubeEncoding]:
    """Encode and reconstruct n_slices of each of these cubes, or as many as a cube has."""
    n, bar = min(n_slices, most_slices(run, suite)), tqdm(cubes, "reconstruct", unit="cube", disable=not progress)
    return [encode_views(run, spread_slices(run, suite, cube, n, seed=cube)) for cube in bar]


def encode_suite(run: Run, suite: CubeSuite, n_slices: int = 15, progress: bool = False) -> FeatureTable:
    """Encode every cube of a suite once: n_slices, or as many as a cube has, and as many further ones."""
    n, rows = min(n_slices, most_slices(run, suite)), []
    shifts = (0.0, 0.5) if 2 * n <= most_slices(run, suite) else (0.0,)
    for cube in tqdm(range(suite.n_cubes), "encode", unit="cube", disable=not progress):
        y = suite.overdensity(cube)
        parts = [cut_cube(run, y, n, cube, suite.axes, shift) for shift in shifts]
        rows.append(_describe(run, parts, len(suite.axes)))
    names = [name for name in PARAMETERS if name in suite.params]
    columns = {name: np.stack([row[name] for row in rows]) for name in rows[0]} | {"sizes": rows[0]["sizes"]}
    params = suite.params[names].to_numpy(float)
    return FeatureTable(cubes=np.arange(len(rows)), names=np.array(names, dtype=str), params=params, **columns)


def suite_features(
    run: Run, suite: CubeSuite, name: str = "LH", n_slices: int = 15, folder: Path | None = None, progress: bool = False
) -> FeatureTable:
    """The `FeatureTable` of a suite: read where these weights made it from these cubes, else made and stored.

    name     of the set, in the file's name;  folder: where it is stored, the run's when absent
    """
    path, file = (folder or run.folder) / f"features_{name}.npz", io.BytesIO()
    key = weights_key(run, VERSION, list(suite.ids), suite.fingerprint, n_slices)
    if path.exists():
        with np.load(path, allow_pickle=False) as stored:
            if str(stored["key"]) == key:
                return FeatureTable(**{field.name: stored[field.name] for field in fields(FeatureTable)})
    table = encode_suite(run, suite, n_slices, progress)
    np.savez(file, key=np.array(key), **vars(table))
    write_atomically(path, file.getvalue())
    return table


def _describe(run: Run, parts: list[Tensor], n_axes: int) -> dict[str, np.ndarray]:
    """One row of a table from slices (n, 1, H, H) of a cube, then n further ones."""
    n, slices, zs = len(parts[0]), torch.cat(parts), torch.cat([set_features(run, part) for part in parts])
    sizes = sorted({min(size, n) for size in SIZES} | {n, len(slices)})
    power, pdf = power_spectrum(slices[:, 0], run.image_box)[1], pixel_pdf(slices[:, 0], PDF_EDGES)
    four = moments(slices)
    names, rows, rng = ("mu", "logvar", "power", "pdf", "moments", "random_sets"), [], np.random.default_rng(0)
    for size in sizes:
        chosen = spread(n, size, n_axes) if size <= n else np.arange(size)
        z = encode_set(run, zs[chosen])
        means = [x[chosen].mean(dim=0) for x in (power, pdf, four)]
        random = [encode_set(run, zs[rng.permutation(len(zs))[:size]]).mu for _ in range(N_RANDOM)]
        rows.append((z.mu, z.logvar, means[0].log(), *means[1:], torch.stack(random)))
    axis = torch.cat([torch.arange(len(part)) % n_axes for part in parts])
    by_axis = [encode_set(run, zs[axis == a]).mu.numpy() for a in range(min(n_axes, n))]
    columns = (torch.stack(column).numpy() for column in zip(*rows, strict=True))
    return dict(zip(names, columns, strict=True)) | {"by_axis": np.stack(by_axis), "sizes": np.array(sizes)}


def spread(n: int, size: int, n_axes: int) -> np.ndarray:
    """Which `size` of n slices, cut along the axes in turn, lie evenly over axes and planes."""
    j, ranks, most = np.arange(size), -(-n // n_axes), -(-size // n_axes)
    return (j // n_axes) * ranks // most * n_axes + j % n_axes


def evenly(items: list, most: int) -> list:
    """At most so many of the items, evenly from all of them."""
    return [items[i] for i in np.unique(np.linspace(0, len(items) - 1, min(most, len(items))).round().astype(int))]
