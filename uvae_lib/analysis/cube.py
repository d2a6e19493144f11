"""The card of one universe: a cube that somebody drops in, as a run sees it, and what speaks against trusting that.

`reference` prepares what all cards of a run share (z of its cubes, thresholds from its validation cubes);
`card` makes one, `figure` draws it.
"""

import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from .. import latents, plots
from ..cubes import CubeSuite, open_cubes
from ..presets import PARAMETERS
from ..runs import Run
from ..statistics import pixel_pdf, power_spectrum
from ..variants.residuals import ResidualNoise
from .controls import PDF_EDGES, FeatureTable, describe, half_widths, kept_features, out_of_fold, ridge, upper_bound
from .metrics import encode_cubes, residual_noise

N_MODEL = 60  # slices drawn from the model
N_NOISE = 32  # training cubes, at most, that the noise is learned from beside the validation cubes


@dataclass(frozen=True, eq=False)
class Reference:
    """What the cards of a run share.

    train            of training cubes;  n_slices that distances, errors and probes are of
    names            cube_id of the training cubes
    noise            `evaluate.residual_noise` of validation and some training cubes
    centre, root     (D,), (D, D): Mahalanobis distance |root @ (z - centre)| to the training cubes
    distance_limit, error_limit   that one more cube of the kind auc in 1 of 100 cases; infinite with fewer than
                     three validation cubes
    width            {parameter: half width of the 68 % interval}
    """

    train: FeatureTable
    names: list[str]
    n_slices: int
    noise: ResidualNoise
    centre: np.ndarray
    root: np.ndarray
    distance_limit: float
    error_limit: float
    width: dict[str, float]

    def distance(self, z: np.ndarray) -> np.ndarray:
        """Mahalanobis distances of z (..., D) to the training cubes, over the square root of D."""
        return np.linalg.norm((z - self.centre) @ self.root.T, axis=-1) / np.sqrt(len(self.centre))


@dataclass(frozen=True, eq=False)
class Card:
    """One universe as a run sees it.

    slices, recon (n, H, W)   log densities;  z (D,)  mean of q(z);  z_width  its mean standard deviation
    box_size                  side of a slice [Mpc/h]
    readings                  {parameter: (value, half width of the 68 % interval)}, empty without parameters
    nearest                   [(cube_id, distance in z, {parameter: value})] of the nearest training universes
    k, power                  mean P(k) of the slices;  model_power (median, low, high) of slices drawn from the model
    edges, pdf, model_pdf     density of standardised pixels, likewise
    distance, error           Mahalanobis distance, unexplained variance; with the limits that they were held against
    warnings                  sentences, the gravest first; empty when nothing speaks against the readings
    """

    source: str
    box_size: float
    slices: Tensor
    recon: Tensor
    z: np.ndarray
    z_width: float
    readings: dict[str, tuple[float, float]]
    nearest: list[tuple[str, float, dict[str, float]]]
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


def reference(run: Run, suite: CubeSuite, atlas: FeatureTable | None = None, n_slices: int = 15) -> Reference:
    """Prepare cards; the atlas of the suite is made, or read from the run folder, where none is given."""
    from sklearn.covariance import LedoitWolf

    atlas = atlas or kept_features(run, suite)
    n_slices = int(atlas.sizes[atlas.at(n_slices)])
    train, val = (atlas.rows(run.split[part]) for part in ("train", "val"))
    views = encode_cubes(run, suite, run.split["val"], n_slices)
    some = run.split["train"][:: -(-len(run.split["train"]) // N_NOISE)]
    z = train.z(n_slices).astype(float)
    shrunk = LedoitWolf().fit(z)  # there are fewer cubes than dimensions
    root = np.linalg.cholesky(shrunk.precision_).T
    width = half_widths(out_of_fold(ridge, z, train.params), 0.68)[:, 0] if train.params.shape[1] else []
    found = Reference(
        train=train,
        names=[suite.cube_id(i) for i in run.split["train"]],
        n_slices=n_slices,
        noise=residual_noise(run, views + encode_cubes(run, suite, some, n_slices)),
        centre=shrunk.location_,
        root=root,
        distance_limit=np.inf,
        error_limit=upper_bound([unexplained(v.truth, v.recon) for v in views]),
        width=dict(zip(PARAMETERS, np.asarray(width).tolist(), strict=False)),
    )
    return Reference(**vars(found) | {"distance_limit": upper_bound(found.distance(val.z(n_slices)))})


def unexplained(truth: Tensor, recon: Tensor) -> float:
    """Squared error of slices (n, 1, H, H) over the variance of their pixels."""
    return float((truth - recon).square().mean() / truth.var())


def card(
    run: Run,
    cube: np.ndarray | str | Path,
    shared: Reference,
    *,
    index: int = 0,
    box_size: float | None = None,
    seed: int = 0,
    name: str = "an array",
    **options,
) -> Card:
    """Judge one cube.

    cube      (N, N, N) array of any kind that `open_cubes` knows, or a path that it opens;  index  of the cube there
    box_size  [Mpc/h]; of an array, the run's box when absent, which is warned of
    name      what to call an array;  options  of `open_cubes`
    Raises CubesError when the numbers cannot be used, ValueError when the cube is smaller than a slice.
    """
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the suite keeps them, and the card shows them
        suite, assumed = _opened(run, cube, Path(folder), box_size, options)
        y, source = suite.overdensity(index), suite.cube_id(index) if isinstance(cube, str | Path) else name
        axes, side, box = suite.axes, suite.side, suite.box_size
        cautions = [*assumed, *(caution.replace(str(folder), "the array") for caution in suite.cautions)]
    n = min(shared.n_slices, len(axes) * (len(y) // run.config.data.thickness))
    slices = latents.cut_cube(run, y, n, seed, axes)
    row = {name: value[0] for name, value in describe(run, slices, np.array([n]), len(axes)).items() if name != "k"}
    z = latents.Posterior(*(torch.from_numpy(row[name]) for name in ("mu", "logvar")))
    recon = latents.reconstruct(run, slices)
    generator = torch.Generator().manual_seed(seed)
    drawn = latents.sample_slices(run, z, N_MODEL, generator, shared.noise.complete)[:, 0]
    known = bool(drawn.isfinite().all())
    if not known:  # z is so far off that the networks overflow
        cautions.insert(0, "out of distribution: the model's own slices of this universe are not finite numbers")
        drawn = torch.zeros_like(drawn)
    k, power = power_spectrum(drawn, run.image_box)
    sets = power.unflatten(0, (-1, max(d for d in range(1, n + 1) if N_MODEL % d == 0))).mean(dim=1)  # means of a set
    distance, error = float(shared.distance(row["mu"])), unexplained(slices, recon)
    grave = _suspicions(run, shared, distance, error, side, box)
    return Card(
        source=source,
        box_size=box * run.config.data.image_size / side,
        slices=run.to_log(slices[:, 0]),
        recon=run.to_log(recon[:, 0]),
        z=row["mu"],
        z_width=float((0.5 * z.logvar).exp().mean()),
        readings=_readings(shared, row["mu"]),
        nearest=_nearest(shared, row["mu"]),
        k=k.numpy(),
        power=np.exp(row["power"]),
        model_power=tuple(
            (sets if known else sets * torch.nan).quantile(torch.tensor([0.5, 0.16, 0.84]), dim=0).numpy()
        ),
        edges=PDF_EDGES.numpy(),
        pdf=row["pdf"],
        model_pdf=pixel_pdf(drawn, PDF_EDGES).mean(dim=0).numpy() * (1 if known else np.nan),
        distance=distance,
        distance_limit=shared.distance_limit,
        error=error,
        error_limit=shared.error_limit,
        warnings=(*grave, *cautions),
    )


def _opened(run: Run, cube, folder: Path, box_size: float | None, options: dict) -> tuple[CubeSuite, list[str]]:
    """The cube as a suite, so that it passes the checks that all cubes pass; an array through a file."""
    options = {"box_size": box_size, "image_size": run.config.data.image_size} | options
    if isinstance(cube, str | Path):
        return open_cubes(cube, **options), []
    assumed = [] if box_size else [f"the box of the array is taken as the run's, {run.box_size:g} Mpc/h"]
    np.save(folder / "cube.npy", np.asarray(cube), allow_pickle=False)
    return open_cubes(
        folder / "cube.npy", **options | {"box_size": box_size or run.box_size, "params": "none"}
    ), assumed


def _suspicions(run: Run, shared: Reference, distance: float, error: float, side: int, box: float) -> list[str]:
    """Sentences on what makes a cube unlike those that the run learned from."""
    found, n_val = [], len(run.split["val"])
    if not distance <= shared.distance_limit:  # NaN is no pass
        found.append(
            f"out of distribution: z is {distance:.2f} from the training cubes, {shared.distance_limit:.2f} is the "
            "limit that one cube of the kind in 100 auc"
        )
    if not error <= shared.error_limit:
        found.append(
            f"out of distribution: {error:.0%} of the slices' variance is not reconstructed, the limit is "
            f"{shared.error_limit:.0%}"
        )
    voxel, learned = box / side, run.box_size / run.side
    if abs(voxel / learned - 1) > 0.01:
        found.append(f"voxels of {voxel:.3g} Mpc/h; the run learned from {learned:.3g} Mpc/h: the readings do not hold")
    if not np.isfinite(shared.distance_limit):
        found.append(
            f"no limit for what is out of distribution: {n_val} validation cubes calibrate none, use 3 or more"
        )
    return found


def _readings(shared: Reference, z: np.ndarray) -> dict[str, tuple[float, float]]:
    if not shared.width:
        return {}
    found = ridge(shared.train.z(shared.n_slices), shared.train.params, z[None])[0]
    return {name: (float(x), shared.width[name]) for name, x in zip(PARAMETERS, found, strict=True)}


def _nearest(shared: Reference, z: np.ndarray, n: int = 5) -> list[tuple[str, float, dict[str, float]]]:
    """The training universes whose z is nearest (Euclid), nearest first."""
    distance = np.linalg.norm(shared.train.z(shared.n_slices) - z, axis=1)
    params = [dict(zip(PARAMETERS, row.tolist(), strict=False)) for row in shared.train.params]
    return [(shared.names[i], float(distance[i]), params[i]) for i in distance.argsort()[:n]]


def figure(card: Card) -> Figure:
    """The card as a picture."""
    lines = [f"{plots.SYMBOLS.get(name, name)} = {x:.3f} ± {width:.3f}" for name, (x, width) in card.readings.items()]
    for what, value, limit in (
        ("distance", card.distance, card.distance_limit),
        ("unexplained", card.error, card.error_limit),
    ):
        lines.append(f"{what} {value:.2f} ({f'limit {limit:.2f}' if np.isfinite(limit) else 'no limit'})")
    return plots.cube_estimates(
        card.slices[:3], card.recon[:3], card.box_size, card.k, card.power, card.model_power, card.edges, card.pdf,
        card.model_pdf, lines=lines, title=card.source,
    )  # fmt: skip
