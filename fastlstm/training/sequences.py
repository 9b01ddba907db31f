"""The arrays that a network learns from, and how they are cut into parts and batches."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias, TypeGuard

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

from fastlstm import _arguments
from fastlstm._arguments import as_finite, as_flag
from fastlstm._ragged import Rows as Lengths
from fastlstm._steps import Mask, Steps, as_steps, other_layout
from fastlstm.training.checks import PIECE, Array, as_array, as_weights, check_answers

Rows: TypeAlias = NDArray[np.int64]
#: x (T, b, I), y and weights of some sequences.
Batch: TypeAlias = tuple[Array, Array, Array | None]

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
        of B arrays (T_b, K) or, of classes, (T_b,).
    weights : array_like, optional
        Of the answers in the loss, finite and 0 or more: (T, B) or (B,), or a list as y. 0 leaves
        an answer out, and its y may be anything, NaN or class -100 for instance; the input of its
        step is read all the same. 1 everywhere by default.
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
    classes : bool
        Whether y holds classes.

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

    __slots__ = (
        *("__weakref__", "batch_first", "classes", "each_step", "rows", "steps"),
        *("weights", "x", "y"),
    )

    def __init__(
        self,
        x: Given,
        y: Given,
        weights: Given | None = None,
        *,
        lengths: npt.ArrayLike | None = None,
        mask: npt.ArrayLike | None = None,
        batch_first: bool = False,
    ) -> None:
        self.batch_first = as_flag("batch_first", batch_first)
        given = {"x": x, "y": y, "weights": weights}
        (x, y, weights), lengths = as_padded(given, lengths, mask, self.batch_first)
        self.x = as_tokens(as_array("x", x, "biuf", "real numbers"))
        self.y = as_array("y", y, "biuf", "real numbers, labels or integer classes")
        if self.x.ndim != 3 or 0 in self.x.shape:
            axes = "(B, T, I)" if self.batch_first else "(T, B, I)"
            raise ValueError(f"x: got shape {self.x.shape}, expected {axes}, none of them 0")
        self.classes = self.y.dtype.kind not in "bf"
        answers = self.y.shape if self.classes else self.y.shape[:-1]  # (T, B) or (B,)
        self.each_step = len(answers) == 2
        outer = self.x.shape[:2]
        T, B = outer[::-1] if self.batch_first else outer
        if answers not in (outer, (B,)) or 0 in self.y.shape:
            axes = "B, T" if self.batch_first else "T, B"
            expected = f"({axes}) or (B,)" if self.classes else f"({axes}, K) or (B, K)"
            hint = ""
            if self.y.shape == outer:
                hint = "; one number at each step is y[..., np.newaxis]"
            elif answers == (T,):
                hint = f"; {other_layout(self.batch_first)}"
            elif answers == outer[::-1]:
                hint = "; x and y lie in different layouts, swapaxes(0, 1) of one may help"
            raise ValueError(
                f"y: got shape {self.y.shape} of {self.y.dtype}, expected {expected} "
                f"with T = {T} and B = {B}{hint}"
            )
        self.steps = as_steps(lengths, mask, (T, B), self.batch_first)
        self.weights = None
        if weights is not None:
            self.weights = as_weights(weights, answers, outer)
        self.rows: Rows = np.arange(B)
        if self.steps is not None and not (self.each_step or self.steps.lengths.all()):
            raise ValueError(
                f"y: has an answer for sequence {int(self.steps.lengths.argmin())}, which has no "
                "step"
            )
        counted = self.counted
        if counted is not None and not counted.any():
            raise ValueError("weights: all are 0, expected some above")
        check_answers(self.y, counted, classes=self.classes)

    @property
    def present(self) -> Mask | None:
        """Where a step exists, (T, B) or with batch_first (B, T); None if all do."""
        if self.steps is None:
            return None
        T, B = self.time_first(self.x).shape[:2]
        present = np.zeros((T, B), np.bool_)
        self.steps.scatter(np.True_, present)
        return self.time_first(present)

    @property
    def counted(self) -> Mask | None:
        """Where an answer counts, of the shape of weights; None if all do."""
        present = self.present if self.each_step else None
        if self.weights is None:
            return present
        weighted: Mask = self.weights > 0
        return weighted if present is None else weighted & present

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def outputs(self) -> int:
        """K: numbers in an answer, or classes as far as the largest that counts in y tells."""
        if not self.classes:
            return int(self.y.shape[-1])
        counted = self.counted
        classes: Array = self.y if counted is None else self.y[counted]
        return int(classes.max()) + 1

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
            counted = self.counted
            if counted is not None and not part._of_answers(counted, part.rows).any():
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
        x, y = self._take(self.x, rows), self._of_answers(self.y, rows)
        weights = None if self.weights is None else self._of_answers(self.weights, rows)
        return x, y, weights

    def lengths_of(self, positions: Rows | slice) -> Lengths | None:
        """Return the lengths (b,) of the sequences at positions in `rows`; None if all are T."""
        return None if self.steps is None else self.steps.lengths[self.rows[positions]]

    def positions(self, size: int) -> Iterator[slice]:
        """Yield the positions of all sequences in order, ``size`` at a time."""
        for start in range(0, len(self), size):
            yield slice(start, start + size)

    def batches(self, size: int) -> Iterator[Batch]:
        """Yield all sequences in order, ``size`` at a time, as `batch` does."""
        return map(self.batch, self.positions(size))

    def digest(self) -> str:
        """Return a hash of all that is here, which tells other data from these."""
        digest = hashlib.blake2b(digest_size=16)
        for array in (self.x, self.y, self.weights, self.rows):
            if array is None:
                continue
            digest.update(f"{array.shape}{array.dtype}".encode())
            step = max(1, PIECE // max(1, array[:1].nbytes))
            for start in range(0, len(array), step):
                digest.update(array[start : start + step].tobytes())
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

    def _of_answers(self, array: Array, rows: Rows) -> Array:
        """Return what y or weights have of some sequences."""
        return self._take(array, rows) if self.each_step else array[rows]

    def _take(self, array: Array, rows: Rows) -> Array:
        """Return what an array with an axis of time has of some sequences, as `batch` does."""
        if self.steps is None:
            return array[rows] if self.batch_first else array[:, rows]
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
