"""One page that a referee can read: every number of a run beside its reference, as one HTML file without a network.

`make_report` writes report.html and merges everything into metrics.json; `findings` computes what takes long.
"""

import base64
import io
import json
from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from .. import latents, plots, plots_z
from ..cubes import CubeSuite
from ..files import write_atomically
from ..model import parameter_table
from ..presets import to_dict
from ..runs import Run, load_run, provenance
from . import controls
from . import cube as card
from . import responses as ledger
from .acceptance import TARGET_HEAD, into_readme, number, target_rows
from .metrics import PARAMETERS, encode_cubes, kept_metrics
from .study import kept_analysis

CSS = """
:root { color-scheme: light dark; --ink: #1c1c1e; --page: #fff; --soft: #6b6b70; --line: #d9d9de; --tint: #f4f4f6;
  --good: #1a7f37; --bad: #b42318; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8e8ea; --page: #17181a; --soft: #a0a0a8; --line: #3a3b40;
  --tint: #222327; --good: #4ac26b; --bad: #ff8a80; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page); max-width: 62rem;
  margin: 2rem auto; padding: 0 1rem; }
h1 { margin-bottom: .2rem; } h2 { margin: 2.5rem 0 .5rem; border-top: 1px solid var(--line); padding-top: 1rem; }
p, figcaption { max-width: 48rem; } figcaption, .soft { color: var(--soft); font-size: .9rem; }
nav a { margin-right: .9rem; white-space: nowrap; } a { color: inherit; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: .92rem; margin: .6rem 0; }
th, td { text-align: left; padding: .25rem .8rem .25rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
figure { margin: 1rem 0; } img { max-width: 100%; height: auto; background: #fff; padding: 6px; border-radius: 6px; }
.yes { color: var(--good); } .no { color: var(--bad); } .note { background: var(--tint); padding: .6rem .9rem; }
.pair { display: flex; flex-wrap: wrap; gap: 0 1rem; } .pair figure { flex: 1 1 20rem; }
pre { background: var(--tint); padding: .8rem; overflow-x: auto; font-size: .82rem; }
"""


# --- what is measured


def make_report(
    folder: str | Path, *, n_slices: int = 15, readme: str | Path | None = None, progress: bool = True
) -> Path:
    """Measure what is not measured yet, write controls.json, metrics.json and report.html; returns the page's path.

    readme   a Markdown file with marks, for the table of targets (`into_readme`)
    """
    run = load_run(folder)
    suite = run.open_suite()
    n_slices = min(n_slices, len(suite.axes) * (suite.n_planes // run.config.data.thickness))
    metrics = kept_metrics(run, suite, n_slices, progress)
    found = kept_analysis(run, suite, n_slices, progress)
    baselines = run.folder / "baselines.json"
    compared = json.loads(baselines.read_text(encoding="utf-8")) if baselines.exists() else {}
    metrics |= {"controls": found} | ({"baselines": compared} if compared else {})
    write_atomically(run.folder / "metrics.json", json.dumps(metrics, indent=1))
    write_atomically(run.folder / "report.html", page(run, suite, metrics))
    if readme:
        into_readme(readme, metrics, run)
    return run.folder / "report.html"


# --- HTML: every text is escaped here


def table(head: Sequence[str], rows: Sequence[Sequence]) -> str:
    """A table that scrolls when it is wide: numbers to the right, True and False as yes and no."""
    numeric = [
        bool(rows) and all(isinstance(row[i], int | float | None) and not isinstance(row[i], bool) for row in rows)
        for i in range(len(head))
    ]

    def cell(value, i: int, tag: str = "td") -> str:
        if isinstance(value, bool):
            return f'<{tag} class="{"yes" if value else "no"}">{"yes" if value else "no"}</{tag}>'
        side = ' class="n"' if numeric[i] or isinstance(value, int | float) else ""
        return f"<{tag}{side}>{escape(number(value) if not isinstance(value, str) else value)}</{tag}>"

    lines = ["".join(cell(x, i) for i, x in enumerate(row)) for row in rows]
    top = "".join(cell(str(x), i, "th") for i, x in enumerate(head))
    return f'<div class="scroll"><table><tr>{top}</tr>{"".join(f"<tr>{line}</tr>" for line in lines)}</table></div>'


def picture(figure: Figure, caption: str) -> str:
    """A figure inside the page, as PNG; slices alone in 256 colours, curves in all."""
    file = io.BytesIO()
    if any(ax.lines for ax in figure.axes):
        figure.savefig(file, format="png", dpi=110)
    data = base64.b64encode(file.getvalue() or figure._repr_png_()).decode()
    text = escape(caption)
    return f'<figure><img alt="{text}" src="data:image/png;base64,{data}"><figcaption>{text}</figcaption></figure>'


def paragraph(text: str, kind: str = "") -> str:
    return f"<p{f' class={kind!r}' if kind else ''}>{escape(text)}</p>"


def pair(*figures: str) -> str:
    return f'<div class="pair">{"".join(figures)}</div>'


def page(run: Run, suite: CubeSuite, metrics: dict) -> str:
    """The whole page; metrics as `make_report` merges them."""
    found, shared = metrics["controls"], card.reference(run, suite, n_slices=metrics["slices_per_cube"])
    sections = {
        "Targets": targets(metrics),
        "Data and split": data(run, suite, found),
        "Networks and training": training(run),
        "Reconstruction, worst first": reconstruction(run, suite, metrics),
        "Samples": samples(run, suite, metrics, shared),
        "Cosmology in z": cosmology(metrics),
        "Controls": control(metrics),
        "Walk in cosmology": walked(found),
        "Ledger of z and h": held_out(found),
        "Card of a universe": example(run, suite, metrics, shared),
        "Provenance": origin(run, metrics),
    }
    title = escape(f"Universe VAE · {run.config.name}")
    links = " ".join(f'<a href="#s{i}">{escape(name)}</a>' for i, name in enumerate(sections))
    body = "".join(
        f'<h2 id="s{i}">{escape(name)}</h2>{"".join(parts)}' for i, (name, parts) in enumerate(sections.items())
    )
    cubes = metrics["cubes"]
    intro = paragraph(
        f"{cubes['test']} held-out cubes, {metrics['slices_per_cube']} slices each, after {cubes['train']} cubes of "
        "training. Every number stands beside what it should be compared with.",
        "soft",
    )
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{CSS}</style></head>'
        f"<body><h1>{title}</h1>{intro}<nav>{links}</nav>{body}</body></html>"
    )


# --- sections


def targets(metrics: dict) -> list[str]:
    """`target_rows` as a table."""
    text = paragraph(
        "Speed, data feed, memory and sliders are measured by `make bench`, not here. Truth, truth: the "
        "even slices of the held-out cubes against the odd ones.",
        "soft",
    )
    return [table(TARGET_HEAD, target_rows(metrics)), text]


def data(run: Run, suite: CubeSuite, found: dict) -> list[str]:
    """Cubes, split, and leaks."""
    shared, renamed = found["leaks"]["shared"], found["leaks"]["renamed"]
    rows = [
        ("cubes", f"{suite.n_cubes} of {suite.side}^3 voxels, {suite.box_size:g} Mpc/h"),
        ("source", suite.source.rsplit(" (", 1)[0]),
        ("format, kind", f"{suite.format}, {suite.kind}"),
        ("split by cube", ", ".join(f"{len(cubes)} {part}" for part, cubes in run.split.items())),
        (
            "slices",
            f"{run.config.data.image_size}^2 pixels, {run.image_box:g} Mpc/h, {run.config.data.thickness} voxel thick",
        ),
        ("pixels", f"(log(y + {run.config.data.eps:g}) - {run.mean:.4f}) / {run.std:.4f}"),
        ("empty voxels", f"{suite.empty_fraction:.4%}" if suite.empty_fraction is not None else "not checked"),
        ("universes in two parts of the split", ", ".join(shared) or "none"),
        ("cubes that are not those of the training", ", ".join(renamed) or "none"),
    ]
    parts = [table(["", ""], rows), *(paragraph(caution, "note") for caution in suite.cautions)]
    if set(PARAMETERS) <= set(suite.params):
        parts.append(picture(plots.cosmologies(suite.params, run.split), "The cosmologies of the split."))
    return parts


def training(run: Run) -> list[str]:
    """The networks and the loss history."""
    rows = [(name, kind, n) for name, kind, n in parameter_table(run.model)]
    return [
        table(["network", "type", "parameters"], rows),
        picture(plots.loss_curves(run.history), "Terms of the loss: training as lines, held-out cubes as dots."),
    ]


def reconstruction(run: Run, suite: CubeSuite, metrics: dict) -> list[str]:
    """The worst slices of all held-out cubes, then the median and the best; r(k) and T(k)."""
    r, n = metrics["reconstruction"], metrics["slices_per_cube"]
    lost = np.array(r["fvu_by_slice"], float)
    order = lost.argsort()[::-1]
    chosen = [*order[:3], order[len(order) // 2], order[-1]]
    views = {i // n: encode_cubes(run, suite, [run.split["test"][i // n]], n)[0] for i in chosen}
    truth, recon = (
        run.to_log(torch.stack([getattr(views[i // n], name)[i % n, 0] for i in chosen])) for name in ("truth", "recon")
    )
    titles = [
        f"{what}: {lost[i]:.2f}" for what, i in zip(("worst", "2nd", "3rd", "median", "best"), chosen, strict=True)
    ]
    rows = [
        ("held-out cubes", r["fvu"], *r["fvu_interval"]),
        ("training cubes", metrics["train"]["fvu"], None, None),
        ("512 Fourier modes (the linear limit)", r["fvu_pca"], *r["fvu_pca_interval"]),
    ]
    return [
        table(["unexplained share of the variance", "", "from", "to (68 %)"], rows),
        picture(
            plots.reconstructions(truth, recon, run.image_box, titles=titles),
            "Unexplained share of each slice's variance.",
        ),
        picture(
            plots.fidelity(r["k"], {"model": r["r"], "512 Fourier modes": r["r_pca"]}, {"model": r["transfer"]}),
            "Phases and amplitudes of reconstructions, scale by scale.",
        ),
    ]


def samples(run: Run, suite: CubeSuite, metrics: dict, shared: card.Reference) -> list[str]:
    """New slices beside true ones, and their spectra and densities over the truth's."""
    view = encode_cubes(run, suite, run.split["test"][:1], 4)[0]
    drawn = latents.sample_slices(run, view.z, 4, torch.Generator().manual_seed(0), shared.noise)
    grid = run.to_log(torch.cat([view.truth, drawn])[:, 0])
    names = {
        "mean_plus_noise": "reconstruction + noise",
        "observed_universe": "new slices, observed universe",
        "dreamt_universe": "slices of universes dreamt from the Gaussian of known z",
        "prior_universe": "slices of universes dreamt from N(0, I)",
        "truth_against_truth": "truth, truth",
    }
    ratios = {
        text: tuple(np.array(metrics[key][n], float) for n in ("power", "power_low", "power_high"))
        for key, text in names.items()
        if key in ("observed_universe", "truth_against_truth")
    }
    rows = [(text, metrics[key]["power_error"], metrics[key]["pdf_error"]) for key, text in names.items()]
    return [
        picture(
            plots.slice_grid(grid, run.image_box, titles=["true"] * 4 + ["new"] * 4),
            "True slices of one held-out "
            "universe; new slices that the model draws for it, with the noise that decoded means lack.",
        ),
        table(["largest error of", "P(k) to half Nyquist", "pixel density, 1 to 99 %"], rows),
        picture(
            plots.spectra(metrics["observed_universe"]["k"], ratios, ylabel="P(k) / truth"),
            "Median and 68 % over cubes.",
        ),
    ]


def _absent(found: dict, name: str, how: str) -> list[str]:
    return [paragraph(f"Not measured: {found['missing'].get(name, 'nothing was found')}. {how}", "note")]


def cosmology(metrics: dict) -> list[str]:
    """Probes in one table, coverage, and how many slices are enough."""
    found = metrics["controls"]
    if "probes" not in found:
        return _absent(found, "parameters", "Probes need the parameters of the cubes.")
    supervised = metrics.get("baselines", {}).get("supervised")
    columns = dict(found["probes"]) | ({"ResNet-18 on the labels": supervised} if supervised else {})
    parts = []
    for name in PARAMETERS:
        rows = [
            (key, *((probe.get(part) or {}).get(name) for part in ("r2", "error", "width")))
            for key, probe in columns.items()
        ]
        parts.append(table([f"{name} from", "R²", "error", "68 % half width"], rows))
    if not supervised:
        parts.append(paragraph("No network was trained on the labels beside this run (baselines.json).", "soft"))
    n, truth = found["n_slices"], np.array(found["truth"])
    z, curve = found["probes"]["z, ridge"], found["curve"]
    parts.append(
        paragraph(
            f"{n} slices of each cube; probes are fitted to training and validation cubes and judged on "
            f"{len(truth)} others. Half widths come from out-of-fold residuals, not from the test.",
            "soft",
        )
    )
    scatter = [
        picture(
            plots.probe_scatter(
                truth[:, i], np.array(z["predicted"])[:, i], np.full(len(truth), z["width"][name]), name
            ),
            f"{name} of unseen cubes, ridge on z.",
        )
        for i, name in enumerate(PARAMETERS)
        if np.ptp(truth[:, i]) > 0
    ]
    parts.append(pair(*scatter))
    parts.append(
        picture(
            plots_z.coverage(controls.LEVELS, z["coverage"], len(truth)),
            "Calibration of the ridge on z: a line below the diagonal promises too much.",
        )
    )
    values = [curve[key] for key in ("sizes", "r2", "r2_power", "error", "read_width")]
    parts.append(
        picture(
            plots_z.slices_needed(*(np.array(v, float) for v in values), curve["trained"], PARAMETERS),
            "How many slices are enough; dotted: the width of q(z) as the probe reads it.",
        )
    )
    rows = [
        (int(s), w, kl, *r, *p)
        for s, w, kl, r, p in zip(*(curve[k] for k in ("sizes", "width", "kl", "r2", "r2_power")), strict=True)
    ]
    head = [
        "slices",
        "width of q(z)",
        "KL [nats]",
        *(f"R² {n}, z" for n in PARAMETERS),
        *(f"R² {n}, P(k)" for n in PARAMETERS),
    ]
    return [*parts, table(head, rows)]


def control(metrics: dict) -> list[str]:
    """Tests that only a simulator allows; each beside what it would read if z were wrong."""
    found = metrics["controls"]
    memory, sample = found["memory"], found["two_sample"]
    rows = []
    if "cv" in found:
        rows.append(
            (
                "variance of z over cubes of one cosmology / over all",
                found["cv"]["ratio"],
                1.0,
                f"p = {found['cv']['p']:.3f}",
            )
        )
    if "axes" in found:
        a = found["axes"]
        rows.append(("distance between axes of a cube / between cubes", a["ratio"], 1.0, "root mean square"))
        rows.append(("axes that find their own cube", a["identified"], 1 / a["n"], "nearest neighbour in z"))
    if "shuffled" in found:
        rows.append(
            ("mixed sets disagree more than a cube's own", found["shuffled"]["auc"], 0.5, "chance of it; 1 is best")
        )
    rows += [
        (
            "z of held-out against training cubes, energy distance",
            sample["relative"],
            0.0,
            f"p = {sample['p']:.3f}; small p: z differs",
        ),
        (
            "generated slices nearer to a training slice than the limit",
            memory["n_copies"],
            0,
            f"of {len(memory['samples'])}",
        ),
        ("a planted copy, shifted and turned, is found with r", memory["planted_copy"], 1.0, "the detector works"),
    ]
    parts = [table(["control", "found", "without effect, or expected", ""], rows)]
    pca, params = found["pca"], np.array(found.get("truth", []))
    groups = {"LH": np.array(pca["lh"])} | ({"CV": np.array(pca["cv"])} if "cv" in pca else {})
    labels = [f"PC {i + 1} of z ({share:.0%})" for i, share in enumerate(pca["shares"])]
    if groups["LH"].shape[1] == 2:
        parts.append(picture(plots_z.clusters(groups, *labels), "Main directions of z over all cubes."))
    if "cv" not in found:
        parts += _absent(found, "CV", "Simulate CV cubes (--simulation.n-cv 24) or download them.")
    elif "read" in found["cv"] and len(params):
        read = np.array(found["cv"]["read"])
        rows = [
            (
                name,
                float(np.mean(found["cv"]["truth"], axis=0)[i]),
                read[:, i].mean(),
                read[:, i].std(ddof=1),
                found["probes"]["z, ridge"]["width"][name],
            )
            for i, name in enumerate(PARAMETERS)
        ]
        parts.append(table(["CV cubes", "true", "mean read", "scatter", "promised half width"], rows))
    parts.append(
        picture(
            plots_z.strips(
                {
                    "generated": memory["samples"],
                    "held-out": memory["held_out"],
                    "planted copy": [memory["planted_copy"]],
                },
                "correlation with the nearest training slice",
                memory["limit"],
            ),
            "Memory: over all shifts, turns and mirror images; the line is what one held-out slice in 1000 auc.",
        )
    )
    if "shuffled" in found:
        s = found["shuffled"]
        parts.append(
            picture(
                plots_z.strips(
                    {"one cube": s["own"], "mixed": s["mixed"]}, "disagreement of q(z) between sets", log=True
                ),
                f"Sets of {s['set_size']} slices: all of one cube, or each from another one.",
            )
        )
    return parts


def walked(found: dict) -> list[str]:
    """Responses of P(k) and pixels, and what the probe reads in what was decoded."""
    if "walk" not in found:
        return _absent(found, "parameters", "The walk needs the parameters of the cubes.")
    parts = (
        []
        if "1P" not in found["missing"]
        else _absent(found, "1P", "Simulate 1P cubes (--simulation.n-1p 10): the truth.")
    )
    for i, (name, row) in enumerate(found["walk"].items()):
        rows = {"1P cubes": "truth", "model": "model", "model, without noise": "model_mean"}
        curves = {label: (row[key]["dlnP"], row[key]["dpdf"]) for label, key in rows.items() if key in row}
        parts.append(
            picture(
                plots_z.response(name, row["model"]["k"], row["model"]["edges"], curves),
                f"z moves along {name} at {row['at']:.2f}, the other parameter held; bands: 68 % over slices.",
            )
        )
        read = {
            label: np.array(row[key])[:, i]
            for label, key in (("1P cubes", "read_truth"), ("decoded", "read"))
            if key in row
        }
        parts.append(
            picture(plots_z.closure(row["values"], read, name), f"Closure: {name} that the probe reads in them.")
        )
    gaps = [
        (name, *(row["mismatch"][k] for k in ("power", "power_scatter", "pdf", "pdf_scatter")))
        for name, row in found["walk"].items()
        if "mismatch" in row
    ]
    if gaps:
        parts.append(table(["error over size of the response", "P(k)", "scatter of the truth", "PDF", "scatter"], gaps))
    return parts


def held_out(found: dict) -> list[str]:
    """Nats by dimension, what the strong dimensions know, and what they do."""
    book, effects = found["ledger"], found["effects"]
    latent, kl, active = (np.array(book[key]) for key in ("latent", "kl", "active"))
    rows = [
        (f"{x}", float(kl[latent == x].sum()), int(active[latent == x].sum()), int((latent == x).sum()))
        for x in ("z", "h")
    ]
    parts = [table(["latent", "KL [nats]", "active dimensions", "of"], rows)]
    parts.append(
        picture(
            plots_z.nats({x: kl[latent == x].astype(float) for x in ("z", "h")}), "Held-out cubes; h a slice, z a cube."
        )
    )
    parts.append(
        picture(
            plots_z.effects(
                effects["k"], effects["z"]["dlnP"], effects["z"]["dims"], effects["h"]["share"], effects["h"]["dims"]
            ),
            "The costliest dimensions: what one standard deviation of "
            "z does to ln P(k), and what share of P(k) a step in h moves.",
        )
    )
    for x, what in (("z", "Δ ln P"), ("h", "share of P")):
        names, bands = ledger.bands(effects, x) if effects[x]["dims"] else ([], [])
        chosen = [int(np.flatnonzero((latent == x) & (np.array(book["dim"]) == dim))[0]) for dim in effects[x]["dims"]]
        information = [key for key in book if key.startswith("mi_") and key != "mi_noise"] if x == "z" else []
        rows = [
            (f"{x}{book['dim'][i]}", book["kl"][i], *(book[key][i] for key in information), *map(float, band))
            for i, band in zip(chosen, bands, strict=True)
        ]
        head = ["dimension", "KL [nats]", *(key.replace("mi_", "information on ") for key in information)]
        parts.append(table([*head, *(f"{what}, {name}" for name in names)], rows) if rows else "")
    if book.get("mi_noise") is not None:
        parts.append(paragraph(f"Mutual information in nats; below {book['mi_noise']:.2f} it is noise.", "soft"))
    return parts


def example(run: Run, suite: CubeSuite, metrics: dict, shared: card.Reference) -> list[str]:
    """The card of the held-out cube that the run reconstructs worst, and how often cards warn."""
    seen = metrics["controls"]["outliers"]
    worst = run.split["test"][int(np.argmax(seen["error"]))]
    made = card.card(run, suite.overdensity(worst), shared, box_size=suite.box_size, name=suite.cube_id(worst))
    limits = [float("inf") if seen[f"{key}_limit"] is None else seen[f"{key}_limit"] for key in ("distance", "error")]
    alarms = [
        int(np.sum(np.array(seen[key]) > limit)) for key, limit in zip(("distance", "error"), limits, strict=True)
    ]
    rows = [(name, distance, *(params.get(p) for p in PARAMETERS)) for name, distance, params in made.nearest]
    return [
        paragraph(
            f"The held-out cube that is reconstructed worst, {suite.cube_id(worst)}. Of {len(seen['error'])} held-out "
            "cubes "
            f"{alarms[0]} are beyond the limit in z, {alarms[1]} in the reconstruction; one in 100 should be."
        ),
        *(paragraph(warning, "note") for warning in made.warnings),
        picture(card.figure(made), "The cube as the run sees it."),
        table(["nearest training universe", "distance in z", *PARAMETERS], rows),
    ]


def origin(run: Run, metrics: dict) -> list[str]:
    """Versions, commit, seeds, machine, and the whole configuration."""
    rows = []
    for what, info in (("training", run.info), ("this report", provenance())):
        rows += [(what, "commit", info.get("commit", "")), (what, "machine", info.get("machine", ""))]
        rows.append((what, "versions", ", ".join(f"{k} {v}" for k, v in info.get("versions", {}).items())))
    config = run.config
    rows.append(
        (
            "seeds",
            "",
            f"training {config.training.seed}, split {config.data.split_seed}, simulation {config.simulation.seed}",
        )
    )
    rows.append(("weights", "blake2b", metrics["weights"]))
    return [table(["", "", ""], rows), f"<pre>{escape(json.dumps(to_dict(config), indent=1))}</pre>"]
