"""Names, shapes, order and first values of the parameters: PyTorch's, so that they carry over."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from fastlstm._arguments import RealArray, as_finite, as_generator, as_real_array, shown
from fastlstm._spec import Spec

#: The most problems of one kind that an error lists.
_LISTED = 100


def parameter_count(spec: Spec) -> int:
    """Return how many numbers the parameters hold, by arithmetic alone."""
    D, P = spec.num_directions, spec.output_size
    first = _layer_count(spec, spec.input_size)
    above = _layer_count(spec, D * P)
    return D * (first + (spec.num_layers - 1) * above)


def _layer_count(spec: Spec, input_size: int) -> int:
    """Numbers of one direction of a layer with an input of that size."""
    return sum(math.prod(shape) for _, shape in _layer_shapes(spec, input_size))


def _layer_shapes(spec: Spec, input_size: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    H, P, rows = spec.hidden_size, spec.output_size, spec.gates * spec.hidden_size
    yield "weight_ih", (rows, input_size)
    yield "weight_hh", (rows, P)
    if spec.bias:
        yield "bias_ih", (rows,)
        yield "bias_hh", (rows,)
    if spec.proj_size:
        yield "weight_hr", (P, H)
    if spec.cell.peepholes:
        yield "weight_ci", (H,)
        if not spec.cell.coupled_gates:
            yield "weight_cf", (H,)
        yield "weight_co", (H,)
    if spec.cell.layer_norm:
        yield "scale_ih", (rows,)
        yield "scale_hh", (rows,)
        yield "scale_c", (H,)
        yield "shift_c", (H,)


def parameter_shapes(spec: Spec) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield name and shape of every parameter in the order of PyTorch's ``state_dict``.

    ``weight_ih_l0`` holds W (G*H, I), ``weight_hh_l0`` U (G*H, P), each H rows of i, f, g, o, or of
    i, g, o where the forget gate is coupled; ``bias_ih_l0`` and ``bias_hh_l0`` (G*H) add up to b;
    ``weight_hr_l0`` (P, H) projects. What PyTorch does not have comes last: peepholes
    ``weight_ci_l0``, ``weight_cf_l0`` and ``weight_co_l0`` (H), and of layer normalisation
    ``scale_ih_l0`` and ``scale_hh_l0`` (G*H), ``scale_c_l0`` and ``shift_c_l0`` (H). Layer k has
    ``_lk``, the reverse direction the suffix ``_reverse``.
    """
    for layer in range(spec.num_layers):
        input_size = spec.num_directions * spec.output_size if layer else spec.input_size
        for direction in range(spec.num_directions):
            suffix = f"_l{layer}" + ("_reverse" if direction else "")
            for name, shape in _layer_shapes(spec, input_size):
                yield name + suffix, shape


def split(vector: RealArray, spec: Spec) -> dict[str, RealArray]:
    """Return views of the parameters that one vector holds end to end, by name."""
    views = {}
    start = 0
    for name, shape in parameter_shapes(spec):
        stop = start + math.prod(shape)
        views[name] = vector[start:stop].reshape(shape)
        start = stop
    return views


def split_directions(vector: RealArray, spec: Spec) -> list[dict[str, RealArray]]:
    """Return views of the parameters of direction d of layer l at l*D + d, by name up to ``_l``."""
    directions: list[dict[str, RealArray]] = []
    for name, view in split(vector, spec).items():
        kind = name.partition("_l")[0]
        if kind == "weight_ih":
            directions.append({})
        directions[-1][kind] = view
    return directions


def initialise(spec: Spec, forget_bias: Any, seed: Any) -> RealArray:
    """Return a parameter vector drawn from U(-1/sqrt(H), 1/sqrt(H)), as PyTorch's LSTM is.

    With ``forget_bias`` the biases of the forget gates add up to that number instead, the usual
    remedy against forgetting too early in training (Jozefowicz, Zaremba and Sutskever 2015); a
    coupled input gate opens as that forget gate would close. Scales of layer normalisation are 1
    and its shift is 0.

    Raises
    ------
    TypeError, ValueError
        If ``forget_bias`` or ``seed`` is wrong, or there would be too many parameters.
    """
    forget = None if forget_bias is None else as_finite("forget_bias", forget_bias, spec.dtype)
    if forget is not None and not spec.bias:
        raise ValueError("forget_bias: got a number, but bias=False leaves no bias to set")
    count = parameter_count(spec)
    if count * np.dtype(np.float64).itemsize > sys.maxsize:
        raise ValueError(
            f"input_size, hidden_size, num_layers: {spec.input_size}, {spec.hidden_size}, "
            f"{spec.num_layers} make {count} parameters, more than memory can address"
        )
    bound = 1 / math.sqrt(spec.hidden_size)
    numbers = as_generator("seed", seed).uniform(-bound, bound, count)
    vector: RealArray = numbers.astype(spec.dtype)
    H = spec.hidden_size
    gate, sign = (0, -1) if spec.cell.coupled_gates else (1, 1)  # 1 - sigmoid(x) = sigmoid(-x)
    for name, view in split(vector, spec).items():
        if name.startswith("bias") and forget is not None:
            first = name.startswith("bias_ih")
            view[gate * H : (gate + 1) * H] = sign * forget if first else 0
        if name.startswith(("scale", "shift")):
            view[...] = 1 if name.startswith("scale") else 0
    return vector


def _named(name: Any) -> str:
    return name if isinstance(name, str) and len(name) <= 200 else shown(name)


def _listed(items: list[str], between: str) -> str:
    """Return all items, or of very many the first."""
    more = [f"and {len(items) - _LISTED} more"] if len(items) > _LISTED else []
    return between.join(items[:_LISTED] + more)


def join(argument: str, arrays: Mapping[str, Any], spec: Spec) -> RealArray:
    """Return one vector of the parameters that a mapping holds by name.

    ``argument`` is what the mapping is called, for the error.

    Raises
    ------
    ValueError
        If a name is missing or unexpected, or an array has another shape or does not hold real
        numbers. The message lists all of them, or the first where there are very many.
    """
    shapes = dict(parameter_shapes(spec))
    problems = []
    if missing := [name for name in shapes if name not in arrays]:
        problems.append(f"missing {_listed(missing, ', ')}")
    if unexpected := [_named(name) for name in arrays if name not in shapes]:
        problems.append(f"unexpected {_listed(unexpected, ', ')}")

    vector: RealArray = np.empty(parameter_count(spec), spec.dtype)
    for name, view in split(vector, spec).items():
        if name not in arrays:
            continue
        try:
            array = as_real_array(name, arrays[name], spec.dtype)
        except (TypeError, ValueError) as error:
            problems.append(str(error))
            continue
        if array.shape == view.shape:
            view[...] = array
        else:
            problems.append(f"{name} has shape {array.shape}, expected {view.shape}")
    if problems:
        raise ValueError(f"{argument}: {_listed(problems, '; ')}")
    return vector
