"""The forecaster."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

from fastlstm.data import forecast
from support.optional import require

require("sklearn")  # before what needs it
from sklearn.base import clone  # noqa: E402

from fastlstm.sklearn import LSTMForecaster  # noqa: E402

GIVEN: dict[str, Any] = {
    "hidden_size": 16, "length": 25, "horizon": 10, "epochs": 20, "random_state": 0,
}  # fmt: skip


def wave(start: int, stop: int) -> Any:
    return np.sin(np.arange(start, stop) * 2 * np.pi / 25)


def test_forecasts_what_repeats() -> None:
    model = LSTMForecaster(**GIVEN).fit(wave(0, 300))
    assert np.abs(model.predict() - wave(300, 310)).max() < 0.1
    assert np.abs(model.predict(25) - wave(300, 325)).max() < 0.2  # from its own forecasts
    np.testing.assert_array_equal(model.predict(3), model.predict(10)[:3])
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict(12), model.predict(12))
    other = clone(model).fit(wave(0, 300))
    np.testing.assert_array_equal(other.network_.parameters, model.network_.parameters)


def test_several_series_with_several_columns() -> None:
    series = [np.column_stack([wave(k, n), 10 * wave(k, n)]) for k, n in ((0, 200), (7, 150))]
    model = LSTMForecaster(**GIVEN).fit(series)
    forecasts = model.predict(12)
    assert [each.shape for each in forecasts] == [(12, 2)] * 2
    for each, (start, scale) in zip(forecasts, ((200, 1), (150, 1)), strict=True):
        truth = np.column_stack([wave(start, start + 12), 10 * wave(start, start + 12)])
        assert np.abs(each - scale * truth).max() < 3
    changed = LSTMForecaster(**GIVEN).fit(series[::-1]).predict(12)
    assert changed[0].shape == (12, 2)


def test_inputs_known_ahead_are_read() -> None:
    rng = np.random.default_rng(0)
    known = rng.integers(0, 2, 430).astype(float)
    y = 3.0 * known + rng.normal(size=430) * 0.01
    given = {**GIVEN, "length": 6, "horizon": 4, "epochs": 40}
    model = LSTMForecaster(**given).fit(y[:400], known[:400])
    assert np.abs(model.predict(10, known[400:410]) - y[400:410]).max() < 0.5
    with pytest.raises(ValueError, match="future: got None"):
        model.predict(4)
    with pytest.raises(ValueError, match="future: has 3 rows, expected 4"):
        model.predict(2, known[400:403])
    with pytest.raises(ValueError, match="future: got some, but there was no X"):
        LSTMForecaster(**GIVEN).fit(y).predict(2, known[:10])


def test_update_goes_on_or_trains() -> None:
    model = LSTMForecaster(**GIVEN).fit(wave(0, 200))
    weights = model.network_.parameters.copy()
    moved = model.update(wave(200, 213)).predict(5)
    np.testing.assert_array_equal(model.network_.parameters, weights)
    assert np.abs(moved - wave(213, 218)).max() < 0.2
    loss = model.loss_curve_[-1]
    model.update(wave(213, 220), refit="continue")
    assert model.n_iter_ == 40
    assert model.loss_curve_[20] < 3 * loss  # no beginning
    model.update(wave(220, 225), refit=True)
    fresh = LSTMForecaster(**GIVEN).fit(wave(0, 225))
    np.testing.assert_array_equal(model.network_.parameters, fresh.network_.parameters)
    before = model.predict(3)
    with pytest.raises(ValueError, match="NaN"):
        model.update([0.1, np.nan])
    np.testing.assert_array_equal(model.predict(3), before)


@pytest.mark.parametrize("missing", ["error", "ffill"])
def test_forecasts_read_the_last_rows_alone(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    y = np.sin(np.arange(400) / 3) + 0.1 * np.arange(400)
    given: dict[str, Any] = {**GIVEN, "hidden_size": 4, "length": 8, "horizon": 3, "epochs": 1}
    model = LSTMForecaster(**given, difference=1, missing=missing)
    model.fit(y[:300]).update(y[300:])
    seen = []

    def spied(network: Any, frame: Any) -> Any:
        seen.append(len(next(iter(frame.values()))))
        return forecast(network, frame)

    monkeypatch.setattr("fastlstm.sklearn._forecaster.forecast", spied)
    answers = model.predict(7)
    name = model.target_names_[0]
    whole = forecast(model.network_, {name: y}).values[0, :, 0]
    np.testing.assert_array_equal(answers[:3], whole)
    first = 11 if missing == "error" else 400  # a gap may reach back to the first row
    assert seen == [first, first + 3, first + 4]


def test_series_of_pandas_get_dates() -> None:
    pandas = require("pandas")
    index = pandas.date_range("2001-01-01", periods=150, freq="MS")
    y = pandas.Series(wave(0, 150), index, name="sea")
    model = LSTMForecaster(**{**GIVEN, "epochs": 2}, early_stopping=True).fit(y[:140])
    forecast = model.predict(12)
    assert forecast.name == "sea"
    assert (forecast.index[:10] == index[140:]).all()
    assert len(model.validation_loss_curve_) == model.n_iter_
    with pytest.raises(ValueError, match="expected 2012-09"):
        model.update(y[141:])
    assert (model.update(y[140:]).predict(3).index.month == [7, 8, 9]).all()


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.zeros((2, 3, 4)), "expected|dim 3"),
        ([1.0, np.nan] * 50, "missing"),
        (wave(0, 20), "length"),
        ([[0.1] * 50, [[0.1, 0.2]] * 50], "columns"),
    ],
)
def test_bad_series(y: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LSTMForecaster(**GIVEN).fit(y)
    with pytest.raises(ValueError, match="'horizon' parameter of LSTMForecaster"):
        LSTMForecaster(horizon=0).fit(wave(0, 100))


def test_columns_of_several_series_are_told_by_their_names() -> None:
    pandas = require("pandas")
    frames = [pandas.DataFrame({"a": wave(k, 60 + k), "b": 10 + wave(k, 60 + k)}) for k in (0, 7)]
    given = {**GIVEN, "epochs": 2}
    expected = LSTMForecaster(**given).fit(frames).predict()
    other = LSTMForecaster(**given).fit([frames[0], frames[1][["b", "a"]]]).predict()
    for each, like in zip(other, expected, strict=True):
        pandas.testing.assert_frame_equal(each, like)
    with pytest.raises(ValueError, match=r"y\[1\] has columns \['a', 'c'\], expected \['a', 'b'\]"):
        LSTMForecaster(**given).fit([frames[0], frames[1].rename(columns={"b": "c"})])


def test_where_the_future_begins_has_to_be_known() -> None:
    """Behind a last value that is missing forecasts would begin too early."""
    known = np.tile([0.0, 0, 1, 0], 20)
    y = np.roll(known, 1)
    given = {**GIVEN, "length": 6, "horizon": 4, "epochs": 1, "missing": "ffill"}
    short = y.copy()
    short[-2:] = np.nan
    with pytest.raises(ValueError, match="y ends with NaN"):
        LSTMForecaster(**given).fit(short, known)
    assert LSTMForecaster(**given).fit(short).predict().shape == (4,)
    with pytest.raises(ValueError, match=r"y\[1\] ends with NaN"):
        LSTMForecaster(**given).fit([y, short], [known, known])
    model = LSTMForecaster(**given).fit(y, known)
    with pytest.raises(ValueError, match="y ends with NaN"):
        model.update(short, known)


def test_dates_of_what_is_known_ahead_are_those_of_the_series() -> None:
    pandas = require("pandas")
    index = pandas.date_range("2001-01-01", periods=64)
    y = pandas.Series(wave(0, 60), index[:60])
    known = pandas.DataFrame({"k": np.arange(64.0)}, index)
    given = {**GIVEN, "length": 6, "horizon": 4, "epochs": 1}
    with pytest.raises(ValueError, match=r"X has time 2001-01-06.* in row 0, expected 2001-01-01"):
        LSTMForecaster(**given).fit(y, known[:60].shift(freq="5D"))
    model = LSTMForecaster(**given).fit(y, known[:60])
    with pytest.raises(ValueError, match=r"future: has time 2001-01-01.* expected 2001-03-02"):
        model.predict(4, known)
    expected = model.predict(4, pandas.DataFrame({"k": np.arange(60.0, 64)}))
    pandas.testing.assert_series_equal(model.predict(4, known[60:]), expected)
    with pytest.raises(ValueError, match="X has time"):
        model.update(y.shift(freq="60D")[:4], known[:4])


def test_training_goes_on_at_the_rate_that_is_asked_for() -> None:
    """A schedule that fell to nothing doesn't keep the next run from learning."""
    given = {**GIVEN, "epochs": 3, "schedule": "cosine"}
    model = LSTMForecaster(**given).fit(wave(0, 200))
    first = model.network_.parameters.copy()
    model.update(wave(200, 230), refit="continue")
    second = model.network_.parameters.copy()
    assert np.abs(second - first).max() > 0.003
    model.update(wave(230, 240), refit=np.False_)
    np.testing.assert_array_equal(model.network_.parameters, second)
    with pytest.raises(ValueError, match="length: got 9, expected 25 as in the fit before"):
        model.set_params(length=9).update(wave(240, 250), refit="continue")
    with pytest.raises(ValueError, match="hidden_size: got 3, expected 16"):
        model.set_params(length=25, hidden_size=3).update(wave(240, 250), refit="continue")
    anew = model.update(wave(240, 250), refit=1)
    expected = LSTMForecaster(**{**given, "hidden_size": 3}).fit(wave(0, 250))
    np.testing.assert_array_equal(anew.network_.parameters, expected.network_.parameters)


@pytest.mark.parametrize("zone", ["Europe/Berlin", "Asia/Kolkata"])
def test_forecasts_are_in_the_zone_of_the_series(zone: str) -> None:
    """Across the change to summer time, too, of which the steps in UTC know nothing."""
    pandas = require("pandas")
    index = pandas.date_range("2024-03-27", periods=110, freq="h", tz=zone)
    y = pandas.Series(wave(0, 110), index)
    model = LSTMForecaster(**{**GIVEN, "epochs": 1}).fit(y[:90], y[:90] * 2)
    future = y[90:] * 2
    assert model.predict(12, future).index.equals(index[90:102])
    assert model.predict(12, future.tz_convert("UTC")).index.equals(index[90:102])
    with pytest.raises(ValueError, match=r"future: has times of datetime64\[.*expected datetime64"):
        model.predict(12, future.tz_localize(None))
    model.update(y[90:100].tz_convert("UTC"), y[90:100] * 2)
    assert model.predict(10, y[100:]).index.equals(index[100:110])
    with pytest.raises(ValueError, match="y has times of datetime64"):
        model.update(y[100:].tz_localize(None), y[100:].tz_localize(None))
    several = LSTMForecaster(**{**GIVEN, "epochs": 1}).fit([y[:90], y[:80].tz_convert("UTC")])
    assert [str(each.index.tz) for each in several.predict(3)] == [zone, "UTC"]


def test_periods_of_pandas_go_on_as_periods() -> None:
    pandas = require("pandas")
    index = pandas.period_range("2001-01", periods=100, freq="M")
    model = LSTMForecaster(**{**GIVEN, "epochs": 1}).fit(pandas.Series(wave(0, 90), index[:90]))
    assert model.predict().index.equals(index[90:])
    with pytest.raises(ValueError, match="time: from 2002-06"):
        model.fit(pandas.Series(wave(0, 90), index[:90]).drop(index[18]))


def test_what_a_series_hides_or_names_twice() -> None:
    pandas = require("pandas")
    y = wave(0, 90)
    masked = np.ma.masked_array(y, np.arange(90) == 40)
    with pytest.raises(ValueError, match="column 'y' has no value in row 40"):
        LSTMForecaster(**GIVEN).fit(masked)
    given = {**GIVEN, "epochs": 1, "missing": "ffill"}
    models = [LSTMForecaster(**given).fit(each) for each in (masked, masked.filled(np.nan))]
    np.testing.assert_array_equal(*(model.network_.parameters for model in models))
    twice = pandas.DataFrame(np.ones((90, 2)), columns=["open", "open"])
    with pytest.raises(ValueError, match="X has several columns 'open', expected"):
        LSTMForecaster(**GIVEN).fit(y, twice)


def test_training_that_goes_on_has_the_parameters_that_it_began_with() -> None:
    model = LSTMForecaster(**{**GIVEN, "epochs": 1}).fit(wave(0, 90))
    for name, value in {"loss": "mae", "dropout": 0.5, "scaling": False}.items():
        with pytest.raises(ValueError, match=f"{name}: got {value!r}, expected .* the fit before"):
            model.set_params(**{name: value}).update(wave(90, 92), refit="continue")
        model.set_params(loss="mse", dropout=0.0, scaling=True)
    model.update(wave(90, 92), refit="continue")
