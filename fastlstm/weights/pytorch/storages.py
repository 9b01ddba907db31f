"""Numbers of a file's storages, and arrays that are views of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastlstm.weights.pytorch.arrays import Array, Numbers
from fastlstm.weights.pytorch.records import (
    BFLOAT16,
    Element,
    QuantizedTensor,
    Storage,
    Tensor,
)
from fastlstm.weights.raw import quoted, widened

#: Of 8 bits, with or without a sign.
_LARGEST_ZERO = 255

#: What is made of an integer of a quantised tensor, and of all at most for each byte that is there.
_BYTES_OF_INTEGER, _LARGEST_RATIO, _SLACK = 16, 32, 2**26


class Storages:
    """Arrays of a file's storages, each made once, and views of them.

    Parameters
    ----------
    numbers : mapping of str to memoryview
        By the keys of the storages.
    order : "<" or ">"
        Of their bytes.
    """

    def __init__(self, numbers: Mapping[str, memoryview], order: str) -> None:
        self._numbers = numbers
        self._order = order
        self._arrays: dict[str | int, tuple[Element, NDArray[Any]]] = {}
        self._bytes: dict[int, bytes] = {}  # of texts that hold bytes
        self._wide: dict[int, tuple[Any, NDArray[Any]]] = {}  # of bytes that hold bfloat16
        self._left = _LARGEST_RATIO * sum(map(len, numbers.values())) + _SLACK
        self._views: dict[int, NDArray[Any]] = {}  # of tensors with several names

    def view(self, tensor: Numbers) -> NDArray[Any] | None:
        """Return a tensor's numbers, or None if its kind is not read.

        Raises
        ------
        ValueError
            If they lie beyond the storage.
        """
        if id(tensor) not in self._views:
            if isinstance(tensor, Array):
                view = tensor.view(self._bytes_of, self._widened)
            elif isinstance(tensor, Tensor) and tensor.element.code:
                view = self._make(tensor)
            else:
                return None
            if view is None:
                return None
            self._views[id(tensor)] = view
        return self._views[id(tensor)]

    def quantized(self, tensor: QuantizedTensor) -> tuple[NDArray[Any], NDArray[Any]] | None:
        """Return the integers (R, K) of a quantised matrix around zero, and the scales (R,).

        None if it is no matrix, or has its scales along columns.

        Raises
        ------
        ValueError
            If its numbers lie beyond the storages, or don't fit each other.
        """
        integers = self.view(tensor.integers)
        if integers is None or integers.ndim != 2 or tensor.axis not in (None, 0):
            return None
        self._left -= _BYTES_OF_INTEGER * integers.size
        if self._left < 0:
            raise ValueError("shares its numbers with too many other quantised tensors")
        pair = []
        for part, kind in ((tensor.scale, "f"), (tensor.zero, "i")):
            array = self.view(part) if isinstance(part, Tensor) else np.full(len(integers), part)
            if array is None or array.shape != integers.shape[:1] or array.dtype.kind != kind:
                raise ValueError("damaged: a quantised tensor's scales don't fit it")
            pair.append(array)
        scale, zero = pair
        if ((zero < -_LARGEST_ZERO) | (zero > _LARGEST_ZERO)).any():
            raise ValueError("damaged: a quantised tensor's zero point is none of 8 bits")
        with np.errstate(all="ignore"):
            return integers - zero.astype(np.int32)[:, np.newaxis], scale.astype(np.float32)

    def _bytes_of(self, text: str) -> bytes:
        """Return the bytes that letters stand for: of a text with several uses but once."""
        if id(text) not in self._bytes:
            try:
                self._bytes[id(text)] = text.encode("latin-1")
            except UnicodeEncodeError:
                raise ValueError("damaged: letters that stand for no bytes") from None
        return self._bytes[id(text)]

    def _widened(self, data: bytes | bytearray) -> NDArray[Any]:
        """Return the numbers of bytes of bfloat16: of bytes with several uses but once."""
        if id(data) not in self._wide:
            self._wide[id(data)] = data, widened(np.frombuffer(data, "<u2"))
        return self._wide[id(data)][1]

    def _make(self, tensor: Tensor) -> NDArray[Any] | None:
        storage, shape = self._array(tensor), tensor.shape
        count = math.prod(shape)
        if count == 0:
            if math.prod(size or 1 for size in shape) >= 2**48:
                raise ValueError(f"shape {shape} is too large")
            return np.empty(shape, storage.dtype)
        # Python's integers can't overflow. A stride counts only where there is more than one number
        # along it.
        axes = list(zip(shape, tensor.stride, strict=True))
        stride = tuple(step if size > 1 else 0 for size, step in axes)
        if tensor.offset + sum((size - 1) * step for size, step in axes) >= storage.size:
            raise ValueError(
                f"shape {shape} with strides {tensor.stride} at {tensor.offset} reaches beyond its "
                f"storage of {storage.size} numbers"
            )
        if count > storage.size:  # a view with strides of 0, of few numbers as many
            return None
        return np.lib.stride_tricks.as_strided(
            storage[tensor.offset :],
            shape,
            tuple(step * storage.itemsize for step in stride),
            writeable=False,
        )

    def _array(self, tensor: Tensor) -> NDArray[Any]:
        """Return all numbers of a tensor's storage."""
        storage, element = tensor.storage, tensor.element
        key = storage.key if storage.data is None else id(storage.data)
        if key not in self._arrays:
            data, order = self.data(storage), "<" if storage.data is not None else self._order
            needed = storage.count * storage.element.size
            if len(data) < needed:
                raise ValueError(
                    f"storage {quoted(storage.key)} holds {len(data)} bytes, expected {needed}"
                )
            array = np.frombuffer(data, f"{order}{element.code}", needed // element.size)
            self._arrays[key] = element, widened(array) if element is BFLOAT16 else array
        known, array = self._arrays[key]
        if known is not element:
            raise ValueError(f"storage {quoted(storage.key)} holds {known.name} and {element.name}")
        return array[storage.start : storage.stop] if storage.element is element else array

    def data(self, storage: Storage) -> memoryview:
        """Return the bytes of a storage.

        Raises
        ------
        ValueError
            If they are missing.
        """
        if storage.data is not None:
            return storage.data
        if storage.key not in self._numbers:
            raise ValueError(f"storage {quoted(storage.key)} is missing")
        return self._numbers[storage.key]
