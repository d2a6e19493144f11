"""LatentExplorer: z and h moved by hand, in three tabs."""

import ipywidgets as ui
import numpy as np
import torch
from torch import Generator, Tensor

from ..cubes.suite import CubeSuite
from ..generation.flows import flows_of
from ..generation.sample import complete_means, draw_h
from ..plots import curves as plots
from ..runs.encode import encode_slices
from ..runs.run import Run
from ..runs.traverse import decode_universe, place_of
from ..runs.universes import Universes, universes_of
from . import pages
from . import pictures as live
from .explorers import NAMES, Explorer, control

REACH = 0.6  # of the colours of a difference of ln rho
SMOOTH, COMPLETED = "smooth", "completed"
DIFFERENCE = r"$\ln\,(\rho / \rho_\mathrm{anchor})$"


class LatentExplorer(Explorer):
    """A slice decoded from latents that one moves by hand.

    Cosmology    Omega_m and sigma_8: z follows the curved sheet of known universes; beside it, for the fiducial cube,
                 the slice of the same phases that was simulated with the nearest value
    Universe z   the directions along which cubes differ most, in widths of the cubes; any unit; a random universe
    Place h      a new place, p(h | z) drawn anew; any unit of h in widths of p(h | z); units are sorted by KL

    While z moves the slice keeps its place in units of p(h | z)'s width: structures stay. The decoded mean is completed
    where the run has flows, by the same noise everywhere; the smooth one is drawn faster.

    run     a trained model
    suite   cubes with its voxel size; see `universes_of` for what is shown without
    cube    the universe; its z is the mean of q(z | its slices), and the place is that of its first slice
    """

    FILM = ("sigma_8", "Omega_m", "z0", "z1")

    def __init__(self, run: Run, suite: CubeSuite | None = None, *, cube: int = 0, n_directions: int = 4):
        self.run, source = run, universes_of(run, suite)
        self._seed, self.directions = 0, source.directions(n_directions)
        self._order = {latent: kl.argsort(descending=True).tolist() for latent, kl in source.kl.items()}
        spread = source.z.mu.var(dim=0, correction=0) + source.z.logvar.exp().mean(dim=0)
        self._unit_steps = {"z": spread.sqrt(), "h": torch.ones_like(spread)}
        tabs = self._tabs(source)
        looks = control(ui.ToggleButtons, "", options=[SMOOTH, COMPLETED] if flows_of(run) else [SMOOTH])
        looks.index = len(looks.options) - 1
        self.tabs = ui.Tab(list(map(ui.VBox, tabs.values())), titles=list(tabs))
        self.back = self._button("back to the anchor", self._set_back)
        controls = {name: (slider, self._draw) for name, slider in self.sliders.items()}
        controls |= {f"rank_{latent}": (slider, self._name_unit) for latent, slider in self.ranks.items()}
        self._boards = {}
        super().__init__(source, cube, controls | {"looks": (looks, self._draw)}, [looks, self.tabs, self.back])
        self.tabs.observe(lambda _: self._draw(), names="selected_index")

    def _tabs(self, source: Universes) -> dict[str, list[ui.Widget]]:
        """What stands in each tab; makes `sliders` and `ranks`."""
        known = source.known
        self.sliders = {
            name: control(
                ui.FloatSlider, NAMES[name], min=round(known[name].min(), 2), max=round(known[name].max(), 2), step=0.01
            )
            for name in known
        }
        tabs = {"Cosmology": [widget for name in known for widget in (self.sliders[name], self._play(name))]}
        shares = enumerate(self.directions.share.tolist())
        main = {f"z{i}": f"PC {i + 1} ({share:.0%})" for i, share in shares}
        units = {f"unit_{latent}": "its value" for latent in "zh"}
        self.sliders |= {
            name: control(ui.FloatSlider, text, min=-4, max=4, step=0.1, readout_format="+.1f")
            for name, text in (main | units).items()
        }
        self.ranks = {latent: control(ui.IntSlider, "", value=1, min=1, max=len(source.kl[latent])) for latent in "zh"}
        unit = {latent: [self.ranks[latent], self.sliders[f"unit_{latent}"]] for latent in "zh"}
        tabs["Universe z"] = [*(self.sliders[name] for name in main), *unit["z"],
                              self._button("random universe", self._random_universe)]  # fmt: skip
        tabs["Place h"] = [self._button("new place", self._new_place), *unit["h"]]
        return tabs if len(known.columns) else {name: tabs[name] for name in list(tabs)[1:]}

    def _button(self, text: str, call) -> ui.Button:
        button = ui.Button(description=text, layout=ui.Layout(width="auto"))
        button.on_click(lambda _: call())
        return button

    def _play(self, name: str) -> ui.Play:
        """A button that moves the slider of a parameter from end to end."""
        slider, play = self.sliders[name], ui.Play(max=pages.MOST - 1, interval=200)
        values = np.linspace(slider.min, slider.max, pages.MOST).round(2).tolist()
        play.observe(lambda change: setattr(slider, "value", values[change["new"]]), names="value")
        return play.add_class(f"uvae-play-{name}")

    def open_tab(self, name: str) -> None:
        """Open the tab in which a control stands."""
        inside = [self.controls[name] in pages.visible(tab) for tab in self.tabs.children]
        self.tabs.selected_index = inside.index(True)

    def _open(self) -> None:
        """The universe, its first slice and the place of that in p(h | z)."""
        if not self._boards:
            self._scale = self._limits(self.run.to_log(self.source.slices.flatten(0, 1))[:, 0])
        first = self.source.slices[self.cube.value, :1]
        z = self.source.z.mu[self.cube.value]
        self._name, self._drawn_place = self._cube_text(), "the place of its first slice"
        self._place = place_of(self.run, z, encode_slices(self.run, first, z).mu)
        self._anchor(z)

    def _cube_text(self) -> str:
        text = super()._cube_text()
        return text.replace("cube 0", "fiducial cube", 1) if self._has_twin else text

    @property
    def _has_twin(self) -> bool:
        return self.cube.value == 0 and bool(self.source.twins)

    def _anchor(self, z: Tensor) -> None:
        """Start from a universe (512,) and the place that is held; all sliders go to where it is."""
        nearest = int((self.source.z.mu - z).square().sum(dim=1).argmin())  # a random universe has no label
        self._z0, row = z, self.source.known.iloc[nearest]
        self._home = {name: round(float(value), 2) for name, value in row.items()}
        self._name_unit(draw=False)
        self._set_back()

    def _set_back(self) -> None:
        """All sliders to the anchor."""
        with self._silence():
            for name, slider in self.sliders.items():
                slider.value = self._home.get(name, 0.0)
        self._draw()

    def _name_unit(self, draw: bool = True) -> None:
        """Say which unit a rank is, and its KL."""
        for latent, slider in self.ranks.items():
            unit = self._order[latent][slider.value - 1]
            slider.description = f"unit {unit}"
            self.sliders[f"unit_{latent}"].description = f"{float(self.source.kl[latent][unit]):.2g} nats"
        if draw:
            self._draw()

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

    def _unit(self, latent: str) -> Tensor:
        """How far a single unit was moved: (512,)."""
        unit = self._order[latent][self.ranks[latent].value - 1]
        step = torch.zeros_like(self._unit_steps[latent])
        step[unit] = self.sliders[f"unit_{latent}"].value * self._unit_steps[latent][unit]
        return step

    def _draw(self) -> None:
        """The slice, and the one that was started from."""
        moved = torch.tensor([self.sliders[f"z{i}"].value for i in range(len(self.directions.steps))])
        z = self._z0 + moved @ self.directions.steps + self._unit("z")
        asked = {name: self.sliders[name].value for name in self._home}
        if asked != self._home:
            here, there = self.source.sheet(np.array([list(self._home.values()), list(asked.values())]))
            z = z + there - here
        mean = decode_universe(
            self.run, torch.stack([self._z0, z]), torch.cat([self._place, self._place + self._unit("h")])
        )
        if self.looks.value == COMPLETED:
            white = self._white(1, *mean.shape[1:])  # the same noise, so that what moves is what was moved
            mean = complete_means(self.run, mean, torch.stack([self._z0, z]), white.expand(mean.shape))
        self._show_slices(*self.run.to_log(mean)[:, 0])

    def _show_slices(self, anchor: Tensor, x: Tensor) -> None:
        """Both panels and the curves of ln rho (H, H)."""
        before, after = self._statistics(anchor), self._statistics(x)
        text = f"{self._name}, {self._drawn_place}: {self._moves() or 'at the anchor'}"
        twin = self._twin() if self._has_twin and self.tabs.selected_index == 0 else None
        self._board = self._kept_board(twin is not None)
        ratio = {"generated": (after[0][0], after[0][1] / before[0][1])}
        lines = {"anchor": before, "generated": after}
        if twin is None:
            self._show([x.numpy(), (x - anchor).numpy()], text, lines, [ratio])
            return
        name, value, true, fiducial = twin
        true, fiducial = (self.run.to_log(pixels)[0] for pixels in (true, fiducial))
        k, power = self._statistics(true)[0]
        ratio["simulated"] = (k, power / self._statistics(fiducial)[0][1])
        lines = {"generated": after, "simulated": self._statistics(true)}
        self._show([x.numpy(), true.numpy()], f"{text}; simulated: {NAMES[name]} = {value:.2f}", lines, [ratio])

    def _twin(self) -> tuple[str, float, Tensor, Tensor]:
        """The simulated slice of the parameter that was moved farthest: its name, value, pixels, the fiducial's."""
        far = {
            name: abs(self.sliders[name].value - self._home[name]) / (self.sliders[name].max - self.sliders[name].min)
            for name in reversed(list(self.source.twins))
        }
        name = max(far, key=far.get)
        values, slices = self.source.twins[name]
        at, home = (int(np.abs(values - v).argmin()) for v in (self.sliders[name].value, self._home[name]))
        return name, float(values[at]), slices[at], slices[home]

    def _kept_board(self, twin: bool) -> live.Board:
        """What stays while slices are drawn: beside a simulated slice, or the difference to the anchor."""
        if twin not in self._boards:
            length, below = self.run.image_box, "fiducial" if twin else "anchor"
            right = live.Panel("simulated, the same phases", length, *self._scale)
            if not twin:
                right = live.Panel("difference to the anchor", length, -REACH, REACH, DIFFERENCE, plots.DIFFERENCE_MAP)
            ratio = live.Axis(plots.WAVENUMBER, f"$P(k)$ / {below}", self._k, (0.4, 2), "linear", level=1.0)
            colours = {"simulated" if twin else "anchor": plots.TRUTH, "generated": plots.COLOURS[0]}
            sizes = [self.run.config.data.image_size] * 2
            panels = [live.Panel("generated", length, *self._scale), right]
            self._boards[twin] = self._frame(panels, sizes, colours, [ratio])
        return self._boards[twin]

    def _moves(self) -> str:
        """What was moved, as text."""
        moved = {name: slider.value for name, slider in self.sliders.items() if slider.value != self._home.get(name, 0)}
        texts = {f"unit_{latent}": f"{latent} {slider.description}" for latent, slider in self.ranks.items()}
        return ", ".join(
            f"{NAMES[name]} → {value:.2f}" if name in NAMES
            else f"{texts.get(name, self.sliders[name].description.split(' (')[0])} {value:+.1f} σ"
            for name, value in moved.items()
        )  # fmt: skip
