"""What ``run`` reports without a model: the demonstration, `fastlstm.demo`, in words."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from fastlstm import demo
from fastlstm.cli._outputs import new_file
from fastlstm.cli._pictures import check_picture, drawing
from fastlstm.demo import Comparison, ForecastResult, GapFillResult


def run_demonstration(picture: Path | None, force: bool) -> None:
    """Report what the bundled models do on held-out data; draw both if asked to."""
    with ExitStack() as files:
        partial = None
        if picture is not None:
            partial = files.enter_context(new_file(picture, force))
            check_picture(picture)
        forecast, gapfill = demo.run_forecast(), demo.run_gapfill()
        if picture is not None and partial is not None:
            with drawing(picture):
                demo.plot([forecast, gapfill], partial)
    print(f"Sea-surface temperature off Peru, forecast {forecast.horizon} months ahead")
    _print_scores(forecast, "LSTM")
    print("  RMSE by months ahead")
    methods = list(next(iter(forecast.rmse_by_horizon.values())))
    _print_row("", *(f"{horizon:7}" for horizon in forecast.rmse_by_horizon))
    for method in methods:
        errors = (scores[method] for scores in forecast.rmse_by_horizon.values())
        _print_row(method, *(f"{error:7.3f}" for error in errors))
    _print_comparison(forecast.comparison)

    print(f"\nThe same series, gaps of {gapfill.gap_length} months filled")
    _print_scores(gapfill, "BiLSTM")
    _print_comparison(gapfill.comparison)
    if picture is not None:
        print(f"\n{picture}: both against the truth")


def _print_scores(result: ForecastResult | GapFillResult, name: str) -> None:
    """Print the held-out errors of the model and of its baselines."""
    first, last = result.dates[0], result.dates[-1]
    print(f"  held out: {len(result.dates)} months, {first} to {last}; errors in degrees Celsius")
    _print_row("", "   RMSE", "    MAE")
    for method, score in {name: result.score, **result.baseline_scores}.items():
        _print_row(method, f"{score.rmse:7.3f}", f"{score.mae:7.3f}")


def _print_comparison(comparison: Comparison) -> None:
    """Print the time beside the reference's on the same work, and the largest difference."""
    print(
        f"  {comparison.layer} on x of shape (T, B, I) = {comparison.shape}\n"
        f"    fastlstm         {1e3 * comparison.seconds:9.3f} ms\n"
        f"    NumPy reference  {1e3 * comparison.reference_seconds:9.3f} ms, "
        f"{comparison.speedup:.0f} times as long (medians of {comparison.rounds})\n"
        f"    largest difference from the reference in float64: {comparison.max_difference:.1e}"
    )


def _print_row(label: str, *cells: str) -> None:
    print(f"    {label:22}{''.join(cells)}")
