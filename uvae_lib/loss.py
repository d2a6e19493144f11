"""The loss of the note: l2 + kl_z * KL(z) + kl_h * KL(h), and what is read off its terms.

The squared error is summed over pixels, the KLs are means over dimensions; both are means over the batch.
"""

import torch.nn.functional as F
from torch import Tensor

ACTIVE = 0.01  # variance of the mean over the data above which a dimension counts as active (Burda et al. 2015)


def mse_loss(recon_h: Tensor, img_h: Tensor) -> Tensor:
    """Squared error summed over pixels, averaged over the batch: (B, 1, H, H) twice -> scalar."""
    return F.mse_loss(recon_h, img_h, reduction="sum") / recon_h.shape[0]


def kl_loss(q_mu: Tensor | None, q_logvar: Tensor | None, p_mu: Tensor, p_logvar: Tensor, kl_z: bool = False) -> Tensor:
    """KL(p || q) of diagonal Gaussians, averaged over batch and dimensions, with the note's order of arguments.

    q_mu, q_logvar  (B, D) the prior; ignored (may be None) with kl_z=True, where it is N(0, I)
    p_mu, p_logvar  (B, D) the posterior
    Returns a scalar [nats a dimension]; finite for log-variances from -30 to 30. Raises ValueError without a prior.
    """
    if not kl_z and (q_mu is None or q_logvar is None):
        raise ValueError("found no prior (q_mu, q_logvar); give both, or kl_z=True for N(0, I)")
    return kl_by_dimension(p_mu, p_logvar, *((None, None) if kl_z else (q_mu, q_logvar))).mean(dim=0).mean()


def note_loss(output: tuple, img_h: Tensor, kl_z: float = 1.0, kl_h: float = 1.0) -> dict[str, Tensor]:
    """The note's loss and its terms, as training sums them.

    output      what `UniverseVAE.forward` returned for the targets
    img_h       (B, 1, H, H) the targets
    kl_z, kl_h  weights of the KLs
    Returns scalars: loss = l2 + kl_z * KL(z) + kl_h * KL(h), and l2, kl_z, kl_h without their weights.
    """
    recon_h, (_, z_mu, z_logvar), (_, h_mu, h_logvar), (_, h_post_mu, h_post_logvar) = output
    l2 = mse_loss(recon_h, img_h)
    kl_of_z = kl_loss(None, None, z_mu, z_logvar, kl_z=True)
    kl_of_h = kl_loss(h_mu, h_logvar, h_post_mu, h_post_logvar, kl_z=False)
    return {"loss": l2 + kl_z * kl_of_z + kl_h * kl_of_h, "l2": l2, "kl_z": kl_of_z, "kl_h": kl_of_h}


def kl_by_dimension(
    p_mu: Tensor, p_logvar: Tensor, q_mu: Tensor | None = None, q_logvar: Tensor | None = None
) -> Tensor:
    """KL(p || q) [nats] of every dimension, (B, D); q is N(0, I) when absent."""
    if q_mu is None or q_logvar is None:
        return 0.5 * (p_logvar.exp() + p_mu.square() - 1 - p_logvar)
    gap = p_logvar - q_logvar
    return 0.5 * (gap.exp() + (p_mu - q_mu).square() * (-q_logvar).exp() - 1 - gap)


def kl_parts(mu: Tensor, logvar: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The three parts of KL(q || N(0, I)) of many posteriors [nats]: they add up to its mean over them.

    mu, logvar  (n, D)
    Returns scalars: what the widths cost, what the offset of the mean of all means costs, and what their spread costs.
    """
    width = 0.5 * (logvar.exp() - 1 - logvar).mean(dim=0)
    offset, spread = 0.5 * mu.mean(dim=0).square(), 0.5 * mu.var(dim=0, correction=0)
    return width.sum(), offset.sum(), spread.sum()


def active_units(mu: Tensor) -> Tensor:
    """Number of dimensions whose mean varies over the data, Var > ACTIVE: (N, D) -> ()."""
    return (mu.var(dim=0, correction=0) > ACTIVE).sum()
