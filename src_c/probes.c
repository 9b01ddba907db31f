/* Single kernels by themselves: activations element by element, and the limits of the hardware. */
#include "probes.h"
#include "kernels/kernels.h"
#include "platform.h"

/* Activations of a table, in the floating-point environment of the kernels. */
static fl_status apply(void (*activation)(ptrdiff_t, const void *, void *), ptrdiff_t n,
                       const void *x, void *y) {
    if (n < 0 || (n > 0 && (x == NULL || y == NULL))) return FL_ERROR_ARGUMENT;
    const fl_fp_state saved = fl_fp_enter();
    activation(n, x, y);
    fl_fp_leave(saved);
    return FL_OK;
}

fl_status fl_probe_sigmoid(const char *isa, fl_dtype dtype, ptrdiff_t n, const void *x, void *y) {
    const fl_kernels *kernels = fl_kernels_find(isa, dtype, FL_WEIGHTS_REAL);
    return kernels ? apply(kernels->sigmoid, n, x, y) : FL_ERROR_ISA;
}

fl_status fl_probe_tanh(const char *isa, fl_dtype dtype, ptrdiff_t n, const void *x, void *y) {
    const fl_kernels *kernels = fl_kernels_find(isa, dtype, FL_WEIGHTS_REAL);
    return kernels ? apply(kernels->tanh, n, x, y) : FL_ERROR_ISA;
}

/* The table that has the activations of 8 and 16 bits; NULL, and why, for what it has not. */
static const fl_kernels *low_kernels(const char *isa, int bits, ptrdiff_t n, fl_status *status) {
    const fl_kernels *kernels = fl_kernels_find(isa, FL_FLOAT32, FL_WEIGHTS_REAL);
    *status = kernels == NULL                      ? FL_ERROR_ISA
              : n < 0 || (bits != 8 && bits != 16) ? FL_ERROR_ARGUMENT
                                                   : FL_OK;
    return *status == FL_OK ? kernels : NULL;
}

fl_status fl_probe_low_sigmoid(const char *isa, int bits, ptrdiff_t n, const float *x, float *y) {
    fl_status status;
    const fl_kernels *kernels = low_kernels(isa, bits, n, &status);
    const fl_fp_state saved = fl_fp_enter();
    if (kernels) kernels->low_sigmoid(bits, n, x, y);
    fl_fp_leave(saved);
    return status;
}

fl_status fl_probe_low_tanh(const char *isa, int bits, ptrdiff_t n, const float *x, float *y) {
    fl_status status;
    const fl_kernels *kernels = low_kernels(isa, bits, n, &status);
    const fl_fp_state saved = fl_fp_enter();
    if (kernels) kernels->low_tanh(bits, n, x, y);
    fl_fp_leave(saved);
    return status;
}

fl_status fl_probe_low_cell(const char *isa, int bits, ptrdiff_t n, const float *z, float *c,
                            float *h) {
    fl_status status;
    const fl_kernels *kernels = low_kernels(isa, bits, n, &status);
    const fl_fp_state saved = fl_fp_enter();
    if (kernels) kernels->low_cell(bits, n, z, c, h);
    fl_fp_leave(saved);
    return status;
}

double fl_probe_fma(const char *isa, fl_dtype dtype, ptrdiff_t rounds) {
    const fl_kernels *kernels = fl_kernels_find(isa, dtype, FL_WEIGHTS_REAL);
    volatile double sink = 0;
    return kernels ? kernels->limit_fma(rounds, &sink) : 0;
}

double fl_probe_read(const char *isa, fl_dtype dtype, ptrdiff_t n, const void *x,
                     ptrdiff_t repeats) {
    const fl_kernels *kernels = fl_kernels_find(isa, dtype, FL_WEIGHTS_REAL);
    volatile double sink = 0;
    return kernels && x ? kernels->limit_read(n, x, repeats, &sink) : 0;
}
