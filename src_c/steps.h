/* A direction of a layer on its way through time, and those of its steps that are more than one
 * kernel: of variants, of quantised models, and with a mask on h. */
#ifndef FL_STEPS_H
#define FL_STEPS_H

#include <stddef.h>

#include "kernels/kernels.h"
#include "memory.h"
#include "model.h"
#include "rows.h"
#include "run.h"
#include "scratch.h"
#include "threads.h"

/* One direction of one layer over some steps. Step s of its walk is time s, or T - 1 - s. */
typedef struct fl_walk {
    ptrdiff_t T, B;
    int reverse;
    fl_ragged ragged;
    fl_rows x, y;                            /* in (T, B, I_l), out (T, B, P) */
    fl_rows placed;                          /* where y goes from there, or data NULL */
    fl_rows tape;                            /* out (T, B, R); data NULL for none */
    char *h, *c;                             /* (B, P), (B, H) contiguous, the state, in and out */
    fl_rows recurrent, zoneout_h, zoneout_c; /* masks; data NULL for none */
    const fl_direction_scratch *scratch;
} fl_walk;

static inline ptrdiff_t fl_walk_time(const fl_walk *walk, ptrdiff_t s) {
    return walk->reverse ? walk->T - 1 - s : s;
}

/* What the layer normalisation of some rows works on: `part` 0 for W x, 1 for U h, 2 for c~, of the
 * rows at time t from sequence b on. */
static inline fl_norm fl_walk_norm(const fl_model *model, const fl_direction *direction,
                                   const fl_walk *walk, int part, ptrdiff_t t, ptrdiff_t b,
                                   ptrdiff_t rows) {
    const ptrdiff_t real = (ptrdiff_t)model->kernels->real_bytes, H = model->config.hidden_size;
    const ptrdiff_t gates = fl_config_gates(&model->config) * H;
    const char *norm = direction->norm;
    fl_norm of = {.config = &model->config, .rows = rows, .z_stride = model->z_row};
    of.scale = norm + part * gates * real;
    of.normal = walk->scratch->normal;
    if (part == 0) of.shift = norm + fl_config_norm_size(&model->config) * real; /* b */
    if (part == 2) of.shift = norm + (2 * gates + H) * real;
    if (walk->tape.data) {
        char *record = fl_rows_at(walk->tape, t, b, (size_t)real);
        of.normal = record + (5 * H + model->output_size + part * gates) * real;
        of.factors = record + (model->record_size - 3 + part) * real;
        of.normal_stride = model->record_size;
    }
    return of;
}

/* Those of a direction's threads that have not left the call, see fl_late. */
static inline ptrdiff_t fl_share_threads(const fl_share *share) {
    return share->count > 1 ? fl_atomic_load(&share->units->size) : share->count;
}

/* Waits for the threads that share a direction's units; returns whether this one is to do no more:
 * the call is given up, or it leaves. Each of those that stay may have more of the units then. */
static inline int fl_share_wait(fl_share *own) {
    if (own->count == 1) return 0;
    if (fl_barrier_wait(own->units)) return 1;
    own->count = fl_share_threads(own);
    return own->index >= own->count;
}

/* Whether whole rows that are not worth sharing are this thread's to do. */
static inline int fl_share_has_rows(const fl_share *share) { return share->index == 0; }

/* Columns of rows that a thread computes: `count` from `first` on, some panels of
 * fl_kernels.multiply. */
typedef struct fl_columns {
    fl_range panels;
    ptrdiff_t first, count;
} fl_columns;

/* Its part of columns 0..n-1. */
static inline fl_columns fl_columns_part(const fl_model *model, ptrdiff_t n,
                                         const fl_share *share) {
    const ptrdiff_t width = 4 * model->kernels->lanes, panels = (n - 1) / width + 1;
    const fl_range own = {panels * share->index / share->count,
                          panels * (share->index + 1) / share->count};
    const ptrdiff_t first = fl_size_min(own.first * width, n);
    return (fl_columns){own, first, fl_size_min(own.end * width, n) - first};
}

/* Step s of rows first..end-1, with h of the step before in `h`, z of the first row of all in z; to
 * be called where model->is_general, or with a mask on h. Returns whether the thread is to do no
 * more. */
int fl_step_general(const fl_model *model, const fl_direction *direction, const fl_walk *walk,
                    ptrdiff_t s, ptrdiff_t first, ptrdiff_t end, const char *h, ptrdiff_t h_stride,
                    char *z, fl_share *share);

#endif
