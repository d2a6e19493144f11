"""Explorers: sliders that turn a cube, a latent or a reconstruction, for JupyterLab and voila.

    SliceExplorer(suite)                 any periodic slice of any cube
    LatentExplorer(run, suite)           z and h turned by hand, and cosmology where the cubes have labels
    ReconstructionExplorer(run, suite)   what the model makes of the slices of a cube

A moved slider puts a new picture into the same `ipywidgets.Image` at once, its P(k) and pixel distribution into a
second one right after. Displayed, an explorer also carries a static picture, for readers without a kernel.
"""

import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from ipywidgets import (
    HTML,
    Box,
    Button,
    Dropdown,
    FloatLogSlider,
    FloatSlider,
    Image,
    IntSlider,
    Layout,
    SelectionSlider,
    VBox,
    Widget,
)  # fmt: skip
from torch import Generator, Tensor

from . import latents, plots
from . import live as pixels
from .cropping import EPS, log_density, periodic_crop
from .cubes import CubeSuite
from .loss import kl_by_dimension
from .presets import PARAMETERS
from .runs import Run, covers_box
from .statistics import cross_correlation, fvu, pixel_pdf, power_spectrum

NAMES = {"Omega_m": "Ωₘ", "sigma_8": "σ₈"}
AXES = "xyz"
STARTS = ("draw", "mean", "slice")
KEPT = 8  # cubes whose encoding is kept
POWER = r"$P(k)$ of $\ln\rho$  [(Mpc/$h$)$^2$]"
DIFFERENCE = r"$\ln\,(\rho / \rho_\mathrm{anchor})$"
RATIOS = (0.2, 0.5, 1.0, 2.0, 5.0)  # ticks
REACHES = (0.1, 0.2, 0.5, 1.0, 2.0, 4.0)  # of the difference's colours


class Explorer(VBox):
    """Controls, two pictures and a line of text; a subclass says how they hang together.

    picture   the slices: a palette PNG;  curves  P(k) and distributions;  readout  what is shown, as text
    """

    _parked: Sequence[Widget] = ()  # controls that are not always on the page

    def __init__(self, controls: Sequence[Widget]):
        self.picture, self.curves = (Image(format="png", layout=Layout(max_width="100%")) for _ in range(2))
        self.readout = HTML()
        self.picture.add_class("uvae-picture"), self.curves.add_class("uvae-curves")
        self._quiet = True
        left = VBox(controls, layout=Layout(flex="1 1 270px", min_width="270px", max_width="330px"))
        right = VBox(
            [self.picture, self.curves], layout=Layout(flex="1 1 640px", min_width="0", align_items="flex-start")
        )
        left.add_class("uvae-controls")
        row = Box([left, right], layout=Layout(flex_flow="row wrap", align_items="flex-start", width="100%"))
        super().__init__([self.readout, row])
        self.add_class("uvae-explorer")

    def close(self) -> None:
        """Close the explorer with all that belongs to it."""
        for widget in (*_descendants(self), *self._parked):
            widget.unobserve_all()
            _close(widget)
        _close(self, super().close)

    def _watch(self, **calls) -> None:
        """Call a method when the control of that name changes, unless the explorer itself changes it."""
        for name, call in calls.items():
            control = getattr(self, name)
            control.add_class(f"uvae-{name}")
            control.observe(partial(self._changed, call), names="value")

    def _changed(self, call, change) -> None:
        if not self._quiet:
            call()

    @contextmanager
    def _silence(self) -> Iterator[None]:
        """A block in which controls are set and nothing is drawn."""
        before, self._quiet = self._quiet, True
        try:
            yield
        finally:
            self._quiet = before

    def _repr_mimebundle_(self, **options) -> dict:
        """The live widget, and the pictures as they are now for a reader without a kernel."""
        still = base64.b64encode(pixels.stack(self.picture.value, self.curves.value)).decode()
        text = f"{type(self).__name__}: {self.readout.value}"
        return super()._repr_mimebundle_(**options) | {"image/png": still, "text/plain": text}


class SliceExplorer(Explorer):
    """A periodic slice of a cube beside the plane that it is cut from.

    suite      the cubes;  cube  the first one to show
    size       side of the crop [voxels]; half of the cube's side when absent, so that one sees it wrap
    corner     (row, col) of its first voxel, taken modulo the side;  axis, plane, thickness [voxels], eps of x
    Raises IndexError for a cube that is not there, ValueError for another setting that is impossible.
    """

    def __init__(
        self, suite: CubeSuite, *, cube: int = 0, size: int | None = None, axis: int = 0, plane: int = 0,
        corner: tuple[int, int] = (0, 0), thickness: int = 1, eps: float = EPS,
    ):  # fmt: skip
        suite.cube_id(cube)  # raises for a cube that is not there
        self.suite, self.size = suite, size or max(1, suite.side // 2)
        if not 1 <= self.size <= suite.side:
            raise ValueError(f"a {size}-voxel crop does not fit a cube of {suite.side}; use size <= {suite.side}")
        if axis not in suite.axes:
            raise ValueError(f"found axis={axis}; planes of these cubes are cut along {_listed(suite.axes)}")
        self.cube = _cubes(suite, cube)
        self.axis = SelectionSlider(options=[(AXES[a], a) for a in suite.axes], value=axis, **_described("axis"))
        self.plane = _whole("plane", plane % self._depth, self._depth - 1)
        self.row, self.col = (
            _whole(f"corner, {name}", start % suite.side, suite.side - 1)
            for name, start in zip(("row", "col"), corner, strict=True)
        )
        thickest = min(32, *(suite.n_planes if a == 0 else suite.side for a in suite.axes))
        if not 1 <= thickness <= thickest:
            raise ValueError(f"found thickness={thickness}; use 1 to {thickest} voxels")
        self.thickness = _whole("thickness", thickness, thickest, least=1)
        self.eps = FloatLogSlider(value=eps, min=-8, max=0, step=0.5, readout_format=".1e", **_described("ε"))
        super().__init__([self.cube, self.axis, self.plane, self.row, self.col, self.thickness, self.eps])
        moved = dict.fromkeys(("plane", "row", "col", "thickness", "eps"), self._draw)
        self._watch(cube=self._open, axis=self._turn, **moved)
        self._open()
        self._quiet = False

    @property
    def _depth(self) -> int:
        """Planes along the chosen axis."""
        return self.suite.n_planes if self.axis.value == 0 else self.suite.side

    def _open(self) -> None:
        """Read the cube, fix its colours and limits, and draw."""
        suite = self.suite
        self._y = torch.from_numpy(suite.overdensity(self.cube.value))
        x = log_density(self._y[:: max(1, suite.n_planes // 16)], EPS)
        low, high = _quantiles(x, 0.005, 0.998)
        length = suite.box_size / suite.side * self.size
        panels = [
            pixels.Panel("periodic plane", suite.box_size, low, high, ""),
            pixels.Panel("crop", length, low, high),
        ]
        self._panels = pixels.ImagePanels(panels, [suite.side, self.size])
        self._edges = torch.linspace(float(x.min()) - 1, float(x.max()) + 1, 61)
        k, power = power_spectrum(x[0], suite.box_size)
        axes = [_power_axis(k, power, 2 * np.pi / length), _density_axis(self._edges)]
        self._curves = pixels.Curves(axes, {"plane": plots.TRUTH, "crop": plots.COLOURS[1]}, self._panels.width)
        self._draw()

    def _turn(self) -> None:
        """Another axis: it may have fewer planes."""
        with self._silence():
            self.plane.max = self._depth - 1
        self._draw()

    def _draw(self) -> None:
        axis, plane, corner = self.axis.value, self.plane.value, (self.row.value, self.col.value)
        layers = torch.arange(plane, plane + self.thickness.value) % self._depth
        x = log_density(self._y.index_select(axis, layers).mean(dim=axis), self.eps.value)
        crop = periodic_crop(x, corner, self.size)
        self.picture.value = self._panels.draw([x.numpy(), crop.numpy()], (*corner, self.size))
        pixel = self.suite.box_size / self.suite.side
        self.readout.value = (
            f"{_cube_text(self.suite, self.cube.value)}: {AXES[axis]} = {plane * pixel:.1f} to "
            f"{(plane + self.thickness.value) * pixel:.1f} Mpc/h, corner at ({corner[0] * pixel:.1f}, "
            f"{corner[1] * pixel:.1f}) Mpc/h, ε = {self.eps.value:.1e}"
        )
        window = None if self.size == self.suite.side else "hann"
        spectra = {"plane": power_spectrum(x, self.suite.box_size)}
        if self.size >= 4:
            spectra["crop"] = power_spectrum(crop, pixel * self.size, window)
        centres = (self._edges[1:] + self._edges[:-1]) / 2
        densities = {name: (centres, pixel_pdf(f, self._edges)) for name, f in (("plane", x), ("crop", crop))}
        self.curves.value = self._curves.draw([spectra, densities])


class Direction(NamedTuple):
    """A way through z that belongs to a parameter: shift (512,) of z per unit, and the range to walk in."""

    shift: Tensor
    low: float
    high: float


def label_directions(run: Run, suite: CubeSuite, n_slices: int = 9, most: int = 32) -> dict[str, Direction]:
    """Directions of Omega_m and sigma_8 in z, from cubes whose parameters are known; {} where they are not.

    suite     best cubes of one phase with one parameter moved at a time (1P), else a Latin hypercube
    n_slices  of a cube are encoded;  most  cubes, evenly spread, are used when there are more
    A parameter that does not vary has no direction; with no more cubes than parameters nothing has.
    """
    table = suite.params[[name for name in PARAMETERS if name in suite.params]]
    table = table.loc[:, table.nunique() > 1]
    cubes = np.linspace(0, suite.n_cubes - 1, min(most, suite.n_cubes)).round().astype(int)
    table = table.iloc[cubes]
    if not len(table.columns) or len(cubes) <= len(table.columns):
        return {}
    slices = (latents.spread_slices(run, suite, int(cube), n_slices, seed=int(cube)) for cube in cubes)
    z = np.stack([latents.encode_cube(run, some).mu.numpy() for some in slices])
    shifts = torch.from_numpy(latents.directions(z, table.to_numpy())).float()
    return {
        name: Direction(shift, float(column.min()), float(column.max()))
        for shift, (name, column) in zip(shifts, table.items(), strict=True)
    }


class _Encoded(NamedTuple):
    """What the model says of a cube, computed once: slices (n, 1, H, H) pixels, q(z), q(h), p(h | z) at q(z)'s mean,
    and the units of z and of h with the largest KL, with that KL [nats]."""

    slices: Tensor
    z: latents.Posterior
    h: latents.Posterior
    prior: latents.Posterior
    units: dict[str, list[tuple[int, float]]]


class LatentExplorer(Explorer):
    """A slice decoded from latents that one turns by hand, and its difference to the slice that one started from.

    Level z: the slice keeps its place in units of p(h | z)'s width while z moves, along the units of z with the
    largest KL (in widths of the prior) and along Omega_m and sigma_8 (in their own units). Level h: h moves at
    fixed z, along the units with the largest KL (in widths of p(h | z)).

    run, suite     a trained model and cubes with its voxel size
    cube           the universe; its z is the mean of q(z | n_slices slices)
    seed           which draw of p(h | z), or which slice of the cube, the walk starts from
    n_directions   sliders a level
    directions     from `label_directions`; made of the suite when absent. No slider for what the suite does not label.
    start          "draw" of p(h | z), its "mean", or a "slice" of the cube;  level  "z" or "h"
    Raises IndexError for a cube that is not there, ValueError for another setting that is impossible.
    """

    def __init__(
        self, run: Run, suite: CubeSuite, *, cube: int = 0, seed: int = 0, level: str = "z", start: str = "draw",
        n_slices: int = 9, n_directions: int = 5, directions: Mapping[str, Direction] | None = None,
    ):  # fmt: skip
        suite.cube_id(cube)
        _check_voxels(run, suite)
        for name, value, known in (("level", level, ("z", "h")), ("start", start, STARTS)):
            if value not in known:
                raise ValueError(f'found {name}="{value}"; expected one of {", ".join(known)}')
        if not 0 <= seed <= 99:
            raise ValueError(f"found seed={seed}; use 0 to 99")
        self.run, self.suite, self.n_slices = run, suite, n_slices
        found = label_directions(run, suite, n_slices) if directions is None else directions
        self.directions = {name: found[name] for name in found if name in suite.params}
        self._kept: dict[int, _Encoded] = {}
        self.cube, self.seed = _cubes(suite, cube), _whole("seed", seed, 99)
        levels = [("z: the universe", "z"), ("h: one slice of it", "h")]
        self.level = Dropdown(options=levels, value=level, **_described("level"))
        starts = [("a draw of p(h | z)", "draw"), ("the mean of p(h | z)", "mean"), ("a slice of the cube", "slice")]
        self.start = Dropdown(options=starts, value=start, **_described("start at"))
        self.reach = SelectionSlider(options=REACHES, value=1.0, **_described("difference ±"))
        self.back = Button(description="back to the anchor", layout=Layout(width="auto"))
        self.back.add_class("uvae-back")
        self.units = {level: [_walk() for _ in range(n_directions)] for level in "zh"}
        self.labels = {name: _parameter(name, way) for name, way in self.directions.items()}
        self._walks = VBox()
        super().__init__([self.cube, self.level, self.start, self.seed, self._walks, self.back, self.reach])
        self._watch(cube=self._open, level=self._show_level, start=self._anchor, seed=self._anchor, reach=self._rescale)
        self._parked = [slider for _, slider in self._sliders()]
        for name, slider in self._sliders():
            slider.add_class(f"uvae-{name}")
            slider.observe(partial(self._changed, self._draw), names="value")
        self.back.on_click(self._reset)
        self._open()
        self._quiet = False

    def _sliders(self) -> Iterator[tuple[str, FloatSlider]]:
        """All that can be walked along: ("z0" to "h4", slider), then ("Omega_m", slider), ..."""
        for level, sliders in self.units.items():
            yield from ((f"{level}{i}", slider) for i, slider in enumerate(sliders))
        yield from self.labels.items()

    def _encode(self, cube: int) -> _Encoded:
        """Slices, posteriors and units of a cube, kept for the cubes seen last."""
        if cube not in self._kept:
            run = self.run
            slices = latents.spread_slices(run, self.suite, cube, self.n_slices, seed=cube)
            maps = latents.slice_features(run, slices)
            z = latents.encode_cube(run, slices, maps)
            h = latents.encode_slices(run, slices, z.mu, maps)
            prior = latents.prior_of_h(run, z.mu[None])
            nats = {"z": kl_by_dimension(*z), "h": kl_by_dimension(*h, *prior).mean(dim=0)}
            n = len(self.units["z"])
            best = {level: values.topk(n) for level, values in nats.items()}
            units = {
                level: list(zip(top.indices.tolist(), top.values.tolist(), strict=True)) for level, top in best.items()
            }
            while len(self._kept) >= KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[cube] = _Encoded(slices, z, h, prior, units)
        return self._kept[cube]

    def _open(self) -> None:
        """Another cube: encode it, name the sliders, set them back, fix the limits, and draw."""
        self._now = self._encode(self.cube.value)
        for level, sliders in self.units.items():
            for slider, (unit, nats) in zip(sliders, self._now.units[level], strict=True):
                slider.description = f"{level}{_subscript(unit)}: {nats:.1f} nats"
        with self._silence():
            for name, slider in self.labels.items():
                slider.min, slider.max = _range(self.directions[name], self._label(name))
            self._set_back()
        x = self.run.to_log(self._now.slices)[:, 0]
        self._scale = _quantiles(x, 0.005, 0.998)
        self._edges = torch.linspace(float(x.min()) - 1, float(x.max()) + 1, 61)
        k, power = self._power(x)
        self._k, self._truth = k, (power.mean(dim=0), pixel_pdf(x, self._edges).mean(dim=0))
        ratio = pixels.Axis(
            plots.WAVENUMBER, r"$P(k)$ / anchor", (float(k[0]), float(k[-1])), (0.2, 5), ticks=RATIOS, level=1.0
        )
        colours = {"slices of the cube": "0.65", "anchor": plots.TRUTH, "now": plots.COLOURS[1]}
        self._frame()
        axes = [_power_axis(k, self._truth[0]), ratio, _density_axis(self._edges)]
        self._curves = pixels.Curves(axes, colours, self._panels.width)
        self._show_level()

    def _frame(self) -> None:
        """Axes and colour bars of the two panels."""
        reach, length = self.reach.value, self.run.image_box
        panels = [
            pixels.Panel("decoded slice", length, *self._scale),
            pixels.Panel("difference to the anchor", length, -reach, reach, DIFFERENCE, plots.DIFFERENCE_MAP),
        ]
        self._panels = pixels.ImagePanels(panels, [self.run.config.data.image_size] * 2)

    def _rescale(self) -> None:
        self._frame()
        self._draw()

    def _show_level(self) -> None:
        """Put the sliders of the level on the page, and start anew."""
        level = self.level.value
        self._walks.children = [*(self.labels.values() if level == "z" else ()), *self.units[level]]
        with self._silence():
            self._set_back()
        self._anchor()

    def _reset(self, _=None) -> None:
        with self._silence():
            self._set_back()
        self._draw()

    def _set_back(self) -> None:
        """All sliders to the anchor."""
        for name, slider in self._sliders():
            slider.value = self._label(name) if name in self.labels else 0.0

    def _label(self, name: str) -> float:
        """The cube's parameter, on the slider's grid."""
        return round(float(self.suite.params[name].iloc[self.cube.value]), 2)

    def _anchor(self) -> None:
        """Where the walk starts: h (512,) and its slice x (H, H); then draw."""
        start, seed, now = self.start.value, self.seed.value, self._now
        if start == "draw":
            self._h, self._said = now.prior.sample(Generator().manual_seed(seed))[0], f"draw {seed}"
        elif start == "mean":
            self._h, self._said = now.prior.mu[0], "mean"
        else:
            number = seed % self.n_slices
            self._h, self._said = now.h.mu[number], f"slice {number + 1} of {self.n_slices}"
        self.seed.disabled = start == "mean"
        self._from = self.run.to_log(latents.decode(self.run, self._h[None]))[0, 0]
        self._draw()

    def _draw(self) -> None:
        level, now = self.level.value, self._now
        step = torch.zeros_like(self._h)
        widths = torch.ones_like(self._h) if level == "z" else (0.5 * now.prior.logvar[0]).exp()
        for slider, (unit, _) in zip(self.units[level], now.units[level], strict=True):
            step[unit] = slider.value * widths[unit]
        for name, slider in self.labels.items() if level == "z" else ():
            step = step + (slider.value - self._label(name)) * self.directions[name].shift
        z = now.z.mu if level == "z" else None
        decoded = latents.traverse(self.run, self._h, step, torch.ones(1), z) if step.any() else None
        x = self._from if decoded is None else self.run.to_log(decoded)[0, 0]
        self.picture.value = self._panels.draw([x.numpy(), (x - self._from).numpy()])
        self.readout.value = (
            f"{_cube_text(self.suite, self.cube.value)}, {self._said}: {self._moves() or 'at the anchor'}"
        )
        self._draw_curves(x)

    def _draw_curves(self, x: Tensor) -> None:
        """P(k), its ratio to the anchor's, and the distribution of the pixels."""
        fields = torch.stack([self._from, x])
        power, density = self._power(fields)[1], pixel_pdf(fields, self._edges)
        centres = (self._edges[1:] + self._edges[:-1]) / 2
        names, k = ("slices of the cube", "anchor", "now"), self._k
        self.curves.value = self._curves.draw([
            dict(zip(names, ((k, p) for p in (self._truth[0], *power)), strict=True)),
            {"now": (k, power[1] / power[0])},
            dict(zip(names, ((centres, p) for p in (self._truth[1], *density)), strict=True)),
        ])  # fmt: skip

    def _power(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return power_spectrum(x, self.run.image_box, None if covers_box(self.run.config, self.run.side) else "hann")

    def _moves(self) -> str:
        """What was moved, as text."""
        said = []
        for name, slider in self.labels.items() if self.level.value == "z" else ():
            if slider.value != self._label(name):
                said.append(f"{NAMES[name]} → {slider.value:.2f}")
        for slider, (unit, _) in zip(self.units[self.level.value], self._now.units[self.level.value], strict=True):
            if slider.value:
                said.append(f"{self.level.value}{_subscript(unit)} {slider.value:+.1f} σ")
        return ", ".join(said)


class ReconstructionExplorer(Explorer):
    """Truth, reconstruction and residual of the slices of a cube, sorted by error.

    run, suite   a trained model and cubes with its voxel size;  cube  the first one to show
    n_slices     of a cube; each is reconstructed given the others
    order        "worst", "best" first, or as "cut"
    Raises IndexError for a cube that is not there, ValueError for another setting that is impossible.
    """

    def __init__(self, run: Run, suite: CubeSuite, *, cube: int = 0, n_slices: int = 9, order: str = "worst"):
        suite.cube_id(cube)
        _check_voxels(run, suite)
        orders = [("worst first", "worst"), ("best first", "best"), ("as cut", "cut")]
        if order not in dict(orders).values():
            raise ValueError(f'found order="{order}"; expected worst, best or cut')
        self.run, self.suite, self.n_slices = run, suite, n_slices
        self._kept: dict[int, tuple[Tensor, ...]] = {}
        self.cube, self.rank = _cubes(suite, cube), _whole("slice", 1, n_slices, least=1)
        self.order = Dropdown(options=orders, value=order, **_described("sorted"))
        super().__init__([self.cube, self.order, self.rank])
        self._watch(cube=self._open, order=self._draw, rank=self._draw)
        self._open()
        self._quiet = False

    def _look(self, cube: int) -> tuple[Tensor, Tensor, Tensor]:
        """Truth and reconstructions (n, H, H) log densities, and their unexplained variances (n,)."""
        if cube not in self._kept:
            slices = latents.spread_slices(self.run, self.suite, cube, self.n_slices, seed=cube)
            recon = latents.reconstruct_given_others(self.run, slices)
            truth, recon = (self.run.to_log(x)[:, 0] for x in (slices, recon))
            error = fvu(truth, recon, dim=(1, 2))
            while len(self._kept) >= KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[cube] = truth, recon, error
        return self._kept[cube]

    def _open(self) -> None:
        """Another cube: reconstruct its slices, fix colours and limits, and draw."""
        run = self.run
        self._truth, self._recon, self._error = self._look(self.cube.value)
        reach = _quantiles((self._recon - self._truth).abs(), 0.995)[0]
        scale, length = _quantiles(self._truth, 0.005, 0.998), run.image_box
        label = r"$\ln\,(\rho_\mathrm{rec} / \rho_\mathrm{true})$"
        panels = [
            pixels.Panel("truth", length, *scale, ""),
            pixels.Panel("reconstruction", length, *scale),
            pixels.Panel("residual", length, -reach, reach, label, plots.DIFFERENCE_MAP),
        ]
        self._panels = pixels.ImagePanels(panels, [run.config.data.image_size] * 3, target=256)
        self._edges = torch.linspace(float(self._truth.min()) - 1, float(self._truth.max()) + 1, 61)
        self._window = None if covers_box(run.config, run.side) else "hann"
        k, power = power_spectrum(self._truth, length, self._window)
        r = pixels.Axis(plots.WAVENUMBER, "correlation  $r(k)$", (float(k[0]), float(k[-1])), (0, 1.02),
                        yscale="linear", level=0.9)  # fmt: skip
        colours = {"truth": plots.TRUTH, "reconstruction": plots.COLOURS[1]}
        axes = [_power_axis(k, power.mean(dim=0)), r, _density_axis(self._edges)]
        self._curves = pixels.Curves(axes, colours, self._panels.width)
        self._draw()

    def _draw(self) -> None:
        ranked = self._error.argsort(descending=self.order.value == "worst").tolist()
        number = self.rank.value - 1 if self.order.value == "cut" else ranked[self.rank.value - 1]
        truth, recon, run = self._truth[number], self._recon[number], self.run
        self.picture.value = self._panels.draw([truth.numpy(), recon.numpy(), (recon - truth).numpy()])
        self.readout.value = (
            f"{_cube_text(self.suite, self.cube.value)}: slice {number + 1} of {self.n_slices}, "
            f"{float(self._error[number]):.2f} of its variance unexplained"
        )
        pair = torch.stack([truth, recon])
        k, power = power_spectrum(pair, run.image_box, self._window)
        r = cross_correlation(truth, recon, run.image_box, self._window)[1]
        centres, density = (self._edges[1:] + self._edges[:-1]) / 2, pixel_pdf(pair, self._edges)
        names = ("truth", "reconstruction")
        self.curves.value = self._curves.draw([
            dict(zip(names, ((k, p) for p in power), strict=True)),
            {"reconstruction": (k, r)},
            dict(zip(names, ((centres, p) for p in density), strict=True)),
        ])  # fmt: skip


# --- pieces


def _described(text: str) -> dict:
    """A label left of a control, and all the width there is."""
    return {"description": text, "style": {"description_width": "104px"}, "layout": Layout(width="98%")}


def _whole(text: str, value: int, most: int, least: int = 0) -> IntSlider:
    return IntSlider(value=value, min=least, max=max(most, least), continuous_update=True, **_described(text))


def _cubes(suite: CubeSuite, cube: int) -> IntSlider:
    """The cube: read and encoded when the handle rests, as this takes longer than a picture."""
    last = max(suite.n_cubes - 1, 1)
    return IntSlider(value=cube, min=0, max=last, continuous_update=False, disabled=suite.n_cubes == 1,
                     **_described("cube"))  # fmt: skip


def _walk() -> FloatSlider:
    """Along one unit, in widths of its prior."""
    return FloatSlider(value=0.0, min=-4, max=4, step=0.1, readout_format="+.1f", **_described(""))


def _parameter(name: str, way: Direction) -> FloatSlider:
    return FloatSlider(value=way.low, min=way.low, max=way.high, step=0.01, readout_format=".2f",
                       **_described(NAMES[name]))  # fmt: skip


def _range(way: Direction, here: float) -> tuple[float, float]:
    """The range of a parameter's slider, wide enough for the cube's own value."""
    return min(round(way.low, 2), here), max(round(way.high, 2), here)


def _subscript(number: int) -> str:
    return str(number).translate(str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉"))


def _listed(values: Sequence) -> str:
    return ", ".join(str(value) for value in values)


def _cube_text(suite: CubeSuite, cube: int) -> str:
    """Number and cosmology of a cube."""
    row = suite.params.iloc[cube] if len(suite.params.columns) else {}
    known = [f"{NAMES[name]} = {row[name]:.2f}" for name in PARAMETERS if name in row]
    return f"cube {cube}" + (f" ({', '.join(known)})" if known else "")


def _quantiles(x: Tensor, *shares: float) -> list[float]:
    """Limits of colours: a linear scale that leaves out extreme pixels."""
    return np.quantile(x.numpy(), shares).tolist()


def _power_axis(k: Tensor, power: Tensor, lowest: float | None = None) -> pixels.Axis:
    """P(k), with room for other slices: two decades below the weakest mode of this one, one above the strongest."""
    limits = (float(k[0]) if lowest is None else min(float(k[0]), lowest), float(k[-1]))
    return pixels.Axis(plots.WAVENUMBER, POWER, limits, (float(power.min()) / 30, float(power.max()) * 5))


def _density_axis(edges: Tensor) -> pixels.Axis:
    limits = float(edges[0]), float(edges[-1])
    return pixels.Axis(plots.LOG_DENSITY, "probability density", limits, (3e-4, 3), xscale="linear")


def _check_voxels(run: Run, suite: CubeSuite) -> None:
    """Raise ValueError when a run's slices cannot be cut from a suite, or would mean another length."""
    found, expected = suite.box_size / suite.side, run.box_size / run.side
    size = run.config.data.image_size
    if abs(found / expected - 1) > 1e-3 or suite.side < size:
        raise ValueError(
            f"found cubes of {suite.side}^3 with voxels of {found:.4g} Mpc/h; the run was trained on slices of "
            f"{size} pixels with voxels of {expected:.4g} Mpc/h; give it the suite that it knows, or one like it"
        )


def _close(widget: Widget, close: Callable | None = None) -> None:
    """Close a widget with its layout and style."""
    for part in ("layout", "style"):
        if part in widget.trait_names():
            getattr(widget, part).close()
    (close or widget.close)()


def _descendants(widget: Widget) -> Iterator[Widget]:
    for child in getattr(widget, "children", ()):
        yield child
        yield from _descendants(child)
