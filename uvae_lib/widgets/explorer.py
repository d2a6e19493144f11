"""What all explorers share: controls beside two pictures, when they are drawn, and how they are closed."""

import asyncio
import base64
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch
from ipywidgets import HTML, Box, FloatSlider, Image, IntSlider, Layout, VBox, Widget
from torch import Tensor

from .. import live, plots
from ..cubes import CubeSuite
from ..presets import PARAMETERS
from ..runs import Run
from ..statistics import pixel_pdf, power_spectrum
from ..variants import covers_box

NAMES = {"Omega_m": "Ωₘ", "sigma_8": "σ₈"}
KEPT = 8  # cubes whose encoding is kept
REST = 0.3  # [s] without a move, after which a picture that takes longer is drawn
POWER = r"$P(k)$ of $\ln\rho$  [(Mpc/$h$)$^2$]"


class Explorer(VBox):
    """Controls, two pictures and a line of text; a subclass says how they hang together.

    picture   the slices: a palette PNG
    curves    P(k) and distributions
    readout   what is shown, as text
    """

    _parked: Sequence[Widget] = ()  # controls that are not always on the page
    _timer: asyncio.TimerHandle | None = None

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

    def settle(self) -> None:
        """Draw what takes longer than a frame: called when no control has moved for REST seconds."""

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
        for widget in (*_descendants(self), *self._parked):
            widget.unobserve_all()
            _close(widget)
        _close(self, super().close)

    def _watch(self, **calls) -> None:
        """Call a method when the control of that name changes, unless the explorer itself changes it.

        The call ends before the kernel is idle again, and until then the page sends no further move of that control
        but keeps the last: a mouse that moves faster than pictures are drawn skips some, and none is drawn too late.
        """
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
        self.settle()
        still = base64.b64encode(live.stack(self.picture.value, self.curves.value)).decode()
        text = f"{type(self).__name__}: {self.readout.value}"
        return super()._repr_mimebundle_(**options) | {"image/png": still, "text/plain": text}


class ModelExplorer(Explorer):
    """An explorer of slices that a run makes of a cube: what it keeps of the cubes seen last, and its axes.

    run, suite   a trained model and cubes with its voxel size
    n_slices     of a cube
    """

    def __init__(self, run: Run, suite: CubeSuite, n_slices: int, controls: Sequence[Widget]):
        self.run, self.suite, self.n_slices = run, suite, n_slices
        self._kept: dict[int, tuple] = {}
        self._window = None if covers_box(run.config, run.side) else "hann"
        super().__init__(controls)

    def _encode(self, cube: int) -> tuple:
        """What is computed of a cube once."""
        raise NotImplementedError

    def _encoded(self) -> tuple:
        """`_encode` of the chosen cube, kept for the cubes seen last."""
        cube = self.cube.value
        if cube not in self._kept:
            found = self._encode(cube)
            while len(self._kept) >= KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[cube] = found
        return self._kept[cube]

    def _power(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return power_spectrum(x, self.run.image_box, self._window)


class Histogram:
    """Distributions of the pixels of slices like some: their bins, and their panel."""

    def __init__(self, x: Tensor):
        self.edges = torch.linspace(float(x.min()) - 1, float(x.max()) + 1, 61)
        self.centres = (self.edges[1:] + self.edges[:-1]) / 2
        limits = float(self.edges[0]), float(self.edges[-1])
        self.axis = live.Axis(plots.LOG_DENSITY, "probability density", limits, (3e-4, 3), xscale="linear")

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Centres of the bins, and densities there of x (H, W), or their mean over slices (n, H, W)."""
        return self.centres, pixel_pdf(x, self.edges).reshape(-1, len(self.centres)).mean(dim=0)


def described(text: str) -> dict:
    """A label left of a control, and all the width there is."""
    return {"description": text, "style": {"description_width": "112px"}, "layout": Layout(width="98%")}


def whole(text: str, value: int, most: int, least: int = 0) -> IntSlider:
    """A slider of whole numbers."""
    return IntSlider(value=value, min=least, max=max(most, least), continuous_update=True, **described(text))


def real(text: str, value: float, least: float, most: float, step: float, form: str) -> FloatSlider:
    """A slider of real numbers."""
    return FloatSlider(value=value, min=least, max=most, step=step, readout_format=form, **described(text))


def cubes(suite: CubeSuite, cube: int) -> IntSlider:
    """The cube: read and encoded when the handle rests, as this takes longer than a picture.

    Raises IndexError for a cube that is not there.
    """
    suite.cube_id(cube)
    last = max(suite.n_cubes - 1, 1)
    return IntSlider(value=cube, min=0, max=last, continuous_update=False, disabled=suite.n_cubes == 1,
                     **described("cube"))  # fmt: skip


def one_of(name: str, value, known: Sequence) -> None:
    """Raise ValueError where a value is not among those that are known."""
    if value not in known:
        raise ValueError(f"found {name}={json.dumps(value)}; expected one of {', '.join(map(str, known))}")


def cube_text(suite: CubeSuite, cube: int) -> str:
    """Number and cosmology of a cube."""
    row = suite.params.iloc[cube] if len(suite.params.columns) else {}
    known = [f"{NAMES[name]} = {row[name]:.2f}" for name in PARAMETERS if name in row]
    return f"cube {cube}" + (f" ({', '.join(known)})" if known else "")


def quantiles(x: Tensor, *shares: float) -> list[float]:
    """Limits of colours: a linear scale that leaves out extreme pixels."""
    return np.quantile(x.numpy(), shares).tolist()


def power_axis(k: Tensor, power: Tensor, lowest: float | None = None) -> live.Axis:
    """P(k), with room for other slices: two decades below the weakest mode of this one, one above the strongest."""
    limits = (float(k[0]) if lowest is None else min(float(k[0]), lowest), float(k[-1]))
    return live.Axis(plots.WAVENUMBER, POWER, limits, (float(power.min()) / 30, float(power.max()) * 5))


def check_voxels(run: Run, suite: CubeSuite) -> None:
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
