"""What the references compute inside, to compare traces with."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastlstm import Trace
from fastlstm.reference.activations import activations
from fastlstm.reference.checks import Arguments, as_arguments
from fastlstm.reference.float32 import fma, multiply
from fastlstm.reference.layer import steps
from fastlstm.reference.quantized import _activate, _clip, _gated, _keep
from fastlstm.reference.stack import run_pieces, weights_of
from fastlstm.reference.variant import NO_MASKS, Normalised, Step, variant_step

#: Names of a trace by those of the reference's steps.
NAMES = {
    "i": "i_t", "f": "f_t", "g": "g_t", "o": "o_t", "c": "c_t", "h": "h_t",
    "z_i": "z_i", "z_f": "z_f", "z_g": "z_g", "z_o": "z_o", "c_new": "c_new", "h_wide": "h_wide",
    "w_x_normal": "Wx", "u_h_normal": "Uh", "c_normal": "c_norm",
}  # fmt: skip


def by_reference(layer: Any, x: np.ndarray, state: Any) -> dict[str, np.ndarray]:
    """What a trace of x (T, B, I) has, in float64, by the equations of the reference."""
    kept: dict[tuple[int, int], Step] = {}

    def run_row(
        given: Arguments, row: int, flow: np.ndarray, reverse: bool
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        weights = weights_of(given.parameters, *divmod(row, layer.num_directions))
        h, c = given.h_0[row], given.c_0[row]
        for t in steps(len(flow), reverse):
            step = kept[row, t] = variant_step(flow[t], h, c, weights, layer.cell, NO_MASKS)
            h, c = step.h_t, step.c_t
        return np.array([kept[row, t].h_t for t in range(len(flow))]), h, c

    arguments = as_arguments(
        x, state, layer.state_dict(), layer.num_layers, layer.num_directions, layer.reverse,
        np.float64, layer.cell, NO_MASKS,
    )  # fmt: skip
    run_pieces(arguments, None, None, run_row)
    LD = layer.num_layers * layer.num_directions
    found = {}
    for name, field in NAMES.items():
        if getattr(kept[0, 0], field) is None:
            continue
        rows = [[_values(getattr(kept[row, t], field)) for t in range(len(x))] for row in range(LD)]
        found[name] = np.array(rows)
    return found


def _values(of_step: Any) -> np.ndarray:
    return of_step.hat if isinstance(of_step, Normalised) else of_step


def by_equations(trace: Trace, layer: Any) -> dict[str, np.ndarray]:
    """What traced arrays of float32 make of each other, rounded as the kernels do it.

    c is one fused multiply-add of f, the state before, and the input, which in the usual cell is
    one quotient; h~ = o * output(c) is one, too.
    """
    act, cell = activations(24), layer.cell
    usual = (cell.gate_activation, cell.cell_activation, cell.output_activation) == (
        "sigmoid", "tanh", "tanh",
    )  # fmt: skip
    clipped = {
        gate: _clip(trace.arrays[f"z_{gate}"], cell.clip)
        for gate in "ifgo"
        if f"z_{gate}" in trace.arrays
    }
    gates = {
        gate: _activate(act, cell.cell_activation if gate == "g" else cell.gate_activation, z)
        for gate, z in clipped.items()
    }
    inputs = multiply(trace.i, trace.g)
    if usual:
        inputs = act.sigmoid_tanh(clipped["i"], clipped["g"])
    c_new = _clip(fma(trace.f, trace.c_before, inputs), cell.cell_clip)
    found = gates | {"c": _keep(trace.c_before, c_new, cell.zoneout_c)}
    if not cell.layer_norm and not layer.proj_size:
        h_wide = _gated(act, cell, clipped["o"], c_new)
        if usual:
            h_wide = act.sigmoid_tanh(clipped["o"], c_new)
        found["h"] = _keep(trace.h_before, h_wide, cell.zoneout_h)
    if usual and cell.peepholes and cell.zoneout_c:  # the output gate saw c~, which is not kept
        found.pop("o"), found.pop("h", None)
    return found
