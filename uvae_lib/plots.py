"""Pictures: arrays in, a matplotlib Figure out. Nothing here trains, reads, saves or shows.

arrays      numpy or torch, on any device
slices      natural log densities x = log(y + eps), y = rho / <rho>; row 0 is drawn at the bottom, axes in Mpc/h
curve       (n,), or (median, low, high) of (n,) each, drawn as a line in a band
width       that of rcParams["figure.figsize"] where a style sets it (`paper.style`), else one for the screen
No figure is made by pyplot: each is shown once when it is the last line of a cell, and by `display(figure)`.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from functools import wraps

import numpy as np
import pandas as pd
import seaborn
from matplotlib import cycler, rc_context, rcParams, rcParamsDefault
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import LogNorm, Normalize, to_rgba_array
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Affine2D
from PIL import Image

from .cropping import periodic_crop

DENSITY_MAP, DIFFERENCE_MAP = "magma", "RdBu_r"  # both are safe for the colour-blind
LOG_DENSITY = r"$\ln\,(\rho / \bar\rho + \epsilon)$"
LENGTH, WAVENUMBER = "Mpc/$h$", r"$k$  [$h$/Mpc]"
SYMBOLS = {"Omega_m": r"$\Omega_m$", "sigma_8": r"$\sigma_8$"}
COLOURS = seaborn.color_palette("colorblind").as_hex()
TRUTH, MARK = "0.1", "#56e4e0"  # grey level of what is true; a colour that shows on the density map
PAGE, COLUMN = 8.5, 6.0  # [in], of wide and of single-panel figures on the screen
CURVES = {  # label, colour and marks of what `loss_curves` draws
    False: ("training", COLOURS[0], "-"),
    True: ("held-out cubes", COLOURS[1], "o-"),
    "active_z": ("$z$", COLOURS[2], "o-"),
    "active_h": ("$h$", COLOURS[4], "o-"),
}
LOOK = {
    "axes.prop_cycle": cycler(color=COLOURS),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.handlelength": 1.5,
    "figure.constrained_layout.h_pad": 0.06,
    "figure.constrained_layout.w_pad": 0.06,
}


class Picture(Figure):
    """A Figure that a notebook shows without pyplot, drawn in the style that it was made in."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        styled = ("axes", "figure", "font", "image", "legend", "lines", "mathtext", "text", "xtick", "ytick")
        self._style = {key: rcParams[key] for key in rcParams if key.split(".")[0] in styled}

    def draw(self, renderer) -> None:
        """Draw: ticks are made and formulas set only now, so the style must still hold."""
        with rc_context(self._style):
            super().draw(renderer)

    def _repr_png_(self) -> bytes:
        """The picture at 110 dpi; where it holds images, in 256 colours of their maps: a third of the bytes."""
        file = io.BytesIO()
        self.savefig(file, format="png", dpi=110)
        maps = {image.cmap.name: image.cmap for ax in self.axes for image in ax.images}.values()
        if not maps:
            return file.getvalue()
        greys = to_rgba_array(np.linspace(0, 1, 24).astype(str))  # far apart: Pillow looks up colours to 2 bits
        mapped = [cmap(np.linspace(0, 1, 230 // len(maps))) for cmap in maps]
        colours = np.concatenate([*mapped, greys, to_rgba_array(MARK)])
        palette = Image.new("P", (1, 1))
        palette.putpalette(np.uint8(np.round(255 * colours[:, :3])).ravel().tolist())
        picture, small = Image.open(file).convert("RGB"), io.BytesIO()
        picture.quantize(palette=palette, dither=Image.Dither.NONE).save(small, "png")
        return small.getvalue()


def _in_our_look(plot: Callable) -> Callable:
    """A function that makes its figure with LOOK laid over the style in force, and lays it out once and for all.

    A layout made anew at each drawing would shift by fractions of a pixel, and take most of the time.
    """

    @wraps(plot)
    def styled(*args, **kwargs):
        with rc_context(LOOK):
            figure = plot(*args, **kwargs)
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        return figure

    return styled


# --- slices


@_in_our_look
def slice_grid(slices_log, box_size: float, titles: Sequence[str] | None = None, columns: int = 4) -> Figure:
    """Slices side by side with one colour scale, as one image.

    slices_log  (n, H, W) or (n, 1, H, W) log densities;  box_size  side of a slice [Mpc/h]
    titles      n texts, drawn above the slices
    Raises ValueError for another number of titles than slices.
    """
    slices = _images(slices_log)
    columns = min(columns, len(slices))
    rows = -(-len(slices) // columns)
    tiles = np.full((rows * columns, *slices.shape[1:]), np.nan)
    tiles[: len(slices)] = slices
    figure = _figure(min(PAGE, 1.2 + 3 * columns), 0.5 + rows / columns, layout="compressed")
    ax = figure.subplots()
    image = _mosaic(ax, tiles.reshape(rows, columns, *slices.shape[1:]), box_size, _shared_norm(slices), titles=titles)
    _colour_bar(image, ax, LOG_DENSITY)
    return _trim(figure)


@_in_our_look
def crop_on_cube(plane_log, corner: tuple[int, int], size: int, box_size: float) -> Figure:
    """A whole periodic plane with the outline of a crop, in pieces where it wraps, and the crop beside it.

    plane_log   (N, N) log density;  box_size  side of the plane [Mpc/h]
    corner      (row, col) of the crop's first pixel, taken modulo N;  size  side of the crop [pixels], at most N
    Dashed lines in the crop are the edges of the box; equal letters mark equal pieces.
    """
    plane = _images(plane_log)[0]
    side, pixel = len(plane), box_size / len(plane)
    crop, norm = periodic_crop(plane, corner, size), _shared_norm(plane)
    figure = _figure(PAGE, 0.7, layout="compressed")
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
    _colour_bar(image, [left, right], LOG_DENSITY)
    return _trim(figure)


@_in_our_look
def cube_3d(y, box_size: float) -> Figure:
    """Three faces of a cube of overdensity, seen from above one of its corners, with logarithmic colours.

    y (N, N, N) = rho / <rho>, axes (x, y, z), z upwards;  box_size [Mpc/h]
    """
    cube = _array(y)
    if cube.ndim != 3:
        raise ValueError(f"found an array of shape {cube.shape}; cube_3d draws one cube (N, N, N)")
    e_x, e_y, e_z = np.array([[np.sqrt(0.75), -0.5], [np.sqrt(0.75), 0.5], [0.0, 1.0]])
    faces = ((cube[:, :, -1], e_x, e_y, e_z), (cube[:, 0], e_x, e_z, 0 * e_z), (cube[-1], e_y, e_z, e_x))
    low, high = np.percentile(np.concatenate([face.ravel() for face, *_ in faces]), [1, 99.8])
    norm = LogNorm(max(low, 1e-3), high)
    figure = _figure(COLUMN, 1.1, layout="compressed")
    ax = figure.subplots()
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
    _colour_bar(image, ax, r"$\rho / \bar\rho$", shrink=0.6)
    return _trim(figure)


@_in_our_look
def reconstructions(truth, recon, box_size: float, titles: Sequence[str] | None = None) -> Figure:
    """Rows of truth, reconstruction and residual; the first two share a colour scale, residuals a symmetric one.

    truth, recon  (n, H, W) or (n, 1, H, W) log densities;  box_size  side of a slice [Mpc/h]
    titles        n texts, drawn to the left of the rows
    """
    truth, recon = _images(truth), _images(recon)
    if truth.shape != recon.shape:
        raise ValueError(
            f"found truth of shape {truth.shape} and reconstructions of {recon.shape}; expected equal shapes"
        )
    residual = recon - truth
    figure = _figure(0.8 * PAGE, len(truth) / 3 + 0.4, layout="compressed")
    left, right = figure.subplots(1, 2, width_ratios=(2 + _gap(truth) / truth.shape[-1], 1))
    pairs = np.stack([truth, recon], axis=1)
    image = _mosaic(left, pairs, box_size, _shared_norm(truth), row_labels=titles, headers=("truth", "reconstruction"))
    _colour_bar(image, left, LOG_DENSITY, location="bottom", shrink=0.5)
    norm = _symmetric_norm(residual)
    image = _mosaic(right, residual[:, None], box_size, norm, DIFFERENCE_MAP, headers=("residual",))
    right.set(yticks=[], ylabel="")
    _colour_bar(image, right, r"$\ln\,(\rho_\mathrm{rec} / \rho_\mathrm{true})$", location="bottom")
    return _trim(figure)


@_in_our_look
def traversal_strip(
    frames, values, row_labels: Sequence[str], box_size: float, anchor=None, value_name: str = ""
) -> Figure:
    """Decoded slices along latent directions, one row a direction; or their differences to an anchor.

    frames      (rows, n, H, W) log densities;  box_size  side of a slice [Mpc/h]
    values      (rows, n) or (n,): where on the direction each frame is, printed above it
    row_labels  a text a row
    anchor      (H, W) or (rows, H, W): subtracted from the frames, which are then drawn with a symmetric map
    """
    frames = _array(frames)
    if frames.ndim == 5:
        frames = frames[:, :, 0]
    if frames.ndim != 4:
        raise ValueError(f"found frames of shape {frames.shape}; expected (rows, n, H, W)")
    rows, n = frames.shape[:2]
    norm, colours, label = _shared_norm(frames), DENSITY_MAP, LOG_DENSITY
    if anchor is not None:
        frames = frames - _images(anchor)[:, None]
        norm, colours, label = _symmetric_norm(frames), DIFFERENCE_MAP, r"$\ln\,(\rho / \rho_\mathrm{anchor})$"
    values = _array(values)
    zero = 1e-3 * np.abs(values).max()  # what rounding leaves of it, and what nobody sees
    texts = [f"${v:+.2g}$" if abs(v) > zero else "$0$" for v in values.ravel()]
    above = {"headers" if values.ndim == 1 else "titles": texts}
    figure = _figure(PAGE, 0.5 + rows / n, layout="compressed")
    ax = figure.subplots()
    image = _mosaic(ax, frames, box_size, norm, colours, row_labels=row_labels, **above)
    if value_name:
        ax.set_title(value_name, size=rcParams["axes.labelsize"], pad=1.7 * rcParams["font.size"])
    _colour_bar(image, ax, label)
    return _trim(figure)


# --- cubes and pixels


@_in_our_look
def cosmologies(
    params: pd.DataFrame | Mapping[str, pd.DataFrame], split: Mapping[str, Sequence[int]] | None = None
) -> Figure:
    """The cubes' Omega_m and sigma_8, one marker for each part of a split or for each set.

    params  a suite's parameters, or {set: parameters} (LH, CV, 1P)
    split   {"train": rows of params, ...}
    Raises ValueError where a table has no columns Omega_m and sigma_8.
    """
    if isinstance(params, Mapping):
        groups = dict(params)
    else:
        groups = {name: params.iloc[list(rows)] for name, rows in split.items()} if split else {"cubes": params}
    figure = _figure(COLUMN, 0.8)
    ax = figure.subplots()
    for number, (label, table) in enumerate(groups.items()):
        if not {"Omega_m", "sigma_8"} <= set(table):
            raise ValueError(f"found parameters {', '.join(table) or 'none'} of {label}; expected Omega_m and sigma_8")
        marks = {"ms": _dot()} if number == 0 else {"ms": 1.8 * _dot(), "mfc": "none"}
        ax.plot(table["Omega_m"], table["sigma_8"], "osD^vP"[number], label=f"{label} ({len(table)})", **marks)
    ax.set(xlabel=SYMBOLS["Omega_m"], ylabel=SYMBOLS["sigma_8"])
    if len(groups) > 1:
        figure.legend(loc="outside upper center", ncols=len(groups), handletextpad=0.2)
    return figure


@_in_our_look
def pixel_histograms(samples: Mapping[str, np.ndarray], xlabel: str = LOG_DENSITY, log: bool = True) -> Figure:
    """Distributions of pixel values, all in the same 120 bins.

    samples  {label: values of any shape};  log  a logarithmic axis of the density
    """
    arrays = {label: _array(values).ravel() for label, values in samples.items()}
    everything = np.concatenate(list(arrays.values()))
    margin = 0.01 * np.ptp(everything) or 0.5
    edges = np.linspace(everything.min() - margin, everything.max() + margin, 121)
    figure = _figure(COLUMN, 0.65)
    ax = figure.subplots()
    for label, values in arrays.items():
        ax.stairs(np.histogram(values, edges, density=True)[0], edges, label=label)
    ax.set(xlabel=xlabel, ylabel="probability density", xlim=edges[[0, -1]], yscale="log" if log else "linear")
    if len(arrays) > 1:
        ax.legend()
    return figure


# --- spectra


@_in_our_look
def spectra(
    k, curves: Mapping[str, object], reference: str | None = None, ylabel: str = r"$P(k)$  [(Mpc/$h$)$^2$]"
) -> Figure:
    """Power spectra, and below them their ratio to one of them.

    k          (n,) [h/Mpc];  curves  {label: curve}, of the unit that ylabel names
    reference  the label, drawn in black, that the others are divided by; without it there is no second panel
    """
    if reference is not None and reference not in curves:
        raise ValueError(f"found no curve {reference!r} to divide by; expected one of {', '.join(curves)}")
    k = _array(k)
    figure = _figure(COLUMN, 0.65 if reference is None else 0.9)
    axes = figure.subplots(
        2 if reference else 1, sharex=True, squeeze=False, height_ratios=(2.5, 1) if reference else None
    )[:, 0]
    divisor = _band(curves[reference])[0] if reference else None
    for (label, curve), colour in zip(curves.items(), _curve_colours(curves, reference), strict=True):
        _draw(axes[0], k, _band(curve), colour, label)
        if reference:
            _draw(axes[1], k, _band(curve) / divisor, colour)
    axes[0].set(xscale="log", yscale="log", ylabel=ylabel, xlim=k[[0, -1]])
    axes[0].legend()
    if reference:
        axes[0].set_ylim(bottom=max(axes[0].get_ylim()[0], 0.1 * divisor.min()))
        ratios = np.stack([_band(curve)[0] for curve in curves.values()]) / divisor
        reach = np.clip(1.3 * np.nanmax(np.abs(ratios - 1)), 0.2, 1)
        axes[1].set(ylabel=f"ratio to\n{reference}", ylim=(1 - reach, 1 + reach))
    axes[-1].set_xlabel(WAVENUMBER)
    figure.align_ylabels()
    return figure


@_in_our_look
def fidelity(k, r: Mapping[str, object], T: Mapping[str, object]) -> Figure:
    """How much of the truth a reconstruction keeps, scale by scale: phases r(k), amplitudes T(k) = sqrt(P / P_true).

    k (n,) [h/Mpc];  r, T  {label: curve}
    """
    k = _array(k)
    figure = _figure(PAGE, 0.42)
    axes = figure.subplots(1, 2) if _is_wide(figure, 1.2) else figure.subplots(2, 1, sharex=True)
    for ax, curves, level in ((axes[0], r, 0.9), (axes[1], T, 1.0)):
        for (label, curve), colour in zip(curves.items(), COLOURS, strict=False):
            _draw(ax, k, _band(curve), colour, label)
        ax.axhline(level, color="0.6", lw=0.8, ls="--", zorder=0)
        ax.set(xscale="log", xlabel=WAVENUMBER if ax.get_subplotspec().is_last_row() else "", xlim=k[[0, -1]])
        ax.set_ylim(min(0, ax.get_ylim()[0]), max(1.05, ax.get_ylim()[1]))
    axes[0].set_ylabel("correlation  $r(k)$")
    axes[1].set_ylabel("transfer function  $T(k)$")
    axes[0].legend()
    return figure


@_in_our_look
def pca_limit(n_components, unexplained, n_latent: int = 512) -> Figure:
    """Share of the variance that the best linear code of n numbers leaves unexplained.

    n_components (m,);  unexplained (m,), or {label: (m,)};  n_latent is marked
    """
    n = _array(n_components)
    curves = unexplained if isinstance(unexplained, Mapping) else {"PCA": unexplained}
    figure = _figure(COLUMN, 0.65)
    ax = figure.subplots()
    for label, values in curves.items():
        values = _array(values)
        at = np.interp(np.log(n_latent), np.log(n), values)
        (line,) = ax.plot(n, values, "o-", ms=_dot(), label=f"{label}: {at:.3f} at {n_latent}")
        ax.plot(n_latent, at, "o", ms=2 * _dot(), mfc="none", color=line.get_color())
    ax.axvline(n_latent, color="0.6", lw=0.8, ls="--", zorder=0)
    ax.set(xscale="log", xlabel="numbers in the code", ylabel="unexplained share of the variance", ylim=(0, 1.02))
    ax.legend()
    return figure


# --- training and probes


@_in_our_look
def loss_curves(history: pd.DataFrame) -> Figure:
    """Terms of the loss while a run learns: training as lines, held-out cubes as dots.

    history  one row a logged step: step, l2, fvu, kl_z, kl_h [nats], lr; val_l2, val_fvu, val_kl_z, val_kl_h,
             active_z, active_h where they were measured. What is not there yet is not drawn.
    """
    panels = {
        "squared error per slice": ("l2", "val_l2"),
        "unexplained variance": ("fvu", "val_fvu"),
        "KL of $z$  [nats]": ("kl_z", "val_kl_z"),
        "KL of $h$  [nats]": ("kl_h", "val_kl_h"),
        "active units": ("active_z", "active_h"),
        "learning rate": ("lr",),
    }
    figure = _figure(PAGE, 0.58)
    grid = (2, 3) if _is_wide(figure, 1.15) else (3, 2)
    for ax, (title, names) in zip(figure.subplots(*grid, sharex=True).flat, panels.items(), strict=True):
        for name in names:
            rows = history[["step", name]].dropna() if name in history else []
            if len(rows):
                label, colour, marks = CURVES[name if name.startswith("active") else name.startswith("val_")]
                ax.plot(rows["step"], rows[name], marks, ms=_dot(), color=colour, label=label)
        if not ax.lines:
            ax.text(0.5, 0.5, "not measured yet", transform=ax.transAxes, ha="center", color="0.5")
        ax.set_title(title, size=rcParams["axes.labelsize"])
        ax.set_ylim(0, 1.05 * max((np.max(line.get_ydata()) for line in ax.lines), default=1) or 1)
        ax.ticklabel_format(style="sci", scilimits=(-3, 5), useMathText=True)
        if ax.get_subplotspec().is_last_row():
            ax.set_xlabel("step")
        if title == "active units" and ax.lines:
            ax.legend()
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure


@_in_our_look
def probe_scatter(truth, predicted, error=None, name: str = "Omega_m") -> Figure:
    """A parameter as predicted from z against its true value, one point a cube, with R^2 in the corner.

    truth, predicted (n,);  error (n,) one standard deviation of each prediction;  name  of the parameter
    """
    truth, predicted = _array(truth), _array(predicted)
    if truth.shape != predicted.shape or truth.ndim != 1:
        raise ValueError(
            f"found truth of shape {truth.shape} and predictions of {predicted.shape}; expected (n,) twice"
        )
    score = 1 - np.square(predicted - truth).sum() / np.square(truth - truth.mean()).sum()
    figure = _figure(COLUMN * 0.75, 1.0, layout="compressed")
    ax = figure.subplots()
    error = None if error is None else _array(error)
    ax.errorbar(truth, predicted, error, fmt="o", ms=_dot(), elinewidth=0.8)
    reach = np.concatenate([truth, predicted])
    margin = 0.06 * np.ptp(reach)
    limits = reach.min() - margin, reach.max() + margin
    ax.plot(limits, limits, color="0.6", lw=0.8, zorder=0)
    symbol = SYMBOLS.get(name, name)
    ax.set(xlabel=f"true {symbol}", ylabel=f"{symbol} from $z$", xlim=limits, ylim=limits, aspect="equal")
    ax.locator_params(nbins=5)
    ax.text(0.05, 0.95, f"$R^2 = {score:.2f}$", transform=ax.transAxes, va="top")
    return _trim(figure)


# --- pieces


def _array(values) -> np.ndarray:
    """Numpy array of an array, a tensor (of any device and precision) or a list."""
    return values.detach().cpu().double().numpy() if hasattr(values, "detach") else np.asarray(values)


def _images(values) -> np.ndarray:
    """(n, H, W) of (H, W), (n, H, W) or (n, 1, H, W)."""
    images = _array(values)
    if images.ndim == 4 and images.shape[1] == 1:
        images = images[:, 0]
    if images.ndim not in (2, 3):
        raise ValueError(f"found slices of shape {images.shape}; expected (n, H, W) or (n, 1, H, W)")
    return images if images.ndim == 3 else images[None]


def _figure(screen_width: float, ratio: float, layout: str = "constrained") -> Picture:
    """An empty figure of the style's width, or the screen's where no style sets one; ratio is height / width."""
    width = rcParams["figure.figsize"][0]
    width = screen_width if width == rcParamsDefault["figure.figsize"][0] else width
    return Picture(figsize=(width, ratio * width), layout=layout)


def _is_wide(figure: Picture, narrow_ratio: float) -> bool:
    """Whether panels fit side by side; a figure of one column of a journal becomes higher instead."""
    width = figure.get_figwidth()
    if width < 5:
        figure.set_figheight(narrow_ratio * width)
    return width >= 5


def _trim(figure: Picture) -> Picture:
    """Give a figure of squares the height that they need at its width."""
    for _ in range(2):
        figure.draw_without_rendering()
        for ax in figure.axes:
            _shrink_titles(ax)
        figure.set_figheight(figure.get_tightbbox().height + 0.12)
    return figure


def _shrink_titles(ax: Axes) -> None:
    """Make the texts above the tiles of a mosaic so small that none reaches its neighbour's tile."""
    texts = [text for text in ax.texts if text.get_gid() == "title"]
    lefts = np.unique([text.xy[0] for text in texts])
    if len(lefts) > 1:
        room = np.diff(ax.transData.transform([(left, 0) for left in lefts[:2]])[:, 0])[0]
        widest = max(text.get_window_extent().width for text in texts)
        for text in texts:
            text.set_fontsize(text.get_fontsize() * min(1, 0.96 * room / widest))


def _shared_norm(values: np.ndarray) -> Normalize:
    """One linear scale for all slices, between the 0.5 and 99.8 % quantiles of their pixels."""
    return Normalize(*np.nanpercentile(values, [0.5, 99.8]))


def _symmetric_norm(values: np.ndarray) -> Normalize:
    """A linear scale with zero in its middle, to the 99.5 % quantile of the absolute values."""
    reach = np.nanpercentile(np.abs(values), 99.5) or 1.0
    return Normalize(-reach, reach)


def _dot() -> float:
    """Size of a point in plots of many [pt]."""
    return 0.6 * rcParams["lines.markersize"]


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


def _colour_bar(image: AxesImage, ax, label: str, **place) -> None:
    """A slim colour bar, pointed at both ends: the scale leaves out extreme pixels."""
    bar = image.figure.colorbar(image, ax=ax, label=label, extend="both", aspect=30, pad=0.015, **place)
    bar.outline.set_visible(False)


def _gap(tiles: np.ndarray) -> int:
    """Pixels between the tiles of a mosaic."""
    return max(1, round(0.04 * tiles.shape[-1]))


def _mosaic(
    ax: Axes, tiles: np.ndarray, box_size: float, norm: Normalize, colours: str = DENSITY_MAP, *,
    titles: Sequence[str] | None = None, headers: Sequence[str] = (), row_labels: Sequence[str] | None = None,
) -> AxesImage:  # fmt: skip
    """Draw tiles (rows, columns, H, W) as ONE image; the axes [Mpc/h] start anew at each tile.

    titles      a text above each tile, row by row, fewer than tiles when the last row is not full, or else
    headers     a text above each column; both shrink to the width of a tile
    row_labels  a text left of each row, instead of the axis
    """
    rows, columns, height, width = tiles.shape
    present = ~np.isnan(tiles).all(axis=(2, 3))
    if titles is not None and len(titles) != present.sum():
        raise ValueError(f"found {len(titles)} titles for {present.sum()} slices; give one for each")
    if row_labels is not None and len(row_labels) != rows:
        raise ValueError(f"found {len(row_labels)} labels for {rows} rows; give one for each")
    tile_inches = 0.88 * ax.figure.get_figwidth() / columns
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
    for (x, y), text in zip(places, texts, strict=False):
        ax.annotate(text, (x + box_size / 2, y), xytext=(0, 2), textcoords="offset points", ha="center", va="bottom",
                    gid="title")  # fmt: skip
    return image


def _wrapped(start: int, size: int, side: int) -> list[tuple[int, int, int]]:
    """The one or two pieces of a periodic interval: (first pixel in the plane, in the crop, length)."""
    first = min(size, side - start)
    return [(start, 0, first)] + ([(0, first, size - first)] if size > first else [])


def _ends(start: int, in_crop: int, length: int, size: int) -> list[int]:
    """Where a piece of `_wrapped` ends because the crop does, and not the plane."""
    return [start] * (in_crop == 0) + [start + length] * (in_crop + length == size)


def _band(curve) -> np.ndarray:
    """(1, n) of a curve (n,), (3, n) of (median, low, high)."""
    band = np.stack([_array(c) for c in curve]) if isinstance(curve, tuple) else np.atleast_2d(_array(curve))
    if band.ndim != 2 or len(band) not in (1, 3):
        raise ValueError(f"found a curve of shape {band.shape}; expected (n,) or (median, low, high) of (n,)")
    return band


def _curve_colours(curves: Mapping[str, object], reference: str | None) -> list[str]:
    """Black for the reference, the palette's colours in turn for the others."""
    others = iter(COLOURS * (1 + len(curves) // len(COLOURS)))
    return [TRUTH if label == reference else next(others) for label in curves]


def _draw(ax: Axes, k: np.ndarray, band: np.ndarray, colour: str, label: str | None = None) -> None:
    """A line, in a band where there is one."""
    ax.plot(k, band[0], color=colour, label=label)
    if len(band) == 3:
        ax.fill_between(k, band[1], band[2], color=colour, alpha=0.2, lw=0)
