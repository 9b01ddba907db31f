"""The nodes of the ONNX graph that computes what a layer does.

They are a function of a few options: so a graph that has just these nodes was made here, and means
what its metadata says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fastlstm._spec import DEFAULTS
from fastlstm.variants import ACTIVATION_OPTIONS
from fastlstm.weights.onnx.graph import Proto

#: ONNX's operator for each activation, and if it takes them the alpha and beta that it must have.
ACTIVATIONS: dict[str, tuple[str, tuple[float, float] | None]] = {
    "sigmoid": ("Sigmoid", None),
    "tanh": ("Tanh", None),
    "relu": ("Relu", None),
    "hard_sigmoid": ("HardSigmoid", (0.2, 0.5)),
    "identity": ("Affine", (1.0, 0.0)),
}


#: The operator of 8 bits, ONNX Runtime's own, and the inputs that it has besides LSTM's.
QUANTIZED, DOMAIN = "DynamicQuantizeLSTM", "com.microsoft"
SCALES = ("W_scale", "W_zero_point", "R_scale", "R_zero_point")

#: How the tensors (I,) are named by which x of a quantised layer is multiplied first.
MULTIPLIERS = "x_multipliers"


class Plan(NamedTuple):
    """What decides about the nodes of a graph."""

    hidden_size: int
    num_layers: int
    bidirectional: bool
    bias: bool
    peepholes: bool
    coupled_gates: bool
    activations: tuple[str, ...]
    clip: float | None
    reverse: bool
    batch_first: bool
    merge_mode: str | None
    return_sequences: bool
    has_head: bool
    has_state: bool
    is_quantized: bool
    multiplied: tuple[int, ...]

    @classmethod
    def of(
        cls,
        options: Mapping[str, Any],
        bidirectional: bool,
        head: bool,
        state: bool,
        quantized: bool = False,
        multiplied: Sequence[int] = (),
    ) -> Plan:
        """Return the plan of a layer with these options; those at their default may be missing.

        `multiplied` are the numbers of the layers whose input is multiplied first.
        """
        told = {**DEFAULTS, **options}
        return cls(
            activations=tuple(told[name] for name in ACTIVATION_OPTIONS),
            bidirectional=bidirectional,
            has_head=head,
            has_state=state,
            is_quantized=quantized,
            multiplied=tuple(multiplied),
            **{name: told[name] for name in told.keys() & cls._fields},
        )


def nodes_of(plan: Plan) -> Iterator[Proto]:
    """Yield the nodes of the graph, in order."""
    from onnx.helper import make_node

    steps, last = "x", plan.num_layers - 1
    if plan.batch_first:
        steps = "x_steps"
        yield make_node("Transpose", ["x"], [steps], perm=[1, 0, 2])
    yield from _initial_states(plan, steps)
    for layer in range(plan.num_layers):
        end = f"_l{layer}"
        if layer in plan.multiplied:
            yield make_node("Mul", [steps, f"{MULTIPLIERS}{end}"], [f"x_scaled{end}"])
            steps = f"x_scaled{end}"
        inputs = [steps, f"W{end}", f"R{end}", f"B{end}" if plan.bias else "", ""]
        inputs += [f"{name}{end}" if last or plan.has_state else name for name in ("h_0", "c_0")]
        if plan.is_quantized:
            inputs.append(f"P{end}" if plan.peepholes else "")
            inputs += [f"{name}{end}" for name in SCALES]
        else:
            inputs += [f"P{end}"] * plan.peepholes
        outputs = [f"Y{end}" if layer < last or plan.return_sequences else ""]
        outputs += [f"h_n{end}", f"c_n{end}"] if last else ["h_n", "c_n"]
        name = f"lstm{end}" if last else "lstm"
        if plan.is_quantized:
            yield make_node(QUANTIZED, inputs, outputs, name, domain=DOMAIN, **_cell(plan))
        else:
            yield make_node("LSTM", inputs, outputs, name, **_cell(plan))
        if layer < last:
            steps = f"y{end}"
            yield from _side_by_side(plan, f"Y{end}", steps, 1)
    for name in ("h_n", "c_n") if last else ():
        parts = [f"{name}_l{layer}" for layer in range(plan.num_layers)]
        yield make_node("Concat", parts, [name], axis=0)
    yield from _results(plan)
    if plan.has_head:
        yield make_node("MatMul", ["y", "head.weight"], ["y_weighted"])
        yield make_node("Add", ["y_weighted", "head.bias"], ["out"])


def _cell(plan: Plan) -> dict[str, Any]:
    """Attributes of the nodes LSTM."""
    one = "reverse" if plan.reverse else "forward"
    attributes: dict[str, Any] = {
        "hidden_size": plan.hidden_size,
        "direction": "bidirectional" if plan.bidirectional else one,
    }
    if plan.activations != tuple(DEFAULTS[name] for name in ACTIVATION_OPTIONS):
        chosen = [ACTIVATIONS[name] for name in plan.activations] * (1 + plan.bidirectional)
        attributes["activations"] = [name for name, _ in chosen]
        if numbers := [each for _, each in chosen if each is not None]:
            attributes["activation_alpha"] = [alpha for alpha, _ in numbers]
            attributes["activation_beta"] = [beta for _, beta in numbers]
    if plan.clip is not None:
        attributes["clip"] = float(np.float32(plan.clip))
    if plan.coupled_gates:
        attributes["input_forget"] = 1
    return attributes


def _initial_states(plan: Plan, steps: str) -> Iterator[Proto]:
    """Yield what makes h_0_l0, c_0_l0, ... (D, B, H) of the inputs, or of the fixed states."""
    from onnx.helper import make_node

    last = plan.num_layers - 1
    if plan.has_state:
        yield make_node("Shape", [steps], ["batch"], start=1, end=2)
        yield _integers("one", [1])
        yield make_node("Concat", ["one", "batch", "one"], ["state_shape"], axis=0)
    elif last:
        yield _integers("state_sizes", [1 + plan.bidirectional] * plan.num_layers)
    for name in ("h_0", "c_0"):
        layers = [f"{name}_l{layer}" for layer in range(plan.num_layers)]
        if plan.has_state:
            for layer in layers:
                yield make_node("Expand", [f"state.{layer}", "state_shape"], [layer])
        elif last:
            yield make_node("Split", [name, "state_sizes"], layers, axis=0)


def _side_by_side(plan: Plan, source: str, result: str, axis: int) -> Iterator[Proto]:
    """Yield what makes (..., B, D*H) of both directions, (..., D, B, H) with D on that axis."""
    from onnx.helper import make_node

    if not plan.bidirectional:
        yield _integers(f"{result}_axis", [axis])
        yield make_node("Squeeze", [source, f"{result}_axis"], [result])
        return
    order = [*range(axis), axis + 1, axis, axis + 2]
    yield make_node("Transpose", [source], [f"{result}_apart"], perm=order)
    yield _integers(f"{result}_shape", [0] * (axis + 1) + [-1])
    yield make_node("Reshape", [f"{result}_apart", f"{result}_shape"], [result])


def _results(plan: Plan) -> Iterator[Proto]:
    """Yield what makes y, or y_forward and y_reverse, of the last layer's results."""
    from onnx.helper import make_node

    last = plan.num_layers - 1
    ends = f"h_n_l{last}" if last else "h_n"
    source, axis = (f"Y_l{last}", 1) if plan.return_sequences else (ends, 0)
    turned = plan.batch_first and plan.return_sequences
    names = ["y"] if plan.merge_mode is not None else ["y_forward", "y_reverse"]
    made = [f"{name}_steps" for name in names] if turned else names
    if plan.merge_mode == "concat":
        yield from _side_by_side(plan, source, made[0], axis)
    else:
        parts = made if plan.merge_mode is None else ["forward", "reverse"]
        yield _integers("one_each", [1, 1])
        yield _integers("direction_axis", [axis])
        slices = [f"{part}_slice" for part in parts]
        yield make_node("Split", [source, "one_each"], slices, axis=axis)
        for part, slice_ in zip(parts, slices, strict=True):
            yield make_node("Squeeze", [slice_, "direction_axis"], [part])
        if plan.merge_mode == "product":
            yield make_node("Mul", parts, made)
        elif plan.merge_mode == "sum":
            yield make_node("Add", parts, made)
        elif plan.merge_mode == "mean":
            yield make_node("Mean", parts, made)
    if turned:
        for steps, name in zip(made, names, strict=True):
            yield make_node("Transpose", [steps], [name], perm=[1, 0, 2])


def _integers(name: str, numbers: Sequence[int]) -> Proto:
    """Return a node Constant; an initialiser could be another without the nodes showing it."""
    from onnx.helper import make_node

    return make_node("Constant", [], [name], value_ints=list(numbers))
