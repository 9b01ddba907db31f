"""Streams stepped without Python: by address from ctypes and Numba, by name from Cython."""

from __future__ import annotations

import ctypes
import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastlstm
from fastlstm import LSTM
from support.arrays import assert_same_bits
from support.compilers import compiler
from support.layers import random_state
from support.optional import missing, require
from support.paths import EXAMPLES

EXAMPLE = EXAMPLES / "stream_numba.py"


@pytest.mark.parametrize("batch", [1, 3])
def test_ctypes(isa: str, dtype: type, batch: int) -> None:
    rng = np.random.default_rng(0)
    layer = LSTM(3, 17, 2, dtype=dtype, isa=isa, seed=0)
    x = rng.normal(size=(40, batch, 3)).astype(dtype)
    state = random_state(rng, (2, batch, 17), dtype)
    expected, last = layer(x, state)
    stream, y = layer.stream(batch), np.empty_like(expected)
    stream.state = state
    step = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)(
        stream.step_address
    )
    for x_t, y_t in zip(x[:30], y, strict=False):
        step(stream.address, x_t.ctypes.data, y_t.ctypes.data)
    # It is the same stream as Python's.
    y[30:] = stream.push(x[30:])
    assert_same_bits(y, expected)
    for got, wanted in zip(stream.state, last, strict=True):
        assert_same_bits(got, wanted)


def test_addresses() -> None:
    layer = LSTM(3, 5)
    one, two = layer.stream(), layer.stream()
    assert one.address != two.address
    assert one.step_address == two.step_address != 0


def test_numba_example(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    require("numba")
    if not EXAMPLE.exists():
        missing(EXAMPLE.name)
    spec = importlib.util.spec_from_file_location("stream_numba", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    example: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)

    rng = np.random.default_rng(0)
    layer = LSTM(1, 20, seed=0)
    x = rng.normal(size=(500, 1)).astype(np.float32)
    head = rng.normal(size=20).astype(np.float32)
    expected, _ = layer(x)
    stream, y, h = layer.stream(), np.empty(500, np.float32), np.empty((500, 20), np.float32)
    example.make_effect(stream)(stream.address, x, head, y, h)
    assert_same_bits(h, expected)
    np.testing.assert_allclose(y, x[:, 0] + expected @ head, rtol=0, atol=1e-5)

    monkeypatch.setattr(sys, "argv", ["stream_numba.py", "--samples", "200"])
    example.main()
    printed = capsys.readouterr().out
    assert "bits equal those of the layer on the whole sequence: True" in printed
    assert printed.count("ns a sample") == 2


CYTHON = """
# cython: language_level=3, freethreading_compatible=True
from fastlstm._core cimport stream_handle, stream_step

def run(object stream, const float[:, ::1] x, float[:, ::1] y):
    cdef void *handle = stream_handle(stream)
    cdef Py_ssize_t t
    with nogil:
        for t in range(x.shape[0]):
            stream_step(handle, &x[t, 0], &y[t, 0])
"""

BUILD = """
import sys
from setuptools import Distribution, Extension
from Cython.Build import cythonize

modules = cythonize([Extension("user", ["user.pyx"])], include_path=[sys.argv[1]], quiet=True)
command = Distribution({"ext_modules": modules}).get_command_obj("build_ext")
command.inplace = True
command.ensure_finalized()
command.run()
"""


def test_cython(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require("Cython")
    require("setuptools")
    if not compiler():
        missing("a C compiler")
    package = Path(fastlstm.__file__).parent
    assert (package / "_core.pxd").exists()
    (tmp_path / "user.pyx").write_text(CYTHON)
    build = [sys.executable, "-c", BUILD, str(package.parent)]
    ran = subprocess.run(build, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    monkeypatch.syspath_prepend(str(tmp_path))
    user = importlib.import_module("user")

    layer = LSTM(3, 17, 2, seed=0)
    x = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    expected, _ = layer(x)
    y = np.empty_like(expected)
    user.run(layer.stream(), x, y)
    assert_same_bits(y, expected)
    with pytest.raises(TypeError, match=r"^stream: got LSTM, expected a fastlstm.Stream"):
        user.run(layer, x, y)
