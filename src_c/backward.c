/* fl_backward: backpropagation through time.
 *
 * From the last layer to the first, for each direction, in chunks of time from its last step back:
 *
 *   for each time t:  dG_t, dc = cell_backward(record t, dy_t + dh, dc)      dh = dG_t @ U
 *   then, while dG and [x | h before] of the chunk are warm, in blocks of SUM_ROWS rows:
 *                     d[W | U] += dG^T @ [x | h before]     db += dG     dx = dG @ W
 *
 * A variant has steps of its own, steps_back.c, and with a projection dW_hr += dh^T @ h~.
 *
 * "Before" and "after" are meant in the order in which the direction takes its steps. The hidden
 * states are computed once more from the tape, o * tanh(c), so that nothing depends on y, which the
 * caller may have changed. Sequences of different lengths are sorted, see run.c; dh and dc of
 * those that have no step yet, or no longer, stay as they are.
 *
 * How threads share the work changes no bit: rows and columns do not meet in any sum but those over
 * rows, and these are cut into blocks that depend on sizes alone.
 */
#include <stdint.h>
#include <string.h>

#include "fastlstm.h"
#include "kernels/kernels.h"
#include "memory.h"
#include "model.h"
#include "platform.h"
#include "rows.h"
#include "share.h"
#include "steps_back.h"
#include "structs.h"
#include "threads.h"

enum {
    SUM_ROWS = 256,           /* rows of a block of sums; a chunk has at least so many */
    CHUNK_BYTES = 512 * 1024, /* of dG in a chunk, about */
    NORM_ALIGN = 16           /* reals: any V, so that dW and dU do not share a vector */
};

/* Whether thread `index` is to do no more: the call is given up, or it has left it. */
static int is_over(const fl_back *call, int index, double work) {
    return fl_stop_check(call->stop, index, work) || fl_back_has_left(call, index);
}

/* Returns whether thread `index` is to do no more. */
static int wait_for_all(fl_back *call, int index) {
    if (call->plan.threads == 1) return 0;
    return fl_back_has_left(call, index) || fl_barrier_wait(&call->barrier) ||
           fl_back_has_left(call, index);
}

/* Where the parameters of layer l and direction d begin, in reals. */
static ptrdiff_t parameters_before(const fl_config *config, ptrdiff_t l, ptrdiff_t d) {
    const ptrdiff_t H = config->hidden_size, D = config->num_directions;
    const ptrdiff_t P = fl_config_output_size(config), others = P + (config->has_bias ? 2 : 0);
    const ptrdiff_t own =
        (config->proj_size + fl_config_peepholes(config)) * H + fl_config_norm_size(config);
    const ptrdiff_t first = fl_config_gate_columns(config) * (config->input_size + others) + own;
    const ptrdiff_t above = fl_config_gate_columns(config) * (D * P + others) + own;
    return l == 0 ? d * first : D * first + ((l - 1) * D + d) * above;
}

static fl_pass pass_of(const fl_back *call, ptrdiff_t l, ptrdiff_t d) {
    const fl_config *config = &call->model->config;
    const size_t real = call->model->kernels->real_bytes;
    const ptrdiff_t H = config->hidden_size, D = config->num_directions, L = config->num_layers;
    const ptrdiff_t P = call->model->output_size, row = D * P, step = call->B * row;
    const ptrdiff_t gates = fl_config_gate_columns(config);
    const fl_rows below = {
        l > 0 ? call->between[(l - 1) % 2] : NULL, step, row, call->starts, NULL, 0};
    const fl_rows above = {
        l < L - 1 ? call->between[l % 2] : NULL, step, row, call->starts, NULL, 0};
    fl_pass pass = {.l = l, .d = d, .index = l * D + d, .I = l == 0 ? config->input_size : D * P};

    pass.reverse = fl_config_is_reverse(config, d);
    pass.h_at = config->layer_norm ? (pass.I + NORM_ALIGN - 1) / NORM_ALIGN * NORM_ALIGN : pass.I;

    /* Where W, U, the biases, W_hr, the peepholes and the scales begin. */
    const ptrdiff_t counts[6] = {gates * pass.I,
                                 gates * P,
                                 config->has_bias ? 2 * gates : 0,
                                 config->proj_size * H,
                                 fl_config_peepholes(config) * H,
                                 fl_config_norm_size(config)};
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

    pass.tape = fl_back_tape(call, pass.index);
    pass.dx = l == 0 ? call->dx : below;
    pass.dy = l == L - 1 ? call->dy : above;
    pass.dx_accumulate = d == 1 || (l == 0 && call->accumulate);
    if (pass.dy.data) pass.dy.data += d * P * (ptrdiff_t)real;
    pass.recurrent = fl_stack_at(call->masks.recurrent, pass.index, real);
    pass.zoneout_h = fl_stack_at(call->masks.zoneout_h, pass.index, real);
    pass.zoneout_c = fl_stack_at(call->masks.zoneout_c, pass.index, real);
    return pass;
}

/* Packs the weights, and sets the running gradients and the sums to where they begin. */
static void begin(fl_back *call, const fl_pass *pass, int index) {
    const fl_kernels *kernels = call->model->kernels;
    const fl_config *config = &call->model->config;
    const ptrdiff_t H = config->hidden_size, P = call->model->output_size, I = pass->I;
    const ptrdiff_t K = fl_config_gate_columns(config), columns = 4 * kernels->lanes;
    const size_t real = kernels->real_bytes;
    const fl_range u = fl_back_part((P + columns - 1) / columns, call, index);
    kernels->pack_columns(u.first, u.end, K, P, pass->u, P, 1, call->u);
    if (pass->dx.data) {
        const fl_range w = fl_back_part((I + columns - 1) / columns, call, index);
        kernels->pack_columns(w.first, w.end, K, I, pass->w, I, 1, call->w);
    }
    if (pass->hr) {
        const fl_range hr = fl_back_part((H + columns - 1) / columns, call, index);
        kernels->pack_columns(hr.first, hr.end, P, H, pass->hr, H, 1, call->hr);
    }
    if (pass->dw) {
        const fl_range rows = fl_back_part(K, call, index);
        const size_t row = (size_t)call->a_stride * real;
        memset(call->sums + (size_t)rows.first * row, 0, (size_t)(rows.end - rows.first) * row);
        if (index == 0) memset(call->bias_sums, 0, (size_t)fl_back_columns(config) * real);
    }
    if (pass->d == 0) { /* both directions' columns, once */
        const fl_range all = {0, call->T};
        fl_back_mask_times(call, fl_back_mask_above(call, pass->l), all,
                           fl_back_part(call->B, call, index), config->num_directions * P,
                           pass->dy.data, config->num_directions * P);
    }
    if (index > 0) return;
    if (pass->dhr) memset(call->hr_sums, 0, (size_t)(P * call->cells_stride) * real);
    const size_t h_bytes = (size_t)(call->B * P) * real, c_bytes = (size_t)(call->B * H) * real;
    if (call->dh_n) memcpy(call->dh, call->dh_n + (size_t)pass->index * h_bytes, h_bytes);
    else memset(call->dh, 0, h_bytes);
    if (call->dc_n) memcpy(call->dc, call->dc_n + (size_t)pass->index * c_bytes, c_bytes);
    else memset(call->dc, 0, c_bytes);
}

/* kernels->multiply() of rows of dG with W for dx, in slices until the call is given up. */
static void multiply_w(const fl_back *call, const fl_pass *pass, int index, ptrdiff_t rows,
                       const char *d, ptrdiff_t d_stride, char *dx, ptrdiff_t dx_stride) {
    const fl_kernels *kernels = call->model->kernels;
    const ptrdiff_t real = (ptrdiff_t)kernels->real_bytes, I = pass->I;
    const ptrdiff_t K = fl_config_gate_columns(&call->model->config), columns = 4 * kernels->lanes;
    const double work = (double)K * (double)I;
    const ptrdiff_t slice = call->stop ? fl_stop_slice(work, kernels->lanes) : PTRDIFF_MAX / 2;
    for (ptrdiff_t first = 0; first < rows; first += slice) {
        const ptrdiff_t count = fl_size_min(slice, rows - first);
        if (fl_stop_check(call->stop, index, work * (double)count)) return;
        kernels->multiply(0, (I + columns - 1) / columns, count, K, I, d + first * d_stride * real,
                          d_stride, call->w, dx + first * dx_stride * real, dx_stride,
                          pass->dx_accumulate, call->model->near_bytes);
    }
}

/* kernels->add_outer() of rows of d and a for columns of d, likewise. */
static void add_outer(const fl_back *call, int index, fl_range columns, ptrdiff_t rows, ptrdiff_t N,
                      const char *d, const char *a, char *sums) {
    const fl_kernels *kernels = call->model->kernels;
    const double work = (double)rows * (double)N;
    const ptrdiff_t slice = call->stop ? fl_stop_slice(work, kernels->lanes) : PTRDIFF_MAX / 2;
    for (ptrdiff_t first = columns.first; first < columns.end; first += slice) {
        const ptrdiff_t end = fl_size_min(first + slice, columns.end);
        if (fl_stop_check(call->stop, index, work * (double)(end - first))) return;
        kernels->add_outer(first, end, rows, N, d, call->d_stride, a, call->a_stride, sums,
                           call->a_stride);
    }
}

/* dx of a chunk: dG @ W, in as few and as tall products as the strides allow. */
static void input_gradient(const fl_back *call, const fl_pass *pass, fl_range times, int index) {
    const ptrdiff_t real = (ptrdiff_t)call->model->kernels->real_bytes, B = call->B;
    const ptrdiff_t d_stride = call->d_stride;
    const ptrdiff_t n = times.end - times.first, start = fl_back_rows_before(call, times.first);
    const char *d = call->d + fl_back_input_column(&call->model->config) * real;
    const fl_rows dx = pass->dx;
    if (call->starts || B == 1 || dx.stride_t == B * dx.stride_b) { /* all rows evenly spaced */
        const ptrdiff_t stride = B == 1 && !call->starts ? dx.stride_t : dx.stride_b;
        const fl_range rows =
            fl_back_part(fl_back_rows_before(call, times.end) - start, call, index);
        multiply_w(call, pass, index, rows.end - rows.first, d + rows.first * d_stride * real,
                   d_stride, dx.data + (start + rows.first) * stride * real, stride);
    } else if (B < n) { /* one product per sequence, over time */
        const fl_range part = fl_back_part(n, call, index);
        for (ptrdiff_t b = 0; b < B && part.first < part.end; b++)
            multiply_w(call, pass, index, part.end - part.first,
                       d + (part.first * B + b) * d_stride * real, B * d_stride,
                       fl_rows_at(dx, times.first + part.first, b, (size_t)real), dx.stride_t);
    } else {
        const fl_range rows = fl_back_part(B, call, index);
        for (ptrdiff_t t = 0; t < n && rows.first < rows.end; t++)
            multiply_w(call, pass, index, rows.end - rows.first,
                       d + (t * B + rows.first) * d_stride * real, d_stride,
                       fl_rows_at(dx, times.first + t, rows.first, (size_t)real), dx.stride_b);
    }
}

/* d[W | U], db, dW_hr and the peepholes' gradients of `rows` rows of a chunk, in blocks. */
static void add_to_sums(const fl_back *call, const fl_pass *pass, ptrdiff_t rows, int index) {
    const fl_kernels *kernels = call->model->kernels;
    const fl_config *config = &call->model->config;
    const ptrdiff_t real = (ptrdiff_t)kernels->real_bytes, P = call->model->output_size;
    const fl_range columns = fl_back_part(fl_config_gate_columns(config), call, index);
    const fl_range of_rows = fl_back_part(fl_back_columns(config), call, index),
                   hr = fl_back_part(P, call, index);
    for (ptrdiff_t first = 0; first < rows; first += SUM_ROWS) {
        const ptrdiff_t count = fl_size_min(SUM_ROWS, rows - first);
        const char *d = call->d + first * call->d_stride * real;
        const char *a = call->a + first * call->a_stride * real;
        const ptrdiff_t both = config->layer_norm ? pass->I : pass->I + P;
        add_outer(call, index, columns, count, both, d + fl_back_input_column(config) * real, a,
                  call->sums);
        if (config->layer_norm)
            add_outer(call, index, columns, count, P, d + fl_back_recurrent_column(config) * real,
                      a + pass->h_at * real, call->sums + pass->h_at * real);
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
static void finish(const fl_back *call, const fl_pass *pass, int index) {
    const fl_kernels *kernels = call->model->kernels;
    const fl_config *config = &call->model->config;
    const ptrdiff_t real = (ptrdiff_t)kernels->real_bytes, H = config->hidden_size, I = pass->I;
    const ptrdiff_t P = call->model->output_size, gates = fl_config_gate_columns(config);
    const int add = call->accumulate;
    if (pass->dw) {
        const fl_range rows = fl_back_part(gates, call, index);
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
        kernels->put_rows(1, fl_back_columns(config) - gates, call->bias_sums + gates * real, 0,
                          pass->dothers, 0, add);
    if (call->dh_0) kernels->put_rows(call->B, P, call->dh, P, call->dh_0 + h_state, P, add);
    if (call->dc_0) kernels->put_rows(call->B, H, call->dc, H, call->dc_0 + c_state, H, add);
}

/* The next chunk of a pass with `left` times to go: as many as fit. */
static fl_range chunk_of(const fl_back *call, const fl_pass *pass, ptrdiff_t left) {
    fl_range times = {left, left};
    if (pass->reverse) times.first = times.end = call->T - left;
    for (ptrdiff_t n = 0; n < left; n++) {
        fl_range longer = times;
        if (pass->reverse) longer.end++;
        else longer.first--;
        if (fl_back_rows_before(call, longer.end) - fl_back_rows_before(call, longer.first) >
            call->rows)
            break;
        times = longer;
    }
    return times;
}

/* All steps of one direction of one layer, thread `index`'s part. */
static void run_pass(fl_back *call, const fl_pass *pass, int index) {
    fl_range rows = {0, call->B};
    const fl_ragged ragged = {call->starts, 0};
    const fl_sharing sharing = call->plan.sharing;
    if (sharing == FL_BY_ROWS)
        rows = fl_ragged_part(ragged, call->T, call->B, index, call->plan.threads);
    double step_work = (double)(rows.end - rows.first) * (double)call->model->output_size *
                       (double)fl_config_gate_columns(&call->model->config);
    if (sharing == FL_BY_UNITS) step_work /= call->plan.threads;

    if (is_over(call, index, 0)) return;
    begin(call, pass, index);
    if (wait_for_all(call, index)) return;
    for (ptrdiff_t left = call->T; left > 0;) {
        const fl_range times = chunk_of(call, pass, left);
        const ptrdiff_t count =
            fl_back_rows_before(call, times.end) - fl_back_rows_before(call, times.first);
        left -= times.end - times.first;
        if (pass->dw) fl_back_fill_inputs(call, pass, times, fl_back_part(call->B, call, index));
        if (pass->dw && fl_back_is_variant(call))
            fl_back_fill_hidden(call, pass, times, fl_back_part(call->B, call, index));
        for (ptrdiff_t i = 0; i < times.end - times.first; i++) {
            const ptrdiff_t t = pass->reverse ? times.first + i : times.end - 1 - i;
            if (sharing == FL_BY_ONE && index > 0) break;
            if (is_over(call, index, step_work)) return;
            if (fl_back_is_variant(call)) fl_back_step_variant(call, pass, times, t, rows);
            else fl_back_step_usual(call, pass, times, t, rows, index);
        }
        if (wait_for_all(call, index)) return;
        if (pass->dw) add_to_sums(call, pass, count, index);
        if (pass->dx.data) input_gradient(call, pass, times, index);
        if (wait_for_all(call, index)) return;
    }
    if (is_over(call, index, 0)) return;
    finish(call, pass, index);
    wait_for_all(call, index);
}

static void run(void *context, int index) {
    fl_back *call = context;
    const fl_config *config = &call->model->config;
    const fl_fp_state saved = fl_fp_enter();
    for (ptrdiff_t l = config->num_layers - 1; l >= 0; l--)
        for (ptrdiff_t d = 0; d < config->num_directions; d++) {
            const fl_pass pass = pass_of(call, l, d);
            run_pass(call, &pass, index);
        }
    fl_fp_leave(saved);
}

/* A row of n reals in whole cache lines, an odd number of them: a power of two would crowd the
 * rows of a column into few sets of the cache. In reals; 0 when it does not fit. */
static size_t stride_of(size_t n, size_t real) {
    size_t bytes;
    if (!fl_size_multiply(n, real, &bytes) || !fl_size_add(bytes, 2 * FL_LINE, &bytes)) return 0;
    return (((bytes - FL_LINE - 1) / FL_LINE) | 1) * FL_LINE / real;
}

/* Sizes and allocates the scratch memory of a call. */
static fl_status create_scratch(fl_back *call) {
    const fl_config *config = &call->model->config;
    const size_t real = call->model->kernels->real_bytes, H = (size_t)config->hidden_size;
    const size_t P = (size_t)call->model->output_size,
                 gates = (size_t)fl_config_gate_columns(config);
    const size_t B = (size_t)call->B, T = (size_t)call->T, D = (size_t)config->num_directions;
    const size_t V = (size_t)call->model->kernels->lanes, L = (size_t)config->num_layers;
    const size_t widest = (size_t)fl_size_max(config->input_size, L > 1 ? (ptrdiff_t)(D * P) : 0) +
                          (config->layer_norm ? NORM_ALIGN : 0);
    const size_t d_width = (size_t)fl_back_columns(config) + (config->layer_norm ? 2 * gates : 0);
    const size_t d_stride = stride_of(d_width, real), norm = config->layer_norm ? B : 0;
    const size_t a_stride = stride_of(widest + P, real), cells_stride = stride_of(H, real);
    size_t step, n, between = 0;
    if (d_stride == 0 || a_stride == 0 || cells_stride == 0 ||
        !fl_size_multiply(d_stride * real, B, &step))
        return FL_ERROR_OVERFLOW;
    n = (size_t)fl_size_max((ptrdiff_t)(CHUNK_BYTES / step), (SUM_ROWS + call->B - 1) / call->B);
    n = n < T ? n : T;
    const size_t rows = n * B, a_rows = call->dparameters ? rows : 0;
    const size_t w_vectors = call->dx.data || L > 1 ? (widest + V - 1) / V : 0;
    const size_t variant = fl_back_is_variant(call), projected = config->proj_size > 0;
    const size_t cells_rows = call->dparameters ? projected : 0;
    if (L > 1 && !fl_size_multiply((size_t)fl_back_rows_before(call, call->T), D, &between))
        return FL_ERROR_OVERFLOW;
    const fl_part parts[] = {
        {&call->d, rows, d_stride * real},
        {&call->a, a_rows, a_stride * real},
        {&call->dh, B, P * real},
        {&call->dc, B, H * real},
        {&call->sums, call->dparameters ? gates : 0, a_stride * real},
        {&call->bias_sums, (size_t)fl_back_columns(config) + H, real},
        {&call->u, gates, (P + V - 1) / V * V * real},
        {&call->w, gates, w_vectors * V * real},
        {&call->between[0], between, P * real},
        {&call->between[1], L > 2 ? between : 0, P * real},
        {&call->e, variant * rows, P * real},
        {&call->kept, variant * B, P * real},
        {&call->cells, cells_rows * rows, cells_stride * real},
        {&call->dcells, projected * B, H * real},
        {&call->hr, projected * P, (H + V - 1) / V * V * real},
        {&call->hr_sums, cells_rows * P, cells_stride * real},
        {&call->t, norm, H * real},
        {&call->dc_normal, norm, H * real},
    };
    const fl_status status =
        fl_memory_alloc_parts(parts, sizeof parts / sizeof *parts, &call->memory);
    if (status != FL_OK) return status;
    call->rows = (ptrdiff_t)rows;
    call->d_stride = (ptrdiff_t)d_stride;
    call->a_stride = (ptrdiff_t)a_stride;
    call->cells_stride = (ptrdiff_t)cells_stride;
    /* The ends of the rows of a and cells, which are read with the last vector. */
    memset(call->a, 0, a_rows * a_stride * real);
    memset(call->cells, 0, cells_rows * rows * cells_stride * real);
    return FL_OK;
}

fl_status fl_backward(const fl_model *model, const fl_backward_call *caller) {
    enum { BACKWARD_SIZE = FL_FIRST_SIZE(fl_backward_call, watch) };
    fl_backward_call own;
    const fl_backward_call *given = fl_struct_read(caller, &own, sizeof own, BACKWARD_SIZE);
    if (given == NULL) return FL_ERROR_ARGUMENT;
    const ptrdiff_t T = given->T, B = given->B, *starts = given->starts;
    size_t bytes;
    fl_status status = fl_tape_bytes(model, T, B, starts, &bytes);
    if (status != FL_OK) return status;
    if (given->parameters == NULL ||
        (bytes > 0 && (given->tape == NULL || (given->dparameters && given->x.data == NULL))))
        return FL_ERROR_ARGUMENT;
    fl_back call = {.model = model,
                    .parameters = given->parameters,
                    .T = T,
                    .B = B,
                    .starts = starts,
                    .x = fl_rows_of_input(given->x, starts),
                    .dy = fl_rows_of_input(given->dy, starts),
                    .dx = fl_rows_of_output(given->dx, starts),
                    .h_0 = given->h_0,
                    .c_0 = given->c_0,
                    .tape = given->tape,
                    .dh_n = given->dh_n,
                    .dc_n = given->dc_n,
                    .dh_0 = given->dh_0,
                    .dc_0 = given->dc_0,
                    .dparameters = given->dparameters,
                    .accumulate = given->accumulate,
                    .masks = {.T = T, .B = B, .ragged = {starts, 0}}};
    status = fl_span_set_masks(&call.masks, model, given->masks);
    if (status != FL_OK) return status;
    if (B == 0) { /* nothing to sum over */
        fl_parameter_count(&model->config, &bytes);
        if (given->dparameters && !given->accumulate)
            memset(given->dparameters, 0, bytes * model->kernels->real_bytes);
        return FL_OK;
    }
    status = create_scratch(&call);
    if (status != FL_OK) return status;
    const fl_work work = {.model = model,
                          .B = B,
                          .rows = (double)fl_back_rows_before(&call, T),
                          .backward = 1,
                          .whole_rows = fl_back_is_variant(&call)};
    call.plan = fl_plan_begin(&work);
    fl_stop stop = fl_stop_begin(given->watch);
    if (given->watch) call.stop = call.barrier.stop = &stop;
    call.barrier.size = call.plan.threads;
    if (call.plan.sharing == FL_BY_UNITS) call.barrier.late = FL_LATE_PARTS;
    fl_pool_run(call.plan.threads, run, &call, call.stop);
    fl_plan_end(&call.plan);
    fl_memory_free(call.memory);
    return stop.cancelled ? FL_ERROR_CANCELLED : FL_OK;
}
