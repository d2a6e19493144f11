"""Array files and what stands beside them: headers are read, nothing is unpickled, a cube is read at a time."""

import json
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError

import h5py
import numpy as np

try:
    import hdf5plugin  # noqa: F401  the compression filters that it brings, where it is installed
except ImportError:
    pass

SUFFIXES = (".npy", ".npz", ".hdf5", ".h5", ".hdf", ".he5")
RECORD = "suite.json"
# what NumPy and h5py raise for damaged files
ERRORS = (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError, OverflowError, SyntaxError, TokenError,
          EOFError, MemoryError)  # fmt: skip
# what is no array of ours, by its first bytes
STRANGERS = {b"SIMPLE  =": "a FITS file", b"\x1f\x8b": "a file compressed by gzip", b"MATLAB": "a MATLAB file",
             b"CDF": "a NetCDF file", b"\x80": "a pickle, which is never opened", b"PK\x03\x04": "a zip archive",
             b"\x89HDF": "an HDF5 file by another name", b"\x93NUMPY": "a NumPy file by another name"}  # fmt: skip
PACKING = ("scale_factor", "add_offset", "_FillValue", "missing_value")  # attributes of the netCDF conventions
CUBES = "(N, N, N) or (n, N, N, N)"
BOX = re.compile(r"l?box(size|length|len|side|width)?(inmpch|mpch)?|sidelength|domainwidth")
WAVE = r"\s*h\s*(?:\^|\*\*)?\s*[{(]?\s*-\s*1\s*[})]?\s*"
LENGTH = re.compile(rf"([-+\[\](),.\deE\s]+?)\s*({WAVE})?(?:comoving\s+)?c?([kMG])pc(?:cm)?(\s*/\s*h|{WAVE})?\s*")


class CubesError(ValueError):
    """Cubes that cannot be used. The message says what was found, what was expected and what to do."""


class CubesMissing(CubesError, FileNotFoundError):
    """The same, for a path that does not exist."""

    __str__ = Exception.__str__


class NoCubes(CubesError):
    """The same, for a whole file of something else: a table, a catalogue. Beside cubes it is passed over."""


class CubesUnsaid(CubesError):
    """The same, for what the user has to say: needs, the names of options; layout, what was found."""

    needs, layout = (), None


def refusal(where: object, found: str, expected: str, advice: str, error: type[CubesError] = CubesError) -> CubesError:
    """The one form of every refusal: "<where>: found ...; expected ...; <what to do>"."""
    return error(f"{where}: found {found}; expected {expected}; {advice}")


def natural(text: object) -> list:
    """Key that sorts cube_9 before cube_10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", str(text))]


def first_line(error: Exception) -> str:
    """What an error says, in short."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]


@dataclass(frozen=True)
class Stack:
    """Equal blocks (n, planes, N, N) in a `.npy` file or a data set; size and mtime_ns are those of the file."""

    path: Path
    dataset: str | None
    shape: tuple[int, ...]
    size: int
    mtime_ns: int

    def read(self, i: int) -> np.ndarray:
        """Block i (planes, N, N), unpacked where it is packed. Raises CubesError when the file changed or is damaged."""
        return self._parts(i, [()])[0]

    def sample(self, i: int) -> np.ndarray:
        """Three rows of block i, away from its edges, by which it is known again."""
        planes, side = self.shape[1:3]
        places = [(int(a * planes), int(b * side)) for a, b in ((0.2, 0.3), (0.5, 0.1), (0.8, 0.6))]
        return np.concatenate(self._parts(i, places))

    def _parts(self, i: int, places: list[tuple[int, ...]]) -> list[np.ndarray]:
        if not self.path.exists() or (now := self.path.stat().st_size) != self.size:
            found = f"{now} bytes while reading" if self.path.exists() else "no file any more"
            advice = "wait for the copy to end and open it again"
            raise refusal(self.path, found, f"the {self.size} bytes that were there when it was opened", advice)
        try:
            if self.dataset is None:
                block = np.load(self.path, mmap_mode="r", allow_pickle=False).reshape(self.shape)[i]
                return [np.array(block[place]) for place in places]
            with h5py.File(self.path, "r") as file:
                data = file[self.dataset]
                lengths, found = [n != 1 for n in data.shape], []
                for place in places:
                    index = iter((*((i,) if self.shape[0] > 1 else ()), *place, *[slice(None)] * 3))
                    found.append(_unpacked(data[tuple(next(index) if long else 0 for long in lengths)], data.attrs))
                return found
        except ERRORS as error:
            raise unreadable(self.path, error) from error


def _unpacked(values: np.ndarray, attributes) -> np.ndarray:
    """Numbers as they are meant: `_FillValue`, `scale_factor` and `add_offset` of the netCDF conventions applied."""
    told = {name: np.ravel(attributes[name])[0] for name in PACKING if name in attributes}
    if not told:
        return values
    out = values * np.float64(told.get("scale_factor", 1)) + np.float64(told.get("add_offset", 0))
    return np.where(np.isin(values, [told[k] for k in ("_FillValue", "missing_value") if k in told]), np.nan, out)


def open_arrays(path: Path, n_maps: int = 0) -> list[Stack]:
    """The arrays of cubes in a file, with their shapes as stacks; NoCubes when there is none.

    n_maps   of a universe, in a file of maps

    Raises CubesError for a file that cannot be read, is not whole, holds no real numbers, or cubes in another shape.
    """
    status = existing(path)
    if not path.is_file():
        raise refusal(path, "no regular file", "a file of numbers", "name a file or a folder of files")
    try:
        if path.suffix.lower() in SUFFIXES[2:]:
            arrays = hdf5_arrays(path)
        else:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
            arrays = {None: (array.shape, array.dtype)} if isinstance(array, np.ndarray) else _archive(path, array)
    except CubesError:
        raise
    except ERRORS as error:
        raise unreadable(path, error) from error
    listing = ", ".join(f"{name or 'an array of shape'} {shape}" for name, (shape, _) in list(arrays.items())[:8])
    shapes = {name: shape for name, (shape, _) in arrays.items() if len(shape) > 2 or n_maps}
    if not shapes:
        flat = {round(shape[-1] ** (1 / 3)) for shape, _ in arrays.values() if shape}
        advice = "".join(f"; a flat cube is saved as array.reshape(-1, {n}, {n}, {n})" for n in flat if n > 7)
        raise refusal(path, listing or "no data set", f"cubes: {CUBES}", f"save cubes with np.save{advice}", NoCubes)
    stacks = []
    for name, shape in shapes.items():
        where, dtype = f"{path}{f', data set {name}' * bool(name)}", arrays[name][1]
        try:
            stack = stack_shape(where, shape, n_maps)
            if dtype.kind not in "fiu" or not dtype.itemsize:
                found = "Python objects" if dtype.hasobject else f"values of type {dtype}"
                raise refusal(where, found, "real numbers (float or integer)", "save them again as float32")
        except CubesError:
            if len(shapes) == 1:
                raise
            continue  # beside others it may be anything
        stacks.append(Stack(path, name, stack, status.st_size, status.st_mtime_ns))
    if not stacks:
        raise refusal(path, listing, f"cubes: {CUBES}", "cut or reshape them to cubes")
    return sorted(stacks, key=lambda stack: natural(stack.dataset))


def stack_shape(where: object, shape: tuple[int, ...], n_maps: int = 0) -> tuple[int, ...]:
    """A shape as (n, N, N, N), or (n, maps, N, N); axes of length 1 go. Raises CubesError with what to write."""
    long = tuple(n for n in shape if n != 1)
    if 0 in shape:
        raise refusal(where, f"an empty array of shape {shape}", "at least one cube", "save it again")
    if n_maps:
        n = math.prod(long[:-2])
        if len(long) < 2 or long[-1] != long[-2] or n % n_maps:
            expected = f"maps (n, N, N) with n a multiple of {n_maps}"
            raise refusal(where, f"an array of shape {shape}", expected, "give maps as they were published")
        return n // n_maps, n_maps, *long[-2:]
    stack = (1, *long) if len(long) == 3 else long
    if len(stack) == 4 and len({*stack[1:]}) == 1:
        return stack
    advice = "cut or reshape it to cubes"
    if len(stack) == 4 and len({*stack[:3]}) == 1:
        advice = "the cubes lie along the last axis: save np.moveaxis(cubes, -1, 0)"
    raise refusal(where, f"an array of shape {shape}", f"cubes: {CUBES}", advice)


def existing(path: Path) -> os.stat_result:
    """Status of a path. Raises CubesMissing when it does not exist, CubesError when it cannot be followed or read."""
    try:
        if not os.access(path, os.R_OK) and path.stat():
            raise refusal(
                path, "no permission to read it", "a readable file or folder", "chmod u+r it, or ask its owner"
            )
        return path.stat()
    except FileNotFoundError as error:
        found, advice = "no such file or folder", "check the path, or make a suite with `python -m uvae_lib simulate`"
        if path.is_symlink():
            found = f"a link to {os.readlink(path)}, which does not exist"
        elif re.match(r"\w{2,}:/", str(path)):
            found, advice = "an address of another machine", "download or mount the cubes, and give their path here"
        elif re.search(r"[*?\[]", str(path)):
            found, advice = "a pattern of names, and no such file", 'give the folder, and field="cube_*.npy" if need be'
        raise refusal(path, found, "cubes", advice, CubesMissing) from error
    except (OSError, ValueError) as error:  # a loop of links, a name too long, a null byte
        if isinstance(error, CubesError):
            raise
        found = f"no valid path ({getattr(error, 'strerror', None) or error})"
        raise refusal(
            repr(str(path)), found, "a file or a folder", "check the path, its links and permissions"
        ) from error


def stranger(path: Path) -> str:
    """What a file is that is no array."""
    with open(path, "rb") as file:
        start = file.read(16)
    return next(
        (what for magic, what in STRANGERS.items() if start.startswith(magic)), f"a file that starts {start[:8]!r}"
    )


def unreadable(path: Path, error: Exception) -> CubesError:
    """What to say of an error of NumPy or HDF5: locks, writers that crashed and missing filters are no damage."""
    reason = first_line(error)
    if "plugin" in reason or "required filter" in reason:
        advice = "install it (pip install hdf5plugin), or rewrite the file with h5repack -f GZIP=4"
        return refusal(path, f"data compressed by a filter that is missing ({reason})", "one that is here", advice)
    if "h5clear" in reason or "consistency flags" in reason or "already open for write" in reason:
        found, advice = (
            "a file that its writer has not closed",
            "wait for the writer; if none runs any more, h5clear -s it",
        )
        return refusal(path, f"{found} ({reason})", "a closed file", advice)
    if "to lock" in reason or "open for write" in reason:
        advice = "wait until its writer closes it; where the file system has no locks set HDF5_USE_FILE_LOCKING=FALSE"
        return refusal(path, f"a file that another process is writing ({reason})", "a closed file", advice)
    found = f"no readable array ({reason})"
    advice = "copy or download it again, or save it with np.save; pickles are never opened"
    return refusal(path, f"{stranger(path)}, {found}", "a whole .npy or HDF5 file of numbers", advice)


def _archive(path: Path, archive) -> dict:
    """Refuse an .npz archive, whose arrays cannot be read one cube at a time, with what to write."""
    name = archive.files[0] if archive.files else "cubes"
    advice = f'once run np.save("cubes.npy", np.load({path.name!r})[{name!r}])'
    raise refusal(
        path, f"an archive of {', '.join(archive.files[:8])}", "arrays that are read a cube at a time", advice
    )


def hdf5_arrays(path: Path) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Shape and dtype of every array in an HDF5 file, links followed, each once.

    Raises CubesError for a link that leads nowhere, and for an array of three axes or more that is not whole.
    """
    arrays, met = {}, set()

    def walk(group: h5py.Group, head: str) -> None:
        for name in group:
            try:
                item = group[name]
            except (KeyError, OSError) as error:
                link = group.get(name, getlink=True)
                target = f"{getattr(link, 'filename', '')} {getattr(link, 'path', '')}".strip()
                found = f"{head}{name}, a link to {target}, which leads nowhere"
                raise refusal(path, found, "a whole file", "bring what it points to, or remove the link") from error
            key = (item.file.filename, h5py.h5o.get_info(item.id).addr)
            if key in met:
                continue
            met.add(key)
            if isinstance(item, h5py.Group):
                walk(item, f"{head}{name}/")
            elif isinstance(item, h5py.Dataset) and item.shape is not None:
                arrays[f"{head}{name}"] = item.shape, item.dtype
                if len(item.shape) > 2 and (missing := _missing(item, path)):
                    advice = "bring what is missing, or write the file again"
                    raise refusal(path, f"{missing} of {head}{name}", "a whole array", advice)

    with h5py.File(path, "r") as file:
        walk(file, "")
    return arrays


def _missing(data: h5py.Dataset, path: Path) -> str:
    """What an array lacks: sources of a virtual one, files of an external one, chunks that were never written."""
    for source in data.virtual_sources() if data.is_virtual else ():
        place = path if source.file_name == "." else path.parent / source.file_name
        try:
            with h5py.File(place, "r") as other:
                there = source.dset_name in other
        except OSError:
            there = False
        if not there:
            return f"no {source.dset_name} in {place}, a source"
    lost = [name for name, *_ in data.external or () if not (path.parent / os.fsdecode(name)).is_file()]
    if lost:
        return f"no {os.fsdecode(lost[0])}, the file"
    if not data.is_virtual and not data.external and data.id.get_storage_size() == 0:
        return "no written value"
    n = math.prod(-(-a // b) for a, b in zip(data.shape, data.chunks, strict=True)) if data.chunks else 0
    return f"{data.id.get_num_chunks()} of {n} chunks" if n and data.id.get_num_chunks() < n else ""


def attributes(stack: Stack) -> dict[str, object]:
    """What stands beside an array of an HDF5 file, nearest first: attributes of it, its groups and their headers, and
    small data sets; with the unit where one stands beside ("BoxSize": "500.0 Mpc/h")."""
    if stack.dataset is None:
        return {}
    with h5py.File(stack.path, "r") as file:
        places, group = {"": file[stack.dataset]}, file[stack.dataset].parent
        while True:
            places |= {group.name.lstrip("/"): group}
            inside = [(name, item) for name, item in group.items() if isinstance(item, h5py.Group | h5py.Dataset)]
            headers = [n for n, item in inside if isinstance(item, h5py.Group) and not _holds(item, stack)]
            places |= {f"{group.name}/{name}".strip("/"): group[name] for name in headers}
            if group.name == "/":
                break
            group = group.parent
        found = {}
        for head, place in places.items():
            values = {name: place.attrs[name] for name in place.attrs}
            for name, item in place.items() if isinstance(place, h5py.Group) else ():
                if isinstance(item, h5py.Dataset) and item.shape is not None and item.size <= 10**4 and item.ndim < 3:
                    unit = next((item.attrs[key] for key in ("units", "unit") if key in item.attrs), None)
                    values |= {name: item[()]} | ({f"{name}_units": unit} if unit is not None else {})
            for name, value in values.items():
                unit = next((values[k] for k in (f"{name}_units", f"{name}_unit", f"{name}Units") if k in values), "")
                text = f"{as_text(value)} {as_text(unit)}".strip() if as_text(unit) else value
                found.setdefault(f"{head}/{name}".lstrip("/"), text)
        return found


def _holds(group: h5py.Group, stack: Stack) -> bool:
    """Whether a group is one of those that hold cubes."""
    return any(isinstance(item, h5py.Dataset) and (item.ndim or 0) > 2 for item in group.values())


def as_text(value: object) -> str:
    """An attribute as it reads: bytes decoded, numbers between brackets."""
    values = [v.decode(errors="replace") if isinstance(v, bytes) else v for v in np.ravel(np.asarray(value)).tolist()]
    return str(values[0]) if len(values) == 1 else f"[{', '.join(map(str, values[:6]))}{', ...' * (len(values) > 6)}]"


def read_length(value: object, h: float | None = None) -> list[float] | None:
    """Lengths [Mpc/h] of a text with a unit, as "500 Mpc/h", "[500 500 500] h^-1 Mpc", or "738 Mpc" where h is known.

    Returns None for a number without a unit, and for what is no length.
    """
    found = LENGTH.fullmatch(as_text(value))
    if not found or not (found[2] or found[4] or h):
        return None
    scale = {"k": 1e-3, "m": 1.0, "g": 1e3}[found[3].lower()] * (1 if found[2] or found[4] else h)
    return [float(number) * scale for number in re.findall(r"[-+]?\d+\.?\d*(?:[eE][-+]?\d+)?", found[1])] or None


def box_names(told: dict) -> list[str]:
    """Attributes that are called as sides of boxes are."""
    return [name for name in told if BOX.fullmatch(re.sub(r"[\W_]", "", name.rpartition("/")[2].lower()))]


def box_of(stack: Stack) -> float | None:
    """Side of the box [Mpc/h] where an attribute gives it with its unit. Raises CubesError for sides that differ."""
    told = attributes(stack)
    h = next((float(np.ravel(v)[0]) for k, v in told.items() if re.fullmatch(r"(.*/)?(HubbleParam|h|hubble)", k)), None)
    for name in box_names(told):
        lengths = read_length(told[name], h)
        if len({*(lengths or np.ravel(told[name]).tolist())}) > 1:
            raise refusal(stack.path, f"{name} = {as_text(told[name])}", "a cube, as long as wide", "cut it to cubes")
        if lengths:
            return lengths[0]
    return None


def read_record(path: Path, known: Sequence[str]) -> dict:
    """What the user has written beside the cubes: `suite.json` of the folder, and NAME.suite.json of a file.

    Raises CubesError for what is no JSON, or a name that is none of `known`.
    """
    told: dict = {}
    for place in [path / RECORD] if path.is_dir() else [path.parent / RECORD, path.with_suffix(f".{RECORD}")]:
        if not place.is_file():
            continue
        try:
            values = dict(json.loads(place.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise refusal(place, f"no record ({first_line(error)})", "JSON", 'write {"box_size": 25.0, ...}') from error
        if unknown := sorted(set(values) - set(known)):
            raise refusal(place, ", ".join(unknown), f"some of {', '.join(known)}", "correct the names")
        table = values.get("params")
        if isinstance(table, str) and (place.parent / table).is_file():
            values["params"] = str(place.parent / table)
        told |= values
    return told
