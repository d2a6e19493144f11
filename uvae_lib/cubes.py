"""Suites of simulated cubes behind one call: `open_cubes(path)` gives overdensities, a box and parameters.

Readers find the files (`readers`), checks refuse what cannot be used and warn of what looks odd (`checks`).
"""

import math
import operator
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import psutil

from .readers import find_layout
from .readers.arrays import CubesError, refusal
from .readers.checks import CheckReport, check_suite, report_cautions
from .readers.field_type import KINDS, guess_kind, to_overdensity
from .readers.layout import ReaderOptions, SuiteFiles

__all__ = ["CubeSuite", "CubesError", "open_cubes", "split_cubes"]


@dataclass(frozen=True, eq=False, repr=False)
class CubeSuite:
    """Cubes on disk: opened lazily, read one at a time, pickled as paths and numbers.

    box_size   [Mpc/h] of the whole cube
    kind       of the file: density | delta | overdensity | counts; overdensity() always gives overdensity
    normalize  each cube is divided by its own mean; see open_cubes
    report     of the check, None when there was none
    cautions   what the user was warned of;  notes  what was found and assumed
    """

    layout: SuiteFiles
    box_size: float
    kind: str
    normalize: bool = True
    report: CheckReport | None = None
    cautions: tuple[str, ...] = ()

    @property
    def n_cubes(self) -> int:
        return len(self.layout.ids)

    @property
    def side(self) -> int:
        return self.layout.files[0].shape[-1]

    @property
    def n_planes(self) -> int:
        """Planes along axis 0: the side for cubes, 15 for ready-made maps."""
        return self.layout.maps_per_cube or self.side

    @property
    def axes(self) -> tuple[int, ...]:
        """Axes along which planes can be cut."""
        return (0,) if self.layout.maps_per_cube else (0, 1, 2)

    @property
    def params(self) -> pd.DataFrame:
        return self.layout.params

    @property
    def format(self) -> str:
        return self.layout.format

    @property
    def source(self) -> str:
        return self.layout.source

    @property
    def notes(self) -> tuple[str, ...]:
        return self.layout.notes

    @property
    def empty_fraction(self) -> float | None:
        """Share of voxels with y < 1e-7, None without a check."""
        return self.report.empty_fraction if self.report else None

    def overdensity(self, i: int) -> np.ndarray:
        """Universe i as y = rho / <rho>: (n_planes, N, N) float32, never negative, mean 1, a fresh array.

        Every cube is checked in full when it is read. Raises CubesError when its numbers cannot be used,
        IndexError when there is no such cube.
        """
        i = self._index(i)
        mean = None if self.normalize else self._common_mean()
        return to_overdensity(self.layout.raw(i), self.kind, f"cube {i} of {self.source}", mean)[0]

    def cube_id(self, i: int) -> str:
        """Name of universe i, the same in every field of a suite: for splits and leak checks."""
        return self.layout.ids[self._index(i)]

    def _index(self, i: int) -> int:
        i = operator.index(i)
        if not 0 <= i < self.n_cubes:
            raise IndexError(f"found cube number {i}; expected 0 to {self.n_cubes - 1}; there are {self.n_cubes} cubes")
        return i

    def _common_mean(self) -> float:
        return self.report.mean if self.kind in ("density", "counts") else 1.0

    def __repr__(self) -> str:
        what = f"{self.n_cubes} x {self.n_planes} maps" if self.layout.maps_per_cube else f"{self.n_cubes} cubes"
        columns = ", ".join(self.params.columns) or "no parameters"
        size = f"{self.side}^2" if self.layout.maps_per_cube else f"{self.side}^3"
        return f"CubeSuite({what} of {size}, {self.box_size:g} Mpc/h, {self.kind}, {columns}; {self.source})"


@dataclass(frozen=True, eq=False, repr=False)
class JoinedSuites(CubeSuite):
    """Several suites, or fields of one, as one: their universes one after the other."""

    parts: tuple[CubeSuite, ...] = ()

    def overdensity(self, i: int) -> np.ndarray:
        """As in CubeSuite."""
        i = self._index(i)
        for part in self.parts:
            if i < part.n_cubes:
                return part.overdensity(i)
            i -= part.n_cubes
        raise IndexError(i)

    @property
    def empty_fraction(self) -> float | None:
        fractions = [part.empty_fraction for part in self.parts]
        if None in fractions:
            return None
        return float(np.average(fractions, weights=[part.n_cubes for part in self.parts]))


def open_cubes(
    path: str | Path | Sequence[str | Path],
    *,
    set_name: str | None = None,
    format: str | None = None,
    kind: str | None = None,
    box_size: float | None = None,
    params=None,
    dataset: str | None = None,
    field: str | None = None,
    normalize: bool = True,
    check: bool | str = True,
    image_size: int | None = None,
) -> CubeSuite:
    """Open simulated cubes of any known layout; nothing is loaded.

    path        a file or a folder; a list of them opens several suites or fields as one: side and box must
                agree, universes follow each other, the parameters are the columns that all of them have
    set_name    which set of a folder (LH, CV, 1P, ...; a Quijote cosmology); LH, latin_hypercube when absent
    format      cmd-grids | cmd-maps | quijote | hdf5 | npy; found by name and content when absent
    kind        density | delta | overdensity | counts; guessed from the numbers of the first cube when absent
    box_size    side of a cube [Mpc/h]; from the files or the suite's documentation when absent
    params      file, array or DataFrame, one row a cube; "none" goes without; None looks beside the cubes
    dataset     of an HDF5 file;  field  of a CAMELS folder (Mcdm when absent), file name in Quijote's folders
    normalize   divide each cube by its own mean. False divides density and counts by the mean of all checked
                cubes, and overdensity and delta by nothing
    check       True reads all cubes once, or 16 of them, evenly spread, where all take more than 8 GiB;
                "full" and "sample" decide, False reads none. The result is kept beside the data, so that it
                is done once: about 30 ms of one core for a cube of 128^3, and the time to read it.
                Every cube is checked in full, once more, when overdensity() reads it.
    image_size  refuse cubes smaller than this [pixels]
    Raises CubesError (a ValueError) when the cubes cannot be used, and warns (UserWarning) of what looks odd.
    """
    options = {
        "request": ReaderOptions(set_name, field, dataset, params), "format": format, "kind": kind,
        "box_size": box_size, "normalize": normalize, "check": check, "image_size": image_size,
    }  # fmt: skip
    suite = _open_one(path, **options) if isinstance(path, str | Path) else _open_several(path, options)
    for caution in suite.cautions:
        warnings.warn(caution, UserWarning, stacklevel=2)
    return suite


def split_cubes(
    n_cubes: int, val_fraction: float, test_fraction: float, seed: int, ids: Sequence[str] | None = None
) -> dict[str, list[int]]:
    """Split cubes, never slices, into train, val and test.

    ids      name of each cube's universe: cubes of one universe (its fields, in joined suites) stay together
    Returns  {"train": [...], "val": [...], "test": [...]}: sorted cube numbers, each in one part, and no part
             empty when there are three universes or more.
    Raises ValueError for fractions that leave nothing to train on.
    """
    if not (0 <= val_fraction < 1 and 0 <= test_fraction < 1 and val_fraction + test_fraction < 1):
        raise ValueError(
            f"found val_fraction={val_fraction} and test_fraction={test_fraction}; expected two numbers from "
            "0 that add up to less than 1; lower them"
        )
    if n_cubes < 1 or (ids is not None and len(ids) != n_cubes):
        found = f"{n_cubes} cubes" + ("" if ids is None else f" and {len(ids)} ids")
        raise ValueError(f"found {found}; expected at least one cube and an id for each; pass all of them")
    labels = list(range(n_cubes)) if ids is None else list(ids)
    universes = list(dict.fromkeys(labels))
    least = int(len(universes) >= 3)
    n_test, n_val = (max(least, round(len(universes) * fraction)) for fraction in (test_fraction, val_fraction))
    while n_test + n_val >= len(universes):  # something is left to train on
        n_test, n_val = (n_test - 1, n_val) if n_test > n_val else (n_test, n_val - 1)
    order = np.random.default_rng(seed).permutation(len(universes))
    parts = dict(zip(("test", "val", "train"), np.split(order, [n_test, n_test + n_val]), strict=True))
    part_of = {universes[u]: name for name, members in parts.items() for u in members}
    return {name: [i for i in range(n_cubes) if part_of[labels[i]] == name] for name in ("train", "val", "test")}


def _open_one(path, request: ReaderOptions, format, kind, box_size, normalize, check, image_size) -> CubeSuite:
    path = Path(path).expanduser()
    if kind is not None and kind not in KINDS:
        raise refusal(f"kind={kind!r}", "an unknown kind", f"one of {', '.join(KINDS)}", "choose one")
    if check not in (True, False, "full", "sample"):
        raise refusal(f"check={check!r}", "an unknown check", 'True, False, "full" or "sample"', "choose one")
    layout = find_layout(path, format, request)
    _check_size(layout, path, image_size)
    box, cautions = _box_size(box_size, layout, path)
    if check is False and not normalize and kind not in ("overdensity", "delta"):
        found, expected = "normalize=False with check=False", "a check, which finds the common mean"
        raise refusal(path, found, expected, "pass check=True")
    report = check_suite(layout, kind, check) if check is not False else None
    if report is not None:
        cautions += report_cautions(report, one_at_a_time="/1P/" in layout.ids[0])
        kind = report.kind
    kind = kind or guess_kind(layout.raw(0), f"cube 0 of {layout.source}", layout.kind)
    return CubeSuite(layout, box, kind, normalize, report, (*layout.cautions, *cautions))


def _open_several(paths, options: dict) -> CubeSuite:
    parts = [_open_one(path, **options) for path in paths]
    if not parts:
        raise refusal("open_cubes", "an empty list of paths", "at least one", "name a file or a folder")
    for part in parts[1:]:
        for name in ("side", "n_planes", "box_size"):
            a, b = getattr(parts[0], name), getattr(part, name)
            if not math.isclose(a, b, rel_tol=1e-6):
                found = f"{name} {a:g} and {b:g} ({parts[0].source}; {part.source})"
                raise refusal("open_cubes", found, f"one {name}", "open these suites one by one")
    if len({part.layout.files for part in parts}) < len(parts):
        raise refusal("open_cubes", "the same cubes twice", "different suites or fields", "name each once")
    columns = [c for c in parts[0].params.columns if all(c in part.params.columns for part in parts)]
    ids = tuple(name for part in parts for name in part.layout.ids)
    cautions = [caution for part in parts for caution in part.cautions]
    if len(set(ids)) < len(ids):
        cautions.append(
            f"{len(ids)} cubes of {len(set(ids))} universes (several fields, or twins): keep the cubes of a "
            "universe in one part with split_cubes(..., ids=[suite.cube_id(i) for i in range(suite.n_cubes)])"
        )
    layout = SuiteFiles(
        format=" + ".join(dict.fromkeys(part.format for part in parts)),
        source=" + ".join(part.source for part in parts),
        files=tuple(file for part in parts for file in part.layout.files),
        ids=ids,
        params=pd.concat([part.params[columns] for part in parts], ignore_index=True),
        box_size=parts[0].layout.box_size,
        box_from=parts[0].layout.box_from,
        maps_per_cube=parts[0].layout.maps_per_cube,
        notes=tuple(dict.fromkeys(note for part in parts for note in part.notes)),
    )
    kinds = " + ".join(dict.fromkeys(part.kind for part in parts))
    return JoinedSuites(layout, parts[0].box_size, kinds, options["normalize"], None, tuple(cautions), tuple(parts))


def _check_size(layout: SuiteFiles, path: Path, image_size: int | None) -> None:
    side = layout.files[0].shape[-1]
    if side < max(2, image_size or 2):
        advice = f"use image_size <= {side}, or larger cubes" if image_size else "give larger cubes"
        raise refusal(path, f"{side} voxels a side", f"at least {image_size or 2}", advice)
    need = 3 * 4 * side**2 * (layout.maps_per_cube or side)
    free = psutil.virtual_memory().available
    if need > free:
        found = f"cubes of {side}^3 that take {need / 2**30:.3g} GiB each to read"
        expected = f"at most the {free / 2**30:.3g} GiB that are free"
        raise refusal(path, found, expected, "cut the cubes, or use a machine with more memory")


def _box_size(given, layout: SuiteFiles, path: Path) -> tuple[float, list[str]]:
    """Box [Mpc/h]: as given, as found, or one Mpc/h a voxel with a warning."""
    side = layout.files[0].shape[-1]
    box = layout.box_size if given is None else given
    if box is None:
        text = f"no box size found for {path}: {side} Mpc/h assumed (1 Mpc/h a voxel); pass box_size= [Mpc/h]"
        return float(side), [text]
    try:
        box = float(box)
    except (TypeError, ValueError):
        box = math.nan
    if not 0 < box < math.inf:
        found = f"a box size of {layout.box_size if given is None else given!r}"
        raise refusal(path, found, "a positive number", "pass box_size= in Mpc/h")
    if not 2 <= box <= 5000:
        unit = "kpc/h" if box > 5000 else "Gpc/h"
        return box, [f"suspicious unit: a box of {box:g} Mpc/h; box_size is in Mpc/h, this looks like {unit}"]
    return box, []
