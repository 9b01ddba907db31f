/* Running a stack over time, alone or as one thread's share: what fl_forward and streams are made
 * of.
 */
#ifndef FL_FORWARD_H
#define FL_FORWARD_H

#include <stddef.h>

#include "fastlstm.h"
#include "threads.h"

/* Rows (T, B) of reals in someone's memory: element (t, b, k) is data[t*stride_t + b*stride_b + k],
 * in units of `real` bytes. */
typedef struct fl_rows {
    char *data;
    ptrdiff_t stride_t, stride_b;
} fl_rows;

/* The same rows from step t and sequence b on. */
fl_rows fl_rows_from(fl_rows view, ptrdiff_t t, ptrdiff_t b, size_t real);

/* What a run covers: T >= 0 steps of B >= 1 sequences. x in (T, B, I); y out (T, B, D*H); h, c the
 * state, in and out: rows (B, H) of index l*D + d begin at index * state_stride reals. tape: NULL,
 * or out: for each index the records (T, B, 5, H) of its steps in the order that it takes them. */
typedef struct fl_span {
    ptrdiff_t T, B;
    fl_rows x, y;
    char *h, *c;
    ptrdiff_t state_stride;
    char *tape;
    ptrdiff_t tape_stride, tape_stride_t; /* reals from an index, a step, to the next */
} fl_span;

/* Scratch of a run: z of one chunk, one for each direction that runs at once, and two buffers
 * between layers. */
typedef struct fl_scratch {
    char *z[2], *between[2];
    ptrdiff_t chunk; /* steps */
} fl_scratch;

/* Allocates scratch for runs of up to T >= 1 steps of up to B >= 1 sequences; any number of runs,
 * one after the other, may use it. Nothing to free on error. */
fl_status fl_scratch_create(const fl_model *model, ptrdiff_t T, ptrdiff_t B, int directions_at_once,
                            fl_scratch *made);
void fl_scratch_destroy(fl_scratch *scratch);

enum { FL_ALL_DIRECTIONS = -1 };

/* One thread's part of a run that several threads do together, over the same span and scratch. */
typedef struct fl_share {
    ptrdiff_t index, count; /* this thread's units: the index-th part of count */
    int direction;          /* 0, 1 or FL_ALL_DIRECTIONS */
    fl_barrier *units;      /* of the threads that share a direction's units */
    fl_barrier *everyone;   /* of all threads, where directions are shared out */
} fl_share;

/* Runs all layers over a span, without allocating. share: NULL for all of it. The caller has set
 * the floating-point environment (platform.h). */
void fl_run(const fl_model *model, const fl_span *span, const fl_scratch *scratch,
            const fl_share *share);

#endif
