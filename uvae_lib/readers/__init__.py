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
from .arrays import CubesError, Hdf5File, NoCubes, existing, natural, refusal, regular_file
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
    for files in (files_in(path), files_below(path, 3)):
        for format in ("cmd-grids", "cmd-maps"):
            if any(NAMES[format].fullmatch(file.name) for file in files):
                return format
        if quijote.find_sets(path):
            return "quijote"
        if format := _plain_format(path, _arrays(files)):
            return format
    raise _nothing(path, [file.name for file in files_in(path)])


def _arrays(files: list[Path]) -> list[Path]:
    """Files that are called as arrays are, and not as parameters."""
    return [file for file in files if is_array(file) and not file.name.lower().startswith("param")]


def _holds_cubes(path: Path) -> bool:
    """False for a whole file of something else; a damaged one may have held cubes."""
    try:
        open_cubes_of(path, None)
    except NoCubes:
        return False
    except CubesError:
        return True
    return True


def _plain_format(path: Path, files: list[Path]) -> str | None:
    """npy or hdf5, whichever the arrays are. Raises CubesError when there are cubes in both."""
    groups = {name: [file for file in files if file.suffix.lower() in suffixes] for name, suffixes in FORMATS.items()}
    present = [name for name, members in groups.items() if members]
    if len(present) < 2:
        return present[0] if present else None
    holding = [name for name in present if any(map(_holds_cubes, groups[name]))]
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
        params=parameters.plain_parameters(root, stacks, request.params, ids, remarks),
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
    here, below = ([f for f in _arrays(files) if f.suffix.lower() in FORMATS[format]]
                   for files in (files_in(path), files_below(path, 3)))  # fmt: skip
    if not below:
        found, advice = f"no {FORMATS[format][0]} file", "leave format= (--data.format) out, or check the path"
        raise refusal(path, found, f"{format} files of cubes", advice)
    files = here or _of_one_name(path, below, request.field, remarks)
    if here and (deeper := [str(file.relative_to(path)) for file in below if file not in here]):
        remarks.cautions.append(f"{len(deeper)} files in folders below are not opened ({', '.join(deeper[:3])}, ...)")
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


READERS: dict[str, Callable[[Path, ReaderOptions], SuiteFiles]] = {
    "cmd-grids": camels.grids,
    "cmd-maps": camels.maps,
    "quijote": quijote.density_fields,
    "hdf5": partial(plain, format="hdf5"),
    "npy": partial(plain, format="npy"),
}
