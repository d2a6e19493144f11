"""Cubes in the plane of their parameters, distributions of pixels, spectra, and how a run learned."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from .figure import (
    COLOURS,
    COLUMN,
    LOG_DENSITY,
    NARROW,
    PAGE,
    SYMBOLS,
    TRUTH,
    WAVENUMBER,
    as_array,
    as_band,
    colour_bar,
    curve_colours,
    dot,
    draw_band,
    legend_above,
    new_axes,
    new_figure,
    plot,
    two_panels,
    wavenumbers,
)

if TYPE_CHECKING:
    import pandas as pd

LOSS_CURVES = {  # label, colour and marks of what `loss_curves` draws
    False: ("training", COLOURS[0], "-"),
    True: ("held-out cubes", COLOURS[1], "o-"),
    "active_z": ("$z$", COLOURS[2], "o-"),
    "active_h": ("$h$", COLOURS[4], "o-"),
}
LOSS_TERMS = {
    "pixels": "pixels",
    "kl_z": "KL of $z$",
    "kl_h": "KL of $h$",
    "residual_spectrum": "residual spectrum",
    "loss": "loss: their sum",
}


@plot
def cosmologies(
    params: "pd.DataFrame | Mapping[str, pd.DataFrame]", split: Mapping[str, Sequence[int]] | None = None,
    *, ax: Axes | None = None,
) -> Figure:  # fmt: skip
    """The cubes' Omega_m and sigma_8, one marker for each part of a split or for each set.

    params   a suite's parameters, or {set: parameters} (LH, CV, 1P)
    split    {"train": rows of params, ...}
    Raises ValueError where a table has no columns Omega_m and sigma_8.
    """
    if isinstance(params, Mapping):
        groups = dict(params)
    else:
        groups = {name: params.iloc[list(rows)] for name, rows in split.items()} if split else {"cubes": params}
    ax = ax or new_axes(COLUMN, 0.8)
    for number, (label, table) in enumerate(groups.items()):
        if not {"Omega_m", "sigma_8"} <= set(table):
            raise ValueError(f"found parameters {', '.join(table) or 'none'} of {label}; expected Omega_m and sigma_8")
        marks = {"ms": dot()} if number == 0 else {"ms": 1.8 * dot(), "mfc": "none"}
        ax.plot(table["Omega_m"], table["sigma_8"], "osD^vP"[number], label=f"{label} ({len(table)})", **marks)
    ax.set(xlabel=SYMBOLS["Omega_m"], ylabel=SYMBOLS["sigma_8"])
    if len(groups) > 1:
        legend_above(ax, len(groups))
    return ax.figure


@plot
def pixel_histograms(
    samples: Mapping[str, np.ndarray], xlabel: str = LOG_DENSITY, log: bool = True, *, ax: Axes | None = None
) -> Figure:
    """Distributions of pixel values, all in the same 120 bins.

    samples   {label: values of any shape}
    xlabel    what the values are
    log       a logarithmic axis of the density
    """
    arrays = {label: as_array(values).ravel() for label, values in samples.items()}
    everything = np.concatenate(list(arrays.values()))
    margin = 0.01 * np.ptp(everything) or 0.5
    edges = np.linspace(everything.min() - margin, everything.max() + margin, 121)
    ax = ax or new_axes(COLUMN, 0.65)
    for label, values in arrays.items():
        ax.stairs(np.histogram(values, edges, density=True)[0], edges, label=label)
    ax.set(xlabel=xlabel, ylabel="probability density", xlim=edges[[0, -1]], yscale="log" if log else "linear")
    if len(arrays) > 1:
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
    lowest = densities[densities > 0].min()
    ax.set(xlabel=xlabel, ylabel="probability density", xlim=edges[[0, -1]], yscale="log",
           ylim=(lowest / 2, 2 * densities.max()))  # fmt: skip
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
    k, lower = as_array(k), None
    if ax is None and reference is None:
        ax = new_axes(COLUMN, 0.65)
    elif ax is None:
        ax, lower = new_figure(COLUMN, 0.9).subplots(2, sharex=True, height_ratios=(2.5, 1))
    bands = {label: as_band(curve) for label, curve in curves.items()}
    colours = curve_colours(curves, reference)
    for (label, band), colour in zip(bands.items(), colours, strict=True):
        draw_band(ax, k, band, colour, label)
    wavenumbers(ax, k, WAVENUMBER if lower is None else "")
    ax.set(yscale="log", ylabel=ylabel)
    ax.legend()
    if reference is not None:
        ax.set_ylim(bottom=max(ax.get_ylim()[0], 0.1 * bands[reference][0].min()))
    if lower is not None:
        _ratios(lower, k, bands, reference, colours)
    ax.get_figure().align_ylabels()
    return ax.figure


def _ratios(ax: Axes, k: np.ndarray, bands: Mapping[str, np.ndarray], reference: str, colours: Sequence[str]) -> None:
    """Curves divided by one of them, around 1."""
    divisor = bands[reference][0]
    for band, colour in zip(bands.values(), colours, strict=True):
        draw_band(ax, k, band / divisor, colour)
    ratios = np.stack([band[0] for band in bands.values()]) / divisor
    reach = np.clip(1.3 * np.nanmax(np.abs(ratios - 1)), 0.2, 1)
    ax.set(xlabel=WAVENUMBER, ylabel=f"ratio to\n{reference}", ylim=(1 - reach, 1 + reach))


@plot
def ratios(panels: Mapping[str, tuple]) -> Figure:
    """Curves that are 1 where a sample is like the truth, a panel a statistic, all with one legend.

    panels   {what is divided: (label of x, x (n,), {label: curve})}; x is logarithmic where it is a wavenumber
    """
    figure, axes = new_figure(PAGE, 0.4 * -(-len(panels) // 2)), {}
    for number, (title, (xlabel, x, curves)) in enumerate(panels.items(), start=1):
        ax = axes[title] = figure.add_subplot(-(-len(panels) // 2), 2, number)
        for (label, curve), colour in zip(curves.items(), curve_colours(curves, next(iter(curves))), strict=True):
            draw_band(ax, as_array(x), as_band(curve), colour, label)
        ax.axhline(1, color="0.6", lw=0.8, ls="--", zorder=0)
        ax.set(xlabel=xlabel, ylabel=title, xscale="log" if xlabel == WAVENUMBER else "linear")
        ax.set_ylim(max(ax.get_ylim()[0], -0.5), min(ax.get_ylim()[1], 2.5))
    lines = {label: line for ax in axes.values() for line, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(lines.values(), lines.keys(), loc="outside upper center", ncols=2)
    return figure


@plot
def fidelity(k, r: Mapping[str, object], T: Mapping[str, object]) -> Figure:
    """How much of the truth a reconstruction keeps, scale by scale: phases r(k), amplitudes T(k) = sqrt(P / P_true).

    k      (n,) wavenumbers [h/Mpc]
    r, T   {label: curve}
    """
    k = as_array(k)
    figure, axes = two_panels(0.42, 1.2, sharex=True)
    for ax, curves, level in ((axes[0], r, 0.9), (axes[1], T, 1.0)):
        for (label, curve), colour in zip(curves.items(), COLOURS, strict=False):
            draw_band(ax, k, as_band(curve), colour, label)
        ax.axhline(level, color="0.6", lw=0.8, ls="--", zorder=0)
        wavenumbers(ax, k, WAVENUMBER if ax.get_subplotspec().is_last_row() else "")
        ax.set_ylim(min(0, ax.get_ylim()[0]), max(1.05, ax.get_ylim()[1]))
    axes[0].set_ylabel("correlation  $r(k)$")
    axes[1].set_ylabel("transfer function  $T(k)$")
    axes[0].legend()
    return figure


@plot
def pca_limit(n_components, unexplained, n_latent: int = 512, *, ax: Axes | None = None) -> Figure:
    """Share of the variance that the best linear code of n numbers leaves unexplained.

    n_components   (m,) numbers in the code
    unexplained    (m,) shares, or {label: (m,)}
    n_latent       the number that is marked
    """
    n = as_array(n_components)
    curves = unexplained if isinstance(unexplained, Mapping) else {"PCA": unexplained}
    ax = ax or new_axes(COLUMN, 0.65)
    for label, values in curves.items():
        values = as_array(values)
        at = np.interp(np.log(n_latent), np.log(n), values)
        (line,) = ax.plot(n, values, "o-", ms=dot(), label=f"{label}: {at:.3f} at {n_latent}")
        ax.plot(n_latent, at, "o", ms=2 * dot(), mfc="none", color=line.get_color())
    ax.axvline(n_latent, color="0.6", lw=0.8, ls="--", zorder=0)
    ax.set(xscale="log", xlabel="numbers in the code", ylabel="unexplained share of the variance", ylim=(0, 1.02))
    ax.legend()
    return ax.figure


@plot
def loss_terms(terms: "pd.DataFrame") -> Figure:
    """The terms of a loss with their weights, one panel each, and their sum.

    terms   `training.weighted_terms`: step, the terms, loss
    """
    names = [name for name in terms if name != "step"]
    figure = new_figure(PAGE, 0.3)
    rows = 1 if figure.get_figwidth() >= NARROW else len(names)
    figure.set_figheight((0.3 if rows == 1 else 0.5 * rows) * figure.get_figwidth())
    axes = figure.subplots(rows, len(names) // rows, sharex=True)
    for ax, name in zip(axes, names, strict=True):
        ax.plot(terms["step"], terms[name], color=TRUTH if name == "loss" else COLOURS[0])
        ax.set_title(LOSS_TERMS.get(name, name), size=rcParams["axes.labelsize"])
        ax.ticklabel_format(style="sci", scilimits=(-3, 5), useMathText=True)
        ax.locator_params(axis="x", nbins=4)
    figure.supxlabel("step", size=rcParams["axes.labelsize"])
    return figure


@plot
def loss_curves(history: "pd.DataFrame") -> Figure:
    """Terms of the loss while a run learns: training as lines, held-out cubes as dots.

    history   one row a logged step: step, l2, fvu, kl_z, kl_h [nats], lr; val_l2, val_fvu, val_kl_z, val_kl_h,
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
    figure = new_figure(PAGE, 0.58)
    wide = figure.get_figwidth() >= NARROW
    figure.set_figheight((0.58 if wide else 1.15) * figure.get_figwidth())
    axes = figure.subplots(*((2, 3) if wide else (3, 2)), sharex=True)
    for ax, (title, names) in zip(axes.flat, panels.items(), strict=True):
        for name in names:
            rows = history[["step", name]].dropna() if name in history else []
            if len(rows):
                label, colour, marks = LOSS_CURVES[name if name.startswith("active") else name.startswith("val_")]
                ax.plot(rows["step"], rows[name], marks, ms=dot(), color=colour, label=label)
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
