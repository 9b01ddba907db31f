# A model: parameters packed for one instruction set, and the calls of a layer.


cdef fl_activation _activation(str name) except *:
    """The C core's number of an activation; they follow FL_USUAL, which the core has besides."""
    cdef int index = ACTIVATIONS.index(name)
    return <fl_activation> (index + 1)


cdef class _Masks:
    """Masks of a call, checked, or none. steps: the two axes of time and batch, or of packed rows."""

    cdef _Buffer recurrent, between, zoneout_h, zoneout_c
    cdef fl_masks masks

    def __cinit__(self, Model model, object masks, ptrdiff_t B, tuple steps):
        LD, P = model.num_layers * model.num_directions, model.output_size
        recurrent, between, zoneout_h, zoneout_c = masks
        self.recurrent = model.contiguous(recurrent, (LD, B, P), False)
        above = (model.num_layers - 1, *steps, model.num_directions * P)
        self.between = model.contiguous(between, above, False)
        self.zoneout_h = model.contiguous(zoneout_h, (LD, *steps, P), False)
        self.zoneout_c = model.contiguous(zoneout_c, (LD, *steps, model.hidden_size), False)
        self.masks = fl_masks(
            _data(self.recurrent), _data(self.between), _data(self.zoneout_h),
            _data(self.zoneout_c))


cdef class Model:
    """Parameters of a stack of layers, packed for one instruction set. Immutable.

    Parameters
    ----------
    spec : fastlstm._spec.Spec
    parameters : ndarray (N,), float32 or float64, contiguous
        All parameters in the order of PyTorch's ``state_dict``; its dtype is the model's.
    isa : str or None
        Instruction set; None for :func:`default_isa`. Of a quantised model, one of
        :func:`quantized_isas` or an instruction set, whose fastest it then is.
    quantized : fastlstm._quantized.Quantized or None
        Parameters in 8, 16 or 24 bits in place of the vector, which is not read then.
    """

    cdef fl_model *model
    cdef readonly ptrdiff_t input_size, hidden_size, num_layers, num_directions, output_size
    cdef readonly bint is_double
    cdef readonly tuple is_reverse  # of each direction, whether it goes back in time
    cdef readonly size_t parameter_count
    cdef double row_flops  # of one step of one sequence
    cdef bint batch_first, return_sequences, gives_all  # of a layer's calls
    cdef object dtype

    def __cinit__(self, object spec, object parameters, object isa, object quantized=None):
        cell = spec.cell
        cdef bytes isa_name = _isa_bytes(isa)
        cdef fl_config config
        cdef size_t count
        cdef fl_status status
        self.dtype = parameters.dtype if quantized is None else _FLOAT32
        self.is_double = self.dtype == "float64"
        self.batch_first, self.return_sequences = spec.batch_first, spec.return_sequences
        self.gives_all = spec.gives_all
        config.size = sizeof(config)
        self.input_size = config.input_size = spec.input_size
        self.hidden_size = config.hidden_size = spec.hidden_size
        self.num_layers = config.num_layers = spec.num_layers
        self.num_directions = config.num_directions = spec.num_directions
        self.output_size = spec.output_size
        config.has_bias = spec.bias
        config.dtype = FL_FLOAT64 if self.is_double else FL_FLOAT32
        config.proj_size = spec.proj_size
        config.has_peepholes = cell.peepholes
        config.coupled_gates = cell.coupled_gates
        config.gate_activation = _activation(cell.gate_activation)
        config.cell_activation = _activation(cell.cell_activation)
        config.output_activation = _activation(cell.output_activation)
        config.clip = cell.clip or 0
        config.cell_clip = cell.cell_clip or 0
        config.zoneout_h = cell.zoneout_h
        config.zoneout_c = cell.zoneout_c
        config.layer_norm = cell.layer_norm
        config.reverse = spec.reverse
        config.bits = 0
        self.is_reverse = (False, True) if spec.num_directions == 2 else (bool(spec.reverse),)
        cdef double above = (self.num_layers - 1.0) * (self.num_directions + 1) * self.output_size
        self.row_flops = 8.0 * self.hidden_size * self.num_directions * (
            <double> self.input_size + self.output_size + above)
        _raise_status(fl_parameter_count(&config, &count))
        self.parameter_count = count
        if quantized is not None:
            self.create_quantized(&config, spec, isa, quantized)
            return
        cdef _Buffer vector = _Buffer(parameters, self.is_double, (count,), False)
        vector.require_contiguous(0)
        cdef const char *name = isa_name
        with nogil:
            status = fl_model_create(&config, name, vector.view.buf, &self.model)
        _raise_status(status)

    cdef int create_quantized(
        self, fl_config *config, object spec, object isa, object quantized
    ) except -1:
        """Make the C model of digits."""
        cdef _QuantizedLayers layers = _QuantizedLayers(spec, quantized)
        cdef bytes isa_name = _isa_bytes(isa)
        cdef const char *name = isa_name
        if isa is None:
            name = NULL  # not the default of floats
        cdef fl_status status
        config.bits = quantized.bits
        with nogil:
            status = fl_model_create_quantized(config, name, layers.layers, &self.model)
        return _raise_status(status)

    def __dealloc__(self):
        fl_model_destroy(self.model)

    @property
    def isa(self):
        """Name of the instruction set."""
        return fl_model_isa(self.model).decode()

    @property
    def nbytes(self):
        """Bytes of the packed parameters."""
        return fl_model_bytes(self.model)

    def forward(
        self, x, h_0, c_0, y, h_n, c_n, bint batch_first=False, tape=None, starts=None,
        masks=None,
    ):
        """Run the stack over a batch of sequences.

        Parameters
        ----------
        x : ndarray (T, B, I), or (B, T, I) with batch_first
            The last axis contiguous, the others of any stride.
        h_0, c_0 : ndarray (L*D, B, P), (L*D, B, H), contiguous, or None for zeros
        y : ndarray (T, B, D*P), or (B, T, D*P) with batch_first, contiguous; or None
            Written, unless only the final states are wanted.
        h_n, c_n : ndarray (L*D, B, P), (L*D, B, H), contiguous
            Written.
        tape : ndarray (N,), contiguous, or None
            Written for :meth:`backward`; N is given by :meth:`tape_size`.
        starts : ndarray (T + 1,) of intp, contiguous, or None
            For packed rows: x is (1, starts[T], I), y likewise, and B is that of h_n. See
            ``fastlstm.h``; checked there.
        masks : fastlstm.variants.Masks or None
            Contiguous, the axes of time and batch in that order, or (1, starts[T]). Only with a
            tape.
        """
        cdef int time_axis = 1 if batch_first else 0
        cdef int batch_axis = 1 - time_axis
        x_shape = x.shape
        if len(x_shape) != 3:
            raise ValueError(f"x has {len(x_shape)} dimensions, expected 3")
        cdef ptrdiff_t T = x_shape[time_axis], B = x_shape[batch_axis]
        cdef _Starts starts_ = _Starts(starts, x_shape)
        cdef const ptrdiff_t *starts_data = starts_.data
        if starts is not None:
            T, B = starts_.steps, h_n.shape[1]
        h_shape = (self.num_layers * self.num_directions, B, self.output_size)
        c_shape = (self.num_layers * self.num_directions, B, self.hidden_size)
        outer = (x_shape[0], x_shape[1])

        cdef _Buffer x_ = _Buffer(x, self.is_double, (*outer, self.input_size), False)
        x_.require_contiguous(2)
        cdef _Buffer y_ = self.contiguous(
            y, (*outer, self.num_directions * self.output_size), True)
        cdef _Buffer h_n_ = _Buffer(h_n, self.is_double, h_shape, True)
        cdef _Buffer c_n_ = _Buffer(c_n, self.is_double, c_shape, True)
        h_n_.require_contiguous(0)
        c_n_.require_contiguous(0)
        cdef _Buffer h_0_ = self.contiguous(h_0, h_shape, False)
        cdef _Buffer c_0_ = self.contiguous(c_0, c_shape, False)
        cdef const void *h_0_data = _data(h_0_)
        cdef const void *c_0_data = _data(c_0_)
        cdef _Buffer tape_ = None
        if tape is not None:
            tape_ = self.contiguous(tape, (self.tape_size(T, B, starts),), True)

        cdef ptrdiff_t x_t = x_.stride(time_axis), x_b = x_.stride(batch_axis)
        cdef ptrdiff_t y_t = 0, y_b = 0
        if y_ is not None:
            y_t, y_b = y_.stride(time_axis), y_.stride(batch_axis)
        cdef void *y_data = _data(y_)
        cdef void *tape_data = _data(tape_)
        cdef bint recording = tape is not None
        cdef _Masks masks_ = None
        cdef const fl_masks *masks_data = NULL
        if masks is not None:
            if not recording:
                raise ValueError("masks without a tape")
            masks_ = _Masks(self, masks, B, outer if starts is not None else (T, B))
            masks_data = &masks_.masks
        cdef fl_status status
        cdef fl_watch own_watch
        cdef _Looks looks
        cdef fl_watch *watch = _watch_for(self.row_flops * T * B, &own_watch, &looks)
        cdef fl_forward_call call = fl_forward_call(
            size=sizeof(fl_forward_call), T=T, B=B, starts=starts_data,
            x=fl_input(x_.view.buf, x_t, x_b), h_0=h_0_data, c_0=c_0_data,
            y=fl_output(y_data, y_t, y_b), h_n=h_n_.view.buf, c_n=c_n_.view.buf, watch=watch,
            lengths=NULL, first_rows=NULL)
        cdef fl_record_call record = fl_record_call(
            size=sizeof(fl_record_call), T=T, B=B, starts=starts_data, x=call.x, h_0=h_0_data,
            c_0=c_0_data, masks=masks_data, y=call.y, h_n=call.h_n, c_n=call.c_n, tape=tape_data,
            watch=watch)
        with nogil:
            if recording:
                status = fl_record(self.model, &record)
            else:
                status = fl_forward(self.model, &call)
        _raise_status(status)

    def forward_pieces(self, x, lengths, first_rows, ptrdiff_t step, h_0, c_0, y, h_n, c_n):
        """Run the stack over S pieces of sequences where they lie.

        Parameters
        ----------
        x : ndarray (N, I), the last axis contiguous
        lengths, first_rows : ndarray (S,) of intp, contiguous
            The steps of each piece, and the row of x and of y at which it begins.
        step : int
            Rows from a step to the next, at least 1.
        h_0, c_0 : ndarray (L*D, S, P), (L*D, S, H), contiguous, or None for zeros
        y : ndarray (N, D*P), contiguous; or None
            Rows of steps are written, unless only the final states are wanted.
        h_n, c_n : ndarray (L*D, S, P), (L*D, S, H), contiguous
            Written.
        """
        cdef ptrdiff_t N = x.shape[0], S = h_n.shape[1], T = 0, steps = 0, b
        h_shape = (self.num_layers * self.num_directions, S, self.output_size)
        c_shape = (self.num_layers * self.num_directions, S, self.hidden_size)
        cdef _Buffer x_ = _Buffer(x, self.is_double, (N, self.input_size), False)
        x_.require_contiguous(1)
        cdef _Buffer y_ = self.contiguous(y, (N, self.num_directions * self.output_size), True)
        cdef _Buffer h_n_ = self.contiguous(h_n, h_shape, True)
        cdef _Buffer c_n_ = self.contiguous(c_n, c_shape, True)
        cdef _Buffer h_0_ = self.contiguous(h_0, h_shape, False)
        cdef _Buffer c_0_ = self.contiguous(c_0, c_shape, False)
        cdef _Integers lengths_ = _Integers(lengths, S), first_rows_ = _Integers(first_rows, S)
        if step < 1 and S > 0:
            raise ValueError(f"a step of {step} rows")
        for b in range(S):
            if lengths_.data[b] == 0:
                continue
            if (
                lengths_.data[b] < 0
                or not 0 <= first_rows_.data[b] < N
                or lengths_.data[b] - 1 > (N - 1 - first_rows_.data[b]) // step
            ):
                raise ValueError(f"a piece of {lengths_.data[b]} steps from row "
                                 f"{first_rows_.data[b]} on, but there are {N} rows")
            T = max(T, lengths_.data[b])
            steps += lengths_.data[b]
        cdef ptrdiff_t x_row = x_.stride(0), y_row = 0 if y_ is None else y_.stride(0)
        cdef fl_status status
        cdef fl_watch own_watch
        cdef _Looks looks
        cdef fl_watch *watch = _watch_for(self.row_flops * steps, &own_watch, &looks)
        cdef fl_forward_call call = fl_forward_call(
            size=sizeof(fl_forward_call), T=T, B=S, starts=NULL,
            x=fl_input(x_.view.buf, step * x_row, x_row), h_0=_data(h_0_), c_0=_data(c_0_),
            y=fl_output(_data(y_), step * y_row, y_row), h_n=_data(h_n_), c_n=_data(c_n_),
            watch=watch, lengths=lengths_.data, first_rows=first_rows_.data)
        with nogil:
            status = fl_forward(self.model, &call)
        _raise_status(status)

    @cython.binding(False)
    def run_plain(self, x, state, lengths, out):
        """Run a layer's call if all its arrays are such as the kernels read and write in place.

        Parameters
        ----------
        x, state, lengths, out
            Of a call of a layer without ``offsets`` and ``resets``.

        Returns
        -------
        (y, (h_n, c_n)), or None, having done nothing, wherever something is unusual or wrong.
        """
        if not self.gives_all:
            return None
        return self.run_unmerged(x, state, lengths, out)

    @cython.binding(False)
    def run_unmerged(self, x, state, lengths, out):
        """The same, but for y: of both directions side by side, None for last outputs alone."""
        cdef _Held held
        held.count = 0
        held.lengths = NULL
        try:
            return self.plain(&held, x, state, lengths, out)
        finally:
            _release(&held)

    cdef object plain(self, _Held *held, object x, object state, object lengths, object out):
        cdef Py_buffer *x_ = _hold(held, x, self.is_double, False)
        if x_ == NULL or x_.len == 0 or not (x_.ndim == 2 or x_.ndim == 3):
            return None
        if x_.shape[x_.ndim - 1] != self.input_size or not _has_whole_rows(x_):
            return None
        cdef bint batched = x_.ndim == 3
        cdef int time_axis = 1 if batched and self.batch_first else 0
        cdef ptrdiff_t T = x_.shape[time_axis], B = x_.shape[1 - time_axis] if batched else 1
        cdef ptrdiff_t LD = self.num_layers * self.num_directions
        cdef ptrdiff_t y_row = self.num_directions * self.output_size
        if <double> T * B * y_row > _LARGEST or <double> LD * B * self.hidden_size > _LARGEST:
            return None  # x may repeat itself, by strides of 0
        if lengths is not None:
            held.lengths = _lengths_of(lengths, B, T) if batched else NULL
            if held.lengths == NULL:
                return None
        cdef Py_buffer *h_0_ = NULL
        cdef Py_buffer *c_0_ = NULL
        if state is not None:
            if type(state) is not tuple or len(<tuple> state) != 2:
                return None
            h_0_ = self.hold_state(held, (<tuple> state)[0], batched, B, self.output_size)
            c_0_ = self.hold_state(held, (<tuple> state)[1], batched, B, self.hidden_size)
            if h_0_ == NULL or c_0_ == NULL:
                return None
        cdef Py_buffer *y_ = NULL
        y = out
        if not self.return_sequences:
            y = None
        elif out is None:
            y = empty(_shape(batched, x_.shape[0], x_.shape[1], y_row), self.dtype)
            y_ = _hold(held, y, self.is_double, True)
        else:
            y_ = _hold(held, out, self.is_double, True)
            if (
                y_ == NULL
                or y_.ndim != x_.ndim
                or y_.shape[0] != x_.shape[0]
                or (batched and y_.shape[1] != x_.shape[1])
                or y_.shape[y_.ndim - 1] != y_row
                or not PyBuffer_IsContiguous(y_, c"C")
                or _may_overlap(y_, x_)
                or (h_0_ != NULL and (_may_overlap(y_, h_0_) or _may_overlap(y_, c_0_)))
            ):
                return None
        h_n = empty(_shape(batched, LD, B, self.output_size), self.dtype)
        c_n = empty(_shape(batched, LD, B, self.hidden_size), self.dtype)
        cdef Py_buffer *h_n_ = _hold(held, h_n, self.is_double, True)
        cdef Py_buffer *c_n_ = _hold(held, c_n, self.is_double, True)
        if (y_ == NULL and y is not None) or h_n_ == NULL or c_n_ == NULL:
            return None
        cdef fl_status status
        cdef fl_watch own_watch
        cdef _Looks looks
        cdef fl_watch *watch = _watch_for(self.row_flops * T * B, &own_watch, &looks)
        cdef fl_forward_call call = fl_forward_call(
            size=sizeof(fl_forward_call), T=T, B=B, starts=NULL,
            x=fl_input(x_.buf, _stride(x_, time_axis), 0), h_0=NULL, c_0=NULL,
            y=fl_output(NULL, 0, 0), h_n=h_n_.buf, c_n=c_n_.buf, watch=watch,
            lengths=held.lengths, first_rows=NULL)
        if batched:
            call.x.stride_b = _stride(x_, 1 - time_axis)
        if y_ != NULL:
            call.y.data, call.y.stride_t = y_.buf, _stride(y_, time_axis)
            call.y.stride_b = _stride(y_, 1 - time_axis) if batched else 0
        if h_0_ != NULL:
            call.h_0, call.c_0 = h_0_.buf, c_0_.buf
        with nogil:
            if held.lengths != NULL and y_ != NULL:
                _clear_padding(held.lengths, T, B, y_row * y_.itemsize, &call.y, y_.itemsize)
            status = fl_forward(self.model, &call)
        _raise_status(status)
        return y, (h_n, c_n)

    cdef Py_buffer *hold_state(
        self, _Held *held, object array, bint batched, ptrdiff_t B, ptrdiff_t width
    ) noexcept:
        """Get the buffer of an initial state that is right in every respect; else NULL."""
        cdef Py_buffer *view = _hold(held, array, self.is_double, False)
        if (
            view != NULL
            and view.ndim == 2 + batched
            and view.shape[0] == self.num_layers * self.num_directions
            and (not batched or view.shape[1] == B)
            and view.shape[view.ndim - 1] == width
            and PyBuffer_IsContiguous(view, c"C")
        ):
            return view
        return NULL

    def tape_size(self, ptrdiff_t T, ptrdiff_t B, starts=None):
        """Return how many numbers a tape has: L*D*T*B or L*D*starts[T] times a record's size."""
        cdef size_t size
        cdef _Starts starts_ = _Starts(starts, None)
        if starts is not None:
            T = starts_.steps
        _raise_status(fl_tape_bytes(self.model, T, B, starts_.data, &size))
        return size // (8 if self.is_double else 4)

    def backward(
        self, parameters, x, h_0, c_0, tape, dy, dh_n, dc_n, dx, dh_0, dc_0, dparameters,
        bint accumulate, bint batch_first=False, starts=None, ptrdiff_t batch_size=0, masks=None,
    ):
        """Backpropagate through a recorded call of :meth:`forward`.

        Parameters
        ----------
        parameters : ndarray (N,), contiguous
            What the model was made of.
        x, h_0, c_0, tape, masks
            Those of :meth:`forward`.
        dy : ndarray of the shape of y, or None for zeros
            The last axis contiguous, the others of any stride.
        dh_n, dc_n : ndarray (L*D, B, P), (L*D, B, H), contiguous, or None for zeros
        dx : ndarray of the shape of x, contiguous, or None
        dh_0, dc_0 : ndarray (L*D, B, P), (L*D, B, H), contiguous, or None
        dparameters : ndarray (N,), contiguous, or None
            Written; None where it is not wanted.
        accumulate : bool
            Whether to add to what they hold.
        starts : ndarray (T + 1,), or None
            As for :meth:`forward`, with B in batch_size.
        """
        cdef int time_axis = 1 if batch_first else 0
        cdef int batch_axis = 1 - time_axis
        x_shape = x.shape
        if len(x_shape) != 3:
            raise ValueError(f"x has {len(x_shape)} dimensions, expected 3")
        cdef ptrdiff_t T = x_shape[time_axis], B = x_shape[batch_axis]
        cdef _Starts starts_ = _Starts(starts, x_shape)
        cdef const ptrdiff_t *starts_data = starts_.data
        if starts is not None:
            T, B = starts_.steps, batch_size
        h_shape = (self.num_layers * self.num_directions, B, self.output_size)
        c_shape = (self.num_layers * self.num_directions, B, self.hidden_size)
        outer = (x_shape[0], x_shape[1])
        vector = (self.parameter_count,)

        cdef _Buffer x_ = _Buffer(x, self.is_double, (*outer, self.input_size), False)
        x_.require_contiguous(2)
        cdef _Buffer parameters_ = self.contiguous(parameters, vector, False)
        cdef _Buffer tape_ = self.contiguous(tape, (self.tape_size(T, B, starts),), False)
        if parameters_ is None or tape_ is None:
            raise TypeError("parameters and tape must be arrays")
        cdef _Buffer h_0_ = self.contiguous(h_0, h_shape, False)
        cdef _Buffer c_0_ = self.contiguous(c_0, c_shape, False)
        cdef _Buffer dh_n_ = self.contiguous(dh_n, h_shape, False)
        cdef _Buffer dc_n_ = self.contiguous(dc_n, c_shape, False)
        cdef _Buffer dh_0_ = self.contiguous(dh_0, h_shape, True)
        cdef _Buffer dc_0_ = self.contiguous(dc_0, c_shape, True)
        cdef _Masks masks_ = None
        cdef const fl_masks *masks_data = NULL
        if masks is not None:
            masks_ = _Masks(self, masks, B, outer if starts is not None else (T, B))
            masks_data = &masks_.masks
        cdef _Buffer dparameters_ = self.contiguous(dparameters, vector, True)
        cdef _Buffer dx_ = self.contiguous(dx, (*outer, self.input_size), True)
        cdef _Buffer dy_ = None
        cdef ptrdiff_t dy_t = 0, dy_b = 0, dx_t = 0, dx_b = 0
        if dy is not None:
            dy_ = _Buffer(
                dy, self.is_double, (*outer, self.num_directions * self.output_size), False)
            dy_.require_contiguous(2)
            dy_t, dy_b = dy_.stride(time_axis), dy_.stride(batch_axis)
        if dx_ is not None:
            dx_t, dx_b = dx_.stride(time_axis), dx_.stride(batch_axis)
        cdef ptrdiff_t x_t = x_.stride(time_axis), x_b = x_.stride(batch_axis)
        cdef const void *h_0_data = _data(h_0_)
        cdef const void *c_0_data = _data(c_0_)
        cdef const void *dy_data = _data(dy_)
        cdef const void *dh_n_data = _data(dh_n_)
        cdef const void *dc_n_data = _data(dc_n_)
        cdef void *dx_data = _data(dx_)
        cdef void *dh_0_data = _data(dh_0_)
        cdef void *dc_0_data = _data(dc_0_)
        cdef void *dparameters_data = _data(dparameters_)
        cdef fl_status status
        cdef fl_watch own_watch
        cdef _Looks looks
        cdef fl_watch *watch = _watch_for(2 * self.row_flops * T * B, &own_watch, &looks)
        cdef fl_backward_call call = fl_backward_call(
            size=sizeof(fl_backward_call), T=T, B=B, starts=starts_data,
            x=fl_input(x_.view.buf, x_t, x_b), h_0=h_0_data, c_0=c_0_data, masks=masks_data,
            parameters=parameters_.view.buf, tape=tape_.view.buf,
            dy=fl_input(dy_data, dy_t, dy_b), dh_n=dh_n_data, dc_n=dc_n_data,
            accumulate=accumulate, dx=fl_output(dx_data, dx_t, dx_b), dh_0=dh_0_data,
            dc_0=dc_0_data, dparameters=dparameters_data, watch=watch)
        with nogil:
            status = fl_backward(self.model, &call)
        _raise_status(status)

    cdef _Buffer contiguous(self, object array, tuple shape, bint writable):
        """The buffer of an array that must have this shape and no gaps; None for None."""
        if array is None:
            return None
        cdef _Buffer buffer = _Buffer(array, self.is_double, shape, writable)
        buffer.require_contiguous(0)
        return buffer
