"""What all pictures share: axes to draw on, maps, lines, checks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fastlstm._arguments import as_real_array, shown
from fastlstm._colours import LINES, colour_map
from fastlstm._extras import import_for

#: Of lines about which there is one thing to tell.
TRUTH: dict[str, Any] = {"color": "black", "linewidth": 1.2}
ANSWERS: dict[str, Any] = {"color": LINES[0][0], "linewidth": 1.8}
NAIVE: dict[str, Any] = {"color": LINES[1][0], "linewidth": 1.2, "linestyle": "--"}

#: Of steps that do not exist.
_MISSING = "0.8"


def as_axes(ax: Any, *, figsize: tuple[float, float] = (8.0, 4.0)) -> Any:
    """Return the caller's axes, or those of a new figure."""
    if ax is None:
        return new_figure(figsize).subplots()
    if not hasattr(ax, "set_title"):
        raise TypeError(f"ax: got {type(ax).__name__}, expected axes of matplotlib")
    return ax


def new_figure(figsize: tuple[float, float]) -> Any:
    """Return a figure of pyplot, which notebooks show by themselves."""
    pyplot = import_for("a picture", "matplotlib.pyplot", "cli", "matplotlib")
    return pyplot.figure(figsize=figsize, layout="constrained")


def as_map(name: str) -> Any:
    """Return a colour map as matplotlib has it."""
    colors = import_for("a picture", "matplotlib.colors", "cli", "matplotlib")
    made = colors.ListedColormap(colour_map(name) / 255.0, name=f"fastlstm.{name}")
    return made.with_extremes(bad=_MISSING)


def line(k: int) -> dict[str, Any]:
    """Return how the k-th line looks."""
    colour, dashes, marker = LINES[k % len(LINES)]
    return {"color": colour, "linestyle": dashes, "marker": marker, "markersize": 4.5}


def logarithmic(axis: Any, name: str) -> None:
    """Make an axis logarithmic, "x" or "y", with numbers that are written out."""
    ticker = import_for("a picture", "matplotlib.ticker", "cli", "matplotlib")
    getattr(axis, f"set_{name}scale")("log")
    own = getattr(axis, f"{name}axis")
    own.set_major_formatter(lambda value, _: f"{value:g}")
    own.set_minor_formatter(ticker.LogFormatter(minor_thresholds=(1.5, 0.5)))


def marked(count: int) -> int:
    """Return how many points of a line there are to a marker."""
    return max(1, count // 12)


def as_place(name: str, value: Any, size: int, of: str) -> int:
    """Return a number from 0 to size - 1; TypeError or ValueError if it is none."""
    if not isinstance(value, int | np.integer) or isinstance(value, bool):
        raise TypeError(f"{name}: got {shown(value)}, expected an integer")
    if not 0 <= value < size:
        raise ValueError(f"{name}: got {value}, expected 0 to {size - 1}: there are {size} {of}")
    return int(value)


def as_numbers(name: str, value: Any, ndim: int | tuple[int, ...]) -> npt.NDArray[Any]:
    """Return an array of real numbers with so many axes; TypeError or ValueError if it is none."""
    numbers: npt.NDArray[Any] = as_real_array(name, value, np.dtype(np.float64))
    allowed = (ndim,) if isinstance(ndim, int) else ndim
    if numbers.ndim not in allowed or not numbers.size:
        dimensions = " or ".join(map(str, allowed))
        raise ValueError(f"{name}: got shape {numbers.shape}, expected {dimensions} dimensions, "
                         "none of them 0")  # fmt: skip
    return numbers


def same_length(name: str, value: Sequence[Any] | npt.NDArray[Any], size: int, as_: str) -> None:
    """Refuse what is not as long as what it stands beside."""
    if len(value) != size:
        raise ValueError(f"{name}: got {len(value)}, expected {size}, as {as_} has")
