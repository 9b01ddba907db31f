"""The arrays that a network learns from, and how they are cut into parts and batches."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias, TypeGuard

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

from fastlstm import _arguments
from fastlstm._arguments import as_finite, as_flag
from fastlstm._ragged import Rows as Lengths
from fastlstm._steps import Mask, Steps, as_steps
from fastlstm.training.answers import Answers, CountedIn, as_answers, by_head, labelled, plain
from fastlstm.training.checks import Array, as_array, pieces_of

Rows: TypeAlias = NDArray[np.int64]
#: x (T, b, I), y and weights of some sequences; of several heads y and weights by their names.
Batch: TypeAlias = tuple[Array, Any, Any]

#: An array, or a list of one for each sequence.
Given: TypeAlias = npt.ArrayLike | Sequence[npt.ArrayLike]

#: What an int64 holds, as a checkpoint keeps it.
LARGEST_SEED = 2**63 - 1


class Sequences:
    """Sequences with their answers: real numbers, or classes.

    Parameters
    ----------
    x : array_like (T, B, I), or list of B arrays (T_b, I)
        Inputs, any real dtype; what an `Embedding` reads as an integer array (T, B), or a list of
        B such arrays (T_b,), which are kept with an axis of length 1 behind. An array is kept, not
        copied: a ``numpy.memmap`` stays on disk, and batches are read from it. A list holds one
        array for each sequence; they may differ in length, and are copied into one array, padded.
    y : array_like
        Floating: regression, (T, B, K) with an answer at each step or (B, K) with one for each
        sequence. Integer: classification, classes from 0 up, (T, B) or (B,). Booleans, of the
        shape of a regression: K labels of which any may apply. With a list x it may be a list, too,
        of B arrays (T_b, K) or, of classes, (T_b,). Of several heads a mapping of their names to
        such, all with an answer at each step or all with one for each sequence.
    weights : array_like, optional
        Of the answers in the loss, finite and 0 or more: (T, B) or (B,), or a list as y. 0 leaves
        an answer out, and its y may be anything, NaN or class -100 for instance; the input of its
        step is read all the same. 1 everywhere by default. Of several heads one for all, or a
        mapping of some heads' names.
    lengths : array_like of int (B,), or int, optional
        Steps of each sequence, or of all; what lies behind them in the arrays is padding, which
        nothing reads.
    mask : array_like of bool (T, B), optional
        In place of lengths: True where a step exists, so that padding may lie in front, and gaps
        inside. The layer goes from one step that exists to the next that does, as if there were
        nothing in between.
    batch_first : bool
        Whether arrays with an axis of time are (B, T, ...) instead of (T, B, ...), as the layer's.

    Attributes
    ----------
    x, y, weights, batch_first
        As above, of lists the padded arrays.
    rows : (n,) int64
        Which of the B sequences belong to this object, after `split` a part of them.
    steps : Steps or None
        Which steps of the B sequences exist; None if all do.
    each_step : bool
        Whether y has an answer at each step.
    classes : bool, or dict of bool
        Whether y holds classes; of several heads by their names.

    Raises
    ------
    TypeError, ValueError
        If an array is not as described; if y is not finite, or no class, where its weight is not 0.

    Notes
    -----
    Losses, gradients and so the trained weights are those of the steps that exist, to the bit,
    however much padding there is, and wherever it lies.

    Weights of 0 at the end of sequences do not say whether the steps there are padding. A layer
    that reads sequences from their end, a BiLSTM for instance, has to know: see `Trainer`.
    """

    __slots__ = (*("__weakref__", "_answers", "batch_first", "each_step", "rows", "steps", "x"),)

    def __init__(
        self,
        x: Given,
        y: Given | Mapping[str, Given],
        weights: Given | Mapping[str, Given | None] | None = None,
        *,
        lengths: npt.ArrayLike | None = None,
        mask: npt.ArrayLike | None = None,
        batch_first: bool = False,
    ) -> None:
        self.batch_first = as_flag("batch_first", batch_first)
        heads = list(by_head(y, weights))
        given = {"x": x}
        for head, of_head, its_weights in heads:
            given |= {labelled("y", head): of_head, labelled("weights", head): its_weights}
        padded, lengths = as_padded(given, lengths, mask, self.batch_first)
        arrays = dict(zip(given, padded, strict=True))
        self.x = as_tokens(as_array("x", arrays["x"], "biuf", "real numbers"))
        if self.x.ndim != 3 or 0 in self.x.shape:
            axes = "(B, T, I)" if self.batch_first else "(T, B, I)"
            raise ValueError(f"x: got shape {self.x.shape}, expected {axes}, none of them 0")
        outer = self.x.shape[:2]
        T, B = outer[::-1] if self.batch_first else outer
        self._answers: dict[str | None, Answers] = {}
        for head, _, _ in heads:
            y, weights = arrays[labelled("y", head)], arrays[labelled("weights", head)]
            self._answers[head] = as_answers(head, y, weights, outer, self.batch_first)
        kinds = {answers.each_step for answers in self._answers.values()}
        if len(kinds) > 1:
            raise ValueError(
                "y: got answers of each step and of each sequence, expected one of both"
            )
        self.each_step = kinds.pop()
        self.steps = as_steps(lengths, mask, (T, B), self.batch_first)
        self.rows: Rows = np.arange(B)
        if self.steps is not None and not (self.each_step or self.steps.lengths.all()):
            raise ValueError(
                f"y: has an answer for sequence {int(self.steps.lengths.argmin())}, which has no "
                "step"
            )
        for head, answers in self._answers.items():
            answers.check(head, self._counted_in(answers))

    @property
    def y(self) -> Any:
        """As given, of lists the padded array; of several heads a dict."""
        return plain({head: answers.y for head, answers in self._answers.items()})

    @property
    def weights(self) -> Any:
        """As y, or None."""
        weights = {head: answers.weights for head, answers in self._answers.items()}
        return None if all(each is None for each in weights.values()) else plain(weights)

    @property
    def classes(self) -> Any:
        """Whether y holds classes, of several heads a dict."""
        return plain({head: answers.classes for head, answers in self._answers.items()})

    @property
    def present(self) -> Mask | None:
        """Where a step exists, (T, B) or with batch_first (B, T); None if all do."""
        return self._present_in(slice(None))

    @property
    def counted(self) -> Any:
        """Where an answer counts, of the shape of weights, or None if all do; of heads a dict."""
        return plain(
            {
                head: self._counted_in(answers)(slice(None))
                for head, answers in self._answers.items()
            }
        )

    def _present_in(self, part: slice) -> Mask | None:
        """Return `present` for a part of its first axis."""
        if self.steps is None:
            return None
        T, B = self.time_first(self.x).shape[:2]
        if self.steps.order is not None:
            present = np.zeros((T, B), np.bool_)
            self.steps.scatter(np.True_, present)
            return self.time_first(present)[part]
        lengths, times = self.steps.lengths, np.arange(T)
        if self.batch_first:
            return times < lengths[part, np.newaxis]
        return times[part, np.newaxis] < lengths

    def _counted_in(self, answers: Answers) -> CountedIn:
        """Return what tells which answers count in a part of the first axis."""

        def counted_in(part: slice) -> Mask | None:
            present = self._present_in(part) if self.each_step else None
            if answers.weights is None:
                return present
            weighted: Mask = answers.weights[part] > 0
            return weighted if present is None else weighted & present

        return counted_in

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def lengths(self) -> Lengths:
        """(n,): steps of each sequence."""
        if self.steps is None:
            return np.full(len(self), len(self.time_first(self.x)), np.intp)
        return self.steps.lengths[self.rows]

    @property
    def outputs(self) -> Any:
        """K: numbers in an answer, or classes as far as the largest that counts in y tells.

        Of several heads a dict.
        """
        return plain(
            {
                head: answers.outputs(self._counted_in(answers))
                for head, answers in self._answers.items()
            }
        )

    def split(self, fraction: float, *, seed: int = 0) -> tuple[Sequences, Sequences]:
        """Cut into two parts, for training and for validation, at random.

        Parameters
        ----------
        fraction : float
            Share of the sequences in the second part, above 0 and below 1; both parts have at
            least one.
        seed : int
            From 0 to 2**63 - 1.

        Returns
        -------
        (Sequences, Sequences)
            Neither copies the arrays; both keep the order of their sequences.

        Raises
        ------
        TypeError, ValueError
            If an argument is not as described, there are fewer than two sequences, or all weights
            of a part are 0.
        """
        if not 0 < as_finite("fraction", fraction, np.dtype(np.float64)) < 1:
            raise ValueError(f"fraction: got {fraction}, expected one between 0 and 1")
        n = len(self)
        if n < 2:
            raise ValueError(f"x: has {n} sequence, expected at least 2 to split")
        second = min(max(round(fraction * n), 1), n - 1)
        shuffled = generator(seed, 0).permutation(self.rows)
        parts = self._part(shuffled[second:]), self._part(shuffled[:second])
        for name, part in zip(("training", "validation"), parts, strict=True):
            if not part._counts():
                raise ValueError(
                    f"weights: all are 0 in the {name} part, expected some above; "
                    "another seed or share may help"
                )
        return parts

    def subset(self, positions: Rows) -> Sequences:
        """Return the sequences at positions in `rows`, in that order, without a copy of any."""
        part = copy.copy(self)
        part.rows = self.rows[positions]
        return part

    def batch(self, positions: Rows | slice) -> Batch:
        """Return x (T, b, I), y and weights of the sequences at positions in `rows`.

        With lengths or a mask T is the length of the longest of them, and the steps that exist
        come first in each; `lengths_of` tells how many.
        """
        rows = self.rows[positions]
        y, weights = {}, {}
        for head, answers in self._answers.items():
            y[head] = self._of_answers(answers.y, rows)
            given = answers.weights
            weights[head] = None if given is None else self._of_answers(given, rows)
        return self._take(self.x, rows), plain(y), plain(weights)

    def lengths_of(self, positions: Rows | slice) -> Lengths | None:
        """Return the lengths (b,) of the sequences at positions in `rows`; None if all are T."""
        return None if self.steps is None else self.steps.lengths[self.rows[positions]]

    def positions(self, size: int) -> Iterator[slice]:
        """Yield the positions of all sequences in order, ``size`` at a time."""
        for start in range(0, len(self), size):
            yield slice(start, start + size)

    def parts(self, size: int) -> Iterator[tuple[Sequences, slice]]:
        """Yield sequences and the positions in them of all in order, ``size`` at a time."""
        for positions in self.positions(size):
            yield self, positions

    def batches(self, size: int) -> Iterator[Batch]:
        """Yield all sequences in order, ``size`` at a time, as `batch` does."""
        return map(self.batch, self.positions(size))

    def digest(self) -> str:
        """Return a hash of all that is here, which tells other data from these."""
        digest = hashlib.blake2b(digest_size=16)
        arrays = [self.x]
        for head, answers in self._answers.items():
            digest.update(f"{head}".encode() if head is not None else b"")
            arrays += [each for each in (answers.y, answers.weights) if each is not None]
        for array in (*arrays, self.rows):
            digest.update(f"{array.shape}{array.dtype}".encode())
            for piece in pieces_of(array):
                digest.update(array[piece].tobytes())
        if self.batch_first:
            digest.update(b"batch_first")
        if self.steps is not None:
            digest.update(b"steps")
            for part in self.steps:
                digest.update(b"" if part is None else part.astype(np.int64).tobytes())
        return digest.hexdigest()

    def with_steps(self, steps: Steps | None) -> Sequences:
        """Return the same sequences with some of their steps taken for padding."""
        changed = copy.copy(self)
        changed.steps = steps
        return changed

    def time_first(self, array: Array) -> Array:
        """Return an array that has axes of time and batch as (T, B, ...): a view."""
        return array.swapaxes(0, 1) if self.batch_first else array

    def _counts(self) -> bool:
        """Tell whether there is an answer that counts, of each head."""
        if self.each_step and not self.lengths.any():
            return False
        weights = [each.weights for each in self._answers.values() if each.weights is not None]
        return all(any(map(partial(self._some, each), self.positions(256))) for each in weights)

    def _some(self, weights: Array, positions: slice) -> bool:
        """Tell whether some weights of a few sequences are above 0, of steps that exist."""
        above = self._of_answers(weights, self.rows[positions]) > 0
        if self.each_step and (lengths := self.lengths_of(positions)) is not None:
            above = self.time_first(above)
            above = above & (np.arange(len(above))[:, np.newaxis] < lengths)
        return bool(above.any())

    def _of_answers(self, array: Array, rows: Rows) -> Array:
        """Return what y or weights have of some sequences."""
        return self._take(array, rows) if self.each_step else array[rows]

    def _take(self, array: Array, rows: Rows) -> Array:
        """Return what an array with an axis of time has of some sequences, as `batch` does."""
        if self.steps is None or self.steps.order is None:
            T = None
            if self.steps is not None:
                T = max(int(self.steps.lengths[rows].max(initial=0)), 1)
            if self.batch_first:
                return array[rows, :T]
            # Faster than an index, but it would copy all of an array that has gaps.
            whole = array.flags.c_contiguous
            return np.take(array[:T], rows, axis=1) if whole else array[:T, rows]
        return self.time_first(self.steps.gather(self.time_first(array), rows))

    def _part(self, rows: Rows) -> Sequences:
        part = copy.copy(self)
        part.rows = np.sort(rows)
        return part


def generator(seed: int, *key: int) -> np.random.Generator:
    """Make the generator of one purpose, told by the key; different keys draw independently."""
    is_integer = isinstance(seed, int | np.integer) and not isinstance(seed, bool)
    if not is_integer or not 0 <= seed <= LARGEST_SEED:
        raise ValueError(f"seed: got {seed!r}, expected an integer from 0 to {LARGEST_SEED}")
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


def is_list_of_sequences(value: Any) -> TypeGuard[Sequence[npt.ArrayLike]]:
    """Tell whether a value is a list of arrays, one for each sequence, and not one array."""
    return (
        isinstance(value, list | tuple)
        and len(value) > 0
        and all(hasattr(item, "__array__") and getattr(item, "ndim", 0) == 2 for item in value)
    )


def as_tokens(x: Array) -> Array:
    """Return integers (T, B) with an axis of length 1 behind, other arrays as they are."""
    return x[..., np.newaxis] if x.ndim == 2 and x.dtype.kind in "iu" else x


def _as_listed_tokens(x: Any) -> Any:
    """Return a list of arrays (T_b,) of integers as one of (T_b, 1), other things as they are."""
    listed = isinstance(x, list | tuple) and len(x) > 0
    if listed and all(
        isinstance(item, np.ndarray) and item.ndim == 1 and item.dtype.kind in "iu" for item in x
    ):
        return [item[:, np.newaxis] for item in x]
    return x


def as_padded(
    arrays: Mapping[str, Any], lengths: Any, mask: Any, batch_first: bool
) -> tuple[list[Any], Any]:
    """Return x, y and weights, by names that begin so, and lengths; of lists padded arrays.

    Raises
    ------
    TypeError, ValueError
        If x is a list and there are lengths or a mask, or arrays don't fit it.
    """
    x = _as_listed_tokens(arrays["x"])
    arrays = {**arrays, "x": x}
    if not is_list_of_sequences(x):
        if isinstance(x, list | tuple) and len(set(map(_length, x))) > 1:
            raise ValueError("x: got a list of unequal items, expected arrays (T_b, I) in it")
        return list(arrays.values()), lengths
    if lengths is not None or mask is not None:
        raise ValueError("x: got a list, whose arrays tell the lengths; expected no others")
    counts = [_length(sequence) for sequence in x]
    values = [_padded(name, value, counts, batch_first) for name, value in arrays.items()]
    return values, counts


def _length(item: Any) -> int:
    return len(item) if isinstance(item, list | tuple) or getattr(item, "ndim", 0) > 0 else 0


def _padded(name: str, value: Any, lengths: Sequence[int], batch_first: bool) -> Any:
    """Return a list of B arrays (T_b, ...) as one (T, B, ...), or (B, T, ...) with batch_first.

    What is no list of arrays with an axis of time stays as it is.

    Raises
    ------
    TypeError, ValueError
        If the arrays are not of these lengths, or differ in what follows.
    """
    if not isinstance(value, list | tuple) or not all(map(np.ndim, value)):
        return value
    arrays = [_arguments.as_array(f"{name}[{b}]", item) for b, item in enumerate(value)]
    each_step = {array.ndim for array in arrays} == {2} or any(a.dtype.kind != "f" for a in arrays)
    if not (each_step or name.startswith("weights")):
        if [len(array) for array in arrays] == list(lengths):
            raise ValueError(
                f"{name}: got arrays (T_b,) of {arrays[0].dtype}, expected (T_b, K), or for one "
                "answer for each sequence one array (B, K)"
            )
        return value  # (B, K)
    if len(arrays) != len(lengths):
        raise ValueError(f"{name}: got {len(arrays)} arrays, expected {len(lengths)} as in x")
    inner = arrays[0].shape[1:]
    for b, (array, length) in enumerate(zip(arrays, lengths, strict=True)):
        if array.shape != (length, *inner):
            raise ValueError(f"{name}[{b}]: got shape {array.shape}, expected {(length, *inner)}")
    out = np.zeros((max(lengths), len(arrays), *inner), np.result_type(*arrays))
    for b, array in enumerate(arrays):
        out[: len(array), b] = array
    return out.swapaxes(0, 1) if batch_first else out
