/* A linear layer on the outputs of an LSTM. Private: no part of the C API. */
#ifndef FL_LINEAR_H
#define FL_LINEAR_H

#include <stddef.h>

#include "fastlstm.h"

/* z (rows, N) = x (rows, K) @ weight (N, K)^T + bias (N), all contiguous; z may not overlap x.
 *
 * A sum is one chain of fused multiply-adds from zero over k = 0..K-1, and the bias is added to it:
 * the bits of a row depend on that row alone, and are the same on every instruction set. */
typedef struct fl_linear {
    fl_dtype dtype;
    ptrdiff_t rows, K, N;
    const void *x, *weight, *bias; /* in */
    void *z;                       /* out */
} fl_linear;

/* isa: as for fl_model_create. Runs on the calling thread; nothing is written on error. */
fl_status fl_linear_apply(const fl_linear *linear, const char *isa);

#endif
