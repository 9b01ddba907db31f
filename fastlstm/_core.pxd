# The step of a stream for Cython code: no Python call, no interpreter's lock, no header needed.
#
#     from fastlstm._core cimport stream_handle, stream_step
#
#     cdef void *handle = stream_handle(stream)      # of a fastlstm.Stream; valid while that lives
#     with nogil:
#         stream_step(handle, &x_t[0, 0], &y_t[0, 0])
#
# Nothing is checked: x_t (B, I) and y_t (B, P) are contiguous, of the stream's dtype, and do not
# overlap. One thread at a time may use a stream.

cdef void *stream_handle(object stream) except NULL
cdef void stream_step(void *handle, const void *x_t, void *y_t) noexcept nogil
