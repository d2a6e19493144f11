"""The model as a poster: its networks, what flows between them, where the loss is taken, how a new slice is drawn."""

# ruff: noqa: F405

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle

from .style import *  # noqa: F403

TOP, BOTTOM, HALF, LOSS = 6.6, 1.9, 0.62, "#c0392b"  # rows, half the height of a box, colour of the badges


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
                 those that are missing are dark squares
    """
    ax = ax or new_axes(PAGE, 0.5)
    ax.set(xlim=(0, 19.6), ylim=(-0.3, 9.3), aspect="equal")
    ax.axis("off")
    size = 0.98 * ax.get_window_extent().width / ax.get_figure(root=True).dpi  # [pt]
    write = partial(ax.text, size=size, ha="center", va="center", linespacing=1.3)
    shown = {key: as_array(value) for key, value in (pictures or {}).items()}
    context = shown.get("context", np.zeros((3, 2, 2)))
    pile = [(context[n % len(context)], 0.6 - n / 4, TOP - 0.5 - n / 4) for n in range(3)]
    single = ("target", 0.1, BOTTOM - 1), ("reconstruction", 17.5, BOTTOM - 1), ("new", 17.5, TOP - 1)
    for image, left, bottom in (*pile, *((shown.get(key, np.zeros((2, 2))), *place) for key, *place in single)):
        image = image[:: max(1, len(image) // 64), :: max(1, len(image) // 64)]  # small as it is drawn
        extent = (left, left + 2, bottom, bottom + 2)
        ax.imshow(image, norm=shared_norm(image), cmap=DENSITY_MAP, origin="lower", extent=extent, zorder=2)
        ax.add_patch(Rectangle((left, bottom), 2, 2, fill=False, ec="white", lw=1.5, zorder=2))
    boxes = [
        ("encoder\n(slice, 0)", 4.3, TOP, 0), ("deep_set\nany order", 7.1, TOP, 0), ("decoder_z", 11.6, TOP, 0),
        ("encoder\n(slice, $z$)", 4.3, BOTTOM, 0), ("decoder_h", 16.05, BOTTOM, 0),
        (f"$z$, {latent_dim}\nwhich universe", 9.3, TOP, Z), (f"$h$, {latent_dim}\nexpected, $p(h|z)$", 13.9, TOP, H),
        (f"$h$, {latent_dim}\nof this slice", 13.9, BOTTOM, H),
    ]  # fmt: skip
    for text, x, y, latent in boxes:
        half, style = 1.05 if latent else 0.85, {"boxstyle": "round,pad=0,rounding_size=0.2"}
        style |= {"color": latent, "alpha": 0.3} if latent else {"fc": "#e9eef4", "ec": "0.55"}
        ax.add_patch(FancyBboxPatch((x - half, y - HALF), 2 * half, 2 * HALF, **style))
        write(x, y, text)
    flows = ((2.7, 3.4, TOP), (5.2, 6.2, TOP), (8, 8.2, TOP), (10.4, 10.7, TOP), (12.5, 12.8, TOP), (2.2, 3.4, BOTTOM),
             (5.2, 12.8, BOTTOM), (15, 15.15, BOTTOM), (16.95, 17.4, BOTTOM))  # fmt: skip
    for start, end, y in flows:
        _way(ax, [(start, y), (end, y)], "0.3")
    _way(ax, [(9.3, TOP - HALF), (9.3, 4.2), (4.9, 4.2), (4.9, BOTTOM + HALF)], Z)
    through = [(15, TOP), (15.8, TOP), (15.8, BOTTOM + HALF)], [(16.4, BOTTOM + HALF), (16.4, TOP), (17.4, TOP)]
    for points in ([(9.8, 8.5), (9.8, TOP + HALF)], *through):
        _way(ax, points, OWN, ls=":", lw=2)
    ax.plot([3.8, 3.8], [BOTTOM + HALF, TOP - HALF], color="0.55", lw=1, ls="--")
    for points in ([(13.9, TOP - HALF), (13.9, BOTTOM + HALF)], [(1.1, 0), (18.5, 0)], [(8.8, TOP + HALF), (8.8, 8.5)]):
        ax.plot(*zip(*points, strict=True), color=LOSS, lw=1.2, ls="--")
    for x, y, text in (
        (1.2, TOP - 1.65, f"{n_slices} context slices\nof one cube"), (1.1, 0.5, f"target, 1 × {image_size}$^2$"),
        (18.5, 0.5, "reconstruction"), (18.5, TOP - 1.35, "the note's sample"), (9.3, 8.8, "$N(0, I)$"),
        (3.1, 4.25, "same\nweights"), (5.7, TOP + 0.4, f"{n_slices} × {2 * latent_dim}"),
    ):  # fmt: skip
        write(x, y, text)
    for x, y, text in ((8.8, 7.9, "KL($z$)"), (13.9, 4.25, "KL($h$)"), (9.8, 0, "squared error")):
        write(x, y, text, color=LOSS, bbox={"boxstyle": "round,pad=0.35", "fc": "white", "ec": LOSS})
    for number, place in enumerate(((4.3, 7.7), (7.1, 7.7), (11.6, 7.7), (4.3, 0.85), (16.05, 0.85), (16.4, 7.3)), 1):
        circle = {"boxstyle": "circle,pad=0.25", "fc": OWN if number == 6 else TRUTH, "lw": 0}
        write(*place, number, color="white", weight="bold", bbox=circle)
    return ax.figure


def _way(ax: Axes, points: Sequence[tuple[float, float]], colour: str, **line) -> None:
    """A line through points with a head at the last one."""
    ax.plot(*zip(*points, strict=True), color=colour, **{"lw": 1.2} | line)
    ax.annotate("", points[-1], points[-2], arrowprops={"arrowstyle": "-|>", "color": colour, "shrinkB": 0, "lw": 0})
