"""One cube that somebody drops in: parameters with intervals, out-of-distribution warnings.

`cube_reference` prepares what all estimates of a run share (z of its cubes, limits from its validation cubes);
`estimate_cube` makes one, `figure` draws it.
"""

import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from ..analysis.probes import ridge
from ..cubes.suite import CubeSuite, open_cubes
from ..generation.sample import sample_slices
from ..plots import curves as plots
from ..runs.encode import cut_cube, decode, encode_slices, most_slices
from ..runs.run import Run
from ..statistics import fvu, pixel_pdf, power_spectrum
from .controls import upper_bound
from .features import (
    PDF_EDGES,
    Encodings,
    FeatureTable,
    describe,
    encode_cubes,
    encode_slices_of_cube,
    evenly,
    kept_features,
)
from .metrics import half_widths, residuals_of
from .posterior import ParameterPosterior, kept_posterior

N_MODEL = 60  # slices drawn from the model
N_LIMIT = 32  # validation cubes, at most, whose errors make a limit
FEWEST = 4  # training cubes that have a distribution to be out of


@dataclass(frozen=True, eq=False)
class CubeReference:
    """What the estimates of all cubes share.

    train            of training cubes;  n_slices that distances, errors and probes are of
    centre, root     (D,), (D, D): Mahalanobis distance |root @ (z - centre)| to the training cubes
    distance_limit, error_limit   that one more cube of the kind exceeds in 1 of 100 cases; infinite with fewer than
                     three validation cubes
    width            {parameter: half width of the 68 % interval of a ridge}
    posterior        p(parameters | z); None with too few training cubes, and a ridge stands in
    """

    train: FeatureTable
    n_slices: int
    centre: np.ndarray
    root: np.ndarray
    distance_limit: float
    error_limit: float
    width: dict[str, float]
    posterior: ParameterPosterior | None

    def distance(self, z: np.ndarray) -> np.ndarray:
        """Mahalanobis distances of z (..., D) to the training cubes, over the square root of D."""
        return np.linalg.norm((z - self.centre) @ self.root.T, axis=-1) / np.sqrt(len(self.centre))


@dataclass(frozen=True, eq=False)
class CubeEstimate:
    """One cube as a run sees it.

    slices, recon (n, H, W)   log densities;  z (D,)  mean of q(z)
    box_size                  side of a slice [Mpc/h]
    parameters                {name: (value, half width of the 68 % interval)}, empty where none are known
    k, power                  mean P(k) of the slices;  model_power (median, low, high) of slices drawn from the model
    edges, pdf, model_pdf     density of standardised pixels, likewise
    distance, error           Mahalanobis distance, unexplained variance; with the limits that they were held against
    warnings                  sentences, the gravest first; empty when nothing speaks against the estimates
    """

    source: str
    box_size: float
    slices: Tensor
    recon: Tensor
    z: np.ndarray
    parameters: dict[str, tuple[float, float]]
    k: np.ndarray
    power: np.ndarray
    model_power: tuple[np.ndarray, np.ndarray, np.ndarray]
    edges: np.ndarray
    pdf: np.ndarray
    model_pdf: np.ndarray
    distance: float
    distance_limit: float
    error: float
    error_limit: float
    warnings: tuple[str, ...]


def cube_reference(run: Run, suite: CubeSuite, encoded: Encodings | None = None, n_slices: int = 15) -> CubeReference:
    """Prepare the estimates of cubes.

    encoded  of the run's suite, where it is at hand; else the features are read from the run folder

    Raises ValueError for fewer than four training cubes.
    """
    from sklearn.covariance import LedoitWolf

    if len(run.split["train"]) < FEWEST:
        raise ValueError(
            f"{run.folder} was trained on {len(run.split['train'])} cubes; estimates need {FEWEST} or more to tell "
            "what is out of their distribution"
        )
    table = encoded.table if encoded else kept_features(run, suite, n_slices=n_slices)
    n_slices = int(table.sizes[table.at(n_slices)])
    train, val = (table.rows(run.split[part]) for part in ("train", "val"))
    chosen = evenly(run.split["val"], N_LIMIT)
    seen = encoded.of(chosen) if encoded else encode_cubes(run, suite, chosen, n_slices)
    z = train.z(n_slices).astype(float)
    shrunk = LedoitWolf().fit(z)  # there are fewer cubes than dimensions
    width = half_widths(residuals_of(z, train.params), 0.68)[:, 0] if len(train.names) else []
    found = CubeReference(
        train=train,
        n_slices=n_slices,
        centre=shrunk.location_,
        root=np.linalg.cholesky(shrunk.precision_).T,
        distance_limit=np.inf,
        error_limit=upper_bound([float(fvu(c.truth, c.recon)) for c in seen]),
        width=dict(zip(train.names.tolist(), np.asarray(width).tolist(), strict=True)),
        posterior=kept_posterior(run, table, n_slices),
    )
    return CubeReference(**vars(found) | {"distance_limit": upper_bound(found.distance(val.z(n_slices)))})


def estimate_cube(
    run: Run,
    cube: np.ndarray | str | Path,
    shared: CubeReference,
    *,
    index: int = 0,
    box_size: float | None = None,
    seed: int = 0,
    name: str = "an array",
    **options,
) -> CubeEstimate:
    """Estimate the parameters of one cube, and say what speaks against them.

    cube      (N, N, N) array of any kind that `open_cubes` knows, or a path that it opens;  index  of the cube there
    box_size  [Mpc/h]; of an array, the run's box when absent, which is warned of
    name      what to call an array;  options  of `open_cubes`

    Raises CubesError when the numbers cannot be used, ValueError when the cube is smaller than a slice.
    """
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the suite keeps them, and the estimate shows them
        suite, assumed = _opened(run, cube, Path(folder), box_size, options)
        y, source = suite.overdensity(index), suite.cube_id(index) if isinstance(cube, str | Path) else name
        axes, side, box = suite.axes, suite.side, suite.box_size
        cautions = [*assumed, *(caution.replace(str(folder), "the array") for caution in suite.cautions)]
    n = min(shared.n_slices, most_slices(run, suite))
    seen = encode_slices_of_cube(run, 0, cut_cube(run, y, n, seed, axes))
    row = describe(run, seen.truth, seen.truth[:0], seen.zs, len(axes))
    z, recon = row["mu"][-1], decode(run, encode_slices(run, seen.truth, seen.z.mu).mu)
    generator = torch.Generator().manual_seed(seed)
    drawn = sample_slices(run, seen.z, N_MODEL, generator)[:, 0]
    known = bool(drawn.isfinite().all())
    if not known:  # z is so far off that the networks overflow
        cautions.insert(0, "out of distribution: the model's own slices of this universe are not finite numbers")
        drawn = torch.zeros_like(drawn)
    k, power = power_spectrum(drawn, run.image_box)
    sets = power.unflatten(0, (-1, max(d for d in range(1, n + 1) if N_MODEL % d == 0))).mean(dim=1)  # means of a set
    distance, error = float(shared.distance(z)), float(fvu(seen.truth, recon))
    return CubeEstimate(
        source=source,
        box_size=box * run.config.data.image_size / side,
        slices=run.to_log(seen.truth[:, 0]),
        recon=run.to_log(recon[:, 0]),
        z=z,
        parameters=_parameters(shared, z, n, generator),
        k=k.numpy(),
        power=np.exp(row["power"][-1]),
        model_power=tuple(
            (sets if known else sets * torch.nan).quantile(torch.tensor([0.5, 0.16, 0.84]), dim=0).numpy()
        ),
        edges=PDF_EDGES.numpy(),
        pdf=row["pdf"][-1],
        model_pdf=pixel_pdf(drawn, PDF_EDGES).mean(dim=0).numpy() * (1 if known else np.nan),
        distance=distance,
        distance_limit=shared.distance_limit,
        error=error,
        error_limit=shared.error_limit,
        warnings=(*_out_of_distribution(run, shared, distance, error, side, box), *cautions),
    )


def _opened(run: Run, cube, folder: Path, box_size: float | None, options: dict) -> tuple[CubeSuite, list[str]]:
    """The cube as a suite, so that it passes the checks that all cubes pass; an array through a file."""
    options = {"box_size": box_size} | options
    if isinstance(cube, str | Path):
        return open_cubes(cube, **options), []
    assumed = [] if box_size else [f"the box of the array is taken as the run's, {run.box_size:g} Mpc/h"]
    np.save(folder / "cube.npy", np.asarray(cube), allow_pickle=False)
    return open_cubes(
        folder / "cube.npy", **options | {"box_size": box_size or run.box_size, "params": "none"}
    ), assumed


def _out_of_distribution(
    run: Run, shared: CubeReference, distance: float, error: float, side: int, box: float
) -> list[str]:
    """Sentences on what makes a cube unlike those that the run learned from."""
    found, n_val = [], len(run.split["val"])
    if not distance <= shared.distance_limit:  # NaN is no pass
        found.append(
            f"out of distribution: z is {distance:.2f} from the training cubes, {shared.distance_limit:.2f} is the "
            "limit that one cube of the kind in 100 exceeds"
        )
    if not error <= shared.error_limit:
        found.append(
            f"out of distribution: {error:.0%} of the slices' variance is not reconstructed, the limit is "
            f"{shared.error_limit:.0%}"
        )
    voxel, learned = box / side, run.box_size / run.side
    if abs(voxel / learned - 1) > 0.01:
        found.append(
            f"voxels of {voxel:.3g} Mpc/h; the run learned from {learned:.3g} Mpc/h: the estimates do not hold"
        )
    if not np.isfinite(shared.distance_limit):
        found.append(
            f"no limit for what is out of distribution: {n_val} validation cubes calibrate none, use 3 or more"
        )
    return found


def _parameters(
    shared: CubeReference, z: np.ndarray, n_slices: int, generator: torch.Generator
) -> dict[str, tuple[float, float]]:
    """Median and half the 68 % interval of the posterior, of a ridge's where there is none."""
    if not shared.width:
        return {}
    reader = ridge().fit(shared.train.z(shared.n_slices), shared.train.params)
    values = reader.predict(z[None]).ravel()
    found = {name: (float(x), width) for (name, width), x in zip(shared.width.items(), values, strict=True)}
    if shared.posterior is None:
        return found
    draws = shared.posterior.sample(torch.from_numpy(z).float(), n_slices, 4000, generator).numpy()
    low, middle, high = np.quantile(draws, [0.16, 0.5, 0.84], axis=0)
    drawn = zip(shared.posterior.names, middle.tolist(), ((high - low) / 2).tolist(), strict=True)
    return found | {name: (x, width) for name, x, width in drawn}


def figure(cube: CubeEstimate) -> Figure:
    """The estimate as a picture."""
    lines = [f"{plots.SYMBOLS.get(name, name)} = {x:.3f} ± {width:.3f}" for name, (x, width) in cube.parameters.items()]
    for what, value, limit in (
        ("distance", cube.distance, cube.distance_limit),
        ("unexplained", cube.error, cube.error_limit),
    ):
        lines.append(f"{what} {value:.2f} ({f'limit {limit:.2f}' if np.isfinite(limit) else 'no limit'})")
    return plots.cube_estimates(
        cube.slices[:3], cube.recon[:3], cube.box_size, cube.k, cube.power, cube.model_power, cube.edges, cube.pdf,
        cube.model_pdf, lines=lines, title=cube.source,
    )  # fmt: skip
