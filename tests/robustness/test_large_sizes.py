"""Sizes near 2^31 and beyond, by arithmetic: arrays that say they are large and take no memory.

Refused with ValueError and the argument's name where a product of sizes can't be addressed, else
with MemoryError. The process may have 2 GB, so that no system says yes and swaps.
"""

from __future__ import annotations

import sys

import pytest

from support.processes import run_python

pytest.importorskip("resource", reason="limits of memory are Unix'")
if sys.maxsize < 2**62:
    pytest.skip("sizes of 64 bits", allow_module_level=True)

SETUP = """
import resource, sys
import numpy as np
import fastlstm
from fastlstm import LSTM, BiLSTM
fastlstm.set_num_threads({threads})
limit = 2 << 30
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
tried = 0

def huge(*shape, value=0, dtype=np.float32):
    return np.broadcast_to(np.array(value, dtype), shape)

def refused(call, *args, begins="", **kwargs):
    # The error is one of memory, or names what is too large; nothing else.
    global tried
    tried += 1
    try:
        call(*args, **kwargs)
    except MemoryError:
        return
    except ValueError as error:
        assert str(error).startswith(begins or "x: "), error
        return
    raise AssertionError(("not refused", call, args, kwargs))

def near(*powers):
    return [2**p + k for p in powers for k in (-1, 0, 1)]
"""

LAYERS = """
for make in (LSTM, BiLSTM):
    for dtype in ("f4", "f8"):
        for a in near(31, 32, 33, 40, 47, 52, 58, 60, 61, 62):
            for b in (1, 3, 2**20, 2**31, 2**32 + 1, 2**62):
                begins = "input_size, hidden_size, num_layers: "
                for options in ({}, {"peepholes": True, "layer_norm": True}, {"bias": False}):
                    for I, H, L in ((a, max(b, 3), 1), (max(b, 3), a, 2), (b, a, 1000)):
                        for P in (0, 1, H - 1):
                            refused(make, I, H, L, proj_size=P, dtype=dtype, **options,
                                    begins=begins)
"""

CALLS = """
layers = [
    LSTM(1, 5, seed=0), BiLSTM(1, 5, 2, seed=0), LSTM(1, 5, 2, dtype="f8", proj_size=2, seed=0),
    LSTM(1, 5, layer_norm=True, batch_first=True, seed=0), BiLSTM(1, 5, merge_mode=None, seed=0),
    BiLSTM(1, 5, 3, merge_mode="sum", return_sequences=False, layer_norm=True, seed=0),
    LSTM(1, 5, reverse=True, zoneout_h=0.5, recurrent_dropout=0.5, seed=0),
]
for layer in layers:
    y = layer(np.ones((3, 2, 1)))[0]
    plain = layer.return_sequences and layer.merge_mode == "concat"
    for n in near(40, 47, 52, 55, 58, 59):
        for other in (0, 1, 3):
            batch = huge(other, n, 1) if not layer.batch_first else huge(n, other, 1)
            refused(layer, batch)
            refused(layer.record, batch, rng=0)
            refused(layer, batch, lengths=huge(n, dtype=np.int8), begins="x: ")
            refused(layer, batch, resets=huge(*batch.shape[:2], dtype=bool), begins="x: ")
            if other == 0:
                continue
            times = huge(n, other, 1) if not layer.batch_first else huge(other, n, 1)
            refused(layer.record, times, rng=0)
            if layer.return_sequences:
                refused(layer, times)
                refused(layer, huge(n, 1))
                refused(layer, times, lengths=[n] * other)
                refused(layer, times, resets=huge(*times.shape[:2], dtype=bool))
        refused(layer.record, huge(n, 1), rng=0)
        refused(layer.record, huge(4 * n, 1, dtype=np.int8), rng=0)
        refused(layer, huge(n, 1), offsets=[0, n])
        refused(layer, huge(n, 1), offsets=[0, n], resets=huge(n, dtype=bool))
        refused(layer, huge(0, 1), offsets=huge(n, dtype=np.int8), begins="offsets: ")
    n = 2**55
    for shape in ((n, 2, 2), (2, n, 2), (n, 2), (n,), (2, 2, n), (n, 1, 0)):
        refused(layer, huge(*shape), begins="x: ")
        refused(layer, np.ones((3, 2, 1)), (huge(*shape), huge(*shape)), begins="h_0: ")
        refused(layer, np.ones((3, 2, 1)), lengths=huge(*shape, dtype=np.int8), begins="lengths: ")
        refused(layer, np.ones((3, 2, 1)), resets=huge(*shape, dtype=bool), begins="resets: ")
        refused(layer, np.ones((3, 2, 1)), out=huge(*shape, dtype=layer.dtype), begins="out: ")
    refused(layer.load_parameters, huge(n), begins="vector: ")
    refused(layer.named_views, huge(n), begins="vector: ")
    refused(layer.load_state_dict, {name: huge(n) for name in layer.state_dict()},
            begins="arrays: ")
    tape = layer.record(np.ones((3, 2, 1)), rng=0)[-1]
    refused(tape.backward, huge(n, 2, 5), begins="dy")
    refused(tape.backward, None, (huge(n), None), begins="dh_n: ")
    into = fastlstm.Gradients(x=huge(n, 2, 1, dtype=layer.dtype))
    refused(tape.backward, into=into, begins="into.x: ")
    # Nothing of it has changed anything.
    again = layer(np.ones((3, 2, 1)))[0]
    assert all(np.array_equal(a, b) for a, b in zip(y, again))
    if layer.num_directions == 2 or layer.reverse:
        continue
    for n in near(31, 32, 40, 47, 52, 58, 60, 62):
        refused(layer.stream, n, begins="batch_size: ")
    stream = layer.stream()
    for n in near(40, 47, 52, 58, 59):
        chunk = huge(n, 1, 1) if not layer.batch_first else huge(1, n, 1)
        refused(stream.push, chunk, begins="chunk: ")
        refused(stream.push, huge(n, 1), begins="chunk: ")
        refused(stream.step, huge(n, 1), begins="x_t: ")
        refused(stream.step, huge(n), begins="x_t: ")
        refused(stream.step, np.ones(1), huge(n, dtype=layer.dtype), begins="out: ")
        refused(stream.reset, huge(n, dtype=bool), begins="mask: ")
    assert not stream.state[0].any()
"""

# Times with nothing to run are no time: what is done is what the lengths say.
SHORT = """
for make in (LSTM, BiLSTM):
    layer = make(1, 5, return_sequences=False, seed=0)
    for n in near(20, 24):
        x = huge(n, 2, 1, value=1)
        y, (h_n, c_n) = layer(x, lengths=[3, 0])
        expected = layer(np.ones((3, 1, 1), np.float32))[0]
        assert y[:1].tobytes() == expected.tobytes() and not y[1].any()
        tried += 1
# However many steps, without sequences there is nothing to do.
assert LSTM(1, 5, seed=0)(huge(2**40, 0, 1))[0].shape == (2**40, 0, 5)
from fastlstm import optim
for n in near(31, 32, 47, 58):
    refused(optim.SGD(0.1).step, huge(n), huge(n), begins="parameters: ")
    refused(optim.SGD(0.1).step, np.zeros(3, np.float32), huge(n), begins="gradient: ")
    refused(optim.clip_grad_norm, huge(n), 1.0, begins="gradient: ")
    refused(LSTM.from_arrays, huge(n, 3), huge(n, 3), begins="weight")
"""


@pytest.mark.parametrize("code", [LAYERS, CALLS, SHORT], ids=["layers", "calls", "short"])
def test_large_sizes(code: str) -> None:
    ran = run_python(SETUP.format(threads=2) + code + "\nprint(tried)")
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert int(ran.stdout) > 20
