"""How many threads calls use: as many as PyTorch's own."""

from __future__ import annotations

import torch

from fastlstm import _core
from fastlstm.threads import MAX_THREADS


def follow_threads() -> None:
    """Let calls use as many threads as PyTorch's own, ``torch.get_num_threads()``."""
    count = min(torch.get_num_threads(), MAX_THREADS)
    if count != _core.get_num_threads():
        _core.set_num_threads(count)
