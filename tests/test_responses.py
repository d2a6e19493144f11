"""Responses to a parameter, and what is read of asked parameters, on what is known."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from suites import lognormal_suite, tiny_config

from uvae_lib.analysis import responses
from uvae_lib.analysis.features import encode_suite
from uvae_lib.training.fit import fit


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("responses")
    return fit(tiny_config(lognormal_suite(folder / "data"), steps=3), folder / "run", progress=False)


@pytest.mark.parametrize(("values", "at"), [([0.6, 0.8, 1.0], 0.8), ([0.1, 0.3, 0.4, 0.5], 0.2), ([0.6, 1.0], 0.8)])
def test_amplitudes_that_grow_with_the_parameter_have_the_response_that_is_known(values, at):
    field = torch.randn(6, 32, 32, generator=torch.Generator().manual_seed(0))
    slices = torch.stack([field * float(np.exp(x + x**2)) for x in values])  # ln P = 2 (x + x^2) + const
    found = responses.responses(slices, np.array(values), at, 32.0)
    np.testing.assert_allclose(found["dlnP"][0], 2 + 4 * at, atol=1e-3)


class OneP:
    """As much of a 1P suite as `cubes_along` needs."""

    params = pd.DataFrame({"Omega_m": [0.1, 0.3, 0.5, 0.3, 0.3], "sigma_8": [0.8, 0.8, 0.8, 0.6, 1.0]})


def test_cubes_of_cubes_along_hold_the_others_fixed():
    cubes, values, fiducial = responses.cubes_along(OneP, "sigma_8")
    assert (cubes, values.tolist(), fiducial) == ([3, 1, 4], [0.6, 0.8, 1.0], {"Omega_m": 0.3, "sigma_8": 0.8})


def test_the_path_of_the_closure_is_read_as_asked(run):
    """A sheet through exact z, read by the ridge; drawn slices have a reading for every point."""
    table = encode_suite(run, run.open_suite(), 3)
    z = np.zeros(table.mu.shape)
    z[..., 0] = table.params[:, 1, None]
    exact = replace(table, mu=z)
    found = responses.closure(run, exact, side=3, n_slices=3)
    assert np.shape(found["asked"]) == np.shape(found["read"]) == (3, 2)  # Omega_m does not vary
    np.testing.assert_allclose(found["path"], found["asked"], atol=1e-3)


def test_walks_have_the_truth_where_a_set_has_it_and_none_elsewhere(run):
    suite = run.open_suite()
    table = encode_suite(run, suite, 3)
    alone = responses.parameter_walks(run, table, None, n_slices=2)
    assert set(alone) == {"sigma_8"} and set(alone["sigma_8"]) == {"mean", "completed"}
    beside = responses.parameter_walks(run, table, suite, n_slices=2)
    assert set(beside["sigma_8"]) == {"mean", "completed", "simulated"}
