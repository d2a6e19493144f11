"""What the numbers of a cube are: density, delta, overdensity or counts; and the way to an overdensity."""

import numpy as np

from .arrays import refusal

FIELD_TYPES = ("density", "delta", "overdensity", "counts")
ROUNDING = 2e-6  # negative overdensities down to this are rounding in the painting of mass


def to_overdensity(
    raw: np.ndarray, field_type: str, where: str, divide_by: float | None = None
) -> tuple[np.ndarray, float, int]:
    """Overdensity of a cube as it is stored.

    raw         (..., N, N) real numbers, overwritten where that saves memory
    field_type  density | delta | overdensity | counts
    where       what to call the cube in an error
    divide_by   mean density [units of raw]; None takes the cube's own mean
    Returns y = rho / <rho> float32, contiguous, never negative; the mean of rho [units of raw]; and how many
    voxels between -2e-6 and 0 were set to 0.
    Raises CubesError for NaN or infinity, a constant cube, a mean that is not positive, negative densities.
    """
    rho = _native(raw)
    if field_type == "delta":
        rho = np.add(rho, 1, out=rho)
    mean, low, high = _moments(rho, where)
    if low == high:
        found = "all voxels zero" if low == 0 else f"all voxels {low:g}, a constant cube"
        raise refusal(where, found, "a density that varies", "leave out this cube, or copy it again")
    if mean <= 0 or low < -ROUNDING * mean:
        name, n = "1 + delta" if field_type == "delta" else field_type, int((rho < -ROUNDING * mean).sum())
        found, expected = f"a mean {name} of {mean:.4g}", "a positive mean"
        if mean > 0:
            found = f"{n} voxels of negative {name}, down to {low / mean:.3g} of the mean"
            expected = f"none below {-ROUNDING:g} of the mean"
        advice = f"repair this cube, or pass another field_type= (--data.field-type) if it is not {field_type}"
        raise refusal(where, found, expected, advice)
    if not 1e-25 < mean < 1e25:  # the quotient would leave the range of float32
        rho = rho.astype(np.float64)
    y = np.divide(rho, mean if divide_by is None else divide_by, out=rho)
    n_clipped = int((y < 0).sum()) if low < 0 else 0
    if n_clipped:
        np.maximum(y, 0, out=y)
    return np.ascontiguousarray(y, dtype=np.float32), mean, n_clipped


def guess_field_type(raw: np.ndarray, where: str, hint: str | None = None) -> str:
    """Field type of a cube from its numbers; the hint of a reader decides between density and counts.

    Raises CubesError when it can be none of them.
    """
    values = _native(raw)
    mean, low, high = _moments(values, where)
    if -1 - ROUNDING <= low < 0 and abs(mean) < 0.2 * -low:
        return "delta"
    if mean <= 0 and low < high:
        found = f"values from {low:.4g} to {high:.4g} with mean {mean:.4g}"
        expected = "a density, overdensity or counts (never negative) or delta (mean 0, never below -1)"
        raise refusal(where, found, expected, "if these are logarithms, save their exponential")
    whole = high < 2**23 and not np.any(values != np.rint(values))  # larger float32 are always whole
    if whole or (hint == "counts" and abs(mean - 1) > 1e-3):
        return "counts"
    return "overdensity" if abs(mean - 1) < 1e-3 else "density"


def looks_like(raw: np.ndarray, field_type: str) -> str:
    """What a cube is instead, where that is beyond doubt: logarithms or standardised numbers; "" otherwise.

    ln(1 + rho) and log10(1 + rho) are known by the mean of what they are logarithms of, 1, or by its whole numbers.
    """
    x = _native(raw)
    low, high = float(x.min()), float(x.max())
    if field_type == "delta" and abs(x.std(dtype="f8") - 1) < 1e-5 and abs(x.mean(dtype="f8")) < 1e-5:
        return "standardised numbers"
    for name, inverse in (("ln(1 + rho)", np.expm1), ("log10(1 + rho)", lambda x: np.expm1(x * np.log(10)))):
        if 0 <= low < high < 30 and field_type != "counts":
            rho = inverse(x)
            if abs(rho.mean(dtype="f8") - 1) < 1e-3 or np.all(np.abs(rho - np.rint(rho)) <= 1e-4 * (1 + rho)):
                return name
    return ""


def _native(raw: np.ndarray) -> np.ndarray:
    """As writeable float32 or float64 in native order; wide integers need the wider one."""
    wide = raw.dtype.itemsize > (4 if raw.dtype.kind == "f" else 2)
    values = raw.astype(np.float64 if wide else np.float32, copy=False)
    return values if values.flags.writeable else values.copy()


def _moments(values: np.ndarray, where: str) -> tuple[float, float, float]:
    """Mean, minimum, maximum. Raises CubesError, with their number, when some values are not finite."""
    with np.errstate(over="ignore", invalid="ignore"):
        mean = float(values.mean(dtype=np.float64))
    if not np.isfinite(mean):
        n_nan, n_inf = int(np.isnan(values).sum()), int(np.isinf(values).sum())
        found = f"{n_nan} NaN and {n_inf} infinite voxels" if n_nan + n_inf else "numbers too large to average"
        raise refusal(where, found, "finite numbers", "repair or leave out this cube")
    return mean, float(values.min()), float(values.max())
