"""Weights of 0 at the end of sequences: padding, or answers that nobody knows.

A layer that goes forward gives the same losses either way. One that begins at the end does not: it
would read the padding first. What the inputs there are decides, and is said; where it does not
decide, the caller has to.

Letters: T time steps, B batch.
"""

from __future__ import annotations

import warnings

import numpy as np

from fastlstm._steps import Mask, Steps
from fastlstm.lstm import LSTM, BiLSTM
from fastlstm.training.sequences import Array, Sequences, counting


def without_padding(name: str, sequences: Sequences, layer: LSTM | BiLSTM) -> Sequences:
    """Return sequences as a layer is to read them.

    Nothing changes unless answers have weights, the layer begins at the end (``reverse``, or a
    BiLSTM), and nobody said which steps exist.

    Warns
    -----
    UserWarning
        If sequences end in steps of weight 0. Where x and y are 0 or NaN (classes: 0 or below) in
        all of them, these steps are padding; where x holds all kinds of numbers, inputs.

    Raises
    ------
    ValueError
        If it may be either: x is the same at all such steps, or blank at some of them.
    """
    if not (layer.needs_whole_sequences and sequences.each_step):
        return sequences
    if sequences.weights is None or sequences.steps is not None:
        return sequences
    counted = sequences.time_first(sequences.weights > 0)
    T = len(counted)
    # Steps up to the last answer that counts; none where there is no such answer.
    lengths = np.where(counted.any(axis=0), T - counted[::-1].argmax(axis=0), 0)
    tail: Mask = np.arange(T)[:, np.newaxis] >= lengths
    if not tail.any():
        return sequences
    x = sequences.time_first(sequences.x)[tail]
    y = sequences.time_first(sequences.y)[tail]
    which = (
        f"{name}: {counting(int((lengths < T).sum()), 'sequence')} of {lengths.size} end in steps "
        "whose weights are 0"
    )
    choice = f"lengths= or mask= say which steps are padding, lengths={T} that none is"
    blank = _is_blank(x).all(axis=-1)
    blank_y = (y <= 0) if sequences.classes else _is_blank(y).all(axis=-1)
    if blank.all() and blank_y.all():
        warnings.warn(
            f"{which} and whose x and y are blank: taken for padding, which the layer does not "
            f"read; {choice}",
            stacklevel=4,
        )
        return sequences.with_steps(Steps(lengths.astype(np.intp), None))
    if blank.any() or (len(x) > 1 and (x == x[0]).all()):
        raise ValueError(
            f"{which}; the layer begins at the end, and it is not clear whether to read them: "
            f"{choice}"
        )
    warnings.warn(f"{which}: their inputs are read by the layer; {choice}", stacklevel=4)
    return sequences


def _is_blank(array: Array) -> Mask:
    """Where numbers are 0 or NaN."""
    blank: Mask = (array == 0) | (array != array)
    return blank
