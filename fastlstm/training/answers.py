"""The answers that sequences come with, of one head or of several, and their weights.

Letters: T time steps, B batch, K numbers of an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from fastlstm._arguments import shown
from fastlstm._steps import Mask, other_layout
from fastlstm.training.checks import Array, as_array, as_weights, check_answers, pieces_of

#: Which answers count among those of a part of the first axis; None if all do.
CountedIn: TypeAlias = Callable[[slice], Mask | None]


class Answers(NamedTuple):
    """What one head is to answer.

    Attributes
    ----------
    y : array
    weights : array or None
    classes : bool
        Whether y holds classes.
    each_step : bool
        Whether there is an answer at each step.
    """

    y: Array
    weights: Array | None
    classes: bool
    each_step: bool

    def check(self, head: str | None, counted_in: CountedIn) -> None:
        """Raise a ValueError where an answer that counts is none, or none counts."""
        parts = pieces_of(self.y if self.weights is None else self.weights)
        if not any((part := counted_in(each)) is None or part.any() for each in parts):
            raise ValueError(f"{labelled('weights', head)}: all are 0, expected some above")
        check_answers(self.y, counted_in, classes=self.classes, name=labelled("y", head))

    def outputs(self, counted_in: CountedIn) -> int:
        """K: numbers in an answer, or classes as far as the largest that counts tells."""
        if not self.classes:
            return int(self.y.shape[-1])
        largest = 0
        for piece in pieces_of(self.y):
            counted = counted_in(piece)
            part = self.y[piece] if counted is None else self.y[piece][counted]
            largest = max(largest, int(part.max(initial=0)))
        return largest + 1


def as_answers(
    head: str | None, y: Any, weights: Any, outer: tuple[int, ...], batch_first: bool
) -> Answers:
    """Return the answers of a head; TypeError or ValueError if they are none to x.

    Parameters
    ----------
    head : str or None
        None where there is one.
    outer : tuple of int
        (T, B), or (B, T) with ``batch_first``.
    """
    name = labelled("y", head)
    y = as_array(name, y, "biuf", "real numbers, labels or integer classes")
    T, B = outer[::-1] if batch_first else outer
    classes = y.dtype.kind not in "bf"
    answers = y.shape if classes else y.shape[:-1]  # (T, B) or (B,)
    if answers not in (outer, (B,)) or 0 in y.shape:
        axes = "B, T" if batch_first else "T, B"
        expected = f"({axes}) or (B,)" if classes else f"({axes}, K) or (B, K)"
        hint = ""
        if y.shape == outer:
            hint = "; one number at each step is y[..., np.newaxis]"
        elif answers == (T,):
            hint = f"; {other_layout(batch_first)}"
        elif answers == outer[::-1]:
            hint = "; x and y lie in different layouts, swapaxes(0, 1) of one may help"
        raise ValueError(
            f"{name}: got shape {y.shape} of {y.dtype}, expected {expected} "
            f"with T = {T} and B = {B}{hint}"
        )
    if weights is not None:
        weights = as_weights(weights, answers, outer, labelled("weights", head))
    return Answers(y, weights, classes, len(answers) == 2)


def by_head(y: Any, weights: Any) -> Iterator[tuple[str | None, Any, Any]]:
    """Yield the name, y and weights of each head; None and what was given where there is one.

    Raises
    ------
    TypeError, ValueError
        If y is a mapping without a head, or weights are of heads that y has not.
    """
    if not isinstance(y, Mapping):
        yield None, y, weights
        return
    heads = list(y)
    if not heads or not all(isinstance(head, str) for head in heads):
        raise TypeError(f"y: got heads {shown(heads)}, expected names")
    if isinstance(weights, Mapping) and (wrong := [head for head in weights if head not in y]):
        expected = f"heads {', '.join(heads)}"
        raise ValueError(f"weights: got some for {wrong[0]}, expected {expected}")
    for head in heads:
        yield head, y[head], weights.get(head) if isinstance(weights, Mapping) else weights


def together(y: Any, weights: Any) -> tuple[Array, Array | None]:
    """Return y and weights as of one head, of several what tells where any of them counts.

    Of several, y is (..., 1), 0 where the answers of all are 0 or NaN (classes: 0 or below).
    """
    if not isinstance(y, Mapping):
        return y, weights
    said = [
        each > 0 if each.dtype.kind in "iu" else np.nan_to_num(each).any(axis=-1)
        for each in y.values()
    ]
    given: list[Any] = [None] if weights is None else list(weights.values())
    counted = None if any(each is None for each in given) else np.max(given, axis=0)
    return np.any(said, axis=0)[..., np.newaxis].astype(np.float64), counted


def labelled(what: str, head: str | None) -> str:
    """Return what y or weights of a head are called in errors."""
    return what if head is None else f"{what}[{head!r}]"


def plain(values: Mapping[str | None, Any]) -> Any:
    """Return the values of heads by their names; of one head the value itself."""
    return values[None] if None in values else dict(values)
