"""An explorer of the latents: a slice decoded from a z and an h that are moved by hand."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import NamedTuple

import torch
from ipywidgets import Button, Dropdown, FloatSlider, Layout, SelectionSlider, VBox
from torch import Generator, Tensor

from .. import latents, live, plots
from ..cubes import CubeSuite
from ..loss import kl_by_dimension
from ..runs import Run
from .explorer import (
    NAMES,
    Histogram,
    ModelExplorer,
    check_voxels,
    cube_text,
    cubes,
    described,
    one_of,
    power_axis,
    quantiles,
    real,
    whole,
)

LEVELS = {"z": "z: the universe", "h": "h: one slice of it"}
STARTS = {"draw": "a draw of p(h | z)", "mean": "the mean of p(h | z)", "slice": "a slice of the cube"}
DIFFERENCE = r"$\ln\,(\rho / \rho_\mathrm{anchor})$"
RATIOS = (0.2, 0.5, 1.0, 2.0, 5.0)  # ticks
ACTIVE = 0.01  # nats below which a direction changes nothing that can be seen: it has no slider
REACHES = (0.1, 0.2, 0.5, 1.0, 2.0, 4.0)  # of the difference's colours


class _Ways(NamedTuple):
    """Directions of a latent, one a slider: steps (n, 512) for one unit of the slider, names, and nats of each."""

    steps: Tensor
    names: list[str]
    nats: list[float]


class _Encoded(NamedTuple):
    """What the model says of a cube: slices (n, 1, H, H) pixels, q(z), q(h), p(h | z) at the mean of z, and ways."""

    slices: Tensor
    z: latents.Posterior
    h: latents.Posterior
    prior: latents.Posterior
    ways: dict[str, _Ways]


class LatentExplorer(ModelExplorer):
    """A slice decoded from latents that one moves by hand, and its difference to the slice that one started from.

    Level z: the slice keeps its place in units of p(h | z)'s width while z moves, along the directions that change
    p(h | z) most (in widths of N(0, I)) and along Omega_m and sigma_8 (in their own units). Level h: h moves at
    fixed z, along the dimensions with the largest KL (in widths of p(h | z)). The decoded mean is drawn at once, the
    completed slice when the hand rests, where the run has flows.

    run, suite     a trained model and cubes with its voxel size
    cube           the universe; its z is the mean of q(z | n_slices slices)
    seed           which draw of p(h | z), or which slice of the cube, the walk starts from; and of what completes it
    level          "z" or "h"
    start          "draw" of p(h | z), its "mean", or a "slice" of the cube
    n_slices       of a cube are encoded
    n_directions   sliders a level, fewer where fewer directions change anything
    directions     from `latents.parameter_directions`; made of the suite when absent. No slider for what the suite
                   does not label.
    Raises IndexError for a cube that is not there, ValueError for another setting that is impossible.
    """

    def __init__(
        self, run: Run, suite: CubeSuite, *, cube: int = 0, seed: int = 0, level: str = "z", start: str = "draw",
        n_slices: int = 9, n_directions: int = 5, directions: Mapping[str, latents.Direction] | None = None,
    ):  # fmt: skip
        check_voxels(run, suite)
        one_of("level", level, tuple(LEVELS)), one_of("start", start, tuple(STARTS))
        if not 0 <= seed <= 99:
            raise ValueError(f"found seed={seed}; use 0 to 99")
        self.cube, self.seed = cubes(suite, cube), whole("seed", seed, 99)
        found = latents.parameter_directions(run, suite, n_slices) if directions is None else directions
        self.directions = {name: found[name] for name in found if name in suite.params}
        self.level, self.start = (
            Dropdown(options=[(text, key) for key, text in known.items()], value=value, **described(name))
            for name, value, known in (("level", level, LEVELS), ("start at", start, STARTS))
        )
        self.reach = SelectionSlider(options=REACHES, value=1.0, **described("difference ±"))
        self.back = Button(description="back to the anchor", layout=Layout(width="auto"))
        self.back.add_class("uvae-back")
        self.back.on_click(self._reset)
        self.units = {level: [real("", 0.0, -4, 4, 0.1, "+.1f") for _ in range(n_directions)] for level in LEVELS}
        self.labels = {
            name: real(NAMES[name], way.low, way.low, way.high, 0.01, ".2f") for name, way in self.directions.items()
        }
        self._walks = VBox()
        controls = [self.cube, self.level, self.start, self.seed, self._walks, self.back, self.reach]
        super().__init__(run, suite, n_slices, controls)
        self._watch(cube=self._open, level=self._show_level, start=self._anchor, seed=self._anchor, reach=self._rescale)
        self._parked = [slider for _, slider in self._sliders()]
        for name, slider in self._sliders():
            slider.add_class(f"uvae-{name}")
            slider.observe(partial(self._changed, self._draw), names="value")
        self._open()
        self._quiet = False

    def _sliders(self) -> Iterator[tuple[str, FloatSlider]]:
        """All that can be walked along: ("z0" to "h4", slider), then ("Omega_m", slider), ..."""
        for level, sliders in self.units.items():
            yield from ((f"{level}{i}", slider) for i, slider in enumerate(sliders))
        yield from self.labels.items()

    def _encode(self, cube: int) -> _Encoded:
        run, n = self.run, len(self.units["h"])
        slices = latents.spread_slices(run, self.suite, cube, self.n_slices, seed=cube)
        features = latents.slice_features(run, slices)
        z = latents.encode_cube(run, slices, features)
        h = latents.encode_slices(run, slices, z.mu, features)
        prior = latents.prior_of_h(run, z.mu[None])
        steps, change = latents.prior_directions(run, z.mu, n)
        top = kl_by_dimension(*h, *prior).mean(dim=0).topk(n)
        width = (0.5 * prior.logvar[0]).exp()
        names = [f"h{_subscript(i)}" for i in top.indices.tolist()]
        ways = {
            "z": _Ways(steps, [f"dir. {i + 1}" for i in range(n)], change.tolist()),
            "h": _Ways(torch.diag(width)[top.indices], names, top.values.tolist()),
        }
        return _Encoded(slices, z, h, prior, ways)

    def _open(self) -> None:
        """Another cube: encode it, name the sliders, set them back, fix the limits, and draw."""
        self._now = self._encoded()
        for level, sliders in self.units.items():
            for slider, name, nats in zip(sliders, *self._now.ways[level][1:], strict=True):
                slider.description = f"{name}: {nats:.2g} nats"
        with self._silence():
            for name, slider in self.labels.items():
                way, here = self.directions[name], self._label(name)
                slider.min, slider.max = min(round(way.low, 2), here), max(round(way.high, 2), here)
        x = self.run.to_log(self._now.slices)[:, 0]
        self._scale, self._pixels = quantiles(x, 0.005, 0.998), Histogram(x)
        k, power = self._power(x)
        self._truth = (k, power.mean(dim=0)), self._pixels(x)
        ratio = live.Axis(
            plots.WAVENUMBER, r"$P(k)$ / anchor", (float(k[0]), float(k[-1])), (0.2, 5), ticks=RATIOS, level=1.0
        )
        colours = {"slices of the cube": "0.65", "anchor": plots.TRUTH, "now": plots.COLOURS[1]}
        self._frame()
        axes = [power_axis(k, power.mean(dim=0)), ratio, self._pixels.axis]
        self._curves = live.Curves(axes, colours, self._panels.width)
        self._show_level()

    def _frame(self) -> None:
        """Axes and colour bars of the two panels."""
        reach, length = self.reach.value, self.run.image_box
        panels = [
            live.Panel("slice" if self.run.flows else "decoded slice", length, *self._scale),
            live.Panel("difference to the anchor", length, -reach, reach, DIFFERENCE, plots.DIFFERENCE_MAP),
        ]
        self._panels = live.ImagePanels(panels, [self.run.config.data.image_size] * 2)

    def _rescale(self) -> None:
        self._frame()
        self._draw()

    def _show_level(self) -> None:
        """Put the sliders of the level that change anything on the page, and start anew."""
        level = self.level.value
        units = zip(self.units[level], self._now.ways[level].nats, strict=True)
        active = [slider for slider, nats in units if nats > ACTIVE]
        self._walks.children = [*(self.labels.values() if level == "z" else ()), *active]
        self._set_back()
        self._anchor()

    def _reset(self, _=None) -> None:
        self._set_back()
        self._draw()

    def _set_back(self) -> None:
        """All sliders to the anchor."""
        with self._silence():
            for name, slider in self._sliders():
                slider.value = self._label(name) if name in self.labels else 0.0

    def _label(self, name: str) -> float:
        """The cube's parameter, on the slider's grid."""
        return round(float(self.suite.params[name].iloc[self.cube.value]), 2)

    def _anchor(self) -> None:
        """Where the walk starts: h (512,) and its decoded mean (1, 1, H, H); then draw."""
        start, seed, now = self.start.value, self.seed.value, self._now
        if start == "draw":
            white = torch.randn(1, len(now.z.mu), generator=Generator().manual_seed(seed))
            self._h, self._said = latents.draw_h(self.run, now.z.mu, white)[0], f"draw {seed}"
        elif start == "mean":
            self._h, self._said = now.prior.mu[0], "mean"
        else:
            number = seed % self.n_slices
            self._h, self._said = now.h.mu[number], f"slice {number + 1} of {self.n_slices}"
        self.seed.disabled = start == "mean" and not self.run.flows
        self._from, self._completed = latents.decode(self.run, self._h[None]), None
        self._draw()

    def _step(self) -> Tensor:
        """How far the latent of the level was moved: (512,)."""
        level = self.level.value
        step = torch.tensor([slider.value for slider in self.units[level]]) @ self._now.ways[level].steps
        for name, slider in self.labels.items() if level == "z" else ():
            step = step + (slider.value - self._label(name)) * self.directions[name].shift
        return step

    def _draw(self) -> None:
        """The decoded mean now, the completed slice soon."""
        step, z = self._step(), self._now.z.mu
        of_z = self.level.value == "z"
        self._to, self._z = self._from, z + step if of_z else z
        if step.any():
            self._to = latents.traverse(self.run, self._h, step, torch.ones(1), z if of_z else None)
        self._show(self._from, self._to, "decoded mean")
        if self.run.flows:
            self._settle_soon()

    def settle(self) -> None:
        """Draw the completed slice."""
        if self.run.flows:
            if self._completed is None:
                self._completed = self._complete(self._from, self._now.z.mu)
            self._show(self._completed, self._complete(self._to, self._z), "completed slice")

    def _complete(self, mean: Tensor, z: Tensor) -> Tensor:
        """The same noise at every place, so that what moves is what was moved."""
        white = torch.randn(mean.shape, generator=Generator().manual_seed(self.seed.value))
        return latents.complete_means(self.run, mean, z, white)

    def _show(self, anchor: Tensor, now: Tensor, what: str) -> None:
        """Both panels and the curves of slices (1, 1, H, H)."""
        anchor, x = (self.run.to_log(pixels)[0, 0] for pixels in (anchor, now))
        self.picture.value = self._panels.draw([x.numpy(), (x - anchor).numpy()])
        moves = self._moves() or "at the anchor"
        self.readout.value = f"{cube_text(self.suite, self.cube.value)}, {self._said}, {what}: {moves}"
        k, power = self._power(torch.stack([anchor, x]))
        names = ("slices of the cube", "anchor", "now")
        self.curves.value = self._curves.draw([
            dict(zip(names, (self._truth[0], *((k, p) for p in power)), strict=True)),
            {"now": (k, power[1] / power[0])},
            dict(zip(names, (self._truth[1], self._pixels(anchor), self._pixels(x)), strict=True)),
        ])  # fmt: skip

    def _moves(self) -> str:
        """What was moved, as text."""
        level, said = self.level.value, []
        for name, slider in self.labels.items() if level == "z" else ():
            if slider.value != self._label(name):
                said.append(f"{NAMES[name]} → {slider.value:.2f}")
        for slider, name in zip(self.units[level], self._now.ways[level].names, strict=True):
            if slider.value:
                said.append(f"{name} {slider.value:+.1f} σ")
        return ", ".join(said)


def _subscript(number: int) -> str:
    return str(number).translate(str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉"))
