"""The CAMELS Multifield Dataset from the web (https://camels-multifield-dataset.readthedocs.io).

Files go through `pooch.retrieve`: a file that is there is kept, and a new one appears whole or not at all.
"""

from pathlib import Path

import pooch

from .arrays import CubesError, open_arrays
from .camels import MAPS

CMD_URL = "https://users.flatironinstitute.org/~camels/CMD"


class DownloadError(OSError):
    """A file that did not arrive whole. The message says what was found, what was expected and what to do."""


def download_cmd(
    folder: str | Path | None = None, *, field: str = "Mcdm", suite: str = "IllustrisTNG", set: str = "LH",
    grid: int | None = 128, redshift: float = 0.0,
) -> Path:  # fmt: skip
    """Download one file of the CAMELS Multifield Dataset and the parameters beside it; what is there is kept.

    folder     None takes the user's cache folder
    field, suite, set, redshift    as in the names of the files
    grid       voxels along a side of 3D grids (128: 7.8 GiB for LH, 256: 62.5 GiB); None takes the 2D maps
    Returns the path of the cubes, for open_cubes.
    Raises DownloadError when a file does not arrive whole, as where the data set has no such name.
    """
    folder = Path(folder or pooch.os_cache("uvae_lib") / "CMD").expanduser()
    place = f"{CMD_URL}/{'3D_grids' if grid else '2D_maps'}/data/{suite.partition('_')[0]}"
    cubes = f"Grids_{field}_{suite}_{set}_{grid}_z={redshift:.1f}.npy"
    fetch(f"{place}/params_{set}_{suite}.txt", folder)
    return fetch(f"{place}/{cubes if grid else f'Maps_{field}_{suite}_{set}_z={redshift:.2f}.npy'}", folder)


def fetch(url: str, folder: Path) -> Path:
    """Bring one file into a folder: whole, or not at all; what is there is kept.

    Raises DownloadError offline, when the server refuses, the connection is cut, or a `.npy` file is none.
    """
    name, http = url.rpartition("/")[2], pooch.HTTPDownloader(progressbar=url.endswith(".npy"))

    def transfer(url: str, output_file: str, pooch_instance) -> None:
        http(url, output_file, pooch_instance)
        if name.endswith(".npy"):  # a login page, or a file shorter than its header says, is refused
            open_arrays(Path(output_file), MAPS if name.startswith("Maps") else 0)

    try:
        return Path(pooch.retrieve(url, None, fname=name, path=folder, downloader=transfer))
    except (CubesError, OSError) as error:
        found = f"{type(error).__name__} ({str(error)[:300]}); expected the whole file"
        advice = f"check the names in it and go online, or fetch it with a tool that resumes (wget -c) into {folder}"
        raise DownloadError(f"{url}: found {found}; {advice}") from error
