"""What a step of training is: the module of the model, and the base that the flows' module shares.

Slices, contexts and noise of a step are functions of (seed, step). With several processes each cuts its part of the
same global batch, and gradients are means over them.
"""

import math
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from ..cubes.suite import CubeSuite
from ..loss import active_units, kl_parts, note_loss
from ..presets import Config, from_dict, to_dict
from ..runs.run import build
from .slices import CubePool, SliceSets, leave_one_out
from .start import TaughtStart, hush

VALIDATION_STEPS = 8  # batches of held-out sets, always the same
SETTINGS = ("side", "mean", "std", "split", "pool_size", "power", "discriminants")  # of run.json, for a module
REFRESH = 8  # steps after which one of the cubes held is exchanged, when not all fit
LR_END = 0.02  # of the learning rate, at the last step
WARMUP = 100  # steps over which the KLs' weights rise


def module_settings(info: dict, config: Config) -> dict:
    """The arguments of a module, which checkpoints carry: a configuration, and what run.json keeps for good."""
    return {"config": to_dict(config)} | {name: info.get(name) for name in SETTINGS}


class TrainingModule(pl.LightningModule):
    """A network, its running average, its slices and its optimiser. Arguments are plain values (`module_settings`):

    config      `presets.to_dict` of a Config
    side        of the cubes [voxels]
    mean, std   of x = log(y + eps)
    split       {"train", "val", "test"} -> cube indices
    pool_size   training cubes that are held at a time
    power, discriminants   what the taught start needs (`start.TaughtStart`), as lists
    Weights are drawn from the seed of config; torch's global random state is left as it was.

    A subclass has `make_model()`: the network, its weights drawn from torch's global state; `step_terms(step)`: the
    loss, and the scalars that are logged; `held_out()`: numbers on held-out cubes, of which `val_loss` chooses the best
    weights; and `settle(network)`, which measures what an averaged network needs beside its weights.
    """

    weight_decay = 0.01

    def __init__(self, **settings):
        super().__init__()
        self.save_hyperparameters(settings)
        self.config = from_dict(settings["config"])
        train = self.config.training
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(train.seed)
            self.model = self.make_model().to(memory_format=torch.channels_last)
        self.average = deepcopy(self.model).requires_grad_(False) if train.ema else None
        self.register_buffer("first_bad_step", torch.tensor(-1), persistent=False)
        self.logged: dict[str, Tensor] = {}

    @property
    def evaluated(self) -> nn.Module:
        """The network whose weights are used: the running average of them, where there is one."""
        return self.average or self.model

    def attach(self, suite: CubeSuite) -> "TrainingModule":
        """Say where the cubes are; they are read when training starts, on the device of the training."""
        self._suite = suite
        return self

    def setup(self, stage: str) -> None:
        split, ranks = self.hparams.split, {"rank": self.trainer.global_rank, "world_size": self.trainer.world_size}
        self.slices = self._slices(split["train"], augment=True, **ranks)
        if split["val"]:
            self.validation = self._slices(split["val"], augment=False)

    def _slices(self, cubes: list[int], augment: bool, **ranks) -> SliceSets:
        """Sets of slices of some cubes, which are held on the device of the training."""
        data, train = self.config.data, self.config.training
        pool = CubePool(
            self._suite, cubes, data.eps, self.trainer.strategy.root_device, getattr(torch, data.storage),
            size=self.hparams.pool_size, refresh=REFRESH if augment else 1, seed=train.seed,
        )  # fmt: skip
        return SliceSets(
            pool, self.hparams.mean, self.hparams.std, image_size=data.image_size, set_size=train.set_size,
            sets_per_step=train.sets_per_step, thickness=data.thickness, augment=augment, seed=train.seed, **ranks,
        )  # fmt: skip

    def train_dataloader(self) -> Iterator[int]:
        """The numbers of the steps that are left. A step cuts its own slices, on the device."""
        yield from range(self.trainer.global_step, self.config.training.steps)

    def due(self, step: int) -> dict[str, bool]:
        """What is to be done after so many steps: "log", "val" and "save"; everything after the last one."""
        train = self.config.training
        every = {"log": max(1, train.val_every // 10), "val": train.val_every, "save": train.val_every}
        return {name: step == train.steps or step % n == 0 for name, n in every.items()}

    def training_step(self, step: int) -> Tensor:
        """The loss of a step. Nothing here waits for the device; numbers are read on logged steps only."""
        loss, terms = self.step_terms(step)
        bad = ~torch.isfinite(loss.detach()) & (self.first_bad_step < 0)
        self.first_bad_step.masked_fill_(bad, step)
        if any(self.due(step + 1).values()):
            self.logged = {n: self.trainer.strategy.reduce(x.detach(), reduce_op="mean") for n, x in terms.items()}
        return loss

    def _rate(self, step: int) -> float:
        """Learning rate of a step, as a factor of training.lr: a linear rise, then a cosine fall."""
        steps = self.config.training.steps
        rise = max(1, min(50, steps // 40))
        done = min(1.0, max(0, step - rise) / max(1, steps - rise))
        return min(1.0, (step + 1) / rise) * (LR_END + (1 - LR_END) * 0.5 * (1 + math.cos(math.pi * done)))

    def configure_optimizers(self) -> tuple[list, list]:
        parameters, lr = self.model.parameters(), self.config.training.lr
        adam = torch.optim.AdamW(parameters, lr=lr, weight_decay=self.weight_decay, fused=True)
        return [adam], [{"scheduler": torch.optim.lr_scheduler.LambdaLR(adam, self._rate), "interval": "step"}]

    def optimizer_step(self, *args, **kwargs) -> None:
        """One step of the optimiser, then of the average: callbacks see both."""
        super().optimizer_step(*args, **kwargs)
        if self.average:
            update_average(self.average, self.model, self.config.training.ema, self.trainer.global_step + 1)

    def log_row(self, step: int) -> dict[str, float]:
        """The last step as numbers: terms, and the learning rate. Waits for the device."""
        return {n: float(x) for n, x in self.logged.items()} | {"lr": self.config.training.lr * self._rate(step - 1)}

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """`held_out` with the evaluated weights. Every process computes all of it, so that none waits for another."""
        network, training = self.evaluated, self.evaluated.training
        with self.trainer.precision_plugin.forward_context():
            if self.average:
                self.settle(network)
            network.eval()
            numbers = self.held_out()
        network.train(training)
        return numbers

    def settle(self, network: nn.Module) -> None:
        """Nothing here."""


class LitUniverseVAE(TrainingModule):
    """The Universe VAE and the note's loss, after a taught start where training.taught_steps asks for one."""

    def make_model(self) -> nn.Module:
        self.start = None
        model = build(self.config, self.hparams.side)
        if (train := self.config.training).taught_steps:
            known = (torch.tensor(values) for values in (self.hparams.power, self.hparams.discriminants))
            self.start = TaughtStart(*known, train.taught_steps, train.steps)
            hush(model)
        return model

    def step_terms(self, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        batch = sets, context, noise = self.slices.sets(step), self.slices.contexts(step), self.slices.noise(step)
        weight = self.start.weight_of_z(step) if self.start else 0.0
        universes = self.start.universes(self.slices, step) if weight else None
        if weight and step < self.start.steps:
            loss, output = self.start.loss(self.model, sets, context, universes, noise)
            return loss, self._terms(output, sets, *self._weights(step)) | {"loss": loss}
        output = self.model.forward_sets(*batch)
        terms = self._terms(output, sets, *self._weights(step))
        if weight:
            terms["loss"] = terms["loss"] + weight * self.start.loss_of_z(*output[1][1:], sets, context, universes)
        return terms["loss"], terms

    def _terms(self, output: tuple, sets: Tensor, kl_z: float, kl_h: float) -> dict[str, Tensor]:
        """The note's loss and its parts, KLs in nats a slice."""
        img_h = sets.flatten(0, 1)
        terms, n = note_loss(output, img_h, kl_z, kl_h), output[1][1].shape[1]
        power = img_h.square().sum() / len(img_h)
        return terms | {"kl_z": n * terms["kl_z"], "kl_h": n * terms["kl_h"], "target_power": power}

    def _weights(self, step: int) -> tuple[float, float]:
        """kl_z and kl_h at a step: they rise from a tenth, from the end of teaching on."""
        train, loss = self.config.training, self.config.loss
        done = (step + 1 - train.taught_steps) / min(WARMUP, max(1, train.steps // 10))
        rise = 0.1 + 0.9 * min(1.0, max(0.0, done)) if train.taught_steps else 1.0
        return rise * loss.kl_z, rise * loss.kl_h

    def log_row(self, step: int) -> dict[str, float]:
        row, (weight_z, weight_h) = super().log_row(step), self._weights(step - 1)
        return row | {"fvu": row["l2"] / row.pop("target_power"), "weight_z": weight_z, "weight_h": weight_h}

    def settle(self, network: nn.Module) -> None:
        """Batch statistics of the averaged weights, of whole steps: those that training kept are of other weights."""
        for layer in network.modules():
            if isinstance(layer, nn.BatchNorm2d | nn.SyncBatchNorm):
                layer.reset_running_stats()
                layer.momentum = None  # a plain mean over the batches
        slices = replace(self.slices, rank=0, world_size=1)  # every process sees what one would
        for step in range(self.trainer.global_step, self.trainer.global_step + VALIDATION_STEPS):
            network.train().forward_sets(slices.sets(step), slices.contexts(step), slices.noise(step))

    def held_out(self) -> dict[str, float]:
        """Terms on held-out cubes: `val_fvu` is the unexplained share of the variance."""
        some, latents = [], []
        for step in range(VALIDATION_STEPS):
            sets = self.validation.sets(step)
            context = leave_one_out(*sets.shape[:2], self.device)
            output = self.evaluated.forward_sets(sets, context, self.validation.noise(step))
            some.append(self._terms(output, sets, self.config.loss.kl_z, self.config.loss.kl_h))
            latents.append((*output[1][1:], output[3][1]))
        mean = {name: float(torch.stack([terms[name] for terms in some]).mean()) for name in some[0]}
        z_mu, z_logvar, h_post_mu = (torch.cat(parts) for parts in zip(*latents, strict=True))
        mean["fvu"] = mean["l2"] / mean["target_power"]
        numbers = {f"val_{name}": mean[name] for name in ("loss", "fvu", "l2", "kl_z", "kl_h")}
        names = ("val_kl_z_width", "val_kl_z_offset", "val_kl_z_spread", "active_z", "active_h")
        values = (*kl_parts(z_mu, z_logvar), active_units(z_mu), active_units(h_post_mu))
        return numbers | dict(zip(names, map(float, values), strict=True))


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
