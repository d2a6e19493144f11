"""What the note leaves open, varied one by one: trainings that see as many slices of the same cubes.

python -m tests.benchmarks.choices [--steps N] [ARM ...] trains what is missing in build/choices/ (seven minutes an arm
on two cores; what is interrupted goes on), judges each arm on 64 universes of another seed, and writes the table
between the marks of docs/note.md.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import torch

from uvae_lib.analysis.metrics import probe
from uvae_lib.cubes.suite import CubeSuite
from uvae_lib.files import write_atomically
from uvae_lib.generation.sample import draw_h
from uvae_lib.presets import DEMO, PARAMETERS, Config
from uvae_lib.runs.encode import decode, encode_cube, reconstruct_given_others, spread_slices
from uvae_lib.runs.run import Run, provenance
from uvae_lib.simulation.suite import load_suite, simulate_suite
from uvae_lib.statistics import fvu, power_spectrum, r2
from uvae_lib.training.fit import fit

from .measure import put_between

ROOT = Path(__file__).parents[2]
OUT = ROOT / "build" / "choices"
SEED = 2_000_003  # of the universes that choices are judged by
N_JUDGED, N_SLICES, N_SEEN, LARGEST = 64, 15, 8, 4  # universes, slices of each for z, and drawn; rings of k
ARMS = {  # name: fields that differ from the preset demo
    "as chosen": {},
    "no taught start": {"training": {"taught_steps": 0}},
    "kl_z = 10": {"loss": {"kl_z": 10.0}},
    "another seed": {"training": {"seed": 1}},
    "three sets of eight": {"training": {"set_size": 8, "sets_per_step": 3}},
    "kl_h = 30": {"loss": {"kl_h": 30.0}},
    "kl_h = 300": {"loss": {"kl_h": 300.0}},
    "sets are summed": {"model": {"pooling": "sum"}},
    "half the rate": {"training": {"lr": 5e-4}},
    "kl_z = 3": {"loss": {"kl_z": 3.0}},
    "no taught start, another seed": {"training": {"taught_steps": 0, "seed": 1}},
    "kl_z = 30": {"loss": {"kl_z": 30.0}},
    "q(h) as wide as its prior at first": {"model": {"logvar_h": 0.0}},
}
COLUMNS = ("FVU", "R² Omega_m", "R² sigma_8", "KL(z): width", "offset", "spread", "power, z of cubes", "power, N(0, I)")


def config_of(arm: str, steps: int) -> Config:
    """An arm: the preset demo with other steps, as many of them taught in proportion, and fields of its own."""
    training = replace(DEMO.training, steps=steps, taught_steps=7 * steps // 16)
    config = replace(DEMO, name="choices", training=training)
    return replace(config, **{part: replace(getattr(config, part), **ARMS[arm][part]) for part in ARMS[arm]})


@torch.inference_mode()
def judge(run: Run, judged: CubeSuite) -> dict[str, float]:
    """The numbers of `COLUMNS`: latents of 15 slices, parts of KL(z) [nats] of four, power of decoded draws of h at the
    largest scales over that of reconstructions."""
    generator, sets = torch.Generator().manual_seed(0), {}
    for name, suite in (("known", run.open_suite()), ("judged", judged)):
        sets[name] = [spread_slices(run, suite, cube, N_SLICES) for cube in range(suite.n_cubes)]
    posteriors = {name: [encode_cube(run, slices) for slices in of] for name, of in sets.items()}
    z = {name: torch.stack([q.mu for q in of]).numpy() for name, of in posteriors.items()}
    known, truth = (suite.params[[*PARAMETERS]].to_numpy(float) for suite in (run.open_suite(), judged))
    slices = [each[:N_SEEN] for each in sets["judged"]]
    means = [reconstruct_given_others(run, each) for each in slices]
    many = torch.stack([q.sample(generator) for q in posteriors["judged"] for _ in range(N_SEEN)])
    white, other = (torch.randn(many.shape, generator=generator) for _ in range(2))
    drawn = [decode(run, draw_h(run, of, white, completed=False)) for of in (many, other)]
    power, *powers = (power_spectrum(x, 1.0)[1].mean(dim=(0, 1))[:LARGEST].log() for x in (torch.cat(means), *drawn))
    last = run.history.iloc[-1]
    values = [
        fvu(torch.cat(slices), torch.cat(means)).item(),
        *r2(truth, probe(z["known"], known, z["judged"])),
        *(last[f"val_kl_z_{part}"] for part in ("width", "offset", "spread")),
        *((each - power).mean().exp().item() for each in powers),
    ]
    return dict(zip(COLUMNS, map(float, values), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("arms", nargs="*", help=f"of {', '.join(ARMS)}; all when absent")
    parser.add_argument("--steps", type=int, default=700, help="of each training, of 24 slices")
    asked = parser.parse_args()
    if unknown := {*asked.arms} - {*ARMS}:
        parser.error(f"found {', '.join(unknown)}; expected some of {', '.join(ARMS)}")
    load_suite(DEMO)
    judged = simulate_suite(OUT / "judged", replace(DEMO.simulation, n_lh=N_JUDGED, n_cv=0, n_1p=0, seed=SEED))["LH"]
    file = OUT / f"{asked.steps}.json"
    found = json.loads(file.read_text()) if file.exists() else {"made by": provenance(), "arms": {}}
    for arm in asked.arms or ARMS:
        if arm not in found["arms"]:
            run = fit(config_of(arm, asked.steps), OUT / f"{asked.steps} {arm}", resume=True)
            found["arms"][arm] = judge(run, judged)
            write_atomically(file, json.dumps(found, indent=1))
            print(arm, found["arms"][arm], flush=True)
    rows = [
        [arm, *(f"{found['arms'][arm][c]:.{0 if 'KL' in c or c in ('offset', 'spread') else 2}f}" for c in COLUMNS)]
        for arm in ARMS
        if arm in found["arms"]
    ]
    table = "\n".join(f"| {' | '.join(row)} |" for row in (["", *COLUMNS], ["---"] * (1 + len(COLUMNS)), *rows))
    made = found["made by"]
    note = f"{asked.steps} steps of 24 slices, {N_JUDGED} judged universes; commit {made['commit']}, {made['machine']}."
    put_between(ROOT / "docs" / "note.md", "choices", f"{table}\n\n{note}\n")


if __name__ == "__main__":
    main()
