# Weights of 8, 16 and 24 bits, checked and held while the core packs or makes them.


cdef object _FLOAT32 = empty(0, "float32").dtype


cdef class _Digits:
    """Digits (n, R, K) of int8, contiguous, held for the length of a call."""

    cdef Py_buffer view
    cdef bint held

    def __cinit__(self, object array, tuple shape, bint writable):
        cdef int flags = PyBUF_ND | PyBUF_FORMAT
        if writable:
            flags |= PyBUF_WRITABLE
        PyObject_GetBuffer(array, &self.view, flags)
        self.held = True
        if self.view.format == NULL or strcmp(self.view.format, b"b") != 0:
            raise ValueError("digits that are not int8")
        if tuple(self.view.shape[i] for i in range(self.view.ndim)) != shape:
            raise ValueError(f"digits of another shape than {shape}")

    def __dealloc__(self):
        if self.held:
            PyBuffer_Release(&self.view)


cdef class _QuantizedLayers:
    """The parameters of all directions of all layers, of the sizes that a spec has."""

    cdef fl_quantized_layer *layers
    cdef list held

    def __cinit__(self, object spec, object quantized):
        cell, H, P = spec.cell, spec.hidden_size, spec.output_size
        G, D, n = 3 if cell.coupled_gates else 4, spec.num_directions, quantized.bits // 8
        count = spec.num_layers * D
        vectors = 2 * G * spec.bias + (G - 1) * cell.peepholes + (2 * G + 2) * cell.layer_norm
        directions = tuple(quantized.directions)
        if len(directions) != count:
            raise ValueError(f"{len(directions)} directions, expected {count}")
        self.held = []
        self.layers = <fl_quantized_layer *> calloc(count, sizeof(fl_quantized_layer))
        if self.layers == NULL:
            raise MemoryError
        cdef Py_ssize_t index
        cdef fl_quantized_layer *layer
        for index in range(count):
            w, w_real, u, w_hr, x_multipliers, others = directions[index]
            layer = &self.layers[index]
            inputs = spec.input_size if index < D else D * P
            layer.w = self.matrix(w, (n, G * H, inputs))
            layer.u = self.matrix(u, (n, G * H, P))
            if spec.proj_size:
                layer.w_hr = self.matrix(w_hr, (n, P, H))
            layer.w_real = self.reals(w_real, (G * H, inputs))
            layer.x_multipliers = self.reals(x_multipliers, (inputs,))
            layer.others = self.reals(others, (vectors * H,))

    def __dealloc__(self):
        free(self.layers)

    cdef const float *reals(self, object array, tuple shape) except? NULL:
        if array is None:
            return NULL
        cdef _Buffer buffer = _Buffer(array, False, shape, False)
        buffer.require_contiguous(0)
        self.held.append(buffer)
        return <const float *> buffer.view.buf

    cdef fl_quantized_matrix matrix(self, object matrix, tuple shape) except *:
        cdef fl_quantized_matrix result
        result.digits, result.units = NULL, NULL
        if matrix is None:
            return result
        digits, units = matrix
        cdef _Digits held = _Digits(digits, shape, False)
        self.held.append(held)
        result.digits = <const signed char *> held.view.buf
        result.units = self.reals(units, (shape[1],))
        return result


def quantize_rows(int bits, weights):
    """Quantise weights (R, K), float32 and contiguous, as ``fl_quantize_rows`` does.

    Returns
    -------
    digits : ndarray (bits / 8, R, K) of int8
    units : ndarray (R,) of float32
    """
    if bits not in (8, 16, 24):
        raise ValueError(f"{bits} bits, expected 8, 16 or 24")
    R, K = weights.shape
    digits, units = empty((bits // 8, R, K), "int8"), empty(R, "float32")
    cdef _Buffer weights_ = _Buffer(weights, False, (R, K), False)
    weights_.require_contiguous(0)
    cdef _Digits digits_ = _Digits(digits, (bits // 8, R, K), True)
    cdef _Buffer units_ = _Buffer(units, False, (R,), True)
    cdef ptrdiff_t rows = R, columns = K
    cdef fl_status status
    with nogil:
        status = fl_quantize_rows(
            bits, rows, columns, <const float *> weights_.view.buf,
            <signed char *> digits_.view.buf, <float *> units_.view.buf)
    _raise_status(status)
    return digits, units
