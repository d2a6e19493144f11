"""What holds of the repository itself: its lists agree with each other, and its stored notebooks are real runs."""

import base64
import io
import json
import re
import runpy
import subprocess
import tomllib
import warnings
from pathlib import Path

import nbformat
import numpy as np
import pytest
import yaml
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
TARGETS = ["help", "setup", "demo", "test", "lab", "notebooks", "figures", "explore", "bench", "clean"]
CONDA_NAMES = {"torch": "pytorch-gpu"}

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
each_module = pytest.mark.parametrize(
    "path", sorted((ROOT / "uvae_lib").rglob("*.py")), ids=lambda path: path.stem
)


def code_cells(path):
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def outputs(path):
    return [output for cell in code_cells(path) for output in cell.outputs]


def pictures(path):
    return [
        np.asarray(
            Image.open(io.BytesIO(base64.b64decode(output.data["image/png"]))).convert("L"), dtype=float
        )
        for output in outputs(path)
        if "image/png" in output.get("data", {})
    ]


def test_environment_yml_asks_for_what_pyproject_asks():
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    split = [re.match(r"([A-Za-z0-9_-]+)(.*)", line).groups() for line in PROJECT["dependencies"]]
    expected = {CONDA_NAMES.get(name, name) + version for name, version in split}
    assert {line for line in conda if isinstance(line, str)} == expected | {
        f"python{PROJECT['requires-python']}",
        "pip",
    }


def test_environment_yml_takes_the_extras_by_pip():
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert [line for line in conda if isinstance(line, dict)] == [{"pip": ["-e .[dev]"]}]


def test_citation_names_the_version_and_licence_of_the_project():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (str(citation["version"]), citation["license"]) == (PROJECT["version"], PROJECT["license"])


@pytest.mark.parametrize("target", TARGETS)
def test_make_knows_its_target(target):
    made = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr


def test_make_help_lists_every_target():
    listed = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True).stdout
    assert re.findall(r"^  make (\S+)", listed, re.M) == TARGETS


@pytest.mark.parametrize("name", ["data", "runs", "figures", "build", ".venv"])
def test_git_ignores_what_is_made_even_where_it_is_a_link(name):
    assert f"/{name}" in (ROOT / ".gitignore").read_text().splitlines()


@each_module
def test_the_library_never_unpickles_and_never_names_a_device(path):
    found = re.findall(
        r"allow_pickle\s*=\s*True|weights_only\s*=\s*False|\.cuda\(|import pickle", path.read_text()
    )
    assert not found, f"{path.name}: {found}"


@each_notebook
def test_the_readme_links_the_notebook(path):
    assert f"](notebooks/{path.name})" in (ROOT / "README.md").read_text()


def test_the_readme_names_no_file_that_is_not_there():
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", (ROOT / "README.md").read_text())
    assert not [target for target in targets if not (ROOT / target).exists()]


@each_notebook
def test_the_notebook_is_valid(path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert nbformat.validate(json.loads(path.read_text())) is None


@each_notebook
def test_the_notebook_is_one_run_from_top_to_bottom(path):
    counts = [cell.execution_count for cell in code_cells(path) if cell.source.strip()]
    assert counts == list(range(1, len(counts) + 1)), "run `make notebooks`"


@each_notebook
def test_the_notebook_shows_the_cells_that_ran(path):
    source_sha = runpy.run_path(str(ROOT / "notebooks" / "run.py"))["source_sha"]
    nb = nbformat.read(path, as_version=4)
    assert nb.metadata.uvae.source_sha == source_sha(nb), "cells were edited after the run: `make notebooks`"


@each_notebook
def test_the_notebook_holds_no_error_and_no_warning(path):
    wrong = [o for o in outputs(path) if o.output_type == "error" or o.get("name") == "stderr"]
    assert not wrong


@each_notebook
def test_the_notebook_holds_no_widget_state(path):
    assert "widgets" not in nbformat.read(path, as_version=4).metadata
    assert not [o for o in outputs(path) if any("widget" in kind for kind in o.get("data", {}))]


@each_notebook
def test_the_notebook_names_no_place_of_one_machine(path):
    texts = [
        json.dumps({k: v for k, v in o.get("data", {}).items() if not k.startswith("image/")})
        for o in outputs(path)
    ]
    texts += [o.get("text", "") for o in outputs(path)] + [cell.source for cell in code_cells(path)]
    found = [
        re.findall(r"(?<![\w.])/(?:home|Users|root|work|tmp|opt)/\S*|0x[0-9a-f]{8,}", text) for text in texts
    ]
    assert not sum(found, [])


@each_notebook
def test_the_notebook_has_pictures_and_none_is_blank(path):
    assert pictures(path)
    assert min(picture.std() for picture in pictures(path)) > 3


@each_notebook
def test_the_notebook_is_small_enough_to_read_on_the_web(path):
    assert path.stat().st_size < 1.5e6
