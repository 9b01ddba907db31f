"""What stands in pickles for NumPy's arrays: records of their numbers, checked when they are read.

An array is pickled as ``numpy._core.multiarray._reconstruct(...)`` with a state, ``(version, shape,
dtype, is_fortran, bytes)``, or from protocol 5 on as ``numpy._core.numeric._frombuffer(bytes,
dtype, shape, order)``; a scalar as ``numpy._core.multiarray.scalar(dtype, bytes)``. NumPy before 2
has ``core`` for ``_core``. Source: numpy/_core/src/multiarray/methods.c of NumPy 2.4.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastlstm.weights.pytorch.pickles import Global, Stateful, Unknown
from fastlstm.weights.raw import quoted

#: NumPy 1's bound on dimensions.
MOST_DIMENSIONS = 32

#: Kinds of numbers that are read: bool, integers, floats, and complex ones.
_READ = re.compile(r"b1|[iu][1248]|f[248]|c8|c16")


class Numbers:
    """A tensor or an array, of a kind that is read or not."""

    __slots__ = ()


@dataclass(frozen=True, eq=False, slots=True)
class Opaque(Numbers):
    """A tensor of a kind that is not read.

    Attributes
    ----------
    what : str
        As in "sparse tensor".
    """

    what: str


class Encoded:
    """Bytes as protocols before 3 have them: as text, which is not copied before it is needed."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text


class DType(Stateful):
    """A dtype: its code as in "f8", and the state that says its order of bytes."""

    __slots__ = ("code", "state")

    def __init__(self, code: str) -> None:
        self.code = code
        self.state = None

    @property
    def is_of_objects(self) -> bool:
        """Whether an array of it holds Python's objects."""
        return self.code.startswith("O")

    @property
    def known(self) -> np.dtype[Any] | None:
        """NumPy's dtype, or None if its numbers are not read; "u2" for bfloat16."""
        if self.code == "bfloat16":
            return np.dtype("<u2")
        order = self.state[1] if type(self.state) is tuple and len(self.state) > 1 else "<"
        if not _READ.fullmatch(self.code) or order not in ("<", ">", "|", "="):
            return None
        # "=" is the order of the machine that wrote it, which it doesn't say: nearly all are alike.
        return np.dtype(f"{'<' if order == '=' else order}{self.code}")


class Array(Numbers, Stateful):
    """An array or a scalar: its state is (version, shape, dtype, is_fortran, data).

    Attributes
    ----------
    axes : tuple or None
        An order in which its axes are to be put at the end.
    """

    __slots__ = ("axes", "state")

    def __init__(self, state: Any = None, axes: Any = None) -> None:
        self.state = state
        self.axes = axes

    @property
    def objects(self) -> Any:
        """What it holds if it is an array of Python's objects, else None."""
        if type(self.state) is tuple and len(self.state) == 5:
            _, _, dtype, _, data = self.state
            if isinstance(dtype, DType) and dtype.is_of_objects:
                return data
        return None

    @property
    def what(self) -> str:
        """What it is, where it is not read."""
        dtype = self.state[2] if type(self.state) is tuple and len(self.state) == 5 else None
        code = dtype.code if isinstance(dtype, DType) else "an unknown dtype"
        return f"array of {quoted(code)}"

    def view(
        self,
        bytes_of: Callable[[str], bytes],
        widened: Callable[[bytes | bytearray], NDArray[Any]],
    ) -> NDArray[Any] | None:
        """Return its numbers, without a copy of its own, or None if its kind is not read.

        Parameters
        ----------
        bytes_of : function
            Of text with a letter for each byte.
        widened : function
            Of bytes of bfloat16.

        Raises
        ------
        ValueError
            If its numbers don't fit its shape.
        """
        if self.state is None:  # as NumPy makes it before it is given its state
            return np.empty(0, np.uint8)
        if type(self.state) is not tuple or len(self.state) != 5:
            raise ValueError("damaged: an array without shape, dtype and numbers")
        _, shape, dtype, is_fortran, data = self.state
        if isinstance(dtype, Unknown):
            return None
        if not isinstance(dtype, DType) or type(shape) is not tuple:
            raise ValueError("damaged: an array of no known shape and dtype")
        shape = as_sizes(shape, "an array's shape")
        known = dtype.known
        if known is None or len(shape) > MOST_DIMENSIONS:
            return None
        if isinstance(data, Encoded):
            data = data.text
        if type(data) is str:  # Python 2's
            data = bytes_of(data)
        if type(data) not in (bytes, bytearray):
            raise ValueError("damaged: an array whose numbers are no bytes")
        if math.prod(shape) * known.itemsize != len(data):
            raise ValueError(f"an array of {known} {shape} that has {len(data)} bytes")
        if any(size >= 2**48 for size in shape):  # which only one without numbers can have
            raise ValueError(f"shape {shape} is too large")
        if not data:
            return np.empty(shape, np.float32 if dtype.code == "bfloat16" else known)
        flat = widened(data) if dtype.code == "bfloat16" else np.frombuffer(data, known)
        array = flat.reshape(shape, order="F" if is_fortran else "C")
        if self.axes is None:
            return array
        axes = as_sizes(self.axes, "an axis") if type(self.axes) is tuple else ()
        if sorted(axes) != list(range(len(shape))):
            raise ValueError("damaged: an order of axes that is none")
        return array.transpose(axes)


def as_sizes(values: tuple[Any, ...], what: str) -> tuple[int, ...]:
    """Return integers from 0 to 2^63 - 1, or raise ValueError."""
    for value in values:
        if type(value) is not int or not 0 <= value < 2**63:
            raise ValueError(f"damaged: {what} that is no size")
    return tuple(values)


def _dtype(arguments: tuple[Any, ...]) -> DType:
    """Of ``(code, align, copy)``; of ml_dtypes, ``(class, align, copy)``."""
    code = arguments[0] if arguments else ""
    if isinstance(code, Global):
        code = code.name
    return DType(code if type(code) is str else "")


def _reconstruct(arguments: tuple[Any, ...]) -> Array | Unknown:
    """Of ``(class, (0,), b"b")``, to be given a state."""
    kind = arguments[0] if arguments else None
    if isinstance(kind, Global) and not kind.known:
        return Unknown(kind, arguments)
    return Array()


def _scalar(arguments: tuple[Any, ...]) -> Array:
    dtype, data = (*arguments, None, None)[:2]
    return Array((1, (), dtype, False, data))


def _from_buffer(arguments: tuple[Any, ...]) -> Array:
    """Of ``(data, dtype, shape, order)``, and for order "K" one of the axes."""
    data, dtype, shape, order, axes = (*arguments, *[None] * 5)[:5]
    return Array((1, shape, dtype, order == "F", data), axes if order == "K" else None)


_CORES = ("numpy.core", "numpy._core")

#: What stands for calls, by module and name.
NUMPY: dict[str, Callable[[tuple[Any, ...]], Any]] = {
    "numpy dtype": _dtype,
    **{f"{core}.multiarray _reconstruct": _reconstruct for core in _CORES},
    **{f"{core}.multiarray scalar": _scalar for core in _CORES},
    **{f"{core}.numeric _frombuffer": _from_buffer for core in _CORES},
}

#: Names that say what an array is.
NUMPY_MARKS = (
    "numpy ndarray",
    "numpy matrix",
    "numpy.matrixlib.defmatrix matrix",
    "numpy memmap",
    "ml_dtypes bfloat16",
)
