"""Encoding, decoding and probing with a model that was really trained, if only for a few steps."""

import numpy as np
import pytest
import torch
from suites import lognormal_suite, tiny_config

from uvae_lib.analysis.metrics import probe
from uvae_lib.generation.sample import sample_slices
from uvae_lib.runs.encode import (
    Posterior,
    decode,
    encode_cube,
    encode_others,
    encode_slices,
    most_slices,
    neighbours,
    prior_of_h,
    reconstruct,
    reconstruct_given_others,
    set_features,
    spread_slices,
)
from uvae_lib.runs.traverse import decode_universe, parameter_sheet, place_of, traverse, typical_noise
from uvae_lib.statistics import r2
from uvae_lib.training.fit import fit


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("latents")
    config = tiny_config(lognormal_suite(folder / "data", n_cubes=8), steps=6)
    return fit(config, folder / "run", progress=False)


@pytest.fixture(scope="module")
def suite(run):
    return run.open_suite()


@pytest.fixture(scope="module")
def slices(run, suite):
    return spread_slices(run, suite, 0, 6)


def test_spread_slices_come_from_different_planes_of_all_axes(run, suite):
    y = suite.overdensity(0)
    found = spread_slices(run, suite, 0, 6)
    planes = run.to_pixels(torch.from_numpy(np.concatenate([np.moveaxis(y, a, 0) for a in range(3)])))
    sorted_planes = planes.flatten(1).sort(dim=1).values
    owner = [int((sorted_planes - s.flatten().sort().values).abs().sum(dim=1).argmin()) for s in found]
    assert len(set(owner)) == 6
    assert sorted(i // suite.side for i in owner) == [0, 0, 1, 1, 2, 2]


def test_shifted_slices_lie_between_the_others(run, suite):
    y = torch.from_numpy(suite.overdensity(0))
    planes = run.to_pixels(y).flatten(1).sort(dim=1).values

    def owners(slices):  # of axis 0
        found = slices[::3].flatten(1).sort(dim=1).values
        return [int((planes - x).abs().sum(dim=1).argmin()) for x in found]

    some, further = (owners(spread_slices(run, suite, 0, 12, shift=shift)) for shift in (0, 0.5))
    assert [(b - a) % suite.side for a, b in zip(some, further, strict=True)] == [4] * 4
    assert most_slices(run, suite) == 96


def test_no_slice_is_in_its_own_context_and_others_are_cyclic_neighbours():
    found = neighbours(5, 2, skip=1)
    assert found.diagonal().sum() == 0 and found[4].tolist() == [1, 1, 0, 0, 0] and (found.sum(dim=1) == 2).all()


def test_a_slice_is_reconstructed_given_the_others_alone(run, slices):
    changed = slices.clone()
    changed[0] = 0
    z, z_changed = (encode_others(run, set_features(run, x)) for x in (slices, changed))
    torch.testing.assert_close(z[0], z_changed[0])
    assert not torch.equal(z[5], z_changed[5])
    recon = reconstruct_given_others(run, slices)
    torch.testing.assert_close(recon, decode(run, encode_slices(run, slices, z).mu))


def test_a_universe_at_one_place_is_decoded_by_its_prior(run):
    z, place = torch.randn(2, 512, generator=torch.Generator().manual_seed(0)), torch.ones(2, 512)
    prior = prior_of_h(run, z)
    expected = decode(run, prior.mu + (0.5 * prior.logvar).exp())
    torch.testing.assert_close(decode_universe(run, z, place), expected)


def test_more_slices_than_planes_are_refused(run, suite):
    with pytest.raises(ValueError, match="has 96 that differ"):
        spread_slices(run, suite, 0, 97)


def test_encode_cube_is_the_model_on_a_set_of_the_trained_size(run, slices):
    size = run.config.training.set_size - 1
    found = encode_cube(run, slices[:size])
    zs = run.model.encoder(slices[:size], torch.zeros(size, 512))[0]
    mu, logvar = run.model.deep_set(zs[None])[0].chunk(2)
    torch.testing.assert_close(found.mu, mu)
    torch.testing.assert_close(found.logvar, logvar)


def test_of_more_slices_means_are_averaged_and_precisions_beyond_the_prior_add_up(run, slices):
    pairs = [encode_cube(run, slices[[i, (i + 1) % 3]]) for i in range(3)]
    three = encode_cube(run, slices[:3])
    torch.testing.assert_close(three.mu, sum(pair.mu for pair in pairs) / 3)
    precision = sum((-pair.logvar).exp() for pair in pairs) / 3
    expected = torch.where(precision > 1, 1 + 1.5 * (precision - 1), precision)
    torch.testing.assert_close((-three.logvar).exp(), expected)


def test_typical_noise_is_as_wide_as_a_draw_and_moves_no_direction_in_which_universes_differ():
    generator = torch.Generator().manual_seed(0)
    ways = torch.linalg.qr(torch.randn(512, 2, generator=generator)).Q
    mu = 20 * torch.randn(30, 2, generator=generator) @ ways.T
    z = Posterior(mu, torch.full((30, 512), -1.0))
    noise = typical_noise(z)
    assert float(noise.square().mean()) == pytest.approx(np.exp(-1), rel=0.15)
    assert (noise @ ways).abs().max() < 1e-4 and torch.equal(noise, typical_noise(z))


def test_reconstruct_decodes_the_posterior_mean(run, slices):
    z = encode_cube(run, slices[2:4]).mu
    h = run.model.encoder(slices[:2], z.expand(2, -1))[1][:, :512]
    torch.testing.assert_close(reconstruct(run, slices[:2], slices[2:4]), run.model.decoder_h(h))


def test_samples_are_a_function_of_the_generator(run, slices):
    z = encode_cube(run, slices[:2])
    draws = [sample_slices(run, z, 3, torch.Generator().manual_seed(s)) for s in (0, 0, 1)]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])
    assert draws[0].shape == (3, 1, 32, 32)


def test_slices_of_many_universes_follow_each_of_them(run):
    z = Posterior(torch.randn(3, 512), torch.full((3, 512), -torch.inf))
    drawn = [sample_slices(run, z, 3, torch.Generator().manual_seed(0)) for _ in range(2)]
    assert drawn[0].shape == (3, 1, 32, 32) and torch.equal(*drawn)


def test_traversal_of_h_starts_at_the_anchor(run, slices):
    anchor = encode_slices(run, slices[:1], torch.zeros(512)).mu[0]
    frames = traverse(run, anchor, torch.eye(512)[3], torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(frames[0], decode(run, anchor[None])[0])
    assert not torch.equal(frames[0], frames[1])


def test_a_universe_keeps_the_place_of_an_h(run, slices):
    z = encode_cube(run, slices[:2]).mu
    anchor = encode_slices(run, slices[:1], z).mu
    here, there = (prior_of_h(run, (z + s)[None]) for s in (0.0, 2.0))
    place = (anchor - here.mu) / (0.5 * here.logvar).exp()
    torch.testing.assert_close(place_of(run, z, anchor), place)
    moved = there.mu + place * (0.5 * there.logvar).exp()
    torch.testing.assert_close(decode_universe(run, z + 2, place), decode(run, moved))


def test_probe_finds_a_linear_parameter_and_no_noise():
    rng = np.random.default_rng(0)
    z = rng.standard_normal((200, 20))
    params = np.column_stack([z[:, 0] + 2 * z[:, 1], rng.standard_normal(200)])
    found = probe(z[:150], params[:150], z[150:])
    assert found.shape == (50, 2) and r2(params[150:], found)[0] > 0.99 and r2(params[150:], found)[1] < 0.2


def test_a_curved_sheet_is_followed_where_a_line_leaves_it():
    rng = np.random.default_rng(0)
    params = rng.uniform([0.1, 0.6], [0.5, 1.0], (200, 2))
    x = (params - [0.3, 0.8]) / 0.1

    def curved(x):
        return np.column_stack([x[:, 0], x[:, 1] ** 2, x[:, 0] * x[:, 1], x.sum(axis=1)])

    sheet = parameter_sheet(curved(x) + 0.01 * rng.standard_normal((200, 4)), params)
    asked = np.array([[0.15, 0.7], [0.3, 0.95]])
    np.testing.assert_allclose(sheet(asked), curved((asked - [0.3, 0.8]) / 0.1), atol=0.03)


@pytest.mark.parametrize("n", [4, 12])
def test_few_cubes_give_a_plane_and_a_parameter_that_does_not_vary_no_slope(n):
    rng = np.random.default_rng(0)
    params = np.column_stack([np.full(n, 0.3), rng.uniform(0.6, 1.0, n)])
    sheet = parameter_sheet(params[:, 1:] * [[1.0, 2.0]], params)
    np.testing.assert_allclose(sheet(np.array([[0.3, 0.9], [0.9, 0.9]])), [[0.9, 1.8]] * 2, atol=1e-5)
