"""A run as it is shipped: small, and read back by `load_run`."""

import gzip
from pathlib import Path

import torch

from ..files import write_atomically
from ..runs.run import FLOWS, load_run, weights_as_bytes
from .flows import flows_as_bytes, flows_of


def export_run(folder: str | Path, to: str | Path) -> list[Path]:
    """Copy a run for others: its parameters in bfloat16, run.json, history and results; no checkpoints.

    With gzip 40 % of the bytes of float32; `load_run` reads them so. Returns the files, all in the folder `to`.
    """
    run, to, packed = load_run(folder), Path(to), "best.safetensors.gz"
    weights = weights_as_bytes(run.model, torch.bfloat16)
    write_atomically(to / packed, gzip.compress(weights, compresslevel=6, mtime=0))
    if flows := flows_of(run):
        write_atomically(to / FLOWS, flows_as_bytes(flows, torch.bfloat16))
    names = ("run.json", "history.csv", "metrics.json", "baselines.json", "posterior.safetensors")
    kept = [name for name in names if (run.folder / name).exists()]
    for name in kept:
        write_atomically(to / name, (run.folder / name).read_bytes())
    return [to / name for name in (packed, *([FLOWS] if flows_of(run) else []), *kept)]
