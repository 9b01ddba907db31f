"""Jobs over many files: complete, or told what is not; nothing half-written; gone on with."""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastlstm.cli._engine import _ENGINES
from fastlstm.distributed import _jobs, _pools
from fastlstm.distributed._jobs import MANIFEST, File, Task, run_job
from support.fake_engine import Fake
from support.job_calls import (
    check_answers,
    double,
    double_or_die,
    double_or_fail,
    files_of,
    hang,
    names,
    set_aside,
)
from support.optional import require
from support.processes import run_python

# Ray and Dask leave sockets and files to the end of the process.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning"),
    pytest.mark.usefixtures("importable"),
]

ENGINES = [
    pytest.param("processes"),
    pytest.param("dask", marks=pytest.mark.engines),
    pytest.param("ray", marks=pytest.mark.engines),
]


@pytest.fixture
def engine(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if name == "dask":
        require("distributed")
    if name == "ray":
        request.getfixturevalue("ray_started")
    return name


on_each_engine = pytest.mark.parametrize("engine", ENGINES, indirect=True)


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


def test_what_is_there_was_made_of_another_file(tmp_path: Path, fake: Callable[..., Any]) -> None:
    """Of the same name, size and time, in another folder."""
    files, others = files_of(tmp_path, "a"), files_of(tmp_path / "other", "a")
    np.save(others[0].source, -np.load(others[0].source))
    for file in (files[0], others[0]):
        os.utime(file.source, ns=(10**18, 10**18))
    fake(files, {})
    moved = [File(others[0].source, files[0].target)]
    error = "a.npy: was made of .*/in/a.npy, now it would be of .*other/in/a.npy; --force does"
    with pytest.raises(ValueError, match=error):
        fake(moved, {})
    check_answers(files)
    fake(moved, {}, force=True)
    check_answers(moved)


def test_inputs_are_not_replaced_by_answers(tmp_path: Path, fake: Callable[..., Any]) -> None:
    files = [File(file.source, file.source) for file in files_of(tmp_path, "a", "b")]
    before = files[0].source.read_bytes()
    for force in (False, True):
        with pytest.raises(ValueError, match=r"a\.npy there is an input, in whose place answers"):
            fake(files, {}, force=force)
    assert files[0].source.read_bytes() == before
    assert names(tmp_path / "in") == ["a.npy", "b.npy"]


def test_a_file_that_changes_while_it_is_read(
    tmp_path: Path, fake: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def submit(engine: Any, part: Any, whole: Any = Fake.submit) -> Any:
        def write(source: Path, target: Path) -> None:
            double(source, target)
            np.save(source, np.arange(len(Fake.given) + 5))

        engine.call = dataclasses.replace(engine.call, write=write)
        return whole(engine, part)

    monkeypatch.setattr(Fake, "submit", submit)
    files = files_of(tmp_path, "a")
    (failure,) = fake(files, {}, retries=1).values()
    assert str(failure) == f"{files[0].source}: has changed while it was read"
    assert len(Fake.given) == 2
    assert names(tmp_path / "out") == [MANIFEST]


def test_force_takes_nothing_away_before_it_can_begin(
    tmp_path: Path, fake: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = files_of(tmp_path, "a")
    fake(files, {})

    def fail(*_: Any) -> None:
        raise ImportError("no such engine")

    before = {name: (tmp_path / "out" / name).read_bytes() for name in names(tmp_path / "out")}
    with monkeypatch.context() as patch:
        patch.setattr(Fake, "__init__", fail)
        with pytest.raises(ImportError):
            fake(files, {}, force=True)
    assert {name: (tmp_path / "out" / name).read_bytes() for name in before} == before
    (tmp_path / "out" / MANIFEST).write_text("{}")  # which its error says --force mends
    fake(files, {}, force=True)
    assert Fake.given == files


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
