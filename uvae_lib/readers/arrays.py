"""Array files that are not trusted: header checked, nothing unpickled, one cube read at a time.

Cubes are read with plain reads, not through a memory map. The resident set stays at one cube, a suite pickles
as a path and a few numbers, and a file that shrinks under the reader gives a sentence: a memory map would end
the process with SIGBUS.
"""

import errno
import math
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError

import h5py
import numpy as np

NUMERIC = "fiu"  # kinds of numpy dtype that can hold a density
# what h5py raises for damaged files
HDF5_ERRORS = (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError, OverflowError)
NPY_MAGIC, HDF5_MAGIC = b"\x93NUMPY", b"\x89HDF\r\n\x1a\n"


class CubesError(ValueError):
    """Cubes that cannot be used. The message says what was found, what was expected and what to do."""


class CubesMissing(CubesError, FileNotFoundError):
    """The same, for a path that does not exist."""

    __str__ = Exception.__str__


def refusal(where: object, found: str, expected: str, advice: str) -> CubesError:
    """The one form of every refusal: "<where>: found ...; expected ...; <what to do>"."""
    return CubesError(f"{where}: found {found}; expected {expected}; {advice}")


@dataclass(frozen=True)
class NpyFile:
    """A stack of equal blocks in a `.npy` file.

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


@dataclass(frozen=True)
class Hdf5File:
    """A stack of equal blocks in a data set of an HDF5 file; see NpyFile."""

    path: Path
    dataset: str
    shape: tuple[int, ...]
    dtype: str
    single: bool  # the data set is one 3D array, not a stack
    box_size: float | None  # [as written], an attribute of the data set, the Header group or the file
    size: int
    mtime_ns: int

    def read(self, start: int, count: int) -> np.ndarray:
        """Blocks as (count, ...), as in NpyFile. Raises CubesError when the file changed or is damaged."""
        now = self.path.stat().st_size
        if now != self.size:
            raise _changed(self.path, now, self.size)
        try:
            with h5py.File(self.path, "r") as file:
                dataset = file[self.dataset]
                return dataset[()][None] if self.single else dataset[start : start + count]
        except HDF5_ERRORS as error:
            found = f"unreadable data in {self.dataset} ({_first_line(error)})"
            raise refusal(self.path, found, "a whole HDF5 file", "copy or download it again") from error


ArrayFile = NpyFile | Hdf5File


def open_npy(path: Path, block_dims: int = 3) -> NpyFile:
    """Read and check the header of a `.npy` file; data are not read, pickled objects never.

    block_dims   dimensions of one block: 3 for cubes, 2 for maps; an array of so many becomes a stack of one
    Raises CubesError for anything but a whole file of real numbers.
    """
    status = regular_file(path)
    shape, fortran, dtype, offset = _npy_header(path)
    again = "save the array again with np.save, as float32"
    if dtype.hasobject:
        raise refusal(path, "Python objects (a pickle)", "numbers; pickles are never opened", again)
    _check_numbers(path, dtype, shape, again)
    expected = offset + math.prod(shape) * dtype.itemsize
    if status.st_size < expected:
        found = f"{status.st_size} bytes, a truncated file"
        wanted = f"{expected} bytes for shape {shape} of {dtype}"
        raise refusal(path, found, wanted, "copy or download it again")
    if fortran and len(shape) > block_dims:
        found = "a stack in Fortran order, each cube spread over the whole file"
        raise refusal(path, found, "C order", "save np.ascontiguousarray(cubes) with np.save once")
    shape = (1, *shape) if len(shape) == block_dims else shape
    return NpyFile(path, shape, dtype.str, offset, fortran, status.st_size, status.st_mtime_ns)


def open_hdf5(path: Path, dataset: str | None = None) -> Hdf5File:
    """Find the data set of cubes in an HDF5 file: the one named, or the only one that is 3D or 4D.

    Raises CubesError when the file is damaged, or has no such data set, or several.
    """
    status = regular_file(path)
    try:
        with h5py.File(path, "r") as file:
            shapes: dict[str, tuple] = {}
            file.visititems(lambda name, item: shapes.update({name: getattr(item, "shape", None)}))
            name = _choose_dataset(path, shapes, dataset)
            shape, dtype, box = file[name].shape, file[name].dtype, _box_attribute(file, name)
    except CubesError:
        raise
    except HDF5_ERRORS as error:
        found = f"no readable HDF5 file ({_first_line(error)})"
        raise refusal(path, found, "a whole HDF5 file", "copy or download it again") from error
    _check_numbers(path, dtype, shape, "write the data set as float32")
    single = len(shape) == 3
    shape = (1, *shape) if single else tuple(shape)
    return Hdf5File(path, name, shape, dtype.str, single, box, status.st_size, status.st_mtime_ns)


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


def _npy_header(path: Path) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    """Shape, Fortran order, dtype and offset of the data, parsed by NumPy (literals only, at most 10 kB)."""
    parsers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    errors = (ValueError, KeyError, TypeError, SyntaxError, TokenError, EOFError, OverflowError, RecursionError)
    with open(path, "rb") as file:
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


def _choose_dataset(path: Path, shapes: dict[str, tuple | None], wanted: str | None) -> str:
    arrays = {name: shape for name, shape in shapes.items() if shape is not None}
    listing = ", ".join(f"{name} {shape}" for name, shape in list(arrays.items())[:8]) or "no data set"
    if wanted is not None:
        if wanted.strip("/") not in arrays:
            raise refusal(path, f"{listing}", f"data set {wanted!r}", "pass dataset= one of these")
        return wanted.strip("/")
    cubes = [name for name, shape in arrays.items() if len(shape) in (3, 4)]
    known = [name for name in cubes if name in ("df", "data")]  # Quijote BSQ, 3DCosmo
    if len(cubes) != 1 and len(known) != 1:
        raise refusal(path, listing, "one data set of cubes", "pass dataset= with the name of the cubes")
    return cubes[0] if len(cubes) == 1 else known[0]


def _box_attribute(file: h5py.File, dataset: str) -> float | None:
    for item in (file[dataset], file.get("Header"), file):
        for key in ("box_size", "BoxSize", "boxsize", "Lbox") if item is not None else ():
            value = np.ravel(item.attrs.get(key, ()))
            if value.size == 1 and value.dtype.kind in NUMERIC:
                return float(value[0])
    return None


def _changed(path: Path, now: int, before: int) -> CubesError:
    found = f"{now} bytes while reading, {before} when it was opened"
    return refusal(path, found, "a file that does not change", "wait for the copy to end and open it again")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
