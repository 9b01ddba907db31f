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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice, takewhile
from typing import IO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastlstm.cli._cells import (
    Kind,
    are_consecutive,
    are_increasing,
    cleaned,
    is_fraction,
    is_missing,
    is_number,
    kind_of,
    may_be_thousands,
)
from fastlstm.cli._lines import Record, decoded, find_delimiter, records_of, sample_of
from fastlstm.cli._messages import UserError

#: Lines that everything is decided by, and those that are read at a time.
_SAMPLE, _BLOCK = 200, 5000
#: Names of columns that number the lines, and of such as may.
_UNNAMED, _INDICES = {"", "unnamed: 0"}, {"index", "id", "row", "no", "nr", "#"}
_CLOCKS = {"date", "time", "datetime", "timestamp", "datum", "t", "ds", "day", "epoch"}


@dataclass(frozen=True)
class Reading:
    """How tables are to be read, as far as the user says.

    Attributes
    ----------
    delimiter, decimal : str or None
    header : bool or None
        Whether the first line holds names.
    missing : str or None
        What a field without a number becomes: ``"nan"``, ``"zero"``, ``"mean"`` of its column, the
        number ``"forward"`` of it, above; ``"drop"`` leaves its line out, None refuses it.
    """

    delimiter: str | None = None
    decimal: str | None = None
    header: bool | None = None
    missing: str | None = None


class Table(NamedTuple):
    """A table that was read.

    Attributes
    ----------
    numbers : float64 (T, I)
    whole : bool
        Whether all are written as whole numbers.
    notes : list of str
        What was decided for the user.
    """

    numbers: NDArray[np.float64]
    whole: bool
    notes: list[str]


def read_table(
    file: IO[bytes], name: str, reading: Reading, columns: str | None, size: int | None
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

    Raises
    ------
    UserError
        If it is no table of numbers, or may be read in two ways.
    """
    text, notes = decoded(file, name)
    try:
        return _read(text, name, reading, columns, size, notes)
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
    notes: list[str],
) -> Table:
    head = list(islice(text, _SAMPLE))
    complete = len(head) < _SAMPLE
    if not head or not head[0].strip("\r\n"):
        raise UserError(f"{name}: the first line is empty")
    delimiter, line = reading.delimiter, 1
    comments = list(takewhile(lambda text: text.startswith("#"), head))
    if told := re.fullmatch(r"sep=(.)\s*", head[0]):  # to spreadsheets
        delimiter = delimiter or told[1]
        comments = head[:1]
    line += len(comments)
    del head[: len(comments)]
    if not head:
        raise UserError(f"{name}: holds no line of numbers")
    delimiter = delimiter or find_delimiter(name, head, complete, reading.decimal)
    sample = sample_of(head, delimiter, complete, line)
    if not sample:
        raise UserError(f"{name}: holds no line of numbers")
    form = _Form(name, reading, delimiter, sample, notes)
    if comments and not told:
        form.take_names(comments[-1])
    kept = form.choose(columns, size)
    numbers = _Numbers(form, kept).read(chain(head, text), line)
    whole = bool(np.isfinite(numbers).all() and (numbers == np.round(numbers)).all())
    whole = whole and not any(
        is_fraction(cleaned(row.fields[i])) for row in form.rows for i in kept
    )
    return Table(numbers, whole, form.notes)


def _are_compact_dates(name: str | None, cells: Sequence[str]) -> bool:
    """Whether a column that is called so has dates of eight digits."""
    form = r"(1[6-9]|2\d)\d\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])"
    return name in _CLOCKS and bool(cells) and all(re.fullmatch(form, cell) for cell in cells)


class _Form:
    """What the first lines of a table tell of it.

    Attributes
    ----------
    name, reading, delimiter
        As `read_table` has them.
    names : list of str or None
        Of the columns.
    begins_with_names : bool
        Whether they are the first line.
    rows : list of Record
        The first lines that are none.
    width : int
        Fields of a line.
    notes : list of str
    comma : bool
        Whether numbers have a decimal comma; as `choose` finds.
    is_closed : bool
        Whether a delimiter ends the lines, and nothing comes after it; as `choose` finds.
    """

    def __init__(
        self, name: str, reading: Reading, delimiter: str, sample: list[Record], notes: list[str]
    ) -> None:
        self.name, self.reading, self.delimiter, self.notes = name, reading, delimiter, notes
        self.width = len(sample[1 if len(sample) > 1 else 0].fields)
        self.names = self._find_names(sample)
        self.begins_with_names = self.names is not None
        self.rows = sample[self.begins_with_names :]
        if not self.rows:
            raise UserError(f"{name}: holds names and no line of numbers")
        self.comma = self.is_closed = False

    def _find_names(self, sample: list[Record]) -> list[str] | None:
        first, rows = [cleaned(field) for field in sample[0].fields], sample[1:]
        if self.reading.header is None:
            is_names = self._holds_names(first, rows)
        else:
            is_names = self.reading.header
        if not is_names:
            return None
        if len(first) == self.width - 1:
            # A delimiter may end the lines; or R wrote the names of lines, without one for these.
            ends = not any(cleaned(row.fields[-1]) for row in rows if len(row.fields) == self.width)
            first.insert(len(first) if ends else 0, "")
        if len(first) != self.width:
            text = f"{len(first)} names in line {sample[0].line}, {self.width} fields below"
            raise UserError(f"{self.name}: {text}")
        return self._decoded_names(first)

    def take_names(self, comment: str) -> None:
        """Take names out of a line behind "#", as NumPy writes them."""
        names = next(records_of([comment.lstrip("# ")], self.delimiter), None)
        if self.names is None and names is not None and len(names.fields) == self.width:
            self.names = self._decoded_names([field.strip() for field in names.fields])

    def _holds_names(self, first: list[str], rows: list[Record]) -> bool:
        kinds = [kind_of(field) for field in first]
        if Kind.NUMBER not in kinds:
            return Kind.TEXT in kinds or (Kind.MISSING in kinds and self._ask("holds no number"))
        if len(first) == self.width - 1 and rows:
            return self._ask("has a field less than the others")
        numbered = [str(i) for i in range(len(first))]
        if first[0] == "" and first[1:] == numbered[:-1]:
            return True  # as pandas numbers columns without names
        fractions = any(is_fraction(cleaned(field)) for row in rows for field in row.fields)
        if len(first) > 1 and first == numbered and fractions:
            return self._ask("numbers the columns from 0 up")
        for i, kind in enumerate(kinds):
            below = {kind_of(row.fields[i]) for row in rows if len(row.fields) > i}
            if kind is Kind.MISSING or (kind is Kind.TEXT and Kind.NUMBER in below):
                return self._ask(f"holds numbers and {first[i] or 'an empty field'}")
        return False

    def _ask(self, what: str) -> bool:
        raise UserError(
            f"{self.name}: line 1 {what}: are these names? --header yes or --header no says"
        )

    def _decoded_names(self, names: list[str]) -> list[str]:
        """Read names that are no UTF-8."""
        try:
            "".join(names).encode()
        except UnicodeEncodeError:
            pass
        else:
            return names
        data = [name.encode("utf-8", "surrogateescape") for name in names]
        for encoding in ("cp1252", "latin-1"):  # the second has a letter for every byte
            try:
                names = [name.decode(encoding) for name in data]
            except UnicodeDecodeError:
                continue
            break
        self.notes.append(f"names read as {encoding}, for they are no UTF-8")
        return names

    def label(self, i: int) -> str:
        """Return what a column is called: its number, and its name if it has one."""
        return f"column {i + 1}" + (f" ({self.names[i]})" if self.names and self.names[i] else "")

    def place(self, record: Record, field: int) -> str:
        """Return where a field begins, as an editor counts: lines and characters from 1."""
        line, column, index, quoted, begins = record.line, 1, 0, False, True
        for c in record.text:
            if not (begins and c == " "):
                if begins and index == field:
                    break
                begins = False
            if c == '"':
                quoted = not quoted
            elif c == self.delimiter and not quoted:
                index, begins = index + 1, True
            line, column = (line + 1, 1) if c == "\n" else (line, column + 1)
        return f"line {line}, column {column}"

    # columns

    def choose(self, columns: str | None, size: int | None) -> list[int]:
        """Return the columns that are read."""
        kept = self._named(columns) if columns is not None else self._inputs(size)
        if not kept:
            raise UserError(f"{self.name}: holds no column of numbers")
        if size is not None and len(kept) != size:
            raise UserError(
                f"{self.name}: has {len(kept)} column{'s' * (len(kept) != 1)} of numbers "
                f"({', '.join(self.label(i)[7:] for i in kept[:20])}), but the input size is "
                f"{size}; {self.name}:NAME,NAME,... chooses columns"
            )
        self.comma = self._has_decimal_comma(kept)
        return kept

    def _cells(self, i: int) -> list[str]:
        """Return what the first lines hold in a column, without empty fields."""
        cells = (cleaned(row.fields[i]) for row in self.rows if len(row.fields) > i)
        return [cell for cell in cells if not is_missing(cell)]

    def _named(self, columns: str) -> list[int]:
        names = self.names or []
        kept = []
        for wanted in next(csv.reader([columns], skipinitialspace=True)):
            if names.count(wanted) > 1:
                raise UserError(f"{self.name}: several columns are named {wanted!r}, use numbers")
            if wanted in names:
                kept.append(names.index(wanted))
            elif wanted.isdecimal() and 1 <= int(wanted) <= self.width:
                kept.append(int(wanted) - 1)
            else:
                there = ", ".join(filter(None, names)) or f"1 to {self.width}"
                raise UserError(f"{self.name}: no column {wanted!r}, there are {there}")
        return kept

    def _inputs(self, size: int | None) -> list[int]:
        """Leave out what dates, numbers or names the lines."""
        kept, texts, clocks = [], [], []
        for i in range(self.width):
            cells = self._cells(i)
            kinds = {kind_of(cell) for cell in cells}
            name = self.names[i].casefold() if self.names else None
            if i == self.width - 1 and not cells and not name and self.width > 1:
                self.is_closed = True
                continue
            if i == 0 and name in _UNNAMED and self.width > 1:
                self._leave_out(i, "has no name and numbers the lines")
            elif i == 0 and name in _INDICES and self.width > 1 and are_consecutive(cells):
                self._leave_out(i, "numbers the lines")
            elif kinds - {Kind.MISSING} == {Kind.DATE} or _are_compact_dates(name, cells):
                self._leave_out(i, "holds dates")
            elif cells and Kind.NUMBER not in kinds:
                texts.append(i)
            else:
                named_so = name in _CLOCKS and are_increasing(cells)
                if named_so or (i == 0 and are_consecutive(cells)):
                    clocks.append(i)
                kept.append(i)
        if texts and len(kept) != size:
            i = texts[0]
            raise UserError(
                f"{self.name}: {self.place(self.rows[0], i)}: {self.label(i)} holds "
                f"{self._cells(i)[0]!r}, expected numbers; {self.name}:NAME,NAME,... "
                "chooses columns"
            )
        for i in texts:
            self._leave_out(i, "holds text")
        if clocks and len(clocks) < len(kept):
            if size is not None and len(kept) - len(clocks) == size:
                self._ask_about_commas(size)
                for i in clocks:
                    kept.remove(i)
                    self._leave_out(i, "counts the lines")
            elif size is None:
                for i in clocks:
                    self.notes.append(
                        f"{self.label(i)} counts the lines, and is read as the others"
                    )
        return kept

    def _ask_about_commas(self, size: int) -> None:
        """Refuse "1,5": a number with a decimal comma, or the first line of a column and a 5."""
        said = self.reading.decimal or self.reading.delimiter or self.names or size > 1
        cells = (cell for i in range(self.width) for cell in self._cells(i))
        if self.delimiter == "," and not said and not any(map(is_fraction, cells)):
            raise UserError(
                f"{self.name}: a comma may stand between fields or be of the numbers, as in line "
                f"{self.rows[0].line}; use --decimal , or --decimal . to say"
            )

    def _leave_out(self, i: int, why: str) -> None:
        self.notes.append(f"{self.label(i)} {why}, left out")

    def _has_decimal_comma(self, kept: list[int]) -> bool:
        if self.reading.decimal is not None:
            return self.reading.decimal == ","
        cells = [cell for i in kept for cell in self._cells(i)]
        commas = [cell for cell in cells if "," in cell and is_number(cell)]
        if not commas:
            return False
        points = [cell for cell in cells if "." in cell and is_number(cell)]
        if points or all(map(may_be_thousands, commas)):
            other = f" and {points[0]!r}" if points else ""
            raise UserError(
                f"{self.name}: got numbers as {commas[0]!r}{other}; use --decimal , or --decimal . "
                "to say what ends the whole part"
            )
        self.notes.append("numbers have a decimal comma")
        return True


class _Numbers:
    """The numbers of a table, line by line."""

    def __init__(self, form: _Form, kept: list[int]) -> None:
        self.form, self.kept = form, kept
        self.values = array("d")
        self.missing: dict[int, str] = {}  # by column: where the first is
        self.count = 0

    def read(self, lines: Iterator[str], line: int) -> NDArray[np.float64]:
        """Return all (T, I); ``line`` is the number of the first line."""
        if self.form.begins_with_names:
            record = next(records_of(lines, self.form.delimiter, line))
            line = record.line + len(io.StringIO(record.text, newline="").readlines())
        while block := list(islice(lines, _BLOCK)):
            if not self._read_plain(block):
                # A field in quotes may go on in the next block.
                quoted = any('"' in text for text in block)
                more = chain(block, lines) if quoted else block
                self._read_records(records_of(more, self.form.delimiter, line))
            line += len(block)
        return self._filled(np.array(self.values).reshape(-1, len(self.kept)))

    def _read_plain(self, block: list[str]) -> bool:
        """Read lines that hold nothing but numbers, ten times as fast; or read nothing."""
        form = self.form
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
