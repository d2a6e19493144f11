"""Explorers: sliders that turn a cube, a latent or a reconstruction, for JupyterLab and voila.

    CubeExplorer(suite)            a cube that is turned, and cut open at a plane
    SliceExplorer(suite)           any periodic slice of any cube
    ReconstructionExplorer(run)    what the model makes of the slices of a cube
    LatentExplorer(run)            z and h moved by hand (`latents`)
    Quiz(run), CubeReader(run, posterior, suite)    drawn or simulated? which cosmology? (`reading`)

A moved slider puts a new picture into the same `ipywidgets.Image`. Where no kernel runs a still with the controls is
shown, or a page whose sliders move.
"""

import base64
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache

import ipywidgets as ui
import numpy as np
import torch
from torch import Tensor

from ..cropping import EPS, log_density, periodic_crop
from ..cubes.suite import CubeSuite
from ..plots import curves as plots
from ..runs.encode import reconstruct_given_others
from ..runs.run import Run
from ..runs.universes import Universes, universes_of
from ..statistics import cross_correlation, fvu, pixel_pdf, power_spectrum
from . import pages
from . import pictures as live

AXES, NAMES = "xyz", {"Omega_m": "Ωₘ", "sigma_8": "σ₈"}
POWER = r"$P(k)$ of $\ln\rho$  [(Mpc/$h$)$^2$]"


class Shown(ui.VBox):
    """What all widgets here are where no kernel runs: controls `box`, text `readout`, and a PNG, `drawn()`.

    FILM   controls that move on a page without a kernel (`pages.moving`): made where UVAE_PAGES is set, as
           notebooks/run.py --html does
    """

    FILM: tuple[str, ...] = ()

    def open_tab(self, name: str) -> None:
        """Show a control, where controls stand in tabs."""

    def drawn(self) -> bytes:
        """What is shown now, as PNG."""
        return self.picture.value

    def _repr_mimebundle_(self, **options) -> dict:
        """The live widget, and for a reader without a kernel the controls and pictures as they are now."""
        still = base64.b64encode(pages.still(self.box, self.readout.value, self.drawn())).decode()
        text = f"{type(self).__name__}: {self.readout.value}"
        page = {"text/html": pages.moving(self)} if self.FILM and os.environ.get("UVAE_PAGES") else {}
        return super()._repr_mimebundle_(**options) | {"image/png": still, "text/plain": text} | page


class Explorer(Shown):
    """Controls, a picture and a line of text.

    source     the cubes: a suite, or the universes of a run
    cube       the first one to show: a slider, read when its handle rests
    controls   {name: (a control, the method to call when it is moved)}; each becomes an attribute
    box        where the controls stand, a column of them when absent
    picture    slices, P(k) and distributions;  readout  what is shown, as text

    A subclass has `_open`, called at first and for another cube: it reads the cube, fixes colours and limits
    (`_limits`, `_frame`), and draws (`_show`).
    Raises IndexError for a cube that is not there, and, of a subclass, ValueError for a setting that is impossible.
    """

    def __init__(
        self, source: CubeSuite | Universes, cube: int, controls: Mapping[str, tuple[ui.Widget, Callable]],
        box: Sequence[ui.Widget] | None = None,
    ):  # fmt: skip
        if not 0 <= cube < source.n_cubes:
            raise IndexError(f"found cube number {cube}; expected 0 to {source.n_cubes - 1}")
        last, alone = max(source.n_cubes - 1, 1), source.n_cubes == 1
        self.source = source
        self.cube = control(ui.IntSlider, "cube", value=cube, max=last, continuous_update=False, disabled=alone)
        self.controls = {name: widget for name, (widget, _) in controls.items()} | {"cube": self.cube}
        for name, widget in self.controls.items():
            setattr(self, name, widget)
        self.picture = ui.Image(format="png", layout=ui.Layout(max_width="100%"))
        self.readout = ui.HTML()
        narrow = ui.Layout(flex="1 1 270px", min_width="270px", max_width="330px")
        wide = ui.Layout(flex="1 1 640px", min_width="0", align_items="flex-start")
        self.box = ui.VBox([self.cube, *(box or [widget for widget, _ in controls.values()])], layout=narrow)
        right = ui.VBox([self.picture], layout=wide)
        row = ui.Box([self.box, right], layout=ui.Layout(flex_flow="row wrap", align_items="flex-start", width="100%"))
        super().__init__([self.readout, row])
        self._quiet = False
        self._open()
        # A call ends before the kernel is idle again, and until then the page sends no further move of that control but
        # keeps the last: a mouse that moves faster than pictures are drawn skips some, and none is drawn too late.
        for widget, call in (*controls.values(), (self.cube, self._open)):
            widget.observe(lambda change, call=call: self._quiet or call(), names="value")
        named = self.controls | {"explorer": self, "picture": self.picture}
        for name, widget in named.items():
            widget.add_class(f"uvae-{name}")

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
        return self.source.box_size / self.source.side

    def _limits(self, x: Tensor) -> tuple[float, float]:
        """Fix the bins of distributions and the limits of curves by slices x (n, H, W); returns those of colours."""
        self._edges = torch.linspace(float(x.min()) - 1, float(x.max()) + 1, 61)
        k, power = self._statistics(x)[0]
        self._k = float(k[0]), float(k[-1])
        room, ends = (float(power.min()) / 30, float(power.max()) * 5), tuple(self._edges[[0, -1]].tolist())
        self._ends = (
            live.Axis(plots.WAVENUMBER, POWER, self._k, room),
            live.Axis(plots.LOG_DENSITY, "probability density", ends, (3e-4, 3)),
        )
        return tuple(np.quantile(x.numpy(), (0.005, 0.998)).tolist())

    def _frame(self, panels: Sequence[live.Panel], sizes: Sequence[int], colours: Mapping[str, str], middle=(),
               target: int = 384) -> live.Board:  # fmt: skip
        """What stays: panels for images of some sizes, and curves between the axes of `_limits`."""
        return live.Board(panels, sizes, [self._ends[0], *middle, self._ends[1]], colours, target)

    def _show(
        self, images: Sequence[np.ndarray], text: str, lines: Mapping[str, tuple], middle=(), outline=None
    ) -> None:
        """Put images, a text and curves on the page: lines {name: `_statistics`}, and those of the panels between."""
        power, pdf = ({name: pair[i] for name, pair in lines.items()} for i in (0, 1))
        self.picture.value = self._board.draw(images, [power, *middle, pdf], outline)
        self.readout.value = text

    def _statistics(self, x: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """P(k) and distribution of slices (n, H, W) or of one, each as (x, y) of a curve; means over slices."""
        x = x if x.ndim == 3 else x[None]
        window = None if x.shape[-1] == self.source.side else "hann"  # a crop is not periodic
        k, power = power_spectrum(x, self._pixel * x.shape[-1], window)
        centres = (self._edges[1:] + self._edges[:-1]) / 2
        return (k, power.mean(dim=0)), (centres, pixel_pdf(x, self._edges).mean(dim=0))

    def _cube_text(self) -> str:
        """Number and cosmology of the cube."""
        cube, params = self.cube.value, self.source.params
        known = [f"{text} = {params[name].iloc[cube]:.2f}" for name, text in NAMES.items() if name in params]
        return f"cube {cube}" + (f" ({', '.join(known)})" if known else "")


def control(kind: type[ui.Widget], text: str, **options) -> ui.Widget:
    """A control with a label left of it, and all the width there is."""
    return kind(description=text, style={"description_width": "112px"}, layout=ui.Layout(width="98%"), **options)


# --- cubes alone


class PlaneExplorer(Explorer):
    """An explorer of planes of a cube: which cube, along which axis, which plane.

    axis, plane   of the plane to show first
    more          further controls, all of them calling `_draw`
    A subclass has `_make(x, scale)`, with what stays while planes of a cube are shown, of which x (n, N, N) are some
    and scale the ends of colours, and `_draw`.
    """

    def __init__(self, suite: CubeSuite, cube: int, axis: int, plane: int, **more: ui.Widget):
        if axis not in suite.axes:
            raise ValueError(f"found axis={axis}; expected one of {', '.join(map(str, suite.axes))}")
        axes = control(ui.SelectionSlider, "axis", value=axis, options=[(AXES[a], a) for a in suite.axes])
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
        self._y = torch.from_numpy(self.source.overdensity(self.cube.value))
        x = log_density(self._y[:: max(1, self.source.n_planes // 16)], EPS)
        self._board = self._make(x, self._limits(x))
        self._draw()

    def _turn(self) -> None:
        """Another axis: it may have fewer planes."""
        with self._silence():
            self.plane.max = self._depth(self.source, self.axis.value) - 1
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

    FILM = ("plane", "col")

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

    def _make(self, x: Tensor, scale: tuple[float, float]) -> live.Board:
        plane = live.Panel("periodic plane", self.source.box_size, *scale, "")
        crop = live.Panel("crop", self._pixel * self.size, *scale)
        return self._frame(
            [plane, crop], [self.source.side, self.size], {"plane": plots.TRUTH, "crop": plots.COLOURS[0]}
        )

    def _draw(self) -> None:
        axis, corner, thickness = self.axis.value, (self.row.value, self.col.value), self.thickness.value
        layers = torch.arange(self.plane.value, self.plane.value + thickness) % self._depth(self.source, axis)
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

    FILM = ("azimuth", "plane")

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

    def _make(self, x: Tensor, scale: tuple[float, float]) -> live.Board:
        cube = live.Panel("cube, cut open", 0, *scale, "")
        plane = live.Panel("the plane of the cut", self.source.box_size, *scale)
        size = max(448, 2 * self.source.side)  # two pixels a voxel where a face is seen straight
        self._mean = {"planes of the cube": self._statistics(x)}
        colours = {"planes of the cube": "0.65", "this plane": plots.COLOURS[0]}
        return self._frame([cube, plane], [size, self.source.side], colours, target=size)

    def _draw(self) -> None:
        axis, plane = self.axis.value, self.plane.value
        view = live.CubeView(self.source.side, self.azimuth.value, self.tilt.value, axis, plane, self._board.sides[0])
        x = log_density(self._y.select(axis, plane), EPS)
        surface = log_density(self._y[tuple(torch.from_numpy(view.voxel))], EPS)
        seen = view.draw(surface.numpy(), self._board.panels[0])
        self._show([seen, x.numpy()], self._where(), self._mean | {"this plane": self._statistics(x)})


# --- what a run makes of slices


class ReconstructionExplorer(Explorer):
    """Truth, reconstruction and residual of the slices of a cube, the worst first.

    run     a trained model
    suite   cubes with its voxel size; see `universes_of` for what is shown without
    cube    the first one to show; each of its slices is reconstructed given the others
    """

    FILM = ("rank",)

    def __init__(self, run: Run, suite: CubeSuite | None = None, *, cube: int = 0):
        self.run, self._encoded = run, lru_cache(8)(self._encode)
        source = universes_of(run, suite)
        rank = control(ui.IntSlider, "slice", value=1, min=1, max=source.slices.shape[1])
        super().__init__(source, cube, {"rank": (rank, self._draw)})

    def _encode(self, cube: int) -> tuple[Tensor, Tensor, Tensor]:
        """Truth and reconstructions (n, H, H) log densities, and their unexplained variances (n,)."""
        slices = self.source.slices[cube]
        truth, recon = (self.run.to_log(x)[:, 0] for x in (slices, reconstruct_given_others(self.run, slices)))
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
        colours = {"truth": plots.TRUTH, "reconstruction": plots.COLOURS[0]}
        self._board = self._frame(panels, [self.run.config.data.image_size] * 3, colours, [r], target=256)
        self._draw()

    def _draw(self) -> None:
        number = int(self._error.argsort(descending=True)[self.rank.value - 1])
        truth, recon, error = (x[number] for x in (self._truth, self._recon, self._error))
        r = cross_correlation(truth, recon, self.run.image_box, None if self.run.periodic else "hann")
        text = f"slice {number + 1} of {len(self._error)}, {float(error):.2f} of its variance unexplained"
        images = [x.numpy() for x in (truth, recon, recon - truth)]
        lines = {"truth": self._statistics(truth), "reconstruction": self._statistics(recon)}
        self._show(images, f"{self._cube_text()}: {text}", lines, [{"reconstruction": r}])
