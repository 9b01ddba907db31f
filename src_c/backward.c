/* fl_backward: backpropagation through time.
 *
 * From the last layer to the first, for each direction, in chunks of time from its last step back:
 *
 *   for each time t:  dG_t, dc = cell_backward(record t, dy_t + dh, dc)      dh = dG_t @ U
 *   then, while dG and [x | h before] of the chunk are warm, in blocks of SUM_ROWS rows:
 *                     d[W | U] += dG^T @ [x | h before]     db += dG     dx = dG @ W
 *
 * A variant has steps of its own, take_variant_step, and with a projection dW_hr += dh^T @ h~.
 *
 * "Before" and "after" are meant in the order in which the direction takes its steps. The hidden
 * states are computed once more from the tape, o * tanh(c), so that nothing depends on y, which the
 * caller may have changed. Sequences of different lengths are sorted, see forward.c; dh and dc of
 * those that have no step yet, or no longer, stay as they are.
 *
 * How threads share the work changes no bit: rows and columns do not meet in any sum but those over
 * rows, and these are cut into blocks that depend on sizes alone.
 */
#include <stdint.h>
#include <string.h>

#include "forward.h"
#include "kernels.h"
#include "model.h"
#include "platform.h"
#include "threads.h"

enum {
    SUM_ROWS = 256,           /* rows of a block of sums; a chunk has at least so many */
    CHUNK_BYTES = 512 * 1024, /* of dG in a chunk, about */
    THREAD_WORK = 1 << 21,    /* multiply-adds worth waking a thread for */
    STEP_WORK = 1 << 15,      /* multiply-adds of a step worth a barrier, for each thread */
    NORM_ALIGN = 16,          /* reals: any V, so that dW and dU do not share a vector */
    ROWS_PER_THREAD = 4       /* sequences that use a core's arithmetic about as well as many do */
};

/* Who takes the steps of a chunk; the products after them are always shared. */
typedef enum sharing { BY_ROWS, BY_UNITS, BY_ONE } sharing;

/* One call, as its threads see it. Pointers may be NULL where fastlstm.h says so. */
typedef struct call {
    const fl_model *model;
    const char *parameters;
    ptrdiff_t T, B;
    const ptrdiff_t *starts;
    fl_rows x, dy, dx;
    const char *h_0, *c_0, *tape, *dh_n, *dc_n;
    char *dh_0, *dc_0, *dparameters;
    int accumulate;
    fl_span masks; /* its masks alone */

    sharing sharing;
    int threads;
    fl_barrier barrier;

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
} call;

/* One direction of one layer. */
typedef struct pass {
    ptrdiff_t l, d, index, I;
    ptrdiff_t h_at; /* column of a and of sums at which h and dU begin */
    /* (G*H, I), (G*H, P), (P, H), (2 or 3, H), scales and shifts; NULL for none. */
    const char *w, *u, *hr, *peepholes, *norm;
    char *dw, *du, *db, *dhr, *dothers; /* their gradients, or NULL */
    fl_rows tape;                       /* (T, B, R) */
    fl_rows dy, dx;                     /* data NULL for none */
    fl_rows recurrent, zoneout_h, zoneout_c;
    int dx_accumulate;
} pass;

/* Times first..end-1, taken from the end back, or with d = 1 from the first on. */
typedef struct range {
    ptrdiff_t first, end;
} range;

static ptrdiff_t smaller(ptrdiff_t a, ptrdiff_t b) { return a < b ? a : b; }
static ptrdiff_t larger(ptrdiff_t a, ptrdiff_t b) { return a > b ? a : b; }

static char *row_or_null(fl_rows view, ptrdiff_t t, ptrdiff_t b, size_t real) {
    return view.data ? fl_row_at(view, t, b, real) : NULL;
}

/* Thread `index`'s part of 0..n-1. */
static range part_of(ptrdiff_t n, const call *call, int index) {
    return (range){n * index / call->threads, n * (index + 1) / call->threads};
}

/* Rows of the times before t. */
static ptrdiff_t rows_before(const call *call, ptrdiff_t t) {
    return call->starts ? call->starts[t] : t * call->B;
}

static void wait_for_all(call *call) {
    if (call->threads > 1) fl_barrier_wait(&call->barrier);
}

/* Whether the steps of a call are take_variant_step's. */
static int is_variant(const call *call) {
    return call->model->is_variant || call->masks.recurrent.rows.data != NULL;
}

/* The records of an index, l*D + d. */
static fl_rows tape_of(const call *call, ptrdiff_t index) {
    const ptrdiff_t record = call->model->record_size;
    const ptrdiff_t bytes = record * (ptrdiff_t)call->model->kernels->real_bytes;
    char *data = (char *)(uintptr_t)call->tape + index * rows_before(call, call->T) * bytes;
    return (fl_rows){data, call->B * record, record, call->starts, 0};
}

/* G*H, the columns of dG; and those of d, with the terms of the peepholes. */
static ptrdiff_t gate_columns(const fl_config *config) {
    return fl_gates(config) * config->hidden_size;
}
static ptrdiff_t d_columns(const fl_config *config) {
    return gate_columns(config) + fl_peepholes(config) * config->hidden_size + fl_norm_size(config);
}

/* Where in a row of d the gradients of W x and U h begin: they are dG, but for layer normalisation,
 * which has them after all else. */
static ptrdiff_t input_column(const fl_config *config) {
    return config->layer_norm ? d_columns(config) : 0;
}
static ptrdiff_t recurrent_column(const fl_config *config) {
    return config->layer_norm ? d_columns(config) + gate_columns(config) : 0;
}

/* Where the parameters of layer l and direction d begin, in reals. */
static ptrdiff_t parameters_before(const fl_config *config, ptrdiff_t l, ptrdiff_t d) {
    const ptrdiff_t H = config->hidden_size, D = config->num_directions;
    const ptrdiff_t P = fl_output_size(config), others = P + (config->has_bias ? 2 : 0);
    const ptrdiff_t own = (config->proj_size + fl_peepholes(config)) * H + fl_norm_size(config);
    const ptrdiff_t first = gate_columns(config) * (config->input_size + others) + own;
    const ptrdiff_t above = gate_columns(config) * (D * P + others) + own;
    return l == 0 ? d * first : D * first + ((l - 1) * D + d) * above;
}

static pass pass_of(const call *call, ptrdiff_t l, ptrdiff_t d) {
    const fl_config *config = &call->model->config;
    const size_t real = call->model->kernels->real_bytes;
    const ptrdiff_t H = config->hidden_size, D = config->num_directions, L = config->num_layers;
    const ptrdiff_t P = call->model->output_size, row = D * P, step = call->B * row;
    const ptrdiff_t gates = gate_columns(config);
    const fl_rows below = {l > 0 ? call->between[(l - 1) % 2] : NULL, step, row, call->starts, 0};
    const fl_rows above = {l < L - 1 ? call->between[l % 2] : NULL, step, row, call->starts, 0};
    pass pass = {.l = l, .d = d, .index = l * D + d, .I = l == 0 ? config->input_size : D * P};

    pass.h_at = config->layer_norm ? (pass.I + NORM_ALIGN - 1) / NORM_ALIGN * NORM_ALIGN : pass.I;

    /* Where W, U, the biases, W_hr, the peepholes and the scales begin. */
    const ptrdiff_t counts[6] = {gates * pass.I,
                                 gates * P,
                                 config->has_bias ? 2 * gates : 0,
                                 config->proj_size * H,
                                 fl_peepholes(config) * H,
                                 fl_norm_size(config)};
    const char *from[6];
    char *to[6];
    ptrdiff_t at = parameters_before(config, l, d) * (ptrdiff_t)real;
    for (int i = 0; i < 6; at += counts[i++] * (ptrdiff_t)real) {
        from[i] = counts[i] ? call->parameters + at : NULL;
        to[i] = counts[i] && call->dparameters ? call->dparameters + at : NULL;
    }
    pass.w = from[0];
    pass.u = from[1];
    pass.hr = from[3];
    pass.peepholes = from[4];
    pass.norm = from[5];
    pass.dw = to[0];
    pass.du = to[1];
    pass.db = to[2];
    pass.dhr = to[3];
    pass.dothers = to[4] ? to[4] : to[5]; /* one after the other */

    pass.tape = tape_of(call, pass.index);
    pass.dx = l == 0 ? call->dx : below;
    pass.dy = l == L - 1 ? call->dy : above;
    pass.dx_accumulate = d == 1 || (l == 0 && call->accumulate);
    if (pass.dy.data) pass.dy.data += d * P * (ptrdiff_t)real;
    pass.recurrent = fl_stack_at(call->masks.recurrent, pass.index, real);
    pass.zoneout_h = fl_stack_at(call->masks.zoneout_h, pass.index, real);
    pass.zoneout_c = fl_stack_at(call->masks.zoneout_c, pass.index, real);
    return pass;
}

/* The mask between a layer and the one above; data NULL for none. */
static fl_rows mask_above(const call *call, ptrdiff_t l) {
    const int exists = l >= 0 && l < call->model->config.num_layers - 1;
    const fl_stack none = {{0}, 0};
    return fl_stack_at(exists ? call->masks.between : none, l, call->model->kernels->real_bytes);
}

/* Row (t, b) of an array of rows that begins with those of time `first`. */
static char *row_from(const call *call, char *data, ptrdiff_t stride, ptrdiff_t first, ptrdiff_t t,
                      ptrdiff_t b) {
    const ptrdiff_t row = rows_before(call, t) - rows_before(call, first) + b;
    return data + row * stride * (ptrdiff_t)call->model->kernels->real_bytes;
}

/* Such an array for some times, of which the first is its own, times a mask. */
static void mask_times(const call *call, fl_rows mask, range times, range sequences,
                       ptrdiff_t width, char *data, ptrdiff_t stride) {
    const fl_kernels *kernels = call->model->kernels;
    const fl_ragged ragged = {call->starts, sequences.first};
    if (mask.data == NULL) return;
    for (ptrdiff_t t = times.first; t < times.end; t++) {
        char *row = row_from(call, data, stride, times.first, t, sequences.first);
        kernels->mask_rows(fl_count_at(ragged, t, sequences.end - sequences.first), width,
                           fl_row_at(mask, t, sequences.first, kernels->real_bytes), mask.stride_b,
                           row, stride, NULL, 0, row, stride);
    }
}

/* Packs the weights, and sets the running gradients and the sums to where they begin. */
static void begin(call *call, const pass *pass, int index) {
    const fl_kernels *kernels = call->model->kernels;
    const fl_config *config = &call->model->config;
    const ptrdiff_t H = config->hidden_size, P = call->model->output_size, I = pass->I;
    const ptrdiff_t K = gate_columns(config), columns = 4 * kernels->lanes;
    const size_t real = kernels->real_bytes;
    const range u = part_of((P + columns - 1) / columns, call, index);
    kernels->pack_columns(u.first, u.end, K, P, pass->u, P, 1, call->u);
    if (pass->dx.data) {
        const range w = part_of((I + columns - 1) / columns, call, index);
        kernels->pack_columns(w.first, w.end, K, I, pass->w, I, 1, call->w);
    }
    if (pass->hr) {
        const range hr = part_of((H + columns - 1) / columns, call, index);
        kernels->pack_columns(hr.first, hr.end, P, H, pass->hr, H, 1, call->hr);
    }
    if (pass->dw) {
        const range rows = part_of(K, call, index);
        const size_t row = (size_t)call->a_stride * real;
        memset(call->sums + (size_t)rows.first * row, 0, (size_t)(rows.end - rows.first) * row);
        if (index == 0) memset(call->bias_sums, 0, (size_t)d_columns(config) * real);
    }
    if (pass->d == 0) { /* both directions' columns, once */
        const range all = {0, call->T};
        mask_times(call, mask_above(call, pass->l), all, part_of(call->B, call, index),
                   config->num_directions * P, pass->dy.data, config->num_directions * P);
    }
    if (index > 0) return;
    if (pass->dhr) memset(call->hr_sums, 0, (size_t)(P * call->cells_stride) * real);
    const size_t h_bytes = (size_t)(call->B * P) * real, c_bytes = (size_t)(call->B * H) * real;
    if (call->dh_n) memcpy(call->dh, call->dh_n + (size_t)pass->index * h_bytes, h_bytes);
    else memset(call->dh, 0, h_bytes);
    if (call->dc_n) memcpy(call->dc, call->dc_n + (size_t)pass->index * c_bytes, c_bytes);
    else memset(call->dc, 0, c_bytes);
}

/* h (rows, P) of the records of a time, from sequence `first` on. */
static void put_hidden(const call *call, fl_rows tape, ptrdiff_t t, ptrdiff_t first,
                       ptrdiff_t count, char *to) {
    const fl_kernels *kernels = call->model->kernels;
    const ptrdiff_t H = call->model->config.hidden_size;
    if (count <= 0) return;
    const char *records = fl_row_at(tape, t, first, kernels->real_bytes);
    if (call->model->is_variant)
        kernels->put_rows(count, call->model->output_size,
                          records + 5 * H * (ptrdiff_t)kernels->real_bytes, tape.stride_b, to,
                          call->a_stride, 0);
    else kernels->hidden(count, H, records, to, call->a_stride);
}

/* The x half of a for the times of a chunk, of sequences rows.first..rows.end-1: the input, or the
 * hidden states of the layer below. */
static void fill_inputs(const call *call, const pass *pass, range times, range rows) {
    const fl_kernels *kernels = call->model->kernels;
    const size_t real = kernels->real_bytes;
    const ptrdiff_t P = call->model->output_size, D = call->model->config.num_directions;
    const fl_ragged ragged = {call->starts, rows.first};
    for (ptrdiff_t t = times.first; t < times.end; t++) {
        const ptrdiff_t count = fl_count_at(ragged, t, rows.end - rows.first);
        const ptrdiff_t row = rows_before(call, t) - rows_before(call, times.first) + rows.first;
        char *to = call->a + row * call->a_stride * (ptrdiff_t)real;
        if (pass->l == 0) {
            kernels->put_rows(count, pass->I, fl_row_at(call->x, t, rows.first, real),
                              call->x.stride_b, to, call->a_stride, 0);
            continue;
        }
        for (ptrdiff_t d = 0; d < D; d++)
            put_hidden(call, tape_of(call, (pass->l - 1) * D + d), t, rows.first, count,
                       to + d * P * (ptrdiff_t)real);
    }
    mask_times(call, mask_above(call, pass->l - 1), times, rows, D * P, call->a, call->a_stride);
}

/* The hidden states before a time, of `count` sequences from `first` on, where they begin: h_0. */
static void fill_first_hidden(const call *call, const pass *pass, ptrdiff_t first, ptrdiff_t count,
                              char *to) {
    const ptrdiff_t real = (ptrdiff_t)call->model->kernels->real_bytes;
    const ptrdiff_t P = call->model->output_size;
    const char *h_0 = call->h_0;
    if (h_0)
        call->model->kernels->put_rows(count, P, h_0 + (pass->index * call->B + first) * P * real,
                                       P, to, call->a_stride, 0);
    else
        for (ptrdiff_t b = 0; b < count; b++)
            memset(to + b * call->a_stride * real, 0, (size_t)(P * real));
}

/* The time before t in the order of a pass, and how many of the first `count` sequences from
 * `first` on took it. */
static ptrdiff_t time_before(const pass *pass, ptrdiff_t t) { return pass->d == 0 ? t - 1 : t + 1; }
static ptrdiff_t count_before(const call *call, const pass *pass, ptrdiff_t t, ptrdiff_t first,
                              ptrdiff_t count) {
    const ptrdiff_t before = time_before(pass, t);
    const fl_ragged ragged = {call->starts, first};
    return before < 0 || before >= call->T ? 0 : fl_count_at(ragged, before, count);
}

/* The h half of a for a chunk of a variant, times the mask on it. */
static void fill_hidden(const call *call, const pass *pass, range times, range rows) {
    const fl_ragged ragged = {call->starts, rows.first};
    char *h = call->a + pass->h_at * (ptrdiff_t)call->model->kernels->real_bytes;
    for (ptrdiff_t t = times.first; t < times.end; t++) {
        const ptrdiff_t count = fl_count_at(ragged, t, rows.end - rows.first);
        const ptrdiff_t old = count_before(call, pass, t, rows.first, count);
        if (count == 0) continue;
        char *to = row_from(call, h, call->a_stride, times.first, t, rows.first);
        put_hidden(call, pass->tape, time_before(pass, t), rows.first, old, to);
        fill_first_hidden(call, pass, rows.first + old, count - old,
                          to + old * call->a_stride * (ptrdiff_t)call->model->kernels->real_bytes);
    }
    mask_times(call, pass->recurrent, times, rows, call->model->output_size, h, call->a_stride);
}

/* Points a normalisation at `part` of the records, see forward.c: 0 for W x, 1 for U h, 2 for c~.
 */
static void norm_part(const call *call, const pass *pass, int part, const char *records,
                      fl_norm *norm) {
    const ptrdiff_t real = (ptrdiff_t)call->model->kernels->real_bytes;
    const ptrdiff_t H = call->model->config.hidden_size;
    const ptrdiff_t gates = gate_columns(&call->model->config), size = call->model->record_size;
    char *first = (char *)(uintptr_t)records;
    norm->scale = pass->norm + part * gates * real;
    norm->shift = part == 2 ? pass->norm + (2 * gates + H) * real : NULL;
    norm->normal = first + (5 * H + call->model->output_size + part * gates) * real;
    norm->factors = first + (size - 3 + part) * real;
}

/* take_step() of variants, and with a mask on h: whole rows of some sequences. */
static void take_variant_step(const call *call, const pass *pass, range times, ptrdiff_t t,
                              range rows) {
    const fl_model *model = call->model;
    const fl_kernels *kernels = model->kernels;
    const fl_config *config = &model->config;
    const size_t real = kernels->real_bytes;
    const ptrdiff_t H = config->hidden_size, P = model->output_size, columns = 4 * kernels->lanes;
    const ptrdiff_t sequence = rows.first, h_row = P * (ptrdiff_t)real, c_row = H * (ptrdiff_t)real;
    const fl_ragged ragged = {call->starts, sequence};
    const ptrdiff_t count = fl_count_at(ragged, t, rows.end - sequence);
    if (count == 0) return;
    const ptrdiff_t old = count_before(call, pass, t, sequence, count);
    char *e = row_from(call, call->e, P, times.first, t, sequence);
    char *cells = row_from(call, call->cells, call->cells_stride, times.first, t, sequence);
    char *dh = call->dh + sequence * h_row, *kept = call->kept + sequence * h_row;
    char *dh_cells = pass->hr ? call->dcells + sequence * c_row : e;
    char *dG = row_from(call, call->d, call->d_stride, times.first, t, sequence);
    const char *recurrent = row_or_null(pass->recurrent, 0, sequence, real);
    const int zones_out = config->zoneout_h > 0;

    kernels->put_rows(count, P, dh, P, e, P, 0);
    if (pass->dy.data)
        kernels->put_rows(count, P, fl_row_at(pass->dy, t, sequence, real), pass->dy.stride_b, e, P,
                          1);
    if (zones_out) {
        const char *m = row_or_null(pass->zoneout_h, t, sequence, real);
        kernels->mix_rows(count, P, m, P, config->zoneout_h, e, P, NULL, 0, kept, P);
        kernels->mix_rows(count, P, m, P, config->zoneout_h, NULL, 0, e, P, e, P);
    }
    if (pass->hr)
        kernels->multiply(0, (H + columns - 1) / columns, count, P, H, e, P, call->hr, dh_cells, H,
                          0);
    const char *records = fl_row_at(pass->tape, t, sequence, real);
    fl_norm norm = {.config = config, .rows = count, .normal_stride = model->record_size};
    norm.z_stride = call->d_stride;
    if (config->layer_norm) {
        norm_part(call, pass, 2, records, &norm);
        kernels->norm_cell_backward(&norm, records + 3 * c_row, model->record_size, dh_cells,
                                    dG + (d_columns(config) - 2 * H) * (ptrdiff_t)real,
                                    call->t + sequence * c_row, call->dc_normal + sequence * c_row);
    }
    for (ptrdiff_t b = 0, end; b < count; b = end) {
        end = b < old ? old : count;
        fl_step_back step = {.config = config, .rows = end - b};
        step.records = records + b * model->record_size * (ptrdiff_t)real;
        step.record_stride = model->record_size;
        step.c_stride = H;
        if (b < old) {
            const char *before = fl_row_at(pass->tape, time_before(pass, t), sequence + b, real);
            step.c_previous = before + 4 * c_row;
            step.c_stride = model->record_size;
        } else if (call->c_0) {
            step.c_previous = call->c_0 + (pass->index * call->B + sequence + b) * c_row;
        }
        step.peepholes = pass->peepholes;
        step.zoneout_c = row_or_null(pass->zoneout_c, t, sequence + b, real);
        step.dh = dh_cells + b * c_row;
        step.t = config->layer_norm ? call->t + (sequence + b) * c_row : NULL;
        step.dc_normal = call->dc_normal + (sequence + b) * c_row;
        step.dc = call->dc + (sequence + b) * c_row;
        step.d = dG + b * call->d_stride * (ptrdiff_t)real;
        step.d_stride = call->d_stride;
        step.h = pass->dhr ? cells + b * call->cells_stride * (ptrdiff_t)real : NULL;
        step.h_stride = call->cells_stride;
        kernels->variant_backward(0, H, &step);
    }
    for (int part = 0; config->layer_norm && part < 2; part++) {
        const ptrdiff_t terms = d_columns(config) - 2 * H - (2 - part) * gate_columns(config);
        const ptrdiff_t out = part == 0 ? input_column(config) : recurrent_column(config);
        norm_part(call, pass, part, records, &norm);
        kernels->norm_gates_backward(&norm, dG, dG + terms * (ptrdiff_t)real,
                                     dG + out * (ptrdiff_t)real);
    }
    kernels->multiply(0, (P + columns - 1) / columns, count, gate_columns(config), P,
                      dG + recurrent_column(config) * (ptrdiff_t)real, call->d_stride, call->u, dh,
                      P, 0);
    if (recurrent)
        kernels->mask_rows(count, P, recurrent, P, dh, P, zones_out ? kept : NULL, P, dh, P);
    else if (zones_out) kernels->put_rows(count, P, kept, P, dh, P, 1);
}

/* One time of a chunk, for some sequences and some panels of units. */
static void take_step(call *call, const pass *pass, range times, ptrdiff_t t, range rows,
                      range panels, int barrier) {
    const fl_kernels *kernels = call->model->kernels;
    const size_t real = kernels->real_bytes;
    const ptrdiff_t H = call->model->config.hidden_size, columns = 4 * kernels->lanes;
    const ptrdiff_t row_of_H = H * (ptrdiff_t)real, a_row = call->a_stride * (ptrdiff_t)real;
    const range units = {smaller(panels.first * columns, H), smaller(panels.end * columns, H)};
    const fl_ragged ragged = {call->starts, rows.first};
    const ptrdiff_t B = rows.end - rows.first, count = fl_count_at(ragged, t, B);
    const ptrdiff_t direction = pass->d == 0 ? 1 : -1, before = t - direction,
                    after = t + direction;
    /* The first so many have a step before t; so many have one after it in this chunk. */
    const int has_before = before >= 0 && before < call->T;
    const ptrdiff_t with_before = has_before ? smaller(fl_count_at(ragged, before, B), count) : 0;
    const int in_chunk = after >= times.first && after < times.end;
    const ptrdiff_t with_after =
        pass->dw && in_chunk ? smaller(fl_count_at(ragged, after, B), count) : 0;
    const ptrdiff_t base = rows.first - rows_before(call, times.first);
    char *dh = call->dh + rows.first * row_of_H, *dc = call->dc + rows.first * row_of_H;
    char *dG = call->d + (rows_before(call, t) + base) * call->d_stride * (ptrdiff_t)real;
    char *h = call->a + pass->h_at * (ptrdiff_t)real; /* the h half of a */

    for (ptrdiff_t b = 0, end; b < count; b = end) {
        end = b < with_before ? with_before : count;
        if (b < with_after) end = smaller(end, with_after);
        const ptrdiff_t sequence = rows.first + b;
        const char *c_previous = NULL;
        if (b < with_before)
            c_previous = fl_row_at(pass->tape, before, sequence, real) + 4 * row_of_H;
        else if (call->c_0) c_previous = call->c_0 + (pass->index * call->B + sequence) * row_of_H;
        char *h_after = b < with_after ? h + (rows_before(call, after) + base + b) * a_row : NULL;
        kernels->cell_backward(
            units.first, units.end, end - b, H, fl_row_at(pass->tape, t, sequence, real),
            c_previous, b < with_before ? 5 * H : H, row_or_null(pass->dy, t, sequence, real),
            pass->dy.stride_b, dh + b * row_of_H, dc + b * row_of_H,
            dG + b * call->d_stride * (ptrdiff_t)real, call->d_stride, h_after, call->a_stride);
    }
    if (pass->dw && panels.first == 0 &&
        panels.end > 0) { /* the hidden states that no step of the chunk gives */
        char *to = h + (rows_before(call, t) + base) * a_row;
        if (with_before > 0 && (before < times.first || before >= times.end))
            kernels->hidden(with_before, H, fl_row_at(pass->tape, before, rows.first, real), to,
                            call->a_stride);
        fill_first_hidden(call, pass, rows.first + with_before, count - with_before,
                          to + with_before * a_row);
    }
    if (barrier) fl_barrier_wait(&call->barrier); /* a product needs all of dG */
    if (count > 0)
        kernels->multiply(panels.first, panels.end, count, 4 * H, H, dG, call->d_stride, call->u,
                          dh, H, 0);
}

/* dx of a chunk: dG @ W, in as few and as tall products as the strides allow. */
static void input_gradient(const call *call, const pass *pass, range times, int index) {
    const fl_kernels *kernels = call->model->kernels;
    const ptrdiff_t real = (ptrdiff_t)kernels->real_bytes, B = call->B, I = pass->I;
    const ptrdiff_t K = gate_columns(&call->model->config), d_stride = call->d_stride;
    const ptrdiff_t panels = (I + 4 * kernels->lanes - 1) / (4 * kernels->lanes);
    const ptrdiff_t n = times.end - times.first, start = rows_before(call, times.first);
    const char *d = call->d + input_column(&call->model->config) * real;
    const fl_rows dx = pass->dx;
    if (call->starts || B == 1 || dx.stride_t == B * dx.stride_b) { /* all rows evenly spaced */
        const ptrdiff_t stride = B == 1 && !call->starts ? dx.stride_t : dx.stride_b;
        const range rows = part_of(rows_before(call, times.end) - start, call, index);
        if (rows.first < rows.end)
            kernels->multiply(0, panels, rows.end - rows.first, K, I,
                              d + rows.first * d_stride * real, d_stride, call->w,
                              dx.data + (start + rows.first) * stride * real, stride,
                              pass->dx_accumulate);
    } else if (B < n) { /* one product per sequence, over time */
        const range part = part_of(n, call, index);
        for (ptrdiff_t b = 0; b < B && part.first < part.end; b++)
            kernels->multiply(0, panels, part.end - part.first, K, I,
                              d + (part.first * B + b) * d_stride * real, B * d_stride, call->w,
                              fl_row_at(dx, times.first + part.first, b, (size_t)real), dx.stride_t,
                              pass->dx_accumulate);
    } else {
        const range rows = part_of(B, call, index);
        for (ptrdiff_t t = 0; t < n && rows.first < rows.end; t++)
            kernels->multiply(0, panels, rows.end - rows.first, K, I,
                              d + (t * B + rows.first) * d_stride * real, d_stride, call->w,
                              fl_row_at(dx, times.first + t, rows.first, (size_t)real), dx.stride_b,
                              pass->dx_accumulate);
    }
}

/* d[W | U], db, dW_hr and the peepholes' gradients of `rows` rows of a chunk, in blocks. */
static void add_to_sums(const call *call, const pass *pass, ptrdiff_t rows, int index) {
    const fl_kernels *kernels = call->model->kernels;
    const fl_config *config = &call->model->config;
    const ptrdiff_t real = (ptrdiff_t)kernels->real_bytes, P = call->model->output_size;
    const range columns = part_of(gate_columns(config), call, index);
    const range of_rows = part_of(d_columns(config), call, index), hr = part_of(P, call, index);
    for (ptrdiff_t first = 0; first < rows; first += SUM_ROWS) {
        const ptrdiff_t count = smaller(SUM_ROWS, rows - first);
        const char *d = call->d + first * call->d_stride * real;
        const char *a = call->a + first * call->a_stride * real;
        const ptrdiff_t both = config->layer_norm ? pass->I : pass->I + P;
        kernels->add_outer(columns.first, columns.end, count, both, d + input_column(config) * real,
                           call->d_stride, a, call->a_stride, call->sums, call->a_stride);
        if (config->layer_norm)
            kernels->add_outer(columns.first, columns.end, count, P,
                               d + recurrent_column(config) * real, call->d_stride,
                               a + pass->h_at * real, call->a_stride,
                               call->sums + pass->h_at * real, call->a_stride);
        if (pass->db || pass->dothers)
            kernels->add_rows(of_rows.first, of_rows.end, count, d, call->d_stride,
                              call->bias_sums);
        if (pass->dhr)
            kernels->add_outer(hr.first, hr.end, count, config->hidden_size,
                               call->e + first * P * real, P,
                               call->cells + first * call->cells_stride * real, call->cells_stride,
                               call->hr_sums, call->cells_stride);
    }
}

/* Hands the results of a pass over to the caller's arrays. */
static void finish(const call *call, const pass *pass, int index) {
    const fl_kernels *kernels = call->model->kernels;
    const fl_config *config = &call->model->config;
    const ptrdiff_t real = (ptrdiff_t)kernels->real_bytes, H = config->hidden_size, I = pass->I;
    const ptrdiff_t P = call->model->output_size, gates = gate_columns(config);
    const int add = call->accumulate;
    if (pass->dw) {
        const range rows = part_of(gates, call, index);
        const char *from = call->sums + rows.first * call->a_stride * real;
        kernels->put_rows(rows.end - rows.first, I, from, call->a_stride,
                          pass->dw + rows.first * I * real, I, add);
        kernels->put_rows(rows.end - rows.first, P, from + pass->h_at * real, call->a_stride,
                          pass->du + rows.first * P * real, P, add);
    }
    if (index > 0) return;
    const ptrdiff_t h_state = pass->index * call->B * P * real;
    const ptrdiff_t c_state = pass->index * call->B * H * real;
    if (pass->db) /* of b_ih, then of b_hh */
        kernels->put_rows(2, gates, call->bias_sums, 0, pass->db, gates, add);
    if (pass->dhr) kernels->put_rows(P, H, call->hr_sums, call->cells_stride, pass->dhr, H, add);
    if (pass->dothers)
        kernels->put_rows(1, d_columns(config) - gates, call->bias_sums + gates * real, 0,
                          pass->dothers, 0, add);
    if (call->dh_0) kernels->put_rows(call->B, P, call->dh, P, call->dh_0 + h_state, P, add);
    if (call->dc_0) kernels->put_rows(call->B, H, call->dc, H, call->dc_0 + c_state, H, add);
}

/* The next chunk of a pass with `left` times to go: as many as fit. */
static range chunk_of(const call *call, const pass *pass, ptrdiff_t left) {
    range times = {left, left};
    if (pass->d == 1) times.first = times.end = call->T - left;
    for (ptrdiff_t n = 0; n < left; n++) {
        range longer = times;
        if (pass->d == 0) longer.first--;
        else longer.end++;
        if (rows_before(call, longer.end) - rows_before(call, longer.first) > call->rows) break;
        times = longer;
    }
    return times;
}

/* All steps of one direction of one layer, thread `index`'s part. */
static void run_pass(call *call, const pass *pass, int index) {
    const ptrdiff_t P = call->model->output_size, columns = 4 * call->model->kernels->lanes;
    range rows = {0, call->B}, panels = {0, (P + columns - 1) / columns};
    if (call->sharing == BY_ROWS) {
        const fl_ragged ragged = {call->starts, 0};
        rows.first = fl_first_sequence(ragged, call->T, call->B, index, call->threads);
        rows.end = fl_first_sequence(ragged, call->T, call->B, index + 1, call->threads);
    }
    if (call->sharing == BY_UNITS) panels = part_of(panels.end, call, index);

    begin(call, pass, index);
    wait_for_all(call);
    for (ptrdiff_t left = call->T; left > 0;) {
        const range times = chunk_of(call, pass, left);
        const ptrdiff_t count = rows_before(call, times.end) - rows_before(call, times.first);
        left -= times.end - times.first;
        if (pass->dw) fill_inputs(call, pass, times, part_of(call->B, call, index));
        if (pass->dw && is_variant(call))
            fill_hidden(call, pass, times, part_of(call->B, call, index));
        for (ptrdiff_t i = 0; i < times.end - times.first; i++) {
            const ptrdiff_t t = pass->d == 0 ? times.end - 1 - i : times.first + i;
            if (call->sharing == BY_ONE && index > 0) break;
            if (is_variant(call)) take_variant_step(call, pass, times, t, rows);
            else take_step(call, pass, times, t, rows, panels, call->sharing == BY_UNITS);
        }
        wait_for_all(call);
        if (pass->dw) add_to_sums(call, pass, count, index);
        if (pass->dx.data) input_gradient(call, pass, times, index);
        wait_for_all(call);
    }
    finish(call, pass, index);
    wait_for_all(call);
}

static void run(void *context, int index) {
    call *call = context;
    const fl_config *config = &call->model->config;
    const fl_fp_state saved = fl_fp_enter();
    for (ptrdiff_t l = config->num_layers - 1; l >= 0; l--)
        for (ptrdiff_t d = 0; d < config->num_directions; d++) {
            const pass pass = pass_of(call, l, d);
            run_pass(call, &pass, index);
        }
    fl_fp_leave(saved);
}

/* How many threads a call is worth. */
static int threads_for(const call *call) {
    const fl_config *config = &call->model->config;
    const double H = (double)config->hidden_size, D = (double)config->num_directions;
    const double above = (double)config->num_layers - 1;
    const double P = (double)call->model->output_size;
    const double columns = (double)config->input_size + P + above * (D + 1) * P;
    const double work = 8 * H * columns * D * (double)rows_before(call, call->T);
    const int threads = fl_get_num_threads();
    if (work >= (double)threads * THREAD_WORK) return threads;
    return work < THREAD_WORK ? 1 : (int)(work / THREAD_WORK);
}

/* How the threads that there are share the steps. */
static sharing sharing_for(const call *call) {
    const double H = (double)call->model->config.hidden_size, step = 4 * H * H * (double)call->B;
    const ptrdiff_t columns = 4 * call->model->kernels->lanes;
    const ptrdiff_t panels = call->model->config.hidden_size / columns;
    if (call->threads == 1) return BY_ONE;
    if (call->B >= (ptrdiff_t)call->threads * ROWS_PER_THREAD) return BY_ROWS;
    if (panels >= call->threads && step >= (double)call->threads * STEP_WORK && !is_variant(call))
        return BY_UNITS;
    return call->B > 1 ? BY_ROWS : BY_ONE;
}

/* A row of n reals in whole cache lines, an odd number of them: a power of two would crowd the
 * rows of a column into few sets of the cache. In reals; 0 when it does not fit. */
static size_t stride_of(size_t n, size_t real) {
    size_t bytes;
    if (!fl_multiply_sizes(n, real, &bytes) || !fl_add_sizes(bytes, 2 * FL_LINE, &bytes)) return 0;
    return (((bytes - FL_LINE - 1) / FL_LINE) | 1) * FL_LINE / real;
}

/* Sizes and allocates the scratch memory of a call. */
static fl_status create_scratch(call *call) {
    const fl_config *config = &call->model->config;
    const size_t real = call->model->kernels->real_bytes, H = (size_t)config->hidden_size;
    const size_t P = (size_t)call->model->output_size, gates = (size_t)gate_columns(config);
    const size_t B = (size_t)call->B, T = (size_t)call->T, D = (size_t)config->num_directions;
    const size_t V = (size_t)call->model->kernels->lanes, L = (size_t)config->num_layers;
    const size_t widest = (size_t)larger(config->input_size, L > 1 ? (ptrdiff_t)(D * P) : 0) +
                          (config->layer_norm ? NORM_ALIGN : 0);
    const size_t d_width = (size_t)d_columns(config) + (config->layer_norm ? 2 * gates : 0);
    const size_t d_stride = stride_of(d_width, real), norm = config->layer_norm ? B : 0;
    const size_t a_stride = stride_of(widest + P, real), cells_stride = stride_of(H, real);
    size_t step, total = 0, n, offsets[17], between = 0;
    if (d_stride == 0 || a_stride == 0 || cells_stride == 0 ||
        !fl_multiply_sizes(d_stride * real, B, &step))
        return FL_ERROR_OVERFLOW;
    n = (size_t)larger((ptrdiff_t)(CHUNK_BYTES / step), (SUM_ROWS + call->B - 1) / call->B);
    n = n < T ? n : T;
    const size_t rows = n * B, a_rows = call->dparameters ? rows : 0;
    const size_t w_vectors = call->dx.data || L > 1 ? (widest + V - 1) / V : 0;
    const size_t variant = is_variant(call), projected = config->proj_size > 0;
    const size_t cells_rows = call->dparameters ? projected : 0;
    if (L > 1 && !fl_multiply_sizes((size_t)rows_before(call, call->T), D, &between))
        return FL_ERROR_OVERFLOW;
    const struct {
        char **place;
        size_t count, size;
    } parts[17] = {
        {&call->d, rows, d_stride * real},
        {&call->a, a_rows, a_stride * real},
        {&call->dh, B, P * real},
        {&call->dc, B, H * real},
        {&call->sums, call->dparameters ? gates : 0, a_stride * real},
        {&call->bias_sums, (size_t)d_columns(config) + H, real},
        {&call->u, gates, (P + V - 1) / V * V * real},
        {&call->w, gates, w_vectors * V * real},
        {&call->between[0], between, (L > 2 ? 2 : 1) * P * real},
        {&call->e, variant * rows, P * real},
        {&call->kept, variant * B, P * real},
        {&call->cells, cells_rows * rows, cells_stride * real},
        {&call->dcells, projected * B, H * real},
        {&call->hr, projected * P, (H + V - 1) / V * V * real},
        {&call->hr_sums, cells_rows * P, cells_stride * real},
        {&call->t, norm, H * real},
        {&call->dc_normal, norm, H * real},
    };
    for (int i = 0; i < 17; i++)
        if (!fl_reserve(&total, parts[i].count, parts[i].size, &offsets[i]))
            return FL_ERROR_OVERFLOW;
    call->memory = fl_alloc_aligned(total, 1);
    if (call->memory == NULL) return FL_ERROR_MEMORY;
    call->rows = (ptrdiff_t)rows;
    call->d_stride = (ptrdiff_t)d_stride;
    call->a_stride = (ptrdiff_t)a_stride;
    call->cells_stride = (ptrdiff_t)cells_stride;
    for (int i = 0; i < 17; i++) *parts[i].place = call->memory + offsets[i];
    call->between[1] = call->between[0] + (L > 2 ? between * P * real : 0);
    /* The ends of the rows of a and cells, which are read with the last vector. */
    memset(call->a, 0, a_rows * a_stride * real);
    memset(call->cells, 0, cells_rows * rows * cells_stride * real);
    return FL_OK;
}

fl_status fl_backward(const fl_model *model, const void *parameters, ptrdiff_t T, ptrdiff_t B,
                      const ptrdiff_t *starts, const void *x, ptrdiff_t x_stride_t,
                      ptrdiff_t x_stride_b, const void *h_0, const void *c_0, const fl_masks *masks,
                      const void *tape, const void *dy, ptrdiff_t dy_stride_t,
                      ptrdiff_t dy_stride_b, const void *dh_n, const void *dc_n, int accumulate,
                      void *dx, ptrdiff_t dx_stride_t, ptrdiff_t dx_stride_b, void *dh_0,
                      void *dc_0, void *dparameters) {
    size_t bytes;
    fl_status status = fl_tape_bytes(model, T, B, starts, &bytes);
    if (status != FL_OK) return status;
    if (parameters == NULL || (bytes > 0 && (tape == NULL || (dparameters && x == NULL))))
        return FL_ERROR_ARGUMENT;
    fl_span span = {.T = T, .B = B, .ragged = {starts, 0}};
    status = fl_set_masks(model, masks, &span);
    if (status != FL_OK) return status;
    if (B == 0) { /* nothing to sum over */
        fl_parameter_count(&model->config, &bytes);
        if (dparameters && !accumulate) memset(dparameters, 0, bytes * model->kernels->real_bytes);
        return FL_OK;
    }
    call call = {.model = model, .parameters = parameters, .T = T, .B = B, .starts = starts};
    call.x = (fl_rows){(char *)(uintptr_t)x, x_stride_t, x_stride_b, starts, 0};
    call.dy = (fl_rows){(char *)(uintptr_t)dy, dy_stride_t, dy_stride_b, starts, 0};
    call.dx = (fl_rows){dx, dx_stride_t, dx_stride_b, starts, 0};
    call.h_0 = h_0;
    call.c_0 = c_0;
    call.tape = tape;
    call.dh_n = dh_n;
    call.dc_n = dc_n;
    call.dh_0 = dh_0;
    call.dc_0 = dc_0;
    call.dparameters = dparameters;
    call.accumulate = accumulate;

    call.masks = span;
    status = create_scratch(&call);
    if (status != FL_OK) return status;
    call.threads = fl_pool_take(threads_for(&call));
    call.barrier.size = call.threads;
    call.sharing = sharing_for(&call);
    fl_pool_run(call.threads, run, &call);
    fl_pool_release(call.threads);
    fl_free_aligned(call.memory);
    return FL_OK;
}
