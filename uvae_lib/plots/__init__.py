"""Pictures: arrays in, a matplotlib Figure out. Nothing here trains, reads, saves or shows; `paper` saves.

arrays      numpy or torch, on any device
slices      natural log densities x = log(y + eps), y = rho / <rho>; row 0 is drawn at the bottom, axes in Mpc/h
curve       (n,), or (median, low, high) of (n,) each, drawn as a line in a band
width       that of rcParams["figure.figsize"] where a style sets it (`paper.style`), else one for the screen
ax          a plot of one panel makes a Figure and returns it, or draws into the axes `ax` and returns those
No figure is made by pyplot: each is shown once when it is the last line of a cell, and by `display(figure)`.
"""

# ruff: noqa: F401
from . import paper
from .curves import (
    closure,
    clusters,
    cosmologies,
    coverage,
    cube_distributions,
    effects,
    fidelity,
    kl_by_rank,
    kl_growth,
    loss_curves,
    pca_limit,
    pixel_histograms,
    probe_scatter,
    ratios,
    response,
    slices_needed,
    spectra,
    strips,
)
from .diagram import model_diagram
from .figure import (
    COLOURS,
    COLUMN,
    DENSITY_MAP,
    DIFFERENCE_MAP,
    LENGTH,
    LOG_DENSITY,
    LOOK,
    MARK,
    SYMBOLS,
    TRUTH,
    WAVENUMBER,
    cube_label,
    side_by_side,
)
from .slices import crop_on_cube, cube_3d, cube_estimates, reconstructions, slice_grid, traversal_strip
