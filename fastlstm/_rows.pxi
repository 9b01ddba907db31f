# Packed rows: where pieces of sequences have them, and how they get to their places.


cdef void *_target(object array, Py_buffer *view) except NULL:
    """The data of a new array, held in view for the length of a call."""
    PyObject_GetBuffer(array, view, PyBUF_ND | PyBUF_WRITABLE)
    # Of an empty array, any address will do.
    return view.buf if view.buf != NULL else <void *> view


cdef object _integers(const ptrdiff_t *numbers, ptrdiff_t count):
    """A new array (count,) of intp."""
    cdef Py_buffer view
    array = empty(count, "intp")
    memcpy(_target(array, &view), numbers, count * sizeof(ptrdiff_t))
    PyBuffer_Release(&view)
    return array


def sort_pieces(lengths, first_rows, ptrdiff_t step):
    """Sort S pieces of sequences, the longest first, those of one length as they came.

    Parameters
    ----------
    lengths, first_rows : ndarray (S,) of intp, contiguous
        The steps of each piece, and the row at which it begins.
    step : int
        Rows from a step to the next.

    Returns
    -------
    order : ndarray (S,) of intp
        The number of each piece.
    starts : ndarray (T + 1,) of intp
        Packed row at which step t begins, T the longest length; the last is the number of rows.
    rows : ndarray (starts[-1],) of intp
        Which row each packed row is.
    """
    cdef ptrdiff_t S = lengths.shape[0], t, b, row
    cdef _Integers lengths_ = _Integers(lengths, S), first_rows_ = _Integers(first_rows, S)
    cdef fl_sorted pieces
    cdef Py_buffer view
    cdef ptrdiff_t *to
    _raise_status(
        fl_sorted_create(&pieces, sys.maxsize, S, lengths_.data, first_rows_.data))
    try:
        order, starts = _integers(pieces.order, S), _integers(pieces.starts, pieces.T + 1)
        rows = empty(pieces.starts[pieces.T], "intp")
        to = <ptrdiff_t *> _target(rows, &view)
        for t in range(pieces.T):
            row = pieces.starts[t]
            for b in range(pieces.starts[t + 1] - row):
                to[row + b] = pieces.first_rows[b] + t * step
        PyBuffer_Release(&view)
    finally:
        fl_sorted_destroy(&pieces)
    return order, starts, rows


def unpack_rows(packed, rows, out):
    """Write packed rows to their places.

    Parameters
    ----------
    packed : ndarray (N, n), contiguous
    rows : ndarray (N,) of intp, contiguous
        Where each goes, 0 to R - 1.
    out : ndarray (R, n) of the same dtype, contiguous
    """
    cdef bint is_double = packed.dtype == "float64"
    cdef ptrdiff_t N = packed.shape[0], R = out.shape[0], i
    cdef _Buffer packed_ = _Buffer(packed, is_double, packed.shape, False)
    cdef _Buffer out_ = _Buffer(out, is_double, (R, packed.shape[1]), True)
    cdef _Integers rows_ = _Integers(rows, N)
    packed_.require_contiguous(0)
    out_.require_contiguous(0)
    cdef size_t bytes = packed_.view.shape[1] * packed_.view.itemsize
    for i in range(N):
        if not 0 <= rows_.data[i] < R:
            raise ValueError(f"row {rows_.data[i]} of {R}")
    with nogil:
        for i in range(N):
            memcpy(<char *> out_.view.buf + rows_.data[i] * bytes,
                   <char *> packed_.view.buf + i * bytes, bytes)
