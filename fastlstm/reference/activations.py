"""Activations of quantised layers, in float32, one rounding after the other as the kernels do them.

24 bits take the activations of float32 layers, which are within 2.5 ulp. 8 and 16 bits take cheaper
ones, whose absolute errors are within 1e-4 and 2e-6 and far below what the digits cost; the script
``src_c/kernels/minimax_quantized.py`` has their coefficients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from fastlstm._arguments import RealArray
from fastlstm.reference.float32 import add, divide, fma, multiply, subtract

#: Added to a number below 2^22, it leaves the nearest integer in the low bits of the significand.
MAGIC = np.float32(1.5 * 2**23)
LOG2_E = np.float32(1.44269504)

#: Beyond it, sigmoid stays as it is there: 1, or 1.5e-8.
SIGMOID_BOUND = np.float32(18)

#: bits: c_1, c_2, ... of 2^f = 1 + c_1 f + c_2 f^2 + ..., |f| <= 1/2.
EXP2 = {
    8: (0.693282927, 0.242210960, 0.0550089318),
    16: (0.693112272, 0.240206342, 0.0559861684, 0.00978616332),
}

#: bits: the bound on abs(x), and P and Q of tanh(x) = x P(x^2) / Q(x^2), the constant term first.
TANH = {
    8: (
        5.24124622,
        (0.999755684, 0.100902911, 0.000631657042),
        (1.0, 0.433548519, 0.0123986850),
    ),
    16: (
        7.18968296,
        (0.999994703, 0.122759462, 0.00225371621, 3.82132624e-6),
        (1.0, 0.456074872, 0.0209632586, 0.000139834991),
    ),
}


class Activations(NamedTuple):
    """What a cell is made of, for arrays of float32.

    Attributes
    ----------
    sigmoid, tanh : function of x
    sigmoid_tanh : function of x and y
        sigmoid(x) * tanh(y), as one quotient.
    state : function of z_i, z_f, z_g and c
        sigmoid(z_f) * c + sigmoid(z_i) * tanh(z_g).
    """

    sigmoid: Callable[[RealArray], RealArray]
    tanh: Callable[[RealArray], RealArray]
    sigmoid_tanh: Callable[[RealArray, RealArray], RealArray]
    state: Callable[[RealArray, RealArray, RealArray, RealArray], RealArray]


def activations(bits: int) -> Activations:
    """Return the activations of layers of 8, 16 or 24 bits.

    Notes
    -----
    sigmoid(x) = 1 / S(x), where S(x) = 1 + exp(-x), and tanh(x) = N(x) / Q(x) are quotients, so
    that the products and the state of a cell are one quotient each.

    With 8 and 16 bits::

        sigmoid(x) * tanh(y) = N(y) / (S(x) * Q(y))

        D = S(i) * Q(g)        c_t = (c * D + N(g) * S(f)) / (D * S(f))

    With 24 bits, where relative accuracy counts::

        N(x) = sign(x) q        Q(x) = 2 - q        q = 1 - exp(-2 abs(x))

        c_t = sigmoid(f) * c + sigmoid(i) * tanh(g)
    """
    if bits == 24:
        return Activations(_sigmoid_24, _tanh_24, _sigmoid_tanh_24, _state_24)

    def sigmoid(x: RealArray) -> RealArray:
        return divide(np.float32(1), sigmoid_denominator(bits, x))

    def tanh(x: RealArray) -> RealArray:
        return divide(*tanh_quotient(bits, x))

    def sigmoid_tanh(x: RealArray, y: RealArray) -> RealArray:
        numerator, denominator = tanh_quotient(bits, y)
        return divide(numerator, multiply(sigmoid_denominator(bits, x), denominator))

    def state(z_i: RealArray, z_f: RealArray, z_g: RealArray, c: RealArray) -> RealArray:
        numerator, denominator = tanh_quotient(bits, z_g)
        of_f = sigmoid_denominator(bits, z_f)
        of_input = multiply(sigmoid_denominator(bits, z_i), denominator)
        return divide(fma(c, of_input, multiply(numerator, of_f)), multiply(of_input, of_f))

    return Activations(sigmoid, tanh, sigmoid_tanh, state)


def sigmoid_denominator(bits: int, x: RealArray) -> RealArray:
    """1 + exp(-x) for 8 or 16 bits; NaN where x is NaN.

    -x = (n + f) ln(2) with integer n and abs(f) <= 1/2, and 2^f is a polynomial. exp(-x) is within
    1.1e-4 or 4e-6 of itself, relatively, and so are both tails of sigmoid.
    """
    bounded = _bounded(x, SIGMOID_BOUND)
    shifted = fma(bounded, -LOG2_E, MAGIC)
    minus_n = subtract(MAGIC, shifted)
    f = fma(bounded, -LOG2_E, minus_n)
    return fma(_polynomial((1.0, *EXP2[bits]), f), _power_of_2(-minus_n), np.float32(1))


def tanh_quotient(bits: int, x: RealArray) -> tuple[RealArray, RealArray]:
    """N and Q of tanh(x) = N / Q for 8 or 16 bits; NaN where x is NaN.

    Beyond the bound on abs(x) both are equal to the bit, and nowhere is abs(N) larger than Q.
    """
    bound, p, q = TANH[bits]
    bounded = _bounded(x, np.float32(bound))
    square = multiply(bounded, bounded)
    return multiply(bounded, _polynomial(p, square)), _polynomial(q, square)


def _bounded(x: RealArray, bound: np.float32) -> RealArray:
    """Bound x to [-bound, bound]; NaN stays."""
    return np.clip(np.atleast_1d(x), -bound, bound)


def _polynomial(coefficients: Sequence[float], x: RealArray) -> RealArray:
    """The sum of coefficients[k] x^k, by Horner's scheme."""
    *lower, highest = (np.float32(c) for c in coefficients)
    total = np.full_like(x, highest)
    for c in reversed(lower):
        total = fma(total, x, c)
    return total


def _power_of_2(n: RealArray) -> RealArray:
    """2^n for integers n from -127 to 128, of which the ends give 0 and infinity; else anything."""
    exponent = np.where(np.isfinite(n), n, 0).astype(np.int32) + 127
    return (exponent << 23).view(np.float32)


# Those of float32 layers, src_c/kernels/math_tpl.h.


def _expm1_reduced(r: RealArray) -> RealArray:
    """exp(r) - 1 for abs(r) <= ln(2) / 2."""
    q = [np.float32(v) for v in (0.499999981, 0.166665432, 0.0416672017, 0.00836657877)]
    square = multiply(r, r)
    upper = fma(np.float32(0.00138825107), square, fma(q[3], r, q[2]))
    return fma(square, fma(upper, square, fma(q[1], r, q[0])), r)


def _reduce_minus(factor: int, x: RealArray) -> tuple[RealArray, RealArray]:
    """Return r and 2^n: -factor * x = n ln(2) + r, integer n, abs(r) <= ln(2) / 2."""
    high, low = (
        np.float32(float.fromhex("0x1.62e4p-1")),
        np.float32(float.fromhex("0x1.7f7d1cp-20")),
    )
    n = subtract(fma(x, np.float32(-factor) * LOG2_E, MAGIC), MAGIC)
    multiple = add(x, x) if factor == 2 else x
    return fma(-n, low, fma(-n, high, -multiple)), _power_of_2(n)


def _exp_minus(x: RealArray) -> RealArray:
    """exp(-x): 0 when too small for a normal number, infinity when too large."""
    r, scale = _reduce_minus(1, np.clip(np.atleast_1d(x), np.float32(-89), np.float32(88)))
    return multiply(scale, add(np.float32(1), _expm1_reduced(r)))


def _one_minus_exp(x: RealArray) -> RealArray:
    """1 - exp(-2 abs(x))."""
    r, scale = _reduce_minus(2, np.minimum(np.abs(np.atleast_1d(x)), np.float32(20)))
    return fma(-scale, _expm1_reduced(r), subtract(np.float32(1), scale))


def _sigmoid_24(x: RealArray) -> RealArray:
    return divide(np.float32(1), add(np.float32(1), _exp_minus(x)))


def _tanh_24(x: RealArray) -> RealArray:
    q = _one_minus_exp(x)
    return np.copysign(divide(q, subtract(np.float32(2), q)), x)


def _sigmoid_tanh_24(x: RealArray, y: RealArray) -> RealArray:
    q = _one_minus_exp(y)
    of_x = add(np.float32(1), _exp_minus(x))
    return np.copysign(divide(q, multiply(of_x, subtract(np.float32(2), q))), y)


def _state_24(z_i: RealArray, z_f: RealArray, z_g: RealArray, c: RealArray) -> RealArray:
    return fma(_sigmoid_24(z_f), c, _sigmoid_tanh_24(z_i, z_g))
