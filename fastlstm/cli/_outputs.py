"""The files that commands write: never over another by accident, whole or not at all.

``-`` is standard output. Arrays are written a block at a time, so they may be larger than memory.
Letters: T time steps, B batch.
"""

from __future__ import annotations

import csv
import math
import os
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeAlias

import numpy as np

from fastlstm._files import whole_file
from fastlstm.cli._arrays import STANDARD, Array
from fastlstm.cli._messages import UserError


class Part(NamedTuple):
    """One of the arrays that are written.

    Attributes
    ----------
    name : str
        In an ``.npz`` file.
    dtype : dtype
    inner : tuple of int
        Behind the axes of time and batch.
    columns : tuple of str or None
        In a table; None for numbers without names.
    made_of : callable
        Makes the array (t, b, ...) of z (t, b, N) by heads, and of where its steps exist (t, b),
        None if all do.
    """

    name: str
    dtype: np.dtype[Any]
    inner: tuple[int, ...]
    columns: tuple[str, ...] | None
    made_of: Callable[[Mapping[str, Array], Array | None], Array]


#: A block of the output: its time steps, its sequences, and of each part the array (t, b, ...).
Block: TypeAlias = tuple[slice, slice, list[Array]]


class Layout(NamedTuple):
    """What there is to write.

    Attributes
    ----------
    outer : tuple of int
        (T, B), with ``batch_first`` (B, T); or how many lines, of one axis alone.
    batch_first : bool
    parts : list of Part
    constants : dict of str to array
        What an ``.npz`` file holds besides.
    """

    outer: tuple[int, ...]
    batch_first: bool
    parts: list[Part]
    constants: dict[str, Array]


class _Npy:
    """A ``.npy`` file whose blocks are written to their places."""

    def __init__(self, file: IO[bytes], layout: Layout, part: Part) -> None:
        self._file, self._batch_first = file, layout.batch_first
        self._inner_size = layout.outer[1] if len(layout.outer) == 2 else 1
        self._row_bytes = math.prod(part.inner) * part.dtype.itemsize
        header = {
            "descr": np.lib.format.dtype_to_descr(part.dtype),
            "fortran_order": False,
            "shape": (*layout.outer, *part.inner),
        }
        np.lib.format.write_array_header_1_0(file, header)
        self._start = file.tell()

    def write(self, times: slice, batch: slice, y: Array) -> None:
        outer, inner = (batch, times) if self._batch_first else (times, batch)
        block = y.swapaxes(0, 1) if self._batch_first else y
        if inner.stop - inner.start == self._inner_size:
            block = block.reshape(1, -1)  # full lines of the file: one piece
        for line, values in enumerate(block, start=outer.start):
            place = line * self._inner_size + inner.start
            self._file.seek(self._start + place * self._row_bytes)
            self._file.write(values.tobytes())


def write_npy(path: Path, layout: Layout, blocks: Iterator[Block]) -> None:
    """Write the first part to a ``.npy`` file; the whole is never in memory."""
    with path.open("wb") as file:
        whole = _Npy(file, layout, layout.parts[0])
        for times, batch, (y, *_) in blocks:
            whole.write(times, batch, y)


def write_npz(path: Path, layout: Layout, blocks: Iterator[Block]) -> None:
    """Write each part to a member of an ``.npz`` file, and the constants; likewise."""
    with ExitStack() as stack:
        files = [stack.enter_context(tempfile.TemporaryFile()) for _ in layout.parts]
        wholes = [_Npy(file, layout, part) for file, part in zip(files, layout.parts, strict=True)]
        for times, batch, arrays in blocks:
            for whole, y in zip(wholes, arrays, strict=True):
                whole.write(times, batch, y)
        archive = stack.enter_context(zipfile.ZipFile(path, "w"))
        for part, file in zip(layout.parts, files, strict=True):
            file.seek(0)
            with archive.open(f"{part.name}.npy", "w", force_zip64=True) as member:
                shutil.copyfileobj(file, member)
        for name, array in layout.constants.items():
            with archive.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def write_table(path: Path, layout: Layout, blocks: Iterator[Block], delimiter: str = ",") -> None:
    """Write lines of text, with the digits that give the same bits back.

    Under a line of names, but for numbers that have none.
    """
    columns = [part.columns for part in layout.parts]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter, lineterminator="\n")
        if None not in columns:
            writer.writerow(chain.from_iterable(filter(None, columns)))
        for _, _, arrays in blocks:
            lines = [array.reshape(array.shape[0] * array.shape[1], -1) for array in arrays]
            if None in columns:
                np.savetxt(file, lines[0], fmt=_digits(lines[0]), delimiter=delimiter)
            else:
                texts = [_as_text(each) for each in lines]
                writer.writerows(chain.from_iterable(row) for row in zip(*texts, strict=True))


def _digits(array: Array) -> str:
    return "%.9g" if array.dtype == np.float32 else "%.17g"


def _as_text(array: Array) -> list[list[str]]:
    """Return the fields (n, c): names as they are, labels as 0 and 1."""
    if array.dtype.kind == "b":
        array = array.astype(np.uint8)
    form = _digits(array) if array.dtype.kind == "f" else "%s"
    return [[form % value for value in row] for row in array.tolist()]


class Writer(NamedTuple):
    """How files of a suffix are written; a table has two dimensions."""

    write: Callable[[Path, Layout, Iterator[Block]], None]
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
    ".npz": Writer(write_npz),
}
