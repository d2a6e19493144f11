"""Timing side by side: what is compared runs in turns, so that a busy machine is busy for all of it."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from uvae_lib.files import write_atomically

Times = dict[str, np.ndarray]  # name -> seconds, one number a round


def interleaved(functions: dict[str, Callable[[int], object]], rounds: int, warm_up: int = 2) -> Times:
    """Time functions of the round's number in turns, every other round in the opposite order; name -> (rounds,) [s]."""
    times = {name: np.empty(rounds) for name in functions}
    for number in range(-warm_up, rounds):
        names = list(functions) if number % 2 else list(functions)[::-1]
        for name in names:
            began = time.perf_counter()
            functions[name](number + warm_up)
            if number >= 0:
                times[name][number] = time.perf_counter() - began
    return times


def ratio(times: Times, slow: str, fast: str) -> float:
    """Median over rounds of time(slow) / time(fast)."""
    return float(np.median(times[slow] / times[fast]))


def summary(times: Times) -> dict[str, dict[str, float]]:
    """Median and quartiles [ms] and number of rounds."""
    names = ("first quartile", "median", "third quartile")
    return {
        name: dict(zip(names, np.round(1e3 * np.quantile(t, (0.25, 0.5, 0.75)), 3).tolist(), strict=True))
        | {"rounds": len(t)}
        for name, t in times.items()
    }


def put_between(path: str | Path, name: str, text: str) -> None:
    """Replace what stands between <!-- name:begin --> and <!-- name:end --> in a file; ValueError without them."""
    begin, end = (f"<!-- {name}:{side} -->" for side in ("begin", "end"))
    before, found, rest = Path(path).read_text(encoding="utf-8").partition(begin)
    _, found_end, after = rest.partition(end)
    if not (found and found_end):
        raise ValueError(f"{path} has no {begin} and {end} for the table to stand between; add these two lines")
    write_atomically(path, f"{before}{begin}\n{text}{end}{after}")
