"""How the workers of a training run add up what each has computed: in the same tree, however many.

A batch is cut into shards, whose number depends on neither the number of workers nor their speed.
The gradients of shards are the leaves of a binary tree that is fixed by their number, and every sum
is that of two subtrees. A worker adds up the subtrees whose leaves it has computed, and what is
left of the tree, its top, is added after an exchange: each worker gets one part of all vectors,
adds it in the order of the tree, and gives the sum to all. So a worker sends about twice the size
of a gradient, whatever the number of workers, as where engines add by themselves, but the bits are
those of one worker.

Letters: N parameters, W workers.
"""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastlstm._arguments import RealArray, as_flag, as_size
from fastlstm.threads import get_num_threads, set_num_threads

#: First and last leaf of a subtree, the last one excluded.
Span: TypeAlias = tuple[int, int]
Float64: TypeAlias = NDArray[np.float64]

#: Numbers in a message that is always of the same size: the first two say whether the worker has
#: failed, and how much there is to say.
_RECORD = 16
_STATE = 2
#: Attribute of errors that the other workers know of.
TOLD = "told_to_workers"


class WorkerError(RuntimeError):
    """Workers can't go on: one failed, can't be reached, or has other data or options.

    Attributes
    ----------
    lost : bool
        Whether it can't be reached, so that not even its error is known.
    """

    def __init__(self, message: str, *, lost: bool = False) -> None:
        super().__init__(message)
        self.lost = lost


def cut(count: int, parts: int) -> list[range]:
    """Cut a number of things into parts that lie one behind the other, as equal as can be."""
    ends = [count * k // parts for k in range(parts + 1)]
    return [range(start, stop) for start, stop in pairwise(ends)]


def tree_sum(first: int, last: int, part: Callable[[int, int], RealArray | None]) -> RealArray:
    """Add up the leaves first .. last - 1 in the order of the tree, which depends on these alone.

    Parameters
    ----------
    first, last : int
    part : callable
        Returns the sum of a subtree, given its first and last leaf, or None if it is to be made of
        its two halves; of a single leaf always an array. It belongs to this function, which changes
        it.

    Returns
    -------
    ndarray

    Notes
    -----
    The tree is cut behind the largest power of two below its number of leaves. Where that is a
    power of two itself, and so is the number of workers, each has one subtree. At most one vector
    for each level is held at a time.
    """
    found = part(first, last)
    if found is not None:
        return found
    middle = _middle(first, last)
    total = tree_sum(first, middle, part)
    total += tree_sum(middle, last, part)
    return total


def subtrees(leaves: range, first: int, last: int) -> Iterator[Span]:
    """Yield the largest subtrees, of the tree of leaves first .. last - 1, inside a range."""
    if max(first, leaves.start) >= min(last, leaves.stop):
        return
    if leaves.start <= first and last <= leaves.stop:
        yield first, last
        return
    middle = _middle(first, last)
    yield from subtrees(leaves, first, middle)
    yield from subtrees(leaves, middle, last)


def _middle(first: int, last: int) -> int:
    return first + (1 << ((last - first - 1).bit_length() - 1))


class Reduction:
    """One worker that adds up shards in the order in which any number of workers does.

    A run by ``Trainer(reduce=Reduction())`` ends with the weights, to the bit, of runs by several
    workers of `MPI` and `Gloo`, which are Reductions, too.

    Parameters
    ----------
    shards : int
        Into how many a batch is cut; as many workers can share a step. Another number makes other
        roundings, and masks of what a layer drops. A batch of fewer sequences has a shard for each.
    reproducible : bool
        Whether the weights are the same, to the bit, for any number of workers. If not, the engine
        adds the sums of workers up as it likes, and the weights differ by roundings.

    Attributes
    ----------
    rank : int
        Number of this worker, from 0.
    size : int
        W, how many there are.
    shards, reproducible
        As above.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described, or there are fewer shards than workers.

    Notes
    -----
    Every method but `cut` and `own` is a conversation, in which all workers have to take part. It
    begins with a record from each that tells whether it has failed: then the others raise a
    WorkerError, and none of them waits forever. Workers of which some have failed can't talk again.
    """

    def __init__(self, shards: int = 8, *, reproducible: bool = True) -> None:
        self._begin(0, 1, shards, reproducible)

    def _begin(self, rank: int, size: int, shards: int, reproducible: bool) -> None:
        self.rank, self.size = rank, size
        self.shards = as_size("shards", shards)
        self.reproducible = as_flag("reproducible", reproducible)
        if self.shards < size:
            raise ValueError(
                f"shards: got {shards} for {size} workers, expected one for each at least"
            )
        self._ended = False

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(rank {self.rank} of {self.size}, shards={self.shards}, "
            f"reproducible={self.reproducible})"
        )

    @property
    def order(self) -> str:
        """What the roundings of sums depend on."""
        return f"{self.shards} shards" + ("" if self.reproducible else ", as the engine adds them")

    def cut(self, count: int) -> list[range]:
        """Cut a batch of so many sequences into shards, of which none is empty."""
        return cut(count, min(self.shards, count))

    def own(self, count: int) -> range:
        """Which of so many shards, or other parts of the work, are this worker's."""
        return cut(count, self.size)[self.rank]

    def gather(self, rows: Sequence[Sequence[float]], count: int, width: int) -> Float64:
        """Return a row of numbers for each part (count, width), given those of one's own."""
        most = -(-count // self.size)
        mine = np.zeros((most, width))
        if rows:
            mine[: len(rows)] = rows
        found = self._exchange(mine.ravel()).reshape(self.size, most, width)
        shares = cut(count, self.size)
        return np.concatenate([found[r, : len(share)] for r, share in enumerate(shares)])

    def sum(
        self,
        count: int,
        width: int,
        one: Callable[[int], tuple[Sequence[float], RealArray]],
        like: RealArray,
    ) -> tuple[Float64, RealArray]:
        """Add up the vectors of shards, and return their rows (count, width) with the sum (N,).

        Parameters
        ----------
        count : int
            Of shards, from 1.
        width : int
            Numbers in a row.
        one : callable
            Returns the row and the vector (N,) of a shard, given its number; called for this
            worker's own.
        like : ndarray (N,)
            Of the vectors' dtype and shape.
        """
        rows: dict[int, Sequence[float]] = {}

        def leaf(first: int, last: int) -> RealArray | None:
            if last - first > 1:
                return None
            rows[first], vector = one(first)
            return vector

        own = [list(subtrees(share, 0, count)) for share in cut(count, self.size)]
        sums = [tree_sum(*span, leaf) for span in own[self.rank]]
        gathered = self.gather([rows[k] for k in self.own(count)], count, width)
        if self.size == 1:
            return gathered, sums[0]
        with self._talking():
            if not self.reproducible:
                total = np.zeros_like(like)
                for vector in sums:
                    total += vector
                self._add(total)
                return gathered, total
            if [len(spans) for spans in own] == [1, 1]:
                # Two vectors are as many bytes as the parts of both, and one message less.
                mine, other = self._collect(sums[0])
                return gathered, np.add(mine, other, out=sums[0])
            # Parts of equal length, as not all engines can send others.
            length = -(-like.size // self.size)
            padded = np.zeros((len(sums), self.size * length), like.dtype)
            for row, vector in zip(padded, sums, strict=True):
                row[: like.size] = vector
            by_worker = padded.reshape(len(sums), self.size, length).swapaxes(0, 1)
            got = self._deal(np.ascontiguousarray(by_worker), [len(spans) for spans in own])
            spans = [span for spans in own for span in spans]
            parts = dict(zip(spans, got, strict=True))
            total = tree_sum(0, count, lambda *span: parts.get(span))
            whole = self._collect(total)
        return gathered, whole.reshape(-1)[: like.size]

    def any(self, flag: bool) -> bool:
        """Tell whether any worker has a flag."""
        return bool(self._exchange(np.array([flag], np.float64)).any())

    def share(self, own: Sequence[Any]) -> list[Any]:
        """Return the objects of all parts, given those of this worker's own."""
        self._exchange(np.empty(0))
        with self._talking():
            found = self._objects(list(own))
        return [each for theirs in found for each in theirs]

    def agree(self, facts: Mapping[str, object]) -> None:
        """Raise a WorkerError, on all workers, unless all have the same facts, by their names."""
        self._exchange(np.empty(0))
        with self._talking():
            everyone = self._objects({name: str(value) for name, value in facts.items()})
        for rank, theirs in enumerate(everyone):
            for name in [*everyone[0], *theirs]:
                a, b = everyone[0].get(name), theirs.get(name)
                if a != b:
                    raise WorkerError(
                        f"{name}: got {a} in worker 0 and {b} in worker {rank}, expected the same "
                        "in all"
                    )

    @contextmanager
    def together(self) -> Iterator[None]:
        """Let all workers end a ``with`` block together, whichever of them fails in it."""
        try:
            yield
            self._exchange(np.empty(0))
        except BaseException as error:
            self._fail(error)
            raise

    def _fail(self, error: BaseException) -> None:
        """Tell the others, who wait for this worker now or will."""
        setattr(error, TOLD, True)
        if self._ended:
            return
        self._ended = True
        with suppress(Exception):  # what is raised is what happened first
            records = self._records(np.array([1.0, *[0.0] * (_RECORD - 1)]))
            self._objects(str(error) or type(error).__name__)
            # Of what all met alike, Ctrl-C or numbers that grew too large, they are still together.
            self._ended = not records[:, 0].all()

    def _exchange(self, numbers: Float64) -> Float64:
        """Return what each worker gives (W, m), after all have said how they are."""
        if self._ended:
            raise WorkerError("the run of these workers has ended: make another reduction")
        room = _RECORD - _STATE
        found = np.zeros((self.size, max(1, -(-len(numbers) // room)) * room))
        for start in range(0, found.shape[1], room):
            record = np.zeros(_RECORD)
            record[1] = len(numbers)
            given = numbers[start : start + room]
            record[_STATE : _STATE + len(given)] = given
            with self._talking():
                records = self._records(record)
                if (failed := np.flatnonzero(records[:, 0])).size:
                    self._ended = True
                    texts = self._objects(None)
                    rank = int(failed[0])
                    raise WorkerError(f"worker {rank} of {self.size} failed: {texts[rank]}")
            if (records[:, 1] != len(numbers)).any():
                self._ended = True
                raise WorkerError(
                    "workers are at different places of the run, expected all to call the same "
                    "methods in the same order"
                )
            found[:, start : start + room] = records[:, _STATE:]
        return found[:, : len(numbers)]

    @contextmanager
    def _talking(self) -> Iterator[None]:
        """End the run if a message does not come through: the others don't know where it broke."""
        try:
            yield
        except WorkerError:
            raise
        except BaseException as error:
            self._ended = True
            text = f"a worker can't be reached: {self._reason(error)}"
            self._abort(text)
            if isinstance(error, Exception):
                raise WorkerError(text, lost=True) from error
            raise

    # What an engine does: here nothing, as there is nobody else.

    def _records(self, record: Float64) -> Float64:
        """Return the records of all workers (W, m)."""
        return record[np.newaxis]

    def _objects(self, value: Any) -> list[Any]:
        """Return a small object from each worker."""
        return [value]

    def _add(self, vector: RealArray) -> None:
        """Put the sum of all workers' vectors (N,) in its place, added in any order."""

    def _deal(self, blocks: RealArray, counts: Sequence[int]) -> RealArray:
        """Return the blocks (sum(counts), n) for this worker, from blocks (W, k, n) for each.

        ``counts`` has the k of each worker.
        """
        dealt: RealArray = blocks[0]
        return dealt

    def _collect(self, part: RealArray) -> RealArray:
        """Return the parts (n,) of all workers (W, n)."""
        whole: RealArray = part[np.newaxis]
        return whole

    def _reason(self, error: BaseException) -> str:
        """Say why a message did not come through."""
        return str(error)

    def _abort(self, text: str) -> None:
        """End the other workers, where the engine does not by itself."""


def processors() -> frozenset[int]:
    """Return the processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


def place() -> tuple[str, frozenset[int]]:
    """Return the machine that this process is on, and its processors there."""
    return platform.node(), processors()


def fair_threads(places: Sequence[tuple[str, frozenset[int]]], rank: int) -> int:
    """Return how many threads a worker may have, so that all have no more than processors.

    Workers may share processors, or each have its own, as ``mpiexec -bind-to core`` has it: of a
    processor each that may use it gets the same share.
    """
    machine, mine = places[rank]
    sharers = [theirs for where, theirs in places if where == machine]
    shares = sum(1 / sum(one in theirs for theirs in sharers) for one in mine)
    return max(1, math.floor(shares + 1e-9))


def limit_threads(threads: int | None, places: Sequence[Any], rank: int) -> None:
    """Set the threads of this process to its fair share, or to fewer.

    Raises
    ------
    TypeError, ValueError
        If ``threads`` is no integer from 1, or more than that.
    """
    if threads is None:
        set_num_threads(min(fair_threads(places, rank), get_num_threads()))
        return
    # Refused by all workers, whichever machine is too small, or some would wait for the others.
    most = min(fair_threads(places, each) for each in range(len(places)))
    if as_size("threads", threads) > most:
        raise ValueError(
            f"threads: got {threads} for each worker, expected {most} at most, so that all workers "
            "of a machine have no more threads than processors"
        )
    set_num_threads(threads)
