"""Suites of simulated cubes behind one call: `open_cubes(path)` gives overdensities, a box and parameters.

Known layouts (`camels`, `quijote`, our own) are taken for granted. Of all others (`layout.plain`) the user says once
what the files do not, as an argument, as --data.*, or in `suite.json` beside the cubes; nothing is guessed.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..presets import DataConfig, locate
from . import camels, quijote
from .arrays import CubesError, CubesUnsaid, box_of, existing, read_length, refusal
from .checks import FIELD_TYPES, check_cubes
from .layout import CubeSuite, plain
from .parameters import OWN, cube_parameters
from .unsaid import ask, read_record, write_record

__all__ = ["CubeSuite", "CubesError", "fit_image_size", "open_cubes", "open_data", "split_cubes"]
IMAGE_SIZES = (32, 64, 128, 256, 512)  # that the networks take [pixels]
OPTIONS = ("set_name", "redshift", "field", "box_size", "field_type", "params", "line_of_sight")
TOLD = (*OPTIONS, "allow_same_universe")  # what suite.json may say


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
    told = read_record(path, TOLD) | {k: v for k, v in zip(TOLD, values, strict=True) if v is not None}
    suite = camels.find(path, told) or quijote.find(path, told) or plain(path, told)
    _set_box(path, suite, told.get("box_size"))
    suite.field_type, sight = told.get("field_type", suite.field_type), told.get("line_of_sight")
    choices = (("field_type", suite.field_type, FIELD_TYPES), ("line_of_sight", sight, (0, 1, 2, "none")))
    for name, value, known in choices:
        if value is not None and value not in known:
            raise refusal(path, f"{name}={value!r}", f"one of {', '.join(map(str, known))}", "choose one")
    folder, table = path if path.is_dir() else path.parent, told.get("params", suite.table)
    ask(path, suite, table)
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


def _set_box(path: Path, suite: CubeSuite, given: float | str | None) -> None:
    """Box [Mpc/h] of a suite and what told it: the user, or attributes with a unit; else as it is."""
    if not suite.columns:
        boxes = {box_of(stack) for stack in suite.files}
        if len(boxes) > 1:
            raise refusal(path, f"boxes of {', '.join(map(str, boxes))} [Mpc/h]", "one box size", "open each by itself")
        (suite.box_size,), suite.box_from = boxes, "as the file says"
    if given is None:
        return
    size = (read_length(given) or [None])[0] if isinstance(given, str) else given
    if not isinstance(size, int | float | np.number) or not 0 < size < math.inf:
        raise refusal(path, f"a box size of {given!r}", "a positive number [Mpc/h]", 'pass 25.0, or "25 Mpc/h"')
    if not suite.columns and suite.box_size and abs(suite.box_size / size - 1) > 1e-3:
        suite.cautions.append(f"box_size={given} is taken, although the file says {suite.box_size:g} Mpc/h")
    suite.box_size, suite.box_from = float(size), "as given"


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
        page += f"{write_record(path, told, TOLD)} is written\n"
    return page


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
