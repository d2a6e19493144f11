"""Slices of periodic cubes: the crop, the transform of the pixels, and many slices cut at once.

Pixels are x = log(y + eps) of the overdensity y = rho / <rho>, as in the note.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

EPS = 1e-8  # of the transform, as in the note


def periodic_crop(plane: Tensor | np.ndarray, corner: tuple[int, int], size: int) -> Tensor | np.ndarray:
    """Cut a square from a periodic plane, wrapping past its edges.

    plane   (..., N, N)  a field on a periodic grid, tensor or array
    corner  (row, col)   first pixel of the square, taken modulo N
    size                 side of the square [pixels], at most N
    Returns (..., size, size), of the type of plane. Raises ValueError when the square would cover a pixel twice.
    """
    if plane.ndim < 2 or plane.shape[-1] != plane.shape[-2]:
        raise ValueError(f"found a plane of shape {tuple(plane.shape)}; expected (..., N, N), a periodic square")
    side = plane.shape[-1]
    if not 1 <= size <= side:
        raise ValueError(f"a {size}-pixel crop does not fit a {side}-pixel periodic plane; use 1 <= size <= {side}")
    rows, cols = ((start + np.arange(size)) % side for start in corner)
    return plane[..., rows[:, None], cols]


def periodic_pad(x: Tensor, p: int) -> Tensor:
    """Continue maps past their edges by what stands at the opposite ones: (B, C, H, W) -> (B, C, H + 2p, W + 2p)."""
    return _Wrap.apply(x, p)


class _Wrap(torch.autograd.Function):
    """`periodic_pad`, several times faster than F.pad(mode="circular") in channels_last, which it keeps."""

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


def log_density(y: Tensor | np.ndarray, eps: float = EPS) -> Tensor | np.ndarray:
    """x = log(y + eps) of an overdensity y = rho / <rho> >= 0, any shape; the pixels of the note."""
    return torch.log(y + eps) if isinstance(y, Tensor) else np.log(y + np.asarray(eps, dtype=y.dtype))


def overdensity(x: Tensor | np.ndarray, eps: float = EPS) -> Tensor | np.ndarray:
    """y = exp(x) - eps, the inverse of `log_density`, never below zero."""
    return (torch.exp(x) - eps).clamp_min(0) if isinstance(x, Tensor) else np.maximum(np.exp(x) - eps, 0)


@dataclass(frozen=True)
class Cuts:
    """Where slices are cut: integer tensors of one shape (...), one entry a slice.

    cube, axis, plane   which plane of which cube: plane[axis] of volumes[cube]
    row, col            corner, in the two axes that remain, in their order
    transpose, flip_row, flip_col    0 or 1: the eight symmetries of a square (quarter turns and mirror flips)
    """

    cube: Tensor
    axis: Tensor
    plane: Tensor
    row: Tensor
    col: Tensor
    transpose: Tensor
    flip_row: Tensor
    flip_col: Tensor

    def __getitem__(self, key) -> "Cuts":
        return Cuts(**{name: value[key] for name, value in vars(self).items()})

    def to(self, device: torch.device | str) -> "Cuts":
        return Cuts(**{name: value.to(device, non_blocking=True) for name, value in vars(self).items()})


def whole_planes(axis: Tensor, plane: Tensor) -> Cuts:
    """Cuts of planes of one cube from their first pixel, as they are: axis, plane integer tensors of one shape."""
    zero = torch.zeros_like(plane)
    return Cuts(zero, axis, plane, zero, zero, zero, zero, zero)


def spread_planes(
    n: int, n_planes: int, axes: tuple[int, ...] = (0, 1, 2), thickness: int = 1, first: np.ndarray | None = None
) -> tuple[Tensor, Tensor]:
    """Axis and plane of n slices that are spread evenly over a cube; the axes take turns.

    n_planes   of the cube along an axis
    thickness  of the slices [voxels]
    first      (n_axes,) first plane of each axis; when absent the axes' planes interleave
    Returns two integer tensors (n,). Raises ValueError when the cube has fewer slices that differ.
    """
    most = -(-n // len(axes))  # of an axis
    if most * thickness > n_planes:
        raise ValueError(
            f"{n} slices were asked for; a cube of {n_planes} planes along {len(axes)} axes has "
            f"{len(axes) * (n_planes // thickness)} that differ at thickness {thickness}"
        )
    turn, rank = np.arange(n) % len(axes), np.arange(n) // len(axes)
    first = np.arange(len(axes)) * n_planes // n if first is None else first
    plane = (first[turn] + rank * n_planes // most) % n_planes
    return torch.from_numpy(np.asarray(axes)[turn]), torch.from_numpy(plane)


def cut_slices(volumes: Tensor, cuts: Cuts, size: int, thickness: int = 1) -> Tensor:
    """Cut many periodic slices at once, by index arithmetic on the device that holds the cubes.

    volumes    (C, P, N, N)  log densities x; P planes along axis 0 (P = N for cubes)
    cuts       where, of shape (...), on any device
    size       side of the square [pixels], at most N
    thickness  [voxels]: the overdensity y of that many planes is averaged, plane first, wrapping
    Returns (..., 1, size, size) in float32.
    """
    n_planes, side = volumes.shape[1], volumes.shape[-1]
    if size > side:
        raise ValueError(f"a {size}-pixel slice does not fit a {side}-voxel cube; give larger cubes, or smaller slices")
    cuts = cuts.to(volumes.device)
    plane_stride = torch.where(cuts.axis == 0, side * side, torch.where(cuts.axis == 1, side, 1))
    row_stride = torch.where(cuts.axis == 0, side, side * side)
    col_stride = torch.where(cuts.axis == 2, side, 1)
    steps = torch.arange(size, device=volumes.device)
    rows = (cuts.row[..., None] + (1 - 2 * cuts.flip_row[..., None]) * steps) % side * row_stride[..., None]
    cols = (cuts.col[..., None] + (1 - 2 * cuts.flip_col[..., None]) * steps) % side * col_stride[..., None]
    turned = cuts.transpose[..., None].bool()
    down, across = torch.where(turned, cols, rows)[..., :, None], torch.where(turned, rows, cols)[..., None, :]
    cube, depth = cuts.cube * (n_planes * side * side), torch.where(cuts.axis == 0, n_planes, side)
    voxels, layers = volumes.flatten(), []
    for i in range(thickness):
        start = cube + (cuts.plane + i) % depth * plane_stride
        place = down + start[..., None, None] + across
        layers.append(voxels.index_select(0, place.flatten()).view(place.shape).float())
    if thickness == 1:
        return layers[0].unsqueeze(-3)
    return torch.logsumexp(torch.stack(layers), 0).sub(math.log(thickness)).unsqueeze(-3)
