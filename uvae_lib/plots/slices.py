"""Slices and cubes as images."""

from collections.abc import Sequence

import numpy as np
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Affine2D

from ..cropping import periodic_crop
from .figure import (
    COLUMN,
    DENSITY_MAP,
    DIFFERENCE_MAP,
    LENGTH,
    LOG_DENSITY,
    MARK,
    PAGE,
    as_array,
    as_images,
    colour_bar,
    new_axes,
    new_figure,
    plot,
    shared_norm,
    symmetric_norm,
)


@plot
def slice_grid(
    slices_log, box_size: float, titles: Sequence[str] | None = None, columns: int = 4,
    row_labels: Sequence[str] | None = None, label: str = LOG_DENSITY, *, ax: Axes | None = None,
) -> Figure:  # fmt: skip
    """Slices side by side with one colour scale, as one image.

    slices_log   (n, H, W) or (n, 1, H, W) log densities
    box_size     side of a slice [Mpc/h]
    titles       n texts, drawn above the slices
    columns      slices in a row
    row_labels   a text left of each row
    label        of the colour bar, where pixels are no log densities
    Raises ValueError for another number of titles than slices, or of labels than rows.
    """
    slices = as_images(slices_log)
    columns = min(columns, len(slices))
    rows = -(-len(slices) // columns)
    tiles = np.full((rows * columns, *slices.shape[1:]), np.nan)
    tiles[: len(slices)] = slices
    ax = ax or new_axes(min(PAGE, 1.2 + 3 * columns), 0.5 + rows / columns, squares=True)
    image = _mosaic(ax, tiles.reshape(rows, columns, *slices.shape[1:]), box_size, shared_norm(slices), titles=titles,
                    row_labels=row_labels)  # fmt: skip
    colour_bar(image, ax, label)
    return ax.figure


@plot
def crop_on_cube(plane_log, corner: tuple[int, int], size: int, box_size: float) -> Figure:
    """A whole periodic plane with the outline of a crop, in pieces where it wraps, and the crop beside it.

    plane_log   (N, N) log density
    corner      (row, col) of the crop's first pixel, taken modulo N
    size        side of the crop [pixels], at most N
    box_size    side of the plane [Mpc/h]
    Dashed lines in the crop are the edges of the box; equal letters mark equal pieces.
    """
    plane = as_images(plane_log)[0]
    side, pixel = len(plane), box_size / len(plane)
    crop, norm = periodic_crop(plane, corner, size), shared_norm(plane)
    figure = new_figure(PAGE, 0.7, squares=True)
    left, right = figure.subplots(1, 2)
    for ax, values, title in ((left, plane, "periodic plane"), (right, crop, "crop")):
        extent = (0, len(values) * pixel, 0, len(values) * pixel)
        image = ax.imshow(values, norm=norm, cmap=DENSITY_MAP, origin="lower", extent=extent)
        ax.set(title=title, xlabel=LENGTH, ylabel=LENGTH)
        _few_ticks(ax)
    rows, cols = (_wrapped(int(start) % side, size, side) for start in corner)
    pieces = [(row, col) for row in rows for col in cols]
    for letter, ((row, in_row, height), (col, in_col, width)) in zip("ABCD", pieces, strict=False):
        lines = [[(col, y), (col + width, y)] for y in _ends(row, in_row, height, size)]
        lines += [[(x, row), (x, row + height)] for x in _ends(col, in_col, width, size)]
        left.add_collection(LineCollection(np.array(lines, float) * pixel, colors=MARK), autolim=False)
        for ax, x, y in ((left, col, row), (right, in_col, in_row)):
            ax.text((x + width / 2) * pixel, (y + height / 2) * pixel, letter, color=MARK, ha="center", va="center",
                    weight="bold", size="large")  # fmt: skip
    for draw, pieces in ((right.axhline, rows), (right.axvline, cols)):
        for _, start, _ in pieces[1:]:
            draw(start * pixel, color=MARK, ls="--")
    colour_bar(image, [left, right], LOG_DENSITY)
    return figure


@plot
def cube_3d(y, box_size: float, *, ax: Axes | None = None) -> Figure:
    """Three faces of a cube of overdensity, seen from above one of its corners, with logarithmic colours.

    y          (N, N, N) = rho / <rho>, axes (x, y, z), z upwards
    box_size   side of the cube [Mpc/h]
    """
    cube = as_array(y)
    if cube.ndim != 3:
        raise ValueError(f"found an array of shape {cube.shape}; cube_3d draws one cube (N, N, N)")
    e_x, e_y, e_z = np.array([[np.sqrt(0.75), -0.5], [np.sqrt(0.75), 0.5], [0.0, 1.0]])
    faces = ((cube[:, :, -1], e_x, e_y, e_z), (cube[:, 0], e_x, e_z, 0 * e_z), (cube[-1], e_y, e_z, e_x))
    low, high = np.percentile(np.concatenate([face.ravel() for face, *_ in faces]), [1, 99.8])
    norm = LogNorm(max(low, 1e-3), high)
    ax = ax or new_axes(COLUMN, 1.1, squares=True)
    for values, right, up, start in faces:
        onto = Affine2D.from_values(*right, *up, *(start * box_size)) + ax.transData
        image = ax.imshow(np.maximum(values.T, norm.vmin), norm=norm, cmap=DENSITY_MAP, origin="lower",
                          extent=(0, box_size, 0, box_size), transform=onto)  # fmt: skip
        corners = start + np.array([0 * up, right, right + up, up, 0 * up])
        ax.plot(*(corners * box_size).T, color="white", lw=1, solid_joinstyle="round")
    _edge_labels(ax, box_size, "x", e_x, 0 * e_x, -e_y)
    _edge_labels(ax, box_size, "y", e_y, e_x, e_x)
    _edge_labels(ax, box_size, "z", e_z, 0 * e_x, -e_y)
    ax.set(xlim=(-0.01 * box_size, 1.75 * box_size), ylim=(-0.51 * box_size, 1.51 * box_size), aspect="equal")
    ax.axis("off")
    colour_bar(image, ax, r"$\rho / \bar\rho$", shrink=0.6)
    return ax.figure


@plot
def reconstructions(truth, recon, box_size: float, titles: Sequence[str] | None = None) -> Figure:
    """Rows of truth, reconstruction and residual; the first two share a colour scale, residuals a symmetric one.

    truth, recon   (n, H, W) or (n, 1, H, W) log densities
    box_size       side of a slice [Mpc/h]
    titles         n texts, drawn to the left of the rows
    Raises ValueError for truth and reconstructions of different shapes.
    """
    truth, recon = as_images(truth), as_images(recon)
    if truth.shape != recon.shape:
        raise ValueError(
            f"found truth of shape {truth.shape} and reconstructions of {recon.shape}; expected equal shapes"
        )
    residual = recon - truth
    figure = new_figure(0.8 * PAGE, len(truth) / 3 + 0.4, squares=True)
    left, right = figure.subplots(1, 2, width_ratios=(2 + _gap(truth) / truth.shape[-1], 1))
    pairs = np.stack([truth, recon], axis=1)
    image = _mosaic(left, pairs, box_size, shared_norm(truth), row_labels=titles, headers=("truth", "reconstruction"))
    colour_bar(image, left, LOG_DENSITY, location="bottom", shrink=0.5)
    norm = symmetric_norm(residual)
    image = _mosaic(right, residual[:, None], box_size, norm, DIFFERENCE_MAP, headers=("residual",))
    right.set(yticks=[], ylabel="")
    label = r"$\ln\,(\rho_\mathrm{rec} / \rho_\mathrm{true})$"
    colour_bar(image, right, label, location="bottom")
    return figure


@plot
def traversal_strip(
    frames, values, row_labels: Sequence[str], box_size: float, anchor=None, value_name: str = "",
    marked: Sequence[int] = (), *, ax: Axes | None = None,
) -> Figure:  # fmt: skip
    """Decoded slices along latent directions, one row a direction; or their differences to an anchor.

    frames       (rows, n, H, W) log densities
    values       (rows, n) or (n,): where on the direction each frame is, printed above it
    row_labels   a text a row
    box_size     side of a slice [Mpc/h]
    anchor       (H, W) or (rows, H, W): subtracted from the frames, which are then drawn with a symmetric map
    value_name   what the values are, written above them
    marked       the column of each row that is the anchor: it is outlined
    """
    frames = as_array(frames)
    if frames.ndim == 5:
        frames = frames[:, :, 0]
    if frames.ndim != 4:
        raise ValueError(f"found frames of shape {frames.shape}; expected (rows, n, H, W)")
    rows, n = frames.shape[:2]
    norm, colours, label = shared_norm(frames), DENSITY_MAP, LOG_DENSITY
    if anchor is not None:
        frames = frames - as_images(anchor)[:, None]
        norm, colours, label = symmetric_norm(frames), DIFFERENCE_MAP, r"$\ln\,(\rho / \rho_\mathrm{anchor})$"
    values = as_array(values)
    zero = 1e-3 * np.abs(values).max()  # what rounding leaves of it, and what nobody sees
    sign = "+" if values.min() < -zero else ""
    texts = [f"${v:{sign}.2g}$" if abs(v) > zero else "$0$" for v in values.ravel()]
    above = {"headers" if values.ndim == 1 else "titles": texts}
    ax = ax or new_axes(PAGE, 0.5 + rows / n, squares=True)
    image = _mosaic(ax, frames, box_size, norm, colours, row_labels=row_labels, marked=marked, **above)
    if value_name:
        ax.set_title(value_name, size=rcParams["axes.labelsize"], pad=1.7 * rcParams["font.size"])
    colour_bar(image, ax, label)
    return ax.figure


def _wrapped(start: int, size: int, side: int) -> list[tuple[int, int, int]]:
    """The one or two pieces of a periodic interval: (first pixel in the plane, in the crop, length)."""
    first = min(size, side - start)
    return [(start, 0, first)] + ([(0, first, size - first)] if size > first else [])


def _ends(start: int, in_crop: int, length: int, size: int) -> list[int]:
    """Where a piece of `_wrapped` ends because the crop does, and not the plane."""
    return [start] * (in_crop == 0) + [start + length] * (in_crop + length == size)


def _ticks(length: float, reach: float = 0.95) -> np.ndarray:
    """Two to four round positions, from 0 to less than a share `reach` of a length."""
    ticks = MaxNLocator(3, steps=[1, 2, 2.5, 5, 10]).tick_values(0, length)
    return ticks[(ticks >= 0) & (ticks < reach * length)]


def _few_ticks(ax: Axes) -> None:
    """The same few ticks on both axes of a square image."""
    ticks = _ticks(ax.get_xlim()[1])
    ax.set(xticks=ticks, yticks=ticks)


def _edge_labels(ax: Axes, box_size: float, name: str, along, start, away) -> None:
    """Ticks and name of an axis that runs from `start` in the direction `along`, written on its side `away`."""
    size = rcParams["font.size"]
    ticks = [t for t in _ticks(box_size) if t or name != "z"]  # x and z begin at one corner: one zero is enough
    for tick in ticks:
        place = start * box_size + along * tick
        ax.annotate(f"{tick:g}", place, xytext=0.6 * size * away, textcoords="offset points", va="center",
                    ha="left" if away[0] > 0 else "right")  # fmt: skip
    away = away if along[0] == 0 else 0.8 * np.array([0.8 * away[0], -1])
    turn, middle = np.degrees(np.arctan2(along[1], along[0])), (start + along / 2) * box_size
    ax.annotate(f"${name}$  [{LENGTH}]", middle, xytext=3 * size * away, textcoords="offset points", va="center",
                ha="center", rotation=turn)  # fmt: skip


def _gap(tiles: np.ndarray) -> int:
    """Pixels between the tiles of a mosaic."""
    return max(1, round(0.04 * tiles.shape[-1]))


def _mosaic(
    ax: Axes, tiles: np.ndarray, box_size: float, norm: Normalize, colours: str = DENSITY_MAP, *,
    titles: Sequence[str] | None = None, headers: Sequence[str] = (), row_labels: Sequence[str] | None = None,
    marked: Sequence[int] = (),
) -> AxesImage:  # fmt: skip
    """Draw tiles (rows, columns, H, W) as ONE image; the axes [Mpc/h] start anew at each tile.

    titles      a text above each tile, row by row, fewer than tiles when the last row is not full, or else
    headers     a text above each column; both shrink to the width of a tile
    row_labels  a text left of each row, instead of the axis
    marked      the column of each row that is outlined
    """
    rows, columns, height, width = tiles.shape
    present = ~np.isnan(tiles).all(axis=(2, 3))
    if titles is not None and len(titles) != present.sum():
        raise ValueError(f"found {len(titles)} titles for {present.sum()} slices; give one for each")
    if row_labels is not None and len(row_labels) != rows:
        raise ValueError(f"found {len(row_labels)} labels for {rows} rows; give one for each")
    tile_inches = 1.13 * ax.get_window_extent().width / ax.get_figure(root=True).dpi / columns
    gap = _gap(tiles)
    above = gap if titles is None else round(1.9 * rcParams["font.size"] / 72 / tile_inches * height)
    canvas = np.full((rows * (height + above) - above, columns * (width + gap) - gap), np.nan)
    for row in range(rows):
        for column in range(columns):
            top, left = row * (height + above), column * (width + gap)
            canvas[top : top + height, left : left + width] = tiles[row, column, ::-1]
    pixel = box_size / width
    extent = (0, canvas.shape[1] * pixel, canvas.shape[0] * pixel, 0)
    image = ax.imshow(canvas, norm=norm, cmap=colours, extent=extent)
    lefts = np.arange(columns) * (width + gap) * pixel
    tops = np.arange(rows) * (height + above) * pixel
    ticks = _ticks(box_size, 0.95 if tile_inches > 0.12 * rcParams["font.size"] else 0.7)
    ax.set_xticks(
        [left + t for left in lefts[present[-1]] for t in ticks], [f"{t:g}" for t in ticks] * present[-1].sum()
    )
    ax.set_xlabel(LENGTH)
    if row_labels is None:
        ax.set_yticks([top + box_size - t for top in tops for t in ticks], [f"{t:g}" for t in ticks] * rows)
        ax.set_ylabel(LENGTH)
    else:
        ax.set_yticks(tops + box_size / 2, row_labels)
        ax.tick_params(axis="y", length=0)
    ax.spines[:].set_visible(False)
    places = [(x, y) for y in tops for x in lefts]
    texts = [*(titles if titles is not None else headers)]
    for row, column in enumerate(marked):
        ax.add_patch(Rectangle(places[row * columns + column], box_size, box_size, fill=False, ec="tab:green", lw=2))
    for (x, y), text in zip(places, texts, strict=False):
        ax.annotate(text, (x + box_size / 2, y), xytext=(0, 2), textcoords="offset points", ha="center", va="bottom",
                    gid="title")  # fmt: skip
    return image
