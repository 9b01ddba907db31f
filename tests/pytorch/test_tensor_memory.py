"""Passes on the memory of tensors are those of arrays, to the bit, and unusual tensors are seen."""

from __future__ import annotations

import gc
import pickle
import sys
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from support.optional import require

torch = require("torch")

from fastlstm.torch import LSTM, _memory, _module, _ops, _weights  # noqa: E402
from support.torch_modules import flat  # noqa: E402

T, B, I, H = 4, 3, 5, 7

if torch.__version__ < torch.torch_version.TorchVersion("2.10"):
    pytest.skip("it has no exchange API of DLPack", allow_module_level=True)
assert _memory.TENSORS is not None


@pytest.fixture(params=[torch.float32, torch.float64], ids=str)
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


def random(*shape: int, dtype: Any, seed: int = 1) -> Any:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def layer(dtype: Any, **options: Any) -> LSTM:
    torch.manual_seed(0)
    return LSTM(I, H, 2, bidirectional=True, **options).to(dtype)


def results_of(lstm: LSTM, x: Any, hx: Any, dy: Any = None) -> list[np.ndarray]:
    """Outputs and states without gradients and with them, and gradients of all that has some."""
    with torch.no_grad():
        y, states = lstm(x, hx)
    found = [y, *states]
    leaves = [*lstm.parameters()]
    given = []
    for tensor in (x, *(hx or ())):
        leaf = tensor.detach() if type(tensor) is not torch.Tensor else tensor
        given.append(leaf.requires_grad_(leaf.is_leaf))
        leaves += [given[-1]] * given[-1].requires_grad
    y, states = lstm(given[0], tuple(given[1:]) or None)
    outputs, seeds = [y, *states], [dy, *(torch.full_like(s, 0.3) for s in states)]
    if dy is None:
        seeds[0] = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)
    found += [*outputs, *torch.autograd.grad(outputs, leaves, seeds)]
    return [tensor.detach().resolve_neg().numpy().copy() for tensor in found]


def without(monkeypatch: pytest.MonkeyPatch) -> None:
    """Go the way of PyTorch before 2.10."""
    for module in (_memory, _module, _ops, _weights):
        monkeypatch.setattr(module, "TENSORS", None)


def assert_both_ways(
    monkeypatch: pytest.MonkeyPatch, make: Callable[[], tuple[Any, ...]]
) -> list[np.ndarray]:
    """Compare bits of both ways, each with inputs of its own."""
    got = results_of(*make())
    with monkeypatch.context() as patched:
        without(patched)
        expected = results_of(*make())
    assert len(got) == len(expected)
    for one, other in zip(got, expected, strict=True):
        np.testing.assert_array_equal(one.view(np.uint8), other.view(np.uint8))
    return got


def tensors(dtype: Any) -> dict[str, Any]:
    """Inputs (T, B, I) whose memory is not as it usually is."""
    plain = random(T, B, I, dtype=dtype)
    expanded = random(T, 1, I, dtype=dtype).expand(T, B, I)
    imaginary = torch.complex(plain, plain.flip(0)).conj().imag
    assert imaginary.is_neg()
    return {
        "plain": plain,
        "turned": random(B, T, I, dtype=dtype).transpose(0, 1),
        "every other step": random(2 * T, B, I, dtype=dtype)[::2],
        "every other number": random(T, B, 2 * I, dtype=dtype)[..., ::2],
        "part of a row": random(T, B, I + 3, dtype=dtype)[..., 2:-1],
        "expanded": expanded,
        "negated": imaginary,
        "a parameter": torch.nn.Parameter(plain.clone()),
    }


@pytest.mark.parametrize("which", list(tensors(torch.float32)))
@pytest.mark.parametrize("stateful", [False, True], ids=["zeros", "states"])
def test_any_memory(which: str, stateful: bool, kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def make() -> tuple[Any, ...]:
        state = tuple(random(4, B, H, dtype=kind, seed=seed) for seed in (2, 3))
        return layer(kind), tensors(kind)[which], state if stateful else None

    got = assert_both_ways(monkeypatch, make)
    theirs = torch.nn.LSTM(I, H, 2, bidirectional=True).to(kind)
    lstm, x, state = make()
    theirs.load_state_dict(lstm.state_dict())
    with torch.no_grad():
        y, _ = theirs(x.detach().resolve_neg(), state)
    bound = 1e-5 if kind is torch.float32 else 1e-12
    np.testing.assert_allclose(got[0], y.numpy(), rtol=bound, atol=bound)


@pytest.mark.parametrize("options", [{"batch_first": True}, {"proj_size": 3}], ids=str)
def test_options(options: dict[str, Any], kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    P = options.get("proj_size", H)

    def make() -> tuple[Any, ...]:
        state = random(4, B, P, dtype=kind, seed=2), random(4, B, H, dtype=kind, seed=3)
        shape = (B, T, I) if options.get("batch_first") else (T, B, I)
        return layer(kind, **options), random(*shape, dtype=kind), state

    assert_both_ways(monkeypatch, make)


@pytest.mark.parametrize("which", ["turned", "expanded", "negated", "part of a row"])
def test_any_memory_of_gradients(which: str, kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def make() -> tuple[Any, ...]:
        wide = random(T, B, 2 * H, dtype=kind, seed=4)
        dy = {
            "turned": random(B, T, 2 * H, dtype=kind, seed=4).transpose(0, 1),
            "expanded": wide[:, :1].expand(T, B, 2 * H),
            "negated": torch.complex(wide, wide.flip(0)).conj().imag,
            "part of a row": random(T, B, 2 * H + 3, dtype=kind, seed=4)[..., 2:-1],
        }[which]
        return layer(kind), random(T, B, I, dtype=kind), None, dy

    assert_both_ways(monkeypatch, make)


def test_parameters_in_one_block_of_memory(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As optimisers and FSDP lay them: views into a vector, one of them turned."""

    def make() -> tuple[Any, ...]:
        lstm = layer(kind)
        block = torch.cat([p.detach().flatten() for p in lstm.parameters()])
        at = 0
        for p in lstm.parameters():
            p.data = block[at : at + p.numel()].view_as(p)
            at += p.numel()
        first = lstm.weight_ih_l0
        first.data = first.data.t().contiguous().t()
        assert not first.is_contiguous()
        return lstm, random(T, B, I, dtype=kind), None

    assert_both_ways(monkeypatch, make)


class Derived(torch.Tensor):  # type: ignore[misc]
    """A tensor whose numbers may be elsewhere."""


def calls(dtype: Any) -> dict[str, tuple[Any, ...]]:
    """Arguments of Tensors.forward that it must leave alone, with their reasons."""
    x = random(T, B, I, dtype=dtype)
    h, c = (random(4, B, H, dtype=dtype, seed=seed) for seed in (2, 3))
    other = torch.float64 if dtype is torch.float32 else torch.float32
    gone = random(T, B, I, dtype=dtype)
    gone.untyped_storage().resize_(0)
    bytes_ = torch.zeros(x.nbytes + 1, dtype=torch.uint8).numpy()[1:]
    odd = np.frombuffer(bytes_.data, x.numpy().dtype).reshape(T, B, I)
    return {
        "not a tensor": (x.numpy(), h, c),
        "None": (None, h, c),
        "a derived class": (x.as_subclass(Derived), h, c),
        "another dtype": (x.to(other), h, c),
        "half": (x.half(), h, c),
        "whole numbers": (x.long(), h, c),
        "complex": (torch.complex(x, x), h, c),
        "sparse": (x.to_sparse(), h, c),
        "meta": (x.to("meta"), h, c),
        "without memory": (gone, h, c),
        "negated": (torch.complex(x, x).conj().imag, h, c),
        "between numbers": (torch.from_numpy(odd), h, c),
        "one axis": (x[0, 0], h, c),
        "four axes": (x[None], h, c),
        "another width": (x[..., :-1], h, c),
        "no step": (x[:0], h, c),
        "no sequence": (x[:, :0], h[:, :0], c[:, :0]),
        "strided numbers": (random(T, B, 2 * I, dtype=dtype)[..., ::2], h, c),
        "half a state": (x, h, None),
        "a state of another batch": (x, h[:, :-1], c[:, :-1]),
        "a state of another width": (x, h[..., :-1], c),
        "a state with gaps": (x, random(4, B, 2 * H, dtype=dtype)[..., :H], c),
        "a state of one sequence": (x, h[:, 0], c[:, 0]),
        "a batch's state for a sequence": (x[:, 0], h, c),
        "more than there is": (x[:1, :1].expand(2**40, 2**20, I), None, None),
    }


@pytest.mark.parametrize("why", list(calls(torch.float32)))
def test_what_is_left_alone(why: str, kind: Any) -> None:
    lstm = layer(kind)
    model = lstm._packed_model(lstm._specs[kind], lstm._flat_weights_names)
    assert model is not None
    x, h, c = calls(kind)[why]
    for recorded in (False, True):
        assert _memory.TENSORS.forward(model, x, h, c, False, recorded) is None
    good = calls(kind)["None"][1:]
    assert _memory.TENSORS.forward(model, random(T, B, I, dtype=kind), *good, False, True)


def test_gradients_that_are_left_alone(kind: Any) -> None:
    lstm = layer(kind)
    model = lstm._packed_model(lstm._specs[kind], lstm._flat_weights_names)
    vector = np.concatenate([p.detach().numpy().ravel() for p in lstm.parameters()])
    x, (h, c) = random(T, B, I, dtype=kind), calls(kind)["None"][1:]
    y, h_n, c_n, tape = _memory.TENSORS.forward(model, x, h, c, False, True)
    seeds, wanted = (y, h_n, c_n), (True,) * 4

    def backward(**other: Any) -> Any:
        given = {"x": x, "h": h, "c": c, "tape": tape, "seeds": seeds, "wanted": wanted, **other}
        return _memory.TENSORS.backward(model, vector, *given.values())

    found = backward()
    assert [g.shape for g in found] == [x.shape, h.shape, c.shape, vector.shape]
    none = backward(seeds=(None,) * 3, wanted=(False,) * 4)
    assert none == [None] * 4
    for other in (
        {"x": x[:, 0]},
        {"x": x[..., :-1]},
        {"h": None},
        {"c": c[:, :-1]},
        {"tape": tape[..., :-1]},
        {"tape": tape[:, :-1]},
        {"tape": tape.flatten()},
        {"tape": tape.to(torch.float16)},
        {"seeds": (y, h_n)},
        {"seeds": (y[:-1], h_n, c_n)},
        {"seeds": (y, h_n[..., :-1], c_n)},
        {"seeds": (y, h_n, c_n.to(torch.float16))},
        {"seeds": (y, h_n, np.zeros(c_n.shape))},
        {"wanted": (True,) * 3},
    ):
        assert backward(**other) is None, list(other)


def test_parameters_that_are_left_alone(kind: Any) -> None:
    join, parameters = _memory.TENSORS.join, [random(3, 4, dtype=kind), random(5, dtype=kind)]
    dtype = parameters[0].numpy().dtype
    shapes = [(3, 4), (5,)]
    joined = join(parameters, shapes, None, 17, dtype)
    np.testing.assert_array_equal(joined, np.concatenate([p.numpy().ravel() for p in parameters]))
    assert join(parameters, shapes, joined, 17, dtype) is joined
    parameters[1].numpy()[2] += 1  # which no counter of versions sees
    again = join(parameters, shapes, joined, 17, dtype)
    assert again is not joined
    assert again[14] == parameters[1][2]
    for count in (0, 12, 16, 18):
        assert join(parameters, shapes, None, count, dtype) is None
    for first in (parameters[0].t(), parameters[0].view(4, 3), parameters[0].flatten()):
        assert join([first, parameters[1]], shapes, again, 17, dtype) is None
    assert join([*parameters[:1], parameters[1].half()], shapes, None, 17, dtype) is None
    assert join([*parameters[:1], None], shapes, None, 17, dtype) is None
    assert join(parameters[:1], shapes, None, 12, dtype) is None
    assert join(parameters, shapes[:1], None, 17, dtype) is None
    assert join([*parameters, parameters[0][:0]], shapes, None, 17, dtype) is None


@pytest.mark.parametrize("gradients", [False, True])
def test_other_shapes_of_the_same_bytes_are_refused(gradients: bool, kind: Any) -> None:
    lstm, x = layer(kind), random(T, B, I, dtype=kind)
    other = {"weight_ih_l0": lstm.weight_ih_l0.detach().reshape(I, 4 * H)}
    with torch.set_grad_enabled(gradients):
        lstm(x)  # packs what has the same bytes
        with pytest.raises(
            ValueError, match=r"shape \(5, 28\) of weight_ih_l0, expected \(28, 5\)"
        ):
            torch.func.functional_call(lstm, other, (x,))


def test_other_versions_of_the_api_are_refused() -> None:
    with pytest.raises((TypeError, ValueError)):
        type(_memory.TENSORS)((torch.Tensor,), object())


def test_shared_memory_lives_as_long_as_a_tensor_of_it(kind: Any) -> None:
    vector = random(17, dtype=kind).numpy().copy()
    before = sys.getrefcount(vector)
    first, second = _memory.TENSORS.share(vector, [(3, 4), (5,)])
    assert [first.shape, second.shape, first.dtype] == [(3, 4), (5,), kind]
    np.testing.assert_array_equal(np.concatenate([first.ravel(), second]), vector)
    second[0] = 7
    assert vector[12] == 7
    assert sys.getrefcount(vector) == before + 2
    del first
    assert sys.getrefcount(vector) == before + 1
    del second
    assert sys.getrefcount(vector) == before
    for shapes in ([(18,)], [(3, 4), (6,)], [(-1,)], [(1, 1, 1, 1, 1)]):
        with pytest.raises(ValueError, match="a tensor of shape"):
            _memory.TENSORS.share(vector, shapes)
    assert sys.getrefcount(vector) == before


@pytest.mark.parametrize("B", [1, 300], ids=["small", "large"])  # small ones are in no array
def test_results_are_ordinary_tensors(B: int, kind: Any) -> None:
    lstm, x = layer(kind), random(T, B, I, dtype=kind)
    with torch.inference_mode():
        assert all(part.is_inference() for part in flat(lstm(x)))
    results = flat(lstm(x))
    results[0].sum().backward()
    for tensor in (*(result.detach() for result in results), lstm.weight_ih_l0.grad):
        assert type(tensor) is torch.Tensor
        assert tensor.is_contiguous()
        assert not tensor.is_inference()
        assert tensor.data_ptr() % tensor.element_size() == 0
        kept = tensor.clone()
        assert torch.equal(pickle.loads(pickle.dumps(tensor)), kept)
        assert torch.equal(tensor.share_memory_(), kept)
        with pytest.raises(RuntimeError, match="not resizable"):
            tensor.resize_(2 * tensor.numel())


def test_results_take_no_memory_when_they_are_gone(kind: Any) -> None:
    lstm, x = layer(kind), random(T, 300, I, dtype=kind)

    def run() -> None:
        y, _ = lstm(x)
        y.sum().backward()

    def allocated() -> int:
        for _ in range(3):
            run()
        lstm.zero_grad(set_to_none=True)
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()  # which NumPy tells of its arrays
    try:
        before = allocated()
        assert allocated() - before < 10_000  # a tape has two megabytes
    finally:
        tracemalloc.stop()
