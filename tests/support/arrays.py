"""Comparing arrays: to the bit, or by the largest difference; derivatives by differences."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def assert_same_bits(got: np.ndarray, expected: np.ndarray) -> None:
    """Equal dtype, shape and bits: -0 is not 0, and a NaN equals itself."""
    assert got.dtype == expected.dtype
    assert got.shape == expected.shape
    assert got.tobytes() == expected.tobytes()


def one_nan(array: np.ndarray) -> np.ndarray:
    """The same with one pattern for all NaN, of which only that they are NaN is promised."""
    return np.where(np.isnan(array), np.float32(np.nan), array)


def relative_difference(got: np.ndarray, expected: np.ndarray) -> float:
    """Largest absolute difference over the largest magnitude of `expected`; 0 where it is empty."""
    assert got.shape == expected.shape
    scale = max(np.abs(expected).max(initial=0), np.finfo(np.float64).tiny)
    return float(np.abs(got.astype(np.float64) - expected).max(initial=0) / scale)


def assert_close(
    got: dict[str, np.ndarray], expected: dict[str, np.ndarray], tolerance: float
) -> None:
    assert list(got) == list(expected)
    for key, array in expected.items():
        assert relative_difference(got[key], array) <= tolerance, key


def finite_differences(loss: Callable[[], float], array: np.ndarray) -> np.ndarray:
    """Derivative of `loss` by every entry of an array that it reads.

    From four points, which are exact to the fourth power of the step: with two the step would have
    to be so small that rounding takes half of the digits.
    """
    step = 1e-3
    derivative = np.empty_like(array)
    for index in np.ndindex(array.shape):
        value = array[index]
        at = {}
        for k in (-2, -1, 1, 2):
            array[index] = value + k * step
            at[k] = loss()
        array[index] = value
        derivative[index] = (8 * (at[1] - at[-1]) - (at[2] - at[-2])) / (12 * step)
    return derivative
