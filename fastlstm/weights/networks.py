"""What this package's own files hold of a network beside its layer, as JSON and arrays.

Beside the text of :mod:`fastlstm.weights.native` there is a second one, as an array of bytes::

    {"each_step": true, "head": {"loss": "cross_entropy", "outputs": 3, "classes": [...]}, ...}

and arrays by the names of ``Network.state_dict``, ``embedding.weight``, ``heads.NAME.weight`` and
``heads.NAME.bias``, with ``scaling.x_mean``, ``scaling.x_scale``, ``scaling.y_mean`` and
``scaling.y_scale``. What a network's parameters mean is `fastlstm.training`'s to know: here are the
texts and arrays, as they are.

A file whose linear head means what it always did, without any of these arrays, is of version 1,
which says less to those who don't know of networks, but nothing wrong. Others are of `VERSION`, or
`QUANTIZED_VERSION`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Under which the text lies in a file.
KEY = "fastlstm.network"

#: Of files that are wrong without that text, and of those that have a quantised layer besides.
VERSION, QUANTIZED_VERSION = 3, 4

#: Bytes of the text: of names of a million classes, but not without end.
LONGEST = 2**24

_PREFIXES = ("embedding.", "head.hidden.", "heads.", "scaling.")
_HEAD = ("head.weight", "head.bias")


@dataclass(frozen=True, eq=False)
class Described:
    """A network, but for its layer, as a file has it.

    Attributes
    ----------
    options : dict
        Of JSON: not checked.
    arrays : dict of str to ndarray
        By the names in the file; without the head of a plain network.
    is_plain : bool
        Whether it is no more than the layer and its linear head.
    """

    options: dict[str, Any]
    arrays: dict[str, NDArray[Any]]
    is_plain: bool

    def __repr__(self) -> str:
        return f"<Described {', '.join(self.options)}>"


def text_of(described: Described) -> NDArray[np.uint8]:
    """Return the text of a network in ASCII, as an array.

    Raises
    ------
    ValueError
        If it is too long.
    """
    text = json.dumps(described.options, sort_keys=True, allow_nan=False).encode("ascii")
    if len(text) > LONGEST:
        raise ValueError(f"names and metadata take {len(text)} characters, at most {LONGEST}")
    return np.frombuffer(text, np.uint8)


def taken_from(path: Path, arrays: dict[str, NDArray[Any]], version: int) -> Described | None:
    """Take what is a network's out of the arrays of a file; None if there is no network.

    Raises
    ------
    ValueError
        If its text is damaged, or missing in a file of that version.
    """
    what = f"{path}: {KEY!r}, the network,"
    text = arrays.pop(KEY, None)
    if text is None:
        if version in (VERSION, QUANTIZED_VERSION):
            raise ValueError(f"{what} is missing in version {version}")
        return None
    if text.dtype != np.uint8 or text.ndim != 1 or text.size > LONGEST:
        raise ValueError(f"{what} is damaged: got {text.dtype} {text.shape}, expected a text")
    try:
        options = json.loads(text.tobytes().decode("ascii"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{what} is damaged: {error}") from error
    if not isinstance(options, dict):
        raise ValueError(f"{what} is damaged: expected a mapping")
    is_plain = version not in (VERSION, QUANTIZED_VERSION)
    taken = [
        name for name in arrays if name.startswith(_PREFIXES) or (name in _HEAD and not is_plain)
    ]
    return Described(options, {name: arrays.pop(name) for name in taken}, is_plain)
