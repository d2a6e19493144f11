"""Figures for papers: the style and widths of four venues, and PDF files with the numbers behind them.

    with paper.style("mnras"):
        figure = plots.spectra(k, curves, "truth")
    paper.save(figure, "figures/spectra_mnras.pdf", data={"k": k, "P": curves}, run=run)

A figure of `plots` keeps the style that it was made in, so that it can be saved outside the block.
"""

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

from ..files import atomic_path, plain_values, write_atomically

# [in], of one column and of the page; [pt], of labels: ticks and legends are 1 pt less
WIDTHS = {"mnras": (3.32, 6.97), "aa": (88 / 25.4, 180 / 25.4), "apj": (3.5, 7.1), "neurips": (5.5, 5.5)}
SIZES = {"mnras": 8.0, "aa": 8.0, "apj": 8.0, "neurips": 9.0}


def rc(venue: str, columns: int = 1) -> dict:
    """matplotlib settings of a venue: width, Times-like fonts that come with matplotlib, sizes, line widths.

    venue     mnras, aa, apj or neurips
    columns   1, or 2 for the width of the page
    Raises ValueError for another venue or number of columns.
    """
    if venue not in WIDTHS or columns not in (1, 2):
        raise ValueError(
            f"found venue {venue!r}, columns={columns}; expected one of {', '.join(WIDTHS)}, 1 or 2 columns"
        )
    import seaborn as sns

    width, size = WIDTHS[venue][columns - 1], SIZES[venue]
    small = dict.fromkeys(("xtick.labelsize", "ytick.labelsize", "legend.fontsize", "legend.title_fontsize"), size - 1)
    sizes = dict.fromkeys(("font.size", "axes.titlesize", "axes.labelsize"), size)
    fonts = {"font.family": "STIXGeneral", "mathtext.fontset": "stix", "figure.figsize": (width, 0.7 * width)}
    space = {"axes.labelpad": 2.0, "axes.titlepad": 3.0, "legend.labelspacing": 0.3, "lines.markersize": 4.0}
    return sns.plotting_context("paper", font_scale=0.8) | sizes | small | fonts | space | {"lines.linewidth": 1.0}


def style(venue: str, columns: int = 1) -> AbstractContextManager:
    """A block in which figures are made in a venue's style; arguments and errors are those of `rc`."""
    return rc_context(rc(venue, columns))


def save(figure: Figure, path: str | Path, data: Mapping | None = None, run=None) -> Path:
    """Write a figure as PDF, and beside it, as path.json, the numbers that it shows and the run that made them.

    The page is exactly the figure's size; text is text (Type 42), images are bitmaps; equal figures give equal bytes.

    data    nested mappings, sequences, arrays, tensors, tables, numbers, texts; NaN and infinity become null
    run     a `runs.run.Run`: its name, preset values, commit and versions are noted
    Returns the path. Raises ValueError for a path that is no .pdf, TypeError for data that JSON cannot hold.
    """
    path = Path(path)
    if path.suffix != ".pdf":
        raise ValueError(f"found {path.name}; figures for papers are vector files: use a name that ends in .pdf")
    origin = run and {"name": run.config.name} | {key: run.info[key] for key in ("commit", "versions", "config")}
    behind = {"figure": path.name, "run": origin, "data": plain_values(data or {})}
    settings = {"pdf.fonttype": 42, "pdf.compression": 9, "savefig.bbox": "standard", "savefig.dpi": 300}
    with rc_context(settings), atomic_path(path) as temporary:
        figure.savefig(temporary, format="pdf", metadata={"CreationDate": None})
    write_atomically(path.with_suffix(".json"), json.dumps(behind, indent=1, allow_nan=False) + "\n")
    return path
