"""Thinned cubes, and the sliders on eps and on the number of waves."""

import numpy as np
import pytest
from suites import lognormal_suite

from uvae_lib import open_cubes
from uvae_lib.explore.pixels import PixelExplorer, thinned


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    return open_cubes(lognormal_suite(tmp_path_factory.mktemp("cubes"), 3))


@pytest.mark.parametrize("empty", [0.01, 0.1])
def test_a_thinned_cube_has_the_share_of_empty_voxels_that_was_asked_for(suite, empty):
    y = suite.overdensity(0)
    thin = thinned(y, empty)
    assert (thin == 0).mean() == pytest.approx(empty, rel=0.3)
    assert thin.mean() == pytest.approx(1, abs=0.05)


def test_a_cube_is_thinned_the_same_way_twice(suite):
    y = suite.overdensity(0)
    assert np.array_equal(thinned(y), thinned(y))


@pytest.mark.parametrize("name, value", [("eps", 1e-2), ("waves", 32)])
def test_a_moved_slider_changes_the_picture(suite, name, value):
    explorer = PixelExplorer(suite)
    before = explorer.picture.value
    getattr(explorer, name).value = value
    assert explorer.picture.value != before


def test_the_picture_is_there_without_a_kernel(suite):
    assert PixelExplorer(suite)._repr_mimebundle_()["image/png"]
