"""Suites of simulated cubes behind one call: `open_cubes(path)` gives overdensities, a box and parameters.

Known layouts (`camels`, `quijote`, our own) are taken for granted. Of all others (`layout.plain`) the user says once
what the files do not, as an argument, as --data.*, or in `suite.json` beside the cubes; nothing is guessed.
"""

import json
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..files import write_atomically
from ..presets import DataConfig, locate
from . import camels, quijote
from .arrays import SUFFIXES, CubesError, CubesUnsaid, as_text, attributes, existing, refusal
from .box import box_names, set_box
from .checks import FIELD_TYPES, check_cubes
from .layout import CubeSuite, plain
from .parameters import OWN, cube_parameters, own_parameters, tables_beside

__all__ = ["CubeSuite", "CubesError", "fit_image_size", "open_cubes", "open_data", "split_cubes"]
IMAGE_SIZES = (32, 64, 128, 256, 512)  # that the networks take [pixels]
OPTIONS = ("set_name", "redshift", "field", "box_size", "field_type", "params", "line_of_sight")
TOLD = (*OPTIONS, "allow_same_universe")  # what suite.json may say
RECORD = "suite.json"


def open_cubes(
    path: str | Path, *, set_name: str | None = None, redshift: float | None = None, field: str | None = None,
    box_size: float | str | None = None, field_type: str | None = None, params=None,
    line_of_sight: int | str | None = None, allow_same_universe: bool = False, check: bool = True,
) -> CubeSuite:  # fmt: skip
    """Open simulated cubes: CAMELS, Quijote and our own by their names, all others by what the user says of them.

    path           a file or a folder
    set_name       of several sets (LH, CV, 1P, ...; a Quijote cosmology; train, test) in the names of files
    redshift       of several snapshots: the number that stands in their names or headers
    field          of several fields: Mcdm, a file name, a data set; a pattern ("*") says that each is a universe
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
    path = Path(path).expanduser()
    existing(path)
    values = (set_name, redshift, field, box_size, field_type, params, line_of_sight, allow_same_universe or None)
    told = read_record(path) | {k: v for k, v in zip(TOLD, values, strict=True) if v is not None}
    suite = camels.find(path, told) or quijote.find(path, told) or plain(path, told)
    set_box(path, suite, told.get("box_size"))
    suite.field_type, sight = told.get("field_type", suite.field_type), told.get("line_of_sight")
    choices = {"field_type": (suite.field_type, FIELD_TYPES), "line_of_sight": (sight, (0, 1, 2, "none"))}
    for name, (value, known) in choices.items():
        if value is not None and value not in known:
            raise refusal(path, f"{name}={value!r}", f"one of {', '.join(map(str, known))}", "choose one")
    folder, table = path if path.is_dir() else path.parent, told.get("params", suite.table)
    _ask(path, suite, table)
    if isinstance(table, str | Path) and table not in ("none", OWN):
        table = next((p for p in (Path(table).expanduser(), folder / table) if p.is_file()), table)
    suite.params, suite.line_of_sight = cube_parameters(table, suite), sight if sight != "none" else None
    if not 2 <= suite.box_size <= 5000:
        suite.cautions.append(f"a box of {suite.box_size:g} Mpc/h; this looks like kpc/h or Gpc/h")
    if check:
        suite.check = check_cubes(suite)
        suite.cautions += suite.check.cautions(suite.box_size / suite.side)
        if len({*suite.universes}) < suite.n_cubes and not (suite.related or told.get("allow_same_universe")):
            a, b, r = suite.check.alike
            found = f"the same largest modes ({suite.ids[a]} and {suite.ids[b]}: r = {r:.2f}): one universe in both"
            advice = (
                "choose by redshift=, field= or set_name=, or pass allow_same_universe=True for one part of a split"
            )
            raise refusal(path, found, "a universe each", advice)
    for caution in suite.cautions:
        warnings.warn(caution, UserWarning, stacklevel=2)
    return suite


def _ask(path: Path, suite: CubeSuite, table) -> None:
    """Raise CubesUnsaid with all that the user has to say of cubes, what is found of it, and the line to write."""
    needs, beside = dict(suite.needs), [] if suite.columns else tables_beside(suite, path)
    if suite.box_size is None:
        needs["box_size"] = "[Mpc/h]"
    if suite.field_type is None:
        needs["field_type"] = "density (positive, linear in mass; any unit), delta, overdensity or counts"
    if table is None and (beside or not (suite.columns or suite.needs or own_parameters(suite).empty)):
        needs["params"] = f'"{beside[0] if beside else OWN}" or "none"'
    if not needs:
        return
    cube, told = suite.files[0].read(0), attributes(suite.files[0])
    shape, low, mean = "x".join(map(str, suite.files[0].shape)), np.min(cube), np.mean(cube, dtype=np.float64)
    values = f"minimum {low:.4g}, mean {mean:.4g}"
    found = f"{suite.source}, {shape} {cube.dtype}, {values}"
    if told:
        found += f"; attributes {', '.join(f'{name} = {as_text(value)}' for name, value in list(told.items())[:12])}"
    line = f'open_cubes("{path}", {", ".join(f"{name}=..." for name in needs)})'
    also = " ".join(f"--data.{name.replace('_', '-')} ..." for name in needs)
    advice = f"write {line}, {also}, or the same in suite.json (python -m uvae_lib inspect {path})"
    expected = "; ".join(f"{name}= {text}" for name, text in needs.items())
    unsaid = refusal(path, found, expected, advice, CubesUnsaid)
    kind = "delta" if low < 0 and abs(mean) < 0.2 else "overdensity" if abs(mean - 1) < 1e-3 else "density"
    proposals = {
        "box_size": ("...", "nothing tells it; what was the box of the simulation, in Mpc/h?"),
        "field_type": (kind, values if low >= 0 or kind == "delta" else f"{values}: of logarithms, which are undone"),
        "params": (beside[0] if beside else OWN, "it lies beside the cubes" if beside else "they have such attributes"),
        "line_of_sight": (2, "the last axis is usual"),
    }
    for name in box_names(told)[:1]:
        proposals["box_size"] = np.ravel(told[name])[0], f"{name} = {as_text(told[name])} has no unit; Mpc/h is usual"
    unsaid.proposals = {name: proposals.get(name, ("...", "names differ by it")) for name in needs}
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
        lines = [f"  {name} = {value}: {reason}" for name, (value, reason) in unsaid.proposals.items()]
        words = " ".join(f"--{name.replace('_', '-')} {value}" for name, (value, _) in unsaid.proposals.items())
        lines += [f"  python -m uvae_lib inspect {path} {words} --save\n"]
        page = "\n".join([f"{unsaid}\n\nProposed, to be checked by somebody who knows these cubes:", *lines])
    if save:
        alone = path.is_dir() or sum(file.suffix.lower() in SUFFIXES for file in path.parent.iterdir()) == 1
        place = (path if path.is_dir() else path.parent) / RECORD if alone else path.with_suffix(f".{RECORD}")
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
            values = dict(json.loads(place.read_text(encoding="utf-8"))) if place.is_file() else {}
        except (OSError, ValueError, TypeError) as error:
            raise refusal(place, f"no record ({error})", "JSON", 'write {"box_size": 25.0, ...}') from error
        if unknown := sorted({*values} - {*TOLD}):
            raise refusal(place, ", ".join(unknown), f"some of {', '.join(TOLD)}", "correct the names")
        told |= values
    return told


def open_data(data: DataConfig, set_name: str | None = None) -> CubeSuite:
    """The cubes of a configuration, with all its options: for commands, notebooks and stored runs alike.

    set_name   another set beside the one of the configuration, to which its parameter file does not belong
    Raises CubesError, and warns, as `open_cubes` does; also for slices thicker than the cubes allow.
    """
    options = {name: getattr(data, name) for name in OPTIONS}
    if data.params not in (None, "none", OWN):
        options["params"] = next((str(p) for p in [locate(data.params)] if p.is_file()), data.params)
    if set_name not in (None, data.set_name):
        options |= {"set_name": set_name, "params": None}
    suite = open_cubes(locate(data.path), **options)
    if not 1 <= data.thickness <= (most := suite.n_planes if suite.n_planes == suite.side else 1):
        expected = f"1 to {most}" if most > 1 else "1: ready-made maps are no neighbours"
        raise refusal(suite.source, f"data.thickness={data.thickness}", expected, "correct it")
    return suite


def fit_image_size(data: DataConfig, suite: CubeSuite) -> DataConfig:
    """The configuration with slices that fit the cubes: of the largest allowed size, said where that is smaller.

    Raises CubesError for cubes of fewer voxels than the smallest slice.
    """
    if data.image_size <= suite.side:
        return data
    size = max((size for size in IMAGE_SIZES if size <= suite.side), default=None)
    if size is None:
        raise refusal(
            suite.source, f"{suite.side} voxels a side", f"at least {IMAGE_SIZES[0]}, the smallest", "take larger"
        )
    text = f"cubes of {suite.side}^3 are smaller than slices of {data.image_size}^2: slices of {size}^2 are cut"
    warnings.warn(f"{text} (data.image_size={size})", UserWarning, stacklevel=2)
    return replace(data, image_size=size)


def split_cubes(
    n_cubes: int, val_fraction: float, test_fraction: float, seed: int, ids: Sequence[str] | None = None
) -> dict[str, list[int]]:
    """Split cubes, never slices, into train, val and test.

    ids      name of each cube's universe: cubes of one universe (its fields, in joined suites) stay together
    Returns  {"train": [...], "val": [...], "test": [...]}: sorted cube numbers, each in one part, and no part
             empty when there are three universes or more.
    Raises ValueError for fractions that leave nothing to train on.
    """
    labels = list(range(n_cubes) if ids is None else ids)
    fits = 0 <= val_fraction < 1 and 0 <= test_fraction < 1 and val_fraction + test_fraction < 1
    if not fits or not labels or len(labels) != n_cubes:
        found = f"{n_cubes} cubes, {len(labels)} ids, val_fraction={val_fraction}, test_fraction={test_fraction}"
        expected = "an id for each, and fractions from 0 that add up to less than 1"
        raise ValueError(f"found {found}; expected a cube or more, {expected}; correct them")
    universes = list(dict.fromkeys(labels))
    least = int(len(universes) >= 3)
    n_test, n_val = (max(least, round(len(universes) * fraction)) for fraction in (test_fraction, val_fraction))
    while n_test + n_val >= len(universes):  # something is left to train on
        n_test, n_val = (n_test - 1, n_val) if n_test > n_val else (n_test, n_val - 1)
    order = np.random.default_rng(seed).permutation(len(universes))
    parts = dict(zip(("test", "val", "train"), np.split(order, [n_test, n_test + n_val]), strict=True))
    part_of = {universes[u]: name for name, members in parts.items() for u in members}
    return {name: [i for i in range(n_cubes) if part_of[labels[i]] == name] for name in ("train", "val", "test")}
