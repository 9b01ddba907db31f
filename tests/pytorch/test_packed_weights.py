"""Packed weights of a module are those that its parameters hold, however they came there."""

from __future__ import annotations

import copy
import ctypes
import pickle
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from fastlstm import _core
from fastlstm._spec import as_spec
from support.optional import require

torch = require("torch")

import fastlstm.torch as ours  # noqa: E402
from fastlstm.torch._weights import PackedWeights  # noqa: E402

I, H = 3, 5
SPEC = as_spec(1, input_size=I, hidden_size=H)


@pytest.fixture
def lstm() -> Any:
    torch.manual_seed(0)
    return torch.nn.LSTM(I, H)


class Derived(torch.Tensor):  # type: ignore[misc]
    """A tensor whose numbers may be elsewhere."""


def run(model: _core.Model | None, x: Any) -> np.ndarray:
    assert model is not None
    results = model.run_plain(x.numpy(), None, None, None)
    assert results is not None
    return results[0]


def parameters_of(lstm: Any) -> list[Any]:
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    return [getattr(lstm, name) for name in names]


def check(packed: PackedWeights, lstm: Any) -> np.ndarray:
    """Compare with PyTorch's LSTM, and to the bit with newly packed weights; return y."""
    x = torch.randn(4, 2, I, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    parameters = parameters_of(lstm)
    x = x.to(parameters[0].dtype)
    y = run(packed.model(SPEC, parameters), x)
    with torch.no_grad():
        np.testing.assert_allclose(y, lstm(x)[0].numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(y, run(PackedWeights().model(SPEC, parameters), x))
    return y


def step(lstm: Any, optimizer: Any) -> None:
    for parameter in lstm.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()


def no_grad(change: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return torch.no_grad()(change)


def inference(change: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return torch.inference_mode()(change)


def ema(lstm: Any) -> None:
    """The usual loop of target networks."""
    for parameter in lstm.parameters():
        parameter.data.mul_(0.9).add_(torch.ones_like(parameter.data), alpha=0.1)


def assign(lstm: Any) -> None:
    for parameter in lstm.parameters():
        parameter.data = torch.zeros_like(parameter) + 0.25


def replace_parameters(lstm: Any) -> None:
    for name, parameter in list(lstm.named_parameters()):
        setattr(lstm, name, torch.nn.Parameter(parameter.detach() + 1))


def preserve_version(lstm: Any) -> None:
    with torch.autograd._unsafe_preserve_version_counter(lstm.weight_hh_l0), torch.no_grad():
        lstm.weight_hh_l0.mul_(2)


def unbind(lstm: Any) -> None:
    with torch.no_grad():
        for row in lstm.weight_hh_l0.unbind():
            row.neg_()


def resize(lstm: Any) -> None:
    """What FSDP does around a call: free the memory of a parameter, and fill other memory."""
    storage = lstm.weight_hh_l0.untyped_storage()
    size = storage.size()
    storage.resize_(0)
    storage.resize_(size)
    lstm.weight_hh_l0.data.fill_(0.125)


CHANGES: dict[str, Callable[[Any], Any]] = {
    "in place": no_grad(lambda lstm: lstm.weight_hh_l0.mul_(2)),
    "copy_": no_grad(lambda lstm: lstm.bias_hh_l0.copy_(torch.ones(4 * H))),
    "one element": no_grad(lambda lstm: lstm.weight_ih_l0.__setitem__((7, 2), 3.0)),
    "view": no_grad(lambda lstm: lstm.weight_ih_l0.view(-1).add_(1)),
    "unbind": unbind,
    "foreach": no_grad(lambda lstm: torch._foreach_mul_(list(lstm.parameters()), -1.0)),
    "signs": lambda lstm: lstm.weight_hh_l0.data.neg_(),
    "init": lambda lstm: torch.nn.init.orthogonal_(lstm.weight_hh_l0),
    "reset_parameters": lambda lstm: lstm.reset_parameters(),
    "inference_mode": inference(lambda lstm: lstm.weight_hh_l0.mul_(2)),
    ".data in place": lambda lstm: lstm.weight_hh_l0.data.mul_(2),
    ".data element": lambda lstm: lstm.weight_hh_l0.data.__setitem__((0, 0), 9.0),
    ".data =": assign,
    "detach": lambda lstm: lstm.weight_hh_l0.detach().mul_(2),
    "EMA": ema,
    "set_": no_grad(lambda lstm: lstm.weight_hh_l0.set_(torch.ones(4 * H, H))),
    "NumPy": lambda lstm: lstm.weight_hh_l0.detach().numpy().fill(0.5),
    "DLPack": lambda lstm: torch.from_dlpack(lstm.weight_hh_l0.detach()).fill_(0.5),
    "address": lambda lstm: ctypes.memset(lstm.weight_hh_l0.data_ptr(), 0, 4 * H * H * 4),
    "storage": lambda lstm: lstm.weight_hh_l0.untyped_storage().fill_(3),
    "storage, resized": resize,
    "version kept": preserve_version,
    "vector_to_parameters": lambda lstm: torch.nn.utils.vector_to_parameters(
        torch.linspace(-1, 1, 4 * H * (I + H + 2)), lstm.parameters()
    ),
    "other parameters": replace_parameters,
    "load_state_dict": lambda lstm: lstm.load_state_dict(torch.nn.LSTM(I, H).state_dict()),
    "load_state_dict, assign": lambda lstm: lstm.load_state_dict(
        torch.nn.LSTM(I, H).state_dict(), assign=True
    ),
    "transposed": lambda lstm: setattr(
        lstm.weight_ih_l0, "data", torch.randn(I, 4 * H).t()
    ),  # no longer contiguous
    **{
        f"{name}, {how}": lambda lstm, name=name, how=how: step(
            lstm, getattr(torch.optim, name)(lstm.parameters(), lr=0.1, **{how: True})
        )
        for name in ("SGD", "Adam", "AdamW", "Adagrad")
        for how in ("foreach", "fused")
    },
}


@pytest.mark.parametrize("how", CHANGES)
def test_no_change_is_missed(lstm: Any, how: str) -> None:
    packed = PackedWeights()
    before = check(packed, lstm)
    for _ in range(2):  # parameters may be elsewhere after the first
        CHANGES[how](lstm)
        check(packed, lstm)
    lstm.load_state_dict({name: value + 0.5 for name, value in lstm.state_dict().items()})
    assert not np.array_equal(check(packed, lstm), before)


def test_unchanged_parameters_are_packed_once(lstm: Any) -> None:
    packed = PackedWeights()
    model = packed.model(SPEC, parameters_of(lstm))
    lstm.weight_hh_l0.data = lstm.weight_hh_l0.data.clone()  # the same bytes elsewhere
    lstm.share_memory()
    lstm.requires_grad_(False)
    with torch.inference_mode():
        assert packed.model(SPEC, parameters_of(lstm)) is model


def test_nan_is_compared_as_bytes(lstm: Any) -> None:
    with torch.no_grad():
        lstm.bias_ih_l0[0] = torch.nan
    packed = PackedWeights()
    parameters = parameters_of(lstm)
    assert packed.model(SPEC, parameters) is packed.model(SPEC, parameters)
    with torch.no_grad():
        lstm.bias_ih_l0[1] = -0.0
    model = packed.model(SPEC, parameters)
    with torch.no_grad():
        lstm.bias_ih_l0[1] = 0.0
    assert packed.model(SPEC, parameters) is not model


def test_other_options_are_packed_anew(lstm: Any) -> None:
    packed = PackedWeights()
    parameters = parameters_of(lstm)
    model = packed.model(SPEC, parameters)
    assert packed.model(SPEC._replace(batch_first=True), parameters) is not model


def test_float64(lstm: Any) -> None:
    packed = PackedWeights()
    check(packed, lstm)
    lstm.double()
    check(packed, lstm)


@pytest.mark.parametrize(
    "convert",
    [
        lambda p: p.bfloat16(),
        lambda p: p.half(),
        lambda p: p.to("meta"),
        lambda p: p.to_sparse(),
        lambda p: p[..., :-1],
        lambda p: p.detach().as_subclass(Derived),
    ],
    ids=["bfloat16", "float16", "meta", "sparse", "shape", "class"],
)
@pytest.mark.parametrize("of", [slice(0, 4), slice(1, 2), slice(3, 4)], ids=["all", "one", "last"])
def test_what_is_not_for_the_kernels(lstm: Any, convert: Callable[[Any], Any], of: slice) -> None:
    packed = PackedWeights()
    parameters = parameters_of(lstm)
    assert packed.model(SPEC, parameters) is not None
    with torch.no_grad():
        parameters[of] = [convert(parameter) for parameter in parameters[of]]
        assert packed.model(SPEC, parameters) is None
        assert PackedWeights().model(SPEC, parameters) is None
    check(packed, lstm)


def test_inference_tensors() -> None:
    with torch.inference_mode():
        lstm = torch.nn.LSTM(I, H)
        assert lstm.weight_hh_l0.is_inference()
        packed = PackedWeights()
        check(packed, lstm)
        lstm.weight_hh_l0.mul_(2)
        check(packed, lstm)


def test_parameters_stay_resizable(lstm: Any) -> None:
    """`Tensor.numpy` would end that, and FSDP with it."""
    packed = PackedWeights()
    for _ in range(3):
        assert packed.model(SPEC, parameters_of(lstm)) is not None
    for parameter in lstm.parameters():
        assert parameter.untyped_storage().resizable()


def test_a_frozen_one_is_not_compared(lstm: Any) -> None:
    packed = PackedWeights(frozen=True)
    parameters = parameters_of(lstm)
    model = packed.model(SPEC, parameters, parameters)
    lstm.weight_hh_l0.data.mul_(2)
    assert packed.frozen_model(parameters) is model
    assert packed.frozen_model([*parameters[:-1], parameters[-1].clone()]) is None
    packed.drop()
    assert packed.frozen_model(parameters) is None
    check(packed, lstm)
    packed.frozen = False
    assert packed.frozen_model(parameters) is None
    lstm.weight_hh_l0.data.mul_(2)
    check(packed, lstm)


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda p: pickle.loads(pickle.dumps(p))]
)
def test_copies_are_empty(lstm: Any, copied: Callable[[PackedWeights], PackedWeights]) -> None:
    packed = PackedWeights(frozen=True)
    parameters = parameters_of(lstm)
    model = packed.model(SPEC, parameters, parameters)
    again = copied(packed)
    assert again.frozen
    assert again.frozen_model(parameters) is None
    assert packed.frozen_model(parameters) is model


def test_what_is_dropped_while_it_is_packed_is_not_kept(lstm: Any) -> None:
    packed = PackedWeights(frozen=True)

    class Changing(list):  # type: ignore[type-arg]
        """Parameters that another thread loads while they are read."""

        def __iter__(self) -> Iterator[Any]:
            as_read = [parameter.detach().clone() for parameter in list.__iter__(self)]
            lstm.weight_hh_l0.data.mul_(2)
            packed.drop()
            return iter(as_read)

    packed.model(SPEC, Changing(parameters_of(lstm)))
    assert packed.frozen_model(parameters_of(lstm)) is None
    check(packed, lstm)


def test_threads(lstm: Any) -> None:
    """Results of calls while another thread writes are those of some moment's parameters."""
    packed = PackedWeights()
    parameters = parameters_of(lstm)
    x = torch.ones(1, 1, I)
    for parameter in parameters:
        parameter.data.fill_(0.0)
    problems: list[BaseException] = []

    def call() -> None:
        try:
            for _ in range(300):
                assert np.isfinite(run(packed.model(SPEC, parameters), x)).all()
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=call) for _ in range(3)]
    for thread in threads:
        thread.start()
    for n in range(200):
        parameters[n % 4].data.fill_(n / 200)
    for thread in threads:
        thread.join()
    assert not problems
    check(packed, lstm)


def calls(x: Any) -> dict[str, Callable[[], Any]]:
    """Every way to the kernels."""
    lstm, small = ours.LSTM(I, H), ours.LSTM(I, H).eval()
    ours.replace(small, bits=8)
    y = lstm(x)[0].sum()
    return {
        "inference": torch.no_grad()(lambda: lstm(x)),
        "one step": torch.no_grad()(lambda: ours.LSTMCell(I, H)(x[0])),
        "packed": torch.no_grad()(lambda: lstm(x, lengths=[2, 1])),
        "recorded": lambda: lstm(x),
        "backward": y.backward,
        "bits": torch.no_grad()(lambda: small(x)),
        "bits, packed": torch.no_grad()(lambda: small(x, lengths=[2, 1])),
    }


def test_threads_are_those_of_pytorch() -> None:
    before, of_torch = _core.get_num_threads(), torch.get_num_threads()
    try:
        for name, call in calls(torch.ones(2, 2, I)).items():
            for count in (1, 3) if name != "backward" else (3,):
                torch.set_num_threads(count)
                _core.set_num_threads(2)
                call()
                assert _core.get_num_threads() == count, name
        torch.set_num_threads(200)  # more than this package takes
        ours.LSTM(I, H)(torch.ones(2, 2, I))
        assert _core.get_num_threads() == 64
    finally:
        torch.set_num_threads(of_torch)
        _core.set_num_threads(before)
