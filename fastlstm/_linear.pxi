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
