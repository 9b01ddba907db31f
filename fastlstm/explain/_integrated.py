"""Integrated gradients: shares that add up to the difference from a baseline."""

from __future__ import annotations

import functools
import warnings
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastlstm._arguments import RealArray, as_finite, as_size
from fastlstm.explain._attribution import Attribution
from fastlstm.explain._baselines import as_baselines
from fastlstm.explain._gradients import attribution, gradient_at, prepared, values_at
from fastlstm.explain._inputs import Given
from fastlstm.explain._models import Model
from fastlstm.explain._outputs import Pick


def integrated_gradients(
    model: Any,
    x: npt.ArrayLike,
    output: Any,
    *,
    baseline: Any = None,
    data: Any = None,
    draws: int = 8,
    rng: int | np.random.Generator | None = None,
    points: int = 8,
    tolerance: float = 1e-4,
    max_points: int = 1024,
    lengths: npt.ArrayLike | None = None,
    mask: npt.ArrayLike | None = None,
    state: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
    head: str | None = None,
) -> Attribution:
    """Return the shares of each step and feature in the difference of an output from a baseline's.

    The gradient is averaged over the straight path from the baseline to x, and multiplied by their
    difference [1]_. The shares add up to the difference of the outputs, but for what the average
    over some points lacks to the integral: the residual.

    Parameters
    ----------
    model, x, output, lengths, mask, state, head
        As of `gradients`.
    baseline : array_like or str, optional
        Where the path begins: zeros when omitted, or "zeros"; an array (I,), (T, I) or of the shape
        of x; "mean", of each feature, over `data` or the steps of x that exist; or "data", for
        `draws` stretches of `data` as long as x, drawn anew for each sequence, whose shares are
        averaged [2]_. With an embedding it is of vectors.
    data : array_like or list of array_like, optional
        Sequences: arrays as x is, or a list of them; with an embedding of vectors, too.
    draws : int, default 8
    rng : int or numpy.random.Generator, optional
        For the draws.
    points : int, default 8
        Of the path at first: those of the Gauss-Legendre rule, with its weights. All are
        sequences of one batch.
    tolerance : float, default 1e-4
        In the unit of the output: where a sequence's residual is larger, its points are doubled
        until it is not. The rounding of a float32 layer remains, about 1e-6 of the output.
    max_points : int, default 1024
        Points that a path has at most.

    Returns
    -------
    Attribution
        Its ``residual`` is that of each sequence.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described; TypeError of a quantised layer, which has no gradients.

    Warns
    -----
    UserWarning
        If a residual is still above `tolerance` with `max_points`; ``converged`` is then False.

    Notes
    -----
    As many points and sequences run in one call as make about 2**21 numbers of inputs and gates,
    but six at least. The rule is exact for polynomials of twice as many degrees as it has points: a
    smooth model takes few.

    References
    ----------
    .. [1] M. Sundararajan, A. Taly and Q. Yan, "Axiomatic attribution for deep networks", ICML
       2017.
    .. [2] G. Erion and others, "Improving performance of deep learning models with axiomatic
       attribution priors and expected gradients", Nature Machine Intelligence 3, 2021.
    """
    of, given, pick = prepared(model, x, output, lengths, mask, state, head)
    n, most = as_size("points", points), as_size("max_points", max_points)
    bound = as_finite("tolerance", tolerance, np.dtype(np.float64))
    if bound < 0:
        raise ValueError(f"tolerance: got {bound}, expected 0 or more")
    if n > most:
        raise ValueError(f"points: got {n}, expected at most max_points, {most}")
    baselines = as_baselines(baseline, given, of, data, draws, rng)
    T, B, K, I = baselines.shape
    differences = given.x[:, :, np.newaxis] - baselines
    differences[~given.present] = 0  # whatever padding holds, NaN say, is no part of a sum
    starts = baselines.reshape(T, B * K, I)
    paths = _Paths(
        np.ascontiguousarray(differences.reshape(T, B * K, I).swapaxes(0, 1)),
        np.ascontiguousarray(starts.swapaxes(0, 1)),
        np.repeat(np.arange(B), K),
    )
    ends = np.concatenate([given.x, starts], axis=1)
    whose = np.append(np.arange(B), paths.sequences)
    at_ends = values_at(of, given, ends, whose, pick).astype(np.float64)
    outputs, baseline_outputs = at_ends[:B], at_ends[B:].reshape(B, K).mean(axis=1)
    values, residual = np.empty((T, B, I)), np.empty(B)
    left = np.arange(B)
    while left.size:
        chosen = (left[:, np.newaxis] * K + np.arange(K)).ravel()
        shares = _integrate(of, given, paths.of(chosen), n, pick)
        values[:, left] = shares.reshape(T, left.size, K, I).mean(axis=2)
        added = values[:, left].sum(axis=(0, 2))
        residual[left] = outputs[left] - baseline_outputs[left] - added
        left = left[np.abs(residual[left]) > bound]  # one that is NaN stays so
        if 2 * n > most:
            break
        n *= 2 if left.size else 1
    above = int(np.sum(~(np.abs(residual) <= bound)))
    if above:
        largest = float(np.abs(residual).max())
        warnings.warn(
            f"integrated_gradients: with {n} points the residual of {above} of {B} sequences "
            f"is up to {largest:.2g}, above tolerance={bound:g}; a larger max_points may help",
            stacklevel=2,
        )
    return attribution(given, values, outputs, baseline_outputs, residual, n, above == 0,
                       "integrated gradients")  # fmt: skip


class _Paths(NamedTuple):
    """Straight paths, one after the other: points of them are then made in long runs of memory."""

    differences: RealArray  # (N, T, I): from start to end
    starts: RealArray  # (N, T, I)
    sequences: Any  # (N,): whose they are

    def of(self, chosen: Any) -> _Paths:
        """Return some."""
        return _Paths(*(part[chosen] for part in self))


def _integrate(model: Model, given: Given, paths: _Paths, n: int, pick: Pick) -> RealArray:
    """Return the shares (T, N, I) by n points."""
    inside, weights = _rule(n)
    N, T, I = paths.differences.shape
    total = np.zeros((T, N, I))
    many = max(1, given.at_once // n)  # paths of one call
    few = -(-n // -(-n // given.at_once))  # points of one call, about as many in each
    for first in range(0, N, many):
        part = paths.of(slice(first, first + many))
        for start in range(0, n, few):
            point = slice(start, start + few)
            x = inside[point, np.newaxis] * part.differences.reshape(-1, 1, T * I)
            x += part.starts.reshape(-1, 1, T * I)
            rows, sequences = x.reshape(-1, T, I), np.repeat(part.sequences, x.shape[1])
            _, slopes = gradient_at(model, given, rows.swapaxes(0, 1), sequences, pick)
            slopes = slopes.reshape(T, -1, x.shape[1], I)
            total[:, first : first + many] += np.matmul(weights[point], slopes)
    return total * paths.differences.swapaxes(0, 1)


@functools.lru_cache(maxsize=16)
def _rule(n: int) -> tuple[RealArray, RealArray]:
    """Return n points inside a path of length 1, by the rule of Gauss and Legendre, and weights."""
    nodes, weights = np.polynomial.legendre.leggauss(n)
    return (nodes + 1) / 2, weights / 2
