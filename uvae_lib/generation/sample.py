"""New slices: the note's samples, and those that a run's flows complete where it has them."""

import torch
from torch import Generator, Tensor

from ..runs.encode import Posterior, decode, prior_of_h
from ..runs.run import Run
from .flows import flows_of


def sample_slices(run: Run, z: Posterior | None, n: int, generator: Generator, completed: bool = True) -> Tensor:
    """New slices of an observed universe or of new ones.

    z           posterior of one universe, (512,), or of one for each slice, (n, 512), from which its z is drawn; when
                None, each slice is of a universe of its own, drawn from N(0, I)
    n           slices
    completed   with the coupling of h and the small scales that the run's flows add, where it has them; False: the
                note's samples, decoded means of h ~ p(h | z)
    Returns (n, 1, H, H) pixels.
    """
    shape = n, run.model.latent_dim
    mu, logvar = z or (torch.zeros(shape), torch.zeros(shape))
    draws = Posterior(mu.expand(shape), logvar.expand(shape)).sample(generator)
    mean = decode(run, draw_h(run, draws, torch.randn(shape, generator=generator), completed))
    return complete_means(run, mean, draws, torch.randn(mean.shape, generator=generator)) if completed else mean


@torch.inference_mode()
def draw_h(run: Run, z: Tensor, white: Tensor, completed: bool = True) -> Tensor:
    """h of new slices: N(mu(z), Sigma(z)), its numbers coupled as those of real h are where the run has flows.

    z           (512,) or (n, 512)
    white       (n, 512) standard normal numbers: the same ones with another z are the same place in another universe
    completed   False: the note's own draw, of independent numbers
    Returns (n, 512).
    """
    z = z.expand(len(white), -1)
    prior, flows = prior_of_h(run, z), flows_of(run) if completed else None
    u = white @ flows.coupling if flows else white
    return prior.mu + u * (0.5 * prior.logvar).exp()


@torch.inference_mode()
def complete_means(run: Run, mean: Tensor, z: Tensor, white: Tensor) -> Tensor:
    """Decoded means with the small scales that a mean lacks, by the flow of slices; as they are where a run has none.

    mean   (n, 1, H, H) pixels
    z      (512,) or (n, 512)
    white  (n, 1, H, H) standard normal numbers, as for `draw_h`
    Returns (n, 1, H, H) pixels.
    """
    flows = flows_of(run)
    return flows.complete(mean, z.expand(len(mean), -1), white) if flows else mean
