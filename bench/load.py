"""Several processes at once: calls a second of all together, and percentiles of their latency.

Who shares the processors with other processes cares for more than the time of a call alone: threads
that wait for each other wait for the slowest, and one that was taken off its processor comes back
milliseconds later.  So each contestant has a few processes that all call at the same time, back to
back, with its threads; and once more beside processes that only keep a processor busy.  fastlstm
takes part a second time with one thread.

Contestants take turns as in ``measure``.  All processes are started before the first turn; those
whose turn it is not are blocked in reading from a pipe.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np

from . import threads
from .grid import Cell, select
from .machine import Machine
from .measure import Spread
from .peers import OURS, PEERS, REFERENCE, Contestant, UnsupportedError
from .problem import agrees, difference, make_problem
from .report import SCHEMA, aligned, machine_in_words, not_installed

#: Percentiles of the latency, of the calls of all processes of a turn.
PERCENTILES = (50.0, 99.0, 99.9)

_BUSY = "busy"  # a process that only computes
_PAUSE_SECONDS = 0.05  # before a turn, for idle threads of the one before to stop spinning


@dataclass(frozen=True)
class Settings:
    """How to measure.

    Attributes
    ----------
    threads : int
        Threads of each process; fastlstm takes part with one, too.
    processes : int
        Processes of a contestant that call at the same time.
    busy : int
        Processes that compute beside them, in half of the turns; 0 for no such turns.
    seconds : float
        Length of a turn.
    rounds : int
        Turns of each contestant, alone and beside busy processes.
    """

    threads: int
    processes: int = 2
    busy: int = 1
    seconds: float = 1.0
    rounds: int = 5

    def __post_init__(self) -> None:
        for name, least in (("processes", 1), ("busy", 0), ("rounds", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if not 0 < self.seconds < float("inf"):
            raise ValueError(f"seconds must be a positive number, got {self.seconds}")


@dataclass(frozen=True)
class Turn:
    """What a contestant's processes did in one turn.

    Attributes
    ----------
    rate : float
        Calls a second, of all processes together.
    latencies : tuple of float
        ``PERCENTILES`` of a call's time, in seconds.
    """

    rate: float
    latencies: tuple[float, ...]

    @classmethod
    def of(cls, times: Sequence[Sequence[float]]) -> Turn:
        """Figures from the times of the calls of each process, in seconds, one after the other."""
        rate = sum(len(own) / sum(own) for own in times)
        found = np.percentile(np.concatenate(times), PERCENTILES)
        return cls(rate, tuple(found.tolist()))


@dataclass(frozen=True)
class Result:
    """One contestant's figures in one cell.

    Attributes
    ----------
    cell : Cell
    contestant : str
    threads : int
    difference : float
        Largest relative difference of its results from the reference's.
    turns : dict of int to list of Turn
        By the number of busy processes beside it, one a round.
    """

    cell: Cell
    contestant: str
    threads: int
    difference: float
    turns: dict[int, list[Turn]] = field(default_factory=dict)

    def rate(self, busy: int) -> Spread:
        """Calls a second."""
        return Spread.of([turn.rate for turn in self.turns[busy]])

    def latency(self, busy: int, which: int) -> Spread:
        """Seconds a call, the percentile of that index."""
        return Spread.of([turn.latencies[which] for turn in self.turns[busy]])


@dataclass(frozen=True)
class Report:
    """Everything one run found; the attributes are ``report.Report``'s where they have its names.

    Attributes
    ----------
    left_out : list of str
        Who takes no part in which cell, and why.
    """

    command: str
    date: str
    machine: Machine
    settings: Settings
    pinned_to: tuple[int, ...] | None
    missing: Sequence[Contestant]
    results: Sequence[Result]
    left_out: Sequence[str]

    @property
    def disagreeing(self) -> list[str]:
        """Contestants whose results differ from the reference's by more than rounding."""
        return [
            f"{found.contestant} in {found.cell.name}"
            for found in self.results
            if not agrees(found.difference, found.cell)
        ]


# --- the processes --------------------------------------------------------------------------


def _work(seconds: float, call: Any) -> list[float]:
    """Call back to back for so long; the times of the calls, in seconds."""
    times = []
    last = time.perf_counter()
    end = last + seconds
    while last < end:
        call()
        now = time.perf_counter()
        times.append(now - last)
        last = now
    return times


def _count() -> None:
    for _ in repeat(None, 1000):
        pass


def serve(name: str, cell_name: str, count: int) -> None:
    """Be a process of a contestant: take turns as standard input asks for them.

    A line that it reads is the length of a turn in seconds.  The lines that it writes are JSON: at
    first what it differs from the reference by, or why it can't take part, then the times of the
    calls of each turn.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it ends when its input does
    call: Any = _count
    first: dict[str, object] = {"difference": 0.0}
    if name != _BUSY:
        (cell,) = select("load", [cell_name])
        problem = make_problem(cell)
        contestant = OURS if name == OURS.name else PEERS[name]
        try:
            call = contestant.build(problem, count)
            right = REFERENCE.build(problem, count).arrays()
            first = {"difference": difference(call.arrays(), right)}
        except UnsupportedError as reason:
            first = {"left_out": str(reason)}
        except Exception as error:
            first = {"left_out": f"failed: {type(error).__name__}: {error}"}
    print(json.dumps(first), flush=True)
    for line in sys.stdin:
        times = _work(float(line), call)
        print(json.dumps([] if name == _BUSY else times), flush=True)


class _Process:
    """The other end of ``serve``."""

    def __init__(self, name: str, cell: Cell, count: int) -> None:
        path = os.pathsep.join(str(Path(entry).absolute()) for entry in sys.path)
        env = {**os.environ, **threads.environment(count, os.environ), "PYTHONPATH": path}
        command = [sys.executable, "-P", "-m", __name__, name, cell.name, str(count)]
        self._child = subprocess.Popen(
            command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, seconds: float) -> None:
        """Begin a turn."""
        assert self._child.stdin is not None
        print(seconds, file=self._child.stdin, flush=True)

    def answer(self) -> Any:
        """Wait for the next line."""
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        if not line:
            raise RuntimeError("a process of the benchmark ended before its time")
        return json.loads(line)

    def end(self) -> None:
        """Close its input, after which it ends, and wait for it."""
        self._child.communicate()


@contextmanager
def _started(names: Iterable[tuple[str, int]], cell: Cell) -> Iterator[list[_Process]]:
    """Processes of these contestants and numbers of threads, while the context lasts."""
    processes: list[_Process] = []
    try:
        for name, count in names:
            processes.append(_Process(name, cell, count))
        yield processes
    finally:
        for process in processes:
            process.end()


def _take_turn(own: Sequence[_Process], beside: Sequence[_Process], seconds: float) -> Turn:
    time.sleep(_PAUSE_SECONDS)
    for process in (*beside, *own):
        process.ask(seconds)
    times = [process.answer() for process in own]
    for process in beside:
        process.answer()
    return Turn.of(times)


def measure_cell(
    cell: Cell, peers: Sequence[Contestant], settings: Settings
) -> tuple[list[Result], list[str]]:
    """Measure fastlstm, with one thread and with all, and the peers; and tell who was left out."""
    pairs = [(OURS.name, settings.threads), (OURS.name, 1)]
    pairs = list(dict.fromkeys(pairs)) + [(peer.name, settings.threads) for peer in peers]
    every = [pair for pair in pairs for _ in range(settings.processes)]
    results: list[Result] = []
    left_out: list[str] = []
    with _started([*every, *[(_BUSY, 1)] * settings.busy], cell) as processes:
        answers = [process.answer() for process in processes]
        groups: list[list[_Process]] = []
        for number, (name, count) in enumerate(pairs):
            at = slice(number * settings.processes, (number + 1) * settings.processes)
            reasons = [answer["left_out"] for answer in answers[at] if "left_out" in answer]
            if reasons:
                left_out.append(f"{name} left out of {cell.name}: {reasons[0]}")
                continue
            worst = float(np.max([answer["difference"] for answer in answers[at]]))
            groups.append(processes[at])
            results.append(Result(cell, name, count, worst))
        beside = processes[len(every) :]
        for _ in range(settings.rounds):
            for busy in dict.fromkeys((0, settings.busy)):
                for own, found in zip(groups, results, strict=True):
                    turn = _take_turn(own, beside[:busy], settings.seconds)
                    found.turns.setdefault(busy, []).append(turn)
    return results, left_out


# --- what is written ------------------------------------------------------------------------


def as_dict(report: Report) -> dict[str, object]:
    """Put the report in plain containers; times are in seconds.

    What was measured more than once is ``[median, first quartile, third quartile]``.
    """

    def spread(value: Spread) -> list[float]:
        return [value.median, value.q1, value.q3]

    return {
        "schema": SCHEMA,
        "command": report.command,
        "date": report.date,
        "grid": "load",
        "machine": report.machine.as_dict(),
        "settings": asdict(report.settings),
        "pinned_to": None if report.pinned_to is None else list(report.pinned_to),
        "not_installed": [peer.name for peer in report.missing],
        "left_out": list(report.left_out),
        "cells": [
            {
                "name": found.cell.name,
                "busy": busy,
                "contestant": found.contestant,
                "threads": found.threads,
                "rounds": len(turns),
                "calls_per_second": spread(found.rate(busy)),
                "latency": {
                    f"{percent:g}": spread(found.latency(busy, which))
                    for which, percent in enumerate(PERCENTILES)
                },
                "difference": found.difference if np.isfinite(found.difference) else None,
            }
            for found in report.results
            for busy, turns in found.turns.items()
        ],
        "disagreeing": report.disagreeing,
        "agreed": not report.disagreeing,
    }


def rows(report: Mapping[str, Any]) -> list[list[str]]:
    """Header and rows of the table of what ``as_dict`` made: first all alone, then all beside."""
    settings = report["settings"]
    header = ["cell", "contestant", "processes x threads", "busy beside", "calls/s"]
    header += [f"{percent:g}%, ms" for percent in PERCENTILES]
    table = [header]
    for entry in sorted(report["cells"], key=lambda entry: (entry["name"], entry["busy"])):
        times = [entry["latency"][f"{percent:g}"][0] * 1e3 for percent in PERCENTILES]
        table.append(
            [
                entry["name"],
                entry["contestant"],
                f"{settings['processes']} x {entry['threads']}",
                str(entry["busy"]),
                f"{entry['calls_per_second'][0]:,.0f}",
                *(f"{value:.3g}" for value in times),
            ]
        )
    return table


def table(report: Report) -> str:
    """Heading, Markdown table and notes, as printed."""
    settings = report.settings
    pinned = "not pinned (this system can't)"
    if report.pinned_to is not None:
        pinned = f"pinned to processor {', '.join(map(str, report.pinned_to))}"
    header, *body = rows(as_dict(report))
    lines = [
        *machine_in_words(report.machine),
        f"{settings.processes} processes at once, {pinned}; turns of {settings.seconds:g} s",
        *not_installed(report.missing),
        "",
        *aligned(header, body),
        "",
        "Calls a second: of all processes of a contestant together.  The others: percentiles of",
        "the time of their calls, in milliseconds.  Medians of rounds.",
        *report.left_out,
        *(f"DISAGREEMENT: {who} differs from the reference" for who in report.disagreeing),
    ]
    return "\n".join(lines if report.disagreeing else [*lines, "All results agree."])


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2], int(sys.argv[3]))
