"""Arrays to the pixels of a live picture: a slice on the screen in milliseconds, where a new figure takes 200.

matplotlib draws what stays (axes, ticks, texts, colour bars) once; a new picture only fills in images and lines.
"""

import io
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import combinations, product
from typing import NamedTuple

import numpy as np
from matplotlib import colormaps, font_manager, rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image, ImageColor, ImageDraw, ImageFont

from .. import plots

DPI = 100  # 9 point letters are 12.5 pixels high
STYLE = plots.LOOK | {
    "font.size": 9, "axes.titlesize": 10, "legend.fontsize": 8, "xtick.major.size": 3, "ytick.major.size": 3,
    "figure.facecolor": "white", "axes.labelpad": 1,
}  # fmt: skip
LEFT, TOP, BOTTOM, GAP, BAR, BAR_TEXT = 58, 30, 46, 10, 12, 62  # pixels around an image
FAINT, MARK = "#d0d0d0", np.uint8(np.round(255 * np.array(to_rgb(plots.MARK))))


class Panel(NamedTuple):
    """A square image.

    title       above it
    length      of its side [Mpc/h]; 0 for a picture without axes
    low, high   ends of its colours
    label       of the colour bar, "" for a panel that shares the scale of its neighbour and has none
    colours     the map
    """

    title: str
    length: float
    low: float
    high: float
    label: str = plots.LOG_DENSITY
    colours: str = plots.DENSITY_MAP


class Axis(NamedTuple):
    """A panel of curves: labels, limits, scale; wavenumbers are on a logarithmic axis."""

    xlabel: str
    ylabel: str
    xlim: tuple[float, float]
    ylim: tuple[float, float]
    yscale: str = "log"
    level: float | None = None  # where a thin line is drawn across


class Board:
    """Square images side by side, with axes in Mpc/h, and panels of curves below them.

    panels    the images;  sizes  pixels along each of them;  target  wanted side on the screen [pixels]
    axes      the panels of curves, of some height [pixels]
    lines     {name of a line: its colour, or further properties}, in the order in which they are drawn
    A pixel of an image becomes a square of whole pixels of the screen; row 0 is at the bottom.
    """

    def __init__(
        self, panels: Sequence[Panel], sizes: Sequence[int], axes: Sequence[Axis], lines: Mapping[str, str | dict],
        target: int = 384, height: int = 190,
    ):  # fmt: skip
        self.panels, self.sides = tuple(panels), [size * max(1, round(target / size)) for size in sizes]
        bars = [GAP + (BAR + BAR_TEXT if panel.label else 0) for panel in panels]
        *starts, self.width = np.cumsum([0, *(LEFT + side + bar for side, bar in zip(self.sides, bars, strict=True))])
        self.lefts, middle = [LEFT + start for start in starts], TOP + max(self.sides) + BOTTOM
        self.height = middle + height + BOTTOM + GAP
        with rc_context(STYLE):
            self._figure = Figure(figsize=(self.width / DPI, self.height / DPI), dpi=DPI)
            self._canvas = FigureCanvasAgg(self._figure)
            placed = zip(self.panels, self.lefts, self.sides, sizes, strict=True)
            self._images = [self._image(panel, left, side, size) for panel, left, side, size in placed]
            step = self.width / len(axes)
            places = [(round(LEFT + i * step), middle, round(step - LEFT - 2 * GAP), height) for i in range(len(axes))]
            self._lines = [self._curves(place, axis, lines) for place, axis in zip(places, axes, strict=True)]
            next(iter(self._lines[0].values())).axes.legend(loc="lower left")
            self._canvas.draw()  # images and lines are animated: they are left out
        self._ground = self._canvas.copy_from_bbox(self._figure.bbox)

    def draw(self, images: Sequence[np.ndarray], curves: Sequence[Mapping[str, tuple]]) -> bytes:
        """The picture as PNG, the same for the same arrays.

        images   (H, H) values, one a panel, or (H, H, 3) colours
        curves   for each panel of curves {name: (x, y)}, arrays (n,); a name left out is not drawn
        """
        self._canvas.restore_region(self._ground)
        for shown, panel, values in zip(self._images, self.panels, images, strict=True):
            shown.set_data(values if values.ndim == 3 else colours_of(values, panel))
            shown.axes.draw_artist(shown)
        for lines, panel in zip(self._lines, curves, strict=True):
            for name, (x, y) in panel.items():
                lines[name].set_data(x, y)
                lines[name].axes.draw_artist(lines[name])
        return as_png(Image.fromarray(np.asarray(self._canvas.buffer_rgba())[..., :3]), compress_level=1)

    def _axes(self, left: int, top: int, width: int, height: int, **options) -> Axes:
        """Axes whose edges are edges of pixels."""
        place = np.array([left, self.height - top - height, width, height])
        return self._figure.add_axes(place / np.tile([self.width, self.height], 2), **options)

    def _image(self, panel: Panel, left: int, side: int, size: int):
        """Axes with an empty image, and its colour bar."""
        ax, length = self._axes(left, TOP, side, side, frame_on=False), panel.length or 1
        scale = {"vmin": panel.low, "vmax": panel.high, "cmap": panel.colours}
        shown = ax.imshow(np.zeros((size, size)), origin="lower", extent=(0, length, 0, length), animated=True, **scale)
        ax.set(title=panel.title, xticks=[], yticks=[])
        if panel.length:
            for axis in (ax.xaxis, ax.yaxis):
                axis.set(major_locator=MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]), label_text=plots.LENGTH)
        if panel.label:
            look = {"label": panel.label, "ticks": MaxNLocator(6)}
            bar = self._figure.colorbar(shown, self._axes(left + side + GAP, TOP, BAR, side), **look)
            bar.outline.set_visible(False)
        return shown

    def _curves(self, place: tuple[int, int, int, int], axis: Axis, lines: Mapping[str, str | dict]) -> dict:
        """Labels and empty lines of a panel, by name."""
        ax = self._axes(*place)
        if axis.level is not None:
            ax.axhline(axis.level, **plots.FAINT)
        looks = {name: look if isinstance(look, dict) else {"color": look} for name, look in lines.items()}
        drawn = {name: ax.plot([], [], label=name, animated=True, **look)[0] for name, look in looks.items()}
        ax.set(**{name: value for name, value in axis._asdict().items() if name != "level"})
        if axis.xlabel == plots.WAVENUMBER:
            plots.wavenumbers(ax)
        return drawn


def colours_of(values: np.ndarray, panel: Panel) -> np.ndarray:
    """RGB (..., 3) uint8 of values (...) on a panel's scale; its end colours beyond, grey where there is no value."""
    share = (values - panel.low) / (panel.high - panel.low)
    return colormaps[panel.colours].with_extremes(bad="0.5")(share, bytes=True)[..., :3]


def outlined(picture: np.ndarray, row: int, col: int, side: int) -> np.ndarray:
    """A copy of a picture (H, H, 3) of a periodic plane, with the edges of a square on it."""
    picture, along = picture.copy(), np.arange(side)
    for edge in (0, side - 1):
        picture[(row + edge) % len(picture), (col + along) % len(picture)] = MARK
        picture[(row + along) % len(picture), (col + edge) % len(picture)] = MARK
    return picture


class CubeView:
    """A cube seen from outside, cut open at a plane: what is between the plane and the eye is taken away.

    n               voxels along the cube
    azimuth, tilt   from where it is seen, around the z axis from x to y, and upwards [degrees]
    axis, plane     of the cut
    size            side of the picture [pixels]
    voxel           (3, size, size): the voxel that each pixel shows, row 0 at the bottom
    """

    REACH = 0.98  # half the side of the picture, in sides of the cube

    def __init__(self, n: int, azimuth: float, tilt: float, axis: int, plane: int, size: int):
        (east, up), (north, flat) = (turn(np.radians([azimuth, tilt])) for turn in (np.sin, np.cos))
        eye = np.float32([flat * north, flat * east, up])
        eye[np.abs(eye) < 1e-6] = 1e-6
        self._screen = np.float32([[-east, north, 0], [-up * north, -up * east, flat]])  # to the right, and upwards
        self._size, self._cut = size, axis
        low, high = np.zeros(3, int), np.full(3, n)
        if eye[axis] < 0:
            low[axis] = plane
        else:
            high[axis] = plane + 1
        across = self.REACH * (2 * (np.arange(size, dtype=np.float32) + 0.5) / size - 1)
        start = 0.5 + self._screen[0, :, None, None] * across + self._screen[1, :, None, None] * across[:, None]
        near, eye = np.float32(np.where(eye < 0, low, high) / n)[:, None, None], eye[:, None, None]
        depth = (near - start) / eye  # of the near side of each axis, along the line of sight
        hit = n * (start + depth.min(axis=0) * eye)
        self.voxel = np.stack([h.astype(int).clip(a, b - 1) for h, a, b in zip(hit, low, high, strict=True)])
        inside = (np.abs(hit - self.voxel - 0.5) < 0.501).all(axis=0)
        self._face = np.where(inside, depth.argmin(axis=0), -1)  # the axis that the face is across, -1 beside the cube

    def draw(self, values: np.ndarray, panel: Panel) -> np.ndarray:
        """RGB of the values (size, size) of `voxel`, edges, and a letter where an axis ends."""
        page = Image.new("RGB", (self._size,) * 2, "white")
        pen = ImageDraw.Draw(page)
        for a, b in combinations(product((0, 1), repeat=3), 2):
            if np.abs(np.subtract(a, b)).sum() == 1:
                pen.line([*self._place(a), *self._place(b)], fill=FAINT)
        for letter, end in zip("xyz", np.eye(3), strict=True):
            pen.text(self._place(0.5 + 1.12 * (end - 0.5)), letter, "black", font(), anchor="mm")
        picture = np.where(self._face[..., None] < 0, np.asarray(page)[::-1], colours_of(values, panel))
        for face, colour in ((self._face, ImageColor.getrgb(FAINT)), (self._face == self._cut, MARK)):
            for shift, along in product((1, -1), (0, 1)):
                picture[face != np.roll(face, shift, along)] = colour
        return picture

    def _place(self, point: Sequence[float]) -> tuple[float, float]:
        """Column and row from the top of a point, the cube from 0 to 1."""
        x, y = self._screen @ (np.asarray(point) - 0.5) / self.REACH
        return (1 + x) / 2 * self._size, (1 - y) / 2 * self._size


def tile(values: np.ndarray, panel: Panel, zoom: int = 1) -> bytes:
    """One image (H, W) without axes as PNG, row 0 at the bottom."""
    return as_png(Image.fromarray(colours_of(values, panel)[::-1].repeat(zoom, axis=0).repeat(zoom, axis=1)))


def as_png(image: Image.Image, **options) -> bytes:
    """A picture as PNG."""
    file = io.BytesIO()
    image.save(file, "png", **options)
    return file.getvalue()


def opened(png: bytes) -> Image.Image:
    """The picture in a PNG, in RGB."""
    return Image.open(io.BytesIO(png)).convert("RGB")


@cache
def font() -> ImageFont.FreeTypeFont:
    """DejaVu, which has Greek letters and subscripts."""
    return ImageFont.truetype(font_manager.findfont("DejaVu Sans"), 13)
