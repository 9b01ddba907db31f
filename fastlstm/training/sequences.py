"""The arrays that a network learns from, and how they are cut into parts and batches."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

from fastlstm import _arguments
from fastlstm._arguments import as_finite

Array: TypeAlias = NDArray[Any]
Rows: TypeAlias = NDArray[np.int64]
#: x (T, b, I), y and weights of some sequences.
Batch: TypeAlias = tuple[Array, Array, Array | None]

#: What an int64 holds, as a checkpoint keeps it.
LARGEST_SEED = 2**63 - 1

# Bytes that are hashed at a time.
_PIECE = 2**24


class Sequences:
    """Sequences of equal length with their answers: real numbers, or classes.

    Parameters
    ----------
    x : array_like (T, B, I)
        Inputs, any real dtype. An array is kept, not copied: a ``numpy.memmap`` stays on disk,
        and batches are read from it. (B, T, I) is ``x.swapaxes(0, 1)``.
    y : array_like
        Floating: regression, (T, B, K) with an answer at each step or (B, K) with one for each
        sequence. Integer: classification, classes from 0 up, (T, B) or (B,).
    weights : array_like, optional
        Of the answers in the loss, finite and 0 or more: (T, B) or (B,). 0 masks an answer, as at
        the end of a padded sequence; its y must still be valid. 1 everywhere by default.

    Attributes
    ----------
    x, y, weights
        As above.
    rows : (n,) int64
        Which of the B sequences belong to this object, after `split` a part of them.
    each_step : bool
        Whether y has an answer at each step.
    classes : bool
        Whether y holds classes.

    Raises
    ------
    TypeError, ValueError
        If an array is not as described.
    """

    __slots__ = ("__weakref__", "classes", "each_step", "rows", "weights", "x", "y")

    def __init__(
        self, x: npt.ArrayLike, y: npt.ArrayLike, weights: npt.ArrayLike | None = None
    ) -> None:
        self.x = as_array("x", x, "biuf", "real numbers")
        self.y = as_array("y", y, "iuf", "real numbers or integer classes")
        if self.x.ndim != 3 or 0 in self.x.shape:
            raise ValueError(f"x: got shape {self.x.shape}, expected (T, B, I), none of them 0")
        self.classes = self.y.dtype.kind != "f"
        steps = self.y.shape if self.classes else self.y.shape[:-1]  # (T, B) or (B,)
        self.each_step = len(steps) == 2
        T, B, _ = self.x.shape
        if steps not in ((T, B), (B,)) or 0 in self.y.shape:
            expected = "(T, B) or (B,)" if self.classes else "(T, B, K) or (B, K)"
            raise ValueError(
                f"y: got shape {self.y.shape} of {self.y.dtype}, expected {expected} "
                f"with T = {T} and B = {B}"
            )
        if self.classes and self.y.min() < 0:
            raise ValueError(f"y: got class {self.y.min()}, expected classes from 0 up")
        self.weights = None
        if weights is not None:
            self.weights = as_weights(weights, steps)
            if not self.weights.any():
                raise ValueError("weights: all are 0, expected some above")
        self.rows: Rows = np.arange(B)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def outputs(self) -> int:
        """K: numbers in an answer, or classes as far as the largest in the whole of y tells."""
        return int(self.y.max()) + 1 if self.classes else self.y.shape[-1]

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
            if self.weights is not None and not self.weights[..., part.rows].any():
                raise ValueError(
                    f"weights: all are 0 in the {name} part, expected some above; "
                    "another seed or share may help"
                )
        return parts

    def batch(self, positions: Rows | slice) -> Batch:
        """Return x (T, b, I), y and weights of the sequences at positions in `rows`."""
        rows = self.rows[positions]
        take = (slice(None), rows) if self.each_step else rows
        return self.x[:, rows], self.y[take], None if self.weights is None else self.weights[take]

    def batches(self, size: int) -> Iterator[Batch]:
        """Yield all sequences in order, ``size`` at a time."""
        for start in range(0, len(self), size):
            yield self.batch(slice(start, start + size))

    def digest(self) -> str:
        """Return a hash of all that is here, which tells other data from these."""
        digest = hashlib.blake2b(digest_size=16)
        for array in (self.x, self.y, self.weights, self.rows):
            if array is None:
                continue
            digest.update(f"{array.shape}{array.dtype}".encode())
            step = max(1, _PIECE // max(1, array[:1].nbytes))
            for start in range(0, len(array), step):
                digest.update(array[start : start + step].tobytes())
        return digest.hexdigest()

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


def as_array(name: str, value: npt.ArrayLike, kinds: str, expected: str) -> Array:
    """Return value as an array whose dtype is of one of the kinds; TypeError if it is not."""
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name}: got a masked array, expected one without a mask (see weights)")
    array: Array = _arguments.as_array(name, value)
    if array.dtype.kind not in kinds:
        raise TypeError(f"{name}: got values of dtype {array.dtype}, expected {expected}")
    return array


def as_weights(value: npt.ArrayLike, shape: tuple[int, ...]) -> Array:
    """Return value as an array of weights, finite and 0 or more; else TypeError or ValueError."""
    weights = as_array("weights", value, "biuf", "real numbers")
    if weights.shape != shape:
        raise ValueError(f"weights: got shape {weights.shape}, expected {shape}")
    if weights.size and not (np.isfinite(weights).all() and weights.min() >= 0):
        raise ValueError("weights: some are negative or not finite, expected 0 or more")
    return weights
