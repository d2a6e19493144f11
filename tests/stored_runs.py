"""Run folders that are written without any training."""

import json
from dataclasses import replace
from pathlib import Path

from uvae_lib.cubes.suite import open_data
from uvae_lib.presets import SMOKE, Config, to_dict


def smoke_config(data: Path, **training) -> Config:
    """The smoke preset on other cubes; `training` replaces fields of TrainConfig."""
    return replace(SMOKE, data=replace(SMOKE.data, path=str(data)), training=replace(SMOKE.training, **training))


def write_run(folder: Path, data: Path, config: Config | None = None, **info) -> Path:
    """Write run.json of a run on six cubes, without any weights; `info` replaces what stands in it."""
    config = config or smoke_config(data)
    suite = open_data(config.data)
    found = {
        "config": to_dict(config),
        "side": suite.side,
        "box_size": float(suite.box_size),
        "mean": 0.0,
        "std": 1.0,
        "split": {"train": [0, 1, 2, 3], "val": [4], "test": [5]},
        "pool_size": 4,
        "finished": True,
        "fingerprint": suite.fingerprint,
    } | info
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(json.dumps(found))
    return folder
