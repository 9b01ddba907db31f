# cython: language_level=3, boundscheck=False, wraparound=False, embedsignature=True
# cython: freethreading_compatible=True
"""The bridge to the C core: buffers in, one C call with the GIL released, buffers out.

Everything a caller hands in is checked here (dtype, dimensions, sizes, contiguity, writability)
before any C code sees it, so that no use of this module can touch memory that is not its own.
Friendly errors are the business of ``_call.py``, ``stream.py`` and ``tape.py``.
"""

cimport cython
from cpython.buffer cimport (
    PyBUF_FORMAT,
    PyBUF_ND,
    PyBUF_SIMPLE,
    PyBUF_STRIDES,
    PyBUF_WRITABLE,
    PyBuffer_IsContiguous,
    PyBuffer_Release,
    PyObject_GetBuffer,
)
from cpython.exc cimport PyErr_Occurred
from cpython.long cimport PyLong_CheckExact
from libc.stdint cimport uintptr_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy, memset, strcmp

from fastlstm._capi cimport *

import sys
import threading

from numpy import empty, ndarray

from fastlstm._arguments import shown
from fastlstm.variants import ACTIVATIONS

include "_machine.pxi"
include "_signals.pxi"
include "_buffers.pxi"
include "_quantized.pxi"
include "_model.pxi"
include "_stream.pxi"
include "_linear.pxi"
include "_vectors.pxi"
include "_rows.pxi"
include "_tensors.pxi"
