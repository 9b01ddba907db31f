"""The executable specification of fastlstm: an LSTM in plain NumPy.

Every function here says one idea in the words of the equations, in float64 unless told otherwise,
and without a trick for speed. The fast kernels are tested against it, and it is the place to look
when the meaning of an argument is in doubt.

Letters: T time steps, B batch, I input size, H hidden size, L layers, D directions. The four gates
come in the order i, f, g, o (PyTorch's), stacked along the first axis of ``W``, ``U`` and ``b``.
``@`` is the matrix product and ``*`` the elementwise one::

    f_t = sigmoid(W_f @ x_t + U_f @ h_{t-1} + b_f)        forget gate
    i_t = sigmoid(W_i @ x_t + U_i @ h_{t-1} + b_i)        input gate
    o_t = sigmoid(W_o @ x_t + U_o @ h_{t-1} + b_o)        output gate
    g_t = tanh   (W_g @ x_t + U_g @ h_{t-1} + b_g)        cell input
    c_t = f_t * c_{t-1} + i_t * g_t                       cell state
    h_t = o_t * tanh(c_t)                                 hidden state

PyTorch's arrays hold these: ``weight_ih_l0`` is W, ``weight_hh_l0`` is U, and ``bias_ih_l0 +
bias_hh_l0`` is b.

Sources
-------
.. [1] S. Hochreiter and J. Schmidhuber, "Long short-term memory", Neural Computation 9(8), 1997:
   the cell.
.. [2] F. A. Gers, J. Schmidhuber and F. Cummins, "Learning to forget: continual prediction with
   LSTM", Neural Computation 12(10), 2000: the forget gate.
.. [3] A. Graves and J. Schmidhuber, "Framewise phoneme classification with bidirectional LSTM and
   other neural network architectures", Neural Networks 18(5-6), 2005: two directions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from fastlstm.arguments import RealArray, as_real_array, as_size, as_state
from fastlstm.parameters import Architecture, join, split

__all__ = ["forward", "lstm_cell", "lstm_layer", "sigmoid"]


def sigmoid(x: RealArray) -> RealArray:
    """Logistic function 1 / (1 + exp(-x)), which never overflows.

    Parameters
    ----------
    x : array of floats, any shape

    Returns
    -------
    array, same shape and dtype
        In [0, 1]; NaN where `x` is NaN.

    Notes
    -----
    ``exp`` only ever sees -abs(x), so it is at most 1. Where x < 0 the same value is written exp(x)
    / (1 + exp(x)), which keeps its relative accuracy however small it is.
    """
    with np.errstate(under="ignore"):
        e = np.exp(-np.abs(x))
        return np.where(x >= 0, 1 / (1 + e), e / (1 + e))


def lstm_cell(
    x_t: RealArray, h: RealArray, c: RealArray, W: RealArray, U: RealArray, b: RealArray | None
) -> tuple[RealArray, RealArray]:
    """One time step of one layer in one direction, the six equations [1]_ [2]_.

    Parameters
    ----------
    x_t : array (B, I)
        Input of this step.
    h : array (B, H)
        Hidden state of the step before.
    c : array (B, H)
        Cell state of the step before.
    W : array (4*H, I)
        Input weights, gates stacked in the order i, f, g, o.
    U : array (4*H, H)
        Recurrent weights, stacked likewise.
    b : array (4*H,) or None
        Bias, stacked likewise; None is zero.

    Returns
    -------
    h_t : array (B, H)
        o_t * tanh(c_t)
    c_t : array (B, H)
        f_t * c + i_t * g_t
    """
    # The rows of x_t and h are sequences, hence the transposes.
    gates = x_t @ W.T + h @ U.T  # (B, 4*H)
    if b is not None:
        gates = gates + b
    i, f, g, o = np.split(gates, 4, axis=-1)
    i_t = sigmoid(i)
    f_t = sigmoid(f)
    g_t = np.tanh(g)
    o_t = sigmoid(o)
    c_t = f_t * c + i_t * g_t
    h_t = o_t * np.tanh(c_t)
    return h_t, c_t


def lstm_layer(
    x: RealArray,
    h_0: RealArray,
    c_0: RealArray,
    W: RealArray,
    U: RealArray,
    b: RealArray | None,
    *,
    reverse: bool = False,
) -> tuple[RealArray, RealArray, RealArray]:
    """One layer in one direction over all time steps.

    Parameters
    ----------
    x : array (T, B, I)
    h_0, c_0 : array (B, H)
        State before the first step taken.
    W, U, b : arrays (4*H, I), (4*H, H) and (4*H,) or None
        As in `lstm_cell`.
    reverse : bool
        Walk from t = T-1 down to 0 instead of from 0 up to T-1.

    Returns
    -------
    y : array (T, B, H)
        ``y[t]`` is the hidden state after reading ``x[t]``, in either direction.
    h_n, c_n : array (B, H)
        State after the last step taken; with `reverse` that step is t = 0. With T = 0 they equal
        `h_0` and `c_0`.
    """
    T, B, _ = x.shape
    y = np.empty((T, B, h_0.shape[-1]), dtype=x.dtype)
    h, c = h_0, c_0
    for t in reversed(range(T)) if reverse else range(T):
        h, c = lstm_cell(x[t], h, c, W, U, b)
        y[t] = h
    return y, h.copy(), c.copy()


def forward(
    x: ArrayLike,
    state: tuple[ArrayLike, ArrayLike] | None,
    parameters: Mapping[str, ArrayLike],
    *,
    num_layers: int = 1,
    num_directions: int = 1,
    dtype: DTypeLike = np.float64,
) -> tuple[RealArray, tuple[RealArray, RealArray]]:
    """Run a stack of L layers in one or two directions.

    Parameters
    ----------
    x : array_like (T, B, I)
        Real numbers. NaN and infinity propagate. T and B may be 0.
    state : None or pair of array_like, each (L*D, B, H)
        ``(h_0, c_0)``; None is zeros. Row ``l*D + d`` belongs to layer l and direction d (0
        forward, 1 reverse).
    parameters : mapping of str to array_like
        PyTorch's names and shapes. The biases may be absent, then all of
        them.
    num_layers : int
        L, at least 1.
    num_directions : int
        D: 1, or 2 for a bidirectional LSTM (Graves & Schmidhuber 2005).
    dtype : NumPy floating dtype
        Everything is converted to it first and computed in it.

    Returns
    -------
    y : array (T, B, D*H)
        Hidden states of the last layer; the first H features are the forward direction's, the next
        H the reverse's.
    (h_n, c_n) : pair of arrays, each (L*D, B, H)
        Final states. The reverse direction ends at t = 0.

    Raises
    ------
    TypeError
        If `dtype` is not floating, or `x`, `state` or a parameter does not hold real numbers.
    ValueError
        If a shape does not fit, a parameter is missing or unexpected, or a count is out of range.
        The message names the argument.
    """
    working = np.dtype(dtype)
    if working.kind != "f":
        raise TypeError(f"dtype: got {working}, expected a floating dtype")
    num_layers = as_size("num_layers", num_layers)
    num_directions = as_size("num_directions", num_directions, 2)
    inputs = as_real_array("x", x, working)
    if inputs.ndim != 3:
        raise ValueError(f"x: got shape {inputs.shape}, expected (T, B, I)")
    arrays = _as_parameters(parameters, num_layers, num_directions, working)
    input_size, hidden_size = arrays["weight_ih_l0"].shape[1], arrays["weight_hh_l0"].shape[1]
    if inputs.shape[2] != input_size:
        raise ValueError(f"x: got shape {inputs.shape}, expected (T, B, {input_size})")
    state_shape = (num_layers * num_directions, inputs.shape[1], hidden_size)
    h_0, c_0 = _as_states(state, state_shape, working)

    h_n = np.empty_like(h_0)
    c_n = np.empty_like(c_0)
    layer_input = inputs
    # Overflow to infinity and inf - inf = NaN are the documented outcome: not worth a warning.
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        for layer in range(num_layers):
            outputs = []
            for direction, suffix in enumerate(("", "_reverse")[:num_directions]):
                row = layer * num_directions + direction
                y, h_n[row], c_n[row] = lstm_layer(
                    layer_input,
                    h_0[row],
                    c_0[row],
                    arrays[f"weight_ih_l{layer}{suffix}"],
                    arrays[f"weight_hh_l{layer}{suffix}"],
                    _bias(arrays, f"l{layer}{suffix}"),
                    reverse=direction == 1,
                )
                outputs.append(y)
            layer_input = np.concatenate(outputs, axis=-1)
    return layer_input, (h_n, c_n)


def _bias(arrays: Mapping[str, RealArray], tail: str) -> RealArray | None:
    """Add the two biases (4*H,) that PyTorch keeps to the one b; None when there are none."""
    if f"bias_ih_{tail}" not in arrays:
        return None
    return arrays[f"bias_ih_{tail}"] + arrays[f"bias_hh_{tail}"]


def _as_parameters(
    parameters: Mapping[str, ArrayLike],
    num_layers: int,
    num_directions: int,
    dtype: np.dtype[Any],
) -> dict[str, RealArray]:
    """Return every parameter as an array of `dtype`, names and shapes checked."""
    if not isinstance(parameters, Mapping):
        raise TypeError(f"parameters: got {type(parameters).__name__}, expected a mapping of names")
    columns = []
    for name, shape in (("weight_ih_l0", "(4*H, I)"), ("weight_hh_l0", "(4*H, H)")):
        array = as_real_array(f"parameters: {name}", parameters.get(name, 0), dtype)
        if array.ndim != 2 or array.size == 0:
            raise ValueError(f"parameters: {name} is missing, empty or not of shape {shape}")
        columns.append(array.shape[1])
    input_size, hidden_size = columns
    bias = any(name.startswith("bias_") for name in parameters)
    sizes = Architecture(input_size, hidden_size, num_layers, num_directions, bias)
    return split(join("parameters", parameters, sizes, dtype), sizes)


def _as_states(
    state: tuple[ArrayLike, ArrayLike] | None, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> tuple[RealArray, RealArray]:
    """Return (h_0, c_0) as arrays of `dtype` and of `shape` (L*D, B, H)."""
    if state is None:
        return np.zeros(shape, dtype), np.zeros(shape, dtype)
    if not isinstance(state, (tuple, list)) or len(state) != 2:
        raise ValueError("state: expected None or a pair (h_0, c_0)")
    return as_state("h_0", state[0], shape, dtype), as_state("c_0", state[1], shape, dtype)
