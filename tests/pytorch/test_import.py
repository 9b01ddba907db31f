"""What importing asks for: PyTorch for `fastlstm.torch` alone, and of a version that works."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


def imported(code: str, *folders: Path) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([*map(str, folders), *map(os.path.abspath, sys.path)])
    environment = {**os.environ, "PYTHONPATH": path}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_the_package_alone_leaves_pytorch_alone() -> None:
    done = imported("import sys, fastlstm; sys.exit('torch' in sys.modules)")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("module", "message"),
    [
        ("raise ImportError", 'fastlstm.torch needs PyTorch: pip install "fastlstm[torch]"'),
        ("__version__ = '2.5.1+cpu'", "fastlstm.torch needs PyTorch 2.6 or later, found 2.5.1+cpu"),
        ("__version__ = '1.13.0a0'", "fastlstm.torch needs PyTorch 2.6 or later, found 1.13.0a0"),
    ],
)
def test_a_version_that_can_not_work_is_named(tmp_path: Path, module: str, message: str) -> None:
    (tmp_path / "torch.py").write_text(module)
    done = imported("import fastlstm.torch", tmp_path)
    assert done.stderr.splitlines()[-1] == f"ImportError: {message}"
