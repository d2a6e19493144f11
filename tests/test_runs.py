"""Runs on disk: which run is meant, who may write it, and what is said when it cannot be used."""

import json
import multiprocessing
from dataclasses import replace

import numpy as np
import pytest
import torch
from stored_runs import write_run
from suites import lognormal_suite

from uvae_lib.files import lock_folder
from uvae_lib.model import UniverseVAE
from uvae_lib.presets import PRESETS, SMOKE
from uvae_lib.runs import run as runs
from uvae_lib.runs.encode import cut_cube, encode_cube, reconstruct
from uvae_lib.runs.run import load_run, lock_run, read_info
from uvae_lib.simulation import suite as simulation
from uvae_lib.simulation.suite import load_suite


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home of runs with one that has no weights."""
    monkeypatch.setenv("UVAE_HOME", str(tmp_path))
    write_run(tmp_path / "runs" / "first", lognormal_suite(tmp_path / "data" / "tiny"))
    return tmp_path


def test_a_relative_run_is_found_from_wherever_one_works(home, monkeypatch):
    (home / "notebooks").mkdir()
    monkeypatch.chdir(home / "notebooks")
    with pytest.raises(FileNotFoundError, match="holds no best"):  # the folder is found, its weights are not
        load_run("runs/first")


def test_a_run_beside_one_goes_before_the_project_s(home, monkeypatch, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "runs" / "first").mkdir(parents=True)
    monkeypatch.chdir(elsewhere)
    with pytest.raises(FileNotFoundError, match=r"it has no run\.json"):
        load_run("runs/first")


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("runs/first/run.json", r"run.json is no run: there is no such folder with a run.json in it"),
        ("runs/frist", "frist is no run: there is no such folder"),
        ("data/tiny", r"tiny is no run: it has no run.json \(with Grids.*\)"),
    ],
)
def test_what_is_no_run_is_named_with_the_runs_that_there_are(home, path, said):
    with pytest.raises(FileNotFoundError, match=said + ".*or take one of runs/first"):
        load_run(path)


def test_without_any_run_the_advice_is_to_train_one(tmp_path, monkeypatch):
    monkeypatch.setenv("UVAE_HOME", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"train one with `python -m uvae_lib train`$"):
        load_run("runs/first")


def test_a_run_of_a_newer_version_asks_for_an_update_and_never_to_be_removed(home):
    path = home / "runs" / "first" / "run.json"
    info = json.loads(path.read_text()) | {"versions": {"uvae-lib": "99.1.0"}}
    info["config"]["model"]["depth"] = 3
    path.write_text(json.dumps(info))
    with pytest.raises(ValueError, match=r"no field depth.*made by version 99\.1\.0 of uvae-lib.*update") as refusal:
        read_info(path.parent)
    assert "remove" not in str(refusal.value)


@pytest.mark.parametrize(("made", "newer"), [("0.0.1", False), ("0", False), ("99", True), ("1000.2rc1", True)])
def test_versions_are_compared_as_numbers(made, newer):
    assert bool(runs._newer(made)) == newer


def test_a_run_without_a_fingerprint_of_its_cubes_cannot_be_used(home):
    path = home / "runs" / "first" / "run.json"
    info = json.loads(path.read_text())
    del info["fingerprint"]
    path.write_text(json.dumps(info))
    with pytest.raises(ValueError, match="it has no fingerprint; restore it, or train under another --name"):
        read_info(path.parent)


def _try(folder, said):
    try:
        with lock_run(folder):
            said.put("held")
    except ValueError as error:
        said.put(str(error))


def test_two_processes_never_train_one_folder(tmp_path):
    context = multiprocessing.get_context("spawn")
    said = context.Queue()
    with lock_run(tmp_path):
        other = context.Process(target=_try, args=(tmp_path, said))
        other.start()
        other.join(60)
    assert "another process is training" in said.get(timeout=5)


def test_a_lock_goes_with_its_block(tmp_path):
    with pytest.raises(KeyError), lock_folder(tmp_path, "held"):
        raise KeyError
    with lock_folder(tmp_path, "held"), pytest.raises(ValueError, match=r"^held$"), lock_folder(tmp_path, "held"):
        pass


def test_a_file_system_without_locks_trains_all_the_same(tmp_path, monkeypatch):
    def none(*_, **__):
        raise NotImplementedError("no locks here")

    monkeypatch.setattr("filelock.FileLock.acquire", none)
    with lock_run(tmp_path / "run"):
        assert (tmp_path / "run").is_dir()


def test_simulation_and_training_hold_a_folder_by_the_same_lock(tmp_path):
    with lock_run(tmp_path), pytest.raises(ValueError, match="another process is simulating into"):
        simulation.simulate_suite(tmp_path, replace(SMOKE.simulation, n_cv=0, n_1p=0), progress=False)


@pytest.mark.parametrize("preset", [p for p in PRESETS.values() if not p.simulation.n_cubes])
def test_a_preset_for_public_cubes_simulates_none(preset, tmp_path, monkeypatch):
    monkeypatch.setenv("UVAE_HOME", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="no such file or folder; expected cubes"):
        load_suite(preset)


@pytest.fixture
def run(tmp_path):
    """A run of the plain model with the weights that it starts with."""
    data = lognormal_suite(tmp_path / "data")
    info, config = read_info(write_run(tmp_path / "run", data))
    model = UniverseVAE(image_size=config.data.image_size).eval().requires_grad_(False)
    parts = {"folder": tmp_path / "run", "model": model, "config": config, "split": info["split"], "history": None}
    return runs.Run(**parts, mean=0.0, std=1.0, box_size=info["box_size"], side=info["side"], info=info)


def test_another_default_dtype_of_torch_changes_no_latent(run):
    y = np.random.default_rng(0).random((32, 32, 32), dtype=np.float32) + 0.5
    slices = cut_cube(run, y, 3)
    expected = encode_cube(run, slices).mu, reconstruct(run, slices)
    torch.set_default_dtype(torch.float64)
    try:
        z = encode_cube(run, cut_cube(run, y, 3))
        drawn, found = z.sample(torch.Generator().manual_seed(0)), (z.mu, reconstruct(run, slices))
    finally:
        torch.set_default_dtype(torch.float32)
    assert drawn.dtype == torch.float32
    for a, b in zip(expected, found, strict=True):
        torch.testing.assert_close(a, b)
