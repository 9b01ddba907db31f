"""The two layers, documented. The calls that both have are in ``_layer.py``."""

from __future__ import annotations

from types import FunctionType
from typing import NoReturn

from fastlstm import _tracing
from fastlstm._layer import LSTMBase
from fastlstm.stream import Stream


class LSTM(LSTMBase):
    """Long short-term memory, one or more layers, in one direction.

    The cell of Hochreiter and Schmidhuber (1997) with the forget gate of Gers, Schmidhuber and
    Cummins (2000); :mod:`fastlstm.reference` has the equations, those of all options too.

    Parameters
    ----------
    input_size : int
        I, numbers per step of the input.
    hidden_size : int
        H, units of each layer and direction.
    num_layers : int, default 1
        L, layers on top of each other, up to 1000.
    bias : bool, default True
        Whether there are biases; without, b = 0.
    batch_first : bool, default False
        Whether x and y are (B, T, ...) instead of (T, B, ...). States are (L*D, B, ...) either way.
    proj_size : int, default 0
        P, numbers to which W_hr projects each hidden state (Sak, Senior and Beaufays 2014), less
        than H; 0 for no projection, P = H.
    peepholes : bool, default False
        Whether gates see the cell state (Gers and Schmidhuber 2000): i and f that of the step
        before, o the new one, each unit its own.
    coupled_gates : bool, default False
        Whether f = 1 - i instead of a gate of its own.
    gate_activation, cell_activation, output_activation : str
        Activation of i, f and o; of g; and of c on its way to h: "sigmoid", "tanh", "relu",
        "hard_sigmoid" (0.2 x + 0.5 between 0 and 1) or "identity". By default sigmoid, tanh, tanh.
    clip : float, optional
        Bounds what goes into the activations of the gates and of g to [-clip, clip], as ONNX
        Runtime and OpenVINO understand ONNX's attribute of the name.
    cell_clip : float, optional
        Bounds the cell state to [-cell_clip, cell_clip], as TensorFlow's option of the name.
    layer_norm : bool, default False
        Whether W @ x, U @ h and c on its way to h are normalised, each over all its numbers, then
        scaled and shifted (Ba, Kiros and Hinton 2016, supplement; the biases are the shifts).
    dropout, recurrent_dropout, weight_dropout : float, default 0
        What :meth:`record` drops, with the probabilities in [0, 1): numbers of the outputs of all
        layers but the last; numbers of h on its way into U @ h, the same at each step of a
        sequence (Gal and Ghahramani 2016); numbers of U, the same for a whole call (DropConnect:
        Merity, Keskar and Socher 2017). What is kept is scaled by 1 / (1 - rate).
    zoneout_h, zoneout_c : float, default 0
        Probability with which :meth:`record` keeps a number of h, or c, of the step before
        (Krueger et al. 2016). Calls and streams mix both states in that proportion.
    reverse : bool, default False
        Whether every layer runs from the last step to the first, as the reverse direction of a
        :class:`BiLSTM`, ONNX's ``direction="reverse"`` and Keras' ``go_backwards`` do. y_t still
        belongs to x_t: it has seen x_t to the end of the sequence, where h_0 and c_0 count. h_n and
        c_n are those after step 0. Not for a :class:`BiLSTM`.
    return_sequences : bool, default True
        Whether y holds all steps; if not, each direction's last one alone, and no other is written.
    dtype : float32 or float64, default float32
        Precision of parameters, states, results and arithmetic.
    forget_bias : float, optional
        What the biases of the forget gates add up to at first; drawn like the others if omitted.
    seed : int or numpy.random.Generator, optional
        For the initial parameters, drawn from U(-1/sqrt(H), 1/sqrt(H)).
    isa : str, optional
        Instruction set, one of those that ``python -m fastlstm info`` lists. By default what the
        environment variable ``FASTLSTM_ISA`` names, else the fastest. Copies keep one that was
        asked for where the machine has it.

    Attributes
    ----------
    input_size, hidden_size, num_layers, num_directions, bias, batch_first, proj_size, dtype, isa
        As above, read-only; ``num_directions`` (D) is 1, of a :class:`BiLSTM` 2.
    reverse, return_sequences : bool
        As above, read-only.
    bits : int or None
        8, 16 or 24 of a layer that :func:`fastlstm.quantize` made, else None.
    output_size : int
        P, also where it is H.
    cell : fastlstm.variants.Cell
        The options of the cell.
    drops : bool
        Whether :meth:`record` drops anything.
    needs_whole_sequences : bool
        Whether no result is known before the last step is: ``reverse``, or a :class:`BiLSTM`.
    rates : fastlstm.variants.Rates
        ``dropout``, ``recurrent_dropout`` and ``weight_dropout``.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong type or out of range.
    MemoryError
        If the parameters don't fit.

    Notes
    -----
    The bits of a result depend on the parameters and the sequence alone: not on the batch size,
    the other sequences, how the sequence is cut into calls, the strides of the input, or the
    instruction set. NaNs stay NaNs, but which of the many NaN bit patterns they have is not
    promised. Two corners of denormal size are not either: arm64 flushes a result that x86-64 rounds
    up to the smallest normal number, and a processor without fused multiply-add (x86-64 before
    2013) relies on the C library's, which in float64 can be off by an ulp below 1e-290.

    A layer holds no running state and may be used by many threads at once; the interpreter's lock
    is released during the computation.

    Names, shapes and meanings are those of ``torch.nn.LSTM``. It differs from it in this: layers
    are one direction (see :class:`BiLSTM` for two); parameters come out read-only; the input is
    converted to the layer's dtype and T = 0 is allowed; a call never drops, :meth:`record` does.

    Examples
    --------
    >>> import numpy as np
    >>> from fastlstm import LSTM
    >>> lstm = LSTM(3, 5, num_layers=2, seed=0)
    >>> x = np.zeros((10, 4, 3), np.float32)
    >>> y, (h_n, c_n) = lstm(x)
    >>> y.shape, h_n.shape, c_n.shape
    ((10, 4, 5), (2, 4, 5), (2, 4, 5))
    """

    __slots__ = ()

    num_directions = 1

    def stream(self, batch_size: int = 1) -> Stream:
        """Make a stream: this layer fed a step at a time, with a state of its own.

        Parameters
        ----------
        batch_size : int, default 1
            B, sequences that advance together.

        Returns
        -------
        Stream
            Its state is zero. It keeps the parameters that the layer has now: a later
            :meth:`load_state_dict` does not reach it.

        Raises
        ------
        TypeError
            If the layer is ``reverse``: no result is known before the last step is.
        TypeError, ValueError
            If ``batch_size`` is no integer or out of range.
        MemoryError
            If the state doesn't fit.

        Examples
        --------
        >>> import numpy as np
        >>> from fastlstm import LSTM
        >>> stream = LSTM(3, 5, seed=0).stream()
        >>> stream.step(np.zeros(3, np.float32)).shape
        (5,)
        """
        if self.reverse:
            raise TypeError(
                "LSTM with reverse=True can't be streamed: it begins at the last step, so no "
                "result is known before the whole sequence is; call it on whole sequences"
            )
        tracer = _tracing.tracer_of(self._spec._replace(return_sequences=True), self._weights)
        return Stream(self._weights.model, batch_size, self.batch_first, tracer)


class BiLSTM(LSTMBase):
    """Bidirectional LSTM: a forward and a reverse pass, side by side in every layer.

    The reverse direction has parameters of its own (names ending in ``_reverse``) and runs from
    the last step to the first; the next layer sees both, [forward, reverse], 2H numbers a step
    (Schuster and Paliwal 1997; Graves and Schmidhuber 2005). Parameters, attributes, errors and
    notes are those of :class:`LSTM`, and one more:

    merge_mode : {"concat", "sum", "mean", "product", None}, default "concat"
        What y is made of the last layer's directions: both side by side, 2P numbers a step; P
        numbers out of both; or with None a pair (y_forward, y_reverse).

    ``h_n[2*l + 1]`` is the reverse direction's state after its last step, which is step 0 of the
    sequence.

    It is ``torch.nn.LSTM(..., bidirectional=True)``, with the same names and shapes.

    Examples
    --------
    >>> import numpy as np
    >>> from fastlstm import BiLSTM
    >>> y, (h_n, c_n) = BiLSTM(3, 5, seed=0)(np.zeros((10, 4, 3), np.float32))
    >>> y.shape, h_n.shape
    ((10, 4, 10), (2, 4, 5))
    """

    __slots__ = ()

    num_directions = 2

    def stream(self, batch_size: int = 1) -> NoReturn:
        """Refuse: only an :class:`LSTM` can be fed a step at a time.

        Raises
        ------
        TypeError
            Always.
        """
        raise TypeError(
            "BiLSTM can't be streamed: its reverse direction begins at the last step, so no result "
            "is known before the whole sequence is; call it on whole sequences, or use LSTM"
        )


def _name_methods_for(layer: type[LSTMBase]) -> None:
    """Give a layer the methods of its base under its own name.

    Python's errors about arguments name the function: ``LSTM.__init__() missing ...``, and not
    that of a class which nobody has asked for.
    """
    for name, method in vars(LSTMBase).items():
        if isinstance(method, FunctionType):
            own = FunctionType(
                method.__code__, method.__globals__, name, method.__defaults__, method.__closure__
            )
            own.__kwdefaults__, own.__annotations__ = method.__kwdefaults__, method.__annotations__
            own.__doc__, own.__module__ = method.__doc__, method.__module__
            own.__qualname__ = f"{layer.__name__}.{name}"
            setattr(layer, name, own)


_name_methods_for(LSTM)
_name_methods_for(BiLSTM)
