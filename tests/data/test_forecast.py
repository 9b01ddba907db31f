"""`fastlstm.data.forecast`: what follows a table, from what a network keeps of its windows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastlstm import LSTM
from fastlstm.data import forecast, load_sst, windows
from fastlstm.data.seasons import find_season
from fastlstm.optim import Adam
from fastlstm.training import Network, Trainer
from support.optional import require

pytestmark = pytest.mark.wheel


class Repeating:
    """Answers with the last row that it reads, K columns of it, and checks what it is given."""

    def __init__(self, data: Any, columns: list[int]) -> None:
        self.metadata = json.loads(json.dumps(data.describe()))
        self.columns, self.horizon = columns, data.horizon

    def predict(self, x: np.ndarray) -> np.ndarray:
        assert np.isfinite(x).all()
        last = x[:, -1, self.columns]
        return np.concatenate([last] * self.horizon, axis=1)


def table(rows: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    days = np.datetime64("2001-01-01", "us") + np.arange(rows) * np.timedelta64(1, "D")
    return {"t": days, "a": rng.normal(5, 3, rows), "b": rng.normal(-1, 9, rows)}


def test_persistence_goes_on() -> None:
    options: dict[str, Any] = {"targets": ["b", "a"], "inputs": ["a", "b"], "length": 5}
    data = windows(table(40), time="t", horizon=3, split=0.6, **options)
    found = forecast(Repeating(data, [1, 0]), table(30))
    assert found.values.shape == (1, 3, 2)
    for h in range(3):
        np.testing.assert_allclose(found.values[0, h], [table(30)["b"][-1], table(30)["a"][-1]])
    assert found.targets == ("b", "a")
    np.testing.assert_array_equal(found.time, [table(33)["t"][30:]])
    assert found.groups is None


def test_groups_and_months() -> None:
    months = (np.datetime64("2001-01") + np.arange(20)).astype("datetime64[D]")
    long: dict[str, Any] = {
        "t": np.concatenate([months, months[:15]]), "g": ["x"] * 20 + ["y"] * 15,
        "a": np.arange(35.0),
    }  # fmt: skip
    data = windows(long, targets="a", time="t", group="g", length=4, horizon=2)
    found = forecast(Repeating(data, [0]), long)
    assert found.groups == ["x", "y"]
    np.testing.assert_allclose(found.values[..., 0], [[19, 19], [34, 34]])
    expected = [["2002-09-01", "2002-10-01"], ["2002-04-01", "2002-05-01"]]
    np.testing.assert_array_equal(found.time, np.array(expected, "datetime64[us]"))


@pytest.mark.parametrize("lag", [1, 3])
def test_differences_go_on(lag: int) -> None:
    """A line has one change: repeated, it goes on as it was."""
    data = windows({"a": np.arange(40.0) * 2}, targets="a", length=4, horizon=5, difference=lag)
    found = forecast(Repeating(data, [0]), {"a": 100 + np.arange(9.0) * 2})
    np.testing.assert_allclose(found.values[0, :, 0], 100 + np.arange(9, 14) * 2.0)
    assert found.time is None


def test_known_future() -> None:
    long = table(40)
    data = windows(long, targets="a", inputs="a", future="b", time="t", length=5, horizon=3)
    later = table(33)
    later["a"][30:] = np.nan
    found = forecast(Repeating(data, [1]), later)  # repeats b of the last day that is forecast
    np.testing.assert_allclose(found.values[0, :, 0], later["b"][32])
    np.testing.assert_array_equal(found.time[0], long["t"][30:33])
    short = {name: column[:31] for name, column in later.items()}
    with pytest.raises(ValueError, match=r"1 rows follow the last target, expected 3, with .*: b$"):
        forecast(Repeating(data, [1]), short)


def test_gaps_are_filled_as_in_training() -> None:
    data = windows(table(60), targets="a", time="t", length=5, missing="mean", split=0.5)
    gap = table(30)
    gap["a"][-1] = np.nan
    found = forecast(Repeating(data, [0]), gap)
    np.testing.assert_allclose(found.values, table(60)["a"][:30].mean())
    data = windows(table(60), targets="a", time="t", length=5, missing="drop")
    with pytest.raises(ValueError, match=r"the last window lacks a value .*, in row 29"):
        forecast(Repeating(data, [0]), gap)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_a_network_in_a_file_forecasts(tmp_path: Path, suffix: str) -> None:
    if suffix == ".safetensors":
        require("safetensors")
    options: dict[str, Any] = {"targets": ["a", "b"], "time": "t", "length": 5, "horizon": 2}
    data = windows(table(60), difference=1, split=0.7, **options)
    network = data.network(LSTM(2, 4, batch_first=True, seed=0), seed=0)
    assert network.features == ("a", "b")
    assert network.targets == ("a+1", "b+1", "a+2", "b+2")
    Trainer(network, data.training, data.validation, Adam(0.01), epochs=2, seed=0).fit()
    network.save(tmp_path / f"m{suffix}")
    loaded = Network.load(tmp_path / f"m{suffix}")
    found = forecast(loaded, table(60))
    np.testing.assert_array_equal(found.values, forecast(network, table(60)).values)
    # It is what the windows say of the last one, by hand.
    levels = np.column_stack([table(60)["a"], table(60)["b"]])
    x = (np.diff(levels, axis=0)[-5:] - data.scaling.x_mean) / data.scaling.x_scale
    z = network(x[np.newaxis])[0] * data.scaling.y_scale + data.scaling.y_mean
    expected = levels[-1] + np.cumsum(z.reshape(2, 2), axis=0)
    np.testing.assert_allclose(found.values[0], expected, rtol=1e-5, atol=1e-5)
    # And predict takes and gives what is in the table, here changes of it.
    raw = windows(table(60), difference=1, scaling=False, split=0.7, **options)
    answers = network.predict(raw.x[:3]).reshape(3, 2, 2)
    by_hand = data.inverse(network(data.x[:3]), [0, 1, 2])
    np.testing.assert_allclose(raw.inverse(answers, [0, 1, 2]), by_hand, rtol=1e-5, atol=1e-5)


def test_refused() -> None:
    data = windows(table(40), targets="a", time="t", length=5)
    network = Repeating(data, [0])
    with pytest.raises(ValueError, match="frame: has 3 rows, expected at least 5 as in training"):
        forecast(network, table(3))
    with pytest.raises(ValueError, match="inputs: there is no column 'b'"):
        forecast(network, {name: table(40)[name] for name in ("t", "a")})
    weeks = table(40)
    weeks["t"] = weeks["t"][0] + np.arange(40) * np.timedelta64(7, "D")
    with pytest.raises(
        ValueError, match="time: it is 7 days from row to row, expected 1 day as in"
    ):
        forecast(network, weeks)
    network.metadata = {}
    with pytest.raises(ValueError, match="network: knows nothing of windows of a table"):
        forecast(network, table(40))
    network.metadata = data.describe()
    network.metadata["windows"]["means"] = {}
    with pytest.raises(ValueError, match="network: its metadata are damaged: KeyError"):
        forecast(network, table(40))
    network.metadata["windows"] = {"options": {}}
    with pytest.raises(ValueError, match="network: its metadata are damaged: "):
        forecast(network, table(40))


def test_a_few_months_are_months() -> None:
    months = (np.datetime64("2001-01") + np.arange(30)).astype("datetime64[us]")
    data = windows({"t": months, "a": np.arange(30.0)}, targets="a", time="t", length=2)
    found = forecast(Repeating(data, [0]), {"t": months[6:8], "a": [1.0, 2.0]})  # 31 days
    np.testing.assert_array_equal(found.time, [[np.datetime64("2001-09-01")]])


def test_seasons() -> None:
    datasets = require("statsmodels.datasets")
    rows = np.arange(300)
    noise = np.random.default_rng(0).normal(size=300)
    for values, expected in [
        (datasets.co2.load_pandas().data.co2.to_numpy(), 52),
        (load_sst().temperature, 12),
        (rows * 0.3 + noise + 3 * np.sin(rows * 2 * np.pi / 7), 7),
        (noise, None),
        (noise.cumsum(), None),
        (rows * 1.0, None),
        (np.ones(300), None),
        (noise[:5], None),
    ]:
        assert find_season(values) == expected


def test_times_of_fractions_may_begin_anywhere() -> None:
    """The distance of 0.1 is rounded in another way between later rows."""
    rows = {"t": np.arange(100) * 0.1, "v": np.sin(np.arange(100) / 3)}
    data = windows(rows, targets="v", time="t", length=10, horizon=2)
    network = Repeating(data, [0])
    for first in (0, 3, 50, 71):
        found = forecast(network, {name: column[first:] for name, column in rows.items()})  # type: ignore[arg-type]
        np.testing.assert_allclose(found.time, [[10.0, 10.1]])
    other = {"t": np.arange(100) * 0.1001, "v": rows["v"]}
    with pytest.raises(ValueError, match="as in training"):
        forecast(network, other)  # type: ignore[arg-type]
