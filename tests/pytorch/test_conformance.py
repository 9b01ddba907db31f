"""PyTorch's descriptions of its LSTM modules, which its own tests run over, met by ours.

They ship with it (`torch.testing._internal.common_modules`); the tests themselves are in its
repository, and `tests/tools/pytorch_suite.py` runs them.
"""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest

from support.optional import require

torch = require("torch")
require("expecttest")  # which PyTorch's helpers import

from torch.testing._internal.common_modules import (  # noqa: E402
    ModuleErrorEnum,
    ModuleInfo,
    ModuleInput,
    module_db,
)
from torch.testing._internal.common_utils import freeze_rng_state  # noqa: E402

import fastlstm.torch  # noqa: E402
from support.torch_modules import flat, gradients  # noqa: E402

pytestmark = [
    # PyTorch says so of its own projections, and of forward-mode differentiation.
    pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning"),
    pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning"),
    # Its descriptions of wrong calls make layers that warn.
    pytest.mark.filterwarnings("ignore:dropout option adds dropout:UserWarning"),
]

OURS = {torch.nn.LSTM: fastlstm.torch.LSTM, torch.nn.LSTMCell: fastlstm.torch.LSTMCell}
INFOS = [info for info in module_db if info.module_cls in OURS]
DTYPES = [torch.float32, torch.float64]


def described(info: ModuleInfo, dtype: Any, training: bool, grad: bool) -> list[ModuleInput]:
    """The inputs that a description has, the same for each call."""
    torch.manual_seed(0)
    make = info.module_inputs_func
    return list(make(info, device="cpu", dtype=dtype, requires_grad=grad, training=training))


def made(cls: Any, info: ModuleInfo, given: ModuleInput, dtype: Any, training: bool) -> Any:
    """A module of a class as a description has it."""
    torch.manual_seed(1)
    arguments = given.constructor_input
    module = cls(*arguments.args, **arguments.kwargs).to(dtype)
    return module.train(training)


def with_info(function: Any) -> Any:
    """Run a test with each description, dtype and mode."""
    function = pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])(function)
    function = pytest.mark.parametrize("dtype", DTYPES, ids=str)(function)
    return pytest.mark.parametrize("info", INFOS, ids=lambda info: info.name)(function)


def test_both_are_described() -> None:
    assert [info.module_cls.__name__ for info in INFOS] == ["LSTMCell", "LSTM"]


@with_info
def test_results_are_those_of_its_reference(info: ModuleInfo, dtype: Any, training: bool) -> None:
    for given in described(info, dtype, training, False):
        ours = made(OURS[info.module_cls], info, given, dtype, training)
        theirs = made(info.module_cls, info, given, dtype, training)
        arguments = given.forward_input
        with freeze_rng_state():
            got = ours(*arguments.args, **arguments.kwargs)
        expected = given.reference_fn(theirs, *arguments.args, **arguments.kwargs)
        own = given.reference_fn(ours, *arguments.args, **arguments.kwargs)
        for our, their, alone in zip(flat(got), flat(expected), flat(own), strict=True):
            torch.testing.assert_close(our, their, rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(our, alone, rtol=1e-5, atol=1e-6)


@with_info
def test_copies_and_files_give_the_same(info: ModuleInfo, dtype: Any, training: bool) -> None:
    for given in described(info, dtype, training, False):
        ours = made(OURS[info.module_cls], info, given, dtype, training)
        arguments = given.forward_input
        expected = flat(ours(*arguments.args, **arguments.kwargs))
        buffer = io.BytesIO()
        torch.save(ours, buffer)
        buffer.seek(0)
        for other in (copy.deepcopy(ours), torch.load(buffer, weights_only=False)):
            got = flat(other(*arguments.args, **arguments.kwargs))
            assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


@with_info
def test_strides_do_not_matter(info: ModuleInfo, dtype: Any, training: bool) -> None:
    def spread(tensor: torch.Tensor) -> torch.Tensor:
        wide = torch.stack([tensor, tensor], dim=-1).flatten(-2).detach()
        return wide[..., ::2].requires_grad_(tensor.requires_grad)

    for given in described(info, dtype, training, True):
        ours = made(OURS[info.module_cls], info, given, dtype, training)
        found = []
        for change in (lambda tensor: tensor, spread):
            x, *rest = given.forward_input.args
            leaves = [change(tensor) for tensor in (x, *(rest[0] if rest else ()))]
            got = ours(leaves[0], tuple(leaves[1:]) if rest else None)
            found.append([*flat(got), *gradients(got, [*leaves, *ours.parameters()])])
        assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@with_info
def test_made_in_a_dtype_on_a_device(info: ModuleInfo, dtype: Any, training: bool) -> None:
    for given in described(info, dtype, training, False):
        arguments = given.constructor_input
        for device in ("cpu", "meta"):
            module = OURS[info.module_cls](
                *arguments.args, **arguments.kwargs, device=device, dtype=dtype
            )
            for parameter in module.parameters():
                assert (parameter.device.type, parameter.dtype) == (device, dtype)
        assert repr(module) == repr(info.module_cls(*arguments.args, **arguments.kwargs))


@pytest.mark.parametrize("training", [True, pytest.param(False, marks=pytest.mark.slow)])
@pytest.mark.parametrize("info", INFOS, ids=lambda info: info.name)
def test_first_and_second_derivatives(info: ModuleInfo, training: bool) -> None:
    inputs = described(info, torch.float64, training, True)
    for given in inputs[:1] + inputs[-1:]:  # the plainest, and the one with all options
        ours = made(OURS[info.module_cls], info, given, torch.float64, training)
        x, *rest = given.forward_input.args
        leaves = [x, *(rest[0] if rest else ())]
        parameters = dict(ours.named_parameters())

        def function(*tensors: torch.Tensor, ours: Any = ours, names: Any = parameters) -> Any:
            own = dict(zip(names, tensors[: len(names)], strict=True))
            x, *state = tensors[len(names) :]
            given = (x, tuple(state)) if state else (x,)
            return tuple(flat(torch.func.functional_call(ours, own, given)))

        everything = (*parameters.values(), *leaves)
        assert torch.autograd.gradcheck(function, everything, fast_mode=True)
        assert torch.autograd.gradgradcheck(function, everything, fast_mode=True)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("info", INFOS, ids=lambda info: info.name)
def test_errors_are_those_described(info: ModuleInfo, dtype: Any) -> None:
    make = info.module_error_inputs_func
    cls = OURS[info.module_cls]
    wrong = make(info, device="cpu", dtype=dtype, requires_grad=False, training=False)
    for case in wrong:
        given = case.module_error_input
        arguments = given.constructor_input
        if case.error_on == ModuleErrorEnum.CONSTRUCTION_ERROR:
            with pytest.raises(case.error_type, match=case.error_regex):
                cls(*arguments.args, **arguments.kwargs)
        else:
            module = cls(*arguments.args, **arguments.kwargs)
            with pytest.raises(case.error_type, match=case.error_regex):
                module(*given.forward_input.args, **given.forward_input.kwargs)
