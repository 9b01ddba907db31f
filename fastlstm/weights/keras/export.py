"""Keras models of this package's layers, as Keras 3 writes them: ``.keras`` and ``.h5``.

A Sequential model of an LSTM or Bidirectional(LSTM) for each layer, and a Dense layer for a head.
The batch comes first, as always in Keras. What acts in training only (``dropout``,
``recurrent_dropout``, ``weight_dropout``) is left out.
"""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastlstm._extras import import_for
from fastlstm._gates import ORDER, from_rows
from fastlstm._layer import LSTMBase
from fastlstm._spec import chosen
from fastlstm.variants import ACTIVATION_OPTIONS
from fastlstm.weights.contents import Arrays, Head, Trained
from fastlstm.weights.keras.options import ACTIVATIONS, MERGE_MODES

#: Of the first Keras that reads what is written here.
VERSION = "3.0.0"

_NAMES_IN_KERAS = {ours: theirs for theirs, ours in ACTIVATIONS.items()}
_MODES_IN_KERAS = {ours: theirs for theirs, ours in MERGE_MODES.items()}

#: Options that an LSTM of Keras does not have.
_MISSING = (
    "peepholes",
    "coupled_gates",
    "proj_size",
    "layer_norm",
    "clip",
    "cell_clip",
    "zoneout_h",
    "zoneout_c",
)

#: Where the directions of a Bidirectional layer are.
_DIRECTIONS = {"forward_layer": "", "backward_layer": "_reverse"}


class _Layer(NamedTuple):
    """A layer of the model.

    Attributes
    ----------
    class_name : str
    config : dict
        With its name.
    input_size : int
    arrays : dict of str to dict
        By where they are below the layer in ``.keras``, each by its name in ``.h5``.
    """

    class_name: str
    config: dict[str, Any]
    input_size: int
    arrays: dict[str, Arrays]


def write_model(trained: Trained, path: Path) -> None:
    """Write a model; equal layers make equal files.

    The two biases are added, in float64, since Keras has one.

    Raises
    ------
    ImportError
        If h5py is not installed.
    ValueError
        If Keras does not have one of the options, or there is a state, which it has no place for.
    """
    h5py = import_for(f"writing {path.suffix}", "h5py", "keras")
    layer, head, state, _ = trained
    options = layer.options
    _check(options, state)
    layers = _layers(layer, options)
    if head is not None:
        layers.append(_dense(head, options["dtype"]))
    model = _model(layers, options)
    image = io.BytesIO()
    if path.suffix.lower() == ".keras":
        with h5py.File(image, "w") as file:
            _fill_numbered(file, layers)
        metadata = {"keras_version": VERSION, "date_saved": "1980-01-01@00:00:00"}
        _write_zip(path, metadata, model, image.getvalue())
    else:
        with h5py.File(image, "w") as file:
            _fill_named(file, layers, model)
        path.write_bytes(image.getvalue())


def _check(options: dict[str, Any], state: Any) -> None:
    """ValueError for what Keras does not have."""
    unusual = chosen(options)
    problems = [
        *(f"{name}={unusual[name]!r}" for name in _MISSING if name in unusual),
        *(
            f"{name}={options[name]!r} (Keras 3 has another slope)"
            for name in ACTIVATION_OPTIONS
            if options[name] not in _NAMES_IN_KERAS
        ),
    ]
    if options["cell_activation"] != options["output_activation"]:
        problems.append("cell_activation and output_activation that differ")
    if options.get("merge_mode", "concat") is None:
        problems.append("merge_mode=None (a Sequential model has one output)")
    if options.get("reverse") and (options["num_layers"] > 1 or options["return_sequences"]):
        problems.append("reverse with num_layers > 1 or return_sequences (Keras' y is not aligned)")
    if state is not None:
        problems.append("state, an initial one")
    if problems:
        raise ValueError(f"{'; '.join(problems)}: can't be saved as a Keras model")


def _layers(layer: LSTMBase, options: dict[str, Any]) -> list[_Layer]:
    """Return a Keras layer for each layer."""
    parameters = layer.state_dict()
    L, both = options["num_layers"], layer.num_directions == 2
    layers = []
    for number in range(L):
        last = number == L - 1
        config = {
            "trainable": True,
            "dtype": options["dtype"],
            "return_sequences": options["return_sequences"] or not last,
            "return_state": False,
            "go_backwards": options.get("reverse", False),
            "stateful": False,
            "unroll": False,
            "units": options["hidden_size"],
            "activation": _NAMES_IN_KERAS[options["cell_activation"]],
            "recurrent_activation": _NAMES_IN_KERAS[options["gate_activation"]],
            "use_bias": options["bias"],
        }
        I = parameters[f"weight_ih_l{number}"].shape[1]
        suffix = f"_{number}" if number else ""
        if not both:
            arrays = {"cell": _arrays(parameters, f"_l{number}", f"lstm{suffix}/lstm_cell")}
            layers.append(_Layer("LSTM", {"name": f"lstm{suffix}", **config}, I, arrays))
            continue
        name = f"bidirectional{suffix}"
        wrapper: dict[str, Any] = {
            "name": name,
            "trainable": True,
            "dtype": options["dtype"],
            "merge_mode": _MODES_IN_KERAS[options["merge_mode"]] if last else "concat",
        }
        arrays = {}
        for place, ending in _DIRECTIONS.items():
            own = f"{place.removesuffix('_layer')}_lstm{suffix}"
            backwards = {"name": own, **config, "go_backwards": bool(ending)}
            key = "layer" if place == "forward_layer" else place
            wrapper[key] = _serialized("keras.layers", "LSTM", backwards)
            prefix = f"{name}/{own}/lstm_cell"
            arrays[f"{place}/cell"] = _arrays(parameters, f"_l{number}{ending}", prefix)
        layers.append(_Layer("Bidirectional", wrapper, I, arrays))
    return layers


def _arrays(parameters: Any, ending: str, prefix: str) -> Arrays:
    """Return the arrays of one direction as Keras has them, by their names in ``.h5``."""
    arrays = {
        "kernel": from_rows(parameters[f"weight_ih{ending}"], ORDER, "IGH"),
        "recurrent_kernel": from_rows(parameters[f"weight_hh{ending}"], ORDER, "IGH"),
    }
    if f"bias_ih{ending}" in parameters:
        ih, hh = parameters[f"bias_ih{ending}"], parameters[f"bias_hh{ending}"]
        arrays["bias"] = (ih.astype(np.float64) + hh).astype(ih.dtype)
    return {f"{prefix}/{name}": array for name, array in arrays.items()}


def _dense(head: Head, dtype: str) -> _Layer:
    N, width = head.weight.shape
    config = {
        "name": "dense",
        "trainable": True,
        "dtype": dtype,
        "units": N,
        "activation": "linear",
        "use_bias": True,
    }
    arrays: Arrays = {"dense/kernel": head.weight.T, "dense/bias": head.bias}
    return _Layer("Dense", config, width, {"": arrays})


def _serialized(module: str, class_name: str, config: dict[str, Any]) -> dict[str, Any]:
    return {"module": module, "class_name": class_name, "config": config, "registered_name": None}


def _model(layers: list[_Layer], options: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration of the model."""
    shape = [None, None, options["input_size"]]
    first = {"batch_shape": shape, "dtype": options["dtype"], "name": "input_layer"}
    inside = [_serialized("keras.layers", "InputLayer", first)]
    for layer in layers:
        each = _serialized("keras.layers", layer.class_name, layer.config)
        inside.append({**each, "build_config": {"input_shape": [None, None, layer.input_size]}})
    config = {
        "name": "sequential",
        "trainable": True,
        "dtype": options["dtype"],
        "layers": inside,
        "build_input_shape": shape,
    }
    return {**_serialized("keras", "Sequential", config), "build_config": {"input_shape": shape}}


def _fill_numbered(file: Any, layers: list[_Layer]) -> None:
    """Write the arrays as ``.keras`` has them."""
    for layer in layers:
        for place, arrays in layer.arrays.items():
            group = file.create_group("/".join(["layers", layer.config["name"], place, "vars"]))
            for number, array in enumerate(arrays.values()):
                group.create_dataset(str(number), data=array)


def _fill_named(file: Any, layers: list[_Layer], model: dict[str, Any]) -> None:
    """Write configuration and arrays as a whole model in ``.h5`` has them."""
    file.attrs["keras_version"] = VERSION
    file.attrs["backend"] = "numpy"
    file.attrs["model_config"] = json.dumps(model)
    weights = file.create_group("model_weights")
    weights.attrs["keras_version"] = VERSION
    weights.attrs["backend"] = "numpy"
    weights.attrs["layer_names"] = _as_bytes([layer.config["name"] for layer in layers])
    for layer in layers:
        group = weights.create_group(layer.config["name"])
        all_arrays = {name: a for arrays in layer.arrays.values() for name, a in arrays.items()}
        group.attrs["weight_names"] = _as_bytes(list(all_arrays))
        for name, array in all_arrays.items():
            group.create_dataset(name, data=array)


def _as_bytes(names: list[str]) -> NDArray[Any]:
    return np.array([name.encode() for name in names])


def _write_zip(path: Path, metadata: Any, model: dict[str, Any], image: bytes) -> None:
    members = {
        "metadata.json": json.dumps(metadata).encode(),
        "config.json": json.dumps(model).encode(),
        "model.weights.h5": image,
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data)  # of 1980, and not compressed
