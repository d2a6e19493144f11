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
import tokenize
import tomllib
import warnings
from dataclasses import fields, is_dataclass
from pathlib import Path

import nbformat
import numpy as np
import pytest
import yaml
from PIL import Image

from uvae_lib.model import UniverseVAE
from uvae_lib.presets import Config

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
NO_CODE = {getattr(tokenize, name) for name in "COMMENT NL NEWLINE INDENT DEDENT ENDMARKER".split()}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
MODULES = sorted((ROOT / "uvae_lib").rglob("*.py"))
TARGETS = ["help", "setup", "demo", "test", "lab", "explore", "notebooks", "figures", "results", "bench", "clean"]
CONDA_NAMES = {"torch": "pytorch-gpu"}
UNSAFE = r"allow_pickle\s*=\s*True|weights_only\s*=\s*False|\.cuda\(|import pickle"
ONE_MACHINE = r"(?<![\w.])/(?:home|Users|root|work|tmp|opt)/\S*|\b0x[0-9a-f]{8,}"

LIBRARY = ROOT / "uvae_lib"
FLOORS = [  # each stands on those before it; within a floor imports run in no circle
    {"model", "loss", "cropping", "statistics", "presets", "files", "cubes", "simulation"},
    {"runs", "plots"},
    {"training", "generation"},
    {"explore"},
    {"analysis"},
    {"__main__"},
]
BUDGETS = {  # lines of code, without docstrings, comments and blank lines; a cut may lower one, nothing raises one
    ".": 5680,
    "cubes": 925,
    "analysis": 800,
    "plots": 600,
    "explore": 650,
    "training generation": 1000,
}
ROOT_FILES, LINES_A_FILE, FIELDS, FACE = 9, 350, 40, 10
EXTRA_OF_ROOM = {"simulation": "simulate", "explore": "notebooks"}  # what further rooms may import
DISTRIBUTIONS = {"PIL": "pillow", "sklearn": "scikit-learn"}  # where the name of the import is another
OPTIONAL = {"hdf5plugin", "IPython"}  # imported where they are

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
    asked = PROJECT["dependencies"] + PROJECT["optional-dependencies"]["notebooks"]
    split = [re.match(r"([A-Za-z0-9_-]+)(.*)", line).groups() for line in asked]
    expected = {CONDA_NAMES.get(name, name) + version for name, version in split}
    expected |= {f"python{PROJECT['requires-python']}", "pip"}
    assert {line for line in conda if isinstance(line, str)} == expected


def test_environment_yml_takes_the_extras_by_pip():
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert [line for line in conda if isinstance(line, dict)] == [{"pip": ["-e .[dev]"]}]


def declared(*extras: str) -> set[str]:
    """Names of the distributions that the project asks for, with some of its extras."""
    lines = PROJECT["dependencies"] + [line for extra in extras for line in PROJECT["optional-dependencies"][extra]]
    return {re.match(r"[A-Za-z0-9_-]+", line)[0] for line in lines}


@each_module
def test_a_module_imports_what_the_project_asks_for_and_nothing_else(path):
    tree = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    nodes = [node for node in tree if isinstance(node, ast.Import | ast.ImportFrom)]
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    others = plain | {node.module for node in nodes if isinstance(node, ast.ImportFrom) and not node.level}
    found = {name.split(".")[0] for name in others} - sys.stdlib_module_names - OPTIONAL
    extra = [EXTRA_OF_ROOM[room(path)]] if room(path) in EXTRA_OF_ROOM else []
    assert {DISTRIBUTIONS.get(name, name) for name in found} <= declared(*extra)


def test_the_newest_version_of_the_changelog_is_the_project_s():
    versions = re.findall(r"^## (\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert versions[0] == PROJECT["version"]


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
    unix = r"^ *(?:import|from) (?:fcntl|grp|pwd|resource|termios|pty)\b|\bos\.(?:fork|killpg|setsid|geteuid)\b"
    for path in [*LIBRARY.rglob("*.py"), ROOT / "notebooks" / "run.py"]:
        assert not re.findall(unix, path.read_text(encoding="utf-8"), re.M), path


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


def lines_of_code(path: Path) -> int:
    """Lines of a module that hold a token which is no comment, no docstring, no text below a field."""
    source = path.read_text(encoding="utf-8")
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in NO_CODE:
            lines |= set(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        inside = getattr(node, "body", []) if isinstance(node, DOCUMENTED) else []
        for statement in inside if isinstance(node, ast.ClassDef) else inside[:1]:
            if isinstance(statement, ast.Expr) and isinstance(getattr(statement.value, "value", None), str):
                lines -= set(range(statement.lineno, statement.end_lineno + 1))
    return len(lines)


@pytest.mark.parametrize("rooms", BUDGETS)
def test_the_code_keeps_its_budget(rooms):
    used = sum(lines_of_code(path) for name in rooms.split() for path in (LIBRARY / name).rglob("*.py"))
    assert used <= BUDGETS[rooms], f"{used} lines of code; cut some, the budget stays"


def test_text_and_comments_are_not_counted_as_code(tmp_path):
    (tmp_path / "a.py").write_text(
        '"""Text."""\n\n# words\nclass A:\n    """Text\n    more."""\n    x = 1\n    """x"""\n'
    )
    assert lines_of_code(tmp_path / "a.py") == 2


def test_the_root_holds_few_files():
    assert len(list(LIBRARY.glob("*.py"))) <= ROOT_FILES


@each_module
def test_a_file_is_short_enough_to_be_read(path):
    n = len(path.read_text(encoding="utf-8").splitlines())
    assert n <= LINES_A_FILE


def test_the_configuration_has_few_fields():
    def leaves(config) -> int:
        values = [getattr(config, f.name) for f in fields(config)]
        return sum(leaves(value) if is_dataclass(value) else 1 for value in values)

    n = leaves(Config())
    assert n <= FIELDS


@pytest.mark.parametrize("path", sorted(LIBRARY.glob("*/__init__.py")), ids=lambda path: path.parent.name)
def test_the_face_of_a_room_only_hands_names_on(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kinds = (ast.ImportFrom, ast.Assign, ast.Expr)
    assert lines_of_code(path) <= FACE and all(isinstance(node, kinds) for node in tree.body)


def used_variables() -> set[str]:
    """Environment variables that the library, its notebooks and the tests' settings read or set."""
    places = [*MODULES, *(ROOT / "notebooks").glob("*.ipynb"), ROOT / "tests" / "conftest.py"]
    pattern = r"environ(?:\.(?:get|setdefault)\(|\[)\\?[\"'](\w+)|\\?[\"'](\w+)\\?[\"'] in os\.environ"
    found = [name for path in places for name in re.findall(pattern, path.read_text(encoding="utf-8"))]
    return {a or b for a, b in found} - {"PYTEST_XDIST_WORKER", "OMP_NUM_THREADS"}


def test_the_table_of_environment_variables_lists_those_that_the_code_uses():
    listed = re.findall(r"^\| `(\w+)`", (ROOT / "docs" / "install.md").read_text(encoding="utf-8"), re.M)
    assert set(listed) == used_variables() and len(listed) == len(set(listed))


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", *sorted(p.name for p in (ROOT / "docs").glob("*.md"))]
)
def test_a_page_names_no_variable_that_nothing_reads(page):
    path = ROOT / page if (ROOT / page).exists() else ROOT / "docs" / page
    assert set(re.findall(r"UVAE_[A-Z_]+", path.read_text(encoding="utf-8"))) <= used_variables()


@each_module
def test_every_public_name_says_what_it_is(path):
    body = ast.parse(path.read_text(encoding="utf-8")).body
    public = [node for node in body if isinstance(node, DOCUMENTED[1:]) and not node.name.startswith("_")]
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


def test_the_readme_is_short():
    words = re.sub(r"```.*?```|<!--.*?-->|\]\([^)]*\)|[|#*`\[\]]", " ", (ROOT / "README.md").read_text(), flags=re.S)
    assert len(words.split()) <= 700


def test_the_readme_links_every_page_of_docs():
    text = (ROOT / "README.md").read_text()
    assert not [path.name for path in (ROOT / "docs").glob("*.md") if f"](docs/{path.name})" not in text]


def test_the_readme_shows_every_command():
    parts = [
        node for node in ast.parse((LIBRARY / "__main__.py").read_text()).body if isinstance(node, ast.FunctionDef)
    ]
    commands = {node.name.replace("_", "-") for node in parts if not node.name.startswith("_")} - {"main"}
    shown = set(re.findall(r"python -m uvae_lib ([a-z-]+)", (ROOT / "README.md").read_text()))
    assert commands == shown


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
