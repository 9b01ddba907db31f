"""Streams: a layer fed a step at a time. The step itself is in ``_core.pyx``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from fastlstm import _core
from fastlstm._arguments import (
    RealArray,
    as_array,
    as_native,
    as_real_array,
    as_size,
    as_state,
    check_out,
    with_contiguous_rows,
)

if TYPE_CHECKING:
    from fastlstm.trace import Trace, Tracer


class Stream(_core.StreamBase):
    """An LSTM fed a step at a time: it holds the state. Made by :meth:`fastlstm.LSTM.stream`.

    The bits of the results are those of calling the layer on the whole sequence, however the
    sequence is cut into steps and pushes.

    Attributes
    ----------
    input_size, hidden_size, output_size, num_layers, batch_size : int
        I, H, P, L and B. Read-only, as all of these.
    batch_first : bool
        The layer's; it orders the axes of :meth:`push`.
    dtype : numpy.dtype
        Of inputs, states and results.
    isa : str
        Instruction set.
    address, step_address : int
        Of the C stream, and of ``void fl_stream_step(void *stream, const void *x_t, void *y_t)``,
        to step it from Numba, ctypes, cffi or C, where nothing is checked: x_t (B, I) and
        y_t (B, P) contiguous, of the stream's dtype, not overlapping.

    Notes
    -----
    A stream keeps the parameters that its layer had when it was made, and needs the layer no more:
    ``load_state_dict`` does not reach it.

    A stream belongs to one thread at a time; a layer has as many streams as one likes. A call that
    finds another thread in one of the same stream raises ``RuntimeError`` and changes nothing.
    In Python with the interpreter's lock only long calls can be found so: short ones keep the lock,
    and run one after the other in whatever order the threads come. Calls by :attr:`address` are not
    guarded.

    A stream can't be copied or pickled; its layer and its :attr:`state` can.

    Examples
    --------
    >>> import numpy as np
    >>> from fastlstm import LSTM
    >>> lstm = LSTM(3, 5, seed=0)
    >>> x = np.random.default_rng(0).normal(size=(10, 3)).astype(np.float32)
    >>> stream = lstm.stream()
    >>> y = np.empty((10, 5), np.float32)
    >>> for x_t, y_t in zip(x, y, strict=True):
    ...     stream.step(x_t, y_t)  # doctest: +ELLIPSIS
    array(...
    >>> bool((y == lstm(x)[0]).all())
    True
    """

    __slots__ = ("_tracer",)

    _tracer: Tracer | None

    def __new__(
        cls,
        model: _core.Model,
        batch_size: int = 1,
        batch_first: bool = False,
        tracer: Tracer | None = None,
    ) -> Self:
        """Check the batch size and allocate; see :meth:`fastlstm.LSTM.stream`."""
        B = as_size("batch_size", batch_size)
        dtype = np.dtype(np.float64 if model.is_double else np.float32)
        largest = max(model.input_size, 2 * model.num_layers * model.hidden_size)
        if B * largest * dtype.itemsize > sys.maxsize:
            raise ValueError(f"batch_size: got {B}, which makes more than memory can address")
        y = np.zeros((B, model.output_size), dtype)
        stream = super().__new__(cls, model, B, batch_first, y)
        stream._tracer = tracer
        return stream

    def push(self, chunk: npt.ArrayLike, out: RealArray | None = None) -> RealArray:
        """Advance every sequence by T steps.

        Parameters
        ----------
        chunk : array_like (T, B, I), (B, T, I) with ``batch_first``, or (T, I) if B is 1
            The next T inputs of each sequence; T = 0 is allowed. Strides and dtypes as in calling
            the layer.
        out : ndarray, optional
            Takes the result instead of a new array: of its shape and the stream's dtype,
            C-contiguous, sharing no memory with the chunk.

        Returns
        -------
        y : ndarray (T, B, P), (B, T, P) with ``batch_first``, or (T, P)
            Hidden states of the last layer, the same bits as those of T calls of :meth:`step`.

        Raises
        ------
        TypeError, ValueError
            If the chunk does not hold real numbers or is of another shape; if ``out`` is not as
            described. The state is then as it was.
        RuntimeError
            If another thread is in a call of this stream.

        Notes
        -----
        Ctrl-C ends a long push of the main thread as it ends a long call of the layer. The state is
        then as it was; or as after the push, if the push was all but over: Python raises
        KeyboardInterrupt even when it is. ``out`` holds anything.
        """
        rows = with_contiguous_rows(self._as_chunk(chunk))
        y_shape = (*rows.shape[:-1], self.output_size)
        if out is None:
            y = np.empty(y_shape, self.dtype)
        else:
            check_out(out, y_shape, self.dtype, {"chunk": (chunk, rows)})
            y = out
        y_k = as_native(y, self.dtype)
        if rows.ndim == 3:
            self._push(rows, y_k)
        elif self.batch_first:
            self._push(rows[np.newaxis], y_k[np.newaxis])
        else:
            self._push(rows[:, np.newaxis], y_k[:, np.newaxis])
        return y

    def trace(self, chunk: npt.ArrayLike, **options: Any) -> Trace:
        """Advance every sequence by T steps as :meth:`push` does, and keep gates and states.

        Parameters
        ----------
        chunk : array_like (T, B, I), (B, T, I) with ``batch_first``, or (T, I) if B is 1
            As for :meth:`push`.
        **options
            ``names``, ``layers``, ``units``, ``steps`` and ``to`` of :meth:`fastlstm.LSTM.trace`.

        Returns
        -------
        fastlstm.Trace
            Its ``y`` has the bits that :meth:`push` gives, of all steps.

        Raises
        ------
        TypeError, ValueError
            As :meth:`push` and :meth:`fastlstm.LSTM.trace`. The state is then as it was.
        RuntimeError
            If another thread is in a call of this stream, or none made it of a layer.
        """
        if self._tracer is None:
            raise RuntimeError("trace: the stream was not made by a layer's stream()")
        rows = self._as_chunk(chunk)
        h, c = self.state
        if rows.ndim == 2:
            h, c = h[:, 0], c[:, 0]
        if wrong := sorted(options.keys() - {"names", "layers", "units", "steps", "to"}):
            raise TypeError(f"trace: got an unexpected argument {wrong[0]!r}")
        made = self._tracer(rows, (h, c), **options)
        self.state = made.state
        return made

    def reset(self, mask: npt.ArrayLike | None = None) -> None:
        """Set states to zero, as at the beginning of a sequence.

        Parameters
        ----------
        mask : array_like (B,) of bool, optional
            The sequences to reset; all when omitted.

        Raises
        ------
        TypeError
            If the mask holds anything but booleans.
        ValueError
            If it is of another shape. Nothing is reset then.
        RuntimeError
            If another thread is in a call of this stream.
        """
        self._reset(None if mask is None else self._as_mask(mask).tobytes())

    @property
    def state(self) -> tuple[RealArray, RealArray]:
        """Hidden and cell states (h, c), (L, B, P) and (L, B, H).

        Copies, which later steps don't change. To be set to a pair of array_like, (L, P) and (L, H)
        if B is 1, which are converted as by calling the layer: what one call returned as
        ``(h_n, c_n)`` goes here, and what was got here goes to a call. ``TypeError`` or
        ``ValueError`` if they don't fit; the state is then as it was.
        """
        outer = (self.num_layers, self.batch_size)
        h = np.empty((*outer, self.output_size), self.dtype)
        c = np.empty((*outer, self.hidden_size), self.dtype)
        self._get_state(h, c)
        return h, c

    @state.setter
    def state(self, state: tuple[npt.ArrayLike, npt.ArrayLike]) -> None:
        if not isinstance(state, tuple | list):
            raise TypeError(f"state: got {type(state).__name__}, expected a pair (h, c)")
        if len(state) != 2:
            raise ValueError(f"state: got {len(state)} items, expected a pair (h, c)")
        h, c = state
        self._set_state(
            self._as_state("h", h, self.output_size), self._as_state("c", c, self.hidden_size)
        )

    def __repr__(self) -> str:
        options = [f"{self.input_size}", f"{self.hidden_size}"]
        if self.num_layers != 1:
            options.append(f"num_layers={self.num_layers}")
        options.append(f"batch_size={self.batch_size}")
        if self.batch_first:
            options.append("batch_first=True")
        options.append(f"dtype={self.dtype.name}")
        return f"{type(self).__name__}({', '.join(options)})"

    def _convert(self, x_t: npt.ArrayLike, out: RealArray | None) -> RealArray:
        """Return x_t as ``step`` can read it; raise what is wrong with it or with ``out``."""
        rows = as_real_array("x_t", x_t, self.dtype)
        expected: list[tuple[int, ...]] = [(self.batch_size, self.input_size)]
        if self.batch_size == 1:
            expected.append((self.input_size,))
        if rows.shape not in expected:
            shapes = " or ".join(map(str, expected))
            raise ValueError(f"x_t: got shape {rows.shape}, expected {shapes}")
        if not (rows.flags.c_contiguous and rows.flags.aligned):
            rows = np.array(rows, order="C")
        if out is not None:
            y_shape = (*rows.shape[:-1], self.output_size)
            check_out(out, y_shape, self.dtype, {"x_t": (x_t, rows)})
        return rows

    def _native(self, out: RealArray) -> RealArray:
        return as_native(out, self.dtype)

    def _as_chunk(self, chunk: npt.ArrayLike) -> RealArray:
        rows = as_real_array("chunk", chunk, self.dtype)
        B, I = self.batch_size, self.input_size
        expected = f"({B}, T, {I})" if self.batch_first else f"(T, {B}, {I})"
        if B == 1:
            expected += f" or (T, {I})"
        batch_axis = 0 if self.batch_first else 1
        fits = (rows.ndim == 3 and rows.shape[batch_axis] == B) or (rows.ndim == 2 and B == 1)
        if not fits or rows.shape[-1] != I:
            raise ValueError(f"chunk: got shape {rows.shape}, expected {expected}")
        steps = rows.size // (B * I)
        if steps * B * self.hidden_size * self.dtype.itemsize > sys.maxsize:
            raise ValueError(
                f"chunk: makes a result of {steps} steps, more than memory can address"
            )
        return rows

    def _as_mask(self, mask: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        expected = f"expected ({self.batch_size},) booleans"
        array = as_array("mask", mask)
        if array.dtype != np.bool_:
            raise TypeError(f"mask: got values of dtype {array.dtype}, {expected}")
        if array.shape != (self.batch_size,):
            raise ValueError(f"mask: got shape {array.shape}, {expected}")
        return array

    def _as_state(self, name: str, value: npt.ArrayLike, width: int) -> RealArray:
        """Return h or c as a C-contiguous array (L, B, P) or (L, B, H)."""
        batched = (self.num_layers, self.batch_size, width)
        given = as_real_array(name, value, self.dtype)
        single = self.batch_size == 1 and given.ndim == 2
        shape = (self.num_layers, width) if single else batched
        return as_state(name, given, shape, self.dtype).reshape(batched)
