"""Reader of the CAMELS Multifield Dataset (arXiv:2109.10915), whose layout our simulations share.

3D grids    `Grids_{field}_{suite}_{set}_{N}_z={z}.npy`, (n, N, N, N)
2D maps     `Maps_{field}_{suite}_{set}_z={z}.npy`, (15 n, N, N), fifteen slices a universe
parameters  `params_{set}_{suite}.txt`, row i belongs to universe i
"""

import json
import re
from functools import partial
from pathlib import Path

import pandas as pd

from . import parameters
from .arrays import open_npy, refusal, stacked
from .layout import ReaderOptions, Remarks, SuiteFiles, choose, files_below, files_in

REDSHIFT = r"z=(?P<z>\d+(\.\d+)?)"
GRIDS = re.compile(rf"Grids_(?P<field>[^_]+)_(?P<suite>.+)_(?P<set>[^_]+)_(?P<side>\d+)_{REDSHIFT}\.npy")
MAPS = re.compile(rf"Maps_(?P<field>[^_]+)_(?P<suite>.+)_(?P<set>[^_]+)_{REDSHIFT}\.npy")
SUITES = ("IllustrisTNG", "SIMBA", "Astrid", "EAGLE", "Magneticum", "Ramses", "Enzo")
DENSITIES = ("Mcdm", "Mtot", "Mgas", "Mstar", "HI", "ne")
# sets with one box [Mpc/h] in all suites; CV and 1P come in boxes of 25 and 50
BOX = {"LH": 25.0, "EX": 25.0, "BE": 25.0, "SB28": 25.0, "SB35": 50.0}
LENGTH = re.compile(r"(?<![A-Za-z0-9])(?:L(\d+)(?=n\d|[_./-]|$)|(\d+)[ _-]?[Mm]pc)")  # L50n512, 50Mpc in names


def grids(path: Path, request: ReaderOptions, pattern: re.Pattern = GRIDS, maps: int = 0) -> SuiteFiles:
    """3D grids: a file, or a folder with files of several fields and sets."""
    remarks = Remarks()
    if path.is_dir():
        path = _choose_file(path, request, pattern, remarks)
    file = stacked(open_npy(path), maps)
    match = pattern.fullmatch(path.name)  # another name is possible with format=
    name = match.groupdict() if match else {"suite": path.stem, "set": "?", "field": "?", "z": "?"}
    universe = name["suite"].removeprefix("Nbody_")  # an N-body suite repeats its hydrodynamic twin's universes
    ids = tuple(f"{universe}/{name['set']}/{i}" for i in range(file.shape[0]))
    table = request.params
    if table is None:
        table = parameters.camels_file(path.parent, name["suite"], name["set"])
    what = "2D maps, 15 a universe" if maps else "3D grids"
    source = f"CAMELS {what}: suite {name['suite']}, set {name['set']}, field {name['field']}, z = {name['z']}"
    box, box_from, box_caution = _box(path, name, table)
    if int(name.get("side") or file.shape[-1]) != file.shape[-1]:
        remarks.cautions.append(f"{path.name} says {name['side']} voxels a side, the array has {file.shape[-1]}")
    if name["field"] not in (*DENSITIES, "?"):
        text = f"field {name['field']} is no density: divided by its mean it is not an overdensity of matter"
        remarks.cautions.append(f"suspicious unit: {text}; use Mcdm or Mtot")
    return SuiteFiles(
        format="cmd-maps" if maps else "cmd-grids",
        source=f"{source} ({path})",
        files=(file,),
        ids=ids,
        params=_params(table, name, ids, remarks),
        box_size=box,
        box_from=box_from,
        box_caution=box_caution,
        **vars(remarks),
    )


maps = partial(grids, pattern=MAPS, maps=15)  # ready-made sets of fifteen slices a universe


def _choose_file(folder: Path, request: ReaderOptions, pattern: re.Pattern, remarks: Remarks) -> Path:
    """The file of the field and set asked for, or of the usual ones, at the lowest redshift; notes name the others."""
    found = [(file, pattern.fullmatch(file.name)) for file in files_in(folder)]
    if not any(match for _, match in found):
        found = [(file, pattern.fullmatch(file.name)) for file in files_below(folder)]
    parts = {file: match.groupdict() for file, match in found if match}
    if not parts:
        expected = f"names like {pattern.pattern[:6].strip('(')}..."
        raise refusal(folder, "no file of that layout", expected, "leave format= out")
    usual = {"field": (request.field, ("Mcdm", "Mtot")), "set": (request.set_name, ("LH",))}
    for key in ("suite", "field", "set", "side"):
        values = sorted({p[key] for p in parts.values() if p.get(key)})
        chosen = choose(folder, key, values, *usual.get(key, (None, ())), remarks)
        parts = {file: p for file, p in parts.items() if p.get(key) == chosen}
    latest = min(parts, key=lambda file: float(parts[file]["z"]))
    if len(parts) > 1:
        remarks.notes.append(f"z = {parts[latest]['z']} of {len(parts)} redshifts; name the file itself for another")
    return latest


def _params(source, name: dict[str, str], ids: tuple[str, ...], remarks: Remarks) -> pd.DataFrame:
    table = parameters.parameter_table(source, parameters.CAMELS, ids, remarks)
    cosmology = [column for column in table if column in ("Omega_m", "sigma_8")]
    if name["suite"].startswith("Nbody_") and table.shape[1] > len(cosmology) > 0:
        remarks.notes.append("N-body suite: the astrophysical parameters mean nothing here and are left out")
        table = table[cosmology]
    return table


def _box(path: Path, name: dict[str, str], table) -> tuple[float | None, str, str]:
    """[Mpc/h] or None, what told it (our record, names of files and folders, the set), and what to warn of."""
    sidecar = path.parent / f"simulation_{name['set']}_{name.get('side')}.json"
    if sidecar.is_file():
        try:
            box = float(json.loads(sidecar.read_text(encoding="utf-8"))["settings"]["box_size"])
            return box, f"from {sidecar.name}", ""
        except (OSError, ValueError, KeyError, TypeError) as error:
            found = "no number settings.box_size"
            raise refusal(sidecar, found, "the record of a simulation", "restore it, or move it away") from error
    beside = [Path(table).name] if isinstance(table, str | Path) else []
    for place in (path.name, *beside, str(path.absolute().parent)):
        if told := LENGTH.findall(place):
            return float(max(told[-1])), f"by the name of {place}", ""
    if re.sub(r"^Nbody_|_L\d+n\d+$", "", name["suite"]) not in SUITES:
        return None, "", ""
    if name["set"] in BOX:
        return BOX[name["set"]], f"assumed, as documented for the set {name['set']} of CAMELS", ""
    caution = (
        f"a box of 25 Mpc/h is assumed for the set {name['set']} of CAMELS, which comes in boxes of 25 and 50; every k "
        "depends on it; pass box_size= (--data.box-size)"
    )
    return 25.0, "assumed: CAMELS has this set in boxes of 25 and 50", caution
