"""What all plots share: the figure that a notebook shows, its look, its colours and its scales."""

import io
from collections.abc import Callable, Mapping, Sequence
from functools import wraps

import numpy as np
from matplotlib import cycler, rc_context, rcParams, rcParamsDefault
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator
from PIL import Image

from ..files import Absent

DENSITY_MAP, DIFFERENCE_MAP = "magma", "RdBu_r"  # both are safe for the colour-blind
LOG_DENSITY = r"$\ln\,(\rho / \bar\rho + \epsilon)$"
DIFFERENCE = r"$\ln\,(\rho / \rho_\mathrm{anchor})$"
LENGTH, WAVENUMBER, PIXELS = "Mpc/$h$", r"$k$  [$h$/Mpc]", "standardised pixel"
SYMBOLS = {"Omega_m": r"$\Omega_m$", "sigma_8": r"$\sigma_8$"}
# Colours say where a thing is from: simulated, reconstruction, completed, the note's samples (decoded means of
# drawn h), baselines (dashed), z, h. Values of a parameter have line styles, or shades of viridis.
TRUTH, MODEL, DRAWN, OWN, BASELINE, Z, H = "0.1", "#56b4e9", "#0b5cad", "#e08214", "0.55", "#2f9e5b", "#d6569c"
COLOURS = (DRAWN, MODEL, Z, H, OWN, BASELINE)
ROLES = {  # words in a label, and the colour of what they name; the first that fits is taken
    "untrained": BASELINE, "note's samples": OWN, "truth": TRUTH, "true": TRUTH, "simulated": TRUTH, "1P cubes": TRUTH,
    "completed": DRAWN, "drawn": DRAWN, "new": DRAWN, "sample": DRAWN,
    "mean": MODEL, "recon": MODEL, "decoded": MODEL, "smooth": MODEL, "this run": MODEL,
    "PCA": BASELINE, "waves": BASELINE, "$P(k)$": BASELINE, "Gaussian": BASELINE, "$z$": Z, "$h$": H,
}  # fmt: skip
MARK = "#56e4e0"  # a colour that shows on the density map
PAGE, COLUMN, NARROW = 8.5, 6.0, 5.0  # [in], of wide and of single-panel figures; below the last panels are stacked
VISIBLE = 4  # of 255: a larger difference of colours shows as steps in a colour bar
SHOWN, STORED = 110, 200  # pixels an inch on the screen, one for all figures, so that type has one size; in a file
FAINT = {"color": "0.6", "lw": 0.8, "ls": "--", "zorder": 0}  # of lines that only guide the eye
LOOK = {
    "axes.prop_cycle": cycler(color=COLOURS), "axes.spines.top": False, "axes.spines.right": False,
    "legend.frameon": False, "legend.handlelength": 1.5, "image.interpolation": "none",
    **{f"figure.constrained_layout.{space}": 0.06 for space in ("h_pad", "w_pad", "wspace")},
}  # fmt: skip


class Picture(Figure):
    """A Figure that a notebook shows without pyplot, drawn in the style that it was made in.

    squares   whether it holds square images, and is to be as high as they need at its width
    """

    def __init__(self, *args, squares: bool = False, **kwargs):
        super().__init__(*args, dpi=STORED, layout="compressed" if squares else "constrained", **kwargs)
        styled = ("axes", "figure", "font", "image", "legend", "lines", "mathtext", "text", "xtick", "ytick")
        self._style = {key: rcParams[key] for key in rcParams if key.split(".")[0] in styled}
        self._squares = squares

    def draw(self, renderer) -> None:
        """Draw: ticks are made and formulas set only now, so the style must still hold."""
        with rc_context(self._style):
            super().draw(renderer)

    def finish(self) -> "Picture":
        """Lay the figure out once and for all, and choose its dots an inch: whole pixels a voxel, STORED or more.

        A layout made anew at each drawing would shift by fractions of a pixel, and take most of the time.
        """
        self.draw_without_rendering()
        for _ in range(2):
            if self._squares:
                for ax in self.axes:
                    shrink_titles(ax)
                self.set_figheight(self.get_tightbbox().height + 0.12)
            self.draw_without_rendering()
        self.set_layout_engine("none")
        images = ((image, image.get_window_extent().width) for ax in self.axes for image in ax.images)
        self._voxels = max((x.get_array().shape[1] / (width / self.dpi) for x, width in images), default=SHOWN)
        self.set_dpi(self._voxels * np.ceil(STORED / self._voxels))
        return self

    def png(self) -> bytes:
        """The figure as PNG: in 256 colours where that changes no pixel visibly, else in all that were drawn."""
        file, small = io.BytesIO(), io.BytesIO()
        self.savefig(file, format="png", dpi=self.dpi)
        drawn = Image.open(file).convert("RGB")
        palette = drawn.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        error = np.asarray(palette.convert("RGB"), np.int16) - np.asarray(drawn, np.int16)
        (palette if np.abs(error).max() <= VISIBLE else drawn).save(small, "png", optimize=True)
        return small.getvalue()

    def _repr_png_(self) -> tuple[bytes, dict]:
        """What a notebook stores, and the width at which it shows it: at least one pixel of the screen a voxel."""
        return self.png(), {"width": round(self.get_figwidth() * max(SHOWN, min(self._voxels, STORED)))}


def plot(draw: Callable) -> Callable:
    """A function that makes a figure, or draws into axes that it is given, with LOOK laid over the style in force.

    Where an argument is `Absent` the figure holds the reason alone.
    """

    @wraps(draw)
    def drawn(*args, **kwargs) -> Figure | Axes:
        with rc_context(LOOK):
            reason = next((part for part in args if isinstance(part, Absent)), None)
            figure = sentence(reason, kwargs.get("ax")) if reason else draw(*args, **kwargs)
        if (ax := kwargs.get("ax")) is None:
            return figure.finish()
        shrink_titles(ax)
        return ax

    return drawn


def sentence(text: str, ax: Axes | None = None) -> Figure:
    """A figure, or axes, with a sentence in place of a plot."""
    ax = ax or new_axes(COLUMN, 0.2)
    ax.set_axis_off()
    return ax.text(0.5, 0.5, text, transform=ax.transAxes, ha="center", va="center", wrap=True).get_figure()


def new_figure(screen_width: float, ratio: float, squares: bool = False) -> Picture:
    """An empty figure of the style's width, or the screen's where no style sets one; ratio is height / width."""
    width = rcParams["figure.figsize"][0]
    width = screen_width if width == rcParamsDefault["figure.figsize"][0] else width
    return Picture(figsize=(width, ratio * width), squares=squares)


def new_axes(*size, **options) -> Axes:
    """The only axes of `new_figure`."""
    return new_figure(*size, **options).subplots()


def two_panels(ratio: float, widths: Sequence[float] = (1, 1)) -> tuple[Picture, np.ndarray]:
    """Two panels side by side, or, in one column of a journal, on each other in a figure three times as high.

    In a journal's style they have letters, (a) and (b). With more widths there are as many panels.
    """
    figure, n = new_figure(PAGE, ratio), len(widths)
    wide = figure.get_figwidth() >= NARROW
    figure.set_figheight((1 if wide else 1.5 * n) * figure.get_figheight())
    axes = np.ravel(figure.subplots(*(1, n) if wide else (n, 1), width_ratios=widths if wide else None))
    for ax, letter in zip(axes, "abcdef" if figure.get_figwidth() != PAGE else "", strict=False):
        ax.set_title(f"({letter})", loc="left", size=rcParams["axes.labelsize"])
    return figure, axes


@plot
def side_by_side(*draws: Callable, ratio: float = 0.45, widths: Sequence[float] = (), why: str = "") -> Figure:
    """Plots of one panel as the `two_panels`, or more, of one figure.

    draws    called with ax=, e.g. `partial(plots.closure_arrows, asked, read)`
    ratio    height / width of the figure where it is wide
    widths   of the panels, relative to each other; equal when absent
    why      what the figure says where there are no draws
    One legend above the panels names what they show.
    """
    draws = draws or [lambda ax: ax.text(0.5, 0.5, why, ha="center", wrap=True)]
    figure, axes = two_panels(ratio, widths or [1] * len(draws))
    for draw, ax in zip(draws, axes, strict=True):
        draw(ax=ax)
    named = {name: line for ax in axes for line, name in zip(*ax.get_legend_handles_labels(), strict=True)}
    for legend in filter(None, [*figure.legends, *(ax.get_legend() for ax in axes)]):
        legend.remove()
    figure.legend(named.values(), named, loc=f"{'outside ' * bool(named)}upper center", ncols=3)  # no room if empty
    return figure


def as_array(values) -> np.ndarray:
    """Numpy array of an array, a tensor (of any device and precision) or a list."""
    return values.detach().cpu().double().numpy() if hasattr(values, "detach") else np.asarray(values)


def as_images(values) -> np.ndarray:
    """(n, H, W) of (H, W), (n, H, W) or (n, 1, H, W)."""
    images = as_array(values)
    if images.ndim < 2 or (images.ndim == 4 and images.shape[1] != 1) or images.ndim > 4:
        raise ValueError(f"found slices of shape {images.shape}; expected (n, H, W) or (n, 1, H, W)")
    return images.reshape(-1, *images.shape[-2:])


def as_band(curve) -> np.ndarray:
    """(1, n) of a curve (n,), (3, n) of (value, low, high)."""
    band = np.atleast_2d(np.stack([as_array(c) for c in curve]) if isinstance(curve, tuple) else as_array(curve))
    if band.ndim != 2 or len(band) not in (1, 3):
        raise ValueError(f"found a curve of shape {band.shape}; expected (n,) or (median, low, high) of (n,)")
    return band


def shared_norm(values: np.ndarray) -> Normalize:
    """One linear scale for all slices, between the 0.5 and 99.8 % quantiles of their pixels."""
    return Normalize(*np.nanpercentile(values, [0.5, 99.8]))


def symmetric_norm(values: np.ndarray) -> Normalize:
    """A linear scale with zero in its middle, to the 99.5 % quantile of the absolute values."""
    return Normalize(-(reach := np.nanpercentile(np.abs(values), 99.5) or 1.0), reach)


def cube_label(params, cube: int) -> str:
    """Omega_m and sigma_8 of a cube on two lines, or its number where its suite does not know them.

    params   a suite's parameters, one row a cube
    """
    known = [f"{SYMBOLS[name][:-1]} = {params[name].iloc[cube]:.2f}$" for name in SYMBOLS if name in params]
    return "\n".join(known) or f"cube {cube}"


def role(label: str, taken: Sequence[str] = ()) -> str:
    """The colour of what a label names (`ROLES`); the first of COLOURS that is not taken where it names none."""
    fits = *(colour for word, colour in ROLES.items() if word in label), *COLOURS
    return next((colour for colour in fits if colour not in taken), DRAWN)


def draw_curves(
    ax: Axes, x, curves: Mapping[str, object], xlabel: str, ylabel: str, *, level: float | None = None, marks: str = "-"
) -> None:
    """Curves of x (n,), each a line, in a band where there is one; wavenumbers are drawn from the first to the last.

    curves   {label: curve}, coloured by `role`
    level    where a dashed line is drawn across
    marks    of the lines, as matplotlib writes them; a baseline is dashed, a second one dotted
    """
    x = as_array(x)
    for label, curve in curves.items():
        band, taken = as_band(curve), [line.get_color() for line in ax.lines]
        colour = role(label, set(taken) - {BASELINE})
        marked = marks.replace("-", ":" if BASELINE in taken else "--") if colour == BASELINE else marks
        ax.plot(x, band[0], marked, ms=dot(), color=colour, label=SYMBOLS.get(label, label))
        if len(band) == 3:
            ax.fill_between(x, band[1], band[2], color=colour, alpha=0.2, lw=0)
    if level is not None:
        ax.axhline(level, **FAINT)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    if xlabel == WAVENUMBER:
        wavenumbers(ax)
        ax.set_xlim(x[0], x[-1])


def colour_bar(image, ax, label: str, extend: str = "both", **options) -> None:
    """A slim colour bar, pointed at both ends where the scale leaves out extreme values."""
    look = {"extend": extend, "aspect": 30, "pad": 0.015} | options
    image.get_figure().colorbar(image, ax=ax, label=label, **look).outline.set_visible(False)


def wavenumbers(ax: Axes) -> None:
    """A logarithmic axis with plain numbers at 1, 2 and 5."""
    ax.set_xscale("log")
    plain_numbers(ax)


def plain_numbers(ax: Axes) -> None:
    """Ticks of a logarithmic axis that exists: plain numbers at 1, 2 and 5."""
    ax.xaxis.set(major_locator=LogLocator(subs=(1, 2, 5)), major_formatter="{x:g}", minor_formatter="")


def dot() -> float:
    """Size of a point in plots of many [pt]."""
    return 0.6 * rcParams["lines.markersize"]


def shrink_titles(ax: Axes) -> None:
    """Make the texts above the tiles of a mosaic so small that none reaches its neighbour's tile."""
    texts = [text for text in ax.texts if text.get_gid() == "title"]
    lefts = np.unique([text.xy[0] for text in texts])
    if len(lefts) > 1:
        room = np.diff(ax.transData.transform([(left, 0) for left in lefts[:2]])[:, 0])[0]
        widest = max(text.get_window_extent().width for text in texts)
        for text in texts:
            text.set_fontsize(text.get_fontsize() * min(1, 0.96 * room / widest))
