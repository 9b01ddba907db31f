"""The arrays that commands read: NumPy's files, and tables of numbers in text.

Nothing is mapped that others can write to: a file that is cut short meanwhile would end the
process (SIGBUS). What is large is copied to a file of one's own, and that is mapped, so that the
memory stays bounded.
"""

from __future__ import annotations

import argparse
import gzip
import math
import re
import shutil
import sys
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastlstm.cli._forms import Reading
from fastlstm.cli._messages import UserError, note
from fastlstm.cli._tables import Table, read_table

Array: TypeAlias = NDArray[Any]

#: Suffixes of files that are read, each also with ``.gz`` behind it.
NUMPY, TABLES = (".npy", ".npz"), (".csv", ".tsv", ".txt", ".dat")
SUFFIXES = (*NUMPY, *TABLES)
#: Standard input, or output.
STANDARD = "-"

#: A class that is none.
NO_CLASS = -100

#: Bytes of an array that are kept in memory.
_LARGE = 2**28
#: Bytes that are copied at a time.
_PIECE = 2**24
_PART = re.compile(
    rf"(-|.*(?:{'|'.join(map(re.escape, SUFFIXES))})(?:\.gz)?):(.+)", re.IGNORECASE | re.DOTALL
)


class Opened(NamedTuple):
    """An array of a file, and what is known of it if it was a table."""

    array: Array
    table: Table | None = None


def add_reading(parser: argparse._ActionsContainer, *missing: str, default: str | None) -> None:
    """Add the options that say how tables are read; `missing` are the choices of ``--missing``."""
    add = parser.add_argument
    text = "between the fields of a table: a character, tab or space (by default what fits)"
    add("--delimiter", type=_delimiter, metavar="CHAR", help=text)
    add("--decimal", choices=[".", ","], help="of the numbers in a table (by default what fits)")
    text = "whether the first line of a table holds names (by default what it looks like)"
    add("--header", choices=["yes", "no"], help=text)
    text = f"what fields of a table without a number become ({default or 'refused'})"
    add("--missing", choices=missing, default=default, help=text)


def reading_of(args: argparse.Namespace, missing: str | None) -> Reading:
    """Return what the options of `add_reading` say."""
    header = None if args.header is None else args.header == "yes"
    return Reading(args.delimiter, args.decimal, header, missing)


def _delimiter(text: str) -> str:
    found = {"tab": "\t", r"\t": "\t", "space": " "}.get(text, text)
    if len(found) != 1 or found in '"\r\n':
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a character, tab or space")
    return found


def file_of(path: Path) -> Path:
    """Return the file that is read for ``FILE`` or ``FILE:PART``."""
    return split_path(path)[0]


def split_path(path: Path) -> tuple[Path, str | None]:
    """Take ``FILE:PART`` apart; a file that is called so counts as itself."""
    found = None if path.exists() else _PART.fullmatch(str(path))
    return (Path(found[1]), found[2]) if found else (path, None)


def open_array(
    path: Path,
    name: str,
    reading: Reading,
    *,
    size: int | None = None,
    features: Sequence[str] | None = None,
    quiet: bool = False,
) -> Opened:
    """Return the array in a file.

    Parameters
    ----------
    path : Path
        ``-`` is standard input; ``FILE:PART`` a member of ``.npz``, or columns of a table.
    name : str
        What the command calls it, for the error about its suffix.
    reading : Reading
        How a table is read.
    size : int, optional
        How many columns a table has to have.
    features : sequence of str, optional
        Their names, which a table that has names has to have.
    quiet : bool
        Whether to keep to oneself what was decided for the user.

    Raises
    ------
    UserError
        If there is no such file, or it holds no array.
    """
    file, part = split_path(path)
    suffix = suffix_of(file)
    if not _is_stream(file) and suffix not in SUFFIXES:
        allowed = f"{', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}, each also as .gz"
        raise UserError(f"{file}: unknown suffix, {name} can be {allowed}")
    with content_of(file) as content:
        opened = _read(content, str(file), suffix, part, reading, size, features)
    if opened.table is not None and opened.table.notes and not quiet:
        note(f"{file}: {'; '.join(opened.table.notes)}")
    return opened


def suffix_of(file: Path) -> str:
    """Return the suffix of a file, before ``.gz`` if there is one."""
    suffixes = [suffix.lower() for suffix in file.suffixes]
    return suffixes[-2] if suffixes[-1:] == [".gz"] and len(suffixes) > 1 else file.suffix.lower()


def open_counts(path: Path, name: str, reading: Reading) -> Array:
    """Return lengths, or a mask, as `open_array` does.

    Of a table whole numbers are integers, and a single column has one dimension.
    """
    array, table = open_array(path, name, reading)
    if table is not None:
        array = array.astype(np.int64) if table.whole else array
        array = array[:, 0] if array.shape[1] == 1 else array
    return array


def as_classes(y: Array, path: Path) -> Array:
    """Return whole numbers as integers, NaN as one that is no class."""
    known = ~np.isnan(y)
    with np.errstate(invalid="ignore"):
        classes = np.where(known, y, NO_CLASS).astype(np.int64)
    if not np.array_equal(classes[known], y[known]):
        raise UserError(f"{path}: holds fractions, expected whole numbers for classes")
    return classes


def _is_stream(path: Path) -> bool:
    """Whether it can be read once only, and has no suffix to go by: a pipe, as of ``<(...)``."""
    return str(path) == STANDARD or path.is_fifo()


@contextmanager
def content_of(path: Path) -> Iterator[IO[bytes]]:
    """Give what a file holds, unpacked if it is of gzip, as a file that can be sought.

    Raises
    ------
    UserError
        If there is no such file, or it is cut short.
    """
    if str(path) != STANDARD and not path.exists():
        raise UserError(f"{path}: no such file")
    try:
        with _unpacked(path) as content:
            yield content
    except (EOFError, gzip.BadGzipFile, zlib.error, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: cut short or damaged: {error}") from error


@contextmanager
def _unpacked(path: Path) -> Iterator[IO[bytes]]:
    with tempfile.TemporaryFile() if _is_stream(path) else path.open("rb") as file:
        if _is_stream(path):
            standard = nullcontext(sys.stdin.buffer) if str(path) == STANDARD else None
            with standard or path.open("rb") as pipe:
                shutil.copyfileobj(pipe, file, _PIECE)
            file.seek(0)
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        if packed:
            with gzip.GzipFile(fileobj=file) as unpacked:
                yield unpacked  # type: ignore[misc]  # it has all that is needed
        else:
            yield file


def _read(
    file: IO[bytes],
    name: str,
    suffix: str,
    part: str | None,
    reading: Reading,
    size: int | None,
    features: Sequence[str] | None,
) -> Opened:
    """Read an array by the first bytes of its file, which are those of NumPy or of text."""
    start = file.read(6)
    file.seek(0)
    if start == b"\x93NUMPY":
        if part is not None:
            raise UserError(f"{name}: holds one array, got {part!r} to choose from it")
        return Opened(_read_npy(file, name))
    if start.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return Opened(_read_member(file, name, part))
    if suffix in NUMPY:
        raise UserError(f"{name}: not a {suffix} file, or damaged")
    table = read_table(file, name, reading, part, size, features)
    return Opened(table.numbers, table)


def members_of(path: Path) -> list[str]:
    """Return the names of the arrays in an ``.npz`` file; none of another file."""
    file, part = split_path(path)
    if part is not None or suffix_of(file) != ".npz":
        return []
    with content_of(file) as content, zipfile.ZipFile(content) as archive:
        return [e.removesuffix(".npy") for e in archive.namelist() if e.endswith(".npy")]


def _read_member(file: IO[bytes], name: str, member: str | None) -> Array:
    """Read an array of an ``.npz`` file."""
    with zipfile.ZipFile(file) as archive:
        members = [each for each in archive.namelist() if each.endswith(".npy")]
        names = [each.removesuffix(".npy") for each in members]
        if not members:
            raise UserError(f"{name}: holds no array")
        if member is None and len(members) > 1:
            raise UserError(
                f"{name}: holds {len(members)} arrays, choose one, as {name}:{names[0]}; there are "
                f"{', '.join(names[:50])}"
            )
        chosen = names[0] if member is None else member
        if chosen not in names:
            raise UserError(f"{name}: holds no array {chosen!r}; there are {', '.join(names[:50])}")
        try:
            with archive.open(members[names.index(chosen)]) as array:
                return _read_npy(array, f"{name}:{chosen}")
        except (NotImplementedError, RuntimeError) as error:  # methods of packing, and passwords
            raise UserError(f"{name}:{chosen}: {error}") from error


def _read_npy(file: IO[bytes], name: str) -> Array:
    """Read an array as `numpy.save` writes it; Python objects are refused."""
    shape, in_columns, dtype = _read_header(file, name)
    length = math.prod(shape) * dtype.itemsize
    if length > _LARGE:
        # The mapping keeps the file, which has no name and vanishes with it.
        with tempfile.TemporaryFile() as copy:
            for piece in _pieces(file, length, name):
                copy.write(piece)
            copy.flush()
            return np.memmap(copy, dtype, "r", shape=shape, order="F" if in_columns else "C")
    data = bytearray()
    for piece in _pieces(file, length, name):
        data += piece
    return np.frombuffer(data, dtype).reshape(shape, order="F" if in_columns else "C")


def _read_header(file: IO[bytes], name: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    headers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    try:
        read_header = headers[np.lib.format.read_magic(file)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about headers of Python 2
            shape, in_columns, dtype = read_header(file)
    except (OSError, MemoryError, EOFError, zlib.error, zipfile.BadZipFile):
        raise
    except Exception as error:
        # NumPy's parser raises a dozen types for a damaged header, and gives advice about options
        # that there are not here.
        raise UserError(f"{name}: not a .npy file, or its header is damaged") from error
    if dtype.hasobject:
        raise UserError(f"{name}: holds Python objects, expected numbers")
    if dtype.itemsize == 0 or any(not 0 <= n < 2**63 for n in shape):
        raise UserError(f"{name}: has the shape {shape} of {dtype}, expected numbers")
    return tuple(map(int, shape)), in_columns, dtype


def _pieces(file: IO[bytes], length: int, name: str) -> Iterator[bytes]:
    """Yield as many bytes of a file; what a header merely claims takes no memory."""
    left = length
    while left:
        piece = file.read(min(_PIECE, left))
        if not piece:
            raise UserError(f"{name}: cut short, {length - left} of {length} bytes are there")
        left -= len(piece)
        yield piece
