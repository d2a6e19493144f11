"""Cubes as people bring them: small periodic fields, and the ways in which they are written."""

import h5py
import numpy as np

N, SIDE = 4, 16
SAID = {"box_size": 50.0, "field_type": "density"}


def lognormal_cubes(n=N, side=SIDE, seed=0):
    """Periodic cubes with structure on all scales: (n, side, side, side) float64, mean 1, never negative."""
    rng = np.random.default_rng(seed)
    k = np.sqrt(sum(np.meshgrid(*[np.fft.fftfreq(side) ** 2] * 3, indexing="ij")))
    noise = np.fft.fftn(rng.standard_normal((n, side, side, side)), axes=(1, 2, 3))
    field = np.fft.ifftn(noise / np.maximum(k, 1 / side) ** 1.5, axes=(1, 2, 3)).real
    y = np.exp(field / field.std())
    return y / y.mean(axis=(1, 2, 3), keepdims=True)


def write_cmd(folder, cubes, suite="IllustrisTNG", set_name="LH", field="Mcdm", z="0.0", dtype="f4", scale=1e10):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"Grids_{field}_{suite}_{set_name}_{cubes.shape[-1]}_z={z}.npy"
    np.save(path, (cubes * scale).astype(dtype))
    return path


def write_quijote(folder, cubes, numbers, name="df_m_16_PCS_z=0.npy"):
    for number, y in zip(numbers, cubes, strict=True):
        (folder / str(number)).mkdir(parents=True, exist_ok=True)
        np.save(folder / str(number) / name, (y - 1).astype("f4"))
    return folder


def write_hdf5(path, arrays, **attributes):
    """Data sets by name into a new or an old file, attributes "group:name" or "name" at its root."""
    with h5py.File(path, "a") as file:
        for name, values in arrays.items():
            file[name] = values
        for name, value in attributes.items():
            group, _, key = name.rpartition(":")
            (file[group] if group in file else file.create_group(group) if group else file).attrs[key] = value
    return path


def write_npy(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, values)
    return path


def write_folder(folder, arrays):
    """`.npy` files by name; returns the folder."""
    for name, values in arrays.items():
        write_npy(folder / f"{name}.npy", values)
    return folder


def snapshots(y, n=2):
    """One universe at several times: the same structures, with less and less contrast."""
    return [y ** (0.5**i) / np.mean(y ** (0.5**i)) for i in range(n)]
