"""Fixtures for all tests.

A test that drives the browser is marked `browser` and needs Chromium; without it the test is skipped, or fails
when UVAE_REQUIRE_BROWSER=1.
"""

import importlib.util
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings
from live_lab import CHROMIUM_FLAGS, find_chromium, jupyter_lab

if "PYTEST_XDIST_WORKER" in os.environ:  # before torch starts: one thread a worker, none waits for another
    os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile("busy machine", deadline=None)
settings.load_profile("busy machine")
ROOT = Path(__file__).resolve().parents[1]
LONGEST = ("notebooks", "test_resume", "test_distributed", "test_model", "test_run_notebooks", "test_simulate")


class NotebooksInTurn:
    """Notebooks stand on each other's runs: after a cell that fails no other is run."""

    failed = ""

    def pytest_runtest_logreport(self, report):
        if report.failed and ".ipynb::" in report.nodeid:
            self.failed = self.failed or report.nodeid

    def pytest_runtest_setup(self, item):
        if self.failed and ".ipynb::" in item.nodeid:
            pytest.skip(f"after {self.failed}")


def pytest_configure(config):
    config.pluginmanager.register(NotebooksInTurn())


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """With several worker processes a file is one piece of work, and so are all notebooks together."""
    from xdist.scheduler import LoadFileScheduling

    class NotebooksTogether(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return "notebooks" if file.endswith(".ipynb") else file

    return NotebooksTogether(config, log)


def pytest_collection_modifyitems(items):
    """What takes longest goes first, so that no worker process is left alone with it."""
    order = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.stem, 0 if item.path.suffix == ".ipynb" else len(order)))


def pytest_runtest_setup(item):
    """Skip or fail tests of the browser where there is none, before their fixtures start anything."""
    if item.get_closest_marker("browser") is None:
        return
    if find_chromium() and importlib.util.find_spec("playwright"):
        return
    sentence = "no Chromium, or no playwright, to drive JupyterLab with (Debian: apt-get install chromium)"
    if os.environ.get("UVAE_REQUIRE_BROWSER") == "1":
        pytest.fail(f"{sentence}, and UVAE_REQUIRE_BROWSER=1", pytrace=False)
    pytest.skip(sentence)


@pytest.fixture(scope="session")
def made_once(tmp_path_factory) -> Callable:
    """made_once(name, make) is make(folder), in a folder that all modules and worker processes of a session share.

    The first to come makes it; `make` has to find and return what is there when it is called again.
    """
    from filelock import FileLock

    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def call(name: str, make: Callable):
        with FileLock(base / f"{name}.lock"):
            return make(base / name)

    return call


@pytest.fixture(scope="session")
def lab(tmp_path_factory):
    """JupyterLab on a folder with a copy of notebooks/, which so has its own data/, runs/ and figures/."""
    folder = tmp_path_factory.mktemp("lab")
    hidden = shutil.ignore_patterns(".*", "__pycache__")
    shutil.copytree(ROOT / "notebooks", folder / "notebooks", ignore=hidden)
    with jupyter_lab(folder, tmp_path_factory.mktemp("lab_server")) as server:
        yield server


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium that reaches this machine only.

    One a module, not one a session: while it lives, nothing else in this process can run an asyncio loop.
    """
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=find_chromium(), args=CHROMIUM_FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser, request):
    """A fresh page, 1200 x 1000. What it shows at the end is kept as build/screenshots/<test>.png."""
    context = browser.new_context(viewport={"width": 1200, "height": 1000})
    page = context.new_page()
    page.set_default_timeout(60_000)
    yield page
    page.screenshot(path=ROOT / "build" / "screenshots" / f"{request.node.name}.png")
    context.close()
