"""Stacks in an ONNX model: where the result Y of one LSTM node is all that the next one reads.

Y has the axes (T, D, B, H) and X wants (T, B, D*H); with ``layout`` 1 it is (B, T, D, H) and
(B, T, D*H). Exporters go from one to the other by Squeeze, or by Transpose and Reshape, whose shape
they write down (PyTorch's older one) or compute from that of Y (its newer one). This follows the
axes, as letters, through such nodes: what doesn't arrive in that order is no stack.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from fastlstm.weights.contents import Found
from fastlstm.weights.onnx.constants import Constants, NotConstantError
from fastlstm.weights.onnx.folding import DTYPES
from fastlstm.weights.onnx.graph import (
    LSTMS,
    MOST_AXES,
    Proto,
    Scope,
    Site,
    Source,
    text,
    value_of,
)
from fastlstm.weights.onnx.plan import MULTIPLIERS, QUANTIZED
from fastlstm.weights.stacks import stacked

#: Nodes between two layers, and those that compute one shape.
LONGEST_WAY = 16

#: Letters of the axes that one axis has been made of; none for an axis of size 1.
Axis: TypeAlias = tuple[str, ...]

#: A number, or the letter of an axis whose size is not known.
Size: TypeAlias = int | str

#: Nodes on the way from a model's input, or from nothing, to an initial state.
_CONSTANT = ("Constant", "ConstantOfShape", "Shape")
_CUTTING = (
    *("Cast", "Concat", "Expand", "Gather", "Identity", "Reshape", "Slice", "Split"),
    *("Squeeze", "Transpose", "Unsqueeze"),
)

_PASSING = (
    *("Cast", "Concat", "Dropout", "Gather", "Identity", "Reshape", "Slice", "Split"),
    *("Squeeze", "Transpose", "Unsqueeze"),
)

#: The last number of a slice that goes to the end, whatever the size.
_END = 2**31 - 1


class _Piece(NamedTuple):
    """What has been made of a Y: all of it, or one of its directions.

    Attributes
    ----------
    axes : list of Axis
    direction : int or None
        Of one that was cut out: 0 or 1.
    """

    axes: list[Axis]
    direction: int | None = None


def find_below(site: Site, found: Found, constants: Constants) -> int | None:
    """Return which node of the same graph feeds this LSTM as the layer below does, if one does."""
    start = site.node.input[0]
    if text(site.node.op_type) == QUANTIZED:  # of others they are a layer's own
        start, _ = before_factors(site.scope, start)
    name = start
    for _ in range(LONGEST_WAY + 1):
        source = site.scope.find(name)
        if source is None or source.scope is not site.scope or source.node is None:
            return None
        node = source.node
        if (text(node.domain), text(node.op_type)) in LSTMS:
            if name != node.output[0] or not node.output[0]:
                return None
            follower = _Follower(source, found, constants)
            return site.scope.graph.makers[name] if follower.arrives(start) else None
        if text(node.op_type) not in _PASSING or not node.input:
            return None
        name = node.input[0]
    return None


def before_factors(scope: Scope, name: Any) -> tuple[Any, Any]:
    """Return the input of a layer as it is before factors of this package, and those or None."""
    source = scope.find(name)
    node = None if source is None or source.scope is not scope else source.node
    if node is not None and text(node.op_type) == "Mul" and len(node.input) == 2:
        before, by = node.input
        if text(by).startswith(f"{MULTIPLIERS}_l"):
            return before, by
    return name, None


def starts_by_itself(site: Site) -> bool:
    """Whether an LSTM begins with zeros, constants or what the model is given.

    Of a decoder that begins with the state that an encoder ended with, the two are no stack: the
    layers of a stack have initial states of their own.
    """
    return all("computed" not in origins(site.scope, n) for n in site.node.input[5:7] if n)


def origins(scope: Scope, name: Any) -> set[str]:
    """Return of what a value is cut and joined: "given" to the model, "constant", "computed"."""
    found: set[str] = set()
    seen = {(id(scope), name)}
    pending = [(scope, name)]
    while pending:
        source = pending[-1][0].find(pending.pop()[1])
        if source is None or source.node is None:
            is_input = source is not None and source.tensor is None
            found.add("given" if is_input else "constant")
            continue
        operator = text(source.node.op_type)
        if operator in _CONSTANT:
            found.add("constant")
            continue
        if operator not in _CUTTING or len(seen) > LONGEST_WAY**2:
            return {"computed"}
        # Only Concat has more than one input whose values it hands on: others are sizes and places.
        handed_on = source.node.input if operator == "Concat" else source.node.input[:1]
        inputs = {(id(source.scope), each): each for each in handed_on if each}
        pending += [(source.scope, each) for key, each in inputs.items() if key not in seen]
        seen |= inputs.keys()
    return found


class _Follower:
    """Follows the axes of one Y on their way to an X."""

    def __init__(self, source: Source, above: Found, constants: Constants) -> None:
        self._scope, self._constants = source.scope, constants
        assert source.node is not None
        self._name = source.node.output[0]
        self._type = above.stored_dtype
        batch_first = above.option("batch_first")
        letters = "BTDH" if batch_first else "TDBH"
        # The layer above has the same H and D, or it is no layer of the same stack.
        self._sizes: dict[str, Size] = {
            "T": "T",
            "B": "B",
            "D": 2 if above.bidirectional else 1,
            "H": above.option("hidden_size"),
        }
        dimensions = source.scope.graph.dimensions(self._name)
        if len(dimensions) == 4:
            told = dict(zip(letters, dimensions, strict=True))
            self._sizes |= {letter: told[letter] or letter for letter in "TB"}
        start = [self._axis(letter) for letter in letters]
        self._wanted = [self._axis(letters) for letters in (("B", "T") if batch_first else "TB")]
        self._wanted.append(self._axis("DH"))
        self._pieces: dict[Any, _Piece | None] = {self._name: _Piece(start)}
        self._shapes: dict[Any, list[Size] | None] = {}

    def _axis(self, letters: str) -> Axis:
        return tuple(letter for letter in letters if self._sizes[letter] != 1)

    def arrives(self, name: Any) -> bool:
        """Whether a value is Y as X wants it."""
        try:
            return self._piece(name) == _Piece(self._wanted)
        except (LookupError, TypeError, ValueError):  # also what isn't known
            return False

    def _piece(self, name: Any, depth: int = 0) -> _Piece:
        """Return what a value is of Y.

        Raises
        ------
        LookupError, TypeError, ValueError
            If it is something else, or that isn't known.
        """
        if name not in self._pieces:
            self._pieces[name] = None  # until it is known
            source = self._scope.find(name)
            if source is None or source.scope is not self._scope or source.node is None:
                raise ValueError("it is not made of Y")
            if depth > LONGEST_WAY or len(self._pieces) > LONGEST_WAY**2:
                raise ValueError("too long a way")
            self._pieces[name] = self._made(source.node, name, depth + 1)
        piece = self._pieces[name]
        if piece is None:
            raise ValueError("it is not known")
        return piece

    def _made(self, node: Proto, name: Any, depth: int) -> _Piece:
        operator = text(node.op_type)
        if operator not in _PASSING or text(node.domain) not in ("", "ai.onnx"):
            raise ValueError("an operator of its own")
        attributes = {n: value_of(a) for n, a in self._scope.attributes_of(node).items()}
        if operator == "Concat":
            if len(node.input) > MOST_AXES:
                raise ValueError("more than directions")
            pieces = [self._piece(each, depth) for each in node.input]
            return self._joined(pieces, attributes["axis"])
        axes, direction = self._piece(node.input[0], depth)
        if operator in ("Gather", "Slice", "Split"):
            return self._cut(node, name, attributes, axes, direction)
        if name != node.output[0]:
            raise ValueError("another output")
        return _Piece(self._through(node, axes, attributes), direction)

    def _joined(self, pieces: list[_Piece], axis: int) -> _Piece:
        """Return what a Concat makes: of one piece the same, of both directions all of Y."""
        axes, direction = pieces[0]
        if len(pieces) == 1:
            return pieces[0]
        if direction is None or pieces != [_Piece(axes, number) for number in (0, 1)]:
            raise ValueError("not both directions in their order")
        axis = range(len(axes))[axis]
        return _Piece([*axes[:axis], ("D", *axes[axis]), *axes[axis + 1 :]])

    def _cut(
        self, node: Proto, name: Any, attributes: dict[str, Any], axes: list[Axis], direction: Any
    ) -> _Piece:
        """Return what a Gather, Slice or Split makes: a direction, or all that there is."""
        operator = text(node.op_type)
        if operator == "Slice":
            for axis, start, end in self._bounds(node, attributes, axes):
                if start == 0 and (end >= _END or end == self._size_or_none(axes[axis])):
                    continue
                if axes[axis] != ("D",) or end - start != 1:
                    raise ValueError("a part of another axis, or more than a direction")
                axes, direction = [*axes[:axis], (), *axes[axis + 1 :]], start
            return _Piece(axes, direction)
        axis = range(len(axes))[attributes.get("axis", 0)]
        size = self._size(axes[axis]) if axes[axis] else 1
        if operator == "Gather":
            indices = self._constants.value(self._scope, node.input[1])
            if indices.dtype.kind not in "iu" or indices.size != 1 or indices.ndim > 1:
                raise ValueError("more than a direction")
            number = range(int(size))[int(indices.ravel()[0])]
            kept: list[Axis] = [()] * indices.ndim
        else:
            sizes = self._split_sizes(node, attributes, int(size))
            if sizes not in ([1, 1], [1]):
                raise ValueError("no split into directions")
            number, kept = list(node.output).index(name), [()]
        if axes[axis] not in ((), ("D",)):
            raise ValueError("a part of another axis")
        if axes[axis]:
            direction = number
        return _Piece([*axes[:axis], *kept, *axes[axis + 1 :]], direction)

    def _split_sizes(self, node: Proto, attributes: dict[str, Any], size: int) -> list[int]:
        if len(node.input) > 1 and node.input[1]:
            return self._integers(node.input[1])
        count = len(node.output)
        return attributes.get("split") or [size // count] * count

    def _bounds(
        self, node: Proto, attributes: dict[str, Any], axes: list[Axis]
    ) -> Iterator[tuple[int, int, int]]:
        """Yield axis, first and end of what a Slice takes; an end of _END or more is the last."""
        given = [list(attributes.get(key) or []) for key in ("starts", "ends", "axes", "steps")]
        for place, each in enumerate(node.input[1:5]):
            given[place] = self._integers(each) if each else []
        starts, ends, along, steps = given
        if any(step != 1 for step in steps):
            raise ValueError("not all steps, or not in their order")
        for start, end, axis in zip(starts, ends, along or range(len(starts)), strict=True):
            axis = range(len(axes))[axis]
            size = self._size_or_none(axes[axis])
            if size is not None:
                start, end, _ = slice(start, end).indices(size)
            yield axis, start, end

    def _size_or_none(self, axis: Axis) -> int | None:
        size = self._size(axis) if axis else 1
        return size if isinstance(size, int) else None

    def _through(self, node: Proto, axes: list[Axis], attributes: dict[str, Any]) -> list[Axis]:
        """Return the axes after a node that hands on all that it gets."""
        operator = text(node.op_type)
        if operator == "Transpose":
            order = attributes.get("perm") or range(len(axes))[::-1]
            if sorted(order) != list(range(len(axes))):
                raise ValueError("no permutation")
            return [axes[axis] for axis in order]
        if operator == "Reshape":
            return self._reshaped(axes, self._shape(node.input[1]), attributes.get("allowzero"))
        if operator in ("Squeeze", "Unsqueeze"):
            return self._with_fewer_or_more(node, axes, attributes.get("axes"))
        if operator == "Cast" and DTYPES.get(attributes["to"]) != self._type:
            raise ValueError("another type")
        if operator == "Dropout" and len(node.input) > 2 and self._is_true(node.input[2]):
            raise ValueError("dropout as in training")
        return axes

    def _is_true(self, name: Any) -> bool:
        return bool(name) and bool(self._constants.value(self._scope, name).any())

    def _with_fewer_or_more(
        self, node: Proto, axes: list[Axis], places: list[int] | None
    ) -> list[Axis]:
        if len(node.input) > 1:
            places = [int(place) for place in self._integers(node.input[1])]
        if not places:
            raise ValueError("which axes depends on the data")
        if text(node.op_type) == "Unsqueeze":
            rest = iter(axes)
            size = len(axes) + len(places)
            new = {place % size for place in places}
            return [() if place in new else next(rest) for place in range(size)]
        gone = {range(len(axes))[place] for place in places}
        if any(axes[place] for place in gone):
            raise ValueError("an axis of another size than 1")
        return [axis for place, axis in enumerate(axes) if place not in gone]

    def _size(self, axis: Axis) -> Size:
        sizes = [self._sizes[letter] for letter in axis]
        if len(sizes) == 1:
            return sizes[0]
        return math.prod(size for size in map(int, sizes))  # ValueError for an unknown one

    def _reshaped(self, axes: list[Axis], shape: list[Size], allowzero: Any) -> list[Axis]:
        """Return the axes after a Reshape, whose order of numbers is the same."""
        if not allowzero:
            shape = [self._size(axes[n]) if size == 0 else size for n, size in enumerate(shape)]
        if shape.count(-1) > 1:
            raise ValueError("two sizes to find")
        letters = [letter for axis in axes for letter in axis]
        free = shape.index(-1) if -1 in shape else len(shape)
        before = [self._taken(letters, size, 0) for size in shape[:free]]
        after = [self._taken(letters, size, -1) for size in shape[:free:-1]]
        if free == len(shape):
            if letters:
                raise ValueError("too few numbers")
            return before
        return [*before, tuple(letters), *after[::-1]]

    def _taken(self, letters: list[str], size: Size, end: int) -> Axis:
        """Take from one end of the letters those that make an axis of that size."""
        taken: list[str] = []
        while (self._size(tuple(taken)) if taken else 1) != size:
            taken.append(letters.pop(end))  # IndexError if there are none left
        return tuple(taken if end == 0 else taken[::-1])

    def _integers(self, name: Any) -> list[int]:
        array = self._constants.value(self._scope, name)
        if array.dtype.kind not in "iu" or array.size > MOST_AXES:
            raise ValueError("no axes")
        return [int(number) for number in array.ravel()]

    def _shape(self, name: Any, depth: int = 0) -> list[Size]:
        """Return the sizes that a value holds: constants, or made of the shape of Y."""
        if name not in self._shapes:
            self._shapes[name] = None  # until it is known
            self._shapes[name] = self._computed_shape(name, depth)
        shape = self._shapes[name]
        if shape is None or len(shape) > MOST_AXES:
            raise ValueError("a shape that is not known")
        return shape

    def _computed_shape(self, name: Any, depth: int) -> list[Size]:
        try:
            return list(self._integers(name))
        except NotConstantError:
            source = self._scope.find(name)
        if source is None or source.node is None or depth > LONGEST_WAY:
            raise ValueError("a shape that is not known")
        node = source.node
        attributes = {n: value_of(a) for n, a in self._scope.attributes_of(node).items()}
        operator = text(node.op_type)
        if operator == "Shape":
            sizes = [self._size(axis) for axis in self._piece(node.input[0]).axes]
            return sizes[attributes.get("start", 0) : attributes.get("end", len(sizes))]
        parts = [self._shape(each, depth + 1) for each in node.input if each]
        if operator == "Concat" and len(parts) <= MOST_AXES:
            return [size for part in parts for size in part]
        if operator == "Slice" and parts[3:] in ([], [[0]]):
            return parts[0][slice(int(parts[1][0]), int(parts[2][0]))]
        if operator == "Gather":
            return [parts[0][int(index)] for index in parts[1]]
        if operator == "Mul":
            return [math.prod(map(int, (*parts[0], *parts[1])))]
        if operator in ("Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze"):
            return parts[0]
        raise ValueError("a shape that is computed")


def join(parts: list[Found], has_known_state: bool) -> Found:
    """Return the stack of layers that feed each other.

    Where the state of a layer is not known, the stack has none.
    """
    state = _joined_state(parts)
    if state is None or has_known_state:
        return replace(stacked(parts), state=state)
    note = "the initial state that the model fixes for some of the layers is left out"
    return replace(stacked(parts, [note]), state=None)


def fits(below: Found, above: Found) -> bool:
    """Whether two layers can be in one stack, the first one below."""
    same = {**above.options, "input_size": below.options["input_size"]} == below.options
    return (
        same
        and above.option("input_size") == below.width
        and above.bidirectional == below.bidirectional
        and above.kind == below.kind
        and above.stored_dtype == below.stored_dtype
    )


def _joined_state(parts: list[Found]) -> tuple[Any, Any] | None:
    """Return the layers' fixed states (L*D, H), 0 for a layer that has none."""
    if all(part.state is None for part in parts):
        return None
    zeros = np.zeros((parts[0].num_directions, parts[0].option("hidden_size")), np.float32)
    states = [part.state or (zeros, zeros) for part in parts]
    return np.concatenate([h for h, _ in states]), np.concatenate([c for _, c in states])
