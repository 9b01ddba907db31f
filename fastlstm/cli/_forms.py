"""What the first lines of a table tell of it: names, delimiter, decimal sign, kinds of columns.

Where they allow two readings, the error says which option decides.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice, takewhile

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
from fastlstm.cli._lines import Record, find_delimiter, records_of, sample_of
from fastlstm.cli._messages import UserError

#: Lines that everything is decided by.
_SAMPLE = 200
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


def _are_compact_dates(name: str | None, cells: Sequence[str]) -> bool:
    """Whether a column that is called so has dates of eight digits."""
    form = r"(1[6-9]|2\d)\d\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])"
    return name in _CLOCKS and bool(cells) and all(re.fullmatch(form, cell) for cell in cells)


def examine(
    text: Iterator[str], name: str, reading: Reading, notes: list[str]
) -> tuple[Form, Iterator[str], int]:
    """Return what the first lines tell, all lines of names and numbers, and the first's number.

    Raises
    ------
    UserError
        If there is no such line.
    """
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
    form = Form(name, reading, delimiter, sample, notes)
    if comments and not told:
        form.take_names(comments[-1])
    return form, chain(head, text), line


class Form:
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

    def choose(
        self, columns: str | None, size: int | None, features: Sequence[str] | None = None
    ) -> list[int]:
        """Return the columns that are read."""
        if columns is None and features is not None and self.names:
            kept = self._find_features(features)
        elif columns is None:
            kept = self._inputs(size)
        else:
            kept = self.find(next(csv.reader([columns], skipinitialspace=True)))
            self.check_order(kept, features, "reads")
        if not kept:
            raise UserError(f"{self.name}: holds no column of numbers")
        if size is not None and len(kept) != size:
            raise UserError(
                f"{self.name}: has {len(kept)} column{'s' * (len(kept) != 1)} of numbers "
                f"({', '.join(self.label(i)[7:] for i in kept[:20])}), but the input size is "
                f"{size}; {self.name}:NAME,NAME,... chooses columns"
            )
        self.take_decimal_sign(kept)
        return kept

    def _find_features(self, features: Sequence[str]) -> list[int]:
        """Return the columns of a model's features, in its order; say which others there are."""
        names = self.names or []
        if missing := [name for name in features if name not in names]:
            plural = "s" * (len(missing) != 1)
            raise UserError(
                f"{self.name}: no column{plural} {', '.join(map(repr, missing))}, which the model "
                f"reads; there are {', '.join(filter(None, names))}; {self.name}:NAME,NAME,... "
                "chooses columns of other names"
            )
        kept = self.find(features)
        if others := [i for i in range(self.width) if i not in kept and names[i]]:
            listed = ", ".join(self.label(i) for i in others[:20])
            self.notes.append(f"{listed} left out: the model reads {', '.join(features[:20])}")
        return kept

    def check_order(self, kept: list[int], expected: Sequence[str] | None, does: str) -> None:
        """Refuse what a model reads, or answers, in another order than its own."""
        names = [self.title(i) for i in kept]
        if expected is not None and set(names) == set(expected) and names != [*expected]:
            raise UserError(
                f"{self.name}: got the columns {', '.join(names)}, expected {', '.join(expected)}: "
                f"the model {does} them in this order"
            )

    def names_of(self, kept: Sequence[int]) -> list[str] | None:
        """Return the names of columns, None unless each has one of its own."""
        names = self.names or []
        found = [names[i] for i in kept if names]
        return found if found and all(name and names.count(name) == 1 for name in found) else None

    def title(self, i: int) -> str:
        """Return the name of a column; its number from 1 if it has none of its own."""
        (name,) = self.names_of([i]) or [str(i + 1)]
        return name

    def holds_words(self, i: int) -> bool:
        """Whether a column holds text that is no number and no date."""
        kinds = {kind_of(cell) for cell in self._cells(i)}
        return Kind.TEXT in kinds and Kind.NUMBER not in kinds

    def dates(self) -> list[int]:
        """Return the columns that hold dates."""
        names = [name.casefold() for name in self.names or [""] * self.width]
        return [i for i in range(self.width) if self._holds_dates(names[i], self._cells(i))]

    def others(self, taken: Collection[int]) -> list[int]:
        """Return the columns of numbers, but for those taken, and what dates or numbers lines."""
        return self._inputs(None, taken)

    def take_decimal_sign(self, kept: list[int]) -> None:
        """Find out whether the numbers of some columns have a decimal comma."""
        self.comma = self._has_decimal_comma(kept)

    def _cells(self, i: int) -> list[str]:
        """Return what the first lines hold in a column, without empty fields."""
        cells = (cleaned(row.fields[i]) for row in self.rows if len(row.fields) > i)
        return [cell for cell in cells if not is_missing(cell)]

    def find(self, columns: Iterable[str]) -> list[int]:
        """Return the columns of these names, or numbers from 1."""
        names = self.names or []
        kept = []
        for wanted in columns:
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

    def _holds_dates(self, name: str | None, cells: Sequence[str]) -> bool:
        kinds = {kind_of(cell) for cell in cells}
        return kinds - {Kind.MISSING} == {Kind.DATE} or _are_compact_dates(name, cells)

    def _inputs(self, size: int | None, taken: Collection[int] | None = None) -> list[int]:
        """Leave out what dates, numbers or names the lines, of columns that have no part yet."""
        kept, texts, clocks = [], [], []
        for i in range(self.width):
            if taken is not None and i in taken:
                continue
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
            elif self._holds_dates(name, cells):
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
            choice = f"{self.name}:NAME,NAME,..." if taken is None else "--inputs NAME NAME ..."
            raise UserError(
                f"{self.name}: {self.place(self.rows[0], i)}: {self.label(i)} holds "
                f"{self._cells(i)[0]!r}, expected numbers; {choice} chooses columns"
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
