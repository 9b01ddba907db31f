"""Files of Neural Amp Modeler: one list of numbers, cut by the sizes of the configuration.

For each layer W (4H, I + H) over [x, h] by rows, the gates in the order i, f, g, o; b (4H,); then
the states h_0 and c_0 (H,) that it was trained to begin with. After the layers the linear one on
top, (N, H) by rows, and its bias (N,). ``NAM/lstm.cpp`` of NeuralAmpModelerCore reads them so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from fastlstm.weights.audio.document import Floats, Object, Parts, entry, size, told, vector
from fastlstm.weights.contents import Arrays, Found, Head, Other, Refused
from fastlstm.weights.raw import quoted

#: The versions of files, major and minor, whose meaning is known: that of later ones may differ.
_FIRST, _LAST = (0, 5), (0, 7)

#: How deep models may lie in containers, and how many there are.
_DEEPEST, _MOST = 4, 100

#: Of the metadata, what says what the model is of, and how loud.
_TOLD = (
    "name",
    "modeled_by",
    "gear_type",
    "gear_make",
    "gear_model",
    "tone_type",
    "loudness",
    "gain",
    "input_level_dbu",
    "output_level_dbu",
)

_PREWARMED = "players run it over half a second of silence before the first sample"


def read_nam(document: Object) -> Parts:
    """Find the LSTMs of a file, those inside containers too.

    Raises
    ------
    ValueError
        If it is damaged, or of a version that is not known.
    """
    found: list[Found] = []
    refused: list[Refused] = []
    others: list[Other] = []
    for name, model in _models(document, "", 0):
        version = entry(model, "version", str)
        numbers = re.fullmatch(r"(\d{1,9})\.(\d{1,9})\.(\d{1,9})", version)
        if numbers is None:
            raise ValueError(f"version: got {quoted(version)!r}, expected one such as '0.5.4'")
        architecture = entry(model, "architecture", str)
        if architecture != "LSTM":
            others.append(Other(name or quoted(architecture), f"NAM {quoted(architecture)}"))
            continue
        if not _FIRST <= (int(numbers[1]), int(numbers[2])) <= _LAST:
            reason = f"version {version} of the format is not known, 0.5 to 0.7 are"
            refused.append(Refused(name, "NAM LSTM", reason))
            continue
        try:
            found.append(_found(name, model))
        except ValueError as error:
            refused.append(Refused(name, "NAM LSTM", str(error)))
    return found, refused, others


def _models(model: Object, name: str, depth: int) -> Iterator[tuple[str, Object]]:
    """Yield a model, or those in it where it is a container."""
    if model.get("architecture") != "SlimmableContainer":
        yield name, model
        return
    submodels = entry(entry(model, "config", dict), "submodels", list, "config.")
    if depth == _DEEPEST or len(submodels) > _MOST:
        raise ValueError(f"more than {_MOST} models in a container, or {_DEEPEST} of those nested")
    for number, submodel in enumerate(submodels):
        inner = f"{name}.{number}" if name else f"submodels.{number}"
        if type(submodel) is not dict:
            raise ValueError(f"{inner}: expected an object")
        yield from _models(entry(submodel, "model", dict, f"{inner}."), inner, depth + 1)


def _found(name: str, model: Object) -> Found:
    """Return the LSTM of a model, or raise ValueError."""
    config = entry(model, "config", dict)
    I, H, L = (size(config, key) for key in ("input_size", "hidden_size", "num_layers"))
    N = size(config, "out_channels", 1)
    if "in_channels" in config and size(config, "in_channels") != I:
        raise ValueError(f"in_channels is {config['in_channels']}, but input_size {I}")
    weights = vector(entry(model, "weights", list), "weights")
    above = (L - 1) * (4 * H * (2 * H) + 6 * H)
    count = 4 * H * (I + H) + 6 * H + above + N * (H + 1)
    if weights.size != count:
        raise ValueError(
            f"weights has {weights.size} numbers, but {L} layers of {H} units that read {I} and a "
            f"linear layer of {N} take {count}"
        )
    rest = _Rest(weights)
    arrays: Arrays = {}
    states = []
    for layer in range(L):
        width = H if layer else I
        both = rest.take(4 * H, width + H)
        arrays[f"weight_ih_l{layer}"] = np.ascontiguousarray(both[:, :width])
        arrays[f"weight_hh_l{layer}"] = np.ascontiguousarray(both[:, width:])
        arrays[f"bias_ih_l{layer}"] = rest.take(4 * H)
        arrays[f"bias_hh_l{layer}"] = np.zeros(4 * H, np.float32)
        states.append(rest.take(2, H))
    h_0, c_0 = np.stack(states, 1)
    return Found(
        name,
        "NAM LSTM",
        {"input_size": I, "hidden_size": H, "num_layers": L},
        False,
        arrays,
        head=Head(rest.take(N, H), rest.take(N)),
        state=(h_0, c_0),
        notes=(*_told(model), _PREWARMED),
    )


class _Rest:
    """What has not been taken yet of a list of numbers."""

    def __init__(self, numbers: Floats) -> None:
        self._numbers = numbers

    def take(self, *shape: int) -> Floats:
        """Return the next numbers in a shape."""
        count = int(np.prod(shape))
        taken, self._numbers = self._numbers[:count], self._numbers[count:]
        return taken.reshape(shape).copy()


def _told(model: Object) -> Iterator[str]:
    """Yield what the file says of the model besides."""
    yield next(told(model, ["sample_rate"]), "the file doesn't say its sample rate")
    if described := ", ".join(told(model.get("metadata"), _TOLD)):
        yield f"metadata: {described}"
