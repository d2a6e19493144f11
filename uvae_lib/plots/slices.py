"""Slices and cubes as images."""

# ruff: noqa: F405

from collections.abc import Sequence
from itertools import product

import numpy as np
from matplotlib import colormaps, rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from ..cropping import periodic_crop
from .style import *  # noqa: F403


@plot
def slice_grid(
    slices_log, box_size: float, titles: Sequence[str] | None = None, columns: int = 4,
    row_labels: Sequence[str] | None = None, label: str = LOG_DENSITY, marked: Sequence[int] = (),
    *, ax: Axes | None = None,
) -> Figure:  # fmt: skip
    """Slices side by side with one colour scale, as one image.

    slices_log   (n, H, W) or (n, 1, H, W) log densities
    box_size     side of a slice [Mpc/h]
    titles       n texts above the slices, or one for each column
    columns      slices in a row
    row_labels   a text left of each row
    label        of the colour bar, where pixels are no log densities
    marked       the column of each row whose slice is framed
    Raises ValueError for another number of titles than slices or columns, or of labels than rows.
    """
    slices = as_images(slices_log)
    columns = min(columns, len(slices))
    rows = -(-len(slices) // columns)
    tiles = np.full((rows * columns, *slices.shape[1:]), np.nan)
    tiles[: len(slices)] = slices
    if titles is not None and len(titles) not in (len(slices), columns):
        raise ValueError(f"found {len(titles)} titles for {len(slices)} slices; give one for each, or for each column")
    ax = ax or new_axes(min(PAGE, 1.2 + 3 * columns), 0.5 + rows / columns, squares=True)
    tiles = tiles.reshape(rows, columns, *slices.shape[1:])
    image = _mosaic(ax, tiles, box_size, shared_norm(slices), texts=titles or (), row_labels=row_labels, marked=marked)
    colour_bar(image, ax, label)
    return ax.figure


@plot
def universes_and_places(slices_log, box_size: float, universes: Sequence[str], *, ax: Axes | None = None) -> Figure:
    """Universes as rows, the same places as columns: h changes along the pink arrow, z along the green one.

    slices_log   (u, p, H, W) log densities
    universes    u texts left of the rows
    """
    tiles = as_array(slices_log)
    ax = ax or new_axes(PAGE, 0.5 + tiles.shape[0] / tiles.shape[1], squares=True)
    image = _mosaic(ax, tiles, box_size, shared_norm(tiles), row_labels=universes)
    colour_bar(image, ax, LOG_DENSITY)
    over, beside = ((0, 1.03), (1, 1.03), {}), ((1.015, 1), (1.015, 0), {"rotation": -90, "va": "top"})
    ways = (H, "$h$: another place", *over), (Z, "$z$: another universe", *beside)
    for colour, text, start, end, turned in ways:
        ax.annotate("", end, start, "axes fraction", arrowprops={"arrowstyle": "-|>", "color": colour, "lw": 2})
        ax.annotate(text, start, (4, 4), "axes fraction", textcoords="offset points", color=colour, **turned)
    return ax.figure


@plot
def crop_on_cube(plane_log, corner: tuple[int, int], size: int, box_size: float) -> Figure:
    """A periodic plane with its dimmed copies, on which a crop is one square across the seam, and the crop beside it.

    plane_log   (N, N) log density
    corner      (row, col) of the crop's first pixel, taken modulo N
    size        side of the crop [pixels], at most N
    box_size    side of the plane [Mpc/h]
    Dashed lines in the crop are edges of the box; letters mark the pieces, which lie in copies where it wraps.
    """
    plane = as_images(plane_log)[0]
    side, pixel = len(plane), box_size / len(plane)
    crop, norm = periodic_crop(plane, corner, size), shared_norm(plane)
    figure = new_figure(PAGE, 0.6, squares=True)
    left, right = figure.subplots(1, 2)
    origin, look = np.array(corner[::-1], int) % side, {"norm": norm, "cmap": DENSITY_MAP, "origin": "lower"}
    dim = np.kron([[1, 0.5], [0.5, 0.5]], np.ones_like(plane))
    left.imshow(np.tile(plane, (2, 2)), alpha=dim, extent=(0, 2 * box_size, 0, 2 * box_size), **look)
    left.imshow(crop, extent=np.stack([origin, origin + size], axis=1).ravel() * pixel, **look)
    left.add_patch(Rectangle(origin * pixel, *[size * pixel] * 2, fill=False, ec=MARK, lw=2))
    image = right.imshow(crop, extent=(0, size * pixel, 0, size * pixel), **look)
    for ax, title, length in ((left, "the plane and its copies", 2 * box_size), (right, "the crop", size * pixel)):
        ends = {"xlim": (0, length), "ylim": (0, length), "xticks": _ticks(length), "yticks": _ticks(length)}
        ax.set(title=title, xlabel=f"column  [{LENGTH}]", ylabel=f"row  [{LENGTH}]", **ends)
    parts = [[(at, min(at + size, side)), (side, at + size)][: 1 + (at + size > side)] for at in origin]
    for letter, (y, x) in zip("ABCD", product(*parts[::-1]), strict=False):
        for ax, start in ((left, 0), (right, origin)):
            place = (np.array([sum(x), sum(y)]) / 2 - start) * pixel
            ax.text(*place, letter, color=MARK, ha="center", va="center", weight="bold", size="large")
    for draw, at, pieces in zip((right.axvline, right.axhline), origin, parts, strict=True):
        if len(pieces) > 1:
            draw((side - at) * pixel, color=MARK, ls="--", lw=1)
    colour_bar(image, [left, right], LOG_DENSITY)
    return figure


@plot
def reconstructions(truth, recon, box_size: float, titles: Sequence[str] | None = None) -> Figure:
    """Rows of truth, reconstruction and residual; the first two share a colour scale, residuals a symmetric one.

    truth, recon   (n, H, W) or (n, 1, H, W) log densities
    box_size       side of a slice [Mpc/h]
    titles         n texts, drawn to the left of the rows
    """
    truth, recon = as_images(truth), as_images(recon)
    residual = recon - truth
    figure, columns = new_figure(0.8 * PAGE, len(truth) / 3 + 0.4, squares=True), ("simulated", "reconstruction")
    left, right = figure.subplots(1, 2, width_ratios=(2 + _gap(truth) / truth.shape[-1], 1))
    pairs = np.stack([truth, recon], axis=1)
    image = _mosaic(left, pairs, box_size, shared_norm(truth), texts=columns, row_labels=titles)
    colour_bar(image, left, LOG_DENSITY, location="bottom", shrink=0.5)
    image = _mosaic(right, residual[:, None], box_size, symmetric_norm(residual), DIFFERENCE_MAP, texts=("difference",))
    right.set(yticks=[], ylabel="")
    colour_bar(image, right, r"$\ln\,(\rho_\mathrm{rec} / \rho_\mathrm{sim})$", location="bottom")
    return figure


@plot
def traversal_strip(
    frames, values, row_labels: Sequence[str], box_size: float, anchor=None, value_name: str = "",
    marked: Sequence[int] = (), own_scales: bool = False, *, ax: Axes | None = None,
) -> Figure:  # fmt: skip
    """Decoded slices along latent directions, one row a direction; or their differences to an anchor.

    frames       (rows, n, H, W) log densities
    values       (rows, n) or (n,): where on the direction each frame is, printed above it; with a sign where they are
                 steps, of which some are negative
    row_labels   a text a row
    box_size     side of a slice [Mpc/h]
    anchor       (H, W) or (rows, H, W): subtracted from the frames, which are drawn on one symmetric scale
    value_name   what the values are, written above them
    marked       the column of each row that is the anchor: it shows the anchor itself, framed; -1: none
    own_scales   each row of differences is drawn on a scale of its own, told in its label
    """
    frames, values = as_array(frames), as_array(values)
    (rows, n), zero = frames.shape[:2], 1e-3 * np.abs(values).max()
    norm, colours, label, shown = shared_norm(frames), DENSITY_MAP, LOG_DENSITY, frames
    if anchor is not None:
        shown = frames - as_images(anchor)[:, None]
        norm, colours, label = symmetric_norm(shown), DIFFERENCE_MAP, DIFFERENCE
        if own_scales:
            reach = [float(f"{symmetric_norm(row).vmax:.1g}") for row in shown]
            row_labels = [f"{text}\nscale {x:g}" for text, x in zip(row_labels, reach, strict=True)]
            shown, norm, label = shown / np.reshape(reach, (-1, 1, 1, 1)), Normalize(-1, 1), f"{label} / scale"
    texts = [f"${v:{'+.2g' if values.min() < 0 else '#.2g'}}$" if abs(v) > zero else "$0$" for v in values.ravel()]
    ax = ax or new_axes(PAGE, 0.5 + rows / n, squares=True)
    here = np.equal.outer(marked or [-1], np.arange(n))[..., None, None]
    over = [(np.where(here, frames, np.nan), shared_norm(frames))] if anchor is not None and marked else []
    image = _mosaic(ax, shown, box_size, norm, colours, texts=texts, row_labels=row_labels, marked=marked, over=over)
    ax.set_title(value_name, size=rcParams["axes.labelsize"], pad=1.7 * rcParams["font.size"])
    colour_bar(image, ax, label)
    return ax.figure


def _ticks(length: float, reach: float = 0.95) -> np.ndarray:
    """Two to four round positions, from 0 to less than a share `reach` of a length."""
    ticks = MaxNLocator(3, steps=[1, 2, 2.5, 5, 10]).tick_values(0, length)
    return ticks[(ticks >= 0) & (ticks < reach * length)]


def _gap(tiles: np.ndarray) -> int:
    """Pixels between the tiles of a mosaic."""
    return max(1, round(0.04 * tiles.shape[-1]))


def _mosaic(
    ax: Axes, tiles: np.ndarray, box_size: float, norm, colours: str = DENSITY_MAP, *,
    texts: Sequence[str] = (), row_labels: Sequence[str] | None = None, marked: Sequence[int] = (), over: Sequence = (),
):  # fmt: skip
    """Draw tiles (rows, columns, H, W) as ONE image; the axes [Mpc/h] start anew at each tile.

    texts       above the tiles, row by row: of the first row alone where they are no more than columns
    row_labels  a text left of each row, instead of the axis
    marked      the column of each row that is outlined
    over        (tiles, norm) drawn over these with the density map, but for NaN
    """
    rows, columns, height, width = tiles.shape
    tile_inches = 1.13 * ax.get_window_extent().width / ax.get_figure(root=True).dpi / columns
    gap = _gap(tiles)
    room = round(1.9 * rcParams["font.size"] / 72 / tile_inches * height) if len(texts) > columns else gap
    pixel = box_size / width
    for part, scale, shades in (*((*layer, DENSITY_MAP) for layer in over), (tiles, norm, colours)):
        canvas = np.pad(part[:, :, ::-1], ((0, 0), (0, 0), (0, room), (0, gap)), constant_values=np.nan)
        canvas = canvas.swapaxes(1, 2).reshape(rows * (height + room), -1)[:-room, :-gap]
        few = colormaps[shades].resampled(64 if over else 256)  # a palette of 256 holds both maps
        look = {"cmap": few, "extent": (0, canvas.shape[1] * pixel, canvas.shape[0] * pixel, 0)}
        image = ax.imshow(canvas, norm=scale, zorder=-(shades == colours), **look)
    lefts, tops = np.arange(columns) * (width + gap) * pixel, np.arange(rows) * (height + room) * pixel
    ticks = _ticks(box_size, 0.95 if tile_inches > 0.12 * rcParams["font.size"] else 0.7)
    below = lefts[~np.isnan(tiles[-1]).all(axis=(1, 2))]  # the last row may not be full
    ax.set_xticks(np.add.outer(below, ticks).ravel(), [f"{t:g}" for t in ticks] * len(below))
    ax.set_xlabel(f"$x$  [{LENGTH}]" if row_labels is None else f"$x$ and $y$  [{LENGTH}]")
    if row_labels is None:
        ax.set_yticks(np.subtract.outer(tops + box_size, ticks).ravel(), [f"{t:g}" for t in ticks] * rows)
        ax.set_ylabel(f"$y$  [{LENGTH}]")
    else:
        ax.set_yticks(tops + box_size / 2, row_labels)
        ax.tick_params(axis="y", length=0)
    ax.spines[:].set_visible(False)
    for top, column in (pair for pair in zip(tops, marked, strict=False) if pair[1] >= 0):
        ax.add_patch(Rectangle((lefts[column], top), box_size, box_size, fill=False, ec=MARK, lw=2))
    for text, (top, left) in zip(texts, product(tops, lefts), strict=False):
        place = {"xytext": (0, 2), "textcoords": "offset points", "ha": "center", "va": "bottom"}
        ax.annotate(text, (left + box_size / 2, top), gid="title", **place)
    return image
