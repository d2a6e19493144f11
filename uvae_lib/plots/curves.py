"""Pictures: arrays in, a matplotlib Figure out. Nothing here trains, reads, saves or shows; `paper` saves.

arrays      numpy or torch, on any device
slices      natural log densities x = log(y + eps), y = rho / <rho>; row 0 is drawn at the bottom, axes in Mpc/h
curve       (n,), or (median, low, high) of (n,) each, drawn as a line in a band
width       that of rcParams["figure.figsize"] where a style sets it (`paper.style`), else one for the screen
response    (value, low, high) of (n,) each
ax          a plot of one panel makes a Figure and returns it, or draws into the axes `ax` and returns those
No figure is made by pyplot: each is shown once when it is the last line of a cell, and by `display(figure)`.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from ..statistics import r2
from .diagram import model_diagram  # noqa: F401
from .slices import crop_on_cube, cube_estimates, reconstructions, slice_grid, traversal_strip  # noqa: F401
from .style import (  # noqa: F401
    COLOURS,
    COLUMN,
    DENSITY_MAP,
    DIFFERENCE_MAP,
    FAINT,
    LENGTH,
    LOG_DENSITY,
    LOOK,
    MARK,
    NARROW,
    PAGE,
    PIXELS,
    SYMBOLS,
    TRUTH,
    WAVENUMBER,
    as_array,
    as_band,
    colour_bar,
    cube_label,
    dot,
    draw_curves,
    new_axes,
    new_figure,
    plot,
    shared_norm,
    side_by_side,
    symmetric_norm,
    two_panels,
    wavenumbers,
)

if TYPE_CHECKING:
    import pandas as pd

SIMULATED = "1P cubes"  # the label of the curve that is drawn in black
HISTORY = {  # panels of `loss_curves`
    "squared error per slice": ("l2", "val_l2"),
    "unexplained variance": ("fvu", "val_fvu"),
    "KL of $z$  [nats]": ("kl_z", "val_kl_z"),
    "KL of $h$  [nats]": ("kl_h", "val_kl_h"),
    "active units": ("active_z", "active_h"),
    "learning rate": ("lr",),
}


# --- points


@plot
def clusters(
    groups: Mapping[str, object], xlabel: str, ylabel: str, colour=None, colour_name: str = "",
    *, ax: Axes | None = None,
) -> Figure:  # fmt: skip
    """Sets of cubes as points in a plane; the first set may be coloured by a parameter.

    groups        {label: (n, 2)}
    colour        (n,) values of the parameter for the first of them
    colour_name   of the parameter
    """
    ax = ax or new_axes(COLUMN, 0.8)
    for number, (label, points) in enumerate(groups.items()):
        x, y = as_array(points).T
        if number == 0 and colour is not None:
            shown = ax.scatter(x, y, c=as_array(colour), s=4 * dot() ** 2, cmap="viridis", label=label)
            colour_bar(shown, ax, SYMBOLS.get(colour_name, colour_name), extend="neither")
        else:
            marks = {"ms": 1.8 * dot(), "mfc": "none"} if number else {"ms": dot()}
            ax.plot(x, y, "osD^vP"[number], color=COLOURS[number], label=label, **marks)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    if len(groups) > 1:
        above = {"loc": "lower left", "bbox_to_anchor": (0, 1), "ncols": len(groups), "borderaxespad": 0.2}
        ax.legend(handletextpad=0.2, **above)
    return ax.figure


def cosmologies(params: "Mapping[str, pd.DataFrame]", *, ax: Axes | None = None) -> Figure:
    """The cubes' Omega_m and sigma_8, one marker for each set.

    params   {set: parameters} (LH, CV, 1P)
    Raises ValueError where a table has no columns Omega_m and sigma_8.
    """
    for label, table in params.items():
        if not {"Omega_m", "sigma_8"} <= set(table):
            raise ValueError(f"found parameters {', '.join(table) or 'none'} of {label}; expected Omega_m and sigma_8")
    points = {f"{label} ({len(table)})": table[["Omega_m", "sigma_8"]].to_numpy() for label, table in params.items()}
    return clusters(points, SYMBOLS["Omega_m"], SYMBOLS["sigma_8"], ax=ax)


@plot
def probe_scatter(truth, predicted, error=None, name: str = "Omega_m", *, ax: Axes | None = None) -> Figure:
    """A parameter as predicted from z against its true value, one point a cube, with R^2 in the corner.

    truth, predicted   (n,) values of the parameter
    error              (n,) one standard deviation of each prediction
    name               of the parameter
    Raises ValueError for truth and predictions of different shapes.
    """
    truth, predicted = as_array(truth), as_array(predicted)
    if truth.shape != predicted.shape or truth.ndim != 1:
        raise ValueError(
            f"found truth of shape {truth.shape} and predictions of {predicted.shape}; expected (n,) twice"
        )
    ax = ax or new_axes(COLUMN * 0.75, 1.0, squares=True)
    ax.errorbar(truth, predicted, None if error is None else as_array(error), fmt="o", ms=dot(), elinewidth=0.8)
    both = np.concatenate([truth, predicted])
    limits = np.array([both.min(), both.max()]) + 0.06 * np.ptp(both) * np.array([-1, 1])
    ax.plot(limits, limits, **FAINT | {"ls": "-"})
    symbol = SYMBOLS.get(name, name)
    ax.set(xlabel=f"true {symbol}", ylabel=f"{symbol} from $z$", xlim=limits, ylim=limits, aspect="equal")
    ax.locator_params(nbins=5)
    score = r2(truth[:, None], predicted[:, None])[0]
    ax.text(0.05, 0.95, f"$R^2 = {score:.2f}$", transform=ax.transAxes, va="top")
    return ax.figure


@plot
def strips(groups: Mapping[str, object], xlabel: str, limit: float, *, ax: Axes | None = None) -> Figure:
    """Groups of numbers as rows of dots.

    groups   {label: (n,)}
    xlabel   what the numbers are
    limit    drawn as a dashed line
    """
    ax = ax or new_axes(COLUMN, 0.12 + 0.13 * len(groups))
    for row, (values, colour) in enumerate(zip(map(as_array, groups.values()), COLOURS, strict=False)):
        shift = 0.25 * np.linspace(-1, 1, len(values)) if len(values) > 1 else 0
        ax.plot(values, row + shift * np.ones(len(values)), "o", ms=1.3 * dot(), alpha=0.75, color=colour)
    ax.axvline(limit, **FAINT)
    ax.set_yticks(range(len(groups)), list(groups))
    ax.set(xlabel=xlabel, ylim=(len(groups) - 0.5, -0.5))
    ax.tick_params(axis="y", length=0)
    return ax.figure


# --- distributions and spectra


@plot
def pixel_histograms(samples: Mapping[str, np.ndarray], *, ax: Axes | None = None) -> Figure:
    """Distributions of log densities, {label: values of any shape}, all in the same 120 bins; "truth" is black."""
    arrays = {label: as_array(values).ravel() for label, values in samples.items()}
    everything = np.concatenate(list(arrays.values()))
    margin = 0.01 * np.ptp(everything) or 0.5
    edges = np.linspace(everything.min() - margin, everything.max() + margin, 121)
    ax = ax or new_axes(COLUMN, 0.65)
    for label, values in arrays.items():
        colour = {"color": TRUTH} if label == "truth" else {}
        ax.stairs(np.histogram(values, edges, density=True)[0], edges, label=label, **colour)
    ax.set(xlabel=LOG_DENSITY, ylabel="probability density", xlim=edges[[0, -1]], yscale="log")
    ax.legend()
    return ax.figure


@plot
def cube_distributions(
    edges, densities, values=None, name: str = "sigma_8", xlabel: str = LOG_DENSITY, *, ax: Axes | None = None
) -> Figure:
    """Distributions of pixels, one line a cube, coloured by a parameter where there is one.

    edges       (b + 1,) of the bins
    densities   (n, b) probability densities of n cubes
    values      (n,) of the parameter
    name        of the parameter
    """
    edges, densities = as_array(edges), as_array(densities)
    ax = ax or new_axes(COLUMN, 0.65)
    lines = [np.stack([np.repeat(edges, 2)[1:-1], np.repeat(row, 2)], axis=1) for row in densities]
    drawn = ax.add_collection(LineCollection(lines, lw=0.8, alpha=0.8, colors=None if values is not None else "0.4"))
    if values is not None:
        drawn.set(array=as_array(values), cmap="viridis")
        colour_bar(drawn, ax, SYMBOLS.get(name, name), extend="neither")
    limits = densities[densities > 0].min() / 2, 2 * densities.max()
    ax.set(xlabel=xlabel, ylabel="probability density", xlim=edges[[0, -1]], yscale="log", ylim=limits)
    return ax.figure


@plot
def spectra(
    k, curves: Mapping[str, object], reference: str | None = None, ylabel: str = r"$P(k)$  [(Mpc/$h$)$^2$]",
    *, ax: Axes | None = None,
) -> Figure:  # fmt: skip
    """Power spectra, and below them their ratio to one of them.

    k           (n,) wavenumbers [h/Mpc]
    curves      {label: curve}, of the unit that ylabel names
    reference   the label, drawn in black, that the others are divided by in a second panel, unless ax is given
    Raises ValueError for a reference that is not among the curves.
    """
    if reference is not None and reference not in curves:
        raise ValueError(f"found no curve {reference!r} to divide by; expected one of {', '.join(curves)}")
    lower = None
    if ax is None and reference is not None:
        ax, lower = new_figure(COLUMN, 0.9).subplots(2, sharex=True, height_ratios=(2.5, 1))
    ax = ax or new_axes(COLUMN, 0.65)
    draw_curves(ax, k, curves, WAVENUMBER, ylabel, truth=reference)
    ax.set_yscale("log")
    ax.legend()
    if reference is not None:
        divisor = as_band(curves[reference])[0]
        ax.set_ylim(bottom=max(ax.get_ylim()[0], 0.1 * divisor.min()))
    if lower is not None:
        divided = {label: as_band(curve) / divisor for label, curve in curves.items()}
        draw_curves(lower, k, divided, WAVENUMBER, f"ratio to\n{reference}", truth=reference)
        reach = np.clip(1.3 * np.nanmax([np.abs(band[0] - 1) for band in divided.values()]), 0.2, 1)
        lower.set_ylim(1 - reach, 1 + reach)
        ax.label_outer()
        ax.figure.align_ylabels()
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

    k      (n,) wavenumbers [h/Mpc]
    r, T   {label: curve}
    """
    figure, axes = two_panels(0.42)
    panels = (r, 0.9, "correlation  $r(k)$"), (T, 1.0, "transfer function  $T(k)$")
    for ax, (curves, level, ylabel) in zip(axes, panels, strict=True):
        draw_curves(ax, k, curves, WAVENUMBER, ylabel, level=level)
        ax.set_ylim(min(0, ax.get_ylim()[0]), max(1.05, ax.get_ylim()[1]))
    axes[0].legend()
    return figure


@plot
def pca_limit(n_components, unexplained, n_latent: int = 512, *, ax: Axes | None = None) -> Figure:
    """Share of the variance that the best linear code of n numbers leaves unexplained.

    n_components   (m,) numbers in the code
    unexplained    (m,) shares
    n_latent       the number that is marked
    """
    n, shares = as_array(n_components), as_array(unexplained)
    ax = ax or new_axes(COLUMN, 0.65)
    at = np.interp(np.log(n_latent), np.log(n), shares)
    curve = {f"PCA: {at:.3f} at {n_latent}": shares}
    draw_curves(ax, n, curve, "numbers in the code", "unexplained share of the variance", marks="o-")
    ax.plot(n_latent, at, "o", ms=2 * dot(), mfc="none", color=COLOURS[0])
    ax.axvline(n_latent, **FAINT)
    ax.set(xscale="log", ylim=(0, 1.02))
    ax.legend()
    return ax.figure


# --- training


@plot
def loss_curves(history: "pd.DataFrame", panels: Mapping[str, Sequence[str]] = HISTORY) -> Figure:
    """How a run learned: training as lines, held-out cubes as dots. What is not there yet is not drawn.

    history   one row a logged step: step, and the columns of the panels, NaN where they were not measured
    panels    {title: columns}; the terms of the loss, KLs and numbers of active units, learning rate when absent
    """
    kinds = {  # of columns: label, colour and marks
        "val": ("held-out cubes", COLOURS[1], "o-"),
        "active_z": ("$z$", COLOURS[2], "o-"),
        "active_h": ("$h$", COLOURS[4], "o-"),
    }
    figure = new_figure(PAGE, 1)
    wide = figure.get_figwidth() >= NARROW
    columns = (3 if len(panels) > 4 else len(panels)) if wide else 2
    rows = -(-len(panels) // columns)
    figure.set_figheight((0.29 if wide else 0.38) * rows * figure.get_figwidth())
    for number, (title, names) in enumerate(panels.items(), start=1):
        ax = figure.add_subplot(rows, columns, number)
        for name in names:
            shown = history[["step", name]].dropna() if name in history else ()
            if len(shown):
                kind = name.split("_")[0] if name.startswith("val_") else name
                label, colour, marks = kinds.get(kind, ("training", COLOURS[0], "-"))
                ax.plot(shown["step"], shown[name], marks, ms=dot(), color=colour, label=label)
        if not ax.lines:
            ax.text(0.5, 0.5, "not measured yet", transform=ax.transAxes, ha="center", color="0.5")
        elif ax.dataLim.y0 >= 0:
            ax.set_ylim(0, 1.05 * ax.dataLim.y1 or 1)
        ax.set_title(title, size=rcParams["axes.labelsize"])
        ax.ticklabel_format(style="sci", scilimits=(-3, 5), useMathText=True)
        ax.locator_params(axis="x", nbins=4)
        if title == "active units" and ax.lines:
            ax.legend()
    figure.supxlabel("step", size=rcParams["axes.labelsize"])
    lines, labels = figure.axes[0].get_legend_handles_labels()
    if len(lines) > 1:
        figure.legend(lines, labels, loc="outside upper center", ncols=2)
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
    ax.axline((0, 0), slope=1, **FAINT | {"ls": "-"})
    draw_curves(ax, levels, found, "stated share", "share of held-out cubes inside", marks="o-")
    ax.set(xlim=(0, 1), ylim=(0, 1.02))
    ax.legend(loc="upper left")
    return ax.figure


@plot
def corner(draws, truth, names: Sequence[str]) -> Figure:
    """Draws from a posterior: each parameter's histogram, and below the diagonal the 68 and 95 % regions of each pair.

    draws (n, p), truth (p,)   names of the p parameters
    """
    draws, truth, p = as_array(draws), as_array(truth), len(names)
    figure = new_figure(COLUMN * 0.9, 1.0)
    axes = figure.subplots(p, p, squeeze=False, sharex="col")
    for i, j in np.ndindex(p, p):
        ax = axes[i, j]
        if j > i:
            ax.remove()
            continue
        ax.axvline(truth[j], color="k", lw=0.8)
        if i == j:
            ax.hist(draws[:, j], 30, density=True, histtype="step", color=COLOURS[0])
            ax.set_yticks([])
        else:
            x, y, density, levels = densest(draws[:, j], draws[:, i])
            for level in levels:
                ax.contourf(x, y, density, [level, np.inf], colors=COLOURS[0], alpha=0.3)
            ax.contour(x, y, density, levels, colors=COLOURS[0], linewidths=0.8)
            ax.axhline(truth[i], color="k", lw=0.8)
            ax.set_ylabel(SYMBOLS.get(names[i], names[i]))
        if i == p - 1:
            ax.set_xlabel(SYMBOLS.get(names[j], names[j]))
    return figure


def densest(x: np.ndarray, y: np.ndarray, shares=(0.95, 0.68)) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Where draws (n,), (n,) are dense: centres of cells (c,) twice, smoothed density (c, c) with y down the rows, and
    the densities, lowest first, inside whose contours these shares of the draws lie."""
    from scipy.ndimage import gaussian_filter

    counts, *edges = np.histogram2d(y, x, 40, [[v.min() - 0.1 * np.ptp(v), v.max() + 0.1 * np.ptp(v)] for v in (y, x)])
    density = gaussian_filter(counts, 1.5, mode="constant")
    places = (np.digitize(v, e[1:-1]) for v, e in zip((y, x), edges, strict=True))
    levels = np.quantile(density[tuple(places)], 1 - np.array(shares))  # of the draws: smoothing widens the density
    return *((e[1:] + e[:-1]) / 2 for e in edges[::-1]), density, levels


@plot
def slices_needed(sizes, r2, r2_power, error, read_width, trained: int, names: Sequence[str]) -> Figure:
    """How many slices are enough: R^2 from z and from P(k), and the error beside what the width of q(z) predicts.

    sizes                         (s,) slices of a cube
    r2, r2_power                  (s, p) of each parameter, from z and from P(k)
    error, read_width             (s, p) in units of the parameter
    trained                       slices of a set in training
    names                         of the p parameters
    """
    figure, axes = two_panels(0.42)
    panels = (r2, "o-", "$z$"), (r2_power, "--", "$P(k)$"), (error, "o-", "error"), (read_width, ":", "width of $q(z)$")
    labels = "$R^2$ on held-out cubes", "in units of the parameter"
    for number, (values, marks, what) in enumerate(panels):
        curves = {f"{SYMBOLS.get(name, name)}, {what}": y for name, y in zip(names, as_array(values).T, strict=True)}
        _per_slices(axes[number // 2], sizes, curves, labels[number // 2], marks)
    low = np.nanmin([*as_array(r2).flat, *as_array(r2_power).flat, 1.0])
    axes[0].set_ylim(max(low - 0.05, -0.5), 1)
    axes[1].set_yscale("log")
    for ax in axes:
        ax.axvline(trained, **FAINT)
        ax.legend(fontsize="small")
    return figure


@plot
def kl_growth(sizes, parts, *, ax: Axes | None = None) -> Figure:
    """KL(q(z) || N(0, I)) and its three parts against the number of slices that z is read from.

    sizes   (s,) slices of a cube
    parts   (s, 3) what widths, offset of the mean and spread of the means cost (`loss.kl_parts`) [nats]
    """
    parts = as_array(parts)
    ax = ax or new_axes(COLUMN, 0.6)
    names = "widths", "offset of the mean", "spread of the means"
    curves = {"KL($z$)": parts.sum(axis=1)} | dict(zip(names, parts.T, strict=True))
    _per_slices(ax, sizes, curves, "nats", "o-", truth="KL($z$)")
    ax.set_ylim(0, 1.5 * curves["KL($z$)"].max())  # room for the legend
    ax.legend(ncols=2)
    return ax.figure


def _per_slices(ax: Axes, sizes, curves: Mapping[str, object], ylabel: str, marks: str, truth: str = "") -> None:
    """Curves against numbers of slices (s,), which are the ticks."""
    draw_curves(ax, sizes, curves, "slices of a cube", ylabel, marks=marks, truth=truth)
    ax.set_xscale("log")
    ax.set_xticks(as_array(sizes), [f"{size:g}" for size in sizes], minor=False)
    ax.minorticks_off()


@plot
def kl_by_rank(kl: Mapping[str, object], threshold: float = 0.01, *, ax: Axes | None = None) -> Figure:
    """KL of every dimension, the largest first.

    kl          {latent: (D,)} in any order [nats]
    threshold   above which a dimension counts as active, dashed [nats]
    """
    ax = ax or new_axes(COLUMN, 0.6)
    for (name, values), colour in zip(kl.items(), (COLOURS[2], COLOURS[4]), strict=False):
        nats = np.sort(as_array(values))[::-1].clip(1e-6)
        ax.plot(np.arange(1, len(nats) + 1), nats, color=colour, label=f"${name}$: {nats.sum():.1f} nats")
    ax.axhline(threshold, **FAINT)
    ax.set(xscale="log", yscale="log", xlabel="rank of the dimension", ylabel="KL  [nats]", ylim=(1e-4, None))
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
    draw = partial(draw_curves, truth=SIMULATED, level=0)
    draw(axes[0], k, power, WAVENUMBER, rf"$\mathrm{{d}}\ln P / {slope}$")
    draw(axes[1], (edges[1:] + edges[:-1]) / 2, pdf, PIXELS, rf"$\mathrm{{d}}\,\mathrm{{PDF}} / {slope}$")
    axes[0].legend()
    return figure


@plot
def closure(asked, read: Mapping[str, object], name: str, *, ax: Axes | None = None) -> Figure:
    """What the probe reads in slices against what was asked for.

    asked   (v,) values of the parameter
    read    {label: (v,)}; "1P cubes" is drawn in black
    name    of the parameter
    """
    ax, symbol = ax or new_axes(COLUMN * 0.75, 0.9), SYMBOLS.get(name, name)
    ax.axline((asked[0], asked[0]), slope=1, **FAINT | {"ls": "-"})
    draw_curves(ax, asked, read, f"{symbol} asked", f"{symbol} read", marks="o-", truth=SIMULATED)
    ax.legend()
    return ax.figure
