"""Two widgets that ask: which slices were simulated (Quiz), and in which cosmology (CubeReader)."""

from collections.abc import Callable
from math import comb

import ipywidgets as ui
import numpy as np
import torch
from torch import Generator

from .. import plots
from ..cubes.suite import CubeSuite
from ..generation.sample import sample_slices
from ..runs.encode import Posterior, encode_set, most_slices, set_features, spread_slices
from ..runs.run import Run
from ..runs.universes import universes_of
from . import pictures as live
from .explorers import NAMES, Explorer, Shown, control

HALF = 6  # slices of the quiz that were simulated, and as many that were drawn
N_DRAWS = 1000
DOTS = {"ls": "", "marker": ".", "ms": 3}
LINES = {
    "one slice": DOTS | {"color": "0.8"},
    "posterior": DOTS | {"color": plots.Z},
    "truth": {"ls": "", "marker": "+", "ms": 14, "mew": 2, "color": plots.TRUTH},
}


class Quiz(Shown):
    """Twelve slices of six universes, six simulated and six drawn: click the six that were drawn.

    run     a trained model
    suite   cubes with its voxel size; see `universes_of` for what is shown without
    seed    of the slices that are drawn, and of their order
    answer  (12,) which of them were drawn
    """

    def __init__(self, run: Run, suite: CubeSuite | None = None, *, seed: int = 0):
        source, generator = universes_of(run, suite), Generator().manual_seed(seed)
        cubes = [i % source.n_cubes for i in range(HALF)]
        true = torch.cat([source.slices[cube, i % source.slices.shape[1]][None] for i, cube in enumerate(cubes)])
        of = (Posterior(*(part[cube] for part in source.z)) for cube in cubes)
        drawn = torch.cat([sample_slices(run, z, 1, generator) for z in of])
        order = torch.randperm(2 * HALF, generator=generator)
        self.answer = (order >= HALF).tolist()
        self._x, self._box_size = run.to_log(torch.cat([true, drawn]))[order, 0].numpy(), run.image_box
        panel = live.Panel("", run.image_box, *np.quantile(self._x, (0.005, 0.998)).tolist())
        zoom = max(1, round(192 / self._x.shape[-1]))
        self.images = [ui.Image(value=live.tile(x, panel, zoom), format="png", width=192) for x in self._x]
        numbers = map(str, range(1, 2 * HALF + 1))
        self.choices = [ui.ToggleButton(description=number, layout=ui.Layout(width="192px")) for number in numbers]
        self.reveal = ui.Button(description="reveal", disabled=True).add_class("uvae-reveal")
        self.readout = ui.HTML()
        cells = [ui.VBox(pair) for pair in zip(self.images, self.choices, strict=True)]
        grid = ui.GridBox(cells, layout=ui.Layout(grid_template_columns=f"repeat({HALF}, 200px)"))
        super().__init__([self.readout, grid, self.reveal])
        self.add_class("uvae-quiz")
        for choice in self.choices:
            choice.observe(lambda _: self._count(), names="value")
        self.reveal.on_click(lambda _: self._reveal())
        self._count()

    def _count(self) -> None:
        chosen = sum(choice.value for choice in self.choices)
        self.reveal.disabled = chosen != HALF
        self.readout.value = f"Six slices were simulated, six drawn. Click those that were drawn: {chosen} of {HALF}"

    def _reveal(self) -> None:
        for choice, drawn in zip(self.choices, self.answer, strict=True):
            choice.description = f"{choice.description.split(':')[0]}: {'drawn' if drawn else 'simulated'}"
            choice.button_style = "" if not choice.value else "success" if drawn else "danger"
        score = sum(choice.value and drawn for choice, drawn in zip(self.choices, self.answer, strict=True))
        p_value = sum(comb(HALF, n) ** 2 for n in range(score, HALF + 1)) / comb(2 * HALF, HALF)
        self.readout.value = f"{score} of 6 found; blindly one does as well with probability {p_value:.2g}"

    def drawn(self) -> bytes:
        """The twelve slices, six in a row, what their buttons say above them."""
        texts = [choice.description for choice in self.choices]
        return plots.slice_grid(self._x, self._box_size, texts, columns=HALF).png()


class CubeReader(Explorer):
    """The cosmology of a cube, read from one slice, from two, from thirty: the posterior shrinks.

    run         a trained model
    posterior   of parameters given z: `names`, `low`, `high` and `sample(z, n_slices, n, generator)`, as
                `analysis.posterior` makes it
    suite       cubes with the run's voxel size;  cube  the first one to read
    likeness    slices (S, 1, H, H) pixels -> how probable the distance of one more training cube to the others would
                be as large; no badge without it
    """

    FILM = ("n_slices",)

    def __init__(self, run: Run, posterior, suite: CubeSuite, *, cube: int = 0, likeness: Callable | None = None):
        self.run, self.posterior, self.likeness = run, posterior, likeness
        slider = control(ui.IntSlider, "slices", value=1, min=1, max=min(30, most_slices(run, suite)))
        super().__init__(suite, cube, {"n_slices": slider})

    def _open(self) -> None:
        cube, params, names = self.cube.value, self.source.params, self.posterior.names
        slices = spread_slices(self.run, self.source, cube, self.n_slices.max, seed=cube)
        self._zs = set_features(self.run, slices)
        self._truth = {"truth": params[names].iloc[[cube]].to_numpy()} if set(names) <= set(params) else {}
        self._first = self._draws(1)
        self._like = self.likeness(slices) if self.likeness else None
        self._slices = self.run.to_log(slices)[:, 0].numpy()
        scale = np.quantile(self._slices, (0.005, 0.998)).tolist()
        panel = live.Panel("the slice that was added last", self.run.image_box, *scale)
        box = list(zip(self.posterior.low.tolist(), self.posterior.high.tolist(), strict=True))
        plane = live.Axis(*(plots.SYMBOLS.get(name, name) for name in names[:2]), *box[:2], "linear")
        self._board = live.Board([panel], [self._slices.shape[-1]], [plane], LINES, height=320)
        self._draw()

    def _draws(self, n_slices: int) -> np.ndarray:
        """Draws (N_DRAWS, p) from the posterior given the first slices."""
        z = encode_set(self.run, self._zs[:n_slices]).mu
        return self.posterior.sample(z, n_slices, N_DRAWS, Generator().manual_seed(0)).numpy()

    def _draw(self) -> None:
        n = self.n_slices.value
        draws = self._draws(n)
        read = ", ".join(
            f"{NAMES.get(name, name)} = {mean:.3f} ± {width:.3f}"
            for name, mean, width in zip(self.posterior.names, draws.mean(axis=0), draws.std(axis=0), strict=True)
        )
        badge = "" if self._like is None else f"; {'like' if self._like > 0.01 else 'UNLIKE'} the training cubes"
        self.readout.value = f"{self._cube_text()}: {read} from {n} slice{'s' * (n > 1)}{badge}"
        points = {"one slice": self._first, "posterior": draws} | self._truth
        self.picture.value = self._board.draw([self._slices[n - 1]], [{name: x[:, :2].T for name, x in points.items()}])
