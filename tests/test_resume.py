"""A run survives what ends processes and damages files: it ends as if nothing had happened, byte for byte."""

import io
import json
import multiprocessing
import os
import pickle
import random
import resource
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from suites import lognormal_suite, tiny_config

from uvae_lib.runs.run import lock_run
from uvae_lib.training import module as training
from uvae_lib.training.checkpoints import checkpoints, newest_checkpoint
from uvae_lib.training.fit import fit
from uvae_lib.training.module import module_settings

KILLS = 10
RESULTS = ("last.safetensors", "best.safetensors", "history.csv")


def train(config, folder, resume=True):
    """What the killed processes do."""
    torch.set_num_threads(1)
    training.VALIDATION_STEPS = training.REFRESH = 2
    fit(config, folder, resume=resume, progress=False)


@pytest.fixture(autouse=True)
def short_validation(monkeypatch):
    monkeypatch.setattr(training, "VALIDATION_STEPS", 2)
    monkeypatch.setattr(training, "REFRESH", 2)


@pytest.fixture(scope="module")
def start_training():
    """A function that starts `train` in a new process, forked from one that has imported torch already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["uvae_lib.training", "test_resume"])

    def start(*args):
        process = context.Process(target=train, args=args)
        process.start()
        return process

    return start


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """Everything with a state is in it: average, taught start, cubes exchanged."""
    config = tiny_config(
        lognormal_suite(tmp_path_factory.mktemp("suite")), steps=8, taught_steps=3, val_every=2, ema=0.9
    )
    return replace(config, data=replace(config.data, pool_size=3))


@pytest.fixture(scope="module")
def uninterrupted(config, start_training, tmp_path_factory):
    """The folder of a run that nothing disturbed, and the seconds that it took."""
    folder = tmp_path_factory.mktemp("runs") / "uninterrupted"
    began = time.monotonic()
    process = start_training(config, folder)
    process.join()
    yield folder, time.monotonic() - began
    shutil.rmtree(folder)


@pytest.fixture
def unfinished(uninterrupted, tmp_path):
    """A copy of that run as it was after its last checkpoint, before the final weights were written."""
    folder = tmp_path / "unfinished"
    shutil.copytree(uninterrupted[0], folder, copy_function=os.link)  # every file is replaced, none changed
    info = json.loads((folder / "run.json").read_text())
    for name in ("run.json", "last.safetensors", ".lock"):
        (folder / name).unlink()
    (folder / "run.json").write_text(json.dumps(info | {"finished": False}))
    yield folder
    shutil.rmtree(folder)


def settings(config, folder):
    """The hyperparameters that checkpoints of a run carry."""
    info = json.loads((folder / "run.json").read_text())
    return module_settings(info, config)


def same_bytes(a: Path, b: Path) -> list[str]:
    """Names of the results that differ between two runs."""
    return [name for name in RESULTS if (a / name).read_bytes() != (b / name).read_bytes()]


def assert_equal(a, b):
    """Nested values, tensors bit for bit."""
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert list(a) == list(b)
        for name in a:
            assert_equal(a[name], b[name])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_equal(x, y)
    else:
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def assert_same_checkpoints(a: Path, b: Path, last: int = 2):
    """The last checkpoints hold the same numbers; only the time that was spent may differ."""
    pairs = list(zip(checkpoints(a)[-last:], checkpoints(b)[-last:], strict=True))
    assert len(pairs) == last and all(one.name == other.name for one, other in pairs)
    for one, other in pairs:
        x, y = (torch.load(path, weights_only=True, mmap=True) for path in (one, other))
        for name in ("state_dict", "optimizer_states", "lr_schedulers", "hyper_parameters", "global_step"):
            assert_equal(x[name], y[name])
        kept = [{k: c["callbacks"]["RunKeeper"][k] for k in ("rows", "best_loss")} for c in (x, y)]
        assert_equal(*kept)


def kill(process, folder, rng, seconds, writing):
    """SIGKILL at a random moment, or as soon as a checkpoint is half written; whether the process still ran."""
    until = time.monotonic() + (60 if writing else rng.uniform(0, seconds))
    half_written = folder / "checkpoints"
    while time.monotonic() < until and process.is_alive():
        if writing and any(path.stat().st_size for path in half_written.glob(".*.tmp")):
            break
        time.sleep(0.002)
    alive = process.is_alive()
    process.kill()
    process.join()
    return alive and process.exitcode == -signal.SIGKILL


def test_a_run_killed_ten_times_ends_as_if_it_had_not_been(config, uninterrupted, start_training, tmp_path):
    whole, seconds = uninterrupted
    rng, kills, reached, half_written = random.Random(0), 0, [], 0
    while kills < KILLS:
        folder = tmp_path / f"killed-{kills}"
        while not (folder / "last.safetensors").exists():
            process = start_training(config, folder)
            if kills < KILLS:
                kills += kill(process, folder, rng, 0.6 * seconds, writing=kills % 3 == 2)
                reached.append(len(checkpoints(folder)) and int(checkpoints(folder)[-1].stem[5:]))
                half_written += any(folder.glob("checkpoints/.*.tmp"))
            else:
                process.join()
                assert process.exitcode == 0
        if not json.loads((folder / "run.json").read_text())["finished"]:  # killed at the very end
            train(config, folder)
        assert same_bytes(folder, whole) == []
        assert_same_checkpoints(folder, whole)
        assert list(folder.rglob("*.tmp")) == []
        shutil.rmtree(folder)
    print(f"killed with the newest checkpoint at steps {reached}, {half_written} times with one half written")
    assert half_written >= 2 and len(set(reached)) >= 3


class Trap:
    """Unpickling it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def zipped_trap(path: Path) -> bytes:
    buffer = io.BytesIO()
    torch.save({"state_dict": Trap(path)}, buffer)
    return buffer.getvalue()


def flipped(content: bytes) -> bytes:
    """One bit in the middle is another."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def foreign(content: bytes) -> bytes:
    """A checkpoint of another program."""
    buffer = io.BytesIO()
    torch.save({"state_dict": {}, "epoch": 3}, buffer)
    return buffer.getvalue()


DAMAGE = {
    "truncated": (lambda content, trap: content[: len(content) // 2], "it is damaged, or no checkpoint"),
    "without its end": (lambda content, trap: content[:-1], "it is damaged, or no checkpoint"),
    "one bit flipped": (lambda content, trap: flipped(content), "is damaged"),
    "empty": (lambda content, trap: b"", r"no checkpoint \(0 bytes\)"),
    "zero bytes": (lambda content, trap: bytes(len(content)), "it is damaged, or no checkpoint"),
    "foreign": (lambda content, trap: foreign(content), "it is no checkpoint of this project"),
    "another file": (lambda content, trap: b"step,loss\n1,2\n", "it is damaged, or no checkpoint"),
    "pickled code": (lambda content, trap: pickle.dumps(Trap(trap)), "it is damaged, or no checkpoint"),
    "pickled code in a zip": (lambda content, trap: zipped_trap(trap), "UnpicklingError"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_checkpoint_that_cannot_be_trusted_is_named_and_the_one_before_it_taken(config, unfinished, tmp_path, kind):
    damage, sentence = DAMAGE[kind]
    before, newest = checkpoints(unfinished)
    content = damage(newest.read_bytes(), tmp_path / "executed")
    newest.unlink()
    newest.write_bytes(content)
    with pytest.warns(UserWarning, match=f"{newest.name} cannot be used: .*{sentence}.*The one before it"):
        assert newest_checkpoint(unfinished, settings(config, unfinished)) == before
    assert not (tmp_path / "executed").exists()


def test_a_checkpoint_of_another_run_is_passed_over(config, unfinished):
    expected = settings(config, unfinished)
    with pytest.warns(UserWarning, match="it belongs to another run"):
        assert newest_checkpoint(unfinished, expected | {"mean": expected["mean"] + 1e-12}) is None


def test_training_goes_on_from_the_last_whole_checkpoint_and_ends_the_same(config, unfinished, uninterrupted):
    newest = checkpoints(unfinished)[-1]
    content = newest.read_bytes()[:1000]
    newest.unlink()
    newest.write_bytes(content)
    (unfinished / "history.csv").unlink()  # what is lost is made again
    with pytest.warns(UserWarning, match="cannot be used"):
        train(config, unfinished)
    assert same_bytes(unfinished, uninterrupted[0]) == []
    assert_same_checkpoints(unfinished, uninterrupted[0])


def test_a_run_killed_after_its_last_step_is_finished_from_its_last_checkpoint(config, unfinished, uninterrupted):
    train(config, unfinished)
    assert same_bytes(unfinished, uninterrupted[0]) == []
    assert json.loads((unfinished / "run.json").read_text())["finished"]


def test_with_no_whole_checkpoint_training_starts_again_and_says_so(config, unfinished, uninterrupted):
    for path in checkpoints(unfinished):
        path.unlink()
        path.write_bytes(b"")
    with pytest.warns(UserWarning, match="training starts from the beginning"):
        train(config, unfinished)
    assert same_bytes(unfinished, uninterrupted[0]) == []


class FullDisk(Callback):
    """From one step to another no file of this process grows beyond a few MB; numbers are written, weights are not."""

    def __init__(self, first: int, last: int, limit: int = 50_000_000):
        self.first, self.last, self.limit = first, last, limit

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        limit = self.limit if self.first <= batch + 1 <= self.last else resource.RLIM_INFINITY
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))


@pytest.fixture
def limit_restored():
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_ends_training_with_a_sentence_and_the_run_goes_on(config, uninterrupted, tmp_path, limit_restored):
    folder = tmp_path / "run"
    torch.set_num_threads(1)
    said = r"could not write .*(best|last).safetensors: File too large.*make room .*--resume"
    with pytest.raises(OSError, match=said):
        fit(config, folder, progress=False, callbacks=[FullDisk(3, 8)])
    assert [path.name for path in checkpoints(folder)] == ["step-00000002.ckpt"]
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    train(config, folder)
    assert same_bytes(folder, uninterrupted[0]) == []
    assert_same_checkpoints(folder, uninterrupted[0])
    shutil.rmtree(folder)


def test_a_checkpoint_that_cannot_be_written_costs_nothing(config, uninterrupted, tmp_path, limit_restored):
    folder = tmp_path / "run"
    torch.set_num_threads(1)
    with pytest.warns(UserWarning, match=r"could not write .*step-00000002.ckpt .*The checkpoint before it is kept"):
        fit(config, folder, progress=False, callbacks=[FullDisk(2, 2, limit=200_000_000)])  # the best weights fit
    assert same_bytes(folder, uninterrupted[0]) == []
    shutil.rmtree(folder)


def test_a_second_training_of_the_same_folder_is_refused(config, unfinished):
    with lock_run(unfinished), pytest.raises(ValueError, match=r"another process is training .*; wait for it"):
        train(config, unfinished)


class CtrlC(Callback):
    """Ctrl-C, or another signal, at the start of some steps."""

    def __init__(self, *steps: int, signum: int = signal.SIGINT):
        self.steps, self.signum = steps, signum

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if batch in self.steps:
            os.kill(os.getpid(), self.signum)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_ctrl_c_and_a_job_that_is_ended_or_warned_save_the_step_and_the_run_goes_on(
    config, tmp_path, uninterrupted, signum
):
    folder = tmp_path / "run"
    torch.set_num_threads(1)
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt, match="is at step 5 of 8, which is saved; go on with --resume"):
        fit(config, folder, progress=False, callbacks=[CtrlC(4, signum=signum)])
    assert signal.getsignal(signal.SIGINT) is handler  # so that it can be pressed again
    assert checkpoints(folder)[-1].name == "step-00000005.ckpt"
    train(config, folder)
    assert same_bytes(folder, uninterrupted[0]) == []
    shutil.rmtree(folder)


def test_ctrl_c_pressed_again_stops_at_once(config, tmp_path):
    class Twice(CtrlC):
        def on_before_backward(self, trainer, module, loss):
            if module.trainer.global_step in self.steps:
                os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt, match="is at step 2, the newest checkpoint before it; go on with --resume"):
        fit(config, tmp_path / "run", progress=False, callbacks=[Twice(2)])
    assert checkpoints(tmp_path / "run")[-1].name == "step-00000002.ckpt"
    shutil.rmtree(tmp_path / "run")
