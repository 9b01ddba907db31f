"""LSTMs of different sizes and directions, one on the other, as the layers of one LSTM.

A unit whose weights and biases are all 0 has g = 0, so that c and h are 0 at every step where the
activations of 0 are 0: it changes nothing that reads it with weights of 0. Its gradients are 0 as
well, those of its weights because h is read with 0, and those of what reads h because that is 0. So
layers are filled up with such units to the size of the largest, and to two directions where one has
two, and compute what they did, in training too.

Letters: H units, D directions, I inputs of a layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastlstm.weights.contents import Arrays, Found
from fastlstm.weights.stacks import stacked

#: What layers may differ in.
_OF_EACH = ("input_size", "hidden_size", "num_layers", "bias", "return_sequences", "merge_mode")

#: Options with which a unit without weights is 0, or computes by itself.
_ZERO_AT_ZERO = ("tanh", "relu", "identity")

_SUFFIXES = ("", "_reverse")

#: Numbers of the filled-up layers, as a multiple of those in the file and a bit.
LARGEST_RATIO, SLACK = 64, 2**22


class Joined(NamedTuple):
    """One LSTM made of several.

    Attributes
    ----------
    found : Found
    columns : array (F,) of int
        Which of the numbers that it gives are those of the last of the several.
    """

    found: Found
    columns: NDArray[np.intp]


def joined(parts: Sequence[Found]) -> Joined:
    """Return LSTMs that feed each other as one.

    Parameters
    ----------
    parts : sequence of Found
        From the lowest; each reads as many numbers as the one below gives.

    Raises
    ------
    ValueError
        If their options differ, or can't be those of layers in one LSTM.
    """
    first, last = parts[0], parts[-1]
    if len(parts) == 1:
        return Joined(first, np.arange(first.width))
    for part in parts[:-1]:
        if not part.option("return_sequences"):
            raise ValueError(f"{part.name}: gives its last step alone, and feeds another LSTM")
        if part.option("merge_mode") == "product":
            raise ValueError(f"{part.name}: gives products of two directions to another LSTM")
    _check_options(parts)
    quantized = [part for part in parts if part.quantized is not None]
    if all(part.option("num_layers") == 1 for part in parts) and _are_even(parts):
        whole = stacked(parts)
        return Joined(whole, np.arange(whole.width))
    if quantized:
        raise ValueError(
            f"{quantized[0].name}: of {quantized[0].bits} bits, in a stack of different sizes; "
            "dequantize=True makes floats of it"
        )
    return _padded(first, last, parts)


def _check_options(parts: Sequence[Found]) -> None:
    """Raise ValueError where layers differ in what all layers of an LSTM share."""
    first = parts[0]
    for part in parts[1:]:
        names = {*first.options, *part.options} - set(_OF_EACH)
        differing = [name for name in sorted(names) if first.option(name) != part.option(name)]
        if differing or part.stored_dtype != first.stored_dtype:
            what = ", ".join(differing) or "dtype"
            raise ValueError(
                f"{first.name} and {part.name} differ in {what}, which layers of one LSTM share"
            )
    if first.option("reverse"):
        raise ValueError(f"{first.name}: goes backwards, and feeds another LSTM")


def _are_even(parts: Sequence[Found]) -> bool:
    """Whether they are layers of one LSTM as they stand."""
    first = parts[0]
    same = ("hidden_size", "proj_size", "bias")
    return all(
        part.bidirectional == first.bidirectional
        and all(part.option(name) == first.option(name) for name in same)
        for part in parts
    ) and all(part.option("merge_mode") == "concat" for part in parts[:-1])


def _padded(first: Found, last: Found, parts: Sequence[Found]) -> Joined:
    for name in ("proj_size", "layer_norm"):
        if first.option(name):
            raise ValueError(f"{first.name}: {name} in a stack of LSTMs of different sizes")
    for name in ("cell_activation", "output_activation"):
        if first.option(name) not in _ZERO_AT_ZERO:
            raise ValueError(
                f"{first.name}: {name} {first.option(name)!r} in a stack of LSTMs of different "
                f"sizes, expected {', '.join(_ZERO_AT_ZERO)}"
            )
    H = max(part.option("hidden_size") for part in parts)
    D = max(part.num_directions for part in parts)
    _check_size(parts, H, D)
    dtype = np.float32 if first.stored_dtype.itemsize == 2 else first.stored_dtype
    arrays: Arrays = {}
    reads: NDArray[Any] = np.eye(first.option("input_size"), dtype=dtype)
    number = 0
    for part in parts:
        h, has_bias = part.option("hidden_size"), part.option("bias")
        inside = np.add.outer(np.arange(4) * H, np.arange(h)).ravel()  # the rows of its gates
        for layer in range(part.option("num_layers")):
            for suffix in _SUFFIXES[:D]:
                there = suffix == "" or part.bidirectional
                for kind, columns in (("ih", reads), ("hh", np.eye(h, H, dtype=dtype))):
                    weight = np.zeros((4 * H, columns.shape[1]), dtype)
                    if there:
                        weight[inside] = part.arrays[f"weight_{kind}_l{layer}{suffix}"] @ columns
                    arrays[f"weight_{kind}_l{number}{suffix}"] = weight
                for kind in ("ih", "hh"):
                    bias = np.zeros(4 * H, dtype)
                    if there and has_bias:
                        bias[inside] = part.arrays[f"bias_{kind}_l{layer}{suffix}"]
                    arrays[f"bias_{kind}_l{number}{suffix}"] = bias
                for kind in ("ci", "cf", "co") if first.option("peepholes") else ():
                    peephole = np.zeros(H, dtype)
                    if there:
                        peephole[:h] = part.arrays[f"weight_{kind}_l{layer}{suffix}"]
                    arrays[f"weight_{kind}_l{number}{suffix}"] = peephole
            is_inner = layer < part.option("num_layers") - 1
            reads = _reads(part, "concat" if is_inner else part.option("merge_mode"), H, D, dtype)
            number += 1
    modes = last.option("merge_mode")
    options = {**last.options, "hidden_size": H, "num_layers": number, "bias": True}
    options["input_size"] = first.option("input_size")
    if modes == "concat":
        columns_of_last = reads.argmax(axis=1)
    else:
        columns_of_last = np.arange(last.option("hidden_size"))
    made = replace(
        first,
        options=options,
        bidirectional=D == 2,
        arrays=arrays,
        parts=tuple(parts),
        notes=tuple(dict.fromkeys(note for part in parts for note in part.notes)),
        assumptions=tuple(dict.fromkeys(each for part in parts for each in part.assumptions)),
    )
    return Joined(made, columns_of_last)


def _check_size(parts: Sequence[Found], H: int, D: int) -> None:
    """Raise ValueError where filling up takes many times what is stored: a narrow, deep stack."""
    stored = sum(array.size for part in parts for array in part.arrays.values())
    layers = sum(part.option("num_layers") for part in parts)
    if 4 * H * D * (D + 1) * H * layers > LARGEST_RATIO * stored + SLACK:
        raise ValueError(
            f"{layers} layers of up to {H} units: filled up to that size they take more than "
            f"{LARGEST_RATIO} times what they are"
        )


def _reads(part: Found, mode: str | None, H: int, D: int, dtype: Any) -> NDArray[Any]:
    """Return the matrix (F, D*H) that makes a layer's F numbers of those of the filled-up one."""
    h = part.option("hidden_size")
    parts = [np.eye(h, D * H, d * H, dtype=dtype) for d in range(part.num_directions)]
    if mode == "concat":
        return np.concatenate(parts)
    factor = 0.5 if mode == "mean" else 1.0
    summed: NDArray[Any] = np.sum(parts, axis=0) * np.asarray(factor, dtype)
    return summed
