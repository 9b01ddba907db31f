"""Arrays by the names of an LSTM's parameters, and what is found among them."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastlstm._parameters import parameter_shapes
from fastlstm._spec import Spec
from fastlstm.variants import Cell
from fastlstm.weights.contents import Found
from fastlstm.weights.names import find_layers

Arrays = dict[str, np.ndarray]


def lstm(
    prefix: str = "",
    input_size: int = 3,
    hidden_size: int = 5,
    layers: int = 1,
    directions: int = 1,
    dtype: Any = np.float32,
    **options: Any,
) -> Arrays:
    of_cell = Cell(**{name: options.pop(name) for name in Cell._fields if name in options})
    sizes = Spec(input_size, hidden_size, layers, directions, cell=of_cell, **options)
    rng = np.random.default_rng(5)
    dot = prefix and f"{prefix}."
    return {
        dot + name: rng.uniform(-0.9, 0.9, shape).astype(dtype)
        for name, shape in parameter_shapes(sizes)
    }


def only(arrays: Arrays, metadata: dict[str, Any] | None = None) -> Found:
    found, refused, _ = find_layers(arrays, metadata)
    assert not refused
    assert len(found) == 1
    return found[0]


def reason(arrays: Arrays, metadata: dict[str, Any] | None = None) -> str:
    found, refused, _ = find_layers(arrays, metadata)
    assert not found
    assert len(refused) == 1
    return refused[0].reason
