/* A linear layer on the outputs of an LSTM, and its gradient. Private: no part of the C API. */
#ifndef FL_LINEAR_H
#define FL_LINEAR_H

#include <stddef.h>

#include "fastlstm.h"

/* z (rows, N) = x (rows, K) @ weight (N, K)^T + bias (N), all contiguous; z may not overlap x.
 *
 * A sum is one chain of fused multiply-adds from zero over k = 0..K-1, and the bias is added to it:
 * the bits of a row depend on that row alone, and are the same on every instruction set and for any
 * number of threads. */
typedef struct fl_linear {
    fl_dtype dtype;
    ptrdiff_t rows, K, N;
    const void *x, *weight, *bias; /* in */
    void *z;                       /* out */
} fl_linear;

/* isa: as for fl_model_create. Nothing is written on error. */
fl_status fl_linear_apply(const fl_linear *linear, const char *isa);

/* Of the gradient dz (rows, N) by z: dweight (N, K) = dz^T @ x, dbias (N) the sums of its columns,
 * and dx (rows, K) = dz @ weight, all contiguous. What is written may not overlap the rest.
 *
 * A sum over rows is cut into blocks of 256 rows, one over n into blocks of 1024: each is one chain
 * of fused multiply-adds from zero (of additions for dbias), and they are added up in order. */
typedef struct fl_linear_gradient {
    fl_dtype dtype;
    ptrdiff_t rows, K, N;
    const void *dz, *x, *weight; /* in */
    void *dweight, *dbias, *dx;  /* out */
} fl_linear_gradient;

fl_status fl_linear_backward(const fl_linear_gradient *gradient, const char *isa);

#endif
