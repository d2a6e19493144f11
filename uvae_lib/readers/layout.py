"""What readers share: the SuiteFiles they return, listings of folders, and checks of shapes and tables."""

import math
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from . import parameters
from .arrays import ArrayFile, open_hdf5, open_npy, refusal

HDF5_SUFFIXES = (".hdf5", ".h5", ".hdf")


@dataclass(frozen=True)
class SuiteFiles:
    """Where the cubes of one suite lie; nothing of their content is read yet.

    files           arrays (n, N, N, N), or (n * maps_per_cube, N, N) for ready-made maps
    ids             a name for each universe, the same in every field of a suite
    box_size        [Mpc/h], None when nothing tells;  box_from  says what told
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
        per_cube = self.maps_per_cube or 1
        for file in self.files:
            n_cubes = file.shape[0] // per_cube
            if i < n_cubes:
                block = file.read(i * per_cube, per_cube)
                return block if self.maps_per_cube else block[0]
            i -= n_cubes
        raise IndexError("no such cube")


@dataclass(frozen=True)
class ReaderOptions:
    """What the caller of open_cubes asked of a reader."""

    set_name: str | None = None
    field: str | None = None
    dataset: str | None = None
    params: object = None


def choose(
    folder: Path, key: str, values: list[str], wanted: str | None, usual: Iterable[str], notes: list[str]
) -> str | None:
    """The value asked for, or the first usual one that is there, or the only one; a note names the others.

    Raises CubesError when the one asked for is not there, or several are and none is usual.
    """
    argument = {"set": "set_name", "field": "field"}.get(key)
    listing = ", ".join(values[:12])
    if wanted is not None and wanted not in values:
        raise refusal(folder, f"{key} {listing or 'none'}", f"{key} {wanted!r}", f"pass {argument}= one of these")
    chosen = wanted or next((value for value in usual if value in values), None)
    if chosen is None and len(values) > 1:
        advice = f"pass {argument}=, or name the file itself" if argument else "name the file itself"
        raise refusal(folder, f"{key} {listing}", f"one {key}", advice)
    chosen = chosen or (values[0] if values else None)
    if len(values) > 1 and wanted is None:
        notes.append(f"{key} {chosen} of {listing}" + (f"; pass {argument}= for another" if argument else ""))
    return chosen


def parameter_table(source, names: tuple[str, ...], rows, notes: list[str], usual: str) -> pd.DataFrame:
    """Parameters from a file, an array or a DataFrame; without columns for "none" or when nothing was found.

    rows    how many cubes, or the row of each cube;  usual  the file name to say when none was found
    """
    count = rows if isinstance(rows, int) else len(rows)
    if isinstance(source, str) and source == "none":
        return pd.DataFrame(index=range(count))
    if source is None:
        notes.append(f"no parameters found ({usual}); probes of z need them")
        return pd.DataFrame(index=range(count))
    table = parameters.read_parameters(source, names)
    where = source if isinstance(source, str | Path) else "params"
    notes.append(f"parameters from {where}" if where != "params" else "parameters as given")
    return parameters.match_rows(table, rows, where)


def open_cubes_of(path: Path, dataset: str | None, format: str | None = None) -> ArrayFile:
    """A file of one cube or of a stack, `.npy` or HDF5. Raises CubesError when it holds no cubes."""
    hdf5 = format == "hdf5" or (format is None and path.name.endswith(HDF5_SUFFIXES))
    file = open_hdf5(path, dataset) if hdf5 else open_npy(path)
    check_stack(path, file.shape, 0)
    return file


def check_stack(path: Path, shape: tuple[int, ...], maps: int) -> int:
    """Number of universes in a stack of cubes, or of square maps. Raises CubesError for any other shape."""
    if maps:
        if len(shape) != 3 or shape[1] != shape[2] or shape[0] % maps:
            expected = f"(n, N, N) with n a multiple of {maps}"
            raise refusal(path, f"shape {shape}", expected, "pass format= if these are not CAMELS maps")
        return shape[0] // maps
    if len(shape) != 4 or len(set(shape[1:])) != 1:
        shown = shape[1:] if len(shape) == 4 and shape[0] == 1 else shape
        advice = "cut or reshape the array to cubes" if len(shape) >= 3 else "give 3D cubes"
        raise refusal(path, f"an array of shape {shown}", "cubes: (N, N, N) or (n, N, N, N)", advice)
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
