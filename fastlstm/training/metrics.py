"""What is scored on the validation sequences beside the loss: measures by name, and functions.

Letters: M answers that count, K numbers of an answer, N numbers of z.
"""

from __future__ import annotations

import numbers
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from fastlstm._arguments import RealArray, shown
from fastlstm.training.checks import Array
from fastlstm.training.evaluation import evaluated
from fastlstm.training.heads import HeadSpec
from fastlstm.training.layout import ONLY
from fastlstm.training.predictions import chosen, decided

if TYPE_CHECKING:
    from fastlstm.training.network import Network

#: Of what was predicted (M, ...) and what is right (M, ...) a number.
Metric: TypeAlias = Callable[[Any, Any], float]

#: Measures of an `Evaluation`, by what an answer is.
_NAMED = {
    "class": ("accuracy", "f1_macro"),
    "labels": ("accuracy", "f1_macro"),
    "numbers": ("rmse", "mae"),
    "own": (),
}


class Metrics:
    """The metrics of a network, each for its head.

    Parameters
    ----------
    network : Network
    given : sequence of str or callable, or mapping of heads' names to such

    Attributes
    ----------
    names : tuple of str
        Of several heads "HEAD.METRIC".

    Raises
    ------
    TypeError, ValueError
        If one is no metric of its head's answers, or two have the same name.
    """

    def __init__(self, network: Network, given: Any) -> None:
        self._network = network
        self._of_head: dict[str, list[tuple[str, str | Metric]]] = {}
        heads = network.heads
        if ONLY in heads:
            given = {ONLY: given}
        elif not isinstance(given, Mapping):
            if given != ():
                name = type(given).__name__
                raise TypeError(f"metrics: got {name}, expected a mapping of heads' names")
            given = {}
        if wrong := sorted(set(map(str, given)) - set(heads)):
            raise ValueError(f"metrics: got some of {wrong[0]}, expected heads {', '.join(heads)}")
        names: list[str] = []
        for head, metrics in given.items():
            if isinstance(metrics, str) or not isinstance(metrics, Iterable):
                raise TypeError(f"metrics: got {shown(metrics)}, expected a sequence of them")
            self._of_head[head] = [_as_metric(each, heads[head], head) for each in metrics]
            names += [name for name, _ in self._of_head[head]]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"metrics: got {twice[0]} twice, expected different names")
        self.names = tuple(names)

    def of(self, parts: Mapping[str, list[tuple[RealArray, Array, Array | None]]]) -> Any:
        """Return the metrics by name, of z, y and weights of each head, batch by batch."""
        network, results = self._network, {}
        for head, metrics in self._of_head.items():
            if not metrics:
                continue
            spec = network.heads[head]
            scaling = network.scaling if head == ONLY and not spec.is_decision else None
            z, y, weights = _joined(parts[head])
            if scaling is not None:
                y = y * scaling.y_scale + scaling.y_mean
            measures = evaluated(spec, z, y, weights, scaling, {})
            # Classes by their numbers, as y has them.
            predicted = chosen(spec, z) if spec.is_decision else decided(spec, z, scaling, None)
            for name, metric in metrics:
                if isinstance(metric, str):
                    results[name] = float(getattr(measures, metric))
                else:
                    results[name] = _as_number(name, metric(predicted, y))
        return results


def _as_metric(value: Any, spec: HeadSpec, head: str) -> tuple[str, str | Metric]:
    prefix = "" if head == ONLY else f"{head}."
    if isinstance(value, str):
        if value not in _NAMED[spec.kind]:
            known = [*_NAMED[spec.kind], "functions"]
            raise ValueError(
                f"metrics: got {value!r} with loss={shown(spec.loss)}, expected some of "
                f"{', '.join(known)}"
            )
        return prefix + value, value
    if not callable(value) or isinstance(value, type):
        raise TypeError(f"metrics: got {shown(value)}, expected names and functions")
    return prefix + getattr(value, "__name__", type(value).__name__), value


def _joined(parts: list[tuple[RealArray, Array, Array | None]]) -> tuple[RealArray, Array, Array]:
    """Return z (M, N), y (M, ...) and weights (M,) of the answers that count, of all batches."""
    rows = []
    for z, y, weights in parts:
        y = y.reshape(-1, *y.shape[z.ndim - 1 :])
        z = z.reshape(-1, z.shape[-1])
        w = np.ones(len(z)) if weights is None else weights.reshape(-1).astype(np.float64)
        rows.append((z[w > 0], y[w > 0], w[w > 0]))
    z, y, w = (np.concatenate(each) for each in zip(*rows, strict=True))
    return z, y, w


def _as_number(name: str, value: Any) -> float:
    if isinstance(value, np.ndarray) and value.shape == ():
        value = value[()]
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"metrics: {name} returned {shown(value)}, expected a number")
    return float(value)
