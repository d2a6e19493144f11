"""Networks trained on labelled slices of a run's cubes, what learning with labels reads: ResNet-18 and CMD's CNN.

The CNN and its loss are those of the CAMELS Multifield Dataset (Villaescusa-Navarro et al. 2022, ApJS 259, 61,
arXiv:2109.10915). Training ends when validation has not improved for PATIENCE checks, or at the last step: then the
result says that it has not converged.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models import resnet18
from tqdm.auto import trange

from uvae_lib.analysis.metrics import score
from uvae_lib.cubes.suite import CubeSuite
from uvae_lib.model import wrap_around
from uvae_lib.runs.encode import most_slices, spread_slices
from uvae_lib.runs.run import Run

from .judge import N_SLICES, Judge

BATCH, CHECK, PATIENCE, LR = 32, 100, 10, 1e-3
SLICES = 45  # of a training cube, shifted, turned and mirrored at random
WIDTH = 12  # channels of the CNN's first level


def resnet(size: int) -> nn.Module:
    """ResNet-18: (B, 1, H, H) pixels -> (B, 2) standardised Omega_m, sigma_8."""
    network = resnet18(num_classes=2)
    network.conv1 = nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
    return network


def moment_network(size: int) -> nn.Module:
    """Convolutions of 3 x 3, three a level, the third with stride 2, down to 4 x 4: (B, 1, H, H) -> (B, 4).

    Posterior means of the standardised Omega_m and sigma_8, then their widths.
    """
    layers, n = [], 1
    for level in range((size // 4).bit_length() - 1):
        width = WIDTH * 2**level
        for n_in, stride in ((n, 1), (width, 1), (width, 2)):
            conv = nn.Conv2d(n_in, width, kernel_size=3, stride=stride, padding=1, bias=False)
            layers += [conv, nn.BatchNorm2d(width), nn.LeakyReLU(0.2)]
        n = width
    head = [nn.Linear(16 * n, 8 * WIDTH), nn.LeakyReLU(0.2), nn.Linear(8 * WIDTH, 4)]
    return nn.Sequential(*layers, nn.Flatten(), *head)


def squared_error(output: Tensor, wanted: Tensor) -> Tensor:
    """Mean squared error of standardised parameters: (B, 2) twice -> scalar."""
    return (output - wanted).square().mean()


def moment_loss(output: Tensor, wanted: Tensor) -> Tensor:
    """Its minimum is at the mean and the width of p(parameter | slice), whatever its shape.

    Jeffrey & Wandelt (2020, arXiv:2011.05991), with the logarithms of arXiv:2109.10915, eq. 2.
    output (B, 4), wanted (B, 2) -> scalar
    """
    mean, width = output.chunk(2, dim=1)
    square = (mean - wanted).square()
    first, second = square.mean(dim=0), (square - width.square()).square().mean(dim=0)
    return (first.log() + second.log()).mean()


NETWORKS = {"ResNet-18 on labels": (resnet, squared_error), "CMD's CNN on labels": (moment_network, moment_loss)}


def cut(run: Run, suite: CubeSuite, cubes: list[int], n: int) -> Tensor:
    """Slices of cubes, (m, n, H, H) in float16: enough for pixels of order one."""
    n = min(n, most_slices(run, suite))
    return torch.stack([spread_slices(run, suite, cube, n, seed=cube)[:, 0].half() for cube in cubes])


def varied(slices: Tensor, periodic: bool) -> Tensor:
    """Slices (B, H, H) turned, mirrored and, where they are periodic, shifted at random, all in the same way."""
    turned = torch.rot90(slices, int(torch.randint(4, ())), (-2, -1))
    turned = turned.mT if torch.rand(()) < 0.5 else turned
    if periodic:
        turned = turned.roll(torch.randint(slices.shape[-1], (2,)).tolist(), (-2, -1))
    return turned[:, None].float().contiguous()


def train(judge: Judge, name: str, steps: int, seed: int = 0) -> tuple[nn.Module, dict]:
    """A network with the lowest validation loss, and {"converged", "steps", "curve": [step, loss, validation loss]}."""
    run, (make, error) = judge.run, NETWORKS[name]
    table = {part: judge.everything.rows(run.split[part]) for part in ("train", "val")}
    mean, std = table["train"].params.mean(axis=0), table["train"].params.std(axis=0)
    wanted = {part: torch.from_numpy((x.params - mean) / std).float() for part, x in table.items()}
    x = {part: cut(run, judge.suite, run.split[part], SLICES if part == "train" else N_SLICES) for part in table}
    torch.manual_seed(seed)
    network = make(run.config.data.image_size)
    network = wrap_around(network) if run.periodic else network
    optimizer = torch.optim.AdamW(network.parameters(), lr=LR, weight_decay=1e-2)
    best, weights, since, curve, lost = np.inf, {}, 0, [], []
    for step in trange(1, steps + 1, desc=name):
        network.train()
        cubes = torch.randint(len(wanted["train"]), (BATCH,))
        chosen = x["train"][cubes, torch.randint(x["train"].shape[1], (BATCH,))]
        loss = error(network(varied(chosen, run.periodic)), wanted["train"][cubes])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        lost.append(loss.item())
        if step % CHECK == 0 or step == steps:
            output, labels = (
                _outputs(network, x["val"].flatten(0, 1)),
                wanted["val"].repeat_interleave(x["val"].shape[1], dim=0),
            )
            held = float(error(output, labels))
            curve.append([step, float(np.mean(lost)), held])
            since, lost = since + 1, []
            if held < best:
                best, since, weights = held, 0, {k: v.clone() for k, v in network.state_dict().items()}
            for group in optimizer.param_groups:
                group["lr"] = LR * 0.5 ** (since // 4)
            if since > PATIENCE:
                break
    network.load_state_dict(weights)
    return network.eval(), {"converged": since > PATIENCE, "steps": step, "curve": curve}


@torch.inference_mode()
def _outputs(network: nn.Module, slices: Tensor) -> Tensor:
    network.eval()
    return torch.cat([network(part[:, None].float()) for part in slices.split(64)])


def supervised(judge: Judge, name: str, steps: int) -> dict:
    """`score` of a network on the judged universes: the mean over slices, recalibrated by a line on training cubes.

    Means of single-slice predictions shrink towards the mean of the labels, which the line undoes.
    """
    network, about = train(judge, name, steps)

    def predict(suite: CubeSuite, cubes: list[int]) -> np.ndarray:
        sets = (cut(judge.run, suite, [cube], N_SLICES)[0] for cube in cubes)
        return np.stack([_outputs(network, part)[:, :2].mean(dim=0).numpy() for part in sets]).astype(float)

    learned = judge.run.split["val"] + judge.run.split["train"][:128]
    raw, labels = predict(judge.suite, learned), judge.everything.rows(learned).params
    test = predict(judge.judged, list(range(judge.judged.n_cubes)))
    lines = [np.polyfit(raw[:, i], labels[:, i], 1) if np.ptp(raw[:, i]) else [0, labels[:, i].mean()]
             for i in range(labels.shape[1])]  # fmt: skip
    predicted = np.stack([np.polyval(line, test[:, i]) for i, line in enumerate(lines)], axis=1)
    found = score(judge.test.params, predicted, judge.names)
    found.pop("predicted")
    return found | about
