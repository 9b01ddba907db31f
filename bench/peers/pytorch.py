"""PyTorch: torch.nn.LSTM under torch.inference_mode, or with autograd; memory shared with NumPy.

In the grid ``torch`` also fastlstm.torch.LSTM, by the same calls.

In the grid ``precision`` also in bfloat16, as a module whose arrays are, x too, or under autocast
with x in float32; and in 8 bits, by ``quantize_dynamic``.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib import import_module
from typing import Any

from ..grid import Cell
from ..problem import Arrays, Problem, result_gradients


def _make_lstm(torch: Any, problem: Problem, module: str = "torch.nn") -> Any:
    cell = problem.cell
    lstm = import_module(module).LSTM(
        cell.I,
        cell.H,
        cell.L,
        bidirectional=cell.D == 2,
        dtype=getattr(torch, cell.dtype),
        **cell.chosen(["proj_size"]),
    )
    lstm.load_state_dict(
        {name: torch.from_numpy(array) for name, array in problem.parameters.items()}
    )
    return lstm


def _ragged(torch: Any, lstm: Any, cell: Cell) -> Callable[..., Any]:
    """Make what takes and returns padded sequences, as its users do: packs them, and pads again."""
    pack = torch.nn.utils.rnn.pack_padded_sequence
    pad = torch.nn.utils.rnn.pad_packed_sequence
    lengths = torch.tensor(cell.lengths)

    def call(x: Any, state: Any) -> Any:
        y, state = lstm(pack(x, lengths, enforce_sorted=False), state)
        return pad(y, total_length=cell.T)[0], state

    return call


class _Runner:
    def __init__(self, problem: Problem, torch: Any, module: str, frozen: bool) -> None:
        self._inference_mode = torch.inference_mode
        lstm, cell = _make_lstm(torch, problem, module).eval(), problem.cell
        if frozen:
            lstm.freeze()
        self._lstm = _ragged(torch, lstm, cell) if cell.ragged else lstm
        self._x = torch.from_numpy(problem.x)
        self._state = (torch.from_numpy(problem.h_0), torch.from_numpy(problem.c_0))

    def __call__(self) -> object:
        with self._inference_mode():
            return self._lstm(self._x, self._state)

    def arrays(self) -> Arrays:
        with self._inference_mode():
            y, (h_n, c_n) = self._lstm(self._x, self._state)
        return y.numpy(), h_n.numpy(), c_n.numpy()


def _in_int8(torch: Any, lstm: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is to go
        quantized = torch.ao.quantization.quantize_dynamic
        return quantized(torch.nn.Sequential(lstm), {torch.nn.LSTM}, torch.qint8)[0]


class _LowPrecision:
    def __init__(self, problem: Problem, torch: Any, precision: str) -> None:
        self._inference_mode = torch.inference_mode
        lstm = _make_lstm(torch, problem).eval()
        real = torch.bfloat16 if precision == "bfloat16" else torch.float32
        self._lstm = _in_int8(torch, lstm) if precision == "int8" else lstm.to(real)
        self._autocast = torch.autocast("cpu", torch.bfloat16, enabled=precision == "autocast")
        self._x, h_0, c_0 = (
            torch.from_numpy(array).to(real) for array in (problem.x, problem.h_0, problem.c_0)
        )
        self._state = (h_0, c_0)

    def __call__(self) -> Any:
        with self._inference_mode(), self._autocast:
            return self._lstm(self._x, self._state)

    def arrays(self) -> Arrays:
        y, (h_n, c_n) = self()
        return y.float().numpy(), h_n.float().numpy(), c_n.float().numpy()


class _Training:
    """New gradients each call: with ``grad`` at None autograd hands them over, and adds nothing."""

    def __init__(self, problem: Problem, torch: Any, module: str) -> None:
        self._backward = torch.autograd.backward
        lstm, cell = _make_lstm(torch, problem, module), problem.cell
        self._lstm = _ragged(torch, lstm, cell) if cell.ragged else lstm
        self._x, self._h_0, self._c_0 = (
            torch.from_numpy(array).requires_grad_()
            for array in (problem.x, problem.h_0, problem.c_0)
        )
        by_name = dict(lstm.named_parameters())
        parameters = [by_name[name] for name in problem.parameters]
        self._leaves = [self._x, self._h_0, self._c_0, *parameters]
        dy, dstate = result_gradients(problem.cell)
        self._given = [torch.from_numpy(array) for array in (dy, *dstate)]

    def __call__(self) -> list[Any]:
        for leaf in self._leaves:
            leaf.grad = None
        y, state = self._lstm(self._x, (self._h_0, self._c_0))
        results = [y, *state]
        self._backward(results, self._given)
        return results

    def arrays(self) -> Arrays:
        results = [result.detach() for result in self()]
        return tuple(a.numpy() for a in (*results, *(leaf.grad for leaf in self._leaves)))


def build(
    problem: Problem,
    threads: int,
    precision: str = "",
    module: str = "torch.nn",
    frozen: bool = False,
) -> _Runner | _LowPrecision | _Training:
    """Runner for PyTorch; precision is "bfloat16", "autocast", "int8" or that of the cell.

    The LSTM is that of a module, and frozen if it is ours and asked to be.
    """
    torch: Any = import_module("torch")
    torch.set_num_threads(threads)
    if precision:
        return _LowPrecision(problem, torch, precision)
    if problem.cell.training:
        return _Training(problem, torch, module)
    return _Runner(problem, torch, module, frozen)
