"""Between particles and mesh: cloud-in-cell painting and reading, and the painting of the matter sheet.

Compiled loops for one core of a CPU, where XLA's scatter is slow; several processes simulate side by side.
Particles are given by displacements (N, N, N, 3) [voxels] from a periodic lattice with one point a voxel.

The sheet: what was between eight neighbouring particles moves by trilinear interpolation. The cell between them is
sampled at the midpoints of m_1 x m_2 x m_3 parts of equal mass; m_i is `PER_VOXEL` times the longest of its four
edges along axis i (largest component, in voxels), rounded up, 1 to `MOST`.
"""

from collections.abc import Callable

import numba
import numpy as np

PER_VOXEL = 1.5  # tracers a voxel along an edge of a cell
MOST = 6  # tracers along an edge
ONE, HALF = np.float32(1), np.float32(0.5)


def paint(displacement: np.ndarray) -> np.ndarray:
    """Particles a voxel, (N, N, N), of displacements (N, N, N, 3)."""
    mesh = np.zeros(displacement.shape[:3], np.float32)
    _paint(displacement, mesh)
    return mesh


def read(meshes: tuple, displacement: np.ndarray) -> np.ndarray:
    """The values of three meshes (N, N, N) at the particles, (N, N, N, 3)."""
    found = np.empty_like(displacement)
    _read(*(np.asarray(mesh) for mesh in meshes), displacement, found)
    return found


def sheet(displacement: np.ndarray) -> np.ndarray:
    """Mass a voxel of the matter sheet, (N, N, N) of mean 1, of displacements (N, N, N, 3)."""
    mesh = np.zeros(displacement.shape[:3], np.float32)
    _sheet(displacement, mesh)
    return mesh


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
