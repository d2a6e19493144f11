"""The side of a box [Mpc/h]: what is written with a unit is read, and what is not the user says."""

import math
import re
from pathlib import Path

import numpy as np

from .arrays import Stack, as_text, attributes, refusal
from .layout import CubeSuite

BOX = re.compile(r"l?box(size|length|len|side|width)?(inmpch|mpch)?|sidelength|domainwidth")
WAVE = r"\s*h\s*(?:\^|\*\*)?\s*[{(]?\s*-\s*1\s*[})]?\s*"
LENGTH = re.compile(rf"([-+\[\](),.\deE\s]+?)\s*({WAVE})?(?:comoving\s+)?c?([kMG])pc(?:cm)?(\s*/\s*h|{WAVE})?\s*")


def read_length(value: object) -> list[float] | None:
    """Lengths [Mpc/h] of a text with a unit, as "500 Mpc/h" or "[500 500 500] h^-1 Mpc".

    Returns None for a number without a unit, and for what is no length.
    """
    found = LENGTH.fullmatch(as_text(value))
    if not found or not (found[2] or found[4]):
        return None
    scale = {"k": 1e-3, "M": 1.0, "G": 1e3}[found[3]]
    return [float(number) * scale for number in re.findall(r"[-+]?\d+\.?\d*(?:[eE][-+]?\d+)?", found[1])] or None


def box_names(told: dict) -> list[str]:
    """Attributes that are called as sides of boxes are."""
    return [name for name in told if BOX.fullmatch(re.sub(r"[\W_]", "", name.rpartition("/")[2].lower()))]


def box_of(stack: Stack) -> float | None:
    """Side of the box [Mpc/h] where an attribute gives it with its unit. Raises CubesError for sides that differ."""
    told = attributes(stack)
    for name in box_names(told):
        lengths = read_length(told[name])
        if len({*(lengths or np.ravel(told[name]).tolist())}) > 1:
            raise refusal(stack.path, f"{name} = {as_text(told[name])}", "a cube, as long as wide", "cut it to cubes")
        if lengths:
            return lengths[0]
    return None


def set_box(path: Path, suite: CubeSuite, given: float | str | None) -> None:
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
