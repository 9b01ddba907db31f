"""Around training: optimisers, averages, functional calls, other processes' data and weights."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from typing import Any

import pytest

from support.optional import require
from support.processes import code_of_child

torch = require("torch")

from torch import nn  # noqa: E402
from torch.optim import swa_utils  # noqa: E402
from torch.utils.data import DataLoader, Dataset  # noqa: E402

import fastlstm.torch as ours  # noqa: E402

X = torch.linspace(-1, 1, 6 * 3 * 4).sin().reshape(6, 3, 4)


class Model(nn.Module):  # type: ignore[misc]
    """An LSTM and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 5, 2)
        self.head = nn.Linear(5, 2)

    def forward(self, x: Any) -> Any:
        return self.head(self.lstm(x)[0])


@pytest.fixture
def both() -> tuple[Any, Any]:
    """PyTorch's model, and one on these kernels."""
    torch.manual_seed(0)
    theirs = Model()
    model = copy.deepcopy(theirs)
    assert ours.replace(model, strict=True).swapped
    return theirs, model


def close(a: Any, b: Any) -> None:
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def step(model: Any, optimizer: Any, x: Any = X) -> Any:
    optimizer.zero_grad()
    loss = model(x).pow(2).sum()
    loss.backward()
    optimizer.step()
    return loss.detach()


OPTIMIZERS: dict[str, Callable[..., Any]] = {
    "SGD": lambda p, **how: torch.optim.SGD(p, lr=0.05, momentum=0.9, **how),
    "Adam": lambda p, **how: torch.optim.Adam(p, lr=0.01, eps=1e-3, **how),
    "AdamW": lambda p, **how: torch.optim.AdamW(p, lr=0.01, eps=1e-3, weight_decay=0.1, **how),
}


@pytest.mark.parametrize("how", ["foreach", "fused", "neither"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_step_for_step(both: tuple[Any, Any], name: str, how: str) -> None:
    """With inference between the steps, which must see the new parameters."""
    options = {"foreach": False} if how == "neither" else {how: True}
    x = X.double()
    optimizers = [OPTIMIZERS[name](one.double().parameters(), **options) for one in both]
    losses = []
    for _ in range(8):
        theirs, mine = (step(*pair, x) for pair in zip(both, optimizers, strict=True))
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-12)
        losses.append(mine.item())
        with torch.no_grad():
            torch.testing.assert_close(both[1](x), both[0](x), rtol=1e-10, atol=1e-12)
    assert losses[-1] < losses[0]


def test_accumulated_and_clipped_gradients(both: tuple[Any, Any]) -> None:
    norms = []
    for model in both:
        for x in (X, -X):
            model(x).pow(2).sum().backward()
        norms.append(nn.utils.clip_grad_norm_(model.parameters(), 0.1))
    close(norms[1], norms[0])
    close([p.grad for p in both[1].parameters()], [p.grad for p in both[0].parameters()])


@pytest.mark.parametrize("foreach", [True, False])
def test_averaged_model(both: tuple[Any, Any], foreach: bool) -> None:
    """EMA as of `swa_utils`, and as written by hand through `.data`."""
    averaged, by_hand = [], []
    for model in both:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        average = swa_utils.get_ema_multi_avg_fn(0.5) if foreach else None
        single = None if foreach else swa_utils.get_ema_avg_fn(0.5)
        ema = swa_utils.AveragedModel(model, avg_fn=single, multi_avg_fn=average)
        target = copy.deepcopy(model)
        for _ in range(3):
            step(model, optimizer)
            ema.update_parameters(model)
            for mean, parameter in zip(target.parameters(), model.parameters(), strict=True):
                mean.data.mul_(0.5).add_(parameter.data, alpha=0.5)
            with torch.no_grad():
                averaged.append(ema(X))
                by_hand.append(target(X))
    assert isinstance(ema.module.lstm, ours.LSTM)
    assert not torch.equal(averaged[3], averaged[4])
    close(averaged[3:], averaged[:3])
    assert not torch.equal(by_hand[3], by_hand[4])
    close(by_hand[3:], by_hand[:3])


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("tie", [True, False])
def test_functional_call(both: tuple[Any, Any], grad: bool, tie: bool) -> None:
    theirs, model = both
    for factor in (1.0, 0.5):
        parameters = {name: factor * p.detach() for name, p in model.named_parameters()}
        with torch.set_grad_enabled(grad):
            results = [
                torch.func.functional_call(one, parameters, (X,), tie_weights=tie)
                for one in (theirs, model)
            ]
        close(results[1], results[0])
    with torch.no_grad():
        close(model(X), theirs(X))


def test_conversion_by_swapping(both: tuple[Any, Any]) -> None:
    """Where `to` makes other tensors of the parameters, as it will one day by default."""
    theirs, model = both
    before = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        with torch.no_grad():
            model(X)
            close(model.double()(X.double()), theirs.double()(X.double()))
    finally:
        torch.__future__.set_swap_module_params_on_conversion(before)


def test_shared_memory(both: tuple[Any, Any]) -> None:
    """Another process' writes are seen by the next call, though nothing here counts them."""
    theirs, model = both
    model.share_memory()
    with torch.no_grad():
        close(model(X), theirs(X))

    def child() -> bool:
        torch.set_num_threads(1)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(0.5)
            model(X)
        return True

    assert code_of_child(child) == 0
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.mul_(0.5)
        close(model(X), theirs(X))


class Encoded(Dataset):  # type: ignore[misc]
    """Items that an LSTM makes, in whichever process asks."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Any:
        with torch.no_grad():
            return self.model((index + 1) * X)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_workers_of_a_data_loader(both: tuple[Any, Any]) -> None:
    """Forked after calls on several threads, whose pool a child does not have."""
    theirs, model = both
    big = ours.LSTM(4, 64, bidirectional=True)
    with torch.no_grad():
        big(torch.ones(100, 32, 4))
        loader = DataLoader(Encoded(model), num_workers=2, multiprocessing_context="fork")
        items = [item[0] for item in loader]
        close(items, [theirs(n * X) for n in (1, 2, 3, 4)])


@pytest.mark.slow
def test_spawned_processes(both: tuple[Any, Any]) -> None:
    """A model that is sent to another process, as its parameters are: in shared memory."""
    _, model = both
    model.share_memory()
    context = torch.multiprocessing.get_context("spawn")
    loader = DataLoader(Encoded(model), num_workers=1, multiprocessing_context=context)
    with torch.no_grad():
        close([item[0] for item in loader], [model(n * X) for n in (1, 2, 3, 4)])


@pytest.mark.parametrize("parametrised", [False, True])
def test_functional_call_of_a_frozen_module(both: tuple[Any, Any], parametrised: bool) -> None:
    for one in both:
        if parametrised:
            nn.utils.parametrizations.weight_norm(one.lstm, "weight_hh_l0")
        one.eval()
    theirs, model = both
    model.lstm.freeze()
    own = dict(model.named_parameters())
    other = {name: 2 * parameter.detach() for name, parameter in own.items()}
    with torch.no_grad():
        for _ in range(2):
            close(model(X), theirs(X))
            for parameters in (other, {**own, **dict(list(other.items())[-3:])}):
                got, expected = (
                    torch.func.functional_call(m, parameters, (X,)) for m in both[::-1]
                )
                close(got, expected)


def test_frozen_module(both: tuple[Any, Any]) -> None:
    theirs, model = both
    lstm = model.lstm
    with pytest.raises(RuntimeError, match="freeze: the module is in training mode"):
        lstm.freeze()
    model.eval()
    assert lstm.freeze() is lstm
    with torch.no_grad():
        y = model(X)
        lstm.weight_hh_l0.data.mul_(2)
        assert torch.equal(model(X), y)
        model.load_state_dict({name: 0.5 * p for name, p in theirs.state_dict().items()})
        theirs.load_state_dict(model.state_dict())
        close(model(X), theirs(X))
        copied = copy.deepcopy(model)
        model.double()
        close(model(X.double()).float(), theirs(X))
        model.float()
        lstm.weight_hh_l0.data.mul_(2)
        theirs.lstm.weight_hh_l0.data.mul_(2)
        assert lstm.unfreeze() is lstm
        close(model(X), theirs(X))
        lstm.freeze()
        model.train()
        model(X)
        for one in both:
            one.lstm.weight_hh_l0.data.mul_(2)
        close(model(X), theirs(X))
        model.eval()
        for one in both:
            one.lstm.weight_hh_l0.data.mul_(2)
        close(model(X), theirs(X))
        frozen = copied(X)
        copied.lstm.weight_hh_l0.data.mul_(2)
        assert torch.equal(copied(X), frozen)  # a copy is frozen, too
    with torch.enable_grad():  # parameters are read at each call
        for one in (model, theirs):
            one.lstm.weight_hh_l0.data.mul_(0.5)
        close(model(X), theirs(X))
