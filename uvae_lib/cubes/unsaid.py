"""What files of cubes do not say: the sentence that asks for it, with proposals, and the record that answers it."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..files import write_atomically
from .arrays import SUFFIXES, CubesUnsaid, as_text, attributes, box_names, refusal
from .layout import CubeSuite
from .parameters import OWN, own_parameters, tables_beside

RECORD = "suite.json"


def ask(path: Path, suite: CubeSuite, table) -> None:
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


def read_record(path: Path, known: Sequence[str]) -> dict:
    """What the user has written beside the cubes: `suite.json` of the folder, and NAME.suite.json of a file.

    Raises CubesError for what is no JSON, or a name that is none of `known`.
    """
    told: dict = {}
    for place in [path / RECORD] if path.is_dir() else [path.parent / RECORD, path.with_suffix(f".{RECORD}")]:
        try:
            values = dict(json.loads(place.read_text(encoding="utf-8"))) if place.is_file() else {}
        except (OSError, ValueError, TypeError) as error:
            raise refusal(place, f"no record ({error})", "JSON", 'write {"box_size": 25.0, ...}') from error
        if unknown := sorted(set(values) - set(known)):
            raise refusal(place, ", ".join(unknown), f"some of {', '.join(known)}", "correct the names")
        told |= values
    return told


def write_record(path: Path, told: dict, known: Sequence[str]) -> Path:
    """Write what is told of cubes beside them, on top of what stands there; returns the file."""
    alone = path.is_dir() or sum(file.suffix.lower() in SUFFIXES for file in path.parent.iterdir()) == 1
    place = (path if path.is_dir() else path.parent) / RECORD if alone else path.with_suffix(f".{RECORD}")
    write_atomically(place, json.dumps(read_record(path, known) | told, indent=1) + "\n")
    return place
