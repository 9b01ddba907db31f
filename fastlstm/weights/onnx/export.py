"""Layers as ONNX models of standard operators, which any runtime can run.

A stack becomes one LSTM node a layer, with the nodes between them that PyTorch's exporter writes; a
layer of 8 bits nodes of ONNX Runtime's DynamicQuantizeLSTM, with a scale for each row of weights.
What LSTM nodes can't say, such as that y is the sum of both directions, stands in the model's
metadata as JSON; a reader believes it where the graph is the one that it makes.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastlstm._extras import import_for
from fastlstm._gates import COUPLED_ORDER, ORDER, as_order
from fastlstm._layer import LSTMBase
from fastlstm._merge import MERGE_MODES
from fastlstm._quantized import Digits, Quantized, QuantizedDirection
from fastlstm._spec import DEFAULTS, chosen
from fastlstm._version import __version__
from fastlstm.variants import Rates
from fastlstm.weights.architectures import CLASSES
from fastlstm.weights.contents import Found, Head, Trained
from fastlstm.weights.onnx.constants import Constants, NotConstantError
from fastlstm.weights.onnx.graph import Proto, text
from fastlstm.weights.onnx.node import GATES
from fastlstm.weights.onnx.plan import DOMAIN, MULTIPLIERS, QUANTIZED, Plan, nodes_of

#: Operators and file format of ONNX 1.12 (2022), which ONNX Runtime has since 1.12.
OPSET, IR_VERSION = 17, 8

#: Under which the options lie in the metadata, their version, and how long the text may be.
KEY, VERSION, LONGEST = "fastlstm", 1, 10_000

#: Version of the metadata of layers of 8 bits, whose nodes are others.
QUANTIZED_VERSION = 2

#: What protobuf can hold, without the names and nodes.
LARGEST = 2**31 - 2**24

#: Options of which a node LSTM has nothing.
_IMPOSSIBLE = ("proj_size", "layer_norm", "cell_clip", "zoneout_h", "zoneout_c")


def write(trained: Trained, path: Path) -> None:
    """Write a layer as an ONNX model; equal layers make equal files.

    Raises
    ------
    ImportError
        If the package ``onnx`` is not installed.
    ValueError
        As `to_onnx`.
    """
    model = _model("writing .onnx", trained)
    path.write_bytes(model.SerializeToString(deterministic=True))


def to_onnx(
    layer: LSTMBase,
    *,
    head: Head | None = None,
    state: tuple[NDArray[Any], NDArray[Any]] | None = None,
) -> Proto:
    """Return a layer as an ``onnx.ModelProto``; one of 8 bits for ONNX Runtime alone.

    Its inputs and outputs are those of a call: x (T, B, I), or (B, T, I) with ``batch_first``, h_0
    and c_0 (L*D, B, H); y, h_n and c_n, or with ``merge_mode=None`` y_forward, y_reverse, h_n and
    c_n. T and B are free.

    Parameters
    ----------
    layer : LSTM or BiLSTM
    head : Head, optional
        A linear layer on y, whose result is one more output, ``out``.
    state : (h_0, c_0), optional
        An initial state (L*D, H) that takes the place of the inputs.

    Raises
    ------
    ImportError
        If the package ``onnx`` is not installed.
    ValueError
        If ONNX's LSTM lacks an option of the layer; the message names it. If the layer is one of 16
        or 24 bits, the head or the state doesn't fit, or there are more than 2 GiB of parameters.

    Warns
    -----
    UserWarning
        If input weights of a layer of 8 bits stay in float32 there, and are quantised for the file.
    """
    return _model("to_onnx", Trained.checked(layer, head, state))


def _model(what: str, trained: Trained) -> Proto:
    onnx = import_for(what, "onnx", "onnx")
    layer, head, state, _ = trained
    options = layer.options
    unusual = chosen(options)
    for name in _IMPOSSIBLE:
        if name in unusual:
            raise ValueError(f"{name}: {options[name]!r} can't be saved as ONNX")
    if layer.bits not in (None, 8):
        raise ValueError(
            f"layer: its {layer.bits} bits can't be saved as ONNX, whose {QUANTIZED} has 8"
        )
    if layer.parameters.nbytes > LARGEST:
        raise ValueError("the layer has more than 2 GiB of parameters, the most of an ONNX file")
    bidirectional = layer.num_directions == 2
    multipliers = _multipliers(layer)
    plan = Plan.of(
        options,
        bidirectional,
        head is not None,
        state is not None,
        layer.bits is not None,
        tuple(multipliers),
    )
    graph = onnx.helper.make_graph(
        list(nodes_of(plan)),
        "fastlstm",
        _values(layer, _inputs(layer, plan)),
        _values(layer, _outputs(layer, plan, 0 if head is None else len(head.bias))),
        [
            onnx.numpy_helper.from_array(np.ascontiguousarray(array), name)
            for name, array in chain(
                _tensors(layer, plan, head, state),
                ((f"{MULTIPLIERS}_l{number}", array) for number, array in multipliers.items()),
            )
        ],
    )
    model = onnx.helper.make_model(
        graph,
        producer_name="fastlstm",
        producer_version=__version__,
        ir_version=IR_VERSION,
        opset_imports=[
            onnx.helper.make_opsetid("", OPSET),
            *([onnx.helper.make_opsetid(DOMAIN, 1)] if plan.is_quantized else []),
        ],
    )
    said = {key: value for key, value in options.items() if key not in Rates._fields}
    version = QUANTIZED_VERSION if plan.is_quantized else VERSION
    metadata = {"class": CLASSES[layer.num_directions], "options": said, "version": version}
    onnx.helper.set_model_props(model, {KEY: json.dumps(metadata, sort_keys=True)})
    return model


Shape: TypeAlias = tuple[int | str, ...]


def _inputs(layer: LSTMBase, plan: Plan) -> dict[str, Shape]:
    rows = layer.num_layers * layer.num_directions
    shapes: dict[str, Shape] = {"x": (*_steps(plan), layer.input_size)}
    if not plan.has_state:
        shapes |= dict.fromkeys(("h_0", "c_0"), (rows, "B", plan.hidden_size))
    return shapes


def _outputs(layer: LSTMBase, plan: Plan, head_size: int) -> dict[str, Shape]:
    rows, H = layer.num_layers * layer.num_directions, plan.hidden_size
    width = H * layer.num_directions if plan.merge_mode == "concat" else H
    outer: Shape = _steps(plan) if plan.return_sequences else ("B",)
    names = ["y"] if plan.merge_mode is not None else ["y_forward", "y_reverse"]
    shapes: dict[str, Shape] = dict.fromkeys(names, (*outer, width))
    shapes |= dict.fromkeys(("h_n", "c_n"), (rows, "B", H))
    if plan.has_head:
        shapes["out"] = (*outer, head_size)
    return shapes


def _steps(plan: Plan) -> tuple[str, str]:
    return ("B", "T") if plan.batch_first else ("T", "B")


def _values(layer: LSTMBase, shapes: dict[str, Shape]) -> list[Proto]:
    from onnx.helper import make_tensor_value_info, np_dtype_to_tensor_dtype

    number = np_dtype_to_tensor_dtype(layer.dtype)
    return [make_tensor_value_info(name, number, shape) for name, shape in shapes.items()]


def _tensors(
    layer: LSTMBase,
    plan: Plan,
    head: Head | None,
    state: tuple[NDArray[Any], NDArray[Any]] | None,
) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield the initialisers by name."""
    parameters = layer.state_dict()
    arrays = {"B": ["bias_ih", "bias_hh"] * plan.bias}
    if layer._quantized is None:
        arrays |= {"W": ["weight_ih"], "R": ["weight_hh"]}
    else:
        yield from _integers(layer, layer._quantized, plan, parameters)
    for number in range(plan.num_layers):
        ends = [f"_l{number}", f"_l{number}_reverse"][: layer.num_directions]
        for name, keys in arrays.items():
            of_directions = [
                [_in_order(parameters[key + end], plan.coupled_gates) for key in keys]
                for end in ends
            ]
            if keys:
                yield f"{name}_l{number}", np.stack([np.concatenate(d) for d in of_directions])
        if plan.peepholes:
            zeros = np.zeros(plan.hidden_size, layer.dtype)
            of_gates = [[parameters.get(f"weight_c{g}{end}", zeros) for g in "iof"] for end in ends]
            yield f"P_l{number}", np.stack([np.concatenate(each) for each in of_gates])
    if state is not None:
        for name, array in zip(("h_0", "c_0"), state, strict=True):
            for number, rows in enumerate(np.split(array, plan.num_layers)):
                yield f"state.{name}_l{number}", rows[:, np.newaxis]
    if head is not None:
        yield "head.weight", head.weight.T
        yield "head.bias", head.bias


def _integers(
    layer: LSTMBase, quantized: Quantized, plan: Plan, parameters: dict[str, NDArray[Any]]
) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield the weights of a layer of 8 bits: W (D, I, 4H), R (D, H, 4H), scales and zeros."""
    D = layer.num_directions
    for number in range(plan.num_layers):
        parts = quantized.directions[number * D : (number + 1) * D]
        ends = (f"_l{number}", f"_l{number}_reverse")[:D]
        of_input = [part.w for part in parts if part.w is not None]
        if len(of_input) < D or (number not in plan.multiplied and _has_multipliers(parts)):
            warnings.warn(
                f"weight_ih_l{number}: in float32, or with factors of its own in each direction, "
                "which ONNX has not: it is quantised anew",
                stacklevel=2,
            )
            of_input = [_in_8_bits(parameters[f"weight_ih{end}"]) for end in ends]
        for name, matrices in (("W", of_input), ("R", [part.u for part in parts])):
            digits = [_in_order(each.digits[0], plan.coupled_gates).T for each in matrices]
            yield f"{name}_l{number}", np.stack(digits)
            units = [_in_order(each.units, plan.coupled_gates) for each in matrices]
            yield f"{name}_scale_l{number}", np.stack(units)
            yield f"{name}_zero_point_l{number}", np.zeros(np.shape(units), np.int8)


def _in_8_bits(rows: NDArray[Any]) -> Digits:
    from fastlstm.reference.digits import quantize_weights

    return Digits(*quantize_weights(rows, 8))


def _has_multipliers(parts: Sequence[QuantizedDirection]) -> bool:
    return any(part.x_multipliers is not None for part in parts)


def _multipliers(layer: LSTMBase) -> dict[int, NDArray[np.float32]]:
    """Return by what x of layers is multiplied first, (I,): where directions have the same."""
    if layer._quantized is None:
        return {}
    rows = [part.x_multipliers for part in layer._quantized.directions]
    D = layer.num_directions
    firsts = {number: row for number, row in enumerate(rows[::D]) if row is not None}
    return {
        number: first
        for number, first in firsts.items()
        if all(row is not None and (row == first).all() for row in rows[number * D :][:D])
    }


def _in_order(rows: NDArray[Any], coupled: bool) -> NDArray[Any]:
    """Return an array of gates in ONNX's order, which has an unused f where gates are coupled."""
    there = COUPLED_ORDER if coupled else ORDER
    gates = dict(zip(there, np.split(rows, len(there)), strict=True))
    zeros = np.zeros_like(gates["i"])
    return np.concatenate([gates.get(gate, zeros) for gate in as_order("order", GATES)])


def read_metadata(model: Proto, layers: Sequence[Found], constants: Constants) -> list[Found]:
    """Complete the one layer of a model with what its metadata say, if its graph bears that out."""
    entries = [each.value for each in model.metadata_props if text(each.key) == KEY]
    if not entries or len(layers) != 1:
        return list(layers)
    (found,) = layers
    graph = model.graph
    has_head = any(each.name == "head.weight" for each in graph.initializer)
    has_state = all(each.name != "h_0" for each in graph.input)
    try:
        options = {**found.options, **_claims(text(entries[0]), found)}
        plan = Plan.of(
            options,
            found.bidirectional,
            has_head,
            has_state,
            found.quantized is not None,
            tuple(_multiplied(found)),
        )
        if list(graph.node) != list(nodes_of(plan)):
            raise ValueError("the graph is another one")
        head = _head(graph, constants) if has_head else None
    except ValueError as error:
        note = f"what fastlstm wrote of its options into the file is not used: {error}"
        return [replace(found, notes=(*found.notes, note))]
    return [replace(found, options=options, head=head)]


def _multiplied(found: Found) -> Iterator[int]:
    """Yield the layers of a stack whose input is multiplied first."""
    if found.quantized is not None:
        for row, part in enumerate(found.quantized.directions[:: found.num_directions]):
            if part.x_multipliers is not None:
                yield row


def _claims(said: str, found: Found) -> dict[str, Any]:
    """Return the options of which LSTM nodes say nothing, where they differ from the usual."""
    if len(said) > LONGEST:
        raise ValueError(f"it takes {len(said)} characters")
    try:
        described = json.loads(said)
        version, options = described["version"], described["options"]
        batch_first, sequences = options["batch_first"], options["return_sequences"]
        merge_mode, clip = options.get("merge_mode", DEFAULTS["merge_mode"]), options["clip"]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError("it is damaged") from error
    expected = VERSION if found.quantized is None else QUANTIZED_VERSION
    if version != expected:
        raise ValueError(f"it is of version {version!r:.20}, not {expected}")
    claims: dict[str, Any] = {}
    if batch_first is True:
        claims["batch_first"] = True
    if sequences is False:
        claims["return_sequences"] = False
    if found.bidirectional and merge_mode in MERGE_MODES[1:]:
        claims["merge_mode"] = merge_mode
    # An attribute is a float32; the clip of a layer in float64 need not be one.
    if isinstance(clip, float) and np.float32(clip) == found.option("clip"):
        claims["clip"] = clip
    return claims


def _head(graph: Proto, constants: Constants) -> Head:
    """Read the linear layer on y, (N, D*H) and (N,)."""
    tensors = {each.name: each for each in graph.initializer if text(each.name).startswith("head.")}
    try:
        weight, bias = (constants.tensor(tensors[name]) for name in ("head.weight", "head.bias"))
    except (NotConstantError, LookupError) as error:
        raise ValueError(f"its head is damaged: {error}") from error
    if weight.ndim != 2 or bias.shape != weight.shape[1:]:
        raise ValueError(f"its head has shapes {weight.shape} and {bias.shape}")
    return Head(weight.T, bias)
