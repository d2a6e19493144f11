"""The weights that come with the project: they load, and they are the model that the results speak of."""

import json
from pathlib import Path

import pytest
import torch

from uvae_lib.analysis.posterior import load_posterior
from uvae_lib.runs.encode import cut_cube, encode_cube, reconstruct
from uvae_lib.runs.run import load_run
from uvae_lib.simulation.suite import simulate_cube
from uvae_lib.statistics import cross_correlation

FOLDER = Path(__file__).parents[1] / "weights" / "note"
UNIVERSES = {(0.3, 0.8): 2026, (0.15, 0.95): 2027, (0.4, 0.7): 2028}  # Omega_m, sigma_8: seeds that no suite uses


@pytest.fixture(scope="module")
def run():
    return load_run(FOLDER)


@pytest.fixture(scope="module")
def metrics():
    return json.loads((FOLDER / "metrics.json").read_text())


@pytest.fixture(scope="module")
def cubes(run):
    """Slices (6, 1, H, H) of universes that are simulated on the spot."""
    sim = run.config.simulation
    simulated = (simulate_cube(*of, seed, sim.side, sim.box_size, sim.n_steps) for of, seed in UNIVERSES.items())
    return [cut_cube(run, cube, 6) for cube in simulated]


@pytest.fixture(scope="module")
def recon(run, cubes):
    return torch.cat([reconstruct(run, slices) for slices in cubes])


def test_the_weights_take_less_than_50_megabytes():
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 50e6


def test_the_stored_metrics_are_met_again(run, metrics, cubes, recon):
    stored, truth = metrics["reconstruction"], torch.cat(cubes)
    fvu = (truth - recon).square().mean() / truth.var(correction=0)
    assert fvu.item() == pytest.approx(stored["fvu"], rel=0.15)
    _, r = cross_correlation(truth[:, 0], recon[:, 0], run.image_box)
    torch.testing.assert_close(r.mean(dim=0)[:6], torch.tensor(stored["r"])[:6], atol=0.1, rtol=0)


def test_the_posterior_finds_universes_of_seeds_that_no_suite_uses(run, cubes):
    posterior, generator = load_posterior(run), torch.Generator().manual_seed(0)
    for slices, truth in zip(cubes, UNIVERSES, strict=True):
        theta = posterior.sample(encode_cube(run, slices).mu, len(slices), 1000, generator).mean(dim=0)
        assert (theta - torch.tensor(truth)).abs().max() < 0.15
