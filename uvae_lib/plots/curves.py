"""Pictures: arrays in, a matplotlib Figure out. Nothing here trains, reads, saves or shows; `paper` saves.

arrays      numpy or torch, on any device
slices      natural log densities x = log(y + eps), y = rho / <rho>; row 0 is drawn at the bottom, axes in Mpc/h
curve       (n,), or (median, low, high) of (n,) each, drawn as a line in a band
width       that of rcParams["figure.figsize"] where a style sets it (`paper.style`), else one for the screen
response    (value, low, high) of (n,) each
ax          a plot of one panel makes a Figure and returns it, or draws into the axes `ax` and returns those
colours     by what a label names: `style.ROLES`
No figure is made by pyplot: each is shown once when it is the last line of a cell, and by `display(figure)`.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..statistics import r2
from .style import (  # noqa: F401
    BASELINE, COLOURS, COLUMN, DENSITY_MAP, DIFFERENCE_MAP, DRAWN, FAINT, LENGTH, LOG_DENSITY, LOOK, MARK, MODEL,
    NARROW, PAGE, PIXELS, SYMBOLS, TRUTH, WAVENUMBER, H, Normalize, Z, as_array, as_band, colour_bar, dot, draw_curves,
    new_axes, new_figure, plain_numbers, plot, role, two_panels, wavenumbers,
)  # fmt: skip

if TYPE_CHECKING:
    import pandas as pd

HISTORY = {  # panels of `loss_curves`
    "unexplained variance": "fvu",
    "KL of $z$  [nats]": "kl_z",
    "KL of $h$  [nats]": "kl_h",
}


# --- points


@plot
def cosmologies(params: "Mapping[str, pd.DataFrame]") -> Figure:
    """The cubes' Omega_m and sigma_8, a marker for each set, with the distributions of the first set beside.

    params   {set: parameters} (LH, CV, 1P)
    Raises ValueError where a table has no columns Omega_m and sigma_8.
    """
    import seaborn as sns

    for label, table in params.items():
        if not {"Omega_m", "sigma_8"} <= set(table):
            raise ValueError(f"found parameters {', '.join(table) or 'none'} of {label}; expected Omega_m and sigma_8")
    ax = new_axes(0.7 * COLUMN, 0.9)
    kinds = zip(params.items(), ("o", "*", "D"), (BASELINE, DRAWN, MODEL), (0.8, 2.6, 1.2), (1, 3, 2), strict=False)
    for (label, table), mark, colour, times, order in kinds:
        ax.plot(table["Omega_m"], table["sigma_8"], mark, color=colour, ms=times * dot(), zorder=order,
                label=f"{label} ({len(table)})")  # fmt: skip
    for place, axis, names in (((0, 1.02, 1, 0.14), "sharex", "x"), ((1.02, 0, 0.14, 1), "sharey", "y")):
        side = ax.inset_axes(place, **{axis: ax}, frame_on=False)
        table = next(iter(params.values()))
        sns.histplot(table, **{names: "Omega_m" if names == "x" else "sigma_8"}, bins=8, color="0.75", lw=0, ax=side)
        side.set_axis_off()
    ax.set(xlabel=SYMBOLS["Omega_m"], ylabel=SYMBOLS["sigma_8"])
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1.15), ncols=3, handletextpad=0.1, columnspacing=1)
    return ax.figure


@plot
def sheet(plane, params: "pd.DataFrame", labels: Sequence[str] = ("PC 1 of $z$", "PC 2 of $z$")) -> Figure:
    """Cubes on the plane of two directions of z, a panel a parameter, with the curved grid on which one is constant.

    plane    (n, 2) places of the cubes
    params   (n, 2) their parameters
    labels   of the two directions
    """
    plane = as_array(plane)
    figure, axes = two_panels(0.45)
    known = as_array(params)
    low, high = known.min(axis=0), known.max(axis=0)

    def terms(p: np.ndarray) -> np.ndarray:
        """1, a, b, a^2, ab, b^2 of (..., 2) parameters from 0 to 1: a curved sheet is fitted to the cubes."""
        a, b = np.moveaxis(p, -1, 0)
        return np.stack([np.ones_like(a), a, b, a * a, a * b, b * b], axis=-1)

    fit = np.linalg.lstsq(terms((known - low) / (high - low)), plane, rcond=None)[0]
    lines = np.stack(np.meshgrid(np.linspace(0, 1, 5), np.linspace(0, 1, 30)), axis=-1)  # one parameter constant
    for ax, name in zip(axes, params, strict=False):
        for grid in (lines, lines[..., ::-1]):
            ax.plot(*np.moveaxis(terms(grid) @ fit, -1, 0), **FAINT | {"ls": "-"})
        shown = ax.scatter(*plane.T, c=as_array(params[name]), s=4 * dot() ** 2, cmap="viridis")
        colour_bar(shown, ax, SYMBOLS.get(name, name), extend="neither")
        ax.set(xlabel=labels[0], ylabel=labels[1])
    return figure


@plot
def probe_scatter(truth, predicted, error=None, name: str = "Omega_m", *, ax: Axes | None = None) -> Figure:
    """A parameter as predicted from z against its true value, one point a cube, with R^2 in the corner.

    truth, predicted   (n,) values of the parameter
    error              (n,) one standard deviation of each prediction: their median is drawn once, in the corner
    name               of the parameter
    Raises ValueError for truth and predictions of different shapes.
    """
    truth, predicted = as_array(truth), as_array(predicted)
    if truth.shape != predicted.shape or truth.ndim != 1:
        raise ValueError(f"found truth of shape {truth.shape}, predictions of {predicted.shape}; expected (n,) twice")
    ax = ax or new_axes(COLUMN * 0.75, 1.0, squares=True)
    ax.plot(truth, predicted, "o", ms=dot(), color=Z)
    both = np.concatenate([truth, predicted])
    limits = np.array([both.min(), both.max()]) + 0.06 * np.ptp(both) * np.array([-1, 1])
    ax.plot(limits, limits, **FAINT | {"ls": "-"})
    if error is not None:
        ax.errorbar(*(limits @ [[0.1, 0.8], [0.9, 0.2]]), np.median(as_array(error)), color=Z, elinewidth=0.8)
    symbol = SYMBOLS.get(name, name)
    ax.set(xlabel=f"true {symbol}", ylabel=f"{symbol} from $z$", xlim=limits, ylim=limits, aspect="equal")
    ax.locator_params(nbins=5)
    ax.text(0.05, 0.95, f"$R^2 = {r2(truth[:, None], predicted[:, None])[0]:.2f}$", transform=ax.transAxes, va="top")
    return ax.figure


@plot
def closure_arrows(asked, read, *, ax: Axes | None = None) -> Figure:
    """Arrows in the plane of the parameters, from the cosmology that was asked for to the one that is read.

    asked, read   (n, 2) Omega_m and sigma_8
    """
    (x, y), (u, v) = as_array(asked).T, (as_array(read) - as_array(asked)).T
    ax = ax or new_axes(COLUMN * 0.75, 0.9)
    ax.quiver(x, y, u, v, angles="xy", scale_units="xy", scale=1, color=DRAWN, width=0.006)
    ax.plot(x, y, "o", color=TRUTH, ms=dot(), label="asked")
    ax.plot(x + u, y + v, alpha=0, color=DRAWN, label="read")  # the limits hold the heads
    ax.set(xlabel=SYMBOLS["Omega_m"], ylabel=SYMBOLS["sigma_8"], title="asked (dot), read (head)")
    return ax.figure


# --- distributions and spectra


@plot
def spectra(
    k, curves: Mapping[str, object], ylabel: str = r"$P(k)$  [(Mpc/$h$)$^2$]", *, ax: Axes | None = None
) -> Figure:
    """Power spectra {label: curve} at wavenumbers k (n,) [h/Mpc], of the unit that ylabel names, over four decades."""
    ax = ax or new_axes(COLUMN, 0.65)
    draw_curves(ax, k, curves, WAVENUMBER, ylabel)
    ax.set_yscale("log")
    ax.set_ylim(bottom=max(ax.get_ylim()[0], 1e-4 * ax.get_ylim()[1]))
    ax.legend()
    return ax.figure


@plot
def power_ratio(k, curves: Mapping[str, object], reference: str, *, ax: Axes | None = None) -> Figure:
    """Power spectra {label: curve} of k (n,) over the one that `reference` names, on an axis that has 1 in its middle."""
    ax, divisor = ax or new_axes(COLUMN, 0.65), as_band(curves[reference])[0]
    divided = {label: as_band(curve) / divisor for label, curve in curves.items()}
    draw_curves(ax, k, divided, WAVENUMBER, f"ratio to\n{reference}", truth=reference)
    reach = np.clip(1.3 * np.nanmax([np.abs(band[0] - 1) for band in divided.values()]), 0.2, 1)
    ax.set_ylim(1 - reach, 1 + reach)
    return ax.figure


@plot
def ratios(panels: Mapping[str, tuple]) -> Figure:
    """Curves that are 1 where a sample is like the truth, a panel a statistic, all with one legend.

    panels   {what is divided: (label of x, x (n,), {label: curve})}; x is logarithmic where it is a wavenumber
    """
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    figure, lines = new_figure(PAGE * columns / 2, 0.8 * rows / columns), {}
    for number, (title, (xlabel, x, curves)) in enumerate(panels.items(), start=1):
        ax = figure.add_subplot(rows, columns, number)
        draw_curves(ax, x, curves, xlabel, title, truth=next(iter(curves)), level=1)
        ax.set_ylim(max(ax.get_ylim()[0], -0.5), min(ax.get_ylim()[1], 2.5))
        lines |= {line.get_label(): line for line in ax.get_legend_handles_labels()[0]}
    figure.legend(lines.values(), lines.keys(), loc="outside upper center", ncols=2)
    return figure


@plot
def fidelity(k, r: Mapping[str, object], T: Mapping[str, object]) -> Figure:
    """How much of the truth a reconstruction keeps, scale by scale: phases r(k), amplitudes T(k) = sqrt(P / P_true).

    k      (n,) wavenumbers [h/Mpc]; the wavelength stands on top
    r, T   {label: curve}; NaN ends a line
    """
    figure, axes = two_panels(0.42)
    panels = (r, 0.9, "correlation  $r(k)$"), (T, 1.0, "transfer function  $T(k)$")
    for ax, (curves, level, ylabel) in zip(axes, panels, strict=True):
        draw_curves(ax, k, curves, WAVENUMBER, ylabel, level=level)
        ax.set_ylim(min(0, ax.get_ylim()[0]), max(1.05, ax.get_ylim()[1]))
        top = ax.secondary_xaxis("top", functions=(lambda k: 2 * np.pi / np.maximum(k, 1e-9),) * 2)
        top.set_xlabel(f"wavelength  [{LENGTH}]")
        plain_numbers(top)
    axes[0].legend()
    return figure


@plot
def pca_limit(
    n_components, unexplained, n_latent: int = 512, model: float | None = None, *, ax: Axes | None = None
) -> Figure:
    """Share of the variance that the best linear code of n numbers leaves unexplained.

    n_components   (m,) numbers in the code
    unexplained    (m,) shares
    n_latent       the number that is marked
    model          share that a model with so many numbers leaves, a dot
    """
    n, shares = as_array(n_components), as_array(unexplained)
    ax = ax or new_axes(COLUMN, 0.6)
    at = float(np.interp(np.log(n_latent), np.log(n), shares))
    draw_curves(ax, n, {"PCA": shares}, "numbers in the code", "unexplained share of the variance", marks="o-")
    ax.annotate(f"{n_latent} numbers: PCA {at:.3f}", (n_latent, at), (8, 8), textcoords="offset points", color=BASELINE)
    if model is not None:
        ax.plot(n_latent, model, "o", ms=2 * dot(), color=MODEL)
        ax.annotate(f"this model {model:.3f}", (n_latent, model), (-8, -6), textcoords="offset points", color=DRAWN,
                    ha="right", va="top")  # fmt: skip
    ax.axvline(n_latent, **FAINT)
    ax.set(xscale="log", ylim=(0, 1.02))
    ax.set_xticks(n, [f"{number:g}" for number in n], minor=False)
    ax.minorticks_off()
    return ax.figure


@plot
def bullets(merits: Mapping[str, Mapping[str, float]], aims: Mapping[str, float], *, ax: Axes | None = None) -> Figure:
    """Figures of merit as rows: a dot for each sample, in units of the scatter of true slices against true ones.

    merits   {what is compared: {sample: value}}
    aims     {what is compared: the value to be below, drawn as the end of a grey bar}
    """
    ax = ax or new_axes(COLUMN, 0.12 + 0.08 * len(merits))
    for row, (name, values) in enumerate(merits.items()):
        ax.barh(row, aims.get(name, 0), color="0.9", height=0.7, zorder=0)
        for label, value in values.items():
            ax.plot(value, row, "o", color=role(label), ms=1.6 * dot(), label=None if row else label)
    ax.axvline(1, **FAINT)
    ax.set_yticks(range(len(merits)), list(merits))
    ax.set(xlabel="in units of the scatter of true slices", xscale="log", ylim=(len(merits) - 0.5, -0.5))
    plain_numbers(ax)
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3)
    return ax.figure


# --- training


@plot
def loss_curves(
    history: "pd.DataFrame", panels: Mapping[str, str] = HISTORY, pca: float | None = None
) -> Figure:
    """How a run learned: each logged step light grey, the running median, held-out cubes as dots.

    history   one row a logged step: step, and the columns of the panels, NaN where they were not measured
    panels    {title: column}; its held-out values are in the column val_...
    pca       unexplained variance of the best linear code of as many numbers, dashed in the first panel
    What is not there yet is not drawn, and said.
    """
    figure = new_figure(PAGE, 0.34)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for ax, (title, name) in zip(axes, panels.items(), strict=True):
        colour = role(title) if "$" in title else MODEL
        if name in history:
            step, values = history["step"], history[name]
            ax.plot(step, values, color="0.82", lw=0.6, label="each step")
            median = values.rolling(max(1, len(values) // 30), center=True, min_periods=1).median()
            ax.plot(step, median, color=colour, label="running median")
            held_out = history[["step", f"val_{name}"]].dropna() if f"val_{name}" in history else history.iloc[:0, :2]
            ax.plot(*held_out.to_numpy().T, "o", ms=1.3 * dot(), color=TRUTH, label="held-out cubes")
            ax.set_ylim(0, 1.15 * np.nanquantile(values, 0.98) or 1)
        else:
            ax.text(0.5, 0.5, "not measured yet", transform=ax.transAxes, ha="center", color="0.5")
        ax.set_title(title, size=rcParams["axes.labelsize"])
        ax.ticklabel_format(style="sci", scilimits=(-3, 5), useMathText=True)
        ax.locator_params(axis="x", nbins=4)
    if pca is not None:
        axes[0].axhline(pca, **FAINT, label="PCA of 512 modes")
    figure.supxlabel("step", size=rcParams["axes.labelsize"])
    lines, labels = axes[0].get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside upper center", ncols=4)
    return figure


# --- what z knows


@plot
def coverage(levels, found: Mapping[str, object], n_cubes: int, *, ax: Axes | None = None) -> Figure:
    """Share of held-out cubes inside intervals, against the share that the intervals state.

    levels    (l,) shares stated
    found     {label: (l,)} shares found
    n_cubes   that were counted: the band is their 68 % binomial scatter
    """
    levels = as_array(levels)
    ax = ax or new_axes(COLUMN * 0.75, 0.95)
    scatter = np.sqrt(levels * (1 - levels) / n_cubes)
    ax.fill_between(levels, levels - scatter, levels + scatter, color="0.85", lw=0, label="68 % of chance")
    draw_curves(ax, levels, found, "stated share", "share of held-out cubes inside", marks="o-")
    ax.axline((0, 0), slope=1, **FAINT | {"ls": "-"})
    ax.set(xlim=(0, 1), ylim=(0, 1.02))
    ax.legend(loc="upper left")
    return ax.figure


@plot
def corner(draws, truth, names: Sequence[str], n_shown: int = 3000) -> Figure:
    """Draws from a posterior: each parameter's histogram, and below the diagonal the 68 and 95 % regions of each pair.

    draws (n, p), truth (p,)   names of the p parameters
    n_shown                    of the draws are smoothed; the axes hold 99.8 % of all of them
    """
    import seaborn as sns

    draws, truth, p = as_array(draws), as_array(truth), len(names)
    shown, limits = draws[:: max(1, len(draws) // n_shown)], np.quantile(draws, [0.001, 0.999], axis=0).T
    figure = new_figure(COLUMN * 0.9, 1.0)
    axes = figure.subplots(p, p, squeeze=False, sharex="col")
    for i, j in np.ndindex(p, p):
        ax, symbol = axes[i, j], [SYMBOLS.get(names[n], names[n]) for n in (i, j)]
        if j > i:
            ax.remove()
            continue
        if i == j:
            sns.histplot(x=draws[:, j], bins=40, stat="density", color=DRAWN, element="step", alpha=0.3, ax=ax)
            ax.set_yticks([])
        else:
            regions = {"levels": [0.05, 0.32, 1], "fill": True, "color": DRAWN, "alpha": 0.6, "gridsize": 60}
            sns.kdeplot(x=shown[:, j], y=shown[:, i], ax=ax, **regions)
            ax.axhline(truth[i], color=TRUTH, lw=0.8)
            ax.set_ylim(limits[i])
        ax.axvline(truth[j], color=TRUTH, lw=0.8)
        ax.set(xlim=limits[j], xlabel=symbol[1] if i == p - 1 else "", ylabel=symbol[0] if i != j else "")
    return figure


@plot
def against_number(
    sizes, curves: Mapping[str, object], xlabel: str, ylabel: str, marks: str = "o-", *, ax: Axes | None = None
) -> Figure:
    """Curves against numbers of slices, or of labelled cubes, (s,), which are the ticks of a logarithmic axis."""
    ax = ax or new_axes(COLUMN, 0.6)
    draw_curves(ax, sizes, curves, xlabel, ylabel, marks=marks)
    ax.set_xscale("log")
    ax.set_xticks(as_array(sizes), [f"{size:g}" for size in sizes], minor=False)
    ax.minorticks_off()
    ax.legend()
    return ax.figure


@plot
def response(name: str, k, edges, curves: Mapping[str, tuple]) -> Figure:
    """How P(k) and the distribution of pixels respond to a parameter.

    name     of the parameter
    k        (n_k,) wavenumbers [h/Mpc]
    edges    (b + 1,) of the bins of pixels
    curves   {label: (dlnP, dpdf)}, two responses each, dpdf None where there is none; "1P cubes" is drawn in black
    """
    edges = as_array(edges)
    figure, axes = two_panels(0.42)
    power, pdf = ({label: pair[i] for label, pair in curves.items() if pair[i] is not None} for i in (0, 1))
    slope = r"\mathrm{d}" + SYMBOLS.get(name, r"$\theta$").strip("$")
    draw_curves(axes[0], k, power, WAVENUMBER, rf"$\mathrm{{d}}\ln P / {slope}$", level=0)
    draw_curves(axes[1], (edges[1:] + edges[:-1]) / 2, pdf, PIXELS, rf"$\mathrm{{d}}\,\mathrm{{PDF}} / {slope}$", level=0)
    axes[0].legend()
    return figure
