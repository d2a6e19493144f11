"""Universe VAE: a hierarchical set VAE on slices of large-scale-structure simulations. The public names:

    run = load_run("weights/note")
    suite = open_cubes("my_cubes.npy", box_size=128.0)
    z = encode_cube(run, slices)

A name is imported when it is first used, so that `import uvae_lib` alone costs nothing.
"""

import os
import sys
from importlib import import_module

# Threads that wait sleep: by default they spin, and beside other work a step then costs four times the processor time.
# It is read when torch is loaded; somebody's own setting stays.
if "torch" not in sys.modules:
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

_HOMES = {
    "model": ("UniverseVAE", "format_table"),
    "loss": ("mse_loss", "kl_loss", "note_loss"),
    "cropping": ("log_density", "overdensity", "periodic_crop"),
    "cubes": ("open_cubes", "split_cubes"),
    "cubes.suite": ("fit_image_size",),
    "simulation": ("simulate_suite",),
    "simulation.suite": ("load_suite", "parameters_of_sets", "same_phases"),
    "presets": ("Config", "load_preset", "locate"),
    "statistics": ("power_spectrum", "fourier_pca", "project", "fvu"),
    "runs": ("load_run",),
    "runs.run": ("build",),
    "runs.encode": ("decode", "encode_cube", "encode_slices", "reconstruct", "spread_slices"),
    "runs.traverse": ("decode_universe", "place_of", "traverse"),
    "runs.universes": ("universes_of",),
    "training": ("fit",),
    "training.slices": ("CubePool", "SliceSets", "standardisation"),
    "generation.sample": ("complete_means", "draw_h", "sample_slices"),
    "generation.training": ("fit_flows",),
    "explore.pixels": ("PixelExplorer", "cube_explorer", "thinned"),
    "analysis.posterior": ("load_posterior",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}
_MODULES = {"analysis": "analysis", "plots": "plots", "widgets": "explore"}
__all__ = sorted([*_HOME, *_MODULES])


def __getattr__(name: str):
    """Import a public name (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    module = import_module(f".{_HOME.get(name) or _MODULES[name]}", __name__)
    globals()[name] = value = getattr(module, name) if name in _HOME else module
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
