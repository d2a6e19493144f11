"""Between particles and mesh: cloud-in-cell painting and reading, and the painting of the matter sheet.

Compiled loops for one core of a CPU, where XLA's scatter is slow; several processes simulate side by side.
Particles are given by displacements (N, N, N, 3) [voxels] from a periodic lattice with one point a voxel.

The sheet: what was between eight neighbouring particles moves by trilinear interpolation; where their cell is emptier
than `THIN` and not folded, by the cubic B-spline through all particles, because the kinks of straight pieces, a cell
of a void being two voxels wide, would print the lattice on voids. A cell is
sampled at the midpoints of m_1 x m_2 x m_3 parts of equal mass; m_i is `PER_VOXEL` times the longest of its four
edges along axis i (largest component, in voxels), rounded up, 1 to `MOST`.
"""

from collections.abc import Callable

import numba
import numpy as np
from scipy.ndimage import spline_filter1d

PER_VOXEL = 1.5  # tracers a voxel along an edge of a cell
MOST = 6  # tracers along an edge
THIN = 0.5  # mass a voxel below which a cell is moved smoothly
ONE = np.float32(1)


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
    spline = displacement  # becomes the coefficients of its cubic B-spline
    for axis in range(3):
        spline = spline_filter1d(spline, 3, axis, np.float32, "grid-wrap")
    _sheet(displacement, spline, mesh)
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
def _thin(corners):
    """Whether a cell is emptier than THIN and not folded, from its moved corners (2, 2, 2, 3)."""
    x = y = z = np.float32(0)
    least = ONE
    for p in range(2):
        for q in range(2):
            along_x = corners[1, p, q, 0] - corners[0, p, q, 0]
            along_y = corners[p, 1, q, 1] - corners[p, 0, q, 1]
            along_z = corners[p, q, 1, 2] - corners[p, q, 0, 2]
            least = min(least, along_x, along_y, along_z)
            x, y, z = x + along_x, y + along_y, z + along_z
    return least > 0 and np.float32(THIN / 64) * x * y * z > ONE


@_compiled
def _gather(displacement, i, j, k, low, high, points):
    """Moved particles, or coefficients, around a cell, from its first corner, which is points[1, 1, 1]."""
    n = displacement.shape[0]
    for p in range(low, high):
        for q in range(low, high):
            for r in range(low, high):
                move = displacement[(i + p - 1) % n, (j + q - 1) % n, (k + r - 1) % n]
                points[p, q, r, 0] = p - 1 + move[0]
                points[p, q, r, 1] = q - 1 + move[1]
                points[p, q, r, 2] = r - 1 + move[2]


def _spreader(smooth: bool) -> Callable:
    """The loop that paints a cell from its 2^3 moved corners or, smooth, from the 4^3 coefficients around it."""
    low, high = (0, 4) if smooth else (1, 3)
    weights = np.zeros((MOST + 1, MOST, 4), np.float32)  # of four points in a row, by number of tracers and tracer
    for count in range(1, MOST + 1):
        s = (np.arange(count) + 0.5) / count
        t = 1 - s
        spline = [t**3, 4 - 3 * s**2 * (2 - s), 4 - 3 * t**2 * (2 - t), s**3]
        weights[count, :count] = np.transpose(spline) / 6 if smooth else np.transpose([0 * s, t, s, 0 * s])

    @_compiled
    def spread(points, plane, line, place, n_x, n_y, n_z, i, j, k, mesh):
        mass = ONE / np.float32(n_x * n_y * n_z)
        for u in range(n_x):
            for q in range(low, high):
                for r in range(low, high):
                    for axis in range(3):
                        moved = np.float32(0)
                        for p in range(low, high):
                            moved += weights[n_x, u, p] * points[p, q, r, axis]
                        plane[q, r, axis] = moved
            for v in range(n_y):
                for r in range(low, high):
                    for axis in range(3):
                        moved = np.float32(0)
                        for q in range(low, high):
                            moved += weights[n_y, v, q] * plane[q, r, axis]
                        line[r, axis] = moved
                for w in range(n_z):
                    for axis in range(3):
                        moved = np.float32(0)
                        for r in range(low, high):
                            moved += weights[n_z, w, r] * line[r, axis]
                        place[axis] = moved
                    _add(mesh, i + place[0], j + place[1], k + place[2], mass)

    return spread


_straight, _smooth = _spreader(False), _spreader(True)


@_compiled
def _sheet(displacement, spline, mesh):
    n = mesh.shape[0]
    points = np.empty((4, 4, 4, 3), np.float32)
    corners = points[1:3, 1:3, 1:3]
    plane, line, place = np.empty((4, 4, 3), np.float32), np.empty((4, 3), np.float32), np.empty(3, np.float32)
    for i, j, k in np.ndindex(n, n, n):
        _gather(displacement, i, j, k, 1, 3, points)
        n_x, n_y, n_z = _tracers(corners)
        if _thin(corners):
            _gather(spline, i, j, k, 0, 4, points)
            _smooth(points, plane, line, place, n_x, n_y, n_z, i, j, k, mesh)
        else:
            _straight(points, plane, line, place, n_x, n_y, n_z, i, j, k, mesh)
