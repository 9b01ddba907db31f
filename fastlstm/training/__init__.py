"""Train an LSTM or BiLSTM with a linear head: what is beneath ``python -m fastlstm train``.

>>> import numpy as np
>>> from fastlstm import LSTM
>>> from fastlstm.optim import Adam
>>> from fastlstm.training import Network, Sequences, Trainer
>>> x = np.random.default_rng(0).normal(size=(10, 40, 3))  # (T, B, I)
>>> data = Sequences(x, x.sum(axis=0))  # y (B, K): an answer for each sequence
>>> training, validation = data.split(0.25, seed=0)
>>> network = Network(LSTM(3, 8, seed=0), outputs=3, each_step=False, seed=0)
>>> trainer = Trainer(network, training, validation, Adam(1e-2), epochs=5, batch_size=10, seed=0)
>>> trainer.fit()  # with a path: leaves a checkpoint there, as Ctrl-C does
>>> network.load_parameters(trainer.best_parameters)
>>> network(x).shape
(40, 3)

Sequences of different lengths come as lists, or padded with their ``lengths``; a ``mask`` says
where padding lies in front, or gaps inside.

The parts: `Sequences` holds arrays, `Network` computes losses and gradients and takes a step,
`Trainer` does what a run needs around it. A run depends on the data, the options and the seed: not
on the number of threads, nor on where it was interrupted and resumed, to the bit.

Letters: T time steps, B batch, I input size, H hidden size, D directions, K outputs, N parameters.
"""

from fastlstm.training.callbacks import Callback, GradientNorms
from fastlstm.training.embedding import Embedding
from fastlstm.training.evaluation import Evaluation
from fastlstm.training.foreign import load_network
from fastlstm.training.generated import SequenceStream
from fastlstm.training.heads import HeadSpec
from fastlstm.training.history import Epoch
from fastlstm.training.losses import Score, check_loss
from fastlstm.training.network import Network
from fastlstm.training.plot import plot_history
from fastlstm.training.scaling import Scaling, UnscaledWarning
from fastlstm.training.schedules import cosine
from fastlstm.training.scoring import evaluate
from fastlstm.training.sequences import Sequences
from fastlstm.training.trainer import Trainer

__all__ = [
    "Callback",
    "Embedding",
    "Epoch",
    "Evaluation",
    "GradientNorms",
    "HeadSpec",
    "Network",
    "Scaling",
    "Score",
    "SequenceStream",
    "Sequences",
    "Trainer",
    "UnscaledWarning",
    "check_loss",
    "cosine",
    "evaluate",
    "load_network",
    "plot_history",
]
