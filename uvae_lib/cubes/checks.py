"""The check of a whole suite: every number read once, what looks odd reported, the report kept.

A check streams through the files one cube at a time and needs the memory of about three cubes. Its report
lies beside the data, keyed by the size and modification time of every file; where nothing can be
written it is kept in memory.
"""

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ..files import write_atomically
from .arrays import Hdf5File
from .field_type import guess_field_type, looks_like, to_overdensity
from .layout import SuiteFiles

FLOOR = 1e-7  # a voxel with less overdensity is empty
EMPTY_LIMIT = 1e-3  # more empty voxels than this are warned of
NOT_PERIODIC = 1.25  # jump across the wrap, in mean jumps: 0.7 to 1.23 measured on periodic cubes, 1.7 to 3 on cut ones
# contrast of matter today in voxels of 4 Mpc/h is about 1, larger in smaller ones; of log10(M) it is 0.05
LEAST_CONTRAST = 0.15
SAMPLE = 16  # cubes of a sampled check
FULL_CHECK = 8 * 2**30  # bytes; larger suites are sampled unless check="full"
VERSION = 4
_remembered: dict[tuple[Path, str], "CheckReport"] = {}  # reports that could not be written beside the data


@dataclass(frozen=True)
class CheckReport:
    """What a check found.

    n_checked        cubes read, of n_cubes
    means            lowest, mean and highest of the cubes' means
    extremes         minimum and maximum of all voxels
    empty_fraction   share of voxels with y < 1e-7
    spike_share      share of the variance of log(y + 1e-8) that the empty voxels cause
    n_clipped        voxels between -2e-6 and 0, set to 0
    wrap             for each periodic axis: jump across the wrap / mean jump between neighbouring planes
    wrap_to_largest  the same / largest jump between neighbouring planes
    duplicates       pairs of cubes that hold the same numbers
    contrast         standard deviation of y in the first cube
    skewness         of y in the first cube: several times the contrast in matter, about nothing in logarithms
    looks_like       what it is instead of field_type, or ""
    """

    field_type: str
    n_checked: int
    n_cubes: int
    means: list[float]
    extremes: list[float]
    empty_fraction: float
    spike_share: float
    n_clipped: int
    wrap: list[float]
    wrap_to_largest: list[float]
    duplicates: list[list[int]]
    contrast: float
    skewness: float
    looks_like: str

    @property
    def _empty(self) -> str:
        shares = f"{self.empty_fraction:.4%} of the voxels are empty (y < {FLOOR:g}) and cause {self.spike_share:.1%}"
        return f"{shares} of the variance of log(y + 1e-8)"

    def lines(self) -> list[str]:
        """The same in words."""
        part = "all cubes" if self.n_checked == self.n_cubes else f"a sample of {self.n_checked} of {self.n_cubes}"
        return [
            f"{part}, every cube again when it is read",
            "voxels from {:.6g} to {:.6g}, ".format(*self.extremes)
            + "means of cubes from {0:.6g} to {2:.6g}".format(*self.means),
            self._empty,
            f"{self.n_clipped} voxels slightly below zero (rounding) are set to 0",
            "jump across the periodic wrap over the jump between neighbours: "
            f"{', '.join(f'{ratio:.2f}' for ratio in self.wrap)} (1 is periodic)",
        ]

    def cautions(self, voxel: float, one_at_a_time: bool = False) -> list[str]:
        """Sentences that a user should be warned with.

        voxel           its side [Mpc/h]
        one_at_a_time   a 1P set, which passes its fiducial universe once a parameter
        """
        low, _, high = self.means
        name = {"delta": "1 + delta", "overdensity": "the overdensity"}.get(self.field_type)
        pairs = ", ".join(f"{a} = {b}" for a, b in self.duplicates[:5])
        wraps = enumerate(zip(self.wrap, self.wrap_to_largest, strict=True))
        open_edges = {axis: mean for axis, (mean, largest) in wraps if mean > NOT_PERIODIC and largest > 1.05}
        found = [
            (self.looks_like,
             f"the numbers look like {self.looks_like}, not like {self.field_type}, and all that follows would be "
             "wrong: undo that, and save the cubes again"),
            (not self.looks_like and self.contrast < LEAST_CONTRAST * min(1, 4 / voxel),
             f"suspicious unit: the standard deviation is {self.contrast:.2g} of the mean, less than matter has in "
             f"voxels of {voxel:.3g} Mpc/h; undo logarithms or scaling, if there are, and save them again"),
            (not self.looks_like and self.contrast > LEAST_CONTRAST and self.skewness < 0.7 * self.contrast,
             f"suspicious unit: the numbers spread to both sides of their mean alike (standard deviation "
             f"{self.contrast:.2g} of it, skewness {self.skewness:.2g}), as logarithms do and matter does not; undo "
             "logarithms or scaling, if there are, and save them again"),
            (self.empty_fraction > EMPTY_LIMIT,
             f"{self._empty}, which a squared error fits first; raise eps (to 1e-3, say), use thicker slices, or a "
             "field that fills the voids"),
            *((True,
               f"edges do not look periodic along axis {axis}: the jump across the wrap is {mean:.2f} times the mean "
               "jump between neighbouring planes, and slices wrap around; use whole periodic boxes")
              for axis, mean in open_edges.items()),
            (self.duplicates and not one_at_a_time,
             f"{len(self.duplicates)} duplicate cubes ({pairs}): a copy in the test part is no test; remove them"),
            (name and not 0.99 < low <= high < 1.01,
             f"suspicious unit: {name} has means from {low:.4g} to {high:.4g}, not 1; check field_type= "
             "(--data.field-type); each cube is divided by its own mean unless normalize=False"),
            (high > 100 * low,
             f"suspicious unit: the means of the cubes differ by a factor of {high / low:.3g}; check that all hold one "
             "field in one unit"),
        ]  # fmt: skip
        return [text for is_so, text in found if is_so]


def check_suite(layout: SuiteFiles, field_type: str | None, mode: str) -> CheckReport:
    """Report on a suite, from the file beside it when nothing has changed, or by reading its cubes.

    mode    "auto" reads every cube of a suite up to 8 GiB and 16 cubes of a larger one; "full", "sample" decide
    """
    sampled = mode == "sample" or (mode == "auto" and layout.n_bytes > FULL_CHECK)
    place = _cache_file(layout)
    keys = [_key(layout, field_type, mode, place) for mode in (("full", "sample") if sampled else ("full",))]
    if report := next(filter(None, (_read_report(place, key) for key in keys)), None):
        return report
    n = min(SAMPLE, layout.n_cubes) if sampled else layout.n_cubes
    report = _measure(layout, field_type, np.linspace(0, layout.n_cubes - 1, n).round().astype(int).tolist())
    try:
        write_atomically(place, json.dumps({"key": keys[-1], "report": asdict(report)}))
    except OSError:  # a read-only folder, or a full disk: the check is repeated in the next process
        _remembered[place, keys[-1]] = report
    return report


def _measure(layout: SuiteFiles, field_type: str | None, chosen: list[int]) -> CheckReport:
    """Read the chosen cubes one after the other."""
    means, ranges, jumps, seen, duplicates = [], [], [], {}, []
    n_clipped, sums = 0, np.zeros((2, 3))  # number, sum, sum of squares of x: of all voxels, of those not empty
    for i in tqdm(chosen, desc="checking cubes", unit="cube", delay=5, leave=False, disable=None):
        where, raw = f"cube {i} of {layout.source}", layout.raw(i)
        field_type = field_type or guess_field_type(raw, where, layout.field_type)
        if i == chosen[0]:
            strange = looks_like(raw, field_type)
        ranges.append((float(raw.min()), float(raw.max())))
        some = hashlib.blake2b(np.ascontiguousarray(raw[:: max(1, len(raw) // 8)]), digest_size=16).digest()
        y, mean, clipped = to_overdensity(raw, field_type, where)
        if i == chosen[0]:
            contrast = float(y.std(dtype=np.float64))
            skewness = float(np.mean(((y - 1) / contrast) ** 3, dtype=np.float64))
        n_clipped += clipped
        sums += _log_sums(y)
        means.append(mean)
        jumps.append([_jumps(y, axis) for axis in layout.axes])
        # planes that are nearly empty may be equal; the mean is of every voxel
        if (same := seen.setdefault((some, mean), i)) != i:
            duplicates.append([same, i])
    low, high = min(a for a, _ in ranges), max(b for _, b in ranges)
    if (low, high) in ((0, 1), (-1, 1)):
        strange = f"numbers scaled to [{low:g}, 1]"
    elif (low, high) == (0, 255) and np.dtype(layout.files[0].dtype).itemsize == 1:
        strange = "grey levels of a picture"
    wrap, inside = np.split(np.maximum(np.mean(jumps, axis=0), np.finfo(np.float64).tiny), [1], axis=1)
    n, total, squares = sums.T
    spread = n * np.maximum(squares / n - (total / n) ** 2, np.finfo(np.float64).tiny)
    return CheckReport(
        field_type=field_type,
        n_checked=len(chosen),
        n_cubes=layout.n_cubes,
        means=[min(means), float(np.mean(means)), max(means)],
        extremes=[low, high],
        empty_fraction=1 - n[1] / n[0],
        spike_share=1 - spread[1] / spread[0],
        n_clipped=n_clipped,
        wrap=(wrap[:, 0] / inside.mean(axis=1)).tolist(),
        wrap_to_largest=(wrap[:, 0] / inside.max(axis=1)).tolist(),
        duplicates=duplicates,
        contrast=contrast,
        skewness=skewness,
        looks_like=strange,
    )


def _jumps(y: np.ndarray, axis: int, n: int = 16) -> np.ndarray:
    """Mean of |a - b| / (a + b) of neighbouring planes a, b: across the wrap, then up to n pairs inside."""
    last = y.shape[axis] - 1
    pairs = [(last, 0), *((i, i + 1) for i in np.unique(np.linspace(0, last - 1, n).round().astype(int)))]
    planes = [(y.take(i, axis), y.take(j, axis)) for i, j in pairs]
    return np.array([np.mean(np.abs(a - b) / (a + b + np.float32(1e-30)), dtype=np.float64) for a, b in planes])


def _log_sums(y: np.ndarray) -> np.ndarray:
    """Number, sum, sum of squares of x = log(y + 1e-8): of all voxels, of those that are not empty."""
    sums = np.zeros((2, 3))
    for plane in y:  # one by one, to save memory
        x = np.log(plane + np.float32(1e-8))
        sums += [[v.size, v.sum(dtype=np.float64), np.square(v).sum(dtype=np.float64)] for v in (x, x[plane >= FLOOR])]
    return sums


def _cache_file(layout: SuiteFiles) -> Path:
    folder = Path(os.path.commonpath([file.path.parent for file in layout.files]))
    return folder / f".{layout.files[0].path.name if len(layout.files) == 1 else 'cubes'}.check.json"


def _key(layout: SuiteFiles, field_type: str | None, mode: str, place: Path) -> str:
    """Digest of what a report depends on: every file's place, size and time, the field type asked for, the mode."""
    files = [
        (os.path.relpath(f.path, place.parent), f.size, f.mtime_ns, f.datasets if isinstance(f, Hdf5File) else "")
        for f in layout.files
    ]
    content = json.dumps([VERSION, field_type, layout.field_type, mode, files])
    return hashlib.sha256(content.encode()).hexdigest()


def _read_report(place: Path, key: str) -> CheckReport | None:
    if (place, key) in _remembered:
        return _remembered[place, key]
    try:
        kept = json.loads(place.read_text(encoding="utf-8"))
        return CheckReport(**kept["report"]) if kept["key"] == key else None
    except (OSError, ValueError, KeyError, TypeError):  # absent, or not ours: the check runs again
        return None
