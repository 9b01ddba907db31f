"""Classify digits in a pipeline with a grid search, and forecast two series beside simple methods.

pip install "fastlstm[sklearn]" pandas statsmodels
python examples/estimators.py
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from statsmodels.datasets import co2
from statsmodels.tsa.holtwinters import ExponentialSmoothing

from fastlstm.data import load_sst
from fastlstm.sklearn import LSTMClassifier, LSTMForecaster

HORIZON = SEASON = 12


def as_pictures(x: Any) -> Any:
    """Return rows of 64 pixels as (N, T, F): pictures that are read row by row."""
    return x.reshape(-1, 8, 8)


def classify() -> None:
    """Search for the size and the rate, and print the accuracy on what was held out."""
    x, y = load_digits(return_X_y=True)
    x, x_test, y, y_test = train_test_split(x, y, random_state=0)
    model = LSTMClassifier(epochs=20, schedule="cosine", random_state=0)
    pipeline = make_pipeline(FunctionTransformer(as_pictures), model)
    grid = {"lstmclassifier__hidden_size": [16, 32], "lstmclassifier__learning_rate": [0.01, 0.02]}
    search = GridSearchCV(pipeline, grid, cv=3, n_jobs=2).fit(x, y)
    print(f"digits: {search.best_params_}, accuracy {search.score(x_test, y_test):.3f}")


def compare(name: str, series: Any, model: LSTMForecaster) -> None:
    """Print mean absolute errors of forecasts of a year, made at the beginning of the last six."""
    errors: dict[str, list[float]] = {}
    for years in range(6, 0, -1):
        at = len(series) - years * HORIZON
        known, truth = series.iloc[:at], series.iloc[at : at + HORIZON].to_numpy()
        smooth = ExponentialSmoothing(known, trend="add", seasonal="add", seasonal_periods=SEASON)
        forecasts = {
            "LSTMForecaster": model.fit(known).predict(HORIZON),
            "seasonal naive": known.iloc[-SEASON:],
            "exponential smoothing": smooth.fit().forecast(HORIZON),
        }
        for method, forecast in forecasts.items():
            errors.setdefault(method, []).append(np.abs(np.asarray(forecast) - truth).mean())
    means = ", ".join(f"{method} {np.mean(each):.3f}" for method, each in errors.items())
    print(f"{name}, mean absolute error: {means}")


def main() -> None:
    """Run both."""
    classify()
    warnings.simplefilter("ignore")  # of statsmodels, where smoothing does not converge
    carbon = co2.load_pandas().data["co2"].resample("MS").mean().ffill()
    given = {"hidden_size": 16, "length": 36, "horizon": HORIZON, "random_state": 0}
    compare("CO2, ppm", carbon, LSTMForecaster(**given, epochs=60, difference=SEASON))
    sst = load_sst()
    dates = pd.DatetimeIndex(sst.dates.astype("datetime64[ns]"))
    sea = pd.Series(sst.temperature, dates)
    compare("sea off Peru, degrees Celsius", sea, LSTMForecaster(**given, epochs=20))


if __name__ == "__main__":
    main()
