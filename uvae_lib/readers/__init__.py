"""The reader for a path, chosen by name and content; and the reader of plain arrays.

Readers open headers only: what they return says where cubes lie, never what is in them.
"""

import os
import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from . import camels, parameters, quijote
from .arrays import Hdf5File, NoCubes, existing, natural, refusal, regular_file
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
    is_array,
    open_cubes_of,
)

NAMES = {"cmd-grids": camels.GRIDS, "cmd-maps": camels.MAPS, "quijote": quijote.NAME}
# what is no array of ours, by its first bytes: what it is, and what makes a .npy file of it
STRANGERS = {
    b"SIMPLE  =": ("a FITS file", "astropy.io.fits.getdata reads it, then "),
    b"\x1f\x8b": ("a file compressed by gzip", "gunzip it, or "),
    b"MATLAB": ("a MATLAB file", "scipy.io.loadmat reads it, then "),
    b"CDF": ("a NetCDF file", "xarray reads it, then "),
    b"\x80": ("a pickle", "pickles are never opened: load it where you trust it, then "),
    b"PK\x03\x04": ("a zip archive (PyTorch, zarr, ...)", "unpack it where you trust it, then "),
}
FOLDERS = {"attr-v2": "BigFile", ".zgroup": "zarr", ".zarray": "zarr", "zarr.json": "zarr"}  # by a file in them


def find_layout(path: Path, format: str | None, request: ReaderOptions) -> SuiteFiles:
    """Choose the reader by name and content, or by `format`, and let it look.

    Raises CubesError when nothing at the path can be read as cubes.
    """
    existing(path)
    if format is not None and format not in READERS:
        raise refusal(f"format={format!r}", "an unknown format", f"one of {', '.join(READERS)}", "choose one")
    layout = READERS[format or (guess_folder(path) if path.is_dir() else guess_file(path))](path, request)
    passed = _not_opened(path, layout) if path.is_dir() else []
    if not passed:
        return layout
    text = f"{path} also holds {', '.join(passed[:5])}{', ...' * (len(passed) > 5)}, not opened"
    return replace(layout, cautions=(*layout.cautions, text))


def guess_file(path: Path) -> str:
    """Format of a single file, by its name, then by its first bytes."""
    regular_file(path)
    named = next((name for name, pattern in NAMES.items() if pattern.fullmatch(path.name)), None)
    if found := named or format_of(path):
        return found
    found, advice = _stranger(path)
    raise refusal(path, found, "a .npy or HDF5 file", f"{advice}save the cubes with np.save (float32), (n, N, N, N)")


def guess_folder(path: Path) -> str:
    """Format of a folder, by the names in it and up to three folders below."""
    names = [file.name for file in files_in(path)]
    for format in ("cmd-grids", "cmd-maps"):
        if any(NAMES[format].fullmatch(name) for name in names):
            return format
    if quijote.find_sets(path):
        return "quijote"
    if format := _plain_format(path, _arrays(path, files_in(path))):
        return format
    below = files_below(path, 3)
    for format in ("cmd-grids", "cmd-maps"):
        if any(NAMES[format].fullmatch(file.name) for file in below):
            return format
    if format := _plain_format(path, _arrays(path, below)):
        return format
    raise _nothing(path, names)


def _arrays(path: Path, files: list[Path]) -> list[Path]:
    """Files that are called as arrays are, tables of parameters aside."""
    tables = {table for folder in {file.parent for file in files} for table in parameters.tables_in(folder)}
    return [file for file in files if is_array(file) and not (file in tables and _is_table(file))]


def _is_table(path: Path) -> bool:
    """Whether a .npy file holds no cubes."""
    try:
        open_cubes_of(path, None)
    except NoCubes:
        return True
    except ValueError:
        return path.name.lower().startswith("param")
    return False


def _plain_format(path: Path, files: list[Path]) -> str | None:
    """npy or hdf5, whichever the arrays are. Raises CubesError when there are cubes in both."""
    groups = {name: [file for file in files if file.suffix.lower() in suffixes] for name, suffixes in FORMATS.items()}
    present = [name for name, members in groups.items() if members]
    if len(present) < 2:
        return present[0] if present else None
    holding = [name for name in present if not all(_is_table(file) for file in groups[name])]
    if len(holding) == 2:
        found = " and ".join(f"{len(groups[name])} {name} files ({groups[name][0].name}, ...)" for name in holding)
        advice = 'pass format="npy" or "hdf5" (--data.format), or move the others away'
        raise refusal(path, f"cubes in {found}", "one format", advice)
    return (holding or present)[0]


def _nothing(path: Path, names: list[str]) -> Exception:
    """What to say of a folder without cubes."""
    if any(name.endswith(".npy.partial") for name in names):
        found, advice = "a simulation that is not finished (.npy.partial)", "run `simulate` again, it goes on"
        return refusal(path, found, "cubes", advice)
    closed = [p.name for p in path.iterdir() if p.is_dir() and not os.access(p, os.R_OK | os.X_OK)]
    found = f"{len(names)} files, none of them cubes" if names else "an empty folder"
    strange = [f"{name}: {_stranger(path / name)[0]}" for name in names[:100] if _stranger(path / name)[1]]
    found += f" ({', '.join(strange[:3])})" if strange else ""
    found += f" (no permission to look into {', '.join(closed[:5])})" if closed else ""
    for place in (path, *(p for p in path.iterdir() if p.is_dir())):
        kinds = (kind for name, kind in FOLDERS.items() if (place / name).exists())
        found = next((f"a {kind} folder, {place.name}" for kind in kinds), found)
    advice = "check the path, or name the file itself, or save the cubes with np.save"
    return refusal(path, found, "files .npy or .hdf5 of cubes", advice)


def _stranger(path: Path) -> tuple[str, str]:
    """What a file is that is no array, and what to do with it."""
    try:
        with open(path, "rb") as file:
            start = file.read(16)
    except OSError:
        return "a file that cannot be read", ""
    for magic, (what, advice) in STRANGERS.items():
        if start.startswith(magic):
            return f"{what}, a file that starts with {start[:8]!r}", advice
    return (f"a file that starts with {start[:8]!r}", "") if start else ("an empty file", "")


def _not_opened(path: Path, layout: SuiteFiles) -> list[str]:
    """Arrays in a folder that a reader passed over without a word."""
    opened, pattern = {file.path.absolute() for file in layout.files}, NAMES.get(layout.format)
    files = [file for file in files_in(path) if is_array(file) and file.absolute() not in opened]
    known = " ".join(layout.notes) + " ".join(layout.cautions)
    return [file.name for file in files if not (pattern and pattern.fullmatch(file.name)) and file.name not in known]


def plain(path: Path, request: ReaderOptions, format: str) -> SuiteFiles:
    """A file of one cube or of a stack, or a folder of such files, in natural order; trees of folders as well."""
    remarks = Remarks()
    root = path if path.is_dir() else path.parent
    stacks = _stacks(path, request, format, remarks)
    check_sides(stacks)
    ids = []
    for stack in stacks:
        stem = stack.path.relative_to(root).with_suffix("").as_posix()
        ids += [f"{root.absolute().name}/{stem}{end}" for end in _ends(stack)]
    boxes = {stack.box_size for stack in stacks if isinstance(stack, Hdf5File)} - {None}
    if len(boxes) > 1:
        found = f"boxes of {', '.join(f'{box:g}' for box in sorted(boxes)[:5])}"
        raise refusal(path, found, "one box size", "open each by itself")
    odd = [stack.box_text for stack in stacks if isinstance(stack, Hdf5File) and stack.box_text]
    datasets = sorted({f"data set {s.datasets[0]}" + f" and {len(s.datasets) - 1} more" * (len(s.datasets) > 1)
                       for s in stacks if isinstance(s, Hdf5File)})  # fmt: skip
    what = ", ".join([f"{len(stacks)} files" if len(stacks) > 1 else path.name, *datasets])
    return SuiteFiles(
        format=format,
        source=f"{what} ({path})",
        files=tuple(stacks),
        ids=tuple(ids),
        params=_params(root, stacks, request, ids, remarks),
        box_size=min(boxes, default=None),
        box_from="from the file's attributes",
        box_caution=f"the box {odd[0]} is no length in Mpc/h" if odd else "",
        notes=tuple(remarks.notes),
        cautions=tuple(remarks.cautions),
    )


def _stacks(path: Path, request: ReaderOptions, format: str, remarks: Remarks) -> list:
    """The files of cubes at a path; in a tree, those of one name, each folder a simulation."""
    if not path.is_dir():
        return [open_cubes_of(path, request.dataset, format)]
    here, below = ([f for f in _arrays(path, files) if f.suffix.lower() in FORMATS[format]]
                   for files in (files_in(path), files_below(path, 3)))  # fmt: skip
    if not below:
        found, advice = f"no {FORMATS[format][0]} file", "leave format= (--data.format) out, or check the path"
        raise refusal(path, found, f"{format} files of cubes", advice)
    files = here or _of_one_name(path, below, request.field, remarks)
    stacks, reasons = [], []
    for file in sorted(files, key=natural):
        try:
            stacks.append(open_cubes_of(file, request.dataset, format))
        except NoCubes as reason:  # a catalogue, labels
            reasons.append(reason)
    if not stacks:
        raise reasons[0]
    return stacks


def _of_one_name(path: Path, files: list[Path], wanted: str | None, remarks: Remarks) -> list[Path]:
    """The files of a tree that are called alike but for numbers, as run0/density.npy; field= chooses among several."""
    kind = {file: re.sub(r"\d+", "#", file.name) for file in files}
    kinds = {name: next(file.name for file in files if kind[file] == name) for name in sorted(set(kind.values()))}
    chosen = choose(path, "field", sorted(kinds.values()), wanted, (), remarks.notes)
    found = [file for file in files if kinds[kind[file]] == chosen]
    without = sorted({file.parent.name for file in files} - {file.parent.name for file in found})
    remarks.notes.append(f"{len(found)} files called {chosen} in {len({f.parent for f in found})} folders")
    if without:
        remarks.cautions.append(f"no {chosen} in {', '.join(without[:5])}: left out")
    return found


def _ends(stack) -> list[str]:
    """What tells the cubes of a file apart: its groups or data sets, or numbers; nothing where there is one."""
    if isinstance(stack, Hdf5File) and len(stack.datasets) > 1:
        leaves = {name.rpartition("/")[2] for name in stack.datasets}
        return [f"/{name.rpartition('/')[0] if len(leaves) == 1 else name}" for name in stack.datasets]
    return [f"/{i}" for i in range(stack.shape[0])] if stack.shape[0] > 1 else [""]


def _params(root: Path, stacks: list, request: ReaderOptions, ids: list[str], remarks: Remarks):
    """As given, beside the cubes, or inside HDF5 files."""
    usual = "params.txt or params.csv"
    if request.params is not None:
        separate = len(stacks) == len(ids)
        return parameters.parameter_table(request.params, (), ids, remarks, usual, separate=separate)
    inside = [parameters.hdf5_parameters(stack) for stack in stacks if isinstance(stack, Hdf5File)]
    paths = [stack.path for stack in stacks]
    folders = [root, *(p.parent for p in paths if p.parent != root)]
    if not inside or any(table is None for table in inside) or parameters.tables_in(root, paths):
        return parameters.found_beside(folders, paths, ids, remarks, usual)
    remarks.notes.append("parameters from inside the HDF5 files")
    quiet = Remarks()
    tables = [parameters.read_parameters(table, (), quiet) for table in inside]
    remarks.cautions += quiet.cautions[:1]
    return parameters.pd.concat(tables, ignore_index=True).dropna(axis=1)


READERS: dict[str, Callable[[Path, ReaderOptions], SuiteFiles]] = {
    "cmd-grids": camels.grids,
    "cmd-maps": camels.maps,
    "quijote": quijote.density_fields,
    "hdf5": partial(plain, format="hdf5"),
    "npy": partial(plain, format="npy"),
}
