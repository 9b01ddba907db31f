"""Run an LSTM of an audio file by the file's own equations, in NumPy and double precision.

The players of these files are C++ programs. Written here from the layout of the numbers in the
file, by another way than `fastlstm.weights.audio` takes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastlstm.weights.contents import Found

Array = NDArray[Any]

#: What runs it.
PACKAGE = "numpy"


def run(path: Path, found: Found, x: Array, h_0: Array, c_0: Array) -> tuple[Array, Array, Array]:
    """Run an LSTM of a file.

    Parameters
    ----------
    path : Path
    found : Found
        Which of its LSTMs, by name and kind; or several layers, by their parts.
    x : ndarray (T, B, I)
    h_0, c_0 : ndarray (L, B, H)

    Returns
    -------
    y : ndarray (T, B, H)
    h_n, c_n : ndarray (L, B, H)

    Raises
    ------
    NotImplementedError
        If it is in both directions, or has a projection.
    """
    if found.bidirectional or found.option("proj_size"):
        raise NotImplementedError("players of such files run one direction, without projections")
    document = json.loads(path.read_bytes())
    y: Array = np.asarray(x, np.float64)
    states = []
    for weight, bias, h, c in zip(*_layers(document, found), h_0, c_0, strict=True):
        y, *state = _run_layer(weight, bias, y, h.astype(np.float64), c.astype(np.float64))
        states.append(state)
    h_n, c_n = (np.stack([state[i] for state in states]) for i in (0, 1))
    return y.astype(x.dtype), h_n.astype(x.dtype), c_n.astype(x.dtype)


def _run_layer(weight: Array, bias: Array, x: Array, h: Array, c: Array) -> tuple[Array, ...]:
    """Run one layer: weight (I + H, 4H) over [x, h], gates i, f, g, o."""
    y = []
    for x_t in x:
        i, f, g, o = np.split(np.concatenate([x_t, h], 1) @ weight + bias, 4, axis=1)
        c = c * (0.5 + 0.5 * np.tanh(0.5 * f)) + (0.5 + 0.5 * np.tanh(0.5 * i)) * np.tanh(g)
        h = (0.5 + 0.5 * np.tanh(0.5 * o)) * np.tanh(c)
        y.append(h)
    return np.stack(y), h, c


def _layers(document: Any, found: Found) -> tuple[list[Array], list[Array]]:
    """Return weights and biases of each layer as `_run_layer` takes them."""
    if found.kind == "NAM LSTM":
        return _of_nam(document, found.name)
    parts = [part.name.removesuffix("[0]") for part in found.parts] or [found.name]
    if found.kind == "RTNeural LSTM":
        layers = [document["layers"][int(name.rpartition(".")[2])]["weights"] for name in parts]
        biases = [np.array(each[2]) if len(each) > 2 else np.zeros(1) for each in layers]
        return [np.concatenate([each[0], each[1]]) for each in layers], biases
    arrays, weights, biases = document.get("state_dict", document), [], []
    for part in found.parts or (found,):
        prefix = f"{part.name}." if part.name else ""
        for layer in range(part.option("num_layers")):
            suffix = "" if part.kind == "PyTorch LSTMCell" else f"_l{layer}"
            both = [np.array(arrays[f"{prefix}weight_{k}{suffix}"]).T for k in ("ih", "hh")]
            weights.append(np.concatenate(both))
            given = [arrays.get(f"{prefix}bias_{k}{suffix}", [0.0]) for k in ("ih", "hh")]
            biases.append(np.array(given[0]) + np.array(given[1]))
    return weights, biases


def _of_nam(document: Any, name: str) -> tuple[list[Array], list[Array]]:
    for number in name.split(".")[1:]:
        document = document["config"]["submodels"][int(number)]["model"]
    config, numbers = document["config"], np.array(document["weights"])
    H, at = config["hidden_size"], 0
    weights, biases = [], []
    for layer in range(config["num_layers"]):
        rows = (H if layer else config["input_size"]) + H
        weights.append(numbers[at : at + 4 * H * rows].reshape(4 * H, rows).T)
        at += 4 * H * rows
        biases.append(numbers[at : at + 4 * H])
        at += 6 * H
    return weights, biases
