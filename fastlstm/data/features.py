"""From temperatures to what the bundled models read, and back.

The demonstration (`fastlstm.demo`) and the scripts that trained the models (`examples/`) both
build their inputs here, so they can't drift apart. Letters: T months, B sequences, K horizons.

The series is cut once, by date: training 1950-1988, validation 1989-1995, held-out 1996-2010.
The held-out part, which begins before the great El Nino of 1997-98, takes no part in training, in
the climatology or in the scale, which come from training alone. Settings were chosen on years
before 1996; examples/README.md says how, and when the held-out years were looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastlstm.data import SeaSurfaceTemperature

Float64 = NDArray[np.float64]
Float32 = NDArray[np.float32]

#: First month after training, and first held-out month; validation lies between.
TRAINING_END = "1989-01"
HELD_OUT_START = "1996-01"
#: Length of a validation period, 1989-1995.
VALIDATION_MONTHS = 84

#: Months ahead that the forecast model answers, one output each.
HORIZONS = (1, 2, 3, 4, 5, 6)
#: The one that the demonstration leads with.
HEADLINE_HORIZON = 3

#: Months that a gap lasts, and months from the start of one gap to the next, in an evaluation.
GAP_LENGTH = 6
GAP_PERIOD = 24


@dataclass(frozen=True)
class Scaling:
    """Constants of the series: temperatures to standardised anomalies, and how anomalies fade.

    Attributes
    ----------
    climatology : (12,) float64
        Mean temperature of each calendar month, January first, in degrees Celsius.
    scale : float
        Standard deviation of the anomalies from that climatology, in degrees Celsius.
    damping : (K,) float64
        The part of an anomaly that is left after each of `HORIZONS`, by least squares.
    """

    climatology: Float64
    scale: float
    damping: Float64

    @classmethod
    def fit(cls, sst: SeaSurfaceTemperature, training_end: str = TRAINING_END) -> Scaling:
        """Take the constants from the months before `training_end`, whatever follows."""
        end = sst.index(training_end)
        month, temperature = sst.month[:end], sst.temperature[:end]
        climatology = np.array([temperature[month == m].mean() for m in range(1, 13)])
        anomaly = temperature - climatology[month - 1]
        pairs = [(anomaly[:-h], anomaly[h:]) for h in HORIZONS]
        damping = np.array([now @ later / (now @ now) for now, later in pairs])
        return cls(climatology, float(np.std(anomaly)), damping)

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> Scaling:
        """Read the constants that `to_arrays` stored in a model file.

        Raises
        ------
        ValueError
            When one of them is missing or has the wrong shape.
        """
        shapes = {"climatology": (12,), "scale": (), "damping": (len(HORIZONS),)}
        for name, shape in shapes.items():
            if name not in arrays or arrays[name].shape != shape:
                raise ValueError(f"arrays: a model needs {name!r} of shape {shape}")
        climatology, scale, damping = (arrays[name].astype(np.float64) for name in shapes)
        return cls(climatology, float(scale), damping)

    def to_arrays(self) -> dict[str, Float64]:
        """The constants as arrays for a model file, under the names of the attributes."""
        return {
            "climatology": self.climatology,
            "scale": np.array(self.scale),
            "damping": self.damping,
        }

    def anomaly(self, sst: SeaSurfaceTemperature) -> Float64:
        """(T,) standardised anomalies, without unit."""
        return (sst.temperature - self.climatology[sst.month - 1]) / self.scale

    def temperature(self, anomaly: Float64, month: NDArray[np.int64]) -> Float64:
        """Degrees Celsius from standardised anomalies and months 1..12 of the same shape."""
        return self.climatology[month - 1] + self.scale * anomaly


def _season(month: NDArray[np.int64]) -> Float64:
    """(T, 2): the calendar month as a point on a circle, so that December is next to January."""
    angle = 2.0 * np.pi * month / 12.0
    return np.stack([np.sin(angle), np.cos(angle)], axis=1)


def forecast_features(anomaly: Float64, month: NDArray[np.int64]) -> Float32:
    """Input of the forecast model: (T, 4) from (T,) and (T,).

    The columns are the standardised anomaly, its change since the month before (0 for the first
    month), and the sine and cosine of the calendar month. Row t holds nothing later than month t.
    """
    change = np.diff(anomaly, prepend=anomaly[:1])
    columns = [anomaly[:, None], change[:, None], _season(month)]
    return np.concatenate(columns, axis=1).astype(np.float32)


def forecast_guess(anomaly: Float64, scaling: Scaling) -> Float64:
    """(T, K): the anomalies (T,) damped for each horizon, a forecast that is hard to beat."""
    return anomaly[:, None] * scaling.damping


def gapfill_features(
    guess: Float64, month: NDArray[np.int64], missing: NDArray[np.bool_]
) -> Float32:
    """Input of the gap filler: (T, B, 4) from `gapfill_guess` (T, B), (T,) and masks (T, B).

    The columns are the standardised anomaly, interpolated where missing; 1 where missing, else 0;
    and the sine and cosine of the calendar month.
    """
    season = np.broadcast_to(_season(month)[:, None, :], (*missing.shape, 2))
    columns = [guess[:, :, None], missing[:, :, None].astype(np.float64), season]
    return np.concatenate(columns, axis=2).astype(np.float32)


def gapfill_guess(anomaly: Float64, missing: NDArray[np.bool_]) -> Float64:
    """(T, B): anomalies (T,) interpolated over masks (T, B), a filling that is hard to beat.

    The interpolation is linear; before the first known month and after the last it is constant.
    What `anomaly` holds where `missing` is true is not looked at.
    """
    time = np.arange(len(anomaly))
    columns = [np.interp(time, time[~gap], anomaly[~gap]) for gap in missing.T]
    return np.stack(columns, axis=1)


def gap_masks(length: int, start: int, stop: int) -> NDArray[np.bool_]:
    """(length, B) masks whose gaps cover each month of [start, stop) in exactly one sequence.

    The months are cut into blocks of `GAP_LENGTH`; sequence b hides every B-th block beginning with
    block b, with B = GAP_PERIOD / GAP_LENGTH. So no choice of gaps can flatter a method.

    Raises
    ------
    ValueError
        When [start, stop) is not inside the series or not a whole number of blocks.
    """
    if not 0 <= start <= stop <= length or (stop - start) % GAP_LENGTH:
        raise ValueError(f"start = {start}, stop = {stop}: not whole gaps inside the series")
    batch = GAP_PERIOD // GAP_LENGTH
    missing = np.zeros((length, batch), dtype=np.bool_)
    for block in range((stop - start) // GAP_LENGTH):
        first = start + block * GAP_LENGTH
        missing[first : first + GAP_LENGTH, block % batch] = True
    return missing
