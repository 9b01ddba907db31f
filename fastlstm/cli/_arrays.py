"""The arrays that commands read: ``.npy`` as it lies on disk, ``.csv`` as lines of numbers.

Letters: T time steps, I numbers in a line.
"""

from __future__ import annotations

import csv
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastlstm.cli._messages import UserError

Array: TypeAlias = NDArray[Any]


def open_array(path: Path, name: str, *suffixes: str) -> Array:
    """Return the array in a file; ``.npy`` is mapped, not read.

    Parameters
    ----------
    path : Path
    name : str
        What the command calls it, for the error about its suffix.
    *suffixes : str
        Those of `READERS` that it may have; all by default.

    Raises
    ------
    UserError
        If there is no such file, or it holds no array.
    """
    suffix, allowed = path.suffix.lower(), suffixes or tuple(READERS)
    if suffix not in allowed:
        raise UserError(f"{path}: unknown suffix, {name} can be {' or '.join(allowed)}")
    if not path.exists():
        raise UserError(f"{path}: no such file")
    try:
        return READERS[suffix](path)
    except (OSError, MemoryError, UserError):
        raise
    except Exception as error:
        # NumPy's header parser and csv raise a dozen types for a damaged file.
        raise UserError(f"{path}: {error or type(error).__name__}") from error


def _open_npy(path: Path) -> Array:
    """Map the file; Python objects, and anything but one array, are refused by NumPy."""
    return np.lib.format.open_memmap(path, mode="r")


def _read_csv(path: Path) -> Array:
    """Numbers (T, I) in float64. The first line may hold names: it does if none is a number."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        first = next(csv.reader(file), None)
        if not first:
            raise ValueError("the first line is empty")
        names = any(first) and not any(map(_is_number, first))
        file.seek(0)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*no data")  # T = 0 is allowed
            x = np.loadtxt(
                file, delimiter=",", comments=None, quotechar='"', skiprows=int(names), ndmin=2
            )
    return x if len(x) else np.empty((0, len(first)))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


READERS: dict[str, Callable[[Path], Array]] = {".npy": _open_npy, ".csv": _read_csv}
