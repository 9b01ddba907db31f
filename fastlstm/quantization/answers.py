"""What a head makes of two layers' outputs: answers and decisions.

Letters: T time steps, B batch, M answers, K numbers of an answer, N numbers that the head reads.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastlstm._arguments import RealArray, as_finite, as_real_array
from fastlstm._layer import LSTMBase
from fastlstm._linear import linear
from fastlstm._merge import merge
from fastlstm.quantization.layerwise import Block, Item
from fastlstm.quantization.measures import Errors, ErrorSums


class Decisions(NamedTuple):
    """How many decisions change.

    Attributes
    ----------
    rule : str
        "largest of K", which of the K numbers of an answer is the largest; or "above X", whether a
        number is above the threshold.
    changed, total : int
    """

    rule: str
    changed: int
    total: int


class Rule(NamedTuple):
    """How an answer decides: the largest of its numbers, or each that is above a threshold."""

    outputs: int
    threshold: float | None

    def __str__(self) -> str:
        if self.threshold is None:
            return f"largest of {self.outputs}"
        return f"above {self.threshold:g}"

    def decide(self, z: RealArray) -> NDArray[Any]:
        """Return the decisions (M,) or (M, K) of answers (M, K)."""
        return z.argmax(axis=-1) if self.threshold is None else z > self.threshold


_Head: TypeAlias = Callable[[RealArray], RealArray]


class Reader(NamedTuple):
    """What reads the outputs of a layer, and how its answers decide."""

    layer: LSTMBase
    head: _Head | None  # of y (..., N); without it y is the answer
    width: int  # K
    each_step: bool  # or once for a sequence, from the last states
    rule: Rule | None

    def merge(self, both: RealArray) -> RealArray:
        """Return y of outputs (..., D*P): merged as the layer does; two results side by side."""
        merged = merge(both, self.layer.merge_mode or "concat")
        assert isinstance(merged, np.ndarray)
        return merged

    def answer(self, y: RealArray) -> RealArray:
        """Return the answers (..., K) to y."""
        return y if self.head is None else self.head(y)


def as_reader(head: Any, threshold: Any, layer: LSTMBase) -> Reader:
    """Return what reads the outputs of `layer`, checked.

    Raises
    ------
    TypeError, ValueError
        If `head` is no head that fits the layer, or `threshold` no number.
    """
    both = layer.merge_mode in ("concat", None)
    width = layer.output_size * (layer.num_directions if both else 1)
    each_step, decides = layer.return_sequences, True
    if threshold is not None:
        threshold = as_finite("threshold", threshold, np.dtype(np.float64))
    if head is None:
        rule = None if threshold is None else Rule(width, threshold)
        return Reader(layer, None, width, each_step, rule)
    if layer.merge_mode is None:
        raise ValueError("head: the layer has merge_mode=None, and gives two results")
    if hasattr(head, "lstm"):  # a Network: of answers to squared errors none is a decision
        if not head.is_linear:
            raise ValueError(
                "head: got a Network with an embedding, pooling or several heads, expected one of "
                "a linear layer"
            )
        arrays = head.state_dict()
        read, outputs = _as_linear(arrays["head.weight"], arrays["head.bias"], width, layer)
        each_step, decides = head.each_step, head.loss == "cross_entropy"
    elif hasattr(head, "weight") and hasattr(head, "bias"):
        read, outputs = _as_linear(head.weight, head.bias, width, layer)
    elif callable(head):
        read, outputs = _as_function(head, width, layer)
    elif isinstance(head, tuple | list) and len(head) == 2:
        weight, bias = head
        read, outputs = _as_linear(weight, bias, width, layer)
    else:
        raise TypeError(
            f"head: got {type(head).__name__}, expected a Head, a Network, a pair (weight, bias) "
            "or a function"
        )
    if threshold is None and outputs == 1 and decides:
        threshold = 0.0
    rule = Rule(outputs, threshold) if decides or threshold is not None else None
    return Reader(layer, read, outputs, each_step, rule)


def _as_linear(weight: Any, bias: Any, width: int, layer: LSTMBase) -> tuple[_Head, int]:
    """Return a linear layer as a function, and K."""
    weight = as_real_array("head.weight", weight, layer.dtype)
    bias = as_real_array("head.bias", bias, layer.dtype)
    if weight.ndim != 2 or weight.shape[1] != width:
        raise ValueError(f"head.weight: got shape {weight.shape}, expected (K, {width})")
    if bias.shape != weight.shape[:1]:
        raise ValueError(f"head.bias: got shape {bias.shape}, expected {weight.shape[:1]}")
    return lambda y: linear(y, weight, bias, layer.isa), len(bias)


def _as_function(function: Callable[[Any], Any], width: int, layer: LSTMBase) -> tuple[_Head, int]:
    """Return a function of the user's, whose answers are checked, and K."""

    def read(y: RealArray) -> RealArray:
        z = as_real_array("head", function(y), layer.dtype)
        if z.ndim != y.ndim or z.shape[:-1] != y.shape[:-1]:
            expected = ", ".join([*map(str, y.shape[:-1]), "K"])
            raise ValueError(
                f"head: returned shape {z.shape} for y {y.shape}, expected ({expected})"
            )
        return z

    return read, read(np.zeros((1, 1, width), layer.dtype)).shape[-1]


class Answers:
    """The answers of both layers, to one array after the other.

    Parameters
    ----------
    reader : Reader
    keep : bool
        Whether all answers are kept, for a metric.
    """

    def __init__(self, reader: Reader, *, keep: bool) -> None:
        self._reader, self._keep = reader, keep
        self._errors = ErrorSums(np.array([0, sys.maxsize], np.intp))
        self._changed = self._decided = 0
        #: To each array those of float32 and those quantised, (T, B, K) or (B, K); 0 at padding.
        self.kept: list[tuple[RealArray, RealArray]] = []

    def begin(self, item: Item) -> None:
        """Make room for the answers to an array."""
        if self._keep:
            outer = item.x.shape[:2] if self._reader.each_step else item.x.shape[1:2]
            shape = (*outer, self._reader.width)
            self.kept.append((np.zeros(shape, np.float32), np.zeros(shape, np.float32)))

    def add(self, item: Item, block: Block, y: tuple[RealArray, RealArray]) -> None:
        """Read a block, whose outputs, merged, are y (t, b, N) in float32 and quantised."""
        reader, present = self._reader, block.present
        if reader.each_step:
            exact, other = map(reader.answer, y)
        elif block.ends:  # a step of one answer for each sequence
            finals = (reader.merge(final)[np.newaxis] for final in block.finals)
            (exact, other), present = map(reader.answer, finals), None
        else:
            return
        self._errors.add(exact, other, 0, present)
        if (rule := reader.rule) is not None:
            counted = np.isfinite(exact).all(axis=-1) & np.isfinite(other).all(axis=-1)
            if present is not None:
                counted &= present
            changed = rule.decide(exact[counted]) != rule.decide(other[counted])
            self._changed += int(np.count_nonzero(changed))
            self._decided += changed.size
        if self._keep:
            for answers, z in zip(self.kept[-1], (exact, other), strict=True):
                self._put(item, block, z, answers)

    def _put(self, item: Item, block: Block, z: RealArray, answers: RealArray) -> None:
        """Write answers (t, b, K) to their place among all of an array."""
        batch, start = block.sequences, block.start
        if not self._reader.each_step:
            answers[batch] = z[0]
        elif block.present is None or item.steps is None:
            answers[start : start + len(z), batch] = z
        else:
            times, sequences = np.nonzero(block.present)
            rows = z[times, sequences]
            times, sequences = times + start, sequences + batch.start
            if item.steps.order is not None:
                times = item.steps.order[times, sequences]
            answers[times, sequences] = rows

    @property
    def errors(self) -> Errors:
        """Of the answers."""
        return self._errors.total

    @property
    def decisions(self) -> Decisions | None:
        """How many change; None where answers decide nothing."""
        if self._reader.rule is None:
            return None
        return Decisions(str(self._reader.rule), self._changed, self._decided)
