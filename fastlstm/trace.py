"""What a call computed inside: gates and states of every step, and what they tell of the units.

Letters: T time steps, B batch, H hidden size, P output size, L layers, D directions; R rows l*D + d
that were kept.
"""

from __future__ import annotations

import functools
import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from fastlstm import _trace_files
from fastlstm._arguments import RealArray, as_size, shown
from fastlstm._trace_units import Firing as Firing
from fastlstm._trace_units import Unit, first_largest
from fastlstm.variants import Cell

#: Traces a call of the layer that a trace is of; made by ``_tracing.py``.
Tracer: TypeAlias = Callable[..., "Trace"]

Rows: TypeAlias = npt.NDArray[np.intp]

#: What a trace keeps unless told otherwise.
USUAL_NAMES = ("i", "f", "g", "o", "c", "h")


class Row(NamedTuple):
    """One direction of one layer: what the first axis of a trace's arrays goes over."""

    layer: int
    direction: int
    is_reverse: bool

    @property
    def name(self) -> str:
        """As parameters' names end: "l0", or "l0_reverse" of a second direction."""
        return f"l{self.layer}" + ("_reverse" if self.direction else "")


class Axes(NamedTuple):
    """What the axes of a trace's arrays mean: rows, steps and sequences, units."""

    rows: tuple[Row, ...]  # R
    steps: Rows  # the times that were kept
    units: Rows  # the units that were kept
    time_axis: int  # of present, and of x
    present: npt.NDArray[np.bool_]  # (T, B), (B, T), (T,) or (N,): which steps exist
    begins: npt.NDArray[np.bool_]  # likewise: where a sequence, or a piece after a reset, begins


class Saturation(NamedTuple):
    """How often gates are all but shut or open.

    Attributes
    ----------
    low, high : dict of str to ndarray (R, H)
        By gate: the share of steps at which it is below the lower threshold, and above the higher
        one. For g, which lies in (-1, 1): below minus the higher threshold, and above it.
    thresholds : (float, float)
    """

    low: dict[str, RealArray]
    high: dict[str, RealArray]
    thresholds: tuple[float, float]


class Preactivation(NamedTuple):
    """What one activation was given at one step."""

    value: float
    gate: str
    layer: int
    direction: int
    unit: int
    step: int
    sequence: int


class Trace:
    """Gates and states of a call, by name; made by ``trace`` of a layer or of a stream.

    Attributes
    ----------
    i, f, g, o, c, h : ndarray (R, T, B, H), (R, B, T, H) with ``batch_first``, or (R, T, H)
        What the kernels computed at each step, to the bit: gates after activation, the cell state
        and the hidden state after it; h has P numbers where it is projected. The first axis goes
        over `rows`, l*D + d as states do. Whatever else was asked for by ``names`` is an attribute,
        too. Where no step exists, in padding, is NaN.
    arrays : dict of str to ndarray
        The same by name.
    y : ndarray, or pair of ndarray
        What the call returns, padding 0 as there.
    state : (h_n, c_n)
        The final states, of all layers.
    rows : tuple of Row
        Layer and direction of each index of the first axis; its ``name`` ends the parameters'.
    steps, units : ndarray of int
        Times and units that were kept, all by default.
    present : ndarray of bool (T, B), (B, T) or (T,)
        Which steps exist.
    begins : ndarray of bool, of the same shape
        Where a sequence begins, or a piece of it after a reset.
    time_axis : int
        Of `present`; of the arrays it is one more.
    cell : fastlstm.variants.Cell
    hidden_size, output_size : int
        H and P of the layer.

    Notes
    -----
    Padding holds NaN and not the 0 that y has there: a gate of 0 is one that is shut, so zeros
    would enter means, shares and pictures as if they were steps. What is computed here counts steps
    that exist alone.
    """

    def __init__(
        self,
        arrays: Mapping[str, RealArray],
        *,
        y: Any,
        state: tuple[RealArray, RealArray],
        axes: Axes,
        cell: Cell,
        hidden_size: int,
        output_size: int,
        tracer: Tracer | None = None,
    ) -> None:
        self.arrays = dict(arrays)
        self.y = y
        self.state = state
        self.rows = axes.rows
        self.steps = axes.steps
        self.units = axes.units
        self.time_axis = axes.time_axis
        self.present = axes.present
        self.begins = axes.begins
        self.cell = cell
        self.hidden_size = hidden_size
        self.output_size = output_size
        self._tracer = tracer

    @property
    def names(self) -> tuple[str, ...]:
        """What was kept."""
        return tuple(self.arrays)

    def __getattr__(self, name: str) -> RealArray:
        # Asked for only where there is no such attribute, as while a copy is made.
        arrays = self.__dict__.get("arrays", {})
        if name not in arrays:
            raise AttributeError(
                f"{name}: not in this trace, which has {', '.join(arrays)}", name=name, obj=self
            )
        array: RealArray = arrays[name]
        return array

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_tracer": None}  # its packed weights are of this machine

    def __dir__(self) -> list[str]:
        return sorted({*object.__dir__(self), *self.arrays})

    def __repr__(self) -> str:
        rows = ", ".join(row.name for row in self.rows)
        return f"Trace({', '.join(self.arrays)} of {rows or 'no layer'}: {self._extent})"

    @property
    def _extent(self) -> str:
        steps, sequences = self.steps.size, self.present.size // max(self.steps.size, 1)
        plural = "s" * (sequences != 1)
        batch = f" of {sequences} sequence{plural}" if self.present.ndim == 2 else ""
        return f"{steps} steps{batch}, {self.units.size} units"

    def kept(self, name: str) -> RealArray:
        """Return an array that a measure needs."""
        if name not in self.arrays:
            kept = ", ".join(self.arrays)
            raise ValueError(
                f"names: {name!r} was not kept, only {kept}; trace with names= that has it"
            )
        return self.arrays[name]

    def by_time(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """View what is of one row, or of none, with the axes (T, B, ...)."""
        if self.present.ndim == 1:
            return array[:, np.newaxis]
        return array.swapaxes(0, 1) if self.time_axis == 1 else array

    def saturation(self, low: float = 0.1, high: float = 0.9) -> Saturation:
        """Tell how often gates are all but shut or open, over all steps and sequences.

        Parameters
        ----------
        low, high : float
            Below the one a gate counts as shut, above the other as open: 0.1 and 0.9 as in [1]_. g
            is saturated below -high and above high.

        Returns
        -------
        Saturation
            NaN where no step exists.

        References
        ----------
        .. [1] A. Karpathy, J. Johnson and L. Fei-Fei, "Visualizing and understanding recurrent
           networks", arXiv:1506.02078, 2015.
        """
        if not low < high:
            raise ValueError(f"low, high: got {low} and {high}, expected the lower one first")
        below, above = {}, {}
        for name in (name for name in "ifgo" if name in self.arrays):
            shut = -high if name == "g" else low
            below[name] = self._means(name, functools.partial(np.greater, shut))
            above[name] = self._means(name, functools.partial(np.less, high))
        return Saturation(below, above, (low, high))

    def _means(self, name: str, of: Callable[[RealArray], Any]) -> RealArray:
        """Return means (R, H) of a function of the steps that exist, a row at a time."""
        array = self.kept(name)
        means = np.full((len(array), array.shape[-1]), np.nan)
        if self.present.any():
            for row, values in enumerate(array):
                means[row] = np.mean(of(values[self.present]), axis=0, dtype=np.float64)
        return means

    def time_constants(self) -> RealArray:
        """Return for how many steps each unit remembers, (R, H): -1 / log(mean of f).

        After so many steps a cell state that nothing is added to is 1/e of itself, if f were its
        mean all the time. Infinite where the mean is 1 or more (f may be, of an activation without
        bounds), NaN where no step exists; `retention` has the products of f as they were.
        """
        mean = self._means("f", lambda values: values)
        with np.errstate(divide="ignore", invalid="ignore"):
            constants = -1 / np.log(mean)
        constants[mean >= 1] = np.inf
        constants[mean <= 0] = 0
        return constants

    def retention(self, lags: Iterable[int]) -> RealArray:
        """Return what is left of a cell state after some steps: mean products of f.

        Parameters
        ----------
        lags : iterable of int
            From 0 on.

        Returns
        -------
        ndarray (lags, R, H)
            Means over all runs of so many steps inside a piece of a sequence, of the product of f;
            NaN where there is no such run. Without ``zoneout_c`` and ``cell_clip`` that is the
            share of c which is there later.

        Raises
        ------
        ValueError
            If a lag is none, f was not kept, or steps were kept that do not follow each other.
        """
        if not isinstance(lags, Iterable):
            raise TypeError(f"lags: got {shown(lags)}, expected some numbers of steps")
        wanted = [as_size("lags", lag, smallest=0) for lag in lags]
        f = self.kept("f")
        if (np.diff(self.steps) != 1).any():
            raise ValueError("steps: the kept ones do not follow each other, as products of f need")
        means = np.full((len(wanted), len(f), f.shape[-1]), np.nan)
        present, begins = self.by_time(self.present), self.by_time(self.begins)
        T = len(present)
        for row, one in enumerate(self.rows):
            values = self.by_time(f[row])
            runs = present.copy()  # which begin at a step and are `lag` long
            product = np.ones(values.shape)
            for lag in range(max(wanted, default=-1) + 1):
                if lag:
                    runs = runs[:-1] & present[lag:] & ~begins[lag:]
                    # A reverse direction forgets on the way to the earlier step.
                    last = lag - 1 if one.is_reverse else lag
                    product = product[:-1] * values[last : T - lag + last]
                if lag in wanted and runs.any():
                    mean = product[runs].mean(axis=0)
                    means[[k for k, each in enumerate(wanted) if each == lag], row] = mean
                if lag >= T - 1:
                    break
        return means

    def still(self, tolerance: float = 1e-3, name: str = "c") -> npt.NDArray[np.bool_]:
        """Tell which units never move.

        Parameters
        ----------
        tolerance : float
            The largest and the smallest value of a unit that stands still are at most so far apart.
        name : str
            Of which array.

        Returns
        -------
        ndarray of bool (R, H)
        """
        array = self.kept(name)
        if not self.present.any():
            return np.ones((len(array), array.shape[-1]), np.bool_)
        extents = [np.ptp(values[self.present], axis=0) for values in array]
        return np.array(extents).reshape(len(array), array.shape[-1]) <= tolerance

    def largest_preactivations(self, n: int = 5) -> list[Preactivation]:
        """Return the n largest of what activations were given, by magnitude, the largest first.

        They have to be kept: ``names`` that have "z_i", "z_f", "z_g" or "z_o", or "all".
        """
        n = as_size("n", n)
        names = [name for name in self.arrays if name.startswith("z_")]
        if not names:
            self.kept("z_i")
        found = []
        for name in names:
            for row, values in zip(self.rows, self.arrays[name], strict=True):
                for value, step, sequence, unit in self.largest(values, n, np.abs):
                    found.append(Preactivation(value, name[-1], row.layer, row.direction,
                                               int(self.units[unit]), step, sequence))  # fmt: skip
        return heapq.nlargest(n, found, key=lambda one: abs(one.value))

    def largest(
        self, values: RealArray, n: int, key: Callable[[RealArray], RealArray]
    ) -> Iterator[tuple[float, int, int, int]]:
        """Yield value, step, sequence and place of the n largest by a key, (T, B, H) in any order.

        NaN, as in padding, is left out.
        """
        by_time = self.by_time(values)
        keys = key(by_time).ravel()
        keys = np.where(np.isnan(keys), -np.inf, keys)
        for at in first_largest(keys, n):
            if keys[at] > -np.inf:
                t, b, unit = np.unravel_index(at, by_time.shape)
                yield float(by_time[t, b, unit]), int(self.steps[t]), int(b), int(unit)

    def unit(self, unit: int, layer: int = 0, direction: int = 0) -> Unit:
        """Return one unit: its gates and states, and where it fires.

        Parameters
        ----------
        unit, layer, direction : int

        Raises
        ------
        ValueError
            If it was not kept.
        """
        rows = [k for k, row in enumerate(self.rows) if row[:2] == (layer, direction)]
        places = np.flatnonzero(self.units == unit)
        if not rows or not places.size:
            raise ValueError(
                f"unit, layer, direction: got {shown(unit)}, {shown(layer)}, {shown(direction)}, "
                f"expected one that was kept"
            )
        return Unit(self, rows[0], int(places[0]))

    def summary(self) -> str:
        """Return a table of what units do, a line for each row: to be printed."""
        rows = f"{len(self.rows)} direction{'s' * (len(self.rows) != 1)} of layers"
        lines = [f"{rows}, {self._extent}; {int(self.present.sum())} steps exist"]
        saturated = self.saturation()
        low, high = saturated.thresholds
        gates = [name for name in "ifo" if name in saturated.low]
        head = [f"{gate} < {low:g}, > {high:g}" for gate in gates]
        head += [f"abs(g) > {high:g}"] if "g" in saturated.low else []
        columns = [[row.name for row in self.rows]]
        for gate in gates:
            shares = zip(_mean(saturated.low[gate]), _mean(saturated.high[gate]), strict=True)
            columns.append([f"{a:.0%}, {b:.0%}" for a, b in shares])
        if "g" in saturated.low:
            columns.append([f"{a:.0%}" for a in _mean(saturated.low["g"] + saturated.high["g"])])
        if "f" in self.arrays:
            constants = self.time_constants()
            head.append("remembers: median, longest")
            longest = [
                f"{np.median(one):.3g}, {one.max():.3g} (unit {self.units[one.argmax()]})"
                if one.size else "-" for one in constants
            ]  # fmt: skip
            columns.append(longest)
        if "c" in self.arrays:
            head.append("never move")
            columns.append([str(int(one.sum())) for one in self.still()])
        table = [["layer", *head], *map(list, zip(*columns, strict=True))]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines += [
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
            for line in table
        ]
        return "\n".join(lines)

    def to_xarray(self) -> Any:
        """Return an ``xarray.Dataset`` of the arrays, with names on their axes.

        Its dimensions are row ("l0", "l0_reverse", ...), step, sequence and unit; of what is
        projected "output", of what all gates have "gate_unit". It shares memory with the trace.
        """
        return _trace_files.to_xarray(self)

    def is_of_units(self, name: str) -> bool:
        """Tell whether the last axis of an array goes over units."""
        projected = self.output_size != self.hidden_size and name in ("h", "h_before")
        return not projected and not name.startswith(("w_x", "u_h"))

    def to_pandas(self) -> Any:
        """Return a ``pandas.DataFrame``: a line for each unit at each step, arrays as columns.

        Its index has row, sequence, step and unit. Steps that do not exist have no lines, arrays
        whose last axis does not go over units no column.
        """
        return _trace_files.to_pandas(self)

    def save(self, path: Any) -> None:
        """Write the trace to a file.

        Parameters
        ----------
        path : path that ends in .npz or .zarr
            What lies in files (``to``) is copied in blocks.

        Raises
        ------
        ValueError
            If it ends otherwise.
        ImportError
            If .zarr is to be written and zarr, of ``fastlstm[explore]``, is missing.
        OSError
            If it can't be written.
        """
        ys = self.y if isinstance(self.y, tuple) else (self.y,)
        own = {
            "rows": np.array([tuple(map(int, row)) for row in self.rows], np.int64).reshape(-1, 3),
            "steps": self.steps,
            "units": self.units,
            "present": self.present,
            "begins": self.begins,
            "h_n": self.state[0],
            "c_n": self.state[1],
            **{f"y{k}": y for k, y in enumerate(ys)},
        }
        about = {
            "time_axis": self.time_axis,
            "cell": self.cell._asdict(),
            "hidden_size": self.hidden_size,
            "output_size": self.output_size,
            "names": list(self.arrays),
        }
        _trace_files.write(path, self.arrays, own, about)

    @classmethod
    def load(cls, path: Any) -> Trace:
        """Read a trace that `save` wrote; it no longer knows its layer.

        Raises
        ------
        ValueError, ImportError, OSError
            As `save`; or if there is something else.
        """
        arrays, own, about = _trace_files.read(path)
        ys = [own[name] for name in ("y0", "y1") if name in own]
        return cls(
            {name: arrays[name] for name in about["names"]},
            y=ys[0] if len(ys) == 1 else tuple(ys),
            state=(own["h_n"], own["c_n"]),
            axes=Axes(
                rows=tuple(Row(int(a), int(b), bool(c)) for a, b, c in own["rows"]),
                steps=own["steps"],
                units=own["units"],
                time_axis=about["time_axis"],
                present=own["present"],
                begins=own["begins"],
            ),
            cell=Cell(**about["cell"]),
            hidden_size=about["hidden_size"],
            output_size=about["output_size"],
        )


def _mean(shares: RealArray) -> RealArray:
    """Return the mean over units of each row."""
    mean: RealArray = shares.mean(axis=1) if shares.shape[1] else np.full(len(shares), np.nan)
    return mean
