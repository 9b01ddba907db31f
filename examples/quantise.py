"""
Quantise, and see what it costs
===============================

8 bits are a quarter of the size, and faster. What they cost shows on data: here on the bundled
network that forecasts the sea-surface temperature off Peru.
"""

# %%
# One call
# --------

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import fastlstm
from fastlstm.data import load_sst, model_path
from fastlstm.data.features import Scaling, forecast_features
from fastlstm.training import Network

lstm = Network.load(model_path("sst_forecast"), loss="mse").lstm  # without its head
small = fastlstm.quantize(lstm, bits=8)
print(lstm)
print(small)

# %%
# The report
# ----------
# On the series itself, as the network reads it: differences by layer and over time, size and speed.

sst = load_sst()
scaling = Scaling.fit(sst, "1989-01")
x = forecast_features(scaling.anomaly(sst), sst.month)
report = fastlstm.quantization_report(lstm, small, x)
print(report)

# %%
# Does an error grow?
# -------------------
# A recurrent network sees its own errors again. Over 61 years they stay where they are: a forget
# gate below 1 lets go of errors as it does of all else.

fig, ax = plt.subplots(figsize=(8, 3), layout="constrained")
expected, _ = lstm(x)
for bits in (8, 16, 24):
    y, _ = fastlstm.quantize(lstm, bits)(x)
    error = np.sqrt(np.mean((y - expected) ** 2, axis=tuple(range(1, y.ndim))))
    ax.semilogy(sst.dates, error, linewidth=0.8, label=f"{bits} bits")
ax.set_ylabel("RMS difference of h")
ax.legend(ncols=3, loc="center right", bbox_to_anchor=(1, 0.68))
plt.show()

# %%
# Files
# -----
# A quantised layer is saved as it is. The sizes of a larger one:

large = fastlstm.LSTM(64, 256, seed=0)
with tempfile.TemporaryDirectory() as folder:
    for bits in (None, 24, 16, 8):
        path = Path(folder) / f"{bits}.npz"
        fastlstm.save(large if bits is None else fastlstm.quantize(large, bits), path)
        print(f"{bits or 'float32'!s:>7}: {path.stat().st_size / 1e3:6.0f} kB")

# %%
# Which precision to choose, with what each costs: :doc:`/how-to/choosing-precision`.
