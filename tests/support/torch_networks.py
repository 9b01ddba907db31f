"""Networks of PyTorch as people write them, with random weights."""

from __future__ import annotations

from typing import Any

import numpy as np

from support.optional import require

torch = require("torch")

T, B, V = 7, 4, 11

ACTIVATIONS = {
    "relu": torch.relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "silu": torch.nn.functional.silu,
    "identity": lambda z: z,
}


class Model(torch.nn.Module):  # type: ignore[misc]
    """Embedding or features, LSTMs of any sizes, linear layers."""

    def __init__(
        self,
        lstms: list[dict[str, Any]],
        sizes: list[int],
        *,
        inputs: int = 5,
        table: bool = True,
        pooling: str | None = None,
        activation: str = "relu",
    ) -> None:
        super().__init__()
        self.pooling, self.activation = pooling, activation
        if table:
            self.emb = torch.nn.Embedding(V, inputs)
        width = inputs
        for number, options in enumerate(lstms):
            lstm = torch.nn.LSTM(width, **options)
            setattr(self, f"rnn{number}", lstm)
            width = (lstm.proj_size or lstm.hidden_size) * (2 if lstm.bidirectional else 1)
        self.count = len(lstms)
        self.dropout = torch.nn.Dropout(0.5)
        self.fc = torch.nn.ModuleList()
        for size in sizes:
            self.fc.append(torch.nn.Linear(width, size))
            width = size

    def forward(self, x: Any) -> Any:
        y = self.emb(x) if hasattr(self, "emb") else x
        for number in range(self.count):
            lstm = getattr(self, f"rnn{number}")
            y, (h_n, _) = lstm(y)
        D = 2 if lstm.bidirectional else 1
        if self.pooling == "last":
            y = torch.cat(tuple(h_n[-D:]), -1)
        elif self.pooling == "last_step":
            y = y[:, -1] if lstm.batch_first else y[-1]
        elif self.pooling == "mean":
            y = y.mean(1 if lstm.batch_first else 0)
        elif self.pooling == "max":
            y = y.amax(1 if lstm.batch_first else 0)
        for number, layer in enumerate(self.fc):
            y = layer(self.dropout(y))
            if number < len(self.fc) - 1:
                y = ACTIVATIONS[self.activation](y)
        return y


def made(*args: Any, **options: Any) -> Any:
    torch.manual_seed(0)
    return Model(*args, **options).eval()


def inputs(model: Any) -> np.ndarray:
    rng = np.random.default_rng(1)
    if hasattr(model, "emb"):
        return rng.integers(0, V, (T, B))
    return rng.normal(size=(T, B, model.rnn0.input_size)).astype(np.float32)


STACKS: dict[str, list[dict[str, Any]]] = {
    "one": [{"hidden_size": 6}],
    "three layers of both directions": [
        {"hidden_size": 6, "num_layers": 3, "bidirectional": True, "dropout": 0.5}
    ],
    "projected": [{"hidden_size": 6, "proj_size": 3, "num_layers": 2}],
    "without biases": [{"hidden_size": 6, "bias": False}],
    "of one size": [{"hidden_size": 6}, {"hidden_size": 6}],
    "smaller": [{"hidden_size": 9}, {"hidden_size": 4, "bias": False}],
    "larger": [{"hidden_size": 3, "num_layers": 2}, {"hidden_size": 8}],
    "both, then one": [{"hidden_size": 4, "bidirectional": True}, {"hidden_size": 7}],
    "one, then both": [{"hidden_size": 7}, {"hidden_size": 4, "bidirectional": True}],
    "unlike": [
        {"hidden_size": 4, "bidirectional": True, "num_layers": 2},
        {"hidden_size": 7},
        {"hidden_size": 2, "bidirectional": True},
    ],
}
