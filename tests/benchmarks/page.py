"""docs/results.md from the stored parts: every figure beside its rival and its error."""

import math

PARAMETERS = """Differences are paired: the same universes are drawn for both (bootstrap). A neural posterior is held
against the neural posterior on z, a ridge against the ridge on z."""
LABELS = "± is the standard deviation over draws of the labelled cubes."
SLICES = "Width: that of q(z) as the ridge reads it. Regions: of the neural posterior on z."
DRAWN = """Mean difference to true slices, in units of the scatter of one set of true slices against another; ± its
standard error. Gaps of P(k) and PDF are relative. An AUC of 0.5 is chance; ± is its scatter where nothing can be told
apart."""
CLOSURE = """Slices drawn at parameters that are asked for, read back by the ridge on z. The last row is the bias of the
ridge itself."""
SCALES = """Bias of the ridge on z, in its rms errors on judged universes. Slices are reconstructed and completed, so
that large structures are those of the true ones, and then waves are swapped."""
SHIFTS = """Bias is in rms errors of the same ridge on unchanged universes; the warning is the chance that a cube of the
training's kind is as far off in z or in unexplained variance."""


def number(value: float | None, digits: int = 3) -> str:
    """A number with so many decimals; a dash for what is not known."""
    return "–" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def table(head: list[str], rows: list[list[str]]) -> str:
    """A table of Markdown."""
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in [head, ["---"] * len(head), *rows])


def parameters(found: dict, networks: dict) -> str:
    """R^2 and rms errors of all readers, and by how much a reader of z is ahead of each."""
    names = list(next(iter(found["readers"].values()))["r2"])
    head = ["from 15 slices", *(f"R² of {p} [68 %]" for p in names), *(f"rms error of {p}" for p in names),
            *(f"z minus this, R² of {p}" for p in names)]  # fmt: skip
    rows = []
    for name, row in found["readers"].items():
        own = name in ("ridge on z", "neural posterior on z")
        gaps = ["" if own else f"{number(a)} ± {number(b)}" for a, b in row["z_minus_this"].values()]
        rows.append([name, *_scores(row, names), *gaps])
    for name, row in networks.items():
        note = "" if row["converged"] else ", **not converged**"
        rows.append([f"{name} ({row['steps']} steps{note})", *_scores(row, names), *["" for _ in names]])
    if "r2" in found["floor"]:
        limit = [number(found["floor"]["r2"][p][0]) for p in names]
        errors = [number(found["floor"]["error"][p][0]) for p in names]
        rows.append(["Fisher forecast, P(k) of independent planes", *limit, *errors, *["" for _ in names]])
    return table(head, rows)


def _scores(row: dict, names: list[str]) -> list[str]:
    ends = row["r2_interval"]
    r2 = [f"{number(row['r2'][p])} [{number(ends[p][0])}, {number(ends[p][1])}]" for p in names]
    return r2 + [number(row["error"][p]) for p in names]


def labels(found: dict, names: list[str]) -> str:
    """R^2 against the number of labelled cubes."""
    found = {name: row for name, row in found.items() if isinstance(row, dict) and "counts" in row}
    counts = next(iter(found.values()))["counts"]
    rows = [
        [
            f"ridge on {name}, {p}",
            *(f"{number(a[i])} ± {number(b[i])}" for a, b in zip(row["r2"], row["scatter"], strict=True)),
        ]
        for i, p in enumerate(names)
        for name, row in found.items()
    ]
    return table(["R² with so many labelled cubes", *counts], rows)


def slices(found: dict, names: list[str]) -> str:
    """What more slices tell."""
    head = ["slices"]
    for p in names:
        head += [f"R² of {p}, mean of q(z)", "draw of q(z)", "width / error"]
    head += [f"68 % regions hold: {p}" for p in (*names, "both")]
    rows = []
    for row in found["rows"]:
        cells = [row["slices"]]
        for i in range(len(names)):
            cells += [number(row["r2"][i]), number(row["r2_draws"][i]), number(row["width_over_error"][i], 2)]
        shares = row.get("coverage", {})
        rows.append(cells + [number(shares.get(p), 2) for p in (*names, "both")])
    return table(head, rows) + f"\n\nBinomial band of the coverage: 0.68 ± {number(found['band'])}."


def drawn(found: dict) -> str:
    """Numbers of drawn slices, in units of the scatter of true against true, and classifiers."""
    kinds = list(found)
    first = found[kinds[0]]
    rows = [
        [
            name,
            *(
                f"{number(found[kind]['numbers']['gap'][i], 1)} ± {number(found[kind]['numbers']['error'][i], 1)}"
                for kind in kinds
            ),
        ]
        for i, name in enumerate(first["numbers"]["names"])
    ]
    rows.append(["P(k), largest gap up to half Nyquist", *(f"{found[kind]['power_gap']:.1%}" for kind in kinds)])
    rows.append(["pixel PDF, largest gap", *(f"{found[kind]['pdf_gap']:.1%}" for kind in kinds)])
    scatter = [found[kind]["covariance"] for kind in kinds]
    rows.append(
        [
            "scatter of ln P(k), ratio",
            *(f"{number(min(x['scatter']), 2)} to {number(max(x['scatter']), 2)}" for x in scatter),
        ]
    )
    rows.append(["correlations of ln P(k), rms gap", *(number(x["correlation"], 2) for x in scatter)])
    rows.append(["AUC, logistic regression on the numbers", *(number(found[kind]["logistic"], 2) for kind in kinds)])
    for i, cell in enumerate(first["network"]):
        text = f"AUC, network, smoothed by {cell['smoothing']:g} voxels, {cell['n_train']} slices learned from"
        values = [found[kind]["network"][i] for kind in kinds]
        rows.append([text, *(f"{number(x['auc'], 2)} ± {number(x['scatter'], 2)}" for x in values)])
    return table(["", *kinds], rows)


def closure(found: dict) -> str:
    """Asked against read."""
    head = ["gap in errors of the probe", *(f"{p}, {what}" for p in found["names"] for what in ("median", "largest"))]
    rows = [
        [name, *(number(row[what][i], 1) for i in range(len(found["names"])) for what in ("median", "largest"))]
        for name, row in found["rows"].items()
    ]
    return table(head, rows)


def scales(found: dict) -> str:
    """What the ridge reads from slices whose scales are swapped."""
    rows = [
        [name, *(f"{number(a, 2)} ± {number(b, 2)}" for a, b in zip(row["bias"], row["error"], strict=True))]
        for name, row in found["rows"].items()
    ]
    return table(["slices", *(f"bias of {p} [errors]" for p in found["names"])], rows)


def shifts(found: dict) -> str:
    """Bias, coverage and warnings on changed cubes."""
    names = found["names"]
    readers = list(next(iter(found["rows"].values()))["bias"])
    head = ["cubes", *(f"bias [errors], {reader}: {', '.join(names)}" for reader in readers),
            f"68 % regions hold: {', '.join(names)}, both", "AUROC of the warning", "warned (p < 0.01)"]  # fmt: skip
    rows = []
    for name, row in found["rows"].items():
        bias = [", ".join(number(x, 2) for x in row["bias"][reader]) for reader in readers]
        shares = ", ".join(number(x, 2) for x in row.get("coverage", {}).values())
        warned = number(row.get("warned"), 2)
        rows.append([name, *bias, shares or "–", number(row.get("auroc"), 2), warned])
    return table(head, rows)


def page(found: dict) -> str:
    """The page."""
    about, names = found["about"], list(next(iter(found["parameters"]["readers"].values()))["r2"])
    config, info, options = about["config"], about["info"], about["options"]
    parts = [
        ("Parameters", parameters(found["parameters"], found["networks"]), PARAMETERS),
        ("Labels", labels(found["labels"], names), LABELS),
        ("Slices", slices(found["slices"], names), SLICES),
        ("Drawn slices", drawn(found["drawn"]), f"{options['drawn_universes']} judged universes. {DRAWN}"),
        ("Closure", closure(found["closure"]), CLOSURE),
        ("Scales", scales(found["scales"]), f"{found['scales']['n']} judged universes. {SCALES}"),
        ("Changed cubes", shifts(found["shifts"]), f"{options['changed_universes']} judged universes. {SHIFTS}"),
    ]
    made, steps, learned = about["made"], config.training.steps, about["learned"]
    head = (
        f"`make results` wrote this page from the run `{options['run']}`: preset {config.name}, {steps} steps, "
        f"trained at commit {info.get('commit', 'unknown')} on {info.get('machine', 'unknown')}; judged at commit "
        f"{made['commit']} on {made['machine']}. The {about['n']} judged universes have a seed of their own, and no "
        f"choice was made by them; readers of parameters learned from {learned} labelled cubes of the run. "
        "Brackets and ± are 68 % over universes, unless said otherwise."
    )
    text = [f"## {title}\n\n{body}\n\n{note}" for title, body, note in parts]
    return "\n\n".join(["# Results", head, *text]) + "\n"
