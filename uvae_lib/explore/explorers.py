"""Explorers: sliders that turn a cube, a latent or a reconstruction, for JupyterLab and voila.

    CubeExplorer(suite)            a cube that is turned, and cut open at a plane
    SliceExplorer(suite)           any periodic slice of any cube
    ReconstructionExplorer(run)    what the model makes of the slices of a cube
    LatentExplorer(run)            z and h moved by hand (`latents`)
    Quiz(run), CubeReader(run, posterior, suite)    drawn or simulated? which cosmology? (`reading`)

A moved slider puts a new picture into the same `ipywidgets.Image`. Where no kernel runs a still is shown, or a
page whose sliders move.
"""

import base64
import os
from collections.abc import Mapping, Sequence

import ipywidgets as ui
import numpy as np
import torch
from torch import Tensor

from .. import plots
from ..cropping import EPS, log_density, periodic_crop
from ..cubes.suite import CubeSuite
from ..runs.encode import reconstruct_given_others
from ..runs.run import Run
from ..runs.universes import Universes, universes_of
from ..statistics import cross_correlation, fvu, pixel_pdf, power_spectrum
from . import pages
from . import pictures as live

AXES, NAMES = "xyz", {"Omega_m": "Ωₘ", "sigma_8": "σ₈"}
POWER = r"$P(k)$ of $\ln\rho$  [(Mpc/$h$)$^2$]"


class Shown(ui.VBox):
    """What all widgets here are where no kernel runs: a text, `readout`, and a PNG, `drawn()`.

    FILM   the main sliders: a still says where they stand, and they move on a page without a kernel (`pages.moving`),
           which is made where UVAE_PAGES is set, as notebooks/run.py --html does
    """

    FILM: tuple[str, ...] = ()

    def drawn(self) -> bytes:
        """What is shown now, as PNG."""
        return self.picture.value

    def _repr_mimebundle_(self, **options) -> dict:
        """The live widget, and for a reader without a kernel what it shows now."""
        still = base64.b64encode(pages.still(self)).decode()
        text = f"{type(self).__name__}: {self.readout.value}"
        page = {"text/html": pages.moving(self)} if self.FILM and os.environ.get("UVAE_PAGES") else {}
        return super()._repr_mimebundle_(**options) | {"image/png": still, "text/plain": text} | page


class Explorer(Shown):
    """Controls, a picture and a line of text.

    source     the cubes: a suite, or the universes of a run
    cube       the first one to show: a slider, read when its handle rests
    controls   {name: a control that is drawn for when it is moved}; each becomes an attribute
    box        what stands below the slider of cubes; the controls when absent
    picture    slices, P(k) and distributions;  readout  what is shown, as text

    A subclass has `_draw`, which draws (`_show`), and `_open`, called at first and for another cube: it reads the cube,
    fixes colours and limits (`_limits`, `_frame`), and draws.
    Raises IndexError for a cube that is not there, and, of a subclass, ValueError for a setting that is impossible.
    """

    def __init__(self, source: CubeSuite | Universes, cube: int, controls: Mapping[str, ui.Widget], box: Sequence = ()):
        if not 0 <= cube < source.n_cubes:
            raise IndexError(f"found cube number {cube}; expected 0 to {source.n_cubes - 1}")
        last, alone = max(source.n_cubes - 1, 1), source.n_cubes == 1
        self.source, self._quiet, self._pixel = source, False, source.box_size / source.side  # of a voxel [Mpc/h]
        self.cube = control(ui.IntSlider, "cube", value=cube, max=last, continuous_update=False, disabled=alone)
        self.picture = ui.Image(format="png", layout=ui.Layout(max_width="100%")).add_class("uvae-picture")
        self.readout, self.controls = ui.HTML(), controls | {"cube": self.cube}
        narrow = ui.Layout(flex="1 1 270px", min_width="270px", max_width="330px")
        wide = ui.Layout(flex="1 1 640px", min_width="0", align_items="flex-start")
        left = ui.VBox([self.cube, *(box or controls.values())], layout=narrow)
        right = ui.VBox([self.picture], layout=wide)
        row = ui.Box([left, right], layout=ui.Layout(flex_flow="row wrap", align_items="flex-start", width="100%"))
        super().__init__([self.readout, row])
        for name, widget in self.controls.items():
            setattr(self, name, widget.add_class(f"uvae-{name}"))
        self._open()
        # A call ends before the kernel is idle again, and until then the page sends no further move of that control but
        # keeps the last: a mouse that moves faster than pictures are drawn skips some, and none is drawn too late.
        for widget in controls.values():
            widget.observe(lambda _: self._quiet or self._draw(), names="value")
        self.cube.observe(lambda _: self._open(), names="value")
        self.add_class("uvae-explorer")

    def _limits(self, x: Tensor) -> tuple[float, float]:
        """Fix the bins of distributions and the limits of curves by slices x (n, H, W); returns those of colours."""
        self._edges = torch.linspace(float(x.min()) - 1, float(x.max()) + 1, 61)
        k, power = self._statistics(x)[0]
        self._k = float(k[0]), float(k[-1])
        power_axis = live.Axis(plots.WAVENUMBER, POWER, self._k, (float(power.min()) / 30, float(power.max()) * 5))
        ends = tuple(self._edges[[0, -1]].tolist())
        self._ends = power_axis, live.Axis(plots.LOG_DENSITY, "probability density", ends, (3e-4, 3))
        return tuple(np.quantile(x.numpy(), (0.005, 0.998)).tolist())

    def _frame(self, panels: Sequence, sizes: Sequence, colours: Mapping, middle=(), target: int = 384) -> live.Board:
        """What stays: panels for images of some sizes, and curves between the axes of `_limits`."""
        return live.Board(panels, sizes, [self._ends[0], *middle, self._ends[1]], colours, target)

    def _show(self, images: Sequence[np.ndarray], text: str, lines: Mapping[str, tuple], middle=()) -> None:
        """Put images, a text and curves on the page: lines {name: `_statistics`}, and those of the panels between."""
        power, pdf = ({name: pair[i] for name, pair in lines.items()} for i in (0, 1))
        self.picture.value = self._board.draw(images, [power, *middle, pdf])
        self.readout.value = text

    def _statistics(self, x: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """P(k) and distribution of slices (n, H, W) or of one, each as (x, y) of a curve; means over slices."""
        x = x if x.ndim == 3 else x[None]
        window = None if x.shape[-1] == self.source.side else "hann"  # a crop is not periodic
        k, power = power_spectrum(x, self._pixel * x.shape[-1], window)
        centres, pdf = (self._edges[1:] + self._edges[:-1]) / 2, pixel_pdf(x, self._edges).mean(dim=0)
        return (k, power.mean(dim=0)), (centres, pdf / (pdf > 0))  # no line through empty bins

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
    more          further controls
    A subclass has `_make(x, scale)`, with what stays while planes of a cube are shown, of which x (n, N, N) are some
    and scale the ends of colours, and `_draw`.
    """

    def __init__(self, suite: CubeSuite, cube: int, axis: int, plane: int, **more: ui.Widget):
        options = [(AXES[a], a) for a in suite.axes]
        where = {
            "axis": control(ui.SelectionSlider, "axis", value=axis, options=options),
            "plane": control(ui.IntSlider, "plane", value=plane, max=suite.n_planes - 1),
        }
        super().__init__(suite, cube, where | more)

    def _open(self) -> None:
        self._y = torch.from_numpy(self.source.overdensity(self.cube.value))
        x = log_density(self._y[:: max(1, self.source.n_planes // 16)], EPS)
        self._board = self._make(x, self._limits(x))
        self._draw()

    def _plane(self) -> tuple[Tensor, str]:
        """The log density of the plane, and its cube, axis and place as text."""
        axis, start = self.axis.value, self._pixel * self.plane.value
        place = f"{AXES[axis]} = {start:.1f} to {start + self._pixel:.1f} Mpc/h"
        text = f"{self._cube_text()}: {place}, rows and columns along {' and '.join(AXES.replace(AXES[axis], ''))}"
        return log_density(self._y.select(axis, self.plane.value), EPS), text


class SliceExplorer(PlaneExplorer):
    """A periodic slice of a cube beside the plane that it is cut from.

    suite    the cubes
    cube     the first one to show
    corner   (row, col) of the crop's first voxel, taken modulo the side; half as long as the cube, one sees it wrap
    """

    FILM = ("plane", "col")

    def __init__(self, suite: CubeSuite, *, cube: int = 0, corner: tuple[int, int] = (0, 0)):
        self.size = suite.side // 2
        row, col = (
            control(ui.IntSlider, f"corner, {name}", value=start % suite.side, max=suite.side - 1)
            for name, start in zip(("row", "column"), corner, strict=True)
        )
        super().__init__(suite, cube, suite.axes[0], 0, row=row, col=col)

    def _make(self, x: Tensor, scale: tuple[float, float]) -> live.Board:
        plane = live.Panel("periodic plane", self.source.box_size, *scale, "")
        crop = live.Panel("crop", self._pixel * self.size, *scale)
        colours = {"plane": plots.BASELINE, "crop": plots.TRUTH}
        return self._frame([plane, crop], [self.source.side, self.size], colours)

    def _draw(self) -> None:
        (x, text), corner = self._plane(), (self.row.value, self.col.value)
        crop = periodic_crop(x, corner, self.size)
        row, col = (self._pixel * place for place in corner)
        lines = {"plane": self._statistics(x), "crop": self._statistics(crop)}
        text = f"{text}; corner at row {row:.1f}, column {col:.1f} Mpc/h"
        plane = live.outlined(live.colours_of(x.numpy(), self._board.panels[0]), *corner, self.size)
        self._show([plane, crop.numpy()], text, lines)


class CubeExplorer(PlaneExplorer):
    """A cube that is turned, and cut open at a plane, which is shown beside it.

    suite   the cubes, all axes of one length
    cube    the first one to show
    """

    FILM = ("azimuth", "plane")

    def __init__(self, suite: CubeSuite, *, cube: int = 0):
        if suite.n_planes != suite.side:
            raise ValueError(f"found {suite.n_planes} planes of {suite.side}^2 voxels; a cube has as many of each")
        turn = control(ui.FloatSlider, "turn", value=35, min=-180, max=180, step=1, readout_format=".0f")
        tilt = control(ui.FloatSlider, "tilt", value=30, min=0, max=90, step=1, readout_format=".0f")
        super().__init__(suite, cube, suite.axes[-1], suite.side // 2, azimuth=turn, tilt=tilt)

    def _make(self, x: Tensor, scale: tuple[float, float]) -> live.Board:
        cube = live.Panel("cube, cut open", 0, *scale, "")
        plane = live.Panel("the plane of the cut", self.source.box_size, *scale)
        size = max(448, 2 * self.source.side)  # two pixels a voxel where a face is seen straight
        self._mean = {"planes of the cube": self._statistics(x)}
        colours = {"planes of the cube": plots.BASELINE, "this plane": plots.TRUTH}
        return self._frame([cube, plane], [size, self.source.side], colours, target=size)

    def _draw(self) -> None:
        (x, text), where = self._plane(), (self.axis.value, self.plane.value)
        view = live.CubeView(self.source.side, self.azimuth.value, self.tilt.value, *where, self._board.sides[0])
        surface = log_density(self._y[tuple(torch.from_numpy(view.voxel))], EPS)
        seen = view.draw(surface.numpy(), self._board.panels[0])
        self._show([seen, x.numpy()], text, self._mean | {"this plane": self._statistics(x)})


# --- what a run makes of slices


class ReconstructionExplorer(Explorer):
    """Truth, reconstruction and residual of the slices of a cube, the worst first.

    run     a trained model
    suite   cubes with its voxel size; see `universes_of` for what is shown without
    cube    the first one to show; each of its slices is reconstructed given the others
    """

    FILM = ("rank",)

    def __init__(self, run: Run, suite: CubeSuite | None = None, *, cube: int = 0):
        self.run, source = run, universes_of(run, suite)
        rank = control(ui.IntSlider, "slice", value=1, min=1, max=source.slices.shape[1])
        super().__init__(source, cube, {"rank": rank})

    def _open(self) -> None:
        slices = self.source.slices[self.cube.value]
        pair = slices, reconstruct_given_others(self.run, slices)
        self._truth, self._recon = (self.run.to_log(x)[:, 0] for x in pair)
        self._error = fvu(self._truth, self._recon, dim=(1, 2))
        scale, length = self._limits(self._truth), self.run.image_box
        reach = float(np.quantile((self._recon - self._truth).abs().numpy(), 0.995))
        residual = r"$\ln\,(\rho_\mathrm{rec} / \rho_\mathrm{sim})$"
        panels = [
            live.Panel("simulated", length, *scale, ""),
            live.Panel("reconstruction", length, *scale),
            live.Panel("difference", length, -reach, reach, residual, plots.DIFFERENCE_MAP),
        ]
        r = live.Axis(plots.WAVENUMBER, "correlation  $r(k)$", self._k, (0, 1.02), yscale="linear", level=0.9)
        colours = {"simulated": plots.TRUTH, "reconstruction": plots.MODEL}
        self._board = self._frame(panels, [self.run.config.data.image_size] * 3, colours, [r], target=256)
        self._draw()

    def _draw(self) -> None:
        number = int(self._error.argsort(descending=True)[self.rank.value - 1])
        truth, recon, error = (x[number] for x in (self._truth, self._recon, self._error))
        r = cross_correlation(truth, recon, self.run.image_box, None if self.run.periodic else "hann")
        text = f"slice {self.rank.value} of {len(self._error)}, worst first: {error:.2f} of its variance unexplained"
        images = [x.numpy() for x in (truth, recon, recon - truth)]
        lines = {"simulated": self._statistics(truth), "reconstruction": self._statistics(recon)}
        self._show(images, f"{self._cube_text()}: {text}", lines, [{"reconstruction": r}])
