"""Digits of eight bits, their scales and their products, against exact integers and fractions."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from fastlstm.reference.digits import (
    LARGEST,
    MOST_TERMS,
    RECURRENT_SUMS,
    SMALLEST_SCALE,
    SUMS,
    Digits,
    add_product,
    quantize,
    quantize_weights,
    split,
    sums_of_digits,
)
from support.arrays import assert_same_bits

BITS = pytest.mark.parametrize("bits", [8, 16, 24])
PRODUCTS = pytest.mark.parametrize(("bits", "count"), [(8, 1), (16, 2), (16, 3), (24, 3)])


def some_rows(seed: int = 0, K: int = 40) -> np.ndarray:
    """Rows of very different sizes, their own numbers, too; float32."""
    rng = np.random.default_rng(seed)
    scales = np.array([1, 1e-3, 1e4, 3e38, 1e-20, 0.9999999, 2e-38])
    rows = scales[:, np.newaxis] * rng.uniform(-1, 1, (7, K)) * 10.0 ** -rng.integers(0, 4, (7, K))
    return rows.astype(np.float32)


@BITS
def test_largest_has_digits_of_127_alone(bits: int) -> None:
    assert LARGEST[bits] == sum(127 * 256**i for i in range(bits // 8))


@BITS
def test_splits_every_number_into_digits_from_minus_128_to_127(bits: int) -> None:
    largest, rng = LARGEST[bits], np.random.default_rng(1)
    q = np.arange(-largest, largest + 1)
    if bits == 24:
        near = np.add.outer(np.arange(-127, 128) * 2**16, np.arange(-300, 301)).ravel()
        ends = np.arange(-largest, -largest + 70_000)
        q = np.concatenate([rng.choice(q, 200_000), np.clip(near, -largest, largest), ends, -ends])
    digits = split(q[np.newaxis], bits)
    assert digits.dtype == np.int8
    assert digits.shape == (bits // 8, 1, len(q))
    # By hand: the same number, and digits that fit eight bits, of which there is one way.
    total = sum(256**i * digit.astype(object) for i, digit in enumerate(digits[::-1]))
    assert (total == q.astype(object)).all()
    assert abs(digits[0].astype(int)).max() == 127
    if bits > 8:
        assert digits[1:].min() == -128
        assert digits[1:].max() == 127
    assert (Digits(digits, np.ones(1, np.float32)).integers == q).all()


@BITS
def test_weights_are_rounded_exactly_by_their_row(bits: int) -> None:
    rows = some_rows()[:-1]  # the last one is too small for its units to be normal numbers
    made = quantize_weights(rows, bits)
    assert made.bits == bits
    for row, unit, integers in zip(rows, made.unit, made.integers, strict=True):
        ideal = Fraction(float(abs(row).max())) / LARGEST[bits]
        assert abs(Fraction(float(unit)) - ideal) <= ideal * Fraction(1, 2**24)
        for w, q in zip(row, integers, strict=True):
            exact = Fraction(float(w)) / Fraction(float(unit))
            expected = max(-LARGEST[bits], min(LARGEST[bits], round(exact)))  # ties to even
            assert q == expected
    values = made.integers * made.unit.astype(np.float64)[:, np.newaxis]
    np.testing.assert_array_equal(made.values, values)


def test_ties_go_to_even() -> None:
    row = np.array([[127, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5]], np.float32)
    expected = [[127, 0, 2, 2, 0, -2, -2]]
    np.testing.assert_array_equal(quantize_weights(row, 8).integers, expected)
    np.testing.assert_array_equal(quantize(row, 8).integers, expected)


@BITS
def test_inputs_are_rounded_by_their_row_in_float32(bits: int) -> None:
    rows = some_rows()
    made = quantize(rows, bits)
    # Three roundings to 24 bits on the way, so that 24 bits may come out one further away.
    slack = Fraction(1, 2) + LARGEST[bits] * 3 * Fraction(1, 2**25)
    for row, unit, integers in zip(rows[:-1], made.unit, made.integers, strict=False):
        largest = Fraction(float(abs(row).max()))
        assert abs(Fraction(float(unit)) * LARGEST[bits] / largest - 1) <= Fraction(1, 2**24)
        for x, q in zip(row, integers, strict=True):
            assert abs(Fraction(float(x)) * LARGEST[bits] / largest - int(q)) <= slack
        assert abs(integers).max() == LARGEST[bits]
    assert made.unit[-1] == np.float32(SMALLEST_SCALE / LARGEST[bits])
    assert not made.integers[-1].any()  # 2e-38 is nothing beside 2^-100


@BITS
def test_scale_is_the_own_largest_magnitude(bits: int) -> None:
    h = np.array([[1, -1, 0.5, 0], [0.25, 0, 0, 0], [0, 0, 0, 0], [2, 1, -0.5, 0]], np.float32)
    made = quantize(h, bits)
    unit = np.float32(1) / np.float32(LARGEST[bits])
    nothing = np.float32(2.0**-100) / np.float32(LARGEST[bits])
    assert_same_bits(made.unit, np.array([unit, unit / 4, nothing, 2 * unit]))
    assert made.integers[0, :2].tolist() == [LARGEST[bits], -LARGEST[bits]]
    assert made.integers[1].tolist() == [LARGEST[bits], 0, 0, 0]
    assert not made.integers[2].any()
    assert made.integers[3, 0] == LARGEST[bits]
    assert made.integers[3, 1] == round(Fraction(LARGEST[bits], 2))


@BITS
def test_rows_without_a_scale(bits: int) -> None:
    rows = np.zeros((7, 3), np.float32)
    rows[1:, 1] = [np.inf, -np.inf, np.nan, 2**-149, 2**-126, np.float32(3.4028235e38)]
    rows[1:, 0] = 1e-30
    for made in (quantize(rows, bits), quantize_weights(rows, bits)):
        assert np.isnan(made.unit).tolist() == [False, True, True, True, False, False, False]
        assert not made.digits[:, :4].any()
        assert abs(made.integers[6]).max() == LARGEST[bits]
    assert quantize(rows, bits).unit[0] > 0  # or 0 / 0 would be met on the way
    assert quantize_weights(rows, bits).unit[0] == 0
    none = np.zeros((2, 0), np.float32)
    assert quantize(none, bits).digits.shape == (bits // 8, 2, 0)


@BITS
def test_a_row_does_not_depend_on_the_others(bits: int) -> None:
    rows = some_rows()
    rows[1, 2] = np.nan
    whole = quantize(rows, bits)
    for k in range(len(rows)):
        one = quantize(rows[k : k + 1], bits)
        assert_same_bits(one.digits[:, 0], whole.digits[:, k])
        assert_same_bits(one.unit, whole.unit[k : k + 1])


def test_products_are_those_that_there_are() -> None:
    assert SUMS == {8: 1, 16: 2, 24: 3}
    assert RECURRENT_SUMS == {8: 1, 16: 3, 24: 3}


@PRODUCTS
@pytest.mark.parametrize("K", [1, 3, 64, 300])
def test_sums_are_those_of_whole_numbers(bits: int, count: int, K: int) -> None:
    rng, n = np.random.default_rng(K), bits // 8
    a = quantize(rng.normal(size=(5, K)).astype(np.float32), bits)
    w = quantize_weights(rng.normal(size=(7, K)), bits)
    sums = sums_of_digits(a, w, count)
    assert len(sums) == count
    d, e = a.digits.astype(object), w.digits.astype(object)  # of Python's integers
    for power, total in enumerate(sums):
        expected = sum(d[i] @ e[power - i].T for i in range(n) if 0 <= power - i < n)
        assert (total == expected).all()
    exact = a.integers.astype(object) @ w.integers.astype(object).T
    kept = sum(256 ** (2 * n - 2 - power) * s.astype(object) for power, s in enumerate(sums))
    # What is left out: n - 1 products of the power n - 2, and so on down, of digits up to 128.
    powers = range(2 * n - 1 - count)
    left_out = sum((power + 1) * 256**power for power in powers) * 128**2 * K
    assert abs(exact - kept).max() <= left_out
    assert (count < 2 * n - 1) or (exact == kept).all()


@PRODUCTS
def test_product_is_close_to_the_exact_one(bits: int, count: int) -> None:
    rng = np.random.default_rng(4)
    x, W = rng.normal(size=(5, 200)).astype(np.float32), rng.normal(size=(9, 200))
    z = rng.normal(size=(5, 9)).astype(np.float32)
    a, w = quantize(x, bits), quantize_weights(W, bits)
    got = add_product(a, w, z, count)
    assert got.dtype == np.float32
    of_digits = z + a.values @ w.values.T
    size = abs(of_digits).max()
    terms = {(8, 1): 0, (16, 2): 200 * 128**2, (16, 3): 0, (24, 3): 200 * 128**2 * 513}
    lost = terms[bits, count] * a.unit.max() * w.unit.max()
    assert abs(got - of_digits).max() <= 3e-7 * size + lost
    bound = {8: 2e-2, 16: 1e-4, 24: 1e-6}[bits]
    assert abs(got - (z + x.astype(np.float64) @ W.T)).max() <= bound * size


@PRODUCTS
def test_most_terms_fit_32_bits_and_more_would_not(bits: int, count: int) -> None:
    K, n = MOST_TERMS[bits], bits // 8
    # Whatever digits a file may hold: those whose terms add up to the most.
    rows = Digits(np.full((n, 1, K), -128, np.int8), np.ones(1, np.float32))
    sums = [int(total[0, 0]) for total in sums_of_digits(rows, rows, count)]
    largest = max(map(abs, sums))
    assert largest == K * n * 128**2
    assert 0.99 * 2**31 < largest < 2**31 <= n * 128**2 * (K + 1)
    # And of numbers that are made here, whose first digits are at least -127.
    worst = {8: (127,), 16: (127, -128), 24: (-126, -128, -128)}[bits]
    rows = rows._replace(
        digits=np.tile(np.array(worst, np.int8)[:, np.newaxis, np.newaxis], (1, 1, K))
    )
    assert abs(rows.integers[0, 0]) <= LARGEST[bits]
    sums = [int(total[0, 0]) for total in sums_of_digits(rows, rows, count)]
    largest = max(map(abs, sums))
    assert largest == K * {8: 127**2, 16: 2 * 127 * 128, 24: 2 * 126 * 128 + 128**2}[bits]
    assert 0.98 * 2**31 < largest < 2**31
