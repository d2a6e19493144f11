"""Where the cubes of a suite lie: what every reader returns, and the reader of cubes in no known layout.

Such cubes are taken for nothing but what the user says they are: names of files, groups and data sets tell which cubes
belong together, and where that leaves a choice it is asked for.
"""

import dataclasses
import os
import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np

from .arrays import SUFFIXES, CubesError, NoCubes, Stack, as_text, attributes, natural, open_arrays, refusal, stranger

EPOCH = re.compile(
    r"(?:(?<![A-Za-z])(?:z|a|redshift|scale_?factor)|snap(?:shot|dir)?|output|step|time|dump)[=_-]?(\d+(?:[.p]\d+)?)"
    r"|(?:^|(?<=/))(\d+\.\d+)(?=/|$)", re.IGNORECASE
)  # fmt: skip
PART = re.compile(r"(?<![A-Za-z])(train(?:ing)?|test(?:ing)?|val(?:id(?:ation)?)?|holdout)(?![A-Za-z])", re.IGNORECASE)
REDSHIFT_SPACE = re.compile(r"rsd|redshift.?space|line.?of.?sight|(?<![a-z])los(?![a-z])", re.IGNORECASE)


@dataclasses.dataclass
class Layout:
    """The cubes of a suite before any is read.

    files       stacks of cubes (n, N, N, N), or of ready-made maps (n, planes, N, N)
    ids         a name for each cube
    keys        names by which a row of a table may call each cube, the fullest first
    box_size    [Mpc/h], None when nothing tells; box_from: what told it
    field_type  None when nothing tells
    field, redshift   as the names have them
    params      the documented table; columns: their names where it has none, with so many of them (widths)
    only        the parameters that mean something
    by_order    "row": row i of a table belongs to cube i; "number": to the cube of that number; "" to none
    related     cubes are documented to share their phases
    sparse      planes of one value are no damage
    needs       what the user has to say, as it is written
    """

    source: str
    files: tuple[Stack, ...]
    ids: tuple[str, ...]
    keys: list[tuple[str, ...]]
    box_size: float | None = None
    box_from: str = ""
    field_type: str | None = None
    field: str | None = None
    redshift: float | None = None
    params: Path | None = None
    columns: tuple[str, ...] = ()
    widths: tuple[int, ...] = ()
    only: tuple[str, ...] = ()
    by_order: str = ""
    related: bool = False
    sparse: bool = False
    needs: list[str] = dataclasses.field(default_factory=list)
    cautions: list[str] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)


def files_below(folder: Path, depth: int = 3) -> list[Path]:
    """Files of a folder and the folders below, hidden ones left out; a folder met twice, as in a loop of links, once.

    Raises CubesError for a link that leads nowhere.
    """
    files, met = [], set()
    for place, inside, names in os.walk(folder, followlinks=True, onerror=_closed):
        here = Path(place)
        deep = here.resolve() in met or len(here.relative_to(folder).parts) >= depth
        inside[:] = [] if deep else sorted(name for name in inside if not name.startswith("."))
        files += (
            [here / name for name in sorted(names) if not name.startswith(".")] if here.resolve() not in met else []
        )
        met.add(here.resolve())
    for path in files:
        if path.suffix.lower() in SUFFIXES and not path.exists():
            advice = "bring what it points to, or remove the link"
            raise refusal(path, f"a link to {os.readlink(path)}, which does not exist", "a file of cubes", advice)
    return files


def _closed(error: OSError) -> None:
    raise refusal(
        error.filename, f"a folder that cannot be read ({error.strerror})", "a readable folder", "chmod u+rx it"
    )


def choose(folder: Path, option: str, values: Iterable, wanted, usual: Iterable = ()):
    """The value asked for, or the first usual one that is there, or the only one.

    Raises CubesError when the one asked for is not there, or several are and none is usual.
    """
    values = sorted(set(values), key=natural)
    fitting = [v for v in values if wanted is None or v == wanted or _number(v) == _number(wanted) is not None]
    chosen = fitting if len(fitting) == 1 else [v for v in usual if v in fitting][:1]
    if not chosen:
        found = f"{option} {', '.join(map(str, values[:12]))}"
        expected = f"one {option}" if wanted is None else f"{option} {wanted!r}"
        raise refusal(folder, found, expected, f"pass {option}= one of these (--data.{option.replace('_', '-')})")
    return chosen[0]


def _number(value) -> float | None:
    try:
        return float(str(value).replace("p", "."))
    except ValueError:
        return None


def plain(path: Path, told: dict) -> Layout:
    """Cubes in `.npy` and HDF5 files: a file, or a folder of files, one cube, stacks, or a data set for each cube."""
    stacks, passed, root = {}, [], path if path.is_dir() else path.parent
    files = files_below(path) if path.is_dir() else [path]
    arrays = [file for file in files if file.suffix.lower() in SUFFIXES or file == path]
    for file in sorted(arrays, key=natural):
        try:
            for stack in open_arrays(file):
                name = file.relative_to(path).as_posix() if path.is_dir() else ""
                stacks["/".join(filter(None, [name, stack.dataset])) or file.name] = stack
        except NoCubes as reason:
            passed.append((file, reason))
    if not stacks:
        raise _nothing(path, files, passed)
    names, needs = _choose_cubes(path, stacks, told)
    chosen = [stacks[name] for name in names]
    sides = {stack.shape[-1]: name for name, stack in zip(names, chosen, strict=True)}
    if len(sides) > 1 and not needs:
        found = ", ".join(f"side {side} in {name}" for side, name in sorted(sides.items())[:4])
        raise refusal(path, f"cubes of several sizes: {found}", "one side", "pass field=, or open each size by itself")
    keys = [key for name, stack in zip(names, chosen, strict=True) for key in _keys(name, names, stack.shape[0])]
    marks = [name for name in (*names[:1], *attributes(chosen[0])) if REDSHIFT_SPACE.search(name)]
    if marks and told.get("line_of_sight") is None:
        needs.append(f'line_of_sight=0, 1, 2 (the axis of the array) or "none", as there is {marks[0]}')
    layout = Layout(
        source=f"{names[0] if len(names) == 1 else f'{len(names)} arrays like {names[0]}'} ({path})",
        files=tuple(chosen),
        ids=tuple(f"{root.absolute().name}/{key[0]}" for key in keys),
        keys=keys,
        by_order="row" if len(chosen) == 1 else "",
        field=told.get("field"),
        redshift=told.get("redshift"),
        needs=needs,
    )
    if left := [file.name for file, _ in passed if file != told.get("params")]:
        layout.cautions.append(f"{path} also holds {', '.join(left[:5])}, not opened: no cubes")
    return layout


def _choose_cubes(path: Path, stacks: dict[str, Stack], told: dict) -> tuple[list[str], list[str]]:
    """Names of the arrays that are the universes of the suite, and what has to be said before that is known."""
    names, wanted, needs = sorted(stacks, key=natural), told.get("field"), []
    if wanted is not None:
        found = [n for n in names if any(fnmatchcase(n, w) for w in (wanted, f"*/{wanted}", f"{wanted}.*"))]
        if not found:
            raise refusal(path, f"arrays {', '.join(names[:8])}", f"field {wanted!r}", "pass field= one of these")
        names = found
        if "*" in wanted and told.get("redshift") is None and told.get("set_name") is None:
            return names, needs  # each is a universe, says the user
    epochs = {n: _last(EPOCH, n) for n in names}
    if len({*epochs.values()}) == 1:
        epochs = {n: _redshift(stacks[n]) for n in names}
    parts = {n: _last(PART, n) for n in names}
    for option, values in (("redshift", epochs), ("set_name", parts)):
        if len({*values.values()}) > 1:
            there = {value for value in values.values() if value is not None}
            if told.get(option) is None:
                needs.append(f"{option}= one of {', '.join(sorted(there, key=natural)[:8])}")
            else:
                one = choose(path, option, there, told[option])
                names = [n for n in names if values[n] == one]
    kinds: dict[str, str] = {}
    for n in names:
        kinds.setdefault(re.sub(r"\d+", "#", PART.sub("", EPOCH.sub("", _bare(n)))), n)
    if len(kinds) > 1 and wanted is None:
        one = ", ".join(f'"{n}"' for n in list(kinds.values())[:6])
        needs.append(f'field= one of {one}, or field="*" when each is a universe of its own')
    return names, needs


def _bare(name: str) -> str:
    """A name without the endings of files."""
    return re.sub(r"\.(npy|npz|hdf5|h5|hdf|he5)(?=/|$)", "", name, flags=re.IGNORECASE)


def _last(pattern: re.Pattern, name: str) -> str | None:
    """What a pattern takes from a name, where it occurs last."""
    return next(
        (group for match in reversed([*pattern.finditer(_bare(name))]) for group in match.groups() if group), None
    )


def _redshift(stack: Stack) -> str | None:
    """The redshift in a header, as it reads."""
    told = {name.rpartition("/")[2].lower(): as_text(value) for name, value in attributes(stack).items()}
    return told.get("redshift") or told.get("currentredshift")


def _keys(name: str, names: list[str], n: int) -> list[tuple[str, ...]]:
    """What a table may call the cubes of an array: its name, the parts that differ between arrays, its number."""
    bare, others = _bare(name), [_bare(other).split("/") for other in names]
    if n > 1:
        return [(f"{bare}/{i}", *([str(i)] if len(names) == 1 else [])) for i in range(n)]
    parts = [p for i, p in enumerate(bare.split("/")) if len({o[i] if i < len(o) else "" for o in others}) > 1]
    numbers = {number for part in parts for number in re.findall(r"\d+", EPOCH.sub("", part))}
    return [(bare, *parts, *([str(int(*numbers))] if len(numbers) == 1 else []))]


def _nothing(path: Path, files: list[Path], passed: list) -> CubesError:
    """What to say of a file or folder without cubes."""
    if len(passed) == 1:
        return passed[0][1]
    found = f"{len(files)} files, none of them cubes" if files else "an empty folder"
    found += "".join(f"; {file.name} is {stranger(file)}" for file in files[:3] if file.is_file())
    if any(file.name.endswith(".npy.partial") for file in files):
        found = "a simulation that is not finished (.npy.partial); run `simulate` again, it goes on"
    return refusal(path, found, "files .npy or .hdf5 of cubes", "save the cubes with np.save (float32), (n, N, N, N)")


def facts(stack: Stack) -> str:
    """What the first cube and the attributes beside it say, for somebody who knows what they mean."""
    cube, told = stack.read(0), attributes(stack)
    text = f"{'x'.join(map(str, stack.shape))} {cube.dtype}, minimum {np.min(cube):.4g}, mean {np.mean(cube, dtype='f8'):.4g}"
    listing = ", ".join(f"{name} = {as_text(value)}" for name, value in list(told.items())[:12])
    return text + (f"; attributes {listing}" if listing else "")
