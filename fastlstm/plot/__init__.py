"""Pictures of what a network does, by matplotlib (``pip install "fastlstm[cli]"``).

>>> import numpy as np
>>> from fastlstm import LSTM, plot
>>> x = np.random.default_rng(0).normal(size=(50, 3))
>>> axes = plot.memory(LSTM(3, 8, seed=0).trace(x))
>>> axes.get_title()  # what is seen
'unit 3 of l0 remembers longest: 1.71 steps; median 1.4'

Each function draws on the axes that it is given as ``ax``, or on those of a new figure of
``matplotlib.pyplot``, and returns them: for further changes, or ``ax.figure.savefig(path)``.
Titles and labels tell numbers of what is drawn. Colours are told apart by all eyes and in grey:
lines differ by dashes and markers, too, maps grow lighter evenly, and what has a sign is blue below
0 and yellow above.

Letters: T time steps, B batch, I input size, H hidden size, K classes or targets.
"""

from fastlstm.plot._answers import (
    confusion_matrix,
    forecast,
    label_scores,
    predicted_over_true,
)
from fastlstm.plot._attributions import attributions
from fastlstm.plot._traces import gates, memory
from fastlstm.plot._training import gradient_norms, learning_curves

__all__ = [
    "attributions",
    "confusion_matrix",
    "forecast",
    "gates",
    "gradient_norms",
    "label_scores",
    "learning_curves",
    "memory",
    "predicted_over_true",
]
