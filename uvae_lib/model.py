"""The four networks of the Universe VAE and their forward pass, in the note's names and sizes.

    generative   z ~ N(0, I)      h ~ N(mu(z), Sigma(z)) = decoder_z(z)      slice = decoder_h(h)
    inference    zs = encoder(slices, 0)   z ~ deep_set(zs)                  h ~ encoder(slice, z)

B sets of S slices of H x H pixels. z: 512 numbers without a place. h: 512 numbers that form a small map,
(32, 4, 4) at 128 pixels, so that every position teaches the same weights.
"""

from contextlib import nullcontext
from functools import partial, wraps

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn
from torchvision.models.resnet import BasicBlock, ResNet

from .variants.fourier import FourierModes, SliceSummary

LATENT_DIM = 512
WIDTHS = (64, 128, 256, 512)  # of ResNet-18's four stages
Latent = tuple[Tensor, Tensor, Tensor]  # sample, mean, log-variance


def in_float32(method):
    """Run a method in float32 under autocast too: the latents and the small networks around them are cheap."""

    @wraps(method)
    def run(self, *tensors: Tensor):
        device = tensors[0].device.type
        available = torch.amp.is_autocast_available(device)  # not on the meta device
        with torch.autocast(device, enabled=False) if available else nullcontext():
            return method(self, *(tensor.float() for tensor in tensors))

    return run


class ScaleShift(nn.Module):
    """A learned scale and shift of every channel: what a normalisation layer has beside its normalisation."""

    def __init__(self, channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, m, m) -> (B, C, m, m)."""
        return torch.addcmul(self.bias[:, None, None].to(x.dtype), x, self.weight[:, None, None].to(x.dtype))


def make_norm(norm: str, channels: int) -> nn.Module:
    """Normalisation layer by name: "batch" (torchvision's ResNet-18) or "group" (16 channels a group)."""
    if norm == "batch":
        return nn.BatchNorm2d(channels)
    if norm == "group":
        return nn.GroupNorm(max(1, channels // 16), channels)
    raise ValueError(f'found norm="{norm}"; expected "batch" or "group"')


def keep_amplitude(module: nn.Module) -> nn.Module:
    """Replace group normalisation outside the residual branches, in the stem and the shortcuts, by `ScaleShift`.

    A group norm divides by the slice's own contrast, and contrast is cosmology (sigma_8): without a way around it
    the encoder cannot see it. Batch normalisation divides all slices by the same numbers and needs no such way.
    """
    for name, child in module.named_children():
        branch = isinstance(module, BasicBlock | UpBlock) and name in ("bn1", "bn2")
        if isinstance(child, nn.GroupNorm) and not branch:
            setattr(module, name, ScaleShift(child.num_channels))
        else:
            keep_amplitude(child)
    return module


def map_shape(image_size: int, latent_dim: int = LATENT_DIM) -> tuple[int, int, int]:
    """Shape (C, m, m) of h as a map: m = image_size / 32 and C m^2 = latent_dim, e.g. (32, 4, 4) at 128 pixels."""
    side, remainder = divmod(image_size, 32)
    if remainder or side < 1 or latent_dim % side**2:
        raise ValueError(
            f"found image_size={image_size} with latent_dim={latent_dim}; expected a multiple of 32 for which "
            "(image_size / 32)^2 divides latent_dim: 32, 64, 128, 256 or 512"
        )
    return latent_dim // side**2, side, side


class _Wrap(torch.autograd.Function):
    """Periodic padding that keeps channels_last, several times faster than F.pad(mode="circular") there."""

    @staticmethod
    def forward(ctx, x: Tensor, p: int) -> Tensor:
        ctx.p = p
        last = x.is_contiguous(memory_format=torch.channels_last)
        shape = (*x.shape[:2], x.shape[2] + 2 * p, x.shape[3] + 2 * p)
        memory_format = torch.channels_last if last else torch.contiguous_format
        out = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=memory_format)
        rows = out[:, :, p:-p]
        rows[..., p:-p] = x
        rows[..., :p], rows[..., -p:] = x[..., -p:], x[..., :p]
        out[:, :, :p], out[:, :, -p:] = rows[:, :, -p:], rows[:, :, :p]
        return out

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        p, grad = ctx.p, grad.clone()
        grad[:, :, -2 * p : -p] += grad[:, :, :p]
        grad[:, :, p : 2 * p] += grad[:, :, -p:]
        rows = grad[:, :, p:-p]
        rows[..., -2 * p : -p] += rows[..., :p]
        rows[..., p : 2 * p] += rows[..., -p:]
        return rows[..., p:-p], None


def _wrap_input(layer: nn.Module, args: tuple[Tensor], p: int) -> Tensor:
    return _Wrap.apply(args[0], p)


def make_circular(module: nn.Module) -> nn.Module:
    """Let every padded layer of a module wrap around: right where a slice is the whole periodic box."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.MaxPool2d):
            p = layer.padding if isinstance(layer.padding, int) else layer.padding[0]
            if p:
                layer.padding = (0, 0)
                layer.register_forward_pre_hook(partial(_wrap_input, p=p))
    return module


class Encoder(nn.Module):
    """ResNet-18 (one input channel) with two outputs read from its last map f, (512, m, m).

    zs      what is the same everywhere: global average of f, then a Linear layer
    h_post  where things are: a 1 x 1 convolution of f + c(z); c is small and the same at every position
    linear  the mean of h_post starts as the largest modes of the slice (`FourierModes`), and the
            convolution adds to it; zs also reads the slice's spectrum and moments (`SliceSummary`), by one more
            Linear layer
    """

    def __init__(
        self,
        image_size: int = 128,
        latent_dim: int = LATENT_DIM,
        norm: str = "batch",
        circular: bool = False,
        linear: bool = False,
    ):
        super().__init__()
        shape = map_shape(image_size, latent_dim)
        resnet = ResNet(BasicBlock, [2, 2, 2, 2], num_classes=1, norm_layer=lambda c: make_norm(norm, c))
        resnet.conv1 = nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
        nn.init.kaiming_normal_(resnet.conv1.weight, mode="fan_in", nonlinearity="relu")  # keeps the scale of pixels
        if circular:
            make_circular(resnet)
        self.trunk = nn.Sequential()
        for name, layer in list(resnet.named_children())[:-2]:  # without avgpool and fc
            self.trunk.add_module(name, layer)
        self.zs_head = nn.Linear(WIDTHS[-1], 2 * latent_dim)
        self.z_shift = nn.Sequential(nn.Linear(latent_dim, 64), nn.ReLU(), nn.Linear(64, WIDTHS[-1]))
        self.h_head = nn.Conv2d(WIDTHS[-1], 2 * shape[0], kernel_size=1)
        self.modes = self.statistics = None
        if linear:
            self.modes, self.statistics = FourierModes(image_size, shape), SliceSummary(image_size)
            self.statistics_head = nn.Linear(self.statistics.n, 2 * latent_dim, bias=False)
            nn.init.zeros_(self.h_head.weight), nn.init.zeros_(self.h_head.bias)

    def forward(self, img: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """img (B, 1, H, H), z (B, 512) -> zs (B, 1024), h_post (B, 1024): mean and log-variance of 512 each."""
        f = self.maps(img)
        return self.summarise(f), self.locate(f, z)

    def maps(self, img: Tensor) -> Tensor:
        """All that both outputs need of a slice: the trunk's last map, behind it that of the largest modes, and
        the statistics, the same at every position.

        img (B, 1, H, H) -> (B, 512, m, m), or with linear (B, 512 + C + n, m, m)
        """
        f = self.trunk(img)
        return torch.cat([f.float(), self._linear(img)], dim=1) if self.modes else f

    @in_float32
    def _linear(self, img: Tensor) -> Tensor:
        modes = self.modes(img)
        return torch.cat([modes, self.statistics(img)[:, :, None, None].expand(-1, -1, *modes.shape[2:])], dim=1)

    @in_float32
    def summarise(self, f: Tensor) -> Tensor:
        """zs of `maps`: (B, 512 or more, m, m) -> (B, 1024). It does not see z."""
        f = f.mean(dim=(2, 3))
        zs = self.zs_head(f[:, : WIDTHS[-1]])
        return zs + self.statistics_head(f[:, -self.statistics.n :]) if self.statistics else zs

    @in_float32
    def locate(self, f: Tensor, z: Tensor) -> Tensor:
        """h_post of `maps` and z: (B, 512 or more, m, m), (B, 512) -> (B, 1024)."""
        mu, logvar = self.h_head(f[:, : WIDTHS[-1]] + self.z_shift(z)[:, :, None, None]).chunk(2, dim=1)
        if self.modes:
            mu = mu + f[:, WIDTHS[-1] : WIDTHS[-1] + mu.shape[1]]
        return torch.cat([mu.flatten(1), logvar.flatten(1)], dim=1)


class DeepSet(nn.Module):
    """Many zs to one z, whatever their order (Zaheer et al. 2017, arXiv:1703.06114): 1024 -> 128 -> 128, sum, -> 1024.

    pooling   "sum" as in the note, or "mean", which does not change scale with the number of slices
    """

    def __init__(self, latent_dim: int = LATENT_DIM, width: int = 128, pooling: str = "sum"):
        super().__init__()
        if pooling not in ("sum", "mean"):
            raise ValueError(f'found pooling="{pooling}"; expected "sum" or "mean"')
        self.pooling = pooling
        self.each = nn.Sequential(nn.Linear(2 * latent_dim, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.together = nn.Linear(width, 2 * latent_dim)

    @in_float32
    def forward(self, zs: Tensor, *context: Tensor) -> Tensor:
        """Mean and log-variance of z given a set of slices.

        zs (B, S, 1024) -> (B, 1024). With context (B, T, S), ones where a slice belongs to the set and zeros
        where not, (B, T, 1024): T subsets of the same slices, each slice encoded once.
        """
        each = self.each(zs)
        members = context[0] if context else each.new_ones(len(zs), 1, zs.shape[1])
        total = members @ each
        if self.pooling == "mean":
            total = total / members.sum(dim=-1, keepdim=True)
        x = self.together(total)
        return x if context else x.squeeze(1)


class DecoderZ(nn.Module):
    """z (B, 512) -> (B, 1024): mean and log-variance of h given z; 512 -> 128 -> 128 -> 1024."""

    def __init__(self, latent_dim: int = LATENT_DIM, width: int = 128):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(latent_dim, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(),
            nn.Linear(width, 2 * latent_dim),
        )  # fmt: skip

    @in_float32
    def forward(self, z: Tensor) -> Tensor:
        return self.layers(z)


class UpConv(nn.Conv2d):
    """Nearest upsampling by two, then a 3 x 3 convolution, in one transposed convolution.

    A doubled pixel meets two or one of the three taps in a row: the sum of the 3 x 3 kernel over each 2 x 2
    neighbourhood is a 4 x 4 kernel of stride two with the same result, for 16 products a pixel in place of 36.
    """

    def __init__(self, n_in: int, n_out: int, bias: bool = False):
        super().__init__(n_in, n_out, kernel_size=3, padding=1, bias=bias)
        self._kept: tuple[Tensor | None, int, Tensor | None] = (None, -1, None)

    def forward(self, x: Tensor) -> Tensor:
        """(B, n_in, m, m) -> (B, n_out, 2m, 2m); the input one pixel wider on each side when made circular."""
        return F.conv_transpose2d(x, self._kernel(), self.bias, stride=2, padding=3 - 2 * self.padding[0])

    def _kernel(self) -> Tensor:
        """The 4 x 4 kernel, (n_in, n_out, 4, 4); kept while no gradient is asked for and the weights stay."""
        if torch.is_grad_enabled():
            return _folded(self.weight)
        weight, version, kernel = self._kept
        if not (weight is not None and weight.data_ptr() == self.weight.data_ptr() and version == self.weight._version):
            kernel = _folded(self.weight)
            if type(kernel) is Tensor and kernel.device.type != "meta":  # tensors without numbers all look alike
                self._kept = self.weight.detach(), self.weight._version, kernel
        return kernel


def _folded(weight: Tensor) -> Tensor:
    """(n_out, n_in, 3, 3) -> (n_in, n_out, 4, 4)."""
    return _summed_taps(_summed_taps(weight.permute(2, 3, 1, 0), 0), 1).permute(2, 3, 0, 1)


def _summed_taps(k: Tensor, dim: int) -> Tensor:
    """Three taps along a dimension, flipped, to the four sums over each pair of neighbours, zeros beyond the ends."""
    first, second, third = k.unbind(dim)
    return torch.stack([third, second + third, first + second, first], dim)


class UpBlock(nn.Module):
    """ResNet's basic block of a new stage, mirrored: n_in channels to n_out, twice the side."""

    def __init__(self, n_in: int, n_out: int, norm: str):
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_in, kernel_size=3, padding=1, bias=False)
        self.bn1 = make_norm(norm, n_in)
        self.conv2 = UpConv(n_in, n_out)
        self.bn2 = make_norm(norm, n_out)
        self.shortcut = nn.Sequential(nn.Conv2d(n_in, n_out, kernel_size=1, bias=False), make_norm(norm, n_out))

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)), inplace=True)))
        return F.relu(out + F.interpolate(self.shortcut(x), scale_factor=2), inplace=True)


class DecoderH(nn.Module):
    """ResNet-18 mirrored: h (B, 512) -> (B, 1, H, H). Nearest upsampling, so no checkerboards.

    linear  the slice starts as the one whose largest modes h gives (`FourierModes`); the layers see it,
            patch by patch, at each stage, and learn what to add
    """

    def __init__(
        self,
        image_size: int = 128,
        latent_dim: int = LATENT_DIM,
        norm: str = "batch",
        circular: bool = False,
        linear: bool = False,
    ):
        super().__init__()
        self.map_shape = map_shape(image_size, latent_dim)
        self.layers = nn.Sequential(
            nn.Conv2d(self.map_shape[0], WIDTHS[-1], kernel_size=3, padding=1, bias=False),
            make_norm(norm, WIDTHS[-1]),
            nn.ReLU(inplace=True),
        )
        for n_in, n_out in zip(WIDTHS[:0:-1], WIDTHS[-2::-1], strict=True):
            self.layers.append(BasicBlock(n_in, n_in, norm_layer=lambda c: make_norm(norm, c)))
            self.layers.append(UpBlock(n_in, n_out, norm))
        self.layers.append(BasicBlock(64, 64, norm_layer=lambda c: make_norm(norm, c)))
        for n_in, n_out in ((64, 32), (32, 16)):  # the mirror of ResNet's max pooling and first convolution
            self.layers += nn.Sequential(UpConv(n_in, n_out), make_norm(norm, n_out), nn.ReLU(inplace=True))
        self.layers.append(nn.Conv2d(16, 1, kernel_size=3, padding=1))
        self.modes = self.patches = None
        if linear:
            self.modes = FourierModes(image_size, self.map_shape)
            sides = zip(WIDTHS[-2::-1], (16, 8, 4), strict=True)
            self.patches = nn.ModuleList(nn.Conv2d(1, n, side, stride=side, bias=False) for n, side in sides)
            nn.init.zeros_(self.layers[-1].weight), nn.init.zeros_(self.layers[-1].bias)
        if circular:
            make_circular(self)

    def forward(self, h: Tensor) -> Tensor:
        h = h.unflatten(1, self.map_shape)
        if not self.modes:
            return self.layers(h).float()
        start, patches = self._linear(h), iter(self.patches)
        for layer in self.layers:
            h = layer(h)
            if isinstance(layer, UpBlock):
                h = h + next(patches)(start)
        return start + h.float()

    @in_float32
    def _linear(self, h: Tensor) -> Tensor:
        return self.modes.inverse(h)


class UniverseVAE(nn.Module):
    """The hierarchical set VAE of the note.

    image_size  pixels along a slice: 32, 64, 128, 256 or 512
    latent_dim  numbers of z and of h
    pooling     "sum" (the note) or "mean" over the slices of a set
    norm        "batch" (torchvision's ResNet-18) or "group" (in the residual branches; see `keep_amplitude`)
    circular    convolutions wrap around: only where a slice is the whole periodic box
    zero_init   every residual block starts as its shortcut (Goyal et al. 2017, arXiv:1706.02677)
    linear      encoder and decoder start as the linear autoencoder of a slice's largest modes; see `set_power`
    logvar_h, logvar_z    start of the posteriors' log-variances: a narrow start lets the decoder see its input
    """

    def __init__(
        self,
        image_size: int = 128,
        latent_dim: int = LATENT_DIM,
        pooling: str = "sum",
        norm: str = "batch",
        circular: bool = False,
        zero_init: bool = False,
        linear: bool = False,
        logvar_h: float = 0.0,
        logvar_z: float = 0.0,
    ):
        super().__init__()
        self.image_size, self.latent_dim = image_size, latent_dim
        self.encoder = Encoder(image_size, latent_dim, norm, circular, linear)
        self.deep_set = DeepSet(latent_dim, pooling=pooling)
        self.decoder_h = DecoderH(image_size, latent_dim, norm, circular, linear)
        self.decoder_z = DecoderZ(latent_dim)
        if norm == "group":
            keep_amplitude(self.encoder)
        if zero_init:
            for block in self.modules():
                if isinstance(block, BasicBlock | UpBlock):
                    nn.init.zeros_(block.bn2.weight)
        with torch.no_grad():
            self.encoder.h_head.bias.chunk(2)[1].add_(logvar_h)
            self.deep_set.together.bias.chunk(2)[1].add_(logvar_z)

    def set_power(self, power: Tensor) -> None:
        """Spectrum of the slices that a model with linear=True starts from: see `Modes.set_power`."""
        self.encoder.modes.set_power(power)
        self.encoder.statistics.set_power(power)
        self.decoder_h.modes.set_power(power)

    def reparameterize(self, x: Tensor, noise: Tensor | None = None) -> Latent:
        """x (B, 2 D) = mean and log-variance -> sample, mu, logvar, each (B, D).

        noise   standard normal numbers (B, D); drawn from torch's global state when absent
        """
        mu, logvar = x.chunk(2, dim=1)
        noise = torch.randn_like(mu) if noise is None else noise
        return noise.mul(logvar.mul(0.5).exp()).add(mu), mu, logvar

    def forward(
        self, img_zs: Tensor, img_h: Tensor, noise: tuple[Tensor, Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Latent, Latent, Latent]:
        """One target slice of each set, given the set.

        img_zs (B, S, 1, H, H), img_h (B, 1, H, H): standardised pixels;  noise: see `draw_noise`
        Returns recon_h (B, 1, H, H), (z, z_mu, z_logvar), (h, h_mu, h_logvar), (h_post, h_post_mu, h_post_logvar),
        each (B, 512): the posterior of z, the prior of h given z, the posterior of h given slice and z.
        """
        self._check(img_zs, img_h)
        zs = self.encoder.summarise(self.encoder.maps(img_zs.flatten(0, 1)))
        x_z = self.deep_set(zs.unflatten(0, img_zs.shape[:2]))
        return self._decode(x_z, self.encoder.maps(img_h), noise)

    def forward_sets(
        self, sets: Tensor, context: Tensor, noise: tuple[Tensor, Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Latent, Latent, Latent]:
        """Every slice of each set as the target, given other slices of the set; one trunk pass a slice.

        sets (B, n, 1, H, H);  context (B, n, n) of zeros and ones: row i has the slices that target i is given,
        e.g. `leave_one_out`. Returns what `forward` does, for B * n targets, set by set.
        """
        self._check(sets, sets[:, -1])
        f = self.encoder.maps(sets.flatten(0, 1))
        x_z = self.deep_set(self.encoder.summarise(f).unflatten(0, sets.shape[:2]), context)
        return self._decode(x_z.flatten(0, 1), f, noise)

    def _decode(self, x_z: Tensor, f: Tensor, noise) -> tuple[Tensor, Latent, Latent, Latent]:
        noise_z, noise_h, noise_post = noise or (None, None, None)
        z = self.reparameterize(x_z, noise_z)
        h = self.reparameterize(self.decoder_z(z[0]), noise_h)
        h_post = self.reparameterize(self.encoder.locate(f, z[0]), noise_post)
        return self.decoder_h(h_post[0]), z, h, h_post

    def _check(self, img_zs: Tensor, img_h: Tensor) -> None:
        expected = (1, self.image_size, self.image_size)
        if img_zs.ndim != 5 or img_zs.shape[2:] != expected or img_h.shape != (len(img_zs), *expected):
            raise ValueError(
                f"found sets of shape {tuple(img_zs.shape)} and targets of shape {tuple(img_h.shape)}; "
                f"expected (B, S, 1, {self.image_size}, {self.image_size}) and "
                f"(B, 1, {self.image_size}, {self.image_size})"
            )


def leave_one_out(n_sets: int, set_size: int, device: torch.device | str = "cpu") -> Tensor:
    """Context of `UniverseVAE.forward_sets` in which each slice is given all others: (n_sets, set_size, set_size)."""
    return (1 - torch.eye(set_size, device=device)).expand(n_sets, -1, -1)


def draw_context(n_sets: int, set_size: int, least: int, generator: Generator) -> Tensor:
    """Random contexts: each slice is given k of the others, k uniform from `least` to set_size - 1.

    Returns (n_sets, set_size, set_size) of zeros and ones, zeros on the diagonal, on the generator's device.
    """
    shape = (n_sets, set_size, set_size)
    order = torch.rand(shape, generator=generator, device=generator.device)
    order.diagonal(dim1=1, dim2=2).fill_(2.0)  # a slice never belongs to its own context
    k = torch.randint(least, set_size, shape[:2], generator=generator, device=generator.device)
    return (order.argsort(dim=-1).argsort(dim=-1) < k[..., None]).float()


def draw_noise(
    n: int, latent_dim: int, generator: Generator, device: torch.device | str = "cpu"
) -> tuple[Tensor, Tensor, Tensor]:
    """Standard normal numbers for z, h and h_post of n targets: three tensors (n, latent_dim)."""
    shape = (n, latent_dim)
    return tuple(torch.randn(shape, generator=generator, device=generator.device).to(device) for _ in range(3))


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
