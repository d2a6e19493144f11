"""New slices: the note's own Gaussian draws, carried on by a run's flows where it has them."""

import torch
from torch import Generator, Tensor

from ..runs.encode import Posterior, decode, prior_of_h
from ..runs.run import Run
from .flows import flows_of


def sample_slices(run: Run, z: Posterior | None, n: int, generator: Generator) -> Tensor:
    """New slices of an observed universe or of new ones: h given z; its decoded mean, completed.

    z   of one universe, (512,), or of one for each slice, (n, 512); when None, each slice is of a universe of its own,
        drawn from N(0, I)
    n   slices
    Where the run has flows they carry all Gaussian draws on, given the mean of q(z) (`variants.flows`); without them z
    is drawn from q(z), as the note has it.

    Returns (n, 1, H, H) pixels.
    """
    shape = n, run.config.model.latent_dim
    if z is None:
        draws = draw_z(run, torch.randn(shape, generator=generator))
    elif flows_of(run):
        draws = z.mu.expand(shape)
    else:
        draws = Posterior(z.mu.expand(shape), z.logvar.expand(shape)).sample(generator)
    mean = decode(run, draw_h(run, draws, torch.randn(shape, generator=generator)))
    return complete_means(run, mean, draws, torch.randn(mean.shape, generator=generator))


@torch.inference_mode()
def draw_z(run: Run, white: Tensor) -> Tensor:
    """z of new universes: N(0, I), carried on by the flow of z where the run has one: white (n, 512) -> (n, 512)."""
    return flows_of(run).draw_z(white) if flows_of(run) else white


@torch.inference_mode()
def draw_h(run: Run, z: Tensor, white: Tensor) -> Tensor:
    """h of new slices: N(mu(z), Sigma(z)), carried on by the flow of h where the run has one (`variants.flows`).

    z      (512,) or (n, 512)
    white  (n, 512) standard normal numbers: the same ones with another z are the same place in another universe
    Returns (n, 512).
    """
    prior, z = prior_of_h(run, z.expand(len(white), -1)), z.expand(len(white), -1)
    if flows_of(run):
        return flows_of(run).draw_h(z, *prior, white)
    return prior.mu + white * (0.5 * prior.logvar).exp()


@torch.inference_mode()
def complete_means(run: Run, mean: Tensor, z: Tensor, white: Tensor) -> Tensor:
    """Decoded means with the small scales that a mean lacks, by the flow of slices; as they are where a run has none.

    mean   (n, 1, H, H) pixels
    z      (512,) or (n, 512)
    white  (n, 1, H, H) standard normal numbers, as for `draw_h`
    Returns (n, 1, H, H) pixels.
    """
    return flows_of(run).complete(mean, z.expand(len(mean), -1), white) if flows_of(run) else mean
