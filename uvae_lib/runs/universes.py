"""The universes that a run is explored in: slices of a few cubes, q(z) of many, and simulated slices of one phase."""

from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain, product

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..cubes.suite import CubesError, CubeSuite, open_data
from ..loss import kl_by_dimension
from ..presets import PARAMETERS, locate
from .encode import Posterior, encode_cube, encode_slices, prior_of_h, spread_slices
from .run import Run
from .traverse import Directions, ParameterSheet, cube_directions, parameter_sheet

FILE = "slices.npz"


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
    def sheet(self) -> ParameterSheet:
        """The map from the parameters that are `known` to z."""
        return parameter_sheet(self.z.mu.numpy(), self.known.to_numpy())

    def directions(self, n: int) -> Directions:
        """The n directions of z along which the cubes differ most, towards larger sigma_8 where that is known."""
        return cube_directions(self.z.mu, n, self.known["sigma_8"].to_numpy() if "sigma_8" in self.known else None)

    def plane(self, n: int = 5) -> tuple[Tensor, list[str]]:
        """z (m, 512) of universes all over the parameters that are known, and what they are, as m texts.

        Two parameters: n x n universes, the first one growing to the right, the second one upwards; one: n. Where none
        is known, the plane of the two main directions of z, within two widths.
        """
        known, ways = self.known, self.directions(2)
        ends = [known[name].quantile([0.05, 0.95]) for name in known] or [(-2, 2)] * len(ways.steps)
        right, *up = (np.linspace(*end, n) for end in ends)
        points = np.array([(x, *y) for y in product(*(axis[::-1] for axis in up)) for x in right])
        steps = torch.from_numpy(points).float()
        z = self.sheet(points) if len(known.columns) else ways.centre + steps @ ways.steps
        return z, [", ".join(f"{value:.2f}" for value in point) for point in points]


def universes_of(run: Run, suite: CubeSuite | None = None) -> Universes:
    """The universes of a suite; without one those that lie with the run's weights, else those of its own suite.

    What was encoded once is kept as long as the run is.
    """
    if (key := ("universes", suite)) not in run.loaded:
        file = run.folder / FILE
        shipped = suite is None and file.exists()
        run.loaded[key] = load_universes(file) if shipped else encode_universes(run, suite or run.open_suite())
    return run.loaded[key]


def check_voxels(run: Run, suite: CubeSuite) -> None:
    """Raise ValueError when a run's slices cannot be cut from a suite, or would mean another length."""
    found, expected = suite.box_size / suite.side, run.box_size / run.side
    size = run.config.data.image_size
    if abs(found / expected - 1) > 1e-3 or suite.side < size:
        raise ValueError(
            f"found cubes of {suite.side}^3 with voxels of {found:.4g} Mpc/h; the run was trained on slices of "
            f"{size} pixels with voxels of {expected:.4g} Mpc/h; give it the suite that it knows, or one like it"
        )


def encode_universes(run: Run, suite: CubeSuite, n_slices: int = 9, n_shown: int = 8, n_cubes: int = 48) -> Universes:
    """Read and encode cubes: seconds a dozen.

    suite     cubes with the run's voxels; the run's own have held-out ones first, and a 1P set beside them is read too
    n_slices  of a cube
    n_shown   cubes whose slices are kept, besides the fiducial one of the 1P set
    n_cubes   that are encoded in all, evenly spread
    Raises ValueError for cubes with other voxels.
    """
    check_voxels(run, suite)
    order, one_p = list(range(suite.n_cubes)), None
    if sorted(chain(*run.split.values())) == order:
        order, one_p = [i for part in ("test", "val", "train") for i in run.split[part]], _one_p(run, suite)
    shown, rest = order[:n_shown], order[n_shown:]
    few = np.linspace(0, len(rest) - 1, min(max(n_cubes - len(shown), 0), len(rest))).round().astype(int)
    cubes = [(suite, cube) for cube in (*shown, *(rest[i] for i in few))]
    twins = {}
    if one_p is not None:
        rows = _one_at_a_time(one_p.params)
        cubes.insert(0, (one_p, _nearest(one_p.params, one_p.params.median())))
        twins = {
            name: (
                one_p.params[name].iloc[row].to_numpy(float),
                torch.cat([spread_slices(run, one_p, cube, n_slices)[:1] for cube in row]),
            )
            for name, row in rows.items()
        }
    found = [spread_slices(run, of, cube, n_slices, seed=0 if of is one_p else cube) for of, cube in cubes]
    z = Posterior(*map(torch.stack, zip(*(encode_cube(run, slices) for slices in found), strict=True)))
    kept = found[: len(shown) + (one_p is not None)]
    h = [kl_by_dimension(*encode_slices(run, slices, mu), *prior_of_h(run, mu[None]))
         for slices, mu in zip(kept, z.mu, strict=False)]  # fmt: skip
    params = pd.concat([of.params.iloc[[cube]] for of, cube in cubes], ignore_index=True)
    kl = {"z": kl_by_dimension(*z).mean(dim=0), "h": torch.cat(h).mean(dim=0)}
    return Universes(suite.box_size, suite.side, torch.stack(kept), params, z, kl, twins)


def _one_p(run: Run, suite: CubeSuite) -> CubeSuite | None:
    """The 1P set beside the cubes of a run, where there is one like them."""
    path = locate(run.config.data.path)
    try:
        found = open_data(replace(run.config.data, path=str(path if path.is_dir() else path.parent)), "1P")
    except CubesError:
        return None
    same = (found.side, found.box_size) == (suite.side, suite.box_size) and found.files != suite.files
    return found if same and _one_at_a_time(found.params) else None


def _one_at_a_time(params: pd.DataFrame) -> dict[str, list[int]]:
    """{parameter: rows in which it alone differs from the medians, in the order of its values}."""
    same = np.isclose(params, params.median(), rtol=1e-3, atol=1e-6)
    rows = {}
    for column, name in enumerate(params):
        alone = np.flatnonzero(np.delete(same, column, axis=1).all(axis=1))
        values, first = np.unique(params[name].to_numpy()[alone], return_index=True)
        if name in PARAMETERS and len(values) > 1:
            rows[name] = alone[first].tolist()
    return rows


def _nearest(params: pd.DataFrame, row: pd.Series) -> int:
    return int(np.square((params - row) / params.std().replace(0, 1)).sum(axis=1).argmin())


def load_universes(path) -> Universes:
    """Read what tests/benchmarks/ship.py wrote beside a run: arrays by name, slices in float16."""
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    numbers = {name: torch.from_numpy(a.astype(np.float32)) for name, a in arrays.items() if a.dtype.kind == "f"}
    box_size, side = arrays["grid"]
    return Universes(
        box_size=float(box_size),
        side=int(side),
        slices=numbers["slices"][:, :, None],
        params=pd.DataFrame(arrays["params"].astype(float), columns=arrays["names"].tolist()),
        z=Posterior(numbers["mu"], numbers["logvar"]),
        kl={"z": numbers["kl_z"], "h": numbers["kl_h"]},
        twins={
            name: (arrays[f"values_{name}"], numbers[f"twins_{name}"][:, None])
            for name in PARAMETERS
            if f"values_{name}" in arrays
        },
    )
