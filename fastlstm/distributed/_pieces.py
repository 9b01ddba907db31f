"""Pieces of sequences, one after the other: answers, and the state to go on from.

Letters: T time steps, B batch.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastlstm._steps import as_steps
from fastlstm.lstm import LSTM, BiLSTM
from fastlstm.training import Network
from fastlstm.training.layout import ONLY
from fastlstm.training.predictions import decided, probabilities

Array: TypeAlias = NDArray[Any]
#: h (L*D, B, P) and c (L*D, B, H).
State: TypeAlias = tuple[Array, Array]


def run_layer(
    layer: LSTM | BiLSTM, x: Array, present: Array | None, state: State | None
) -> tuple[Any, State]:
    """Return y of a layer, 0 at steps that don't exist, and the state after x.

    Parameters
    ----------
    layer : LSTM or BiLSTM
    x : array (T, B, I), or (B, T, I) of a layer with ``batch_first``
    present : array of bool (T, B) or (B, T), or None
        Which steps exist; None if all.
    state : (h, c) or None
        Before x; None is 0.
    """
    if present is None:
        return layer(x, state)
    first = layer.batch_first
    x = x.swapaxes(0, 1) if first else x
    steps = as_steps(None, present, x.shape[:2], first)
    assert steps is not None  # there is a mask
    gathered = steps.gather(x)
    gathered = gathered.swapaxes(0, 1) if first else gathered
    y, state = layer(gathered, state, lengths=steps.lengths)
    if not layer.return_sequences:
        return y, state
    y = y.swapaxes(0, 1) if first else y
    out = np.zeros((*x.shape[:2], y.shape[-1]), y.dtype)
    steps.scatter(y[steps.present(len(y))], out)
    return (out.swapaxes(0, 1) if first else out), state


def run_network(
    network: Network, method: str, x: Array, present: Array | None, state: State | None
) -> tuple[Any, State]:
    """Return what a method of a network with an answer at each step gives, and the state after x.

    Parameters are as of `run_layer`, the answers as of the method.
    """
    y, state = run_layer(network.lstm, network._in_own_unit(x), present, state)
    heads = network.heads
    answers = {}
    for name, z in network._heads_of(y).items():
        spec = heads[name]
        if method == "predict":
            scaling = network.scaling if name == ONLY else None
            answers[name] = decided(spec, z, scaling, present)
        elif method == "predict_proba":
            if spec.is_decision:
                answers[name] = probabilities(spec, z, present)
        else:
            answers[name] = z if present is None else np.where(present[..., np.newaxis], z, 0)
    return answers.get(ONLY, answers), state
