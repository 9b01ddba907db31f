"""What `fastlstm.torch` leaves to PyTorch's own modules, says so, or refuses."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from support.optional import require

torch = require("torch")

import fastlstm.torch  # noqa: E402
from fastlstm.torch import _options  # noqa: E402
from support.torch_modules import error_of, flat, pair  # noqa: E402


class Marked(torch.Tensor):
    """A class of tensors of somebody's own."""


class Holder(torch.nn.Module):
    """A model around a module: scripted by itself, torch.nn.LSTM can't be called."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: torch.Tensor):  # type: ignore[no-untyped-def]
        """Run it; annotated, it would have to be of strings, which scripts can't read."""
        return self.module(x)


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_options, "_said", set())


def on_meta(module: Any, x: Any) -> tuple[Any, Any]:
    return copy.deepcopy(module).to("meta"), x.to("meta")


def of_class(module: Any, x: Any) -> tuple[Any, Any]:
    return module, x.as_subclass(Marked)


LEFT = {
    "device": (on_meta, "tensors on the device meta"),
    "class": (of_class, "tensors of the class Marked"),
}


@pytest.mark.parametrize("name", ["LSTM", "LSTMCell"])
@pytest.mark.parametrize("grad", [True, False], ids=["grad", "no_grad"])
@pytest.mark.parametrize(("make", "reason"), LEFT.values(), ids=LEFT.keys())
def test_leaves_it_to_pytorch_and_says_so_once(
    make: Any, reason: str, grad: bool, name: str
) -> None:
    theirs, ours = pair(4, 5, name=name)
    given = torch.randn(3, 4) if name == "LSTMCell" else torch.randn(6, 3, 4)
    module, x = make(ours, given)
    other, _ = make(theirs, given)
    with torch.set_grad_enabled(grad):
        message = f"{name}: {reason} are left to torch.nn.{name}"
        with pytest.warns(UserWarning, match=message) as said:
            got, _ = [flat(module(x)) for _ in range(2)]
        assert len(said) == 1
        assert said[0].filename == __file__
        for our, their in zip(got, flat(other(x)), strict=True):
            assert type(our) is type(their)
            assert (our.shape, our.device, our.dtype) == (their.shape, their.device, their.dtype)
            if our.device.type == "cpu":
                assert torch.equal(our, their)


@pytest.mark.parametrize("name", ["LSTM", "LSTMCell"])
@pytest.mark.parametrize(("make", "reason"), LEFT.values(), ids=LEFT.keys())
def test_strict_modules_refuse(make: Any, reason: str, name: str) -> None:
    ours = getattr(fastlstm.torch, name)(4, 5, strict=True)
    module, x = make(ours, torch.randn(3, 4) if name == "LSTMCell" else torch.randn(6, 3, 4))
    with pytest.raises(RuntimeError, match=f"{name}: got {reason}, .* and strict=True"):
        module(x)


@pytest.mark.parametrize("name", ["LSTM", "LSTMCell"])
def test_own_options_are_not_left_out(name: str) -> None:
    ours = getattr(fastlstm.torch, name)(4, 5, peepholes=True, clip=1.0)
    module, x = on_meta(ours, torch.randn(3, 4))
    with pytest.raises(RuntimeError, match="and that has no peepholes, clip"):
        module(x)


def test_own_arguments_are_not_left_out() -> None:
    module, x = on_meta(fastlstm.torch.LSTM(4, 5), torch.randn(6, 3, 4))
    with pytest.raises(RuntimeError, match="and that has no lengths"):
        module(x, lengths=[1, 2, 3])


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.randn(6, 3, 4).to_sparse(),
        lambda: torch.zeros(6, 3, 4, dtype=torch.complex64),
        lambda: torch.zeros(6, 3, 4, device="meta"),
        lambda: torch.nested.nested_tensor([torch.randn(2, 4), torch.randn(3, 4)]),
    ],
    ids=["sparse", "complex", "device", "nested"],
)
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
@pytest.mark.parametrize("grad", [True, False], ids=["grad", "no_grad"])
def test_has_pytorchs_errors_of_other_tensors(make: Any, grad: bool) -> None:
    theirs, ours = pair(4, 5)
    x = make()
    with torch.set_grad_enabled(grad):
        expected = error_of(lambda: theirs(x))
        assert expected is not None
        assert error_of(lambda: ours(x)) == expected


@pytest.mark.filterwarnings("ignore:`torch.jit")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")  # of torch.nn.LSTM's checks
@pytest.mark.parametrize("name", ["LSTM", "LSTMCell"])
def test_trace_records_pytorchs_own(name: str) -> None:
    theirs, ours = pair(4, 5, name=name)
    x = torch.randn(3, 4) if name == "LSTMCell" else torch.randn(6, 3, 4)
    with pytest.warns(UserWarning, match="a call that torch.jit.trace records"):
        traced = torch.jit.trace(ours, (x,))
    longer = torch.randn(5, 4) if name == "LSTMCell" else torch.randn(8, 2, 4)
    for our, their in zip(flat(traced(longer)), flat(theirs(longer)), strict=True):
        torch.testing.assert_close(our, their)


@pytest.mark.filterwarnings("ignore:`torch.jit")
@pytest.mark.parametrize("name", ["LSTM", "LSTMCell"])
def test_script_compiles_pytorchs_own(name: str) -> None:
    theirs, ours = pair(4, 5, name=name)
    x = torch.randn(3, 4) if name == "LSTMCell" else torch.randn(6, 3, 4)
    with pytest.warns(UserWarning, match="calls that torch.jit.script compiles are left"):
        scripted = torch.jit.script(Holder(ours))
    for our, their in zip(flat(scripted(x)), flat(theirs(x)), strict=True):
        assert torch.equal(our, their)
    with torch.no_grad():
        next(ours.parameters()).zero_()
        next(theirs.parameters()).zero_()
    for our, their in zip(flat(scripted(x)), flat(theirs(x)), strict=True):
        assert torch.equal(our, their)
    with pytest.raises(RuntimeError, match="that has no peepholes"):
        torch.jit.script(getattr(fastlstm.torch, name)(4, 5, peepholes=True))


@pytest.mark.filterwarnings("ignore:`torch.jit.script`")  # PyTorch's own
def test_forward_mode_and_transforms_are_not_left_out() -> None:
    theirs, ours = pair(4, 5, dtype=torch.float64)
    x = torch.randn(6, 3, 4, dtype=torch.float64)
    tangent = torch.randn_like(x)
    with torch.no_grad():
        many = torch.vmap(lambda x: ours(x)[0])(torch.stack([x, 2 * x]))
        torch.testing.assert_close(many[1], theirs(2 * x)[0])
    step = 1e-6
    finite = (theirs(x + step * tangent)[0] - theirs(x - step * tangent)[0]) / (2 * step)
    with torch.no_grad():
        _, pushed = torch.func.jvp(lambda x: ours(x)[0], (x,), (tangent,))
        torch.testing.assert_close(pushed, finite.detach(), rtol=1e-6, atol=1e-8)
        with torch.autograd.forward_ad.dual_level():
            dual = torch.autograd.forward_ad.make_dual(x, tangent)
            _, pushed = torch.autograd.forward_ad.unpack_dual(ours(dual)[0])
    torch.testing.assert_close(pushed, finite.detach(), rtol=1e-6, atol=1e-8)


def test_modes_see_the_operations() -> None:
    ours = fastlstm.torch.LSTM(4, 5)
    seen = []

    class Looking(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(
            self, function: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            seen.append(str(function))
            return function(*args, **(kwargs or {}))

    with torch.no_grad(), Looking():
        ours(torch.randn(6, 3, 4))
    assert any(name.startswith("fastlstm.") for name in seen)


@pytest.mark.parametrize("grad", [True, False], ids=["grad", "no_grad"])
def test_fx_traces_them_as_one_node_like_modules_of_pytorch(grad: bool) -> None:
    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = torch.nn.LSTM(4, 5)
            self.cell = torch.nn.LSTMCell(5, 5)

        def forward(self, x: Any) -> Any:
            y, (h_n, c_n) = self.lstm(x)
            y, _ = self.lstm(x, hx=(h_n, c_n))
            return self.cell(y[-1], (h_n[0], c_n[0]))

    model = Model()
    x = torch.randn(6, 3, 4)
    expected = model(x)
    nodes = [str(node) for node in torch.fx.symbolic_trace(model).graph.nodes]
    assert fastlstm.torch.replace(model).kept == {}
    with torch.set_grad_enabled(grad):
        traced = torch.fx.symbolic_trace(model)
        got = traced(x)
    assert [str(node) for node in traced.graph.nodes] == nodes
    torch.testing.assert_close(got, expected)


def test_fx_traces_own_arguments() -> None:
    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = fastlstm.torch.LSTM(4, 5)

        def forward(self, x: Any, lengths: Any) -> Any:
            return self.lstm(x, lengths=lengths)[0]

    model = Model()
    x = torch.randn(6, 3, 4)
    got = torch.fx.symbolic_trace(model)(x, [6, 1, 2])
    torch.testing.assert_close(got, model(x, [6, 1, 2]))
