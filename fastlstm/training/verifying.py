"""Compare a network of a file with the framework that the file is of, on random input."""

from __future__ import annotations

import importlib
import itertools
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastlstm.training.foreign import load_network
from fastlstm.training.network import Network
from fastlstm.weights import AssumptionWarning
from fastlstm.weights.formats import format_of
from fastlstm.weights.verify import AGREEMENT, why

#: Steps and sequences of the calls that are compared, where the file leaves them open.
SIZES = ((16, 3), (1, 1), (7, 5))

#: Formats whose files say what feeds what, so that their frameworks can run all of them.
_WHOLE = ("keras", "onnx")


class NotComparedError(ValueError):
    """A file holds no network that can be run twice; the text says why."""


@dataclass(frozen=True)
class Comparison:
    """What came of running a network twice.

    Attributes
    ----------
    network : str
        Its repr.
    against : str
        "keras 3.15.1".
    difference, largest : float
        The largest difference, and the largest number, of the answers: probabilities of classes.
    assumptions : tuple of str
        What the network here assumes, since the file doesn't say it.
    agrees : bool
        Whether the difference is one of rounding.
    """

    network: str
    against: str
    difference: float
    largest: float
    assumptions: tuple[str, ...]
    agrees: bool


def compare_network(path: Path, seed: int = 0) -> Comparison:
    """Run what `load_network` makes of a file, and the file in its own framework.

    The framework reads the file itself, by its own rules: only for files that are trusted. Calls
    are of the sizes `SIZES`, or of those that the file has fixed, and without padding.

    Raises
    ------
    NotComparedError
        If the file is none that says what feeds what, or holds no network, or its framework is not
        installed or does not run it.
    """
    chosen = format_of(path)
    if chosen.name not in _WHOLE:
        raise NotComparedError("the file does not say what feeds what")
    network, assumptions = _loaded(path)
    framework: Any = importlib.import_module(f"fastlstm.weights.originals.{chosen.original}")
    rng = np.random.default_rng(seed)
    differences, numbers = [], []
    try:
        for size in _sizes(network, framework.sizes_of_network(path)):
            x = _drawn(network, size, rng)
            got, expected = _compared(network, x, framework.run_network(path, x))
            differences.append(float(np.abs(got - expected).max()))
            numbers.append(float(np.abs(expected).max()))
        against = f"{framework.PACKAGE} {importlib.import_module(framework.PACKAGE).__version__}"
    except (MemoryError, NotComparedError):
        raise
    except Exception as error:  # of any type: a framework may fail on its files in any way
        raise NotComparedError(why(framework.PACKAGE, error)) from error
    # By NumPy, as Python's max loses a NaN that is not the first.
    difference, largest = float(np.max(differences)), float(np.max(numbers))
    unit = float(np.finfo(network.parameters.dtype).eps) * max(1.0, largest)
    # A layer of it may differ by AGREEMENT; what reads it may make that larger.
    agrees = bool(difference <= 2 * AGREEMENT * unit)
    return Comparison(repr(network), against, difference, largest, assumptions, agrees)


def _loaded(path: Path) -> tuple[Network, tuple[str, ...]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            network = load_network(path, dequantize=True)
        except ValueError as error:
            raise NotComparedError(str(error).removeprefix(f"{path}: ")) from error
    said = [str(each.message) for each in caught if each.category is AssumptionWarning]
    return network, tuple(text.removeprefix(f"{path}: ") for text in said)


def _sizes(network: Network, fixed: Sequence[int | None]) -> list[tuple[int, ...]]:
    """Return the sizes (first axis, second axis) of the calls, each once."""
    wanted = [size[::-1] if network.lstm.batch_first else size for size in SIZES]
    return list(dict.fromkeys(tuple(f or w for f, w in zip(fixed, each, strict=True))
                              for each in wanted))  # fmt: skip


def _drawn(network: Network, size: tuple[int, ...], rng: np.random.Generator) -> NDArray[Any]:
    table = network.embedding
    if table is None:
        return rng.normal(size=(*size, network.lstm.input_size)).astype(np.float32)
    integers = np.arange(table.num_embeddings)
    if table.masked:
        integers = np.setdiff1d(integers, [table.padding_idx])
    return rng.choice(integers, size)


def _compared(
    network: Network, x: NDArray[Any], outputs: Sequence[NDArray[Any]]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the answers here, and those of the framework in the same order of axes.

    A graph may turn its answers, and give more than these: the order is taken that fits best.
    """
    is_probability = network.loss in ("cross_entropy", "binary_cross_entropy")
    got = network.predict_proba(x) if is_probability else network(x)
    best: tuple[float, NDArray[Any]] | None = None
    for output in outputs:
        if output.size != got.size:
            continue
        # Of a softmax's logarithms no number is positive, of a softmax none negative.
        if network.loss == "cross_entropy" and (output < 0).any():
            output = np.exp(output)
        for order in itertools.permutations(range(output.ndim)):
            turned = output.transpose(order).reshape(got.shape)
            difference = float(np.nan_to_num(np.abs(got - turned).max(), nan=np.inf))
            if best is None or difference < best[0]:
                best = difference, turned
    if best is None:
        shapes = ", ".join(str(output.shape) for output in outputs)
        raise NotComparedError(f"the framework gives {shapes}, the network {got.shape}")
    return got, best[1]
