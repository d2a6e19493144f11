"""The machine and the job of a training: Lightning's trainer, device, precision, Ctrl-C, processes that share steps."""

import ctypes
import logging
import os
import platform
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import lightning.pytorch as pl
import psutil
import torch
from lightning.pytorch.callbacks import Callback, TQDMProgressBar
from lightning.pytorch.plugins.environments import SLURMEnvironment
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from ..presets import Config
from .checkpoints import RunCheckpointIO, RunKeeper

PATIENCE = 600  # [s] that processes of one job wait for each other


def train_module(
    module: pl.LightningModule, folder: Path, start: Path | None, progress: bool, callbacks: Iterable[Callback] = ()
) -> RunKeeper:
    """Train a module to its last step and keep its folder; the keeper has the history, the time and the best loss.

    start   checkpoint to go on from
    Raises KeyboardInterrupt at Ctrl-C, with the step that was reached, and what `training.fit` does.
    """
    keeper = RunKeeper(folder)
    trainer = make_trainer(module.config, folder, progress, [keeper, *callbacks])
    with _stopping_well(trainer, keeper), warnings.catch_warnings():
        # Lightning's own use of torch
        warnings.filterwarnings("ignore", message=r".*(isinstance\(treespec, LeafSpec\)|all_gather is deprecated)")
        trainer.fit(module, ckpt_path=start, weights_only=True)
    return keeper


def make_trainer(config: Config, folder: Path, progress: bool, callbacks: list[Callback]) -> pl.Trainer:
    """Lightning's trainer of a configuration. Raises ValueError for devices that cannot be had here."""
    train = config.training
    for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # who started the processes of a job says there which of them died
    logging.getLogger("lightning.fabric.strategies.launchers.subprocess_script").setLevel(logging.INFO)
    several, on = train.devices * train.num_nodes > 1, chosen_device(train.accelerator).type
    if on == "cpu" and platform.libc_ver()[0] == "glibc":
        # memory that a step frees is kept for the next one: else it is cleared page by page, 6 % of a step on two cores
        libc, trim_threshold, mmap_threshold = ctypes.CDLL(None), -1, -3  # malloc.h
        libc.mallopt(trim_threshold, 2**30), libc.mallopt(mmap_threshold, 2**25)  # the largest that it takes
    bfloat16 = train.precision == "bfloat16" or (train.precision == "auto" and _multiplies_bfloat16(on))
    strategy = DDPStrategy(timeout=timedelta(seconds=PATIENCE), gradient_as_bucket_view=True)
    try:
        plugins = [SLURMEnvironment(auto_requeue=False)] if SLURMEnvironment.detect() else []
        return pl.Trainer(
            accelerator=train.accelerator, devices=train.devices, num_nodes=train.num_nodes, max_steps=train.steps,
            strategy=strategy if several else "auto", sync_batchnorm=several and on == "cuda",
            precision="bf16-mixed" if bfloat16 else "32-true", plugins=[RunCheckpointIO(), *plugins],
            callbacks=[*callbacks, *([_Bar(refresh_rate=10)] if progress else [])],
            default_root_dir=folder, enable_progress_bar=progress, enable_checkpointing=False,
            enable_model_summary=False, logger=False, use_distributed_sampler=False, num_sanity_val_steps=0,
        )  # fmt: skip
    except (RuntimeError, MisconfigurationException) as error:  # what SLURM, a notebook or the hardware do not offer
        raise ValueError(
            f"training.devices={train.devices} with num_nodes={train.num_nodes} cannot be had here: {error}"
        ) from error


def chosen_device(accelerator: str) -> torch.device:
    """Where training runs: what this machine accelerates with, unless the CPU is asked for."""
    found = torch.accelerator.current_accelerator(check_available=True)
    return found if found and accelerator != "cpu" else torch.device("cpu")


def _multiplies_bfloat16(device: str) -> bool:
    """Whether a kind of device has instructions for bfloat16 products (on the CPU AVX512-BF16, AMX, Arm BF16)."""
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    about = Path("/proc/cpuinfo")
    flags = about.read_text().split() if device == "cpu" and about.exists() else ()
    return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(flags)


def device_used(device: torch.device) -> dict[str, str | int]:
    """Name of a device, and the bytes that this process took: its peak on a GPU of CUDA, its present size elsewhere."""
    if device.type == "cuda":
        return {"device": torch.cuda.get_device_name(device), "memory": torch.cuda.max_memory_allocated(device)}
    return {"device": device.type.upper(), "memory": psutil.Process().memory_info().rss}


class _Bar(TQDMProgressBar):
    """Lightning's bar with the numbers of the last logged step."""

    def get_metrics(self, trainer, module) -> dict:
        return {name: f"{float(x):.4g}" for name, x in module.logged.items() if name in ("l2", "kl_z", "kl_h")}


@contextmanager
def _stopping_well(trainer: pl.Trainer, keeper: RunKeeper) -> Iterator[None]:
    """Let Ctrl-C, and SIGUSR1 by which clusters warn, end training after the step, which is saved; again, at once.

    Says how to go on when training ends early: so, or with another process of the job.
    """

    def ask(signum, frame) -> None:
        if keeper.stop_asked:
            raise KeyboardInterrupt
        keeper.stop_asked = True
        print("\nstopping after this step, which is saved; Ctrl-C again stops at once", file=sys.stderr)

    here = threading.current_thread() is threading.main_thread()  # elsewhere no signal arrives
    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGUSR1") if here and hasattr(signal, name)]
    handlers = [signal.signal(number, ask) for number in numbers]
    at = f"{keeper.folder} is at step"
    try:
        yield
    except SystemExit as stop:  # what Lightning makes of KeyboardInterrupt and of SIGTERM
        if not keeper.stopped:
            raise KeyboardInterrupt(f"{at} {trainer.global_step}, the newest checkpoint before it") from stop
    except RuntimeError as error:
        if trainer.world_size == 1:
            raise
        raise ConnectionError(
            f"{keeper.folder}: process {trainer.global_rank} of {trainer.world_size} ended at step "
            f"{trainer.global_step} ({str(error).splitlines()[0][:160]}); where another process of the job was lost, "
            "go on from the newest checkpoint with --resume"
        ) from error
    finally:
        for number, handler in zip(numbers, handlers, strict=True):
            signal.signal(number, handler)
    if keeper.stopped:
        raise KeyboardInterrupt(f"{at} {trainer.global_step} of {trainer.max_steps}, which is saved")


def process_rank() -> int:
    """0 in the first process of a job, which decides and writes; another number in those that were started for it."""
    return rank_zero_only.rank or int(os.environ.get("NODE_RANK", 0))


def wait_for(path: Path) -> None:
    """Wait until the first process of the job has written run.json."""
    until = time.monotonic() + PATIENCE
    while not path.exists():
        if time.monotonic() > until:
            raise ConnectionError(f"waited {PATIENCE} s for {path} of the job's first process; see what that says")
        time.sleep(0.1)
