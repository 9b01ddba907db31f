"""The tree of sums, and what workers tell each other, without an engine: workers are threads."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Any

import numpy as np
import pytest

from fastlstm.distributed import Reduction, WorkerError
from fastlstm.distributed.reduction import cut, fair_threads, limit_threads, subtrees, tree_sum
from support.arrays import assert_same_bits
from support.workers import Threaded, in_threads

TREES = {
    1: "0",
    2: "(0+1)",
    3: "((0+1)+2)",
    5: "(((0+1)+(2+3))+4)",
    8: "(((0+1)+(2+3))+((4+5)+(6+7)))",
}


class Text:
    """A vector whose sum tells how it was added."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __iadd__(self, other: Text) -> Text:
        return Text(f"({self.text}+{other.text})")


@pytest.mark.parametrize("count", TREES)
def test_tree_is_fixed_by_the_number_of_leaves(count: int) -> None:
    def leaf(first: int, last: int) -> Any:
        return Text(str(first)) if last - first == 1 else None

    assert tree_sum(0, count, leaf).text == TREES[count]


@pytest.mark.parametrize("workers", [1, 2, 3, 4, 7])
def test_workers_add_the_same_tree_in_parts(workers: int) -> None:
    def leaf(first: int, last: int) -> Any:
        return Text(str(first)) if last - first == 1 else None

    for count in range(1, 20):
        spans = [s for share in cut(count, workers) for s in subtrees(share, 0, count)]
        leaves = [k for first, last in spans for k in range(first, last)]
        assert leaves == list(range(count))
        parts: dict[Any, Any] = {span: tree_sum(*span, leaf) for span in spans}
        whole = tree_sum(0, count, lambda *span, parts=parts: parts.get(span))
        assert whole.text == tree_sum(0, count, leaf).text
        if count == 16 and workers in (1, 2, 4):
            assert len(spans) == workers


def test_a_worker_holds_a_vector_for_each_level() -> None:
    held = most = 0

    class Counted(Text):
        def __init__(self, text: str) -> None:
            nonlocal held, most
            super().__init__(text)
            held += 1
            most = max(most, held)

        def __iadd__(self, other: Text) -> Counted:
            nonlocal held
            held -= 1
            return self

    def leaf(first: int, last: int) -> Any:
        return Counted("") if last - first == 1 else None

    tree_sum(0, 64, leaf)
    assert most == 1 + math.log2(64)


VECTORS = np.random.default_rng(0).normal(size=(11, 37)) * 10.0 ** np.arange(-5, 6)[:, np.newaxis]


def summed(reduce: Reduction, count: int, dtype: Any = np.float32) -> Any:
    vectors = VECTORS.astype(dtype)
    return reduce.sum(count, 2, lambda k: ((k, k * k), vectors[k].copy()), vectors[0])


@pytest.mark.parametrize("workers", [1, 2, 3, 4, 5, 8])
def test_sums_have_the_bits_of_one_worker(workers: int, dtype: Any) -> None:
    for count in (1, 2, 5, 8, 11):
        rows, total = summed(Reduction(11), count, dtype)
        assert rows.tolist() == [[k, k * k] for k in range(count)]
        exact = [math.fsum(column) for column in VECTORS[:count].astype(dtype).T]
        np.testing.assert_allclose(total, exact, rtol=1e-4 if dtype == np.float32 else 1e-12)
        for theirs in in_threads(workers, lambda r, n=count: summed(r, n, dtype), shards=11):
            assert_same_bits(theirs[0], rows)
            assert_same_bits(theirs[1], total)


def test_not_reproducible_is_the_same_within_rounding() -> None:
    rows, total = summed(Reduction(11), 11)
    for theirs in in_threads(3, lambda r: summed(r, 11), shards=11, reproducible=False):
        assert_same_bits(theirs[0], rows)
        np.testing.assert_allclose(theirs[1], total, rtol=1e-4)


def test_many_numbers_are_gathered_in_order() -> None:
    rows = np.random.default_rng(1).normal(size=(50, 7))

    def gathered(reduce: Reduction) -> Any:
        own = reduce.own(50)
        return reduce.gather(rows[own.start : own.stop].tolist(), 50, 7)

    for workers in (1, 3, 4):
        for found in in_threads(workers, gathered):
            assert_same_bits(found, rows)


def test_a_worker_that_fails_ends_the_others() -> None:
    def work(reduce: Threaded) -> Any:
        with reduce.together():
            summed(reduce, 8)
            if reduce.rank == 1:
                raise OSError("the disk is full")
            summed(reduce, 8)

    errors = in_threads(3, work)
    assert isinstance(errors[1], OSError)
    for error in (errors[0], errors[2]):
        assert isinstance(error, WorkerError)
        assert str(error) == "worker 1 of 3 failed: the disk is full"


def test_a_worker_that_fails_last_is_waited_for() -> None:
    def work(reduce: Threaded) -> Any:
        with reduce.together():
            summed(reduce, 8)
            if reduce.rank == 0:
                raise OSError("the disk is full")

    errors = in_threads(2, work)
    assert [type(error) for error in errors] == [OSError, WorkerError]


def test_workers_that_lost_one_are_no_use_any_more() -> None:
    def work(reduce: Threaded) -> Any:
        with suppress(OSError, WorkerError), reduce.together():
            if reduce.rank == 0:
                raise OSError
            summed(reduce, 8)
        summed(reduce, 8)

    for error in in_threads(2, work):
        assert isinstance(error, WorkerError)
        assert "has ended" in str(error)


def test_what_all_meet_alike_ends_nothing() -> None:
    def work(reduce: Threaded) -> Any:
        with pytest.raises(FloatingPointError), reduce.together():
            raise FloatingPointError
        return summed(reduce, 8)[1]

    assert_same_bits(*in_threads(2, work))


def test_a_flag_of_one_is_seen_by_all() -> None:
    assert in_threads(3, lambda reduce: reduce.any(reduce.rank == 1)) == [True] * 3
    assert in_threads(3, lambda reduce: reduce.any(False)) == [False] * 3


def test_objects_are_shared_in_order() -> None:
    def work(reduce: Threaded) -> list[str]:
        return reduce.share([f"{k}" for k in reduce.own(5)])

    assert in_threads(3, work) == [["0", "1", "2", "3", "4"]] * 3


def test_workers_at_different_places() -> None:
    def work(reduce: Threaded) -> Any:
        with reduce.together():
            if reduce.rank == 0:
                return None
            return summed(reduce, 8)

    for error in in_threads(2, work):
        assert isinstance(error, WorkerError)
        assert str(error).startswith("workers are at different places of the run")


def test_facts_that_differ_are_named() -> None:
    def work(reduce: Threaded) -> None:
        with reduce.together():
            reduce.agree({"seed": 0, "clip": 1.0 + (reduce.rank == 2)})

    for error in in_threads(3, work):
        assert isinstance(error, WorkerError)
        text = "clip: got 1.0 in worker 0 and 2.0 in worker 2, expected the same in all"
        assert str(error) == text


def test_fewer_shards_than_workers() -> None:
    for error in in_threads(3, lambda _: None, shards=2):
        assert isinstance(error, ValueError)
        assert str(error) == "shards: got 2 for 3 workers, expected one for each at least"


@pytest.mark.parametrize(
    ("own", "others", "threads"),
    [
        ({0, 1, 2, 3}, [], 4),
        ({0, 1, 2, 3}, [{0, 1, 2, 3}], 2),
        ({0, 1}, [{0, 1}, {0, 1}], 1),  # never none
        ({0, 1}, [{2, 3}], 2),  # each has its own
        ({0, 1, 2}, [{2, 3}], 2),
        ({0, 1, 2}, [{0, 1, 2}, {0, 1, 2}], 1),
    ],
)
def test_threads_never_exceed_processors(own: Any, others: Any, threads: int) -> None:
    elsewhere = ("another", frozenset(range(64)))
    places = [("here", frozenset(p)) for p in [*others, own]]
    assert fair_threads([elsewhere, *places], len(places)) == threads


@pytest.mark.parametrize("rank", [0, 1])
def test_too_many_threads_are_refused_by_all(rank: int) -> None:
    """Or workers of a large machine would wait for those of a small one."""
    places = [("large", frozenset(range(4))), ("small", frozenset(range(2)))]
    with pytest.raises(ValueError, match="threads: got 3 for each worker, expected 2 at most"):
        limit_threads(3, places, rank)
