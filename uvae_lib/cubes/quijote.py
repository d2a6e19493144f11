"""Quijote's density fields (arXiv:1909.05273) and its Big Sobol Sequence, by their documented names.

`3D_cubes/{cosmology}/{realization}/df_m_{N}_{MAS}_z={z}.npy` holds one cube, the density contrast delta. In the Big
Sobol Sequence it is `df_m_CIC_z=0.00.hdf5`, data set `df`, particles in a voxel. Realizations may be missing.
"""

import re
from pathlib import Path

from .arrays import open_arrays, refusal
from .layout import Layout, choose, files_below

NAME = re.compile(r"df_m_(?:\d+_)?(?:[A-Z]+_)?z=(\d+(?:\.\d+)?)\.(?:npy|hdf5)")
COSMOLOGY = re.compile(r"fiducial\w*|latin_hypercube\w*|BSQ|(?:Om|Ob2?|h|ns|s8|Mnu|w|DC|LC|EQ|OR\w*)_[pm]+\w*")
COLUMNS = ("Omega_m", "Omega_b", "h", "n_s", "sigma_8", "M_nu", "w")
USUAL = ("latin_hypercube", "latin_hypercube_nwLH", "BSQ", "fiducial")


def find(path: Path, told: dict) -> Layout | None:
    """One cube a realization, of one cosmology: any folder of the tree, or one file; None for other names.

    Of several redshifts the lowest is usual; between grids and assignment schemes field= decides, by the file's name.
    """
    path = path.absolute()
    files = [f for f in files_below(path) if NAME.fullmatch(f.name) and f.parent.name.isdigit()]
    files = [f for f in files if COSMOLOGY.fullmatch(f.parent.parent.name)]
    if not files:
        return None
    cosmology = choose(path, "set_name", {f.parent.parent.name for f in files}, told.get("set_name"), USUAL)
    files = [f for f in files if f.parent.parent.name == cosmology]
    redshifts = {NAME.fullmatch(f.name)[1] for f in files}
    z = choose(path, "redshift", redshifts, told.get("redshift"), [min(redshifts, key=float)])
    name = choose(path, "field", {f.name for f in files if NAME.fullmatch(f.name)[1] == z}, told.get("field"))
    files = sorted((f for f in files if f.name == name), key=lambda f: int(f.parent.name))
    stacks = tuple(stack for f in files for stack in open_arrays(f))
    if len(stacks) != len(files) or len({stack.shape for stack in stacks}) > 1:
        raise refusal(path, f"realizations of several shapes called {name}", "one cube in each", "move the others away")
    folder, numbers = files[0].parent.parent, [int(f.parent.name) for f in files]
    tables = [f"{cosmology}_params.txt", "latin_hypercube_params.txt"]  # the last in the folder of every hypercube
    tables = [folder / tables[0], folder / tables[1], folder.parent / tables[0], folder.parent.parent / tables[0]]
    return Layout(
        f"Quijote {cosmology}: {len(files)} realizations of {name} ({path})", stacks,
        tuple(f"Quijote/{cosmology}/{number}" for number in numbers), [(str(number),) for number in numbers], "number",
        box_size=1000.0, box_from="as documented for Quijote", field=name, redshift=float(z),
        field_type="delta" if name.endswith(".npy") else "counts", columns=COLUMNS, widths=(5, 6, 7),
        table=next((table for table in tables if table.is_file()), None),
    )  # fmt: skip
