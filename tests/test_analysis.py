"""The evaluation of a run: every number beside its reference, kept, and without what a suite is too small for."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from suites import SIDE, lognormal_suite, tiny_config

from uvae_lib.analysis import coverage_gaps, evaluate_run, summary
from uvae_lib.analysis import evaluate as analysis
from uvae_lib.analysis.evaluate import SAMPLES
from uvae_lib.files import Absent
from uvae_lib.runs.run import load_run
from uvae_lib.training.fit import fit


def add_set(folder, name: str, params: np.ndarray) -> None:
    """Write a CV or 1P set beside the LH set of `lognormal_suite`."""
    lognormal_suite(folder / "more", n_cubes=len(params), seed=5)
    shutil.move(folder / "more" / f"Grids_Mcdm_IllustrisTNG_LH_{SIDE}_z=0.0.npy",
                folder / f"Grids_Mcdm_IllustrisTNG_{name}_{SIDE}_z=0.0.npy")  # fmt: skip
    shutil.rmtree(folder / "more")
    np.savetxt(folder / f"params_{name}_IllustrisTNG.txt", params)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run with CV and 1P cubes beside its own, evaluated."""
    place = tmp_path_factory.mktemp("analysis")
    data = lognormal_suite(place / "data", n_cubes=9)
    add_set(data, "CV", np.array([[0.3, 0.8]] * 3))
    add_set(data, "1P", np.array([[0.2, 0.8], [0.4, 0.8], [0.3, 0.8], [0.3, 0.6], [0.3, 1.0]]))
    evaluate_run(fit(tiny_config(data, steps=6), place / "run", progress=False), n_slices=6)
    return place / "run"


@pytest.fixture(scope="module")
def found(folder):
    return json.loads((folder / "metrics.json").read_text())


def few_cubes(place, n: int, **options):
    """A run of n cubes, and its suite."""
    run = fit(tiny_config(lognormal_suite(place / "data", n_cubes=n), steps=2, val_every=2, **options),
              place / "run", progress=False)  # fmt: skip
    return run, run.open_suite()


def test_an_evaluation_measures_everything_beside_its_reference(found):
    assert set(found) >= {"reconstruction", "latents", "samples", "controls", "probes", "slices", "labels", "responses"}
    assert set(found["controls"]) >= {"leaks", "memorisation", "two_sample", "shuffled", "unseen_errors", "axes"}
    assert {"one_cosmology", "axes_of_one_cosmology"} <= set(found["controls"]) and "made" in found
    assert set(found["samples"]) == set(SAMPLES) and 0 < found["reconstruction"]["fvu_pca"] < 1
    text = summary(found)
    assert "PCA" in text and "KL(z)" in text and "from 6 slices, z:" in text


def test_every_response_has_its_truth(found):
    assert set(found["responses"]["sigma_8"]) == {"simulated", "completed", "mean"}


def test_a_parameter_that_does_not_vary_has_no_r2_and_a_sentence(found):
    assert found["probes"]["z"]["r2"]["Omega_m"] is None
    assert "Omega_m does not vary" in found["missing"]["R2"] and "absent, R2" in summary(found)


def test_a_second_evaluation_computes_nothing_again(folder, monkeypatch, found):
    monkeypatch.setattr(analysis, "encode_cubes", None)
    assert evaluate_run(load_run(folder), n_slices=6) == found


def test_other_parameters_are_another_evaluation(folder, monkeypatch):
    monkeypatch.setattr(analysis, "encode_cubes", None)
    run = load_run(folder)
    suite = run.open_suite()
    with pytest.raises(TypeError):
        evaluate_run(run, replace(suite, params=suite.params + 0.01), 6)


def test_an_evaluation_repeats(folder, found, monkeypatch, tmp_path):
    twin = shutil.copytree(folder, tmp_path / "twin")
    (twin / "metrics.json").unlink()
    assert json.dumps(evaluate_run(load_run(twin), n_slices=6)) == json.dumps(found)


def test_cubes_without_parameters_and_sets_are_evaluated_without_them(tmp_path):
    data = lognormal_suite(tmp_path / "data", n_cubes=6)
    (data / "params_LH_IllustrisTNG.txt").unlink()
    fit(tiny_config(data, steps=2, val_every=2), tmp_path / "run", progress=False)
    text = summary(evaluate_run(tmp_path / "run", n_slices=4))
    assert (tmp_path / "run" / "metrics.json").exists()
    assert "absent, parameters" in text and "absent, CV" in text


@pytest.mark.parametrize("n", [3, 4])
def test_a_few_cubes_are_evaluated_with_what_they_allow(tmp_path, n):
    run, suite = few_cubes(tmp_path, n)
    found = evaluate_run(run, suite, 4)
    assert found["reconstruction"]["fvu"] > 0 and {"two_sample", "parameters"} <= set(found["missing"])
    assert "absent, two_sample" in summary(found)


def test_maps_have_one_axis_and_are_evaluated(tmp_path):
    maps = np.random.default_rng(0).lognormal(sigma=0.5, size=(8 * 15, SIDE, SIDE)).astype(np.float32)
    (tmp_path / "data").mkdir()
    np.save(tmp_path / "data" / "Maps_Mcdm_IllustrisTNG_LH_z=0.00.npy", maps)
    np.savetxt(tmp_path / "data" / "params_LH_IllustrisTNG.txt", np.linspace([0.1, 0.6], [0.5, 1.0], 8))
    run = fit(tiny_config(tmp_path / "data", steps=2, val_every=2), tmp_path / "run", progress=False)
    found = evaluate_run(run, n_slices=6)
    assert "more than one axis" in found["missing"]["axes"] and found["probes"]


def test_a_run_without_test_cubes_says_what_it_needs(folder):
    run = load_run(folder)
    suite, run.split = run.open_suite(), {"train": list(range(9)), "val": [], "test": []}
    with pytest.raises(ValueError, match=r"all 9 cubes .* were trained on; an evaluation needs cubes that were not"):
        evaluate_run(run, suite)


def test_a_model_with_random_weights_is_read_like_the_trained_one(folder, found):
    run = load_run(folder)
    untrained = analysis.untrained_probes(run, run.open_suite(), evaluate_run(run, n_slices=6))
    assert untrained["sizes"] == found["slices"]["sizes"]
    assert np.shape(untrained["predicted"]) == np.shape(found["truth"])
    assert untrained["predicted"] != found["probes"]["z"]["predicted"]


def test_a_check_passes_within_its_ends_and_what_is_absent_is_not_measured():
    rows = {"in": (0.1, 0, 1, 0, 0.2), "out": (0.3, 0, 1, 0, 0.2), "absent": (Absent("no cubes"), 0, 1, 0, 0.2)}
    table = analysis.verdicts(rows)
    assert table["passes"].tolist() == ["yes", "no", "not measured"]
    assert table["found"].tolist() == ["0.1", "0.3", "not measured"]


def test_the_gap_of_coverage_is_the_largest_over_levels():
    found = {"levels": [0.2, 0.5], "coverage": {"sigma_8": [0.3, 0.2], "both": [0.2, 0.5]}}
    assert coverage_gaps(found) == pytest.approx({"sigma_8": 0.3, "both": 0})
    assert coverage_gaps(Absent("too few"))["posterior"] == "too few"
