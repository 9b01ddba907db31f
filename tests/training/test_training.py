"""Training: what it learns, its gradients, PyTorch's on the same batches, resuming to the bit."""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastlstm
from fastlstm import LSTM, optim, weights
from fastlstm._linear import linear
from fastlstm.training import (
    Epoch,
    Network,
    Scaling,
    Score,
    Sequences,
    Trainer,
    checkpoint,
    cosine,
    evaluate,
    plot_history,
)
from fastlstm.training.losses import LOSSES, weighted
from fastlstm.training.sequences import generator
from support.arrays import assert_same_bits
from support.layers import layer_class
from support.optional import require

pytestmark = pytest.mark.default_isa

Made = tuple[np.ndarray, np.ndarray]
MSE, CE = "mse", "cross_entropy"
T, B, I, K = 6, 11, 3, 4


def random_data(
    loss: str = MSE, each_step: bool = False, weighted: bool = False, seed: int = 1
) -> Sequences:
    """B sequences whose answers mean nothing."""
    rng = np.random.default_rng(seed)
    answers = (T, B) if each_step else (B,)
    y = rng.normal(size=(*answers, K)) if loss == MSE else rng.integers(0, K, answers)
    w = rng.integers(0, 3, answers) / 2 if weighted else None
    return Sequences(rng.normal(size=(T, B, I)), y, w)


def make_network(
    data: Sequences, layers: int = 1, directions: int = 1, dtype: Any = np.float64
) -> Network:
    return Network(
        layer_class(directions)(I, 5, layers, dtype=dtype, seed=3),
        K,
        loss=CE if data.classes else MSE,
        each_step=data.each_step,
        seed=4,
    )


def make_trainer(
    data: Sequences | None = None,
    optimizer: optim.SGD | optim.Adam | None = None,
    fraction: float = 0.3,
    **options: Any,
) -> Trainer:
    """Return a run of 4 epochs with 4 steps each, the last of which is shorter."""
    data = random_data() if data is None else data
    training, validation = data.split(fraction, seed=2) if fraction else (data, None)
    optimizer = optim.Adam(1e-2) if optimizer is None else optimizer
    options = {"epochs": 4, "batch_size": 2, **options}
    network = make_network(data, dtype=np.float32)
    return Trainer(network, training, validation, optimizer, **options)


def assert_same_state(got: Trainer, expected: Trainer) -> None:
    """All that a checkpoint holds is the same, to the bit."""
    states = got.state_dict(), expected.state_dict()
    assert states[0].keys() == states[1].keys()
    for name in states[0]:
        assert_same_bits(*(np.asarray(state[name]) for state in states))


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


# to the bit


RUNS: list[dict[str, Any]] = [
    {},
    {"schedule": "cosine", "optimizer": lambda: optim.AdamW(1e-2, amsgrad=True)},
    {"optimizer": lambda: optim.SGD(0.1, momentum=0.9), "fraction": 0, "clip": math.inf},
    {"data": random_data(CE, each_step=True, weighted=True), "patience": 1},
]


@pytest.mark.parametrize("run", RUNS, ids=["adam", "adamw", "sgd", "classes"])
def test_killed_at_any_step_and_resumed(run: dict[str, Any], tmp_path: Path) -> None:
    def start() -> Trainer:
        return make_trainer(**{k: v() if k == "optimizer" else v for k, v in run.items()})

    whole = start()
    whole.fit()
    for steps in range(whole.steps + 1):
        first = start()
        for _ in range(steps):
            first.step()
        first.save(tmp_path / "c.npz")
        second = start()
        second.load(tmp_path / "c.npz")
        assert_same_state(second, first)
        second.fit()
        assert_same_state(second, whole)
        assert second.history == whole.history
        assert_same_bits(second.best_parameters, whole.best_parameters)


def test_threads_do_not_matter() -> None:
    results = []
    for threads in (1, 2, 3):
        with fastlstm.num_threads(threads):
            rng = np.random.default_rng(0)
            data = Sequences(rng.normal(size=(20, 64, 16)), rng.normal(size=(20, 64, 3)))
            network = Network(LSTM(16, 64, seed=0), 3, seed=0)
            Trainer(network, data, None, optim.Adam(), epochs=3, batch_size=32).fit()
            results.append(network.parameters)
    assert_same_bits(results[1], results[0])
    assert_same_bits(results[2], results[0])


def test_interrupted_and_continued(tmp_path: Path) -> None:
    whole, trainer = make_trainer(), make_trainer()
    whole.fit()
    before = signal.getsignal(signal.SIGINT)

    def interrupt(_: Score) -> None:
        if trainer.steps == 6:
            signal.raise_signal(signal.SIGINT)

    path = tmp_path / "c.npz"
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(path, callback=interrupt)
    assert signal.getsignal(signal.SIGINT) is before
    assert trainer.steps == 6
    resumed = make_trainer()
    resumed.load(path)
    assert_same_state(resumed, trainer)
    for continued in (trainer, resumed):
        continued.fit()
        assert_same_state(continued, whole)
    with pytest.raises(RuntimeError, match="finished"):
        trainer.step()


def test_interrupted_twice_leaves_at_once(tmp_path: Path) -> None:
    path = tmp_path / "c.npz"
    before = signal.getsignal(signal.SIGINT)

    def interrupt(_: Score) -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        make_trainer().fit(path, callback=interrupt)
    assert not path.exists()
    assert signal.getsignal(signal.SIGINT) is before


def test_fit_in_another_thread() -> None:
    here, there = make_trainer(), make_trainer()
    here.fit()
    thread = threading.Thread(target=there.fit)
    thread.start()
    thread.join()
    assert_same_state(there, here)


def test_checkpoints_come_when_they_should(tmp_path: Path) -> None:
    path, seen = tmp_path / "c.npz", []
    trainer = make_trainer()

    def look(_: Score) -> None:
        if path.exists():
            seen.append((trainer.steps, int(checkpoint.read(path)["steps"])))

    trainer.fit(path, every=3, callback=look)
    written = [3, 4, 6, 8, 9, 12, 15, 16]  # each third, and at the end of each epoch of 4
    assert seen == [(n, max(w for w in written if w <= n)) for n in range(3, 17)]
    assert {entry.name for entry in tmp_path.iterdir()} == {"c.npz"}


def test_a_checkpoint_is_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "c.npz"
    trainer = make_trainer()
    trainer.save(path)
    before = path.read_bytes()

    def disk_full(file: Any, **arrays: Any) -> None:
        file.write(b"PK")
        raise OSError(28, "No space left on device")

    trainer.step()
    monkeypatch.setattr(np, "savez", disk_full)
    with pytest.raises(OSError, match="No space"):
        trainer.save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_more_epochs_or_patience_continue_a_run(tmp_path: Path) -> None:
    path = tmp_path / "c.npz"
    make_trainer(epochs=2).fit(path)
    longer, whole = make_trainer(epochs=4, patience=3), make_trainer(epochs=4)
    longer.load(path)
    longer.fit()
    whole.fit()
    assert_same_state(longer, whole)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 3}, r"batch_size was 2, expected 3"),
        ({"seed": 1}, r"seed was 0, expected 1"),
        ({"clip": 2.0}, r"clip was 1\.0, expected 2\.0"),
        ({"schedule": "cosine"}, r"schedule was constant, expected cosine"),
        (
            {"optimizer": optim.Adam(1e-3)},
            r"optimizer was Adam\(lr=0\.01.*expected Adam\(lr=0\.001",
        ),
        ({"data": random_data(CE)}, r"network was Network\(.*'mse'.*expected .*'cross_entropy'"),
        ({"data": random_data(seed=2)}, r"training data was \w+, expected \w+"),
        ({"fraction": 0}, r"training data was"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "c.npz"
    make_trainer().fit(path)
    other, untouched = make_trainer(**change), make_trainer(**change)
    with pytest.raises(ValueError, match=rf"^{path}: {message}") as caught:
        other.load(path)
    assert len(str(caught.value).splitlines()) == 1
    assert_same_state(other, untouched)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("parameters", np.zeros(3)),
        ("best_parameters", np.zeros(3)),
        ("best_epoch", 7),
        ("steps", -1),
        ("steps", 3.5),
        ("running", np.zeros(2)),
        ("history", np.zeros((1, 2, 3))),  # as with another number of steps
        ("version", 99),
        ("option.version of fastlstm", "0.0.0"),
        ("option.version of NumPy", "0.0.0"),
        ("optimizer.lr", "fast"),
        ("optimizer.exp_avg", np.zeros(3)),
        ("option.seed", None),
    ],
)
def test_a_damaged_state_is_refused(name: str, value: Any, tmp_path: Path) -> None:
    trainer = make_trainer()
    trainer.fit()
    state = trainer.state_dict() | {name: value}
    if value is None:
        del state[name]
    other, untouched = make_trainer(), make_trainer()
    word = name.rpartition(".")[2].removeprefix("best_p")
    with pytest.raises((TypeError, ValueError), match=word):
        other.load_state_dict(state)
    assert_same_state(other, untouched)


def test_a_truncated_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.npz"
    make_trainer().save(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"c\.npz: "):
        make_trainer().load(path)
    with pytest.raises(FileNotFoundError):
        make_trainer().load(tmp_path / "missing.npz")


def test_a_checkpoint_holds_no_objects(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="seed, what: got a Python object"):
        checkpoint.write(tmp_path / "c.npz", {"seed": 2**64, "what": {}, "steps": 1})
    assert not list(tmp_path.iterdir())


def test_the_largest_seed_is_resumed(tmp_path: Path) -> None:
    trainer = make_trainer(seed=2**63 - 1)
    trainer.save(tmp_path / "c.npz")
    trainer.load(tmp_path / "c.npz")


def test_no_step_is_taken_without_a_folder_for_checkpoints(tmp_path: Path) -> None:
    trainer = make_trainer()
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        trainer.fit(tmp_path / "no" / "c.npz")
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"path": 3}, "path: got int, expected a string or a path"),
        ({"path": "a\0b"}, "path: got .*, which no file can be called"),
        ({"path": ""}, "not a regular file"),
        ({"path": tmp_path / ("x" * 300)}, "name too long"),
        ({"callback": 3}, "callback: got int, expected a function"),
        ({"every": 0}, "every: got 0"),
    ]
    for options, message in wrong:
        with pytest.raises((TypeError, ValueError, OSError), match=f"(?i){message}"):
            trainer.fit(**options)
    assert trainer.steps == 0


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
    data.weights += 1
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


@pytest.mark.parametrize(
    ("x", "y", "w", "message"),
    [
        (np.zeros((T, B)), np.zeros((B, 1)), None, r"x: got shape \(6, 11\), expected \(T, B, I\)"),
        (np.zeros((0, B, I)), np.zeros((B, 1)), None, r"x: got shape \(0, 11, 3\)"),
        (np.zeros((T, B, I), complex), np.zeros((B, 1)), None, "x: got values of dtype complex128"),
        (np.zeros((T, B, I)), np.zeros((B + 1, 1)), None, r"y: got shape \(12, 1\) of float64"),
        (np.zeros((T, B, I)), np.zeros((B, T, 1)), None, r"y: .* expected \(T, B, K\) or \(B, K\)"),
        (np.zeros((T, B, I)), np.zeros((T, B, 0)), None, r"y: got shape \(6, 11, 0\)"),
        (np.zeros((T, B, I)), np.zeros((T, B, 1), int), None, r"expected \(T, B\) or \(B,\)"),
        (np.zeros((T, B, I)), np.full(B, -1), None, "y: got class -1, expected"),
        (np.zeros((T, B, I)), np.zeros(B, "U1"), None, "y: got values of dtype <U1"),
        (np.zeros((T, B, I)), np.zeros(B, int), np.ones((T, B)), r"weights: got shape \(6, 11\)"),
        (np.zeros((T, B, I)), np.zeros(B, int), -np.ones(B), "weights: some are negative"),
        (np.zeros((T, B, I)), np.zeros(B, int), np.zeros(B), "weights: all are 0"),
    ],
)
def test_arrays_that_do_not_fit(x: Any, y: Any, w: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        Sequences(x, y, w)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "epochs: got 0"),
        ({"batch_size": 2.0}, "batch_size: got 2.0"),
        ({"schedule": "step"}, "schedule: got 'step', expected one of constant, cosine"),
        ({"clip": 0.0}, r"clip: got 0\.0"),
        ({"clip": "1"}, "clip: got '1', expected a number above 0"),
        ({"schedule": ["cosine"]}, r"schedule: got \['cosine'\], expected a str"),
        ({"optimizer": "adam"}, "optimizer: got str, expected SGD, Adam, AdamW"),
        ({"seed": -1}, "seed: got -1, expected an integer from 0"),
        ({"seed": 2**63}, f"seed: got {2**63}, expected an integer from 0 to {2**63 - 1}"),
        ({"seed": True}, "seed: got True, expected an integer from 0"),
        ({"seed": 1.5}, r"seed: got 1\.5, expected an integer from 0"),
        ({"fraction": 0, "patience": "a"}, "patience: got 'a' of type str, expected an integer"),
        ({"fraction": 0, "patience": 3}, "patience: got a number, but there is no validation"),
    ],
)
def test_options_that_do_not_fit(change: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        make_trainer(**change)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (random_data(CE), "training: y holds classes"),
        (random_data(each_step=True), "training: y has an answer for each step"),
        (Sequences(np.zeros((T, B, 2)), np.zeros((B, 3))), "x has 2 inputs, y has 3 outputs"),
    ],
)
def test_data_that_do_not_fit_the_network(data: Sequences, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Trainer(make_network(random_data()), data, None, optim.Adam())


def test_networks_that_cannot_be() -> None:
    with pytest.raises(TypeError, match="lstm: got str"):
        Network("lstm", 1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"lstm: got .* expected one that gives all outputs"):
        Network(LSTM(1, 1, return_sequences=False), 1)
    with pytest.raises(ValueError, match="loss: got 'l1', expected one of mse, cross_entropy"):
        Network(LSTM(1, 1), 1, loss="l1")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="seed: got 'x'"):
        Network(LSTM(1, 1), 1, seed="x")  # type: ignore[arg-type]
    network = make_network(random_data())
    before = network.parameters.copy()
    with pytest.raises(ValueError, match=r"vector: got shape \(3,\)"):
        network.load_parameters(np.zeros(3))
    assert_same_bits(network.parameters.copy(), before)
    with pytest.raises(ValueError, match="read-only"):
        network.parameters[0] = 1


def test_split_refuses_bad_arguments() -> None:
    data = random_data()
    for fraction in (0, 1.0, -0.5, math.nan, "half"):
        with pytest.raises((TypeError, ValueError), match="fraction: got"):
            data.split(fraction)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="x: has 1 sequence, expected at least 2"):
        data.split(0.01)[1].split(0.5)


def test_split_refuses_a_part_without_weight() -> None:
    data = random_data()
    data = Sequences(data.x, data.y, np.arange(B) == 3)
    with pytest.raises(ValueError, match=r"weights: all are 0 in the (training|validation) part"):
        data.split(0.5)


@pytest.mark.parametrize(
    ("loss", "y", "w", "message"),
    [
        (MSE, np.zeros((B, K + 1)), None, r"y: got shape \(11, 5\), expected \(11, 4\)"),
        (MSE, np.zeros((B, K), complex), None, "y: got values of dtype complex128"),
        (CE, np.zeros(B), None, "y: got values of dtype float64, expected integer classes"),
        (CE, np.full(B, K), None, "y: got classes 4 to 4, expected 0 to 3"),
        (CE, np.full(B, -1), None, "y: got classes -1 to -1"),
        (CE, np.zeros(B, int), np.ones(3), r"weights: got shape \(3,\)"),
        (CE, np.zeros(B, int), np.full(B, -1.0), "weights: some are negative"),
        (CE, np.zeros(B, int), np.full(B, np.nan), "weights: some are negative or not finite"),
    ],
)
def test_batches_that_do_not_fit(loss: str, y: Any, w: Any, message: str) -> None:
    data = random_data(loss)
    network, optimizer = make_network(data), optim.Adam()
    before = network.parameters.copy()
    for call in (network.score, network.gradient, lambda *a: network.train_step(optimizer, *a)):
        with pytest.raises((TypeError, ValueError), match=message):
            call(data.x, y, w)
    assert_same_bits(network.parameters.copy(), before)


def test_arguments_of_other_types() -> None:
    data = random_data()
    network = make_network(data)
    with pytest.raises(ValueError, match=r"x: got no steps or no sequences"):
        network.score(data.x[:, :0], data.y[:0])
    with pytest.raises(TypeError, match="clip: got None"):
        network.train_step(optim.Adam(), data.x, data.y, clip=None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="optimizer: got int, expected SGD, Adam, AdamW"):
        network.train_step(3, data.x, data.y)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="state: got NoneType, expected a mapping"):
        Trainer(network, data, None, optim.Adam()).load_state_dict(None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="network: got LSTM, expected a Network"):
        evaluate(network.lstm, data)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="sequences: got ndarray, expected Sequences"):
        evaluate(network, data.x)
    with pytest.raises(TypeError, match="network: got LSTM, expected a Network"):
        Trainer(network.lstm, data, None, optim.Adam())  # type: ignore[arg-type]


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
