"""What moving z along the parameters does: responses beside those of the 1P cubes, and what is read back.

Responses are read from decoded slices that share their place in p(h | z), as 1P cubes share their phases.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ..cubes.suite import CubeSuite
from ..generation.sample import complete_means, draw_h
from ..runs.encode import Posterior, decode, encode_set, set_features, spread_slices
from ..runs.run import Run
from ..runs.traverse import parameter_sheet, typical_noise
from ..runs.universes import cubes_along
from ..statistics import power_spectrum
from .features import FeatureTable
from .metrics import ridge


def responses(slices: Tensor, values: np.ndarray, at: float, box: float, n_draws: int = 200) -> dict:
    """dlnP/dtheta at a value of the parameter, with its 68 % interval over slices: {"dlnP" (3, n_k)}.


    The slope of the parabola (of two values: the line) nearest to ln P(values).

    slices (v, s, H, H) pixels: s slices at each of the v values, the same places at all of them
    """
    powers = np.vander(values - at, min(3, len(values)), increasing=True)
    power, weights = power_spectrum(slices, box)[1], torch.from_numpy(np.linalg.pinv(powers)[1]).float()
    rng, n = np.random.default_rng(0), slices.shape[1]
    draws = [np.arange(n), *(rng.integers(0, n, n) for _ in range(n_draws))]
    slopes = torch.stack([torch.tensordot(weights, power[:, d].mean(dim=1).log(), dims=1) for d in draws])
    return {"dlnP": [slopes[0].tolist(), *slopes[1:].quantile(torch.tensor([0.16, 0.84]), dim=0).tolist()]}


def parameter_walks(run: Run, table: FeatureTable, one_p: CubeSuite | None, *, n_slices: int = 30) -> dict:
    """Move z along each parameter, the others fixed, beside the 1P cubes, and measure the responses.

    Paths lie on the curved sheet of known universes (`parameter_sheet`).

    table     of the cubes that the sheet is learned from
    one_p     the 1P set; without it the walk spans the middle 80 % of the table, and the truth is absent

    Returns a dictionary a parameter that varies: `completed`, `mean` (decoded means alone) and `simulated` as
    `responses`.
    """
    found, draw = {}, _drawer(run, table, n_slices)
    for i, name in enumerate(table.names.tolist()):
        cubes, values, fiducial = cubes_along(one_p, name) if one_p is not None else ([], np.empty(0), {})
        middle = np.array([fiducial[p] for p in table.names]) if len(values) > 1 else table.params.mean(axis=0)
        if len(values) < 2:
            cubes, values = [], np.unique(np.quantile(table.params[:, i], np.linspace(0.1, 0.9, 5)))
        if len(values) < 2:
            continue  # a parameter that does not vary
        asked = np.where(np.arange(len(middle)) == i, values[:, None], middle)
        means, whole = zip(*(draw(row) for row in asked), strict=True)
        sets = {"mean": means, "completed": whole}
        if cubes:
            sets["simulated"] = [spread_slices(run, one_p, cube, n_slices) for cube in cubes]
        found[name] = {
            key: responses(torch.stack(list(slices))[:, :, 0], values, middle[i], run.image_box)
            for key, slices in sets.items()
        }
    return found


def closure(run: Run, table: FeatureTable, *, side: int = 4, n_slices: int = 15) -> dict:
    """Draw slices at asked parameters and read them back with the ridge on z.

    table    of the cubes that the sheet and the ridge are learned from
    side     points along each parameter that varies, over the middle 60 % of its cubes
    Returns {"asked" (m, p), "read" (m, p), "path" (m, p)}: path is read from z on the sheet itself, without drawing.
    """
    params, z = table.params, table.z(n_slices)
    low, high = np.quantile(params, [0.2, 0.8], axis=0)
    lines = [np.unique(np.linspace(a, b, side)) for a, b in zip(low, high, strict=True)]
    asked = np.stack(np.meshgrid(*lines, indexing="ij"), axis=-1).reshape(-1, len(lines))
    sheet, reader = parameter_sheet(z, params), ridge().fit(z, params)
    draw = _drawer(run, table, n_slices)
    rows = np.stack([encode_set(run, set_features(run, draw(row)[1])).mu.numpy() for row in asked])
    read, straight = (reader.predict(x).reshape(asked.shape).tolist() for x in (rows, sheet(asked).numpy()))
    return {"asked": asked.tolist(), "read": read, "path": straight}


def _drawer(run: Run, table: FeatureTable, n_slices: int) -> Callable:
    """params (p,) -> decoded means and completed slices, (n_slices, 1, H, H) twice, of the same random numbers."""
    known = Posterior(*(torch.from_numpy(x[:, table.at(n_slices)]).float() for x in (table.mu, table.logvar)))
    sheet = parameter_sheet((known.mu + typical_noise(known)).numpy(), table.params)
    generator, size = torch.Generator().manual_seed(0), run.config.data.image_size
    place = torch.randn(n_slices, run.model.latent_dim, generator=generator)
    white = torch.randn(n_slices, 1, size, size, generator=generator)

    def draw(params: np.ndarray) -> tuple[Tensor, Tensor]:
        z = sheet(params[None])[0]
        mean = decode(run, draw_h(run, z, place))
        return mean, complete_means(run, mean, z, white)

    return draw
