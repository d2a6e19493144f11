"""Arrays to the pixels of a live picture: a slice on the screen in milliseconds, where a new figure takes 200.

matplotlib draws what stays (axes, ticks, texts, colour bars) once; each new picture only fills in what changes.
`ImagePanels` and `Curves` give PNG bytes, the same for the same arrays, on an opaque light ground that dark themes can
show; `CubeView` gives a picture of a cube for one of the panels.
"""

import io
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import combinations, product
from typing import NamedTuple

import numpy as np
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image, ImageDraw, ImageFont

from ..plots import curves as plots

DPI = 100  # 9 point letters are 12.5 pixels high
STYLE = plots.LOOK | {
    "font.size": 9,
    "axes.titlesize": 10,
    "figure.facecolor": "white",
    "figure.constrained_layout.wspace": 0.08,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
}
COLOURS = {plots.DENSITY_MAP: (0, 112), plots.DIFFERENCE_MAP: (112, 111)}  # first entry of the palette, how many
GREY, N_GREYS, MARK = 223, 32, 255  # of the palette, behind the maps: paper and ink, and the colour of outlines
PAPER, FAINT = MARK - 1, MARK - 10  # white, and a grey that is seen on it
LEFT, TOP, BOTTOM, GAP, BAR, BAR_TEXT = 58, 30, 46, 10, 12, 62  # pixels around a panel


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


class ImagePanels:
    """Square images side by side with axes in Mpc/h, as one PNG of 256 colours (mode P).

    panels   what they are
    sizes    pixels along each image
    target   wanted side of a panel on the screen [pixels]
    A pixel of an image becomes a square of whole pixels of the screen; row 0 is at the bottom.
    """

    def __init__(self, panels: Sequence[Panel], sizes: Sequence[int], target: int = 384):
        self.panels, self.zoom = tuple(panels), [max(1, round(target / size)) for size in sizes]
        sides = [size * zoom for size, zoom in zip(sizes, self.zoom, strict=True)]
        self.lefts, x = [], 0
        for panel, side in zip(self.panels, sides, strict=True):
            self.lefts.append(x + LEFT)
            x += LEFT + side + (GAP + BAR + BAR_TEXT if panel.label else GAP)
        self.sides, self.width, self.height = sides, x, TOP + max(sides) + BOTTOM
        self._frame = self._draw_frame()

    def draw(self, images: Sequence[np.ndarray], outline: tuple[int, int, int] | None = None) -> bytes:
        """The picture. Values outside a panel's scale get its end colours, NaN the middle one.

        images    (H, H) arrays, one a panel, of the sizes that were announced; whole numbers are entries of the palette
        outline   (row, col, side) [pixels] of a periodic square, drawn into the first panel
        """
        canvas = self._frame.copy()
        for panel, left, side, zoom, image in zip(self.panels, self.lefts, self.sides, self.zoom, images, strict=True):
            if image.shape != (side // zoom,) * 2:
                raise ValueError(f"found an image of shape {image.shape}; expected {(side // zoom,) * 2}")
            indices = image if image.dtype == np.uint8 else _indices(image, panel)
            tile = indices.repeat(zoom, axis=0).repeat(zoom, axis=1)
            if outline is not None and left == self.lefts[0]:
                _outline(tile, *(zoom * number for number in outline))
            canvas[TOP : TOP + side, left : left + side] = tile[::-1]
        picture = Image.frombytes("P", canvas.shape[::-1], canvas.tobytes())
        picture.putpalette(palette())
        return _png(picture, compress_level=1)

    def _draw_frame(self) -> np.ndarray:
        """Everything but the images, as indices into the palette: (height, width) uint8."""
        with rc_context(STYLE):
            figure = Figure(figsize=(self.width / DPI, self.height / DPI), dpi=DPI)
            for panel, left, side in zip(self.panels, self.lefts, self.sides, strict=True):
                ax = self._axes(figure, left, side, side)
                ax.set(title=panel.title, xticks=[], yticks=[])
                if not panel.length:
                    continue
                ticks = MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]).tick_values(0, panel.length)
                ticks = ticks[(ticks >= 0) & (ticks <= 1.0001 * panel.length)]
                ax.set(xlim=(0, panel.length), ylim=(0, panel.length), xticks=ticks, yticks=ticks)
                ax.set(xlabel=plots.LENGTH, ylabel=plots.LENGTH)
                if panel.label:
                    bar = self._axes(figure, left + side + GAP, BAR, side)
                    bar.set(xticks=[], ylim=(panel.low, panel.high), ylabel=panel.label)
                    bar.yaxis.set(ticks_position="right", label_position="right")
                    bar.yaxis.set_major_locator(MaxNLocator(6))
            canvas = FigureCanvasAgg(figure)
            canvas.draw()
        grey = np.asarray(canvas.buffer_rgba())[..., :3].mean(axis=2)
        frame = np.uint8(GREY + np.round(grey * ((N_GREYS - 1) / 255)))
        for panel, left, side in zip(self.panels, self.lefts, self.sides, strict=True):
            if panel.label:
                ramp = np.linspace(panel.high, panel.low, side)[:, None]
                frame[TOP : TOP + side, left + side + GAP : left + side + GAP + BAR] = _indices(ramp, panel)
        return frame

    def _axes(self, figure: Figure, left: int, width: int, height: int) -> Axes:
        """Axes without spines whose edges are edges of pixels, their top at TOP."""
        place = np.array([left, self.height - TOP - height, width, height])
        return figure.add_axes(place / np.tile([self.width, self.height], 2), frame_on=False)


def _indices(values: np.ndarray, panel: Panel) -> np.ndarray:
    """Entries of the palette for values on a panel's scale, of the same shape."""
    first, n = COLOURS[panel.colours]
    share = (values - panel.low) * (n / (panel.high - panel.low))
    return np.uint8(first + np.nan_to_num(share, nan=n / 2).clip(0, n - 1))


def _outline(tile: np.ndarray, row: int, col: int, side: int) -> None:
    """Draw, in place, the edges of a square on a periodic tile, two pixels wide."""
    along = np.arange(side)
    for edge in (0, 1, side - 2, side - 1):
        tile[(row + edge) % len(tile), (col + along) % len(tile)] = MARK
        tile[(row + along) % len(tile), (col + edge) % len(tile)] = MARK


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
        """Entries of the palette for the values (size, size) of `voxel`; edges; a letter where an axis ends."""
        page = Image.new("L", (self._size,) * 2, PAPER)
        pen = ImageDraw.Draw(page)
        pen.fontmode = "1"
        for a, b in combinations(product((0, 1), repeat=3), 2):
            if np.abs(np.subtract(a, b)).sum() == 1:
                pen.line([*self._place(a), *self._place(b)], fill=FAINT)
        for letter, end in zip("xyz", np.eye(3), strict=True):
            pen.text(self._place(0.5 + 1.12 * (end - 0.5)), letter, GREY, ImageFont.load_default(15), anchor="mm")
        picture = np.where(self._face < 0, np.asarray(page)[::-1], _indices(values, panel))
        for face, colour in ((self._face, FAINT), (self._face == self._cut, MARK)):
            for shift, along in product((1, -1), (0, 1)):
                picture[face != np.roll(face, shift, along)] = colour
        return picture

    def _place(self, point: Sequence[float]) -> tuple[float, float]:
        """Column and row from the top of a point, the cube from 0 to 1."""
        x, y = self._screen @ (np.asarray(point) - 0.5) / self.REACH
        return (1 + x) / 2 * self._size, (1 - y) / 2 * self._size


@cache
def palette() -> bytes:
    """The 256 colours, as R, G, B: density, difference, greys, outline."""
    maps = [colormaps[name](np.linspace(0, 1, n))[:, :3] for name, (_, n) in COLOURS.items()]
    greys = np.linspace(0, 1, N_GREYS)[:, None].repeat(3, axis=1)
    return np.uint8(np.round(255 * np.concatenate([*maps, greys, [to_rgb(plots.MARK)]]))).tobytes()


def _png(image: Image.Image, **options) -> bytes:
    """A picture as PNG."""
    file = io.BytesIO()
    image.save(file, "png", **options)
    return file.getvalue()


class Axis(NamedTuple):
    """One panel of `Curves`: labels, limits, scale; wavenumbers are on a logarithmic axis."""

    xlabel: str
    ylabel: str
    xlim: tuple[float, float]
    ylim: tuple[float, float]
    yscale: str = "log"
    ticks: tuple[float, ...] = ()  # of the vertical axis; matplotlib's when empty
    level: float | None = None  # where a thin line is drawn across


class Curves:
    """Lines in panels side by side. The axes are drawn once, a new picture only draws the lines.

    axes    the panels;  colours  {name of a line: its colour}, in the order in which they are drawn
    width   of the picture [pixels];  height  likewise
    """

    def __init__(self, axes: Sequence[Axis], colours: Mapping[str, str], width: int = 950, height: int = 250):
        with rc_context(STYLE | {"legend.fontsize": 8}):
            figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, layout="constrained")
            self._canvas = FigureCanvasAgg(figure)
            self._lines = [self._panel(ax, axis, colours) for ax, axis in zip(
                figure.subplots(1, len(axes), squeeze=False)[0], axes, strict=True)]  # fmt: skip
            figure.axes[0].legend(loc="lower left")
            self._canvas.draw()  # lines are animated: they are left out
            self._ground = self._canvas.copy_from_bbox(figure.bbox)

    def _panel(self, ax: Axes, axis: Axis, colours: Mapping[str, str]) -> dict:
        """Labels and empty lines of a panel, by name."""
        if axis.level is not None:
            ax.axhline(axis.level, color="0.6", lw=0.8, ls="--")
        lines = {name: ax.plot([], [], color=colour, label=name, animated=True)[0] for name, colour in colours.items()}
        ax.set(**{name: value for name, value in axis._asdict().items() if name not in ("level", "ticks")})
        if axis.xlabel == plots.WAVENUMBER:
            plots.wavenumbers(ax)
        if axis.ticks:
            ax.set_yticks(axis.ticks, [f"{tick:g}" for tick in axis.ticks])
            ax.set_yticks([], minor=True)
        return lines

    def draw(self, curves: Sequence[Mapping[str, tuple]]) -> bytes:
        """The picture. curves: for each panel {name: (x, y)}, arrays (n,); a name left out is not drawn."""
        self._canvas.restore_region(self._ground)
        with rc_context(STYLE):
            for lines, panel in zip(self._lines, curves, strict=True):
                for name, (x, y) in panel.items():
                    lines[name].set_data(x, y)
                    lines[name].axes.draw_artist(lines[name])
        return _png(Image.fromarray(np.asarray(self._canvas.buffer_rgba())[..., :3]), compress_level=1)


def tile(image: np.ndarray, panel: Panel, zoom: int = 1) -> bytes:
    """One image (H, W) without axes as PNG, in a panel's colours, row 0 at the bottom."""
    indices = _indices(image, panel)[::-1].repeat(zoom, axis=0).repeat(zoom, axis=1)
    picture = Image.frombytes("P", indices.shape[::-1], indices.tobytes())
    picture.putpalette(palette())
    return _png(picture, compress_level=1)


def opened(png: bytes) -> Image.Image:
    """The picture in a PNG, in RGB."""
    return Image.open(io.BytesIO(png)).convert("RGB")


def paste(rows: Sequence[Sequence[Image.Image]], gap: int = 0) -> Image.Image:
    """Pictures in rows, on white."""
    widths = [sum(image.width + gap for image in row) - gap for row in rows]
    heights = [max(image.height for image in row) + gap for row in rows]
    page = Image.new("RGB", (max(widths), sum(heights) - gap), "white")
    for top, row in zip(np.cumsum([0, *heights]).tolist(), rows, strict=False):
        left = 0
        for image in row:
            page.paste(image, (left, top))
            left += image.width + gap
    return page


def small(image: Image.Image) -> bytes:
    """A picture as PNG of 256 colours, for files."""
    return _png(image.quantize(256, dither=Image.Dither.NONE), optimize=True)
