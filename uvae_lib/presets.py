"""All configuration: frozen dataclasses, whose defaults are the note, and presets that are values of them.

note       exactly the note: its model, its loss, one target a set given three slices; as long as reference
smoke      tests and CI: 32-pixel slices of six small cubes, seconds
demo       first contact: 64 cubes of 128^3, minutes on two CPU cores
reference  the numbers and pictures that are shown: 1000 cubes, hours
cmd        CAMELS Multifield Dataset, Mcdm LH at 128^3, for one GPU
"""

import math
import os
import re
import shlex
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Literal, get_args, get_origin

PARAMETERS = ("Omega_m", "sigma_8")  # of a cosmology, as columns of a suite's params
RENAMED = {"linear": "fourier_start", "noise_of_z": "residual_spectrum"}  # fields of stored runs
DROPPED = {
    "free_bits": 0.0,
    "likelihood": "note",
    "least_context": None,
}  # fields of stored runs that are gone, with the one value that they may have


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
    processes: int = 2
    """Simulated side by side, one core and about 1 GB each at 128^3."""


@dataclass(frozen=True)
class DataConfig:
    """The cubes and how slices are cut."""

    path: str = "data/demo"
    """A folder or file that `open_cubes` understands."""
    set_name: str | None = None
    """LH, CV, 1P, ... where a folder holds several sets; LH when absent."""
    format: Literal["cmd-grids", "cmd-maps", "quijote", "hdf5", "npy"] | None = None
    """Layout of the files; found by name and content when absent."""
    field_type: Literal["density", "delta", "overdensity", "counts"] | None = None
    """What the numbers are; guessed from the first cube when absent."""
    box_size: float | None = None
    """Side of a cube [Mpc/h], when the files do not say, or say it wrongly."""
    params: str | None = None
    """Table of parameters, one row a cube; "none" goes without; looked for beside the cubes when absent."""
    dataset: str | None = None
    """Data set of the cubes in an HDF5 file."""
    field: str | None = None
    """Field of a CAMELS folder (Mcdm when absent), or file name where each simulation has a folder."""
    normalize: bool = True
    """Divide each cube by its own mean."""
    check: Literal["auto", "full", "sample", "none"] = "auto"
    """Cubes that are read for the check of a suite: all, 16 of them, none; auto samples suites above 8 GiB."""
    image_size: int = 128
    """Pixels along a slice: 32, 64, 128, 256 or 512."""
    thickness: int = 1
    """Planes averaged in a slice [voxels]."""
    eps: float = 1e-8
    """Of x = log(y + eps)."""
    augment: bool = True
    """Random quarter turns and mirror flips."""
    val_fraction: float = 0.1
    test_fraction: float = 0.1
    split_seed: int = 0
    storage: Literal["float32", "float16", "bfloat16"] = "float32"
    """How cubes are held on the device."""
    pool_memory: float | None = None
    """[GiB] for cubes on the device; 40 % of what is free when absent."""
    pool_size: int | None = None
    """Cubes held at a time; as many as fit when absent. Draws depend on it."""
    refresh: int = 8
    """Steps after which one of the cubes held is exchanged, when not all fit."""


@dataclass(frozen=True)
class ModelConfig:
    """The networks: the defaults are the note's, the rest are `variants`."""

    latent_dim: int = 512
    pooling: Literal["sum", "mean"] = "sum"
    norm: Literal["batch", "group"] = "batch"
    circular: bool | None = False
    """Convolutions wrap around. None: where a slice is the whole periodic box, the only place where it is right."""
    zero_init: bool = False
    """Residual blocks start as their shortcuts."""
    fourier_start: bool = False
    """Encoder and decoder start as the linear autoencoder of a slice's 512 largest modes, and learn what to add."""
    discriminants: int = 0
    """With fourier_start: linear discriminants of the training cubes that z reads in place of a slice's spectrum and
    moments, each as loud as the others (`variants.fourier`); 0: the spectrum and moments themselves."""
    logvar_h: float = 0.0
    """Start of the log-variance of h's posterior."""
    logvar_z: float = 0.0
    """Start of the log-variance of z's posterior."""


@dataclass(frozen=True)
class LossConfig:
    """The loss: the defaults are the note's."""

    kl_z: float = 1.0
    """Weight of KL(z), which is a mean over dimensions."""
    kl_h: float = 1.0
    """Weight of KL(h), likewise."""
    kl_warmup: int = 0
    """Steps over which both weights rise from zero."""
    residual_spectrum: float = 0.0
    """Weight of a nat of `ResidualSpectrumLoss`: z is asked for the spectrum of what reconstructions lack."""


@dataclass(frozen=True)
class TrainConfig:
    """The optimisation."""

    steps: int = 1000
    set_size: int = 4
    """Slices of a set: the target and its context."""
    sets_per_step: int = 6
    targets: Literal["all", "last"] = "all"
    """Each slice of a set as target with the others as context, or only the last, as the note writes it."""
    lr: float = 5e-4
    lr_warmup: int = 50
    """Steps of linear rise of the learning rate; a cosine fall to lr_end * lr follows."""
    lr_end: float = 0.02
    weight_decay: float = 0.01
    clip: float = 0.0
    """Largest norm of the gradient; 0 leaves it alone."""
    ema: float = 0.0
    """Decay of the average of the weights that is kept for evaluation; 0 keeps none."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """auto: bfloat16 autocast where the hardware multiplies it."""
    compile: bool = False
    """torch.compile, in place: minutes before the first step (more than four on two cores): for long runs on a GPU."""
    seed: int = 0
    log_every: int = 10
    val_every: int = 100
    save_every: int = 100
    accelerator: Literal["auto", "cpu", "gpu", "mps"] = "auto"
    """auto: the GPU of this machine where it has one."""
    devices: int = 1
    num_nodes: int = 1


@dataclass(frozen=True)
class FlowConfig:
    """The flows that complete what a trained model draws (`variants.flows`), and their training."""

    width: int = 16
    """Channels of the slices' network at full resolution; deeper levels have up to 8 times as many."""
    h_width: int = 48
    """Channels of the network of h's picture; deeper levels have up to twice as many."""
    ode_steps: int = 5
    """Midpoint steps of a draw, two calls of a network each."""
    steps: int = 3000
    """Of training."""
    batch: int = 16
    """Slices a step."""
    encoded: int = 256
    """Slices encoded at a time."""
    uses: int = 4
    """Of each of them, with other noise, before new ones are cut and encoded."""
    lr: float = 2e-3
    ema: float = 0.998
    """Decay of the average of the weights, which is what is kept."""
    save_every: int = 250


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
        """Refuse what cannot run, with the field's name. Raises ValueError."""
        for part in (self.data, self.model, self.loss, self.training):
            for f in fields(part):
                value, choices = getattr(part, f.name), get_args(f.type)
                if get_origin(f.type) is Literal and value not in choices:
                    raise ValueError(f'found {f.name}="{value}"; expected one of {", ".join(choices)}')
        train, model = self.training, self.model
        if model.discriminants and not model.fourier_start:
            raise ValueError(f"found model.discriminants={model.discriminants}; they need model.fourier_start=True")
        if train.set_size < 2:
            raise ValueError(f"found training.set_size={train.set_size}; a target needs context: use at least 2")


NOTE = Config(
    name="note",
    simulation=SimulationConfig(n_cv=8, n_1p=10),
    data=DataConfig(val_fraction=0.0625, test_fraction=0.125),
    training=TrainConfig(steps=6000, set_size=4, sets_per_step=2, targets="last", val_every=500, save_every=500),
)
# What departs from the note's plain settings, and what it gained (tests/benchmarks/study.py): encoder and decoder that
# start as the linear autoencoder of the 512 largest modes, so that training starts where PCA ends; convolutions that
# wrap where a slice is the whole periodic box; group normalisation, whose training and evaluation agree; residual
# blocks that start as their shortcuts; a narrow posterior of h at the start, so that the decoder sees its input at
# once; z asked for the spectrum of the residuals, which holds what it can know of the small scales; the mean over a
# set in place of the sum, which keeps the scale of z whatever the number of slices, so that a cube can be encoded from
# all that it has. Universes differ far more in the amplitude of their spectra than in anything else, and little is
# gained by the rest, so that a z that reads spectra as they are learns one direction, and sigma_8 at fixed Omega_m
# stays below the width of q(z). So z is told linear discriminants of equal size, its posterior starts narrow, and
# kl_z = 10 is about the ELBO's weight beside kl_h = 100 (notebook 3 derives it).
LEARNING = ModelConfig(
    pooling="mean", norm="group", circular=None, zero_init=True, fourier_start=True, discriminants=8, logvar_h=-5.0,
    logvar_z=-3.0,
)  # fmt: skip
SMOKE = Config(
    name="smoke",
    simulation=SimulationConfig(side=32, box_size=32.0, n_lh=6, n_cv=2, n_1p=4, n_steps=3),
    data=DataConfig(path="data/smoke", image_size=32, val_fraction=0.17, test_fraction=0.34),
    model=LEARNING,
    loss=LossConfig(kl_z=10.0, kl_h=100.0, kl_warmup=5, residual_spectrum=0.2),
    training=TrainConfig(
        steps=12, set_size=3, sets_per_step=2, lr=1e-3, lr_warmup=3, log_every=2, val_every=6, save_every=6, ema=0.9
    ),
    flows=FlowConfig(width=8, h_width=16, ode_steps=2, steps=12, batch=4, encoded=12, uses=2, ema=0.9, save_every=6),
)
DEMO = Config(
    name="demo",
    simulation=SimulationConfig(n_cv=8, n_1p=10),
    data=DataConfig(val_fraction=0.0625, test_fraction=0.125),
    model=LEARNING,
    loss=LossConfig(kl_z=10.0, kl_h=100.0, kl_warmup=100, residual_spectrum=0.2),
    training=TrainConfig(steps=800, sets_per_step=2, lr=1e-3, ema=0.99),
    flows=FlowConfig(steps=700, ema=0.99),
)
REFERENCE = Config(
    name="reference",
    simulation=SimulationConfig(n_lh=1000, n_cv=24, n_1p=22),
    data=DataConfig(path="data/reference", storage="float16", val_fraction=0.05, test_fraction=0.1),
    model=LEARNING,
    loss=LossConfig(kl_z=10.0, kl_h=100.0, kl_warmup=100, residual_spectrum=0.2),
    training=TrainConfig(steps=6000, set_size=8, sets_per_step=1, lr=1e-3, ema=0.997, val_every=500, save_every=500),
)
# 1000 cubes of 128^3 in float16 are 4.2 GB on the GPU; a step of 256 slices is 1.9 TFLOP, so 50,000 steps are
# 9.5e16 FLOP: about half an hour at 60 TFLOP/s sustained, if the GPU reaches that (nothing was run on one).
CMD = Config(
    name="cmd",
    data=DataConfig(path="data/cmd", storage="float16", val_fraction=0.05, test_fraction=0.1),
    model=LEARNING,
    loss=LossConfig(kl_z=10.0, kl_h=100.0, kl_warmup=1000, residual_spectrum=0.2),
    training=TrainConfig(
        steps=50_000, set_size=8, sets_per_step=32, lr=1e-3, ema=0.999, lr_warmup=1000, compile=True, val_every=1000,
        save_every=1000,
    ),
    flows=FlowConfig(width=32, h_width=64, steps=20_000, batch=128, encoded=4096, ema=0.999, save_every=1000),
)  # fmt: skip
PRESETS = {preset.name: preset for preset in (NOTE, SMOKE, DEMO, REFERENCE, CMD)}


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
        preset = replace(preset, name=f"{name}-{locate(path).resolve().stem}", data=data)
    if words := shlex.split(os.environ.get("UVAE_OPTIONS", "")):
        import tyro

        preset = tyro.cli(Config, default=preset, prog="UVAE_OPTIONS", args=words)
    return preset


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
    """The inverse of `to_dict`; fields of stored runs may have their former names.

    Raises ValueError for a name that is no field.
    """
    values = {RENAMED.get(name, name): value for name, value in values.items() if (name, value) not in DROPPED.items()}
    known = {f.name: f for f in fields(cls)}
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise ValueError(f"{cls.__name__} has no field {', '.join(unknown)}; expected {', '.join(known)}")
    return cls(**{k: from_dict(v, known[k].type) if is_dataclass(known[k].type) else v for k, v in values.items()})


COUNTS = {
    "side", "n_steps", "processes", "image_size", "thickness", "pool_size", "refresh", "latent_dim", "steps",
    "set_size", "sets_per_step", "log_every", "val_every", "save_every", "devices", "num_nodes", "width", "h_width",
    "ode_steps", "batch", "encoded", "uses",
}  # fmt: skip
POSITIVE = {"box_size", "pool_memory", "eps", "lr"}
SHARES = {"ema", "val_fraction", "test_fraction"}


def check_config(config: Config) -> None:
    """Refuse numbers and names that no run can have, with the name of the field. Raises ValueError.

    Counts are 1 or more, sizes and rates above 0, averages and fractions in [0, 1); other numbers are not negative,
    except logarithms (logvar_).
    """
    if not config.name.strip(". ") or set(config.name) & set("/\\"):
        raise ValueError(f'found name="{config.name}"; expected the name of a folder in runs/, e.g. --name first')
    sections = {f.name: getattr(config, f.name) for f in fields(config) if is_dataclass(getattr(config, f.name))}
    for section, part in sections.items():
        for f in fields(part):
            value = getattr(part, f.name)
            if isinstance(value, bool) or not isinstance(value, int | float) or f.name.startswith("logvar"):
                continue
            if f.name in COUNTS:
                fits, expected = value >= 1, "1 or more"
            elif f.name in POSITIVE:
                fits, expected = 0 < value < math.inf, "a number above 0"
            else:
                below = 1 if f.name in SHARES else math.inf
                fits, expected = 0 <= value < below, "0 or more" + (", less than 1" if f.name in SHARES else "")
            if not fits:
                raise ValueError(f"found {section}.{f.name}={value}; expected {expected}")
