"""Files of arrays for the command line: read as they lie, written whole or not at all.

``.npy`` is read and written a block at a time, so it may be larger than memory. Letters: T time
steps, B batch, I input size, N numbers per step of the output.
"""

from __future__ import annotations

import csv
import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]

#: A block of the output: its time steps, its sequences, and the numbers (t, b, N).
Block: TypeAlias = tuple[slice, slice, Array]


class UserError(Exception):
    """A mistake in what the user gave; the message is all they need to see."""


def open_input(path: Path, input_size: int, model: Path) -> Array:
    """Return the array in `path`, (T, I), (T, B, I) or (B, T, I); ``.npy`` stays on disk."""
    readers = {".npy": _open_npy, ".csv": _read_csv}
    if path.suffix.lower() not in readers:
        raise UserError(f"{path}: unknown suffix, INPUT can be .npy or .csv")
    if not path.exists():
        raise UserError(f"{path}: no such file")
    try:
        x = readers[path.suffix.lower()](path)
    except (OSError, MemoryError, UserError):
        raise
    except Exception as error:
        # NumPy's header parser and csv raise a dozen types for a damaged file.
        raise UserError(f"{path}: {error or type(error).__name__}") from error
    if x.dtype.kind not in "biuf":
        raise UserError(f"{path}: must hold real numbers, got {x.dtype}")
    if x.ndim not in (2, 3):
        raise UserError(f"{path}: must have two or three dimensions, got shape {x.shape}")
    if x.shape[-1] != input_size:
        raise UserError(
            f"{path}: shape {x.shape} ends in {x.shape[-1]}, "
            f"but the input size of {model} is {input_size}"
        )
    return x


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


def write_npy(
    path: Path,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    batch_first: bool,
    chunks: Iterator[Block],
) -> None:
    """Write blocks to their place in a ``.npy`` file; the whole is never in memory."""
    header = {
        "descr": np.lib.format.dtype_to_descr(dtype),
        "fortran_order": False,
        "shape": shape,
    }
    inner_size = shape[1] if len(shape) == 3 else 1
    row_bytes = shape[-1] * dtype.itemsize
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        data_start = file.tell()
        for times, batch, y in chunks:
            outer, inner = (batch, times) if batch_first else (times, batch)
            block = y.swapaxes(0, 1) if batch_first else y
            if inner.stop - inner.start == inner_size:
                block = block.reshape(1, -1)  # full lines of the file: one piece
            for line, values in enumerate(block, start=outer.start):
                file.seek(data_start + (line * inner_size + inner.start) * row_bytes)
                file.write(values.tobytes())


def write_csv(
    path: Path,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    batch_first: bool,
    chunks: Iterator[Block],
) -> None:
    """Write a two-dimensional output as text, with the digits that give the same bits back."""
    digits = "%.9g" if dtype == np.float32 else "%.17g"
    with path.open("w", encoding="ascii") as file:
        for _, _, y in chunks:
            np.savetxt(file, y[:, 0], fmt=digits, delimiter=",")


@contextmanager
def new_file(path: Path, force: bool) -> Iterator[Path]:
    """Give a path to write to; it becomes `path` if all goes well, and is removed otherwise."""
    if os.path.lexists(path) and not force:
        raise UserError(f"{path}: exists, use --force to replace it")
    if path.is_dir():
        raise UserError(f"{path}: is a folder")
    if not path.parent.is_dir():
        raise UserError(f"{path}: there is no folder {path.parent}")
    with whole_file(path) as partial:
        yield partial
        if not force and os.path.lexists(path):
            raise UserError(f"{path}: was created by someone else meanwhile, left as it is")


def replaceable(path: Path) -> Path:
    """Return what is to be replaced where `path` is written: behind a symbolic link, its target.

    Raises
    ------
    OSError
        If it is a device, a pipe or a folder, or no file can be called so.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        raise OSError(f"{path}: not a regular file, and not to be replaced by one")
    return target


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a path to write to; it becomes `path` in one instant if all goes well, else vanishes.

    Permissions stay.

    Raises
    ------
    OSError
        If it can't be written, or is not `replaceable`.
    """
    target = replaceable(path)
    # In the same folder, since renaming works within one file system only; a name that nobody can
    # foresee, nor another thread use.
    partial = target.with_name(f".partial-{os.urandom(8).hex()}{path.suffix}")
    partial.open("xb").close()
    try:
        if target.exists():
            partial.chmod(stat.S_IMODE(target.stat().st_mode))
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())  # or a power cut might leave the name without the data
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def printable(text: str) -> str:
    """Return text of a file as a terminal may be given it: without controls and line ends."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )
