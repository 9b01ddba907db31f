"""``fastlstm run --engine``: many files, each as a run of it has it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastlstm.cli import main
from fastlstm.distributed import _pools
from fastlstm.distributed._jobs import MANIFEST
from support.fake_engine import Fake
from support.job_calls import names
from support.optional import require

pytestmark = pytest.mark.usefixtures("importable")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model and inputs of each kind, in the working folder."""
    from fastlstm import LSTM
    from fastlstm.training import Network

    monkeypatch.chdir(tmp_path)
    Network(LSTM(3, 8, seed=0), 2, features=["a", "b", "c"], seed=1).save("model.npz")
    Path("in").mkdir()
    for i in range(4):
        x = np.random.default_rng(i).normal(size=(6 + i, 2, 3))
        np.save(f"in/{i}.npy", x)
        np.savetxt(f"in/{i}.csv", x[:, 0], delimiter=",")
    return tmp_path


def test_files_as_a_run_of_each_has_them(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["run", "model.npz", "in/*.npy", "-o", "out", "--engine", "processes"]
    assert main([*command, "--workers", "2", "--batch-size", "1"]) == 0
    assert capsys.readouterr().out == "out: 4 of 4 files\n"
    assert main(["run", "model.npz", "in/*.csv", "-o", "rows", *command[5:], "--workers", "1"]) == 0
    assert main([*command[:4], "out4", *command[5:], "--workers", "4", "-q"]) == 0
    for i in range(4):
        for name in (f"out/{i}.npy", f"out4/{i}.npy", f"rows/{i}.csv"):
            one = Path("one").with_suffix(Path(name).suffix)
            source = f"in/{Path(name).name}"
            assert main(["run", "model.npz", source, "-o", str(one), "--force"]) == 0
            assert Path(name).read_bytes() == one.read_bytes()


def test_a_part_of_each_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Arrays of an .npz, and columns of tables: other ones are other answers."""
    x, z = np.random.default_rng(0).normal(size=(2, 5, 2, 3))
    np.savez("in/0.npz", x=x, z=z)
    command = ["run", "model.npz", "in/*.npz:z", "-o", "out", "--engine", "processes"]
    assert main([*command, "--workers", "1"]) == 0
    assert main(["run", "model.npz", "in/0.npz:z", "-o", "one.npy"]) == 0
    assert Path("out/0.npy").read_bytes() == Path("one.npy").read_bytes()
    capsys.readouterr()
    assert main([*command[:2], "in/*.npz:x", *command[3:], "--workers", "1"]) == 2
    assert "out: begun with INPUT:PART :z, now it is :x; --force" in capsys.readouterr().err


def test_other_files_than_before(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What a run reads beside its inputs is known by its contents."""
    for i in range(4):
        np.save(f"in/{i}.npy", np.ones((4, 2, 3)))
    np.save("lengths.npy", [4, 2])
    command = ["run", "model.npz", "in/*.npy", "-o", "out", "--engine", "processes"]
    command += ["--workers", "1", "--lengths", "lengths.npy"]
    assert main(command) == 0
    np.save("lengths.npy", [4, 3])
    capsys.readouterr()
    assert main(command) == 2
    assert "out: begun with --lengths lengths.npy (" in capsys.readouterr().err


def test_a_model_that_changes_while_it_runs(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Changing(Fake):
        def submit(self, part: Any) -> Any:
            handle = super().submit(part)
            with Path("model.npz").open("ab") as file:
                file.write(b" ")
            return handle

    monkeypatch.setitem(_pools.ENGINES, "processes", Changing)
    command = ["run", "model.npz", "in/*.npy", "-o", "out", "--engine", "processes"]
    assert main([*command, "--retries", "0"]) == 1
    captured = capsys.readouterr()
    assert captured.out == "out: 1 of 4 files, 3 failed\n"
    assert captured.err.count("model.npz: has changed since the run began") == 3


def test_lengths_that_change_while_it_runs(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Changing(Fake):
        def submit(self, part: Any) -> Any:
            handle = super().submit(part)
            np.save("lengths.npy", [4, 3])
            return handle

    for i in range(4):
        np.save(f"in/{i}.npy", np.ones((4, 2, 3)))
    np.save("lengths.npy", [4, 2])
    monkeypatch.setitem(_pools.ENGINES, "processes", Changing)
    command = ["run", "model.npz", "in/*.npy", "-o", "out", "--engine", "processes"]
    assert main([*command, "--retries", "0", "--lengths", "lengths.npy"]) == 1
    captured = capsys.readouterr()
    assert captured.out == "out: 1 of 4 files, 3 failed\n"
    assert captured.err.count("lengths.npy: has changed since the run began") == 3


@pytest.mark.skipif(os.name == "nt", reason="has no such names")
@pytest.mark.parametrize("name", ["b[1]", "*", "k:v", "ü x"])
def test_names_of_files_are_no_patterns(folder: Path, name: str) -> None:
    np.save(f"in/{name}.npy", np.ones((3, 2, 3)))
    command = ["run", "model.npz", f"in/{name}.npy", "-o", "out", "--engine", "processes"]
    assert main([*command, "--workers", "1", "-q"]) == 0
    assert names(Path("out")) == sorted([f"{name}.npy", MANIFEST])


def test_answers_beside_their_inputs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They would replace them."""
    before = {path: path.read_bytes() for path in Path("in").iterdir()}
    command = ["run", "model.npz", "in/*.npy", "-o", "in", "--engine", "processes", "--force"]
    assert main([*command, "--workers", "1"]) == 2
    assert "in: 0.npy there is an input, in whose place" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in Path("in").iterdir()} == before


def test_a_table_that_cannot_be_read(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("in/1.npy").write_text("no array")
    command = ["run", "model.npz", "in/*.npy", "-o", "out", "--engine", "processes"]
    assert main([*command, "--workers", "1", "--retries", "0"]) == 1
    captured = capsys.readouterr()
    assert captured.out == "out: 3 of 4 files, 1 failed\n"
    bad = folder.resolve() / "in" / "1.npy"
    assert captured.err == f"fastlstm: error: {bad}: not a .npy file, or damaged\n"
    assert names(Path("out")) == ["0.npy", "2.npy", "3.npy", MANIFEST]
    np.save("in/1.npy", np.ones((3, 2, 3)))
    assert main([*command, "--workers", "1"]) == 0
    assert main([*command, "--workers", "1", "--no-head"]) == 2
    assert "out: begun with --no-head False, now it is True" in capsys.readouterr().err


def test_tables_of_parquet(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pandas, parquet = require("pandas"), require("pyarrow.parquet")
    from fastlstm.distributed import Predictor
    from fastlstm.training import Network

    network = Network.load("model.npz")
    for i in range(3):
        rows = np.random.default_rng(i).normal(size=(8, 3))
        frame = pandas.DataFrame(rows, columns=["a", "b", "c"])
        frame.assign(g=np.tile([1, 2], 4), t=np.repeat([4, 3, 2, 1], 2)).to_parquet(
            f"in/{i}.parquet"
        )
        frame[:0].assign(x=[]).to_parquet("in/empty.parquet")
    command = ["run", "model.npz", "in/[0-9].parquet", "-o", "out", "--engine", "processes"]
    assert main([*command, "--workers", "1", "--group", "g", "--time", "t"]) == 0
    for i in range(3):
        table = parquet.read_table(f"in/{i}.parquet")
        expected = Predictor(network, group="g", time="t")(table)
        assert parquet.read_table(f"out/{i}.parquet").equals(expected)
    cells = pandas.DataFrame({"x": [rows.tolist(), rows[:2].tolist()] * 700})  # two batches
    cells.to_parquet("in/cells.parquet")
    cells[:0].to_parquet("in/no-cells.parquet")
    command = ["run", "model.npz", "in/*cells.parquet", "-o", "lists", *command[5:]]
    assert main([*command, "--workers", "1", "--features", "x"]) == 0
    found = parquet.read_table("lists/cells.parquet")["prediction"].to_pylist()
    for answers, length in zip(found[-2:], (8, 2), strict=True):
        expected = network.predict(rows[:length, None])[:, 0]
        np.testing.assert_array_equal(np.array(answers, np.float32), expected)
    assert parquet.read_table("lists/no-cells.parquet").num_rows == 0
    capsys.readouterr()


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["in/*.xyz"], r"in/\*.xyz: no such file"),
        (["in/*.*"], "in/.*: some are .parquet, some not"),
        (["model.np?", "--group", "g"], "--group: means nothing to model.npz"),
        (["in/*.parquet", "--no-head"], "--no-head: means nothing to in/0.parquet"),
        (["in/*.parquet", "--missing", "mean"], "--missing mean: of .parquet expected nan or drop"),
        (["in/*.npy", "-o", "model.npz"], "model.npz: is no folder, as --engine needs"),
        (["in/*.npy", "--address", "x", "--workers", "1"], "--workers: --address has workers"),
        (["in/*.npy", "--address", "x"], "address: got 'x' of the engine processes"),
    ],
)
def test_what_does_not_fit(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], error: str
) -> None:
    if "parquet" in arguments[0] or arguments[0] == "in/*.*":
        Path("in/0.parquet").touch()
    command = ["run", "model.npz", *arguments[:1], "-o", "out", "--engine", "processes"]
    assert main([*command, *arguments[1:], "-q"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert re.search(error, lines[0])


def test_options_of_many_files(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = {"--group": "g", "--workers": "2", "--threads": "1", "--retries": "0", "--address": ""}
    for option, value in values.items():
        assert main(["run", "model.npz", "in/0.csv", "-o", "one.csv", option, value]) == 2
        assert f"{option}: is of many files, see --engine" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="has no such signals")
def test_the_command_is_killed_and_goes_on(folder: Path) -> None:
    for i in range(40):
        np.save(f"in/{i}.npy", np.random.default_rng(i).normal(size=(3000, 8, 3)))
    command = [sys.executable, "-m", "fastlstm", "run", "model.npz", "in/*.npy", "-o", "out"]
    command += ["--engine", "processes", "--workers", "2"]
    process = subprocess.Popen(command, start_new_session=True)
    while len(list(Path("out").glob("[0-9]*.npy"))) < 3:
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    done = {path.name: path.stat().st_mtime_ns for path in Path("out").glob("[0-9]*.npy")}
    assert len(done) < 40
    assert main([*command[3:]]) == 0
    assert len(names(Path("out"))) == 41
    assert {name: (Path("out") / name).stat().st_mtime_ns for name in done} == done
    for i in (0, 39):
        assert np.load(f"out/{i}.npy").shape == (3000, 8, 2)
