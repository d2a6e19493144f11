"""Training of the flows (`variants.flows`) of a run whose networks stay as they are.

Slices are cut from the training cubes without end, as in the training of the run, and encoded by the trained model:
z, the mean of q(z | the other slices of a set), h ~ q(h | slice, z), decoded mean. The flows learn side by side from
the same slices. Slices and noise are functions of (seed, step), and checkpoints are those of `training`: a training
that was killed goes on to the same numbers.
"""

import math
import shutil
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor

from ..files import write_atomically
from ..model import leave_one_out
from ..presets import Config, FlowConfig
from ..runs.run import FLOWS, Run, load_run, lock_run, provenance, weights_key
from ..training.checkpoints import RunKeeper, newest_checkpoint
from ..training.fit import LitUniverseVAE, draw_noise, module_settings, noise_seed
from ..training.slices import SliceSets
from ..training.trainer import train_module
from ..variants import covers_box
from .flows import N_SHAPED, Flows, draw_angle, flows_as_bytes, flows_of

SETS_AT_A_TIME = 8  # that are encoded
MEASURED = 8  # turns of slices from which the flows take what they start with


class Encoded(NamedTuple):
    """Slices and what the trained model makes of them.

    truth, mean   (n, 1, H, H) slices and their decoded means [standardised pixels]
    z, width      (n, 512) mean and width of q(z | the others of the set)
    mu, sigma     (n, 512) of p(h | z)
    h             (n, 512) drawn from q(h | slice, z)
    """

    truth: Tensor
    mean: Tensor
    z: Tensor
    width: Tensor
    mu: Tensor
    sigma: Tensor
    h: Tensor

    def rows(self, index: Tensor) -> "Encoded":
        return Encoded(*(values[index] for values in self))


class LitFlows(LitUniverseVAE):
    """`Flows` of a run, in the place of its model; its configuration's `training` is that of the flows.

    run   its trained model encodes the slices, and is no part of this module's weights
    """

    def __init__(self, run: Run, **settings):
        self._run = run
        super().__init__(**settings)
        self._turn: int | None = None
        self._held: Encoded | None = None

    def make_model(self) -> Flows:
        return Flows(self._run.model, self.config.flows, covers_box(self.config, self.hparams.side))

    def setup(self, stage: str) -> None:
        super().setup(stage)
        self._run.model.to(self.trainer.strategy.root_device)

    @torch.no_grad()
    def encode(self, slices: SliceSets, turn: int) -> Encoded:
        """The slices of a turn: a function of (seed, turn)."""
        shape = slices.sets_per_step, slices.set_size
        n_parts = math.ceil(self.config.flows.encoded / math.prod(shape))
        context, parts, model = leave_one_out(*shape, self.device), [], self._run.model
        for part in range(turn * n_parts, (turn + 1) * n_parts):
            sets = slices.sets(part)
            generator = torch.Generator().manual_seed(noise_seed(slices.seed, part))
            of_z, *noise = draw_noise(math.prod(shape), model.latent_dim, generator, self.device)
            noise = torch.zeros_like(of_z), *noise
            with self.trainer.precision_plugin.forward_context():
                mean, (z, _, z_logvar), (_, mu, logvar), post = model.forward_sets(sets, context, noise)
            widths = [(0.5 * values).exp() for values in (z_logvar, logvar)]
            parts.append(Encoded(sets.flatten(0, 1), mean, z, widths[0], mu, widths[1], post[0]))
        return Encoded(*(torch.cat(values) for values in zip(*parts, strict=True)))

    def batch(self, step: int) -> tuple[Encoded, Encoded]:
        """The slices of a step, and those of its turn: each is used so many times, then others are encoded."""
        flows, n = self.config.flows, self.n_encoded
        turn, place = divmod(step, max(1, n * flows.uses // flows.batch))
        generator = torch.Generator().manual_seed(noise_seed(self.slices.seed + 2, turn))
        order = torch.cat([torch.randperm(n, generator=generator) for _ in range(flows.uses)])
        encoded = self.encoded(turn)
        return encoded.rows(order[place * flows.batch : (place + 1) * flows.batch].to(self.device)), encoded

    def encoded(self, turn: int) -> Encoded:
        """The training slices of a turn, kept until another is asked for."""
        if self._turn != turn:
            self._encoded, self._turn = self.encode(self.slices, turn), turn
        return self._encoded

    @property
    def n_encoded(self) -> int:
        """Slices of a turn: whole sets, `flows.encoded` or a few more."""
        at_a_time = self.slices.sets_per_step * self.slices.set_size
        return at_a_time * math.ceil(self.config.flows.encoded / at_a_time)

    def on_train_start(self) -> None:
        """What is fixed before the first step: the residuals' spectrum and what of z is given."""
        if self.trainer.global_step == 0:
            some = zip(*(self.encode(self.slices, turn) for turn in range(MEASURED)), strict=True)
            first = Encoded(*(torch.cat(values) for values in some))
            self.model.measure(first.truth, first.mean, first.z, first.width)
            self.evaluated.load_state_dict(self.model.state_dict())

    def losses(self, flows: Flows, batch: Encoded, turn: Encoded, generator: torch.Generator) -> dict[str, Tensor]:
        """Of the flows of slices, of h and of z, scalars; noise and angles come from the generator.

        turn   the slices from which the batch was taken: z is cheap to learn from all of them
        """
        n, given, numbers = len(batch.z), flows.given(batch.z), flows.given(turn.z)[:, :N_SHAPED]
        white, white_h, white_z = (
            torch.randn(x.shape, generator=generator).to(self.device) for x in (batch.truth, batch.h, numbers)
        )
        angle, angle_h, angle_z = (draw_angle(m, generator).to(self.device) for m in (n, n, len(numbers)))
        return {
            "slices": flows.slices.loss(batch.truth, batch.mean, given, white, angle),
            "h": flows.h.loss(batch.h, batch.mu, batch.sigma, given, white_h, angle_h),
            "z": flows.z.loss(numbers, white_z, angle_z),
        }

    def step_terms(self, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        generator = torch.Generator().manual_seed(noise_seed(self.slices.seed + 1, step))
        batch, turn = self.batch(step)
        losses = self.losses(self.model, batch, turn, generator)
        return sum(losses.values()), {f"loss_{name}": value for name, value in losses.items()}

    def log_row(self, step: int) -> dict[str, float]:
        row = {name: float(value) for name, value in self.logged.items()}
        return row | {"lr": self.config.training.lr * self._rate(step - 1)}

    def held_out(self) -> dict[str, float]:
        """Losses on held-out cubes, always the same slices and noise."""
        self._held = self._held or self.encode(self.validation, 0)
        generator = torch.Generator().manual_seed(noise_seed(self.slices.seed + 3, 0))
        found = [self.losses(self.evaluated, part, self._held, generator) for part in self._split(self._held)]
        mean = {name: float(torch.stack([losses[name] for losses in found]).mean()) for name in found[0]}
        return {"val_loss": sum(mean.values())} | {f"val_loss_{name}": value for name, value in mean.items()}

    def _split(self, encoded: Encoded) -> Iterator[Encoded]:
        for index in torch.arange(len(encoded.z), device=self.device).split(self.config.flows.batch):
            yield encoded.rows(index)


def fit_flows(
    folder: str | Path, settings: FlowConfig | None = None, *, progress: bool = True, steps: int | None = None
) -> Run:
    """Train the flows of a run and write `<run>/flows.safetensors`; flows that are there are kept.

    folder     of the run
    settings   `config.flows` of the run when absent
    progress   show a progress bar
    steps      in the place of settings.steps
    Returns the run with its flows. A training that was stopped goes on from its newest checkpoint in `<run>/flows/`.
    Raises what `training.fit` does.
    """
    run = load_run(folder)
    settings = settings or run.config.flows
    settings = replace(settings, steps=steps or settings.steps)
    path, key = run.folder / FLOWS, weights_key(run, asdict(settings))
    if flows_of(run) and flows_of(run).about["key"] == key:
        return run
    place = run.folder / "flows" / key[:12]
    with lock_run(place):
        module, keeper = _train(run, settings, place, progress)
        best = {k.removeprefix("model."): v for k, v in load_file(place / "best.safetensors").items()}
        flows = module.evaluated.cpu()
        flows.load_state_dict({name: best[name] for name in flows.state_dict()})
        flows.about = {"key": key, "seconds": keeper.seconds(), "val_loss": keeper.best_loss, "made": provenance()}
        write_atomically(path, flows_as_bytes(flows))
        shutil.rmtree(place / "checkpoints", ignore_errors=True)  # the best weights and the history stay
    return load_run(folder)


def _config(run: Run, settings: FlowConfig) -> Config:
    """The run's configuration with the optimisation of the flows in the place of its own."""
    training = replace(
        run.config.training, steps=settings.steps, lr=settings.lr, ema=settings.ema, weight_decay=1e-4, clip=1.0,
        lr_warmup=max(1, settings.steps // 40),
        sets_per_step=min(SETS_AT_A_TIME, max(1, settings.encoded // run.config.training.set_size)),
        val_every=settings.save_every, save_every=settings.save_every, compile=False, devices=1, num_nodes=1,
    )  # fmt: skip
    return replace(run.config, training=training, flows=settings, loss=replace(run.config.loss, residual_spectrum=0.0))


def _train(run: Run, settings: FlowConfig, place: Path, progress: bool) -> tuple[LitFlows, RunKeeper]:
    """Train to the last step, from the newest checkpoint where there is one."""
    values = module_settings(run.info, _config(run, settings))
    start = newest_checkpoint(place, values)
    module = LitFlows(run, **values).attach(run.open_suite())
    return module, train_module(module, place, start, progress)
