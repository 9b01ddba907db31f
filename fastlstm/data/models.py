"""The bundled models: an LSTM layer, a linear head, and the scaling they came from.

Letters: T months, B sequences, K outputs of the head.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastlstm._linear import linear
from fastlstm.data import SeaSurfaceTemperature
from fastlstm.data.features import (
    HORIZONS,
    Float32,
    Float64,
    Scaling,
    forecast_features,
    gapfill_features,
    gapfill_guess,
)
from fastlstm.lstm import LSTM, BiLSTM
from fastlstm.weights import Contents, Head
from fastlstm.weights.names import find_layers
from fastlstm.weights.npz import read_npz

StrPath = str | os.PathLike[str]


@dataclass(frozen=True)
class Model:
    """A layer with a linear head, and the scaling of what goes in and comes out."""

    layer: LSTM | BiLSTM
    head: Head
    scaling: Scaling

    def outputs(self, x: Float32) -> Float64:
        """Run the layer and the head: (T, B, I) to (T, B, K), standardised anomalies.

        They are computed in float32, as ``fastlstm run`` does.
        """
        y, _ = self.layer(x)
        return linear(y, self.head.weight, self.head.bias, self.layer.isa).astype(np.float64)

    def forecast_input(self, sst: SeaSurfaceTemperature) -> Float32:
        """(T, 1, 4): what the forecast model reads."""
        return forecast_features(self.scaling.anomaly(sst), sst.month)[:, None, :]

    def forecast(self, sst: SeaSurfaceTemperature) -> Float64:
        """(T, K) degrees Celsius: row t forecasts the months t + HORIZONS from months 0 .. t."""
        anomaly = self.outputs(self.forecast_input(sst))[:, 0, :]
        month = (sst.month[:, None] - 1 + np.array(HORIZONS)) % 12 + 1
        return self.scaling.temperature(anomaly, month)

    def gapfill_input(self, sst: SeaSurfaceTemperature, missing: NDArray[np.bool_]) -> Float32:
        """(T, B, 4): what the gap filler reads, given B masks (T, B) that hide months."""
        guess = gapfill_guess(self.scaling.anomaly(sst), missing)
        return gapfill_features(guess, sst.month, missing)

    def fill(self, sst: SeaSurfaceTemperature, missing: NDArray[np.bool_]) -> Float64:
        """(T, B) degrees Celsius: an estimate of every month; `missing` (T, B) hides its months."""
        anomaly = self.outputs(self.gapfill_input(sst, missing))[:, :, 0]
        return self.scaling.temperature(anomaly, sst.month[:, None])


def load_model(path: StrPath, outputs: int) -> Model:
    """Read a model with head and scaling, as the scripts in `examples/` write it.

    Raises
    ------
    ValueError
        When the file lacks an array, or the head does not have as many outputs as asked for.
    """
    file = Path(path)
    arrays = read_npz(file)
    scaling = Scaling.from_arrays(arrays)
    network = {key: value for key, value in arrays.items() if key not in scaling.to_arrays()}
    found = Contents(file, "npz", *find_layers(network, None)).choose()
    if found.head is None or found.head.bias.shape != (outputs,):
        raise ValueError(f"{path}: needs head.weight and head.bias with {outputs} outputs")
    return Model(found.build(), found.head, scaling)
