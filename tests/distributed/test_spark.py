"""`fastlstm.distributed.spark.predict` on two workers: the answers of one process."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastlstm import LSTM
from fastlstm.distributed import Predictor
from fastlstm.training import Network
from support.arrays import assert_same_bits
from support.engine_cases import LENGTHS, NETWORK, expected, killing, sequences, steps_of
from support.optional import require
from support.processes import run_python

pytestmark = [pytest.mark.engines, pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture
def predict(spark: Any) -> Iterator[Any]:
    from fastlstm.distributed.spark import predict

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield predict


def listed(spark: Any) -> Any:
    rows = [(i, x.tolist()) for i, x in enumerate(sequences())]
    return spark.createDataFrame(rows, "id long, x array<array<double>>")


@pytest.mark.parametrize("partitions", [1, 2, 4])
def test_a_sequence_in_each_row(spark: Any, predict: Any, partitions: int) -> None:
    found = predict(listed(spark).repartition(partitions), NETWORK, features="x").collect()
    answers = {row.id: np.array(row.prediction, np.float32) for row in found}
    assert sorted(answers) == list(range(len(LENGTHS)))
    for i, answer in enumerate(expected()):
        assert_same_bits(answers[i], answer)


def test_a_step_in_each_row(spark: Any, predict: Any) -> None:
    pandas = require("pandas")
    frame = steps_of(pandas)
    answers = Predictor(NETWORK, group="g", time="t")(frame)
    mixed = spark.createDataFrame(frame.sample(frac=1, random_state=0)).repartition(3)
    made = predict(mixed, NETWORK, group="g", time="t")
    assert made.columns == list(answers.columns)
    found = {(row.g, row.t): (row.prediction_u, row.prediction_v) for row in made.collect()}
    for row in answers.itertuples():
        assert found[row.g, row.t] == (row.prediction_u, row.prediction_v)
    last = Network(LSTM(3, 5, seed=0), classes=["lo", "hi"], loss="cross_entropy", each_step=False)
    options: Any = {"features": ["a", "b", "c"], "group": "g", "time": "t"}
    made = predict(mixed, last, method="predict_proba", **options)
    assert made.columns == ["g", "prediction_lo", "prediction_hi"]
    answers = Predictor(last, method="predict_proba", **options)(frame)
    chances = dict(zip(answers.g, answers.prediction_hi, strict=True))
    assert {row.g: np.float32(row.prediction_hi) for row in made.collect()} == chances
    made = predict(listed(spark), last, features="x")
    assert dict(made.dtypes) == {
        "id": "bigint",
        "x": "array<array<double>>",
        "prediction": "string",
    }
    assert {row.prediction for row in made.collect()} <= {"lo", "hi"}


def test_columns_that_are_there(spark: Any, predict: Any) -> None:
    """They stay as they are, and where they are; one called as the answers is replaced."""
    spark.conf.set("spark.sql.session.timeZone", "America/New_York")
    network = Network(LSTM(1, 3, seed=0), 1, features=["x"], seed=0)
    rows = [(0, [9.0], [1.0, 2.0]), (1, [8.0], [3.0])]
    frame = spark.createDataFrame(rows, "id long, prediction array<float>, x array<float>")
    made = predict(frame, network)
    assert made.columns == frame.columns
    for row, (_, _, x) in zip(made.orderBy("id").collect(), rows, strict=True):
        assert row.x == x
        assert row.prediction == network.predict(np.array(x)[:, None]).ravel().tolist()
    # An integer of 64 bits beside a gap, and times that the session has in its own zone.
    times = [datetime(2020, 1, day) for day in (2, 1)]
    steps = [(None, "old", 1.0, times[0], 0), (2**53 + 1, "old", 2.0, times[1], 0)]
    names = "id long, prediction string, x double, t timestamp, g long"
    made = predict(spark.createDataFrame(steps, names), network, group="g", time="t")
    y = network.predict(np.array([[2.0], [1.0]])).ravel().tolist()
    expected = [(2**53 + 1, y[0], 2.0, times[1], 0), (None, y[1], 1.0, times[0], 0)]
    assert [tuple(row) for row in made.orderBy("t").collect()] == expected


def test_a_worker_that_is_killed(
    spark: Any, predict: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastlstm.distributed.spark.Predictor", killing(tmp_path / "killed"))
    made = predict(listed(spark).repartition(3), NETWORK, features="x")
    found = made.collect()
    assert (tmp_path / "killed").exists()
    assert sorted(row.id for row in found) == list(range(len(LENGTHS)))
    for row in found:
        assert_same_bits(np.array(row.prediction, np.float32), expected()[row.id])


def test_wrong_arguments(spark: Any, predict: Any) -> None:
    frame = listed(spark)
    for options, error in (
        ({"features": "x", "group": "id"}, "group, time: got 'id' and None, expected columns for"),
        ({"features": "x", "time": "id"}, "time: got one without group"),
        ({}, "features: there is no column 'a', there are"),
        # Spark finds columns whatever their case, but tables of Arrow don't.
        ({"features": "x", "group": "ID", "time": "x"}, "group: there is no column 'ID', there"),
        ({"features": "x", "group": "id", "time": "X"}, "time: there is no column 'X', there are"),
        ({"features": "x", "name": "Id"}, "name: got 'Id', .* called 'Id' beside column 'id', and"),
    ):
        with pytest.raises(ValueError, match=error):
            predict(frame, NETWORK, **options)
    with pytest.raises(ValueError, match="features: got None, expected the names"):
        predict(frame, LSTM(1, 1))


def test_without_spark() -> None:
    code = "import sys; sys.modules['pyspark'] = None\n"
    code += "import fastlstm.distributed.spark as s; s.predict(1, 2)"
    printed = run_python(code).stderr
    assert 'fastlstm.distributed.spark needs PySpark: pip install "fastlstm[spark]"' in printed
