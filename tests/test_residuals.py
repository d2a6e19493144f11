"""The noise that decoded means lack, on residuals whose law is known."""

import pytest
import torch

from uvae_lib.variants.likelihoods import SpectralLikelihood
from uvae_lib.variants.residuals import fit_corrections, fit_noise, fit_pixel_map

SIZE, N_CUBES, N_SLICES = 32, 48, 8


def coloured(n: int, slope: float, seed: int) -> torch.Tensor:
    """Gaussian fields (n, 1, SIZE, SIZE) of unit variance with power (1 + |k|)^slope."""
    likelihood = SpectralLikelihood(SIZE).eval()
    likelihood.power.copy_((1 + torch.arange(len(likelihood.power))) ** slope)
    field = likelihood.noise((n, 1, SIZE, SIZE), torch.Generator().manual_seed(seed), "cpu")
    return field / field.std()


@pytest.fixture(scope="module")
def known():
    """Residuals whose amplitude is exp(z_0 / 2) and grows with the decoded value, skewed: cube by cube."""
    z = torch.randn(N_CUBES, 512, generator=torch.Generator().manual_seed(0))
    recon = coloured(N_CUBES * N_SLICES, -3.0, 1).unflatten(0, (N_CUBES, N_SLICES))
    normal = coloured(N_CUBES * N_SLICES, -1.0, 2).unflatten(0, (N_CUBES, N_SLICES))
    skewed = (normal.mul(0.5).exp() - torch.tensor(0.125).exp()) * (0.5 * recon).exp()
    truth = recon + skewed * (0.5 * z[:, 0]).exp()[:, None, None, None, None]
    z[:, 1:] *= 0.01
    return fit_noise(list(truth), list(recon), z, periodic=True), truth, recon, z


def drawn(known, cubes) -> torch.Tensor:
    noise, _, recon, z = known
    generator = torch.Generator().manual_seed(5)
    return torch.stack([noise.draw(recon[i], z[i].expand(N_SLICES, -1), generator) for i in cubes])


def test_the_spectrum_of_the_noise_is_that_of_the_residuals(known):
    noise, truth, recon, _ = known
    fields = (truth - recon).flatten(0, 1), drawn(known, range(N_CUBES)).flatten(0, 1)
    found = [noise.rings.residual_power(torch.zeros_like(x), x).mean(dim=0)[1:17] for x in fields]
    torch.testing.assert_close(found[1], found[0], rtol=0.2, atol=0)


def test_its_amplitude_follows_the_universe(known):
    _, truth, recon, _ = known
    amplitude = [x.std(dim=(1, 2, 3, 4)).log() for x in (truth - recon, drawn(known, range(N_CUBES)))]
    assert torch.corrcoef(torch.stack(amplitude))[0, 1] > 0.9


def test_its_amplitude_follows_the_decoded_value(known):
    _, _, recon, _ = known
    noise = drawn(known, range(N_CUBES))
    dense, empty = noise[recon > 1].std(), noise[recon < -1].std()
    assert dense > 1.8 * empty


def test_mean_plus_noise_has_the_pixels_of_the_truth(known):
    _, truth, recon, _ = known
    levels = torch.linspace(0.05, 0.95, 10)
    quantiles = [x.flatten()[::7].quantile(levels) for x in (truth, recon + drawn(known, range(N_CUBES)))]
    torch.testing.assert_close(quantiles[1], quantiles[0], atol=0.08, rtol=0)


def test_the_same_generator_draws_the_same_noise_and_another_seed_another(known):
    noise, _, recon, z = known
    a, b, c = (noise.draw(recon[0], z[:N_SLICES], torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(a, b) and not torch.equal(a, c)


def test_few_cubes_give_one_spectrum_for_every_universe(known):
    _, truth, recon, z = known
    noise = fit_noise(list(truth[:4]), list(recon[:4]), z[:4], periodic=True)
    assert torch.equal(noise.power(z[:1]), noise.power(z[1:2]))


# --- corrections of new slices


@pytest.fixture(scope="module")
def bent():
    """Slices whose contrast and skewness follow z_0 and z_1, and new slices that are Gaussian."""
    z = torch.randn(N_CUBES, 512, generator=torch.Generator().manual_seed(3)) * 0.01
    z[:, :2] *= 30
    drawn = coloured(N_CUBES * N_SLICES, -2.0, 4).unflatten(0, (N_CUBES, N_SLICES))
    other = coloured(N_CUBES * N_SLICES, -2.0, 5).unflatten(0, (N_CUBES, N_SLICES))
    contrast, skew = (z[:, i].mul(0.5).exp()[:, None, None, None, None] for i in (0, 1))
    return fit_pixel_map(list(contrast * torch.sinh(other + 0.5 * skew)), list(drawn), z), contrast, skew, drawn, z


def test_mapped_pixels_have_the_quantiles_of_slices_in_every_universe(bent):
    pixel_map, contrast, skew, drawn, z = bent
    mapped = torch.stack([pixel_map(x, row.expand(N_SLICES, -1)) for x, row in zip(drawn, z, strict=True)])
    wanted = contrast * torch.sinh(drawn + 0.5 * skew)
    levels = torch.linspace(0.05, 0.95, 10)
    left = [(x.flatten(1).quantile(levels, dim=1) - wanted.flatten(1).quantile(levels, dim=1)) for x in (mapped, drawn)]
    assert left[0].abs().mean() < 0.12 < 0.4 < left[1].abs().mean()


def test_the_map_rises_and_beyond_its_ends_only_moves(bent):
    pixel_map, *_, z = bent
    x = torch.linspace(-20, 20, SIZE**2).view(1, 1, SIZE, SIZE)
    steps = pixel_map(x, z[:1]).flatten().diff()
    assert (steps > 0).all()
    torch.testing.assert_close(steps[[0, -1]], x.flatten().diff()[[0, -1]], rtol=1e-3, atol=0)


def test_a_map_between_equal_fields_does_nothing():
    x = coloured(4 * N_SLICES, -2.0, 6).unflatten(0, (4, N_SLICES))
    same = fit_pixel_map(list(x), list(x), torch.zeros(4, 512))
    torch.testing.assert_close(same(x[0], torch.zeros(N_SLICES, 512)), x[0], atol=1e-4, rtol=0)


def test_corrections_give_new_slices_the_spectrum_and_the_pixels_of_slices(bent):
    _, contrast, skew, _, z = bent
    drawn = coloured(N_CUBES * N_SLICES, -2.5, 7).unflatten(0, (N_CUBES, N_SLICES))
    other, held = (coloured(N_CUBES * N_SLICES, -1.5, seed).unflatten(0, (N_CUBES, N_SLICES)) for seed in (8, 9))
    truth, held = (list(contrast * torch.sinh(x + 0.5 * skew)) for x in (other, held))
    rings = SpectralLikelihood(SIZE).eval()
    corrections = fit_corrections(truth, list(drawn), z, rings)
    fields = list(drawn)
    for correct in corrections:
        fields = [correct(x, row.expand(N_SLICES, -1)) for x, row in zip(fields, z, strict=True)]

    def gaps(fields):
        power = [torch.stack([rings.residual_power(torch.zeros_like(x), x).mean(0) for x in y]) for y in (fields, held)]
        levels = torch.linspace(0.02, 0.98, 25)
        quantiles = [torch.stack(list(y)).flatten()[::7].quantile(levels) for y in (fields, held)]
        return (power[0] / power[1]).log()[:, 2:17].median(dim=0).values.abs().max(), (
            quantiles[0] - quantiles[1]
        ).abs().max()

    assert gaps(fields)[0] < 0.12 < 0.4 < gaps(drawn)[0]
    assert gaps(fields)[1] < 0.12 < 0.4 < gaps(drawn)[1]
