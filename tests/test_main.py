"""The command line, as a stranger meets it."""

import errno
import json
import os
import subprocess
import sys
from concurrent.futures.process import BrokenProcessPool

import pytest
from stored_runs import write_run
from suites import lognormal_suite

from uvae_lib.__main__ import main

COMMANDS = ("simulate", "train", "train-flows", "evaluate", "inspect", "download")
TINY = [
    "--preset", "smoke", "--training.steps", "2", "--training.val-every", "2",
    "--training.taught-steps", "0",
]  # fmt: skip


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("UVAE_HOME", str(tmp_path))
    monkeypatch.delenv("UVAE_DATA", raising=False)
    lognormal_suite(tmp_path / "data" / "smoke")
    return tmp_path


def refused(capsys, *arguments: str) -> str:
    """What is said when a command is refused."""
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    assert stop.value.code != 0
    said = capsys.readouterr()
    return f"{stop.value.code} {said.out} {said.err}"


def test_no_command_lists_the_commands(capsys):
    assert "simulate" in refused(capsys)


def test_an_unknown_command_is_refused(capsys):
    said = refused(capsys, "trian")
    assert "trian" in said and all(name in said for name in COMMANDS)


def test_help_lists_the_presets_and_loads_nothing_heavy():
    look = "import sys; from uvae_lib.__main__ import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    look += "print([name for name in ('torch', 'lightning', 'matplotlib', 'pandas', 'scipy') if name in sys.modules])"
    said = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True).stdout
    assert "note, demo" in said and said.splitlines()[-1] == "[]"


def test_an_unknown_preset_is_refused(capsys):
    assert 'found preset "dmeo"; expected one of note, demo' in refused(capsys, "train", "--preset", "dmeo")


def test_the_preset_may_stand_behind_the_fields(capsys):
    assert 'found preset "dmeo"' in refused(capsys, "train", "--training.steps", "3", "--preset=dmeo")


@pytest.mark.parametrize("command", ["table", "export", "baselines"])
def test_there_are_six_commands_and_no_other(capsys, command):
    assert "invalid choice" in refused(capsys, command) or "Unrecognized" in refused(capsys, command)


def test_an_unknown_field_is_refused_with_a_proposal(capsys):
    said = refused(capsys, "train", "--preset", "smoke", "--traning.steps", "3")
    assert "Unrecognized" in said and "--training.steps" in said


def test_help_of_train_explains_every_field(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["train", "--preset", "smoke", "--help"])
    said = capsys.readouterr().out
    assert stop.value.code == 0
    assert "--resume" in said and "--loss.kl-h" in said and "--data.image-size" in said


def test_train_and_evaluate_write_a_run(home, capsys):
    main(["train", *TINY, "--no-progress"])
    main(["evaluate", "--run", str(home / "runs" / "smoke"), "--n-slices", "4"])
    metrics = json.loads((home / "runs" / "smoke" / "metrics.json").read_text())
    assert metrics["made"]["versions"]["torch"]
    assert "unexplained variance" in capsys.readouterr().out
    moved = (home / "data" / "smoke").rename(home / "data" / "moved")
    assert "is not there; when they have moved" in refused(capsys, "evaluate", "--preset", "smoke")
    main(["evaluate", "--preset", "smoke", "--n-slices", "4", "--data.path", str(moved)])
    assert "unexplained variance" in capsys.readouterr().out


def test_a_run_that_is_not_there_is_one_sentence(tmp_path, capsys):
    assert "is no run" in refused(capsys, "evaluate", "--run", str(tmp_path / "nothing"))


def test_without_a_run_folder_that_of_the_preset_is_taken(home, capsys):
    assert f"{home / 'runs' / 'smoke'} is no run" in refused(capsys, "evaluate", "--preset", "smoke")


def failing(monkeypatch, error: BaseException):
    """A command line whose simulation fails so."""

    def fail(*_, **__):
        raise error

    monkeypatch.setattr("uvae_lib.simulation.simulate_suite", fail)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "/data"), "cannot use /data: Permission denied"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (BrokenProcessPool("A process in the process pool was terminated abruptly"), "taskset -c 0"),
        (ModuleNotFoundError("No module named 'jaxpm'", name="jaxpm"), "the package jaxpm is missing; install"),
        (MemoryError("Unable to allocate 8.00 GiB"), "Unable to allocate 8.00 GiB"),
        (ValueError("found 3 cubes; expected 4"), "found 3 cubes; expected 4"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_a_failure_that_can_be_foreseen_is_one_sentence(monkeypatch, capsys, error, said):
    failing(monkeypatch, error)
    refusal = refused(capsys, "simulate", "--preset", "smoke")
    assert refusal.startswith("error: ") and said in refusal and len(refusal.splitlines()) == 1


@pytest.mark.parametrize("error", [KeyError("mu"), IndexError("5"), ModuleNotFoundError("x", name="uvae_lib.x")])
def test_a_fault_of_the_code_keeps_its_traceback(monkeypatch, error):
    failing(monkeypatch, error)
    with pytest.raises(type(error)):
        main(["simulate", "--preset", "smoke"])


def test_ctrl_c_says_how_to_go_on_and_has_its_own_exit_code(monkeypatch, capsys):
    failing(monkeypatch, KeyboardInterrupt())
    with pytest.raises(SystemExit) as stop:
        main(["simulate", "--preset", "smoke"])
    assert stop.value.code == 130
    assert "the same command goes on" in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="whom permissions do not stop")
@pytest.mark.parametrize("command", ["simulate", "train"])
def test_a_read_only_folder_is_one_sentence(home, capsys, command):
    for folder in (home, home / "data" / "smoke"):
        folder.chmod(0o500)
    try:
        said = refused(capsys, command, *TINY, "--simulation.n-lh", "1")
    finally:
        for folder in (home, home / "data" / "smoke"):
            folder.chmod(0o700)
    assert said.startswith("error: ") and "Permission denied" in said.splitlines()[0]


def test_a_folder_that_cannot_be_made_is_one_sentence(home, capsys):
    (home / "a_file").write_text("")
    said = refused(capsys, "simulate", "--preset", "smoke", "--data.path", str(home / "a_file" / "cubes"))
    assert said.startswith("error: cannot use ") and len(said.splitlines()) == 1


@pytest.mark.parametrize("name", ["", "..", "a/b"])
def test_a_run_is_never_written_beside_the_runs(home, capsys, name):
    assert "expected the name of a folder in runs/" in refused(capsys, "train", *TINY, "--name", name)
    assert not (home / "runs").exists()


@pytest.fixture
def other_cubes(home, monkeypatch):
    """A run whose cubes are data/smoke, and cubes of another seed that UVAE_DATA names, in a folder of that name."""
    write_run(home / "runs" / "smoke", home / "data" / "smoke")
    monkeypatch.setenv("UVAE_DATA", str(lognormal_suite(home / "elsewhere" / "smoke", seed=1)))
    return home


def test_metrics_of_one_suite_are_not_printed_for_another_of_the_same_name(other_cubes, capsys):
    said = refused(capsys, "evaluate", "--run", str(other_cubes / "runs" / "smoke"))
    assert "holds other cubes than those that" in said and "or another run name" in said


def test_a_reader_that_has_enough_ends_a_command_without_a_word(home):
    command = f"{sys.executable} -m uvae_lib inspect {home / 'data' / 'smoke'} | head -1"
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True)
    assert done.returncode in (0, 141) and done.stderr == "" and len(done.stdout.splitlines()) == 1


def test_help_of_download_fetches_nothing(capsys, monkeypatch):
    monkeypatch.setattr("uvae_lib.cubes.download.fetch", lambda *_, **__: pytest.fail("something was fetched"))
    said = refused(capsys, "download", "cmd", "--grid", "128", "--fild", "Mcdm")
    assert "Unrecognized" in said
