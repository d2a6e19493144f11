"""Training steps to be timed: ours, as `fit` runs it, and the note's as written."""

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests import note
from tests.suites import lognormal_suite
from uvae_lib.cubes.suite import CubeSuite, open_cubes
from uvae_lib.model import UniverseVAE, UpConv
from uvae_lib.presets import DEMO, Config, to_dict
from uvae_lib.training.module import LitUniverseVAE, update_average
from uvae_lib.training.trainer import make_trainer

LEARNING_RATE = 1e-4


def make_suite(folder: Path, n_cubes: int, side: int) -> CubeSuite:
    """Lognormal cubes on disk."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return open_cubes(lognormal_suite(folder / f"cubes-{n_cubes}-{side}", n_cubes, side), check=False)


def configured(image_size: int, sets: int | None = None, data: dict | None = None, model: dict | None = None,
               **training) -> Config:  # fmt: skip
    """The demo preset at an image size, without teaching, with replaced fields; sets: sets of slices a step."""
    training = {"lr": LEARNING_RATE, "taught_steps": 0} | ({"sets_per_step": sets} if sets else {}) | training
    return replace(
        DEMO,
        data=replace(DEMO.data, image_size=image_size, **(data or {})),
        model=replace(DEMO.model, **(model or {})),
        training=replace(DEMO.training, **training),
    )


def our_module(config: Config, suite: CubeSuite, pool_size: int | None = None) -> LitUniverseVAE:
    """The module that `fit` trains, with its cubes on the device, ready for `training_step`."""
    split = {"train": list(range(suite.n_cubes)), "val": [0], "test": []}
    pool_size = pool_size or suite.n_cubes
    kept = {"side": suite.side, "mean": 0.0, "std": 1.0, "split": split, "pool_size": pool_size}
    module = LitUniverseVAE(config=to_dict(config), **kept).attach(suite)
    module.trainer = make_trainer(config, Path("build/benchmarks"), False, [])
    module.setup("fit")
    return module.train()


def our_step(module: LitUniverseVAE) -> Callable[[int], None]:
    """A step as `fit` runs it: slices, noise, loss, backward, optimiser, schedule, average."""
    (optimizer,), (schedule,) = module.configure_optimizers()
    precision = module.trainer.precision_plugin

    def step(number: int) -> None:
        optimizer.zero_grad()
        with precision.forward_context():
            loss = module.training_step(number)
        loss.backward()
        optimizer.step()
        schedule["scheduler"].step()
        if module.average:
            update_average(module.average, module.model, module.config.training.ema, number + 1)

    return step


def note_step(config: Config, sets: Tensor) -> Callable[[int], None]:
    """The note's step as written: float32, the encoder called twice, a plain optimiser; slices are given."""
    model = note.NoteVAE(UniverseVAE(config.data.image_size, logvar_h=-4.0)).train()
    plain_upsampling(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)

    def step(number: int) -> None:
        optimizer.zero_grad()
        img_zs, img_h = sets[:, :-1].contiguous(), sets[:, -1].contiguous()
        note.loss(model(img_zs, img_h), img_h, 1.0, 10.0).backward()
        optimizer.step()

    return step


class PlainUpConv(nn.Conv2d):
    """What UpConv computes, as one writes it."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.interpolate(x, scale_factor=2))


def plain_upsampling(model: nn.Module) -> nn.Module:
    """Replace every UpConv by nearest upsampling and a 3 x 3 convolution."""
    for layer in model.modules():
        if isinstance(layer, UpConv):
            layer.__class__ = PlainUpConv
    return model
