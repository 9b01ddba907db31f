/* Running a stack over time, alone or as one thread's share: what fl_forward and streams are made
 * of.
 */
#ifndef FL_FORWARD_H
#define FL_FORWARD_H

#include <stddef.h>

#include "fastlstm.h"
#include "threads.h"

/* Rows (T, B) of reals in memory: element (t, b, k) is data[t*stride_t + b*stride_b + k],
 * in units of `real` bytes. Or packed, with `starts`: the rows of step t, as many as there are
 * sequences that long, follow those of step t - 1, and element (t, b, k) is
 * data[(starts[t] + b)*stride_b + k]. */
typedef struct fl_rows {
    char *data;
    ptrdiff_t stride_t, stride_b;
    const ptrdiff_t *starts;
    int alternate; /* only two times are kept: that of t is t % 2 */
} fl_rows;

static inline char *fl_row_at(fl_rows view, ptrdiff_t t, ptrdiff_t b, size_t real) {
    if (view.alternate) t &= 1;
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

/* Rows (T, B) for each of several indices; data may be NULL. */
typedef struct fl_stack {
    fl_rows rows;     /* of index 0 */
    ptrdiff_t stride; /* reals from an index to the next */
} fl_stack;

static inline fl_rows fl_stack_at(fl_stack stack, ptrdiff_t index, size_t real) {
    if (stack.rows.data) stack.rows.data += index * stack.stride * (ptrdiff_t)real;
    return stack.rows;
}

/* What a run covers: T >= 0 steps of B >= 1 sequences. x in (T, B, I); y out (T, B, D*P), data NULL
 * where it is not wanted; h, c the state, in and out: rows (B, P) and (B, H) of index l*D + d begin
 * at index times their stride, in reals. tape: out, for each index the records (T, B, R) of its
 * steps. The masks are fl_masks'; recurrent (B, P) is one row of time. */
typedef struct fl_span {
    ptrdiff_t T, B;
    fl_ragged ragged;
    fl_rows x, y;
    char *h, *c;
    ptrdiff_t h_stride, c_stride;
    fl_stack tape;
    fl_stack recurrent, between, zoneout_h, zoneout_c;
} fl_span;

/* Scratch of a run: z of one chunk, one for each direction that runs at once, two buffers between
 * layers, and what a variant needs between its cells and the next step. */
typedef struct fl_scratch {
    char *z[2], *between[2];
    char *last; /* (2, B, D*P): y of even and odd steps, where y is not wanted */
    /* For each direction at once: h~ (B, H), masked h (B, P); with layer normalisation c~ (B, H), U
     * h (B, panels, G, V) and what is normalised of a row (G*H). */
    char *cells[2], *masked[2], *candidates[2], *recurrent[2], *normal[2];
    ptrdiff_t chunk; /* steps */
} fl_scratch;

/* Allocates scratch for runs of up to T >= 1 steps of up to B >= 1 sequences; any number of runs,
 * one after the other, may use it. Nothing to free on error. */
fl_status fl_scratch_create(const fl_model *model, ptrdiff_t T, ptrdiff_t B,
                            const ptrdiff_t *starts, int directions_at_once, fl_scratch *made);
void fl_scratch_destroy(fl_scratch *scratch);

/* Sets the masks of a span whose T, B and ragged are set. masks: NULL for none. */
fl_status fl_set_masks(const fl_model *model, const fl_masks *masks, fl_span *span);

/* Moves the start of all that a span covers by t steps and b sequences; its states stay. */
void fl_span_move(fl_span *span, ptrdiff_t t, ptrdiff_t b, size_t real);

enum { FL_ALL_DIRECTIONS = -1 };

/* One thread's part of a run that several threads do together, over the same span and scratch. */
typedef struct fl_share {
    ptrdiff_t index, count; /* this thread's units: the index-th part of count */
    int direction;          /* 0, 1 or FL_ALL_DIRECTIONS */
    fl_barrier *units;      /* of the threads that share a direction's units */
    fl_barrier *everyone;   /* of all threads, where directions are shared out */
    fl_stop *stop;          /* of a call that may be given up, or NULL */
    int thread;             /* of the call, 0 for the calling one */
} fl_share;

/* Runs all layers over a span, without allocating. share: NULL for all of it. Returns early when
 * the call is given up. The caller has set the floating-point environment (platform.h). */
void fl_run(const fl_model *model, const fl_span *span, const fl_scratch *scratch,
            const fl_share *share);

#endif
