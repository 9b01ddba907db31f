"""`verify`: what it compares with, how closely, and what it says where the framework fails."""

from __future__ import annotations

import os

os.environ.setdefault("KERAS_BACKEND", "torch")  # before anything imports Keras

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastlstm
from fastlstm import LSTM, BiLSTM, weights
from fastlstm.weights import verify
from fastlstm.weights.contents import Found
from fastlstm.weights.verify import Comparison
from support.optional import require

pytestmark = pytest.mark.filterwarnings(
    # Keras on PyTorch hands its tensors to NumPy in a way that is going out of use.
    "ignore:__array__ implementation:DeprecationWarning",
    "ignore:.*torch.jit.* is deprecated:DeprecationWarning",
    "ignore:.*torch.jit.* is not supported:DeprecationWarning",
)

HALVES = ("float16", "bfloat16")


def compare(path: Path, name: str | None = None) -> Comparison:
    contents = weights.read(path)
    return verify.compare(contents, contents.choose(name))


def compare_with_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> Comparison:
    """Compare what is built of parameters 5 % off."""

    def off(path: Path, found: Found, **options: Any) -> LSTM | BiLSTM:
        layer = found.build(**options)
        layer.load_parameters(layer.parameters * layer.dtype.type(1.05))
        return layer

    with monkeypatch.context() as patch:
        patch.setattr(verify, "build", off)
        return compare(path)


def assert_compares(path: Path, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It agrees with the framework, not with the reference, and an error of 5 % is found."""
    comparison = compare(path)
    assert comparison.against.startswith(f"{package} "), comparison
    assert comparison.agrees, comparison
    assert comparison.difference <= 1e-5
    comparison = compare_with_error(path, monkeypatch)
    assert comparison.against.startswith(f"{package} ")
    assert not comparison.agrees, comparison


# Half precision: both sides compute in float32


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("how", ["state dict", "legacy", "TorchScript", "safetensors"])
def test_pytorch_in_half_precision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str, how: str
) -> None:
    torch = require("torch")
    torch.manual_seed(0)
    module = torch.nn.LSTM(3, 5, 2, bidirectional=True).to(getattr(torch, dtype))
    path = tmp_path / "m.pt"
    if how == "TorchScript":
        torch.jit.save(torch.jit.script(module), path)
    elif how == "safetensors":
        path = path.with_suffix(".safetensors")
        require("safetensors.torch").save_file(module.state_dict(), path)
    else:
        torch.save(module.state_dict(), path, _use_new_zipfile_serialization=how != "legacy")
    assert_compares(path, "torch", monkeypatch)


def test_npz_in_half_precision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require("torch")
    arrays = {k: a.astype(np.float16) for k, a in LSTM(3, 5, seed=0).state_dict().items()}
    path = tmp_path / "m.npz"
    np.savez(path, **arrays)  # type: ignore[arg-type]
    assert_compares(path, "torch", monkeypatch)


def test_onnx_in_half_precision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    onnx = require("onnx")
    require("onnxruntime")
    path = tmp_path / "m.onnx"
    rng = np.random.default_rng(0)
    shapes = {"W": (1, 20, 3), "R": (1, 20, 5), "B": (1, 40)}
    tensors = [
        onnx.numpy_helper.from_array(rng.uniform(-0.5, 0.5, shape).astype(np.float16), name)
        for name, shape in shapes.items()
    ]
    half = onnx.TensorProto.FLOAT16
    node = onnx.helper.make_node("LSTM", ["X", "W", "R", "B"], ["Y"], name="lstm", hidden_size=5)
    graph = onnx.helper.make_graph(
        [node],
        "g",
        [onnx.helper.make_tensor_value_info("X", half, ("T", "B", 3))],
        [onnx.helper.make_tensor_value_info("Y", half, ("T", 1, "B", 5))],
        tensors,
    )
    opset = onnx.helper.make_opsetid("", 17)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8), path)
    assert weights.read(path).choose().stored_dtype == np.float16
    assert_compares(path, "onnxruntime", monkeypatch)


@pytest.mark.parametrize("suffix", [".keras", ".h5", ".weights.h5"])
@pytest.mark.parametrize("policy", [*HALVES, "mixed_float16", "mixed_bfloat16", "float32"])
def test_keras_in_half_precision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, policy: str, suffix: str
) -> None:
    keras = require("keras")
    make = keras.layers
    # By default it is orthogonal, which PyTorch can't draw in half precision.
    draw = {"recurrent_initializer": "glorot_uniform"}
    lstm = make.LSTM(4, return_sequences=True, dtype=policy, **draw)
    model = keras.Sequential([keras.Input((None, 3)), make.Bidirectional(lstm, dtype=policy)])
    path = tmp_path / f"m{suffix}"
    if suffix == ".weights.h5":
        model.save_weights(path)
    else:
        model.save(path)
    if (policy, suffix) == ("bfloat16", ".h5"):  # opaque bytes, and Keras doesn't say of what
        assert not weights.read(path).layers
        return
    assert_compares(path, "keras", monkeypatch)


def test_keras_that_computes_in_another_dtype(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with JAX under it, which makes float32 of float64."""
    require("keras")
    from fastlstm.weights.originals import keras as originals

    path = tmp_path / "m.keras"
    fastlstm.save(LSTM(3, 4, dtype="float64", batch_first=True, seed=0), path)
    as_numpy = originals._as_numpy
    monkeypatch.setattr(originals, "_as_numpy", lambda each: as_numpy(each).astype(np.float32))
    comparison = compare(path)
    assert comparison.against == "the NumPy reference, since Keras computes in float32 here"
    assert comparison.agrees


def test_float64_is_compared_in_float64(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require("torch")
    path = tmp_path / "m.npz"
    fastlstm.save(LSTM(3, 5, dtype="float64", seed=0), path)
    assert_compares(path, "torch", monkeypatch)
    assert compare(path).difference < 1e-13


def test_nan_never_agrees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fastlstm.weights.originals import pytorch

    require("torch")
    path = tmp_path / "m.npz"
    fastlstm.save(LSTM(3, 5, seed=0), path)
    run = pytorch.run

    def with_nan(*arguments: Any) -> Any:
        y, h_n, c_n = run(*arguments)
        c_n[0, 0, 0] = np.nan
        return y, h_n, c_n

    monkeypatch.setattr(pytorch, "run", with_nan)
    assert not compare(path).agrees


# What a file is shows in its contents


@pytest.mark.parametrize("suffix", ["", ".pt", ".safetensors", ".weights"])
def test_npz_by_another_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    require("torch")
    fastlstm.save(LSTM(3, 5, seed=0), tmp_path / "plain.npz")
    path = (tmp_path / "plain.npz").rename(tmp_path / f"m{suffix}")
    assert_compares(path, "torch", monkeypatch)


@pytest.mark.parametrize("suffix", ["", ".npz"])
def test_pytorch_by_another_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    torch = require("torch")
    path = tmp_path / f"m{suffix}"
    torch.save(torch.nn.LSTM(3, 5).state_dict(), path)
    assert_compares(path, "torch", monkeypatch)


def test_safetensors_by_another_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require("torch")
    require("safetensors")
    fastlstm.save(LSTM(3, 5, seed=0), tmp_path / "m.safetensors")
    path = (tmp_path / "m.safetensors").rename(tmp_path / "m.npz")
    assert_compares(path, "torch", monkeypatch)


@pytest.mark.parametrize("dtype", [">f2", ">f4", ">f8"])
def test_npz_in_either_byte_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str
) -> None:
    require("torch")
    arrays = {k: a.astype(dtype) for k, a in LSTM(3, 5, seed=0).state_dict().items()}
    path = tmp_path / "m.npz"
    np.savez(path, **arrays, beside=np.ones(2, np.longdouble))  # type: ignore[arg-type]
    assert_compares(path, "torch", monkeypatch)


# Frameworks that fail


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (
            RuntimeError("bad \x1b magic\nand more"),
            "torch fails with RuntimeError: bad \\x1b magic",
        ),
        (TypeError(), "torch fails with TypeError"),
        (AssertionError("a" * 300), f"torch fails with AssertionError: {'a' * 200}..."),
        (NotImplementedError("no such option"), "no such option"),
        (NotImplementedError(), "torch fails with NotImplementedError"),
        (
            ImportError("libtorch.so: not found"),
            "torch fails with ImportError: libtorch.so: not found",
        ),
        (ModuleNotFoundError("", name="tensorflow.python"), "tensorflow is not installed"),
        (ModuleNotFoundError("no idea which"), "torch is not installed"),
    ],
)
def test_the_reference_stands_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, why: str
) -> None:
    from fastlstm.weights.originals import pytorch

    def fail(*_: Any) -> Any:
        raise error

    path = tmp_path / "m.npz"
    fastlstm.save(LSTM(3, 5, seed=0), path)
    monkeypatch.setattr(pytorch, "run", fail)
    comparison = compare(path)
    assert comparison.against == f"the NumPy reference, since {why}"
    assert comparison.agrees


@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt])
def test_what_is_no_failure_of_a_framework(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    from fastlstm.weights.originals import pytorch

    def fail(*_: Any) -> Any:
        raise error

    path = tmp_path / "m.npz"
    fastlstm.save(LSTM(3, 5, seed=0), path)
    monkeypatch.setattr(pytorch, "run", fail)
    with pytest.raises(error):
        compare(path)


# Stacks that names and sizes alone make


@pytest.mark.parametrize("framework", [True, False])
def test_what_is_assumed_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, framework: bool
) -> None:
    if framework:
        require("torch")
    else:
        monkeypatch.setitem(sys.modules, "torch", None)
    path = tmp_path / "m.npz"
    arrays = {
        f"lstm.{number}.{name}": array
        for number in range(2)
        for name, array in LSTM(5, 5, seed=number).state_dict().items()
    }
    np.savez(path, **arrays)  # type: ignore[arg-type]
    comparison = compare(path, "lstm")
    assert comparison.agrees
    assert comparison.against.startswith("torch " if framework else "the NumPy reference, since ")
    assert comparison.against.endswith(", its layers run one after the other, as assumed")
    assert "assumed" not in compare(path, "lstm.1").against
    fastlstm.save(LSTM(3, 5, 2, seed=0), path, overwrite=True)
    assert "assumed" not in compare(path).against
