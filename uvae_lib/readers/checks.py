"""The check of a whole suite: every number read once, what looks odd reported, the report kept.

A check streams through the files one cube at a time and needs the memory of about three cubes. Its report
lies beside the data, keyed by the size and modification time of every file; where nothing can be
written it is kept in memory.
"""

import hashlib
import json
import os
import time
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
VERSION = 2
_remembered: dict[tuple[Path, str], "CheckReport"] = {}  # reports that could not be written beside the data


@dataclass(frozen=True)
class CheckReport:
    """What a check found.

    n_checked        cubes read, of n_cubes
    mean             of the cubes' means, the lowest and the highest of them; minimum, maximum of all voxels
    empty_fraction   share of voxels with y < 1e-7
    spike_share      share of the variance of log(y + 1e-8) that the empty voxels cause
    n_clipped        voxels between -2e-6 and 0, set to 0
    wrap             for each periodic axis: jump across the wrap / mean jump between neighbouring planes
    wrap_to_largest  the same / largest jump between neighbouring planes
    duplicates       pairs of cubes that hold the same numbers
    contrast         standard deviation of y in the first cube;  looks_like: what it is instead of field_type, or ""
    """

    field_type: str
    n_checked: int
    n_cubes: int
    mean: float
    mean_low: float
    mean_high: float
    minimum: float
    maximum: float
    empty_fraction: float
    spike_share: float
    n_clipped: int
    wrap: list[float]
    wrap_to_largest: list[float]
    duplicates: list[list[int]]
    contrast: float
    looks_like: str
    seconds: float

    def lines(self) -> list[str]:
        """The same in words."""
        part = "all cubes" if self.n_checked == self.n_cubes else f"a sample of {self.n_checked} of {self.n_cubes}"
        return [
            f"{part} in {self.seconds:g} s, every cube again when it is read",
            f"voxels from {self.minimum:.6g} to {self.maximum:.6g}, means of cubes from {self.mean_low:.6g} to "
            f"{self.mean_high:.6g}",
            f"{self.empty_fraction:.4%} of the voxels are empty (y < {FLOOR:g}) and cause {self.spike_share:.1%} of "
            "the variance of log(y + 1e-8)",
            f"{self.n_clipped} voxels slightly below zero (rounding) are set to 0",
            "jump across the periodic wrap over the jump between neighbours: "
            f"{', '.join(f'{ratio:.2f}' for ratio in self.wrap)} (1 is periodic)",
        ]


def check_suite(layout: SuiteFiles, field_type: str | None, mode: str) -> CheckReport:
    """Report on a suite, from the file beside it when nothing has changed, or by reading its cubes.

    mode    "auto" reads every cube of a suite up to 8 GiB and 16 cubes of a larger one; "full", "sample" decide
    """
    sampled = mode == "sample" or (mode == "auto" and layout.n_bytes > FULL_CHECK)
    place = _cache_file(layout)
    keys = [_key(layout, field_type, mode, place) for mode in (("full", "sample") if sampled else ("full",))]
    for key in keys:
        report = _read_report(place, key)
        if report is not None:
            return report
    n_cubes = len(layout.ids)
    chosen = np.arange(n_cubes)
    if sampled:
        chosen = np.linspace(0, n_cubes - 1, min(SAMPLE, n_cubes)).round().astype(int)
    report = _measure(layout, field_type, chosen.tolist())
    try:
        write_atomically(place, json.dumps({"key": keys[-1], "report": asdict(report)}))
    except OSError:  # a read-only folder, or a full disk: the check is repeated in the next process
        _remembered[place, keys[-1]] = report
    return report


def report_cautions(report: CheckReport, voxel: float, one_at_a_time: bool = False) -> list[str]:
    """Sentences that a user should be warned with.

    voxel           its side [Mpc/h]
    one_at_a_time   a 1P set, which passes its fiducial universe once a parameter
    """
    cautions = []
    if report.looks_like:
        cautions.append(
            f"the numbers look like {report.looks_like}, not like {report.field_type}, and all that follows would be "
            "wrong: undo that, and save the cubes again"
        )
    elif report.contrast < LEAST_CONTRAST * min(1, 4 / voxel):
        cautions.append(
            f"suspicious unit: the standard deviation is {report.contrast:.2g} of the mean, less than matter has in "
            f"voxels of {voxel:.3g} Mpc/h; undo logarithms or scaling, if there are, and save them again"
        )
    if report.empty_fraction > EMPTY_LIMIT:
        cautions.append(
            f"{report.empty_fraction:.2%} of the voxels are empty (y < {FLOOR:g}) and cause "
            f"{report.spike_share:.0%} of the variance of log(y + 1e-8), which a squared error fits first; "
            "raise eps (to 1e-3, say), use thicker slices, or a field that fills the voids"
        )
    for axis, (mean, largest) in enumerate(zip(report.wrap, report.wrap_to_largest, strict=True)):
        if mean > NOT_PERIODIC and largest > 1.05:
            cautions.append(
                f"edges do not look periodic along axis {axis}: the jump across the wrap is {mean:.2f} times "
                "the mean jump between neighbouring planes, and slices wrap around; use whole periodic boxes"
            )
    if report.duplicates and not one_at_a_time:
        pairs = ", ".join(f"{a} = {b}" for a, b in report.duplicates[:5])
        n = len(report.duplicates)
        cautions.append(f"{n} duplicate cubes ({pairs}): a copy in the test part is no test; remove them")
    if report.field_type in ("overdensity", "delta") and not 0.99 < report.mean_low <= report.mean_high < 1.01:
        name = "1 + delta" if report.field_type == "delta" else "the overdensity"
        cautions.append(
            f"suspicious unit: {name} has means from {report.mean_low:.4g} to {report.mean_high:.4g}, not 1; "
            "check field_type= (--data.field-type); each cube is divided by its own mean unless normalize=False"
        )
    if report.mean_high > 100 * report.mean_low:
        ratio = report.mean_high / report.mean_low
        cautions.append(
            f"suspicious unit: the means of the cubes differ by a factor of {ratio:.3g}; check that all hold "
            "one field in one unit"
        )
    return cautions


def _measure(layout: SuiteFiles, field_type: str | None, chosen: list[int]) -> CheckReport:
    """Read the chosen cubes one after the other."""
    start = time.perf_counter()
    axes = (1, 2) if layout.maps_per_cube else (0, 1, 2)
    means, extremes, jumps, seen, duplicates = [], [], [], {}, []
    n_voxels = n_empty = n_clipped = contrast = 0
    strange = ""
    sums = np.zeros((2, 3))  # number, sum and sum of squares of x: of all voxels, of those that are not empty
    for i in tqdm(chosen, desc="checking cubes", unit="cube", delay=5, leave=False, disable=None):
        where = f"cube {i} of {layout.source}"
        raw = layout.raw(i)
        first = i == chosen[0]
        field_type = field_type or guess_field_type(raw, where, layout.field_type)
        strange = looks_like(raw, field_type) if first else strange
        extremes.append((float(raw.min()), float(raw.max())))
        some = hashlib.blake2b(np.ascontiguousarray(raw[:: max(1, len(raw) // 8)]), digest_size=16).digest()
        y, mean, clipped = to_overdensity(raw, field_type, where)
        fingerprint = some, mean  # planes that are nearly empty may be equal; the mean is of every voxel
        contrast = float(y.std(dtype=np.float64)) if first else contrast
        empty = y < FLOOR
        n_voxels, n_empty, n_clipped = n_voxels + y.size, n_empty + int(empty.sum()), n_clipped + clipped
        sums += _log_sums(y, empty)
        means.append(mean)
        jumps.append([_jumps(y, axis) for axis in axes])
        if fingerprint in seen:
            duplicates.append([seen[fingerprint], i])
        seen.setdefault(fingerprint, i)
    (lowest, _), (_, highest) = min(extremes), max(extremes, key=lambda pair: pair[1])
    if (lowest, highest) in ((0, 1), (-1, 1)):
        strange = f"numbers scaled to [{lowest:g}, 1]"
    elif (lowest, highest) == (0, 255) and np.dtype(layout.files[0].dtype).itemsize == 1:
        strange = "grey levels of a picture"
    wrap, inside = np.split(np.mean(jumps, axis=0), [1], axis=1)
    tiny = np.finfo(np.float64).tiny
    return CheckReport(
        field_type=field_type,
        n_checked=len(chosen),
        n_cubes=len(layout.ids),
        mean=float(np.mean(means)),
        mean_low=min(means),
        mean_high=max(means),
        minimum=lowest,
        maximum=highest,
        empty_fraction=n_empty / n_voxels,
        spike_share=_spike_share(sums),
        n_clipped=n_clipped,
        wrap=(wrap[:, 0] / np.maximum(inside.mean(axis=1), tiny)).tolist(),
        wrap_to_largest=(wrap[:, 0] / np.maximum(inside.max(axis=1), tiny)).tolist(),
        duplicates=duplicates,
        contrast=contrast,
        looks_like=strange,
        seconds=round(time.perf_counter() - start, 2),
    )


def _jumps(y: np.ndarray, axis: int, n: int = 16) -> np.ndarray:
    """Mean of |a - b| / (a + b) of neighbouring planes a, b: across the wrap, then up to n pairs inside."""
    last = y.shape[axis] - 1
    pairs = [(last, 0), *((i, i + 1) for i in np.unique(np.linspace(0, last - 1, n).round().astype(int)))]
    planes = [(y.take(i, axis), y.take(j, axis)) for i, j in pairs]
    return np.array([np.mean(np.abs(a - b) / (a + b + np.float32(1e-30)), dtype=np.float64) for a, b in planes])


def _log_sums(y: np.ndarray, empty: np.ndarray) -> np.ndarray:
    """Number, sum, sum of squares of x = log(y + 1e-8): of all voxels, of those that are not empty."""
    sums = np.zeros((2, 3))
    for start in range(0, len(y), 16):  # slabs, to save memory
        x = np.log(y[start : start + 16] + np.float32(1e-8))
        filled = x[~empty[start : start + 16]]
        sums += [[v.size, v.sum(dtype=np.float64), np.square(v).sum(dtype=np.float64)] for v in (x, filled)]
    return sums


def _spike_share(sums: np.ndarray) -> float:
    (n, total, squares), (n_filled, total_filled, squares_filled) = sums
    variance = squares / n - (total / n) ** 2
    if n_filled == 0 or variance <= 0:
        return 1.0
    filled = squares_filled / n_filled - (total_filled / n_filled) ** 2
    return float(1 - (n_filled / n) * filled / variance)


def _cache_file(layout: SuiteFiles) -> Path:
    if len(layout.files) == 1:
        path = layout.files[0].path
        return path.with_name(f".{path.name}.check.json")
    return Path(os.path.commonpath([file.path.parent for file in layout.files])) / ".cubes.check.json"


def _key(layout: SuiteFiles, field_type: str | None, mode: str, place: Path) -> str:
    """Digest of what a report depends on: every file's place, size and time, the field type asked for, the mode."""
    files = [
        (os.path.relpath(f.path, place.parent), f.size, f.mtime_ns, f.datasets if isinstance(f, Hdf5File) else "")
        for f in layout.files
    ]
    content = json.dumps([VERSION, field_type, layout.field_type, mode, layout.maps_per_cube, files])
    return hashlib.sha256(content.encode()).hexdigest()


def _read_report(place: Path, key: str) -> CheckReport | None:
    if (place, key) in _remembered:
        return _remembered[place, key]
    try:
        kept = json.loads(place.read_text(encoding="utf-8"))
        return CheckReport(**kept["report"]) if kept["key"] == key else None
    except (OSError, ValueError, KeyError, TypeError):  # absent, or not ours: the check runs again
        return None
