"""The examples of PyTorch run, and say what they promise."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from support.optional import require
from support.paths import EXAMPLES


def printed(name: str, *arguments: str) -> str:
    require("torch")
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_tagger_is_trained_and_goes_back_to_pytorch(tmp_path: Path) -> None:
    path = tmp_path / "tagger.pt"
    text = printed("torch_tagger.py", "--steps", "100", "--output", str(path))
    ours, theirs = re.findall(r"accuracy ([\d.]+)%", text)
    assert float(ours) > 85
    assert float(theirs) == pytest.approx(float(ours), abs=0.11)
    kinds = printed("load_tagger.py", "--model", str(path), "import io  # of files")
    # So short a training does not know all keywords; the numbers are PyTorch's in other tests.
    assert "".join(re.findall(r"^\w+ +'(.*)'$", kinds, re.MULTILINE)) == "import io  # of files"
    assert re.search(r"^comment +'# of files'$", kinds, re.MULTILINE)


@pytest.mark.slow
def test_a_classifier_is_compiled_and_exported(tmp_path: Path) -> None:
    path = tmp_path / "classifier.pt2"
    text = printed("torch_export.py", "--backend", "aot_eager", "--output", str(path))
    elsewhere = re.findall(r"sequences: (\S+)", text)
    (here,) = re.findall(r"and here: (\S+), (\S+)", text)
    assert [float(a) for a in elsewhere] == pytest.approx([float(a) for a in here], abs=2e-6)
