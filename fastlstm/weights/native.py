"""What this package's own files hold beside the parameters: the layer's options, as versioned JSON.

Both ``.npz`` and ``.safetensors`` have the parameters by the names of ``state_dict``, a head as
``head.weight`` and ``head.bias``, an initial state as ``state.h_0`` and ``state.c_0``, and a text::

    {"class": "LSTM", "options": {"bias": true, "input_size": 3, ...}, "version": 1}

Version 2 is of quantised layers, with ``"bits": 8``, and with digits and units in place of matrices
(`fastlstm.weights.digits`), version 3 of networks that are more than a layer and a linear head
(`fastlstm.weights.networks`), version 4 of such networks with a quantised layer: what reads the
versions before alone refuses them.

A file without that text (version 0: other programs, and this one before it had options) is read by
the names and shapes of its arrays alone.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fastlstm._layer import LSTMBase
from fastlstm.weights import networks
from fastlstm.weights.architectures import CLASSES
from fastlstm.weights.contents import Arrays, Contents, Trained
from fastlstm.weights.digits import find_quantized, unpacked
from fastlstm.weights.names import find_layers
from fastlstm.weights.networks import Described

#: Under which the text lies in a file.
KEY = "fastlstm"

#: All texts of a file.
KEYS = (KEY, networks.KEY)

#: Of files of float32 and float64, and of those of quantised layers.
VERSION, QUANTIZED_VERSION = 1, 2

#: Far more than the options take; JSON of a hostile file could nest or grow without end.
LONGEST = 10_000


def text_of(layer: LSTMBase, network: Described | None = None) -> str:
    """Return the text that describes a layer."""
    metadata: dict[str, Any] = {
        "class": CLASSES[layer.num_directions],
        "options": layer.options,
        "version": VERSION,
    }
    if layer.bits is not None:
        metadata |= {"bits": layer.bits, "version": QUANTIZED_VERSION}
    if network is not None and not network.is_plain:
        metadata["version"] = networks.VERSION if layer.bits is None else networks.QUANTIZED_VERSION
    return json.dumps(metadata, sort_keys=True)


def arrays_of(trained: Trained) -> Arrays:
    """Return all arrays that a file holds, by name.

    Raises
    ------
    ValueError
        If the layer is a quantised one that no file can hold: its units are not finite; or the text
        of the network is too long.
    """
    layer, head, state, network = trained
    quantized = layer._quantized
    arrays: Arrays = (
        dict(layer.state_dict()) if quantized is None else unpacked(layer._spec, quantized)
    )
    if head is not None:
        arrays.update({"head.weight": head.weight, "head.bias": head.bias})
    if state is not None:
        arrays.update({"state.h_0": state[0], "state.c_0": state[1]})
    if network is not None:
        arrays.update(network.arrays)
        arrays[networks.KEY] = networks.text_of(network)
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}


def contents(path: Path, format_name: str, arrays: Arrays, text: str | None) -> Contents:
    """Return what the arrays of a file are, and the text if there is one, make of it.

    Raises
    ------
    ValueError
        If a text is damaged, or a later version of this package wrote it.
    """
    metadata = None if text is None else _parse(path, text)
    version = 0 if metadata is None else metadata.pop("version")
    network = networks.taken_from(path, arrays, version)
    if metadata is not None and "bits" in metadata:
        layers, refused, others = find_quantized(arrays, metadata)
    else:
        layers, refused, others = find_layers(arrays, metadata)
    if network is not None:
        # Of the layer whose names have no prefix, which such a file has, or says why it is none.
        layers = tuple(replace(e, network=network) if e.name == "" else e for e in layers)
    return Contents(path, format_name, layers, refused, others)


def _parse(path: Path, text: str) -> dict[str, Any]:
    if len(text) > LONGEST:
        raise ValueError(f"{path}: {KEY!r}, the options, takes {len(text)} characters: damaged")
    try:
        metadata = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: {KEY!r}, the options, is damaged: {error}") from error
    version = metadata.get("version") if isinstance(metadata, dict) else None
    if type(version) is not int or version < 1:
        raise ValueError(f"{path}: {KEY!r}, the options, is damaged: no version in {text[:80]!r}")
    if version > networks.QUANTIZED_VERSION:
        raise ValueError(
            f"{path}: written by a later fastlstm (version {version} of its files, this one reads "
            f"up to {networks.QUANTIZED_VERSION})"
        )
    if ("bits" in metadata) != (version in (QUANTIZED_VERSION, networks.QUANTIZED_VERSION)):
        raise ValueError(f"{path}: {KEY!r}, the options, is damaged: bits in version {version}")
    return dict(metadata)
