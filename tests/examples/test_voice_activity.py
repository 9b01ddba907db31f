"""The example that runs Silero VAD's LSTM as a stream."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
import pytest

from support.optional import missing, require
from support.paths import EXAMPLES

EXAMPLE = EXAMPLES / "voice_activity.py"


def detect(*arguments: str) -> tuple[dict[float, float], str]:
    """Largest probability by the beginning of each quarter of a second, and what else it says."""
    require("onnx")
    require("onnxruntime")
    if importlib.util.find_spec("silero_vad") is None:
        missing("silero_vad")
    command = [sys.executable, "-W", "error", str(EXAMPLE), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = re.findall(r"^ +([\d.]+) s  ([\d.]+) ", done.stdout, re.MULTILINE)
    return {float(second): float(probability) for second, probability in lines}, done.stdout


def test_a_voice_is_detected_as_onnx_runtime_does() -> None:
    probabilities, text = detect()
    assert len(probabilities) == 24
    for second, probability in probabilities.items():
        if 1.2 < second % 3 < 1.7:  # it speaks
            assert probability > 0.9
        if second % 3 < 0.7 or second % 3 > 2.4:
            assert probability < 0.15
    (difference,) = re.findall(r"from ONNX Runtime on the whole file: (\S+)", text)
    assert float(difference) < 1e-5


@pytest.mark.parametrize("samples", [0, 1, 513])
def test_wave_files(tmp_path: Path, samples: int) -> None:
    path = tmp_path / "sound.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(np.zeros(samples, "<i2").tobytes())
    probabilities, _ = detect(str(path))
    assert len(probabilities) == (samples > 0)
