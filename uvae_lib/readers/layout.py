"""What readers share: the SuiteFiles they return, listings of folders, and checks of shapes."""

import math
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from .arrays import (
    HDF5_MAGIC,
    NPY_MAGIC,
    NPZ_MAGIC,
    ArrayFile,
    is_stack,
    open_hdf5,
    open_npy,
    open_npz,
    refusal,
    regular_file,
)

FORMATS = {"npy": (".npy", ".npz"), "hdf5": (".hdf5", ".h5", ".hdf", ".he5")}  # spelt in small or capital letters


@dataclass(frozen=True)
class SuiteFiles:
    """Where the cubes of one suite lie; nothing of their content is read yet.

    files           arrays (n, N, N, N), or (n * maps_per_cube, N, N) for ready-made maps
    ids             a name for each universe, the same in every field of a suite
    box_size        [Mpc/h], None when nothing tells;  box_from  says what told;  box_caution  what to warn of with it
    maps_per_cube   0 for 3D cubes
    notes           what was found and assumed;  cautions  what the user should be warned of
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
    maps_per_cube: int = 0
    notes: tuple[str, ...] = ()
    cautions: tuple[str, ...] = ()

    @property
    def n_bytes(self) -> int:
        """Bytes of all cubes as they are stored."""
        return sum(math.prod(file.shape) * np.dtype(file.dtype).itemsize for file in self.files)

    def raw(self, i: int) -> np.ndarray:
        """Cube i, or the maps of universe i, as stored: (planes, N, N), a fresh array."""
        file, i, per_cube = *self._file_of(i), self.maps_per_cube or 1
        block = file.read(i * per_cube, per_cube)
        return block if self.maps_per_cube else block[0]

    def sample(self, i: int) -> np.ndarray:
        """A few rows of cube i, or of the maps of universe i, as stored: (n,), read without the rest."""
        file, i, per_cube = *self._file_of(i), self.maps_per_cube or 1
        return np.concatenate([file.sample(block) for block in range(i * per_cube, (i + 1) * per_cube)])

    def _file_of(self, i: int) -> tuple[ArrayFile, int]:
        """The file of cube i, and its number there."""
        for file in self.files:
            n_cubes = file.shape[0] // (self.maps_per_cube or 1)
            if i < n_cubes:
                return file, i
            i -= n_cubes
        raise IndexError("no such cube")


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


def choose(
    folder: Path, key: str, values: list[str], wanted: str | None, usual: Iterable[str], notes: list[str]
) -> str | None:
    """The value asked for, or the first usual one that is there, or the only one; a note names the others.

    Raises CubesError when the one asked for is not there, or several are and none is usual.
    """
    option = {"set": "set_name=", "field": "field="}.get(key)
    flag = option and f" (--data.{option[:-1].replace('_', '-')})"
    listing = ", ".join(values[:12])
    if wanted is not None and wanted not in values:
        raise refusal(folder, f"{key} {listing or 'none'}", f"{key} {wanted!r}", f"pass {option} one of these{flag}")
    chosen = wanted or next((value for value in usual if value in values), None)
    if chosen is None and len(values) > 1:
        advice = f"pass {option}{flag}, or name the file itself" if option else "name the file itself"
        raise refusal(folder, f"{key} {listing}", f"one {key}", advice)
    chosen = chosen or (values[0] if values else None)
    if len(values) > 1 and wanted is None:
        notes.append(f"{key} {chosen} of {listing}" + (f"; pass {option} for another{flag}" if option else ""))
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


def is_array(path: Path) -> bool:
    """Whether a file is called as files of arrays are."""
    return path.suffix.lower() in (*FORMATS["npy"], *FORMATS["hdf5"])


def open_cubes_of(path: Path, dataset: str | None, format: str | None = None) -> ArrayFile:
    """A file of one cube or of a stack, `.npy`, `.npz` or HDF5.

    Raises CubesError when it cannot be used, NoCubes when it is whole and holds something else.
    """
    regular_file(path)
    if (format or format_of(path)) == "hdf5":
        file = open_hdf5(path, dataset)
    else:
        file = open_npz(path, dataset) if path.suffix.lower() == ".npz" else open_npy(path)
    check_stack(path, file.shape, 0)
    return file


def check_stack(path: Path, shape: tuple[int, ...], maps: int) -> int:
    """Number of universes in a stack of cubes, or of square maps. Raises CubesError for any other shape."""
    if maps:
        if len(shape) != 3 or shape[1] != shape[2] or shape[0] % maps:
            expected = f"(n, N, N) with n a multiple of {maps}"
            advice = "pass format= (--data.format) if these are not CAMELS maps"
            raise refusal(path, f"shape {shape}", expected, advice)
        return shape[0] // maps
    if not is_stack(shape):
        shown = shape[1:] if len(shape) == 4 and shape[0] == 1 else shape
        raise refusal(
            path, f"an array of shape {shown}", "cubes: (N, N, N) or (n, N, N, N)", "cut or reshape it to cubes"
        )
    return shape[0]


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


def files_below(folder: Path, depth: int) -> list[Path]:
    """Files of a folder and the folders below; a folder met twice, as in a loop of links, counts once."""
    met, level, files = set(), [folder], []
    for _ in range(depth + 1):
        fresh = []
        for place in level:
            status = place.stat()
            if (status.st_dev, status.st_ino) not in met:
                met.add((status.st_dev, status.st_ino))
                fresh.append(place)
        files += [file for place in fresh for file in files_in(place)]
        level = [below for place in fresh for below in folders_in(place)]
    return files
