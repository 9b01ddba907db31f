"""Shares of an answer, over text and over series."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fastlstm._arguments import shown
from fastlstm.plot._axes import TRUTH, as_axes, as_map, as_numbers, as_place, same_length

if TYPE_CHECKING:
    from fastlstm.explain import Attribution

#: Characters of a line of text, and lines that there is room for at least.
_LINE = 64
_LEAST = 5


def attributions(
    found: Attribution | npt.ArrayLike,
    x: npt.ArrayLike | None = None,
    *,
    tokens: Sequence[str] | None = None,
    feature: int | None = None,
    sequence: int = 0,
    ax: Any = None,
) -> Any:
    """Draw which steps an answer comes from: over text, or below a series.

    Parameters
    ----------
    found : Attribution, or array_like (T, I) or (T,)
        Of `fastlstm.explain`, or shares of one sequence.
    x : array_like (T,), optional
        A series that is drawn as a line, on an axis of its own; here and of tokens T are the steps
        that exist.
    tokens : sequence of T str, optional
        Words or characters: then these are written, on the colours of their shares.
    feature : int, optional
        Whose shares; their sum when omitted.
    sequence : int, default 0
        Which of the batch of an attribution.
    ax : axes of matplotlib, optional

    Returns
    -------
    axes
        The title tells the largest share, and of which step.

    Raises
    ------
    ImportError
        Without matplotlib; the message names the extra that brings it.
    TypeError, ValueError
        If an argument is not as described.
    """
    shares, steps = _shares(found, sequence, feature)
    T = shares.size
    if tokens is not None and x is not None:
        raise ValueError("x: got some, expected none with tokens")
    if isinstance(tokens, str):
        tokens = list(tokens)
    given = None if x is None else as_numbers("x", np.squeeze(x), 1)
    for name, each in (("x", given), ("tokens", tokens)):
        if each is not None:
            same_length(name, each, T, "found")
    if tokens is None:
        axes = as_axes(ax)
        _draw(axes, shares, steps, given)
    else:
        places = _places(tokens)
        axes = as_axes(ax, figsize=(8.0, 1.2 + 0.32 * max(places[-1][0] + 1, _LEAST)))
        _write(axes, shares, tokens, places)
    t = int(np.abs(shares).argmax())
    step = f"step {steps[t]}"
    what = step if tokens is None else f"{shown(tokens[t])} ({step})"
    title = f"{what} gives most: {shares[t]:+.3g}, all together {shares.sum():+.3g}"
    axes.set_title(title, parse_math=False)
    return axes


def _shares(
    found: Any, sequence: int, feature: int | None
) -> tuple[npt.NDArray[Any], npt.NDArray[np.intp]]:
    """Return (T,) of a sequence, steps that don't exist left out, and which steps these are."""
    values, present = found, None
    if hasattr(found, "by_step"):
        values, present = np.asarray(found.values, np.float64), np.asarray(found.present)
        if values.ndim == 3:
            axis = 0 if found.batch_first else 1
            b = as_place("sequence", sequence, values.shape[axis], "sequences")
            values, present = np.take(values, b, axis), np.take(present, b, axis)
    shares = as_numbers("found", values, (1, 2))
    if not np.isfinite(shares).all():
        raise ValueError("found: holds NaN or infinity, expected finite shares")
    steps = np.arange(len(shares)) if present is None else np.flatnonzero(present)
    if not steps.size:
        raise ValueError(f"sequence: got {shown(sequence)}, which has no step that exists")
    shares = shares[steps]
    if shares.ndim == 1:
        if feature is not None:
            raise ValueError(f"feature: got {shown(feature)}, but found has one share for a step")
        return shares, steps
    if feature is not None:
        return shares[:, as_place("feature", feature, shares.shape[1], "features")], steps
    return shares.sum(axis=1), steps


def _draw(
    axes: Any, shares: npt.NDArray[Any], steps: npt.NDArray[np.intp], x: npt.NDArray[Any] | None
) -> None:
    largest = float(np.abs(shares).max()) or 1.0
    colours = as_map("signed")(0.5 + 0.5 * shares / largest)
    axes.bar(steps, shares, width=1.0, color=colours, edgecolor="0.4",
             linewidth=0.4 if shares.size <= 100 else 0.0)  # fmt: skip
    axes.axhline(0, color="black", linewidth=0.6)
    axes.set_xlabel("step")
    axes.set_ylabel("share of the answer")
    axes.margins(x=0.01)
    if x is not None:
        beside = axes.twinx()
        beside.plot(steps, x, **TRUTH)
        beside.set_ylabel("x (line)")


def _places(tokens: Sequence[str]) -> list[tuple[int, int]]:
    """Return line and column of each token, one after the other."""
    gap = 0 if all(len(token) <= 1 for token in tokens) else 1
    places, line, column = [], 0, 0
    for token in tokens:
        if column and column + len(token) > _LINE:
            line, column = line + 1, 0
        places.append((line, column))
        column += max(1, len(token)) + gap
        if "\n" in token:
            line, column = line + 1, 0
    return places


def _write(
    axes: Any,
    shares: npt.NDArray[Any],
    tokens: Sequence[str],
    places: list[tuple[int, int]],
) -> None:
    """Write tokens at their places, each on the colour of its share."""
    scale, largest = as_map("signed"), float(np.abs(shares).max()) or 1.0
    for token, share, (line, column) in zip(tokens, shares, places, strict=True):
        width = max(1, len(token))
        colour = scale(0.5 + 0.5 * share / largest)
        is_light = float(np.dot(colour[:3], (0.2126, 0.7152, 0.0722))) > 0.4
        axes.barh(-line, width, left=column, height=0.9, color=[colour])
        axes.text(
            column + width / 2, -line, token.replace("\n", "\N{RETURN SYMBOL}"), ha="center",
            va="center", family="monospace", color="black" if is_light else "white", clip_on=True,
            parse_math=False,
        )  # fmt: skip
    axes.set_xlim(0, _LINE)
    axes.set_ylim(-max(places[-1][0] + 1, _LEAST) + 0.4, 0.6)
    axes.set_axis_off()
    _add_bar(axes, scale, largest).set_label("share")


def _add_bar(axes: Any, scale: Any, largest: float) -> Any:
    """Add the bar that tells what colours mean."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    return axes.figure.colorbar(ScalarMappable(Normalize(-largest, largest), scale), ax=axes)
