"""Compute the polynomial coefficients of ``math_tpl.h``.

Run ``python src_c/kernels/minimax.py`` (needs mpmath) to print the two tables. On the interval that
the argument reduction leaves, ``|r| <= ln(2)/2``, the kernels evaluate

    expm1(r) ~= r + r*r * (q_0 + q_1 r + ... + q_n r^n)

and this script finds the q with the smallest largest relative error by the Remez exchange
algorithm (Remez 1934): the error is made to swing between equal and opposite extremes at n + 2
points, the points are moved to the extremes of the new error, and so on until they rest.
"""

from __future__ import annotations

import sys

import mpmath as mp

mp.mp.dps = 60
#: Half of ln(2), widened a little because the reduction rounds to nearest in working precision.
BOUND = mp.log(2) / 2 * (1 + mp.mpf(2) ** -10)


def target(r: mp.mpf) -> mp.mpf:
    """Return (expm1(r) - r) / r^2, what the polynomial q approximates."""
    if abs(r) < mp.mpf(10) ** -12:
        return mp.mpf(1) / 2 + r / 6
    return (mp.expm1(r) - r) / r**2


def weight(r: mp.mpf) -> mp.mpf:
    """Return the factor that turns an error of q into a relative error of expm1(r)."""
    return abs(r) if abs(r) < mp.mpf(10) ** -12 else r**2 / abs(mp.expm1(r))


def extremes_of(errors: list[mp.mpf], count: int) -> list[int]:
    """Return where the error swings to the largest extremes of alternating signs, `count` of them.

    Raises
    ------
    ArithmeticError
        If it has fewer.
    """
    extremes: list[int] = []
    for i, error in enumerate(errors):
        if extremes and mp.sign(errors[extremes[-1]]) == mp.sign(error):
            if abs(error) > abs(errors[extremes[-1]]):
                extremes[-1] = i
        else:
            extremes.append(i)
    while len(extremes) > count:
        drop = 0 if abs(errors[extremes[0]]) < abs(errors[extremes[-1]]) else -1
        extremes.pop(drop)
    if len(extremes) < count:
        raise ArithmeticError(f"{len(extremes)} extremes, expected {count}")
    return extremes


def remez(degree: int) -> tuple[list[mp.mpf], mp.mpf]:
    """Return the coefficients of q (constant term first) and the largest relative error."""
    count = degree + 2
    nodes = [-BOUND * mp.cos(mp.pi * i / (count - 1)) for i in range(count)]
    nodes = [r if abs(r) > mp.mpf(10) ** -6 else BOUND / 50 for r in nodes]
    # An even number of points: r = 0, where the weight vanishes, is not among them.
    grid = [BOUND * (2 * mp.mpf(i) / 3999 - 1) for i in range(4000)]
    coefficients: list[mp.mpf] = []
    for _ in range(30):
        system = mp.matrix(count, count)
        right = mp.matrix(count, 1)
        for row, r in enumerate(nodes):
            for power in range(degree + 1):
                system[row, power] = r**power
            system[row, degree + 1] = (-1) ** row / weight(r)
            right[row] = target(r)
        solution = mp.lu_solve(system, right)
        coefficients = [solution[i] for i in range(degree + 1)]
        level = abs(solution[degree + 1])

        errors = [(mp.polyval(coefficients[::-1], r) - target(r)) * weight(r) for r in grid]
        extremes = extremes_of(errors, count)
        nodes = [grid[i] for i in extremes]
        worst = max(abs(error) for error in errors)
        if worst / level < 1 + mp.mpf(10) ** -3:
            break
    return coefficients, worst


def main() -> None:
    """Print both coefficient tables as C initialisers."""
    for name, degree, digits in (("float", 4, 9), ("double", 9, 17)):
        coefficients, error = remez(degree)
        print(
            f"/* {name}: relative error {mp.nstr(error, 3)} = 2^{mp.nstr(mp.log(error, 2), 4)} */"
        )
        for power, q in enumerate(coefficients):
            print(f"    {mp.nstr(q, digits, strip_zeros=False)},  /* q_{power} */")


if __name__ == "__main__":
    sys.exit(main())
