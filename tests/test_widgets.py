"""Explorers through their traits, without a kernel: what a moved control does to the picture."""

import base64
import io
import json
import re
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from suites import lognormal_suite, tiny_config

from uvae_lib import widgets
from uvae_lib.cropping import Cuts, cut_slices, log_density
from uvae_lib.cubes.suite import open_cubes
from uvae_lib.explore import pages
from uvae_lib.explore import pictures as live
from uvae_lib.runs.encode import encode_slices
from uvae_lib.runs.traverse import decode_universe, place_of
from uvae_lib.runs.universes import encode_universes, universes_of
from uvae_lib.training.fit import fit


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("widgets")
    run = fit(tiny_config(lognormal_suite(folder / "data", n_cubes=8), steps=3), folder / "run", progress=False)
    means, _ = run.model.decoder_z.layers[-1].weight.chunk(2)
    means.mul_(30), run.model.decoder_h.layers[-1].weight.mul_(30)  # a few steps leave both nearly deaf
    suite = run.open_suite()
    one_p = encode_universes(run, suite, n_slices=4, n_shown=3)
    twins = {"sigma_8": (np.array([0.6, 0.7, 1.2]), one_p.slices[0, :3])}
    run.loaded["universes", None] = replace(one_p, twins=twins)
    run.loaded["universes", suite] = one_p
    run.open_suite = lambda: suite
    return run


@pytest.fixture(scope="module")
def suite(run):
    return run.open_suite()


@pytest.fixture
def slices(suite):
    return widgets.SliceExplorer(suite)


@pytest.fixture
def cube(suite):
    return widgets.CubeExplorer(suite)


@pytest.fixture
def walk(run, suite):
    return widgets.LatentExplorer(run, suite)


@pytest.fixture
def reconstruction(run, suite):
    return widgets.ReconstructionExplorer(run, suite)


def opened(png):
    return Image.open(io.BytesIO(png))


def shown(explorer, panel=0):
    """The colours of a panel's pixels, one a pixel of the image, row 0 first: (H, H, 3)."""
    board, picture = explorer._board, np.asarray(opened(explorer.picture.value))
    left, side = board.lefts[panel], board.sides[panel]
    size = explorer._board._images[panel].get_array().shape[0]
    zoom = side // size
    return picture[live.TOP : live.TOP + side, left : left + side][::-1][zoom // 2 :: zoom, zoom // 2 :: zoom]


def assert_shows(explorer, panel, x):
    """Colours may differ by rounding."""
    expected = live.colours_of(x.numpy(), explorer._board.panels[panel])
    assert np.abs(shown(explorer, panel).astype(int) - expected).max() <= 3


# --- pixels


def test_values_off_the_scale_get_its_end_colours_and_none_is_grey():
    ends = live.colours_of(np.array([-9.0, -1.0, 1.0, 9.0, np.nan]), live.Panel("", 1.0, -1, 1))
    assert (ends[0] == ends[1]).all() and (ends[2] == ends[3]).all() and len(set(ends[4].tolist())) == 1


def test_zero_difference_is_white():
    assert (live.colours_of(np.zeros(1), live.Panel("", 1.0, -1, 1, "", live.plots.DIFFERENCE_MAP)) > 240).all()


def test_an_outline_wraps_around_the_plane():
    marked = (live.outlined(np.zeros((8, 8, 3), np.uint8), 6, 6, 4) == live.MARK).all(axis=2)
    expected = np.pad(np.zeros((2, 2)), 1, constant_values=1)
    np.testing.assert_array_equal(marked, np.roll(np.pad(expected, ((0, 4), (0, 4))), 6, (0, 1)))


def test_a_line_left_out_is_not_drawn():
    axis = live.Axis("", "", (0, 1), (0, 1), "linear")
    board = live.Board([live.Panel("", 1.0, 0, 1)], [4], [axis], {"a": "red", "b": "blue"}, target=64)
    image, line = np.zeros((4, 4)), ([0, 1], [0.3, 0.7])
    both, one, again = (board.draw([image], [dict.fromkeys(names, line)]) for names in ("ab", "a", "ab"))
    assert both != one and both == again


# --- slices


@pytest.mark.parametrize(("name", "value"), [("plane", 7), ("row", 5), ("col", 5), ("axis", 1)])
def test_a_moved_slider_changes_the_picture_and_moved_back_restores_it(slices, name, value):
    first, control = slices.picture.value, getattr(slices, name)
    start, control.value = control.value, value
    moved = slices.picture.value
    control.value = start
    assert moved != first and slices.picture.value == first


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_explorer_shows_what_cut_slices_cuts(suite, axis):
    explorer = widgets.SliceExplorer(suite, corner=(20, 25))
    explorer.axis.value, explorer.plane.value = axis, 30
    zero = torch.zeros(1, dtype=torch.long)
    where = (torch.tensor([n]) for n in (axis, 30, 20, 25))
    x = cut_slices(log_density(torch.from_numpy(suite.overdensity(0)))[None], Cuts(zero, *where, *[zero] * 3), 16)
    assert_shows(explorer, 1, x[0, 0])


def test_a_corner_is_taken_modulo_the_side(suite):
    here, around = (widgets.SliceExplorer(suite, corner=c) for c in ((30, 3), (-2, 35)))
    assert here.picture.value == around.picture.value


def test_a_slice_is_labelled_in_megaparsecs(slices):
    slices.plane.value = 7
    pixel = slices.source.box_size / slices.source.side
    assert f"x = {7 * pixel:.1f} to {8 * pixel:.1f} Mpc/h" in slices.readout.value


def test_a_cube_that_is_not_there_is_refused_in_a_sentence(suite):
    with pytest.raises(IndexError, match="found cube number 8; expected 0 to 7"):
        widgets.SliceExplorer(suite, cube=8)


# --- latents


@pytest.mark.parametrize("name", ["z0", "z2", "sigma_8", "unit_h"])
def test_a_walk_through_the_latents_changes_the_picture_and_back_again(walk, name):
    slider = walk.sliders[name]
    first, start = walk.picture.value, slider.value
    slider.value = start + 0.2 if name == "sigma_8" else 3.0
    moved = walk.picture.value
    slider.value = start
    assert moved != first and walk.picture.value == first


def test_z_moves_along_the_directions_and_the_sheet_at_the_place_of_the_slice(walk, run):
    walk.sliders["z1"].value, walk.sliders["sigma_8"].value = 2.0, 0.9
    source, z = walk.source, walk.source.drawn[0]
    here, there = source.sheet(np.array([[walk._home["sigma_8"]], [0.9]]))
    place = place_of(run, z, encode_slices(run, source.slices[0, :1], z).mu)
    x = decode_universe(run, z + 2 * walk.directions.steps[1] + there - here, place)
    assert_shows(walk, 0, run.to_log(x)[0, 0])


def test_a_unit_of_h_moves_in_widths_of_its_prior(walk, run):
    walk.rank.value, walk.sliders["unit_h"].value = 2, -1.5
    unit, z = int(walk.source.kl["h"].argsort(descending=True)[1]), walk.source.drawn[0]
    place = place_of(run, z, encode_slices(run, walk.source.slices[0, :1], z).mu)
    place[0, unit] -= 1.5
    assert_shows(walk, 0, run.to_log(decode_universe(run, z, place))[0, 0])


def test_units_are_sorted_by_their_kl(walk):
    kl = []
    for rank in (1, 2, 100, 512):
        walk.rank.value = rank
        kl.append(float(walk.source.kl["h"][int(walk.rank.description.split()[1])]))
    assert kl == sorted(kl, reverse=True)


def test_at_the_anchor_there_is_no_difference(walk):
    assert (shown(walk, 1) > 240).all()


def test_the_button_leads_back_to_the_anchor(walk):
    first = walk.picture.value
    walk.sliders["z0"].value, walk.sliders["sigma_8"].value = 3.0, 0.9
    walk.back.click()
    assert walk.picture.value == first and "at the anchor" in walk.readout.value


def test_another_cube_starts_at_its_own_label(walk):
    walk.sliders["z0"].value = 3.0
    walk.cube.value = 2
    assert walk.sliders["sigma_8"].value == round(walk.source.params["sigma_8"][2], 2)
    assert walk.sliders["z0"].value == 0


def button(explorer, text):
    return next(w for tab in explorer.tabs.children for w in tab.children if w.description == text)


def test_a_random_universe_keeps_the_place_and_a_new_place_keeps_the_universe(walk):
    z, place = walk._z0, walk._place
    button(walk, "random universe").click()
    assert not torch.equal(walk._z0, z) and torch.equal(walk._place, place)
    z = walk._z0
    button(walk, "new place").click()
    assert torch.equal(walk._z0, z) and not torch.equal(walk._place, place)


def test_the_fiducial_cube_stands_beside_the_simulated_slice_of_the_nearest_value(run):
    walk = widgets.LatentExplorer(run)
    walk.sliders["sigma_8"].value = 1.15
    assert "simulated: σ₈ = 1.20" in walk.readout.value
    assert_shows(walk, 1, run.to_log(walk.source.twins["sigma_8"][1][2, 0]))


def test_the_simulated_slice_goes_when_more_than_the_cosmology_is_moved(run):
    walk = widgets.LatentExplorer(run)
    walk.sliders["z0"].value = 1.0
    assert "simulated" not in walk.readout.value and walk._board.panels[1].title == "difference to the anchor"


def test_cubes_without_labels_have_no_tab_for_them(run):
    unlabelled = open_cubes(run.config.data.path, params="none", box_size=run.box_size)
    walk = widgets.LatentExplorer(run, unlabelled)
    assert list(walk.tabs.titles) == ["Universe z", "Place h"] and "sigma_8" not in walk.sliders


def test_cubes_of_another_voxel_size_are_refused_in_a_sentence(run):
    larger = open_cubes(run.config.data.path, box_size=2 * run.box_size)
    with pytest.raises(
        ValueError, match=r"voxels \[Mpc/h\] .* was trained on; a model is used on what it was trained for"
    ):
        widgets.LatentExplorer(run, larger)


# --- the completed slice


@pytest.fixture
def completed(run, suite):
    """A walk whose slices are completed by noise, and the list of the noise that was asked for."""
    asked = []

    class Noise:
        """In the place of flows."""

        def draw_h(self, z, mu, logvar, white):
            return mu + white * (0.5 * logvar).exp()

        def complete(self, mean, z, white):
            asked.extend(white)
            return mean + 0.3 * white * z.std()

    return widgets.LatentExplorer(replace(run, loaded=run.loaded | {"flows": Noise()}), suite), asked


def test_the_smooth_look_is_the_decoded_mean(completed, walk):
    explorer, asked = completed
    assert explorer.picture.value != walk.picture.value
    n_asked, explorer.looks.value = len(asked), "smooth"
    assert explorer.picture.value == walk.picture.value and len(asked) == n_asked


def test_every_place_is_completed_by_the_same_noise(completed):
    explorer, asked = completed
    explorer.sliders["z0"].value = 1.0
    explorer.cube.value = 2
    assert len(asked) >= 6 and all(torch.equal(noise, asked[0]) for noise in asked)


# --- cubes


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
    assert_shows(cube, 1, log_density(torch.from_numpy(suite.overdensity(0)[:, :, 9])))


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


# --- the quiz and the reader


@pytest.fixture
def quiz(run, suite):
    return widgets.Quiz(run, suite)


def test_half_of_the_slices_of_the_quiz_were_drawn(quiz):
    assert sum(quiz.answer) == 6 and len(quiz.images) == 12


def test_the_answer_is_told_when_six_are_chosen(quiz):
    assert quiz.reveal.disabled
    for choice, drawn in zip(quiz.choices, quiz.answer, strict=True):
        choice.value = drawn
    assert not quiz.reveal.disabled
    quiz.reveal.click()
    assert quiz.readout.value == "6 of 6 found; blindly one does as well with probability 0.0011"  # once in 924


def test_none_is_found_by_chance_always(quiz):
    for choice, drawn in zip(quiz.choices, quiz.answer, strict=True):
        choice.value = not drawn
    quiz.reveal.click()
    assert quiz.readout.value == "0 of 6 found; blindly one does as well with probability 1"


class Posterior:
    """As narrow as the slices are many, around the mean of z."""

    names, low, high = ["Omega_m", "sigma_8"], torch.tensor([0.1, 0.6]), torch.tensor([0.5, 1.2])

    def sample(self, z, n_slices, n, generator):
        return 0.5 + 0.1 / n_slices * torch.randn(n, 2, generator=generator)


def test_more_slices_shrink_the_posterior_on_the_plane(run, suite):
    reader = widgets.CubeReader(run, Posterior(), suite)
    first = reader.readout.value
    reader.n_slices.value = 10
    widths = [float(re.search(r"± (\S+),", text)[1]) for text in (first, reader.readout.value)]
    assert widths[1] < widths[0] / 5


@pytest.mark.parametrize(("probability", "word"), [(0.5, "; like the"), (0.001, "; UNLIKE the")])
def test_the_badge_says_whether_a_cube_is_like_those_of_the_training(run, suite, probability, word):
    reader = widgets.CubeReader(run, Posterior(), suite, likeness=lambda slices: probability)
    assert word in reader.readout.value


def test_cubes_without_parameters_are_read_too(run, suite, tmp_path):
    np.save(tmp_path / "mine.npy", suite.overdensity(3))
    mine = open_cubes(tmp_path / "mine.npy", box_size=run.box_size, field_type="overdensity", params="none")
    reader = widgets.CubeReader(run, Posterior(), mine)
    assert reader.readout.value.startswith("cube 0: ") and "from 1 slice" in reader.readout.value


# --- all of them


@pytest.fixture(params=["slices", "cube", "walk", "reconstruction", "quiz"])
def explorer(request):
    return request.getfixturevalue(request.param)


def test_the_bundle_carries_the_widget_and_a_still(explorer):
    bundle = explorer._repr_mimebundle_()
    assert bundle["application/vnd.jupyter.widget-view+json"]["model_id"] == explorer.model_id
    still, picture = (opened(png) for png in (base64.b64decode(bundle["image/png"]), explorer.drawn()))
    assert still.width >= picture.width and still.height > picture.height
    assert explorer.readout.value in bundle["text/plain"] and "text/html" not in bundle


def test_a_still_says_where_its_sliders_stand(slices):
    before = np.asarray(opened(pages.still(slices)).convert("RGB"))
    slices.col.value = 20
    after = np.asarray(opened(pages.still(slices)).convert("RGB"))
    assert (before != after)[: 2 * pages.ROW].any(axis=(1, 2))[pages.ROW :].any()


def test_pictures_are_opaque_on_a_light_ground(explorer):
    still = opened(base64.b64decode(explorer._repr_mimebundle_()["image/png"]))
    assert "transparency" not in still.info
    assert np.asarray(still.convert("L"))[0, 0] == 255


def test_another_cube_draws_one_picture(slices):
    seen = []
    slices.picture.observe(lambda change: seen.append(change["new"]), names="value")
    slices.cube.value = 4
    assert len(seen) == 1


def films(page):
    return json.loads(re.search(r"films = (\[.*\]);", page)[1].replace("<\\/", "</"))


def test_a_page_has_a_frame_for_each_place_of_its_sliders(walk, monkeypatch):
    monkeypatch.setenv("UVAE_PAGES", "1")
    found = films(walk._repr_mimebundle_()["text/html"])
    assert [film["name"] for film in found][:2] == ["σ₈", "PC 1 (" + found[1]["name"].split("(")[1]]
    assert [len(film["frames"]) for film in found] == [pages.MOST, pages.REST, pages.REST]


def test_the_frame_at_home_is_what_the_explorer_shows(slices):
    slices.plane.value = 9
    film = pages.record(slices, "plane", 8)
    frame = "9", slices.readout.value, pages.address(slices.picture.value)
    assert film["frames"][film["home"]] == frame and slices.plane.value == 9
    assert len(set(film["frames"])) == len(film["frames"])


def test_explorers_do_not_import_lightning():
    code = "import sys, uvae_lib.explore; print(sorted({'lightning', 'pytorch_lightning', 'jax'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


# --- universes


def test_held_out_cubes_come_first_and_are_those_whose_slices_are_kept(run, suite):
    found = encode_universes(run, suite, n_slices=3, n_shown=2)
    order = run.split["test"] + run.split["val"] + run.split["train"]
    assert found.params["sigma_8"].tolist() == suite.params["sigma_8"][order].tolist()
    assert found.slices.shape == (2, 3, 1, 32, 32) and found.z.mu.shape == (8, 512)


def test_universes_are_encoded_once(run):
    assert universes_of(run) is universes_of(run)


def test_shipped_universes_are_read_back(run, suite, tmp_path):
    from benchmarks.ship import save_universes

    saved = universes_of(run)
    save_universes(saved, tmp_path / "slices.npz")
    read = universes_of(replace(run, folder=tmp_path, loaded={}))
    torch.testing.assert_close(read.slices, saved.slices, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(read.z.mu, saved.z.mu, rtol=1e-3, atol=1e-3)
    assert read.params.round(5).equals(saved.params.astype(float).round(5))
    assert read.twins["sigma_8"][0].tolist() == [0.6, 0.7, 1.2] and read.side == 32
