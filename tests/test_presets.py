"""Configuration: plain values there and back, and nothing misspelt or impossible gets through."""

import json
import os
import re
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pytest

from uvae_lib import presets
from uvae_lib.cropping import EPS
from uvae_lib.model import LATENT_DIM, map_shape
from uvae_lib.presets import (
    DEMO,
    PRESETS,
    SMOKE,
    Config,
    DataConfig,
    ModelConfig,
    SimulationConfig,
    TrainConfig,
    from_dict,
    load_preset,
    locate,
    to_dict,
)

ROOT = Path(__file__).resolve().parents[1]
each_preset = pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)


@each_preset
def test_a_preset_comes_back_from_plain_values(preset):
    assert from_dict(to_dict(preset)) == preset


@each_preset
def test_a_preset_comes_back_from_json(preset):
    assert from_dict(json.loads(json.dumps(to_dict(preset)))) == preset


@each_preset
def test_a_preset_asks_for_slices_that_fit_its_cubes(preset):
    assert preset.data.image_size <= preset.simulation.side


@each_preset
def test_a_preset_asks_for_a_size_that_the_model_has(preset):
    assert map_shape(preset.data.image_size)[1] == preset.data.image_size // 32


@each_preset
def test_a_preset_is_listed_in_the_module_text(preset):
    assert re.search(rf"^{preset.name}\s", presets.__doc__, re.M)


def test_every_preset_of_the_module_text_exists():
    assert set(re.findall(r"^(\w+)  ", presets.__doc__, re.M)) == set(PRESETS)


def test_the_defaults_are_the_sizes_of_the_note():
    assert (Config().data.image_size, LATENT_DIM) == (128, 512)


def test_the_default_transform_is_the_note_s():
    assert DataConfig().eps == EPS == 1e-8


def test_a_configuration_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        DEMO.training.steps = 1


def test_a_configuration_can_be_compared_and_hashed():
    assert hash(from_dict(to_dict(SMOKE))) == hash(SMOKE)


def test_absent_values_take_their_defaults():
    assert from_dict({"training": {"steps": 7}}) == Config(training=TrainConfig(steps=7))


def test_an_unknown_section_is_refused_by_name():
    with pytest.raises(ValueError, match="Config has no field trainning; expected name, simulation, data"):
        from_dict({"trainning": {}})


@pytest.mark.parametrize("section", ["simulation", "data", "model", "loss", "training"])
def test_an_unknown_field_is_refused_by_name(section):
    with pytest.raises(ValueError, match=r"\w+Config has no field learning_rate; expected \w+, "):
        from_dict({section: {"learning_rate": 1.0}})


def test_all_unknown_fields_are_named():
    with pytest.raises(ValueError, match="no field epoch, learning_rate;"):
        from_dict({"training": {"learning_rate": 1.0, "epoch": 3, "lr": 1.0}})


def test_a_set_without_context_is_refused():
    with pytest.raises(ValueError, match=r"training\.set_size=1; a target needs context: use at least 2"):
        Config(training=TrainConfig(set_size=1))


def test_an_impossible_combination_is_refused_from_plain_values_too():
    with pytest.raises(ValueError, match="at least 2"):
        from_dict({"training": {"set_size": 0}})


@each_preset
def test_a_preset_is_loaded_by_its_name(preset, monkeypatch):
    monkeypatch.delenv("UVAE_DATA", raising=False)
    assert load_preset(preset.name) == preset


def test_without_a_name_the_demo_is_loaded(monkeypatch):
    monkeypatch.delenv("UVAE_PRESET", raising=False)
    monkeypatch.delenv("UVAE_DATA", raising=False)
    assert load_preset() == DEMO


def test_the_environment_names_the_preset(monkeypatch):
    monkeypatch.setenv("UVAE_PRESET", "smoke")
    monkeypatch.delenv("UVAE_DATA", raising=False)
    assert load_preset() == SMOKE


def test_a_name_in_the_call_goes_before_the_environment(monkeypatch):
    monkeypatch.setenv("UVAE_PRESET", "smoke")
    assert load_preset("demo").name == "demo"


def test_the_environment_says_where_the_cubes_are_and_runs_of_them_have_a_name_of_their_own(monkeypatch):
    monkeypatch.setenv("UVAE_DATA", "elsewhere/cubes.npy")
    elsewhere = replace(SMOKE, name="smoke-cubes", data=replace(SMOKE.data, path="elsewhere/cubes.npy"))
    assert load_preset("smoke") == elsewhere


def test_an_unknown_preset_is_refused_with_the_known_ones(monkeypatch):
    monkeypatch.setenv("UVAE_PRESET", "demmo")
    with pytest.raises(ValueError, match='found preset "demmo"; expected one of note, demo'):
        load_preset()


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project's folder, with its library and its notebooks, from where nothing in the environment leads away."""
    monkeypatch.delenv("UVAE_HOME", raising=False)
    for name in ("uvae_lib", "notebooks"):
        (tmp_path / name).mkdir()
    return tmp_path


@pytest.mark.parametrize("place", [".", "notebooks", "figures/papers"])
def test_a_relative_path_is_below_the_project_wherever_one_works_in_it(project, monkeypatch, place):
    (project / place).mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(project / place)
    assert locate("data/demo") == project / "data" / "demo"


@pytest.mark.parametrize("name", ["notebooks", "galaxies"])
def test_outside_the_project_a_path_is_below_the_checkout_so_that_a_notebook_elsewhere_simulates_nothing_anew(
    tmp_path, monkeypatch, name
):
    (tmp_path / name).mkdir()
    monkeypatch.delenv("UVAE_HOME", raising=False)
    monkeypatch.chdir(tmp_path / name)
    assert locate("data/demo") == ROOT / "data" / "demo"


def test_outside_the_project_cubes_beside_one_are_found(tmp_path, monkeypatch):
    (tmp_path / "cubes.npy").touch()
    monkeypatch.delenv("UVAE_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    assert locate("cubes.npy") == tmp_path / "cubes.npy"


def test_the_environment_can_name_another_home(project, monkeypatch):
    monkeypatch.setenv("UVAE_HOME", str(project / "elsewhere"))
    assert locate("runs") == project / "elsewhere" / "runs"


def test_an_absolute_path_stays(project, monkeypatch):
    monkeypatch.setenv("UVAE_HOME", "elsewhere")
    assert locate(project / "cubes") == project / "cubes"


def test_a_tilde_is_the_home_folder(project, monkeypatch):
    monkeypatch.setenv("HOME", str(project))
    monkeypatch.setenv("USERPROFILE", str(project))
    assert locate("~/cubes") == project / "cubes"


@pytest.mark.parametrize("place", [".", "notebooks", "figures/papers"])
@pytest.mark.parametrize("path", ["cubes.npy", ".", "../cubes"])
def test_cubes_that_the_environment_names_are_the_same_wherever_one_works(project, monkeypatch, path, place):
    (project / place).mkdir(parents=True, exist_ok=True)
    monkeypatch.setenv("UVAE_DATA", path)
    monkeypatch.chdir(project)
    expected = load_preset("smoke"), locate(path)
    monkeypatch.chdir(project / place)
    assert (load_preset("smoke"), locate(path)) == expected


@pytest.mark.parametrize(
    "address", ["https://camels.org/CMD/Grids.npy", "s3://bucket/cubes", "gs://b/c", "me@cluster.edu:/scratch/cubes"]
)
def test_an_address_of_another_machine_is_refused(project, address):
    with pytest.raises(ValueError, match="another machine; copy or mount the cubes"):
        locate(address)


@pytest.mark.skipif(os.name == "nt", reason="Windows takes no colon in a name")
def test_a_folder_with_a_colon_in_its_name_is_a_folder(project, monkeypatch):
    (project / "box:" / "cubes").mkdir(parents=True)
    monkeypatch.chdir(project)
    assert locate("box:/cubes") == project / "box:" / "cubes"


def test_the_simulation_of_a_preset_is_one_value():
    assert replace(SimulationConfig(), n_cv=8, n_1p=10) == DEMO.simulation and ModelConfig() != SMOKE.model


def test_the_defaults_of_model_and_loss_are_the_note_s():
    config = Config()
    assert (config.model.pooling, config.model.logvar_h) == ("sum", 0.0)
    assert (config.loss.kl_z, config.loss.kl_h, config.training.taught_steps) == (1.0, 1.0, 0)


def test_plain_is_the_demo_without_a_taught_start():
    assert replace(PRESETS["plain"].training, taught_steps=DEMO.training.taught_steps) == DEMO.training
    assert (PRESETS["plain"].model, PRESETS["plain"].loss, PRESETS["plain"].data) == (DEMO.model, DEMO.loss, DEMO.data)


def test_a_choice_that_is_none_is_refused():
    with pytest.raises(ValueError, match='found pooling="max"; expected one of sum, mean'):
        Config(model=ModelConfig(pooling="max"))


WRONG = """training.val_every=0 training.val_every=-1 training.devices=0 training.devices=-1 training.num_nodes=0
training.steps=0 training.sets_per_step=0 training.taught_steps=-1 training.ema=1.0 training.ema=-0.1 training.lr=0.0
training.lr=nan training.lr=inf training.seed=-1 data.thickness=0 data.thickness=-3 data.image_size=0 data.eps=0.0
data.eps=nan data.test_fraction=1.0 data.test_fraction=-0.1 data.box_size=0.0 data.box_size=-25.0 data.box_size=inf
data.pool_size=0 loss.kl_z=-1.0 loss.kl_h=nan simulation.side=0 simulation.n_lh=-1 simulation.n_steps=0
simulation.box_size=0.0 flows.steps=0 flows.width=0""".split()


@pytest.mark.parametrize("setting", WRONG)
def test_a_number_that_no_run_can_have_is_refused_by_its_name(setting):
    where, value = setting.split("=")
    section, name = where.split(".")
    number = float(value) if any(mark in value for mark in ".nf") else int(value)
    with pytest.raises(ValueError, match=rf"found {section}\.{name}={re.escape(value)}; expected "):
        part = replace(getattr(SMOKE, section), **{name: number})
        replace(SMOKE, **{section: part})


@pytest.mark.parametrize("name", ["", " ", ".", "..", "a/b", "../a", "a\\b"])
def test_a_name_that_is_no_folder_is_refused(name):
    with pytest.raises(ValueError, match="expected the name of a folder in runs/"):
        replace(SMOKE, name=name)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--data.box 50", "Unrecognized"),
        ("--data.thickness 0", "data.thickness=0; expected 1 or more"),
        ("--data.box-size fifty", "fifty"),
        ('--name "first', "No closing quotation"),
    ],
)
def test_an_error_in_uvae_options_names_it(monkeypatch, options, said):
    monkeypatch.setenv("UVAE_OPTIONS", options)
    with pytest.raises(ValueError, match="found UVAE_OPTIONS=") as refusal:
        load_preset("smoke")
    assert said in str(refusal.value)


def test_folders_of_two_redshifts_are_two_names(project, monkeypatch):
    monkeypatch.chdir(project)
    names = set()
    for path in ("cubes/z=0.0", "cubes/z=0.5", "cubes/z=0.5.npy"):
        monkeypatch.setenv("UVAE_DATA", path)
        names.add(load_preset("smoke").name)
    assert names == {"smoke-z=0.0", "smoke-z=0.5"}


def test_cubes_of_one_name_in_two_folders_have_runs_of_two_names(project, monkeypatch):
    monkeypatch.chdir(project)
    for place in ("a/cubes", "b/cubes"):
        (project / place).mkdir(parents=True)
    (project / "runs" / "smoke-cubes").mkdir(parents=True)
    trained = {"config": to_dict(replace(SMOKE, data=replace(SMOKE.data, path="a/cubes")))}
    (project / "runs" / "smoke-cubes" / "run.json").write_text(json.dumps(trained))
    names = []
    for path in ("a/cubes", "b/cubes"):
        monkeypatch.setenv("UVAE_DATA", path)
        names.append(load_preset("smoke").name)
    assert names[0] == "smoke-cubes" and re.fullmatch("smoke-cubes-[0-9a-f]{6}", names[1])
    (project / "a" / "cubes").rmdir()  # moved: the run is the one of these cubes
    assert load_preset("smoke").name == "smoke-cubes"
