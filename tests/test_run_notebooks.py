"""notebooks/run.py: what it keeps, what it says, and that a failure leaves a notebook as it was."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import nbformat
import psutil
import pytest
from suites import lognormal_suite

DRIVER = Path(__file__).resolve().parents[1] / "notebooks" / "run.py"
WIDGETS_AND_PICTURE = """
import matplotlib.pyplot as plt
import ipywidgets
print("first", flush=True)
plt.plot([0, 1], [1, 0])
plt.show()
print("last")
ipywidgets.IntSlider()
"""


def write(path, *sources):
    """A notebook of these code cells."""
    cells = [nbformat.v4.new_code_cell(source, id=f"cell-{i}") for i, source in enumerate(sources)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    return path


def drive(folder, *arguments, **env):
    """Run the driver as a user does; its failures go below `folder`."""
    command = [sys.executable, DRIVER, "--failed", folder / "failed", *arguments]
    clean = {k: v for k, v in os.environ.items() if not k.startswith("UVAE_")}
    return subprocess.run(command, env=clean | {"UVAE_PRESET": "smoke"} | env, capture_output=True, text=True)


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory):
    """One notebook run twice, with MPLBACKEND=Agg, which hides pictures: (first, second, page, log)."""
    folder = tmp_path_factory.mktemp("two_runs")
    path = write(folder / "widgets.ipynb", WIDGETS_AND_PICTURE)
    first = drive(folder, "--out", folder / "a", "--html", folder / "pages", path, MPLBACKEND="Agg")
    assert first.returncode == 0, first.stdout + first.stderr
    second = drive(folder, "--out", folder / "b", path, MPLBACKEND="Agg")
    assert second.returncode == 0, second.stdout + second.stderr
    return folder / "a" / path.name, folder / "b" / path.name, folder / "pages" / "widgets.html", first.stdout


def test_two_runs_of_a_notebook_are_byte_equal(two_runs):
    first, second, _, _ = two_runs
    assert first.read_bytes() == second.read_bytes()


def test_pictures_are_kept_and_widget_state_is_not(two_runs):
    nb = nbformat.read(two_runs[0], as_version=4)
    kinds = {kind for output in nb.cells[0].outputs for kind in output.get("data", {})}
    assert kinds == {"image/png", "text/plain"}
    assert "widgets" not in nb.metadata


def test_the_notebook_says_what_made_it(two_runs):
    nb = nbformat.read(two_runs[0], as_version=4)
    assert nb.metadata.uvae.keys() == {"preset", "source_sha", "commit"}
    assert nb.metadata.uvae.preset == "smoke"
    assert len(nb.metadata.uvae.source_sha) == 16


def test_the_page_holds_the_picture(two_runs):
    assert "data:image/webp;base64," in two_runs[2].read_text()


@pytest.fixture(scope="module")
def moving_page(tmp_path_factory):
    """A notebook with an explorer, run for pages: (notebook, page)."""
    folder = tmp_path_factory.mktemp("moving_page")
    suite = lognormal_suite(folder / "data")
    opened = f"open_cubes({str(suite)!r}, box_size=32.0)"
    source = f"from uvae_lib import open_cubes, widgets\nwidgets.SliceExplorer({opened})"
    path = write(folder / "slices.ipynb", source)
    result = drive(folder, "--out", folder / "out", "--html", folder / "pages", path)
    assert result.returncode == 0, result.stdout + result.stderr
    return folder / "out" / "slices.ipynb", folder / "pages" / "slices.html"


def test_explorers_move_on_a_page_and_are_stills_in_the_notebook(moving_page):
    notebook, page = moving_page
    kinds = {kind for output in nbformat.read(notebook, as_version=4).cells[0].outputs for kind in output.data}
    assert kinds == {"image/png", "text/plain"}
    assert '<div class="uvae-page">' in page.read_text() and page.stat().st_size < 5e6


@pytest.mark.browser
def test_the_sliders_of_a_page_move_from_a_file(moving_page, page):
    page.goto(moving_page[1].as_uri())
    image = page.locator(".uvae-page img")
    first = image.get_attribute("src")
    page.locator(".uvae-page input").first.focus()
    page.keyboard.press("ArrowRight")
    assert image.get_attribute("src") != first


def test_progress_names_each_cell(two_runs):
    assert "cell  1/1  import matplotlib.pyplot as plt" in two_runs[3]
    assert "1 passed, 0 failed" in two_runs[3]


@pytest.fixture(scope="module")
def failed_run(tmp_path_factory):
    """Three notebooks run in place; the second fails in its second cell: (folder, bytes before, result)."""
    folder = tmp_path_factory.mktemp("failed_run")
    write(folder / "01.ipynb", "6 * 7")
    write(folder / "02.ipynb", "a = 1", "b = 'telling line'\na / 0", "print('never reached')")
    write(folder / "03.ipynb", "open('03_was_here', 'w')")
    paths = sorted(folder.glob("*.ipynb"))
    before = {path.name: path.read_bytes() for path in paths}
    return folder, before, drive(folder, "--inplace", *paths)


def test_the_cell_that_fails_is_shown_with_its_source_and_error(failed_run):
    _, _, result = failed_run
    assert result.returncode == 1
    assert "cell 2 of 3: " in result.stdout and "\nb = 'telling line'\na / 0\n" in result.stdout
    assert "ZeroDivisionError: division by zero" in result.stdout
    assert "\x1b" not in result.stdout


def test_a_notebook_that_fails_stays_as_it_was(failed_run):
    folder, before, _ = failed_run
    assert (folder / "02.ipynb").read_bytes() == before["02.ipynb"]


def test_the_outputs_before_a_failure_are_kept_elsewhere(failed_run):
    folder, _, _ = failed_run
    nb = nbformat.read(folder / "failed" / "02.ipynb", as_version=4)
    assert [cell.execution_count for cell in nb.cells] == [1, 2, None]


def test_notebooks_before_a_failure_are_written_and_those_after_it_not_run(failed_run):
    folder, before, result = failed_run
    assert nbformat.read(folder / "01.ipynb", as_version=4).cells[0].outputs[0].data["text/plain"] == "42"
    assert (folder / "03.ipynb").read_bytes() == before["03.ipynb"]
    assert not (folder / "03_was_here").exists()
    assert result.stderr.endswith("1 passed, 1 failed, 1 not run\n")


def test_a_cell_past_the_time_limit_is_named(tmp_path):
    path = write(tmp_path / "slow.ipynb", "import time\ntime.sleep(60)")
    result = drive(tmp_path, "--timeout", "1", "--out", tmp_path / "out", path)
    assert result.returncode == 1
    assert "cell 1 of 1: A cell timed out while it was being executed, after 1 seconds" in result.stdout


def test_a_kernel_that_dies_is_named(tmp_path):
    path = write(tmp_path / "dies.ipynb", "import os\nos._exit(1)")
    result = drive(tmp_path, "--out", tmp_path / "out", path)
    assert result.returncode == 1
    assert "cell 1 of 1: Kernel died" in result.stdout


def test_an_interrupt_leaves_neither_a_kernel_nor_a_changed_notebook(tmp_path):
    path = write(tmp_path / "slow.ipynb", "import time\ntime.sleep(60)")
    before = path.read_bytes()
    command = [sys.executable, DRIVER, "--inplace", "--failed", tmp_path / "failed", path]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.readline(), process.stdout.read(len("  cell "))
    kernels = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted" in errors
    assert kernels
    assert not [kernel for kernel in kernels if kernel.is_running() and kernel.status() != psutil.STATUS_ZOMBIE]
    assert path.read_bytes() == before


def test_a_preset_that_does_not_exist_is_refused(tmp_path):
    result = drive(tmp_path, write(tmp_path / "a.ipynb", "1"), UVAE_PRESET="fast")
    assert result.returncode == 1
    assert 'found preset "fast"; expected one of' in result.stderr


def test_a_notebook_that_does_not_exist_is_refused(tmp_path):
    result = drive(tmp_path, tmp_path / "none.ipynb")
    assert result.returncode == 1
    assert "found no" in result.stderr
