"""PyTorch: torch.nn.LSTM under torch.inference_mode, tensors that share NumPy's memory."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from ..problem import Arrays, Problem


class _Runner:
    def __init__(self, problem: Problem, threads: int) -> None:
        torch: Any = import_module("torch")
        torch.set_num_threads(threads)
        cell = problem.cell
        self._inference_mode = torch.inference_mode
        self._lstm = torch.nn.LSTM(
            cell.I, cell.H, cell.L, bidirectional=cell.D == 2, dtype=getattr(torch, cell.dtype)
        )
        self._lstm.load_state_dict(
            {name: torch.from_numpy(array) for name, array in problem.parameters.items()}
        )
        self._lstm.eval()
        self._x = torch.from_numpy(problem.x)
        self._state = (torch.from_numpy(problem.h_0), torch.from_numpy(problem.c_0))

    def __call__(self) -> object:
        with self._inference_mode():
            return self._lstm(self._x, self._state)

    def arrays(self) -> Arrays:
        with self._inference_mode():
            y, (h_n, c_n) = self._lstm(self._x, self._state)
        return y.numpy(), h_n.numpy(), c_n.numpy()


def build(problem: Problem, threads: int) -> _Runner:
    """Runner for PyTorch."""
    return _Runner(problem, threads)
