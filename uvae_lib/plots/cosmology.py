"""What z knows: predictions of parameters, controls, the cost of each latent, walks, and one cube as a run sees it.

A response is (value, low, high) of (n,) each.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..statistics import r2
from .figure import (
    COLOURS,
    COLUMN,
    DENSITY_MAP,
    DIFFERENCE_MAP,
    PAGE,
    PIXELS,
    SYMBOLS,
    TRUTH,
    as_array,
    as_band,
    as_images,
    colour_bar,
    curve_colours,
    dot,
    draw_band,
    legend_above,
    new_axes,
    new_figure,
    plot,
    shared_norm,
    symmetric_norm,
    two_panels,
    wavenumbers,
)

SIMULATED = "1P cubes"  # the label of the curve that is drawn in black


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
    score = r2(truth[:, None], predicted[:, None])[0]
    ax = ax or new_axes(COLUMN * 0.75, 1.0, squares=True)
    error = None if error is None else as_array(error)
    ax.errorbar(truth, predicted, error, fmt="o", ms=dot(), elinewidth=0.8)
    reach = np.concatenate([truth, predicted])
    margin = 0.06 * np.ptp(reach)
    limits = reach.min() - margin, reach.max() + margin
    ax.plot(limits, limits, color="0.6", lw=0.8, zorder=0)
    symbol = SYMBOLS.get(name, name)
    ax.set(xlabel=f"true {symbol}", ylabel=f"{symbol} from $z$", xlim=limits, ylim=limits, aspect="equal")
    ax.locator_params(nbins=5)
    ax.text(0.05, 0.95, f"$R^2 = {score:.2f}$", transform=ax.transAxes, va="top")
    return ax.figure


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
    ax.plot([0, 1], [0, 1], color="0.6", lw=0.8, zorder=0)
    for (label, values), colour in zip(found.items(), COLOURS, strict=False):
        ax.plot(levels, as_array(values), "o-", ms=dot(), color=colour, label=SYMBOLS.get(label, label))
    ax.set(xlabel="stated share", ylabel="share of held-out cubes inside", xlim=(0, 1), ylim=(0, 1.02))
    ax.legend(loc="upper left")
    return ax.figure


@plot
def slices_needed(sizes, r2, r2_power, error, read_width, trained: int, names: Sequence[str]) -> Figure:
    """How many slices are enough: R^2 from z and from P(k), and the error beside what the width of q(z) predicts.

    sizes                         (s,) slices of a cube
    r2, r2_power                  (s, p) of each parameter, from z and from P(k)
    error, read_width             (s, p) in units of the parameter
    trained                       slices of a set in training
    names                         of the p parameters
    """
    sizes, r2, r2_power, error, width = (as_array(x) for x in (sizes, r2, r2_power, error, read_width))
    figure, axes = two_panels(0.42, 1.3, sharex=True)
    for i, name in enumerate(names):
        colour, symbol = COLOURS[i], SYMBOLS.get(name, name)
        axes[0].plot(sizes, r2[:, i], "o-", ms=dot(), color=colour, label=f"{symbol}, $z$")
        axes[0].plot(sizes, r2_power[:, i], "--", color=colour, label=f"{symbol}, $P(k)$")
        axes[1].plot(sizes, error[:, i], "o-", ms=dot(), color=colour, label=f"{symbol}, error")
        axes[1].plot(sizes, width[:, i], ":", color=colour, label=f"{symbol}, width of $q(z)$")
    low = min((x for x in (*r2.flat, *r2_power.flat) if np.isfinite(x)), default=0.0)
    axes[0].set(ylabel="$R^2$ on held-out cubes", ylim=(max(low - 0.05, -0.5), 1))
    axes[1].set(ylabel="in units of the parameter", ylim=(0, None))
    for ax in axes:
        ax.axvline(trained, color="0.6", lw=0.8, ls="--", zorder=0)
        ax.set(xscale="log", xlabel="slices of a cube")
        ax.set_xticks(sizes, [f"{size:g}" for size in sizes], minor=False)
        ax.minorticks_off()
        ax.legend(fontsize="small")
    return figure


@plot
def clusters(
    groups: Mapping[str, object], xlabel: str, ylabel: str, colour=None, colour_name: str = "",
    *, ax: Axes | None = None,
) -> Figure:  # fmt: skip
    """Sets of cubes in two coordinates of z; the first set may be coloured by a parameter.

    groups        {label: (n, 2)}
    colour        (n,) values of the parameter for the first of them
    colour_name   of the parameter
    """
    ax = ax or new_axes(COLUMN, 0.75)
    for number, (label, points) in enumerate(groups.items()):
        x, y = as_array(points).T
        if number == 0 and colour is not None:
            shown = ax.scatter(x, y, c=as_array(colour), s=4 * dot() ** 2, cmap="viridis", label=label)
            colour_bar(shown, ax, SYMBOLS.get(colour_name, colour_name), extend="neither")
        else:
            marks = {"ms": 1.8 * dot(), "mfc": "none", "color": COLOURS[3 * number % 10]}
            ax.plot(x, y, "sD^v"[number % 4], label=label, **marks)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    legend_above(ax, len(groups))
    return ax.figure


@plot
def strips(
    groups: Mapping[str, object], xlabel: str, limit: float | None = None, log: bool = False, *, ax: Axes | None = None
) -> Figure:
    """Groups of numbers as rows of dots.

    groups   {label: (n,)}
    xlabel   what the numbers are
    limit    drawn as a dashed line
    log      a logarithmic axis
    """
    ax = ax or new_axes(COLUMN, 0.12 + 0.13 * len(groups))
    for row, values in enumerate(groups.values()):
        values = as_array(values)
        shift = 0.25 * np.linspace(-1, 1, len(values)) if len(values) > 1 else np.zeros(1)
        ax.plot(values, row + shift, "o", ms=1.3 * dot(), alpha=0.75, color=COLOURS[row % len(COLOURS)])
    if limit is not None and np.isfinite(limit):
        ax.axvline(limit, color="0.4", lw=0.8, ls="--", zorder=0)
    ax.set_yticks(range(len(groups)), list(groups))
    ax.set(xlabel=xlabel, ylim=(len(groups) - 0.5, -0.5), xscale="log" if log else "linear")
    ax.tick_params(axis="y", length=0)
    return ax.figure


@plot
def kl_by_rank(kl: Mapping[str, object], threshold: float = 0.01, *, ax: Axes | None = None) -> Figure:
    """KL of every dimension, the largest first.

    kl          {latent: (D,)} in any order [nats]
    threshold   above which a dimension counts as active, dashed [nats]
    """
    ax = ax or new_axes(COLUMN, 0.6)
    for (label, values), colour in zip(kl.items(), (COLOURS[2], COLOURS[4]), strict=False):
        values = np.sort(as_array(values))[::-1]
        ax.plot(np.arange(1, len(values) + 1), np.maximum(values, 1e-6), color=colour,
                label=f"${label}$: {values.sum():.1f} nats")  # fmt: skip
    ax.axhline(threshold, color="0.6", lw=0.8, ls="--", zorder=0)
    ax.set(xscale="log", yscale="log", xlabel="rank of the dimension", ylabel="KL  [nats]", ylim=(1e-4, None))
    ax.legend()
    return ax.figure


@plot
def kl_growth(sizes, parts, *, ax: Axes | None = None) -> Figure:
    """KL(q(z) || N(0, I)) and its three parts against the number of slices that z is read from.

    sizes   (s,) slices of a cube
    parts   (s, 3) what widths, offset of the mean and spread of the means cost (`loss.kl_parts`) [nats]
    """
    sizes, parts = as_array(sizes), as_array(parts)
    ax = ax or new_axes(COLUMN, 0.6)
    ax.plot(sizes, parts.sum(axis=1), "o-", ms=dot(), color=TRUTH, label="KL($z$)")
    for label, part in zip(("widths", "offset of the mean", "spread of the means"), parts.T, strict=True):
        ax.plot(sizes, part, "o--", ms=dot(), label=label)
    ax.set(xscale="log", xlabel="slices of a cube", ylabel="nats", ylim=(0, None))
    ax.set_xticks(sizes, [f"{size:g}" for size in sizes], minor=False)
    ax.minorticks_off()
    ax.legend()
    return ax.figure


@plot
def effects(k, z_rows, z_dims: Sequence[int], h_rows, h_dims: Sequence[int]) -> Figure:
    """What the dimensions with the largest KL do, scale by scale, one row a dimension.

    k                (n_k,) wavenumbers [h/Mpc]
    z_rows, h_rows   (d, n_k) dlnP for a step of z; share of P(k) in the change of a slice by h
    z_dims, h_dims   numbers of the d dimensions
    """
    k = as_array(k)
    figure, axes = two_panels(0.42, 1.3)
    edges = np.concatenate([[k[0] ** 1.5 / k[1] ** 0.5], np.sqrt(k[1:] * k[:-1]), [k[-1] ** 1.5 / k[-2] ** 0.5]])
    panels = (
        (z_rows, z_dims, "z", r"$\Delta\ln P$ a step", DIFFERENCE_MAP, symmetric_norm),
        (h_rows, h_dims, "h", "share of $P(k)$", DENSITY_MAP, shared_norm),
    )
    for ax, (rows, dims, name, label, colours, norm) in zip(axes, panels, strict=True):
        rows = as_array(rows).reshape(-1, len(k))
        if not len(rows):
            ax.text(0.5, 0.5, f"no active dimension of ${name}$", transform=ax.transAxes, ha="center", color="0.5")
            ax.set_axis_off()
            continue
        mesh = ax.pcolormesh(edges, np.arange(len(rows) + 1), rows, norm=norm(rows), cmap=colours, rasterized=True)
        ax.set_yticks(np.arange(len(rows)) + 0.5, [f"${name}_{{{dim}}}$" for dim in dims])
        wavenumbers(ax)
        ax.set_ylim(len(rows), 0)
        ax.tick_params(axis="y", length=0)
        colour_bar(mesh, ax, label)
    return figure


@plot
def response(name: str, k, edges, curves: Mapping[str, tuple]) -> Figure:
    """How P(k) and the distribution of pixels respond to a parameter.

    name     of the parameter
    k        (n_k,) wavenumbers [h/Mpc]
    edges    (b + 1,) of the bins of pixels
    curves   {label: (dlnP, dpdf)}, two responses each; "1P cubes" is drawn in black
    """
    k, edges = as_array(k), as_array(edges)
    figure, axes = two_panels(0.42, 1.3)
    centres = (edges[1:] + edges[:-1]) / 2
    for (label, pair), colour in zip(curves.items(), curve_colours(curves, SIMULATED), strict=True):
        for ax, x, curve in zip(axes, (k, centres), pair, strict=True):
            draw_band(ax, x, as_band(curve), colour, label)
    for ax in axes:
        ax.axhline(0, color="0.6", lw=0.8, zorder=0)
    slope = r"\mathrm{d}" + SYMBOLS.get(name, r"$\theta$").strip("$")
    wavenumbers(axes[0], k)
    axes[0].set_ylabel(rf"$\mathrm{{d}}\ln P / {slope}$")
    axes[1].set(xlabel=PIXELS, ylabel=rf"$\mathrm{{d}}\,\mathrm{{PDF}} / {slope}$")
    axes[0].legend()
    return figure


@plot
def closure(asked, read: Mapping[str, object], name: str, *, ax: Axes | None = None) -> Figure:
    """What the probe reads in slices against what was asked for.

    asked   (v,) values of the parameter
    read    {label: (v,)}; "1P cubes" is drawn in black
    name    of the parameter
    """
    asked = as_array(asked)
    ax = ax or new_axes(COLUMN * 0.75, 0.9)
    ax.axline((asked[0], asked[0]), slope=1, color="0.6", lw=0.8, zorder=0)
    for (label, values), colour in zip(read.items(), curve_colours(read, SIMULATED), strict=True):
        ax.plot(asked, as_array(values), "o-", ms=1.4 * dot(), color=colour, label=label)
    symbol = SYMBOLS.get(name, name)
    ax.set(xlabel=f"{symbol} asked", ylabel=f"{symbol} read")
    ax.legend()
    return ax.figure


@plot
def cube_estimates(
    slices_log, recon_log, box_size: float, k, power, model_power, edges, pdf, model_pdf,
    lines: Sequence[str] = (), title: str = "",
) -> Figure:  # fmt: skip
    """One cube as a run sees it: slices over reconstructions, P(k) and pixels beside the model's, and lines of text.

    slices_log, recon_log   (n, H, W) log densities
    box_size                side of a slice [Mpc/h]
    k, power                (n_k,) wavenumbers [h/Mpc] and the cube's P(k)
    model_power             (median, low, high) of (n_k,) each
    edges                   (b + 1,) of the bins of pixels
    pdf, model_pdf          (b,) densities
    lines, title            text beside the curves
    """
    slices, recon = as_images(slices_log), as_images(recon_log)
    figure = new_figure(PAGE, 0.72)
    above, below = figure.subfigures(2, 1, height_ratios=(1.25, 1))
    norm = shared_norm(slices)
    tiles = above.subplots(2, len(slices), squeeze=False)
    for row, (images, label) in zip(tiles, ((slices, "slice"), (recon, "as the run sees it")), strict=True):
        row[0].set_ylabel(label)
        for ax, image in zip(row, images, strict=True):
            ax.imshow(image, norm=norm, cmap=DENSITY_MAP, origin="lower", extent=(0, box_size, 0, box_size))
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
    left, middle, right = below.subplots(1, 3, width_ratios=(1, 1, 0.75))
    draw_band(left, as_array(k), as_band(as_array(power)), TRUTH, "this cube")
    draw_band(left, as_array(k), as_band(tuple(model_power)), COLOURS[0], "the model's")
    wavenumbers(left)
    left.set(yscale="log", ylabel="$P(k)$ of pixels")
    left.legend()
    middle.stairs(as_array(pdf), as_array(edges), color=TRUTH)
    middle.stairs(as_array(model_pdf), as_array(edges), color=COLOURS[0])
    middle.set(xlabel=PIXELS, ylabel="density", yscale="log", ylim=(1e-4, None))
    right.axis("off")
    right.text(0, 1, "\n".join([title, "", *lines]), va="top", linespacing=1.6, transform=right.transAxes)
    return figure
