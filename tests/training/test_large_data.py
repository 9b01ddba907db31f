"""Data that are larger than memory: streams of sequences, and arrays that stay on disk."""

from __future__ import annotations

import re
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastlstm import LSTM, optim
from fastlstm.training import HeadSpec, Network, Sequences, SequenceStream, Trainer, evaluate
from support.arrays import assert_same_bits
from support.training_runs import CE

pytestmark = pytest.mark.default_isa

COUNT, I = 23, 3


def items(count: int = COUNT, kind: str = "numbers") -> Iterator[tuple[Any, ...]]:
    rng = np.random.default_rng(4)
    for _ in range(count):
        n = int(rng.integers(1, 9))
        x = rng.normal(size=(n, I))
        if kind == "numbers":
            yield x, rng.normal(size=(n, 4))
        elif kind == "weights":
            yield x, rng.integers(0, 4, n), rng.integers(1, 3, n)
        elif kind == "classes":
            yield x, int(rng.integers(0, 4)), 0.5
        else:
            yield x, {"a": rng.integers(0, 4, n), "b": rng.normal(size=(n, 2))}


def network(kind: str, **options: Any) -> Network:
    head: dict[str, Any] = {"outputs": 4, "loss": "mse" if kind == "numbers" else CE}
    if kind == "heads":
        head = {"heads": {"a": HeadSpec(4, loss=CE), "b": HeadSpec(2)}}
    return Network(LSTM(I, 5, seed=0), each_step=kind != "classes", seed=0, **head, **options)


def trainer_of(
    training: Any, kind: str = "numbers", validation: Any = None, **options: Any
) -> Trainer:
    options = {"epochs": 2, "batch_size": 4, **options}
    return Trainer(network(kind), training, validation, optim.Adam(0.01), **options)


@pytest.mark.parametrize("kind", ["numbers", "weights", "classes", "heads"])
def test_a_stream_is_trained_on_as_its_batches_are(kind: str) -> None:
    stream = SequenceStream(lambda: items(kind=kind), buffer=6)
    assert len(stream) == COUNT
    trainer = trainer_of(stream, kind, stream, accumulate=2)
    by_hand, optimizer = network(kind), optim.Adam(0.01)
    part, gradient = trainer._next, None
    seen: list[int] = []
    lengths = [len(item[0]) for item in items(kind=kind)]

    def watched() -> tuple[Sequences, Any]:
        sequences, rows = part()
        seen.extend(sequences.lengths.tolist())
        nonlocal gradient
        x, y, weights = sequences.batch(rows)
        by_hand.train_step(optimizer, x, y, weights, lengths=sequences.lengths_of(rows), clip=1.0)
        return sequences, rows

    type(trainer)._next, before = lambda _: watched(), type(trainer)._next  # type: ignore
    try:
        trainer.fit()
    finally:
        type(trainer)._next = before  # type: ignore[method-assign]
    np.testing.assert_allclose(trainer.network.parameters, by_hand.parameters, rtol=1e-4, atol=1e-6)
    first, second = seen[:COUNT], seen[COUNT:]
    assert sorted(first) == sorted(second) == sorted(lengths)
    assert first != second
    assert first != lengths

    listed = list(items(kind=kind))
    whole = SequenceStream(listed, count=COUNT)
    assert evaluate(trainer.network, whole, 5) == evaluate(trainer.network, stream, 5)
    validation = trainer.history[-1].validation
    assert validation is not None
    assert validation.loss == pytest.approx(evaluate(trainer.network, stream).loss)


@pytest.mark.parametrize("options", [{}, {"bucketing": 2, "accumulate": 2}])
def test_a_stream_is_resumed_at_any_step(options: dict[str, Any], tmp_path: Path) -> None:
    def start(**changes: Any) -> Trainer:
        made = {"buffer": 7, "count": COUNT, **changes}
        return trainer_of(SequenceStream(lambda: items(), **made), **options)

    whole = start()
    whole.fit()
    for steps in range(whole.steps):
        first, second = start(), start()
        for _ in range(steps):
            first.step()
        first.save(tmp_path / "c.npz")
        second.load(tmp_path / "c.npz")
        second.fit()
        assert second.history == whole.history
        assert_same_bits(second.network.parameters.copy(), whole.network.parameters.copy())
    with pytest.raises(ValueError, match=r"training data was .* among 7, expected .* among 8"):
        start(buffer=8).load(tmp_path / "c.npz")


def test_a_stream_s_batches_are_of_similar_length() -> None:
    def spread(bucketing: int) -> float:
        take = SequenceStream(lambda: items(200), buffer=50).shuffled(
            5, bucketing, np.random.default_rng(0)
        )
        parts = [take(5).lengths for _ in range(40)]
        assert sorted(np.concatenate(parts)) == sorted(len(x) for x, _ in items(200))
        return float(np.mean([np.ptp(part) for part in parts]))

    assert spread(8) < spread(0) / 2


def test_what_a_source_may_be() -> None:
    wrong: list[tuple[Any, str]] = [
        (3, "source: got int, expected a function that returns an iterator"),
        (items(), "source: got a generator, which ends after one pass, expected the function"),
        (list, "source: gave no sequence"),
        (lambda: 3, "source: returned int, expected an iterator"),
    ]
    for source, message in wrong:
        with pytest.raises((TypeError, ValueError), match=message):
            SequenceStream(source)
    for count, found in ((COUNT + 1, f"{COUNT}"), (COUNT - 1, f"{COUNT} or more")):
        stream = SequenceStream(items, count=count)
        with pytest.raises(ValueError, match=f"gave {found} sequences, expected {count} at each"):
            trainer_of(stream).fit()
    with pytest.raises(TypeError, match=r"source: gave 3, expected \(x, y\)"):
        trainer_of(SequenceStream(lambda: [next(items()), 3])).fit()
    x, y = next(items())
    with pytest.raises(
        ValueError, match="source: gave weights of some sequences, expected them of"
    ):
        trainer_of(SequenceStream([(x, y), (x, y, np.ones(len(x)))])).fit()
    with pytest.raises(ValueError, match=r"y: got heads \['a'.*\] of a sequence, expected \['a'"):
        next(SequenceStream([(x, {"a": y}), (x, {"a": y, "b": y})]).parts(2))
    with pytest.raises(ValueError, match="training: y holds real numbers"):
        trainer_of(SequenceStream(items), "weights")
    with pytest.raises(ValueError, match="buffer: got 0"):
        SequenceStream(items, buffer=0)


def test_a_step_that_fails_is_taken_again() -> None:
    calls = 0

    class FailingOnce(optim.SGD):
        def step(self, parameters: Any, gradient: Any) -> None:
            nonlocal calls
            calls += 1
            if calls == 2:
                raise RuntimeError("out of luck")
            super().step(parameters, gradient)

    stream = SequenceStream(items, buffer=6)
    whole = Trainer(network("numbers"), stream, None, optim.SGD(0.1), epochs=1, batch_size=4)
    failing = Trainer(network("numbers"), stream, None, FailingOnce(0.1), epochs=1, batch_size=4)
    whole.fit()
    with pytest.raises(RuntimeError, match="out of luck"):
        failing.fit()
    failing.fit()
    assert_same_bits(failing.network.parameters.copy(), whole.network.parameters.copy())


# memory

STEPS, INPUTS, SEQUENCES = 100, 80, 1600  # 51 MB in float32


def own_memory() -> int:
    """Return the bytes of this process that no file stands behind."""
    found = re.search(r"RssAnon:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) * 1024


def most_memory(run: Any) -> int:
    """Return the most that Python and NumPy hold while something runs."""
    tracemalloc.start()
    try:
        run()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def train(data: Any) -> None:
    layer = LSTM(INPUTS, 4, batch_first=True, seed=0)
    model = Network(layer, 1, each_step=False, seed=0)
    trainer = Trainer(model, data, None, optim.SGD(0.1), epochs=1, batch_size=32)
    trainer.fit()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_memory_of_a_stream_does_not_grow() -> None:
    def source(count: int = SEQUENCES) -> Iterator[tuple[Any, Any]]:
        rng = np.random.default_rng(0)
        for _ in range(count):
            yield rng.random((STEPS, INPUTS), np.float32), rng.random(1, np.float32)

    def stream(count: int) -> SequenceStream:
        return SequenceStream(lambda: source(count), buffer=64, count=count, batch_first=True)

    train(stream(128))
    before = own_memory()
    assert most_memory(lambda: train(stream(SEQUENCES))) < 12e6  # of 51 MB
    assert own_memory() - before < 12e6


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_arrays_on_disk_are_not_read_into_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = SEQUENCES, STEPS, INPUTS
    made = np.memmap(tmp_path / "x", np.float32, "w+", shape=shape)
    rng = np.random.default_rng(0)
    for start in range(0, SEQUENCES, 100):
        made[start : start + 100] = rng.random((100, STEPS, INPUTS), np.float32)
    made.flush()
    y = np.memmap(tmp_path / "y", np.float32, "w+", shape=(SEQUENCES, STEPS, 20))
    w = np.memmap(tmp_path / "w", np.float32, "w+", shape=(SEQUENCES, STEPS))
    w[:] = 1
    del made

    def run() -> None:
        x = np.memmap(tmp_path / "x", np.float32, "r", shape=shape)
        data = Sequences(x, y[:, -1, :1], lengths=np.full(SEQUENCES, STEPS - 1), batch_first=True)
        training, _ = data.split(0.2)
        train(training)

    train(Sequences(np.zeros((32, STEPS, INPUTS)), np.zeros((32, 1)), batch_first=True))
    before = own_memory()
    assert most_memory(run) < 8e6
    assert own_memory() - before < 12e6
    lengths = np.full(SEQUENCES, STEPS)
    monkeypatch.setattr("fastlstm.training.checks.PIECE", 2**20)
    checked = most_memory(lambda: Sequences(y, y, w, lengths=lengths, batch_first=True).split(0.1))
    assert checked < 3e6  # of 13 MB and 0.6 MB
