"""Models as bytes, and each of them packed once in a process, however often it arrives."""

from __future__ import annotations

import hashlib
import tempfile
import threading
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import TypeAlias

from fastlstm import weights
from fastlstm.lstm import LSTM, BiLSTM
from fastlstm.training import Network

Model: TypeAlias = LSTM | BiLSTM | Network

#: Models that a process keeps packed: those that were used last.
KEPT = 8

#: `merge_mode=None` answers twice.
_TWO_RESULTS = "expected one that gives one result: merge_mode is None"


def as_bytes(model: Model) -> bytes:
    """Return a model as one of this package's files (``.npz``) has it; equal ones make equal bytes.

    Raises
    ------
    TypeError
        If it is no model, or of a subclass, whose own code no file holds.
    ValueError
        If it has two results, or no file can hold it.
    """
    if type(model) not in (LSTM, BiLSTM, Network):
        expected = "expected an LSTM, BiLSTM or fastlstm.training.Network itself"
        raise TypeError(f"model: got {type(model).__name__}, {expected}")
    if not isinstance(model, Network) and model.merge_mode is None:
        raise ValueError(f"model: got {model}, {_TWO_RESULTS}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.npz"
        if isinstance(model, Network):
            model.save(path)
        else:
            weights.save(model, path)
        return path.read_bytes()


def digest_of(data: bytes) -> str:
    """Return what stands for the bytes of a model."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


class _Place:
    """Where one model is, or will be."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.model: Model | None = None


_lock = threading.Lock()
_places: OrderedDict[str, _Place] = OrderedDict()


def model_of(digest: str, data: bytes, is_network: bool) -> Model:
    """Return the model that `as_bytes` made bytes of, the same one each time.

    Threads that ask at once for the same model wait for the first to pack it, those that ask for
    another do not.
    """
    with _lock:
        place = _places.setdefault(digest, _Place())
        _places.move_to_end(digest)
        while len(_places) > KEPT:
            _places.popitem(last=False)
    with place.lock:
        if place.model is None:
            place.model = _unpacked(data, is_network)
        return place.model


def _unpacked(data: bytes, is_network: bool) -> Model:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.npz"
        path.write_bytes(data)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return Network.load(path) if is_network else weights.load(path)
