"""The public names: where they come from, and what importing them costs."""

import subprocess
import sys
from importlib import import_module

import pytest

import uvae_lib

EXPECTED = """
Config CubePool PixelExplorer SliceSets UniverseVAE analysis build complete_means cube_explorer decode
decode_universe draw_h encode_cube encode_slices fit fit_flows fit_image_size format_table fourier_pca fvu
kl_by_dimension kl_loss load_posterior load_preset load_run load_suite locate log_density mse_loss note_loss
open_cubes overdensity parameters_of_sets periodic_crop place_of plots power_spectrum project reconstruct
same_phases sample_slices simulate_suite split_cubes spread_slices standardisation thinned traverse universes_of
widgets"""
HEAVY = {"lightning", "pytorch_lightning", "seaborn", "scipy.stats", "sklearn", "jax", "tyro"}


def loaded_by(code):
    """Names of the modules that a fresh process has loaded after some code."""
    script = f"{code}\nimport sys\nprint(*sys.modules)"
    return set(subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout.split())


def test_the_public_names_are_these():
    assert sorted(uvae_lib.__all__) == sorted(EXPECTED.split())


@pytest.mark.parametrize("name", sorted(set(EXPECTED.split()) - {"analysis", "plots", "widgets"}))
def test_a_public_name_is_the_object_of_its_module(name):
    value = getattr(uvae_lib, name)
    assert value is getattr(import_module(value.__module__), name)
    assert value.__module__.startswith("uvae_lib.") and value.__doc__


@pytest.mark.parametrize("name, home", [("analysis", "analysis"), ("plots", "plots"), ("widgets", "explore")])
def test_a_public_module_is_that_module(name, home):
    assert getattr(uvae_lib, name) is import_module(f"uvae_lib.{home}")


def test_completion_lists_every_public_name():
    assert set(EXPECTED.split()) <= set(dir(uvae_lib))


def test_a_name_that_is_not_there_is_refused_with_those_that_are():
    with pytest.raises(AttributeError, match=r"has no attribute 'open_cube'; it has .* open_cubes"):
        uvae_lib.open_cube  # noqa: B018


def test_the_package_alone_imports_nothing_heavy():
    assert not {"torch", "numpy", "pandas", "matplotlib", "lightning"} & loaded_by("import uvae_lib; dir(uvae_lib)")


@pytest.mark.parametrize("module", ["model", "cropping", "runs", "plots", "explore"])
def test_what_a_notebook_opens_with_loads_nothing_that_is_slow(module):
    found = loaded_by(f"import uvae_lib.{module}")
    assert f"uvae_lib.{module}" in found
    assert not HEAVY & found


def test_plots_load_neither_networks_nor_pyplot():
    assert not {"torchvision", "matplotlib.pyplot", "uvae_lib.model"} & loaded_by("from uvae_lib import plots")
