"""Nats by dimension, and responses to a parameter, on what is known."""

import numpy as np
import pandas as pd
import pytest
import torch
from suites import lognormal_suite, tiny_config

from uvae_lib.analysis import responses
from uvae_lib.analysis.features import CubeEncoding
from uvae_lib.runs.encode import Posterior
from uvae_lib.training.fit import fit


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("responses")
    return fit(tiny_config(lognormal_suite(folder / "data"), steps=3), folder / "run", progress=False)


def posteriors(n: int = 6) -> list[CubeEncoding]:
    """Posteriors whose KL is known: dimension 3 of z has mean +-2, dimension 1 of h variance 1 / 4."""
    cubes, blank = [], torch.zeros(1, 1, 4, 4)
    for i in range(n):
        z = Posterior(torch.zeros(8), torch.zeros(8))
        z.mu[3] = 2 * (-1) ** i
        h = Posterior(torch.zeros(2, 8), torch.zeros(2, 8))
        h.logvar[:, 1] = np.log(0.25)
        cubes.append(CubeEncoding(i, blank, blank, blank, z, h, Posterior(torch.zeros(2, 8), torch.zeros(2, 8))))
    return cubes


def test_the_table_counts_nats_that_are_known():
    table = responses.kl_table(posteriors(), np.zeros((6, 8)), np.empty((6, 0)), [])
    first = table.groupby("latent").first()
    assert first.loc["z", "dim"] == 3 and first.loc["z", "kl"] == pytest.approx(2)
    assert first.loc["h", "dim"] == 1 and first.loc["h", "kl"] == pytest.approx(0.5 * (0.25 - 1 + np.log(4)))
    assert table.groupby("latent")["active"].sum().to_dict() == {"h": 0, "z": 1}


def test_the_table_knows_which_dimension_knows_what():
    rng = np.random.default_rng(0)
    params = rng.uniform(size=(200, 2))
    z = np.zeros((200, 8))
    z[:, 3] = params[:, 0]
    row = responses.kl_table(posteriors(), z, params).iloc[0]
    assert row["mi_Omega_m"] > 1 and row["mi_sigma_8"] < 0.2


def test_slopes_of_a_parabola_are_exact():
    x = np.array([0.1, 0.2, 0.3, 0.4, 0.5])
    assert responses.slope_weights(x, 0.3) @ (2 + 3 * x + 5 * x**2) == pytest.approx(3 + 10 * 0.3)


def test_one_value_has_no_slope():
    with pytest.raises(ValueError, match="needs at least 2"):
        responses.slope_weights(np.array([0.3]), 0.3)


def test_amplitudes_that_grow_with_the_parameter_have_the_response_that_is_known():
    field = torch.randn(6, 32, 32, generator=torch.Generator().manual_seed(0))
    values = np.array([0.6, 0.8, 1.0])
    slices = torch.stack([field * float(np.exp(x)) for x in values])  # ln P = 2 x + const
    found = responses.responses(slices, values, 0.8, 32.0)
    np.testing.assert_allclose(found["dlnP"][0], 2, atol=1e-3)


def test_a_model_that_answers_as_the_truth_has_no_mismatch_and_a_dead_one_has_one():
    truth = {"k": [1.0, 2.0, 3.0], "dlnP": [[1, 2, 3], [0, 1, 2], [2, 3, 4]], "dpdf": [[1, 1], [1, 1], [1, 1]]}
    dead = truth | {"dlnP": [[0, 0, 0]] * 3, "dpdf": [[0, 0]] * 3}
    assert responses.mismatch(truth, truth)["power"] == 0
    assert responses.mismatch(dead, truth)["power"] == 1 and responses.mismatch(dead, truth)["pdf"] == 1


class OneP:
    """As much of a 1P suite as `one_parameter` needs."""

    params = pd.DataFrame({"Omega_m": [0.1, 0.3, 0.5, 0.3, 0.3], "sigma_8": [0.8, 0.8, 0.8, 0.6, 1.0]})


def test_cubes_of_one_parameter_hold_the_others_fixed():
    cubes, values, fiducial = responses.one_parameter(OneP, "sigma_8")
    assert (cubes, values.tolist(), fiducial) == ([3, 1, 4], [0.6, 0.8, 1.0], {"Omega_m": 0.3, "sigma_8": 0.8})
