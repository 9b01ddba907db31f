"""Every variant of the LSTM composed of PyTorch's operations: an oracle with gradients of its own.

Plain loops over time in float64; the derivatives are autograd's. It shares no code with
`fastlstm.reference`. `run` takes tensors, which may ask for gradients, and returns tensors;
`run_with_gradients` takes and returns arrays.

Letters: T time steps, B batch, I input size, H hidden size, P projected size (H where there is no
projection), L layers, D directions, G gates with weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import layer_norm, linear

from fastlstm.variants import NO_MASKS, NORM_EPSILON, Cell, Masks

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": torch.relu,
    "hard_sigmoid": lambda x: _bounded(0.2 * x + 0.5, 0.0, 1.0),
    "identity": lambda x: x,
}


def run(
    x: Any,
    state: tuple[Any, Any] | None,
    parameters: Mapping[str, Any],
    cell: Cell = Cell(),  # noqa: B008  # a tuple
    masks: Masks = NO_MASKS,
    num_layers: int = 1,
    num_directions: int = 1,
    reverse: bool = False,
    lengths: Sequence[int] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Run a stack of L layers in D directions.

    Parameters
    ----------
    x : tensor or array (T, B, I)
    state : None or pair of tensors or arrays, (L*D, B, P) and (L*D, B, H)
    parameters : mapping of str to tensor or array
        Names and shapes of `fastlstm._parameters.parameter_shapes`.
    cell, masks
        As `fastlstm.reference.forward` has them.
    num_layers, num_directions : int
    reverse : bool
        Whether the one direction runs from the last step to the first.
    lengths : None or sequence of B integers

    Returns
    -------
    y : tensor (T, B, D*P), float64
    h_n, c_n : tensors (L*D, B, P) and (L*D, B, H)
    """
    x = _tensor(x)
    p = {name: _tensor(value) for name, value in parameters.items()}
    tensors: Any = (None if mask is None else _tensor(mask) for mask in masks)
    m = Masks(*tensors)
    T, B, _ = x.shape
    L, D = num_layers, num_directions
    H = p["weight_ih_l0"].shape[0] // (3 if cell.coupled_gates else 4)
    P = p["weight_hh_l0"].shape[1]
    if state is None:
        state = (np.zeros((L * D, B, P)), np.zeros((L * D, B, H)))
    h_0, c_0 = (_tensor(value) for value in state)

    columns = []  # one sequence each: y (T, D*P), h_n (L*D, P), c_n (L*D, H)
    for b, n in enumerate([T] * B if lengths is None else lengths):
        flow = list(x[:n, b])
        finals_h, finals_c = [], []
        for layer in range(L):
            outputs: list[list[Tensor]] = []
            for direction in range(D):
                row = layer * D + direction
                tail = f"_l{layer}" + ("_reverse" if direction else "")
                own = {
                    name.removesuffix(tail): value for name, value in p.items() if _ends(name, tail)
                }
                h, c = h_0[row, b], c_0[row, b]
                y_t: dict[int, Tensor] = {}
                for t in range(n)[:: -1 if direction or reverse else 1]:
                    h, c = _step(flow[t], h, c, own, cell, _masks_at(m, row, t, b))
                    y_t[t] = h
                outputs.append([y_t[t] for t in range(n)])
                finals_h.append(h)
                finals_c.append(c)
            flow = [torch.cat([one[t] for one in outputs]) for t in range(n)]
            if m.between is not None and layer < L - 1:
                flow = [value * m.between[layer, t, b] for t, value in enumerate(flow)]
        padding = [torch.zeros(D * P, dtype=torch.float64)] * (T - n)
        y = torch.stack(flow + padding) if T else torch.zeros(0, D * P, dtype=torch.float64)
        columns.append((y, torch.stack(finals_h), torch.stack(finals_c)))
    if not columns:
        return torch.zeros(T, 0, D * P, dtype=torch.float64), h_0, c_0
    y, h_n, c_n = (torch.stack(parts, 1) for parts in zip(*columns, strict=True))
    return y, h_n, c_n


def run_with_gradients(
    x: np.ndarray,
    state: tuple[np.ndarray, np.ndarray],
    parameters: Mapping[str, np.ndarray],
    dy: np.ndarray,
    dstate: tuple[np.ndarray, np.ndarray],
    **options: Any,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return ``y``, ``h_n``, ``c_n``, and the gradients by ``x``, ``h_0``, ``c_0`` and parameters.

    The gradients are those of sum(dy * y) + sum(dh_n * h_n) + sum(dc_n * c_n). Arrays in, float64
    arrays out; `options` are those of `run`.
    """
    leaves = {
        name: _tensor(np.array(value, np.float64)).requires_grad_()
        for name, value in {"x": x, "h_0": state[0], "c_0": state[1], **parameters}.items()
    }
    own = {name: leaves[name] for name in parameters}
    outputs = run(leaves["x"], (leaves["h_0"], leaves["c_0"]), own, **options)
    pairs = [
        (output, _tensor(given))
        for output, given in zip(outputs, (dy, *dstate), strict=True)
        if output.requires_grad  # y of no steps depends on nothing
    ]
    found = torch.autograd.grad(
        [output for output, _ in pairs],
        list(leaves.values()),
        [given for _, given in pairs],
        allow_unused=True,
        materialize_grads=True,
    )
    results = {
        name: output.detach().numpy()
        for name, output in zip(("y", "h_n", "c_n"), outputs, strict=True)
    }
    return results, {name: gradient.numpy() for name, gradient in zip(leaves, found, strict=True)}


def _step(
    x_t: Tensor, h: Tensor, c: Tensor, p: Mapping[str, Tensor], cell: Cell, masks: Any
) -> tuple[Tensor, Tensor]:
    """One sequence, one step: x_t (I,), h (P,) and c (H,) to h_t (P,) and c_t (H,)."""
    gate = ACTIVATIONS[cell.gate_activation]
    into = ACTIVATIONS[cell.cell_activation]
    out = ACTIVATIONS[cell.output_activation]
    H = c.shape[0]

    from_x = linear(x_t, p["weight_ih"])
    from_h = linear(h if masks.recurrent is None else h * masks.recurrent, p["weight_hh"])
    if cell.layer_norm:
        shape, zero = from_x.shape, torch.zeros_like(from_x)
        from_x = layer_norm(from_x, shape, p["scale_ih"], p.get("bias_ih", zero), NORM_EPSILON)
        from_h = layer_norm(from_h, shape, p["scale_hh"], p.get("bias_hh", zero), NORM_EPSILON)
    elif "bias_ih" in p:
        from_x, from_h = from_x + p["bias_ih"], from_h + p["bias_hh"]
    order = "igo" if cell.coupled_gates else "ifgo"
    z = dict(zip(order, torch.split(from_x + from_h, H), strict=True))

    def peep(name: str, seen: Tensor) -> Tensor:
        return _clip(
            z[name] + p[f"weight_c{name}"] * seen if cell.peepholes else z[name], cell.clip
        )

    i = gate(peep("i", c))
    f = 1 - i if cell.coupled_gates else gate(peep("f", c))
    g = into(_clip(z["g"], cell.clip))
    new_c = f * c + i * g
    if cell.cell_clip is not None:
        new_c = torch.clamp(new_c, -cell.cell_clip, cell.cell_clip)  # gradient at the bound: whole
    o = gate(peep("o", new_c))
    shown = new_c
    if cell.layer_norm:
        shown = layer_norm(new_c, (H,), p["scale_c"], p["shift_c"], NORM_EPSILON)
    new_h = o * out(shown)
    if "weight_hr" in p:
        new_h = linear(new_h, p["weight_hr"])

    kept_h: Any = cell.zoneout_h if masks.zoneout_h is None else masks.zoneout_h
    kept_c: Any = cell.zoneout_c if masks.zoneout_c is None else masks.zoneout_c
    return kept_h * h + (1 - kept_h) * new_h, kept_c * c + (1 - kept_c) * new_c


def _clip(v: Tensor, bound: float | None) -> Tensor:
    return v if bound is None else _bounded(v, -bound, bound)


def _bounded(v: Tensor, low: float, high: float) -> Tensor:
    """Clamp with no gradient at the bounds, where `torch.clamp` has all of it."""
    inside = (v > low) & (v < high)
    return torch.where(inside, v, v.detach().clamp(low, high))


def _masks_at(masks: Any, row: int, t: int, b: int) -> Masks:
    return Masks(
        recurrent=None if masks.recurrent is None else masks.recurrent[row, b],
        zoneout_h=None if masks.zoneout_h is None else masks.zoneout_h[row, t, b],
        zoneout_c=None if masks.zoneout_c is None else masks.zoneout_c[row, t, b],
    )


def _ends(name: str, tail: str) -> bool:
    return name.endswith(tail)  # "_l0" does not end "_l0_reverse", nor "_l1" "_l11"


def _tensor(value: Any) -> Tensor:
    return torch.as_tensor(value, dtype=torch.float64)
