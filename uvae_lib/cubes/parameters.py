"""Tables of cosmological parameters: what their columns are called, and whose row is whose."""

import re
import unicodedata
from io import StringIO
from itertools import product, zip_longest
from pathlib import Path

import numpy as np
import pandas as pd

from .arrays import as_text, attributes, existing, reading, refusal
from .layout import ENDING, CubeSuite

KNOWN = {"Omega_m", "sigma_8", "A_SN1", "A_AGN1", "A_SN2", "A_AGN2", "Omega_b", "h", "n_s", "M_nu", "w"}
# names of files that hold parameters
TABLE = re.compile(r"(?i)(param|cosmo|label|theta|target|omega|latin_hypercube).*\.(txt|csv|tsv|dat)$|\.csv$")
# columns that name a simulation, and that seed it: no parameters
LABEL = re.compile(
    r"(?i)|index|unnamed: 0|level_\d|((sim(ulation)?|cube|run|file|reali[sz]ation)s?[ _]?)?(id|n(ame|umber|o|r))?"
)
SEED = re.compile(r"(?i)(random|ic)?_?seed")
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eEdD][-+]?\d+)?|nan|[-+]?inf(inity)?", re.IGNORECASE)
COMMA = re.compile(r"(?<![\w.,])\d+,\d+(?![\w.,])")  # a decimal comma
AS_TEXT = "a table as text", "write it with to_csv(index=False), or pass the DataFrame"
OR_NONE = 'or pass params="none"'
OWN = "attributes"  # params="attributes": those of the cubes themselves, in HDF5 files


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


def cube_parameters(source, suite: CubeSuite) -> pd.DataFrame:
    """One row of parameters a cube, no columns for None and "none".

    source   file (text), DataFrame, or what is made into one, or "attributes" of the cubes in HDF5 files

    Raises CubesError for a table whose columns have no names, or whose rows do not say whose they are.
    """
    if source is None or (isinstance(source, str) and source == "none"):
        return pd.DataFrame(index=range(len(suite.ids)))
    where = source if isinstance(source, str | Path) else "params"
    if where == OWN:
        return _numbers(own_parameters(suite), where)
    with reading(where, AS_TEXT):
        table = _read(Path(source).expanduser()) if where != "params" else pd.DataFrame(source)
    if not table.index.equals(pd.RangeIndex(len(table))):  # the cubes' names
        table = (table if table.index.nlevels > 1 else table.rename_axis("index")).reset_index()
    table = _rows_of_cubes(_named(table, suite, where), suite, where)
    return _numbers(table[[c for c in table if len(suite.columns) != 2 or c in suite.columns]], where)


def own_parameters(suite: CubeSuite) -> pd.DataFrame:
    """Known parameters that stand at the cubes themselves: one number at the data set or group of each, or as many
    numbers as cubes at the only data set of a file. Raises CubesError where one has several values, no number, or none
    at some of the cubes."""
    rows, single = [], len({stack.path for stack in suite.files}) == len(suite.files)
    names = {name: None for stack in suite.files for name in _known_beside(stack)}
    for stack in suite.files:
        n, told = stack.shape[0], _known_beside(stack)
        for name in names:
            values = told.get(name, [])
            fits = all(v.dtype.kind in "fiu" and v.size in (1, n * single) for v in values)
            if not (values and fits and all(np.allclose(v, values[0], 1e-3) for v in values)):
                found = f"{name} = {' and '.join(map(as_text, values)) or 'nothing'}"
                raise refusal(stack.path, found, "one number for each cube", f"correct it, {OR_NONE}")
        rows.append(pd.DataFrame({name: np.broadcast_to(told[name][0], n) for name in names}, index=range(n)))
    return pd.concat(rows, ignore_index=True)


def _known_beside(stack) -> dict[str, list[np.ndarray]]:
    """Values of known parameters beside an array, nearest first; h and w at the array itself are other things."""
    found: dict[str, list] = {}
    for path, value in attributes(stack).items():
        place, _, word = path.rpartition("/")
        if (name := canonical(word)) in KNOWN and not (name in "hw" and place == stack.dataset):
            found.setdefault(name, []).append(np.ravel(value))
    return found


def parameters_beside(suite: CubeSuite, path: Path) -> str | None:
    """A file beside the cubes that is called as tables are, or "attributes" where these hold parameters."""
    places = dict.fromkeys([path if path.is_dir() else path.parent, *(stack.path.parent for stack in suite.files)])
    files = [file for place in places for file in sorted(place.glob("[!.]*.*")) if TABLE.search(file.name)]
    return next((file.name for file in files), OWN if any(map(_known_beside, suite.files)) else None)


def _read(path: Path) -> pd.DataFrame:
    """A text as a table of words; columns have numbers for names where the file has none.

    The names are those of the first row, or of the comments above the numbers.
    """
    existing(path)
    lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    rows = [line for line in lines if line[0] != "#"]
    if not rows:
        raise refusal(path, "no rows", "one row of parameters for each cube", "check the file")
    if COMMA.search(rows[-1]):
        raise refusal(path, f"decimal commas ({rows[-1][:40]})", "decimal points", "write them again with points")
    sep = next((mark for mark in ";\t," if mark in rows[-1]), r"\s+")
    options = {"header": None, "dtype": str, "keep_default_na": False, "skipinitialspace": True, "comment": "#"}
    table = pd.read_csv(StringIO("\n".join(rows)), sep=sep, engine="python", **options)
    table = table.loc[:, (table != "").any()]
    if not any(map(NUMBER.fullmatch, table.iloc[0])):
        return table.iloc[1:].set_axis(table.iloc[0].tolist(), axis=1).reset_index(drop=True)
    return table.set_axis(_names_above(path, lines, table.shape[1]), axis=1)


def _names_above(path: Path, lines: list[str], width: int) -> tuple:
    """Names of columns from the comments of a text, numbers where there are none."""
    comments = [re.sub(r"[\[(].*?[\])]", "", line.strip("# ")) for line in lines if line[0] == "#"]
    words = [[canonical(word) for word in re.split(r"[\s,;]+", comment)] for comment in comments]
    names = {tuple(w) for w in words if len(w) == width and not any(map(NUMBER.fullmatch, w))}
    known = KNOWN & {word for line in words for word in line}
    if len(names) <= 1 and known <= {*(named := next(iter(names), range(width)))}:
        return named
    found = f"comments that name {', '.join(sorted(known))[:100]} above {width} columns"
    raise refusal(path, found, "one line of names, as many as columns", "write # and the names above the numbers")


def _named(table: pd.DataFrame, suite: CubeSuite, where: object) -> pd.DataFrame:
    """The table with names of columns; those of its layout where it has none."""
    width, own = table.shape[1], suite.columns
    if all(NUMBER.fullmatch(str(name)) for name in table.columns):
        if width not in suite.widths:
            found = f"{width} columns without names (first row {', '.join(map(str, table.iloc[0]))[:80]})"
            raise refusal(where, found, "a name for each column", "write # id Omega_m sigma_8 ... above the numbers")
        table.columns = [*own, *(f"parameter_{i + 1}" for i in range(len(own), width))][:width]
    names = [canonical(name) for name in table.columns]
    if twice := [str(c) for c, name in zip(table.columns, names, strict=True) if names.count(name) > 1]:
        found = f"columns {', '.join(twice)} for {canonical(twice[0])}"
        raise refusal(where, found, "every name once", "leave out or rename one")
    return table.set_axis(names, axis=1)


def _label(value) -> str:
    """One name for 3, 3.0, "3", "003" and "3.npy"."""
    text = ENDING.sub("", str(value).strip().strip("\"'").rstrip("/"))
    return str(int(float(text))) if re.fullmatch(r"\d+(\.0*)?(e[+-]?\d+)?", text) else text


def _rows_of_cubes(table: pd.DataFrame, suite: CubeSuite, where: object) -> pd.DataFrame:
    """One row a cube: those that bear their names, or row i for cube i where one array holds them all."""
    numbers, unsaid = [*map(str, range(len(table)))], {"", "index", "Unnamed: 0"}  # as pandas numbers rows
    table = table.drop(columns=[c for c in table if c in unsaid and [*map(_label, table[c])] == numbers])
    words = [c for c in table.columns if not any(NUMBER.fullmatch(str(v).strip()) for v in table[c])]
    ids, n, keys = [c for c in table.columns if LABEL.fullmatch(c)] or words[:1], len(suite.ids), suite.keys
    seeds = [c for c in table.columns if SEED.fullmatch(c)]  # by which files may be called
    rest = table.drop(columns={*ids, *seeds, *(c for c in words if c not in KNOWN and table[c].nunique() == 1 < n)})
    orders: dict[tuple, str] = {}
    for column, called in product([*ids, *(seeds if suite.by_order != "row" else [])], zip_longest(*keys)):
        place = pd.Index(map(_label, table[column]))
        rows = place.get_indexer([_label(key) for key in called]) if place.is_unique else [-1]
        if -1 not in rows and len({*rows}) == n:
            orders.setdefault(tuple(rows), column)
    if len(orders) > 1:
        found = "; ".join(f"column {column}: rows {rows[:4]}" for rows, column in orders.items())
        raise refusal(where, found, "one order of the rows", "leave out the column that is no id")
    for rows in orders:
        return rest.iloc[[*rows]].reset_index(drop=True)
    order = [int(key[-1]) for key in keys] if suite.by_order == "number" else [*range(n)]
    if suite.by_order and not ids and max(order) < len(table) and (len(table) == n or suite.by_order == "number"):
        return rest.iloc[order].reset_index(drop=True)
    first = "; ".join(" ".join(map(str, row)) for row in (table[ids[:1]] if ids else table).to_numpy()[:4])
    found = f"{len(table)} rows of parameters ({f'column {ids[0]}' if ids else 'no id column'}: {first}, ...)"
    found += f" for {n} cubes ({', '.join(key[0] for key in keys[:4])}, ...)"
    raise refusal(where, found, "a row for each cube, called by its name or number", f"add a column id, {OR_NONE}")


def _numbers(table: pd.DataFrame, where: object) -> pd.DataFrame:
    """The table as finite floats."""
    numbers = table.apply(pd.to_numeric, errors="coerce").astype(float)
    for i, k in np.argwhere(~np.isfinite(numbers.to_numpy())):
        found = f"{table.iloc[i, k]!r} in column {table.columns[k]} of cube {i}"
        raise refusal(where, found, "a finite number", f"correct it, leave the cube or the column out, {OR_NONE}")
    whole = [name for name, v in numbers.items() if v.nunique() > 1 and (v == v.round()).all() and name not in KNOWN]
    if whole and where != "params":
        found = f"whole numbers alone in column {', '.join(whole)}"
        raise refusal(where, found, "parameters, which are seldom whole", "call it id or seed, or leave it out")
    if numbers.empty:
        raise refusal(where, "no parameters", "columns of numbers beside the names", f"add some, {OR_NONE}")
    return numbers
