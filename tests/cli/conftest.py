"""Fixtures for tests of the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.command_line import parameters, save_input, save_model


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own with m.npz (LSTM, I = 3, H = 5) and x.npy (T, B, I) = (20, 7, 3)."""
    monkeypatch.chdir(tmp_path)
    save_model(tmp_path / "m.npz", parameters())
    save_input(tmp_path / "x.npy", 20, 7, 3)
    return tmp_path
