/* Steps back in time of one direction of one layer, and what the sums after them need (backward.c
 * has those, and the passes over layers and directions).
 */
#ifndef FL_STEPS_BACK_H
#define FL_STEPS_BACK_H

#include <stddef.h>

#include "fastlstm.h"
#include "kernels/kernels.h"
#include "model.h"
#include "rows.h"
#include "run.h"
#include "share.h"
#include "threads.h"

/* One call, as its threads see it. Pointers may be NULL where fastlstm.h says so. */
typedef struct fl_back {
    const fl_model *model;
    const char *parameters;
    ptrdiff_t T, B;
    const ptrdiff_t *starts;
    fl_rows x, dy, dx;
    const char *h_0, *c_0, *tape, *dh_n, *dc_n;
    char *dh_0, *dc_0, *dparameters;
    int accumulate;
    fl_span masks; /* its masks alone */

    fl_plan plan; /* who takes the steps of a chunk; the products after them are for all threads */
    fl_barrier barrier;
    fl_stop *stop; /* or NULL */

    /* Scratch for chunks of up to `rows` rows (t, b): d (rows, G*H) is dG, followed in a row by the
     * terms of the peepholes' gradients; a (rows, I_l + P) is [x | h before]; sums (G*H, I_l + P)
     * is d[W | U]. Their rows have strides that fit whole lines. */
    ptrdiff_t rows, d_stride, a_stride;
    char *memory, *d, *a, *dh, *dc, *sums, *bias_sums, *u, *w, *between[2];
    /* Of variants: e (rows, P) is the gradient of W_hr h~, kept (B, P) what zoneout hands past it;
     * cells (rows, H) is h~, dcells (B, H) its gradient, hr W_hr and hr_sums its gradient (P, H).
     * Rows of cells and hr_sums are cells_stride reals apart. */
    ptrdiff_t cells_stride;
    char *e, *kept, *cells, *dcells, *hr, *hr_sums;
    char *t, *dc_normal; /* (B, H), fl_step_back's, of layer normalisation */
} fl_back;

/* One direction of one layer. */
typedef struct fl_pass {
    ptrdiff_t l, d, index, I;
    ptrdiff_t h_at; /* column of a and of sums at which h and dU begin */
    /* (G*H, I), (G*H, P), (P, H), (2 or 3, H), scales and shifts; NULL for none. */
    const char *w, *u, *hr, *peepholes, *norm;
    char *dw, *du, *db, *dhr, *dothers; /* their gradients, or NULL */
    fl_rows tape;                       /* (T, B, R) */
    fl_rows dy, dx;                     /* data NULL for none */
    fl_rows recurrent, zoneout_h, zoneout_c;
    int dx_accumulate, reverse;
} fl_pass;

/* Whether thread `index` has left the call, see fl_late. */
static inline int fl_back_has_left(const fl_back *call, int index) {
    return index >= fl_atomic_load(&call->barrier.size);
}

/* Thread `index`'s part of 0..n-1. */
static inline fl_range fl_back_part(ptrdiff_t n, const fl_back *call, int index) {
    const ptrdiff_t threads = fl_atomic_load(&call->barrier.size);
    return (fl_range){n * index / threads, n * (index + 1) / threads};
}

/* Rows of the times before t. */
static inline ptrdiff_t fl_back_rows_before(const fl_back *call, ptrdiff_t t) {
    return call->starts ? call->starts[t] : t * call->B;
}

/* Whether the steps of a call are fl_back_step_variant's. */
static inline int fl_back_is_variant(const fl_back *call) {
    return call->model->is_variant || call->masks.recurrent.rows.data != NULL;
}

/* The records of an index, l*D + d. */
static inline fl_rows fl_back_tape(const fl_back *call, ptrdiff_t index) {
    const ptrdiff_t record = call->model->record_size;
    return fl_stack_at(fl_stack_of(call->tape, call->T, call->B, record, call->starts), index,
                       call->model->kernels->real_bytes);
}

/* Columns of d: those of dG, and the terms of the peepholes. */
static inline ptrdiff_t fl_back_columns(const fl_config *config) {
    return fl_config_gate_columns(config) + fl_config_peepholes(config) * config->hidden_size +
           fl_config_norm_size(config);
}

/* Where in a row of d the gradients of W x and U h begin: they are dG, but for layer normalisation,
 * which has them after all else. */
static inline ptrdiff_t fl_back_input_column(const fl_config *config) {
    return config->layer_norm ? fl_back_columns(config) : 0;
}
static inline ptrdiff_t fl_back_recurrent_column(const fl_config *config) {
    return config->layer_norm ? fl_back_columns(config) + fl_config_gate_columns(config) : 0;
}

/* Row (t, b) of an array of rows that begins with those of time `first`. */
static inline char *fl_back_row(const fl_back *call, char *data, ptrdiff_t stride, ptrdiff_t first,
                                ptrdiff_t t, ptrdiff_t b) {
    const ptrdiff_t row = fl_back_rows_before(call, t) - fl_back_rows_before(call, first) + b;
    return data + row * stride * (ptrdiff_t)call->model->kernels->real_bytes;
}

/* The mask between a layer and the one above; data NULL for none. */
fl_rows fl_back_mask_above(const fl_back *call, ptrdiff_t l);

/* An array of rows for some times, of which the first is its own, times a mask. */
void fl_back_mask_times(const fl_back *call, fl_rows mask, fl_range times, fl_range sequences,
                        ptrdiff_t width, char *data, ptrdiff_t stride);

/* Fills a for a chunk: the input or the hidden states of the layer below, of sequences rows.first
 * to rows.end-1; and for variants the hidden states before each step. */
void fl_back_fill_inputs(const fl_back *call, const fl_pass *pass, fl_range times, fl_range rows);
void fl_back_fill_hidden(const fl_back *call, const fl_pass *pass, fl_range times, fl_range rows);

/* One time t of a chunk, whose times are taken from the end back, or of a reverse pass from the
 * first on; for some sequences. Of the usual cell, for thread `index`'s units if these are shared,
 * filling the hidden states before; of a variant, or with a mask on h, for all units. */
void fl_back_step_usual(fl_back *call, const fl_pass *pass, fl_range times, ptrdiff_t t,
                        fl_range rows, int index);
void fl_back_step_variant(const fl_back *call, const fl_pass *pass, fl_range times, ptrdiff_t t,
                          fl_range rows);

#endif
