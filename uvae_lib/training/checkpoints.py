"""Checkpoints, and the callback that keeps a run folder whole whatever ends the process.

A checkpoint holds weights, running averages, optimiser, schedule, loop counters, the history so far and the best
validation loss. Slices and noise of a step are functions of (seed, step), so no random state is needed.
Every file is written under a temporary name and renamed: it is whole or absent.
"""

import math
import shutil
import time
import warnings
import zipfile
from pathlib import Path

import pandas as pd
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from ..files import atomic_path, write_atomically
from ..presets import from_dict
from ..runs.run import differences, weights_as_bytes

KEEP = 2  # checkpoints


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoint files of a run, oldest first."""
    return sorted((folder / "checkpoints").glob("step-*.ckpt"))


def newest_checkpoint(folder: Path, expected: dict | None = None) -> Path | None:
    """The newest checkpoint that can be used, or None; one that cannot is named in a warning and passed over.

    expected    hyperparameters of the run, `training.module_settings`
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
            if damaged := file.testzip():
                return f"its part {damaged} is damaged"
        theirs = dict(torch.load(path, map_location="cpu", weights_only=True, mmap=True)["hyper_parameters"])
    except zipfile.BadZipFile:
        return f"it is damaged, or no checkpoint ({path.stat().st_size} bytes)"
    except KeyError:
        return "it is no checkpoint of this project"
    except Exception as error:  # whatever torch meets in a foreign file
        return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"
    mine = dict(expected or theirs)
    if differences(from_dict(theirs.pop("config")), from_dict(mine.pop("config"))) or theirs != mine:
        return "it belongs to another run"
    return None


class RunCheckpointIO(TorchCheckpointIO):
    """Checkpoints that are whole or absent.

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


class RunKeeper(Callback):
    """Writes the run folder: history, validation, best weights, checkpoints; stops on numbers that are not finite.

    Lightning's own (ModelCheckpoint, CSVLogger) append to a history that a killed run goes on with, and write in place.
    stop_asked   set it, and training ends after the step, which is saved; then `stopped` is true
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.rows: list[dict[str, float]] = []
        self.best_loss = math.inf
        self.before = 0.0  # seconds of training before this process
        self.clock = time.monotonic()
        self.stop_asked = self.stopped = False

    def state_dict(self) -> dict:
        return {"rows": self.rows, "best_loss": self.best_loss, "seconds": self.seconds()}

    def load_state_dict(self, state: dict) -> None:
        self.rows, self.best_loss, self.before = list(state["rows"]), state["best_loss"], state["seconds"]

    def seconds(self) -> float:
        """Time spent on the training of this run [s], in all processes that went on with it."""
        return self.before + time.monotonic() - self.clock

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
        step = trainer.global_step
        due = module.due(step)
        self.stopped = step < module.config.training.steps and self._must_stop(trainer, due["log"])
        if not any(due.values()) and not self.stopped:
            return
        saving = due["save"] or self.stopped
        self._refuse_bad_numbers(module, step, saving)
        if due["log"] or due["val"]:
            row = {"step": step} | module.log_row(step)
            if due["val"]:
                row |= module.validate() if module.hparams.split["val"] else {}
                if row.get("val_loss", -math.inf) < self.best_loss:  # without validation the newest are the best
                    self.best_loss = row.get("val_loss", self.best_loss)
                    self.write_weights("best", module)
            self.rows.append(row)
            self.write("history.csv", pd.DataFrame(self.rows).to_csv(index=False))
        if saving:  # never newer than the best weights
            trainer.save_checkpoint(newest := self.folder / "checkpoints" / f"step-{step:08d}.ckpt")
            if trainer.is_global_zero:  # later ones are left over from a run that went further and could not be used
                for old in [path for path in checkpoints(self.folder) if path <= newest][:-KEEP]:
                    old.unlink()
        trainer.should_stop = self.stopped

    def _must_stop(self, trainer, logged: bool) -> bool:
        """Whether training ends here: Ctrl-C, SIGTERM; several processes agree on it on logged steps."""
        if trainer.world_size == 1:
            return self.stop_asked or trainer.received_sigterm
        return logged and trainer.strategy.reduce_boolean_decision(self.stop_asked, all=False)

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
            f"Train again under another --name with a smaller training.lr (now {train.lr:g})"
        )

    def write_weights(self, name: str, module) -> None:
        """Write the weights of a module that are used."""
        self.write(f"{name}.safetensors", weights_as_bytes(module.evaluated))

    @rank_zero_only
    def write(self, name: str, content: str | bytes) -> None:
        """Write a file of the run, in the first process. Raises OSError with what to do when it cannot be written."""
        path = self.folder / name
        try:
            write_atomically(path, content)
        except OSError as error:
            raise OSError(
                f"could not write {path}: {error.strerror}. What it held before stays; make room on the disk, then go "
                "on with --resume"
            ) from error
