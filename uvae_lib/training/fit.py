"""`fit`: make a run, or go on with one that was stopped."""

import warnings
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import torch
from lightning.pytorch.callbacks import Callback

from ..cubes.suite import CubeSuite, fit_image_size, open_data, split_cubes
from ..presets import Config, locate, to_dict
from ..runs.run import Run, build, check_same_cubes, differences, load_run, lock_run, provenance, read_info, write_info
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
    info, config, goes_on = _known_run(config, suite, folder, writes=not rank)
    if info and info["finished"]:
        return load_run(folder)
    with nullcontext() if rank else lock_run(folder):
        info = info or _new_run(config, suite, folder)
        found, settings = checkpoints(folder), module_settings(info, config)
        if found and not resume and not goes_on:
            raise ValueError(
                f"{folder} holds an unfinished run ({found[-1].name}); go on with --resume (resume=True), "
                "or use another --name"
            )
        start = newest_checkpoint(folder, settings)
        if found and not start:
            warnings.warn(f"no checkpoint of {folder} can be used; training starts from the beginning", stacklevel=2)
        module = LitUniverseVAE(**settings).attach(suite)
        try:
            keeper = train_module(module, folder, start, progress, callbacks or [])
        except KeyboardInterrupt as stop:
            raise KeyboardInterrupt(f"{stop}; go on with --resume") from stop
        keeper.write_weights("last", module)
        if not rank:
            used = device_used(module.trainer.strategy.root_device)
            write_info(folder, info | {"finished": True, "seconds": keeper.seconds()} | used)
        module.trainer.strategy.barrier()
    return load_run(folder)


def _known_run(config: Config, suite: CubeSuite, folder: Path, writes: bool) -> tuple[dict | None, Config, bool]:
    """run.json of a folder, None where there is none; the configuration with as many steps as were asked for; and
    whether these are more than a finished run has had.

    writes   this process says in run.json where the cubes are now
    Raises ValueError for a run of another configuration, or of other cubes.
    """
    if not (folder / "run.json").exists():
        return None, config, False
    info, found = read_info(folder)
    if differ := differences(found, config):
        raise ValueError(
            f"{folder} holds a run of another configuration: {', '.join(differ)}; use another --name, or remove it"
        )
    check_same_cubes(suite, info, folder)
    goes_on, moved = found.training.steps < config.training.steps, found.data.path != config.data.path
    if goes_on and not checkpoints(folder):
        raise ValueError(
            f"{folder} ended after {found.training.steps} steps and holds no checkpoint from which it could go on "
            f"to {config.training.steps}; train under another --name"
        )
    config = replace(config, training=replace(config.training, steps=max(config.training.steps, found.training.steps)))
    if goes_on:
        info |= {"config": to_dict(config), "finished": False}
    info["config"]["data"]["path"] = config.data.path
    if writes and (goes_on or moved):
        write_info(folder, info)
    return info, config, goes_on


def _new_run(config: Config, suite: CubeSuite, folder: Path) -> dict:
    """Decide what a run keeps for good: split, standardisation, number of cubes held; and write run.json."""
    data, taught = config.data, config.training.taught_steps
    with torch.device("meta"):
        build(config, suite.side)  # refuses what cannot be built before anything is read
    split = split_cubes(suite.n_cubes, data.test_fraction / 2, data.test_fraction, 0, ids=suite.universes)
    if not split["val"]:
        warnings.warn(
            f"no cube is left for validation ({suite.n_cubes} in {suite.source}): best.safetensors will hold "
            "the last weights; give at least three cubes, so that one is not trained on",
            stacklevel=3,
        )
    n_slices = SURVEYED_SLICES if taught else 0
    mean, std, slices = survey(suite, split["train"], n_slices, data.image_size, data.thickness, data.eps)
    info = {"config": to_dict(config), "cubes": list(suite.ids)} | provenance()
    info |= {name: getattr(suite, name) for name in ("side", "box_from", "field", "redshift", "fingerprint")}
    info |= {"box_size": float(suite.box_size), "mean": mean, "std": std, "split": split, "finished": False}
    info["pool_size"] = pool_size(suite, len(split["train"]), config, chosen_device(config.training.accelerator))
    if taught:
        power = slice_power(slices.flatten(0, 1)).mean(dim=0)
        if not bool((power > 0).all()):
            raise ValueError("found slices without power at some k, by which the taught start divides: taught_steps=0")
        info |= {"power": power.tolist(), "discriminants": discriminants(slices, power).tolist()}
    write_info(folder, info)
    return info
