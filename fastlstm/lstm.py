"""The layers: thin Python over the C core. Checks, converts, allocates; computes nothing itself."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import Any, ClassVar, Final, NamedTuple, NoReturn, TypeAlias

import numpy as np
import numpy.typing as npt

from fastlstm import _core
from fastlstm.arguments import (
    RealArray,
    as_batch,
    as_finite,
    as_flag,
    as_precision,
    as_real_array,
    as_size,
    as_state,
    check_out,
    with_contiguous_rows,
)
from fastlstm.parameters import Architecture, initialise, join, parameter_count, split
from fastlstm.ragged import Ragged, as_lengths, as_offsets
from fastlstm.stream import Stream
from fastlstm.tape import Recording, Tape

#: (h, c), each (L*D, B, H), or (L*D, H) without a batch.
State: TypeAlias = tuple[RealArray, RealArray]

#: Far beyond any use; keeps a slip of the pen from asking for a billion small arrays.
MAX_LAYERS = 1000


class _Weights(NamedTuple):
    """Parameters as they were given and as they run; replaced as one, never changed."""

    vector: RealArray
    model: _core.Model


class _Recurrent:
    """What LSTM and BiLSTM share; they differ in the number of directions."""

    num_directions: ClassVar[int]
    input_size: Final[int]
    hidden_size: Final[int]
    num_layers: Final[int]
    bias: Final[bool]
    batch_first: Final[bool]
    dtype: Final[np.dtype[Any]]

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        bias: bool = True,
        batch_first: bool = False,
        dtype: npt.DTypeLike = np.float32,
        forget_bias: float | None = None,
        seed: int | np.random.Generator | None = None,
        isa: str | None = None,
    ) -> None:
        self.input_size = as_size("input_size", input_size)
        self.hidden_size = as_size("hidden_size", hidden_size)
        self.num_layers = as_size("num_layers", num_layers, MAX_LAYERS)
        self.bias = as_flag("bias", bias)
        self.batch_first = as_flag("batch_first", batch_first)
        self.dtype = as_precision("dtype", dtype)
        forget = None if forget_bias is None else as_finite("forget_bias", forget_bias, self.dtype)
        if forget is not None and not self.bias:
            raise ValueError("forget_bias: got a number, but bias=False leaves no bias to set")
        count = parameter_count(self._architecture)
        if count * np.dtype(np.float64).itemsize > sys.maxsize:
            raise ValueError(
                f"input_size, hidden_size, num_layers: {self.input_size}, {self.hidden_size}, "
                f"{self.num_layers} make {count} parameters, more than memory can address"
            )
        vector = initialise(self._architecture, self.dtype, _as_generator(seed), forget)
        self._isa_asked = isa
        self._set_weights(vector, isa)

    def __setattr__(self, name: str, value: Any) -> None:
        # The weights are packed for these sizes and options; a change would not reach them.
        if name in self.__dict__ and name != "_weights":
            raise AttributeError(f"{name}: fixed when the layer was made")
        super().__setattr__(name, value)

    @property
    def isa(self) -> str:
        """Name of the instruction set this layer runs on."""
        return self._weights.model.isa

    def __call__(
        self,
        x: npt.ArrayLike,
        state: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
        *,
        lengths: npt.ArrayLike | None = None,
        offsets: npt.ArrayLike | None = None,
        out: RealArray | None = None,
    ) -> tuple[RealArray, State]:
        """Run the layer over one sequence or a batch of sequences.

        Parameters
        ----------
        x : array_like (T, B, I), (B, T, I) with ``batch_first``, or (T, I) for one sequence
            Any strides; any real dtype, converted to the layer's as by ``ndarray.astype``. Where
            the dtype is right and the last axis has no gaps it is read in place, never copied.
            T = 0 and B = 0 are allowed.
        state : (h_0, c_0), optional
            Initial hidden and cell state of each layer and direction, each (L*D, B, H), or
            (L*D, H) with x (T, I); index l*D + d. Zeros when omitted.
        lengths : array_like (B,) of integers, optional
            Steps of each sequence, from 0 to T, in any order: the rest of x is padding, whose
            values do not matter, and the work is that of the steps there are. y is 0 beyond a
            length, (h_n, c_n) are those after a sequence's own last step (with length 0 its initial
            ones), and a reverse direction begins there.
        offsets : array_like (B + 1,) of integers, optional
            For sequences of different lengths without padding: x is (N, I), sequence b its rows
            offsets[b] to offsets[b + 1] - 1, and y (N, D*H) likewise.
        out : ndarray, optional
            Takes the result y instead of a new array: of y's shape and the layer's dtype,
            C-contiguous, sharing no memory with the inputs.

        Returns
        -------
        y : ndarray (T, B, D*H), (B, T, D*H) with ``batch_first``, or (T, D*H)
            Hidden states of the last layer, those of the forward direction first.
        (h_n, c_n) : tuple of ndarray
            States after each direction's last step, of the shape of the initial ones; with T = 0
            equal to them.

        Raises
        ------
        TypeError
            If an argument does not hold real numbers, or ``out`` is not an array of the dtype.
        ValueError
            If a shape or layout is wrong, or ``out`` overlaps an input.

        Notes
        -----
        NaN and infinity propagate as the equations have it; they are no error. Denormal numbers
        count as zero.
        """
        if lengths is None and offsets is None:
            y, states, _ = self._run(x, state, out, recording=False)
        else:
            y, states, _ = self._run_ragged(x, state, lengths, offsets, out, recording=False)
        return y, states

    def record(
        self,
        x: npt.ArrayLike,
        state: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
        *,
        lengths: npt.ArrayLike | None = None,
        offsets: npt.ArrayLike | None = None,
    ) -> tuple[RealArray, State, Tape]:
        """Run the layer as a call does, to the bit, and keep what its gradients need.

        Parameters
        ----------
        x, state, lengths, offsets
            As for a call. Gradients with respect to padding are 0.

        Returns
        -------
        y : ndarray
        (h_n, c_n) : tuple of ndarray
        tape : Tape
            Its ``backward`` gives the gradients. 5*L*D*T*B*H numbers.

        Raises
        ------
        TypeError, ValueError
            As a call.
        MemoryError
            If the tape doesn't fit.

        Notes
        -----
        For truncated backpropagation through time, record the chunks of a sequence one after the
        other, handing (h_n, c_n) on, and run each tape's ``backward`` by itself. The gradient of
        the whole sequence comes from running them last to first, handing (grads.h_0, grads.c_0)
        to the chunk before as ``dstate``.

        Examples
        --------
        >>> import numpy as np
        >>> from fastlstm import LSTM
        >>> lstm = LSTM(3, 5, seed=0)
        >>> y, (h_n, c_n), tape = lstm.record(np.ones((10, 4, 3), np.float32))
        >>> grads = tape.backward(np.ones_like(y), wrt=["params"])  # of y.sum()
        >>> lstm.named_views(grads.params)["weight_hh_l0"].shape
        (20, 5)
        """
        if lengths is None and offsets is None:
            y, states, tape = self._run(x, state, None, recording=True)
        else:
            y, states, tape = self._run_ragged(x, state, lengths, offsets, None, recording=True)
        assert tape is not None
        return y, states, tape

    def _run(
        self,
        x: npt.ArrayLike,
        state: tuple[npt.ArrayLike, npt.ArrayLike] | None,
        out: RealArray | None,
        *,
        recording: bool,
    ) -> tuple[RealArray, State, Tape | None]:
        rows = with_contiguous_rows(self._as_input(x))
        batched = rows.ndim == 3
        D, H = self.num_directions, self.hidden_size
        y_shape = (*rows.shape[:-1], D * H)
        batch = (rows.shape[0 if self.batch_first else 1],) if batched else ()
        state_shape = (self.num_layers * D, *batch, H)
        h_0, c_0 = self._as_states(state, state_shape)
        _check_total("x", y_shape, self.dtype)
        _check_total("x", state_shape, self.dtype)

        if out is not None:
            h_given, c_given = state or (None, None)
            inputs = {"x": (x, rows), "h_0": (h_given, h_0), "c_0": (c_given, c_0)}
            check_out(out, y_shape, self.dtype, inputs)
        y = np.empty(y_shape, self.dtype) if out is None else out
        h_n = np.empty(state_shape, self.dtype)
        c_n = np.empty(state_shape, self.dtype)
        vector, model = self._weights
        records = None
        if recording:
            T = rows.shape[1 if batched and self.batch_first else 0]
            _check_total("x", (T, 5, *state_shape), self.dtype)
            records = np.empty(model.tape_size(T, *batch or (1,)), self.dtype)
        model.forward(
            as_batch(rows, batched),
            as_batch(h_0, batched),
            as_batch(c_0, batched),
            as_batch(y, batched),
            as_batch(h_n, batched),
            as_batch(c_n, batched),
            batched and self.batch_first,
            records,
        )
        if records is None:
            return y, (h_n, c_n), None
        # The caller may go on to change the states in place, as when handing them on.
        h_0, c_0 = (None if a is None else a.copy() for a in (h_0, c_0))
        call = Recording(
            vector, model, rows, h_0, c_0, rows.shape, y_shape, state_shape, self.batch_first
        )
        return y, (h_n, c_n), Tape(call, records)

    def _run_ragged(
        self,
        x: npt.ArrayLike,
        state: tuple[npt.ArrayLike, npt.ArrayLike] | None,
        lengths: npt.ArrayLike | None,
        offsets: npt.ArrayLike | None,
        out: RealArray | None,
        *,
        recording: bool,
    ) -> tuple[RealArray, State, Tape | None]:
        """Run sequences of different lengths: sorted and packed, see ragged.py."""
        rows = self._as_input(x)
        layout = self._as_layout(rows, lengths, offsets)
        D, H = self.num_directions, self.hidden_size
        y_shape = (*rows.shape[:-1], D * H)
        state_shape = (self.num_layers * D, layout.order.size, H)
        h_0, c_0 = self._as_states(state, state_shape)
        _check_total("x", y_shape, self.dtype)
        _check_total("x", state_shape, self.dtype)
        if out is not None:
            h_given, c_given = state or (None, None)
            inputs = {"x": (x, rows), "h_0": (h_given, h_0), "c_0": (c_given, c_0)}
            check_out(out, y_shape, self.dtype, inputs)

        packed = layout.pack(rows, self.input_size)
        h_0, c_0 = layout.sort(h_0), layout.sort(c_0)
        y_packed = np.empty((1, len(packed), D * H), self.dtype)
        h_n = np.empty(state_shape, self.dtype)
        c_n = np.empty(state_shape, self.dtype)
        vector, model = self._weights
        records = None
        if recording:
            _check_total("x", (5 * self.num_layers, *y_packed.shape), self.dtype)
            size = model.tape_size(0, layout.order.size, layout.starts)
            records = np.empty(size, self.dtype)
        x_packed = packed[np.newaxis]
        model.forward(x_packed, h_0, c_0, y_packed, h_n, c_n, False, records, layout.starts)
        y = np.empty(y_shape, self.dtype) if out is None else out
        if len(packed) != math.prod(y_shape[:-1]):
            y[...] = 0
        layout.unpack(y_packed[0], y)
        states = layout.unsort(h_n), layout.unsort(c_n)
        if records is None:
            return y, states, None
        call = Recording(
            vector, model, x_packed, h_0, c_0, rows.shape, y_shape, state_shape, False, layout
        )
        return y, states, Tape(call, records)

    def _as_layout(
        self, rows: RealArray, lengths: npt.ArrayLike | None, offsets: npt.ArrayLike | None
    ) -> Ragged:
        if lengths is not None and offsets is not None:
            raise ValueError("lengths, offsets: got both, expected one of them")
        if lengths is not None:
            if rows.ndim != 3:
                raise ValueError(f"lengths: got x of shape {rows.shape}, expected a batch")
            B, T = rows.shape[:2] if self.batch_first else rows.shape[1::-1]
            return as_lengths(lengths, T, B, batch_first=self.batch_first)
        if rows.ndim != 2:
            raise ValueError(
                f"offsets: got x of shape {rows.shape}, expected (N, {self.input_size})"
            )
        return as_offsets(offsets, len(rows))

    @property
    def parameters(self) -> RealArray:
        """All parameters in one vector (N,), read-only, in the order of :meth:`state_dict`."""
        return self._weights.vector[:]  # a view can't be made writable where its base is not

    def load_parameters(self, vector: npt.ArrayLike) -> None:
        """Replace all parameters by those of one vector, as after a step of an optimiser.

        Parameters
        ----------
        vector : array_like (N,)
            Laid out as :attr:`parameters`; copied, and converted to the layer's dtype.

        Raises
        ------
        TypeError, ValueError
            If it does not hold N real numbers. The layer is then as it was.
        """
        self._set_weights(self._as_vector(vector).copy(), self.isa)

    def named_views(self, vector: RealArray) -> dict[str, RealArray]:
        """Return views of a vector by the parameters' names: of a gradient, say.

        Parameters
        ----------
        vector : ndarray (N,)
            Laid out as :attr:`parameters`.

        Returns
        -------
        dict of str to ndarray
            Names and shapes of :meth:`state_dict`; writable where the vector is.

        Raises
        ------
        TypeError, ValueError
            If it is not an array of N numbers.
        """
        if not isinstance(vector, np.ndarray) or vector.dtype.kind not in "biuf":
            what = (
                f"dtype {vector.dtype}" if isinstance(vector, np.ndarray) else type(vector).__name__
            )
            raise TypeError(f"vector: got {what}, expected a NumPy array of real numbers")
        self._check_length(vector)
        return split(vector, self._architecture)

    def _as_vector(self, vector: npt.ArrayLike) -> RealArray:
        array = as_real_array("vector", vector, self.dtype)
        self._check_length(array)
        return array

    def _check_length(self, vector: RealArray) -> None:
        if vector.shape != self.parameters.shape:
            raise ValueError(
                f"vector: got shape {vector.shape}, expected that of the parameters, "
                f"{self.parameters.shape}"
            )

    def state_dict(self) -> dict[str, RealArray]:
        """Return the parameters by PyTorch's names, in its order.

        Returns
        -------
        dict of str to ndarray
            Read-only views: weights change only through :meth:`load_state_dict`, which repacks
            them. ``weight_ih_l0`` (4H, I) holds W and ``weight_hh_l0`` (4H, H) holds U, each H
            rows of the gates i, f, g, o; ``bias_ih_l0`` and ``bias_hh_l0`` (4H) add up to b.
            Higher layers are ``_l1``, ... with W (4H, D*H); reverse directions end in
            ``_reverse``.
        """
        return split(self._weights.vector, self._architecture)

    def load_state_dict(self, arrays: Mapping[str, npt.ArrayLike]) -> None:
        """Replace all parameters.

        Parameters
        ----------
        arrays : mapping of str to array_like
            Every parameter that :meth:`state_dict` names and no other, of the same shape; values
            are converted to the layer's dtype. ``torch.nn.LSTM(...).state_dict()`` will do.

        Raises
        ------
        TypeError
            If it is not a mapping.
        ValueError
            Naming every parameter that is missing, unexpected, misshapen or not of real numbers.
            The layer is then as it was.
        """
        if not isinstance(arrays, Mapping):
            raise TypeError(f"arrays: got {type(arrays).__name__}, expected a mapping of names")
        self._set_weights(join("arrays", arrays, self._architecture, self.dtype), self.isa)

    def __repr__(self) -> str:
        options = [f"{self.input_size}", f"{self.hidden_size}"]
        if self.num_layers != 1:
            options.append(f"num_layers={self.num_layers}")
        if not self.bias:
            options.append("bias=False")
        if self.batch_first:
            options.append("batch_first=True")
        options.append(f"dtype={self.dtype.name}")
        return f"{type(self).__name__}({', '.join(options)})"

    def __getstate__(self) -> dict[str, Any]:
        # The packed weights stay behind: another machine may have another instruction set.
        state = self.__dict__.copy()
        state["_weights"] = self._weights.vector
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        vector = state["_weights"]
        self.__dict__.update({name: state[name] for name in state if name != "_weights"})
        asked = self._isa_asked
        self._set_weights(vector.copy(), asked if asked in _core.available_isas() else None)

    @property
    def _architecture(self) -> Architecture:
        return Architecture(
            self.input_size, self.hidden_size, self.num_layers, self.num_directions, self.bias
        )

    def _set_weights(self, vector: RealArray, isa: str | None) -> None:
        """Pack a parameter vector and take it over. The vector must be the layer's own."""
        model = _core.Model(*self._architecture, vector, isa)
        vector.flags.writeable = False
        self._weights = _Weights(vector, model)

    def _as_input(self, x: npt.ArrayLike) -> RealArray:
        rows = as_real_array("x", x, self.dtype)
        if rows.ndim in (2, 3) and rows.shape[-1] == self.input_size:
            return rows
        outer = "B, T" if self.batch_first else "T, B"
        raise ValueError(
            f"x: got {rows.ndim} dimensions, shape {rows.shape}, "
            f"expected ({outer}, {self.input_size}) or (T, {self.input_size})"
        )

    def _as_states(
        self, state: tuple[npt.ArrayLike, npt.ArrayLike] | None, shape: tuple[int, ...]
    ) -> tuple[RealArray | None, RealArray | None]:
        if state is None:
            return None, None
        if not isinstance(state, tuple | list):
            raise TypeError(f"state: got {type(state).__name__}, expected a pair (h_0, c_0)")
        if len(state) != 2:
            raise ValueError(f"state: got {len(state)} items, expected a pair (h_0, c_0)")
        h_0, c_0 = state
        return as_state("h_0", h_0, shape, self.dtype), as_state("c_0", c_0, shape, self.dtype)


def _as_generator(seed: Any) -> np.random.Generator:
    try:
        return np.random.default_rng(seed)
    except (TypeError, ValueError) as error:
        raise type(error)(f"seed: got {seed!r}: {error}") from None


def _check_total(name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """ValueError when an array of this shape could not be addressed."""
    # An axis of size 0 hides nothing: NumPy refuses such shapes as well.
    count = math.prod(shape) or math.prod(size or 1 for size in shape)
    if count * dtype.itemsize > sys.maxsize:
        raise ValueError(f"{name}: makes a result of shape {shape}, more than memory can address")


class LSTM(_Recurrent):
    """Long short-term memory, one or more layers, forward in time.

    For each step t, with W, U and b of each gate (Hochreiter and Schmidhuber 1997; forget gate by
    Gers, Schmidhuber and Cummins 2000)::

        f_t = sigmoid(W_f @ x_t + U_f @ h_{t-1} + b_f)
        i_t = sigmoid(W_i @ x_t + U_i @ h_{t-1} + b_i)
        o_t = sigmoid(W_o @ x_t + U_o @ h_{t-1} + b_o)
        g_t = tanh   (W_g @ x_t + U_g @ h_{t-1} + b_g)
        c_t = f_t * c_{t-1} + i_t * g_t
        h_t = o_t * tanh(c_t)

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
        Whether x and y are (B, T, ...) instead of (T, B, ...). States are (L*D, B, H) either way.
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
    input_size, hidden_size, num_layers, num_directions, bias, batch_first, dtype, isa
        As above, read-only; ``num_directions`` (D) is 1, of a :class:`BiLSTM` 2.

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
    converted to the layer's dtype and T = 0 is allowed; ``dropout`` and ``proj_size`` are missing.

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
        return Stream(self._weights.model, batch_size, self.batch_first)


class BiLSTM(_Recurrent):
    """Bidirectional LSTM: a forward and a reverse pass, side by side in every layer.

    The reverse direction has parameters of its own (names ending in ``_reverse``) and runs from
    the last step to the first; the next layer sees both, [forward, reverse], 2H numbers a step
    (Schuster and Paliwal 1997; Graves and Schmidhuber 2005). Parameters, attributes, errors and
    notes are those of :class:`LSTM`. ``h_n[2*l + 1]`` is the reverse direction's state after its
    last step, which is step 0 of the sequence.

    It is ``torch.nn.LSTM(..., bidirectional=True)``, with the same names and shapes.

    Examples
    --------
    >>> import numpy as np
    >>> from fastlstm import BiLSTM
    >>> y, (h_n, c_n) = BiLSTM(3, 5, seed=0)(np.zeros((10, 4, 3), np.float32))
    >>> y.shape, h_n.shape
    ((10, 4, 10), (2, 4, 5))
    """

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
