"""Figures for papers: their size on the page, their bytes, their fonts, and the numbers beside them."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure

from uvae_lib import plots
from uvae_lib.plots import paper
from uvae_lib.presets import SMOKE, to_dict
from uvae_lib.runs.run import Run

K = np.linspace(0.1, 1.6, 15)
TABLE = [("mnras", 3.32, 6.97), ("aa", 3.4646, 7.0866), ("apj", 3.5, 7.1), ("neurips", 5.5, 5.5)]
SCRIPT = "import sys, test_paper; test_paper.paper.save(test_paper.grid(), sys.argv[1])"


def curves(venue="mnras", columns=1):
    with paper.style(venue, columns):
        return plots.spectra(K, {"truth": 100 * K**-1.5, "model": 90 * K**-1.5})


def grid():
    with paper.style("mnras"):
        return plots.slice_grid(np.random.default_rng(0).normal(size=(3, 32, 32)), 64.0)


def page(path):
    """Width and height of the page [in]."""
    (box,) = re.findall(rb"/MediaBox \[ 0 0 ([\d.]+) ([\d.]+) \]", path.read_bytes())
    return float(box[0]) / 72, float(box[1]) / 72


def written(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("venue, column, whole", TABLE)
@pytest.mark.parametrize("columns", [1, 2])
def test_the_page_is_as_wide_as_the_venue_prints_it(tmp_path, venue, column, whole, columns):
    path = paper.save(curves(venue, columns), tmp_path / "figure.pdf")
    assert page(path)[0] == pytest.approx((column, whole)[columns - 1], abs=1e-4)


def test_the_page_is_the_figure_whatever_the_user_set(tmp_path):
    figure = grid()
    with mpl.rc_context({"savefig.bbox": "tight", "savefig.dpi": 50, "pdf.fonttype": 3}):
        path = paper.save(figure, tmp_path / "figure.pdf")
    assert page(path) == pytest.approx(tuple(figure.get_size_inches()), abs=1e-4)
    assert b"/Type3" not in path.read_bytes()


@pytest.mark.parametrize("make", [curves, grid])
def test_a_figure_made_twice_is_byte_identical(tmp_path, make):
    first, second = (paper.save(make(), tmp_path / f"{i}.pdf").read_bytes() for i in range(2))
    assert first == second


def test_a_figure_saved_twice_is_byte_identical(tmp_path):
    figure = grid()
    first, second = (paper.save(figure, tmp_path / f"{i}.pdf").read_bytes() for i in range(2))
    assert first == second


def test_a_figure_made_in_another_process_is_byte_identical(tmp_path):
    here, there = tmp_path / "here.pdf", tmp_path / "there.pdf"
    paper.save(grid(), here)
    other = os.environ | {"PYTHONHASHSEED": "1", "PYTHONPATH": str(Path(__file__).parent)}
    subprocess.run([sys.executable, "-c", SCRIPT, there], env=other, check=True)
    assert here.read_bytes() == there.read_bytes()


def test_fonts_are_embedded_as_type_42(tmp_path):
    content = paper.save(curves(), tmp_path / "figure.pdf").read_bytes()
    assert b"/Type3" not in content and b"/CIDFontType2" in content and b"/FontFile2" in content


def test_a_figure_saved_outside_its_style_keeps_its_fonts(tmp_path):
    content = paper.save(curves(), tmp_path / "figure.pdf").read_bytes()
    assert b"STIXGeneral" in content and b"DejaVu" not in content


def test_slices_are_bitmaps_in_a_vector_file(tmp_path):
    assert paper.save(grid(), tmp_path / "grid.pdf").read_bytes().count(b"/Subtype /Image") >= 1
    assert paper.save(curves(), tmp_path / "curves.pdf").read_bytes().count(b"/Subtype /Image") == 0


def test_the_numbers_behind_a_figure_are_read_back_from_json(tmp_path):
    data = {
        "k": K.astype(np.float32),
        "P": {"truth": torch.arange(3.0).bfloat16(), "band": (np.ones(2), [1, 2])},
        "n": np.int64(7),
        "missing": np.array([1.0, np.nan, np.inf]),
        "params": pd.DataFrame({"Omega_m": [0.1, 0.5]}),
        "label": "truth",
    }
    paper.save(curves(), tmp_path / "figure.pdf", data=data)
    stored = json.loads((tmp_path / "figure.json").read_text())
    assert stored["figure"] == "figure.pdf"
    assert stored["data"].pop("k") == pytest.approx(K, rel=1e-7)
    assert stored["data"] == {
        "P": {"truth": [0, 1, 2], "band": [[1, 1], [1, 2]]},
        "n": 7,
        "missing": [1, None, None],
        "params": {"Omega_m": [0.1, 0.5]},
        "label": "truth",
    }


def test_the_run_that_made_a_figure_is_noted(tmp_path):
    info = {"commit": "abc123", "versions": {"torch": "2.8"}, "config": to_dict(SMOKE), "machine": "a laptop"}
    run = Run(tmp_path, None, SMOKE, {}, 0.0, 1.0, 32.0, 32, pd.DataFrame(), info)
    paper.save(curves(), tmp_path / "figure.pdf", run=run)
    stored = json.loads((tmp_path / "figure.json").read_text())["run"]
    assert stored == {"name": "smoke", "commit": "abc123", "versions": {"torch": "2.8"}, "config": to_dict(SMOKE)}


def test_data_that_json_cannot_hold_are_refused_and_nothing_is_written(tmp_path):
    with pytest.raises(TypeError, match="found Figure; expected arrays, tables, numbers or texts"):
        paper.save(curves(), tmp_path / "figure.pdf", data={"x": Figure()})
    assert written(tmp_path) == []


def test_a_figure_that_cannot_be_drawn_leaves_the_old_file(tmp_path):
    path = paper.save(curves(), tmp_path / "figure.pdf")
    before, broken = path.read_bytes(), curves()
    broken.axes[0].set_title("$no end of the formula")
    broken.axes[0].set_xlabel(r"$\nosuchcommand$")
    with pytest.raises(ValueError, match="nosuchcommand"):
        paper.save(broken, path)
    assert path.read_bytes() == before and written(tmp_path) == ["figure.json", "figure.pdf"]


def test_a_figure_for_a_paper_is_a_pdf(tmp_path):
    with pytest.raises(ValueError, match=r"found figure\.png"):
        paper.save(curves(), tmp_path / "figure.png")
    assert written(tmp_path) == []


def test_a_venue_that_is_not_known_is_refused():
    with pytest.raises(ValueError, match="found venue 'nature', columns=1; expected one of mnras, aa, apj, neurips"):
        paper.style("nature")


def test_three_columns_are_refused():
    with pytest.raises(ValueError, match="columns=3"):
        paper.rc("mnras", 3)


def test_a_style_ends_with_its_block():
    before = dict(mpl.rcParams)
    with paper.style("apj"):
        inside = mpl.rcParams["font.size"]
    assert inside == 8 and dict(mpl.rcParams) == before


def test_a_figure_without_a_style_is_saved_at_its_own_size(tmp_path):
    figure = plots.spectra(K, {"truth": K})
    assert page(paper.save(figure, Path(tmp_path) / "figure.pdf"))[0] == pytest.approx(plots.COLUMN)
