"""What makes the model learn: the same data and the same number of slices for every arm, two seeds each.

    python -m tests.benchmarks.study [--slices 2400] [--seeds 0 1] [--arms plain circular ...] [--data data/demo]

Each arm is the one above it with one thing changed (linear with the loss weights and the learning rate that go with
it). It writes build/study/results.json after each run (arms that are there already are not run again) and prints a
table: unexplained variance and KLs on held-out cubes.
"""

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch

from uvae_lib.files import write_atomically
from uvae_lib.presets import Config, DataConfig, LossConfig, ModelConfig, TrainConfig, locate
from uvae_lib.training import fit

PLAIN = Config(
    name="study",
    data=DataConfig(val_fraction=0.125, test_fraction=0.125),
    model=ModelConfig(logvar_h=-4.0, logvar_z=-3.0),
    loss=LossConfig(kl_h=10.0, kl_warmup=200),
    training=TrainConfig(set_size=4, sets_per_step=2, lr_warmup=30, log_every=50),
)


def changed(config: Config, **parts: dict) -> Config:
    """A configuration with some fields of its parts replaced: changed(c, model={"norm": "group"})."""
    return replace(config, **{part: replace(getattr(config, part), **fields) for part, fields in parts.items()})


CIRCULAR = changed(PLAIN, model={"circular": True})
GROUP = changed(CIRCULAR, model={"norm": "group"})
ZERO = changed(GROUP, model={"zero_init": True})
LINEAR = changed(
    ZERO, model={"linear": True, "logvar_h": -5.0, "logvar_z": -1.0}, loss={"kl_h": 100.0}, training={"lr": 1e-3}
)
ARMS = {
    "plain": PLAIN,
    "circular": CIRCULAR,
    "circular, group": GROUP,
    "circular, group, zero": ZERO,
    "linear": LINEAR,
    "linear, noise_of_z": changed(LINEAR, loss={"noise_of_z": 0.2}),
    "... lr 1e-3": changed(ZERO, training={"lr": 1e-3}),
    "... 24 slices a step": changed(ZERO, training={"sets_per_step": 6}),
    "... 4 slices a step": changed(ZERO, training={"sets_per_step": 1}),
    "... sets of 8": changed(ZERO, training={"set_size": 8, "sets_per_step": 1}),
    "... gaussian": changed(ZERO, loss={"likelihood": "gaussian", "kl_h": 1.0, "kl_z": 0.01}),
    "... spectral": changed(ZERO, loss={"likelihood": "spectral", "kl_h": 1.0, "kl_z": 0.01}),
    "... wide start": changed(ZERO, model={"logvar_h": 0.0, "logvar_z": 0.0}),
    "... kl_h 100": changed(ZERO, loss={"kl_h": 100.0}),
    "... no augmentation": changed(ZERO, data={"augment": False}),
    "... clip 1": changed(ZERO, training={"clip": 1.0}),
}


def run_arm(config: Config, slices: int, seed: int, data: str) -> dict[str, float]:
    """Train on so many slices and return the last row of the history."""
    train = config.training
    steps = slices // (train.set_size * train.sets_per_step)
    config = changed(
        config, training={"steps": steps, "val_every": steps, "save_every": steps, "seed": seed}, data={"path": data}
    )
    with tempfile.TemporaryDirectory() as folder:
        run = fit(config, Path(folder) / "run", progress=False)
        return {"steps": steps} | run.history.iloc[-1].to_dict() | {"seconds": run.info["seconds"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slices", type=int, default=2400, help="slices that each arm sees")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--data", default="data/demo")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    path = locate("build/study/results.json")
    for arm in options.arms:
        for seed in options.seeds:
            key = f"{arm} | {options.slices} slices | seed {seed}"
            results = json.loads(path.read_text()) if path.exists() else {}
            if key in results:
                continue
            found = run_arm(ARMS[arm], options.slices, seed, options.data)
            results = json.loads(path.read_text()) if path.exists() else {}  # another process may have added to it
            write_atomically(path, json.dumps(results | {key: {"arm": arm, "seed": seed} | found}, indent=1))
            print(f"{key}: held-out unexplained variance {found['val_fvu']:.3f}", flush=True)
    table = pd.DataFrame(json.loads(path.read_text()).values())
    columns = ["val_fvu", "fvu", "val_kl_z", "val_kl_h", "active_h", "seconds"]
    print(table.groupby("arm", sort=False)[columns].mean().round(3).to_string())


if __name__ == "__main__":
    main()
