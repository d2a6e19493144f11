"""What readers share: the SuiteFiles they return, the choice among several, and listings of folders."""

import math
import operator
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from .arrays import HDF5_MAGIC, NPY_MAGIC, NPZ_MAGIC, ArrayFile, open_hdf5, open_npy, open_npz, refusal, stacked

FORMATS = {"npy": (".npy", ".npz"), "hdf5": (".hdf5", ".h5", ".hdf", ".he5")}  # spelt in small or capital letters


@dataclass(frozen=True, eq=False)
class SuiteFiles:
    """Where the cubes of one suite lie; nothing of their content is read yet.

    files        stacks of cubes (n, N, N, N), or of ready-made maps (n, planes, N, N)
    ids          a name for each universe, the same in every field of a suite
    box_size     [Mpc/h], None when nothing tells
    box_from     what told it
    box_caution  what to warn of with it
    notes        what was found and assumed
    cautions     what the user should be warned of
    """

    format: str
    source: str
    files: tuple[ArrayFile, ...]
    ids: tuple[str, ...]
    params: pd.DataFrame
    box_size: float | None = None
    box_from: str = ""
    box_caution: str = ""
    field_type: str | None = None
    notes: Sequence[str] = ()
    cautions: Sequence[str] = ()

    @property
    def n_planes(self) -> int:
        """Planes along axis 0: the side for cubes, 15 for ready-made maps."""
        return self.files[0].shape[1]

    @property
    def axes(self) -> tuple[int, ...]:
        """Axes along which planes can be cut."""
        return (0, 1, 2) if self.n_planes == self.side else (0,)

    @property
    def n_cubes(self) -> int:
        """Cubes, or universes of maps."""
        return len(self.ids)

    @property
    def side(self) -> int:
        """Voxels along an edge."""
        return self.files[0].shape[-1]

    @property
    def n_bytes(self) -> int:
        """Bytes of all cubes as they are stored."""
        return sum(math.prod(file.shape) * np.dtype(file.dtype).itemsize for file in self.files)

    def raw(self, i: int) -> np.ndarray:
        """Cube i, or the maps of universe i, as stored: (planes, N, N), a fresh array."""
        file, number = self.place(i)
        return file.read(number)

    def place(self, i: int) -> tuple[ArrayFile, int]:
        """The file of cube i, and its number there."""
        number = operator.index(i)
        if not 0 <= number < self.n_cubes:
            raise IndexError(f"found cube number {i}; expected 0 to {self.n_cubes - 1}; there are {self.n_cubes} cubes")
        for file in self.files:
            if number < file.shape[0]:
                break
            number -= file.shape[0]
        return file, number


@dataclass(frozen=True)
class ReaderOptions:
    """What the caller of open_cubes asked of a reader."""

    set_name: str | None = None
    field: str | None = None
    dataset: str | None = None
    params: object = None


@dataclass
class Remarks:
    """What a reader has to say: notes on what it found and assumed, cautions to warn of."""

    notes: list[str] = field(default_factory=list)
    cautions: list[str] = field(default_factory=list)


def choose(folder: Path, key: str, values: list[str], wanted: str | None, usual: Iterable[str], remarks: Remarks):
    """The value asked for, or the first usual one that is there, or the only one; a note names the others.

    Raises CubesError when the one asked for is not there, or several are and none is usual.
    """
    option = {"set": "set_name=", "field": "field="}.get(key)
    advice = (
        f"pass {option} one of these (--data.{option[:-1].replace('_', '-')})" if option else "name the file itself"
    )
    chosen = wanted or next((value for value in usual if value in values), None) or (values[0] if values else None)
    if (wanted or len(values) > 1) and chosen not in (values if wanted else usual):
        expected = f"{key} {wanted!r}" if wanted else f"one {key}"
        raise refusal(folder, f"{key} {', '.join(values[:12]) or 'none'}", expected, advice)
    if len(values) > 1 and not wanted:
        remarks.notes.append(f"{key} {chosen} of {', '.join(values[:12])}; for another {advice}")
    return chosen


def format_of(path: Path) -> str | None:
    """npy or hdf5, by the first bytes of a file, then by its name; None for another file."""
    with open(path, "rb") as file:
        start = file.read(len(HDF5_MAGIC))
    if start == HDF5_MAGIC:
        return "hdf5"
    if start.startswith(NPY_MAGIC) or (start.startswith(NPZ_MAGIC) and path.suffix.lower() == ".npz"):
        return "npy"
    return next((name for name, suffixes in FORMATS.items() if path.suffix.lower() in suffixes), None)


def open_cubes_of(path: Path, dataset: str | None, format: str | None = None) -> ArrayFile:
    """A file of one cube or of a stack, `.npy`, `.npz` or HDF5.

    Raises CubesError when it cannot be used, NoCubes when it is whole and holds something else.
    """
    if (format or format_of(path)) == "hdf5":
        return open_hdf5(path, dataset)
    return stacked(open_npz(path, dataset) if path.suffix.lower() == ".npz" else open_npy(path))


def check_sides(files: Iterable[ArrayFile]) -> None:
    """Raise CubesError when the cubes differ in size."""
    sides = {file.shape[-1]: file.path for file in files}
    if len(sides) > 1:
        found = ", ".join(f"side {side} in {path.name}" for side, path in sorted(sides.items())[:4])
        advice = "open each size by itself, or move the others away"
        raise refusal(next(iter(sides.values())).parent, f"cubes of several sizes: {found}", "one side", advice)


def files_in(folder: Path) -> list[Path]:
    """Files of a folder, sorted, hidden ones left out. Raises CubesError when it cannot be listed."""
    return _entries(folder, Path.is_file)


def folders_in(folder: Path) -> list[Path]:
    """Folders of a folder that can be listed, likewise."""
    return _entries(folder, lambda path: path.is_dir() and os.access(path, os.R_OK | os.X_OK))


def _entries(folder: Path, wanted: Callable[[Path], bool]) -> list[Path]:
    try:
        return sorted(p for p in folder.iterdir() if not p.name.startswith(".") and wanted(p))
    except OSError as error:
        found = f"a folder that cannot be read ({error.strerror})"
        raise refusal(folder, found, "a readable folder", "chmod u+rx it, or ask its owner") from error


def files_below(folder: Path, depth: int = 3) -> list[Path]:
    """Files of a folder and the folders below; a folder met twice, as in a loop of links, counts once."""
    met, level, files = {}, [folder], []
    for _ in range(depth + 1):
        fresh = {place.resolve(): place for place in level if place.resolve() not in met}
        met |= fresh
        files += [file for place in fresh.values() for file in files_in(place)]
        level = [below for place in fresh.values() for below in folders_in(place)]
    return files
