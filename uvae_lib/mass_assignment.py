"""Between particles and mesh: cloud-in-cell painting and reading, and the painting of the matter sheet.

The same functions twice: compiled loops for one core of a CPU, where XLA's scatter is slow, and JAX for a GPU.
Particles are given by displacements (N, N, N, 3) [voxels] from a periodic lattice with one point a voxel.

array   any array -> one of this implementation
paint   displacements -> (N, N, N), particles a voxel
read    (three meshes, displacements) -> (N, N, N, 3), their values at the particles
sheet   displacements -> (N, N, N), mass a voxel, mean 1

The sheet: what was between eight neighbouring particles moves by trilinear interpolation. The cell between them is
sampled at the midpoints of m_1 x m_2 x m_3 parts of equal mass; m_i is `PER_VOXEL` times the longest of its four
edges along axis i (largest component, in voxels), rounded up, 1 to `MOST`.
"""

from collections.abc import Callable
from functools import cache, partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numba
import numpy as np
from jaxpm.painting import cic_paint, cic_read

PER_VOXEL = 1.5  # tracers a voxel along an edge of a cell
MOST = 6  # tracers along an edge
ONE, HALF = np.float32(1), np.float32(0.5)


def by_loops() -> SimpleNamespace:
    """Compiled loops, for one core."""

    def painted(loop: Callable, displacement: np.ndarray) -> np.ndarray:
        mesh = np.zeros(displacement.shape[:3], np.float32)
        loop(displacement, mesh)
        return mesh

    def read(meshes: tuple, displacement: np.ndarray) -> np.ndarray:
        found = np.empty_like(displacement)
        _read(*(np.asarray(mesh) for mesh in meshes), displacement, found)
        return found

    return SimpleNamespace(
        array=partial(np.ascontiguousarray, dtype=np.float32),
        paint=partial(painted, _paint),
        read=read,
        sheet=partial(painted, _sheet),
    )


@cache
def by_jax(side: int) -> SimpleNamespace:
    """JaxPM's painting and reading on a mesh of side^3, for a GPU."""
    lattice = jnp.stack(jnp.meshgrid(*[jnp.arange(side, dtype=jnp.float32)] * 3, indexing="ij"), axis=-1)
    empty = jnp.zeros((side,) * 3, jnp.float32)

    @jax.jit
    def read(meshes, displacement):
        return jnp.stack([cic_read(mesh, lattice + displacement) for mesh in meshes], axis=-1)

    @jax.jit
    def sheet(displacement):
        """One tracer of every cell a pass; a cell that has fewer adds nothing."""
        corners = {c: jnp.roll(displacement, [-x for x in c], (0, 1, 2)) + np.float32(c) for c in np.ndindex(2, 2, 2)}
        numbers = []
        for step in ((1, 0, 0), (0, 1, 0), (0, 0, 1)):
            ends = [(c, tuple(np.add(c, step))) for c in corners if not np.dot(c, step)]
            longest = jnp.max(jnp.abs(jnp.stack([corners[b] - corners[a] for a, b in ends])), axis=(0, -1))
            numbers.append(jnp.clip(jnp.ceil(PER_VOXEL * longest), 1, MOST))
        mass = 1 / (numbers[0] * numbers[1] * numbers[2])

        def add(i, mesh):
            index = (i // MOST**2, i // MOST % MOST, i % MOST)
            s = [((u + HALF) / n)[..., None] for u, n in zip(index, numbers, strict=True)]
            moved = sum(
                corner * (s[0] if c[0] else 1 - s[0]) * (s[1] if c[1] else 1 - s[1]) * (s[2] if c[2] else 1 - s[2])
                for c, corner in corners.items()
            )
            inside = (index[0] < numbers[0]) & (index[1] < numbers[1]) & (index[2] < numbers[2])
            return cic_paint(mesh, lattice + moved, jnp.where(inside, mass, 0))

        return jax.lax.fori_loop(0, MOST**3, add, empty)

    paint = jax.jit(lambda displacement: cic_paint(empty, lattice + displacement))
    return SimpleNamespace(array=jnp.asarray, paint=paint, read=read, sheet=sheet)


def _compiled(loop: Callable) -> Callable:
    """numba's compilation of a loop, kept on disk for the next process where a folder can be written."""
    try:
        return numba.njit(loop, cache=True, fastmath=True)
    except RuntimeError:  # numba found no folder
        return numba.njit(loop, fastmath=True)


@_compiled
def _add(mesh, x, y, z, mass):
    """Share a mass among the eight voxels around a position."""
    n = mesh.shape[0]
    fx, fy, fz = np.floor(x), np.floor(y), np.floor(z)
    x1, y1, z1 = np.float32(x - fx), np.float32(y - fy), np.float32(z - fz)
    x0, y0, z0 = (ONE - x1) * mass, ONE - y1, ONE - z1
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


@_compiled
def _paint(displacement, mesh):
    n = mesh.shape[0]
    for i, j in np.ndindex(n, n):
        for k in range(n):
            move = displacement[i, j, k]
            _add(mesh, i + move[0], j + move[1], k + move[2], ONE)


@_compiled
def _read(mesh_x, mesh_y, mesh_z, displacement, found):
    n = mesh_x.shape[0]
    for i, j in np.ndindex(n, n):
        for k in range(n):
            x, y, z = i + displacement[i, j, k, 0], j + displacement[i, j, k, 1], k + displacement[i, j, k, 2]
            fx, fy, fz = np.floor(x), np.floor(y), np.floor(z)
            x1, y1, z1 = np.float32(x - fx), np.float32(y - fy), np.float32(z - fz)
            x0, y0, z0 = ONE - x1, ONE - y1, ONE - z1
            a, b, c = int(fx) % n, int(fy) % n, int(fz) % n
            d, e, f = (a + 1) % n, (b + 1) % n, (c + 1) % n
            for axis, mesh in enumerate((mesh_x, mesh_y, mesh_z)):
                low = y0 * (z0 * mesh[a, b, c] + z1 * mesh[a, b, f])
                low += y1 * (z0 * mesh[a, e, c] + z1 * mesh[a, e, f])
                high = y0 * (z0 * mesh[d, b, c] + z1 * mesh[d, b, f])
                high += y1 * (z0 * mesh[d, e, c] + z1 * mesh[d, e, f])
                found[i, j, k, axis] = x0 * low + x1 * high


@_compiled
def _count(longest):
    """Tracers along an axis of a cell."""
    return min(max(int(np.ceil(np.float32(PER_VOXEL) * longest)), 1), MOST)


@_compiled
def _tracers(corners):
    """Tracers along each axis of a cell, from its moved corners (2, 2, 2, 3)."""
    x = y = z = np.float32(0)
    for p in range(2):
        for q in range(2):
            for i in range(3):
                x = max(x, abs(corners[1, p, q, i] - corners[0, p, q, i]))
                y = max(y, abs(corners[p, 1, q, i] - corners[p, 0, q, i]))
                z = max(z, abs(corners[p, q, 1, i] - corners[p, q, 0, i]))
    return _count(x), _count(y), _count(z)


@_compiled
def _sheet(displacement, mesh):
    n = mesh.shape[0]
    corners = np.empty((2, 2, 2, 3), np.float32)
    plane, line = np.empty((2, 2, 3), np.float32), np.empty((2, 3), np.float32)
    for i, j, k in np.ndindex(n, n, n):
        for p in range(2):
            for q in range(2):
                for r in range(2):
                    move = displacement[(i + p) % n, (j + q) % n, (k + r) % n]
                    corners[p, q, r, 0] = p + move[0]
                    corners[p, q, r, 1] = q + move[1]
                    corners[p, q, r, 2] = r + move[2]
        n_x, n_y, n_z = _tracers(corners)
        mass = ONE / np.float32(n_x * n_y * n_z)
        for u in range(n_x):
            s = (np.float32(u) + HALF) / np.float32(n_x)
            for q in range(2):
                for r in range(2):
                    for axis in range(3):
                        low = corners[0, q, r, axis]
                        plane[q, r, axis] = low + s * (corners[1, q, r, axis] - low)
            for v in range(n_y):
                s = (np.float32(v) + HALF) / np.float32(n_y)
                for r in range(2):
                    for axis in range(3):
                        line[r, axis] = plane[0, r, axis] + s * (plane[1, r, axis] - plane[0, r, axis])
                for w in range(n_z):
                    s = (np.float32(w) + HALF) / np.float32(n_z)
                    x = i + (line[0, 0] + s * (line[1, 0] - line[0, 0]))
                    y = j + (line[0, 1] + s * (line[1, 1] - line[0, 1]))
                    z = k + (line[0, 2] + s * (line[1, 2] - line[0, 2]))
                    _add(mesh, x, y, z, mass)
