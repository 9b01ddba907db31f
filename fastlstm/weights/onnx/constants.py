"""The values in an ONNX model that are known without running it.

Exporters leave weights as initialisers, as nodes ``Constant``, or as a handful of operators on
these (PyTorch: slices of its own order of gates, put together anew). Just these operators are
computed, and never into more than a small multiple of the bytes there are.
"""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastlstm.weights.onnx.folding import BFLOAT16, DTYPES, OPERATORS, Array
from fastlstm.weights.onnx.graph import Proto, Scope, Source, short, text, value_of
from fastlstm.weights.raw import widened

#: Nodes that hand on some of the values that they get, at other places.
_CUTS = ("Identity", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze")

#: What is made of constants may take this many times the bytes that hold them, and a bit.
LARGEST_RATIO, SLACK = 16, 2**20

#: Operators in a chain.
LONGEST_CHAIN = 50

#: The field of a TensorProto that holds the numbers of a type where raw_data doesn't.
_FIELDS = {1: "float_data", 7: "int64_data", 11: "double_data"}

#: TensorProto.DataLocation.EXTERNAL
_EXTERNAL = 1


class NotConstantError(ValueError):
    """A value isn't known without running the model, or can't be read; the text says why."""


class Constants:
    """Reads and computes the constants of one file, each once.

    Parameters
    ----------
    path : Path
        Of the model; external data lies in its folder.
    size : int
        Bytes of the file.
    """

    def __init__(self, path: Path, size: int) -> None:
        self._path = path
        self._left = LARGEST_RATIO * size + SLACK
        self._known: dict[tuple[int, Any], Array | NotConstantError] = {}
        self._kept: list[Scope] = []  # whose ids are in _known
        self._externals: set[str] = set()

    def spend(self, size: int) -> None:
        """Account for bytes about to be made.

        Raises
        ------
        NotConstantError
            If they are more than the file justifies.
        """
        if size > self._left:
            raise NotConstantError(
                f"would take more than {LARGEST_RATIO} times the size of the file"
            )
        self._left -= size

    def value(self, scope: Scope, name: Any, depth: int = 0) -> Array:
        """Return the array that a name stands for; bfloat16 as float32, which is exact.

        Raises
        ------
        NotConstantError
            If it depends on the model's inputs, is made by other operators than those that
            exporters use, or is damaged.
        """
        source = scope.find(name)
        if source is None:
            raise NotConstantError(f"nothing makes {short(name)!r}")
        key = (id(source.scope), source.name)
        if key not in self._known:
            self._kept.append(source.scope)
            try:
                self._known[key] = self._read(source, depth)
            except NotConstantError as error:
                self._known[key] = error
        known = self._known[key]
        if isinstance(known, NotConstantError):
            raise known
        return known

    def repeated(self, scope: Scope, name: Any) -> Array | None:
        """Return what a value repeats as often as the input needs it, as for a batch of any size.

        That is a constant in a shape that is computed, or a cut of one that is the same throughout:
        None where it isn't one.
        """
        whole = True
        for _ in range(LONGEST_CHAIN):
            source = scope.find(name)
            if source is None or source.node is None or not source.node.input:
                return None
            scope, node, operator = source.scope, source.node, text(source.node.op_type)
            name = node.input[0]
            if operator in _CUTS:
                whole = False
                continue
            try:
                if operator == "Expand":
                    value = self.value(scope, name)
                elif operator == "ConstantOfShape":
                    attribute = scope.attributes_of(node).get("value")
                    zero = np.zeros(1, np.float32)
                    value = zero if attribute is None else self.tensor(attribute.t)
                else:
                    return None
            except NotConstantError:
                return None
            return value if whole or value.size == 1 else None
        return None

    def _read(self, source: Source, depth: int) -> Array:
        scope, name, node, tensor = source
        try:
            if tensor is not None:
                return self.tensor(tensor)
            if node is None:
                raise NotConstantError(f"{short(name)!r} is an input of the graph")
            return self._computed(scope, node, depth)
        except NotConstantError:
            raise
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            # What comes of inputs left out, and of axes, shapes and indices that don't fit.
            raise NotConstantError(f"{short(name)!r} is damaged: {short(error)}") from error

    def _computed(self, scope: Scope, node: Proto, depth: int) -> Array:
        operator = text(node.op_type)
        if operator == "Shape":
            return _shape(scope, node)
        if operator not in OPERATORS or text(node.domain) not in ("", "ai.onnx"):
            raise NotConstantError(f"it is computed by a node {short(operator)!r}")
        if depth > LONGEST_CHAIN:
            raise NotConstantError(f"more than {LONGEST_CHAIN} operators make it")
        attributes = {name: value_of(a) for name, a in scope.attributes_of(node).items()}
        if hasattr(attributes.get("value"), "data_type"):
            attributes["value"] = self.tensor(attributes["value"])
        inputs = [self.value(scope, name, depth + 1) if name else None for name in node.input]
        array: Array = OPERATORS[operator](self.spend, attributes, *inputs)
        return array

    def tensor(self, tensor: Proto) -> Array:
        """Return a TensorProto as an array.

        Raises
        ------
        NotConstantError
            If its type is none of weights, or it holds more or less than its shape says.
        """
        if tensor.data_type not in DTYPES:
            raise NotConstantError(f"{short(tensor.name)!r} has type {tensor.data_type}")
        dtype, shape = DTYPES[tensor.data_type].newbyteorder("<"), tuple(tensor.dims)
        if any(size < 0 for size in shape):
            raise NotConstantError(f"{short(tensor.name)!r} has shape {shape[:8]}")
        count = math.prod(shape)
        if tensor.data_location == _EXTERNAL:
            data = self._external(tensor, count * dtype.itemsize)
        else:
            data = tensor.raw_data
        if tensor.data_location == _EXTERNAL or tensor.HasField("raw_data"):
            self.spend(len(data))  # functions hold theirs once for all calls
            if len(data) != count * dtype.itemsize:
                raise NotConstantError(
                    f"{short(tensor.name)!r} has shape {shape[:8]} and {len(data)} bytes"
                )
            flat: Array = np.frombuffer(data, dtype)
        else:
            numbers = getattr(tensor, _FIELDS.get(tensor.data_type, "int32_data"))
            if len(numbers) != count:
                raise NotConstantError(
                    f"{short(tensor.name)!r} has shape {shape[:8]} and {len(numbers)} numbers"
                )
            self.spend(count * dtype.itemsize)
            flat = _typed(numbers, dtype)
        if tensor.data_type == BFLOAT16:
            self.spend(4 * count)
            flat = widened(flat)
        return flat.astype(flat.dtype.newbyteorder("="), copy=False).reshape(shape)

    def _external(self, tensor: Proto, size: int) -> bytes:
        """Read a tensor's bytes out of a file beside the model: nowhere else, and no other file."""
        entries = {text(entry.key): text(entry.value) for entry in tensor.external_data}
        name = entries.get("location", "")
        why = f"{short(tensor.name)!r} is in the file {short(name)!r}"
        if not name or name in (".", "..") or any(each in name for each in "/\\:\0"):
            raise NotConstantError(f"{why}, which is no plain name in the model's folder")
        numbers = []
        for key, default in (("offset", 0), ("length", size)):
            number = entries.get(key, str(default))
            if not (number.isascii() and number.isdigit() and len(number) < 20):
                raise NotConstantError(f"{why} with {key} {short(number)!r}")
            numbers.append(int(number))
        offset, length = numbers
        file = self._path.parent / name
        try:
            # Never through a link, and no device or pipe: those may be anything, and not end.
            if not stat.S_ISREG(os.lstat(file).st_mode):
                raise NotConstantError(f"{why}, which is no regular file")
            with file.open("rb") as stream:
                there = os.fstat(stream.fileno()).st_size
                if length != size or offset + length > there:
                    raise NotConstantError(
                        f"{why}, {length} bytes from {offset}; {size} are needed, it has {there}"
                    )
                if name not in self._externals:
                    self._externals.add(name)
                    self._left += LARGEST_RATIO * there
                if size > self._left:
                    raise NotConstantError(f"{why}, too often")
                stream.seek(offset)
                return stream.read(size)
        except OSError as error:
            raise NotConstantError(f"{why}: {error.strerror}") from error


def _shape(scope: Scope, node: Proto) -> Array:
    """Return a shape that the graph tells; PyTorch's exporter cuts weights by that of a state."""
    source = scope.find(node.input[0])
    sizes = source.scope.graph.dimensions(source.name) if source is not None else []
    attributes = {name: value_of(a) for name, a in scope.attributes_of(node).items()}
    wanted = sizes[attributes.get("start", 0) : attributes.get("end", len(sizes))]
    if not wanted or None in wanted:
        raise NotConstantError(f"the shape of {short(node.input[0])!r} is not known")
    return np.array(wanted, np.int64)


def _typed(numbers: Sequence[Any], dtype: np.dtype[Any]) -> Array:
    """Return what lies in one of the typed fields; those of 16 bits lie in int32_data as bits."""
    if dtype.kind == "f" and dtype.itemsize == 2:
        return np.fromiter(numbers, np.int32, len(numbers)).astype(np.uint16).view(np.float16)
    if dtype.itemsize < 4:
        return np.fromiter(numbers, np.int32, len(numbers)).astype(dtype)
    return np.fromiter(numbers, dtype, len(numbers))
