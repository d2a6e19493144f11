"""A real JupyterLab and a real browser for tests: starting the one, driving the other.

The fixtures `lab`, `browser` and `page` in conftest.py stand on these functions.
"""

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-default-apps",
    "--disable-dev-shm-usage",
    "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
]
SETTINGS = {
    "@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    # Cells out of view must be in the page to be found.
    "@jupyterlab/notebook-extension/tracker": {"windowingMode": "none"},
}
KERNEL_IS_IDLE = """() =>
    window.jupyterapp?.shell?.currentWidget?.context?.sessionContext?.session?.kernel?.status === 'idle'"""
RUN_ALL = """() => {
    window.ran = false;
    window.jupyterapp.commands.execute('notebook:run-all-cells').finally(() => { window.ran = true; }); }"""
COUNTS_AND_ERRORS = """() => window.jupyterapp.shell.currentWidget.content.widgets
    .filter(cell => cell.model.type === 'code' && cell.model.sharedModel.source.trim())
    .map(cell => [cell.model.executionCount, cell.model.outputs.toJSON()
        .filter(output => output.output_type === 'error')
        .map(output => output.ename + ': ' + output.evalue)])"""


@dataclass(frozen=True)
class Server:
    """A server on this machine: its address, the token that opens it, the folder it shows, its log."""

    url: str
    token: str
    folder: Path
    log: Path


def find_chromium() -> str | None:
    """Path of a Chromium or Chrome on this machine."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def free_port() -> int:
    """A loopback port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def serving(command: list[str], url: str, log: Path, env: dict[str, str], timeout: float = 60) -> Iterator:
    """Run a server until the block ends.

    url      answers once the server is up
    timeout  [s] for that
    Raises RuntimeError, with the end of the log, when it does not answer.
    """
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with log.open("w") as file:
        streams = {"stdin": subprocess.DEVNULL, "stdout": file, "stderr": subprocess.STDOUT}
        process = subprocess.Popen(command, env=env, **streams)
    try:
        deadline = time.monotonic() + timeout
        while True:
            try:
                opener.open(url, timeout=2).close()
                break
            except OSError as error:
                if process.poll() is not None or time.monotonic() > deadline:
                    end = log.read_text()[-3000:]
                    raise RuntimeError(f"{command[:3]} does not answer at {url}\n{end}") from error
                time.sleep(0.1)
        yield
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def private_environment(base: Path) -> dict[str, str]:
    """Environment of a Jupyter server that touches nothing of the user's; notebooks run the smoke preset."""
    env = {name: value for name, value in os.environ.items() if name not in ("MPLBACKEND", "UVAE_DATA")}
    for name in ("CONFIG", "DATA", "RUNTIME"):
        env[f"JUPYTER_{name}_DIR"] = str(base / name.lower())
    env["JUPYTERLAB_SETTINGS_DIR"] = str(base / "settings")
    env["JUPYTERLAB_WORKSPACES_DIR"] = str(base / "workspaces")
    env["IPYTHONDIR"] = str(base / "ipython")
    return env | {"UVAE_PRESET": "smoke"}


@contextmanager
def jupyter_lab(folder: Path, base: Path) -> Iterator[Server]:
    """JupyterLab on `folder`, its own files in `base`. Lab saves the notebooks it opens: give it a copy."""
    for plugin, values in SETTINGS.items():
        file = base / "settings" / f"{plugin}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values))
    port, token = free_port(), secrets.token_hex(16)
    server = Server(f"http://127.0.0.1:{port}", token, folder, base / "lab.log")
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1"]
    command += [f"--port={port}", "--ServerApp.port_retries=0", f"--ServerApp.root_dir={folder}"]
    command += ["--LabApp.expose_app_in_browser=True", "--LabApp.extension_manager=readonly"]
    env = private_environment(base) | {"JUPYTER_TOKEN": token, "UVAE_HOME": str(folder)}
    with serving(command, f"{server.url}/api/status?token={token}", server.log, env):
        yield server


def open_and_run(page, lab: Server, name: str, timeout: float = 120) -> None:
    """Open a notebook, run all its cells, and assert that each ran without an error.

    name     path of the notebook below lab.folder; it must name its kernel, or Lab asks for one
    timeout  [s] for the whole run
    """
    page.goto(f"{lab.url}/lab/tree/{name}?token={lab.token}&reset")
    page.wait_for_selector(".jp-Notebook .jp-Cell", state="attached")
    page.wait_for_function(KERNEL_IS_IDLE)
    page.evaluate(RUN_ALL)
    page.wait_for_function("() => window.ran", timeout=1000 * timeout)
    cells = page.evaluate(COUNTS_AND_ERRORS)
    errors = [error for _, errors in cells for error in errors]
    assert cells, f"{name} shows no code cell"
    assert not errors, f"{name}: {errors}"
    assert all(count for count, _ in cells), f"{name}: cells that did not run: {cells}"


def press(page, selector: str, key: str = "ArrowRight", times: int = 1) -> None:
    """Press a key on an element. The handle of a slider with the class `a` is ".a .noUi-handle"."""
    element = page.locator(selector).first
    element.scroll_into_view_if_needed()
    element.focus()
    for _ in range(times):
        element.press(key)


def picture(page, selector: str) -> bytes:
    """What an element looks like, as PNG; the same bytes while it does not change."""
    element = page.locator(selector).first
    element.scroll_into_view_if_needed()
    return element.screenshot()


def changed_picture(page, selector: str, before: bytes, timeout: float = 60) -> bytes:
    """The picture of an element as soon as it is not `before`. Raises AssertionError after `timeout` [s]."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        now = picture(page, selector)
        if now != before:
            return now
        page.wait_for_timeout(100)
    raise AssertionError(f"{selector}: the picture did not change in {timeout} s")
