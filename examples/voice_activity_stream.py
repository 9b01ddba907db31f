"""
Detect a voice as a stream
==========================

Silero VAD is a small network that tells whether somebody speaks, 32 ms of sound at a time. Its LSTM
is read from the ONNX file that its authors publish, and holds what was heard so far.
"""

# %%
# The detector
# ------------
# It stands in ``examples/voice_activity.py``, a program for sound files: a Fourier transform and
# four convolutions over the file's arrays in NumPy, and ``fastlstm.load(path).stream()`` for the
# LSTM. The weights are those of the package ``silero-vad``.

import importlib.util
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from voice_activity import FRAME, RATE, Detector, by_onnxruntime, frames_of, synthetic_voice

package = Path(importlib.util.find_spec("silero_vad").origin).parent
path = package / "data" / "silero_vad_16k_sequence.onnx"

# %%
# As sound comes in
# -----------------
# Vowels of a gliding pitch in the second and in the fifth second, and noise all over. Each frame is
# answered when it is there.

sound = synthetic_voice()
frames = frames_of(sound)
detector = Detector(path)
start = time.perf_counter()
probability = np.array([detector(frame) for frame in frames])
spent = (time.perf_counter() - start) / len(frames)
print(f"{1e6 * spent:.0f} us for a frame of {1000 * FRAME // RATE} ms")

# %%

fig, (above, below) = plt.subplots(2, 1, figsize=(8, 4), sharex=True, layout="constrained")
above.plot(np.arange(len(sound)) / RATE, sound, linewidth=0.5)
above.set_ylabel("sound")
below.step(np.arange(len(frames)) * FRAME / RATE, probability, where="post", color="C1")
below.set(xlabel="seconds", ylabel="probability of a voice", ylim=(0, 1))
plt.show()

# %%
# The same as ONNX Runtime on the whole file
# ------------------------------------------

expected = by_onnxruntime(path, frames)
print(f"largest difference: {np.abs(probability - expected).max():.1e}")
