"""Quijote's density fields (arXiv:1909.05273) and its Big Sobol Sequence, by their documented names.

`3D_cubes/{cosmology}/{realization}/df_m_{N}_{MAS}_z={z}.npy` holds one cube, the density contrast delta. In the Big
Sobol Sequence it is `df_m_CIC_z=0.00.hdf5`, data set `df`, particles in a voxel. Realizations may be missing.
"""

import re
from pathlib import Path

from .arrays import open_arrays
from .layout import CubeSuite, documented

NAME = re.compile(
    r"/(?P<set_name>fiducial\w*|latin_hypercube\w*|BSQ|(?:Om|Ob2?|h|ns|s8|Mnu|w|DC|LC|EQ|OR\w*)_[pm]+\w*)/(?P<number>\d+)/"
    r"(?P<field>df_m_(?:\d+_)?(?:[A-Z]+_)?z=(?P<redshift>\d+(?:\.\d+)?)\.(?:npy|hdf5))$"
)
COLUMNS = ("Omega_m", "Omega_b", "h", "n_s", "sigma_8", "M_nu", "w")
USUAL = {"set_name": ["latin_hypercube", "latin_hypercube_nwLH", "BSQ", "fiducial"], "redshift": [], "field": []}


def find(path: Path, told: dict) -> CubeSuite | None:
    """One cube a realization, of one cosmology: any folder of the tree, or one file; None for other names.

    Of several redshifts the lowest is usual; between grids and assignment schemes field= decides, by the file's name.
    """
    names = documented(path, NAME, USUAL, told)
    if not names:
        return None
    files = sorted(names, key=lambda file: int(file.parent.name))
    cosmology, z, name = (names[files[0]][option] for option in USUAL)
    stacks = tuple(stack for file in files for stack in open_arrays(file))
    folder, numbers = files[0].parent.parent, [int(f.parent.name) for f in files]
    places = (folder, folder.parent, folder.parent.parent)  # every hypercube's table is also called as the first one's
    tables = [place / f"{cosmology}_params.txt" for place in places] + [folder / "latin_hypercube_params.txt"]
    return CubeSuite(
        f"Quijote {cosmology}: {len(files)} realizations of {name} ({path})", stacks,
        tuple(f"Quijote/{cosmology}/{number}" for number in numbers), [(str(number),) for number in numbers], "number",
        box_size=1000.0, box_from="as documented for Quijote", field=name, redshift=float(z),
        field_type="delta" if name.endswith(".npy") else "counts", columns=COLUMNS, widths=(5, 6, 7),
        table=next((table for table in tables if table.is_file()), None),
    )  # fmt: skip
