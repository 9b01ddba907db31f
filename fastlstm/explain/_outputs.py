"""The number of an answer that is explained."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from fastlstm._arguments import RealArray, as_real_array, shown
from fastlstm._ragged import Rows


class Pick(NamedTuple):
    """What picks the number that is explained.

    Attributes
    ----------
    of : callable
        Of answers (T, N, K), (N, K), or a pair, and the lengths (N,) of sequences, the values (N,)
        and their gradient by the answers; None where it is not needed and not given.
    last : bool
        Whether it takes the answers to the last step, (N, K) and 0 where there is no step, as well.
    """

    of: Callable[[Any, Rows], tuple[RealArray, Any]]
    last: bool = False


class Answers(NamedTuple):
    """What a model answers."""

    width: int  # K
    each_step: bool  # whether at each step, (T, N, K), or once, (N, K)
    batch_first: bool  # whether the caller has (N, T, K)
    names: Mapping[Any, int]  # of some of the K
    is_pair: bool = False  # of directions that are not merged


def as_output(output: Any, answers: Answers, *, needs_gradient: bool) -> Pick:
    """Return what picks the number that is explained; TypeError or ValueError if it is none."""
    if callable(output):
        return Pick(_of_function(output, answers, needs_gradient))
    if answers.is_pair:
        raise TypeError(
            f"output: got {shown(output)}, expected a function: with merge_mode=None y is a pair"
        )
    step, number = (-1, output)
    if isinstance(output, tuple) and len(output) == 2:
        if not answers.each_step:
            raise ValueError(f"output: got a step in {shown(output)}, but there is one answer")
        step, number = _as_step(output), output[1]
    column = _as_column(number, answers)

    def pick(given: Any, lengths: Rows) -> tuple[RealArray, Any]:
        gradient = np.zeros_like(given)
        each = np.arange(lengths.size)
        if given.ndim == 2:
            gradient[:, column] = 1
            return given[:, column], gradient
        at = lengths + step if step < 0 else np.full(lengths.size, step)
        there = (at >= 0) & (at < lengths)
        if step not in (-1, 0) and not there.all():
            raise ValueError(
                f"output: got step {step}, but sequence {int(there.argmin())} has "
                f"{lengths[there.argmin()]} steps"
            )
        # A sequence without any step has the answer 0.
        gradient[at[there], each[there], column] = 1
        return np.where(there, given[np.where(there, at, 0), each, column], 0), gradient

    return Pick(pick, last=answers.each_step and step == -1)


def _as_step(output: tuple[Any, Any]) -> int:
    try:
        return operator.index(output[0])
    except TypeError:
        raise TypeError(
            f"output: got step {shown(output[0])}, expected an integer and a number of the answer"
        ) from None


def _as_column(number: Any, answers: Answers) -> int:
    """Return which of the K numbers is meant."""
    K, names = answers.width, list(answers.names)
    expected = f"expected a number from {-K} to {K - 1}"
    expected += f", one of {shown(names)}" if names else ""
    expected += ", (step, number) or a function" if answers.each_step else " or a function"
    if isinstance(number, str):
        if number not in answers.names:
            raise ValueError(f"output: got {shown(number)}, {expected}")
        return answers.names[number]
    try:
        if isinstance(number, bool | np.bool_):
            raise TypeError
        column = operator.index(number)
    except TypeError:
        raise TypeError(f"output: got {shown(number)}, {expected}") from None
    if not -K <= column < K:
        raise ValueError(f"output: got {column}, {expected}")
    return column % K


def _of_function(
    function: Callable[[Any], Any], answers: Answers, needs_gradient: bool
) -> Callable[[Any, Rows], tuple[RealArray, Any]]:
    """Return what calls a function with answers as the caller knows them."""

    def turned(array: RealArray) -> RealArray:
        return array.swapaxes(0, 1) if answers.batch_first and array.ndim == 3 else array

    def pick(given: Any, lengths: Rows) -> tuple[RealArray, Any]:
        parts = given if isinstance(given, tuple) else (given,)
        turned_parts = tuple(map(turned, parts))
        returned = function(turned_parts if isinstance(given, tuple) else turned_parts[0])
        gradient = None
        if isinstance(returned, tuple) and len(returned) == 2:
            returned, gradient = returned
        elif needs_gradient:
            raise TypeError(
                f"output: the function returned {type(returned).__name__}, expected the values "
                "(N,) and their gradient by y"
            )
        values = as_real_array("output", returned, np.dtype(np.float64))
        if values.shape != lengths.shape:
            raise ValueError(
                f"output: the function returned values {values.shape}, expected {lengths.shape}, "
                "one of each sequence"
            )
        if not needs_gradient:
            return values, None
        gradients = gradient if isinstance(gradient, tuple) else (gradient,)
        if len(gradients) != len(parts):
            raise ValueError(
                f"output: the function returned {len(gradients)} gradients, expected {len(parts)}, "
                "as y has arrays"
            )
        arrays = tuple(
            as_real_array("output", one, part.dtype)
            for one, part in zip(gradients, parts, strict=True)
        )
        for one, part in zip(arrays, turned_parts, strict=True):
            if one.shape != part.shape:
                raise ValueError(
                    f"output: the function returned a gradient {one.shape}, expected {part.shape}"
                )
        back = tuple(map(turned, arrays))
        return values, back if isinstance(given, tuple) else back[0]

    return pick
