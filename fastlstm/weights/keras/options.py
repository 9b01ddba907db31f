"""What the configuration of a Keras layer says of an LSTM."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from fastlstm._spec import DEFAULTS, chosen
from fastlstm.weights.keras.config import CUSTOM, Layer, known_as, own_class

#: Keras' names of this package's activations. Its hard_sigmoid is ours before version 3 only.
ACTIVATIONS = {"sigmoid": "sigmoid", "tanh": "tanh", "relu": "relu", "linear": "identity"}

MERGE_MODES = {"concat": "concat", "sum": "sum", "mul": "product", "ave": "mean", None: None}

#: Of what Keras drops in training.
_RATES = ("dropout", "recurrent_dropout")

#: What two directions may differ in.
_HARMLESS = ("dropped", "policy", "assumed", "stateful")

#: The note of a layer that keeps its state.
STATEFUL = "stateful: Keras goes on from the state that the call before left: give calls that one"


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
    notes, assumptions : tuple of str
        As of `fastlstm.weights.Found`.
    """

    kind: str
    units: int
    bias: bool
    bidirectional: bool
    options: dict[str, Any]
    notes: tuple[str, ...]
    assumptions: tuple[str, ...] = ()


class _Part(NamedTuple):
    """A layer or cell of a configuration.

    Attributes
    ----------
    name : str
        Of its class.
    is_own : bool
        Whether that is not Keras' own.
    config : dict
    known_as : str or None
        Which class of Keras it is taken for.
    """

    name: str
    is_own: bool
    config: dict[str, Any]
    known_as: str | None

    @classmethod
    def of(cls, layer: Layer) -> _Part:
        known = known_as(layer.class_name, layer.config)
        return cls(layer.own_name or layer.class_name, bool(layer.own_name), layer.config, known)

    def inside(self, key: str) -> _Part | None:
        """Return what it wraps."""
        given = self.config.get(key)
        if not isinstance(given, dict) or not isinstance(given.get("config"), dict):
            return None
        name, own, config = str(given.get("class_name")), own_class(given), given["config"]
        known = known_as(CUSTOM if own else name, config)
        return _Part(own or name, bool(own), config, known)

    def needed(self, key: str) -> _Part:
        """Return what it wraps.

        Raises
        ------
        UnsupportedError
            If there is nothing.
        """
        part = self.inside(key)
        if part is None:
            raise UnsupportedError(f"{key} is no layer")
        return part


def kind_of(layer: Layer) -> str | None:
    """Return what kind of LSTM a layer is, or None for anything else."""
    part = _Part.of(layer)
    inner = part.inside("layer") if part.known_as == "Bidirectional" else None
    one = inner or part
    name = one.name
    if one.known_as == "RNN":
        cell = one.inside("cell")
        if cell is None or not (cell.known_as == "LSTMCell" or "LSTM" in str(cell)):
            return None
        name = "RNN(LSTMCell)"
    elif one.known_as not in ("LSTM", "CuDNNLSTM"):
        return None
    if inner is not None:
        name = f"Bidirectional({name})"
    return f"Keras TimeDistributed({name})" if layer.distributed else f"Keras {name}"


def recurrent_of(layer: Layer, kind: str, version: str | None) -> Recurrent:
    """Return what the configuration says of an LSTM.

    Raises
    ------
    UnsupportedError
        If it can't be run here.
    """
    part = _Part.of(layer)
    assumed = _assumed_of(part)
    if part.known_as != "Bidirectional":
        _, one = _direction(part, version)
        options, notes = _summary(one)
        assumptions = (*assumed, *one["assumed"])
        return Recurrent(kind, one["units"], one["use_bias"], False, options, notes, assumptions)
    forward_class, forward = _direction(part.needed("layer"), version)
    if part.config.get("backward_layer") is not None:
        backward_class, backward = _direction(part.needed("backward_layer"), version)
        if not backward.pop("reverse"):
            raise UnsupportedError("its backward_layer does not go backwards")
        differing = [n for n in backward if n not in _HARMLESS and backward[n] != forward[n]]
        if differing or backward_class != forward_class:
            raise UnsupportedError(f"its directions differ in {', '.join(differing) or 'class'}")
    if forward["reverse"]:
        raise UnsupportedError("its forward layer goes backwards")
    mode = part.config.get("merge_mode", "concat")
    if not isinstance(mode, str | None) or mode not in MERGE_MODES:
        raise UnsupportedError(f"merge_mode {mode!r} is not supported")
    options, notes = _summary(forward, MERGE_MODES[mode])
    assumptions = (*assumed, *forward["assumed"])
    return Recurrent(kind, forward["units"], forward["use_bias"], True, options, notes, assumptions)


def _assumed_of(part: _Part) -> list[str]:
    """Return what is assumed of a class that is not Keras' own."""
    if part.known_as is None or (part.name == part.known_as and not part.is_own):
        return []
    name = f"its class {part.name[:80]!r} is not Keras' own"
    evidence = "by its configuration and the shapes of its arrays"
    return [f"{name}: {evidence} it is assumed to compute what Keras' {part.known_as} does"]


def _direction(part: _Part, version: str | None) -> tuple[str, dict[str, Any]]:
    """Return class and settings of an LSTM in one direction, of an RNN with those of its cell."""
    config, cell, assumed = part.config, part, _assumed_of(part)
    if part.known_as == "RNN":
        cell = part.needed("cell")
        if cell.known_as != "LSTMCell":
            several = " inside Bidirectional or with cells of other kinds"
            why = several if cell.name == "StackedRNNCells" else ""
            raise UnsupportedError(f"cell {cell.name[:80]!r}{why} is not supported")
        assumed += _assumed_of(cell)
    elif part.known_as not in ("LSTM", "CuDNNLSTM"):
        raise UnsupportedError(f"layer {part.name[:80]!r} is not supported")
    told = cell.config
    units = told.get("units")
    if type(units) is not int or units < 1:
        raise UnsupportedError(f"units: got {units!r}; Keras 1, or damaged")
    gates = told.get("recurrent_activation")
    if "recurrent_activation" not in told:
        gates, doubt = default_gates(version, cell.known_as == "CuDNNLSTM")
        if doubt:
            assumed.append(f"it says nothing of its gates, assumed are {gates} ones: {doubt}")
    return str(cell.known_as), {
        "units": units,
        "use_bias": _flag(told, "use_bias", True),
        "activation": _activation(told.get("activation", "tanh"), version),
        "recurrent_activation": _activation(gates, version),
        "reverse": _flag(config, "go_backwards", False),
        "return_sequences": _flag(config, "return_sequences", False),
        "time_major": _flag(config, "time_major", False),
        "stateful": config.get("stateful") is True,
        "dropped": [f"{k} {str(told[k])[:20]}" for k in _RATES if told.get(k)],
        "policy": _policy(config.get("dtype")),
        "assumed": assumed,
    }


def default_gates(version: str | None, is_cudnn: bool = False) -> tuple[str, str | None]:
    """Return the recurrent_activation of a layer that was given none, and what leaves doubts.

    Parameters
    ----------
    version : str or None
        Of the Keras that wrote the file, if it is known. Before 2.3 the default was hard_sigmoid,
        but for CuDNNLSTM. TensorFlow 1.15 called its Keras as 2.0 did, which had the new default.
    is_cudnn : bool
    """
    if is_cudnn:
        return "sigmoid", None
    numbers = re.match(r"([0-9]{1,4})\.([0-9]{1,4})", version or "")
    if version is None or numbers is None:
        return "sigmoid", "by default they were hard_sigmoid in Keras before 2.3"
    if version == "2.2.4-tf":
        return "sigmoid", "as in TensorFlow 2; by default they were hard_sigmoid in 1.15"
    is_old = (int(numbers[1]), int(numbers[2])) < (2, 3)
    return ("hard_sigmoid", None) if is_old else ("sigmoid", None)


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
        "gate_activation": settings["recurrent_activation"],
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
    if settings["stateful"]:
        notes.append(STATEFUL)
    if settings["dropped"]:
        notes.append(f"left out, as it acts in training only: {', '.join(settings['dropped'])}")
    if settings["policy"]:
        notes.append(
            f"Keras computes it as {settings['policy']}, this package in the arrays' dtype"
        )
    return chosen(options), tuple(notes)
