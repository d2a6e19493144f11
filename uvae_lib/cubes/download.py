"""Public cubes from the web: the CAMELS Multifield Dataset, and Quijote's parameter tables.

Files go through `pooch.retrieve`: a file that is there is kept, and a new one appears whole or not at all.
Sources: https://camels-multifield-dataset.readthedocs.io, https://quijote-simulations.readthedocs.io.
"""

from pathlib import Path

import pooch

from .arrays import CubesError, open_arrays
from .camels import FIELDS, MAPS

CMD_URL = "https://users.flatironinstitute.org/~camels/CMD"
QUIJOTE_URL = "https://raw.githubusercontent.com/franciscovillaescusa/Quijote-simulations/master"
SUITES = ("IllustrisTNG", "SIMBA", "Astrid", "Nbody_IllustrisTNG", "Nbody_SIMBA", "Nbody_Astrid")
SETS = ("LH", "CV", "EX", "BE", "1P", "SB28")
GRIDS = (128, 256, 512, None)
HYPERCUBES = {"latin_hypercube": "latin_hypercube", "latin_hypercube_nwLH": "latin_hypercube", "BSQ": "BSQ"}
TIMEOUT = 30  # seconds without a byte


class DownloadError(OSError):
    """A file that did not arrive whole. The message says what was found, what was expected and what to do."""


def download_cmd(
    folder: str | Path | None = None, *, field: str = "Mcdm", suite: str = "IllustrisTNG", set: str = "LH",
    grid: int | None = 128, redshift: str = "0.0", checksum: str | None = None, base_url: str | None = None,
    progress: bool = True,
) -> Path:  # fmt: skip
    """Download one file of the CAMELS Multifield Dataset and the parameters beside it; what is there is kept.

    folder     None takes the user's cache folder
    field, suite, set, redshift    as in the names of the files
    grid       voxels along a side of 3D grids (128: 7.8 GiB for LH, 256: 62.5 GiB); None takes the 2D maps
    checksum   "sha256:..." or a plain SHA-256; None accepts what comes, and pooch logs the SHA-256
    base_url   another address of the data set
    Returns the path of the cubes, for open_cubes.
    Raises ValueError for a name that is none of the data set's, DownloadError when a file does not arrive whole.
    """
    fields = ("Mtot",) if suite.startswith("Nbody") else FIELDS.split("|")
    _choose(suite=(suite, SUITES), field=(field, fields), set=(set, SETS), grid=(grid, GRIDS))
    folder = Path(folder or pooch.os_cache("uvae_lib") / "CMD").expanduser()
    place = f"{base_url or CMD_URL}/{'3D_grids' if grid else '2D_maps'}/data/{suite.partition('_')[0]}"
    name = f"Maps_{field}_{suite}_{set}_z={float(redshift):.2f}.npy"
    if grid is not None:
        name = f"Grids_{field}_{suite}_{set}_{grid}_z={float(redshift):.1f}.npy"
    fetch(f"{place}/params_{set}_{suite}.txt", folder, progress=False)
    return fetch(f"{place}/{name}", folder, checksum=checksum, progress=progress)


def download_quijote(
    folder: str | Path | None = None, *, cosmology: str = "latin_hypercube", base_url: str | None = None
) -> tuple[Path, str]:
    """Download the parameters of a Quijote hypercube into the layout that open_cubes reads.

    The density fields themselves are not on the web, only on Globus and Binder.
    Returns the cosmology's folder, and a sentence on how to bring its cubes there.
    Raises ValueError for another cosmology, DownloadError when the table does not arrive whole.
    """
    _choose(cosmology=(cosmology, tuple(HYPERCUBES)))
    folder = Path(folder or pooch.os_cache("uvae_lib") / "Quijote").expanduser() / "3D_cubes" / cosmology
    url = f"{base_url or QUIJOTE_URL}/{cosmology}/{HYPERCUBES[cosmology]}_params.txt"
    fetch(url, folder, name=f"{cosmology}_params.txt", progress=False)
    return folder, (
        f"Quijote's cubes are on Globus, collection e0eae0aa-5bca-11ea-9683-0e56c063f437 (Quijote_simulations2), "
        f"path /3D_cubes/{cosmology}/<realization>/; transfer the df_m_* files to {folder}/<realization>/"
    )


def fetch(
    url: str, folder: str | Path, *, name: str | None = None, checksum: str | None = None, progress: bool = True
) -> Path:
    """Bring one file into a folder: whole and verified, or not at all.

    name       of the file here; that of the URL when absent
    checksum   of the whole file; a file that is there and fits is kept, one that does not fit is fetched again
    Raises DownloadError offline, when the server refuses, the connection is cut, or the checksum is another.
    """
    folder, name = Path(folder), name or url.rpartition("/")[2]
    http = pooch.HTTPDownloader(progressbar=progress, timeout=TIMEOUT)

    def transfer(url: str, output_file: str, pooch_instance) -> None:
        http(url, output_file, pooch_instance)
        if name.endswith(".npy"):  # a login page, or a file shorter than its header says, is refused
            open_arrays(Path(output_file), MAPS if name.startswith("Maps") else 0)

    try:
        return Path(pooch.retrieve(url, checksum, fname=name, path=folder, downloader=transfer))
    except CubesError as error:
        raise DownloadError(f"{url}: {str(error).partition(': ')[2]}") from error
    except (ValueError, OSError) as error:  # another checksum, or no connection; nothing was replaced
        raise DownloadError(
            f"{url}: found {type(error).__name__} ({str(error)[:200]}); expected the whole file, checksum {checksum}; "
            f"check the names in it and go online, or fetch it with a tool that resumes (wget -c) into {folder}"
        ) from error


def _choose(**options: tuple) -> None:
    for what, (value, known) in options.items():
        if value not in known:
            raise ValueError(f"found {what} {value!r}; expected one of {', '.join(map(str, known))}; choose one")
