"""Without scikit-learn the package says what to install."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import sys
sys.modules["sklearn"] = None
import fastlstm
assert "fastlstm.sklearn" not in sys.modules
try:
    import fastlstm.sklearn
except ImportError as error:
    print(error)
"""


def test_names_the_extra() -> None:
    said = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    expected = 'fastlstm.sklearn needs scikit-learn: pip install "fastlstm[sklearn]"\n'
    assert said.stdout == expected
