# cython: language_level=3, boundscheck=False, wraparound=False, embedsignature=True
# cython: freethreading_compatible=True
"""The bridge to the C core: buffers in, one C call with the GIL released, buffers out.

Everything a caller hands in is checked here once more (dtype, dimensions, sizes, contiguity,
writability) before any C code sees it, so that no use of this module can touch memory that is not
its own. Friendly errors are the business of ``lstm.py``, which checks first.
"""

cimport cython
from cpython.buffer cimport (
    PyBUF_FORMAT,
    PyBUF_ND,
    PyBUF_STRIDES,
    PyBUF_WRITABLE,
    PyBuffer_Release,
    PyObject_GetBuffer,
)
from cpython.exc cimport PyErr_Occurred
from libc.stddef cimport size_t
from libc.stdint cimport uintptr_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, strcmp

import threading

from fastlstm.arguments import shown
from fastlstm.variants import ACTIVATIONS


cdef extern from "fastlstm.h" nogil:
    ctypedef enum fl_status:
        FL_OK
        FL_ERROR_ARGUMENT
        FL_ERROR_OVERFLOW
        FL_ERROR_MEMORY
        FL_ERROR_ISA
        FL_ERROR_CANCELLED

    ctypedef enum fl_dtype:
        FL_FLOAT32
        FL_FLOAT64

    ctypedef enum fl_activation:
        FL_USUAL

    ctypedef struct fl_config:
        ptrdiff_t input_size
        ptrdiff_t hidden_size
        ptrdiff_t num_layers
        ptrdiff_t num_directions
        int has_bias
        fl_dtype dtype
        ptrdiff_t proj_size
        int has_peepholes
        int coupled_gates
        fl_activation gate_activation
        fl_activation cell_activation
        fl_activation output_activation
        double clip
        double cell_clip
        double zoneout_h
        double zoneout_c
        int layer_norm
        int reverse

    ctypedef struct fl_masks:
        const void *recurrent
        const void *between
        const void *zoneout_h
        const void *zoneout_c

    ctypedef struct fl_watch:
        int (*is_cancelled)(void *) noexcept nogil
        void *context

    ctypedef struct fl_model:
        pass

    const char *fl_status_message(fl_status)
    int fl_isa_count()
    const char *fl_isa_name(int)
    const char *fl_isa_default()
    size_t fl_cache_size(int)
    const char *fl_compiler()
    int fl_get_num_threads()
    fl_status fl_set_num_threads(int)
    fl_status fl_parameter_count(const fl_config *, size_t *)
    fl_status fl_model_create(const fl_config *, const char *, const void *, fl_model **)
    void fl_model_destroy(fl_model *)
    const char *fl_model_isa(const fl_model *)
    size_t fl_model_bytes(const fl_model *)
    fl_status fl_forward(
        const fl_model *, ptrdiff_t, ptrdiff_t, const ptrdiff_t *, const void *, ptrdiff_t, ptrdiff_t, const void *,
        const void *, void *, ptrdiff_t, ptrdiff_t, void *, void *, const fl_watch *)

    fl_status fl_tape_bytes(
        const fl_model *, ptrdiff_t, ptrdiff_t, const ptrdiff_t *, size_t *)
    fl_status fl_record(
        const fl_model *, ptrdiff_t, ptrdiff_t, const ptrdiff_t *, const void *, ptrdiff_t, ptrdiff_t, const void *,
        const void *, const fl_masks *, void *, ptrdiff_t, ptrdiff_t, void *, void *, void *,
        const fl_watch *)
    fl_status fl_backward(
        const fl_model *, const void *, ptrdiff_t, ptrdiff_t, const ptrdiff_t *, const void *,
        ptrdiff_t, ptrdiff_t, const void *, const void *, const fl_masks *, const void *,
        const void *, ptrdiff_t, ptrdiff_t, const void *, const void *, int, void *, ptrdiff_t,
        ptrdiff_t, void *, void *, void *, const fl_watch *)

    ctypedef struct fl_stream:
        pass

    fl_status fl_stream_create(const fl_model *, ptrdiff_t, fl_stream **)
    void fl_stream_destroy(fl_stream *)
    void fl_stream_step(fl_stream *, const void *, void *)
    fl_status fl_stream_push(
        fl_stream *, ptrdiff_t, const void *, ptrdiff_t, ptrdiff_t, void *, ptrdiff_t, ptrdiff_t,
        const fl_watch *)
    void fl_stream_reset(fl_stream *, const unsigned char *)
    void fl_stream_get_state(const fl_stream *, void *, void *)
    void fl_stream_set_state(fl_stream *, const void *, const void *)
    fl_status fl_sigmoid(const char *, fl_dtype, ptrdiff_t, const void *, void *)
    fl_status fl_tanh(const char *, fl_dtype, ptrdiff_t, const void *, void *)
    double fl_limit_fma(const char *, fl_dtype, ptrdiff_t)
    double fl_limit_read(const char *, fl_dtype, ptrdiff_t, const void *, ptrdiff_t)


cdef extern from "<time.h>" nogil:
    ctypedef struct timespec "struct timespec":
        long long tv_sec
        long tv_nsec
    int timespec_get(timespec *, int)
    int TIME_UTC


def available_isas():
    """Return the names of the instruction sets this machine can run, the fastest first."""
    return tuple(fl_isa_name(i).decode() for i in range(fl_isa_count()))


def default_isa():
    """Return the instruction set a layer gets when none is asked for.

    Raises
    ------
    ValueError
        If the environment variable ``FASTLSTM_ISA`` names one that is not available.
    """
    cdef const char *name = fl_isa_default()
    if name == NULL:
        raise _isa_error("FASTLSTM_ISA")
    return name.decode()


def compiler():
    """Return the name and version of the compiler that built the C core."""
    return fl_compiler().decode()


def cache_sizes():
    """Return the data cache sizes in bytes by level: "L1d", "L2", "L3", those that are known."""
    names = ("L1d", "L2", "L3")
    sizes = {name: fl_cache_size(level) for level, name in enumerate(names, start=1)}
    return {name: size for name, size in sizes.items() if size}


def get_num_threads():
    """Return how many threads a call may use at most."""
    return fl_get_num_threads()


def set_num_threads(int count):
    """Set how many threads a call may use at most, 1 to 64."""
    _raise_status(fl_set_num_threads(count))


cdef object _isa_error(str argument, object value=None):
    import os

    if value is None:
        value = os.environ.get("FASTLSTM_ISA")
    return ValueError(
        f"{argument}: {shown(value)} is not an instruction set of this machine; "
        f"it has {', '.join(available_isas())}"
    )


cdef int _raise_status(fl_status status) except -1:
    if status == FL_OK:
        return 0
    if status == FL_ERROR_CANCELLED and PyErr_Occurred() != NULL:
        return -1  # what the signal's handler raised
    message = fl_status_message(status).decode()
    if status == FL_ERROR_MEMORY:
        raise MemoryError(message)
    if status == FL_ERROR_OVERFLOW:
        raise OverflowError(message)
    if status == FL_ERROR_CANCELLED:
        raise RuntimeError("a signal's handler forked in the middle of the call, whose threads the "
                           "child does not have")
    raise ValueError(message)


# Work of a call, in floating-point operations, from which it counts as long: 0.1 to 0.2 ms of
# AVX-512. A long call of the main thread looks for signals, and one of a stream releases the
# interpreter's lock. For that, measured on 2 cores, I = H, batch 1: to release and take back costs
# 50 ns, and lets two threads with a stream each do 1.6 (H = 64) to 1.9 (H = 256) times as much. But
# beside a thread that is busy in Python, taking the lock back takes up to 5 ms
# (sys.getswitchinterval): a step of H = 128 took 1.7 ms then, and 9 us with the lock kept. A stream
# is there for low latency, so its short calls keep the lock.
cdef double _LONG = 1e7

# Seconds between two looks for signals, at least. Each takes the interpreter's lock, and beside a
# thread that is busy in Python waits for it: the next comes no sooner than ten times that later.
cdef double _SIGNALS_EVERY = 0.03


cdef struct _Looks:
    double last   # when it was, in seconds
    double pause  # seconds to the next one


cdef extern from "Python.h":
    # The exception that a handler raises stays set, for _raise_status.
    int _check_signals "PyErr_CheckSignals" () noexcept


cdef double _seconds() noexcept nogil:
    cdef timespec time
    timespec_get(&time, TIME_UTC)
    return <double> time.tv_sec + 1e-9 * <double> time.tv_nsec


cdef int _is_signalled(void *context) noexcept nogil:
    """fl_watch.is_cancelled: run the handlers of signals; whether one has raised.

    context : _Looks *
    """
    cdef _Looks *looks = <_Looks *> context
    cdef double now = _seconds()
    if 0 <= now - looks.last < looks.pause:
        return 0
    cdef int raised
    with gil:
        looks.last = _seconds()
        looks.pause = max(_SIGNALS_EVERY, 10 * (looks.last - now))
        raised = _check_signals()
    return raised != 0


cdef fl_watch *_watch_for(double flops, fl_watch *watch, _Looks *looks):
    """A watch for signals in a call of so much work; NULL for a short one, or not of the main thread."""
    if flops < _LONG or threading.get_ident() != threading.main_thread().ident:
        return NULL
    looks.last, looks.pause = _seconds(), _SIGNALS_EVERY
    watch.is_cancelled = _is_signalled
    watch.context = looks
    return watch


cdef bytes _isa_bytes(object isa):
    """The name of an instruction set for C, checked; the default for None."""
    if isa is None:
        return default_isa().encode()
    if not isinstance(isa, str) or isa not in available_isas():
        raise _isa_error("isa", isa)
    return isa.encode()


cdef class _Buffer:
    """A buffer of reals held for the length of a call.

    Parameters
    ----------
    array : object with the buffer protocol
    is_double : bool
        The precision it must have: native float64 or float32.
    shape : tuple of int
        The shape it must have.
    writable : bool
    """

    cdef Py_buffer view
    cdef bint held

    def __cinit__(self, object array, bint is_double, tuple shape, bint writable):
        cdef int flags = PyBUF_STRIDES | PyBUF_FORMAT
        if writable:
            flags |= PyBUF_WRITABLE
        PyObject_GetBuffer(array, &self.view, flags)
        self.held = True
        cdef const char *wanted = b"d" if is_double else b"f"
        if strcmp(self.view.format, wanted) != 0 or self.view.itemsize != (8 if is_double else 4):
            raise ValueError(f"buffer of format {self.view.format.decode()!r}")
        if self.view.ndim != len(shape):
            raise ValueError(f"buffer of {self.view.ndim} dimensions, expected {len(shape)}")
        cdef int i
        for i in range(self.view.ndim):
            if self.view.shape[i] != shape[i]:
                raise ValueError(f"buffer of size {self.view.shape[i]} in dimension {i}, "
                                 f"expected {shape[i]}")
        if self.view.len > 0 and <size_t> self.view.buf % <size_t> self.view.itemsize != 0:
            raise ValueError("buffer is not aligned")

    def __dealloc__(self):
        if self.held:
            PyBuffer_Release(&self.view)

    cdef ptrdiff_t stride(self, int axis) except? -1:
        """Elements from one index of an axis to the next. An axis of size 1 has none: 0."""
        if self.view.shape[axis] <= 1:
            return 0
        if self.view.strides[axis] % self.view.itemsize != 0:
            raise ValueError(f"stride of dimension {axis} is no multiple of the item size")
        return self.view.strides[axis] // self.view.itemsize

    cdef int require_contiguous(self, int first_axis) except -1:
        """Check that the axes from first_axis on are laid out in C order without gaps."""
        cdef ptrdiff_t expected = self.view.itemsize
        cdef int axis
        for axis in range(self.view.ndim - 1, first_axis - 1, -1):
            if self.view.shape[axis] > 1 and self.view.strides[axis] != expected:
                raise ValueError(f"dimension {axis} is not contiguous")
            expected *= self.view.shape[axis]
        return 0


cdef class _Starts:
    """starts (T + 1,) of packed rows, or none. shape: that of x, to be (1, starts[T], I), or None."""

    cdef Py_buffer view
    cdef const ptrdiff_t *data
    cdef ptrdiff_t steps

    def __cinit__(self, object starts, object shape):
        self.data = NULL
        if starts is None:
            return
        PyObject_GetBuffer(starts, &self.view, PyBUF_FORMAT | PyBUF_ND)
        self.data = <const ptrdiff_t *> self.view.buf
        is_integer = self.view.format[0] in b"lq" and self.view.format[1] == 0
        if not is_integer or self.view.itemsize != sizeof(ptrdiff_t):
            raise ValueError(f"starts of format {self.view.format.decode()!r}")
        if self.view.ndim != 1 or self.view.shape[0] < 1:
            raise ValueError("starts has another shape than (T + 1,)")
        self.steps = self.view.shape[0] - 1
        if shape is not None and (shape[0] != 1 or shape[1] != self.data[self.steps]):
            raise ValueError(f"packed x of shape {shape}, expected (1, {self.data[self.steps]}, I)")

    def __dealloc__(self):
        if self.data != NULL:
            PyBuffer_Release(&self.view)


cdef void *_data(_Buffer buffer) noexcept:
    return NULL if buffer is None else buffer.view.buf


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
    sizes : fastlstm.parameters.Architecture
    cell : fastlstm.variants.Cell
    parameters : ndarray (N,), float32 or float64, contiguous
        All parameters in the order of PyTorch's ``state_dict``; its dtype is the model's.
    isa : str or None
        Instruction set; None for :func:`default_isa`.
    reverse : bool
        Whether the one direction runs from the last step to the first.
    """

    cdef fl_model *model
    cdef readonly ptrdiff_t input_size, hidden_size, num_layers, num_directions, output_size
    cdef readonly bint is_double
    cdef readonly tuple is_reverse  # of each direction, whether it goes back in time
    cdef readonly size_t parameter_count
    cdef double row_flops  # of one step of one sequence

    def __cinit__(
        self, object sizes, object cell, object parameters, object isa, object reverse=False
    ):
        cdef bytes isa_name = _isa_bytes(isa)
        cdef fl_config config
        cdef size_t count
        cdef fl_status status
        self.is_double = parameters.dtype == "float64"
        self.input_size = config.input_size = sizes.input_size
        self.hidden_size = config.hidden_size = sizes.hidden_size
        self.num_layers = config.num_layers = sizes.num_layers
        self.num_directions = config.num_directions = sizes.num_directions
        self.output_size = sizes.output_size
        config.has_bias = sizes.bias
        config.dtype = FL_FLOAT64 if self.is_double else FL_FLOAT32
        config.proj_size = sizes.proj_size
        config.has_peepholes = sizes.peepholes
        config.coupled_gates = sizes.coupled_gates
        config.gate_activation = _activation(cell.gate_activation)
        config.cell_activation = _activation(cell.cell_activation)
        config.output_activation = _activation(cell.output_activation)
        config.clip = cell.clip or 0
        config.cell_clip = cell.cell_clip or 0
        config.zoneout_h = cell.zoneout_h
        config.zoneout_c = cell.zoneout_c
        config.layer_norm = sizes.layer_norm
        config.reverse = reverse
        self.is_reverse = (False, True) if sizes.num_directions == 2 else (bool(reverse),)
        cdef double above = (self.num_layers - 1.0) * (self.num_directions + 1) * self.output_size
        self.row_flops = 8.0 * self.hidden_size * self.num_directions * (
            <double> self.input_size + self.output_size + above)
        _raise_status(fl_parameter_count(&config, &count))
        self.parameter_count = count
        cdef _Buffer vector = _Buffer(parameters, self.is_double, (count,), False)
        vector.require_contiguous(0)
        cdef const char *name = isa_name
        with nogil:
            status = fl_model_create(&config, name, vector.view.buf, &self.model)
        _raise_status(status)

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
        with nogil:
            if recording:
                status = fl_record(
                    self.model, T, B, starts_data, x_.view.buf, x_t, x_b, h_0_data, c_0_data,
                    masks_data, y_data, y_t, y_b, h_n_.view.buf, c_n_.view.buf, tape_data, watch)
            else:
                status = fl_forward(
                    self.model, T, B, starts_data, x_.view.buf, x_t, x_b, h_0_data, c_0_data,
                    y_data, y_t, y_b, h_n_.view.buf, c_n_.view.buf, watch)
        _raise_status(status)

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
        with nogil:
            status = fl_backward(
                self.model, parameters_.view.buf, T, B, starts_data, x_.view.buf, x_t, x_b,
                h_0_data, c_0_data, masks_data, tape_.view.buf, dy_data, dy_t, dy_b, dh_n_data,
                dc_n_data, accumulate, dx_data, dx_t, dx_b, dh_0_data, dc_0_data,
                dparameters_data, watch)
        _raise_status(status)

    cdef _Buffer contiguous(self, object array, tuple shape, bint writable):
        """The buffer of an array that must have this shape and no gaps; None for None."""
        if array is None:
            return None
        cdef _Buffer buffer = _Buffer(array, self.is_double, shape, writable)
        buffer.require_contiguous(0)
        return buffer


def limit_fma(bint is_double, ptrdiff_t rounds, isa=None):
    """Do fused multiply-adds and nothing else; return how many floating-point operations."""
    cdef bytes isa_name = _isa_bytes(isa)
    cdef const char *isa_chars = isa_name
    cdef double done
    with nogil:
        done = fl_limit_fma(isa_chars, FL_FLOAT64 if is_double else FL_FLOAT32, rounds)
    return done


def limit_read(x, ptrdiff_t repeats, isa=None):
    """Read x (n,), float32 or float64, ``repeats`` times and do little else; return the bytes."""
    cdef bytes isa_name = _isa_bytes(isa)
    cdef const char *isa_chars = isa_name
    cdef bint is_double = x.dtype == "float64"
    cdef _Buffer x_ = _Buffer(x, is_double, (len(x),), False)
    x_.require_contiguous(0)
    cdef ptrdiff_t n = x_.view.shape[0]
    cdef double done
    with nogil:
        done = fl_limit_read(
            isa_chars, FL_FLOAT64 if is_double else FL_FLOAT32, n, x_.view.buf, repeats)
    return done


def activation(str name, x, y, isa=None):
    """Apply the kernels' ``sigmoid`` or ``tanh`` element by element.

    Parameters
    ----------
    name : {"sigmoid", "tanh"}
    x : ndarray (n,), float32 or float64, contiguous
    y : ndarray (n,) of the same dtype, contiguous
        Written; may be x.
    isa : str or None
        Instruction set; None for :func:`default_isa`.
    """
    if name not in ("sigmoid", "tanh"):
        raise ValueError(f"name: {name!r} is not 'sigmoid' or 'tanh'")
    cdef bytes isa_name = _isa_bytes(isa)
    cdef bint is_double = x.dtype == "float64"
    cdef _Buffer x_ = _Buffer(x, is_double, (len(x),), False)
    cdef _Buffer y_ = _Buffer(y, is_double, (len(x),), True)
    x_.require_contiguous(0)
    y_.require_contiguous(0)
    cdef fl_dtype dtype = FL_FLOAT64 if is_double else FL_FLOAT32
    cdef ptrdiff_t n = x_.view.shape[0]
    cdef const char *isa_chars = isa_name
    cdef bint is_sigmoid = name == "sigmoid"
    cdef fl_status status
    with nogil:
        if is_sigmoid:
            status = fl_sigmoid(isa_chars, dtype, n, x_.view.buf, y_.view.buf)
        else:
            status = fl_tanh(isa_chars, dtype, n, x_.view.buf, y_.view.buf)
    _raise_status(status)


cdef extern from "Python.h":
    # As in cpython.buffer, but without a try statement's cost where failing is no error.
    int _try_get_buffer "PyObject_GetBuffer" (object, Py_buffer *, int) noexcept
    void PyErr_Clear() noexcept


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
        self.take_turn()
        if T * self.step_flops < _LONG:
            status = fl_stream_push(
                self.stream, T, x_.view.buf, x_t, x_b, y_.view.buf, y_t, y_b, NULL)
        else:
            with nogil:
                status = fl_stream_push(
                    self.stream, T, x_.view.buf, x_t, x_b, y_.view.buf, y_t, y_b, watch)
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
