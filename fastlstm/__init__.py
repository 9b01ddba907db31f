"""LSTM and BiLSTM on CPUs: fast, small and exact to the bit.

>>> import numpy as np
>>> from fastlstm import LSTM
>>> lstm = LSTM(input_size=3, hidden_size=5, seed=0)
>>> y, (h_n, c_n) = lstm(np.ones((10, 2, 3), np.float32))  # x (T, B, I)
>>> y.shape, h_n.shape
((10, 2, 5), (1, 2, 5))
"""

# ruff: noqa: E402  # what is first has to be
from fastlstm._start import leave_on_interrupt

leave_on_interrupt()

import importlib
from typing import TYPE_CHECKING, Any

from fastlstm._include import get_include
from fastlstm._layer import LSTMBase
from fastlstm._version import __version__
from fastlstm.lstm import LSTM, BiLSTM
from fastlstm.stream import Stream
from fastlstm.tape import Gradients, Tape
from fastlstm.threads import get_num_threads, num_threads, set_num_threads
from fastlstm.trace import Trace
from fastlstm.weights import load, save

if TYPE_CHECKING:
    from fastlstm.quantization import quantization_report, quantize
    from fastlstm.training import load_network

__all__ = [
    "LSTM",
    "BiLSTM",
    "Gradients",
    "LSTMBase",
    "Stream",
    "Tape",
    "Trace",
    "__version__",
    "get_include",
    "get_num_threads",
    "load",
    "load_network",
    "num_threads",
    "quantization_report",
    "quantize",
    "save",
    "set_num_threads",
]

#: What is imported when it is asked for: few need it, and it brings much with it.
_PLACES = {
    **dict.fromkeys(("quantization_report", "quantize"), "quantization"),
    "load_network": "training",
}


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(importlib.import_module(f"{__name__}.{_PLACES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_PLACES})
