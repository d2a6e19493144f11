"""A model is used on what it was trained for: cubes and arrays of another kind are refused with a sentence."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from brought import SAID, lognormal_cubes, write_cmd, write_npy

from uvae_lib.cubes.suite import open_cubes
from uvae_lib.presets import PRESETS
from uvae_lib.runs.encode import check_same_kind, check_slices, cut_cube, encode_cube, spread_slices

SIDE = 32
Y = lognormal_cubes(2, SIDE).astype("f4")
X = np.log(Y + 1e-8)


@pytest.fixture
def run():
    """What is asked of a run, trained on CAMELS' Mcdm in voxels of 25 / 32 Mpc/h today."""
    config = PRESETS["smoke"]
    return SimpleNamespace(
        folder=Path("runs/a"), config=replace(config, data=replace(config.data, image_size=SIDE)), side=SIDE,
        box_size=25.0, mean=float(X.mean()), std=float(X.std()), info={"field": "Mcdm", "redshift": 0.0},
    )  # fmt: skip


def test_cubes_of_the_same_kind_are_cut(tmp_path, run):
    suite = open_cubes(write_cmd(tmp_path, Y))
    slices = spread_slices(run, suite, 0, 6)
    assert slices.shape == (6, 1, SIDE, SIDE) and abs(float(slices.mean())) < 0.5


@pytest.mark.parametrize(("options", "words"), [
    ({"box_size": 128.0}, r"voxels \[Mpc/h\] 4, not 0.7812; box \[Mpc/h\] 128, not 25"),
    ({"z": "2.0"}, "redshift 2, not 0"),
    ({"field": "Mgas"}, "field Mgas, not Mcdm"),
])  # fmt: skip
def test_cubes_of_another_kind_are_refused_until_allowed(tmp_path, run, options, words):
    written = {name: value for name, value in options.items() if name != "box_size"}
    suite = open_cubes(write_cmd(tmp_path, Y, **written), box_size=options.get("box_size"))
    with pytest.raises(ValueError, match=f"found CAMELS .*{words}.*was trained on; .*allow_other_voxels=True"):
        spread_slices(run, suite, 0, 3)
    assert spread_slices(run, suite, 0, 3, allow_other_voxels=True).shape[0] == 3


def test_what_a_suite_does_not_say_is_not_compared(tmp_path, run):
    suite = open_cubes(write_npy(tmp_path / "c.npy", Y), **SAID | {"box_size": 25.0})
    assert check_same_kind(suite, run) is None


def test_cubes_smaller_than_a_slice_are_refused(tmp_path, run):
    suite = open_cubes(write_cmd(tmp_path, lognormal_cubes(2, 16)))
    with pytest.raises(ValueError, match=r"found cubes of 16\^3; the run's slices have 32 pixels"):
        check_same_kind(suite, run, allow_other_voxels=True)


@pytest.mark.parametrize("kind", [
    lambda y: torch.from_numpy(y), lambda y: y.astype("f8"), lambda y: y.astype(">f4"), lambda y: y[::-1].copy()[::-1],
    lambda y: np.asfortranarray(y),
])  # fmt: skip
def test_a_cube_is_an_array_of_any_dtype_order_and_strides(run, kind):
    assert torch.equal(cut_cube(run, kind(Y[0]), 3), cut_cube(run, Y[0], 3))


@pytest.mark.parametrize(("y", "words"), [
    (Y[0] * 7e9, "mean 7e.09; expected an overdensity"), (Y[0] - 1, "minimum -0.9.*add 1 to a delta"),
    (Y[0] * np.nan, "minimum nan"), (Y, r"found an array \(2, 32, 32, 32\)"), (Y[0, 0], r"\(32, 32\)"),
    (Y[0].astype("U4"), "of <U4; expected a cube"), (Y[0, :, :7], r"\(32, 7, 32\)"),
])  # fmt: skip
def test_an_array_that_is_no_overdensity_is_refused(run, y, words):
    with pytest.raises(ValueError, match=words):
        cut_cube(run, y, 3)


@pytest.mark.parametrize("kind", [
    lambda x: x, lambda x: x.double(), lambda x: x.numpy(), lambda x: x.numpy().astype(">f8"),
    lambda x: x.flip(0).numpy()[::-1],
])  # fmt: skip
def test_slices_are_tensors_or_arrays_of_any_dtype_order_and_strides(run, kind):
    slices = cut_cube(run, Y[0], 4)
    assert torch.equal(check_slices(run, kind(slices)), slices)


@pytest.mark.parametrize(("change", "words"), [
    (lambda x: x[:, 0], r"found slices of shape \(4, 32, 32\); expected \(S, 1, 32, 32\)"),
    (lambda x: x[:0], r"\(0, 1"),
    (lambda x: x[..., :16], r"\(4, 1, 32, 16\)"),
    (lambda x: 1e10 * x.exp(), "found slices"),
    (lambda x: x * torch.nan, "mean nan"), (lambda x: 0 * x, "standard deviation 0"),
])  # fmt: skip
def test_slices_that_are_not_standardised_are_refused(run, change, words):
    with pytest.raises(ValueError, match=words):
        encode_cube(run, change(cut_cube(run, Y[0], 4)))


def test_slices_that_look_like_log_densities_are_warned_of(run):
    with pytest.warns(UserWarning, match=r"found slices .*expected standardised pixels"):
        check_slices(run, cut_cube(run, Y[0], 4) - 1)
