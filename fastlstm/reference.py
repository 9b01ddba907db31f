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
   other neural network architectures", Neural Networks 18(5-6), 2005: two directions, and the full
   gradient by backpropagation through time (appendix).
.. [4] P. J. Werbos, "Backpropagation through time: what it does and how to do it", Proceedings of
   the IEEE 78(10), 1990: the chain rule for a system with memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from fastlstm.arguments import RealArray, as_real_array, as_size, as_state
from fastlstm.parameters import Architecture, join, split

__all__ = [
    "backward",
    "forward",
    "lstm_cell",
    "lstm_cell_backward",
    "lstm_layer",
    "lstm_layer_backward",
    "sigmoid",
]


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
    i_t, f_t, g_t, o_t = _gates(x_t, h, W, U, b)
    c_t = f_t * c + i_t * g_t
    h_t = o_t * np.tanh(c_t)
    return h_t, c_t


def _gates(
    x_t: RealArray, h: RealArray, W: RealArray, U: RealArray, b: RealArray | None
) -> tuple[RealArray, RealArray, RealArray, RealArray]:
    """Return i_t, f_t, g_t, o_t, each (B, H): the first four equations."""
    # The rows of x_t and h are sequences, hence the transposes.
    z = x_t @ W.T + h @ U.T  # (B, 4*H)
    if b is not None:
        z = z + b
    z_i, z_f, z_g, z_o = np.split(z, 4, axis=-1)
    return sigmoid(z_i), sigmoid(z_f), np.tanh(z_g), sigmoid(z_o)


def lstm_cell_backward(
    x_t: RealArray,
    h: RealArray,
    c: RealArray,
    W: RealArray,
    U: RealArray,
    b: RealArray | None,
    dh_t: RealArray,
    dc_t: RealArray,
) -> tuple[RealArray, RealArray, RealArray, RealArray, RealArray, RealArray]:
    """Gradients of one time step: the six equations backwards [3]_ [4]_.

    Parameters
    ----------
    x_t, h, c, W, U, b : arrays
        What `lstm_cell` was given.
    dh_t : array (B, H)
        Gradient by h_t, of all that h_t enters: the output y_t and the next step.
    dc_t : array (B, H)
        Gradient by c_t, of what it enters outside this step: the next step.

    Returns
    -------
    dx_t, dh, dc, dW, dU : arrays of the shapes of `x_t`, `h`, `c`, `W`, `U`
    db : array (4*H,)
        Also where `b` is None: the gradient at b = 0.

    Notes
    -----
    dv is the gradient by v: the derivative of one number, the loss, by every entry of v. By the
    chain rule it has one term for every equation that v enters: the gradient by the left side
    times the derivative of the right side by v. So the equations are gone through from the last to
    the first, and whatever a quantity enters is known before it. z_i, z_f, z_g, z_o are the sums
    in brackets, such as z_f = W_f @ x_t + U_f @ h_{t-1} + b_f, and z (4*H) is all four stacked.

    0. h_t enters nothing in this step: `dh_t` arrives whole.

    1. o_t enters h_t = o_t * tanh(c_t) alone::

        do_t = dh_t * tanh(c_t)

    2. c_t enters the same equation, and c_{t+1} in the next step, whose term arrives. With tanh' =
       1 - tanh**2::

        dc_t = arriving dc_t + dh_t * o_t * (1 - tanh(c_t)**2)

    3. f_t, c_{t-1}, i_t and g_t enter c_t = f_t * c_{t-1} + i_t * g_t alone. (c_{t-1} also entered
       h_{t-1}: that is point 2 of the time step before.) ::

        df_t = dc_t * c_{t-1}        dc_{t-1} = dc_t * f_t
        di_t = dc_t * g_t            dg_t     = dc_t * i_t

    4. Each sum enters its own gate. With sigmoid' = sigmoid * (1 - sigmoid)::

        dz_f = df_t * f_t * (1 - f_t)        dz_i = di_t * i_t * (1 - i_t)
        dz_o = do_t * o_t * (1 - o_t)        dz_g = dg_t * (1 - g_t**2)

    5. x_t and h_{t-1} enter all four sums; the product with the stacked matrix adds their terms::

        dx_t = W.T @ dz        dh_{t-1} = U.T @ dz

    6. W, U and b enter the sums of every sequence of the batch, over which their terms are added::

        dW = sum of outer(dz, x_t)        dU = sum of outer(dz, h_{t-1})        db = sum of dz
    """
    i_t, f_t, g_t, o_t = _gates(x_t, h, W, U, b)
    tanh_c_t = np.tanh(f_t * c + i_t * g_t)
    do_t = dh_t * tanh_c_t
    dc_t = dc_t + dh_t * o_t * (1 - tanh_c_t**2)
    df_t = dc_t * c
    dc = dc_t * f_t
    di_t = dc_t * g_t
    dg_t = dc_t * i_t
    dz_i = di_t * i_t * (1 - i_t)
    dz_f = df_t * f_t * (1 - f_t)
    dz_g = dg_t * (1 - g_t**2)
    dz_o = do_t * o_t * (1 - o_t)
    dz = np.concatenate([dz_i, dz_f, dz_g, dz_o], axis=-1)  # (B, 4*H)
    # The rows of dz are sequences: a product from the left sums over them.
    return dz @ W, dz @ U, dc, dz.T @ x_t, dz.T @ h, dz.sum(axis=0)


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


def lstm_layer_backward(
    x: RealArray,
    h_0: RealArray,
    c_0: RealArray,
    W: RealArray,
    U: RealArray,
    b: RealArray | None,
    dy: RealArray,
    dh_n: RealArray,
    dc_n: RealArray,
    *,
    reverse: bool = False,
) -> tuple[RealArray, RealArray, RealArray, RealArray, RealArray, RealArray]:
    """Gradients of one layer in one direction, by backpropagation through time [3]_ [4]_.

    Walk the steps in the order in which `lstm_layer` took them and keep the states, then walk back.
    A hidden state enters the output and the next step, so the two gradients add up; W, U and b
    enter every step, so theirs add up over all of them.

    Parameters
    ----------
    x, h_0, c_0, W, U, b, reverse
        What `lstm_layer` was given.
    dy : array (T, B, H)
        Gradient by y.
    dh_n, dc_n : array (B, H)
        Gradients by the final states. h_n is also the last output, whose own gradient is in `dy`.

    Returns
    -------
    dx, dh_0, dc_0, dW, dU : arrays of the shapes of `x`, `h_0`, `c_0`, `W`, `U`
        With T = 0, `dh_0` and `dc_0` equal `dh_n` and `dc_n`, and the others are zeros.
    db : array (4*H,)
        Also where `b` is None.
    """
    T = x.shape[0]
    steps = list(reversed(range(T)) if reverse else range(T))
    before = {}  # the state that step t starts from
    h, c = h_0, c_0
    for t in steps:
        before[t] = h, c
        h, c = lstm_cell(x[t], h, c, W, U, b)

    dx, dW, dU, db = np.empty_like(x), np.zeros_like(W), np.zeros_like(U), np.zeros_like(W[:, 0])
    dh, dc = dh_n, dc_n
    for t in reversed(steps):
        dx[t], dh, dc, dW_t, dU_t, db_t = lstm_cell_backward(
            x[t], *before[t], W, U, b, dh + dy[t], dc
        )
        dW, dU, db = dW + dW_t, dU + dU_t, db + db_t
    return dx, dh.copy(), dc.copy(), dW, dU, db


def forward(
    x: ArrayLike,
    state: tuple[ArrayLike, ArrayLike] | None,
    parameters: Mapping[str, ArrayLike],
    *,
    lengths: ArrayLike | None = None,
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
    lengths : None or array_like (B,) of integers from 0 to T
        Steps of each sequence; the rest is padding. Each sequence is run as if it were alone: y is
        0 beyond its length, the states are those after its own last step, and the reverse direction
        begins there.
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
    inputs, h_0, c_0, arrays, sizes = _as_arguments(
        x, state, parameters, num_layers, num_directions, dtype
    )
    if lengths is not None:
        (T, B, _), (_, H, L, D, _) = inputs.shape, sizes
        y = np.zeros((T, B, D * H), inputs.dtype)
        h_n, c_n = h_0.copy(), c_0.copy()
        for b, n in enumerate(_as_lengths(lengths, T, B)):
            one = slice(b, b + 1)
            y[:n, one], (h_n[:, one], c_n[:, one]) = forward(
                inputs[:n, one],
                (h_0[:, one], c_0[:, one]),
                arrays,
                num_layers=L,
                num_directions=D,
                dtype=inputs.dtype,
            )
        return y, (h_n, c_n)
    # Overflow to infinity and inf - inf = NaN are the documented outcome: not worth a warning.
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        flow, h_n, c_n = _run_stack(inputs, h_0, c_0, arrays, sizes)
    return flow[-1], (h_n, c_n)


def backward(
    x: ArrayLike,
    state: tuple[ArrayLike, ArrayLike] | None,
    parameters: Mapping[str, ArrayLike],
    dy: ArrayLike | None,
    dstate: tuple[ArrayLike | None, ArrayLike | None] | None = None,
    *,
    lengths: ArrayLike | None = None,
    num_layers: int = 1,
    num_directions: int = 1,
    dtype: DTypeLike = np.float64,
) -> tuple[RealArray, tuple[RealArray, RealArray], dict[str, RealArray]]:
    """Gradients of `forward` by all that it was given, by backpropagation through time [3]_ [4]_.

    Parameters
    ----------
    x, state, parameters, lengths, num_layers, num_directions, dtype
        What `forward` was given.
    dy : None or array_like (T, B, D*H)
        Gradient of the loss by y; None is zeros. NaN and infinity propagate.
    dstate : None or pair of None or array_like, each (L*D, B, H)
        ``(dh_n, dc_n)``, the gradients by the final states; None is zeros. h_n repeats numbers of
        the outputs, but is a result of its own: what `dy` holds is not repeated here.

    Returns
    -------
    dx : array (T, B, I)
    (dh_0, dc_0) : pair of arrays, each (L*D, B, H)
        Also where `state` is None: the gradients at zero.
    dparameters : dict of str to array
        Names, shapes and order of PyTorch's ``state_dict``. The two biases only enter as their sum
        b, so both have the gradient by b.

    Raises
    ------
    TypeError, ValueError
        As `forward`, and likewise for `dy`, `dstate` and its ``dh_n`` and ``dc_n``.
    """
    inputs, h_0, c_0, arrays, sizes = _as_arguments(
        x, state, parameters, num_layers, num_directions, dtype
    )
    (T, B, _), (_, H, L, D, _) = inputs.shape, sizes
    dflow = _as_gradient("dy", dy, (T, B, D * H), inputs.dtype)
    dh_n, dc_n = _as_state_gradients(dstate, h_0.shape, inputs.dtype)

    dh_0 = np.empty_like(h_0)
    dc_0 = np.empty_like(c_0)
    dparameters = {name: np.zeros_like(array) for name, array in arrays.items()}
    if lengths is not None:  # each sequence alone; what is padding has no gradient
        dx = np.zeros_like(inputs)
        for b, n in enumerate(_as_lengths(lengths, T, B)):
            one = slice(b, b + 1)
            dx[:n, one], (dh_0[:, one], dc_0[:, one]), parts = backward(
                inputs[:n, one],
                (h_0[:, one], c_0[:, one]),
                arrays,
                dflow[:n, one],
                (dh_n[:, one], dc_n[:, one]),
                num_layers=L,
                num_directions=D,
                dtype=inputs.dtype,
            )
            for name, part in parts.items():
                dparameters[name] += part
        return dx, (dh_0, dc_0), dparameters
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        flow, _, _ = _run_stack(inputs, h_0, c_0, arrays, sizes)
        for layer in reversed(range(L)):
            dy_of = np.split(dflow, D, axis=-1)
            dflow = np.zeros_like(flow[layer])
            for direction in range(D):
                row, tail = layer * D + direction, _tail(layer, direction)
                dx, dh_0[row], dc_0[row], dW, dU, db = lstm_layer_backward(
                    flow[layer],
                    h_0[row],
                    c_0[row],
                    *_weights(arrays, tail),
                    dy_of[direction],
                    dh_n[row],
                    dc_n[row],
                    reverse=direction == 1,
                )
                dflow += dx  # every direction reads the whole input of its layer
                dparameters[f"weight_ih_{tail}"][...] = dW
                dparameters[f"weight_hh_{tail}"][...] = dU
                if sizes.bias:
                    dparameters[f"bias_ih_{tail}"][...] = db
                    dparameters[f"bias_hh_{tail}"][...] = db
    return dflow, (dh_0, dc_0), dparameters


def _run_stack(
    x: RealArray,
    h_0: RealArray,
    c_0: RealArray,
    arrays: Mapping[str, RealArray],
    sizes: Architecture,
) -> tuple[list[RealArray], RealArray, RealArray]:
    """Return what flows through the stack, and h_n and c_n (L*D, B, H).

    ``flow[l]`` is the input of layer l, and ``flow[L]`` the output of the last.
    """
    flow = [x]
    h_n = np.empty_like(h_0)
    c_n = np.empty_like(c_0)
    for layer in range(sizes.num_layers):
        outputs = []
        for direction in range(sizes.num_directions):
            row = layer * sizes.num_directions + direction
            y, h_n[row], c_n[row] = lstm_layer(
                flow[layer],
                h_0[row],
                c_0[row],
                *_weights(arrays, _tail(layer, direction)),
                reverse=direction == 1,
            )
            outputs.append(y)
        flow.append(np.concatenate(outputs, axis=-1))
    return flow, h_n, c_n


def _tail(layer: int, direction: int) -> str:
    """End of the names of the parameters of one layer in one direction."""
    return f"l{layer}" + ("_reverse" if direction else "")


def _weights(
    arrays: Mapping[str, RealArray], tail: str
) -> tuple[RealArray, RealArray, RealArray | None]:
    """Return W, U and b; b adds up the two biases that PyTorch keeps, None when there are none."""
    W, U = arrays[f"weight_ih_{tail}"], arrays[f"weight_hh_{tail}"]
    if f"bias_ih_{tail}" not in arrays:
        return W, U, None
    return W, U, arrays[f"bias_ih_{tail}"] + arrays[f"bias_hh_{tail}"]


def _as_arguments(
    x: ArrayLike,
    state: tuple[ArrayLike, ArrayLike] | None,
    parameters: Mapping[str, ArrayLike],
    num_layers: int,
    num_directions: int,
    dtype: DTypeLike,
) -> tuple[RealArray, RealArray, RealArray, dict[str, RealArray], Architecture]:
    """Return x, h_0, c_0 and the parameters as arrays of `dtype`, all checked, and the sizes."""
    working = np.dtype(dtype)
    if working.kind != "f":
        raise TypeError(f"dtype: got {working}, expected a floating dtype")
    num_layers = as_size("num_layers", num_layers)
    num_directions = as_size("num_directions", num_directions, 2)
    inputs = as_real_array("x", x, working)
    if inputs.ndim != 3:
        raise ValueError(f"x: got shape {inputs.shape}, expected (T, B, I)")
    arrays, sizes = _as_parameters(parameters, num_layers, num_directions, working)
    if inputs.shape[2] != sizes.input_size:
        raise ValueError(f"x: got shape {inputs.shape}, expected (T, B, {sizes.input_size})")
    state_shape = (num_layers * num_directions, inputs.shape[1], sizes.hidden_size)
    h_0, c_0 = _as_states(state, state_shape, working)
    return inputs, h_0, c_0, arrays, sizes


def _as_parameters(
    parameters: Mapping[str, ArrayLike],
    num_layers: int,
    num_directions: int,
    dtype: np.dtype[Any],
) -> tuple[dict[str, RealArray], Architecture]:
    """Return every parameter as an array of `dtype`, names and shapes checked, and the sizes."""
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
    return split(join("parameters", parameters, sizes, dtype), sizes), sizes


def _as_states(
    state: tuple[ArrayLike, ArrayLike] | None, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> tuple[RealArray, RealArray]:
    """Return (h_0, c_0) as arrays of `dtype` and of `shape` (L*D, B, H)."""
    if state is None:
        return np.zeros(shape, dtype), np.zeros(shape, dtype)
    if not isinstance(state, (tuple, list)) or len(state) != 2:
        raise ValueError("state: expected None or a pair (h_0, c_0)")
    return as_state("h_0", state[0], shape, dtype), as_state("c_0", state[1], shape, dtype)


def _as_state_gradients(
    dstate: tuple[ArrayLike | None, ArrayLike | None] | None,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
) -> tuple[RealArray, RealArray]:
    """Return (dh_n, dc_n) as arrays of `dtype` and of `shape` (L*D, B, H)."""
    if dstate is None:
        dstate = (None, None)
    if not isinstance(dstate, (tuple, list)) or len(dstate) != 2:
        raise ValueError(
            f"dstate: got {type(dstate).__name__}, expected None or a pair (dh_n, dc_n)"
        )
    dh_n, dc_n = dstate
    return _as_gradient("dh_n", dh_n, shape, dtype), _as_gradient("dc_n", dc_n, shape, dtype)


def _as_gradient(
    name: str, value: ArrayLike | None, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> RealArray:
    """Return the gradient by an output as an array of `dtype` and `shape`; None is zeros."""
    return np.zeros(shape, dtype) if value is None else as_state(name, value, shape, dtype)


def _as_lengths(lengths: ArrayLike, T: int, B: int) -> list[int]:
    """Return B integers from 0 to T."""
    array = np.asarray(lengths)
    if array.size and array.dtype.kind not in "iu":
        raise TypeError(f"lengths: got values of dtype {array.dtype}, expected integers")
    if array.shape != (B,) or (array < 0).any() or (array > T).any():
        raise ValueError(f"lengths: got {array}, expected {B} integers from 0 to {T}")
    return [int(n) for n in array]
