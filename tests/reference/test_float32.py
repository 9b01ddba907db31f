"""float32 arithmetic of the reference, against exact rationals and the C library."""

from __future__ import annotations

import ctypes
import ctypes.util
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from fastlstm.reference import float32
from support.arrays import assert_same_bits
from support.exact_float32 import rounded
from support.optional import missing


def random_floats(rng: np.random.Generator, n: int, low: int = -126, high: int = 127) -> np.ndarray:
    """Floats of any sign, of exponents between two; some with few bits, where ties are."""
    significand = rng.integers(2**23, 2**24, n) >> (few := rng.choice([0, 0, 12, 20], n)) << few
    exponents = rng.integers(low, high + 1, n) - 23
    return np.float32(rng.choice([-1.0, 1.0], n) * np.ldexp(significand.astype(float), exponents))


def beside_ties(rng: np.random.Generator, n: int) -> list[np.ndarray]:
    """a, b, c with a * b + c just beside the middle of two floats: rounding twice fails there."""
    c = random_floats(rng, n, 0, 0)
    half_ulp = rng.choice([-1, 1], n) * 2.0**-24
    # (1 + d) (1 - d) = 1 - d^2, too close to 1 for 53 bits.
    d = np.ldexp(1.0, -rng.integers(14, 23, n))
    a = np.float32((1 + d) * half_ulp)
    b = np.float32(1 + rng.choice([-1, 1], n) * d)
    return [a, b, c]


def fractions(arrays: list[np.ndarray]) -> Iterator[tuple[Fraction, ...]]:
    """The same numbers, a row at a time."""
    for row in zip(*(a.tolist() for a in arrays), strict=True):
        yield tuple(map(Fraction, row))


FUNCTIONS: dict[str, tuple[Callable[..., Any], Callable[..., Fraction]]] = {
    "add": (float32.add, lambda a, b, c: a + b),
    "subtract": (float32.subtract, lambda a, b, c: a - b),
    "multiply": (float32.multiply, lambda a, b, c: a * b),
    "divide": (float32.divide, lambda a, b, c: a / b),
    "fma": (float32.fma, lambda a, b, c: a * b + c),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("exponents", [(-3, 3), (-30, 30), (-126, 127), (-126, -100), (-66, -56)])
def test_operations_are_exact_and_rounded_once(name: str, exponents: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    arrays = [random_floats(rng, 3000, *exponents) for _ in range(3)]
    arrays[1][:100] = -arrays[0][:100]
    function, exact = FUNCTIONS[name]
    with np.errstate(over="ignore"):
        got = function(*arrays[: 3 if name == "fma" else 2])
    expected = [rounded(exact(*row)) for row in fractions(arrays)]
    # A zero that is exact is +0 unless both parts are -0; IEEE's rule is NumPy's.
    zero = np.array([e == 0 for e in expected])
    np.testing.assert_array_equal(got[zero], 0)
    assert_same_bits(got[~zero], np.array(expected, np.float32)[~zero])


def test_fma_beside_ties() -> None:
    arrays = beside_ties(np.random.default_rng(1), 5000)
    expected = [rounded(a * b + c) for a, b, c in fractions(arrays)]
    assert_same_bits(float32.fma(*arrays), np.array(expected, np.float32))
    wide = [a.astype(np.float64) for a in arrays]
    twice = (wide[0] * wide[1] + wide[2]).astype(np.float32)
    assert (twice != np.array(expected)).any()  # or these cases would show nothing


def c_fmaf() -> Any:
    name = ctypes.util.find_library("m")
    if name is None:
        missing("libm")
    fmaf = ctypes.CDLL(name).fmaf
    fmaf.restype, fmaf.argtypes = ctypes.c_float, [ctypes.c_float] * 3
    return fmaf


@pytest.mark.parametrize("count", [50_000, pytest.param(2_000_000, marks=pytest.mark.slow)])
def test_fma_is_that_of_the_c_library(count: int) -> None:
    fmaf, rng = c_fmaf(), np.random.default_rng(2)
    for arrays in (
        [random_floats(rng, count, -20, 20) for _ in range(3)],
        [random_floats(rng, count, -1, 1) for _ in range(3)],
        beside_ties(rng, count),
    ):
        expected = np.fromiter(map(fmaf, *(a.tolist() for a in arrays)), np.float32, count)
        assert_same_bits(float32.fma(*arrays), float32.flush(expected))


def test_special_values() -> None:
    inf, nan = np.float32(np.inf), np.float32(np.nan)
    x = np.array([0, -0.0, 1, -inf, inf, nan, 2**-126, 2**-127, -(2**-149), 3e38], np.float32)
    flushed = np.array([0, -0.0, 1, -inf, inf, nan, 2**-126, 0, -0.0, 3e38], np.float32)
    assert_same_bits(float32.flush(x), flushed)
    one = np.ones(1, np.float32)
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        assert np.isnan(float32.fma(inf * one, one, -inf * one))
        assert np.isnan(float32.fma(nan * one, one, one))
        assert float32.fma(np.float32(3e38) * one, 2 * one, one) == inf
        assert np.signbit(float32.fma(-one, 0 * one, -0.0 * one))
        assert not np.signbit(float32.fma(one, one, -one))
        assert float32.divide(one, 0 * one) == inf
    # What rounds up to the smallest normal number stays.
    just_below = np.float32(1 - 2**-24) * one
    tiny = np.float32(2**-126) * one
    assert float32.multiply(tiny, just_below) == 0
    assert float32.fma(tiny, one, np.float32(-(2**-126) * 2**-23) * one) < tiny
