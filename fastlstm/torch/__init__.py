"""The LSTM as a module of PyTorch on this package's kernels: a drop-in for its own on CPUs."""

from fastlstm._extras import import_for

import_for("fastlstm.torch", "torch", "torch", "PyTorch", at_least=(2, 6))

from fastlstm.torch._cell import LSTMCell
from fastlstm.torch._module import LSTM
from fastlstm.torch._quantized import QuantizedLSTM
from fastlstm.torch._replace import Report, replace, restore

__all__ = ["LSTM", "LSTMCell", "QuantizedLSTM", "Report", "replace", "restore"]
