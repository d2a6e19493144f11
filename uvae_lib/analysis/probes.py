"""Ridge regressions from features of cubes to their parameters."""

from typing import NamedTuple

import numpy as np

from ..statistics import r2


class ProbeResult(NamedTuple):
    """A regression from features to parameters, judged on cubes that it did not see.

    predicted (m, p)
    r2 (p,)           NaN where the parameter does not vary
    error (p,)        root mean squared, in the units of the parameter
    """

    predicted: np.ndarray
    r2: np.ndarray
    error: np.ndarray


def ridge():
    """A ridge regression, of its own strength for each parameter, by leaving one training cube out (scikit-learn)."""
    from sklearn.linear_model import RidgeCV

    return RidgeCV(alphas=np.geomspace(1e-6, 1e4, 41), alpha_per_target=True)


def probe(train: np.ndarray, train_params: np.ndarray, test: np.ndarray, test_params: np.ndarray) -> ProbeResult:
    """`ridge` from features of training cubes to parameters, judged on other cubes.

    train, test                 (n, d), (m, d), one row a cube
    train_params, test_params   (n, p), (m, p)
    """
    predicted = ridge().fit(train, train_params).predict(test).reshape(test_params.shape)
    error = np.sqrt(np.square(predicted - test_params).mean(axis=0))
    return ProbeResult(predicted, r2(test_params, predicted), error)
