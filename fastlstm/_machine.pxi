# The machine: instruction sets, caches, threads, and what the benchmark and tests ask of its kernels.


def available_isas():
    """Return the names of the instruction sets this machine can run, the fastest first."""
    return tuple(fl_isa_name(i).decode() for i in range(fl_isa_count()))


def quantized_isas():
    """Return the names of the instruction sets for layers of 8, 16 and 24 bits, as above."""
    return tuple(fl_quantized_isa_name(i).decode() for i in range(fl_quantized_isa_count()))


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


def cpu_features():
    """Return the names of what the processor has of all that kernels use or may come to use."""
    cdef fl_features found = fl_features_detect()
    return tuple(fl_features_name(i).decode() for i in range(FL_FEATURES) if found >> i & 1)


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


cdef bytes _isa_bytes(object isa):
    """The name of an instruction set for C, checked; the default for None."""
    if isa is None:
        return default_isa().encode()
    if not isinstance(isa, str) or isa not in available_isas() + quantized_isas():
        raise _isa_error("isa", isa)
    return isa.encode()


def limit_fma(bint is_double, ptrdiff_t rounds, isa=None):
    """Do fused multiply-adds and nothing else; return how many floating-point operations."""
    cdef bytes isa_name = _isa_bytes(isa)
    cdef const char *isa_chars = isa_name
    cdef double done
    with nogil:
        done = fl_probe_fma(isa_chars, FL_FLOAT64 if is_double else FL_FLOAT32, rounds)
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
        done = fl_probe_read(
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
            status = fl_probe_sigmoid(isa_chars, dtype, n, x_.view.buf, y_.view.buf)
        else:
            status = fl_probe_tanh(isa_chars, dtype, n, x_.view.buf, y_.view.buf)
    _raise_status(status)
