/* Vectors of parameters: norms, and steps of Adam. Private: no part of the C API. */
#ifndef FL_VECTORS_H
#define FL_VECTORS_H

#include <stddef.h>

#include "fastlstm.h"

enum { FL_SQUARES_LANES = 4096 /* partial sums: a power of two; another one makes other bits */ };

/* The Euclidean norm of vector (n): its largest magnitude if that is 0, infinite or NaN.
 *
 * Number i, times a power of two that takes the squares away from both ends of the range, is
 * squared and added to sum i modulo FL_SQUARES_LANES, all in float64; sums are added in halves. */
double fl_norm(fl_dtype dtype, ptrdiff_t n, const void *vector);

/* A step of Adam on parameters p (n); all vectors contiguous, none may overlap. Every operation is
 * rounded by itself, to dtype:
 *
 *     p *= keep, where it is not 1        g += decay * p, where it is not 0
 *     m += (1 - beta1) * (g - m)          m = g - beta1 * (g - m), where 1 - beta1 >= 1/2
 *     v = beta2 * v + ((1 - beta2) * g) * g
 *     v_max = max(v_max, v), in place of v from here on, where there is one
 *     p += (-rate * m) / (sqrt(v) / correction + eps) */
typedef struct fl_adam {
    fl_dtype dtype;
    ptrdiff_t n;
    const void *g;   /* in */
    void *p, *m, *v; /* in and out */
    void *v_max;     /* in and out, or NULL */
    double beta1, beta2, eps, rate, correction, keep, decay;
} fl_adam;

void fl_adam_step(const fl_adam *adam);

#endif
