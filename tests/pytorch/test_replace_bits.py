"""`replace` with bits: the layers of `fastlstm.quantize`, inside a model of PyTorch."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastlstm
from support.optional import require

torch = require("torch")

from torch import nn  # noqa: E402
from torch.fx.experimental.proxy_tensor import make_fx  # noqa: E402
from torch.nn.utils import parametrize  # noqa: E402
from torch.nn.utils.rnn import pack_sequence  # noqa: E402

import fastlstm.torch as ours  # noqa: E402

SIZES = (20, 24)
X = torch.linspace(-3, 3, 9 * 4 * 20).sin().reshape(9, 4, 20)


class Model(nn.Module):  # type: ignore[misc]
    """Two LSTMs, the second of what the first makes of the input."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.first = nn.LSTM(*SIZES, **options)
        self.second = nn.LSTM(24 * (1 + self.first.bidirectional), 24)
        self.cell = nn.LSTMCell(24, 8)

    def forward(self, x: Any, scale: float = 1.0) -> Any:
        y, _ = self.first(scale * x)
        return self.cell(self.second(y)[0][-1])[0]


def layer_of(lstm: Any) -> Any:
    """Return this package's layer of the same parameters."""
    cls = fastlstm.BiLSTM if lstm.bidirectional else fastlstm.LSTM
    layer = cls(lstm.input_size, lstm.hidden_size, lstm.num_layers, bias=lstm.bias)
    layer.load_state_dict(lstm.state_dict())
    return layer


@pytest.fixture
def model() -> Any:
    torch.manual_seed(0)
    return Model(bidirectional=True).eval()


@pytest.mark.parametrize("bits", [8, 16, 24])
def test_results_are_those_of_quantize(bits: int) -> None:
    """To the bit, however the module is called."""
    torch.manual_seed(0)
    lstm = nn.LSTM(*SIZES, 2, bidirectional=True).eval()
    state = (torch.randn(4, 4, 24), torch.randn(4, 4, 24))
    exact, _ = lstm(X, state)
    layer = fastlstm.quantize(layer_of(lstm), bits)
    y, (h_n, c_n) = layer(X.numpy(), tuple(part.numpy() for part in state))
    report = ours.replace(lstm, bits=bits)
    assert f"bits={bits}" in report.swapped[""]
    assert lstm.bits == bits
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            found, (found_h, found_c) = lstm(X, state)
        np.testing.assert_array_equal(found, y)
        np.testing.assert_array_equal(found_h, h_n)
        np.testing.assert_array_equal(found_c, c_n)
        assert not found.requires_grad
    assert 0 < (exact.detach() - found).abs().max() < {8: 0.02, 16: 2e-4, 24: 1e-5}[bits]
    ours.restore(lstm)
    assert torch.equal(lstm(X, state)[0], exact)


@pytest.mark.parametrize("batch_first", [False, True])
def test_every_kind_of_call(batch_first: bool) -> None:
    """Each sequence gives what it gives alone."""
    torch.manual_seed(0)
    lstm = nn.LSTM(*SIZES, bidirectional=True, batch_first=batch_first).eval()
    ours.replace(lstm, bits=8)
    sequences = [X[:n, b] for b, n in enumerate((5, 9, 1, 7))]
    alone = [lstm(sequence) for sequence in sequences]
    for enforce_sorted in (False, True):
        order = [1, 3, 0, 2] if enforce_sorted else range(4)
        packed = pack_sequence([sequences[b] for b in order], enforce_sorted=enforce_sorted)
        y, (h_n, c_n) = lstm(packed)
        for k, b in enumerate(order):
            assert torch.equal(nn.utils.rnn.unpack_sequence(y)[k], alone[b][0])
            assert torch.equal(h_n[:, k], alone[b][1][0])
            assert torch.equal(c_n[:, k], alone[b][1][1])
    x = X.transpose(0, 1) if batch_first else X
    y, (h_n, _) = lstm(x, lengths=[5, 9, 1, 7])
    y = y.transpose(0, 1) if batch_first else y
    for b, n in enumerate((5, 9, 1, 7)):
        assert torch.equal(y[:n, b], alone[b][0])
        assert torch.equal(h_n[:, b], alone[b][1][0])
    with torch.autocast("cpu", torch.bfloat16):
        assert lstm(x)[0].dtype == torch.bfloat16
    whole, _ = lstm(x)
    with torch.no_grad():
        assert torch.equal(lstm(x)[0], whole)


@pytest.mark.parametrize(
    "data",
    [
        [X, -X],
        [(X, 2.0)],
        [{"x": X, "scale": 0.5}],
        [[X]],
        (batch for batch in [X, X + 1]),
    ],
    ids=["tensors", "tuples", "mappings", "lists", "iterator"],
)
def test_data_reaches_each_layer(model: Any, data: Any) -> None:
    data = list(data)
    inputs = []
    for batch in data:
        if isinstance(batch, dict):
            inputs.append(batch["scale"] * batch["x"])
        elif isinstance(batch, tuple | list):
            inputs.append(batch[1] * batch[0] if len(batch) == 2 else batch[0])
        else:
            inputs.append(batch)
    with torch.no_grad():
        between = [model.first(x)[0] for x in inputs]
    expected = [
        fastlstm.quantize(layer_of(layer), 8, [x.numpy() for x in given])
        for layer, given in ((model.first, inputs), (model.second, between))
    ]
    report = ours.replace(model, bits=8, data=iter(data))
    assert list(report.swapped) == ["first", "second", "cell"]
    assert "bits" not in report.swapped["cell"]
    with torch.no_grad():
        y, _ = model.first(X)
        np.testing.assert_array_equal(y, expected[0](X.numpy())[0])
        np.testing.assert_array_equal(model.second(y)[0], expected[1](y.numpy())[0])
    assert not model.first._forward_pre_hooks


def test_packed_data_and_batch_first() -> None:
    torch.manual_seed(0)
    lstm = nn.LSTM(*SIZES, batch_first=True).eval()
    layer, packed = layer_of(lstm), pack_sequence([X[:9, 0], X[:5, 1]])
    expected = fastlstm.quantize(layer, 8, [X[:9, 0].numpy(), X[:5, 1].numpy(), X.numpy()])
    # A PackedSequence is a tuple, so it comes as the one argument of a call.
    ours.replace(lstm, bits=8, data=[(packed,), X.transpose(0, 1)])
    np.testing.assert_array_equal(
        lstm(X.transpose(0, 1))[0].transpose(0, 1), expected(X.numpy())[0]
    )


def test_own_options_and_layers_of_this_package() -> None:
    torch.manual_seed(0)
    lstm = ours.LSTM(*SIZES, peepholes=True, bidirectional=True, merge_mode="sum").eval()
    y = lstm(X)[0]
    assert list(ours.replace(lstm, bits=16).swapped) == [""]
    torch.testing.assert_close(lstm(X)[0], y, rtol=0, atol=1e-3)
    assert not torch.equal(lstm(X)[0], y)
    ours.restore(lstm)
    assert type(lstm) is ours.LSTM
    assert torch.equal(lstm(X)[0], y)


def test_swapped_before_and_parametrized(model: Any) -> None:
    class Halved(nn.Module):  # type: ignore[misc]
        def forward(self, w: Any) -> Any:
            return w / 2

    parametrize.register_parametrization(model.second, "weight_hh_l0", Halved())
    with torch.no_grad():
        y = model(X)
        ours.replace(model)
        assert list(ours.replace(model, bits=16).swapped) == ["first", "second"]
        torch.testing.assert_close(model(X), y, rtol=0, atol=1e-3)
        assert ours.replace(model, bits=16) == ({}, {})
        assert "restore comes before" in ours.replace(model, bits=8).kept["first"]
        ours.restore(model)
        assert type(model.first) is nn.LSTM
        assert torch.equal(model(X), y)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies(model: Any, copied: Callable[[Any], Any]) -> None:
    ours.replace(model, bits=8)
    with torch.no_grad():
        y = model(X)
        again = copied(model)
        assert torch.equal(again(X), y)
        ours.restore(again)
        assert torch.equal(model(X), y)


def test_it_is_for_inference_alone(model: Any) -> None:
    ours.replace(model, bits=8)
    state = model.state_dict()
    with pytest.raises(RuntimeError, match=r"train: the model has a layer of 8 bits, and it can't"):
        model.train()
    assert not model.first.training
    with pytest.raises(RuntimeError, match=r"load_state_dict: .* takes no parameters; .*restore"):
        model.load_state_dict(state)
    with pytest.raises(RuntimeError, match="input, hx: got one that requires a gradient"):
        model(X.clone().requires_grad_())
    with pytest.raises(TypeError, match="replace makes it"):
        ours.QuantizedLSTM(3, 4)
    model.eval()
    ours.restore(model)
    model.train()
    model.load_state_dict(state)


@pytest.mark.parametrize(
    ("change", "data", "error", "message"),
    [
        (lambda m: m.train(), None, ValueError, r"first is in training mode; call model\.eval\(\)"),
        (lambda m: m.second.double(), None, ValueError, "second is of torch.float64, expected"),
        (lambda m: m, [], ValueError, "data: got none that reached first"),
        (lambda m: m, [X * torch.nan], ValueError, "nan"),
        (lambda m: m, [X[..., :3]], RuntimeError, "input_size"),
    ],
    ids=["training", "float64", "no data", "nan", "shape"],
)
def test_errors_leave_the_model_as_it_was(
    model: Any, change: Callable[[Any], Any], data: Any, error: type[Exception], message: str
) -> None:
    change(model)
    with pytest.raises(error, match=message):
        ours.replace(model, bits=8, data=data)
    assert type(model.first) is type(model.second) is nn.LSTM
    assert not model.first._forward_pre_hooks


class Marked(torch.Tensor):  # type: ignore[misc]
    """A class of tensors of somebody's own, which only torch.nn.LSTM computes."""


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda layer: torch.jit.trace(layer, X), "only torch.nn.LSTM computes"),
        (lambda layer: layer(X.as_subclass(Marked)), "only torch.nn.LSTM computes"),
        (lambda layer: torch.jit.script(nn.Sequential(layer)), "torch.nn.LSTM has no bits"),
        (lambda layer: make_fx(lambda x: layer(x)[0])(X), "no operation of PyTorch"),
    ],
    ids=["trace", "class", "script", "make_fx"],
)
@pytest.mark.filterwarnings("ignore:`torch.jit", "ignore::torch.jit.TracerWarning")
def test_refuses_what_would_leave_out_the_bits_or_be_a_constant(
    call: Callable[[Any], Any], message: str
) -> None:
    model = nn.Sequential(nn.LSTM(*SIZES)).eval()
    ours.replace(model, bits=8)
    with torch.no_grad(), pytest.raises(RuntimeError, match=message):
        call(model[0])
    assert isinstance(model[0], ours.QuantizedLSTM)
