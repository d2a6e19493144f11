"""Run the numbered notebooks in order and keep their outputs; stop at the first cell that fails.

    python notebooks/run.py [--inplace | --out DIR] [--html DIR] [--timeout S] [notebook ...]

UVAE_PRESET (note, smoke, demo, ...; default demo) says how much they do, UVAE_DATA where the cubes are.
A notebook is written only when all its cells passed, whole, and without what differs between two equal runs;
metadata.uvae then holds the preset, the hash of its cells and the commit. A failed one goes to build/failed.
With --html the sliders of explorers move on the pages, from frames that are stored in them; the notebooks keep stills.
"""

import argparse
import base64
import copy
import hashlib
import io
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

from uvae_lib.files import write_atomically
from uvae_lib.presets import load_preset

ROOT = Path(__file__).resolve().parents[1]
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
PAGE = '<div class="uvae-page">'  # how an explorer begins that moves without a kernel


def code_cells(nb: NotebookNode) -> list[NotebookNode]:
    """The cells that a run executes, in order."""
    return [cell for cell in nb.cells if cell.cell_type == "code" and cell.source.strip()]


def source_sha(nb: NotebookNode) -> str:
    """16 hexadecimal digits that change when the code of any cell changes."""
    return hashlib.sha256("\0".join(cell.source for cell in code_cells(nb)).encode()).hexdigest()[:16]


def library_commit() -> str:
    """The commit of the checkout, with "+changes" when uvae_lib differs from it; "unknown" outside git."""
    git = ["git", "-C", ROOT]
    try:
        head = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True)
    except (FileNotFoundError, subprocess.CalledProcessError):
        return "unknown"
    changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", "uvae_lib"]).returncode
    return head.stdout.strip() + ("+changes" if changed else "")


def execute(nb: NotebookNode, folder: Path, timeout: int) -> str | None:
    """Run the cells of `nb`, in place, in a kernel of its own that works in `folder`; prints a line a cell.

    timeout  [s] for a cell
    Returns None, or what went wrong: the cell's number, its source, its error.
    """
    n_cells, started = len(code_cells(nb)), []

    def begin(cell: NotebookNode, **_) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # to nbclient Ctrl-C is a kernel that died
        started.append(time.monotonic())
        print(f"  cell {len(started):2}/{n_cells}  {cell.source.strip().splitlines()[0][:70]:70}", end="", flush=True)

    def end(cell: NotebookNode, **_) -> None:
        noisy = any(output.get("name") == "stderr" for output in cell.outputs)
        print(f" {time.monotonic() - started[-1]:6.1f} s{'  (wrote to stderr)' if noisy else ''}", flush=True)

    try:
        NotebookClient(
            nb, kernel_name="python3", resources={"metadata": {"path": str(folder)}}, timeout=timeout,
            record_timing=False, coalesce_streams=True, on_cell_execute=begin, on_cell_executed=end,
            extra_arguments=["--log-level=ERROR"],
        ).execute()  # fmt: skip
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        return f"cell {len(started)} of {n_cells}: " + re.sub(r"\x1b\[[0-9;]*m", "", str(error)).rstrip()


def tidy(nb: NotebookNode, stamp: dict) -> None:
    """Take out, in place, what differs between two runs of the same cells, and say what made them."""
    python = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
    nb.metadata = {"kernelspec": python, "language_info": {"name": "python"}}
    nb.metadata["uvae"] = stamp | {"source_sha": source_sha(nb)}
    for cell in code_cells(nb):
        cell.metadata.pop("execution", None)
        for output in cell.outputs:
            output.get("data", {}).pop(WIDGET_VIEW, None)


def without_pages(nb: NotebookNode) -> NotebookNode:
    """A copy whose explorers are stills: what moves is for web pages."""
    nb = copy.deepcopy(nb)
    for output in (output for cell in code_cells(nb) for output in cell.outputs):
        if output.get("data", {}).get("text/html", "").startswith(PAGE):
            del output.data["text/html"]
    return nb


def web_page(nb: NotebookNode, name: str) -> str:
    """The notebook as HTML, its pictures as lossless WebP: a third smaller than PNG."""
    from nbconvert import HTMLExporter
    from PIL import Image

    def smaller(found: re.Match) -> str:
        file = io.BytesIO()
        Image.open(io.BytesIO(base64.b64decode(found[1]))).convert("RGB").save(file, "webp", lossless=True)
        return f'src="data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"'

    page = HTMLExporter().from_notebook_node(nb, {"metadata": {"name": name}})[0]
    return re.sub(r'src="data:image/png;base64,([^"]+)"', smaller, page)


def run(path: Path, out: Path, html: Path | None, failed: Path, timeout: int, stamp: dict) -> bool:
    """Run one notebook, write it into the folder `out` and as a page into `html`; True when it passed."""
    nb, started = nbformat.read(path, as_version=4), time.monotonic()
    problem = execute(nb, path.parent, timeout)
    tidy(nb, stamp)
    target, seconds = (failed if problem else out) / path.name, time.monotonic() - started
    write_atomically(target, nbformat.writes(without_pages(nb)) + "\n")
    if problem:
        print(f"\n\n{path.name} failed after {seconds:.1f} s; its outputs so far are in {target}\n\n{problem}\n")
        return False
    if html:
        write_atomically(html / f"{path.stem}.html", web_page(nb, path.stem))
    print(f"  passed in {seconds:.1f} s, {target.stat().st_size / 1e3:.0f} kB", flush=True)
    return True


def main() -> str | None:
    """Run what the command line names; returns what the last line says when one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add, place = parser.add_argument, parser.add_mutually_exclusive_group().add_argument
    add("notebooks", nargs="*", type=Path, help="default: all numbered ones beside this script")
    place("--inplace", action="store_true", help="write the outputs into the notebooks themselves")
    place("--out", type=Path, default=ROOT / "build/executed", help="or into copies in this folder (build/executed)")
    add("--html", type=Path, help="folder for a web page of each notebook")
    add("--failed", type=Path, default=ROOT / "build/failed", help="folder for one that fails (build/failed)")
    add("--timeout", type=int, default=1800, help="for a cell [s] (default: %(default)s)")
    options = parser.parse_args()
    paths = [path.resolve() for path in options.notebooks or sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))]
    if missing := [str(path) for path in paths if not path.is_file()]:
        return f"found no {', '.join(missing)}"
    try:
        stamp = {"preset": load_preset().name, "commit": library_commit()}
    except ValueError as error:
        return str(error)
    os.environ |= {"TQDM_DISABLE": "1", "PYTHONHASHSEED": "0"}
    if options.html:
        os.environ["UVAE_PAGES"] = "1"  # explorers put frames for their sliders into their output
    os.environ.pop("MPLBACKEND", None)  # kernels inherit it, and Agg would take the pictures out
    for index, path in enumerate(paths, start=1):
        print(f"[{index}/{len(paths)}] {path.name} ({stamp['preset']})", flush=True)
        out = path.parent if options.inplace else options.out
        if not run(path, out, options.html, options.failed, options.timeout, stamp):
            return f"{index - 1} passed, 1 failed, {len(paths) - index} not run"
    print(f"{len(paths)} passed, 0 failed")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("\ninterrupted; the notebook that was running is as it was", file=sys.stderr)
        sys.exit(130)
