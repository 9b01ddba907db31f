"""`replace` swaps the LSTMs of a model and nothing else, and `restore` undoes it."""

from __future__ import annotations

import copy
import io
import pickle
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from support.optional import require

torch = require("torch")

from torch import nn  # noqa: E402
from torch.nn.utils import parametrize, prune  # noqa: E402

import fastlstm.torch as ours  # noqa: E402

# What PyTorch says of its own projections.
pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning")


class Tagger(nn.Module):  # type: ignore[misc]
    """LSTMs as models have them: by name, in containers, shared, nested."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(3, 4)
        self.encoder = nn.LSTM(4, 3, 2, bidirectional=True, batch_first=True)
        self.stack = nn.ModuleList([nn.LSTM(6, 6, batch_first=True) for _ in range(2)])
        self.again = self.encoder_of_two = self.stack[1]
        self.cells = nn.ModuleDict({"a": nn.LSTMCell(6, 5), "b": nn.LSTMCell(6, 5, bias=False)})
        self.projecting = nn.Sequential(OrderedDict(lstm=nn.LSTM(6, 5, proj_size=2, dropout=0)))

    def forward(self, x: Any) -> Any:
        y, _ = self.encoder(self.embed(x))
        for layer in self.stack:
            y, _ = layer(y)
        y, _ = self.again(y)
        h, c = self.cells["a"](y[:, 0])
        h, c = self.cells["b"](y[:, 1], (h, c))
        p, _ = self.projecting(y)
        return torch.cat([p.flatten(1), h, c], dim=1)


NAMES = ["encoder", "stack.0", "stack.1", "cells.a", "cells.b", "projecting.lstm"]
X = torch.linspace(-1, 1, 2 * 5 * 3).reshape(2, 5, 3)


@pytest.fixture
def model() -> Any:
    torch.manual_seed(0)
    return Tagger()


def gradients(model: Any) -> dict[str, Any]:
    model.zero_grad()
    model(X).pow(2).sum().backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def close(a: Any, b: Any) -> None:
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_all_are_swapped_and_back(model: Any) -> None:
    modules = dict(model.named_modules())
    contents = {name: dict(vars(module)) for name, module in modules.items()}
    y, expected = model(X), gradients(model)
    report = ours.replace(model)
    assert list(report.swapped) == NAMES
    assert report.kept == {}
    assert {type(modules[name]) for name in NAMES} == {ours.LSTM, ours.LSTMCell}
    assert dict(model.named_modules()) == modules
    close(model(X), y)
    close(gradients(model), expected)
    with torch.no_grad():
        close(model(X), y)
    again = ours.restore(model)
    assert list(again.swapped) == NAMES
    assert {type(modules[name]) for name in NAMES} == {nn.LSTM, nn.LSTMCell}
    assert dict(model.named_modules()) == modules
    assert {name: dict(vars(module)).keys() for name, module in modules.items()} == {
        name: own.keys() for name, own in contents.items()
    }
    assert torch.equal(model(X), y)
    assert ours.restore(model).swapped == {}


def test_parameters_are_the_same_objects(model: Any) -> None:
    parameters = dict(model.named_parameters())
    state = model.state_dict()
    ours.replace(model)
    assert list(model.state_dict()) == list(state)
    assert all(model.get_parameter(name) is p for name, p in parameters.items())
    ours.restore(model)
    assert all(model.get_parameter(name) is p for name, p in parameters.items())


def test_an_optimizer_and_tied_weights_go_on(model: Any) -> None:
    model.stack[0].weight_hh_l0 = model.stack[1].weight_hh_l0
    theirs = copy.deepcopy(model)
    ours.replace(model)
    assert model.stack[0].weight_hh_l0 is model.stack[1].weight_hh_l0
    losses = []
    for one in (theirs, model):
        optimizer = torch.optim.Adam(one.parameters(), lr=0.01)
        for _ in range(4):
            optimizer.zero_grad()
            loss = one(X).pow(2).mean()
            loss.backward()
            optimizer.step()
        losses.append(loss.detach())
    close(losses[1], losses[0])
    close(dict(model.named_parameters()), dict(theirs.named_parameters()))


def test_what_is_in_a_module_stays(model: Any) -> None:
    seen: list[str] = []
    encoder = model.encoder
    encoder.register_forward_pre_hook(lambda *_: seen.append("before"))
    encoder.register_forward_hook(lambda *_: seen.append("after"))
    encoder.register_full_backward_hook(lambda *_: seen.append("backward"))
    encoder.register_state_dict_pre_hook(lambda *_: seen.append("state"))
    encoder.label = "mine"
    encoder.extra = nn.Linear(2, 2)
    encoder.weight_hh_l0.requires_grad_(False)
    encoder.eval()
    ours.replace(model)
    assert not encoder.training
    assert model.training
    assert encoder.label == "mine"
    assert encoder.extra.in_features == 2
    assert not encoder.weight_hh_l0.requires_grad
    model(X).sum().backward()
    assert encoder.weight_hh_l0.grad is None
    assert encoder.weight_ih_l0.grad is not None
    model.state_dict()
    assert seen == ["before", "after", "backward", "state"]
    ours.restore(model)
    assert encoder.label == "mine"


@pytest.mark.parametrize("name", ["LSTM", "LSTMCell"])
def test_the_model_itself(name: str) -> None:
    model = getattr(nn, name)(3, 4)
    report = ours.replace(model)
    assert list(report.swapped) == [""]
    assert type(model) is getattr(ours, name)
    assert "(the model)" in str(report)
    ours.restore(model)
    assert type(model) is getattr(nn, name)


@pytest.mark.parametrize("name", ["float64", "bfloat16", "float16"])
def test_dtype_stays(model: Any, name: str) -> None:
    dtype = getattr(torch, name)
    model.to(dtype)
    with torch.no_grad():
        y = model(X.to(dtype))
        ours.replace(model)
        assert {parameter.dtype for parameter in model.parameters()} == {dtype}
        result = model(X.to(dtype))
    assert result.dtype == dtype
    tolerance = {"float64": 1e-14, "bfloat16": 3e-2, "float16": 3e-3}[name]
    torch.testing.assert_close(result, y, rtol=tolerance, atol=tolerance)


def test_meta_is_swapped_and_filled_later() -> None:
    torch.manual_seed(0)
    filled = Tagger()
    with torch.device("meta"):
        model = Tagger()
    ours.replace(model)
    model.to_empty(device="cpu")
    model.load_state_dict(filled.state_dict())
    close(model(X), filled(X))
    with torch.device("meta"):
        model = Tagger()
    ours.replace(model)
    model.load_state_dict(filled.state_dict(), assign=True)
    close(model(X), filled(X))


def test_nothing_is_drawn(model: Any) -> None:
    """A seed gives the same model and dropout with and without `replace`."""
    torch.manual_seed(3)
    before = torch.get_rng_state()
    ours.replace(model)
    assert torch.equal(torch.get_rng_state(), before)


# What is not swapped


class Derived(nn.LSTM):  # type: ignore[misc]
    """A class of a user's."""


class Forwarding:
    """A forward that was put in place of a module's own."""

    def __init__(self, module: Any) -> None:
        self.module = module

    def __call__(self, *args: Any) -> Any:
        return type(self.module).forward(self.module, *args)


def with_forward(module: Any) -> Any:
    module.forward = Forwarding(module)
    return module


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: Derived(3, 4), "Derived is derived from LSTM"),
        (lambda: with_forward(nn.LSTM(3, 4)), "forward was replaced"),
        (lambda: nn.LSTM(3, 4).to(torch.float8_e5m2), "float8"),
        (lambda: nn.LSTM(3, 4, 1001), "num_layers"),
        (lambda: torch.jit.script(nn.LSTM(3, 4)), "scripted"),
        (lambda: torch.jit.script(nn.LSTMCell(3, 4)), "scripted"),
    ],
    ids=["derived", "forward", "dtype", "layers", "script", "script cell"],
)
@pytest.mark.filterwarnings("ignore:`torch.jit.script")
def test_what_is_kept_and_why(make: Callable[[], Any], why: str) -> None:
    kept = make()
    model = nn.ModuleDict({"a": nn.LSTM(3, 4), "b": kept})
    cls = type(kept)
    report = ours.replace(model)
    assert list(report.swapped) == ["a"]
    assert list(report.kept) == ["b"]
    assert why in report.kept["b"]
    assert type(kept) is cls
    assert why in str(report)
    ours.restore(model)
    with pytest.raises(ValueError, match=r"strict=True: b: "):
        ours.replace(model, strict=True)
    assert type(model["a"]) is nn.LSTM


def test_other_modules_are_not_named() -> None:
    model = nn.Sequential(nn.GRU(3, 4), nn.Linear(4, 5))
    report = ours.replace(model)
    assert report == ({}, {})
    assert str(report) == "no LSTM found"


def test_twice_is_once(model: Any) -> None:
    ours.replace(model)
    assert ours.replace(model) == ({}, {})
    ours.restore(model)
    assert type(model.encoder) is nn.LSTM


def test_layers_made_with_this_package_stay() -> None:
    model = nn.Sequential(ours.LSTM(3, 4), nn.LSTM(4, 4))
    assert list(ours.replace(model).swapped) == ["1"]
    ours.restore(model)
    assert [type(module) for module in model] == [ours.LSTM, nn.LSTM]


def test_strict_reaches_the_modules(model: Any) -> None:
    ours.replace(model, strict=True)
    assert model.encoder.strict
    assert model.cells["a"].strict


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"model": [nn.LSTM(1, 2)]}, TypeError, r"model: got list, expected a torch\.nn\.Module"),
        ({"bits": 7}, ValueError, "bits: got 7, expected 8, 16 or 24"),
        ({"bits": "8"}, TypeError, "bits: got '8', expected 8, 16 or 24"),
        ({"data": [X]}, ValueError, "data: got some without bits"),
        ({"bits": 8}, ValueError, "bits: got 8, and encoder is in training mode"),
    ],
)
def test_errors(
    model: Any, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        ours.replace(**({"model": model} | arguments))
    assert type(model.encoder) is nn.LSTM


def test_restore_wants_a_module() -> None:
    with pytest.raises(TypeError, match="model: got NoneType"):
        ours.restore(None)


# Copies


def saved(model: Any) -> Any:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize(
    "copied",
    [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model)), saved],
    ids=["deepcopy", "pickle", "save"],
)
def test_copies(model: Any, copied: Callable[[Any], Any]) -> None:
    y = model(X)
    ours.replace(model)
    with torch.no_grad():
        model(X)  # what packs weights
    again = copied(model)
    assert type(again.encoder) is ours.LSTM
    assert again.stack[1] is again.again
    with torch.no_grad():
        close(again(X), y)
        for parameter in again.parameters():
            parameter.zero_()
        assert not torch.allclose(again(X), y)
        close(model(X), y)
    ours.restore(again)
    assert type(again.encoder) is nn.LSTM
    assert type(model.encoder) is ours.LSTM


# What PyTorch does to modules


class Doubled(nn.Module):  # type: ignore[misc]
    def forward(self, x: Any) -> Any:
        return 2 * x

    def right_inverse(self, x: Any) -> Any:
        return x / 2


def parametrized(lstm: Any) -> None:
    parametrize.register_parametrization(lstm, "weight_hh_l0", Doubled())


CHANGES: dict[str, Callable[[Any], Any]] = {
    "parametrize": parametrized,
    "weight_norm": lambda lstm: nn.utils.parametrizations.weight_norm(lstm, "weight_hh_l0"),
    "old weight_norm": lambda lstm: nn.utils.weight_norm(lstm, "weight_hh_l0"),
    # Each look at the weight iterates, and the two look at it a different number of times.
    "spectral_norm": lambda lstm: nn.utils.parametrizations.spectral_norm(
        lstm, "weight_ih_l0", n_power_iterations=50
    ),
    "old spectral_norm": lambda lstm: nn.utils.spectral_norm(lstm, "weight_ih_l0"),
    "orthogonal": lambda lstm: nn.utils.parametrizations.orthogonal(lstm, "weight_hh_l0"),
    "prune": lambda lstm: prune.l1_unstructured(lstm, "weight_hh_l0", amount=0.3),
}


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("change", CHANGES)
def test_computed_parameters(change: str, when: str) -> None:
    """Changed before `replace` or after: a few steps of training, and inference between them."""
    torch.manual_seed(0)
    theirs = nn.LSTM(3, 4, dtype=torch.float64)
    model = copy.deepcopy(theirs)
    torch.manual_seed(1)
    CHANGES[change](theirs)
    if when == "after":
        ours.replace(model)
    torch.manual_seed(1)
    CHANGES[change](model)
    if when == "before":
        ours.replace(model)
    assert isinstance(model, ours.LSTM)
    assert list(model.state_dict()) == list(theirs.state_dict())
    x = torch.linspace(-1, 1, 5 * 2 * 3, dtype=torch.float64).reshape(5, 2, 3)
    optimizers = [torch.optim.SGD(one.parameters(), lr=0.1) for one in (theirs, model)]
    for _ in range(3):
        results = []
        for one, optimizer in zip((theirs, model), optimizers, strict=True):
            optimizer.zero_grad()
            y, _ = one(x)
            y.pow(2).sum().backward()
            results.append({name: p.grad for name, p in one.named_parameters()} | {"y": y})
            optimizer.step()
        close(results[1], results[0])
        theirs.eval()
        model.eval()
        with torch.no_grad():
            close(model(x)[0], theirs(x)[0])
            close(model(x)[0], theirs(x)[0])
        theirs.train()
        model.train()
    ours.restore(model)
    assert type(model).__name__ == type(theirs).__name__
    close(model(x)[0], theirs(x)[0])


def test_parametrizations_come_and_go() -> None:
    torch.manual_seed(0)
    model = nn.LSTM(3, 4)
    x = torch.ones(5, 2, 3)
    y, _ = model(x)
    parametrized(model)
    ours.replace(model)
    copied = copy.deepcopy(model)
    ours.restore(copied)  # a class of its own: PyTorch's copies share that of the original
    parametrize.remove_parametrizations(model, "weight_hh_l0")
    assert type(model) is ours.LSTM
    close(model(x)[0], y)
    ours.restore(model)
    assert type(model) is nn.LSTM
    close(model(x)[0], y)
    parametrize.remove_parametrizations(copied, "weight_hh_l0")
    assert type(copied) is nn.LSTM
    close(copied(x)[0], y)


def test_what_was_compiled_before_runs_anew(model: Any) -> None:
    """Compiled code is of the modules that there were: it is not used for others."""
    lstm = model.encoder
    graphs: list[Any] = []

    def backend(graph: Any, _: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(lstm, backend=backend)
    x = torch.ones(2, 5, 4)
    with torch.no_grad():
        y = compiled(x)[0]
        ours.replace(model)
        close(compiled(x)[0], y)
        assert any("fastlstm" in str(node.target) for node in graphs[-1].graph.nodes)
        ours.restore(model)
        assert torch.equal(compiled(x)[0], y)
    torch._dynamo.reset()


def test_arrays_of_the_state_are_shared_with_nobody(model: Any) -> None:
    """A result does not change with the next call."""
    ours.replace(model)
    with torch.no_grad():
        first = model(X)
        kept = first.clone()
        model(-X)
    np.testing.assert_array_equal(first.numpy(), kept.numpy())
