"""The CAMELS Multifield Dataset (arXiv:2109.10915) by its documented names, which our simulations share.

3D grids    `Grids_{field}_{suite}_{set}_{N}_z={z}.npy`, (n, N, N, N)
2D maps     `Maps_{field}_{suite}_{set}_z={z}.npy`, (15 n, N, N), fifteen slices a universe
parameters  `params_{set}_{suite}.txt`, row i belongs to universe i
"""

import json
import re
from pathlib import Path

from .arrays import open_arrays, reading
from .layout import CubeSuite, documented

HYDRO = "IllustrisTNG|SIMBA|Astrid|EAGLE|Swift-EAGLE|Magneticum|Ramses|Enzo"
FIELDS = "Mgas|Vgas|T|P|Z|HI|ne|B|MgFe|Mcdm|Vcdm|Mstar|Mtot"
NAME = re.compile(
    rf"(?:^|/)(?P<kind>Grids|Maps)_(?P<field>{FIELDS})_(?P<suite>(?:Nbody_)?(?:{HYDRO})(?:_L\d+n\d+)?|JaxPM)_"
    r"(?P<set_name>LH|CV|EX|BE|1P|SB\d+)(?:_(?P<side>\d+))?_z=(?P<redshift>\d+(?:\.\d+)?)\.npy$"
)
USUAL = {"set_name": ["LH"], "field": ["Mcdm", "Mtot"], "suite": [], "kind": ["Grids"], "side": [], "redshift": []}
COLUMNS = ("Omega_m", "sigma_8", "A_SN1", "A_AGN1", "A_SN2", "A_AGN2")  # in this order of these suites
ORDERED = ("IllustrisTNG", "SIMBA", "Astrid", "JaxPM")
DENSITIES = ("Mcdm", "Mtot", "Mgas", "Mstar", "HI", "ne")
SIZED = re.compile(r"(?:^|_)L(\d+)n\d+(?=[_.]|$)")  # IllustrisTNG_L50n512, as CAMELS writes boxes
MAPS, DOCUMENTED = 15, "as documented for CAMELS"


def find(path: Path, told: dict) -> CubeSuite | None:
    """The cubes of a file, or of one of the files in a folder; None for what CAMELS does not name.

    Of several sets LH is usual, of fields Mcdm or Mtot, of redshifts the lowest.
    """
    names = documented(path, NAME, USUAL, told)
    if not names:
        return None
    (file, name), *_ = names.items()
    set_name, suite = name["set_name"], name["suite"]
    (stack,) = open_arrays(file, MAPS if name["kind"] == "Maps" else 0)
    twin, n = suite.removeprefix("Nbody_"), stack.shape[0]  # a hydrodynamic twin has the same
    table, base = _table(file.parent, suite, set_name), SIZED.sub("", twin)
    box, box_from = _box(file, name, table)
    cautions = []
    if name["side"] not in ("", str(stack.shape[-1])):
        cautions.append(f"{file.name} says {name['side']} voxels a side, the array has {stack.shape[-1]}")
    if name["field"] not in DENSITIES:
        cautions.append(f"field {name['field']} is no density: over its mean it is no overdensity of matter")
    if set_name in ("CV", "1P") and box_from == DOCUMENTED and "box_size" not in told:
        cautions.append(f"a box of 25 Mpc/h is taken ({set_name} comes in 50 too); if it is not, pass box_size=")
    return CubeSuite(
        source="CAMELS {kind}: {suite}, set {set_name}, field {field}, z = {redshift}".format(**name) + f" ({file})",
        files=(stack,), ids=tuple(f"{twin}/{set_name}/{i}" for i in range(n)),
        keys=[(f"{set_name}_{i}", str(i)) for i in range(n)], by_order="row", box_size=box, box_from=box_from,
        field_type="overdensity" if base == "JaxPM" else "density", field=name["field"],
        redshift=float(name["redshift"]), table=table, columns=COLUMNS[:2] if twin != suite else COLUMNS,
        widths=() if base not in ORDERED else (2, 6, 28) if set_name == "SB28" else (2, 6),
        related=set_name in ("1P", "EX", "BE"), cautions=cautions,
    )  # fmt: skip


def _table(folder: Path, suite: str, set_name: str) -> Path | None:
    """The parameter file of a suite and set, under any of its documented names, here or one folder up."""
    base = suite.removeprefix("Nbody_")
    stems = f"{set_name}_{suite}", f"{suite}_{set_name}", f"{set_name}_Nbody_{base}", f"{set_name}_{base}", suite, base
    names = [f"params_{stem}.txt" for stem in stems]
    names += [f"CosmoAstroSeed_{SIZED.sub('', base)}{end}" for end in (f"*_{set_name}.txt", ".txt")]
    return next((f for name in names for place in (folder, folder.parent) for f in sorted(place.glob(name))), None)


def _box(file: Path, name: dict, table: Path | None) -> tuple[float | None, str]:
    """[Mpc/h] and what told it: our record, L50n512 in names, the documentation."""
    record = file.parent / f"simulation_{name['set_name']}_{name['side']}.json"
    if name["suite"] == "JaxPM":
        with reading(record):
            settings = json.loads(record.read_text(encoding="utf-8"))["settings"] if record.is_file() else {}
            return settings.get("box_size"), f"from {record.name}"
    for place in (name["suite"], table.name if table else "", file.absolute().parent.name):
        if told := SIZED.search(place):
            return float(told[1]), f"by the name of {place}"
    return (50.0 if name["set_name"] == "SB35" else 25.0), DOCUMENTED
