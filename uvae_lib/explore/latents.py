"""LatentExplorer: z and h moved by hand, in three tabs."""

import ipywidgets as ui
import numpy as np
import torch
from torch import Generator, Tensor

from .. import plots
from ..cubes.suite import CubeSuite
from ..generation.flows import flows_of
from ..generation.sample import complete_means, draw_h
from ..runs.encode import encode_slices
from ..runs.run import Run
from ..runs.traverse import decode_universe, place_of
from ..runs.universes import Universes, universes_of
from . import pictures as live
from .explorers import NAMES, Explorer, control

REACH = 0.6  # of the colours of a difference of ln rho
SMOOTH, COMPLETED = "smooth", "completed"


class LatentExplorer(Explorer):
    """A slice decoded from latents that one moves by hand.

    Cosmology    Omega_m and sigma_8: z follows the curved sheet of known universes; beside it, for the fiducial cube
                 and while nothing else is moved, the slice of the same phases simulated with the nearest value
    Universe z   the directions along which cubes differ most, in widths of the cubes; a random universe
    Place h      a new place, p(h | z) drawn anew; any unit of h in widths of p(h | z); units are sorted by KL

    While z moves the slice keeps its place in units of p(h | z)'s width: structures stay. The decoded mean is completed
    where the run has flows, by the same noise everywhere; the smooth one is drawn faster.

    run     a trained model
    suite   cubes with its voxel size; see `universes_of` for what is shown without
    cube    the universe; its z is the mean of q(z | its slices), and the place is that of its first slice
    """

    FILM = ("sigma_8", "Omega_m", "z0", "z1")

    def __init__(self, run: Run, suite: CubeSuite | None = None, *, cube: int = 0):
        self.run, source = run, universes_of(run, suite)
        self._seed, self.directions = 0, source.directions(4)
        self._units = source.kl["h"].argsort(descending=True).tolist()
        tabs = self._tabs(source)
        looks = control(ui.ToggleButtons, "", options=[SMOOTH, COMPLETED] if flows_of(run) else [SMOOTH])
        looks.index = len(looks.options) - 1
        self.tabs = ui.Tab(list(map(ui.VBox, tabs.values())), titles=list(tabs))
        self.back = self._button("back to the anchor", self._set_back)
        self.rank.observe(lambda _: self._name_unit(), names="value")
        controls = self.sliders | {"rank": self.rank, "looks": looks}
        super().__init__(source, cube, controls, [looks, self.tabs, self.back])

    def _tabs(self, source: Universes) -> dict[str, list[ui.Widget]]:
        """What stands in each tab; makes `sliders` and `rank`."""
        known = source.known
        self.sliders = {
            name: control(ui.FloatSlider, NAMES[name], step=0.01, **known[name].agg(["min", "max"]).round(2))
            for name in known
        }
        main = {f"z{i}": f"PC {i + 1} ({share:.0%})" for i, share in enumerate(self.directions.share.tolist())}
        for name, text in (main | {"unit_h": "its value"}).items():
            self.sliders[name] = control(ui.FloatSlider, text, min=-4, max=4, step=0.1, readout_format="+.1f")
        self.rank = control(ui.IntSlider, "", value=1, min=1, max=len(self._units))
        random_universe = self._button("random universe", self._random_universe)
        tabs = {
            "Cosmology": [self.sliders[name] for name in known],
            "Universe z": [*(self.sliders[name] for name in main), random_universe],
            "Place h": [self._button("new place", self._new_place), self.rank, self.sliders["unit_h"]],
        }
        return {title: inside for title, inside in tabs.items() if inside}

    def _button(self, text: str, call) -> ui.Button:
        button = ui.Button(description=text, layout=ui.Layout(width="auto"))
        button.on_click(lambda _: call())
        return button

    def _open(self) -> None:
        """The universe, its first slice and the place of that in p(h | z)."""
        self._beside, self._scale = "", self._limits(self.run.to_log(self.source.slices.flatten(0, 1))[:, 0])
        first = self.source.slices[self.cube.value, :1]
        z = self.source.drawn[self.cube.value]
        self._name, self._drawn_place = self._cube_text(), "the place of its first slice"
        self._place = place_of(self.run, z, encode_slices(self.run, first, z).mu)
        self._anchor(z)

    def _anchor(self, z: Tensor) -> None:
        """Start from a universe (512,) and the place that is held; all sliders go to where it is."""
        nearest = int((self.source.drawn - z).square().sum(dim=1).argmin())  # a random universe has no label
        self._z0, row = z, self.source.known.iloc[nearest]
        self._home = {name: round(float(value), 2) for name, value in row.items()}
        self._name_unit()
        self._set_back()

    def _set_back(self) -> None:
        """All sliders to the anchor."""
        self._quiet = True
        for name, slider in self.sliders.items():
            slider.value = self._home.get(name, 0.0)
        self._quiet = False
        self._draw()

    @property
    def _unit(self) -> int:
        """The unit of h that is chosen by its rank."""
        return self._units[self.rank.value - 1]

    def _name_unit(self) -> None:
        """Say which unit the rank is, and its KL."""
        self.rank.description = f"unit {self._unit}"
        self.sliders["unit_h"].description = f"{float(self.source.kl['h'][self._unit]):.2g} nats"

    def _white(self, *shape: int, seed: int = 0) -> Tensor:
        return torch.randn(*shape, generator=Generator().manual_seed(seed))

    def _random_universe(self) -> None:
        """Another universe, z ~ N(0, I), at the same place."""
        self._seed += 1
        self._name = f"random universe {self._seed}"
        self._anchor(self._white(len(self._z0), seed=self._seed))

    def _new_place(self) -> None:
        """Another place in the universe that is shown."""
        self._seed += 1
        self._drawn_place = f"new place {self._seed}"
        h = draw_h(self.run, self._z0, self._white(1, len(self._z0), seed=self._seed))
        self._place = place_of(self.run, self._z0, h)
        self._anchor(self._z0)

    def _draw(self) -> None:
        """The slice, and the one that was started from."""
        moved = torch.tensor([self.sliders[f"z{i}"].value for i in range(len(self.directions.steps))])
        z, place = self._z0 + moved @ self.directions.steps, self._place.clone()
        place[:, self._unit] += self.sliders["unit_h"].value
        asked = {name: self.sliders[name].value for name in self._home}
        if asked != self._home:
            here, there = self.source.sheet(np.array([list(self._home.values()), list(asked.values())]))
            z = z + there - here
        both = torch.stack([self._z0, z])
        mean = decode_universe(self.run, both, torch.cat([self._place, place]))
        if self.looks.value == COMPLETED:
            white = self._white(1, *mean.shape[1:])  # the same noise, so that what moves is what was moved
            mean = complete_means(self.run, mean, both, white.expand(mean.shape))
        self._show_slices(*self.run.to_log(mean)[:, 0])

    def _show_slices(self, anchor: Tensor, x: Tensor) -> None:
        """Both panels and the curves of ln rho (H, H)."""
        text = f"{self._name}, {self._drawn_place}: {self._moves() or 'at the anchor'}"
        beside, right, other, look = "anchor", x - anchor, anchor, self.looks.value
        ratios = {look: self._power_ratio(x, anchor)}
        others = [slider.value for name, slider in self.sliders.items() if name not in self._home]
        if self.cube.value == 0 and self.source.twins and not any(others):
            beside, (name, value, pixels) = "simulated", self._twin()
            right, fiducial = self.run.to_log(pixels)[:, 0]
            text, other = f"{text}; simulated: {NAMES[name]} = {value:.2f}", right
            ratios["simulated"] = self._power_ratio(right, fiducial)
        if (beside, look) != self._beside:
            self._make_board(beside)
        lines = {beside: self._statistics(other), look: self._statistics(x)}
        self._show([x.numpy(), right.numpy()], text, lines, [ratios])

    def _power_ratio(self, x: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
        """The P(k) of a slice (H, H) over that of another, as (k, ratio)."""
        (k, power), (_, expected) = (self._statistics(each)[0] for each in (x, reference))
        return k, power / expected

    def _twin(self) -> tuple[str, float, Tensor]:
        """Of the parameter that was moved farthest: name, value, pixels (2, 1, H, H) simulated there and at home."""
        far = {
            name: abs(self.sliders[name].value - self._home[name]) / (self.sliders[name].max - self.sliders[name].min)
            for name in reversed(list(self.source.twins))
        }
        name = max(far, key=far.get)
        values, slices = self.source.twins[name]
        at, home = (int(np.abs(values - v).argmin()) for v in (self.sliders[name].value, self._home[name]))
        return name, float(values[at]), slices[[at, home]]

    def _make_board(self, beside: str) -> None:
        """What stays while slices are drawn: beside a simulated slice, or the difference to the anchor."""
        self._beside, look, length, below = (beside, self.looks.value), self.looks.value, self.run.image_box, "anchor"
        right = live.Panel("difference to the anchor", length, -REACH, REACH, plots.DIFFERENCE, plots.DIFFERENCE_MAP)
        if beside == "simulated":
            right, below = live.Panel("simulated, the same phases", length, *self._scale), "fiducial"
        ratio = live.Axis(plots.WAVENUMBER, f"$P(k)$ / {below}", self._k, (0.4, 2), "linear", level=1.0)
        panels = [live.Panel(look, length, *self._scale), right]
        baseline = {"color": plots.BASELINE, "ls": "--"}
        colours = {beside: plots.TRUTH if beside == "simulated" else baseline, look: plots.role(look)}
        self._board = self._frame(panels, [self.run.config.data.image_size] * 2, colours, [ratio])

    def _moves(self) -> str:
        """What was moved, as text."""
        moved = {name: slider.value for name, slider in self.sliders.items() if slider.value != self._home.get(name, 0)}
        labels = {name: slider.description.split(" (")[0] for name, slider in self.sliders.items()}
        labels["unit_h"] = f"h {self.rank.description}"
        return ", ".join(
            f"{labels[name]} → {value:.2f}" if name in NAMES else f"{labels[name]} {value:+.1f} σ"
            for name, value in moved.items()
        )
