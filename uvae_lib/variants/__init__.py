"""Departures from the note, each a function on a model or a subclass; `build` composes those of a configuration."""

from torch import Tensor

from ..model import UniverseVAE
from ..presets import Config
from .fourier import fourier_start
from .layers import circular_padding, group_norm, posterior_width, zero_init_residuals


def build(
    config: Config, side: int | None = None, power: Tensor | None = None, told: Tensor | None = None
) -> UniverseVAE:
    """The model of a configuration, with new weights drawn from torch's global state.

    With the defaults of `ModelConfig` it is `UniverseVAE`, the note's model, and nothing else.
    side    of the cubes [voxels]: with model.circular=None it decides whether convolutions wrap around
    power   (n,) of the slices in rings (`slices.pixel_power`), for model.fourier_start
    told    (d + 1, n) `fourier.discriminants`, for model.discriminants
    """
    chosen = config.model
    model = UniverseVAE(config.data.image_size, chosen.latent_dim, chosen.pooling)
    if chosen.norm == "group":
        group_norm(model.encoder)
        group_norm(model.decoder_h, keep_amplitude=False)
    if wraps(config, side):
        circular_padding(model)
    if chosen.zero_init:
        zero_init_residuals(model)
    if chosen.fourier_start:
        fourier_start(model, power, chosen.discriminants, told)
    if chosen.logvar_z or chosen.logvar_h:
        posterior_width(model, chosen.logvar_z, chosen.logvar_h)
    return model


def wraps(config: Config, side: int | None) -> bool:
    """Whether the convolutions of a configuration wrap around."""
    return covers_box(config, side) if config.model.circular is None else config.model.circular


def covers_box(config: Config, side: int | None) -> bool:
    """Whether a slice is the whole periodic box."""
    return config.data.image_size == side
