"""Weights of 0 at the end of sequences: padding, or answers that nobody knows.

A layer that goes forward gives the same losses either way. One that begins at the end does not: it
would read the padding first. What the inputs there are decides, and is said; where they do not
decide, the caller has to.

Letters: T time steps, B batch.
"""

from __future__ import annotations

import warnings

import numpy as np

from fastlstm._steps import Mask, Steps
from fastlstm.lstm import LSTM, BiLSTM
from fastlstm.training.answers import together
from fastlstm.training.checks import Array, counting
from fastlstm.training.sequences import Sequences


def without_padding(name: str, sequences: Sequences, layer: LSTM | BiLSTM) -> Sequences:
    """Return sequences as a layer is to read them: see `steps_of_tails`.

    Warns
    -----
    UserWarning
        If sequences end in steps of weight 0, or where nothing tells such steps, in zeros.

    Raises
    ------
    ValueError
        If it is not clear what these steps are.
    """
    if sequences.steps is not None:
        return sequences
    if sequences.weights is None or not sequences.each_step:
        _warn_of_zeros(name, sequences)
        return sequences
    if not layer.needs_whole_sequences:
        return sequences
    y, weights = together(sequences.y, sequences.weights)
    if weights is None:  # of a head, whose answers all count
        return sequences
    arrays = map(sequences.time_first, (sequences.x, y, weights))
    steps = steps_of_tails(name, *arrays, read_silently=False)
    return sequences if steps is None else sequences.with_steps(steps)


def steps_of_tails(
    name: str, x: Array, y: Array, weights: Array, *, read_silently: bool
) -> Steps | None:
    """Tell what sequences are that end in steps of weight 0, for a layer that begins at the end.

    Where x and y are 0 or NaN (classes: 0 or below) in all such steps, these are padding. Where x
    holds all kinds of numbers, they are inputs.

    Parameters
    ----------
    name : str
        Of the sequences, for messages.
    x : array (T, B, I)
    y : array (T, B, K), of classes (T, B)
    weights : array (T, B)
    read_silently : bool
        Whether to say nothing if they are inputs.

    Returns
    -------
    Steps or None
        None if there are no such sequences.

    Warns
    -----
    UserWarning
        If there are.

    Raises
    ------
    ValueError
        If they may be either: x is the same at all such steps, or blank at some of them.
    """
    counted = weights > 0
    T = len(counted)
    # Steps up to the last answer that counts; none where there is no such answer.
    lengths = np.where(counted.any(axis=0), T - counted[::-1].argmax(axis=0), 0).astype(np.intp)
    tail: Mask = np.arange(T)[:, np.newaxis] >= lengths
    if not tail.any():
        return None
    x, y = x[tail], y[tail]
    level = 4 if read_silently else 5  # the line that called the network, or the trainer
    which = (
        f"{name}: {counting(int((lengths < T).sum()), 'sequence')} of {lengths.size} end in steps "
        "whose weights are 0"
    )
    choice = f"lengths= or mask= say which steps are padding, lengths={T} that none is"
    blank = _is_blank(x).all(axis=-1)
    blank_y = _is_blank(y).all(axis=-1) if y.dtype.kind == "f" else (y <= 0)
    if blank.all() and blank_y.all():
        warnings.warn(
            f"{which} and whose x and y are blank: taken for padding, which the layer does not "
            f"read; {choice}",
            stacklevel=level,
        )
        return Steps(lengths, None)
    if blank.any() or (len(x) > 1 and (x == x[0]).all()):
        raise ValueError(
            f"{which}; the layer begins at the end, and it is not clear whether to read them: "
            f"{choice}"
        )
    if not read_silently:
        warnings.warn(f"{which}: their inputs are read by the layer; {choice}", stacklevel=level)
    return Steps(np.full(lengths.shape, T, np.intp), None)


def _warn_of_zeros(name: str, sequences: Sequences) -> None:
    """Warn if some sequences, but not all, end in inputs of zeros, as if they were padded."""
    x = sequences.time_first(sequences.x)
    zeros = ~x[-1].any(axis=-1)
    if zeros.any() and not zeros.all():
        warnings.warn(
            f"{name}: {counting(int(zeros.sum()), 'sequence')} of {zeros.size} end in inputs of "
            "zeros, which the layer reads; if they are padding, lengths= or mask= say so, "
            f"lengths={len(x)} says that they are not",
            stacklevel=4,
        )


def _is_blank(array: Array) -> Mask:
    """Where numbers are 0 or NaN."""
    blank: Mask = (array == 0) | (array != array)
    return blank
