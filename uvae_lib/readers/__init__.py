"""The reader for a path, chosen by name and content; and the reader of plain arrays.

Readers open headers only: what they return says where cubes lie, never what is in them.
"""

import os
import re
from collections.abc import Callable
from pathlib import Path

from . import camels, parameters, quijote
from .arrays import HDF5_MAGIC, NPY_MAGIC, Hdf5File, existing, refusal, regular_file
from .layout import (
    HDF5_SUFFIXES,
    ReaderOptions,
    SuiteFiles,
    check_sides,
    files_below,
    files_in,
    open_cubes_of,
    parameter_table,
)


def find_layout(path: Path, format: str | None, request: ReaderOptions) -> SuiteFiles:
    """Choose the reader by name and content, or by `format`, and let it look.

    Raises CubesError when nothing at the path can be read as cubes.
    """
    existing(path)
    if format is not None and format not in READERS:
        raise refusal(f"format={format!r}", "an unknown format", f"one of {', '.join(READERS)}", "choose one")
    return READERS[format or (guess_folder(path) if path.is_dir() else guess_file(path))](path, request)


def guess_file(path: Path) -> str:
    """Format of a single file, by its name, then by its first bytes."""
    regular_file(path)
    for name, pattern in (("cmd-grids", camels.GRIDS), ("cmd-maps", camels.MAPS), ("quijote", quijote.NAME)):
        if pattern.fullmatch(path.name):
            return name
    with open(path, "rb") as file:
        start = file.read(len(HDF5_MAGIC))
    if start == HDF5_MAGIC or path.suffix in HDF5_SUFFIXES:
        return "hdf5"
    if start[: len(NPY_MAGIC)] == NPY_MAGIC or path.suffix == ".npy":
        return "npy"
    found = f"a file that starts with {start!r}" if start else "an empty file"
    advice = "save the cubes with np.save (float32), shape (n, N, N, N)"
    raise refusal(path, found, "a .npy or HDF5 file", advice)


def guess_folder(path: Path) -> str:
    """Format of a folder, by the names in it and up to three folders below."""
    names = [file.name for file in files_in(path)]
    if any(camels.GRIDS.fullmatch(name) for name in names):
        return "cmd-grids"
    if any(camels.MAPS.fullmatch(name) for name in names):
        return "cmd-maps"
    if quijote.find_sets(path):
        return "quijote"
    if any(name.endswith(HDF5_SUFFIXES) for name in names):
        return "hdf5"
    if any(name.endswith(".npy") for name in names):
        return "npy"
    below = [file.name for file in files_below(path, 3)]
    for format, pattern in (("cmd-grids", camels.GRIDS), ("cmd-maps", camels.MAPS)):
        if any(pattern.fullmatch(name) for name in below):
            return format
    if any(name.endswith(".npy.partial") for name in names):
        found, advice = "a simulation that is not finished (.npy.partial)", "run `simulate` again, it goes on"
        raise refusal(path, found, "cubes", advice)
    closed = [p.name for p in path.iterdir() if p.is_dir() and not os.access(p, os.R_OK | os.X_OK)]
    found = f"{len(names)} files, none of them cubes" if names else "an empty folder"
    found += f" (no permission to look into {', '.join(closed[:5])})" if closed else ""
    raise refusal(path, found, "files .npy or .hdf5 of cubes", "check the path, or name the file itself")


def plain_hdf5(path: Path, request: ReaderOptions) -> SuiteFiles:
    """HDF5: a file, or a folder of files, with one cube or a stack in a data set."""
    return _plain(path, request, HDF5_SUFFIXES, "hdf5")


def plain_npy(path: Path, request: ReaderOptions) -> SuiteFiles:
    """.npy: a file, or a folder of files, with one cube or a stack."""
    return _plain(path, request, (".npy",), "npy")


def _plain(path: Path, request: ReaderOptions, suffixes: tuple[str, ...], format: str) -> SuiteFiles:
    """A file of one cube or of a stack, or a folder of such files in natural order."""
    folder = path if path.is_dir() else path.parent
    paths = [path]
    if path.is_dir():
        paths = sorted(files_in(path), key=_natural)
        paths = [p for p in paths if p.name.endswith(suffixes) and not p.name.startswith("param")]
        if not paths:
            found, advice = f"no {suffixes[0]} file", "leave format= out, or check the path"
            raise refusal(path, found, f"{format} files of cubes", advice)
    stacks = [open_cubes_of(p, request.dataset, format) for p in paths]
    check_sides(stacks)
    notes: list[str] = []
    boxes = {s.box_size for s in stacks if isinstance(s, Hdf5File)} - {None}
    if len(boxes) > 1:
        found = f"boxes of {', '.join(f'{box:g}' for box in sorted(boxes)[:5])}"
        raise refusal(path, found, "one box size", "open each by itself")
    datasets = sorted({f"data set {s.dataset}" for s in stacks if isinstance(s, Hdf5File)})
    ids = [
        f"{folder.absolute().name}/{s.path.stem}" + (f"/{i}" if s.shape[0] > 1 else "")
        for s in stacks
        for i in range(s.shape[0])
    ]
    source = parameters.plain_file(folder) if request.params is None else request.params
    table = parameter_table(source, (), len(ids), notes, "params.txt or params.csv")
    what = ", ".join([f"{len(stacks)} files" if len(stacks) > 1 else path.name, *datasets])
    return SuiteFiles(
        format=format,
        source=f"{what} ({path})",
        files=tuple(stacks),
        ids=tuple(ids),
        params=table,
        box_size=min(boxes, default=None),
        box_from="from the file's attributes",
        notes=tuple(notes),
    )


def _natural(path: Path) -> list:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path.name)]


READERS: dict[str, Callable[[Path, ReaderOptions], SuiteFiles]] = {
    "cmd-grids": camels.grids,
    "cmd-maps": camels.maps,
    "quijote": quijote.density_fields,
    "hdf5": plain_hdf5,
    "npy": plain_npy,
}
