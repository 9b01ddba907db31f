"""The bridge itself: it refuses what would touch foreign memory, whoever calls it."""

from __future__ import annotations

import os
import sys

import numpy as np
import pytest

from fastlstm import LSTM, _core
from fastlstm._spec import Spec
from support.processes import run_python

pytestmark = [
    pytest.mark.default_isa,
    pytest.mark.sanitized,
    pytest.mark.emulated,
    pytest.mark.wheel,
]


def test_available_isas() -> None:
    names = _core.available_isas()
    assert names[-1] == "scalar"
    assert len(set(names)) == len(names)
    assert set(names) <= {"avx512", "avx2", "neon", "scalar"}
    assert _core.default_isa() == os.environ.get("FASTLSTM_ISA", names[0])
    assert LSTM(1, 1).isa == _core.default_isa()


def test_isa_by_name(isa: str) -> None:
    assert LSTM(1, 1, isa=isa).isa == isa


def test_isa_by_environment(isa: str) -> None:
    ran = run_python("import fastlstm; print(fastlstm.LSTM(1, 1).isa)", FASTLSTM_ISA=isa)
    assert (ran.returncode, ran.stdout.strip()) == (0, isa)


@pytest.mark.parametrize("name", ["avx9", "AVX2", "scalar "])
def test_unknown_isa_in_the_environment(name: str) -> None:
    ran = run_python("import fastlstm; fastlstm.LSTM(1, 1)", FASTLSTM_ISA=name)
    assert ran.returncode == 1
    assert f"ValueError: FASTLSTM_ISA: {name!r} is not an instruction set" in ran.stderr
    assert ", ".join(_core.available_isas()) in ran.stderr
    ran = run_python("import fastlstm; print(fastlstm.LSTM(1, 1, isa='scalar').isa)")
    assert ran.stdout.strip() == "scalar"


def test_empty_isa_in_the_environment_means_the_fastest() -> None:
    ran = run_python("import fastlstm; print(fastlstm.LSTM(1, 1).isa)", FASTLSTM_ISA="")
    assert ran.stdout.strip() == _core.available_isas()[0]


def test_build_information() -> None:
    assert _core.compiler().split()[0] in ("GCC", "Clang", "MSVC")
    sizes = _core.cache_sizes()
    assert list(sizes) == [name for name in ("L1d", "L2", "L3") if name in sizes]
    assert all(size >= 1024 for size in sizes.values())


def test_features_of_the_processor() -> None:
    # tests/c/test_features.c compares them with the system's list and tries pretended processors.
    features = set(_core.cpu_features())
    needed = {"avx512": {"fma", "avx2", "avx512f"}, "avx2": {"fma", "avx2"}, "neon": {"neon"}}
    for isa, names in needed.items():
        assert (isa in _core.available_isas()) == (names <= features)


def test_importing_needs_numpy_alone() -> None:
    code = (
        "import sys, numpy; before = set(sys.modules); import fastlstm;"
        "print(sorted({m.split('.')[0] for m in set(sys.modules) - before}))"
    )
    ran = run_python(code)
    imported = {name for name in eval(ran.stdout) if "cython" not in name}
    assert imported - set(sys.stdlib_module_names) <= {"fastlstm", "numpy"}
    # What takes longest to import, and no layer needs. Some of it may have been there before.
    slow = {"argparse", "ast", "dataclasses", "inspect", "json", "pathlib", "shutil", "zipfile"}
    assert not imported & slow


SPEC = Spec(3, 5)


def vector(dtype: type = np.float32) -> np.ndarray:
    return np.zeros(4 * 5 * (3 + 5 + 2), dtype)


def test_model_refuses_other_parameter_vectors() -> None:
    for bad in [
        vector()[:-1], np.zeros(201, np.float32), vector().reshape(2, 100), vector(np.int32),
        vector().astype(">f4"), vector().astype(">f8"), np.zeros(400, np.float32)[::2],
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=r"buffer|contiguous"):
            _core.Model(SPEC, bad, None)
    for sizes in [(0, 5, 1, 1), (3, 0, 1, 1), (3, 5, 0, 1), (3, 5, 1, 3), (-3, 5, 1, 1)]:
        with pytest.raises(ValueError, match="argument"):
            _core.Model(Spec(*sizes), vector(), None)
    with pytest.raises(OverflowError):
        _core.Model(Spec(2**40, 2**40), vector(), None)
    assert _core.Model(SPEC, vector(), None).nbytes >= vector().nbytes


def test_forward_refuses_other_buffers() -> None:
    model = _core.Model(SPEC, vector(), None)
    x, y = np.ones((4, 2, 3), np.float32), np.zeros((4, 2, 5), np.float32)
    state = np.zeros((1, 2, 5), np.float32)
    good = {"x": x, "h_0": state, "c_0": state, "y": y, "h_n": state.copy(), "c_n": state.copy()}
    model.forward(**good)
    read_only = y.copy()
    read_only.flags.writeable = False
    bad: list[dict[str, np.ndarray]] = [
        {"x": x[0]}, {"x": x[:, :, :2]}, {"x": x.astype(np.float64)}, {"x": x.astype(">f4")},
        {"x": np.ones((4, 2, 6), np.float32)[:, :, ::2]}, {"y": y[:3]}, {"y": y[:, :1]},
        {"y": np.zeros((4, 2, 10), np.float32)[:, :, ::2]}, {"y": y[::-1]}, {"y": read_only},
        {"h_0": state[:, :1]}, {"c_0": state.astype(np.float64)}, {"h_0": state[0]},
        {"h_n": read_only[:1]}, {"c_n": np.zeros((1, 5, 2), np.float32).swapaxes(1, 2)},
    ]  # fmt: skip
    for change in bad:
        with pytest.raises(ValueError, match=r"buffer|contiguous|dimension|read-only"):
            model.forward(**{**good, **change})
    with pytest.raises((TypeError, AttributeError)):
        model.forward(**{**good, "x": [1.0]})


def test_activation_checks() -> None:
    x = np.linspace(-5, 5, 37)
    y = np.empty_like(x)
    _core.activation("tanh", x, y)
    assert np.allclose(y, np.tanh(x), rtol=1e-15, atol=0)
    with pytest.raises(ValueError, match=r"^name: 'relu'"):
        _core.activation("relu", x, y)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="size"):
        _core.activation("tanh", x, y[:-1])
    with pytest.raises(ValueError, match="contiguous"):
        _core.activation("tanh", x[::2], y[:19])
    with pytest.raises(ValueError, match=r"^isa: 'mmx'"):
        _core.activation("tanh", x, y, "mmx")
