"""A recorded forward pass, and the gradients it gives: backpropagation through time."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastlstm import _core
from fastlstm.arguments import RealArray, as_batch, as_flag, as_real_array, as_state, check_out
from fastlstm.arguments import with_contiguous_rows as as_rows
from fastlstm.ragged import Ragged


class Gradients(NamedTuple):
    """Gradients of one scalar, or None where they were not asked for.

    Attributes
    ----------
    x : ndarray, of the shape of x
    h_0, c_0 : ndarray (L*D, B, H), or (L*D, H) without a batch
    params : ndarray (N,)
        Laid out like the layer's ``parameters``; its ``named_views`` gives them by name. The
        gradients of ``bias_ih`` and ``bias_hh`` are equal.
    """

    x: RealArray | None = None
    h_0: RealArray | None = None
    c_0: RealArray | None = None
    params: RealArray | None = None


class Recording(NamedTuple):
    """What a tape keeps of its call. Arrays are as the kernels take them, None for zeros."""

    parameters: RealArray  # (N,)
    model: _core.Model
    x: RealArray  # (T, B, I), (B, T, I) with batch_first, (T, I), or packed (1, N, I)
    h_0: RealArray | None
    c_0: RealArray | None
    x_shape: tuple[int, ...]  # the caller's
    y_shape: tuple[int, ...]
    state_shape: tuple[int, ...]
    batch_first: bool
    layout: Ragged | None = None  # of packed sequences


class Tape:
    """A forward pass that can be differentiated; made by ``record`` of a layer.

    It holds i, f, g and o after activation and c of every step, 5*L*D*T*B*H numbers
    (:attr:`nbytes`), the parameters that the layer had, and a reference to x: changing x in place
    before :meth:`backward` changes the gradients of the parameters. tanh(c) and h are computed
    once more instead of being kept, so y may be changed. Threads may share a tape with ``keep``.
    """

    def __init__(self, recording: Recording, records: RealArray) -> None:
        self._recording = recording
        self._records: RealArray | None = records
        self._lock = threading.Lock()

    @property
    def nbytes(self) -> int:
        """Bytes that the tape holds; 0 once it is used up."""
        return 0 if self._records is None else self._records.nbytes

    def backward(
        self,
        dy: npt.ArrayLike | None = None,
        dstate: tuple[npt.ArrayLike | None, npt.ArrayLike | None] | None = None,
        *,
        wrt: Iterable[str] = Gradients._fields,
        into: Gradients | None = None,
        keep: bool = False,
    ) -> Gradients:
        """Return the gradients of a scalar, given those with respect to the results.

        Parameters
        ----------
        dy : array_like of the shape of y, optional
            Gradient with respect to y, converted as x is; zeros when omitted.
        dstate : (dh_n, dc_n), optional
            Gradients with respect to h_n and c_n, of their shape; each may be None for zeros.
        wrt : names out of "x", "h_0", "c_0", "params"
            Which gradients are wanted, all by default; the others are not computed. "x" of a first
            layer and "params" of a frozen one are worth leaving out.
        into : Gradients, optional
            Arrays to add to, of the right shape and dtype, C-contiguous, sharing no memory with
            anything else of the call; fields that are None get new arrays.
        keep : bool, default False
            Whether the tape can be used again. If not, its memory is given back.

        Returns
        -------
        Gradients
            With the arrays of ``into`` where there are any.

        Raises
        ------
        RuntimeError
            If the tape was used before without ``keep``.
        TypeError, ValueError
            If an argument is of the wrong type, shape, layout or name. The tape and ``into`` are
            then as they were.

        Notes
        -----
        The bits of the gradients of x, h_0 and c_0 of a sequence depend on the parameters and that
        sequence alone, those of the parameters also on the others in the batch; neither on threads
        or the instruction set. Method: Werbos (1990), with the full gradient of Graves and
        Schmidhuber (2005); :func:`fastlstm.reference.backward` derives it.
        """
        call = self._recording
        dtype = call.parameters.dtype
        wanted = _as_names(wrt)
        keep = as_flag("keep", keep)
        dy_rows = None if dy is None else _as_gradient_of_y(dy, call.y_shape, dtype)
        dh_n, dc_n = _as_state_gradients(dstate, call.state_shape, dtype)
        shapes = {
            "x": call.x_shape,
            "h_0": call.state_shape,
            "c_0": call.state_shape,
            "params": call.parameters.shape,
        }
        with self._lock:
            records = self._records
            if records is None:
                raise RuntimeError(
                    "tape: it was used before without keep=True, or is in use by another thread"
                )
            if not keep:
                self._records = None
        used = False
        try:
            given = _as_targets(
                into,
                wanted,
                shapes,
                dtype,
                {"x": call.x, "dy": dy_rows, "dh_n": dh_n, "dc_n": dc_n, "the tape": records},
            )
            compute = _backward if call.layout is None else _backward_ragged
            results = compute(call, records, (dy_rows, dh_n, dc_n), wanted, shapes, given)
            used = True
        finally:
            if not used:
                self._records = records
        return Gradients(**results)

    def __repr__(self) -> str:
        held = "used" if self._records is None else f"{self.nbytes} bytes"
        return f"Tape({held})"


_Seeds = tuple[RealArray | None, RealArray | None, RealArray | None]
_Arrays = dict[str, RealArray]


def _backward(
    call: Recording,
    records: RealArray,
    seeds: _Seeds,
    wanted: frozenset[str],
    shapes: dict[str, tuple[int, ...]],
    given: _Arrays,
) -> _Arrays:
    """Return the gradients by name, those of ``given`` added to."""
    dtype = records.dtype
    make = np.zeros if given else np.empty
    results = {
        name: given[name] if name in given else make(shapes[name], dtype)
        for name in Gradients._fields
        if name in wanted
    }
    batched = call.x.ndim == 3
    dy, dh_n, dc_n = seeds
    call.model.backward(
        call.parameters,
        as_batch(call.x, batched),
        as_batch(call.h_0, batched),
        as_batch(call.c_0, batched),
        records,
        as_batch(dy, batched),
        as_batch(dh_n, batched),
        as_batch(dc_n, batched),
        as_batch(results.get("x"), batched),
        as_batch(results.get("h_0"), batched),
        as_batch(results.get("c_0"), batched),
        results.get("params"),
        accumulate=bool(given),
        batch_first=batched and call.batch_first,
    )
    return results


def _backward_ragged(
    call: Recording,
    records: RealArray,
    seeds: _Seeds,
    wanted: frozenset[str],
    shapes: dict[str, tuple[int, ...]],
    given: _Arrays,
) -> _Arrays:
    """The same for packed sequences: seeds are packed before, results unpacked after."""
    layout = call.layout
    assert layout is not None
    dtype = records.dtype
    dy, dh_n, dc_n = seeds
    packed = {name: np.empty(shapes[name], dtype) for name in wanted - {"x"}}
    if "x" in wanted:
        packed["x"] = np.empty(call.x.shape, dtype)
    call.model.backward(
        call.parameters,
        call.x,
        call.h_0,
        call.c_0,
        records,
        None if dy is None else layout.pack(dy, dy.shape[-1])[np.newaxis],
        layout.sort(dh_n),
        layout.sort(dc_n),
        packed.get("x"),
        packed.get("h_0"),
        packed.get("c_0"),
        packed.get("params"),
        accumulate=False,
        starts=layout.starts,
        batch_size=layout.order.size,
    )
    fresh: _Arrays = {}
    for name, array in packed.items():
        if name == "x":
            fresh[name] = np.zeros(shapes[name], dtype)
            layout.unpack(array[0], fresh[name])
        else:
            fresh[name] = array if name == "params" else layout.unsort(array)
    with np.errstate(all="ignore"):  # nothing can fail any more
        for name, target in given.items():
            target += fresh[name]
    return fresh | given


def _as_names(wrt: Iterable[str]) -> frozenset[str]:
    expected = f"expected some of {', '.join(Gradients._fields)}"
    if isinstance(wrt, str):
        wrt = (wrt,)
    try:
        names = frozenset(wrt)
    except TypeError:
        raise TypeError(f"wrt: got {wrt!r}, {expected}") from None
    if unknown := [name for name in names if name not in Gradients._fields]:
        raise ValueError(f"wrt: got {', '.join(map(repr, unknown))}, {expected}")
    if not names:
        raise ValueError(f"wrt: got no name, {expected}")
    return names


def _as_gradient_of_y(dy: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> RealArray:
    rows = as_real_array("dy", dy, dtype)
    if rows.shape != shape:
        raise ValueError(f"dy: got shape {rows.shape}, expected that of y, {shape}")
    return as_rows(rows)


def _as_state_gradients(
    dstate: Any, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> tuple[RealArray | None, RealArray | None]:
    if dstate is None:
        return None, None
    if not isinstance(dstate, tuple | list):
        raise TypeError(f"dstate: got {type(dstate).__name__}, expected a pair (dh_n, dc_n)")
    if len(dstate) != 2:
        raise ValueError(f"dstate: got {len(dstate)} items, expected a pair (dh_n, dc_n)")
    dh_n, dc_n = dstate
    return (
        None if dh_n is None else as_state("dh_n", dh_n, shape, dtype),
        None if dc_n is None else as_state("dc_n", dc_n, shape, dtype),
    )


def _as_targets(
    into: Gradients | None,
    wanted: frozenset[str],
    shapes: dict[str, tuple[int, ...]],
    dtype: np.dtype[Any],
    inputs: dict[str, RealArray | None],
) -> dict[str, RealArray]:
    """Return the arrays of ``into`` by name, checked."""
    if into is None:
        return {}
    if not isinstance(into, Gradients):
        raise TypeError(f"into: got {type(into).__name__}, expected fastlstm.Gradients")
    targets: dict[str, RealArray] = {}
    for name, array in into._asdict().items():
        if array is None:
            continue
        if name not in wanted:
            raise ValueError(f"into: got an array for {name}, which wrt leaves out")
        others = inputs | {f"into.{other}": targets[other] for other in targets}
        taken = {other: (value, value) for other, value in others.items()}
        check_out(array, shapes[name], dtype, taken, name=f"into.{name}")
        targets[name] = array
    return targets
