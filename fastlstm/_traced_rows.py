"""One direction of one layer, run over packed rows, and all that its steps compute.

Letters: N rows of a chunk, n those of a step, S pieces of sequences, I input size, H hidden size,
P output size, G gates.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

import numpy as np

from fastlstm import _core
from fastlstm._arguments import RealArray, shown
from fastlstm._linear import linear
from fastlstm._parameters import parameter_count, split_directions
from fastlstm._quantized import Quantized
from fastlstm._ragged import Rows
from fastlstm._spec import Spec
from fastlstm.trace import USUAL_NAMES

#: What is of all gates, G*H numbers of a step.
OF_GATES = ("w_x", "u_h", "w_x_normal", "u_h_normal")


def available(spec: Spec, is_quantized: bool) -> tuple[str, ...]:
    """Return all that can be kept of a step, by name; ``LSTM.trace`` says what each is."""
    cell = spec.cell
    gates = ("z_i", "z_g", "z_o") if cell.coupled_gates else ("z_i", "z_f", "z_g", "z_o")
    names = [*USUAL_NAMES, *gates, "c_before", "h_before", "c_new", "h_wide"]
    if cell.peepholes:
        seeing = "io" if cell.coupled_gates else "ifo"
        names += [f"peephole_{gate}" for gate in seeing]
    if not is_quantized:
        names += ["w_x", "u_h"]
        if cell.layer_norm:
            names += ["w_x_normal", "u_h_normal", "c_normal"]
    return tuple(names)


def as_names(given: Any, spec: Spec, weights: Any) -> tuple[str, ...]:
    """Return what is to be kept, checked; None is the gates and states, "all" is everything."""
    names = available(spec, isinstance(weights, Quantized))
    if given is None:
        return USUAL_NAMES
    if isinstance(given, str):
        if given == "all":
            return names
        given = (given,)
    if not isinstance(given, Iterable):
        raise TypeError(f"names: got {shown(given)}, expected some of {', '.join(names)}")
    chosen = list(given)
    if unknown := [name for name in chosen if name not in names]:
        raise ValueError(f"names: got {shown(unknown[0])}, expected some of {', '.join(names)}")
    return tuple(name for name in names if name in chosen)


def is_projected(name: str, spec: Spec) -> bool:
    """Tell whether something is of P numbers that are no units."""
    return spec.proj_size > 0 and name in ("h", "h_before")


class TracedRow(Protocol):
    """One direction of one layer."""

    is_reverse: bool

    def rows_at_once(self, numbers: int) -> int:
        """Return how many rows make a chunk of about so many numbers."""

    def run(
        self,
        x: RealArray,
        starts: Rows,
        state: tuple[RealArray, RealArray],
        names: tuple[str, ...],
    ) -> tuple[RealArray, dict[str, RealArray]]:
        """Run some steps.

        Parameters
        ----------
        x : array (N, I)
        starts : array (steps + 1,)
            Of the packed rows of each step.
        state : arrays (S, P), (S, H)
            Those of the first pieces, as many as have steps here, are used and written.
        names : tuple of str

        Returns
        -------
        y : array (N, P)
        found : dict of str to array (N, H), (N, P) or (N, G*H)
        """


class RealRow:
    """One in float32 or float64."""

    def __init__(self, spec: Spec, vector: RealArray, isa: str) -> None:
        assert vector.size == parameter_count(spec)
        self.is_reverse = spec.reverse
        self._spec, self._isa = spec, isa
        self._model = _core.Model(spec, vector, isa)
        self._parameters = split_directions(vector, spec)[0]

    def rows_at_once(self, numbers: int) -> int:
        return max(1, numbers // self._model.tape_size(1, 1))

    def run(
        self,
        x: RealArray,
        starts: Rows,
        state: tuple[RealArray, RealArray],
        names: tuple[str, ...],
    ) -> tuple[RealArray, dict[str, RealArray]]:
        spec, N, n = self._spec, len(x), int(starts[1])
        H, P, dtype = spec.hidden_size, spec.output_size, spec.dtype
        y = np.empty((1, N, P), dtype)
        h_0, c_0 = state[0][np.newaxis, :n].copy(), state[1][np.newaxis, :n].copy()
        h_n, c_n = np.empty_like(h_0), np.empty_like(c_0)
        size = self._model.tape_size(starts.size - 1, n, starts)
        tape = np.empty(size, dtype) if names else None
        self._model.forward(x[np.newaxis], h_0, c_0, y, h_n, c_n, False, tape, starts)
        found: dict[str, RealArray] = {}
        if tape is not None:
            records = tape.reshape(N, -1)
            c = records[:, 4 * H : 5 * H]
            before = {"h_before": (y[0], state[0]), "c_before": (c, state[1])}
            found = self._found(x, y[0], records, before, starts, names)
        state[0][:n], state[1][:n] = h_n[0], c_n[0]
        return y[0], found

    def _found(
        self,
        x: RealArray,
        y: RealArray,
        records: RealArray,
        before: dict[str, tuple[RealArray, RealArray]],
        starts: Rows,
        names: tuple[str, ...],
    ) -> dict[str, RealArray]:
        """Return what the tape holds by name, and what follows from it."""
        H, P = self._spec.hidden_size, self._spec.output_size
        G = self._spec.gates
        found = {name: records[:, k * H : (k + 1) * H] for k, name in enumerate("ifgoc")}
        found["h"] = y
        if self._spec.cell.layer_norm:
            at = 5 * H + P
            found["w_x_normal"] = records[:, at : at + G * H]
            found["u_h_normal"] = records[:, at + G * H : at + 2 * G * H]
            found["c_normal"] = records[:, at + 2 * G * H : at + (2 * G + 1) * H]
        if not set(names) <= set(found):
            for name, (after, initial) in before.items():
                found[name] = states_before(after, initial, starts, self.is_reverse)
            with np.errstate(all="ignore"):  # NaN and infinity go on as in the kernels
                found |= self._derived(x, found, names)
        return {name: found[name] for name in names}

    def _derived(
        self, x: RealArray, found: dict[str, RealArray], names: tuple[str, ...]
    ) -> dict[str, RealArray]:
        """Return what is asked for and not on the tape."""
        w, cell, h = self._parameters, self._spec.cell, found["h_before"]
        derived: dict[str, RealArray] = {}
        if "w_x" in names:
            derived["w_x"] = _product(x, w["weight_ih"], self._isa)
        if "u_h" in names:
            derived["u_h"] = _product(h, w["weight_hh"], self._isa)
        c_new = found["c"]
        if cell.zoneout_c > 0:
            inputs = found["i"] * found["g"]
            c_new = clip(fused(found["f"], found["c_before"], inputs), cell.cell_clip)
        derived["c_new"] = c_new
        for gate, source in (("i", found["c_before"]), ("f", found["c_before"]), ("o", c_new)):
            if (peephole := w.get(f"weight_c{gate}")) is not None:
                derived[f"peephole_{gate}"] = peephole * source
        if any(name.startswith("z_") for name in names):
            derived |= self._preactivations(x, h, found, derived)
        if "h_wide" in names:
            derived["h_wide"] = self._h_wide(found, c_new)
        return derived

    def _preactivations(
        self,
        x: RealArray,
        h: RealArray,
        found: dict[str, RealArray],
        derived: dict[str, RealArray],
    ) -> dict[str, RealArray]:
        """Return what activations are given: the kernels' own sums, bias first, then x, then h."""
        w, spec = self._parameters, self._spec
        bias: RealArray = np.zeros(len(w["weight_ih"]), spec.dtype)
        if spec.bias:
            bias = w["bias_ih"] + w["bias_hh"]
        if spec.cell.layer_norm:
            z: RealArray = found["w_x_normal"] * w["scale_ih"] + bias
            z = found["u_h_normal"] * w["scale_hh"] + z
        else:
            # A product's chain begins at 0: with a column of ones in front, at the bias.
            ones = np.ones((len(x), 1), spec.dtype)
            terms = np.hstack([bias[:, np.newaxis], w["weight_ih"], w["weight_hh"]])
            z = _product(np.hstack([ones, x, h]), terms, self._isa)
        gates = "igo" if spec.cell.coupled_gates else "ifgo"
        parts = dict(zip(gates, np.split(z, len(gates), axis=1), strict=True))
        sources = {"i": found["c_before"], "f": found["c_before"], "o": derived["c_new"]}
        for gate in parts.keys() & sources.keys():
            if (peephole := w.get(f"weight_c{gate}")) is not None:
                parts[gate] = fused(peephole, sources[gate], parts[gate])
        return {f"z_{gate}": part for gate, part in parts.items()}

    def _h_wide(self, found: dict[str, RealArray], c_new: RealArray) -> RealArray:
        """Return o * output(n), which is h where nothing comes after it."""
        w, cell = self._parameters, self._spec.cell
        if self._spec.proj_size == 0 and cell.zoneout_h == 0:
            return found["h"]
        if cell.layer_norm:
            c_new = found["c_normal"] * w["scale_c"] + w["shift_c"]
        from fastlstm.reference.variant import activate

        wide: RealArray = found["o"] * activate(cell.output_activation, c_new)
        return wide


def states_before(
    after: RealArray, initial: RealArray, starts: Rows, is_reverse: bool
) -> RealArray:
    """Return the state (N, n) that each row began with, of those after each and the initial ones.

    ``initial`` (S, n) is that of pieces which begin in this chunk, or come into it.
    """
    before = np.empty_like(after)
    counts = np.diff(starts)
    steps = counts.size
    for t in range(steps):
        rows = slice(starts[t], starts[t + 1])
        previous = t + 1 if is_reverse else t - 1
        going_on = min(int(counts[previous]), int(counts[t])) if 0 <= previous < steps else 0
        own = before[rows]
        if going_on:
            own[:going_on] = after[starts[previous] : starts[previous] + going_on]
        own[going_on:] = initial[going_on : counts[t]]
    return before


def fused(a: RealArray, b: RealArray, c: RealArray) -> RealArray:
    """Return a * b + c, in float32 rounded once as by the kernels, in float64 twice."""
    if c.dtype == np.float64:
        return a * b + c
    from fastlstm.reference import float32  # the reference is imported where it is needed

    return float32.fma(float32.flush(a), b, c)


def clip(array: RealArray, bound: float | None) -> RealArray:
    """Bound numbers to [-bound, bound]; None is no bound, NaN stays."""
    return array if bound is None else np.clip(array, -bound, bound).astype(array.dtype)


def _product(rows: RealArray, weight: RealArray, isa: str) -> RealArray:
    """Return ``rows @ weight.T`` (N, G*H), sums in the order of the kernels'."""
    return linear(rows, weight, np.zeros(len(weight), rows.dtype), isa)
