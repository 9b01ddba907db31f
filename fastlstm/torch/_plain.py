"""The LSTM in PyTorch's own differentiable operations, with every option of the cell.

The kernels know one derivative. What asks for more of them (a gradient of a gradient, forward-mode
differentiation) is computed here: slowly, with whatever autograd and the transforms can do.
:func:`fastlstm.reference.variant_cell` has the equations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from fastlstm._parameters import parameter_shapes
from fastlstm._spec import Spec
from fastlstm.torch._spec import from_text
from fastlstm.variants import NO_MASKS, NORM_EPSILON, Cell, Masks

#: The activations of `fastlstm.variants.ACTIVATIONS`. At corners their derivative is 0.
_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": torch.relu,
    "hard_sigmoid": lambda x: functional.hardtanh(0.2 * x + 0.5, 0.0, 1.0),
    "identity": lambda x: x,
}


def lstm(
    x: Tensor,
    h_0: Tensor,
    c_0: Tensor,
    parameters: Sequence[Tensor],
    *,
    batch_sizes: Tensor | None = None,
    masks: Masks = NO_MASKS,
    spec: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """Run a stack of L layers in D directions.

    Parameters
    ----------
    x : Tensor (T, B, I), or with ``batch_sizes`` (N, I)
        Of packed sequences the rows of the first step, then those of the second, and so on, as
        :class:`torch.nn.utils.rnn.PackedSequence` has them.
    h_0, c_0 : Tensor (L*D, B, P), (L*D, B, H)
        Of packed sequences in their order, the longest first.
    parameters : sequence of Tensor
        In the order of :func:`fastlstm._parameters.parameter_shapes`.
    batch_sizes : Tensor (T,) of int64, optional
        How many sequences have a step t: they do not rise, and add up to N.
    masks : Masks of Tensor
        What training drew; of packed sequences the axes T and B are one, N.
    spec : str
        As :func:`fastlstm.torch._spec.to_text` wrote it.

    Returns
    -------
    y : Tensor (T, B, D*P), or (N, D*P)
    h_n, c_n : Tensor (L*D, B, P), (L*D, B, H)
    """
    options = from_text(spec)
    D = options.num_directions
    own = _by_row(parameters, options)
    steps = [x.shape[1]] * x.shape[0] if batch_sizes is None else _numbers(batch_sizes)
    flow = x if batch_sizes is not None else x.flatten(0, 1)  # (N, I)
    rows: Any = masks if batch_sizes is not None else _with_rows(masks)
    finals: list[tuple[Tensor, Tensor]] = []
    for layer in range(options.num_layers):
        outputs = []
        for direction in range(D):
            row = layer * D + direction
            y, h_n, c_n = _run_direction(
                flow,
                h_0[row],
                c_0[row],
                own[row],
                options.cell,
                _of_row(rows, row),
                steps,
                reverse=options.reverse or direction == 1,
            )
            outputs.append(y)
            finals.append((h_n, c_n))
        flow = torch.cat(outputs, dim=-1) if D == 2 else outputs[0]
        if rows.between is not None and layer < options.num_layers - 1:
            flow = flow * rows.between[layer]
    y = flow if batch_sizes is not None else flow.reshape(*x.shape[:2], flow.shape[-1])
    return y, torch.stack([h for h, _ in finals]), torch.stack([c for _, c in finals])


def _numbers(sizes: Tensor) -> list[int]:
    try:
        numbers: list[int] = sizes.tolist()
    except RuntimeError:  # older versions of PyTorch look through no transform there
        numbers = [int(size) for size in sizes]
    return numbers


def _by_row(parameters: Sequence[Tensor], spec: Spec) -> list[dict[str, Tensor]]:
    """Return the parameters of direction d of layer l at l*D + d, by name up to ``_l``."""
    own: list[dict[str, Tensor]] = []
    for (name, _), parameter in zip(parameter_shapes(spec), parameters, strict=True):
        kind = name.partition("_l")[0]
        if kind == "weight_ih":
            own.append({})
        own[-1][kind] = parameter
    return own


def _with_rows(masks: Any) -> Any:
    """Return masks with the axes of time and batch in one."""
    recurrent, *others = masks
    return Masks(recurrent, *(None if mask is None else mask.flatten(1, 2) for mask in others))


def _of_row(masks: Any, row: int) -> Masks:
    """Return the masks of one layer in one direction."""
    return Masks(*(None if mask is None else mask[row] for mask in masks._replace(between=None)))


def _run_direction(
    x: Tensor,
    h_0: Tensor,
    c_0: Tensor,
    own: Mapping[str, Tensor],
    cell: Cell,
    masks: Any,
    steps: list[int],
    *,
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Run one direction of one layer.

    x (N, I), h_0 (B, P), c_0 (B, H), zoneout's masks (N, P) and (N, H), the other one (B, P);
    steps[t] of the B sequences have a step t, and their rows follow those of step t - 1.
    """
    z_x: Sequence[Tensor] = torch.split(_input_product(x, own, cell), steps)
    kept_h = _shares(masks.zoneout_h, cell.zoneout_h, steps)
    kept_c = _shares(masks.zoneout_c, cell.zoneout_c, steps)
    outputs: list[Tensor] = []
    ended: list[tuple[Tensor, Tensor]] = []  # of sequences that are over
    order = range(len(steps))
    # Sequences end on the way forward, and begin on the way back: the shortest, which are the last.
    h, c = (h_0[:0], c_0[:0]) if reverse else (h_0, c_0)
    for t in reversed(order) if reverse else order:
        n = steps[t]
        if n > h.shape[0]:
            h, c = (torch.cat([s, s_0[s.shape[0] : n]]) for s, s_0 in ((h, h_0), (c, c_0)))
        elif n < h.shape[0]:
            ended.insert(0, (h[n:], c[n:]))
            h, c = h[:n], c[:n]
        dropped = h if masks.recurrent is None else h * masks.recurrent[:n]
        h, c = _step(z_x[t], dropped, h, c, own, cell, (kept_h[t], kept_c[t]))
        outputs.append(h)
    if reverse:
        outputs.reverse()
        ended = [(h_0[h.shape[0] :], c_0[c.shape[0] :])]  # sequences without a step
    h_n, c_n = (torch.cat(parts) for parts in zip((h, c), *ended, strict=True))
    return torch.cat(outputs) if outputs else h_0[:0], h_n, c_n


def _input_product(x: Tensor, own: Mapping[str, Tensor], cell: Cell) -> Tensor:
    """Return W @ x_t + b, or with normalisation LN(W @ x_t) * scale_ih + b: (N, G*H)."""
    bias = own["bias_ih"] + own["bias_hh"] if "bias_ih" in own else None
    if cell.layer_norm:
        return _normalised(functional.linear(x, own["weight_ih"]), own["scale_ih"], bias)
    return functional.linear(x, own["weight_ih"], bias)


def _normalised(v: Tensor, scale: Tensor, shift: Tensor | None) -> Tensor:
    return functional.layer_norm(v, scale.shape, scale, shift, NORM_EPSILON)


def _shares(mask: Tensor | None, rate: float, steps: list[int]) -> Sequence[Tensor | float]:
    """Return how much of a state zoneout keeps at each step: the mask, or without one the rate."""
    return [rate] * len(steps) if mask is None else torch.split(mask, steps)


def _step(
    z_x: Tensor,
    dropped: Tensor,
    h: Tensor,
    c: Tensor,
    own: Mapping[str, Tensor],
    cell: Cell,
    kept: tuple[Tensor | float, Tensor | float],
) -> tuple[Tensor, Tensor]:
    """One time step: z_x (B, G*H), dropped and h (B, P), c (B, H) to h_t (B, P) and c_t (B, H)."""
    gate = _ACTIVATIONS[cell.gate_activation]
    z_h = functional.linear(dropped, own["weight_hh"])
    if cell.layer_norm:
        z_h = _normalised(z_h, own["scale_hh"], None)
    z = (z_x + z_h).chunk(3 if cell.coupled_gates else 4, dim=-1)
    z_i, z_g, z_o = z[0], z[-2], z[-1]
    if cell.peepholes:
        z_i = z_i + own["weight_ci"] * c
    i_t = gate(_clipped(z_i, cell.clip))
    if cell.coupled_gates:
        f_t = 1 - i_t
    else:
        z_f = z[1] + own["weight_cf"] * c if cell.peepholes else z[1]
        f_t = gate(_clipped(z_f, cell.clip))
    g_t = _ACTIVATIONS[cell.cell_activation](_clipped(z_g, cell.clip))

    c_new = f_t * c + i_t * g_t
    if cell.cell_clip is not None:
        c_new = c_new.clamp(-cell.cell_clip, cell.cell_clip)  # its gradient counts at the bound

    if cell.peepholes:
        z_o = z_o + own["weight_co"] * c_new
    n = _normalised(c_new, own["scale_c"], own["shift_c"]) if cell.layer_norm else c_new
    h_new = gate(_clipped(z_o, cell.clip)) * _ACTIVATIONS[cell.output_activation](n)
    if "weight_hr" in own:
        h_new = functional.linear(h_new, own["weight_hr"])
    kept_h, kept_c = kept
    return _keep(h, h_new, kept_h), _keep(c, c_new, kept_c)


def _clipped(v: Tensor, bound: float | None) -> Tensor:
    """Bound v to [-bound, bound], without a gradient at the bounds."""
    return v if bound is None else functional.hardtanh(v, -bound, bound)


def _keep(before: Tensor, after: Tensor, share: Tensor | float) -> Tensor:
    """Zoneout; `after` also where `before` is NaN or infinite, if the share is the number 0."""
    if isinstance(share, float) and share == 0:
        return after
    return share * before + (1 - share) * after
