"""`fastlstm.distributed.ray.predict` on two workers: the answers of one process."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
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
def data(ray_started: Any) -> Iterator[Any]:
    module = require("ray.data")
    context = module.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield module


@pytest.fixture
def predict(data: Any) -> Any:
    from fastlstm.distributed.ray import predict

    return predict


@pytest.mark.parametrize("blocks", [1, 2, 4])
def test_a_sequence_in_each_row(data: Any, predict: Any, blocks: int) -> None:
    rows = [{"id": i, "x": x} for i, x in enumerate(sequences())]
    dataset = data.from_items(rows, override_num_blocks=blocks)
    found = predict(dataset, NETWORK, features="x", batch_size=2).take_all()
    answers = {row["id"]: row["prediction"] for row in found}
    assert sorted(answers) == list(range(len(LENGTHS)))
    for i, answer in enumerate(expected()):
        assert_same_bits(answers[i], answer)


def test_a_step_in_each_row(data: Any, predict: Any) -> None:
    pandas = require("pandas")
    frame = steps_of(pandas)
    answers = Predictor(NETWORK, group="g", time="t")(frame)
    mixed = data.from_pandas(frame.sample(frac=1, random_state=0)).repartition(3)
    found = predict(mixed, NETWORK, group="g", time="t").to_pandas()
    found = found.sort_values(["g", "t"]).reset_index(drop=True)
    for name in ("prediction_u", "prediction_v"):
        assert_same_bits(found[name].to_numpy(np.float32), answers[name].to_numpy())


def test_columns_that_are_there(data: Any, predict: Any) -> None:
    """They stay as they are: integers of 64 bits beside gaps, too."""
    pa = require("pyarrow")
    x = [[1.0, 2.0], [3.0]]
    table = pa.table({"id": pa.array([2**53 + 1, None]), "x": x, "prediction": ["old", "old"]})
    network = Network(LSTM(1, 3, seed=0), 1, features=["x"], seed=0)
    found = predict(data.from_arrow(table), network)
    assert found.columns() == table.column_names
    for row, one, number in zip(found.take_all(), x, (2**53 + 1, None), strict=True):
        assert row["id"] == number
        assert_same_bits(row["prediction"], network.predict(np.array(one)[:, None]).ravel())


def test_a_worker_that_is_killed(
    data: Any, predict: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastlstm.distributed.ray.Predictor", killing(tmp_path / "killed"))
    rows = [{"id": i, "x": x} for i, x in enumerate(sequences())]
    found = predict(data.from_items(rows), NETWORK, features="x", batch_size=1).take_all()
    assert (tmp_path / "killed").exists()
    assert sorted(row["id"] for row in found) == list(range(len(LENGTHS)))
    for row in found:
        assert_same_bits(row["prediction"], expected()[row["id"]])


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"group": "g"}, "group, time: got 'g' and None, expected columns for both"),
        ({"time": "t"}, "time: got one without group"),
        ({"batch_size": 0}, "batch_size: got 0"),
    ],
)
def test_wrong_arguments(data: Any, predict: Any, options: dict[str, Any], error: str) -> None:
    with pytest.raises(ValueError, match=error):
        predict(data.range(3), NETWORK, **options)
    with pytest.raises(ValueError, match="features: got None, expected the names"):
        predict(data.range(3), LSTM(1, 1))


def test_columns_that_are_not_there(data: Any, predict: Any) -> None:
    found = predict(data.from_items([{"a": [1.0], "b": [1.0]}]), NETWORK)
    with pytest.raises(Exception, match="frame: there is no column 'c', there are 'a', 'b'"):
        found.take_all()


def test_without_ray() -> None:
    code = "import sys; sys.modules['ray'] = None\n"
    code += "import fastlstm.distributed.ray as r; r.predict(1, 2)"
    printed = run_python(code).stderr
    assert 'fastlstm.distributed.ray needs Ray Data: pip install "fastlstm[ray]"' in printed
