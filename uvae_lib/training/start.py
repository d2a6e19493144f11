"""The taught start: for the first steps the networks are given answers that are known without any training.

    h's mean      fits the code of a slice: its largest Fourier modes, whitened, as a map (`slice_code`)
    decoder_h     makes the slice of that code and the posterior's noise
    p(h | z)      fits the code: decoder_z learns how the spectrum of h follows the universe
    q(z | set)    fits what tells universes apart, linear discriminants of log P(k) and moments of the set
                  (`discriminants`), and its width the error of that about the universe's

Then the note's loss goes on. The teaching of z fades, and is gone when an eighth of the training is left
(`TaughtStart.weight_of_z`): under the note's loss alone z forgets, as little in it asks for parameters. Within some
thousand steps h has left the modes: they are a start, not a constraint.

The code is a picture of the slice's largest modes, made white, at 512 points: a square lattice of 16 x 16 and a second
one between its points, for which the modes |k_x| + |k_y| < 16 are just as many. Points of a cell of h's map are its
channels, so that the code moves with the slice, cell by cell.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..loss import kl_by_dimension
from ..model import UniverseVAE
from ..statistics import ring_mean, rings
from .slices import SliceSets, slices_of

POINTS = 16  # along an edge of each of the two lattices
N_TAUGHT = 8  # numbers of z that are taught
WEIGHT_CODE, WEIGHT_PRIOR = 4000.0, 1000.0  # beside the squared error of a slice, thousands at first
WEIGHT_Z, WEIGHT_WIDTH = 20_000.0, 500.0  # of z's means, and of its widths [nats]
N_SLICES = 24  # of a cube, from which its discriminants are known
FADED = 7 / 8  # of all steps: then the note's loss is alone


class TaughtStart:
    """Answers for the first steps of a training, and the loss that asks for them.

    power   mean |FFT|^2 of standardised slices in rings (`slice_power`)
    rows    (d + 1, n) `discriminants`
    steps   of teaching;  total: of the whole training
    """

    def __init__(self, power: Tensor, rows: Tensor, steps: int, total: int):
        self.power, self.rows, self.steps, self.end = power, rows, steps, max(steps + 1, FADED * total)
        self.known: dict[int, Tensor] = {}

    def weight_of_z(self, step: int) -> float:
        """1 while the networks are taught, then falling to 0, where an eighth of the training is left."""
        return min(1.0, max(0.0, (self.end - step - 1) / (self.end - self.steps)))

    @torch.no_grad()
    def universes(self, slices: SliceSets, step: int) -> Tensor:
        """The discriminants of the cubes of a step's sets, (B, n), known once, whichever step asks first.

        They are means over slices that are spread over each cube.
        """
        volumes, cubes = slices.pool.at(step)
        slots = slices.cuts(step).cube[slices.rank :: slices.world_size, 0].tolist()
        kind = slices.image_size, slices.pool.suite.axes, slices.thickness
        for slot in slots:
            if cubes[slot] not in self.known:
                x = (slices_of(volumes[slot], N_SLICES, *kind) - slices.mean) / slices.std
                self.known[cubes[slot]] = self.discriminants(x).mean(dim=0)
        return torch.stack([self.known[cubes[slot]] for slot in slots])

    def discriminants(self, img: Tensor) -> Tensor:
        """Of slices (B, 1, H, H): (B, n)."""
        return summary(img.float(), self.power) @ self.rows.to(img.device)[:-1] + self.rows.to(img.device)[-1]

    def loss(
        self, model: UniverseVAE, sets: Tensor, context: Tensor, universes: Tensor, noise: tuple[Tensor, Tensor, Tensor]
    ) -> tuple[Tensor, tuple]:
        """The loss of a taught step, and what `UniverseVAE.forward_sets` would return, of the code in place of h.

        sets (B, S, 1, H, H), context and noise as for `forward_sets`;  universes (B, n) of the sets
        """
        x = sets.flatten(0, 1)
        code = slice_code(x, self.power).flatten(1)
        f = model.encoder.features(x)
        z = model.deep_set(model.encoder.set_features(f).unflatten(0, sets.shape[:2]), context).flatten(0, 1)
        z, z_mu, z_logvar = model.reparameterize(z, noise[0])
        h, h_mu, h_logvar = model.reparameterize(model.decoder_z(z), noise[1])
        _, mu, logvar = model.reparameterize(model.encoder.h_posterior(f, z), noise[2])
        seen = code + noise[2] * (0.5 * logvar.detach()).exp()
        recon = model.decoder_h(seen)
        loss = (recon - x).square().sum() / len(x) + WEIGHT_CODE * (mu - code).square().mean()
        loss = loss + 0.5 * WEIGHT_PRIOR * (h_logvar + (code - h_mu).square() * (-h_logvar).exp()).mean()
        loss = loss + self.loss_of_z(z_mu, z_logvar, sets, context, universes)
        return loss, (recon, (z, z_mu, z_logvar), (h, h_mu, h_logvar), (seen, mu, logvar))

    def loss_of_z(self, mu: Tensor, logvar: Tensor, sets: Tensor, context: Tensor, universes: Tensor) -> Tensor:
        """Squared error of z's first means, -log of a Gaussian density of the universe's, and KL of z's other numbers.

        Means are taught what their own slices say, which is no matter of chance; widths, how far that is from what is
        true of the universe. A density alone teaches means too late: while its width is one, its gradient is small.

        mu, logvar (B S, D);  sets, context as in `loss`;  universes (B, n), one for S targets
        Returns a scalar, the mean over targets.
        """
        n, s = universes.shape[1], sets.shape[1]
        slices = self.discriminants(sets.flatten(0, 1)).unflatten(0, sets.shape[:2])
        said = (context[..., None] * slices[:, None]).sum(dim=2) / context.sum(dim=2, keepdim=True)
        gap = (universes.repeat_interleave(s, dim=0) - mu.detach()[:, :n]).square()
        width = 0.5 * (gap * (-logvar[:, :n]).exp() + logvar[:, :n]).sum(dim=1).mean()
        others = kl_by_dimension(mu[:, n:], logvar[:, n:]).sum(dim=1).mean()
        return WEIGHT_Z * (said.flatten(0, 1) - mu[:, :n]).square().mean() + WEIGHT_WIDTH * (width + others)


@torch.no_grad()
def hush(model: UniverseVAE) -> None:
    """Let the networks start deaf to the numbers of z that are not taught, which are noise at first; in place."""
    for layer in (model.decoder_z.layers[0], model.encoder.z_shift[0]):
        layer.weight[:, N_TAUGHT:] = 0


def slice_power(img: Tensor) -> Tensor:
    """Mean |FFT|^2 (unitary) of slices (B, 1, H, H) in the rings round(|k| / k_f) = 0, 1, ...: (B, n_rings)."""
    return ring_mean(torch.fft.rfft2(img[:, 0], norm="ortho").abs().square())


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

    Between slices of one cube they scatter independently. Each has mean zero, and over cubes as means of their slices
    variance one, times the share of that variance that is no scatter: what tells tilted spectra apart is as loud as the
    amplitude, which varies far more, and what tells nothing is quiet.

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
        read = (numbers @ directions).reshape(len(slices), -1, chosen)
        of_cubes = read.mean(axis=1).var(axis=0).clip(min=1e-12)
        real = 1 - (read.var(axis=1).mean(axis=0) / read.shape[1] / of_cubes).clip(max=1)  # share that is no scatter
        directions = directions * real / np.sqrt(of_cubes)
        rows[:, :chosen] = np.concatenate([directions, -mean[None] @ directions])
    return torch.from_numpy(rows).float()


@torch.no_grad()
def slice_code(img: Tensor, power: Tensor) -> Tensor:
    """A slice's largest modes, white, as a map: linear, (B, 1, H, H) -> (B, C, m, m) with C m^2 = 512, m = H / 32.

    power   (n_rings,) mean |FFT|^2 (unitary) of such slices, positive
    """
    size = img.shape[-1]
    rows, columns = torch.fft.fftfreq(size, 1 / size, device=img.device), torch.arange(size // 2 + 1, device=img.device)
    ring = torch.tensor(rings(size).ring, device=img.device).view(size, -1)
    kept = rows.abs()[:, None] + columns < POINTS
    n_kept = 2 * POINTS * (POINTS - 1) + 1
    white = torch.fft.rfft2(img[:, 0].float()) * (kept * size / math.sqrt(n_kept) / power.to(img.device)[ring].sqrt())
    field, step = torch.fft.irfft2(white, s=(size, size)), size // POINTS
    points = torch.stack([field[:, ::step, ::step], field[:, step // 2 :: step, step // 2 :: step]], dim=1)
    return F.pixel_unshuffle(points, POINTS * 32 // size)
