"""One time step of the LSTM with every variant, and its gradients.

The letters are those of the package; P is the projected size, G the number of gates with weights.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fastlstm._arguments import RealArray
from fastlstm.reference.cell import sigmoid
from fastlstm.variants import NO_MASKS, NORM_EPSILON, Cell, Masks


class Weights(NamedTuple):
    """The parameters of one layer in one direction, or the gradients by them.

    None where there is no such parameter. Which ones there are decides about bias, projection,
    peepholes and layer normalisation.

    Attributes
    ----------
    W : array (G*H, I)
        Input weights, gates stacked in the order i, f, g, o; i, g, o where they are coupled.
    U : array (G*H, P)
        Recurrent weights, stacked likewise.
    b : array (G*H,) or None
        Bias, stacked likewise; None is zero.
    W_hr : array (P, H) or None
        The projection.
    p_i, p_f, p_o : array (H,) or None
        Peepholes; no p_f where the gates are coupled.
    scale_ih, scale_hh : array (G*H,) or None
        What the normalised W @ x_t and U @ h_{t-1} are multiplied by.
    scale_c, shift_c : array (H,) or None
        What the normalised cell state is multiplied by, and what is added to it.
    """

    W: RealArray
    U: RealArray
    b: RealArray | None = None
    W_hr: RealArray | None = None
    p_i: RealArray | None = None
    p_f: RealArray | None = None
    p_o: RealArray | None = None
    scale_ih: RealArray | None = None
    scale_hh: RealArray | None = None
    scale_c: RealArray | None = None
    shift_c: RealArray | None = None


def activate(name: str, x: RealArray) -> RealArray:
    """Apply one of `fastlstm.variants.ACTIVATIONS`; NaN where `x` is NaN."""
    if name == "sigmoid":
        return sigmoid(x)
    if name == "tanh":
        return np.tanh(x)
    if name == "relu":
        return np.where(x < 0, 0, x)
    if name == "hard_sigmoid":
        return clamp(0.2 * x + 0.5, 0, 1)
    if name == "identity":
        return x
    raise ValueError(f"activation: got {name!r}")


def activate_backward(name: str, da: RealArray, a: RealArray) -> RealArray:
    """Gradient by x of a = activate(x), from the gradient by a.

    The derivative of every activation can be told from its value: sigmoid' = sigmoid * (1 -
    sigmoid) and tanh' = 1 - tanh**2; the others are made of straight pieces. At the corners, where
    there is no derivative, it is 0.
    """
    if name == "sigmoid":
        return da * a * (1 - a)
    if name == "tanh":
        return da * (1 - a**2)
    if name == "relu":
        return np.where(a > 0, da, 0)
    if name == "hard_sigmoid":
        return np.where((a > 0) & (a < 1), 0.2 * da, 0)
    if name == "identity":
        return da
    raise ValueError(f"activation: got {name!r}")


def clamp(x: RealArray, low: float, high: float) -> RealArray:
    """Bound x to [low, high]; NaN stays."""
    bounded: RealArray = np.clip(x, low, high)
    return bounded


def clip(x: RealArray, bound: float | None) -> RealArray:
    """Bound x to [-bound, bound]; None is no bound."""
    return x if bound is None else clamp(x, -bound, bound)


class Normalised(NamedTuple):
    """The rows of an array (B, n) shifted and scaled to mean 0 and variance 1 [#S8]_."""

    hat: RealArray  # (B, n)   (v - mean) / sigma
    sigma: RealArray  # (B, 1)


def normalise(v: RealArray) -> Normalised:
    """Normalise each row of v (B, n).

    sigma is the square root of variance + ``NORM_EPSILON``, and the variance the mean of (v -
    mean)**2: a row of equal numbers becomes zeros.
    """
    deviation = v - v.mean(axis=-1, keepdims=True)
    sigma = np.sqrt((deviation**2).mean(axis=-1, keepdims=True) + NORM_EPSILON)
    return Normalised(deviation / sigma, sigma)


def normalise_backward(dhat: RealArray, normalised: Normalised) -> RealArray:
    """Gradient by v of `normalise`, from the gradient by hat.

    v enters its own hat, and by way of the mean and sigma those of the whole row. Adding one number
    to the whole row changes nothing, hence the first term that is taken away; nor does stretching
    the row, but for epsilon, hence the second::

        dv = (dhat - mean(dhat) - hat * mean(dhat * hat)) / sigma
    """
    hat, sigma = normalised
    shift = dhat.mean(axis=-1, keepdims=True)
    stretch = (dhat * hat).mean(axis=-1, keepdims=True)
    dv: RealArray = (dhat - shift - hat * stretch) / sigma
    return dv


def keep(before: RealArray, after: RealArray, share: RealArray | float) -> RealArray:
    """Zoneout [#S9]_: share * before + (1 - share) * after.

    Without zoneout, when `share` is the number 0, this is `after` also where `before` is NaN or
    infinite.
    """
    if isinstance(share, float) and share == 0:
        return after
    return share * before + (1 - share) * after


def keep_backward(
    dkept: RealArray, share: RealArray | float
) -> tuple[RealArray | float, RealArray]:
    """Gradients by `before` and `after` of `keep`."""
    if isinstance(share, float) and share == 0:
        return 0.0, dkept
    return share * dkept, (1 - share) * dkept


class Step(NamedTuple):
    """What one step computes on its way to h_t and c_t, in the order of the equations."""

    masked_h: RealArray  # (B, P)   h_{t-1} as it enters U
    Wx: Normalised | None  # (B, G*H)   None: no layer_norm
    Uh: Normalised | None
    z_i: RealArray  # (B, H)   what the activations are given, before it is clipped
    z_f: RealArray | None  # None: coupled_gates
    z_g: RealArray
    z_o: RealArray
    i_t: RealArray  # (B, H)
    f_t: RealArray
    g_t: RealArray
    o_t: RealArray
    c_raw: RealArray  # (B, H)   f_t * c_{t-1} + i_t * g_t
    c_new: RealArray  # (B, H)   c~: the same after cell_clip
    c_norm: Normalised | None  # (B, H)   None: no layer_norm
    n: RealArray  # (B, H)   c~, or normalised, scaled and shifted
    a: RealArray  # (B, H)   output(n)
    h_wide: RealArray  # (B, H)   h~ = o_t * a
    h_t: RealArray  # (B, P)
    c_t: RealArray  # (B, H)


def variant_cell(
    x_t: RealArray,
    h: RealArray,
    c: RealArray,
    weights: Weights,
    cell: Cell = Cell(),  # noqa: B008  # a tuple
    masks: Masks = NO_MASKS,
) -> tuple[RealArray, RealArray]:
    """One time step of one layer in one direction, any variant.

    Parameters
    ----------
    x_t : array (B, I)
        Input of this step.
    h : array (B, P)
        Hidden state of the step before.
    c : array (B, H)
        Cell state of the step before.
    weights : Weights
    cell : Cell
        The rest of the variant; ``peepholes`` and ``layer_norm`` are told by `weights`.
    masks : Masks
        Those of this layer, direction and step: ``recurrent`` and ``zoneout_h`` (B, P),
        ``zoneout_c`` (B, H). ``between`` is no concern of a cell.

    Returns
    -------
    h_t : array (B, P)
    c_t : array (B, H)

    Notes
    -----
    1. The sums, all gates stacked. ``recurrent`` is 1 where no mask is given; b is the sum of
       PyTorch's two biases::

           z = W @ x_t + U @ (h_{t-1} * recurrent) + b

       With ``layer_norm``, where LN normalises over all G*H numbers [#S8]_::

           z = LN(W @ x_t) * scale_ih + LN(U @ (h_{t-1} * recurrent)) * scale_hh + b

    2. The gates that see the cell state of the step before, with peepholes p [#S5]_. ``clip``
       bounds what goes into an activation. ``coupled_gates`` [#S6]_ leaves out z_f::

           i_t = gate(clip(z_i + p_i * c_{t-1}))
           f_t = gate(clip(z_f + p_f * c_{t-1}))        coupled_gates: f_t = 1 - i_t
           g_t = cell(clip(z_g))

    3. The cell state; ``cell_clip`` bounds it::

           c~ = cell_clip(f_t * c_{t-1} + i_t * g_t)

    4. The output gate sees the new cell state, and lets it out. n is the identity, or with
       ``layer_norm`` LN(c~) * scale_c + shift_c, over H numbers; c~ itself goes on unnormalised::

           o_t = gate(clip(z_o + p_o * c~))
           h~  = o_t * output(n(c~))

    5. The projection [#S7]_, if there is one; no activation follows it::

           h' = W_hr @ h~

    6. Zoneout [#S9]_: a share of each state is kept from before, of 0 or 1 where masks are given
       and the expectation where not::

           c_t = zoneout_c * c_{t-1} + (1 - zoneout_c) * c~
           h_t = zoneout_h * h_{t-1} + (1 - zoneout_h) * h'
    """
    step = variant_step(x_t, h, c, weights, cell, masks)
    return step.h_t, step.c_t


def variant_step(
    x_t: RealArray, h: RealArray, c: RealArray, weights: Weights, cell: Cell, masks: Masks
) -> Step:
    """Compute the equations of `variant_cell`, in their order, and keep all that they name."""
    w = weights
    # The rows of x_t and h are sequences, hence the transposes.
    masked_h = h if masks.recurrent is None else h * masks.recurrent
    Wx, Uh = x_t @ w.W.T, masked_h @ w.U.T  # (B, G*H)
    Wx_norm = Uh_norm = None
    if w.scale_ih is not None:
        Wx_norm = normalise(Wx)
        Wx = Wx_norm.hat * w.scale_ih
    if w.scale_hh is not None:
        Uh_norm = normalise(Uh)
        Uh = Uh_norm.hat * w.scale_hh
    z = Wx + Uh
    if w.b is not None:
        z = z + w.b

    z_f = None
    if cell.coupled_gates:
        z_i, z_g, z_o = np.split(z, 3, axis=-1)
    else:
        z_i, z_f, z_g, z_o = np.split(z, 4, axis=-1)
    if w.p_i is not None:
        z_i = z_i + w.p_i * c
    if z_f is not None and w.p_f is not None:
        z_f = z_f + w.p_f * c
    i_t = activate(cell.gate_activation, clip(z_i, cell.clip))
    f_t = 1 - i_t if z_f is None else activate(cell.gate_activation, clip(z_f, cell.clip))
    g_t = activate(cell.cell_activation, clip(z_g, cell.clip))

    c_raw = f_t * c + i_t * g_t
    c_new = clip(c_raw, cell.cell_clip)

    if w.p_o is not None:
        z_o = z_o + w.p_o * c_new
    o_t = activate(cell.gate_activation, clip(z_o, cell.clip))
    n, c_norm = c_new, None
    if w.scale_c is not None and w.shift_c is not None:
        c_norm = normalise(c_new)
        n = c_norm.hat * w.scale_c + w.shift_c
    a = activate(cell.output_activation, n)
    h_wide = o_t * a

    h_new = h_wide if w.W_hr is None else h_wide @ w.W_hr.T

    kept_h, kept_c = _shares(cell, masks)
    h_t, c_t = keep(h, h_new, kept_h), keep(c, c_new, kept_c)
    return Step(
        masked_h=masked_h,
        Wx=Wx_norm,
        Uh=Uh_norm,
        z_i=z_i,
        z_f=z_f,
        z_g=z_g,
        z_o=z_o,
        i_t=i_t,
        f_t=f_t,
        g_t=g_t,
        o_t=o_t,
        c_raw=c_raw,
        c_new=c_new,
        c_norm=c_norm,
        n=n,
        a=a,
        h_wide=h_wide,
        h_t=h_t,
        c_t=c_t,
    )


def _shares(cell: Cell, masks: Masks) -> tuple[RealArray | float, RealArray | float]:
    """How much of h_{t-1} and c_{t-1} zoneout keeps: the masks, or without them the rates."""
    kept_h = cell.zoneout_h if masks.zoneout_h is None else masks.zoneout_h
    kept_c = cell.zoneout_c if masks.zoneout_c is None else masks.zoneout_c
    return kept_h, kept_c


def variant_cell_backward(
    x_t: RealArray,
    h: RealArray,
    c: RealArray,
    weights: Weights,
    dh_t: RealArray,
    dc_t: RealArray,
    cell: Cell = Cell(),  # noqa: B008  # a tuple
    masks: Masks = NO_MASKS,
) -> tuple[RealArray, RealArray, RealArray, Weights]:
    """Gradients of one time step of any variant [#S3]_ [#S4]_.

    Parameters
    ----------
    x_t, h, c, weights, cell, masks
        What `variant_cell` was given.
    dh_t : array (B, P)
        Gradient by h_t, of all that h_t enters: the output y_t and the next step.
    dc_t : array (B, H)
        Gradient by c_t, of what it enters outside this step: the next step.

    Returns
    -------
    dx_t, dh, dc : arrays of the shapes of `x_t`, `h`, `c`
    dweights : Weights
        None where `weights` is; but b has a gradient always: that at b = 0 where it is None.

    Notes
    -----
    The points of `variant_cell` are gone through from the last to the first, as in
    `lstm_cell_backward`, which has the reasons. A bound passes the gradient where it does not bind:
    for ``cell_clip`` including the bound itself, for ``clip`` not.

    6. ::

        dc~ = (1 - zoneout_c) * dc_t        dc_{t-1} = zoneout_c * dc_t
        dh' = (1 - zoneout_h) * dh_t        dh_{t-1} = zoneout_h * dh_t

    5. ::

        dh~ = W_hr.T @ dh'        dW_hr = sum of outer(dh', h~)

    4. With a = output(n). c~ enters c_t, n and the peephole of o_t::

        do_t = dh~ * a        dn = output'(n) * dh~ * o_t
        dz_o = clip' * gate' * do_t
        dc~ += (dn, or through LN(c~): dn * scale_c) + p_o * dz_o
        dscale_c = sum of dn * LN(c~)        dshift_c = sum of dn        dp_o = sum of dz_o * c~

    3. ::

        dc_raw = cell_clip' * dc~        dc_{t-1} += dc_raw * f_t
        df_t = dc_raw * c_{t-1}          di_t = dc_raw * g_t          dg_t = dc_raw * i_t

    2. With coupled gates i_t also enters f_t = 1 - i_t, hence di_t -= df_t, and there is no dz_f::

        dz_i = clip' * gate' * di_t        dz_f = clip' * gate' * df_t
        dz_g = clip' * cell' * dg_t        dc_{t-1} += p_i * dz_i + p_f * dz_f
        dp_i = sum of dz_i * c_{t-1}       dp_f = sum of dz_f * c_{t-1}

    1. With layer_norm dWx is dz * scale_ih through LN, and dUh is dz * scale_hh through LN;
       without, both are dz::

        dx_t = W.T @ dWx        dh_{t-1} += recurrent * (U.T @ dUh)
        dW = sum of outer(dWx, x_t)        dU = sum of outer(dUh, h_{t-1} * recurrent)
        db = sum of dz
        dscale_ih = sum of dz * LN(W @ x_t)        dscale_hh = sum of dz * LN(U @ h_{t-1})
    """
    w = weights
    step = variant_step(x_t, h, c, weights, cell, masks)
    gradients: dict[str, RealArray] = {}

    # 6, 5
    kept_h, kept_c = _shares(cell, masks)
    dh_before, dh_new = keep_backward(dh_t, kept_h)
    dc_before, dc_new = keep_backward(dc_t, kept_c)
    dh_wide = dh_new
    if w.W_hr is not None:
        dh_wide = dh_new @ w.W_hr
        gradients["W_hr"] = dh_new.T @ step.h_wide

    # 4
    do_t = dh_wide * step.a
    dn = _activation_backward(cell.output_activation, dh_wide * step.o_t, step.a, step.n, None)
    if w.scale_c is not None and step.c_norm is not None:
        gradients["scale_c"] = (dn * step.c_norm.hat).sum(axis=0)
        gradients["shift_c"] = dn.sum(axis=0)
        dn = normalise_backward(dn * w.scale_c, step.c_norm)
    dc_new = dc_new + dn
    dz_o = _activation_backward(cell.gate_activation, do_t, step.o_t, step.z_o, cell.clip)
    if w.p_o is not None:
        gradients["p_o"] = (dz_o * step.c_new).sum(axis=0)
        dc_new = dc_new + w.p_o * dz_o

    # 3
    dc_raw = dc_new
    if cell.cell_clip is not None:
        dc_raw = np.where(np.abs(step.c_raw) <= cell.cell_clip, dc_new, 0)
    dc = dc_raw * step.f_t + dc_before
    df_t = dc_raw * c
    di_t = dc_raw * step.g_t
    dg_t = dc_raw * step.i_t

    # 2
    if cell.coupled_gates:
        di_t = di_t - df_t
    dz_i = _activation_backward(cell.gate_activation, di_t, step.i_t, step.z_i, cell.clip)
    dz_g = _activation_backward(cell.cell_activation, dg_t, step.g_t, step.z_g, cell.clip)
    if w.p_i is not None:
        gradients["p_i"] = (dz_i * c).sum(axis=0)
        dc = dc + w.p_i * dz_i
    dz_of = [dz_i, dz_g, dz_o]
    if step.z_f is not None:
        dz_f = _activation_backward(cell.gate_activation, df_t, step.f_t, step.z_f, cell.clip)
        if w.p_f is not None:
            gradients["p_f"] = (dz_f * c).sum(axis=0)
            dc = dc + w.p_f * dz_f
        dz_of.insert(1, dz_f)

    # 1
    dz = np.concatenate(dz_of, axis=-1)  # (B, G*H)
    dWx = dUh = dz
    if w.scale_ih is not None and step.Wx is not None:
        gradients["scale_ih"] = (dz * step.Wx.hat).sum(axis=0)
        dWx = normalise_backward(dz * w.scale_ih, step.Wx)
    if w.scale_hh is not None and step.Uh is not None:
        gradients["scale_hh"] = (dz * step.Uh.hat).sum(axis=0)
        dUh = normalise_backward(dz * w.scale_hh, step.Uh)
    dmasked_h = dUh @ w.U
    dh = dmasked_h if masks.recurrent is None else dmasked_h * masks.recurrent
    # The rows are sequences: a product from the left sums over them.
    dweights = Weights(W=dWx.T @ x_t, U=dUh.T @ step.masked_h, b=dz.sum(axis=0), **gradients)
    return dWx @ w.W, dh + dh_before, dc, dweights


def _activation_backward(
    name: str, da: RealArray, a: RealArray, z: RealArray, bound: float | None
) -> RealArray:
    """Gradient by z of a = activate(clip(z)), from the gradient by a."""
    dz = activate_backward(name, da, a)
    return dz if bound is None else np.where(np.abs(z) < bound, dz, 0)
