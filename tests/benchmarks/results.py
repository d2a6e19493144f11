"""The results: `make results`, or python -m tests.benchmarks.results. Writes docs/results.md.

Each part is stored in build/results/<run>/ as soon as it is measured, so that the same command goes on where it was
stopped. A short version, minutes on two slow cores:

    python -m tests.benchmarks.results --run runs/smoke --judged data/judged-smoke --universes 40 \
        --drawn-universes 6 --changed-universes 6 --classifier-slices 60 --epochs 2 --page build/results.md
"""

import json
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import tyro

from uvae_lib.files import plain_values, write_atomically
from uvae_lib.generation.flows import flows_of
from uvae_lib.presets import locate
from uvae_lib.runs.run import load_run, provenance, weights_key

from . import judge as judging
from . import page, shifts
from .drawn import Drawn, kinds
from .judge import Judge
from .networks import NETWORKS, supervised


@dataclass(frozen=True)
class Options:
    """What is judged, and how much of it."""

    run: Path = Path("weights/note")
    """Run folder."""
    judged: Path = Path("data/judged")
    """The judged universes: simulated there where there are none, with a seed of their own."""
    universes: int = 500
    """Judged universes."""
    drawn_universes: int = 96
    """Of them, those of which slices are drawn."""
    changed_universes: int = 100
    """Of them, those that are blurred, thinned, ..."""
    classifier_slices: tuple[int, ...] = (240, 900)
    """True and drawn slices, each, that the network learns from."""
    epochs: int = 30
    seeds: int = 1
    """Of the network that tells drawn slices from true ones."""
    networks: int = 0
    """Steps, at most, of the networks that learn from labels; 0: none are trained."""
    page: Path = Path("docs/results.md")


def stored(path: Path, key: str, make: Callable[[], dict]) -> dict:
    """A part of the results: read where it was made with the same key, else made and written."""
    if path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["key"] == key:
            return found
    print(f"{path.stem} ...", flush=True)
    found = plain_values(make()) | {"key": key, "made": provenance()}
    write_atomically(path, json.dumps(found, indent=1))
    return found


def measure(options: Options) -> dict:
    """All parts, by name."""
    run = load_run(locate(options.run))
    folder = locate("build/results") / run.config.name
    judge = Judge.of(run, options.judged, options.universes, folder)
    flows = flows_of(run) and flows_of(run).about.get("key")

    def part(name: str, make: Callable[[], dict], *settings) -> dict:
        file = "".join(c if c.isalnum() else "_" for c in name)
        key = weights_key(run, judge.suite.fingerprint, judge.judged.fingerprint, flows, [str(s) for s in settings])
        return stored(folder / f"{file}.json", key, make)

    found = {
        "parameters": part("parameters", lambda: judging.parameters(judge)),
        "labels": part("labels", lambda: judging.labels(judge)),
        "slices": part("slices", lambda: judging.slices(judge)),
        "closure": part("closure", lambda: shifts.closure(judge)),
        "scales": part("scales", lambda: shifts.scales(judge, options.drawn_universes), options.drawn_universes),
        "shifts": part("shifts", lambda: shifts.shifts(judge, options.changed_universes), options.changed_universes),
    }
    sizes = options.drawn_universes, options.classifier_slices, options.epochs, options.seeds
    drawn = cache(lambda: Drawn(judge, options.drawn_universes))
    found["drawn"] = {
        kind: part(f"drawn {kind}", lambda kind=kind: drawn().judged(kind, *sizes[1:]), *sizes) for kind in kinds(run)
    }
    found["networks"] = {
        name: part(name, lambda name=name: supervised(judge, name, options.networks), options.networks)
        for name in (NETWORKS if options.networks else ())
    }
    about = {"config": run.config, "info": run.info, "options": asdict(options), "made": provenance()}
    return found | {"about": about | {"n": judge.judged.n_cubes, "learned": len(judge.learned.cubes)}}


def main(options: Options) -> None:
    """Measure what is not yet stored, and write the page."""
    warnings.simplefilter("ignore", UserWarning)
    found = measure(options)
    write_atomically(locate(options.page), page.page(found))
    print(f"{locate(options.page)} is written")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
