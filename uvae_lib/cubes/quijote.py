"""Quijote's density fields (arXiv:1909.05273) and its Big Sobol Sequence, by their documented names.

`3D_cubes/{cosmology}/{realization}/df_m_{N}_{MAS}_z={z}.npy` holds one cube, the density contrast delta. In the Big
Sobol Sequence it is `df_m_CIC_z=0.00.hdf5`, data set `df`, particles in a voxel. Realizations may be missing.
"""

import re
from pathlib import Path

from .arrays import open_arrays, refusal
from .layout import Layout, choose, files_below

NAME = re.compile(r"df_m_(?:\d+_)?(?:[A-Z]+_)?z=(?P<z>\d+(?:\.\d+)?)\.(?:npy|hdf5)")
COSMOLOGY = re.compile(r"fiducial\w*|latin_hypercube\w*|BSQ|(?:Om|Ob2?|h|ns|s8|Mnu|w|DC|LC|EQ|OR\w*)_[pm]+\w*")
COLUMNS = ("Omega_m", "Omega_b", "h", "n_s", "sigma_8", "M_nu", "w")
USUAL = ("latin_hypercube", "latin_hypercube_nwLH", "BSQ", "fiducial")


def find(path: Path, told: dict) -> Layout | None:
    """One cube a realization, of one cosmology: any folder of the tree, or one file; None for other names.

    Of several redshifts the lowest is usual; between grids and assignment schemes field= decides, by the file's name.
    """
    path = path.absolute()
    files = [file for file in ([path] if path.is_file() else files_below(path)) if NAME.fullmatch(file.name)]
    files = [f for f in files if f.parent.name.isdigit() and COSMOLOGY.fullmatch(f.parent.parent.name)]
    if not files:
        return None
    cosmology = choose(path, "set_name", {f.parent.parent.name for f in files}, told.get("set_name"), USUAL)
    files = [f for f in files if f.parent.parent.name == cosmology]
    redshifts = {NAME.fullmatch(f.name)["z"] for f in files}
    z = choose(path, "redshift", redshifts, told.get("redshift"), [min(redshifts, key=float)])
    files = [f for f in files if NAME.fullmatch(f.name)["z"] == z]
    name = choose(path, "field", {f.name for f in files}, told.get("field"))
    files = sorted((f for f in files if f.name == name), key=lambda f: int(f.parent.name))
    stacks = tuple(stack for f in files for stack in open_arrays(f))
    if len(stacks) != len(files) or len({stack.shape for stack in stacks}) > 1:
        raise refusal(path, f"realizations of several shapes called {name}", "one cube in each", "move the others away")
    folder, numbers = files[0].parent.parent, [f.parent.name for f in files]
    own = folder / "latin_hypercube_params.txt"  # its name in the folder of every hypercube
    tables = [
        folder / f"{cosmology}_params.txt",
        own,
        *(p / f"{cosmology}_params.txt" for p in list(folder.parents)[:2]),
    ]
    return Layout(
        source=f"Quijote {cosmology}: {len(files)} realizations of {name} ({path})",
        files=stacks,
        ids=tuple(f"Quijote/{cosmology}/{number}" for number in numbers),
        keys=[(str(int(number)),) for number in numbers],
        box_size=1000.0,
        box_from="as documented for Quijote",
        field_type="delta" if name.endswith(".npy") else "counts",
        field=name,
        redshift=float(z),
        params=next((table for table in tables if table.is_file()), None),
        columns=COLUMNS,
        widths=(5, 6, 7),
        by_order="number",
        notes=[f"{len(redshifts)} redshifts, z = {z} is opened"] if len(redshifts) > 1 else [],
    )
