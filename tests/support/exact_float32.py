"""Exact rationals rounded to float32, by whole numbers alone."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

TINY = Fraction(1, 2**126)
LARGEST = Fraction(2**24 - 1) * 2**104


def rounded(exact: Fraction) -> np.float32:
    """The nearest float32, ties to even; 0 where 24 bits would be denormal, else infinity."""
    size = abs(exact)
    sign = -1 if exact < 0 else 1
    if size == 0:
        return np.float32(0)
    exponent = size.numerator.bit_length() - size.denominator.bit_length()
    if size < Fraction(2) ** exponent:
        exponent -= 1
    unit = Fraction(2) ** (exponent - 23)
    nearest = round(size / unit) * unit  # Python's round() takes ties to even
    if nearest < TINY:
        return np.float32(sign * 0.0)
    return np.float32(sign * float(nearest)) if nearest <= LARGEST else np.float32(sign * np.inf)
