"""Operators against torch's own table of those that Apple's GPUs have: what training, explorers and evaluation call."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torchgen
import yaml
from lightning.pytorch.callbacks import Callback
from suites import lognormal_suite, tiny_config
from torch.utils._python_dispatch import TorchDispatchMode

from uvae_lib import statistics
from uvae_lib.presets import SMOKE
from uvae_lib.runs.encode import decode, encode_cube, encode_slices, reconstruct, spread_slices
from uvae_lib.training.fit import fit

TABLE = Path(torchgen.__file__).parent / "packaged" / "ATen" / "native" / "native_functions.yaml"
EVERYWHERE = {"CompositeImplicitAutograd", "CompositeExplicitAutograd", "CompositeExplicitAutogradNonFunctional", "MPS"}


@pytest.fixture(scope="module")
def on_mps():
    """Whether an operator, by its full name, has a kernel there."""
    entries = {entry["func"].partition("(")[0]: entry for entry in yaml.load(TABLE.read_text(), yaml.CSafeLoader)}

    def known(name: str) -> bool:
        entry = entries.get(name.removesuffix(".default"), {})
        keys = {key.strip() for names in entry.get("dispatch", {}) for key in names.split(",")}
        if delegate := entry.get("structured_delegate"):
            return known(delegate)
        return bool(entry) and (not keys or bool(keys & EVERYWHERE))  # without keys it is made of other operators

    return known


class Operators(TorchDispatchMode):
    """Collects the operators that are called, and those that make float64, which Apple's GPUs do not have."""

    def __init__(self):
        super().__init__()
        self.names, self.double = set(), set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result, (space, _, name) = func(*args, **(kwargs or {})), func.name().partition("::")
        if space == "aten":
            self.names.add(name)
        if isinstance(result, torch.Tensor) and result.dtype == torch.float64:
            self.double.add(name)
        return result


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of three steps by the networks and losses of the presets, one taught, and what its training called."""
    folder, called = tmp_path_factory.mktemp("devices"), Operators()

    class Watch(Callback):
        def on_train_start(self, trainer, module):
            called.__enter__()

        def on_train_end(self, trainer, module):
            called.__exit__(None, None, None)

    config = tiny_config(lognormal_suite(folder / "cubes"), steps=3, taught_steps=1, val_every=2, ema=0.9)
    config = type(config)(**(vars(config) | {"model": SMOKE.model, "loss": SMOKE.loss}))
    return fit(config, folder / "run", progress=False, callbacks=[Watch()]), called


def test_the_table_knows_what_is_there_and_what_is_not(on_mps):
    assert on_mps("index_select") and on_mps("hypot") and on_mps("convolution") and not on_mps("take")


def test_every_operator_of_training_is_on_apple_s_gpus(trained, on_mps):
    called = trained[1]
    assert {"convolution_backward", "_fft_r2c", "index_select"} <= called.names
    assert sorted(name for name in called.names if not on_mps(name)) == [] and called.double == set()


def test_every_operator_of_encoding_and_decoding_is_on_apple_s_gpus(trained, on_mps):
    run, _ = trained
    with Operators() as called:
        slices = spread_slices(run, run.open_suite(), 0, 3)
        z = encode_cube(run, slices)
        reconstruct(run, slices)
        decode(run, encode_slices(run, slices, z.mu).mu)
    assert called.names and sorted(name for name in called.names if not on_mps(name)) == []


def test_every_operator_of_the_statistics_is_on_apple_s_gpus(on_mps):
    with Operators() as called:
        field = torch.randn(4, 32, 32)
        statistics.power_spectrum(field, 32.0), statistics.cross_correlation(field, field.flip(1), 32.0)
        statistics.pixel_pdf(field, torch.linspace(-3, 3, 7))
    assert called.names and sorted(name for name in called.names if not on_mps(name)) == []


@pytest.mark.parametrize("given, found", [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_threads_that_wait_sleep_unless_somebody_wants_them_to_spin(given, found):
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment |= {"OMP_DISPLAY_ENV": "true"} | ({"OMP_WAIT_POLICY": given} if given else {})
    done = subprocess.run(
        [sys.executable, "-c", "import uvae_lib, torch"], capture_output=True, text=True, env=environment, check=True
    )
    assert f"OMP_WAIT_POLICY = '{found}'" in done.stderr
