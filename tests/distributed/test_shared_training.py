"""Runs by several processes, of MPI and of torch.distributed: the bits of one, however they end."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from fastlstm.distributed import Reduction
from fastlstm.training import Trainer, checkpoint
from support import shared_runs
from support.arrays import assert_same_bits
from support.shared_runs import EPOCHS, MODELS, STEPS, trainer
from support.workers import ENGINES, run

pytestmark = [pytest.mark.default_isa, pytest.mark.engines]

SCRIPT = shared_runs.__file__


def work(
    engine: str, count: int, folder: Path, what: str = "run"
) -> subprocess.CompletedProcess[str]:
    return run(engine, count, SCRIPT, engine, str(folder), what)


def assert_same_state(path: Path, expected: Trainer) -> None:
    got, state = checkpoint.read(path), expected.state_dict()
    assert got.keys() == state.keys()
    for name, value in state.items():
        assert_same_bits(got[name], np.asarray(value))


@pytest.fixture(scope="module")
def whole_runs() -> dict[str, Trainer]:
    """Runs by one process."""
    runs = {model: trainer(model, Reduction()) for model in MODELS}
    for one in runs.values():
        one.fit()
    return runs


@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.slow(engine="gloo")
@pytest.mark.slow(count=3)
@pytest.mark.slow(count=4)
def test_any_number_of_workers_has_the_bits_of_one(
    engine: str, count: int, whole_runs: dict[str, Trainer], tmp_path: Path
) -> None:
    for model in MODELS:  # begun by one
        begun = trainer(model, Reduction())
        for _ in range(STEPS + 1):
            begun.step()
        begun.save(tmp_path / f"{model}.begun.npz")
    done = work(engine, count, tmp_path)
    assert done.returncode == 0, done.stderr
    for model, one in whole_runs.items():
        assert one.steps == EPOCHS * STEPS
        assert_same_state(tmp_path / f"{model}True.npz", one)
        # Within rounding if the engine adds up.
        other = checkpoint.read(tmp_path / f"{model}False.npz")
        tolerance = 1e-3 if one.network.parameters.dtype == np.float32 else 1e-9
        np.testing.assert_allclose(
            other["parameters"], one.network.parameters, rtol=tolerance, atol=tolerance
        )


@pytest.mark.slow(engine="gloo")
@pytest.mark.parametrize("engine", ENGINES)
def test_a_killed_worker_ends_the_others(
    engine: str, whole_runs: dict[str, Trainer], tmp_path: Path
) -> None:
    done = work(engine, 2, tmp_path, "kill")
    assert done.returncode != 0
    says = "a worker can't be reached" if engine == "gloo" else "KILLED|Killed"
    assert re.search(says, done.stdout + done.stderr)
    resumed = trainer("classes", Reduction())
    resumed.load(tmp_path / "c.npz")
    assert resumed.steps == STEPS
    resumed.fit(tmp_path / "c.npz")
    assert_same_state(tmp_path / "c.npz", whole_runs["classes"])


@pytest.mark.slow(engine="gloo")
@pytest.mark.parametrize("engine", ENGINES)
def test_a_worker_that_hangs_is_not_waited_for_for_ever(engine: str, tmp_path: Path) -> None:
    done = work(engine, 2, tmp_path, "hang")
    assert done.returncode != 0
    says = r"waited 2 seconds for (it|the others), the limit that timeout= sets"
    assert re.search(says, done.stderr)
    resumed = trainer("classes", Reduction())
    resumed.load(tmp_path / "c.npz")
    assert resumed.steps == STEPS


def test_a_worker_that_exits_ends_the_others(tmp_path: Path) -> None:
    """By ``sys.exit``, and outside of `Trainer.fit`; gloo has closed its connections then."""
    done = work("mpi", 2, tmp_path, "exit")
    assert done.returncode != 0
    assert "worker 1 of 2 failed: its program has ended, while others go on" in done.stderr


def test_workers_may_end_at_different_times(tmp_path: Path) -> None:
    done = work("mpi", 2, tmp_path, "late")
    assert done.returncode == 0, done.stderr


@pytest.mark.slow(engine="gloo")
@pytest.mark.parametrize("engine", ENGINES)
def test_ctrl_c_of_one_stops_all(
    engine: str, whole_runs: dict[str, Trainer], tmp_path: Path
) -> None:
    done = work(engine, 2, tmp_path, "interrupt")
    assert done.returncode != 0
    assert "ended by KeyboardInterrupt" in done.stderr
    resumed = trainer("classes", Reduction())
    resumed.load(tmp_path / "c.npz")
    assert resumed.steps == STEPS + 2
    resumed.fit(tmp_path / "c.npz")
    assert_same_state(tmp_path / "c.npz", whole_runs["classes"])


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("raise", "worker 1 of 2 failed: the disk is full"),
        ("differ", "seed: got 0 in worker 0 and 1 in worker 1, expected the same in all"),
        ("raise outside", "OSError: no such data"),  # of Trainer.fit
    ],
)
def test_what_is_wrong_with_one_is_told_by_all(
    engine: str, what: str, text: str, tmp_path: Path
) -> None:
    done = work(engine, 2, tmp_path, what)
    assert done.returncode != 0
    assert text in done.stderr
