# Arrays as the C core takes them, checked and held for the length of a call.


cdef extern from "Python.h":
    # As in cpython.buffer, but without a try statement's cost where failing is no error.
    int _try_get_buffer "PyObject_GetBuffer" (object, Py_buffer *, int) noexcept
    Py_ssize_t _try_as_size "PyLong_AsSsize_t" (object) noexcept
    void PyErr_Clear() noexcept


#: More numbers than any memory holds, and few enough to count their bytes.
cdef double _LARGEST = 1e15


cdef tuple _shape(bint batched, ptrdiff_t first, ptrdiff_t second, ptrdiff_t last):
    """(first, second, last), or without a batch (first, last)."""
    if batched:
        return (first, second, last)
    return (first, last)


cdef struct _Held:
    # Of a plain call: buffers of x, two states, y and two states; and its lengths, or NULL.
    Py_buffer views[6]
    int count
    ptrdiff_t *lengths


cdef Py_buffer *_hold(_Held *held, object array, bint is_double, bint writable) noexcept:
    """Get one more buffer if it is of an aligned array of native reals; NULL for anything else."""
    cdef Py_buffer *view = &held.views[held.count]
    cdef int flags = PyBUF_STRIDES | PyBUF_FORMAT | (PyBUF_WRITABLE if writable else 0)
    cdef Py_ssize_t itemsize = 8 if is_double else 4
    if type(array) is not ndarray:  # a subclass may have ideas of its own
        return NULL
    if _try_get_buffer(array, view, flags) != 0:
        PyErr_Clear()
        return NULL
    held.count += 1
    if (
        view.format == NULL
        or view.format[0] != (c"d" if is_double else c"f")
        or view.format[1] != 0
        or view.itemsize != itemsize
        or <uintptr_t> view.buf % <uintptr_t> itemsize != 0
    ):
        return NULL
    return view


cdef void _release(_Held *held) noexcept:
    while held.count > 0:
        held.count -= 1
        PyBuffer_Release(&held.views[held.count])
    free(held.lengths)


cdef bint _has_whole_rows(const Py_buffer *view) noexcept nogil:
    """Whether the last axis has no gaps and the other strides are whole items."""
    cdef int axis, last = view.ndim - 1
    for axis in range(last):
        if view.strides[axis] % view.itemsize != 0:
            return False
    return view.strides[last] == view.itemsize or view.shape[last] <= 1


cdef ptrdiff_t _stride(const Py_buffer *view, int axis) noexcept nogil:
    """Elements from one index of an axis to the next. An axis of size 1 has none: 0."""
    return 0 if view.shape[axis] <= 1 else view.strides[axis] // view.itemsize


cdef bint _may_overlap(const Py_buffer *a, const Py_buffer *b) noexcept nogil:
    """Whether the memory from the first to the last byte of two arrays, none empty, overlaps."""
    cdef char *starts[2]
    cdef char *stops[2]
    cdef const Py_buffer *view
    cdef int k, axis
    cdef Py_ssize_t reach
    for k in range(2):
        view = a if k == 0 else b
        starts[k] = <char *> view.buf
        stops[k] = starts[k] + view.itemsize
        for axis in range(view.ndim):
            reach = (view.shape[axis] - 1) * view.strides[axis]
            if reach < 0:
                starts[k] += reach
            else:
                stops[k] += reach
    return starts[0] < stops[1] and starts[1] < stops[0]


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
        """Elements from one index of an axis to the next."""
        if self.view.shape[axis] > 1 and self.view.strides[axis] % self.view.itemsize != 0:
            raise ValueError(f"stride of dimension {axis} is no multiple of the item size")
        return _stride(&self.view, axis)

    cdef int require_contiguous(self, int first_axis) except -1:
        """Check that the axes from first_axis on are laid out in C order without gaps."""
        cdef ptrdiff_t expected = self.view.itemsize
        cdef int axis
        for axis in range(self.view.ndim - 1, first_axis - 1, -1):
            if self.view.shape[axis] > 1 and self.view.strides[axis] != expected:
                raise ValueError(f"dimension {axis} is not contiguous")
            expected *= self.view.shape[axis]
        return 0


cdef class _Integers:
    """An array (size,) of native intp, contiguous, held for the length of a call."""

    cdef Py_buffer view
    cdef bint held
    cdef const ptrdiff_t *data

    def __cinit__(self, object array, Py_ssize_t size):
        PyObject_GetBuffer(array, &self.view, PyBUF_FORMAT | PyBUF_ND)
        self.held = True
        if not _is_intp(&self.view):
            raise ValueError(f"integers of format {self.view.format.decode()!r}")
        if self.view.ndim != 1 or self.view.shape[0] != size:
            raise ValueError(f"integers of another shape than ({size},)")
        self.data = <const ptrdiff_t *> self.view.buf

    def __dealloc__(self):
        if self.held:
            PyBuffer_Release(&self.view)


cdef bint _is_intp(const Py_buffer *view) noexcept:
    """Whether a buffer's items are native integers of the width of a pointer."""
    cdef const char *format = view.format
    return (
        format != NULL
        and (format[0] == c"l" or format[0] == c"q")
        and format[1] == 0
        and view.itemsize == sizeof(ptrdiff_t)
        and <uintptr_t> view.buf % sizeof(ptrdiff_t) == 0
    )


cdef ptrdiff_t *_lengths_of(object given, ptrdiff_t B, ptrdiff_t T) except? NULL:
    """Return lengths (B,), to be freed, if they are given as is usual and right; else NULL.

    As is usual: as a list of Python's integers, or an array of intp. B is at least 1.
    """
    cdef Py_buffer view
    cdef ptrdiff_t b
    cdef ptrdiff_t *lengths
    cdef tuple numbers = None
    if type(given) is list:
        numbers = tuple(<list> given)  # which no other thread changes
        if len(numbers) != B:
            return NULL
    elif type(given) is not ndarray or _try_get_buffer(given, &view, PyBUF_ND | PyBUF_FORMAT) != 0:
        PyErr_Clear()
        return NULL
    elif view.ndim != 1 or view.shape[0] != B or not _is_intp(&view):
        PyBuffer_Release(&view)
        return NULL
    lengths = <ptrdiff_t *> malloc(B * sizeof(ptrdiff_t))
    if lengths == NULL:
        if numbers is None:
            PyBuffer_Release(&view)
        raise MemoryError("not enough memory for the lengths")
    if numbers is not None:
        for b in range(B):
            lengths[b] = _try_as_size(numbers[b]) if PyLong_CheckExact(numbers[b]) else -1
        PyErr_Clear()  # of one that is too large, which counts as -1
    else:
        memcpy(lengths, view.buf, B * sizeof(ptrdiff_t))
        PyBuffer_Release(&view)
    for b in range(B):
        if not 0 <= lengths[b] <= T:
            free(lengths)
            return NULL
    return lengths


cdef void _clear_padding(
    const ptrdiff_t *lengths, ptrdiff_t T, ptrdiff_t B, size_t bytes, const fl_output *y,
    ptrdiff_t real
) noexcept nogil:
    """Write zeros to the rows of y, of so many bytes, beyond the lengths (B,) of sequences."""
    cdef ptrdiff_t b, t
    for b in range(B):
        for t in range(lengths[b], T):
            memset(<char *> y.data + (t * y.stride_t + b * y.stride_b) * real, 0, bytes)


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
        if not _is_intp(&self.view):
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


def same_bytes(parts, whole):
    """Return whether some memory, end to end, holds the same bytes as other memory.

    Parameters
    ----------
    parts : sequence of objects with the buffer protocol, contiguous
    whole : object with the buffer protocol, contiguous
    """
    cdef Py_buffer whole_, part
    cdef Py_ssize_t start = 0
    cdef bint same = True
    PyObject_GetBuffer(whole, &whole_, PyBUF_SIMPLE)
    try:
        for one in parts:
            PyObject_GetBuffer(one, &part, PyBUF_SIMPLE)
            with nogil:
                same = part.len <= whole_.len - start
                same = same and memcmp(part.buf, <char *> whole_.buf + start, part.len) == 0
                start += part.len
            PyBuffer_Release(&part)
            if not same:
                return False
        return start == whole_.len
    finally:
        PyBuffer_Release(&whole_)
