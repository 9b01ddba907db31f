"""Gradients of an output by the input, at x and at many points at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fastlstm._arguments import RealArray, as_flag
from fastlstm.explain._attribution import Attribution
from fastlstm.explain._inputs import Given, as_given
from fastlstm.explain._models import Model, as_model
from fastlstm.explain._outputs import Pick, as_output


def gradients(
    model: Any,
    x: npt.ArrayLike,
    output: Any,
    *,
    times_input: bool = False,
    lengths: npt.ArrayLike | None = None,
    mask: npt.ArrayLike | None = None,
    state: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
    head: str | None = None,
) -> Attribution:
    """Return the gradient of an output by each step and feature.

    Parameters
    ----------
    model : LSTM, BiLSTM or Network
        Nothing is dropped, as in a call. Of a network x is what it is called with, not in the units
        of a `scaling`, and the output a number of z.
    x : array_like (T, B, I), (B, T, I) with ``batch_first``, or (T, I)
        With an embedding integers (T, B), (B, T) or (T,); gradients are by their vectors.
    output : int, str, tuple or callable
        Which number, see :mod:`fastlstm.explain`.
    times_input : bool, default False
        Whether to multiply by x: the shares of a linear function.
    lengths, mask : array_like, optional
        Which steps exist: lengths (B,), or a mask of booleans of x's first axes.
    state : (h_0, c_0), optional
        Initial states, of a layer; zeros when omitted.
    head : str, optional
        Of a network with several.

    Returns
    -------
    Attribution

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described; TypeError of a quantised layer, which has no gradients.

    References
    ----------
    .. [1] K. Simonyan, A. Vedaldi and A. Zisserman, "Deep inside convolutional networks",
       arXiv:1312.6034, 2013.
    """
    of, given, pick = prepared(model, x, output, lengths, mask, state, head)
    times_input = as_flag("times_input", times_input)
    values = np.empty(given.x.shape)
    outputs = np.empty(given.batch_size)
    for first in range(0, given.batch_size, given.at_once):
        part = slice(first, first + given.at_once)
        numbers = np.arange(given.batch_size)[part]
        outputs[part], values[:, part] = gradient_at(of, given, given.x[:, part], numbers, pick)
    if times_input:
        values *= given.x
    method = "gradients times input" if times_input else "gradients"
    return attribution(given, values, outputs, None, None, 1, True, method)


def prepared(
    model: Any,
    x: Any,
    output: Any,
    lengths: Any,
    mask: Any,
    state: Any,
    head: Any,
    *,
    needs_gradient: bool = True,
) -> tuple[Model, Given, Pick]:
    """Return what is explained, its inputs, and what picks the output; all checked."""
    of = as_model(model, head)
    pick = as_output(output, of.answers, needs_gradient=needs_gradient)
    if needs_gradient and of.lstm.bits is not None:
        raise TypeError(
            f"model: got a layer of {of.lstm.bits} bits, whose results have no gradients; explain "
            "the float32 layer that it was quantised from, or use occlusion"
        )
    return of, as_given(of, x, lengths, mask, state, getattr(of, "table", None)), pick


def gradient_at(
    model: Model, given: Given, x: RealArray, sequences: Any, pick: Pick
) -> tuple[RealArray, RealArray]:
    """Return values (N,) and gradients (T, N, I) at x (T, N, I), of the sequences given (N,)."""
    lengths, state = given.rows(sequences)
    # In the order of time, whose sums over inputs the kernels take many rows at once for.
    return model.gradient(x.astype(model.lstm.dtype, order="C"), lengths, state, pick)


def values_at(model: Model, given: Given, x: RealArray, sequences: Any, pick: Pick) -> RealArray:
    """Return values (N,) at x (T, N, I), of the sequences given (N,), some in each call."""
    parts = []
    for first in range(0, len(sequences), given.at_once):
        part = slice(first, first + given.at_once)
        lengths, state = given.rows(sequences[part])
        parts.append(model.values(x[:, part].astype(model.lstm.dtype), lengths, state, pick))
    return np.concatenate(parts)


def attribution(
    given: Given,
    values: RealArray,
    outputs: RealArray,
    baseline_outputs: RealArray | None,
    residual: RealArray | None,
    points: int,
    converged: bool,
    method: str,
) -> Attribution:
    """Return what was found for (T, B, I) as the caller has it."""
    T, B = given.x.shape[:2]
    lengths = np.full(B, T) if given.lengths is None else given.lengths
    present = given.as_given(given.present[..., np.newaxis].astype(np.float64))[..., 0] > 0
    return Attribution(
        given.as_given(values),
        given.each(outputs),
        None if baseline_outputs is None else given.each(baseline_outputs),
        None if residual is None else given.each(residual),
        points,
        converged,
        method,
        given.each(lengths),
        given.batch_first,
        present,
    )
