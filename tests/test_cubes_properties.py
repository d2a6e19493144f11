"""What holds for all cubes, all bytes and all slices, not only for the examples."""

import tempfile
import warnings
from pathlib import Path

import numpy as np
import pytest
from brought import lognormal_cubes, snapshots, write_hdf5
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from uvae_lib.cropping import log_density, overdensity, periodic_crop
from uvae_lib.cubes.arrays import read_length
from uvae_lib.cubes.checks import largest_modes, to_overdensity
from uvae_lib.cubes.layout import CubeSuite
from uvae_lib.cubes.parameters import cube_parameters
from uvae_lib.cubes.suite import CubesError, open_cubes, split_cubes

settings.register_profile(
    "cubes",
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
settings.load_profile("cubes")
Y = lognormal_cubes(2, 6)

sides = st.integers(2, 7)
floats32 = st.floats(0, 1e3, width=32)
cubes = sides.flatmap(lambda n: npst.arrays(np.float32, (n, n, n), elements=floats32)).filter(
    lambda y: y.min() < y.max() and y.mean(dtype="f8") > 1e-3
)
dtypes = st.sampled_from(["<f4", ">f4", "<f8", ">f8", "f2", "u2", ">i4", "u1", "i8"])


def opened(path, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return open_cubes(path, **{"box_size": 50.0, "field_type": "density"} | options)


def a_stack(n):
    """n cubes in one file."""
    return CubeSuite("", (), tuple(map(str, range(n))), [(str(i),) for i in range(n)], "row")


@given(cubes)
def test_an_overdensity_has_mean_one_and_is_never_negative(rho):
    y = to_overdensity(rho.copy(), "density", "cube")
    assert y.dtype == np.float32 and y.min() >= 0 and y.shape == rho.shape
    assert y.mean(dtype="f8") == pytest.approx(1, abs=1e-4)


@given(cubes, st.integers(-100, 30))
def test_the_unit_of_a_density_does_not_matter(rho, exponent):
    scaled = (rho.astype("f8") * 2.0**exponent).astype("f4")
    if np.all(scaled.astype("f8") == rho.astype("f8") * 2.0**exponent):  # nothing was rounded
        a, b = (to_overdensity(r.copy(), "density", "cube") for r in (rho, scaled))
        np.testing.assert_allclose(a, b, rtol=1e-6)


@given(cubes)
def test_delta_and_density_of_one_universe_give_one_overdensity(rho):
    y = rho.astype("f8") / rho.mean(dtype="f8")
    a = to_overdensity(y - 1, "delta", "cube")
    np.testing.assert_allclose(a, to_overdensity(y.copy(), "density", "cube"), rtol=1e-5, atol=1e-6)


@given(cubes, st.data())
def test_one_value_that_is_no_density_anywhere_is_refused(rho, data):
    place = tuple(data.draw(st.integers(0, n - 1)) for n in rho.shape)
    value = data.draw(st.sampled_from([np.nan, np.inf, -np.inf, -1e-4]))
    spoiled = rho.copy()
    spoiled[place] = value * rho.mean() if np.isfinite(value) else value
    with pytest.raises(CubesError, match=r"found .*; expected .*; "):
        to_overdensity(spoiled, "density", "cube")


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.sampled_from([8, 12, 16, 32]))
def test_two_universes_differ_in_their_largest_modes_and_two_times_of_one_do_not(a, b, side):
    one, other = lognormal_cubes(1, side, a)[0], lognormal_cubes(1, side, b)[0]
    modes = largest_modes(one, (0, 1, 2))
    assert all(modes @ largest_modes(y.astype("f4"), (0, 1, 2)) > 0.8 for y in snapshots(one, 3))
    assert (modes @ largest_modes(other, (0, 1, 2)) > 0.5) == (a == b)


@given(
    st.floats(1, 5000), st.sampled_from(["Mpc/h", "h^-1 Mpc", "cMpc/h", "Mpc h^-1", "Mpc h**-1", "Mpccm/h", "Mpc / h"])
)
def test_a_length_is_read_in_every_spelling_of_its_unit_and_in_none_without(value, unit):
    assert read_length(f"{value} {unit}") == pytest.approx([value])
    assert read_length(f"{value / 1000} {unit.replace('M', 'G')}") == pytest.approx([value])
    assert [read_length(text) for text in (value, str(value), f"{value} Mpc", f"{value} cm")] == [None] * 4


@given(dtypes, st.sampled_from(["C", "F"]), st.integers(1, 3), st.integers(2, 5))
def test_every_real_dtype_and_order_of_bytes_is_read(dtype, order, n, side):
    values = (np.random.default_rng(side).random((n, side, side, side)) * 100).astype(dtype)
    values = values[0] if order == "F" else values  # one cube may be in Fortran order
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cubes.npy"
        np.save(path, np.asarray(values, order=order))
        expected = (values if order == "C" else values[None]).astype("f8")
        try:
            suite = opened(path)
        except CubesError as error:  # few random voxels may be whole planes of one value
            assert "planes" in str(error)
            return
        for i, cube in enumerate(expected):
            np.testing.assert_allclose(suite.overdensity(i), cube / cube.mean(), rtol=2e-6)


@given(st.binary(max_size=300), st.sampled_from([".npy", ".hdf5", ".dat"]))
def test_no_bytes_do_more_than_raise_the_sentence(content, suffix):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"cubes{suffix}"
        path.write_bytes(content)
        with pytest.raises(CubesError, match="found "):
            opened(path)
        assert [p.name for p in Path(folder).iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", [".npy", ".hdf5"])
@given(data=st.data())
def test_a_damaged_file_is_read_or_refused_and_nothing_else(suffix, data):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"cubes{suffix}"
        np.save(path, Y.astype("f4")) if suffix == ".npy" else write_hdf5(path, {"data": Y.astype("f4")})
        content = bytearray(path.read_bytes())
        reach = min(len(content), 1200) - 1  # headers more than data
        for _ in range(data.draw(st.integers(1, 4))):
            content[data.draw(st.integers(0, reach))] = data.draw(st.integers(0, 255))
        path.write_bytes(content[: data.draw(st.sampled_from([len(content), len(content) // 2]))])
        try:
            suite = opened(path)
            readings = [suite.overdensity(i) for i in range(min(suite.n_cubes, 3))]
        except CubesError as error:
            assert "found " in str(error)
        else:
            assert all(np.isfinite(y).all() and y.min() >= 0 for y in readings)


@given(
    npst.arrays(np.float64, st.tuples(st.integers(2, 5), st.integers(1, 6)), elements=st.floats(-1e9, 1e9)),
    st.sampled_from([" ", "\t", ",", " , ", ";"]), st.sampled_from(["# ", ""]), st.sampled_from(["\n", "\r\n"]),
    st.randoms(), st.sampled_from(["{}", "{}.0", "{:03}", "{}.npy"]),
)  # fmt: skip
def test_rows_go_by_their_ids_however_they_are_written_and_shuffled(values, separator, mark, newline, random, spelling):
    values = values + 0.123  # not whole
    names, order = [f"p{i}" for i in range(values.shape[1])], list(range(len(values)))
    random.shuffle(order)
    lines = [mark + separator.join(["id", *names])]
    lines += [separator.join([spelling.format(i), *map(repr, map(float, values[i]))]) for i in order]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "params.txt"
        path.write_bytes((newline.join(lines) + newline).encode())
        table = cube_parameters(path, a_stack(len(values)))
    np.testing.assert_array_equal(table.to_numpy(), values)
    assert list(table.columns) == names


@given(st.text(max_size=200))
def test_no_text_does_more_than_give_a_table_or_the_sentence(text):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "params.txt"
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        try:
            table = cube_parameters(path, a_stack(1))
        except CubesError as error:
            assert "found " in str(error)
        else:
            assert np.isfinite(table.to_numpy()).all()


fractions = st.floats(0, 0.99)


@given(st.integers(1, 200), fractions, fractions, st.integers(0, 2**32))
def test_a_split_is_a_partition_with_no_empty_part(n, val, test, seed):
    if val + test >= 1:
        with pytest.raises(ValueError, match="add up to less than 1"):
            split_cubes(n, val, test, seed)
        return
    parts = split_cubes(n, val, test, seed)
    assert sorted(i for part in parts.values() for i in part) == list(range(n)) and list(parts) == [
        "train",
        "val",
        "test",
    ]
    assert all(part == sorted(part) for part in parts.values())
    assert all(parts.values()) if n >= 3 else parts["train"]


@given(st.lists(st.sampled_from("abcdefghij"), min_size=1, max_size=40), st.integers(0, 9))
def test_a_split_never_divides_a_universe(ids, seed):
    parts = split_cubes(len(ids), 0.2, 0.2, seed, ids=ids)
    universes = [{ids[i] for i in part} for part in parts.values()]
    assert sum(map(len, universes)) == len(set(ids)) and sum(map(len, parts.values())) == len(ids)


# --- slices and the transform ------------------------------------------------------------------------------------

planes = sides.flatmap(lambda n: npst.arrays(np.float32, (2, n, n), elements=floats32))
whole = st.integers(-50, 50)


@given(planes, whole, whole, st.data())
def test_a_crop_is_the_corner_of_the_rolled_plane(plane, row, col, data):
    size = data.draw(st.integers(1, plane.shape[-1]))
    rolled = np.roll(plane, (-row, -col), axis=(-2, -1))
    np.testing.assert_array_equal(periodic_crop(plane, (row, col), size), rolled[..., :size, :size])


@given(planes, whole, whole, whole, whole)
def test_crops_of_the_whole_box_compose(plane, a, b, c, d):
    n = plane.shape[-1]
    twice = periodic_crop(periodic_crop(plane, (a, b), n), (c, d), n)
    np.testing.assert_array_equal(twice, periodic_crop(plane, (a + c, b + d), n))


@given(cubes, st.sampled_from([1e-8, 1e-5, 1e-2]))
def test_the_transform_has_an_inverse(y, eps):
    y = y.astype("f8")
    np.testing.assert_allclose(overdensity(log_density(y, eps), eps), y, rtol=1e-9, atol=1e-15)


@given(cubes)
def test_the_transform_keeps_the_order_of_voxels_and_is_finite(y):
    x = log_density(y.astype("f8"))
    assert np.isfinite(x).all()
    assert np.all(np.diff(x.ravel()[np.argsort(y.ravel(), kind="stable")]) >= 0)
