"""
Forecast a series with missing values
=====================================

The carbon dioxide over Mauna Loa, weekly from 1958, with weeks that nobody measured. An LSTM
forecasts the next quarter of a year.
"""

# %%
# The table
# ---------
# The series comes with statsmodels.

import matplotlib.pyplot as plt
import numpy as np
from statsmodels.datasets import co2

from fastlstm import LSTM
from fastlstm.data import windows
from fastlstm.optim import Adam
from fastlstm.training import Trainer

table = co2.load_pandas().data
print(table["co2"].isna().sum(), "of", len(table), "weeks are missing")

# %%
# Windows
# -------
# A window is a year, and the answer the 13 weeks that follow. Gaps of what is read are filled with
# the value before; with ``indicator`` the network is told where. A window whose *answer* has a gap
# is left out: truth is never made up. ``difference`` lets it forecast changes, as the series grows
# beyond all that training has seen.

data = windows(
    table,
    targets="co2",
    length=52,
    horizon=13,
    missing="ffill",
    indicator=True,
    difference=1,
    split=(0.7, 0.85),
)
print(data)
print(data.x.shape, data.y.shape)

# %%
# Training
# --------

network = data.network(LSTM(len(data.features), 16, batch_first=True, seed=0), seed=0)
trainer = Trainer(
    network, data.training, data.validation, Adam(0.005), epochs=15, batch_size=64, seed=0
)
trainer.fit()
network.load_parameters(trainer.best_parameters)

# %%
# Is it better than no model?
# ---------------------------
# The test is the last 15% of the time, which had no part in anything above.

rows = data.test_rows
truth = data.inverse(data.y[rows], rows)
answers = {
    "this model": data.inverse(network(data.x[rows]), rows),
    "persistence": data.last_known(rows=rows),
    "a year ago": data.last_known(season=52, rows=rows),
}
for name, answer in answers.items():
    print(f"{name:12s} RMSE {np.sqrt(np.nanmean((answer - truth) ** 2)):.2f} ppm")

# %%
# One forecast a quarter, beside what came.

fig, ax = plt.subplots(figsize=(8, 3.5), layout="constrained")
known = table.loc["1997":, "co2"]
ax.plot(known.index, known, color="0.6", label="measured")
first = np.searchsorted(data.time[rows][:, 0], np.datetime64("1997-01-01"))
for n, row in enumerate(range(first, len(rows), 13)):
    label = "forecast" if n == 0 else None
    ax.plot(data.time[rows[row]], answers["this model"][row, :, 0], color="C1", label=label)
ax.set_ylabel("CO2, ppm")
ax.legend()
plt.show()

# %%
# From the shell it is one command, ``fastlstm train co2.csv --target co2 ...``:
# :doc:`/tutorials/tables`.
