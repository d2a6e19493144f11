"""Numbers of slices on fields that are alike, and on fields that differ by what is known."""

import numpy as np
import torch
from suites import gaussian_noise

from uvae_lib.analysis import samples

SIZE = 32


def universes(n: int, slope: float = -2.0, seed: int = 0, n_slices: int = 16) -> list[torch.Tensor]:
    """Gaussian slices of unit variance with power (1 + |k|)^slope, one tensor (n_slices, 1, SIZE, SIZE) a universe."""
    fields = [
        gaussian_noise(size, SIZE, lambda k: (1 + k) ** slope, which)
        for size, which in ((n * n_slices, seed), (500, 999))
    ]
    return list((fields[0] / fields[1].std()).split(n_slices))  # one scale for all seeds


def numbers(fields: list[torch.Tensor]) -> list[torch.Tensor]:
    return [samples.slice_numbers(x, 32.0) for x in fields]


def test_slices_drawn_alike_differ_by_chance_alone():
    truth, other, drawn = (numbers(universes(20, seed=i)) for i in range(3))
    found = samples.compare_numbers(truth, other, drawn)
    assert len(found["names"]) == len(found["gap"]) == truth[0].shape[1]
    assert (np.abs(found["gap"]) < 4 * np.array(found["error"])).all()


def test_another_spectrum_shows_in_every_number_that_sees_scales():
    truth, other = (numbers(universes(20, seed=i)) for i in range(2))
    found = samples.compare_numbers(truth, other, numbers(universes(20, slope=-1.0, seed=2)))
    gap = dict(zip(found["names"], np.abs(found["gap"]), strict=True))
    seen = ("power, 4th band", "contour length", "Euler number", "maxima", "minima", "elongation of the Hessian")
    assert min(gap[name] for name in seen) > 5


def test_the_same_spectrum_with_other_phases_shows_beyond_it():
    skewed = [torch.exp(0.7 * x) for x in universes(20)]
    modes = [torch.fft.rfft2(x) for x in skewed]
    random = [torch.fft.rfft2(torch.randn(x.shape, generator=torch.Generator().manual_seed(7))) for x in skewed]
    shuffled = [torch.fft.irfft2(a.abs() * b / b.abs(), s=(SIZE, SIZE)) for a, b in zip(modes, random, strict=True)]
    other = numbers([torch.exp(0.7 * x) for x in universes(20, seed=1)])
    found = samples.compare_numbers(numbers(skewed), other, numbers(shuffled))
    gap = dict(zip(found["names"], np.abs(found["gap"]), strict=True))
    assert gap["power, 2nd band"] < 1e-2 and gap["skewness"] > 5 and gap["skewness of the Laplacian"] > 5


def test_universes_of_their_own_are_held_against_all_true_slices():
    truth, other = (numbers(universes(20, seed=i)) for i in range(2))
    alike, off = (samples.compare_numbers(truth, other, [torch.cat(numbers(universes(20, slope=s, seed=3)))])
                  for s in (-2.0, -1.0))  # fmt: skip
    assert (np.abs(alike["gap"]) < 4 * np.array(alike["error"])).all()
    assert np.abs(off["gap"]).max() > 10


def test_a_plane_wave_has_the_hessian_that_is_known():
    """A wave has second differences along its direction and nothing across: fully elongated."""
    wave = torch.cos(2 * torch.pi * 3 * torch.arange(SIZE) / SIZE).expand(1, 1, SIZE, SIZE)
    found = dict(
        zip(samples.NUMBERS, samples.slice_numbers(wave + 1e-6 * torch.randn(1, 1, SIZE, SIZE), 32.0)[0], strict=True)
    )
    assert found["elongation of the Hessian"] > 0.99 and abs(found["skewness of the Laplacian"]) < 1e-3
