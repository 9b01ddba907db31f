/* Single kernels by themselves, for tests and benchmarks of this library; no part of its C API. */
#ifndef FL_PROBES_H
#define FL_PROBES_H

#include <stddef.h>

#include "fastlstm.h"

/* Activations of the kernels, element by element.
 *
 * isa   in: as for fl_model_create.       n     in: number of elements, >= 0.
 * x     in (n).                           y     out (n); may be x.
 *
 * float: within 2.5 ulp of the exact value over all floats, denormals counting as
 * zero; sigmoid is in [0, 1] and exactly 0 or 1 when saturated; tanh is odd and exactly +-1 when
 * saturated. NaN gives NaN.
 */
fl_status fl_probe_sigmoid(const char *isa, fl_dtype dtype, ptrdiff_t n, const void *x, void *y);
fl_status fl_probe_tanh(const char *isa, fl_dtype dtype, ptrdiff_t n, const void *x, void *y);

/* The same of layers of 8 or 16 bits: absolute errors within 1e-4 and 2e-6, sigmoid in [0, 1] and
 * exactly 1 when saturated, tanh odd and exactly +-1 when saturated. NaN gives NaN.
 *
 * bits  in: 8 or 16.
 */
fl_status fl_probe_low_sigmoid(const char *isa, int bits, ptrdiff_t n, const float *x, float *y);
fl_status fl_probe_low_tanh(const char *isa, int bits, ptrdiff_t n, const float *x, float *y);

/* The cell of such a layer.
 *
 * z     in (4, n), gates before activation.
 * c     in and out (n).                   h     out (n).
 */
fl_status fl_probe_low_cell(const char *isa, int bits, ptrdiff_t n, const float *z, float *c,
                            float *h);

/* What the hardware allows: time these to know the peak of the multiply-adds and the rate at which
 * memory of some size can be read. Return how many floating-point operations were done, how many
 * bytes read; 0 for an instruction set or dtype that there is not.
 *
 * x  in (n) reals, read `repeats` times.
 */
double fl_probe_fma(const char *isa, fl_dtype dtype, ptrdiff_t rounds);
double fl_probe_read(const char *isa, fl_dtype dtype, ptrdiff_t n, const void *x,
                     ptrdiff_t repeats);

#endif
