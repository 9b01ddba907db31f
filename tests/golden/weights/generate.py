"""Write the files of version 1 that later versions must read; run once, when version 1 was new.

    python tests/golden/weights/generate.py

The parameters are `np.linspace(-1, 1, count)`, so that a test can tell them without this script.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

import fastlstm
from fastlstm import LSTM, BiLSTM, weights

HERE = Path(__file__).parent

LAYERS = {
    "version1.npz": LSTM(3, 4, 2, peepholes=True, clip=0.1, reverse=True, dtype="float64"),
    "version1.safetensors": BiLSTM(2, 3, coupled_gates=True, merge_mode="sum", batch_first=True),
}

if __name__ == "__main__":
    for name, layer in LAYERS.items():
        layer.load_parameters(np.linspace(-1, 1, layer.parameters.size))
        rows = layer.num_layers * layer.num_directions
        state = np.full((rows, layer.hidden_size), 0.25), np.full((rows, layer.hidden_size), -0.5)
        head = weights.Head(np.eye(2, layer.hidden_size), np.array([3.0, 4.0]))
        fastlstm.save(layer, HERE / name, head=head, state=state, overwrite=True)
