"""The README as a stranger takes it: its snippet runs as it stands."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.skipif(not (ROOT / "weights" / "note").is_dir(), reason="no weights are shipped yet")
def test_the_snippet_runs_as_it_stands_and_finds_the_cosmology(tmp_path):
    pytest.importorskip("jaxpm")
    section = README.partition("## In five lines")[2]
    command = re.search(r"```console\npython (.*?)\n```", section, re.S)[1]
    snippet = re.search(r"```python\n(.*?)```", section, re.S)[1]
    (tmp_path / "weights").symlink_to(ROOT / "weights")
    environment = os.environ | {"UVAE_HOME": str(tmp_path), "PYTHONPATH": str(ROOT), "TQDM_DISABLE": "1"}
    for name in ("UVAE_DATA", "UVAE_PRESET", "UVAE_OPTIONS"):
        environment.pop(name, None)
    for words in (shlex.split(command), ["-c", f"{snippet}\nprint(*theta.mean(dim=0).tolist())"]):
        done = subprocess.run(
            [sys.executable, *words], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
    omega_m = float(re.search(r"'Omega_m': ([\d.]+)", done.stdout)[1])
    assert abs(float(done.stdout.split()[-2]) - omega_m) < 0.12
