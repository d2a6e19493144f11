"""Explorers through their traits, without a kernel: what a moved control does to the pictures."""

import asyncio
import base64
import io
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from ipywidgets.widgets import widget as registry
from PIL import Image
from suites import lognormal_suite, tiny_config

from uvae_lib import widgets
from uvae_lib.cropping import Cuts, cut_slices, log_density
from uvae_lib.cubes.suite import open_cubes
from uvae_lib.explore import pictures as live
from uvae_lib.explore.explorers import REST, _descendants
from uvae_lib.loss import kl_by_dimension
from uvae_lib.runs.encode import decode, encode_cube, prior_of_h, spread_slices
from uvae_lib.runs.traverse import ParameterSheet, decoded_directions, prior_directions, suite_sheet, traverse
from uvae_lib.training.fit import fit


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("widgets")
    data, model = lognormal_suite(folder / "data", n_cubes=6), {"circular": False, "norm": "group"}
    config = tiny_config(data, model=model, steps=3)  # circular, a 1 x 1 map decodes to one value
    run = fit(config, folder / "run", progress=False)
    for network in (run.model.decoder_z, run.model.decoder_h):
        network.layers[-1].weight.mul_(30)  # a few steps leave both nearly deaf
    return run


@pytest.fixture(scope="module")
def suite(run):
    return run.open_suite()


@pytest.fixture(scope="module")
def unlabelled(run):
    return open_cubes(run.config.data.path, params="none", box_size=run.box_size)


@pytest.fixture
def slices(suite):
    return widgets.SliceExplorer(suite, size=16)


@pytest.fixture
def walk(run, suite):
    return widgets.LatentExplorer(run, suite, n_slices=4, n_directions=2, sheet=curved(0.5, 1.3))


@pytest.fixture
def reconstruction(run, suite):
    return widgets.ReconstructionExplorer(run, suite, n_slices=4)


NOTHING = (None, pd.DataFrame())  # a sheet of no parameter


def curved(low, high):
    """A sheet on which all numbers of z are s + s^2 / 2, s = sigma_8, known from low to high."""
    weights = np.outer([0, 1, 0.5], np.ones(512))
    return ParameterSheet(np.zeros(1), np.ones(1), weights), pd.DataFrame({"sigma_8": [low, high]})


def shown(walk):
    """Names of the sliders on the page."""
    return [name for name, slider in walk.sliders.items() if slider.layout.display != "none"]


def opened(png):
    return Image.open(io.BytesIO(png))


def array(png):
    return np.asarray(opened(png))


# --- pixels


def test_a_picture_is_a_palette_png_of_the_size_that_was_announced(slices):
    picture = opened(slices.picture.value)
    assert (picture.format, picture.mode) == ("PNG", "P")
    assert picture.size == (slices._panels.width, slices._panels.height)


def test_the_palette_has_256_different_maps_greys_and_a_mark():
    colours = np.frombuffer(live.palette(), np.uint8).reshape(-1, 3)
    assert len(colours) == 256
    assert (colours[live.GREY] == 0).all() and (colours[live.MARK - 1] == 255).all()


def test_row_0_is_at_the_bottom():
    panels = live.ImagePanels([live.Panel("", 4.0, 0, 1)], [4], target=4)
    image = np.arange(16.0).reshape(4, 4) / 15
    left = panels.lefts[0]
    drawn = array(panels.draw([image]))[live.TOP : live.TOP + 4, left : left + 4]
    np.testing.assert_array_equal(drawn, live._indices(image[::-1], panels.panels[0]))


def test_values_off_the_scale_get_its_end_colours():
    panel = live.Panel("", 1.0, -1, 1)
    assert live._indices(np.array([-9.0, 9.0, np.nan]), panel).tolist() == [0, 111, 56]


def test_zero_difference_is_the_middle_of_its_map_and_white():
    panel = live.Panel("", 1.0, -1, 1, "", live.plots.DIFFERENCE_MAP)
    colours = np.frombuffer(live.palette(), np.uint8).reshape(-1, 3)
    assert (colours[live._indices(np.zeros(1), panel)] > 240).all()


def test_an_image_of_another_size_is_refused():
    panels = live.ImagePanels([live.Panel("", 4.0, 0, 1)], [4], target=4)
    with pytest.raises(ValueError, match=r"found an image of shape \(5, 5\); expected \(4, 4\)"):
        panels.draw([np.zeros((5, 5))])


def test_an_outline_wraps_around_the_plane():
    tile = np.zeros((8, 8), np.uint8)
    live._outline(tile, 6, 6, 4)
    np.testing.assert_array_equal(tile == live.MARK, np.roll(np.pad(np.ones((4, 4)), ((0, 4), (0, 4))), 6, (0, 1)))


def test_a_line_left_out_is_not_drawn():
    curves = live.Curves([live.Axis("", "", (0, 1), (0, 1), "linear")], {"a": "red", "b": "blue"})
    both, one = (curves.draw([{n: ([0, 1], [0.3, 0.7]) for n in names}]) for names in ("ab", "a"))
    again = curves.draw([{n: ([0, 1], [0.3, 0.7]) for n in "ab"}])
    assert both != one and both == again


# --- slices


@pytest.mark.parametrize(("name", "value"), [("plane", 7), ("row", 5), ("col", 5), ("thickness", 4), ("eps", 0.1)])
def test_a_moved_slider_changes_the_picture_and_moved_back_restores_it(slices, name, value):
    first, control = slices.picture.value, getattr(slices, name)
    start, control.value = control.value, value
    moved = slices.picture.value
    control.value = start
    assert moved != first and slices.picture.value == first


@pytest.mark.parametrize(("name", "value"), [("cube", 3), ("axis", 2), ("plane", 9)])
def test_curves_and_text_follow_the_picture(slices, name, value):
    curves, text = slices.curves.value, slices.readout.value
    getattr(slices, name).value = value
    assert slices.curves.value != curves and slices.readout.value != text


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_explorer_shows_what_cut_slices_cuts(suite, axis):
    explorer = widgets.SliceExplorer(suite, size=16, axis=axis, plane=30, corner=(20, 25), thickness=5)
    zero = torch.zeros(1, dtype=torch.long)
    where = (torch.tensor([n]) for n in (axis, 30, 20, 25))
    x = cut_slices(log_density(torch.from_numpy(suite.overdensity(0)))[None], Cuts(zero, *where, *[zero] * 3), 16, 5)
    left, side = explorer._panels.lefts[1], explorer._panels.sides[1]
    drawn = array(explorer.picture.value)[live.TOP : live.TOP + side, left : left + side]
    expected = live._indices(x[0, 0].numpy(), explorer._panels.panels[1])
    zoom = explorer._panels.zoom[1]
    assert np.abs(drawn[::-zoom, ::zoom].astype(int) - expected).max() <= 1


def test_a_corner_is_taken_modulo_the_side(suite):
    here, around = (widgets.SliceExplorer(suite, size=16, corner=c) for c in ((30, 3), (-2, 35)))
    assert here.picture.value == around.picture.value


def test_a_slice_is_labelled_in_megaparsecs(slices):
    slices.plane.value = 7
    pixel = slices.suite.box_size / slices.suite.side
    assert f"x = {7 * pixel:.1f} to {8 * pixel:.1f} Mpc/h" in slices.readout.value


@pytest.mark.parametrize(
    ("setting", "error", "sentence"),
    [
        ({"cube": 6}, IndexError, "found cube number 6; expected 0 to 5"),
        ({"size": 33}, ValueError, "a 33-voxel crop does not fit a cube of 32"),
        ({"axis": 3}, ValueError, "found axis=3; expected one of 0, 1, 2"),
        ({"thickness": 33}, ValueError, "found thickness=33; use 1 to 32"),
    ],
)
def test_a_slice_that_is_not_there_is_refused_in_a_sentence(suite, setting, error, sentence):
    with pytest.raises(error, match=sentence):
        widgets.SliceExplorer(suite, **setting)


# --- latents


@pytest.mark.parametrize("name", ["z0", "z1", "sigma_8"])
def test_a_walk_through_z_changes_the_picture_and_back_again(walk, name):
    slider = walk.sliders[name]
    first, start = walk.picture.value, slider.value
    slider.value = start + 0.2
    moved = walk.picture.value
    slider.value = start
    assert moved != first and walk.picture.value == first


def test_the_decoded_slice_is_that_of_traverse(walk, run, suite):
    walk.sliders["z0"].value = 2.0
    walk.sliders["sigma_8"].value = 1.0
    z = encode_cube(run, spread_slices(run, suite, 0, 4, seed=0))
    h = prior_of_h(run, z.mu[None]).sample(torch.Generator().manual_seed(0))[0]
    start = walk._home["sigma_8"]
    step = 2.0 * prior_directions(run, z.mu, 1)[0][0] + 1.0 + 1.0 / 2 - start - start**2 / 2
    x = run.to_log(traverse(run, h, step, torch.ones(1), z.mu))[0, 0]
    anchor = run.to_log(decode(run, h[None]))[0, 0]
    expected = walk._panels.draw([x.numpy(), (x - anchor).numpy()])
    assert np.abs(array(walk.picture.value).astype(int) - array(expected)).max() <= 1


def test_h_moves_in_widths_of_its_prior_at_fixed_z(walk, run, suite):
    walk.sliders["h1"].value = -1.5
    prior, here = walk._now.prior, run.to_log(decode(run, walk._now.prior.mu))
    steps = decoded_directions(run, prior.mu[0], (0.5 * prior.logvar[0]).exp(), 2)
    weaker = min(steps, key=lambda step: (run.to_log(decode(run, prior.mu + step)) - here).square().sum())
    h = prior.sample(torch.Generator().manual_seed(0)) - 1.5 * weaker
    x = run.to_log(decode(run, h))[0, 0]
    expected = walk._panels.draw([x.numpy(), (x - run.to_log(walk._from)[0, 0]).numpy()])
    assert np.abs(array(walk.picture.value).astype(int) - array(expected)).max() <= 1


def test_z_and_h_have_sliders_side_by_side(walk):
    assert shown(walk) == ["sigma_8", "z0", "z1", "h0", "h1"]


def test_a_direction_that_changes_nothing_has_no_slider(run, suite, monkeypatch):
    ways = torch.nn.functional.one_hot(torch.arange(2), 512).float()
    monkeypatch.setattr(widgets, "prior_directions", lambda run, z, n: (ways, torch.tensor([1.0, 0.0])))
    walk = widgets.LatentExplorer(run, suite, n_slices=4, n_directions=2, sheet=NOTHING)
    assert "z0" in shown(walk) and "z1" not in shown(walk)


@pytest.mark.parametrize("latent", ["z", "h"])
def test_sliders_are_sorted_by_the_change_that_they_say(walk, latent):
    texts = [walk.sliders[f"{latent}{i}"].description for i in range(2)]
    changes = [float(text.partition(": ")[2].split()[0]) for text in texts]
    assert changes == sorted(changes, reverse=True) and texts[0].endswith({"z": " nats", "h": " in ln ρ"}[latent])


def test_directions_of_z_are_those_that_change_the_prior_of_h_most(run):
    z = torch.linspace(-1, 1, 512)

    def nats(way, size=0.01):
        there, here = prior_of_h(run, (z + size * way)[None]), prior_of_h(run, z[None])
        return float(kl_by_dimension(*there, *here).double().sum()) / size**2

    found, expected = prior_directions(run, z, 4)
    torch.testing.assert_close(found @ found.T, torch.eye(4), atol=1e-4, rtol=0)
    assert [nats(way) for way in found] == pytest.approx(expected.tolist(), rel=0.1)
    chance = torch.nn.functional.normalize(torch.randn(16, 512, generator=torch.Generator().manual_seed(0)))
    assert max(map(nats, chance)) < nats(found[0])


def test_the_same_seed_starts_at_the_same_slice_and_another_elsewhere(walk):
    first = walk.picture.value
    walk.seed.value = 1
    other = walk.picture.value
    walk.seed.value = 0
    assert other != first and walk.picture.value == first


def test_at_the_anchor_there_is_no_difference(walk):
    left, side = walk._panels.lefts[1], walk._panels.sides[1]
    drawn = array(walk.picture.value)[live.TOP : live.TOP + side, left : left + side]
    assert np.unique(drawn).tolist() == live._indices(np.zeros(1), walk._panels.panels[1]).tolist()


def test_the_button_leads_back_to_the_anchor(walk):
    first = walk.picture.value
    walk.sliders["z0"].value, walk.sliders["sigma_8"].value = 3.0, 0.9
    walk.back.click()
    assert walk.picture.value == first and "at the anchor" in walk.readout.value


def test_another_cube_starts_at_its_own_label(walk, suite):
    walk.sliders["z0"].value = 3.0
    walk.cube.value = 5
    assert walk.sliders["sigma_8"].value == round(suite.params["sigma_8"][5], 2)
    assert walk.sliders["z0"].value == 0


def test_a_label_outside_the_range_of_its_direction_widens_the_slider(run, suite):
    walk = widgets.LatentExplorer(run, suite, cube=5, n_slices=4, n_directions=1, sheet=curved(0.9, 1.0))
    assert (walk.sliders["sigma_8"].min, walk.sliders["sigma_8"].max) == (0.9, round(suite.params["sigma_8"][5], 2))


def test_a_sheet_knows_only_parameters_that_vary(run, suite):
    sheet, known = suite_sheet(run, suite, n_slices=3)
    assert list(known) == ["sigma_8"]  # Omega_m is 0.3 in all of these cubes
    assert sheet(known.to_numpy()).shape == (6, 512)
    assert (known["sigma_8"].min(), known["sigma_8"].max()) == pytest.approx((0.6, 1.2))


def test_cubes_without_labels_have_no_sliders_for_them(run, unlabelled):
    walk = widgets.LatentExplorer(run, unlabelled, n_slices=4, n_directions=2)
    assert walk.labels == [] and shown(walk) == ["z0", "z1", "h0", "h1"]


@pytest.mark.parametrize(
    ("setting", "error", "sentence"),
    [
        ({"cube": -1}, IndexError, "found cube number -1; expected 0 to 5"),
        ({"seed": 100}, ValueError, "found seed=100; use 0 to 99"),
    ],
)
def test_a_walk_that_is_not_possible_is_refused_in_a_sentence(run, suite, setting, error, sentence):
    with pytest.raises(error, match=sentence):
        widgets.LatentExplorer(run, suite, **setting)


def test_cubes_of_another_voxel_size_are_refused_in_a_sentence(run):
    larger = open_cubes(run.config.data.path, box_size=2 * run.box_size)
    with pytest.raises(ValueError, match="give it the suite that it knows, or one like it"):
        widgets.LatentExplorer(run, larger)


# --- the completed slice, when the hand rests


@pytest.fixture
def completed(run, suite):
    """A walk whose slices are completed by noise, and the list of the noise that was asked for."""
    asked = []

    class Noise:
        """In the place of flows."""

        def draw_z(self, white):
            return white

        def draw_h(self, z, mu, logvar, white):
            return mu + white * (0.5 * logvar).exp()

        def complete(self, mean, z, white):
            asked.append(white)
            return mean + 0.3 * white * z.std()

    made = widgets.LatentExplorer(replace(run, flows=Noise()), suite, n_slices=4, n_directions=2, sheet=NOTHING)
    return made, asked


def test_a_move_shows_the_decoded_mean_at_once_and_the_completed_slice_after_a_rest(completed, walk):
    explorer, _ = completed
    explorer.sliders["h0"].value = walk.sliders["h0"].value = 1.0
    mean = explorer.picture.value
    np.testing.assert_array_equal(array(mean)[live.TOP :], array(walk.picture.value)[live.TOP :])  # below the titles
    assert "decoded mean" in explorer.readout.value
    explorer.settle()
    assert explorer.picture.value != mean and "completed slice" in explorer.readout.value


def test_the_same_place_is_completed_by_the_same_noise_and_another_seed_by_another(completed):
    explorer, asked = completed
    explorer.settle()
    first = explorer.picture.value
    explorer.sliders["z0"].value = 1.0
    explorer.sliders["z0"].value = 0.0
    explorer.settle()
    assert explorer.picture.value == first and all(torch.equal(noise, asked[0]) for noise in asked)
    explorer.seed.value = 3
    explorer.settle()
    assert not torch.equal(asked[-1], asked[0])


def test_many_moves_are_completed_once(completed):
    explorer, asked = completed

    async def drag():
        for value in range(8):
            explorer.sliders["z0"].value = value / 4
        seen = len(asked)
        await asyncio.sleep(3 * REST)
        return seen

    assert asyncio.run(drag()) == 0
    assert len(asked) == 2  # the anchor and where the hand rests
    assert "completed slice" in explorer.readout.value


def test_a_closed_walk_completes_nothing(completed):
    explorer, asked = completed

    async def move_and_close():
        explorer.sliders["z0"].value = 1.0
        explorer.close()
        await asyncio.sleep(2 * REST)

    asyncio.run(move_and_close())
    assert asked == []


def test_the_static_image_is_the_completed_slice(completed):
    explorer, _ = completed
    explorer._repr_mimebundle_()
    assert "completed slice" in explorer.readout.value


# --- cubes


@pytest.fixture
def cube(suite):
    return widgets.CubeExplorer(suite)


@pytest.mark.parametrize(("name", "value"), [("plane", 7), ("axis", 0), ("azimuth", 80.0), ("tilt", 60.0), ("cube", 3)])
def test_a_moved_slider_turns_or_cuts_the_cube_and_moved_back_restores_it(cube, name, value):
    first, control = cube.picture.value, getattr(cube, name)
    start, control.value = control.value, value
    moved = cube.picture.value
    control.value = start
    assert moved != first and cube.picture.value == first


@pytest.mark.parametrize("azimuth", [-160, -20, 70, 130])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_cube_shows_only_voxels_of_its_surface_before_which_nothing_is_left(azimuth, axis):
    view = live.CubeView(16, azimuth, 25, axis, 5, 64)
    eye = np.array([np.cos(np.radians(azimuth)), np.sin(np.radians(azimuth)), 1])
    last = np.where(eye > 0, 15, 0)
    last[axis] = 5
    shown = view.voxel[:, view._face >= 0]
    assert (shown == last[:, None]).any(axis=0).all()
    assert set(shown[axis]) <= (set(range(6)) if eye[axis] > 0 else set(range(5, 16)))
    assert {*view._face.flat} == {-1, 0, 1, 2}


def test_from_above_one_sees_the_plane_of_the_cut():
    view = live.CubeView(16, -90, 90, 2, 5, 98)  # x to the right, y upwards, three pixels a voxel
    rows = np.flatnonzero((view._face == 2).any(axis=1))
    assert len(rows) == pytest.approx(98 / (2 * live.CubeView.REACH), abs=1)
    x, y, z = view.voxel[:, rows[0] : rows[-1] + 1, rows[0] : rows[-1] + 1]
    assert (z == 5).all() and (x == x[0]).all() and (y == y[:, :1]).all()
    assert set(np.diff(x[0])) == set(np.diff(y[:, 0])) == {0, 1}


def test_the_plane_beside_the_cube_is_the_plane_of_the_cut(cube, suite):
    cube.plane.value = 9
    x = log_density(torch.from_numpy(suite.overdensity(0)[:, :, 9])).numpy()
    left, side, zoom = (getattr(cube._panels, name)[1] for name in ("lefts", "sides", "zoom"))
    drawn = array(cube.picture.value)[live.TOP : live.TOP + side, left : left + side]
    assert np.abs(drawn[::-zoom, ::zoom].astype(int) - live._indices(x, cube._panels.panels[1])).max() <= 1


def test_a_stack_of_maps_is_no_cube_to_turn(suite):
    with pytest.raises(ValueError, match=r"found 8 planes of 32\^2 voxels"):
        widgets.CubeExplorer(SimpleNamespace(n_planes=8, side=32))


# --- reconstructions


def test_slices_are_sorted_by_error(reconstruction):
    shown = []
    for rank in (1, 2, 3, 4):
        reconstruction.rank.value = rank
        shown.append(float(reconstruction.readout.value.split()[-5]))
    assert shown == sorted(shown, reverse=True)


def test_another_cube_shows_other_slices(reconstruction):
    first = reconstruction.picture.value
    reconstruction.cube.value = 2
    assert reconstruction.picture.value != first and "cube 2" in reconstruction.readout.value


# --- all of them


@pytest.fixture(params=["slices", "cube", "walk", "reconstruction"])
def explorer(request):
    return request.getfixturevalue(request.param)


def test_the_bundle_carries_the_widget_and_its_picture(explorer):
    bundle = explorer._repr_mimebundle_()
    assert bundle["application/vnd.jupyter.widget-view+json"]["model_id"] == explorer.model_id
    still = opened(base64.b64decode(bundle["image/png"]))
    pictures = [opened(image.value) for image in (explorer.picture, explorer.curves)]
    assert still.size == (max(p.width for p in pictures), sum(p.height for p in pictures))
    assert explorer.readout.value in bundle["text/plain"]


def test_pictures_are_opaque_on_a_light_ground(explorer):
    still = opened(base64.b64decode(explorer._repr_mimebundle_()["image/png"]))
    assert "transparency" not in still.info
    assert np.asarray(still.convert("L"))[0, 0] == 255


def test_a_picture_is_replaced_in_the_same_widget_once_a_move(explorer):
    seen, picture = [], explorer.picture
    picture.observe(lambda change: seen.append(change["new"]), names="value")
    next(c for c in (getattr(explorer, n, None) for n in ("plane", "seed", "rank")) if c is not None).value += 1
    assert seen == [picture.value] and explorer.picture is picture


def test_another_cube_draws_one_picture(explorer):
    seen = []
    explorer.curves.observe(lambda change: seen.append(change["new"]), names="value")
    explorer.cube.value = 4
    assert len(seen) == 1


def test_moves_and_cubes_leave_no_observer_and_no_widget_behind(explorer):
    def count():
        calls = [
            calls for c in _descendants(explorer) for kinds in c._trait_notifiers.values() for calls in kinds.values()
        ]
        return sum(map(len, calls)), len(registry._instances)

    before = count()
    for cube in (1, 2, 0, 1):
        explorer.cube.value = cube
    assert count() == before


def test_a_closed_explorer_leaves_nothing_behind(suite):
    before = set(registry._instances)
    explorer = widgets.SliceExplorer(suite)
    assert set(registry._instances) > before
    explorer.close()
    assert set(registry._instances) == before


def test_a_closed_walk_leaves_nothing_behind(run, suite):
    before = set(registry._instances)
    widgets.LatentExplorer(run, suite, n_slices=3, n_directions=1, sheet=NOTHING).close()
    assert set(registry._instances) == before


def test_explorers_do_not_import_lightning():
    code = "import sys, uvae_lib.widgets; print(sorted({'lightning', 'pytorch_lightning', 'jax'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
