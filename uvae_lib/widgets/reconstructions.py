"""An explorer of reconstructions."""

from ipywidgets import Dropdown
from torch import Tensor

from .. import latents, live, plots
from ..cubes import CubeSuite
from ..runs import Run
from ..statistics import cross_correlation, fvu
from .explorer import (
    Histogram,
    ModelExplorer,
    check_voxels,
    cube_text,
    cubes,
    described,
    one_of,
    power_axis,
    quantiles,
    whole,
)

ORDERS = {"worst": "worst first", "best": "best first", "cut": "as cut"}
RESIDUAL = r"$\ln\,(\rho_\mathrm{rec} / \rho_\mathrm{true})$"


class ReconstructionExplorer(ModelExplorer):
    """Truth, reconstruction and residual of the slices of a cube, sorted by error.

    run, suite   a trained model and cubes with its voxel size
    cube         the first one to show
    n_slices     of a cube; each is reconstructed given the others
    order        "worst", "best" first, or as "cut"
    Raises IndexError for a cube that is not there, ValueError for another setting that is impossible.
    """

    def __init__(self, run: Run, suite: CubeSuite, *, cube: int = 0, n_slices: int = 9, order: str = "worst"):
        check_voxels(run, suite)
        one_of("order", order, tuple(ORDERS))
        self.cube, self.rank = cubes(suite, cube), whole("slice", 1, n_slices, least=1)
        options = [(text, key) for key, text in ORDERS.items()]
        self.order = Dropdown(options=options, value=order, **described("sorted"))
        super().__init__(run, suite, n_slices, [self.cube, self.order, self.rank])
        self._watch(cube=self._open, order=self._draw, rank=self._draw)
        self._open()
        self._quiet = False

    def _encode(self, cube: int) -> tuple[Tensor, Tensor, Tensor]:
        """Truth and reconstructions (n, H, H) log densities, and their unexplained variances (n,)."""
        slices = latents.spread_slices(self.run, self.suite, cube, self.n_slices, seed=cube)
        recon = latents.reconstruct_given_others(self.run, slices)
        truth, recon = (self.run.to_log(x)[:, 0] for x in (slices, recon))
        return truth, recon, fvu(truth, recon, dim=(1, 2))

    def _open(self) -> None:
        """Another cube: reconstruct its slices, fix colours and limits, and draw."""
        self._truth, self._recon, self._error = self._encoded()
        reach = quantiles((self._recon - self._truth).abs(), 0.995)[0]
        scale, length = quantiles(self._truth, 0.005, 0.998), self.run.image_box
        panels = [
            live.Panel("truth", length, *scale, ""),
            live.Panel("reconstruction", length, *scale),
            live.Panel("residual", length, -reach, reach, RESIDUAL, plots.DIFFERENCE_MAP),
        ]
        self._panels = live.ImagePanels(panels, [self.run.config.data.image_size] * 3, target=256)
        self._pixels = Histogram(self._truth)
        k, power = self._power(self._truth)
        r = live.Axis(plots.WAVENUMBER, "correlation  $r(k)$", (float(k[0]), float(k[-1])), (0, 1.02),
                      yscale="linear", level=0.9)  # fmt: skip
        colours = {"truth": plots.TRUTH, "reconstruction": plots.COLOURS[1]}
        self._curves = live.Curves(
            [power_axis(k, power.mean(dim=0)), r, self._pixels.axis], colours, self._panels.width
        )
        self._draw()

    def _draw(self) -> None:
        ranked = self._error.argsort(descending=self.order.value == "worst").tolist()
        number = self.rank.value - 1 if self.order.value == "cut" else ranked[self.rank.value - 1]
        truth, recon = self._truth[number], self._recon[number]
        self.picture.value = self._panels.draw([truth.numpy(), recon.numpy(), (recon - truth).numpy()])
        self.readout.value = (
            f"{cube_text(self.suite, self.cube.value)}: slice {number + 1} of {self.n_slices}, "
            f"{float(self._error[number]):.2f} of its variance unexplained"
        )
        shown = {"truth": truth, "reconstruction": recon}
        r = cross_correlation(truth, recon, self.run.image_box, self._window)
        self.curves.value = self._curves.draw([
            {name: self._power(x) for name, x in shown.items()},
            {"reconstruction": r[:2]},
            {name: self._pixels(x) for name, x in shown.items()},
        ])  # fmt: skip
