"""Why an answer is as it is: what steps and features of the input it comes from.

>>> import numpy as np
>>> from fastlstm import LSTM, explain
>>> lstm = LSTM(3, 8, seed=0)
>>> x = np.random.default_rng(0).normal(size=(20, 3))
>>> why = explain.integrated_gradients(lstm, x, output=5)  # of y[-1, 5]
>>> why.values.shape, bool(abs(why.residual) < 1e-3)
((20, 3), True)

`gradients` are the slopes at x, `integrated_gradients` shares of the difference from a baseline,
which add up to it, `occlusion` what changes without parts of x. `decompose` splits the states of an
LSTM into what each step put there, by the layer's own equations.

What is explained is a layer or a `fastlstm.training.Network`, and one number of its answer for each
sequence, the ``output``:

- an int, that number of the answer: of y at the last step of the sequence, or of the one answer
  that there is (``return_sequences=False``, ``each_step=False``);
- (step, int), that of a step; negative ones count from a sequence's own end, and with a ``mask``
  steps that do not exist do not count;
- of a network the name of a class or a target in place of an int: numbers are those of ``z``;
- or a function that takes y, as the layer or network returns it for N sequences, and returns the
  values (N,) and their gradient by y, of y's shape. The sequences it is given are points of a path,
  or copies of x with parts left out; with a ``mask`` their steps that exist are the first.

Letters: T time steps, B batch, N sequences of one call, I input size, H hidden size, P output size.
"""

from fastlstm.explain._attribution import Attribution
from fastlstm.explain._decomposition import Decomposition, decompose
from fastlstm.explain._gradients import gradients
from fastlstm.explain._integrated import integrated_gradients
from fastlstm.explain._occlusion import occlusion

__all__ = [
    "Attribution",
    "Decomposition",
    "decompose",
    "gradients",
    "integrated_gradients",
    "occlusion",
]
