"""The study of a run with CV and 1P cubes beside its own; the table of KL and the walk on what is known."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from suites import SIDE, lognormal_suite, tiny_config

from uvae_lib.analysis import acceptance as targets
from uvae_lib.analysis import controls
from uvae_lib.analysis import responses as ledger
from uvae_lib.analysis.metrics import CubeEncoding, kept_metrics
from uvae_lib.analysis.study import kept_analysis
from uvae_lib.latents import Posterior
from uvae_lib.runs import load_run
from uvae_lib.statistics import power_spectrum
from uvae_lib.training import fit


def add_set(folder, name: str, params: np.ndarray) -> None:
    """Write a CV or 1P set beside the LH set of `lognormal_suite`."""
    lognormal_suite(folder / "more", n_cubes=len(params), seed=5)
    shutil.move(folder / "more" / f"Grids_Mcdm_IllustrisTNG_LH_{SIDE}_z=0.0.npy",
                folder / f"Grids_Mcdm_IllustrisTNG_{name}_{SIDE}_z=0.0.npy")  # fmt: skip
    shutil.rmtree(folder / "more")
    np.savetxt(folder / f"params_{name}_IllustrisTNG.txt", params)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run with CV and 1P cubes beside its own, and what was found in it."""
    place = tmp_path_factory.mktemp("report")
    data = lognormal_suite(place / "data", n_cubes=9)
    add_set(data, "CV", np.array([[0.3, 0.8]] * 3))
    add_set(data, "1P", np.array([[0.2, 0.8], [0.4, 0.8], [0.3, 0.8], [0.3, 0.6], [0.3, 1.0]]))
    fit(tiny_config(data, steps=6), place / "run <b>", progress=False)
    supervised = {"steps": 6, "r2": {"Omega_m": 0.5, "sigma_8": 0.25}, "error": {"Omega_m": 0.1, "sigma_8": 0.1}}
    (place / "run <b>" / "baselines.json").write_text(json.dumps({"supervised": supervised}))
    run = load_run(place / "run <b>")
    suite = run.open_suite()
    metrics = kept_metrics(run, suite, 6) | {"controls": kept_analysis(run, suite, 6)}
    metrics["baselines"] = {"supervised": supervised}
    (run.folder / "metrics.json").write_text(json.dumps(metrics))
    return place / "run <b>"


@pytest.fixture(scope="module")
def found(folder):
    return json.loads((folder / "metrics.json").read_text())["controls"]


def test_every_walk_has_its_truth(found):
    assert set(found["walk"]) == {"Omega_m", "sigma_8"}
    assert all({"truth", "model", "mismatch", "read", "read_truth"} <= set(row) for row in found["walk"].values())


@pytest.mark.parametrize(
    ("value", "shown"), [(None, "–"), (float("nan"), "–"), (0.12345, "0.123"), (12345.6, "12346"), (3, "3")]
)
def test_numbers_are_short(value, shown):
    assert targets.number(value) == shown


# --- ledger and walk


def posterior_views(n: int = 6) -> list[CubeEncoding]:
    """Posteriors whose KL is known: dimension 3 of z has mean +-2, dimension 1 of h variance 1 / 4."""
    views, blank = [], torch.zeros(1, 1, 4, 4)
    for i in range(n):
        z = Posterior(torch.zeros(8), torch.zeros(8))
        z.mu[3] = 2 * (-1) ** i
        h = Posterior(torch.zeros(2, 8), torch.zeros(2, 8))
        h.logvar[:, 1] = np.log(0.25)
        views.append(CubeEncoding(i, blank, blank, z, h, Posterior(torch.zeros(2, 8), torch.zeros(2, 8))))
    return views


def test_the_ledger_counts_nats_that_are_known():
    book = ledger.kl_table(posterior_views(), np.zeros((6, 8)), np.empty((6, 0)))
    first = book.groupby("latent").first()
    assert first.loc["z", "dim"] == 3 and first.loc["z", "kl"] == pytest.approx(2)
    assert first.loc["h", "dim"] == 1 and first.loc["h", "kl"] == pytest.approx(0.5 * (0.25 - 1 + np.log(4)))
    assert book.groupby("latent")["active"].sum().to_dict() == {"h": 0, "z": 1}


def test_the_ledger_knows_which_dimension_knows_what():
    rng = np.random.default_rng(0)
    params = rng.uniform(size=(200, 2))
    z = np.zeros((200, 8))
    z[:, 3] = params[:, 0]
    row = ledger.kl_table(posterior_views(), z, params).iloc[0]
    assert row["mi_Omega_m"] > 1 and row["mi_sigma_8"] < 0.2


def test_slopes_of_a_parabola_are_exact():
    x = np.array([0.1, 0.2, 0.3, 0.4, 0.5])
    assert ledger.slope_weights(x, 0.3) @ (2 + 3 * x + 5 * x**2) == pytest.approx(3 + 10 * 0.3)


def test_one_value_has_no_slope():
    with pytest.raises(ValueError, match="needs at least 2"):
        ledger.slope_weights(np.array([0.3]), 0.3)


def test_amplitudes_that_grow_with_the_parameter_have_the_response_that_is_known():
    field = torch.randn(6, 32, 32, generator=torch.Generator().manual_seed(0))
    values = np.array([0.6, 0.8, 1.0])
    slices = torch.stack([field * float(np.exp(x)) for x in values])  # ln P = 2 x + const
    found = ledger.responses(slices, values, 0.8, 32.0)
    np.testing.assert_allclose(found["dlnP"][0], 2, atol=1e-3)


def test_a_model_that_answers_as_the_truth_has_no_mismatch_and_a_dead_one_has_one():
    truth = {"k": [1.0, 2.0, 3.0], "dlnP": [[1, 2, 3], [0, 1, 2], [2, 3, 4]], "dpdf": [[1, 1], [1, 1], [1, 1]]}
    dead = truth | {"dlnP": [[0, 0, 0]] * 3, "dpdf": [[0, 0]] * 3}
    assert ledger.mismatch(truth, truth)["power"] == 0
    assert ledger.mismatch(dead, truth)["power"] == 1 and ledger.mismatch(dead, truth)["pdf"] == 1


class OneP:
    """As much of a 1P suite as `one_parameter` needs."""

    params = pd.DataFrame({"Omega_m": [0.1, 0.3, 0.5, 0.3, 0.3], "sigma_8": [0.8, 0.8, 0.8, 0.6, 1.0]})


def test_cubes_of_one_parameter_hold_the_others_fixed():
    cubes, values, fiducial = ledger.one_parameter(OneP, "sigma_8")
    assert (cubes, values.tolist(), fiducial) == ([3, 1, 4], [0.6, 0.8, 1.0], {"Omega_m": 0.3, "sigma_8": 0.8})


def test_effects_of_a_dimension_are_those_of_its_decoded_slices(folder):
    run = load_run(folder)
    book = pd.DataFrame({"latent": ["z", "h"], "dim": [5, 7], "kl": [1.0, 1.0], "active": [True, True]})
    centre, spread = torch.zeros(512), torch.full((512,), 0.5)
    found = ledger.latent_effects(run, book, centre, spread, n_slices=4)
    draw = torch.randn(4, 512, generator=torch.Generator().manual_seed(0))
    step = 0.5 * torch.eye(512)[5]
    up, down = (
        power_spectrum(ledger.decode_universe(run, side * step, draw)[:, 0], run.image_box)[1].mean(dim=0)
        for side in (1, -1)
    )
    np.testing.assert_allclose(found["z"]["dlnP"][0], 0.5 * (up / down).log(), atol=1e-4)
    assert found["z"]["dims"] == [5] and found["h"]["dims"] == [7] and min(found["h"]["share"][0]) >= 0


def test_the_study_is_keyed_by_the_weights(folder):
    run = load_run(folder)
    key = controls.weights_key(run)
    run.model.deep_set.together.bias[0] += 1
    assert controls.weights_key(run) != key


def test_the_table_of_targets_is_put_into_a_markdown_file(folder, tmp_path):
    page, run = tmp_path / "page.md", load_run(folder)
    page.write_text("before\n<!-- results:begin -->\n<!-- results:end -->\nafter\n")
    metrics = json.loads((folder / "metrics.json").read_text())
    targets.into_readme(page, metrics, run)
    lines = page.read_text().splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert len({line.count("|") for line in table}) == 1 and len(table) == 2 + len(targets.target_rows(metrics))
    assert f"{metrics['reconstruction']['fvu']:.3g}"[:4] in table[2] and lines[-1] == "after"
