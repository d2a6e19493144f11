"""The command line, as a stranger meets it."""

import json

import pytest
from suites import lognormal_suite

from uvae_lib.__main__ import main

TINY = [
    "--preset", "smoke", "--training.steps", "2", "--training.val-every", "2", "--training.log-every", "1",
    "--training.save-every", "2",
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
    assert "expected one of simulate, train, evaluate" in refused(capsys, "trian")


def test_an_unknown_preset_is_refused(capsys):
    assert 'found preset "dmeo"; expected one of smoke, demo' in refused(capsys, "train", "--preset", "dmeo")


def test_an_unknown_field_is_refused_with_a_proposal(capsys):
    said = refused(capsys, "train", "--preset", "smoke", "--traning.steps", "3")
    assert "Unrecognized" in said and "--training.steps" in said


def test_help_of_train_explains_every_field(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["train", "--preset", "smoke", "--help"])
    said = capsys.readouterr().out
    assert stop.value.code == 0
    assert "--resume" in said and "--loss.kl-h" in said and "--data.image-size" in said


def test_devices_and_nodes_have_short_names(capsys):
    long, short = (
        refused(capsys, "train", "--preset", "smoke", f"--{part}devices=x", f"--{part}num-nodes", "y")
        for part in ("training.", "")
    )
    assert "--training.devices" in long and short == long


def test_table_prints_the_networks_as_the_note_does(capsys):
    main(["table", "--preset", "demo"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("|")[2].split() + line.split("|")[3].split() for line in lines[2:]] == [
        ["ResNet", "11", "M"], ["DeepSet", "279", "K"], ["DecoderH", "11", "M"], ["DecoderZ", "214", "K"],
    ]  # fmt: skip


def test_train_and_evaluate_write_a_run(home, capsys):
    main(["train", *TINY, "--no-progress"])
    main(["evaluate", "--run", str(home / "runs" / "smoke"), "--n-slices", "4"])
    metrics = json.loads((home / "runs" / "smoke" / "metrics.json").read_text())
    assert metrics["made"]["versions"]["torch"]
    assert (home / "runs" / "smoke" / "figures" / "reconstructions.png").stat().st_size > 10_000
    assert "FVU / PCA-512" in capsys.readouterr().out


def test_a_run_that_is_not_there_is_one_sentence(tmp_path, capsys):
    assert "is no run" in refused(capsys, "evaluate", "--run", str(tmp_path / "nothing"))
