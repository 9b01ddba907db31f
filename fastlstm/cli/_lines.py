"""The text of a table, cut into the fields of its lines."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, NamedTuple

from fastlstm.cli._cells import Kind, are_consecutive, is_number, kind_of
from fastlstm.cli._messages import UserError

#: Those that are looked for, and one that no table has: it makes a line one field.
DELIMITERS, NONE = (",", ";", "\t", "|", " "), "\x1f"


class Record(NamedTuple):
    """A line of a table, or several where a field in quotes goes on: number, text and fields."""

    line: int
    text: str
    fields: list[str]


def decoded(file: IO[bytes], name: str) -> tuple[io.TextIOWrapper, list[str]]:
    """Return the text, with what was assumed.

    Bytes that are no UTF-8 are kept as they are: numbers are of ASCII in any other encoding, and
    names are looked at later.
    """
    start = file.read(4096)
    file.seek(0)
    encoding, notes = "utf-8", []
    if start.startswith(b"\xef\xbb\xbf"):
        encoding = "utf-8-sig"
    elif start.startswith((b"\xff\xfe\0\0", b"\0\0\xfe\xff")):
        encoding = "utf-32"
    elif start.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding = "utf-16"
    elif b"\0" in start:
        first, second = start[::2].count(0), start[1::2].count(0)
        if min(first, second) > 0.1 * max(first, second) or max(first, second) < len(start) // 4:
            raise UserError(f"{name}: holds bytes that are zero, expected text")
        encoding = "utf-16-be" if first > second else "utf-16-le"
        notes = [f"read as {encoding.upper()}, which no mark at its beginning says"]
    errors = "surrogateescape" if encoding.startswith("utf-8") else "strict"
    return io.TextIOWrapper(file, encoding, errors, newline=""), notes


def records_of(lines: Iterable[str], delimiter: str, line: int = 1) -> Iterator[Record]:
    """Cut lines into fields; empty ones are left out."""
    taken: list[str] = []

    def remembered() -> Iterator[str]:
        for text in lines:
            taken.append(text)
            yield text.rstrip() if delimiter == " " else text

    for fields in csv.reader(remembered(), delimiter=delimiter, skipinitialspace=True):
        if fields:
            yield Record(line, "".join(taken), fields)
        line += len(taken)
        taken.clear()


def sample_of(head: list[str], delimiter: str, complete: bool, line: int = 1) -> list[Record]:
    """Return the first lines cut into fields; none if that can't be done."""
    try:
        records = list(records_of(head, delimiter, line))
    except csv.Error:
        return []
    # The last of those may go on in lines that were not looked at.
    return records if complete or len(records) == 1 else records[:-1]


def find_delimiter(name: str, head: list[str], complete: bool, decimal: str | None) -> str:
    """Return the delimiter that makes the most fields numbers in lines of equal length."""
    found: dict[str, float] = {}
    likely: dict[str, float] = {}  # where no other is
    for delimiter in (*DELIMITERS, NONE):
        records = sample_of(head, delimiter, complete)
        rows = records[1:] or records
        widths = {len(row.fields) for row in rows}
        if len(widths) != 1 or (widths == {1}) != (delimiter == NONE) or delimiter == decimal:
            continue
        (width,), first = widths, records[0].fields
        kinds = [kind_of(field) for row in rows for field in row.fields]
        share = 1 - kinds.count(Kind.TEXT) / len(kinds)
        if Kind.NUMBER not in kinds:
            continue
        if delimiter == NONE:
            # Lines of different lengths are no column of numbers with a decimal comma.
            named = kind_of(first[0]) is Kind.TEXT and not set(first[0]) & set(DELIMITERS[:-1])
            if share == 1 and (named or decimal or not any("," in row.text for row in records)):
                likely[delimiter] = share
        elif len(first) == width:
            found[delimiter] = share
        elif len(first) == width - 1 and _counts(rows):
            likely[delimiter] = share
    found = found or likely
    best = [delimiter for delimiter, share in found.items() if share == max(found.values())]
    if len(best) > 1 and " " in best:
        best.remove(" ")  # it stands beside the other
    if len(best) > 1:
        raise UserError(
            f"{name}: fields may end at {' or '.join(map(_called, best))}, use --delimiter to say"
        )
    return best[0] if best else next((d for d in DELIMITERS if d in head[0]), NONE)


def _called(delimiter: str) -> str:
    return {"\t": "tab", " ": "space", NONE: "the end of a line"}.get(delimiter, repr(delimiter))


def _counts(rows: Sequence[Record]) -> bool:
    """Whether the first column is of names without numbers, or of numbers one after the other."""
    first = [row.fields[0].strip() for row in rows]
    return not any(map(is_number, first)) or are_consecutive(first)
