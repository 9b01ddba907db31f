/* The time loop: a stack of layers run over some steps, alone or as one thread's share. What
 * fl_forward and streams are made of.
 */
#ifndef FL_RUN_H
#define FL_RUN_H

#include <stddef.h>

#include "fastlstm.h"
#include "model.h"
#include "rows.h"
#include "threads.h"

/* What a run covers: T >= 0 steps of B >= 1 sequences. x in (T, B, I); y out (T, B, D*P), data NULL
 * where it is not wanted, either placed (rows.h) if sequences have different lengths; h, c the
 * state, in and out: rows (B, P) and (B, H) of index l*D + d begin at index times their stride, in
 * reals. tape: out, for each index the records (T, B, R) of its steps. The masks are fl_masks';
 * recurrent (B, P) is one row of time. */
typedef struct fl_span {
    ptrdiff_t T, B;
    fl_ragged ragged;
    fl_rows x, y;
    char *h, *c;
    ptrdiff_t h_stride, c_stride;
    fl_stack tape;
    fl_stack recurrent, between, zoneout_h, zoneout_c;
} fl_span;

/* Sets the masks of a span whose T, B and ragged are set. masks: NULL for none. */
fl_status fl_span_set_masks(fl_span *span, const fl_model *model, const fl_masks *masks);

/* Moves the start of all that a span covers by t steps and b sequences; its states stay. */
void fl_span_move(fl_span *span, ptrdiff_t t, ptrdiff_t b, size_t real);

/* Scratch of one direction: z of a chunk of time (chunk, B, panels, G, V), or of those of two lanes
 * (side_by_side.h); without gaps where sequences have different lengths, whose inputs (input_rows,
 * I_l) it then has, too; and what a variant needs between its cells and the next step: h~ (B, H),
 * masked h (B, P); with layer normalisation c~ (B, H), U h (B, panels, G, V) and what is normalised
 * of some rows (FL_NORM_ROWS, 4*H). */
typedef struct fl_direction_scratch {
    char *z, *inputs, *cells, *masked, *candidates, *recurrent, *normal;
    ptrdiff_t input_rows;
} fl_direction_scratch;

/* Scratch of a run. */
typedef struct fl_scratch {
    fl_direction_scratch directions[2]; /* the same memory where one runs at a time */
    char *between[2];                   /* (T or chunk, B, D*P): what layers hand on, by turns */
    char *last;                         /* (2, B, D*P): y of even and odd steps, if not wanted */
    ptrdiff_t chunk;                    /* steps */
    char *memory;                       /* all of it */
} fl_scratch;

/* Allocates scratch for runs of up to T >= 1 steps of up to B >= 1 sequences; any number of runs,
 * one after the other, may use it. Nothing to free on error. */
fl_status fl_scratch_create(fl_scratch *made, const fl_model *model, ptrdiff_t T, ptrdiff_t B,
                            const ptrdiff_t *starts, int directions_at_once);
void fl_scratch_destroy(fl_scratch *scratch);

enum { FL_ALL_DIRECTIONS = -1 };

/* One thread's part of a run that several threads do together, over the same span and scratch. */
typedef struct fl_share {
    ptrdiff_t index, count; /* this thread's units: the index-th part of count */
    int direction;          /* 0, 1 or FL_ALL_DIRECTIONS */
    fl_barrier *units;      /* of the threads that share a direction's units; NULL if count is 1 */
    fl_barrier *everyone;   /* of all threads, where directions are shared out; else NULL */
    fl_stop *stop;          /* of a call that may be given up, or NULL */
    int thread;             /* of the call, 0 for the calling one */
} fl_share;

/* All of a run, by one thread. */
static inline fl_share fl_share_all(fl_stop *stop, int thread) {
    return (fl_share){.count = 1, .direction = FL_ALL_DIRECTIONS, .stop = stop, .thread = thread};
}

/* Runs all layers over a span, without allocating. Returns early when the call is given up. The
 * caller has set the floating-point environment (platform.h). */
void fl_span_run(const fl_span *span, const fl_model *model, const fl_scratch *scratch,
                 const fl_share *share);

#endif
