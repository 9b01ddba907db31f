"""An ONNX graph as a network: what stands between its input and its answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from fastlstm.weights.contents import Found
from fastlstm.weights.models import Model, UnclearError, check_chain
from fastlstm.weights.onnx.constants import Constants
from fastlstm.weights.onnx.following import Follower, Traced
from fastlstm.weights.onnx.graph import MOST_AXES, Scope, short, text
from fastlstm.weights.onnx.labels import Block, NotFollowedError

#: Sizes that open axes are given, in two runs: what depends on them shows.
_SIZES = ((3, 2, 4, 6, 8), (2, 5, 7, 3, 9))

#: TensorProto.DataType of integers and truth values.
_WHOLE = (2, 3, 4, 5, 6, 7, 9, 12, 13)

#: In a third run, of graphs that compute with sizes: small numbers may all give the same.
_LARGER = (23, 17, 5, 7, 6)


class _Followed(NamedTuple):
    """What one run has found."""

    block: Block
    order: tuple[int, ...]
    batch_first: bool
    table: Any
    assumptions: tuple[str, ...]
    beyond: tuple[str, ...]
    calculates: bool


def model_of(scope: Scope, constants: Constants, lstms: Mapping[int, Found]) -> Model:
    """Return the network that the main graph of a model is.

    Parameters
    ----------
    scope : Scope
    constants : Constants
    lstms : mapping of int to Found
        Of the LSTM nodes that can be run, by their places in the graph.

    Raises
    ------
    UnclearError
        If a node has no place in a network here; it is named.
    ValueError
        If parts don't fit each other.
    """
    runs = [_followed(scope, constants, lstms, sizes) for sizes in _SIZES]
    if any(run.calculates for run in runs):
        runs.append(_followed(scope, constants, lstms, _LARGER))
    first, *others = runs
    if any(_summary(other) != _summary(first) for other in others):
        raise UnclearError("what it computes depends on the sizes of batches or sequences")
    beyond = [each for run in runs for each in run.beyond]
    if beyond:
        raise UnclearError(beyond[0])
    layers = tuple(lstms[place] for place in first.order)
    linear = list(first.block.linear)
    output = linear[-1].activation
    if output in ("softmax", "sigmoid"):
        linear[-1] = replace(linear[-1], activation="identity")
    else:
        output = "linear"
    # Of each node the graph says which of its outputs is read.
    layers = tuple(_with_all_steps(layer) for layer in layers)
    check_chain(layers, linear, first.table)
    return Model(
        layers,
        tuple(linear),
        first.table,
        None,
        first.block.pooling,
        output,
        first.batch_first,
        first.assumptions,
    )


def _with_all_steps(layer: Found) -> Found:
    options = {k: v for k, v in layer.options.items() if k not in ("return_sequences",)}
    return replace(layer, options=options)


def _summary(run: _Followed) -> tuple[Any, ...]:
    linear = [(each.name, each.activation) for each in run.block.linear]
    return run.order, run.batch_first, run.block.pooling, linear


def _followed(
    scope: Scope, constants: Constants, lstms: Mapping[int, Found], sizes: Sequence[int]
) -> _Followed:
    """Follow a graph from its inputs to its answers."""
    graph = scope.graph
    outputs = [each.name for each in graph.proto.output]
    needed = _needed(scope, outputs)
    follower = Follower(scope, constants, lstms)
    _give_inputs(follower, scope, lstms, sizes)
    failed: dict[Any, NotFollowedError] = {}
    for place, node in enumerate(graph.nodes):
        if place not in needed:
            continue
        lost = [failed[name] for name in node.input if name in failed]
        try:
            if lost:
                raise lost[0]
            follower.run(place, node)
        except NotFollowedError as error:
            failed.update(dict.fromkeys(filter(None, node.output), error))
    answers, errors = [], []
    for name in outputs:
        if name in failed:
            errors.append(failed[name])
            continue
        try:
            value = follower.value(name)
            if not isinstance(value, Traced):
                raise NotFollowedError(f"output {short(name)!r} is a constant")
            block = _answers(follower, value)
        except NotFollowedError as error:
            errors.append(error)
            continue
        if block is not None:
            answers.append((name, block))
    if errors:
        raise UnclearError(str(errors[0]))
    if not answers:
        raise UnclearError("has no linear layer behind an LSTM among what it gives")
    if len(answers) > 1:
        names = ", ".join(short(name) for name, _ in answers)
        raise UnclearError(f"gives several answers, {names}; a network here has those of one head")
    block = answers[0][1]
    if follower.order[-1] != block.source or len(follower.order) != len(lstms):
        raise UnclearError("has LSTMs that are not between its input and its answers")
    assert follower.batch_first is not None  # there is an LSTM, so its inputs were looked at
    return _Followed(
        block,
        tuple(follower.order),
        follower.batch_first,
        follower.table,
        tuple(dict.fromkeys(follower.assumptions)),
        tuple(follower.beyond),
        follower.calculates,
    )


def _needed(scope: Scope, outputs: Sequence[Any]) -> set[int]:
    """Return the places of the nodes that outputs are made by."""
    graph = scope.graph
    needed: set[int] = set()
    pending = list(outputs)
    while pending:
        place = graph.makers.get(pending.pop())
        if place is not None and place not in needed:
            needed.add(place)
            pending += graph.nodes[place].input
    return needed


def _give_inputs(
    follower: Follower, scope: Scope, lstms: Mapping[int, Found], sizes: Sequence[int]
) -> None:
    """Give the inputs of the graph labels, with numbers in place of sizes that are open."""
    graph = scope.graph
    named: dict[str, int] = {}
    left = list(sizes)
    I = next(iter(lstms.values())).option("input_size") if lstms else 1
    for value in graph.proto.input:
        if value.name in graph.tensors:  # an initialiser that may be replaced
            continue
        tensor = value.type.tensor_type
        if not 0 < len(tensor.shape.dim) <= MOST_AXES:
            raise UnclearError(f"input {short(value.name)!r} has no shape, or none of sequences")
        shape = []
        for axis, dimension in enumerate(tensor.shape.dim):
            if dimension.dim_value > 0:
                shape.append(int(dimension.dim_value))
                continue
            name = text(dimension.dim_param) or f"{short(value.name)}.{axis}"
            if name not in named:
                is_width = axis == 2 and len(tensor.shape.dim) == 3
                named[name] = I if is_width else (left.pop(0) if left else 1)
            shape.append(named[name])
        follower.give(value.name, tuple(shape), tensor.elem_type in _WHOLE)


def _answers(follower: Follower, value: Traced) -> Block | None:
    """Return the linear layer that an output is of, or None of what no linear layer gives.

    Raises
    ------
    NotFollowedError
        If it is neither, or some of its rows alone.
    """
    labels = value.labels
    if "linear" not in follower.blocks.kinds(labels):
        return None
    block = follower.blocks.of(labels)
    # Axes may be in any order, but those of steps and sequences must not be turned around.
    grid = np.arange(np.prod(block.rows)).reshape(block.rows)
    orders = [each for way in (grid, grid.T) for each in (way.squeeze(), way.ravel())]
    views = [np.moveaxis(labels, axis, -1) for axis in reversed(range(labels.ndim))]
    views += [labels[..., np.newaxis]] if block.width == 1 else []
    for view in views:
        try:
            rows = follower.blocks.rows(view).rows.squeeze()
        except NotFollowedError:
            continue
        if any(np.array_equal(rows, order) for order in orders):
            return block
    raise NotFollowedError("an output holds some of the answers alone, or in another order")
