"""Answers beside what is right: forecasts, points, confusions, measures of labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fastlstm._arguments import shown
from fastlstm.plot._axes import ANSWERS, NAIVE, TRUTH, as_axes, as_map, as_numbers, same_length

if TYPE_CHECKING:
    from fastlstm.training.evaluation import Evaluation

#: Classes whose confusions are written as numbers, too.
_WRITTEN = 20


def forecast(
    answers: npt.ArrayLike,
    *,
    truth: npt.ArrayLike | None = None,
    naive: tuple[str, npt.ArrayLike] | None = None,
    interval: tuple[str, npt.ArrayLike, npt.ArrayLike] | None = None,
    steps: npt.ArrayLike | None = None,
    ax: Any = None,
) -> Any:
    """Draw answers over time, with their interval, what is right and a forecast without a model.

    Parameters
    ----------
    answers : array_like (T,)
        NaN where there is none, as of a past that is drawn, too.
    truth : array_like (T,), optional
        NaN where it is not known.
    naive : (name, (T,)), optional
    interval : (name, lower (T,), upper (T,)), optional
        The name is that of the interval, "10% to 90%" say; the legend adds which share of what is
        right lies in it.
    steps : array_like (T,), optional
        What the axis of time has: numbers or times; 0, 1, ... when omitted.
    ax : axes of matplotlib, optional

    Returns
    -------
    axes
        The title tells the model's error, where there is something to compare with.

    Raises
    ------
    ImportError
        Without matplotlib; the message names the extra that brings it.
    TypeError, ValueError
        If an argument is not as described.
    """
    values = as_numbers("answers", answers, 1)
    right = None if truth is None else as_numbers("truth", truth, 1)
    beside = None if naive is None else (naive[0], as_numbers("naive", naive[1], 1))
    ends = [] if interval is None else [as_numbers("interval", each, 1) for each in interval[1:]]
    at: npt.NDArray[Any] = np.arange(values.size) if steps is None else np.asarray(steps)
    of_naive = [] if beside is None else [("naive", beside[1])]
    of_truth = [] if right is None else [("truth", right)]
    for name, given in (*of_truth, *of_naive, ("steps", at), *(("interval", end) for end in ends)):
        same_length(name, given, values.size, "answers")
    axes = as_axes(ax)
    if interval is not None:
        name, (lower, upper) = interval[0], ends
        if right is not None and not (gaps := np.isnan(right) | np.isnan(lower + upper)).all():
            inside = ((right >= lower) & (right <= upper))[~gaps].mean()
            name = f"{name}, holds {inside:.0%}"
        axes.fill_between(at, lower, upper, color=ANSWERS["color"], alpha=0.2, label=name)
    if beside is not None:
        axes.plot(at, beside[1], label=beside[0], **NAIVE, **_points(beside[1]))
    axes.plot(at, values, label="model", **ANSWERS, **_points(values))
    if right is not None:
        axes.plot(at, right, label="truth", **TRUTH, **_points(right))
        both = np.isfinite(right) & np.isfinite(values)
        if both.any():
            rmse = np.sqrt(np.mean((right - values)[both] ** 2))
            axes.set_title(f"RMSE {rmse:.3g} over {int(both.sum())} steps")
    axes.set_xlabel("step" if steps is None else "time")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=4)
    axes.grid(alpha=0.3)
    axes.margins(x=0.01)
    return axes


def _points(values: npt.NDArray[Any]) -> dict[str, Any]:
    """Return the markers of values that have no neighbour, which a line would not show."""
    known = np.isfinite(values)
    beside = np.zeros_like(known)
    beside[1:] |= known[:-1]
    beside[:-1] |= known[1:]
    alone = np.flatnonzero(known & ~beside)
    return {"marker": "o", "markersize": 4, "markevery": alone.tolist()} if alone.size else {}


def predicted_over_true(truth: npt.ArrayLike, answers: npt.ArrayLike, *, ax: Any = None) -> Any:
    """Draw a point for each answer over what is right; on the line both are the same.

    Parameters
    ----------
    truth, answers : array_like (M,)
    ax : axes of matplotlib, optional

    Returns
    -------
    axes
        The title tells the error.

    Raises
    ------
    ImportError, TypeError, ValueError
        As of `forecast`.
    """
    right, values = as_numbers("truth", truth, 1), as_numbers("answers", answers, 1)
    same_length("answers", values, right.size, "truth")
    axes = as_axes(ax, figsize=(5.0, 5.0))
    known = right[np.isfinite(right)]
    ends = [known.min(), known.max()] if known.size else [0, 1]
    axes.plot(ends, ends, **TRUTH)
    axes.plot(right, values, ".", color=ANSWERS["color"])
    both = np.isfinite(right) & np.isfinite(values)
    if both.any():
        rmse = np.sqrt(np.mean((right - values)[both] ** 2))
        axes.set_title(f"RMSE {rmse:.3g} of {int(both.sum())} answers")
    axes.set_xlabel("truth")
    axes.set_ylabel("model")
    axes.grid(alpha=0.3)
    return axes


def confusion_matrix(
    found: Evaluation | npt.ArrayLike,
    classes: Sequence[Any] | None = None,
    *,
    ax: Any = None,
) -> Any:
    """Draw how often answers of each class (rows) were taken for each (columns).

    Parameters
    ----------
    found : Evaluation, or array_like (K, K)
        Of `Network.evaluate`, or its ``confusion``.
    classes : sequence of K names, optional
        Those of the evaluation, or numbers, when omitted.
    ax : axes of matplotlib, optional

    Returns
    -------
    axes
        The lighter, the larger the share of its row. The title tells the accuracy and which class
        is most often taken for which.

    Raises
    ------
    ImportError, TypeError, ValueError
        As of `forecast`.
    """
    given = getattr(found, "confusion", found)
    if given is None:
        raise ValueError("found: has no confusions, of numbers or of more than 1000 classes")
    confusion = as_numbers("found", given, 2)
    K = len(confusion)
    if confusion.shape != (K, K) or (confusion < 0).any():
        raise ValueError(f"found: got shape {confusion.shape}, expected (K, K), none below 0")
    names = _names(classes, found, K)
    same_length("classes", names, K, "found")
    total = confusion.sum(axis=1, keepdims=True)
    shares = np.divide(confusion, total, out=np.zeros_like(confusion), where=total > 0)
    axes = as_axes(ax, figsize=(5.5, 5.0))
    image = axes.imshow(shares, cmap=as_map("amount"), vmin=0, vmax=1)
    if K <= _WRITTEN:
        axes.set_xticks(range(K), names, rotation=45 if K > 5 else 0, parse_math=False)
        axes.set_yticks(range(K), names, parse_math=False)
        for (row, column), share in np.ndenumerate(shares):
            axes.text(
                column,
                row,
                f"{confusion[row, column]:g}",
                ha="center",
                va="center",
                color="black" if share > 0.5 else "white",
            )
    axes.figure.colorbar(image, ax=axes, label="share of its row", fraction=0.046, pad=0.04)
    axes.set_xlabel("answered")
    axes.set_ylabel("is")
    title = _of_confusion(confusion, names, getattr(found, "f1_macro", None))
    axes.set_title(title, fontsize="medium", parse_math=False)
    return axes


def _names(given: Sequence[Any] | None, found: Any, size: int) -> list[str]:
    """Return what is given, or the names of an evaluation, or numbers."""
    own = getattr(found, "classes", ()) or range(size)
    return [str(name) for name in (own if given is None else given)]


def _of_confusion(confusion: npt.NDArray[np.float64], names: list[str], f1: float | None) -> str:
    """Tell what there is to see."""
    if not confusion.any():
        return "no answers"
    accuracy = np.trace(confusion) / confusion.sum()
    text = f"accuracy {accuracy:.3g}" + (f", F1 (macro) {f1:.3g}" if f1 is not None else "")
    wrong = confusion * (1 - np.eye(len(confusion)))
    if wrong.any():
        row, column = np.unravel_index(wrong.argmax(), wrong.shape)
        text += f"\nmost often {names[row]} taken for {names[column]}: {wrong.max():g}"
    return text


def label_scores(
    found: Evaluation | Mapping[str, npt.ArrayLike],
    labels: Sequence[Any] | None = None,
    *,
    ax: Any = None,
) -> Any:
    """Draw precision, recall and F1 of each label, or other measures from 0 to 1, as bars.

    Parameters
    ----------
    found : Evaluation, or mapping of names to array_like (K,)
    labels : sequence of K names, optional
        Those of the evaluation, or numbers, when omitted.
    ax : axes of matplotlib, optional

    Returns
    -------
    axes
        The title of an evaluation tells accuracy and F1.

    Raises
    ------
    ImportError, TypeError, ValueError
        As of `forecast`.
    """
    given: Any = found
    if not isinstance(given, Mapping):
        fields = (("precision", "precision"), ("recall", "recall"), ("F1", "f1"))
        given = {name: getattr(found, field, None) for name, field in fields}
        if any(each is None for each in given.values()):
            raise TypeError(f"found: got {shown(found)}, expected an Evaluation of labels or "
                            "measures by name")  # fmt: skip
    scores = {name: as_numbers(f"found[{name!r}]", each, 1) for name, each in given.items()}
    if not scores:
        raise ValueError("found: got no measures")
    K = next(iter(scores.values())).size
    names = _names(labels, found, K)
    for name, each in scores.items():
        same_length(f"found[{name!r}]", each, K, "the first measure")
    same_length("labels", names, K, "found")
    axes = as_axes(ax)
    height = 0.8 / len(scores)
    greys = np.linspace(0.25, 0.75, len(scores))
    places = np.arange(K)
    for i, (name, values) in enumerate(scores.items()):
        at = places + (i - (len(scores) - 1) / 2) * height
        axes.barh(at, np.nan_to_num(values), height, color=str(greys[i]), label=name)
    axes.set_yticks(places, names, parse_math=False)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    if not isinstance(found, Mapping):
        accuracy, f1 = getattr(found, "accuracy", np.nan), getattr(found, "f1_macro", np.nan)
        axes.set_title(f"accuracy {accuracy:.3g}, F1 (macro) {f1:.3g}")
    return axes
