"""Suites of simulated cubes behind one call: `open_cubes(path)` gives overdensities, a box and parameters.

Known layouts (`camels`, `quijote`, our own) are taken for granted. Of all others (`layout.plain`) the user says once
what the files do not, as an argument, as --data.*, or in `suite.json` beside the cubes; nothing is guessed.
"""

import json
import math
import re
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..files import write_atomically
from ..presets import DataConfig, locate
from . import camels, quijote
from .arrays import SUFFIXES, CubesError, CubesUnsaid, as_text, attributes, box_names, existing, read_length, refusal
from .checks import FIELD_TYPES, check_cubes
from .layout import CubeSuite, plain
from .parameters import cube_parameters, parameters_beside

__all__ = ["CubeSuite", "CubesError", "fit_image_size", "open_cubes", "open_data", "split_cubes"]
IMAGE_SIZES = (32, 64, 128, 256, 512)  # that the networks take [pixels]
OPTIONS = ("set_name", "redshift", "field", "box_size", "field_type", "params", "line_of_sight")
TOLD = (*OPTIONS, "allow_same_universe")  # what suite.json may say
CHOICES = {"field_type": FIELD_TYPES, "line_of_sight": (0, 1, 2, "none")}
RECORD = "suite.json"
TELLING = re.compile(r"(?i)box|length|size|edge|hubble|redshift|omega|sigma")  # attributes that are listed first


def open_cubes(
    path: str | Path, *, set_name: str | None = None, redshift: float | None = None, field: str | None = None,
    box_size: float | str | None = None, field_type: str | None = None, params=None,
    line_of_sight: int | str | None = None, allow_same_universe: bool | None = None, check: bool = True,
) -> CubeSuite:  # fmt: skip
    """Open simulated cubes: CAMELS, Quijote and our own by their names, all others by what the user says of them.

    path           a file or a folder
    set_name       of several sets (LH, CV, 1P, ...; a Quijote cosmology; train, test) in the names of files
    redshift       of several snapshots: the number that stands in their names or headers
    field          of several fields: Mcdm, a file name, a data set, # for numbers; "*" says that each is a universe
    box_size       side of a cube [Mpc/h], or a text with its unit
    field_type     density (of any positive unit, linear in mass) | delta | overdensity | counts
    params         table: file, DataFrame or dict, rows called by the cubes' names or numbers (a stack: as many rows);
                   "attributes" of the cubes in HDF5 files; "none"
    line_of_sight  0, 1 or 2, the axis along which redshift space is distorted; "none"
    allow_same_universe  cubes with the same largest modes (snapshots, fields, copies) are opened; a split keeps them in
                   one part
    check          read all cubes once; what was found is kept beside them until they change
    What is None is read from suite.json beside the cubes.
    Raises CubesError (a ValueError) when the cubes cannot be used, or with one sentence that lists what is to be said;
    warns (UserWarning) of what looks odd.
    """
    given, path = {name: value for name, value in locals().items() if value is not None}, Path(path).expanduser()
    existing(path)
    told = read_record(path) | {name: given[name] for name in TOLD if name in given}
    for name, known in CHOICES.items():
        if told.get(name, known[0]) not in known:
            raise refusal(path, f"{name}={told[name]!r}", f"one of {', '.join(map(str, known))}", "choose one")
    suite = camels.find(path, told) or quijote.find(path, told) or plain(path, told)
    if (box := told.get("box_size", suite.box_size)) is not None:
        _set_box(path, suite, box)
    suite.field_type, table = told.get("field_type", suite.field_type), told.get("params", suite.table)
    suite.line_of_sight = None if told.get("line_of_sight") == "none" else told.get("line_of_sight")
    _ask(path, suite, table)
    if len(sides := {file.shape[-1]: file.path.name for file in suite.files}) > 1 or len(suite.places) != suite.n_cubes:
        found = f"cubes of several sizes: {', '.join(f'side {n} in {name}' for n, name in sorted(sides.items()))}"
        raise refusal(path, found, "one side, one cube a realization", "pass field=, or open each size by itself")
    if isinstance(table, str | Path):  # from the working directory, or beside the cubes
        places = Path(table).expanduser(), (path if path.is_dir() else path.parent) / table
        table = next((place for place in places if place.is_file()), table)
    suite.params = cube_parameters(table, suite)
    if check:
        _check(path, suite, suite.related or told.get("allow_same_universe"))
    for caution in suite.cautions:
        warnings.warn(caution, UserWarning, stacklevel=2)
    return suite


def _set_box(path: Path, suite: CubeSuite, given: float | str) -> None:
    """Box [Mpc/h] of a suite as the user says it, said where that contradicts the file; or as the file says it."""
    size, *_ = read_length(given if "pc" in str(given) else f"{given} Mpc/h") or [0]
    if not 0 < size < math.inf:
        raise refusal(path, f"a box size of {given!r}", "a positive number", "pass it in Mpc/h: 25.0; Mpc are times h")
    if not suite.columns and suite.box_size and abs(suite.box_size / size - 1) > 1e-3:
        suite.cautions.append(f"box_size={given} is taken, although the file says {suite.box_size:g} Mpc/h")
    if not 2 <= size <= 5000:
        suite.cautions.append(f"a box of {size:g} Mpc/h; this looks like kpc/h or Gpc/h")
    suite.box_from, suite.box_size = suite.box_from if given is suite.box_size else "as given", size


def _check(path: Path, suite: CubeSuite, same_universe: bool | None) -> None:
    """Read all cubes. Raises CubesError for cubes of one universe, unless that is so by design or allowed."""
    suite.check = check_cubes(suite)
    suite.cautions += suite.check.cautions(suite.box_size / suite.side)
    if len({*suite.universes}) < suite.n_cubes and not same_universe:
        a, b, r = suite.check.alike
        found = f"the same largest modes ({suite.ids[a]} and {suite.ids[b]}: r = {r:.2f}): one universe in both"
        raise refusal(path, found, "a universe each", "choose by redshift= or field=, or say allow_same_universe=True")


def _ask(path: Path, suite: CubeSuite, table) -> None:
    """Raise CubesUnsaid with all that the user has to say of cubes, what is found of it, and the line to write."""
    beside = parameters_beside(suite, path) if table is None and not suite.columns else None
    if not (suite.needs or suite.box_size is None or suite.field_type is None or beside):
        return
    cube, told = suite.files[0].read(0), attributes(suite.files[0])
    low, mean = cube.min(), cube.mean(dtype=np.float64)
    shape, values = "x".join(map(str, suite.files[0].shape)), f"minimum {low:.4g}, mean {mean:.4g}"
    kind = "delta" if low < 0 else "overdensity" if abs(mean - 1) < 1e-3 else "density"
    box = next(((np.ravel(told[name])[0], f"{name} has no unit; Mpc/h is usual") for name in box_names(told)), None)
    needs = dict(suite.needs)
    if suite.box_size is None:
        needs["box_size"] = "[Mpc/h]", *(box or ("...", "what was the box of the simulation, in Mpc/h?"))
    if suite.field_type is None:
        needs["field_type"] = "density (positive, linear in mass; any unit), delta, overdensity or counts", kind, values
    if beside:
        needs["params"] = f'"{beside}" or "none"', beside, "parameters beside the cubes"
    texts = [f"{name} = {as_text(told[name])}" for name in sorted(told, key=lambda name: not TELLING.search(name))[:12]]
    found = f"{suite.source}, {shape} {cube.dtype}, {values}; attributes: {', '.join(texts) or 'none'}"
    line = f'open_cubes("{path}", {", ".join(f"{name}=..." for name in needs)})'
    also = " ".join(f"--data.{name.replace('_', '-')} ..." for name in needs)
    advice = f"write {line}, {also}, or the same in suite.json (python -m uvae_lib inspect {path})"
    expected = "; ".join(f"{name}= {text}" for name, (text, *_) in needs.items())
    unsaid = refusal(path, found, expected, advice, CubesUnsaid)
    unsaid.proposals = {name: proposal for name, (_, *proposal) in needs.items()}
    raise unsaid


def inspect_cubes(path: str | Path, save: bool = False, **told) -> str:
    """A page on a file or folder: the suite, or what has to be said of it, with proposals and their reasons.

    told   of `open_cubes`, as far as it is known;  save: write it to suite.json beside the cubes
    Raises CubesError for cubes that cannot be used.
    """
    path, told = Path(path).expanduser().absolute(), {name: value for name, value in told.items() if value is not None}
    try:
        page = open_cubes(path, **told).describe()
    except CubesUnsaid as unsaid:
        reasons = "\n".join(f"  {name} = {value}: {reason}" for name, (value, reason) in unsaid.proposals.items())
        words = " ".join(f"--{name.replace('_', '-')} {value}" for name, (value, _) in unsaid.proposals.items())
        page = f"{unsaid}\n\nProposed, to be checked by somebody who knows these cubes:\n{reasons}\n"
        page += f"  python -m uvae_lib inspect {path} {words} --save\n"
    if save:
        folder = path if path.is_dir() else path.parent
        alone = path.is_dir() or sum(file.suffix.lower() in SUFFIXES for file in folder.iterdir()) == 1
        place = folder / RECORD if alone else path.with_suffix(f".{RECORD}")
        write_atomically(place, json.dumps(read_record(path) | told, indent=1) + "\n")
        page += f"{place} is written\n"
    return page


def read_record(path: Path) -> dict:
    """What the user has written beside the cubes: `suite.json` of the folder, and NAME.suite.json of a file.

    Raises CubesError for what is no JSON, or a name that is no option.
    """
    told: dict = {}
    for place in [path / RECORD] if path.is_dir() else [path.parent / RECORD, path.with_suffix(f".{RECORD}")]:
        try:
            told |= json.loads(place.read_text(encoding="utf-8")) if place.is_file() else {}
        except (OSError, ValueError, TypeError) as error:
            raise refusal(place, f"no record ({error})", "JSON", 'write {"box_size": 25.0, ...}') from error
        if unknown := sorted({*told} - {*TOLD}):
            raise refusal(place, ", ".join(unknown), f"some of {', '.join(TOLD)}", "correct the names")
    return {name: value for name, value in told.items() if value is not None}


def open_data(data: DataConfig, set_name: str | None = None) -> CubeSuite:
    """The cubes of a configuration, with all its options: for commands, notebooks and stored runs alike.

    set_name   another set beside the one of the configuration, to which its parameter file does not belong
    Raises CubesError, and warns, as `open_cubes` does; also for slices thicker than the cubes allow.
    """
    options = {name: getattr(data, name) for name in OPTIONS}
    if data.params and (table := locate(data.params)).is_file():
        options["params"] = str(table)
    if set_name not in (None, data.set_name):
        options |= {"set_name": set_name, "params": None}
    suite = open_cubes(locate(data.path), **options)
    if not 1 <= data.thickness <= (most := suite.n_planes if suite.n_planes == suite.side else 1):
        raise refusal(suite.source, f"data.thickness={data.thickness}", f"up to {most}; of maps 1", "correct it")
    return suite


def fit_image_size(data: DataConfig, suite: CubeSuite) -> DataConfig:
    """The configuration with slices that fit the cubes: of the largest allowed size, said where that is smaller.

    Raises CubesError for cubes of fewer voxels than the smallest slice.
    """
    if data.image_size <= (side := suite.side):
        return data
    if side < (least := IMAGE_SIZES[0]):
        raise refusal(suite.source, f"{side} voxels a side", f"at least {least}, the smallest", "take larger cubes")
    size = max(size for size in IMAGE_SIZES if size <= side)
    text = f"cubes of {side}^3 are smaller than slices: slices of {size}^2 are cut (data.image_size={size})"
    warnings.warn(text, UserWarning, stacklevel=2)
    return replace(data, image_size=size)


def split_cubes(
    n_cubes: int, val_fraction: float, test_fraction: float, seed: int, ids: list | tuple | None = None
) -> dict[str, list[int]]:
    """Split cubes, never slices, into train, val and test.

    ids      name of each cube's universe: cubes of one universe (its fields, in joined suites) stay together
    Returns  {"train": [...], "val": [...], "test": [...]}: sorted cube numbers, each in one part, and no part
             empty when there are three universes or more.
    Raises ValueError for fractions that leave nothing to train on.
    """
    labels = list(range(n_cubes) if ids is None else ids)
    if not (0 < len(labels) == n_cubes and 0 <= min(val_fraction, test_fraction) <= val_fraction + test_fraction < 1):
        found = f"{n_cubes} cubes, {len(labels)} ids, val_fraction={val_fraction}, test_fraction={test_fraction}"
        raise ValueError(f"found {found}; expected an id for each cube, and fractions that add up to less than 1")
    universes = list(dict.fromkeys(labels))
    least, n = int(len(universes) >= 3), len(universes)
    n_test, n_val = (max(least, round(n * fraction)) for fraction in (test_fraction, val_fraction))
    while n_test + n_val >= n:  # something is left to train on
        n_test, n_val = (n_test - 1, n_val) if n_test > n_val else (n_test, n_val - 1)
    order = np.random.default_rng(seed).permutation(n)
    parts = {"test": order[:n_test], "val": order[n_test : n_test + n_val], "train": order[n_test + n_val :]}
    part_of = {universes[u]: name for name, members in parts.items() for u in members}
    return {name: [i for i in range(n_cubes) if part_of[labels[i]] == name] for name in ("train", "val", "test")}
