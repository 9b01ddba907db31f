"""LSTMs out of the layers that the configuration of a Keras model lists, and their arrays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastlstm._gates import ORDER, to_rows
from fastlstm._spec import chosen
from fastlstm.weights.contents import Arrays, Found, Head, Other, Refused
from fastlstm.weights.keras.config import Layer
from fastlstm.weights.keras.hdf5 import Hdf5
from fastlstm.weights.keras.options import (
    Recurrent,
    UnsupportedError,
    default_gates,
    kind_of,
    recurrent_of,
)
from fastlstm.weights.keras.places import Places, Unnamed, places_in
from fastlstm.weights.stacks import stacked

#: What may lie between the layers of a stack, or under a head: copies its input when not training.
_TRANSPARENT = ("Dropout", "SpatialDropout1D", "Masking")

DTYPES = ("<f2", "<f4", "<f8", "bfloat16")

_ALONE = "the file has no configuration that can be read"
_UNTOLD = "the model's configuration does not tell of it"
_DISTRIBUTED = (
    "TimeDistributed runs it on each slice of its input as a sequence of its own: give calls the "
    "slices as a batch"
)
_MASKED = "Keras skips masked steps (Masking, or Embedding with mask_zero): give calls the lengths"
_HANDED = "the model hands it an initial state: give calls one"

#: What the layers of a stack may differ in.
_OF_EACH = ("input_size", "return_sequences", "merge_mode")

Parts = tuple[list[Found], list[Refused], list[Other]]


def find_configured(file: Hdf5, layers: Sequence[Layer], version: str | None) -> Parts:
    """Find the LSTMs of a model, those that feed each other as stacks.

    Parameters
    ----------
    file : Hdf5
    layers : sequence of Layer
        All of the model.
    version : str or None
        Of the Keras that wrote it.

    Returns
    -------
    found, refused, others : lists
        The layers are stacks where each one's whole output is the next one's only input, but for
        dropout, and sizes and options agree; a linear Dense layer on top is the head.
    """
    places = places_in(file)
    found: dict[Layer, Found] = {}
    refused, names, used_arrays = [], set(), set()
    for layer in layers:
        kind = kind_of(layer)
        if kind is None:
            continue
        try:
            if layer.name in names:
                raise UnsupportedError("another layer has its name")
            names.add(layer.name)
            used_arrays.update(places.all_of(layer))
            found[layer] = _with_notes(found_of(file, places, layer, kind, version), layer)
        except UnsupportedError as error:
            refused.append(Refused(layer.name, kind, str(error)))
    heads, used = {}, set()
    for below, layer, head in _heads(file, places, layers, found):
        heads[below] = head
        used.add(layer)
    stacks = []
    for stack in _stacks(found):
        parts = [found[layer] for layer in stack]
        whole = stacked(parts) if len(parts) > 1 else parts[0]
        if stack[0].cell == (0, len(stack)):  # all cells of an RNN, and nothing else
            name = "/".join(stack[0].names[:-1])
            whole = replace(whole, name=name, parts=tuple(parts[: len(whole.parts)]))
        stacks.append(replace(whole, head=heads.get(stack[-1])))
    others = [
        Other(layer.name, layer.class_name)
        for layer in layers
        if kind_of(layer) is None and layer not in used
    ]
    # Those inside layers of a class of one's own, of which the configuration says nothing.
    inside, problems = _by_shapes(file, places, version, used_arrays, names, _UNTOLD)
    return [*stacks, *inside], [*refused, *problems], others


def found_of(file: Hdf5, places: Places, layer: Layer, kind: str, version: str | None) -> Found:
    """Return the LSTM that a layer is.

    Raises
    ------
    UnsupportedError
        If it can't be run here.
    """
    recurrent = recurrent_of(layer, kind, version)
    return _found(file, layer.name, recurrent, places.of(layer, recurrent.bidirectional))


def find_unconfigured(file: Hdf5, version: str | None) -> Parts:
    """Find what looks like an LSTM by the shapes of its arrays, for want of a configuration."""
    used: set[str] = set()
    found, refused = _by_shapes(file, places_in(file), version, used, set(), _ALONE)
    others = [
        Other(name, stored.problem or f"{stored.dtype} {stored.shape}")
        for name, stored in file.arrays.items()
        if name not in used
    ]
    return found, refused, others


def _by_shapes(
    file: Hdf5,
    places: Places,
    version: str | None,
    used: set[str],
    names: set[str],
    why: str,
) -> tuple[list[Found], list[Refused]]:
    """Find LSTMs without a configuration among the arrays that are not used, which they then are.

    Parameters
    ----------
    used, names : set of str
        Of the arrays, and of the LSTMs that there are; to both are added.
    why : str
        There is no configuration.
    """
    cells_of: dict[str, list[Found]] = {}
    refused = []
    for number, unnamed in enumerate(places.unnamed()):
        first = unnamed.directions[0]
        if not used.isdisjoint(first):
            continue
        name = unnamed.name if unnamed.name not in names else first[0]
        if name in names:
            continue  # the same arrays once more
        names.add(name)
        used.update(*unnamed.directions)
        kind = "Keras Bidirectional(LSTM)" if len(unnamed.directions) == 2 else "Keras LSTM"
        kind = "Keras LSTMCell" if unnamed.is_cell or unnamed.of else kind
        try:
            if unnamed.problem:
                raise UnsupportedError(unnamed.problem)
            recurrent = _usual(file, unnamed, kind, version or places.since, why)
            found = _found(file, name, recurrent, unnamed.directions)
            found = replace(found, is_guess=unnamed.is_cell)
        except UnsupportedError as error:
            refused.append(Refused(name, kind, str(error)))
        else:
            cells_of.setdefault(unnamed.of or f"{number}", []).append(found)
    stacks = []
    for rnn, cells in cells_of.items():
        whole = len(cells) > 1 and all(map(_is_stack, cells, cells[1:]))
        if whole:
            stacks.append(replace(stacked(cells), name=rnn, parts=tuple(cells)))
        else:
            stacks += cells
    unclear = [
        Refused(
            group, "arrays of an LSTM's shapes", "at a place where Keras keeps those of no LSTM"
        )
        for group in _triples(file, used)
    ]
    return stacks, [*refused, *unclear]


def _usual(file: Hdf5, unnamed: Unnamed, kind: str, version: str | None, why: str) -> Recurrent:
    """Return an LSTM as the Keras that wrote the file makes it where nothing else is asked for."""
    first, both = unnamed.directions[0], len(unnamed.directions) == 2
    units, bias = file.arrays[first[1]].shape[0], len(first) == 3
    gates, doubt = default_gates(version, bias and file.arrays[first[2]].shape == (8 * units,))
    known = f"{gates} gates ({doubt or f'as Keras {version} has by default'})"
    assumption = (
        f"{why}; assumed are {known}, tanh, "
        f"{'directions merged by concat' if both else 'a forward direction'}, and "
        "return_sequences=True"
    )
    notes = [assumption]
    if unnamed.is_cell:
        notes.append("a cell by itself, whose steps the model's own code may take otherwise")
    options: dict[str, Any] = {"batch_first": True, "gate_activation": gates, "bias": bias}
    return Recurrent(kind, units, bias, both, chosen(options), tuple(notes), tuple(notes))


def _triples(file: Hdf5, used: set[str]) -> list[str]:
    """Return the groups of arrays that are none of an LSTM's so far, but have the shapes of one."""
    groups: dict[str, list[tuple[int, ...]]] = {}
    known = {name.replace("\\", "/") for name in used}  # of which Windows made another spelling
    for name, stored in file.arrays.items():
        if name.replace("\\", "/") not in known and stored.problem is None:
            groups.setdefault(name.rpartition("/")[0], []).append(stored.shape)
    return [group for group, shapes in groups.items() if _has_triple(shapes)]


def _has_triple(shapes: list[tuple[int, ...]]) -> bool:
    """Whether there are (I, 4H), (H, 4H) and (4H,) among shapes."""
    rows = Counter(shape[1] for shape in shapes if len(shape) == 2)
    known = set(shapes)
    return any(
        H > 0 and columns == 4 * H and rows[columns] > 1 and (columns,) in known
        for H, columns in (shape for shape in shapes if len(shape) == 2)
    )


def _with_notes(found: Found, layer: Layer) -> Found:
    """Add what the layers before it mean for its calls."""
    below, passed = _source(layer)
    notes = []
    embedded = below is not None and below.config.get("mask_zero") is True
    if embedded or any(each.class_name == "Masking" for each in passed):
        notes.append(_MASKED)
    if layer.inputs > 1:
        notes.append(_HANDED)
    if layer.distributed:
        notes.append(_DISTRIBUTED)
    return replace(found, notes=(*found.notes, *notes))


def _source(layer: Layer) -> tuple[Layer | None, list[Layer]]:
    """Return the layer that feeds another, and those between the two."""
    passed = []
    below = layer.source
    while below is not None and below.class_name in _TRANSPARENT:
        passed.append(below)
        below = below.source
    return below, passed


def _stacks(found: Mapping[Layer, Found]) -> list[list[Layer]]:
    """Return the layers of each stack, in the order of the first ones."""
    stack_of: dict[Layer, list[Layer]] = {}
    stacks = []
    for layer, above in found.items():
        below, _ = _source(layer)
        stack = stack_of.get(below) if below else None
        in_rnn = layer.cell is not None and layer.cell[0] > 0
        if below is None or stack is None or not _is_stack(found[below], above, in_rnn):
            stack = []
            stacks.append(stack)
        stack.append(layer)
        stack_of[layer] = stack
    return stacks


def _is_stack(below: Found, above: Found, in_rnn: bool = False) -> bool:
    """Whether one LSTM of several layers can be made of two, one on the other.

    Cells that one RNN runs take their steps in its order. A layer that goes backwards gives its
    steps to the next one in the order of processing.
    """
    options = [
        {name: value for name, value in found.options.items() if name not in _OF_EACH}
        for found in (below, above)
    ]
    hands_on_all = (
        below.option("return_sequences")
        and below.option("merge_mode") == "concat"
        and (in_rnn or not below.option("reverse"))
    )
    return (
        hands_on_all
        and options[0] == options[1]
        and below.kind == above.kind
        and below.stored_dtype == above.stored_dtype
        and above.option("input_size") == below.width
    )


def _heads(
    file: Hdf5, places: Places, layers: Sequence[Layer], found: Mapping[Layer, Found]
) -> Iterator[tuple[Layer, Layer, Head]]:
    """Yield LSTMs whose output goes into a linear layer and nothing else, with that layer."""
    for layer in layers:
        below, _ = _source(layer)
        if below is None or below not in found:
            continue
        if found[below].option("merge_mode") is None:
            continue
        names = places.of_dense(layer) if _is_linear(layer) else []
        stored = [file.arrays[name] for name in names]
        if any(each.problem or each.dtype not in DTYPES for each in stored):
            continue
        shapes = [each.shape for each in stored]
        N = shapes[0][-1] if shapes and shapes[0] else 0
        width = found[below].width
        if shapes not in ([(width, N)], [(width, N), (N,)]):
            continue
        kernel, *biases = file.read(names)
        bias = biases[0] if biases else np.zeros(N, kernel.dtype)
        yield below, layer, Head(np.ascontiguousarray(kernel.T), bias)


def _is_linear(layer: Layer) -> bool:
    """Whether it is a Dense layer without activation, by itself or for each step."""
    class_name, config = layer.class_name, layer.config
    if class_name == "TimeDistributed" and isinstance(config.get("layer"), dict):
        class_name, config = config["layer"].get("class_name"), config["layer"].get("config")
    return (
        class_name == "Dense"
        and isinstance(config, dict)
        and config.get("activation", "linear") in ("linear", None)
    )


def _found(file: Hdf5, name: str, recurrent: Recurrent, directions: list[list[str]]) -> Found:
    """Return an LSTM with its arrays.

    Raises
    ------
    UnsupportedError
        If the arrays are not those of such an LSTM.
    """
    arrays: Arrays = {}
    for suffix, names in zip(("_l0", "_l0_reverse"), directions, strict=False):
        for each in names:
            stored = file.arrays[each]
            if stored.problem or stored.dtype not in DTYPES:
                raise UnsupportedError(f"{each}: {stored.problem or f'of dtype {stored.dtype}'}")
        _check_shapes([file.arrays[each].shape for each in names], recurrent)
        for key, array in _parameters(file.read(names)).items():
            arrays[key + suffix] = array
    inputs = {array.shape[1] for key, array in arrays.items() if key.startswith("weight_ih")}
    if len(inputs) > 1 or len({array.dtype for array in arrays.values()}) > 1:
        raise UnsupportedError("its arrays are of several dtypes, or read inputs of several sizes")
    sizes = {"input_size": inputs.pop(), "hidden_size": recurrent.units, "num_layers": 1}
    return Found(
        name,
        recurrent.kind,
        {**sizes, **recurrent.options},
        recurrent.bidirectional,
        arrays,
        order="i f c o",
        notes=tuple(dict.fromkeys([*recurrent.notes, *recurrent.assumptions])),
        assumptions=tuple(dict.fromkeys(recurrent.assumptions)),
    )


def _check_shapes(shapes: list[tuple[int, ...]], recurrent: Recurrent) -> None:
    H = recurrent.units
    kernel, *others = shapes
    biases = [(4 * H,), (8 * H,)] if recurrent.bias else [None]
    expected = [[(H, 4 * H), *([bias] if bias else [])] for bias in biases]
    if len(kernel) != 2 or kernel[0] < 1 or kernel[1] != 4 * H or others not in expected:
        listed = ", ".join(map(str, shapes))
        raise UnsupportedError(f"its arrays are {listed}, which is no LSTM of {H} units")


def _parameters(values: list[NDArray[Any]]) -> Arrays:
    """Return the parameters of one direction by the names of ``state_dict``, without suffix.

    Keras has (I, 4H), (H, 4H) and one bias (4H,). CuDNNLSTM has two biases in one, and each gate's
    weights are (H, I) and (H, H) in memory: ``tensorflow/python/keras/saving/hdf5_format.py``.
    """
    kernel, recurrent, *biases = values
    if biases and len(biases[0]) == 2 * kernel.shape[1]:
        I, H = kernel.shape[0], recurrent.shape[0]
        gates = [gate.reshape(H, I) for gate in np.split(kernel, 4, axis=1)]
        ih, hh = np.split(biases[0], 2)
        return {
            "weight_ih": np.concatenate(gates),
            "weight_hh": np.concatenate(np.split(recurrent, 4, axis=1)),
            "bias_ih": ih,
            "bias_hh": hh,
        }
    arrays = {
        "weight_ih": to_rows(kernel, ORDER, "IGH"),
        "weight_hh": to_rows(recurrent, ORDER, "IGH"),
    }
    for bias in biases:
        arrays.update(bias_ih=bias, bias_hh=np.zeros_like(bias))
    return arrays
