"""Departures from the note in the layers: each changes a network in place and returns it."""

from functools import partial

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from ..model import UniverseVAE, UpBlock


class ScaleShift(nn.Module):
    """A learned scale and shift of every channel: what a normalisation layer has beside its normalisation."""

    def __init__(self, channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, m, m) -> (B, C, m, m)."""
        return torch.addcmul(self.bias[:, None, None].to(x.dtype), x, self.weight[:, None, None].to(x.dtype))


def group_norm(network: nn.Module, keep_amplitude: bool = True) -> nn.Module:
    """Replace batch normalisation by group normalisation, 16 channels a group: training and evaluation agree.

    keep_amplitude   outside the residual branches, in the stem and the shortcuts, put `ScaleShift` instead: a group
                     norm divides by the slice's own contrast, and contrast is cosmology (sigma_8), so a network that
                     reads slices needs a way around it. Batch normalisation divides all slices by the same numbers.
    """
    for name, child in network.named_children():
        if isinstance(child, nn.BatchNorm2d):
            branch = isinstance(network, BasicBlock | UpBlock) and name in ("bn1", "bn2")
            channels = child.num_features
            norm = nn.GroupNorm(max(1, channels // 16), channels)
            setattr(network, name, norm if branch or not keep_amplitude else ScaleShift(channels))
        else:
            group_norm(child, keep_amplitude)
    return network


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


def circular_padding(network: nn.Module) -> nn.Module:
    """Let every padded layer wrap around: right where a slice is the whole periodic box."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.MaxPool2d):
            p = layer.padding if isinstance(layer.padding, int) else layer.padding[0]
            if p:
                layer.padding = (0, 0)
                layer.register_forward_pre_hook(partial(_wrap_input, p=p))
    return network


def zero_init_residuals(network: nn.Module) -> nn.Module:
    """Let every residual block start as its shortcut (Goyal et al. 2017, arXiv:1706.02677)."""
    for block in network.modules():
        if isinstance(block, BasicBlock | UpBlock):
            nn.init.zeros_(block.bn2.weight)
    return network


@torch.no_grad()
def posterior_width(model: UniverseVAE, logvar_z: float, logvar_h: float) -> UniverseVAE:
    """Shift where the posteriors' log-variances start: a narrow start lets the decoder see its input at once."""
    model.deep_set.together.bias.chunk(2)[1].add_(logvar_z)
    model.encoder.h_head.bias.chunk(2)[1].add_(logvar_h)
    return model
