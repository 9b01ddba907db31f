"""Evaluations: measures beside their definitions, whatever the layout, and what they show."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastlstm import LSTM
from fastlstm.training import Evaluation, HeadSpec, Network, Scaling
from support.arrays import assert_same_bits

pytestmark = pytest.mark.default_isa

T, B, I = 6, 4, 3
LENGTHS = np.array([6, 1, 4, 5])
PRESENT = np.arange(T)[:, None] < LENGTHS


def numbers(*shape: int, seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def a_network(outputs: int | None = 3, **options: Any) -> Network:
    layer = LSTM(I, 8, dtype=np.float64, batch_first=options.pop("batch_first", False), seed=0)
    return Network(layer, outputs, seed=1, **options)


def confusion_of(y: np.ndarray, predicted: np.ndarray, weights: np.ndarray, K: int) -> np.ndarray:
    confusion = np.zeros((K, K))
    for truth, said, weight in zip(y, predicted, weights, strict=True):
        confusion[truth, said] += weight
    return confusion


def f1_of(confusion: np.ndarray, k: int) -> float:
    """2 TP / (2 TP + FP + FN)."""
    true = confusion[k, k]
    return 2 * true / (2 * true + (confusion[:, k].sum() - true) + (confusion[k].sum() - true))


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("padded", [False, True])
def test_classes(padded: bool, batch_first: bool) -> None:
    names = ["no", "perhaps", "yes"]
    network = a_network(loss="cross_entropy", classes=names, batch_first=batch_first)
    x, y = 3 * numbers(T, B, I), np.random.default_rng(1).integers(0, 3, (T, B))
    weights = np.random.default_rng(2).random((T, B))
    weights[2, 0] = 0
    present = PRESENT if padded else np.ones((T, B), np.bool_)
    in_names = np.where(present & (weights > 0), np.array(names)[y], "neither")
    options = {"lengths": LENGTHS} if padded else {}
    given = [x, in_names, weights, y]
    if batch_first:
        given = [array.swapaxes(0, 1) for array in given]
    evaluation = network.evaluate(*given[:3], **options)
    predicted = network.predict(given[0])
    predicted = predicted.swapaxes(0, 1) if batch_first else predicted
    said = np.array([names.index(name) for name in predicted[present]])
    confusion = confusion_of(y[present], said, weights[present], 3)
    np.testing.assert_allclose(evaluation.confusion, confusion, rtol=1e-14)
    f1 = [f1_of(confusion, k) for k in range(3)]
    np.testing.assert_allclose(evaluation.f1, f1, rtol=1e-14)
    assert evaluation.f1_macro == pytest.approx(np.mean(f1), rel=1e-14)
    assert evaluation.accuracy == pytest.approx(confusion.trace() / confusion.sum(), rel=1e-14)
    score = network.score(given[0], given[3], given[2], **options)
    assert evaluation.accuracy == pytest.approx(score.accuracy, rel=1e-14)
    assert evaluation.loss == pytest.approx(score.loss, rel=1e-14)
    assert evaluation.weight == pytest.approx(score.weight, rel=1e-14)
    by_number = network.evaluate(given[0], given[3], given[2], **options)
    np.testing.assert_array_equal(by_number.confusion, evaluation.confusion)
    text = str(evaluation)
    for part in ("accuracy", "F1 (macro)", "perhaps", "precision"):
        assert part in text


def test_classes_that_are_not_there() -> None:
    network = a_network(4, loss="cross_entropy", each_step=False)
    network.load_state_dict(
        {
            **network.state_dict(),
            "head.weight": np.zeros((4, 8)),
            "head.bias": [0.0, 5, 0, 0],
        }
    )
    evaluation = network.evaluate(numbers(T, 3, I), [1, 1, 2])
    np.testing.assert_array_equal(evaluation.precision, [np.nan, 2 / 3, np.nan, np.nan])
    np.testing.assert_array_equal(evaluation.recall, [np.nan, 1, 0, np.nan])
    np.testing.assert_array_equal(evaluation.f1, [np.nan, 0.8, 0, np.nan])
    assert evaluation.f1_macro == 0.4
    assert evaluation.classes == (0, 1, 2, 3)


def test_many_classes_have_no_confusions() -> None:
    network = a_network(1500, loss="cross_entropy", each_step=False)
    evaluation = network.evaluate(numbers(T, 5, I), np.arange(5))
    assert evaluation.confusion is None
    assert evaluation.f1.shape == (1500,)
    assert "and 1470 more" in str(evaluation)


def test_labels() -> None:
    network = a_network(loss="binary_cross_entropy", classes=["a", "b", "c"], each_step=False)
    x, y = 5 * numbers(T, 40, I), numbers(40, 3, seed=4) > 0
    evaluation, predicted = network.evaluate(x, y), network.predict(x)
    for k in range(3):
        confusion = confusion_of(y[:, k].astype(int), predicted[:, k].astype(int), np.ones(40), 2)
        np.testing.assert_array_equal(evaluation.confusion[k], confusion)
        assert evaluation.f1[k] == pytest.approx(f1_of(confusion, 1), rel=1e-14)
    assert evaluation.accuracy == (predicted == y).all(axis=1).mean()
    assert evaluation.accuracy == network.score(x, y).accuracy
    assert "precision" in str(evaluation)


@pytest.mark.parametrize("padded", [False, True])
def test_numbers_beside_persistence(padded: bool) -> None:
    scaling = Scaling(np.full(I, 2.0), np.full(I, 3.0), np.array([10.0, 20]), 5.0)
    network = a_network(2, scaling=scaling)
    x, y = numbers(T, B, I), 15 + 5 * numbers(T, B, 2, seed=8)
    present = PRESENT if padded else np.ones((T, B), np.bool_)
    y = np.where(present[..., None], y, np.nan)
    options: dict[str, Any] = {"lengths": LENGTHS} if padded else {}
    other = np.full((T, B, 2), 12.0)
    evaluation = network.evaluate(x, y, season=3, baselines={"twelve": other}, **options)
    error = (network.predict(x) - y)[present]
    assert evaluation.mae == pytest.approx(np.abs(error).mean(), rel=1e-12)
    assert evaluation.rmse == pytest.approx(np.sqrt((error**2).mean()), rel=1e-12)
    assert evaluation.loss == pytest.approx((error**2).mean() / 25, rel=1e-12)
    naive = {"twelve": other}
    for name, lag in (("persistence", 1), ("seasonal persistence", 3)):
        naive[name] = np.full(y.shape, np.nan)
        naive[name][lag:] = y[:-lag]
    assert set(evaluation.naive) == set(naive)
    for name, forecast in naive.items():
        there = present & np.isfinite(forecast).all(axis=-1)
        theirs = (forecast - y)[there]
        rmse, mae = evaluation.naive[name]
        assert mae == pytest.approx(np.abs(theirs).mean(), rel=1e-12)
        assert rmse == pytest.approx(np.sqrt((theirs**2).mean()), rel=1e-12)
        ours = np.abs(network.predict(x) - y)[there].mean()
        assert evaluation.mase[name] == pytest.approx(ours / mae, rel=1e-12)
    assert "seasonal persistence: RMSE" in str(evaluation)
    listed = network.evaluate(
        [x[: LENGTHS[b], b] for b in range(B)], [y[: LENGTHS[b], b] for b in range(B)], season=3
    )
    if padded:
        assert (listed.rmse, listed.mae, listed.loss) == (
            evaluation.rmse,
            evaluation.mae,
            evaluation.loss,
        )


def test_quantiles() -> None:
    network = a_network(1, loss="pinball", quantiles=[0.2, 0.6, 0.9], each_step=False)
    x, y = numbers(T, 50, I), 0.3 * numbers(50, 1, seed=2)
    evaluation, predicted = network.evaluate(x, y), network.predict(x)
    np.testing.assert_allclose(evaluation.coverage, (y <= predicted[:, 0]).mean(axis=0))
    assert evaluation.mae == pytest.approx(np.abs(predicted[:, 0, 1] - y[:, 0]).mean())
    assert evaluation.loss == pytest.approx(network.score(x, y).loss)
    assert evaluation.naive == {}
    assert "shares below the quantiles 0.2:" in str(evaluation)


def test_heads_and_a_loss_of_one_s_own() -> None:
    heads = {"amount": HeadSpec(2), "kind": HeadSpec(loss="cross_entropy", classes=["a", "b"])}
    network = a_network(None, heads=heads)
    x = numbers(T, B, I)
    y = {"amount": numbers(T, B, 2), "kind": np.full((T, B), "b")}
    evaluations = network.evaluate(x, y)
    assert evaluations["amount"].mae == pytest.approx(
        np.abs(network.predict(x)["amount"] - y["amount"]).mean()
    )
    assert evaluations["kind"].accuracy == (network.predict(x)["kind"] == "b").mean()
    own = a_network(2, loss=lambda z, y: (np.abs(z[:, 0] - y), np.zeros_like(z)))
    evaluation = own.evaluate(x, np.zeros((T, B)))
    assert (evaluation.rmse, evaluation.accuracy) == (None, None)
    assert evaluation.loss == pytest.approx(np.abs(own(x)[..., 0]).mean())


def test_evaluations_are_the_same_in_one_step_and_one_sequence() -> None:
    network = a_network(2)
    x, y = numbers(1, 1, I), numbers(1, 1, 2)
    evaluation = network.evaluate(x, y)
    assert evaluation.mae == pytest.approx(np.abs(network(x) - y).mean())
    assert np.isnan(evaluation.mase["persistence"])
    assert isinstance(evaluation, Evaluation)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"y": np.full((T, B), "maybe")}, ValueError, "y: got class 'maybe', expected one of"),
        ({"y": np.full((T, B), 5)}, ValueError, "y: got classes 5 to 5, expected 0 to 1"),
        ({"y": np.full((T, B), 0.5)}, ValueError, "y: got class 0.5, expected one of"),
        ({"y": np.full(T, "yes")}, ValueError, r"y: got shape \(6,\), expected \(6, 4\)"),
        ({"weights": np.zeros((T, B))}, ValueError, "weights: all are 0, expected some above"),
        ({"season": 3}, ValueError, "season: got some, expected none but of a regression"),
        ({"baselines": {"a": 1}}, ValueError, "baselines: got some, expected none but of"),
        ({"baselines": 5}, TypeError, "baselines: got int, expected a mapping"),
        ({"season": 0}, ValueError, "season: got 0, expected an integer from 1"),
    ],
)
def test_errors(change: dict[str, Any], error: type[Exception], message: str) -> None:
    network = a_network(loss="cross_entropy", classes=["no", "yes"], outputs=None)
    given = {"x": numbers(T, B, I), "y": np.full((T, B), "yes"), **change}
    with pytest.raises(error, match=message):
        network.evaluate(**given)


def test_errors_of_baselines() -> None:
    network = a_network(2)
    x, y = numbers(T, B, I), numbers(T, B, 2)
    with pytest.raises(
        ValueError, match=r"baselines\['a'\]: got shape \(6, 4\), expected \(6, 4, 2"
    ):
        network.evaluate(x, y, baselines={"a": y[..., 0]})
    last = a_network(2, each_step=False)
    with pytest.raises(ValueError, match="season: got one, expected none without answers at each"):
        last.evaluate(x, y[0], season=2)
    assert_same_bits(last.predict(x), last(x))
