"""Run an LSTM of a Keras file in Keras itself, with what it makes of the file."""

from __future__ import annotations

import importlib
import importlib.util
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastlstm.weights.contents import Found
from fastlstm.weights.keras.hdf5 import Hdf5
from fastlstm.weights.keras.places import Unnamed, places_in
from fastlstm.weights.raw import widened

#: What runs it.
PACKAGE = "keras"

Result = tuple[Any, NDArray[Any], NDArray[Any]]


def run(path: Path, found: Found, x: NDArray[Any], h_0: NDArray[Any], c_0: NDArray[Any]) -> Result:
    """Return what Keras computes for an LSTM of a file, in the dtype of `x`.

    Parameters
    ----------
    path : Path
        A trusted file. Of weights alone, layers with the usual options are made.
    found : Found
        As `read` found it: a stack's layers run one after the other.
    x : ndarray (T, B, I)
    h_0, c_0 : ndarray (L*D, B, H)

    Returns
    -------
    y : ndarray, or a pair with merge_mode=None
        As the layer's, time first.
    h_n, c_n : ndarray (L*D, B, H)

    Raises
    ------
    ImportError
        If Keras, or what it runs on, is not installed.
    NotImplementedError
        If Keras computes in another dtype: with JAX under it in float32 for float64.
    """
    keras = _import()
    parts = found.parts or (found,)
    D = found.num_directions
    y, states = x.swapaxes(0, 1), []
    for number, layer in enumerate(_layers(keras, path, parts, x.dtype.name)):
        rows = range(number * D, (number + 1) * D)
        initial = [keras.ops.convert_to_tensor(s[row]) for row in rows for s in (h_0, c_0)]
        results = [_as_numpy(each) for each in layer(y, initial_state=initial)]
        states += results[-2 * D :]
        outputs = results[: -2 * D]
        if lacking := {each.dtype.name for each in results} - {x.dtype.name}:
            raise NotImplementedError(f"Keras computes in {', '.join(sorted(lacking))} here")
        # Only the cells of one RNN are a stack that goes backwards, all in its order of steps.
        y = outputs[0][:, ::-1].copy() if found.option("reverse") else outputs[0]
    if found.option("return_sequences"):
        # Keras gives the steps of a layer that goes backwards as they come, the last one first.
        step = -1 if found.option("reverse") else 1
        outputs = [output[:, ::step].swapaxes(0, 1) for output in outputs]
    pair = found.option("merge_mode") is None
    return tuple(outputs) if pair else outputs[0], np.stack(states[::2]), np.stack(states[1::2])


def sizes_of_network(path: Path) -> tuple[int | None, ...]:
    """Return sequences and steps of a whole model's input, None where they are open."""
    return tuple(_model(path).inputs[0].shape[:2])


def run_network(path: Path, x: NDArray[Any]) -> list[NDArray[Any]]:
    """Return what a whole model gives.

    Raises
    ------
    ImportError
        If Keras, or what it runs on, is not installed.
    NotImplementedError
        If it computes in mixed or half precision.
    """
    model = _model(path)
    dtypes = {str(layer.compute_dtype) for layer in model.layers} - {"float32", "float64"}
    if dtypes:
        raise NotImplementedError(f"Keras computes in {', '.join(sorted(dtypes))} here")
    return [_as_numpy(model(x, training=False))]


def _model(path: Path) -> Any:
    return _import().saving.load_model(path, compile=False)


def _import() -> Any:
    """Import Keras on a backend that is there, where nothing says on which."""
    backends = {"tensorflow": "tensorflow", "torch": "torch", "jax": "jax"}
    there = [name for name in backends if importlib.util.find_spec(name)]
    if "KERAS_BACKEND" not in os.environ and there:
        os.environ["KERAS_BACKEND"] = there[0]
    return importlib.import_module("keras")


def _as_numpy(tensor: Any) -> NDArray[Any]:
    # PyTorch's has a history of operations, of which it must be rid first.
    return np.asarray(tensor.detach().cpu().numpy() if hasattr(tensor, "detach") else tensor)


def _layers(keras: Any, path: Path, parts: tuple[Found, ...], dtype: str) -> list[Any]:
    """Return Keras layers that also give their states and compute in `dtype`."""
    names = [part.name.removesuffix("[0]") for part in parts]  # of the first in a stack
    unnamed = _without_configuration(path)
    if unnamed is not None:
        pairs = zip(parts, names, strict=True)
        return [_made(keras, path, part, unnamed[name], dtype) for part, name in pairs]
    model = _model(path)
    return [_with_states(_find(model, name), dtype) for name in names]


def _without_configuration(path: Path) -> dict[str, Unnamed] | None:
    """Return the LSTMs of a file of weights alone, or None of a whole model."""
    if path.read_bytes()[:4] == b"PK\x03\x04":
        return None
    with Hdf5(path, path.read_bytes()) as file:
        if "model_config" in file.groups[""]:
            return None
        return {unnamed.name: unnamed for unnamed in places_in(file).unnamed()}


def _find(model: Any, name: str) -> Any:
    """Return a layer by its name behind those of the models, or of the RNN, that it is in."""
    for layer in model.layers:
        inner = layer
        while type(inner).__name__ == "TimeDistributed":  # which runs it on slices of its input
            inner = inner.layer
        cells = getattr(getattr(inner, "cell", None), "cells", ())
        if layer.name == name and not cells:
            return inner
        if name.startswith(f"{layer.name}/") or layer.name == name:
            rest = name.removeprefix(layer.name).removeprefix("/")
            return _cell(inner, cells, rest) if cells else _find(inner, rest)
    raise ValueError(f"Keras finds no layer {name!r} in {model.name}")


def _cell(rnn: Any, cells: Any, name: str) -> Any:
    """Return an RNN of one of the cells that an RNN runs, or of the only one."""
    for cell in cells:
        if cell.name == name or len(cells) == 1:
            last = cell is cells[-1]
            config = {**rnn.get_config(), "return_sequences": rnn.return_sequences or not last}
            config.pop("cell")
            config.pop("name")
            alone = type(rnn)(type(cell).from_config(cell.get_config()), **config)
            alone.build((None, None, cell.get_weights()[0].shape[0]))
            alone.set_weights(cell.get_weights())
            return alone
    raise ValueError(f"Keras finds no cell {name!r} in {rnn.name}")


def _with_states(layer: Any, dtype: str) -> Any:
    """Return a copy that gives its states and computes in `dtype`, whatever its policy is."""
    config = layer.get_config()
    for each in [config, *(config[key]["config"] for key in _INSIDE if key in config)]:
        each["dtype"] = dtype
        if "return_state" in each:
            each.update(return_state=True, stateful=False)
    copy = type(layer).from_config(config)
    copy.build((None, None, layer.weights[0].shape[0]))
    copy.set_weights(layer.get_weights())
    return copy


#: Configurations in that of a wrapper.
_INSIDE = ("layer", "backward_layer", "cell")


def _made(keras: Any, path: Path, found: Found, unnamed: Unnamed, dtype: str) -> Any:
    """Return a layer with arrays that h5py reads."""
    import h5py

    H, bias = found.option("hidden_size"), found.option("bias")

    def hard_sigmoid_of_keras_2(z: Any) -> Any:
        return keras.ops.clip(0.2 * z + 0.5, 0, 1)

    gates = found.option("gate_activation")
    layer = keras.layers.LSTM(
        H,
        recurrent_activation=hard_sigmoid_of_keras_2 if gates == "hard_sigmoid" else gates,
        use_bias=bias,
        return_sequences=True,
        return_state=True,
        dtype=dtype,
    )
    if found.bidirectional:
        # Bidirectional makes its layers anew, by their configuration.
        functions = {"hard_sigmoid_of_keras_2": hard_sigmoid_of_keras_2}
        with keras.saving.custom_object_scope(functions):
            layer = keras.layers.Bidirectional(layer, dtype=dtype)
    layer.build((None, None, found.options["input_size"]))
    with h5py.File(path) as file:
        arrays = [file[name][...] for names in unnamed.directions for name in names]
    layer.set_weights([_as_floats(array) for array in arrays])
    return layer


def _as_floats(array: NDArray[Any]) -> NDArray[Any]:
    """Return floats of bfloat16, which HDF5 lacks: Keras stores two opaque bytes for each."""
    if array.dtype.kind != "V":
        return array
    return widened(array.view("<u2"))
