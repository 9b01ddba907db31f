"""The linear layers of a head: hidden ones with their activations, and the last one.

Letters: F features, N numbers of a layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastlstm import _core
from fastlstm._arguments import RealArray, as_size, shown
from fastlstm._linear import linear, linear_backward
from fastlstm.weights.models import ACTIVATIONS

#: weight (N, F) and bias (N,) of each layer of a head; the last gives z.
Layers = Sequence[tuple[RealArray, RealArray]]

#: Size N and activation of each hidden layer.
Hidden = tuple[tuple[int, str], ...]


def as_hidden(value: Any) -> Hidden:
    """Return hidden layers, of one pair or several; else TypeError or ValueError."""
    expected = 'expected pairs of a size and an activation, as (64, "relu")'
    if not isinstance(value, tuple | list):
        raise TypeError(f"hidden: got {shown(value)}, {expected}")
    pairs = [value] if len(value) == 2 and not isinstance(value[0], tuple | list) else value
    hidden = []
    for pair in pairs:
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise TypeError(f"hidden: got {shown(pair)}, {expected}")
        size, activation = pair
        if activation not in ACTIVATIONS:
            raise ValueError(
                f"hidden: got {shown(activation)}, expected one of {', '.join(ACTIVATIONS)}"
            )
        hidden.append((as_size("hidden", size), str(activation)))
    return tuple(hidden)


def run(layers: Layers, hidden: Hidden, features: RealArray, isa: str | None) -> RealArray:
    """Return z (..., N) of the last layer."""
    for layer, (_, activation) in zip(layers, hidden, strict=False):
        features = _activated(activation, linear(features, *layer, isa), isa)
    return linear(features, *layers[-1], isa)


def run_back(
    dz: RealArray,
    layers: Layers,
    hidden: Hidden,
    features: RealArray,
    out: Layers,
    isa: str | None,
) -> RealArray:
    """Write the gradients of weights and biases, and return that by the features.

    Parameters
    ----------
    dz : array (..., N)
        The gradient by what `run` returned.
    out : sequence of pairs of arrays
        Of the shapes of `layers`; written.
    """
    inputs, sums = [features], []
    for layer, (_, activation) in zip(layers, hidden, strict=False):
        sums.append(linear(inputs[-1], *layer, isa))
        inputs.append(_activated(activation, sums[-1], isa))
    gradient = linear_backward(dz, inputs[-1], layers[-1][0], *out[-1], isa)
    for number in reversed(range(len(hidden))):
        gradient = gradient * _slope(hidden[number][1], sums[number], inputs[number + 1], isa)
        gradient = linear_backward(gradient, inputs[number], layers[number][0], *out[number], isa)
    return gradient


def _activated(name: str, x: RealArray, isa: str | None) -> RealArray:
    if name == "identity":
        return x
    if name == "relu":
        made: RealArray = np.maximum(x, 0)
        return made
    if name == "silu":
        return x * _activated("sigmoid", x, isa)
    out = np.empty_like(x)
    _core.activation(name, x.reshape(-1), out.reshape(-1), isa)  # type: ignore[arg-type]
    return out


def _slope(name: str, x: RealArray, y: RealArray, isa: str | None) -> Any:
    """Return the derivative of an activation y of x."""
    if name == "identity":
        return x.dtype.type(1)
    if name == "relu":
        return (x > 0).astype(x.dtype)
    if name == "tanh":
        return 1 - y * y
    if name == "sigmoid":
        return y * (1 - y)
    sigmoid = _activated("sigmoid", x, isa)
    return sigmoid * (1 + x * (1 - sigmoid))
