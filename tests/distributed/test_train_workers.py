"""``fastlstm train`` by several processes."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from fastlstm import cli
from fastlstm.cli import _workers
from fastlstm.weights.npz import read_npz
from support.arrays import assert_same_bits
from support.workers import ENGINES, run

pytestmark = [pytest.mark.default_isa, pytest.mark.engines]

OPTIONS = ["x.npy", "y.npy", "--hidden", "6", "--batch-size", "16", "--epochs", "3"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    x = np.random.default_rng(0).normal(size=(8, 50, 3)).astype(np.float32)
    np.save("x.npy", x)
    np.save("y.npy", x.cumsum(axis=0)[..., :2])
    return tmp_path


def train(
    engine: str, *more: str, workers: int = 2, output: str = "m.npz"
) -> subprocess.CompletedProcess[str]:
    arguments = ["-m", "fastlstm", "train", *OPTIONS, "-o", output, *more]
    return run(engine, workers, *arguments)


def files() -> set[str]:
    return {path.name for path in Path().iterdir() if path.suffix != ".npy"}


@pytest.mark.slow(engine="gloo")
@pytest.mark.parametrize("engine", ENGINES)
def test_the_model_is_that_of_one_process(
    engine: str, here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    plain = cli.main(["train", *OPTIONS, "-o", "one.npz", "--shards", "8"])
    assert plain == 0
    expected = capfd.readouterr()
    done = train(engine)
    assert done.returncode == 0, done.stderr
    assert files() == {"one.npz", "m.npz"}
    one = read_npz(Path("one.npz"))
    for name, array in read_npz(Path("m.npz")).items():
        assert_same_bits(array, one[name])
    # Only the first speaks, and tells of the others first.
    lines = [line for line in done.stderr.splitlines() if line.startswith(("fastlstm", "epoch"))]
    assert lines[0].startswith("fastlstm: 2 workers by ")
    assert lines[1:] == expected.err.splitlines()
    assert done.stdout.count("m.npz: LSTM(3, 6, ") == 1


@pytest.mark.slow(engine="gloo")
@pytest.mark.parametrize("engine", ENGINES)
def test_what_is_refused_is_told_once(engine: str, here: Path) -> None:
    Path("m.npz").touch()
    done = train(engine)
    assert done.returncode != 0
    assert done.stderr.count("m.npz: exists, use --force to replace it") == 1
    assert files() == {"m.npz"}


def test_workers_that_are_not_the_same_run(here: Path) -> None:
    command = 'exec "$@" --seed "$PMI_RANK"'
    seeds = ["sh", "-c", command, "sh"]
    done = run("mpi", 2, "-m", "fastlstm", "train", *OPTIONS, "-o", "m.npz", before=seeds)
    assert done.returncode == 2
    assert "seed: got 0 in worker 0 and 1 in worker 1, expected the same" in done.stderr
    assert files() == set()


def test_separate_runs_are_asked_for(here: Path) -> None:
    command = 'exec "$@" -o "$PMI_RANK.npz"'
    apart = ["sh", "-c", command, "sh"]
    options = [*OPTIONS, "--distributed", "none"]
    done = run("mpi", 2, "-m", "fastlstm", "train", *options, before=apart)
    assert done.returncode == 0, done.stderr
    assert files() == {"0.npz", "1.npz"}


@pytest.mark.parametrize(
    ("names", "engine"),
    [
        (["PMI_SIZE"], "mpi"),
        (["OMPI_COMM_WORLD_SIZE"], "mpi"),
        (["TORCHELASTIC_RUN_ID"], "gloo"),
        (["TORCHELASTIC_RUN_ID", "PMI_SIZE"], "gloo"),  # mpiexec started torchrun on each machine
        (["SLURM_PROCID", "WORLD_SIZE"], "none"),  # whatever else may have set them
    ],
)
def test_who_started_it(names: list[str], engine: str) -> None:
    assert _workers.started_by(dict.fromkeys(names, "2")) == engine
