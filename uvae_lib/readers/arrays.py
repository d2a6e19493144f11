"""Array files that are not trusted: header checked, nothing unpickled, one cube read at a time.

Cubes are read with plain reads, not through a memory map. The resident set stays at one cube, a suite pickles
as a path and a few numbers, and a file that shrinks under the reader gives a sentence: a memory map would end
the process with SIGBUS.
"""

import errno
import math
import os
import re
import stat
import struct
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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

    shape   (n, ...) of the stack; a file that holds one 3D array is a stack of one
    offset  first byte of the data;  size [bytes] and mtime_ns of the file when it was opened
    """

    path: Path
    shape: tuple[int, ...]
    dtype: str
    offset: int
    fortran: bool
    size: int
    mtime_ns: int

    def read(self, start: int, count: int) -> np.ndarray:
        """Blocks start to start + count as (count, ...), a fresh array in the file's dtype.

        Raises CubesError when the file is no longer as long as it was when it was opened.
        """
        values = np.empty(count * math.prod(self.shape[1:]), self.dtype)
        view, done = memoryview(values).cast("B"), 0
        with open(self.path, "rb", buffering=0) as file:
            file.seek(self.offset + start * (len(view) // count))
            while done < len(view) and (got := file.readinto(view[done:])):
                done += got
            now = os.fstat(file.fileno()).st_size
        if done < len(view) or now != self.size:
            raise _changed(self.path, now, self.size)
        return values.reshape((count, *self.shape[1:]), order="F" if self.fortran else "C")

    def sample(self, i: int) -> np.ndarray:
        """A few rows of block i, see `_rows`."""
        order = "F" if self.fortran else "C"
        block = np.memmap(self.path, self.dtype, "r", self.offset, self.shape, order)[i]
        return np.concatenate([block[row] for row in _rows(block.shape)])


@dataclass(frozen=True)
class Hdf5File:
    """A stack of equal blocks in an HDF5 file; see NpyFile.

    datasets  one with a stack or a single cube, or one for each cube
    box_size  [as written] in attributes or data sets beside the cubes;  box_text: what was found and not understood
    """

    path: Path
    datasets: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    box_size: float | None
    box_text: str
    size: int
    mtime_ns: int

    def read(self, start: int, count: int) -> np.ndarray:
        """Blocks as (count, ...), as in NpyFile. Raises CubesError when the file changed or is damaged."""
        now = self.path.stat().st_size
        if now != self.size:
            raise _changed(self.path, now, self.size)
        try:
            with h5py.File(self.path, "r") as file:
                if len(self.datasets) > 1 or self.shape[0] == 1:
                    values = np.stack([file[name][()] for name in self.datasets[start : start + count]])
                else:
                    dataset = file[self.datasets[0]]
                    axis = next(i for i, n in enumerate(dataset.shape) if n > 1)
                    values = dataset[(0,) * axis + (slice(start, start + count),)]
                return values.reshape(count, *self.shape[1:])
        except HDF5_ERRORS as error:
            raise _hdf5_refusal(self.path, error, f"unreadable data in {self.datasets[0]}") from error

    def sample(self, i: int) -> np.ndarray:
        """A few rows of block i, see `_rows`."""
        several = len(self.datasets) > 1
        head = () if several or self.shape[0] == 1 else (i,)
        try:
            with h5py.File(self.path, "r") as file:
                dataset = file[self.datasets[i if several else 0]]
                places = [self._index(dataset.shape, head + row) for row in _rows(self.shape[1:])]
                return np.concatenate([dataset[place] for place in places])
        except HDF5_ERRORS as error:
            raise _hdf5_refusal(self.path, error, f"unreadable data in {self.datasets[0]}") from error

    @staticmethod
    def _index(shape: tuple[int, ...], place: tuple[int, ...]) -> tuple:
        """The row at a place of the axes that are longer than one."""
        places = iter((*place, slice(None)))
        return tuple(next(places) if n > 1 else 0 for n in shape)


def _rows(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Three rows of a block, away from its edges, by which it is known again."""
    shares = (0.2, 0.3), (0.5, 0.1), (0.8, 0.6)
    return [tuple(int(share * n) for share, n in zip(row, shape[:-1], strict=False)) for row in shares]


ArrayFile = NpyFile | Hdf5File


def open_npy(path: Path, block_dims: int = 3) -> NpyFile:
    """Read and check the header of a `.npy` file; data are not read, pickled objects never.

    block_dims   dimensions of one block: 3 for cubes, 2 for maps; an array of so many becomes a stack of one
    Raises CubesError for anything but a whole file of real numbers, NoCubes when it has too few dimensions.
    """
    status = regular_file(path)
    with open(path, "rb") as file:
        header = _npy_header(file, path)
    return _checked_npy(path, header, 0, status.st_size, status, block_dims)


def open_npz(path: Path, wanted: str | None = None) -> NpyFile:
    """Find the array of cubes in a `.npz` archive, as `open_hdf5` does, and read it in place.

    Raises CubesError for a damaged or compressed archive, NoCubes for one without arrays of cubes.
    """
    status = regular_file(path)
    try:
        with zipfile.ZipFile(path) as archive, open(path, "rb") as raw:
            members, headers = {}, {}
            for info in archive.infolist():
                if info.filename.endswith(".npy"):
                    name = info.filename.removesuffix(".npy")
                    with archive.open(info) as file:
                        members[name], headers[name] = info, _npy_header(file, path)
            (name,) = _choose_datasets(path, {name: header[0] for name, header in headers.items()}, wanted)
            if members[name].compress_type != zipfile.ZIP_STORED:
                code = f"np.save('cubes.npy', np.load({path.name!r})[{name!r}])"
                raise refusal(path, "a compressed archive", "arrays that can be read one by one", f"once run {code}")
            raw.seek(members[name].header_offset + 26)  # a local header: 30 bytes, the name, an extra field
            start = members[name].header_offset + 30 + sum(struct.unpack("<HH", raw.read(4)))
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError, struct.error) as error:
        found = f"no readable .npz archive ({_first_line(error)})"
        raise refusal(path, found, "a whole .npz file", "copy or download it again, or save it with np.save") from error
    return _checked_npy(path, headers[name], start, start + members[name].file_size, status, 3)


def _checked_npy(path: Path, header: tuple, start: int, end: int, status: os.stat_result, block_dims: int) -> NpyFile:
    """An array whose header lies at `start` of a file and whose data end at `end`."""
    shape, fortran, dtype, offset = header
    again = "save the array again with np.save, as float32"
    if len(shape) < block_dims == 3:
        raise refusal(path, f"an array of shape {shape}", "cubes: (N, N, N) or (n, N, N, N)", "give 3D cubes", NoCubes)
    if dtype.hasobject:
        raise refusal(path, "Python objects (a pickle)", "numbers; pickles are never opened", again)
    _check_numbers(path, dtype, shape, again)
    expected = start + offset + math.prod(shape) * dtype.itemsize
    if min(end, status.st_size) < expected:
        found = f"{status.st_size} bytes, a truncated file"
        wanted = f"{expected} bytes for shape {shape} of {dtype}"
        raise refusal(path, found, wanted, "copy or download it again")
    shape = stack_shape(shape, block_dims)
    if fortran and shape[0] > 1:
        found = "a stack in Fortran order, each cube spread over the whole file"
        raise refusal(path, found, "C order", "save np.ascontiguousarray(cubes) with np.save once")
    return NpyFile(path, shape, dtype.str, start + offset, fortran, status.st_size, status.st_mtime_ns)


def stack_shape(shape: tuple[int, ...], block_dims: int = 3) -> tuple[int, ...]:
    """A shape as (n, ...) with blocks of so many dimensions; axes of length 1 go where that leaves one reading."""
    for tried in (shape, tuple(n for n in shape if n != 1)):
        stack = (1, *tried) if len(tried) == block_dims else tried
        if len(stack) == block_dims + 1 and len(set(stack[1:])) == 1:
            return stack
    return (1, *shape) if len(shape) == block_dims else tuple(shape)


def open_hdf5(path: Path, dataset: str | None = None) -> Hdf5File:
    """Find the cubes in an HDF5 file: the data set named, the only one with cubes, or one of each simulation.

    Raises CubesError when the file is damaged or locked, or when several data sets
    could be meant; NoCubes when there is none.
    """
    status = regular_file(path)
    try:
        with h5py.File(path, "r") as file:
            shapes: dict[str, tuple] = {}
            file.visititems(lambda name, item: shapes.update({name: getattr(item, "shape", None)}))
            names = _choose_datasets(
                path, {name: shape for name, shape in shapes.items() if shape is not None}, dataset
            )
            first = file[names[0]]
            shape, dtype = stack_shape(first.shape), first.dtype
            _check_numbers(path, dtype, shape, "write the data set as float32")
            box, text = _hdf5_box(file, names[0])
    except CubesError:
        raise
    except HDF5_ERRORS as error:
        raise _hdf5_refusal(path, error, "no readable HDF5 file") from error
    shape = (len(names), *shape[1:]) if len(names) > 1 else shape
    return Hdf5File(path, names, shape, dtype.str, box, text, status.st_size, status.st_mtime_ns)


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
    """Status of a path. Raises CubesMissing when it does not exist, CubesError for a loop of links."""
    try:
        return path.stat()
    except FileNotFoundError as error:
        found, advice = (
            "no such file or folder",
            "check the path, or make a suite with `python -m uvae_lib simulate`",
        )
        if path.is_symlink():
            found, advice = f"a link to {os.readlink(path)}, which does not exist", "mend the link"
        raise CubesMissing(f"{path}: found {found}; expected cubes; {advice}") from error
    except OSError as error:
        reason = "a loop of symbolic links" if error.errno == errno.ELOOP else error.strerror
        raise refusal(path, reason, "a file or a folder", "mend the link, or the permissions") from error
    except ValueError as error:  # a null byte in the name
        raise refusal(repr(path), f"no valid path ({error})", "a file or a folder", "check the path") from error


def _npy_header(file, path: Path) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    """Shape, Fortran order, dtype and offset of the data, parsed by NumPy (literals only, at most 10 kB)."""
    parsers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    errors = (ValueError, KeyError, TypeError, SyntaxError, TokenError, EOFError, OverflowError, RecursionError)
    try:
        shape, fortran, dtype = parsers[np.lib.format.read_magic(file)](file)
        return tuple(int(n) for n in shape), bool(fortran), dtype, file.tell()
    except errors as error:
        found = f"no readable .npy header ({_first_line(error)})"
        advice = "copy or download it again, or save the array with np.save"
        raise refusal(path, found, "a NumPy .npy file", advice) from error


def _check_numbers(path: Path, dtype: np.dtype, shape: tuple[int, ...], advice: str) -> None:
    if dtype.kind not in NUMERIC or dtype.names or dtype.itemsize == 0:
        raise refusal(path, f"values of type {dtype}", "real numbers (float or integer)", advice)
    if any(n <= 0 for n in shape):
        raise refusal(path, f"an empty array of shape {tuple(shape)}", "at least one cube", advice)


def _choose_datasets(path: Path, arrays: dict[str, tuple], wanted: str | None) -> tuple[str, ...]:
    """The array of cubes; or, where each simulation has one of its own, all of them in natural order."""
    listing = ", ".join(f"{name} {shape}" for name, shape in list(arrays.items())[:8]) or "no data set"
    cubic = [name for name, shape in arrays.items() if is_stack(stack_shape(shape))]
    found = cubic or [name for name, shape in arrays.items() if len(shape) in (3, 4)]
    if wanted is not None:
        found = [name for name in arrays if wanted.strip("/") in (name, name.rpartition("/")[2])]
        if not found:
            expected, advice = f"data set {wanted!r}", "pass dataset= one of these (--data.dataset)"
            raise refusal(path, listing, expected, advice)
    patterns = {(re.sub(r"\d+", "#", name.rpartition("/")[2]), stack_shape(arrays[name])) for name in found}
    if len(found) != 1 and (len(patterns) != 1 or next(iter(patterns))[1][0] != 1):
        advice = "pass dataset= (--data.dataset) with the name of the cubes"
        raise refusal(path, listing, "one data set of cubes", advice, CubesError if found else NoCubes)
    return tuple(sorted(found, key=natural))


def is_stack(shape: Sequence[int]) -> bool:
    """Whether a shape is that of cubes: (n, N, N, N)."""
    return len(shape) == 4 and len(set(shape[1:])) == 1


def _hdf5_refusal(path: Path, error: Exception, found: str) -> CubesError:
    """What to say of an error of HDF5: locks and missing filters are no damage."""
    reason = _first_line(error)
    if "plugin" in reason or "required filter" in reason:
        advice = "install it (pip install hdf5plugin), or rewrite the file with h5repack -f GZIP=4"
        return refusal(path, f"data compressed by a filter that is missing ({reason})", "one that is here", advice)
    if "to lock" in reason or "open for write" in reason:
        advice = "wait until its writer closes it; where the file system has no locks set HDF5_USE_FILE_LOCKING=FALSE"
        return refusal(path, f"a file that another process is writing ({reason})", "a closed file", advice)
    return refusal(path, f"{found} ({reason})", "a whole HDF5 file", "copy or download it again")


def hdf5_places(file: h5py.File, dataset: str) -> list[h5py.Group | h5py.Dataset]:
    """Where an HDF5 file may say something about a data set: at it, in its groups outwards, in groups beside it."""
    parents = [file[dataset], file[dataset].parent]
    while parents[-1].name != "/":
        parents.append(parents[-1].parent)
    held = {parent.name for parent in parents}
    return parents + [item for item in file.values() if isinstance(item, h5py.Group) and item.name not in held]


def hdf5_values(place: h5py.Group | h5py.Dataset, wanted: Callable[[str], bool]) -> dict[str, np.ndarray]:
    """The attributes, and small data sets of a group, whose names are wanted."""
    inside = place.items() if isinstance(place, h5py.Group) else ()
    small = [(name, item) for name, item in inside if isinstance(item, h5py.Dataset) and len(item.shape or ()) <= 2]
    values = {name: item[()] for name, item in small if wanted(name) and item.size and item.size <= 10**6}
    return values | {name: place.attrs[name] for name in place.attrs if wanted(name)}


def _hdf5_box(file: h5py.File, dataset: str) -> tuple[float | None, str]:
    """Side of the box as written, from the nearest place that has one; and what was found there otherwise."""
    pattern = re.compile(r"l?box(size|length|len|side)?(mpch)?|sidelength")
    for place in hdf5_places(file, dataset):
        found = hdf5_values(place, lambda name: bool(pattern.fullmatch(re.sub(r"[\W_]", "", name.lower()))))
        for name, value in found.items():
            box = read_length(value)
            return box, "" if box is not None else f"{name}={value!r}"
    return None, ""


def read_length(value) -> float | None:
    """A length [Mpc/h] from a number, equal numbers, or text with a unit; None when it is none of them."""
    value = np.ravel(value)
    if value.dtype.kind in NUMERIC and value.size:
        return float(value[0]) if np.ptp(value) <= 1e-6 * abs(value[0]) else None
    text = value[0] if value.size == 1 else ""
    text = text.decode(errors="replace") if isinstance(text, bytes) else str(text)
    number, unit = r"\s*(\d+\.?\d*(?:e[+-]?\d+)?)\s*", r"c?([kmg])pc\s*(?:/\s*h|\*?\s*h\^?-1)"
    found = re.fullmatch(f"{number}(?:{unit}|h\\^?-1 *c?([kmg])pc)?\\s*", text, re.IGNORECASE)
    return found and float(found[1]) * {"k": 1e-3, "m": 1.0, "g": 1e3}[(found[2] or found[3] or "m").lower()]


def _changed(path: Path, now: int, before: int) -> CubesError:
    found = f"{now} bytes while reading, {before} when it was opened"
    return refusal(path, found, "a file that does not change", "wait for the copy to end and open it again")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
