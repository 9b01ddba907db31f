"""Keras' models with random weights, and how far its results are from this package's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fastlstm.weights import Found
from support.layers import random_state
from support.optional import require

T, B = 6, 3


def keras_with(rng: np.random.Generator, *layers: Any, shape: tuple[int, ...]) -> Any:
    """A Sequential model, its weights drawn at random."""
    keras = require("keras")
    model = keras.Sequential([keras.Input(shape), *layers], name="model")
    draw_weights(rng, model)
    return model


def draw_weights(rng: np.random.Generator, model: Any) -> None:
    model.set_weights([rng.uniform(-1, 1, w.shape).astype(str(w.dtype)) for w in model.weights])


def as_numpy(tensor: Any) -> np.ndarray:
    return np.asarray(tensor.detach().cpu().numpy() if hasattr(tensor, "detach") else tensor)


def save(model: Any, path: Path) -> Path:
    """Save a model; Keras finds ``.h5`` old, and says so by a logger."""
    model.save_weights(path) if path.name.endswith(".weights.h5") else model.save(path)
    return path


def flat(y: Any) -> list[np.ndarray]:
    return list(y) if isinstance(y, tuple) else [y]


def difference(got: list[np.ndarray], expected: list[np.ndarray]) -> float:
    """Largest difference, in units of the largest number where that is more than 1."""
    assert [a.shape for a in got] == [a.shape for a in expected]
    assert [a.dtype for a in got] == [a.dtype for a in expected]
    largest = max(1.0, *(float(np.abs(array).max()) for array in expected))
    return max(float(np.abs(a - b).max()) for a, b in zip(got, expected, strict=True)) / largest


def against_layer(found: Found, layer: Any, rng: np.random.Generator) -> float:
    """Largest difference from a Keras layer with return_state, from states that are not zero."""
    ours = found.build()
    assert ours.batch_first
    D, H, dtype = ours.num_directions, ours.hidden_size, ours.dtype
    x = rng.normal(size=(B, T, ours.input_size)).astype(dtype)
    h_0, c_0 = random_state(rng, (D, B, H), dtype)
    y, (h_n, c_n) = ours(x, (h_0, c_0))
    # Keras has arrays of NumPy for a list of its own and asks for their shape only.
    tensors = require("keras").ops.convert_to_tensor
    results = layer(x, initial_state=[tensors(s[d]) for d in range(D) for s in (h_0, c_0)])
    *outputs, last = (as_numpy(each) for each in results)
    states = [*outputs[-(2 * D - 1) :], last]
    expected = outputs[: len(outputs) - (2 * D - 1)]
    if ours.return_sequences and found.options.get("reverse"):
        expected = [output[:, ::-1] for output in expected]
    return difference(
        [*flat(y), h_n, c_n], [*expected, np.stack(states[::2]), np.stack(states[1::2])]
    )
