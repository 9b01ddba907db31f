"""What is checked of the arrays of training, and how a message says where something is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastlstm import _arguments
from fastlstm._steps import Mask

Array: TypeAlias = NDArray[Any]

#: Which entries count: all, those of a mask, or what a function says of a part of the first axis.
Counted: TypeAlias = Mask | Callable[[slice], Mask | None] | None

#: Bytes that are read at a time of arrays that may be on disk.
PIECE = 2**24


def pieces_of(array: Array) -> Iterator[slice]:
    """Yield parts of the first axis that are read at a time of an array that may be on disk."""
    step = max(1, PIECE // max(1, array[:1].nbytes))
    for start in range(0, len(array), step):
        yield slice(start, start + step)


def check_answers(
    y: Array,
    counted: Counted,
    *,
    classes: bool,
    below: int | None = None,
    name: str = "y",
) -> None:
    """Raise a ValueError where an answer that counts is NaN, infinite, or no class.

    Parameters
    ----------
    y : array (..., K), of classes (...)
    counted : array (...), or None, or function
        Which count, None if all do; or a function that tells it of a part of the first axis.
    classes : bool
    below : int, optional
        The number of classes.
    name : str
        What y is called, for the error.
    """
    # The usual case, at each step of a training: without the arrays that tell where.
    plain = classes and counted is None and below is not None and y.size
    if plain and y.min() >= 0 and y.max() < below:
        return
    if not classes:
        if found := find(y, lambda part: ~np.isfinite(part).all(axis=-1), counted):
            raise ValueError(
                f"{name}: holds NaN or infinity in {found}, expected finite numbers or a weight of "
                "0; weights=np.isfinite(y).all(axis=-1) leaves such answers out"
            )
        return
    if found := find(y, lambda part: (part < 0) | (below is not None and part >= below), counted):
        if below is None:
            raise ValueError(
                f"{name}: got class {found.lowest}, expected classes from 0 up or a weight of 0; "
                f"the like in {found}"
            )
        raise ValueError(
            f"{name}: got classes {found.lowest} to {found.highest}, expected 0 to {below - 1} or "
            f"a weight of 0; the like in {found}"
        )


@dataclass(frozen=True)
class Findings:
    """Where something was found, as in "2 places, the first at (3, 1)"."""

    count: int
    first: tuple[int, ...]
    lowest: int | float
    highest: int | float

    def __str__(self) -> str:
        return f"{counting(self.count, 'place')}, the first at {self.first}"


def find(array: Array, wrong: Callable[[Array], Any], counted: Counted = None) -> Findings | None:
    """Look for something in an array, of what counts, in parts: it may be on disk."""
    count, first = 0, None
    values: list[Array] = []
    for piece in pieces_of(array):
        part, start = array[piece], piece.start
        found = wrong(part)
        count_here = counted(piece) if callable(counted) else counted
        if count_here is not None:
            found = found & (count_here if callable(counted) else count_here[piece])
        if found.any():
            count += int(found.sum())
            if first is None:
                index = np.argwhere(found)[0].tolist()
                first = (index[0] + start, *index[1:])
            values.append(part[found])
    if first is None:
        return None
    lowest, highest = min(v.min() for v in values), max(v.max() for v in values)
    return Findings(count, first, lowest.item(), highest.item())


def counting(number: int, noun: str) -> str:
    """Return "1 step" or "2 steps"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def as_array(name: str, value: Any, kinds: str, expected: str) -> Array:
    """Return value as an array whose dtype is of one of the kinds; TypeError if it is not."""
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name}: got a masked array, expected one without a mask (see weights)")
    array: Array = _arguments.as_array(name, value)
    if array.dtype.kind not in kinds:
        raise TypeError(f"{name}: got values of dtype {array.dtype}, expected {expected}")
    return array


def as_weights(
    value: Any, shape: tuple[int, ...], steps: tuple[int, ...] | None = None, name: str = "weights"
) -> Array:
    """Return value as an array of weights, finite and 0 or more; else TypeError or ValueError.

    ``steps`` is the shape of one for each step, for what a message says of it.
    """
    weights = as_array(name, value, "biuf", "real numbers")
    if weights.shape != shape:
        hint = ""
        if weights.shape == steps:
            hint = ", one of each answer; lengths= or mask= say which steps are padding"
        raise ValueError(f"{name}: got shape {weights.shape}, expected {shape}{hint}")
    if find(weights, lambda part: ~(np.isfinite(part) & (part >= 0))):
        raise ValueError(f"{name}: some are negative or not finite, expected 0 or more")
    return weights
