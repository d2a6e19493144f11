"""What Gaussian theory says of the responses: planes of a universe whose log density is a Gaussian field."""

import numpy as np
import torch
from torch import Tensor

from ..simulation.particle_mesh import linear_power
from ..statistics import power_spectrum


def lognormal_power(omega_m: float, sigma_8: float, size: int, box: float) -> tuple[Tensor, Tensor]:
    """P(k) of the log density of planes where that is Gaussian and the density has its linear spectrum.

    The correlation of the log density is then ln(1 + xi), xi that of the density (Coles & Jones 1991, MNRAS 248, 1,
    eq. 26). The linear spectrum is taken on the mesh of the cubes, with their cloud-in-cell window.

    size, box   of a plane [voxels], [Mpc/h]
    Returns k [h/Mpc] and P [(Mpc/h)^2], (n_k,) as `power_spectrum` has them.
    """
    k, power = linear_power(omega_m, sigma_8)
    waves = 2 * np.pi * np.fft.fftfreq(size)  # radians a voxel
    axes = np.meshgrid(waves, waves, waves, indexing="ij", sparse=True)
    length = np.sqrt(sum(axis**2 for axis in axes)) * size / box
    window = np.prod(np.broadcast_arrays(*(np.sinc(axis / (2 * np.pi)) ** 4 for axis in axes)), axis=0)
    length[0, 0, 0] = k[0]
    spectrum = np.exp(np.interp(np.log(length), np.log(k), np.log(power))) * window
    spectrum[0, 0, 0] = 0
    correlation = np.fft.ifftn(spectrum).real * (size / box) ** 3
    of_log = np.fft.fftn(np.log1p(correlation)).real * (box / size) ** 3
    plane = of_log.sum(axis=2).clip(min=0) / box  # planes cut the field: their modes are sums over the third axis
    field = np.fft.ifft2(np.sqrt(plane)).real * size**2 / box  # has this power in every mode
    return power_spectrum(torch.from_numpy(field), box)


def lognormal_response(asked: np.ndarray, weights: np.ndarray, names: list[str], size: int, box: float) -> list[float]:
    """dlnP/dtheta of `lognormal_power`: weights (v,) of the v rows (v, 2) of Omega_m and sigma_8 that are asked for."""
    at = [names.index(name) for name in ("Omega_m", "sigma_8")]
    power = torch.stack([lognormal_power(*row[at], size, box)[1] for row in np.asarray(asked)])
    return (torch.from_numpy(weights) @ power.log()).tolist()
