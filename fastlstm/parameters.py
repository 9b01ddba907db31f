"""Names, shapes, order and first values of the parameters: PyTorch's, so that they carry over."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from fastlstm.arguments import RealArray, as_real_array


class Architecture(NamedTuple):
    """The sizes that decide which parameters there are."""

    input_size: int  # I
    hidden_size: int  # H
    num_layers: int  # L
    num_directions: int  # D
    bias: bool


def parameter_count(sizes: Architecture) -> int:
    """Return how many numbers the parameters hold, by arithmetic alone."""
    I, H, L, D, bias = sizes
    rows = 4 * H * D
    first, above = I + H + 2 * bias, D * H + H + 2 * bias
    return rows * (first + (L - 1) * above)


def parameter_shapes(sizes: Architecture) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield name and shape of every parameter in the order of PyTorch's ``state_dict``.

    ``weight_ih_l0`` holds W (4H, I), ``weight_hh_l0`` U (4H, H), each H rows of i, f, g, o;
    ``bias_ih_l0`` and ``bias_hh_l0`` (4H) add up to b. Layer k has ``_lk``, the reverse direction
    the suffix ``_reverse``.
    """
    I, H, L, D, bias = sizes
    for layer in range(L):
        for direction in range(D):
            suffix = f"_l{layer}" + ("_reverse" if direction else "")
            yield f"weight_ih{suffix}", (4 * H, I if layer == 0 else D * H)
            yield f"weight_hh{suffix}", (4 * H, H)
            if bias:
                yield f"bias_ih{suffix}", (4 * H,)
                yield f"bias_hh{suffix}", (4 * H,)


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
    remedy against forgetting too early in training (Jozefowicz, Zaremba and Sutskever 2015).
    """
    bound = 1 / math.sqrt(sizes.hidden_size)
    count = parameter_count(sizes)
    vector: RealArray = generator.uniform(-bound, bound, count).astype(dtype)
    if forget_bias is not None:
        H = sizes.hidden_size
        for name, view in split(vector, sizes).items():
            if name.startswith("bias"):
                view[H : 2 * H] = forget_bias if name.startswith("bias_ih") else 0
    return vector


def join(
    argument: str, arrays: Mapping[str, Any], sizes: Architecture, dtype: np.dtype[Any]
) -> RealArray:
    """Return one vector of the parameters that a mapping holds by name.

    ``argument`` is what the mapping is called, for the error.

    Raises
    ------
    ValueError
        If a name is missing or unexpected, or an array has another shape or does not hold real
        numbers. The message lists all of them.
    """
    shapes = dict(parameter_shapes(sizes))
    problems = []
    if missing := [name for name in shapes if name not in arrays]:
        problems.append(f"missing {', '.join(missing)}")
    if unexpected := [str(name) for name in arrays if name not in shapes]:
        problems.append(f"unexpected {', '.join(unexpected)}")

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
        raise ValueError(f"{argument}: {'; '.join(problems)}")
    return vector
