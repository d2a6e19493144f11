"""Explorers of cubes alone: a cube that is turned and cut open, and periodic slices of it."""

import numpy as np
import torch
from ipywidgets import FloatLogSlider, SelectionSlider
from torch import Tensor

from .. import live, plots
from ..cropping import EPS, log_density, periodic_crop
from ..cubes import CubeSuite
from ..statistics import power_spectrum
from .explorer import Explorer, Histogram, cube_text, cubes, described, one_of, power_axis, quantiles, real, whole

AXES = "xyz"


class PlaneExplorer(Explorer):
    """An explorer of planes of a cube: which cube, along which axis, which plane.

    suite         the cubes
    cube          the first one to show
    axis, plane   of the plane to show first
    more          further controls by name
    Raises IndexError for a cube that is not there, ValueError for another setting that is impossible.
    """

    def __init__(self, suite: CubeSuite, cube: int, axis: int, plane: int, **more):
        one_of("axis", axis, suite.axes)
        self.suite, self.cube = suite, cubes(suite, cube)
        self.axis = SelectionSlider(options=[(AXES[a], a) for a in suite.axes], value=axis, **described("axis"))
        self.plane = whole("plane", plane % self._depth, self._depth - 1)
        for name, control in more.items():
            setattr(self, name, control)
        super().__init__([self.cube, self.axis, self.plane, *more.values()])
        self._watch(cube=self._open, axis=self._turn, **dict.fromkeys(("plane", *more), self._draw))
        self._open()
        self._quiet = False

    @property
    def _depth(self) -> int:
        """Planes along the chosen axis."""
        return self.suite.n_planes if self.axis.value == 0 else self.suite.side

    @property
    def _pixel(self) -> float:
        """Side of a voxel [Mpc/h]."""
        return self.suite.box_size / self.suite.side

    def _open(self) -> None:
        """Read the cube, fix its colours and limits, and draw."""
        self._y = torch.from_numpy(self.suite.overdensity(self.cube.value))
        x = log_density(self._y[:: max(1, self.suite.n_planes // 16)], EPS)
        self._scale, self._pixels = quantiles(x, 0.005, 0.998), Histogram(x)
        self._frame(x)
        self._draw()

    def _frame(self, x: Tensor) -> None:
        """What stays while planes of the cube are shown: `_panels` and `_curves`; x (n, N, N) are some of them."""
        raise NotImplementedError

    def _draw(self) -> None:
        raise NotImplementedError

    def _turn(self) -> None:
        """Another axis: it may have fewer planes."""
        with self._silence():
            self.plane.max = self._depth - 1
        self._draw()

    def _where(self, thickness: int = 1) -> str:
        """Cube, axis and place of the plane, as text."""
        start, stop = (self._pixel * (self.plane.value + n) for n in (0, thickness))
        return f"{cube_text(self.suite, self.cube.value)}: {AXES[self.axis.value]} = {start:.1f} to {stop:.1f} Mpc/h"


class SliceExplorer(PlaneExplorer):
    """A periodic slice of a cube beside the plane that it is cut from.

    suite         the cubes
    cube          the first one to show
    size          side of the crop [voxels]; half of the cube's side when absent, so that one sees it wrap
    axis, plane   of the plane to show first
    corner        (row, col) of the crop's first voxel, taken modulo the side
    thickness     of the slice [voxels]
    eps           of x = log(y + eps)
    Raises IndexError for a cube that is not there, ValueError for another setting that is impossible.
    """

    def __init__(
        self, suite: CubeSuite, *, cube: int = 0, size: int | None = None, axis: int = 0, plane: int = 0,
        corner: tuple[int, int] = (0, 0), thickness: int = 1, eps: float = EPS,
    ):  # fmt: skip
        self.size = size or max(1, suite.side // 2)
        if not 1 <= self.size <= suite.side:
            raise ValueError(f"a {size}-voxel crop does not fit a cube of {suite.side}; use size <= {suite.side}")
        thickest = min(32, *(suite.n_planes if a == 0 else suite.side for a in suite.axes))
        if not 1 <= thickness <= thickest:
            raise ValueError(f"found thickness={thickness}; use 1 to {thickest} voxels")
        row, col = (
            whole(f"corner, {name}", start % suite.side, suite.side - 1)
            for name, start in zip(("row", "col"), corner, strict=True)
        )
        log_eps = FloatLogSlider(value=eps, min=-8, max=0, step=0.5, readout_format=".1e", **described("ε"))
        thick = whole("thickness", thickness, thickest, least=1)
        super().__init__(suite, cube, axis, plane, row=row, col=col, thickness=thick, eps=log_eps)

    def _frame(self, x: Tensor) -> None:
        suite, length = self.suite, self._pixel * self.size
        panels = [
            live.Panel("periodic plane", suite.box_size, *self._scale, ""),
            live.Panel("crop", length, *self._scale),
        ]
        self._panels = live.ImagePanels(panels, [suite.side, self.size])
        axes = [power_axis(*power_spectrum(x[0], suite.box_size), 2 * np.pi / length), self._pixels.axis]
        self._curves = live.Curves(axes, {"plane": plots.TRUTH, "crop": plots.COLOURS[1]}, self._panels.width)

    def _draw(self) -> None:
        axis, corner, pixel = self.axis.value, (self.row.value, self.col.value), self._pixel
        layers = torch.arange(self.plane.value, self.plane.value + self.thickness.value) % self._depth
        x = log_density(self._y.index_select(axis, layers).mean(dim=axis), self.eps.value)
        crop = periodic_crop(x, corner, self.size)
        self.picture.value = self._panels.draw([x.numpy(), crop.numpy()], (*corner, self.size))
        self.readout.value = (
            f"{self._where(self.thickness.value)}, corner at ({corner[0] * pixel:.1f}, {corner[1] * pixel:.1f}) "
            f"Mpc/h, ε = {self.eps.value:.1e}"
        )
        spectra = {"plane": power_spectrum(x, self.suite.box_size)}
        if self.size >= 4:
            window = None if self.size == self.suite.side else "hann"
            spectra["crop"] = power_spectrum(crop, pixel * self.size, window)
        self.curves.value = self._curves.draw([spectra, {"plane": self._pixels(x), "crop": self._pixels(crop)}])


class CubeExplorer(PlaneExplorer):
    """A cube that is turned, and cut open at a plane, which is shown beside it.

    suite           the cubes, all axes of one length
    cube            the first one to show
    axis, plane     where it is cut open at first
    azimuth, tilt   from where it is seen at first [degrees]
    Raises IndexError for a cube that is not there, ValueError for another setting that is impossible.
    """

    def __init__(
        self, suite: CubeSuite, *, cube: int = 0, axis: int = 2, plane: int | None = None, azimuth: float = 35.0,
        tilt: float = 30.0,
    ):  # fmt: skip
        if suite.n_planes != suite.side:
            raise ValueError(f"found {suite.n_planes} planes of {suite.side}^2 voxels; a cube has as many of each")
        turns = {
            "azimuth": real("turn", azimuth, -180, 180, 1, ".0f"),
            "tilt": real("tilt", tilt, 0, 90, 1, ".0f"),
        }
        super().__init__(suite, cube, axis, suite.side // 2 if plane is None else plane, **turns)

    def _frame(self, x: Tensor) -> None:
        box, scale, side = self.suite.box_size, self._scale, self.suite.side
        panels = [live.Panel("cube, cut open", 0, *scale, ""), live.Panel("the plane of the cut", box, *scale)]
        size = max(448, 2 * side)  # two pixels a voxel where a face is seen straight
        self._panels = live.ImagePanels(panels, [size, side], target=size)
        k, power = power_spectrum(x, box)
        self._mean = (k, power.mean(dim=0)), self._pixels(x)
        colours = {"planes of the cube": "0.65", "this plane": plots.COLOURS[1]}
        self._curves = live.Curves([power_axis(k, power), self._pixels.axis], colours, self._panels.width)

    def _draw(self) -> None:
        axis, plane = self.axis.value, self.plane.value
        x = log_density(self._y.select(axis, plane), EPS)
        first, side = self._panels.panels[0], self.suite.side
        view = live.CubeView(side, self.azimuth.value, self.tilt.value, axis, plane, self._panels.sides[0])
        seen = view.draw(log_density(self._y[tuple(torch.from_numpy(view.voxel))], EPS).numpy(), first)
        self.picture.value = self._panels.draw([seen, x.numpy()])
        self.readout.value = self._where()
        curves = zip(self._mean, (power_spectrum(x, self.suite.box_size), self._pixels(x)), strict=True)
        self.curves.value = self._curves.draw([{"planes of the cube": a, "this plane": b} for a, b in curves])
