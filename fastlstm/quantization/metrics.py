"""The metric of a task, before and after: by name, or a function of the user's.

Letters: T time steps, B batch, M answers, K numbers of an answer.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastlstm._arguments import RealArray, as_array, shown
from fastlstm.quantization.answers import Rule

#: What scores answers beside targets: metric(answers, targets) is a number.
Metric: TypeAlias = Callable[[Any, Any], float]

#: The metrics that have a name: those that training reports.
METRICS = ("mse", "rmse", "cross_entropy", "accuracy")


class Change(NamedTuple):
    """A metric before and after.

    Attributes
    ----------
    name : str
    before, after : float
        In float32, and quantised.
    """

    name: str
    before: float
    after: float


class Given(NamedTuple):
    """The answers to one array of the data as a call gives them, and what is known of them."""

    exact: RealArray  # (T, B, K), (B, T, K) with batch_first, (B, K), or without a batch
    other: RealArray
    present: NDArray[np.bool_] | None  # the same without the last axis; None if all are there


def check_metric(metric: Any, targets: Any) -> None:
    """Raise TypeError or ValueError where there is one of both alone, or no such metric."""
    if metric is None and targets is None:
        return
    if metric is None or targets is None:
        missing, given = ("metric", "targets") if metric is None else ("targets", "metric")
        raise ValueError(f"{missing}: got None, but {given} needs it")
    if callable(metric):
        return
    if not isinstance(metric, str):
        raise TypeError(f"metric: got {type(metric).__name__}, expected a name or a function")
    if metric not in METRICS:
        raise ValueError(f"metric: got {shown(metric)}, expected one of {', '.join(METRICS)}")


def change_of(
    metric: str | Metric, targets: Any, given: Sequence[Given], rule: Rule | None, *, several: bool
) -> Change:
    """Return the metric before and after.

    Parameters
    ----------
    metric : str or callable
    targets : array_like, or where the data are `several` arrays a sequence of one for each
    given : sequence of Given
    rule : Rule or None
        How answers decide.
    several : bool

    Raises
    ------
    TypeError, ValueError
        If targets do not fit the answers, or the function of the user's returned no number.
    """
    if several and (not isinstance(targets, list | tuple) or len(targets) != len(given)):
        raise ValueError(f"targets: expected a list of {len(given)}, one for each array of data")
    if not isinstance(metric, str):
        name = getattr(metric, "__name__", type(metric).__name__)
        exact, other = [each.exact for each in given], [each.other for each in given]
        answers = (exact, other) if several else (exact[0], other[0])
        return Change(name, *(_as_number(metric(each, targets)) for each in answers))
    rows = [
        _rows(metric, each, one)
        for each, one in zip(given, targets if several else [targets], strict=True)
    ]
    exact_z, other_z, y = (np.concatenate(parts) for parts in zip(*rows, strict=True))
    if len(y) == 0:
        return Change(metric, math.nan, math.nan)
    return Change(metric, *(_score(metric, z, y, rule) for z in (exact_z, other_z)))


def _as_number(value: Any) -> float:
    if isinstance(value, np.ndarray) and value.shape == ():
        value = value[()]
    if not isinstance(value, numbers.Real):
        raise TypeError(f"metric: returned {shown(value)}, expected a number")
    return float(value)


def _rows(metric: str, given: Given, targets: Any) -> tuple[RealArray, RealArray, NDArray[Any]]:
    """Return the answers (M, K) of both and the targets (M, K), or (M,) of classes, that count."""
    classes = metric in ("cross_entropy", "accuracy")
    K = given.exact.shape[-1]
    y = as_array("targets", targets)
    if y.dtype.kind not in ("biu" if classes else "biuf"):
        expected = "integer classes" if classes else "real numbers"
        raise TypeError(f"targets: got values of dtype {y.dtype}, expected {expected}")
    outer = given.exact.shape[:-1]
    if not classes and K == 1 and y.shape == outer:
        y = y[..., np.newaxis]
    expected_shape = outer if classes else given.exact.shape
    if y.shape != expected_shape:
        raise ValueError(f"targets: got shape {y.shape}, expected {expected_shape}")
    counted = np.ones(outer, np.bool_) if given.present is None else given.present
    y = y[counted]
    if not np.isfinite(y).all():
        raise ValueError("targets: holds NaN or infinity, expected finite numbers")
    below = max(K, 2)
    if classes and y.size and not 0 <= y.min() <= y.max() < below:
        raise ValueError(
            f"targets: got classes {y.min()} to {y.max()}, expected 0 to {below - 1} for answers "
            f"of {K} numbers"
        )
    return given.exact[counted], given.other[counted], y


def _score(metric: str, z: RealArray, y: NDArray[Any], rule: Rule | None) -> float:
    """Return a metric with a name of answers (M, K) and targets, (M, K) or of classes (M,)."""
    # Not with this package: few who quantise train.
    from fastlstm.training.losses import LOSSES, weighted

    if metric in ("mse", "rmse"):
        score = weighted(LOSSES["mse"], z, y, None)[0]
        return score.loss if metric == "mse" else score.rmse
    if z.shape[-1] > 1:
        score = weighted(LOSSES["cross_entropy"], z, y, None)[0]
        return score.accuracy if metric == "accuracy" else score.loss
    if metric == "cross_entropy":  # of one number, the logit of class 1
        return float(np.mean(np.logaddexp(0, np.where(y, -z[:, 0], z[:, 0]), dtype=np.float64)))
    decided = (rule or Rule(1, 0.0)).decide(z)[:, 0]
    return float(np.mean(decided == (y != 0)))
