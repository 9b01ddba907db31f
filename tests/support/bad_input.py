"""Array-likes of every kind, for hypothesis: good ones in every layout and dtype, and bad ones.

`FASTLSTM_BAD_INPUT=20` makes the tests that use them try 20 times as many inputs, others each time.
"""

from __future__ import annotations

import atexit
import datetime
import os
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

FACTOR = int(os.environ.get("FASTLSTM_BAD_INPUT", "1"))

#: Inputs tried, by test; told at the end where there are more than usual.
tried: Counter[str] = Counter()

if FACTOR > 1:
    atexit.register(
        lambda: print(f"\n{tried.total()} inputs tried:", dict(tried)) if tried else None
    )


def trials(count: int) -> settings:
    """So many examples, times `FASTLSTM_BAD_INPUT`; by default the same ones every time."""
    return settings(
        max_examples=count * FACTOR,
        derandomize=FACTOR == 1,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


Draw = Callable[[st.SearchStrategy[Any]], Any]


def pick(draw: Draw, choices: Sequence[Any]) -> Any:
    """One of some objects, which need not have a hash."""
    return choices[draw(st.integers(0, len(choices) - 1))]


#: What is converted: bool, integers and floats of every width.
REAL_DTYPES = ["?", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", "g"]


class Subclass(np.ndarray):
    """An array of a class of the user's own."""


class HasArray:
    """As a tensor on the CPU, or a data frame."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return self.array


class HasDLPack:
    """A tensor that speaks no NumPy."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __dlpack__(self, **options: Any) -> Any:
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self.array.__dlpack_device__()


def reversed_axes(array: np.ndarray, seed: int) -> np.ndarray:
    """The same values, with negative strides along some axes."""
    back = [slice(None, None, -1) if seed >> k & 1 else slice(None) for k in range(array.ndim)]
    copy = np.empty_like(array)
    view = copy[tuple(back)]
    view[...] = array
    return view


def spaced(array: np.ndarray, seed: int) -> np.ndarray:
    """The same values, every second or third of a larger array along some axes."""
    steps = [1 + (seed >> 2 * k & 3) % 3 for k in range(array.ndim)]
    large = np.zeros(
        [n * step + 1 for n, step in zip(array.shape, steps, strict=True)], array.dtype
    )
    view = large[tuple(slice(0, n * s, s) for n, s in zip(array.shape, steps, strict=True))]
    view[...] = array
    return view


def unaligned(array: np.ndarray, seed: int = 1) -> np.ndarray:
    """The same values at an odd address."""
    buffer = np.zeros(array.nbytes + array.itemsize, np.uint8)
    view = buffer[1 : array.nbytes + 1].view(array.dtype).reshape(array.shape)
    view[...] = array
    return view


def in_records(array: np.ndarray, seed: int) -> np.ndarray:
    """The same values as a field of packed records: strides that are no multiple of the item."""
    records = np.zeros(array.shape, [("before", np.uint8), ("x", array.dtype)])
    records["x"] = array
    return records["x"]


def repeated(array: np.ndarray, seed: int) -> np.ndarray:
    """The first of the values along some axes everywhere: strides of zero."""
    if array.size == 0:
        return array
    first = [slice(0, 1) if seed >> k & 1 else slice(None) for k in range(array.ndim)]
    return np.broadcast_to(array[tuple(first)], array.shape)


def overlapping(array: np.ndarray, seed: int) -> np.ndarray:
    """Windows into one row of numbers: elements of different index are the same memory."""
    if array.size == 0:
        return array
    strides = [(seed >> 3 * k) % 4 * array.itemsize for k in range(array.ndim)]
    strides[-1] = array.itemsize
    return np.lib.stride_tricks.as_strided(array, array.shape, _within(array, strides))


def _within(array: np.ndarray, strides: list[int]) -> list[int]:
    """Strides that stay inside the array's memory; those that would not become 0."""
    left = array.nbytes - array.itemsize
    for k in reversed(range(array.ndim)):
        reach = (array.shape[k] - 1) * strides[k]
        strides[k] = strides[k] if reach <= left else 0
        left -= (array.shape[k] - 1) * strides[k]
    return strides


def read_only(array: np.ndarray, seed: int) -> np.ndarray:
    view = array.view()
    view.flags.writeable = False
    return view


def mapped(array: np.ndarray, seed: int) -> np.ndarray:
    if array.size == 0:
        return array
    with tempfile.TemporaryDirectory() as folder:
        mapping = np.memmap(Path(folder) / "x", array.dtype, "w+", shape=array.shape)
        mapping[...] = array
        return mapping


def matrix(array: np.ndarray, seed: int = 0) -> np.ndarray:
    if array.ndim != 2:
        return array
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PendingDeprecationWarning)
        return np.asmatrix(array)


def listed(array: np.ndarray, seed: int) -> Any:
    """Nested lists, unless their shape would be lost or Python has no such numbers."""
    return array if array.size == 0 or array.dtype.kind == "f" else array.tolist()


LAYOUTS: list[Callable[[np.ndarray, int], Any]] = [
    lambda array, seed: array,
    lambda array, seed: np.asfortranarray(array),
    lambda array, seed: array.astype(array.dtype.newbyteorder(">")),
    lambda array, seed: array.view(array.dtype.newbyteorder("<")),
    lambda array, seed: array.view(Subclass),
    lambda array, seed: HasArray(array),
    lambda array, seed: HasDLPack(array) if array.dtype.char != "g" else array,
    reversed_axes,
    spaced,
    unaligned,
    in_records,
    repeated,
    overlapping,
    read_only,
    mapped,
    matrix,
    listed,
]


def values_of(shape: tuple[int, ...], dtype: Any, seed: int) -> np.ndarray:
    """Small numbers of any dtype."""
    rng = np.random.default_rng(seed)
    kind = np.dtype(dtype).kind
    if kind == "f":
        return rng.normal(size=shape).astype(dtype)
    least = 0 if kind in {"b", "u"} else -2
    return rng.integers(least, 2 if kind == "b" else 3, shape).astype(dtype)


@st.composite
def reals(draw: Draw, shape: tuple[int, ...]) -> Any:
    """An array-like of real numbers of that shape: any dtype, byte order and layout."""
    seed = draw(st.integers(0, 2**16))
    dtype = draw(st.sampled_from(REAL_DTYPES))
    return pick(draw, LAYOUTS)(values_of(shape, dtype, seed), seed)


def plain(given: Any, dtype: Any) -> np.ndarray:
    """The values of an array-like as a new C-contiguous array of a native dtype."""
    bare = isinstance(given, HasArray | HasDLPack)
    with np.errstate(all="ignore"):
        return np.array(given.array if bare else given, order="C", subok=False).astype(dtype)


#: Array-likes that hold no real numbers, by shape.
NOT_REAL: list[Callable[[tuple[int, ...]], Any]] = [
    lambda shape: np.ones(shape, np.complex64),
    lambda shape: np.ones(shape, np.clongdouble),
    lambda shape: np.ones(shape, object),
    lambda shape: np.full(shape, "1"),
    lambda shape: np.full(shape, b"1"),
    lambda shape: np.full(shape, datetime.datetime(2000, 1, 1), "datetime64[s]"),
    lambda shape: np.zeros(shape, "timedelta64[s]"),
    lambda shape: np.zeros(shape, [("a", np.float32)]),
    lambda shape: np.zeros(shape, "V4"),
    lambda shape: np.ma.masked_all(shape, np.float32),
    lambda shape: np.ma.zeros(shape, np.float64),
    lambda shape: object(),
    lambda shape: None,
    lambda shape: "text",
    lambda shape: b"bytes",
    lambda shape: {"a": 1},
    lambda shape: {1, 2},
    lambda shape: iter([1.0]),
    lambda shape: lambda: 1.0,
    lambda shape: [[1.0], [1.0, 2.0]],
    lambda shape: [10**400],
    lambda shape: HasArray(np.zeros(shape, complex)),
    lambda shape: HasArray(3),  # type: ignore[arg-type]
]


@st.composite
def not_real(draw: Draw, shape: tuple[int, ...]) -> Any:
    return pick(draw, NOT_REAL)(shape)


@st.composite
def wrong_shape(draw: Draw, *right: tuple[int, ...]) -> np.ndarray:
    """Zeros of another shape than those: of other sizes, or with more or fewer axes."""
    shape = list(draw(st.sampled_from(right)))
    change = draw(st.integers(0, 3))
    if change == 0 or not shape:
        shape.insert(draw(st.integers(0, len(shape))), draw(st.integers(0, 3)))
    elif change == 1:
        del shape[draw(st.integers(0, len(shape) - 1))]
    else:
        k = draw(st.integers(0, len(shape) - 1))
        shape[k] = draw(st.integers(0, 6).filter(lambda n: n != shape[k]))
    return np.zeros(shape, np.float32)


#: Ways to take results: arrays that do, made of the values that they hold before.
TARGETS: list[Callable[[np.ndarray], np.ndarray]] = [
    lambda array: array,
    lambda array: array.view(array.dtype.newbyteorder("<")),
    lambda array: array.view(Subclass),
    lambda array: mapped(array, 0),
    lambda array: matrix(array),
    lambda array: np.concatenate([array.reshape(-1), array.reshape(-1)])[: array.size].reshape(
        array.shape
    ),
]


def bad_targets(array: np.ndarray) -> list[Any]:
    """Things that take no results of the array's shape and dtype."""
    frozen = read_only(array.copy(), 0)
    other = np.float64 if array.dtype == np.float32 else np.float32
    bad: list[Any] = [
        array.tolist(),
        "out",
        3,
        HasArray(array),
        memoryview(np.ascontiguousarray(array)),
        array.astype(other),
        array.astype(np.int32),
        array.astype(complex),
        array.astype(object),
        array.astype(array.dtype.newbyteorder(">")),
        np.ma.array(array),
        np.zeros((*array.shape, 1), array.dtype),
        np.zeros((*array.shape[:-1], array.shape[-1] + 1), array.dtype),
        frozen,
    ]
    if array.size:
        bad.append(unaligned(array))
    if array.size > 1:
        bad += [array[..., ::-1] if array.shape[-1] > 1 else array[::-1].repeat(2, -1)[..., ::2]]
        bad += [np.broadcast_to(array.reshape(-1)[0], array.shape), in_records(array, 0)]
    return bad
