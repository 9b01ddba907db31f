/* fl_backward: backpropagation through time.
 *
 * From the last layer to the first, for each direction, in chunks of time from its last step back:
 *
 *   for each time t:  dG_t, dc = cell_backward(record t, dy_t + dh, dc)      dh = dG_t @ U
 *   then, while dG and [x | h before] of the chunk are warm, in blocks of SUM_ROWS rows:
 *                     d[W | U] += dG^T @ [x | h before]     db += dG     dx = dG @ W
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
    ROWS_PER_THREAD = 4,      /* sequences that use a core's arithmetic about as well as many do */
    LINE = 64
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

    sharing sharing;
    int threads;
    fl_barrier barrier;

    /* Scratch for chunks of up to `rows` rows (t, b): d (rows, 4H) is dG; a (rows, I_l + H) is
     * [x | h before]; sums (4H, I_l + H) is d[W | U]. Their rows have strides that fit whole lines.
     */
    ptrdiff_t rows, d_stride, a_stride;
    char *memory, *d, *a, *dh, *dc, *sums, *bias_sums, *u, *w, *between[2];
} call;

/* One direction of one layer. */
typedef struct pass {
    ptrdiff_t l, d, index, I;
    const char *w, *u;  /* parameters (4H, I), (4H, H) */
    char *dw, *du, *db; /* their gradients, or NULL */
    fl_rows tape;       /* (T, B, 5, H) */
    fl_rows dy, dx;     /* data NULL for none */
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

/* The records of an index, l*D + d. */
static fl_rows tape_of(const call *call, ptrdiff_t index) {
    const ptrdiff_t record = 5 * call->model->config.hidden_size;
    const ptrdiff_t bytes = record * (ptrdiff_t)call->model->kernels->real_bytes;
    char *data = (char *)(uintptr_t)call->tape + index * rows_before(call, call->T) * bytes;
    return (fl_rows){data, call->B * record, record, call->starts};
}

/* Where the parameters of layer l and direction d begin, in reals. */
static ptrdiff_t parameters_before(const fl_config *config, ptrdiff_t l, ptrdiff_t d) {
    const ptrdiff_t H = config->hidden_size, D = config->num_directions;
    const ptrdiff_t biases = config->has_bias ? 2 : 0;
    const ptrdiff_t first = 4 * H * (config->input_size + H + biases);
    const ptrdiff_t above = 4 * H * (D * H + H + biases);
    return l == 0 ? d * first : D * first + ((l - 1) * D + d) * above;
}

static pass pass_of(const call *call, ptrdiff_t l, ptrdiff_t d) {
    const fl_config *config = &call->model->config;
    const ptrdiff_t real = (ptrdiff_t)call->model->kernels->real_bytes;
    const ptrdiff_t H = config->hidden_size, D = config->num_directions, L = config->num_layers;
    const ptrdiff_t row = D * H, step = call->B * row;
    const fl_rows below = {l > 0 ? call->between[(l - 1) % 2] : NULL, step, row, call->starts};
    const fl_rows above = {l < L - 1 ? call->between[l % 2] : NULL, step, row, call->starts};
    pass pass = {.l = l, .d = d, .index = l * D + d, .I = l == 0 ? config->input_size : D * H};
    const ptrdiff_t start = parameters_before(config, l, d) * real;
    pass.w = call->parameters + start;
    pass.u = pass.w + 4 * H * pass.I * real;
    if (call->dparameters) {
        pass.dw = call->dparameters + start;
        pass.du = pass.dw + 4 * H * pass.I * real;
        pass.db = config->has_bias ? pass.du + 4 * H * H * real : NULL;
    }
    pass.tape = tape_of(call, pass.index);
    pass.dx = l == 0 ? call->dx : below;
    pass.dy = l == L - 1 ? call->dy : above;
    pass.dx_accumulate = d == 1 || (l == 0 && call->accumulate);
    if (pass.dy.data) pass.dy.data += d * H * real;
    return pass;
}

/* Packs the weights, and sets the running gradients and the sums to where they begin. */
static void begin(call *call, const pass *pass, int index) {
    const fl_kernels *kernels = call->model->kernels;
    const ptrdiff_t H = call->model->config.hidden_size, B = call->B, columns = 4 * kernels->lanes;
    const size_t real = kernels->real_bytes;
    const range u = part_of((H + columns - 1) / columns, call, index);
    kernels->pack_columns(u.first, u.end, 4 * H, H, pass->u, call->u);
    if (pass->dx.data) {
        const range w = part_of((pass->I + columns - 1) / columns, call, index);
        kernels->pack_columns(w.first, w.end, 4 * H, pass->I, pass->w, call->w);
    }
    if (pass->dw) {
        const range rows = part_of(4 * H, call, index);
        const size_t row = (size_t)call->a_stride * real;
        memset(call->sums + (size_t)rows.first * row, 0, (size_t)(rows.end - rows.first) * row);
        if (index == 0) memset(call->bias_sums, 0, (size_t)(4 * H) * real);
    }
    if (index > 0) return;
    const size_t state = (size_t)(B * H) * real, offset = (size_t)pass->index * state;
    if (call->dh_n) memcpy(call->dh, call->dh_n + offset, state);
    else memset(call->dh, 0, state);
    if (call->dc_n) memcpy(call->dc, call->dc_n + offset, state);
    else memset(call->dc, 0, state);
}

/* The x half of a for the times of a chunk, of sequences rows.first..rows.end-1: the input, or the
 * hidden states of the layer below. */
static void fill_inputs(const call *call, const pass *pass, range times, range rows) {
    const fl_kernels *kernels = call->model->kernels;
    const size_t real = kernels->real_bytes;
    const ptrdiff_t H = call->model->config.hidden_size, D = call->model->config.num_directions;
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
        for (ptrdiff_t d = 0; d < D; d++) {
            const fl_rows below = tape_of(call, (pass->l - 1) * D + d);
            kernels->hidden(count, H, fl_row_at(below, t, rows.first, real),
                            to + d * H * (ptrdiff_t)real, call->a_stride);
        }
    }
}

/* The hidden states before a time, of `count` sequences from `first` on, where they begin: h_0. */
static void fill_first_hidden(const call *call, const pass *pass, ptrdiff_t first, ptrdiff_t count,
                              char *to) {
    const ptrdiff_t real = (ptrdiff_t)call->model->kernels->real_bytes;
    const ptrdiff_t H = call->model->config.hidden_size;
    const char *h_0 = call->h_0;
    if (h_0)
        call->model->kernels->put_rows(count, H, h_0 + (pass->index * call->B + first) * H * real,
                                       H, to, call->a_stride, 0);
    else
        for (ptrdiff_t b = 0; b < count; b++)
            memset(to + b * call->a_stride * real, 0, (size_t)(H * real));
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
    char *h = call->a + pass->I * (ptrdiff_t)real; /* the h half of a */

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
    const ptrdiff_t K = 4 * call->model->config.hidden_size, d_stride = call->d_stride;
    const ptrdiff_t panels = (I + 4 * kernels->lanes - 1) / (4 * kernels->lanes);
    const ptrdiff_t n = times.end - times.first, start = rows_before(call, times.first);
    const fl_rows dx = pass->dx;
    if (call->starts || B == 1 || dx.stride_t == B * dx.stride_b) { /* all rows evenly spaced */
        const ptrdiff_t stride = B == 1 && !call->starts ? dx.stride_t : dx.stride_b;
        const range rows = part_of(rows_before(call, times.end) - start, call, index);
        if (rows.first < rows.end)
            kernels->multiply(0, panels, rows.end - rows.first, K, I,
                              call->d + rows.first * d_stride * real, d_stride, call->w,
                              dx.data + (start + rows.first) * stride * real, stride,
                              pass->dx_accumulate);
    } else if (B < n) { /* one product per sequence, over time */
        const range part = part_of(n, call, index);
        for (ptrdiff_t b = 0; b < B && part.first < part.end; b++)
            kernels->multiply(0, panels, part.end - part.first, K, I,
                              call->d + (part.first * B + b) * d_stride * real, B * d_stride,
                              call->w, fl_row_at(dx, times.first + part.first, b, (size_t)real),
                              dx.stride_t, pass->dx_accumulate);
    } else {
        const range rows = part_of(B, call, index);
        for (ptrdiff_t t = 0; t < n && rows.first < rows.end; t++)
            kernels->multiply(0, panels, rows.end - rows.first, K, I,
                              call->d + (t * B + rows.first) * d_stride * real, d_stride, call->w,
                              fl_row_at(dx, times.first + t, rows.first, (size_t)real), dx.stride_b,
                              pass->dx_accumulate);
    }
}

/* d[W | U] and db of `rows` rows of dG and a, in blocks. */
static void add_to_sums(const call *call, const pass *pass, ptrdiff_t rows, int index) {
    const fl_kernels *kernels = call->model->kernels;
    const ptrdiff_t real = (ptrdiff_t)kernels->real_bytes, H = call->model->config.hidden_size;
    const range columns = part_of(4 * H, call, index);
    for (ptrdiff_t first = 0; first < rows; first += SUM_ROWS) {
        const ptrdiff_t count = smaller(SUM_ROWS, rows - first);
        const char *d = call->d + first * call->d_stride * real;
        kernels->add_outer(columns.first, columns.end, count, pass->I + H, d, call->d_stride,
                           call->a + first * call->a_stride * real, call->a_stride, call->sums,
                           call->a_stride);
        if (pass->db)
            kernels->add_rows(columns.first, columns.end, count, d, call->d_stride,
                              call->bias_sums);
    }
}

/* Hands the results of a pass over to the caller's arrays. */
static void finish(const call *call, const pass *pass, int index) {
    const fl_kernels *kernels = call->model->kernels;
    const ptrdiff_t real = (ptrdiff_t)kernels->real_bytes, H = call->model->config.hidden_size;
    const ptrdiff_t state = pass->index * call->B * H * real, I = pass->I;
    if (pass->dw) {
        const range rows = part_of(4 * H, call, index);
        const char *from = call->sums + rows.first * call->a_stride * real;
        kernels->put_rows(rows.end - rows.first, I, from, call->a_stride,
                          pass->dw + rows.first * I * real, I, call->accumulate);
        kernels->put_rows(rows.end - rows.first, H, from + I * real, call->a_stride,
                          pass->du + rows.first * H * real, H, call->accumulate);
    }
    if (index > 0) return;
    if (pass->db) /* of b_ih, then of b_hh */
        kernels->put_rows(2, 4 * H, call->bias_sums, 0, pass->db, 4 * H, call->accumulate);
    if (call->dh_0)
        kernels->put_rows(call->B, H, call->dh, H, call->dh_0 + state, H, call->accumulate);
    if (call->dc_0)
        kernels->put_rows(call->B, H, call->dc, H, call->dc_0 + state, H, call->accumulate);
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
    const ptrdiff_t H = call->model->config.hidden_size, columns = 4 * call->model->kernels->lanes;
    range rows = {0, call->B}, panels = {0, (H + columns - 1) / columns};
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
        if (call->sharing != BY_ONE || index == 0)
            for (ptrdiff_t i = 0; i < times.end - times.first; i++)
                take_step(call, pass, times, pass->d == 0 ? times.end - 1 - i : times.first + i,
                          rows, panels, call->sharing == BY_UNITS);
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
    const double columns = (double)config->input_size + H + above * (D + 1) * H;
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
    if (panels >= call->threads && step >= (double)call->threads * STEP_WORK) return BY_UNITS;
    return call->B > 1 ? BY_ROWS : BY_ONE;
}

/* Reserves count * size bytes of the scratch memory, in whole cache lines. */
static int reserve(size_t *total, size_t count, size_t size, size_t *offset) {
    size_t bytes;
    *offset = *total;
    if (!fl_multiply_sizes(count, size, &bytes) || !fl_add_sizes(bytes, LINE - 1, &bytes)) return 0;
    return fl_add_sizes(*total, bytes / LINE * LINE, total);
}

/* A row of n reals in whole cache lines, an odd number of them: a power of two would crowd the
 * rows of a column into few sets of the cache. In reals; 0 when it does not fit. */
static size_t stride_of(size_t n, size_t real) {
    size_t bytes;
    if (!fl_multiply_sizes(n, real, &bytes) || !fl_add_sizes(bytes, 2 * LINE, &bytes)) return 0;
    return (((bytes - LINE - 1) / LINE) | 1) * LINE / real;
}

/* Sizes and allocates the scratch memory of a call. */
static fl_status create_scratch(call *call) {
    const fl_config *config = &call->model->config;
    const size_t real = call->model->kernels->real_bytes, H = (size_t)config->hidden_size;
    const size_t B = (size_t)call->B, T = (size_t)call->T, D = (size_t)config->num_directions;
    const size_t V = (size_t)call->model->kernels->lanes, L = (size_t)config->num_layers;
    const size_t widest = (size_t)larger(config->input_size, L > 1 ? (ptrdiff_t)(D * H) : 0);
    const size_t d_stride = stride_of(4 * H, real), a_stride = stride_of(widest + H, real);
    size_t step, total = 0, n, offsets[9], between = 0;
    if (d_stride == 0 || a_stride == 0 || !fl_multiply_sizes(d_stride * real, B, &step))
        return FL_ERROR_OVERFLOW;
    n = (size_t)larger((ptrdiff_t)(CHUNK_BYTES / step), (SUM_ROWS + call->B - 1) / call->B);
    n = n < T ? n : T;
    const size_t rows = n * B, a_rows = call->dparameters ? rows : 0;
    const size_t w_vectors = call->dx.data || L > 1 ? (widest + V - 1) / V : 0;
    if (L > 1 && !fl_multiply_sizes((size_t)rows_before(call, call->T), D, &between))
        return FL_ERROR_OVERFLOW;
    const struct {
        size_t count, size;
    } parts[9] = {
        {rows, d_stride * real},                          /* d */
        {a_rows, a_stride * real},                        /* a */
        {B, H * real},                                    /* dh */
        {B, H * real},                                    /* dc */
        {call->dparameters ? 4 * H : 0, a_stride * real}, /* sums */
        {5 * H, real},                                    /* bias_sums */
        {4 * H, (H + V - 1) / V * V * real},              /* u */
        {4 * H, w_vectors * V * real},                    /* w */
        {between, (L > 2 ? 2 : 1) * H * real},            /* between */
    };
    for (int i = 0; i < 9; i++)
        if (!reserve(&total, parts[i].count, parts[i].size, &offsets[i])) return FL_ERROR_OVERFLOW;
    call->memory = fl_alloc_aligned(total, 1);
    if (call->memory == NULL) return FL_ERROR_MEMORY;
    call->rows = (ptrdiff_t)rows;
    call->d_stride = (ptrdiff_t)d_stride;
    call->a_stride = (ptrdiff_t)a_stride;
    char **const places[9] = {&call->d,         &call->a, &call->dh, &call->dc,        &call->sums,
                              &call->bias_sums, &call->u, &call->w,  &call->between[0]};
    for (int i = 0; i < 9; i++) *places[i] = call->memory + offsets[i];
    call->between[1] = call->between[0] + (L > 2 ? between * H * real : 0);
    /* The ends of the rows of a, which are read with the last vector. */
    memset(call->a, 0, a_rows * a_stride * real);
    return FL_OK;
}

fl_status fl_backward(const fl_model *model, const void *parameters, ptrdiff_t T, ptrdiff_t B,
                      const ptrdiff_t *starts, const void *x, ptrdiff_t x_stride_t,
                      ptrdiff_t x_stride_b, const void *h_0, const void *c_0, const void *tape,
                      const void *dy, ptrdiff_t dy_stride_t, ptrdiff_t dy_stride_b,
                      const void *dh_n, const void *dc_n, int accumulate, void *dx,
                      ptrdiff_t dx_stride_t, ptrdiff_t dx_stride_b, void *dh_0, void *dc_0,
                      void *dparameters) {
    size_t bytes;
    fl_status status = fl_tape_bytes(model, T, B, starts, &bytes);
    if (status != FL_OK) return status;
    if (parameters == NULL || (bytes > 0 && (tape == NULL || (dparameters && x == NULL))))
        return FL_ERROR_ARGUMENT;
    if (B == 0) { /* nothing to sum over */
        fl_parameter_count(&model->config, &bytes);
        if (dparameters && !accumulate) memset(dparameters, 0, bytes * model->kernels->real_bytes);
        return FL_OK;
    }
    call call = {.model = model, .parameters = parameters, .T = T, .B = B, .starts = starts};
    call.x = (fl_rows){(char *)(uintptr_t)x, x_stride_t, x_stride_b, starts};
    call.dy = (fl_rows){(char *)(uintptr_t)dy, dy_stride_t, dy_stride_b, starts};
    call.dx = (fl_rows){dx, dx_stride_t, dx_stride_b, starts};
    call.h_0 = h_0;
    call.c_0 = c_0;
    call.tape = tape;
    call.dh_n = dh_n;
    call.dc_n = dc_n;
    call.dh_0 = dh_0;
    call.dc_0 = dc_0;
    call.dparameters = dparameters;
    call.accumulate = accumulate;

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
