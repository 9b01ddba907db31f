"""LSTM cells that an ONNX model spells out: products, Split, Sigmoid, Tanh, as PyTorch's LSTMCell.

    z = x @ W + h @ U + b                      Gemm or MatMul, and Add, in any order
    i, f, g, o = the four parts of z           Split or Slice, in the order that their use shows
    c' = sigmoid(f) * c + sigmoid(i) * tanh(g)
    h' = sigmoid(o) * tanh(c')

What differs from these equations in anything is no cell. Which cells make one LSTM, `chains.py`
tells.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from fastlstm._gates import ORDER
from fastlstm._spec import chosen
from fastlstm.weights.contents import Arrays, Found
from fastlstm.weights.onnx.constants import Constants, NotConstantError
from fastlstm.weights.onnx.folding import Array
from fastlstm.weights.onnx.graph import Proto, Scope, name_of, short, text, value_of
from fastlstm.weights.onnx.node import UnsupportedError, state_of

#: Terms of one sum, and nodes between a step's input and the sequence that it is cut from.
MOST_TERMS, LONGEST_CUT = 8, 6

_TAKEN = "what each of its steps reads is computed by the model, and is for calls to give"

Key = tuple[int, Any]


class _Product(NamedTuple):
    """A matrix product and its own bias: of `left` and (n, 4H), or where it is turned (4H, n)."""

    left: Any
    weight: Any
    turned: bool
    bias: Any


class Cell(NamedTuple):
    """A cell in a graph.

    Attributes
    ----------
    scope : Scope
    c_before, c_after, h_after : name
    starts : tuple of int
        Where the gates i, f, g, o begin in z.
    products : tuple of _Product
        Of x and of h, either first.
    biases : tuple of name
    node : NodeProto
        Of the first product, which gives the name.
    """

    scope: Scope
    c_before: Any
    c_after: Any
    h_after: Any
    starts: tuple[int, ...]
    products: tuple[_Product, ...]
    biases: tuple[Any, ...]
    node: Proto

    @property
    def name(self) -> str:
        """Of the module, where the nodes' names begin with it, as in "/decoder/cell/Gemm"."""
        own = name_of(self.node)
        return own.rpartition("/")[0].strip("/") or own


class Finder:
    """Finds the cells of one graph."""

    def __init__(self, scope: Scope, constants: Constants) -> None:
        self._scope, self._constants = scope, constants
        self._digests: dict[Key, bytes] = {}
        self._readers: dict[Any, list[Proto]] = {}
        self._places: dict[int, dict[Any, int]] = {}
        for node in scope.graph.nodes:
            if text(node.op_type) in ("Mul", "Tanh"):
                for name in node.input:
                    self._readers.setdefault(name, []).append(node)

    def cells(self) -> Iterator[Cell]:
        """Yield the cells, in the order of the graph."""
        for node in self._scope.graph.nodes:
            if text(node.op_type) == "Add" and len(node.input) == 2:
                try:
                    cell = self._cell(node)
                except (LookupError, TypeError, ValueError):
                    cell = None  # what isn't there, or isn't known, makes no cell
                if cell is not None:
                    yield cell

    def _maker(self, name: Any, *operators: str) -> Proto | None:
        """Return the node of this graph that makes a value, if it is one of these operators."""
        index = self._scope.graph.makers.get(name)
        node = None if index is None else self._scope.graph.nodes[index]
        if node is None or text(node.op_type) not in operators:
            return None
        return node if text(node.domain) in ("", "ai.onnx") else None

    def _place(self, name: Any) -> int:
        """Return which output of its node a value is; a Split may have one for each step."""
        index = self._scope.graph.makers[name]
        if index not in self._places:
            outputs = self._scope.graph.nodes[index].output
            self._places[index] = {each: place for place, each in enumerate(outputs)}
        return self._places[index][name]

    def _inside(self, name: Any, activation: str) -> Any:
        """Return what an activation is of, or None."""
        node = self._maker(name, activation)
        return None if node is None else node.input[0]

    def _cell(self, node: Proto) -> Cell | None:
        c_after = node.output[0]
        factors = [self._maker(name, "Mul") for name in node.input]
        for keeps, adds in (factors, factors[::-1]):
            if keeps is None or adds is None:
                return None
            for one, other in (adds.input, adds.input[::-1]):
                i, g = self._inside(one, "Sigmoid"), self._inside(other, "Tanh")
                if i is None or g is None:
                    continue
                for gate, c_before in (keeps.input, keeps.input[::-1]):
                    f = self._inside(gate, "Sigmoid")
                    if f is None:
                        continue
                    for h_after, o in self._outputs(c_after):
                        if cell := self._with_gates((i, f, g, o), c_before, c_after, h_after):
                            return cell
        return None

    def _outputs(self, c_after: Any) -> Iterator[tuple[Any, Any]]:
        """Yield h' and the pre-activation of its gate."""
        for tanh in self._readers.get(c_after, [])[:MOST_TERMS]:
            if text(tanh.op_type) != "Tanh":
                continue
            for product in self._readers.get(tanh.output[0], [])[:MOST_TERMS]:
                if text(product.op_type) != "Mul":
                    continue
                for one, other in (product.input, product.input[::-1]):
                    o = self._inside(one, "Sigmoid")
                    if other == tanh.output[0] and o is not None:
                        yield product.output[0], o

    def _with_gates(
        self, gates: Sequence[Any], c_before: Any, c_after: Any, h_after: Any
    ) -> Cell | None:
        cuts = [self._cut(name) for name in gates]
        whole, _, H = cuts[0]
        starts = tuple(start for _, start, _ in cuts)
        if any((z, size) != (whole, H) for z, _, size in cuts):
            return None
        if sorted(starts) != [0, H, 2 * H, 3 * H]:
            return None
        products, biases, node = self._terms(whole)
        if len(products) != 2 or node is None:
            return None
        if any(self._width(product) != 4 * H for product in products):
            return None
        return Cell(
            self._scope, c_before, c_after, h_after, starts, tuple(products), tuple(biases), node
        )

    def _cut(self, name: Any) -> tuple[Any, int, int]:
        """Return of what a value is a part along the last axis of two, from where, how long."""
        node = self._maker(name, "Split", "Slice")
        if node is None:
            raise ValueError("no part")
        attributes = self._attributes(node)
        if text(node.op_type) == "Split":
            if attributes.get("axis", 0) not in (1, -1) or len(node.output) != 4:
                raise ValueError("a part of another axis, or not one of four")
            sizes = attributes.get("split")
            if len(node.input) > 1 and node.input[1]:
                sizes = self._integers(node.input[1])
            number = self._place(name)
            if sizes is None:
                products, _, _ = self._terms(node.input[0])
                sizes = [self._width(products[0]) // 4] * 4
            return node.input[0], sum(sizes[:number]), sizes[number]
        given = [list(attributes.get(key) or []) for key in ("starts", "ends", "axes", "steps")]
        for place, each in enumerate(node.input[1:5]):
            given[place] = self._integers(each) if each else []
        (start,), (end,), (axis,), steps = given
        if axis not in (1, -1) or steps not in ([], [1]):
            raise ValueError("a part of another axis")
        products, _, _ = self._terms(node.input[0])
        begin, stop, _ = slice(start, end).indices(self._width(products[0]))
        return node.input[0], begin, stop - begin

    def _terms(self, name: Any) -> tuple[list[_Product], list[Any], Proto | None]:
        """Return what a sum is made of: products, constants, and the node of the first product."""
        products: list[_Product] = []
        biases: list[Any] = []
        first = None
        pending = [name]
        for _ in range(2 * MOST_TERMS):
            if not pending:
                return products, biases, first
            each = pending.pop()
            node = self._maker(each, "Add", "Gemm", "MatMul", "Identity")
            if node is None:
                biases.append(each)
                continue
            operator = text(node.op_type)
            if operator in ("Add", "Identity"):
                pending += reversed(node.input)
                continue
            attributes = self._attributes(node)
            if operator == "Gemm":
                plain = [attributes.get(key, 1.0) for key in ("alpha", "beta")] == [1.0, 1.0]
                if not plain or attributes.get("transA"):
                    raise ValueError("a product with factors")
            turned, bias = bool(attributes.get("transB", 0)), (*node.input[2:3], "")[0]
            products.append(_Product(node.input[0], node.input[1], turned, bias))
            first = node if first is None else first
        raise ValueError("more terms than any cell has")

    def _attributes(self, node: Proto) -> dict[str, Any]:
        return {name: value_of(each) for name, each in self._scope.attributes_of(node).items()}

    def _integers(self, name: Any) -> list[int]:
        array = self._constants.value(self._scope, name)
        if array.dtype.kind not in "iu" or array.size > MOST_TERMS:
            raise ValueError("no places")
        return [int(number) for number in array.ravel()]

    def _weight(self, product: _Product) -> Array:
        """Return (4H, I) or (4H, H)."""
        array = self._constants.value(self._scope, product.weight)
        if array.ndim != 2 or array.dtype.kind != "f" or 0 in array.shape:
            raise UnsupportedError(f"{short(product.weight)!r} is no matrix of weights")
        return array if product.turned else array.T

    def _width(self, product: _Product) -> int:
        return int(self._weight(product).shape[0])

    def weights_of(self, cell: Cell) -> tuple[Any, ...]:
        """Return what tells its weights from others: exporters store those of each step anew."""
        of_products = [
            (each.turned, self._digest(each.weight), each.bias and self._digest(each.bias))
            for each in cell.products
        ]
        return (cell.starts, *of_products, *(self._digest(name) for name in cell.biases))

    def _digest(self, name: Any) -> bytes:
        source = self._scope.find(name)
        key = (id(source.scope), source.name) if source is not None else (0, name)
        if key not in self._digests:
            try:
                array = self._constants.value(self._scope, name)
                self._constants.spend(array.nbytes)
                array = np.ascontiguousarray(array)
                found = hashlib.sha256(repr((array.dtype, array.shape)).encode())
                found.update(array.data.cast("B") if array.size else b"")
                self._digests[key] = found.digest()
            except NotConstantError:
                self._digests[key] = repr(key).encode()
        return self._digests[key]

    def _recurrent(self, chain: Sequence[Cell]) -> int:
        """Return which of a cell's two products is that of h: by the steps, or by the shapes."""
        for before, cell in itertools.pairwise(chain):
            places = [p.left == before.h_after for p in cell.products]
            if sum(places) == 1:
                return places.index(True)
        cell = chain[0]
        rows = [self._weight(product).shape for product in cell.products]
        fitting = [place for place, (width, size) in enumerate(rows) if width == 4 * size]
        if len(fitting) == 1:
            return fitting[0]
        named = [
            place
            for place, product in enumerate(cell.products)
            if any(part in text(product.weight) for part in ("weight_hh", "recurrent"))
        ]
        if len(named) == 1:
            return named[0]
        raise UnsupportedError(
            "two products of equal shapes: the graph does not show which of them is that of h"
        )

    def read_by(self, chain: Sequence[Cell]) -> tuple[Any, ...]:
        """Return what each step of an LSTM reads."""
        of_x = 1 - self._recurrent(chain)
        return tuple(cell.products[of_x].left for cell in chain)

    def found(self, name: str, chain: Sequence[Cell]) -> Found:
        """Return the LSTM that takes the steps of a chain.

        Raises
        ------
        NotConstantError, UnsupportedError
            If its weights are not known, or what they are.
        """
        cell, of_h = chain[0], self._recurrent(chain)
        W, U = self._weight(cell.products[1 - of_h]), self._weight(cell.products[of_h])
        H, I = U.shape[1], W.shape[1]
        if U.shape[0] != 4 * H:
            raise UnsupportedError(f"products of {W.shape} and {U.shape}, which are no LSTM's")
        names = (cell.products[1 - of_h].bias, *cell.biases), (cell.products[of_h].bias,)
        of_x, of_state = (self._bias(each, W) for each in names)
        if W.dtype != U.dtype:
            raise UnsupportedError(f"weights of {W.dtype} and {U.dtype}")
        self._constants.spend(2 * (W.nbytes + U.nbytes))
        rows = np.concatenate([np.arange(start, start + H) for start in cell.starts])
        arrays: Arrays = {"weight_ih_l0": W[rows], "weight_hh_l0": U[rows]}
        has_bias = of_x is not None or of_state is not None
        if has_bias:
            zeros = np.zeros(4 * H, W.dtype)
            arrays["bias_ih_l0"] = (zeros if of_x is None else of_x)[rows]
            arrays["bias_hh_l0"] = (zeros if of_state is None else of_state)[rows]
        options: dict[str, Any] = {"bias": has_bias}
        notes = []
        if len(chain) > 1:
            steps = [self._step(each.products[1 - of_h].left) for each in chain]
            taken = _direction(steps)
            if taken is None:
                notes.append(_TAKEN)
            else:
                options.update(taken)
        state, of_start = self._initial(cell, of_h, H)
        placed = {start: gate for gate, start in zip(ORDER, cell.starts, strict=True)}
        return Found(
            name,
            "ONNX LSTMCell",
            {"input_size": I, "hidden_size": H, "num_layers": 1, **chosen(options)},
            False,
            arrays,
            state=state,
            order=" ".join(placed[start] for start in sorted(placed)),
            notes=(*notes, *of_start),
        )

    def _bias(self, names: Sequence[Any], W: Array) -> Array | None:
        """Return what is added to a product (4H,), None if that is nothing."""
        arrays = [self._constants.value(self._scope, name) for name in names if name]
        for array in arrays:
            if array.size != len(W) or array.shape[-1:] != (len(W),) or array.dtype != W.dtype:
                raise UnsupportedError(
                    "what is added to its products is no bias, or of another type"
                )
        return np.sum([array.ravel() for array in arrays], axis=0) if arrays else None

    def _initial(self, cell: Cell, of_h: int, H: int) -> tuple[Any, list[str]]:
        """Return the state that the graph fixes, and notes."""
        arrays = {}
        names = {"initial_h": cell.products[of_h].left, "initial_c": cell.c_before}
        for key, name in names.items():
            try:
                value: Array | None = self._constants.value(self._scope, name)
            except NotConstantError:
                value = self._constants.repeated(self._scope, name)
            if value is not None:
                self._constants.spend(value.nbytes)
                arrays[key] = value if value.size == 1 else value[np.newaxis]
        if len(arrays) < len(names):  # given to the model, or to the loop
            fixed = [key for key, value in arrays.items() if value.any()]
            return None, [f"{key}, fixed by the model, is left out" for key in fixed]
        return state_of(arrays, 1, H, False)

    def _step(self, name: Any) -> tuple[Any, int, int] | None:
        """Return the sequence that a step's input is cut from, along which axis, and which step."""
        for _ in range(LONGEST_CUT):
            node = self._maker(
                name, "Gather", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Cast"
            )
            if node is None:
                return None
            operator, attributes = text(node.op_type), self._attributes(node)
            if operator in ("Gather", "Slice", "Split"):
                try:
                    return self._step_of(node, name, operator, attributes)
                except (LookupError, TypeError, ValueError):
                    return None
            name = node.input[0]
        return None

    def _step_of(
        self, node: Proto, name: Any, operator: str, attributes: dict[str, Any]
    ) -> tuple[Any, int, int]:
        axis = int(attributes.get("axis", 0))
        if operator == "Split":
            return node.input[0], axis, self._place(name)
        if operator == "Gather":
            (index,) = self._integers(node.input[1])
            return node.input[0], axis, index
        given = [list(attributes.get(key) or []) for key in ("starts", "ends", "axes")]
        for place, each in enumerate(node.input[1:4]):
            given[place] = self._integers(each) if each else []
        (start,), (end,), (axis,) = given
        if end - start != 1 and (start, end < 2**31 - 1) != (-1, False):
            raise ValueError("more than a step")
        return node.input[0], axis, start


def _direction(steps: Sequence[tuple[Any, int, int] | None]) -> dict[str, Any] | None:
    """Return the options of a layer that takes these steps of a sequence, None of no sequence."""
    told = [step for step in steps if step is not None]
    if len(told) < len(steps) or len({step[:2] for step in told}) != 1 or told[0][1] not in (0, 1):
        return None
    numbers = [number for _, _, number in told]
    first, last = numbers[0], numbers[-1]
    if numbers == [first + n for n in range(len(numbers))] and first in (0, -len(numbers)):
        return {"batch_first": told[0][1] == 1}
    if numbers == [first - n for n in range(len(numbers))] and (last == 0 or first == -1):
        return {"batch_first": told[0][1] == 1, "reverse": True}
    return None
