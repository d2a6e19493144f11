"""All configuration: frozen dataclasses, whose defaults are the note, and presets that are values of them.

note    the numbers and pictures that are shown: 1000 cubes, 300,000 slices, hours on two cores
demo    the same model in a quarter to half of an hour: 64 cubes of 128^3
plain   demo without a taught start, for comparison
smoke   tests and CI: 32-pixel slices of six small cubes, seconds
cmd     CAMELS Multifield Dataset, Mcdm LH at 128^3, for one GPU
"""

import json
import math
import os
import re
import shlex
from contextlib import redirect_stderr
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from hashlib import sha256
from io import StringIO
from pathlib import Path
from typing import Literal, get_args, get_origin

PARAMETERS = ("Omega_m", "sigma_8")  # of a cosmology, as columns of a suite's params


@dataclass(frozen=True)
class SimulationConfig:
    """The simulated suite."""

    side: int = 128
    """Voxels, and particles, along an edge."""
    box_size: float = 128.0
    """[Mpc/h]"""
    n_lh: int = 64
    """Cubes with cosmologies from a Latin hypercube."""
    n_cv: int = 0
    """Cubes of one cosmology with different phases."""
    n_1p: int = 0
    """Cubes of one phase with one parameter moved at a time."""
    n_steps: int = 16
    """Steps from a = 0.1 to a = 1."""
    seed: int = 0

    @property
    def n_cubes(self) -> int:
        """Cubes of all sets; a preset without any is one for public cubes."""
        return self.n_lh + self.n_cv + self.n_1p


@dataclass(frozen=True)
class DataConfig:
    """The cubes and how slices are cut."""

    path: str = "data/demo"
    """A folder or file that `open_cubes` understands."""
    set_name: str | None = None
    """LH, CV, 1P, ... where names have several sets; LH when absent; train or test where they have these."""
    redshift: float | None = None
    """Of several snapshots, as it stands in the names; of CAMELS and Quijote the lowest when absent."""
    field: str | None = None
    """Of several fields (Mcdm when absent in CAMELS), files or data sets: a name or a pattern."""
    box_size: float | None = None
    """Side of a cube [Mpc/h], where neither a documented name nor a unit in the file tells it."""
    field_type: Literal["density", "delta", "overdensity", "counts"] | None = None
    """What the numbers are, where no documented name tells it."""
    params: str | None = None
    """Table of parameters, "attributes" of the cubes, or "none"."""
    line_of_sight: Literal[0, 1, 2, "none"] | None = None
    """Axis along which redshift space is distorted: slices are cut across it."""
    image_size: int = 128
    """Pixels along a slice: 32, 64, 128, 256 or 512."""
    thickness: int = 1
    """Planes averaged in a slice [voxels]."""
    eps: float = 1e-8
    """Of x = log(y + eps)."""
    test_fraction: float = 0.1
    """Of the universes, kept for tests; half as many are for validation."""
    storage: Literal["float32", "float16", "bfloat16"] = "float32"
    """How cubes are held on the device."""
    pool_size: int | None = None
    """Cubes held at a time; as many as fit when absent. Draws depend on it."""


@dataclass(frozen=True)
class ModelConfig:
    """The networks: the defaults are the note's. Where a slice is the whole periodic box, convolutions wrap around."""

    pooling: Literal["sum", "mean", "precision"] = "sum"
    """How a set becomes z (`model.DeepSet`)."""
    logvar_h: float = 0.0
    """Start of the log-variance of h's posterior."""


@dataclass(frozen=True)
class LossConfig:
    """The weights of the note's loss."""

    kl_z: float = 1.0
    """Of KL(z), which is a mean over dimensions."""
    kl_h: float = 1.0
    """Of KL(h), likewise."""


@dataclass(frozen=True)
class TrainConfig:
    """The optimisation."""

    steps: int = 1000
    taught_steps: int = 0
    """Steps of a taught start (`training.start`); 0: the note's loss from the first step on."""
    set_size: int = 4
    """Slices of a set: each is a target, given a random number of the others."""
    sets_per_step: int = 6
    lr: float = 1e-3
    ema: float = 0.0
    """Decay of the average of the weights that is kept for evaluation; 0 keeps none."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """auto: bfloat16 autocast where the hardware multiplies it."""
    seed: int = 0
    val_every: int = 100
    """Steps between validations, after each of which the run is saved; it is logged ten times as often."""
    accelerator: Literal["auto", "cpu", "gpu", "mps"] = "auto"
    """auto: the GPU of this machine where it has one."""
    devices: int = 1
    num_nodes: int = 1


@dataclass(frozen=True)
class FlowConfig:
    """The flows that complete what a trained model draws (`generation.flows`), and their training."""

    width: int = 16
    """Channels of the slices' network at full resolution; deeper levels have up to 8 times as many."""
    steps: int = 3000
    """Of training, each on as many slices as a step of the run."""


@dataclass(frozen=True)
class Config:
    """One run: everything that decides its numbers."""

    name: str = "demo"
    simulation: SimulationConfig = field(default_factory=SimulationConfig)
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    training: TrainConfig = field(default_factory=TrainConfig)
    flows: FlowConfig = field(default_factory=FlowConfig)

    def __post_init__(self):
        """Refuse numbers and names that no run can have, with the name of the field. Raises ValueError.

        Counts are 1 or more, sizes and rates above 0, averages and fractions in [0, 1); other numbers are not negative,
        except logarithms (logvar_).
        """
        if not self.name.strip(". ") or set(self.name) & set("/\\"):
            raise ValueError(f'found name="{self.name}"; expected the name of a folder in runs/, e.g. --name first')
        if (size := self.training.set_size) < 2:
            raise ValueError(f"found training.set_size={size}; a target needs context: use at least 2")
        for section, part in vars(self).items():
            for f in fields(part) if is_dataclass(part) else ():
                value, choices = getattr(part, f.name), get_args(f.type)
                if get_origin(f.type) is Literal and value not in choices:
                    raise ValueError(f'found {f.name}="{value}"; expected one of {", ".join(choices)}')
                if isinstance(value, bool) or not isinstance(value, int | float) or f.name.startswith("logvar"):
                    continue
                fits, expected = next((rule for names, *rule in LIMITS if f.name in names), NOT_NEGATIVE)
                if not fits(value):
                    raise ValueError(f"found {section}.{f.name}={value}; expected {expected}")


COUNTS = "side n_steps image_size thickness pool_size steps set_size sets_per_step val_every devices num_nodes width"
LIMITS = (  # names of numbers, and what they have to be
    (COUNTS.split(), lambda value: value >= 1, "1 or more"),
    (("box_size", "eps", "lr"), lambda value: 0 < value < math.inf, "a number above 0"),
    (("ema", "test_fraction"), lambda value: 0 <= value < 1, "0 or more, less than 1"),
)
NOT_NEGATIVE = lambda value: 0 <= value < math.inf, "0 or more"  # all others


# What the note leaves open, chosen by measurement (docs/note.md has the table): 24 targets a step, of six universes,
# since batch normalisation sees no more of them; h's posterior starts narrow, so that the decoder sees its input at
# once; kl_h = 100 and kl_z = 1, the bound's weights of each other for 100 independent slices a cube; the evidence of
# slices adds up in z, so that more of them tell more.
CHOSEN = ModelConfig(pooling="precision", logvar_h=-4.0)
WEIGHTS = LossConfig(kl_z=1.0, kl_h=100.0)
DEMO = Config(
    name="demo",
    simulation=SimulationConfig(n_cv=8, n_1p=10),
    data=DataConfig(test_fraction=0.125),
    model=CHOSEN,
    loss=WEIGHTS,
    training=TrainConfig(steps=1600, taught_steps=700, ema=0.99),
    flows=FlowConfig(steps=700),
)
PLAIN = replace(DEMO, name="plain", training=replace(DEMO.training, taught_steps=0))
NOTE = replace(
    DEMO,
    name="note",
    simulation=SimulationConfig(n_lh=1000, n_cv=24, n_1p=22),
    data=DataConfig(path="data/note", storage="float16", test_fraction=0.1),
    training=TrainConfig(steps=12_500, taught_steps=800, ema=0.997, val_every=250),
    flows=FlowConfig(),
)
SMOKE = Config(
    name="smoke",
    simulation=SimulationConfig(side=32, box_size=32.0, n_lh=6, n_cv=2, n_1p=4, n_steps=3),
    data=DataConfig(path="data/smoke", image_size=32, test_fraction=0.34),
    model=CHOSEN,
    loss=WEIGHTS,
    training=TrainConfig(steps=12, taught_steps=3, set_size=3, sets_per_step=2, ema=0.9, val_every=6),
    flows=FlowConfig(width=8, steps=12),
)
# 1000 cubes of 128^3 in float16 are 4.2 GB on the GPU; a step of 256 slices is 1.9 TFLOP, so 50,000 steps are
# 9.5e16 FLOP: about half an hour at 60 TFLOP/s sustained, if the GPU reaches that (nothing was run on one).
CMD = replace(
    NOTE,
    name="cmd",
    simulation=SimulationConfig(n_lh=0),
    data=replace(NOTE.data, path="data/cmd"),
    training=TrainConfig(steps=50_000, taught_steps=1000, sets_per_step=64, ema=0.999, val_every=1000),
    flows=FlowConfig(width=32, steps=20_000),
)
PRESETS = {preset.name: preset for preset in (NOTE, DEMO, PLAIN, SMOKE, CMD)}


def load_preset(name: str | None = None) -> Config:
    """A preset by name, or by the environment variable UVAE_PRESET (default demo).

    UVAE_DATA replaces its data path, and joins its name: runs and figures of other cubes have folders of their own.
    UVAE_OPTIONS replaces further fields, written as on the command line: "--data.box-size 50 --data.field-type delta".

    Raises ValueError for a name that is none of them.
    """
    name = name or os.environ.get("UVAE_PRESET", "demo")
    if name not in PRESETS:
        raise ValueError(f'found preset "{name}"; expected one of {", ".join(PRESETS)}')
    preset = PRESETS[name]
    if path := os.environ.get("UVAE_DATA"):
        data = replace(preset.data, path=path)
        preset = replace(preset, name=_name_of_runs(name, path), data=data)
    if options := os.environ.get("UVAE_OPTIONS", "").strip():
        import tyro

        said = StringIO()
        try:
            with redirect_stderr(said):
                preset = tyro.cli(Config, default=preset, prog="UVAE_OPTIONS", args=shlex.split(options))
        except (ValueError, SystemExit) as error:
            words = str(error) if isinstance(error, ValueError) else re.sub(r"[^ -~]|-{3,}", " ", said.getvalue())
            raise ValueError(f"found UVAE_OPTIONS={options!r}: {' '.join(words.split())[:300]}") from None
    return preset


def _name_of_runs(name: str, path: str) -> str:
    """NAME-CUBES of the cubes at a path; a digest of the path follows where a run on other cubes has that name."""
    place = locate(path).resolve()
    name = f"{name}-{re.sub(r'[.][A-Za-z][A-Za-z0-9]*$', '', place.name)}"
    try:
        info = json.loads((locate("runs") / name / "run.json").read_text(encoding="utf-8"))
        other = locate(info["config"]["data"]["path"]).resolve()
    except (OSError, ValueError, KeyError, TypeError):
        return name
    same = other == place or not other.exists()  # cubes that have moved
    return name if same else f"{name}-{sha256(str(place).encode()).hexdigest()[:6]}"


def locate(path: str | Path) -> Path:
    """Where a path of a configuration is: a relative one is below UVAE_HOME, or else below the project's folder.

    That is the nearest folder with `uvae_lib` and `notebooks` in it, from the working directory upwards, or else the
    checkout that this package runs from: notebooks and commands share data/, runs/ and figures/ wherever one works.
    Outside the project, a relative path that exists from the working directory is that; a package that was installed
    without its checkout has the working directory. `~` is the home folder, and an absolute path stays.

    Raises ValueError for an address of another machine.
    """
    path, here = Path(path).expanduser(), Path.cwd()
    if re.match(r"[\w.@+-]{2,}:/", str(path)) and not path.exists():
        raise ValueError(f"found the address {path} of another machine; copy or mount the cubes and give a path here")
    if home := os.environ.get("UVAE_HOME"):
        return Path(home).expanduser() / path
    checkout = Path(__file__).resolve().parents[1]
    for folder in (here, *here.parents, *([] if path.exists() else [checkout])):
        if all((folder / part).is_dir() for part in ("uvae_lib", "notebooks")):
            return folder / path
    return here / path


def to_dict(config: Config) -> dict:
    """Plain nested values, for JSON."""
    return asdict(config)


def from_dict(values: dict, cls: type = Config):
    """The inverse of `to_dict`. Raises ValueError for a name that is no field."""
    known = {f.name: f for f in fields(cls)}
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise ValueError(f"{cls.__name__} has no field {', '.join(unknown)}; expected {', '.join(known)}")
    return cls(**{k: from_dict(v, known[k].type) if is_dataclass(known[k].type) else v for k, v in values.items()})
