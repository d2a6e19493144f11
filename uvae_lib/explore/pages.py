"""What is left of explorers without a kernel: a still that shows the controls, and pages whose sliders move.

A page holds the frames of a few sliders and a script of a few lines that exchanges them; it needs no network.
"""

import base64
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import ipywidgets as ui
import numpy as np
from PIL import Image, ImageDraw

from .pictures import as_png, font, opened, paste

TEMPLATE = Path(__file__).with_name("page.html")
MOST, REST = 24, 6  # frames of the first slider of a page, and of each other
WIDTH, ROW = 330, 30  # of the controls in a still [pixels]
INK, FAINT, ACCENT, SHADE = "#222222", "#c4c4c4", "#1976d2", "#eeeeee"


def visible(widget: ui.Widget) -> Iterator[ui.Widget]:
    """The controls that are seen in a box; of tabs, the one that is open."""
    if isinstance(widget, ui.Tab):
        yield widget
        yield from visible(widget.children[widget.selected_index])
    elif isinstance(widget, ui.Box):
        for child in widget.children:
            yield from visible(child)
    elif widget.layout.display != "none":
        yield widget


def still(box: ui.Widget, text: str, picture: bytes) -> bytes:
    """The controls of a box beside a picture, a text above, as PNG."""
    page = paste([[controls_picture(box), opened(picture)]], gap=12)
    head = Image.new("RGB", (page.width, ROW), "white")
    ImageDraw.Draw(head).text((8, ROW / 2), text, INK, font(), anchor="lm")
    small = paste([[head], [page]]).quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    return as_png(small, optimize=True)


def controls_picture(box: ui.Widget) -> Image.Image:
    """The controls of a box as they stand, WIDTH pixels wide."""
    shown = [widget for widget in visible(box) if not isinstance(widget, ui.Play | ui.HTML)]
    page = Image.new("RGB", (WIDTH, ROW * len(shown) + 8), "white")
    pen = ImageDraw.Draw(page)
    for middle, widget in zip(range(ROW // 2 + 4, page.height, ROW), shown, strict=False):
        if isinstance(widget, ui.Tab):
            _buttons(pen, middle, widget.titles, widget.selected_index)
        elif isinstance(widget, ui.ToggleButtons):
            _buttons(pen, middle, widget.options, widget.index)
        elif isinstance(widget, ui.Button | ui.Text):
            _buttons(pen, middle, [widget.description], None)
        else:
            _slider(pen, middle, widget)
    return page


def _slider(pen: ImageDraw.ImageDraw, middle: int, widget: ui.Widget) -> None:
    share, text = position(widget)
    left, right = 128, WIDTH - 64
    pen.text((left - 10, middle), widget.description, INK, font(), anchor="rm")
    pen.text((right + 12, middle), text, INK, font(), anchor="lm")
    pen.rounded_rectangle((left, middle - 2, right, middle + 2), 2, FAINT)
    at = left + share * (right - left)
    pen.ellipse((at - 7, middle - 7, at + 7, middle + 7), ACCENT)


def _buttons(pen: ImageDraw.ImageDraw, middle: int, texts: Sequence[str], chosen: int | None) -> None:
    width = (WIDTH - 12) / max(len(texts), 2)
    for number, text in enumerate(texts):
        left, (ground, ink) = 8 + number * width, (ACCENT, "white") if number == chosen else (SHADE, INK)
        pen.rounded_rectangle((left, middle - 12, left + width - 4, middle + 12), 4, ground)
        pen.text((left + width / 2 - 2, middle), text, ink, font(), anchor="mm")


def position(widget: ui.Widget) -> tuple[float, str]:
    """Where the handle of a slider stands, from 0 to 1, and its value as text."""
    if isinstance(widget, ui.SelectionSlider):
        return widget.index / max(len(widget.options) - 1, 1), widget.options[widget.index][0]
    value = np.log10(widget.value) if isinstance(widget, ui.FloatLogSlider) else widget.value
    return (value - widget.min) / max(widget.max - widget.min, 1e-9), format(widget.value, widget.readout_format)


def record(explorer, name: str, n: int = MOST) -> dict:
    """Move a control of an explorer from end to end, and back to where it was.

    explorer   with `controls`, {name: control}, `picture`, `readout` and `open_tab`
    n          places, at most
    Returns {"name", "home": index, "values": [text], "texts": [text], "frames": [PNG]}.
    """
    widget = explorer.controls[name]
    home, values = widget.value, places(widget, n)
    explorer.open_tab(name)
    found = {"name": widget.description, "home": values.index(home), "values": [], "texts": [], "frames": []}
    for value in values:
        widget.value = value
        found["values"].append(position(widget)[1])
        found["texts"].append(explorer.readout.value)
        found["frames"].append(explorer.picture.value)
    widget.value = home
    return found


def places(widget: ui.Widget, n: int) -> list:
    """At most n values of a slider from end to end, the present one among them."""
    count = min(n, round((widget.max - widget.min) / widget.step) + 1)
    values = np.linspace(widget.min, widget.max, count).round(0 if isinstance(widget, ui.IntSlider) else 6)
    values = values.astype(type(widget.value)).tolist()
    values[int(np.abs(np.subtract(values, widget.value)).argmin())] = widget.value
    return values


def moving(explorer) -> str:
    """An explorer as HTML that moves without a kernel: the sliders of `explorer.FILM`, one at a time."""
    names = [name for name in explorer.FILM if name in explorer.controls]
    films = [record(explorer, name, REST if i else MOST) for i, name in enumerate(names)]
    for film in films:
        film["frames"] = [_address(png) for png in film["frames"]]
    return TEMPLATE.read_text(encoding="utf-8").replace("FILMS", json.dumps(films).replace("</", "<\\/"))


def _address(png: bytes) -> str:
    """A picture as a data address: WebP of 64 colours, a quarter of the PNG."""
    file, colours = io.BytesIO(), opened(png).quantize(64, dither=Image.Dither.NONE)
    colours.convert("RGB").save(file, "webp", lossless=True, method=6)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"
