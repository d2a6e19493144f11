"""Run the numbered notebooks in order and keep their outputs; stop at the first cell that fails.

    python notebooks/run.py [--inplace | --out DIR] [--html DIR] [--timeout S] [notebook ...]

UVAE_PRESET (smoke, demo, reference; default demo) says how much they do, UVAE_DATA where the cubes are.
A notebook is written only when all its cells passed, whole, and without what differs between two equal runs;
metadata.uvae then holds the preset, the hash of its cells and the commit. A failed one goes to build/failed.
A cell may set its own time limit [s] as metadata.execution_timeout.
"""

import argparse
import asyncio
import hashlib
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
ANSI = re.compile(r"\x1b\[[0-9;]*m")


def code_cells(nb: NotebookNode) -> list[NotebookNode]:
    """The cells that a run executes, in order."""
    return [cell for cell in nb.cells if cell.cell_type == "code" and cell.source.strip()]


def source_sha(nb: NotebookNode) -> str:
    """16 hexadecimal digits that change when the code of any cell changes."""
    return hashlib.sha256("\0".join(cell.source for cell in code_cells(nb)).encode()).hexdigest()[:16]


def library_commit() -> str:
    """The commit of the checkout, with "+changes" when uvae_lib differs from it; "unknown" outside git."""

    def git(*arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True)

    try:
        head = git("rev-parse", "--verify", "--short=12", "HEAD")
    except FileNotFoundError:
        return "unknown"
    if head.returncode:
        return "unknown"
    changed = git("diff", "--quiet", "HEAD", "--", "uvae_lib").returncode
    return head.stdout.strip() + ("+changes" if changed else "")


def tidy(nb: NotebookNode) -> None:
    """Take out, in place, what differs between two runs of the same cells: widget state, times, versions."""
    nb.metadata.pop("widgets", None)
    nb.metadata.kernelspec = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
    nb.metadata.language_info = {"name": "python"}
    for cell in nb.cells:
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", []):
            output.get("data", {}).pop(WIDGET_VIEW, None)


def execute(nb: NotebookNode, folder: Path, timeout: float) -> str | None:
    """Run the cells of `nb`, in place, in a kernel of its own that works in `folder`; prints a line a cell.

    timeout  [s] for a cell, unless its metadata.execution_timeout says otherwise
    Returns None, or what went wrong: the cell's number, its source, its error. Raises KeyboardInterrupt.
    """
    cells = code_cells(nb)
    number, started, interrupted = 0, 0.0, False

    def interrupt(task: asyncio.Task) -> None:
        nonlocal interrupted
        interrupted = True
        task.cancel()

    def begin(cell: NotebookNode, **_) -> None:
        nonlocal number, started
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, interrupt, asyncio.current_task())
        number, started = number + 1, time.monotonic()
        title = cell.source.strip().splitlines()[0][:70]
        print(f"  cell {number:2}/{len(cells)}  {title:70}", end="", flush=True)

    def end(cell: NotebookNode, **_) -> None:
        noisy = any(output.get("name") == "stderr" for output in cell.outputs)
        print(f" {time.monotonic() - started:6.1f} s{'  (wrote to stderr)' if noisy else ''}", flush=True)

    def limit(cell: NotebookNode) -> float:
        return cell.metadata.get("execution_timeout", timeout)

    client = NotebookClient(
        nb,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        extra_arguments=["--log-level=ERROR"],
        timeout_func=limit,
        record_timing=False,
        coalesce_streams=True,
        on_cell_execute=begin,
        on_cell_executed=end,
    )
    try:
        client.execute()
        return None
    except CellExecutionError as error:
        reason = ANSI.sub("", error.traceback).rstrip() or f"{error.ename}: {error.evalue}"
    except CellTimeoutError:
        reason = f"the cell ran longer than {limit(cells[number - 1]):g} s"
    except DeadKernelError:
        if interrupted:
            raise KeyboardInterrupt from None
        reason = "the kernel died (out of memory?)"
    source = "\n".join(f"    {line}" for line in cells[number - 1].source.splitlines())
    return f"cell {number} of {len(cells)}:\n\n{source}\n\n{reason}"


def page(nb: NotebookNode, title: str) -> str:
    """The notebook as one HTML page that holds its pictures."""
    from nbconvert import HTMLExporter

    return HTMLExporter().from_notebook_node(nb, resources={"metadata": {"name": title}})[0]


def run(path: Path, out: Path, html: Path | None, failed: Path, timeout: float, stamp: dict) -> bool:
    """Run one notebook, write it into the folder `out` and as a page into `html`; True when it passed."""
    nb = nbformat.read(path, as_version=4)
    started = time.monotonic()
    problem = execute(nb, path.parent, timeout)
    tidy(nb)
    nb.metadata.uvae = {**stamp, "source_sha": source_sha(nb)}
    target = (failed if problem else out) / path.name
    write_atomically(target, nbformat.writes(nb) + "\n")
    seconds = time.monotonic() - started
    if problem:
        print(f"\n\n{path.name} failed after {seconds:.1f} s; its outputs so far are in {target}")
        print(f"\n{problem}\n", flush=True)
        return False
    if html:
        write_atomically(html / f"{path.stem}.html", page(nb, path.stem))
    print(f"  passed in {seconds:.1f} s, {target.stat().st_size / 1e3:.0f} kB", flush=True)
    return True


def parse() -> argparse.Namespace:
    """The command line."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    add = parser.add_argument
    add("notebooks", nargs="*", type=Path, help="default: all numbered ones beside this script")
    add("--inplace", action="store_true", help="write the outputs into the notebooks themselves")
    add("--out", type=Path, help="or into copies in this folder (default: build/executed)")
    add("--html", type=Path, help="folder for a web page of each notebook")
    add("--failed", type=Path, default=ROOT / "build/failed", help="folder for one that fails (build/failed)")
    add("--timeout", type=float, default=1800, help="for a cell [s] (default: %(default)g)")
    options = parser.parse_args()
    if options.inplace and options.out:
        parser.error("found both --inplace and --out; give one of them")
    options.out = options.out or ROOT / "build/executed"
    return options


def main() -> int:
    """Run what the command line names; the number of notebooks that failed, 0 or 1."""
    options = parse()
    paths = options.notebooks or sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
    if not paths:
        sys.exit(f"found no numbered notebook in {ROOT / 'notebooks'}")
    if missing := [str(path) for path in paths if not path.is_file()]:
        sys.exit(f"found no {', '.join(missing)}")
    try:
        stamp = {"preset": load_preset().name, "commit": library_commit()}
    except ValueError as error:
        sys.exit(str(error))
    os.environ |= {"TQDM_DISABLE": "1", "PYTHONHASHSEED": "0"}
    os.environ.pop("MPLBACKEND", None)  # kernels inherit it, and Agg would take the pictures out
    for index, path in enumerate(map(Path.resolve, paths), start=1):
        print(f"[{index}/{len(paths)}] {path.name} ({stamp['preset']})", flush=True)
        out = path.parent if options.inplace else options.out
        if not run(path, out, options.html, options.failed, options.timeout, stamp):
            print(f"{index - 1} passed, 1 failed, {len(paths) - index} not run")
            return 1
    print(f"{len(paths)} passed, 0 failed")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("\ninterrupted; the notebook that was running is as it was")
