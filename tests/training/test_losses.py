"""Losses and their gradients beside PyTorch's, and losses of one's own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastlstm import LSTM
from fastlstm.training import HeadSpec, Network, Score, check_loss
from fastlstm.training.losses import cross_entropy
from support.arrays import assert_same_bits
from support.optional import require

pytestmark = pytest.mark.default_isa

OUTER, K = (6, 5), 4
QUANTILES = (0.1, 0.5, 0.75)


def numbers(*shape: int, seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).normal(scale=2, size=shape)


def spec_of(loss: str, **options: Any) -> HeadSpec:
    quantiles = QUANTILES if loss == "pinball" else None
    return HeadSpec(K, loss=loss, quantiles=quantiles, **options)


def answers_to(spec: HeadSpec) -> np.ndarray:
    rng = np.random.default_rng(4)
    if spec.kind == "class":
        return rng.integers(0, K, OUTER)
    y = rng.normal(scale=2, size=(*OUTER, K))
    return (y > 0).astype(float) if spec.kind == "labels" else y


def theirs_by_answer(torch: Any, spec: HeadSpec, z: Any, y: Any) -> Any:
    """PyTorch's loss of each answer."""
    functional = torch.nn.functional
    by_number = {
        "mse": functional.mse_loss,
        "mae": functional.l1_loss,
        "huber": functional.huber_loss,
    }
    if spec.loss in by_number:
        return by_number[spec.loss](z, y, reduction="none").mean(-1)
    if spec.loss == "pinball":
        q = torch.tensor(QUANTILES, dtype=z.dtype)
        error = y[..., None] - z.reshape(*OUTER, K, len(QUANTILES))
        return torch.maximum(q * error, (q - 1) * error).mean((-1, -2))
    if spec.loss == "cross_entropy":
        return functional.cross_entropy(z.movedim(-1, 1), y, reduction="none")
    weight = None if spec.class_weights is None else torch.tensor(spec.class_weights).to(z.dtype)
    each = functional.binary_cross_entropy_with_logits(z, y, weight=weight, reduction="none")
    return each.mean(-1)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    "loss", ["mse", "mae", "huber", "pinball", "cross_entropy", "binary_cross_entropy"]
)
def test_losses_are_torch_s(loss: str, weighted: bool) -> None:
    torch = require("torch")
    spec = spec_of(loss)
    z, y = numbers(*OUTER, spec.width), answers_to(spec)
    weights = np.random.default_rng(9).random(OUTER) if weighted else None
    score, dz = spec.score(z, y, weights)
    theirs = torch.from_numpy(z).requires_grad_()
    each = theirs_by_answer(torch, spec, theirs, torch.from_numpy(y))
    w = torch.ones(OUTER, dtype=torch.float64) if weights is None else torch.from_numpy(weights)
    mean = (w * each).sum() / w.sum()
    mean.backward()
    assert score.loss == pytest.approx(float(mean.detach()), rel=1e-13)
    assert score.weight == pytest.approx(float(w.sum()), rel=1e-15)
    np.testing.assert_allclose(dz, theirs.grad.numpy(), rtol=1e-12, atol=1e-15)
    _, in_float32 = spec.score(z.astype(np.float32), y, weights)
    assert in_float32.dtype == np.float32
    np.testing.assert_allclose(in_float32, dz, rtol=1e-4, atol=1e-6)


def test_class_weights_are_torch_s() -> None:
    torch = require("torch")
    functional = torch.nn.functional
    weights = (0.5, 2.0, 0.0, 3.0)
    z = numbers(30, K)
    theirs = torch.from_numpy(z).requires_grad_()
    spec = spec_of("cross_entropy", class_weights=weights)
    y = np.random.default_rng(1).integers(0, K, 30)
    weight = torch.tensor(weights, dtype=torch.float64)
    mean = functional.cross_entropy(theirs, torch.from_numpy(y), weight=weight)
    mean.backward()
    score, dz = spec.score(z, y, None)
    assert score.loss == pytest.approx(float(mean.detach()), rel=1e-13)
    np.testing.assert_allclose(dz, theirs.grad.numpy(), rtol=1e-12, atol=1e-15)
    both = np.random.default_rng(2).random(30)
    assert spec.score(z, y, both)[0].weight == pytest.approx((both * np.array(weights)[y]).sum())

    labels = spec_of("binary_cross_entropy", class_weights=weights)
    y = (numbers(30, K, seed=5) > 0).astype(float)
    theirs.grad = None
    mean = functional.binary_cross_entropy_with_logits(theirs, torch.from_numpy(y), weight=weight)
    mean.backward()
    score, dz = labels.score(z, y, None)
    assert score.loss == pytest.approx(float(mean.detach()), rel=1e-13)
    np.testing.assert_allclose(dz, theirs.grad.numpy(), rtol=1e-12, atol=1e-15)


def test_what_is_right() -> None:
    spec = HeadSpec(2, loss="binary_cross_entropy")
    z = np.array([[3.0, -3.0], [3.0, 3.0], [-1.0, -1.0]])
    score, _ = spec.score(z, np.array([[True, False], [True, False], [False, False]]), None)
    assert (score.accuracy, score.weight) == (2 / 3, 3.0)
    score, _ = HeadSpec(2, loss="cross_entropy").score(z, np.array([0, 1, 0]), None)
    assert score.accuracy == 2 / 3  # the first of equal ones


@pytest.mark.parametrize("loss", ["cross_entropy", "binary_cross_entropy"])
def test_large_answers_overflow_nothing(loss: str) -> None:
    spec = HeadSpec(2, loss=loss)
    z = np.array([[1e30, -1e30], [-1e30, 1e30]], np.float32)
    y = np.array([0, 0]) if loss == "cross_entropy" else np.array([[1.0, 0.0], [1.0, 0.0]])
    score, dz = spec.score(z, y, np.array([1.0, 0.0]))
    assert (score.loss, score.accuracy) == (0.0, 1.0)
    assert_same_bits(dz, np.zeros((2, 2), np.float32))
    score, dz = spec.score(z, y, None)
    assert np.isfinite(dz).all()
    assert score.loss == pytest.approx(1e30 if loss == "cross_entropy" else 5e29)


def test_many_classes_in_any_company() -> None:
    spec = HeadSpec(5000, loss="cross_entropy")
    z, y = numbers(50, 5000).astype(np.float32), np.random.default_rng(0).integers(0, 5000, 50)
    _, dz = spec.score(z, y, None)
    scale = np.full(1, 1 / 50, np.float32)
    parts = [cross_entropy(z[i : i + 1], y[i : i + 1], scale) for i in range(50)]
    assert_same_bits(dz, np.concatenate([gradient for _, gradient, _ in parts]))
    each, _, right = cross_entropy(z, y)
    assert_same_bits(each, np.concatenate([loss for loss, _, _ in parts]))
    np.testing.assert_array_equal(right, z.argmax(axis=-1) == y)


# losses of one's own


def asymmetric(z: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Squared errors, and three times as bad where z is too small."""
    error = z - y
    factor = np.where(error < 0, 3.0, 1.0)
    return (factor * error**2).sum(axis=-1), 2 * factor * error


def test_a_loss_of_one_s_own() -> None:
    x, y = numbers(5, 3, 2), numbers(5, 3, 2, seed=8)
    for each_step in (True, False):
        answers = y if each_step else y[0]
        network = Network(LSTM(2, 4, dtype=np.float64, seed=0), 2, loss=asymmetric, check=True,
                          each_step=each_step, seed=0)  # fmt: skip
        score, gradient = network.gradient(x, answers)
        each, _ = asymmetric(network(x), answers)
        assert score == Score(each.size, pytest.approx(each.sum()), 0.0)
        vector, step = network.parameters.copy(), 1e-5
        for i in range(0, vector.size, 7):
            moved = np.eye(1, vector.size, i)[0] * step
            values = []
            for sign in (1, -1):
                network.load_parameters(vector + sign * moved)
                values.append(network.score(x, answers).loss)
            network.load_parameters(vector)
            assert gradient[i] == pytest.approx((values[0] - values[1]) / 2 / step, abs=1e-7)


def test_a_gradient_that_is_none_is_found() -> None:
    z, y = numbers(7, 3), numbers(7, 3, seed=1)
    check_loss(asymmetric, z, y)

    def half(z: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return asymmetric(z, y)[0], asymmetric(z, y)[1] / 2

    with pytest.raises(ValueError, match=r"loss: returned the gradient .* differences .* give"):
        check_loss(half, z, y)
    network = Network(LSTM(2, 4, seed=0), 3, loss=half, check=True, seed=0)
    with pytest.raises(ValueError, match="loss: returned the gradient"):
        network.gradient(np.ones((4, 2, 2)), np.ones((4, 2, 3)))
    Network(LSTM(2, 4, seed=0), 3, loss=half).gradient(np.ones((4, 2, 2)), np.ones((4, 2, 3)))


@pytest.mark.parametrize(
    ("result", "error", "message"),
    [
        (1.0, TypeError, r"loss: returned float, expected the losses \(7,\) and their gradient"),
        ((np.zeros(7), np.zeros(7)), ValueError, r"loss: returned shapes \(7,\) and \(7,\)"),
        ((np.zeros((7, 3)), np.zeros((7, 3))), ValueError, r"returned shapes \(7, 3\) and"),
        ((np.zeros(7), np.full((7, 3), "a")), TypeError, "loss: returned float64 and <U1"),
        ((np.zeros(7), np.full((7, 3), np.nan)), ValueError, "the gradient nan at"),
    ],
)
def test_what_a_loss_may_not_return(result: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        check_loss(lambda z, y: result, numbers(7, 3), numbers(7, 3))
