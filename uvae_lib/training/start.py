"""The taught start: for the first steps the networks are given answers that are known without any training.

    h's mean      fits the code of a slice: its largest Fourier modes, whitened, as a map (`FourierCode`)
    decoder_h     makes the slice of that code and the posterior's noise
    p(h | z)      fits the code: decoder_z learns how the spectrum of h follows the universe
    q(z | set)    fits what tells universes apart: linear discriminants of log P(k) and moments (`discriminants`)

Then the note's loss alone goes on; what z was taught fades over as many steps again (`TaughtStart.weight_of_z`). Within
some thousand steps h has left the modes: they are a start, not a constraint.

The code: a map of C x m x m numbers moves with the slice, cell by cell, if it holds C Fourier modes of each class of
wave numbers that differ by multiples of m. The C with the least |k| of every class fill a disc in the plane of wave
numbers (radius 12.8 for 512 modes, in units of the fundamental mode): the largest principal components of a
statistically homogeneous field. Divided by the mean power of their |k| the modes are white, and an orthogonal matrix
turns them to functions with a place, the orthonormal functions nearest to bumps at 512 points (Loewdin's
orthogonalisation; Wannier functions in a crystal).
"""

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ..cropping import cut_slices, spread_planes, whole_planes
from ..loss import kl_by_dimension
from ..model import UniverseVAE, map_shape
from ..statistics import ring_mean, rings

WIDTH = 0.5  # of the bumps, over the mean distance of points
N_TAUGHT = 8  # numbers of z that are taught
WEIGHT_CODE, WEIGHT_PRIOR, WEIGHT_Z = 4000.0, 1000.0, 500.0  # beside the squared error of a slice, thousands at first
N_SLICES = 24  # of a cube, from which its discriminants are known


class TaughtStart:
    """Answers for the first steps of a training, and the loss that asks for them.

    image_size   pixels along a slice
    power        mean |FFT|^2 of standardised slices in rings (`slice_power`)
    rows         (d + 1, n) `discriminants`
    steps        of teaching
    """

    def __init__(self, image_size: int, power: Tensor, rows: Tensor, steps: int):
        self.steps, self.rows, self.power = steps, rows, power
        self.code = FourierCode(image_size, power)
        self.known: dict[int, Tensor] = {}

    def weight_of_z(self, step: int) -> float:
        """1 while the networks are taught, then falling to 0 over as many steps."""
        return min(1.0, max(0.0, 2 - (step + 1) / self.steps))

    def universes(self, volumes: Tensor, slots: Tensor, names: list[int], mean: float, std: float) -> Tensor:
        """The discriminants of cubes, over slices spread over each: known once, whichever step asks first.

        volumes, names   the cubes held, (C, P, N, N) of x, and their indices in the suite
        slots            (B,) which of them
        mean, std        of x
        Returns (B, n).
        """
        for slot in set(slots.tolist()):
            if names[slot] not in self.known:
                x = slices_of(volumes[slot], N_SLICES, self.code.image_size, mean, std)
                self.known[names[slot]] = self.discriminants(x).mean(dim=0)
        return torch.stack([self.known[names[slot]] for slot in slots.tolist()])

    def discriminants(self, img: Tensor) -> Tensor:
        """Of slices (B, 1, H, H): (B, n)."""
        rows = self.rows.to(img.device)
        return summary(img.float(), self.power) @ rows[:-1] + rows[-1]

    def loss(
        self, model: UniverseVAE, sets: Tensor, context: Tensor, universes: Tensor, noise: tuple[Tensor, Tensor, Tensor]
    ) -> tuple[Tensor, tuple]:
        """The loss of a taught step, and what `UniverseVAE.forward_sets` would return, of the code in place of h.

        sets (B, S, 1, H, H), context and noise as for `forward_sets`;  universes (B, n) of the sets
        """
        x = sets.flatten(0, 1)
        code = self.code(x).flatten(1)
        f = model.encoder.features(x)
        z = model.deep_set(model.encoder.set_features(f).unflatten(0, sets.shape[:2]), context).flatten(0, 1)
        z, z_mu, z_logvar = model.reparameterize(z, noise[0])
        h, h_mu, h_logvar = model.reparameterize(model.decoder_z(z), noise[1])
        _, mu, logvar = model.reparameterize(model.encoder.h_posterior(f, z), noise[2])
        seen = code + noise[2] * (0.5 * logvar.detach()).exp()
        recon = model.decoder_h(seen)
        loss = (recon - x).square().sum() / len(x) + WEIGHT_CODE * (mu - code).square().mean()
        loss = loss + 0.5 * WEIGHT_PRIOR * (h_logvar + (code - h_mu).square() * (-h_logvar).exp()).mean()
        loss = loss + WEIGHT_Z * self.loss_of_z(z_mu, z_logvar, universes)
        return loss, (recon, (z, z_mu, z_logvar), (h, h_mu, h_logvar), (seen, mu, logvar))

    def loss_of_z(self, mu: Tensor, logvar: Tensor, universes: Tensor) -> Tensor:
        """-log q(discriminants | set) [nats, but for a constant], and KL of z's other numbers to N(0, 1).

        mu, logvar (B S, D);  universes (B, n), one for S targets. Returns a scalar, the mean over targets.
        """
        n = universes.shape[1]
        wanted = universes.repeat_interleave(len(mu) // len(universes), dim=0)
        gap = (wanted - mu[:, :n]).square() * (-logvar[:, :n]).exp()
        likelihood = 0.5 * (gap + logvar[:, :n]).sum(dim=1).mean()
        return likelihood + kl_by_dimension(mu[:, n:], logvar[:, n:]).sum(dim=1).mean()


@torch.no_grad()
def hush(model: UniverseVAE) -> None:
    """Let the networks start deaf to the numbers of z that are not taught, which are noise at first; in place."""
    for layer in (model.decoder_z.layers[0], model.encoder.z_shift[0]):
        layer.weight[:, N_TAUGHT:] = 0


def slices_of(volume: Tensor, n: int, size: int, mean: float, std: float, axes=(0, 1, 2), thickness: int = 1) -> Tensor:
    """Standardised slices spread over a cube x (P, N, N): (n, 1, size, size), or as many as differ."""
    n = min(n, len(axes) * (len(volume) // thickness))
    cuts = whole_planes(*spread_planes(n, len(volume), axes, thickness))
    return (cut_slices(volume[None], cuts, size, thickness) - mean) / std


def slice_power(img: Tensor) -> Tensor:
    """Mean |FFT|^2 (unitary) of slices (B, 1, H, H) in the rings round(|k| / k_f) = 0, 1, ...: (B, n_rings)."""
    found = rings(img.shape[-1])
    ring, weight, count = (torch.as_tensor(x, device=img.device) for x in found[:3])
    modes = torch.fft.rfft2(img[:, 0], norm="ortho").abs().square()
    return ring_mean(modes, ring, weight.to(modes), count.to(modes))


def summary(img: Tensor, power: Tensor) -> Tensor:
    """What a slice says of its universe at first sight: log P(k) over `power`, and four moments of the pixels.

    img (B, 1, H, H);  power (n_rings,). Returns (B, H / 2 + 4): rings 1 .. H / 2; mean, log of the standard deviation,
    skewness, excess kurtosis.
    """
    n = img.shape[-1] // 2
    ratio = (slice_power(img)[:, 1 : n + 1] / power[1 : n + 1].to(img)).clamp_min(1e-6).log()
    pixels = img.flatten(1)
    std, mean = torch.std_mean(pixels, dim=1, keepdim=True, correction=0)
    normal = (pixels - mean) / std.clamp_min(1e-6)
    skewness, kurtosis = (normal.pow(p).mean(dim=1, keepdim=True) for p in (3, 4))
    return torch.cat([ratio, mean, std.clamp_min(1e-6).log(), skewness, kurtosis - 3], dim=1)


@torch.no_grad()
def discriminants(slices: Tensor, power: Tensor, n: int = N_TAUGHT) -> Tensor:
    """Fisher's linear discriminants of cubes: what of `summary` differs most from cube to cube.

    Between slices of one cube they scatter independently. Each has mean zero and, over cubes, variance one, so that
    what tells tilted spectra apart is as loud as the amplitude, which varies far more.

    slices   (n_cubes, s, 1, H, H), standardised
    power    (n_rings,) of them
    n        discriminants; fewer cubes than n + 1 leave the last ones zero
    Returns (d + 1, n): numbers @ rows[:-1] + rows[-1].
    """
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    numbers = torch.cat([summary(cube.float(), power) for cube in slices]).double().cpu().numpy()
    mean, std = numbers.mean(axis=0), numbers.std(axis=0).clip(min=1e-6)
    rows, chosen = np.zeros((len(mean) + 1, n)), min(n, len(slices) - 1)
    if chosen > 0:
        cube = np.repeat(np.arange(len(slices)), slices.shape[1])
        fisher = LinearDiscriminantAnalysis(solver="eigen", shrinkage=1e-3).fit((numbers - mean) / std, cube)
        directions = fisher.scalings_[:, :chosen] / std[:, None]
        of_cubes = (numbers @ directions).reshape(len(slices), -1, chosen).mean(axis=1)
        directions = directions / of_cubes.std(axis=0).clip(min=1e-12)
        rows[:, :chosen] = np.concatenate([directions, -mean[None] @ directions])
    return torch.from_numpy(rows).float()


class FourierCode:
    """Slices to a map of white numbers, their largest Fourier modes: (B, 1, H, H) -> (B, C, m, m), linear.

    image_size   pixels along a slice
    power        (n_rings,) mean |FFT|^2 (unitary) of standardised slices, positive
    latent_dim   C m^2 numbers
    The values in a cell of the map are turned to the cell's own principal components, largest first.
    """

    def __init__(self, image_size: int, power: Tensor, latent_dim: int = 512):
        self.image_size, self.shape = image_size, map_shape(image_size, latent_dim)
        self.k, self.is_sine, self.places = (torch.from_numpy(x) for x in _places(image_size, self.shape))
        ring = torch.hypot(*self.k.double()).round().long()
        scale = torch.where(ring == 0, 1.0, math.sqrt(2))  # k and -k are one wave
        self.factor = scale / power[ring].sqrt()
        cell = self.places.unflatten(0, self.shape)[:, 0, 0].double()
        covariance = (cell * power[ring]) @ cell.T
        self.mix = torch.linalg.eigh(covariance).eigenvectors.flip(1).T.float().contiguous()

    @torch.no_grad()
    def __call__(self, img: Tensor) -> Tensor:
        on = img.device
        modes = torch.fft.fft2(img[:, 0].float(), norm="ortho")[:, self.k[0].to(on), self.k[1].to(on)]
        modes = torch.where(self.is_sine.to(on), -modes.imag, modes.real) * self.factor.to(modes.real)
        h = (modes @ self.places.to(on).T).unflatten(1, self.shape)
        return torch.einsum("ij,bjrc->birc", self.mix.to(on), h)


@lru_cache(maxsize=8)
def _places(image_size: int, shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Wave numbers (2, C m^2) of the modes, which are sines, and the orthogonal matrix from modes to the map."""
    (channels, m, _), n = shape, math.prod(shape)
    k, is_sine = _least(image_size, channels, m)
    step = np.arange(m) / m
    bump = (np.arange(channels)[:, None] + 0.5) / 1.3247179572447460 ** np.array([1, 2]) % 1 / m  # spread evenly:
    row, col = (bump[:, i, None, None] + step.reshape([(-1, 1), (1, -1)][i]) for i in (0, 1))  # Roberts's sequence
    phase = 2 * np.pi * (k[0] * (row + 0 * col).reshape(-1, 1) + k[1] * (col + 0 * row).reshape(-1, 1))
    blur = np.exp(-0.5 * (2 * np.pi * WIDTH) ** 2 * (k**2).sum(axis=0) / n)
    u, _, v = np.linalg.svd(np.where(is_sine, np.sin(phase), np.cos(phase)) * blur)
    return k, is_sine, (u @ v).astype(np.float32)


def _least(image_size: int, channels: int, m: int) -> tuple[np.ndarray, np.ndarray]:
    """The cosines and sines of least |k|, as many of each class modulo m: k (2, channels m^2), is_sine."""
    k = np.arange(-image_size // 2 + 1, image_size // 2)
    row, col = (x.ravel() for x in np.meshgrid(k, k, indexing="ij"))
    once = (col > 0) | ((col == 0) & (row >= 0))  # k and -k are one wave
    row, col = row[once], col[once]
    label, mirror = row % m * m + col % m, -row % m * m + -col % m
    alike = np.minimum(label, mirror)  # a cosine or a sine belongs to a class and to its mirror image
    kept, room = [], {}
    for i in np.lexsort((row, col, row**2 + col**2)):
        free = room.setdefault(alike[i], channels * (1 if label[i] == mirror[i] else 2))
        new = [False, True][: min(free, 1 if row[i] == col[i] == 0 else 2)]
        kept += [(row[i], col[i], is_sine) for is_sine in new]
        room[alike[i]] -= len(new)
    if len(kept) < channels * m**2:
        raise ValueError(
            f"found {channels * m**2} numbers of h at image_size={image_size}; the taught start needs as many modes "
            "below the Nyquist frequency: use training.taught_steps=0"
        )
    found = np.array(kept)
    return found[:, :2].T.copy(), found[:, 2].astype(bool)
