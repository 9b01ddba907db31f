# Statuses and signals: errors of the C core raised, and long calls of the main thread given up.


cdef extern from "<time.h>" nogil:
    ctypedef struct timespec "struct timespec":
        long long tv_sec
        long tv_nsec
    int timespec_get(timespec *, int)
    int TIME_UTC


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
