/* Running a stack over time, alone or as one thread's share: what fl_forward and streams are made
 * of.
 */
#ifndef FL_FORWARD_H
#define FL_FORWARD_H

#include <stddef.h>

#include "fastlstm.h"
#include "threads.h"

/* Rows (T, B) of reals in someone's memory: element (t, b, k) is data[t*stride_t + b*stride_b + k],
 * in units of `real` bytes. Or packed, with `starts`: the rows of step t, as many as there are
 * sequences that long, follow those of step t - 1, and element (t, b, k) is
 * data[(starts[t] + b)*stride_b + k]. */
typedef struct fl_rows {
    char *data;
    ptrdiff_t stride_t, stride_b;
    const ptrdiff_t *starts;
} fl_rows;

static inline char *fl_row_at(fl_rows view, ptrdiff_t t, ptrdiff_t b, size_t real) {
    const ptrdiff_t offset =
        view.starts ? (view.starts[t] + b) * view.stride_b : t * view.stride_t + b * view.stride_b;
    return view.data + offset * (ptrdiff_t)real;
}

/* The same rows from step t and sequence b on. */
static inline fl_rows fl_rows_from(fl_rows view, ptrdiff_t t, ptrdiff_t b, size_t real) {
    if (view.starts) {
        view.data += b * view.stride_b * (ptrdiff_t)real;
        view.starts += t;
    } else {
        view.data = fl_row_at(view, t, b, real);
    }
    return view;
}

/* Sequences of different lengths, the longest first: starts (T + 1) of packed rows, of which a run
 * covers sequences `first` on. starts NULL: all are T steps long. */
typedef struct fl_ragged {
    const ptrdiff_t *starts;
    ptrdiff_t first;
} fl_ragged;

/* Whether starts (T + 1), or NULL, begins at 0 and its steps have B sequences at most and no more
 * than the step before. */
int fl_starts_are_valid(const ptrdiff_t *starts, ptrdiff_t T, ptrdiff_t B);

/* Where part `index` of `count` begins, when B sequences are shared out so that all parts take
 * about as many steps; index = count: where the last ends. */
ptrdiff_t fl_first_sequence(fl_ragged ragged, ptrdiff_t T, ptrdiff_t B, ptrdiff_t index,
                            ptrdiff_t count);

/* How many of B sequences have a step t. */
static inline ptrdiff_t fl_count_at(fl_ragged ragged, ptrdiff_t t, ptrdiff_t B) {
    if (ragged.starts == NULL) return B;
    const ptrdiff_t count = ragged.starts[t + 1] - ragged.starts[t] - ragged.first;
    return count < 0 ? 0 : count < B ? count : B;
}

/* What a run covers: T >= 0 steps of B >= 1 sequences. x in (T, B, I); y out (T, B, D*H); h, c the
 * state, in and out: rows (B, H) of index l*D + d begin at index * state_stride reals. tape: NULL,
 * or out: for each index the records (T, B, 5, H) of its steps. */
typedef struct fl_span {
    ptrdiff_t T, B;
    fl_ragged ragged;
    fl_rows x, y;
    char *h, *c;
    ptrdiff_t state_stride;
    fl_rows tape;
    ptrdiff_t tape_stride; /* reals from an index to the next */
} fl_span;

/* Scratch of a run: z of one chunk, one for each direction that runs at once, and two buffers
 * between layers. */
typedef struct fl_scratch {
    char *z[2], *between[2];
    ptrdiff_t chunk; /* steps */
} fl_scratch;

/* Allocates scratch for runs of up to T >= 1 steps of up to B >= 1 sequences; any number of runs,
 * one after the other, may use it. Nothing to free on error. */
fl_status fl_scratch_create(const fl_model *model, ptrdiff_t T, ptrdiff_t B,
                            const ptrdiff_t *starts, int directions_at_once, fl_scratch *made);
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
