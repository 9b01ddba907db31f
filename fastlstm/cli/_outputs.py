"""The files that commands write: never over another by accident, whole or not at all.

``-`` is standard output. ``.npy`` is written a block at a time, so it may be larger than memory.
Letters: T time steps, B batch, N numbers per step of the output.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from fastlstm._files import whole_file
from fastlstm.cli._arrays import STANDARD, Array
from fastlstm.cli._messages import UserError

#: A block of the output: its time steps, its sequences, and the numbers (t, b, N).
Block: TypeAlias = tuple[slice, slice, Array]


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


def write_table(
    path: Path,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    batch_first: bool,
    chunks: Iterator[Block],
    delimiter: str = ",",
) -> None:
    """Write a two-dimensional output as text, with the digits that give the same bits back."""
    digits = "%.9g" if dtype == np.float32 else "%.17g"
    with path.open("w", encoding="ascii") as file:
        for _, _, y in chunks:
            np.savetxt(file, y[:, 0], fmt=digits, delimiter=delimiter)


class Writer(NamedTuple):
    """How files of a suffix are written; a table has two dimensions."""

    write: Callable[[Path, tuple[int, ...], np.dtype[Any], bool, Iterator[Block]], None]
    is_table: bool = False


@contextmanager
def new_file(path: Path, force: bool) -> Iterator[Path]:
    """Give a path to write to; it becomes `path` if all goes well, and is removed otherwise.

    For ``-`` it is written to standard output then.
    """
    if str(path) == STANDARD:
        with tempfile.TemporaryDirectory() as folder:
            yield (whole := Path(folder) / "output")
            _to_standard_output(whole)
        return
    if os.path.lexists(path) and not force:
        raise UserError(f"{path}: exists, use --force to replace it")
    if path.is_dir():
        raise UserError(f"{path}: is a folder")
    if not path.parent.is_dir():
        raise UserError(f"{path}: there is no folder {path.parent}")
    with whole_file(path) as unfinished:
        yield unfinished
        if not force and os.path.lexists(path):
            raise UserError(f"{path}: was created by someone else meanwhile, left as it is")


def _to_standard_output(path: Path) -> None:
    with path.open("rb") as file:
        if sys.stdout.isatty() and file.read(1) == b"\x93":
            raise UserError("-: .npy is not for a terminal, use -o FILE")
        file.seek(0)
        sys.stdout.flush()
        shutil.copyfileobj(file, sys.stdout.buffer)


WRITERS = {
    ".npy": Writer(write_npy),
    ".csv": Writer(write_table, is_table=True),
    ".tsv": Writer(partial(write_table, delimiter="\t"), is_table=True),
}
