"""The model as a poster: its networks, what flows between them, where the loss is taken, how a new slice is drawn."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from .style import DENSITY_MAP, DRAWN, PAGE, TRUTH, H, Z, as_array, new_axes, plot, shared_norm

TOP, BOTTOM, HALF = 6.6, 1.9, 0.62  # rows, half the height of a box
LOSS = "#c0392b"  # of the badges


@plot
def model_diagram(
    n_slices: int = 6, image_size: int = 128, latent_dim: int = 512, pictures: Mapping[str, object] | None = None,
    *, ax: Axes | None = None,
) -> Figure:  # fmt: skip
    """The model with the sizes of all that flows through it; circled the steps of the note, badges its loss.

    n_slices     context slices of a set
    image_size   side of a slice [pixels]
    latent_dim   numbers in z, and in h
    pictures     "context" (n, H, W), "target", "reconstruction" and "new" (H, W): log densities for the thumbnails;
                 those that are missing are grey squares
    """
    ax = ax or new_axes(PAGE, 0.5)
    ax.set(xlim=(0, 19.6), ylim=(-0.3, 9.3), aspect="equal")
    ax.axis("off")
    size = 0.98 * ax.get_window_extent().width / ax.get_figure(root=True).dpi  # [pt]
    shown, both = {key: as_array(value) for key, value in (pictures or {}).items()}, 2 * latent_dim
    stack = shown.get("context", [None] * 3)
    for number, shift in enumerate((0.5, 0.25, 0)):
        _thumbnail(ax, stack[number % len(stack)], 0.1 + shift, TOP - 1 + shift)
    places = {"target": (0.1, BOTTOM - 1), "reconstruction": (17.5, BOTTOM - 1), "new": (17.5, TOP - 1)}
    for key, place in places.items():
        _thumbnail(ax, shown.get(key), *place)
    captions = (f"{n_slices} context slices\nof one cube", 1.2, TOP - 1.65), (f"target, 1 × {image_size}$^2$", 1.1, 0.5)
    for text, x, y in (*captions, ("reconstruction", 18.5, 0.5), ("a new slice", 18.5, TOP - 1.35)):
        ax.text(x, y, text, size=size, ha="center", va="center")
    grey, boxes = ("#e9eef4", "0.55"), [
        ("encoder\n(slice, 0)", 4.3, TOP, 0), ("deep_set\nsum", 7.1, TOP, 0), ("decoder_z", 11.6, TOP, 0),
        ("encoder\n(slice, $z$)", 4.3, BOTTOM, 0), ("decoder_h", 16.05, BOTTOM, 0),
        (f"$z$, {latent_dim}\nwhich universe", 9.3, TOP, Z), (f"$h$, {latent_dim}\nexpected, $p(h|z)$", 13.9, TOP, H),
        (f"$h$, {latent_dim}\nof this slice", 13.9, BOTTOM, H),
    ]  # fmt: skip
    for text, x, y, latent in boxes:
        half = 1.05 if latent else 0.85
        fill, edge = (latent, latent) if latent else grey
        style = {"boxstyle": "round,pad=0,rounding_size=0.2", "fc": fill, "ec": edge, "alpha": 0.3 if latent else 1}
        ax.add_patch(FancyBboxPatch((x - half, y - HALF), 2 * half, 2 * HALF, **style))
        ax.text(x, y, text, size=size, ha="center", va="center", linespacing=1.3)
    flows = ((2.7, 3.4, TOP), (5.2, 6.2, TOP), (8, 8.2, TOP), (10.4, 10.7, TOP), (12.5, 12.8, TOP), (2.2, 3.4, BOTTOM),
             (5.2, 12.8, BOTTOM), (15, 15.15, BOTTOM), (16.95, 17.4, BOTTOM))  # fmt: skip
    for start, end, y in flows:
        _way(ax, [(start, y), (end, y)], "0.3")
    _way(ax, [(9.3, TOP - HALF), (9.3, 4.2), (4.9, 4.2), (4.9, BOTTOM + HALF)], Z)
    through = [(15, TOP), (15.8, TOP), (15.8, BOTTOM + HALF)], [(16.4, BOTTOM + HALF), (16.4, TOP), (17.4, TOP)]
    for points in ([(9.8, 8.5), (9.8, TOP + HALF)], *through):
        _way(ax, points, DRAWN, ls=":", lw=2)
    ax.plot([3.8, 3.8], [BOTTOM + HALF, TOP - HALF], color="0.55", lw=1, ls="--")
    ax.text(3.6, 4.25, "same\nweights", size=size, ha="right", va="center", color="0.4")
    ax.text(5.7, TOP + 0.35, f"{n_slices} × {both}", size=0.85 * size, ha="center", color="0.4")
    ax.text(9.3, 8.8, "$N(0, I)$", size=size, ha="center", va="center")
    compared = [(13.9, TOP - HALF), (13.9, BOTTOM + HALF)], [(1.1, 0), (18.5, 0)], [(8.8, TOP + HALF), (8.8, 8.5)]
    for points in compared:
        ax.plot(*zip(*points, strict=True), color=LOSS, lw=1.2, ls="--")
    for text, x, y in (("KL($z$)", 8.8, 7.9), ("KL($h$)", 13.9, 4.25), ("squared error", 9.8, 0)):
        badge = {"boxstyle": "round,pad=0.35", "fc": "white", "ec": LOSS}
        ax.text(x, y, text, size=size, ha="center", va="center", color=LOSS, bbox=badge)
    steps = (4.3, TOP + 1.1), (7.1, TOP + 1.1), (11.6, TOP + 1.1), (4.3, BOTTOM - 1.05), (16.05, BOTTOM - 1.05), (16.4, 7.3)
    for number, place in enumerate(steps, start=1):
        circle = {"boxstyle": "circle,pad=0.25", "fc": DRAWN if number == 6 else TRUTH, "lw": 0}
        ax.text(*place, str(number), size=size, ha="center", va="center", color="white", weight="bold", bbox=circle)
    return ax.figure


def _thumbnail(ax: Axes, image: np.ndarray | None, left: float, bottom: float) -> None:
    """A slice, thinned out to at most 64 pixels a side, as a square of two units; grey without one."""
    image = np.full((2, 2), np.nan) if image is None else as_array(image)[:: max(1, len(image) // 64)]
    image = image[:, :: max(1, image.shape[1] // 64)]
    extent = (left, left + 2, bottom, bottom + 2)
    norm = shared_norm(image) if np.isfinite(image).any() else None
    ax.imshow(image, norm=norm, cmap=DENSITY_MAP, origin="lower", extent=extent, zorder=2)
    ax.plot([left, left + 2, left + 2, left, left], np.repeat([bottom, bottom + 2, bottom], [2, 2, 1]), "w", lw=1, zorder=2)


def _way(ax: Axes, points: Sequence[tuple[float, float]], colour: str, **line) -> None:
    """A line through points with a head at the last one."""
    ax.plot(*zip(*points, strict=True), color=colour, **{"lw": 1.2} | line)
    head = {"arrowstyle": "-|>", "color": colour, "shrinkA": 0, "shrinkB": 0, "lw": 0}
    ax.annotate("", points[-1], points[-2], arrowprops=head)
