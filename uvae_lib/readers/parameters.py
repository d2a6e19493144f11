"""Tables of cosmological parameters: where they lie, how their columns are called, whose row is whose."""

from pathlib import Path

import numpy as np
import pandas as pd

from .arrays import open_npy, refusal, regular_file

CAMELS = ("Omega_m", "sigma_8", "A_SN1", "A_AGN1", "A_SN2", "A_AGN2")
QUIJOTE = ("Omega_m", "Omega_b", "h", "n_s", "sigma_8", "M_nu", "w")
# Quijote's fiducial cosmology and its steps up (_p) and down (_m): arXiv:1909.05273, table 1
QUIJOTE_FIDUCIAL = {"Omega_m": 0.3175, "Omega_b": 0.049, "h": 0.6711, "n_s": 0.9624, "sigma_8": 0.834}
QUIJOTE_STEPS = {
    "Om": ("Omega_m", 0.01),
    "Ob2": ("Omega_b", 0.002),
    "Ob": ("Omega_b", 0.001),
    "h": ("h", 0.02),
    "ns": ("n_s", 0.02),
    "s8": ("sigma_8", 0.015),
}
LARGEST_TABLE = 256 * 2**20  # bytes


def camels_file(folder: Path, suite: str, set_name: str) -> Path | None:
    """The parameter file of a CAMELS suite and set, under any of its names, here or one folder up."""
    base = suite.removeprefix("Nbody_")
    stems = [
        f"{set_name}_{suite}",
        f"{suite}_{set_name}",
        f"{set_name}_Nbody_{base}",
        f"Nbody_{base}_{set_name}",
    ]
    stems += [f"{set_name}_{base}", f"{base}_{set_name}", suite, f"Nbody_{base}", base]
    return _first_file(place / f"params_{stem}.txt" for place in (folder, folder.parent) for stem in stems)


def quijote_file(folder: Path) -> Path | None:
    """The parameter file of a Quijote set; folder is that of the cosmology, as `latin_hypercube`."""
    own = "latin_hypercube_params.txt"  # its name in the folder of every hypercube
    names = [f"{folder.name}_params.txt"]
    if folder.name == "latin_hypercube_HR":  # the same cosmologies
        names.append(own)
    above = (folder.parent, folder.parent.parent)
    return _first_file([folder / names[0], folder / own, *(place / name for place in above for name in names)])


def plain_file(folder: Path) -> Path | None:
    """The only file of a folder that is called params*.txt, .csv or .npy, if there is exactly one."""
    found = [p for p in sorted(folder.glob("param*")) if p.suffix in (".txt", ".csv", ".npy") and p.is_file()]
    return found[0] if len(found) == 1 else None


def quijote_cosmology(name: str) -> dict[str, float] | None:
    """Parameters of a Quijote cosmology that does not vary (fiducial, Om_p, ...), None for an unknown one."""
    step, _, sign = name.rpartition("_")
    if name.split("_")[0] == "fiducial":
        return dict(QUIJOTE_FIDUCIAL)
    if step not in QUIJOTE_STEPS or sign not in ("p", "m"):
        return None
    column, size = QUIJOTE_STEPS[step]
    return QUIJOTE_FIDUCIAL | {column: QUIJOTE_FIDUCIAL[column] + (size if sign == "p" else -size)}


def read_parameters(source, names: tuple[str, ...] = ()) -> pd.DataFrame:
    """A table of numbers with named columns, from a file (.txt, .csv, .npy), an array (n, k) or a DataFrame.

    names   of the columns when the table does not name them; further columns become parameter_<number>
    Raises CubesError when it is not a table, not numeric, or not finite.
    """
    where = source if isinstance(source, str | Path) else "params"
    if isinstance(source, str | Path):
        source = _read_file(Path(source).expanduser())
    if not isinstance(source, pd.DataFrame):
        values = np.asarray(source)
        if values.ndim != 2:
            raise refusal(where, f"an array of shape {values.shape}", "(cubes, parameters)", "give one row a cube")
        extra = [f"parameter_{i + 1}" for i in range(len(names), values.shape[1])]
        source = pd.DataFrame(values, columns=[*names, *extra][: values.shape[1]])
    try:
        table = source.astype(np.float64).reset_index(drop=True)
    except (ValueError, TypeError) as error:
        advice = "leave out names and text columns, or pass params= with the numbers"
        raise refusal(where, f"values that are not numbers ({error})", "numbers", advice) from error
    table.columns = [str(name).strip() for name in table.columns]
    if table.columns.has_duplicates:
        twice = sorted(set(table.columns[table.columns.duplicated()]))
        raise refusal(where, f"column {', '.join(twice)} twice", "every name once", "rename the columns")
    bad = np.flatnonzero(~np.isfinite(table.to_numpy()).all(axis=1))
    if len(bad):
        found = f"NaN or infinity in {len(bad)} rows, first row {bad[0]}"
        raise refusal(where, found, "finite numbers", "repair the table")
    return table


def match_rows(table: pd.DataFrame, rows: list[int] | int, where: object) -> pd.DataFrame:
    """The rows of the cubes: all of them, one a cube (rows is the number of cubes), or the listed ones.

    Raises CubesError when the table's length does not fit.
    """
    advice = 'pass params= with the matching table, or params="none" to go without'
    if isinstance(rows, int):
        if len(table) != rows:
            raise refusal(where, f"{len(table)} rows of parameters", f"{rows}, one for each cube", advice)
        return table
    if rows and max(rows) >= len(table):
        expected = f"more than {max(rows)}, the highest realization"
        raise refusal(where, f"{len(table)} rows of parameters", expected, advice)
    return table.iloc[rows].reset_index(drop=True)


def _first_file(paths) -> Path | None:
    return next((path for path in paths if path.is_file()), None)


def _read_file(path: Path) -> pd.DataFrame | np.ndarray:
    if regular_file(path).st_size > LARGEST_TABLE:
        raise refusal(path, "more than 256 MiB", "a table of parameters", "pass params= with the right file")
    if path.suffix == ".npy":
        file = open_npy(path, block_dims=2)
        if len(file.shape) != 3:
            raise refusal(path, f"an array of shape {file.shape}", "(cubes, parameters)", "give one row a cube")
        return file.read(0, 1)[0]
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise refusal(path, "bytes that are not text", "a table as text", "save it as UTF-8 text") from error
    return _parse(path, lines)


def _parse(path: Path, lines: list[str]) -> pd.DataFrame | np.ndarray:
    """Rows of numbers between blanks or commas; one line of names may come first, with or without a '#'."""
    comments = [line.lstrip("# ") for line in lines if line.startswith("#")]
    rows = [(i, _fields(line)) for i, line in enumerate(lines, 1) if line.strip() and not line.startswith("#")]
    header = _fields(comments[-1]) if comments else []
    if rows and not any(_is_number(text) for text in rows[0][1]):
        header = rows.pop(0)[1]
    if not rows:
        raise refusal(path, "no rows", "one row of parameters for each cube", "check the file")
    width = len(rows[0][1])
    for number, row in rows:
        if len(row) != width:
            raise refusal(path, f"{len(row)} values in line {number}", f"{width}, as before", "repair that line")
        for text in row:
            if not _is_number(text):
                advice = "leave out names and text columns, or pass params= with the numbers"
                raise refusal(path, f"{text[:40]!r} in line {number}", "a number", advice)
    values = np.array([row for _, row in rows], dtype=np.float64)
    return pd.DataFrame(values, columns=header) if len(header) == width else values


def _fields(line: str) -> list[str]:
    return [text.strip() for text in line.split(",")] if "," in line else line.split()


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
