"""What tests of the command line share: its models and inputs, and what it may print."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastlstm import cli, weights
from fastlstm._parameters import parameter_shapes
from fastlstm._spec import Spec

Arrays = dict[str, np.ndarray]


def parameters(layers: int = 1, directions: int = 1, dtype: Any = np.float32) -> Arrays:
    """An LSTM with I = 3 and H = 5."""
    rng = np.random.default_rng(5)
    shapes = dict(parameter_shapes(Spec(3, 5, layers, directions)))
    return {key: rng.uniform(-0.9, 0.9, shape).astype(dtype) for key, shape in shapes.items()}


def save_model(path: Path, arrays: Arrays) -> str:
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return str(path)


def save_input(path: Path, *shape: int, dtype: Any = np.float32) -> np.ndarray:
    x = np.random.default_rng(9).normal(size=shape).astype(dtype)
    np.save(path, x)
    return x


def files(folder: Path) -> set[str]:
    """Names of everything in `folder`, hidden files included."""
    return {entry.name for entry in folder.iterdir()}


def error_line(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that an error may print on stderr."""
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("fastlstm: error: ")
    return lines[0]


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run, expect exit code 2 and one line."""
    assert cli.main(["run", "--quiet", *arguments]) == 2
    return error_line(capsys)


def spy_on_the_layer(
    monkeypatch: pytest.MonkeyPatch, before: Callable[[int], None] = lambda _: None
) -> list[tuple[int, ...]]:
    """Collect the shape of every x a layer is called with; `before` gets the call's number."""
    seen: list[tuple[int, ...]] = []
    build = weights.build

    class Spy:
        def __init__(self, lstm: Any) -> None:
            self.lstm = lstm

        def __getattr__(self, name: str) -> Any:
            return getattr(self.lstm, name)

        def __call__(self, x: np.ndarray, state: Any = None) -> Any:
            before(len(seen))
            seen.append(x.shape)
            return self.lstm(x, state)

    monkeypatch.setattr(weights, "build", lambda *args, **options: Spy(build(*args, **options)))
    return seen
