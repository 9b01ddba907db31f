"""
An audio effect, sample by sample
=================================

A small LSTM learns what an amplifier does to a guitar, and then runs as a plug-in would: one sample
in, one sample out, within the 21 microseconds that a sample lasts at 48 kHz.
"""

# %%
# Sound, and the amplifier
# ------------------------
# Plucked strings (Karplus and Strong), and an amplifier with memory: it bends the wave, the more
# the louder the last milliseconds were, and takes away what is high.

import time

import matplotlib.pyplot as plt
import numpy as np

from fastlstm import LSTM
from fastlstm.optim import Adam
from fastlstm.training import Network, Sequences, Trainer

RATE = 48_000


def plucked(hertz, seconds, rng):
    """A string: noise that goes round in a loop and loses its edges."""
    period = int(RATE / hertz)
    turns = [rng.uniform(-1, 1, period)]
    for _ in range(int(seconds * hertz) + 1):
        turns.append(0.498 * (turns[-1] + np.roll(turns[-1], 1)))
    return np.concatenate(turns)[: int(seconds * RATE)]


def amplifier(x):
    """What is to be learnt."""
    y, loudness, low = np.empty_like(x), 0.0, 0.0
    for t, x_t in enumerate(x):
        loudness += 0.002 * (abs(x_t) - loudness)
        low += 0.35 * (np.tanh((2 + 12 * loudness) * x_t) - low)
        y[t] = low
    return y


rng = np.random.default_rng(0)
tones = [82, 110, 147, 196, 247, 330, 220, 165]
x = np.concatenate([rng.uniform(0.3, 1) * plucked(hertz, 0.25, rng) for hertz in tones])
y = amplifier(x)

# %%
# Training
# --------
# On pieces of 20 ms. The network answers with what is to be *added* to the input.

steps = RATE // 50
pieces = len(x) // steps


def in_pieces(z):
    """(N,) to (T, B, 1)."""
    return z[: pieces * steps].reshape(pieces, steps, 1).swapaxes(0, 1).astype(np.float32)


network = Network(LSTM(1, 16, seed=0), 1, seed=0)
data, held_out = Sequences(in_pieces(x), in_pieces(y - x)).split(0.2, seed=0)
trainer = Trainer(
    network, data, held_out, Adam(0.01), epochs=40, batch_size=16, schedule="cosine", seed=0
)
trainer.fit()
network.load_parameters(trainer.best_parameters)

# %%
# As a plug-in runs it
# --------------------
# A stream keeps the state between samples and allocates nothing.

arrays = network.state_dict()
weight, bias = arrays["head.weight"][0], arrays["head.bias"][0]
fresh = 0.8 * plucked(131, 0.5, rng)
expected = amplifier(fresh)

stream = network.lstm.stream()
out = np.empty_like(fresh)
start = time.perf_counter()
for t, x_t in enumerate(fresh.astype(np.float32)[:, None]):
    h = stream.step(x_t)
    out[t] = x_t[0] + weight @ h + bias
spent = (time.perf_counter() - start) / len(fresh)
error = np.sum((out - expected) ** 2) / np.sum(expected**2)
print(f"{1e6 * spent:.1f} us a sample, in a loop of Python; there are {1e6 / RATE:.1f}")
print(f"error to signal: {error:.1%}; of the input as it is: "
      f"{np.sum((fresh - expected) ** 2) / np.sum(expected**2):.0%}")  # fmt: skip

# %%

fig, ax = plt.subplots(figsize=(8, 3), layout="constrained")
part = slice(2000, 2600)
milliseconds = np.arange(len(fresh)) / RATE * 1e3
ax.plot(milliseconds[part], fresh[part], color="0.75", label="input")
ax.plot(milliseconds[part], expected[part], "k", label="amplifier")
ax.plot(milliseconds[part], out[part], "C1--", label="LSTM")
ax.set_xlabel("ms")
ax.legend(ncols=3, loc="upper center", bbox_to_anchor=(0.5, 1.16))
plt.show()

# %%
# ``examples/stream_numba.py`` runs the same loop compiled, and :doc:`/how-to/streaming` shows it in
# Cython and C.
