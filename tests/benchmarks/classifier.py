"""Two-sample tests: can a network, or a logistic regression on a few numbers, tell drawn slices from true ones?

Slices come by universe, a tensor (n, 1, H, H) of standardised pixels each; universes that judge are not learned from.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from uvae_lib.analysis.features import evenly

BATCH = 32


def judges_of(n_universes: int) -> int:
    """How many of so many universes judge a classifier."""
    return max(1, n_universes // 3)


def auc_scatter(n: int) -> float:
    """Standard deviation of an AUC over n true and n drawn slices that are alike (Mann & Whitney 1947)."""
    return math.sqrt((2 * n + 1) / (12 * n**2))


def logistic_auc(truth: list[Tensor], drawn: list[Tensor]) -> float:
    """AUC of a logistic regression on numbers (n, d) of the slices of each universe, cross-validated over universes."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import GroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    parts = [*truth, *drawn]
    x = torch.cat(parts).double().numpy()
    labels = np.repeat([0, 1], [sum(map(len, truth)), sum(map(len, drawn))])
    groups = np.repeat([*range(len(truth)), *range(len(drawn))], [len(part) for part in parts])
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    folds = GroupKFold(min(5, len(truth), len(drawn)))
    scores = cross_val_predict(model, x, labels, groups=groups, cv=folds, method="decision_function")
    return float(roc_auc_score(labels, scores))


def network_auc(truth: list[Tensor], drawn: list[Tensor], width: float, n_train: int, epochs: int, seed: int) -> dict:
    """AUC of a CNN on universes that it did not learn from, and how many slices a side it learned from.

    width     of the Gaussian that slices are smoothed by before [pixels]
    n_train   slices a side to learn from, at most
    Raises ValueError for fewer than three universes.
    """
    from sklearn.metrics import roc_auc_score

    n = min(len(truth), len(drawn))
    if n < 3:
        raise ValueError(f"found {n} universes; a classifier trains on two and is judged on a third")
    order = np.random.default_rng(seed).permutation(n)
    judges, train = (
        [torch.cat([smoothed(part[i], width) for i in chosen]) for part in (truth, drawn)]
        for chosen in np.split(order, [judges_of(n)])
    )
    train = [part[evenly(list(range(len(part))), n_train)] for part in train]
    (x, labels), (judged, answers) = (
        (torch.cat(pair), torch.cat([torch.full((len(part),), float(i)) for i, part in enumerate(pair)]))
        for pair in (train, judges)
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = trained(x, labels, epochs)
    with torch.inference_mode():
        scores = torch.cat([network((part - x.mean()) / x.std())[:, 0] for part in judged.split(64)])
    auc = float(roc_auc_score(answers.numpy(), scores.numpy()))
    return {"auc": auc, "n_train": len(train[0]), "scatter": auc_scatter(len(judges[0]))}


def network(widths: tuple[int, ...] = (32, 64, 64)) -> nn.Sequential:
    """A small CNN whose convolutions wrap: (B, 1, H, H) -> (B, 1); its first layer sees 6 x 6 pixels."""
    layers, channels = [nn.PixelUnshuffle(2)], 4
    for width in widths:
        layers += [nn.Conv2d(channels, width, 3, padding=1, padding_mode="circular"), nn.BatchNorm2d(width)]
        layers += [nn.SiLU(), nn.AvgPool2d(2)]
        channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 1))


def trained(slices: Tensor, labels: Tensor, epochs: int) -> nn.Module:
    """Trained with turned and mirrored slices; it stops early where nothing is left to learn."""
    slices, net = (slices - slices.mean()) / slices.std(), network()
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=1e-2)
    steps = epochs * math.ceil(len(slices) / BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=steps, pct_start=0.1)
    for _ in range(epochs):
        lost = 0.0
        for rows in torch.randperm(len(slices)).split(BATCH):
            x = torch.rot90(slices[rows], int(torch.randint(4, ())), (-2, -1))
            x = x.mT if torch.rand(()) < 0.5 else x
            loss = F.binary_cross_entropy_with_logits(net(x.contiguous())[:, 0], labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            lost += float(loss.detach()) * len(rows)
        if lost / len(slices) < 0.01:
            break
    return net.eval()


def smoothed(slices: Tensor, width: float) -> Tensor:
    """Slices (..., H, H) smoothed by a Gaussian of so many pixels, periodic.

    Pixels that say nothing new are left out: from a width of 2 every second one, as far as 32 a side stay.
    """
    size = slices.shape[-1]
    k = 2 * math.pi * torch.fft.fftfreq(size)
    damping = torch.exp(-0.5 * width**2 * (k[:, None].square() + k[: size // 2 + 1].square()))
    smooth = torch.fft.irfft2(torch.fft.rfft2(slices) * damping, s=(size, size))
    step = max(step for step in (1, 2, 4) if step <= max(1, width) and (step == 1 or size // step >= 32))
    return smooth[..., ::step, ::step].contiguous()
