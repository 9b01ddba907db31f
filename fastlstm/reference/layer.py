"""One layer in one direction: a cell repeated over time, and its gradients back through time."""

from __future__ import annotations

import numpy as np

from fastlstm._arguments import RealArray
from fastlstm.reference.variant import Weights, variant_cell, variant_cell_backward
from fastlstm.variants import NO_MASKS, Cell, Masks


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
    """One layer in one direction over all time steps: `lstm_cell` again and again.

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
    return variant_layer(x, h_0, c_0, Weights(W, U, b), reverse=reverse)


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
    """Gradients of one layer in one direction, by backpropagation through time [#S3]_ [#S4]_.

    The gradients of `lstm_cell_backward`, over all steps as in `variant_layer_backward`.

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
    dx, dh_0, dc_0, dweights = variant_layer_backward(
        x, h_0, c_0, Weights(W, U, b), dy, dh_n, dc_n, reverse=reverse
    )
    dW, dU, db, *_ = dweights
    assert db is not None  # for mypy
    return dx, dh_0, dc_0, dW, dU, db


def variant_layer(
    x: RealArray,
    h_0: RealArray,
    c_0: RealArray,
    weights: Weights,
    cell: Cell = Cell(),  # noqa: B008  # a tuple
    masks: Masks = NO_MASKS,
    *,
    reverse: bool = False,
) -> tuple[RealArray, RealArray, RealArray]:
    """One layer in one direction over all time steps, any variant.

    Parameters
    ----------
    x : array (T, B, I)
    h_0, c_0 : array (B, P), (B, H)
        State before the first step taken.
    weights, cell
        As in `variant_cell`.
    masks : Masks
        Those of this layer and direction: ``recurrent`` (B, P), the same at every step [#S10]_,
        ``zoneout_h`` (T, B, P) and ``zoneout_c`` (T, B, H), where t is the time of ``x[t]`` in
        either direction.
    reverse : bool
        Walk from t = T-1 down to 0 instead of from 0 up to T-1.

    Returns
    -------
    y : array (T, B, P)
        ``y[t]`` is the hidden state after reading ``x[t]``, in either direction.
    h_n, c_n : array (B, P), (B, H)
        State after the last step taken; with `reverse` that step is t = 0. With T = 0 they equal
        `h_0` and `c_0`.
    """
    T, B, _ = x.shape
    y = np.empty((T, B, h_0.shape[-1]), dtype=x.dtype)
    h, c = h_0, c_0
    for t in steps(T, reverse):
        h, c = variant_cell(x[t], h, c, weights, cell, _masks_at(masks, t))
        y[t] = h
    return y, h.copy(), c.copy()


def variant_layer_backward(
    x: RealArray,
    h_0: RealArray,
    c_0: RealArray,
    weights: Weights,
    dy: RealArray,
    dh_n: RealArray,
    dc_n: RealArray,
    cell: Cell = Cell(),  # noqa: B008  # a tuple
    masks: Masks = NO_MASKS,
    *,
    reverse: bool = False,
) -> tuple[RealArray, RealArray, RealArray, Weights]:
    """Gradients of `variant_layer`, by backpropagation through time [#S3]_ [#S4]_.

    Walk the steps in the order in which `variant_layer` took them and keep the states, then walk
    back. A hidden state enters the output and the next step, so the two gradients add up; the
    weights enter every step, so theirs add up over all of them.

    Parameters
    ----------
    x, h_0, c_0, weights, cell, masks, reverse
        What `variant_layer` was given.
    dy : array (T, B, P)
        Gradient by y.
    dh_n, dc_n : array (B, P), (B, H)
        Gradients by the final states. h_n is also the last output, whose own gradient is in `dy`.

    Returns
    -------
    dx, dh_0, dc_0 : arrays of the shapes of `x`, `h_0`, `c_0`
        With T = 0, `dh_0` and `dc_0` equal `dh_n` and `dc_n`, and all else is zeros.
    dweights : Weights
        None where `weights` is, but for b, which always has a gradient.
    """
    order = steps(x.shape[0], reverse)
    before = {}  # the state that step t starts from
    h, c = h_0, c_0
    for t in order:
        before[t] = h, c
        h, c = variant_cell(x[t], h, c, weights, cell, _masks_at(masks, t))

    dx, dh, dc = np.empty_like(x), dh_n, dc_n
    dweights = _zeros_like(weights)
    for t in reversed(order):
        dx[t], dh, dc, dweights_t = variant_cell_backward(
            x[t], *before[t], weights, dh + dy[t], dc, cell, _masks_at(masks, t)
        )
        dweights = _add(dweights, dweights_t)
    return dx, dh.copy(), dc.copy(), dweights


def steps(T: int, reverse: bool) -> range:
    """Times in the order in which a direction takes them."""
    return range(T - 1, -1, -1) if reverse else range(T)


def _masks_at(masks: Masks, t: int) -> Masks:
    """The masks of one step, of those of one layer and direction."""
    return masks._replace(
        zoneout_h=None if masks.zoneout_h is None else masks.zoneout_h[t],
        zoneout_c=None if masks.zoneout_c is None else masks.zoneout_c[t],
    )


def _zeros_like(weights: Weights) -> Weights:
    """Gradients of 0 by all weights, and by b also where it is None."""
    zeros = Weights(*(None if w is None else np.zeros_like(w) for w in weights))  # type: ignore[arg-type]
    return zeros._replace(b=np.zeros_like(weights.W[:, 0]))


def _add(one: Weights, other: Weights) -> Weights:
    """Add up gradients."""
    pairs = zip(one, other, strict=True)
    return Weights(*(None if a is None or b is None else a + b for a, b in pairs))  # type: ignore[arg-type]
