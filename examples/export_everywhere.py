"""
To and from every framework
===========================

One trained LSTM, written in each format and read back, and run by the framework itself: the numbers
are the same within rounding, and read back by this package to the bit.
"""

# %%
# A layer

import os
import tempfile
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import onnxruntime
import torch

import fastlstm

os.environ["KERAS_BACKEND"] = "torch"
import keras

folder = Path(tempfile.mkdtemp())
lstm = fastlstm.LSTM(8, 32, 2, batch_first=True, seed=0)
x = np.random.default_rng(0).normal(size=(4, 20, 8)).astype(np.float32)  # (B, T, I)
y, _ = lstm(x)

# %%
# Files
# -----
# The suffix says the format. ``load`` needs none of the frameworks, and executes nothing that is in
# a file.

for suffix in (".npz", ".safetensors", ".pt", ".onnx", ".keras", ".h5"):
    path = folder / f"model{suffix}"
    fastlstm.save(lstm, path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a state dict does not say whether there is batch_first
        same, _ = fastlstm.load(path, batch_first=True)(x)
    print(f"{suffix:12s} {path.stat().st_size:7,} bytes, same bits: {np.array_equal(same, y)}")

# %%
# PyTorch
# -------

module = torch.nn.LSTM(8, 32, 2, batch_first=True)
module.load_state_dict(torch.load(folder / "model.pt"))
with torch.no_grad():
    answers = {"PyTorch": module(torch.from_numpy(x))[0].numpy()}
back = fastlstm.weights.from_torch(module)
print(f"and back {back}, same bits: {np.array_equal(back(x)[0], y)}")

# %%
# ONNX
# ----

session = onnxruntime.InferenceSession(folder / "model.onnx")
names = [given.name for given in session.get_inputs()]
print("inputs of the graph:", {given.name: given.shape for given in session.get_inputs()})
state = np.zeros((2, 4, 32), np.float32)
answers["ONNX Runtime"] = session.run(None, dict(zip(names, [x, state, state], strict=True)))[0]

# %%
# Keras
# -----

model = keras.models.load_model(folder / "model.keras")
answers["Keras"] = np.asarray(model(x).detach())

# %%
# How far they are from each other
# --------------------------------
# By a few units in the last place: each rounds in an order of its own.

fig, ax = plt.subplots(figsize=(8, 2.5), layout="constrained")
largest = [np.abs(each - y).max() for each in answers.values()]
ax.barh(list(answers), largest, height=0.5)
ax.axvline(np.finfo(np.float32).eps, color="0.6", linestyle=":", label="rounding of 1 in float32")
ax.set_xlabel("largest difference from fastlstm")
ax.legend()
plt.show()

# %%
# Frameworks without files
# ------------------------
# Flax, Haiku, Equinox and others hold arrays; ``from_arrays`` knows how each of them orders gates
# and axes.

rng = np.random.default_rng(1)
kernel, recurrent, bias = (rng.normal(size=size) for size in ((8, 128), (32, 128), 128))
print(fastlstm.LSTM.from_arrays(kernel, recurrent, bias, convention="haiku"))

# %%
# What each format holds: :doc:`/how-to/weights`.
