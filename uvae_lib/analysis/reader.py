"""The posterior of cubes as a page shows it: draws for a figure, and a widget."""

from functools import partial

import numpy as np
import torch

from ..cubes.suite import CubeSuite
from ..files import Absent
from ..runs.run import Run
from .controls import familiarity
from .features import suite_features
from .posterior import load_posterior


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


def share_inside(posterior: dict | Absent, level: float) -> str:
    """The shares of test cubes that are found in regions of a level (0 to 1), by parameter, as a text.

    posterior   of `evaluate_run`
    """
    if isinstance(posterior, Absent):
        return posterior
    inside = {name: np.interp(level, posterior["levels"], shares) for name, shares in posterior["coverage"].items()}
    return ", ".join(f"{name} {share:.0%}" for name, share in inside.items())
