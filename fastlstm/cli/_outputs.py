"""The files that commands write: never over another by accident, whole or not at all.

``.npy`` is written a block at a time, so it may be larger than memory. Letters: T time steps,
B batch, N numbers per step of the output.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from fastlstm._files import whole_file
from fastlstm.cli._arrays import Array
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


WRITERS = {".npy": write_npy, ".csv": write_csv}
