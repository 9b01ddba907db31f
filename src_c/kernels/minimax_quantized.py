"""Compute the coefficients of ``activations_tpl.h``.

Run ``python src_c/kernels/minimax_quantized.py`` (needs mpmath) to print them. For 8 and 16 bits
the kernels evaluate two approximations, which have the smallest largest error of their form:

    2^f ~= 1 + c_1 f + ... + c_n f^n, relatively, for |f| <= 1/2; equally far off at both ends, so
           that the pieces of exp(-x) for different powers of two meet

    tanh(x) ~= x P(x^2) / Q(x^2), absolutely, for 0 <= x <= X, where it reaches 1

by the exchange algorithm of ``minimax.py``, of which the second is the rational form.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import mpmath as mp
from minimax import extremes_of

HALF = mp.mpf(1) / 2


def exp2(degree: int) -> tuple[list[mp.mpf], mp.mpf]:
    """Return 1, c_1, ... c_n and the largest relative error.

    c_1 is chosen so that p(1/2) = 2 p(-1/2), which leaves the basis functions f^k + f * tie(k). As
    the error is 0 at 0 and the same at both ends, it is a function on a circle that is cut at 0.
    """
    powers = range(2, degree + 1)
    count = len(powers) + 1

    def tie(k: int) -> mp.mpf:
        return (2 * (-HALF) ** k - HALF**k) * 2 / 3

    def on_circle(u: mp.mpf) -> mp.mpf:
        return u if u <= HALF else u - 1

    grid = [on_circle(mp.mpf(i) / 2000) for i in range(1, 2000)]
    nodes = [on_circle((i + HALF) / count) for i in range(count)]
    for _ in range(30):
        system, right = mp.matrix(count, count), mp.matrix(count, 1)
        for row, f in enumerate(nodes):
            for column, k in enumerate(powers):
                system[row, column] = (f**k + f * tie(k)) / 2**f
            system[row, count - 1] = -((-1) ** row)
            right[row] = 1 - (1 + 2 * f / 3) / 2**f
        *free, level = mp.lu_solve(system, right)
        first = mp.mpf(2) / 3 + sum(c * tie(k) for c, k in zip(free, powers, strict=True))
        coefficients = [mp.mpf(1), first, *free]
        errors = [mp.polyval(coefficients[::-1], f) / 2**f - 1 for f in grid]
        worst = max(abs(error) for error in errors)
        if worst / abs(level) < 1 + mp.mpf(10) ** -4:
            break
        nodes = [grid[i] for i in extremes_of(errors, count)]
    return coefficients, worst


def quotient(p: Sequence[mp.mpf], q: Sequence[mp.mpf], x: mp.mpf) -> mp.mpf:
    """Return x P(x^2) / Q(x^2)."""
    return x * mp.polyval(p[::-1], x * x) / mp.polyval(q[::-1], x * x)


def solve(
    degree: int, nodes: Sequence[mp.mpf], errors: Sequence[mp.mpf], sizes: Sequence[mp.mpf]
) -> tuple[list[mp.mpf], list[mp.mpf], mp.mpf]:
    """Return P, Q with Q(0) = 1, and a last unknown.

    They solve x P = (tanh(x) + error) Q + size * unknown at each node; where there are as many
    nodes as coefficients, there is no unknown.
    """
    count = len(nodes)
    system, right = mp.matrix(count, count), mp.matrix(count, 1)
    for row, (x, error, size) in enumerate(zip(nodes, errors, sizes, strict=True)):
        for k in range(degree + 1):
            system[row, k] = x ** (2 * k + 1)
        for k in range(1, degree + 1):
            system[row, degree + k] = -(mp.tanh(x) + error) * x ** (2 * k)
        if count > 2 * degree + 1:
            system[row, count - 1] = -size
        right[row] = mp.tanh(x) + error
    found = list(mp.lu_solve(system, right))
    return found[: degree + 1], [mp.mpf(1), *found[degree + 1 : 2 * degree + 1]], found[-1]


def tanh(degree: int, end: mp.mpf) -> tuple[list[mp.mpf], list[mp.mpf], mp.mpf]:
    """Return P and Q of one degree, and the error at `end`, which is the largest there is."""
    count = 2 * degree + 2
    grid = [end * mp.sin(mp.pi / 2 * i / 1499) for i in range(1, 1500)]
    # First the function is met at the zeros of a polynomial that swings alike.
    zeros = [end * mp.cos(mp.pi * (2 * i + 1) / (4 * count - 2)) for i in range(count - 1)]
    p, q, _ = solve(degree, zeros, [mp.mpf(0)] * (count - 1), [mp.mpf(0)] * (count - 1))
    while True:
        errors = [quotient(p, q, x) - mp.tanh(x) for x in grid]
        extremes = extremes_of(errors, count)
        sizes = [abs(errors[i]) for i in extremes]
        if max(sizes) / min(sizes) < 1 + mp.mpf(10) ** -4:
            return p, q, errors[extremes[-1]]
        nodes, signs = [grid[i] for i in extremes], [mp.sign(errors[i]) for i in extremes]
        level = sum(sizes) / count
        for _ in range(20):  # Newton's method: the level times Q is not linear
            weights = [
                sign * mp.polyval(q[::-1], x * x) for sign, x in zip(signs, nodes, strict=True)
            ]
            p, q, change = solve(degree, nodes, [sign * level for sign in signs], weights)
            level += change
            if abs(change) < level * mp.mpf(10) ** -12:
                break


def saturated(degree: int, low: mp.mpf, high: mp.mpf) -> tuple[list[mp.mpf], list[mp.mpf], mp.mpf]:
    """Return P, Q and the X between `low` and `high` where the error takes tanh(X) to 1."""
    while high - low > mp.mpf(10) ** -6:
        end = (low + high) / 2
        _, _, error = tanh(degree, end)
        low, high = (end, high) if mp.tanh(end) + error < 1 else (low, end)
    p, q, _ = tanh(degree, high)
    return p, q, high


def in_float(p: Sequence[mp.mpf], q: Sequence[mp.mpf], x: mp.mpf) -> tuple[mp.mpf, mp.mpf]:
    """Return x P(x^2) and Q(x^2) as the kernels compute them, each step rounded to 24 bits."""

    def rounded(value: mp.mpf) -> mp.mpf:
        with mp.workprec(24):
            return +value

    def horner(coefficients: Sequence[mp.mpf], y: mp.mpf) -> mp.mpf:
        total = rounded(coefficients[-1])
        for c in coefficients[-2::-1]:
            total = rounded(total * y + rounded(c))
        return total

    y = rounded(x * x)
    return rounded(x * horner(p, y)), horner(q, y)


def bound(p: Sequence[mp.mpf], q: Sequence[mp.mpf], end: mp.mpf) -> mp.mpf:
    """Return the first float from which on the quotient, in floats, is not below 1.

    Its numerator and its denominator must be equal to the bit there: it is the bound on x.
    """
    unit = mp.mpf(2) ** -21  # of floats from 4 to 8
    x = mp.floor(end * (1 - mp.mpf(10) ** -2) / unit) * unit
    while True:
        numerator, denominator = in_float(p, q, x)
        if numerator >= denominator:
            break
        x += unit
    if numerator != denominator:
        raise ArithmeticError(f"the quotient passes 1 at {x}")
    return x


def main() -> None:
    """Print all coefficients, in the order of their powers, and the bounds of tanh."""
    mp.mp.dps = 40
    for bits, degree, low, high in ((8, 2, 4.5, 6), (16, 3, 6.5, 8)):
        coefficients, error = exp2(degree + 1)
        print(f"/* {bits} bits: 2^f, relative error {mp.nstr(error, 3)} */")
        show("c", coefficients[1:])
        p, q, end = saturated(degree, mp.mpf(low), mp.mpf(high))
        print(f"/* {bits} bits: tanh, absolute error {mp.nstr(1 - mp.tanh(end), 3)} */")
        show("p", p)
        show("q", q[1:])
        show("X", [bound(p, q, end)])


def show(name: str, values: Sequence[mp.mpf]) -> None:
    """Print numbers as C initialisers."""
    for value in values:
        print(f"    {mp.nstr(value, 9, strip_zeros=False)},  /* {name} */")


if __name__ == "__main__":
    sys.exit(main())
