"""Reader of Quijote's density fields (arXiv:1909.05273) and of its Big Sobol Sequence.

`3D_cubes/{cosmology}/{realization}/df_m_{N}_{MAS}_z={z}.npy` holds one cube, the density contrast delta. In
the Big Sobol Sequence it is `df_m_CIC_z=0.00.hdf5`, data set `df`, particles in a voxel. Realizations may be
missing.
"""

import re
from pathlib import Path

import pandas as pd

from . import parameters
from .arrays import Hdf5File, refusal
from .layout import (
    ReaderOptions,
    Remarks,
    SuiteFiles,
    check_sides,
    choose,
    files_in,
    folders_in,
    open_cubes_of,
)

NAME = re.compile(r"df_m_((?P<side>\d+)_)?((?P<mas>[A-Z]+)_)?z=(?P<z>\d+(\.\d+)?)\.(npy|hdf5)")
BOX = 1000.0  # [Mpc/h]


def density_fields(path: Path, request: ReaderOptions) -> SuiteFiles:
    """One cube a realization, of one cosmology: any folder of the tree, or one file."""
    remarks = Remarks()
    files = _files_of_set(path, request, remarks) if path.is_dir() else [path.absolute()]
    stacks = tuple(open_cubes_of(file, request.dataset) for file in files)
    check_sides(stacks)
    folder = files[0].parent.parent
    ids = tuple(f"Quijote/{folder.name}/{file.parent.name}" for file in files)
    return SuiteFiles(
        format="quijote",
        source=f"Quijote {folder.name}: {len(files)} realizations of {files[0].name} ({path})",
        files=stacks,
        ids=ids,
        params=_params(folder, request.params, ids, remarks),
        box_size=BOX,
        box_from="as documented for Quijote",
        field_type="counts" if isinstance(stacks[0], Hdf5File) else None,
        **vars(remarks),
    )


def find_sets(path: Path) -> dict[str, list[Path]]:
    """{cosmology: its realization folders, by number}, for a path at any level of the tree."""
    path = path / "3D_cubes" if (path / "3D_cubes").is_dir() else path
    if any(NAME.fullmatch(file.name) for file in files_in(path)):
        return {path.absolute().parent.name: [path]}
    found = {}
    for folder in [path, *folders_in(path)]:
        numbered = sorted((f for f in folders_in(folder) if f.name.isdigit()), key=lambda f: int(f.name))
        if any(NAME.fullmatch(file.name) for f in numbered[:100] for file in files_in(f)):
            found[folder.absolute().name] = numbered
    return found


def _files_of_set(path: Path, request: ReaderOptions, remarks: Remarks) -> list[Path]:
    """One file a realization, at the lowest redshift; field= decides between grids and assignment schemes."""
    sets = find_sets(path)
    if not sets:
        expected = "folders of realizations with df_m_*.npy"
        raise refusal(path, "no Quijote folders", expected, "leave format= out, or check the path")
    usual = ("latin_hypercube", "latin_hypercube_nwLH", "BSQ", "fiducial")
    realizations = sets[choose(path, "set", sorted(sets), request.set_name, usual, remarks)]
    files = [file for folder in realizations for file in files_in(folder) if NAME.fullmatch(file.name)]
    redshift = {file.name: float(NAME.fullmatch(file.name)["z"]) for file in files}
    lowest = [name for name in redshift if redshift[name] == min(redshift.values())]
    usual = lowest if len(lowest) == 1 else ()
    name = choose(realizations[0].parent, "field", sorted(redshift), request.field, usual, remarks)
    chosen = [file.absolute() for file in files if file.name == name]
    numbers = {int(file.parent.name) for file in chosen if file.parent.name.isdigit()}
    missing = sorted(set(range(max(numbers, default=-1) + 1)) - numbers)
    if len(realizations) > 1 and missing:
        shown = ", ".join(map(str, missing[:5])) + (", ..." if len(missing) > 5 else "")
        remarks.notes.append(f"{len(missing)} realizations missing ({shown}); parameters follow the folders' numbers")
    return chosen


def _params(folder: Path, given, ids: tuple[str, ...], remarks: Remarks) -> pd.DataFrame:
    """The rows that the folders' numbers name; row i for cube i of a table that was handed over."""
    source = parameters.quijote_file(folder) if given is None else given
    rows = [name.rpartition("/")[2] for name in ids]
    if not isinstance(source, str | Path) or source == "none" or not all(row.isdigit() for row in rows):
        return parameters.parameter_table(source, parameters.QUIJOTE, ids, remarks)
    table, last = parameters.read_parameters(source, parameters.QUIJOTE, remarks), max(map(int, rows))
    remarks.notes.append(f"parameters from {source}")
    if last >= len(table):
        found, expected = f"{len(table)} rows of parameters", f"more than {last}, the highest realization"
        raise refusal(source, found, expected, 'pass params= (--data.params) with the matching table, or "none"')
    return table.iloc[[int(row) for row in rows]].reset_index(drop=True)
