"""RTNeural's JSON: the layers of a Keras model one after the other, or a state dict of PyTorch.

Of a layer "lstm" the weights are those of Keras: kernel (I, 4H), recurrent kernel (H, 4H) and bias
(4H,), the gates in the order i, f, c, o; of "dense" kernel (I, N) and bias (N,). RTNeural reads the
weights and sizes (``RTNeural/model_loader.h``) and runs step after step, whatever else is said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from fastlstm.weights.audio.document import Floats, Object, Parts, entry, matrix, told, vector
from fastlstm.weights.contents import Arrays, Found, Head, Other, Refused
from fastlstm.weights.names import find_layers
from fastlstm.weights.raw import quoted
from fastlstm.weights.stacks import stacked

_DENSE = ("dense", "time-distributed-dense")

#: What an activation of a layer is where there is none.
_NONE = ("", "linear")

_MOST_LAYERS = 1000

#: What files say of the model besides, at the top or in their metadata.
_TOLD = ("name", "author", "samplerate", "sample_rate", "license", "esr")

_LAST_ALONE = "its shape is that of a last output alone; as in RTNeural there is one at each step"
_SKIP = "the model adds its input to the linear layer's output ({}), which is left out with it"
_GAIN = "players scale what goes in and comes out of it ({})"
_PASSED = "{}, of a type that RTNeural does not know and passes over, is passed over"


def read_layers(document: Object) -> Parts:
    """Find the LSTMs of a list of layers: neighbours as a stack, a linear layer on top as the head.

    Raises
    ------
    ValueError
        If it is damaged.
    """
    layers = entry(document, "layers", list)
    if len(layers) > _MOST_LAYERS:
        raise ValueError(f"layers: got {len(layers)}, expected at most {_MOST_LAYERS}")
    notes = _notes(document)
    skips = _is_set(document, "in_skip")
    found: list[Found] = []
    refused: list[Refused] = []
    others: list[Other] = []
    stack: list[Found] = []  # the LSTMs whose output the layer at hand takes
    passed: list[str] = []  # notes on what lies between
    width = _last(document, "in_shape", "")
    for number, layer in enumerate(layers):
        name = f"layers.{number}"
        if type(layer) is not dict:
            raise ValueError(f"{name}: expected an object")
        kind = entry(layer, "type", str, f"{name}.")
        is_linear = layer.get("activation", "") in _NONE
        if kind in ("activation", "unknown") and is_linear and not layer.get("weights"):
            passed.append(_PASSED.format(name))
            continue
        if kind == "lstm":
            try:
                lstm = _assuming(_lstm(name, layer, width, notes), passed)
            except ValueError as error:
                refused.append(Refused(name, "RTNeural LSTM", str(error)))
                stack, width = [], None
                continue
            width = lstm.output_size
            if stack and _is_stack(stack[-1], lstm):
                stack.append(lstm)
                found[-1] = stacked(stack)
            else:
                stack = [lstm]
                found.append(lstm)
            continue
        if stack and kind in _DENSE and is_linear:
            head: Head | None = _head(name, layer, found[-1])
            if skips and number == len(layers) - 1:
                head, passed = None, [*passed, _SKIP.format("in_skip")]
                others.append(Other(f"{name} ({quoted(kind)})", "RTNeural"))
            found[-1] = replace(_assuming(found[-1], passed), head=head)
        else:
            others.append(Other(f"{name} ({quoted(kind)})", "RTNeural"))
        stack, passed, width = [], [], None
    return found, refused, others


def _assuming(found: Found, assumptions: Sequence[str]) -> Found:
    """Return an LSTM with further assumptions, each once."""
    return replace(
        found,
        notes=tuple(dict.fromkeys((*found.notes, *assumptions))),
        assumptions=tuple(dict.fromkeys((*found.assumptions, *assumptions))),
    )


def _is_stack(below: Found, above: Found) -> bool:
    """Whether two layers, one on the other, can be one LSTM of several."""
    return above.options == {**below.options, "input_size": below.output_size}


def _notes(document: Object) -> list[str]:
    """Return what the file says of the model besides."""
    notes = []
    if said := [*told(document, _TOLD), *told(document.get("metadata"), _TOLD)]:
        notes.append(f"metadata: {', '.join(said)}")
    if gains := ", ".join(f"{each} dB" for each in told(document, ("in_gain", "out_gain"))):
        notes.append(_GAIN.format(gains))
    return notes


def _lstm(name: str, layer: Object, width: int | None, notes: Sequence[str]) -> Found:
    """Return the LSTM of a layer, or raise ValueError."""
    activation = layer.get("activation", "")
    if activation not in (*_NONE, "tanh"):
        raise ValueError(
            f"activation {quoted(str(activation))!r} is said, where RTNeural computes tanh"
        )
    weights = entry(layer, "weights", list)
    if len(weights) not in (2, 3):
        raise ValueError(f"weights: got {len(weights)} arrays, expected kernel, recurrent, bias")
    kernel, recurrent = matrix(weights[0], "weights[0]"), matrix(weights[1], "weights[1]")
    I, H = len(kernel), len(recurrent)
    shapes = [kernel.shape, recurrent.shape]
    arrays = [kernel, recurrent]
    if len(weights) == 3:
        arrays.append(vector(weights[2], "weights[2]"))
        shapes.append(arrays[2].shape)
    units = _last(layer, "shape", "")
    if shapes != [(I, 4 * H), (H, 4 * H), (4 * H,)][: len(shapes)] or units not in (H, None):
        listed = ", ".join(map(str, shapes))
        raise ValueError(f"its arrays are {listed}, which is no LSTM of {units or H} units")
    if width not in (I, None):
        raise ValueError(f"it reads {I} numbers, but what is before it gives {width}")
    options = {"input_size": I, "hidden_size": H, "num_layers": 1}
    parameters: Arrays = {
        "weight_ih_l0": np.ascontiguousarray(kernel.T),
        "weight_hh_l0": np.ascontiguousarray(recurrent.T),
    }
    if len(arrays) == 3:
        parameters |= {"bias_ih_l0": arrays[2], "bias_hh_l0": np.zeros(4 * H, np.float32)}
    else:
        options["bias"] = False
    if len(layer.get("shape", ())) == 2:
        notes = [*notes, _LAST_ALONE]
    return Found(
        name, "RTNeural LSTM", options, False, parameters, order="i f c o", notes=tuple(notes)
    )


def _head(name: str, layer: Object, below: Found) -> Head:
    """Return a linear layer; ValueError if it is damaged, or doesn't fit the LSTM below."""
    weights = entry(layer, "weights", list, f"{name}.")
    if len(weights) not in (1, 2):
        raise ValueError(f"{name}.weights: got {len(weights)} arrays, expected kernel and bias")
    kernel = matrix(weights[0], f"{name}.weights[0]")
    N = kernel.shape[1]
    bias = vector(weights[1], f"{name}.weights[1]") if len(weights) == 2 else np.zeros(N)
    units = _last(layer, "shape", f"{name}.")
    fits = kernel.shape[0] == below.output_size and bias.shape == (N,) and N > 0
    if not fits or units not in (N, None):
        raise ValueError(
            f"{name}: its arrays are {kernel.shape}, {bias.shape}, which is no linear layer of "
            f"{units or N} over {below.output_size}"
        )
    return Head(np.ascontiguousarray(kernel.T), bias.astype(np.float32))


def _last(document: Object, name: str, where: str) -> int | None:
    """Return the last number of a shape, or None where there is none."""
    if name not in document:
        return None
    shape = entry(document, name, list, where)
    if not shape or type(shape[-1]) is not int:
        raise ValueError(f"{where}{name}: expected a list that ends in a size")
    last: int = shape[-1]
    return last


def _is_set(document: Object, name: str) -> bool:
    """Tell whether a number or a flag is not 0; ValueError if it is something else."""
    value = document.get(name, 0)
    if type(value) not in (int, float, bool):
        raise ValueError(f"{name}: expected a number")
    return bool(value)


def read_state_dict(document: Object) -> Parts:
    """Find the LSTMs among arrays by the names of PyTorch; of GuitarML's files the head, too.

    Raises
    ------
    ValueError
        If it is damaged.
    """
    options = document.get("model_data", {})
    is_guitarml = "state_dict" in document and type(options) is dict
    named = entry(document, "state_dict", dict) if "state_dict" in document else document
    arrays: Arrays = {}
    others: list[Other] = []
    for name, value in named.items():
        array = _array(name, value)
        if array is None:
            others.append(Other(quoted(name), "no array"))
        else:
            arrays[name] = array
    found: Sequence[Found]
    rest: Sequence[Other]
    found, refused, rest = find_layers(arrays, None)
    if is_guitarml and options.get("model") == "SimpleRNN" and len(found) == 1:
        found, rest = _with_head(found[0], arrays, _is_set(options, "skip"), rest)
    return found, refused, (*rest, *others)


def _array(name: str, value: Any) -> Floats | None:
    """Return a list of numbers, or of such lists, as an array; None for anything else."""
    if type(value) is not list or not value:
        return None
    if type(value[0]) is not list:
        return vector(value, quoted(name))
    if any(type(row) is list and row and type(row[0]) is list for row in value):
        return None  # of more axes than an LSTM's have
    return matrix(value, quoted(name))


def _with_head(
    found: Found, arrays: Arrays, skip: bool, others: Sequence[Other]
) -> tuple[tuple[Found], Sequence[Other]]:
    """Return the LSTM with the linear layer that such models have on top."""
    weight, bias = arrays.get("lin.weight"), arrays.get("lin.bias")
    if weight is None or weight.ndim != 2 or weight.shape[1] != found.width:
        return (found,), others
    bias = np.zeros(len(weight), np.float32) if bias is None else bias
    if bias.shape != weight.shape[:1]:
        return (found,), others
    if skip:
        return (_assuming(found, [_SKIP.format("skip")]),), others
    rest = [other for other in others if not other.name.startswith("lin.")]
    return (replace(found, head=Head(weight, bias)),), rest
