"""LSTMs among arrays with names, as state dicts of PyTorch, ``.npz`` and ``.safetensors`` hold.

The names are those of ``torch.nn.LSTM`` behind a prefix, ``encoder.rnn.weight_ih_l0``, those of
``torch.nn.LSTMCell``, ``cell.weight_ih``, and this package's further ones (`fastlstm._parameters`).
A GRU and a plain RNN have the same names: the number of rows tells them apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastlstm._parameters import parameter_shapes
from fastlstm.weights.architectures import PARAMETER, declared, described, inferred, listed
from fastlstm.weights.contents import Arrays, Found, Head, Other, Refused
from fastlstm.weights.parametrizations import OF_CELL, Folded, fold
from fastlstm.weights.stacks import find_stacks, owners_of

_HEAD = ("head.weight", "head.bias")
_STATE = ("state.h_0", "state.c_0")

#: How many are listed before the rest is counted.
MOST_OTHERS = 1000

_BETWEEN = "what may lie between the layers (dropout, normalisation, ...) is not in the file"
_UNTOLD = (
    "the file has no options beside arrays that are of this package alone: assumed are sigmoid and "
    "tanh, no clip, separate gates, and a forward direction or two merged by concat"
)
#: The note of a layer whose layout nobody has recorded.
ORIENTATION = "the file doesn't say whether the batch comes first: batch_first=False is assumed"


@dataclass(frozen=True, eq=False)
class _Group:
    """Arrays under one prefix, by the names of a layer's parameters: a cell's are given _l0."""

    prefix: str
    cell: bool
    arrays: Arrays

    @property
    def name(self) -> str:
        """Of the prefix, or of an array where there is none."""
        return self.prefix or self.local(next(iter(self.arrays)))

    @property
    def kind(self) -> str:
        """What PyTorch calls it."""
        return "PyTorch LSTMCell" if self.cell else "PyTorch LSTM"

    def local(self, name: str) -> str:
        """Return the name in the file, without the prefix."""
        return name.removesuffix("_l0") if self.cell else name


def find_layers(
    arrays: Mapping[str, NDArray[Any]], metadata: dict[str, Any] | None
) -> tuple[tuple[Found, ...], tuple[Refused, ...], tuple[Other, ...]]:
    """Find all LSTMs among arrays.

    Parameters
    ----------
    arrays : mapping of str to ndarray
    metadata : dict or None
        Of this package's own files, ``{"class": "BiLSTM", "options": {...}}``: of the LSTM whose
        names have no prefix. It makes known what shapes don't tell.

    Returns
    -------
    found : tuple of Found
        In the order of the arrays. The name is the prefix without the dot. Single layers that are
        numbered one after the other and fit each other are one stack.
    refused : tuple of Refused
        LSTMs with arrays missing, of wrong shapes or dtypes, or at odds with their metadata.
    others : tuple of Other
        Everything else; GRUs and plain RNNs as one each.
    """
    folded = fold(arrays)
    groups, rest = _grouped(folded.arrays)
    owners = owners_of(rest)
    if metadata is not None and not any(group.prefix == "" for group in groups):
        groups.insert(0, _Group("", False, {}))
    found: list[Found] = []
    refused: list[Refused] = []
    others: list[Other] = []
    taken: set[str] = set()
    prefixes: set[str] = set()
    for group in groups:
        outermost = group.prefix == ""
        extras = {name: rest[name] for name in (*_HEAD, *_STATE) if outermost and name in rest}
        try:
            if group.prefix in prefixes:
                raise ValueError("there is an LSTM of that name, and an LSTMCell")
            prefixes.add(group.prefix)
            stranger = None if outermost and metadata is not None else _stranger(group)
            if stranger is not None:
                others.append(Other(group.name, stranger))
                continue
            if problems := _unfolded(group, folded):
                raise ValueError(problems)
            if beside := _beside(group, rest, owners):
                raise ValueError(f"there is {beside} besides: not a {group.kind} alone")
            each = _with_notes(_judge(group, metadata if outermost else None), group, folded)
            found.append(_with_extras(each, extras))
        except ValueError as error:
            reason = f"{error}{_hint(group, rest)}"
            refused.append(Refused(group.prefix, group.kind, reason))
        taken.update(extras)
    plain = (
        Other(name, f"{array.dtype} {array.shape}")
        for name, array in rest.items()
        if name not in taken
    )
    # Refused LSTMs count as well: lstm.0 and lstm.1 are no stack if there is an lstm.1.rnn.
    unfound = [*(other.name for other in others), *(each.name for each in refused)]
    owners |= owners_of(f"{name}." for name in unfound)
    stacks = find_stacks(found, owners, _BETWEEN)
    return stacks, tuple(refused), summarised(chain(others, plain))


def summarised(others: Iterable[Other]) -> tuple[Other, ...]:
    """Return them all, or where there are thousands the first and how many more."""
    remaining = iter(others)
    first = tuple(islice(remaining, MOST_OTHERS))
    more = sum(1 for _ in remaining)
    return (*first, Other("...", f"{more} more")) if more else first


def _grouped(arrays: Mapping[str, NDArray[Any]]) -> tuple[list[_Group], Arrays]:
    """Part the arrays into those of LSTMs, by prefix, and the rest."""
    groups: dict[tuple[str, bool], _Group] = {}
    rest: Arrays = {}
    for name, array in arrays.items():
        prefix, _, last = name.rpartition(".")
        cell = last in OF_CELL
        if not cell and not PARAMETER.fullmatch(last):
            rest[name] = array
            continue
        group = groups.setdefault((prefix, cell), _Group(prefix, cell, {}))
        group.arrays[f"{last}_l0" if cell else last] = array
    for key, group in list(groups.items()):
        if group.cell and len(group.arrays) == 1:  # any module may have one array of that name
            del groups[key]
            rest.update({_joined(group.prefix, group.local(n)): a for n, a in group.arrays.items()})
    return list(groups.values()), rest


def _joined(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name


def _beside(group: _Group, rest: Arrays, owners: Mapping[str, str]) -> str | None:
    """Return an array under the prefix that is no parameter, or that a weight may be made of.

    A custom cell may have PyTorch's names and normalisation besides.
    """
    if not group.prefix:
        return None
    if group.prefix in owners:
        return owners[group.prefix]
    above = group.prefix.rpartition(".")[0]
    raw = (_joined(above, f"{group.local(name)}_raw") for name in group.arrays)
    return next((name for name in raw if name in rest), None)


def _unfolded(group: _Group, folded: Folded) -> str:
    """Say which of its weights are there in parts, and why they could not be computed."""
    if not folded.problems:
        return ""
    locals_ = [group.local(name) for name in (*group.arrays, "weight_ih_l0", "weight_hh_l0")]
    return listed(
        [
            f"{name}: {folded.problems[full]}"
            for name in dict.fromkeys(locals_)
            if (full := _joined(group.prefix, name)) in folded.problems
        ],
        "; ",
    )


def _with_notes(found: Found, group: _Group, folded: Folded) -> Found:
    """Add notes on weights that were computed."""
    by_kind: dict[str, list[str]] = {}
    for name in group.arrays if folded.notes else ():
        local = group.local(name)
        if kind := folded.notes.get(_joined(group.prefix, local)):
            by_kind.setdefault(kind, []).append(local)
    notes = (f"{kind} in the file: folded into {listed(on)}" for kind, on in by_kind.items())
    return replace(found, notes=(*found.notes, *notes))


def _hint(group: _Group, rest: Arrays) -> str:
    """Say where the weights may be if they are not under their names."""
    for parameter in ("weight_hh_l0", "weight_ih_l0"):
        name = group.local(parameter)
        inner = f"parametrizations.{name}.original"
        for trace in (f"{name}_v", f"{name}_raw", f"{name}_orig", inner, f"{inner}0"):
            full = _joined(group.prefix, trace)
            if parameter not in group.arrays and full in rest:
                return f" (there is {full}: remove weight_norm or the like before saving)"
    return ""


def _stranger(group: _Group) -> str | None:
    """Say what has an LSTM's names and is none, by its rows of weights for each unit; else None."""
    recurrent = group.arrays.get("weight_hh_l0")
    if recurrent is None or recurrent.ndim != 2 or "weight_hr_l0" in group.arrays:
        return None
    rows, units = recurrent.shape
    if units and rows == 3 * units:
        return f"3 gates of {units} units: a GRU, or an LSTM with coupled gates that doesn't say so"
    if units and rows == units:
        return f"{units} units without gates: a plain RNN"
    return None


def _judge(group: _Group, metadata: dict[str, Any] | None) -> Found:
    """Return the LSTM of a group, or raise ValueError that names all that is wrong."""
    if metadata is None:
        sizes = inferred(group.arrays, group.kind, group.local)
    else:
        sizes = declared(metadata)
    shapes = dict(parameter_shapes(sizes.spec))
    problems = []
    if missing := [group.local(name) for name in shapes if name not in group.arrays]:
        problems.append(f"{listed(missing)} missing for {described(sizes.spec)}")
    if unexpected := [group.local(name) for name in group.arrays if name not in shapes]:
        problems.append(f"{listed(unexpected)} not expected of {described(sizes.spec)}")
    wrong = [
        f"{group.local(name)} must have shape {shape}, got {group.arrays[name].shape}"
        for name, shape in shapes.items()
        if name in group.arrays and group.arrays[name].shape != shape
    ]
    if wrong:
        problems.append(listed(wrong, "; "))
    problems += _dtype_problems(group)
    if problems:
        raise ValueError("; ".join(problems))
    assumptions = (_UNTOLD,) if metadata is None and sizes.kind.startswith("fastlstm") else ()
    orientation = () if metadata is not None or group.cell else (ORIENTATION,)
    found = Found(
        group.prefix,
        sizes.kind,
        {name: value for name, value in sizes.options.items() if name != "dtype"},
        sizes.spec.num_directions == 2,
        {name: group.arrays[name] for name in shapes},
        notes=(*orientation, *assumptions),
        assumptions=assumptions,
    )
    dtype = sizes.options.get("dtype")
    if dtype is not None and dtype != found.stored_dtype.name:
        raise ValueError(f"the options say {dtype}, but the arrays are {found.stored_dtype}")
    return found


def _with_extras(found: Found, extras: Arrays) -> Found:
    """Return the LSTM with the head and the initial state beside it, or raise ValueError."""
    for pair in (_HEAD, _STATE):
        there = [name for name in pair if name in extras]
        if len(there) == 1:
            (missing,) = set(pair) - set(there)
            raise ValueError(f"{there[0]} is there but {missing} is missing")
    for name, array in extras.items():
        _check_floating(name, array.dtype)
    dtype = found.stored_dtype
    if _HEAD[0] in extras:
        weight, bias = (extras[name] for name in _HEAD)
        apart = found.option("merge_mode") is None
        if weight.ndim != 2 or weight.shape[1] != found.width or apart:
            raise ValueError(f"head.weight must have shape (N, {found.width}), got {weight.shape}")
        if bias.shape != weight.shape[:1]:
            raise ValueError(f"head.bias must have shape {weight.shape[:1]}, got {bias.shape}")
        found = replace(found, head=Head(weight.astype(dtype), bias.astype(dtype)))
    if _STATE[0] in extras:
        h_0, c_0 = (extras[name] for name in _STATE)
        rows = found.option("num_layers") * found.num_directions
        sizes = found.output_size, found.option("hidden_size")
        for name, size in zip(_STATE, sizes, strict=True):
            if extras[name].shape != (rows, size):
                raise ValueError(f"{name} must have shape {(rows, size)}, got {extras[name].shape}")
        found = replace(found, state=(h_0.astype(dtype), c_0.astype(dtype)))
    return found


def _check_floating(name: str, dtype: np.dtype[Any]) -> None:
    """Refuse what is neither float16, float32 nor float64, in either byte order."""
    if dtype.kind != "f" or dtype.itemsize not in (2, 4, 8):
        raise ValueError(f"{name} must be float16, float32 or float64, got {dtype}")


def _dtype_problems(group: _Group) -> list[str]:
    """Name arrays that are not floating, or that there are several dtypes."""
    problems = []
    first_of: dict[np.dtype[Any], str] = {}
    for name, array in group.arrays.items():
        try:
            _check_floating(group.local(name), array.dtype)
        except ValueError as error:
            problems.append(str(error))
        else:
            first_of.setdefault(array.dtype.newbyteorder("="), group.local(name))
    if len(first_of) > 1:
        mixed = ", ".join(f"{name} is {dtype}" for dtype, name in first_of.items())
        problems.append(f"mixed dtypes: {mixed}")
    return [listed(problems, "; ")] if problems else []
