"""What the note's samples lack: the coupling of h's numbers, measured, and the small scales, by flow matching.

The note draws h ~ N(mu(z), Sigma(z)) with a diagonal Sigma, and a slice around decoder_h(h) with Gaussian pixel noise.
The numbers of real h have those means and widths and are not independent. u = (h - mu) / sigma has a covariance C,
which is measured; a new h is mu + sigma C^1/2 white. (A flow of h on top learned nothing: its loss stayed that of the
Gaussian.)

Real residuals have a spectrum, and are no Gaussian field: filaments know of each other. A flow carries Gaussian noise
x(0) of that spectrum to a residual x(pi/2) along

    x(a) = cos(a) x(0) + sin(a) x(pi/2),        dx/da = v(x, a; z) = E[-sin(a) x(0) + cos(a) x(pi/2) | x(a), z],

which is a straight path in other coordinates (Albergo & Vanden-Eijnden 2023, arXiv:2209.15571, eq. 2.23; flow matching:
Lipman et al. 2023, arXiv:2210.02747). In these the v of a Gaussian is zero: with zero output the flow is the identity,
in any number of steps. All that is random is white noise, so the same noise with another z is the same place in another
universe.

SliceFlow sees the decoded mean and the 16 combinations of z's numbers that differ most from universe to universe, in
units of the width of q(z).
"""

import json
import math
from collections.abc import Callable
from dataclasses import asdict
from itertools import pairwise

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from ..model import UniverseVAE, in_float32, wrap_around
from ..presets import FlowConfig, from_dict
from ..runs.run import FLOWS, Run, rounded
from ..statistics import ring_mean, rings

QUARTER = math.pi / 2
AT_A_TIME = 16  # slices that are completed
ODE_STEPS = 5  # midpoint steps of a draw, two calls of a network each
N_FREQUENCIES, EMBEDDED = 16, 128
N_GIVEN = 16  # combinations of z's numbers that the flows see


def path(start: Tensor, end: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
    """The point at an angle on the way from start to end, and the velocity there.

    start, end   (n, ...)
    angle        (n,) [rad], 0 to pi / 2
    Returns two tensors (n, ...).
    """
    angle = angle.view(-1, *[1] * (start.ndim - 1))
    return angle.cos() * start + angle.sin() * end, angle.cos() * end - angle.sin() * start


def draw_angle(n: int, generator: torch.Generator) -> Tensor:
    """Angles (n,) to learn at: log tan(a) is a standard normal number, so that the ends are seen less."""
    return torch.randn(n, generator=generator).exp().atan()


@torch.inference_mode()
def integrate(velocity: Callable[[Tensor, Tensor], Tensor], x: Tensor, n_steps: int) -> Tensor:
    """Follow a velocity from angle 0 to pi / 2 by midpoint steps: two calls each.

    velocity   of (x, angle (n,)), like x
    x          (n, ...) start
    n_steps    0 gives back the start
    Returns x at pi / 2, (n, ...).
    """
    step = QUARTER / max(1, n_steps)
    for i in range(n_steps):
        angle = x.new_full((len(x),), i * step)
        half = x + 0.5 * step * velocity(x, angle)
        x = x + step * velocity(half, angle + 0.5 * step)
    return x


class Block(nn.Module):
    """x + conv(SiLU(scale * conv(norm(x)) + shift)), scale and shift from the embedding; starts as x.

    The norm is that of a pixel's channels, so that a slice keeps its contrast.
    """

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.conv1 = nn.Conv2d(width, width, kernel_size=3, padding=1)
        self.conv2 = nn.Conv2d(width, width, kernel_size=3, padding=1)
        self.film = nn.Linear(EMBEDDED, 2 * width)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """x (n, width, H, H), embedding (n, 128) -> (n, width, H, H)."""
        out = self.conv1(self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))
        scale, shift = self.film(embedding)[..., None, None].to(out.dtype).chunk(2, dim=1)
        return x + self.conv2(F.silu(torch.addcmul(shift, out, 1 + scale)))


class UNet(nn.Module):
    """Maps to a map, given an angle and z; the output starts at zero.

    side          of the maps
    n_in, n_out   channels
    widths        channels of the levels: the maps themselves, then at half the side, a quarter, ... while it is whole
    n_given       numbers that say which universe
    circular      convolutions wrap around
    """

    def __init__(self, side: int, n_in: int, n_out: int, widths: list[int], n_given: int, circular: bool):
        super().__init__()
        widths = widths[: (side & -side).bit_length()]
        pairs = list(pairwise(widths))
        self.angle = nn.Sequential(nn.Linear(2 * N_FREQUENCIES, EMBEDDED), nn.SiLU(), nn.Linear(EMBEDDED, EMBEDDED))
        self.universe = nn.Sequential(nn.Linear(n_given, EMBEDDED), nn.SiLU(), nn.Linear(EMBEDDED, EMBEDDED))
        self.first = nn.Conv2d(n_in, widths[0], kernel_size=3, padding=1)
        self.down = nn.ModuleList(nn.Conv2d(a, b, kernel_size=2, stride=2) for a, b in pairs)
        self.up = nn.ModuleList(nn.ConvTranspose2d(b, a, kernel_size=2, stride=2) for a, b in pairs)  # no overlap
        self.before = nn.ModuleList(Block(width) for width in widths[1:])
        self.after = nn.ModuleList(Block(width) for width in widths)
        self.last = nn.Conv2d(widths[0], n_out, kernel_size=3, padding=1)
        for layer in (self.universe[-1], self.last):
            nn.init.zeros_(layer.weight), nn.init.zeros_(layer.bias)
        if circular:
            wrap_around(self)

    def forward(self, x: Tensor, angle: Tensor, z: Tensor) -> Tensor:
        """x (n, n_in, H, H), angle (n,), z (n, n_given) -> (n, n_out, H, H)."""
        turns = angle[:, None] * torch.logspace(0, 6, N_FREQUENCIES, base=2.0, device=angle.device)
        waves = torch.cat([turns.sin(), turns.cos()], dim=1)
        embedding = F.silu(self.angle(waves) + self.universe(z))
        levels = [self.first(x.contiguous(memory_format=torch.channels_last))]
        for down, block in zip(self.down, self.before, strict=True):
            levels.append(block(down(levels[-1]), embedding))
        out = self.after[-1](levels.pop(), embedding)
        for up, block in zip(reversed(self.up), reversed(self.after[:-1]), strict=True):
            out = block(up(out) + levels.pop(), embedding)
        return self.last(F.silu(out)).float()


class ResidualPower(nn.Module):
    """Power of residuals in the rings round(|k| / k_f) = 0, 1, ..., and a place for a typical one.

    Right for slices that are the whole periodic box; for crops (periodic=False) the residual is multiplied by a Hann
    window of unit mean square first, which makes it an approximation.

    power   (n_rings,) the typical power: whoever holds the module sets it
    """

    def __init__(self, image_size: int, periodic: bool):
        super().__init__()
        ring, _, n_modes, _ = rings(image_size)
        self.register_buffer("ring", torch.tensor(ring).unflatten(0, (image_size, -1)), persistent=False)
        self.register_buffer("n_modes", torch.tensor(n_modes, dtype=torch.float32), persistent=False)
        self.register_buffer("power", torch.ones(len(n_modes)))
        hann = torch.ones(image_size) if periodic else torch.hann_window(image_size)
        window = hann[:, None] * hann
        self.register_buffer("window", window / window.square().mean().sqrt(), persistent=False)

    def residual_power(self, mean: Tensor, truth: Tensor) -> Tensor:
        """Mean |FFT(truth - mean)|^2 (unitary) of each ring: (B, 1, H, H) twice -> (B, n_rings), float32."""
        residual = (truth.float() - mean.float())[:, 0] * self.window
        return ring_mean(torch.fft.rfft2(residual, norm="ortho").abs().square())


class SliceFlow(nn.Module):
    """Residuals (truth - decoded mean), given the decoded mean and z.

    image_size   pixels along a slice
    n_given      numbers of z that it sees, z below
    width        channels at full resolution; deeper levels have 2, 4, 6 and 8 times as many
    periodic     a slice is the whole periodic box: convolutions wrap around
    The start is noise, whose spectrum is `rings.power` times the exponential of `slopes` (n_given, n_rings) of z.
    """

    def __init__(self, image_size: int, n_given: int, width: int, periodic: bool):
        super().__init__()
        self.rings = ResidualPower(image_size, periodic)
        self.register_buffer("slopes", torch.zeros(n_given, len(self.rings.power)))
        widths = [width * factor for factor in (1, 2, 4, 6, 8)]
        self.network = UNet(image_size, 2, 1, widths, n_given, periodic)

    @torch.no_grad()
    def measure(self, truth: Tensor, mean: Tensor, z: Tensor) -> None:
        """Take the spectrum of residuals, and how it follows z: truth, mean (n, 1, H, H), z (n, n_given)."""
        power = self.rings.residual_power(mean, truth).clamp_min(1e-12)
        terms = torch.cat([torch.ones_like(z[:, :1]), z], dim=1)
        ridge = len(z) / 100 * torch.eye(terms.shape[1], device=z.device)
        self.slopes.copy_(torch.linalg.solve(terms.T @ terms + ridge, terms.T @ power.log())[1:])
        self.rings.power.copy_((power * (-z @ self.slopes).exp()).mean(dim=0))

    @in_float32
    def power(self, z: Tensor) -> Tensor:
        """Spectrum of the residuals of universes: (n, n_given) -> (n, n_rings)."""
        return self.rings.power * (z @ self.slopes).exp()

    @in_float32
    def scale(self, z: Tensor) -> Tensor:
        """Standard deviation of the residuals [standardised pixels]: (n, n_given) -> (n, 1, 1, 1)."""
        n_modes = self.rings.n_modes
        return (self.power(z) @ n_modes / n_modes.sum()).sqrt()[:, None, None, None]

    def start(self, white: Tensor, z: Tensor) -> Tensor:
        """White noise filtered to the residuals' spectrum, in units of `scale`: (n, 1, H, H) -> (n, 1, H, H)."""
        amplitude = self.power(z).sqrt()[:, self.rings.ring][:, None]
        return torch.fft.irfft2(torch.fft.rfft2(white) * amplitude, s=white.shape[-2:]) / self.scale(z)

    def velocity(self, x: Tensor, angle: Tensor, mean: Tensor, z: Tensor) -> Tensor:
        """x (n, 1, H, H) in units of `scale`, angle (n,), mean (n, 1, H, H) pixels, z (n, n_given) -> (n, 1, H, H)."""
        return self.network(torch.cat([x, mean], dim=1), angle, z)

    def loss(self, truth: Tensor, mean: Tensor, z: Tensor, white: Tensor, angle: Tensor) -> Tensor:
        """Squared error of the velocity, averaged over pixels and slices.

        truth, mean   (n, 1, H, H) slices and their decoded means [standardised pixels]
        z             (n, n_given)
        white         (n, 1, H, H) standard normal numbers
        angle         (n,)
        Returns a scalar; 1 is what a network that says nothing has.
        """
        x, wanted = path(self.start(white, z), (truth - mean) / self.scale(z), angle)
        return (self.velocity(x, angle, mean, z) - wanted).square().mean()

    def forward(self, mean: Tensor, z: Tensor, white: Tensor, n_steps: int) -> Tensor:
        """Slices from decoded means: (n, 1, H, H) pixels, z (n, n_given), white (n, 1, H, H) -> pixels."""
        end = integrate(lambda x, angle: self.velocity(x, angle, mean, z), self.start(white, z), n_steps)
        return mean + self.scale(z) * end


class Flows(nn.Module):
    """What completes the samples of a run.

    model      the trained model
    settings   widths
    periodic   a slice is the whole periodic box
    `about` holds JSON values on their training; its "key" is the digest of the weights and settings of it.
    `coupling` is C^1/2, symmetric, of u = (h - mu(z)) / sigma(z): (512, 512).
    """

    def __init__(self, model: UniverseVAE, settings: FlowConfig, periodic: bool):
        super().__init__()
        self.settings, self.n_steps, self.about = settings, ODE_STEPS, {}
        self.slices = SliceFlow(model.image_size, N_GIVEN, settings.width, periodic)
        self.map_shape, self.periodic = model.decoder_h.map_shape, periodic
        self.register_buffer("coupling", torch.eye(model.latent_dim))
        self.register_buffer("combinations", torch.zeros(model.latent_dim, N_GIVEN))
        self.register_buffer("offset", torch.zeros(N_GIVEN))

    @in_float32
    def given(self, z: Tensor) -> Tensor:
        """What the flows see of z: (n, 512) -> (n, 16), standardised."""
        return z @ self.combinations - self.offset

    @torch.no_grad()
    def measure(self, batch: dict[str, Tensor]) -> None:
        """Take from slices, before training, the coupling of h, what of z is given, and the spectrum of the residuals.

        batch   of n slices, as `training.LitFlows.encode` makes it
        """
        mu, z, scale = batch["z_mu"], batch["z"], batch["z_width"].square().mean(dim=0).sqrt()
        rows = torch.linalg.svd((mu - mu.mean(dim=0)) / scale, full_matrices=False).Vh[:N_GIVEN].T / scale[:, None]
        self.combinations.zero_()[:, : rows.shape[1]] = rows / (z @ rows).std(dim=0).clamp_min(1e-6)
        self.offset.copy_((z @ self.combinations).mean(dim=0))
        self.slices.measure(batch["truth"], batch["mean"], self.given(z))
        u = ((batch["h"] - batch["mu"]) / batch["sigma"]).unflatten(1, self.map_shape)
        shifts = range(u.shape[-1] if self.periodic else 1)  # all places on the periodic map are alike
        u = torch.cat([u.roll((i, j), (2, 3)) for i in shifts for j in shifts]).flatten(1)
        values, vectors = torch.linalg.eigh(u.T @ u / len(u))
        self.coupling.copy_(vectors * values.clamp_min(1e-3).sqrt() @ vectors.T)

    def complete(self, mean: Tensor, z: Tensor, white: Tensor) -> Tensor:
        """Slices from decoded means.

        mean    (n, 1, H, H) [standardised pixels]
        z       (n, 512)
        white   (n, 1, H, H) standard normal numbers
        Returns (n, 1, H, H) [standardised pixels].
        """
        parts = zip(*(values.split(AT_A_TIME) for values in (mean, self.given(z), white)), strict=True)
        return torch.cat([self.slices(*part, self.n_steps) for part in parts])


def flows_as_bytes(flows: Flows, dtype: torch.dtype | None = None) -> bytes:
    """Flows with their settings and `about` in the safetensors format; parameters in dtype where one is given."""
    about = {"settings": asdict(flows.settings), "about": flows.about}
    return save(rounded(flows, dtype), {name: json.dumps(values) for name, values in about.items()})


def flows_of(run: Run) -> Flows | None:
    """The flows of a run from flows.safetensors, in evaluation mode, read once; None where none were trained.

    Raises ValueError for a file that is damaged or of another model.
    """
    path = run.folder / FLOWS
    if "flows" in run.loaded or not path.exists():
        return run.loaded.get("flows")
    try:
        with safe_open(path, "pt") as file:
            notes = {name: json.loads((file.metadata() or {})[name]) for name in ("settings", "about")}
        with torch.random.fork_rng(devices=[]):
            flows = Flows(run.model, from_dict(notes["settings"], FlowConfig), run.periodic)
        flows.about = notes["about"]
        flows.load_state_dict({name: value.float() for name, value in load_file(path).items()})
    except (SafetensorError, RuntimeError, KeyError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[-1].strip()[:200]
        raise ValueError(
            f"{path} is damaged, or holds the flows of another model: {reason}; remove it and train them again with "
            "`python -m uvae_lib train-flows`"
        ) from error
    run.loaded["flows"] = flows.eval().requires_grad_(False).to(memory_format=torch.channels_last)
    return run.loaded["flows"]
