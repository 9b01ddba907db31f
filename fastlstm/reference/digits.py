"""Numbers of 8, 16 and 24 bits as digits of eight, and their exact products.

A number of 8n bits is an integer q, at most M_n in magnitude, times a unit in float32; and q is n
digits in base 256, each from -128 to 127::

    value ~ unit * q        q = sum over i of 256^i d_i        M_1 = 127, M_2 = 32639, M_3 = 8355711

M_n is the largest integer all of whose digits are 127. Sums of products of digits are integers, so
they are exact, whatever order they are added in.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastlstm._arguments import RealArray
from fastlstm.reference.float32 import TINY, divide, fma, multiply

Integers: TypeAlias = NDArray[np.int64]

#: M_n by bits: the largest magnitude of q.
LARGEST = {8: 127, 16: 32639, 24: 8355711}

#: By bits, the most terms that a product may have: its sums are below 2^31, as are all parts of
#: them. The largest sum has bits/8 products of digits a term, each at most 128^2: digits that were
#: not made here may be -128 wherever they stand.
MOST_TERMS = {8: 131_071, 16: 65_535, 24: 43_690}

#: By bits, how many sums of digits a product keeps: those of the highest powers of 256.
SUMS = {8: 1, 16: 2, 24: 3}

#: The same for the product with U. With 16 bits these are all: an error of h comes back with the
#: next step, so that there the lowest digits are worth their time.
RECURRENT_SUMS = {8: 1, 16: 3, 24: 3}

#: What a row of numbers counts as that has none this large. Its inverse times M_n is finite.
SMALLEST_SCALE = 2.0**-100


class Digits(NamedTuple):
    """Rows of numbers in 8, 16 or 24 bits.

    Attributes
    ----------
    digits : array of int8, (bits / 8, R, K)
        The most significant ones first.
    unit : array of float32 (R,)
        What 1 stands for in each row. NaN where a row had a number that is not finite; its digits
        are 0.
    """

    digits: NDArray[np.int8]
    unit: RealArray

    @property
    def bits(self) -> int:
        """8, 16 or 24."""
        return 8 * len(self.digits)

    @property
    def integers(self) -> Integers:
        """The integers q, (R, K)."""
        q = np.zeros(self.digits.shape[1:], np.int64)
        for plane in self.digits:
            q = 256 * q + plane
        return q

    @property
    def values(self) -> NDArray[np.float64]:
        """The numbers that these digits stand for, (R, K); exact in float64."""
        return self.integers * self.unit.astype(np.float64)[:, np.newaxis]


def split(q: Integers, bits: int) -> NDArray[np.int8]:
    """Split integers (R, K) from -M_n to M_n into digits (bits / 8, R, K).

    The lowest digit is the remainder from -128 to 127; what is left is divided by 256.
    """
    planes = []
    for _ in range(bits // 8):
        digit = (q + 128) % 256 - 128
        planes.append(digit)
        q = (q - digit) // 256
    return np.stack(planes[::-1]).astype(np.int8)


def quantize_weights(rows: RealArray, bits: int) -> Digits:
    """Quantise weights (R, K), each row by its own largest magnitude.

    In float64, since it happens once: unit = max abs(w) / M_n, rounded to float32, and q = w /
    unit, rounded to the nearest integer, ties to even, and bounded to [-M_n, M_n]. Denormals
    count as 0, and so does a row whose unit would be one.
    """
    rows = np.asarray(rows, np.float64)
    rows = np.where(np.abs(rows) < TINY, 0, rows)
    finite = np.isfinite(rows).all(axis=-1, keepdims=True)
    known = np.where(finite, rows, 0)
    with np.errstate(over="ignore"):  # to an infinite unit, of which nothing finite comes
        exact = np.abs(known).max(axis=-1, initial=0) / LARGEST[bits]
        unit = np.where(exact < TINY, 0, exact).astype(np.float32)
    divisor = np.where(unit > 0, unit, 1).astype(np.float64)[:, np.newaxis]
    q = np.rint(np.where(unit[:, np.newaxis] > 0, known, 0) / divisor)
    q = np.clip(q, -LARGEST[bits], LARGEST[bits]).astype(np.int64)
    unit = np.where(finite, unit[:, np.newaxis], np.float32(np.nan))[:, 0]
    return Digits(split(q, bits), unit)


def quantize(rows: RealArray, bits: int) -> Digits:
    """Quantise inputs or hidden states (R, K), float32, each row by itself.

    Parameters
    ----------
    rows : array of float32 (R, K)
    bits : {8, 16, 24}

    Notes
    -----
    In float32, as a kernel does it at each step::

        scale = max(2^-100, largest abs(x_k))          NaN where some x_k is NaN or infinite
        unit = scale / M_n
        q_k = round(x_k * (M_n / scale))               to the nearest integer, ties to even

    and q is bounded to [-M_n, M_n], which matters with 24 bits alone. In a row with NaN or infinity
    all q are 0 and the unit is NaN, and so becomes everything that is made of it.
    """
    largest = np.float32(LARGEST[bits])
    finite = np.isfinite(rows).all(axis=-1, keepdims=True)
    known = np.where(finite, rows, np.float32(0))
    scale = np.maximum(np.abs(known).max(axis=-1, initial=0), np.float32(SMALLEST_SCALE))
    q = np.rint(multiply(known, divide(largest, scale)[:, np.newaxis]))
    q = np.clip(q, -largest, largest).astype(np.int64)
    unit = np.where(finite, divide(scale, largest)[:, np.newaxis], np.float32(np.nan))[:, 0]
    return Digits(split(q, bits), unit)


def sums_of_digits(a: Digits, w: Digits, count: int) -> list[Integers]:
    """Sums over k of products of digits, for all rows of `a` (B, K) and of `w` (R, K).

    Products of the same power of 256 share a sum.

    Parameters
    ----------
    a, w : Digits
        Of the same number of digits, n.
    count : int
        How many sums, at most 2n - 1. `SUMS` leaves out the n - 1 lowest powers: they are about as
        small as what the rounding of q has cost.

    Returns
    -------
    list of `count` arrays (B, R)
        The sums of the highest power first: with d_1, d_0 the digits of a and e_1, e_0 those of w,
        A = d_1 e_1, B = d_1 e_0 + d_0 e_1, C = d_0 e_0; and with three digits each, A = d_2 e_2,
        B = d_2 e_1 + d_1 e_2, C = d_2 e_0 + d_1 e_1 + d_0 e_2.
    """
    d, e = a.digits.astype(np.int64), w.digits.astype(np.int64)
    n = len(d)
    sums = []
    for power in range(count):  # below the highest one
        pairs = [(i, power - i) for i in range(n) if 0 <= power - i < n]
        sums.append(np.sum([d[i] @ e[j].T for i, j in pairs], axis=0))
    for total in sums:
        assert np.abs(total).max(initial=0) < 2**31, "more terms than MOST_TERMS"
    return sums


def add_product(a: Digits, w: Digits, z: RealArray, count: int) -> RealArray:
    """Return z (B, R) + a (B, K) @ w (R, K)^T, in float32 from the exact sums of digits on.

    Notes
    -----
    With the sums A, B and C of `sums_of_digits`, or the first `count` of them, rounded to float32::

        t = A        t = fma(A, 256, B)        t = fma(fma(A, 256, B), 256, C)
        z = fma(t, unit_a * (unit_w * 256^lowest), z)        lowest = 2 (n - 1) - (count - 1)

    where 256^lowest is the power of the last sum. It changes an exponent alone, so that a kernel
    keeps unit_w * 256^lowest for each row of weights.
    """
    first, *others = sums_of_digits(a, w, count)
    t = first.astype(np.float32)
    for total in others:
        t = fma(t, np.float32(256), total.astype(np.float32))
    lowest = 2 * (len(w.digits) - 1) - (count - 1)
    row_factor = multiply(w.unit, np.float32(256.0**lowest))
    return fma(t, multiply(a.unit[:, np.newaxis], row_factor), z)
