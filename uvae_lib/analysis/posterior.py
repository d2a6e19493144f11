"""p(Omega_m, sigma_8 | z): a small autoregressive flow on z, learned from training cubes and judged on test cubes.

The flow is given what a linear map reads in z, the parameters and the main directions of z, and the number of slices
that z was read from. `load_posterior` reads it from the run folder, where `run_posterior` stores it.
"""

import json
from functools import partial

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Generator, Tensor, nn

from ..cubes.suite import CubeSuite
from ..files import Absent, write_atomically
from ..runs.run import Run, weights_key
from .controls import familiarity
from .features import FeatureTable, suite_features
from .metrics import main_directions, ridge, score

FEWEST_CUBES = 32  # training cubes that teach a flow
LEVELS = np.linspace(0.05, 0.95, 19)  # of regions whose coverage is counted
N_MAIN = 6  # main directions of z beside the parameters that a ridge reads
FOLDS = 5
STEPS, PATIENCE, BATCH = 800, 5, 256  # at most; checks on validation cubes without a better one, every 50 steps
FILE = "posterior.safetensors"


class ParameterPosterior(nn.Module):
    """p(parameters | z, number of slices), zero outside the box of the prior.

    names      of the p parameters;  low, high (p,) the prior's box, inside which the training cubes are uniform
    weight, bias (c, D), (c,)   what is read from z;  centre, scale (c + 1,) of that and of ln(number of slices)
    """

    def __init__(self, names: list[str], latent_dim: int):
        from zuko.flows import MAF  # smooth: splines cut regions off where a few slices are read

        super().__init__()
        p, c = len(names), len(names) + N_MAIN
        self.names = list(names)
        shapes = {"low": p, "high": p, "weight": (c, latent_dim), "bias": c, "centre": c + 1, "scale": c + 1}
        for name, shape in shapes.items():
            self.register_buffer(name, torch.zeros(shape) + (name == "scale"))
        self.flow = MAF(p, context=c + 1, transforms=3, hidden_features=(32, 32))

    def log_prob(self, params: Tensor, given: Tensor) -> Tensor:
        """ln p of parameters (n, p) in their box, given contexts (n, c + 1): (n,), up to the logits' Jacobian."""
        unit = ((params - self.low) / (self.high - self.low)).clamp(1e-6, 1 - 1e-6)
        return self.flow(given).log_prob(torch.logit(unit) - self.start(given))

    def start(self, given: Tensor) -> Tensor:
        """Logits, in the box, of the parameters that the ridge reads: where the flow starts from."""
        p = len(self.names)
        read = given[..., :p] * self.scale[:p] + self.centre[:p]
        return torch.logit(((read - self.low) / (self.high - self.low)).clamp(0.02, 0.98))

    def context(self, read: Tensor, n_slices: Tensor) -> Tensor:
        """What the flow is given: read (..., c) from z of so many slices (...) -> (..., c + 1)."""
        return (torch.cat([read, n_slices.float().log()[..., None]], dim=-1) - self.centre) / self.scale

    @torch.inference_mode()
    def sample(self, z: Tensor, n_slices: int, n: int, generator: Generator) -> Tensor:
        """Draws from the posterior given the mean z (D,) or (m, D) of q(z | n_slices slices): (n, p) or (n, m, p)."""
        read = z @ self.weight.T + self.bias
        given = self.context(read, torch.full(read.shape[:-1], n_slices))
        white = torch.randn(n, *read.shape[:-1], len(self.names), generator=generator)
        logits = self.start(given) + self.flow(given).transform.inv(white)
        return self.low + (self.high - self.low) * torch.sigmoid(logits)


def fit_posterior(train: FeatureTable, val: FeatureTable, n_slices: int = 15, seed: int = 0) -> ParameterPosterior:
    """Learn p(parameters | z) from sets of slices of every size of training cubes.

    A training cube is read by ridges that did not see it, so that the flow learns the errors that new cubes have; new
    cubes are read by the mean of these ridges. The weights are those with the largest validation likelihood.
    """
    varies = np.ptp(train.params, axis=0) > 1e-9
    names = train.names[varies].tolist()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        found = ParameterPosterior(names, train.mu.shape[-1])
        params, held = (torch.from_numpy(table.params[:, varies]).float() for table in (train, val))
        edge = (params.amax(dim=0) - params.amin(dim=0)) / len(params)
        found.low, found.high = params.amin(dim=0) - edge, params.amax(dim=0) + edge
        read = _read_train(found, train.sets(), train.z(n_slices), params.numpy(), seed)
        new = torch.from_numpy(val.sets()).float() @ found.weight.T + found.bias  # (n, s, g, c)
        sizes = torch.from_numpy(train.sizes)[:, None]
        given = [found.context(x, sizes.expand(x.shape[:-1])).flatten(0, 2) for x in (read, new)]
        found.centre, found.scale = given[0].mean(dim=0), given[0].std(dim=0).clamp_min(1e-6)
        given = [(x - found.centre) / found.scale for x in given]
        known = [y.repeat_interleave(len(x) // len(y), dim=0) for x, y in zip(given, (params, held), strict=True)]
        return _train(found, *zip(given, known, strict=True))


def _read_train(found: ParameterPosterior, sets: np.ndarray, z: np.ndarray, params: np.ndarray, seed: int) -> Tensor:
    """Sets the linear map of `found` and reads sets (n, s, g, D) of training cubes, each by ridges of other cubes."""
    from sklearn.model_selection import KFold

    rows, main = main_directions(z, N_MAIN)[1], np.zeros((N_MAIN, z.shape[1]))
    main[: len(rows)] = rows
    read, fits = np.zeros((*sets.shape[:3], params.shape[1])), []
    for others, own in KFold(FOLDS, shuffle=True, random_state=seed).split(z):
        fitted = ridge().fit(z[others], params[others])
        fits.append((fitted.coef_.reshape(params.shape[1], -1), np.atleast_1d(fitted.intercept_)))
        read[own] = sets[own] @ fits[-1][0].T + fits[-1][1]
    weight, bias = (np.mean(parts, axis=0) for parts in zip(*fits, strict=True))
    found.weight = torch.from_numpy(np.concatenate([weight, main])).float()
    found.bias = torch.from_numpy(np.concatenate([bias, np.zeros(N_MAIN)])).float()
    return torch.from_numpy(np.concatenate([read, sets @ main.T], axis=-1)).float()


def _train(found: ParameterPosterior, train: tuple[Tensor, Tensor], val: tuple[Tensor, Tensor]) -> ParameterPosterior:
    """Maximum likelihood with early stopping; contexts and parameters, one row a set."""
    optimiser = torch.optim.AdamW(found.flow.parameters(), lr=5e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS)
    best, kept, checks = -np.inf, {}, 0
    for step in range(STEPS):
        if step % 50 == 0:
            with torch.no_grad():
                score = float(found.log_prob(val[1], val[0]).mean())
            best, checks = (score, 0) if score > best else (best, checks + 1)
            if checks == 0:
                kept = {name: value.clone() for name, value in found.flow.state_dict().items()}
            if checks > PATIENCE:
                break
        chosen = torch.randint(len(train[0]), (BATCH,))
        loss = -found.log_prob(train[1][chosen], train[0][chosen]).mean()
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(found.flow.parameters(), 5.0)
        optimiser.step()
        schedule.step()
    found.flow.load_state_dict(kept)
    return found.eval().requires_grad_(False)


def run_posterior(run: Run, table: FeatureTable, n_slices: int = 15) -> ParameterPosterior | None:
    """The posterior from the run folder where these weights and parameters made it, else learned and stored.

    table   of the run's suite

    None where no parameter varies, with fewer than FEWEST_CUBES training cubes or without validation cubes.
    """
    train, val = (table.rows(run.split[part]) for part in ("train", "val"))
    if len(train.cubes) < FEWEST_CUBES or not len(val.cubes) or not (np.ptp(train.params, axis=0) > 1e-9).any():
        return None
    cubes = weights_key(run, "MAF", train.params.tolist(), table.sizes.tolist(), float(train.mu.sum()), n_slices)
    path = run.folder / FILE
    if not path.exists() or _notes(path)["cubes"] != cubes:
        found = fit_posterior(train, val, n_slices)
        about = {"names": found.names, "weights": weights_key(run, dtype=torch.bfloat16), "cubes": cubes}
        state = {name: value.contiguous() for name, value in found.state_dict().items()}
        write_atomically(path, save(state, {"about": json.dumps(about)}))
    return load_posterior(run)


def load_posterior(run: Run) -> ParameterPosterior:
    """The posterior of a run, from its folder. Raises ValueError where there is none, or one of other weights."""
    path = run.folder / FILE
    if not path.exists():
        raise ValueError(f"{path} is not there; `python -m uvae_lib evaluate --run {run.folder}` makes it of 32 cubes")
    about = _notes(path)
    if about["weights"] != weights_key(run, dtype=torch.bfloat16):  # also that of an exported run
        raise ValueError(f"{path} belongs to other weights; remove it and evaluate {run.folder} again")
    state = load_file(path)
    with torch.random.fork_rng(devices=[]):
        found = ParameterPosterior(about["names"], state["weight"].shape[1])
    found.load_state_dict(state)
    return found.eval().requires_grad_(False)


def _notes(path) -> dict:
    """What `run_posterior` wrote into the header of the file."""
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()["about"])


def posterior_metrics(found: ParameterPosterior, test: FeatureTable, n_slices: int = 15, seed: int = 0) -> dict:
    """`score` of the means on test cubes and expected coverage.

    coverage   by parameter, share of cubes in central intervals of each of LEVELS; "both": in regions about random
               points of the box (TARP, Lemos et al. 2023, arXiv:2302.03026), one point a cube
    """
    generator, i = torch.Generator().manual_seed(seed), test.at(n_slices)
    truth = test.params[:, [test.names.tolist().index(name) for name in found.names]]
    z, n = torch.from_numpy(test.mu[:, i]).float(), int(test.sizes[i])
    draws = found.sample(z, n, 500, generator).double().numpy()  # (500, m, p)
    low, size = found.low.numpy(), (found.high - found.low).numpy()
    points = torch.rand(truth.shape, generator=generator).numpy()
    unit, true = (draws - low) / size, (truth - low) / size
    nearer = np.square(unit - points).sum(axis=-1) < np.square(true - points).sum(axis=-1)
    central = 2 * np.abs((draws < truth).mean(axis=0) - 0.5)
    shares = dict(zip(found.names, central.T, strict=True)) | {"both": nearer.mean(axis=0)}
    return score(truth, draws.mean(axis=0), found.names) | {
        "levels": LEVELS.tolist(),
        "coverage": {name: (x[:, None] <= LEVELS).mean(axis=0).tolist() for name, x in shares.items()},
    }


# --- as a page shows it


def posterior_draws(run: Run, found: dict, z: np.ndarray, n: int = 20_000, seed: int = 0) -> np.ndarray | Absent:
    """Draws (n, p) from p(parameters | z), z (D,) the mean of q(z | slices); why there are none, where it is absent.

    found   of `evaluate_run`
    """
    if "posterior" not in found:
        return found["posterior"]
    generator, mean = torch.Generator().manual_seed(seed), torch.from_numpy(z).float()
    return load_posterior(run).sample(mean, found["slices_per_cube"], n, generator).numpy()


def cube_reader(run: Run, found: dict, suite: CubeSuite) -> "CubeReader | Absent":  # noqa: F821
    """A `CubeReader` of the first test cube, with its badge; the reason where the run has no posterior.

    found   of `evaluate_run` on the suite
    """
    if "posterior" not in found:
        return found["posterior"]
    from ..explore import CubeReader

    known = familiarity(run, suite_features(run, suite), found["controls"]["unseen_errors"])
    likeness = partial(known.of_slices, run)
    return CubeReader(run, load_posterior(run), suite, cube=run.split["test"][0], likeness=likeness)


def coverage_gaps(posterior: dict | Absent) -> dict[str, float]:
    """Largest distance, over all levels, between the share of cubes in the posterior's regions and what they state.

    posterior   of `evaluate_run`
    """
    if isinstance(posterior, Absent):
        return {"posterior": posterior}
    return {name: np.abs(np.subtract(x, posterior["levels"])).max() for name, x in posterior["coverage"].items()}
