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

from fastlstm._include import get_include
from fastlstm._version import __version__
from fastlstm.lstm import LSTM, BiLSTM, LSTMBase
from fastlstm.stream import Stream
from fastlstm.tape import Gradients, Tape
from fastlstm.threads import get_num_threads, num_threads, set_num_threads
from fastlstm.weights import load, save

__all__ = [
    "LSTM",
    "BiLSTM",
    "Gradients",
    "LSTMBase",
    "Stream",
    "Tape",
    "__version__",
    "get_include",
    "get_num_threads",
    "load",
    "num_threads",
    "save",
    "set_num_threads",
]
