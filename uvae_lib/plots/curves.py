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

# ruff: noqa: F405

from collections.abc import Mapping, Sequence
from itertools import cycle

import numpy as np
import pandas as pd
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..statistics import r2
from .style import *  # noqa: F403

POWER = r"$P(k)$  [(Mpc/$h$)$^2$]"
HISTORY = {"unexplained variance": "fvu", "KL of $z$  [nats]": "kl_z", "KL of $h$  [nats]": "kl_h"}  # of `loss_curves`


# --- points


@plot
def cosmologies(params: Mapping[str, pd.DataFrame]) -> Figure:
    """The cubes' Omega_m and sigma_8, a marker for each set, with the distributions of the first set beside.

    params   {set: parameters} (LH, CV, 1P)
    Where a table has no columns Omega_m and sigma_8, the figure says so.
    """
    import seaborn as sns

    if lacking := {label for label, table in params.items() if not set(SYMBOLS) <= set(table)}:
        return sentence(f"{', '.join(lacking)}: no Omega_m and sigma_8")
    ax = new_axes(0.7 * COLUMN, 0.9)
    kinds = ("o", BASELINE, 0.8, 1), ("*", TRUTH, 2.6, 3), ("D", TRUTH, 1.2, 2)
    for (label, table), (mark, colour, times, order) in zip(params.items(), kinds, strict=False):
        look = {"color": colour, "ms": times * dot(), "zorder": order, "label": f"{label} ({len(table)})"}
        ax.plot(table["Omega_m"], table["sigma_8"], mark, **look)
    sides = ((0, 1.02, 1, 0.14), {"sharex": ax}, "x"), ((1.02, 0, 0.14, 1), {"sharey": ax}, "y")
    for (place, shared, axis), name in zip(sides, SYMBOLS, strict=True):
        side = ax.inset_axes(place, **shared)
        sns.histplot(next(iter(params.values())), bins=8, color="0.8", ec="white", ax=side, **{axis: name})
        side.set_axis_off()
    ax.set(xlabel=SYMBOLS["Omega_m"], ylabel=SYMBOLS["sigma_8"])
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1.15), ncols=3, handletextpad=0.1, columnspacing=1)
    return ax.figure


@plot
def sheet(plane, params: pd.DataFrame, labels: Sequence[str] = ("PC 1 of $z$", "PC 2 of $z$")) -> Figure:
    """Cubes on the plane of two directions of z, a panel a parameter, with the curved grid on which one is constant.

    plane    (n, 2) places of the cubes
    params   (n, 2) their parameters; where not two of them vary, the figure says so
    labels   of the two directions
    """
    params = params.loc[:, params.nunique() > 1]
    if len(params.columns) != 2:
        return sentence("no sheet: fewer than two parameters of these cubes vary")
    plane, known = as_array(plane), as_array(params)
    figure, axes = two_panels(0.45)
    low, high = known.min(axis=0), known.max(axis=0)

    def terms(p: np.ndarray) -> np.ndarray:
        """1, a, b, a^2, ab, b^2 of (..., 2) parameters from 0 to 1: a curved sheet is fitted to the cubes."""
        a, b = np.moveaxis(p, -1, 0)
        return np.stack([np.ones_like(a), a, b, a * a, a * b, b * b], axis=-1)

    fit = np.linalg.lstsq(terms((known - low) / (high - low)), plane, rcond=None)[0]
    lines = np.stack(np.meshgrid(np.linspace(0, 1, 5), np.linspace(0, 1, 31)), axis=-1)  # one parameter constant
    for ax, name in zip(axes, params, strict=False):
        for grid in (lines, lines[..., ::-1]):
            ax.plot(*np.moveaxis(terms(grid) @ fit, -1, 0), **FAINT | {"ls": "-", "zorder": 3})
        shown = ax.scatter(*plane.T, c=as_array(params[name]), s=1.5 * dot() ** 2, cmap="viridis")
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
def closure_arrows(asked, read, label: str = "completed", within=(), *, ax: Axes | None = None) -> Figure:
    """Arrows in the plane of the parameters, from the true cosmology, or the one asked for, to the one that is read.

    asked, read   (n, 2) Omega_m and sigma_8
    label         what is read: the title, and by its role the colour
    within        (m, 2) further points that the axes hold, so that panels have the same
    """
    (x, y), (u, v) = as_array(asked).T, (as_array(read) - as_array(asked)).T
    ax = ax or new_axes(COLUMN * 0.75, 0.9)
    ax.plot(x, y, "o", color=role(label), ms=dot())
    ax.quiver(x, y, u, v, angles="xy", scale_units="xy", scale=1, color=role(label), width=0.006)
    ax.plot(*np.concatenate([as_array(p).reshape(-1, 2) for p in (within, asked, read)]).T, alpha=0)  # heads and all
    ax.set(xlabel=SYMBOLS["Omega_m"], ylabel=SYMBOLS["sigma_8"], title=label)
    return ax.figure


# --- distributions and spectra


@plot
def spectra(k, curves: Mapping[str, object], ylabel: str = POWER, *, ax: Axes | None = None) -> Figure:
    """Power spectra {label: curve} at wavenumbers k (n,) [h/Mpc], of the unit that ylabel names, over four decades."""
    ax = ax or new_axes(COLUMN, 0.65)
    lines(k, curves, WAVENUMBER, ylabel, yscale="log", ax=ax)
    ax.set_ylim(bottom=max(ax.get_ylim()[0], 1e-4 * ax.get_ylim()[1]))
    return ax.figure


@plot
def power_ratio(k, curves: Mapping[str, object], reference: str, *, ax: Axes | None = None) -> Figure:
    """Power spectra of simulated universes, {label: (n,)} at k (n,), over the solid one that `reference` names."""
    ax, styles = ax or new_axes(COLUMN, 0.65), cycle(["--", ":", "-."])
    for label, power in curves.items():
        ratio = as_array(power) / as_array(curves[reference])
        ax.plot(k, ratio, "-" if label == reference else next(styles), color=TRUTH)
        ax.text(1.03, np.median(ratio[len(ratio) // 2 :]), label, va="center", transform=ax.get_yaxis_transform())
    ax.set(xlabel=WAVENUMBER, ylabel=r"$P(k)$ over the solid one", xlim=(float(k[0]), float(k[-1])))
    wavenumbers(ax)
    return ax.figure


@plot
def fidelity(k, r: Mapping[str, object], T: Mapping[str, object]) -> Figure:
    """How much of the truth a reconstruction keeps, scale by scale: phases r(k), amplitudes T(k) = sqrt(P / P_true).

    k      (n,) wavenumbers [h/Mpc]; the wavelength stands on top
    r, T   {label: curve}; NaN ends a line
    """
    figure, axes = two_panels(0.42)
    panels = (r, "correlation  $r(k)$", 0.9), (T, "transfer function  $T(k)$", 1.0)
    for ax, (curves, ylabel, level) in zip(axes, panels, strict=True):
        lines(k, curves, WAVENUMBER, ylabel, level=level, ax=ax)
        ax.set_ylim(min(0, ax.get_ylim()[0]), max(1.05, ax.get_ylim()[1]))
        top = ax.secondary_xaxis("top", functions=(lambda k: 2 * np.pi / np.maximum(k, 1e-9),) * 2)
        top.set_xlabel(f"wavelength  [{LENGTH}]")
        plain_numbers(top)
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
    n, shares, ax = as_array(n_components), as_array(unexplained), ax or new_axes(COLUMN, 0.6)
    at = float(np.interp(np.log(n_latent), np.log(n), shares))
    if model is not None:
        ax.plot(n_latent, model, "o", ms=2 * dot(), color=MODEL, label=f"this model, {model:.2f}")
    curve = {f"PCA, {at:.2f} at {n_latent} numbers": shares}
    lines(n, curve, "numbers in the code", "unexplained share of the variance", "o-", ax=ax)
    ax.axvline(n_latent, **FAINT)
    ax.set(ylim=(0, 1.02))
    return ax.figure


@plot
def bullets(merits: Mapping[str, Mapping[str, float]], aims: Mapping[str, float], *, ax: Axes | None = None) -> Figure:
    """Figures of merit as rows: a dot for each sample, in units of the scatter of true slices against true ones.

    merits   {what is compared: {sample: value}}; in a row dots stand below each other, of z ~ N(0, I) hollow
    aims     {what is compared: the value to be below, drawn as the end of a grey bar}
    """
    ax, rows = ax or new_axes(0.85 * PAGE, 0.25 + 0.05 * len(merits)), np.arange(len(merits))
    ends = {"color": "0.9", "height": 0.86, "zorder": 0, "label": "within the scatter of true slices"}
    ax.barh(rows, [aims.get(name, 0) for name in merits], **ends)
    for i, label in enumerate(samples := list(next(iter(merits.values())))):
        look = {"color": role(label), "mfc": "white" if "N(0" in label else None, "ms": 1.3 * dot(), "label": label}
        ax.plot([row[label] for row in merits.values()], rows + 0.18 * (i - (len(samples) - 1) / 2), "o", **look)
    ax.set(yticks=rows, yticklabels=list(merits), ylim=(len(rows) - 0.5, -0.5), xscale="log")
    ax.set_xlabel("mean difference to true slices  [scatter of other true slices]")
    ax.xaxis.set_major_formatter("{x:g}")
    ax.figure.legend(*ax.get_legend_handles_labels(), loc="outside upper right", ncols=2)
    return ax.figure


# --- training


@plot
def loss_curves(history: pd.DataFrame, pca: float | None = None, taught: int = 0) -> Figure:
    """How a run learned: each logged step light grey, the running median, held-out cubes as dots.

    history   one row a logged step: step, and columns of `HISTORY`, held-out ones val_..., NaN where not measured
    pca       unexplained variance of the best linear code of as many numbers, dashed in the first panel
    taught    steps of the taught start: a thin line stands where they end
    What was not measured yet is not drawn.
    """
    figure = new_figure(PAGE, 0.34)
    for ax, (title, name) in zip(figure.subplots(1, len(HISTORY)), HISTORY.items(), strict=True):
        table = history.reindex(columns=["step", name, f"val_{name}"])  # NaN where nothing was measured yet
        ax.plot(table["step"], table[name], color="0.82", lw=0.6, label="each step")
        median = table[name].rolling(max(1, len(table) // 30), center=True, min_periods=1).median()
        colour, top = role(title) if "$" in title else MODEL, table.drop(columns="step").quantile(0.98).max()
        ax.plot(table["step"], median, color=colour, label="running median")
        ax.plot(table["step"], table[f"val_{name}"], "o", ms=1.3 * dot(), mfc=colour, mec=TRUTH, label="held-out cubes")
        ax.set(xlabel="step", ylim=(0, 1.15 * top if top > 0 else 1))
        ax.set_title(title, size=rcParams["axes.labelsize"])
        ax.ticklabel_format(style="sci", scilimits=(-3, 5), useMathText=True)
        if taught:
            ax.axvline(taught, color="0.3", lw=0.8, zorder=0, label="end of the taught start")
    if pca is not None:
        figure.axes[0].axhline(pca, **FAINT, label="PCA of 512 modes")
    look = {"loc": "outside upper center", "ncols": 5 if figure.get_figwidth() > 5 else 2}
    figure.legend(*figure.axes[0].get_legend_handles_labels(), **look)
    return figure


# --- what z knows


@plot
def coverage(levels, found: Mapping[str, object], n_cubes: int, *, ax: Axes | None = None) -> Figure:
    """Share of held-out cubes inside intervals, against the share that the intervals state.

    levels    (l,) shares stated
    found     {label: (l,)} shares found
    n_cubes   that were counted: the band is their 68 % binomial scatter
    """
    levels, ax = as_array(levels), ax or new_axes(COLUMN * 0.75, 0.95)
    scatter = np.sqrt(levels * (1 - levels) / n_cubes)
    ax.fill_between(levels, levels - scatter, levels + scatter, color="0.85", lw=0, label="68 % of chance")
    draw_curves(ax, levels, found, "stated share", "share of held-out cubes inside")
    for line, style in zip(ax.lines, ("-", "--", ":"), strict=False):
        line.set(color=Z, linestyle=style)
    ax.axline((0, 0), slope=1, **FAINT | {"ls": "-"})
    ax.legend(loc="lower right", handlelength=2.5)
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
    figure, symbols = new_figure(COLUMN * 0.9, 1.0), [SYMBOLS.get(name, name) for name in names]
    regions = {"levels": [0.05, 0.32, 1], "fill": True, "cmap": sns.light_palette(Z, as_cmap=True), "gridsize": 60}
    for i, j in zip(*np.tril_indices(p), strict=True):
        ax = figure.add_subplot(p, p, i * p + j + 1, xlim=limits[j])
        if i == j:
            sns.histplot(x=draws[:, j], bins=40, stat="density", color=Z, element="step", alpha=0.3, ax=ax)
            ax.set(yticks=[], ylabel="")
        else:
            sns.kdeplot(x=shown[:, j], y=shown[:, i], ax=ax, **regions)
            ax.axhline(truth[i], color=TRUTH, lw=0.8)
            ax.set(ylim=limits[i], ylabel=symbols[i])
        ax.axvline(truth[j], color=TRUTH, lw=0.8)
        ax.set_xlabel(symbols[j])
    return figure


@plot
def lines(
    x, curves: Mapping[str, object], xlabel: str, ylabel: str, marks: str = "-", level: float | None = None,
    yscale: str = "linear", *, ax: Axes | None = None,
) -> Figure:  # fmt: skip
    """Curves {label: curve} of x (n,), with their labels and a dashed level; points have their ticks on a log axis."""
    ax = ax or new_axes(COLUMN, 0.6)
    draw_curves(ax, x, curves, xlabel, ylabel, level=level, marks=marks)
    if "o" in marks:
        ax.set_xscale("log")
        skip = 2 if ax.get_window_extent().width < 2 * ax.get_figure(root=True).dpi else 1  # names of every second tick
        ax.set_xticks(as_array(x), [f"{n:g}" * ((len(x) - i) % skip == skip - 1) for i, n in enumerate(x)], minor=False)
        ax.minorticks_off()
    ax.set_yscale(yscale)
    ax.legend()
    return ax.figure
