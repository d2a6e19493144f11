"""The model as a drawing: its networks, what flows between them, and where the loss is taken."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from .style import COLOURS, PAGE, new_axes, plot

TOP, BOTTOM, HALF, GAP = 2.45, 0.85, 0.3, 0.3  # rows, half the height of a box, space between boxes
HEAD = {"arrowstyle": "-|>", "color": "0.3", "shrinkA": 0, "shrinkB": 0}
NETWORK, NUMBERS = ("#dbe9f6", COLOURS[0]), ("white", "0.6")  # fill and edge of a box


@plot
def model_diagram(
    n_slices: int = 6, image_size: int = 128, latent_dim: int = 512, pooling: str = "sum", *, ax: Axes | None = None
) -> Figure:  # fmt: skip
    """The model with the sizes of all that flows through it, and dashed what the loss compares.

    n_slices     context slices of a set
    image_size   side of a slice [pixels]
    latent_dim   numbers in z, and in h
    pooling      of deep_set, "sum" or "mean"
    """
    ax = ax or new_axes(PAGE, 0.41)
    ax.set(xlim=(-0.03, 8.53), ylim=(0.05, 3.5), aspect="equal")
    ax.axis("off")
    size = 0.98 * ax.get_window_extent().width / ax.get_figure(root=True).dpi  # [pt]
    pixels, both = f"1 × {image_size} × {image_size}", 2 * latent_dim
    sample = "$\\mu$, $\\log\\sigma^2$, sample\n" + ", ".join(3 * [str(latent_dim)])
    upper = [
        (f"context slices\n{n_slices} × {pixels}", 1.15, NUMBERS),
        ("encoder\n(slice, 0)", 0.8, NETWORK),
        (f"zs\n{n_slices} × {both}", 0.8, NUMBERS),
        (f"deep_set\n{pooling}: {both}", 0.8, NETWORK),
        (f"$z$ given slices\n{sample}", 1.15, NUMBERS),
        (f"decoder_z\n{both}", 0.85, NETWORK),
        (f"$h$ given $z$\n{sample}", 1.15, NUMBERS),
    ]
    lower = [
        (f"target slice\n{pixels}", 1.15, NUMBERS),
        (f"encoder\n(slice, $z$)\n{both}", 0.8, NETWORK),
        (f"$h$ given slice, $z$\n{sample}", 1.15, NUMBERS),
        ("decoder_h", 0.85, NETWORK),
        (f"reconstruction\n{pixels}", 1.15, NUMBERS),
    ]
    above, below = (_row(ax, boxes, y, size) for boxes, y in ((upper, TOP), (lower, BOTTOM)))
    _arrow(ax, [(above[4], TOP - HALF), (above[4], 1.8), (below[1], 1.8), (below[1], BOTTOM + HALF)])
    ax.text(above[4], 3.37, "$N(0, I)$", size=size, ha="center", va="center")
    compared = {
        "kl_z": [(above[4], TOP + HALF), (above[4], 3.25)],
        "kl_h": [(above[6], TOP - HALF), (above[6], 1.5), (below[2], 1.5), (below[2], BOTTOM + HALF)],
        "l2": [(below[4], BOTTOM - HALF), (below[4], 0.25), (below[0], 0.25), (below[0], BOTTOM - HALF)],
    }
    for (term, points), label in zip(compared.items(), ((above[4] + 0.2, 3.0), (6.6, 1.6), (3, 0.35)), strict=True):
        ax.plot(*zip(*points, strict=True), color=COLOURS[3], lw=1.2, ls="--")
        ax.text(*label, term, size=size, color=COLOURS[3], ha="center", va="center")
    return ax.figure


def _row(ax: Axes, boxes: Sequence[tuple], y: float, size: float) -> list[float]:
    """Boxes (text, width, colours) from left to right with arrows between them; returns their centres."""
    centres, left = [], 0.0
    for text, width, (fill, edge) in boxes:
        if centres:
            _arrow(ax, [(left - GAP, y), (left, y)])
        style = {"boxstyle": "round,pad=0,rounding_size=0.06", "fc": fill, "ec": edge}
        ax.add_patch(FancyBboxPatch((left, y - HALF), width, 2 * HALF, **style))
        ax.text(left + width / 2, y, text, size=size, ha="center", va="center", linespacing=1.25)
        centres.append(left + width / 2)
        left += width + GAP
    return centres


def _arrow(ax: Axes, points: Sequence[tuple[float, float]]) -> None:
    """A line through points with a head at the last one."""
    ax.plot(*zip(*points[:-1], strict=True), color="0.3", lw=1)
    ax.annotate("", points[-1], points[-2], arrowprops=HEAD)
