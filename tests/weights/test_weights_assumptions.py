"""What a file of weights leaves open, and what is said of it."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastlstm
from fastlstm import cli, weights
from fastlstm.weights import AssumptionWarning
from fastlstm.weights.keras import read
from fastlstm.weights.verify import compare
from support.keras_files import H, I, cell_named, legacy
from support.optional import require

os.environ.setdefault("KERAS_BACKEND", "torch")  # before anything imports Keras

# Keras on PyTorch hands its tensors to NumPy in a way that is going out of use.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

B, T = 3, 7


@pytest.fixture
def x() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(B, T, I)).astype(np.float32)


# Keras' files of weights alone, with what Keras' own equations give


def hard(z: np.ndarray) -> np.ndarray:
    clipped: np.ndarray = np.clip(0.2 * z + 0.5, 0, 1)
    return clipped


def sigmoid(z: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-z))


def by_equations(arrays: dict[str, np.ndarray], x: np.ndarray, gate: Any) -> np.ndarray:
    """Keras' own equations, (B, T, H)."""
    W, U, b = (array.astype(np.float64) for array in arrays.values())
    h = c = np.zeros((len(x), H))
    y = []
    for t in range(x.shape[1]):
        i, f, g, o = np.split(x[:, t] @ W + h @ U + b, 4, axis=1)
        c = gate(f) * c + gate(i) * np.tanh(g)
        h = gate(o) * np.tanh(c)
        y.append(h)
    return np.stack(y, 1)


# The version in the file, the gates of that version, and what `load` says of them.
VERSIONS = [
    ("2.0.6", hard, "hard_sigmoid gates \\(as Keras 2.0.6 has by default\\)"),
    ("2.1.6-tf", hard, "hard_sigmoid gates"),
    ("2.2.5", hard, "hard_sigmoid gates"),
    ("2.2.4-tf", sigmoid, "sigmoid gates \\(as in TensorFlow 2; .* hard_sigmoid in 1.15\\)"),
    ("2.3.0", sigmoid, "sigmoid gates \\(as Keras 2.3.0 has by default\\)"),
    ("2.10.0", sigmoid, "sigmoid gates \\(as Keras 2.10.0"),
    ("3.1.0", sigmoid, "sigmoid gates"),
    (None, sigmoid, "sigmoid gates \\(.*hard_sigmoid in Keras before 2.3\\)"),
    ("strange", sigmoid, "sigmoid gates \\(.*hard_sigmoid in Keras before 2.3\\)"),
]


@pytest.mark.parametrize(("version", "gate", "told"), VERSIONS)
@pytest.mark.parametrize("both", [False, True])
def test_gates_by_the_version_of_keras(
    version: str | None, gate: Any, told: str, both: bool, x: np.ndarray, tmp_path: Path
) -> None:
    one, other = cell_named("l/forward_lstm", 1), cell_named("l/backward_lstm", 2)
    path = legacy(tmp_path / "m.h5", {"l": {**one, **other} if both else one}, version)
    with pytest.warns(AssumptionWarning, match=told) as warned:
        layer = fastlstm.load(path)
    assert len(warned) == 1
    expected = by_equations(one, x, gate)
    if both:
        back = by_equations(other, x[:, ::-1], gate)[:, ::-1]
        expected = np.concatenate([expected, back], axis=2)
    np.testing.assert_allclose(layer(x)[0], expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("version", [version for version, *_ in VERSIONS])
@pytest.mark.parametrize("both", [False, True])
def test_keras_itself_agrees_under_the_assumptions(
    version: str | None, both: bool, tmp_path: Path
) -> None:
    require("keras")
    one, other = cell_named("l/forward_lstm", 1), cell_named("l/backward_lstm", 2)
    path = legacy(tmp_path / "m.h5", {"l": {**one, **other} if both else one}, version)
    result = compare(read(path), read(path).choose())
    assert result.agrees
    assert result.against.startswith("keras ")
    assert result.assumptions == read(path).choose().assumptions


def test_a_version_written_as_an_array(x: np.ndarray, tmp_path: Path) -> None:
    path = legacy(tmp_path / "m.h5", {"l": cell_named("l")}, None)
    with require("h5py").File(path, "a") as file:
        file.attrs["keras_version"] = np.array([b"2.2.4"])
    with pytest.warns(AssumptionWarning, match=r"hard_sigmoid gates \(as Keras 2\.2\.4 has"):
        layer = fastlstm.load(path)
    np.testing.assert_allclose(
        layer(x)[0], by_equations(cell_named("l"), x, hard), rtol=0, atol=2e-6
    )


def test_gates_of_cudnn_are_sigmoids_in_any_version(tmp_path: Path) -> None:
    path = legacy(tmp_path / "m.h5", {"l": cell_named("l", bias=8)}, "2.1.4")
    (found,) = read(path).layers
    assert found.option("gate_activation") == "sigmoid"


@pytest.mark.parametrize(
    ("version", "gate"), [("2.2.0", "hard_sigmoid"), ("2.4.0", "sigmoid"), (None, "sigmoid")]
)
def test_a_configuration_without_gates(version: str | None, gate: str, tmp_path: Path) -> None:
    h5py = require("h5py")
    path = legacy(tmp_path / "m.h5", {"l": cell_named("l")}, version)
    layers = [{"class_name": "LSTM", "config": {"name": "l", "units": H}}]
    text = json.dumps({"class_name": "Sequential", "config": {"layers": layers}})
    with h5py.File(path, "a") as file:
        file.attrs["model_config"] = text
    found = read(path).choose()
    assert found.option("gate_activation") == gate
    assert bool(found.assumptions) == (version is None)


def test_the_command_line_says_what_is_assumed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = legacy(tmp_path / "m.h5", {"l": cell_named("l")}, "2.1.4")
    (assumed,) = read(path).choose().assumptions
    assert cli.main(["verify", str(path)]) == 0
    assert f"under these assumptions: {assumed}" in capsys.readouterr().out
    assert cli.main(["verify", str(path), "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)["lstms"]
    assert told["assumptions"] == [assumed]
    assert told["agrees"] is True
    assert cli.main(["inspect", str(path)]) == 0
    assert f"assumption: {assumed}" in capsys.readouterr().out
    assert cli.main(["inspect", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["lstms"][0]["assumptions"] == [assumed]
    assert cli.main(["convert", str(path), str(tmp_path / "m.npz")]) == 0
    assert capsys.readouterr().err.count(assumed) == 1
    fastlstm.load(tmp_path / "m.npz")  # which says all


def test_a_warning_can_be_turned_off_by_its_category(tmp_path: Path) -> None:
    path = legacy(tmp_path / "m.h5", {"l": cell_named("l")}, "2.1.4")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", weights.AssumptionWarning)
        fastlstm.load(path)


# Arrays with names


@pytest.mark.parametrize("suffix", [".npz", ".pt"])
def test_complete_files_load_without_a_warning(suffix: str, tmp_path: Path) -> None:
    """What PyTorch's names and shapes don't say is as `torch.nn.LSTM` has it."""
    layer = fastlstm.BiLSTM(3, 5, 2, proj_size=2, seed=0)
    path = tmp_path / f"m{suffix}"
    if suffix == ".npz":
        np.savez(path, **layer.state_dict())  # type: ignore[arg-type]
    else:
        torch = require("torch")
        torch.save({name: torch.tensor(a) for name, a in layer.state_dict().items()}, path)
    assert fastlstm.weights.read(path).choose().assumptions == ()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fastlstm.load(path)


@pytest.mark.parametrize("options", [{"peepholes": True}, {"layer_norm": True}])
def test_arrays_of_this_package_alone_need_its_options(
    options: dict[str, Any], tmp_path: Path
) -> None:
    layer = fastlstm.LSTM(3, 5, seed=0, **options)
    np.savez(tmp_path / "m.npz", **layer.state_dict())  # type: ignore[arg-type]
    with pytest.warns(fastlstm.weights.AssumptionWarning, match=r"no clip, separate gates"):
        fastlstm.load(tmp_path / "m.npz")
    fastlstm.save(layer, tmp_path / "m.npz", overwrite=True)
    fastlstm.load(tmp_path / "m.npz")


def test_a_stack_by_its_names_is_warned_of(tmp_path: Path) -> None:
    stack = {
        f"lstm.{number}.{name}": array
        for number in range(2)
        for name, array in fastlstm.LSTM(5, 5, seed=number).state_dict().items()
    }
    np.savez(tmp_path / "m.npz", **stack)  # type: ignore[arg-type]
    with pytest.warns(fastlstm.weights.AssumptionWarning, match="between the layers"):
        assert fastlstm.load(tmp_path / "m.npz", "lstm").num_layers == 2
    fastlstm.load(tmp_path / "m.npz", "lstm.1")
