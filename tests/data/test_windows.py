"""`fastlstm.data.windows`: which windows there are, what they hold, and nothing of the future."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastlstm import LSTM
from fastlstm.data import Windows, windows
from fastlstm.optim import Adam
from fastlstm.training import Trainer

pytestmark = pytest.mark.wheel

NAN = float("nan")


def columns(rows: int, seed: int = 0) -> dict[str, Any]:
    """A table of two columns."""
    rng = np.random.default_rng(seed)
    return {"a": rng.normal(5, 3, rows), "b": rng.normal(-1, 9, rows)}


def series(rows: int, seed: int = 0) -> dict[str, Any]:
    """The same with days."""
    return columns(rows, seed) | {"day": np.datetime64("2001-01-01") + np.arange(rows)}


def plain_windows(
    groups: list[Any], length: int, horizon: int, step: int, missing: np.ndarray
) -> list[int]:
    """Where windows begin that lack nothing, by a loop over rows that lie in order of groups."""
    found = []
    for group in dict.fromkeys(groups):
        rows = [row for row, name in enumerate(groups) if name == group]
        for first in range(0, len(rows), step):
            window = rows[first : first + length + horizon]
            if len(window) == length + horizon and not any(missing[row] for row in window):
                found.append(rows[first])
    return found


@given(
    sizes=st.lists(st.integers(6, 15), min_size=1, max_size=4),
    length=st.integers(1, 4),
    horizon=st.integers(1, 2),
    step=st.integers(1, 5),
    missing=st.sets(st.integers(0, 59), max_size=6),
)
@settings(deadline=None, max_examples=150)
def test_windows_are_those_of_a_plain_loop(
    sizes: list[int], length: int, horizon: int, step: int, missing: set[int]
) -> None:
    groups = [f"g{i}" for i, size in enumerate(sizes) for _ in range(size)]
    rows = len(groups)
    table: dict[str, Any] = {**columns(rows), "group": groups}
    gaps = np.isin(np.arange(rows), list(missing))
    table["a"][gaps] = np.nan
    options: dict[str, Any] = {
        "length": length, "horizon": horizon, "step": step, "group": "group", "missing": "drop",
    }  # fmt: skip
    expected = plain_windows(groups, length, horizon, step, gaps)
    # A group without a number is refused, as is a table without a window.
    empty = any(gaps[np.array(groups) == name].all() for name in groups)
    if not expected or empty:
        with pytest.raises(ValueError, match="frame: "):
            windows(table, targets=["a"], inputs=["b", "a"], scaling=False, **options)
        return
    data = windows(table, targets=["a"], inputs=["b", "a"], scaling=False, **options)
    assert data.starts.tolist() == expected
    assert data.group is not None
    both = np.column_stack([table["b"], table["a"]])
    for i, start in enumerate(expected):
        between = start + length
        np.testing.assert_array_equal(data.x[i], both[start:between])
        np.testing.assert_array_equal(data.y[i], both[between : between + horizon, 1:])
        assert data.group[i] == groups[start]
    x, y, weights = data.training.batch(slice(None))
    np.testing.assert_array_equal(x, data.x)
    np.testing.assert_array_equal(y, data.y.reshape(len(data), -1))
    assert weights is None


def test_nothing_is_copied() -> None:
    data = windows(columns(500), targets=["b", "a"], length=50, horizon=7, split=0.8)
    assert data.x.shape == (444, 50, 2)
    assert np.shares_memory(data.x, data.training.x)
    assert np.shares_memory(data.y, data.training.y)
    assert np.shares_memory(data.training.x, data.validation.x)
    # One array (500, 2), whatever the windows add up to.
    assert data.x.base is not None
    assert data.x.strides == (16, 16, 8)
    assert data.y.strides == (16, 16, 8)


def test_times_of_targets() -> None:
    data = windows(series(30), targets="a", time="day", length=4, horizon=3, step=2)
    assert data.features == ("a", "b")
    assert data.targets == ("a",)
    assert data.time.shape == (len(data), 3)
    days = series(30)["day"].astype("datetime64[us]")
    for i, start in enumerate(data.starts):
        np.testing.assert_array_equal(data.time[i], days[start + 4 : start + 7])
    assert windows(columns(30), targets="a", length=4).time is None


def test_rows_of_groups_may_alternate() -> None:
    one, other = series(20, seed=1), series(20, seed=2)
    mixed = {name: np.stack([one[name], other[name]], axis=1).reshape(-1) for name in one}
    mixed["station"] = np.tile(["x", "y"], 20)
    options: dict[str, Any] = {"targets": "a", "time": "day", "length": 5, "scaling": False}
    data = windows(mixed, group="station", **options)
    for name, table in {"x": one, "y": other}.items():
        alone = windows(table, **options)
        np.testing.assert_array_equal(data.x[data.group == name], alone.x)
        np.testing.assert_array_equal(data.y[data.group == name], alone.y)
        np.testing.assert_array_equal(data.time[data.group == name], alone.time)


# No leak from the future


def first_row_seen(data: Windows, rows: np.ndarray, cut: int) -> bool:
    """Whether the windows at rows have an answer, or an input, at the cut or later."""
    ends = data.starts[rows] + data.length + data.horizon
    return bool((ends > cut).any())


@pytest.mark.parametrize("split", [0.7, "2001-02-05", np.datetime64("2001-02-05")])
def test_no_window_reaches_over_the_split(split: Any) -> None:
    data = windows(series(50), targets="a", time="day", length=6, horizon=4, split=split)
    cut = 35
    assert not first_row_seen(data, data.training_rows, cut)
    answers = data.starts[data.validation_rows] + data.length
    assert answers.min() == cut  # inputs may be older, answers may not
    assert len(data.training_rows) + len(data.validation_rows) == len(data) - 3
    early, late = data.time[data.training_rows], data.time[data.validation_rows]
    assert early.max() < np.datetime64("2001-02-05") <= late.min()


@pytest.mark.parametrize("split", [2001, np.int64(2001), "2001"])
def test_a_year_as_a_split_is_its_first_day(split: Any) -> None:
    table = series(50)
    table["day"] = np.datetime64("2000-12-10") + np.arange(50)
    given = {"targets": "a", "time": "day", "length": 6, "horizon": 4}
    data = windows(table, **given, split=split)
    expected = windows(table, **given, split="2001-01-01")
    assert np.array_equal(data.training_rows, expected.training_rows)
    with pytest.raises(ValueError, match="split: got 2002, expected a time from 2000-12-10"):
        windows(table, **given, split=2002)


def test_a_second_split_is_for_a_test() -> None:
    data = windows(series(50), targets="a", time="day", length=6, horizon=4, split=(0.6, 0.8))
    same = windows(
        series(50), targets="a", time="day", length=6, horizon=4, split=("2001-01-31", "2001-02-10")
    )
    ends = data.starts + 10
    np.testing.assert_array_equal(data.training_rows, np.flatnonzero(ends <= 30))
    np.testing.assert_array_equal(
        data.validation_rows, np.flatnonzero((ends - 4 >= 30) & (ends <= 40))
    )
    np.testing.assert_array_equal(data.test_rows, np.flatnonzero(ends - 4 >= 40))
    np.testing.assert_array_equal(data.test.batch(slice(None))[0], data.x[data.test_rows])
    for name in ("training_rows", "validation_rows", "test_rows"):
        np.testing.assert_array_equal(getattr(data, name), getattr(same, name))
    assert repr(data.scaling.x_mean) == repr(same.scaling.x_mean)
    one = windows(series(50), targets="a", time="day", length=6, horizon=4, split=0.6)
    assert one.test is None
    assert not len(one.test_rows)
    assert len(one.validation) > len(data.validation) + len(data.test)


def test_groups_are_cut_at_the_same_time() -> None:
    first, second = series(40), series(40)
    second["day"] = second["day"] + 20
    table = {name: np.concatenate([first[name], second[name]]) for name in first}
    table["g"] = np.repeat([1, 2], 40)
    data = windows(table, targets="a", time="day", group="g", length=3, split=0.5)
    cut = np.datetime64("2001-01-31")
    assert data.time[data.training_rows].max() < cut <= data.time[data.validation_rows].min()
    assert set(data.group[data.training_rows]) == {1, 2}
    # Without times each is cut at its own share.
    data = windows(table, targets="a", inputs="a", group="g", length=3, split=0.5)
    assert (data.starts[data.training_rows] + 3).max() == 40 + 19


@pytest.mark.parametrize("missing", ["drop", "ffill", "interpolate", "mean"])
@pytest.mark.parametrize("difference", [0, 1, 7])
@pytest.mark.parametrize("resample", [None, "2D"])
@pytest.mark.parametrize("gap", [-4, 1])
def test_a_planted_leak_is_found(
    missing: str, difference: int, resample: str | None, gap: int
) -> None:
    """Change all that is behind the split: nothing that training sees may change a bit."""
    options: dict[str, Any] = {
        "targets": "a", "inputs": ["a", "b"], "future": "c", "time": "day", "length": 6,
        "horizon": 3, "split": "2001-05-11", "missing": missing, "indicator": True,
        "difference": difference, "resample": resample,
    }  # fmt: skip
    table = series(200)
    cut = 130
    table["c"] = series(200, seed=3)["a"]
    for start in (20, 60, cut + gap, cut + 12):  # the third may reach over the split
        table["a"][start : start + 6] = np.nan
        table["b"][start + 1 : start + 8] = np.nan
    table["c"][cut - 2 : cut + 1] = np.nan
    data = windows(table, **options)
    other = {name: column.copy() for name, column in table.items()}
    for name in ("a", "b", "c"):
        known = ~np.isnan(other[name])
        known[:cut] = False
        other[name][known] = 1000 + np.arange(known.sum())
    changed = windows(other, **options)
    for mine, others in zip(
        data.training.batch(slice(None)), changed.training.batch(slice(None)), strict=True
    ):
        if mine is not None:
            assert mine.tobytes() == others.tobytes()
    for name, value in vars(data.scaling).items():
        assert repr(value) == repr(getattr(changed.scaling, name))
    assert data.validation.batch(slice(None))[0].tobytes() != (
        changed.validation.batch(slice(None))[0].tobytes()
    )


@pytest.mark.parametrize("missing", ["ffill", "interpolate", "mean", "drop"])
@pytest.mark.parametrize("difference", [0, 2])
def test_no_window_reads_what_it_is_to_answer(missing: str, difference: int) -> None:
    """Change all rows from the first answer on: the inputs of that window must stay."""
    options: dict[str, Any] = {
        "targets": "a", "inputs": ["a", "b"], "length": 5, "horizon": 2, "missing": missing,
        "difference": difference, "scaling": False,
    }  # fmt: skip
    table = columns(60)
    for start in (11, 30, 44):
        table["a"][start : start + 3] = np.nan
        table["b"][start + 2 : start + 4] = np.nan
    if missing == "mean":  # the mean of training is known everywhere: keep it as it is
        options |= {"split": 0.15}
    data = windows(table, **options)
    for i, start in enumerate(data.starts):
        origin = int(start) + data.length
        other = {name: column.copy() for name, column in table.items()}
        for name in ("a", "b"):
            other[name][origin:] += 100
            if missing == "mean":
                other[name][: round(0.15 * 60)] = table[name][: round(0.15 * 60)]
        if missing == "mean" and origin < 9:
            continue
        changed = windows(other, **options)
        (j,) = np.flatnonzero(changed.starts == start)
        assert data.x[i].tobytes() == changed.x[j].tobytes()


def test_scaling_is_of_training_alone() -> None:
    table = columns(100)
    data = windows(table, targets="b", length=5, horizon=2, split=0.6)
    early = np.column_stack([table["a"], table["b"]])[:60]
    np.testing.assert_allclose(data.scaling.x_mean, early.mean(axis=0))
    np.testing.assert_allclose(data.scaling.x_scale, early.std(axis=0))
    np.testing.assert_allclose(data.scaling.y_mean, early[:, 1].mean())
    np.testing.assert_allclose(data.inverse(data.y)[3], table["b"][8:10, None])
    np.testing.assert_allclose(data.inverse(data.y.reshape(len(data), -1)), data.inverse(data.y))
    np.testing.assert_allclose(
        data.x[7],
        ((np.column_stack([table["a"], table["b"]])[7:12]) - early.mean(0)) / early.std(0),
    )
    constant = windows({**table, "a": np.full(100, 0.1)}, targets="b", length=5)
    assert constant.scaling.x_scale[0] == 1
    assert not constant.x[..., 0].any()


# Missing values


def test_missing_values_are_filled_as_asked() -> None:
    a = np.array([NAN, 1, NAN, NAN, 4, 5, NAN, 7, 8, 9, 10, NAN])
    table = {"a": a, "b": np.arange(12.0)}
    options: dict[str, Any] = {"targets": "b", "inputs": "a", "length": 1, "scaling": False}

    def read(missing: str) -> dict[int, float]:
        data = windows(table, missing=missing, **options)
        return dict(zip(data.starts.tolist(), data.x[:, 0, 0].tolist(), strict=True))

    known = {1: 1, 4: 4, 5: 5, 7: 7, 8: 8, 9: 9, 10: 10}
    assert read("drop") == known
    assert read("ffill") == known | {2: 1, 3: 1, 6: 5}
    assert read("interpolate") == known  # they end where they would have looked ahead
    mean = 44 / 7
    assert read("mean") == known | {0: mean, 2: mean, 3: mean, 6: mean}
    data = windows(table, missing="interpolate", **{**options, "length": 4})
    np.testing.assert_array_equal(data.x[0, :, 0], [1, 2, 3, 4])
    data = windows(table, missing="ffill", indicator=True, **options)
    assert data.features == ("a", "a missing")
    np.testing.assert_array_equal(data.x[:, 0, 1], [0, 1, 1, 0, 0, 1, 0, 0, 0, 0])
    with pytest.raises(ValueError, match=r"column 'a' has no value in row 0, and in 4 more; miss"):
        windows(table, **options)


def test_targets_are_never_made_up() -> None:
    a = np.array([1, 2, 3, NAN, 5, 6, 7, 8.0])
    data = windows({"a": a}, targets="a", length=2, horizon=1, missing="ffill", scaling=False)
    assert data.starts.tolist() == [0, 2, 3, 4, 5]
    np.testing.assert_array_equal(data.x[1, :, 0], [3, 3])


# Future inputs, differences


def test_future_inputs_are_read_ahead() -> None:
    a, price = np.arange(12.0), np.arange(100.0, 112.0)
    table = {"a": np.where(np.arange(12) < 9, a, NAN), "price": price}
    data = windows(table, targets="a", future="price", length=4, horizon=3, scaling=False)
    assert data.features == ("a", "price+3")
    assert data.starts.tolist() == [0, 1, 2]  # three rows are of the future
    np.testing.assert_array_equal(data.x[2], [[2, 105], [3, 106], [4, 107], [5, 108]])
    np.testing.assert_array_equal(data.y[2, :, 0], [6, 7, 8])
    with pytest.raises(ValueError, match="length: got 2, expected at least the horizon, 3"):
        windows(table, targets="a", future="price", length=2, horizon=3)


@pytest.mark.parametrize("lag", [1, 2, 3, 9])
def test_differences_are_added_up_again(lag: int) -> None:
    table = columns(40)
    data = windows(table, targets=["b", "a"], inputs="b", length=4, horizon=3, difference=lag)
    levels = np.column_stack([table["b"], table["a"]])
    assert data.starts.tolist() == list(range(lag, 40 - 6))
    np.testing.assert_allclose(data.inverse(data.y)[5], levels[lag + 9 : lag + 12])
    raw = windows(
        table, targets=["b", "a"], inputs="b", length=4, horizon=3, difference=lag, scaling=False
    )
    expected = table["b"][lag + 5 : lag + 9] - table["b"][5:9]
    np.testing.assert_allclose(raw.x[5, :, 0], expected)
    np.testing.assert_allclose(data.inverse(data.y[2:4], [2, 3]), data.inverse(data.y)[2:4])


def test_naive_forecasts() -> None:
    table = {"a": np.arange(30.0)}
    data = windows(table, targets="a", length=4, horizon=3)
    np.testing.assert_array_equal(data.last_known()[2, :, 0], [5, 5, 5])
    np.testing.assert_array_equal(data.last_known(2)[2, :, 0], [4, 5, 4])
    moved = {"a": np.arange(30.0) % 4 + np.arange(30)}
    data = windows(moved, targets="a", length=4, horizon=7)
    np.testing.assert_array_equal(
        data.last_known(4, [5, 8], moved=True)[:, :4], data.inverse(data.y)[[5, 8], :4]
    )
    data = windows(table, targets="a", length=4, horizon=3)
    np.testing.assert_array_equal(data.last_known(6, [0, 9])[:, :, 0], [[NAN] * 2 + [0], [7, 8, 9]])


# A network learns from them


def test_a_network_learns_a_season() -> None:
    rows = np.arange(300)
    table = {"level": 50 + 10 * np.sin(rows * 2 * np.pi / 12)}
    data = windows(table, targets="level", length=12, horizon=6, split=0.8)
    network = data.network(LSTM(1, 8, batch_first=True, seed=0), seed=0)
    trainer = Trainer(network, data.training, data.validation, Adam(0.02), epochs=20, seed=0)
    trainer.fit()
    rows = data.validation_rows
    answers = data.inverse(network(data.x[rows]), rows)
    error = np.abs(answers - data.inverse(data.y[rows], rows)).mean()
    assert error < 0.2 * np.abs(data.last_known(1, rows) - data.inverse(data.y[rows], rows)).mean()


@pytest.mark.parametrize("difference", [0, 1])
def test_what_is_not_read_knows_nothing_of_the_future(difference: int) -> None:
    """A target that is not read has a gap before an answer, and a line through the gap knows it."""
    values, rng = np.arange(60.0), np.random.default_rng(0)
    values[30:36] = NAN
    read = rng.normal(size=60)

    def bases(behind: float) -> Any:
        target = np.where(np.arange(60) < 36, values, behind)
        data = windows(
            {"v": target, "g": read}, targets="v", inputs="g", length=5,
            difference=difference, missing="interpolate",
        )  # fmt: skip
        early = np.flatnonzero(data.starts + 5 <= 36)
        return data.starts[early], data.last_known(1, early)

    (starts, known), (again, others) = bases(100.0), bases(500.0)
    np.testing.assert_array_equal(starts, again)
    np.testing.assert_array_equal(known, others)
    assert not {26, 27, 31} & set(starts.tolist())  # they would begin to forecast inside the gap
