"""Tables through a predictor: pandas, Arrow and mappings, of steps and of sequences."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from fastlstm import LSTM
from fastlstm.distributed import Predictor, _cells, _frames
from fastlstm.training import Embedding, HeadSpec, Network
from support.arrays import assert_same_bits
from support.optional import require

FEATURES = ["a", "b", "c"]
LENGTHS = (3, 1, 5, 2)
GROUPS = ("west", "north", "east", "south")
NETWORK = Network(LSTM(3, 8, seed=0), 2, features=FEATURES, targets=["u", "v"], seed=1)
LAST = Network(
    LSTM(3, 8, seed=0), classes=["lo", "hi"], loss="cross_entropy", each_step=False, seed=1
)


def sequences() -> list[np.ndarray]:
    return [np.random.default_rng(n).normal(size=(n, 3)) for n in LENGTHS]


def of_pandas(columns: dict[str, Any]) -> Any:
    return require("pandas").DataFrame(columns)


def of_arrow(columns: dict[str, Any]) -> Any:
    pa = require("pyarrow")
    plain = {
        name: column if isinstance(column, np.ndarray) else [as_list(cell) for cell in column]
        for name, column in columns.items()
    }
    return pa.table({name: pa.array(column) for name, column in plain.items()})


def as_list(cell: Any) -> Any:
    return cell.tolist() if isinstance(cell, np.ndarray) else cell


def of_batch(columns: dict[str, Any]) -> Any:
    return of_arrow(columns).to_batches()[0]


def of_arrays(columns: dict[str, Any]) -> Any:
    return {
        name: column if isinstance(column, np.ndarray) else _cells.objects(column)
        for name, column in columns.items()
    }


KINDS = {"pandas": of_pandas, "arrow": of_arrow, "batch": of_batch, "arrays": of_arrays}


@pytest.fixture(params=KINDS)
def make(request: pytest.FixtureRequest) -> Callable[[dict[str, Any]], Any]:
    return KINDS[request.param]


def cells(table: Any, name: str) -> list[Any]:
    column = table[name]
    return column.to_pylist() if hasattr(column, "to_pylist") else list(column)


def steps(seed: int | None) -> dict[str, Any]:
    """Columns of a table with a row for each step, in any order."""
    rows = np.concatenate(sequences())
    columns: dict[str, Any] = {
        "where": np.repeat(GROUPS, LENGTHS),
        "part": np.repeat([1, 1, 2, 2], LENGTHS),
    }
    columns["when"] = np.concatenate([np.arange(n).astype("datetime64[D]") for n in LENGTHS])
    columns |= {name: rows[:, i] for i, name in enumerate(FEATURES)}
    columns["row"] = np.arange(len(rows))
    if seed is None:
        return columns
    order = np.random.default_rng(seed).permutation(len(rows))
    return {name: column[order] for name, column in columns.items()}


def test_a_row_for_each_step(make: Callable[[dict[str, Any]], Any]) -> None:
    columns = steps(0)
    table = make(columns)
    found = Predictor(NETWORK, group="where", time="when")(table)
    assert type(found) is type(table)
    expected = np.concatenate([NETWORK.predict(x[:, None])[:, 0] for x in sequences()])
    for i, name in enumerate(("prediction_u", "prediction_v")):
        assert_same_bits(np.array(cells(found, name), np.float32), expected[columns["row"], i])
    for name in ("row", "a"):
        np.testing.assert_array_equal(cells(found, name), columns[name])
    again = Predictor(NETWORK, group=["part", "where"], time="when", name="flow")(table)
    assert cells(again, "flow_u") == cells(found, "prediction_u")


def test_one_answer_for_each_group(make: Callable[[dict[str, Any]], Any]) -> None:
    table = make(steps(1))
    options: Any = {"features": FEATURES, "group": "where", "time": "when"}
    found = Predictor(LAST, **options)(table)
    given = dict(zip(cells(found, "where"), cells(found, "prediction"), strict=True))
    chances = Predictor(LAST, method="predict_proba", **options)(table)
    probable = dict(zip(cells(chances, "where"), cells(chances, "prediction_hi"), strict=True))
    assert sorted(given) == sorted(GROUPS)
    for name, x in zip(GROUPS, sequences(), strict=True):
        assert given[name] == LAST.predict(x[:, None])[0]
        assert probable[name] == LAST.predict_proba(x[:, None])[0, 1]


def test_a_sequence_in_each_cell(make: Callable[[dict[str, Any]], Any]) -> None:
    table = make({"id": np.arange(4), "x": sequences()})
    found = Predictor(NETWORK, features="x")(table)
    assert type(found) is type(table)
    assert cells(found, "id") == [0, 1, 2, 3]
    for answer, x in zip(cells(found, "prediction"), sequences(), strict=True):
        assert_same_bits(
            np.array([list(row) for row in answer], np.float32), NETWORK.predict([x])[0]
        )
    ones = Predictor(LAST, features="x")(table)
    assert cells(ones, "prediction") == [LAST.predict(x[:, None])[0] for x in sequences()]


def test_a_column_of_sequences_for_each_input(make: Callable[[dict[str, Any]], Any]) -> None:
    table = make({name: [x[:, i] for x in sequences()] for i, name in enumerate(FEATURES)})
    one = Network(LSTM(3, 8, seed=0), 1, features=FEATURES, seed=1)
    for answer, x in zip(cells(Predictor(one)(table), "prediction"), sequences(), strict=True):
        assert_same_bits(np.array(answer, np.float32), one.predict(x[:, None])[:, 0, 0])


def test_arrays_of_equal_sequences() -> None:
    x = np.random.default_rng(0).normal(size=(6, 4, 3))
    found = Predictor(NETWORK, features="x")({"x": x})
    assert_same_bits(found["prediction"], NETWORK.predict(x.swapaxes(0, 1)).swapaxes(0, 1))


def test_tokens_and_heads(make: Callable[[dict[str, Any]], Any]) -> None:
    heads = {"level": HeadSpec(1), "kind": HeadSpec(classes=[3, 4], loss="cross_entropy")}
    network = Network(LSTM(4, 5, seed=0), heads=heads, embedding=Embedding(9, 4), seed=0)
    words = [np.array([1, 2, 8]), np.array([4])]
    found = Predictor(network, features="words")(make({"words": words}))
    expected = network.predict(words)
    for i in range(2):
        assert_same_bits(
            np.array(cells(found, "prediction_level")[i], np.float32), expected["level"][i][:, 0]
        )
        assert list(cells(found, "prediction_kind")[i]) == list(expected["kind"][i])
    rows = make({"words": np.concatenate(words), "at": np.array([0, 0, 0, 1])})
    found = Predictor(network, features="words", group="at")(rows)
    assert cells(found, "prediction_kind") == list(np.concatenate(expected["kind"]))


def test_batches_do_not_change_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    table = {"x": _cells.objects(sequences())}
    whole = Predictor(NETWORK, features="x")(table)
    monkeypatch.setattr(_frames, "_AT_A_TIME", 10)
    assert sorted(row for rows in _frames._batches(sequences(), 3) for row in rows) == [0, 1, 2, 3]
    assert len(list(_frames._batches(sequences(), 3))) == 4
    cut = Predictor(NETWORK, features="x")(table)
    for one, other in zip(whole["prediction"], cut["prediction"], strict=True):
        assert_same_bits(one, other)


def test_missing_numbers(make: Callable[[dict[str, Any]], Any]) -> None:
    columns = steps(None)
    columns["a"] = [None if i == 1 else value for i, value in enumerate(columns["a"])]
    if make is of_arrays:
        columns["a"] = np.array(columns["a"], float)
    found = Predictor(NETWORK, group="where", time="when")(make(columns))
    gaps = np.isnan(np.array(cells(found, "prediction_u"), float))
    assert gaps.nonzero()[0].tolist() == [1, 2]
    found = Predictor(NETWORK, group="where", time="when", missing="skip")(make(columns))
    gaps = np.isnan(np.array(cells(found, "prediction_u"), float))
    assert gaps.nonzero()[0].tolist() == [1]


def in_months(pandas: Any) -> Any:
    months = ["jan", "feb", "mar", "apr"]
    return pandas.Categorical(months, categories=months, ordered=True)


@pytest.mark.parametrize(
    "times",
    [
        in_months,
        lambda pandas: pandas.date_range("2020-10-25", periods=4, freq="h", tz="Europe/Berlin"),
        lambda pandas: pandas.period_range("2020-01", periods=4, freq="M"),
        lambda pandas: [Decimal("8"), Decimal("9"), Decimal("10"), Decimal("11")],
        lambda pandas: ["08", "09", "10", "11"],
    ],
)
def test_times_in_their_order(times: Callable[[Any], Any]) -> None:
    pandas = require("pandas")
    frame = pandas.DataFrame({"a": [1.0, 2, 3, 4], "t": times(pandas)})
    predictor = Predictor(LSTM(1, 1, seed=0), features="a", group=(), time="t")
    expected = predictor(frame)
    assert predictor(frame[::-1])[::-1].equals(expected)
    unordered = Predictor(LSTM(1, 1, seed=0), features="a", group=())
    assert unordered(frame)["prediction"].equals(expected["prediction"])
    frame["t"] = frame["t"].where(frame["a"] != 3)
    with pytest.raises(ValueError, match="time: column 't' has no value in row 2"):
        predictor(frame)


def test_two_columns_of_a_name() -> None:
    pandas = require("pandas")
    frame = pandas.DataFrame(np.ones((4, 3)), columns=["a", "b", "a"])
    with pytest.raises(ValueError, match="frame: there are 2 columns 'a', expected one"):
        Predictor(LSTM(1, 1, seed=0), features="a", group=())(frame)
    assert len(Predictor(LSTM(1, 1, seed=0), features="b", group=())(frame)) == 4


def test_the_place_of_answers(make: Callable[[dict[str, Any]], Any]) -> None:
    """Of a column that is called so, or the last one."""
    table = make({"prediction": ["old"] * 4, "a": [1.0, 2, 3, 4]})
    found = Predictor(LSTM(1, 1, seed=0), features="a", group=())(table)
    assert list(dict(found.items()) if hasattr(found, "items") else found.column_names) == [
        "prediction",
        "a",
    ]


def test_no_rows(make: Callable[[dict[str, Any]], Any]) -> None:
    rows = {name: column[:0] for name, column in steps(None).items()}
    if make is of_batch:
        table = of_arrow({"a": [1.0], "b": [1.0], "c": [1.0], "where": ["x"]}).slice(0, 0)
    else:
        table = make(rows)
    found = Predictor(NETWORK, group="where")(table)
    assert cells(found, "prediction_u") == []
    found = Predictor(NETWORK, features="a")(table)
    assert cells(found, "prediction") == []


@pytest.mark.parametrize("model", [NETWORK, LAST])
def test_no_rows_have_the_types_of_some(model: Network) -> None:
    table = of_arrow({"x": sequences()})
    predictor = Predictor(model, features="x")
    assert predictor(table[:0]).schema == predictor(table).schema


@pytest.mark.parametrize(
    ("options", "columns", "error"),
    [
        ({"features": None}, {}, "features: needed of a table"),
        ({"features": ["z"]}, {}, "frame: there is no column 'z', there are 'where', 'part'"),
        ({"group": "z"}, {}, "frame: there is no column 'z'"),
        ({"group": None}, {}, "group: needed of a table with a number in each cell"),
        ({}, {"a": np.array(["x"] * 11)}, "features: column 'a' holds <U1, expected numbers"),
        (
            {"time": "when"},
            {"when": np.zeros(11)},
            "time: column 'when' has 0.0 twice .* rows 0 and 1",
        ),
        (
            {"time": "when"},
            {"when": np.full(11, np.nan)},
            "time: column 'when' has no value in row 0",
        ),
        (
            {"time": "when"},
            {"when": np.array([object() for _ in range(11)])},
            "time: column 'when' holds object, expected times, numbers or texts",
        ),
        ({"time": "when"}, {"when": np.arange(3)}, "frame: column 'when' has 3 rows, expected 11"),
        ({"group": "a"}, {"a": np.full(11, np.nan)}, "group: column 'a' has no value in row 0"),
        ({"group": None}, {"a": np.ones((11, 2))}, "features: some of 'a', 'b', 'c' hold a number"),
        (
            {"features": "a", "group": None},
            {"a": np.ones((11, 2, 2))},
            r"frame: 'a' has \(2, 2\) in row 0, expected \(T, 3\)",
        ),
        (
            {"features": "a"},
            {"a": np.ones((11, 2, 3))},
            "group, time: got one of a table with a seq",
        ),
        (
            {"group": None},
            dict(zip("abc", (np.ones((11, n)) for n in (2, 3, 2)), strict=True)),
            r"frame: row 0 has sequences of shapes \(2,\), \(3,\), \(2,\)",
        ),
    ],
)
def test_wrong_tables(options: dict[str, Any], columns: dict[str, Any], error: str) -> None:
    network = Network(LSTM(3, 8, seed=0), 2, seed=1)
    predictor = Predictor(network, **{"features": FEATURES, "group": "where", **options})
    with pytest.raises((TypeError, ValueError), match=error):
        predictor({**steps(None), **columns})


@pytest.mark.parametrize("of", [{"features": ["p", "b", "c"]}, {"group": "p"}, {"time": "p"}])
def test_answers_do_not_take_the_place_of_what_is_read(of: dict[str, Any]) -> None:
    predictor = Predictor(LSTM(3, 1), **{"features": FEATURES, "group": "where", "name": "p", **of})
    with pytest.raises(ValueError, match=r"name: got 'p'.* would take the place of column 'p'"):
        predictor(steps(None))


def test_answers_do_not_take_the_place_of_each_other() -> None:
    heads = {"a": HeadSpec(2, targets=("x", "b_x")), "a_b": HeadSpec(2, targets=("x", "y"))}
    predictor = Predictor(Network(LSTM(3, 8), heads=heads), features=FEATURES, group="where")
    with pytest.raises(ValueError, match="two answers would be called 'prediction_a_b_x'"):
        predictor(steps(None))
    # Whole sequences have a column for each head.
    of_lists = {name: list(np.ones((2, 4, 1), np.float32)[..., 0]) for name in FEATURES}
    found = Predictor(Network(LSTM(3, 8), heads=heads), features=FEATURES)(of_arrays(of_lists))
    assert {"prediction_a", "prediction_a_b"} < set(found)


def test_an_answer_replaces_what_is_not_read() -> None:
    predictor = Predictor(NETWORK, group="where", name="part")
    table = steps(None)
    assert_same_bits(
        predictor({**table, "part_u": np.zeros(11)})["part_u"], predictor(table)["part_u"]
    )
