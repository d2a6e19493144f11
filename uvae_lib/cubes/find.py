"""The reader for a path, chosen by name and content; and the reader of plain arrays.

Readers open headers only: what they return says where cubes lie, never what is in them.
"""

import os
import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

from . import camels, parameters, quijote
from .arrays import HDF5_MAGIC, NPY_MAGIC, CubesError, Hdf5File, NoCubes, existing, natural, refusal, regular_file
from .layout import (
    FORMATS,
    ReaderOptions,
    Remarks,
    SuiteFiles,
    check_sides,
    choose,
    files_below,
    files_in,
    format_of,
    open_cubes_of,
)

NAMES = {"cmd-grids": camels.GRIDS, "cmd-maps": camels.MAPS, "quijote": quijote.NAME}
# what is no array of ours, by its first bytes or by a file in its folder
STRANGERS = {b"SIMPLE  =": "a FITS file", b"\x1f\x8b": "a file compressed by gzip", b"MATLAB": "a MATLAB file",
             b"CDF": "a NetCDF file", b"\x80": "a pickle, which is never opened",
             b"PK\x03\x04": "a zip archive (PyTorch, zarr, ...)",
             HDF5_MAGIC: "an HDF5 file by another name (open it by its own path, or call it .hdf5)",
             NPY_MAGIC: "a NumPy file by another name (open it by its own path, or call it .npy)"}  # fmt: skip
FOLDERS = {"attr-v2": "BigFile", ".zgroup": "zarr", ".zarray": "zarr", "zarr.json": "zarr"}
ADVICE = "read it where you trust it, and save the cubes with np.save (float32), (n, N, N, N)"


def find_layout(path: Path, format: str | None, request: ReaderOptions) -> SuiteFiles:
    """Choose the reader by name and content, or by `format`, and let it look.

    Raises CubesError when nothing at the path can be read as cubes.
    """
    existing(path)
    if format is not None and format not in READERS:
        raise refusal(f"format={format!r}", "an unknown format", f"one of {', '.join(READERS)}", "choose one")
    guessed = format or (_guess_folder(path) if path.is_dir() else _guess_file(path))
    layout = READERS.get(guessed, plain)(path, request)
    cautions = [*layout.cautions]
    if path.is_dir() and (passed := _not_opened(path, layout)):
        cautions.append(f"{path} also holds {', '.join(passed[:5])}{', ...' * (len(passed) > 5)}, not opened")
    if request.params is None and (tables := _not_read(path, layout)):
        could = f"{', '.join(tables[:5])}{', ...' * (len(tables) > 5)} could be them"
        cautions.append(f"no parameters read: {could}; pass params= (--data.params) with one table, one row a cube")
    return replace(layout, cautions=cautions)


def _guess_file(path: Path) -> str:
    """Format of a single file, by its name, then by its first bytes."""
    regular_file(path)
    named = (name for name, pattern in NAMES.items() if pattern.fullmatch(path.name))
    if found := next(named, None) or format_of(path):
        return found
    raise refusal(path, _stranger(path), "a .npy or HDF5 file", ADVICE)


def _guess_folder(path: Path) -> str | None:
    """Format of a folder, by the names in it and up to three folders below; None for plain arrays."""
    for files in (files_in(path), files_below(path)):
        for format in ("cmd-grids", "cmd-maps"):
            if any(NAMES[format].fullmatch(file.name) for file in files):
                return format
        if quijote.find_sets(path):
            return "quijote"
        if _arrays(files):
            return None
    raise _nothing(path, files_in(path))


def _arrays(files: list[Path], formats=tuple(FORMATS)) -> list[Path]:
    """Files that are called as arrays are, and not as parameters, in natural order."""
    suffixes = [suffix for format in formats for suffix in FORMATS[format]]
    found = [f for f in files if f.suffix.lower() in suffixes and not f.name.lower().startswith("param")]
    return sorted(found, key=natural)


def _nothing(path: Path, files: list[Path]) -> Exception:
    """What to say of a folder without cubes."""
    if any(file.name.endswith(".npy.partial") for file in files):
        found, advice = "a simulation that is not finished (.npy.partial)", "run `simulate` again, it goes on"
        return refusal(path, found, "cubes", advice)
    folders = [path, *(p for p in path.iterdir() if p.is_dir())]
    closed = [p.name for p in folders if not os.access(p, os.R_OK | os.X_OK)]
    found = f"{len(files)} files, none of them cubes" if files else "an empty folder"
    found += "".join(f"; {file.name} is {_stranger(file)}" for file in files[:3])
    marks = ((kind, p) for file, kind in FOLDERS.items() for up in ("", "*/", "*/*/") for p in path.glob(up + file))
    found += "".join(f"; a {kind} folder, {p.parent.name}" for kind, p in islice(marks, 3))
    found += f"; no permission to look into {', '.join(closed[:5])}" if closed else ""
    return refusal(path, found, "files .npy or .hdf5 of cubes", f"check the path, or {ADVICE}")


def _stranger(path: Path) -> str:
    """What a file is that is no array."""
    try:
        with open(path, "rb") as file:
            start = file.read(16)
    except OSError:
        return "a file that cannot be read"
    named = next((what for magic, what in STRANGERS.items() if start.startswith(magic)), "a file")
    return f"{named}, that starts with {start[:8]!r}" if start else "an empty file"


def _not_opened(path: Path, layout: SuiteFiles) -> list[str]:
    """Arrays in a folder that a reader passed over without a word."""
    opened, pattern = {file.path.absolute() for file in layout.files}, NAMES.get(layout.format)
    files = [file for file in _arrays(files_in(path)) if file.absolute() not in opened]
    known = " ".join(layout.notes) + " ".join(layout.cautions)
    return [file.name for file in files if not (pattern and pattern.fullmatch(file.name)) and file.name not in known]


def _not_read(path: Path, layout: SuiteFiles) -> list[str]:
    """Tables beside the cubes of a suite without parameters, those of other CAMELS sets left out."""
    if not layout.params.empty or "parameters" in " ".join(layout.cautions):
        return []
    folders = dict.fromkeys([path if path.is_dir() else path.parent, *(file.path.parent for file in layout.files)])
    tables = [table for folder in folders for table in parameters.tables_in(folder)]
    sets = [re.search(r"(?<![^_])(LH|CV|1P|EX|BE|SB\d+)(?![^_])", table.stem) for table in tables]
    own = (None, *layout.ids[0].split("/"))
    return [f"{t.parent.name}/{t.name}" for t, s in zip(tables, sets, strict=True) if (s and s[1]) in own]


def plain(path: Path, request: ReaderOptions, format: str | None = None) -> SuiteFiles:
    """A file of one cube or of a stack, or a folder of such files, in natural order; trees of folders as well.

    format   npy or hdf5, where a folder holds cubes in both
    """
    remarks = Remarks()
    root = path if path.is_dir() else path.parent
    stacks = _stacks(path, request, format, remarks)
    check_sides(stacks)
    ids = []
    for stack in stacks:
        stem = stack.path.relative_to(root).with_suffix("").as_posix()
        ids += [f"{root.absolute().name}/{stem}{end}" for end in _ends(stack)]
    hdf5 = isinstance(stacks[0], Hdf5File)
    boxes = {stack.box_size for stack in stacks if hdf5} - {None}
    if len(boxes) > 1:
        found = f"boxes of {', '.join(f'{box:g}' for box in sorted(boxes)[:5])}"
        raise refusal(path, found, "one box size", "open each by itself")
    what = f"{len(stacks)} files" if len(stacks) > 1 else stacks[0].path.name
    return SuiteFiles(
        format="hdf5" if hdf5 else "npy",
        source=f"{what}{f', data set {stacks[0].datasets[0]}' if hdf5 else ''} ({path})",
        files=tuple(stacks),
        ids=tuple(ids),
        params=parameters.plain_parameters(root, stacks, request.params, ids, remarks),
        box_size=min(boxes, default=None),
        box_from="from the file's attributes",
        **vars(remarks),
    )


def _stacks(path: Path, request: ReaderOptions, format: str | None, remarks: Remarks) -> list:
    """The files of cubes at a path; in a tree, those of one name, each folder a simulation."""
    if not path.is_dir():
        return [open_cubes_of(path, request.dataset, format)]
    formats = (format,) if format else tuple(FORMATS)
    here, below = _arrays(files_in(path), formats), _arrays(files_below(path), formats)
    if not below:
        advice = "leave format= (--data.format) out, or check the path"
        raise refusal(path, f"no {FORMATS[formats[0]][0]} file", f"{format} files of cubes", advice)
    files = here or _of_one_name(path, below, request, remarks)
    if here and (deeper := [str(file.relative_to(path)) for file in below if file not in here]):
        remarks.cautions.append(f"{len(deeper)} files in folders below are not opened ({', '.join(deeper[:3])}, ...)")
    stacks, reasons = [], []
    for file in files:
        try:
            stacks.append(open_cubes_of(file, request.dataset, format))
        except NoCubes as reason:  # a catalogue, labels
            reasons.append(reason)
    if not stacks:
        raise reasons[0]
    if len({type(stack) for stack in stacks}) > 1:
        found = f"cubes in both .npy and HDF5 files ({', '.join(stack.path.name for stack in stacks[:5])}, ...)"
        raise refusal(path, found, "one format", 'pass format="npy" or "hdf5" (--data.format), or move the others away')
    return stacks


def _of_one_name(path: Path, files: list[Path], request: ReaderOptions, remarks: Remarks) -> list[Path]:
    """The files of a tree that are called alike but for numbers, as run0/density.npy; field= chooses among several."""
    kinds: dict[str, list[Path]] = {}
    for file in files:
        kinds.setdefault(re.sub(r"\d+", "#", file.name), []).append(file)
    named = {members[0].name: members for members in kinds.values()}
    others = [name for name, members in named.items() if len(named) > 1 and _other(members[0], request)]
    if request.field is None and 0 < len(others) < len(named):
        remarks.cautions.append(f"{path} also holds {', '.join(others[:5])} in its folders, not opened: no cubes")
        named = {name: members for name, members in named.items() if name not in others}
    chosen = choose(path, "field", sorted(named), request.field, (), remarks)
    without = sorted({file.parent.name for file in files} - {file.parent.name for file in named[chosen]})
    remarks.notes.append(f"{len(named[chosen])} files called {chosen} in folders")
    if without:
        remarks.cautions.append(f"no {chosen} in {', '.join(without[:5])}: left out")
    return named[chosen]


def _other(file: Path, request: ReaderOptions) -> bool:
    """Whether a file is whole and holds something else than cubes: a catalogue, labels."""
    try:
        open_cubes_of(file, request.dataset)
    except CubesError as error:
        return isinstance(error, NoCubes)
    return False


def _ends(stack) -> list[str]:
    """What tells the cubes of a file apart: its groups or data sets, or numbers; nothing where there is one."""
    if isinstance(stack, Hdf5File) and len(stack.datasets) > 1:
        leaves = {name.rpartition("/")[2] for name in stack.datasets}
        return [f"/{name.rpartition('/')[0] if len(leaves) == 1 else name}" for name in stack.datasets]
    return [f"/{i}" for i in range(stack.shape[0])] if stack.shape[0] > 1 else [""]


READERS: dict[str, Callable[[Path, ReaderOptions], SuiteFiles]] = {
    "cmd-grids": camels.grids,
    "cmd-maps": camels.maps,
    "quijote": quijote.density_fields,
    "hdf5": partial(plain, format="hdf5"),
    "npy": partial(plain, format="npy"),
}
