"""Command line: python -m uvae_lib COMMAND; `python -m uvae_lib` lists the commands."""

import sys
import warnings
from pathlib import Path
from typing import Annotated, Literal

import tyro

from .presets import PRESETS, Config, load_preset, locate

USAGE = """usage: python -m uvae_lib COMMAND [options]

  simulate   make the suite of simulated cubes of a preset (resumes, reuses)
  train      train a Universe VAE (resumes with --resume, reuses a finished run)
  evaluate   judge a run on cubes that it never saw: metrics.json, a table, figures
  baselines  train what a run is compared with: a supervised ResNet-18, a VAE without z (resumes, reuses)
  report     one HTML page on a run: targets, probes, controls, ledger, every number beside its reference
  export     copy a run for others: weights in bfloat16 and results, without checkpoints
  inspect    say what a file or folder of cubes holds, and what is wrong with it
  download   fetch public cubes (CAMELS Multifield Dataset, Quijote)
  table      print the networks and their numbers of parameters

Presets: {presets}; choose with --preset NAME (or UVAE_PRESET), then override any field of it,
e.g. `python -m uvae_lib train --preset demo --training.steps 2000 --loss.kl-h 100`.
`python -m uvae_lib COMMAND --help` lists everything that a command takes.
"""


def main(arguments: list[str] | None = None) -> None:
    """Run one command; a refusal is one sentence on stderr and exit code 1."""
    arguments = sys.argv[1:] if arguments is None else arguments
    commands = {"simulate": simulate, "train": train, "evaluate": evaluate, "baselines": baselines, "report": report,
                "export": export, "inspect": inspect, "download": download, "table": table}  # fmt: skip
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE.format(presets=", ".join(PRESETS)))
        raise SystemExit(0 if arguments else 2)
    if arguments[0] not in commands:
        raise SystemExit(f'found command "{arguments[0]}"; expected one of {", ".join(commands)}')
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    try:
        commands[arguments[0]](arguments[1:])
    except (ValueError, FileNotFoundError, FloatingPointError) as error:
        raise SystemExit(f"error: {error}") from error
    except KeyboardInterrupt as stop:
        raise SystemExit(f"stopped; the same command goes on where it was. {stop}") from stop


def _configured(command: str, arguments: list[str]) -> Config:
    """The preset named by --preset, with the fields that are given in its place."""
    arguments, name = list(arguments), None
    for i, word in enumerate(arguments):
        if word == "--preset" or word.startswith("--preset="):
            name = word.partition("=")[2] or (arguments[i + 1] if i + 1 < len(arguments) else "")
            del arguments[i : i + (1 if "=" in word else 2)]
            break
    preset = load_preset(name)
    prog = f"python -m uvae_lib {command} --preset {preset.name}"
    return tyro.cli(Config, default=preset, prog=prog, args=arguments)


def simulate(arguments: list[str]) -> None:
    """Make the suite of a preset in its data path."""
    config = _configured("simulate", arguments)
    from .simulate import simulate_suite

    for suite in simulate_suite(locate(config.data.path), config.simulation).values():
        print(suite.source)


def train(arguments: list[str]) -> None:
    """Train, then say where the run is."""
    flags = {"--resume": False, "--no-progress": False}
    for flag in flags:
        if flag in arguments:
            arguments = [word for word in arguments if word != flag]
            flags[flag] = True
    if {"-h", "--help"} & set(arguments):
        print("--resume         go on from the newest whole checkpoint of the run\n--no-progress    no progress bar\n"
              "--devices, --num-nodes    short for --training.devices, --training.num-nodes\n")  # fmt: skip
    short = {"--devices", "--num-nodes"}
    arguments = ["--training." + word[2:] if word.partition("=")[0] in short else word for word in arguments]
    config = _configured("train", arguments)
    from .training import fit

    table([])
    run = fit(config, resume=flags["--resume"], progress=not flags["--no-progress"])
    last = run.history.dropna(subset="val_fvu").iloc[-1]
    print(f"{run.folder}: {len(run.history)} rows of history; validation: unexplained variance {last['val_fvu']:.3f}, "
          f"KL(z) {last['val_kl_z']:.1f} nats, KL(h) {last['val_kl_h']:.1f} nats")  # fmt: skip


def evaluate(arguments: list[str]) -> None:
    """Judge a run on its test cubes."""

    def options(run: Path, n_slices: int = 15) -> tuple[Path, int]:
        """Judge a run on cubes that it never saw.

        Args:
            run: run folder, e.g. runs/demo
            n_slices: slices of each cube
        """
        return run, n_slices

    folder, n_slices = tyro.cli(options, prog="python -m uvae_lib evaluate", args=arguments)
    from .analysis.metrics import evaluate_run, summary

    print(summary(evaluate_run(folder, n_slices=n_slices)))
    print(f"{folder / 'metrics.json'} and {folder / 'figures'} are written")


def baselines(arguments: list[str]) -> None:
    """Train what a run is compared with."""

    def options(run: Path, what: tuple[Literal["supervised", "vae"], ...] = ("supervised", "vae"),
                steps: int | None = None) -> tuple[Path, tuple[str, ...], int | None]:  # fmt: skip
        """Train what a run is compared with, on its slices and for its steps: baselines.json in its folder.

        Args:
            run: run folder, e.g. runs/demo
            what: supervised: ResNet-18 from a slice to the parameters; vae: the run's networks without z
            steps: of each training; as many as the run when absent
        """
        return run, what, steps

    folder, what, steps = tyro.cli(options, prog="python -m uvae_lib baselines", args=arguments)
    from .analysis.baselines import train_baselines

    results = train_baselines(folder, [{"vae": "plain_vae"}.get(name, name) for name in what], steps=steps)
    for name, found in results.items():
        if name != "made":
            print(name, {key: value for key, value in found.items() if key not in ("predicted", "truth")})
    print(f"{folder / 'baselines.json'} is written")


def report(arguments: list[str]) -> None:
    """Write report.html of a run."""

    def options(run: Path, n_slices: int = 15, readme: Path | None = None) -> tuple[Path, int, Path | None]:
        """Measure what a run knows and write report.html, controls.json and metrics.json into its folder.

        Args:
            run: run folder, e.g. runs/demo
            n_slices: slices of each cube
            readme: Markdown file that takes the table of targets between its marks
        """
        return run, n_slices, readme

    folder, n_slices, readme = tyro.cli(options, prog="python -m uvae_lib report", args=arguments)
    from .analysis.report import make_report

    print(f"{make_report(folder, n_slices=n_slices, readme=readme)} is written; open it in a browser")


def export(arguments: list[str]) -> None:
    """Copy a run without what only training needs."""

    def options(run: Path, to: Path) -> tuple[Path, Path]:
        """Copy a run for others: weights in bfloat16, configuration, history and results; no checkpoints.

        Args:
            run: run folder, e.g. runs/reference
            to: folder, e.g. weights/reference
        """
        return run, to

    folder, to = tyro.cli(options, prog="python -m uvae_lib export", args=arguments)
    from .runs import export_run

    for path in export_run(folder, to):
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


def inspect(arguments: list[str]) -> None:
    """Describe cubes that somebody brought."""

    def options(path: Annotated[Path, tyro.conf.Positional], set_name: str | None = None, kind: str | None = None,
                box_size: float | None = None, dataset: str | None = None) -> dict:  # fmt: skip
        """Say what a file or folder of cubes holds, what was assumed, and what is wrong with it.

        Args:
            path: file or folder
            set_name: LH, CV, 1P, ... where a folder holds several
            kind: density, delta, overdensity or counts, when the guess is wrong
            box_size: side of the cubes [Mpc/h], when the files do not say
            dataset: name of the data set in an HDF5 file
        """
        return locals()

    found = tyro.cli(options, prog="python -m uvae_lib inspect", args=arguments)
    from .inspect_suite import describe

    print(describe(found.pop("path"), **{name: value for name, value in found.items() if value is not None}))


def download(arguments: list[str]) -> None:
    """Fetch public cubes."""
    from .readers.download import main as fetch

    fetch(arguments)


def table(arguments: list[str]) -> None:
    """Print the networks as the note does."""
    config = _configured("table", arguments) if arguments else load_preset()
    import torch

    from .model import format_table
    from .runs import build_model

    with torch.device("meta"):
        print(format_table(build_model(config, config.simulation.side)))


if __name__ == "__main__":
    main()
