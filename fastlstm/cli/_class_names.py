"""Classes that files have by their names: arrays and columns of text."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fastlstm.cli._arrays import (
    NO_CLASS,
    TABLES,
    Array,
    Opened,
    content_of,
    open_array,
    split_path,
    suffix_of,
)
from fastlstm.cli._cells import cleaned
from fastlstm.cli._forms import Form, Reading
from fastlstm.cli._messages import UserError, note
from fastlstm.cli._tables import Table, read_columns


class _NoWordsError(Exception):
    """A table has no column of words alone: it is read as numbers."""


def open_answers(
    path: Path, reading: Reading, *, targets: Sequence[str] | None, quiet: bool
) -> Opened:
    """Return Y as `open_array` does; of a table whose only, or chosen, column holds words these.

    ``targets`` are names of columns of numbers, which a table that has names has to have.
    """
    file, part = split_path(path)
    if suffix_of(file) not in TABLES:
        return open_array(path, "Y", reading, features=targets, quiet=quiet)

    def find(form: Form) -> tuple[list[int], list[int]]:
        kept = list(range(form.width))
        if part is not None:
            kept = form.find(next(csv.reader([part], skipinitialspace=True)))
        if len(kept) != 1 or not form.holds_words(kept[0]):
            raise _NoWordsError
        return [], kept

    try:
        with content_of(file) as content:
            columns, form = read_columns(content, str(file), reading, find)
    except _NoWordsError:
        return open_array(path, "Y", reading, features=targets, quiet=quiet)
    if form.notes and not quiet:
        note(f"{file}: {'; '.join(form.notes)}")
    (column,) = columns.values()
    cells = np.array([cleaned(cell) for cell in column.tolist()])
    return Opened(cells[:, np.newaxis], Table(cells, False, form.notes))


def by_number(y: Array, path: Path, classes: list[str] | None) -> tuple[Array, list[str]]:
    """Return classes by number for their names, of any shape, and all names.

    Parameters
    ----------
    y : array of text
        An empty one becomes a number that is no class.
    path : Path
    classes : list of str, or None
        All names, in their order; None for those in y, sorted.

    Raises
    ------
    UserError
        If y has another one, or none at all.
    """
    names = np.char.decode(y, "utf-8") if y.dtype.kind == "S" else y
    found, places = np.unique(names, return_inverse=True)
    known = classes or [name for name in found.tolist() if name]
    if not known:
        raise UserError(f"{path}: names no class, expected some")
    numbers = {name: number for number, name in enumerate(known)}
    for name in found.tolist():
        if name and name not in numbers:
            raise UserError(
                f"{path}: got class {name!r}, expected one of {', '.join(known)}; --classes says "
                "which there are"
            )
    of_found = np.array([numbers.get(name, NO_CLASS) for name in found.tolist()], np.int64)
    return of_found[places].reshape(y.shape), known
