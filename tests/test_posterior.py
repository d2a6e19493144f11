"""The neural posterior of the parameters, on z whose posterior is known."""

from copy import deepcopy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.stats import truncnorm

from uvae_lib.analysis import posterior
from uvae_lib.analysis.features import FeatureTable
from uvae_lib.runs.run import weights_key

SIZES, NOISE, DIM = np.array([1, 4, 15]), 0.4, 12


def table(n: int, seed: int) -> FeatureTable:
    """Cubes whose z has the two parameters in two directions, with noise that n slices make sqrt(n) times smaller."""
    rng = np.random.default_rng(seed)
    params = rng.uniform([0.1, 0.6], [0.5, 1.0], (n, 2))
    z = rng.standard_normal((n, len(SIZES), 3, DIM)) * NOISE / np.sqrt(SIZES)[:, None, None]
    z[..., :2] += ((params - [0.3, 0.8]) / 0.1)[:, None, None]
    empty = np.zeros((n, len(SIZES), 0))
    return FeatureTable(
        cubes=np.arange(n), names=np.array(["Omega_m", "sigma_8"]), params=params, sizes=SIZES, mu=z[:, :, 0],
        logvar=z[:, :, 0], random_sets=z[:, :, 1:], power=empty, pdf=empty, moments=empty, by_axis=empty,
    )  # fmt: skip


@pytest.fixture(scope="module")
def found():
    return posterior.fit_posterior(table(300, 0), table(60, 1))


@pytest.fixture(scope="module")
def judged(found):
    return posterior.posterior_metrics(found, table(200, 2))


def test_the_posterior_is_as_wide_as_the_noise(found, judged):
    z = torch.from_numpy(table(200, 2).z()).float()
    low, high = np.quantile(found.sample(z, 15, 500, torch.Generator().manual_seed(0)), [0.16, 0.84], axis=0)
    assert (high - low).mean(axis=0) / 2 == pytest.approx(0.1 * NOISE / np.sqrt(15), rel=0.25)
    assert min(judged["r2"].values()) > 0.98


def test_coverage_is_within_three_times_the_scatter_of_chance(judged):
    scatter = np.sqrt(posterior.LEVELS * (1 - posterior.LEVELS) / 200)
    assert set(judged["coverage"]) == {"Omega_m", "sigma_8", "both"}
    for shares in judged["coverage"].values():
        assert (np.abs(np.array(shares) - posterior.LEVELS) < 3 * scatter).all()


def test_fewer_slices_make_a_wider_posterior_and_the_prior_is_its_edge(found):
    z, generator = torch.zeros(DIM), torch.Generator().manual_seed(0)
    one, many = (found.sample(z, n, 2000, generator) for n in (1, 15))
    assert (one.std(dim=0) > 2 * many.std(dim=0)).all()
    far = found.sample(torch.full((DIM,), 9.0), 1, 500, generator)
    assert ((far >= found.low) & (far <= found.high)).all()


@pytest.mark.parametrize("params", [(0.3, 0.8), (0.11, 0.75), (0.2, 0.99)])
def test_mean_and_width_are_those_of_the_noise_cut_at_the_prior(found, params):
    """The law of z = parameters + noise is a Gaussian about what z says, cut at the edges of the prior."""
    said, noise = np.array(params), 0.1 * NOISE / np.sqrt(15)
    law = truncnorm(([0.1, 0.6] - said) / noise, ([0.5, 1.0] - said) / noise, loc=said, scale=noise)
    z = torch.zeros(DIM)
    z[:2] = torch.from_numpy((said - [0.3, 0.8]) / 0.1)
    draws = found.sample(z, 15, 4000, torch.Generator().manual_seed(0)).numpy()
    assert (np.abs(draws.mean(axis=0) - law.mean()) < 0.6 * noise).all()
    np.testing.assert_allclose(draws.std(axis=0), law.std(), rtol=0.4)


def test_weights_and_their_export_have_one_digest():
    weights, other = torch.nn.Linear(3, 3), torch.nn.Linear(3, 3)
    rounded = deepcopy(weights).bfloat16().float()
    keys = [weights_key(SimpleNamespace(model=x), dtype=torch.bfloat16)
            for x in (weights, rounded, other)]  # fmt: skip
    assert keys[0] == keys[1] != keys[2]


def test_a_posterior_is_stored_and_read_back(tmp_path, monkeypatch):
    train, monkey = table(60, 0), monkeypatch
    monkey.setattr(posterior, "weights_key", lambda run, *settings, dtype=None: str(settings))
    monkey.setattr(posterior, "STEPS", 5)
    run = SimpleNamespace(folder=tmp_path, split={"train": list(range(50)), "val": list(range(50, 60))})
    with pytest.raises(ValueError, match="evaluate"):
        posterior.load_posterior(run)
    made = posterior.run_posterior(run, train)
    again = posterior.load_posterior(run)
    monkey.setattr(posterior, "fit_posterior", None)
    draws = [x.sample(torch.zeros(DIM), 15, 9, torch.Generator().manual_seed(0)) for x in (made, again)]
    torch.testing.assert_close(*draws)
    torch.testing.assert_close(posterior.run_posterior(run, train).weight, made.weight)
    assert posterior.run_posterior(SimpleNamespace(folder=tmp_path, split={"train": [0, 1], "val": [2]}), train) is None
