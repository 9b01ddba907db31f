"""What a run can be given: optimisers, schedules, callbacks, metrics, batches of other shapes."""

from __future__ import annotations

import csv
import math
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from fastlstm import LSTM, optim
from fastlstm.training import Callback, Epoch, Network, Score, Sequences, Trainer
from support.arrays import assert_same_bits
from support.training_runs import CE, make_trainer, random_data

pytestmark = pytest.mark.default_isa


class HeavyBall:
    """A user's optimiser: gradient descent with momentum."""

    def __init__(self, lr: float = 0.1) -> None:
        self.lr = lr
        self.velocity = np.zeros(0, np.float32)

    def step(self, parameters: Any, gradients: Any) -> None:
        if not self.velocity.size:
            self.velocity = np.zeros_like(gradients)
        self.velocity *= 0.9
        self.velocity += gradients
        parameters -= self.lr * self.velocity


class Kept(HeavyBall):
    """The same with a state."""

    def state_dict(self) -> dict[str, Any]:
        return {"lr": self.lr, "velocity": self.velocity.copy()}

    def load_state_dict(self, state: Any) -> None:
        self.lr, self.velocity = float(state["lr"]), np.array(state["velocity"])


# optimisers


def test_an_optimizer_of_one_s_own() -> None:
    own, known = (
        make_trainer(optimizer=HeavyBall()),
        make_trainer(  # type: ignore[arg-type]
            optimizer=optim.SGD(0.1, momentum=0.9)
        ),
    )
    own.fit()
    known.fit()
    assert_allclose(own.network.parameters, known.network.parameters, rtol=1e-5, atol=1e-7)
    assert own.history[0].lr == 0.1


def test_an_optimizer_of_torch_s() -> None:
    torch = pytest.importorskip("torch")

    class Adapted:
        def __init__(self) -> None:
            self.inner: Any = None

        def step(self, parameters: Any, gradients: Any) -> None:
            if self.inner is None:
                self.tensor = torch.nn.Parameter(torch.from_numpy(parameters.copy()))
                self.inner = torch.optim.RMSprop([self.tensor], lr=0.01)
            self.tensor.data[:] = torch.from_numpy(parameters)
            self.tensor.grad = torch.from_numpy(gradients.copy())
            self.inner.step()
            parameters[:] = self.tensor.detach().numpy()

    trainer = make_trainer(optimizer=Adapted(), clip=math.inf)  # type: ignore[arg-type]
    gradients, seen = [], [trainer.network.parameters.copy()]
    inner = trainer.optimizer.step

    def watched(parameters: Any, gradient: Any) -> None:
        gradients.append(gradient.copy())
        inner(parameters, gradient)
        seen.append(parameters.copy())

    trainer.optimizer.step = watched  # type: ignore[method-assign]
    trainer.fit()
    parameter = torch.nn.Parameter(torch.from_numpy(seen[0]))
    theirs = torch.optim.RMSprop([parameter], lr=0.01)
    for gradient in gradients:
        parameter.grad = torch.from_numpy(gradient)
        theirs.step()
    assert_allclose(seen[-1], parameter.detach().numpy(), rtol=1e-6)
    assert_array_equal(trainer.network.parameters, seen[-1])


def test_what_an_optimizer_needs(tmp_path: Path) -> None:
    class Closure:
        def step(self, closure: Any = None) -> None: ...

    wrong: list[tuple[Any, str]] = [
        (Closure(), r"got Closure with step\(closure.*, expected SGD, Adam, AdamW or an object"),
        (HeavyBall, "got the class HeavyBall"),
        (3, "got int, expected SGD, Adam, AdamW or an object with step"),
    ]
    for optimizer, message in wrong:
        with pytest.raises(TypeError, match=f"optimizer: {message}"):
            make_trainer(optimizer=optimizer)
    without = HeavyBall()
    trainer = make_trainer(optimizer=without)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"optimizer: got HeavyBall, expected one with state_dict"):
        trainer.fit(tmp_path / "c.npz")
    assert trainer.steps == 0
    assert not list(tmp_path.iterdir())
    del without.lr
    with pytest.raises(TypeError, match="optimizer: got HeavyBall whose lr is None, expected a nu"):
        make_trainer(optimizer=without, schedule="cosine")  # type: ignore[arg-type]


def test_a_state_that_no_file_holds_is_refused_before_the_first_step(tmp_path: Path) -> None:
    class Objects(Kept):
        def state_dict(self) -> dict[str, Any]:
            return {"nested": {}}

    trainer = make_trainer(optimizer=Objects())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"optimizer\.nested: got a Python object"):
        trainer.fit(tmp_path / "c.npz")
    assert trainer.steps == 0


def test_a_failing_optimizer_changes_nothing() -> None:
    class Failing(HeavyBall):
        def step(self, parameters: Any, gradients: Any) -> None:
            parameters[:5] = 0
            raise RuntimeError("half-way")

    trainer = make_trainer(optimizer=Failing())  # type: ignore[arg-type]
    before = trainer.network.parameters.copy()
    with pytest.raises(RuntimeError, match="half-way"):
        trainer.step()
    assert_same_bits(trainer.network.parameters.copy(), before)
    assert trainer.steps == 0


# schedules


def warm_up(lr: float, step: int, steps: int) -> float:
    return lr * min(1.0, (step + 1) / 5)


def test_a_schedule_of_one_s_own_is_torch_s() -> None:
    torch = pytest.importorskip("torch")
    trainer = make_trainer(schedule=warm_up)
    rates = []
    trainer.fit(callback=lambda _: rates.append(trainer.optimizer.lr))  # type: ignore[attr-defined]
    theirs = torch.optim.SGD([torch.zeros(1)], lr=1e-2)
    schedule = torch.optim.lr_scheduler.LinearLR(theirs, 0.2, 1.0, total_iters=4)
    expected = []
    for _ in range(trainer.total_steps):
        expected.append(theirs.param_groups[0]["lr"])
        theirs.step()
        schedule.step()
    assert_allclose(rates, expected, rtol=1e-12)
    assert_allclose(trainer.log["lr"], np.array(expected)[3::4], rtol=1e-12)


@pytest.mark.parametrize(
    ("value", "error"), [(-1.0, ValueError), (math.nan, ValueError), ("x", TypeError)]
)
def test_a_schedule_that_returns_no_rate(value: Any, error: type[Exception]) -> None:
    trainer = make_trainer(schedule=lambda lr, step, steps: value)
    before = trainer.network.parameters.copy()
    with pytest.raises(error, match="schedule: "):
        trainer.fit()
    assert_same_bits(trainer.network.parameters.copy(), before)


# callbacks


class Counting(Callback):
    """Counts, and ends the run after so many epochs."""

    def __init__(self, epochs: int = 99) -> None:
        self.steps, self.epochs, self.end = 0, 0, epochs

    def after_step(self, trainer: Trainer, score: Score) -> None:
        self.steps += 1
        assert score.weight > 0
        assert trainer.steps == self.steps

    def after_epoch(self, trainer: Trainer, epoch: Epoch) -> None:
        self.epochs += 1
        assert epoch is trainer.history[-1]
        if self.epochs == self.end:
            trainer.stop()

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps, "epochs": self.epochs}

    def load_state_dict(self, state: Any) -> None:
        self.steps, self.epochs = int(state["steps"]), int(state["epochs"])


def test_callbacks_are_called_and_may_stop(tmp_path: Path) -> None:
    seen: list[int] = []
    counting = Counting(2)
    trainer = make_trainer(callbacks=[counting, lambda t: seen.append(len(t.history))])
    trainer.fit(tmp_path / "c.npz")
    assert (counting.steps, counting.epochs, seen) == (8, 2, [1, 2])
    assert not trainer.finished
    trainer.fit()  # goes on
    assert trainer.finished
    whole = make_trainer()
    whole.fit()
    assert_same_bits(trainer.network.parameters.copy(), whole.network.parameters.copy())

    again = make_trainer(callbacks=[Counting(), print])
    again.load(tmp_path / "c.npz")
    assert (again.callbacks[0].steps, again.steps) == (8, 8)
    with pytest.raises(ValueError, match="callbacks with a state was 0 Counting, expected  as in"):
        make_trainer().load(tmp_path / "c.npz")


@pytest.mark.parametrize("value", [3, "x", [3], [Counting], [object()]])
def test_what_is_no_callback(value: Any) -> None:
    with pytest.raises(TypeError, match=r"callbacks: got .*, expected a"):
        make_trainer(callbacks=value)


# accumulation


@pytest.mark.parametrize(
    "data",
    [
        random_data(),
        random_data(each_step=True, weighted=True),
        random_data(CE, each_step=True, weighted=True),
    ],
    ids=["numbers", "each-step", "classes"],
)
def test_accumulated_gradients_are_those_of_the_large_batch(data: Sequences) -> None:
    def trained(**options: Any) -> Trainer:
        network = Network(
            LSTM(3, 5, dtype=np.float64, seed=3),
            4,
            loss=CE if data.classes else "mse",
            each_step=data.each_step,
            seed=4,
        )
        trainer = Trainer(network, data, None, optim.SGD(0.1), epochs=2, clip=0.5, **options)
        trainer.fit()
        return trainer

    large, parts = trained(batch_size=6), trained(batch_size=2, accumulate=3)
    assert (parts.steps, parts.total_steps) == (large.steps, large.total_steps)
    assert_allclose(parts.network.parameters, large.network.parameters, rtol=1e-12, atol=1e-15)
    losses = [[epoch.training.loss for epoch in run.history] for run in (parts, large)]
    assert_allclose(*losses, rtol=1e-12)


# batches by length


def ragged(count: int = 40) -> Sequences:
    rng = np.random.default_rng(5)
    lengths = rng.integers(1, 30, count)
    return Sequences([rng.normal(size=(n, 3)) for n in lengths], rng.normal(size=(count, 4)))


def batches_of(data: Sequences, **options: Any) -> list[list[int]]:
    """Return the lengths in each batch of two epochs."""
    seen = []
    network = Network(LSTM(3, 4, seed=0), 4, each_step=False, seed=0)
    trainer = Trainer(network, data, None, optim.SGD(0.1), epochs=2, batch_size=4, **options)
    for _ in range(trainer.total_steps):
        rows = trainer._order[4 * trainer.position :][:4]
        seen.append(sorted(data.lengths[rows].tolist()))
        trainer.step()
    return seen


def test_batches_of_similar_length() -> None:
    data = ragged(43)
    mixed, alike = batches_of(data), batches_of(data, bucketing=5)
    for epoch in alike[:11], alike[11:]:
        assert sorted(chain.from_iterable(epoch)) == sorted(data.lengths.tolist())
    assert len(alike[10]) == 3  # what is left comes last
    assert alike[:11] != alike[11:]
    assert alike == batches_of(data, bucketing=5)
    assert alike != batches_of(data, bucketing=5, seed=1)

    def spread(batches: list[list[int]]) -> float:
        return float(np.mean([b[-1] - b[0] for b in batches]))

    assert spread(alike) < spread(mixed) / 2


# resuming

EVERYTHING: list[dict[str, Any]] = [
    {
        "schedule": warm_up,
        "metrics": ["rmse", "mae"],
        "accumulate": 2,
        "batch_size": 1,
        "bucketing": 2,
        "data": ragged(11),
    },
    {"schedule": "cosine", "accumulate": 3, "data": random_data(CE, True, True)},
]


@pytest.mark.parametrize("run", EVERYTHING, ids=["own", "classes"])
def test_stopped_at_any_step_and_resumed(run: dict[str, Any], tmp_path: Path) -> None:
    class StopAt(Callback):
        def __init__(self, step: int) -> None:
            self.at = step

        def after_step(self, trainer: Trainer, score: Score) -> None:
            if trainer.steps == self.at:
                trainer.stop()

    def start(step: int) -> Trainer:
        callbacks = [Counting(), StopAt(step)]
        return make_trainer(optimizer=Kept(), callbacks=callbacks, **run)  # type: ignore[arg-type]

    whole = start(0)
    whole.fit()
    for step in range(1, whole.steps):
        start(step).fit(tmp_path / "c.npz")
        resumed = start(0)
        resumed.load(tmp_path / "c.npz")
        assert resumed.steps == step
        resumed.fit()
        assert resumed.history == whole.history
        states = resumed.state_dict(), whole.state_dict()
        assert states[0].keys() == states[1].keys()
        for name in states[0]:
            assert_same_bits(*(np.asarray(state[name]) for state in states))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schedule": lambda lr, step, steps: lr / (1 + step)}, "schedule was warm_up with rates"),
        ({"optimizer": HeavyBall}, "expected one with state_dict"),
        ({"optimizer": lambda: optim.SGD(0.1)}, r"optimizer was Kept, expected SGD\(lr=0\.1"),
        ({"accumulate": 1}, "accumulate was 2, expected 1"),
        ({"bucketing": 3}, "bucketing was 2, expected 3"),
        ({"metrics": ["mae"]}, "metrics was rmse, mae, expected mae"),
        ({"epochs": 5}, "schedule was warm_up with rates|epochs was 4, expected 5"),
    ],
)
def test_another_run_is_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    def start(**changes: Any) -> Trainer:
        options = {"optimizer": Kept, **EVERYTHING[0], **changes}
        options["optimizer"] = options["optimizer"]()
        return make_trainer(**options)

    trainer = start()
    trainer.step()
    trainer.save(tmp_path / "c.npz")
    with pytest.raises(ValueError, match=message):
        start(**change).load(tmp_path / "c.npz")


# metrics and the log


def test_metrics_are_those_of_an_evaluation_and_of_sklearn(tmp_path: Path) -> None:
    def half_right(predicted: Any, y: Any) -> float:
        return float((predicted == y).mean() / 2)

    data = random_data(CE, each_step=True, weighted=True)
    trainer = make_trainer(data, metrics=["accuracy", "f1_macro", half_right])
    trainer.fit()
    assert trainer.validation is not None
    x, y, weights = trainer.validation.batch(slice(None))
    evaluation = trainer.network.evaluate(x, y, weights)
    metrics = trainer.history[-1].metrics
    assert metrics["accuracy"] == pytest.approx(evaluation.accuracy)
    assert metrics["f1_macro"] == pytest.approx(evaluation.f1_macro)
    counted = weights > 0
    right = (trainer.network.predict(x) == y)[counted].mean()
    assert metrics["half_right"] == pytest.approx(right / 2)

    trainer.write_log(tmp_path / "log.csv")
    with (tmp_path / "log.csv").open() as file:
        names, *rows = csv.reader(file)
    log = trainer.log
    assert names == [
        *("epoch", "lr", "training_loss", "training_accuracy", "validation_loss"),
        *("validation_accuracy", "accuracy", "f1_macro", "half_right"),
    ]
    assert list(log) == names
    for k, name in enumerate(names):
        assert_array_equal(np.array([row[k] for row in rows], float), log[name])
    assert len(rows) == len(trainer.history) == 4


@pytest.mark.parametrize("own", [False, True])
def test_metrics_of_numbers_are_in_their_own_unit(own: bool) -> None:
    from fastlstm.training import Scaling

    def squared(z: Any, y: Any) -> Any:
        return np.square(z - y).mean(axis=-1), 2 * (z - y) / z.shape[-1]

    rng = np.random.default_rng(0)
    x = rng.normal(size=(6, 20, 3))
    data = Sequences(x, 50 + 10 * x.sum(axis=0))
    training, validation = data.split(0.3)
    scaling = Scaling.fit(training)
    loss: Any = squared if own else "mse"
    network = Network(LSTM(3, 5, seed=0), 3, loss=loss, each_step=False, scaling=scaling, seed=0)
    parts = [scaling.apply(part, network.lstm.dtype) for part in (training, validation)]

    def largest(predicted: Any, y: Any) -> float:
        return float(np.abs(predicted - y).max())

    given = [largest] if own else ["rmse", largest]
    trainer = Trainer(network, *parts, optim.Adam(), epochs=1, metrics=given)
    trainer.fit()
    x, y, _ = validation.batch(slice(None))
    metrics = trainer.history[-1].metrics
    if not own:
        assert metrics["rmse"] == pytest.approx(network.evaluate(x, y).rmse, rel=1e-5)
    assert metrics["largest"] == pytest.approx(np.abs(network.predict(x) - y).max(), rel=1e-5)


@pytest.mark.parametrize(
    ("metrics", "error", "message"),
    [
        (["accuracy"], ValueError, "got 'accuracy' with loss='mse', expected some of rmse, mae, f"),
        (["rmse", "rmse"], ValueError, "got rmse twice"),
        ("rmse", TypeError, "got 'rmse', expected a sequence"),
        ([3], TypeError, "got 3, expected names and functions"),
    ],
)
def test_what_is_no_metric(metrics: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"metrics: {message}"):
        make_trainer(metrics=metrics)
    with pytest.raises(ValueError, match="metrics: got some, but there is no validation"):
        make_trainer(fraction=0, metrics=["rmse"])


def test_a_metric_must_be_a_number() -> None:
    with pytest.raises(TypeError, match="metrics: <lambda> returned 'x', expected a number"):
        make_trainer(metrics=[lambda p, y: "x"]).fit()


def test_a_log_of_nothing() -> None:
    log = make_trainer().log
    assert list(log) == ["epoch", "lr", "training_loss"]
    assert all(column.shape == (0,) for column in log.values())
