"""A Keras model as a network: the layers of its configuration one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastlstm.weights.contents import Found
from fastlstm.weights.keras.config import Layer
from fastlstm.weights.keras.hdf5 import Hdf5
from fastlstm.weights.keras.layers import DTYPES, found_of
from fastlstm.weights.keras.options import STATEFUL, UnsupportedError, kind_of
from fastlstm.weights.keras.places import Places, places_in
from fastlstm.weights.models import Linear, Model, UnclearError, check_chain

#: Layers that copy their inputs when not training.
_COPIES = (
    *("InputLayer", "Dropout", "SpatialDropout1D", "GaussianDropout", "GaussianNoise"),
    *("AlphaDropout", "ActivityRegularization"),
)

_POOLINGS = {
    "GlobalAveragePooling1D": "mean",
    "GlobalAvgPool1D": "mean",
    "GlobalMaxPooling1D": "max",
    "GlobalMaxPool1D": "max",
}

#: Keras' names of activations between linear layers.
_ACTIVATIONS = {
    "linear": "identity",
    "relu": "relu",
    "tanh": "tanh",
    "sigmoid": "sigmoid",
    "silu": "silu",
    "swish": "silu",
    "softmax": "softmax",
    "log_softmax": "softmax",
}

_MASKING = (
    "its Masking layer skips steps that hold one value alone, of which a network does not know: "
    "give calls a mask"
)
_STATEFUL = (
    "is stateful: in Keras a call goes on from the state that the call before left, a network "
    "begins each with zeros"
)
_MAX_OF_ALL = (
    "Keras takes the largest number over masked steps too, where there are zeros or the state "
    "before: the network's answers are the same only where none of these is the largest"
)


def model_of(file: Hdf5, layers: Sequence[Layer], version: str | None) -> Model:
    """Return the network that the layers of a configuration are.

    Parameters
    ----------
    file : Hdf5
    layers : sequence of Layer
        All of the model.
    version : str or None
        Of the Keras that wrote it.

    Raises
    ------
    UnclearError
        If a layer is none of a network's here, or they are not one after the other; it is named.
    ValueError
        If parts don't fit each other.
    """
    reader = _Reader(file, version)
    for layer in _chain(layers):
        try:
            reader.take(layer)
        except UnsupportedError as error:
            raise UnclearError(f"layer {layer.name} ({_kind(layer)}): {error}") from error
    return reader.model()


def _chain(layers: Sequence[Layer]) -> list[Layer]:
    """Return the layers from the input to the output."""
    above = {layer.source: layer for layer in layers if layer.source is not None}
    first = [layer for layer in layers if layer.source is None]
    nested = [layer for layer in layers if len(layer.names) > (1 if layer.cell is None else 2)]
    if nested:
        inner = "/".join(nested[0].names[:-1])
        raise UnclearError(f"model {inner}: a model inside a model, which no network here is")
    for layer in first:
        if layer.class_name != "InputLayer" and (layer is not layers[0] or layer.inputs > 1):
            raise UnclearError(
                f"layer {layer.name} ({_kind(layer)}): reads what is not the whole output of one "
                "layer that nothing else reads; a network here is a chain"
            )
    if len(first) > 1:
        names = ", ".join(layer.name for layer in first)
        raise UnclearError(f"has {len(first)} inputs, {names}; a network here has one")
    chain = first[:1]
    while chain[-1] in above:
        chain.append(above[chain[-1]])
    if len(chain) < len(layers):  # of layers in a circle
        reached = set(chain)
        left = next(layer for layer in layers if layer not in reached)
        raise UnclearError(f"layer {left.name} ({_kind(left)}): not between input and output")
    return chain


def _kind(layer: Layer) -> str:
    return layer.own_name or layer.class_name


class _Reader:
    """Takes the layers of a chain, one after the other."""

    def __init__(self, file: Hdf5, version: str | None) -> None:
        self._file, self._version = file, version
        self._places: Places = places_in(file)
        self._table: NDArray[Any] | None = None
        self._skipped: int | None = None
        self._lstms: list[Found] = []
        self._linear: list[Linear] = []
        self._pooling: str | None = None
        self._assumptions: list[str] = []

    def model(self) -> Model:
        """Return the network of all layers.

        Raises
        ------
        UnclearError, ValueError
            If there is no LSTM or no linear layer, or they don't fit each other.
        """
        if not self._lstms or not self._linear:
            what = "linear layer behind the LSTM" if self._lstms else "LSTM"
            raise UnclearError(f"the model has no {what}")
        pooling = self._pooling
        last = self._lstms[-1]
        if not last.option("return_sequences"):
            pooling = "last"
        elif pooling is None and last.option("reverse"):
            raise UnclearError(
                f"layer {last.name}: goes backwards and gives its steps in that order, which a "
                "network here does not"
            )
        elif pooling == "mean" and last.option("reverse") and self._skipped is not None:
            raise UnclearError(
                f"layer {last.name}: goes backwards and gives its steps in that order, of which "
                "the mean leaves out those that are masked in the other order"
            )
        if pooling == "max" and self._skipped is not None:
            self._assumptions.append(_MAX_OF_ALL)
        check_chain(self._lstms, self._linear, self._table)
        output = self._linear[-1].activation
        if output in ("softmax", "sigmoid"):
            self._linear[-1] = replace(self._linear[-1], activation="identity")
        else:
            output = "linear"
        return Model(
            tuple(self._lstms),
            tuple(self._linear),
            self._table,
            self._skipped,
            pooling,
            output,
            assumptions=tuple(self._assumptions),
        )

    def take(self, layer: Layer) -> None:
        """Add a layer.

        Raises
        ------
        UnsupportedError
            If it has no place where it stands.
        """
        kind = kind_of(layer)
        if kind is not None:
            self._take_lstm(layer, kind)
        elif layer.own_name is not None:
            raise UnsupportedError("a class that is not Keras' own")
        elif layer.class_name in _COPIES:
            pass
        elif layer.class_name == "Masking" and self._is_before_lstm():
            self._assumptions.append(_MASKING)
        elif layer.class_name == "Embedding" and self._is_before_lstm():
            self._take_embedding(layer)
        elif layer.class_name in _POOLINGS and self._lstms and not self._linear:
            self._take_pooling(layer)
        elif (dense := _dense(layer)) is not None and self._lstms:
            self._take_dense(layer, dense)
        elif (activation := _activation_layer(layer)) is not None and self._linear:
            self._activate(activation)
        elif layer.class_name == "Activation" and layer.config.get("activation") == "linear":
            pass
        else:
            raise UnsupportedError("what it computes there is no part of a network here")

    def _is_before_lstm(self) -> bool:
        return not self._lstms and self._table is None

    def _take_lstm(self, layer: Layer, kind: str) -> None:
        if layer.distributed:
            raise UnsupportedError("runs on each slice of its input as a sequence of its own")
        if layer.inputs > 1:
            raise UnsupportedError("the model hands it an initial state")
        if self._linear or self._pooling:
            raise UnsupportedError("an LSTM behind linear layers or a mean")
        found = found_of(self._file, self._places, layer, kind, self._version)
        if STATEFUL in found.notes:
            self._assumptions.append(f"layer {found.name} {_STATEFUL}")
        self._lstms.append(found)

    def _take_embedding(self, layer: Layer) -> None:
        (self._table,) = self._read(layer, self._places.all_of(layer), (2,))
        if layer.config.get("mask_zero") is True:
            self._skipped = 0

    def _take_pooling(self, layer: Layer) -> None:
        if layer.config.get("data_format", "channels_last") not in ("channels_last", None):
            raise UnsupportedError("data_format is not channels_last")
        if layer.config.get("keepdims"):
            raise UnsupportedError("keepdims=True")
        if self._pooling is not None or not self._lstms[-1].option("return_sequences"):
            raise UnsupportedError("there are no steps any more")
        self._pooling = _POOLINGS[layer.class_name]

    def _take_dense(self, layer: Layer, config: dict[str, Any]) -> None:
        if self._linear and self._linear[-1].activation == "softmax":
            raise UnsupportedError("reads probabilities of a softmax")
        kernel, *biases = self._read(layer, self._places.of_dense(layer), (2, 1))
        bias = biases[0] if biases else np.zeros(kernel.shape[1], kernel.dtype)
        self._linear.append(Linear(layer.name, np.ascontiguousarray(kernel.T), bias))
        self._activate(_activation(config.get("activation", "linear")))

    def _activate(self, activation: str) -> None:
        last = self._linear[-1]
        if "identity" not in (activation, last.activation):
            raise UnsupportedError(f"{activation} behind {last.activation}")
        if activation != "identity":
            self._linear[-1] = replace(last, activation=activation)

    def _read(
        self, layer: Layer, names: list[str], dimensions: tuple[int, ...]
    ) -> list[NDArray[Any]]:
        """Return the arrays of a layer that has no others, of so many dimensions each."""
        stored = [self._file.arrays[name] for name in names]
        sizes = tuple(len(each.shape) for each in stored)
        fits = sizes and sizes == dimensions[: len(sizes)]
        others = set(self._places.all_of(layer)) - set(names)
        if not fits or others or any(each.dtype not in DTYPES for each in stored):
            listed = ", ".join(f"{name} {self._file.arrays[name].shape}" for name in
                               self._places.all_of(layer)[:8])  # fmt: skip
            raise UnsupportedError(f"has the arrays {listed or 'none'}, which are not those of one")
        return self._file.read(names)


def _dense(layer: Layer) -> dict[str, Any] | None:
    """Return the configuration of a Dense layer, by itself or for each step; else None."""
    class_name, config = layer.class_name, layer.config
    if class_name == "TimeDistributed" and isinstance(config.get("layer"), dict):
        class_name, config = config["layer"].get("class_name"), config["layer"].get("config")
    return config if class_name == "Dense" and isinstance(config, dict) else None


def _activation(given: Any) -> str:
    name = "linear" if given is None else given
    if not isinstance(name, str) or name not in _ACTIVATIONS:
        raise UnsupportedError(f"activation {str(name)[:80]!r} is not supported")
    return _ACTIVATIONS[name]


def _activation_layer(layer: Layer) -> str | None:
    """Return the activation that a layer is, or None of another layer."""
    config = layer.config
    if layer.class_name == "Activation":
        return _activation(config.get("activation"))
    if layer.class_name == "Softmax" and config.get("axis", -1) in (-1, [-1]):
        return "softmax"
    if layer.class_name == "ReLU":
        usual = {"max_value": (None,), "negative_slope": (0, None), "threshold": (0, None)}
        if all(config.get(name) in values for name, values in usual.items()):
            return "relu"
    return None
