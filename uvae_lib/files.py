"""Files that are whole or absent: written under a temporary name, flushed to disk, then renamed; folders for one."""

import logging
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

log = logging.getLogger(__name__)


@contextmanager
def lock_folder(folder: str | Path, refusal: str) -> Iterator[None]:
    """Hold a folder, made when absent, against other processes; the lock goes with the process, however that ends.

    Raises ValueError with the sentence `refusal` when another process holds it, OSError where nothing can be written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise ValueError(refusal) from None
    except PermissionError:
        raise
    except (NotImplementedError, OSError) as error:  # some file systems of clusters have no locks
        log.info("%s cannot be locked: %s", folder, error)
    try:
        yield
    finally:
        lock.release()


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path`; renamed to it when the block ends well, removed when it does not."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: str | Path, content: str | bytes) -> None:
    """Write text (UTF-8) or bytes so that a reader sees the old file or the new one, never half of it."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


class Absent(str):
    """Why something was not measured. Its parts are absent too; as a number it reads "not measured"; a plot says it."""

    def __getitem__(self, key) -> "Absent":
        return self

    def __format__(self, spec: str) -> str:
        return "not measured" if spec else str(self)


def plain_values(value):
    """Nested data as JSON has them, numbers with the digits that a float32 has; NaN and infinity become None.

    Raises TypeError for what is no array, tensor, table, mapping, sequence, number or text.
    """
    if hasattr(value, "to_dict"):  # a table
        value = value.to_dict("list")
    if hasattr(value, "tolist"):  # an array or a tensor
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): plain_values(item) for key, item in value.items()}
    if isinstance(value, list | tuple | range):
        return [plain_values(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.8g}") if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    raise TypeError(f"found {type(value).__name__}; expected arrays, tables, numbers or texts")
