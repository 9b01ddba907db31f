"""A bounded number of damaged files of each format: `fuzz_weights.py`, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from support.optional import require
from support.paths import TESTS

SCRIPT = TESTS / "tools" / "fuzz_weights.py"

pytest.importorskip("resource", reason="limits of memory are Unix'")


@pytest.mark.parametrize(
    ("only", "rounds", "package"),
    [
        (".npz", 150, "numpy"),
        (".safetensors", 200, "safetensors"),
        (".pt", 100, "torch"),
        (".onnx", 100, "onnx"),
        (".keras", 10, "h5py"),
        (".h5", 10, "h5py"),
        (".json", 200, "numpy"),
        (".nam", 200, "numpy"),
    ],
)
def test_damaged_files(tmp_path: Path, only: str, rounds: int, package: str) -> None:
    require(package)
    options = ["--only", only, "--rounds", str(rounds), "--seconds", "120", "--keep", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *options],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " inputs, 0 findings" in done.stdout
