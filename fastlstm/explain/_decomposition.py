"""The LSTM's own decomposition: what each step put into a state, by the layer's equations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fastlstm._arguments import RealArray, as_real_array, shown
from fastlstm._layer import LSTMBase
from fastlstm.trace import Trace


@dataclass(frozen=True, repr=False)
class Decomposition:
    """What each step contributed to c and h of one direction of a layer, at one step.

    Attributes
    ----------
    cell : ndarray of float64 (T, B, H), (B, T, H) with ``batch_first``, or (T, H)
        Contributions to c: i * g of a step times the product of f after it. They and
        ``cell_initial`` add up to ``c``.
    hidden : ndarray of float64, the same shape with P
        Contributions to h: they and ``hidden_initial`` add up to ``h``.
    cell_initial, hidden_initial : ndarray (B, H), (B, P), or (H,), (P,)
        Of the initial state.
    c, h : ndarray (B, H), (B, P), or (H,), (P,)
        The states as the layer has them.
    residual : float
        The largest difference between a sum and a state: of rounding.
    layer, direction : int
    batch_first : bool
    """

    cell: RealArray
    hidden: RealArray
    cell_initial: RealArray
    hidden_initial: RealArray
    c: RealArray
    h: RealArray
    residual: float
    layer: int
    direction: int
    batch_first: bool

    def of(self, weight: npt.ArrayLike) -> RealArray:
        """Return contributions to ``weight @ h``, (T, B, K), (B, T, K) or (T, K).

        Parameters
        ----------
        weight : array_like (K, P), or (P,) for one number
            Of a linear head; then its answers without the bias are what adds up.
        """
        given = as_real_array("weight", weight, np.dtype(np.float64))
        P = self.hidden.shape[-1]
        if given.ndim not in (1, 2) or given.shape[-1] != P:
            raise ValueError(f"weight: got shape {given.shape}, expected (K, {P}) or ({P},)")
        shares: RealArray = self.hidden @ given.T
        return shares

    def __repr__(self) -> str:
        direction = f", direction {self.direction}" if self.direction else ""
        return (
            f"Decomposition(layer {self.layer}{direction}, cell {self.cell.shape}, "
            f"residual {self.residual:.2g})"
        )


def decompose(
    layer: LSTMBase,
    x: npt.ArrayLike,
    *,
    number: int = -1,
    direction: int = 0,
    step: int = -1,
    lengths: npt.ArrayLike | None = None,
    resets: npt.ArrayLike | None = None,
    state: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
) -> Decomposition:
    """Split the state of a layer into what each of its steps put there.

    c_t = f_t * c_{t-1} + i_t * g_t is a sum over steps, once the gates are known::

        c_t = sum over s <= t of (f_t * ... * f_{s+1}) * i_s * g_s, and f_t * ... * f_1 * c_0

    and h_t = o_t * tanh(c_t) is split by adding these one after the other, from the first step on
    [1]_: a step's contribution is o_t times what its addition changes of tanh.

    Parameters
    ----------
    layer : LSTM or BiLSTM
        In float32, float64, or quantised.
    x, lengths, resets, state
        As for a call of it, without offsets.
    number : int, default -1
        Which layer of the stack; the steps are those of its own input.
    direction : int, default 0
        1 for the reverse one of a BiLSTM.
    step : int, default -1
        Whose state, in the order in which the direction takes them: -1 is the last it took of each
        sequence, which of a reverse direction is the first of x. Others count from its beginning.

    Returns
    -------
    Decomposition

    Raises
    ------
    TypeError, ValueError
        As a call; if a number is out of range, or the layer is one that is not a sum.

    Notes
    -----
    It is exact, but for rounding, for the gates as they were: they depend on earlier steps, too,
    and that influence is part of their own step's contribution. It takes peepholes, coupled gates,
    any activation, a projection (h is linear in what is projected) and ``zoneout_c``. Not sums are
    ``cell_clip``, which cuts c; ``layer_norm``, where h sees a normalised c; and ``zoneout_h``,
    which mixes in an earlier h: these are refused. Of a layer above the first, contributions are
    those of the steps of the layer below.

    References
    ----------
    .. [1] W. J. Murdoch and A. Szlam, "Automatic rule extraction from long short term memory
       networks", ICLR 2017.
    """
    if not isinstance(layer, LSTMBase):
        raise TypeError(f"layer: got {type(layer).__name__}, expected an LSTM or BiLSTM")
    cell = layer.cell
    for name in ("cell_clip", "layer_norm", "zoneout_h"):
        if getattr(cell, name):
            raise ValueError(f"layer: has {name}={getattr(cell, name)!r}, and its state is no sum")
    for what, value in (("number", number), ("direction", direction), ("step", step)):
        if not isinstance(value, int | np.integer) or isinstance(value, bool):
            raise TypeError(f"{what}: got {shown(value)}, expected an integer")
    L, D = layer.num_layers, layer.num_directions
    for what, value, size, low in (("number", number, L, -L), ("direction", direction, D, 0)):
        if not low <= value < size:
            raise ValueError(f"{what}: got {shown(value)}, expected {low} to {size - 1}")
    names = ("i", "f", "g", "o", "c", "h", "c_before")
    trace = layer.trace(x, state, lengths=lengths, resets=resets, names=names, layers=number)
    parts = _Parts(trace, direction)
    if parts.present.shape[1] == 0:
        raise ValueError(f"x: got shape {np.shape(x)}, expected one sequence at least")
    index = parts.step(step)
    hr = None
    if layer.proj_size:
        tail = f"l{number % L}" + ("_reverse" if direction else "")
        hr = layer.state_dict()[f"weight_hr_{tail}"].astype(np.float64)
    split = [_of_sequence(parts, b, index[b], cell, hr) for b in range(len(index))]
    T = len(parts.present)
    cells, hiddens, cell_0, hidden_0 = (list(column) for column in zip(*split, strict=True))
    arrays = {"cell": np.zeros((T, len(index), layer.hidden_size)),
              "hidden": np.zeros((T, len(index), layer.output_size))}  # fmt: skip
    for b, (of_c, of_h) in enumerate(zip(cells, hiddens, strict=True)):
        arrays["cell"][:, b], arrays["hidden"][:, b] = of_c, of_h
    initial = np.array(cell_0), np.array(hidden_0)
    times = np.array(index)
    c, h = (parts.at(name, times) for name in ("c", "h"))
    sums = arrays["cell"].sum(axis=0) + initial[0], arrays["hidden"].sum(axis=0) + initial[1]
    worst = [float(np.abs(a - b).max(initial=0)) for a, b in zip(sums, (c, h), strict=True)]
    batch = trace.present.ndim == 2

    def turned(array: RealArray) -> RealArray:
        if not batch:
            return array[:, 0]
        return array.swapaxes(0, 1) if trace.time_axis == 1 else array

    def each(array: RealArray) -> RealArray:
        return array if batch else array[0]

    return Decomposition(
        turned(arrays["cell"]), turned(arrays["hidden"]), each(initial[0]), each(initial[1]),
        each(c), each(h), max(worst), number % L, direction, trace.time_axis == 1,
    )  # fmt: skip


class _Parts:
    """The traced arrays of one direction, (T, B, n) in float64, in the order of its walk."""

    def __init__(self, trace: Trace, direction: int) -> None:
        self.reverse = trace.rows[direction].is_reverse
        self._arrays = {
            name: trace.by_time(array[direction]).astype(np.float64)
            for name, array in trace.arrays.items()
        }
        self.present = trace.by_time(trace.present)
        self.begins = trace.by_time(trace.begins)

    def of(self, name: str, b: int) -> RealArray:
        return self._arrays[name][:, b]

    def walk(self, b: int) -> npt.NDArray[np.intp]:
        """Return the times of a sequence in the order in which they are taken."""
        times = np.flatnonzero(self.present[:, b])
        return times[::-1] if self.reverse else times

    def step(self, step: int) -> list[int]:
        """Return the time of that step of each sequence."""
        times = []
        for b in range(self.present.shape[1]):
            walk = self.walk(b)
            if not -walk.size <= step < walk.size:
                raise ValueError(f"step: got {shown(step)}, but sequence {b} has {walk.size} steps")
            times.append(int(walk[step]))
        return times

    def since(self, b: int, time: int) -> npt.NDArray[np.intp]:
        """Return the times up to that one, from where the state began, a reset say."""
        walk = self.walk(b)
        walk = walk[: int(np.flatnonzero(walk == time)[0]) + 1]
        # A reset is before the step in time: of a reverse direction after it, in its walk.
        cuts = self.begins[walk, b]
        if self.reverse:
            cuts = np.concatenate([[False], cuts[:-1]])
        last = np.flatnonzero(cuts)
        return walk[int(last[-1]) :] if last.size else walk

    def at(self, name: str, times: npt.NDArray[np.intp]) -> RealArray:
        """Return (B, n) at a time of each sequence."""
        found: RealArray = self._arrays[name][times, np.arange(times.size)]
        return found


def _of_sequence(
    parts: _Parts, b: int, time: int, cell: Any, hr: RealArray | None
) -> tuple[RealArray, RealArray, RealArray, RealArray]:
    """Return contributions (T, H), (T, P) to c and h at a time, and those of the initial state."""
    from fastlstm.reference.variant import activate

    walk, share = parts.since(b, time), cell.zoneout_c
    i, f, g = (parts.of(name, b)[walk] for name in "ifg")
    c_0 = parts.of("c_before", b)[walk[0]]
    kept, added = share + (1 - share) * f, (1 - share) * i * g
    # Of c~, which h sees, and of c: they differ in the last step of zoneout.
    seen, base = _contributions(kept, added, c_0, f[-1], i[-1] * g[-1])
    added, initial = _contributions(kept, added, c_0, kept[-1], added[-1])
    sums = base + np.concatenate([np.zeros((1, base.size)), np.cumsum(seen, axis=0)])
    let_out = parts.of("o", b)[time] * activate(cell.output_activation, sums)
    wide, start = np.diff(let_out, axis=0), let_out[0]
    if hr is not None:
        wide, start = wide @ hr.T, hr @ start
    T = len(parts.present)
    of_c, of_h = np.zeros((T, added.shape[1])), np.zeros((T, wide.shape[1]))
    of_c[walk], of_h[walk] = added, wide
    return of_c, of_h, initial, start


def _contributions(
    kept: RealArray, added: RealArray, c_0: RealArray, last_kept: RealArray, last_added: RealArray
) -> tuple[RealArray, RealArray]:
    """Return what steps (n, H) and c_0 contribute to the state after the last of them.

    ``kept`` is what a step leaves of the state before, ``added`` what it adds; those of the last
    step are given by themselves.
    """
    after = np.ones_like(kept)
    after[:-1] = last_kept
    after[:-2] *= np.cumprod(kept[-2:0:-1], axis=0)[::-1]
    contributions = added * after
    contributions[-1] = last_added
    return contributions, c_0 * last_kept * np.prod(kept[:-1], axis=0)
