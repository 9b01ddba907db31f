"""What one LSTM node of ONNX is here: its attributes as options, its arrays as parameters.

ONNX (operator LSTM, versions 1 to 22) has the gates in the order i, o, f, c, and arrays
W (D, 4H, I), R (D, 4H, H), B (D, 8H), which is that of W and that of R end to end, and P (D, 3H),
the peepholes of i, o, f. Where its text and ONNX Runtime differ, as in what ``clip`` bounds, this
follows the latter (``docs/reference/variants.md``). ``DynamicQuantizeLSTM`` is an extension of the
latter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from fastlstm._gates import COUPLED_ORDER, ORDER, as_order, to_rows
from fastlstm._quantized import Digits
from fastlstm._spec import as_spec, chosen
from fastlstm.variants import ACTIVATION_OPTIONS
from fastlstm.weights.contents import Arrays, Found
from fastlstm.weights.digits import (
    CLOSE,
    WIDENED,
    check_multipliers,
    digits_or_reason,
    quantized_of,
)
from fastlstm.weights.onnx.folding import Array, steps_of
from fastlstm.weights.onnx.graph import short, text
from fastlstm.weights.onnx.plan import ACTIVATIONS, MULTIPLIERS, SCALES

#: Inputs of an LSTM by position.
INPUTS = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")

_WEIGHTS = ("W", "R", "B", "P", *SCALES)

GATES = "iofc"


class _Made(NamedTuple):
    """What the arrays of a node make: parameters, and digits of matrices or why there are none."""

    input_size: int
    hidden_size: int
    parameters: Arrays
    digits: dict[str, Digits]
    widened: str


#: By the identities of the arrays that it was made of, which stay in use.
Memo: TypeAlias = dict[tuple[Any, ...], tuple[_Made, Arrays]]

#: By name in lower case, as ONNX Runtime compares them: ours, and alpha and beta.
_ACTIVATIONS = {
    operator.lower(): (name, numbers) for name, (operator, numbers) in ACTIVATIONS.items()
}

#: Where a node doesn't tell them: HardSigmoid's own, and for Affine ONNX Runtime takes 0.
_UNTOLD = {"hardsigmoid": (0.2, 0.5), "affine": (0.0, 0.0)}


class UnsupportedError(ValueError):
    """An LSTM that this package can't run; the text says why."""


def options_of(attributes: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
    """Return the options that a node's attributes say, where they differ from the usual, and D.

    Parameters
    ----------
    attributes : mapping
        As ``onnx.helper.get_attribute_value`` has them.

    Raises
    ------
    UnsupportedError
    """
    direction = text(attributes.get("direction", "forward"))
    if direction not in ("forward", "reverse", "bidirectional"):
        raise UnsupportedError(f"direction {short(direction)!r} is unknown")
    D = 2 if direction == "bidirectional" else 1
    options = {
        "reverse": direction == "reverse",
        "batch_first": bool(attributes.get("layout", 0)),
        "coupled_gates": bool(attributes.get("input_forget", 0)),
        **_activations(attributes, D),
    }
    bound = attributes.get("clip", math.inf)
    if not (isinstance(bound, float) and bound > 0):
        raise UnsupportedError(f"clip is {bound!r}, not a positive number")
    if bound < float(np.finfo(np.float32).max):
        options["clip"] = bound
    return chosen(options), D


def _activations(attributes: Mapping[str, Any], D: int) -> dict[str, str]:
    names = attributes.get("activations") or ["Sigmoid", "Tanh", "Tanh"] * D
    if not isinstance(names, list) or len(names) != 3 * D:
        raise UnsupportedError(f"activations: expected {3 * D} names")
    # Each takes the next number of the list, if it is of those that take one, or has a default.
    alphas = iter(_floats(attributes, "activation_alpha"))
    betas = iter(_floats(attributes, "activation_beta"))
    ours_of = []
    for name in map(text, names):
        if name.lower() not in _ACTIVATIONS:
            raise UnsupportedError(f"activation {short(name)!r} is not supported")
        ours, wanted = _ACTIVATIONS[name.lower()]
        if wanted is not None:
            alpha, beta = _UNTOLD[name.lower()]
            numbers = next(alphas, alpha), next(betas, beta)
            if not np.allclose(numbers, wanted, 1e-6, 0):  # they are float32
                raise UnsupportedError(
                    f"activation {name!r} with alpha {numbers[0]:g} and beta {numbers[1]:g} is not "
                    f"supported, only with {wanted[0]:g} and {wanted[1]:g}"
                )
        ours_of.append(ours)
    if ours_of[:3] != ours_of[-3:]:
        raise UnsupportedError("the activations of the two directions differ")
    return dict(zip(ACTIVATION_OPTIONS, ours_of, strict=False))


def _floats(attributes: Mapping[str, Any], name: str) -> list[float]:
    numbers = attributes.get(name, [])
    if not isinstance(numbers, list) or not all(isinstance(number, float) for number in numbers):
        raise UnsupportedError(f"{name} is not a list of numbers")
    return numbers


def describe(
    name: str,
    kind: str,
    attributes: Mapping[str, Any],
    arrays: Mapping[str, Array],
    spend: Callable[[int], None],
    memo: Memo,
) -> Found:
    """Return the layer that a node is.

    Parameters
    ----------
    name, kind : str
        The node's, and "LSTM" or "DynamicQuantizeLSTM".
    attributes : mapping
        As for `options_of`.
    arrays : mapping of str to ndarray
        What its inputs are, as far as known, by the names in `INPUTS` and `SCALES`, and by
        `MULTIPLIERS` what multiplies X before. Without initial states the layer has none.
    spend : callable
        Accounts for the bytes of the arrays that are made.
    memo : dict
        What has been made before: nodes that share their weights, as in two branches, share what
        is made of them.

    Raises
    ------
    UnsupportedError
        If no layer of this package computes the same, or an array doesn't fit.
    """
    options, D = options_of(attributes)
    coupled = "coupled_gates" in options
    weights = {name: arrays[name] for name in _WEIGHTS if name in arrays}
    key = (kind, D, coupled, *((name, id(array)) for name, array in weights.items()))
    if key not in memo:
        memo[key] = _made(kind, weights, D, coupled, spend), weights
    made, _ = memo[key]
    H = made.hidden_size
    options = {"input_size": made.input_size, "hidden_size": H, "num_layers": 1, **options}
    if "B" not in arrays:
        options["bias"] = False
    if "P" in arrays:
        options["peepholes"] = True
    parameters, quantized = made.parameters, None
    multipliers = arrays.get(MULTIPLIERS)
    if multipliers is not None:
        try:
            check_multipliers("factors of X", multipliers, made.input_size)
        except ValueError as error:
            raise UnsupportedError(str(error)) from error
        of_input = {
            name: w * multipliers for name, w in parameters.items() if name.startswith("weight_ih")
        }
        spend(sum(array.nbytes for array in of_input.values()))
        parameters = {**parameters, **of_input}
    if made.digits:
        by_end = {} if multipliers is None else dict.fromkeys(("_l0", "_l0_reverse"), multipliers)
        quantized = quantized_of(as_spec(D, **options), made.digits, parameters, by_end)
    notes = _notes(kind, attributes, options)
    state, note = state_of(arrays, D, H, "batch_first" in options)
    return Found(
        name,
        f"ONNX {kind}",
        options,
        D == 2,
        parameters,
        state=state,
        order=" ".join(GATES),
        notes=(*notes, *note, *([made.widened] if made.widened else [])),
        quantized=quantized,
        widened=made.widened,
    )


def _made(
    kind: str, arrays: Mapping[str, Array], D: int, coupled: bool, spend: Callable[[int], None]
) -> _Made:
    """Make the parameters of a layer, by the names of ``state_dict``."""
    weights = {key: arrays[key] for key in ("W", "R", "B", "P") if key in arrays}
    integers: dict[str, _Integers] = {}
    if kind != "LSTM":
        integers = {key: _integers(key, arrays, D, spend) for key in ("W", "R")}
        weights |= {key: each.values() for key, each in integers.items()}
    for key in ("W", "R"):
        if weights[key].ndim != 3 or 0 in weights[key].shape:
            raise UnsupportedError(
                f"{key} has shape {weights[key].shape[:8]}, expected three sizes, none of them 0"
            )
    I, H = weights["W"].shape[2], weights["R"].shape[2]
    shapes = {"W": (D, 4 * H, I), "R": (D, 4 * H, H), "B": (D, 8 * H), "P": (D, 3 * H)}
    for key, array in weights.items():
        if array.shape != shapes[key]:
            raise UnsupportedError(f"{key} has shape {array.shape[:8]}, expected {shapes[key]}")
    dtypes = {array.dtype for array in weights.values()}
    if len(dtypes) != 1 or min(dtypes).kind != "f":
        listed = ", ".join(f"{key} is {array.dtype}" for key, array in weights.items())
        raise UnsupportedError(f"mixed types, or none of weights: {listed}")
    spend(sum(array.nbytes for array in weights.values()))

    order, wanted = as_order("order", GATES), COUPLED_ORDER if coupled else ORDER
    parameters: Arrays = {}
    for d, end in enumerate(("_l0", "_l0_reverse")[:D]):
        parameters[f"weight_ih{end}"] = to_rows(weights["W"][d], order, gates=wanted)
        parameters[f"weight_hh{end}"] = to_rows(weights["R"][d], order, gates=wanted)
        if "B" in weights:
            of_input, of_hidden = np.split(weights["B"][d], 2)
            parameters[f"bias_ih{end}"] = to_rows(of_input, order, "GH", wanted)
            parameters[f"bias_hh{end}"] = to_rows(of_hidden, order, "GH", wanted)
        if "P" in weights:
            for gate, peephole in zip("iof", np.split(weights["P"][d], 3), strict=True):
                if gate in wanted:
                    parameters[f"weight_c{gate}{end}"] = peephole.copy()
    digits: dict[str, Digits] = {}
    widened = ""
    for key, name in (("W", "weight_ih"), ("R", "weight_hh")) if integers else ():
        for d, end in enumerate(("_l0", "_l0_reverse")[:D]):
            steps, units = integers[key].of_direction(d)
            rows = to_rows(steps, order, gates=wanted), to_rows(units, order, "GH", wanted)
            made = digits_or_reason(key, *rows)
            if isinstance(made, str):
                widened = widened or WIDENED + made
            else:
                digits[f"{name}{end}"] = made
    return _Made(I, H, parameters, {} if widened else digits, widened)


class _Integers(NamedTuple):
    """Weights (D, n, 4H) as `steps`, of `scale` (D, 1, 4H) or (D, 1, 1) each."""

    steps: Array
    scale: Array

    def values(self) -> Array:
        """Return the weights (D, 4H, n), as ONNX has it."""
        with np.errstate(all="ignore"):
            return (self.steps.astype(np.float32) * self.scale).transpose(0, 2, 1)

    def of_direction(self, d: int) -> tuple[Array, Array]:
        """Return the integers (4H, n) of a direction, and what 1 stands for in each row (4H,)."""
        rows = self.steps[d].T
        return rows, np.broadcast_to(self.scale[d, 0], len(rows))


def _integers(
    key: str, arrays: Mapping[str, Array], D: int, spend: Callable[[int], None]
) -> _Integers:
    """Return W (D, I, 4H) or R (D, H, 4H) without the zero points, and the scales."""
    integers, scale = arrays[key], arrays[f"{key}_scale"]
    zero = arrays.get(f"{key}_zero_point")
    if integers.ndim != 3:
        raise UnsupportedError(f"{key} has shape {integers.shape[:8]}, expected {D} x n x 4H")
    shape = (D, 1, integers.shape[2] if scale.ndim == 2 else 1)
    for name, array in ((f"{key}_scale", scale), (f"{key}_zero_point", zero)):
        if array is not None and array.size != math.prod(shape):
            raise UnsupportedError(f"{name} has shape {array.shape[:8]}, expected {D} or {D} x 4H")
    spend(12 * integers.size)
    try:
        steps = steps_of(integers, scale, None if zero is None else zero.reshape(shape))
        np.broadcast_shapes(steps.shape, shape)
    except ValueError as error:
        raise UnsupportedError(f"{key}: {error}") from error
    return _Integers(steps, scale.reshape(shape))


def state_of(
    arrays: Mapping[str, Array], D: int, H: int, batch_first: bool
) -> tuple[tuple[Array, Array] | None, list[str]]:
    """Return the initial state (D, H) that the node has fixed, None if it is 0; and notes."""
    states = []
    for key in ("initial_h", "initial_c"):
        state = arrays.get(key, np.zeros(1, np.float32))
        if state.size == 1:  # the same for all, as many as there are
            state = np.full((D, 1, H), state.ravel()[0])
        elif batch_first and state.ndim == 3:
            state = state.swapaxes(0, 1)
        if state.ndim != 3 or state.shape[::2] != (D, H) or state.dtype.kind != "f":
            raise UnsupportedError(f"{key} has shape {state.shape[:8]} of {state.dtype}")
        if not state.any():
            states.append(np.zeros((D, H), state.dtype))
        elif (state != state[:, :1]).any():
            return None, [f"{key}, another one for each of {state.shape[1]} sequences, is left out"]
        else:
            states.append(state[:, 0])
    return ((states[0], states[1]) if any(state.any() for state in states) else None), []


def _notes(kind: str, attributes: Mapping[str, Any], options: Mapping[str, Any]) -> list[str]:
    notes = []
    H = options["hidden_size"]
    said = attributes.get("hidden_size", H)
    if isinstance(said, int) and said != H:
        notes.append(f"its attribute hidden_size is {said}, its arrays are of {H} units")
    if kind != "LSTM":
        notes.append(CLOSE)
    if options.get("coupled_gates"):
        notes.append("its forget gate's arrays, which input_forget leaves unused, are left out")
    return notes
