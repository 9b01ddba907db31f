"""A recorded forward pass, and the gradients it gives: backpropagation through time."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterable
from typing import Any, NamedTuple, NoReturn

import numpy as np
import numpy.typing as npt

from fastlstm import _core
from fastlstm._arguments import (
    RealArray,
    as_flag,
    as_native,
    as_state,
    check_out,
    shown,
    with_contiguous_rows,
)
from fastlstm._masks import Drawn
from fastlstm._merge import Merged, as_gradient, gradient_of_both
from fastlstm._ragged import Packed


class Gradients(NamedTuple):
    """Gradients of one scalar, or None where they were not asked for.

    Attributes
    ----------
    x : ndarray, of the shape of x
    h_0, c_0 : ndarray (L*D, B, P) and (L*D, B, H), or (L*D, P) and (L*D, H) without a batch
    params : ndarray (N,)
        Laid out like the layer's ``parameters``; its ``named_views`` gives them by name. The
        gradients of ``bias_ih`` and ``bias_hh`` are equal.
    """

    x: RealArray | None = None
    h_0: RealArray | None = None
    c_0: RealArray | None = None
    params: RealArray | None = None


class Inputs(NamedTuple):
    """What goes into a call, as the kernels take it; None for zeros."""

    x: RealArray  # (T, B, I), (B, T, I) with batch_first, or packed (1, N, I)
    h_0: RealArray | None  # (L*D, B, P)
    c_0: RealArray | None  # (L*D, B, H)
    batch_first: bool
    starts: npt.NDArray[np.intp] | None  # of packed rows
    batch_size: int  # B, of pieces where sequences are cut


class Recording(NamedTuple):
    """What a tape keeps of its call."""

    parameters: RealArray  # (N,), those that ran
    model: _core.Model
    inputs: Inputs
    drawn: Drawn
    shapes: dict[str, tuple[int, ...]]  # the caller's, by the names of Gradients
    y_shape: tuple[int, ...]  # the caller's, of one array
    return_sequences: bool
    merge_mode: str | None
    both: RealArray | None  # what was merged, where gradients need it
    layout: Packed | None  # where sequences have different lengths, or are cut


class Tape:
    """A forward pass that can be differentiated; made by ``record`` of a layer.

    It holds i, f, g, o after activation and c of every step, 5*L*D*T*B*H numbers, of a variant h
    and what it normalised besides (:attr:`nbytes`); the masks and parameters that the layer had;
    and of a plain call a reference to x: changing x in place before :meth:`backward` changes the
    gradients of the parameters. tanh(c), and h of the usual cell, are computed once more instead of
    being kept, so y may be changed. Threads may share a tape with ``keep``.
    """

    __slots__ = ("__weakref__", "_lock", "_recording", "_records")

    def __init__(self, recording: Recording, records: RealArray) -> None:
        self._recording = recording
        self._records: RealArray | None = records
        self._lock = threading.Lock()

    @property
    def nbytes(self) -> int:
        """Bytes that were recorded; 0 once the tape is used up."""
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
            Gradient with respect to y, converted as x is; zeros when omitted. Where y is a pair,
            so is dy.
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
            then as they were. After Ctrl-C the tape is too, but ``into`` holds anything.

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
        merged = as_gradient(dy, call.y_shape, call.merge_mode, dtype)
        dh_n, dc_n = _as_state_gradients(dstate, call.shapes, dtype)
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
                call.shapes,
                dtype,
                _by_name(merged)
                | {"x": call.inputs.x, "dh_n": dh_n, "dc_n": dc_n, "the tape": records},
            )
            results = _backward(call, records, (merged, dh_n, dc_n), wanted, given)
            used = True
        finally:
            if not (used or keep):  # with keep, another thread may have used it up meanwhile
                self._records = records
        return Gradients(**results)

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"{type(self).__name__}: can't be copied or pickled; use it again with keep=True, or "
            "record the call again"
        )

    def __repr__(self) -> str:
        held = "used" if self._records is None else f"{self.nbytes} bytes"
        return f"Tape({held})"


def _by_name(merged: Merged | None) -> dict[str, RealArray | None]:
    if isinstance(merged, tuple):
        return {"dy[0]": merged[0], "dy[1]": merged[1]}
    return {"dy": merged}


def _backward(
    call: Recording,
    records: RealArray,
    seeds: tuple[Merged | None, RealArray | None, RealArray | None],
    wanted: frozenset[str],
    given: dict[str, RealArray],
) -> dict[str, RealArray]:
    """Return the gradients by name, those of ``given`` added to."""
    dtype, layout, inputs = records.dtype, call.layout, call.inputs
    dy, dh_n, dc_n = _as_of_kernels(call, *seeds)
    # Plain calls compute in the results' place; others have something to do afterwards.
    in_place = layout is None and call.drawn.weights is None
    shapes = {"x": inputs.x.shape, "params": call.parameters.shape}
    for name, width in (("h_0", call.model.output_size), ("c_0", call.model.hidden_size)):
        shapes[name] = (call.shapes[name][0], inputs.batch_size, width)
    targets = {name: as_native(array, dtype) for name, array in given.items()}
    make = np.zeros if given and in_place else np.empty
    arrays: dict[str, RealArray | None] = dict.fromkeys(Gradients._fields)
    for name in wanted:
        target = targets[name] if in_place and name in given else make(shapes[name], dtype)
        arrays[name] = target.reshape(shapes[name])
    call.model.backward(
        call.parameters,
        inputs.x,
        inputs.h_0,
        inputs.c_0,
        records,
        dy,
        dh_n,
        dc_n,
        arrays["x"],
        arrays["h_0"],
        arrays["c_0"],
        arrays["params"],
        accumulate=bool(given) and in_place,
        batch_first=inputs.batch_first,
        starts=inputs.starts,
        batch_size=inputs.batch_size,
        masks=call.drawn.masks,
    )
    results = {}
    for name, array in arrays.items():
        if array is None:
            continue
        if layout is not None and name == "x":
            results[name] = np.zeros(call.shapes[name], dtype)
            layout.unpack(array[0], results[name])
            continue
        if layout is not None and name != "params":
            array = layout.collect(array, call.model.is_reverse, initial=True)
        results[name] = array.reshape(call.shapes[name])
    if call.drawn.weights is not None and "params" in results:
        with np.errstate(all="ignore"):
            results["params"] *= call.drawn.weights
    if in_place:
        return results | given
    with np.errstate(all="ignore"):  # nothing can fail any more
        for name, target in targets.items():
            target += results[name]
    return results | given


def _as_of_kernels(
    call: Recording, merged: Merged | None, dh_n: RealArray | None, dc_n: RealArray | None
) -> tuple[RealArray | None, RealArray | None, RealArray | None]:
    """Return dy, dh_n and dc_n as the kernels take them."""
    layout, D = call.layout, call.model.num_directions
    B = call.inputs.batch_size if layout is None else layout.pieces.batch_size
    P, H = call.model.output_size, call.model.hidden_size
    dh_n = None if dh_n is None else dh_n.reshape(len(dh_n), B, P)
    dc_n = None if dc_n is None else dc_n.reshape(len(dc_n), B, H)
    dy: RealArray | None = None
    if merged is not None:
        dy = gradient_of_both(merged, call.both, call.merge_mode)
    if dy is not None and not call.return_sequences:  # y is the last layer's h_n
        last = dy.reshape(B, D, P).swapaxes(0, 1)
        below = call.shapes["h_0"][0] - D
        if dh_n is None:
            dh_n = np.zeros((below + D, *last.shape[1:]), dy.dtype)
        with np.errstate(all="ignore"):
            dh_n = np.concatenate([dh_n[:below], dh_n[below:] + last])
        dy = None
    if layout is not None:
        dy = None if dy is None else layout.pack(dy, dy.shape[-1])
        is_reverse = call.model.is_reverse
        dh_n, dc_n = (layout.spread(a, is_reverse, initial=False) for a in (dh_n, dc_n))
    elif dy is not None:
        dy = with_contiguous_rows(dy if dy.ndim == 3 else dy[:, np.newaxis])
    return dy, dh_n, dc_n


def _as_names(wrt: Iterable[str]) -> frozenset[str]:
    expected = f"expected some of {', '.join(Gradients._fields)}"
    if isinstance(wrt, str):
        wrt = (wrt,)
    most = 4 * len(Gradients._fields)  # of something endless
    try:
        given = list(itertools.islice(wrt, most + 1))
        names = frozenset(given)
    except TypeError:
        raise TypeError(f"wrt: got {shown(wrt)}, {expected}") from None
    if len(given) > most:
        raise ValueError(f"wrt: got more than {most} names, {expected}")
    if unknown := [n for n in names if not isinstance(n, str) or str(n) not in Gradients._fields]:
        raise ValueError(f"wrt: got {', '.join(map(shown, unknown))}, {expected}")
    if not names:
        raise ValueError(f"wrt: got no name, {expected}")
    return frozenset(map(str, names))


def _as_state_gradients(
    dstate: Any, shapes: dict[str, tuple[int, ...]], dtype: np.dtype[Any]
) -> tuple[RealArray | None, RealArray | None]:
    if dstate is None:
        return None, None
    if not isinstance(dstate, tuple | list):
        raise TypeError(f"dstate: got {type(dstate).__name__}, expected a pair (dh_n, dc_n)")
    if len(dstate) != 2:
        raise ValueError(f"dstate: got {len(dstate)} items, expected a pair (dh_n, dc_n)")
    dh_n, dc_n = dstate
    return (
        None if dh_n is None else as_state("dh_n", dh_n, shapes["h_0"], dtype),
        None if dc_n is None else as_state("dc_n", dc_n, shapes["c_0"], dtype),
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
