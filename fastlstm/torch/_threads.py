"""How many threads calls use: as many as PyTorch's own."""

from __future__ import annotations

import torch

from fastlstm import _core
from fastlstm.threads import MAX_THREADS


def follow_threads() -> None:
    """Let calls use as many threads as PyTorch's own, ``torch.get_num_threads()``."""
    count = torch.get_num_threads()
    if count != _core.get_num_threads():
        _core.set_num_threads(min(count, MAX_THREADS))
