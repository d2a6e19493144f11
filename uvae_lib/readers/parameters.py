"""Tables of cosmological parameters: where they lie, how their columns are called, whose row is whose."""

import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import pandas as pd

from .arrays import (
    HDF5_ERRORS,
    NUMERIC,
    CubesError,
    Hdf5File,
    hdf5_places,
    hdf5_values,
    open_npy,
    refusal,
    regular_file,
)
from .layout import Remarks

CAMELS = ("Omega_m", "sigma_8", "A_SN1", "A_AGN1", "A_SN2", "A_AGN2")
QUIJOTE = ("Omega_m", "Omega_b", "h", "n_s", "sigma_8", "M_nu", "w")
# Quijote's fiducial cosmology and its steps up (_p) and down (_m): arXiv:1909.05273, table 1
QUIJOTE_FIDUCIAL = {"Omega_m": 0.3175, "Omega_b": 0.049, "h": 0.6711, "n_s": 0.9624, "sigma_8": 0.834}
QUIJOTE_STEPS = {"Om": ("Omega_m", 0.01), "Ob2": ("Omega_b", 0.002), "Ob": ("Omega_b", 0.001), "h": ("h", 0.02),
                 "ns": ("n_s", 0.02), "s8": ("sigma_8", 0.015)}  # fmt: skip
KNOWN = {*CAMELS, *QUIJOTE}
LARGEST_TABLE = 256 * 2**20  # bytes
TABLE = re.compile(r"param|cosmo|label|theta|target|omega|latin_hypercube", re.IGNORECASE)  # in names of files
TABLE_SUFFIXES = (".txt", ".csv", ".tsv", ".dat", ".npy")
# columns that name a simulation, and that seed it: no parameters
LABEL = re.compile(
    r"(?i)|index|id|name|unnamed: 0|(sim(ulation)?|cube|run|file|reali[sz]ation)([ _]?(id|name|number))?"
)
SEED = re.compile(r"(?i)(random|ic)?_?seed")


def canonical(name: object) -> str:
    """The project's name of a parameter: Omega_m and sigma_8 under their usual spellings; others stay as they are.

    S_8 = sigma_8 (Omega_m / 0.3)^0.5 is another parameter, and so are omega_m h^2 and the like.
    """
    name = str(name).strip().strip("\"'")
    plain = unicodedata.normalize("NFKC", name).replace("Ω", "Omega").replace("σ", "sigma")
    plain = re.sub(r"\\(rm|mathrm|text)|[\W_]", "", plain).lower()
    if name == "s8" or plain in ("sigma8", "sig8"):
        return "sigma_8"
    return "Omega_m" if re.fullmatch(r"om|(om|omega)(m|0|m0|matter)", plain) else name


def camels_file(folder: Path, suite: str, set_name: str) -> Path | None:
    """The parameter file of a CAMELS suite and set, under any of its names, here or one folder up."""
    base = suite.removeprefix("Nbody_")
    stems = [f"{set_name}_{suite}", f"{suite}_{set_name}", f"{set_name}_Nbody_{base}", f"Nbody_{base}_{set_name}",
             f"{set_name}_{base}", f"{base}_{set_name}", suite, f"Nbody_{base}", base]  # fmt: skip
    places, names = (folder, folder.parent), [f"params_{stem}{end}" for stem in stems for end in (".txt", ".csv")]
    own = f"CosmoAstroSeed_{base.partition('_')[0]}*_{set_name}.*"
    found = _first_file(path for place in places for path in sorted(place.glob(own)))
    return _first_file(place / name for place in places for name in names) or found


def quijote_file(folder: Path) -> Path | None:
    """The parameter file of a Quijote set; folder is that of the cosmology, as `latin_hypercube`."""
    own = "latin_hypercube_params.txt"  # its name in the folder of every hypercube
    names = [f"{folder.name}_params.txt"]
    if folder.name == "latin_hypercube_HR":  # the same cosmologies
        names.append(own)
    above = (folder.parent, folder.parent.parent)
    return _first_file([folder / names[0], folder / own, *(place / name for place in above for name in names)])


def tables_in(folder: Path, cubes: Sequence[Path] = ()) -> list[Path]:
    """Files of a folder that are called as tables of parameters are, those called params first."""
    called = [p for p in folder.glob("[!.]*") if p.suffix.lower() in TABLE_SUFFIXES and TABLE.search(p.stem)]
    found = sorted(p for p in called if p not in cubes and p.is_file())
    return sorted(found, key=lambda p: not p.name.lower().startswith("param"))


def quijote_cosmology(name: str) -> dict[str, float] | None:
    """Parameters of a Quijote cosmology that does not vary (fiducial, Om_p, ...), None for an unknown one."""
    step, _, sign = name.rpartition("_")
    if name.split("_")[0] == "fiducial":
        return dict(QUIJOTE_FIDUCIAL)
    if step not in QUIJOTE_STEPS or sign not in ("p", "m"):
        return None
    column, size = QUIJOTE_STEPS[step]
    return QUIJOTE_FIDUCIAL | {column: QUIJOTE_FIDUCIAL[column] + (size if sign == "p" else -size)}


def parameter_table(
    source, names: tuple[str, ...], ids: Sequence[str], remarks: Remarks, usual: str, *, separate: bool = False
) -> pd.DataFrame:
    """Parameters of the cubes from a file, array, dict or DataFrame; no columns for "none" or when none was found.

    ids       of the cubes, one a row: rows that bear their names are matched, others follow the order of the cubes
    usual     the file name to say when none was found
    separate  every cube is a file of its own, so that a number in its name says which it is
    """
    nothing = pd.DataFrame(index=range(len(ids)))
    if isinstance(source, str) and source == "none":
        return nothing
    if source is None:
        remarks.notes.append(f"no parameters found ({usual}); probes of z need them")
        return nothing
    table = read_parameters(source, names, remarks)
    where = source if isinstance(source, str | Path) else "params"
    remarks.notes.append(f"parameters from {where}" if where != "params" else "parameters as given")
    return match_rows(table, ids, where, separate)


def plain_parameters(root: Path, files: Sequence, given, ids: Sequence[str], remarks: Remarks) -> pd.DataFrame:
    """Parameters of plain cubes: as given, from a table beside them, or from inside HDF5 files.

    Beside the cubes that is a file called params..., or another that is called as labels are and fits; in a tree of
    folders also one in each of them.
    """
    usual, separate, paths = "params.txt or params.csv", len(files) == len(ids), [file.path for file in files]
    if given is not None:
        return parameter_table(given, (), ids, remarks, usual, separate=separate)
    found = tables_in(root, paths)
    tables = [] if found else [_own_parameters(file, root, paths, remarks) for file in files]
    if tables and all(table is not None for table in tables):
        remarks.notes.append("parameters from inside or beside each file of cubes")
        return match_rows(pd.concat(tables, ignore_index=True).dropna(axis=1), ids, root)
    sure = [p for p in found if p.name.lower().startswith("param")]
    if len(sure) == 1:
        return parameter_table(sure[0], (), ids, remarks, usual, separate=separate)
    if len(found) == 1:
        try:
            return parameter_table(found[0], (), ids, remarks, usual, separate=separate)
        except CubesError as error:
            remarks.cautions.append(f"{found[0].name} beside the cubes is not used: {error}")
    elif found:
        listing = ", ".join(p.name for p in found[:5])
        remarks.cautions.append(f"no parameters read: {listing} could be them; pass params= (--data.params) with one")
    return parameter_table(None, (), ids, remarks, usual)


def _own_parameters(file, root: Path, paths: Sequence[Path], remarks: Remarks) -> pd.DataFrame | None:
    """What a file of cubes says of its own parameters, or the only table in its folder of a tree."""
    table = hdf5_parameters(file) if isinstance(file, Hdf5File) else None
    beside = tables_in(file.path.parent, paths) if table is None and file.path.parent != root else []
    table = beside[0] if len(beside) == 1 else table
    said = Remarks()
    table = None if table is None else read_parameters(table, (), said)
    remarks.cautions += [caution for caution in said.cautions if caution not in remarks.cautions][:1]
    return table


def hdf5_parameters(file: Hdf5File) -> pd.DataFrame | None:
    """Parameters inside an HDF5 file, one row a cube, from attributes and small data sets; None when it has none."""
    n = file.shape[0]
    try:
        with h5py.File(file.path, "r") as opened:
            reach = 2 if len(file.datasets) > 1 else None  # of several, what lies at each data set and in its group
            rows = [_hdf5_row(hdf5_places(opened, name)[:reach], n) for name in file.datasets]
            if not rows[0]:
                return _hdf5_table(opened, file)
    except HDF5_ERRORS:
        return None  # what stands beside the cubes is not worth a refusal
    if len(rows) > 1:
        table = pd.DataFrame([{key: v[i % v.size] for key, v in row.items()} for i, row in enumerate(rows)])
        return table.dropna(axis=1)
    return pd.DataFrame({key: np.broadcast_to(v, n) for key, v in rows[0].items()}).astype(float)


def _hdf5_row(places: list, n: int) -> dict[str, np.ndarray]:
    """Known parameters, one number or n, from the nearest of several places."""
    row = {}
    for place in reversed(places):
        found = hdf5_values(place, lambda name: canonical(name) in KNOWN)
        row |= {canonical(name): np.ravel(value) for name, value in found.items()}
    return {name: v for name, v in row.items() if v.dtype.kind in NUMERIC and v.size in (1, n)}


def _hdf5_table(opened: h5py.File, file: Hdf5File) -> pd.DataFrame | None:
    """A data set (cubes, parameters) that is called as tables are, with names in an attribute or as a record."""
    for place in hdf5_places(opened, file.datasets[0])[1:]:
        for name, values in hdf5_values(place, lambda name: bool(TABLE.search(name))).items():
            if len(values) == file.shape[0] and name in place and values.dtype.kind in (*NUMERIC, "V"):
                table = pd.DataFrame(values)
                heads = [np.ravel(v) for v in place[name].attrs.values() if np.size(v) == table.shape[1] > 1]
                heads = [[h.decode() if isinstance(h, bytes) else str(h) for h in names] for names in heads]
                return table.set_axis(heads[0], axis=1) if heads else table
    return None


def read_parameters(source, names: tuple[str, ...] = (), remarks: Remarks | None = None) -> pd.DataFrame:
    """A table of numbers with named columns, from a file (.txt, .csv, .npy), array (n, k), dict or DataFrame.

    names   of the columns when the table does not name them, with a caution; further ones become parameter_<number>
    Returns one row a cube; the index holds the names of simulations where the table has such a column.
    Raises CubesError when it is not a table, not numeric, or not finite.
    """
    where = source if isinstance(source, str | Path) else "params"
    remarks = remarks or Remarks()
    table = _read_file(Path(source).expanduser()) if isinstance(source, str | Path) else _as_frame(source)
    table = _without_labels(table, where, remarks)
    if not len(table.columns):
        advice = "leave out names and text columns, or pass params= (--data.params) with the numbers"
        raise refusal(where, "values that are not numbers, and nothing else", "numbers", advice)
    if all(_is_number(name) for name in table.columns):
        extra = [f"parameter_{i + 1}" for i in range(len(names), table.shape[1])]
        table.columns = [*names, *extra][: table.shape[1]]
        remarks.cautions.append(
            f"the columns of {where} have no names and are taken as {', '.join(table.columns)}, in this order; name "
            "them in a first line (# Omega_m sigma_8 ...) when that is wrong"
        )
    table = _numbers(table, where)
    if not all(isinstance(label, str) for label in table.index):
        table = table.reset_index(drop=True)
    plain = [str(name).strip().strip("\"'") for name in table.columns]
    renamed = [canonical(name) for name in plain]  # an alias gives way to the name itself
    table.columns = [old if new in plain else new for old, new in zip(plain, renamed, strict=True)]
    if table.columns.has_duplicates:
        twice = sorted(set(table.columns[table.columns.duplicated()]))
        raise refusal(where, f"column {', '.join(twice)} twice", "every name once", "rename the columns")
    bad = np.flatnonzero(~np.isfinite(table.to_numpy()).all(axis=1))
    if len(bad):
        found = f"NaN or infinity in {len(bad)} rows, first row {bad[0]}"
        raise refusal(where, found, "finite numbers", "repair the table")
    return table


def match_rows(table: pd.DataFrame, ids: Sequence[str], where: object, separate: bool = False) -> pd.DataFrame:
    """The rows of the cubes: those that bear their names, or else row i for cube i.

    Raises CubesError when the table's length does not fit, or when its numbers contradict its order.
    """
    labels = [re.sub(r"\.(npy|npz|hdf5|h5)$", "", str(label).rstrip("/")) for label in table.index]
    place = {} if isinstance(table.index, pd.RangeIndex) else {label: i for i, label in enumerate(labels)}
    parts = [name.split("/") for name in ids]
    for keys in (["_".join(p[-2:]) for p in parts], [p[-1] for p in parts], [p[-2] for p in parts if len(p) > 1]):
        rows = [place[key] for key in keys if key in place]
        exact = separate or not all(key.isdecimal() for key in keys)
        if len(place) == len(labels) and len(rows) == len(set(rows)) == len(ids) and exact:
            return table.iloc[rows].reset_index(drop=True)
    advice = 'pass params= (--data.params) with the matching table, or "none" to go without'
    if len(table) != len(ids):
        raise refusal(where, f"{len(table)} rows of parameters", f"{len(ids)}, one for each cube", advice)
    numbers = [int(found[0]) for label in place if (found := re.search(r"\d+$", label))]
    if len(set(numbers)) == len(labels) and numbers != sorted(numbers):
        found, expected = f"rows that are numbered {', '.join(map(str, numbers[:5]))}, ...", "row i for cube i"
        raise refusal(where, found, expected, "sort the table in the order of the cubes, or leave its numbers out")
    return table.reset_index(drop=True)


def _first_file(paths) -> Path | None:
    return next((path for path in paths if path.is_file()), None)


def _as_frame(source) -> pd.DataFrame:
    """What was handed over, as a table; one row for the parameters of a single cube."""
    if isinstance(source, pd.DataFrame):
        return source.reset_index(drop=isinstance(source.index, pd.RangeIndex) or source.index.dtype.kind in NUMERIC)
    if isinstance(source, pd.Series):
        names = source.index.dtype.kind not in NUMERIC and not isinstance(source.name, str)
        return source.to_frame().T if names else _as_frame(source.to_frame())
    if isinstance(source, list) and source and isinstance(source[0], dict):
        return pd.DataFrame(source)
    if isinstance(source, dict):
        return pd.DataFrame({name: pd.Series(np.atleast_1d(values)) for name, values in source.items()})
    values = np.asarray(source)
    if values.ndim != 2 and not values.dtype.names:
        raise refusal("params", f"an array of shape {values.shape}", "(cubes, parameters)", "give one row a cube")
    return pd.DataFrame(values)


def _read_file(path: Path) -> pd.DataFrame:
    if regular_file(path).st_size > LARGEST_TABLE:
        advice = "pass params= (--data.params) with the right file"
        raise refusal(path, "more than 256 MiB", "a table of parameters", advice)
    if path.suffix.lower() == ".npy":
        file = open_npy(path, block_dims=2)
        if len(file.shape) != 3 or file.shape[0] != 1:
            raise refusal(path, f"an array of shape {file.shape}", "(cubes, parameters)", "give one row a cube")
        return pd.DataFrame(file.read(0, 1)[0])
    try:
        return _read_text(path, path.read_text(encoding="utf-8-sig").splitlines())
    except UnicodeDecodeError as error:
        raise refusal(path, "bytes that are not text", "a table as text", "save it as UTF-8 text") from error


def _read_text(path: Path, lines: list[str]) -> pd.DataFrame:
    """Rows between blanks, commas or semicolons, as text; the index holds the numbers of their lines.

    Columns are named by the first row when it holds no number (or the empty corner of `to_csv`), or by the comments.
    pandas.read_csv would neither say which line is at fault nor look into comments.
    """
    comments = [line.strip().lstrip("#% ") for line in lines if line.lstrip()[:1] in ("#", "%")]
    comments = [re.sub(r"[\[(][^\])]*[\])]", "", comment) for comment in comments]  # units
    rows = {i: _fields(line) for i, line in enumerate(lines, 1) if line.strip() and line.strip()[0] not in "#%"}
    first = next(iter(rows.values()), [])
    names = None
    if not any(map(_is_number, first)) or (first[0] == "" and len(first) > 1):
        names, rows = first, dict(list(rows.items())[1:])
    if not rows:
        raise refusal(path, "no rows", "one row of parameters for each cube", "check the file")
    width = len(next(iter(rows.values())))
    for number, row in rows.items():
        if len(row) != width:
            raise refusal(path, f"{len(row)} values in line {number}", f"{width}, as before", "repair that line")
    names = names or _names_in(path, comments, width)
    if names and len(names) == width - 1:  # the corner above an index
        names = ["", *names]
    if names and len(names) != width:
        raise refusal(path, f"{len(names)} names above {width} columns", "a name for each", "repair the first line")
    return pd.DataFrame(rows.values(), index=list(rows), columns=names)


def _names_in(path: Path, comments: list[str], width: int) -> list[str] | None:
    """The names of the columns, from the comment that has as many words, or from comments that name one each.

    Raises CubesError when comments name parameters, and it is not clear which column is which.
    """
    lines = [_fields(part) for c in comments for part in (c, c.partition(":")[2]) if part.strip()]
    firsts = [re.sub(r"^(column|col)?\W*\d*[\s:.)=-]*", "", comment, flags=re.IGNORECASE) for comment in comments]
    lines.append([words[0] for words in map(_fields, firsts) if words and canonical(words[0]) in KNOWN])
    fitting = [line for line in lines if len(line) == width and not all(map(_is_number, line))]
    named = [line for line in fitting if any(canonical(word) in KNOWN for word in line)]
    words = re.split(r"[\s,;:=()\[\]]+", " ".join(comments))
    mentioned = [word for word in words if canonical(word) in KNOWN]
    choices = {tuple(map(canonical, line)): line for line in named or fitting}
    if len(choices) > 1 or (mentioned and not named):
        said = " and ".join(" ".join(line) for line in choices.values()) if len(choices) > 1 else ", ".join(mentioned)
        found = f"comments that name {said[:120]} above {width} columns"
        raise refusal(path, found, "one line of names, as many as columns", "write # and the names above the numbers")
    return next(iter(choices.values()), None)


def _fields(line: str) -> list[str]:
    """The words of a line, without quotes and without a remark behind them."""
    line = line.partition(" #")[0].strip()
    words = re.split(r"\s*[,;]\s*" if re.search(r"[,;]", line) else r"\s+", line)
    words = words[:-1] if len(words) > 1 and words[-1] == "" else words
    return [word.strip("\"'") for word in words]


def _without_labels(table: pd.DataFrame, where: object, remarks: Remarks) -> pd.DataFrame:
    """The table without columns that are no parameters: names of simulations (they become its index), seeds, text."""
    names = [str(name).strip() for name in table.columns]
    unnamed = all(map(_is_number, names))
    labels = [i for i, name in enumerate(names) if not unnamed and LABEL.fullmatch(name)]
    words = [i for i in range(len(names)) if not any(map(_is_number, table.iloc[:, i]))]
    if unnamed and len(names) > 1 and all(map(_is_number, table.iloc[:, 0])):
        first, n = [float(value) for value in table.iloc[:, 0]], len(table)
        labels = [0] if n > 2 and first in (list(range(n)), list(range(1, n + 1))) else []
    words, labels = [] if unnamed else words, labels or [i for i in words if i == 0]
    dropped = {*labels, *words, *(i for i, name in enumerate(names) if SEED.fullmatch(name))}
    if dropped:
        listing = ", ".join(names[i] or "the unnamed index" for i in sorted(dropped))
        remarks.notes.append(f"no parameters, left out: {'the first column' if unnamed else listing}")
    if labels:
        table = table.set_index(table.iloc[:, labels[0]].astype(str).to_numpy())
    kept = [i for i in range(len(names)) if i not in dropped]
    return table.iloc[:, kept].set_axis(range(len(kept)) if unnamed else [table.columns[i] for i in kept], axis=1)


def _numbers(table: pd.DataFrame, where: object) -> pd.DataFrame:
    """The table in float64; an error names the first value that is no number and its line."""
    for row, values in zip(table.index, table.to_numpy(), strict=True):
        for value in values:
            if not _is_number(value):
                advice = "leave out names and text columns, or pass params= (--data.params) with the numbers"
                raise refusal(where, f"{str(value)[:40]!r} in line {row}", "a number", advice)
    return pd.DataFrame(table.to_numpy().astype(float), columns=table.columns, index=table.index)


def _is_number(value: object) -> bool:
    try:
        float(value)
    except (ValueError, TypeError):
        return False
    return True
