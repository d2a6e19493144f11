"""Public cubes from the web: the CAMELS Multifield Dataset, and Quijote's parameter tables.

Files go through pooch, which checks the checksum and keeps what is there. A broken transfer leaves `<name>.part`
and goes on from there, when the server can and the file is still the same (Range and If-Range, RFC 9110).
Sources: https://camels-multifield-dataset.readthedocs.io, https://quijote-simulations.readthedocs.io.
"""

import json
import re
import shutil
import time
from pathlib import Path

import pooch
import requests
from tqdm import tqdm

from ..files import write_atomically
from .arrays import CubesError, open_npy

CMD_URL = "https://users.flatironinstitute.org/~camels/CMD"
QUIJOTE_URL = "https://raw.githubusercontent.com/franciscovillaescusa/Quijote-simulations/master"
FIELDS = ("Mgas", "Vgas", "T", "P", "Z", "HI", "ne", "B", "MgFe", "Mcdm", "Vcdm", "Mstar", "Mtot")
SUITES = ("IllustrisTNG", "SIMBA", "Astrid", "Nbody_IllustrisTNG", "Nbody_SIMBA", "Nbody_Astrid")
SETS = ("LH", "CV", "EX", "BE", "1P", "SB28")
GRIDS = (128, 256, 512)
QUIJOTE_TABLES = {
    "latin_hypercube": "latin_hypercube/latin_hypercube_params.txt",
    "latin_hypercube_nwLH": "latin_hypercube_nwLH/latin_hypercube_params.txt",
    "BSQ": "BSQ/BSQ_params.txt",
}
ATTEMPTS = 3
TIMEOUT = 30  # seconds without a byte
CHUNK = 2**20


class DownloadError(OSError):
    """A file that did not arrive whole. The message says what was found, what was expected and what to do."""


def download_cmd(
    folder: str | Path | None = None,
    *,
    field: str = "Mcdm",
    suite: str = "IllustrisTNG",
    set: str = "LH",
    grid: int | None = 128,
    redshift: str = "0.0",
    checksum: str | None = None,
    base_url: str = CMD_URL,
    progress: bool = True,
) -> Path:
    """Download one file of the CAMELS Multifield Dataset and the parameters beside it; what is there is kept.

    folder     None takes the user's cache folder
    field, suite, set, redshift    as in the names of the files
    grid       voxels along a side of 3D grids (128: 7.8 GiB for LH, 256: 62.5 GiB); None takes the 2D maps
    checksum   "sha256:..." or a plain SHA-256; None accepts what comes, and pooch logs the SHA-256
    Returns the path of the cubes, for open_cubes.
    Raises ValueError for a name that is none of the data set's, DownloadError when a file does not arrive whole.
    """
    _choose("field", field, FIELDS)
    _choose("suite", suite, SUITES)
    _choose("set", set, SETS)
    if grid is not None:
        _choose("grid", grid, GRIDS)
    if suite.startswith("Nbody") and field != "Mtot":
        raise ValueError(f'found field "{field}" for suite {suite}; expected "Mtot", the only one of N-body suites')
    folder = default_folder() / "CMD" if folder is None else Path(folder).expanduser()
    place = f"{base_url}/{'2D_maps' if grid is None else '3D_grids'}/data/{suite.partition('_')[0]}"
    name = f"Maps_{field}_{suite}_{set}_z={float(redshift):.2f}.npy"
    if grid is not None:
        name = f"Grids_{field}_{suite}_{set}_{grid}_z={float(redshift):.1f}.npy"
    fetch(f"{place}/params_{set}_{suite}.txt", folder, progress=False)
    return fetch(f"{place}/{name}", folder, checksum=checksum, progress=progress)


def download_quijote(
    folder: str | Path | None = None, *, cosmology: str = "latin_hypercube", base_url: str = QUIJOTE_URL
) -> tuple[Path, str]:
    """Download the parameters of a Quijote hypercube into the layout that open_cubes reads.

    The density fields themselves are not on the web, only on Globus and Binder.
    Returns the cosmology's folder, and a sentence on how to bring its cubes there.
    Raises ValueError for another cosmology, DownloadError when the table does not arrive whole.
    """
    _choose("cosmology", cosmology, tuple(QUIJOTE_TABLES))
    folder = default_folder() / "Quijote" if folder is None else Path(folder).expanduser()
    folder = folder / "3D_cubes" / cosmology
    fetch(f"{base_url}/{QUIJOTE_TABLES[cosmology]}", folder, name=f"{cosmology}_params.txt", progress=False)
    return folder, (
        f"Quijote's cubes are on Globus, collection e0eae0aa-5bca-11ea-9683-0e56c063f437 (Quijote_simulations2), "
        f"path /3D_cubes/{cosmology}/<realization>/; transfer the df_m_* files to {folder}/<realization>/"
    )


def default_folder() -> Path:
    """Where downloads are kept when no folder is named: the user's cache."""
    return Path(pooch.os_cache("uvae_lib"))


def fetch(
    url: str, folder: str | Path, *, name: str | None = None, checksum: str | None = None, progress: bool = True
) -> Path:
    """Bring one file into a folder: whole and verified, or not at all.

    name       of the file here; that of the URL when absent
    checksum   of the whole file; a file that is there and fits is kept, one that does not fit is fetched again
    Raises DownloadError offline, when the server refuses, the connection is cut, or the checksum is another.
    """
    folder, name = Path(folder), name or url.rpartition("/")[2]
    if checksum is not None and not re.fullmatch(r"((md5|sha1|sha256|sha512):)?[0-9a-fA-F]{32,128}", checksum):
        raise ValueError(f'found checksum {checksum!r}; expected "sha256:" and its hexadecimal digits; correct it')
    part = folder / f"{name}.part"
    try:
        return Path(pooch.retrieve(url, checksum, fname=name, path=folder, downloader=_Resuming(part, progress)))
    except ValueError as error:  # pooch: the hash differs; its temporary file is gone, nothing else was replaced
        raise DownloadError(
            f"{url}: found another checksum than expected ({checksum}); the file is damaged or was replaced; "
            "run again, or ask its authors for the checksum"
        ) from error


def main(arguments: list[str]) -> None:
    """`download cmd --field Mcdm --suite IllustrisTNG --set LH --grid 128` and `download quijote`."""
    import tyro

    def cmd(
        field: str = "Mcdm",
        suite: str = "IllustrisTNG",
        set: str = "LH",
        grid: int = 128,
        maps: bool = False,
        redshift: str = "0.0",
        folder: Path | None = None,
        checksum: str | None = None,
        base_url: str = CMD_URL,
    ) -> None:
        """One file of the CAMELS Multifield Dataset, and its parameters.

        Args:
            field: Mcdm, Mtot (the only one of N-body suites), Mgas, ...
            suite: IllustrisTNG, SIMBA, Astrid, Nbody_IllustrisTNG, Nbody_SIMBA, Nbody_Astrid
            set: LH, CV, EX, BE, 1P, SB28
            grid: voxels along a side, 128 (7.8 GiB for LH), 256 (62.5 GiB) or 512 (500 GiB)
            maps: the 2D maps instead of the 3D grids
            redshift: as in the file's name
            folder: where to put it; the user's cache when absent
            checksum: SHA-256 of the file, when you know it
            base_url: another address of the data set
        """
        path = download_cmd(folder, field=field, suite=suite, set=set, grid=None if maps else grid,
                            redshift=redshift, checksum=checksum, base_url=base_url)  # fmt: skip
        print(f"{path}\nlook at it with: python -m uvae_lib inspect {path}")

    def quijote(cosmology: str = "latin_hypercube", folder: Path | None = None, base_url: str = QUIJOTE_URL) -> None:
        """The parameters of a Quijote hypercube, and how to get its cubes.

        Args:
            cosmology: latin_hypercube, latin_hypercube_nwLH or BSQ
            folder: where to put them; the user's cache when absent
            base_url: another address of the tables
        """
        place, advice = download_quijote(folder, cosmology=cosmology, base_url=base_url)
        print(f"{place}\n{advice}")

    commands = {"cmd": cmd, "quijote": quijote}
    try:
        tyro.extras.subcommand_cli_from_dict(commands, prog="python -m uvae_lib download", args=arguments)
    except DownloadError as error:
        raise SystemExit(f"error: {error}") from error


class _Resuming:
    """A downloader for pooch that goes on where an earlier transfer broke."""

    def __init__(self, part: Path, progress: bool):
        self.part, self.progress = part, progress
        self.state = part.with_name(part.name + ".json")

    def __call__(self, url: str, output_file: str, pooch_instance) -> None:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                self._transfer(url)
                break
            except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
                if attempt == ATTEMPTS:
                    raise self._broken(url, error) from error
                time.sleep(0.2 * attempt)
        self._check_content(url)
        self.part.replace(output_file)  # pooch verifies it there and renames it
        self.state.unlink(missing_ok=True)

    def _transfer(self, url: str) -> None:
        """One attempt: bytes are appended to the part file until it is as long as the server said."""
        start, validator = self._kept(url)
        headers = {"Accept-Encoding": "identity"}
        if start:
            headers |= {"Range": f"bytes={start}-", "If-Range": validator}
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
            if response.status_code not in (200, 206):
                raise DownloadError(
                    f"{url}: found HTTP {response.status_code} {response.reason}; expected a file; check the names "
                    "in the address, or look whether the data have moved"
                )
            start = start if response.status_code == 206 and _starts_at(response, start) else 0
            length = response.headers.get("Content-Length")
            total = None if length is None else start + int(length)
            self._check_room(url, (total or 0) - start)
            self._keep(url, response)
            with open(self.part, "r+b" if start else "wb") as file, self._bar(total, start) as bar:
                file.seek(start)
                file.truncate()
                for chunk in response.iter_content(CHUNK):
                    file.write(chunk)
                    bar.update(len(chunk))
        size = self.part.stat().st_size
        if total is not None and size != total:
            raise requests.ConnectionError(f"{size} of {total} bytes")

    def _check_content(self, url: str) -> None:
        """Refuse what only pretends to be an array: a login page, or a file shorter than its header says."""
        if self.part.name.endswith(".npy.part"):
            try:
                open_npy(self.part)
            except CubesError as error:
                self.part.unlink()
                self.state.unlink(missing_ok=True)
                raise DownloadError(f"{url}: {str(error).partition(': ')[2]}") from error

    def _kept(self, url: str) -> tuple[int, str]:
        """Bytes that are here and what they belong to; nothing without a validator of the server (an ETag)."""
        try:
            state = json.loads(self.state.read_text())
            if state["url"] == url and state["validator"]:
                return self.part.stat().st_size, state["validator"]
        except (OSError, ValueError, KeyError, TypeError):
            pass  # nothing kept, or not by us: start from the first byte
        return 0, ""

    def _keep(self, url: str, response: requests.Response) -> None:
        etag = response.headers.get("ETag", "")
        validator = response.headers.get("Last-Modified", "") if etag.startswith("W/") or not etag else etag
        write_atomically(self.state, json.dumps({"url": url, "validator": validator}))

    def _check_room(self, url: str, need: int) -> None:
        free = shutil.disk_usage(self.part.parent).free
        if need > free:
            raise DownloadError(
                f"{url}: found {free / 2**30:.3g} GiB free in {self.part.parent}; expected {need / 2**30:.3g} GiB; "
                "free some space, or name another folder"
            )

    def _bar(self, total: int | None, start: int) -> tqdm:
        name = self.part.name.removesuffix(".part")
        return tqdm(
            total=total, initial=start, desc=name, unit="B", unit_scale=True, disable=None if self.progress else True
        )

    def _broken(self, url: str, error: Exception) -> DownloadError:
        size = self.part.stat().st_size if self.part.exists() else 0
        if size:
            return DownloadError(
                f"{url}: found a connection that broke after {size} bytes ({type(error).__name__}); expected the "
                "whole file; run the same command again, it goes on from there"
            )
        return DownloadError(
            f"{url}: found no connection ({type(error).__name__}); expected to reach the server; go online and run "
            f"again, or fetch this address elsewhere and put the file into {self.part.parent}"
        )


def _starts_at(response: requests.Response, start: int) -> bool:
    return response.headers.get("Content-Range", "").startswith(f"bytes {start}-")


def _choose(what: str, value, known: tuple) -> None:
    if value not in known:
        raise ValueError(f"found {what} {value!r}; expected one of {', '.join(map(str, known))}; choose one")
