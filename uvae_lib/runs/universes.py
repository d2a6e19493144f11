"""The universes that a run is explored in: slices of a few cubes, q(z) of many, and simulated slices of one phase."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain, product
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..cubes.suite import CubesError, CubeSuite, open_data
from ..loss import kl_by_dimension
from ..presets import PARAMETERS, locate
from .encode import Posterior, encode_cube, encode_slices, prior_of_h, spread_slices
from .run import Run
from .traverse import parameter_sheet, typical_noise

FILE = "slices.npz"


class Directions(NamedTuple):
    """Principal directions of the z of known cubes.

    centre (512,)      mean of z over the cubes
    steps (n, 512)     orthogonal; each as long as the spread of the cubes along it
    share (n,)         of their variance
    """

    centre: Tensor
    steps: Tensor
    share: Tensor


@dataclass(frozen=True, eq=False)
class Universes:
    """What explorers need of cubes: nothing is read from a suite any more.

    box_size, side   of the cubes: [Mpc/h] and [voxels]
    slices           (k, S, 1, H, H) standardised pixels of the first k cubes
    params           one row a cube, n rows
    z                q(z | S slices) of n cubes: mu and logvar (n, 512)
    kl               {"z", "h"} -> (512,) KL of each unit [nats]: of q(z) from N(0, I), of q(h) from p(h | z); means
    twins            {parameter: (values (v,), slices (v, 1, H, H))}: one plane of one phase, simulated with
                     other values of one parameter; cube 0 is then the fiducial one, its first slice the same plane
    """

    box_size: float
    side: int
    slices: Tensor
    params: pd.DataFrame
    z: Posterior
    kl: dict[str, Tensor]
    twins: dict[str, tuple[np.ndarray, Tensor]] = field(default_factory=dict)

    @property
    def n_cubes(self) -> int:
        """Cubes that there are slices of."""
        return len(self.slices)

    @cached_property
    def known(self) -> pd.DataFrame:
        """Omega_m and sigma_8 of all cubes where they vary; none where cubes are no more than parameters."""
        known = self.params[[name for name in PARAMETERS if name in self.params]]
        known = known.loc[:, known.nunique() > 1]
        return known if len(known) > len(known.columns) else known.iloc[:, :0]

    @cached_property
    def drawn(self) -> Tensor:
        """z of the cubes to draw slices from, (n, 512): means of q(z) and one `typical_noise`."""
        return self.z.mu + typical_noise(self.z)

    @cached_property
    def sheet(self) -> Callable[[np.ndarray], Tensor]:
        """The map from the parameters that are `known` to z, as `drawn` has it."""
        return parameter_sheet(self.drawn.numpy(), self.known.to_numpy())

    def directions(self, n: int) -> Directions:
        """The n directions of z along which cubes differ most (PCA), fewer where there are fewer cubes.

        Steps point to where sigma_8 grows; where that is not known, their largest number is positive.
        """
        z, centre = self.drawn, self.drawn.mean(dim=0)
        u, s, ways = torch.linalg.svd(z - centre, full_matrices=False)
        if "sigma_8" in self.known:
            sigma_8 = torch.tensor(self.known["sigma_8"].to_numpy(), dtype=z.dtype)
            sign = ((u.T @ (sigma_8 - sigma_8.mean())) >= 0).to(z.dtype) * 2 - 1
        else:
            sign = ways.gather(1, ways.abs().argmax(dim=1, keepdim=True))[:, 0].sign()
        n = min(n, len(z) - 1)
        steps = ways * (sign * s / max(len(z) - 1, 1) ** 0.5)[:, None]
        return Directions(centre, steps[:n], (s.square() / s.square().sum())[:n])

    def plane(self, n: int = 3) -> tuple[Tensor, list[tuple[str, np.ndarray]]]:
        """z (rows, n, 512) of universes all over the parameters that are known; names and values of columns and rows.

        Two parameters: n x n universes, the first one growing along a row, the second one from row to row; of one: a
        row. Where none is known, the plane of the two main directions of z, within two widths.
        """
        known, ways = self.known, self.directions(2)
        axes = [(name, np.linspace(*known[name].quantile([0.05, 0.95]), n)) for name in known]
        axes = axes or [(f"PC {i + 1}", np.linspace(-2, 2, n)) for i in range(len(ways.steps))]
        points = np.array([point[::-1] for point in product(*(values for _, values in axes[::-1]))])
        z = self.sheet(points) if len(known.columns) else ways.centre + torch.from_numpy(points).float() @ ways.steps
        return z.unflatten(0, (-1, n)), [*axes, ("", np.zeros(1))][:2]


def universes_of(run: Run, suite: CubeSuite | None = None) -> Universes:
    """The universes of a suite; without one those that lie with the run's weights, else those of its own suite.

    What was encoded once is kept as long as the run is.
    """
    if (key := ("universes", suite)) not in run.loaded:
        file = run.folder / FILE
        shipped = suite is None and file.exists()
        run.loaded[key] = load_universes(file) if shipped else encode_universes(run, suite or run.open_suite())
    return run.loaded[key]


def encode_universes(run: Run, suite: CubeSuite, n_slices: int = 9, n_shown: int = 8, n_cubes: int = 48) -> Universes:
    """Read and encode cubes: seconds a dozen.

    suite     cubes with the run's voxels; the run's own have held-out ones first, and a 1P set beside them is read too
    n_slices  of a cube
    n_shown   cubes whose slices are kept, besides the fiducial one of the 1P set
    n_cubes   that are encoded in all, evenly spread
    Raises ValueError for cubes with other voxels.
    """
    order, one_p, along = list(range(suite.n_cubes)), None, {}
    if sorted(chain(*run.split.values())) == order:
        order, one_p = [i for part in ("test", "val", "train") for i in run.split[part]], open_set(run, suite, "1P")[0]
    if one_p:
        along = {name: cubes_along(one_p, name)[:2] for name in one_p.params if name in PARAMETERS}
        along = {name: (rows, values) for name, (rows, values) in along.items() if len(rows) > 1}
    shown, rest = order[:n_shown], order[n_shown:]
    few = np.linspace(0, len(rest) - 1, min(max(n_cubes - len(shown), 0), len(rest))).round().astype(int)
    cubes = [(suite, cube) for cube in (*shown, *(rest[i] for i in few))]
    twins = {
        name: (values, torch.cat([spread_slices(run, one_p, cube, n_slices)[:1] for cube in rows]))
        for name, (rows, values) in along.items()
    }
    if twins:
        off = (one_p.params - one_p.params.median()) / one_p.params.std().replace(0, 1)
        cubes.insert(0, (one_p, int(off.pow(2).sum(axis=1).argmin())))
    found = [spread_slices(run, of, cube, n_slices, seed=0 if of is one_p else cube) for of, cube in cubes]
    z = Posterior(*map(torch.stack, zip(*(encode_cube(run, slices) for slices in found), strict=True)))
    kept = found[: len(shown) + bool(twins)]
    h = [kl_by_dimension(*encode_slices(run, slices, of), *prior_of_h(run, of[None]))
         for slices, of in zip(kept, z.mu + typical_noise(z), strict=False)]  # fmt: skip
    params = pd.concat([of.params.iloc[[cube]] for of, cube in cubes], ignore_index=True)
    kl = {"z": kl_by_dimension(*z).mean(dim=0), "h": torch.cat(h).mean(dim=0)}
    return Universes(suite.box_size, suite.side, torch.stack(kept), params, z, kl, twins)


def open_set(run: Run, suite: CubeSuite, name: str) -> tuple[CubeSuite | None, str]:
    """The CV or 1P set beside the cubes of a run, and ""; or None and the reason why there is none."""
    path = locate(run.config.data.path)
    try:
        found = open_data(replace(run.config.data, path=str(path if path.is_dir() else path.parent)), name)
    except CubesError as error:
        return None, str(error)
    if found.files == suite.files:
        return None, f"the cubes of this run are in no layout with sets, so there is no {name}"
    if (found.side, found.box_size) != (suite.side, suite.box_size):
        return None, f"{name} has cubes of {found.side}^3 in {found.box_size:g} Mpc/h, the run others"
    return found, ""


def cubes_along(suite: CubeSuite, name: str) -> tuple[list[int], np.ndarray, dict[str, float]]:
    """Cubes of a 1P set in which a parameter alone moves: their numbers, its values (increasing), the fiducial.

    The fiducial is the median of every column; a row counts when all other columns are there.
    """
    params, centre = suite.params, suite.params.median()
    same = np.isclose(params, centre, rtol=1e-3, atol=1e-6) | (params.columns == name)
    alone = np.flatnonzero(same.all(axis=1))
    values, first = np.unique(params[name].to_numpy(float)[alone], return_index=True)
    return alone[first].tolist(), values, centre.to_dict()


def load_universes(path) -> Universes:
    """Read what tests/benchmarks/ship.py wrote beside a run: arrays by name, slices in float16."""
    with np.load(path, allow_pickle=False) as file:
        arrays = dict(file)
    numbers = {name: torch.from_numpy(a.astype(np.float32)) for name, a in arrays.items() if a.dtype.kind == "f"}
    box_size, side = arrays["grid"].tolist()
    params = pd.DataFrame(arrays["params"].astype(float), columns=arrays["names"].tolist())
    z, kl = Posterior(numbers["mu"], numbers["logvar"]), {"z": numbers["kl_z"], "h": numbers["kl_h"]}
    twins = {n: (arrays[f"values_{n}"], numbers[f"twins_{n}"][:, None]) for n in PARAMETERS if f"values_{n}" in arrays}
    return Universes(box_size, int(side), numbers["slices"][:, :, None], params, z, kl, twins)
