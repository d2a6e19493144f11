"""Array files that are not trusted: header checked, nothing unpickled, one cube read at a time.

Cubes are read with plain reads, not through a memory map. The resident set stays at one cube, a suite pickles
as a path and a few numbers, and a file that shrinks under the reader gives a sentence: a memory map would end
the process with SIGBUS.
"""

import math
import os
import re
import stat
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from tokenize import TokenError

import h5py
import numpy as np

try:
    import hdf5plugin  # noqa: F401  the compression filters that it brings, where it is installed
except ImportError:
    pass

NUMERIC = "fiu"  # kinds of numpy dtype that can hold a density
# what h5py raises for damaged files
HDF5_ERRORS = (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError, OverflowError)
# what NumPy raises for damaged headers
NPY_ERRORS = (ValueError, KeyError, TypeError, SyntaxError, TokenError, EOFError, OverflowError, RecursionError)
NPY_MAGIC, NPZ_MAGIC, HDF5_MAGIC = b"\x93NUMPY", b"PK\x03\x04", b"\x89HDF\r\n\x1a\n"


class CubesError(ValueError):
    """Cubes that cannot be used. The message says what was found, what was expected and what to do."""


class CubesMissing(CubesError, FileNotFoundError):
    """The same, for a path that does not exist."""

    __str__ = Exception.__str__


class NoCubes(CubesError):
    """The same, for a whole file of something else: a table, a catalogue. Beside cubes it is passed over."""


def refusal(where: object, found: str, expected: str, advice: str, error: type[CubesError] = CubesError) -> CubesError:
    """The one form of every refusal: "<where>: found ...; expected ...; <what to do>"."""
    return error(f"{where}: found {found}; expected {expected}; {advice}")


def natural(text: object) -> list:
    """Key that sorts cube_9 before cube_10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", str(text))]


@dataclass(frozen=True)
class NpyFile:
    """A stack of equal blocks in a `.npy` file, or in an uncompressed `.npz` archive.

    shape    (n, planes, N, N) of the stack
    offset   first byte of the data
    fortran  order of the axes within the only block
    size     [bytes] of the file when it was opened, as is mtime_ns
    """

    path: Path
    shape: tuple[int, ...]
    dtype: str
    offset: int
    fortran: bool
    size: int
    mtime_ns: int

    def read(self, i: int) -> np.ndarray:
        """Block i (planes, N, N), a fresh array in the file's dtype. Raises CubesError when the file changed."""
        n = math.prod(self.shape[1:])
        values = np.fromfile(self.path, self.dtype, n, offset=self.offset + i * n * np.dtype(self.dtype).itemsize)
        _refuse_change(self)
        return values.reshape(self.shape[1:], order="F" if self.fortran else "C")

    def sample(self, i: int) -> np.ndarray:
        """A few rows of block i, by which it is known again."""
        order = "F" if self.fortran else "C"
        block = np.memmap(self.path, self.dtype, "r", self.offset, self.shape, order)[i]
        return np.concatenate([block[row] for row in _rows(block.shape)])


@dataclass(frozen=True)
class Hdf5File:
    """A stack of equal blocks in an HDF5 file; see NpyFile.

    datasets  one with a stack or a single cube, or one for each cube
    box_size  [Mpc/h] in attributes or data sets beside the cubes
    """

    path: Path
    datasets: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    box_size: float | None
    size: int
    mtime_ns: int

    def read(self, i: int) -> np.ndarray:
        """Block i, as in NpyFile. Raises CubesError when the file changed or is damaged."""
        return self._parts(i, [()])[0]

    def sample(self, i: int) -> np.ndarray:
        """A few rows of block i, by which it is known again."""
        return np.concatenate(self._parts(i, _rows(self.shape[1:])))

    def _parts(self, i: int, places: list[tuple[int, ...]]) -> list[np.ndarray]:
        """What lies at some first indices of block i; axes of length one are left out."""
        _refuse_change(self)
        several = len(self.datasets) > 1
        try:
            with h5py.File(self.path, "r") as file:
                dataset = file[self.datasets[i if several else 0]]
                head, long = () if several or self.shape[0] == 1 else (i,), [n > 1 for n in dataset.shape]
                indices = [iter((*head, *place, *[slice(None)] * 3)) for place in places]
                return [dataset[tuple(next(index) if n else 0 for n in long)] for index in indices]
        except HDF5_ERRORS as error:
            raise _hdf5_refusal(self.path, error, f"unreadable data in {self.datasets[0]}") from error


ArrayFile = NpyFile | Hdf5File


def _rows(shape: tuple[int, ...]) -> list[tuple[int, int]]:
    """Three rows of a block, away from its edges."""
    return [(int(a * shape[0]), int(b * shape[1])) for a, b in ((0.2, 0.3), (0.5, 0.1), (0.8, 0.6))]


def _refuse_change(file: ArrayFile) -> None:
    if (now := file.path.stat().st_size) != file.size:
        found = f"{now} bytes while reading, {file.size} when it was opened"
        raise refusal(file.path, found, "a file that does not change", "wait for the copy to end and open it again")


def open_npy(path: Path) -> NpyFile:
    """Read and check the header of a `.npy` file; data are not read, pickled objects never.

    Raises CubesError for anything but a whole file of real numbers, NoCubes for fewer than three dimensions.
    """
    status = regular_file(path)
    with open(path, "rb") as file:
        return _checked_npy(path, _npy_header(file, path), 0, status)


def open_npz(path: Path, wanted: str | None = None) -> NpyFile:
    """Find the array of cubes in a `.npz` archive, as `open_hdf5` does, and read it in place.

    Raises CubesError for a damaged or compressed archive, NoCubes for one without arrays of cubes.
    """
    status = regular_file(path)
    try:
        with zipfile.ZipFile(path) as archive, open(path, "rb") as raw:
            headers = {}
            for member in archive.namelist():
                if member.endswith(".npy"):
                    with archive.open(member) as file:
                        headers[member.removesuffix(".npy")] = _npy_header(file, path)
            name, *more = _choose_datasets(path, {name: header[0] for name, header in headers.items()}, wanted)
            info = archive.getinfo(f"{name}.npy")
            if more or info.compress_type != zipfile.ZIP_STORED:
                found = f"{len(more) + 1} arrays of cubes" if more else "a compressed archive"
                file = f"np.load({path.name!r})"
                cubes = f"[cube for cube in {file}.values() if cube.ndim > 2]" if more else f"{file}[{name!r}]"
                advice = f"once run np.save('cubes.npy', {cubes})"
                raise refusal(path, found, "arrays that can be read one by one", advice)
            raw.seek(info.header_offset + 26)  # a local header: 30 bytes, the name, an extra field
            start = info.header_offset + 30 + sum(struct.unpack("<HH", raw.read(4)))
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError, struct.error) as error:
        found = f"no readable .npz archive ({first_line(error)})"
        raise refusal(path, found, "a whole .npz file", "copy or download it again, or save it with np.save") from error
    return _checked_npy(path, headers[name], start, status)


def _checked_npy(path: Path, header: tuple, start: int, status: os.stat_result) -> NpyFile:
    """An array whose header lies at `start` of a file."""
    shape, fortran, dtype, offset = header
    if len(shape) < 3:
        raise refusal(path, f"an array of shape {shape}", "cubes: (N, N, N) or (n, N, N, N)", "give 3D cubes", NoCubes)
    _check_numbers(path, dtype, shape)
    expected = start + offset + math.prod(shape) * dtype.itemsize
    if status.st_size < expected:
        found = f"{status.st_size} bytes, a truncated file"
        raise refusal(path, found, f"{expected} bytes for shape {shape} of {dtype}", "copy or download it again")
    return NpyFile(path, shape, dtype.str, start + offset, fortran, status.st_size, status.st_mtime_ns)


def stacked(file: NpyFile, maps: int = 0) -> NpyFile:
    """An array as a stack of cubes (n, N, N, N), or of so many square maps a universe (n, maps, N, N).

    Raises CubesError for any other shape, and for stacks in Fortran order.
    """
    shape, expected = cube_stack(file.shape), "cubes: (N, N, N) or (n, N, N, N)"
    if maps:
        *stack, side = [n for n in file.shape if n != 1] or [0]
        n, fits = math.prod(stack[:-1]), stack[-1:] == [side] and stack[1:-1] in ([], [maps])
        shape = fits and n % maps == 0 and (n // maps, maps, side, side)
        expected = f"maps: (n, N, N) with n a multiple of {maps}"
    if not shape:
        advice = "cut or reshape it, or pass format= (--data.format) if it is taken for what it is not"
        raise refusal(file.path, f"an array of shape {file.shape}", expected, advice)
    if file.fortran and shape[0] > 1:
        found = "a stack in Fortran order, each cube spread over the whole file"
        raise refusal(file.path, found, "C order", "save np.ascontiguousarray(cubes) with np.save once")
    return replace(file, shape=shape)


def cube_stack(shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """A shape as (n, N, N, N), None when it is none; axes of length 1 go where that leaves one reading."""
    for tried in (shape, tuple(n for n in shape if n != 1)):
        stack = (1, *tried) if len(tried) == 3 else tried
        if len(stack) == 4 and len(set(stack[1:])) == 1:
            return stack
    return None


def open_hdf5(path: Path, dataset: str | None = None) -> Hdf5File:
    """Find the cubes in an HDF5 file: the data set named, the only one with cubes, or one of each simulation.

    Raises CubesError when the file is damaged or locked, or when several data sets could be meant; NoCubes when there
    is none.
    """
    status = regular_file(path)
    try:
        with h5py.File(path, "r") as file:
            shapes: dict[str, tuple] = {}
            file.visititems(lambda name, item: shapes.update({name: getattr(item, "shape", None)}))
            names = _choose_datasets(path, {name: shape for name, shape in shapes.items() if shape}, dataset)
            first = file[names[0]]
            _check_numbers(path, first.dtype, first.shape)
            n, *block = cube_stack(first.shape)
            shape, box = (max(n, len(names)), *block), _hdf5_box(file, names[0])
            return Hdf5File(path, names, shape, first.dtype.str, box, status.st_size, status.st_mtime_ns)
    except CubesError:
        raise
    except HDF5_ERRORS as error:
        raise _hdf5_refusal(path, error, "no readable HDF5 file") from error


def regular_file(path: Path) -> os.stat_result:
    """The file's status. Raises CubesError for a link that loops, a pipe, a device, or without permission."""
    status = existing(path)
    if not stat.S_ISREG(status.st_mode):
        raise refusal(path, "no regular file", "a file of numbers", "name a file or a folder of files")
    try:
        open(path, "rb").close()
    except PermissionError as error:
        advice = "chmod u+r it, or ask its owner"
        raise refusal(path, "no permission to read it", "a readable file", advice) from error
    return status


def existing(path: Path) -> os.stat_result:
    """Status of a path. Raises CubesMissing when it does not exist, CubesError when it cannot be followed."""
    try:
        return path.stat()
    except FileNotFoundError as error:
        link = path.is_symlink() and f"a link to {os.readlink(path)}, which does not exist"
        advice = "check the path, or make a suite with `python -m uvae_lib simulate`"
        raise refusal(path, link or "no such file or folder", "cubes", advice, CubesMissing) from error
    except (OSError, ValueError) as error:  # a loop of links, a name too long, a null byte
        reason = getattr(error, "strerror", None) or error
        advice = "check the path, its links and their permissions"
        raise refusal(repr(str(path)), f"no valid path ({reason})", "a file or a folder", advice) from error


def _npy_header(file, path: Path) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    """Shape, Fortran order, dtype and offset of the data, parsed by NumPy (literals only, at most 10 kB)."""
    parsers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    try:
        shape, fortran, dtype = parsers[np.lib.format.read_magic(file)](file)
        return tuple(int(n) for n in shape), bool(fortran), dtype, file.tell()
    except NPY_ERRORS as error:
        found = f"no readable .npy header ({first_line(error)})"
        advice = "copy or download it again, or save the array with np.save"
        raise refusal(path, found, "a NumPy .npy file", advice) from error


def _check_numbers(path: Path, dtype: np.dtype, shape: tuple[int, ...]) -> None:
    if dtype.kind not in NUMERIC or dtype.itemsize == 0:
        found = "Python objects (a pickle)" if dtype.hasobject else f"values of type {dtype}"
        expected = "real numbers (float or integer); pickles are never opened"
        raise refusal(path, found, expected, "save the array again with np.save, as float32")
    if any(n <= 0 for n in shape):
        raise refusal(path, f"an empty array of shape {shape}", "at least one cube", "save it again with np.save")


def _choose_datasets(path: Path, arrays: dict[str, tuple], wanted: str | None) -> tuple[str, ...]:
    """The array of cubes; or, where each simulation has one of its own, all of them in natural order."""
    found = [name for name, shape in arrays.items() if cube_stack(shape)]
    if wanted is not None:
        found = [name for name in found if wanted.strip("/") in (name, name.rpartition("/")[2])]
    patterns = {(re.sub(r"\d+", "#", name.rpartition("/")[2]), cube_stack(arrays[name])) for name in found}
    if len(found) != 1 and (len(patterns) != 1 or next(iter(patterns))[1][0] != 1):
        listing = ", ".join(f"{name} {shape}" for name, shape in list(arrays.items())[:8]) or "no data set"
        expected = "one data set of cubes" if wanted is None else f"cubes in data set {wanted!r}"
        advice = "pass dataset= (--data.dataset) with the name of the cubes"
        raise refusal(path, listing, expected, advice, CubesError if found or wanted else NoCubes)
    return tuple(sorted(found, key=natural))


def _hdf5_refusal(path: Path, error: Exception, found: str) -> CubesError:
    """What to say of an error of HDF5: locks and missing filters are no damage."""
    reason = first_line(error)
    if "plugin" in reason or "required filter" in reason:
        advice = "install it (pip install hdf5plugin), or rewrite the file with h5repack -f GZIP=4"
        return refusal(path, f"data compressed by a filter that is missing ({reason})", "one that is here", advice)
    if "to lock" in reason or "open for write" in reason:
        advice = "wait until its writer closes it; where the file system has no locks set HDF5_USE_FILE_LOCKING=FALSE"
        return refusal(path, f"a file that another process is writing ({reason})", "a closed file", advice)
    return refusal(path, f"{found} ({reason})", "a whole HDF5 file", "copy or download it again")


def hdf5_places(file: h5py.File, dataset: str, outwards: bool = True) -> list[h5py.Group | h5py.Dataset]:
    """Where an HDF5 file may say something about a data set: at it, in its group and groups beside it, and outwards."""
    parents = [file[dataset].parent]
    while outwards and parents[-1].name != "/":
        parents.append(parents[-1].parent)
    held = {parent.name for parent in parents}
    groups = [group for parent in parents for group in parent.values() if isinstance(group, h5py.Group)]
    return [file[dataset], *parents, *(group for group in groups if group.name not in held)]


def hdf5_values(place: h5py.Group | h5py.Dataset, wanted: Callable[[str], bool]) -> dict[str, np.ndarray]:
    """The attributes, and small data sets of a group, whose names are wanted."""
    inside = place.items() if isinstance(place, h5py.Group) else ()
    small = [(name, item) for name, item in inside if isinstance(item, h5py.Dataset) and len(item.shape or ()) <= 2]
    values = {name: item[()] for name, item in small if wanted(name) and item.size and item.size <= 10**6}
    return values | {name: place.attrs[name] for name in place.attrs if wanted(name)}


def _hdf5_box(file: h5py.File, dataset: str) -> float | None:
    """Side of the box [Mpc/h], from the nearest place that has one."""
    pattern = re.compile(r"l?box(size|length|len|side)?(mpch)?|sidelength")
    for place in hdf5_places(file, dataset):
        found = hdf5_values(place, lambda name: bool(pattern.fullmatch(re.sub(r"[\W_]", "", name.lower()))))
        if found:
            return read_length(next(iter(found.values())))
    return None


def read_length(value) -> float | None:
    """A length [Mpc/h] from a number, equal numbers, or text with a unit; None when it is none of them."""
    value = np.ravel(value)
    if value.dtype.kind in NUMERIC and value.size:
        return float(value[0]) if np.ptp(value) <= 1e-6 * abs(value[0]) else None
    text = value[0].decode(errors="replace") if value.dtype.kind == "S" else str(value[0]) if value.size == 1 else ""
    number, unit = r"\s*(\d+\.?\d*(?:e[+-]?\d+)?)\s*", r"c?([kmg])pc\s*/\s*h|h\^?-1\s*c?([kmg])pc"
    found = re.fullmatch(rf"{number}(?:{unit})?\s*", text, re.IGNORECASE)
    return found and float(found[1]) * {"k": 1e-3, "m": 1.0, "g": 1e3}[(found[2] or found[3] or "m").lower()]


def first_line(error: Exception) -> str:
    """What an error says, in short."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
