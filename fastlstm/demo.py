"""The demonstration: bundled models on bundled data, beside baselines and the reference.

`run_forecast` forecasts the sea-surface temperature off Peru months ahead with an LSTM;
`run_gapfill` fills gaps in the same series with a BiLSTM. Both are scored on 1996-2010 or a part
of it, years that took no part in training (`fastlstm.data.features` says how the series is cut),
and timed against `fastlstm.reference` in the same process. `run_digits` tells handwritten digits,
which come with scikit-learn.
Nothing here prints; `python -m fastlstm run` does.

Letters: T months, B sequences, K horizons, N scored months.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastlstm import LSTM, BiLSTM, reference
from fastlstm._extras import import_for
from fastlstm.data import baselines, load_sst, model_path
from fastlstm.data.digits import (
    DIGITS_SPLIT,
    DigitsResult,
    digits_data,
    plot_digits,
    run_digits,
)
from fastlstm.data.features import (
    GAP_LENGTH,
    HEADLINE_HORIZON,
    HELD_OUT_START,
    HORIZONS,
    Float32,
    Float64,
    gap_masks,
)
from fastlstm.data.models import StrPath, load_model
from fastlstm.plot._axes import ANSWERS, NAIVE, TRUTH

__all__ = [
    "DIGITS_SPLIT",
    "Comparison",
    "DigitsResult",
    "ForecastResult",
    "GapFillResult",
    "Score",
    "digits_data",
    "plot",
    "plot_digits",
    "run_digits",
    "run_forecast",
    "run_gapfill",
]

Method = Callable[[], NDArray[np.floating[Any]]]


@dataclass(frozen=True)
class Score:
    """Errors of one method over the scored months, in degrees Celsius.

    Attributes
    ----------
    rmse : float
        Root of the mean squared error.
    mae : float
        Mean absolute error.
    """

    rmse: float
    mae: float

    @classmethod
    def of(cls, estimate: Float64, truth: Float64) -> Score:
        """Compare two arrays of the same shape, in degrees Celsius."""
        error = estimate - truth
        return cls(float(np.sqrt(np.mean(error**2))), float(np.mean(np.abs(error))))


@dataclass(frozen=True)
class Comparison:
    """`fastlstm` beside `fastlstm.reference` on the same input.

    Attributes
    ----------
    shape : tuple of int
        (T, B, I) of the input.
    layer : str
        The layer that ran, as its repr.
    seconds, reference_seconds : float
        Median over the rounds of one call on the whole input, both in float32.
    rounds : int
    max_difference : float
        Largest absolute difference of the output y from the reference in float64. y has no unit
        and lies within -1 and 1.
    """

    shape: tuple[int, ...]
    layer: str
    seconds: float
    reference_seconds: float
    rounds: int
    max_difference: float

    @property
    def speedup(self) -> float:
        """How many times as long the reference takes."""
        return self.reference_seconds / self.seconds


@dataclass(frozen=True)
class _Result:
    """What both results have: scored months, truth, estimates, errors and times.

    Attributes
    ----------
    dates : (N,) datetime64[M]
        The scored months, in order.
    truth, estimate : (N,) float64
        Observed, and from the model, in degrees Celsius.
    baselines : dict of (N,) float64
        The same months from each baseline, in degrees Celsius.
    score : Score
        The model's.
    baseline_scores : dict of Score
    comparison : Comparison
    """

    dates: NDArray[np.datetime64]
    truth: Float64
    estimate: Float64
    baselines: dict[str, Float64]
    score: Score
    baseline_scores: dict[str, Score]
    comparison: Comparison


@dataclass(frozen=True)
class ForecastResult(_Result):
    """Forecasts of the held-out months, each from the data `horizon` months before.

    Attributes
    ----------
    horizon : int
        Months ahead.
    rmse_by_horizon : dict of dict of float
        For each of `HORIZONS`, held-out RMSE in degrees Celsius by method; the model is "LSTM".
    """

    horizon: int
    rmse_by_horizon: dict[int, dict[str, float]]


@dataclass(frozen=True)
class GapFillResult(_Result):
    """Held-out months filled in, each hidden in exactly one of B copies of the series.

    Attributes
    ----------
    gap_length : int
        Months in each gap.
    """

    gap_length: int


def run_forecast(model: StrPath | None = None, *, rounds: int = 15) -> ForecastResult:
    """Forecast every held-out month and compare with baselines and with the reference.

    Parameters
    ----------
    model : path, optional
        Another model than the bundled one, written by `examples/train_forecast.py`.
    rounds : int
        Rounds of timing, at least 1.

    Returns
    -------
    ForecastResult
    """
    network = load_model(model_path("sst_forecast") if model is None else model, len(HORIZONS))
    sst = load_sst()
    forecast = network.forecast(sst)
    targets = np.arange(sst.index(HELD_OUT_START), len(sst))
    truth = sst.temperature[targets]
    rmse_by_horizon: dict[int, dict[str, float]] = {}
    for column, horizon in enumerate(HORIZONS):
        estimate = forecast[targets - horizon, column]
        others = baselines.forecasts(sst, network.scaling, targets, horizon)
        everyone = {"LSTM": estimate, **others}
        rmse_by_horizon[horizon] = {k: Score.of(v, truth).rmse for k, v in everyone.items()}
        if horizon == HEADLINE_HORIZON:
            headline, headline_others = estimate, others
    return ForecastResult(
        dates=sst.dates[targets],
        truth=truth,
        estimate=headline,
        baselines=headline_others,
        score=Score.of(headline, truth),
        baseline_scores={k: Score.of(v, truth) for k, v in headline_others.items()},
        comparison=_compare(network.layer, network.forecast_input(sst), rounds),
        horizon=HEADLINE_HORIZON,
        rmse_by_horizon=rmse_by_horizon,
    )


def run_gapfill(model: StrPath | None = None, *, rounds: int = 15) -> GapFillResult:
    """Hide and fill every month of 1996-2009; 2010 stays known so that each gap has two sides.

    Parameters
    ----------
    model : path, optional
        Another model than the bundled one, written by `examples/train_gapfill.py`.
    rounds : int
        Rounds of timing, at least 1.

    Returns
    -------
    GapFillResult
    """
    network = load_model(model_path("sst_gapfill") if model is None else model, 1)
    sst = load_sst()
    missing = gap_masks(len(sst), sst.index(HELD_OUT_START), len(sst) - 12)
    # In order of time; each scored month is hidden in exactly one of the B sequences.
    months, sequences = np.nonzero(missing)
    truth = sst.temperature[months]
    estimate = network.fill(sst, missing)[months, sequences]
    others = {
        name: values[months, sequences]
        for name, values in baselines.fillings(sst, network.scaling, missing).items()
    }
    return GapFillResult(
        dates=sst.dates[months],
        truth=truth,
        estimate=estimate,
        baselines=others,
        score=Score.of(estimate, truth),
        baseline_scores={k: Score.of(v, truth) for k, v in others.items()},
        comparison=_compare(network.layer, network.gapfill_input(sst, missing), rounds),
        gap_length=GAP_LENGTH,
    )


def _compare(layer: LSTM | BiLSTM, x: Float32, rounds: int) -> Comparison:
    """Time the layer and the reference in turns on x (T, B, I), and compare their outputs."""
    if rounds < 1:
        raise ValueError(f"rounds must be at least 1, got {rounds}")
    parameters = layer.state_dict()
    L, D = layer.num_layers, layer.num_directions

    def ours() -> NDArray[np.floating[Any]]:
        y: NDArray[np.floating[Any]] = layer(x)[0]
        return y

    def reference_float32() -> NDArray[np.floating[Any]]:
        return reference.forward(
            x, None, parameters, dtype=np.float32, num_layers=L, num_directions=D
        )[0]

    exact = reference.forward(
        x, None, parameters, dtype=np.float64, num_layers=L, num_directions=D
    )[0]
    difference = float(np.max(np.abs(ours() - exact)))
    reference_float32()  # as warm as ours
    # In turns, so that a busy moment of the machine meets both.
    pairs = [(_seconds(ours), _seconds(reference_float32)) for _ in range(rounds)]
    return Comparison(
        shape=x.shape,
        layer=repr(layer),
        seconds=statistics.median(a for a, _ in pairs),
        reference_seconds=statistics.median(b for _, b in pairs),
        rounds=rounds,
        max_difference=difference,
    )


def _seconds(method: Method) -> float:
    start = time.perf_counter()
    method()
    return time.perf_counter() - start


def plot(
    results: ForecastResult | GapFillResult | Sequence[ForecastResult | GapFillResult],
    path: StrPath,
) -> None:
    """Draw results against the truth; the suffix of `path` chooses the format (.png, .svg, .pdf).

    Of each result above, temperatures: observed, the model's, and those of the simple method with
    the least error. Below, the errors of the two. The titles give their held-out RMSE.

    Raises
    ------
    ImportError
        When matplotlib is missing; the message names the extra that brings it.
    ValueError
        When the suffix is none that matplotlib writes.
    """
    Figure = import_for("a picture", "matplotlib.figure", "cli", "matplotlib").Figure
    several = [results] if isinstance(results, _Result) else list(results)
    figure = Figure(figsize=(11.0, 6.5 * len(several)), layout="constrained")
    figure.suptitle("Sea-surface temperature off Peru (Nino 1+2)")
    for part, result in zip(figure.subfigures(len(several), squeeze=False)[:, 0], several,
                            strict=True):  # fmt: skip
        draw(result, *part.subplots(2, 1, sharex=True, height_ratios=(2.0, 1.0)))
    figure.savefig(path, dpi=130)


def draw(result: ForecastResult | GapFillResult, above: Any, below: Any) -> tuple[Any, Any]:
    """Draw a result as `plot` does, on two of matplotlib's axes, which are returned."""
    if isinstance(result, ForecastResult):
        model, title = "LSTM", f"forecast {result.horizon} months ahead"
        piece = len(result.dates)
    else:
        model = "BiLSTM"
        title = f"gaps of {result.gap_length} months filled, each month hidden once"
        piece = result.gap_length
    rival = min(result.baseline_scores, key=lambda name: result.baseline_scores[name].rmse)
    lines = {model: (result.estimate, ANSWERS), rival: (result.baselines[rival], NAIVE)}
    dates = _broken(result.dates, piece, np.datetime64("NaT"))
    below.axhline(0.0, color="black", linewidth=0.8)
    above.plot(result.dates, result.truth, label="observed", zorder=3, **TRUTH)
    for name, (values, style) in lines.items():
        for axes, drawn in ((above, values), (below, values - result.truth)):
            axes.plot(dates, _broken(drawn, piece, np.nan), label=name, zorder=2, **style)
    above.set_title(
        f"{title}\nHeld-out RMSE in \N{DEGREE SIGN}C: {model} {result.score.rmse:.3f}; "
        f"{rival}, the best simple method, {result.baseline_scores[rival].rmse:.3f}"
    )
    above.set_ylabel("temperature (\N{DEGREE SIGN}C)")
    below.set_ylabel("error (\N{DEGREE SIGN}C)")
    below.set_xlabel("year")
    above.legend(loc="upper right", ncols=3)
    above.margins(x=0.01)
    for axes in (above, below):
        axes.grid(alpha=0.3)
    return above, below


def _broken(values: NDArray[Any], piece: int, mark: Any) -> NDArray[Any]:
    """Put `mark` after every `piece` values, where a line is to be interrupted."""
    return np.insert(values, np.arange(piece, len(values), piece), mark)
