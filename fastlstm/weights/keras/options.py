"""What the configuration of a Keras layer says of an LSTM."""

from __future__ import annotations

from typing import Any, NamedTuple

from fastlstm._spec import DEFAULTS, chosen
from fastlstm.weights.keras.config import Layer

#: Keras' names of this package's activations. Its hard_sigmoid is ours before version 3 only.
ACTIVATIONS = {"sigmoid": "sigmoid", "tanh": "tanh", "relu": "relu", "linear": "identity"}

MERGE_MODES = {"concat": "concat", "sum": "sum", "mul": "product", "ave": "mean", None: None}

#: Of what Keras drops in training.
_RATES = ("dropout", "recurrent_dropout")


class UnsupportedError(Exception):
    """Why an LSTM can't be run here."""


class Recurrent(NamedTuple):
    """An LSTM as its configuration has it.

    Attributes
    ----------
    kind : str
    units : int
    bias, bidirectional : bool
    options : dict
        Of the layer here, without sizes, where they differ from the default.
    notes : tuple of str
    """

    kind: str
    units: int
    bias: bool
    bidirectional: bool
    options: dict[str, Any]
    notes: tuple[str, ...]


def kind_of(layer: Layer) -> str | None:
    """Return what kind of LSTM a layer is, or None for anything else."""
    inner = _wrapped(layer.config, "layer") if layer.class_name == "Bidirectional" else None
    class_name, config = inner or (layer.class_name, layer.config)
    if class_name == "RNN":
        cell = _wrapped(config, "cell") or ("", {})
        class_name = "RNN(LSTMCell)" if "LSTM" in str(cell) else ""
    if class_name not in ("LSTM", "CuDNNLSTM", "RNN(LSTMCell)"):
        return None
    return f"Keras Bidirectional({class_name})" if inner else f"Keras {class_name}"


def recurrent_of(layer: Layer, kind: str, version: str | None) -> Recurrent:
    """Return what the configuration says of an LSTM.

    Raises
    ------
    UnsupportedError
        If it can't be run here.
    """
    config = layer.config
    if layer.class_name != "Bidirectional":
        _, one = _direction(layer.class_name, config, version)
        return Recurrent(kind, one["units"], one["use_bias"], False, *_summary(one))
    forward_class, forward = _direction(*_layer_inside(config, "layer"), version)
    if config.get("backward_layer") is not None:
        backward_class, backward = _direction(*_layer_inside(config, "backward_layer"), version)
        if not backward.pop("reverse"):
            raise UnsupportedError("its backward_layer does not go backwards")
        differing = [name for name in backward if backward[name] != forward[name]]
        if differing or backward_class != forward_class:
            raise UnsupportedError(f"its directions differ in {', '.join(differing) or 'class'}")
    if forward["reverse"]:
        raise UnsupportedError("its forward layer goes backwards")
    mode = config.get("merge_mode", "concat")
    if not isinstance(mode, str | None) or mode not in MERGE_MODES:
        raise UnsupportedError(f"merge_mode {mode!r} is not supported")
    summary = _summary(forward, MERGE_MODES[mode])
    return Recurrent(kind, forward["units"], forward["use_bias"], True, *summary)


def _wrapped(config: dict[str, Any], key: str) -> tuple[str, dict[str, Any]] | None:
    given = config.get(key)
    if not isinstance(given, dict) or not isinstance(given.get("config"), dict):
        return None
    return str(given.get("class_name")), given["config"]


def _layer_inside(config: dict[str, Any], key: str) -> tuple[str, dict[str, Any]]:
    inside = _wrapped(config, key)
    if inside is None:
        raise UnsupportedError(f"{key} is no layer")
    return inside


def _direction(
    class_name: str, config: dict[str, Any], version: str | None
) -> tuple[str, dict[str, Any]]:
    """Return class and settings of an LSTM in one direction, of an RNN with those of its cell."""
    cell = config
    if class_name == "RNN":
        class_name, cell = _layer_inside(config, "cell")
        if class_name != "LSTMCell":
            raise UnsupportedError(f"cell {class_name!r} is not supported")
    elif class_name not in ("LSTM", "CuDNNLSTM"):
        raise UnsupportedError(f"layer {class_name!r} is not supported")
    units = cell.get("units")
    if type(units) is not int or units < 1:
        raise UnsupportedError(f"units: got {units!r}; Keras 1, or damaged")
    return class_name, {
        "units": units,
        "use_bias": _flag(cell, "use_bias", True),
        "activation": _activation(cell.get("activation", "tanh"), version),
        "gates": _activation(cell.get("recurrent_activation", "sigmoid"), version),
        "reverse": _flag(config, "go_backwards", False),
        "return_sequences": _flag(config, "return_sequences", False),
        "time_major": _flag(config, "time_major", False),
        "dropped": [f"{k} {str(cell[k])[:20]}" for k in _RATES if cell.get(k)],
        "policy": _policy(config.get("dtype")),
    }


def _flag(config: dict[str, Any], name: str, usual: bool) -> bool:
    value = config.get(name, usual)
    if not isinstance(value, bool):
        raise UnsupportedError(f"{name}: got {str(value)[:80]!r}, expected true or false")
    return value


def _activation(given: Any, version: str | None) -> str:
    name = "linear" if given is None else given
    if name == "hard_sigmoid":
        if version is None:
            raise UnsupportedError(
                "activation 'hard_sigmoid' has slope 0.2 in Keras 2, 1/6 in Keras 3"
            )
        if version.startswith(("0.", "1.", "2.")):
            return "hard_sigmoid"
        raise UnsupportedError(
            "activation 'hard_sigmoid' of Keras 3, of slope 1/6, is not supported"
        )
    if not isinstance(name, str) or name not in ACTIVATIONS:
        raise UnsupportedError(f"activation {str(name)[:80]!r} is not supported")
    return ACTIVATIONS[name]


def _policy(dtype: Any) -> str | None:
    """Return the name of a policy of mixed precision."""
    if isinstance(dtype, dict) and isinstance(dtype.get("config"), dict):
        dtype = dtype["config"].get("name")
    return dtype if isinstance(dtype, str) and dtype.startswith("mixed_") else None


def _summary(
    settings: dict[str, Any], merge_mode: str | None = DEFAULTS["merge_mode"]
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return options and notes."""
    options = {
        "batch_first": not settings["time_major"],
        "gate_activation": settings["gates"],
        "cell_activation": settings["activation"],
        "output_activation": settings["activation"],
        "bias": settings["use_bias"],
        "return_sequences": settings["return_sequences"],
        "reverse": settings["reverse"],
        "merge_mode": merge_mode,
    }
    notes = []
    if settings["reverse"] and settings["return_sequences"]:
        notes.append("go_backwards: y is aligned with x here, in Keras its last step is first")
    if settings["dropped"]:
        notes.append(f"left out, as it acts in training only: {', '.join(settings['dropped'])}")
    if settings["policy"]:
        notes.append(
            f"Keras computes it as {settings['policy']}, this package in the arrays' dtype"
        )
    return chosen(options), tuple(notes)
