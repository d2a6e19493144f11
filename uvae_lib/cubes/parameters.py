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
    NPY_ERRORS,
    NUMERIC,
    CubesError,
    Hdf5File,
    first_line,
    hdf5_places,
    hdf5_values,
    refusal,
    regular_file,
)
from .layout import Remarks

CAMELS = ("Omega_m", "sigma_8", "A_SN1", "A_AGN1", "A_SN2", "A_AGN2")
QUIJOTE = ("Omega_m", "Omega_b", "h", "n_s", "sigma_8", "M_nu", "w")
KNOWN = {*CAMELS, *QUIJOTE}
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
    names = [f"params_{stem}{end}" for stem in stems for end in (".txt", ".csv")]
    seeds = [f"CosmoAstroSeed_{stem}" for stem in (base, base.partition("_")[0])]
    names += [f"{stem}{end}" for stem in seeds for end in (f"*_{set_name}.*", ".*")]
    return _first_file((folder, folder.parent), names)


def quijote_file(folder: Path) -> Path | None:
    """The parameter file of a Quijote set; folder is that of the cosmology, as `latin_hypercube`."""
    own = "latin_hypercube_params.txt"  # its name in the folder of every hypercube
    names = [f"{folder.name}_params.txt", *([own] if folder.name == "latin_hypercube_HR" else [])]
    return _first_file((folder,), [names[0], own]) or _first_file((folder.parent, folder.parent.parent), names)


def _first_file(folders: Sequence[Path], names: Sequence[str]) -> Path | None:
    """The first file of some names (or patterns) in some folders."""
    found = (path for name in names for folder in folders for path in sorted(folder.glob(name)))
    return next((path for path in found if path.is_file()), None)


def tables_in(folder: Path) -> list[Path]:
    """The files of a folder that are called as tables of parameters are."""
    called = (p for p in folder.glob("[!.]*") if p.suffix.lower() in TABLE_SUFFIXES and TABLE.search(p.stem))
    return sorted(p for p in called if p.is_file())


def parameter_table(source, names: tuple[str, ...], ids: Sequence[str], remarks: Remarks) -> pd.DataFrame:
    """Parameters of the cubes from a file, array, dict or DataFrame; no columns for "none" or when none was found.

    ids   of the cubes, one a row: rows that bear their names are matched, others follow the order of the cubes
    """
    if source is None:
        remarks.notes.append("no parameters found; probes of z need them")
    if source is None or (isinstance(source, str) and source == "none"):
        return pd.DataFrame(index=range(len(ids)))
    table = match_rows(read_parameters(source, names, remarks), ids, source)
    remarks.notes.append(f"parameters from {source}" if isinstance(source, str | Path) else "parameters as given")
    return table


def plain_parameters(root: Path, files: Sequence, given, ids: Sequence[str], remarks: Remarks) -> pd.DataFrame:
    """Parameters of plain cubes: as given, from a file beside them that is called as tables are, or from HDF5 files.

    Of several files beside them the one called params... is taken; what is not used is said.
    """
    found = [p for p in tables_in(root) if p not in [file.path for file in files]]
    found = [p for p in found if p.name.lower().startswith("param")] or found
    if given is None and not found and isinstance(files[0], Hdf5File):
        given = hdf5_parameters(files)
    if given is not None or not found:
        return parameter_table(given, (), ids, remarks)
    try:
        if len(found) == 1:
            return parameter_table(found[0], (), ids, remarks)
        listing = ", ".join(p.name for p in found[:5])
        remarks.cautions.append(f"no parameters read: {listing} could be them; pass params= (--data.params) with one")
    except CubesError as error:
        remarks.cautions.append(f"{found[0].name} beside the cubes is not used: {error}")
    return parameter_table(None, (), ids, remarks)


def hdf5_parameters(files: Sequence[Hdf5File]) -> pd.DataFrame | None:
    """Parameters inside HDF5 files, one row a cube, from attributes and small data sets; None without them."""
    tables = []
    try:
        for file in files:
            n, several = file.shape[0], len(file.datasets) > 1
            with h5py.File(file.path, "r") as opened:
                # of several data sets, what lies at each, in its group and in groups beside it
                places = [hdf5_places(opened, name, outwards=not several) for name in file.datasets]
                rows = [_hdf5_row(at, n) for at in places]
                picked = [{key: v[i] for key, v in rows[i if several else 0].items()} for i in range(n)]
                tables.append(pd.DataFrame(picked) if rows[0] else _hdf5_table(opened, file))
        return pd.concat(tables, ignore_index=True).dropna(axis=1)
    except (*HDF5_ERRORS, StopIteration):
        return None  # what stands beside the cubes is not worth a refusal


def _hdf5_row(places: list, n: int) -> dict[str, np.ndarray]:
    """Known parameters, one number or n, from the nearest of several places."""
    row = {}
    for place in reversed(places):
        found = hdf5_values(place, lambda name: canonical(name) in KNOWN)
        row |= {canonical(name): np.ravel(value) for name, value in found.items()}
    return {name: np.broadcast_to(v, n) for name, v in row.items() if v.dtype.kind in NUMERIC and v.size in (1, n)}


def _hdf5_table(opened: h5py.File, file: Hdf5File) -> pd.DataFrame:
    """A data set (cubes, parameters) that is called as tables are, with names in an attribute or as a record."""
    places = hdf5_places(opened, file.datasets[0])[1:]
    tables = ((p[name], v) for p in places for name, v in hdf5_values(p, TABLE.search).items() if name in p)
    dataset, values = next((d, v) for d, v in tables if len(v) == file.shape[0] and v.dtype.kind in (*NUMERIC, "V"))
    table = pd.DataFrame(values)
    heads = [np.ravel(v).astype(str) for v in dataset.attrs.values() if np.size(v) == table.shape[1]]
    return table.set_axis(heads[0], axis=1) if heads else table


def read_parameters(source, names: tuple[str, ...] = (), remarks: Remarks | None = None) -> pd.DataFrame:
    """A table of numbers with named columns, from a file (.txt, .csv, .npy), array (n, k), dict or DataFrame.

    names   of the columns when the table does not name them, with a caution; further ones become parameter_<number>
    Returns one row a cube; the index holds the names of simulations where the table has such a column.
    Raises CubesError when it is not a table, not numeric, or not finite.
    """
    where, remarks = source if isinstance(source, str | Path) else "params", remarks or Remarks()
    table = _read_file(Path(source).expanduser()) if isinstance(source, str | Path) else _as_frame(source)
    table = _numbers(_without_labels(table, remarks), where)
    if all(_is_number(name) for name in table.columns):
        extra = [f"parameter_{i + 1}" for i in range(len(names), table.shape[1])]
        table.columns = [*names, *extra][: table.shape[1]]
        remarks.cautions.append(
            f"the columns of {where} have no names and are taken as {', '.join(table.columns)}, in this order; name "
            "them in a first line (# Omega_m sigma_8 ...) when that is wrong"
        )
    plain = [str(name).strip().strip("\"'") for name in table.columns]
    renamed = [canonical(name) for name in plain]  # an alias gives way to the name itself
    table.columns = [old if new in plain else new for old, new in zip(plain, renamed, strict=True)]
    if table.columns.has_duplicates:
        twice = sorted(set(table.columns[table.columns.duplicated()]))
        raise refusal(where, f"column {', '.join(twice)} twice", "every name once", "rename the columns")
    return table


def match_rows(table: pd.DataFrame, ids: Sequence[str], where: object) -> pd.DataFrame:
    """The rows of the cubes: those that bear their names, or else row i for cube i.

    Raises CubesError when the table's length does not fit, or when its numbers contradict its order.
    """
    where = where if isinstance(where, str | Path) else "params"
    labels = [re.sub(r"\.(npy|npz|hdf5|h5)$", "", str(label).rstrip("/")) for label in table.index]
    place = {} if isinstance(table.index, pd.RangeIndex) else {label: i for i, label in enumerate(labels)}
    parts = [name.split("/") for name in ids]
    own = [p[-1] for p in parts if len(p) == 2 or not p[-1].isdecimal()]  # the number of a cube in a stack is no name
    for keys in (["_".join(p[-2:]) for p in parts], own, [p[-2] for p in parts if len(p) > 2]):
        rows = [place[key] for key in keys if key in place]
        if len(place) == len(labels) and len(rows) == len(set(rows)) == len(ids):
            return table.iloc[rows].reset_index(drop=True)
    if len(table) != len(ids):
        advice = 'pass params= (--data.params) with the matching table, or "none" to go without'
        raise refusal(where, f"{len(table)} rows of parameters", f"{len(ids)}, one for each cube", advice)
    numbers = [int(found[0]) for label in place if (found := re.search(r"\d+$", label))]
    if len(set(numbers)) == len(labels) and numbers != sorted(numbers):
        found, expected = f"rows that are numbered {', '.join(map(str, numbers[:5]))}, ...", "row i for cube i"
        raise refusal(where, found, expected, "sort the table in the order of the cubes, or leave its numbers out")
    return table.reset_index(drop=True)


def _as_frame(source) -> pd.DataFrame:
    """What was handed over, as a table; a Series of names is the row of one cube, names in an index a column."""
    if isinstance(source, pd.Series) and source.index.dtype.kind not in NUMERIC:
        source = source.to_frame().T.reset_index(drop=True)
    if isinstance(source, pd.DataFrame):
        return source.reset_index(drop=isinstance(source.index, pd.RangeIndex) or source.index.dtype.kind in NUMERIC)
    try:
        if isinstance(source, dict):
            source = {name: np.atleast_1d(values) for name, values in source.items()}
        return pd.DataFrame(source)
    except ValueError as error:
        raise refusal("params", f"no table ({error})", "(cubes, parameters)", "give one row a cube") from error


def _read_file(path: Path) -> pd.DataFrame:
    """A `.npy` array or a text as a table; pickles are never opened."""
    regular_file(path)
    try:
        if path.suffix.lower() == ".npy":
            return pd.DataFrame(np.lib.format.open_memmap(path, mode="r"))
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except NPY_ERRORS as error:
        found, expected = f"no readable table ({first_line(error)})", "UTF-8 text or a .npy array of numbers"
        raise refusal(path, found, f"{expected}; pickles are never opened", "save it again as text") from error
    return _read_text(path, lines)


def _read_text(path: Path, lines: list[str]) -> pd.DataFrame:
    """Rows between blanks, commas or semicolons, as text; the index holds the numbers of their lines.

    Columns are named by the first row when it holds no number (or the empty corner of `to_csv`), or by the comments.
    pandas.read_csv would neither say which line is at fault nor look into comments.
    """
    stripped = {i: line.strip() for i, line in enumerate(lines, 1) if line.strip()}
    rows = {i: _fields(line) for i, line in stripped.items() if line[0] not in "#%"}
    comments = [line.lstrip("#% ") for line in stripped.values() if line[0] in "#%"]
    first = next(iter(rows.values()), [])
    names = None
    if not any(map(_is_number, first)) or (first[0] == "" and len(first) > 1):
        names, rows = first, dict(list(rows.items())[1:])
    if not rows:
        raise refusal(path, "no rows", "one row of parameters for each cube", "check the file")
    width = len(next(iter(rows.values())))
    names = names or _names_in(path, comments, width)
    if names and len(names) == width - 1:  # the corner above an index
        names = ["", *names]
    for number, row in (rows | {"of names": names or [""] * width}).items():
        if len(row) != width:
            raise refusal(path, f"{len(row)} values in line {number}", f"{width}, as before", "repair that line")
    return pd.DataFrame(rows.values(), index=list(rows), columns=names)


def _names_in(path: Path, comments: list[str], width: int) -> list[str] | None:
    """The names of the columns, from the comment that has as many words.

    Raises CubesError when comments name parameters, and it is not clear which column is which.
    """
    bare = [re.sub(r"[\[(][^\])]*[\])]", "", comment) for comment in comments]  # without units
    lines = [_fields(part) for c in bare for part in (c, c.partition(":")[2]) if part.strip()]
    fitting = [line for line in lines if len(line) == width and not all(map(_is_number, line))]
    named = [line for line in fitting if any(canonical(word) in KNOWN for word in line)]
    mentioned = [word for c in comments for word in re.split(r"[\s,;:=()\[\]'\"]+", c) if canonical(word) in KNOWN]
    choices = {tuple(map(canonical, line)): line for line in named or fitting}
    if len(choices) > 1 or (mentioned and not named):
        found = f"comments that name {', '.join(mentioned)[:120]} above {width} columns"
        raise refusal(path, found, "one line of names, as many as columns", "write # and the names above the numbers")
    return next(iter(choices.values()), None)


def _fields(line: str) -> list[str]:
    """The words of a line, without quotes and without a remark behind them."""
    line = line.partition(" #")[0].strip()
    words = re.split(r"\s*[,;]\s*" if re.search(r"[,;]", line) else r"\s+", line)
    words = words[:-1] if len(words) > 1 and words[-1] == "" else words
    return [word.strip("\"'") for word in words]


def _without_labels(table: pd.DataFrame, remarks: Remarks) -> pd.DataFrame:
    """The table without columns that are no parameters: names of simulations (they become its index), seeds, text."""
    names = [str(name).strip() for name in table.columns]
    n, unnamed = len(table), all(map(_is_number, names))
    words = [i for i in range(len(names)) if not any(map(_is_number, table.iloc[:, i]))]
    labels = [i for i, name in enumerate(names) if not unnamed and LABEL.fullmatch(name)] or [
        i for i in words if i == 0
    ]
    if unnamed and len(names) > 1 and n > 2 and all(map(_is_number, table.iloc[:, 0])):  # 0, 1, 2, ... or 1, 2, 3, ...
        first = table.iloc[:, 0].astype(float).tolist()
        labels = [0] if first in (list(range(n)), list(range(1, n + 1))) else []
    seeds = [i for i, name in enumerate(names) if SEED.fullmatch(name)]
    dropped = {*labels, *seeds, *([] if unnamed else words)}
    if dropped:
        listing = ", ".join(names[i] or "the unnamed index" for i in sorted(dropped))
        remarks.notes.append(f"no parameters, left out: {'the first column' if unnamed else listing}")
    if labels:
        table = table.set_index(table.iloc[:, labels[0]].astype(str).to_numpy())
    kept = [i for i in range(len(names)) if i not in dropped]
    return table.iloc[:, kept].set_axis(range(len(kept)) if unnamed else [table.columns[i] for i in kept], axis=1)


def _numbers(table: pd.DataFrame, where: object) -> pd.DataFrame:
    """The table in float64; an error names the first value that is no number and its line."""
    advice = "leave out names and text columns, or pass params= (--data.params) with the numbers"
    if table.empty:
        raise refusal(where, "no numbers", "numbers", advice)
    for row, values in zip(table.index, table.to_numpy(), strict=True):
        for value in values:
            if not _is_number(value) or not np.isfinite(float(value)):
                raise refusal(where, f"{str(value)[:40]!r} in line {row}", "a finite number", advice)
    named = all(isinstance(label, str) for label in table.index)
    return pd.DataFrame(table.to_numpy().astype(float), columns=table.columns, index=table.index if named else None)


def _is_number(value: object) -> bool:
    try:
        float(value)
    except (ValueError, TypeError):
        return False
    return True
