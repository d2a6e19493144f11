"""Training with Lightning: a module, and `fit`, which makes a run or goes on with one that was killed.

Slices and noise of a step are functions of (seed, step). With several processes each cuts its part of the
same global batch and every process computes the loss of all of it, so that the loss is that of one process.
"""

import math
import warnings
from collections.abc import Iterator
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import torch
from lightning.pytorch.callbacks import Callback
from torch import Generator, Tensor
from torch.utils.data import DataLoader, IterableDataset

from ..cubes.suite import CubeSuite, fit_image_size, open_data, split_cubes
from ..files import write_atomically
from ..loss import active_units, kl_parts, note_loss
from ..model import leave_one_out
from ..presets import Config, from_dict, locate, to_dict
from ..runs.run import (
    Run,
    as_json,
    check_same_cubes,
    differences,
    load_run,
    lock_run,
    move_data,
    provenance,
    read_info,
    weights_as_bytes,
)
from ..variants import build, covers_box
from ..variants.fourier import discriminants
from ..variants.residual_spectrum import ResidualSpectrumLoss
from .checkpoints import RunKeeper, checkpoints, newest_checkpoint
from .slices import CubePool, SliceSets, pixel_power, pool_size, some_slices, standardisation
from .trainer import chosen_device, device_used, process_rank, share_sets, train_module, wait_for

VALIDATION_STEPS = 8  # batches of held-out sets, always the same
SETTINGS = ("side", "mean", "std", "split", "pool_size", "power", "told")  # of run.json, for a module


def module_settings(info: dict, config: Config) -> dict:
    """The arguments of `LitUniverseVAE`, which checkpoints carry: a configuration, and what run.json keeps for good."""
    return {"config": to_dict(config)} | {name: info.get(name) for name in SETTINGS}


class LitUniverseVAE(pl.LightningModule):
    """The Universe VAE, its loss and its optimiser. All arguments are plain values.

    config      `presets.to_dict` of a Config
    side        of the cubes [voxels]
    mean, std   of x = log(y + eps)
    split       {"train", "val", "test"} -> cube indices
    pool_size   training cubes that are held at a time
    power       of the pixels (`pixel_power`), for a model with fourier_start
    told        what z is told (`discriminants`), for a model with discriminants
    Weights are drawn from the seed of config; torch's global random state is left as it was.
    """

    def __init__(
        self, config: dict, side: int, mean: float, std: float, split: dict[str, list[int]], pool_size: int,
        power: list[float] | None = None, told: list[list[float]] | None = None,
    ):  # fmt: skip
        super().__init__()
        self.save_hyperparameters("config", *SETTINGS)
        self.config = from_dict(config)
        train = self.config.training
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(train.seed)
            self.model = self.make_model().to(memory_format=torch.channels_last)
        image_size, periodic = self.config.data.image_size, covers_box(self.config, side)
        self.residual_spectrum = None
        if self.config.loss.residual_spectrum:
            self.residual_spectrum = ResidualSpectrumLoss(self.config.model.latent_dim, image_size, periodic)
        self.average = deepcopy(self.model).requires_grad_(False) if train.ema else None
        self.register_buffer("first_bad_step", torch.tensor(-1), persistent=False)
        self.logged: dict[str, Tensor] = {}

    def make_model(self) -> torch.nn.Module:
        """The network that is trained, its weights drawn from torch's global state."""
        power, told = (values and torch.tensor(values) for values in (self.hparams.power, self.hparams.told))
        model = build(self.config, self.hparams.side, power, told)
        if self.config.training.compile:  # in place, so that the names in checkpoints stay
            model.encoder.trunk.compile()
            model.decoder_h.compile()
        return model

    @property
    def evaluated(self):
        """The network whose weights are used: the running average of them, where there is one."""
        return self.average or self.model

    def attach(self, suite: CubeSuite) -> "LitUniverseVAE":
        """Say where the cubes are; they are read when training starts, on the device of the training."""
        self._suite = suite
        return self

    def setup(self, stage: str) -> None:
        train, split = self.config.training, self.hparams.split
        self.slices = self._slices(
            split["train"], refresh=self.config.data.refresh, augment=self.config.data.augment, seed=train.seed,
            rank=self.trainer.global_rank, world_size=self.trainer.world_size,
        )  # fmt: skip
        if split["val"]:
            self.validation = self._slices(split["val"], refresh=1, augment=False, seed=train.seed + 1)

    def _slices(self, cubes: list[int], *, refresh: int, augment: bool, seed: int, **ranks) -> SliceSets:
        """Sets of slices of some cubes, which are held on the device of the training."""
        data, train = self.config.data, self.config.training
        pool = CubePool(
            self._suite, cubes, eps=data.eps, device=self.trainer.strategy.root_device,
            dtype=getattr(torch, data.storage), size=min(len(cubes), self.hparams.pool_size), refresh=refresh,
            seed=train.seed,
        )  # fmt: skip
        return SliceSets(
            pool, self.hparams.mean, self.hparams.std, image_size=data.image_size, set_size=train.set_size,
            sets_per_step=train.sets_per_step, thickness=data.thickness, augment=augment, seed=seed, **ranks,
        )  # fmt: skip

    def train_dataloader(self) -> DataLoader:
        return DataLoader(_Steps(self), batch_size=None, generator=torch.Generator())  # not torch's global state

    def due(self, step: int) -> dict[str, bool]:
        """What is to be done after so many steps: "log", "val", "save"; everything after the last one."""
        train = self.config.training
        every = {"log": train.log_every, "val": train.val_every, "save": train.save_every}
        return {name: step == train.steps or step % n == 0 for name, n in every.items()}

    def training_step(self, step: int) -> Tensor:
        """The loss of a step. Nothing here waits for the device; numbers are read on logged steps only."""
        loss, terms = self.step_terms(step)
        bad = ~torch.isfinite(loss.detach()) & (self.first_bad_step < 0)
        self.first_bad_step.masked_fill_(bad, step)
        if any(self.due(step + 1).values()):
            self.logged = {name: value.detach() for name, value in terms.items()}
        return loss

    def step_terms(self, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a step, and the scalars that are logged."""
        terms, _ = self._terms(self.model, self.slices, step, *self._weights(step))
        if self.residual_spectrum:
            terms["loss"] = terms["loss"] + self.config.loss.residual_spectrum * terms["residual_spectrum"]
        return terms["loss"], terms

    def _terms(
        self, model, slices: SliceSets, step: int, kl_z: float, kl_h: float
    ) -> tuple[dict[str, Tensor], tuple[Tensor, Tensor, Tensor]]:
        """Of a step's sets: the note's loss and its parts, KLs in nats a slice; and z_mu, z_logvar, h_post_mu."""
        output, img_h = self._forward(model, slices, step)
        recon_h, (z, z_mu, z_logvar), _, (_, h_post_mu, _) = output
        note = note_loss(output, img_h, kl_z, kl_h)
        kls = {name: z_mu.shape[1] * note[name] for name in ("kl_z", "kl_h")}
        terms = {"loss": note["loss"], "pixels": note["l2"], "l2": note["l2"], **kls}
        if self.residual_spectrum:
            terms["residual_spectrum"] = self.residual_spectrum(recon_h, img_h, z)
        terms["target_power"] = img_h.square().sum() / len(img_h)
        return terms, (z_mu, z_logvar, h_post_mu)

    def _forward(self, model, slices: SliceSets, step: int) -> tuple[tuple, Tensor]:
        """What the model returns for the sets of a step, and its targets, of all processes.

        The noise belongs to the step and the global batch.
        """
        train, mine = self.config.training, slice(slices.rank, None, slices.world_size)
        sets = slices.sets(step)
        generator = torch.Generator().manual_seed(noise_seed(slices.seed, step))
        n_sets, n, latent_dim = slices.sets_per_step, train.set_size, self.config.model.latent_dim

        def noise(n_targets: int) -> list[Tensor]:
            """This process's share of the noise of all targets."""
            drawn = (x.unflatten(0, (n_sets, -1))[mine] for x in draw_noise(n_targets, latent_dim, generator))
            return [x.to(self.device, non_blocking=True).flatten(0, 1) for x in drawn]

        if train.targets == "last":
            target = sets[:, -1]
            output = model(sets[:, :-1], target, noise(n_sets))
        else:
            target = sets.flatten(0, 1)
            output = model.forward_sets(sets, leave_one_out(len(sets), n, self.device), noise(n_sets * n))
        return (output, target) if slices.world_size == 1 else self._of_all_processes(output, target)

    def _of_all_processes(self, output: tuple, target: Tensor) -> tuple[tuple, Tensor]:
        """What `UniverseVAE.forward` returned, and the targets, of the whole batch: one message a step.

        The spectrum of the residuals is that of a batch, so the mean of the processes' losses would not be the loss of
        the batch. The order of the targets is that of the processes.
        """
        recon, *latents = output
        tensors = [recon, target, *(value for latent in latents for value in latent)]
        rows = torch.cat([tensor.flatten(1) for tensor in tensors], dim=1)
        rows = self.all_gather(rows, sync_grads=True).flatten(0, 1)
        parts = rows.split([tensor[0].numel() for tensor in tensors], dim=1)
        recon, target = (part.unflatten(1, target.shape[1:]) for part in parts[:2])
        return (recon, *(tuple(parts[i : i + 3]) for i in (2, 5, 8))), target.detach()

    def _weights(self, step: int) -> tuple[float, float]:
        """kl_z and kl_h at a step."""
        settings = self.config.loss
        rise = min(1.0, (step + 1) / settings.kl_warmup) if settings.kl_warmup else 1.0
        return rise * settings.kl_z, rise * settings.kl_h

    def _rate(self, step: int) -> float:
        """Learning rate of a step, as a factor of training.lr."""
        train = self.config.training
        if step < train.lr_warmup:
            return (step + 1) / train.lr_warmup
        done = min(1.0, (step - train.lr_warmup) / max(1, train.steps - train.lr_warmup))
        return train.lr_end + (1 - train.lr_end) * 0.5 * (1 + math.cos(math.pi * done))

    def _trained(self) -> list[torch.nn.Parameter]:
        return [p for module in (self.model, self.residual_spectrum) if module for p in module.parameters()]

    def configure_optimizers(self) -> dict:
        train = self.config.training
        optimizer = torch.optim.AdamW(self._trained(), lr=train.lr, weight_decay=train.weight_decay, fused=True)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self._rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def configure_gradient_clipping(self, optimizer, **_) -> None:
        """Clipped here, since Lightning's own clipping refuses fused optimisers."""
        if self.config.training.clip:
            torch.nn.utils.clip_grad_norm_(self._trained(), self.config.training.clip)

    def optimizer_step(self, *args, **kwargs) -> None:
        """One step of the optimiser, then of the average: callbacks see both."""
        super().optimizer_step(*args, **kwargs)
        if self.average:
            update_average(self.average, self.model, self.config.training.ema, self.trainer.global_step + 1)

    def log_row(self, step: int) -> dict[str, float]:
        """The last step as numbers: terms, weights, learning rate. Waits for the device."""
        kl_z, kl_h = self._weights(step - 1)
        row = {name: float(value) for name, value in self.logged.items()}
        row["fvu"] = row["l2"] / row.pop("target_power")
        lr = self.config.training.lr * self._rate(step - 1)
        return row | {"weight_z": kl_z, "weight_h": kl_h, "lr": lr}

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """`held_out` with the evaluated weights. Every process computes all of it, so that none waits for another."""
        modules = [module for module in (self.evaluated, self.residual_spectrum) if module]
        training = [module.training for module in modules]
        for module in modules:
            module.eval()
        with self.trainer.precision_plugin.forward_context():
            found = self.held_out()
        for module, mode in zip(modules, training, strict=True):
            module.train(mode)
        return found

    def held_out(self) -> dict[str, float]:
        """Terms on held-out cubes: `val_fvu` is the unexplained share of the variance."""
        weights = self.config.loss.kl_z, self.config.loss.kl_h
        found = [self._terms(self.evaluated, self.validation, step, *weights) for step in range(VALIDATION_STEPS)]
        terms, latents = zip(*found, strict=True)
        mean = {name: float(torch.stack([some[name] for some in terms]).mean()) for name in terms[0]}
        z_mu, z_logvar, h_post_mu = (torch.cat(parts) for parts in zip(*latents, strict=True))
        parts = zip(("width", "offset", "spread"), kl_parts(z_mu, z_logvar), strict=True)
        return {
            "val_loss": mean["loss"],
            "val_fvu": mean["l2"] / mean["target_power"],
            "val_l2": mean["l2"],
            "val_kl_z": mean["kl_z"],
            "val_kl_h": mean["kl_h"],
            **{f"val_kl_z_{name}": float(nats) for name, nats in parts},
            "active_z": float(active_units(z_mu)),
            "active_h": float(active_units(h_post_mu)),
        }


class _Steps(IterableDataset):
    """The numbers of the steps that are left. A step cuts its own slices, on the device."""

    def __init__(self, module: LitUniverseVAE):
        self.module = module

    def __iter__(self) -> Iterator[int]:
        yield from range(self.module.trainer.global_step, self.module.config.training.steps)


def draw_noise(
    n: int, latent_dim: int, generator: Generator, device: torch.device | str = "cpu"
) -> tuple[Tensor, Tensor, Tensor]:
    """Standard normal numbers for z, h and h_post of n targets: three tensors (n, latent_dim)."""
    shape = (n, latent_dim)
    return tuple(torch.randn(shape, generator=generator, device=generator.device).to(device) for _ in range(3))


def noise_seed(seed: int, step: int) -> int:
    """One seed for the noise of a step."""
    return int(np.random.SeedSequence([seed, step, 1]).generate_state(1, np.uint64)[0] >> 1)


@torch.no_grad()
def update_average(average: torch.nn.Module, model: torch.nn.Module, decay: float, step: int) -> None:
    """Move the running average of the weights towards those after `step` steps; buffers are copied.

    Every k = 0.05 / (1 - decay) steps (at least 1) the average moves by 1 - decay^k: the exponential average with the
    decay a step, of weights that are looked at twenty times in its memory 1 / (1 - decay), for a k-th of the cost.
    Until that memory is filled it is the plain mean, so the random start has no part in it; in Lightning's
    EMAWeightAveraging it has.
    """
    k = max(1, round(0.05 / (1 - decay)))
    if step % k:
        return
    weight = max(1 - decay**k, k / step)
    torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), weight)
    for kept, new in zip(average.buffers(), model.buffers(), strict=True):
        kept.copy_(new)


def fit(
    config: Config, folder: str | Path | None = None, *, resume: bool = False, progress: bool = True,
    callbacks: list[Callback] | None = None,
) -> Run:  # fmt: skip
    """Train a Universe VAE and return the run; a finished run is returned as it is.

    folder      runs/<config.name> when absent
    resume      go on from the newest whole checkpoint of an unfinished run; from the start when there is none
    progress    show a progress bar;  callbacks: further Lightning callbacks
    Raises ValueError when the folder holds a run of another configuration or, without resume, an unfinished one, or
    when another process trains it, or the cubes changed; FloatingPointError when the loss is not finite: the last good
    checkpoint is kept; ConnectionError when a process of a distributed job ended; OSError when a file of the run cannot
    be written; KeyboardInterrupt at Ctrl-C and SIGTERM, after the step is saved (at once when pressed again).

    With several processes (training.devices, num_nodes) fit returns in the first and ends the others. They share the
    sets of a step: sets_per_step is raised to a multiple of them.
    Without cubes for validation (one or two cubes) best.safetensors holds the last weights.

    Determinism: on one machine the same configuration, seed, pool_size and number of threads give the same history
    and weights, bit for bit on the CPU, however often the run is killed and resumed. Not repeatable: other thread
    counts, machines or versions of torch; a GPU, whose convolutions add up in no fixed order.
    """
    folder = Path(folder or locate("runs") / config.name)
    rank = process_rank()
    suite = open_data(config.data)
    config = replace(config, data=fit_image_size(config.data, suite))
    n_sets = config.training.sets_per_step
    if rank:
        wait_for(folder / "run.json")
    info, config = _known_run(config, suite, folder, writes=not rank)
    if not info or not info["finished"]:
        with nullcontext() if rank else lock_run(folder):
            info = info or _new_run(config, suite, folder)
            if not rank and n_sets != (now := config.training.sets_per_step):
                warnings.warn(f"{now} sets a step in place of {n_sets}, so that all processes have some", stacklevel=2)
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
    if rank:
        raise SystemExit(0)  # a process of the job that was started for the training alone
    return load_run(folder)


def _known_run(config: Config, suite: CubeSuite, folder: Path, writes: bool) -> tuple[dict | None, Config]:
    """run.json of a folder, None where there is none, and the configuration with sets that its processes can share.

    writes   this process says in run.json where the cubes are now
    Raises ValueError for a run of another configuration, or of other cubes.
    """
    if not (folder / "run.json").exists():
        return None, share_sets(config, config.training)
    info, found = read_info(folder)
    config = share_sets(config, found.training)
    if differ := differences(found, config):
        raise ValueError(
            f"{folder} holds a run of another configuration: {', '.join(differ)}; use another --name, or remove it"
        )
    check_same_cubes(suite, info, folder)
    if found.data.path != config.data.path and writes:
        move_data(folder, config.data.path)
        info, _ = read_info(folder)
    return info, config


def _train(
    config: Config, folder: Path, suite: CubeSuite, info: dict, resume: bool, progress: bool, callbacks: list
) -> None:
    """Train to the end and write what a finished run has."""
    settings = module_settings(info, config)
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
    names = [suite.cube_id(i) for i in range(suite.n_cubes)]
    split = split_cubes(suite.n_cubes, data.val_fraction, data.test_fraction, data.split_seed, ids=names)
    mean, std = standardisation(suite, split["train"], data.eps)
    cuts = suite, split["train"], mean, std, data.image_size, data.thickness, data.eps
    power = pixel_power(*cuts) if config.model.fourier_start else None
    told = discriminants(list(some_slices(*cuts)), power, n) if (n := config.model.discriminants) else None
    info = {
        "config": to_dict(config),
        "side": suite.side,
        "box_size": float(suite.box_size),
        "box_from": suite.box_from,
        "mean": mean,
        "std": std,
        "split": split,
        "cubes": names,
        "pool_size": _pool_size(config, suite, len(split["train"])),
        "power": power,
        "told": None if told is None else told.tolist(),
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
        memory=int(data.pool_memory * 2**30) if data.pool_memory else None,
        n_pools=1 if device.type == "cuda" else config.training.devices,
    )  # fmt: skip


class LiveCurves(Callback):
    """Draws `plots.loss_curves` below the bar in a notebook, anew every 100 steps."""

    def on_train_start(self, trainer, module) -> None:
        from IPython.display import display

        self.shown = display(display_id=True)
        self.rows = next(c for c in trainer.callbacks if isinstance(c, RunKeeper)).rows

    def on_train_batch_end(self, trainer, module, *_) -> None:
        if trainer.global_step % 100 == 0 and self.rows and self.shown:
            from ..plots.curves import loss_curves

            self.shown.update(loss_curves(pd.DataFrame(self.rows)))


def weighted_terms(history: pd.DataFrame, config: Config) -> pd.DataFrame:
    """The terms of a run's loss as they enter it, one row a logged step: they add up to the column `loss`.

    history   of a run: terms, KLs in nats, and weights
    """
    terms = {
        "pixels": history["pixels"],
        "kl_z": history["weight_z"] * history["kl_z"] / config.model.latent_dim,
        "kl_h": history["weight_h"] * history["kl_h"] / config.model.latent_dim,
    }
    if config.loss.residual_spectrum:
        terms["residual_spectrum"] = config.loss.residual_spectrum * history["residual_spectrum"]
    return pd.DataFrame({"step": history["step"], **terms, "loss": history["loss"]})
