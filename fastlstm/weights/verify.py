"""Compare an LSTM of a file with the framework that the file is of, on random input."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastlstm._layer import LSTMBase
from fastlstm.weights import build
from fastlstm.weights.contents import Contents, Found
from fastlstm.weights.formats import format_of
from fastlstm.weights.raw import quoted

#: How far apart two implementations may be, in units of the last place of the largest number.
AGREEMENT = 64

T, B = 16, 3

#: Longest message of a framework that is told.
_LONGEST_REASON = 200


@dataclass(frozen=True)
class Comparison:
    """What came of running an LSTM twice.

    Attributes
    ----------
    against : str
        "torch 2.13.0", or the NumPy reference and why; and what both had to assume.
    difference, largest : float
        The largest difference, and the largest number, of y, h_n and c_n.
    assumptions : tuple of str
        What both sides had to assume, since the file doesn't say: that they agree does not show it.
    agrees : bool
        Whether the difference is one of rounding, in the precision that both compute in: float32
        for files in half precision too.
    in_bits : float or None
        Of a quantised LSTM the largest difference of its results in 8, 16 or 24 bits. All else is
        of a layer of floats, with the weights that its digits stand for, on both sides.
    """

    against: str
    difference: float
    largest: float
    assumptions: tuple[str, ...]
    agrees: bool
    in_bits: float | None = None


def compare(contents: Contents, found: Found, seed: int = 0) -> Comparison:
    """Run an LSTM of a file in its own framework, if that is installed, else in the reference.

    The framework reads the file itself, by its own rules: only for files that are trusted. Input
    and states are random, T = 16 steps of B = 3 sequences. What the framework can't run, or fails
    to, the reference does.

    Raises
    ------
    ValueError
        If the LSTM can't be built.
    """
    path = contents.path
    layer = build(path, found, batch_first=False, dequantize=True)
    rng = np.random.default_rng(seed)
    rows = layer.num_layers * layer.num_directions
    x = rng.normal(size=(T, B, layer.input_size)).astype(layer.dtype)
    h_0 = rng.uniform(-1, 1, (rows, B, layer.output_size)).astype(layer.dtype)
    c_0 = rng.normal(size=(rows, B, layer.hidden_size)).astype(layer.dtype)

    module = format_of(path).original
    framework = importlib.import_module(f"fastlstm.weights.originals.{module}")
    package: str = framework.PACKAGE
    try:
        expected = framework.run(path, found, x, h_0, c_0)
        # Not of the package's metadata, where it may have another name: onnxruntime-gpu.
        against = f"{package} {importlib.import_module(package).__version__}"
    except MemoryError:
        raise
    except Exception as error:  # of any type: a framework may fail on its files in any way
        against = f"the NumPy reference, since {why(package, error)}"
        found = _with_all_outputs(found)
        layer = build(path, found, batch_first=False, dequantize=True)
        expected = _run_reference(layer, x, h_0, c_0)
    if found.is_guess:  # neither side knows better: that they agree says nothing about the order
        against += ", its layers run one after the other, as assumed"
    wanted = _flat(_as_result(expected))
    in_bits = None
    if found.bits is not None:
        against += f", both in float32 with what the {found.bits} bits stand for"
        quantized = build(path, found, batch_first=False)
        in_bits = _difference(_flat(quantized(x, (h_0, c_0))), wanted)
    difference = _difference(_flat(layer(x, (h_0, c_0))), wanted)
    largest = float(np.max([_largest(each) for each in wanted]))
    # Not of the stored dtype: that of float16 would hide errors of several percent.
    unit = float(np.finfo(layer.dtype).eps) * max(1.0, largest)
    agrees = bool(difference <= AGREEMENT * unit)
    return Comparison(against, difference, largest, found.assumptions, agrees, in_bits)


def why(package: str, error: Exception) -> str:
    """Say in a line why a framework gives no results."""
    if isinstance(error, ModuleNotFoundError):
        return f"{(error.name or package).partition('.')[0]} is not installed"
    lines = str(error).strip().splitlines() or [""]
    message = quoted(lines[0], _LONGEST_REASON)
    if isinstance(error, NotImplementedError) and message:  # of `originals`, or as clear
        return message
    return f"{package} fails with {type(error).__name__}{': ' if message else ''}{message}"


def _with_all_outputs(found: Found) -> Found:
    """Return it with y as the reference gives it: each step, directions side by side."""
    options = {
        k: v for k, v in found.options.items() if k not in ("merge_mode", "return_sequences")
    }
    return replace(found, options=options)


def _run_reference(
    layer: LSTMBase, x: NDArray[Any], h_0: NDArray[Any], c_0: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    from fastlstm import reference

    y, (h_n, c_n) = reference.forward(
        x,
        (h_0, c_0),
        layer.state_dict(),
        num_layers=layer.num_layers,
        num_directions=layer.num_directions,
        cell=layer.cell,
        reverse=layer.reverse,
    )
    return y, h_n, c_n


def _as_result(expected: Any) -> Any:
    y, h_n, c_n = expected
    return y, (h_n, c_n)


def _flat(result: Any) -> list[NDArray[Any]]:
    """[y, h_n, c_n], or [y forward, y reverse, h_n, c_n]."""
    y, (h_n, c_n) = result
    return [*(y if isinstance(y, tuple) else (y,)), h_n, c_n]


def _difference(got: list[NDArray[Any]], wanted: list[NDArray[Any]]) -> float:
    # By NumPy, as Python's max loses a NaN that is not the first.
    return float(np.max([_largest(g - w) for g, w in zip(got, wanted, strict=True)]))


def _largest(array: NDArray[Any]) -> float:
    return float(np.abs(array).max(initial=0.0))
