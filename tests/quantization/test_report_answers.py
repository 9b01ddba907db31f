"""The report on a quantised layer with a head: answers, decisions and metrics."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from fastlstm import BiLSTM, quantization_report, quantize
from fastlstm.training import Network
from fastlstm.weights import Head
from support.arrays import assert_same_bits
from support.quantization_reports import B, H, I, Problem, T, errors

pytestmark = [pytest.mark.default_isa, pytest.mark.wheel]


def test_answers_and_decisions() -> None:
    problem = Problem(1)
    y, _ = problem.layer(problem.x)
    low, _ = problem.quantized(problem.x)
    edge = (y[10, 2, 0] + low[10, 2, 0]) / 2  # this decision changes
    weight, bias = np.zeros((3, H), np.float32), np.array([0, edge, -2], np.float32)
    weight[0, 0] = 1
    z, low_z = (each @ weight.T + bias for each in (y, low))
    changed = int((z.argmax(axis=-1) != low_z.argmax(axis=-1)).sum())
    assert changed > 0
    for head in ((weight, bias), Head(weight, bias)):
        report = problem.report(head=head)
        assert report.answers == pytest.approx(errors(z, low_z), rel=1e-3)
        assert report.decisions == ("largest of 3", changed, T * B)
    assert f"{changed} of {T * B} change" in str(report)

    above = problem.report(head=(weight, bias), threshold=edge).decisions
    assert above == (f"above {edge:g}", changed, 3 * T * B)
    one = problem.report(head=(weight[:1], -bias[1:2])).decisions
    assert one == ("above 0", changed, T * B)
    of_y = problem.report(threshold=0.0).decisions
    assert of_y == ("above 0", int(((y > 0) != (low > 0)).sum()), T * B * H)
    assert problem.report().decisions is None
    assert problem.report().answers is None


def test_a_head_of_the_user() -> None:
    problem = Problem(1)
    weight = np.random.default_rng(8).normal(size=(2, H)).astype(np.float32)
    y, low = problem.layer(problem.x)[0], problem.quantized(problem.x)[0]

    def head(y: np.ndarray) -> np.ndarray:
        return np.maximum(y, 0) @ weight.T

    seen: list[Any] = []

    def metric(answers: Any, _: Any) -> float:
        seen.append(answers)
        return 0

    report = problem.report(head=head, metric=metric, targets=1)
    assert report.answers == pytest.approx(errors(head(y), head(low)), rel=1e-5)
    assert report.decisions is not None
    assert report.decisions.rule == "largest of 2"
    assert np.allclose(seen[1], head(low), atol=1e-6)
    with pytest.raises(ValueError, match=r"head: returned shape \(1, 1\) for y \(1, 1, 9\)"):
        problem.report(head=lambda y: y[..., 0])
    with pytest.raises(TypeError, match="head: got values of dtype <U1"):
        problem.report(head=lambda y: np.full(y.shape, "a"))


@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
@pytest.mark.parametrize("each_step", [True, False])
@pytest.mark.parametrize("directions", [1, 2])
def test_networks(directions: int, each_step: bool, loss: Any) -> None:
    """Answers are those of the network, and of the same with the layer quantised."""
    problem = Problem(directions)
    network = Network(problem.layer, 2, loss=loss, each_step=each_step, seed=0)
    given: dict[str, Any] = {"lengths": np.maximum(problem.lengths, 1)}
    z = network(problem.x, **given)
    low_y, (low_h, _) = problem.quantized(problem.x, **given)
    features = low_y if each_step else np.concatenate(low_h[-directions:], axis=-1)
    low_z = features @ network.state_dict()["head.weight"].T + network.state_dict()["head.bias"]
    there = np.arange(T)[:, np.newaxis] < given["lengths"]
    z, low_z = (each[there] if each_step else each for each in (z, low_z))
    report = problem.report(head=network, **given)
    assert report.answers == pytest.approx(errors(z, low_z), rel=1e-3)
    if loss == "mse":
        assert report.decisions is None
        one = Network(problem.layer, 1, each_step=each_step, seed=0)
        assert problem.report(head=one).decisions is None
        assert problem.report(head=one, threshold=0).decisions is not None
    else:
        assert report.decisions is not None
        assert report.decisions.total == len(z)
        assert report.decisions.changed == (z.argmax(-1) != low_z.argmax(-1)).sum()


# metrics


def rows_of(problem: Problem, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Answers (T, B, K) before and after."""
    return tuple(layer(problem.x)[0] @ weight.T for layer in (problem.layer, problem.quantized))  # type: ignore[return-value]


@pytest.mark.parametrize("metric", ["mse", "rmse", "cross_entropy", "accuracy"])
@pytest.mark.parametrize("ragged", [False, True])
def test_metrics(metric: str, ragged: bool) -> None:
    problem = Problem(1)
    rng = np.random.default_rng(3)
    weight, bias = rng.normal(size=(4, H)).astype(np.float32), np.zeros(4, np.float32)
    there = problem.present if ragged else np.ones((T, B), np.bool_)
    classes = metric in ("cross_entropy", "accuracy")
    targets: np.ndarray = rng.integers(0, 4, (T, B)) if classes else rng.normal(size=(T, B, 4))
    targets = np.where(there if classes else there[..., np.newaxis], targets, -7)  # padding
    y = targets[there]

    def score(z: np.ndarray) -> float:
        z = z[there].astype(np.float64)
        if metric == "accuracy":
            return float(np.mean(z.argmax(axis=-1) == y))
        if metric == "cross_entropy":
            logarithms = np.log(np.exp(z).sum(axis=-1)) - z[np.arange(len(z)), y]
            return float(np.mean(logarithms))
        mse = float(np.mean((z - y) ** 2))
        return mse if metric == "mse" else math.sqrt(mse)

    report = problem.report(
        head=(weight, bias),
        metric=metric,
        targets=targets,
        lengths=problem.lengths if ragged else None,
    )
    assert report.metric is not None
    before, after = map(score, rows_of(problem, weight))
    assert report.metric.name == metric
    assert report.metric[1:] == pytest.approx((before, after), rel=1e-5)
    assert f"{metric}: {report.metric.before:.6g} -> {report.metric.after:.6g}" in str(report)


def test_metrics_of_one_number() -> None:
    problem = Problem(1)
    rng = np.random.default_rng(4)
    weight = rng.normal(size=(1, H)).astype(np.float32)
    head = weight, np.zeros(1, np.float32)
    z, low_z = (each[..., 0].astype(np.float64) for each in rows_of(problem, weight))
    y = rng.integers(0, 2, (T, B))
    found = problem.report(head=head, metric="accuracy", targets=y).metric
    assert found is not None
    assert found[1:] == pytest.approx((np.mean((z > 0) == y), np.mean((low_z > 0) == y)))
    found = problem.report(head=head, metric="accuracy", targets=y, threshold=0.1).metric
    assert found is not None
    assert found.before == pytest.approx(np.mean((z > np.float32(0.1)) == y))
    found = problem.report(head=head, metric="cross_entropy", targets=y != 0).metric
    assert found is not None
    p = 1 / (1 + np.exp(-z))
    assert found.before == pytest.approx(-np.mean(np.log(np.where(y, p, 1 - p))), rel=1e-6)
    found = problem.report(head=head, metric="mse", targets=y).metric
    assert found is not None
    assert found.after == pytest.approx(np.mean((low_z - y) ** 2), rel=1e-5)


def test_a_metric_of_the_user() -> None:
    """It gets answers as a call gives them, in each layout, and the targets untouched."""
    problem = Problem(1)
    targets = object()
    seen: list[Any] = []

    def metric(answers: Any, given: Any) -> float:
        assert given is targets
        seen.append(answers)
        return len(seen)

    report = problem.report(metric=metric, targets=targets)
    assert report.metric == ("metric", 1, 2)
    assert_same_bits(seen[0], problem.layer(problem.x)[0])
    assert_same_bits(seen[1], problem.quantized(problem.x)[0])

    seen.clear()
    quantization_report(
        problem.layer,
        problem.quantized,
        problem.x[:, 0],
        metric=metric,
        targets=targets,
        timed=False,
    )
    assert_same_bits(seen[0], problem.layer(problem.x[:, 0])[0])

    seen.clear()
    problem.report(metric=metric, targets=targets, lengths=problem.lengths)
    assert_same_bits(seen[0], problem.layer(problem.x, lengths=problem.lengths)[0])

    targets = [1, 2]  # type: ignore[assignment]
    seen.clear()
    pair = [problem.x, problem.x[:4, 0]]
    quantization_report(
        problem.layer, problem.quantized, pair, metric=metric, targets=targets, timed=False
    )
    for x, y in zip(pair, seen[1], strict=True):
        assert_same_bits(y, problem.quantized(x)[0])

    turned = BiLSTM(I, H, batch_first=True, return_sequences=False, seed=0)
    x = problem.x.swapaxes(0, 1)
    seen.clear()
    quantization_report(turned, quantize(turned, 8), x, metric=metric, targets=targets, timed=False)
    assert_same_bits(seen[0], turned(x)[0])
