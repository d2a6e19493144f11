"""What a run is compared with: networks trained on slices of its training cubes, by its optimiser.

supervised   ResNet-18 from a slice to (Omega_m, sigma_8): what the slices tell of the cosmology to one who asks
moments      the same asked of the network and the loss of the CAMELS Multifield Dataset (Villaescusa-Navarro et al.
             2022, ApJS 259, 61, arXiv:2109.10915)

`train_baselines` writes them to `<run>/baselines.json` one by one; a training that was stopped goes on from its
newest checkpoint in `<run>/baselines/`.
"""

import json
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models import resnet18

from ..cubes.suite import CubeSuite
from ..files import write_atomically
from ..presets import PARAMETERS, Config
from ..runs.encode import spread_slices
from ..runs.run import Run, load_run, lock_run, provenance
from ..statistics import r2
from ..training.checkpoints import newest_checkpoint
from ..training.fit import LitUniverseVAE, module_settings
from ..training.slices import SliceSets
from ..training.trainer import train_module
from ..variants import wraps
from ..variants.layers import circular_padding, group_norm
from .features import evenly
from .metrics import r2_interval

MOMENT_WIDTH = 12  # channels of the first level
N_CALIBRATION = 128  # training cubes, at most, that recalibrate the supervised network


def supervised_network(config: Config, side: int) -> nn.Module:
    """ResNet-18 with one input channel and one output a parameter, normalised and padded like the run's encoder.

    (B, 1, H, H) pixels -> (B, 2) standardised Omega_m, sigma_8.  side: of the cubes [voxels]
    """
    net = resnet18(num_classes=len(PARAMETERS), zero_init_residual=config.model.zero_init)
    net.conv1 = nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
    nn.init.kaiming_normal_(net.conv1.weight, mode="fan_in", nonlinearity="relu")
    if config.model.norm == "group":
        group_norm(net)
    return circular_padding(net) if wraps(config, side) else net


def moment_network(config: Config, side: int) -> nn.Module:
    """Convolutions of 3 x 3, three a level, the third with stride 2, down to 4 x 4; means and widths of the parameters.

    (B, 1, H, H) pixels -> (B, 4): posterior means of the standardised Omega_m and sigma_8, then their widths.
    """
    layers, n = [], 1
    for level in range((config.data.image_size // 4).bit_length() - 1):
        width = MOMENT_WIDTH * 2**level
        for n_in, stride in ((n, 1), (width, 1), (width, 2)):
            conv = nn.Conv2d(n_in, width, kernel_size=3, stride=stride, padding=1, bias=False)
            layers += [conv, nn.BatchNorm2d(width), nn.LeakyReLU(0.2)]
        n = width
    network = nn.Sequential(
        *layers, nn.Flatten(), nn.Linear(16 * n, 8 * MOMENT_WIDTH), nn.LeakyReLU(0.2),
        nn.Linear(8 * MOMENT_WIDTH, 2 * len(PARAMETERS)),
    )  # fmt: skip
    return circular_padding(network) if wraps(config, side) else network


def squared_error(output: Tensor, wanted: Tensor) -> Tensor:
    """Mean squared error of standardised parameters: (B, 2) twice -> scalar."""
    return (output - wanted).square().mean()


def moment_loss(output: Tensor, wanted: Tensor) -> Tensor:
    """Its minimum is at the mean and the width of p(parameter | slice), whatever its shape.

    Jeffrey & Wandelt (2020, arXiv:2011.05991), with the logarithms of arXiv:2109.10915, eq. 2.
    output (B, 4), wanted (B, 2) -> scalar
    """
    mean, width = output.chunk(2, dim=1)
    square = (mean - wanted).square()
    first, second = square.mean(dim=0), (square - width.square()).square().mean(dim=0)
    return (first.log() + second.log()).mean()


class LitSupervised(LitUniverseVAE):
    """`supervised_network`, trained by `squared_error` on few slices each of many cubes."""

    batch = {"set_size": 2, "sets_per_step": 16, "targets": "all"}
    network, error = staticmethod(supervised_network), staticmethod(squared_error)

    def make_model(self) -> nn.Module:
        return self.network(self.config, self.hparams.side)

    def setup(self, stage: str) -> None:
        super().setup(stage)
        params = self._suite.params[list(PARAMETERS)].to_numpy()
        mean, std = label_scale(params, self.hparams.split["train"])
        self.labels = torch.tensor((params - mean) / std, dtype=torch.float32, device=self.trainer.strategy.root_device)

    def _error(self, model: nn.Module, slices: SliceSets, step: int) -> Tensor:
        """`error` of a step's slices, each of which has the parameters of its cube."""
        predicted = model(slices.sets(step).flatten(0, 1)).float()
        cubes = torch.tensor(slices.pool.at(step)[1])[slices.cuts(step).cube].flatten()
        return self.error(predicted, self.labels[cubes.to(self.labels.device)])

    def step_terms(self, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        loss = self._error(self.model, self.slices, step)
        return loss, {"loss": loss}

    def log_row(self, step: int) -> dict[str, float]:
        return {"loss": float(self.logged["loss"]), "lr": self.config.training.lr * self._rate(step - 1)}

    def held_out(self) -> dict[str, float]:
        """The error on the slices by which a Universe VAE is validated."""
        found = [self._error(self.evaluated, self.validation, step) for step in range(self.n_validation)]
        return {"val_loss": float(torch.stack(found).mean())}

    @property
    def n_validation(self) -> int:
        """Batches for about 15 slices of each validation cube: a label counts once a cube, however many slices."""
        slices = self.validation
        return -(-15 * len(self.hparams.split["val"]) // (slices.sets_per_step * slices.set_size))


class LitMoments(LitSupervised):
    """`moment_network`, trained by `moment_loss`."""

    network, error = staticmethod(moment_network), staticmethod(moment_loss)


def label_scale(params: np.ndarray, train: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (1 where nothing varies) of the training cubes' parameters: (n, p) -> (p,), (p,)."""
    values = params[train]
    return values.mean(axis=0), np.where(np.ptp(values, axis=0) > 0, values.std(axis=0), 1.0)


def supervised_metrics(network: nn.Module, run: Run, suite: CubeSuite, n_slices: int = 15) -> dict:
    """R^2 and error on the test cubes; a cube's prediction is the mean over the slices that `encode_cubes` sees.

    Means of single-slice predictions shrink towards the mean of the labels, so that they are recalibrated by a line,
    fitted to training cubes, for each parameter.

    Returns {"r2", "r2_interval" (68 %), "error" (rms, in the parameter's unit), "slope" (by which the line undoes the
    shrinking), "r2_raw" (before it)} by name of the parameter, and "predicted", "truth": rows of the cubes.
    """
    params = suite.params[list(PARAMETERS)].to_numpy()
    mean, std = label_scale(params, run.split["train"])
    train, test = evenly(run.split["train"], N_CALIBRATION), run.split["test"]

    @torch.inference_mode()
    def predict(cubes: list[int]) -> np.ndarray:
        slices = (spread_slices(run, suite, cube, n_slices, seed=cube) for cube in cubes)
        return np.stack([network(x)[:, : len(PARAMETERS)].mean(dim=0).numpy() for x in slices]) * std + mean

    raw, seen, truth = predict(test), predict(train), params[test]
    centred = seen - seen.mean(axis=0)
    varies = np.ptp(seen, axis=0) > 1e-6 * std
    slope = np.where(varies, (centred * params[train]).sum(axis=0) / np.where(varies, (centred**2).sum(axis=0), 1), 0)
    predicted = params[train].mean(axis=0) + slope * (raw - seen.mean(axis=0))
    found = {
        "r2": r2(truth, predicted),
        "r2_interval": np.array([r2_interval(*columns) for columns in zip(truth.T, predicted.T, strict=True)]),
        "error": np.sqrt(np.square(predicted - truth).mean(axis=0)),
        "slope": slope,
        "r2_raw": r2(truth, raw),
    }
    named = {name: dict(zip(PARAMETERS, values.tolist(), strict=True)) for name, values in found.items()}
    return named | {"predicted": predicted.tolist(), "truth": truth.tolist()}


BASELINES = {"supervised": LitSupervised, "moments": LitMoments}


def train_baselines(
    folder: str | Path, what: Iterable[str] = tuple(BASELINES), *, steps: int | None = None, progress: bool = True
) -> dict:
    """Train and judge baselines of a run, and write each to `<run>/baselines.json` as soon as it is known.

    what    names of `BASELINES`;  steps: as many as the run when absent
    A result that is there with as many steps, of the same cubes and parameters, is kept; a training that was stopped
    goes on. Weights are those with the lowest validation loss, as in `load_run`. Raises ValueError for a name that is
    none, and without labels.
    """
    run = load_run(folder)
    suite, path = run.open_suite(), run.folder / "baselines.json"
    steps = run.config.training.steps if steps is None else steps
    results = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    what = list(what)
    _refuse(what, steps, suite)
    of = {"steps": steps, "fingerprint": suite.fingerprint}
    for name in what:
        if of.items() <= results.get(name, {}).items():
            continue
        place = run.folder / "baselines" / of["fingerprint"]["parameters"] / f"{name}-{steps}"
        if progress:
            print(f"{name}: {steps} steps on the training cubes of {run.folder}")
        network, seconds = _train(BASELINES[name], run, suite, place, steps, progress)
        found = supervised_metrics(network, run, suite)
        results |= {name: found | of | {"seconds": seconds}, "made": provenance()}
        write_atomically(path, json.dumps(results, indent=1))
        shutil.rmtree(place / "checkpoints", ignore_errors=True)  # the best weights and the history stay
    return results


def _refuse(what: list[str], steps: int, suite: CubeSuite) -> None:
    unknown = [name for name in what if name not in BASELINES]
    if unknown:
        raise ValueError(f'found baseline "{unknown[0]}"; expected one of {", ".join(BASELINES)}')
    if steps < 1:
        raise ValueError(f"found steps={steps}; use at least 1")
    missing = [parameter for parameter in PARAMETERS if parameter not in suite.params]
    if missing:
        raise ValueError(
            f"{suite.source} has no {', '.join(missing)}; baselines need these labels: put the parameter file beside "
            "the cubes"
        )


def _train(
    kind: type[LitSupervised], run: Run, suite: CubeSuite, place: Path, steps: int, progress: bool
) -> tuple[nn.Module, float]:
    """Train a module with the settings of the run; its best network in evaluation mode on the CPU, and seconds."""
    training = replace(run.config.training, steps=steps, devices=1, num_nodes=1, **kind.batch)
    loss = replace(run.config.loss, kl_z=0.0)  # has no part in it, but checkpoints carry it
    settings = module_settings(run.info, replace(run.config, training=training, loss=loss))
    with lock_run(place):
        start = newest_checkpoint(place, settings)
        module = kind(**settings).attach(suite)
        keeper = train_module(module, place, start, progress)
    network = module.evaluated.cpu().eval().requires_grad_(False)
    prefix = "model."
    weights = load_file(place / "best.safetensors")
    network.load_state_dict({k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)})
    return network, keeper.seconds()
