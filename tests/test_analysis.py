"""The evaluation of a run: every number beside its reference, kept, and without what a suite is too small for."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from suites import SIDE, lognormal_suite, tiny_config

from uvae_lib.__main__ import main
from uvae_lib.analysis import acceptance, analyse_run, evaluate_run, summary
from uvae_lib.analysis import evaluate as analysis
from uvae_lib.analysis.samples import SAMPLED
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
    fit(tiny_config(data, steps=6), place / "run", progress=False)
    evaluate_run(place / "run", n_slices=6, progress=False)
    return place / "run"


@pytest.fixture(scope="module")
def found(folder):
    return json.loads((folder / "metrics.json").read_text())


def few_cubes(place, n: int, **options):
    """A run of n cubes, and its suite."""
    run = fit(tiny_config(lognormal_suite(place / "data", n_cubes=n), steps=2, val_every=2, save_every=2, **options),
              place / "run", progress=False)  # fmt: skip
    return run, run.open_suite()


def test_an_evaluation_measures_everything_beside_its_reference(found):
    parts = {"reconstruction", "train", "latents", "probes", "curve", "cv", "axes", "shuffled", "leaks", "memorisation"}
    assert set(found) >= parts | {"responses", "kl_table", "outliers", "conditional_spread", "made"}
    assert set(found) >= {"truth_against_truth", *SAMPLED} and "missing" in found
    assert 0 < found["reconstruction"]["fvu_pca"] < 1
    text = summary(found)
    assert "other true slices" in text and "PCA" in text and "bispectrum" in text


def test_the_picture_of_slices_is_written_beside_the_metrics(folder):
    assert (folder / "figures" / "slices.png").stat().st_size > 10_000


def test_every_response_has_its_truth(found):
    assert "sigma_8" in found["responses"]
    row = found["responses"]["sigma_8"]
    assert {"truth", "model", "model_mean", "mismatch", "read", "read_truth"} <= set(row)


def test_a_parameter_that_does_not_vary_has_no_r2_and_a_sentence(found):
    assert found["probes"]["z, ridge"]["r2"]["Omega_m"] is None
    assert "Omega_m does not vary" in found["missing"]["R2"] and "left out, R2" in summary(found)


def test_a_second_evaluation_computes_nothing_again(folder, monkeypatch, found):
    monkeypatch.setattr(analysis, "encode_suite", None)
    run = load_run(folder)
    assert analyse_run(run, run.open_suite(), 6) == found


def test_other_parameters_are_another_evaluation(folder, monkeypatch):
    monkeypatch.setattr(analysis, "encode_suite", None)
    run = load_run(folder)
    suite = run.open_suite()
    with pytest.raises(TypeError):
        analyse_run(run, replace(suite, params=suite.params + 0.01), 6)


def test_an_evaluation_repeats(folder, found, monkeypatch, tmp_path):
    twin = shutil.copytree(folder, tmp_path / "twin")
    (twin / "metrics.json").unlink()
    run = load_run(twin)
    again, timed = analyse_run(run, run.open_suite(), 6), {"seconds_a_cube": None}
    assert json.dumps(again | timed) == json.dumps(found | timed)


def test_cubes_without_parameters_and_sets_are_evaluated_without_them(tmp_path, capsys):
    data = lognormal_suite(tmp_path / "data", n_cubes=6)
    (data / "params_LH_IllustrisTNG.txt").unlink()
    fit(tiny_config(data, steps=2, val_every=2, save_every=2), tmp_path / "run", progress=False)
    main(["evaluate", "--run", str(tmp_path / "run"), "--n-slices", "4"])
    text = capsys.readouterr().out
    assert "metrics.json" in text and "left out, parameters" in text and "left out, CV" in text


@pytest.mark.parametrize("n", [3, 4])
def test_a_few_cubes_are_evaluated_with_what_they_allow(tmp_path, n):
    run, suite = few_cubes(tmp_path, n)
    found = analyse_run(run, suite, 4)
    assert found["reconstruction"]["fvu"] > 0 and {"two_sample", "outliers", "parameters"} <= set(found["missing"])
    assert len(acceptance.sample_table(found)) > 5


def test_maps_have_one_axis_and_are_evaluated(tmp_path):
    maps = np.random.default_rng(0).lognormal(sigma=0.5, size=(8 * 15, SIDE, SIDE)).astype(np.float32)
    (tmp_path / "data").mkdir()
    np.save(tmp_path / "data" / "Maps_Mcdm_IllustrisTNG_LH_z=0.00.npy", maps)
    np.savetxt(tmp_path / "data" / "params_LH_IllustrisTNG.txt", np.linspace([0.1, 0.6], [0.5, 1.0], 8))
    fit(tiny_config(tmp_path / "data", steps=2, val_every=2, save_every=2), tmp_path / "run", progress=False)
    found = evaluate_run(tmp_path / "run", n_slices=6, progress=False)
    assert "more than one axis" in found["missing"]["axes"] and found["probes"]


def test_a_run_without_test_cubes_says_what_it_needs(folder):
    run = load_run(folder)
    suite, run.split = run.open_suite(), {"train": list(range(9)), "val": [], "test": []}
    with pytest.raises(ValueError, match=r"all 9 cubes .* were trained on; an evaluation needs cubes that were not"):
        analyse_run(run, suite)


@pytest.mark.parametrize(
    ("value", "shown"), [(None, "–"), (float("nan"), "–"), (0.12345, "0.123"), (12345.6, "12346"), (3, "3")]
)
def test_numbers_are_short(value, shown):
    assert acceptance.number(value) == shown


def test_the_table_of_targets_is_put_into_a_markdown_file(folder, found, tmp_path):
    page, run = tmp_path / "page.md", load_run(folder)
    page.write_text("before\n<!-- results:begin -->\n<!-- results:end -->\nafter\n")
    supervised = {"steps": 6, "r2": {"Omega_m": 0.5, "sigma_8": 0.25}, "error": {"Omega_m": 0.1, "sigma_8": 0.1}}
    supervised["fingerprint"] = run.open_suite().fingerprint
    (folder / "baselines.json").write_text(json.dumps({"supervised": supervised}))
    acceptance.into_readme(page, found, run)
    lines = page.read_text().splitlines()
    assert any(f"{found['reconstruction']['fvu']:.3g}"[:4] in line for line in lines) and lines[-1] == "after"
    assert any("ResNet-18, trained on the labels for 6 steps | 0.25 |" in line for line in lines)
    for table in ([line for line in part.splitlines() if line[:1] == "|"] for part in page.read_text().split("\n\n")):
        assert len({line.count("|") for line in table}) <= 1


def test_a_sample_beyond_its_limits_has_a_star(found):
    sample = found["observed_universe"] | {"power_error": 0.05, "kurtosis_error": -0.2, "bispectrum_error": 0.3}
    same = found["truth_against_truth"] | {"bispectrum_error": 0.2}
    rows = acceptance.sample_table(found | {"observed_universe": sample, "truth_against_truth": same})
    cells = {row[0]: row[1] for row in rows}
    assert cells["P(k) up to half the Nyquist frequency"] == "0.05"
    assert cells["kurtosis of second differences"] == "-0.2\\*"
    assert cells["reduced bispectrum, rms in standard errors"] == "0.3"


def test_the_classifier_is_kept_with_the_metrics(folder, tmp_path, monkeypatch):
    twin, result = shutil.copytree(folder, tmp_path / "twin"), {"smoothing": [0.0, 1.0, 2.0], "auc": [0.9, 0.7, 0.5]}
    monkeypatch.setattr(analysis, "two_sample_classifier", lambda truth, drawn: result)
    found = evaluate_run(twin, n_slices=6, classifier=True, progress=False)
    assert (
        "AUC" in summary(found) and evaluate_run(twin, n_slices=6, progress=False)["classifier"] == found["classifier"]
    )
    rows = [row[1] for row in acceptance.sample_table(found) if "AUC" in row[0]]
    assert rows == ["0.5", "0.7\\*", "0.9\\*"]
