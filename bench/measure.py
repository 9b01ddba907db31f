"""Interleaved timing: A, B, C, A, B, C, ... in one process, and what is computed from it.

A shared machine is never twice in the same mood.  Contestants that take turns meet the same
moods, so the ratio of two times of one round says more than the ratio of two times taken minutes
apart.  The figures reported are therefore medians of rounds, and medians of per-round ratios.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat

import numpy as np

#: A `Spread.relative` that undisturbed measurements don't have; on a shared machine they may.
_WIDE = 0.25

Call = Callable[[], object]
Clock = Callable[[], float]


@dataclass(frozen=True)
class Plan:
    """How one contestant is sampled.

    Attributes
    ----------
    inner : int
        Calls in a sample.
    rounds : int
        Samples taken; it takes part in the first ``rounds`` rounds.
    """

    inner: int
    rounds: int


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of some numbers."""

    median: float
    q1: float
    q3: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Median and quartiles (linear interpolation) of at least one value."""
        if not values:
            raise ValueError("values must hold at least one number")
        q1, median, q3 = np.percentile(np.asarray(values, dtype=np.float64), (25, 50, 75))
        return cls(float(median), float(q1), float(q3))

    @property
    def is_wide(self) -> bool:
        """Whether the quartiles are so far apart that something disturbed the measurement."""
        return self.relative > _WIDE

    @property
    def relative(self) -> float:
        """Half the distance of the quartiles, relative to the median."""
        return (self.q3 - self.q1) / (2.0 * self.median) if self.median else 0.0


def make_plan(
    call: Call,
    *,
    rounds: int,
    sample_seconds: float,
    budget_seconds: float,
    least_rounds: int = 5,
    clock: Clock = time.perf_counter,
) -> Plan:
    """Warm a contestant up and size its samples.

    Parameters
    ----------
    call : callable
        The work, no arguments.
    rounds : int
        Rounds wanted, at least 1.
    sample_seconds : float
        A sample shall last at least about this long, in seconds.
    budget_seconds : float
        Time that all samples of this contestant may take, in seconds.  A slow contestant gets
        fewer rounds, but not fewer than ``least_rounds``.
    """
    call()
    inner = 1
    while True:
        start = clock()
        for _ in repeat(None, inner):
            call()
        elapsed = clock() - start
        if elapsed >= sample_seconds:
            break
        # Aim a little beyond the goal; a clock that did not move counts as one tick.
        grown = inner * 1.2 * sample_seconds / max(elapsed, 1e-9)
        inner = int(min(max(grown, inner + 1), 100 * inner))
    one = elapsed / inner
    affordable = int(budget_seconds / (elapsed + one))
    return Plan(inner, min(rounds, max(affordable, least_rounds)))


def interleave(
    calls: Mapping[str, Call],
    plans: Mapping[str, Plan],
    *,
    pause_seconds: float = 0.0,
    clock: Clock = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, list[float]]:
    """Sample all contestants in turn, round after round.

    Parameters
    ----------
    calls : mapping of str to callable
        The contestants, in the order of their turns.
    plans : mapping of str to Plan
        One for each contestant.
    pause_seconds : float
        Sleep before each sample, for the idle threads of the one before to stop spinning.
    clock, sleep : callable
        Replaced in tests.

    Returns
    -------
    dict of str to list of float
        Seconds per call.  Entry r of every list comes from round r.
    """
    samples: dict[str, list[float]] = {name: [] for name in calls}
    collecting = gc.isenabled()
    gc.disable()
    try:
        for number in range(max((plans[name].rounds for name in calls), default=0)):
            for name, call in calls.items():
                plan = plans[name]
                if number >= plan.rounds:
                    continue
                if pause_seconds:
                    sleep(pause_seconds)
                call()  # the others used the caches, and what they leave running may still run
                start = clock()
                for _ in repeat(None, plan.inner):
                    call()
                samples[name].append((clock() - start) / plan.inner)
    finally:
        if collecting:
            gc.enable()
    return samples


def ratios(theirs: Sequence[float], ours: Sequence[float]) -> list[float]:
    """Round by round, their time over our time: above 1 where we are faster.

    Rounds that only one of the two took part in are left out.
    """
    return [a / b for a, b in zip(theirs, ours, strict=False)]


def geometric_mean(values: Sequence[float]) -> float:
    """Geometric mean of positive numbers; NaN for none."""
    return float(np.exp(np.mean(np.log(values)))) if values else float("nan")
