/* Softmax of the answers of a head. Private: no part of the C API. */
#ifndef FL_SOFTMAX_H
#define FL_SOFTMAX_H

#include <stddef.h>

#include "fastlstm.h"

/* out (rows, N) = scales (rows) * softmax of z (rows, N) along N, all contiguous; none may overlap
 * another. Of each row: largest (rows) the largest number of z, totals (rows) the sum of exp(z -
 * largest), at (rows) the place of the first that is largest; of rows with NaN these say nothing,
 * and out is NaN.
 *
 * The bits of a row depend on that row and its scale alone, and are the same on every instruction
 * set and for any number of threads. */
typedef struct fl_softmax {
    fl_dtype dtype;
    ptrdiff_t rows, N;
    const void *z, *scales;       /* in */
    void *out, *largest, *totals; /* out */
    double *at;                   /* out */
} fl_softmax;

/* isa: as for fl_model_create. Nothing is written on error. */
fl_status fl_softmax_apply(const fl_softmax *softmax, const char *isa);

#endif
