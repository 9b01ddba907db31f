"""Tables of numbers in text: CSV and its relatives, as spreadsheets and data frames write them.

What a table leaves open is decided by its first lines; where they allow two readings, the error
says which option decides. Letters: T lines of numbers, I columns.
"""

from __future__ import annotations

import csv
import io
import math
import re
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastlstm.cli._cells import cleaned, is_fraction, is_missing, is_number
from fastlstm.cli._forms import Form, Reading, examine
from fastlstm.cli._lines import Record, decoded, records_of
from fastlstm.cli._messages import UserError

#: Lines that are read at a time.
_BLOCK = 5000


class Table(NamedTuple):
    """A table that was read.

    Attributes
    ----------
    numbers : float64 (T, I)
    whole : bool
        Whether all are written as whole numbers.
    notes : list of str
        What was decided for the user.
    names : list of str, or None
        Of the columns, if each has one of its own.
    """

    numbers: NDArray[np.float64]
    whole: bool
    notes: list[str]
    names: list[str] | None = None


def read_table(
    file: IO[bytes],
    name: str,
    reading: Reading,
    columns: str | None,
    size: int | None,
    features: Sequence[str] | None = None,
) -> Table:
    """Read a table.

    Parameters
    ----------
    file : binary file
        At its beginning.
    name : str
        Of the file, for errors.
    reading : Reading
    columns : str, optional
        Those that are wanted, by names or numbers from 1, with commas between them.
    size : int, optional
        I, where it is known: it decides whether a column is of the data or counts the lines.
    features : sequence of str, optional
        Names of the I columns, by which they are found in a table that has names.

    Raises
    ------
    UserError
        If it is no table of numbers, or may be read in two ways.
    """
    with _text_of(file, name) as (text, notes):
        return _read(text, name, reading, columns, size, features, notes)


def read_columns(
    file: IO[bytes],
    name: str,
    reading: Reading,
    find: Callable[[Form], tuple[Sequence[int], Sequence[int]]],
) -> tuple[dict[int, NDArray[Any]], Form]:
    """Read columns of a table, of numbers and of text.

    Parameters
    ----------
    file, name, reading
        As of `read_table`.
    find : callable
        Returns the columns of numbers, and those of text.

    Returns
    -------
    dict of int to array (T,)
        float64, or text.
    Form

    Raises
    ------
    UserError
        As `read_table`.
    """
    with _text_of(file, name) as (text, notes):
        form, lines, line = examine(text, name, reading, notes)
        kept, texts = find(form)
        form.take_decimal_sign(list(kept))
        numbers = Numbers(form, list(kept), texts)
        values = numbers.read(lines, line)
    columns: dict[int, NDArray[Any]] = {i: values[:, k] for k, i in enumerate(kept)}
    return columns | {i: np.array(cells) for i, cells in numbers.texts.items()}, form


@contextmanager
def _text_of(file: IO[bytes], name: str) -> Iterator[tuple[IO[str], list[str]]]:
    """Give a table as text, and the notes on it; report what is none."""
    text, notes = decoded(file, name)
    try:
        yield text, notes
    except (csv.Error, UnicodeError) as error:
        raise UserError(f"{name}: damaged, or in no encoding of text: {error}") from error
    finally:
        text.detach()  # the file is the caller's to close


def _read(
    text: Iterator[str],
    name: str,
    reading: Reading,
    columns: str | None,
    size: int | None,
    features: Sequence[str] | None,
    notes: list[str],
) -> Table:
    form, lines, line = examine(text, name, reading, notes)
    kept = form.choose(columns, size, features)
    numbers = Numbers(form, kept).read(lines, line)
    whole = bool(np.isfinite(numbers).all() and (numbers == np.round(numbers)).all())
    whole = whole and not any(
        is_fraction(cleaned(row.fields[i])) for row in form.rows for i in kept
    )
    return Table(numbers, whole, form.notes, form.names_of(kept))


class Numbers:
    """The numbers of a table, line by line, with the text of other columns.

    Attributes
    ----------
    texts : dict of int to list of str
        By column.
    lines : list of int
        Where each row begins.
    """

    def __init__(self, form: Form, kept: list[int], texts: Sequence[int] = ()) -> None:
        self.form, self.kept = form, kept
        self.texts: dict[int, list[str]] = {i: [] for i in texts}
        self.lines: list[int] = []
        self.values = array("d")
        self.missing: dict[int, str] = {}  # by column: where the first is
        self.count = 0

    def read(self, lines: Iterator[str], line: int) -> NDArray[np.float64]:
        """Return all (T, I); ``line`` is the number of the first line."""
        if self.form.begins_with_names:
            record = next(records_of(lines, self.form.delimiter, line))
            line = record.line + len(io.StringIO(record.text, newline="").readlines())
        while block := list(islice(lines, _BLOCK)):
            if not self._read_plain(block, line):
                # A field in quotes may go on in the next block.
                quoted = any('"' in text for text in block)
                more = chain(block, lines) if quoted else block
                self._read_records(records_of(more, self.form.delimiter, line))
            line += len(block)
        return self._filled(np.array(self.values).reshape(len(self.lines), len(self.kept)))

    def _read_plain(self, block: list[str], line: int) -> bool:
        """Read lines that hold nothing but numbers, ten times as fast; or read nothing."""
        form = self.form
        if not self.kept:
            return False
        ends = form.width - 1
        if form.delimiter == " ":
            # Spaces beside a space are none between fields.
            block = [text.rstrip() for text in block]
            if any(text.startswith(" ") or "  " in text for text in block):
                return False
        if any(text.count(form.delimiter) != ends or '"' in text for text in block):
            return False
        if form.is_closed and not all(
            text.rstrip("\r\n").endswith(form.delimiter) for text in block
        ):
            return False
        if form.comma:
            if form.delimiter == "," or any(map(re.compile(r"\.|,(?!\d)").search, block)):
                return False
            block = [text.replace(",", ".") for text in block]
        try:
            numbers = np.loadtxt(
                block, delimiter=form.delimiter, comments=None, usecols=self.kept, ndmin=2
            )
        except ValueError:
            return False
        if len(numbers) != len(block) or np.isnan(numbers).any():
            return False
        self.values.frombytes(numbers.tobytes())
        self.lines += range(line, line + len(block))
        for i, cells in self.texts.items():
            cells += (text.split(form.delimiter)[i].strip() for text in block)
        return True

    def _read_records(self, records: Iterator[Record]) -> None:
        """Read lines of any kind."""
        form, kept = self.form, self.kept
        for record in records:
            fields = record.fields
            if len(fields) != form.width:
                raise UserError(
                    f"{form.name}: line {record.line}: has {len(fields)} "
                    f"field{'s' * (len(fields) != 1)}, expected {form.width} as in the others"
                )
            if form.is_closed and fields[-1].strip():
                raise UserError(
                    f"{form.name}: {form.place(record, form.width - 1)}: "
                    f"{form.label(form.width - 1)} is {fields[-1]!r}, but empty in the lines "
                    f"before; {form.name}:1,2,... chooses columns"
                )
            try:
                row = [float(fields[i]) for i in kept]
            except ValueError:
                row = []
            # Python takes more for a number than tables mean: underscores, and NaN.
            if not row or "_" in record.text or math.isnan(sum(row)):
                row = [self._number(record, i) for i in kept]
            self.values.extend(row)
            self.lines.append(record.line)
            for i, cells in self.texts.items():
                cells.append(fields[i].strip())

    def _number(self, record: Record, i: int) -> float:
        form, text = self.form, cleaned(record.fields[i])
        if is_missing(text):
            self.missing.setdefault(i, form.place(record, i))
            self.count += 1
            if form.reading.missing is None:
                raise UserError(
                    f"{form.name}: {self.missing[i]}: {form.label(i)} is {text or 'empty'}, "
                    "expected a number; --missing says what to put there"
                )
            return math.nan
        if is_number(text) and ("," not in text or form.comma) and not (form.comma and "." in text):
            return float(text.replace(",", "."))
        raise UserError(
            f"{form.name}: {form.place(record, i)}: {form.label(i)} is {text!r}, expected a number"
            + (" with a decimal comma" if form.comma else "")
            + ("; --decimal , reads it" if is_number(text) and not form.comma else "")
        )

    def _filled(self, numbers: NDArray[np.float64]) -> NDArray[np.float64]:
        """Put into the gaps what the user wants there."""
        if not self.count:
            return numbers
        form, how = self.form, self.form.reading.missing
        gaps = np.isnan(numbers)
        known = {i: numbers[~gaps[:, k], k] for k, i in enumerate(self.kept)}
        if how == "forward":
            last = np.maximum.accumulate(np.where(gaps, -1, np.arange(len(numbers))[:, None]))
            for k, i in enumerate(self.kept):
                if len(last) and last[0, k] < 0:
                    raise UserError(
                        f"{form.name}: {self.missing[i]}: {form.label(i)} begins without a number, "
                        "nothing can be carried forward"
                    )
            numbers = np.take_along_axis(numbers, last, axis=0)
            filled = "filled with the number above"
        elif how == "mean":
            for k, i in enumerate(self.kept):
                if not len(known[i]):
                    raise UserError(f"{form.name}: {form.label(i)} has no number, so no mean")
                numbers[gaps[:, k], k] = known[i].mean()
            filled = "filled with the mean of the column"
        elif how == "zero":
            numbers[gaps] = 0
            filled = "filled with 0"
        elif how == "drop":
            numbers = numbers[~gaps.any(axis=1)]
            lines = int(gaps.any(axis=1).sum())
            filled = f"{lines} line{'s' * (lines != 1)} left out"
            if not len(numbers):
                raise UserError(f"{form.name}: every line lacks a number, none is left")
        else:
            filled = "read as NaN"
        count = f"{self.count} field{'s' * (self.count != 1)} without a number"
        first = min(self.missing.values(), key=_in_order)
        form.notes.append(f"{count}, the first at {first}: {filled}")
        return numbers


def _in_order(place: str) -> list[int]:
    return [int(digits) for digits in re.findall(r"\d+", place)]
