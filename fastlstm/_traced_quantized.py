"""A quantised direction of a layer, run a step at a time, and what its steps compute.

The kernels of digits keep no tape: a step at a time gives h and c, to the bit of the call. Gates
follow from them and x by the reference, all steps of a chunk at once, from the layer's own digits.

Letters: N rows of a chunk, S pieces of sequences, I input size, H hidden size, P output size.
"""

from __future__ import annotations

import numpy as np

from fastlstm import _core
from fastlstm._arguments import RealArray
from fastlstm._parameters import parameter_shapes
from fastlstm._quantized import Digits, Quantized, QuantizedDirection
from fastlstm._ragged import Rows
from fastlstm._spec import Spec
from fastlstm._traced_rows import states_before
from fastlstm.reference import digits
from fastlstm.reference.float32 import flush
from fastlstm.reference.layer import steps
from fastlstm.reference.quantized import QuantizedWeights, gates_of, quantized_step
from fastlstm.reference.stack import NAMES
from fastlstm.reference.variant import Weights


class QuantizedRow:
    """One in 8, 16 or 24 bits."""

    def __init__(self, spec: Spec, bits: int, direction: QuantizedDirection, isa: str) -> None:
        self.is_reverse = spec.reverse
        self._spec, self._bits = spec, bits
        self._model = _core.Model(spec, None, isa, Quantized(bits, (direction,)))
        self._weights = _as_reference(spec, direction)

    def rows_at_once(self, numbers: int) -> int:
        return max(1, numbers // (8 * self._spec.hidden_size))  # about what the reference holds

    def run(
        self,
        x: RealArray,
        starts: Rows,
        state: tuple[RealArray, RealArray],
        names: tuple[str, ...],
    ) -> tuple[RealArray, dict[str, RealArray]]:
        spec, N = self._spec, len(x)
        y = np.empty((N, spec.output_size), np.float32)
        c = np.empty((N, spec.hidden_size), np.float32)
        h_0, c_0 = state[0].copy(), state[1].copy()
        for t in steps(starts.size - 1, self.is_reverse):
            rows = slice(starts[t], starts[t + 1])
            own = [part[np.newaxis, : rows.stop - rows.start] for part in state]
            h_n, c_n = y[np.newaxis, rows], c[np.newaxis, rows]
            self._model.forward(x[np.newaxis, rows], own[0], own[1], None, h_n, c_n)
            own[0][...], own[1][...] = h_n, c_n
        if not names:
            return y, {}
        h_before = states_before(y, h_0, starts, self.is_reverse)
        c_before = states_before(c, c_0, starts, self.is_reverse)
        with np.errstate(all="ignore"):  # NaN and infinity go on as in the kernels
            found = self._found(x, h_before, c_before)
        found |= {"h": y, "c": c, "h_before": h_before, "c_before": c_before}
        return y, {name: found[name] for name in names}

    def _found(
        self, x: RealArray, h_before: RealArray, c_before: RealArray
    ) -> dict[str, RealArray]:
        """Return what follows from the states and inputs of all steps, by name."""
        cell, w = self._spec.cell, self._weights.others
        step = quantized_step(flush(x), flush(h_before), flush(c_before), self._weights, cell)
        found = gates_of(step, self._bits, cell) | {"c_new": step.c_new, "h_wide": step.h_wide}
        found |= {"z_i": step.z_i, "z_g": step.z_g, "z_o": step.z_o}
        if step.z_f is not None:
            found["z_f"] = step.z_f
        sources = {"i": c_before, "f": c_before, "o": step.c_new}
        for gate, peephole in {"i": w.p_i, "f": w.p_f, "o": w.p_o}.items():
            if peephole is not None:
                found[f"peephole_{gate}"] = peephole * sources[gate]
        return found


def _as_reference(spec: Spec, direction: QuantizedDirection) -> QuantizedWeights:
    """Return a direction's parameters as the reference has them."""
    real: dict[str, RealArray] = {}
    at = 0
    for name, shape in parameter_shapes(spec):
        kind = name.partition("_l")[0]
        if kind in ("weight_ih", "weight_hh", "weight_hr"):
            continue
        size = int(np.prod(shape))
        real[kind] = flush(direction.others[at : at + size].reshape(shape))
        at += size
    fields: dict[str, RealArray] = {}
    for field, kinds in NAMES.items():
        parts = [real[kind] for kind in kinds if kind in real]
        if parts:
            fields[field] = parts[0] if len(parts) == 1 else flush(parts[0] + parts[1])
    unread = np.empty((0, 0), np.float32)  # what the digits stand for
    if direction.w is None:
        assert direction.w_real is not None
        W: digits.Digits | RealArray = flush(direction.w_real)
    else:
        W = _digits(direction.w)
    multipliers = direction.x_multipliers
    return QuantizedWeights(
        W,
        _digits(direction.u),
        None if direction.w_hr is None else _digits(direction.w_hr),
        None if multipliers is None else flush(multipliers),
        Weights(unread, unread, **fields),
    )


def _digits(given: Digits) -> digits.Digits:
    return digits.Digits(given.digits, flush(given.units))
