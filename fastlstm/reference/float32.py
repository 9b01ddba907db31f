"""float32 arithmetic as the kernels do it: each operation rounded once, denormals flushed to zero.

NumPy rounds add, multiply and divide as the processor does, but keeps denormals, and has no fused
multiply-add. These functions give the kernels' bits: every result is the exact one rounded to the
nearest float32, ties to even, or a zero of its sign where it would be denormal. Like x86-64 they
look whether it is after rounding to 24 bits, however small the exponent.

Arguments are float32 arrays without denormals, which broadcast; `flush` makes them.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from fastlstm._arguments import RealArray

Operand: TypeAlias = RealArray | np.floating[Any]

#: The smallest normal number, and what rounds to it with 24 bits and any exponent.
TINY = float(np.finfo(np.float32).tiny)
ROUNDS_TO_TINY = TINY * (1 - 2**-25)


def flush(x: RealArray) -> RealArray:
    """Return x in float32, with zeros of the same sign for denormals."""
    return _rounded(np.asarray(x, np.float32).astype(np.float64))


def add(a: Operand, b: Operand) -> RealArray:
    """Return a + b, rounded once."""
    # A sum that is denormal is exact, and float64's 53 bits are enough to round others twice.
    return _rounded(_wide(a) + _wide(b))


def subtract(a: Operand, b: Operand) -> RealArray:
    """Return a - b, rounded once."""
    return _rounded(_wide(a) - _wide(b))


def multiply(a: Operand, b: Operand) -> RealArray:
    """Return a * b, rounded once."""
    return _rounded(_wide(a) * _wide(b))  # the wide product is exact: 24 + 24 bits


def divide(a: Operand, b: Operand) -> RealArray:
    """Return a / b, rounded once."""
    return _rounded(_wide(a) / _wide(b))  # 53 bits are enough to round a quotient twice


def fma(a: Operand, b: Operand, c: Operand) -> RealArray:
    """Return a * b + c, rounded once.

    The wide product is exact, the wide sum is not, and rounding it again could go wrong: where it
    lies just beside a tie, the first rounding makes it the tie. So the first is to odd [1]_: of the
    two float64 numbers around the sum, the one whose last bit is 1. It is no tie, and is on the
    same side of every float32 and every tie as the sum. What the sum lost is an exact float64 [2]_.

    .. [1] S. Boldo and G. Melquiond, "Emulation of a FMA and correctly rounded sums: proved
       algorithms using rounding to odd", IEEE Transactions on Computers 57(4), 2008.
    .. [2] D. E. Knuth, "The art of computer programming" 2, 4.2.2, theorem B.
    """
    product, wide_c = np.broadcast_arrays(_wide(a) * _wide(b), _wide(c))
    total = product + wide_c
    part = total - product
    lost = (product - (total - part)) + (wide_c - part)
    bits = np.array(total).view(np.int64)
    is_even = (bits & 1 == 0) & np.isfinite(lost) & (lost != 0)
    bits += np.where(is_even, np.where((lost > 0) == (total > 0), 1, -1), 0)
    return _rounded(bits.view(np.float64))


def _wide(x: Operand) -> RealArray:
    return np.atleast_1d(np.asarray(x, np.float32)).astype(np.float64)


def _rounded(x: RealArray) -> RealArray:
    """float64 rounded to float32, denormals flushed."""
    narrow = x.astype(np.float32)
    return np.where(np.abs(x) < ROUNDS_TO_TINY, np.copysign(np.float32(0), narrow), narrow)
