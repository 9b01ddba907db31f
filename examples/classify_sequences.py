"""
Classify sequences in scikit-learn
==================================

Handwritten digits as sequences of eight rows of pixels, read by an LSTM that is an estimator like
any other: in a pipeline, in a search, with ``predict_proba``.
"""

# %%
# Data
# ----

import matplotlib.pyplot as plt
from sklearn.datasets import load_digits
from sklearn.metrics import ConfusionMatrixDisplay
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from fastlstm.sklearn import LSTMClassifier

x, y = load_digits(return_X_y=True)
x, x_test, y, y_test = train_test_split(x, y, random_state=0)
print(x.shape, "a row of 64 pixels each")


# %%
# A pipeline, and a search
# ------------------------
# The estimator takes (N, T, F): sequences, steps, features.


def as_pictures(rows):
    """Rows of 64 pixels as (N, 8, 8): a step is a row of the picture."""
    return rows.reshape(-1, 8, 8)


pipeline = make_pipeline(
    FunctionTransformer(as_pictures),
    LSTMClassifier(hidden_size=32, epochs=12, schedule="cosine", random_state=0),
)
search = GridSearchCV(pipeline, {"lstmclassifier__learning_rate": [0.01, 0.02]}, cv=3)
search.fit(x, y)
print(search.best_params_)
print(f"accuracy on what was held out: {search.score(x_test, y_test):.3f}")

# %%
# Which digits are taken for which
# --------------------------------

fig, ax = plt.subplots(figsize=(5, 5), layout="constrained")
ConfusionMatrixDisplay.from_estimator(search, x_test, y_test, ax=ax, colorbar=False, cmap="Blues")
plt.show()

# %%
# ``predict_proba`` tells how sure it is. The least sure of all:

sure = search.predict_proba(x_test).max(axis=1)
fig, axes = plt.subplots(1, 5, figsize=(8, 2), layout="constrained")
for ax, n in zip(axes, sure.argsort()[:5], strict=True):
    ax.imshow(x_test[n].reshape(8, 8), cmap="gray_r")
    ax.set_title(f"{search.predict(x_test[[n]])[0]} ({sure[n]:.0%}), is {y_test[n]}", fontsize=9)
    ax.axis("off")
plt.show()

# %%
# Forecasts, lists of sequences, DataFrames: :doc:`/how-to/scikit-learn`.
