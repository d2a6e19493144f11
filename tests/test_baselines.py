"""What a run is compared with: trained for a few steps, stopped, gone on with, and judged like the run."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from suites import lognormal_suite, tiny_config
from torch import nn
from torchvision.models import resnet18

from uvae_lib.__main__ import main
from uvae_lib.analysis import baselines
from uvae_lib.analysis.acceptance import kept_baselines
from uvae_lib.analysis.baselines import (
    BASELINES,
    LitMoments,
    LitSupervised,
    moment_loss,
    moment_network,
    supervised_metrics,
    supervised_network,
    train_baselines,
)
from uvae_lib.presets import to_dict
from uvae_lib.runs.run import load_run, move_data
from uvae_lib.training.fit import fit
from uvae_lib.training.slices import CubePool, SliceSets

STEPS = 6


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("baselines")
    config = tiny_config(lognormal_suite(folder / "data", n_cubes=12), steps=STEPS, ema=0.9)
    return fit(config, folder / "run", progress=False)


def copied(folder, place):
    """A run folder without what only its own training needs."""
    return shutil.copytree(folder, place, ignore=shutil.ignore_patterns("checkpoints", "last.safetensors"))


@pytest.fixture
def run(original, tmp_path):
    """A run folder of one's own."""
    return replace(original, folder=copied(original.folder, tmp_path / "run"))


@pytest.fixture(scope="module")
def suite(original):
    return original.open_suite()


def plain_config(**model):
    return tiny_config("data", model={"circular": False} | model)


def stop_at(step: int, kind):
    """The module of a baseline that is stopped by Ctrl-C at a step."""

    class Stopped(kind):
        def training_step(self, number):
            if number == step:
                raise KeyboardInterrupt
            return super().training_step(number)

    return Stopped


def test_the_supervised_network_is_torchvisions_with_one_channel_and_two_outputs():
    found, plain = supervised_network(plain_config(), 64), resnet18(num_classes=2)
    shapes = {name: value.shape for name, value in plain.state_dict().items()} | {"conv1.weight": (64, 1, 7, 7)}
    assert {name: value.shape for name, value in found.state_dict().items()} == shapes


def test_a_supervised_network_that_wraps_does_not_see_where_the_box_begins():
    net = supervised_network(plain_config(circular=True, norm="group"), 64).eval()
    x = torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(net(x.roll(32, dims=-1)), net(x), rtol=1e-4, atol=1e-4)


def test_every_slice_has_the_labels_of_its_cube(original, suite):
    split, config = original.split, original.config
    module = LitSupervised(config=to_dict(config), side=suite.side, mean=0.0, std=1.0, split=split, pool_size=3)
    pool = CubePool(suite, split["train"], size=3, refresh=1)
    slices = SliceSets(pool, 0.0, 1.0, image_size=32, set_size=3, sets_per_step=5)
    module.labels = torch.randn(suite.n_cubes, 2)
    volumes, held = pool.at(5)
    volumes[:] = module.labels[held, 0, None, None, None]  # a cube that is its own label

    class Read(nn.Module):
        def forward(self, x):
            return x.mean(dim=(2, 3)).expand(-1, 2)

    module.labels[:, 1] = module.labels[:, 0]
    assert module._error(Read(), slices, 5) < 1e-10


def test_labels_are_standardised_over_the_training_cubes_alone():
    params = np.array([[1.0, 5.0], [3.0, 5.0], [100.0, 5.0]])
    mean, std = baselines.label_scale(params, [0, 1])
    assert mean.tolist() == [2.0, 5.0] and std.tolist() == [1.0, 1.0]


def test_a_parameter_that_does_not_vary_is_not_divided_by_its_rounding_error():
    assert baselines.label_scale(np.full((7, 1), 0.3), list(range(7)))[1].tolist() == [1.0]


def test_a_network_that_says_nothing_predicts_the_mean_of_the_training_cubes(original, suite):
    class Silent(nn.Module):
        def forward(self, x):
            return x.new_zeros(len(x), 2)

    found = supervised_metrics(Silent(), original, suite, n_slices=3)
    sigma_8 = suite.params["sigma_8"].to_numpy()
    wanted = sigma_8[original.split["train"]].mean()
    assert np.allclose(np.array(found["predicted"])[:, 1], wanted)
    error = np.sqrt(np.square(sigma_8[original.split["test"]] - wanted).mean())
    assert found["error"]["sigma_8"] == pytest.approx(error)
    assert found["r2"]["sigma_8"] == pytest.approx(1 - error**2 / sigma_8[original.split["test"]].var())


def test_predictions_that_shrink_are_recalibrated_on_training_cubes(original, suite, monkeypatch):
    labels = suite.params[["Omega_m", "sigma_8"]].to_numpy()
    mean, std = baselines.label_scale(labels, original.split["train"])
    monkeypatch.setattr(baselines.latents, "spread_slices", lambda run, suite, cube, n, seed: torch.tensor([cube]))

    def shrunk(cube):
        return torch.from_numpy(0.6 * (labels[cube.numpy()] - mean) / std)

    found = supervised_metrics(shrunk, original, suite)
    assert found["r2"]["sigma_8"] == pytest.approx(1) and found["r2_raw"]["sigma_8"] < 0.9
    assert found["slope"]["sigma_8"] == pytest.approx(1 / 0.6)


def test_moments_are_the_mean_and_the_width_of_the_posterior():
    generator = torch.Generator().manual_seed(0)
    wanted = 0.5 + 0.3 * torch.rand(100_000, 2, generator=generator)  # a uniform law: no Gaussian
    best = torch.tensor([0.65, 0.65, 0.3 / 12**0.5, 0.3 / 12**0.5])
    found = [
        float(moment_loss((best + shift).expand(len(wanted), 4), wanted))
        for shift in (
            0,
            0.02 * torch.eye(4)[0],
            -0.02 * torch.eye(4)[1],
            0.02 * torch.eye(4)[2],
            -0.02 * torch.eye(4)[3],
        )
    ]
    assert found[0] == min(found)


def test_the_network_of_moments_wraps_around():
    config = replace(plain_config(circular=True), data=replace(plain_config().data, image_size=32))
    network, x = moment_network(config, 32).eval(), torch.randn(2, 1, 32, 32)
    assert network(x).shape == (2, 4)
    assert torch.allclose(network[:9](x.roll(8, dims=-1)), network[:9](x).roll(4, dims=-1), atol=1e-5)


def test_the_command_writes_all_baselines(run, capsys):
    main(["baselines", "--run", str(run.folder), "--steps", "3"])
    found = json.loads((run.folder / "baselines.json").read_text())
    assert set(found) == {"supervised", "moments", "made"}
    for name in ("supervised", "moments"):
        assert set(found[name]["r2"]) == set(found[name]["error"]) == {"Omega_m", "sigma_8"}
    assert np.shape(found["supervised"]["predicted"]) == (len(run.split["test"]), 2)
    assert found["moments"]["steps"] == 3 and found["moments"]["seconds"] > 0
    assert "supervised: 3 steps" in capsys.readouterr().out


def test_a_baseline_that_is_there_is_not_trained_again(run):
    first, again, longer = (
        train_baselines(run.folder, ["supervised"], steps=steps, progress=False)["supervised"] for steps in (2, 2, 3)
    )
    assert again["seconds"] == first["seconds"] != longer["seconds"]


def test_other_parameters_are_another_baseline(run, tmp_path):
    """A corrected parameter file leaves no number that was made with the former one."""
    first = train_baselines(run.folder, ["supervised"], steps=2, progress=False)["supervised"]
    table = shutil.copytree(run.config.data.path, tmp_path / "data") / "params_LH_IllustrisTNG.txt"
    names, *rows = table.read_text().splitlines()
    table.write_text("\n".join([names, *reversed(rows)]))
    move_data(run.folder, tmp_path / "data")
    run = load_run(run.folder)
    assert kept_baselines(run) == {}
    second = train_baselines(run.folder, ["supervised"], steps=2, progress=False)["supervised"]
    assert kept_baselines(run)["supervised"]["truth"] == second["truth"] != first["truth"]


@pytest.mark.parametrize("name", list(BASELINES))
def test_a_training_that_was_stopped_goes_on_to_the_same_numbers(name, run, tmp_path, monkeypatch):
    twin = copied(run.folder, tmp_path / "twin")
    expected = train_baselines(twin, [name], progress=False)[name]
    kind = BASELINES[name]
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt, match=f"{name}-{STEPS} is at step 4"):
        patch.setitem(BASELINES, name, stop_at(4, kind))
        train_baselines(run.folder, [name], progress=False)
    steps = []
    with monkeypatch.context() as patch:

        class Watched(kind):
            def training_step(self, number):
                steps.append(number)
                return super().training_step(number)

        patch.setitem(BASELINES, name, Watched)
        found = train_baselines(run.folder, [name], progress=False)[name]
    assert steps == [3, 4, 5]
    assert json.dumps(found | {"seconds": 0}) == json.dumps(expected | {"seconds": 0})  # NaN is not equal to NaN


def test_the_first_baseline_stays_when_the_second_is_stopped(run, monkeypatch):
    monkeypatch.setitem(BASELINES, "moments", stop_at(1, LitMoments))
    with pytest.raises(KeyboardInterrupt):
        train_baselines(run.folder, ["supervised", "moments"], steps=2, progress=False)
    assert set(json.loads((run.folder / "baselines.json").read_text())) == {"supervised", "made"}


def test_checkpoints_are_cleared_away_when_the_result_is_written(run):
    train_baselines(run.folder, ["supervised"], steps=3, progress=False)
    assert not list(run.folder.glob("baselines/**/*.ckpt"))
    assert list(run.folder.glob("baselines/*/supervised-3/best.safetensors"))


def test_the_supervised_network_learns_the_clustering_strength(run):
    found = train_baselines(run.folder, ["supervised"], steps=40, progress=False)["supervised"]
    assert found["r2"]["sigma_8"] > 0.3


def test_cubes_without_labels_are_refused_before_anything_is_trained(run):
    labels = run.open_suite().files[0].path.parent / "params_LH_IllustrisTNG.txt"
    labels.rename(run.folder / "aside.txt")
    try:
        with pytest.raises(ValueError, match=r"has no Omega_m, sigma_8; .* put the parameter file beside"):
            train_baselines(run.folder, progress=False)
    finally:
        (run.folder / "aside.txt").rename(labels)


def test_an_unknown_baseline_is_refused(run):
    with pytest.raises(ValueError, match='found baseline "svm"; expected one of supervised, moments'):
        train_baselines(run.folder, ["svm"])
