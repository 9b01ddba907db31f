"""What a model answers: how many numbers, of which dtype, and what they are called."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastlstm.distributed._models import Model
from fastlstm.training import HeadSpec, Network

#: Of a network: methods by the names that `Predictor` knows.
METHODS = {"predict": "predict", "predict_proba": "predict_proba", "call": "__call__"}


class Answer(NamedTuple):
    """One answer of a model: of a step, or of a sequence.

    Attributes
    ----------
    head : str
        Name of the head of a network that has several, else "".
    axes : tuple of (str, tuple of labels)
        The axes of an answer: what each is of, and what is along it.
    dtype : dtype
    """

    head: str
    axes: tuple[tuple[str, tuple[Any, ...]], ...]
    dtype: np.dtype[Any]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of an answer."""
        return tuple(len(labels) for _, labels in self.axes)

    def column(self, name: str) -> str:
        """Return the name of a column that holds whole answers."""
        return f"{name}_{self.head}" if self.head else name

    def columns(self, name: str) -> list[str]:
        """Return a name for each number of an answer, which is `name` where there is one."""
        names = [self.column(name)]
        for _, labels in self.axes:
            if len(labels) > 1:
                names = [f"{each}_{label}" for each in names for label in labels]
        return names

    def blank(self) -> Any:
        """What stands where there is no answer, as `Network.predict` has it."""
        if self.dtype.kind == "f":
            return np.nan
        return -1 if self.dtype.kind == "i" and not self.axes else self.dtype.type()


def answers_of(model: Model, method: str) -> tuple[Answer, ...]:
    """Return what a method of a model answers.

    Raises
    ------
    ValueError
        If it has no such answers.
    """
    if not isinstance(model, Network):
        if method != "predict":
            raise ValueError(f"method: got {method!r}, expected 'predict' of a layer")
        sides = 2 if model.num_directions == 2 and model.merge_mode == "concat" else 1
        units = tuple(range(sides * model.output_size))
        return (Answer("", (("unit", units),), model.dtype),)
    heads = model.heads
    if method == "predict_proba":
        heads = {name: spec for name, spec in heads.items() if spec.is_decision}
        if not heads:
            raise ValueError("method: got 'predict_proba' of a network without classes or labels")
    return tuple(_answer_of(n, spec, method, model.lstm.dtype) for n, spec in heads.items())


def _answer_of(head: str, spec: HeadSpec, method: str, dtype: np.dtype[Any]) -> Answer:
    names = spec.targets if spec.classes is None else spec.classes
    labels: tuple[Any, ...] = tuple(range(spec.outputs)) if names is None else names
    axis = "class" if spec.is_decision else "target"
    if method == "call":
        N = spec.width
        return Answer(head, ((axis, labels if len(labels) == N else tuple(range(N))),), dtype)
    if method == "predict_proba":
        return Answer(head, ((axis, labels),), dtype)
    if spec.kind == "class":
        kind = np.dtype(np.int64) if spec.classes is None else np.array(spec.classes).dtype
        return Answer(head, (), kind)
    if spec.kind == "labels":
        return Answer(head, ((axis, labels),), np.dtype(np.bool_))
    axes: tuple[tuple[str, tuple[Any, ...]], ...] = ((axis, labels),)
    if spec.quantiles is not None:
        axes += (("quantile", spec.quantiles),)
    return Answer(head, axes, dtype)


def blanked(array: NDArray[Any], where: NDArray[np.bool_], answer: Answer) -> NDArray[Any]:
    """Return an array (..., and the axes of an answer), blank at some places (...)."""
    if where.any():
        array = array.copy()
        array[where] = answer.blank()
    return array


def listed(names: Iterable[Any], most: int = 10) -> str:
    """Return names for an error, the first of many."""
    every = [repr(str(name)) for name in names]
    return ", ".join(every[:most]) + (", ..." if len(every) > most else "")
