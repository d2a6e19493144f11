"""The explorers in a real browser: in JupyterLab, light and dark, and as the page that `make explore` serves."""

import base64
import json
import re
import secrets
import shutil
import subprocess
import sys

import nbformat
import pytest
from live_lab import (
    COUNTS_AND_ERRORS,
    Server,
    changed_picture,
    free_port,
    open_and_run,
    picture,
    press,
    private_environment,
    serving,
)
from suites import lognormal_suite, tiny_config

from uvae_lib.runs.run import weights_as_bytes

PICTURE = ".uvae-picture"
SOURCE = "document.querySelector('img.uvae-picture, .uvae-picture img')?.src"
SHOWN = """selector => { const image = document.querySelector(selector);
    return image && image.complete && image.naturalWidth > 0; }"""
COUNT_PICTURES = """() => { window.pictures = 0;
    const image = document.querySelector('img.uvae-picture, .uvae-picture img');
    const count = new MutationObserver(() => { window.pictures += 1; });
    count.observe(image, {attributes: true, attributeFilter: ['src']}); }"""
OPEN = """
from uvae_lib import widgets
from uvae_lib.runs.run import load_run
run = load_run({run!r})
suite = run.open_suite()
explorer = widgets.{explorer}
explorer
"""

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a run that was really trained, if only for a few steps."""
    from uvae_lib.training.fit import fit

    folder = tmp_path_factory.mktemp("trained")
    config = tiny_config(lognormal_suite(folder / "data"), steps=3)
    run = fit(config, folder / "run", progress=False)
    means, _ = run.model.decoder_z.layers[-1].weight.chunk(2)
    means.mul_(30), run.model.decoder_h.layers[-1].weight.mul_(30)  # a few steps leave both nearly deaf
    (run.folder / "best.safetensors").write_bytes(weights_as_bytes(run.model))
    return run.folder


@pytest.fixture
def show(page, lab, trained):
    """Opens a notebook that shows an explorer, and waits for its pictures."""

    def open_it(name, explorer, first="", shown=PICTURE):
        source = first + OPEN.format(run=str(trained), explorer=explorer)
        nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
        nb.metadata.kernelspec = {"name": "python3", "display_name": "Python 3 (ipykernel)"}
        nbformat.write(nb, lab.folder / f"{name}.ipynb")
        page.set_viewport_size({"width": 1650, "height": 1000})
        open_and_run(page, lab, f"{name}.ipynb")
        page.wait_for_function(SHOWN, arg=shown)
        return page

    return open_it


def errors(page):
    """Errors that any cell of the open notebook shows by now."""
    return [error for _, found in page.evaluate(COUNTS_AND_ERRORS) for error in found]


def moved(page, control, key="ArrowRight", times=1):
    """Press keys on a slider; the picture's address must change, and what is seen with it."""
    before, address = picture(page, PICTURE), page.evaluate(SOURCE)
    press(page, f".uvae-{control} .noUi-handle", key, times)
    changed_picture(page, PICTURE, before)
    return page.evaluate(SOURCE) != address


def test_keys_on_the_sliders_of_the_slice_explorer_move_its_picture(show):
    page = show("slices", "SliceExplorer(suite, corner=(24, 24))")
    assert [moved(page, name) for name in ("plane", "row", "col")] == [True] * 3
    assert not errors(page)


def test_keys_on_the_sliders_of_all_three_tabs_move_the_slice(show):
    page = show("latents", "LatentExplorer(run, suite)")
    assert moved(page, "sigma_8", times=8)
    page.get_by_text("Universe z", exact=True).click()
    assert moved(page, "z0", times=5)
    page.get_by_text("Place h", exact=True).click()
    assert moved(page, "unit_h", times=20)
    before = picture(page, PICTURE)
    page.get_by_role("button", name="new place").click()
    changed_picture(page, PICTURE, before)
    assert not errors(page)


def test_six_clicks_and_the_quiz_tells_the_score(show):
    page = show("quiz", "Quiz(run, suite)", shown=".uvae-quiz img")
    for number in range(1, 7):
        page.locator("button.jupyter-button", has_text=re.compile(f"^{number}$")).click()
    page.get_by_role("button", name="reveal").click()
    page.get_by_text(re.compile(r"\d of 6 found; blindly")).wait_for()
    assert not errors(page)


def test_a_page_from_a_file_moves_by_the_keys_without_a_kernel(page, trained, tmp_path):
    from uvae_lib.explore import SliceExplorer, pages
    from uvae_lib.runs.run import load_run

    file = tmp_path / "slices.html"
    file.write_text(f"<meta charset=utf-8>{pages.moving(SliceExplorer(load_run(trained).open_suite()))}")
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(file.as_uri())
    image = page.locator(".uvae-page img")
    first, text = image.get_attribute("src"), page.locator(".uvae-page p").inner_text()
    page.locator(".uvae-page input").first.focus()
    page.keyboard.press("ArrowRight")
    assert image.get_attribute("src") != first and page.locator(".uvae-page p").inner_text() != text
    page.keyboard.press("ArrowLeft")
    assert image.get_attribute("src") == first
    page.locator(".uvae-page button").last.click()
    page.wait_for_function("first => document.querySelector('.uvae-page img').src !== first", arg=first)
    assert not [url for url in asked if not url.startswith(("file:", "data:"))]


def test_keys_turn_the_cube_and_cut_it(show):
    page = show("cube", "CubeExplorer(suite)")
    assert [moved(page, name, times=5) for name in ("azimuth", "tilt", "plane")] == [True] * 3
    assert not errors(page)


def test_a_fast_hand_is_followed_without_drawing_every_place_that_it_passed(show):
    slow = "import time; explorer.picture.observe(lambda change: time.sleep(0.5), names='value')"
    page = show("drag", f"SliceExplorer(suite)\n{slow}")
    page.evaluate(COUNT_PICTURES)
    place = page.locator(".uvae-plane .noUi-handle").bounding_box()
    x, y = place["x"] + place["width"] / 2, place["y"] + place["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    for i in range(1, 41):
        page.mouse.move(x + 3 * i, y)
        page.wait_for_timeout(20)
    page.mouse.up()
    plane = int(page.locator(".uvae-plane .widget-readout").inner_text())
    page.get_by_text(f"x = {plane * 25 / 32:.1f} to").wait_for(timeout=5000)
    drawn = page.evaluate("window.pictures")
    assert plane > 10 and 1 <= drawn < plane / 2, f"{drawn} pictures on the way to plane {plane}"


def test_moving_a_slider_keeps_the_picture_element(show):
    page = show("same_image", "SliceExplorer(suite)")
    page.evaluate("() => { document.querySelector('.uvae-picture').mine = true; }")
    moved(page, "plane", times=3)
    assert page.evaluate("document.querySelectorAll('.uvae-picture').length") == 1
    assert page.evaluate("document.querySelector('.uvae-picture').mine") is True


def test_the_reconstruction_explorer_can_be_read_in_the_dark(show):
    page = show("dark", "ReconstructionExplorer(run, suite)")
    page.evaluate("window.jupyterapp.commands.execute('apputils:change-theme', {theme: 'JupyterLab Dark'})")
    page.wait_for_function("() => document.body.dataset.jpThemeLight === 'false'")
    assert moved(page, "rank")
    colours = page.evaluate("getComputedStyle(document.querySelector('.uvae-rank .widget-label')).color")
    assert min(int(c) for c in colours[4:-1].split(",")[:3]) > 180, f"labels are {colours} on a dark ground"
    assert not errors(page)


def test_a_reader_without_a_kernel_sees_the_picture(show, lab):
    page = show("stored", "SliceExplorer(suite)")
    page.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')")
    (cell,) = nbformat.read(lab.folder / "stored.ipynb", as_version=4).cells
    stored = [o.data["image/png"] for o in cell.outputs if "image/png" in o.get("data", {})]
    assert base64.b64decode(stored[-1]).startswith(b"\x89PNG")


@pytest.fixture(scope="module")
def smoke(lab):
    """The smoke preset's suite and run, where the notebooks in Lab look for them."""
    env = private_environment(lab.folder) | {"UVAE_HOME": str(lab.folder), "TQDM_DISABLE": "1"}
    for verb in ("simulate", "train"):
        subprocess.run([sys.executable, "-m", "uvae_lib", verb, "--preset", "smoke"], env=env, check=True)


def test_notebook_4_runs_and_its_sliders_turn_the_universe(page, lab, smoke):
    page.set_viewport_size({"width": 1650, "height": 1000})
    open_and_run(page, lab, "notebooks/04_latent_traversals.ipynb", timeout=300)
    page.wait_for_function(SHOWN, arg=PICTURE)
    page.get_by_text("Place h", exact=True).click()  # z of a smoke run moves nothing that is seen
    assert moved(page, "unit_h", times=20) and not errors(page)


@pytest.fixture(scope="module")
def served(trained, tmp_path_factory):
    """The explore page as `make explore` serves it, on a copy of the notebook and the run above."""
    folder, base = tmp_path_factory.mktemp("explore"), tmp_path_factory.mktemp("voila")
    (folder / "notebooks").mkdir()
    shutil.copy("notebooks/explore.ipynb", folder / "notebooks")
    server = Server(f"http://127.0.0.1:{free_port()}", secrets.token_hex(16), folder, base / "voila.log")
    port = server.url.rsplit(":", 1)[1]
    command = [sys.executable, "-m", "voila", str(folder / "notebooks" / "explore.ipynb"), "--no-browser"]
    command += ["--Voila.ip=127.0.0.1", f"--port={port}", f"--token={server.token}", "--show_tracebacks=True"]
    data = json.loads((trained / "run.json").read_text())["config"]["data"]["path"]
    env = private_environment(base) | {"UVAE_RUN": str(trained), "UVAE_DATA": data}
    with serving(command, f"{server.url}/static/", server.log, env):
        yield server


def test_the_page_of_make_explore_shows_two_explorers_that_move(page, served):
    page.set_viewport_size({"width": 1500, "height": 2500})
    page.set_default_timeout(180_000)
    page.goto(f"{served.url}/?token={served.token}", wait_until="commit")
    page.locator(".uvae-explorer").nth(1).wait_for()
    page.wait_for_function(SHOWN, arg=PICTURE)
    assert moved(page, "sigma_8", times=8)
    assert not page.locator(".jp-RenderedText[data-mime-type*=stderr]").count()


def test_the_page_of_make_explore_asks_for_its_token(page, served):
    page.goto(served.url)
    assert not page.locator(".uvae-explorer").count()
