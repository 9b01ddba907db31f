"""Memory of a call: none that grows with the length of the sequence, beyond input and output."""

from __future__ import annotations

import sys

import pytest

from support.processes import run_python

CODE = """
import resource, numpy as np, fastlstm
layer = fastlstm.{make}
T = {T}
x = np.broadcast_to(np.ones((1, 1, 2), np.float32), (T, 1, 2))  # takes no memory
out = np.zeros((T, 1, layer.num_directions * layer.hidden_size), np.float32)
out[...] = 1  # is there before the call
layer(x[:2000])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
layer(x, out=out)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="units of ru_maxrss")
@pytest.mark.parametrize(
    "make",
    [
        "LSTM(2, 4)",
        "LSTM(2, 4, num_layers=3)",
        "LSTM(2, 4, num_layers=3, reverse=True)",
        "BiLSTM(2, 4)",
    ],
)
@pytest.mark.parametrize("T", [1_000, 1_000_000])
def test_peak_memory_does_not_grow_with_time(make: str, T: int) -> None:
    ran = run_python(CODE.format(make=make, T=T))
    assert ran.returncode == 0, ran.stderr
    assert int(ran.stdout) < 1024, "KiB"  # y alone takes 16 MB at a million steps
