"""The suite of cubes that every reader returns, and the reader of cubes in no known layout.

Such cubes are taken for nothing but what the user says they are: names of files, groups and data sets tell which cubes
belong together, and where that leaves a choice it is asked for.
"""

import dataclasses
import hashlib
import os.path
import re
from contextlib import suppress
from fnmatch import fnmatchcase
from functools import cached_property
from glob import glob
from pathlib import Path

import numpy as np
import pandas as pd

from .arrays import SUFFIXES, NoCubes, Stack, as_text, attributes, box_of, existing, natural, open_arrays, refusal
from .checks import Check, to_overdensity

EPOCH = re.compile(
    r"(?i)(?:(?<![A-Za-z])(?<!z\d_)(?:z|a|redshift|scale_?factor|aexp|DD|RD|plt|t=|run\.)|rhoz|snap(?:shot|dir)?|output|step|time|dump)"
    r"[=_-]?(\d+(?:[.p]\d+)?)"
    r"|(?:^|(?<=/))(\d+\.\d+)(?=/|$)"
)
PART = re.compile(r"(?<![A-Za-z])(train(?:ing)?|test(?:ing)?|val(?:id(?:ation)?)?|holdout)(?![A-Za-z])", re.IGNORECASE)
REDSHIFT = re.compile(r"(?i)(?<![A-Za-z])(?<!z\d_)(?:z|redshift)[=_-]?(\d+(?:[.p]\d+)?)")
# last words of attributes that tell the epoch
EPOCHS = re.compile(r"(current)?(redshift|time)|z(snap)?|a(exp)?|scalefactor|expansionfactor|snap(shot|num)")
REDSHIFT_SPACE = re.compile(
    r"(?i)rsd(?:[0-2](?=_))?|redshift.?space|space\W+redshift|zspace|delta_s(?![a-z])|line.?of.?sight"
    r"|(?<=z\d)_redshift(?=_)|(?<![a-z])(?:los(?![a-z])|RS[0-2]?(?:_axis=\d)?(?=_))"
)
# digits that name boxes or end files stay; others count cubes
COUNT = re.compile(r"((?<![A-Za-z])(?:L|(?i:box))[_=-]?\d+(?=.*[_-]\d)|[\d.]+(?=[kMG]pc)|\.h(?:e|df)?5(?=/|$))|\d+")
ENDING = re.compile(r"\.(npy|npz|hdf5|h5|hdf|he5)(?=/|$)", re.IGNORECASE)


@dataclasses.dataclass(eq=False, repr=False)
class CubeSuite:
    """Cubes on disk: opened lazily, read one at a time, pickled as paths and numbers.

    source      what was opened
    files       stacks of cubes (n, N, N, N), or of ready-made maps (n, planes, N, N)
    ids         a name for each cube, the same in every field of a suite
    keys        names by which a row of a table may call each cube, the fullest first
    box_size    [Mpc/h] of the whole cube, None when nothing tells; box_from: what told it
    field_type  of the file: density | delta | overdensity | counts, None when nothing tells
    field, redshift   as the names have them
    table       the documented table of parameters; columns: their names where it has none, with so many (widths)
    by_order    "row": row i of a table belongs to cube i; "number": to the cube of that number; "" to none
    related     cubes are documented to share their phases
    needs       options that the user has to say: what each may be, a proposal, and its reason
    cautions    what to warn of
    params      one row a cube
    line_of_sight  axis along which redshift space is distorted, None of real space
    check       what the pass over all cubes found, None when there was none
    """

    source: str
    files: tuple[Stack, ...]
    ids: tuple[str, ...]
    keys: list[tuple[str, ...]]
    by_order: str
    box_size: float | None = None
    box_from: str = ""
    field_type: str | None = None
    field: str | None = None
    redshift: float | None = None
    table: Path | None = None
    columns: tuple[str, ...] = ()
    widths: tuple[int, ...] = ()
    related: bool = False
    needs: dict[str, tuple] = dataclasses.field(default_factory=dict)
    cautions: list[str] = dataclasses.field(default_factory=list)
    params: pd.DataFrame = None
    line_of_sight: int | None = None
    check: Check | None = None

    @property
    def n_cubes(self) -> int:
        """Cubes, or universes of maps."""
        return len(self.ids)

    @property
    def n_planes(self) -> int:
        """Planes along axis 0: the side for cubes, 15 for ready-made maps."""
        return self.files[0].shape[1]

    @property
    def side(self) -> int:
        """Voxels along an edge."""
        return self.files[0].shape[-1]

    @property
    def axes(self) -> tuple[int, ...]:
        """Axes across which planes are cut: of redshift space the line of sight alone, across which all directions are
        alike; of ready-made maps the first."""
        if self.line_of_sight is not None:
            return (self.line_of_sight,)
        return (0, 1, 2) if self.n_planes == self.side else (0,)

    @property
    def universes(self) -> tuple[str, ...]:
        """Name of each cube's universe, for splits: cubes with the same largest modes share one."""
        numbers = self.check.universes if self.check else range(self.n_cubes)
        return tuple(self.ids[numbers.index(number)] for number in numbers)

    @property
    def places(self) -> list[tuple[Stack, int]]:
        """The file of each cube, and its number there."""
        return [(file, number) for file in self.files for number in range(file.shape[0])]

    def raw(self, i: int) -> np.ndarray:
        """Cube i, or the maps of universe i, as stored: (planes, N, N), a fresh array."""
        if i not in range(self.n_cubes):
            raise IndexError(f"found cube number {i}; expected 0 to {self.n_cubes - 1}; there are {self.n_cubes} cubes")
        file, number = self.places[i]
        return file.read(number)

    def overdensity(self, i: int) -> np.ndarray:
        """Universe i as y = rho / <rho>: (n_planes, N, N) float32, never negative, mean 1, a fresh array.

        Raises CubesError when its numbers cannot be used, IndexError when there is no such cube.
        """
        return to_overdensity(self.raw(i), self.field_type, f"cube {i} of {self.source}")

    @cached_property
    def fingerprint(self) -> dict[str, str]:
        """Digests of the cubes (sizes, and a few rows of each) and of the parameters, wherever the files lie."""
        sizes = f"{self.n_cubes} {self.n_planes} {self.side} {self.box_size:.6g}"
        texts = {"cubes": sizes, "parameters": self.params.to_csv(index=False, float_format="%.9g")}
        digests = {name: hashlib.blake2b(text.encode(), digest_size=8) for name, text in texts.items()}
        for file, number in self.places:
            digests["cubes"].update(np.ascontiguousarray(file.sample(number), "<f4").tobytes())
        return {name: digest.hexdigest() for name, digest in digests.items()}

    def describe(self) -> str:
        """A page of text: what was found, how it is read, warnings."""
        lines = [
            f"{self!r}, {sum(file.size for file in self.files) / 2**30:.3g} GiB, {len({*self.universes})} universes",
            f"box of {self.box_size:g} Mpc/h {self.box_from}, {self.box_size / self.side:.4g} Mpc/h a voxel",
            f"field type {self.field_type}; each cube is divided by its own mean",
            *(f"{name:<12} {v.min():.6g} to {v.max():.6g}" for name, v in self.params.items()),
            *(f"warning: {caution}" for caution in self.cautions),
        ]
        return "\n".join(lines) + "\n"

    def __repr__(self) -> str:
        shape = f"{self.n_cubes} cubes of {self.n_planes} x {self.side} x {self.side} voxels"
        columns = ", ".join(self.params.columns) or "no parameters"
        return f"CubeSuite({shape}, {self.box_size:g} Mpc/h, {self.field_type}, {columns}; {self.source})"


def files_below(path: Path, depth: int = 4) -> list[Path]:
    """A file itself; the files of a folder and of folders below, hidden ones left out, each once.

    Raises CubesError for a link to an array that leads nowhere.
    """
    patterns = ["/".join("*" * levels) for levels in range(1, depth + 1)] if path.is_dir() else []
    inside = [path / name for pattern in patterns for name in sorted(glob(pattern, root_dir=path))]
    files = {os.path.realpath(file): file for file in reversed(inside or [path]) if not file.is_dir()}
    for file in files.values():
        if file.suffix.lower() in SUFFIXES:
            existing(file)
    return list(reversed(files.values()))


def choose(folder: Path, option: str, values: list, wanted, usual: list = ()):
    """The value asked for, or the first usual one that is there, or the only one.

    Raises CubesError when the one asked for is not there, or several are and none is usual.
    """
    values = sorted({*values}, key=natural)
    fitting = [value for value in values if wanted is None or _number(value) == _number(wanted)]
    chosen = fitting if len(fitting) == 1 else [value for value in usual if value in fitting]
    if not chosen:
        found, advice = f"{option} {', '.join(values[:12])}", f"pass {option}= one of these (or --data.*)"
        raise refusal(folder, found, f"one {option}" if wanted is None else f"{option} {wanted!r}", advice)
    return chosen[0]


def documented(path: Path, pattern: re.Pattern, usual: dict[str, list], told: dict) -> dict[Path, dict[str, str]]:
    """Files whose paths end as a suite's documentation says, with what the groups of the pattern take from them.

    usual   what is taken of several, for each group that is an option: of redshifts the lowest
    """
    files = files_below(path.absolute())
    found = {file: match.groupdict("") for file in files if (match := pattern.search(file.as_posix()))}
    for option, first in usual.items() if found and path.is_dir() else ():
        values = {name[option] for name in found.values()}
        if len(values) > 1 or option in told:
            first = [min(values, key=float)] if option == "redshift" else first
            one = choose(path, option, values, told.get(option), first)
            found = {file: name for file, name in found.items() if name[option] == one}
    return found


def _number(value) -> float | str:
    """A number however it is written, or the text."""
    return float(found[0]) if (found := re.fullmatch(r"\d+\.?\d*", str(value).replace("p", "."))) else str(value)


def plain(path: Path, told: dict) -> CubeSuite:
    """Cubes in `.npy` and HDF5 files: a file, or a folder of files, one cube, stacks, or a data set for each cube."""
    stacks, passed = _all_arrays(path)
    names, needs, redshift = _choose_cubes(path, stacks, told)
    chosen = [stacks[name] for name in names]
    one = names[:1] if "field" in needs else names  # of the fields that lie there one is chosen first
    mark = _redshift_space(path, {name: stacks[name] for name in one}, told.get("line_of_sight"))
    if mark and "line_of_sight" not in told:
        text = f'0, 1, 2 (the axis of the array) or "none", as there is {mark}'
        needs["line_of_sight"] = text, 2, "the last axis is usual"
    keys, root = _keys(names, [stack.shape[0] for stack in chosen]), path if path.is_dir() else path.parent
    return CubeSuite(
        source=f"{names[0] if len(names) == 1 else f'{len(names)} arrays like {names[0]}'} ({path})",
        files=tuple(chosen), ids=tuple(f"{root.absolute().name}/{key[0]}" for key in keys), keys=keys,
        by_order="row" if len(chosen) == 1 else "", box_size=box_of(path, chosen), box_from="as the file says",
        field=told.get("field"), redshift=redshift, needs=needs,
        cautions=[f"{path} also holds {', '.join(passed[:5])}, not opened: no cubes"] if passed else [],
    )  # fmt: skip


def _all_arrays(path: Path) -> tuple[dict[str, Stack], list[str]]:
    """The arrays of cubes in a file or folder by their names, and the files beside them that hold none."""
    stacks, passed, files = {}, [], files_below(path)
    for file in sorted((f for f in files if f.suffix.lower() in SUFFIXES or f == path), key=natural):
        try:
            for stack in open_arrays(file):
                parts = file.relative_to(path).as_posix() if file != path else "", stack.dataset
                stacks["/".join(filter(None, parts)) or file.name] = stack
        except NoCubes:
            if file == path:
                raise
            passed.append(file.name)
    if not stacks:
        found = f"{len(files)} files, none of them cubes ({', '.join(file.name for file in files[:5])})"
        advice = "check the path; a simulation that is not finished (.npy.partial) goes on with `simulate`"
        raise refusal(path, found, ".npy or HDF5 files of cubes", advice)
    return stacks, passed


def _redshift_space(path: Path, chosen: dict[str, Stack], told: int | str | None) -> str:
    """What tells that cubes are in redshift space, "" for nothing.

    Raises CubesError where that differs from cube to cube, or contradicts the line of sight that the user told.
    """
    marks: dict[str, str] = {}
    for name, stack in chosen.items():
        texts = [f"{key.rpartition('/')[2]} = {as_text(value)}" for key, value in attributes(stack).items()]
        found = REDSHIFT_SPACE.findall(f"{path.name}/{name}")[-1:] + [*filter(REDSHIFT_SPACE.search, texts)]
        marks.setdefault(", ".join(found), name)
    axes = {*re.findall(r"(?i)(?:axis|los|sight)\W*([0-2])(?!\d)", ", ".join(marks))}
    if len(marks) > 1 or (told in (0, 1, 2) and axes - {str(told)}):
        found = "; ".join(f"{mark or 'no redshift space'} in {name}" for mark, name in [*marks.items()][:4])
        raise refusal(path, found, f"one line of sight, {told} if told", "choose its cubes by field=, or correct it")
    return next(iter(marks))


def _told_epoch(stack: Stack) -> dict[str, str]:
    """What attributes tell of the epoch, by their last words: redshifts, or else scale factors and times."""
    found: dict[str, str] = {}
    for key, value in attributes(stack).items():
        word = re.sub(r"[\W_]", "", key.rpartition("/")[2].lower())
        with suppress(ValueError):  # a date
            if EPOCHS.fullmatch(word) and key != f"{stack.dataset}/scale_factor":
                found.setdefault(word, " or ".join(str(round(float(v), 4)) for v in as_text(value).split(" or ")))
    return {word: text for word, text in found.items() if "z" in word or "redshift" in word} or found


def _choose_cubes(path: Path, stacks: dict[str, Stack], told: dict) -> tuple[list[str], dict, float | None]:
    """Names of the arrays that are the universes of the suite, what has to be said before that is known, and their
    redshift.  Raises CubesError where what they say of it contradicts itself or the user."""
    names, wanted, needs = sorted(stacks, key=natural), told.get("field"), {}
    if wanted is not None:
        patterns = wanted, f"*/{wanted}", f"{wanted}.*"
        found = [n for n in names if any(fnmatchcase(m, w) for m in (n, _uncounted(n)) for w in patterns)]
        if not found:
            raise refusal(path, f"arrays {', '.join(names[:8])}", f"field {wanted!r}", "pass field= one of these")
        names = found
    epochs, parts = ({n: _last(pattern, n) for n in names} for pattern in (EPOCH, PART))
    beside = {n: _told_epoch(stacks[n]) for n in names}
    if len({*epochs.values()}) == 1:  # or in headers
        words = dict.fromkeys(word for n in names for word in beside[n])
        word = next((word for word in words if len({beside[n].get(word) for n in names}) > 1), None)
        epochs = {n: beside[n].get(word) for n in names}
    universes = "*" in (wanted or "") and not {"redshift", "set_name"} & {*told}  # each is one, says the user
    for option, values in {} if universes else {"redshift": epochs, "set_name": parts}.items():
        there = sorted({*values.values()} - {None}, key=natural)
        if len({*values.values()}) > 1 and option not in told:
            needs[option] = f"one of {', '.join(there[:8])}", "...", "names differ by it"
        elif len({*values.values()}) > 1:
            one = choose(path, option, there, told[option])
            names = [n for n in names if values[n] == one]
    kinds = [_uncounted(PART.sub("", EPOCH.sub("", ENDING.sub("", n)))) for n in names]
    if len({*kinds}) > 1 and wanted is None:  # of several # is offered for their numbers
        firsts = {kind: _uncounted(n) if kinds.count(kind) > 1 else n for n, kind in zip(names, kinds, strict=True)}
        one = ", ".join(f'"{n}"' for n in [*firsts.values()][:6])
        needs["field"] = f'one of {one}, or field="*" when each is a universe of its own', "...", "names differ by it"
    zs = {next((z for w, z in beside[n].items() if "z" in w or "red" in w), _last(REDSHIFT, n)) for n in names}
    z, said = zs.pop() if len(zs) == 1 else None, told.get("redshift")
    if z and ("or" in z or (said is not None and len({*epochs.values()}) == 1 and _number(z) != _number(said))):
        raise refusal(path, f"redshift {z}", f"one, {said} if told", "correct redshift=, or open each by itself")
    return names, needs, _number(z) if z else said


def _uncounted(name: str) -> str:
    """A name with # for the numbers that count cubes."""
    return COUNT.sub(lambda match: match[1] or "#", name)


def _last(pattern: re.Pattern, name: str) -> str | None:
    """What a pattern takes from a name, where it occurs last."""
    groups = [group for match in pattern.finditer(ENDING.sub("", name)) for group in match.groups() if group]
    return groups[-1] if groups else None


def _keys(names: list[str], sizes: list[int]) -> list[tuple[str, ...]]:
    """What a table may call each cube: its name, the parts in which it differs from others, its number."""
    paths, keys = [ENDING.sub("", name).split("/") for name in names], []
    differ = [i for i in range(max(map(len, paths))) if len({tuple(path[i : i + 1]) for path in paths}) > 1]
    for path, n in zip(paths, sizes, strict=True):
        parts, whole = ["".join(path[i : i + 1]) for i in differ], "/".join(path)
        numbers = {str(int(x)) for part in parts for x in re.findall(r"\d+", EPOCH.sub("", part))}
        one = [(whole, *parts, *(numbers if len(numbers) == 1 else ()))]
        keys += one if n == 1 else [(f"{whole}/{i}", *([str(i)] if len(names) == 1 else [])) for i in range(n)]
    return keys
