"""Array files and what stands beside them: headers are read, nothing is unpickled, a cube is read at a time."""

import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

import h5py
import numpy as np

with suppress(ImportError):
    import hdf5plugin  # noqa: F401  the compression filters that it brings, where it is installed

HDF5 = (".hdf5", ".h5", ".hdf", ".he5")
SUFFIXES = (".npy", ".npz", *HDF5)
CUBES = "cubes (N, N, N) or (n, N, N, N)"
PACKING = ("scale_factor", "add_offset", "_FillValue", "missing_value")  # attributes of the netCDF conventions
BOX = re.compile(r"l?box(size|length|len|side|width)?(inmpch|mpch)?|sidelength|domainwidth")  # sides of boxes
WAVE = r"\s*h\s*(?:\^|\*\*)?\s*[{(]?\s*-\s*1\s*[})]?\s*"
LENGTH = re.compile(rf"([-+\[\](),.\deE\s]+?)\s*({WAVE})?(?:comoving\s+)?c?([kMG])pc(?:cm)?(\s*/\s*h|{WAVE})?\s*")
DAMAGED = "a whole .npy or HDF5 file of numbers", "copy it again, or np.save it; filters: hdf5plugin"
WRITER = re.compile("h5clear|consistency flags|to lock|open for write")  # what HDF5 says of a file that is not closed
HELD = "a closed file", "wait for its writer; where none writes any more, h5clear -s it, or HDF5_USE_FILE_LOCKING=FALSE"


class CubesError(ValueError):
    """Cubes that cannot be used. The message says what was found, what was expected and what to do."""


class CubesMissing(CubesError, FileNotFoundError):
    """The same, for a path that does not exist."""


class NoCubes(CubesError):
    """The same, for a whole file of something else: a table, a catalogue. Beside cubes it is passed over."""


class CubesUnsaid(CubesError):
    """The same, for what the user has to say: proposals, of each option a value that it may have, and why."""

    proposals: dict[str, tuple] = {}


def refusal(where: object, found: str, expected: str, advice: str, error: type[CubesError] = CubesError) -> CubesError:
    """The one form of every refusal: "<where>: found ...; expected ...; <what to do>"."""
    return error(f"{where}: found {found}; expected {expected}; {advice}")


def natural(text: object) -> list:
    """Key that sorts cube_9 before cube_10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", str(text))]


@contextmanager
def reading(path: object, advice: tuple[str, str] = DAMAGED) -> Iterator[None]:
    """What NumPy, pandas and h5py raise for damaged files, as CubesError: it may be any kind of error."""
    try:
        yield
    except CubesError:
        raise
    except Exception as error:
        text = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
        advice = HELD if WRITER.search(text) else advice
        raise refusal(path, f"no readable array or table ({text})", *advice) from error


@dataclass(frozen=True)
class Stack:
    """Equal blocks (n, planes, N, N) in a `.npy` file or a data set; size and mtime_ns are those of the file."""

    path: Path
    dataset: str | None
    shape: tuple[int, ...]
    size: int
    mtime_ns: int

    def read(self, i: int) -> np.ndarray:
        """Block i (planes, N, N), unpacked where it is packed. Raises CubesError when the file has changed."""
        return np.array(self._block(i))

    def sample(self, i: int) -> np.ndarray:
        """Three rows of block i, away from its edges, by which it is known again."""
        block, (planes, side) = self._block(i), self.shape[1:3]
        return np.concatenate([block[int(a * planes), int(b * side)] for a, b in ((0.2, 0.3), (0.5, 0.1), (0.8, 0.6))])

    def _block(self, i: int) -> np.ndarray:
        with reading(self.path):
            if (now := self.path.stat().st_size) != self.size:
                raise refusal(self.path, f"{now} bytes while reading, not {self.size}", "as many", "wait for the copy")
            if self.dataset is None:
                return np.load(self.path, mmap_mode="r", allow_pickle=False).reshape(self.shape)[i]
            with h5py.File(self.path) as file:
                data = file[self.dataset]
                lead = next(axis for axis, n in enumerate(data.shape) if n != 1)
                values = data[(0,) * lead + (i,)] if self.shape[0] > 1 else data[()]
                return _unpacked(values, data.attrs).reshape(self.shape[1:])


def _unpacked(values: np.ndarray, beside: Mapping) -> np.ndarray:
    """Values, from the attributes beside them as the netCDF conventions pack numbers. A scale_factor of real numbers
    is that of cosmology."""
    packed = values.dtype.kind in "iu" or "add_offset" in beside
    told = {name: np.ravel(beside[name])[0] for name in PACKING[not packed :] if name in beside}
    if not told:
        return values
    numbers = values * np.float64(told.pop("scale_factor", 1)) + told.pop("add_offset", 0)
    return np.where(np.isin(values, [*told.values()]), np.nan, numbers)


def open_arrays(path: Path, n_maps: int = 0) -> list[Stack]:
    """The arrays of cubes in a file, with their shapes as stacks; NoCubes when there is none.

    n_maps   of a universe, in a file of maps

    Raises CubesError for a file that cannot be read, is not whole, holds no real numbers, or cubes in another shape.
    """
    status, stacks, refused = existing(path), [], []
    if not path.is_file():
        raise refusal(path, "no regular file", "a file of numbers", "name a file or a folder of files")
    with reading(path):
        arrays = _hdf5_arrays(path) if path.suffix.lower() in HDF5 else _numpy_array(path)
    for name, (shape, dtype) in arrays.items():
        try:
            stack = stack_shape(f"{path}/{name}" if name else path, shape, dtype, n_maps)
            stacks.append(Stack(path, name, stack, status.st_size, status.st_mtime_ns))
        except CubesError as error:  # beside cubes it may be anything
            refused.append(error)
    if not stacks:
        nothing = refusal(path, "no data set", CUBES, "save cubes with np.save", NoCubes)
        raise min([*refused, nothing], key=lambda error: isinstance(error, NoCubes))
    return sorted(stacks, key=lambda stack: natural(stack.dataset))


def stack_shape(where: object, shape: tuple[int, ...], dtype: np.dtype, n_maps: int = 0) -> tuple[int, ...]:
    """A shape as (n, N, N, N), or (n, maps, N, N); axes of length 1 go. Raises CubesError with what to write."""
    long, expected = tuple(n for n in shape if n != 1), CUBES
    stack = (1, *long) if len(long) == 3 else long
    if n_maps:
        expected = f"maps (n, N, N) with n a multiple of {n_maps}"
        stack = (long[0] // n_maps, n_maps, *long[1:]) if len(long) == 3 and long[0] % n_maps == 0 else ()
    if len(stack) != 4 or 0 in stack or len({*stack[2 if n_maps else 1 :]}) > 1:
        advice = "cut or reshape it: flat ones by .reshape(-1, N, N, N); of cubes, fields or times at last [..., 0]"
        raise refusal(where, f"an array of shape {shape}", expected, advice, CubesError if len(long) > 2 else NoCubes)
    if dtype.kind not in "fiu":
        raise refusal(where, f"values of type {dtype}", "real numbers", "save them again as float32")
    return stack


def existing(path: Path) -> os.stat_result:
    """Status of a path. Raises CubesMissing when it does not exist, CubesError when it cannot be followed or read."""
    with reading(path):
        if path.exists():
            return path.stat()
    found = f"a link to {os.readlink(path)}, which does not exist" if path.is_symlink() else "no such file or folder"
    advice = 'check the path (--data.path, UVAE_DATA; of a pattern give the folder, field="cube_*"), or simulate some'
    raise refusal(path, found, "cubes", advice, CubesMissing)


def _numpy_array(path: Path) -> dict:
    """The array of a `.npy` file. Raises CubesError for an archive, with what to write."""
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    if isinstance(array, np.ndarray):
        return {None: (array.shape, array.dtype)}
    advice = f'once run np.save("cubes.npy", np.load({path.name!r})[{array.files[0]!r}])'
    raise refusal(path, f"an archive of {', '.join(array.files[:8])}", "one array, read a cube at a time", advice)


def _hdf5_arrays(path: Path) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Shape and dtype of every array in an HDF5 file, links followed, each once.

    Raises CubesError for a link that leads nowhere, and for an array of three axes or more that is not whole.
    """
    arrays, links = {}, []
    with h5py.File(path) as file:
        file.visititems_links(lambda name, link: links.append((name, link)))
        for name, link in links:
            item = file.get(name)
            if item is None or (isinstance(item, h5py.Group) and isinstance(link, h5py.ExternalLink)):
                where = " ".join(getattr(link, part, "") for part in ("filename", "path"))
                found = f"{name}, a link to {where}, which leads nowhere or to a group"
                raise refusal(path, found, "a whole file", "bring what it points to, or open that file itself")
            if isinstance(item, h5py.Dataset) and item.shape is not None:
                arrays.setdefault(item, name)
        for item, name in arrays.items():
            if len(item.shape) > 2 and (missing := _missing(item, path)):
                raise refusal(path, f"{missing} of {name}", "a whole array", "bring it, or write the file again")
        return {name: (item.shape, item.dtype) for item, name in arrays.items()}


def _missing(data: h5py.Dataset, path: Path) -> str:
    """What an array lacks: sources of a virtual one, values that were never written."""
    for source in data.virtual_sources() if data.is_virtual else ():
        place = path if source.file_name == "." else path.parent / source.file_name
        try:
            with h5py.File(place) as other:
                other[source.dset_name]
        except (OSError, KeyError):
            return f"no {source.dset_name} in {place}, a source"
    if data.chunks:
        n = math.prod(-(-a // b) for a, b in zip(data.shape, data.chunks, strict=True))
        return f"{written} of {n} chunks" if (written := data.id.get_num_chunks()) < n else ""
    return "" if data.is_virtual or data.external or data.id.get_storage_size() else "no written value"


@lru_cache(4096)
def attributes(stack: Stack) -> dict[str, object]:
    """What stands beside an array of an HDF5 file, nearest first: attributes of it, of the groups around it and single
    numbers in these, of groups without cubes in these; with the unit where one stands beside ("500.0 Mpc/h"). Where
    groups side by side tell different things it is a text ("0.3 or 0.4"), as nobody knows whose each is."""
    if stack.dataset is None:
        return {}
    with h5py.File(stack.path) as file:
        around = [file[str(place)] for place in PurePosixPath("/", stack.dataset).parents]
        found = {name: value for place in (file[stack.dataset], *around) for name, value in _told(place).items()}
        for group in around:
            inside = [item for item in group.values() if isinstance(item, h5py.Group)]
            beside = [item for item in inside if not any(getattr(data, "ndim", 0) > 2 for data in item.values())]
            texts: dict[str, dict] = {}
            for name, value in [one for item in beside for one in _told(item).items()]:
                texts.setdefault(name.rpartition("/")[2], {}).setdefault(as_text(value), (name, value))
            for values in texts.values():
                name, value = next(iter(values.values()))
                found.setdefault(name, value if len(values) == 1 else " or ".join([*values][:4]))
    return found


def _told(place: h5py.Group | h5py.Dataset) -> dict[str, object]:
    """Attributes of a group or a data set by their paths, and the data sets of a group that hold one number."""
    inside = place.items() if isinstance(place, h5py.Group) else ()
    told = dict(place.attrs) | {name: item[()] for name, item in inside if getattr(item, "size", None) == 1}
    units = {name: told.get(f"{name}_units", told.get(f"{name}_unit")) for name in told}
    texts = {n: v if units[n] is None else f"{as_text(v)} {as_text(units[n])}" for n, v in told.items()}
    return {f"{place.name}/{name}".lstrip("/"): text for name, text in texts.items()}


def as_text(value: object) -> str:
    """An attribute as it reads, in at most 80 signs: bytes decoded, or counted, numbers between brackets."""
    values = np.ravel(np.asarray(value))[:7].tolist()
    texts = [v.decode(errors="replace") if isinstance(v, bytes) else str(v) for v in values]
    texts = [f"{len(v)} bytes" if "\ufffd" in text else text[:80] for v, text in zip(values, texts, strict=True)]
    return texts[0] if len(texts) == 1 else f"[{', '.join(texts[:6])}{', ...' * (len(texts) > 6)}]"


def read_length(value: object) -> list[float] | None:
    """Lengths [Mpc/h] of a text with a unit, as "500 Mpc/h" or "[500 500 500] h^-1 Mpc".

    Returns None for a number without a unit, and for what is no length.
    """
    found = LENGTH.fullmatch(as_text(value))
    if not found or not (found[2] or found[4]):
        return None
    scale = {"k": 1e-3, "M": 1.0, "G": 1e3}[found[3]]
    numbers = [float(number) * scale for number in re.findall(r"[-+]?\d+\.?\d*(?:[eE][-+]?\d+)?", found[1])]
    return numbers if len(numbers) == 1 or found[1].strip()[:1] in ("[", "(") else None  # no decimal comma, no range


def box_names(told: dict) -> list[str]:
    """Attributes that are called as sides of boxes are."""
    return [name for name in told if BOX.fullmatch(re.sub(r"[\W_]", "", name.rpartition("/")[2].lower()))]


def box_of(path: Path, stacks: Iterable[Stack]) -> float | None:
    """Side of the box [Mpc/h] where attributes give it with its unit, and none says another number.

    Raises CubesError for sides that differ."""
    boxes = set()
    for stack in stacks:
        told = attributes(stack)
        named = {name: read_length(told[name]) for name in box_names(told)}
        for name, lengths in named.items():
            if len({*(lengths or np.ravel(told[name]).tolist())}) > 1:
                raise refusal(path, f"{name} = {as_text(told[name])}", "a cube, as long as wide", "cut it to cubes")
        sides = [lengths[0] for lengths in named.values() if lengths]
        plain = [x[0] for x in (np.ravel(told[name]) for name in named) if x.dtype.kind in "fiu"]
        agree = all(np.isclose(x, np.multiply(sides[0], (1e-3, 1, 1e3)), 1e-3).any() for x in plain if sides)
        boxes.add(sides[0] if sides and agree else None)
    if len(boxes) > 1:
        raise refusal(path, f"boxes of {', '.join(map(str, boxes))} [Mpc/h]", "one box size", "open each by itself")
    return boxes.pop()
