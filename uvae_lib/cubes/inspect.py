"""What cubes hold, and what they may be: proposals with their reasons, of which nothing is used until it is said."""

import json
from pathlib import Path

import numpy as np

from ..files import write_atomically
from .arrays import RECORD, SUFFIXES, CubesUnsaid, as_text, attributes, box_names, existing, read_record
from .parameters import OWN, tables_beside
from .suite import TOLD, open_cubes


def inspect_cubes(path: str | Path, save: bool = False, **told) -> str:
    """A page on a file or folder: the suite, or what has to be said of it, with proposals and their reasons.

    told   of `open_cubes`, as far as it is known;  save: write it to suite.json beside the cubes
    Raises CubesError for cubes that cannot be used.
    """
    path, told = Path(path).expanduser().absolute(), {name: value for name, value in told.items() if value is not None}
    existing(path)
    try:
        page = open_cubes(path, **told).describe()
    except CubesUnsaid as unsaid:
        rows = {name: reason for name, reason in _proposals(path, unsaid.layout).items() if name in unsaid.needs}
        words = " ".join(f"--{name.replace('_', '-')} {value}" for name, (value, _) in rows.items())
        lines = [f"  {name} = {value}: {reason}" for name, (value, reason) in rows.items()]
        page = f"{unsaid}\n\nProposed, to be checked by somebody who knows these cubes:\n"
        page += "\n".join([*lines, f"  python -m uvae_lib inspect {path} {words} --save"]) + "\n"
    if save:
        alone = path.is_dir() or sum(file.suffix.lower() in SUFFIXES for file in path.parent.iterdir()) == 1
        place = (path if path.is_dir() else path.parent) / RECORD if alone else path.with_suffix(f".{RECORD}")
        write_atomically(place, json.dumps(read_record(path, TOLD) | told, indent=1) + "\n")
        page += f"{place} is written\n"
    return page


def _proposals(path: Path, layout) -> dict[str, tuple[object, str]]:
    """What an option may be, and why."""
    cube, beside = layout.files[0].read(0), tables_beside(layout, path if path.is_dir() else path.parent)
    low, mean = float(np.min(cube)), float(np.mean(cube, dtype=np.float64))
    kind = "delta" if low < 0 and abs(mean) < 0.2 else "overdensity" if abs(mean - 1) < 1e-3 else "density"
    told = attributes(layout.files[0])
    box = next(((name, told[name]) for name in box_names(told)), None)
    return {
        "box_size": (np.ravel(box[1])[0], f"{box[0]} = {as_text(box[1])} has no unit; Mpc/h is usual") if box
        else ("...", "nothing tells it; what was the box of the simulation, in Mpc/h?"),
        "field_type": (kind, f"minimum {low:.4g}, mean {mean:.4g}" if low >= 0 or kind == "delta"
                       else f"minimum {low:.4g}: logarithms are no density; undo them"),
        "params": (beside[0] if beside else OWN, "it lies beside the cubes" if beside else "they have such attributes"),
        "redshift": ("...", "names differ by it"), "field": ("...", "names differ by it"),
        "set_name": ("train", "names differ by it"), "line_of_sight": (2, "the last axis is usual"),
    }  # fmt: skip
