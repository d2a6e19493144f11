"""Training of the flows (`generation.flows`) of a run whose networks stay as they are.

Slices are cut from the training cubes without end, as in the training of the run, and encoded by the trained model:
z ~ q(z | the other slices of a set), h ~ q(h | slice, z), decoded mean. The flows learn side by side from the same
slices. Slices and noise are functions of (seed, step), and checkpoints are those of `training`: a training that was
killed goes on to the same numbers.
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
from ..presets import Config, FlowConfig
from ..runs.run import FLOWS, Run, load_run, lock_run, provenance, weights_key
from ..training.checkpoints import RunKeeper, newest_checkpoint
from ..training.module import TrainingModule, draw_noise, module_settings, noise_seed
from ..training.slices import SliceSets, leave_one_out
from ..training.trainer import train_module
from .flows import Flows, draw_angle, flows_as_bytes, flows_of

MEASURED = 8  # turns of slices from which the flows take what they start with
ENCODED = 16  # batches of slices that are encoded at a time
USES = 4  # of each slice, with other noise, before new ones are cut and encoded
LR, EMA = 2e-3, 0.998


class Encoded(NamedTuple):
    """Slices and what the trained model makes of them.

    truth, mean   (n, 1, H, H) slices and their decoded means [standardised pixels]
    z             (n, 512) drawn from q(z | the others of the set), of mean z_mu and width z_width
    mu, sigma     (n, 512) of p(h | z)
    h             (n, 512) drawn from q(h | slice, z)
    """

    truth: Tensor
    mean: Tensor
    z: Tensor
    z_mu: Tensor
    z_width: Tensor
    mu: Tensor
    sigma: Tensor
    h: Tensor

    def rows(self, index: Tensor) -> "Encoded":
        return Encoded(*(values[index] for values in self))


class LitFlows(TrainingModule):
    """`Flows` of a run; its configuration's `training` is that of the flows.

    run   its trained model encodes the slices, and is no part of this module's weights
    """

    weight_decay, clip = 1e-4, 1.0

    def __init__(self, run: Run, **settings):
        self._run = run
        super().__init__(**settings)
        self._turn: int | None = None
        self._held: Encoded | None = None

    def make_model(self) -> Flows:
        return Flows(self._run.model, self.config.flows, self._run.periodic)

    def setup(self, stage: str) -> None:
        super().setup(stage)
        self._run.model.to(self.trainer.strategy.root_device)

    @torch.no_grad()
    def encode(self, slices: SliceSets, turn: int) -> Encoded:
        """The slices of a turn: a function of (seed, turn)."""
        shape = slices.sets_per_step, slices.set_size
        n_parts = math.ceil(ENCODED * self.config.flows.batch / math.prod(shape))
        context, parts = leave_one_out(*shape, self.device), []
        for part in range(turn * n_parts, (turn + 1) * n_parts):
            sets = slices.sets(part)
            generator = torch.Generator().manual_seed(noise_seed(slices.seed, part))
            noise = draw_noise(math.prod(shape), generator, self.device)
            with self.trainer.precision_plugin.forward_context():
                mean, z, (_, mu, logvar), post = self._run.model.forward_sets(sets, context, noise)
            widths = [(0.5 * values).exp() for values in (z[2], logvar)]
            parts.append(Encoded(sets.flatten(0, 1), mean, *z[:2], widths[0], mu, widths[1], post[0]))
        return Encoded(*(torch.cat(values) for values in zip(*parts, strict=True)))

    def batch(self, step: int) -> Encoded:
        """The slices of a step: those of a turn are used a few times each, then others are encoded."""
        batch, n = self.config.flows.batch, self.n_encoded
        turn, place = divmod(step, n * USES // batch)
        generator = torch.Generator().manual_seed(noise_seed(self.slices.seed + 2, turn))
        order = torch.cat([torch.randperm(n, generator=generator) for _ in range(USES)])
        return self.encoded(turn).rows(order[place * batch : (place + 1) * batch].to(self.device))

    def encoded(self, turn: int) -> Encoded:
        """The training slices of a turn, kept until another is asked for."""
        if self._turn != turn:
            self._encoded, self._turn = self.encode(self.slices, turn), turn
        return self._encoded

    @property
    def n_encoded(self) -> int:
        """Slices of a turn: whole sets, `ENCODED` batches or a few more."""
        at_a_time = self.slices.sets_per_step * self.slices.set_size
        return at_a_time * math.ceil(ENCODED * self.config.flows.batch / at_a_time)

    def on_train_start(self) -> None:
        """What is fixed before the first step: the residuals' spectrum and what of z is given."""
        if self.trainer.global_step == 0:
            some = zip(*(self.encode(self.slices, turn) for turn in range(MEASURED)), strict=True)
            first = Encoded(*(torch.cat(values) for values in some))
            self.model.measure(first.truth, first.mean, first.z, first.z_mu, first.z_width)
            self.evaluated.load_state_dict(self.model.state_dict())

    def losses(self, flows: Flows, batch: Encoded, generator: torch.Generator) -> dict[str, Tensor]:
        """Of the flows of slices and of h, scalars; noise and angles come from the generator."""
        n, given = len(batch.z), flows.given(batch.z)
        white, white_h = (torch.randn(x.shape, generator=generator).to(self.device) for x in (batch.truth, batch.h))
        angle, angle_h = (draw_angle(n, generator).to(self.device) for _ in range(2))
        return {
            "slices": flows.slices.loss(batch.truth, batch.mean, given, white, angle),
            "h": flows.h.loss(batch.h, batch.mu, batch.sigma, given, white_h, angle_h),
        }

    def step_terms(self, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        generator = torch.Generator().manual_seed(noise_seed(self.slices.seed + 1, step))
        losses = self.losses(self.model, self.batch(step), generator)
        return sum(losses.values()), {f"loss_{name}": value for name, value in losses.items()}

    def held_out(self) -> dict[str, float]:
        """Losses on held-out cubes, always the same slices and noise."""
        self._held = self._held or self.encode(self.validation, 0)
        generator = torch.Generator().manual_seed(noise_seed(self.slices.seed + 3, 0))
        found = [self.losses(self.evaluated, part, generator) for part in self._split(self._held)]
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
    steps = settings.steps
    training = replace(run.config.training, steps=steps, taught_steps=0, lr=LR, ema=EMA if steps > 500 else 0.9)
    training = replace(training, val_every=max(1, min(250, steps // 2)), devices=1, num_nodes=1)
    return replace(run.config, training=training, flows=settings)


def _train(run: Run, settings: FlowConfig, place: Path, progress: bool) -> tuple[LitFlows, RunKeeper]:
    """Train to the last step, from the newest checkpoint where there is one."""
    values = module_settings(run.info, _config(run, settings))
    start = newest_checkpoint(place, values)
    module = LitFlows(run, **values).attach(run.open_suite())
    return module, train_module(module, place, start, progress)
