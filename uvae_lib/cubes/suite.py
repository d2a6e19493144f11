"""Suites of simulated cubes behind one call: `open_cubes(path)` gives overdensities, a box and parameters.

Readers find the files (`readers`), checks refuse what cannot be used and warn of what looks odd (`checks`).
"""

import hashlib
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import psutil

from ..presets import DataConfig, locate
from .arrays import CubesError, refusal
from .checks import CheckReport, check_suite
from .field_type import FIELD_TYPES, guess_field_type, to_overdensity
from .find import find_layout
from .layout import ReaderOptions, SuiteFiles

__all__ = ["CubeSuite", "CubesError", "fit_image_size", "open_cubes", "open_data", "split_cubes"]
IMAGE_SIZES = (32, 64, 128, 256, 512)  # that the networks take [pixels]
CHECKS = ("none", "auto", "full", "sample")
OPTIONS = ("set_name", "format", "field_type", "box_size", "params", "dataset", "field", "normalize", "check")


@dataclass(frozen=True, eq=False, repr=False)
class CubeSuite(SuiteFiles):
    """Cubes on disk: opened lazily, read one at a time, pickled as paths and numbers.

    box_size    [Mpc/h] of the whole cube
    box_from    what told it, or that it was assumed
    field_type  of the file: density | delta | overdensity | counts; overdensity() always gives overdensity
    cautions    what the user was warned of
    notes       what was found and assumed
    normalize   each cube is divided by its own mean; see open_cubes
    report      of the check, None when there was none
    """

    normalize: bool = True
    report: CheckReport | None = None

    @property
    def varying(self) -> list[str]:
        """The parameters that differ between cubes: of the others nothing can be learned."""
        return [name for name, v in self.params.items() if v.max() - v.min() > 1e-9 * v.abs().max()]

    def overdensity(self, i: int) -> np.ndarray:
        """Universe i as y = rho / <rho>: (n_planes, N, N) float32, never negative, mean 1, a fresh array.

        Every cube is checked in full when it is read. Raises CubesError when its numbers cannot be used,
        IndexError when there is no such cube.
        """
        common = self.report.means[1] if self.report and self.field_type in ("density", "counts") else 1.0
        mean = None if self.normalize else common
        return to_overdensity(self.raw(i), self.field_type, f"cube {i} of {self.source}", mean)[0]

    @cached_property
    def fingerprint(self) -> dict[str, str]:
        """Digests of the cubes (sizes, and a few rows of each) and of the parameters, wherever the files lie."""
        sizes = f"{self.n_cubes} {self.n_planes} {self.side} {self.box_size:.6g}"
        cubes = hashlib.blake2b(sizes.encode(), digest_size=8)
        for file, number in map(self.place, range(self.n_cubes)):
            cubes.update(np.ascontiguousarray(file.sample(number), "<f4").tobytes())
        table = self.params.to_csv(index=False, float_format="%.9g")
        parameters = hashlib.blake2b(table.encode(), digest_size=8)
        return {"cubes": cubes.hexdigest(), "parameters": parameters.hexdigest()}

    def cube_id(self, i: int) -> str:
        """Name of universe i, the same in every field of a suite: for splits and leak checks."""
        self.place(i)
        return self.ids[i]

    def describe(self) -> str:
        """A page of text: contents, assumptions, what the check found, memory for training, warnings."""
        same = set(self.params) - set(self.varying)
        ranges = [f"{n:<12} {v.min():.6g} to {v.max():.6g}" + ", the same in every cube" * (n in same)
                  for n, v in self.params.items()]  # fmt: skip
        found = [
            self.source,
            f"format {self.format}: {self._shape}, {_size(self.n_bytes)} in {len(self.files)} files",
            f"box of {self.box_size:g} Mpc/h, {self.box_size / self.side:.4g} Mpc/h a voxel",
            *(ranges or ["no parameters"]),
        ]
        division = "each cube is divided by its own mean"
        if not self.normalize:
            division = "density and counts are divided by the mean of all cubes, overdensity and delta by nothing"
        each, free = self.n_planes * self.side**2 * 4, psutil.virtual_memory().available
        size = largest_image_size(self.side)
        fits = f"slices of up to {size}^2 pixels fit (data.image_size={size})"
        sections = {
            "Found": found,
            "Assumed": [f"box of {self.box_size:g} Mpc/h {self.box_from}", *self.notes,
                        f"field type {self.field_type}; {division}"],
            "Check": self.report.lines() if self.report else ["none; every cube is checked when it is read"],
            "Training": [
                fits if size else f"slices do not fit: the smallest have {IMAGE_SIZES[0]}^2 pixels",
                f"cubes as float32: {_size(each * self.n_cubes)} for all, {_size(each)} each; {_size(free)} of memory "
                "are free (a training takes 40 % of it for cubes, holds as many as fit, and exchanges them)"],
            "Warnings": self.cautions or ["none"],
        }  # fmt: skip
        return "\n\n".join("\n".join([title, *(f"  {x}" for x in lines)]) for title, lines in sections.items()) + "\n"

    @property
    def _shape(self) -> str:
        if self.n_planes == self.side:
            return f"{self.n_cubes} cubes of {self.side}^3 voxels"
        return f"{self.n_cubes} universes of {self.n_planes} maps of {self.side}^2 pixels"

    def __repr__(self) -> str:
        columns = ", ".join(self.params.columns) or "no parameters"
        return f"CubeSuite({self._shape}, {self.box_size:g} Mpc/h, {self.field_type}, {columns}; {self.source})"


def open_cubes(
    path: str | Path,
    *,
    set_name: str | None = None,
    format: str | None = None,
    field_type: str | None = None,
    box_size: float | None = None,
    params=None,
    dataset: str | None = None,
    field: str | None = None,
    normalize: bool = True,
    check: bool | str = "auto",
) -> CubeSuite:
    """Open simulated cubes of any known layout; nothing is loaded.

    path        a file or a folder
    set_name    which set of a folder (LH, CV, 1P, ...; a Quijote cosmology); LH, latin_hypercube when absent
    format      cmd-grids | cmd-maps | quijote | hdf5 | npy; found by name and content when absent
    field_type  density | delta | overdensity | counts; guessed from the numbers of the first cube when absent
    box_size    side of a cube [Mpc/h]; from the files or the suite's documentation when absent
    params      file, array, dict or DataFrame, one row a cube; "none" goes without; None looks beside the cubes
    dataset     of an HDF5 file
    field       of a CAMELS folder (Mcdm when absent), file name in Quijote's folders
    normalize   divide each cube by its own mean. False divides density and counts by the mean of all checked
                cubes, and overdensity and delta by nothing
    check       "auto" (or True) reads all cubes once, or 16 of them, evenly spread, where all take more than
                8 GiB; "full" and "sample" decide, "none" (or False) reads none. The result is kept beside the
                data, so that it is done once. Every cube is checked in full, once more, when overdensity() reads it.
    Raises CubesError (a ValueError) when the cubes cannot be used, and warns (UserWarning) of what looks odd.
    """
    check = {True: "auto", False: "none"}.get(check, check)
    if not isinstance(path, str | Path):
        raise refusal("open_cubes", f"{type(path).__name__} as the path", "one file or folder", "open each by itself")
    for name, value, known in (("field_type", field_type, (None, *FIELD_TYPES)), ("check", check, CHECKS)):
        if value not in known:
            raise refusal(f"{name}={value!r}", f"an unknown {name}", f"one of {', '.join(known[1:])}", "choose one")
    if check == "none" and not normalize and field_type not in ("overdensity", "delta"):
        found, expected = "normalize=False without a check", "a check, which finds the common mean"
        raise refusal(path, found, expected, 'pass check="full"')
    path = Path(path).expanduser()
    layout = find_layout(path, format, ReaderOptions(set_name, field, dataset, params))
    _check_size(layout, path)
    box, box_from, cautions = _box_size(box_size, layout, path)
    report = check_suite(layout, field_type, check) if check != "none" else None
    if report is not None:
        cautions += report.cautions(box / layout.side, one_at_a_time="/1P/" in layout.ids[0])
        field_type = report.field_type
    found = {
        "box_size": box,
        "box_from": box_from,
        "field_type": field_type or guess_field_type(layout.raw(0), f"cube 0 of {layout.source}", layout.field_type),
        "cautions": (*layout.cautions, *cautions),
    }
    suite = CubeSuite(**vars(layout) | found, normalize=normalize, report=report)
    for caution in suite.cautions:
        warnings.warn(caution, UserWarning, stacklevel=2)
    return suite


def open_data(data: DataConfig, set_name: str | None = None) -> CubeSuite:
    """The cubes of a configuration, with all its options: for commands, notebooks and stored runs alike.

    set_name   another set beside the one of the configuration, to which its parameter file does not belong
    Raises CubesError, and warns, as `open_cubes` does.
    """
    options = {name: getattr(data, name) for name in OPTIONS}
    if data.params not in (None, "none"):
        options["params"] = locate(data.params)
    if set_name not in (None, data.set_name):
        options |= {"set_name": set_name, "params": None}
    return open_cubes(locate(data.path), **options)


def fit_image_size(data: DataConfig, suite: CubeSuite) -> DataConfig:
    """The configuration with slices that fit the cubes: of the largest allowed size, said where that is smaller.

    Raises CubesError for cubes of fewer voxels than the smallest slice.
    """
    if data.image_size <= suite.side:
        return data
    if (size := largest_image_size(suite.side)) is None:
        expected = f"at least {IMAGE_SIZES[0]}, the smallest slice"
        raise refusal(suite.source, f"{suite.side} voxels a side", expected, "give larger cubes")
    text = f"cubes of {suite.side}^3 are smaller than slices of {data.image_size}^2: slices of {size}^2 are cut"
    warnings.warn(f"{text} (data.image_size={size})", UserWarning, stacklevel=2)
    return replace(data, image_size=size)


def largest_image_size(side: int) -> int | None:
    """The largest slice [pixels] that the networks take and cubes of this side hold, None when there is none."""
    return max((size for size in IMAGE_SIZES if size <= side), default=None)


def split_cubes(
    n_cubes: int, val_fraction: float, test_fraction: float, seed: int, ids: Sequence[str] | None = None
) -> dict[str, list[int]]:
    """Split cubes, never slices, into train, val and test.

    ids      name of each cube's universe: cubes of one universe (its fields, in joined suites) stay together
    Returns  {"train": [...], "val": [...], "test": [...]}: sorted cube numbers, each in one part, and no part
             empty when there are three universes or more.
    Raises ValueError for fractions that leave nothing to train on.
    """
    labels = list(range(n_cubes) if ids is None else ids)
    fits = 0 <= val_fraction < 1 and 0 <= test_fraction < 1 and val_fraction + test_fraction < 1
    if not fits or not labels or len(labels) != n_cubes:
        raise ValueError(
            f"found {n_cubes} cubes, {len(labels)} ids, val_fraction={val_fraction} and test_fraction={test_fraction}; "
            "expected a cube or more, an id for each, and two fractions from 0 that add up to less than 1; correct them"
        )
    universes = list(dict.fromkeys(labels))
    least = int(len(universes) >= 3)
    n_test, n_val = (max(least, round(len(universes) * fraction)) for fraction in (test_fraction, val_fraction))
    while n_test + n_val >= len(universes):  # something is left to train on
        n_test, n_val = (n_test - 1, n_val) if n_test > n_val else (n_test, n_val - 1)
    order = np.random.default_rng(seed).permutation(len(universes))
    parts = dict(zip(("test", "val", "train"), np.split(order, [n_test, n_test + n_val]), strict=True))
    part_of = {universes[u]: name for name, members in parts.items() for u in members}
    return {name: [i for i in range(n_cubes) if part_of[labels[i]] == name] for name in ("train", "val", "test")}


def _check_size(layout: SuiteFiles, path: Path) -> None:
    """Raise CubesError for cubes of one voxel, or larger than the memory."""
    if layout.side < 2:
        raise refusal(path, f"{layout.side} voxels a side", "at least 2", "give larger cubes")
    need, free = 3 * 4 * layout.side**2 * layout.n_planes, psutil.virtual_memory().available
    if need > free:
        found, expected = f"cubes that take {_size(need)} each to read", f"at most the {_size(free)} that are free"
        raise refusal(path, found, expected, "cut the cubes, or use a machine with more memory")


def _box_size(given, layout: SuiteFiles, path: Path) -> tuple[float, str, list[str]]:
    """Box [Mpc/h], what told it, and what to warn of: as given, as found, or one Mpc/h a voxel with a warning."""
    box, told = (layout.box_size, layout.box_from) if given is None else (given, "as given")
    if box is None:
        text = f"no box size found for {path}: {layout.side} Mpc/h assumed (1 Mpc/h a voxel)"
        return float(layout.side), "assumed, 1 Mpc/h a voxel", [f"{text}; pass box_size= (--data.box-size) [Mpc/h]"]
    if not isinstance(box, int | float | np.number) or not 0 < box < math.inf:
        raise refusal(path, f"a box size of {box!r}", "a positive number", "pass box_size= in Mpc/h (--data.box-size)")
    if not 2 <= box <= 5000:
        unit = "kpc/h" if box > 5000 else "Gpc/h"
        return box, told, [f"suspicious unit: a box of {box:g} Mpc/h; box_size is in Mpc/h, this looks like {unit}"]
    return float(box), told, [layout.box_caution] if given is None and layout.box_caution else []


def _size(n_bytes: float) -> str:
    unit, scale = ("GiB", 2**30) if n_bytes >= 2**30 else ("MiB", 2**20)
    return f"{n_bytes / scale:.3g} {unit}"
