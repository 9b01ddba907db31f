"""Series in tables of text: columns by their part in a forecast, with times and groups.

What is read here is what `fastlstm.data.windows` takes.
"""

from __future__ import annotations

import argparse
import csv
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from fastlstm.cli._arrays import STANDARD, TABLES, content_of, suffix_of
from fastlstm.cli._cells import cleaned, is_missing, is_number
from fastlstm.cli._forms import Form, Reading, examine
from fastlstm.cli._lines import decoded
from fastlstm.cli._messages import UserError, as_user_errors, note
from fastlstm.cli._tables import Numbers

#: Arguments of `fastlstm.data`, and the options they are here.
_OPTIONS = {
    "targets": "--target",
    "length": "--window",
    **{name: f"--{name}" for name in (
        "inputs", "future", "horizon", "step", "group", "time", "split", "missing", "resample",
        "aggregate", "difference",
    )},
}  # fmt: skip


@dataclass(frozen=True)
class Columns:
    """Which columns of a table have which part, by their names or numbers from 1.

    Attributes
    ----------
    targets, future : sequence of str
    inputs : sequence of str or None
        None for all others that hold numbers.
    time : str or None
        None for the column of dates, if there is one.
    group : str or None
    """

    targets: Sequence[str]
    inputs: Sequence[str] | None
    future: Sequence[str]
    time: str | None
    group: str | None


@dataclass(frozen=True)
class Series:
    """A table that was read.

    Attributes
    ----------
    frame : dict of str to array or list
        As `fastlstm.data.windows` takes it.
    parts : dict
        Its arguments that name columns.
    lines : list of int
        Where each row begins.
    in_utc : bool
        Whether times came with a zone, and so are in UTC.
    """

    frame: dict[str, Any]
    parts: dict[str, Any]
    lines: list[int]
    in_utc: bool = False


def is_table(path: Path) -> bool:
    """Whether a file is a table of text by its name; so is standard input."""
    return str(path) == STANDARD or suffix_of(path) in TABLES


def add_time_format(parser: argparse._ActionsContainer) -> None:
    """Add ``--time-format``."""
    text = "how times are written, as in %%d.%%m.%%Y (ISO 8601, as in 2001-12-31T23:59)"
    parser.add_argument("--time-format", metavar="FORM", help=text)


def read_series(
    path: Path, reading: Reading, columns: Columns, time_format: str | None, quiet: bool
) -> Series:
    """Read a table of series.

    Raises
    ------
    UserError
        If there is no such file or column, or a column holds something else.
    """
    if not is_table(path):
        raise UserError(f"{path}: expected a table: {', '.join(TABLES)}")
    with content_of(path) as file:
        text, notes = decoded(file, str(path))
        try:
            form, lines, line = examine(text, str(path), reading, notes)
            parts, labels = _parts(form, columns)
            kept = list(dict.fromkeys(i for part in parts.values() for i in part))
            form.take_decimal_sign(kept)
            numbers = Numbers(form, kept, [i for i in labels.values() if i is not None])
            values = numbers.read(lines, line)
        except (csv.Error, UnicodeError) as error:
            raise UserError(f"{path}: damaged, or in no encoding of text: {error}") from error
        finally:
            text.detach()  # the file is the caller's to close
    frame: dict[str, Any] = {form.title(i): values[:, k] for k, i in enumerate(kept)}
    clock, group = labels["time"], labels["group"]
    zoned = False
    if clock is not None:
        frame[form.title(clock)], zoned = _times(form, clock, numbers, time_format)
    if group is not None:
        names = numbers.texts[group]
        frame[form.title(group)] = [None if is_missing(name) else name for name in names]
    if form.notes and not quiet:
        note(f"{path}: {'; '.join(form.notes)}")
    named = {role: [form.title(i) for i in part] for role, part in parts.items()}
    labelled = {role: None if i is None else form.title(i) for role, i in labels.items()}
    return Series(frame, named | labelled, numbers.lines, zoned)


def _parts(form: Form, columns: Columns) -> tuple[dict[str, list[int]], dict[str, int | None]]:
    """Return the columns of each part, of numbers and of text."""
    parts = {"targets": form.find(columns.targets), "future": form.find(columns.future)}
    group = None if columns.group is None else form.find([columns.group])[0]
    clock = None if columns.time is None else form.find([columns.time])[0]
    if clock is None:
        dates = [i for i in form.dates() if i != group]
        clock = dates[0] if len(dates) == 1 else None
        if len(dates) > 1:
            listed = ", ".join(form.label(i) for i in dates)
            raise UserError(f"{form.name}: {listed} hold dates, use --time to say which")
        if clock is not None:
            form.notes.append(f"{form.label(clock)} is the time")
    if columns.inputs is not None:
        parts["inputs"] = form.find(columns.inputs)
    else:
        taken = {*parts["future"], *(i for i in (group, clock) if i is not None)}
        parts["inputs"] = form.others(taken)
        if set(parts["inputs"]) != set(parts["targets"]):
            listed = ", ".join(form.title(i) for i in parts["inputs"])
            form.notes.append(f"inputs are {listed}")
    return parts, {"time": clock, "group": group}


def _times(form: Form, column: int, numbers: Numbers, time_format: str | None) -> tuple[Any, bool]:
    """Return a column of times, datetime64[us] or numbers, and whether some had a zone."""
    from fastlstm.data.tables import in_utc, is_plain_time

    cells = [cleaned(cell) for cell in numbers.texts[column]]

    def refuse(row: int, expected: str) -> UserError:
        what = cells[row] or "empty"
        return UserError(
            f"{form.name}: line {numbers.lines[row]}: {form.label(column)} is {what}, "
            f"expected {expected}"
        )

    def in_one_zone(times: list[datetime]) -> tuple[Any, bool]:
        zoned = [time.tzinfo is not None for time in times]
        if any(zoned) and not all(zoned):
            other = zoned.index(not zoned[0])
            raise refuse(other, f"a zone {'as in' if zoned[0] else 'in none, as'} the line above")
        return np.array([in_utc(time) for time in times], "datetime64[us]"), any(zoned)

    if time_format is not None:
        times = []
        for row, cell in enumerate(cells):
            try:
                times.append(datetime.strptime(cell, time_format))
            except ValueError:
                raise refuse(row, f"a time as in {time_format!r}") from None
        return in_one_zone(times)
    are_numbers = all(map(is_number, cells))
    if are_numbers and column not in form.dates():
        values = np.array([float(cell.replace(",", ".")) for cell in cells])
        return values.astype(np.int64) if (values == np.round(values)).all() else values, False
    iso = [re.sub(r"^(\d{4})[/.](\d\d)[/.](\d\d)", r"\1-\2-\3", cell) for cell in cells]
    if not are_numbers and all(map(is_plain_time, iso)):
        try:
            return np.array(iso, "datetime64[us]"), False
        except ValueError:
            pass  # the first that is none is found below
    times = []
    for row, cell in enumerate(iso):
        try:
            plain = is_plain_time(cell)  # as months are, which Python does not read
            read = np.datetime64(cell, "us").item() if plain else datetime.fromisoformat(cell)
            times.append(read)
        except ValueError:
            raise refuse(
                row, "a time as of ISO 8601, 2001-12-31T23:59; --time-format says another form"
            ) from None
    return in_one_zone(times)


@contextmanager
def series_errors(path: Path, series: Series) -> Iterator[None]:
    """Report what `fastlstm.data` refuses as mistakes in files and options, by lines."""

    def line(found: re.Match[str]) -> str:
        return f"line {series.lines[int(found[1])]}"

    with as_user_errors({**_OPTIONS, "frame": str(path)}):
        try:
            yield
        except (TypeError, ValueError) as error:
            raise type(error)(re.sub(r"\brow (\d+)\b", line, str(error))) from error
