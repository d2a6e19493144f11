"""The weights that come with the project: they load, and they are the model that the results speak of."""

from pathlib import Path

import pytest
import torch

from uvae_lib import latents
from uvae_lib.runs import load_run
from uvae_lib.simulate import simulate_cube

FOLDER = Path(__file__).parents[1] / "weights" / "reference"


@pytest.fixture(scope="module")
def run():
    return load_run(FOLDER)


@pytest.fixture(scope="module")
def slices(run):
    """Slices of a universe that is simulated on the spot with a seed that no suite uses."""
    sim = run.config.simulation
    return latents.cut_cube(run, simulate_cube(0.3, 0.8, 2026, sim.side, sim.box_size, sim.n_steps), 6)


def test_the_weights_take_less_than_50_megabytes():
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 50e6


def test_they_reconstruct_a_universe_that_no_training_saw_better_than_its_largest_modes(run, slices):
    recon = latents.reconstruct(run, slices)
    modes = run.model.decoder_h.modes
    linear = modes.inverse(modes(slices))
    assert (slices - recon).square().mean() < 0.97 * (slices - linear).square().mean()


def test_z_tells_a_universe_from_its_opposite(run, slices):
    sim = run.config.simulation
    other = latents.cut_cube(run, simulate_cube(0.15, 0.95, 2027, sim.side, sim.box_size, sim.n_steps), 6)
    with torch.inference_mode():
        here, again, there = (latents.encode_cube(run, x).mu for x in (slices[:3], slices[3:], other[:3]))
    assert (here - again).norm() < 0.5 * (here - there).norm()
