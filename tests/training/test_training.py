"""Training: what it learns, its gradients, PyTorch's on the same batches, the loop, and files."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastlstm import LSTM, optim, weights
from fastlstm._linear import linear
from fastlstm.training import (
    Embedding,
    Epoch,
    Network,
    Scaling,
    Score,
    Sequences,
    Trainer,
    UnscaledWarning,
    cosine,
    evaluate,
    plot_history,
)
from fastlstm.training.losses import LOSSES, weighted
from fastlstm.training.sequences import generator
from support.arrays import assert_same_bits
from support.optional import require
from support.training_runs import CE, MSE, B, I, K, T, make_network, make_trainer, random_data

pytestmark = pytest.mark.default_isa

Made = tuple[np.ndarray, np.ndarray]


# what it learns


def adding_problem(rng: np.random.Generator, steps: int, count: int) -> Made:
    """Add the two numbers of a sequence that are marked (Hochreiter and Schmidhuber 1997).

    Without a memory nothing beats the answer 1, whose mean squared error is 1/6.
    """
    x = np.zeros((steps, count, 2))
    x[..., 0] = rng.random((steps, count))
    marks = rng.integers([[0], [steps // 2]], [[steps // 2], [steps]], (2, count))
    x[marks, np.arange(count), 1] = 1
    return x, (x[..., 0] * x[..., 1]).sum(axis=0)[:, None]


def test_learns_the_adding_problem() -> None:
    data = Sequences(*adding_problem(np.random.default_rng(0), 20, 1500))
    training, validation = data.split(0.2, seed=0)
    network = Network(LSTM(2, 24, forget_bias=1.0, seed=0), 1, each_step=False, seed=0)
    trainer = Trainer(network, training, validation, optim.Adam(1e-2), epochs=18, batch_size=50)
    trainer.fit()
    network.load_parameters(trainer.best_parameters)
    assert evaluate(network, validation).loss < 0.02
    assert trainer.history[0].validation.loss > 0.14  # it was not learnt at once, by chance


def test_learns_to_copy() -> None:
    # Two symbols out of 8, five steps of nothing, two steps to repeat them. Without a memory
    # nothing beats a guess, whose cross-entropy is ln 8 = 2.08.
    count, symbols, length, delay = 1000, 8, 2, 5
    rng = np.random.default_rng(0)
    steps = length + delay + length
    said = rng.integers(0, symbols, (length, count))
    x = np.zeros((steps, count, symbols + 1))
    x[:length] = np.eye(symbols + 1)[said]
    x[-length:, :, symbols] = 1
    y, counted = np.zeros((steps, count), np.int64), np.zeros((steps, count), np.bool_)
    y[-length:], counted[-length:] = said, True
    training, validation = Sequences(x, y, counted).split(0.2, seed=0)
    network = Network(LSTM(symbols + 1, 32, forget_bias=1.0, seed=0), symbols, loss=CE, seed=0)
    options: dict[str, Any] = {"epochs": 20, "batch_size": 50, "schedule": "cosine"}
    trainer = Trainer(network, training, validation, optim.Adam(2e-2), **options)
    trainer.fit()
    last = trainer.history[-1].validation
    assert last is not None
    assert last.loss < 0.3
    assert last.accuracy > 0.95
    assert last.weight == length * len(validation)


# losses and gradients


@pytest.mark.parametrize("loss", [MSE, CE])
@pytest.mark.parametrize("with_weights", [False, True])
def test_loss_and_gradient_are_torch_s(loss: str, with_weights: bool) -> None:
    torch = require("torch")
    data = random_data(loss, each_step=True, weighted=with_weights)
    z = np.random.default_rng(8).normal(scale=3, size=(T, B, K))
    score, dz = weighted(LOSSES[loss], z, data.y, data.weights)
    theirs = torch.from_numpy(z).requires_grad_()
    y = torch.from_numpy(data.y)
    w = torch.from_numpy(data.weights) if with_weights else torch.ones(T, B)
    if loss == MSE:
        each = torch.nn.functional.mse_loss(theirs, y, reduction="none").mean(-1)
    else:
        each = torch.nn.functional.cross_entropy(theirs.movedim(-1, 1), y, reduction="none")
    expected = (each * w).sum() / w.sum()
    expected.backward()
    assert score.loss == pytest.approx(expected.item(), rel=1e-13)
    np.testing.assert_allclose(dz, theirs.grad.numpy(), rtol=1e-12, atol=1e-15)
    if loss == CE:
        right = (theirs.argmax(-1) == y) * w
        assert score.accuracy == pytest.approx(float(right.sum() / w.sum()))


def test_cross_entropy_survives_large_answers() -> None:
    z = np.array([[1000.0, 0.0], [-1000.0, 1000.0]], np.float32)
    score, dz = weighted(LOSSES[CE], z, np.array([0, 0]), None)
    assert score.loss == 1000
    np.testing.assert_array_equal(dz, [[0, 0], [-0.5, 0.5]])


def test_an_answer_of_weight_zero_does_not_count() -> None:
    z = np.array([[1.0], [np.inf], [np.nan]])
    score, dz = weighted(LOSSES[MSE], z, np.zeros((3, 1)), np.array([2.0, 0.0, 0.0]))
    assert score == Score(2.0, 2.0, 0.0)
    np.testing.assert_array_equal(dz, [[2], [0], [0]])
    score, dz = weighted(LOSSES[MSE], z, np.zeros((3, 1)), np.zeros(3))
    assert math.isnan(score.loss)
    assert not dz.any()


@pytest.mark.parametrize("loss", [MSE, CE])
@pytest.mark.parametrize("each_step", [False, True])
@pytest.mark.parametrize(("layers", "directions"), [(1, 1), (2, 1), (1, 2), (2, 2)])
def test_gradient_equals_differences(
    loss: str, each_step: bool, layers: int, directions: int
) -> None:
    data = random_data(loss, each_step, weighted=True)
    network = make_network(data, layers, directions)
    score, gradient = network.gradient(data.x, data.y, data.weights)
    assert score == network.score(data.x, data.y, data.weights)
    start, step = network.parameters.copy(), 1e-5
    rng = np.random.default_rng(5)
    directions_tried = [np.eye(1, start.size, k)[0] for k in range(-1, -K - 1, -1)]  # head.bias
    directions_tried += list(rng.normal(size=(6, start.size)))
    for direction in directions_tried:
        losses = []
        for sign in (1, -1):
            network.load_parameters(start + sign * step * direction)
            losses.append(network.score(data.x, data.y, data.weights).loss)
        difference = (losses[0] - losses[1]) / (2 * step)
        assert gradient @ direction == pytest.approx(difference, rel=1e-6, abs=1e-9)


# PyTorch on the same batches


class Case:
    """A network and an optimiser in both libraries."""

    def __init__(
        self,
        loss: str,
        each_step: bool,
        sizes: tuple[int, int],
        optimizer: Callable[[], optim.SGD | optim.Adam],
        theirs: tuple[str, dict[str, float]],
    ) -> None:
        self.loss, self.each_step, self.sizes = loss, each_step, sizes
        self.optimizer, self.theirs = optimizer, theirs


CASES = [
    Case(MSE, False, (1, 1), lambda: optim.Adam(1e-2), ("Adam", {"lr": 1e-2})),
    Case(MSE, True, (2, 2), lambda: optim.AdamW(1e-2), ("AdamW", {"lr": 1e-2})),
    Case(CE, False, (1, 2), lambda: optim.Adam(1e-2), ("Adam", {"lr": 1e-2})),
    Case(
        CE,
        True,
        (2, 1),
        lambda: optim.SGD(0.1, momentum=0.9),
        ("SGD", {"lr": 0.1, "momentum": 0.9}),
    ),
]


@pytest.fixture
def one_thread() -> Iterator[Any]:
    """PyTorch on one thread: on more it takes far longer for networks as small as these."""
    torch = require("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield torch
    torch.set_num_threads(before)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.loss}-{case.theirs[0]}")
def test_training_is_torch_s(case: Case, dtype: Any, one_thread: Any) -> None:
    torch = one_thread
    layers, directions = case.sizes
    data = random_data(case.loss, case.each_step)
    network = make_network(data, layers, directions, dtype)
    options: dict[str, Any] = {"epochs": 8, "batch_size": 4, "clip": 0.3, "schedule": "cosine"}
    trainer = Trainer(network, data, None, case.optimizer(), seed=9, **options)

    lstm = torch.nn.LSTM(I, 5, layers, bidirectional=directions == 2)
    head = torch.nn.Linear(directions * 5, K)
    model = torch.nn.ModuleDict({"lstm": lstm, "head": head}).to(getattr(torch, dtype.__name__))
    model.load_state_dict(
        {
            name if name.startswith("head") else f"lstm.{name}": torch.from_numpy(value.copy())
            for name, value in network.state_dict().items()
        }
    )
    optimizer = getattr(torch.optim, case.theirs[0])(model.parameters(), **case.theirs[1])
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, trainer.total_steps)
    criterion = torch.nn.MSELoss() if case.loss == MSE else torch.nn.CrossEntropyLoss()
    for epoch in range(trainer.epochs):
        order = generator(9, 1, epoch).permutation(B)
        for start in range(0, B, 4):
            x, y, _ = data.batch(order[start : start + 4])
            out, (h_n, _) = lstm(torch.from_numpy(x.astype(dtype)))
            z = head(out if case.each_step else torch.cat(list(h_n[-directions:]), -1))
            y = torch.from_numpy(y.astype(dtype) if case.loss == MSE else y)
            loss = criterion(z.reshape(-1, K), y.reshape(-1, K) if case.loss == MSE else y.ravel())
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 0.3)
            optimizer.step()
            schedule.step()
            assert trainer.step().loss == pytest.approx(loss.item(), rel=0.02)
    expected = np.concatenate([p.detach().numpy().ravel() for p in model.parameters()])
    tolerance = {np.float32: 1e-3, np.float64: 1e-9}[dtype]
    np.testing.assert_allclose(network.parameters, expected, atol=tolerance)


# the loop


def test_every_sequence_is_seen_once_in_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make_trainer()
    seen: list[list[int]] = []
    original = Sequences.batch

    def batch(self: Sequences, positions: Any) -> Any:
        if self is trainer.training:
            seen[-1].extend(positions.tolist())
        return original(self, positions)

    monkeypatch.setattr(Sequences, "batch", batch)
    while not trainer.finished:
        if trainer.position == 0:
            seen.append([])
        trainer.step()
    assert len(trainer.training) == 8
    assert all(sorted(epoch) == list(range(8)) for epoch in seen)
    assert len(seen) == len({tuple(epoch) for epoch in seen}) == 4
    assert [epoch.training.weight for epoch in trainer.history] == [8.0] * 4


def test_early_stopping_keeps_the_best_weights() -> None:
    # What validates contradicts what trains, so learning makes it worse.
    x, y = np.random.default_rng(0).normal(size=(T, 8, I)), np.ones((8, K))
    network = make_network(data := Sequences(x, y))
    trainer = Trainer(network, data, Sequences(x, -y), optim.Adam(1e-2), epochs=50, patience=3)
    trainer.step()
    after_first = network.parameters.copy()
    trainer.fit()
    assert trainer.best_epoch == 1
    assert len(trainer.history) == 4
    assert trainer.finished
    assert_same_bits(trainer.best_parameters, after_first)
    losses = [epoch.validation.loss for epoch in trainer.history if epoch.validation]
    assert losses[0] == min(losses)


def test_without_validation_the_last_weights_are_the_best() -> None:
    trainer = make_trainer(fraction=0)
    trainer.fit()
    assert_same_bits(trainer.best_parameters, trainer.network.parameters.copy())
    assert trainer.best_epoch == 0


def test_divergence_is_an_error_that_changes_nothing() -> None:
    data = random_data()
    data.x[2, 4, 1] = np.nan
    trainer, untouched = (
        make_trainer(data, fraction=0, batch_size=B),
        make_trainer(data, fraction=0),
    )
    with pytest.raises(FloatingPointError, match=r"diverged: loss nan.*smaller lr"):
        trainer.fit()
    assert_same_bits(trainer.network.parameters.copy(), untouched.network.parameters.copy())
    assert trainer.steps == 0


def test_a_validation_loss_must_be_finite() -> None:
    data = random_data()
    other = Sequences(np.full_like(data.x, np.nan), data.y)
    trainer = Trainer(make_network(data), data, other, optim.Adam(), batch_size=B)
    with pytest.raises(FloatingPointError, match="diverged: validation loss nan"):
        trainer.fit()
    assert (trainer.steps, trainer.history) == (0, [])


def test_cosine_schedule_is_torch_s() -> None:
    torch = require("torch")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 50)
    for step in range(50):
        assert cosine(0.3, step, 50) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        optimizer.step()
        schedule.step()


# sequences


def test_split() -> None:
    data = random_data(weighted=True)
    data.weights[...] += 1
    first, second = data.split(0.3, seed=2)
    assert (len(first), len(second)) == (8, 3)
    assert sorted([*first.rows, *second.rows]) == list(range(B))
    assert list(first.rows) == sorted(first.rows)
    assert np.shares_memory(first.x, data.x)
    again = data.split(0.3, seed=2)[1].rows
    others = {tuple(data.split(0.3, seed=seed)[1].rows) for seed in range(5)}
    np.testing.assert_array_equal(second.rows, again)
    assert len(others) > 1
    assert [len(part) for part in data.split(0.001)] == [B - 1, 1]
    assert [len(part) for part in data.split(0.999)] == [1, B - 1]
    for got, array in zip(
        second.batch(np.array([2, 0])), (data.x, data.y, data.weights), strict=True
    ):
        axis = 1 if array is data.x else 0
        np.testing.assert_array_equal(got, np.take(array, second.rows[[2, 0]], axis))


def test_a_memory_map_stays_on_disk(tmp_path: Path) -> None:
    data = random_data()
    np.save(tmp_path / "x.npy", data.x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    kept = Sequences(mapped, data.y)
    assert np.shares_memory(kept.x, mapped)
    assert kept.digest() == data.digest()


# files and pictures


@pytest.mark.parametrize("directions", [1, 2])
def test_state_dict_is_what_files_hold(directions: int, dtype: Any, tmp_path: Path) -> None:
    data = random_data(each_step=True)
    network = make_network(data, 2, directions, dtype)
    network.train_step(optim.Adam(), data.x, data.y)
    network.save(tmp_path / "m.npz")
    found = weights.read(tmp_path / "m.npz").choose()
    head = found.head
    assert head is not None
    y, _ = found.build()(data.x)
    expected = y @ head.weight.T + head.bias
    np.testing.assert_allclose(network(data.x), expected, rtol=1e-5, atol=1e-6)
    assert_same_bits(network(data.x), linear(y, head.weight, head.bias))
    assert network.lstm.state_dict().keys() == found.arrays.keys()
    other = make_network(data, 2, directions, dtype)
    with np.load(tmp_path / "m.npz") as file:
        other.load_state_dict({name: file[name] for name in file if name != "fastlstm"})
    assert_same_bits(other.parameters.copy(), network.parameters.copy())
    state = dict(network.state_dict())
    for wrong, message in (
        ({**state, "more": 1}, "more"),
        ({**state, "head.bias": np.zeros(1)}, r"head\.bias: got shape \(1,\)"),
    ):
        with pytest.raises(ValueError, match=message):
            other.load_state_dict(wrong)


@pytest.mark.parametrize("loss", [MSE, CE])
@pytest.mark.parametrize("directions", [1, 2])
def test_scaling_is_undone_in_the_weights(loss: str, directions: int) -> None:
    raw = random_data(loss)
    shift, factor = np.array([5.0, -3.0, 100.0]), np.array([2.0, 0.1, 0.0])  # the last is constant
    y = raw.y if raw.classes else 7 + 30 * raw.y
    data = Sequences(shift + factor * raw.x, y)
    scaling = Scaling.fit(data)
    scaled = scaling.apply(data, np.dtype(np.float64))
    np.testing.assert_allclose(scaled.x.mean(axis=(0, 1)), 0, atol=1e-12)
    np.testing.assert_allclose(scaled.x.std(axis=(0, 1)), [1, 1, 0], atol=1e-12)
    if loss == MSE:
        np.testing.assert_allclose(scaled.y.mean(axis=0), 0, atol=1e-12)
        assert scaled.y.var(axis=0).mean() == pytest.approx(1)
    network = make_network(data, 2, directions)
    answers = network(scaled.x)
    undone = scaling.undo(network.state_dict())
    network.load_state_dict(undone)
    expected = answers * scaling.y_scale + scaling.y_mean
    np.testing.assert_allclose(network(data.x), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("of_x", "of_y", "words"),
    [
        ([1, 1], 1, None),
        ([1, 500], 1, "training: inputs are about 5.*, which makes training hard; Scaling.fit"),
        ([1, 0.001], 1, "training: inputs are between 0.00"),
        ([1, 1], 500, "training: answers are about "),
    ],
)
def test_numbers_that_call_for_scaling_are_told_of_once(
    of_x: list[float], of_y: float, words: str | None
) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(6, 9, 2)) * of_x, rng.normal(size=(6, 9, 1)) * of_y
    data = Sequences(x.astype(np.float32), y)
    network = Network(LSTM(2, 4, seed=0), 1, seed=0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer = Trainer(network, data, data, optim.Adam(), epochs=2)
        trainer.fit()
        Trainer(network, Scaling.fit(data).apply(data, network.lstm.dtype), None, optim.Adam())
    assert [w.category for w in caught] == ([] if words is None else [UnscaledWarning])
    assert all(re.match(words or "", str(w.message)) for w in caught)
    assert all(w.filename == __file__ for w in caught)


def test_integers_of_an_embedding_call_for_no_scaling() -> None:
    data = Sequences(np.arange(54).reshape(6, 9) * 20, np.zeros((6, 9, 1)))
    network = Network(LSTM(2, 4, seed=0), 1, embedding=Embedding(2000, 2), seed=0)
    Trainer(network, data, None, optim.Adam())


def test_scaling_leaves_constants_as_they_are() -> None:
    # The mean of many 0.1 is rounded, so that their standard deviation is about 1e-15.
    scaling = Scaling.fit(Sequences(np.full((T, 500, I), 0.1), np.full((500, K), 0.1)))
    np.testing.assert_array_equal(scaling.x_scale, 1)
    assert scaling.y_scale == 1


@pytest.mark.parametrize("each_step", [False, True])
def test_scaling_does_without_what_is_masked(each_step: bool) -> None:
    data = random_data(each_step=each_step)
    x, y, w = data.x.copy(), data.y.copy(), np.ones(data.y.shape[:-1])
    masked = np.s_[3:, 4:] if each_step else np.s_[4:]
    w[masked], y[masked] = 0, 1e6
    x[3 if each_step else 0 :, 4:] = 1e6
    scaling = Scaling.fit(Sequences(x, y, w))
    kept = data.y[w > 0]
    np.testing.assert_allclose(scaling.y_mean, kept.mean(axis=0))
    assert scaling.y_scale == pytest.approx(float(np.sqrt(kept.var(axis=0).mean())))
    assert scaling.x_scale.max() < 10


def test_picture(tmp_path: Path) -> None:
    require("matplotlib")
    history = [Epoch(Score(1.0, 1 / n), Score(1.0, 2 / n)) for n in range(1, 5)]
    plot_history(history, tmp_path / "p.png")
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG\r\n")
    plot_history([Epoch(Score(1.0, 1.0), None)], tmp_path / "p.svg")
