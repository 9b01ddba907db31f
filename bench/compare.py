"""One cell: build every contestant, check that they agree, then time them in turns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .grid import Cell
from .measure import Call, Plan, Spread, interleave, make_plan, ratios
from .peers import (
    DROP_IN,
    DROP_IN_FROZEN,
    OURS,
    OURS_IN_BITS,
    REFERENCE,
    Contestant,
    Runner,
    UnsupportedError,
)
from .problem import Arrays, Problem, difference, make_problem, tolerance

# Measured in turns like contestants, reported relative to fastlstm's time.
_REPACK, _VANILLA = "repack", "vanilla"
_NO_PEERS = {one.name for one in (OURS, REFERENCE, DROP_IN, DROP_IN_FROZEN, *OURS_IN_BITS.values())}


@dataclass(frozen=True)
class Settings:
    """How to measure.

    Attributes
    ----------
    threads : int
        Threads for every contestant.
    rounds : int
        Rounds wanted; slow contestants take part in fewer.
    sample_seconds : float
        Least duration of a sample, in seconds.
    budget_seconds : float
        Time for all samples of one contestant in one cell, in seconds.
    pause_seconds : float
        Sleep before each sample, in seconds.
    """

    threads: int = 1
    rounds: int = 15
    sample_seconds: float = 0.004
    budget_seconds: float = 1.0
    pause_seconds: float = 0.0


@dataclass(frozen=True)
class Entry:
    """One contestant's figures in one cell.

    Attributes
    ----------
    samples : list of float
        Seconds per call, one a round.
    inner : int
        Calls in a sample.
    difference : float
        Largest relative difference of its results from the base's.
    bound : float or None
        What that may be in the precision that it computes in; None where that is the cell's dtype.
    error : (float, float) or None
        In the grid ``precision``: y's largest difference from float64, and the root mean square.
    """

    samples: list[float]
    inner: int
    difference: float
    bound: float | None = None
    error: tuple[float, float] | None = None

    @property
    def time(self) -> Spread:
        """Seconds per call."""
        return Spread.of(self.samples)


@dataclass(frozen=True)
class CellResult:
    """All figures of one cell.

    Attributes
    ----------
    cell : Cell
    entries : dict of str to Entry
        By contestant, in the order of their turns; fastlstm first.
    left_out : dict of str to str
        Why a contestant has no figures here.
    base : str
        The contestant whose results the others' are compared with.
    repacking : Spread or None
        In training, the time that fastlstm's ``load_parameters`` takes, over that of its call,
        which does not include it.
    over_vanilla : Spread or None
        Of a variant, fastlstm's time over its time in ``cell.vanilla``.
    """

    cell: Cell
    entries: dict[str, Entry]
    left_out: dict[str, str]
    base: str
    repacking: Spread | None = None
    over_vanilla: Spread | None = None

    @property
    def peers(self) -> list[str]:
        """Names of the measured contestants other than fastlstm and its reference."""
        return [name for name in self.entries if name not in _NO_PEERS]

    @property
    def best_peer(self) -> str | None:
        """The peer with the lowest median time; None if no peer was measured."""
        return min(self.peers, key=lambda n: self.entries[n].time.median, default=None)

    def ratio(self, name: str | None, ours: str = OURS.name) -> Spread | None:
        """Time of ``name`` over fastlstm's, round by round; None if either was not measured."""
        if name is None or not {name, ours} <= set(self.entries):
            return None
        return Spread.of(ratios(self.entries[name].samples, self.entries[ours].samples))

    @property
    def lost(self) -> bool:
        """Whether the best peer is faster than fastlstm, and it is no draw."""
        ratio = self.ratio(self.best_peer)
        return ratio is not None and ratio.median < 1.0 and not self.drawn

    @property
    def drawn(self) -> bool:
        """Whether the best peer is faster by less than the measurement tells apart."""
        ratio = self.ratio(self.best_peer)
        return ratio is not None and ratio.median < 1.0 <= ratio.q3

    @property
    def disagreeing(self) -> list[str]:
        """Contestants whose results differ from the base's by more than rounding."""
        return [
            name
            for name, entry in self.entries.items()
            if not entry.difference <= self.bound(name)  # NaN never is
        ]

    def bound(self, name: str) -> float:
        """Largest difference that passes for a contestant's rounding."""
        bound = self.entries[name].bound
        return tolerance(self.cell) if bound is None else bound


def _first_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__


@dataclass(frozen=True)
class Built:
    """The contestants of a cell, ready to be timed.

    Attributes
    ----------
    runners : dict of str to Runner
    arrays : dict of str to Arrays
        The results of each.
    left_out : dict of str to str
        Who can't do the cell or failed in it, and why.
    """

    runners: dict[str, Runner]
    arrays: dict[str, Arrays]
    left_out: dict[str, str]

    @classmethod
    def of(cls, contestants: Sequence[Contestant], problem: Problem, threads: int) -> Built:
        """Build and run each; an error of fastlstm itself is raised."""
        built = cls({}, {}, {})
        for contestant in contestants:
            try:
                runner = contestant.build(problem, threads)
                built.arrays[contestant.name] = runner.arrays()
            except UnsupportedError as reason:
                built.left_out[contestant.name] = str(reason)
            except Exception as error:
                if contestant.module == OURS.module:
                    raise
                built.left_out[contestant.name] = f"failed: {_first_line(error)}"
            else:
                built.runners[contestant.name] = runner
        return built


def sample(
    calls: Mapping[str, Call], settings: Settings
) -> tuple[dict[str, Plan], dict[str, list[float]]]:
    """Plan how each call is sampled, and sample them in turns: seconds a call, one a round."""
    plans = {
        name: make_plan(
            call,
            rounds=settings.rounds,
            sample_seconds=settings.sample_seconds,
            budget_seconds=settings.budget_seconds,
        )
        for name, call in calls.items()
    }
    return plans, interleave(calls, plans, pause_seconds=settings.pause_seconds)


def measure_cell(cell: Cell, peers: Sequence[Contestant], settings: Settings) -> CellResult:
    """Compare fastlstm, its reference and the peers on one cell.

    A contestant that can't do the cell, or fails in it, is left out with the reason; an error of
    fastlstm itself is raised.
    """
    built = Built.of((OURS, REFERENCE, *peers), make_problem(cell), settings.threads)
    runners, arrays = built.runners, built.arrays
    base = REFERENCE.name if REFERENCE.name in arrays else OURS.name
    differences = {name: difference(got, arrays[base]) for name, got in arrays.items()}
    arrays.clear()

    calls: dict[str, Call] = dict(runners)
    if repack := getattr(runners[OURS.name], "repack", None):
        calls[_REPACK] = repack
    if vanilla := cell.vanilla:
        calls[_VANILLA] = OURS.build(make_problem(vanilla), settings.threads)
    plans, samples = sample(calls, settings)
    entries = {name: Entry(samples[name], plans[name].inner, differences[name]) for name in runners}
    repacking = Spread.of(ratios(samples[_REPACK], samples[OURS.name])) if repack else None
    over = Spread.of(ratios(samples[OURS.name], samples[_VANILLA])) if vanilla else None
    return CellResult(cell, entries, built.left_out, base, repacking, over)
