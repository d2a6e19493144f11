"""The way we drive JupyterLab: a slider moves a picture, and an error in a cell does not pass unseen."""

import nbformat
import pytest
from live_lab import changed_picture, open_and_run, picture, press

pytestmark = pytest.mark.browser

SLIDER = """
import io
import ipywidgets
import numpy as np
from PIL import Image

def disc(radius):
    i, j = np.indices((80, 80)) - 40
    file = io.BytesIO()
    Image.fromarray(np.where(i**2 + j**2 < radius**2, 255, 60).astype("uint8")).save(file, "png")
    return file.getvalue()

slider = ipywidgets.IntSlider(10, 5, 35, 5, description="radius")
view = ipywidgets.Image(value=disc(10), width=160)
slider.observe(lambda change: setattr(view, "value", disc(change["new"])), names="value")
_ = slider.add_class("test-slider"), view.add_class("test-view")
ipywidgets.VBox([slider, view])
"""


@pytest.fixture
def notebook(lab):
    """Writes a notebook of one cell below the running Lab; gives its path there."""

    def write(name, source):
        nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
        nb.metadata.kernelspec = {"name": "python3", "display_name": "Python 3 (ipykernel)"}
        nbformat.write(nb, lab.folder / name)
        return name

    return write


def test_a_slider_moves_the_picture(page, lab, notebook):
    open_and_run(page, lab, notebook("slider.ipynb", SLIDER))
    page.locator(".test-view").wait_for()
    first = picture(page, ".test-view")
    press(page, ".test-slider .noUi-handle", times=3)
    second = changed_picture(page, ".test-view", first)
    assert len(second) > 100


def test_a_picture_that_nobody_moves_keeps_its_bytes(page, lab, notebook):
    open_and_run(page, lab, notebook("still.ipynb", SLIDER))
    page.locator(".test-view").wait_for()
    before = picture(page, ".test-view")
    with pytest.raises(AssertionError, match="did not change"):
        changed_picture(page, ".test-view", before, timeout=1)


def test_an_error_in_a_cell_is_seen(page, lab, notebook):
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        open_and_run(page, lab, notebook("error.ipynb", "1 / 0"))
