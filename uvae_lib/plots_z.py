"""Pictures of what z knows: probes, controls, ledger, walks, cards. Arrays in, a matplotlib Figure out.

The rules of `plots` hold. A response is (value, low, high) of (n,) each.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from .plots import (
    COLOURS,
    COLUMN,
    DENSITY_MAP,
    DIFFERENCE_MAP,
    PAGE,
    SYMBOLS,
    TRUTH,
    WAVENUMBER,
    _array,
    _dot,
    _draw,
    _figure,
    _images,
    _in_our_look,
    _is_wide,
    _shared_norm,
    _symmetric_norm,
)

SLOPE = {"Omega_m": r"\mathrm{d}\Omega_m", "sigma_8": r"\mathrm{d}\sigma_8"}
PIXELS = r"standardised pixel"


@_in_our_look
def coverage(levels, found: Mapping[str, object], n_cubes: int) -> Figure:
    """Share of unseen cubes inside intervals, against the share that the intervals promise.

    levels (l,);  found  {label: (l,)};  n_cubes that were counted: the band is their 68 % binomial scatter
    """
    levels = _array(levels)
    figure = _figure(COLUMN * 0.75, 0.95)
    ax = figure.subplots()
    scatter = np.sqrt(levels * (1 - levels) / n_cubes)
    ax.fill_between(levels, levels - scatter, levels + scatter, color="0.85", lw=0, label="chance")
    ax.plot([0, 1], [0, 1], color="0.6", lw=0.8, zorder=0)
    for (label, values), colour in zip(found.items(), COLOURS, strict=False):
        ax.plot(levels, _array(values), "o-", ms=_dot(), color=colour, label=SYMBOLS.get(label, label))
    ax.set(xlabel="promised share", ylabel="share of unseen cubes inside", xlim=(0, 1), ylim=(0, 1.02))
    ax.legend(loc="upper left")
    return figure


@_in_our_look
def slices_needed(sizes, r2, r2_power, error, read_width, trained: int, names: Sequence[str]) -> Figure:
    """How many slices are enough: R^2 from z and from P(k), the error beside what the width of q(z) reads as.

    sizes (s,);  r2, r2_power, error, read_width (s, p);  trained  slices of a set in training
    """
    sizes, r2, r2_power, error, width = (_array(x) for x in (sizes, r2, r2_power, error, read_width))
    figure = _figure(PAGE, 0.42)
    axes = figure.subplots(1, 2) if _is_wide(figure, 1.3) else figure.subplots(2, 1, sharex=True)
    for i, name in enumerate(names):
        colour, symbol = COLOURS[i], SYMBOLS.get(name, name)
        axes[0].plot(sizes, r2[:, i], "o-", ms=_dot(), color=colour, label=f"{symbol}, $z$")
        axes[0].plot(sizes, r2_power[:, i], "--", color=colour, label=f"{symbol}, $P(k)$")
        axes[1].plot(sizes, error[:, i], "o-", ms=_dot(), color=colour, label=f"{symbol}, error")
        axes[1].plot(sizes, width[:, i], ":", color=colour, label=f"{symbol}, width of $q(z)$")
    low = min((x for x in (*r2.flat, *r2_power.flat) if np.isfinite(x)), default=0.0)
    axes[0].set(ylabel="$R^2$ on unseen cubes", ylim=(max(low - 0.05, -0.5), 1))
    axes[1].set(ylabel="in units of the parameter", ylim=(0, None))
    for ax in axes:
        ax.axvline(trained, color="0.6", lw=0.8, ls="--", zorder=0)
        ax.set(xscale="log", xlabel="slices of a cube")
        ax.set_xticks(sizes, [f"{size:g}" for size in sizes], minor=False)
        ax.minorticks_off()
        ax.legend(fontsize="small")
    return figure


@_in_our_look
def clusters(groups: Mapping[str, object], xlabel: str, ylabel: str, colour=None, colour_name: str = "") -> Figure:
    """Sets of cubes in two coordinates of z; the first set may be coloured by a parameter.

    groups  {label: (n, 2)};  colour  (n,) of the first of them
    """
    figure = _figure(COLUMN, 0.75)
    ax = figure.subplots()
    for number, (label, points) in enumerate(groups.items()):
        points = _array(points)
        if number == 0 and colour is not None:
            shown = ax.scatter(*points.T, c=_array(colour), s=4 * _dot() ** 2, cmap="viridis", label=label)
            figure.colorbar(shown, ax=ax, label=SYMBOLS.get(colour_name, colour_name), aspect=30, pad=0.015)
        else:
            ax.plot(
                *points.T, "sD^v"[number % 4], ms=1.8 * _dot(), mfc="none", color=COLOURS[3 * number % 10], label=label
            )
    ax.set(xlabel=xlabel, ylabel=ylabel)
    figure.legend(loc="outside upper center", ncols=len(groups), handletextpad=0.2)
    return figure


@_in_our_look
def strips(groups: Mapping[str, object], xlabel: str, limit: float | None = None, log: bool = False) -> Figure:
    """Groups of numbers as rows of dots, with a limit as a dashed line.  groups {label: (n,)}"""
    figure = _figure(COLUMN, 0.12 + 0.13 * len(groups))
    ax = figure.subplots()
    for row, values in enumerate(groups.values()):
        values = _array(values)
        shift = 0.25 * np.linspace(-1, 1, len(values)) if len(values) > 1 else np.zeros(1)
        ax.plot(values, row + shift, "o", ms=1.3 * _dot(), alpha=0.75, color=COLOURS[row % len(COLOURS)])
    if limit is not None and np.isfinite(limit):
        ax.axvline(limit, color="0.4", lw=0.8, ls="--", zorder=0)
    ax.set_yticks(range(len(groups)), list(groups))
    ax.set(xlabel=xlabel, ylim=(len(groups) - 0.5, -0.5), xscale="log" if log else "linear")
    ax.tick_params(axis="y", length=0)
    return figure


@_in_our_look
def nats(kl: Mapping[str, object], threshold: float = 0.01) -> Figure:
    """Nats of every dimension, the costliest first.  kl {latent: (D,)} in any order"""
    figure = _figure(COLUMN, 0.6)
    ax = figure.subplots()
    for (label, values), colour in zip(kl.items(), (COLOURS[2], COLOURS[4]), strict=False):
        values = np.sort(_array(values))[::-1]
        ax.plot(np.arange(1, len(values) + 1), np.maximum(values, 1e-6), color=colour,
                label=f"${label}$: {values.sum():.1f} nats")  # fmt: skip
    ax.axhline(threshold, color="0.6", lw=0.8, ls="--", zorder=0)
    ax.set(xscale="log", yscale="log", xlabel="rank of the dimension", ylabel="KL  [nats]", ylim=(1e-4, None))
    ax.legend()
    return figure


@_in_our_look
def effects(k, z_rows, z_dims: Sequence[int], h_rows, h_dims: Sequence[int]) -> Figure:
    """What the costliest dimensions do, scale by scale, one row a dimension.

    k (n_k,);  z_rows (d, n_k) dlnP for a step;  h_rows (d, n_k) share of P(k) in the change of a slice
    """
    k = _array(k)
    figure = _figure(PAGE, 0.42)
    axes = figure.subplots(1, 2) if _is_wide(figure, 1.3) else figure.subplots(2, 1)
    panels = (
        (z_rows, z_dims, "z", r"$\Delta\ln P$ a step", DIFFERENCE_MAP),
        (h_rows, h_dims, "h", "share of $P(k)$", DENSITY_MAP),
    )
    for ax, (rows, dims, name, label, colours) in zip(axes, panels, strict=True):
        rows = _array(rows).reshape(-1, len(k))
        if not len(rows):
            ax.text(0.5, 0.5, f"no active dimension of ${name}$", transform=ax.transAxes, ha="center", color="0.5")
            ax.set_axis_off()
            continue
        norm = _symmetric_norm(rows) if name == "z" else _shared_norm(rows)
        edges = np.concatenate([[k[0] ** 1.5 / k[1] ** 0.5], np.sqrt(k[1:] * k[:-1]), [k[-1] ** 1.5 / k[-2] ** 0.5]])
        mesh = ax.pcolormesh(edges, np.arange(len(rows) + 1), rows, norm=norm, cmap=colours, rasterized=True)
        ax.set_yticks(np.arange(len(rows)) + 0.5, [f"${name}_{{{dim}}}$" for dim in dims])
        ax.set(xscale="log", xlabel=WAVENUMBER, ylim=(len(rows), 0))
        ax.tick_params(axis="y", length=0)
        figure.colorbar(mesh, ax=ax, label=label, aspect=30, pad=0.015).outline.set_visible(False)
    return figure


@_in_our_look
def response(name: str, k, edges, curves: Mapping[str, tuple]) -> Figure:
    """How P(k) and the density of pixels answer to a parameter; "1P cubes" is drawn in black.

    k (n_k,), edges (b + 1,);  curves  {label: (dlnP, dpdf)}, each (value, low, high)
    """
    k, edges = _array(k), _array(edges)
    figure = _figure(PAGE, 0.42)
    axes = figure.subplots(1, 2) if _is_wide(figure, 1.3) else figure.subplots(2, 1)
    colours = iter(COLOURS)
    centres = (edges[1:] + edges[:-1]) / 2
    for label, pair in curves.items():
        colour = TRUTH if label == "1P cubes" else next(colours)
        for ax, x, curve in zip(axes, (k, centres), pair, strict=True):
            _draw(ax, x, np.stack([_array(c) for c in curve]), colour, label)
    for ax in axes:
        ax.axhline(0, color="0.6", lw=0.8, zorder=0)
    slope = SLOPE.get(name, r"\mathrm{d}\theta")
    axes[0].set(xscale="log", xlabel=WAVENUMBER, ylabel=rf"$\mathrm{{d}}\ln P / {slope}$", xlim=k[[0, -1]])
    axes[1].set(xlabel=PIXELS, ylabel=rf"$\mathrm{{d}}\,\mathrm{{PDF}} / {slope}$")
    axes[0].legend()
    return figure


@_in_our_look
def closure(asked, read: Mapping[str, object], name: str) -> Figure:
    """What the probe reads in slices against what was asked for.  asked (v,);  read {label: (v,)}"""
    asked = _array(asked)
    figure = _figure(COLUMN * 0.75, 0.9)
    ax = figure.subplots()
    ax.axline((asked[0], asked[0]), slope=1, color="0.6", lw=0.8, zorder=0)
    colours = iter(COLOURS)
    for label, values in read.items():
        ax.plot(
            asked,
            _array(values),
            "o-",
            ms=1.4 * _dot(),
            color=TRUTH if label == "1P cubes" else next(colours),
            label=label,
        )
    symbol = SYMBOLS.get(name, name)
    ax.set(xlabel=f"{symbol} asked", ylabel=f"{symbol} read")
    ax.legend()
    return figure


@_in_our_look
def universe_card(
    slices_log, recon_log, box_size: float, k, power, model_power, edges, pdf, model_pdf,
    lines: Sequence[str] = (), title: str = "",
) -> Figure:  # fmt: skip
    """One cube as a run sees it: slices over reconstructions, P(k) and pixels beside the model's, and lines of text.

    slices_log, recon_log (n, H, W) log densities;  box_size  side of a slice [Mpc/h];  k, power (n_k,)
    model_power  (median, low, high);  edges (b + 1,);  pdf, model_pdf (b,);  lines  of text
    """
    slices, recon = _images(slices_log), _images(recon_log)
    figure = _figure(PAGE, 0.72)
    above, below = figure.subfigures(2, 1, height_ratios=(1.25, 1))
    norm = _shared_norm(slices)
    tiles = above.subplots(2, len(slices), squeeze=False)
    for row, (images, label) in zip(tiles, ((slices, "slice"), (recon, "as the run sees it")), strict=True):
        row[0].set_ylabel(label)
        for ax, image in zip(row, images, strict=True):
            ax.imshow(image, norm=norm, cmap=DENSITY_MAP, origin="lower", extent=(0, box_size, 0, box_size))
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
    left, middle, right = below.subplots(1, 3, width_ratios=(1, 1, 0.75))
    _draw(left, _array(k), np.atleast_2d(_array(power)), TRUTH, "this cube")
    _draw(left, _array(k), np.stack([_array(x) for x in model_power]), COLOURS[0], "the model's")
    left.set(xscale="log", yscale="log", xlabel=WAVENUMBER, ylabel="$P(k)$ of pixels")
    left.legend()
    middle.stairs(_array(pdf), _array(edges), color=TRUTH)
    middle.stairs(_array(model_pdf), _array(edges), color=COLOURS[0])
    middle.set(xlabel=PIXELS, ylabel="density", yscale="log", ylim=(1e-4, None))
    right.axis("off")
    right.text(0, 1, "\n".join([title, "", *lines]), va="top", linespacing=1.6, transform=right.transAxes)
    return figure
