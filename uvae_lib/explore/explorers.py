"""Explorers: sliders that turn a cube, a latent or a reconstruction, for JupyterLab and voila.

    CubeExplorer(suite)                  a cube that is turned, and cut open at a plane
    SliceExplorer(suite)                 any periodic slice of any cube
    LatentExplorer(run, suite)           z and h moved by hand, and cosmology where the cubes have labels
    ReconstructionExplorer(run, suite)   what the model makes of the slices of a cube

A moved slider puts a new picture into the same `ipywidgets.Image` at once, its P(k) and pixel distribution into a
second one right after. A static image is shown where no kernel runs.
"""

import asyncio
import base64
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from types import SimpleNamespace

import ipywidgets as ui
import numpy as np
import pandas as pd
import torch
from torch import Generator, Tensor

from ..cropping import EPS, log_density, periodic_crop
from ..cubes.suite import CubeSuite
from ..generation.flows import flows_of
from ..generation.sample import complete_means, draw_h, draw_z
from ..plots import curves as plots
from ..runs.encode import decode, encode_cube, prior_of_h, reconstruct_given_others, spread_slices
from ..runs.run import Run
from ..runs.traverse import ParameterSheet, decode_universe, decoded_directions, prior_directions, suite_sheet
from ..statistics import cross_correlation, fvu, pixel_pdf, power_spectrum
from . import pictures as live

NAMES = {"Omega_m": "Ωₘ", "sigma_8": "σ₈"}
AXES = "xyz"
REACH = 1.0  # of the colours of a difference of ln rho
KEPT = 8  # cubes whose encoding is kept
REST = 0.3  # [s] without a move, after which a picture that takes longer is drawn
N_UNIVERSES = 256  # drawn to know how wide the prior of z is
ACTIVE = 0.01  # nats, or rms of ln rho, below which a direction changes nothing that can be seen: it has no slider
POWER = r"$P(k)$ of $\ln\rho$  [(Mpc/$h$)$^2$]"


class Explorer(ui.VBox):
    """Controls, two pictures and a line of text.

    suite      the cubes
    cube       the first one to show: a slider, read and encoded when its handle rests
    controls   {name: (a control, the method to call when it is moved)}; each becomes an attribute
    picture    the slices: a palette PNG
    curves     P(k) and distributions
    readout    what is shown, as text

    A subclass has `_open`, called at first and for another cube: it reads or encodes the cube, fixes colours and limits
    (`_limits`, `_frames`), and draws (`_show`).
    Raises IndexError for a cube that is not there, and, of a subclass, ValueError for a setting that is impossible.
    """

    def __init__(self, suite: CubeSuite, cube: int, controls: Mapping[str, tuple[ui.Widget, Callable]]):
        suite.cube_id(cube)
        last, alone = max(suite.n_cubes - 1, 1), suite.n_cubes == 1
        self.suite = suite
        self.cube = control(ui.IntSlider, "cube", value=cube, max=last, continuous_update=False, disabled=alone)
        for name, (widget, _) in controls.items():
            setattr(self, name, widget)
        self.picture, self.curves = (ui.Image(format="png", layout=ui.Layout(max_width="100%")) for _ in range(2))
        self.readout = ui.HTML()
        narrow = ui.Layout(flex="1 1 270px", min_width="270px", max_width="330px")
        wide = ui.Layout(flex="1 1 640px", min_width="0", align_items="flex-start")
        self.box = ui.VBox([self.cube, *(widget for widget, _ in controls.values())], layout=narrow)
        right = ui.VBox([self.picture, self.curves], layout=wide)
        row = ui.Box([self.box, right], layout=ui.Layout(flex_flow="row wrap", align_items="flex-start", width="100%"))
        super().__init__([self.readout, row])
        self._quiet = False
        self._open()
        # A call ends before the kernel is idle again, and until then the page sends no further move of that control but
        # keeps the last: a mouse that moves faster than pictures are drawn skips some, and none is drawn too late.
        for widget, call in (*controls.values(), (self.cube, self._open)):
            widget.observe(lambda change, call=call: self._quiet or call(), names="value")
        named = {name: widget for name, (widget, _) in controls.items()} | {"cube": self.cube, "explorer": self}
        for name, widget in (named | {"picture": self.picture, "curves": self.curves}).items():
            widget.add_class(f"uvae-{name}")

    def settle(self) -> None:
        """Draw what takes longer than a frame: called when no control has moved for REST seconds."""

    def close(self) -> None:
        """Close the explorer with all that belongs to it."""
        inside = [*_descendants(self)]
        for widget in (*inside, self):
            for part in {"layout", "style"} & set(widget.trait_names()):
                getattr(widget, part).close()
        for widget in inside:
            widget.close()
        super().close()

    @contextmanager
    def _silence(self) -> Iterator[None]:
        """A block in which controls are set and nothing is drawn."""
        self._quiet = True
        try:
            yield
        finally:
            self._quiet = False

    @property
    def _pixel(self) -> float:
        """Side of a voxel [Mpc/h]."""
        return self.suite.box_size / self.suite.side

    def _limits(self, x: Tensor) -> tuple[float, float]:
        """Fix the bins of distributions and the limits of curves by slices x (n, H, W); returns those of colours."""
        self._edges = torch.linspace(float(x.min()) - 1, float(x.max()) + 1, 61)
        k, power = self._statistics(x)[0]
        self._k = float(k[0]), float(k[-1])
        room, ends = (float(power.min()) / 30, float(power.max()) * 5), tuple(self._edges[[0, -1]].tolist())
        self._axes = (
            live.Axis(plots.WAVENUMBER, POWER, self._k, room),
            live.Axis(plots.LOG_DENSITY, "probability density", ends, (3e-4, 3)),
        )
        return tuple(np.quantile(x.numpy(), (0.005, 0.998)).tolist())

    def _frames(self, panels: Sequence[live.Panel], sizes: Sequence[int], colours: Mapping[str, str], middle=(),
                target: int = 384) -> None:  # fmt: skip
        """Draw what stays: panels for images of some sizes, and curves between the axes of `_limits`."""
        self._panels = live.ImagePanels(panels, sizes, target)
        self._curves = live.Curves([self._axes[0], *middle, self._axes[1]], colours, self._panels.width)

    def _show(
        self, images: Sequence[np.ndarray], text: str, lines: Mapping[str, tuple], middle=(), outline=None
    ) -> None:
        """Put images, a text and curves on the page: lines {name: `_statistics`}, and those of the panels between."""
        self.picture.value = self._panels.draw(images, outline)
        self.readout.value = text
        power, pdf = ({name: pair[i] for name, pair in lines.items()} for i in (0, 1))
        self.curves.value = self._curves.draw([power, *middle, pdf])

    def _window(self, x: Tensor) -> str | None:
        """That of spectra: a crop is not periodic."""
        return None if x.shape[-1] == self.suite.side else "hann"

    def _statistics(self, x: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """P(k) and distribution of slices (n, H, W) or of one, each as (x, y) of a curve; means over slices."""
        x = x if x.ndim == 3 else x[None]
        k, power = power_spectrum(x, self._pixel * x.shape[-1], self._window(x))
        centres = (self._edges[1:] + self._edges[:-1]) / 2
        return (k, power.mean(dim=0)), (centres, pixel_pdf(x, self._edges).mean(dim=0))

    def _cube_text(self) -> str:
        """Number and cosmology of the cube."""
        cube, params = self.cube.value, self.suite.params
        known = [f"{text} = {params[name].iloc[cube]:.2f}" for name, text in NAMES.items() if name in params]
        return f"cube {cube}" + (f" ({', '.join(known)})" if known else "")

    def _repr_mimebundle_(self, **options) -> dict:
        """The live widget, and the pictures as they are now for a reader without a kernel."""
        self.settle()
        still = base64.b64encode(live.stack(self.picture.value, self.curves.value)).decode()
        text = f"{type(self).__name__}: {self.readout.value}"
        return super()._repr_mimebundle_(**options) | {"image/png": still, "text/plain": text}


def control(kind: type[ui.Widget], text: str, **options) -> ui.Widget:
    """A control with a label left of it, and all the width there is."""
    return kind(description=text, style={"description_width": "112px"}, layout=ui.Layout(width="98%"), **options)


def one_of(kind: type[ui.Widget], name: str, value, known: Mapping) -> ui.Widget:
    """A control that chooses among {value: text}. Raises ValueError for a first value that is not among them."""
    if value not in known:
        raise ValueError(f"found {name}={json.dumps(value)}; expected one of {', '.join(map(str, known))}")
    return control(kind, name, value=value, options=[(text, key) for key, text in known.items()])


def _descendants(widget: ui.Widget) -> Iterator[ui.Widget]:
    for child in getattr(widget, "children", ()):
        yield child
        yield from _descendants(child)


# --- cubes alone


class PlaneExplorer(Explorer):
    """An explorer of planes of a cube: which cube, along which axis, which plane.

    axis, plane   of the plane to show first
    more          further controls, all of them calling `_draw`
    A subclass has `_frame(x, scale)`, with what stays while planes of a cube are shown, of which x (n, N, N) are some
    and scale the ends of colours, and `_draw`.
    """

    def __init__(self, suite: CubeSuite, cube: int, axis: int, plane: int, **more: ui.Widget):
        axes = one_of(ui.SelectionSlider, "axis", axis, {a: AXES[a] for a in suite.axes})
        depth = self._depth(suite, axis)
        more = {"plane": control(ui.IntSlider, "plane", value=plane % depth, max=depth - 1)} | more
        super().__init__(
            suite, cube, {"axis": (axes, self._turn)} | {name: (widget, self._draw) for name, widget in more.items()}
        )

    @staticmethod
    def _depth(suite: CubeSuite, axis: int) -> int:
        """Planes along an axis."""
        return suite.n_planes if axis == 0 else suite.side

    def _open(self) -> None:
        self._y = torch.from_numpy(self.suite.overdensity(self.cube.value))
        x = log_density(self._y[:: max(1, self.suite.n_planes // 16)], EPS)
        self._frame(x, self._limits(x))
        self._draw()

    def _turn(self) -> None:
        """Another axis: it may have fewer planes."""
        with self._silence():
            self.plane.max = self._depth(self.suite, self.axis.value) - 1
        self._draw()

    def _where(self, thickness: int = 1) -> str:
        """Cube, axis and place of the plane, as text."""
        start, stop = (self._pixel * (self.plane.value + n) for n in (0, thickness))
        return f"{self._cube_text()}: {AXES[self.axis.value]} = {start:.1f} to {stop:.1f} Mpc/h"


class SliceExplorer(PlaneExplorer):
    """A periodic slice of a cube beside the plane that it is cut from.

    suite         the cubes
    cube          the first one to show
    size          side of the crop [voxels], 4 or more; half of the cube's when absent, so that one sees it wrap
    axis, plane   of the plane to show first
    corner        (row, col) of the crop's first voxel, taken modulo the side
    thickness     of the slice [voxels]
    eps           of x = log(y + eps)
    """

    def __init__(
        self, suite: CubeSuite, *, cube: int = 0, size: int | None = None, axis: int = 0, plane: int = 0,
        corner: tuple[int, int] = (0, 0), thickness: int = 1, eps: float = EPS,
    ):  # fmt: skip
        self.size = size or max(4, suite.side // 2)
        if not 4 <= self.size <= suite.side:
            raise ValueError(f"a {self.size}-voxel crop does not fit a cube of {suite.side}; use 4 to {suite.side}")
        thickest = min(32, *(self._depth(suite, a) for a in suite.axes))
        if not 1 <= thickness <= thickest:
            raise ValueError(f"found thickness={thickness}; use 1 to {thickest} voxels")
        row, col = (
            control(ui.IntSlider, f"corner, {name}", value=start % suite.side, max=suite.side - 1)
            for name, start in zip(("row", "col"), corner, strict=True)
        )
        thick = control(ui.IntSlider, "thickness", value=thickness, min=1, max=max(thickest, 2))
        log_eps = control(ui.FloatLogSlider, "ε", value=eps, min=-8, max=0, step=0.5, readout_format=".1e")
        super().__init__(suite, cube, axis, plane, row=row, col=col, thickness=thick, eps=log_eps)

    def _frame(self, x: Tensor, scale: tuple[float, float]) -> None:
        plane = live.Panel("periodic plane", self.suite.box_size, *scale, "")
        crop = live.Panel("crop", self._pixel * self.size, *scale)
        self._frames([plane, crop], [self.suite.side, self.size], {"plane": plots.TRUTH, "crop": plots.COLOURS[1]})

    def _draw(self) -> None:
        axis, corner, thickness = self.axis.value, (self.row.value, self.col.value), self.thickness.value
        layers = torch.arange(self.plane.value, self.plane.value + thickness) % self._depth(self.suite, axis)
        x = log_density(self._y.index_select(axis, layers).mean(dim=axis), self.eps.value)
        crop = periodic_crop(x, corner, self.size)
        row, col = (self._pixel * place for place in corner)
        text = f"{self._where(thickness)}, corner at ({row:.1f}, {col:.1f}) Mpc/h, ε = {self.eps.value:.1e}"
        lines = {"plane": self._statistics(x), "crop": self._statistics(crop)}
        self._show([x.numpy(), crop.numpy()], text, lines, outline=(*corner, self.size))


class CubeExplorer(PlaneExplorer):
    """A cube that is turned, and cut open at a plane, which is shown beside it.

    suite           the cubes, all axes of one length
    cube            the first one to show
    axis, plane     where it is cut open at first
    azimuth, tilt   from where it is seen at first [degrees]
    """

    def __init__(
        self, suite: CubeSuite, *, cube: int = 0, axis: int = 2, plane: int | None = None, azimuth: float = 35.0,
        tilt: float = 30.0,
    ):  # fmt: skip
        if suite.n_planes != suite.side:
            raise ValueError(f"found {suite.n_planes} planes of {suite.side}^2 voxels; a cube has as many of each")
        turn = control(ui.FloatSlider, "turn", value=azimuth, min=-180, max=180, step=1, readout_format=".0f")
        tilt = control(ui.FloatSlider, "tilt", value=tilt, min=0, max=90, step=1, readout_format=".0f")
        plane = suite.side // 2 if plane is None else plane
        super().__init__(suite, cube, axis, plane, azimuth=turn, tilt=tilt)

    def _frame(self, x: Tensor, scale: tuple[float, float]) -> None:
        cube = live.Panel("cube, cut open", 0, *scale, "")
        plane = live.Panel("the plane of the cut", self.suite.box_size, *scale)
        size = max(448, 2 * self.suite.side)  # two pixels a voxel where a face is seen straight
        self._mean = {"planes of the cube": self._statistics(x)}
        colours = {"planes of the cube": "0.65", "this plane": plots.COLOURS[1]}
        self._frames([cube, plane], [size, self.suite.side], colours, target=size)

    def _draw(self) -> None:
        axis, plane = self.axis.value, self.plane.value
        view = live.CubeView(self.suite.side, self.azimuth.value, self.tilt.value, axis, plane, self._panels.sides[0])
        x = log_density(self._y.select(axis, plane), EPS)
        surface = log_density(self._y[tuple(torch.from_numpy(view.voxel))], EPS)
        seen = view.draw(surface.numpy(), self._panels.panels[0])
        self._show([seen, x.numpy()], self._where(), self._mean | {"this plane": self._statistics(x)})


# --- what a run makes of cubes


def check_voxels(run: Run, suite: CubeSuite) -> None:
    """Raise ValueError when a run's slices cannot be cut from a suite, or would mean another length."""
    found, expected = suite.box_size / suite.side, run.box_size / run.side
    size = run.config.data.image_size
    if abs(found / expected - 1) > 1e-3 or suite.side < size:
        raise ValueError(
            f"found cubes of {suite.side}^3 with voxels of {found:.4g} Mpc/h; the run was trained on slices of "
            f"{size} pixels with voxels of {expected:.4g} Mpc/h; give it the suite that it knows, or one like it"
        )


class ReconstructionExplorer(Explorer):
    """Truth, reconstruction and residual of the slices of a cube, the worst first.

    run, suite   a trained model and cubes with its voxel size
    cube         the first one to show
    n_slices     of a cube; each is reconstructed given the others
    """

    def __init__(self, run: Run, suite: CubeSuite, *, cube: int = 0, n_slices: int = 9):
        check_voxels(run, suite)
        self.run, self.n_slices, self._encoded = run, n_slices, lru_cache(KEPT)(self._encode)
        rank = control(ui.IntSlider, "slice", value=1, min=1, max=n_slices)
        super().__init__(suite, cube, {"rank": (rank, self._draw)})

    def _encode(self, cube: int) -> tuple[Tensor, Tensor, Tensor]:
        """Truth and reconstructions (n, H, H) log densities, and their unexplained variances (n,)."""
        slices = spread_slices(self.run, self.suite, cube, self.n_slices, seed=cube)
        recon = reconstruct_given_others(self.run, slices)
        truth, recon = (self.run.to_log(x)[:, 0] for x in (slices, recon))
        return truth, recon, fvu(truth, recon, dim=(1, 2))

    def _open(self) -> None:
        self._truth, self._recon, self._error = self._encoded(self.cube.value)
        scale, length = self._limits(self._truth), self.run.image_box
        reach = float(np.quantile((self._recon - self._truth).abs().numpy(), 0.995))
        residual = r"$\ln\,(\rho_\mathrm{rec} / \rho_\mathrm{true})$"
        panels = [
            live.Panel("truth", length, *scale, ""),
            live.Panel("reconstruction", length, *scale),
            live.Panel("residual", length, -reach, reach, residual, plots.DIFFERENCE_MAP),
        ]
        r = live.Axis(plots.WAVENUMBER, "correlation  $r(k)$", self._k, (0, 1.02), yscale="linear", level=0.9)
        colours = {"truth": plots.TRUTH, "reconstruction": plots.COLOURS[1]}
        self._frames(panels, [self.run.config.data.image_size] * 3, colours, [r], target=256)
        self._draw()

    def _draw(self) -> None:
        number = int(self._error.argsort(descending=True)[self.rank.value - 1])
        truth, recon, error = (x[number] for x in (self._truth, self._recon, self._error))
        r = cross_correlation(truth, recon, self.run.image_box, self._window(truth))
        text = f"slice {number + 1} of {self.n_slices}, {float(error):.2f} of its variance unexplained"
        images = [x.numpy() for x in (truth, recon, recon - truth)]
        lines = {"truth": self._statistics(truth), "reconstruction": self._statistics(recon)}
        self._show(images, f"{self._cube_text()}: {text}", lines, [{"reconstruction": r}])


class LatentExplorer(Explorer):
    """A slice decoded from latents that one moves by hand, and its difference to the slice that one started from.

    z moves along the directions that change p(h | z) most (in widths of the prior of z: N(0, I), or what the flow of z
    makes of it) and, with Omega_m and sigma_8, on the curved sheet of known universes; the slice keeps its place in
    units of p(h | z)'s width. That place moves along the directions in which the decoder answers most (in these
    widths). The decoded mean is drawn at once, the completed slice when the hand rests, where the run has flows.

    run, suite     a trained model and cubes with its voxel size
    cube           the universe; its z is the mean of q(z | n_slices slices)
    seed           which draw of p(h | z) the walk starts from; and of what completes it
    n_slices       of a cube are encoded
    n_directions   sliders of z, and of h, fewer where fewer directions change anything
    sheet          from `suite_sheet`; that of the suite when absent. No slider for what the suite does not
                   label.
    sliders        by name: "Omega_m", "sigma_8", then "z0", "z1", ..., "h0", ...
    """

    _timer: asyncio.TimerHandle | None = None

    def __init__(
        self, run: Run, suite: CubeSuite, *, cube: int = 0, seed: int = 0, n_slices: int = 9, n_directions: int = 5,
        sheet: tuple[ParameterSheet, pd.DataFrame] | None = None,
    ):  # fmt: skip
        check_voxels(run, suite)
        if not 0 <= seed <= 99:
            raise ValueError(f"found seed={seed}; use 0 to 99")
        self.run, self.n_slices, self.n_directions = run, n_slices, n_directions
        self._encoded = lru_cache(KEPT)(self._encode)
        controls = {"seed": (control(ui.IntSlider, "seed", value=seed, max=99), self._anchor)}
        self.sheet, self.known = suite_sheet(run, suite, n_slices) if sheet is None else sheet
        self.labels = [name for name in self.known if name in suite.params]
        self.sliders = {
            name: control(ui.FloatSlider, NAMES[name], step=0.01, readout_format=".2f") for name in self.labels
        } | {
            f"{key}{i}": control(ui.FloatSlider, "", min=-4, max=4, step=0.1, readout_format="+.1f")
            for key in "zh"
            for i in range(n_directions)
        }
        controls |= {name: (slider, self._draw) for name, slider in self.sliders.items()}
        super().__init__(suite, cube, controls)
        self.back = ui.Button(description="back to the anchor", layout=ui.Layout(width="auto"))
        self.back.on_click(lambda _: (self._set_back(), self._draw()))
        self.box.children += (self.back,)

    def _encode(self, cube: int) -> SimpleNamespace:
        """What the model says of a cube: slices (n, 1, H, H) pixels, q(z), p(h | z) at the mean of z, and ways.

        ways   {name of a slider: (step (512,) of z, or of the place in p(h | z), for one unit of it, its name, how much
               it changes, in which unit)}
        """
        run, n = self.run, self.n_directions
        slices = spread_slices(run, self.suite, cube, self.n_slices, seed=cube)
        z = encode_cube(run, slices)
        prior = prior_of_h(run, z.mu[None])
        steps, change = prior_directions(run, z.mu, n)
        if flows_of(run):
            universes = draw_z(run, torch.randn(N_UNIVERSES, len(z.mu), generator=Generator().manual_seed(0)))
            width = (universes @ steps.T).std(dim=0)
            change, order = (change * width.square()).sort(descending=True)
            steps = (steps * width[:, None])[order]
        ways = {f"z{i}": (steps[i], f"z dir. {i + 1}", float(change[i]), "nats") for i in range(n)}
        width = (0.5 * prior.logvar[0]).exp()
        steps = decoded_directions(run, prior.mu[0], width, n)
        moved = run.to_log(decode(run, prior.mu + steps)) - run.to_log(decode(run, prior.mu))
        sizes, order = moved.square().mean(dim=(1, 2, 3)).sqrt().sort(descending=True)
        ways |= {
            f"h{i}": (steps[j] / width, f"h dir. {i + 1}", float(size), "in ln ρ")
            for i, (size, j) in enumerate(zip(sizes, order.tolist(), strict=True))
        }
        return SimpleNamespace(slices=slices, z=z, prior=prior, ways=ways)

    def _open(self) -> None:
        self._now = self._encoded(self.cube.value)
        for name, (_, text, size, unit) in self._now.ways.items():
            self.sliders[name].description = f"{text}: {size:.2g} {unit}"
            self.sliders[name].layout.display = "flex" if size > ACTIVE else "none"
        known, row = self.known, self.suite.params.iloc[self.cube.value]
        self._home = {name: round(float(row[name]), 2) if name in row else known[name].mean() for name in known}
        with self._silence():
            for name in self.labels:
                slider, here = self.sliders[name], self._home[name]
                slider.max = max(round(known[name].max(), 2), here)
                slider.min = min(round(known[name].min(), 2), here)
        x = self.run.to_log(self._now.slices)[:, 0]
        scale, length = self._limits(x), self.run.image_box
        self._mean = {"slices of the cube": self._statistics(x)}
        difference = r"$\ln\,(\rho / \rho_\mathrm{anchor})$"
        panels = [
            live.Panel("slice" if flows_of(self.run) else "decoded slice", length, *scale),
            live.Panel("difference to the anchor", length, -REACH, REACH, difference, plots.DIFFERENCE_MAP),
        ]
        ticks = (0.2, 0.5, 1.0, 2.0, 5.0)
        ratio = live.Axis(plots.WAVENUMBER, r"$P(k)$ / anchor", self._k, (0.2, 5), ticks=ticks, level=1.0)
        colours = {"slices of the cube": "0.65", "anchor": plots.TRUTH, "now": plots.COLOURS[1]}
        self._frames(panels, [self.run.config.data.image_size] * 2, colours, [ratio])
        self._set_back()
        self._anchor()

    def _set_back(self) -> None:
        """All sliders to the anchor."""
        with self._silence():
            for name, slider in self.sliders.items():
                slider.value = self._home.get(name, 0.0)

    def _anchor(self) -> None:
        """Where the walk starts: a place (1, 512) in p(h | z) and its decoded mean (1, 1, H, H); then draw."""
        z, prior = self._now.z.mu, self._now.prior
        white = torch.randn(1, len(z), generator=Generator().manual_seed(self.seed.value))
        self._place = (draw_h(self.run, z, white) - prior.mu) / (0.5 * prior.logvar).exp()
        self._from, self._completed = decode_universe(self.run, z, self._place), None
        self._draw()

    def _move(self, latent: str) -> Tensor:
        """How far z, or the place in p(h | z), was moved along its directions: (512,)."""
        ways = self._now.ways.items()
        steps = [self.sliders[name].value * way for name, (way, *_) in ways if name.startswith(latent)]
        return torch.stack(steps).sum(dim=0)

    def _draw(self) -> None:
        """The decoded mean now, the completed slice soon."""
        self._z, place = self._now.z.mu + self._move("z"), self._place + self._move("h")
        asked = self._home | {name: self.sliders[name].value for name in self.labels}
        if asked != self._home:
            here, there = self.sheet(np.array([[at[name] for name in self.known] for at in (self._home, asked)]))
            self._z = self._z + there - here
        self._to = decode_universe(self.run, self._z, place)
        self._show_slices(self._from, self._to, "decoded mean")
        if flows_of(self.run):
            self._settle_soon()

    def _settle_soon(self) -> None:
        """Call `settle` after a rest, where an event loop runs, as it does in a kernel."""
        self._wake()
        try:
            self._timer = asyncio.get_running_loop().call_later(REST, self.settle)
        except RuntimeError:  # no loop: whoever drives the explorer calls `settle`
            self._timer = None

    def _wake(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def close(self) -> None:
        """Close the explorer with all that belongs to it."""
        self._wake()
        super().close()

    def settle(self) -> None:
        """Draw the completed slice."""
        if flows_of(self.run):
            if self._completed is None:
                self._completed = self._complete(self._from, self._now.z.mu)
            self._show_slices(self._completed, self._complete(self._to, self._z), "completed slice")

    def _complete(self, mean: Tensor, z: Tensor) -> Tensor:
        """The same noise at every place, so that what moves is what was moved."""
        white = torch.randn(mean.shape, generator=Generator().manual_seed(self.seed.value))
        return complete_means(self.run, mean, z, white)

    def _show_slices(self, anchor: Tensor, now: Tensor, what: str) -> None:
        """Both panels and the curves of slices (1, 1, H, H)."""
        anchor, x = (self.run.to_log(pixels)[0, 0] for pixels in (anchor, now))
        before, after = self._statistics(anchor), self._statistics(x)
        text = f"{self._cube_text()}, draw {self.seed.value}, {what}: {self._moves() or 'at the anchor'}"
        ratio = {"now": (after[0][0], after[0][1] / before[0][1])}
        lines = self._mean | {"anchor": before, "now": after}
        self._show([x.numpy(), (x - anchor).numpy()], text, lines, [ratio])

    def _moves(self) -> str:
        """What was moved, as text."""
        moved = {name: slider.value for name, slider in self.sliders.items() if slider.value != self._home.get(name, 0)}
        return ", ".join(
            f"{NAMES[name]} → {value:.2f}" if name in self.labels else f"{self._now.ways[name][1]} {value:+.1f} σ"
            for name, value in moved.items()
        )
