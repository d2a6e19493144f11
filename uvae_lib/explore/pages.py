"""What is left of explorers without a kernel: a still that says where the sliders stand, and pages whose sliders move.

A page holds the frames of a few sliders and a script of a few lines that exchanges them; it needs no network.
"""

import base64
import io
import json
from pathlib import Path

import ipywidgets as ui
import numpy as np
from PIL import Image, ImageDraw

from .pictures import as_png, font, opened

TEMPLATE = Path(__file__).with_name("page.html")
MOST, REST = 24, 6  # frames of the first slider of a page, and of each other
ROW = 22  # of the text in a still [pixels]


def still(explorer) -> bytes:
    """The picture of an explorer below what it shows and where its main sliders stand, as PNG."""
    picture, lines = opened(explorer.drawn()), [explorer.readout.value]
    if sliders := moved_on_pages(explorer).values():
        lines.append(f"sliders: {'; '.join(f'{slider.description} {reading(slider)}' for slider in sliders)}")
    width = max(picture.width, *(16 + round(font().getlength(line)) for line in lines))
    page = Image.new("RGB", (width, ROW * len(lines) + picture.height), "white")
    ImageDraw.Draw(page).text((8, 4), "\n".join(lines), "black", font(), spacing=8)
    page.paste(picture, (0, ROW * len(lines)))
    return as_png(page.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE), optimize=True)


def moved_on_pages(explorer) -> dict[str, ui.Widget]:
    """The sliders of `explorer.FILM` that an explorer has."""
    return {name: explorer.controls[name] for name in explorer.FILM if name in explorer.controls}


def reading(slider: ui.Widget) -> str:
    """The value of a slider as text."""
    return format(slider.value, slider.readout_format)


def record(explorer, name: str, n: int = MOST) -> dict:
    """Move a slider of an explorer from end to end, and back to where it was.

    explorer   with `controls`, {name: control}, `picture` and `readout`
    n          places, at most
    Returns {"name", "home": index, "frames": [(value, text, data address)]}.
    """
    slider, frames = explorer.controls[name], []
    home, values = slider.value, places(slider, n)
    for value in values:
        slider.value = value
        frames.append((reading(slider), explorer.readout.value, address(explorer.picture.value)))
    slider.value = home
    return {"name": slider.description, "home": values.index(home), "frames": frames}


def places(slider: ui.Widget, n: int) -> list:
    """At most n values of a slider from end to end, the present one among them."""
    count = min(n, round((slider.max - slider.min) / slider.step) + 1)
    values = np.linspace(slider.min, slider.max, count).round(0 if isinstance(slider, ui.IntSlider) else 6)
    values = values.astype(type(slider.value)).tolist()
    values[int(np.abs(np.subtract(values, slider.value)).argmin())] = slider.value
    return values


def moving(explorer) -> str:
    """An explorer as HTML that moves without a kernel: the sliders of `explorer.FILM`, one at a time."""
    films = [record(explorer, name, REST if i else MOST) for i, name in enumerate(moved_on_pages(explorer))]
    return TEMPLATE.read_text(encoding="utf-8").replace("FILMS", json.dumps(films).replace("</", "<\\/"))


def address(png: bytes) -> str:
    """A picture as a data address: WebP of 64 colours, a quarter of the PNG."""
    file, colours = io.BytesIO(), opened(png).quantize(64, dither=Image.Dither.NONE)
    colours.convert("RGB").save(file, "webp", lossless=True, method=6)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"
