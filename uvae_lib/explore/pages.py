"""What is left of explorers without a kernel: a still that shows the controls, and pages whose sliders move.

A page holds the frames of a few sliders and a script of a few lines that exchanges them; it needs no network.
"""

import base64
import html
import io
import json
from collections.abc import Iterator

import ipywidgets as ui
import numpy as np
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont

from .pictures import opened, paste, small

N_FRAMES = 24
WIDTH, ROW = 330, 30  # of the controls in a still [pixels]
INK, FAINT, ACCENT, SHADE = "#222222", "#c4c4c4", "#1976d2", "#eeeeee"
PAGE = "uvae-page"  # the class of a page's element
SCRIPT = """
(() => {
  const page = document.currentScript.parentElement, films = FILMS;
  const image = page.querySelector("img"), text = page.querySelector("p"), inputs = page.querySelectorAll("input");
  const show = i => {
    const film = films[i], frame = inputs[i].value;
    inputs.forEach((input, j) => {
      if (j !== i) input.value = films[j].home;
      input.nextElementSibling.value = films[j].values[input.value];
    });
    image.src = film.frames[frame];
    text.textContent = film.texts[frame];
  };
  inputs.forEach((input, i) => input.addEventListener("input", () => show(i)));
  let clock = null;
  page.querySelectorAll("button").forEach((button, i) => button.addEventListener("click", () => {
    const running = clock && clock.button === button;
    if (clock) { clearInterval(clock.id); clock.button.textContent = "\\u25b6"; clock = null; }
    if (running) return;
    let step = 1;
    clock = {button, id: setInterval(() => {
      const at = Number(inputs[i].value);
      if (at + step > inputs[i].max || at + step < 0) step = -step;
      inputs[i].value = at + step;
      show(i);
    }, 150)};
    button.textContent = "\\u23f8";
  }));
})();
"""


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


def still(box: ui.Widget, text: str, pictures: list[bytes]) -> bytes:
    """The controls of a box beside pictures, a text above, as PNG.

    box        of the controls
    text       what is shown
    pictures   PNG, drawn below each other
    """
    right = paste([[opened(png)] for png in pictures])
    page = paste([[controls_picture(box), right]], gap=12)
    head = Image.new("RGB", (page.width, ROW), "white")
    ImageDraw.Draw(head).text((8, ROW / 2), text, INK, _font(), anchor="lm")
    return small(paste([[head], [page]]))


def controls_picture(box: ui.Widget) -> Image.Image:
    """The controls of a box as they stand, WIDTH pixels wide."""
    shown = [widget for widget in visible(box) if not isinstance(widget, ui.Play | ui.HTML)]
    page = Image.new("RGB", (WIDTH, ROW * len(shown) + 8), "white")
    pen = ImageDraw.Draw(page)
    for number, widget in enumerate(shown):
        middle = ROW * number + ROW // 2 + 4
        if isinstance(widget, ui.Tab):
            _buttons(pen, middle, widget.titles, widget.selected_index)
        elif isinstance(widget, ui.ToggleButtons):
            texts = [option[0] if isinstance(option, tuple) else option for option in widget.options]
            _buttons(pen, middle, texts, widget.index)
        elif isinstance(widget, ui.Button | ui.ToggleButton):
            _buttons(pen, middle, [widget.description], 0 if getattr(widget, "value", False) else None)
        else:
            _slider(pen, middle, widget)
    return page


def _slider(pen: ImageDraw.ImageDraw, middle: int, widget: ui.Widget) -> None:
    share, text = position(widget)
    left, right = 128, WIDTH - 64
    pen.text((left - 10, middle), widget.description, INK, _font(), anchor="rm")
    if share is not None:
        at = left + share * (right - left)
        pen.rounded_rectangle((left, middle - 2, right, middle + 2), 2, FAINT)
        pen.ellipse((at - 7, middle - 7, at + 7, middle + 7), ACCENT)
    pen.text((right + 12 if share is not None else left, middle), text, INK, _font(), anchor="lm")


def _buttons(pen: ImageDraw.ImageDraw, middle: int, texts, chosen: int | None) -> None:
    width = (WIDTH - 12) / max(len(texts), 2)
    for number, text in enumerate(texts):
        left = 8 + number * width
        colours = (ACCENT, "white") if number == chosen else (SHADE, INK)
        pen.rounded_rectangle((left, middle - 12, left + width - 4, middle + 12), 4, colours[0])
        pen.text((left + width / 2 - 2, middle), text, colours[1], _font(), anchor="mm")


def position(widget: ui.Widget) -> tuple[float | None, str]:
    """Where the handle of a slider stands, from 0 to 1, and its value as text; None for what has no handle."""
    if isinstance(widget, ui.SelectionSlider):
        return widget.index / max(len(widget.options) - 1, 1), widget.label
    if isinstance(widget, ui.FloatLogSlider):
        return (np.log(widget.value) / np.log(widget.base) - widget.min) / (widget.max - widget.min), f"{widget.value:.0e}"
    if isinstance(widget, ui.IntSlider | ui.FloatSlider):
        text = format(widget.value, widget.readout_format)
        return (widget.value - widget.min) / max(widget.max - widget.min, 1e-9), text
    return None, str(getattr(widget, "value", ""))


def _font(size: int = 13) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(font_manager.findfont("DejaVu Sans"), size)


def record(explorer, name: str, n: int = N_FRAMES) -> dict:
    """Move a control of an explorer from end to end, and back to where it was.

    explorer   with `controls`, {name: control}, `picture`, `readout` and `settle`
    Returns {"name", "home": index, "values": [text], "texts": [text], "frames": [PNG]}.
    """
    widget = explorer.controls[name]
    home, values = widget.value, steps(widget, n)
    if hasattr(explorer, "open_tab"):
        explorer.open_tab(name)
    found = {"name": widget.description, "home": values.index(home), "values": [], "texts": [], "frames": []}
    for value in values:
        widget.value = value
        explorer.settle()
        found["values"].append(position(widget)[1])
        found["texts"].append(explorer.readout.value)
        found["frames"].append(explorer.picture.value)
    widget.value = home
    return found


def steps(widget: ui.Widget, n: int) -> list:
    """At most n values of a control from end to end, the present one among them."""
    if isinstance(widget, ui.SelectionSlider):
        return [value for _, value in widget.options]
    count = min(n, round((widget.max - widget.min) / widget.step) + 1)
    places = np.linspace(widget.min, widget.max, count)
    if isinstance(widget, ui.IntSlider):
        values = sorted({round(place) for place in places})
    else:
        values = [round(float(place), 6) for place in places]
    values[int(np.abs(np.subtract(values, widget.value)).argmin())] = widget.value
    return values


def moving(explorer) -> str:
    """An explorer as HTML that moves without a kernel: the sliders of `explorer.FILM`, one at a time."""
    films = [record(explorer, name) for name in explorer.FILM if name in explorer.controls]
    rows = "".join(
        f'<label style="display:flex;gap:.6em;align-items:center;max-width:640px">'
        f'<span style="min-width:8em">{html.escape(film["name"])}</span>'
        f'<input type="range" style="flex:1" min="0" max="{len(film["frames"]) - 1}" value="{film["home"]}">'
        f'<output style="min-width:4em">{film["values"][film["home"]]}</output><button type="button">▶</button></label>'
        for film in films
    )
    first = films[0]["texts"][films[0]["home"]]
    for film in films:
        film["frames"] = [_address(png) for png in film["frames"]]
    start = films[0]["frames"][films[0]["home"]]
    script = SCRIPT.replace("FILMS", json.dumps(films).replace("</", "<\\/"))
    return (
        f'<div class="{PAGE}">{rows}<p>{html.escape(first)}</p><img style="max-width:100%" alt="" src="{start}">'
        f"<script>{script}</script></div>"
    )


def _address(png: bytes) -> str:
    """A picture as a data address, in lossless WebP."""
    file = io.BytesIO()
    opened(png).save(file, "webp", lossless=True, method=4)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"


class Film:
    """A control that moves from end to end, as an animated PNG: for pages that run no script.

    explorer, name, n   as in `record`
    duration            of a frame [ms]
    """

    def __init__(self, explorer, name: str, n: int = N_FRAMES, duration: int = 150):
        frames = [opened(png).quantize(255, dither=Image.Dither.NONE) for png in record(explorer, name, n)["frames"]]
        file, self.n_frames = io.BytesIO(), len(frames)
        frames[0].save(file, "png", save_all=True, append_images=frames[1:], duration=duration, loop=0)
        self.png = file.getvalue()

    def _repr_mimebundle_(self, **options) -> dict:
        return {"image/png": base64.b64encode(self.png).decode(), "text/plain": f"Film of {self.n_frames} frames"}
