"""Command line: python -m uvae_lib COMMAND; `python -m uvae_lib --help` lists the commands."""

import argparse
import os
import sys
import warnings
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import tyro

from .presets import PRESETS, Config, load_preset, locate

PROG = "python -m uvae_lib"
ABOUT = f"""A hierarchical set VAE on slices of large-scale structure.

Presets: {", ".join(PRESETS)}; choose with --preset NAME (or UVAE_PRESET). simulate and train take every field of a
preset, e.g. `{PROG} train --preset demo --training.steps 2000 --loss.kl-h 100`."""

Fields = Annotated[Config, tyro.conf.arg(name="")]  # --training.steps, not --config.training.steps


def main(arguments: list[str] | None = None) -> None:
    """Run one command; what can be foreseen to fail is one sentence on stderr and an exit code, not a traceback."""
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    chooser = argparse.ArgumentParser(prog=PROG, add_help=False, allow_abbrev=False)
    chooser.add_argument("--preset")
    chosen, arguments = chooser.parse_known_args(arguments)
    try:
        preset = load_preset(chosen.preset)
        of_config = [partial(command, config=preset) for command in (simulate, train)]
        of_run = [partial(command, run=locate("runs") / preset.name) for command in (train_flows, evaluate)]
        commands = {part.func.__name__.replace("_", "-"): part for part in of_config + of_run}
        commands |= {"inspect": inspect, "download": download}
        tyro.extras.subcommand_cli_from_dict(commands, prog=PROG, description=ABOUT, args=arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # `inspect PATH | head -1`: the reader has what it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(141) from None
    except KeyboardInterrupt as stop:
        print(f"stopped; {str(stop) or 'the same command goes on where it was'}", file=sys.stderr)
        raise SystemExit(130) from stop
    except Exception as error:
        if sentence := _refusal(error):
            raise SystemExit(f"error: {sentence}") from error
        raise


def _refusal(error: Exception) -> str | None:
    """What to tell the user of a failure that lies in files, settings or the machine; None for a fault of the code."""
    match error:
        case OSError(filename=str() | Path() as name, strerror=str() as reason):
            return f"cannot use {name}: {reason}; name a place that exists, may be read and written, and has room"
        case BrokenProcessPool():
            return f"{error}; `taskset -c 0` before the command simulates one cube at a time"
        case ModuleNotFoundError(name=str() as name) if not name.startswith("uvae_lib"):
            return f"the package {name} is missing; install the project with its extras: pip install -e '.[dev]'"
        case MemoryError():
            return f"the memory is full ({error}); use fewer or smaller cubes, or smaller steps"
        case RuntimeError() if type(error).__name__ == "OutOfMemoryError":  # torch's
            return f"{str(error).splitlines()[0]} Use a smaller --training.sets-per-step or --data.pool-size"
        case ValueError() | OSError() | FloatingPointError():
            return str(error)
    return None


def simulate(config: Fields) -> None:
    """Simulate the suite of a preset (--preset NAME) in its data path (resumes, reuses)."""
    from .simulation import simulate_suite

    for suite in simulate_suite(locate(config.data.path), config.simulation).values():
        print(suite.source)


def train(config: Fields, resume: bool = False, progress: bool = True) -> None:
    """Train the Universe VAE of a preset (--preset NAME); a finished run is kept, or goes on to more --training.steps.

    Args:
        config: the preset, with every field that is given in its place
        resume: go on from the newest whole checkpoint of the run
        progress: show a progress bar
    """
    from .training import fit
    from .training.trainer import process_rank

    run = fit(config, resume=resume, progress=progress)
    if process_rank():  # the first process of a job speaks for all
        return
    last = run.history.iloc[-1]
    head, name = ("val_", "validation") if "val_fvu" in last else ("", "last step, on training cubes")
    print(
        f"{run.folder}: {len(run.history)} rows of history; {name}: unexplained variance {last[head + 'fvu']:.3f}, "
        f"KL(z) {last[head + 'kl_z']:.1f} nats, KL(h) {last[head + 'kl_h']:.1f} nats"
    )


def train_flows(run: Path, steps: int | None = None, progress: bool = True) -> None:
    """Train the flows that complete what a run draws: flows.safetensors in its folder (resumes, reuses).

    Args:
        run: run folder
        steps: of the training; those of the run's configuration when absent
        progress: show a progress bar
    """
    from .generation.flows import flows_of
    from .generation.training import fit_flows

    flows = flows_of(fit_flows(run, steps=steps, progress=progress))
    print(f"{run / 'flows.safetensors'} is written: draws in {flows.n_steps} steps")


def evaluate(
    run: Path, n_slices: int = 15, data_path: Annotated[str | None, tyro.conf.arg(name="data.path")] = None
) -> None:
    """Judge a run on cubes that it never saw: metrics.json in its folder.

    Args:
        run: run folder
        n_slices: slices of each cube
        data_path: where its cubes are now, when they have moved; the run keeps it
    """
    from .analysis.evaluate import evaluate_run, summary
    from .runs.run import move_data, read_info

    data_path, (_, config) = data_path or os.environ.get("UVAE_DATA"), read_info(run)
    if data_path and locate(data_path).resolve() != locate(config.data.path).resolve():
        move_data(run, data_path)
    print(summary(evaluate_run(run, n_slices=n_slices, progress=True)))
    print(f"{run / 'metrics.json'} is written")


def inspect(
    path: Annotated[Path, tyro.conf.Positional], box_size: str | None = None, field_type: str | None = None,
    params: str | None = None, line_of_sight: Literal[0, 1, 2, "none"] | None = None, redshift: float | None = None,
    field: str | None = None, set_name: str | None = None, allow_same_universe: bool | None = None, save: bool = False,
) -> None:  # fmt: skip
    """Say what a file or folder of cubes holds, and propose, with reasons, what it does not say.

    Args:
        path: file or folder
        box_size: side of a cube [Mpc/h], or a text with its unit
        field_type: density, delta, overdensity or counts
        params: table of parameters, "attributes" of the cubes, or "none"
        line_of_sight: axis along which redshift space is distorted
        redshift: of several snapshots
        field: of several fields, files or data sets; a pattern says that each is a universe
        set_name: of several sets
        allow_same_universe: open cubes with the same largest modes
        save: write what is given to suite.json beside the cubes
    """
    from .cubes.suite import inspect_cubes

    told = {name: value for name, value in locals().items() if name not in ("path", "save", "inspect_cubes")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the page ends with them
        print(inspect_cubes(path, save, **told))


def download(
    source: Annotated[Literal["cmd"], tyro.conf.Positional], field: str = "Mcdm", suite: str = "IllustrisTNG",
    set: str = "LH", grid: int = 128, maps: bool = False, redshift: float = 0.0, folder: Path | None = None,
) -> None:  # fmt: skip
    """Fetch one file of the CAMELS Multifield Dataset (cmd), and its parameters.

    Args:
        source: cmd
        field: Mcdm, Mtot (the only one of N-body suites), Mgas, ...
        suite: IllustrisTNG, SIMBA, Astrid, Nbody_IllustrisTNG, Nbody_SIMBA, Nbody_Astrid
        set: LH, CV, EX, BE, 1P, SB28
        grid: voxels along a side, 128 (7.8 GiB for LH), 256 (62.5 GiB) or 512 (500 GiB)
        maps: the 2D maps instead of the 3D grids
        redshift: as in the file's name
        folder: where to put it; the user's cache when absent
    """
    from .cubes.download import download_cmd

    path = download_cmd(folder, field=field, suite=suite, set=set, grid=None if maps else grid, redshift=redshift)
    print(f"{path}\nlook at it with: {PROG} inspect {path}")


if __name__ == "__main__":
    main()
