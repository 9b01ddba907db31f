"""Checkpoints: named arrays in one ``.npz``, on disk either whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastlstm._files import whole_file
from fastlstm.weights.npz import read_npz, write_npz


def write(path: str | os.PathLike[str], arrays: Mapping[str, Any]) -> None:
    """Write arrays, numbers and strings; a file of that name is replaced in one instant.

    Raises
    ------
    OSError
        If it can't be written. What was there before is then still there.
    TypeError
        If a value is a Python object, which `read` would refuse.
    """
    members = check(arrays)
    with whole_file(Path(path)) as partial:
        write_npz(partial, members)


def check(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Return arrays, numbers and strings as `write` writes them; TypeError if it would refuse."""
    members: dict[str, Any] = {name: np.asarray(value) for name, value in arrays.items()}
    if objects := [name for name, array in members.items() if array.dtype.hasobject]:
        raise TypeError(f"{', '.join(objects)}: got a Python object, expected an array or a number")
    return members


def read(path: str | os.PathLike[str]) -> dict[str, NDArray[Any]]:
    """Read what `write` wrote; nothing is ever unpickled.

    Raises
    ------
    OSError
        If there is no such file, or it can't be read.
    ValueError
        If it is no ``.npz``, or corrupt. The message names the file.
    """
    return read_npz(Path(path))
