"""Columns of tables, in whatever way they are kept: the answers to the same arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastlstm import LSTM
from fastlstm.distributed import Predictor
from fastlstm.training import Network
from support.arrays import assert_same_bits
from support.optional import require

LAYER = LSTM(2, 3, return_sequences=False, seed=0)
LENGTHS = (3, 0, 5, 1)
SEQUENCES = [np.random.default_rng(n).normal(size=(n, 2)) for n in LENGTHS]
CELLS = Predictor(LAYER, features="x")
NETWORK = Network(LSTM(2, 4, seed=0), 1, features=["a", "b"], seed=0)


def answers(table: Any) -> np.ndarray:
    column = table["prediction"]
    return np.array(column.to_pylist() if hasattr(column, "to_pylist") else list(column))


EXPECTED = np.array([CELLS([x])[0] for x in SEQUENCES])


def test_views_of_lists() -> None:
    """Of Arrow: they may lie in any order, and share numbers."""
    pa = require("pyarrow")
    steps = pa.array([row.tolist() for x in SEQUENCES for row in x][::-1])
    ends = [len(steps) - start for start in np.cumsum((0, *LENGTHS[:-1]))]
    starts = [end - length for end, length in zip(ends, LENGTHS, strict=True)]
    backwards = [CELLS([x[::-1]])[0] for x in SEQUENCES]
    offsets, sizes = pa.array(starts, pa.int32()), pa.array(LENGTHS, pa.int32())
    views = pa.ListViewArray.from_arrays(offsets, sizes, steps)
    assert_same_bits(answers(CELLS(pa.table({"x": views}))).astype(np.float32), np.array(backwards))
    assert_same_bits(np.array(CELLS({"x": views[2:]})["prediction"]), np.array(backwards[2:]))


@pytest.mark.parametrize("kind", ["arrays", "lists", "series", "tensors"])
def test_lists_of_sequences(kind: str) -> None:
    """Of lengths that differ, or by chance do not."""
    made: Any = {
        "arrays": lambda x: x,
        "lists": lambda x: x.tolist(),
        "series": lambda x: require("pandas").Series(x.tolist()),
        "tensors": lambda x: require("torch").from_numpy(x),
    }[kind]
    cells = [made(x) for x in SEQUENCES]
    assert_same_bits(np.array(CELLS({"x": cells})["prediction"]), EXPECTED)
    assert_same_bits(np.array(CELLS({"x": cells[:1]})["prediction"]), EXPECTED[:1])


def test_lists_of_nothing() -> None:
    """Of Arrow, which has no type for what is in them, and truths of which some are missing."""
    pa = require("pyarrow")
    predictor = Predictor(LSTM(1, 3, return_sequences=False, seed=0), features="x", missing="skip")
    for cells, numbers in (
        ([[], []], [[], []]),
        ([[None, None], []], [[np.nan] * 2, []]),
        ([[True, None], [False]], [[1.0, np.nan], [0.0]]),
    ):
        expected = predictor([np.reshape(cell, (-1, 1)) for cell in numbers])
        found = answers(predictor(pa.table({"x": cells}))).astype(np.float32)
        assert_same_bits(found, np.array(expected))


def test_masks_are_not_lost() -> None:
    steps = Predictor(NETWORK, group=(), time="t")
    cells = np.ma.masked_array(SEQUENCES[2], mask=SEQUENCES[2] > 1)
    columns = {"a": np.ones(3), "b": np.ones(3), "t": np.arange(3)}
    for name, column in columns.items():
        masked = np.ma.masked_array(column, mask=[0, 1, 0])
        with pytest.raises(TypeError, match=f"column '{name}' is a masked array, expected one"):
            steps({**columns, name: masked})
    with pytest.raises(TypeError, match="column 'x' holds a masked array in row 1, expected one"):
        CELLS({"x": [SEQUENCES[0], cells]})


@pytest.mark.parametrize("first", [None, np.nan])
def test_rows_without_a_sequence(first: Any) -> None:
    frame = require("pandas").DataFrame({"x": [first, SEQUENCES[0].tolist()]})
    with pytest.raises(ValueError, match="features: column 'x' has no sequence in row 0"):
        CELLS(frame)
    pa = require("pyarrow")
    kind = pa.fixed_shape_tensor(pa.float64(), [3, 2])
    storage = pa.array([SEQUENCES[0].ravel().tolist(), None], pa.list_(pa.float64(), 6))
    tensors = pa.ExtensionArray.from_storage(kind, storage)
    with pytest.raises(ValueError, match="features: column 'x' has no sequence in row 1"):
        CELLS(pa.table({"x": tensors}))


def test_ordered_categories_of_arrow() -> None:
    """They are times in the order of the categories, as in pandas, not in that of the texts."""
    pandas, pa = require("pandas"), require("pyarrow")
    times = pandas.Categorical(["10", "9", "100"], ["9", "10", "100"], ordered=True)
    frame = pandas.DataFrame({"a": [1.0, 2, 3], "b": [4.0, 5, 6], "t": times})
    predictor = Predictor(NETWORK, group=(), time="t")
    expected = predictor(frame).prediction.to_numpy()
    x = frame[["a", "b"]].to_numpy()[[1, 0, 2]]
    assert_same_bits(expected[[1, 0, 2]], NETWORK.predict(x[:, None])[:, 0, 0])
    table = pa.Table.from_pandas(frame)
    for each in (table, pa.concat_tables([table[:2], table[2:]]), table.to_batches()[0]):
        assert_same_bits(np.asarray(predictor(each)["prediction"]), expected)
    assert predictor(table[:0]).num_rows == 0
    other = pandas.DataFrame({"a": [1.0], "b": [1.0], "t": times[:1].rename_categories([*"xyz"])})
    both = pa.concat_tables([table, pa.Table.from_pandas(other)])
    with pytest.raises(ValueError, match="time: column 't' has chunks whose categories differ"):
        predictor(both)
    gap = table.set_column(2, "t", pa.array(times).take(pa.array([0, None, 2])))
    with pytest.raises(ValueError, match="time: column 't' has no value in row 1"):
        predictor(gap)


def test_no_rows_of_one_sequence() -> None:
    predictor = Predictor(NETWORK, group=(), time="t")
    columns = {"a": np.ones(0), "b": np.ones(0), "t": np.ones(0)}
    assert predictor(columns)["prediction"].shape == (0,)


def test_names_of_the_model_in_another_order() -> None:
    """They would exchange inputs."""
    error = "features: got the model's own names in another order, 'b', 'a', expected 'a', 'b'"
    with pytest.raises(ValueError, match=error):
        Predictor(NETWORK, features=["b", "a"])
    assert Predictor(NETWORK, features=["b", "c"]).features == ("b", "c")


def test_groups_of_lists() -> None:
    frame = require("pandas").DataFrame({"a": [1.0], "b": [1.0], "g": [[1]]})
    with pytest.raises(TypeError, match="group: 'g' can't tell one sequence from another: unhash"):
        Predictor(NETWORK, group="g")(frame)
