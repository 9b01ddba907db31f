"""What a head answers: how many numbers, with which loss, and what they are called.

Letters: K numbers of an answer, or classes; Q quantiles; N numbers of z, K, or K*Q of quantiles.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any, Literal, TypeAlias

import numpy as np

from fastlstm._arguments import RealArray, as_finite, as_flag, as_size, shown
from fastlstm._steps import Mask
from fastlstm.training.checks import Array, as_array, check_answers, find
from fastlstm.training.dense import Hidden, as_hidden
from fastlstm.training.losses import (
    LOSS_NAMES,
    LOSSES,
    Loss,
    LossName,
    OwnLoss,
    Score,
    binary_cross_entropy,
    own,
    pinball,
    weighted,
)

ClassName: TypeAlias = str | int | float | bool

#: What an answer is: K real numbers, one of K classes, K labels of which any may apply, or what a
#: loss of the caller's own makes of it.
Kind: TypeAlias = Literal["numbers", "class", "labels", "own"]


#: Of y, by what an answer is: kinds of NumPy's, and what an error says.
_DTYPES = {
    "class": ("iu", "integer classes"),
    "labels": ("biuf", "labels of 0 and 1"),
    "numbers": ("iuf", "real numbers"),
}


@dataclass(frozen=True)
class HeadSpec:
    """One of the heads of a `Network`: what it answers.

    Parameters
    ----------
    outputs : int, optional
        K, numbers in an answer, classes or labels. What `classes` or `targets` count need not be
        said.
    loss : str or callable
        "mse", "mae", "huber" (delta 1) and "pinball" of a regression, y (..., K);
        "cross_entropy" of a softmax over K classes, y (...) of integers; "binary_cross_entropy" of
        K labels of which any may apply, y (..., K) from 0 to 1.
        Or a function ``(z, y) -> (losses, gradient)`` that takes z (M, K) and y (M, ...) of M
        answers, and returns the loss of each (M,) and its gradient by z (M, K).
    quantiles : sequence of float, optional
        With "pinball", and then needed: Q numbers above 0 and below 1, rising. z is (..., K*Q).
    class_weights : sequence of float (K,), or mapping, optional
        Finite, 0 or more; a mapping has them by the names of `classes`. Of "cross_entropy" the
        weight of an answer is multiplied by that of its class, as by PyTorch's ``weight``; the
        loss of an answer stays a mean by weights. Of "binary_cross_entropy" they multiply the
        losses of the labels.
    classes : sequence of str or numbers, optional
        Names of the K classes, or labels, all different.
    targets : sequence of str, optional
        Names of the K numbers of a regression.
    weight : float
        Of this head in the sum of losses, 0 or more.
    check : bool
        Whether each gradient of a function as `loss` is compared with differences of its value,
        which takes long: see `check_loss`.
    hidden : (int, str) or sequence of such pairs, optional
        Size and activation of linear layers between the features and the last one, which gives z:
        ``(64, "relu")``, say. Activations are "relu", "tanh", "sigmoid", "silu" and "identity".

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described, or they do not fit each other.
    """

    outputs: Any = None  # an int in every object
    loss: LossName | OwnLoss = "mse"
    quantiles: tuple[float, ...] | None = None
    class_weights: tuple[float, ...] | None = None
    classes: tuple[ClassName, ...] | None = None
    targets: tuple[str, ...] | None = None
    weight: float = 1.0
    check: bool = False
    hidden: Hidden = ()

    def __post_init__(self) -> None:
        _set(self, "hidden", as_hidden(self.hidden))
        _set(self, "check", as_flag("check", self.check))
        if not callable(self.loss) and self.loss not in LOSS_NAMES:
            raise ValueError(
                f"loss: got {shown(self.loss)}, expected one of {', '.join(LOSS_NAMES)}, "
                "or a function"
            )
        if self.check and not callable(self.loss):
            raise ValueError(f"check: got True with loss={self.loss!r}, expected a function's")
        _set(self, "weight", _as_positive("weight", self.weight))
        named = self.is_decision
        if self.classes is not None:
            _expect("classes", named, "cross_entropy or binary_cross_entropy", self.loss)
            _set(self, "classes", as_classes(self.classes))
        if self.targets is not None:
            _expect("targets", self.kind == "numbers", "a regression", self.loss)
            _set(self, "targets", as_names("targets", self.targets))
        names = self.targets if self.classes is None else self.classes
        if self.outputs is None:
            if names is None:
                raise ValueError("outputs: got None, expected how many numbers an answer has")
            _set(self, "outputs", len(names))
        _set(self, "outputs", as_size("outputs", self.outputs))
        if names is not None and len(names) != self.outputs:
            name = "targets" if self.classes is None else "classes"
            raise ValueError(f"{name}: got {len(names)} names, expected {self.outputs}")
        if (self.quantiles is None) == (self.loss == "pinball"):
            what = "None" if self.quantiles is None else "numbers"
            raise ValueError(f"quantiles: got {what} with loss={self.loss!r}, which goes with "
                             f"{'numbers' if self.quantiles is None else 'None'}")  # fmt: skip
        if self.quantiles is not None:
            _set(self, "quantiles", _as_quantiles(self.quantiles))
        if self.class_weights is not None:
            _expect("class_weights", named, "cross_entropy or binary_cross_entropy", self.loss)
            _set(self, "class_weights", self._as_class_weights(self.class_weights))

    def __repr__(self) -> str:
        return f"HeadSpec({', '.join(f'{k}={v!r}' for k, v in self.options.items())})"

    @property
    def kind(self) -> Kind:
        """What an answer is."""
        if callable(self.loss):
            return "own"
        kinds: dict[str, Kind] = {"cross_entropy": "class", "binary_cross_entropy": "labels"}
        return kinds.get(self.loss, "numbers")

    @property
    def is_decision(self) -> bool:
        """Whether it answers classes or labels, which have probabilities."""
        return self.kind in ("class", "labels")

    @property
    def width(self) -> int:
        """N: numbers of z for an answer."""
        return int(self.outputs) * (1 if self.quantiles is None else len(self.quantiles))

    def shapes(self, features: int) -> list[tuple[int, int]]:
        """Return the shapes (N, F) of the weights of its layers; the last one gives z."""
        sizes = [features, *(size for size, _ in self.hidden), self.width]
        return [(N, F) for F, N in pairwise(sizes)]

    @property
    def options(self) -> dict[str, Any]:
        """The arguments that are not at their defaults; a function as `loss` by its name."""
        options = {
            field.name: value
            for field in fields(self)
            if (value := getattr(self, field.name)) != field.default
        }
        if callable(self.loss):
            options["loss"] = getattr(self.loss, "__name__", type(self.loss).__name__)
        return options

    def score(
        self,
        z: RealArray,
        y: Array,
        weights: Array | None,
        total: float | None = None,
    ) -> tuple[Score, RealArray]:
        """Return the score of answers z (..., N) with the gradient of the mean loss by z.

        ``y`` is of `checked`, in the order of z; ``weights`` (...) or None; ``total`` is what the
        sum is divided by, if not the answers' weight.
        """
        return weighted(self._function, z, y, self._with_class_weights(y, weights), total)

    def weight_of(self, y: Array, weights: Array | None, answers: int) -> float:
        """Return the weight of so many answers, as `score` gets them."""
        weights = self._with_class_weights(y, weights)
        return float(answers if weights is None else weights.astype(np.float64).sum())

    def arranged(self, y: Any, answers: tuple[int, ...], name: str) -> Array:
        """Return y as an array of what this head answers.

        Parameters
        ----------
        answers : tuple of int
            Shape of the answers: that of y without K.
        name : str
            What y is called, for the error.

        Raises
        ------
        TypeError, ValueError
            If y is of another dtype or shape.
        """
        if self.kind == "own":
            free = as_array(name, y, "biuf", "real numbers")
            if free.shape[: len(answers)] != answers:
                raise ValueError(f"{name}: got shape {free.shape}, expected {answers} and any more")
            return free
        array = as_array(name, y, *_DTYPES[self.kind])
        shape = answers if self.kind == "class" else (*answers, self.outputs)
        if array.shape != shape:
            raise ValueError(f"{name}: got shape {array.shape}, expected {shape}")
        return array

    def checked(self, y: Array, counted: Mask | None, name: str) -> Array:
        """Return y of `arranged`, where nothing counts changed to what an answer may be.

        Parameters
        ----------
        counted : array of bool, or None
            Which answers count; None if all do.

        Raises
        ------
        ValueError
            If an answer that counts is none.
        """
        if self.kind == "own":
            return y
        classes = self.kind == "class"
        below = self.outputs if classes else None
        check_answers(y, counted, classes=classes, below=below, name=name)
        if self.kind == "labels" and y.dtype.kind != "b":
            wrong = find(y, lambda part: ((part < 0) | (part > 1)).any(axis=-1), counted)
            if wrong:
                raise ValueError(
                    f"{name}: got labels {wrong.lowest} to {wrong.highest}, expected 0 and 1 or a "
                    f"weight of 0; the like in {wrong}"
                )
        if classes and counted is not None:
            y = np.where(counted, y, 0)  # so that every answer has a class
        return y

    def _with_class_weights(self, y: Array, weights: Array | None) -> Array | None:
        """Return the weights of answers times those of their classes."""
        if self.kind != "class" or self.class_weights is None:
            return weights
        of_class = np.array(self.class_weights)[y]
        return of_class if weights is None else weights * of_class

    @property
    def _function(self) -> Loss:
        if callable(self.loss):
            return own(self.loss, check=self.check)
        if self.quantiles is not None:
            return pinball(self.quantiles)
        if self.loss == "binary_cross_entropy":
            return binary_cross_entropy(self.class_weights)
        return LOSSES[self.loss]

    def _as_class_weights(self, value: Any) -> tuple[float, ...]:
        """Return weights of the K classes, in their order."""
        if isinstance(value, Mapping):
            classes = range(self.outputs) if self.classes is None else self.classes
            if wrong := [name for name in value if name not in classes]:
                raise ValueError(f"class_weights: got class {shown(wrong[0])}, expected one of "
                                 f"{shown(list(classes))}")  # fmt: skip
            value = [value.get(name, 1.0) for name in classes]
        weights = [
            _as_positive("class_weights", each) for each in _as_items("class_weights", value)
        ]
        if len(weights) != self.outputs:
            raise ValueError(
                f"class_weights: got {len(weights)} of them, expected {self.outputs}, one of each"
            )
        if not any(weights):
            raise ValueError("class_weights: all are 0, expected some above")
        return tuple(weights)


def as_names(name: str, value: Any) -> tuple[str, ...]:
    """Return a sequence of strings, all different; else TypeError or ValueError."""
    names = _as_items(name, value)
    if wrong := [each for each in names if not isinstance(each, str)]:
        raise TypeError(f"{name}: got {shown(wrong[0])} in it, expected strings")
    _check_different(name, names)
    return tuple(map(str, names))


def as_classes(value: Any) -> tuple[ClassName, ...]:
    """Return names of classes, all strings or all numbers, as Python has them."""
    names = [each.item() if isinstance(each, np.generic) else each for each in
             _as_items("classes", value)]  # fmt: skip
    numeric = [isinstance(each, bool | int | float) and math.isfinite(each) for each in names]
    if not (all(numeric) or all(isinstance(each, str) for each in names)):
        raise TypeError(f"classes: got {shown(names)}, expected all strings or all numbers")
    _check_different("classes", names)
    return tuple(str(each) if isinstance(each, str) else each for each in names)


def _as_items(name: str, value: Any) -> list[Any]:
    is_sequence = isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping)
    if not is_sequence or getattr(value, "ndim", 1) != 1:
        raise TypeError(f"{name}: got {shown(value)}, expected a sequence")
    items = list(value)
    if not items:
        raise ValueError(f"{name}: got none, expected one at least")
    return items


def _check_different(name: str, values: list[Any]) -> None:
    seen = set()
    for value in values:
        if value in seen:
            raise ValueError(f"{name}: got {shown(value)} twice, expected different ones")
        seen.add(value)


def _as_quantiles(value: Any) -> tuple[float, ...]:
    float64 = np.dtype(np.float64)
    quantiles = [as_finite("quantiles", q, float64) for q in _as_items("quantiles", value)]
    rising = all(a < b for a, b in pairwise(quantiles))
    if not rising or quantiles[0] <= 0 or quantiles[-1] >= 1:
        raise ValueError(
            f"quantiles: got {shown(quantiles)}, expected rising numbers above 0 and below 1"
        )
    return tuple(quantiles)


def _as_positive(name: str, value: Any) -> float:
    if not isinstance(value, numbers.Real | np.number):
        raise TypeError(f"{name}: got {shown(value)}, expected a number")
    number = as_finite(name, value, np.dtype(np.float64))
    if number < 0:
        raise ValueError(f"{name}: got {shown(value)}, expected 0 or more")
    return number


def _expect(name: str, fits: bool, expected: str, loss: Any) -> None:
    if not fits:
        raise ValueError(f"{name}: got some with loss={shown(loss)}, which go with {expected}")


def _set(spec: HeadSpec, name: str, value: Any) -> None:
    object.__setattr__(spec, name, value)  # of a frozen object, while it is made
