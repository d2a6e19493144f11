"""Slices against plain writings: torch.roll, numpy.take, and a cube cut one slice at a time."""

from dataclasses import fields, replace
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from uvae_lib.cropping import Cuts, cut_slices, log_density, overdensity, periodic_crop, spread_planes, whole_planes
from uvae_lib.cubes.suite import open_cubes
from uvae_lib.presets import SMOKE
from uvae_lib.simulation.suite import simulate_suite
from uvae_lib.training import slices
from uvae_lib.training.slices import CubePool, SliceSets, standardisation

SIDE = 12
SYMMETRIES = list(np.ndindex(2, 2, 2))  # transpose, flip_row, flip_col
corners = st.tuples(st.integers(-100, 100), st.integers(-100, 100))


def a_plane(*leading, side=SIDE, seed=0):
    return torch.randn((*leading, side, side), generator=torch.Generator().manual_seed(seed))


# --- one square


@settings(deadline=None)
@given(corners, st.integers(1, SIDE))
def test_a_crop_is_the_corner_of_a_rolled_plane(corner, size):
    plane, (row, col) = a_plane(), corner
    assert torch.equal(periodic_crop(plane, corner, size), plane.roll((-row, -col), (0, 1))[:size, :size])


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("corner", [(0, 0), (3, 10), (10, 3), (9, 11)])
def test_a_crop_wraps_on_the_planes_of_every_axis(axis, corner):
    cube = np.random.default_rng(0).random((SIDE, SIDE, SIDE))
    plane = np.take(cube, 5, axis=axis)
    expected = np.roll(plane, (-corner[0], -corner[1]), axis=(0, 1))[:8, :8]
    assert np.array_equal(periodic_crop(plane, corner, 8), expected)


def test_a_corner_that_wraps_on_both_axes_takes_the_four_corners_of_the_plane():
    plane = torch.arange(16).reshape(4, 4)
    assert periodic_crop(plane, (3, 3), 2).tolist() == [[15, 12], [3, 0]]


@pytest.mark.parametrize("corner", [(-1, -SIDE), (10**9 + 7, -(10**12)), (SIDE, 5 * SIDE - 1)])
def test_a_corner_is_taken_modulo_the_side(corner):
    plane, inside = a_plane(), tuple(c % SIDE for c in corner)
    assert torch.equal(periodic_crop(plane, corner, 5), periodic_crop(plane, inside, 5))


def test_a_crop_of_the_whole_plane_holds_every_pixel_once():
    plane = torch.randperm(SIDE**2).reshape(SIDE, SIDE)
    assert torch.equal(periodic_crop(plane, (7, 4), SIDE).flatten().sort().values, torch.arange(SIDE**2))


def test_one_corner_serves_all_planes():
    planes = a_plane(2, 3)
    assert torch.equal(periodic_crop(planes, (9, 2), 6), planes.roll((-9, -2), (2, 3))[..., :6, :6])


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32])
def test_a_crop_keeps_the_type_of_the_numbers(dtype):
    assert periodic_crop(np.ones((4, 4), dtype), (0, 0), 2).dtype == dtype


def test_a_crop_is_a_copy():
    plane = a_plane()
    periodic_crop(plane, (0, 0), SIDE).zero_()
    assert plane.abs().min() > 0


def test_a_gradient_reaches_the_pixels_of_a_crop():
    plane = a_plane().requires_grad_()
    periodic_crop(plane, (10, 10), 4).sum().backward()
    assert plane.grad.roll((2, 2), (0, 1))[:4, :4].sum() == plane.grad.sum() == 16


@pytest.mark.parametrize("size", [0, -3, SIDE + 1])
def test_a_square_that_does_not_fit_is_refused(size):
    with pytest.raises(
        ValueError, match=f"a {size}-pixel crop does not fit a 12-pixel periodic plane; use 1 <= size <= 12"
    ):
        periodic_crop(a_plane(), (0, 0), size)


@pytest.mark.parametrize("shape", [(4, 5), (2, 4, 5), (7,)])
def test_a_plane_that_is_no_square_is_refused(shape):
    with pytest.raises(ValueError, match=r"found a plane of shape .*; expected \(\.\.\., N, N\)"):
        periodic_crop(torch.zeros(shape), (0, 0), 2)


# --- the transform


@given(st.floats(0, 1e6, width=32), st.sampled_from([1e-8, 1e-4, 0.1]))
def test_overdensity_is_the_inverse_of_log_density(y, eps):
    y = np.array([y], np.float32)
    np.testing.assert_allclose(overdensity(log_density(y, eps), eps), y, rtol=1e-5, atol=2e-6 * eps)


@given(st.floats(0, 1e6, width=32))
def test_the_transform_of_a_tensor_is_that_of_an_array(y):
    y = np.array([y], np.float32)
    found = log_density(torch.from_numpy(y)), overdensity(log_density(torch.from_numpy(y)))
    np.testing.assert_allclose(
        [x.numpy() for x in found], [log_density(y), overdensity(log_density(y))], rtol=1e-5, atol=1e-13
    )


def test_the_transform_is_the_note_s():
    y = np.array([0.0, 1e-8, 1.0, 50.0])
    np.testing.assert_allclose(log_density(y), np.log(y + 1e-8))


@pytest.mark.parametrize("eps", [1e-8, 1e-3])
def test_an_empty_voxel_lies_at_the_logarithm_of_eps_and_comes_back_as_empty(eps):
    x = log_density(np.zeros(3, np.float32), eps)
    assert x == pytest.approx(np.log(eps)) and overdensity(x, eps) == pytest.approx(0, abs=2e-6 * eps)


@given(st.floats(-40, 10, width=32))
def test_an_overdensity_is_never_negative(x):
    assert overdensity(np.array([x], np.float32))[0] >= 0 and overdensity(torch.tensor([x]))[0] >= 0


def test_the_transform_keeps_float32():
    y = np.ones(3, np.float32)
    assert (log_density(y).dtype, overdensity(log_density(y)).dtype) == (np.float32, np.float32)


# --- many slices at once


def plain_slice(x, cut, size, thickness=1):
    """One slice of log densities x (P, N, N), step by step: planes, average of y, roll, crop, flips, transpose."""
    depth = x.shape[cut["axis"]]
    planes = [np.take(x, (cut["plane"] + i) % depth, axis=cut["axis"]).astype(np.float64) for i in range(thickness)]
    plane = np.log(np.mean(np.exp(planes), axis=0)) if thickness > 1 else planes[0]
    plane = np.roll(plane, (-cut["row"], -cut["col"]), axis=(0, 1))
    if cut["flip_row"]:  # backwards from the corner
        plane = np.roll(plane[::-1], 1, axis=0)
    if cut["flip_col"]:
        plane = np.roll(plane[:, ::-1], 1, axis=1)
    plane = plane[:size, :size]
    return plane.T if cut["transpose"] else plane


def random_cuts(n, n_cubes, n_planes, axes=(0, 1, 2), seed=0, **fixed):
    rng = np.random.default_rng(seed)
    values = {"cube": rng.integers(0, n_cubes, n), "axis": rng.choice(axes, n), "plane": rng.integers(0, n_planes, n)}
    values |= {name: rng.integers(0, SIDE, n) for name in ("row", "col")}
    values |= {name: rng.integers(0, 2, n) for name in ("transpose", "flip_row", "flip_col")}
    values |= {name: np.full(n, value) for name, value in fixed.items()}
    return Cuts(**{name: torch.from_numpy(value) for name, value in values.items()})


def one_by_one(volumes, cuts, size, thickness=1):
    """`plain_slice` of every cut: (n, 1, size, size)."""
    table = [
        dict(zip(vars(cuts), row, strict=True)) for row in zip(*(v.tolist() for v in vars(cuts).values()), strict=True)
    ]
    return np.stack([plain_slice(volumes[cut["cube"]].numpy(), cut, size, thickness) for cut in table])[:, None]


@pytest.fixture(scope="module")
def volumes():
    """Log densities of three cubes of 12^3."""
    return torch.randn(3, SIDE, SIDE, SIDE, generator=torch.Generator().manual_seed(0)) * 2


@pytest.mark.parametrize("thickness", [1, 3, SIDE])
@pytest.mark.parametrize("symmetry", SYMMETRIES, ids=lambda s: "".join(map(str, s)))
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_are_those_of_a_plain_loop(volumes, axis, symmetry, thickness):
    fixed = dict(zip(("transpose", "flip_row", "flip_col"), symmetry, strict=True))
    cuts = random_cuts(20, 3, SIDE, axis=axis, **fixed)
    expected = one_by_one(volumes, cuts, 7, thickness)
    rounding = 0 if thickness == 1 else 1e-5
    np.testing.assert_allclose(cut_slices(volumes, cuts, 7, thickness), expected, rtol=rounding, atol=rounding)


def test_slices_have_the_shape_of_the_cuts(volumes):
    cuts = random_cuts(12, 3, SIDE)
    grid = Cuts(**{name: value.view(3, 4) for name, value in vars(cuts).items()})
    assert torch.equal(cut_slices(volumes, grid, 8), cut_slices(volumes, cuts, 8).view(3, 4, 1, 8, 8))


def test_a_slice_without_symmetries_is_a_periodic_crop(volumes):
    cuts = random_cuts(1, 3, SIDE, axis=1, plane=4, cube=2, row=9, col=11, transpose=0, flip_row=0, flip_col=0)
    assert torch.equal(cut_slices(volumes, cuts, 8)[0, 0], periodic_crop(volumes[2][:, 4], (9, 11), 8))


def test_maps_are_cut_along_their_only_axis():
    maps = torch.randn(2, 5, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    cuts = random_cuts(40, 2, 5, axes=(0,))
    assert np.array_equal(cut_slices(maps, cuts, 7), one_by_one(maps, cuts, 7))


def test_a_thick_slice_averages_matter_and_not_its_logarithm():
    y = torch.tensor([1.0, 3.0, 1.0, 3.0])[:, None, None].expand(4, 4, 4)
    cuts = random_cuts(1, 1, 4, axis=0, cube=0, row=0, col=0)
    thick = overdensity(cut_slices(log_density(y)[None].contiguous(), cuts, 4, thickness=2))
    torch.testing.assert_close(thick, torch.full_like(thick, 2.0))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_slices_of_compact_cubes_are_float32(volumes, dtype):
    cuts = random_cuts(5, 3, SIDE)
    found = cut_slices(volumes.to(dtype), cuts, 8)
    assert torch.equal(found, cut_slices(volumes.to(dtype).float(), cuts, 8)) and found.dtype == torch.float32


def test_slices_are_cut_on_the_device_of_the_cubes():
    with torch.device("meta"):
        volumes = torch.empty(3, SIDE, SIDE, SIDE)
    assert cut_slices(volumes, random_cuts(5, 3, SIDE), 8, 2).device.type == "meta"


@pytest.mark.parametrize("n, axes, thickness", [(12, (0, 1, 2), 1), (7, (0, 1, 2), 1), (15, (0,), 1), (6, (2, 1), 3)])
def test_spread_planes_are_evenly_spread_and_have_no_plane_in_common(n, axes, thickness):
    axis, plane = (x.tolist() for x in spread_planes(n, 16, axes, thickness))
    assert [axis.count(a) for a in axes] == [len(range(i, n, len(axes))) for i in range(len(axes))]
    for a in axes:
        planes = sorted(p for p, b in zip(plane, axis, strict=True) if a == b)
        gaps = [after - before for before, after in pairwise([*planes, planes[0] + 16])]
        assert min(gaps) >= thickness and max(gaps[:-1], default=0) - min(gaps[:-1], default=0) <= 1


def test_whole_planes_are_the_planes_of_a_cube(volumes):
    axis, plane = spread_planes(9, SIDE)
    expected = np.stack([np.take(volumes[0].numpy(), p, axis=a) for a, p in zip(axis, plane, strict=True)])[:, None]
    assert np.array_equal(cut_slices(volumes, whole_planes(axis, plane), SIDE), expected)


def test_more_slices_than_planes_are_refused():
    with pytest.raises(ValueError, match="13 slices were asked for; a cube of 4 planes along 3 axes has 12"):
        spread_planes(13, 4)


def test_a_slice_that_does_not_fit_its_cube_is_refused(volumes):
    with pytest.raises(ValueError, match="a 16-pixel slice does not fit a 12-voxel cube; give larger cubes"):
        cut_slices(volumes, random_cuts(1, 3, SIDE), 16)


# --- sets of slices of simulated cubes


@pytest.fixture(scope="module")
def suite(made_once):
    """Six simulated cubes of 32^3."""
    return made_once("smoke", lambda folder: simulate_suite(folder, SMOKE.simulation, progress=False)["LH"])


@pytest.fixture(scope="module")
def constants(suite):
    return standardisation(suite, list(range(6)))


@pytest.fixture(scope="module")
def pool(suite):
    """All six cubes."""
    return CubePool(suite, range(6))


@pytest.fixture
def make_sets(pool, constants):
    """`SliceSets` on the six cubes: 32 pixels, 4 sets of 4 slices a step, unless asked otherwise."""

    def make(pool=pool, **options):
        return SliceSets(pool, *constants, **{"image_size": 32, "set_size": 4, "sets_per_step": 4, **options})

    return make


def test_sets_have_the_shape_of_a_training_batch(make_sets):
    sets = make_sets(image_size=16).sets(0)
    assert (sets.shape, sets.dtype) == ((4, 4, 1, 16, 16), torch.float32)


@pytest.mark.parametrize("step", [0, 7, 10**6])
def test_sets_are_a_function_of_seed_and_step(make_sets, step):
    used = make_sets(seed=3)
    used.sets(5)
    assert torch.equal(used.sets(step), make_sets(seed=3).sets(step))


def test_another_step_cuts_other_sets(make_sets):
    sets = make_sets()
    assert not torch.equal(sets.sets(0), sets.sets(1))


def test_another_seed_cuts_other_sets(make_sets):
    assert not torch.equal(make_sets(seed=0).sets(0), make_sets(seed=1).sets(0))


def test_sets_do_not_touch_the_global_random_state(make_sets):
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    make_sets().sets(0)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002


def test_a_set_is_cut_from_its_cube(make_sets, pool, constants):
    slices, (mean, std) = make_sets(image_size=16), constants
    flat = Cuts(**{name: value.flatten() for name, value in vars(slices.cuts(2)).items()})
    expected = (one_by_one(pool.at(2)[0], flat, 16) - mean) / std
    np.testing.assert_allclose(slices.sets(2).flatten(0, 1), expected, rtol=1e-4, atol=1e-5)


def test_the_slices_of_a_set_share_their_cube(make_sets):
    cube = make_sets().cuts(0).cube
    assert (cube == cube[:, :1]).all()


def test_the_sets_of_a_step_are_from_different_cubes_while_there_are_enough(make_sets):
    assert all(len(set(make_sets(sets_per_step=6).cuts(step).cube[:, 0].tolist())) == 6 for step in range(20))


def test_more_sets_than_cubes_take_each_cube_equally_often(make_sets):
    counts = torch.bincount(make_sets(sets_per_step=12).cuts(0).cube[:, 0], minlength=6)
    assert counts.tolist() == [2] * 6


def slabs(cuts, i, thickness, side=32):
    """The planes of each slice of set i, as sets of (axis, plane)."""
    return [
        {(int(axis), (int(plane) + k) % side) for k in range(thickness)}
        for axis, plane in zip(cuts.axis[i], cuts.plane[i], strict=True)
    ]


@pytest.mark.parametrize("thickness, set_size", [(1, 4), (1, 90), (2, 8), (3, 12), (5, 18), (16, 6)])
def test_no_plane_is_in_two_slices_of_a_set(make_sets, thickness, set_size):
    slices = make_sets(set_size=set_size, thickness=thickness)
    for cuts in map(slices.cuts, range(25)):
        found = [slabs(cuts, i, thickness) for i in range(4)]
        assert all(len(set.union(*planes)) == thickness * set_size for planes in found)


def test_a_set_can_take_every_plane_of_a_cube(make_sets):
    cuts = make_sets(set_size=96).cuts(0)
    assert len(set.union(*slabs(cuts, 0, 1))) == 96


@pytest.mark.parametrize("name, n_values", [("axis", 3), ("plane", 32), ("row", 32), ("col", 32)])
def test_cuts_are_spread_evenly(make_sets, name, n_values):
    slices = make_sets(sets_per_step=60)
    values = torch.stack([getattr(slices.cuts(step), name) for step in range(50)]).flatten()
    share = torch.bincount(values, minlength=n_values) / len(values)
    torch.testing.assert_close(share, torch.full((n_values,), 1 / n_values), rtol=0.25, atol=0)


def test_thick_slabs_start_anywhere(make_sets):
    slices = make_sets(sets_per_step=60, thickness=5)
    assert set(torch.cat([slices.cuts(step).plane.flatten() for step in range(10)]).tolist()) == set(range(32))


def test_a_context_never_holds_the_target_and_has_one_to_all_others(make_sets):
    contexts = torch.cat([make_sets().contexts(step) for step in range(40)])
    n = contexts.shape[-1]
    assert not contexts.diagonal(dim1=1, dim2=2).any()
    numbers = contexts.sum(dim=-1).flatten().long()
    counts = torch.bincount(numbers, minlength=n)[1:n]
    assert counts.sum() == len(numbers) and (counts > 0).all()  # each number from one to all others, none empty


def test_contexts_are_a_function_of_seed_and_step_and_shared_by_processes(make_sets):
    whole = make_sets().contexts(3)
    assert torch.equal(whole, make_sets().contexts(3)) and not torch.equal(whole, make_sets().contexts(4))
    parts = [make_sets(rank=rank, world_size=2).contexts(3) for rank in (0, 1)]
    assert torch.equal(torch.stack(parts, dim=1).flatten(0, 1), whole)


def test_augmentation_uses_the_eight_symmetries_of_a_square(make_sets):
    cuts = make_sets(sets_per_step=60).cuts(0)
    found = zip(
        *(getattr(cuts, name).flatten().tolist() for name in ("transpose", "flip_row", "flip_col")), strict=True
    )
    assert set(found) == set(SYMMETRIES)


def test_without_augmentation_there_are_no_symmetries(make_sets):
    cuts = make_sets(augment=False).cuts(0)
    assert not any(getattr(cuts, name).any() for name in ("transpose", "flip_row", "flip_col"))


def test_augmentation_changes_nothing_else(make_sets):
    plain, augmented = (make_sets(augment=flag).cuts(4) for flag in (False, True))
    names = ("cube", "axis", "plane", "row", "col")
    assert all(torch.equal(getattr(plain, name), getattr(augmented, name)) for name in names)


@pytest.mark.parametrize("world_size", [2, 4])
def test_processes_share_the_sets_of_a_step_without_overlap(make_sets, world_size):
    parts = [make_sets(rank=rank, world_size=world_size).sets(3) for rank in range(world_size)]
    together = torch.stack(parts, dim=1).flatten(0, 1)  # set i belongs to rank i modulo world_size
    assert torch.equal(together, make_sets().sets(3))


def test_training_voxels_are_standardised_to_mean_zero_and_variance_one(suite, pool, constants):
    chosen = [0, 2, 5]
    mean, std = standardisation(suite, chosen)
    x = log_density(np.stack([suite.overdensity(i) for i in chosen]).astype(np.float64))
    assert ((x - mean) / std).mean() == pytest.approx(0, abs=1e-5)
    assert ((x - mean) / std).std() == pytest.approx(1, abs=1e-5)


def test_sets_of_training_cubes_have_mean_zero_and_variance_one(make_sets):
    pixels = torch.cat([make_sets().sets(step) for step in range(50)])
    assert pixels.mean().abs() < 0.05 and abs(pixels.std() - 1) < 0.05


def test_of_many_cubes_a_spread_is_enough_for_standardisation(suite, monkeypatch):
    monkeypatch.setattr("uvae_lib.training.slices.SURVEYED", 3)
    assert standardisation(suite, [0, 1, 2, 3, 4]) == standardisation(suite, [0, 2, 4])


def test_eps_is_that_of_the_transform(suite):
    mean, std = standardisation(suite, [0], eps=0.1)
    x = log_density(suite.overdensity(0).astype(np.float64), 0.1)
    assert (mean, std) == pytest.approx((x.mean(), x.std()), rel=1e-5)


def test_a_slice_larger_than_the_cubes_is_refused(make_sets):
    with pytest.raises(ValueError, match="a 64-pixel slice does not fit a 32-voxel cube; give larger cubes"):
        make_sets(image_size=64).sets(0)


@pytest.mark.parametrize("set_size, thickness, most", [(97, 1, 96), (49, 2, 48), (4, 32, 3), (19, 5, 18), (4, 33, 0)])
def test_a_set_with_more_slices_than_a_cube_has_is_refused(make_sets, set_size, thickness, most):
    sentence = (
        f"a set of {set_size} slices was asked for; a cube of 32 planes has {most} that differ at thickness {thickness}"
    )
    with pytest.raises(ValueError, match=sentence):
        make_sets(set_size=set_size, thickness=thickness)


def test_sets_that_the_processes_cannot_share_are_refused(make_sets):
    with pytest.raises(ValueError, match="4 sets a step cannot be shared by 3 processes; use a multiple"):
        make_sets(world_size=3)


def test_ready_made_maps_are_cut_as_they_are(tmp_path, make_sets):
    maps = np.random.default_rng(0).lognormal(size=(2 * 15, 32, 32)).astype(np.float32)
    np.save(tmp_path / "Maps_Mcdm_IllustrisTNG_LH_z=0.00.npy", maps)
    suite = open_cubes(tmp_path, box_size=25.0, params="none", check=False)
    slices = make_sets(pool=CubePool(suite, [0, 1]), set_size=15)
    cuts = slices.cuts(0)
    assert slices.sets(0).shape == (4, 15, 1, 32, 32) and not cuts.axis.any()
    assert all(set(planes.tolist()) == set(range(15)) for planes in cuts.plane)


# --- cubes in memory


def small_pool(suite, size=2, refresh=3, **options):
    return CubePool(suite, range(6), size=size, refresh=refresh, seed=1, **options)


def test_cubes_that_fit_are_all_held(suite, pool):
    volumes, held = pool.at(0)
    assert held == list(range(6))
    np.testing.assert_allclose(volumes[4], log_density(suite.overdensity(4)), rtol=1e-6)


def test_only_the_cubes_that_were_asked_for_are_held(suite):
    assert set(CubePool(suite, [1, 4]).at(100)[1]) == {1, 4}


def test_a_small_pool_holds_a_bounded_number_of_cubes(suite):
    pool = small_pool(suite)
    assert {tuple(pool.at(step)[0].shape) for step in range(60)} == {(2, 32, 32, 32)}
    assert pool.volumes.untyped_storage().nbytes() == 2 * 32**3 * 4


def test_at_most_one_cube_is_read_ahead(suite):
    pool = small_pool(suite)
    assert max(len(pool._ahead) for step in range(60) if pool.at(step)) <= 1


def test_a_small_pool_holds_the_cubes_that_it_names(suite):
    pool = small_pool(suite)
    for step in (0, 3, 4, 17, 40):
        volumes, held = pool.at(step)
        expected = np.stack([log_density(suite.overdensity(i)) for i in held])
        np.testing.assert_allclose(volumes, expected, rtol=1e-6)


@pytest.mark.parametrize("order", ["forwards", "backwards", "at random", "with jumps"])
def test_which_cubes_are_held_does_not_depend_on_the_steps_before(suite, order):
    steps = {
        "forwards": range(40),
        "backwards": range(39, -1, -1),
        "at random": np.random.default_rng(0).permutation(40).tolist(),
        "with jumps": [0, 1, 30, 31, 32, 2, 3, 39, 0],
    }[order]
    used = small_pool(suite)
    for step in steps:
        (found, held), (expected, fresh) = (pool.at(step) for pool in (used, small_pool(suite)))
        assert held == fresh and torch.equal(found, expected)


def test_sets_from_a_small_pool_are_a_function_of_seed_and_step(suite, make_sets):
    used = make_sets(pool=small_pool(suite))
    for step in (3, 50, 4):
        used.sets(step)
    assert torch.equal(used.sets(21), make_sets(pool=small_pool(suite)).sets(21))


@pytest.mark.parametrize("size", [1, 2, 5])
def test_every_cube_comes_by_in_an_epoch(suite, size):
    pool = small_pool(suite, size=size)
    for start in (0, 18, 180):  # six cubes, one exchanged every three steps
        assert {cube for step in range(start, start + 18) for cube in pool.at(step)[1]} == set(range(6))


def test_one_cube_is_exchanged_at_a_time(suite):
    pool = small_pool(suite, size=3)
    held = [set(pool.at(step)[1]) for step in range(60)]
    changes = [len(after - before) for before, after in pairwise(held)]
    assert max(changes) == 1 and all(n == 0 for step, n in enumerate(changes, 1) if step % 3)


def test_the_cubes_of_a_small_pool_are_always_different(suite):
    pool = small_pool(suite, size=4, refresh=1)
    assert [step for step in range(120) if len(set(pool.at(step)[1])) < 4] == []


def test_another_seed_takes_the_cubes_in_another_order(suite):
    orders = [[CubePool(suite, range(6), size=1, refresh=1, seed=s).at(step)[1] for step in range(6)] for s in (0, 1)]
    assert orders[0] != orders[1]


def held(suite, monkeypatch, cubes: float, **data) -> int:
    """Cubes held of six, where 40 % of the free memory has room for so many in float32."""
    free = SimpleNamespace(available=int(cubes * 4 * 32**3 * 2.5) + 100)
    monkeypatch.setattr(slices.psutil, "virtual_memory", lambda: free)
    return slices.pool_size(suite, 6, replace(SMOKE, data=replace(SMOKE.data, **data)), torch.device("cpu"))


def test_the_memory_decides_how_many_cubes_are_held(suite, monkeypatch):
    assert held(suite, monkeypatch, 3) == 3


def test_as_many_cubes_are_held_as_are_asked_for(suite, monkeypatch):
    assert held(suite, monkeypatch, 3, pool_size=4) == 4 and held(suite, monkeypatch, 3, pool_size=8) == 6


def test_half_precision_holds_twice_as_many(suite, monkeypatch):
    assert held(suite, monkeypatch, 2, storage="float16") == 4


def test_a_cube_that_does_not_fit_the_memory_is_refused(suite, monkeypatch):
    sentence = "one cube takes 0 MiB, the memory for cubes is 0 MiB; set data.storage to float16, or give smaller cubes"
    with pytest.raises(ValueError, match=sentence):
        held(suite, monkeypatch, 0.1)


def test_float16_keeps_log_densities_to_0_005(suite, pool):
    exact, stored = pool.at(0)[0], CubePool(suite, range(6), dtype=torch.float16).at(0)[0]
    assert (stored.float() - exact).abs().max() < 0.005


def test_float16_keeps_empty_and_dense_voxels():
    x = log_density(torch.cat([torch.zeros(1), torch.logspace(-7, 5, 10_000)]))
    assert (x.half().float() - x).abs().max() < 0.008 and abs(x[0].half().item() - x[0].item()) < 0.002


def test_the_transform_of_a_pool_has_its_eps(suite):
    volumes, _ = CubePool(suite, [2], eps=0.1).at(0)
    np.testing.assert_allclose(volumes[0], log_density(suite.overdensity(2), 0.1), rtol=1e-5, atol=1e-6)


def test_cuts_can_be_taken_apart_and_moved():
    cuts = random_cuts(6, 2, SIDE)
    part = cuts[1::2].to("meta")
    assert all(getattr(part, f.name).shape == (3,) and getattr(part, f.name).is_meta for f in fields(Cuts))
