"""The executable specification of fastlstm: an LSTM in plain NumPy.

Every function here says one idea in the words of the equations, in float64 unless told otherwise,
and without a trick for speed. The fast kernels are tested against it, and it is the place to look
when the meaning of an argument is in doubt.

Letters: T time steps, B batch, I input size, H hidden size, L layers, D directions. The four gates
come in the order i, f, g, o (PyTorch's), stacked along the first axis of ``W``, ``U`` and ``b``.
``@`` is the matrix product and ``*`` the elementwise one::

    f_t = sigmoid(W_f @ x_t + U_f @ h_{t-1} + b_f)        forget gate
    i_t = sigmoid(W_i @ x_t + U_i @ h_{t-1} + b_i)        input gate
    o_t = sigmoid(W_o @ x_t + U_o @ h_{t-1} + b_o)        output gate
    g_t = tanh   (W_g @ x_t + U_g @ h_{t-1} + b_g)        cell input
    c_t = f_t * c_{t-1} + i_t * g_t                       cell state
    h_t = o_t * tanh(c_t)                                 hidden state

PyTorch's arrays hold these: ``weight_ih_l0`` is W, ``weight_hh_l0`` is U, and ``bias_ih_l0 +
bias_hh_l0`` is b.

`lstm_cell` is these equations, `lstm_layer` repeats them over time, and `forward` stacks layers;
each has a ``_backward`` (`backward` that of `forward`). Every variant of the equations that
:class:`fastlstm.variants.Cell` names is in `variant_cell`, which `variant_layer` repeats over time;
`forward` and `backward` run these. Two more letters there: P is the projected size (H where there
is no projection), G the gates that have weights (4, or 3 where the forget gate is coupled to the
input gate: i, g, o).

`quantized_forward` runs the same layers with products of 8, 16 or 24 bits, made of exact sums of
integers; `quantize_layer` makes the digits, `forward_of_digits` takes them as they are, and
`quantized_cell` and `quantized_layer` are the equations with every rounding.

Sources
-------
.. [#S1] S. Hochreiter and J. Schmidhuber, "Long short-term memory", Neural Computation 9(8), 1997:
   the cell.
.. [#S2] F. A. Gers, J. Schmidhuber and F. Cummins, "Learning to forget: continual prediction with
   LSTM", Neural Computation 12(10), 2000: the forget gate.
.. [#S3] A. Graves and J. Schmidhuber, "Framewise phoneme classification with bidirectional LSTM and
   other neural network architectures", Neural Networks 18(5-6), 2005: two directions, and the full
   gradient by backpropagation through time (appendix).
.. [#S4] P. J. Werbos, "Backpropagation through time: what it does and how to do it", Proceedings of
   the IEEE 78(10), 1990: the chain rule for a system with memory.
.. [#S5] F. A. Gers and J. Schmidhuber, "Recurrent nets that time and count", IJCNN 2000: peepholes.
.. [#S6] K. Greff, R. K. Srivastava, J. Koutnik, B. R. Steunebrink and J. Schmidhuber, "LSTM: a
   search space odyssey", IEEE Transactions on Neural Networks and Learning Systems 28(10), 2017:
   coupled gates, and the other variants side by side.
.. [#S7] H. Sak, A. Senior and F. Beaufays, "Long short-term memory recurrent neural network
   architectures for large scale acoustic modeling", Interspeech 2014: the projection.
.. [#S8] J. L. Ba, J. R. Kiros and G. E. Hinton, "Layer normalization", arXiv:1607.06450, 2016: the
   supplement has the LSTM.
.. [#S9] D. Krueger et al., "Zoneout: regularizing RNNs by randomly preserving hidden activations",
   ICLR 2017.
.. [#S10] Y. Gal and Z. Ghahramani, "A theoretically grounded application of dropout in recurrent
   neural networks", NIPS 2016: one mask for a whole sequence.
"""

from __future__ import annotations

from fastlstm.reference.cell import lstm_cell, lstm_cell_backward, sigmoid
from fastlstm.reference.digits import Digits
from fastlstm.reference.layer import (
    lstm_layer,
    lstm_layer_backward,
    variant_layer,
    variant_layer_backward,
)
from fastlstm.reference.quantized import (
    QuantizedWeights,
    quantize_layer,
    quantized_cell,
    quantized_layer,
)
from fastlstm.reference.quantized_stack import forward_of_digits, quantized_forward
from fastlstm.reference.stack import backward, forward
from fastlstm.reference.variant import Weights, variant_cell, variant_cell_backward

__all__ = [
    "Digits",
    "QuantizedWeights",
    "Weights",
    "backward",
    "forward",
    "forward_of_digits",
    "lstm_cell",
    "lstm_cell_backward",
    "lstm_layer",
    "lstm_layer_backward",
    "quantize_layer",
    "quantized_cell",
    "quantized_forward",
    "quantized_layer",
    "sigmoid",
    "variant_cell",
    "variant_cell_backward",
    "variant_layer",
    "variant_layer_backward",
]
