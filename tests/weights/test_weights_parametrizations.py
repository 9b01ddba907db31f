"""Weights in another parametrisation: computed as PyTorch does in evaluation."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastlstm
from fastlstm.weights import pytorch
from fastlstm.weights.names import find_layers
from support.optional import require

pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm", "ignore:.*weights_only")

TOLERANCE = {"float32": 1e-6, "float64": 1e-14, "float16": 2e-3}


def lstm(*sizes: int, dtype: str = "float32", **options: Any) -> Any:
    torch = require("torch")
    torch.manual_seed(sum(sizes))
    return torch.nn.LSTM(*(sizes or (3, 5)), **options).to(getattr(torch, dtype))


def scaled(module: Any) -> Any:
    """With the parts moved away from what they began as."""
    torch = require("torch")
    with torch.no_grad():
        for number, parameter in enumerate(module.parameters()):
            parameter.mul_(1 + 0.1 * number).add_(0.01)
    return module


def saved(path: Path, arrays: Any) -> Path:
    require("torch").save(arrays, path)
    return path


def run(module: Any, seed: int = 1) -> tuple[Any, Any]:
    """Input, and what the module makes of it in evaluation."""
    torch = require("torch")
    module.eval()
    dtype = next(module.parameters()).dtype
    x = torch.randn(4, 2, module.input_size, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        return x.to(dtype).numpy(), module(x.to(dtype))[0].numpy()


def assert_like(found: Any, module: Any, tolerance: float | None = None) -> None:
    x, expected = run(module)
    layer = found.build()
    tolerance = tolerance or TOLERANCE[layer.dtype.name]
    np.testing.assert_allclose(layer(x.astype(layer.dtype))[0], expected, rtol=0, atol=tolerance)


def norm(name: str = "weight_hh_l0", dim: int | None = 0) -> Callable[[Any], Any]:
    return lambda m: require("torch").nn.utils.weight_norm(m, name, dim)


def new_norm(name: str = "weight_hh_l0", dim: int | None = 0) -> Callable[[Any], Any]:
    return lambda m: require("torch").nn.utils.parametrizations.weight_norm(m, name, dim)


def spectral(name: str = "weight_hh_l0", dim: int = 0) -> Callable[[Any], Any]:
    return lambda m: require("torch").nn.utils.spectral_norm(m, name, dim=dim)


def new_spectral(name: str = "weight_hh_l0", dim: int = 0) -> Callable[[Any], Any]:
    return lambda m: require("torch").nn.utils.parametrizations.spectral_norm(m, name, dim=dim)


def pruned(name: str = "weight_hh_l0") -> Callable[[Any], Any]:
    require("torch")
    import torch.nn.utils.prune

    return lambda m: torch.nn.utils.prune.l1_unstructured(m, name, 0.3)


KINDS = {
    "weight_norm": (norm(), "weight_norm"),
    "weight_norm of dim 1": (norm(dim=1), "weight_norm"),
    "weight_norm of dim -2": (norm(dim=-2), "weight_norm"),
    "weight_norm of all": (norm(dim=None), "weight_norm"),
    "weight_norm of W": (norm("weight_ih_l0"), "weight_norm"),
    "weight_norm of a bias": (norm("bias_ih_l0"), "weight_norm"),
    "new weight_norm": (new_norm(), "weight_norm"),
    "new weight_norm of dim 1": (new_norm(dim=1), "weight_norm"),
    "new weight_norm of all": (new_norm(dim=None), "weight_norm"),
    "new weight_norm of a bias": (new_norm("bias_hh_l0"), "weight_norm"),
    "spectral_norm": (spectral(), "spectral_norm"),
    "spectral_norm of dim 1": (spectral(dim=1), "spectral_norm"),
    "new spectral_norm": (new_spectral(), "spectral_norm"),
    "new spectral_norm of dim 1": (new_spectral(dim=1), "spectral_norm"),
    "new spectral_norm of W": (new_spectral("weight_ih_l0"), "spectral_norm"),
    "pruning": (pruned(), "pruning"),
    "pruning of a bias": (pruned("bias_ih_l0"), "pruning"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("prefix", ["", "encoder.rnn."])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_parametrised_weights(tmp_path: Path, kind: str, prefix: str, dtype: str) -> None:
    parametrise, called = KINDS[kind]
    module = scaled(parametrise(lstm(3, 5, dtype=dtype)))
    if "spectral" in kind:  # a forward pass of training, and then the weight moves
        module.train()
        module(require("torch").ones(2, 3, dtype=module.bias_ih_l0.dtype))
        scaled(module)
    path = saved(tmp_path / "m.pt", {prefix + k: v for k, v in module.state_dict().items()})
    contents = pytorch.read(path)
    assert not contents.refused
    assert not contents.others
    found = contents.choose()
    assert found.name == prefix.removesuffix(".")
    assert_like(found, module)
    assert any(called in note and "folded" in note for note in found.notes)
    arrays = {k: v.numpy() for k, v in module.state_dict().items()}
    np.savez(tmp_path / "m.npz", **arrays)
    assert_like(fastlstm.weights.read(tmp_path / "m.npz").choose(), module)


@pytest.mark.parametrize("kind", ["weight_norm", "new weight_norm", "pruning", "new spectral_norm"])
def test_several_weights_layers_and_directions(tmp_path: Path, kind: str) -> None:
    make: Any = {
        "weight_norm": norm,
        "new weight_norm": new_norm,
        "pruning": pruned,
        "new spectral_norm": new_spectral,
    }[kind]
    module = lstm(3, 5, 2, bidirectional=True)
    for name in [name for name, _ in module.named_parameters() if "weight" in name]:
        module = make(name)(module)
    found = pytorch.read(saved(tmp_path / "m.pt", scaled(module).state_dict())).choose()
    assert found.bidirectional
    assert_like(found, module)
    (note,) = (note for note in found.notes if "folded" in note)
    assert "weight_hh_l1_reverse" in note


def test_several_kinds_in_one(tmp_path: Path) -> None:
    module = pruned("bias_ih_l0")(new_spectral("weight_ih_l0")(new_norm()(lstm())))
    found = pytorch.read(saved(tmp_path / "m.pt", scaled(module).state_dict())).choose()
    assert_like(found, module)
    assert sum("folded" in note for note in found.notes) == 3


@pytest.mark.parametrize("make", [norm, new_norm, pruned, new_spectral])
def test_cells(tmp_path: Path, make: Any) -> None:
    torch = require("torch")
    torch.manual_seed(0)
    cell = scaled(make("weight_hh")(torch.nn.LSTMCell(3, 5))).eval()
    path = saved(tmp_path / "m.pt", {f"cell.{k}": v for k, v in cell.state_dict().items()})
    x = torch.randn(1, 2, 3)
    with torch.no_grad():
        h = cell(x[0], (torch.ones(2, 5), torch.ones(2, 5)))[0].numpy()
    state = np.ones((1, 2, 5), np.float32), np.ones((1, 2, 5), np.float32)
    np.testing.assert_allclose(fastlstm.load(path)(x.numpy(), state)[0][0], h, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.parametrize("new", [False, True])
def test_a_square_weight_tells_its_dim_by_its_vectors(tmp_path: Path, dim: int, new: bool) -> None:
    torch = require("torch")
    module = (new_spectral if new else spectral)("weight_ih_l0", dim)(lstm(20, 5))
    module.train()
    for _ in range(3):
        module(torch.ones(2, 20))
    found = pytorch.read(saved(tmp_path / "m.pt", module.state_dict())).choose()
    assert_like(found, module)


def test_a_square_weight_that_does_not_tell_is_refused(tmp_path: Path) -> None:
    module = spectral("weight_ih_l0")(lstm(20, 5))  # never run: its vectors are random
    (refused,) = pytorch.read(saved(tmp_path / "m.pt", module.state_dict())).refused
    assert "don't tell whether dim was 0 or 1" in refused.reason


def test_norms_of_nothing_are_pytorchs(tmp_path: Path) -> None:
    torch = require("torch")
    module = norm()(lstm())
    with torch.no_grad():
        module.weight_hh_l0_v[3] = 0
    found = pytorch.read(saved(tmp_path / "m.pt", module.state_dict())).choose()
    run(module)
    np.testing.assert_allclose(
        found.arrays["weight_hh_l0"], module.weight_hh_l0.detach().numpy(), rtol=1e-6
    )


# Weight drop


class WeightDrop:
    """What awd-lstm-lm and fastai make of a module: U lies raw, and is dropped at each call."""

    def __init__(self, module: Any, where: str, copies: bool) -> None:
        torch = require("torch")
        state = module.state_dict()
        raw = state.pop("weight_hh_l0")
        if copies:  # of the last call in training
            state["weight_hh_l0"] = torch.nn.functional.dropout(raw, 0.5)
        self.state = {f"rnn.module.{name}": tensor for name, tensor in state.items()}
        self.state[f"{where}.weight_hh_l0_raw"] = raw


@pytest.mark.parametrize("where", ["rnn", "rnn.module"])
@pytest.mark.parametrize("copies", [False, True])
def test_weight_drop(tmp_path: Path, where: str, copies: bool) -> None:
    module = lstm()
    contents = pytorch.read(saved(tmp_path / "m.pt", WeightDrop(module, where, copies).state))
    assert not contents.refused
    found = contents.choose()
    assert found.name == "rnn.module"
    assert_like(found, module)
    assert "weight drop in the file: folded into weight_hh_l0" in found.notes


@pytest.mark.parametrize("copies", [False, True])
def test_layers_of_an_awd_lstm(tmp_path: Path, copies: bool) -> None:
    """Each in a wrapper: they are a stack by their names, as without."""
    layers = [lstm(3, 5), lstm(5, 5)]
    state = {}
    for number, layer in enumerate(layers):
        for name, tensor in WeightDrop(layer, "rnn", copies).state.items():
            state[f"encoder.rnns.{number}{name.removeprefix('rnn')}"] = tensor
    contents = pytorch.read(saved(tmp_path / "m.pt", state))
    (stack,) = contents.layers
    assert [part.name for part in stack.parts] == [f"encoder.rnns.{n}.module" for n in (0, 1)]
    for part, layer in zip(stack.parts, layers, strict=True):
        assert_like(part, layer)


def test_raw_weights_of_several_lstms_are_not_guessed() -> None:
    arrays = {f"rnn.{n}.{k}": v.numpy() for n in "ab" for k, v in lstm().state_dict().items()}
    del arrays["rnn.b.weight_hh_l0"]
    arrays["rnn.weight_hh_l0_raw"] = np.ones((20, 5), np.float32)
    found, refused, _ = find_layers(arrays, None)
    assert {each.name for each in (*found, *refused)} >= {"rnn.b"}
    assert "rnn.b" not in {each.name for each in found}


# What can't be told, and what is hostile


def parts(**changes: Any) -> dict[str, np.ndarray]:
    """Arrays of an LSTM whose U is there in parts."""
    arrays = {k: v.numpy() for k, v in lstm().state_dict().items()}
    del arrays["weight_hh_l0"]
    made = {k.replace("__", "."): np.asarray(v) for k, v in changes.items()}
    return {f"rnn.{k}": v for k, v in (arrays | made).items()}


ONES = np.ones((20, 5), np.float32)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"weight_hh_l0_g": np.ones((5, 1)), "weight_hh_l0_v": ONES}, "norms have shape"),
        ({"weight_hh_l0_g": np.ones((20, 5)), "weight_hh_l0_v": ONES}, "norms have shape"),
        ({"weight_hh_l0_g": np.ones(20), "weight_hh_l0_v": ONES}, "norms have shape"),
        ({"weight_hh_l0_v": ONES}, "remove weight_norm"),
        ({"weight_hh_l0_g": np.ones((20, 1), int), "weight_hh_l0_v": ONES}, "expected floats"),
        ({"weight_hh_l0_orig": ONES, "weight_hh_l0_mask": np.ones((20, 4))}, "mask has shape"),
        ({"weight_hh_l0_orig": ONES}, "remove weight_norm or the like"),
        ({"weight_hh_l0_orig": ONES, "weight_hh_l0_u": np.ones(20)}, "remove weight_norm or"),
        (
            {
                "weight_hh_l0_orig": ONES,
                "weight_hh_l0_u": np.ones(20),
                "weight_hh_l0_v": np.ones(4),
            },
            "singular vectors",
        ),
        ({"parametrizations__weight_hh_l0__original": ONES}, "remove weight_norm or the like"),
        (
            {
                "parametrizations__weight_hh_l0__original": ONES,
                "parametrizations__weight_hh_l0__0__base": ONES,
            },
            "remove weight_norm or the like",
        ),
        (
            {
                "weight_hh_l0": ONES,
                "weight_hh_l0_g": np.ones((20, 1)),
                "weight_hh_l0_v": ONES,
            },
            "which of them counts is not said",
        ),
        ({"weight_hh_l0": ONES, "weight_hh_l0_raw": np.ones((20, 4))}, "expected (20, 5)"),
        (
            {
                "weight_hh_l0_orig": ONES,
                "weight_hh_l0_mask": ONES,
                "weight_hh_l0_u": np.ones(20),
                "weight_hh_l0_v": np.ones(5),
            },
            "remove weight_norm or the like",
        ),
    ],
)
@pytest.mark.parametrize("prefix", ["rnn.", ""])
def test_parts_that_are_not_understood_are_refused(
    changes: dict[str, Any], reason: str, prefix: str
) -> None:
    arrays = {prefix + k.removeprefix("rnn."): v for k, v in parts(**changes).items()}
    found, (refused,), _ = find_layers(arrays, None)
    assert not found
    assert reason in refused.reason


def test_views_of_one_weight_are_not_computed_without_end() -> None:
    """As a hostile file may have them: each costs its names, and its weight would cost memory."""
    big, g = np.ones((2**18, 4), np.float32), np.ones((), np.float32)
    arrays = {}
    for number in range(2000):
        arrays[f"{number}.weight_hh_l0_v"] = big[:]
        arrays[f"{number}.weight_hh_l0_g"] = g
    tracemalloc.start()
    find_layers(arrays, None)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 20 * big.nbytes


@pytest.mark.parametrize("seed", range(20))
def test_other_arrays_stay_as_they_are(seed: int) -> None:
    """Names that end as parts do, of what is no LSTM."""
    rng = np.random.default_rng(seed)
    names = ["conv.weight_g", "conv.weight_v", "weight_orig", "mask", "a.parametrizations.weight.x"]
    arrays = {name: np.ones(2) for name in rng.permutation(names)}
    _, _, others = find_layers(arrays, None)
    assert [other.name for other in others] == list(arrays)
