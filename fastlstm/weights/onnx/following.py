"""What the nodes of an ONNX graph do to labels: the parts of a network, and the ways between them.

Sizes of batches and sequences that the graph leaves open are given numbers, and shapes are computed
of these as a run would compute them.

Letters: T time steps, B batch, I input size, D directions, H units, K outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from fastlstm.weights.contents import Found
from fastlstm.weights.models import Linear
from fastlstm.weights.onnx.constants import Constants, NotConstantError
from fastlstm.weights.onnx.folding import OPERATORS, Array, slices
from fastlstm.weights.onnx.graph import LSTMS, Proto, Scope, name_of, short, text, value_of
from fastlstm.weights.onnx.labels import Block, Blocks, Labels, NotFollowedError

#: Operators that hand on all of their first input, at other places.
_MOVING = ("Gather", "Identity", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze")

#: Activations behind linear layers, by the names of `fastlstm.weights.models`.
_ACTIVATIONS = {
    "Relu": "relu",
    "Tanh": "tanh",
    "Sigmoid": "sigmoid",
    "Softmax": "softmax",
    "LogSoftmax": "softmax",
}

_POOLINGS = {
    "ReduceMean": "mean",
    "GlobalAveragePool": "mean",
    "ReduceMax": "max",
    "GlobalMaxPool": "max",
}

#: Of integers that are sizes, as NumPy computes them.
_ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "Add": np.add,
    "Div": np.floor_divide,
    "Equal": np.equal,
    "Max": np.maximum,
    "Min": np.minimum,
    "Mul": np.multiply,
    "Sub": np.subtract,
}

#: TensorProto.DataType of integers, and of floats as LSTMs compute with.
_INTEGERS, _FLOATS = (6, 7), (1, 11)

#: Numbers that sizes are computed with, and the largest one.
_MOST_SIZES, _LARGEST = 64, 2**31

#: Bounds of a slice from here on mean the end, whatever the size.
_END = 2**31 - 1

#: That labels may take where they are copied, and zeros that a graph makes.
MOST_BYTES = 2**28


class Traced:
    """Labels, told apart from numbers."""

    def __init__(self, labels: Labels) -> None:
        self.labels = labels


Value = Any  # Traced, an array, or None of an input that is left out


class Follower:
    """Runs the nodes of one graph on labels.

    Parameters
    ----------
    scope : Scope
    constants : Constants
    lstms : mapping of int to Found
        Of the LSTM nodes, by their places in the graph.

    Attributes
    ----------
    beyond : list of str
        Cuts at places that the sizes of this run do not reach: what they do with others is not
        seen.
    calculates : bool
        Whether the graph computes with sizes, which may differ between others than those of runs.
    """

    def __init__(self, scope: Scope, constants: Constants, lstms: Mapping[int, Found]) -> None:
        self.blocks = Blocks()
        self.assumptions: list[str] = []
        self.beyond: list[str] = []
        self.calculates = False
        self.order: list[int] = []
        self.batch_first: bool | None = None
        self.table: Array | None = None
        self._scope, self._constants, self._lstms = scope, constants, lstms
        self._values: dict[Any, Value] = {}
        self._left = MOST_BYTES

    def give(self, name: Any, shape: tuple[int, ...], is_whole: bool) -> None:
        """Give an input of the graph its labels; with three axes the last is that of features.

        `is_whole` tells whether its numbers are integers, of which casts to integers lose nothing.
        """
        rows, width = (shape[:2], shape[2]) if len(shape) == 3 else (shape, 1)
        block = self.blocks.add("given", rows, width, source="integers" if is_whole else "floats")
        self._values[name] = Traced(block.labels().reshape(shape))

    def value(self, name: Any) -> Value:
        """Return a value that was computed, or is a constant.

        Raises
        ------
        NotFollowedError
            If it is neither.
        """
        if not name:
            return None
        if name in self._values:
            return self._values[name]
        try:
            return self._constants.value(self._scope, name)
        except NotConstantError as error:
            raise NotFollowedError(str(error)) from error

    def run(self, place: int, node: Proto) -> None:
        """Compute what a node gives.

        Raises
        ------
        NotFollowedError
            If it is no part of a network, and no way between parts; the node is named.
        """
        operator = text(node.op_type)
        try:
            if (text(node.domain), operator) in LSTMS:
                self._run_lstm(place, node)
                return
            if text(node.domain) not in ("", "ai.onnx"):
                raise NotFollowedError(f"it is of the domain {short(node.domain)!r}")
            attributes = {n: value_of(a) for n, a in self._scope.attributes_of(node).items()}
            if hasattr(attributes.get("value"), "data_type"):
                attributes["value"] = self._constants.tensor(attributes["value"])
            inputs = [self.value(name) for name in node.input]
            if any(isinstance(value, Traced) for value in inputs):
                results = self._followed(node, operator, attributes, inputs)
            else:
                results = [self._computed(operator, attributes, inputs)]
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            # Also what comes of inputs left out, and of axes, shapes and indices that don't fit.
            raise NotFollowedError(
                f"node {name_of(node)} ({short(operator)}): {short(error) or 'damaged'}"
            ) from error
        self._values.update(zip(node.output, results, strict=False))

    def _spend(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise NotFollowedError("its sizes are too large to be followed")

    def _computed(self, operator: str, attributes: dict[str, Any], inputs: list[Value]) -> Array:
        """Return what a node makes of numbers."""
        if operator in _ARITHMETIC and len(inputs) == 2:
            self.calculates = True
            one, other = inputs
            for array in inputs:
                if array.dtype.kind not in "iub" or array.size > _MOST_SIZES:
                    raise NotFollowedError("it computes what is not followed")
                if array.size and int(np.abs(array).max()) > _LARGEST:
                    raise NotFollowedError("it computes sizes that no array has")
            return np.asarray(_ARITHMETIC[operator](one, other))
        if operator == "Where" and all(each.size <= _MOST_SIZES for each in inputs):
            condition, one, other = inputs
            return np.asarray(np.where(condition, one, other))
        if operator not in OPERATORS:
            raise NotFollowedError("what it computes is no part of a network here")
        made: Array = OPERATORS[operator](self._spend, attributes, *inputs)
        return made

    def _followed(
        self, node: Proto, operator: str, attributes: dict[str, Any], inputs: list[Value]
    ) -> list[Value]:
        """Return what a node makes of labels, of each of its outputs."""
        first = inputs[0]
        if operator == "Shape":
            sizes = first.labels.shape
            wanted = sizes[attributes.get("start", 0) : attributes.get("end", len(sizes))]
            return [np.array(wanted, np.int64)]
        if operator == "Concat":
            if not all(isinstance(each, Traced) for each in inputs):
                raise NotFollowedError("constants are put beside values")
            joined = np.concatenate([each.labels for each in inputs], int(attributes["axis"]))
            self._spend(joined.nbytes)
            return [Traced(joined)]
        if operator == "Gather" and not isinstance(first, Traced):
            return [self._embedded(first, inputs[1].labels, attributes)]
        if operator in ("MatMul", "Gemm"):
            return [self._linear(node, operator, attributes, inputs)]
        if operator == "Add":
            return [self._with_bias(inputs)]
        if not isinstance(first, Traced) or any(isinstance(each, Traced) for each in inputs[1:]):
            raise NotFollowedError("what it computes is no part of a network here")
        if operator == "Slice":
            for axis, part in slices(attributes, *inputs[1:]):
                self._look_beyond(node, (part.start, part.stop), first.labels.shape[axis])
        if operator in _MOVING:
            return [Traced(OPERATORS[operator](self._spend, attributes, first.labels, *inputs[1:]))]
        if operator == "Cast":
            return [self._cast(first, attributes["to"])]
        if operator == "Dropout":
            if len(inputs) > 2 and inputs[2] is not None and inputs[2].any():
                raise NotFollowedError("drops as in training")
            return [first]
        if operator == "Flatten":
            axis = int(attributes.get("axis", 1))
            rows = int(np.prod(first.labels.shape[:axis]))
            return [Traced(first.labels.reshape(rows, -1))]
        if operator == "Split":
            return self._split(node, attributes, inputs)
        if operator in _POOLINGS:
            return [self._pooled(operator, attributes, inputs)]
        if operator in _ACTIVATIONS:
            return [self._activated(operator, attributes, first.labels)]
        raise NotFollowedError("what it computes is no part of a network here")

    def _look_beyond(self, node: Proto, bounds: Iterable[int], size: int) -> None:
        """Note a cut that an axis of this size does not reach, though a longer one may."""
        for bound in bounds:
            if size < abs(bound) < _END:
                self.beyond.append(
                    f"node {name_of(node)} ({short(text(node.op_type))}): cuts at {bound}, which "
                    f"only some sequences or batches reach"
                )

    def _split(self, node: Proto, attributes: dict[str, Any], inputs: list[Value]) -> list[Value]:
        labels, axis = inputs[0].labels, int(attributes.get("axis", 0))
        size, count = labels.shape[axis], len(node.output)
        sizes = inputs[1].tolist() if len(inputs) > 1 and inputs[1] is not None else None
        sizes = sizes or attributes.get("split") or [-(-size // count)] * (count - 1)
        if sum(sizes) != size or len(sizes) != count:
            raise NotFollowedError(
                f"splits {size} into {count} of {sizes}, which fits some sizes alone"
            )
        ends = np.cumsum(sizes)[: count - 1]
        self._look_beyond(node, ends.tolist(), size)
        return [Traced(part) for part in np.split(labels, ends, axis)]

    def _cast(self, value: Traced, to: Any) -> Traced:
        block = self.blocks.of(value.labels)
        if to in _FLOATS:
            return value
        if block.kind not in ("given", "rounded") or to not in _INTEGERS:
            raise NotFollowedError(f"casts to type {to}")
        if block.source == "integers":
            return value
        made = self.blocks.add("rounded", block.rows, block.width, source="integers")
        return Traced(value.labels - block.first + made.first)

    def _embedded(self, table: Array, labels: Labels, attributes: dict[str, Any]) -> Traced:
        block = self.blocks.of(labels)
        if block.kind not in ("given", "rounded") or block.width != 1 or table.ndim != 2:
            raise NotFollowedError("looks up what is no input of the model in what is no table")
        if attributes.get("axis", 0) != 0:
            raise NotFollowedError("looks up columns of a table")
        made = self.blocks.add("embedding", block.rows, table.shape[1], source=table)
        return Traced(made.of_rows(labels - block.first))

    def _run_lstm(self, place: int, node: Proto) -> None:
        found = self._lstms[place]
        x = self.value(node.input[0])
        if not isinstance(x, Traced):
            raise NotFollowedError("reads a constant")
        time_first = x.labels.swapaxes(0, 1) if found.option("batch_first") else x.labels
        self._check_inputs(time_first)
        self._check_states(node, time_first.shape)
        self.order.append(place)
        (T, B), D, H = time_first.shape[:2], found.num_directions, found.option("hidden_size")
        block = self.blocks.add("lstm", (T, B), D * H, source=place)
        y = block.labels().reshape(T, B, D, H)
        last = _last(y, found)
        if found.option("batch_first"):
            results = [y.transpose(1, 0, 2, 3), last]
        else:
            results = [y.transpose(0, 2, 1, 3), last.swapaxes(0, 1)]
        results.append(self.blocks.add("state", (B,), D * H).labels().reshape(results[1].shape))
        self._values.update(
            (name, Traced(each)) for name, each in zip(node.output, results, strict=False) if name
        )

    def _check_inputs(self, labels: Labels) -> None:
        """Check that x (T, B, I) is all that the part before gives, in order."""
        block, rows = self.blocks.rows(labels)
        T, B = rows.shape
        in_order = np.arange(T * B).reshape(T, B)
        if block.kind == "lstm" and block.source == self.order[-1]:
            if block.rows != (T, B) or not np.array_equal(rows, in_order):
                raise NotFollowedError(
                    "does not read all steps of the layer below, or not in their order"
                )
            return
        if block.kind not in ("given", "embedding") or self.order:
            raise NotFollowedError("reads what is neither the input nor the layer below")
        if block.kind == "embedding":
            self.table = block.source
        if T == B == 1:
            self.assumptions.append(
                "the graph is for one step of one sequence: assumed is that time comes first, not "
                "the batch, and that it answers at each step, not for the last one alone"
            )
        if block.rows == (T, B) and np.array_equal(rows, in_order):
            self.batch_first = False
        elif block.rows == (B, T) and np.array_equal(rows.T, np.arange(T * B).reshape(B, T)):
            self.batch_first = True
        else:
            raise NotFollowedError("does not read the steps of the input in their order")

    def _check_states(self, node: Proto, shape: tuple[int, ...]) -> None:
        for name in node.input[4:5]:
            lengths = self.value(name)
            if isinstance(lengths, Traced):
                raise NotFollowedError("the model is given lengths (sequence_lens)")
            if lengths is not None and (lengths != shape[0]).any():
                raise NotFollowedError("sequence_lens are not those of all steps")
        for name in node.input[5:7]:
            state = self.value(name)
            if isinstance(state, Traced):
                if self.blocks.of(state.labels).kind != "given":
                    raise NotFollowedError("begins with a state that the model computes")
                self.assumptions.append(
                    "the model is given an initial state, a network begins with zeros"
                )
            elif state is not None and state.any():
                raise NotFollowedError("begins with a state that is not 0")

    def _features(self, labels: Labels) -> tuple[Block, Any]:
        """Return the block that a linear layer's input (..., F) is of, and which rows.

        Of an LSTM's steps the last ones are a block of their own.
        """
        block = self.blocks.of(labels)
        if block.kind != "lstm":
            return self.blocks.rows(labels)
        found, (T, B) = self._lstms[block.source], block.rows
        y = block.labels().reshape(T, B, found.num_directions, -1)
        every = np.arange(T * B).reshape(T, B)
        if labels.shape[-1] != block.width:
            raise NotFollowedError("reads some of the LSTM's numbers alone")
        flat = labels.reshape(-1, block.width)
        for pooling, rows in (("last", _last(y, found).reshape(B, -1)),
                              ("last_step", y[-1].reshape(B, -1))):  # fmt: skip
            if len(flat) <= B and T > 1 and (where := _matching(flat, rows)) is not None:
                made = self.blocks.add("pooled", (B,), block.width, pooling=pooling,
                                       source=block.source)  # fmt: skip
                return made, where.reshape(labels.shape[:-1])
        whole = self.blocks.rows(labels)
        if not np.isin(every, whole.rows).all():
            raise NotFollowedError("reads some of the steps alone")
        return whole.block, whole.rows

    def _linear(
        self, node: Proto, operator: str, attributes: dict[str, Any], inputs: list[Value]
    ) -> Traced:
        labels, weight, *bias = inputs
        if not isinstance(labels, Traced) or isinstance(weight, Traced):
            raise NotFollowedError("multiplies what is no constant")
        if weight.ndim != 2 or weight.dtype.kind != "f":
            raise NotFollowedError(f"multiplies {weight.dtype} {weight.shape}")
        if attributes.get("transA"):
            raise NotFollowedError("transposes its input")
        weight = weight if attributes.get("transB") else weight.T
        weight = weight * weight.dtype.type(attributes.get("alpha", 1.0))
        added = np.zeros(len(weight), weight.dtype)
        if bias and bias[0] is not None:
            beta = weight.dtype.type(attributes.get("beta", 1.0))
            added = added + _as_bias(bias[0], len(weight)) * beta
        block, rows = self._features(labels.labels)
        if block.kind not in ("lstm", "pooled", "linear"):
            is_state = block.kind == "state"
            raise NotFollowedError(
                "reads a cell state" if is_state else "a linear layer before the LSTM"
            )
        if block.linear and block.linear[-1].activation == "softmax":
            raise NotFollowedError("reads probabilities of a softmax")
        linear = Linear(name_of(node), np.ascontiguousarray(weight), added)
        made = self.blocks.add(
            "linear", block.rows, len(weight), source=block.source,
            pooling=block.pooling, linear=(*block.linear, linear),
        )  # fmt: skip
        return Traced(made.of_rows(rows))

    def _with_bias(self, inputs: list[Value]) -> Traced:
        traced = [each for each in inputs if isinstance(each, Traced)]
        if len(traced) != 1:
            raise NotFollowedError("adds values of two parts")
        (constant,) = (each for each in inputs if not isinstance(each, Traced))
        block, rows = self.blocks.rows(traced[0].labels)
        last = self._last_linear(block)
        bias = last.bias + _as_bias(constant, block.width)
        return self._changed(block, rows, replace(last, bias=bias.astype(last.bias.dtype)))

    def _activated(self, operator: str, attributes: dict[str, Any], labels: Labels) -> Traced:
        block, rows = self.blocks.rows(labels)
        last = self._last_linear(block)
        activation = _ACTIVATIONS[operator]
        # Before version 13 of the operators it was over all axes from the given one on.
        default = -1 if self._scope.opset >= 13 else 1
        if activation == "softmax" and attributes.get("axis", default) not in (-1, labels.ndim - 1):
            raise NotFollowedError("a softmax over another axis than that of the classes")
        return self._changed(block, rows, replace(last, activation=activation))

    def _last_linear(self, block: Block) -> Linear:
        """Return the linear layer that a block is of, which has no activation yet."""
        if block.kind != "linear":
            raise NotFollowedError("what it computes is no part of a network here")
        last = block.linear[-1]
        if last.activation != "identity":
            raise NotFollowedError(f"changes what a {last.activation} gives")
        return last

    def _changed(self, block: Block, rows: Any, last: Linear) -> Traced:
        made = self.blocks.add(
            "linear", block.rows, block.width, source=block.source,
            pooling=block.pooling, linear=(*block.linear[:-1], last),
        )  # fmt: skip
        return Traced(made.of_rows(rows))

    def _pooled(self, operator: str, attributes: dict[str, Any], inputs: list[Value]) -> Traced:
        labels = inputs[0].labels
        axes: list[int] | None = list(range(2, labels.ndim))
        keepdims = 1
        if not operator.startswith("Global"):
            told = inputs[1].tolist() if len(inputs) > 1 and inputs[1] is not None else None
            axes, keepdims = told or attributes.get("axes"), attributes.get("keepdims", 1)
        if not axes or len(axes) != 1:
            raise NotFollowedError("a mean or largest number over other axes than that of time")
        (axis,) = (range(labels.ndim)[each] for each in axes)
        block = self.blocks.of(labels)
        if block.kind != "lstm":
            raise NotFollowedError("a mean or largest number of what no LSTM gives")
        T, B = block.rows
        taken = np.sort(np.moveaxis(labels, axis, 0), axis=0)
        columns = taken[0] - block.first  # those of the first step
        size = block.width * B
        steps = block.first + columns + np.arange(T).reshape(-1, *[1] * columns.ndim) * size
        if (columns >= size).any() or not np.array_equal(taken, steps):
            raise NotFollowedError("a mean or largest number over other axes than that of time")
        made = self.blocks.add("pooled", (B,), block.width, pooling=_POOLINGS[operator],
                               source=block.source)  # fmt: skip
        pooled = made.first + columns
        return Traced(np.expand_dims(pooled, axis) if keepdims else pooled)


def _last(y: Labels, found: Found) -> Labels:
    """Return the labels (B, D, H) of the final states among those of all steps (T, B, D, H)."""
    last = np.array(y[0] if found.option("reverse") else y[-1])
    if found.bidirectional:
        last[:, 1] = y[0, :, 1]
    return last


def _matching(flat: Labels, rows: Labels) -> Any:
    """Return which row each of several (N, F) is, or None if one is none of them."""
    order = np.argsort(rows[:, 0])
    places = np.searchsorted(rows[order, 0], flat[:, 0]).clip(max=len(rows) - 1)
    which = order[places]
    return which.astype(np.int64) if np.array_equal(rows[which], flat) else None


def _as_bias(array: Array, size: int) -> Array:
    """Return a bias (K,) of what is added to each row."""
    if array.dtype.kind != "f" or array.size not in (1, size):
        raise NotFollowedError(f"adds {array.dtype} {array.shape}")
    if array.ndim and array.shape[-1] != array.size:
        raise NotFollowedError(f"adds {array.dtype} {array.shape}")
    bias: Array = np.broadcast_to(array.reshape(-1), (size,))
    return bias
