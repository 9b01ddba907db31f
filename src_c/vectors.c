/* Vectors of parameters: norms, and steps of Adam. */
#include "vectors.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

enum { BLOCK = 512 };

#define REAL float
#define SQRT sqrtf
#define BITS int32_t
#define MAGNITUDE INT32_MAX
#define FL_VECTORS(name) name##_f32
#include "vectors_tpl.h"
#undef REAL
#undef SQRT
#undef BITS
#undef MAGNITUDE
#undef FL_VECTORS

#define REAL double
#define SQRT sqrt
#define BITS int64_t
#define MAGNITUDE INT64_MAX
#define FL_VECTORS(name) name##_f64
#include "vectors_tpl.h"

double fl_norm(fl_dtype dtype, ptrdiff_t n, const void *vector) {
    const int is_double = dtype == FL_FLOAT64;
    const double largest = is_double ? largest_f64(n, vector) : (double)largest_f32(n, vector);
    if (largest == 0 || !isfinite(largest)) return largest;
    int exponent;
    frexp(largest, &exponent);
    exponent = exponent < -1000 ? -1000 : exponent > 1000 ? 1000 : exponent;
    const double scale = ldexp(1, -exponent);
    double sums[FL_SQUARES_LANES] = {0};
    if (is_double) add_squares_f64(n, vector, scale, sums);
    else add_squares_f32(n, vector, scale, sums);
    for (ptrdiff_t half = FL_SQUARES_LANES / 2; half > 0; half /= 2)
        for (ptrdiff_t i = 0; i < half; i++) sums[i] += sums[half + i];
    return sqrt(sums[0]) / scale;
}

void fl_adam_step(const fl_adam *adam) {
    if (adam->dtype == FL_FLOAT64) adam_f64(adam);
    else adam_f32(adam);
}
