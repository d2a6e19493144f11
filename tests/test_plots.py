"""Every figure by its properties: what is drawn, on which scale, in which units, and that nothing is cut off."""

import io

import matplotlib as mpl
import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from nbclient import NotebookClient
from PIL import Image
from sklearn.metrics import r2_score

from uvae_lib import plots
from uvae_lib.cropping import periodic_crop
from uvae_lib.plots import paper

BOX = 64.0
TERMS = ("fvu", "kl_z", "kl_h")


def slices(n=6, side=32, seed=0):
    return np.random.default_rng(seed).normal(-1, 1.5, (n, side, side)).astype(np.float32)


def parameters(n=12, seed=0):
    low, high = (0.1, 0.6), (0.5, 1.0)
    return pd.DataFrame(np.random.default_rng(seed).uniform(low, high, (n, 2)), columns=["Omega_m", "sigma_8"])


def history(n=40):
    step, measured = np.arange(1, n + 1) * 10, np.arange(n) % 10 == 9
    table = pd.DataFrame({"step": step, "fvu": np.exp(-step / 200), "kl_z": step / 40, "kl_h": step * 2.0})
    return table.assign(**{f"val_{name}": (1.1 * table[name]).where(measured) for name in TERMS})


def band(values):
    return values, 0.8 * values, 1.2 * values


K = np.linspace(0.1, 1.6, 15)
LEVELS = np.linspace(0.1, 0.9, 5)
POWER = 100 * K**-1.5
TITLES = [rf"$\Omega_m = {0.1 * i:.2f}$, $\sigma_8 = 0.80$" for i in range(6)]
ROWS = ["$z_{37}$\n3.2 nats", "$z_{12}$\n1.1 nats"]
EVERY = {
    "slice_grid": lambda **ax: plots.slice_grid(slices(), BOX, TITLES, **ax),
    "universes_and_places": lambda **ax: plots.universes_and_places(
        slices().reshape(2, 3, 32, 32), BOX, ["first", "second"], **ax
    ),
    "crop_on_cube": lambda: plots.crop_on_cube(slices(1)[0], (28, 20), 24, BOX),
    "reconstructions": lambda: plots.reconstructions(slices(2), 0.5 * slices(2), BOX, ["best", "worst"]),
    "traversal_strip": lambda **ax: plots.traversal_strip(
        slices(10).reshape(2, 5, 32, 32), np.linspace(-2, 2, 5), ROWS, BOX, **ax
    ),
    "model_diagram": lambda **ax: plots.model_diagram(pictures={"context": slices(3), "target": slices(1)[0]}, **ax),
    "cosmologies": lambda: plots.cosmologies({"LH": parameters(), "CV": parameters(3, 1), "1P": parameters(4, 2)}),
    "sheet": lambda: plots.sheet(parameters(30).to_numpy() ** 2, parameters(30)),
    "probe_scatter": lambda **ax: plots.probe_scatter(K, K + 0.1, np.full(15, 0.1), **ax),
    "closure_arrows": lambda **ax: plots.closure_arrows(parameters(), parameters() + 0.05, **ax),
    "spectra": lambda **ax: plots.spectra(K, {"truth": band(POWER), "reconstruction": POWER * 0.9}, **ax),
    "power_ratio": lambda **ax: plots.power_ratio(K, {"low": POWER, "high": 1.2 * POWER}, "low", **ax),
    "fidelity": lambda: plots.fidelity(K, {"this run": band(1 / (1 + K))}, {"this run": 1 / (1 + K)}),
    "pca_limit": lambda **ax: plots.pca_limit([64, 256, 1024], [0.9, 0.7, 0.3], model=0.4, **ax),
    "bullets": lambda **ax: plots.bullets({"P(k)": {"completed": 1.5, "decoded mean": 4}}, {"P(k)": 2}, **ax),
    "loss_curves": lambda: plots.loss_curves(history(), pca=0.4),
    "coverage": lambda **ax: plots.coverage(LEVELS, {"Omega_m": LEVELS**2}, 40, **ax),
    "corner": lambda: plots.corner(np.random.default_rng(0).normal(size=(500, 2)), [0.3, 0.1], list(plots.SYMBOLS)),
    "lines": lambda **ax: plots.lines([1, 3, 9], {"$z$": [0.5, 0.7, 0.9]}, "slices of a cube", "$R^2$", "o-", **ax),
}
SEVERAL = {"crop_on_cube", "reconstructions", "cosmologies", "sheet", "fidelity", "loss_curves", "corner"}
ONE_PANEL = {name: make for name, make in EVERY.items() if name not in SEVERAL}
STYLES = {"screen": {}, "one column": paper.rc("mnras")}


def pixels(figure, dpi=60):
    """RGB (rows, columns, 3) of a figure, 0 to 255."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=dpi)
    return np.asarray(Image.open(file).convert("RGB"), float)


def inside(ax, image):
    """The part of a picture (rows, columns, 3) that an axes covers."""
    box = ax.get_position()
    rows, columns = image.shape[:2]
    edges = np.array([1 - box.y1, 1 - box.y0]) * rows, np.array([box.x0, box.x1]) * columns
    (top, bottom), (left, right) = (edge.round().astype(int) for edge in edges)
    return image[top:bottom, left:right]


def images(ax):
    return [np.ma.filled(image.get_array(), np.nan) for image in ax.images]


@pytest.fixture(scope="module", params=STYLES)
def styled(request):
    """All figures in one style, drawn outside it: its settings, and the figures by name."""
    with mpl.rc_context(STYLES[request.param]):
        figures = {name: make() for name, make in EVERY.items()}
    for figure in figures.values():
        figure.draw_without_rendering()
    return STYLES[request.param], figures


# --- what holds of all


def test_no_figure_belongs_to_pyplot(styled):
    assert mpl._pylab_helpers.Gcf.figs == {}


def test_making_and_drawing_figures_changes_no_setting_of_matplotlib():
    before = dict(mpl.rcParams)
    for name in ("slice_grid", "spectra"):
        EVERY[name]().draw_without_rendering()
    assert dict(mpl.rcParams) == before


@pytest.mark.parametrize("name", EVERY)
def test_nothing_is_cut_off(styled, name):
    figure = styled[1][name]
    box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert min(box.x0, box.y0, width - box.x1, height - box.y1) > -0.01


@pytest.mark.parametrize("name", EVERY)
def test_no_panel_is_blank(styled, name):
    image = pixels(styled[1][name])
    contrasts = [inside(ax, image).std() for ax in styled[1][name].axes]
    assert min(contrasts) > 5


@pytest.mark.parametrize("name", EVERY)
def test_a_figure_is_as_wide_as_its_style_says(styled, name):
    settings, figures = styled
    expected = settings["figure.figsize"][0] if settings else figures[name].get_figwidth()
    assert figures[name].get_figwidth() == pytest.approx(expected)
    assert 4 < expected < 9 or settings


@pytest.mark.parametrize("name", EVERY)
def test_a_figure_is_drawn_in_the_style_that_it_was_made_in(name):
    with paper.style("mnras"):
        figure = EVERY[name]()
        expected = pixels(figure)
    assert np.array_equal(pixels(figure), expected)


@pytest.mark.parametrize("name", ["slice_grid", "reconstructions", "traversal_strip", "crop_on_cube"])
def test_a_figure_of_slices_wastes_no_height(styled, name):
    image = pixels(styled[1][name], dpi=100)
    inked = np.flatnonzero((image < 250).any(axis=(1, 2)))
    assert inked[0] < 20 and inked[-1] > len(image) - 20


@pytest.mark.parametrize("name", ["slice_grid", "reconstructions", "traversal_strip"])
def test_no_text_above_a_tile_touches_its_neighbour(styled, name):
    for ax in styled[1][name].axes:
        boxes = [text.get_window_extent() for text in ax.texts]
        assert not [1 for i, a in enumerate(boxes) for b in boxes[:i] if a.overlaps(b)]


def test_tensors_of_any_precision_give_the_picture_of_arrays():
    x = slices(2).astype(np.float16).astype(np.float32)
    expected = pixels(plots.slice_grid(x, BOX))
    tensor = torch.from_numpy(x).requires_grad_()
    assert np.array_equal(pixels(plots.slice_grid(tensor[:, None], BOX)), expected)
    assert np.array_equal(pixels(plots.slice_grid(tensor.half(), BOX)), expected)


@pytest.fixture(scope="module")
def shown():
    """PNGs that a kernel shows for a figure as the last line of a cell, for each of some ways to set it up."""
    cells = [
        "import numpy as np\nfrom uvae_lib import plots",
        "figure = plots.slice_grid(np.random.rand(2, 8, 8), 8.0)\nfigure",
        "figure",
        "%matplotlib inline\nfigure",
        "import matplotlib.pyplot as plt\nplt.get_backend()\nfigure",
        "display(figure)",
    ]
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MPLBACKEND", raising=False)
        NotebookClient(nb, kernel_name="python3", timeout=60).execute()
    return [[o for o in cell.outputs if "image/png" in o.get("data", {})] for cell in nb.cells]


def test_a_notebook_shows_a_figure_exactly_once(shown):
    assert [len(outputs) for outputs in shown] == [0, 1, 1, 1, 1, 1]


def opened(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), float)


@pytest.mark.parametrize("name", ["slice_grid", "reconstructions", "crop_on_cube", "fidelity"])
def test_the_picture_for_a_notebook_has_the_colours_that_were_drawn(name):
    figure = EVERY[name]()
    assert np.abs(opened(figure.png()) - pixels(figure, dpi=figure.dpi)).max() <= 4


def test_lines_on_slices_keep_their_colour():
    figure = plots.crop_on_cube(slices(1)[0], (28, 20), 24, BOX)
    mark = 255 * np.array(mpl.colors.to_rgb(plots.MARK))
    drawn, kept = ((np.abs(p - mark).max(-1) <= 4).sum() for p in (pixels(figure, figure.dpi), opened(figure.png())))
    assert kept == pytest.approx(drawn, rel=0.01) and drawn > 1000


@pytest.mark.parametrize("name", ["slice_grid", "reconstructions", "traversal_strip", "spectra"])
def test_the_picture_for_a_notebook_has_200_dots_an_inch_and_whole_pixels_a_voxel(name):
    figure = EVERY[name]()
    png, shown = figure._repr_png_()
    stored = Image.open(io.BytesIO(png)).width / figure.get_figwidth()
    assert stored > 199
    for image in figure.axes[0].images:
        voxels = image.get_array().shape[1] / (image.get_window_extent().width / figure.dpi)
        assert figure.dpi / voxels == pytest.approx(round(figure.dpi / voxels), abs=0.01)
        assert shown["width"] / figure.get_figwidth() >= voxels - 1


def test_the_picture_for_a_notebook_is_small():
    figure = plots.slice_grid(slices(12, 128), BOX)
    full = io.BytesIO()
    figure.savefig(full, format="png")
    assert len(figure.png()) < 0.7 * len(full.getvalue())


# --- panels of somebody else's figure


@pytest.fixture
def panels():
    """Three axes of a figure that pyplot does not know, the middle one to draw into."""
    return mpl.figure.Figure(figsize=(10, 4), layout="constrained").subplots(1, 3)


@pytest.mark.parametrize("name", ONE_PANEL)
def test_a_plot_of_one_panel_draws_into_the_axes_that_it_is_given(panels, name):
    ax, figure = panels[1], panels[1].figure
    assert ONE_PANEL[name](ax=ax) is ax
    assert ax.has_data() or ax.patches
    assert not panels[0].has_data() and not panels[2].has_data()
    assert tuple(figure.get_size_inches()) == (10, 4)


@pytest.mark.parametrize("name", ["slice_grid", "closure_arrows"])
def test_axes_of_somebody_else_show_what_a_figure_of_its_own_shows(panels, name):
    own, other = ONE_PANEL[name]().axes[0], ONE_PANEL[name](ax=panels[1])
    assert own.get_xlim() == other.get_xlim() and own.get_ylabel() == other.get_ylabel()
    assert [t.get_text() for t in own.texts] == [t.get_text() for t in other.texts]


def test_a_figure_of_several_panels_takes_no_axes(panels):
    with pytest.raises(TypeError, match="ax"):
        plots.fidelity(K, {}, {}, ax=panels[1])


# --- slices


def test_slice_grid_is_one_image_with_every_slice_in_it():
    x = slices(5)
    ax = plots.slice_grid(x, BOX, columns=3).axes[0]
    (canvas,) = images(ax)
    gap = canvas.shape[1] // 3 - 32 + 1
    for i in range(5):
        top, left = i // 3 * (32 + gap), i % 3 * (32 + gap)
        assert np.array_equal(canvas[top : top + 32, left : left + 32], x[i, ::-1])
    assert np.isfinite(canvas).sum() == 5 * 32 * 32


def test_slice_grid_has_one_colour_scale_that_covers_nearly_all_pixels():
    x = slices()
    (image,) = plots.slice_grid(x, BOX).axes[0].images
    assert ((x > image.norm.vmin) & (x < image.norm.vmax)).mean() > 0.99
    assert image.colorbar.ax.get_ylabel() == plots.LOG_DENSITY


def test_slice_grid_counts_megaparsecs_from_the_corner_of_each_slice():
    ax = plots.slice_grid(slices(4), 128.0, columns=2).axes[0]
    shown = [label.get_text() for label in ax.get_xticklabels()]
    assert shown == ["0", "50", "100"] * 2
    x, y = ax.get_xticks(), ax.get_yticks()
    assert x[1] - x[0] == pytest.approx(50) and y[0] - y[1] == pytest.approx(50)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("$x$  [Mpc/$h$]", "$y$  [Mpc/$h$]")


def test_a_slice_of_one_value_is_drawn():
    assert plots.slice_grid(np.zeros((1, 8, 8)), BOX).axes


def test_titles_must_be_as_many_as_slices():
    with pytest.raises(ValueError, match="found 2 titles for 3 slices"):
        plots.slice_grid(slices(3), BOX, ["a", "b"])


def test_slices_must_have_two_sides():
    with pytest.raises(ValueError, match=r"found slices of shape \(8,\)"):
        plots.slice_grid(np.zeros(8), BOX)


CORNERS = [((2, 3), 0), ((20, 3), 1), ((2, 20), 1), ((28, 20), 2), ((60, 52), 2)]


@pytest.mark.parametrize("corner, n_wraps", CORNERS)
def test_the_crop_is_cut_where_it_wraps(corner, n_wraps):
    left, right = plots.crop_on_cube(slices(1)[0], corner, 24, BOX).axes[:2]
    assert len(right.lines) == n_wraps
    assert (
        [text.get_text() for text in right.texts]
        == [text.get_text() for text in left.texts]
        == list("ABCD")[: 2**n_wraps]
    )


def test_a_crop_larger_than_its_plane_is_refused():
    with pytest.raises(ValueError, match="does not fit"):
        plots.crop_on_cube(slices(1)[0], (0, 0), 40, BOX)


def test_residuals_are_reconstruction_minus_truth_on_a_symmetric_scale():
    truth, recon = slices(2), slices(2, seed=1)
    right = plots.reconstructions(truth, recon, BOX).axes[1]
    (residual,), (image,) = images(right), right.images
    assert np.array_equal(residual[:32], (recon - truth)[0, ::-1])
    assert image.norm.vmin == -image.norm.vmax and image.cmap.name == plots.DIFFERENCE_MAP


def test_truth_and_reconstruction_stand_side_by_side_on_the_scale_of_the_truth():
    truth = slices(2)
    left = plots.reconstructions(truth, 3 * truth, BOX).axes[0]
    (pair,), (image,) = images(left), left.images
    assert np.array_equal(pair[:32, :32], truth[0, ::-1]) and np.array_equal(pair[:32, -32:], 3 * truth[0, ::-1])
    assert image.norm.vmax == pytest.approx(np.percentile(truth, 99.8))


def test_rows_of_truth_and_residual_are_level():
    figure = EVERY["reconstructions"]()
    figure.draw_without_rendering()
    left, right = (ax.get_window_extent() for ax in figure.axes[:2])
    assert (left.y0, left.y1) == pytest.approx((right.y0, right.y1), abs=1)


def test_a_traversal_prints_its_values_and_names_its_rows():
    values = np.array([[-1.5, 0, 1.5], [-3, 0, 3]])
    ax = plots.traversal_strip(slices(6).reshape(2, 3, 32, 32), values, ROWS, BOX).axes[0]
    assert [text.get_text() for text in ax.texts] == ["$-1.5$", "$0$", "$+1.5$", "$-3$", "$0$", "$+3$"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ROWS


def test_values_that_all_rows_share_are_printed_once():
    ax = EVERY["traversal_strip"]().axes[0]
    assert [text.get_text() for text in ax.texts] == ["$-2$", "$-1$", "$0$", "$+1$", "$+2$"]


def test_values_that_are_no_steps_have_no_sign():
    ax = plots.traversal_strip(slices(3).reshape(1, 3, 32, 32), [0.6, 0.75, 1], ROWS[:1], BOX).axes[0]
    assert [text.get_text() for text in ax.texts] == ["$0.60$", "$0.75$", "$1.0$"]


def test_rows_of_differences_can_have_scales_of_their_own_told_in_their_labels():
    frames = slices(3).reshape(1, 3, 32, 32) * np.array([1, 10]).reshape(2, 1, 1, 1)
    ax = plots.traversal_strip(frames, [-1, 0, 1], ["a", "b"], BOX, frames[:, 1], own_scales=True).axes[0]
    small, large = (float(label.get_text().split("\nscale ")[1]) for label in ax.get_yticklabels())
    assert large == pytest.approx(10 * small)
    assert (ax.images[0].norm.vmin, ax.images[0].norm.vmax) == (-1, 1)


def test_of_rows_without_an_anchor_no_tile_is_framed():
    frames = slices(9).reshape(3, 3, 32, 32)
    ax = plots.traversal_strip(frames, [1, 2, 3], ["a", "b", "c"], BOX, frames[1, 1], marked=[-1, 1, -1]).axes[0]
    assert len(ax.patches) == 1


def test_a_traversal_needs_a_label_for_each_row():
    with pytest.raises(ValueError, match="labels"):
        plots.traversal_strip(np.zeros((2, 3, 8, 8)), [0, 1, 2], ["z"], BOX)


# --- cubes and pixels


# --- spectra


def test_a_curve_of_two_rows_is_refused():
    with pytest.raises(ValueError, match="median, low, high"):
        plots.spectra(K, {"truth": (POWER, POWER)})


def test_fidelity_draws_r_and_t_with_their_bands_on_axes_that_hold_zero_and_one():
    r, transfer = EVERY["fidelity"]().axes
    assert np.array_equal(r.lines[0].get_ydata(), 1 / (1 + K))
    assert len(r.collections) == 1 and len(transfer.collections) == 0
    assert all(ax.get_ylim()[0] <= 0 and ax.get_ylim()[1] > 1 for ax in (r, transfer))


def test_panels_stand_on_each_other_in_one_column_of_a_journal():
    with paper.style("mnras"):
        upper, lower = (ax.get_subplotspec() for ax in EVERY["fidelity"]().axes)
    assert (upper.colspan, lower.rowspan.start) == (lower.colspan, 1)


# --- training and probes


def test_the_corner_of_a_probe_is_its_r_squared():
    truth = parameters()["sigma_8"].to_numpy()
    predicted = truth + np.random.default_rng(0).normal(0, 0.05, 12)
    (text,) = plots.probe_scatter(truth, predicted, name="sigma_8").axes[0].texts
    assert text.get_text() == f"$R^2 = {r2_score(truth, predicted):.2f}$"


def test_a_probe_has_equal_axes_that_name_the_parameter():
    ax = EVERY["probe_scatter"]().axes[0]
    assert ax.get_xlim() == ax.get_ylim()
    assert ax.get_xlabel() == r"true $\Omega_m$" and ax.get_ylabel() == r"$\Omega_m$ from $z$"


def test_a_probe_of_other_cubes_is_refused():
    with pytest.raises(ValueError, match="expected"):
        plots.probe_scatter(np.zeros(3), np.zeros(4))


# --- crops


@pytest.mark.parametrize("corner, n_wraps", CORNERS)
def test_a_crop_is_one_square_on_the_tiling_however_it_wraps(corner, n_wraps):
    (square,) = plots.crop_on_cube(slices(1)[0], corner, 24, BOX).axes[0].patches
    assert square.get_xy() == pytest.approx([2.0 * (corner[1] % 32), 2.0 * (corner[0] % 32)])
    assert (square.get_width(), square.get_height()) == (48, 48)


@pytest.mark.parametrize("corner, n_wraps", CORNERS)
def test_a_letter_marks_the_same_pixels_on_the_tiling_and_in_the_crop(corner, n_wraps):
    left, right = plots.crop_on_cube(slices(1)[0], corner, 24, BOX).axes[:2]
    offsets = {
        tuple(np.round((np.subtract(a.get_position(), b.get_position()) * 32 / BOX)[::-1] % 32, 6))
        for a, b in zip(left.texts, right.texts, strict=True)
    }
    assert offsets == {(corner[0] % 32, corner[1] % 32)}


def test_the_crop_lies_on_the_tiling_where_its_pixels_are_on_one_colour_scale():
    plane = slices(1)[0]
    left, right = plots.crop_on_cube(plane, (28, 20), 24, BOX).axes[:2]
    tiling, crop = images(left)
    assert np.array_equal(crop, periodic_crop(plane, (28, 20), 24)) and np.array_equal(images(right)[0], crop)
    assert np.array_equal(tiling[28:52, 20:44], crop)
    assert len({id(image.norm) for image in (*left.images, *right.images)}) == 1


# --- colours, curves, cubes


@pytest.mark.parametrize(
    "label, colour",
    [("truth", plots.TRUTH), ("decoded mean", plots.MODEL), ("completed", plots.DRAWN), ("PCA", plots.BASELINE),
     ("KL of $z$", plots.Z), ("KL of $h$", plots.H)],
)  # fmt: skip
def test_a_label_decides_the_colour_by_its_role(label, colour):
    assert plots.role(label) == colour


def test_curves_of_one_role_have_colours_of_their_own():
    drawn = plots.spectra(K, {"first mean": POWER, "second mean": POWER}).axes[0].lines
    assert len({line.get_color() for line in drawn}) == 2


def test_baselines_are_dashed():
    line = plots.spectra(K, {"PCA": POWER}).axes[0].lines[0]
    assert (line.get_linestyle(), line.get_color()) == ("--", plots.BASELINE)


def test_figures_with_and_without_slices_are_shown_at_one_size_of_type():
    shown = {name: EVERY[name]()._repr_png_()[1]["width"] / EVERY[name]().get_figwidth() for name in ONE_PANEL}
    assert set(np.round(list(shown.values()))) == {110}


def test_spectra_have_logarithmic_axes_in_units_of_h_and_megaparsecs():
    (ax,) = EVERY["spectra"]().axes
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert ax.get_xlim() == pytest.approx((K[0], K[-1]))
    assert "[(Mpc/$h$)$^2$]" in ax.get_ylabel() and "[$h$/Mpc]" in ax.get_xlabel()


def test_a_spectrum_that_vanishes_does_not_squeeze_the_others():
    (ax,) = plots.spectra(K, {"truth": POWER, "nothing": 1e-14 * POWER}).axes
    assert ax.get_ylim()[0] > 1e-5 * POWER.max()


def test_a_ratio_of_spectra_is_one_for_the_black_curve():
    low, high = EVERY["power_ratio"]().axes[0].lines
    assert np.allclose(low.get_ydata(), 1) and np.allclose(high.get_ydata(), 1.2)
    assert low.get_color() == plots.TRUTH


def test_the_wavelength_stands_above_the_wave_number():
    top = EVERY["fidelity"]().axes[0].child_axes[0]
    assert sorted(top.get_xlim()) == pytest.approx(sorted(2 * np.pi / K[[0, -1]]))


def test_two_plots_of_one_panel_make_a_figure_with_letters_in_a_journal():
    with paper.style("mnras"):
        figure = plots.side_by_side(EVERY["lines"], EVERY["coverage"])
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["(a)", "(b)"]
    assert [bool(ax.lines) for ax in figure.axes] == [True, True]


def test_pca_limit_reads_the_curve_at_the_size_of_the_code_and_shows_the_model_there():
    ax = plots.pca_limit([128, 512, 2048], [0.8, 0.615, 0.2], model=0.5).axes[0]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["this model, 0.50", "PCA, 0.61 at 512 numbers"]
    assert ax.get_xticks().tolist() == [128, 512, 2048]


def test_cosmologies_shows_each_cube_in_its_set_with_a_marker_of_its_own():
    params = {"LH": parameters(), "CV": parameters(3, 1)}
    lines = plots.cosmologies(params).axes[0].lines
    assert [line.get_label() for line in lines] == ["LH (12)", "CV (3)"]
    assert np.array_equal(lines[1].get_xydata(), params["CV"].to_numpy())
    assert len({line.get_marker() for line in lines}) == 2


def test_cosmologies_without_parameters_says_so():
    (text,) = plots.cosmologies({"cubes": pd.DataFrame(index=range(3))}).axes[0].texts
    assert text.get_text() == "cubes: no Omega_m and sigma_8"


def test_the_grid_of_a_sheet_runs_through_its_cubes():
    corners = pd.DataFrame(np.array(np.meshgrid([0.1, 0.3, 0.5], [0.6, 0.8, 1.0])).reshape(2, -1).T,
                           columns=["Omega_m", "sigma_8"])  # fmt: skip
    plane = corners.to_numpy() ** 2
    points = np.concatenate([line.get_xydata() for line in plots.sheet(plane, corners).axes[0].lines])
    assert max(np.hypot(*(points - place).T).min() for place in plane) < 1e-6


def test_an_arrow_of_the_closure_ends_at_what_is_read():
    (arrows,) = plots.closure_arrows([[0.3, 0.8]], [[0.35, 0.7]]).axes[0].collections
    assert (arrows.U[0], arrows.V[0]) == pytest.approx((0.05, -0.1))


def test_the_error_of_a_probe_is_drawn_once():
    ax = plots.probe_scatter(K, K, np.full(15, 0.02)).axes[0]
    assert [np.ptp(line[:, 1]) for line in ax.collections[0].get_segments()] == pytest.approx([0.04])


# --- traversals and training


def test_the_anchor_shows_itself_among_differences_on_one_symmetric_scale():
    frames = slices(6).reshape(2, 3, 32, 32)
    over, (image) = (
        plots.traversal_strip(frames, [-1, 0, 1], ROWS, BOX, anchor=frames[:, 1], marked=[1, 1]).axes[0].images
    )
    difference, shown = (np.ma.filled(x.get_array(), np.nan) for x in (image, over))
    left = (shown.shape[1] - 32) // 2
    assert np.array_equal(difference[:32, left : left + 32], np.zeros((32, 32)))
    assert np.array_equal(shown[:32, left : left + 32], frames[0, 1, ::-1])
    assert np.isfinite(shown).sum() == 2 * 32 * 32
    assert image.norm.vmin == -image.norm.vmax and image.get_zorder() < over.get_zorder()


def test_loss_curves_show_steps_their_median_and_held_out_cubes():
    axes = EVERY["loss_curves"]().axes
    assert [len(ax.lines) for ax in axes] == [4, 3, 3]
    steps, median, held_out = axes[0].lines[:3]
    assert np.isfinite(held_out.get_ydata()).sum() == 4
    assert np.array_equal(median.get_ydata(), steps.get_ydata())  # few steps: the window holds one
    assert "nats" in axes[1].get_title() and "nats" in axes[2].get_title()


def test_loss_curves_of_nothing_are_empty_panels():
    assert len(plots.loss_curves(pd.DataFrame()).axes) == 3


def test_the_poster_has_the_steps_of_the_note_and_the_terms_of_its_loss():
    texts = [text.get_text() for text in EVERY["model_diagram"]().axes[0].texts]
    assert {"1", "2", "3", "4", "5", "6", "KL($z$)", "KL($h$)", "squared error"} <= set(texts)
