"""Jobs over many files: complete, or told what is not; nothing half-written; gone on with."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastlstm.cli import main
from fastlstm.cli._engine import _ENGINES
from fastlstm.distributed import _jobs, _pools
from fastlstm.distributed._jobs import MANIFEST, File, Task, run_job
from support.job_calls import (
    check_answers,
    double,
    double_or_die,
    double_or_fail,
    files_of,
    hang,
    set_aside,
)
from support.optional import require
from support.processes import IMPORTABLE, run_python

# Ray and Dask leave sockets and files to the end of the process.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")

ENGINES = [
    pytest.param("processes"),
    pytest.param("dask", marks=pytest.mark.engines),
    pytest.param("ray", marks=pytest.mark.engines),
]


@pytest.fixture(scope="module", autouse=True)
def importable() -> Iterator[None]:
    """Let workers find this process' package, and these helpers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", IMPORTABLE)
        patch.setenv("RAY_AUTH_MODE", "disabled")
        yield


@pytest.fixture
def engine(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if name == "dask":
        require("distributed")
    if name == "ray":
        request.getfixturevalue("ray_started")
    return name


on_each_engine = pytest.mark.parametrize("engine", ENGINES, indirect=True)


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


@pytest.mark.slow(engine="dask")
@pytest.mark.slow(engine="ray")
@on_each_engine
def test_a_worker_that_is_killed(tmp_path: Path, engine: str) -> None:
    """Its file is done by another; one that kills each worker is told; no other one is lost."""
    files = files_of(tmp_path, "a", "b-once", "c", "d-always", "e", "f")
    done: list[File] = []
    failed = run_job(
        files,
        tmp_path / "out",
        Task(double_or_die),
        {},
        engine=engine,
        workers=2,
        retries=1,
        advance=done.append,
    )
    (bad,) = (file for file in files if "always" in file.source.name)
    assert list(failed) == [bad]
    assert "its worker died" in str(failed[bad])
    good = [file for file in files if file is not bad]
    assert sorted(done) == sorted(good)
    check_answers(good)
    assert names(tmp_path / "out") == sorted([MANIFEST, *(file.target.name for file in good)])


@on_each_engine
def test_a_file_that_fails(tmp_path: Path, engine: str) -> None:
    files = files_of(tmp_path, "a", "b-once", "c-always", "d")
    out = tmp_path / "out"
    failed = run_job(files, out, Task(double_or_fail), {}, engine=engine, workers=2)
    assert list(failed) == [files[2]]
    assert isinstance(failed[files[2]], ValueError)
    assert str(failed[files[2]]) == "c-always.npy is not to be had"
    check_answers([files[0], files[1], files[3]])
    assert names(out) == ["a.npy", "b-once.npy", "d.npy", MANIFEST]
    # Another run does what is left, and nothing else.
    before = {file: file.target.stat().st_mtime_ns for file in files if file.target.exists()}
    assert run_job(files, out, Task(double), {}, engine=engine, workers=1) == {}
    check_answers(files)
    assert {file: file.target.stat().st_mtime_ns for file in before} == before


class Fake(_pools.Engine):
    """An engine without workers, that tells of what it was given."""

    given: list[File]

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        type(self).given = []

    @property
    def slots(self) -> int:
        return 2

    def submit(self, part: Any) -> Any:
        self.given.append(part)
        try:
            self.call(part)
        except BaseException as error:
            return part, error
        return part, None

    def wait(self, handles: Any) -> Any:
        return handles[:1]

    def error(self, handle: Any) -> Any:
        return handle[1]

    def close(self) -> None:
        pass


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    monkeypatch.setitem(_pools.ENGINES, "fake", Fake)

    def run(files: list[File], told: dict[str, Any], **options: Any) -> Any:
        folder = files[0].target.parent
        return run_job(files, folder, Task(double), told, engine="fake", **options)

    return run


def test_what_is_there_is_not_done_again(tmp_path: Path, fake: Callable[..., Any]) -> None:
    files = files_of(tmp_path, "a", "b", "c")
    fake(files[:2], {"MODEL": "1"})
    done: list[File] = []
    fake(files, {"MODEL": "1"}, advance=done.append)
    assert Fake.given == files[2:]
    assert sorted(done) == files
    fake(files[:1], {"MODEL": "1"})  # fewer, and all there
    fake(files, {"MODEL": "2"}, force=True)
    assert Fake.given == files


def test_what_is_there_was_made_of_something_else(tmp_path: Path, fake: Callable[..., Any]) -> None:
    files = files_of(tmp_path, "a", "b")
    out = tmp_path / "out"
    out.mkdir()
    (out / "a.npy").write_text("mine")
    with pytest.raises(FileExistsError, match=r"a\.npy: exists, and no job has made it; --force"):
        fake(files, {"--group": ["g"]})
    assert names(out) == ["a.npy"]
    (out / "a.npy").unlink()
    fake(files, {"--group": ["g"]})
    manifest = (out / MANIFEST).read_text()
    for told, error in (
        ({"--group": ["h"]}, r"begun with --group \['g'\], now it is \['h'\]; --force"),
        ({"--group": ["g"], "--time": "t"}, "begun with --time None, now it is t"),
    ):
        with pytest.raises(ValueError, match=error):
            fake(files, told)
    np.save(files[1].source, np.arange(9))
    with pytest.raises(ValueError, match=r"b\.npy: the file it was made of has changed since"):
        fake(files, {"--group": ["g"]})
    assert (out / MANIFEST).read_text() == manifest
    files[1].target.unlink()  # then it may have changed
    fake(files, {"--group": ["g"]})
    check_answers(files)
    extra = files_of(tmp_path, "c")
    (out / "c.npy").write_text("mine")
    with pytest.raises(FileExistsError, match=r"c\.npy: exists, and no job has made it"):
        fake(extra, {"--group": ["g"]})
    (out / MANIFEST).write_text("{}")
    with pytest.raises(ValueError, match="damaged, or of another version of fastlstm"):
        fake(files, {"--group": ["g"]})


def test_what_was_begun_for_another_run_is_not_written(
    tmp_path: Path, fake: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by workers of a cluster, which don't stop with the run that asked for it."""
    tasks: list[Task] = []
    monkeypatch.setattr(Fake, "close", lambda engine: tasks.append(engine.call))
    files = files_of(tmp_path, "a", "b")
    fake(files, {"MODEL": "1"})
    fake(files, {"MODEL": "2"}, force=True)
    before = files[0].target.stat().st_mtime_ns
    with pytest.raises(RuntimeError, match="out: another run has begun there"):
        tasks[0](files[0])
    assert files[0].target.stat().st_mtime_ns == before
    assert names(tmp_path / "out") == ["a.npy", "b.npy", MANIFEST]
    tasks[1](files[0])


@pytest.mark.slow
@pytest.mark.engines
def test_a_scheduler_that_is_lost() -> None:
    """It is told, and nothing waits for ever."""
    distributed = require("distributed")
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0"
    ) as cluster:
        engine = _pools.Dask(time.sleep, 1, cluster.scheduler_address)
        handle = engine.submit(1)
        cluster.close()
        with pytest.raises(ConnectionError, match="Dask's scheduler can't be reached any more"):
            engine.wait([handle])
        engine.close()


@pytest.mark.engines
def test_ray_sets_threads_aside(tmp_path: Path, ray_started: Any) -> None:
    file = tmp_path / "processors"
    with _pools.Ray(set_aside, 1, None, 2) as engine:
        assert engine.slots == 2  # of 2 processors, so that none waits for the next
        (done,) = engine.wait([engine.submit(file)])
        assert engine.error(done) is None
    assert file.read_text() == "2.0"


@pytest.mark.skipif(sys.platform == "win32", reason="has no such locks")
def test_two_runs_at_once(tmp_path: Path, fake: Callable[..., Any]) -> None:
    files = files_of(tmp_path, "a")
    (tmp_path / "out").mkdir()
    with _jobs._only_run(tmp_path / "out"), pytest.raises(FileExistsError, match="another run is"):
        fake(files, {})
    fake(files, {})


def test_engines_have_names() -> None:
    assert tuple(_pools.ENGINES) == _ENGINES
    with pytest.raises(ValueError, match="address: got 'x' of the engine processes"):
        _pools.Processes(print, 1, "x")


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="has no such signals")
def test_workers_end_with_the_process_that_is_killed(tmp_path: Path) -> None:
    """Or they would wait for ever for it, with all the memory that they have."""
    file = tmp_path / "worker"
    code = f"""
        import os, pathlib, signal, time
        from fastlstm.distributed._pools import Processes
        from support.job_calls import hang
        engine, file = Processes(hang, 1, None), pathlib.Path({str(file)!r})
        engine.submit(file)
        while not file.exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    assert run_python(textwrap.dedent(code)).returncode == -signal.SIGKILL
    wait_for_the_end(int(file.read_text()))


@pytest.mark.skipif(os.name == "nt", reason="has no such signals")
def test_a_worker_that_was_stopped_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_pools, "_GRACE", 0.1)
    file = tmp_path / "worker"
    with _pools.Processes(hang, 1, None) as engine:
        engine.submit(file)
        while not file.exists():
            time.sleep(0.01)
        number = int(file.read_text())
        os.kill(number, signal.SIGSTOP)
    wait_for_the_end(number)


def wait_for_the_end(number: int) -> None:
    """Wait until there is no such process."""
    for _ in range(1000):
        try:
            os.kill(number, 0)
        except ProcessLookupError:
            return
        time.sleep(0.01)
    os.kill(number, signal.SIGKILL)
    pytest.fail(f"process {number} is still there")


# The command


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
