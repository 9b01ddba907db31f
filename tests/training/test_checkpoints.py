"""Runs that are interrupted, killed and resumed, the same to the bit; and their checkpoints."""

from __future__ import annotations

import math
import signal
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastlstm
from fastlstm import LSTM, optim
from fastlstm.training import Network, Score, Sequences, Trainer, checkpoint
from support.arrays import assert_same_bits
from support.training_runs import CE, make_trainer, random_data

pytestmark = pytest.mark.default_isa


def assert_same_state(got: Trainer, expected: Trainer) -> None:
    """All that a checkpoint holds is the same, to the bit."""
    states = got.state_dict(), expected.state_dict()
    assert states[0].keys() == states[1].keys()
    for name in states[0]:
        assert_same_bits(*(np.asarray(state[name]) for state in states))


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
