"""What a reader waits for: a picture when a slider moves, and imports."""

import io
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
import torch
from PIL import Image
from torch.nn.utils.fusion import fuse_conv_bn_eval

from uvae_lib.model import UniverseVAE

from .measure import interleaved, summary

EXPLORERS = ("runs", "latents", "plots", "widgets")  # modules of the library behind the sliders


def folded(decoder: torch.nn.Module) -> torch.nn.Module:
    """BatchNorm taken into the convolutions before it, where they follow each other in a chain of plain layers."""
    layers = decoder.layers
    for i in range(len(layers) - 1):
        if type(layers[i]) is torch.nn.Conv2d and isinstance(layers[i + 1], torch.nn.BatchNorm2d):
            layers[i], layers[i + 1] = fuse_conv_bn_eval(layers[i], layers[i + 1]), torch.nn.Identity()
    for block in layers:
        if isinstance(getattr(block, "bn1", None), torch.nn.BatchNorm2d):
            block.conv1, block.bn1 = fuse_conv_bn_eval(block.conv1, block.bn1), torch.nn.Identity()
    return decoder


def decoder_frame(decoder: torch.nn.Module, h: torch.Tensor, dtype: torch.dtype) -> Callable[[int], bytes]:
    """h to a PNG of 256 colours: what a slider shows."""
    palette = np.random.default_rng(0).integers(0, 256, 768).astype(np.uint8).tolist()

    def frame(number: int) -> bytes:
        with torch.inference_mode(), torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            x = decoder(h[number % len(h)][None])[0, 0]
        grey = (128 + 40 * x).clamp(0, 255).to(torch.uint8).numpy()
        picture, file = Image.fromarray(grey), io.BytesIO()
        picture.putpalette(palette)
        picture.save(file, "png")
        return file.getvalue()

    return frame


def frames(scale, folder) -> dict:
    """(e) One decoded picture in evaluation mode, in both precisions, with and without folded normalisation."""
    h, functions = torch.randn(16, 512), {}
    for fold in (False, True):
        decoder = UniverseVAE(scale.image_size).eval().to(memory_format=torch.channels_last).decoder_h
        decoder = folded(decoder) if fold else decoder
        for dtype in (torch.float32, torch.bfloat16):
            name = str(dtype).removeprefix("torch.") + (", folded" if fold else "")
            functions[name] = decoder_frame(decoder, h, dtype)
    times = interleaved(functions, scale.frames, warm_up=5)
    tails = {name: float(1e3 * np.quantile(t, 0.95)) for name, t in times.items()}
    chosen = min(("float32", "bfloat16"), key=tails.get)  # folded weights are no longer those of the run
    return {
        "chosen": chosen,
        "95th percentile [ms]": tails[chosen],
        "95th percentiles [ms]": tails,
        "times [ms]": summary(times),
    }


def import_times(scale, folder) -> dict:
    """(f) Seconds in fresh processes: torch, then the package, then the modules behind the explorers."""
    modules = [f"uvae_lib.{name}" for name in EXPLORERS if find_spec(f"uvae_lib.{name}")]
    code = (
        "import time; t = [time.perf_counter()]\n"
        + "".join(
            f"import {names}; t.append(time.perf_counter())\n" for names in ("torch", "uvae_lib", ", ".join(modules))
        )
        + "print(*(b - a for a, b in zip(t, t[1:])))"
    )
    seconds = []
    for _ in range(scale.imports + 1):  # the first fills the disk's cache
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        seconds.append([float(word) for word in done.stdout.split()])
    torch_alone, package, explorers = np.median(seconds[1:], axis=0)
    return {
        "import torch [s]": float(torch_alone),
        "import uvae_lib adds [s]": float(package),
        "explorers add [s]": float(explorers),
        "modules": modules,
    }
