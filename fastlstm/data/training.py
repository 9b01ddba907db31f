"""What both training scripts in `examples/` need around the trainer itself.

Letters: T months of a window, B windows in a batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastlstm.data.features import Float64, Scaling


@dataclass(frozen=True)
class Mixtures:
    """Draws training series that resemble a short record without repeating it.

    468 months are few: a network that sees only them learns them by heart. A drawn series is a
    random combination of several windows of the record that begin in the same calendar month. It
    keeps the record's seasonality and its correlations in time, which are all that a forecast or a
    filled gap can rest on.

    Attributes
    ----------
    length : int
        T, months in a window.
    batch : int
        B, windows drawn at once.
    parts : int
        Windows that are added up, with weights whose squares add up to 1.
    gain : float
        Standard deviation of the logarithm of the factor each series is multiplied with.
    offset : float
        Standard deviation of the constant added to each series, in units of the anomaly.
    mirror : bool
        Whether the weights may add up to a negative number, so that warm and cold events mix.
    """

    length: int
    batch: int
    parts: int
    gain: float
    offset: float
    mirror: bool

    def draw(self, rng: np.random.Generator, record: Float64) -> tuple[Float64, NDArray[np.int64]]:
        """Draw B series from a record of standardised anomalies that begins in a January.

        Returns
        -------
        series : (B, T) float64
        month : (B, T) int64
            Calendar months of the series, 1 to 12.
        """
        shape = (self.batch, self.parts)
        january = rng.integers(0, 12, size=(self.batch, 1))  # months after a January
        years = (len(record) - self.length - january) // 12 + 1
        starts = january + 12 * rng.integers(0, np.broadcast_to(years, shape))
        weights = rng.standard_normal(shape)
        weights /= np.linalg.norm(weights, axis=1, keepdims=True)
        if not self.mirror:
            weights *= np.sign(weights.sum(axis=1, keepdims=True))
        steps = np.arange(self.length)
        windows = record[starts[:, :, None] + steps]  # (B, parts, T)
        series = (weights[:, :, None] * windows).sum(axis=1)
        series *= np.exp(self.gain * rng.standard_normal((self.batch, 1)))
        series += self.offset * rng.standard_normal((self.batch, 1))
        return series, (january + steps) % 12 + 1


def random_gaps(rng: np.random.Generator, length: int, batch: int) -> NDArray[np.bool_]:
    """(length, batch) masks with gaps of 3 to 7 months, 8 to 24 known months between them."""
    missing = np.zeros((length, batch), dtype=np.bool_)
    for column in missing.T:
        first = int(rng.integers(0, 12))
        while first < length:
            gap = int(rng.integers(3, 8))
            column[first : first + gap] = True
            first += gap + int(rng.integers(8, 25))
    return missing


def save_model(path: Path, weights: Mapping[str, NDArray[np.float32]], scaling: Scaling) -> None:
    """Write a model as .npz: weights under PyTorch's names, and the constants of `scaling`.

    Raises
    ------
    ValueError
        When `path` does not end in .npz.
    """
    if path.suffix != ".npz":
        raise ValueError(f"path must end in .npz, got {path}")
    arrays: dict[str, Any] = {**weights, **scaling.to_arrays()}
    np.savez(path, **arrays)
