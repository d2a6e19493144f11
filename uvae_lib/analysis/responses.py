"""What z and h hold in nats, and what moving z does: responses to a parameter beside those of the 1P cubes.

Responses are read from decoded slices that share their place in p(h | z), as 1P cubes share their phases.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..analysis.probes import ridge
from ..cubes.suite import CubeSuite
from ..generation.sample import complete_means, draw_h
from ..loss import ACTIVE, kl_by_dimension
from ..presets import PARAMETERS
from ..runs.encode import decode, encode_cube, spread_slices
from ..runs.run import Run
from ..runs.traverse import parameter_sheet
from ..statistics import pixel_pdf, power_spectrum
from .features import PDF_EDGES, CubeEncoding, FeatureTable
from .theory import lognormal_response

# --- nats by dimension


def kl_table(
    cubes: list[CubeEncoding], z: np.ndarray, params: np.ndarray, names: Sequence[str] = PARAMETERS, seed: int = 0
) -> pd.DataFrame:
    """One row a dimension of z and of h, the costliest first.

    cubes    held out: `kl` [nats] is their mean, `variance` that of the posterior's mean over them
    z, params  (n, D) means of z and (n, p) parameters, of these names, of any cubes: for the mutual information
    Columns: latent, dim, kl, variance, active, and mi_<parameter> [nats], NaN but for active dimensions of z.
    """
    rows = []
    for name, posterior, kl in (
        ("z", torch.stack([v.z.mu for v in cubes]), torch.stack([kl_by_dimension(*v.z) for v in cubes])),
        ("h", torch.cat([v.h.mu for v in cubes]), torch.cat([kl_by_dimension(*v.h, *v.prior) for v in cubes])),
    ):
        variance = posterior.var(dim=0, correction=0).numpy()
        columns = {"latent": name, "dim": np.arange(len(variance)), "kl": kl.mean(dim=0).numpy(), "variance": variance}
        rows.append(pd.DataFrame(columns | {"active": variance > ACTIVE}).sort_values("kl", ascending=False))
    table = pd.concat(rows, ignore_index=True)
    active = table.index[(table["latent"] == "z") & table["active"]]
    features = z[:, table.loc[active, "dim"].to_numpy()]
    for name, values in zip(names, params.T, strict=True):
        table[f"mi_{name}"] = np.nan
        table.loc[active, f"mi_{name}"] = _information(features, values, seed)
    return table


def _information(features: np.ndarray, values: np.ndarray, seed: int) -> np.ndarray:
    """Mutual information [nats] of each feature (n, d) with values (n,): nearest neighbours, Kraskov et al. 2004."""
    from sklearn.feature_selection import mutual_info_regression

    if not features.shape[1] or len(values) < 4:
        return np.full(features.shape[1], np.nan)
    return mutual_info_regression(features, values, n_neighbors=min(3, len(values) - 1), random_state=seed)


# --- responses to a parameter


def one_parameter(suite: CubeSuite, name: str) -> tuple[list[int], np.ndarray, dict[str, float]]:
    """Cubes of a 1P set in which a parameter alone moves: their numbers, its values (increasing), the fiducial.

    The fiducial is the median of every column; a row counts when all other columns are there.
    """
    params = suite.params
    centre = params.median()
    others = [column for column in params if column != name]
    same = np.isclose(params[others], centre[others], rtol=1e-3, atol=1e-6).all(axis=1)
    rows = params.index[same][np.argsort(params.loc[same, name], kind="stable")]
    rows = [int(i) for i in rows[~params.loc[rows, name].duplicated().to_numpy()]]
    return rows, params.loc[rows, name].to_numpy(float), {key: float(centre[key]) for key in params}


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
    run: Run,
    table: FeatureTable,
    one_p: CubeSuite | None,
    *,
    n_slices: int = 30,
    seed: int = 0,
) -> dict:
    """Move z along each parameter, the others held, beside the 1P cubes; read back what was decoded.

    Paths lie on the curved sheet of known universes (`parameter_sheet`), so that what is asked can be read.

    table     of the cubes that the sheet and the probe are learned from
    one_p     the 1P set; without it the walk spans the middle 80 % of the table, and the truth is absent

    Returns a dictionary a parameter: values; `model`, `model_mean` (decoded means alone) and `truth` as `responses`;
    `theory`, dlnP of a lognormal field; `mismatch`; `read` and `read_truth` (v, p), the ridge on z of what was decoded,
    of the 1P cubes.
    """
    z, names, found = table.z(15), [str(name) for name in table.names], {}
    sheet, reader = parameter_sheet(z, table.params), ridge().fit(z, table.params)
    generator = torch.Generator().manual_seed(seed)
    draw = torch.randn(n_slices, z.shape[1], generator=generator)
    white = torch.randn(n_slices, 1, *[run.config.data.image_size] * 2, generator=generator)

    def read(sets: list[Tensor]) -> list[list[float]]:
        rows = np.stack([encode_cube(run, slices).mu.numpy() for slices in sets])
        return reader.predict(rows).reshape(len(rows), -1).tolist()

    for i, name in enumerate(names):
        middle = table.params.mean(axis=0)
        cubes, values, fiducial = one_parameter(one_p, name) if one_p is not None else ([], np.empty(0), {})
        if len(values) < 2:
            cubes, values = [], np.unique(np.quantile(table.params[:, i], np.linspace(0.1, 0.9, 5)))
        else:
            middle = np.array([fiducial[p] for p in names])
        if len(values) < 2:
            continue  # a parameter that does not vary
        asked = np.tile(middle, (len(values), 1))
        asked[:, i] = values
        path = sheet(asked)
        means = [decode(run, draw_h(run, step, draw)) for step in path]
        whole = [complete_means(run, mean, step, white) for mean, step in zip(means, path, strict=True)]
        row = {"values": values.tolist(), "read": read(whole)}
        sets = {"model_mean": means, "model": whole}
        if cubes:
            sets["truth"] = [spread_slices(run, one_p, cube, n_slices, seed=seed) for cube in cubes]
            row["read_truth"] = read(sets["truth"])
        row |= {
            key: responses(torch.stack(slices)[:, :, 0], values, middle[i], run.image_box)
            for key, slices in sets.items()
        }
        if set(PARAMETERS) <= set(names):
            weights = slope_weights(values, middle[i])
            row["theory"] = lognormal_response(asked, weights, names, run.config.data.image_size, run.image_box)
        found[name] = row | ({"mismatch": mismatch(row["model"], row["truth"])} if cubes else {})
    return found


def mismatch(model: dict, truth: dict) -> dict[str, float]:
    """How far two responses are apart, over the size of the true one: 0 when equal, 1 for a model that does nothing.

    power, pdf   root mean square of the gap over that of the truth; P(k) up to half the Nyquist frequency
    """
    half = np.asarray(truth["k"]) <= 0.5 * max(truth["k"])
    found = {}
    for name, key, part in (("power", "dlnP", half), ("pdf", "dpdf", slice(None))):
        true, other = (np.asarray(x[key][0])[part] for x in (truth, model))
        found[name] = float(np.sqrt(np.square(other - true).mean() / np.square(true).mean()))
    return found
