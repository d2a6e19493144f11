"""Training of the flows (`generation.flows`) of a run whose networks stay as they are.

Slices are cut from the training cubes without end, as in the training of the run, and encoded by the trained model:
z ~ q(z | the other slices of a set), h ~ q(h | slice, z), decoded mean. Slices and noise are functions of (seed, step),
and checkpoints are those of `training`: a training that was killed goes on to the same numbers.
"""

import shutil
from dataclasses import asdict, replace
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Generator, Tensor, nn

from ..files import write_atomically
from ..presets import Config
from ..runs.run import FLOWS, Run, load_run, lock_run, provenance, weights_key
from ..training.checkpoints import newest_checkpoint
from ..training.module import TrainingModule, module_settings
from ..training.slices import SliceSets, leave_one_out, noise_seed
from ..training.trainer import train_module
from .flows import Flows, draw_angle, flows_as_bytes, flows_of

MEASURED, HELD = 40, 4  # batches of slices from which flows take what they start with, and by which they are judged
USES = 4  # of a batch, with other noise, before the next one is encoded
LR, EMA = 2e-3, 0.998


class LitFlows(TrainingModule):
    """`Flows` of a run; its configuration's `training` is that of the flows.

    run   its trained model encodes the slices, and is no part of this module's weights
    """

    weight_decay = 1e-4

    def __init__(self, run: Run, **settings):
        self._run, self._turn, self._held = run, None, None
        super().__init__(**settings)

    def make_model(self) -> Flows:
        return Flows(self._run.model, self.config.flows, self._run.periodic)

    def configure_gradient_clipping(self, optimizer, **_) -> None:
        """Clipped here, since Lightning's own clipping refuses fused optimisers."""
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)

    @torch.no_grad()
    def encode(self, slices: SliceSets, turn: int) -> dict[str, Tensor]:
        """A batch of n slices and what the trained model makes of them: a function of (seed, turn).

        truth, mean   (n, 1, H, H) slices and their decoded means [standardised pixels]
        z             (n, 512) drawn from q(z | the others of the set), of mean z_mu and width z_width
        mu, sigma     (n, 512) of p(h | z)
        h             (n, 512) drawn from q(h | slice, z)
        """
        sets = slices.sets(turn)
        with self.trainer.precision_plugin.forward_context():
            context = leave_one_out(*sets.shape[:2], self.device)
            output = self._run.model.to(self.device).forward_sets(sets, context, slices.noise(turn))
        mean, (z, z_mu, z_logvar), (_, mu, logvar), (h, *_) = output
        batch = {"truth": sets.flatten(0, 1), "mean": mean, "z": z, "z_mu": z_mu, "z_width": (0.5 * z_logvar).exp()}
        return batch | {"mu": mu, "sigma": (0.5 * logvar).exp(), "h": h}

    def on_train_start(self) -> None:
        """What is fixed before the first step: the coupling of h, the residuals' spectrum and what of z is given."""
        if self.trainer.global_step == 0:
            some = [self.encode(self.slices, turn) for turn in range(MEASURED)]
            self.model.measure({name: torch.cat([batch[name] for batch in some]) for name in some[0]})
            self.evaluated.load_state_dict(self.model.state_dict())

    def loss_of(self, flows: Flows, batch: dict[str, Tensor], seed: int) -> Tensor:
        """Of the flow of slices, a scalar; noise and angles are those of a seed."""
        generator, truth, mean = Generator().manual_seed(seed), batch["truth"], batch["mean"]
        white = torch.randn(truth.shape, generator=generator).to(self.device)
        angle = draw_angle(len(truth), generator).to(self.device)
        return flows.slices.loss(truth, mean, flows.given(batch["z"]), white, angle)

    def step_terms(self, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        turn = step // USES
        if self._turn != turn:
            self._turn, self._batch = turn, self.encode(self.slices, turn)
        loss = self.loss_of(self.model, self._batch, noise_seed(self.slices.seed + 1, step))
        return loss, {"loss": loss}

    def held_out(self) -> dict[str, float]:
        """Loss on held-out cubes, always the same slices and noise."""
        self._held = self._held or [self.encode(self.validation, turn) for turn in range(HELD)]
        some = [self.loss_of(self.evaluated, batch, seed) for seed, batch in enumerate(self._held)]
        return {"val_loss": float(torch.stack(some).mean())}


def fit_flows(folder: str | Path, *, progress: bool = True, steps: int | None = None) -> Run:
    """Train the flows of a run and write `<run>/flows.safetensors`; flows that are there are kept.

    folder     of the run
    progress   show a progress bar
    steps      in the place of `config.flows.steps` of the run
    Returns the run with its flows. A training that was stopped goes on from its newest checkpoint in `<run>/flows/`.
    Raises what `training.fit` does.
    """
    run = load_run(folder)
    settings = replace(run.config.flows, steps=steps or run.config.flows.steps)
    path, key = run.folder / FLOWS, weights_key(run, asdict(settings))
    if flows_of(run) and flows_of(run).about["key"] == key:
        return run
    place = run.folder / "flows" / key[:12]
    with lock_run(place):
        values = module_settings(run.info, _config(replace(run.config, flows=settings)))
        module = LitFlows(run, **values).attach(run.open_suite())
        keeper = train_module(module, place, newest_checkpoint(place, values), progress)
        flows = module.evaluated.cpu()
        nn.ModuleDict({"model": flows}).load_state_dict(load_file(place / "best.safetensors"))
        flows.about = {"key": key, "seconds": keeper.seconds(), "val_loss": keeper.best_loss, "made": provenance()}
        write_atomically(path, flows_as_bytes(flows))
        shutil.rmtree(place / "checkpoints", ignore_errors=True)  # the best weights and the history stay
    return load_run(folder)


def _config(config: Config) -> Config:
    """A run's configuration with the optimisation of its flows in the place of its own."""
    steps = config.flows.steps
    training = replace(config.training, steps=steps, taught_steps=0, lr=LR, ema=EMA if steps > 500 else 0.9)
    return replace(config, training=replace(training, val_every=max(1, min(250, steps // 2)), devices=1, num_nodes=1))
