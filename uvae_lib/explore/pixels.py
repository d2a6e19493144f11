"""Sliders on the pixels themselves: eps of x = log(y + eps), and the number of waves that a slice is made of."""

import ipywidgets as ui
import numpy as np
import torch

from .. import plots
from ..cropping import EPS, log_density
from ..cubes.suite import CubeSuite
from ..statistics import fourier_pca, power_spectrum, project
from .explorers import CubeExplorer, Shown, SliceExplorer

WAVES = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096)


def cube_explorer(suite: CubeSuite, cube: int = 0) -> ui.VBox:
    """A `CubeExplorer`; a `SliceExplorer` for ready-made maps, which have no third side."""
    return (CubeExplorer if suite.n_planes == suite.side else SliceExplorer)(suite, cube=cube)


def thinned(y: np.ndarray, empty: float = 0.015, seed: int = 0) -> np.ndarray:
    """A cube y as a catalogue of particles would give it: Poisson numbers, so few that a share `empty` has none."""
    trial = np.geomspace(1, 1e4, 200)
    shares = np.array([np.exp(-n * y.ravel()[::16]).mean() for n in trial])  # Poisson: chance of no particle
    mean = trial[np.argmin(np.abs(shares - empty))]
    return (np.random.default_rng(seed).poisson(mean * y) / mean).astype(np.float32)


class PixelExplorer(Shown):
    """A plane of a cube: thinned and standardised at some eps, and as so many of its waves make it.

    suite, cube   the cube; its first plane is shown
    eps, waves    where the sliders start
    """

    def __init__(self, suite: CubeSuite, cube: int = 0, *, eps: float = EPS, waves: int = 512):
        y, self._box = suite.overdensity(cube), suite.box_size
        self._x, self._thinned = torch.from_numpy(log_density(y, EPS)), thinned(y)[0]
        known = [n for n in WAVES if n <= self._x[0].numel() // 2]
        options = {"style": {"description_width": "90px"}, "continuous_update": False}
        self.eps = ui.FloatLogSlider(eps, min=-8, max=0, step=1, description="ε", readout_format=".0e", **options)
        self.waves = ui.SelectionSlider(options=known, value=min(waves, known[-1]), description="waves kept", **options)
        self.picture, self.readout = ui.Image(format="png", width=935), ui.HTML()
        super().__init__([self.readout, self.eps, self.waves, self.picture])
        for slider in (self.eps, self.waves):
            slider.observe(lambda _: self._draw(), names="value")
        self._draw()

    def _draw(self) -> None:
        """The plane at the sliders' values: pixels above, waves below."""
        pixels = log_density(self._thinned, self.eps.value)
        pixels = (pixels - pixels.mean()) / pixels.std()
        x, n = self._x[:1], self.waves.value
        kept = project(x, fourier_pca(self._x, n))
        k, power = power_spectrum(torch.cat([x, kept]), self._box)
        (image, histogram), (waves, spectrum) = (figure := plots.new_figure(plots.PAGE, 0.8)).subplots(2, 2)
        plots.slice_grid(pixels[None], self._box, [f"thinned, ε = {self.eps.value:.0e}"], label=plots.PIXELS, ax=image)
        histogram.hist(pixels.ravel(), 120, color=plots.TRUTH, log=True)
        histogram.set(xlabel=plots.PIXELS, ylabel="pixels")
        histogram.spines[["top", "right"]].set_visible(False), spectrum.spines[["top", "right"]].set_visible(False)
        plots.slice_grid(kept, self._box, [f"{n} waves"], ax=waves)
        plots.spectra(k, {"simulated": power[0], f"{n} waves": power[1]}, "$P(k)$ of $x$", ax=spectrum)
        figure.finish().set_dpi(round(0.6 * figure.dpi))
        self.picture.value, self.readout.value = figure.png(), f"sliders: ε {self.eps.value:.0e}; waves kept {n}"
