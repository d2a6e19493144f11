"""What P(k) of n planes can say of the parameters at best: a Gaussian Fisher forecast beside which probes stand."""

import numpy as np

from uvae_lib.statistics import rings

COUNTS = (1, 3, 15, 30)  # planes


def log_slopes(power: np.ndarray, params: np.ndarray, at: np.ndarray) -> np.ndarray:
    """d ln P / d theta at a point, of the quadratic nearest to the cubes.

    power   (n, n_k) ln P(k) of n cubes
    params  (n, p) their parameters
    at      (p,) the point
    Returns (p, n_k). Raises ValueError for fewer cubes than the quadratic has coefficients.
    """
    x, p = params - at, params.shape[1]
    i, j = np.triu_indices(p)
    terms = np.column_stack([np.ones(len(x)), x, x[:, i] * x[:, j]])
    if len(x) < terms.shape[1]:
        raise ValueError(f"found {len(x)} cubes, a quadratic of {p} parameters needs {terms.shape[1]}: use more cubes")
    return np.linalg.lstsq(terms, power, rcond=None)[0][1 : p + 1]


def fisher_errors(slopes: np.ndarray, modes: np.ndarray, n_planes: int, prior: np.ndarray) -> np.ndarray:
    """Errors of the parameters from n independent planes whose P(k) scatters by P sqrt(2 / modes), and the prior.

    slopes  (p, n_k) d ln P / d theta
    modes   (n_k,) of one plane, k and -k both counted
    prior   (p,) variance of each parameter before anything was seen
    Returns (p,), in units of the parameters. Tegmark, Taylor & Heavens (1997, arXiv:astro-ph/9603021), equation 15.
    """
    fisher = (slopes * (n_planes * modes / 2)) @ slopes.T + np.diag(1 / prior)
    return np.sqrt(np.diag(np.linalg.inv(fisher)))


def fisher_floor(
    power: np.ndarray, params: np.ndarray, names: list[str], size: int, counts: tuple[int, ...] = COUNTS
) -> dict:
    """R^2 and error that P(k) of n planes allows, at the mean of the training cubes and with their width as prior.

    P(k) is that of the log density, whose slopes and scatter are not those of the density.

    power   (n, n_k) ln of the mean P(k) of the planes of each training cube
    params  (n, p) their parameters, of these names, all of which vary
    size    of a plane [pixels]
    Optimistic: planes are independent, modes Gaussian, other parameters known.
    Returns {"sizes": counts, "r2", "error": a list by name of the parameter, one number for each count}.
    """
    prior = params.var(axis=0)
    slopes = log_slopes(power, params, params.mean(axis=0))
    modes = rings(size, nearest=False).count[1 : size // 2]  # in the bins of `power_spectrum`
    errors = np.array([fisher_errors(slopes, modes, n, prior) for n in counts])
    found = {"r2": 1 - errors**2 / prior, "error": errors}
    named = {key: dict(zip(names, x.T.tolist(), strict=True)) for key, x in found.items()}
    return {"sizes": list(counts)} | named
