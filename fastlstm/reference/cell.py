"""One time step of the usual LSTM, and its gradients: the six equations of the package."""

from __future__ import annotations

import numpy as np

from fastlstm._arguments import RealArray


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
    """One time step of one layer in one direction, the six equations [#S1]_ [#S2]_.

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
    """Gradients of one time step: the six equations backwards [#S3]_ [#S4]_.

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
