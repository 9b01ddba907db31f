"""How good predictions are: measures of numbers, classes and labels.

Letters: M answers, K numbers of an answer, classes or labels, Q quantiles.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastlstm._arguments import RealArray, as_size, shown
from fastlstm.training.batches import PaddedBatch
from fastlstm.training.checks import Array, as_array
from fastlstm.training.heads import HeadSpec
from fastlstm.training.layout import ONLY
from fastlstm.training.predictions import check_decidable, decided, indices
from fastlstm.training.recurrent import called
from fastlstm.training.scaling import Scaling

if TYPE_CHECKING:
    from fastlstm.training.network import Network

Float64 = NDArray[np.float64]


@dataclass(frozen=True, eq=False)  # arrays have no single answer to ==
class Evaluation:
    """How good answers are, compared with the right ones; ``print`` shows it.

    What does not concern a kind of answers is None. Means go by the weights of the answers.

    Attributes
    ----------
    weight : float
        Of all answers; how many, if they have no weights.
    loss : float
        The mean loss: what training makes small, so of standardised numbers where there is a
        scaling.
    rmse, mae : float
        Of numbers: root of the mean squared error, mean absolute error, in y's own unit, over all
        K. Of quantiles those of the one next to the median.
    naive : dict of str to (rmse, mae)
        The same of forecasts without a model: "persistence", the answer of the step before,
        "seasonal persistence", of a season before, and the baselines that were handed in.
    mase : dict of str to float
        mae over that of each of `naive`: below 1 is better than it. Hyndman and Koehler, "Another
        look at measures of forecast accuracy", 2006, who scale by persistence in the series of
        training; here it is that of the answers evaluated, of those for which there is one.
    coverage : (Q,) float64
        Share of answers at or below each quantile.
    accuracy : float
        Share of right answers of classes; of labels, of answers all of whose labels are right.
    f1_macro : float
        Mean of `f1`, over those that are not NaN.
    precision, recall, f1 : (K,) float64
        Of each class or label; NaN where it neither is nor was predicted (precision: was not
        predicted, recall: is not there).
    confusion : (K, K) float64
        Of classes: weight of answers that are of the class of the row, and were taken for that of
        the column; None of more than 1000. Of labels (K, 2, 2), the same for each, False before
        True.
    classes : tuple
        Names of the classes or labels, or their numbers.
    quantiles : tuple of float
    """

    weight: float
    loss: float
    rmse: float | None = None
    mae: float | None = None
    naive: dict[str, tuple[float, float]] = field(default_factory=dict)
    mase: dict[str, float] = field(default_factory=dict)
    coverage: Float64 | None = None
    accuracy: float | None = None
    f1_macro: float | None = None
    precision: Float64 | None = None
    recall: Float64 | None = None
    f1: Float64 | None = None
    confusion: Float64 | None = None
    classes: tuple[Any, ...] = ()
    quantiles: tuple[float, ...] = ()

    @property
    def best_naive(self) -> str | None:
        """Name of the forecast without a model that has the least RMSE, None if there is none."""
        known = {name: rmse for name, (rmse, _) in self.naive.items() if math.isfinite(rmse)}
        return min(known, key=lambda name: known[name]) if known else None

    def as_dict(self) -> dict[str, Any]:
        """Return what concerns this kind of answers, as JSON has it: None in place of NaN."""
        given = {each.name: getattr(self, each.name) for each in fields(self)}
        return {
            name: _as_json(value)
            for name, value in given.items()
            if value is not None and (not isinstance(value, dict | tuple) or value)
        }

    def __str__(self) -> str:
        """All figures, a table of the classes with their confusions among them."""
        lines = [f"answers {self.weight:g}, mean loss {self.loss:.4g}"]
        if self.accuracy is not None:
            lines.append(f"accuracy {self.accuracy:.4f}, F1 (macro) {self.f1_macro:.4f}")
            lines += self._of_classes()
        if self.rmse is not None:
            lines.append(f"RMSE {self.rmse:.4g}, MAE {self.mae:.4g}")
        for name, (rmse, mae) in self.naive.items():
            lines.append(f"{name}: RMSE {rmse:.4g}, MAE {mae:.4g}; MASE {self.mase[name]:.3f}")
        if self.coverage is not None:
            shares = (f"{q:g}: {c:.3f}" for q, c in zip(self.quantiles, self.coverage, strict=True))
            lines.append(f"shares below the quantiles {', '.join(shares)}")
        return "\n".join(lines)

    def _of_classes(self) -> list[str]:
        assert self.precision is not None
        assert self.recall is not None
        assert self.f1 is not None
        names = [str(name) for name in self.classes[:_SHOWN]]
        width = max(map(len, [*names, "class"]))
        figures = list(zip(self.precision, self.recall, self.f1, strict=True))[:_SHOWN]
        lines = [f"{'class':{width}}  precision  recall      F1"]
        lines += [
            f"{name:{width}}  {p:9.4f}  {r:6.4f}  {f:6.4f}"
            for name, (p, r, f) in zip(names, figures, strict=True)
        ]
        if len(self.classes) > _SHOWN:
            return [*lines, f"... and {len(self.classes) - _SHOWN} more"]
        if self.confusion is None or self.confusion.ndim != 2:
            return lines
        cell = max(len(f"{value:g}") for value in [*self.confusion.flat, 0])
        cell = max(cell, *map(len, names))
        lines.append(f"{'is':{width}}  " + "  ".join(f"{name:>{cell}}" for name in names))
        return lines + [
            f"{name:{width}}  " + "  ".join(f"{value:>{cell}g}" for value in row)
            for name, row in zip(names, self.confusion, strict=True)
        ]


def _as_json(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _as_json(each) for name, each in value.items()}
    if isinstance(value, np.ndarray | tuple | list):
        return [_as_json(each) for each in (value.tolist() if hasattr(value, "tolist") else value)]
    return None if isinstance(value, float) and not math.isfinite(value) else value


#: Classes that a table shows, and whose confusions are counted.
_SHOWN, _MOST_CONFUSED = 30, 1000


def of_classes(
    y: Array, predicted: Array, weights: Float64, classes: tuple[Any, ...]
) -> dict[str, Any]:
    """Return the measures of classes by number, y and predicted (M,)."""
    K, y = len(classes), y.astype(np.intp)
    right = y == predicted
    hits = np.bincount(y[right], weights[right], K)
    said, there = np.bincount(predicted, weights, K), np.bincount(y, weights, K)
    confusion = None
    if K <= _MOST_CONFUSED:
        confusion = np.bincount(y * K + predicted, weights, K * K).reshape(K, K)
    return {
        "accuracy": float(_ratio(hits.sum(), weights.sum())),
        **_by_class(hits, said, there),
        "confusion": confusion,
        "classes": classes,
    }


def of_labels(
    y: Array, predicted: Array, weights: Float64, classes: tuple[Any, ...]
) -> dict[str, Any]:
    """Return the measures of labels, y and predicted (M, K) of bool."""
    places = 2 * y.astype(np.intp) + predicted
    confusion = np.stack([np.bincount(column, weights, 4).reshape(2, 2) for column in places.T])
    hits = confusion[:, 1, 1]
    said, there = confusion[:, :, 1].sum(axis=1), confusion[:, 1].sum(axis=1)
    right = float(weights[(y == predicted).all(axis=-1)].sum())
    return {
        "accuracy": float(_ratio(right, weights.sum())),
        **_by_class(hits, said, there),
        "confusion": confusion,
        "classes": classes,
    }


def _by_class(hits: Array, said: Array, there: Array) -> dict[str, Any]:
    f1 = _ratio(2 * hits, said + there)
    known = f1[~np.isnan(f1)]
    return {
        "precision": _ratio(hits, said),
        "recall": _ratio(hits, there),
        "f1": f1,
        "f1_macro": float(known.mean()) if known.size else math.nan,
    }


def _ratio(part: Any, whole: Any) -> Float64:
    """Return part / whole; NaN where whole is 0."""
    with np.errstate(all="ignore"):
        return np.asarray(np.divide(part, whole), np.float64)


def of_numbers(y: Array, predicted: Array, weights: Float64) -> tuple[float, float]:
    """Return rmse and mae of numbers, y and predicted (M, K)."""
    error = np.asarray(predicted, np.float64) - y
    total = weights.sum()
    if not total:
        return math.nan, math.nan
    squared = (weights * np.square(error).mean(axis=-1)).sum() / total
    absolute = (weights * np.abs(error).mean(axis=-1)).sum() / total
    return math.sqrt(squared), float(absolute)


def of_quantiles(
    y: Array, predicted: Array, weights: Float64, quantiles: tuple[float, ...]
) -> dict[str, Any]:
    """Return the measures of quantiles, y (M, K), predicted (M, K, Q)."""
    below = (y[..., np.newaxis] <= predicted).mean(axis=-2)
    coverage = _ratio((weights[:, np.newaxis] * below).sum(axis=0), weights.sum())
    rmse, mae = of_numbers(y, predicted[..., nearest_median(quantiles)], weights)
    return {"rmse": rmse, "mae": mae, "coverage": coverage, "quantiles": quantiles}


def nearest_median(quantiles: tuple[float, ...]) -> int:
    """Return which quantile is next to the median."""
    return int(np.argmin(np.abs(np.array(quantiles) - 0.5)))


def beside_naive(
    y: Array, predicted: Array, naive: Mapping[str, Array], weights: Float64
) -> dict[str, Any]:
    """Return measures of forecasts without a model, all (M, K), where these are finite."""
    figures: dict[str, tuple[float, float]] = {}
    mase: dict[str, float] = {}
    for name, forecast in naive.items():
        there = np.isfinite(forecast).all(axis=-1)
        figures[name] = of_numbers(y[there], forecast[there], weights[there])
        _, mae = of_numbers(y[there], predicted[there], weights[there])
        mase[name] = float(_ratio(mae, figures[name][1]))
    return {"naive": figures, "mase": mase}


def evaluated(
    spec: HeadSpec,
    z: RealArray,
    y: Array,
    weights: Array | None,
    scaling: Scaling | None,
    naive: Mapping[str, Array],
) -> Evaluation:
    """Return how good a head's answers are.

    Parameters
    ----------
    z : array (..., N)
    y : array
        As `HeadSpec.checked` returns it, in its own unit.
    weights : array (...), or None
    naive : mapping of str to array
        Forecasts (..., K) of numbers without a model, NaN where there is none.
    """
    rows = z.reshape(-1, z.shape[-1])
    y = y.reshape(len(rows), *y.shape[z.ndim - 1 :])
    w = np.ones(len(rows)) if weights is None else weights.reshape(-1).astype(np.float64)
    counted = w > 0
    rows, y, w = rows[counted], y[counted], w[counted]
    standardised = y if scaling is None else (y - scaling.y_mean) / scaling.y_scale
    loss = spec.score(rows, standardised, w)[0].loss
    names = tuple(range(spec.outputs)) if spec.classes is None else spec.classes
    weight = float(w.sum())
    if spec.kind == "class":
        return Evaluation(weight, loss, **of_classes(y, rows.argmax(axis=-1), w, names))
    if spec.kind == "labels":
        return Evaluation(weight, loss, **of_labels(y > 0.5, rows > 0, w, names))
    predicted = decided(spec, rows, scaling, None)
    if spec.quantiles is not None:
        measures = of_quantiles(y, predicted, w, spec.quantiles)
        predicted = predicted[..., nearest_median(spec.quantiles)]
    elif y.shape == predicted.shape:
        measures = dict(zip(("rmse", "mae"), of_numbers(y, predicted, w), strict=True))
    else:  # a loss of one's own, which alone knows what y is
        return Evaluation(weight, loss)
    others = {name: each.reshape(-1, spec.outputs)[counted] for name, each in naive.items()}
    return Evaluation(weight, loss, **measures, **beside_naive(y, predicted, others, w))


class Truth:
    """What is right of some sequences, checked before a network's answers are computed.

    Parameters
    ----------
    network : Network
    x, y, weights, lengths, mask, season, baselines
        As of `Network.evaluate`, which see for what is raised.

    Attributes
    ----------
    batch : PaddedBatch
        Of x, as the network takes it.
    """

    def __init__(
        self,
        network: Network,
        x: Any,
        y: Any,
        weights: Any,
        lengths: Any,
        mask: Any,
        season: Any,
        baselines: Any,
    ) -> None:
        heads = network.heads
        lags = {"persistence": 1}
        if season is not None:
            lags["seasonal persistence"] = as_size("season", season)
        ys, unknown = {}, {}
        for name, part in network._by_head("y", y).items():
            ys[name], unknown[name] = _by_number(heads[name], part)
        batch, ys, all_weights = network._batch(
            network._in_own_unit(x), ys if ONLY not in heads else ys[ONLY], weights, lengths, mask
        )
        self._network, self.batch = network, batch
        try:
            self._checked = network._checked(batch, ys, all_weights)
        except ValueError as error:
            for name, found in unknown.items():
                if found is not None:
                    raise ValueError(
                        f"{called('y', name)}: got class {shown(found)}, expected one of "
                        f"{shown(list(heads[name].classes or ()))}"
                    ) from error
            raise
        for name, (_, row_weights) in self._checked.items():
            if row_weights is not None and not (row_weights > 0).any():
                raise ValueError(f"{called('weights', name)}: all are 0, expected some above")
        self._naive = _forecasts(network, batch, ys, lags, season is not None, baselines)

    def compared(self, rows: Mapping[str, RealArray]) -> Any:
        """Return the `Evaluation`, or one for each head, of z (..., N) by heads.

        ``rows`` are of steps as `PaddedBatch` has them, or of sequences.
        """
        network, heads = self._network, self._network.heads
        results = {}
        for name, spec in heads.items():
            scaling = network.scaling if ONLY in heads and not spec.is_decision else None
            y, weights = self._checked[name]
            if spec.is_decision:
                check_decidable(rows[name], None if weights is None else weights > 0)
            results[name] = evaluated(spec, rows[name], y, weights, scaling, self._naive)
        return results.get(ONLY, results)


def _by_number(spec: HeadSpec, y: Any) -> tuple[Any, Any]:
    """Return y with classes by number, and a name that is none of theirs, or None."""
    if spec.kind != "class" or spec.classes is None:
        return y, None
    if isinstance(y, list | tuple) and all(isinstance(item, np.ndarray) for item in y):
        parts = [indices(spec.classes, item) for item in y]
        found = [name for _, name in parts if name is not None]
        return [numbers for numbers, _ in parts], found[0] if found else None
    return indices(spec.classes, np.asarray(y))


def _forecasts(
    network: Network,
    batch: PaddedBatch,
    ys: Mapping[str, Any],
    lags: Mapping[str, int],
    seasonal: bool,
    baselines: Any,
) -> dict[str, Array]:
    """Return forecasts without a model, of numbers of one head."""
    spec = network.heads.get(ONLY)
    if not isinstance(baselines, Mapping):
        raise TypeError(f"baselines: got {type(baselines).__name__}, expected a mapping of names")
    if spec is None or spec.kind != "numbers":
        if baselines or seasonal:
            what = "baselines" if baselines else "season"
            raise ValueError(f"{what}: got some, expected none but of a regression with one head")
        return {}
    forecasts = {}
    y = np.asarray(ys[ONLY])
    if network.each_step:
        forecasts = {name: batch.rows_before(y, lag) for name, lag in lags.items()}
    elif seasonal:
        raise ValueError("season: got one, expected none without answers at each step")
    for name, forecast in baselines.items():
        array = as_array(f"baselines[{name!r}]", forecast, "iuf", "real numbers")
        if array.shape != y.shape:
            raise ValueError(
                f"baselines[{name!r}]: got shape {array.shape}, expected {y.shape} as of y"
            )
        forecasts[str(name)] = batch.rows_of_given(array) if network.each_step else array
    return forecasts
