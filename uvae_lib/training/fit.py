"""`fit`: make a run, or go on with one that was stopped."""

import warnings
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch
from lightning.pytorch.callbacks import Callback

from ..cubes.suite import CubeSuite, fit_image_size, open_data, split_cubes
from ..files import write_atomically
from ..model import LATENT_DIM
from ..presets import Config, locate, to_dict
from ..runs.run import (
    Run,
    as_json,
    build,
    check_same_cubes,
    differences,
    load_run,
    lock_run,
    move_data,
    provenance,
    read_info,
    weights_as_bytes,
)
from .checkpoints import checkpoints, newest_checkpoint
from .module import LitUniverseVAE, module_settings
from .slices import pool_size, survey
from .start import discriminants, slice_power
from .trainer import chosen_device, device_used, process_rank, train_module, wait_for

SURVEYED_SLICES = 12  # of a cube, for the taught start


def fit(
    config: Config, folder: str | Path | None = None, *, resume: bool = False, progress: bool = True,
    callbacks: list[Callback] | None = None,
) -> Run:  # fmt: skip
    """Train a Universe VAE and return the run; a finished run is returned as it is, or goes on to more steps.

    folder      runs/<config.name> when absent
    resume      go on from the newest whole checkpoint of an unfinished run; from the start when there is none
    progress    show a progress bar;  callbacks: further Lightning callbacks
    Raises ValueError when the folder holds a run of another configuration or, without resume, an unfinished one, or
    when another process trains it, or the cubes changed; FloatingPointError when the loss is not finite: the last good
    checkpoint is kept; ConnectionError when a process of a distributed job ended; OSError when a file of the run cannot
    be written; KeyboardInterrupt at Ctrl-C and SIGTERM, after the step is saved (at once when pressed again).

    Several processes (training.devices, num_nodes) share the sets of a step, of which there must be a multiple of them.
    fit returns in each, as Lightning's trainer does.
    Without cubes for validation (one or two cubes) best.safetensors holds the last weights.

    Determinism: on one machine the same configuration, seed, pool_size and number of threads give the same history
    and weights, bit for bit on the CPU, however often the run is killed and resumed. Not repeatable: other thread
    counts, machines or versions of torch; a GPU, whose convolutions add up in no fixed order.
    """
    folder = Path(folder or locate("runs") / config.name)
    rank, train = process_rank(), config.training
    if rank and train.devices * train.num_nodes == 1:
        raise ValueError(
            f"this is process {rank} of a job whose run has one device; give training.devices and training.num_nodes "
            "the processes of a node and the nodes of the job, or start one process"
        )
    suite = open_data(config.data)
    config = replace(config, data=fit_image_size(config.data, suite))
    if rank:
        wait_for(folder / "run.json")
    info, config = _known_run(config, suite, folder, writes=not rank)
    if not info or not info["finished"]:
        with nullcontext() if rank else lock_run(folder):
            info = info or _new_run(config, suite, folder)
            if not rank and not info["split"]["val"]:
                warnings.warn(
                    f"no cube is left for validation ({suite.n_cubes} in {suite.source}): best.safetensors will hold "
                    "the last weights; give at least three cubes, so that one is not trained on",
                    stacklevel=2,
                )
            if progress and not rank:
                size, n_train = info["pool_size"], len(info["split"]["train"])
                print(f"{size} of {n_train} training cubes are held on the device at a time (data.pool_size)")
            _train(config, folder, suite, info, resume, progress, callbacks or [])
    return load_run(folder)


def _known_run(config: Config, suite: CubeSuite, folder: Path, writes: bool) -> tuple[dict | None, Config]:
    """run.json of a folder, None where there is none, and the configuration with as many steps as were asked for.

    writes   this process says in run.json where the cubes are now
    Raises ValueError for a run of another configuration, or of other cubes.
    """
    if not (folder / "run.json").exists():
        return None, config
    info, found = read_info(folder)
    if differ := differences(found, config):
        raise ValueError(
            f"{folder} holds a run of another configuration: {', '.join(differ)}; use another --name, or remove it"
        )
    check_same_cubes(suite, info, folder)
    if found.training.steps < config.training.steps:
        if not checkpoints(folder):
            raise ValueError(
                f"{folder} ended after {found.training.steps} steps and holds no checkpoint from which it could go on "
                f"to {config.training.steps}; train under another --name"
            )
        info |= {"config": to_dict(config), "finished": False}
        if writes:
            write_atomically(folder / "run.json", as_json(info))
        info["goes_on"] = True
    config = replace(config, training=replace(config.training, steps=max(config.training.steps, found.training.steps)))
    if found.data.path != config.data.path and writes:
        move_data(folder, config.data.path)
        info, _ = read_info(folder)
    return info, config


def _train(
    config: Config, folder: Path, suite: CubeSuite, info: dict, resume: bool, progress: bool, callbacks: list
) -> None:
    """Train to the end and write what a finished run has."""
    settings = module_settings(info, config)
    resume = info.pop("goes_on", False) or resume
    if checkpoints(folder) and not resume:
        raise ValueError(
            f"{folder} holds an unfinished run ({checkpoints(folder)[-1].name}); go on with --resume (resume=True), "
            "or use another --name"
        )
    start = newest_checkpoint(folder, settings)
    if checkpoints(folder) and not start:
        warnings.warn(f"no checkpoint of {folder} can be used; training starts from the beginning", stacklevel=3)
    module = LitUniverseVAE(**settings).attach(suite)
    try:
        keeper = train_module(module, folder, start, progress, callbacks)
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt(f"{stop}; go on with --resume") from stop
    trainer = module.trainer
    if trainer.is_global_zero:
        keeper.write(folder / "last.safetensors", weights_as_bytes(module.evaluated))
        info |= {"finished": True, "seconds": keeper.seconds()} | device_used(trainer.strategy.root_device)
        write_atomically(folder / "run.json", as_json(info))
    trainer.strategy.barrier()


def _new_run(config: Config, suite: CubeSuite, folder: Path) -> dict:
    """Decide what a run keeps for good: split, standardisation, number of cubes held; and write run.json."""
    data = config.data
    with torch.device("meta"):
        build(config, suite.side)  # refuses what cannot be built before anything is read
    names = list(suite.ids)
    split = split_cubes(suite.n_cubes, data.test_fraction / 2, data.test_fraction, 0, ids=suite.universes)
    taught = config.training.taught_steps
    mean, std, slices = survey(
        suite, split["train"], SURVEYED_SLICES if taught else 0, data.image_size, data.thickness, data.eps
    )
    power = slice_power(slices.flatten(0, 1)).mean(dim=0) if taught else None
    if taught and not bool((power > 0).all()):
        raise ValueError("found slices without power at some k, by which the taught start divides: taught_steps=0")
    info = {
        "config": to_dict(config),
        "side": suite.side,
        "box_size": float(suite.box_size),
        "box_from": suite.box_from,
        "field": suite.field,
        "redshift": suite.redshift,
        "mean": mean,
        "std": std,
        "split": split,
        "cubes": names,
        "pool_size": _pool_size(config, suite, len(split["train"])),
        "power": power.tolist() if taught else None,
        "discriminants": discriminants(slices, power).tolist() if taught else None,
        "finished": False,
        "fingerprint": suite.fingerprint,
        **provenance(),
    }
    write_atomically(folder / "run.json", as_json(info))
    return info


def _pool_size(config: Config, suite: CubeSuite, n_train: int) -> int:
    """Training cubes held at a time: data.pool_size, or as many as fit on the device that Lightning will choose."""
    data = config.data
    if data.pool_size:
        return min(n_train, data.pool_size)
    device = chosen_device(config.training.accelerator)
    return pool_size(
        suite, n_train, dtype=getattr(torch, data.storage), device=device,
        n_pools=1 if device.type == "cuda" else config.training.devices,
    )  # fmt: skip


def weighted_terms(history: pd.DataFrame) -> pd.DataFrame:
    """The terms of a run's loss as they enter it, one row a logged step: after a taught start they add up to `loss`.

    history   of a run: terms, KLs in nats, and weights
    """
    terms = {
        "l2": history["l2"],
        "kl_z": history["weight_z"] * history["kl_z"] / LATENT_DIM,
        "kl_h": history["weight_h"] * history["kl_h"] / LATENT_DIM,
    }
    return pd.DataFrame({"step": history["step"], **terms, "loss": history["loss"]})
