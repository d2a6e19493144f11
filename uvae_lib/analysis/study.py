"""What a run knows of the universes: probes, controls, walks and the ledger, computed once.

`study` takes minutes; `kept_analysis` keeps it as controls.json in the run folder, keyed by the weights.
"""

import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from .. import latents
from ..cubes import CubesError, CubeSuite, open_data
from ..files import write_atomically
from ..presets import locate
from ..runs import Run, provenance, weights_key
from . import controls
from . import cube as card
from . import responses as ledger
from .metrics import encode_cubes, plain_json

N_SAMPLES = 16  # generated slices, and true ones beside them, whose nearest training slice is looked for


def further_set(run: Run, suite: CubeSuite, name: str) -> tuple[CubeSuite | None, str]:
    """The CV or 1P set beside the cubes of a run, or None and the reason why there is none."""
    path = locate(run.config.data.path)
    data = replace(run.config.data, path=str(path if path.is_dir() else path.parent))
    try:
        found = open_data(data, name)
    except CubesError as error:
        return None, str(error)
    if found.layout.files == suite.layout.files:
        return None, f"the cubes of this run are in no layout with sets, so there is no {name}"
    if (found.side, found.box_size) != (suite.side, suite.box_size):
        return None, f"{name} has cubes of {found.side}^3 in {found.box_size:g} Mpc/h, the run others"
    return found, ""


def study(run: Run, suite: CubeSuite, n_slices: int = 15, progress: bool = False) -> dict:
    """Probes, controls, walk and ledger of a run as JSON values; see the functions that fill each key.

    Keys that need parameters, or the CV or 1P set, are absent without them; `missing` says why.
    """
    (cv, no_cv), (one_p, no_1p) = (further_set(run, suite, name) for name in ("CV", "1P"))
    atlas = controls.kept_features(run, suite, progress=progress)
    n = int(atlas.sizes[atlas.at(n_slices)])
    learned, test = atlas.rows(run.split["train"] + run.split["val"]), atlas.rows(run.split["test"])
    views = encode_cubes(run, suite, run.split["test"], n, progress)
    shared = card.reference(run, suite, atlas, n)
    names = [suite.cube_id(i) for i in range(suite.n_cubes)]
    shuffled = controls.shuffled_sets(run, suite, run.split["test"], n)
    shares, project = _plane(atlas.z(n))
    found = {
        "n_slices": n,
        "missing": {name: why for name, why in (("CV", no_cv), ("1P", no_1p)) if why},
        "leaks": controls.leaks(names, run.split, run.info.get("cubes")),
        "two_sample": controls.two_sample(atlas.rows(run.split["train"]).z(n), test.z(n)),
        "memory": controls.memory(run, suite, _samples(run, shared), _some([v.truth for v in views]), progress),
        "outliers": {
            "distance": shared.distance(test.z(n)).tolist(),
            "distance_limit": shared.distance_limit,
            "error": [card.unexplained(v.truth, v.recon) for v in views],
            "error_limit": shared.error_limit,
        },
    }
    if min(test.by_axis.shape[:2]) > 1:
        found["axes"] = controls.axis_agreement(test.by_axis)
    if shuffled:
        found["shuffled"] = shuffled
    table = ledger.kl_table(views, atlas.z(n), atlas.params)
    z = torch.from_numpy(atlas.z(n))
    found["effects"] = ledger.latent_effects(run, table, z.mean(dim=0), z.std(dim=0))
    found["ledger"] = {"mi_noise": table.attrs.get("mi_noise")} | {c: table[c].tolist() for c in table}
    found["pca"] = {"shares": shares, "lh": project(atlas.z(n)).tolist()}
    if learned.params.shape[1]:
        found["probes"] = {name: controls.plain(r) for name, r in controls.probe_table(learned, test, n).items()}
        found["truth"] = test.params.tolist()
        found["curve"] = controls.slice_curve(learned, test) | {"trained": run.config.training.set_size - 1}
        found["walk"] = ledger.walk(run, learned, shared.noise, one_p, n_slices=int(atlas.sizes[-1]))
    else:
        found["missing"]["parameters"] = "the cubes have no table of Omega_m and sigma_8; pass params= to open_cubes"
    if cv is not None:
        seen = controls.kept_features(run, cv, "CV", progress=progress)
        found["cv"] = controls.variance_ratio(seen.z(n), atlas.z(n))
        found["pca"]["cv"] = project(seen.z(n)).tolist()
        if learned.params.shape[1] and seen.params.shape[1]:
            found["cv"]["read"] = controls.ridge(learned.z(n), learned.params, seen.z(n)).tolist()
            found["cv"]["truth"] = seen.params.tolist()
    return plain_json(found)


def _samples(run: Run, shared: card.Reference) -> torch.Tensor:
    """Slices of universes that the prior dreams, with the noise that decoded means lack."""
    return latents.sample_slices(run, None, N_SAMPLES, torch.Generator().manual_seed(1), shared.noise.complete)


def _some(sets: list[torch.Tensor]) -> torch.Tensor:
    """N_SAMPLES slices, evenly from all of them."""
    pool = torch.cat(sets)
    return pool[torch.linspace(0, len(pool) - 1, min(N_SAMPLES, len(pool))).long()]


def _plane(z: np.ndarray) -> tuple[list[float], Callable[[np.ndarray], np.ndarray]]:
    """The two main directions of z: their shares of its variance, and the projection onto them."""
    mean = z.mean(axis=0)
    _, s, rows = np.linalg.svd(z - mean, full_matrices=False)
    return (np.square(s) / np.square(s).sum())[:2].tolist(), lambda x: (x - mean) @ rows[:2].T


def kept_analysis(run: Run, suite: CubeSuite, n_slices: int = 15, progress: bool = False) -> dict:
    """`study` from controls.json where these weights and sets made it, else made and kept there."""
    sets = [further_set(run, suite, name)[0] for name in ("CV", "1P")]
    key = weights_key(run, controls.VERSION, n_slices, suite.n_cubes, [found.n_cubes if found else 0 for found in sets])
    path = run.folder / "controls.json"
    if path.exists():
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept.get("key") == key:
            return kept["controls"]
    found = study(run, suite, n_slices, progress)
    write_atomically(path, json.dumps({"key": key, "controls": found, "made": provenance()}, indent=1))
    return found
