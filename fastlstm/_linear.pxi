# A linear layer on the outputs of an LSTM.


def linear(x, weight, bias, z, isa=None):
    """Write ``x @ weight.T + bias`` to z; all are C-contiguous and of one dtype.

    Parameters
    ----------
    x : ndarray (n, K), float32 or float64
    weight : ndarray (N, K)
    bias : ndarray (N,)
    z : ndarray (n, N)
        Written; may not overlap the others.
    isa : str or None
        Instruction set; None for :func:`default_isa`.
    """
    cdef bytes isa_name = _isa_bytes(isa)
    cdef const char *isa_chars = isa_name
    cdef bint is_double = x.dtype == "float64"
    rows, K = x.shape
    N = len(bias)
    cdef _Buffer x_ = _Buffer(x, is_double, (rows, K), False)
    cdef _Buffer weight_ = _Buffer(weight, is_double, (N, K), False)
    cdef _Buffer bias_ = _Buffer(bias, is_double, (N,), False)
    cdef _Buffer z_ = _Buffer(z, is_double, (rows, N), True)
    for buffer in (x_, weight_, bias_, z_):
        (<_Buffer> buffer).require_contiguous(0)
    cdef fl_linear call
    call.dtype = FL_FLOAT64 if is_double else FL_FLOAT32
    call.rows, call.K, call.N = rows, K, N
    call.x, call.weight, call.bias = x_.view.buf, weight_.view.buf, bias_.view.buf
    call.z = z_.view.buf
    cdef fl_status status
    with nogil:
        status = fl_linear_apply(&call, isa_chars)
    _raise_status(status)


def linear_backward(dz, x, weight, dweight, dbias, dx, isa=None):
    """Write the gradients of :func:`linear`; all are C-contiguous and of one dtype.

    Parameters
    ----------
    dz : ndarray (n, N), float32 or float64
        The gradient by z.
    x : ndarray (n, K)
    weight : ndarray (N, K)
    dweight : ndarray (N, K)
    dbias : ndarray (N,)
    dx : ndarray (n, K)
        These three are written; they may not overlap the others.
    isa : str or None
        Instruction set; None for :func:`default_isa`.
    """
    cdef bytes isa_name = _isa_bytes(isa)
    cdef const char *isa_chars = isa_name
    cdef bint is_double = x.dtype == "float64"
    rows, K = x.shape
    N = len(weight)
    cdef _Buffer dz_ = _Buffer(dz, is_double, (rows, N), False)
    cdef _Buffer x_ = _Buffer(x, is_double, (rows, K), False)
    cdef _Buffer weight_ = _Buffer(weight, is_double, (N, K), False)
    cdef _Buffer dweight_ = _Buffer(dweight, is_double, (N, K), True)
    cdef _Buffer dbias_ = _Buffer(dbias, is_double, (N,), True)
    cdef _Buffer dx_ = _Buffer(dx, is_double, (rows, K), True)
    for buffer in (dz_, x_, weight_, dweight_, dbias_, dx_):
        (<_Buffer> buffer).require_contiguous(0)
    cdef fl_linear_gradient call
    call.dtype = FL_FLOAT64 if is_double else FL_FLOAT32
    call.rows, call.K, call.N = rows, K, N
    call.dz, call.x, call.weight = dz_.view.buf, x_.view.buf, weight_.view.buf
    call.dweight, call.dbias, call.dx = dweight_.view.buf, dbias_.view.buf, dx_.view.buf
    cdef fl_status status
    with nogil:
        status = fl_linear_backward(&call, isa_chars)
    _raise_status(status)


def softmax(z, scales, out, largest, totals, at, isa=None):
    """Write the softmax of each row of z, times its scale; all are C-contiguous and of one dtype.

    Parameters
    ----------
    z : ndarray (n, N), float32 or float64
    scales : ndarray (n,)
    out : ndarray (n, N)
    largest : ndarray (n,)
        The largest number of each row.
    totals : ndarray (n,)
        The sum of exp(z - largest) of each.
    at : ndarray (n,) of float64
        The place of the first largest of each. These four are written; they may not overlap others.
    isa : str or None
        Instruction set; None for :func:`default_isa`.
    """
    cdef bytes isa_name = _isa_bytes(isa)
    cdef const char *isa_chars = isa_name
    cdef bint is_double = z.dtype == "float64"
    rows, N = z.shape
    cdef _Buffer z_ = _Buffer(z, is_double, (rows, N), False)
    cdef _Buffer scales_ = _Buffer(scales, is_double, (rows,), False)
    cdef _Buffer out_ = _Buffer(out, is_double, (rows, N), True)
    cdef _Buffer largest_ = _Buffer(largest, is_double, (rows,), True)
    cdef _Buffer totals_ = _Buffer(totals, is_double, (rows,), True)
    cdef _Buffer at_ = _Buffer(at, True, (rows,), True)
    for buffer in (z_, scales_, out_, largest_, totals_, at_):
        (<_Buffer> buffer).require_contiguous(0)
    cdef fl_softmax call
    call.dtype = FL_FLOAT64 if is_double else FL_FLOAT32
    call.rows, call.N = rows, N
    call.z, call.scales, call.out = z_.view.buf, scales_.view.buf, out_.view.buf
    call.largest, call.totals = largest_.view.buf, totals_.view.buf
    call.at = <double *> at_.view.buf
    cdef fl_status status
    with nogil:
        status = fl_softmax_apply(&call, isa_chars)
    _raise_status(status)
