"""
Fill gaps in a series
=====================

A BiLSTM sees both sides of a gap. The one that comes with the package fills gaps of six months in
the sea-surface temperature off Peru, of years that its training has not seen.
"""

# %%
# The network and its data
# ------------------------
# The file holds the layer and a linear head; the features of a gap are those that training made.

import matplotlib.pyplot as plt
import numpy as np

from fastlstm.data import load_sst, model_path
from fastlstm.data.features import Scaling, gapfill_features, gapfill_guess
from fastlstm.training import Network

network = Network.load(model_path("sst_gapfill"), loss="mse")
print(network)

sst = load_sst()
since = sst.index("1996-01")  # what is held out
scaling = Scaling.fit(sst, "1989-01")  # of the years of training
anomaly, month = scaling.anomaly(sst)[since:], sst.month[since:]

# %%
# Make a gap, fill it
# -------------------
# The missing months are marked, and what stands there is a guess: a line from the last anomaly
# before the gap to the first behind it. Each column of ``missing`` is a gap elsewhere, so they are
# one batch.

T = len(anomaly)
starts = np.arange(12, T - 18, 6)
t = np.arange(T)[:, None]
missing = (t >= starts) & (t < starts + 6)  # (T, B)
guess = gapfill_guess(anomaly, missing)
filled = network(gapfill_features(guess, month, missing))[:, :, 0]


def rmse(answer):
    """Root mean square error in the gaps, in degrees Celsius."""
    return scaling.scale * np.sqrt(np.mean((answer - anomaly[:, None])[missing] ** 2))


print(f"{len(starts)} gaps of 6 months: BiLSTM {rmse(filled):.3f}, a line {rmse(guess):.3f} degC")

# %%
# Hardly better than the line that it starts from: the anomaly has lost the seasons already, and of
# what is left in the middle of six months the months around them tell little. El Niño of 1997 is
# the hardest part.

fig, ax = plt.subplots(figsize=(8, 3.5), layout="constrained")
dates = sst.dates[since:]
ax.plot(dates, scaling.scale * anomaly, color="0.6", label="measured")
for n, b in enumerate(range(len(starts))):
    gap = missing[:, b]
    label = "BiLSTM in a gap of 6 months" if n == 0 else None
    ax.plot(dates[gap], scaling.scale * filled[gap, b], color="C1", label=label)
ax.set_ylabel("anomaly, degrees Celsius")
ax.set_xlim(dates[0], dates[72])
ax.legend()
plt.show()
