"""Names, shapes, order and first values of the parameters: PyTorch's, so that they carry over."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from fastlstm._arguments import RealArray, as_real_array, shown

#: Far beyond any use; keeps a slip of the pen from asking for a billion small arrays.
MAX_LAYERS = 1000

#: The most problems of one kind that an error lists.
_LISTED = 100


class Architecture(NamedTuple):
    """The sizes and options that decide which parameters there are."""

    input_size: int  # I
    hidden_size: int  # H
    num_layers: int  # L
    num_directions: int  # D
    bias: bool
    proj_size: int = 0  # P, or 0 for no projection
    peepholes: bool = False
    coupled_gates: bool = False
    layer_norm: bool = False

    @property
    def output_size(self) -> int:
        """P: numbers of a hidden state, H where there is no projection."""
        return self.proj_size or self.hidden_size

    @property
    def gates(self) -> int:
        """G: gates with weights of their own."""
        return 3 if self.coupled_gates else 4


def parameter_count(sizes: Architecture) -> int:
    """Return how many numbers the parameters hold, by arithmetic alone."""
    D, P = sizes.num_directions, sizes.output_size
    first = _layer_count(sizes, sizes.input_size)
    above = _layer_count(sizes, D * P)
    return D * (first + (sizes.num_layers - 1) * above)


def _layer_count(sizes: Architecture, input_size: int) -> int:
    """Numbers of one direction of a layer with an input of that size."""
    return sum(math.prod(shape) for _, shape in _layer_shapes(sizes, input_size))


def _layer_shapes(sizes: Architecture, input_size: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    H, P, rows = sizes.hidden_size, sizes.output_size, sizes.gates * sizes.hidden_size
    yield "weight_ih", (rows, input_size)
    yield "weight_hh", (rows, P)
    if sizes.bias:
        yield "bias_ih", (rows,)
        yield "bias_hh", (rows,)
    if sizes.proj_size:
        yield "weight_hr", (P, H)
    if sizes.peepholes:
        yield "weight_ci", (H,)
        if not sizes.coupled_gates:
            yield "weight_cf", (H,)
        yield "weight_co", (H,)
    if sizes.layer_norm:
        yield "scale_ih", (rows,)
        yield "scale_hh", (rows,)
        yield "scale_c", (H,)
        yield "shift_c", (H,)


def parameter_shapes(sizes: Architecture) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield name and shape of every parameter in the order of PyTorch's ``state_dict``.

    ``weight_ih_l0`` holds W (G*H, I), ``weight_hh_l0`` U (G*H, P), each H rows of i, f, g, o, or of
    i, g, o where the forget gate is coupled; ``bias_ih_l0`` and ``bias_hh_l0`` (G*H) add up to b;
    ``weight_hr_l0`` (P, H) projects. What PyTorch does not have comes last: peepholes
    ``weight_ci_l0``, ``weight_cf_l0`` and ``weight_co_l0`` (H), and of layer normalisation
    ``scale_ih_l0`` and ``scale_hh_l0`` (G*H), ``scale_c_l0`` and ``shift_c_l0`` (H). Layer k has
    ``_lk``, the reverse direction the suffix ``_reverse``.
    """
    for layer in range(sizes.num_layers):
        input_size = sizes.num_directions * sizes.output_size if layer else sizes.input_size
        for direction in range(sizes.num_directions):
            suffix = f"_l{layer}" + ("_reverse" if direction else "")
            for name, shape in _layer_shapes(sizes, input_size):
                yield name + suffix, shape


def split(vector: RealArray, sizes: Architecture) -> dict[str, RealArray]:
    """Return views of the parameters that one vector holds end to end, by name."""
    views = {}
    start = 0
    for name, shape in parameter_shapes(sizes):
        stop = start + math.prod(shape)
        views[name] = vector[start:stop].reshape(shape)
        start = stop
    return views


def initialise(
    sizes: Architecture,
    dtype: np.dtype[Any],
    generator: np.random.Generator,
    forget_bias: float | None,
) -> RealArray:
    """Return a parameter vector drawn from U(-1/sqrt(H), 1/sqrt(H)), as PyTorch's LSTM is.

    With ``forget_bias`` the biases of the forget gates add up to that number instead, the usual
    remedy against forgetting too early in training (Jozefowicz, Zaremba and Sutskever 2015); a
    coupled input gate opens as that forget gate would close. Scales of layer normalisation are 1
    and its shift is 0.
    """
    bound = 1 / math.sqrt(sizes.hidden_size)
    count = parameter_count(sizes)
    vector: RealArray = generator.uniform(-bound, bound, count).astype(dtype)
    H = sizes.hidden_size
    gate, sign = (0, -1) if sizes.coupled_gates else (1, 1)  # 1 - sigmoid(x) = sigmoid(-x)
    for name, view in split(vector, sizes).items():
        if name.startswith("bias") and forget_bias is not None:
            first = name.startswith("bias_ih")
            view[gate * H : (gate + 1) * H] = sign * forget_bias if first else 0
        if name.startswith(("scale", "shift")):
            view[...] = 1 if name.startswith("scale") else 0
    return vector


def _named(name: Any) -> str:
    return name if isinstance(name, str) and len(name) <= 200 else shown(name)


def _listed(items: list[str], between: str) -> str:
    """Return all items, or of very many the first."""
    more = [f"and {len(items) - _LISTED} more"] if len(items) > _LISTED else []
    return between.join(items[:_LISTED] + more)


def join(
    argument: str, arrays: Mapping[str, Any], sizes: Architecture, dtype: np.dtype[Any]
) -> RealArray:
    """Return one vector of the parameters that a mapping holds by name.

    ``argument`` is what the mapping is called, for the error.

    Raises
    ------
    ValueError
        If a name is missing or unexpected, or an array has another shape or does not hold real
        numbers. The message lists all of them, or the first where there are very many.
    """
    shapes = dict(parameter_shapes(sizes))
    problems = []
    if missing := [name for name in shapes if name not in arrays]:
        problems.append(f"missing {_listed(missing, ', ')}")
    if unexpected := [_named(name) for name in arrays if name not in shapes]:
        problems.append(f"unexpected {_listed(unexpected, ', ')}")

    vector: RealArray = np.empty(parameter_count(sizes), dtype)
    for name, view in split(vector, sizes).items():
        if name not in arrays:
            continue
        try:
            array = as_real_array(name, arrays[name], dtype)
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
