"""Training with Lightning: a module, `fit`, and checkpoints from which a killed run goes on bit for bit.

Slices, contexts and noise of a step are functions of (seed, step), so a checkpoint needs no random state.
"""

import logging
import math
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import torch
from lightning.pytorch.callbacks import Callback, TQDMProgressBar
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, IterableDataset

from .cropping import CubePool, SliceSets, standardisation
from .cubes import CubeSuite, open_cubes, split_cubes
from .files import atomic_path, write_atomically
from .loss import active_units, loss_terms, make_likelihood, total_loss
from .model import draw_context, draw_noise, leave_one_out
from .presets import Config, from_dict, to_dict
from .runs import (
    Run,
    build_model,
    check_same_cubes,
    covers_box,
    load_run,
    provenance,
    read_info,
    save_weights,
)

log = logging.getLogger(__name__)
KEEP = 2  # checkpoints
VALIDATION_STEPS = 8  # batches of held-out sets, always the same


class LitUniverseVAE(pl.LightningModule):
    """The Universe VAE, its loss and its optimiser. All arguments are plain values.

    config   `presets.to_dict` of a Config;  side, box_size of the cubes, mean, std of x, split: cube indices
    """

    def __init__(
        self, config: dict, side: int, mean: float, std: float, split: dict[str, list[int]], pool_size: int
    ):
        super().__init__()
        self.save_hyperparameters()
        self.config = from_dict(config)
        train = self.config.training
        self.model = build_model(self.config).to(memory_format=torch.channels_last)
        self.likelihood = make_likelihood(
            self.config.loss.likelihood, self.config.data.image_size, covers_box(self.config, side)
        )
        self.average = (
            AveragedModel(self.model, multi_avg_fn=get_ema_multi_avg_fn(train.ema)) if train.ema else None
        )
        self.register_buffer("first_bad_step", torch.tensor(-1), persistent=False)
        self.register_buffer("best_loss", torch.tensor(math.inf))
        self._logged: dict[str, Tensor] = {}

    @property
    def evaluated(self):
        """The network whose weights are used: the running average of them, where there is one."""
        return self.average.module if self.average else self.model

    def attach(self, suite: CubeSuite) -> "LitUniverseVAE":
        """Say where the cubes are; they are read when training starts, on the device of the training."""
        self._suite = suite
        return self

    def setup(self, stage: str) -> None:
        data, train = self.config.data, self.config.training
        shared = dict(image_size=data.image_size, set_size=train.set_size, thickness=data.thickness)
        dtype = getattr(torch, data.storage)
        device = self.trainer.strategy.root_device
        pool = CubePool(
            self._suite, self.hparams.split["train"], eps=data.eps, device=device, dtype=dtype,
            size=self.hparams.pool_size, refresh=data.refresh, seed=train.seed,
        )  # fmt: skip
        held_out = CubePool(
            self._suite, self.hparams.split["val"], eps=data.eps, device=device, dtype=dtype,
            size=min(len(self.hparams.split["val"]), self.hparams.pool_size), refresh=1, seed=train.seed,
        )  # fmt: skip
        ranks = dict(rank=self.trainer.global_rank, world_size=self.trainer.world_size)
        constants = (self.hparams.mean, self.hparams.std)
        self.slices = SliceSets(
            pool, *constants, **shared, sets_per_step=train.sets_per_step, augment=data.augment,
            seed=train.seed, **ranks,
        )  # fmt: skip
        self.validation = SliceSets(
            held_out,
            *constants,
            **shared,
            sets_per_step=train.sets_per_step,
            augment=False,
            seed=train.seed + 1,
        )

    def train_dataloader(self) -> DataLoader:
        return DataLoader(_Steps(self), batch_size=None)

    def training_step(self, step: int) -> Tensor:
        terms = self._terms(self.model, self.slices, step, self.config.loss.free_bits)
        kl_z, kl_h = self._weights(step)
        loss = total_loss(terms, self.likelihood, kl_z, kl_h)
        bad = ~torch.isfinite(loss.detach()) & (self.first_bad_step < 0)
        self.first_bad_step.masked_fill_(bad, step)
        if (step + 1) % self.config.training.log_every == 0:
            self._logged = {"loss": loss.detach()} | {
                name: value.detach()
                for name, value in terms.items()
                if value.ndim == 0 and name != "kl_h_free"
            }
        return loss

    def _terms(self, model, slices: SliceSets, step: int, free_bits: float = 0.0) -> dict[str, Tensor]:
        """Terms of the loss for the sets of a step; contexts and noise belong to the step and the global batch."""
        train, mine = self.config.training, slice(slices.rank, None, slices.world_size)
        sets = slices.sets(step)
        generator = torch.Generator().manual_seed(_seed(slices.seed, step))
        n_sets, n, latent_dim = slices.sets_per_step, train.set_size, self.config.model.latent_dim

        def part(noise: Tensor) -> Tensor:
            """This process's share of the noise of all targets of the step."""
            return noise.unflatten(0, (n_sets, -1))[mine].flatten(0, 1).to(self.device, non_blocking=True)

        sets = sets.to(memory_format=torch.channels_last) if sets.ndim == 4 else sets
        if train.targets == "last":
            noise = tuple(map(part, draw_noise(n_sets, latent_dim, generator)))
            output, target = model(sets[:, :-1], sets[:, -1], noise), sets[:, -1]
        else:
            context = (
                draw_context(n_sets, n, train.least_context, generator)
                if train.least_context
                else leave_one_out(n_sets, n)
            )[mine].to(self.device)
            noise = tuple(map(part, draw_noise(n_sets * n, latent_dim, generator)))
            output, target = model.forward_sets(sets, context, noise), sets.flatten(0, 1)
        terms = loss_terms(output, target, self.likelihood, free_bits)
        return terms | {
            "target_power": target.square().sum() / len(target),
            "means": output[1][1],
            "maps": output[3][1],
        }

    def _weights(self, step: int) -> tuple[float, float]:
        """kl_z and kl_h at a step."""
        settings = self.config.loss
        rise = min(1.0, (step + 1) / settings.kl_warmup) if settings.kl_warmup else 1.0
        return rise * settings.kl_z, rise * settings.kl_h

    def configure_optimizers(self) -> dict:
        train = self.config.training
        optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=train.lr, weight_decay=train.weight_decay, fused=True
        )

        def factor(step: int) -> float:
            if step < train.lr_warmup:
                return (step + 1) / train.lr_warmup
            done = (step - train.lr_warmup) / max(1, train.steps - train.lr_warmup)
            return train.lr_end + (1 - train.lr_end) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def configure_gradient_clipping(self, optimizer, **_) -> None:
        """Clipped here, since Lightning's own clipping refuses fused optimisers."""
        if self.config.training.clip:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.training.clip)

    def on_train_batch_end(self, *_) -> None:
        if self.average:
            self.average.update_parameters(self.model)

    def log_row(self, step: int) -> dict[str, float]:
        """The last logged step as numbers: the terms, the weights, the learning rate. Synchronises with the device."""
        kl_z, kl_h = self._weights(step - 1)
        row = {name: float(value) for name, value in self._logged.items()}
        row["fvu"] = row["l2"] / row.pop("target_power")
        return row | {"weight_z": kl_z, "weight_h": kl_h, "lr": self.optimizers().param_groups[0]["lr"]}

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Terms on held-out cubes with the evaluated weights: `fvu` is the unexplained share of the variance."""
        model = self.evaluated
        training = model.training, self.likelihood.training
        model.eval(), self.likelihood.eval()
        with self.trainer.precision_plugin.forward_context():
            found = [self._terms(model, self.validation, step) for step in range(VALIDATION_STEPS)]
        model.train(training[0]), self.likelihood.train(training[1])
        mean = {
            k: float(torch.stack([f[k] for f in found]).mean()) for k, v in found[0].items() if v.ndim == 0
        }
        loss = float(total_loss(mean | {"kl_h_dim": found[0]["kl_h_dim"]}, self.likelihood,
                                self.config.loss.kl_z, self.config.loss.kl_h))  # fmt: skip
        return {
            "val_loss": loss,
            "val_fvu": mean["l2"] / mean["target_power"],
            "val_l2": mean["l2"],
            "val_kl_z": mean["kl_z"],
            "val_kl_h": mean["kl_h"],
            "active_z": float(active_units(torch.cat([f["means"] for f in found]))),
            "active_h": float(active_units(torch.cat([f["maps"] for f in found]))),
        }


class _Steps(IterableDataset):
    """The numbers of the steps that are left. A step cuts its own slices, on the device."""

    def __init__(self, module: LitUniverseVAE):
        self.module = module

    def __iter__(self) -> Iterator[int]:
        yield from range(self.module.trainer.global_step, self.module.config.training.steps)


def _seed(seed: int, step: int) -> int:
    """One seed for the noise of a step."""
    return int(np.random.SeedSequence([seed, step, 1]).generate_state(1, np.uint64)[0] >> 1)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Checkpoints that are whole or absent, and are read as plain tensors and values only."""

    def save_checkpoint(self, checkpoint: dict, path, storage_options=None) -> None:
        with atomic_path(path) as temporary:
            torch.save(checkpoint, temporary)

    def load_checkpoint(self, path, map_location=None, weights_only=None) -> dict:
        return torch.load(path, map_location=map_location or "cpu", weights_only=True)


class RunKeeper(Callback):
    """Writes the run folder: history, validation, best weights, checkpoints; stops on a loss that is not finite."""

    def __init__(self, folder: Path, start: int):
        self.folder = folder
        self.history = (
            pd.read_csv(folder / "history.csv") if (folder / "history.csv").exists() else pd.DataFrame()
        )
        self.timing = (
            pd.read_csv(folder / "timing.csv") if (folder / "timing.csv").exists() else pd.DataFrame()
        )
        for name in ("history", "timing"):
            table = getattr(self, name)
            setattr(self, name, table[table["step"] <= start] if len(table) else table)
        self.before = float(self.timing["seconds"].iloc[-1]) if len(self.timing) else 0.0

    def on_train_start(self, trainer, module) -> None:
        self.clock = time.monotonic()

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
        train, step = module.config.training, trainer.global_step
        last = step == train.steps
        due = {name: last or step % getattr(train, f"{name}_every") == 0 for name in ("log", "val", "save")}
        if not any(due.values()):
            return
        bad = int(module.first_bad_step)
        if bad >= 0:
            kept = newest_checkpoint(self.folder)
            raise FloatingPointError(
                f"the loss of step {bad} is not finite; the last good checkpoint is {kept}. Lower training.lr "
                f"(now {train.lr:g}) or set training.clip, and start again from it with --resume"
            )
        row = (
            {"step": step} | (module.log_row(step) if module._logged else {})
            if due["log"] or due["val"]
            else {}
        )
        if due["val"]:
            row |= module.validate()
            if row["val_loss"] < float(module.best_loss):
                module.best_loss.fill_(row["val_loss"])
                if trainer.is_global_zero:
                    save_weights(self.folder / "best.safetensors", module.evaluated, module.likelihood)
        if row:
            self._record(trainer, row)
        if due["save"]:
            self._save(trainer, step)

    def _record(self, trainer, row: dict) -> None:
        seconds = self.before + time.monotonic() - self.clock
        self.history = pd.concat([self.history, pd.DataFrame([row])], ignore_index=True)
        self.timing = pd.concat([self.timing, pd.DataFrame([{"step": row["step"], "seconds": seconds}])])
        if trainer.is_global_zero:
            write_atomically(self.folder / "history.csv", self.history.to_csv(index=False))
            write_atomically(self.folder / "timing.csv", self.timing.to_csv(index=False))

    def _save(self, trainer, step: int) -> None:
        path = checkpoint_path(self.folder, step)
        try:
            trainer.save_checkpoint(path)
        except (OSError, RuntimeError) as error:
            warnings.warn(
                f"could not write {path}: {error}. The checkpoint before it is kept and training goes on; "
                "make room on the disk",
                stacklevel=2,
            )
            return
        if trainer.is_global_zero:
            for old in checkpoints(self.folder)[:-KEEP]:
                old.unlink()


class _Bar(TQDMProgressBar):
    """Lightning's bar with the numbers of the last logged step."""

    def get_metrics(self, trainer, module) -> dict:
        shown = {
            name: float(module._logged[name]) for name in ("l2", "kl_z", "kl_h") if name in module._logged
        }
        return {name: f"{value:.4g}" for name, value in shown.items()}


def fit(
    config: Config, folder: str | Path | None = None, *, resume: bool = False, progress: bool = True,
    callbacks: list[Callback] | None = None,
) -> Run:  # fmt: skip
    """Train a Universe VAE and return the run; a finished run is returned as it is.

    folder      runs/<config.name> when absent
    resume      go on from the newest whole checkpoint of an unfinished run
    progress    show a progress bar;  callbacks: further Lightning callbacks
    Raises ValueError when the folder holds a run of another configuration or, without resume, an unfinished one;
    FloatingPointError when the loss is not finite: the last good checkpoint is kept.
    """
    folder = Path(folder or Path("runs") / config.name)
    suite = open_cubes(config.data.path, set_name=config.data.set_name)
    start = None
    if (folder / "run.json").exists():
        info, found = read_info(folder)
        _check_same_config(found, config, folder)
        check_same_cubes(suite, info, folder)
        if info.get("finished"):
            return load_run(folder)
        start = newest_checkpoint(folder)
        if start and not resume:
            raise ValueError(
                f"{folder} holds an unfinished run ({start.name}); go on with --resume (resume=True), or use another name"
            )
    else:
        info = _new_run(config, suite, folder)
    pl.seed_everything(config.training.seed, verbose=False)
    names = ("side", "mean", "std", "split", "pool_size")
    module = LitUniverseVAE(to_dict(config), **{name: info[name] for name in names}).attach(suite)
    if config.training.compile:
        module.model.compile()
    step = int(start.stem.removeprefix("step-")) if start else 0
    keeper = RunKeeper(folder, step)
    trainer = _trainer(config, progress, [keeper, *(callbacks or [])])
    trainer.fit(module, ckpt_path=start, weights_only=True)
    if trainer.global_step < config.training.steps:
        raise KeyboardInterrupt(f"stopped at step {trainer.global_step}; go on with --resume")
    if trainer.is_global_zero:
        save_weights(folder / "last.safetensors", module.evaluated, module.likelihood)
        info |= {"finished": True, "seconds": keeper.before + time.monotonic() - keeper.clock}
        write_atomically(folder / "run.json", _json(info))
    trainer.strategy.barrier()
    return load_run(folder)


def _new_run(config: Config, suite: CubeSuite, folder: Path) -> dict:
    """Decide what a run keeps for good: split, standardisation, number of cubes held; and write run.json."""
    data = config.data
    if config.model.circular and data.image_size != suite.side:
        raise ValueError(
            f"model.circular needs slices that are the whole box; found image_size={data.image_size} and cubes of "
            f"{suite.side}^3; set model.circular=False"
        )
    split = split_cubes(suite.n_cubes, data.val_fraction, data.test_fraction, data.split_seed)
    mean, std = standardisation(suite, split["train"], data.eps)
    memory = int(data.pool_memory * 2**30) if data.pool_memory else None
    dtype = getattr(torch, data.storage)
    pool = CubePool(suite, split["train"], eps=data.eps, dtype=dtype, memory=memory, size=data.pool_size)
    log.info("%d of %d training cubes are held on the device", pool.size, len(split["train"]))
    info = {
        "config": to_dict(config),
        "side": suite.side,
        "box_size": float(suite.box_size),
        "mean": mean,
        "std": std,
        "split": split,
        "cubes": [suite.cube_id(i) for i in range(suite.n_cubes)],
        "pool_size": pool.size,
        "finished": False,
        **provenance(),
    }
    write_atomically(folder / "run.json", _json(info))
    return info


def _json(info: dict) -> str:
    import json

    return json.dumps(info, indent=1)


def _check_same_config(found: Config, asked: Config, folder: Path) -> None:
    def flat(values: dict, head: str = "") -> dict:
        return {
            k2: v2
            for k, v in values.items()
            for k2, v2 in (flat(v, f"{head}{k}.") if isinstance(v, dict) else {f"{head}{k}": v}).items()
        }

    free = ("simulation.", "data.path", "data.pool_", "training.devices", "training.num_nodes")
    old, new = flat(to_dict(found)), flat(to_dict(asked))
    differ = [f"{k}={new[k]!r} (was {old[k]!r})" for k in new if old[k] != new[k] and not k.startswith(free)]
    if differ:
        raise ValueError(
            f"{folder} holds a run of another configuration: {', '.join(differ)}; use another --name, or remove it"
        )


def checkpoint_path(folder: Path, step: int) -> Path:
    return folder / "checkpoints" / f"step-{step:08d}.ckpt"


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoint files of a run, oldest first."""
    return sorted((folder / "checkpoints").glob("step-*.ckpt"))


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that can be read, or None; one that is damaged or foreign is named and passed over."""
    for path in reversed(checkpoints(folder)):
        try:
            found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            if isinstance(found, dict) and {"state_dict", "optimizer_states", "global_step", "loops"} <= set(
                found
            ):
                return path
            reason = "it is not a checkpoint of this project"
        except Exception as error:  # whatever torch meets in a foreign file
            reason = f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"
        warnings.warn(f"{path} cannot be used ({reason}); the one before it is tried", stacklevel=2)
    return None


def _trainer(config: Config, progress: bool, callbacks: list[Callback]) -> pl.Trainer:
    train = config.training
    for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.WARNING)
    bars = [_Bar(refresh_rate=train.log_every)] if progress else []
    return pl.Trainer(
        accelerator="auto", devices=train.devices, num_nodes=train.num_nodes, max_steps=train.steps,
        precision=choose_precision(train.precision), plugins=[AtomicCheckpointIO()],
        callbacks=[*callbacks, *bars], enable_progress_bar=progress, enable_checkpointing=False,
        enable_model_summary=False, logger=False, use_distributed_sampler=False, num_sanity_val_steps=0,
    )  # fmt: skip


def choose_precision(precision: str) -> str:
    """Lightning's name for a precision; "auto" is bfloat16 autocast where the hardware multiplies it."""
    if precision == "auto":
        on_gpu = torch.cuda.is_available()
        fast = torch.cuda.is_bf16_supported(including_emulation=False) if on_gpu else _cpu_has_bfloat16()
        precision = "bfloat16" if fast else "float32"
    return {"bfloat16": "bf16-mixed", "float32": "32-true"}[precision]


def _cpu_has_bfloat16() -> bool:
    """Whether this CPU has instructions for bfloat16 products (AVX512-BF16, AMX, Arm BF16)."""
    try:
        flags = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return False
    return bool(flags & {"avx512_bf16", "amx_bf16", "bf16"})
