"""Checkpoints, and the callback that keeps a run folder whole whatever ends the process.

A checkpoint holds weights, running averages, optimiser, schedule, loop counters, the history so far and the best
validation loss. Slices, contexts and noise of a step are functions of (seed, step), so no random state is needed.
Every file is written under a temporary name and renamed: it is whole or absent.
"""

import logging
import math
import shutil
import time
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins.io import TorchCheckpointIO

from .files import atomic_path, write_atomically
from .presets import from_dict
from .runs import differences, weights_as_bytes

try:
    import fcntl
except ImportError:  # Windows has no locks of this kind
    fcntl = None

log = logging.getLogger(__name__)
KEEP = 2  # checkpoints
PARTS = {"state_dict", "optimizer_states", "lr_schedulers", "loops", "callbacks", "hyper_parameters"}


def checkpoint_path(folder: Path, step: int) -> Path:
    """The file of a run's checkpoint after so many steps."""
    return folder / "checkpoints" / f"step-{step:08d}.ckpt"


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoint files of a run, oldest first."""
    return sorted((folder / "checkpoints").glob("step-*.ckpt"))


def newest_checkpoint(folder: Path, expected: dict | None = None) -> Path | None:
    """The newest checkpoint that can be used, or None; one that cannot is named in a warning and passed over.

    expected    hyperparameters of the run: config, side, mean, std, split, pool_size
    """
    for path in reversed(checkpoints(folder)):
        reason = _why_not(path, expected)
        if reason is None:
            return path
        warnings.warn(f"{path} cannot be used: {reason}. The one before it is tried", stacklevel=2)
    return None


def _why_not(path: Path, expected: dict | None) -> str | None:
    """Why a checkpoint cannot be used, None when it can: whole (checksums), plain values only, of this run."""
    try:
        with zipfile.ZipFile(path) as file:
            damaged = file.testzip()
        if damaged:
            return f"its part {damaged} is damaged"
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except zipfile.BadZipFile:
        return f"it is damaged, or no checkpoint ({path.stat().st_size} bytes)"
    except Exception as error:  # whatever torch meets in a foreign file
        return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"
    if not isinstance(found, dict) or not PARTS <= set(found):
        return "it is no checkpoint of this project"
    if expected is None:
        return None
    theirs, mine = dict(found["hyper_parameters"]), dict(expected)
    if differences(from_dict(theirs.pop("config")), from_dict(mine.pop("config"))) or theirs != mine:
        return "it belongs to another run"
    return None


class RunCheckpointIO(TorchCheckpointIO):
    """Checkpoints that are whole or absent, and are read as plain tensors and values only.

    A checkpoint that cannot be written is a warning: training goes on, and the one before it stays as it was.
    """

    def save_checkpoint(self, checkpoint: dict, path, storage_options=None) -> None:
        try:
            with atomic_path(path) as temporary:
                torch.save(checkpoint, temporary)
        except (OSError, RuntimeError) as error:  # torch's writer turns a full disk into a RuntimeError
            free = shutil.disk_usage(Path(path).parent).free / 2**20
            warnings.warn(
                f"could not write {path} ({free:.0f} MiB are free): {str(error).splitlines()[0]}. The checkpoint "
                "before it is kept and training goes on; make room on the disk",
                stacklevel=1,
            )

    def load_checkpoint(self, path, map_location=None, weights_only=None) -> dict:
        return torch.load(path, map_location=map_location or "cpu", weights_only=True)


class RunKeeper(Callback):
    """Writes the run folder: history, validation, best weights, checkpoints; stops on numbers that are not finite.

    What cannot be written (a full disk) is kept in memory and tried again at the next turn.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.rows: list[dict[str, float]] = []
        self.times: list[dict[str, float]] = []
        self.best_loss = math.inf
        self.before = 0.0  # seconds of training before this process
        self.clock = time.monotonic()
        self.waiting: dict[Path, str | bytes] = {}

    def state_dict(self) -> dict:
        return {
            "rows": self.rows,
            "times": self.times,
            "best_loss": self.best_loss,
            "seconds": self.seconds(),
        }

    def load_state_dict(self, state: dict) -> None:
        self.rows, self.times = list(state["rows"]), list(state["times"])
        self.best_loss, self.before = state["best_loss"], state["seconds"]

    def seconds(self) -> float:
        """Time spent on the training of this run [s], in all processes that went on with it."""
        return self.before + time.monotonic() - self.clock

    def on_train_start(self, trainer, module) -> None:
        self.clock = time.monotonic()

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
        step = trainer.global_step
        due = module.due(step)
        if not any(due.values()):
            return
        self._refuse_bad_numbers(module, step, due["save"])
        if due["log"] or due["val"]:
            row = {"step": step} | module.log_row(step)
            if due["val"]:
                row |= module.validate()
                self._keep_best(trainer, module, row["val_loss"])
            self._record(trainer, row)
        if due["save"] and not trainer.strategy.broadcast(self.folder / "best.safetensors" in self.waiting):
            trainer.save_checkpoint(checkpoint_path(self.folder, step))  # never newer than the best weights
            if trainer.is_global_zero:
                self._remove_old_checkpoints(step)

    def _refuse_bad_numbers(self, module, step: int, saving: bool) -> None:
        """Raise FloatingPointError for a loss, or weights that are to be saved, that are not finite."""
        bad = int(module.first_bad_step)
        what = f"the loss of step {bad + 1}"
        if bad < 0:
            if not saving or all(bool(p.isfinite().all()) for p in module.model.parameters()):
                return
            what = f"a weight after step {step}"
        train = module.config.training
        kept = newest_checkpoint(self.folder)
        raise FloatingPointError(
            f"{what} is not finite; {f'{kept} is the last good checkpoint' if kept else 'no checkpoint was due yet'}. "
            f"Train again under another --name with a smaller training.lr (now {train.lr:g}) or with training.clip "
            f"(now {train.clip:g})"
        )

    def _keep_best(self, trainer, module, loss: float) -> None:
        if loss < self.best_loss:
            self.best_loss = loss
            if trainer.is_global_zero:
                self.write(self.folder / "best.safetensors", weights_as_bytes(module.evaluated, module.likelihood))

    def _record(self, trainer, row: dict) -> None:
        self.rows.append(row)
        self.times.append({"step": row["step"], "seconds": round(self.seconds(), 3)})
        if trainer.is_global_zero:
            self.write(self.folder / "history.csv", pd.DataFrame(self.rows).to_csv(index=False))
            self.write(self.folder / "timing.csv", pd.DataFrame(self.times).to_csv(index=False))

    def write(self, path: Path, content: str | bytes) -> None:
        """Write a file and those that had to wait; what fails again is warned of and waits."""
        self.waiting[path] = content
        for path, content in list(self.waiting.items()):
            try:
                write_atomically(path, content)
                del self.waiting[path]
            except OSError as error:
                warnings.warn(
                    f"could not write {path}: {error.strerror}. What it held before stays, training goes on and it "
                    "is tried again; make room on the disk",
                    stacklevel=1,
                )

    def _remove_old_checkpoints(self, step: int) -> None:
        """Keep the last two; later ones are left over from a run that went further and could not be used."""
        written = [path for path in checkpoints(self.folder) if path <= checkpoint_path(self.folder, step)]
        for old in written[:-KEEP]:
            old.unlink()


@contextmanager
def lock_run(folder: Path) -> Iterator[None]:
    """Hold a run folder against a second training; clear away what a killed one left half written.

    The lock goes with the process, however that ends. Raises ValueError when another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as file:
        if fcntl:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ValueError(f"another process is training {folder}; wait for it, or use another --name") from None
            except OSError as error:  # some file systems of clusters have no locks
                log.info("%s cannot be locked: %s", folder, error)
        for pattern in (".*.tmp", "checkpoints/.*.tmp"):
            for left in folder.glob(pattern):
                left.unlink()
        yield
