"""What a new slice costs: our flows against a diffusion model of a thousand steps.

The U-Net has the size that Diffusion-HMC publishes (Mudur, Cuesta-Lazaro & Finkbeiner 2024, arXiv:2405.05255: width 64,
multipliers 1, 2, 4, 8), without attention. One step is timed, at the same batch, and taken a thousand times.
"""

from itertools import pairwise
from pathlib import Path

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from uvae_lib.generation.flows import Flows, flows_of
from uvae_lib.generation.sample import sample_slices
from uvae_lib.presets import PRESETS
from uvae_lib.runs.run import Run, build

from .measure import interleaved, summary

N_SLICES, DIFFUSION_STEPS, WIDTHS, EMBEDDED = 16, 1000, (64, 128, 256, 512), 256


class Block(nn.Module):
    """Two convolutions with group normalisation, shifted by the embedding of the step, beside a shortcut."""

    def __init__(self, n_in: int, n_out: int):
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(8, n_in), nn.Conv2d(n_in, n_out, 3, padding=1)
        self.norm2, self.conv2 = nn.GroupNorm(8, n_out), nn.Conv2d(n_out, n_out, 3, padding=1)
        self.shift, self.shortcut = nn.Linear(EMBEDDED, n_out), nn.Conv2d(n_in, n_out, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        out = self.conv1(F.silu(self.norm1(x))) + self.shift(embedding)[..., None, None]
        return self.shortcut(x) + self.conv2(F.silu(self.norm2(out)))


class DiffusionUNet(nn.Module):
    """Noise of a map, given the step: two blocks a level down, two in the middle, two a level up."""

    def __init__(self, widths: tuple[int, ...] = WIDTHS):
        super().__init__()
        pairs = list(pairwise((widths[0], *widths)))
        self.first, self.last = nn.Conv2d(1, widths[0], 7, padding=3), nn.Conv2d(widths[0], 1, 1)
        self.embed = nn.Sequential(nn.Linear(1, EMBEDDED), nn.SiLU(), nn.Linear(EMBEDDED, EMBEDDED))
        self.down = nn.ModuleList(nn.ModuleList([Block(a, b), Block(b, b)]) for a, b in pairs)
        self.middle = nn.ModuleList(Block(widths[-1], widths[-1]) for _ in range(2))
        self.up = nn.ModuleList(nn.ModuleList([Block(2 * b, b), Block(b, a)]) for a, b in reversed(pairs))

    def forward(self, x: Tensor, step: Tensor) -> Tensor:
        """x (n, 1, H, H), step (n, 1) -> (n, 1, H, H)."""
        x, embedding, kept = self.first(x), self.embed(step), []
        for i, level in enumerate(self.down):
            x = F.avg_pool2d(x, 2) if i else x
            for block in level:
                x = block(x, embedding)
            kept.append(x)
        for block in self.middle:
            x = block(x, embedding)
        for i, level in enumerate(self.up):
            x = torch.cat([F.interpolate(x, scale_factor=2) if i else x, kept.pop()], dim=1)
            for block in level:
                x = block(x, embedding)
        return self.last(x)


def untrained_run() -> Run:
    """A run of the note preset with its flows, all weights random: as dear as a trained one."""
    config = PRESETS["note"]
    side = config.simulation.side
    model = build(config, side).eval()
    flows = Flows(model, config.flows, periodic=True).eval()
    model, flows = (net.to(memory_format=torch.channels_last).requires_grad_(False) for net in (model, flows))
    box = config.simulation.box_size
    return Run(Path(), model, config, {}, 0.0, 1.0, box, side, pd.DataFrame(), {}, {"flows": flows})


def seconds_a_slice(scale, folder) -> dict:
    """(h) Seconds of a new slice of 128^2, 16 at a time, float32: of a new universe by our flows, and by diffusion."""
    run = untrained_run()
    network = DiffusionUNet().eval().to(memory_format=torch.channels_last)
    noise = torch.randn(N_SLICES, 1, *[run.config.data.image_size] * 2).to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def step(number: int) -> Tensor:
        return network(noise, torch.full((N_SLICES, 1), float(number)))

    functions = {
        "ours": lambda number: sample_slices(run, None, N_SLICES, torch.Generator().manual_seed(number)),
        "a step of diffusion": step,
    }
    times = summary(interleaved(functions, scale.draws, warm_up=1))
    ours, one = (times[name]["median"] / 1000 / N_SLICES for name in functions)
    return {
        "ours [s]": ours,
        "ODE steps": flows_of(run).n_steps,
        "diffusion [s]": DIFFUSION_STEPS * one,
        "parameters of the U-Net [M]": sum(p.numel() for p in network.parameters()) / 1e6,
        "times [ms]": times,
    }


def row(found: dict) -> tuple[str, str, str, bool]:
    """The row of the table."""
    ours, diffusion = found["ours [s]"], found["diffusion [s]"]
    what = (
        f"seconds a new slice of 128^2, {N_SLICES} at a time: our flows ({found['ODE steps']} steps) / "
        f"{DIFFUSION_STEPS} steps of a diffusion U-Net ({found['parameters of the U-Net [M]']:.0f} M parameters)"
    )
    met = ours <= 0.25 and ours <= 0.01 * diffusion
    return what, "<= 0.25 s, a hundredth", f"{ours:.3f} s / {diffusion:.0f} s", met
