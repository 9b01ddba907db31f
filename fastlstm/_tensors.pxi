# Tensors of PyTorch read where they lie, by the exchange API of DLPack 1.2 and later: a call of C
# for each, where making arrays of them takes longer than a small pass. Results go the same way.

from cpython.pycapsule cimport PyCapsule_GetPointer
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t


cdef struct _DLTensor:
    void *data
    int32_t device_type, device_id
    int32_t ndim
    uint8_t code, bits
    uint16_t lanes
    int64_t *shape
    int64_t *strides
    uint64_t byte_offset


cdef struct _DLManaged:
    uint32_t major, minor
    void *context
    void (*deleter)(_DLManaged *) noexcept nogil
    uint64_t flags
    _DLTensor tensor


cdef struct _DLExchange:
    uint32_t major, minor
    void *previous
    void *allocate
    void *from_object
    int (*to_object)(_DLManaged *, void **) except -1
    int (*borrow)(void *, _DLTensor *) noexcept  # may be NULL
    void *current_stream


cdef struct _Lent:
    # What a tensor of ours is made of. A tape has most axes. Its context is a reference to the array
    # that has the memory; or NULL, and the memory follows this.
    _DLManaged managed
    int64_t shape[4]
    int64_t strides[4]


cdef extern from "Python.h":
    int Py_IsInitialized() nogil


# Bytes of the largest tensor that is not in an array, which takes as long to make as a small pass.
# NumPy's memory is quicker where it is large, as it asks the system for huge pages.
cdef double _SMALL = 4096


cdef struct _Sequences:
    # What a pass reads.
    bint batched
    ptrdiff_t T, B
    fl_input x
    const void *h_0
    const void *c_0


cdef int64_t _step(const _DLTensor *tensor, int axis) noexcept nogil:
    """Elements from one index of an axis to the next. An axis of size 1 has none: 0."""
    return 0 if tensor.shape[axis] <= 1 else tensor.strides[axis]


cdef bint _is_whole(const _DLTensor *tensor) noexcept nogil:
    """Whether a tensor is in C order without gaps."""
    cdef int64_t expected = 1
    cdef int axis
    for axis in range(tensor.ndim - 1, -1, -1):
        if tensor.shape[axis] > 1 and tensor.strides[axis] != expected:
            return False
        expected *= tensor.shape[axis]
    return True


cdef bint _has_shape(
    const _DLTensor *tensor, bint batched, int64_t first, int64_t second, int64_t last
) noexcept nogil:
    """Whether the shape is (first, second, last), or without a batch (first, last)."""
    return (
        tensor.ndim == 2 + batched
        and tensor.shape[0] == first
        and (not batched or tensor.shape[1] == second)
        and tensor.shape[1 + batched] == last
    )


cdef void _copy(const _DLTensor *tensor, char *out, Py_ssize_t real) noexcept nogil:
    """Copy the numbers, of so many bytes, of a tensor of three axes."""
    cdef int64_t a, b, c
    for a in range(tensor.shape[0]):
        for b in range(tensor.shape[1]):
            for c in range(tensor.shape[2]):
                memcpy(
                    out, <char *> tensor.data + real * (
                        a * tensor.strides[0] + b * tensor.strides[1] + c * tensor.strides[2]),
                    real)
                out += real


cdef object _make(Model model, tuple shape, void **data):
    """Return a new array, and where its numbers are."""
    cdef Py_buffer view
    array = empty(shape, model.dtype)
    PyObject_GetBuffer(array, &view, PyBUF_SIMPLE)
    PyBuffer_Release(&view)  # the memory stays as long as the array
    data[0] = view.buf
    return array


cdef void _give_back(_DLManaged *managed) noexcept nogil:
    """Free what a tensor that is gone was made of."""
    if managed.context != NULL and Py_IsInitialized():  # else the arrays went before
        with gil:
            Py_DECREF(<object> managed.context)
    free(managed)


cdef bint _has_sizes(const _DLTensor *tensor, tuple shape) except -1:
    cdef int axis
    if tensor.ndim != len(shape):
        return False
    for axis in range(tensor.ndim):
        if tensor.shape[axis] != <int64_t> shape[axis]:
            return False
    return True


@cython.final
cdef class Tensors:
    """The tensors of a framework, and calls of a :class:`Model` with them.

    Every method returns None, having done nothing, wherever something is unusual or wrong: other
    classes, devices, dtypes, layouts and shapes, and tensors that have no memory of their own.

    Parameters
    ----------
    classes : tuple of type
        Whose tensors are what they look like; of a derived class they may be something else.
    exchange : capsule
        ``__dlpack_c_exchange_api__`` of the classes.

    Raises
    ------
    ValueError
        If the API is of another version, or lends no tensors.
    """

    cdef const _DLExchange *exchange
    cdef tuple classes

    def __cinit__(self, tuple classes, object exchange):
        self.exchange = <const _DLExchange *> PyCapsule_GetPointer(exchange, "dlpack_exchange_api")
        if self.exchange.major != 1 or self.exchange.borrow == NULL:
            raise ValueError("exchange API of another version")
        self.classes = classes

    cdef int borrow(self, object tensor, bint is_double, _DLTensor *lent) except -1:
        """Look at a tensor's numbers, good while the tensor is there; 0 if it has none of the kind."""
        cdef bint known = False
        for cls in self.classes:
            known = known or type(tensor) is cls
        if not known:
            return 0
        if self.exchange.borrow(<void *> tensor, lent) != 0:
            PyErr_Clear()
            return 0
        if (
            lent.data == NULL
            or lent.device_type != 1
            or lent.code != 2
            or lent.bits != (64 if is_double else 32)
            or lent.lanes != 1
            or tensor.is_neg()  # which DLPack does not know
        ):
            return 0
        lent.data = <char *> lent.data + lent.byte_offset
        return <uintptr_t> lent.data & <uintptr_t> (7 if is_double else 3) == 0

    cdef object lend(self, object array, void *data, tuple shape, bint is_double):
        """Return a tensor of at most four axes at some address in the memory of an array."""
        cdef _Lent *lent = <_Lent *> malloc(sizeof(_Lent))
        if lent == NULL:
            raise MemoryError("not enough memory for a tensor")
        Py_INCREF(array)
        return self.hand_over(lent, <void *> array, data, shape, is_double)

    cdef object hand_over(
        self, _Lent *lent, void *array, void *data, tuple shape, bint is_double
    ):
        """Make a tensor, which owns ``lent`` and a reference to the array, if any."""
        cdef void *tensor
        cdef int axis, ndim = len(shape)
        cdef int64_t stride = 1
        memset(lent, 0, sizeof(_Lent))
        for axis in range(ndim - 1, -1, -1):
            lent.shape[axis], lent.strides[axis] = shape[axis], stride
            stride *= lent.shape[axis]
        lent.managed.major, lent.managed.minor = self.exchange.major, self.exchange.minor
        lent.managed.context, lent.managed.deleter = array, _give_back
        lent.managed.tensor.data = data
        lent.managed.tensor.device_type, lent.managed.tensor.ndim = 1, ndim
        lent.managed.tensor.code, lent.managed.tensor.bits = 2, 64 if is_double else 32
        lent.managed.tensor.lanes = 1
        lent.managed.tensor.shape = &lent.shape[0]
        lent.managed.tensor.strides = &lent.strides[0]
        self.exchange.to_object(&lent.managed, &tensor)  # which owns it, even where that fails
        found = <object> tensor
        Py_DECREF(found)  # the reference that came with it
        return found

    cdef void *make(self, list made, Model model, tuple shape) except NULL:
        """Return the memory of a new tensor, which is put into a list."""
        cdef void *data
        cdef _Lent *lent
        cdef double size = 8 if model.is_double else 4
        for axis in shape:
            size *= axis
        if size > _SMALL:
            array = _make(model, shape, &data)
            made.append(self.lend(array, data, shape, model.is_double))
            return data
        lent = <_Lent *> malloc(sizeof(_Lent) + <size_t> size)
        if lent == NULL:
            raise MemoryError("not enough memory for a tensor")
        made.append(self.hand_over(lent, NULL, lent + 1, shape, model.is_double))
        return lent + 1

    cdef void *make_rows(
        self, list made, Model model, bint batched, ptrdiff_t first, ptrdiff_t second,
        ptrdiff_t last
    ) except NULL:
        """The same of a tensor (first, second, last), or without a batch (first, last)."""
        return self.make(made, model, _shape(batched, first, second, last))

    cdef int read(
        self, Model model, object x, object h_0, object c_0, bint batch_first, _Sequences *read
    ) except -1:
        """Look at what a pass reads, states or None; 0 where something is unusual or wrong."""
        cdef _DLTensor lent
        cdef bint batched
        cdef ptrdiff_t LD = model.num_layers * model.num_directions
        if not self.borrow(x, model.is_double, &lent) or not 2 <= lent.ndim <= 3:
            return 0
        batched = lent.ndim == 3
        cdef int last = lent.ndim - 1, time_axis = 1 if batched and batch_first else 0
        if lent.shape[last] != model.input_size or _step(&lent, last) != (lent.shape[last] > 1):
            return 0
        read.batched = batched
        read.T, read.B = lent.shape[time_axis], lent.shape[1 - time_axis] if batched else 1
        read.x = fl_input(
            lent.data, _step(&lent, time_axis), _step(&lent, 1 - time_axis) if batched else 0)
        read.h_0 = read.c_0 = NULL
        if read.T == 0 or read.B == 0:
            return 0
        if h_0 is None:
            return 1
        read.h_0 = self.state(model, h_0, batched, read.B, model.output_size)
        read.c_0 = self.state(model, c_0, batched, read.B, model.hidden_size)
        return read.h_0 != NULL and read.c_0 != NULL

    cdef const void *state(
        self, Model model, object state, bint batched, ptrdiff_t B, ptrdiff_t width
    ) except? NULL:
        """Return where the numbers of an initial state are; NULL if it is not as it should be."""
        cdef _DLTensor lent
        if not self.borrow(state, model.is_double, &lent):
            return NULL
        if not _has_shape(&lent, batched, model.num_layers * model.num_directions, B, width):
            return NULL
        return lent.data if _is_whole(&lent) else NULL

    cdef int go_through(
        self, tuple parameters, tuple shapes, array, bint is_double, bint copy
    ) except -1:
        """Copy parameters end to end, or compare them; 0 if one has another shape or other bytes."""
        cdef _DLTensor lent
        cdef Py_buffer view
        PyObject_GetBuffer(array, &view, PyBUF_WRITABLE if copy else PyBUF_SIMPLE)
        PyBuffer_Release(&view)  # the memory stays as long as the array
        cdef char *start = <char *> view.buf
        cdef char *stop = start + view.len
        cdef bint same = True
        cdef Py_ssize_t size, k
        cdef int axis
        if len(parameters) != len(shapes):
            return 0
        for k in range(len(shapes)):
            if not self.borrow(parameters[k], is_double, &lent) or not _is_whole(&lent):
                return 0
            if not _has_sizes(&lent, shapes[k]):
                return 0
            size = 8 if is_double else 4
            for axis in range(lent.ndim):
                size *= lent.shape[axis]
            if size > stop - start:
                return 0
            with nogil:
                if copy:
                    memcpy(start, lent.data, size)
                else:
                    same = memcmp(start, lent.data, size) == 0
            if not same:
                return 0
            start += size
        return start == stop

    @cython.binding(False)
    def join(self, parameters, shapes, kept, size_t count, dtype, /):
        """Return the numbers of parameters, (count,) of the dtype, end to end.

        Parameters
        ----------
        parameters : sequence of tensors
        shapes : sequence of tuple of int
            What theirs must be: other tensors may have the very same bytes.
        kept : ndarray (count,) of the dtype, contiguous, or None
            What is returned if it holds the very same bytes.
        """
        cdef bint is_double = dtype.char == "d"  # takes less than comparing dtypes
        cdef tuple given = tuple(parameters), expected = tuple(shapes)
        if kept is not None and self.go_through(given, expected, kept, is_double, False):
            return kept
        joined = empty(count, dtype)
        return joined if self.go_through(given, expected, joined, is_double, True) else None

    @cython.binding(False)
    @cython.cdivision(True)
    def forward(self, Model model, x, h_0, c_0, bint batch_first, bint recorded, /):
        """Return y, h_n, c_n and, if it is ``recorded``, the tape.

        Parameters
        ----------
        x : tensor (T, B, I), (B, T, I) with ``batch_first``, or (T, I)
        h_0, c_0 : tensor (L*D, B, P), (L*D, B, H), or (L*D, P), (L*D, H); or None
        """
        cdef _Sequences read
        if not self.read(model, x, h_0, c_0, batch_first, &read):
            return None
        cdef ptrdiff_t LD = model.num_layers * model.num_directions, T = read.T, B = read.B
        cdef ptrdiff_t width = model.num_directions * model.output_size
        cdef bint batched = read.batched
        if <double> T * B * width > _LARGEST or <double> LD * B * model.hidden_size > _LARGEST:
            return None  # x may repeat itself, by strides of 0
        made = []
        cdef fl_output y
        if batched and batch_first:
            y = fl_output(self.make_rows(made, model, True, B, T, width), width, T * width)
        else:
            y = fl_output(self.make_rows(made, model, batched, T, B, width), B * width, width)
        cdef fl_status status
        cdef fl_watch own_watch
        cdef _Looks looks
        cdef fl_record_call record = fl_record_call(
            size=sizeof(fl_record_call), T=T, B=B, starts=NULL, x=read.x, h_0=read.h_0,
            c_0=read.c_0, masks=NULL, y=y,
            h_n=self.make_rows(made, model, batched, LD, B, model.output_size),
            c_n=self.make_rows(made, model, batched, LD, B, model.hidden_size), tape=NULL,
            watch=_watch_for(model.row_flops * T * B, &own_watch, &looks))
        cdef size_t bytes
        if recorded:
            _raise_status(fl_tape_bytes(model.model, T, B, NULL, &bytes))
            bytes //= <size_t> (LD * T * B * (8 if model.is_double else 4))
            record.tape = self.make(made, model, (LD, T, B, bytes))
        cdef fl_forward_call call = fl_forward_call(
            size=sizeof(fl_forward_call), T=T, B=B, starts=NULL, x=read.x, h_0=read.h_0,
            c_0=read.c_0, y=y, h_n=record.h_n, c_n=record.c_n, watch=record.watch, lengths=NULL,
            first_rows=NULL)
        with nogil:
            if record.tape != NULL:
                status = fl_record(model.model, &record)
            else:
                status = fl_forward(model.model, &call)
        _raise_status(status)
        return tuple(made)

    @cython.binding(False)
    def backward(self, Model model, parameters, x, h_0, c_0, tape, tuple seeds, tuple wanted, /):
        """Return the gradients of x, h_0 and c_0, tensors, and of the parameters, an array.

        Parameters
        ----------
        parameters : ndarray (n,)
            What the model was made of, or another of its options.
        x, h_0, c_0, tape
            As of :meth:`forward`, x with three axes.
        seeds : (dy, dh_n, dc_n), each a tensor or None
        wanted : tuple of 4 bool
            What is not wanted is None.
        """
        cdef _Sequences read
        cdef _DLTensor lent
        if len(seeds) != 3 or len(wanted) != 4 or h_0 is None:
            return None
        if not self.read(model, x, h_0, c_0, False, &read) or not read.batched:
            return None
        cdef ptrdiff_t LD = model.num_layers * model.num_directions, T = read.T, B = read.B
        cdef size_t bytes
        cdef Py_ssize_t real = 8 if model.is_double else 4
        cdef int k
        cdef void *copy
        cdef list copies = [], made = [], found = [None] * 4
        cdef fl_status status
        cdef fl_watch own_watch
        cdef _Looks looks
        cdef _Buffer vector = _Buffer(
            parameters, model.is_double, (model.parameter_count,), False)
        vector.require_contiguous(0)
        cdef fl_backward_call call = fl_backward_call(
            size=sizeof(fl_backward_call), T=T, B=B, starts=NULL, x=read.x, h_0=read.h_0,
            c_0=read.c_0, masks=NULL, parameters=vector.view.buf, tape=NULL,
            dy=fl_input(NULL, 0, 0), dh_n=NULL, dc_n=NULL, accumulate=False,
            dx=fl_output(NULL, 0, 0), dh_0=NULL, dc_0=NULL, dparameters=NULL,
            watch=_watch_for(2 * model.row_flops * T * B, &own_watch, &looks))
        if not self.borrow(tape, model.is_double, &lent) or not _is_whole(&lent) or lent.ndim != 4:
            return None
        call.tape = lent.data
        _raise_status(fl_tape_bytes(model.model, T, B, NULL, &bytes))
        if <size_t> (lent.shape[0] * lent.shape[1] * lent.shape[2] * lent.shape[3] * real) != bytes:
            return None
        cdef ptrdiff_t widths[3]
        widths[0], widths[1] = model.num_directions * model.output_size, model.output_size
        widths[2] = model.hidden_size
        for k in range(3):
            if seeds[k] is None:
                continue
            if not self.borrow(seeds[k], model.is_double, &lent):
                return None
            if not _has_shape(&lent, True, LD if k else T, B, widths[k]):
                return None
            if not (_is_whole(&lent) if k else _step(&lent, 2) == (lent.shape[2] > 1)):
                copies.append(
                    _make(model, (lent.shape[0], lent.shape[1], lent.shape[2]), &copy))
                _copy(&lent, <char *> copy, real)
                lent.data = copy
                lent.strides = NULL
            if k == 0:
                call.dy = fl_input(lent.data, B * lent.shape[2], lent.shape[2])
                if lent.strides != NULL:
                    call.dy.stride_t, call.dy.stride_b = _step(&lent, 0), _step(&lent, 1)
            elif k == 1:
                call.dh_n = lent.data
            else:
                call.dc_n = lent.data
        if wanted[0]:
            call.dx = fl_output(
                self.make_rows(made, model, True, T, B, model.input_size),
                B * model.input_size, model.input_size)
        if wanted[1]:
            call.dh_0 = self.make_rows(made, model, True, LD, B, model.output_size)
        if wanted[2]:
            call.dc_0 = self.make_rows(made, model, True, LD, B, model.hidden_size)
        if wanted[3]:
            made.append(_make(model, (model.parameter_count,), &call.dparameters))
        with nogil:
            status = fl_backward(model.model, &call)
        _raise_status(status)
        for k in range(3, -1, -1):
            if wanted[k]:
                found[k] = made.pop()
        return found

    @cython.binding(False)
    def share(self, vector, list shapes, /):
        """Return tensors of shapes, end to end in the memory of a vector.

        Parameters
        ----------
        vector : ndarray (n,) of float32 or float64, contiguous
        shapes : list of tuple of int
            Of at most four axes each.

        Raises
        ------
        ValueError
            If they are more than the vector has.
        """
        cdef Py_buffer view
        PyObject_GetBuffer(vector, &view, PyBUF_SIMPLE)
        PyBuffer_Release(&view)  # the memory stays as long as the vector
        cdef char *data = <char *> view.buf
        cdef char *stop = data + view.len
        cdef Py_ssize_t size
        cdef tuple shape
        cdef list found = []
        for shape in shapes:
            size = view.itemsize
            for axis in shape:
                size *= axis
            if len(shape) > 4 or not 0 <= size <= stop - data:
                raise ValueError(f"a tensor of shape {shape}, where there is room for "
                                 f"{(stop - data) // view.itemsize} numbers")
            found.append(self.lend(vector, data, shape, view.itemsize == 8))
            data += size
        return tuple(found)
