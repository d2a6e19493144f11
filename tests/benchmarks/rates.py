"""Arithmetic: operations of a step, and the rate of the machine on matrix products and on the step's convolutions."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from uvae_lib.model import UpConv
from uvae_lib.training.fit import LitUniverseVAE


def step_flops(step: Callable[[int], None]) -> int:
    """Floating point operations of a step, a product and a sum counted as two."""
    with FlopCounterMode(display=False) as counter:
        step(0)
    return counter.get_total_flops()


def convolutions(module: LitUniverseVAE, step: Callable[[int], None]) -> list[tuple[nn.Module, Tensor]]:
    """Every call of a convolution in a step: the layer and its input, as it was (bfloat16, channels_last)."""
    calls, hooks = [], []
    for layer in module.model.modules():
        if isinstance(layer, nn.Conv2d):
            hooks.append(layer.register_forward_pre_hook(lambda layer, args: calls.append((layer, args[0].detach()))))
    step(0)
    for hook in hooks:
        hook.remove()
    return calls


def convolution_step(calls: list[tuple[nn.Module, Tensor]], dtype: torch.dtype) -> Callable[[int], None]:
    """Forward and backward of the convolutions of a step and nothing else: weights are in dtype already."""
    prepared = []
    for number, (layer, x) in enumerate(calls):
        kernel = four_by_four(layer.weight) if isinstance(layer, UpConv) else layer.weight
        kernel = kernel.detach().to(dtype).contiguous(memory_format=torch.channels_last)
        x = x.to(dtype).contiguous(memory_format=torch.channels_last)
        if isinstance(layer, UpConv):
            arguments = ([2, 2], [3 - 2 * layer.padding[0]] * 2, [1, 1], True, [0, 0], 1)
        else:
            arguments = (list(layer.stride), list(layer.padding), [1, 1], False, [0, 0], 1)
        out = torch.ops.aten.convolution(x, kernel, None, *arguments)
        needs = [number > 0, True, False]  # the slices themselves need no gradient
        prepared.append((x, kernel, arguments, torch.randn_like(out), needs))

    def step(_: int) -> None:
        for x, kernel, arguments, grad, needs in prepared:
            torch.ops.aten.convolution(x, kernel, None, *arguments)
            torch.ops.aten.convolution_backward(grad, x, kernel, None, *arguments, needs)

    return step


def four_by_four(weight: Tensor) -> Tensor:
    """The kernel of an UpConv's transposed convolution, (n_in, n_out, 4, 4)."""
    k = nn.functional.pad(weight.flip(2, 3).transpose(0, 1), (1, 1, 1, 1))
    k = k[..., :-1, :] + k[..., 1:, :]
    return k[..., :-1] + k[..., 1:]


def plain_flops(calls: list[tuple[nn.Module, Tensor]]) -> int:
    """Operations that UpConv saves in a step: upsampling first would take 36 products where it takes 16."""
    saved = 0
    for layer, x in calls:
        if isinstance(layer, UpConv):
            saved += 3 * 2 * 20 * x.numel() * layer.out_channels  # forward and both gradients
    return saved


def product_step(size: int, dtype: torch.dtype) -> tuple[Callable[[int], None], int]:
    """A square matrix product, and its operations."""
    a, b = (torch.randn(size, size).to(dtype) for _ in range(2))
    return lambda _: a @ b, 2 * size**3
