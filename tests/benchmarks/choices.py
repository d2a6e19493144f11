"""What the note leaves open, varied one by one: trainings that see as many slices of the same cubes.

python -m tests.benchmarks.choices [--steps N] [ARM ...] trains what is missing in build/choices/ (ten to thirty minutes
an arm on two cores; what is interrupted goes on), judges each arm on 64 universes of another seed, beside the
shipped run and statistics of the same slices, and writes the table between the marks of docs/note.md.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from uvae_lib.analysis.features import PDF_EDGES, moments
from uvae_lib.analysis.metrics import probe
from uvae_lib.cubes.suite import CubeSuite
from uvae_lib.files import write_atomically
from uvae_lib.generation.sample import draw_h
from uvae_lib.presets import DEMO, PARAMETERS, Config
from uvae_lib.runs.encode import decode, encode_cube, reconstruct_given_others, spread_slices
from uvae_lib.runs.run import Run, load_run, provenance
from uvae_lib.simulation.suite import load_suite, simulate_suite
from uvae_lib.statistics import fvu, pixel_pdf, power_spectrum, r2
from uvae_lib.training.fit import fit

from .measure import put_between

ROOT = Path(__file__).parents[2]
OUT = ROOT / "build" / "choices"
SEED = 2_000_003  # of the universes that choices are judged by
N_JUDGED, SIZES, N_SEEN, LARGEST = 64, (1, 3, 15), 8, 4  # universes; slices for z; slices drawn of each; rings of k
SHIPPED, RIVAL = "weights/note", "P(k), PDF and moments"
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


def config_of(arm: str, steps: int) -> Config:
    """An arm: the preset demo with other steps, as many of them taught in proportion, and fields of its own."""
    training = replace(DEMO.training, steps=steps, taught_steps=7 * steps // 16)
    config = replace(DEMO, name="choices", training=training)
    return replace(config, **{part: replace(getattr(config, part), **ARMS[arm][part]) for part in ARMS[arm]})


def read(known: tuple[CubeSuite, Tensor], judged: tuple[CubeSuite, Tensor]) -> list[float]:
    """R^2 of Omega_m and sigma_8 of the judged cubes, from features (n, d) by a ridge learned on the known ones."""
    (teachers, x), (others, y) = (
        (suite.params[[*PARAMETERS]].to_numpy(float), z.numpy()) for suite, z in (known, judged)
    )
    return r2(others, probe(x, teachers, y)).tolist()


def statistics_of(slices: Tensor) -> Tensor:
    """log P(k), distribution and moments of the pixels of a cube's slices (n, 1, H, H), means over these."""
    pixels = slices[:, 0]
    parts = power_spectrum(pixels, 1.0)[1], pixel_pdf(pixels, PDF_EDGES), moments(slices)
    power, *others = (part.mean(dim=0) for part in parts)
    return torch.cat([power.log(), *others])


@torch.inference_mode()
def judge(run: Run, known: CubeSuite, judged: CubeSuite) -> dict[str, list[float]]:
    """FVU of slices given others of their cube; R^2 from `SIZES` slices, of z and of statistics; parts of KL(z) [nats];
    power of decoded draws of h at the largest scales over that of reconstructions, z ~ q(z) and z ~ N(0, I)."""
    generator, found = torch.Generator().manual_seed(0), {}
    cut = [[spread_slices(run, suite, i, SIZES[-1]) for i in range(suite.n_cubes)] for suite in (known, judged)]
    for n in SIZES:
        for name, of in {"z": lambda x: encode_cube(run, x).mu, RIVAL: statistics_of}.items():
            features = (torch.stack([of(slices[:n]) for slices in part]) for part in cut)
            found[f"{name} {n}"] = read(*zip((known, judged), features, strict=True))
    slices = [each[:N_SEEN] for each in cut[1]]
    means = [reconstruct_given_others(run, each) for each in slices]
    z = [encode_cube(run, each) for each in cut[1]]
    drawn = torch.stack([q.sample(generator) for q in z for _ in range(N_SEEN)])
    white, other = (torch.randn(drawn.shape, generator=generator) for _ in range(2))
    new = [decode(run, draw_h(run, of, white, completed=False)) for of in (drawn, other)]
    power, *powers = (power_spectrum(x, 1.0)[1].mean(dim=(0, 1))[:LARGEST].log() for x in (torch.cat(means), *new))
    found["power"] = [(each - power).mean().exp().item() for each in powers]
    found["KL"] = [float(run.history.iloc[-1][f"val_kl_z_{part}"]) for part in ("width", "offset", "spread")]
    return found | {"FVU": [fvu(torch.cat(slices), torch.cat(means)).item()]}


def table(rows: dict[str, dict]) -> str:
    """The judged runs, and the statistics of the slices that they were judged by, as a table in Markdown."""
    head = [
        "",
        "FVU",
        *(f"R², {n} slice{'s' * (n > 1)}" for n in SIZES),
        "KL(z): width, offset, spread",
        "power: q(z), N(0, I)",
    ]
    lines = [head, ["---"] * len(head)]
    for name, row in rows.items():
        parts = [row["FVU"], *(row[f"z {n}"] for n in SIZES), row["KL"], row["power"]]
        digits = [2] * (1 + len(SIZES)) + [0, 2]
        lines.append([name, *(", ".join(f"{x:.{d}f}" for x in part) for part, d in zip(parts, digits, strict=True))])
    last = next(iter(rows.values()))
    lines.append([RIVAL, "", *(", ".join(f"{x:.2f}" for x in last[f"{RIVAL} {n}"]) for n in SIZES), "", ""])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("arms", nargs="*", help=f"of {', '.join(ARMS)}; all when absent")
    parser.add_argument("--steps", type=int, default=DEMO.training.steps, help="of each training, of 24 slices")
    asked = parser.parse_args()
    if unknown := {*asked.arms} - {*ARMS}:
        parser.error(f"found {', '.join(unknown)}; expected some of {', '.join(ARMS)}")
    known = load_suite(DEMO)
    judged = simulate_suite(OUT / "judged", replace(DEMO.simulation, n_lh=N_JUDGED, n_cv=0, n_1p=0, seed=SEED))["LH"]
    file = OUT / f"{asked.steps}.json"
    found = json.loads(file.read_text()) if file.exists() else {"made by": provenance(), "rows": {}}
    for arm in [*(asked.arms or ARMS), SHIPPED]:
        if arm not in found["rows"]:
            place = OUT / f"{asked.steps} {arm}"
            run = load_run(SHIPPED) if arm == SHIPPED else fit(config_of(arm, asked.steps), place, resume=True)
            found["rows"][arm] = judge(run, known, judged)
            write_atomically(file, json.dumps(found, indent=1))
            print(arm, found["rows"][arm], flush=True)
    made = found["made by"]
    text = (
        f"{asked.steps} steps of 24 slices of the demo's cubes, {N_JUDGED} judged universes; {SHIPPED} saw other cubes."
    )
    text += f" Commit {made['commit']}, {made['machine']}."
    rows = {name: found["rows"][name] for name in [*ARMS, SHIPPED] if name in found["rows"]}
    put_between(ROOT / "docs" / "note.md", "choices", f"{table(rows)}\n\n{text}\n")


if __name__ == "__main__":
    main()
