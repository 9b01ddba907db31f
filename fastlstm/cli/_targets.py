"""The right answers that ``run`` compares a network's with: arrays, or columns of a table.

Letters: T time steps, B batch, K numbers of an answer, classes or labels.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastlstm.cli._answers import columns_of
from fastlstm.cli._arrays import (
    TABLES,
    Array,
    as_classes,
    content_of,
    members_of,
    open_array,
    reading_of,
    split_path,
    suffix_of,
)
from fastlstm.cli._cells import cleaned
from fastlstm.cli._forms import Form
from fastlstm.cli._messages import UserError, note
from fastlstm.cli._tables import read_columns
from fastlstm.training import HeadSpec, Network
from fastlstm.training.layout import ONLY


class Arrangement:
    """How the arrays of the user's lie, beside a network's.

    Parameters
    ----------
    network : Network
    is_single : bool
        Whether there is one sequence, without an axis for it.
    batch_first : bool
        Whether the user's are (B, T, ...).
    """

    def __init__(self, network: Network, is_single: bool, batch_first: bool) -> None:
        self._each_step, self._is_single = network.each_step, is_single
        self._turns = batch_first != network.lstm.batch_first
        self._batch_axis = 0 if network.lstm.batch_first else 1

    @property
    def axes(self) -> int:
        """How many axes stand before those of an answer."""
        return self._each_step + (not self._is_single)

    def of_steps(self, array: Array) -> Array:
        """Return an array (T, B, ...) as the network takes it."""
        return array.swapaxes(0, 1) if self._batch_axis == 0 else array

    def of_answers(self, y: Array, axes: int) -> Array:
        """Return answers, or their weights, as the network takes them; ``axes`` are behind."""
        if self._is_single:
            if self._each_step:
                # A single one may stand in a batch of its own.
                return y if y.ndim == 2 + axes else np.expand_dims(y, self._batch_axis)
            return y if y.ndim == 1 + axes else y[np.newaxis]
        if self._each_step and self._turns and y.ndim >= 2:
            return y.swapaxes(0, 1)
        return y


def read_targets(args: argparse.Namespace, network: Network, arranged: Arrangement) -> Any:
    """Return Y as `Network.evaluate` takes it, of several heads a dict."""
    path, heads = args.targets, network.heads
    file, part = split_path(path)
    if suffix_of(file) in TABLES:
        found = _read_table(args, file, part, heads)
    elif ONLY in heads:
        names = ["y"] if part is None and "y" in members_of(path) else []
        found = {ONLY: _open(args, Path(f"{path}:{names[0]}") if names else path)}
    else:
        missing = [name for name in heads if name not in members_of(path)]
        if missing:
            raise UserError(
                f"{path}: expected an .npz file or a table, with answers of {', '.join(heads)}; "
                f"there is no {missing[0]}"
            )
        found = {name: _open(args, Path(f"{path}:{name}")) for name in heads}
    ys = {name: _as_answers(y, heads[name], path, arranged) for name, y in found.items()}
    return ys.get(ONLY, ys)


def read_weights(args: argparse.Namespace, arranged: Arrangement) -> Array | None:
    """Return W as `Network.evaluate` takes it, or None."""
    if args.weights is None:
        return None
    weights, table = open_array(args.weights, "W", reading_of(args, None), quiet=args.quiet)
    if table is not None:
        if weights.shape[1] != 1:
            raise UserError(f"{args.weights}: has {weights.shape[1]} columns, expected 1")
        weights = weights[:, 0]
    return arranged.of_answers(weights, 0)


def _open(args: argparse.Namespace, path: Path) -> Array:
    return open_array(path, "Y", reading_of(args, None), quiet=args.quiet).array


def _as_answers(y: Array, spec: HeadSpec, path: Path, arranged: Arrangement) -> Array:
    """Return the answers of a head as the network takes them."""
    if spec.kind == "class":
        in_numbers = spec.classes is None or not isinstance(spec.classes[0], float)
        y = as_classes(y, path) if y.dtype.kind == "f" and in_numbers else y
        return arranged.of_answers(y, 0)
    if spec.outputs == 1 and y.ndim == arranged.axes:  # one number, without an axis for it
        y = y[..., np.newaxis]
    return arranged.of_answers(y, 1)


# tables


def _read_table(
    args: argparse.Namespace, file: Path, part: str | None, heads: Any
) -> dict[str, Array]:
    """Return the answers of each head, lines of one (T,) or of several numbers (T, K)."""
    chosen: dict[str, list[int]] = {}

    def find(form: Form) -> tuple[list[int], list[int]]:
        for head, spec in heads.items():
            chosen[head] = _find_columns(form, head, spec, part)
        words = [i for head, kept in chosen.items() if _in_words(heads[head]) for i in kept]
        rest = [i for kept in chosen.values() for i in kept if i not in words]
        return list(dict.fromkeys(rest)), words

    weighted = "nan" if args.weights is not None else None
    with content_of(file) as content:
        columns, form = read_columns(content, str(file), reading_of(args, weighted), find)
    if form.notes and not args.quiet:
        note(f"{file}: {'; '.join(form.notes)}")
    for head, kept in chosen.items():
        if _in_words(heads[head]):
            columns[kept[0]] = _as_classes(columns[kept[0]], heads[head], str(file))
    return {
        head: columns[kept[0]] if heads[head].kind == "class"
        else np.stack([columns[i] for i in kept], axis=-1)
        for head, kept in chosen.items()
    }  # fmt: skip


def _in_words(spec: HeadSpec) -> bool:
    """Whether the names of its classes are words: True and False are, too."""
    classes = spec.classes if spec.kind == "class" else None
    return classes is not None and isinstance(classes[0], str | bool)


def _as_classes(cells: Array, spec: HeadSpec, name: str) -> Array:
    """Return what a column says of classes whose names are words: these, or numbers of classes."""
    classes = spec.classes or ()
    if not isinstance(classes[0], str):
        known = {"true": True, "false": False, "1": True, "0": False}
        if wrong := [cell for cell in cells.tolist() if cell.casefold() not in known]:
            raise UserError(f"{name}: got class {wrong[0]!r}, expected one of {list(classes)}")
        return np.array([known[cell.casefold()] for cell in cells.tolist()])
    names = {cleaned(str(each)) for each in classes}
    given = {cleaned(cell) for cell in cells.tolist()} - {""}
    numbers = {str(number) for number in range(len(classes))}
    if given and not given & names and given <= numbers:
        return np.array([int(cell or -1) for cell in map(cleaned, cells.tolist())])
    return cells


def _find_columns(form: Form, head: str, spec: HeadSpec, part: str | None) -> list[int]:
    """Return the columns of a head's answers: those chosen, of its names, or all there are."""
    names = _wanted(head, spec)
    count = 1 if spec.kind == "class" else spec.outputs
    if part is not None:
        if head != ONLY:
            raise UserError(f"{form.name}:{part}: got columns, expected a table with {names[0]}")
        kept = form.find(next(csv.reader([part], skipinitialspace=True)))
        form.check_order(kept, names, "answers")
    elif form.names and set(names) <= set(form.names):
        kept = form.find(names)
    elif head == ONLY and _in_words(spec):
        kept = list(range(form.width))
    elif head == ONLY and (count == 1 or not form.names or not _has_names(spec)):
        kept = form.choose(None, None)
    else:
        missing = [name for name in names if name not in (form.names or [])]
        raise UserError(
            f"{form.name}: no column {missing[0]!r}, with the answers{f' of {head}' * bool(head)}; "
            f"there are {', '.join(filter(None, form.names or [])) or f'1 to {form.width}'}"
            f"{f'; {form.name}:NAME,NAME,... chooses columns of other names' * (head == ONLY)}"
        )
    if len(kept) != count:
        plural = "s" * (count != 1)
        raise UserError(
            f"{form.name}: has {len(kept)} columns, expected {count}{plural} of answers"
            f"{f', called {names[0]}' if count == 1 else ''}; {form.name}:NAME chooses"
        )
    return kept


def _has_names(spec: HeadSpec) -> bool:
    return (spec.classes if spec.is_decision else spec.targets) is not None


def _wanted(head: str, spec: HeadSpec) -> Sequence[str]:
    """Return what the columns are called, as OUTPUT has them; of quantiles those of the targets."""
    if spec.quantiles is None:
        return columns_of(head, spec) or [str(i + 1) for i in range(spec.outputs)]
    prefix = f"{head}." if head else ""
    return [f"{prefix}{name}" for name in spec.targets or range(1, spec.outputs + 1)]
