"""Checking and converting what callers hand in; every error names the argument.

Nothing here knows about LSTMs beyond the letters: T time, B batch, I input size, H hidden size.
"""

from __future__ import annotations

import math
import numbers
import operator
import sys
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from fastlstm._foreign import precision_name, to_numpy

#: float32 or float64 values.
RealArray: TypeAlias = npt.NDArray[np.floating[Any]]

#: The precisions that the kernels have.
DTYPES = (np.dtype(np.float32), np.dtype(np.float64))

#: The most characters of a wrong value that an error repeats.
_SHOWN = 200


def shown(value: Any) -> str:
    """Return the repr of a wrong value for its error: of any value, and never long."""
    try:
        text = repr(value)
    except Exception:  # Python refuses to write integers of more than 4300 digits, for one
        return f"an object of type {type(value).__name__}"
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN // 2]}...{text[-_SHOWN // 4 :]}"


def _said(error: Exception) -> str:
    try:
        return str(error)
    except Exception:  # one of the caller's own
        return type(error).__name__


def as_size(name: str, value: Any, largest: int = sys.maxsize, smallest: int = 1) -> int:
    """Return value as a size from smallest to largest.

    Raises
    ------
    TypeError
        If it is not an integer.
    ValueError
        If it is out of range.
    """
    expected = f"expected an integer from {smallest} to {largest}"
    if isinstance(value, bool | np.bool_):
        raise TypeError(f"{name}: got {shown(value)}, {expected}")
    try:
        size = operator.index(value)
    except TypeError:
        raise TypeError(
            f"{name}: got {shown(value)} of type {type(value).__name__}, {expected}"
        ) from None
    if not smallest <= size <= largest:
        raise ValueError(f"{name}: got {shown(size)}, {expected}")
    return size


def as_flag(name: str, value: Any) -> bool:
    """Return value as a bool; TypeError if it is anything else."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name}: got {shown(value)}, expected True or False")
    return bool(value)


def as_precision(name: str, value: Any) -> np.dtype[Any]:
    """Return value as the dtype float32 or float64 in native byte order.

    Other libraries' own dtypes of these names, such as ``torch.float32``, are the same.

    Raises
    ------
    TypeError
        If it does not name a dtype.
    ValueError
        If it names another one.
    """
    expected = "expected float32 or float64"
    try:
        try:
            dtype: np.dtype[Any] = np.dtype(value)
        except TypeError:
            if (known := precision_name(value)) is None:
                raise
            dtype = np.dtype(known)
    except Exception:  # of many types, warnings that are errors among them
        raise TypeError(f"{name}: got {shown(value)}, {expected}") from None
    if value is None or dtype not in DTYPES:
        raise ValueError(f"{name}: got {shown(value)}, {expected}")
    return DTYPES[DTYPES.index(dtype)]  # an equal one may spell out the byte order


def as_real_array(name: str, value: Any, dtype: np.dtype[Any]) -> RealArray:
    """Return value as an array of dtype, without a copy where none is needed.

    Parameters
    ----------
    name : str
        What the argument is called, for the error.
    value : array_like
        An array, a nested sequence of numbers, or an object with ``__array__`` or ``__dlpack__``;
        tensors that require a gradient and tables among them (`fastlstm._foreign`). Booleans,
        integers and floats of any width and byte order are converted: rounded to the nearest, too
        large ones to infinity.
    dtype : numpy.dtype
        The precision wanted, float32 or float64.

    Raises
    ------
    TypeError
        If the values are complex, strings, dates or objects, can't be had as an array, or come
        with a mask.
    ValueError
        If the nested sequences are not rectangular.
    """
    if type(value) is np.ndarray and value.dtype == dtype and value.dtype.byteorder == "=":
        return value
    array = as_array(name, value)
    if array.dtype.kind not in "biuf":
        raise TypeError(
            f"{name}: got values of dtype {array.dtype} ({type(value).__name__}), "
            "expected real numbers"
        )
    if array.size * dtype.itemsize > sys.maxsize:  # it may be a broadcast one
        raise ValueError(f"{name}: got shape {array.shape}, more than memory can address")
    with np.errstate(all="ignore"):
        converted: RealArray = array.astype(dtype, copy=False)
    # A native order that is spelled out, "<f4" by newbyteorder, is equal and no format of the core.
    return converted if converted.dtype.byteorder == "=" else converted.view(dtype)


def as_array(name: str, value: Any) -> npt.NDArray[Any]:
    """Return value as an array of whatever dtype it has; bfloat16 and the like as float32.

    Raises
    ------
    TypeError, ValueError
        As :func:`as_real_array`, but for the dtype.
    """
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name}: got a masked array, expected one without a mask (see .filled())")
    try:
        return to_numpy(value)
    except MemoryError:
        raise
    except Exception as error:
        kind = ValueError if isinstance(error, ValueError) else TypeError
        raise kind(f"{name}: cannot be made an array: {_said(error)}") from error


def with_contiguous_rows(array: RealArray) -> RealArray:
    """Return the array itself when the kernels can read it as it lies, else a C-contiguous copy.

    They can when it is aligned, its last axis has no gaps and its other strides are whole items.
    """
    if array.flags.c_contiguous and array.flags.aligned:
        return array
    *outer, last = array.strides
    lies_well = (
        array.flags.aligned
        and (last == array.itemsize or array.shape[-1] <= 1)
        and all(stride % array.itemsize == 0 for stride in outer)
    )
    return array if lies_well else np.array(array, order="C")


def as_native(array: RealArray, dtype: np.dtype[Any]) -> RealArray:
    """Return an array of dtype as the core takes it: itself, or a view.

    A view where it is of a subclass, which may have ideas of its own about axes, or spells out the
    native byte order.
    """
    if type(array) is np.ndarray and array.dtype.byteorder == "=":
        return array
    return np.asarray(array).view(dtype)


def as_finite(name: str, value: Any, dtype: np.dtype[Any]) -> float:
    """Return value as a float that is finite in dtype.

    Raises
    ------
    TypeError
        If it is not a real number.
    ValueError
        If it is NaN, infinite or too large for dtype.
    """
    if isinstance(value, bool | np.bool_) or not isinstance(value, numbers.Real | np.number):
        raise TypeError(f"{name}: got {shown(value)}, expected a number")
    if isinstance(value, np.complexfloating | np.timedelta64):
        raise TypeError(f"{name}: got {shown(value)}, expected a real number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not abs(number) <= float(np.finfo(dtype).max):
        expected = f"one that {dtype} can hold" if math.isfinite(number) else "a finite number"
        raise ValueError(f"{name}: got {shown(value)}, expected {expected}")
    return number


def as_generator(name: str, seed: Any) -> np.random.Generator:
    """Return what ``numpy.random.default_rng`` makes of a seed or a generator.

    Raises
    ------
    TypeError, ValueError
        If it is neither.
    """
    # NumPy takes True for 1, and nothing for a seed of its own.
    numbers = as_array(name, seed) if isinstance(seed, list | tuple | np.ndarray) else None
    is_nothing = numbers is not None and numbers.size == 0
    is_flag = isinstance(seed, bool | np.bool_) or (
        numbers is not None and numbers.dtype == np.bool_
    )
    if is_nothing or is_flag:
        raise TypeError(f"{name}: got {shown(seed)}, expected an integer or a generator")
    try:
        return np.random.default_rng(seed)
    except ValueError as error:
        raise ValueError(f"{name}: got {shown(seed)}: {error}") from None
    except Exception as error:
        raise TypeError(f"{name}: got {shown(seed)}: {error}") from None


def as_state(
    name: str, value: Any, shape: tuple[int, ...], dtype: np.dtype[Any], swapped: str = ""
) -> RealArray:
    """Return an initial state as a C-contiguous array of the shape and dtype wanted.

    ``swapped`` says how x would be read with its first two axes the other way round, if that is
    what the shape of the state is for.

    Raises
    ------
    TypeError, ValueError
        As :func:`as_real_array`; ValueError for another shape.
    """
    state = as_real_array(name, value, dtype)
    if state.shape != shape:
        raise ValueError(f"{name}: got shape {state.shape}, expected {shape}{swapped}")
    lies_well = state.flags.c_contiguous and state.flags.aligned
    return state if lies_well else np.array(state, order="C")


def check_out(
    value: Any,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    inputs: Mapping[str, tuple[Any, RealArray | None]],
    name: str = "out",
) -> None:
    """Check that an array such as ``out=`` can take a result and shares no memory with an input.

    ``inputs`` holds by name what was handed in, as it came and as it is used; what came as anything
    but an array is passed over.

    Raises
    ------
    TypeError
        If it is not a NumPy array of that dtype.
    ValueError
        If its shape or layout is wrong, it is read-only, or it overlaps an input.
    """
    if not isinstance(value, np.ndarray) or isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name}: got {type(value).__name__}, expected a NumPy array")
    if value.dtype != dtype:
        raise TypeError(f"{name}: got dtype {value.dtype}, expected {dtype}")
    if value.shape != shape:
        raise ValueError(f"{name}: got shape {value.shape}, expected {shape}")
    flags = value.flags
    if not (flags.c_contiguous and flags.aligned):
        raise ValueError(f"{name}: got a strided or unaligned array, expected a C-contiguous one")
    if not flags.writeable:
        raise ValueError(f"{name}: got a read-only array, expected a writable one")
    for other, (given, used) in inputs.items():
        arrays = (used,) if used is given else (given, used)
        if any(isinstance(a, np.ndarray) and _shares_memory(value, a) for a in arrays):
            raise ValueError(f"{name}: shares memory with {other}, expected memory of its own")


def _shares_memory(a: RealArray, b: RealArray) -> bool:
    """Tell whether two arrays overlap; when that is too hard to find out, say that they do."""
    if not np.may_share_memory(a, b):  # their bounds are apart, as nearly always
        return False
    try:
        return np.shares_memory(a, b, max_work=1000)  # type: ignore[arg-type]  # the stubs lack it
    except np.exceptions.TooHardError:
        return True
