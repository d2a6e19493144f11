"""A run on disk, and how it is read back without Lightning and without unpickling anything.

runs/NAME/run.json            configuration, split, standardisation, seeds, versions, commit, machine
runs/NAME/history.csv         one row every `log_every` steps
runs/NAME/best.safetensors    weights with the lowest validation loss;  last.safetensors: the final ones
runs/NAME/flows.safetensors   networks that complete what the model draws, where they were trained
runs/NAME/checkpoints/        what a resumed training needs
"""

import gzip
import hashlib
import json
import platform
import re
import subprocess
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.torch import load, load_file, save
from torch import Tensor, nn

from ..cropping import log_density
from ..cubes.suite import CubeSuite, open_data
from ..files import lock_folder, write_atomically
from ..model import UniverseVAE
from ..presets import Config, from_dict, locate, to_dict

PACKAGE = "uvae-lib"
SPLITS = ("train", "val", "test")
NEEDED = {"config", "side", "box_size", "mean", "std", "split", "pool_size", "finished", "fingerprint"}  # in run.json
FREE = (  # fields that may change in a run
    "simulation.", "data.path", "data.params", "data.check", "data.pool_", "training.accelerator",
    "training.devices", "training.num_nodes", "training.steps", "flows.",
)  # fmt: skip
FLOWS = "flows.safetensors"


@dataclass
class Run:
    """A trained Universe VAE with everything that is needed to use it.

    model        in evaluation mode, on the CPU
    config       the configuration;  split: {"train", "val", "test"} -> cube indices
    mean, std    standardisation: pixels p = (x - mean) / std, x = log(y + eps)
    box_size     of the cubes [Mpc/h];  side [voxels]
    history      one row a logged step;  info: seeds, versions, commit, machine, cube names
    loaded       what was read of its folder since, by name
    """

    folder: Path
    model: UniverseVAE
    config: Config
    split: dict[str, list[int]]
    mean: float
    std: float
    box_size: float
    side: int
    history: pd.DataFrame
    info: dict
    loaded: dict = field(default_factory=dict)

    @property
    def periodic(self) -> bool:
        """Whether a slice is the whole periodic box."""
        return self.config.data.image_size == self.side

    @property
    def image_box(self) -> float:
        """Side of a slice [Mpc/h]."""
        return self.box_size * self.config.data.image_size / self.side

    def to_pixels(self, y: Tensor) -> Tensor:
        """Overdensity y -> standardised pixels, any shape."""
        return (log_density(y, self.config.data.eps) - self.mean) / self.std

    def to_log(self, pixels: Tensor) -> Tensor:
        """Standardised pixels -> x = log(y + eps), any shape."""
        return pixels.float() * self.std + self.mean

    def open_suite(self) -> CubeSuite:
        """The cubes of the run.

        Raises FileNotFoundError when they are gone, ValueError when they are not those that it was trained on.
        """
        if not (path := locate(self.config.data.path)).exists():
            raise FileNotFoundError(
                f"{path}, the cubes of {self.folder}, is not there; when they have moved, say where they are: "
                f"python -m uvae_lib evaluate --run {self.folder} --data.path NEW"
            )
        suite = open_data(self.config.data)
        check_same_cubes(suite, self.info, self.folder)
        return suite


def build(config: Config, side: int) -> UniverseVAE:
    """The model of a configuration, with new weights drawn from torch's global state.

    side   of the cubes [voxels]: convolutions wrap around where a slice is the whole box
    """
    size, model = config.data.image_size, config.model
    return UniverseVAE(size, pooling=model.pooling, circular=size == side, logvar_h=model.logvar_h)


def load_run(folder: str | Path, which: str = "best") -> Run:
    """Read a run folder, or the weights that come with the project: load_run("weights/note").

    folder   from the working directory, or else from the project's folder (`presets.locate`) or this package's checkout
    which    "best": the lowest validation loss;  "last": the final weights
    Raises FileNotFoundError for what is not there, ValueError for a file that is damaged or of another model.
    """
    places = Path(folder).expanduser(), locate(folder), Path(__file__).parents[2] / folder
    folder = next((place for place in places if place.exists()), places[1])
    info, config = read_info(folder)
    with torch.device("meta"):  # no weights are drawn: all come from the file
        model = build(config, info["side"])
    _load_weights(folder / f"{which}.safetensors", model)
    model.eval().to(memory_format=torch.channels_last).requires_grad_(False)
    constants = {name: info[name] for name in ("split", "mean", "std", "box_size", "side")}
    return Run(folder, model, config, **constants, history=_read_history(folder / "history.csv"), info=info)


@contextmanager
def lock_run(folder: Path) -> Iterator[None]:
    """Hold a run folder against a second training; clear away what a killed one left half written.

    The lock goes with the process, however that ends. Raises ValueError when another process holds it.
    """
    with lock_folder(folder, f"another process is training {folder}; wait for it, or use another --name"):
        for left in (*folder.glob(".*.tmp"), *folder.glob("checkpoints/.*.tmp")):
            left.unlink()
        yield


def read_info(folder: Path) -> tuple[dict, Config]:
    """run.json and the configuration in it. Raises FileNotFoundError or ValueError, with what to do."""
    path = folder / "run.json"
    if not path.is_file():
        raise FileNotFoundError(_no_run(folder))
    advice = "restore it, or train under another --name"
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
        advice = _newer(info.get("versions", {}).get(PACKAGE, "0")) or advice
        if missing := sorted(NEEDED - set(info)):
            raise ValueError(f"it has no {', '.join(missing)}")
        return info, from_dict(info["config"])
    except (ValueError, TypeError, AttributeError) as error:  # JSON and UTF-8 errors are ValueErrors
        raise ValueError(f"{path} cannot be used: {error}; {advice}") from error


def _no_run(folder: Path) -> str:
    """What stands in place of a run folder, and which runs there are."""
    inside = ", ".join(sorted(path.name for path in folder.glob("[!.]*"))[:4]) or "nothing in it"
    why = f"it has no run.json (with {inside})" if folder.is_dir() else "there is no such folder with a run.json in it"
    paths = [path.parent for home in ("runs", "weights") for path in sorted(locate(home).glob("*/run.json"))]
    others = ", ".join(f"{path.parent.name}/{path.name}" for path in paths)
    advice = "train one with `python -m uvae_lib train`" + (f", or take one of {others}" if others else "")
    return f"{folder} is no run: {why}; {advice}"


def _newer(made: str) -> str:
    """A sentence when a run was made by a later version of this package, else nothing."""
    have = version(PACKAGE)
    newer = [int(n) for n in re.findall(r"\d+", made)] > [int(n) for n in re.findall(r"\d+", have)]
    return f"it was made by version {made} of {PACKAGE}, this is {have}: update (git pull, make setup)" * newer


def _load_weights(path: Path, model: nn.Module) -> None:
    """Fill a model from a safetensors file, in float32; safetensors hold numbers and nothing that could run."""
    packed = path.with_name(f"{path.name}.gz")  # as shipped runs have it
    if not path.exists() and not packed.exists():
        raise FileNotFoundError(f"{path.parent} holds no {path.name}: no validation was finished; train it further")
    try:
        weights = load_file(path) if path.exists() else load(gzip.decompress(packed.read_bytes()))
    except (SafetensorError, OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is damaged, or no safetensors file: {error}; restore it, or train again") from error
    weights = {name: value.float() if value.is_floating_point() else value for name, value in weights.items()}
    try:
        nn.ModuleDict({"model": model}).load_state_dict(weights, assign=True)
    except RuntimeError as error:
        reasons = str(error).splitlines()[1:]
        raise ValueError(
            f"{path} holds the weights of another model than {path.parent}/run.json describes "
            f"({len(reasons)} differences: {reasons[0].strip()[:200]}); put the file that belongs to it there"
        ) from error


def _read_history(path: Path) -> pd.DataFrame:
    """history.csv with the very numbers that were written; an empty table when there is none."""
    if not path.exists():
        return pd.DataFrame()
    try:
        return pd.read_csv(path, dtype=str).astype(float).astype({"step": int})
    except (ValueError, KeyError) as error:  # rows that are too long, short or no numbers
        raise ValueError(f"{path} is damaged ({error}); restore it, or remove it") from error


def rounded(model: nn.Module, dtype: torch.dtype | None) -> dict[str, Tensor]:
    """State of a model on the CPU, its parameters in dtype: buffers hold measured numbers, in which digits cancel."""
    state, parameters = model.state_dict(), dict(model.named_parameters())
    return {name: x.to("cpu", dtype if name in parameters else None).contiguous() for name, x in state.items()}


def weights_as_bytes(model: nn.Module, dtype: torch.dtype | None = None) -> bytes:
    """A model in the safetensors format; parameters in dtype where one is given, buffers as they are."""
    return save({f"model.{name}": value for name, value in rounded(model, dtype).items()})


def weights_key(run: Run, *settings, dtype: torch.dtype | None = None) -> str:
    """Digest of a model's weights and of settings (JSON values), to know again what was computed with them.

    dtype  that the weights are rounded to; of bfloat16, an exported run has the same digest
    """
    digest = hashlib.blake2b(json.dumps(settings).encode(), digest_size=16)
    digest.update(weights_as_bytes(run.model, dtype))
    return digest.hexdigest()


def write_info(folder: Path, info: dict) -> None:
    """Write run.json."""
    write_atomically(folder / "run.json", json.dumps(info, indent=1))


def differences(found: Config, asked: Config) -> list[str]:
    """The fields in which two configurations differ, those aside that do not change what a run is."""
    old, new = (pd.json_normalize(to_dict(config)).to_dict("records")[0] for config in (found, asked))
    return [f"{k}={new[k]!r} (was {old[k]!r})" for k in new if old[k] != new[k] and not k.startswith(FREE)]


def move_data(folder: str | Path, path: str | Path) -> None:
    """Say where the cubes of a run are now; run.json keeps it.

    Raises ValueError when they are not those that it was trained on.
    """
    folder = Path(folder)
    info, config = read_info(folder)
    check_same_cubes(open_data(replace(config.data, path=str(path))), info, folder)
    info["config"]["data"]["path"] = str(path)
    write_info(folder, info)


def check_same_cubes(suite: CubeSuite, info: dict, folder: Path) -> None:
    """Raise ValueError when a suite is not the one that a run was trained on."""
    found = (suite.n_cubes, suite.side, float(suite.box_size))
    expected = (sum(len(info["split"][part]) for part in SPLITS), info["side"], info["box_size"])
    if found != expected:
        raise ValueError(
            f"{suite.source} has {found[0]} cubes of {found[1]}^3 in {found[2]:g} Mpc/h; {folder} was trained on "
            f"{expected[0]} of {expected[1]}^3 in {expected[2]:g} Mpc/h; give the same suite, or another run name"
        )
    if info["fingerprint"]["cubes"] != suite.fingerprint["cubes"]:
        raise ValueError(
            f"{suite.source} holds other cubes than those that {folder} was trained on: as many and as large, with "
            "other numbers; give the same suite, or another run name"
        )


def provenance() -> dict:
    """Versions, commit and machine, to write beside results."""
    packages = (PACKAGE, "torch", "torchvision", "lightning", "numpy")
    versions = {"python": platform.python_version(), **{p: version(p) for p in packages}}
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    machine = f"{platform.machine()}, {torch.get_num_threads()} threads, {device}"
    return {"versions": versions, "commit": _commit(), "machine": machine}


def _commit() -> str:
    """The commit of the checkout that this package runs from, "+" when it is changed; "unknown" outside git."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+", "--abbrev=10"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (FileNotFoundError, subprocess.CalledProcessError):
        return "unknown"
