"""A step of training in two halves: gradients of parts of a batch, and the step by their sum."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from fastlstm import LSTM
from fastlstm.optim import Adam
from fastlstm.training import HeadSpec, Network, Score

rng = np.random.default_rng(0)
T, B = 7, 10
X = rng.normal(size=(T, B, 3))
LENGTHS = rng.integers(1, T + 1, B)
CLASSES = rng.integers(0, 4, (T, B))
NUMBERS = rng.normal(size=(T, B, 2))
WEIGHTS = rng.integers(0, 3, (T, B)).astype(float)


def _network(**options: Any) -> Network:
    return Network(LSTM(3, 5, seed=0, dtype="float64"), seed=1, **options)


CASES: dict[str, tuple[dict[str, Any], Any, Any]] = {
    "numbers": ({"outputs": 2}, NUMBERS, None),
    "weights": ({"outputs": 2, "loss": "mae"}, NUMBERS, WEIGHTS),
    "classes": (
        {"outputs": 4, "loss": "cross_entropy", "class_weights": [1.0, 0.0, 2.5, 0.1]},
        CLASSES,
        WEIGHTS,
    ),
    "heads": (
        {
            "heads": {
                "a": HeadSpec(4, loss="cross_entropy", class_weights=[1.0, 0.0, 2.5, 0.1]),
                "b": HeadSpec(2, loss="huber", weight=0.5),
            }
        },
        {"a": CLASSES, "b": NUMBERS},
        {"a": WEIGHTS, "b": None},
    ),
}


def _of(part: Any, rows: slice) -> Any:
    if isinstance(part, dict):
        return {name: _of(each, rows) for name, each in part.items()}
    return None if part is None else part[:, rows]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_gradients_of_parts_add_up_to_that_of_the_batch(case: str, lengths: Any) -> None:
    options, y, weights = CASES[case]
    network = _network(**options)
    score, whole = network.gradient(X, y, weights, lengths=lengths)
    total = network.total_weight(X, y, weights, lengths=lengths)
    again, same = network.gradient(X, y, weights, lengths=lengths, total=total)
    assert again == score
    assert_array_equal(same, whole)

    parts, scores = np.zeros_like(whole), Score()
    for rows in slice(0, 1), slice(1, 7), slice(7, 10):
        few = None if lengths is None else lengths[rows]
        of_part, gradient = network.gradient(
            X[:, rows], _of(y, rows), _of(weights, rows), lengths=few, total=total
        )
        parts += gradient
        scores += of_part
    assert_allclose(parts, whole, rtol=1e-12, atol=1e-15)
    if case != "heads":  # whose score is a mean of the heads' own
        assert_allclose(scores.loss, score.loss, rtol=1e-14)
        assert_allclose(total, score.weight, rtol=1e-14)


@pytest.mark.parametrize("clip", [0.01, np.inf])
def test_a_step_is_one_half_after_the_other(clip: float) -> None:
    whole, halves = _network(outputs=2), _network(outputs=2)
    first, second = Adam(0.1), Adam(0.1)
    for _ in range(3):
        score = whole.train_step(first, X, NUMBERS, clip=clip)
        again, gradient = halves.gradient(X, NUMBERS)
        halves.apply(second, gradient, clip=clip, score=again)
        assert again == score
        assert_array_equal(halves.parameters, whole.parameters)
    assert_array_equal(halves(X), whole(X))


def test_nothing_is_applied_that_is_not_finite() -> None:
    network, optimizer = _network(outputs=2), Adam(0.1)
    before = network.parameters.copy()
    gradient = np.ones_like(before)
    with pytest.raises(FloatingPointError, match="diverged: loss nan, gradient of norm"):
        network.apply(optimizer, gradient, score=Score(1.0, np.nan))
    gradient[3] = np.inf
    with pytest.raises(FloatingPointError, match="diverged: gradient of norm inf"):
        network.apply(optimizer, gradient)
    assert_array_equal(network.parameters, before)
    assert optimizer.state_dict()["step"] == 0


@pytest.mark.parametrize(
    ("total", "error"),
    [(-1.0, ValueError), (np.nan, ValueError), ("5", TypeError), (True, TypeError)],
)
def test_what_a_total_may_be(total: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"total: got .*, expected a number from 0"):
        _network(outputs=2).gradient(X, NUMBERS, total=total)
