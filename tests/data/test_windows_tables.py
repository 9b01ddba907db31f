"""`fastlstm.data.windows`: tables of other libraries, times, resampling, and what is refused."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from fastlstm.data import windows
from fastlstm.data.times import AGGREGATES
from support.optional import require

ROWS = 24
DAYS = np.datetime64("2001-01-01", "us") + np.arange(ROWS) * np.timedelta64(1, "D")


def columns() -> dict[str, Any]:
    rng = np.random.default_rng(1)
    return {
        "day": DAYS,
        "level": rng.normal(size=ROWS),
        "count": np.arange(ROWS),
        "open": np.arange(ROWS) % 3 == 0,
        "place": ["x", "y"] * (ROWS // 2),
    }


def gappy() -> dict[str, list[Any]]:
    lists = {name: list(values) for name, values in columns().items()}
    lists["day"] = DAYS.tolist()
    lists["count"] = [None if i in (3, 9) else i for i in range(ROWS)]
    return lists


def pandas_frame(dtypes: Any = None) -> Any:
    return require("pandas").DataFrame(gappy()).astype(dtypes or {})


def arrow_table() -> Any:
    return require("pyarrow").table(gappy())


FRAMES: dict[str, Callable[[], Any]] = {
    "pandas": pandas_frame,
    "pandas, nullable": lambda: pandas_frame({"count": "Int64", "open": "boolean"}),
    "pandas, objects": lambda: pandas_frame({"count": object, "place": object}),
    "pandas, categories": lambda: pandas_frame({"place": "category"}),
    "pandas, arrow": lambda: (require("pyarrow"), pandas_frame({"count": "int64[pyarrow]"}))[1],
    "polars": lambda: require("polars").DataFrame(gappy()),
    "polars, categories": lambda: require("polars").DataFrame(
        gappy(), schema_overrides={"place": require("polars").Categorical}
    ),
    "pyarrow": arrow_table,
    "mapping": gappy,
    "mapping of decimals": lambda: gappy() | {"level": [Decimal(x) for x in gappy()["level"]]},
}


@pytest.mark.parametrize("kind", FRAMES)
def test_all_tables_give_the_same(kind: str) -> None:
    expected = columns()
    expected["count"] = np.where(np.isin(np.arange(ROWS), [3, 9]), np.nan, np.arange(ROWS))
    options: dict[str, Any] = {
        "targets": "level", "length": 3, "horizon": 2, "group": "place", "time": "day",
        "missing": "ffill", "split": "2001-01-15",
    }  # fmt: skip
    mine, other = windows(expected, **options), windows(FRAMES[kind](), **options)
    assert other.features == ("level", "count", "open")
    assert mine.x.tobytes() == other.x.tobytes()
    assert mine.y.tobytes() == other.y.tobytes()
    assert mine.time.tolist() == other.time.tolist()
    assert mine.group.tolist() == other.group.tolist()
    assert mine.validation_rows.tolist() == other.validation_rows.tolist()


def test_arrays() -> None:
    array = np.random.default_rng(2).normal(size=(20, 3))
    options: dict[str, Any] = {"length": 3, "scaling": False}
    data = windows(array, targets=[0, 2], inputs=1, **options)
    np.testing.assert_array_equal(data.x[4, :, 0], array[4:7, 1])
    np.testing.assert_array_equal(data.y[4, 0], array[7, [0, 2]])
    assert data.targets == ("0", "2")
    structured = np.rec.fromarrays(array.T, names="a,b,c")
    data = windows(structured, targets="a", **options)
    assert data.features == ("a", "b", "c")
    np.testing.assert_array_equal(data.x[4], array[4:7])
    np.testing.assert_array_equal(
        windows(array[:, 0], targets=0, **options).x[4, :, 0], array[4:7, 0]
    )


@pytest.mark.parametrize("form", ["%Y%m%d", "%Y%m%dT%H%M", "%Y-%m-%dT%HZ", " %Y-%m-%d"])
@pytest.mark.parametrize("kind", ["U", "S", "O"])
def test_times_in_other_forms_of_iso_8601(form: str, kind: str) -> None:
    """NumPy alone takes "20010101" for a year."""
    texts = np.array([day.strftime(form) for day in DAYS.tolist()], kind)
    data = windows(change(day=texts), targets="level", inputs="level", length=3, time="day")
    np.testing.assert_array_equal(data.time, DAYS[3:, np.newaxis])


@pytest.mark.parametrize("structured", [False, True])
def test_what_masked_arrays_hide_is_missing(structured: bool) -> None:
    mask = np.isin(np.arange(ROWS), (3, 9))
    count = np.arange(ROWS)
    plain = {"level": columns()["level"], "count": np.where(mask, np.nan, count)}
    frame: Any = plain | {"count": np.ma.masked_array(count, mask)}
    if structured:
        frame = np.ma.zeros(ROWS, [("level", "f8"), ("count", "i8")])
        frame["level"], frame["count"] = plain["level"], np.ma.masked_array(count, mask)
    options: dict[str, Any] = {"targets": "level", "length": 3}
    with pytest.raises(ValueError, match="frame: column 'count' has no value in row 3"):
        windows(frame, **options)
    data, expected = (windows(each, **options, missing="ffill") for each in (frame, plain))
    np.testing.assert_array_equal(data.x, expected.x)
    labels = np.ma.masked_array(columns()["place"], mask)
    with pytest.raises(ValueError, match="group: column 'place' has no value in row 3"):
        windows(plain | {"place": labels}, targets="level", length=3, group="place")


def test_groups_may_be_dates() -> None:
    days = np.repeat(np.array(["2001-01-01", "2001-01-02"], "datetime64[ns]"), ROWS // 2)
    frame = {"level": columns()["level"], "day": days}
    data = windows(frame, targets="level", length=3, group="day")
    assert data.group is not None
    assert set(data.group) == set(days.astype("datetime64[us]").tolist())


def test_all_other_columns_are_inputs() -> None:
    table = {"None": np.arange(9.0), "a": np.arange(9.0), "t": np.arange(9)}
    assert windows(table, targets="a", length=3).features == ("None", "a", "t")
    assert windows(table, targets="a", time="t", length=3).features == ("None", "a")
    assert windows(table, targets="a", future="t", length=3).features == ("None", "a", "t+1")


# Times


def test_times_of_pandas() -> None:
    pandas = require("pandas")
    options: dict[str, Any] = {"targets": "level", "inputs": "level", "length": 3}
    frame = pandas.DataFrame(columns())
    expected = windows(frame, time="day", **options).time.tolist()
    assert windows(frame.set_index("day"), **options).time.tolist() == expected
    assert windows(frame.set_index("day"), time="day", **options).time.tolist() == expected
    assert windows(frame.assign(day=frame.day.dt.to_period("D")), time="day", **options).time.tolist() == expected  # fmt: skip  # noqa: E501
    assert windows(frame, **options).time is None
    zone = frame.assign(
        day=pandas.date_range("2001-03-24", periods=ROWS, tz="Europe/Berlin", freq="h")
    )
    hours = windows(zone, time="day", **options).time
    assert hours[0, 0] == np.datetime64("2001-03-24T02:00")  # 03:00 in Berlin


@pytest.mark.parametrize("made", [str, datetime.datetime.fromisoformat])
def test_days_of_summer_time_are_told_of(made: Any) -> None:
    days = [f"2024-03-{day}T00:00:00+01:00" for day in (29, 30, 31)]
    days += [f"2024-04-0{day}T00:00:00+02:00" for day in (1, 2)]
    given: dict[str, Any] = {"targets": "level", "length": 2, "time": "day"}
    table = {"day": [made(day) for day in days], "level": range(5)}
    with pytest.raises(ValueError, match=r"23 hours, expected 1 day .*; days of a zone"):
        windows(table, **given)
    assert len(windows({**table, "day": [made(day[:19]) for day in days]}, **given)) == 3
    days[3] = "2024-04-01T05:00:00+02:00"  # that is something else
    with pytest.raises(ValueError, match="resample= makes them even"):
        windows({**table, "day": [made(day) for day in days]}, **given)


@pytest.mark.parametrize("day", ["01", "28", "end"])
def test_months_that_are_left_out_are_told_of_in_months(day: str) -> None:
    months = np.datetime64("2001-01") + np.delete(np.arange(40), [20, 21])
    days: Any = [f"{each}-{day}" for each in months]
    if day == "end":
        days = (months + 1).astype("datetime64[D]") - 1
    table = {"month": days, "level": range(38)}
    message = r"from 2002-08-\d\d to 2002-11-\d\d in row 20 it is 3 months, expected 1 month as "
    with pytest.raises(ValueError, match=message):
        windows(table, targets="level", length=2, time="month")


def test_times_of_polars() -> None:
    polars = require("polars")
    frame = polars.DataFrame(columns())
    options: dict[str, Any] = {"targets": "level", "inputs": "level", "length": 3, "time": "day"}
    expected = windows(columns(), **options).time.tolist()
    assert windows(frame, **options).time.tolist() == expected
    dates = frame.with_columns(polars.col("day").cast(polars.Date))
    assert windows(dates, **options).time.tolist() == expected
    zone = frame.with_columns(polars.col("day").dt.replace_time_zone("America/New_York"))
    assert windows(zone, **options).time[0, 0] == np.datetime64("2001-01-04T05:00")


@pytest.mark.parametrize(
    "times",
    [
        np.datetime64("2001-01-31", "D") + np.arange(ROWS) * 7,
        [datetime.date(2001, 1, 1) + datetime.timedelta(days=2 * i) for i in range(ROWS)],
        [f"2001-01-01T{i:02}:30" for i in range(ROWS)],
        (np.datetime64("2000-11", "M") + np.arange(ROWS)).astype("datetime64[D]"),
        (np.datetime64("2000-11", "M") + np.arange(ROWS)).astype("datetime64[D]") - 1,  # ends
        (np.datetime64("1990", "Y") + np.arange(ROWS)).astype("datetime64[D]") + 45,
        np.arange(ROWS) * 3,
        np.arange(ROWS) * 0.1,
    ],
)
def test_times_at_equal_distances(times: Any) -> None:
    data = windows(
        columns() | {"day": times}, targets="level", inputs="level", time="day", length=3
    )
    assert len(data) == ROWS - 3
    whole = np.array(times)
    whole = whole.astype("datetime64[us]") if whole.dtype.kind in "MOU" else whole
    np.testing.assert_array_equal(data.time[:, 0], whole[3:])
    # They go on as they came.
    step, panel = data._panel.step, data._panel
    np.testing.assert_allclose(
        step.after(panel.time[3:4], ROWS - 4)[0].astype(float), whole[4:].astype(float)
    )


# Resampling


@pytest.mark.parametrize("how", AGGREGATES)
@pytest.mark.parametrize(
    ("rule", "theirs"),
    [
        ("D", {"rule": "D"}),
        ("6h", {"rule": "6h"}),
        ("15min", {"rule": "15min"}),
        ("W", {"rule": "W-SUN", "closed": "right", "label": "right"}),
        ("M", {"rule": "MS"}),
        ("Q", {"rule": "QS"}),
        ("Y", {"rule": "YS"}),
    ],
)
def test_resampling_is_that_of_pandas(how: str, rule: str, theirs: dict[str, str]) -> None:
    pandas = require("pandas")
    rng = np.random.default_rng(3)
    spread = {"15min": 1, "6h": 8, "D": 30, "W": 300, "M": 900, "Q": 3000, "Y": 9000}[rule]
    seconds = np.sort(rng.choice(86400 * spread, 120, replace=False))
    times = np.datetime64("1999-12-30T05:00", "us") + seconds * np.timedelta64(1, "s")
    values = np.where(rng.random(120) < 0.2, np.nan, rng.normal(size=120))
    table = {"v": values, "w": np.arange(120.0), "t": times}
    options = {"min_count": 1} if how == "sum" else {}
    resampled = getattr(pandas.Series(values, times).resample(**theirs), how)(**options)
    data = windows(
        table, targets="w", inputs="v", time="t", length=1, resample=rule, aggregate=how,
        missing="drop",
    )  # fmt: skip
    panel = data._panel
    np.testing.assert_allclose(panel.values["v"], resampled.to_numpy())
    if rule != "W":  # its label is the end of a week there, the beginning here
        np.testing.assert_array_equal(panel.time, resampled.index.to_numpy())
    else:
        days = np.timedelta64(6, "D")
        np.testing.assert_array_equal(panel.time + days, resampled.index.to_numpy())


@pytest.mark.parametrize(
    ("rule", "every"), [("2D", "2d"), ("3M", "3mo"), ("W", "1w"), ("4h", "4h")]
)
def test_resampling_is_that_of_polars(rule: str, every: str) -> None:
    polars = require("polars")
    rng = np.random.default_rng(4)
    hours = np.sort(rng.choice(24 * (40 if rule != "3M" else 900), 150, replace=False))
    times = np.datetime64("2001-02-03", "us") + hours * np.timedelta64(1, "h")
    table = {"v": rng.normal(size=150), "t": times}
    grouped = polars.DataFrame(table).group_by_dynamic("t", every=every).agg(polars.mean("v"))
    data = windows(table, targets="v", time="t", length=1, resample=rule, missing="drop")
    known = ~np.isnan(data._panel.values["v"])
    np.testing.assert_array_equal(data._panel.time[known], grouped["t"].to_numpy())
    np.testing.assert_allclose(data._panel.values["v"][known], grouped["v"].to_numpy())


def test_resampling_by_column_and_group() -> None:
    times = np.datetime64("2001-01-01", "us") + np.array([0, 1, 30, 49, 20, 21, 100]) * np.timedelta64(1, "h")  # fmt: skip  # noqa: E501
    table = {"t": times, "g": list("aaaabbb"), "v": np.arange(7.0), "w": np.arange(7.0)}
    data = windows(
        table, targets="v", time="t", group="g", length=1, resample="D", missing="drop",
        aggregate={"v": "sum", "w": "last"},
    )  # fmt: skip
    assert data._panel.bounds.tolist() == [0, 3, 8]
    np.testing.assert_array_equal(data._panel.values["v"], [1, 2, 3, 9, *[np.nan] * 3, 6])
    np.testing.assert_array_equal(data._panel.values["w"], [1, 2, 3, 5, *[np.nan] * 3, 6])


# What is refused


def change(**changed: Any) -> dict[str, Any]:
    return columns() | changed


def with_text(row: int, text: Any) -> list[Any]:
    values: list[Any] = list(np.arange(float(ROWS)))
    values[row] = text
    return values


def shuffled_days(*order: int) -> Any:
    days = DAYS.copy()
    days[list(order)] = DAYS[list(order)[::-1]]
    return days


LEVEL: dict[str, Any] = {"targets": "level", "inputs": "level", "length": 3}
TIMED: dict[str, Any] = LEVEL | {"time": "day"}

REFUSED: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
    (columns(), LEVEL | {"targets": "levels"}, ValueError,
     "targets: there is no column 'levels', there are 'day', 'level', 'count', 'open', 'place'"),
    (columns(), LEVEL | {"inputs": ["level", "x"]}, ValueError, "inputs: there is no column 'x'"),
    (columns(), LEVEL | {"group": "x"}, ValueError, "group: there is no column 'x'"),
    (columns(), LEVEL | {"time": "x"}, ValueError, "time: there is no column 'x'"),
    (columns(), LEVEL | {"inputs": "place"}, TypeError,
     "inputs: column 'place' is 'x' in row 0, expected numbers"),
    (change(count=with_text(17, "n/a")), LEVEL | {"inputs": "count"}, TypeError,
     "inputs: column 'count' is 'n/a' in row 17, expected numbers"),
    (change(count=[str(i) for i in range(ROWS)]), LEVEL | {"inputs": "count"}, TypeError,
     "inputs: column 'count' holds text, such as '0' in row 0, expected numbers"),
    (columns(), LEVEL | {"inputs": "day"}, TypeError, "; time='day' takes it for the time"),
    (change(level=with_text(5, np.inf)), LEVEL, ValueError,
     "targets: column 'level' is inf in row 5, expected finite numbers"),
    (change(level=with_text(5, np.nan)), LEVEL, ValueError,
     "frame: column 'level' has no value in row 5; missing="),
    (change(level=[np.nan] * ROWS), LEVEL | {"missing": "ffill"}, ValueError,
     "frame: column 'level' is empty, expected numbers in it"),
    (change(level=np.where(np.arange(ROWS) % 2, np.nan, 1.0)),
     LEVEL | {"missing": "ffill", "group": "place"}, ValueError,
     "frame: column 'level' of group 'y' is empty"),
    (columns(), LEVEL | {"length": 24}, ValueError,
     "length: a window takes 25 rows (length 24, horizon 1), but there are 24"),
    (columns(), LEVEL | {"length": 12, "group": "place"}, ValueError,
     "but group 'x' has 12; groups that are too short: 2 of 2, 'x', 'y'"),
    (change(place=with_text(3, None)), LEVEL | {"group": "place"}, ValueError,
     "group: column 'place' has no value in row 3"),
    (change(day=shuffled_days(4, 5)), TIMED, ValueError,
     "time: 2001-01-05 in row 5 comes after 2001-01-06 in row 4, expected rows in the order of"),
    (change(day=DAYS[[0, 0, *range(1, ROWS - 1)]]), TIMED, ValueError,
     "time: 2001-01-01 is in row 0 and again in row 1, expected each time once, or group="),
    (change(day=DAYS[[0, 0, *range(1, ROWS - 1)]], place=["x"] * ROWS), TIMED | {"group": "place"},
     ValueError, "again in row 1 of group 'x', expected each time once"),
    (change(day=np.where(np.arange(ROWS) < 9, DAYS, DAYS + np.timedelta64(12, "h"))), TIMED,
     ValueError, "time: from 2001-01-09 to 2001-01-10T12:00 in row 9 it is 36 hours, expected 1 d"),
    (change(day=["2001-01-01"] * 7 + ["soon"] * 17), TIMED, ValueError,
     "time: column 'day' is 'soon' in row 7, expected times as of ISO 8601"),
    *(
        (change(day=[*DAYS.astype("datetime64[D]").astype(str)[:7], text, *["2001-02-01"] * 16]),
         TIMED, ValueError, f"time: column 'day' is {text!r} in row 7, expected times as of ISO")
        for text in ("", "NaT", "today", "now", "200102", "2001-1-8")
    ),
    (change(day=[*DAYS[:4].tolist(), np.datetime64("NaT"), *DAYS[5:].tolist()]), TIMED,
     ValueError, "time: column 'day' has no time in row 4"),
    (change(day=np.arange(ROWS, dtype=np.uint64) + 2**63), TIMED, ValueError,
     "time: column 'day' is 9223372036854775808 in row 0, expected numbers below 2**63"),
    (change(day=with_text(4, None)), TIMED, ValueError, "time: column 'day' has no time in row 4"),
    (columns(), LEVEL | {"time": "open"}, TypeError, "time: column 'open' holds bool, exp"),
    (columns(), LEVEL | {"resample": "D"}, ValueError, "resample: needs time="),
    (columns(), TIMED | {"resample": "fortnight"}, ValueError, "resample: got 'fortnight', exp"),
    (columns(), LEVEL | {"time": "count", "resample": "D"}, TypeError, "resample: the times are"),
    (columns(), LEVEL | {"aggregate": "sum"}, ValueError, "aggregate: needs resample="),
    (columns(), TIMED | {"resample": "D", "aggregate": "mode"}, ValueError, "aggregate: got 'mod"),
    (columns(), TIMED | {"resample": "D", "aggregate": {"x": "sum"}}, ValueError,
     "aggregate: 'x' is no column that is read"),
    (columns(), LEVEL | {"missing": "zero"}, ValueError, "missing: got 'zero', expected one of"),
    (columns(), LEVEL | {"length": 0}, ValueError, "length: got 0, expected an integer"),
    (columns(), LEVEL | {"horizon": 1.5}, TypeError, "horizon: got 1.5"),
    (columns(), LEVEL | {"targets": []}, ValueError, "targets: got none"),
    (columns(), LEVEL | {"inputs": []}, ValueError, "inputs: got none"),
    (columns(), LEVEL | {"inputs": ["level", "level"]}, ValueError, "inputs: got 'level', 'level'"),
    (columns(), TIMED | {"inputs": ["level", "day"]}, ValueError, "inputs: 'day' is time, exp"),
    (columns(), LEVEL | {"split": 1.5}, ValueError, "split: got 1.5, expected a share above 0"),
    (columns(), LEVEL | {"split": "2001-01-05"}, ValueError, "but no time=, expected a share"),
    (columns(), TIMED | {"split": "soon"}, ValueError, "split: got 'soon', expected a share, or a"),
    (columns(), TIMED | {"split": "2031-01-05"}, ValueError, "split: got 2031-01-05, expected a"),
    (columns(), LEVEL | {"split": (0.9, 0.6)}, ValueError, "split: got 0.9 and 0.6, expected them"),
    (columns(), LEVEL | {"split": (0.1, 0.6, 0.8)}, ValueError, "split: got 3 values, exp"),
    (columns(), LEVEL | {"split": 0.1}, ValueError, "split: no window has all its answers in"),
    (change(level=np.where(np.arange(ROWS) % 3 == 0, np.nan, 1.0)), LEVEL | {"missing": "drop"},
     ValueError, "frame: every window lacks a value"),
    ([1, 2, 3], LEVEL, TypeError, "frame: got list, expected a DataFrame"),
    (np.zeros((2, 3, 4)), LEVEL, TypeError, "frame: got an array (2, 3, 4)"),
    ({}, LEVEL, ValueError, "frame: has no columns"),
    ({"level": []}, LEVEL, ValueError, "frame: has no rows"),
    ({"level": [1.0, 2.0], "b": [1.0]}, LEVEL, ValueError, "frame: columns differ in length: 'lev"),
    ({"level": np.zeros((3, 2))}, LEVEL, ValueError, "frame: column 'level' has shape (3, 2)"),
]  # fmt: skip


@pytest.mark.parametrize(("frame", "options", "error", "words"), REFUSED)
def test_refused(frame: Any, options: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error) as raised:
        windows(frame, **options)
    assert words in str(raised.value)


def test_refused_tables_of_pandas() -> None:
    frame = pandas_frame({"place": "category"})
    options: dict[str, Any] = {"targets": "level", "inputs": "level", "length": 3, "group": "place"}
    with pytest.raises(ValueError, match="group: the group 'y' of column 'place' is empty, cat"):
        windows(frame[frame.place == "x"], **options)
    pandas = require("pandas")
    twice = pandas.DataFrame(np.zeros((9, 2)), columns=["level", "level"])
    with pytest.raises(ValueError, match="frame: has several columns 'level'"):
        windows(twice, **LEVEL)
    text = pandas_frame().assign(level=[*["1.5"] * 20, "broken", *["2"] * 3])
    with pytest.raises(TypeError, match="targets: column 'level' is 'broken' in row 20"):
        windows(text, **LEVEL)
