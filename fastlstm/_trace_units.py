"""One unit of a trace, and where it fires.

Letters: T time steps, B batch.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastlstm._arguments import RealArray, as_size, shown

if TYPE_CHECKING:
    from fastlstm.trace import Trace


class Firing(NamedTuple):
    """A step at which a unit is large.

    Attributes
    ----------
    value : float
    step, sequence : int
        Where it is in its input; sequence is 0 of an input without a batch.
    item : int
        Which input of a data set.
    """

    value: float
    step: int
    sequence: int
    item: int = 0


#: What `Unit.top` goes by.
_KEYS: dict[str, Callable[[RealArray], RealArray]] = {
    "magnitude": np.abs,
    "largest": np.positive,
    "smallest": np.negative,
}


class Unit:
    """One unit of one direction of a layer; made by :meth:`fastlstm.Trace.unit`.

    Attributes
    ----------
    i, f, g, o, c, h : ndarray (T, B), (B, T) or (T,)
        As of the trace; h where it is not projected, and what else was kept of units.
    unit : int
    row : Row
        Its layer and direction.
    """

    def __init__(self, trace: Trace, row: int, place: int) -> None:
        self._trace, self._at, self._place = trace, row, place
        self.unit = int(trace.units[place])
        self.row = trace.rows[row]

    def __getattr__(self, name: str) -> RealArray:
        trace: Trace | None = self.__dict__.get("_trace")
        if trace is None or name not in trace.arrays or not trace.is_of_units(name):
            raise AttributeError(f"{name}: not kept of units", name=name, obj=self)
        array: RealArray = trace.arrays[name][self._at, ..., self._place]
        return array

    def __repr__(self) -> str:
        return f"Unit({self.unit} of {self.row.name})"

    def top(
        self,
        n: int = 10,
        data: Iterable[Any] | None = None,
        *,
        of: str = "h",
        key: str = "magnitude",
    ) -> list[Firing]:
        """Return where the unit fires: the n steps at which it is largest, the largest first.

        Parameters
        ----------
        n : int, default 10
        data : iterable of array_like, or of mapping, optional
            Inputs to look through in place of the traced one, each as `LSTM.trace` takes x, or a
            mapping of its arguments ("x", "lengths", ...). One at a time is traced, and of it this
            unit alone kept. The layer has the parameters that it had when it was traced.
        of : str, default "h"
            Which array to look at; "c" where h is projected.
        key : {"magnitude", "largest", "smallest"}
            What n are taken by.

        Returns
        -------
        list of Firing
            Of equal ones the first.

        Raises
        ------
        TypeError, ValueError
            If an argument is not as described, or an input is none.
        """
        n = as_size("n", n)
        if key not in _KEYS:
            raise ValueError(f"key: got {shown(key)}, expected {', '.join(_KEYS)}")
        if data is None:
            return self._best(self._trace, n, of, key, 0)
        if self._trace._tracer is None:
            raise ValueError("data: got some, but a trace that was loaded has no layer to trace it")
        best: list[Firing] = []
        for item, given in enumerate(data):
            arguments = dict(given) if isinstance(given, Mapping) else {"x": given}
            trace = self._trace._tracer(
                **arguments, layers=self.row.layer, units=self.unit, names=(of,)
            )
            unit = trace.unit(self.unit, self.row.layer, self.row.direction)
            best = heapq.nlargest(
                n,
                [*best, *unit._best(trace, n, of, key, item)],
                key=lambda one: float(_KEYS[key](np.array(one.value))),
            )
        return best

    def _best(self, trace: Trace, n: int, of: str, key: str, item: int) -> list[Firing]:
        array = trace.kept(of)
        if not trace.is_of_units(of):
            raise ValueError(f"of: got {shown(of)}, which is not of units in this layer, try 'c'")
        values = array[self._at, ..., self._place : self._place + 1]
        return [Firing(*found[:3], item) for found in trace.largest(values, n, _KEYS[key])]


def first_largest(keys: RealArray, n: int) -> npt.NDArray[np.intp]:
    """Return the places of the n largest keys, the largest first, of equal ones the first."""
    if keys.size > 4 * n:
        bound = np.partition(keys, keys.size - n)[keys.size - n]
        places = np.flatnonzero(keys >= bound)
    else:
        places = np.arange(keys.size)
    order = np.argsort(-keys[places], kind="stable")
    return places[order][:n]
