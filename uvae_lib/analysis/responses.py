"""What moving z along the parameters does: responses beside those of the 1P cubes, and what is read back.

Responses are read from decoded slices that share their place in p(h | z), as 1P cubes share their phases.
"""

import numpy as np
import torch
from torch import Tensor

from ..cubes.suite import CubeSuite
from ..generation.sample import complete_means, draw_h
from ..runs.encode import decode, set_features, spread_slices
from ..runs.run import Run
from ..runs.traverse import parameter_sheet
from ..runs.universes import cubes_along
from ..statistics import pixel_pdf, power_spectrum
from .features import PDF_EDGES, FeatureTable, encode_any_set
from .probes import ridge


def slope_weights(values: np.ndarray, at: float) -> np.ndarray:
    """Weights w (n,) with w @ y = dy/dx at `at`, of the parabola (two values: the line) nearest to y(values)."""
    degree = min(2, len(values) - 1)
    if degree < 1:
        raise ValueError(f"found {len(values)} values of a parameter; a slope needs at least 2: simulate more 1P cubes")
    powers = np.stack([(values - at) ** d for d in range(degree + 1)], axis=1)
    return np.linalg.pinv(powers)[1]


def responses(slices: Tensor, values: np.ndarray, at: float, box: float, n_draws: int = 200, seed: int = 0) -> dict:
    """dlnP/dtheta and dPDF/dtheta at a value of the parameter, with their 68 % intervals over slices.

    slices (v, s, H, H) pixels: s slices at each of the v values, the same places at all of them
    """
    k, power = power_spectrum(slices, box)
    pdf, weights = pixel_pdf(slices, PDF_EDGES), torch.from_numpy(slope_weights(values, at)).float()
    rng, n = np.random.default_rng(seed), slices.shape[1]
    draws = [np.arange(n), *(rng.integers(0, n, n) for _ in range(n_draws))]
    slopes = [
        torch.stack([torch.tensordot(weights, x, dims=1) for x in many])
        for many in ((power[:, d].mean(dim=1).log() for d in draws), (pdf[:, d].mean(dim=1) for d in draws))
    ]
    return {"k": k.tolist(), "edges": PDF_EDGES.tolist()} | {
        name: [found[0].tolist(), *(q.tolist() for q in found[1:].quantile(torch.tensor([0.16, 0.84]), dim=0))]
        for name, found in zip(("dlnP", "dpdf"), slopes, strict=True)
    }


def parameter_walks(
    run: Run, table: FeatureTable, one_p: CubeSuite | None, *, n_slices: int = 30, seed: int = 0
) -> dict:
    """Move z along each parameter, the others fixed, beside the 1P cubes, and measure the responses.

    Paths lie on the curved sheet of known universes (`parameter_sheet`).

    table     of the cubes that the sheet is learned from
    one_p     the 1P set; without it the walk spans the middle 80 % of the table, and the truth is absent

    Returns a dictionary a parameter that varies: values; `completed`, `mean` (decoded means alone) and `simulated` as
    `responses`.
    """
    draw, found = _Decoder(run, table, n_slices, seed), {}
    for i, name in enumerate(table.names.tolist()):
        cubes, values, fiducial = cubes_along(one_p, name) if one_p is not None else ([], np.empty(0), {})
        middle = np.array([fiducial[p] for p in table.names]) if len(values) > 1 else table.params.mean(axis=0)
        if len(values) < 2:
            cubes, values = [], np.unique(np.quantile(table.params[:, i], np.linspace(0.1, 0.9, 5)))
        if len(values) < 2:
            continue  # a parameter that does not vary
        asked = np.tile(middle, (len(values), 1))
        asked[:, i] = values
        means, whole = zip(*(draw(row) for row in asked), strict=True)
        sets = {"mean": means, "completed": whole}
        if cubes:
            sets["simulated"] = [spread_slices(run, one_p, cube, n_slices, seed=seed) for cube in cubes]
        found[name] = {"values": values.tolist()} | {
            key: responses(torch.stack(list(slices))[:, :, 0], values, middle[i], run.image_box)
            for key, slices in sets.items()
        }
    return found


def closure(
    run: Run, table: FeatureTable, *, side: int = 4, n_slices: int = 15, seed: int = 0, share: float = 0.6
) -> dict:
    """Draw slices at asked parameters and read them back with the ridge on z.

    table    of the cubes that the sheet and the ridge are learned from
    side     points along each parameter that varies, over the middle `share` of its range
    Returns {"asked" (m, p), "read" (m, p), "path" (m, p)}: path is read from z on the sheet itself, without drawing.
    """
    params, z = table.params, table.z(n_slices)
    low, high = np.quantile(params, [0.5 - share / 2, 0.5 + share / 2], axis=0)
    lines = [np.unique(np.linspace(a, b, side)) for a, b in zip(low, high, strict=True)]
    asked = np.stack(np.meshgrid(*lines, indexing="ij"), axis=-1).reshape(-1, len(lines))
    draw, reader = _Decoder(run, table, n_slices, seed), ridge().fit(z, params)
    rows = np.stack([encode_any_set(run, set_features(run, draw(row)[1])).mu.numpy() for row in asked])
    path = draw.sheet(asked).numpy()
    read, straight = (reader.predict(x).reshape(asked.shape).tolist() for x in (rows, path))
    return {"asked": asked.tolist(), "read": read, "path": straight}


class _Decoder:
    """Decoded means and completed slices at asked parameters, with the same random numbers everywhere."""

    def __init__(self, run: Run, table: FeatureTable, n_slices: int, seed: int):
        generator, size = torch.Generator().manual_seed(seed), run.config.data.image_size
        self.run, self.sheet = run, parameter_sheet(table.z(n_slices), table.params)
        self.place = torch.randn(n_slices, table.mu.shape[-1], generator=generator)
        self.white = torch.randn(n_slices, 1, size, size, generator=generator)

    def __call__(self, params: np.ndarray) -> tuple[Tensor, Tensor]:
        """params (p,) -> two sets (n_slices, 1, H, H) of pixels."""
        z = self.sheet(params[None])[0]
        mean = decode(self.run, draw_h(self.run, z, self.place))
        return mean, complete_means(self.run, mean, z, self.white)
