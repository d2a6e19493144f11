"""Between particles and mesh: cloud-in-cell painting and reading, and the painting of the matter sheet.

The same three functions twice: compiled loops for a CPU, where XLA's scatter is slow, and JAX for a GPU. Particles are
given by their displacements (N, N, N, 3) [voxels] from the points of a periodic lattice with a point a voxel.

The sheet: the eight particles around a cell of the lattice move, and what was between them moves by trilinear
interpolation. A cell is sampled at the midpoints of m_1 x m_2 x m_3 parts of equal mass; m_i is 1.5 times the longest
of the cell's four edges along axis i (largest component, in voxels), rounded up, at most 6.
"""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np

PER_VOXEL = 1.5  # tracers a voxel along an edge of a cell of the sheet
MOST = 6  # tracers along an edge


class Assignment(NamedTuple):
    """One implementation."""

    array: Callable
    """any array -> one of this implementation"""
    paint: Callable
    """displacements -> (N, N, N), particles a voxel"""
    read: Callable
    """(three meshes, displacements) -> (N, N, N, 3), their values at the particles"""
    sheet: Callable
    """displacements -> (N, N, N), mass a voxel, mean 1"""


@cache
def on_cpu() -> Assignment:
    """Loops compiled by numba, for one core."""
    paint, read, sheet = (_compile(loop) for loop in (_paint, _read, _sheet))

    def filled(loop: Callable, displacement: np.ndarray, *options) -> np.ndarray:
        mesh = np.zeros(displacement.shape[:3], np.float32)
        loop(displacement, mesh, *options)
        return mesh

    def values(meshes: tuple, displacement: np.ndarray) -> np.ndarray:
        found = np.empty_like(displacement)
        read(*(np.asarray(mesh) for mesh in meshes), displacement, found)
        return found

    return Assignment(
        lambda field: np.ascontiguousarray(field, np.float32),
        lambda displacement: filled(paint, displacement),
        values,
        lambda displacement: filled(sheet, displacement, np.float32(PER_VOXEL), MOST),
    )


def _compile(loop: Callable) -> Callable:
    """numba's compilation of a loop, kept on disk for the next process where a folder can be written."""
    import numba

    try:
        return numba.njit(loop, cache=True, fastmath=True)
    except RuntimeError:  # no folder for it
        return numba.njit(loop, fastmath=True)


def _paint(displacement, mesh):
    n, one = mesh.shape[0], np.float32(1)
    for i in range(n):
        for j in range(n):
            for k in range(n):
                x, y, z = i + displacement[i, j, k, 0], j + displacement[i, j, k, 1], k + displacement[i, j, k, 2]
                fx, fy, fz = np.floor(x), np.floor(y), np.floor(z)
                x1, y1, z1 = np.float32(x - fx), np.float32(y - fy), np.float32(z - fz)
                x0, y0, z0 = one - x1, one - y1, one - z1
                a, b, c = int(fx) % n, int(fy) % n, int(fz) % n
                d, e, f = (a + 1) % n, (b + 1) % n, (c + 1) % n
                mesh[a, b, c] += x0 * y0 * z0
                mesh[a, b, f] += x0 * y0 * z1
                mesh[a, e, c] += x0 * y1 * z0
                mesh[a, e, f] += x0 * y1 * z1
                mesh[d, b, c] += x1 * y0 * z0
                mesh[d, b, f] += x1 * y0 * z1
                mesh[d, e, c] += x1 * y1 * z0
                mesh[d, e, f] += x1 * y1 * z1


def _read(mesh_x, mesh_y, mesh_z, displacement, found):
    n, one = mesh_x.shape[0], np.float32(1)
    for i in range(n):
        for j in range(n):
            for k in range(n):
                x, y, z = i + displacement[i, j, k, 0], j + displacement[i, j, k, 1], k + displacement[i, j, k, 2]
                fx, fy, fz = np.floor(x), np.floor(y), np.floor(z)
                x1, y1, z1 = np.float32(x - fx), np.float32(y - fy), np.float32(z - fz)
                x0, y0, z0 = one - x1, one - y1, one - z1
                a, b, c = int(fx) % n, int(fy) % n, int(fz) % n
                d, e, f = (a + 1) % n, (b + 1) % n, (c + 1) % n
                for axis, mesh in enumerate((mesh_x, mesh_y, mesh_z)):
                    low = y0 * (z0 * mesh[a, b, c] + z1 * mesh[a, b, f])
                    low += y1 * (z0 * mesh[a, e, c] + z1 * mesh[a, e, f])
                    high = y0 * (z0 * mesh[d, b, c] + z1 * mesh[d, b, f])
                    high += y1 * (z0 * mesh[d, e, c] + z1 * mesh[d, e, f])
                    found[i, j, k, axis] = x0 * low + x1 * high


def _sheet(displacement, mesh, per_voxel, most):
    n, one, middle = mesh.shape[0], np.float32(1), np.float32(0.5)
    corner = np.empty((2, 2, 2, 3), np.float32)  # of a cell, from its first lattice point
    plane, line = np.empty((2, 2, 3), np.float32), np.empty((2, 3), np.float32)
    for i in range(n):
        for j in range(n):
            for k in range(n):
                long_x = long_y = long_z = np.float32(0)
                for p in range(2):
                    for q in range(2):
                        for r in range(2):
                            moved = displacement[(i + p) % n, (j + q) % n, (k + r) % n]
                            corner[p, q, r, 0] = p + moved[0]
                            corner[p, q, r, 1] = q + moved[1]
                            corner[p, q, r, 2] = r + moved[2]
                for p in range(2):
                    for q in range(2):
                        for axis in range(3):
                            long_x = max(long_x, abs(corner[1, p, q, axis] - corner[0, p, q, axis]))
                            long_y = max(long_y, abs(corner[p, 1, q, axis] - corner[p, 0, q, axis]))
                            long_z = max(long_z, abs(corner[p, q, 1, axis] - corner[p, q, 0, axis]))
                n_x = min(max(int(np.ceil(per_voxel * long_x)), 1), most)
                n_y = min(max(int(np.ceil(per_voxel * long_y)), 1), most)
                n_z = min(max(int(np.ceil(per_voxel * long_z)), 1), most)
                mass = one / np.float32(n_x * n_y * n_z)
                for u in range(n_x):
                    s = (np.float32(u) + middle) / np.float32(n_x)
                    for q in range(2):
                        for r in range(2):
                            for axis in range(3):
                                low = corner[0, q, r, axis]
                                plane[q, r, axis] = low + s * (corner[1, q, r, axis] - low)
                    for v in range(n_y):
                        s = (np.float32(v) + middle) / np.float32(n_y)
                        for r in range(2):
                            for axis in range(3):
                                line[r, axis] = plane[0, r, axis] + s * (plane[1, r, axis] - plane[0, r, axis])
                        for w in range(n_z):
                            s = (np.float32(w) + middle) / np.float32(n_z)
                            x = i + (line[0, 0] + s * (line[1, 0] - line[0, 0]))
                            y = j + (line[0, 1] + s * (line[1, 1] - line[0, 1]))
                            z = k + (line[0, 2] + s * (line[1, 2] - line[0, 2]))
                            fx, fy, fz = np.floor(x), np.floor(y), np.floor(z)
                            x1, y1, z1 = np.float32(x - fx), np.float32(y - fy), np.float32(z - fz)
                            x0, y0, z0 = (one - x1) * mass, one - y1, one - z1
                            x1 = x1 * mass
                            a, b, c = int(fx) % n, int(fy) % n, int(fz) % n
                            d, e, f = (a + 1) % n, (b + 1) % n, (c + 1) % n
                            mesh[a, b, c] += x0 * y0 * z0
                            mesh[a, b, f] += x0 * y0 * z1
                            mesh[a, e, c] += x0 * y1 * z0
                            mesh[a, e, f] += x0 * y1 * z1
                            mesh[d, b, c] += x1 * y0 * z0
                            mesh[d, b, f] += x1 * y0 * z1
                            mesh[d, e, c] += x1 * y1 * z0
                            mesh[d, e, f] += x1 * y1 * z1


@cache
def by_jax(side: int) -> Assignment:
    """The same by JaxPM, for a mesh of side^3: what a GPU is good at."""
    import jax
    import jax.numpy as jnp
    from jaxpm.painting import cic_paint, cic_read

    lattice = jnp.stack(jnp.meshgrid(*[jnp.arange(side, dtype=jnp.float32)] * 3, indexing="ij"), axis=-1)
    empty = jnp.zeros((side,) * 3, jnp.float32)

    @jax.jit
    def read(meshes, displacement):
        return jnp.stack([cic_read(mesh, lattice + displacement) for mesh in meshes], axis=-1)

    @jax.jit
    def sheet(displacement):
        """All cells at once, a tracer of each a pass; a cell that has fewer adds nothing."""
        rolled = {c: displacement for c in [(0, 0, 0)]}
        for c in np.ndindex(2, 2, 2):
            rolled[c] = jnp.roll(displacement, [-x for x in c], (0, 1, 2)) + jnp.array(c, jnp.float32)
        count = []
        for axis in range(3):
            edges = [rolled[tuple(np.add(c, np.eye(3, dtype=int)[axis]))] - rolled[c] for c in rolled if not c[axis]]
            longest = jnp.max(jnp.abs(jnp.stack(edges)), axis=(0, -1))
            count.append(jnp.clip(jnp.ceil(PER_VOXEL * longest), 1, MOST))
        mass = 1 / (count[0] * count[1] * count[2])

        def add(number, mesh):
            index = (number // MOST**2, number // MOST % MOST, number % MOST)
            inside = (index[0] < count[0]) & (index[1] < count[1]) & (index[2] < count[2])
            s = [((u + 0.5) / n)[..., None] for u, n in zip(index, count, strict=True)]
            moved = sum(
                field * (s[0] if c[0] else 1 - s[0]) * (s[1] if c[1] else 1 - s[1]) * (s[2] if c[2] else 1 - s[2])
                for c, field in rolled.items()
            )
            return cic_paint(mesh, lattice + moved, jnp.where(inside, mass, 0))

        return jax.lax.fori_loop(0, MOST**3, add, empty)

    return Assignment(jnp.asarray, jax.jit(lambda displacement: cic_paint(empty, lattice + displacement)), read, sheet)
