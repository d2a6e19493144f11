"""A model that starts as a linear autoencoder: the largest modes of a slice as 512 numbers that each have a place.

A map of C x m x m numbers moves with the slice, cell by cell, if it holds C Fourier modes of each class of wave
numbers that differ by multiples of m. The C with the least |k| of every class fill a disc in the plane of wave numbers
(radius 12.8 for 512 modes, in units of the fundamental mode), up to a few at its edge: the largest principal components
of a statistically homogeneous field. Divided by the mean power of their |k| the modes are white, and an orthogonal
matrix turns them to functions with a place, the orthonormal functions that are nearest to bumps at 512 points
(Loewdin's orthogonalisation; Wannier functions in a crystal). So the numbers are uncorrelated with variance one, which
is what the prior of h asks for. `fourier_start` gives this start to a model.
"""

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

from ..model import WIDTHS, DecoderH, Encoder, UniverseVAE, UpBlock, in_float32
from .ring_power import RingPower

WIDTH = 0.5  # of the bumps, over the mean distance of points


class FourierModes(nn.Module):
    """Slices to the map of h by their largest modes (`forward`) and back (`inverse`); linear both ways.

    image_size  pixels along a slice
    shape       (C, m, m) of h as a map
    The values in a cell of the map are turned to the cell's own principal components, largest first, by an
    orthogonal matrix, a parameter. `set_power` gives the spectrum; without it the modes are taken as white.
    """

    def __init__(self, image_size: int, shape: tuple[int, int, int]):
        super().__init__()
        self.image_size, self.shape = image_size, tuple(shape)
        k, is_sine, places = (torch.from_numpy(x) for x in _places(image_size, self.shape))
        ring = torch.hypot(*k.double()).round().long()
        for name, buffer in {"k": k, "ring": ring, "is_sine": is_sine, "places": places}.items():
            self.register_buffer(name, buffer, persistent=False)
        self.register_buffer("power", torch.ones(int(ring.max()) + 1))
        self.mix = nn.Parameter(torch.eye(shape[0]))

    @torch.no_grad()
    def set_power(self, power: Tensor) -> None:
        """Divide the modes by their mean power from now on, and turn to the principal components of a cell.

        power (n,)   mean |FFT|^2 (unitary) of standardised slices in rings of round(|k| / k_f), positive
        Raises ValueError for a power that is not.
        """
        power = power[: len(self.power)]
        if not bool((power > 0).all()):
            raise ValueError("found a ring of modes without power, by which the start divides: use fourier_start=False")
        self.power.copy_(power)
        cell = self.places.unflatten(0, self.shape)[:, 0, 0].cpu().double()  # not every device has float64 and eigh
        covariance = (cell * self.power[self.ring].cpu()) @ cell.T
        self.mix.copy_(torch.linalg.eigh(covariance).eigenvectors.flip(1).T)

    def forward(self, img: Tensor) -> Tensor:
        """img (B, 1, H, H) -> (B, C, m, m)."""
        modes = torch.fft.fft2(img[:, 0], norm="ortho")[:, self.k[0], self.k[1]]
        modes = torch.where(self.is_sine, -modes.imag, modes.real) * self._scale / self.power[self.ring].sqrt()
        h = (modes @ self.places.T).unflatten(1, self.shape)
        return torch.einsum("ij,bjrc->birc", self.mix, h)

    def inverse(self, h: Tensor) -> Tensor:
        """h (B, C, m, m) -> the slice that has these modes and no other, (B, 1, H, H)."""
        modes = torch.einsum("ij,birc->bjrc", self.mix, h).flatten(1) @ self.places
        modes = modes * self._scale * self.power[self.ring].sqrt()
        zero = torch.zeros_like(modes)
        modes = torch.complex(modes.where(~self.is_sine, zero), -modes.where(self.is_sine, zero))
        spectrum = modes.new_zeros(len(h), self.image_size, self.image_size)
        batch = torch.arange(len(h), device=h.device)[:, None]
        spectrum = spectrum.index_put((batch, self.k[0], self.k[1]), modes, accumulate=True)
        return torch.fft.ifft2(spectrum, norm="ortho").real[:, None]

    @property
    def _scale(self) -> Tensor:
        """Of a cosine or sine with the length of one, over the real or imaginary part of the FFT: k and -k are one."""
        return torch.where(self.ring == 0, 1.0, math.sqrt(2))


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
            f"found latent_dim={channels * m**2} at image_size={image_size}; the linear start needs as many "
            "modes below the Nyquist frequency: use a smaller latent_dim, or fourier_start=False"
        )
    found = np.array(kept)
    return found[:, :2].T.copy(), found[:, 2].astype(bool)


class SliceSummary(RingPower):
    """What a slice says of its universe at first sight: log P(k) over the training slices' mean, and four moments.

    Rings round(|k| / k_f) = 1 .. image_size / 2; mean, log of the standard deviation, skewness and excess kurtosis of
    the pixels. `set_power` gives the spectrum; without it that of white noise.
    """

    def __init__(self, image_size: int):
        super().__init__(image_size)
        self.n = image_size // 2 + 4
        self.register_buffer("power", torch.ones(image_size // 2))

    @torch.no_grad()
    def set_power(self, power: Tensor) -> None:
        """power (at least image_size / 2 + 1,), as for `FourierModes.set_power`."""
        self.power.copy_(power[1 : len(self.power) + 1])

    def forward(self, img: Tensor) -> Tensor:
        """img (B, 1, H, H) -> (B, H / 2 + 4)."""
        ratio = (super().forward(img)[:, 1 : len(self.power) + 1] / self.power).clamp_min(1e-6).log()
        pixels = img.flatten(1)
        mean = pixels.mean(dim=1, keepdim=True)
        std = (pixels - mean).square().mean(dim=1, keepdim=True).sqrt().clamp_min(1e-6)
        normal = (pixels - mean) / std
        skewness, kurtosis = (normal.pow(p).mean(dim=1, keepdim=True) for p in (3, 4))
        return torch.cat([ratio, mean, std.log(), skewness, kurtosis - 3], dim=1)


@torch.no_grad()
def discriminants(slices: list[Tensor], power: list[float], n: int) -> Tensor:
    """Fisher's linear discriminants of cubes: what of `SliceSummary` differs most from cube to cube.

    Between slices of one cube they scatter independently. Each has mean zero and variance one over all slices, so that
    what tells tilted spectra apart is as loud as the amplitude, which varies far more.

    slices   standardised slices (s, H, H) of each cube
    power    of the pixels, as for `SliceSummary.set_power`
    n        discriminants; fewer cubes than n + 1 leave the last ones zero
    Returns (d + 1, n): numbers @ rows[:-1] + rows[-1].
    """
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    summary = SliceSummary(slices[0].shape[-1])
    summary.set_power(torch.tensor(power))
    numbers = torch.cat([summary(cube[:, None].float()) for cube in slices]).double().numpy()
    mean, std = numbers.mean(axis=0), numbers.std(axis=0).clip(min=1e-6)
    found, chosen = np.zeros((len(mean) + 1, n)), min(n, len(slices) - 1)
    if chosen:
        cube = np.repeat(np.arange(len(slices)), [len(x) for x in slices])
        fisher = LinearDiscriminantAnalysis(solver="eigen", shrinkage=1e-3).fit((numbers - mean) / std, cube)
        rows = fisher.scalings_[:, :chosen] / std[:, None]
        rows = rows / (numbers @ rows).std(axis=0).clip(min=1e-12)
        found[:, :chosen] = np.concatenate([rows, -mean[None] @ rows])
    return torch.from_numpy(found).float()


class FourierEncoder(Encoder):
    """An encoder to whose outputs what a slice's modes say is added.

    h_post   its mean starts as the largest modes of the slice (`FourierModes`), and the convolution adds to it
    zs       also reads the slice's spectrum and moments (`SliceSummary`), by one more Linear layer
    plain    the encoder that is taken over, layers and weights, but for the head of h, which starts at zero
    n_told   `discriminants` that are read in place of the spectrum and moments; 0: none
    """

    def __init__(self, plain: Encoder, image_size: int, shape: tuple[int, int, int], n_told: int = 0):
        nn.Module.__init__(self)
        self.trunk, self.zs_head, self.z_shift, self.h_head = plain.trunk, plain.zs_head, plain.z_shift, plain.h_head
        self.modes, self.statistics = FourierModes(image_size, shape), SliceSummary(image_size)
        self.register_buffer("told", torch.zeros(self.statistics.n + 1, n_told) if n_told else None)
        self.statistics_head = nn.Linear(n_told or self.statistics.n, self.zs_head.out_features, bias=False)
        nn.init.zeros_(self.h_head.weight), nn.init.zeros_(self.h_head.bias)
        self.channels = WIDTHS[-1], shape[0], n_told or self.statistics.n  # of `features`

    def features(self, img: Tensor) -> Tensor:
        """The trunk's last map, that of the largest modes and the summary, the same at every position.

        img (B, 1, H, H) -> (B, 512 + C + n, m, m)
        """
        return torch.cat([self.trunk(img).float(), self._start(img)], dim=1)

    @in_float32
    def _start(self, img: Tensor) -> Tensor:
        modes, summary = self.modes(img), self.statistics(img)
        if self.told is not None:
            summary = summary @ self.told[:-1] + self.told[-1]
        return torch.cat([modes, summary[:, :, None, None].expand(-1, -1, *modes.shape[2:])], dim=1)

    @in_float32
    def set_features(self, f: Tensor) -> Tensor:
        """zs of `features`, (B, 1024)."""
        trunk, _, summary = f.mean(dim=(2, 3)).split(self.channels, dim=1)
        return self.zs_head(trunk) + self.statistics_head(summary)

    @in_float32
    def h_posterior(self, f: Tensor, z: Tensor) -> Tensor:
        """h_post of `features` and z (B, 512): mean and log-variance, (B, 1024)."""
        trunk, modes, _ = f.split(self.channels, dim=1)
        mu, logvar = self.h_head(trunk + self.z_shift(z)[:, :, None, None]).chunk(2, dim=1)
        return torch.cat([(mu + modes).flatten(1), logvar.flatten(1)], dim=1)


class FourierDecoder(DecoderH):
    """A decoder that adds to the slice whose largest modes h gives; its layers see that slice, patch by patch.

    plain   the decoder that is taken over, layers and weights, but for the last layer, which starts at zero
    """

    def __init__(self, plain: DecoderH, image_size: int):
        nn.Module.__init__(self)
        self.map_shape, self.layers = plain.map_shape, plain.layers
        self.modes = FourierModes(image_size, self.map_shape)
        sides = zip(WIDTHS[-2::-1], (16, 8, 4), strict=True)
        self.patches = nn.ModuleList(nn.Conv2d(1, n, side, stride=side, bias=False) for n, side in sides)
        nn.init.zeros_(self.layers[-1].weight), nn.init.zeros_(self.layers[-1].bias)

    def forward(self, h: Tensor) -> Tensor:
        h = h.unflatten(1, self.map_shape)
        start, patches = self._start(h), iter(self.patches)
        for layer in self.layers:
            h = layer(h)
            if isinstance(layer, UpBlock):
                h = h + next(patches)(start)
        return start + h.float()

    @in_float32
    def _start(self, h: Tensor) -> Tensor:
        return self.modes.inverse(h)


def fourier_start(
    model: UniverseVAE, power: Tensor | None = None, n_told: int = 0, told: Tensor | None = None
) -> UniverseVAE:
    """Let a model start as the linear autoencoder of a slice's largest modes, and learn what to add; in place.

    power    (n,) mean |FFT|^2 of the slices in rings (`slices.pixel_power`); white when absent
    n_told   `discriminants` that z reads in place of a slice's spectrum and moments
    told     they, (d + 1, n_told) of spectra over this power; zero when absent
    """
    model.encoder = FourierEncoder(model.encoder, model.image_size, model.decoder_h.map_shape, n_told)
    model.decoder_h = FourierDecoder(model.decoder_h, model.image_size)
    if power is not None:
        for start in (model.encoder.modes, model.encoder.statistics, model.decoder_h.modes):
            start.set_power(power)
    if told is not None:
        model.encoder.told.copy_(told)
    return model
