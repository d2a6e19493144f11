"""The Universe VAE of the note: four networks and their forward pass, in the note's names and sizes.

    generative   z ~ N(0, I)      h ~ N(mu(z), Sigma(z)) = decoder_z(z)      slice = decoder_h(h)
    inference    zs = encoder(slices, 0)   z ~ deep_set(zs)                  h ~ encoder(slice, z)

B sets of S slices of H x H pixels. z: 512 numbers without a place. h: 512 numbers that form a small map,
(32, 4, 4) at 128 pixels, so that every position teaches the same weights.
"""

import math
from contextlib import nullcontext
from functools import partial, wraps

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, ResNet

from .cropping import periodic_pad

LATENT_DIM = 512
WIDTHS = (64, 128, 256, 512)  # of ResNet-18's four stages
HIDDEN = 128  # numbers between the Linear layers of deep_set and decoder_z
Latent = tuple[Tensor, Tensor, Tensor]  # sample, mean, log-variance


class UniverseVAE(nn.Module):
    """The hierarchical set VAE of the note.

    image_size  pixels along a slice: 32, 64, 128, 256 or 512
    latent_dim  numbers of z and of h
    pooling     how a set becomes z, as in `DeepSet`: "sum" (the note), "mean" or "precision"
    circular    convolutions wrap around: right where a slice is the whole periodic box, and only there; of one cell of
                h (32 pixels) a decoder without borders makes slices of one value: there it keeps them
    logvar_z    where the log-variance of z's posterior starts
    logvar_h    likewise of h's: a narrow start lets the decoder see its input at once
    """

    def __init__(
        self, image_size: int = 128, latent_dim: int = LATENT_DIM, pooling: str = "sum", circular: bool = False,
        logvar_z: float = 0.0, logvar_h: float = 0.0,
    ):  # fmt: skip
        super().__init__()
        self.image_size, self.latent_dim, self.circular = image_size, latent_dim, circular
        self.encoder = Encoder(image_size, latent_dim)
        self.deep_set = DeepSet(latent_dim, pooling, logvar_z)
        wraps = circular and map_shape(image_size, latent_dim)[-1] > 1
        self.decoder_h = DecoderH(image_size, latent_dim, wraps)
        self.decoder_z = DecoderZ(latent_dim)
        with torch.no_grad():
            self.encoder.h_head.bias.chunk(2)[1].add_(logvar_h)
        for network in [self.encoder] * circular + [self.decoder_h] * wraps:
            wrap_around(network)

    def reparameterize(self, x: Tensor, noise: Tensor | None = None) -> Latent:
        """Draw from a diagonal Gaussian.

        x      (B, 2 D) mean and log-variance
        noise  (B, D) standard normal numbers; drawn from torch's global state when absent
        Returns sample, mu, logvar, each (B, D).
        """
        mu, logvar = x.chunk(2, dim=1)
        noise = torch.randn_like(mu) if noise is None else noise
        return noise.mul(logvar.mul(0.5).exp()).add(mu), mu, logvar

    def forward(
        self, img_zs: Tensor, img_h: Tensor, noise: tuple[Tensor, Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Latent, Latent, Latent]:
        """One target slice of each set, given the set.

        img_zs  (B, S, 1, H, H) standardised pixels of the sets
        img_h   (B, 1, H, H) of the targets
        noise   standard normal numbers of z, h and h_post, each (B, 512); drawn when absent
        Returns recon_h (B, 1, H, H), (z, z_mu, z_logvar), (h, h_mu, h_logvar), (h_post, h_post_mu, h_post_logvar),
        each (B, 512): the posterior of z, the prior of h given z, the posterior of h given slice and z.
        """
        self._check(img_zs, img_h)
        noise_z, noise_h, noise_post = noise or (None, None, None)
        img_z = img_zs.flatten(0, 1)
        zero_vector = img_z.new_zeros(len(img_z), self.latent_dim)
        zs, _ = self.encoder(img_z, zero_vector)
        z = self.deep_set(zs.unflatten(0, img_zs.shape[:2]))
        z, z_mu, z_logvar = self.reparameterize(z, noise_z)
        h = self.decoder_z(z)
        h, h_mu, h_logvar = self.reparameterize(h, noise_h)
        _, h_post = self.encoder(img_h, z)
        h_post, h_post_mu, h_post_logvar = self.reparameterize(h_post, noise_post)
        recon_h = self.decoder_h(h_post)
        return recon_h, (z, z_mu, z_logvar), (h, h_mu, h_logvar), (h_post, h_post_mu, h_post_logvar)

    def forward_sets(
        self, sets: Tensor, context: Tensor, noise: tuple[Tensor, Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Latent, Latent, Latent]:
        """`forward` for every slice of each set as the target, at the cost of encoding each slice once.

        It equals `forward` called once a target (but for batch statistics, which then see other batches).
        sets     (B, n, 1, H, H)
        context  (B, n, n) of zeros and ones: row i has the slices that target i is given, never i itself
        Returns what `forward` does, for B * n targets, set by set.
        """
        self._check(sets, sets[:, -1])
        noise_z, noise_h, noise_post = noise or (None, None, None)
        f = self.encoder.features(sets.flatten(0, 1))
        zs = self.encoder.set_features(f)
        z = self.deep_set(zs.unflatten(0, sets.shape[:2]), context).flatten(0, 1)
        z, z_mu, z_logvar = self.reparameterize(z, noise_z)
        h = self.decoder_z(z)
        h, h_mu, h_logvar = self.reparameterize(h, noise_h)
        h_post = self.encoder.h_posterior(f, z)
        h_post, h_post_mu, h_post_logvar = self.reparameterize(h_post, noise_post)
        recon_h = self.decoder_h(h_post)
        return recon_h, (z, z_mu, z_logvar), (h, h_mu, h_logvar), (h_post, h_post_mu, h_post_logvar)

    def _check(self, img_zs: Tensor, img_h: Tensor) -> None:
        expected = (1, self.image_size, self.image_size)
        if img_zs.ndim != 5 or img_zs.shape[2:] != expected or img_h.shape != (len(img_zs), *expected):
            raise ValueError(
                f"found sets of shape {tuple(img_zs.shape)} and targets of shape {tuple(img_h.shape)}; "
                f"expected (B, S, 1, {self.image_size}, {self.image_size}) and "
                f"(B, 1, {self.image_size}, {self.image_size})"
            )


def in_float32(method):
    """Run a method in float32 under autocast too: the latents and the small networks around them are cheap."""

    @wraps(method)
    def run(self, *tensors: Tensor):
        device = tensors[0].device.type
        available = torch.amp.is_autocast_available(device)  # not on the meta device
        with torch.autocast(device, enabled=False) if available else nullcontext():
            return method(self, *(tensor.float() for tensor in tensors))

    return run


def map_shape(image_size: int, latent_dim: int = LATENT_DIM) -> tuple[int, int, int]:
    """Shape (C, m, m) of h as a map: m = image_size / 32 and C m^2 = latent_dim, e.g. (32, 4, 4) at 128 pixels."""
    side, remainder = divmod(image_size, 32)
    if remainder or side < 1 or latent_dim % side**2:
        raise ValueError(
            f"found image_size={image_size} with latent_dim={latent_dim}; expected a multiple of 32 for which "
            "(image_size / 32)^2 divides latent_dim: 32, 64, 128, 256 or 512"
        )
    return latent_dim // side**2, side, side


class Encoder(nn.Module):
    """ResNet-18 (one input channel) with two outputs read from its last map f, (512, m, m).

    zs      what is the same everywhere: global average of f, then a Linear layer
    h_post  where things are: a 1 x 1 convolution of f + c(z); c is small and the same at every position
    """

    def __init__(self, image_size: int = 128, latent_dim: int = LATENT_DIM):
        super().__init__()
        resnet = ResNet(BasicBlock, [2, 2, 2, 2], num_classes=1)
        resnet.conv1 = nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
        nn.init.kaiming_normal_(resnet.conv1.weight, mode="fan_in", nonlinearity="relu")  # keeps the scale of pixels
        self.trunk = nn.Sequential()
        for name, layer in list(resnet.named_children())[:-2]:  # without avgpool and fc
            self.trunk.add_module(name, layer)
        self.zs_head = nn.Linear(WIDTHS[-1], 2 * latent_dim)
        self.z_shift = nn.Sequential(nn.Linear(latent_dim, 64), nn.ReLU(), nn.Linear(64, WIDTHS[-1]))
        self.h_head = nn.Conv2d(WIDTHS[-1], 2 * map_shape(image_size, latent_dim)[0], kernel_size=1)

    def forward(self, img: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """img (B, 1, H, H), z (B, 512) -> zs (B, 1024), h_post (B, 1024): mean and log-variance of 512 each."""
        f = self.features(img)
        return self.set_features(f), self.h_posterior(f, z)

    def features(self, img: Tensor) -> Tensor:
        """All that both outputs need of a slice: (B, 1, H, H) -> one row a slice, for the next two methods only."""
        return self.trunk(img)

    @in_float32
    def set_features(self, f: Tensor) -> Tensor:
        """zs of `features`, (B, 1024). It does not see z."""
        return self.zs_head(f.mean(dim=(2, 3)))

    @in_float32
    def h_posterior(self, f: Tensor, z: Tensor) -> Tensor:
        """h_post of `features` and z (B, 512): mean and log-variance, (B, 1024)."""
        mu, logvar = self.h_head(f + self.z_shift(z)[:, :, None, None]).chunk(2, dim=1)
        return torch.cat([mu.flatten(1), logvar.flatten(1)], dim=1)


class DeepSet(nn.Module):
    """Many zs to one z, whatever their order (Zaheer et al. 2017, arXiv:1703.06114): 1024 -> 128 -> 128, sum, -> 1024.

    pooling     "sum": mean and log-variance are read from the sum over the set, as in the note. "mean": from the mean,
                whose scale does not change with the number of slices. "precision": from the sum two numbers a dimension
                are read, a and b; precision 1 + softplus(b), mean a / precision, so that a larger set can narrow z
                as independent Gaussian measurements would on a prior of N(0, 1)
    logvar      where the log-variance of z starts
    """

    def __init__(self, latent_dim: int = LATENT_DIM, pooling: str = "sum", logvar: float = 0.0):
        super().__init__()
        if pooling not in ("sum", "mean", "precision"):
            raise ValueError(f'found pooling="{pooling}"; expected "sum", "mean" or "precision"')
        self.pooling = pooling
        self.each = nn.Sequential(nn.Linear(2 * latent_dim, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU())
        self.together = nn.Linear(HIDDEN, 2 * latent_dim)
        with torch.no_grad():  # softplus(log(exp(v) - 1)) = v
            start = math.log(max(math.expm1(math.expm1(-logvar)), 1e-2)) if pooling == "precision" else logvar
            self.together.bias.chunk(2)[1].add_(start)

    @in_float32
    def forward(self, zs: Tensor, *context: Tensor) -> Tensor:
        """Mean and log-variance of z given a set of slices.

        zs       (B, S, 1024)
        context  (B, T, S), ones where a slice belongs to the set and zeros where not: T subsets of the same slices
        Returns (B, 1024), with context (B, T, 1024).
        """
        each = self.each(zs)
        members = context[0] if context else each.new_ones(len(zs), 1, zs.shape[1])
        total = members @ each
        if self.pooling == "mean":
            total = total / members.sum(dim=-1, keepdim=True)
        x = self.together(total)
        if self.pooling == "precision":
            a, b = x.chunk(2, dim=-1)
            precision = 1 + F.softplus(b)
            x = torch.cat([a / precision, -precision.log()], dim=-1)
        return x if context else x.squeeze(1)


class DecoderZ(nn.Module):
    """z (B, 512) -> (B, 1024): mean and log-variance of h given z; 512 -> 128 -> 128 -> 1024."""

    def __init__(self, latent_dim: int = LATENT_DIM):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(latent_dim, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(),
            nn.Linear(HIDDEN, 2 * latent_dim),
        )  # fmt: skip

    @in_float32
    def forward(self, z: Tensor) -> Tensor:
        return self.layers(z)


class DecoderH(nn.Module):
    """ResNet-18 mirrored: h (B, 512) -> (B, 1, H, H). Nearest upsampling, so no checkerboards."""

    def __init__(self, image_size: int = 128, latent_dim: int = LATENT_DIM, circular: bool = False):
        super().__init__()
        self.map_shape = map_shape(image_size, latent_dim)
        self.layers = nn.Sequential(
            nn.Conv2d(self.map_shape[0], WIDTHS[-1], kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(WIDTHS[-1]),
            nn.ReLU(inplace=True),
        )
        for n_in, n_out in zip(WIDTHS[:0:-1], WIDTHS[-2::-1], strict=True):
            self.layers += nn.Sequential(BasicBlock(n_in, n_in), UpBlock(n_in, n_out, circular))
        self.layers.append(BasicBlock(64, 64))
        for n_in, n_out in ((64, 32), (32, 16)):  # the mirror of ResNet's max pooling and first convolution
            self.layers += nn.Sequential(UpConv(n_in, n_out, circular), nn.BatchNorm2d(n_out), nn.ReLU(inplace=True))
        self.layers.append(nn.Conv2d(16, 1, kernel_size=3, padding=1))

    def forward(self, h: Tensor) -> Tensor:
        return self.layers(h.unflatten(1, self.map_shape)).float()


class UpBlock(nn.Module):
    """ResNet's basic block of a new stage, mirrored: n_in channels to n_out, twice the side."""

    def __init__(self, n_in: int, n_out: int, circular: bool = False):
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_in, kernel_size=3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(n_in)
        self.conv2 = UpConv(n_in, n_out, circular)
        self.bn2 = nn.BatchNorm2d(n_out)
        self.shortcut = nn.Sequential(nn.Conv2d(n_in, n_out, kernel_size=1, bias=False), nn.BatchNorm2d(n_out))

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)), inplace=True)))
        return F.relu(out + F.interpolate(self.shortcut(x), scale_factor=2), inplace=True)


class UpConv(nn.Conv2d):
    """Nearest upsampling by two, then a 3 x 3 convolution, in one transposed convolution.

    A doubled pixel meets two or one of the three taps in a row: the sum of the 3 x 3 kernel over each 2 x 2
    neighbourhood is a 4 x 4 kernel of stride two with the same result, for 16 products a pixel in place of 36.
    """

    def __init__(self, n_in: int, n_out: int, circular: bool = False):
        super().__init__(n_in, n_out, kernel_size=3, padding=1, bias=False)
        self.circular = circular

    def forward(self, x: Tensor) -> Tensor:
        """(B, n_in, m, m) -> (B, n_out, 2m, 2m)."""
        kernel = _folded(self.weight)  # anew each time: fused optimisers change weights without telling a cache
        if self.circular:
            return F.conv_transpose2d(periodic_pad(x, 1), kernel, stride=2, padding=3)
        return F.conv_transpose2d(x, kernel, stride=2, padding=1)


def wrap_around(network: nn.Module) -> nn.Module:
    """Let the padded convolutions and the pooling of a network wrap around, in place; `UpConv` does so by itself."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.MaxPool2d) and not isinstance(layer, UpConv):
            p = layer.padding if isinstance(layer.padding, int) else layer.padding[0]
            if p:
                layer.padding = (0, 0)
                layer.register_forward_pre_hook(partial(_wrap_input, p=p))
    return network


def _wrap_input(layer: nn.Module, args: tuple[Tensor], p: int) -> Tensor:
    return periodic_pad(args[0], p)


def _folded(weight: Tensor) -> Tensor:
    """(n_out, n_in, 3, 3) -> (n_in, n_out, 4, 4)."""
    return _summed_taps(_summed_taps(weight.permute(2, 3, 1, 0), 0), 1).permute(2, 3, 0, 1)


def _summed_taps(k: Tensor, dim: int) -> Tensor:
    """Three taps along a dimension, flipped, to the four sums over each pair of neighbours, zeros beyond the ends."""
    first, second, third = k.unbind(dim)
    return torch.stack([third, second + third, first + second, first], dim)


def parameter_table(model: UniverseVAE) -> list[tuple[str, str, int]]:
    """Name, type and number of parameters of the four networks, in the note's order."""
    types = {"encoder": "ResNet", "deep_set": "DeepSet", "decoder_h": "DecoderH", "decoder_z": "DecoderZ"}
    return [(name, kind, sum(p.numel() for p in getattr(model, name).parameters())) for name, kind in types.items()]


def format_table(model: UniverseVAE) -> str:
    """`parameter_table` as the note prints it: numbers floored to K or M."""
    lines = ["  | Name      | Type     | Params", "--|-----------|----------|-------"]
    for i, (name, kind, n) in enumerate(parameter_table(model)):
        short = f"{n // 10**6} M" if n >= 10**6 else f"{n // 10**3} K"
        lines.append(f"{i} | {name:9s} | {kind:8s} | {short}")
    return "\n".join(lines)
