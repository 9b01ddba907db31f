"""`fastlstm.torch.LSTMCell` beside `torch.nn.LSTMCell` and a layer of this package."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

from fastlstm import LSTM
from support.optional import require

torch = require("torch")

import fastlstm.torch  # noqa: E402
from support.torch_modules import error_of, flat, gradients, pair  # noqa: E402

CLOSE = {torch.float32: {"rtol": 2e-5, "atol": 2e-6}, torch.float64: {"rtol": 1e-11, "atol": 1e-13}}


@pytest.mark.parametrize("bias", [True, False], ids=["", "nobias"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_is_made_of_the_same_parameters(bias: bool, dtype: Any) -> None:
    theirs, ours = pair(4, 5, bias, name="LSTMCell", dtype=dtype)
    expected = list(theirs.named_parameters())
    got = list(ours.named_parameters())
    assert [name for name, _ in got] == [name for name, _ in expected]
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(got, expected, strict=True))
    assert repr(ours) == repr(theirs)
    ours.load_state_dict(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict())
    if not bias:
        assert ours.bias_ih is None


@pytest.mark.parametrize("bias", [True, False], ids=["", "nobias"])
@pytest.mark.parametrize("batch", [(3,), (), (0,)], ids=["batch", "single", "empty"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_gives_the_same(bias: bool, batch: tuple[int, ...], dtype: Any) -> None:
    theirs, ours = pair(4, 5, bias, name="LSTMCell", dtype=dtype)
    torch.manual_seed(1)
    x = torch.randn(*batch, 4, dtype=dtype)
    state = torch.randn(*batch, 5, dtype=dtype), torch.randn(*batch, 5, dtype=dtype)
    for given in ((x,), (x, state)):
        for grad in (True, False):
            with torch.set_grad_enabled(grad):
                got, expected = ours(*given), theirs(*given)
            assert type(got) is tuple
            for our, their in zip(got, expected, strict=True):
                assert our.dtype == their.dtype
                assert our.requires_grad == their.requires_grad
                torch.testing.assert_close(our, their, **CLOSE[dtype])
    leaves = [part.requires_grad_() for part in (x, *state)]
    ours_ = gradients(ours(x, state), [*leaves, *ours.parameters()])
    theirs_ = gradients(theirs(x, state), [*leaves, *theirs.parameters()])
    for our, their in zip(ours_, theirs_, strict=True):
        torch.testing.assert_close(our, their, **CLOSE[dtype])


@pytest.mark.parametrize("chosen", [0, 1], ids=["h_1", "c_1"])
def test_one_result_alone_has_gradients(chosen: int) -> None:
    theirs, ours = pair(4, 5, name="LSTMCell")
    x = torch.randn(3, 4, requires_grad=True)
    # The gate of the output enters h_1 alone.
    our = gradients(ours(x)[chosen], [x, *ours.parameters()])
    their = gradients(theirs(x)[chosen], [x, *theirs.parameters()])
    for a, b in zip(our, their, strict=True):
        torch.testing.assert_close(a, b, **CLOSE[torch.float32])


WRONG: dict[str, tuple[Any, ...]] = {
    "dimensions": (torch.zeros(1, 3, 4),),
    "input size": (torch.zeros(3, 5),),
    "input size of one": (torch.zeros(5),),
    "dtype": (torch.zeros(3, 4).double(),),
    "h_0 dimensions": (torch.zeros(3, 4), (torch.zeros(1, 3, 5), torch.zeros(3, 5))),
    "h_0 batch": (torch.zeros(3, 4), (torch.zeros(2, 5), torch.zeros(3, 5))),
    "c_0 batch": (torch.zeros(3, 4), (torch.zeros(3, 5), torch.zeros(1, 5))),
    "c_0 size": (torch.zeros(3, 4), (torch.zeros(3, 5), torch.zeros(3, 6))),
    "h_0 dtype": (torch.zeros(3, 4), (torch.zeros(3, 5).double(), torch.zeros(3, 5).double())),
    "three states": (torch.zeros(3, 4), (torch.zeros(3, 5),) * 3),
}


@pytest.mark.parametrize("grad", [True, False], ids=["grad", "no_grad"])
@pytest.mark.parametrize("given", WRONG.values(), ids=WRONG.keys())
def test_refuses_the_same_calls(given: tuple[Any, ...], grad: bool) -> None:
    theirs, ours = pair(4, 5, name="LSTMCell")
    with torch.set_grad_enabled(grad):
        expected = error_of(lambda: theirs(*given))
        assert error_of(lambda: ours(*given)) == expected


@pytest.mark.parametrize(
    "options",
    [
        {"peepholes": True, "clip": 0.7},
        {"coupled_gates": True, "cell_clip": 0.9, "gate_activation": "hard_sigmoid"},
        {"layer_norm": True, "bias": False, "output_activation": "identity"},
        {"zoneout_h": 0.25, "zoneout_c": 0.5, "cell_activation": "relu"},
    ],
)
@pytest.mark.parametrize("grad", [True, False], ids=["grad", "no_grad"])
def test_own_options_are_the_layers(options: dict[str, Any], grad: bool) -> None:
    layer = LSTM(4, 5, **options, dtype=np.float64, seed=1)
    cell = fastlstm.torch.LSTMCell(4, 5, **options, dtype=torch.float64).eval()
    arrays = {name.removesuffix("_l0"): value for name, value in layer.state_dict().items()}
    assert list(cell.state_dict()) == list(arrays)
    cell.load_state_dict({name: torch.tensor(value) for name, value in arrays.items()})
    x = np.random.default_rng(2).normal(size=(6, 3, 4))
    expected, (h_n, c_n) = layer(x)
    state = None
    with torch.set_grad_enabled(grad):
        for t in range(6):
            state = cell(torch.tensor(x[t]), state)
            assert np.array_equal(state[0].detach().numpy(), expected[t])
    assert np.array_equal(state[0].detach().numpy(), h_n[0])
    assert np.array_equal(state[1].detach().numpy(), c_n[0])


def test_zoneout_draws_in_training() -> None:
    cell = fastlstm.torch.LSTMCell(4, 50, zoneout_h=0.5)
    x, h_0 = torch.randn(3, 4), torch.randn(3, 50)
    h_1, _ = cell(x, (h_0, h_0))
    kept = (h_1 == h_0).double().mean().item()
    assert 0.3 < kept < 0.7
    h_1, _ = cell.eval()(x, (h_0, h_0))
    assert not (h_1 == h_0).any()


def test_copies_have_the_parameters() -> None:
    cell = fastlstm.torch.LSTMCell(4, 5, peepholes=True)
    assert repr(cell) == "LSTMCell(4, 5, peepholes=True)"
    x = torch.randn(3, 4)
    with torch.no_grad():
        for other in (copy.deepcopy(cell), pickle.loads(pickle.dumps(cell))):
            assert repr(other) == repr(cell)
            for our, copied in zip(flat(cell(x)), flat(other(x)), strict=True):
                assert torch.equal(our, copied)


def test_refuses_options() -> None:
    with pytest.raises(ValueError, match="zoneout_h: got 2"):
        fastlstm.torch.LSTMCell(4, 5, zoneout_h=2)
