"""A tiny suite of cubes in the CAMELS layout, and the shortest configuration that trains on it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from uvae_lib.presets import Config, DataConfig, LossConfig, ModelConfig, TrainConfig

SIDE = 32


def lognormal_suite(folder: Path, n_cubes: int = 6, side: int = SIDE, seed: int = 0) -> Path:
    """Write periodic lognormal cubes of different clustering strength as an LH set; returns the folder."""
    rng = np.random.default_rng(seed)
    k2 = sum(np.meshgrid(*[np.fft.fftfreq(side) ** 2] * 3, indexing="ij"))
    strength = np.linspace(0.6, 1.2, n_cubes)
    cubes = np.empty((n_cubes, side, side, side), np.float32)
    for cube, sigma in zip(cubes, strength, strict=True):
        noise = np.fft.fftn(rng.standard_normal((side, side, side)))
        field = np.fft.ifftn(noise / np.maximum(k2, side**-2) ** 0.75).real
        y = np.exp(sigma * field / field.std())
        cube[:] = y / y.mean()
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / f"Grids_Mcdm_IllustrisTNG_LH_{side}_z=0.0.npy", cubes)
    table = np.stack([np.full(n_cubes, 0.3), strength], axis=1)
    np.savetxt(folder / "params_LH_IllustrisTNG.txt", table, header="Omega_m sigma_8")
    return folder


def gaussian_noise(n: int, size: int, power: Callable, seed: int = 0) -> torch.Tensor:
    """Gaussian fields (n, 1, size, size) whose |FFT|^2 (unitary) is on average power(round(|k| / k_f))."""
    white = torch.randn(n, 1, size, size, generator=torch.Generator().manual_seed(seed))
    k = torch.hypot(torch.fft.fftfreq(size, 1 / size)[:, None], torch.arange(size // 2 + 1.0)).round()
    return torch.fft.irfft2(torch.fft.rfft2(white) * power(k).sqrt(), s=(size, size))


def tiny_config(path: Path, *, model: dict | None = None, loss: dict | None = None, **training) -> Config:
    """32-pixel slices, float32, 2 sets of 3 slices a step; `training` replaces fields of TrainConfig."""
    shortest = TrainConfig(steps=6, set_size=3, sets_per_step=2, lr=5e-4, precision="float32", val_every=3)
    return Config(
        name="tiny",
        data=DataConfig(path=str(path), image_size=SIDE, test_fraction=0.34),
        model=ModelConfig(**({"logvar_h": -4.0} | (model or {}))),
        loss=LossConfig(**({"kl_h": 10.0} | (loss or {}))),
        training=replace(shortest, **training),
    )
