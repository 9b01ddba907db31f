/* What fl_forward and streams share: running a stack over time with scratch of its own. */
#ifndef FL_FORWARD_H
#define FL_FORWARD_H

#include <stddef.h>

#include "fastlstm.h"

/* Rows (T, B) of reals in someone's memory: element (t, b, k) is data[t*stride_t + b*stride_b + k],
 * in units of `real` bytes. */
typedef struct fl_rows {
    char *data;
    ptrdiff_t stride_t, stride_b;
} fl_rows;

/* Scratch of a run: z of one chunk, and two buffers between layers. */
typedef struct fl_scratch {
    char *z, *between[2];
    ptrdiff_t chunk; /* steps */
} fl_scratch;

/* Allocates scratch for runs of up to T >= 1 steps of B >= 1 sequences; any number of runs, one
 * after the other, may use it. Nothing to free on error. */
fl_status fl_scratch_create(const fl_model *model, ptrdiff_t T, ptrdiff_t B, fl_scratch *made);
void fl_scratch_destroy(fl_scratch *scratch);

/* Runs all layers over T >= 0 steps of B sequences, without allocating.
 * x in (T, B, I); y out (T, B, D*H); h, c (L*D, B, H) contiguous, the state, in and out. */
void fl_run(const fl_model *model, ptrdiff_t T, ptrdiff_t B, fl_rows x, fl_rows y, void *h, void *c,
            const fl_scratch *scratch);

#endif
