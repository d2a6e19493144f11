"""A run as it is shipped: small, and with the slices that explorers open at once.

python -m tests.benchmarks.ship RUN FOLDER
"""

import argparse
import gzip
import io
from pathlib import Path

import numpy as np
import torch

from uvae_lib.files import write_atomically
from uvae_lib.generation.flows import flows_as_bytes, flows_of
from uvae_lib.runs.run import FLOWS, load_run, weights_as_bytes
from uvae_lib.runs.universes import FILE, Universes, encode_universes

KEPT = ("run.json", "history.csv", "metrics.json", "posterior.safetensors")


def ship_run(folder: str | Path, to: str | Path, n_slices: int = 12, n_shown: int = 2) -> list[Path]:
    """Copy a run for others: its parameters in bfloat16, run.json, history and results; no checkpoints.

    n_slices, n_shown   slices of each of so many held-out cubes, and of the fiducial one, go with it

    With gzip 40 % of the bytes of float32; `load_run` reads them so. Returns the files, all in the folder `to`.
    """
    run, to, packed = load_run(folder), Path(to), "best.safetensors.gz"
    weights = weights_as_bytes(run.model, torch.bfloat16)
    write_atomically(to / packed, gzip.compress(weights, compresslevel=6, mtime=0))
    if flows := flows_of(run):
        write_atomically(to / FLOWS, flows_as_bytes(flows, torch.bfloat16))
    kept = [name for name in KEPT if (run.folder / name).exists()]
    for name in kept:
        write_atomically(to / name, (run.folder / name).read_bytes())
    save_universes(encode_universes(run, run.open_suite(), n_slices, n_shown), to / FILE)
    return [to / name for name in (packed, *([FLOWS] if flows_of(run) else []), *kept, FILE)]


def save_universes(universes: Universes, path: Path) -> None:
    """Write universes for others, slices in float16, as numpy's compressed archive."""
    arrays = {
        "slices": universes.slices[:, :, 0], "mu": universes.z.mu, "logvar": universes.z.logvar,
        "kl_z": universes.kl["z"], "kl_h": universes.kl["h"],
    }  # fmt: skip
    arrays = {name: values.numpy() for name, values in arrays.items()}
    arrays["slices"] = arrays["slices"].astype(np.float16)
    arrays |= {"params": universes.params.to_numpy(np.float32), "names": np.array(list(universes.params), dtype="U")}
    arrays |= {"grid": np.array([universes.box_size, universes.side])}
    for name, (values, slices) in universes.twins.items():
        arrays |= {f"values_{name}": values, f"twins_{name}": slices[:, 0].numpy().astype(np.float16)}
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    write_atomically(path, file.getvalue())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a trained run")
    parser.add_argument("to", type=Path, help="folder to write to")
    for path in ship_run(*vars(parser.parse_args()).values()):
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
