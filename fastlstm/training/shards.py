"""A step of several workers: a batch cut into shards, whose gradients are added by a reduction."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol, runtime_checkable

import numpy as np

from fastlstm._arguments import RealArray
from fastlstm.training.losses import Score
from fastlstm.training.network import Network
from fastlstm.training.sequences import Rows, Sequences

#: Numbers in a score.
SCORE = 3


@runtime_checkable
class Reduce(Protocol):
    """What a `Trainer` asks of ``fastlstm.distributed.Reduction``, where it is documented."""

    rank: int
    size: int

    @property
    def order(self) -> str:
        """What the roundings of sums depend on."""

    def cut(self, count: int) -> list[range]:
        """Cut a batch into shards."""

    def own(self, count: int) -> range:
        """Which of so many shards are this worker's."""

    def gather(self, rows: Sequence[Sequence[float]], count: int, width: int) -> Any:
        """Return a row of numbers for each of so many shards."""

    def sum(
        self,
        count: int,
        width: int,
        one: Callable[[int], tuple[Sequence[float], RealArray]],
        like: RealArray,
    ) -> tuple[Any, RealArray]:
        """Return a row of numbers for each of so many shards, and the sum of their vectors."""

    def any(self, flag: bool) -> bool:
        """Tell whether any worker has a flag."""

    def share(self, own: Sequence[Any]) -> list[Any]:
        """Return what all workers have."""

    def agree(self, facts: Mapping[str, object]) -> None:
        """Raise unless all workers have the same facts."""

    def together(self) -> AbstractContextManager[None]:
        """Let all workers end a block together."""


def as_reduce(value: Any) -> Reduce | None:
    """Return a reduction, or None as it is; raise a TypeError if a value is neither."""
    if value is not None and not isinstance(value, Reduce):
        name = type(value).__name__
        raise TypeError(f"reduce: got {name}, expected a fastlstm.distributed.Reduction")
    return value


def any_of(reduce: Reduce | None, flag: bool) -> bool:
    """Tell whether any worker has a flag, or the one that there is without a reduction."""
    return flag if reduce is None else reduce.any(flag)


def together(reduce: Reduce | None) -> AbstractContextManager[None]:
    """Let workers, if there are several, end a ``with`` block together."""
    return nullcontext() if reduce is None else reduce.together()


def gradient_of_shards(
    reduce: Reduce,
    network: Network,
    sequences: Sequences,
    batches: Sequence[Rows],
    masks: Callable[[int], np.random.Generator | None],
) -> tuple[Score, RealArray]:
    """Return the score of the sequences of a step, and the gradient (N,) of their mean loss.

    Each batch, of positions of sequences, is cut into shards, and each worker reads its own alone.
    ``masks`` makes the generator of what the layer drops in a shard, given its number.
    """
    shards = [rows[part.start : part.stop] for rows in batches for part in reduce.cut(len(rows))]
    count, own = len(shards), reduce.own(len(shards))
    given = {k: (sequences.batch(shards[k]), sequences.lengths_of(shards[k])) for k in own}
    # A shard's loss is divided by the weight of all sequences, of which this worker sees a part.
    weights = [network.total_weight(*batch, lengths=lengths) for batch, lengths in given.values()]
    heads = list(network.heads)
    listed = [[w[head] for head in heads] if isinstance(w, Mapping) else [w] for w in weights]
    totals = [math.fsum(column) for column in reduce.gather(listed, count, len(heads)).T]
    several = weights and isinstance(weights[0], Mapping)
    total = dict(zip(heads, totals, strict=True)) if several else totals[0]

    def one(k: int) -> tuple[Sequence[float], RealArray]:
        batch, lengths = given[k]
        score, gradient = network.gradient(*batch, lengths=lengths, rng=masks(k), total=total)
        return as_row(score), gradient

    scores, gradient = reduce.sum(count, SCORE, one, network.parameters)
    return sum_of_rows(scores), gradient


def as_row(score: Score) -> list[float]:
    """Return a score as numbers."""
    return [score.weight, score.loss_sum, score.correct_sum]


def sum_of_rows(rows: Any) -> Score:
    """Return the sum of scores in the order of the shards."""
    return sum((Score(*row) for row in rows.tolist()), Score())
