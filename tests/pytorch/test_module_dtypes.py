"""`fastlstm.torch` in half precision and under autocast, beside PyTorch's own modules."""

from __future__ import annotations

from typing import Any

import pytest

from support.optional import require

torch = require("torch")

import fastlstm.torch  # noqa: E402
from support.torch_modules import flat, gradients, pair  # noqa: E402

HALVES = [torch.bfloat16, torch.float16]

#: The spacing of numbers around 1.
SPACING = {dtype: torch.finfo(dtype).eps for dtype in HALVES}


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("grad", [True, False], ids=["grad", "no_grad"])
def test_half_precision_is_computed_in_single(dtype: Any, grad: bool) -> None:
    theirs, ours = pair(4, 5, 2, bidirectional=True, dtype=dtype)
    whole, _ = pair(4, 5, 2, bidirectional=True)
    whole.load_state_dict({name: value.float() for name, value in theirs.state_dict().items()})
    torch.manual_seed(1)
    x = torch.randn(6, 3, 4).to(dtype)
    state = torch.randn(4, 3, 5).to(dtype), torch.randn(4, 3, 5).to(dtype)
    with torch.set_grad_enabled(grad):
        exact = flat(whole(x.float(), tuple(part.float() for part in state)))
        for our, their, best in zip(
            flat(ours(x, state)), flat(theirs(x, state)), exact, strict=True
        ):
            assert our.dtype == their.dtype == dtype
            # Rounded once, and so at least as good as what PyTorch rounds at every operation.
            torch.testing.assert_close(our, best.to(dtype), rtol=SPACING[dtype], atol=1e-6)
            error = (our.float() - best).abs().max()
            assert error <= (their.float() - best).abs().max() + 1e-6


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_half_precision_has_gradients(dtype: Any) -> None:
    theirs, ours = pair(4, 5, dtype=dtype)
    whole, _ = pair(4, 5)
    whole.load_state_dict({name: value.float() for name, value in theirs.state_dict().items()})
    x = torch.randn(6, 3, 4).to(dtype).requires_grad_()
    x_whole = x.detach().float().requires_grad_()
    found = gradients(ours(x)[0], [x, *ours.parameters()])
    exact = gradients(whole(x_whole)[0], [x_whole, *whole.parameters()])
    for our, best in zip(found, exact, strict=True):
        assert our.dtype == dtype
        torch.testing.assert_close(our.float(), best, rtol=4 * SPACING[dtype], atol=0.02)


@pytest.mark.parametrize("given", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("with_state", [True, False], ids=["state", ""])
def test_autocast_gives_the_dtypes_of_pytorch(given: Any, with_state: bool) -> None:
    options = {"dtype": torch.float64} if given == torch.float64 else {}
    theirs, ours = pair(4, 5, 2, **options)
    x = torch.randn(6, 3, 4).to(given)
    # States of float32 beside an input of bfloat16 are what a loop under autocast hands on.
    states = torch.randn(2, 3, 5).to(next(ours.parameters()).dtype)
    call = (x, (states, states)) if with_state else (x,)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expected, got = flat(theirs(*call)), flat(ours(*call))
        with torch.no_grad():
            again = flat(ours(*call))
    for our, their, other in zip(got, expected, again, strict=True):
        assert our.dtype == their.dtype == other.dtype
        assert torch.equal(our, other)
        torch.testing.assert_close(our, their, rtol=0.02, atol=0.02)
    our_gradients = gradients(got, list(ours.parameters()))
    for our, their in zip(
        our_gradients, gradients(expected, list(theirs.parameters())), strict=True
    ):
        assert our.dtype == their.dtype
        torch.testing.assert_close(our, their, rtol=0.05, atol=0.2)


@pytest.mark.parametrize("given", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("with_state", [True, False], ids=["state", ""])
def test_autocast_gives_the_dtypes_of_pytorchs_cell(given: Any, with_state: bool) -> None:
    options = {"dtype": torch.float64} if given == torch.float64 else {}
    theirs, ours = pair(4, 5, name="LSTMCell", **options)
    x = torch.randn(3, 4).to(given)
    states = torch.randn(3, 5).to(next(ours.parameters()).dtype)
    call = (x, (states, states)) if with_state else (x,)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for our, their in zip(flat(ours(*call)), flat(theirs(*call)), strict=True):
            assert our.dtype == their.dtype
            torch.testing.assert_close(our, their, rtol=0.02, atol=0.02)


def test_autocast_of_float16_gives_float16() -> None:
    # PyTorch's own has no such kernel on many machines.
    _, ours = pair(4, 5)
    with torch.autocast("cpu", dtype=torch.float16):
        y, (h_n, c_n) = ours(torch.randn(6, 3, 4))
    assert y.dtype == h_n.dtype == c_n.dtype == torch.float16


@pytest.mark.parametrize("kind", ["layer", "cell"])
def test_autocast_trains_on_inference_tensors(kind: str) -> None:
    """As features are that another model gave."""
    name = "LSTMCell" if kind == "cell" else "LSTM"
    theirs, ours = (getattr(package, name)(3, 4) for package in (torch.nn, fastlstm.torch))
    ours.load_state_dict(theirs.state_dict())
    with torch.inference_mode():
        x = torch.randn(2, 3) if kind == "cell" else torch.randn(5, 2, 3)
    gradients = []
    for module in (theirs, ours):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            result = module(x)
        result[0].float().pow(2).sum().backward()
        gradients.append([parameter.grad for parameter in module.parameters()])
    for expected, got in zip(*gradients, strict=True):
        torch.testing.assert_close(got, expected, rtol=0.05, atol=0.05)
