"""What holds of the repository itself: its lists agree, and its stored notebooks are real runs."""

import ast
import base64
import graphlib
import io
import json
import os
import re
import runpy
import subprocess
import sys
import tomllib
import warnings
from pathlib import Path

import nbformat
import numpy as np
import pytest
import yaml
from PIL import Image

from uvae_lib.model import UniverseVAE

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
MODULES = sorted((ROOT / "uvae_lib").rglob("*.py"))
TARGETS = ["help", "setup", "demo", "test", "lab", "explore", "notebooks", "figures", "results", "bench", "clean"]
CONDA_NAMES = {"torch": "pytorch-gpu"}
UNSAFE = r"allow_pickle\s*=\s*True|weights_only\s*=\s*False|\.cuda\(|import pickle"
ONE_MACHINE = r"(?<![\w.])/(?:home|Users|root|work|tmp|opt)/\S*|\b0x[0-9a-f]{8,}"

LIBRARY = ROOT / "uvae_lib"
FLOORS = [  # each stands on those before it; within a floor imports run in no circle
    {"model", "loss", "cropping", "statistics", "presets", "files", "cubes", "simulation", "variants"},
    {"runs", "plots", "training", "generation"},
    {"explore"},
    {"analysis"},
    {"__main__"},
]

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
each_module = pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)


def code_cells(path):
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def outputs(path):
    return [output for cell in code_cells(path) for output in cell.outputs]


def pictures(path):
    """Every PNG that the notebook shows, as grey values (rows, columns)."""
    encoded = [output.data["image/png"] for output in outputs(path) if "image/png" in output.get("data", {})]
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(png))).convert("L"), float) for png in encoded]


def texts(path):
    """Every text that the notebook shows: code, printed lines, values."""
    values = [item for output in outputs(path) for item in output.get("data", {}).items()]
    shown = [json.dumps(value) for kind, value in values if not kind.startswith("image/")]
    return shown + [output.get("text", "") for output in outputs(path)] + [c.source for c in code_cells(path)]


def test_environment_yml_asks_for_what_pyproject_asks():
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    split = [re.match(r"([A-Za-z0-9_-]+)(.*)", line).groups() for line in PROJECT["dependencies"]]
    expected = {CONDA_NAMES.get(name, name) + version for name, version in split}
    expected |= {f"python{PROJECT['requires-python']}", "pip"}
    assert {line for line in conda if isinstance(line, str)} == expected


def test_environment_yml_takes_the_extras_by_pip():
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert [line for line in conda if isinstance(line, dict)] == [{"pip": ["-e .[dev]"]}]


def test_citation_names_the_version_and_licence_of_the_project():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (str(citation["version"]), citation["license"]) == (PROJECT["version"], PROJECT["license"])


def run_make(*words):
    """make as a user starts it, though these tests may run under `make test`, whose variables make would pass on."""
    clean = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    return subprocess.run(["make", *words], cwd=ROOT, env=clean, capture_output=True, text=True)


@pytest.mark.parametrize("target", TARGETS)
def test_make_knows_its_target(target):
    made = run_make("-n", target)
    assert made.returncode == 0, made.stderr


def test_make_leaves_an_environment_of_ones_own_alone():
    made = run_make("setup", f"PY={sys.executable}")
    assert (made.returncode, made.stdout) == (0, "")


def test_make_help_lists_every_target():
    listed = run_make().stdout
    assert re.findall(r"^  make (\S+)", listed, re.M) == TARGETS


@pytest.mark.parametrize("name", ["data", "runs", "figures", "build", ".venv"])
def test_git_ignores_what_is_made_even_where_it_is_a_link(name):
    assert f"/{name}" in (ROOT / ".gitignore").read_text().splitlines()


def room(path: Path) -> str:
    """The root file or the folder that a module belongs to."""
    return path.relative_to(LIBRARY).with_suffix("").parts[0]


def imported(path: Path) -> set[str]:
    """The modules of the library that a module imports, anywhere in it, by their dotted names."""
    package, found = list(path.relative_to(LIBRARY).parts[:-1]), set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1] + (node.module.split(".") if node.module else [])
            names = [[*base, alias.name] for alias in node.names]
            modules = [name if _is_module(name) else base for name in names]
            found |= {".".join(name) for name in modules}
    return found


def _is_module(name: list[str]) -> bool:
    place = LIBRARY.joinpath(*name)
    return place.is_dir() or place.with_suffix(".py").exists()


def test_imports_run_one_way():
    floor = {name: i for i, names in enumerate(FLOORS) for name in names}
    arrows = {
        (room(path), name.split(".")[0]) for path in MODULES if room(path) != "__init__" for name in imported(path)
    }
    assert not {(a, b) for a, b in arrows if floor[a] < floor[b]}


def test_no_module_needs_what_only_unix_has():
    """Such modules are imported where a system without them is thought of."""
    unix = r"^ *(?:import|from) (?:fcntl|grp|pwd|resource|termios|pty)\b|\bos\.(?:fork|killpg|setsid|geteuid)\b"
    for path in [*LIBRARY.rglob("*.py"), ROOT / "notebooks" / "run.py"]:
        text = re.sub(r"^try:\n(?: .*\n)+except ImportError", "", path.read_text(encoding="utf-8"), flags=re.M)
        assert not re.findall(unix, text, re.M), path


def test_no_circle_of_imports():
    names = [".".join(path.relative_to(LIBRARY).with_suffix("").parts).removesuffix(".__init__") for path in MODULES]
    graph = {name: imported(path) - {name} for name, path in zip(names, MODULES, strict=True)}
    assert list(graphlib.TopologicalSorter(graph).static_order())


def test_no_root_file_but_the_command_line_imports_the_analysis():
    roots = [path for path in LIBRARY.glob("*.py") if path.stem != "__main__"]
    assert not {path.stem for path in roots for name in imported(path) if name.split(".")[0] == "analysis"}


def test_the_rooms_and_root_files_are_those_of_the_plan():
    found = {path.stem if path.is_file() else path.name for path in LIBRARY.iterdir() if not path.name.startswith("__")}
    assert found <= set.union(*FLOORS)


@each_module
def test_every_public_function_and_class_says_what_it_does(path):
    body = ast.parse(path.read_text(encoding="utf-8")).body
    public = [n for n in body if isinstance(n, ast.FunctionDef | ast.ClassDef) and not n.name.startswith("_")]
    assert not {node.name for node in public if not ast.get_docstring(node)}


def test_the_model_has_the_four_networks_of_the_note_and_no_other():
    found = {name.split(".")[0] for name in UniverseVAE().state_dict()}
    assert found == {"encoder", "deep_set", "decoder_z", "decoder_h"}


@each_module
def test_the_library_never_unpickles_and_never_names_a_device(path):
    assert not re.findall(UNSAFE, path.read_text())


@each_notebook
def test_the_readme_links_the_notebook(path):
    assert f"](notebooks/{path.name}" in (ROOT / "README.md").read_text()


def test_the_readme_links_no_file_that_is_not_there():
    linked = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", (ROOT / "README.md").read_text())
    assert not [name for name in linked if not (ROOT / name).exists()]


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
    assert not [o for o in outputs(path) if o.output_type == "error" or o.get("name") == "stderr"]


@each_notebook
def test_the_notebook_holds_no_widget_state(path):
    assert "widgets" not in nbformat.read(path, as_version=4).metadata
    assert not [kind for o in outputs(path) for kind in o.get("data", {}) if "widget" in kind]


@each_notebook
def test_the_notebook_names_no_place_of_one_machine(path):
    assert not [found for text in texts(path) for found in re.findall(ONE_MACHINE, text)]


@each_notebook
def test_the_notebook_has_pictures_and_none_is_blank(path):
    contrasts = [picture.std() for picture in pictures(path)]
    assert contrasts
    assert min(contrasts) > 3


@each_notebook
def test_the_notebook_is_small_enough_to_read_on_the_web(path):
    assert path.stat().st_size < 4e6
