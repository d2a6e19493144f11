"""Several processes train as one would, and a process that dies ends the job in good order (two on the CPU, gloo)."""

import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from suites import lognormal_suite, tiny_config

from uvae_lib.presets import PRESETS
from uvae_lib.runs.run import load_run
from uvae_lib.training.checkpoints import checkpoints, newest_checkpoint
from uvae_lib.training.fit import fit

PATIENCE = 120  # [s] that a job may take to end after one of its processes died
JOB = """
import os, signal, sys
import torch
torch.set_num_threads(1)
sys.path.insert(0, {tests!r})
from test_distributed import FirstGradients, FixedStatistics, configured
from lightning.pytorch.callbacks import Callback
from uvae_lib.training.fit import fit

class Die(Callback):
    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if batch == {at} and trainer.global_rank == {rank}:
            os.kill(os.getpid(), signal.SIGKILL)

callbacks = [Die(), FixedStatistics(), FirstGradients({folder!r})]
run = fit(configured({suite!r}, devices=2), {folder!r}, progress=False, callbacks=callbacks)
print("finished", len(run.history), flush=True)
"""


def configured(suite, **training):
    """A taught start and the note's loss."""
    return tiny_config(suite, steps=6, taught_steps=2, ema=0.9, **training)


class FixedStatistics(Callback):
    """Batch normalisation by its running statistics: on the CPU each process has those of its own sets."""

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        for layer in module.model.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.eval()


class FirstGradients(Callback):
    """Keeps the gradients of the first step of each process."""

    def __init__(self, folder):
        self.folder = Path(folder)

    def on_before_optimizer_step(self, trainer, module, optimizer):
        if trainer.global_step == 0:
            gradients = {name: p.grad for name, p in module.model.named_parameters()}
            torch.save(gradients, self.folder / f"gradients-{trainer.global_rank}.pt")


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    return str(lognormal_suite(tmp_path_factory.mktemp("suite")))


def start(tmp_path, suite, folder, launcher=(), at=-1, rank=-1):
    """Start a job of two processes; their output goes to a file beside the folder."""
    script = tmp_path / "job.py"
    tests = str(Path(__file__).parent)
    script.write_text(JOB.format(tests=tests, suite=suite, folder=str(folder), at=at, rank=rank))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
    with open(tmp_path / "output.txt", "w") as output:
        return subprocess.Popen(
            [sys.executable, *launcher, script], stdout=output, stderr=subprocess.STDOUT, env=environment
        )


@pytest.fixture(scope="module")
def alone(suite, tmp_path_factory):
    """The same run in one process."""
    folder, threads = tmp_path_factory.mktemp("alone") / "run", torch.get_num_threads()
    torch.set_num_threads(1)
    yield fit(configured(suite), folder, progress=False, callbacks=[FixedStatistics(), FirstGradients(folder)])
    torch.set_num_threads(threads)
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def together(suite, tmp_path_factory):
    """A job of two processes that torchrun started."""
    tmp_path = tmp_path_factory.mktemp("together")
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    process = start(tmp_path, suite, tmp_path / "run", launcher)
    assert process.wait(600) == 0, (tmp_path / "output.txt").read_text()
    yield tmp_path / "run", (tmp_path / "output.txt").read_text()
    shutil.rmtree(tmp_path)


def test_two_processes_have_the_gradients_of_one_with_the_same_batch(alone, together):
    one = torch.load(alone.folder / "gradients-0.pt", weights_only=True)
    for rank in (0, 1):
        two = torch.load(together[0] / f"gradients-{rank}.pt", weights_only=True)
        error = {name: float((two[name] - one[name]).norm() / one[name].norm()) for name in one}
        assert max(error.values()) < 2e-3, max(error, key=error.get)  # float32, sums in another order, which cancel
        total = sum((two[name] - one[name]).square().sum() for name in one) / sum(
            g.square().sum() for g in one.values()
        )
        assert total.sqrt() < 3e-5


def test_two_processes_have_the_history_of_one(alone, together):
    run = load_run(together[0])
    assert run.history["step"].tolist() == alone.history["step"].tolist()
    for name in alone.history:
        assert run.history[name].tolist() == pytest.approx(alone.history[name].tolist(), rel=1e-2, nan_ok=True), name
        first = alone.history[name][:3].tolist()
        assert run.history[name][:3].tolist() == pytest.approx(first, rel=2e-3, nan_ok=True), name
    assert run.history["loss"][0] == pytest.approx(alone.history["loss"][0], rel=1e-5)


def test_fit_returns_in_every_process(together):
    assert together[1].count("finished 6") == 2


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_dies_ends_the_job_with_a_sentence_and_a_usable_checkpoint(suite, alone, tmp_path, rank):
    folder = tmp_path / "run"
    process = start(tmp_path, suite, folder, at=4, rank=rank)
    while not checkpoints(folder) and process.poll() is None:
        time.sleep(0.1)
    children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    assert process.wait(PATIENCE) != 0
    _, left = psutil.wait_procs(children, timeout=PATIENCE)
    assert left == []
    said = (tmp_path / "output.txt").read_text()
    assert f"process {1 - rank} of 2 ended at step 4" in said and "--resume" in said
    assert newest_checkpoint(folder).name == "step-00000003.ckpt"
    run = fit(configured(suite), folder, resume=True, progress=False, callbacks=[FixedStatistics()])  # alone
    assert run.history["step"].tolist() == alone.history["step"].tolist()
    shutil.rmtree(folder)


PRESET_JOB = """
import sys
import torch
torch.set_num_threads(1)
sys.path.insert(0, {tests!r})
from test_distributed import of_preset
from uvae_lib.training.fit import fit
fit(of_preset({name!r}, {suite!r}, devices=2), {folder!r}, progress=False)
"""


def of_preset(name, suite, **training):
    """The networks, the loss and the kind of targets of a preset at the smallest size, three steps."""
    preset = PRESETS[name]
    shortest = tiny_config(
        suite, steps=3, sets_per_step=4, taught_steps=min(1, preset.training.taught_steps), **training
    )
    return replace(shortest, model=preset.model, loss=preset.loss)


@pytest.mark.parametrize("name", ["note", "plain"])
def test_a_preset_trains_in_two_processes_with_its_own_losses(suite, tmp_path, name):
    script = tmp_path / "job.py"
    script.write_text(
        PRESET_JOB.format(tests=str(Path(__file__).parent), name=name, suite=suite, folder=str(tmp_path / "run"))
    )
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, env=environment, timeout=600)
    assert done.returncode == 0, done.stderr
    history = load_run(tmp_path / "run").history
    assert history["step"].tolist() == [1, 2, 3] and history["loss"].notna().all()
    shutil.rmtree(tmp_path / "run")


PAGE = (Path(__file__).parents[1] / "docs" / "cluster.md").read_text(encoding="utf-8")
LAUNCHES = re.findall(r"^(\w+) (.*-m uvae_lib train --preset cmd --training.devices 4.*?) *(?:#.*)?$", PAGE, re.M)
assert len(LAUNCHES) == 3


@pytest.mark.parametrize("launcher, rest", LAUNCHES, ids=[launcher for launcher, _ in LAUNCHES])
def test_the_commands_of_the_page_train(launcher, rest, tmp_path):
    """With the smallest preset and two processes; SLURM's tasks are started by hand, as on two nodes."""
    lognormal_suite(tmp_path / "data" / "smoke")
    start, tasks = [sys.executable], [{}]
    rest = rest.replace("cmd", "smoke").replace(" 4", " 2").removesuffix(" --resume")
    if launcher == "torchrun":
        start += ["-m", "torch.distributed.run", "--standalone"]
    if launcher == "srun":
        rest = rest.removeprefix("python ").replace("devices 2", "devices 1")
        job = {"JOB_ID": "1", "JOB_NAME": "uvae", "NTASKS": "2", "NNODES": "2", "NODELIST": "127.0.0.1", "LOCALID": "0"}
        tasks = [job | {"NTASKS_PER_NODE": "1", "PROCID": f"{i}", "NODEID": f"{i}"} for i in range(2)]
    command = [*start, *rest.split(), "--training.steps", "2", "--no-progress"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "UVAE_HOME": str(tmp_path)}
    environment["PYTHONPATH"] = str(Path(__file__).parents[1])
    started = [
        subprocess.Popen(command, env=environment | {f"SLURM_{name}": value for name, value in task.items()},
                         stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for task in tasks
    ]  # fmt: skip
    said = [process.communicate(timeout=600)[1] for process in started]
    assert [process.returncode for process in started] == [0] * len(tasks), said
    run = load_run(tmp_path / "runs" / "smoke")
    assert run.info["finished"] and run.config.training.devices * run.config.training.num_nodes == 2


def test_the_other_presets_have_the_networks_and_losses_of_these_two():
    assert {(p.model, p.loss) for p in PRESETS.values()} == {(PRESETS["note"].model, PRESETS["note"].loss)}
