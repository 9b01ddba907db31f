"""The operators that exporters put between the constants of an ONNX model and an LSTM.

Each takes what accounts for the memory that it is about to use, its attributes, and its inputs.
What NumPy raises for axes, shapes and indices that don't fit is left to the caller.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
Spend: TypeAlias = Callable[[int], None]
Attributes: TypeAlias = dict[str, Any]

#: What the types of TensorProto.DataType are here; a bfloat16 is its 16 bits.
BFLOAT16 = 16
DTYPES: dict[Any, np.dtype[Any]] = {
    1: np.dtype(np.float32),
    2: np.dtype(np.uint8),
    3: np.dtype(np.int8),
    6: np.dtype(np.int32),
    7: np.dtype(np.int64),
    10: np.dtype(np.float16),
    11: np.dtype(np.float64),
    BFLOAT16: np.dtype(np.uint16),
}


def _numbers(array: Array | None) -> list[int]:
    """Return a small list of integers, as of axes."""
    if array is None:
        return []
    if array.dtype.kind not in "iu" or array.size > 64:
        raise ValueError(f"got {array.dtype} {array.shape}, expected a few integers")
    return [int(number) for number in array.ravel()]


def _given(attributes: Attributes, name: str, array: Array | None) -> list[int] | None:
    """Return numbers that were attributes of early versions and are inputs now."""
    if array is not None:
        return _numbers(array)
    given = attributes.get(name)
    return None if given is None else [int(number) for number in given]


def _constant(spend: Spend, attributes: Attributes) -> Array:
    for name, value in attributes.items():
        if name == "value" and isinstance(value, np.ndarray):
            return value
        if name in ("value_float", "value_floats"):
            return np.array(value, np.float32)
        if name in ("value_int", "value_ints"):
            return np.array(value, np.int64)
    raise ValueError("no number")


def _identity(spend: Spend, attributes: Attributes, data: Array) -> Array:
    return data


def _cast(spend: Spend, attributes: Attributes, data: Array) -> Array:
    number = attributes["to"]
    if number not in DTYPES or number == BFLOAT16:
        raise ValueError(f"cast to type {number}")
    dtype = DTYPES[number]
    if data.dtype == dtype:
        return data
    spend(data.size * dtype.itemsize)
    with np.errstate(all="ignore"):
        return data.astype(dtype)


def _unsqueeze(
    spend: Spend, attributes: Attributes, data: Array, axes: Array | None = None
) -> Array:
    return np.expand_dims(data, tuple(_given(attributes, "axes", axes) or ()))


def _squeeze(spend: Spend, attributes: Attributes, data: Array, axes: Array | None = None) -> Array:
    given = _given(attributes, "axes", axes)
    return np.squeeze(data, None if given is None else tuple(given))


def _concat(spend: Spend, attributes: Attributes, *arrays: Array) -> Array:
    if len({array.dtype for array in arrays}) != 1:
        raise ValueError("arrays of different types put together")
    spend(sum(array.nbytes for array in arrays))
    return np.concatenate(arrays, int(attributes["axis"]))


def _mul(spend: Spend, attributes: Attributes, one: Array, other: Array) -> Array:
    """Multiply integers, as where the sizes of slices are computed."""
    return np.multiply(_numbers(one), _numbers(other), dtype=np.int64)


def _slice(
    spend: Spend,
    attributes: Attributes,
    data: Array,
    starts: Array | None = None,
    ends: Array | None = None,
    axes: Array | None = None,
    steps: Array | None = None,
) -> Array:
    index = [slice(None)] * data.ndim
    for axis, part in slices(attributes, starts, ends, axes, steps):
        index[axis] = part
    return data[tuple(index)]


def slices(
    attributes: Attributes,
    starts: Array | None = None,
    ends: Array | None = None,
    axes: Array | None = None,
    steps: Array | None = None,
) -> list[tuple[int, slice]]:
    """Return what a Slice takes of each axis that it cuts."""
    first, last = _given(attributes, "starts", starts), _given(attributes, "ends", ends)
    if first is None or last is None:
        raise ValueError("a slice without bounds")
    along = _given(attributes, "axes", axes) or list(range(len(first)))
    strides = _given(attributes, "steps", steps) or [1] * len(first)
    parts = map(slice, first, last, strides)
    return list(zip(along, parts, strict=True))


def _transpose(spend: Spend, attributes: Attributes, data: Array) -> Array:
    return data.transpose(attributes.get("perm"))


def _reshape(
    spend: Spend, attributes: Attributes, data: Array, shape: Array | None = None
) -> Array:
    sizes = _given(attributes, "shape", shape)
    if sizes is None:
        raise ValueError("no shape")
    if not attributes.get("allowzero"):
        sizes = [data.shape[axis] if size == 0 else size for axis, size in enumerate(sizes)]
    spend(0 if data.flags.c_contiguous else data.nbytes)
    return data.reshape(sizes)


def _gather(spend: Spend, attributes: Attributes, data: Array, indices: Array) -> Array:
    axis = int(attributes.get("axis", 0))
    rows = data.shape[axis]
    spend(indices.size * (data.nbytes // rows if rows else 0))
    return np.take(data, indices, axis)


def _filled(spend: Spend, sizes: list[int], value: Array) -> Array:
    if any(size < 0 for size in sizes):
        raise ValueError(f"shape {sizes}")
    spend(math.prod(sizes) * value.itemsize)
    return np.full(sizes, value.ravel()[0])


def _constant_of_shape(spend: Spend, attributes: Attributes, shape: Array) -> Array:
    return _filled(spend, _numbers(shape), attributes.get("value", np.zeros(1, np.float32)))


def _expand(spend: Spend, attributes: Attributes, data: Array, shape: Array) -> Array:
    return np.broadcast_to(data, np.broadcast_shapes(data.shape, tuple(_numbers(shape))))


def _dequantize(
    spend: Spend, attributes: Attributes, data: Array, scale: Array, zero: Array | None = None
) -> Array:
    if attributes.get("block_size"):
        raise ValueError("scales of blocks")
    spend(data.size * 8)
    if scale.size != 1:
        along = [1] * data.ndim
        along[int(attributes.get("axis", 1))] = scale.size
        scale = scale.reshape(along)
        zero = None if zero is None else zero.reshape(along)
    return dequantized(data, scale, zero)


def dequantized(data: Array, scale: Array, zero: Array | None) -> Array:
    """Return (data - zero) * scale in float32, as ONNX has it; the shapes must fit `data`'s."""
    with np.errstate(all="ignore"):
        return steps_of(data, scale, zero).astype(np.float32) * scale


def steps_of(data: Array, scale: Array, zero: Array | None) -> Array:
    """Return data - zero, int32, of what has such scales."""
    if data.dtype.kind not in "iu" or data.dtype.itemsize > 4 or scale.dtype != np.float32:
        raise ValueError(f"{data.dtype} with {scale.dtype} scales")
    steps = data.astype(np.int32)
    if zero is not None:
        steps -= zero.astype(np.int32)
    return steps


#: By name.
OPERATORS: dict[str, Callable[..., Array]] = {
    "Cast": _cast,
    "Concat": _concat,
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "DequantizeLinear": _dequantize,
    "Expand": _expand,
    "Gather": _gather,
    "Identity": _identity,
    "Mul": _mul,
    "Reshape": _reshape,
    "Slice": _slice,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
