"""Gates and states over time, and how long units remember."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fastlstm._arguments import as_array, shown
from fastlstm.plot._axes import as_axes, as_map, as_place, line, logarithmic, marked, new_figure
from fastlstm.trace import USUAL_NAMES, Trace

#: Gates that are 0 where they are shut.
_AMOUNTS = ("i", "f", "o")

#: Lines of the input, which more would hide.
_LINES = 6

#: Chosen units that all have their numbers written beside them.
_LABELS = 16

#: What counts as shut, and as open, as of `Trace.saturation`.
_SHUT, _OPEN = 0.1, 0.9


def gates(
    trace: Trace,
    x: npt.ArrayLike | None = None,
    *,
    row: int = 0,
    sequence: int = 0,
    names: Sequence[str] | None = None,
    features: Sequence[int] | None = None,
    figure: Any = None,
) -> npt.NDArray[Any]:
    """Draw gates and states of a layer as heat maps over time, the input above.

    Parameters
    ----------
    trace : Trace
    x : array_like (T, B, I), (B, T, I) or (T, I), optional
        What was traced; without the last axis, too, where there is one feature, or integers.
    row : int, default 0
        Which direction of which layer: of ``trace.rows``.
    sequence : int, default 0
        Which of the batch.
    names : sequence of str, optional
        What is drawn, of what was kept; all of i, f, g, o, c and h when omitted.
    features : sequence of int, optional
        Which of x are drawn; the first six when omitted.
    figure : figure or subfigure of matplotlib, optional
        A new one when omitted.

    Returns
    -------
    ndarray of axes (n,)
        The input's first, if there is x. Titles tell how often a gate is open and shut, and where a
        state is largest.

    Raises
    ------
    ImportError
        Without matplotlib; the message names the extra that brings it.
    TypeError, ValueError
        If an argument is not as described.
    """
    _check(trace)
    at = as_place("row", row, len(trace.rows), "directions of layers")
    if isinstance(names, str):
        names = [names]
    chosen = [name for name in USUAL_NAMES if name in trace.arrays] if names is None else names
    if not chosen:
        raise ValueError("names: got none, expected some that were kept")
    arrays = [trace.by_time(trace.kept(name)[at]) for name in chosen]
    b = as_place("sequence", sequence, arrays[0].shape[1], "sequences")
    given = None if x is None else _input(trace, x, b)
    shown_features = _features(given, features)
    panels = len(chosen) + (given is not None)
    if figure is None:
        figure = new_figure((9.0, 0.8 + 1.5 * panels))
    axes: npt.NDArray[Any] = figure.subplots(panels, 1, sharex=True, squeeze=False)[:, 0]
    if given is not None:
        _draw_input(axes[0], given, shown_features)
    for panel, name, array in zip(axes[panels - len(chosen) :], chosen, arrays, strict=True):
        _draw_heat(panel, trace, name, array[:, b], at)
    axes[-1].set_xlabel("step")
    steps = trace.steps
    if (steps != np.arange(steps.size)).any():
        axes[-1].xaxis.set_major_formatter(lambda value, _: _label(steps, value))
    return axes


def _check(trace: Any) -> None:
    if not isinstance(trace, Trace):
        raise TypeError(f"trace: got {type(trace).__name__}, expected a Trace, as of layer.trace")
    if not trace.steps.size or not trace.units.size or not trace.rows:
        raise ValueError("trace: has no steps or no units, nothing to draw")


def _label(numbers: npt.NDArray[np.intp], value: float) -> str:
    """Return the number of a place on an axis, where there is one."""
    is_one = value == int(value) and 0 <= value < numbers.size
    return str(numbers[int(value)]) if is_one else ""


def _input(trace: Trace, x: Any, b: int) -> npt.NDArray[Any]:
    """Return what a sequence had at the kept steps, (T, I)."""
    given = as_array("x", x)
    present = trace.present
    if given.ndim == present.ndim:
        given = given[..., np.newaxis]
    outer = list(present.shape)
    axis = trace.time_axis
    if given.ndim == present.ndim + 1 and given.shape[axis] > int(trace.steps.max()):
        outer[axis] = given.shape[axis]
    if given.shape[:-1] != tuple(outer) or given.dtype.kind not in "biuf":
        raise ValueError(f"x: got shape {given.shape} of {given.dtype}, expected the input that "
                         f"was traced, of {trace.steps.size} steps")  # fmt: skip
    kept = np.take(given, trace.steps, axis)
    # Padding is no input, whatever stands there.
    return trace.by_time(np.where(present[..., np.newaxis], kept, np.nan))[:, b]


def _features(given: npt.NDArray[Any] | None, features: Any) -> list[int]:
    if given is None:
        if features is not None:
            raise ValueError("features: got some, expected none without x")
        return []
    size = given.shape[1]
    if features is None:
        return list(range(min(size, _LINES)))
    return [as_place("features", one, size, "features") for one in features]


def _draw_input(axes: Any, given: npt.NDArray[Any], features: list[int]) -> None:
    for k, feature in enumerate(features):
        look = {**line(k), "markevery": marked(len(given)), "linewidth": 1.2}
        axes.plot(given[:, feature], label=f"x {feature}", **look)
    count = given.shape[1]
    which = "" if len(features) == count else f", {len(features)} of {count} features"
    axes.set_title(f"input{which}", fontsize="medium", loc="left")
    axes.set_ylabel("x")
    axes.grid(alpha=0.3)
    if len(features) > 1:
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.05), fontsize="small")


def _draw_heat(axes: Any, trace: Trace, name: str, values: npt.NDArray[Any], at: int) -> None:
    """Draw values (T, n) of one array, time from left to right."""
    is_amount = name in _AMOUNTS
    known = values[np.isfinite(values)]
    largest = float(np.abs(known).max(initial=0)) or 1.0
    low, high = (min(0, known.min(initial=0)), max(1, known.max(initial=1))) if is_amount else (
        -largest, largest)  # fmt: skip
    image = axes.imshow(
        values.T,
        aspect="auto",
        interpolation="nearest",
        origin="lower",
        cmap=as_map("amount" if is_amount else "signed"),
        vmin=low,
        vmax=high,
    )
    axes.figure.colorbar(image, ax=axes, pad=0.01)
    units = trace.units if trace.is_of_units(name) else np.arange(values.shape[1])
    axes.set_ylabel(f"{name}, by unit")
    if (units == np.arange(units.size)).all():
        axes.yaxis.get_major_locator().set_params(integer=True)
    elif units.size <= _LABELS:  # in an order of their own, of which a few would tell nothing
        axes.set_yticks(np.arange(units.size), units, fontsize="xx-small")
    else:
        axes.yaxis.get_major_locator().set_params(integer=True)
        axes.yaxis.set_major_formatter(lambda value, _: _label(units, value))
    axes.set_title(f"{name} of {trace.rows[at].name}: {_seen(trace, name, values, units)}",
                   fontsize="medium", loc="left")  # fmt: skip


def _seen(trace: Trace, name: str, values: npt.NDArray[Any], units: npt.NDArray[np.intp]) -> str:
    """Tell what there is to see of values (T, n)."""
    exist = np.isfinite(values)
    if not exist.any():
        return "no step exists"
    known = values[exist]
    if name in _AMOUNTS:
        is_open, is_shut = (known > _OPEN).mean(), (known < _SHUT).mean()
        return f"open (above {_OPEN:g}) {is_open:.0%}, shut (below {_SHUT:g}) {is_shut:.0%}"
    t, k = np.unravel_index(np.where(exist, np.abs(values), -1).argmax(), values.shape)
    return f"largest {values[t, k]:+.3g}, of unit {units[k]} at step {trace.steps[t]}"


def memory(trace: Trace, *, row: int | None = None, ax: Any = None) -> Any:
    """Draw for how many steps units remember: `Trace.time_constants`, in order.

    Parameters
    ----------
    trace : Trace
        With f.
    row : int, optional
        Which direction of which layer: of ``trace.rows``; all when omitted.
    ax : axes of matplotlib, optional

    Returns
    -------
    axes
        A line for each row, its units from the shortest memory to the longest. A unit that never
        forgets, whose time constant is infinite, is not on it, but in the legend.

    Raises
    ------
    ImportError, TypeError, ValueError
        As of `gates`.
    """
    _check(trace)
    size = len(trace.rows)
    rows = range(size) if row is None else [as_place("row", row, size, "directions of layers")]
    constants = trace.time_constants()
    axes = as_axes(ax)
    for k, at in enumerate(rows):
        own = np.sort(constants[at])
        finite = own[np.isfinite(own)]
        endless = int(np.isinf(own).sum())
        label = trace.rows[at].name + (f", and {endless} that never forget" if endless else "")
        look = {**line(k), "markevery": marked(own.size), "linewidth": 1.6}
        axes.plot(np.arange(1, finite.size + 1), finite, label=label, **look)
    if (constants[list(rows)] > 0).any():
        logarithmic(axes, "y")
    axes.set_xlabel("units, in order")
    axes.set_ylabel("remembers (steps)")
    axes.set_title(_longest(trace, constants, list(rows)))
    axes.grid(alpha=0.3, which="both")
    if len(rows) > 1 or np.isinf(constants).any():
        axes.legend()
    return axes


def _longest(trace: Trace, constants: npt.NDArray[Any], rows: list[int]) -> str:
    chosen = constants[rows]
    if np.isnan(chosen).all():
        return "no step exists"
    r, k = np.unravel_index(np.nanargmax(chosen), chosen.shape)
    longest = chosen[r, k]
    steps = "all the time" if np.isinf(longest) else f"{longest:.3g} steps"
    return (f"unit {shown(int(trace.units[k]))} of {trace.rows[rows[r]].name} remembers longest: "
            f"{steps}; median {np.nanmedian(chosen):.3g}")  # fmt: skip
