# Vectors of parameters: norms, and steps of Adam.


def norm(vector):
    """Return the Euclidean norm of a contiguous vector (n,) of float32 or float64."""
    cdef bint is_double = vector.dtype == "float64"
    cdef _Buffer vector_ = _Buffer(vector, is_double, (len(vector),), False)
    vector_.require_contiguous(0)
    cdef fl_dtype dtype = FL_FLOAT64 if is_double else FL_FLOAT32
    cdef double result
    with nogil:
        result = fl_norm(dtype, vector_.view.shape[0], vector_.view.buf)
    return result


def adam_step(
    p, g, m, v, v_max, double beta1, double beta2, double eps, double rate, double correction,
    double keep, double decay,
):
    """Take a step of Adam; vectors (n,) are C-contiguous, of one dtype, and don't overlap.

    Parameters
    ----------
    p, m, v : ndarray (n,), float32 or float64
        Written.
    g : ndarray (n,)
    v_max : ndarray (n,) or None
        Written.
    beta1, beta2, eps, rate, correction, keep, decay : float
        As ``vectors.h`` has them.
    """
    cdef bint is_double = p.dtype == "float64"
    cdef tuple shape = (len(p),)
    cdef _Buffer p_ = _Buffer(p, is_double, shape, True)
    cdef _Buffer g_ = _Buffer(g, is_double, shape, False)
    cdef _Buffer m_ = _Buffer(m, is_double, shape, True)
    cdef _Buffer v_ = _Buffer(v, is_double, shape, True)
    cdef _Buffer max_ = None if v_max is None else _Buffer(v_max, is_double, shape, True)
    for buffer in (p_, g_, m_, v_, max_):
        if buffer is not None:
            (<_Buffer> buffer).require_contiguous(0)
    cdef fl_adam call
    call.dtype = FL_FLOAT64 if is_double else FL_FLOAT32
    call.n = p_.view.shape[0]
    call.p, call.g, call.m, call.v = p_.view.buf, g_.view.buf, m_.view.buf, v_.view.buf
    call.v_max = NULL if max_ is None else max_.view.buf
    call.beta1, call.beta2, call.eps, call.rate = beta1, beta2, eps, rate
    call.correction, call.keep, call.decay = correction, keep, decay
    with nogil:
        fl_adam_step(&call)
