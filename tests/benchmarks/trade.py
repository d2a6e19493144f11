"""Large scales against small ones: what a reconstruction gives up at low k for what it gains beyond its 512 modes.

    python -m tests.benchmarks.trade --run runs/reference [--weights 0 1 4 16] [--steps 300]

The run is trained on, at a fifth of its learning rate, with the squared error of the 512 largest modes counted 1 + w
times, and judged on the validation cubes. Points are kept in build/trade/points.json; the table goes to
tests/benchmarks/trade.md. w = 0 is the loss of the run itself: what more training alone brings.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import torch

from uvae_lib.analysis.features import encode_cubes
from uvae_lib.analysis.metrics import latent_metrics, reconstruction_metrics
from uvae_lib.files import write_atomically
from uvae_lib.presets import locate
from uvae_lib.runs.run import Run, load_run, provenance
from uvae_lib.training.checkpoints import newest_checkpoint
from uvae_lib.training.fit import LitUniverseVAE, module_settings
from uvae_lib.training.trainer import train_module

TABLE = Path(__file__).with_suffix(".md")


class LitTrade(LitUniverseVAE):
    """A run that is trained on with the large scales weighted by `extra`."""

    extra = 0.0

    def _forward(self, model, slices, step):
        self._last = output, img_h = super()._forward(model, slices, step)
        return output, img_h

    def _terms(self, *arguments):
        terms, latents = super()._terms(*arguments)
        output, img_h = self._last
        modes = torch.fft.rfft2((img_h.float() - output[0].float())[:, 0], norm="ortho").abs().square()
        size = modes.shape[-2]
        k = torch.hypot(torch.fft.fftfreq(size, 1 / size)[:, None], torch.fft.rfftfreq(size, 1 / size))
        counted_twice = torch.where((torch.arange(modes.shape[-1]) % (size // 2)) > 0, 2.0, 1.0)
        within = ((k < (self.config.model.latent_dim / torch.pi) ** 0.5) * counted_twice).to(modes.device)
        return terms | {"loss": terms["loss"] + self.extra * (modes * within).sum(dim=(1, 2)).mean()}, latents


def judged(run: Run) -> dict[str, float]:
    """Numbers of the table: a run on its validation cubes."""
    cubes = encode_cubes(run, run.open_suite(), run.split["val"], 15)
    found = reconstruction_metrics(cubes, cubes, run.image_box) | latent_metrics(cubes)
    return {name: found[name] for name in ("fvu", "k_r90", "kl_h")}


def point(run: Run, extra: float, steps: int) -> dict[str, float]:
    """`judged` after so many steps with this weight."""
    old = run.config.training
    training = replace(
        old, steps=steps, lr=old.lr / 5, lr_warmup=20, ema=0.98, val_every=steps, save_every=steps, seed=old.seed + 1
    )
    values = module_settings(run.info, replace(run.config, training=training))
    folder = locate("build/trade") / f"{extra:g}-{steps}"
    module = LitTrade(**values).attach(run.open_suite())
    module.extra = extra
    for model in filter(None, (module.model, module.average)):
        model.load_state_dict(run.model.state_dict())
    train_module(module, folder, newest_checkpoint(folder, values), progress=True)
    return judged(replace(run, model=module.evaluated.cpu().eval().requires_grad_(False)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=locate("runs/reference"))
    parser.add_argument("--weights", type=float, nargs="+", default=[0.0, 1.0, 4.0, 16.0])
    parser.add_argument("--steps", type=int, default=300)
    options = parser.parse_args()
    run, path = load_run(options.run), locate("build/trade/points.json")
    points = json.loads(path.read_text()) if path.exists() else {}
    if "the run itself" not in points:
        points["the run itself"] = judged(run)
    for extra in options.weights:
        key = f"w = {extra:g}, {options.steps} steps"
        if key not in points:
            points[key] = point(run, extra, options.steps)
            write_atomically(path, json.dumps(points, indent=1))
    lines = [
        f"`python -m tests.benchmarks.trade` wrote this at commit {provenance()['commit']}, from the run of commit",
        f"{run.info['commit']}: unexplained variance and the k up to which r(k) >= 0.9 on {len(run.split['val'])}",
        "validation cubes, after training on with the squared error of the 512 largest modes counted 1 + w times.",
        "",
        "| | FVU | r(k) >= 0.9 up to [h/Mpc] | KL(h) [nats] |",
        "|---|---|---|---|",
    ]
    lines += [f"| {name} | {x['fvu']:.3f} | {x['k_r90']:.3f} | {x['kl_h']:.0f} |" for name, x in points.items()]
    write_atomically(TABLE, "\n".join([*lines, ""]))
    print(TABLE.read_text())


if __name__ == "__main__":
    main()
