"""The note's forward pass and loss, written a second time and word for word: what the library is held against.

Only what the note leaves open is filled in: the networks are those of a `UniverseVAE`, the image size and the number of
slices are read off the input, and the zs of each set are handed to `deep_set` as a set.
"""

import torch
import torch.nn.functional as F
from torch import nn


class NoteVAE(nn.Module):
    """The four networks of a model (the same modules, not copies) in the note's own forward pass."""

    def __init__(self, model):
        super().__init__()
        self.encoder, self.deep_set = model.encoder, model.deep_set
        self.decoder_h, self.decoder_z = model.decoder_h, model.decoder_z

    def reparameterize(self, x):
        mu, logvar = x.chunk(2, dim=1)
        std = logvar.mul(0.5).exp_()
        eps = torch.randn_like(std)
        output = eps.mul(std).add_(mu)
        return output, mu, logvar

    def forward(self, img_zs, img_h):
        n_sets, n_slices, size = img_zs.shape[0], img_zs.shape[1], img_zs.shape[-1]
        img_z = img_zs.view(-1, 1, size, size)
        zero_vector = torch.zeros((img_z.shape[0], 512)).type_as(img_z)
        zs, _ = self.encoder(img_z, zero_vector)
        z = self.deep_set(zs.view(n_sets, n_slices, 1024))
        z, z_mu, z_logvar = self.reparameterize(z)
        h = self.decoder_z(z)
        h, h_mu, h_logvar = self.reparameterize(h)
        _, h_post = self.encoder(img_h, z)
        h_post, h_post_mu, h_post_logvar = self.reparameterize(h_post)
        recon_h = self.decoder_h(h_post)
        return recon_h, (z, z_mu, z_logvar), (h, h_mu, h_logvar), (h_post, h_post_mu, h_post_logvar)


def mse_loss(recon_h, img_h):
    return F.mse_loss(recon_h, img_h, reduction="sum") / recon_h.size()[0]


def kl_loss(q_mu, q_logvar, p_mu, p_logvar, kl_z=False):
    p = torch.distributions.normal.Normal(p_mu, p_logvar.mul(0.5).exp_())
    if kl_z:
        q = torch.distributions.normal.Normal(0.0, 1.0)
    else:
        q = torch.distributions.normal.Normal(q_mu, q_logvar.mul(0.5).exp_())
    return torch.distributions.kl.kl_divergence(p, q).mean()


def loss(output, img_h, weight_z, weight_h):
    """The scalar of the note from what the forward pass returned; the weights are its hparams.kl_z, hparams.kl_h."""
    recon_h, (_, z_mu, z_logvar), (_, h_mu, h_logvar), (_, h_post_mu, h_post_logvar) = output
    l2 = mse_loss(recon_h, img_h)
    kl_z = kl_loss(None, None, z_mu, z_logvar, kl_z=True)
    kl_h = kl_loss(h_mu, h_logvar, h_post_mu, h_post_logvar, kl_z=False)
    return l2 + weight_z * kl_z + weight_h * kl_h
