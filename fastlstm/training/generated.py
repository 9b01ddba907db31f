"""Sequences that are made while training goes on: read from many files, drawn, downloaded.

Letters: T_b time steps of a sequence, I inputs, K numbers of an answer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, TypeAlias

import numpy as np

from fastlstm._arguments import as_flag, as_size, shown
from fastlstm.training.bucketing import by_length
from fastlstm.training.sequences import Sequences

#: x and y of a sequence, and perhaps weights.
Item: TypeAlias = tuple[Any, ...]


class SequenceStream:
    """Sequences that a function gives one after the other, of which few are in memory.

    `Trainer` goes through them once an epoch, in an order that is shuffled in a buffer, and
    `evaluate` in their own.

    Parameters
    ----------
    source : callable, or iterable
        Called without arguments for each epoch, it returns an iterator of tuples ``(x, y)`` or
        ``(x, y, weights)``, a generator for instance. x is (T_b, I), or integers (T_b,) of an
        embedding. y is (T_b, K) or (K,) of numbers or labels, (T_b,) or a number of classes; of
        several heads a mapping of them. Weights are (T_b,), or a number. Or something that can be
        gone through again and again, such as a list or a dataset. Each time it gives the same.
    buffer : int
        Sequences in memory, among which the next is drawn: more are shuffled better.
    count : int, optional
        How many there are. Without it they are counted, in a pass of their own.
    batch_first : bool
        Whether batches are (B, T, ...), as the network's layer takes them.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described, or there are no sequences; while it is read if the
        source gives something else, or not as many as `count` says.

    Notes
    -----
    A buffer of all sequences shuffles as `Sequences` do, but not in the same order. A checkpoint
    takes a pass to know the data by; a run that is resumed within an epoch goes through what was
    read of it again.
    """

    __slots__ = ("__weakref__", "_first", "_source", "batch_first", "buffer", "count")

    def __init__(
        self,
        source: Callable[[], Iterable[Item]] | Iterable[Item],
        *,
        buffer: int = 1000,
        count: int | None = None,
        batch_first: bool = False,
    ) -> None:
        if not callable(source):
            if not isinstance(source, Iterable):
                raise TypeError(
                    f"source: got {type(source).__name__}, expected a function that returns an "
                    "iterator"
                )
            if isinstance(source, Iterator):
                raise TypeError(
                    f"source: got a {type(source).__name__}, which ends after one pass, expected "
                    "the function that makes it"
                )
        self._source = source
        self.buffer = as_size("buffer", buffer)
        self.batch_first = as_flag("batch_first", batch_first)
        self.count = 0
        self._first = next(self._again(), None)
        if self._first is None:
            raise ValueError("source: gave no sequence, expected some")
        self.count = sum(1 for _ in self._again()) if count is None else as_size("count", count)

    def __len__(self) -> int:
        return self.count

    def first(self) -> Sequences:
        """Return the first sequence alone."""
        assert self._first is not None
        return self._as_sequences([self._first])

    def parts(self, size: int) -> Iterator[tuple[Sequences, slice]]:
        """Yield all sequences in their order, ``size`` at a time, and where they are in a part."""
        items = self._items()
        while part := list(islice(items, size)):
            yield self._as_sequences(part), slice(None)

    def shuffled(
        self, size: int, bucketing: int, rng: np.random.Generator
    ) -> Callable[[int], Sequences]:
        """Begin an epoch, and return what takes so many sequences more of it.

        ``size`` and ``bucketing`` are batch_size and bucketing of `Trainer`.
        """
        items = self._drawn(rng)
        if bucketing > 1:
            items = _alike(items, size, bucketing, rng)
        return lambda count: self._as_sequences(list(islice(items, count)))

    def digest(self) -> str:
        """Return a hash of all sequences, which tells other data from these."""
        digest = hashlib.blake2b(digest_size=16)
        for item in self._items():
            for part in item:
                parts = part if isinstance(part, Mapping) else {"": part}
                for name, value in parts.items():
                    array = np.asarray(value)
                    digest.update(f"{name}{array.shape}{array.dtype}".encode() + array.tobytes())
        return f"{digest.hexdigest()} shuffled among {self.buffer}"

    def _again(self) -> Iterator[Item]:
        """Begin a pass."""
        made = self._source() if callable(self._source) else self._source
        if not isinstance(made, Iterable):
            raise TypeError(f"source: returned {type(made).__name__}, expected an iterator")
        return iter(made)

    def _items(self) -> Iterator[Item]:
        """Yield the items of a pass, and see that there are as many as was said."""
        count = 0
        for count, item in enumerate(self._again(), 1):
            if not isinstance(item, tuple | list) or len(item) not in (2, 3):
                raise TypeError(f"source: gave {shown(item)}, expected (x, y) or (x, y, weights)")
            if count > self.count:
                break
            yield tuple(item)
        if count != self.count:
            found = f"{count} or more" if count > self.count else f"{count}"
            raise ValueError(f"source: gave {found} sequences, expected {self.count} at each pass")

    def _drawn(self, rng: np.random.Generator) -> Iterator[Item]:
        """Yield the items of a pass, each drawn from a buffer that is filled up again."""
        items = self._items()
        buffer = list(islice(items, self.buffer))
        for item in items:
            k = int(rng.integers(len(buffer)))
            yield buffer[k]
            buffer[k] = item
        for k in rng.permutation(len(buffer)):
            yield buffer[k]

    def _as_sequences(self, items: list[Item]) -> Sequences:
        """Return some items as they are put into a batch."""
        x = [np.asarray(item[0]) for item in items]
        weights = [item[2] if len(item) == 3 else None for item in items]
        y: Any = [item[1] for item in items]
        if len({each is None for each in weights}) > 1:
            raise ValueError("source: gave weights of some sequences, expected them of all or none")
        if isinstance(y[0], Mapping):
            names = [list(each) if isinstance(each, Mapping) else None for each in y]
            if other := [each for each in names if each is None or set(each) != set(y[0])]:
                found = "none" if other[0] is None else shown(other[0])
                raise ValueError(f"y: got heads {found} of a sequence, expected {shown(names[0])}")
            y = {head: _put([each[head] for each in y], f"y[{head!r}]") for head in y[0]}
        else:
            y = _put(y, "y")
        given: Any = None
        if weights[0] is not None:
            arrays = [np.asarray(each) for each in weights]
            given = arrays if arrays[0].ndim else np.array(weights)
        return Sequences(x, y, given, batch_first=self.batch_first)


def _put(values: list[Any], name: str) -> Any:
    """Return answers of steps as a list of arrays, answers of sequences as one array."""
    arrays = [np.asarray(value) for value in values]
    axes = 1 if arrays[0].dtype.kind in "iu" else 2
    if arrays[0].ndim == axes:
        return arrays
    if len({array.shape for array in arrays}) > 1:
        shapes = sorted({array.shape for array in arrays})
        raise ValueError(f"{name}: got shapes {shown(shapes)} of sequences, expected the same")
    return np.stack(arrays)


def _alike(
    items: Iterator[Item], size: int, bucketing: int, rng: np.random.Generator
) -> Iterator[Item]:
    """Yield items in batches of similar length."""
    while pool := list(islice(items, size * bucketing)):
        lengths = np.array([len(item[0]) for item in pool], np.intp)
        for k in by_length(np.arange(len(pool)), lengths, size, bucketing, rng):
            yield pool[k]
