"""The notebooks on cubes as people bring them: what these are too few for, or lack, is left out with a sentence."""

import json
from pathlib import Path

import numpy as np
import pytest
from suites import lognormal_suite

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("[0-9]*.ipynb"))
assert len(NOTEBOOKS) == 8


def plain(folder: Path, n: int) -> str:
    """Cubes without parameters in one file; returns its path."""
    (file,) = lognormal_suite(folder, n).glob("Grids*")
    (folder / "params_LH_IllustrisTNG.txt").unlink()
    return str(file.rename(folder / "cubes.npy"))


def maps(folder: Path) -> str:
    """Ready-made maps of six universes."""
    (file,) = lognormal_suite(folder, 6).glob("Grids*")
    np.save(folder / "Maps_Mcdm_IllustrisTNG_LH_z=0.00.npy", np.load(file)[:, ::2][:, :15].reshape(-1, 32, 32))
    file.unlink()
    return str(folder)


CUBES = {"four cubes without parameters": (plain, 4), "maps": (maps,)}


@pytest.mark.parametrize("name", CUBES)
def test_all_notebooks_end_well(name, tmp_path, monkeypatch, capsys):
    make, *arguments = CUBES[name]
    monkeypatch.setenv("UVAE_HOME", str(tmp_path))
    monkeypatch.setenv("UVAE_PRESET", "smoke")
    monkeypatch.setenv("UVAE_DATA", make(tmp_path / "data", *arguments))
    monkeypatch.setenv("UVAE_OPTIONS", "--data.box-size 32 --data.field-type overdensity")
    monkeypatch.setenv("TQDM_DISABLE", "1")
    for notebook in NOTEBOOKS:
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        scope = {}
        for number, cell in enumerate(cells):
            if cell["cell_type"] == "code":
                exec(compile("".join(cell["source"]), f"{notebook.name}, cell {number}", "exec"), scope)
