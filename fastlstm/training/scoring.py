"""The score of a network's answers to sequences, batch by batch, by one worker or several."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastlstm._arguments import as_size
from fastlstm.training.fitting import fitting
from fastlstm.training.generated import SequenceStream
from fastlstm.training.losses import Score
from fastlstm.training.metrics import Metrics
from fastlstm.training.network import Network
from fastlstm.training.sequences import Sequences
from fastlstm.training.shards import SCORE, Reduce, as_row, sum_of_rows

#: Of each head z, y and weights.
_Answers = dict[str, tuple[Any, Any, Any]]


def evaluate(
    network: Network, sequences: Sequences | SequenceStream, batch_size: int = 32
) -> Score:
    """Score the answers of a network to all sequences, ``batch_size`` of them at a time.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described, or the sequences do not fit the network.
    """
    sequences = fitting("sequences", sequences, network)
    return scored(network, sequences, as_size("batch_size", batch_size))[0]


def scored(
    network: Network,
    sequences: Sequences | SequenceStream,
    batch_size: int,
    metrics: Metrics | None = None,
    reduce: Reduce | None = None,
) -> tuple[Score, Mapping[str, float]]:
    """Return the score of the answers to all sequences, and metrics by their names.

    With a reduction each worker answers its share of the shards that batches are cut into.
    """
    count = own = None
    if reduce is not None:
        starts = range(0, len(sequences), batch_size)
        sizes = [min(batch_size, len(sequences) - start) for start in starts]
        count = sum(len(reduce.cut(size)) for size in sizes)
        own = reduce.own(count)
    score, k = Score(), -1
    rows: list[list[float]] = []
    answers: list[_Answers] = []
    for part, batch in sequences.parts(batch_size):
        for shard in [batch] if reduce is None else _cut(reduce, batch, part):
            k += 1
            if own is not None and k not in own:
                continue
            x, y, weights = part.batch(shard)
            z, checked = network._scorable(x, y, weights, part.lengths_of(shard), None)
            of_shard = network._scores(z, checked, dict.fromkeys(z))[0]
            score += of_shard
            rows.append(as_row(of_shard))
            if metrics is not None and metrics.names:
                answers.append({name: (z[name], *checked[name]) for name in z})
    if reduce is not None and count is not None:
        score = sum_of_rows(reduce.gather(rows, count, SCORE))
        if metrics is not None and metrics.names:
            answers = reduce.share(answers)
    if metrics is None:
        return score, {}
    return score, metrics.of({name: [part[name] for part in answers] for name in network.heads})


def added(totals: list[Any]) -> Any:
    """Return the sum of weights, of several heads by their names."""
    if isinstance(totals[0], Mapping):
        return {name: sum(each[name] for each in totals) for name in totals[0]}
    return sum(totals)


def _cut(reduce: Reduce, batch: slice, part: Sequences) -> list[slice]:
    """Return the shards of a batch, which is a part of some sequences."""
    start, stop, _ = batch.indices(len(part))
    return [slice(start + each.start, start + each.stop) for each in reduce.cut(stop - start)]
