"""What quantising a layer costs and gains on data: size, speed, errors, decisions, a metric.

Letters: T time steps, B batch, I input size, H hidden size, P output size, L layers, D directions,
K numbers of an answer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fastlstm._arguments import RealArray, as_array, as_flag, as_real_array, as_state, shown
from fastlstm._layer import LSTMBase
from fastlstm._steps import as_steps
from fastlstm.quantization.answers import Answers, Decisions, Reader, as_reader
from fastlstm.quantization.calls import as_calls, is_one_array
from fastlstm.quantization.layerwise import Item, Pair, part_edges
from fastlstm.quantization.measures import Errors, ErrorSums, Range
from fastlstm.quantization.metrics import Change, Given, Metric, change_of, check_metric
from fastlstm.quantization.text import text_of
from fastlstm.quantization.timing import Speed, Turns, measure

#: Parts of the steps that errors over time are told of.
_PARTS = 10


@dataclass(frozen=True)
class LayerCost:
    """What quantising costs in one layer of the stack.

    Attributes
    ----------
    own : Errors
        Of its outputs, both directions', if it reads what the layers below give in float32.
    accumulated : Errors
        Of its outputs in the quantised stack, where those below are quantised, too.
    x : Range or None
        What its inputs use of the integers; None where W @ x_t stays in float32.
    h : Range
        The same of its hidden states.
    bytes_before, bytes_after : int
        Of its parameters.
    turns : Turns or None
        Times of this layer alone; None where nothing was timed.
    """

    own: Errors
    accumulated: Errors
    x: Range | None
    h: Range
    bytes_before: int
    bytes_after: int
    turns: Turns | None


@dataclass(frozen=True)
class Part:
    """Errors of y over some of the steps.

    Attributes
    ----------
    start, stop : int
        The first step, and that after the last.
    errors : Errors
        Relative to the spread over all steps.
    """

    start: int
    stop: int
    errors: Errors


@dataclass(frozen=True)
class QuantizationReport:
    """What quantising a layer costs and gains: see :func:`quantization_report`.

    ``print(report)`` shows it as a table, :meth:`as_dict` has it for JSON.

    Attributes
    ----------
    layer : str
        The quantised layer, as its repr.
    bits : {8, 16, 24}
    bytes_before, bytes_after : int
        Of the parameters.
    y : Errors
        Of the layer's outputs at all steps, merged as it merges its directions. All errors are
        differences from the same layer in float32.
    layers : tuple of LayerCost
        From the lowest layer on.
    over_time : tuple of Part
        Errors of y in ten parts of the steps, or as many as there are.
    left_out : int
        Numbers of y that are not finite, in float32 or quantised: they count nowhere.
    answers : Errors or None
        Of the head's answers; None without a head.
    decisions : Decisions or None
        Those that the answers make; None where they decide nothing.
    metric : Change or None
        The task's own metric before and after.
    speed : Speed or None
        How fast the layer is on these data; None where nothing was timed.
    """

    layer: str
    bits: int
    bytes_before: int
    bytes_after: int
    y: Errors
    layers: tuple[LayerCost, ...]
    over_time: tuple[Part, ...]
    left_out: int
    answers: Errors | None
    decisions: Decisions | None
    metric: Change | None
    speed: Speed | None

    @property
    def least_accurate(self) -> int:
        """The layer whose own error is the largest beside the spread of its outputs, from 0."""
        return max(range(len(self.layers)), key=lambda k: _or_zero(self.layers[k].own.relative))

    @property
    def slowest(self) -> int | None:
        """The layer that takes the most time when quantised, from 0; None if none was timed."""
        times = [layer.turns.after for layer in self.layers if layer.turns is not None]
        return times.index(max(times)) if times else None

    def as_dict(self) -> dict[str, Any]:
        """Return all of it as dictionaries, lists and numbers, for JSON; None for NaN."""
        found = {
            **asdict(self),
            "least_accurate": self.least_accurate,
            "slowest": self.slowest,
        }
        plain: dict[str, Any] = _plain(found)
        return plain

    def __str__(self) -> str:
        return text_of(self)


def _or_zero(number: float) -> float:
    return 0.0 if math.isnan(number) else number


def _plain(value: Any) -> Any:
    """Return what JSON has: names for the fields of tuples that have them, None for NaN."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if hasattr(value, "_asdict"):
        return _plain(value._asdict())
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value


def quantization_report(
    layer: LSTMBase,
    quantized: LSTMBase,
    data: npt.ArrayLike | Iterable[npt.ArrayLike],
    *,
    state: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
    lengths: npt.ArrayLike | None = None,
    mask: npt.ArrayLike | None = None,
    head: Any = None,
    threshold: float | None = None,
    targets: Any = None,
    metric: str | Metric | None = None,
    timed: bool = True,
    advance: Callable[[int], object] | None = None,
) -> QuantizationReport:
    """Compare a layer with what :func:`fastlstm.quantize` made of it, on data.

    Parameters
    ----------
    layer : LSTM or BiLSTM
        In float32.
    quantized : LSTM or BiLSTM
        The same in 8, 16 or 24 bits.
    data : array_like (T, B, I), (B, T, I) with ``batch_first``, or (T, I); or several of them
        Any iterable of arrays, such as a list of sequences (T_b, I), each as of a call of its own.
    state : (h_0, c_0), optional
        Of all sequences, (L*D, P) and (L*D, H), or of each, (L*D, B, P) and (L*D, B, H).
    lengths : array_like (B,), optional
        Steps of each sequence, where there is one array; what lies behind is padding.
    mask : array_like of bool (T, B), (B, T) with ``batch_first``, optional
        In place of `lengths`, the steps that exist.
    head : Head, Network, (weight (K, D*P), bias (K,)) or callable, optional
        What reads y, and whose answers are compared: a linear layer, or a function of y (..., D*P)
        that returns (..., K), of each step by itself. Of a `fastlstm.training.Network` its own
        layer is not read, but where it answers and what its loss is.
    threshold : float, optional
        An answer's numbers each decide by being above it. Without it an answer of one number
        decides by being above 0, and one of several by which is the largest; but those of a Network
        with the loss "mse" decide nothing.
    targets : array_like, optional
        The right answers, for `metric`: of one array of data (T, B, K), or classes (T, B), in the
        layout of x; without an answer at each step (B, K) or (B,). Of several a list.
    metric : {"mse", "rmse", "cross_entropy", "accuracy"} or callable, optional
        A function gets ``metric(answers, targets)``, the head's answers, or y without a head, as a
        call of the layer would give them, of several arrays a list, and the targets as they are
        here. Those with a name count the steps that exist; an answer of one number decides between
        the classes 0 and 1, and is the logit of 1 in the cross-entropy.
    timed : bool, default True
        Whether the speed is measured, for a second or two a layer.
    advance : callable, optional
        Called with how many steps of sequences have been compared since the last call.

    Returns
    -------
    QuantizationReport

    Raises
    ------
    TypeError, ValueError
        If an argument is wrong, the layers do not belong to each other, or there are no data.

    Notes
    -----
    Errors are differences from float32, whose own are some 1e-7: those of 24 bits are of that size,
    too. "Saturated" is what stands at the end of the range of integers: nothing is ever cut off,
    since each step's inputs bring their own scale, and hidden states lie within theirs
    (`Range`).

    Examples
    --------
    >>> import numpy as np, fastlstm
    >>> lstm = fastlstm.LSTM(20, 32, seed=0)
    >>> x = np.random.default_rng(0).normal(size=(50, 4, 20))
    >>> report = fastlstm.quantization_report(lstm, fastlstm.quantize(lstm, 16), x, timed=False)
    >>> report.y.largest < 1e-4
    True
    """
    _check_layers(layer, quantized)
    check_metric(metric, targets)
    items, several = _as_items(layer, data, state, lengths, mask)
    reader = as_reader(head, threshold, layer)
    if metric is not None and layer.merge_mode is None:
        raise ValueError("metric: the layer has merge_mode=None, and gives two results")
    pair = Pair(layer, quantized)
    edges = part_edges(max(item.x.shape[0] for item in items), _PARTS)
    sums, y = pair.sums(edges), ErrorSums(edges)
    answers = Answers(reader, keep=metric is not None)
    for item in items:
        answers.begin(item)
        for block in pair.walk(item, sums, advance or (lambda _: None)):
            merged = reader.merge(block.exact), reader.merge(block.other)
            y.add(*merged, block.start, block.present)
            answers.add(item, block, merged)
    change = None
    if metric is not None:
        given = [_given(*each, reader) for each in zip(items, answers.kept, strict=True)]
        change = change_of(metric, targets, given, reader.rule, several=several)
    speed: Speed | None = None
    turns: Sequence[Turns | None] = [None] * layer.num_layers
    if as_flag("timed", timed):
        first = next(item for item in items if item.x.size)  # there is one
        speed, turns = measure(layer, quantized, pair, first)
    sizes = zip(map(_bytes, pair.exact), map(_bytes, pair.other), strict=True)
    layers = tuple(
        LayerCost(
            each.own.total,
            each.accumulated.total,
            None if each.x is None else each.x.total,
            each.h.total,
            *size,
            turn,
        )
        for each, size, turn in zip(sums, sizes, turns, strict=True)
    )
    return QuantizationReport(
        layer=repr(quantized),
        bits=int(quantized.bits or 0),
        bytes_before=_bytes(layer),
        bytes_after=_bytes(quantized),
        y=y.total,
        layers=layers,
        over_time=tuple(Part(*part) for part in y.parts()),
        left_out=y.left_out,
        answers=None if head is None else answers.errors,
        decisions=answers.decisions,
        metric=change,
        speed=speed,
    )


def _check_layers(layer: Any, quantized: Any) -> None:
    """Raise TypeError or ValueError where they are no layer and the same one quantised."""
    for name, given in (("layer", layer), ("quantized", quantized)):
        if not isinstance(given, LSTMBase):
            raise TypeError(f"{name}: got {type(given).__name__}, expected an LSTM or BiLSTM")
    if layer.bits is not None or layer.dtype != np.float32:
        raise ValueError(f"layer: got {layer}, expected one in float32 that is not quantised")
    if quantized.bits is None:
        raise ValueError(f"quantized: got {quantized}, expected one that fastlstm.quantize made")
    if layer._spec != quantized._spec:
        raise ValueError(f"quantized: got {quantized}, expected one like {layer}")


def _as_items(
    layer: LSTMBase, data: Any, state: Any, lengths: Any, mask: Any
) -> tuple[list[Item], bool]:
    """Return the arrays of the data, checked, and whether they were given as several."""
    several = not is_one_array(data)
    if several and not (lengths is None and mask is None):
        raise ValueError("lengths, mask: got one with several arrays, expected one array with them")
    items = []
    for x, is_single in as_calls(data, layer._spec, finite=False):
        present = mask
        if is_single and mask is not None:
            present = np.expand_dims(as_array("mask", mask), 0 if layer.batch_first else 1)
        steps = as_steps(lengths, present, x.shape[:2], layer.batch_first)
        h_0, c_0 = _as_states(layer, state, x.shape[1])
        items.append(Item(x, steps, h_0, c_0, is_single))
    return items, several


def _as_states(
    layer: LSTMBase, state: Any, batch: int
) -> tuple[RealArray, RealArray] | tuple[None, None]:
    """Return h_0 (L*D, B, P) and c_0 (L*D, B, H)."""
    if state is None:
        return None, None
    if not isinstance(state, tuple | list) or len(state) != 2:
        raise TypeError(f"state: got {shown(state)}, expected a pair (h_0, c_0)")
    rows = layer.num_layers * layer.num_directions
    arrays = []
    for name, given, width in zip(
        ("h_0", "c_0"), state, (layer.output_size, layer.hidden_size), strict=True
    ):
        array = as_real_array(name, given, layer.dtype)
        if array.ndim == 2:  # the same for all
            array = np.repeat(array[:, np.newaxis], batch, axis=1)
        arrays.append(as_state(name, array, (rows, batch, width), layer.dtype))
    return arrays[0], arrays[1]


def _given(item: Item, answers: tuple[RealArray, RealArray], reader: Reader) -> Given:
    """Return answers, (T, B, K) or (B, K), as a call gives them."""
    present = None
    if reader.each_step and item.steps is not None:
        present = np.zeros(item.x.shape[:2], np.bool_)
        item.steps.scatter(np.True_, present)
    arrays: list[Any] = [*answers, present]
    for index, array in enumerate(arrays):
        if array is None:
            continue
        if item.is_single:
            arrays[index] = array[:, 0] if reader.each_step else array[0]
        elif reader.each_step and reader.layer.batch_first:
            arrays[index] = array.swapaxes(0, 1)
    return Given(*arrays)


def _bytes(layer: LSTMBase) -> int:
    """Return how many bytes the parameters of a layer take."""
    if layer._quantized is None:
        return layer.parameters.nbytes
    return sum(array.nbytes for array in layer._quantized.arrays())
