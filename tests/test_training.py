"""What `fit` does besides learning: refusals, history, repeatability, and a step that never waits for the device."""

import json
import shutil
import warnings
from dataclasses import replace
from importlib import import_module

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from benchmarks.ship import ship_run
from lightning.pytorch.callbacks import Callback
from safetensors.torch import load_file, save_file
from suites import lognormal_suite, tiny_config
from torch.utils._python_dispatch import TorchDispatchMode

from uvae_lib.cubes.suite import open_cubes
from uvae_lib.runs.run import load_run, move_data
from uvae_lib.training.checkpoints import checkpoints
from uvae_lib.training.fit import fit
from uvae_lib.training.module import update_average
from uvae_lib.training.slices import CubePool, SliceSets
from uvae_lib.training.trainer import chosen_device

HISTORY = [
    "step", "loss", "l2", "kl_z", "kl_h", "lr", "fvu", "weight_z", "weight_h",
    "val_loss", "val_fvu", "val_l2", "val_kl_z", "val_kl_h", "val_kl_z_width", "val_kl_z_offset", "val_kl_z_spread",
    "active_z", "active_h",
]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    return lognormal_suite(tmp_path_factory.mktemp("suite"))


class WaitsForDevice(TorchDispatchMode):
    """Refuses every operation whose result the host has to wait for on a GPU."""

    waiting = ("_local_scalar_dense", "is_nonzero", "equal", "nonzero", "masked_select", "unique")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket.__name__ in self.waiting:
            raise AssertionError(f"{func} waits for the device")
        return func(*args, **(kwargs or {}))


class Watch(Callback):
    """Watches steps that are not logged, from the slices to the optimiser and the average; keeps the last module."""

    def __init__(self):
        self.watched = 0

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        self.module, self.mode = module, None
        if not any(module.due(batch + 1).values()):
            self.mode = WaitsForDevice()
            self.mode.__enter__()
            self.watched += 1

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if self.mode:
            self.mode.__exit__(None, None, None)


@pytest.fixture(scope="module")
def trained(suite, tmp_path_factory):
    """A short run, its configuration, and the callback that watched it."""
    watch, folder = Watch(), tmp_path_factory.mktemp("runs") / "tiny"
    config = tiny_config(suite, steps=6, val_every=20, ema=0.9)
    state = torch.get_rng_state()
    run = fit(config, folder, progress=False, callbacks=[watch])
    watch.kept_global_state = torch.equal(state, torch.get_rng_state())
    yield run, config, watch
    shutil.rmtree(folder)


@pytest.fixture
def copy(trained, tmp_path):
    """A copy of the run without its checkpoints, to be spoilt."""
    folder = tmp_path / "copy"
    shutil.copytree(trained[0].folder, folder, ignore=shutil.ignore_patterns("checkpoints"))
    yield folder
    shutil.rmtree(folder)


def test_a_step_never_waits_for_the_device_unless_it_is_logged(trained):
    _, _, watch = trained
    assert watch.watched == 3  # steps 2, 4 and 6 are logged, and 6 is validated and saved


def test_training_leaves_torchs_global_random_state_alone(trained):
    assert trained[2].kept_global_state


def test_the_history_has_a_row_for_every_logged_or_validated_step(trained):
    history = trained[0].history
    assert list(history) == HISTORY
    assert history["step"].tolist() == [2, 4, 6]
    assert history["val_loss"].notna().tolist() == [False, False, True]
    assert np.isfinite(history[HISTORY[:9]].to_numpy()).all()


def test_the_history_gives_the_weights_and_the_rate_that_the_step_used(trained):
    run, config, _ = trained
    rows, train = run.history.set_index("step"), config.training
    assert rows["weight_h"].tolist() == [10, 10, 10]
    assert rows["lr"][2] == train.lr  # the first after a warm-up of one step
    fall = 0.5 * (1 + np.cos(np.pi * (5 - 1) / (6 - 1)))
    assert rows["lr"][6] == pytest.approx(train.lr * (0.02 + 0.98 * fall))


def weighted(rows):
    """The note's loss of logged terms, whose KLs are in nats."""
    return rows["l2"] + (rows["weight_z"] * rows["kl_z"] + rows["weight_h"] * rows["kl_h"]) / 512


def test_the_logged_loss_is_the_sum_of_the_logged_terms(trained):
    rows = trained[0].history
    np.testing.assert_allclose(rows["loss"], weighted(rows), rtol=1e-5)


def test_a_run_says_on_what_it_was_trained(trained):
    assert trained[0].info["device"] and trained[0].info["memory"] > 2**20


def test_a_run_that_was_read_back_computes_what_the_trained_network_does_bit_for_bit(trained):
    run, _, watch = trained
    last, module = load_run(run.folder, "last"), watch.module
    image = torch.randn(2, 3, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    noise = tuple(torch.zeros(2, 512) for _ in range(3))
    with torch.no_grad():
        mine = module.evaluated.eval()(image, image[:, 0], noise)
        theirs = last.model(image, image[:, 0], noise)
    assert torch.equal(mine[0], theirs[0]) and torch.equal(mine[3][1], theirs[3][1])
    assert not last.model.training


def test_the_best_weights_are_those_of_the_lowest_validation_loss(trained):
    run, _, watch = trained
    best = run.history["val_loss"].idxmin() == run.history["val_loss"].last_valid_index()
    same = (run.folder / "best.safetensors").read_bytes() == (run.folder / "last.safetensors").read_bytes()
    assert best == same and watch.module.trainer.callbacks[0].best_loss == run.history["val_loss"].min()


def test_an_exported_run_is_less_than_half_the_bytes_and_nearly_the_same_numbers(trained, tmp_path):
    run = trained[0]
    files = ship_run(run.folder, tmp_path / "shipped")
    copy, packed = load_run(tmp_path / "shipped"), tmp_path / "shipped" / "best.safetensors.gz"
    assert packed.stat().st_size < 0.45 * (run.folder / "best.safetensors").stat().st_size
    assert {path.name for path in files} >= {packed.name, "run.json", "history.csv"}
    measured = dict(run.model.named_buffers())
    assert measured and all(torch.equal(buffer, measured[name]) for name, buffer in copy.model.named_buffers())
    weights = dict(load_run(run.folder).model.named_parameters())
    assert all(torch.equal(w, weights[n].bfloat16().float()) for n, w in copy.model.named_parameters())
    h = torch.randn(2, 512, generator=torch.Generator().manual_seed(0))
    exact, found = (one.model.decoder_h(h) for one in (load_run(run.folder), copy))
    assert (found - exact).square().mean() < 1e-2 * exact.square().mean()
    packed.write_bytes(packed.read_bytes()[:1000])
    with pytest.raises(ValueError, match="damaged, or no safetensors file"):
        load_run(tmp_path / "shipped")


def test_the_same_seed_gives_the_same_history_and_weights_and_another_another(trained, suite, tmp_path):
    run, config, _ = trained
    torch.manual_seed(7)  # whatever happened before in the process
    again = fit(config, tmp_path / "again", progress=False)
    for name in ("history.csv", "last.safetensors"):
        assert (again.folder / name).read_bytes() == (run.folder / name).read_bytes()
    shutil.rmtree(again.folder)
    other = replace(config, training=replace(config.training, seed=1, steps=2))
    assert fit(other, tmp_path / "other", progress=False).history["loss"][0] != run.history["loss"][0]
    shutil.rmtree(tmp_path / "other")


def test_the_averaged_network_has_batch_statistics_of_its_own(trained):
    """Those that training keeps are of the weights of each step, not of their average."""
    module = trained[2].module
    name = "encoder.trunk.bn1.running_var"
    own, kept = (dict(network.named_buffers())[name] for network in (module.average, module.model))
    assert not torch.equal(own, kept)
    with torch.no_grad():
        sets = [module.slices.sets(step).flatten(0, 1) for step in range(6, 14)]
        wrapped = [F.pad(x, (3,) * 4, mode="circular") for x in sets]
        conv = module.average.encoder.trunk.conv1.weight
        variances = torch.stack([F.conv2d(x, conv, stride=2).var((0, 2, 3)) for x in wrapped])
    torch.testing.assert_close(own, variances.mean(dim=0), rtol=1e-4, atol=1e-5)


def test_a_finished_run_is_returned_as_it_is(trained):
    run, config, _ = trained
    before = {path: path.stat().st_mtime_ns for path in run.folder.rglob("*") if path.is_file()}
    again = fit(config, run.folder, progress=False)
    assert before == {path: path.stat().st_mtime_ns for path in run.folder.rglob("*") if path.is_file()}
    assert again.history.equals(run.history)


def test_a_finished_run_goes_on_to_more_steps_where_it_has_checkpoints(suite, trained, copy, tmp_path):
    _, config, _ = trained
    longer = replace(config, training=replace(config.training, steps=8))
    with pytest.raises(ValueError, match="ended after 6 steps and holds no checkpoint from which it could go on to 8"):
        fit(longer, copy, progress=False)
    folder = shutil.copytree(trained[0].folder, tmp_path / "run")
    run = fit(longer, folder, progress=False)
    assert run.history["step"].tolist() == [2, 4, 6, 8] and run.config.training.steps == 8 and run.info["finished"]
    assert run.history[:2].equals(trained[0].history[:2])
    shutil.rmtree(folder)


def test_a_task_of_a_job_whose_run_has_one_device_is_refused(suite, tmp_path, monkeypatch):
    monkeypatch.setattr(import_module("uvae_lib.training.fit"), "process_rank", lambda: 1)
    with pytest.raises(ValueError, match=r"process 1 of a job whose run has one device; give training\.devices"):
        fit(tiny_config(suite), tmp_path / "run", progress=False)


def test_another_configuration_is_refused_with_the_fields_that_differ(trained):
    run, config, _ = trained
    other = replace(config, training=replace(config.training, lr=1.0), data=replace(config.data, thickness=2))
    with pytest.raises(ValueError, match=r"data.thickness=2 \(was 1\), training.lr=1.0 \(was 0.0005\); use another"):
        fit(other, run.folder, progress=False)


def test_another_number_of_processes_or_another_place_of_the_cubes_is_the_same_run(trained, copy, tmp_path):
    run, config, _ = trained
    moved = shutil.copytree(config.data.path, tmp_path / "moved")
    other = replace(config, data=replace(config.data, path=str(moved)), training=replace(config.training, devices=2))
    assert fit(other, copy, progress=False).history.equals(run.history)


def test_a_run_whose_cubes_have_moved_is_told_once_where_they_are(trained, copy, tmp_path):
    gone, config = shutil.copytree(trained[1].data.path, tmp_path / "gone"), trained[1]
    move_data(copy, gone)
    moved = shutil.move(gone, tmp_path / "moved")
    with pytest.raises(FileNotFoundError, match=r"is not there; .* evaluate --run .* --data.path NEW"):
        load_run(copy).open_suite()
    fit(replace(config, data=replace(config.data, path=str(moved))), copy, progress=False)
    assert load_run(copy).config.data.path == str(moved) and load_run(copy).open_suite().n_cubes == 6


def test_a_run_is_not_told_that_other_cubes_are_its_own(copy, tmp_path):
    with pytest.raises(ValueError, match=r"has 7 cubes of 32\^3"):
        move_data(copy, lognormal_suite(tmp_path / "more", n_cubes=7))


def test_processes_that_slurm_does_not_give_are_refused(suite, tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_NTASKS", "2")
    monkeypatch.setenv("SLURM_JOB_NAME", "training")
    with pytest.raises(
        ValueError, match=r"training\.devices=1 with num_nodes=1 cannot be had here: .*--ntasks-per-node=2"
    ):
        fit(tiny_config(suite), tmp_path / "run", progress=False)


def test_several_processes_in_a_notebook_are_refused(suite, tmp_path, monkeypatch):
    monkeypatch.setattr("lightning.pytorch.trainer.connectors.accelerator_connector._IS_INTERACTIVE", True)
    with pytest.raises(ValueError, match=r"training\.devices=2 with num_nodes=1 cannot be had here: .*interactive"):
        fit(tiny_config(suite, devices=2), tmp_path / "run", progress=False)


def test_other_cubes_are_refused(trained, tmp_path):
    run, config, _ = trained
    path = lognormal_suite(tmp_path / "more", n_cubes=7)
    with pytest.raises(ValueError, match=r"has 7 cubes of 32\^3 .* was trained on 6 of 32\^3"):
        fit(replace(config, data=replace(config.data, path=str(path))), run.folder, progress=False)


def test_other_cubes_of_the_same_name_number_and_size_are_refused(trained, tmp_path):
    run, config, _ = trained
    path = lognormal_suite(tmp_path / "replaced", seed=1)
    with pytest.raises(ValueError, match=r"holds other cubes than those that .* was trained on: as many and as large"):
        fit(replace(config, data=replace(config.data, path=str(path))), run.folder, progress=False)
    with pytest.raises(ValueError, match="holds other cubes"):
        replace(run, config=replace(config, data=replace(config.data, path=str(path)))).open_suite()


def test_an_unfinished_run_is_refused_without_resume(trained, copy):
    _, config, _ = trained
    info = json.loads((copy / "run.json").read_text())
    (copy / "run.json").write_text(json.dumps(info | {"finished": False}))
    (copy / "checkpoints").mkdir()
    (copy / "checkpoints" / "step-00000003.ckpt").touch()
    with pytest.raises(ValueError, match=r"unfinished run \(step-00000003.ckpt\); go on with --resume"):
        fit(config, copy, progress=False)


def test_sets_that_processes_cannot_share_are_refused(suite):
    run = open_cubes(suite)
    with pytest.raises(ValueError, match="3 sets a step cannot be shared by 2 processes; use a multiple"):
        SliceSets(CubePool(run, [0]), 0.0, 1.0, image_size=32, set_size=2, sets_per_step=3, world_size=2)


@pytest.mark.parametrize("n_cubes", [1, 2, 3, 4])
def test_few_cubes_are_enough_to_train_and_it_is_said_when_none_is_left_for_validation(tmp_path, n_cubes):
    config = tiny_config(lognormal_suite(tmp_path / "cubes", n_cubes), steps=2, set_size=2, val_every=1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run = fit(config, tmp_path / "run", progress=False)
    said = [str(w.message) for w in caught if "no cube is left for validation" in str(w.message)]
    assert bool(said) == (run.split["val"] == []) == ("val_loss" not in run.history) == (n_cubes < 3)
    assert run.split["train"] and run.model is not None
    if said:
        assert (run.folder / "best.safetensors").read_bytes() == (run.folder / "last.safetensors").read_bytes()
    shutil.rmtree(run.folder)


def test_the_accelerator_can_be_chosen_and_an_unknown_one_is_refused():
    assert chosen_device("cpu") == torch.device("cpu")
    with pytest.raises(ValueError, match='found accelerator="cuda"; expected one of auto, cpu, gpu, mps'):
        tiny_config("cubes", accelerator="cuda")


def test_a_taught_start_is_part_of_the_run_and_ends(suite, tmp_path):
    """With taught steps the terms of the note's loss are logged beside what is asked for, and then are all of it."""
    run = fit(tiny_config(suite, steps=8, taught_steps=3, val_every=4), tmp_path / "run", progress=False)
    rest = run.history["loss"] - weighted(run.history)
    assert (rest.abs() > 1e-3 * run.history["loss"]).tolist() == [True] * 6 + [False] * 2  # 7 of 8 steps
    assert run.history["weight_h"].tolist() == pytest.approx([1, 1, 1, 10, 10, 10, 10, 10])
    shutil.rmtree(run.folder)


def test_a_loss_that_is_not_finite_stops_training_and_keeps_the_last_good_checkpoint(suite, tmp_path):
    folder = tmp_path / "run"
    config = tiny_config(suite, steps=8, lr=1e30, val_every=2)

    class SmallAtFirst(Callback):
        def on_train_batch_start(self, trainer, module, batch, batch_idx):
            for group in trainer.optimizers[0].param_groups:
                group["lr"] = 1e-4 if batch < 2 else 1e30

    with pytest.raises(FloatingPointError, match=r"loss of step 4 is not finite; .*step-00000002.ckpt is the last"):
        fit(config, folder, progress=False, callbacks=[SmallAtFirst()])
    (kept,) = checkpoints(folder)
    weights = torch.load(kept, weights_only=True, mmap=True)["state_dict"]
    assert all(value.isfinite().all() for value in weights.values())
    shutil.rmtree(folder)


# --- the average -------------------------------------------------------------------------------------------------


def averaged(decay, n_steps):
    """Average of a weight that is s after step s, started at 100."""
    average, model = torch.nn.Linear(1, 1).double(), torch.nn.Linear(1, 1).double()
    average.weight.data.fill_(100)
    for step in range(1, n_steps + 1):
        model.weight.data.fill_(step)
        update_average(average, model, decay, step)
    return average.weight.item()


def test_the_average_starts_as_the_plain_mean():
    assert averaged(0.9, 8) == pytest.approx(np.mean(range(1, 9)))


@pytest.mark.parametrize(("decay", "every"), [(0.9, 1), (0.99, 5), (0.999, 50)])
def test_the_average_forgets_at_the_rate_of_its_decay_and_looks_at_some_steps_only(decay, every):
    n = 20_000
    looked = np.arange(every, n + 1, every)
    assert averaged(decay, n) == pytest.approx(np.average(looked, weights=decay ** (n - looked)), rel=1e-6)


# --- files that cannot be trusted --------------------------------------------------------------------------------


class Trap:
    """Unpickling it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return type(self.path).touch, (self.path,)


SPOILT = {
    "truncated weights": ("best.safetensors", lambda text, trap: text[: len(text) // 2], "damaged, or no safetensors"),
    "empty weights": ("best.safetensors", lambda text, trap: b"", "damaged, or no safetensors"),
    "truncated run.json": ("run.json", lambda text, trap: text[:200], "run.json cannot be used: .*; restore it"),
    "empty run.json": ("run.json", lambda text, trap: b"", "run.json cannot be used"),
    "run.json of another kind": ("run.json", lambda text, trap: b"[1, 2]", "run.json cannot be used"),
    "incomplete run.json": (
        "run.json",
        lambda text, trap: b'{"config": {}}',
        "it has no box_size, fingerprint, finished, mean",
    ),
    "unknown field": ("run.json", lambda text, trap: text.replace(b'"ema"', b'"emu"'), "no field emu"),
    "no text": ("run.json", lambda text, trap: b"\xff\xfe\x00", "run.json cannot be used"),
    "empty history": ("history.csv", lambda text, trap: b"", "history.csv is damaged"),
}


@pytest.mark.parametrize("kind", SPOILT)
def test_a_spoilt_file_of_a_run_is_refused_with_a_sentence(copy, kind):
    name, spoil, sentence = SPOILT[kind]
    (copy / name).write_bytes(spoil((copy / name).read_bytes(), None))
    with pytest.raises(ValueError, match=sentence):
        load_run(copy)


def test_weights_that_are_pickled_code_are_refused_and_nothing_of_it_runs(copy, tmp_path):
    torch.save(Trap(tmp_path / "executed"), copy / "best.safetensors")
    with pytest.raises(ValueError, match="damaged, or no safetensors file"):
        load_run(copy)
    assert not (tmp_path / "executed").exists()


def test_weights_of_another_model_are_refused(copy):
    weights = load_file(copy / "best.safetensors")
    weights.pop("model.decoder_z.layers.0.bias")
    save_file(weights, copy / "best.safetensors")
    with pytest.raises(ValueError, match=r"another model than .*\(1 differences: Missing key.*decoder_z"):
        load_run(copy)


def test_a_folder_without_a_run_and_a_run_without_weights_say_what_is_missing(copy, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"is no run: it has no run.json .*; train one"):
        load_run(tmp_path)
    (copy / "best.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"holds no best.safetensors"):
        load_run(copy)
