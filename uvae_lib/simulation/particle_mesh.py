"""One universe: linear spectrum, 2LPT start, particle-mesh gravity, and the density of the matter sheet.

One particle a voxel starts at a = 0.1 from second-order Lagrangian perturbation theory and is moved to a = 1 by
BullFrog (Rampf, List & Hahn 2024, arXiv:2409.19049): drift, kick, drift in the linear growth factor D, with the
weights of the kick chosen so that every step is exact to second order. Fourier kernels are JaxPM's, under `jax.jit`.

What is painted is the sheet between the particles (Abel, Hahn & Kaehler 2012, arXiv:1111.3944), with as many tracers
as its stretch asks for, so that voids hold matter and no tracers beat with the mesh, and smooth in voids, where
kinks at particles would show their lattice. Spectra of cubes carry one
cloud-in-cell window, sinc^2(k_i / 2) an axis (k in radians a voxel).
"""

from functools import cache
from types import SimpleNamespace

import numpy as np

PLANCK15 = {"Omega_b": 0.0486, "h": 0.6774, "n_s": 0.9667}  # Planck 2015, table 4, last column
T_CMB = 2.7255  # [K]
START = 0.1  # scale factor of the 2LPT start
METHOD = {
    "noise": "numpy PCG64, standard_normal, float32",
    "spectrum": "Eisenstein & Hu 1998, normalised here",
    "start": START,
    "integrator": "BullFrog, steps of equal da",
    "force": "CIC, one window divided out, fourth-order gradient",
    "painting": "Lagrangian sheet, cubic in voids, 1.5 tracers a voxel of its edges, 1 to 6 an edge, CIC",
    "precision": "float32",
    "fixed": PLANCK15 | {"T_cmb": T_CMB},
}


def simulate_cube(omega_m: float, sigma_8: float, seed: int, side: int, box_size: float, n_steps: int) -> np.ndarray:
    """One universe at a = 1.

    omega_m, sigma_8   cosmology; the other parameters are Planck 2015, flat
    seed               of the initial phases
    side               voxels (and particles) along an edge
    box_size           [Mpc/h]
    n_steps            from a = 0.1 to a = 1, one force each
    Returns (side, side, side) float32, overdensity rho / <rho>, never negative, mean 1.
    """
    import jax

    from .mass_assignment import sheet

    with jax.enable_x64(False):  # whatever JAX_ENABLE_X64 says
        noise = np.random.default_rng(seed).standard_normal((side,) * 3, dtype=np.float32)
        delta = linear_field(noise, omega_m, sigma_8, box_size)
        cube = sheet(evolve(delta, omega_m, n_steps)).astype(np.float64)
    return np.maximum(cube / cube.mean(), 0.0).astype(np.float32)


# --- linear theory


def transfer(k: np.ndarray, omega_m: float) -> np.ndarray:
    """Transfer function of cold matter and baryons (Eisenstein & Hu 1998, astro-ph/9709112, eq. 2 to 24).

    k         wave numbers [h/Mpc]
    omega_m   with Omega_b, h and T_cmb of `PLANCK15`
    Returns T(k), 1 at k = 0.
    """
    h, e = PLANCK15["h"], np.e
    m, b, theta = omega_m * h**2, PLANCK15["Omega_b"] * h**2, T_CMB / 2.7
    baryons, k = b / m, k * h  # k in 1/Mpc from here on
    z_eq, k_eq = 2.5e4 * m * theta**-4, 7.46e-2 * m * theta**-2
    b1, b2 = 0.313 * m**-0.419 * (1 + 0.607 * m**0.674), 0.238 * m**0.223
    z_drag = 1291 * m**0.251 / (1 + 0.659 * m**0.828) * (1 + b1 * b**b2)
    r_drag, r_eq = (31.5 * b * theta**-4 * 1e3 / z for z in (z_drag, z_eq))
    sound = 2 / (3 * k_eq) * np.sqrt(6 / r_eq)
    sound *= np.log((np.sqrt(1 + r_drag) + np.sqrt(r_drag + r_eq)) / (1 + np.sqrt(r_eq)))
    silk = 1.6 * b**0.52 * m**0.73 * (1 + (10.4 * m) ** -0.95)
    a1, a2 = ((46.9 * m) ** 0.670 * (1 + (32.1 * m) ** -0.532), (12 * m) ** 0.424 * (1 + (45 * m) ** -0.582))
    alpha_c = a1**-baryons * a2 ** -(baryons**3)
    b1, b2 = 0.944 / (1 + (458 * m) ** -0.708), (0.395 * m) ** -0.0266
    beta_c = 1 / (1 + b1 * ((1 - baryons) ** b2 - 1))
    q = k / (13.41 * k_eq)

    def pressureless(alpha: float, beta: float) -> np.ndarray:
        log = np.log(e + 1.8 * beta * q)
        return log / (log + (14.2 / alpha + 386 / (1 + 69.9 * q**1.08)) * q**2)

    f = 1 / (1 + (k * sound / 5.4) ** 4)
    cold = f * pressureless(1, beta_c) + (1 - f) * pressureless(alpha_c, beta_c)
    y = (1 + z_eq) / (1 + z_drag)
    g = y * (-6 * np.sqrt(1 + y) + (2 + 3 * y) * np.log((np.sqrt(1 + y) + 1) / (np.sqrt(1 + y) - 1)))
    alpha_b = 2.07 * k_eq * sound * (1 + r_drag) ** -0.75 * g
    beta_b = 0.5 + baryons + (3 - 2 * baryons) * np.sqrt((17.2 * m) ** 2 + 1)
    node = sound / (1 + (8.41 * m**0.435 / (k * sound)) ** 3) ** (1 / 3)
    waves = pressureless(1, 1) / (1 + (k * sound / 5.2) ** 2)
    waves += alpha_b / (1 + (beta_b / (k * sound)) ** 3) * np.exp(-((k / silk) ** 1.4))
    return baryons * waves * np.sinc(k * node / np.pi) + (1 - baryons) * cold


def variance(k: np.ndarray, power: np.ndarray, radius: float = 8.0) -> float:
    """Variance in spheres of a radius [Mpc/h] of a spectrum [(Mpc/h)^3] at k [h/Mpc], spaced evenly in log k."""
    x = radius * k
    window = np.where(x < 0.01, 1 - x**2 / 10, 3 * (np.sin(x) - x * np.cos(x)) / x**3)
    return float(np.trapezoid(k**3 * power * window**2 / (2 * np.pi**2), np.log(k)))


def linear_power(omega_m: float, sigma_8: float) -> tuple[np.ndarray, np.ndarray]:
    """Linear matter power spectrum at a = 1: k [h/Mpc], P(k) [(Mpc/h)^3], with the sigma_8 that is asked for."""
    k = np.geomspace(1e-5, 100.0, 4096)
    power = k ** PLANCK15["n_s"] * transfer(k, omega_m) ** 2
    return k, power * sigma_8**2 / variance(k, power)


def growth(omega_m: float, a: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Growth in flat LCDM at increasing scale factors a, the last of which is 1 (Bouchet et al. 1995).

    Returns D, with D(1) = 1; the second-order E, (3/7) D^2 where matter dominates; and dE/dD (astro-ph/9406013).
    """
    from scipy.integrate import solve_ivp

    def change(log_a: float, y: np.ndarray) -> list:
        matter = omega_m / (omega_m + (1 - omega_m) * np.exp(3 * log_a))
        d, d_rate, e, e_rate = y
        drag = 2 - 1.5 * matter
        return [d_rate, 1.5 * matter * d - drag * d_rate, e_rate, 1.5 * matter * (e + d**2) - drag * e_rate]

    early = 1e-3
    start = [early, early, 3 / 7 * early**2, 6 / 7 * early**2]
    solution = solve_ivp(change, [np.log(early), 0.0], start, t_eval=np.log(a), rtol=1e-9, atol=1e-15)
    d, d_rate, e, e_rate = solution.y
    return d / d[-1], e / d[-1] ** 2, e_rate / d_rate / d[-1]


# --- fields, forces, steps


def linear_field(noise: np.ndarray, omega_m: float, sigma_8: float, box_size: float) -> np.ndarray:
    """The linear density contrast at a = 1 of white noise (N, N, N) of unit variance, same shape."""
    side = len(noise)
    k, power = linear_power(omega_m, sigma_8)
    length = np.sqrt(sum(axis.astype(np.float64) ** 2 for axis in wave_numbers(side)))
    length[0, 0, 0] = length[0, 0, 1]  # any number: this mode is removed
    spectrum = np.exp(np.interp(np.log(length * side / box_size), np.log(k), np.log(power)))
    amplitude = np.sqrt(spectrum * (side / box_size) ** 3).astype(np.float32)
    amplitude[0, 0, 0] = 0
    return np.asarray(_fields(side).colour(noise, amplitude))


def evolve(delta: np.ndarray, omega_m: float, n_steps: int) -> np.ndarray:
    """Displacements (N, N, N, 3) at a = 1 [voxels] of particles of a lattice, from a linear field (N, N, N)."""
    from .mass_assignment import paint, read

    fields = _fields(len(delta))
    a = np.linspace(START, 1.0, n_steps + 1)
    d, e, slope = growth(omega_m, a)
    first, second = (np.ascontiguousarray(field, dtype=np.float32) for field in fields.start(delta))
    displacement = np.float32(d[0]) * first + np.float32(e[0]) * second
    velocity = first + np.float32(slope[0]) * second  # dx/dD
    for i in range(n_steps):
        half, middle = (d[i + 1] - d[i]) / 2, (d[i + 1] + d[i]) / 2
        displacement = displacement + np.float32(half) * velocity
        pull = read(fields.force(paint(displacement)), displacement)
        reached = (e[i] + slope[i] * half + middle**2) / middle  # the pull's second-order part
        kept = (slope[i + 1] - reached) / (slope[i] - reached)
        velocity = np.float32(kept) * velocity + np.float32((1 - kept) / middle) * pull
        displacement = displacement + np.float32(half) * velocity
    return displacement


def wave_numbers(side: int) -> list[np.ndarray]:
    """The three axes of `rfftn`'s modes of a cube, float32, radians a voxel, in shapes that broadcast."""
    whole, half = (2 * np.pi * f(side).astype(np.float32) for f in (np.fft.fftfreq, np.fft.rfftfreq))
    return [whole[:, None, None], whole[None, :, None], half[None, None, :]]


@cache
def _fields(side: int) -> SimpleNamespace:
    """What is done in Fourier space on one mesh, compiled once a process.

    colour   (noise, amplitude of every mode) -> field
    start    linear field -> first and second-order displacement fields, each (N, N, N, 3) [voxels]
    force    mesh of mass a voxel -> three meshes, minus the gradient of the potential whose Laplacian is the contrast
    """
    import jax
    import jax.numpy as jnp
    from jaxpm.kernels import cic_compensation, gradient_kernel, invlaplace_kernel

    k = wave_numbers(side)
    exact = [np.where(np.abs(axis) < 3.1415, axis, 0) for axis in k]  # the Nyquist mode has no odd derivative
    ahead, back = jnp.fft.rfftn, lambda modes: jnp.fft.irfftn(modes, s=(side,) * 3)

    def downhill(source):
        potential = invlaplace_kernel(k) * source
        return jnp.stack([back(-1j * axis * potential) for axis in exact], axis=-1)

    @jax.jit
    def start(delta):
        potential = invlaplace_kernel(k) * ahead(delta)
        shear = {(i, j): back(-k[i] * k[j] * potential) for i in range(3) for j in range(i, 3)}
        tides = sum(shear[i, i] * shear[j, j] - shear[i, j] ** 2 for i, j in ((0, 1), (0, 2), (1, 2)))
        return downhill(ahead(delta)), downhill(ahead(tides))

    @jax.jit
    def force(mesh):
        potential = invlaplace_kernel(k) * cic_compensation(k) * ahead(mesh)
        return tuple(back(-gradient_kernel(k, i) * potential) for i in range(3))

    colour = jax.jit(lambda noise, amplitude: back(ahead(noise) * amplitude))
    return SimpleNamespace(colour=colour, start=start, force=force)
