# cython: language_level=3, boundscheck=False, wraparound=False, embedsignature=True
"""The bridge to the C core: buffers in, one C call with the GIL released, buffers out.

Everything a caller hands in is checked here once more (dtype, dimensions, sizes, contiguity,
writability) before any C code sees it, so that no use of this module can touch memory that is not
its own. Friendly errors are the business of ``lstm.py``, which checks first.
"""

from cpython.buffer cimport (
    PyBUF_FORMAT,
    PyBUF_STRIDES,
    PyBUF_WRITABLE,
    PyBuffer_Release,
    PyObject_GetBuffer,
)
from libc.stddef cimport size_t
from libc.string cimport strcmp


cdef extern from "fastlstm.h" nogil:
    ctypedef enum fl_status:
        FL_OK
        FL_ERROR_ARGUMENT
        FL_ERROR_OVERFLOW
        FL_ERROR_MEMORY
        FL_ERROR_ISA

    ctypedef enum fl_dtype:
        FL_FLOAT32
        FL_FLOAT64

    ctypedef struct fl_config:
        ptrdiff_t input_size
        ptrdiff_t hidden_size
        ptrdiff_t num_layers
        ptrdiff_t num_directions
        int has_bias
        fl_dtype dtype

    ctypedef struct fl_model:
        pass

    const char *fl_status_message(fl_status)
    int fl_isa_count()
    const char *fl_isa_name(int)
    const char *fl_isa_default()
    size_t fl_cache_size(int)
    const char *fl_compiler()
    fl_status fl_parameter_count(const fl_config *, size_t *)
    fl_status fl_model_create(const fl_config *, const char *, const void *, fl_model **)
    void fl_model_destroy(fl_model *)
    const char *fl_model_isa(const fl_model *)
    size_t fl_model_bytes(const fl_model *)
    fl_status fl_forward(
        const fl_model *, ptrdiff_t, ptrdiff_t, const void *, ptrdiff_t, ptrdiff_t, const void *,
        const void *, void *, ptrdiff_t, ptrdiff_t, void *, void *)
    fl_status fl_sigmoid(const char *, fl_dtype, ptrdiff_t, const void *, void *)
    fl_status fl_tanh(const char *, fl_dtype, ptrdiff_t, const void *, void *)


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


cdef object _isa_error(str argument, object value=None):
    import os

    if value is None:
        value = os.environ.get("FASTLSTM_ISA")
    return ValueError(
        f"{argument}: {value!r} is not an instruction set of this machine; "
        f"it has {', '.join(available_isas())}"
    )


cdef int _raise_status(fl_status status) except -1:
    if status == FL_OK:
        return 0
    message = fl_status_message(status).decode()
    if status == FL_ERROR_MEMORY:
        raise MemoryError(message)
    if status == FL_ERROR_OVERFLOW:
        raise OverflowError(message)
    raise ValueError(message)


cdef bytes _isa_bytes(object isa):
    """The name of an instruction set for C, checked; the default for None."""
    if isa is None:
        return default_isa().encode()
    if isa not in available_isas():
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
        if <size_t> self.view.buf % <size_t> self.view.itemsize != 0:
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


cdef class Model:
    """Parameters of a stack of layers, packed for one instruction set. Immutable.

    Parameters
    ----------
    input_size, hidden_size, num_layers, num_directions : int
        I, H, L and D.
    bias : bool
        Whether the parameters hold biases.
    parameters : ndarray (N,), float32 or float64, contiguous
        All parameters in the order of PyTorch's ``state_dict``; its dtype is the model's.
    isa : str or None
        Instruction set; None for :func:`default_isa`.
    """

    cdef fl_model *model
    cdef readonly ptrdiff_t input_size, hidden_size, num_layers, num_directions
    cdef readonly bint is_double

    def __cinit__(
        self, ptrdiff_t input_size, ptrdiff_t hidden_size, ptrdiff_t num_layers,
        ptrdiff_t num_directions, bint bias, object parameters, object isa,
    ):
        cdef bytes isa_name = _isa_bytes(isa)
        cdef fl_config config
        cdef size_t count
        cdef fl_status status
        self.is_double = parameters.dtype == "float64"
        self.input_size = config.input_size = input_size
        self.hidden_size = config.hidden_size = hidden_size
        self.num_layers = config.num_layers = num_layers
        self.num_directions = config.num_directions = num_directions
        config.has_bias = bias
        config.dtype = FL_FLOAT64 if self.is_double else FL_FLOAT32
        _raise_status(fl_parameter_count(&config, &count))
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

    def forward(self, x, h_0, c_0, y, h_n, c_n, bint batch_first=False):
        """Run the stack over a batch of sequences.

        Parameters
        ----------
        x : ndarray (T, B, I), or (B, T, I) with batch_first
            The last axis contiguous, the others of any stride.
        h_0, c_0 : ndarray (L*D, B, H), contiguous, or None for zeros
        y : ndarray (T, B, D*H), or (B, T, D*H) with batch_first
            Written. The last axis contiguous.
        h_n, c_n : ndarray (L*D, B, H), contiguous
            Written.
        """
        cdef int time_axis = 1 if batch_first else 0
        cdef int batch_axis = 1 - time_axis
        x_shape = x.shape
        if len(x_shape) != 3:
            raise ValueError(f"x has {len(x_shape)} dimensions, expected 3")
        cdef ptrdiff_t T = x_shape[time_axis], B = x_shape[batch_axis]
        state = (self.num_layers * self.num_directions, B, self.hidden_size)
        outer = (x_shape[0], x_shape[1])

        cdef _Buffer x_ = _Buffer(x, self.is_double, (*outer, self.input_size), False)
        cdef _Buffer y_ = _Buffer(
            y, self.is_double, (*outer, self.num_directions * self.hidden_size), True)
        cdef _Buffer h_n_ = _Buffer(h_n, self.is_double, state, True)
        cdef _Buffer c_n_ = _Buffer(c_n, self.is_double, state, True)
        cdef _Buffer h_0_ = None
        cdef _Buffer c_0_ = None
        cdef const void *h_0_data = NULL
        cdef const void *c_0_data = NULL
        x_.require_contiguous(2)
        y_.require_contiguous(0)
        h_n_.require_contiguous(0)
        c_n_.require_contiguous(0)
        if h_0 is not None:
            h_0_ = _Buffer(h_0, self.is_double, state, False)
            h_0_.require_contiguous(0)
            h_0_data = h_0_.view.buf
        if c_0 is not None:
            c_0_ = _Buffer(c_0, self.is_double, state, False)
            c_0_.require_contiguous(0)
            c_0_data = c_0_.view.buf

        cdef ptrdiff_t x_t = x_.stride(time_axis), x_b = x_.stride(batch_axis)
        cdef ptrdiff_t y_t = y_.stride(time_axis), y_b = y_.stride(batch_axis)
        cdef fl_status status
        with nogil:
            status = fl_forward(
                self.model, T, B, x_.view.buf, x_t, x_b, h_0_data, c_0_data, y_.view.buf, y_t, y_b,
                h_n_.view.buf, c_n_.view.buf)
        _raise_status(status)


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
