"""Processes: forks, exits, threads that end, other interpreters. Nothing hangs, nothing crashes."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastlstm
from fastlstm import LSTM, BiLSTM, _core
from support.arrays import assert_same_bits
from support.optional import missing
from support.processes import IMPORTABLE, PROCESSORS, SECONDS, code_of_child, work

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
counts_threads = pytest.mark.skipif(
    not (PROCESSORS > 1 and sys.platform == "linux"),
    reason="takes /proc and two processors",
)


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    with fastlstm.num_threads(2):
        yield


def threads_of_process() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


# JAX and Python warn of forks beside any thread; whether this package minds is what is tested.
forks = pytest.mark.filterwarnings("ignore")


@needs_fork
@forks
def test_fork_after_threads_have_run() -> None:
    expected = work()
    assert code_of_child(lambda: work() == expected) == 0
    assert work() == expected


@needs_fork
@forks
@counts_threads
def test_the_pool_is_made_again_in_a_child() -> None:
    expected = work()

    def child() -> bool:
        alone = threads_of_process() == 1
        return alone and work() == expected and threads_of_process() == 2

    assert code_of_child(child) == 0


@needs_fork
@forks
def test_fork_in_a_child() -> None:
    expected = work()

    def grandchild() -> bool:
        return work() == expected

    def child() -> bool:  # one before its own pool is made, one after
        codes = [code_of_child(grandchild)]
        is_right = work() == expected
        return is_right and [*codes, code_of_child(grandchild)] == [0, 0]

    assert code_of_child(child) == 0


@needs_fork
@forks
def test_fork_beside_a_call_that_has_the_pool() -> None:
    # Children begin at whatever point the call of the other thread is at.
    expected = work()
    layer = BiLSTM(20, 67, 2, return_sequences=False, seed=1)
    x = np.ones((300, 8, 20), np.float32)
    wanted = layer(x)[0]
    is_over = threading.Event()
    wrong: list[bool] = []

    def call_on_and_on() -> None:
        while not is_over.is_set():
            wrong.append(layer(x)[0].tobytes() != wanted.tobytes())

    def child() -> bool:
        rebuilds = work() == expected
        if PROCESSORS > 1 and sys.platform == "linux":
            rebuilds = rebuilds and threads_of_process() == 2
        return rebuilds

    caller = threading.Thread(target=call_on_and_on)
    caller.start()
    try:
        for i in range(25):
            time.sleep(0.0007 * (i % 7))
            assert code_of_child(child) == 0
    finally:
        is_over.set()
        caller.join(SECONDS)
    assert wrong
    assert not any(wrong)


@needs_fork
@forks
def test_fork_beside_a_call_that_never_ends() -> None:
    # In a process of its own: the thread can't be ended.
    ran = run_program(
        """
        caller = threading.Thread(target=endless_call, daemon=True)
        expected = work()
        caller.start()
        time.sleep(0.05)
        beside = work()
        codes = [code_of_child(lambda: work() == expected) for _ in range(3)]
        print(beside == expected, codes, caller.is_alive(), flush=True)
        """
    )
    assert (ran.returncode, ran.stdout.split("\n")[0]) == (0, "True [0, 0, 0] True"), ran.stderr


def is_in_use(stream: fastlstm.Stream) -> bool:
    try:
        stream.reset(np.zeros(1, bool))  # resets nothing
    except RuntimeError as error:
        assert "in use" in str(error)  # noqa: PT017
        return True
    return False


@needs_fork
@forks
def test_fork_beside_a_push() -> None:
    # The child has the stream as it was in the middle of a step: not to be used, and it says so.
    layer = LSTM(40, 64, 2, seed=0)
    x = np.ones((10_000 if layer.isa == "scalar" else 200_000, 40), np.float32)
    stream, other = layer.stream(), layer.stream()
    expected = layer(x[:5])[0].tobytes()
    codes = []
    for _ in range(10):  # a push may be over before the fork, on a busy machine
        caller = threading.Thread(target=lambda: stream.push(x))
        caller.start()
        try:
            while not is_in_use(stream) and caller.is_alive():
                time.sleep(0.001)
            codes.append(code_of_child(lambda: is_in_use(stream) and not is_in_use(other)))
            assert code_of_child(lambda: other.push(x[:5]).tobytes() == expected) == 0
            other.reset()
        finally:
            caller.join(SECONDS)
        assert not is_in_use(stream)
        if codes[-1] == 0:
            return
    pytest.fail(f"codes of children: {codes}")


def send_work(connection: Any) -> None:
    connection.send(work())


@forks
@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_child_processes(method: str) -> None:
    expected = work()
    context = multiprocessing.get_context(method)
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=send_work, args=(sender,))
    child.start()
    assert receiver.poll(2 * SECONDS), "the child hangs"
    assert receiver.recv() == expected
    child.join(SECONDS)
    assert child.exitcode == 0


PROGRAM_HEAD = """
import os, sys, threading, time
import numpy as np, fastlstm
from fastlstm import LSTM
from support.processes import code_of_child, endless_call, work
fastlstm.set_num_threads(2)
"""


def run_program(body: str) -> subprocess.CompletedProcess[str]:
    """Run a program that finds work to do."""
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM_HEAD + textwrap.dedent(body)],
        env={**os.environ, "PYTHONPATH": IMPORTABLE},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def assert_exits(body: str, code: int = 0) -> None:
    ran = run_program(body)
    assert ran.returncode == code, ran.stdout + ran.stderr
    assert ran.stdout == "to the end\n"
    assert ran.stderr == ""


def test_exit_with_the_pool_alive() -> None:
    assert_exits("work(); print('to the end')")


def test_exit_with_a_call_under_way() -> None:
    # A daemon thread is in C code when the interpreter goes, and never comes back.
    assert_exits(
        """
        threading.Thread(target=endless_call, daemon=True).start()
        time.sleep(0.05)
        work()
        print('to the end')
        """
    )


def test_exit_while_daemon_threads_come_and_go() -> None:
    # They want the interpreter's lock when there is none to have any more.
    assert_exits(
        """
        def call_on_and_on():
            layer = LSTM(16, 40, seed=0)
            x = np.ones((20, 4, 16), np.float32)
            stream = layer.stream(4)
            while True:
                layer(x)
                stream.push(x)
                stream.step(x[0])

        for _ in range(3):
            threading.Thread(target=call_on_and_on, daemon=True).start()
        time.sleep(0.05)
        print('to the end')
        """
    )


def test_sys_exit_in_a_thread() -> None:
    # It ends that thread alone.
    assert_exits(
        """
        expected = work()

        def leave():
            work()
            sys.exit(3)

        thread = threading.Thread(target=leave)
        thread.start()
        thread.join()
        assert work() == expected
        print('to the end')
        """
    )


def test_sys_exit_of_the_program() -> None:
    assert_exits("work(); print('to the end'); sys.exit(3)", code=3)


def test_calls_after_the_pool_at_exit() -> None:
    # Finalisers and exit handlers still find a package that works.
    assert_exits(
        """
        import atexit
        expected = work()
        atexit.register(lambda: print('to the end' if work() == expected else 'wrong'))
        """
    )


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_dies_between_calls_of_a_stream() -> None:
    layer = LSTM(16, 40, 2, seed=0)
    x = np.random.default_rng(0).normal(size=(60, 16)).astype(np.float32)
    expected = layer(x)[0]
    stream = layer.stream()
    got: list[np.ndarray] = []

    def step_and_die() -> None:
        got.extend(stream.step(x_t).copy() for x_t in x[:20])
        stream.step(np.ones(3, np.float32))  # of the wrong shape, a ValueError

    def die_in_an_iteration() -> None:
        got.extend(stream.push(x[20:40]))
        raise ZeroDivisionError

    for target in (step_and_die, die_in_an_iteration):
        thread = threading.Thread(target=target)
        thread.start()
        thread.join(SECONDS)
        assert not thread.is_alive()
    got.extend(stream.push(x[40:]))
    assert_same_bits(np.array(got), expected)


def assert_no_more_threads(before: int) -> None:
    """A thread that was joined may be listed a moment longer."""
    for _ in range(200):
        if threads_of_process() <= before:
            return
        time.sleep(0.01)
    pytest.fail(f"{threads_of_process()} threads, before there were {before}")


@counts_threads
def test_the_pool_outlives_its_last_caller() -> None:
    expected = work()
    before = threads_of_process()
    got: list[bytes] = []
    caller = threading.Thread(target=lambda: got.append(work()))
    caller.start()
    caller.join(SECONDS)
    assert got == [expected]
    assert_no_more_threads(before)
    assert work() == expected
    assert_no_more_threads(before)


@counts_threads
def test_short_lived_threads_leave_nothing() -> None:
    work()
    layer = LSTM(16, 40, seed=0)
    x = np.ones((60, 16, 16), np.float32)
    expected = layer(x)[0].tobytes()
    before = threads_of_process()
    wrong: list[bool] = []
    for _ in range(50):
        threads = [
            threading.Thread(target=lambda: wrong.append(layer(x)[0].tobytes() != expected))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SECONDS)
    assert wrong == [False] * 200
    assert_no_more_threads(before)


# Second interpreters in one process. Neither NumPy nor a module of Cython's can be in two of them:
# the first to import has them, and others are told so by an ImportError.
MAKE_INTERPRETER = """
import os, sys
try:
    import _interpreters as interpreters  # from Python 3.13
except ImportError:
    import _xxsubinterpreters as interpreters

def run_in_another(code, shares_lock):
    if sys.version_info >= (3, 13):
        other = interpreters.create('legacy' if shares_lock else 'isolated')
    else:
        other = interpreters.create(isolated=not shares_lock)
    head = 'import os, warnings; warnings.simplefilter("ignore")' + chr(10)
    assert not interpreters.run_string(other, head + code)
    interpreters.destroy(other)
"""
USE = """
try:
    import numpy as np, fastlstm
    y = fastlstm.LSTM(3, 5, seed=0)(np.ones((4, 1, 3), np.float32))[0]
except ImportError as error:
    outcome = 'refused' if str(error) else 'refused without a word'
else:
    outcome = 'works'
os.write(1, (outcome + chr(10)).encode())
"""
# The compiled core without NumPy before it, which would refuse first.
USE_CORE = """
import importlib.util
spec = importlib.util.spec_from_file_location('fastlstm._core', {path!r})
try:
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
except ImportError as error:
    outcome = 'interpreter' in str(error)
else:
    outcome = 'loaded'
os.write(1, (str(outcome) + chr(10)).encode())
"""


def run_interpreters(body: str) -> list[str]:
    """Run a program without a package imported; return its lines."""
    if sys.implementation.name != "cpython":
        missing("another interpreter")
    program = f"{MAKE_INTERPRETER}\nUSE = {USE!r}\n{textwrap.dedent(body)}"
    ran = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": IMPORTABLE},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    if "No module named '_xxsubinterpreters'" in ran.stderr:
        missing("another interpreter")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout.split("\n")[:-1]


@pytest.mark.parametrize("shares_lock", [True, False])
def test_another_interpreter_is_refused(shares_lock: bool) -> None:
    core = USE_CORE.format(path=_core.__file__)
    lines = run_interpreters(
        f"""
        import fastlstm, numpy as np
        layer = fastlstm.BiLSTM(20, 67, 2, seed=1)
        x = np.ones((200, 8, 20), np.float32)
        expected = layer(x)[0].tobytes()
        run_in_another(USE, {shares_lock})
        run_in_another({core!r}, {shares_lock})
        print(layer(x)[0].tobytes() == expected)
        """
    )
    assert lines == ["refused", "True", "True"]


@pytest.mark.parametrize("shares_lock", [True, False])
def test_another_interpreter_comes_first(shares_lock: bool) -> None:
    (line,) = run_interpreters(f"run_in_another(USE, {shares_lock})")
    if shares_lock or sys.version_info < (3, 12):  # before, all share the lock
        assert line == "works"
    else:  # NumPy has no use for interpreters with a lock of their own
        assert line in ("works", "refused")
