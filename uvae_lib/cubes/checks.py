"""The one pass over all cubes before they are used, and the way of a cube to its overdensity."""

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from scipy.sparse.csgraph import connected_components
from tqdm import tqdm

from ..files import write_atomically
from .arrays import refusal

FIELD_TYPES = ("density", "delta", "overdensity", "counts")
SPARSE = ("HI", "Mstar", "Z", "MgFe")  # fields that are zero in many voxels
ROUNDING = 2e-6  # negative overdensities down to this are rounding in the painting of mass
NOT_PERIODIC = 1.25  # jump across the wrap, in mean jumps: 0.7 to 1.23 measured on periodic cubes, 1.7 to 3 on cut ones
# contrast of matter today in voxels of 4 Mpc/h is about 1, larger in smaller ones; of log10(M) it is 0.05
LEAST_CONTRAST = 0.15
# skewness over contrast: 3.2 to 11 of matter at 1 to 16 Mpc/h a voxel; 1 of Poisson noise, 1.2 to 1.8 of scaled counts
LEAST_SKEWNESS = 2
ALIKE = 0.5  # correlation of largest modes above which two cubes are one universe: 124 modes scatter by 0.09
VERSION = 8


@dataclass(frozen=True)
class Check:
    """What the pass found.

    wrap            of each axis: jump across the wrap / mean jump between neighbouring planes
    contrast        standard deviation of y in the first cube;  skewness: likewise, 0 of what is the logarithm of mean 1
    universes       number of each cube's universe: cubes with the same largest modes share one
    alike           the most correlated pair of cubes, and its correlation
    """

    wrap: list[float]
    contrast: float
    skewness: float
    universes: list[int]
    alike: list[float]

    def cautions(self, voxel: float) -> list[str]:
        """Sentences to warn with; voxel [Mpc/h]."""
        found, spread = [], f"standard deviation {self.contrast:.2g} of the mean, skewness {self.skewness:.2g}"
        if self.contrast < LEAST_CONTRAST * min(1, 4 / voxel) or self.skewness < LEAST_SKEWNESS * self.contrast:
            found.append(f"the numbers look like logarithms or scaled ones ({spread}): if so, undo that and save again")
        for axis, jump in enumerate(self.wrap, 3 - len(self.wrap)):
            if jump > NOT_PERIODIC:
                what = f"edges do not look periodic along axis {axis}, and slices wrap around"
                found.append(f"{what}: a jump of {jump:.2f} times that between neighbouring planes; use whole boxes")
        return found


def to_overdensity(raw: np.ndarray, field_type: str, where: str, sparse: bool = True) -> np.ndarray:
    """Overdensity of a cube as it is stored.

    raw         (P, N, N) real numbers
    field_type  density | delta | overdensity | counts
    where       what to call the cube in an error
    sparse      planes of one value are no damage
    Returns y = rho / <rho> (P, N, N) float32, never negative, mean 1.
    Raises CubesError for what is not finite, constant or negative, and for another mean than the field type has.
    """
    rho = raw.astype(np.float64 if raw.dtype.itemsize > (4 if raw.dtype.kind == "f" else 2) else np.float32)
    rho += field_type == "delta"
    with np.errstate(over="ignore", invalid="ignore"):
        mean = float(rho.mean(dtype=np.float64))
    if not np.isfinite(mean):
        found = f"{np.isnan(rho).sum()} NaN and {np.isinf(rho).sum()} infinite voxels, or numbers too large"
        raise refusal(where, found, "finite numbers", "repair or leave out this cube")
    low, high = float(rho.min()), float(rho.max())
    name, advice = {"delta": "1 + delta"}.get(field_type, field_type), "pass field_type= (--data.field-type) as it is"
    if low == high:
        raise refusal(where, f"all voxels {low:g}, a constant cube", "a density that varies", "copy it again")
    if mean <= 0 or low < -ROUNDING * mean:
        found = f"{name} from {low:.4g} to {high:.4g} with mean {mean:.4g}"
        raise refusal(where, found, f"a {name}, which is never negative", f"{advice}; undo logarithms")
    if field_type in ("delta", "overdensity") and abs(mean - 1) > 0.2:
        raise refusal(where, f"a mean of {mean:.4g} of {name}", f"{field_type}, for which it is 1", advice)
    planes = () if sparse else ((1, 2), (0, 2), (0, 1))
    if flat := sum(int((np.ptp(rho, axis=plane) == 0).sum()) for plane in planes):
        raise refusal(where, f"{flat} planes without structure", "a cube that is whole", "copy it again")
    rho = rho if 1e-25 < mean < 1e25 else rho.astype(np.float64)  # the quotient would leave the range of float32
    return np.ascontiguousarray(np.maximum(np.divide(rho, mean, out=rho), 0, out=rho), dtype=np.float32)


def check_cubes(suite) -> Check:
    """Read every cube of a suite once, or the report beside the files when they have not changed since.

    Raises CubesError for a cube that cannot be used.
    """
    folder = Path(os.path.commonpath([file.path.parent for file in suite.files]))
    place = folder / f".{suite.files[0].path.name if len(suite.files) == 1 else 'cubes'}.check.json"
    files = [(os.path.relpath(f.path, folder), f.dataset, f.size, f.mtime_ns) for f in suite.files]
    key = hashlib.sha256(json.dumps([VERSION, suite.field_type, suite.field in SPARSE, files]).encode()).hexdigest()
    with suppress(OSError, ValueError, KeyError, TypeError):  # absent, or not ours
        kept = json.loads(place.read_text(encoding="utf-8"))
        if kept["key"] == key:
            return Check(**kept["check"])
    check = _measure(suite)
    with suppress(OSError):  # a read-only folder, or a full disk: the next process checks again
        write_atomically(place, json.dumps({"key": key, "check": asdict(check)}))
    return check


def _measure(suite) -> Check:
    jumps, modes, axes = [], [], (0, 1, 2) if suite.n_planes == suite.side else (1, 2)
    for i in tqdm(range(suite.n_cubes), desc="checking cubes", unit="cube", delay=5, leave=False, disable=None):
        raw = suite.raw(i)
        y = to_overdensity(raw, suite.field_type, f"cube {i} ({suite.ids[i]})", suite.field in SPARSE)
        if not i:
            contrast = float(y.std(dtype=np.float64))
            skewness = float(np.mean(((y - 1) / contrast) ** 3, dtype=np.float64)) * (not _is_logarithm(raw))
        jumps.append([_jump(y, axis) for axis in axes])
        modes.append(largest_modes(y, axes))
    alike, (across, inside) = np.array(modes) @ np.array(modes).T - np.eye(len(modes)), np.mean(jumps, axis=0).T
    pair, wrap = np.unravel_index(alike.argmax(), alike.shape), across / np.maximum(inside, 1e-300)
    universes = connected_components(alike > ALIKE, directed=False)[1].tolist()
    return Check(wrap.tolist(), contrast, skewness, universes, [*map(int, pair), float(alike[pair])])


def _is_logarithm(x: np.ndarray) -> bool:
    """Whether exp(x) - 1 or 10^x - 1 has mean 1: ln(1 + y), log10(1 + y) of an overdensity."""
    x = x.astype(np.float64)
    return bool(x.max() < 30) and any(abs(np.expm1(x * scale).mean() - 1) < 1e-3 for scale in (1, np.log(10)))


def largest_modes(y: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """Amplitudes of the waves with at most two periods along each of some axes, every |k| with equal weight, as a unit
    vector: of one universe at another time, or in another field, they point the same way. Zero below
    8 voxels a side."""
    waves, c = [0, 1, 1, 2, 2], np.sqrt(y)
    for axis in reversed(axes):
        x = 2 * np.pi * np.arange(y.shape[axis]) / y.shape[axis]
        basis = np.stack([np.ones_like(x), np.cos(x), np.sin(x), np.cos(2 * x), np.sin(2 * x)], -1)
        c = np.moveaxis(np.tensordot(c, basis.astype(np.float32), (axis, 0)), -1, axis)
    k2 = sum(np.meshgrid(*[np.square(waves)] * len(axes), indexing="ij"))
    c = c.reshape(-1, *k2.shape).astype(np.float64) * (k2 > 0) * (y.shape[-1] >= 8)
    for shell in np.unique(k2):
        c[:, k2 == shell] /= max(np.sqrt(np.mean(c[:, k2 == shell] ** 2)), 1e-30)
    return (c / max(np.linalg.norm(c), 1e-30)).ravel()


def _jump(y: np.ndarray, axis: int, n: int = 12) -> tuple[float, float]:
    """Mean of |a - b| / (a + b) of neighbouring planes a, b: across the wrap, and inside."""
    found, last = [], y.shape[axis] - 1
    for i in (last, *np.unique(np.linspace(0, last - 1, n).round().astype(int))):
        a, b = y.take(i, axis), y.take((i + 1) % (last + 1), axis)
        found.append(float(np.mean(np.abs(a - b) / (a + b + np.float32(1e-30)), dtype=np.float64)))
    return found[0], float(np.mean(found[1:]))
