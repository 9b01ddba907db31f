# A stream: the state of a model that is fed a few steps at a time.


cdef extern from *:
    """
    /* Whose turn it is with a stream. With the interpreter's lock a plain flag will do: it is looked
     * at and set under the lock. Without, as in free-threaded Python, threads race for it. */
    #include "threads.h"
    typedef struct { fl_atomic taken; } turn;
    #ifdef Py_GIL_DISABLED
    static inline int turn_take(turn *t) { return fl_atomic_swap(&t->taken, 1) == 0; }
    static inline void turn_end(turn *t) { fl_atomic_store(&t->taken, 0); }
    #else
    static inline int turn_take(turn *t) { return t->taken ? 0 : (t->taken = 1); }
    static inline void turn_end(turn *t) { t->taken = 0; }
    #endif
    """
    ctypedef struct turn:
        pass
    bint turn_take(turn *) noexcept
    void turn_end(turn *) noexcept


@cython.no_gc_clear  # the model must outlive the C stream, in reference cycles too
cdef class StreamBase:
    """What :class:`fastlstm.Stream` is made of; the part that runs at every step.

    Parameters
    ----------
    model : Model
        Of one direction. Kept alive.
    batch_size : int
        B.
    batch_first : bool
        Layout of the chunks of :meth:`_push`.
    y : ndarray (B, P) of the model's dtype, contiguous
        The array for the results of steps without ``out``. Kept, nobody else may have it.
    """

    cdef fl_stream *stream
    cdef Model model
    cdef readonly ptrdiff_t batch_size
    cdef readonly bint batch_first
    cdef readonly object dtype
    cdef Py_ssize_t itemsize, x_bytes, y_bytes
    cdef char format_char
    cdef double step_flops
    cdef turn turn  # of the call that is under way
    cdef _Buffer own
    cdef object own_batch, own_single, array_type
    cdef char *x_copy  # (B, I), or NULL until it is needed

    def __cinit__(self, Model model not None, ptrdiff_t batch_size, bint batch_first, y):
        _raise_status(fl_stream_create(model.model, batch_size, &self.stream))
        self.model = model
        self.batch_size = batch_size
        self.batch_first = batch_first
        self.own = _Buffer(y, model.is_double, (batch_size, model.output_size), True)
        self.own.require_contiguous(0)
        self.dtype = y.dtype
        self.array_type = type(y)
        self.own_batch = y.view()
        self.own_batch.flags.writeable = False
        self.own_single = self.own_batch[0] if batch_size == 1 else None
        self.itemsize = self.own.view.itemsize
        self.format_char = self.own.view.format[0]
        cdef object row = batch_size * self.itemsize  # a Python int: OverflowError, no wraparound
        self.y_bytes = row * model.output_size
        self.x_bytes = row * model.input_size
        self.step_flops = model.row_flops * batch_size

    def __dealloc__(self):
        fl_stream_destroy(self.stream)
        free(self.x_copy)

    def __reduce__(self):
        raise TypeError(
            f"{type(self).__name__}: can't be copied or pickled; copy or pickle its layer and its "
            "state, make a new stream of the layer and set the state"
        )

    @property
    def input_size(self):
        """I."""
        return self.model.input_size

    @property
    def hidden_size(self):
        """H."""
        return self.model.hidden_size

    @property
    def output_size(self):
        """P: numbers of a hidden state, H where there is no projection."""
        return self.model.output_size

    @property
    def num_layers(self):
        """L."""
        return self.model.num_layers

    @property
    def isa(self):
        """Name of the instruction set this stream runs on."""
        return self.model.isa

    @property
    def address(self):
        """Address of the C stream, the first argument of the function at ``step_address``."""
        return <uintptr_t> self.stream

    @property
    def step_address(self):
        """Address of ``void fl_stream_step(void *stream, const void *x_t, void *y_t)``.

        For Numba, ctypes, cffi and C. It steps the stream at :attr:`address` and checks nothing:
        x_t (B, I) and y_t (B, P) are contiguous, of the stream's dtype, and do not overlap; one
        thread at a time uses the stream; the stream object is alive.
        """
        return <uintptr_t> &fl_stream_step

    cdef int take(self, object array, Py_buffer *view, Py_ssize_t width, int flags) noexcept:
        """Get a buffer of (B, width), or of (width,) if B is 1, that is right in every respect.

        Returns its number of dimensions; 0, holding nothing, for anything else.
        """
        if _try_get_buffer(array, view, flags) != 0:
            PyErr_Clear()
            return 0
        cdef Py_ssize_t row = width * self.itemsize
        if (
            view.itemsize == self.itemsize
            and view.format != NULL
            and view.format[0] == self.format_char
            and view.format[1] == 0
            and <uintptr_t> view.buf % <uintptr_t> self.itemsize == 0
        ):
            if view.ndim == 2:
                if (
                    view.shape[0] == self.batch_size
                    and view.shape[1] == width
                    and (view.strides[1] == self.itemsize or width == 1)
                    and (view.strides[0] == row or self.batch_size == 1)
                ):
                    return 2
            elif view.ndim == 1 and self.batch_size == 1:
                if view.shape[0] == width and (view.strides[0] == self.itemsize or width == 1):
                    return 1
        PyBuffer_Release(view)
        return 0

    @cython.binding(False)
    def step(self, x_t, out=None):
        """Advance every sequence by one step.

        Without ``out`` **every call returns the same array, and the next step overwrites it**:
        copy what you keep, ``ys.append(stream.step(x_t).copy())``, or give ``out``.

        Parameters
        ----------
        x_t : array_like (B, I), or (I,) if B is 1
            The next input of each sequence. A C-contiguous array of the stream's dtype is read
            in place; anything else is converted, as by calling the layer, which is slower and
            allocates.
        out : ndarray (B, P), or (P,) for x_t (I,), optional
            Takes the result: C-contiguous, of the stream's dtype, sharing no memory with x_t.

        Returns
        -------
        y_t : ndarray (B, P), or (P,) for x_t (I,)
            Hidden states of the last layer: ``out``, or else the stream's own array, read-only.
            It may be the next x_t, if P is I.

        Raises
        ------
        TypeError, ValueError
            If x_t does not hold real numbers or is of another shape; if ``out`` is not as
            described. The state is then as it was.
        RuntimeError
            If another thread is in a call of this stream.
        """
        cdef Py_buffer x, y
        cdef int ndim = 0
        # Kinds of array besides the plain one, such as masked arrays, are left to NumPy.
        if type(x_t) is self.array_type:
            ndim = self.take(x_t, &x, self.model.input_size, PyBUF_STRIDES | PyBUF_FORMAT)
        if ndim == 0:
            x_t = self._convert(x_t, out)
            ndim = self.take(x_t, &x, self.model.input_size, PyBUF_STRIDES | PyBUF_FORMAT)
            if ndim == 0:
                raise ValueError("x_t: its memory can't be read")
        cdef const char *x_start = <const char *> x.buf
        cdef char *y_start
        cdef int out_ndim
        if out is None:
            if not turn_take(&self.turn):
                PyBuffer_Release(&x)
                raise _in_use()
            y_start = <char *> self.own.view.buf
            if x_start < y_start + self.y_bytes and y_start < x_start + self.x_bytes:
                # The last result, or a part of it, is the next input.
                if self.x_copy == NULL:
                    self.x_copy = <char *> malloc(self.x_bytes)
                if self.x_copy == NULL:
                    turn_end(&self.turn)
                    PyBuffer_Release(&x)
                    raise MemoryError("out of memory")
                memcpy(self.x_copy, x_start, self.x_bytes)
                x_start = self.x_copy
            self.run(x_start, y_start)
            turn_end(&self.turn)
            PyBuffer_Release(&x)
            return self.own_batch if ndim == 2 else self.own_single

        out_ndim = self.take(
            out, &y, self.model.output_size, PyBUF_STRIDES | PyBUF_FORMAT | PyBUF_WRITABLE)
        y_start = <char *> y.buf if out_ndim else NULL
        if (
            out_ndim != ndim
            or type(out) is not self.array_type
            or (x_start < y_start + self.y_bytes and y_start < x_start + self.x_bytes)
        ):
            try:
                self._convert(x_t, out)  # tells what is wrong with out
                if out_ndim == 0:  # as where it spells out its byte order
                    out_ndim = self.take(
                        self._native(out), &y,
                        self.model.output_size, PyBUF_STRIDES | PyBUF_FORMAT | PyBUF_WRITABLE)
                    y_start = <char *> y.buf if out_ndim else NULL
                if out_ndim != ndim:
                    raise ValueError("out: its memory can't be written")
            except:
                PyBuffer_Release(&x)
                if out_ndim:
                    PyBuffer_Release(&y)
                raise
        if not turn_take(&self.turn):
            PyBuffer_Release(&y)
            PyBuffer_Release(&x)
            raise _in_use()
        self.run(x_start, y_start)
        turn_end(&self.turn)
        PyBuffer_Release(&y)
        PyBuffer_Release(&x)
        return out

    cdef void run(self, const void *x_t, void *y_t) noexcept:
        """One step, nothing checked, by whose turn it is."""
        if self.step_flops < _LONG:
            fl_stream_step(self.stream, x_t, y_t)
            return
        with nogil:
            fl_stream_step(self.stream, x_t, y_t)

    def _convert(self, x_t, out):
        """Return x_t as an array that can be read in place; raise what is wrong with x_t or out."""
        raise ValueError("x_t: not a contiguous array of the stream's dtype and shape")

    def _native(self, out):
        """Return ``out`` as an array of the core's, sharing its memory."""
        return out

    def _push(self, x, y):
        """Run T steps.

        Parameters
        ----------
        x : ndarray (T, B, I), or (B, T, I) with batch_first
            The last axis contiguous, the others of any stride.
        y : ndarray (T, B, P), or (B, T, P) with batch_first, contiguous
            Written.
        """
        cdef int time_axis = 1 if self.batch_first else 0
        cdef ptrdiff_t T = x.shape[time_axis]
        outer = (self.batch_size, T) if self.batch_first else (T, self.batch_size)
        cdef bint is_double = self.model.is_double
        cdef _Buffer x_ = _Buffer(x, is_double, (*outer, self.model.input_size), False)
        cdef _Buffer y_ = _Buffer(y, is_double, (*outer, self.model.output_size), True)
        x_.require_contiguous(2)
        y_.require_contiguous(0)
        cdef ptrdiff_t x_t = x_.stride(time_axis), x_b = x_.stride(1 - time_axis)
        cdef ptrdiff_t y_t = y_.stride(time_axis), y_b = y_.stride(1 - time_axis)
        cdef fl_status status
        cdef fl_watch own_watch
        cdef _Looks looks
        cdef fl_watch *watch = _watch_for(T * self.step_flops, &own_watch, &looks)
        cdef fl_stream_push_call call = fl_stream_push_call(
            size=sizeof(fl_stream_push_call), T=T, x=fl_input(x_.view.buf, x_t, x_b),
            y=fl_output(y_.view.buf, y_t, y_b), watch=watch)
        self.take_turn()
        if T * self.step_flops < _LONG:  # and so without a watch
            status = fl_stream_push(self.stream, &call)
        else:
            with nogil:
                status = fl_stream_push(self.stream, &call)
        turn_end(&self.turn)
        _raise_status(status)

    def _reset(self, bytes mask):
        """Zero the states: of all sequences for None, else of those with a non-zero byte (B,)."""
        if mask is not None and len(mask) != self.batch_size:
            raise ValueError(f"mask of {len(mask)} bytes, expected {self.batch_size}")
        cdef const unsigned char *chosen = NULL
        if mask is not None:
            chosen = mask
        self.take_turn()
        fl_stream_reset(self.stream, chosen)
        turn_end(&self.turn)

    def _get_state(self, h, c):
        """Copy the state to h (L, B, P) and c (L, B, H), contiguous."""
        cdef _Buffer h_ = self.state_buffer(h, self.model.output_size, True)
        cdef _Buffer c_ = self.state_buffer(c, self.model.hidden_size, True)
        self.take_turn()
        fl_stream_get_state(self.stream, h_.view.buf, c_.view.buf)
        turn_end(&self.turn)

    def _set_state(self, h, c):
        """Copy the state from h (L, B, P) and c (L, B, H), contiguous."""
        cdef _Buffer h_ = self.state_buffer(h, self.model.output_size, False)
        cdef _Buffer c_ = self.state_buffer(c, self.model.hidden_size, False)
        self.take_turn()
        fl_stream_set_state(self.stream, h_.view.buf, c_.view.buf)
        turn_end(&self.turn)

    cdef _Buffer state_buffer(self, object array, ptrdiff_t width, bint writable):
        shape = (self.model.num_layers, self.batch_size, width)
        cdef _Buffer held = _Buffer(array, self.model.is_double, shape, writable)
        held.require_contiguous(0)
        return held

    cdef int take_turn(self) except -1:
        if not turn_take(&self.turn):
            raise _in_use()
        return 0


cdef object _in_use():
    return RuntimeError(
        "stream in use by another thread; give each thread a stream of its own, or guard the calls "
        "with a lock"
    )


cdef void *stream_handle(object stream) except NULL:
    if not isinstance(stream, StreamBase):
        raise TypeError(f"stream: got {type(stream).__name__}, expected a fastlstm.Stream")
    return (<StreamBase> stream).stream


cdef void stream_step(void *handle, const void *x_t, void *y_t) noexcept nogil:
    fl_stream_step(<fl_stream *> handle, x_t, y_t)
